"""The whole product as a PostgreSQL role that can only add to the log, and what that role can't do."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.management import call_command

from audit import keeper, proofs, retention, tiles
from audit.models import Archive, Entry, Tile
from audit.search import Filters
from audit.writer import close_appender
from keys import administration, operations, snapshot, sweep, trail
from keys.errors import Conflict
from keys.services import operator
from tests.audit.helpers import use, write
from tests.audit.test_retention import sign
from tests.databases import Database, connected_to
from tests.house import House

pytestmark = pytest.mark.parametrize("database", ["postgresql"], indirect=True)

NAMES = {role: f"roles_{role}" for role in ("owner", "app", "signer", "auditor")}
WORDS = [f"--{role}={name}" for role, name in NAMES.items()]


def harden(tmp_path: Path) -> None:
    words = list(WORDS)
    for role in NAMES:
        path = tmp_path / f"{role}-password"
        path.write_text(f"the passphrase of {role}")
        path.chmod(0o600)
        words.append(f"--{role}-password-file={path}")
    call_command("harden_database", *words, stdout=StringIO())


@contextlib.contextmanager
def connected_as(database: Database, role: str) -> Iterator[None]:
    """Let Django, in all threads, sign in as a role."""
    close_appender()
    snapshot.cache.forget()
    as_role = f"{NAMES[role]}@"
    with connected_to(
        database.url.replace("postgres@", as_role),
        database.material_url.replace("postgres@", as_role),
    ):
        try:
            yield
        finally:
            close_appender()
            snapshot.cache.forget()


def as_psql(database: Database, role: str) -> psycopg.Connection[Any]:
    url = database.url.replace("postgres@", f"{NAMES[role]}@")
    return psycopg.connect(url, autocommit=True)


def test_the_whole_product_works_as_the_application_s_role(
    database: Database, house: House, tmp_path: Path
) -> None:
    harden(tmp_path)
    with connected_as(database, "app"):
        key = house.key(name="Made by the app")
        house.grant("billing", key, "encrypt", "decrypt")
        made = operations.encrypt(house.billing, str(key.id), plaintext=b"hello")
        administration.rotate_key(house.olga, str(key.id))
        house.run_due_jobs()
        again = operations.decrypt(house.billing, str(key.id), ciphertext=made.ciphertext)
        assert again.plaintext.reveal() == b"hello"
        records = house.key("patient-health", alias="records")
        request = house.pending(administration.rotate_key, house.olga, str(records.id))
        assert house.approve(str(request.id)).state == "executed"
        administration.place_hold(
            house.udo, name="Case 7", since="2020-01-01T00:00:00Z", reason="a court asked"
        )
        sweep.tidy()
        while keeper.work():
            pass
        found = trail.search_audit(house.udo, Filters(action="rotate_key"))
        assert {entry.object_id for entry in found} == {str(key.id), str(records.id)}
        assert trail.verify_audit(house.udo).ok
        assert proofs.inclusion(3, 5)
        assert house.last_entry(action="verify_audit")["outcome"] == "success"


FORBIDDEN = {
    "updating an entry": "UPDATE audit_entry SET reason = 'x'",
    "deleting an entry": "DELETE FROM audit_entry",
    "truncating the entries": "TRUNCATE audit_entry",
    "moving the head's id": "UPDATE audit_head SET id = 2",
    "deleting the head": "DELETE FROM audit_head",
    "changing a tile": "UPDATE audit_tile SET hashes = ''",
    "writing a checkpoint": (
        "INSERT INTO audit_checkpoint (size, root, origin, note, signed_at)"
        " VALUES (0, '', '', '', now())"
    ),
    "moving a hold": "UPDATE audit_legalhold SET until = now()",
    "deleting a hold": "DELETE FROM audit_legalhold",
    "moving a bundle": "UPDATE audit_archive SET place = 'x'",
    "another commitment": "UPDATE audit_personalvalue SET commitment = 'x'",
    "dropping a trigger": "DROP TRIGGER audit_entry_no_update ON audit_entry",
    "switching a trigger off": "ALTER TABLE audit_entry DISABLE TRIGGER ALL",
    "switching one trigger off": "ALTER TABLE audit_entry DISABLE TRIGGER audit_entry_no_update",
    "making a trigger": (
        "CREATE TRIGGER x BEFORE INSERT ON audit_entry FOR EACH ROW EXECUTE FUNCTION audit_refuse()"
    ),
    "acting as a replica": "SET session_replication_role = replica",
    "making a function": "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "replacing a function": (
        "CREATE OR REPLACE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql"
        " AS $$ BEGIN RETURN NEW; END $$"
    ),
    "making a table": "CREATE TABLE x (a int)",
    "making a temporary table": "CREATE TEMPORARY TABLE audit_head (id int)",
    "making a schema": "CREATE SCHEMA x",
    "making a rule": "CREATE RULE r AS ON DELETE TO audit_entry DO INSTEAD NOTHING",
    "becoming the owner": f"SET ROLE {NAMES['owner']}",
    "becoming the superuser": "SET ROLE postgres",
    "dropping a table": "DROP TABLE audit_entry CASCADE",
    "renaming a table": "ALTER TABLE audit_entry RENAME TO x",
    "migrating by hand": "INSERT INTO django_migrations (app, name, applied) VALUES ('a', 'b', now())",
}


def test_the_application_s_role_can_only_add_to_the_log(
    database: Database, house: House, tmp_path: Path
) -> None:
    harden(tmp_path)
    before = list(Entry.objects.order_by("index").values_list())
    with as_psql(database, "app") as connection:
        for what, sql in FORBIDDEN.items():
            with pytest.raises(psycopg.Error) as refused:
                connection.execute(sql)
                pytest.fail(what)
            assert refused.value.sqlstate in ("42501", "23001"), (what, refused.value)
        # Granting what one doesn't hold is but a warning.
        connection.execute(f"GRANT DELETE ON audit_entry TO {NAMES['app']}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM audit_entry")
    assert list(Entry.objects.order_by("index").values_list()) == before


def test_the_signer_s_role_can_sign_and_the_auditor_s_can_read(
    database: Database, house: House, tmp_path: Path
) -> None:
    harden(tmp_path)
    while tiles.build():
        pass
    with connected_as(database, "signer"):
        checkpoint = sign()
        assert proofs.root_at(checkpoint.size) == bytes(checkpoint.root)
    with as_psql(database, "signer") as connection:
        for sql in (
            "SELECT 1 FROM keys_key",
            "SELECT 1 FROM audit_personalvalue",
            "UPDATE audit_checkpoint SET size = 0",
            "UPDATE audit_head SET updated_at = now()",
            "INSERT INTO audit_change (epoch, subject) VALUES (1, 'x')",
            "SELECT body FROM audit_entry FOR UPDATE",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(sql)
    with as_psql(database, "auditor") as connection:
        count = connection.execute("SELECT count(*) FROM audit_entry").fetchone()
        assert count == (Entry.objects.count(),)
        for sql in (
            "SELECT 1 FROM keys_key",
            "SELECT 1 FROM django_session",
            "UPDATE audit_head SET updated_at = now()",
            "INSERT INTO audit_change (epoch, subject) VALUES (1, 'x')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(sql)
    for role in ("signer", "auditor"):
        url = database.material_url.replace("postgres@", f"{NAMES[role]}@")
        with pytest.raises(psycopg.OperationalError, match="permission denied"):
            psycopg.connect(url)


def test_what_the_owner_migrates_later_is_the_application_s_to_use(
    database: Database, house: House, tmp_path: Path
) -> None:
    harden(tmp_path)
    with connected_as(database, "owner"):
        call_command("migrate", verbosity=0)
        call_command("migrate", database="material", verbosity=0)
    with as_psql(database, "owner") as connection:
        connection.execute(
            "CREATE TABLE keys_later (id bigint GENERATED BY DEFAULT AS IDENTITY, a text)"
        )
    with as_psql(database, "app") as connection:
        connection.execute("INSERT INTO keys_later (a) VALUES ('x')")
        connection.execute("UPDATE keys_later SET a = 'y'")
        assert connection.execute("DELETE FROM keys_later RETURNING a").fetchall() == [("y",)]
    out = StringIO()
    call_command("harden_database", *WORDS, "--check", stdout=out)
    assert out.getvalue() == "Both databases are as they should be.\n"


def test_the_application_archives_and_only_the_owner_drops(
    database: Database, house: House, tmp_path: Path, settings: Any
) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    settings.AUDIT_ARCHIVE = folder.as_uri()
    harden(tmp_path)
    write(*(use() for _ in range(600 - Entry.objects.count())))
    with connected_as(database, "app"):
        tiles.build()
    sign()
    with connected_as(database, "app"):
        row = administration.archive_audit(operator(), entries=256)
        with pytest.raises(Conflict, match="role that owns the tables"):
            administration.drop_audit(operator(), "0")
        assert Archive.objects.get().dropped_at is None
    with connected_as(database, "owner"):
        administration.drop_audit(operator(), "0")
    assert retention.rows_left(row) == 0
    with connected_as(database, "app"):
        administration.restore_audit(house.udo, "0")
    assert retention.rows_left(row) == 256
    told = [
        entry for entry in house.entries() if entry["action"] in ("drop_audit", "restore_audit")
    ]
    assert [entry["outcome"] for entry in told] == ["failed", "success", "success"]
    assert json.dumps(told[-1]["facts"]).count(row.sha256) == 1
    assert Tile.objects.filter(level=0).count() >= 2
    assert datetime.now(UTC) > row.archived_at
