#!/usr/bin/env python3
"""Verify evidence of a KMS Console's audit trail. One file, and it trusts nobody.

    python3 verify.py EVIDENCE.zip --keys keys-i-noted.txt --previous checkpoint-i-kept
    python3 verify.py trail.jsonl --checkpoint checkpoint --keys keys-i-noted.txt

Needs Python 3.9 and, for signatures, the package `cryptography`; nothing of the console. EVIDENCE is
the ZIP, the folder it was unpacked to, or a whole export as JSON Lines with --checkpoint.
Exit code 0: sound. 1: not sound. 2: something that was asked for could not be checked.

What is checked, in the order of this file: each entry's form (RFC 8785), that the entries are the leaves
of the tree whose root was signed (RFC 6962, RFC 9162), the signatures and witnesses (C2SP signed-note,
tlog-checkpoint, tlog-cosignature), each key's life (NIST SP 800-57 part 1), the votes, personal data.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import importlib.util
import json
import os
import re
import stat
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, BinaryIO, cast

FORMAT = "kms-console-evidence/1"
LINE_LIMIT = 4 << 20  # bytes of an entry, a proof, a personal value
SMALL_LIMIT = 1 << 20  # bytes of a file that is read as a whole
CHUNK = 1 << 18
TOLD = 20  # findings that are kept; the others are counted
RATIO = 400  # an archive's file that unpacks to more than this times its size is a bomb

sha256 = hashlib.sha256
CAN_SIGN = importlib.util.find_spec("cryptography") is not None


class Malformed(ValueError):
    """What was given does not have the form that it must have; the message says what."""


class Unreadable(Exception):
    """It could not be checked at all; the message says why."""


# --- Entries: canonical JSON (RFC 8785) with these members and no others

VERSIONS = (1, 2)
OUTCOMES = ("success", "denied", "failed", "started", "pending")
MEMBERS = {
    *("action", "actor", "approvals", "at", "door", "facts", "index", "method", "object"),
    *("outcome", "reason", "request_id", "source", "uuid", "v"),
}
TEXTS = ("action", "door", "method", "reason", "request_id", "source", "uuid")
LARGEST = 2**53 - 1
UUID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

# The entry of a plain use of a key, in its only canonical form: members in order, texts of ASCII without
# escapes, facts that are texts and numbers or lists of them, no approvals. Nine of ten entries are like
# that, and need not be parsed. Whatever this does not match is looked at member by member; whatever it
# does match, that would take as well.
_S = r'"[ !#-\[\]-\x7f]*"'
_N = r"(?:0|[1-9][0-9]{0,14}|[1-8][0-9]{15})"
_PLAIN = rf"(?:{_S}|-?[1-9][0-9]{{0,14}}|0|true|false|null)"
_LIST = rf"\[(?:{_PLAIN}(?:,{_PLAIN})*)?\]"
_FACT = rf'"[a-z0-9_]+":(?:{_S}|-?[1-9][0-9]{{0,14}}|0|true|false|null|{_LIST})'
COMMON = re.compile(
    (
        rf'\{{"action":{_S},"actor":\{{"id":{_S},"kind":{_S},"name":{_S}\}},"approvals":\[\],'
        rf'"at":{_N},"door":{_S},"facts":\{{((?:{_FACT}(?:,{_FACT})*)?)\}},"index":({_N}),'
        rf'"method":{_S},"object":\{{"classification":{_S},"id":{_S},"kind":{_S},"name":{_S},'
        rf'"version":(?:null|{_N})\}},"outcome":"(?:{"|".join(OUTCOMES)})","reason":{_S},'
        rf'"request_id":{_S},"source":{_S},"uuid":"{UUID.pattern}","v":2\}}'
    ).encode()
)
_common = COMMON.fullmatch
_names = re.compile(rb'"([a-z0-9_]+)":').findall


def look(line: bytes) -> tuple[int, dict[str, Any] | None]:
    """Return an entry's index and its body; None for the body of a plain use of a key.

    Raises Malformed where the bytes are not an entry in canonical form.
    """
    index = plain_use(line)
    if index >= 0:
        return index, None
    body = parse(line)
    if canonical(body) != line:
        raise Malformed("is not canonical JSON")
    check_form(body)
    return body["index"], body


def plain_use(line: bytes) -> int:
    """Return the index of a plain use of a key; -1 where it is another entry, or none."""
    match = _common(line)
    if match is None:
        return -1
    facts, index = match.groups()
    return int(index) if not facts or _in_order(tuple(_names(facts))) else -1


@lru_cache(maxsize=10_000)
def _in_order(names: tuple[bytes, ...]) -> bool:
    """Whether these are names of plain facts, sorted, each once. The same few come again and again."""
    return list(names) == sorted(set(names)) and b"states" not in names


def parse(data: bytes) -> Any:
    """Return the value of JSON without floats, members named twice, or huge numbers. Raises Malformed."""
    try:
        return json.loads(
            data.decode(), object_pairs_hook=_object, parse_float=_refuse, parse_constant=_refuse
        )
    except (ValueError, RecursionError):
        raise Malformed("is not canonical JSON") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs) or not all(name.isascii() for name in made):
        raise ValueError
    return made


def _refuse(text: str) -> Any:
    raise ValueError(text)


def canonical(value: Any) -> bytes:
    """Return canonical JSON (RFC 8785; names are ASCII and numbers whole, so this is all of it)."""
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
        return text.encode()
    except (ValueError, RecursionError):
        raise Malformed("is not canonical JSON") from None


def natural(value: object) -> bool:
    """Whether this is a whole number that JSON can carry everywhere, and not negative."""
    return type(value) is int and 0 <= value <= LARGEST


def check_form(body: Any) -> None:
    """Raise Malformed unless `body` has the members of an entry, of the right types."""
    if not isinstance(body, dict) or body.keys() != MEMBERS or body["v"] not in VERSIONS:
        raise Malformed("does not have the form of an entry")
    actor, about = body["actor"], body["object"]
    named = {"id", "kind", "name"}
    more = {"version"} if body["v"] == 1 else {"version", "classification"}
    sound = (
        type(body["v"]) is int
        and isinstance(actor, dict)
        and actor.keys() == named
        and isinstance(about, dict)
        and about.keys() == named | more
        and all(isinstance(text, str) for text in actor.values())
        and all(isinstance(text, str) for name, text in about.items() if name != "version")
        and (about["version"] is None or natural(about["version"]))
        and all(isinstance(body[name], str) for name in TEXTS)
        and natural(body["index"])
        and natural(body["at"])
        and body["outcome"] in OUTCOMES
        and UUID.fullmatch(body["uuid"])
        and isinstance(body["approvals"], list)
        and all(isinstance(one, str) for one in body["approvals"])
        and isinstance(body["facts"], dict)
        and whole_numbers(body["facts"])
    )
    if not sound:
        raise Malformed("has a member that is missing or of the wrong type")


def whole_numbers(value: Any) -> bool:
    """Whether no number within is beyond 2^53-1."""
    waiting = [value]  # not by recursion: facts may be nested deeply
    while waiting:
        one = waiting.pop()
        if isinstance(one, int) and not -LARGEST <= one <= LARGEST:
            return False
        if isinstance(one, dict):
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)
    return True


# --- The tree (RFC 6962 section 2.1, RFC 9162 section 2.1)


def leaf(entry: bytes) -> bytes:
    """Return the hash of a leaf: SHA-256 of a zero byte and the entry."""
    return sha256(b"\0" + entry).digest()


def node(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return sha256(b"\1" + left + right).digest()


class Tree:
    """The right edge of a tree: the roots of its perfect subtrees. Enough to append, and for the root."""

    def __init__(self) -> None:
        self.size, self._edge = 0, []  # type: int, list[bytes]

    def append(self, hash_: bytes) -> None:
        """Add a leaf, given its hash."""
        size = self.size
        while size & 1:
            hash_ = sha256(b"\1" + self._edge.pop() + hash_).digest()
            size >>= 1
        self._edge.append(hash_)
        self.size += 1

    def root(self) -> bytes:
        """Return the root over all leaves so far."""
        if not self._edge:
            return sha256(b"").digest()
        root = self._edge[-1]
        for left in self._edge[-2::-1]:
            root = node(left, root)
        return root


def are_hashes(proof: list[bytes]) -> bool:
    """Whether every step is a hash. Of a longer and a shorter one the hash could be a known node's."""
    return all(len(step) == 32 for step in proof)


def included(hash_: bytes, index: int, size: int, proof: list[bytes], root: bytes) -> bool:
    """Whether `proof` shows the leaf at `index` in the tree with that root (RFC 9162, 2.1.3.2)."""
    if not are_hashes(proof):
        return False
    at, last = index, size - 1
    for step in proof:
        if last == 0:
            return False
        if at & 1 or at == last:
            hash_ = node(step, hash_)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            hash_ = node(hash_, step)
        at, last = at >> 1, last >> 1
    return 0 <= index < size and last == 0 and hash_ == root


def consistent(first: int, old: bytes, second: int, new: bytes, proof: list[bytes]) -> bool:
    """Whether `proof` shows the first tree to be the beginning of the second (RFC 9162, 2.1.4.2)."""
    if not are_hashes(proof):
        return False
    if first == second or first == 0:
        return not proof and old == (new if first == second else sha256(b"").digest())
    path = ([old] if first & (first - 1) == 0 else []) + proof
    if not 0 < first < second or not path:
        return False
    at, last = first - 1, second - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    left = right = path[0]
    for step in path[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            left, right = node(step, left), node(step, right)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            right = node(right, step)
        at, last = at >> 1, last >> 1
    return last == 0 and (left, right) == (old, new)


# --- Signed checkpoints (C2SP signed-note, tlog-checkpoint, tlog-cosignature)

ED25519, COSIGNATURE = b"\x01", b"\x04"
ECDSA_P384 = b"\xffkms-console.ecdsa-p384-sha384.v1"
ML_DSA_87 = b"\xffkms-console.ml-dsa-87.v1"
KEY_SIZES = {ED25519: 32, COSIGNATURE: 32, ECDSA_P384: 97, ML_DSA_87: 2592}


def base64_of(text: object) -> bytes:
    """Return the bytes of Base64. Raises Malformed."""
    try:
        return base64.b64decode(str(text).encode("ascii"), validate=True)
    except ValueError:
        raise Malformed("holds something else where Base64 belongs") from None


def hashes_of(row: Any) -> list[bytes]:
    """Return the hashes of a proof. Raises Malformed."""
    found = row.get("hashes") if isinstance(row, dict) else None
    if not isinstance(found, list) or len(found) > 128:
        raise Malformed("is not a proof")
    hashes = [base64_of(one) for one in found]
    if not are_hashes(hashes):
        raise Malformed("is not a proof")
    return hashes


class Key:
    """A verifier key: `<name>+<8 hex digits of its id>+<Base64 of type and public key>`."""

    def __init__(self, text: str) -> None:
        self.name, _, rest = text.strip().partition("+")
        said, _, encoded = rest.partition("+")
        data = base64_of(encoded)
        kinds = [
            k for k, size in KEY_SIZES.items() if data[: len(k)] == k and len(data) - len(k) == size
        ]
        if not self.name or not kinds:
            raise Malformed("holds a verifier key of a kind that is not known here")
        self.kind, self.public = kinds[0], data[len(kinds[0]) :]
        self.id = sha256(self.name.encode() + b"\n" + data).digest()[:4]
        if said != self.id.hex():
            raise Malformed("holds a verifier key that does not have the id it says")

    def signed(self, body: bytes, signature: bytes) -> bool:
        """Whether this is the key's signature of a note's text. Raises ImportError."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519

        if self.kind != ED25519:  # the others say their time: 8 bytes before the signature itself
            title = b"cosignature/v1" if self.kind == COSIGNATURE else b"kms-console/timestamped/v1"
            body = title + b"\ntime %d\n" % int.from_bytes(signature[:8], "big") + body
            signature = signature[8:]
        try:
            if self.kind == ECDSA_P384:
                point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), self.public)
                point.verify(signature, body, ec.ECDSA(hashes.SHA384()))
            elif self.kind == ML_DSA_87:
                from cryptography.hazmat.primitives.asymmetric import mldsa

                mldsa.MLDSA87PublicKey.from_public_bytes(self.public).verify(signature, body)
            else:
                ed25519.Ed25519PublicKey.from_public_bytes(self.public).verify(signature, body)
        except (InvalidSignature, ValueError):
            return False
        return True


class Note:
    """A checkpoint as it was signed: the log of this origin had this root at this size."""

    def __init__(self, data: bytes) -> None:
        try:
            text, found, lines = data.decode().rpartition("\n\n")
        except ValueError:
            raise Malformed("is not UTF-8") from None
        parts = text.split("\n")
        if not found or len(parts) < 3 or not re.fullmatch("0|[1-9][0-9]{0,15}", parts[1]):
            raise Malformed("is not a signed checkpoint")
        self.body = (text + "\n").encode()
        self.origin, self.size, self.root = parts[0], int(parts[1]), base64_of(parts[2])
        self.signatures: list[tuple[str, bytes]] = []
        for line in lines.split("\n")[:200]:
            dash, _, rest = line.partition(" ")
            name, _, encoded = rest.partition(" ")
            if dash == "\u2014":
                self.signatures.append((name, base64_of(encoded)))
        if len(self.root) != 32:
            raise Malformed("is not a signed checkpoint")

    def signers(self, keys: Iterable[Key]) -> list[Key]:
        """Return the keys that signed it. Raises Malformed where a key's signature is wrong."""
        found = []
        for key in keys:
            values = [v[4:] for name, v in self.signatures if (name, v[:4]) == (key.name, key.id)]
            if not all(key.signed(self.body, value) for value in values):
                raise Malformed(f"has a wrong signature of {plain(key.name)}")
            found += [key] if values else []
        return found

    def check(self, keys: list[Key], every_kind: bool) -> None:
        """Raise Malformed unless one of the log's keys signed it; with `every_kind`, one of each kind.

        A key signs for the log of its own name only (C2SP tlog-checkpoint: the origin).
        """
        own = [key for key in keys if key.name == self.origin]
        kinds = {key.kind for key in self.signers(own)}
        if not kinds or (every_kind and kinds != {key.kind for key in own}):
            raise Malformed("is not signed by the log's keys")


class Policy:
    """Whose signatures an auditor asks for: the log's keys, and k of n witnesses."""

    def __init__(self, text: str) -> None:
        self.log: list[Key] = []
        self.witnesses: dict[str, Key] = {}
        self._groups: dict[str, tuple[int, list[str]]] = {"none": (0, [])}
        self.quorum = "none"
        quorums = 0
        for line in text.splitlines():
            words = line.partition("#")[0].split()
            if words:
                self._statement(words)
                quorums += words[0] == "quorum"
        if quorums > 1 or (self.witnesses and not quorums):
            raise Malformed("does not say in exactly one statement which witnesses are enough")

    def _statement(self, words: list[str]) -> None:
        verb, *rest = words
        if verb == "log" and len(rest) in (1, 2):
            self._log(Key(rest[0]))
        elif verb == "witness" and len(rest) in (2, 3) and self._free(rest[0]):
            self._witness(rest[0], Key(rest[1]))
        elif verb == "group" and len(rest) >= 3 and self._free(rest[0]):
            members = rest[2:]
            need = {"any": "1", "all": str(len(members))}.get(rest[1], rest[1])
            taken = {one for _, others in self._groups.values() for one in others}
            if (
                len(set(members)) != len(members)
                or any(self._free(name) for name in members)
                or taken.intersection(members)
            ):
                raise Malformed("has a group whose members are not there, or twice")
            if not need.isdecimal() or not 0 < int(need) <= len(members):
                raise Malformed("has a group that nobody can satisfy")
            self._groups[rest[0]] = (int(need), members)
        elif verb == "quorum" and len(rest) == 1 and not self._free(rest[0]):
            self.quorum = rest[0]
        else:
            raise Malformed(f"has a statement that is not known: {plain(verb)}")

    def _log(self, key: Key) -> None:
        if key.kind == COSIGNATURE:
            raise Malformed("names the key of a witness as one of the log's")
        self.log.append(key)

    def _witness(self, name: str, key: Key) -> None:
        if key.kind != COSIGNATURE:
            raise Malformed("names a key as a witness's that no witness signs with")
        if key.public in {other.public for other in self.witnesses.values()}:
            raise Malformed("names one witness twice: it would count twice")
        self.witnesses[name] = key

    def _free(self, name: str) -> bool:
        return name not in self.witnesses and name not in self._groups

    def satisfied(self, note: Note) -> list[str]:
        """Return the witnesses that cosigned. Raises Malformed where they are too few."""
        signed = {key.id: key for key in note.signers(self.witnesses.values())}
        names = {name for name, key in self.witnesses.items() if key.id in signed}
        held = set(names)
        for group, (need, members) in self._groups.items():  # members come before their groups
            if len(held.intersection(members)) >= need:
                held.add(group)
        if self.quorum not in held:
            raise Malformed("is not cosigned by as many witnesses as the policy asks for")
        return sorted(names)


# --- The two forms of entries: a log may begin with the first, and never goes back to it


class Forms:
    """Sees that the first form is not come back to, which told of no states and of no votes' rules.

    `whole`: nothing is missing between the entries, so that those of the first form are counted.
    """

    def __init__(self, whole: bool) -> None:
        self.whole = whole
        self.until = 0  # the entries before this one are of the first form
        self._second = False

    def second(self) -> None:
        """Note that there was an entry of the second form."""
        self._second = True

    def see(self, body: dict[str, Any]) -> Iterator[str]:
        """Yield in a sentence what is wrong with an entry's form."""
        if body["v"] != 1:
            self._second = True
            return
        index = body["index"]
        if self._second or (self.whole and index != self.until):
            yield "is of the first form, and stands behind one of the second."
        else:
            self.until = index + 1

    def notes(self) -> list[str]:
        """Return in a sentence up to where the first form goes."""
        if not self.until:
            return []
        return [
            f"The entries up to {self.until - 1} are of the first form: of the keys that they made, "
            "and the votes that they cite, less is known."
        ]


# --- Each key's life (NIST SP 800-57 part 1 rev. 5, section 7; KMIP 2.1 for "destroyed, compromised")

VERSION_EDGES = {
    "pre_active": {"active", "compromised", "destroyed"},
    "active": {"suspended", "deactivated", "compromised"},
    "suspended": {"active", "deactivated", "compromised"},
    "deactivated": {"compromised", "destroyed"},
    "compromised": {"destroyed_compromised"},
    "destroyed": {"destroyed_compromised"},
    "destroyed_compromised": set(),
}
# The key itself, as cloud key services name its states.
KEY_EDGES = {
    "pending_import": {"enabled", "pending_destruction"},
    "enabled": {"disabled", "pending_destruction"},
    "disabled": {"enabled", "pending_destruction"},
    "pending_destruction": {"disabled", "pending_import", "destroyed"},
    "destroyed": set(),
}
ENDS = {"destroyed", "destroyed_compromised", "pending_destruction"}
MOVE = {"key", "version", "from", "to"}


class Lives:
    """Replays what entries say about states. `whole`: nothing is missing between the entries."""

    def __init__(self, whole: bool) -> None:
        self.whole, self.moves = whole, 0
        self._states: dict[tuple[str, int | None], str] = {}

    def see(self, body: dict[str, Any]) -> Iterator[str]:
        """Yield in sentences what an entry says that can't have been so."""
        if body["v"] == 1:
            self.whole = False  # the first form of entries told of no states
        states = body["facts"].get("states", [])
        if not isinstance(states, list) or not all(self._is_move(one) for one in states):
            yield "tells of states in a form that no entry has."
            return
        if states and body["outcome"] in ("denied", "pending"):
            yield "changed states although it was not carried out."
        for move in states:
            self.moves += 1
            yield from self._move(move)

    def _is_move(self, one: Any) -> bool:
        return (
            isinstance(one, dict)
            and one.keys() == MOVE
            and all(isinstance(one[name], str) for name in ("key", "from", "to"))
            and (one["version"] is None or natural(one["version"]))
        )

    def _move(self, move: dict[str, Any]) -> Iterator[str]:
        at, before, after = (move["key"], move["version"]), move["from"], move["to"]
        edges = KEY_EDGES if move["version"] is None else VERSION_EDGES
        who = "key " + plain(move["key"])
        who += "" if move["version"] is None else f", version {move['version']},"
        known = self._states.get(at)
        if before == "":
            if known is not None:
                yield f"makes {who} which was made before."
            if after not in edges or after in ENDS:
                yield f"makes {who} in the state {plain(after)}, where none begins."
        elif after not in edges.get(before, ()):
            yield f"moves {who} from {plain(before)} to {plain(after)}, which no key may."
        elif known is None and self.whole:
            yield f"moves {who} of which no entry says that it was made."
        elif known is not None and known != before and self.whole:
            yield f"moves {who} from {plain(before)}, but it was {plain(known)}."
        self._states[at] = sys.intern(after)


# --- Votes: who asked, who agreed, and that nothing was done without them

CLOSES = ("withdraw_request", "expire_request")
SERVICE = "service"  # the kind of the actor that carries out jobs
# The kind of what an entry speaks of, where that is not what the request was about: the key that
# differs from its store, or what was made.
ELSEWHERE = {
    "accept_drift": "key",
    "revert_drift": "key",
    "repair_drift": "key",
    "appoint_officer": "principal",
    "hold_root_key": "root_key",
    "rotate_root_key": "root_key",
}
# The work on the key that such a decision begins, under the name that its entry has.
BEGUN = {
    "accept_drift": ("schedule_destruction", "destroy_version", "align_key"),
    "revert_drift": ("align_key",),
    "repair_drift": ("rotate_key",),
}


class Request:
    """What officers were asked to agree to, and what they said."""

    def __init__(self, body: dict[str, Any]) -> None:
        facts = body["facts"]
        self.digest, self.officers = facts.get("request_sha256"), facts.get("officers")
        quorum, text = facts.get("quorum"), facts.get("request")
        self.action, self.subject = body["action"], (body["object"]["kind"], body["object"]["id"])
        self.requester = body["actor"]["id"]
        if (
            not isinstance(quorum, dict)
            or not natural(quorum.get("m"))
            or not natural(quorum.get("n"))
            or not isinstance(self.officers, list)
            or not isinstance(self.digest, str)
        ):
            raise Malformed("asks for votes without saying on what, or whose.")
        # There may be too few officers yet: such a request waits, and can't be carried out.
        self.m, self.n = quorum["m"], quorum["n"]
        if not 1 <= self.m <= self.n:
            raise Malformed("asks for votes that nobody could give.")
        if text is not None:
            self._compare(text, quorum)
        self.agreed: set[str] = set()
        self.voted: set[str] = set()
        self.closed = ""
        self.done = self.ended = False
        self.job: object = None  # the work that carrying it out began, where it is not done at once

    def is_about(self, body: dict[str, Any]) -> bool:
        """Whether an entry is of what was asked: that action, on that object or what it makes."""
        kind, identity = body["object"]["kind"], body["object"]["id"]
        if self.done and kind == "key" and body["action"] in BEGUN.get(self.action, ()):
            return True  # the version that repairs is made by a job of its own
        right = (kind, identity) == self.subject or ELSEWHERE.get(self.action) == kind
        return bool(body["action"] == self.action and right)

    def _compare(self, text: object, quorum: dict[str, Any]) -> None:
        if not isinstance(text, str) or sha256(text.encode()).hexdigest() != self.digest:
            raise Malformed("repeats a request that does not have the hash it says.")
        said = parse(text.encode())
        same = isinstance(said, dict) and (
            said.get("action") == self.action
            and said.get("requester") == self.requester
            and said.get("officers") == self.officers
            and said.get("quorum") == quorum
        )
        if not same:
            raise Malformed("repeats a request that says something else than the entry.")


class Approvals:
    """Replays votes. What was carried out must have had them, from m officers, for just this request."""

    def __init__(self, whole: bool) -> None:
        self.whole, self.judged, self.unknown = whole, 0, 0
        self._requests: dict[str, Request] = {}

    def see(self, body: dict[str, Any]) -> Iterator[str]:
        """Yield in sentences what an entry says that can't have been so."""
        if body["v"] == 1:
            self.whole = False  # the first form of entries did not say whose votes were asked for
        for approval in body["approvals"]:
            if body["outcome"] == "pending":
                yield from self._asked(approval, body)
            elif approval in self._requests:
                yield from self._went_on(self._requests[approval], body)
            elif body["outcome"] in ("success", "started"):
                self.unknown += 1
                if self.whole:
                    yield "rests on a request that nobody made."

    def _asked(self, approval: str, body: dict[str, Any]) -> Iterator[str]:
        if body["v"] == 1:
            return
        try:
            request = Request(body)
        except Malformed as problem:
            yield str(problem)
            return
        before = self._requests.setdefault(approval, request)  # asking again is no new request
        if before.digest != request.digest or before.requester != request.requester:
            yield "asks for something else under a request that was made before."

    def _went_on(self, request: Request, body: dict[str, Any]) -> Iterator[str]:
        action, outcome = body["action"], body["outcome"]
        if outcome == "denied" and body["reason"].startswith("approval_"):
            request.closed = request.closed or "no longer held"
        elif outcome not in ("success", "started"):
            return
        elif action == "vote":
            yield from self._vote(request, body)
        elif action in CLOSES:
            request.closed = request.closed or "was closed"
        elif not request.done:
            yield from self._carried_out(request, body)
        else:
            yield from self._after(request, body)

    def _vote(self, request: Request, body: dict[str, Any]) -> Iterator[str]:
        officer, facts = body["actor"]["id"], body["facts"]
        if facts.get("request_sha256") != request.digest:
            yield "is a vote on something else than was asked."
        elif officer == request.requester:
            yield "is a vote of the one who asked."
        elif officer not in request.officers:
            yield "is a vote of somebody who is not an officer of the request."
        elif officer in request.voted:
            yield "is a second vote of the same officer."
        elif request.closed or request.done:
            yield "is a vote on a request that was closed."
        elif facts.get("agreed") is True:
            request.agreed.add(officer)
        else:
            request.closed = "was refused by an officer"
        request.voted.add(officer)

    def _carried_out(self, request: Request, body: dict[str, Any]) -> Iterator[str]:
        self.judged += 1
        request.done = True
        request.job = body["facts"].get("job")
        request.ended = body["outcome"] == "success" and request.job is None
        if request.closed:
            yield f"carries out a request that {request.closed}."
        elif len(request.officers) < request.n:
            yield f"carries out a request with {len(request.officers)} of {request.n} officers."
        elif len(request.agreed) < request.m and self.whole:
            yield f"carries out a request with {len(request.agreed)} of {request.m} votes."
        elif not request.is_about(body):
            yield "carries out something else than was asked."
        elif body["actor"]["id"] != request.requester and body["actor"]["kind"] != SERVICE:
            yield "carries out what somebody else had asked for."
        elif len(request.agreed) < request.m:
            self.unknown += 1

    def _after(self, request: Request, body: dict[str, Any]) -> Iterator[str]:
        """Judge what cites a request that was carried out: the job that it began may, and ends it."""
        if request.ended:
            yield "rests on a request that was carried out before."
        elif body["actor"]["kind"] != SERVICE or body["facts"].get("job") != request.job:
            yield "is not of the work that its request began."
        elif not request.is_about(body):
            yield "does something else than its request asked for."
        request.ended = request.ended or body["outcome"] == "success"


# --- Personal data: an entry holds HMAC-SHA256 of a value under a random salt


def commitment(salt: bytes, value: str) -> str:
    """Return the commitment to a value, as entries have it."""
    return "hmac-sha256:" + hmac.new(salt, value.encode(), sha256).hexdigest()


def check_personal(row: Any) -> None:
    """Raise Malformed unless value and salt give the commitment."""
    if not isinstance(row, dict) or not all(
        isinstance(row.get(name), str) for name in ("commitment", "salt", "value")
    ):
        raise Malformed("is not a personal value")
    try:
        given = commitment(base64_of(row["salt"]), row["value"])
    except UnicodeEncodeError:
        given = ""
    if given != row["commitment"]:
        raise Malformed("is not the value that the entries commit to")


# --- Where the evidence lies


def plain(text: str) -> str:
    """Return a text from the evidence as it can be shown: nothing that a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in text[:200])


def lines_of(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the lines without their newlines, at constant memory. Raises Malformed for endless ones."""
    rest = b""
    while chunk := stream.read(CHUNK):
        parts = (rest + chunk).split(b"\n")
        rest = parts.pop()
        if len(rest) > LINE_LIMIT:
            raise Malformed("has a line without end")
        yield from parts
    if rest:
        yield rest


NAMES = {
    *("README.txt", "manifest.json", "entries.jsonl", "proofs.jsonl", "checkpoint"),
    *("consistency.jsonl", "keys.txt", "policy.txt", "personal.jsonl", "verify.py"),
}


class Evidence:
    """A ZIP, a folder, or a file of JSON Lines. Only the known names are ever opened."""

    def __init__(self, path: str) -> None:
        self._path, self._zip = path, None  # type: str, zipfile.ZipFile | None
        if os.path.isdir(path):
            found = [name for name in NAMES if self._is_file(os.path.join(path, name))]
        elif zipfile.is_zipfile(path):
            self._zip = zipfile.ZipFile(path)
            found = [one.filename for one in self._zip.infolist()]
            self._no_bomb(found, self._zip.infolist())
        elif self._is_file(path):
            found = ["entries.jsonl"]
        else:
            raise Unreadable("There is no evidence at that place.")
        self.names = set(found)
        self.bare = self._zip is None and not os.path.isdir(path)
        if "entries.jsonl" not in self.names:
            raise Unreadable("There are no entries in the evidence.")

    def _no_bomb(self, found: list[str], rows: list[zipfile.ZipInfo]) -> None:
        if len(set(found)) != len(found) or not set(found) <= NAMES:
            raise Unreadable("The archive holds files that no evidence has, or one twice.")
        for row in rows:
            if row.flag_bits & 1 or row.compress_type not in (
                zipfile.ZIP_STORED,
                zipfile.ZIP_DEFLATED,
            ):
                raise Unreadable("The archive is encrypted or packed in an unknown way.")
            if row.file_size > SMALL_LIMIT and row.file_size > RATIO * row.compress_size:
                raise Unreadable("The archive would unpack to far more than it holds.")

    def _is_file(self, path: str) -> bool:
        try:
            return stat.S_ISREG(os.lstat(path).st_mode)
        except (OSError, ValueError):
            return False

    def open(self, name: str) -> BinaryIO:
        """Open one of the files."""
        if self._zip is not None:
            return cast(BinaryIO, self._zip.open(name))
        return open(self._path if self.bare else os.path.join(self._path, name), "rb")

    def small(self, name: str) -> bytes:
        """Return a file as a whole; nothing where it is not there. Raises Malformed for a large one."""
        if name not in self.names or self.bare:
            return b""
        with self.open(name) as stream:
            return limited(stream, name)

    def rows(self, name: str) -> Iterator[Any]:
        """Yield the values of a file of JSON Lines; nothing where it is not there."""
        if name in self.names:
            with self.open(name) as stream:
                yield from (parse(line) for line in lines_of(stream))


def limited(stream: BinaryIO, name: str) -> bytes:
    """Return what a small file holds. Raises Malformed."""
    data = stream.read(SMALL_LIMIT + 1)
    if len(data) > SMALL_LIMIT:
        raise Malformed(f"{name} is too large")
    return data


def file_of(path: str) -> bytes:
    """Return what a small file of the auditor's own holds."""
    with open(path, "rb") as stream:
        return limited(stream, path)


def keys_in(data: bytes) -> list[Key]:
    """Return the verifier keys of a file, one a line; # begins a comment."""
    lines = [line.partition("#")[0].strip() for line in data.decode().splitlines()]
    return [Key(line) for line in lines if line]


# --- The walk


class Verification:
    """What was checked and what was found. `first_bad` is the lowest index that is known to be wrong."""

    def __init__(self) -> None:
        self.checked: list[str] = []
        self.unchecked: list[str] = []
        self.notes: list[str] = []
        self.findings: list[tuple[int | None, str]] = []
        self.count = 0
        self.first_bad: int | None = None

    def find(self, index: int | None, problem: str) -> None:
        """Note something that is wrong."""
        self.count += 1
        if len(self.findings) < TOLD:
            self.findings.append((index, problem))
        if index is not None and (self.first_bad is None or index < self.first_bad):
            self.first_bad = index

    def attempt(self, what: str, check: Callable[[], object]) -> None:
        """Do one check; a Malformed of it is a finding about `what`."""
        try:
            check()
        except (Malformed, UnicodeDecodeError) as problem:
            self.find(None, f"{what} {problem}.")

    @property
    def exit_code(self) -> int:
        """0 sound, 1 not sound, 2 something could not be checked."""
        return 1 if self.count else 2 if self.unchecked else 0


class Verifier:
    """One walk through one piece of evidence."""

    def __init__(self, evidence: Evidence, options: argparse.Namespace) -> None:
        self.evidence, self.options = evidence, options
        self.result = Verification()
        self.whole = evidence.bare or self._manifest().get("whole") is True
        signed = file_of(options.checkpoint) if options.checkpoint else evidence.small("checkpoint")
        if not signed and evidence.bare:
            raise Unreadable("There is no checkpoint to compare the entries with (--checkpoint).")
        self.note = Note(signed)
        self.previous = Note(file_of(options.previous)) if options.previous else None
        self.policy = self._policy()
        self.keys = self._keys()
        self.lives, self.approvals = Lives(self.whole), Approvals(self.whole)
        self.forms = Forms(self.whole)
        self.entries = 0

    def _manifest(self) -> dict[str, Any]:
        said = parse(self.evidence.small("manifest.json"))
        if not isinstance(said, dict) or said.get("format") != FORMAT:
            raise Unreadable("The evidence has a form that this verifier does not know.")
        return said

    def _policy(self) -> Policy:
        if not self.options.policy:
            return Policy(self.evidence.small("policy.txt").decode())
        policy = Policy(file_of(self.options.policy).decode())
        if not policy.log and not policy.witnesses:
            raise Unreadable("The policy that you gave names no log and no witness.")
        return policy

    def _keys(self) -> list[Key]:
        if self.options.keys:
            return keys_in(file_of(self.options.keys))
        if self.options.policy and self.policy.log:
            return self.policy.log
        keys = keys_in(self.evidence.small("keys.txt"))
        if not keys or self.options.no_signatures:
            return keys
        said = "The log's keys came with the evidence: who forged one could have forged the other."
        if self.options.trust_enclosed_keys:
            self.result.notes.append(said)
        else:
            self.result.unchecked.append(
                f"{said} There is nothing of yours to compare them with (--keys, a --policy with "
                "the log's keys, or --trust-enclosed-keys)."
            )
        return keys

    def run(self) -> Verification:
        """Check everything."""
        self._signatures()
        earlier = self._earlier()
        (self._walk_whole if self.whole else self._walk_filtered)(earlier)
        self._personal()
        result, lives, votes = self.result, self.lives, self.approvals
        result.checked.append(
            f"{lives.moves} changes of a key's state, each against what may follow."
        )
        result.checked.append(f"{votes.judged} approved actions, each against its votes.")
        if votes.unknown:
            result.notes.append(
                f"{votes.unknown} entries rest on votes that are not in this evidence."
            )
        result.notes += self.forms.notes()
        return result

    def _signatures(self) -> None:
        result, note = self.result, self.note
        if self.options.no_signatures:
            result.notes.append("Signatures were not checked, as you asked.")
            return
        if not self.keys:
            result.unchecked.append("There are no keys of the log to check signatures with.")
            return
        try:
            result.attempt("The checkpoint", lambda: note.check(self.keys, every_kind=True))
            if self.previous is not None:
                old = self.previous
                result.attempt("Your earlier checkpoint", lambda: old.check(self.keys, False))
            self._witnesses()
        except ImportError:
            result.unchecked.append(
                "Signatures: the package cryptography is not here, or too old (--no-signatures)."
            )
        else:
            result.checked.append(f"The signatures of the checkpoint of {plain(note.origin)}.")

    def _witnesses(self) -> None:
        if not self.policy.witnesses:
            return
        names: list[str] = []
        self.result.attempt(
            "The checkpoint", lambda: names.extend(self.policy.satisfied(self.note))
        )
        self.result.checked.append(f"Witnesses: {', '.join(map(plain, names)) or 'none'}.")
        if not self.options.policy:
            self.result.notes.append("Which witnesses to ask came with the evidence (--policy).")

    def _earlier(self) -> dict[int, list[tuple[str, bytes]]]:
        """Check earlier checkpoints; return those that a walk through all entries compares, by size."""
        note, mine, result = self.note, self.previous, self.result
        wanted = {note.size: [("the checkpoint", note.root)]}
        proven = self._consistency()
        if mine is None:
            result.notes.append("You gave no earlier checkpoint: keep this one for the next time.")
        elif mine.origin != note.origin:
            result.find(None, "Your earlier checkpoint is of another log.")
        elif mine.size > note.size:
            result.find(
                note.size, f"The log was cut: you hold a checkpoint of {mine.size} entries."
            )
        elif mine.size == note.size and mine.root != note.root:
            result.find(
                None, "The log was rewritten: your checkpoint of its size has another root."
            )
        elif self.whole:
            wanted.setdefault(mine.size, []).append(("your earlier checkpoint", mine.root))
        elif mine.size not in (0, note.size) and not proven:
            result.unchecked.append("Nothing here links your earlier checkpoint to this one.")
        return wanted

    def _consistency(self) -> bool:
        """Check the proofs that earlier checkpoints are the beginning; whether yours was among them."""
        mine, count = False, 0
        for row in self.evidence.rows("consistency.jsonl"):
            try:
                old, hashes = Note(str(row["note"]).encode()), hashes_of(row)
                if self.keys and not self.options.no_signatures and CAN_SIGN:
                    old.check(self.keys, every_kind=False)
            except (Malformed, KeyError, TypeError, UnicodeEncodeError):
                self.result.find(None, "An earlier checkpoint in the evidence is not a signed one.")
                continue
            root, count = old.root, count + 1
            if self.previous is not None and self.previous.size == old.size:
                root, mine = self.previous.root, True
            if not consistent(old.size, root, self.note.size, self.note.root, hashes):
                problem = f"The checkpoint of {old.size} entries is not the beginning of this one."
                self.result.find(None, problem)
        if count:
            self.result.checked.append(
                f"{count} earlier checkpoints, each the beginning of this one."
            )
        return mine

    def _walk_whole(self, wanted: dict[int, list[tuple[str, bytes]]]) -> None:
        """Every entry from 0 on: their own hashes give the root."""
        tree, good, size = Tree(), 0, 0
        append, look_at = tree.append, self._look
        with self.evidence.open("entries.jsonl") as stream:
            for line in lines_of(stream):
                if plain_use(line) != size:  # nearly always it is the one that is expected
                    look_at(line, size)
                append(sha256(b"\0" + line).digest())
                size += 1
                if size in wanted:
                    good = self._compare(tree, wanted.pop(size), good)
        self.entries = tree.size
        if 0 in wanted:
            self._compare(Tree(), wanted.pop(0), 0)
        for size in wanted:
            self.result.find(tree.size, f"Entry {tree.size} is missing, and all up to {size - 1}.")
        if tree.size > self.note.size and not self.evidence.bare:
            self.result.find(self.note.size, "There are entries behind the checkpoint's end.")
        elif tree.size > self.note.size:
            self.result.notes.append(
                f"The entries from {self.note.size} on are newer than the checkpoint: nobody signed them."
            )
        self.result.checked.append(
            f"All {tree.size} entries, each in its place, and the root that they give."
        )

    def _compare(self, tree: Tree, wanted: list[tuple[str, bytes]], good: int) -> int:
        root = tree.root()
        for name, theirs in wanted:
            if root != theirs:
                where = f"{good}..{tree.size - 1}"
                self.result.find(
                    good, f"The log was rewritten somewhere in {where}: {name} has another root."
                )
        return tree.size if all(theirs == root for _, theirs in wanted) else good

    def _walk_filtered(self, wanted: dict[int, list[tuple[str, bytes]]]) -> None:
        """Each entry by its own proof. What was left out nobody can tell."""
        note, last = self.note, -1
        proofs = self.evidence.rows("proofs.jsonl")
        with self.evidence.open("entries.jsonl") as stream:
            for line in lines_of(stream):
                self.entries += 1
                index = self._look(line, None)
                row = next(proofs, None)
                if index is None:
                    continue
                if index <= last:
                    self.result.find(index, f"Entry {index} is out of its order, or there twice.")
                last = index
                self._included(line, index, row, note)
        if next(proofs, None) is not None:
            self.result.find(None, "There are proofs of entries that are not there.")
        self.result.checked.append(
            f"{self.entries} entries, each by its proof in the log of {note.size} entries."
        )
        self.result.notes.append("It is a selection: what was left out, it does not show.")

    def _included(self, line: bytes, index: int, row: Any, note: Note) -> None:
        try:
            right = isinstance(row, dict) and row.get("index") == index
            right = right and included(leaf(line), index, note.size, hashes_of(row), note.root)
        except Malformed:
            right = False
        if not right:
            self.result.find(index, f"Entry {index} is not proven to be in the log.")

    def _look(self, line: bytes, expected: int | None) -> int | None:
        """Check one entry by itself and against what went before; return its index."""
        try:
            index, body = look(line)
        except Malformed as problem:
            name = "An entry" if expected is None else f"Entry {expected}"
            self.result.find(expected, f"{name} {problem}.")
            return None
        if expected is not None and index != expected:
            self.result.find(expected, f"Entry {expected} says that it is entry {index}.")
        if body is None:
            self.forms.second()
            return index
        for said in (*self.forms.see(body), *self.lives.see(body), *self.approvals.see(body)):
            self.result.find(index, f"Entry {index} {said}")
        return index

    def _personal(self) -> None:
        count = 0
        if self.evidence.bare:
            return
        for row in self.evidence.rows("personal.jsonl"):
            count += 1
            try:
                check_personal(row)
            except Malformed as problem:
                self.result.find(None, f"Line {count} of personal.jsonl {problem}.")
        self.result.checked.append(f"{count} personal values, each against its commitment.")


# --- The command


def verify(path: str, options: argparse.Namespace) -> tuple[Verification, Verifier | None]:
    """Verify evidence; whatever it holds, the answer is a Verification and never an exception."""
    failed = Verification()
    try:
        verifier = Verifier(Evidence(path), options)
    except Unreadable as error:
        failed.unchecked.append(str(error))
        return failed, None
    except Malformed as error:
        failed.find(None, f"The evidence can't be understood: something in it {error}.")
        return failed, None
    except Exception as error:  # hostile input: whatever it breaks, say so
        failed.unchecked.append(f"The evidence could not be read ({type(error).__name__}).")
        return failed, None
    try:
        return verifier.run(), verifier
    except Malformed as error:
        verifier.result.find(None, f"A file of the evidence {error}.")
    except Exception as error:  # the same
        verifier.result.unchecked.append(
            f"The evidence could not be read to its end ({type(error).__name__})."
        )
    return verifier.result, verifier


def report(result: Verification, verifier: Verifier | None) -> list[str]:
    """Return the report for people."""
    lines = []
    if verifier is not None:
        note = verifier.note
        root = base64.b64encode(note.root).decode()
        lines.append(f"Log {plain(note.origin)}: checkpoint of {note.size} entries, root {root}")
        lines += [f"Checked: {text}" for text in result.checked]
    lines += [f"Note: {text}" for text in result.notes]
    lines += [f"NOT CHECKED: {text}" for text in result.unchecked]
    lines += [f"WRONG: {text}" for _, text in result.findings]
    if result.count > len(result.findings):
        lines.append(f"WRONG: and {result.count - len(result.findings)} more.")
    if result.first_bad is not None:
        lines.append(f"First bad index: {result.first_bad}.")
    lines.append(VERDICTS[result.exit_code])
    return lines


VERDICTS = (
    "The evidence is sound.",
    "The evidence is NOT sound.",
    "Not everything could be checked.",
)


def as_json(result: Verification, verifier: Verifier | None) -> str:
    """Return the same for programs."""
    note = verifier.note if verifier else None
    said = {
        "exit_code": result.exit_code,
        "origin": note.origin if note else None,
        "size": note.size if note else None,
        "root": note.root.hex() if note else None,
        "entries": verifier.entries if verifier else 0,
        "first_bad_index": result.first_bad,
        "findings": [{"index": index, "problem": text} for index, text in result.findings],
        "finding_count": result.count,
        "checked": result.checked,
        "not_checked": result.unchecked,
        "notes": result.notes,
    }
    return json.dumps(said, indent=2)


def main(arguments: list[str] | None = None) -> int:
    """Verify what the command line names; return the exit code."""
    parser = argparse.ArgumentParser(description="Verify evidence of a KMS Console's audit trail.")
    parser.add_argument("evidence", help="the ZIP, its unpacked folder, or entries as JSON Lines")
    parser.add_argument(
        "--checkpoint", metavar="FILE", help="the checkpoint for entries as JSON Lines"
    )
    parser.add_argument(
        "--keys", metavar="FILE", help="the log's keys as you noted them, one a line"
    )
    parser.add_argument("--policy", metavar="FILE", help="whose signatures you ask for")
    parser.add_argument(
        "--previous", metavar="FILE", help="a checkpoint that you kept from earlier"
    )
    parser.add_argument(
        "--trust-enclosed-keys", action="store_true", help="believe the keys in the evidence"
    )
    parser.add_argument("--no-signatures", action="store_true", help="check everything else")
    parser.add_argument("--json", action="store_true", help="the report for programs")
    parser.add_argument("--quiet", action="store_true", help="the verdict only")
    options = parser.parse_args(arguments)
    result, verifier = verify(options.evidence, options)
    lines = [as_json(result, verifier)] if options.json else report(result, verifier)
    sys.stdout.write("\n".join(lines[-1:] if options.quiet else lines) + "\n")
    return result.exit_code


if __name__ == "__main__":
    sys.exit(main())
