"""The head row, and triggers that make the log append-only in the database itself.

On SQLite, Django alters a table by making a new one and dropping the old, and the triggers go
with it: a later migration that alters audit_entry or audit_head must call `add` again. A test
looks at the triggers of a migrated database.
"""

import hashlib
from datetime import datetime, timezone

from django.db import migrations

SAYS = "the audit log is append-only"

# INSERT OR REPLACE deletes rows without firing DELETE triggers, hence the guards on INSERT. The
# index is the row id, so "only the next index" covers replacement by either; the uuid is the other
# unique column.
SQLITE = f"""
CREATE TRIGGER audit_entry_no_update BEFORE UPDATE ON audit_entry
BEGIN SELECT RAISE(ABORT, '{SAYS}'); END;

CREATE TRIGGER audit_entry_no_delete BEFORE DELETE ON audit_entry
BEGIN SELECT RAISE(ABORT, '{SAYS}'); END;

CREATE TRIGGER audit_entry_only_next BEFORE INSERT ON audit_entry
WHEN NEW."index" IS NOT (SELECT coalesce(max("index") + 1, 0) FROM audit_entry)
  OR EXISTS (SELECT 1 FROM audit_entry WHERE uuid = NEW.uuid)
BEGIN SELECT RAISE(ABORT, '{SAYS}'); END;

CREATE TRIGGER audit_head_one_row BEFORE INSERT ON audit_head
BEGIN SELECT RAISE(ABORT, '{SAYS}'); END;

CREATE TRIGGER audit_head_no_delete BEFORE DELETE ON audit_head
BEGIN SELECT RAISE(ABORT, '{SAYS}'); END;

CREATE TRIGGER audit_head_only_forward BEFORE UPDATE ON audit_head
WHEN NEW.id IS NOT OLD.id
  OR NEW.size < OLD.size OR NEW.epoch < OLD.epoch
  OR NEW.size IS NOT (SELECT coalesce(max("index") + 1, 0) FROM audit_entry)
  OR (NEW.size = OLD.size AND (NEW.root IS NOT OLD.root OR NEW.frontier IS NOT OLD.frontier))
BEGIN SELECT RAISE(ABORT, '{SAYS}'); END;
"""

POSTGRESQL = f"""
CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '{SAYS}' USING ERRCODE = 'restrict_violation';
END $$;

CREATE FUNCTION audit_head_forward() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  entries bigint;
BEGIN
  EXECUTE format('SELECT coalesce(max("index") + 1, 0) FROM %I.audit_entry', TG_TABLE_SCHEMA)
    INTO entries;
  IF NEW.id <> OLD.id OR NEW.size < OLD.size OR NEW.epoch < OLD.epoch OR NEW.size <> entries
     OR (NEW.size = OLD.size AND (NEW.root <> OLD.root OR NEW.frontier <> OLD.frontier)) THEN
    RAISE EXCEPTION '{SAYS}' USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;

CREATE TRIGGER audit_entry_no_change BEFORE UPDATE OR DELETE ON audit_entry
  FOR EACH ROW EXECUTE FUNCTION audit_refuse();
CREATE TRIGGER audit_entry_no_truncate BEFORE TRUNCATE ON audit_entry
  FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();
CREATE TRIGGER audit_head_one_row BEFORE INSERT OR DELETE ON audit_head
  FOR EACH ROW EXECUTE FUNCTION audit_refuse();
CREATE TRIGGER audit_head_no_truncate BEFORE TRUNCATE ON audit_head
  FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();
CREATE TRIGGER audit_head_only_forward BEFORE UPDATE ON audit_head
  FOR EACH ROW EXECUTE FUNCTION audit_head_forward();

-- ALWAYS: session_replication_role = replica does not switch them off.
ALTER TABLE audit_entry ENABLE ALWAYS TRIGGER audit_entry_no_change;
ALTER TABLE audit_entry ENABLE ALWAYS TRIGGER audit_entry_no_truncate;
ALTER TABLE audit_head ENABLE ALWAYS TRIGGER audit_head_one_row;
ALTER TABLE audit_head ENABLE ALWAYS TRIGGER audit_head_no_truncate;
ALTER TABLE audit_head ENABLE ALWAYS TRIGGER audit_head_only_forward;
"""


def start(apps, schema_editor):
    """Write the head of the empty log."""
    apps.get_model("audit", "Head").objects.using(schema_editor.connection.alias).create(
        id=1,
        size=0,
        frontier=b"",
        root=hashlib.sha256(b"").digest(),
        epoch=0,
        updated_at=datetime.now(timezone.utc),
    )


def add(apps, schema_editor):
    """Create the triggers."""
    with schema_editor.connection.cursor() as cursor:
        if schema_editor.connection.vendor == "postgresql":
            cursor.execute(POSTGRESQL)
        elif schema_editor.connection.vendor == "sqlite":
            for statement in SQLITE.split("\n\n"):
                cursor.execute(statement)
        else:
            raise NotImplementedError("The audit log needs SQLite or PostgreSQL.")


class Migration(migrations.Migration):
    dependencies = [("audit", "0001_log")]

    # No way back: a log that can be migrated away is not append-only.
    operations = [migrations.RunPython(start), migrations.RunPython(add)]
