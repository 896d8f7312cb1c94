"""Triggers for what stands beside the log, and the two ways in which an entry may go and come back.

An entry may be deleted where a verified bundle outside holds it, a tile holds its hash, a signed
checkpoint covers it and no legal hold reaches into the bundle's time, and put back later; see
docs/adr/0014. Never one of the newest: the head rests on them.

On PostgreSQL every function names its tables with their schema and its own search path: a
temporary table, or an operator of somebody's own, must not stand in for what a trigger reads.
`functions` and `triggers` say what must be there: `harden_database --check` compares it.
"""

from typing import NamedTuple

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
# A bundle is registered before it is verified, follows the one before, and its times are those of
# its entries: holds are compared with them.
ODD_BUNDLE = """NEW.verified_at IS NOT NULL OR NEW.dropped_at IS NOT NULL
  OR NEW.start % 256 <> 0 OR NEW."end" % 256 <> 0
  OR NEW.start <> (SELECT coalesce(max(a."end"), 0) FROM {s}audit_archive a)
  OR NOT EXISTS (
    SELECT 1 FROM (
      SELECT count(*) AS number, min(e.at) AS first_at, max(e.at) AS last_at
      FROM {s}audit_entry e WHERE e."index" >= NEW.start AND e."index" < NEW."end") t
    WHERE t.number = NEW."end" - NEW.start
      AND t.first_at = NEW.first_at AND t.last_at = NEW.last_at)"""


def tile_of(table, number, hash_, level=""):
    """Return the condition that a tile's hashes are those of the 256 rows that it covers."""
    return f"""256 = (
    SELECT count(*) FROM {{s}}{table} b
    WHERE {level}b.{number} >= NEW.number * 256 AND b.{number} < NEW.number * 256 + 256
      AND b.{hash_} = substr(NEW.hashes, CAST(b.{number} % 256 AS integer) * 32 + 1, 32))"""


# Tiles are whole, follow each other, and hold what the entries, or the tiles below them, have.
ODD_TILE = f"""length(NEW.hashes) <> 8192 OR length(NEW.root) <> 32 OR NEW.level < 0
  OR NEW.number <> (
    SELECT coalesce(max(t.number) + 1, 0) FROM {{s}}audit_tile t WHERE t.level = NEW.level)
  OR (NEW.level = 0 AND NOT {tile_of("audit_entry", '"index"', "leaf_hash")})
  OR (NEW.level > 0
    AND NOT {tile_of("audit_tile", "number", "root", "b.level = NEW.level - 1 AND ")})"""


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
  OR EXISTS (SELECT 1 FROM audit_entry WHERE "index" = NEW."index" OR rowid = NEW.rowid)
  OR (NEW."index" IS NOT (SELECT coalesce(max("index") + 1, 0) FROM audit_entry)
      AND NOT ({in_tile("NEW")} AND {in_bundle("NEW", "a.dropped_at IS NOT NULL")}))""",
    )
    for table in FIXED:
        for verb in ("UPDATE", "DELETE"):
            yield trigger(table, f"no_{verb.lower()}", verb)
    unique = {
        "audit_tile": "(level = NEW.level AND number = NEW.number)",
        "audit_checkpoint": "id = NEW.id",
        "audit_archive": "start = NEW.start",
        "audit_legalhold": "id = NEW.id OR name = NEW.name",
        "audit_personalvalue": (
            "commitment = NEW.commitment OR (subject = NEW.subject AND value = NEW.value)"
        ),
    }
    # The row id is a key too, a hidden one where it isn't the primary key; -1 where none was given.
    for table, same in unique.items():
        there = f"SELECT 1 FROM {table} WHERE {same} OR rowid = NEW.rowid"
        yield trigger(table, "no_replace", "INSERT", f"EXISTS ({there})")
    yield trigger("audit_archive", "in_order", "INSERT", ODD_BUNDLE)
    # SQLite knows no SHA-256: a tile's root is not computed here, the verifier does.
    yield trigger("audit_tile", "in_order", "INSERT", ODD_TILE)
    for table, (columns, forbidden) in KEPT.items():
        yield trigger(table, "no_delete", "DELETE")
        changed = " OR ".join(f'NEW."{name}" IS NOT OLD."{name}"' for name in columns)
        yield trigger(
            table, "fixed", "UPDATE", f"NEW.rowid IS NOT OLD.rowid OR {changed}\n  OR {forbidden}"
        )


class Trigger(NamedTuple):
    """A trigger on PostgreSQL: it always fires, and calls a function without arguments."""

    table: str
    name: str
    fires: str  # such as "BEFORE UPDATE OR DELETE"
    level: str  # ROW or STATEMENT
    function: str
    with_rows: str = ""  # what the statement's rows are called


# Of migration 2, and still there.
EARLIER = (
    Trigger(
        "audit_entry", "audit_entry_no_truncate", "BEFORE TRUNCATE", "STATEMENT", "audit_refuse"
    ),
    Trigger("audit_head", "audit_head_one_row", "BEFORE INSERT OR DELETE", "ROW", "audit_refuse"),
    Trigger("audit_head", "audit_head_no_truncate", "BEFORE TRUNCATE", "STATEMENT", "audit_refuse"),
    Trigger("audit_head", "audit_head_only_forward", "BEFORE UPDATE", "ROW", "audit_head_forward"),
)


def new_triggers():
    """Yield the triggers that this migration adds."""
    row, statement, refuse = "ROW", "STATEMENT", "audit_refuse"
    entry = "audit_entry"
    yield Trigger(entry, "audit_entry_no_update", "BEFORE UPDATE", row, refuse)
    yield Trigger(entry, "audit_entry_no_delete", "BEFORE DELETE", row, "audit_entry_may_go")
    # Once for each statement, so that it costs an append little. What is new continues the log, what
    # is put back is what the tree has there.
    called = "audit_entry_in_place"
    yield Trigger(entry, called, "AFTER INSERT", statement, called, "new_entries")
    for table in FIXED:
        yield Trigger(table, f"{table}_no_change", "BEFORE UPDATE OR DELETE", row, refuse)
    for table in ("audit_archive", "audit_tile"):
        yield Trigger(table, f"{table}_in_order", "BEFORE INSERT", row, f"{table}_in_order")
    for table in KEPT:
        yield Trigger(table, f"{table}_no_delete", "BEFORE DELETE", row, refuse)
        yield Trigger(table, f"{table}_fixed", "BEFORE UPDATE", row, f"{table}_fixed")
    for table in (*FIXED, *KEPT):
        yield Trigger(table, f"{table}_no_truncate", "BEFORE TRUNCATE", statement, refuse)


def triggers():
    """Return every trigger that guards the log on PostgreSQL."""
    return [*EARLIER, *new_triggers()]


def _source(schema, condition, declared="", first="", result="NEW"):
    """Return a function's source, which refuses where the condition holds."""
    condition = condition.format(s=schema + ".")
    return f"""
{declared}BEGIN
  {first}IF {condition} THEN
    RAISE EXCEPTION '{SAYS}' USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN {result};
END """


def functions(schema):
    """Return the source of every function that they call, by name; `schema` is quoted already."""
    dot = schema + "."
    made = {
        "audit_refuse": _source(schema, "true"),
        "audit_head_forward": _source(
            schema,
            """NEW.id <> OLD.id OR NEW.size < OLD.size OR NEW.epoch < OLD.epoch
     OR NEW.size <> (SELECT coalesce(max("index") + 1, 0) FROM {s}audit_entry)
     OR (NEW.size = OLD.size AND (NEW.root <> OLD.root OR NEW.frontier <> OLD.frontier))""",
        ),
        "audit_entry_may_go": _source(schema, f"NOT ({MAY_GO})", result="OLD"),
        "audit_entry_in_place": _source(
            schema,
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
        ),
        "audit_archive_in_order": _source(schema, ODD_BUNDLE),
        # The root is hashed from the tile's own 256, pair by pair (RFC 9162, 2.1).
        "audit_tile_in_order": _source(
            schema,
            f"{ODD_TILE}\n  OR NEW.root <> hashed",
            declared="DECLARE\n  hashed bytea := NEW.hashes;\n",
            first="""WHILE length(hashed) > 32 LOOP
    SELECT string_agg(sha256('\\x01'::bytea || substr(hashed, pair * 64 + 1, 64)), ''::bytea
        ORDER BY pair)
      INTO hashed FROM generate_series(0, length(hashed) / 64 - 1) pair;
  END LOOP;
  """,
        ),
    }
    for table, (columns, forbidden) in KEPT.items():
        changed = " OR ".join(f'NEW."{name}" IS DISTINCT FROM OLD."{name}"' for name in columns)
        made[f"{table}_fixed"] = _source(schema, f"{changed}\n  OR {forbidden}")
    return made


def search_path(schema):
    """Return where every function looks names up, as PostgreSQL keeps it."""
    return f"pg_catalog, {schema}, pg_temp"


def postgresql(schema):
    """Return the statements for PostgreSQL; `schema` is quoted already."""
    # Prefixes are ranges only where texts are ordered by their bytes.
    yield 'ALTER TABLE audit_posting ALTER COLUMN term TYPE text COLLATE "C"'
    for name, source in functions(schema).items():
        yield f"""CREATE OR REPLACE FUNCTION {schema}.{name}() RETURNS trigger LANGUAGE plpgsql
SET search_path = {search_path(schema)} AS $${source}$$"""
    yield "DROP TRIGGER audit_entry_no_change ON audit_entry"
    for one in new_triggers():
        rows = f"REFERENCING NEW TABLE AS {one.with_rows}" if one.with_rows else ""
        yield f"""CREATE TRIGGER {one.name} {one.fires} ON {one.table} {rows}
FOR EACH {one.level} EXECUTE FUNCTION {schema}.{one.function}()"""
        # ALWAYS: session_replication_role = replica does not switch it off.
        yield f"ALTER TABLE {one.table} ENABLE ALWAYS TRIGGER {one.name}"


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
