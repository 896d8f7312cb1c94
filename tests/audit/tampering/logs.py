"""Small random logs as the product writes them: lives of keys, votes, uses, people, checkpoints."""

from __future__ import annotations

import base64
import copy
import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from audit import canonical, entries
from audit.evidence import verify as rules
from audit.merkle import Frontier, inclusion_proof, leaf_hash, root_of
from audit.personal import commit

ORIGIN = "example.org/kms-console"
T0 = 1_790_000_000_000_000
WIDTH = 256

Body = dict[str, Any]


class Signer:
    """An Ed25519 key with a name: the log's, or (kind 4) a witness's."""

    def __init__(self, name: str, kind: bytes, seed: int) -> None:
        self.name, self.kind = name, kind
        self._key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"%d" % seed).digest())
        self.data = kind + self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.id = hashlib.sha256(name.encode() + b"\n" + self.data).digest()[:4]

    @property
    def vkey(self) -> str:
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(self.data).decode()}"

    def line(self, body: str, seconds: int = 1_800_000_000, key_id: bytes | None = None) -> str:
        """Return the signature line under a note's text; with `key_id`, under another key's id."""
        if self.kind == rules.ED25519:
            signature = self._key.sign(body.encode())
        else:
            said = f"cosignature/v1\ntime {seconds}\n{body}".encode()
            signature = seconds.to_bytes(8, "big") + self._key.sign(said)
        value = base64.b64encode((key_id or self.id) + signature).decode()
        return f"\u2014 {self.name} {value}\n"


LOG, WITNESS = Signer(ORIGIN, rules.ED25519, 1), Signer("witness.example", rules.COSIGNATURE, 2)
THIEF = Signer(ORIGIN, rules.ED25519, 3)
POLICY = f"log {LOG.vkey}\nwitness w {WITNESS.vkey}\nquorum w\n"


def note_body(size: int, root: bytes) -> str:
    return f"{ORIGIN}\n{size}\n{base64.b64encode(root).decode()}\n"


def signed(size: int, root: bytes, *, by: Signer = LOG, key_id: bytes | None = None) -> str:
    body = note_body(size, root)
    return f"{body}\n{by.line(body, key_id=key_id)}{WITNESS.line(body)}"


@dataclass
class Log:
    """A log with all that stands beside it, as whoever owns the database can rewrite it."""

    bodies: list[bytes]
    personal: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)
    kept: str = ""  # the checkpoint that the auditor has, elsewhere
    leaves: list[bytes] = field(default_factory=list)
    columns: list[tuple[Any, ...]] = field(default_factory=list)
    tiles: dict[tuple[int, int], list[bytes]] = field(default_factory=dict)
    edge: Frontier = field(default_factory=Frontier)
    chosen: list[int] | None = None  # what a selection of it shows
    wrong_proof: bool = False

    def redo(self) -> None:
        """Compute whatever follows from the bodies: what a diligent attacker does."""
        self.leaves = [leaf_hash(body) for body in self.bodies]
        self.columns = [entries.columns(rules.parse(body)) for body in self.bodies]
        self.edge = Frontier()
        self.edge.extend(self.leaves)
        self.tiles = {
            (0, at // WIDTH): self.leaves[at : at + WIDTH]
            for at in range(0, len(self.leaves) // WIDTH * WIDTH, WIDTH)
        }

    def root(self, size: int) -> bytes:
        return root_of(self.leaves[:size])

    def copy(self) -> Log:
        return copy.deepcopy(self)

    def proof(self, index: int, size: int) -> list[str]:
        def range_hash(start: int, end: int) -> bytes:
            return root_of(self.leaves[start:end])

        found = inclusion_proof(index, size, range_hash)
        return [base64.b64encode(one).decode() for one in found]


def renumbered(bodies: list[bytes]) -> list[bytes]:
    """Return the bodies as if each had been written where it stands."""
    made = []
    for index, data in enumerate(bodies):
        body = rules.parse(data)
        made.append(data if body["index"] == index else canonical.encode(body | {"index": index}))
    return made


class Author:
    """Writes what happens in a house, from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.bodies: list[bytes] = []
        self.personal: dict[str, dict[str, Any]] = {}
        self._names: dict[str, str] = {}
        self._at = T0
        self._states: dict[tuple[str, int | None], str] = {}
        self._keys: list[str] = []

    def uuid(self) -> str:
        text = f"{self.random.getrandbits(128):032x}"
        return f"{text[:8]}-{text[8:12]}-7{text[13:16]}-8{text[17:20]}-{text[20:]}"

    def name(self, who: str) -> str:
        """Return the commitment to a person's name."""
        if who not in self._names:
            salt = self.random.randbytes(32)
            text = commit(salt, who)
            self._names[who] = text
            self.personal[text] = {"commitment": text, "salt": salt, "value": who, "subject": who}
        return self._names[who]

    def write(self, **said: Any) -> None:
        self._at += self.random.randrange(1, 5_000_000)
        who = said.pop("who", "payroll")
        about = {"kind": "key", "id": "", "name": "", "version": None, "classification": "secret"}
        body = {
            "v": 2,
            "index": len(self.bodies),
            "uuid": self.uuid(),
            "at": self._at,
            "actor": {"kind": "person", "id": f"id-{who}", "name": self.name(who)},
            "method": "bearer",
            "door": "rest",
            "action": "encrypt",
            "outcome": "success",
            "reason": "",
            "source": self.name("192.0.2.7"),
            "request_id": f"r-{len(self.bodies)}",
            "approvals": [],
            "facts": {},
        }
        self.bodies.append(
            canonical.encode(body | said | {"object": about | said.get("object", {})})
        )

    def use(self) -> None:
        key = self.random.choice(self._keys) if self._keys else "none"
        facts = {"grant": self.uuid(), "role": "user"} if self.random.random() < 0.7 else {}
        self.write(object={"id": key, "name": "wages", "version": 1}, facts=facts)

    def moved(self, key: str, *moves: tuple[int | None, str], **said: Any) -> None:
        told = []
        for version, to in moves:
            before = self._states.get((key, version), "")
            self._states[key, version] = to
            told.append({"key": key, "version": version, "from": before, "to": to})
        facts = said.pop("facts", {}) | {"states": told}
        self.write(object={"id": key, "name": "wages"}, facts=facts, **said)

    def create(self) -> None:
        key = self.uuid()
        self._keys.append(key)
        self.moved(key, (None, "enabled"), (1, "active"), action="create_key", who="Alice")

    def live(self) -> None:
        """Move some key or version along a legal edge."""
        at = self.random.choice(list(self._states) or [("", None)])
        edges: dict[str, set[str]] = rules.KEY_EDGES if at[1] is None else rules.VERSION_EDGES
        after = sorted(edges.get(self._states.get(at, ""), ()))
        if after:
            self.moved(at[0], (at[1], self.random.choice(after)), action="transition_version")

    def vote(self) -> None:
        """Ask, let two of three officers agree (or one refuse), and carry it out."""
        if not self._keys:
            return
        key, approval = self.random.choice(self._keys), self.uuid()
        officers = [f"id-{name}" for name in ("Olga", "Otto", "Omar")]
        quorum = {"m": 2, "n": 3}
        request = canonical.encode(
            {
                "action": "enable_key",
                "approval": approval,
                "officers": officers,
                "quorum": quorum,
                "requester": "id-Alice",
            }
        ).decode()
        digest = hashlib.sha256(request.encode()).hexdigest()
        facts = {"request_sha256": digest, "quorum": quorum, "officers": officers}
        about = {"id": key, "name": "wages"}
        common: dict[str, Any] = {"approvals": [approval]}
        asked = facts | {"request": request}
        self.write(
            action="enable_key", outcome="pending", who="Alice", object=about, facts=asked, **common
        )
        agreed = self.random.random() < 0.8
        for officer in self.random.sample(["Olga", "Otto", "Omar"], 2):
            told = {"request_sha256": digest, "agreed": agreed}
            about_it = {"kind": "approval", "id": approval}
            self.write(action="vote", who=officer, object=about_it, facts=told, **common)
            if not agreed:
                return
        self.write(action="enable_key", outcome="started", who="Alice", object=about, **common)


def make(seed: int, size: int | None = None) -> Log:
    """Return a sound log of a dozen to some sixty entries (or `size`), signed at several sizes."""
    author = Author(seed)
    count = size or author.random.randrange(12, 50)
    author.create()
    while len(author.bodies) < count:
        if size and len(author.bodies) > 40:
            author.use()
            continue
        does: list[Callable[[], None]] = [author.use, author.live, author.vote, author.create]
        author.random.choices(does, [6, 2, 1, 1])[0]()
    log = Log(author.bodies, list(author.personal.values()))
    log.redo()
    end = len(log.bodies)
    sizes = sorted({*author.random.sample(range(1, end), 3), end})
    log.notes = [signed(at, log.root(at)) for at in sizes]
    log.kept = log.notes[-1]
    return log
