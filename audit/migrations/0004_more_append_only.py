"""Triggers for what stands beside the log, and the two ways in which an entry may go and come back.

An entry may be deleted where a verified bundle outside holds it, a tile holds its hash, a signed
checkpoint covers it and no legal hold reaches into the bundle's time, and put back later; see
docs/adr/0014. Never one of the newest: the head rests on them.

On PostgreSQL every function names its tables with their schema and its own search path: a
temporary table, or an operator of somebody's own, must not stand in for what a trigger reads.
"""

from django.db import migrations

SAYS = "the audit log is append-only"
# The newest entries stay where they are: the rightmost tile is not full yet.
NEWEST = 256

# What follows serves both databases; {s} is the schema with its dot on PostgreSQL.
REACHED = """EXISTS (
      SELECT 1 FROM {s}audit_legalhold h
      WHERE h.released_at IS NULL AND h.since <= a.last_at
        AND (h.until IS NULL OR h.until > a.first_at))"""


def in_tile(row):
    """Return the condition that the tree's tile holds a row's hash in the row's place."""
    return f"""EXISTS (
    SELECT 1 FROM {{s}}audit_tile t
    WHERE t.level = 0 AND t.number = {row}."index" / 256
      AND substr(t.hashes, CAST({row}."index" % 256 AS integer) * 32 + 1, 32) = {row}.leaf_hash)"""


def in_bundle(row, further):
    """Return the condition that a bundle holds a row, with a further condition on that bundle."""
    return f"""EXISTS (
    SELECT 1 FROM {{s}}audit_archive a
    WHERE a.start <= {row}."index" AND {row}."index" < a."end" AND {further})"""


MAY_GO = f"""
  OLD."index" < (SELECT size - {NEWEST} FROM {{s}}audit_head WHERE id = 1)
  AND EXISTS (SELECT 1 FROM {{s}}audit_checkpoint c WHERE c.size > OLD."index")
  AND {in_tile("OLD")}
  AND {in_bundle("OLD", f"a.verified_at IS NOT NULL AND a.dropped_at IS NOT NULL AND NOT {REACHED}")}
"""

# Never changed and never removed, whoever asks.
FIXED = ("audit_tile", "audit_checkpoint")
# Never removed; columns that never change, and what else an update must not do.
KEPT = {
    "audit_archive": (
        ("start", "end", "first_at", "last_at", "place", "name", "sha256", "archived_at"),
        """(OLD.verified_at IS NOT NULL
    AND (NEW.verified_at IS NULL OR NEW.verified_at <> OLD.verified_at))
  OR (NEW.dropped_at IS NOT NULL AND NEW.verified_at IS NULL)
  OR (OLD.retain_until IS NOT NULL
    AND (NEW.retain_until IS NULL OR NEW.retain_until < OLD.retain_until))
  OR (NEW.dropped_at IS NULL AND OLD.dropped_at IS NOT NULL AND NEW."end" - NEW.start <> (
    SELECT count(*) FROM {s}audit_entry e
    WHERE e."index" >= NEW.start AND e."index" < NEW."end"))""",
    ),
    "audit_legalhold": (
        ("id", "name", "reason", "since", "until", "placed_by", "placed_at"),
        """OLD.released_at IS NOT NULL
  OR (NEW.released_at IS NULL) <> (NEW.released_by IS NULL)""",
    ),
    # A person's datum may only be erased, and not while anything is under legal hold.
    "audit_personalvalue": (
        ("commitment", "created_at"),
        """OLD.erased_at IS NOT NULL OR NEW.erased_at IS NULL
  OR EXISTS (SELECT 1 FROM {s}audit_legalhold h WHERE h.released_at IS NULL)""",
    ),
}
# A bundle is registered before it is verified, holds whole tiles, and none that another holds.
ODD_BUNDLE = """NEW.verified_at IS NOT NULL OR NEW.dropped_at IS NOT NULL
  OR NEW.start % 256 <> 0 OR NEW."end" % 256 <> 0 OR NEW.start < 0
  OR EXISTS (
    SELECT 1 FROM {s}audit_archive a WHERE a.start < NEW."end" AND NEW.start < a."end")"""


def sqlite():
    """Return the statements for SQLite."""
    refuse = f"BEGIN SELECT RAISE(ABORT, '{SAYS}'); END"

    def trigger(table, name, verb, when=""):
        condition = f"\nWHEN {when.format(s='')}" if when else ""
        return f"CREATE TRIGGER {table}_{name} BEFORE {verb} ON {table}{condition}\n{refuse}"

    yield "DROP TRIGGER audit_entry_no_delete"
    yield "DROP TRIGGER audit_entry_only_next"
    yield trigger("audit_entry", "no_delete", "DELETE", f"NOT ({MAY_GO})")
    # INSERT OR REPLACE deletes without firing DELETE triggers: so what is there stays there.
    yield trigger(
        "audit_entry",
        "only_next",
        "INSERT",
        f"""EXISTS (SELECT 1 FROM audit_entry WHERE uuid = NEW.uuid)
  OR EXISTS (SELECT 1 FROM audit_entry WHERE "index" = NEW."index")
  OR (NEW."index" IS NOT (SELECT coalesce(max("index") + 1, 0) FROM audit_entry)
      AND NOT ({in_tile("NEW")} AND {in_bundle("NEW", "a.dropped_at IS NOT NULL")}))""",
    )
    for table in FIXED:
        for verb in ("UPDATE", "DELETE"):
            yield trigger(table, f"no_{verb.lower()}", verb)
    unique = {
        "audit_tile": "level = NEW.level AND number = NEW.number",
        "audit_checkpoint": "id = NEW.id",
        "audit_archive": "start = NEW.start",
        "audit_legalhold": "id = NEW.id OR name = NEW.name",
        "audit_personalvalue": (
            "commitment = NEW.commitment OR (subject = NEW.subject AND value = NEW.value)"
        ),
    }
    for table, same in unique.items():
        yield trigger(table, "no_replace", "INSERT", f"EXISTS (SELECT 1 FROM {table} WHERE {same})")
    yield trigger("audit_archive", "in_order", "INSERT", ODD_BUNDLE)
    for table, (columns, forbidden) in KEPT.items():
        yield trigger(table, "no_delete", "DELETE")
        changed = " OR ".join(f'NEW."{column}" IS NOT OLD."{column}"' for column in columns)
        yield trigger(table, "fixed", "UPDATE", f"{changed}\n  OR {forbidden}")


def postgresql(schema):
    """Return the statements for PostgreSQL; `schema` is quoted already."""
    dot = schema + "."
    fixed_path = f"SET search_path = pg_catalog, {schema}, pg_temp"
    refuse = f"RAISE EXCEPTION '{SAYS}' USING ERRCODE = 'restrict_violation';"

    def function(name, condition, declared="", first="", result="NEW"):
        return f"""CREATE OR REPLACE FUNCTION {dot}{name}() RETURNS trigger LANGUAGE plpgsql {fixed_path} AS $$
{declared}BEGIN
  {first}IF {condition.format(s=dot)} THEN {refuse} END IF;
  RETURN {result};
END $$"""

    def trigger(table, name, when, level, calls, *, fires="BEFORE", with_rows=""):
        yield f"""CREATE TRIGGER {name} {fires} {when} ON {table} {with_rows}
FOR EACH {level} EXECUTE FUNCTION {dot}{calls}()"""
        # ALWAYS: session_replication_role = replica does not switch it off.
        yield f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}"

    # Prefixes are ranges only where texts are ordered by their bytes.
    yield 'ALTER TABLE audit_posting ALTER COLUMN term TYPE text COLLATE "C"'
    yield f"ALTER FUNCTION {dot}audit_refuse() {fixed_path}"
    yield function(
        "audit_head_forward",
        """NEW.id <> OLD.id OR NEW.size < OLD.size OR NEW.epoch < OLD.epoch
     OR NEW.size <> (SELECT coalesce(max("index") + 1, 0) FROM {s}audit_entry)
     OR (NEW.size = OLD.size AND (NEW.root <> OLD.root OR NEW.frontier <> OLD.frontier))""",
    )
    yield "DROP TRIGGER audit_entry_no_change ON audit_entry"
    yield from trigger("audit_entry", "audit_entry_no_update", "UPDATE", "ROW", "audit_refuse")
    yield function("audit_entry_may_go", f"NOT ({MAY_GO})", result="OLD")
    yield from trigger(
        "audit_entry", "audit_entry_no_delete", "DELETE", "ROW", "audit_entry_may_go"
    )
    # Once for each statement, so that it costs an append little. What is new continues the log, what
    # is put back is what the tree has there.
    yield function(
        "audit_entry_in_place",
        f"""(first <> ended AND NOT EXISTS (
      SELECT 1 FROM {{s}}audit_entry e WHERE e."index" = first - 1))
    OR last - first + 1 <> added
    OR (back > 0 AND EXISTS (
      SELECT 1 FROM new_entries n WHERE n."index" < ended AND NOT (
        n.leaf_hash = sha256('\\x00'::bytea || n.body)
        AND {in_tile("n")} AND {in_bundle("n", "a.dropped_at IS NOT NULL")})))""",
        declared="DECLARE\n  ended bigint; first bigint; last bigint; added bigint; back bigint;\n",
        first=f"""SELECT size INTO ended FROM {dot}audit_head WHERE id = 1;
  SELECT min("index") FILTER (WHERE "index" >= ended), max("index"),
      count(*) FILTER (WHERE "index" >= ended), count(*) FILTER (WHERE "index" < ended)
    INTO first, last, added, back FROM new_entries;
  """,
        result="NULL",
    )
    yield from trigger(
        "audit_entry",
        "audit_entry_in_place",
        "INSERT",
        "STATEMENT",
        "audit_entry_in_place",
        fires="AFTER",
        with_rows="REFERENCING NEW TABLE AS new_entries",
    )
    for table in FIXED:
        yield from trigger(table, f"{table}_no_change", "UPDATE OR DELETE", "ROW", "audit_refuse")
    yield function("audit_archive_in_order", ODD_BUNDLE)
    yield from trigger(
        "audit_archive", "audit_archive_in_order", "INSERT", "ROW", "audit_archive_in_order"
    )
    for table, (columns, forbidden) in KEPT.items():
        yield from trigger(table, f"{table}_no_delete", "DELETE", "ROW", "audit_refuse")
        changed = " OR ".join(f'NEW."{name}" IS DISTINCT FROM OLD."{name}"' for name in columns)
        yield function(f"{table}_fixed", f"{changed}\n  OR {forbidden}")
        yield from trigger(table, f"{table}_fixed", "UPDATE", "ROW", f"{table}_fixed")
    for table in (*FIXED, *KEPT):
        yield from trigger(table, f"{table}_no_truncate", "TRUNCATE", "STATEMENT", "audit_refuse")


def add(apps, schema_editor):
    """Create the triggers."""
    connection = schema_editor.connection
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT quote_ident(current_schema())")
            statements = postgresql(cursor.fetchone()[0])
        else:
            statements = sqlite()
        for statement in statements:
            cursor.execute(statement)


class Migration(migrations.Migration):
    dependencies = [("audit", "0003_proofs_and_search")]

    # No way back: a log that can be migrated away is not append-only.
    operations = [migrations.RunPython(add)]
