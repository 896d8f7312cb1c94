"""The rules that hold everywhere, read from the code itself: see docs/adr/."""

from __future__ import annotations

import ast
import functools
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from auditlog.registry import auditlog
from django.apps import apps
from django.conf import settings

from keys import administration, operations
from keys.actions import ACTIONS, Action, Kind
from keys.gate.changes import Changer
from keys.gate.operation import Operation

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("audit", "keys", "kms_console")
Rule = Callable[[Path], None]
LINES = 450
# One file by design: an auditor takes it away and runs it, and it shares no code with the house.
STANDS_ALONE = ROOT / "audit" / "evidence" / "verify.py"


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@cache
def nodes(path: Path) -> list[ast.AST]:
    """Every node of a file, which many rules look through."""
    return list(ast.walk(tree(path)))


@cache
def sources(*rooms: str) -> list[Path]:
    found = [path for room in rooms for path in sorted((ROOT / room).rglob("*.py"))]
    return [path for path in found if "migrations" not in path.parts]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(path: Path, *, only_module_level: bool = False) -> Iterator[str]:
    """Yield the full names of what a file imports; names from a package as `package.name`."""
    for node in tree(path).body if only_module_level else nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = node.module or ""
            if node.level:
                parts = path.relative_to(ROOT).parts[: -node.level]
                package = ".".join([*parts, *filter(None, [package])])
            yield from (f"{package}.{alias.name}" for alias in node.names)


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def dotted(node: ast.AST) -> str:
    """Return `a.b.c` for a chain of names, else an empty string; calls in between are skipped."""
    parts: list[str] = []
    while True:
        if isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        elif isinstance(node, ast.Call):
            node = node.func
        elif isinstance(node, ast.Name):
            return ".".join([node.id, *reversed(parts)])
        else:
            return ""


def calls(path: Path) -> Iterator[tuple[int, str, ast.Call]]:
    for node in nodes(path):
        if isinstance(node, ast.Call) and (name := dotted(node.func)):
            yield node.lineno, name, node


def each_file(*rooms: str) -> Callable[[Rule], Callable[[str], None]]:
    """Hold every file of these rooms to a rule: one test a room, which names all that break it."""

    def decorated(rule: Rule) -> Callable[[str], None]:
        @pytest.mark.parametrize("room", rooms)
        @functools.wraps(rule)
        def test(room: str) -> None:
            broken = []
            paths = sources(room)
            assert paths, f"{room} has no files"
            for path in paths:
                try:
                    rule(path)
                except AssertionError as error:
                    broken.append(f"{name_of(path)}: {error}")
            assert not broken, "\n".join(broken)

        del test.__wrapped__  # type: ignore[attr-defined]  # else pytest asks it for `path`
        return test

    return decorated


# --- what imports what


FORBIDDEN = {
    "audit": ("keys", "kms_console", "tests"),
    "keys": ("kms_console", "tests", "django.http", "django.urls", "django.shortcuts",
             "django.views", "django.template", "rest_framework", "drf_spectacular"),
    "kms_console": ("tests",),
}  # fmt: skip
# A view's response, a template's rendering: nothing that the domain or the record should know.
HTTP_EVERYWHERE = ("requests", "httpx", "urllib3")


@each_file(*ROOMS)
def test_nothing_imports_backwards(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    wrong = [name for name in imports(path) if within(name, *FORBIDDEN[room], *HTTP_EVERYWHERE)]
    assert not wrong, f"{name_of(path)} imports {wrong}"


SDKS = ("pkcs11", "boto3", "botocore", "google.cloud", "azure", "hvac")


@each_file(*ROOMS)
def test_vendor_sdks_stay_in_their_backend(path: Path) -> None:
    used = [name for name in imports(path) if within(name, *SDKS)]
    # The trail's bundles are kept in buckets: the record knows no backends.
    if used and name_of(path) != "audit/places/s3.py":
        assert path.relative_to(ROOT).parts[:2] == ("keys", "backends"), used
        assert len(path.relative_to(ROOT).parts) == 4, f"{name_of(path)} is no backend of its own"


@each_file(*ROOMS)
def test_a_backend_is_imported_only_when_a_store_of_its_kind_is_used(path: Path) -> None:
    parts = path.relative_to(ROOT).parts
    backends = [
        name
        for name in imports(path, only_module_level=True)
        if re.match(r"keys\.backends\.[a-z0-9_]+\.", name)
        and ".models" not in name
        and (ROOT / Path(*name.split(".")[:3])).is_dir()
    ]
    own = ".".join(parts[:3])
    foreign = [name for name in backends if not within(name, own)]
    assert not foreign, f"{name_of(path)} imports {foreign}"


def test_the_domain_is_loaded_without_any_vendors_library() -> None:
    code = (
        "import django; django.setup(); import sys, keys.administration, keys.operations, keys.sweep;"
        f"print([m for m in sys.modules if m.split('.')[0] in {SDKS!r}])"
    )
    environment = {"DJANGO_SETTINGS_MODULE": "kms_console.settings", "SECRET_KEY": "x" * 50}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


# --- one gate, one writer of states


def _callers_of(*names: str, rooms: tuple[str, ...] = ROOMS) -> set[str]:
    return {
        name_of(path) for path in sources(*rooms) for _, name, _ in calls(path) if name in names
    }


def test_only_the_gate_decides() -> None:
    assert _callers_of("policy.decide", "decide") == {
        "keys/gate/changes.py",
        "keys/gate/reads.py",
        "keys/gate/uses.py",
    }


def test_only_the_gate_writes_to_the_log() -> None:
    writers = _callers_of("writer.append", "append", "writer.appender", "appender", "Appender")
    # The verifier that stands alone appends to trees of its own.
    writers.discard(name_of(STANDS_ALONE))
    within_the_record = {name for name in writers if name.startswith("audit/")}
    assert within_the_record == {"audit/appender.py", "audit/refusals.py"}
    # Health only looks whether the appender is in trouble.
    assert writers - within_the_record == {"keys/gate/record.py", "kms_console/health.py"}
    assert "appender().submit" not in (ROOT / "kms_console/health.py").read_text()
    recorders = _callers_of("record.wait", "record.submit", "record.in_transaction")
    assert {name for name in recorders if "gate" not in name} == set()
    for path in sources("keys", "kms_console"):
        entries = [n for n in imports(path) if n in ("audit.models.Entry", "audit.models.Head")]
        if entries:
            writes = [
                n for _, n, _ in calls(path) if re.search(r"\.(create|bulk_create|update)$", n)
            ]
            assert not [n for n in writes if "Entry" in n or "Head" in n], name_of(path)


def test_only_accept_log_appends_to_a_log_that_is_refused() -> None:
    assert _callers_of("guard.accepting", "accepting") == {"keys/administration/log.py"}


def _written_columns(path: Path) -> Iterator[tuple[int, str]]:
    """Yield what a file assigns to a `state` column, or writes by update(); creating is no move."""
    for node in nodes(path):
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                if isinstance(target, ast.Attribute) and target.attr in ("state", "primary"):
                    yield node.lineno, ast.unparse(target)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            named = {keyword.arg for keyword in node.keywords}
            if node.func.attr in ("update", "update_or_create", "bulk_update") and named & {
                "state",
                "primary",
                "condition",
            }:
                yield node.lineno, ast.unparse(node.func)
            if node.func.attr == "setattr" and "state" in ast.unparse(node):
                yield node.lineno, ast.unparse(node)


def test_only_the_lifecycle_writes_states_of_keys_and_versions() -> None:
    found = {
        f"{name_of(path)}:{line} {what}"
        for path in sources(*ROOMS)
        for line, what in _written_columns(path)
        if name_of(path) != "keys/lifecycle.py"
    }
    # Jobs have a state of their own; keys.jobs alone writes it, by compare-and-set.
    foreign = {entry for entry in found if not entry.startswith("keys/jobs/")}
    assert not foreign, foreign
    for entry in found:
        line = int(entry.split(":")[1].split(" ")[0])
        text = "\n".join(
            (ROOT / "keys/jobs/__init__.py").read_text().splitlines()[max(0, line - 6) : line]
        )
        assert "Job.objects" in text or "rows" in text or "waiting" in text, entry


# --- one verb, one function, every door


def _domain_functions() -> dict[str, Changer[object, ..., object] | Operation[..., object]]:
    inside = pkgutil.iter_modules(administration.__path__, "keys.administration.")
    rooms = [operations, *(importlib.import_module(room.name) for room in inside)]
    return {
        name: value
        for room in rooms
        for name, value in vars(room).items()
        if isinstance(value, Changer | Operation)
    }


# Actions that more than one function does, or none of those that people call.
TRANSITIONS = {
    Action.ACTIVATE_VERSION,
    Action.SUSPEND_VERSION,
    Action.DEACTIVATE_VERSION,
    Action.REVOKE_VERSION,
    Action.DESTROY_VERSION,
}
OWN = {Action.RUN_JOB, Action.ALIGN_KEY, Action.CHECK_KEY_STORE}
# One function that needs two permissions, one on each key: the gate asks for the second one.
BOTH = {Action.RE_ENCRYPT_FROM: "re_encrypt", Action.RE_ENCRYPT_TO: "re_encrypt"}


def test_every_action_has_exactly_one_function_behind_it() -> None:
    behind: dict[Action, list[str]] = {}
    for name, function in _domain_functions().items():
        # One closes a request like expire_request(), which sees no reason to by itself; the other
        # is public_key() of all versions at once.
        if name in ("fail_request", "key_set"):
            continue
        action = function.action if isinstance(function, Operation) else function._action
        if isinstance(action, Action):
            behind.setdefault(action, []).append(name)
    assert all(len(names) == 1 for names in behind.values()), behind
    wanted = {a for a, row in ACTIONS.items() if row.kind is not Kind.READ} - TRANSITIONS - OWN
    assert wanted - set(behind) == {Action.RE_ENCRYPT_TO}
    for action, (name,) in behind.items():
        named = {action.value, action.value.replace("sign_", "signed_"), BOTH.get(action)}
        assert name in named, f"{action} is {name}()"


WRITES = re.compile(
    r"\.(objects(\.[a-z_]+)*\.(create|get_or_create|update_or_create|bulk_create|update|delete)"
    r"|save|delete|bulk_update)$"
)
# A session's own rows, and Django's own machinery; nothing of the domain.
HARMLESS = re.compile(r"(session|request\.session|form|cache|response|cookies)", re.IGNORECASE)


@each_file("kms_console")
def test_a_door_writes_nothing_itself(path: Path) -> None:
    wrong = [
        f"{line}: {name}"
        for line, name, _ in calls(path)
        if WRITES.search("." + name) and not HARMLESS.search(name)
    ]
    assert not wrong, f"{name_of(path)} writes by itself: {wrong}"


@each_file("kms_console")
def test_a_door_calls_the_domains_own_functions_and_none_that_is_not_there(path: Path) -> None:
    modules = {"administration": administration, "operations": operations}
    for line, name, _ in calls(path):
        parts = name.split(".")
        for short, module in modules.items():
            if short in parts[:-1]:
                verb = parts[parts.index(short) + 1]
                assert hasattr(module, verb), f"{name_of(path)}:{line} calls {name}"
    reached = [
        name
        for name in imports(path)
        if within(name, "keys.lifecycle", "keys.gate", "keys.policy", "keys.approvals")
    ]
    allowed = ("VersionState", "KeyState", "Condition", "VERSION_EDGES", "KEY_EDGES", "SERVING",
               "GONE", "Direction", "Standing", "Operation", "lifecycle", "LIVE", "shortage")  # fmt: skip
    machinery = [name for name in reached if name.rpartition(".")[2] not in allowed]
    # The packages' own names: what a door takes from them is an error's text or a count.
    machinery = [name for name in machinery if name not in ("keys.approvals", "keys.gate")]
    verbs = {f"gate.{verb}" for verb in ("use", "change", "read")}
    machinery += [name for _, name, _ in calls(path) if name in verbs]
    assert not machinery, f"{name_of(path)} reaches into {machinery}"


def test_the_scheduler_calls_the_same_functions() -> None:
    used = {name for _, name, _ in calls(ROOT / "keys/sweep.py")}
    assert {"rotate_key", "prepare_version", "expire_request"} <= used
    for file in ("keys/sweep.py", "keys/tasks.py"):
        writes = [n for _, n, _ in calls(ROOT / file) if WRITES.search("." + n)]
        assert [n for n in writes if not n.startswith("Heartbeat")] == [], file


# --- habits


SKIPPING = re.compile(
    r"(skip|ignore|bypass|no|without)_(check|auth|policy|audit|quorum|votes?|gate)\w*"
)


@each_file(*ROOMS)
def test_no_check_can_be_skipped(path: Path) -> None:
    names = {node.arg for node in nodes(path) if isinstance(node, ast.arg | ast.keyword)}
    flags = {name for name in names if name and SKIPPING.fullmatch(name)}
    # Django's own commands have an option of that name; it skips system checks.
    if path.is_relative_to(ROOT / "kms_console" / "management"):
        flags -= {"skip_checks"}
    assert not flags, f"{name_of(path)}: {flags}"


@each_file(*ROOMS, "tests")
def test_files_stay_short(path: Path) -> None:
    if path == STANDS_ALONE:
        return
    count = len(path.read_text(encoding="utf-8").splitlines())
    limit = LINES if path.is_relative_to(ROOT / "tests") is False else 800
    assert count <= limit, f"{name_of(path)} has {count} lines"


@each_file("audit")
def test_the_record_knows_no_floats(path: Path) -> None:
    # Seconds to wait are floats and stay out of entries.
    if path.name not in ("entries.py", "events.py", "canonical.py", "merkle.py", "store.py"):
        return
    floats = [
        node.lineno
        for node in nodes(path)
        if (isinstance(node, ast.Constant) and isinstance(node.value, float))
        or (isinstance(node, ast.Name) and node.id == "float")
        or (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div))
    ]
    assert not floats, f"{name_of(path)}: lines {floats}"


CONFIGURATION = {"Classification", "KeyStore", "Principal", "Credential", "Grant", "Limit"}
# Their every change of state is an entry of its own.
STORIES = {"Key", "KeyVersion", "Job", "Heartbeat", "Approval", "Vote", "Installation"}
STORIES |= {"ImportTicket", "Ceremony", "Custodian"}
# What stores say of their keys, and what was decided about it.
STORIES |= {"Listing", "FoundKey", "StoreView", "Drift"}
# What uses of keys count, each of which is an entry.
COUNTS = {"MessageCount", "QuotaCount"}


def test_every_configuration_object_has_its_diffs() -> None:
    models = {model.__name__: model for model in apps.get_app_config("keys").get_models()}
    assert set(models) == CONFIGURATION | STORIES | COUNTS, "say what the new model is"
    registered = {model.__name__ for model in auditlog.get_models()}
    assert registered == CONFIGURATION


def test_no_request_is_a_transaction() -> None:
    for alias, database in settings.DATABASES.items():
        assert not database.get("ATOMIC_REQUESTS"), alias


@each_file("keys", "kms_console")
def test_no_store_is_asked_inside_a_transaction(path: Path) -> None:
    """A lexical look: no `with transaction.atomic()` block calls a store's work."""
    work = re.compile(
        r"(backend|store)\w*\.(generate|find|import_material|export_material|destroy|encrypt|decrypt"
        r"|sign|mac|wrap|unwrap|agree|decapsulate|derive|suspend|resume|deactivate)$"
    )
    for node in nodes(path):
        if isinstance(node, ast.With) and any(
            "transaction.atomic" in ast.unparse(item) for item in node.items
        ):
            inside = [dotted(c.func) for c in ast.walk(node) if isinstance(c, ast.Call)]
            assert not [name for name in inside if work.search(name)], name_of(path)


@each_file("keys", "audit")
def test_functions_of_the_domain_stay_short(path: Path) -> None:
    long = {
        node.name: node.end_lineno - node.lineno + 1
        for node in nodes(path)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > 75
    }
    assert not long, f"{name_of(path)}: {long}"
