"""The fourteen ways to tamper with a log. Each gets a sound log and returns what an attacker makes of it.

The attacker owns the database and knows how the log works: where `diligent`, hashes, columns, tiles
and head are computed anew, and whatever signed checkpoint contradicts the new log is taken away. What
the attacker does not have: the signer's key, the witness's, and the auditor's copy of a checkpoint.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from audit import canonical
from audit.evidence import verify as rules
from tests.audit.tampering.logs import LOG, THIEF, WITNESS, Log, make, note_body, renumbered, signed

Mutation = Callable[[Log, random.Random], None]


def settle(log: Log, dice: random.Random) -> None:
    """Make everything fit the new bodies, and forget the checkpoints that don't."""
    log.bodies = renumbered(log.bodies)
    log.redo()
    if dice.random() < 0.7:
        kept = [rules.Note(text.encode()) for text in log.notes]
        size = len(log.bodies)
        fits = [n.size <= size and log.root(n.size) == n.root for n in kept]
        log.notes = [text for text, fit in zip(log.notes, fits, strict=True) if fit]
    if not log.notes:  # nothing is left that was ever signed: forge one
        log.notes = [signed(len(log.bodies), log.root(len(log.bodies)), by=THIEF)]


def careless(log: Log) -> None:
    """Leave hashes, tiles and head as they were, as far as there are still rows for them."""
    old = log.columns[0]
    count = len(log.bodies)
    log.columns = [
        (at, *(log.columns[at] if at < len(log.columns) else old)[1:]) for at in range(count)
    ]
    log.leaves = [log.leaves[at] if at < len(log.leaves) else bytes(32) for at in range(count)]


def finish(log: Log, dice: random.Random) -> None:
    (settle(log, dice) if dice.random() < 0.7 else careless(log))


def bit_flip(log: Log, dice: random.Random) -> None:
    at = dice.randrange(len(log.bodies))
    data = bytearray(log.bodies[at])
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    log.bodies[at] = bytes(data)


def field_edit(log: Log, dice: random.Random) -> None:
    at = dice.randrange(len(log.bodies))
    body = rules.parse(log.bodies[at])
    name = dice.choice(["outcome", "actor", "action", "source", "facts", "object"])
    if name == "outcome":
        body[name] = "denied" if body[name] != "denied" else "failed"
    elif name == "facts":
        body[name] = {**body[name], "grant": "another"}
    elif isinstance(body[name], dict):
        body[name] = {**body[name], "id": "somebody else"}
    else:
        body[name] += "x"
    log.bodies[at] = canonical.encode(body)
    finish(log, dice)


def swap(log: Log, dice: random.Random) -> None:
    one, other = dice.sample(range(len(log.bodies)), 2)
    log.bodies[one], log.bodies[other] = log.bodies[other], log.bodies[one]
    finish(log, dice)


def insert(log: Log, dice: random.Random) -> None:
    body = rules.parse(dice.choice(log.bodies))
    uuid = dice.randbytes(4).hex() + body["uuid"][8:]
    new = canonical.encode(body | {"uuid": uuid, "action": "sign", "approvals": [], "facts": {}})
    log.bodies.insert(dice.randrange(len(log.bodies)), new)
    finish(log, dice)


def delete(log: Log, dice: random.Random) -> None:
    at = dice.randrange(len(log.bodies) - 1)
    if dice.random() < 0.5:
        del log.bodies[at]
        finish(log, dice)
        return
    for column in (log.bodies, log.leaves, log.columns):  # the row alone, and a hole stays
        del column[at]


def truncate(log: Log, dice: random.Random) -> None:
    count = dice.choice([1, dice.randrange(1, len(log.bodies))])
    del log.bodies[-count:]
    finish(log, dice)


def rollback(log: Log, dice: random.Random) -> None:
    """The whole database as it was at an earlier checkpoint: all of it fits, but not what was kept."""
    log.notes = log.notes[: dice.randrange(1, len(log.notes))]
    del log.bodies[rules.Note(log.notes[-1].encode()).size :]
    log.redo()


def fork(log: Log, dice: random.Random) -> None:
    """Another story from some entry on, shorter or longer than the true one."""
    at = dice.randrange(len(log.bodies) - 1)
    other = make(dice.randrange(2**32)).bodies
    more = [canonical.encode(rules.parse(body) | {"approvals": [], "facts": {}}) for body in other]
    log.bodies[at:] = more[: dice.randrange(1, len(more))]
    settle(log, dice)


def duplicate(log: Log, dice: random.Random) -> None:
    at = dice.randrange(len(log.bodies))
    # Never right behind the last one: the evidence ends at the checkpoint and would be as it was.
    log.bodies.insert(dice.randrange(len(log.bodies) - 1), log.bodies[at])
    finish(log, dice)


def timestamp(log: Log, dice: random.Random) -> None:
    at = dice.randrange(len(log.bodies))
    body = rules.parse(log.bodies[at])
    shift = dice.choice([-1, 1]) * dice.randrange(1, 10**9)
    log.bodies[at] = canonical.encode(body | {"at": body["at"] + shift})
    finish(log, dice)


def tile_edit(log: Log, dice: random.Random) -> None:
    """A hash in a tile is another: what it proves is no longer in the tree."""
    hashes = log.tiles[0, 0] = list(log.tiles[0, 0])
    hashes[dice.randrange(len(hashes))] = dice.randbytes(32)
    log.wrong_proof = True
    log.chosen = sorted(dice.sample(range(len(log.bodies)), 3))


def wrong_key(log: Log, dice: random.Random) -> None:
    """Everything is rewritten, and signed by a key that calls itself the log's."""
    at = dice.randrange(len(log.bodies))
    body = rules.parse(log.bodies[at])
    log.bodies[at] = canonical.encode(body | {"source": "203.0.113.9"})
    log.redo()
    size = len(log.bodies)
    identity = dice.choice([None, LOG.id])
    log.notes = [signed(size, log.root(size), by=THIEF, key_id=identity)]
    if dice.random() < 0.5:
        log.kept = log.notes[0]  # even an auditor who was given the forged one before


def witness_replay(log: Log, dice: random.Random) -> None:
    """An old cosigned checkpoint is offered as the newest, or its cosignature under a new note."""
    old = log.notes[0]
    if dice.random() < 0.5:
        log.notes = [old]
        del log.bodies[rules.Note(old.encode()).size :]
        log.redo()
        return
    size = len(log.bodies)
    body = note_body(size, log.root(size))
    old_line = next(line for line in old.splitlines() if WITNESS.name in line)
    log.notes = [f"{body}\n{LOG.line(body)}{old_line}\n"]
    log.kept = log.notes[0]


def salt_swap(log: Log, dice: random.Random) -> None:
    """Whose name it was, is told otherwise: salts or values change places, or are new."""
    one, other = dice.sample(range(len(log.personal)), 2)
    first, second = dict(log.personal[one]), dict(log.personal[other])
    way = dice.choice(["salt", "value", "new"])
    if way == "new":
        first["salt"] = dice.randbytes(32)
    else:
        first[way], second[way] = second[way], first[way]
    log.personal[one], log.personal[other] = first, second


MUTATIONS: dict[str, Mutation] = {
    "bit flip": bit_flip,
    "field edit": field_edit,
    "swap": swap,
    "insert": insert,
    "delete": delete,
    "truncate": truncate,
    "rollback": rollback,
    "fork": fork,
    "duplicate": duplicate,
    "timestamp edit": timestamp,
    "tile edit": tile_edit,
    "wrong key": wrong_key,
    "witness replay": witness_replay,
    "salt swap": salt_swap,
}


def tampered(name: str, seed: int) -> tuple[Log, Log]:
    """Return a sound log and what the attack makes of it; the two differ."""
    dice = random.Random(f"{name} {seed}")
    sound = make(seed, 256 + seed % 40 if name == "tile edit" else None)
    if (
        seed % 2
    ):  # what the auditor kept is from any earlier day, and may be proven rather than walked
        sound.kept = random.Random(seed).choice(sound.notes)
    log = sound.copy()
    MUTATIONS[name](log, dice)
    if seed % 4 == 3 and log.chosen is None:
        end = min(rules.Note(log.notes[-1].encode()).size, len(log.bodies))
        log.chosen = list(range(end))  # a selection, of all there is
    return sound, log


def told_as_it_was(sound: Log, log: Log) -> bool:
    """Whether what the evidence of `log` shows is how it was: an older export, and no lie.

    Nobody can find anything in that, unless the auditor holds a later checkpoint.
    """
    note = rules.Note(log.notes[-1].encode())
    return (
        log.notes[-1] in sound.notes
        and log.bodies[: note.size] == sound.bodies[: note.size]
        and log.leaves[: note.size] == sound.leaves[: note.size]
        and log.personal == sound.personal
        and not log.wrong_proof
        and rules.Note(log.kept.encode()).size <= note.size
    )


def whole_and_old(sound: Log, log: Log) -> bool:
    """Whether the database holds the log as it was at a checkpoint that the auditor's doesn't surpass."""
    size = rules.Note(log.notes[-1].encode()).size
    return (
        told_as_it_was(sound, log)
        and len(log.bodies) == size
        and log.columns == sound.columns[:size]
        and log.edge.size == size
        and set(log.notes) <= set(sound.notes)
        and log.tiles == {at: row for at, row in sound.tiles.items() if (at[1] + 1) * 256 <= size}
    )


# Strange rows beside a sound log, as whoever owns the database can write them: one for each table.
STRANGE = {
    "a checkpoint before the first entry": "INSERT INTO audit_checkpoint"
    " (size, root, origin, note, signed_at) VALUES (-1, x'', 'o', 'n', '2026-01-01 00:00:00')",
    "a checkpoint that nobody signed": "UPDATE audit_checkpoint SET note = 'n'",
    "a block far behind the end": "INSERT INTO audit_block (number, first_at, last_at)"
    " VALUES (999999, '2026-01-01 00:00:00', '2026-01-01 00:00:00')",
    "a posting without its block": "INSERT INTO audit_posting (term, block, entries)"
    " VALUES ('a', 0, x'')",
    "a tile of no level": "INSERT INTO audit_tile (level, number, hashes, root)"
    " VALUES (9, 0, x'', x'')",
    "a tile behind the end": "INSERT INTO audit_tile (level, number, hashes, root)"
    " VALUES (0, 77, x'', x'')",
    "a personal value": "UPDATE audit_personalvalue SET value = 'Eve'",
    "half a personal value": "UPDATE audit_personalvalue SET salt = NULL",
}

__all__ = ["MUTATIONS", "STRANGE", "tampered", "told_as_it_was", "whole_and_old"]
