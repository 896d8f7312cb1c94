"""Roles in PostgreSQL: made, made again, printed, checked."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

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
