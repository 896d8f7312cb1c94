"""Is the log guarded on PostgreSQL as the migrations left it, and who could walk past its guards?

What must be there is read from the migration that makes it, so that it is said once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from importlib import import_module
from typing import Any

_guards = import_module("audit.migrations.0004_more_append_only")

# As in pg_trigger.tgtype.
_BITS = {"ROW": 1, "BEFORE": 2, "INSERT": 4, "DELETE": 8, "UPDATE": 16, "TRUNCATE": 32}
# Predefined roles that are as good as the owner, or as a superuser.
_MIGHTY = ("pg_write_all_data", "pg_execute_server_program", "pg_write_server_files")
_WITHOUT_CREATEROLE = 160_000  # from this version on, CREATEROLE makes nobody a member of our roles


def guard_faults(cursor: Any) -> list[str]:
    """Return in sentences which trigger or function of the log is missing, changed or switched off.

    Also what is there beside them and could walk past them: other triggers, rules, row security.
    """
    cursor.execute("SELECT quote_ident(current_schema())")
    (schema,) = cursor.fetchone()
    return [*_trigger_faults(cursor), *_function_faults(cursor, schema), *_beside(cursor)]


def tables() -> list[str]:
    """Return the names of the tables that triggers guard."""
    return sorted({one.table for one in _guards.triggers()})


def _trigger_faults(cursor: Any) -> Iterator[str]:
    cursor.execute(
        "SELECT c.relname, t.tgname, t.tgenabled::text, t.tgtype, p.proname,"
        " p.pronamespace = c.relnamespace, coalesce(t.tgnewtable, ''),"
        " t.tgqual IS NULL AND t.tgnargs = 0 AND t.tgattr = ''::int2vector AND NOT t.tgdeferrable"
        " AND t.tgoldtable IS NULL"
        " FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid"
        " WHERE c.relnamespace = current_schema()::regnamespace AND c.relname = ANY(%s)"
        " AND NOT t.tgisinternal ORDER BY 1, 2",
        [tables()],
    )
    there = {(table, name): rest for table, name, *rest in cursor.fetchall()}
    for one in _guards.triggers():
        found = there.pop((one.table, one.name), None)
        if found is None:
            yield f"The trigger {one.name} on {one.table} is missing."
            continue
        enabled, *built = found
        if enabled != "A":
            yield f"The trigger {one.name} on {one.table} does not always fire."
        kind = sum(_BITS.get(word, 0) for word in (*one.fires.split(), one.level))
        if built != [kind, one.function, True, one.with_rows, True]:
            yield f"The trigger {one.name} on {one.table} is not the one that was made."
    for table, name in there:
        yield f"There is a trigger {name} on {table} that is not ours."


def _function_faults(cursor: Any, schema: str) -> Iterator[str]:
    wanted: dict[str, str] = _guards.functions(schema)
    cursor.execute(
        "SELECT p.proname, p.prosrc, l.lanname, p.prosecdef, array_to_string(p.proconfig, '; ')"
        " FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang"
        " WHERE p.pronamespace = current_schema()::regnamespace AND p.pronargs = 0"
        " AND p.proname = ANY(%s)",
        [list(wanted)],
    )
    there = {name: tuple(rest) for name, *rest in cursor.fetchall()}
    path = f"search_path={_guards.search_path(schema)}"
    for name, source in wanted.items():
        if name not in there:
            yield f"The function {name} is missing."
        elif there[name] != (source, "plpgsql", False, path):
            yield f"The function {name} is not the one that was made."


def _beside(cursor: Any) -> Iterator[str]:
    cursor.execute(
        "SELECT c.relname, r.rulename, c.relrowsecurity FROM pg_class c"
        " LEFT JOIN pg_rewrite r ON r.ev_class = c.oid"
        " WHERE c.relnamespace = current_schema()::regnamespace AND c.relname = ANY(%s)"
        " AND (r.rulename IS NOT NULL OR c.relrowsecurity) ORDER BY 1, 2",
        [tables()],
    )
    for table, rule, security in cursor.fetchall():
        if rule is not None:
            yield f"There is a rule {rule} on {table}."
        if security:
            yield f"{table} has row security: it may hide rows."


def login_faults(
    cursor: Any, roles: Collection[str], members: Mapping[str, str], administrators: Collection[str]
) -> list[str]:
    """Return in sentences which logins could do what only our roles should.

    `roles` are ours, `members` says which login may act as which of them, and `administrators` are
    known to be superusers or to act as the owner; the cluster's first superuser always is.
    """
    cursor.execute("SHOW server_version_num")
    makers = int(cursor.fetchone()[0]) < _WITHOUT_CREATEROLE
    cursor.execute(
        "SELECT l.rolname, l.rolsuper, l.rolcreaterole, r.rolname FROM pg_roles l"
        " LEFT JOIN pg_roles r ON r.rolname = ANY(%s) AND r.oid <> l.oid AND NOT l.rolsuper"
        " AND pg_has_role(l.oid, r.oid, 'MEMBER')"
        " WHERE l.rolcanlogin AND l.oid <> 10 AND l.rolname <> ALL(%s) ORDER BY 1, 4",
        [[*roles, *_MIGHTY], [*roles, *administrators]],
    )
    found: dict[str, None] = {}
    for login, superuser, creates, role in cursor.fetchall():
        if superuser:
            found[f"{login} is a superuser; name it with --administrator if it should be."] = None
        elif creates and makers:
            found[f"{login} may create roles, and make itself a member of ours."] = None
        if role is not None and members.get(login) != role:
            found[f"{login} can act as {role}."] = None
    return list(found)


def grant_faults(cursor: Any, roles: Collection[str], administrators: Collection[str]) -> list[str]:
    """Return in sentences who else was granted something on the log's tables, directly."""
    cursor.execute(
        "WITH t AS (SELECT oid, relname, relacl, relowner FROM pg_class"
        "  WHERE relnamespace = current_schema()::regnamespace AND relname LIKE 'audit\\_%%'),"
        " g AS (SELECT relname, relowner, (aclexplode(relacl)).* FROM t UNION ALL"
        "  SELECT relname, relowner, (aclexplode(a.attacl)).* FROM t JOIN pg_attribute a"
        "  ON a.attrelid = t.oid WHERE NOT a.attisdropped)"
        " SELECT DISTINCT coalesce(r.rolname, CASE g.grantee WHEN 0 THEN 'PUBLIC'"
        "  ELSE 'somebody' END), g.privilege_type, g.relname FROM g"
        " LEFT JOIN pg_roles r ON r.oid = g.grantee WHERE g.grantee <> g.relowner"
        " AND coalesce(r.rolname, '') <> ALL(%s) ORDER BY 1, 3, 2",
        [[*roles, *administrators]],
    )
    return [
        f"{name} should not have {right} on {table}." for name, right, table in cursor.fetchall()
    ]
