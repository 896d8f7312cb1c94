"""PostgreSQL roles, so that what runs can't do to the log what only its owner may do.

    owner     owns every table and function; migrates, and drops what is archived
    app       the console, its workers and the keeper: no ownership, no DELETE on the log
    signer    reads the log, adds checkpoints
    auditor   reads the record's tables

What each may do is said once, in GRANTS; `statements` makes it so, `faults` says where it isn't.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import sql

from kms_console.database_guards import grant_faults, guard_faults, login_faults
from kms_console.databases import MATERIAL_DATABASE

OWNER, APP, SIGNER, AUDITOR = "owner", "app", "signer", "auditor"
ROLES = (OWNER, APP, SIGNER, AUDITOR)
EVERYTHING = ("SELECT", "INSERT", "UPDATE", "DELETE")

# What the application may do with a table; those not named here: EVERYTHING. "UPDATE(a, b)" is of
# these columns only.
APP_GRANTS: dict[str, tuple[str, ...]] = {
    "audit_entry": ("SELECT", "INSERT"),
    "audit_head": ("SELECT", "UPDATE(size, frontier, root, epoch, updated_at)"),
    "audit_change": ("SELECT", "INSERT", "DELETE"),
    "audit_tile": ("SELECT", "INSERT"),
    "audit_checkpoint": ("SELECT",),
    "audit_archive": (
        "SELECT",
        "INSERT",
        "UPDATE(retain_until, verified_at, dropped_at, restored_at, restoring_at, hold_told,"
        " hold_failed_at)",
    ),
    "audit_legalhold": ("SELECT", "INSERT", "UPDATE(released_by, released_at)"),
    "audit_personalvalue": ("SELECT", "INSERT", "UPDATE(value, salt, erased_at)"),
    "django_migrations": ("SELECT",),
}
SIGNER_GRANTS: dict[str, tuple[str, ...]] = {
    "audit_entry": ("SELECT",),
    "audit_head": ("SELECT",),
    "audit_tile": ("SELECT",),
    "audit_archive": ("SELECT",),
    "audit_checkpoint": ("SELECT", "INSERT"),
}


@dataclass(frozen=True, slots=True)
class Names:
    """What the roles are called here."""

    owner: str = "kms_owner"
    app: str = "kms_app"
    signer: str = "kms_signer"
    auditor: str = "kms_auditor"

    def of(self, role: str) -> str:
        return str(getattr(self, role))

    def items(self) -> Iterator[tuple[str, str]]:
        yield from ((role, self.of(role)) for role in ROLES)


@dataclass(frozen=True, slots=True)
class Logins:
    """How somebody signs in as a role: password verifiers, or login roles that are there already."""

    verifiers: Mapping[str, str] = field(default_factory=dict, repr=False)
    members: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Thing:
    """A table, view or sequence."""

    name: str
    kind: str  # as in pg_class.relkind
    owner: str


def wanted(role: str, table: str, alias: str) -> tuple[str, ...]:
    """Return what a role may do with a table of a database."""
    if role == APP:
        return APP_GRANTS.get(table, EVERYTHING)
    if alias == MATERIAL_DATABASE:
        return ()
    if role == SIGNER:
        return SIGNER_GRANTS.get(table, ())
    return ("SELECT",) if role == AUDITOR and table.startswith("audit_") else ()


def statements(
    connection: BaseDatabaseWrapper, names: Names, logins: Logins | None = None
) -> list[str]:
    """Return the SQL that makes one database as it should be. Safe to repeat; all in one transaction."""
    logins = logins or Logins()
    with connection.cursor() as cursor:
        maker = _Maker(cursor, connection.alias, names)
        return [*maker.roles(logins), *maker.ownership(), *maker.access(), *maker.tables()]


class _Maker:
    """Builds the statements for one database, quoting every name."""

    def __init__(self, cursor: Any, alias: str, names: Names) -> None:
        self._cursor, self._alias, self._names = cursor, alias, names
        self._schema, self._database, self._user, self._super = _one(
            cursor,
            "SELECT current_schema(), current_database(), current_user,"
            " (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)",
        )
        self._things = _things(cursor)

    def _say(self, text: str, **parts: Any) -> str:
        made = {
            name: part if isinstance(part, sql.Composable) else sql.Identifier(part)
            for name, part in parts.items()
        }
        return sql.SQL(text).format(**made).as_string(self._cursor.connection)

    def roles(self, logins: Logins) -> Iterator[str]:
        """Roles that can't do anything but what is granted, and who may sign in as one."""
        self._cursor.execute(
            "SELECT rolname, rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication"
            " OR rolbypassrls FROM pg_roles"
        )
        known = dict(self._cursor.fetchall())
        for role, name in self._names.items():
            if name not in known:
                yield self._say("CREATE ROLE {name} NOLOGIN", name=name)
            elif known[name]:
                yield self._say(
                    "ALTER ROLE {name} NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS",
                    name=name,
                )
            if role in logins.verifiers:
                yield self._say(
                    "ALTER ROLE {name} LOGIN PASSWORD {verifier}",
                    name=name,
                    verifier=sql.Literal(logins.verifiers[role]),
                )
            if role in logins.members:
                yield self._say("GRANT {name} TO {to}", name=name, to=logins.members[role])
        if OWNER in logins.members:
            # What a migration makes must belong to the role, not to who signed in.
            yield self._say(
                "ALTER ROLE {login} IN DATABASE {database} SET role = {owner}",
                login=logins.members[OWNER],
                database=self._database,
                owner=self._names.owner,
            )
        if not self._super:
            yield self._say("GRANT {owner} TO CURRENT_USER", owner=self._names.owner)
        for one, other in _memberships(self._cursor, self._names):
            yield self._say("REVOKE {one} FROM {other}", one=one, other=other)

    def ownership(self) -> Iterator[str]:
        """Give everything to the owner."""
        owner = self._names.owner
        yield self._say(
            "ALTER DATABASE {database} OWNER TO {owner}", database=self._database, owner=owner
        )
        yield self._say("ALTER SCHEMA {schema} OWNER TO {owner}", schema=self._schema, owner=owner)
        for thing in self._things:
            if thing.owner != owner and thing.kind != "S":  # a sequence follows its table
                yield self._say(
                    "ALTER TABLE {schema}.{name} OWNER TO {owner}",
                    schema=self._schema,
                    name=thing.name,
                    owner=owner,
                )
        for signature in _foreign_functions(self._cursor, owner):
            yield self._say(
                "ALTER FUNCTION {function} OWNER TO {owner}",
                function=sql.SQL(signature),
                owner=owner,
            )

    def access(self) -> Iterator[str]:
        """Who may connect, and who may make something: the owner alone."""
        yield self._say("REVOKE ALL ON DATABASE {database} FROM PUBLIC", database=self._database)
        yield self._say("REVOKE ALL ON SCHEMA {schema} FROM PUBLIC", schema=self._schema)
        for role, name in self._names.items():
            if role == OWNER:
                continue
            for kind, thing in (("DATABASE", self._database), ("SCHEMA", self._schema)):
                yield self._say(
                    f"REVOKE ALL ON {kind} {{thing}} FROM {{name}}", thing=thing, name=name
                )
            if role == APP or self._alias != MATERIAL_DATABASE:
                yield self._say(
                    "GRANT CONNECT ON DATABASE {database} TO {name}",
                    database=self._database,
                    name=name,
                )
                yield self._say(
                    "GRANT USAGE ON SCHEMA {schema} TO {name}", schema=self._schema, name=name
                )

    def tables(self) -> Iterator[str]:
        """What each role may do with what is there, and with what a later migration adds."""
        others = sql.SQL(", ").join(
            [
                sql.SQL("PUBLIC"),
                *(sql.Identifier(name) for role, name in self._names.items() if role != OWNER),
            ]
        )
        for kind in ("TABLES", "SEQUENCES"):
            yield self._say(
                f"REVOKE ALL ON ALL {kind} IN SCHEMA {{schema}} FROM {{others}}",
                schema=self._schema,
                others=others,
            )
        for thing in self._things:
            if thing.kind == "S":
                continue
            for role, name in self._names.items():
                if role == OWNER or not (rights := wanted(role, thing.name, self._alias)):
                    continue
                yield self._say(
                    f"GRANT {', '.join(rights)} ON {{schema}}.{{table}} TO {{name}}",
                    schema=self._schema,
                    table=thing.name,
                    name=name,
                )
        app = {"schema": self._schema, "app": self._names.app, "owner": self._names.owner}
        yield self._say(
            "GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA {schema} TO {app}",
            schema=self._schema,
            app=self._names.app,
        )
        for thing in self._things:
            if thing.kind == "S" and thing.name.startswith("audit_checkpoint"):
                yield self._say(
                    "GRANT USAGE ON SEQUENCE {schema}.{name} TO {signer}",
                    schema=self._schema,
                    name=thing.name,
                    signer=self._names.signer,
                )
        default = "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA {schema} GRANT "
        yield self._say(default + f"{', '.join(EVERYTHING)} ON TABLES TO {{app}}", **app)
        yield self._say(default + "USAGE, SELECT ON SEQUENCES TO {app}", **app)


def _one(cursor: Any, query: str) -> tuple[Any, ...]:
    cursor.execute(query)
    found: tuple[Any, ...] = cursor.fetchone()
    return found


def _things(cursor: Any) -> list[_Thing]:
    cursor.execute(
        "SELECT relname, relkind::text, pg_get_userbyid(relowner) FROM pg_class"
        " WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'S')"
        " ORDER BY relname"
    )
    return [_Thing(*row) for row in cursor.fetchall()]


def _foreign_functions(cursor: Any, owner: str) -> list[str]:
    """Return the signatures of the schema's functions that somebody else owns."""
    cursor.execute(
        "SELECT oid::regprocedure::text FROM pg_proc"
        " WHERE pronamespace = current_schema()::regnamespace AND pg_get_userbyid(proowner) <> %s"
        " AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = pg_proc.oid AND d.deptype = 'e')",
        [owner],
    )
    return [signature for (signature,) in cursor.fetchall()]


def _memberships(cursor: Any, names: Names) -> list[tuple[str, str]]:
    """Return (role, member) where one of the other roles could act as one that may do more."""
    others = [name for role, name in names.items() if role != OWNER]
    cursor.execute(
        "SELECT pg_get_userbyid(roleid), pg_get_userbyid(member) FROM pg_auth_members"
        " WHERE pg_get_userbyid(member) = ANY(%s)",
        [others],
    )
    return list(cursor.fetchall())


def faults(
    connection: BaseDatabaseWrapper,
    names: Names,
    logins: Logins | None = None,
    administrators: Collection[str] = (),
) -> list[str]:
    """Return in sentences what is not as it should be in one database; anybody may ask.

    `administrators` are further roles that are known to be superusers, or to act as the owner.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT rolname, rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication"
            " OR rolbypassrls FROM pg_roles WHERE rolname = ANY(%s)",
            [[name for _, name in names.items()]],
        )
        known = dict(cursor.fetchall())
        missing = [f"There is no role {name}." for _, name in names.items() if name not in known]
        if missing:
            return missing
        found = [
            f"{name} may do more than it needs: see ALTER ROLE." for name in known if known[name]
        ]
        found += [f"{m} is a member of {r}." for r, m in _memberships(cursor, names)]
        things = _things(cursor)
        found += [f"{t.name} belongs to {t.owner}." for t in things if t.owner != names.owner]
        found += [
            f"The function {signature} belongs to somebody else."
            for signature in _foreign_functions(cursor, names.owner)
        ]
        found += _odd_rights(cursor, connection.alias, names, things)
        found += _makers(cursor, names)
        ours = [name for _, name in names.items()]
        members = {login: names.of(role) for role, login in (logins or Logins()).members.items()}
        found += login_faults(cursor, ours, members, administrators)
        if connection.alias != MATERIAL_DATABASE:
            found += grant_faults(cursor, ours, administrators)
            found += guard_faults(cursor)
    return found


def _makers(cursor: Any, names: Names) -> list[str]:
    others = [name for role, name in names.items() if role != OWNER]
    cursor.execute(
        "SELECT r, has_schema_privilege(r, current_schema(), 'CREATE'),"
        " has_database_privilege(r, current_database(), 'CREATE')"
        " OR has_database_privilege(r, current_database(), 'TEMPORARY') FROM unnest(%s::text[]) r",
        [others],
    )
    return [f"{name} may create something here." for name, a, b in cursor.fetchall() if a or b]


def _odd_rights(cursor: Any, alias: str, names: Names, things: list[_Thing]) -> list[str]:
    """Compare what each role may do with each table, and its columns, with what it should."""
    tables = [thing.name for thing in things if thing.kind != "S"]
    others = {name: role for role, name in names.items() if role != OWNER}
    cursor.execute(
        "SELECT r, t, p, has_table_privilege(r, c.oid, p),"
        " CASE WHEN p IN ('SELECT', 'INSERT', 'UPDATE') THEN ARRAY("
        "  SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0"
        "   AND NOT a.attisdropped AND has_column_privilege(r, c.oid, a.attnum, p)"
        "  ORDER BY a.attname) ELSE '{}' END"
        " FROM unnest(%s::text[]) r, unnest(%s::text[]) t,"
        " unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) p,"
        " pg_class c WHERE c.relname = t AND c.relnamespace = current_schema()::regnamespace",
        [list(others), tables],
    )
    odd = []
    for name, table, right, has, columns in cursor.fetchall():
        rights = wanted(others[name], table, alias)
        limited = next((one for one in rights if one.startswith(right + "(")), "")
        if limited:
            ok = not has and columns == sorted(limited[len(right) + 1 : -1].split(", "))
        else:
            ok = has == (right in rights) and (has or not columns)
        if ok:
            continue
        if right in rights or limited:
            odd.append(f"{name} should have {limited or right} on {table}, no more and no less.")
        else:
            odd.append(f"{name} should not have {right} on {table}.")
    return odd
