"""Puts a log where it can be verified: into a database without triggers, or into a folder of evidence."""

from __future__ import annotations

import argparse
import base64
import json
import sqlite3
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from audit import entries
from audit.evidence import verify as rules
from audit.merkle import consistency_proof, root_of
from audit.verifier import Report, verify
from tests.audit.tampering.logs import LOG, POLICY, Log

TABLES = (
    *("audit_entry", "audit_tile", "audit_checkpoint", "audit_personalvalue"),
    *("audit_block", "audit_posting"),
)
COLUMNS = ", ".join(f'"{name}"' for name in (*entries.COLUMNS, "leaf_hash", "body"))


class InDatabase:
    """One SQLite file that holds one log after the other."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        names = self._connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        for (name,) in names.fetchall():
            self._connection.execute(f"DROP TRIGGER {name}")
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.execute("PRAGMA ignore_check_constraints = ON")

    def close(self) -> None:
        self._connection.close()

    def verify(self, log: Log) -> Report:
        """Verify as an auditor who kept a checkpoint and knows the keys and the witness."""
        self._put(log)
        return verify(earlier=[log.kept], policy=rules.Policy(POLICY))

    def verify_alone(self, log: Log, more: str = "") -> Report:
        """Verify as one who kept nothing and knows no keys; `more` is a statement on the database."""
        self._put(log)
        if more:
            self._connection.execute(more)
        return verify()

    def _put(self, log: Log) -> None:
        run, many = self._connection.execute, self._connection.executemany
        run("BEGIN")
        for table in TABLES:
            run(f"DELETE FROM {table}")
        rows = zip(log.columns, log.leaves, log.bodies, strict=True)
        marks = ", ".join("?" * (len(entries.COLUMNS) + 2))
        many(
            f"INSERT INTO audit_entry ({COLUMNS}) VALUES ({marks})",
            [(*columns, leaf, body) for columns, leaf, body in _adapted(rows)],
        )
        run(
            "UPDATE audit_head SET size = ?, root = ?, frontier = ?",
            (log.edge.size, log.edge.root(), log.edge.to_bytes()),
        )
        many(
            "INSERT INTO audit_tile (level, number, hashes, root) VALUES (?, ?, ?, ?)",
            [(*at, b"".join(hashes), root_of(hashes)) for at, hashes in log.tiles.items()],
        )
        now = datetime.now(UTC).isoformat(" ").removesuffix("+00:00")
        notes = [(rules.Note(text.encode()), text) for text in log.notes]
        many(
            "INSERT INTO audit_checkpoint (size, root, origin, note, signed_at) VALUES (?, ?, ?, ?, ?)",
            [(note.size, note.root, note.origin, text, now) for note, text in notes],
        )
        many(
            "INSERT INTO audit_personalvalue (commitment, subject, value, salt, created_at)"
            " VALUES (?, ?, ?, ?, ?)",
            [(p["commitment"], p["subject"], p["value"], p["salt"], now) for p in log.personal],
        )
        run("COMMIT")


def _adapted(rows: Iterable[tuple[tuple[Any, ...], bytes, bytes]]) -> Iterator[tuple[Any, ...]]:
    """Yield rows as SQLite takes them; a copy of an entry has to get another uuid in its column."""
    seen: set[str] = set()
    for columns, leaf, body in rows:
        at = entries.moment(columns[2]).isoformat(" ").removesuffix("+00:00")
        uuid = columns[1].replace("-", "")
        uuid = uuid4().hex if uuid in seen else uuid
        seen.add(uuid)
        yield (columns[0], uuid, at, *columns[3:]), leaf, body


class InFolder:
    """A folder of evidence, and the files of the auditor beside it."""

    def __init__(self, folder: Path) -> None:
        self.evidence = folder / "evidence"
        self.evidence.mkdir()
        self.keys, self.policy = folder / "keys.txt", folder / "policy.txt"
        self.keys.write_text(LOG.vkey + "\n")
        self.policy.write_text(POLICY)
        self._previous = folder / "previous"

    def put(self, log: Log) -> None:
        """Write the evidence as the console would export it from this log."""
        note = rules.Note(log.notes[-1].encode())
        end, whole = note.size, log.chosen is None
        chosen = range(end) if log.chosen is None else log.chosen
        bodies = [log.bodies[index] for index in chosen if index < len(log.bodies)]
        manifest = {"format": rules.FORMAT, "origin": note.origin, "size": end, "whole": whole}
        proofs = [] if whole else [{"index": at, "hashes": log.proof(at, end)} for at in chosen]
        if log.wrong_proof:  # a tile was edited: what is read from it is not the tree
            proofs[0]["hashes"][0] = base64.b64encode(bytes(32)).decode()
        personal = [{**one, "salt": base64.b64encode(one["salt"]).decode()} for one in log.personal]
        files: dict[str, bytes] = {
            "manifest.json": json.dumps(manifest).encode(),
            "entries.jsonl": b"".join(body + b"\n" for body in bodies),
            "checkpoint": log.notes[-1].encode(),
            "personal.jsonl": _lines(personal),
            "proofs.jsonl": _lines(proofs),
            "consistency.jsonl": _lines(self._earlier(log, note)),
        }
        if whole:
            del files["proofs.jsonl"]
            (self.evidence / "proofs.jsonl").unlink(missing_ok=True)
        for name, data in files.items():
            (self.evidence / name).write_bytes(data)
        self._previous.write_text(log.kept)

    def _earlier(self, log: Log, note: rules.Note) -> list[dict[str, Any]]:
        rows = []
        for text in [*log.notes[:-1], log.kept]:
            size = rules.Note(text.encode()).size
            if 0 < size <= note.size <= len(log.leaves):
                found = consistency_proof(size, note.size, lambda a, b: root_of(log.leaves[a:b]))
                hashes = [base64.b64encode(one).decode() for one in found]
                rows.append({"size": size, "note": text, "hashes": hashes})
        return rows

    def options(self, **changes: Any) -> argparse.Namespace:
        said: dict[str, Any] = {
            "checkpoint": None,
            "keys": str(self.keys),
            "policy": str(self.policy),
            "previous": str(self._previous),
            "no_signatures": False,
            "trust_enclosed_keys": False,
        }
        return argparse.Namespace(**(said | changes))

    def verify(self, log: Log) -> rules.Verification:
        """Verify as the auditor does: with their own keys, policy, and earlier checkpoint."""
        self.put(log)
        return rules.verify(str(self.evidence), self.options())[0]


def _lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()
