"""Witness policies (C2SP tlog-policy): whose keys count, and how many witnesses must agree.

log <vkey>                           one for each of the log's keys; one right signature suffices
witness <name> <vkey> [<url>]
group <name> <k|any|all> <member>...
quorum <name|none>
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from audit.checkpoints import notes, vkeys
from audit.checkpoints.vkeys import VerifierKey
from audit.errors import NoteError

POLICY_LIMIT = 1024 * 1024
STATEMENTS_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class Witness:
    """A witness by the name that the policy gives it. `url` is where it takes checkpoints, or ""."""

    name: str
    key: VerifierKey
    url: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """At least `needed` of the members, which are witnesses or groups."""

    name: str
    needed: int
    members: tuple[str, ...]


@dataclass(slots=True)
class Policy:
    """What a policy file says. `quorum` names a witness or a group; "none": no cosignature is needed."""

    logs: list[VerifierKey] = field(default_factory=list)
    witnesses: dict[str, Witness] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    quorum: str = "none"


def load(path: Path) -> Policy:
    """Return the policy in a file. Raises NoteError where it can't be read or is none."""
    try:
        if path.stat().st_size > POLICY_LIMIT:
            raise NoteError("The witness policy is too long.")
        return parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NoteError(f"The witness policy can't be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise NoteError("The witness policy is not UTF-8.") from None


def parse(text: str) -> Policy:
    """Return the policy that `text` is. Raises NoteError, with the line's number, where it is none."""
    policy, quorums = Policy(), 0
    lines = text.split("\n")
    if len(lines) > STATEMENTS_LIMIT:
        raise NoteError("The witness policy has too many lines.")
    for number, line in enumerate(lines, 1):
        words = [word for word in re.split(r"[ \t]+", line) if word]
        if not words or words[0].startswith("#"):
            continue
        try:
            _statement(policy, words)
        except NoteError as error:
            raise NoteError(f"The witness policy, line {number}: {error}") from None
        quorums += words[0] == "quorum"
    if quorums != 1:
        raise NoteError("A witness policy has exactly one line that begins with `quorum`.")
    return policy


def _statement(policy: Policy, words: Sequence[str]) -> None:
    match words:
        case ["log", vkey] | ["log", vkey, _]:
            _log(policy, vkeys.parse_vkey(vkey))
        case ["witness", name, vkey]:
            _witness(policy, Witness(name, vkeys.parse_vkey(vkey)))
        case ["witness", name, vkey, url]:
            _witness(policy, Witness(name, vkeys.parse_vkey(vkey), url))
        case ["group", name, needed, _, *_]:
            _group(policy, name, needed, words[3:])
        case ["quorum", name]:
            if name != "none" and name not in _names(policy):
                raise NoteError(f"nothing before it is called {name}.")
            policy.quorum = name
        case _:
            raise NoteError("this is no statement of a policy.")


def _log(policy: Policy, key: VerifierKey) -> None:
    if key.kind == vkeys.COSIGNATURE:
        raise NoteError("that is the key of a witness, not of a log.")
    if key in policy.logs:
        raise NoteError("this key is named twice.")
    policy.logs.append(key)


def _witness(policy: Policy, witness: Witness) -> None:
    _unused(policy, witness.name)
    if witness.key.kind != vkeys.COSIGNATURE:
        raise NoteError("that is the key of a log, not of a witness.")
    # One witness under two names would count twice.
    if witness.key.public in {other.key.public for other in policy.witnesses.values()}:
        raise NoteError("another witness has the same public key.")
    policy.witnesses[witness.name] = witness


def _group(policy: Policy, name: str, needed: str, members: Sequence[str]) -> None:
    _unused(policy, name)
    if len(set(members)) != len(members):
        raise NoteError("a member is named twice.")
    taken = {member for group in policy.groups.values() for member in group.members}
    for member in members:
        if member not in _names(policy):
            raise NoteError(f"nothing before it is called {member}.")
        if member in taken:
            raise NoteError(f"{member} is a member of another group already.")
    words = {"any": 1, "all": len(members)}
    count = words.get(needed, int(needed) if needed.isascii() and needed.isdecimal() else 0)
    if not 1 <= count <= len(members):
        raise NoteError(f"a group needs 1 to {len(members)} of its members, `any` or `all`.")
    policy.groups[name] = Group(name, count, tuple(members))


def _names(policy: Policy) -> Mapping[str, object]:
    return {**policy.witnesses, **policy.groups}


def _unused(policy: Policy, name: str) -> None:
    if name == "none" or name in _names(policy):
        raise NoteError(f"the name {name} is taken.")


def satisfied(note: notes.Note | str, policy: Policy) -> tuple[bool, list[str]]:
    """Tell whether a checkpoint has what the policy asks for, and in sentences what was found.

    Nothing is raised for a bad note: it satisfies nobody.
    """
    try:
        note = notes.parse(note) if isinstance(note, str) else note
        tree = notes.parse_tree(note.body)
        said = [_logs_said(note, tree, policy)]
        cosigned = {
            verified.key: verified.seconds
            for verified in notes.verify(note, [w.key for w in policy.witnesses.values()])
        }
    except NoteError as error:
        return False, [str(error)]
    for witness in policy.witnesses.values():
        did = "cosigned" if witness.key in cosigned else "did not cosign"
        said.append(f"The witness {witness.name} {did} it.")
    names = {w.name for w in policy.witnesses.values() if w.key in cosigned}
    enough = policy.quorum == "none" or _agrees(policy, policy.quorum, names)
    if policy.quorum == "none":
        said.append("The policy asks for no witness.")
    else:
        word = "reached" if enough else "not reached"
        said.append(f"The quorum {policy.quorum} is {word}.")
    return enough, said


def _logs_said(note: notes.Note, tree: notes.Tree, policy: Policy) -> str:
    """Return a sentence about the log's signatures. Raises NoteError where they don't suffice."""
    if not policy.logs:
        return "The policy names no log: its signatures were not looked at."
    own = [key for key in policy.logs if key.name == tree.origin]
    if not own:
        raise NoteError(f"The policy does not know the log {tree.origin}.")
    right = notes.verify(note, own)
    if not right:
        raise NoteError("None of the log's signatures is by a key of the policy.")
    return f"{len(right)} of the log's {len(own)} keys signed it."


def _agrees(policy: Policy, name: str, cosigned: set[str]) -> bool:
    group = policy.groups.get(name)
    if group is None:
        return name in cosigned
    count = sum(1 for member in group.members if _agrees(policy, member, cosigned))
    return count >= group.needed
