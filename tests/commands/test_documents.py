"""What the guides say is what the code does: their tables are compared with ours."""

from __future__ import annotations

import re
from collections.abc import Iterator

from django.core.management import get_commands

from audit.evidence.verify import MEMBERS
from keys.actions import GRANTABLE, Action
from keys.callers import Door, Method
from keys.errors import KeyServiceError
from keys.states import VERSION_EDGES, KeyState, VersionState
from kms_console.api.rest import problems
from kms_console.api.rest.codecs.use import USES
from tests.shell.running import BASE_DIR

USERS = (BASE_DIR / "docs" / "user-guide.md").read_text(encoding="utf-8")
AUDITORS = (BASE_DIR / "docs" / "auditor-guide.md").read_text(encoding="utf-8")


def table(text: str, heading: str) -> list[list[str]]:
    """Return the rows, without its first two, of the first table under a heading."""
    section = text.split(f"{heading}\n", 1)[1]
    lines = section[section.index("\n|") + 1 :].split("\n\n", 1)[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def kinds(root: type[KeyServiceError]) -> Iterator[type[KeyServiceError]]:
    yield root
    for child in root.__subclasses__():
        yield from kinds(child)


def test_the_table_of_version_states_is_the_lifecycles() -> None:
    label = {state.label.lower(): state for state in VersionState}
    told = {}
    for name, _, _, following in table(USERS, "### States of a version"):
        # One label has a comma of its own.
        names = re.findall(r"destroyed, compromised|[\w-]+", following)
        known = [label[word] for word in names if word != "nothing"]
        told[label[name.lower()]] = frozenset(known)
    assert told == VERSION_EDGES


def test_the_table_of_key_states_has_all_of_them() -> None:
    rows = table(USERS, "### States of a key")
    assert [row[0] for row in rows] == [state.label for state in KeyState]


def test_the_table_of_uses_has_every_address() -> None:
    rows = table(USERS, "### Using a key")
    assert sorted(row[0].strip("`") for row in rows) == sorted(USES)
    # One address that needs two permissions, one on each key.
    both = ("re_encrypt_from", "re_encrypt_to")
    verbs = {"re_encrypt" if action in both else action.value for action in GRANTABLE}
    assert {verb.replace("_", "-") for verb in verbs} == set(USES)


def test_the_table_of_errors_has_their_codes_and_statuses() -> None:
    statuses = {kind.code: problems.answer_of(kind()).status for kind in kinds(KeyServiceError)}
    rows = table(USERS, "### Errors")
    told = {code: int(row[0]) for row in rows for code in re.findall(r"`(\w+)`", row[1])}
    assert len(told) >= 14
    assert told == {code: statuses[code] for code in told}


def test_the_table_of_an_entry_has_every_member() -> None:
    rows = table(AUDITORS, "## What an entry says")
    members = {name for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    assert members == set(MEMBERS)
    words = {name: set(re.findall(r"`(\w+)`", meaning)) for (name, meaning) in rows}
    assert words["`door`"] == {door.value for door in Door}
    assert words["`method`"] == {method.value for method in Method}


def test_actions_that_the_auditors_are_told_of_exist() -> None:
    named = {"encrypt", "rotate_key", "create_grant", "vote", "update_classification"}
    named |= {"pause_rotation", "resume_rotation"}
    assert all(f"`{name}`" in AUDITORS for name in named)
    assert named <= {action.value for action in Action}


def test_commands_that_documents_name_exist() -> None:
    ours = {name for name, app in get_commands().items() if app == "kms_console"}
    named = set()
    for document in [BASE_DIR / "README.md", *(BASE_DIR / "docs").rglob("*.md")]:
        named |= set(re.findall(r"manage\.py\s+(\w+)", document.read_text(encoding="utf-8")))
    changes = (BASE_DIR / "CHANGELOG.md").read_text(encoding="utf-8")
    listed = set(
        re.findall(r"`(\w+)`", changes.split("- Commands:", 1)[1].split("- A worked", 1)[0])
    )
    assert listed == ours
    assert named <= ours | {"check"}
