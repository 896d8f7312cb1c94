"""Triggers for what stands beside the log, and the two ways in which an entry may go and come back.

An entry may be deleted where a verified bundle outside holds it and no legal hold reaches into the
bundle's time, and put back later; see docs/adr/0014. Never the newest one: the head rests on it.
"""

from django.db import migrations

SAYS = "the audit log is append-only"

# Whether the entry OLD may go; `"end"` is a word of SQL. The same text serves both databases.
MAY_GO = """
  OLD."index" < (SELECT size - 1 FROM audit_head WHERE id = 1)
  AND EXISTS (
    SELECT 1 FROM audit_archive a
    WHERE a.start <= OLD."index" AND OLD."index" < a."end" AND a.verified_at IS NOT NULL
      AND NOT EXISTS (
        SELECT 1 FROM audit_legalhold h
        WHERE h.released_at IS NULL AND h.since <= a.last_at
          AND (h.until IS NULL OR h.until > a.first_at)))
"""

# Never changed and never removed, whoever asks.
FIXED = ("audit_tile", "audit_checkpoint")
# Never removed; what may change is named, and only from "not yet".
KEPT = {
    "audit_archive": ("start", "end", "first_at", "last_at", "place", "name", "sha256", "archived_at"),
    "audit_legalhold": ("id", "name", "reason", "since", "until", "placed_by", "placed_at"),
}

SQLITE = [
    "DROP TRIGGER audit_entry_no_delete",
    "DROP TRIGGER audit_entry_only_next",
    f"""CREATE TRIGGER audit_entry_no_delete BEFORE DELETE ON audit_entry
WHEN NOT ({MAY_GO})
BEGIN SELECT RAISE(ABORT, '{SAYS}'); END""",
    # INSERT OR REPLACE deletes without firing DELETE triggers: so what is there stays there.
    f"""CREATE TRIGGER audit_entry_only_next BEFORE INSERT ON audit_entry
WHEN EXISTS (SELECT 1 FROM audit_entry WHERE uuid = NEW.uuid)
  OR EXISTS (SELECT 1 FROM audit_entry WHERE "index" = NEW."index")
  OR (NEW."index" IS NOT (SELECT coalesce(max("index") + 1, 0) FROM audit_entry)
      AND NOT EXISTS (
        SELECT 1 FROM audit_archive a
        WHERE a.start <= NEW."index" AND NEW."index" < a."end" AND a.dropped_at IS NOT NULL))
BEGIN SELECT RAISE(ABORT, '{SAYS}'); END""",
    *(
        f"""CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table}
BEGIN SELECT RAISE(ABORT, '{SAYS}'); END"""
        for table in FIXED
        for verb in ("UPDATE", "DELETE")
    ),
    """CREATE TRIGGER audit_tile_no_replace BEFORE INSERT ON audit_tile
WHEN EXISTS (SELECT 1 FROM audit_tile WHERE level = NEW.level AND number = NEW.number)
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END""",
    """CREATE TRIGGER audit_checkpoint_no_replace BEFORE INSERT ON audit_checkpoint
WHEN EXISTS (SELECT 1 FROM audit_checkpoint WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END""",
    """CREATE TRIGGER audit_archive_no_replace BEFORE INSERT ON audit_archive
WHEN EXISTS (SELECT 1 FROM audit_archive WHERE start = NEW.start)
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END""",
    """CREATE TRIGGER audit_legalhold_no_replace BEFORE INSERT ON audit_legalhold
WHEN EXISTS (SELECT 1 FROM audit_legalhold WHERE id = NEW.id OR name = NEW.name)
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END""",
    *(
        f"""CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table}
BEGIN SELECT RAISE(ABORT, '{SAYS}'); END"""
        for table in KEPT
    ),
    *(
        f"CREATE TRIGGER {table}_fixed BEFORE UPDATE ON {table}\nWHEN "
        + " OR ".join(f'NEW."{column}" IS NOT OLD."{column}"' for column in columns)
        + f"\nBEGIN SELECT RAISE(ABORT, '{SAYS}'); END"
        for table, columns in KEPT.items()
    ),
    f"""CREATE TRIGGER audit_archive_verified_for_good BEFORE UPDATE ON audit_archive
WHEN OLD.verified_at IS NOT NULL AND NEW.verified_at IS NULL
BEGIN SELECT RAISE(ABORT, '{SAYS}'); END""",
    f"""CREATE TRIGGER audit_legalhold_released_once BEFORE UPDATE ON audit_legalhold
WHEN OLD.released_at IS NOT NULL
BEGIN SELECT RAISE(ABORT, '{SAYS}'); END""",
]

RAISE = f"RAISE EXCEPTION '{SAYS}' USING ERRCODE = 'restrict_violation';"


def _fixed(table, columns):
    changed = " OR ".join(f'NEW."{column}" IS DISTINCT FROM OLD."{column}"' for column in columns)
    once = {
        "audit_archive": "OLD.verified_at IS NOT NULL AND NEW.verified_at IS NULL",
        "audit_legalhold": "OLD.released_at IS NOT NULL",
    }[table]
    return [
        f"""CREATE FUNCTION {table}_fixed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF {changed} OR ({once}) THEN {RAISE} END IF;
  RETURN NEW;
END $$""",
        f"""CREATE TRIGGER {table}_fixed BEFORE UPDATE ON {table}
FOR EACH ROW EXECUTE FUNCTION {table}_fixed()""",
        f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_fixed",
    ]


def _refused(table, name, when, level):
    return [
        f"CREATE TRIGGER {name} BEFORE {when} ON {table} FOR EACH {level} EXECUTE FUNCTION audit_refuse()",
        f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}",
    ]


POSTGRESQL = [
    # Prefixes are ranges only where texts are ordered by their bytes.
    'ALTER TABLE audit_term ALTER COLUMN text TYPE text COLLATE "C"',
    'ALTER TABLE audit_posting ALTER COLUMN term TYPE text COLLATE "C"',
    "DROP TRIGGER audit_entry_no_change ON audit_entry",
    *_refused("audit_entry", "audit_entry_no_update", "UPDATE", "ROW"),
    f"""CREATE FUNCTION audit_entry_may_go() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NOT ({MAY_GO}) THEN {RAISE} END IF;
  RETURN OLD;
END $$""",
    """CREATE TRIGGER audit_entry_no_delete BEFORE DELETE ON audit_entry
FOR EACH ROW EXECUTE FUNCTION audit_entry_may_go()""",
    "ALTER TABLE audit_entry ENABLE ALWAYS TRIGGER audit_entry_no_delete",
    *(
        statement
        for table in FIXED
        for statement in _refused(table, f"{table}_no_change", "UPDATE OR DELETE", "ROW")
    ),
    *(
        statement
        for table in KEPT
        for statement in _refused(table, f"{table}_no_delete", "DELETE", "ROW")
    ),
    *(
        statement
        for table in (*FIXED, *KEPT)
        for statement in _refused(table, f"{table}_no_truncate", "TRUNCATE", "STATEMENT")
    ),
    *(statement for table, columns in KEPT.items() for statement in _fixed(table, columns)),
]


def add(apps, schema_editor):
    """Create the triggers."""
    statements = POSTGRESQL if schema_editor.connection.vendor == "postgresql" else SQLITE
    with schema_editor.connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


class Migration(migrations.Migration):
    dependencies = [("audit", "0003_proofs_and_search")]

    # No way back: a log that can be migrated away is not append-only.
    operations = [migrations.RunPython(add)]
