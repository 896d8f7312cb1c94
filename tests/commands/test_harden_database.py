"""Roles in PostgreSQL: made, made again, printed, checked."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command

from tests.databases import Database, connected_to

POSTGRESQL = pytest.mark.parametrize("database", ["postgresql"], indirect=True)
NAMES = ("--owner=hd_owner", "--app=hd_app", "--signer=hd_signer", "--auditor=hd_auditor")


def run(*words: str) -> tuple[int, str]:
    out = StringIO()
    try:
        call_command("harden_database", *words, stdout=out)
    except SystemExit as end:
        return int(str(end.code)), out.getvalue()
    return 0, out.getvalue()


@POSTGRESQL
def test_it_makes_the_roles_and_finds_them_as_they_should_be(
    database: Database, tmp_path: Path
) -> None:
    secret = tmp_path / "password"
    secret.write_text("a passphrase of the application\n")
    secret.chmod(0o600)
    code, told = run(*NAMES, "--check")
    assert code == 1
    words = (*NAMES, f"--app-password-file={secret}")
    for _ in range(2):
        code, told = run(*words)
        assert code == 0
        assert "hd_app" in told
        assert "passphrase" not in told
        code, told = run(*NAMES, "--check")
        assert (code, told) == (0, "Both databases are as they should be.\n")
    with connected_to(
        database.url.replace("postgres@", "hd_app@"),
        database.material_url.replace("postgres@", "hd_app@"),
    ):
        assert run(*NAMES, "--check")[0] == 0  # anybody may look
        with pytest.raises(CommandError, match="refuses"):
            run(*NAMES)


@POSTGRESQL
@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("GRANT DELETE ON audit_entry TO hd_app", "hd_app should not have DELETE on audit_entry."),
        ("GRANT UPDATE (body) ON audit_entry TO hd_app", "not have UPDATE on audit_entry"),
        ("REVOKE INSERT ON audit_entry FROM hd_app", "hd_app should have INSERT on audit_entry"),
        ("GRANT UPDATE ON audit_head TO hd_app", "hd_app should have UPDATE(size, frontier"),
        ("GRANT hd_owner TO hd_app", "hd_app is a member of hd_owner."),
        ("ALTER ROLE hd_app SUPERUSER", "hd_app may do more"),
        ("ALTER TABLE audit_tile OWNER TO postgres", "audit_tile belongs to postgres."),
        ("ALTER FUNCTION audit_refuse() OWNER TO postgres", "audit_refuse() belongs"),
        ("GRANT CREATE ON SCHEMA public TO hd_app", "hd_app may create"),
        ("GRANT TEMPORARY ON DATABASE {db} TO PUBLIC", "may create"),
        ("ALTER TABLE audit_entry DISABLE TRIGGER audit_entry_no_delete", "not always fire"),
        ("ALTER TABLE audit_entry ENABLE TRIGGER audit_entry_no_delete", "not always fire"),
        (
            "DROP TRIGGER audit_entry_no_delete ON audit_entry",
            "audit_entry_no_delete on audit_entry is m",
        ),
        (
            "DROP TRIGGER audit_entry_no_delete ON audit_entry; CREATE TRIGGER audit_entry_no_delete"
            " BEFORE DELETE ON audit_entry FOR EACH ROW WHEN (false)"
            " EXECUTE FUNCTION audit_refuse();"
            " ALTER TABLE audit_entry ENABLE ALWAYS TRIGGER audit_entry_no_delete",
            "audit_entry_no_delete on audit_entry is not the one that was made.",
        ),
        (
            "CREATE TRIGGER a BEFORE INSERT ON audit_tile FOR EACH ROW"
            " EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            "There is a trigger a on audit_tile",
        ),
        (
            "CREATE OR REPLACE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql SET search_path"
            " = pg_catalog, public, pg_temp AS $$ BEGIN RETURN NEW; END $$; -- TRIGGER",
            "The function audit_refuse is not the one that was made.",
        ),
        (
            "ALTER FUNCTION audit_entry_may_go() RESET search_path; -- TRIGGER",
            "The function audit_entry_may_go is not the one that was made.",
        ),
        (
            "CREATE RULE r AS ON DELETE TO audit_entry DO INSTEAD NOTHING; -- TRIGGER",
            "There is a rule r on audit_entry.",
        ),
        (
            "ALTER TABLE audit_head ENABLE ROW LEVEL SECURITY; -- TRIGGER",
            "audit_head has row security",
        ),
        ("GRANT SELECT ON keys_key TO hd_auditor", "hd_auditor should not have SELECT on keys_key"),
    ],
)
def test_the_check_finds_what_was_loosened_and_the_command_mends_it(
    database: Database, sql: str, says: str
) -> None:
    run(*NAMES)
    with psycopg.connect(database.url) as connection:
        name = connection.info.dbname
        connection.execute(sql.format(db=name))
    code, told = run(*NAMES, "--check")
    assert code == 1
    assert says in told
    run(*NAMES)
    code, told = run(*NAMES, "--check")
    if "TRIGGER" in sql:  # a trigger that was switched off is for people to look into
        assert code == 1
    else:
        assert (code, told) == (0, "Both databases are as they should be.\n")


@POSTGRESQL
def test_it_prints_what_it_would_do(database: Database, tmp_path: Path) -> None:
    code, told = run("--app=a b", "--owner=pr_owner", "--print", "--app-password-file=/nowhere")
    assert code == 0
    assert 'CREATE ROLE "a b" NOLOGIN;' in told
    assert "\\password a b" in told
    assert 'GRANT SELECT, INSERT ON "public"."audit_entry" TO "a b";' in told
    with psycopg.connect(database.url) as connection:
        found = connection.execute("SELECT count(*) FROM pg_roles WHERE rolname = 'pr_owner'")
        assert found.fetchone() == (0,)


@POSTGRESQL
def test_a_password_file_that_others_can_read_is_refused(
    database: Database, tmp_path: Path
) -> None:
    secret = tmp_path / "password"
    secret.write_text("a passphrase")
    secret.chmod(0o644)
    with pytest.raises(CommandError, match="chmod 600"):
        run(*NAMES, f"--app-password-file={secret}")
    with pytest.raises(CommandError, match="No such file"):
        run(*NAMES, "--app-password-file=/nowhere")
    with pytest.raises(CommandError, match="different names"):
        run("--owner=one", "--app=one")


def test_on_sqlite_it_says_what_it_can_t_do(database: Database) -> None:
    code, told = run()
    assert code == 0
    assert "SQLite" in told
    assert run("--check")[0] == 1


@pytest.fixture
def strangers(database: Database) -> Iterator[psycopg.Connection[Any]]:
    """A connection of the superuser; who is called hd_x_... afterwards is gone, since roles outlive a test."""
    with psycopg.connect(database.url, autocommit=True) as connection:
        yield connection
        found = connection.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE 'hd\\_x\\_%'")
        for (name,) in found.fetchall():
            connection.execute(f"DROP OWNED BY {name}")
            connection.execute(f"DROP ROLE {name}")


@POSTGRESQL
def test_the_check_names_who_else_can_reach_the_log(
    database: Database, strangers: psycopg.Connection[Any]
) -> None:
    run(*NAMES)
    for statement in (
        "CREATE ROLE hd_x_super LOGIN SUPERUSER",
        "CREATE ROLE hd_x_group NOLOGIN",
        "GRANT hd_owner TO hd_x_group",
        "CREATE ROLE hd_x_member LOGIN IN ROLE hd_x_group",
        "CREATE ROLE hd_x_web LOGIN IN ROLE hd_app",
        "CREATE ROLE hd_x_files LOGIN IN ROLE pg_write_server_files",
        "CREATE ROLE hd_x_granted LOGIN",
        "GRANT INSERT ON audit_entry TO hd_x_granted",
        "GRANT SELECT (value) ON audit_personalvalue TO hd_x_granted",
        "GRANT SELECT ON audit_head TO PUBLIC",
    ):
        strangers.execute(statement)
    code, told = run(*NAMES, "--check")
    assert code == 1
    for sentence in (
        "hd_x_super is a superuser",
        "hd_x_member can act as hd_owner.",
        "hd_x_web can act as hd_app.",
        "hd_x_files can act as pg_write_server_files.",
        "hd_x_granted should not have INSERT on audit_entry.",
        "hd_x_granted should not have SELECT on audit_personalvalue.",
        "PUBLIC should not have SELECT on audit_head.",
    ):
        assert f"default: {sentence}" in told
    assert "material: hd_x_super is a superuser" in told
    assert "postgres" not in told
    for statement in (
        "REVOKE ALL ON audit_entry, audit_personalvalue FROM hd_x_granted",
        "REVOKE SELECT (value) ON audit_personalvalue FROM hd_x_granted",
        "REVOKE ALL ON audit_head FROM PUBLIC",
        "DROP ROLE hd_x_files",
    ):
        strangers.execute(statement)
    known = ("--app-login=hd_x_web", "--administrator=hd_x_super", "--administrator=hd_x_member")
    assert run(*NAMES, "--check", *known) == (0, "Both databases are as they should be.\n")
