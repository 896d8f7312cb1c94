"""Every way to tamper with a copy of the log is found, and the first bad index is named."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audit import entries, guard, proofs, verifier
from audit import index as search_index
from audit.canonical import encode
from audit.evidence import verify as rules
from audit.merkle import Frontier, leaf_hash, verify_inclusion
from audit.models import Archive, Entry
from audit.verifier import prove, verify
from audit.verifier import signed as signed_watch
from audit.writer import appender, head
from tests.audit.helpers import attacker, use, write, write_many
from tests.audit.tampering.logs import ORIGIN, POLICY, signed
from tests.databases import Database

SIZE = 13  # 8 + 4 + 1: three subtrees in the frontier
Tamper = Callable[[sqlite3.Connection], object]


def rewritten(connection: sqlite3.Connection, index: int, body: bytes) -> None:
    """Put another body under an index, with the hash that suits it."""
    connection.execute(
        'UPDATE audit_entry SET body = ?, leaf_hash = ? WHERE "index" = ?',
        (body, leaf_hash(body), index),
    )


def body_of(connection: sqlite3.Connection, index: int) -> bytes:
    row = connection.execute('SELECT body FROM audit_entry WHERE "index" = ?', (index,))
    return bytes(row.fetchone()[0])


def flip(index: int, at: int) -> Tamper:
    def tamper(connection: sqlite3.Connection) -> None:
        body = bytearray(body_of(connection, index))
        body[at] ^= 1
        connection.execute(
            'UPDATE audit_entry SET body = ? WHERE "index" = ?', (bytes(body), index)
        )

    return tamper


def edit(index: int, old: bytes, new: bytes) -> Tamper:
    """Change body and hash of an entry, as one who knows how hashes work."""

    def tamper(connection: sqlite3.Connection) -> None:
        body = body_of(connection, index)
        assert old in body
        rewritten(connection, index, body.replace(old, new))

    return tamper


def sql(*statements: str) -> Tamper:
    def tamper(connection: sqlite3.Connection) -> None:
        for statement in statements:
            assert connection.execute(statement).rowcount

    return tamper


def swap(one: int, other: int) -> Tamper:
    return sql(
        f'UPDATE audit_entry SET "index" = 99 WHERE "index" = {one}',
        f'UPDATE audit_entry SET "index" = {one} WHERE "index" = {other}',
        f'UPDATE audit_entry SET "index" = {other} WHERE "index" = 99',
    )


def copy(new_index: str, uuid: str = "hex(randomblob(16))") -> Tamper:
    others = ", ".join(
        name for name in (*entries.COLUMNS, "leaf_hash", "body") if name not in {"index", "uuid"}
    )
    return sql(
        f'INSERT INTO audit_entry ("index", uuid, {others})'
        f' SELECT {new_index}, {uuid}, {others} FROM audit_entry WHERE "index" = 4'
    )


def close_gap(connection: sqlite3.Connection) -> None:
    """Delete entry 4 and let the others move up."""
    connection.execute('DELETE FROM audit_entry WHERE "index" = 4')
    for index in range(5, SIZE):
        connection.execute(f'UPDATE audit_entry SET "index" = {index - 1} WHERE "index" = {index}')


TAMPERED: dict[str, tuple[Tamper, int | None]] = {
    "a bit flipped at the start of a body": (flip(5, 0), 5),
    "a bit flipped at the end of a body": (flip(7, -1), 7),
    "a bit flipped in the first entry": (flip(0, 30), 0),
    "a bit flipped in the last entry": (flip(SIZE - 1, 30), SIZE - 1),
    "two bodies damaged": (lambda c: (flip(9, 9)(c), flip(3, 9)(c)), 3),
    "a hash changed": (sql('UPDATE audit_entry SET leaf_hash = randomblob(32) WHERE "index"=6'), 6),
    "an outcome edited with its hash": (edit(5, b'"success"', b'"denied!"'), 5),
    "the index edited with its hash": (edit(5, b'"index":5', b'"index":6'), 5),
    "a member added with its hash": (edit(5, b'"v":2}', b'"v":1,"w":1}'), 5),
    "the form's version edited": (edit(5, b'"v":2}', b'"v":3}'), 5),
    "white space added with its hash": (edit(5, b'"v":2}', b'"v":1 }'), 5),
    "a member twice": (edit(5, b'"v":2}', b'"v":1,"v":2}'), 5),
    "a number where a time belongs": (edit(5, b'"at":', b'"at":-9'), 5),
    "a body that is no object": (lambda c: rewritten(c, 5, b"[]"), 5),
    "a body that is no JSON": (lambda c: rewritten(c, 5, b"\xff"), 5),
    "a body with an actor of another type": (
        edit(5, b'"kind":"application"', b'"kind":["application"]'),
        5,
    ),
    "a fact edited with its hash in the last entry": (
        edit(SIZE - 1, b'"facts":{}', b'"facts":{"a":1}'),
        SIZE - 1,
    ),
    # The head's frontier tells in which subtree: 0..7 or 8..11.
    "a fact edited with its hash in the first half": (
        edit(5, b'"facts":{}', b'"facts":{"a":1}'),
        0,
    ),
    "a fact edited with its hash in the second half": (
        edit(9, b'"facts":{}', b'"facts":{"a":1}'),
        8,
    ),
    "two entries swapped": (swap(2, 11), 2),
    "an entry deleted": (sql('DELETE FROM audit_entry WHERE "index" = 4'), 4),
    "the first entry deleted": (sql('DELETE FROM audit_entry WHERE "index" = 0'), 0),
    "an entry deleted and the gap closed": (close_gap, 4),
    "the last entry cut off": (
        sql(f'DELETE FROM audit_entry WHERE "index" = {SIZE - 1}'),
        SIZE - 1,
    ),
    "the last five cut off": (sql('DELETE FROM audit_entry WHERE "index" >= 8'), 8),
    "every entry deleted": (sql("DELETE FROM audit_entry"), 0),
    "an entry put behind the end": (copy(str(SIZE)), SIZE),
    "an entry put far behind the end": (copy("100"), SIZE),
    "an entry put before the start": (copy("-1"), -1),
    "the head's size set back": (sql("UPDATE audit_head SET size = 8"), None),
    "the head's root changed": (sql("UPDATE audit_head SET root = randomblob(32)"), None),
    "the head's frontier changed": (sql("UPDATE audit_head SET frontier = randomblob(96)"), None),
    "the head's frontier cut": (sql("UPDATE audit_head SET frontier = x'00'"), None),
}


@pytest.mark.parametrize(("tamper", "first"), TAMPERED.values(), ids=TAMPERED)
def test_the_first_bad_index_is_named(
    database: Database, tamper: Tamper, first: int | None
) -> None:
    write_many(SIZE)
    assert verify().ok
    with attacker(database) as connection:
        tamper(connection)
    report = verify()
    assert not report.ok
    assert report.problem
    assert report.first_bad_index == first, report


@pytest.mark.parametrize("column", [name for name in entries.COLUMNS if name != "index"])
def test_a_column_that_differs_from_its_body_is_found(database: Database, column: str) -> None:
    write_many(SIZE)
    value = {
        "uuid": "'0192f0c1000070008000000000000000'",
        "at": "'2001-02-03 04:05:06'",
        "object_version": "77",
    }.get(column, "'else'")
    with attacker(database) as connection:
        connection.execute(f'UPDATE audit_entry SET "{column}" = {value} WHERE "index" = 6')
    report = verify()
    assert (report.ok, report.first_bad_index) == (False, 6)
    assert column in report.problem


def test_a_log_cut_off_together_with_its_head_needs_an_earlier_checkpoint(
    database: Database,
) -> None:
    """What the owner of the file can do: the walk finds nothing, the old size and root do."""
    events = write_many(SIZE)
    before = verify()
    write(use())
    with attacker(database) as connection:
        frontier = Frontier()
        frontier.extend(leaf_hash(body_of(connection, index)) for index in range(8))
        connection.execute('DELETE FROM audit_entry WHERE "index" >= 8')
        connection.execute(
            "UPDATE audit_head SET size = 8, root = ?, frontier = ?",
            (frontier.root(), frontier.to_bytes()),
        )
    after = verify()
    assert after.ok
    assert after.size < before.size == len(events)


def test_an_entry_in_the_place_of_another_says_so(database: Database) -> None:
    write_many(SIZE)
    with attacker(database) as connection:
        swap(2, 11)(connection)
    assert verify().problem == "Entry 2 says that it is entry 11."


@pytest.mark.each_database(fast="sqlite")
@pytest.mark.parametrize("size", [0, 1, 2, 7, 8, SIZE])
def test_a_sound_log_is_found_sound(database: Database, size: int) -> None:
    write_many(size)
    report = verify()
    assert (report.ok, report.size, report.first_bad_index, report.problem) == (
        True,
        size,
        None,
        "",
    )
    assert report.root == head().root.hex()


@pytest.mark.each_database
def test_the_walk_goes_page_by_page_and_tells_how_far_it_is(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifier, "STEP", 5)
    monkeypatch.setattr(verifier.rows, "CHUNK", 5)
    write_many(SIZE)
    told: list[int] = []
    report = verify(progress=told.append)
    assert report.ok
    assert told == [5, 10, SIZE]
    for start in range(SIZE + 3):
        assert verify(start=start).root == report.root


def test_bodies_before_the_start_are_left_out_but_their_hashes_are_not(database: Database) -> None:
    write_many(SIZE)
    with attacker(database) as connection:
        flip(3, 0)(connection)
    assert verify(start=3).first_bad_index == 3
    assert verify(start=4).ok
    with attacker(database) as connection:
        sql('UPDATE audit_entry SET leaf_hash = randomblob(32) WHERE "index" = 3')(connection)
    assert not verify(start=4).ok


@pytest.mark.each_database
def test_each_entry_has_a_proof_that_it_is_in_the_log(database: Database) -> None:
    write_many(SIZE)
    root = head().root
    for entry in Entry.objects.all():
        leaf = leaf_hash(bytes(entry.body))
        assert verify_inclusion(leaf, entry.index, SIZE, prove(entry.index), root)
    with pytest.raises(ValueError):
        prove(SIZE)


@pytest.mark.each_database
def test_a_log_that_grows_under_the_walk_is_found_sound(database: Database) -> None:
    futures = [appender().submit(use(), epoch=0, subjects=frozenset()) for _ in range(3000)]
    sizes = []
    while not futures[-1].done():
        report = verify()
        assert report.ok, report
        sizes.append(report.size)
    assert futures[-1].result() == 2999
    assert verify().size == 3000
    assert sizes == sorted(sizes)


def test_an_entry_that_is_canonical_but_for_another_form_is_refused(database: Database) -> None:
    write_many(SIZE)
    with attacker(database) as connection:
        rewritten(connection, 2, encode({"v": 1, "index": 2}))
    assert verify().first_bad_index == 2


# --- what stands beside the log


def kept(size: int) -> str:
    """Return a checkpoint of the log as it was at this size, as an auditor keeps one."""
    return signed(size, proofs.root_at(size))


def checkpoint(connection: sqlite3.Connection, size: object, note: str) -> None:
    connection.execute(
        "INSERT INTO audit_checkpoint (size, root, origin, note, signed_at)"
        " VALUES (?, ?, ?, ?, '2026-01-01 00:00:00')",
        (size, bytes(32), ORIGIN, note),
    )


def rewrite_all(connection: sqlite3.Connection) -> None:
    """Change entry 5, and the head with it, so that everything fits."""
    rewritten(connection, 5, body_of(connection, 5).replace(b'"facts":{}', b'"facts":{"a":1}'))
    frontier = Frontier()
    frontier.extend(leaf_hash(body_of(connection, index)) for index in range(SIZE))
    connection.execute(
        "UPDATE audit_head SET root = ?, frontier = ?", (frontier.root(), frontier.to_bytes())
    )


@pytest.mark.parametrize("size", [-1, "many", 3.5, 2**62])
def test_a_checkpoint_of_a_strange_size_hides_nothing(database: Database, size: object) -> None:
    """Found by a hostile reader: -1 was taken for "no more", and nothing was compared any more."""
    write_many(SIZE)
    mine = kept(SIZE)
    with attacker(database) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        checkpoint(connection, size, signed(0, bytes(32)))
    assert not verify().ok
    with attacker(database) as connection:
        rewrite_all(connection)
    found = [finding.problem for finding in verify(earlier=[mine]).findings]
    assert any("the checkpoint that you kept" in problem for problem in found)


def remembering(settings: Any, folder: Path, note: str) -> None:
    """Let the signer's memory be this checkpoint."""
    settings.SIGNER_FOLDER = folder
    (folder / "checkpoint").write_text(note)


def test_what_the_signer_remembers_is_compared(
    database: Database, settings: Any, tmp_path: Path
) -> None:
    write_many(SIZE)
    remembering(settings, tmp_path, kept(SIZE))
    assert verify().ok
    with attacker(database) as connection:
        rewrite_all(connection)
    report = verify()
    assert (report.ok, report.first_bad_index) == (False, 0)
    assert "its signer remembers" in report.problem


def test_a_log_that_was_cut_is_not_what_a_copy_remembers(
    database: Database, settings: Any, tmp_path: Path
) -> None:
    write_many(SIZE)
    (tmp_path / "copy").write_text(kept(SIZE))
    settings.AUDIT_MEMORIES = [str(tmp_path / "copy"), str(tmp_path / "nothing")]
    assert any("memories" in note for note in verify().notes)
    with attacker(database) as connection:
        frontier = Frontier()
        frontier.extend(leaf_hash(body_of(connection, index)) for index in range(8))
        connection.execute('DELETE FROM audit_entry WHERE "index" >= 8')
        connection.execute(
            "UPDATE audit_head SET size = 8, root = ?, frontier = ?",
            (frontier.root(), frontier.to_bytes()),
        )
    report = verify()
    assert (report.ok, report.first_bad_index) == (False, 8)
    assert "was cut" in report.problem


def test_what_the_guard_refuses_is_never_sound(
    database: Database, settings: Any, tmp_path: Path
) -> None:
    write_many(SIZE)
    remembering(settings, tmp_path, signed(SIZE + 5, bytes(32)))
    guard.look()
    assert guard.refusal()
    (tmp_path / "checkpoint").unlink()
    assert verify().ok, "it was settled"
    remembering(settings, tmp_path, signed(SIZE + 5, bytes(32)))
    guard.look()
    assert guard.refusal() in [finding.problem for finding in verify().findings]


def test_an_archive_that_says_dropped_without_cause_is_found(database: Database) -> None:
    write_many(SIZE)
    with attacker(database) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        # Whatever columns there are: a time where there is one, else a number.
        fields = [(f.column, f.get_internal_type()) for f in Archive._meta.fields]
        values = ["2026-01-01 00:00:00" if kind == "DateTimeField" else 0 for _, kind in fields]
        row = dict(zip((name for name, _ in fields), values, strict=True)) | {"start": 2, "end": 6}
        names, marks = ", ".join(f'"{name}"' for name in row), ", ".join("?" * len(row))
        connection.execute(f"INSERT INTO audit_archive ({names}) VALUES ({marks})", [*row.values()])
    report = verify()
    assert (report.ok, report.first_bad_index) == (False, 2)
    assert "says that they were dropped" in report.problem
    with attacker(database) as connection:
        connection.execute('DELETE FROM audit_entry WHERE "index" = 3')
    assert verify().first_bad_index == 2


def test_an_old_cosignature_is_not_enough(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_many(SIZE)
    with attacker(database) as connection:
        root = proofs.root_at(8)
        connection.execute(
            "INSERT INTO audit_checkpoint (size, root, origin, note, signed_at)"
            " VALUES (8, ?, ?, ?, '2026-01-01 00:00:00')",
            (root, ORIGIN, signed(8, root)),
        )
    policy = rules.Policy(POLICY)
    assert verify(policy=policy).ok, "the entries after it are seconds old"
    monkeypatch.setattr(signed_watch, "UNWITNESSED_SECONDS", -1)
    report = verify(policy=policy)
    assert (report.ok, report.first_bad_index) == (False, 8)
    assert "have no witness" in report.problem


def test_the_first_form_does_not_come_back_in_a_live_log(database: Database) -> None:
    write_many(SIZE)
    with attacker(database) as connection:
        body = rules.parse(body_of(connection, 6))
        del body["object"]["classification"]
        rewritten(connection, 6, encode(body | {"v": 1}))
        connection.execute('UPDATE audit_entry SET classification = NULL WHERE "index" = 6')
    assert any("is of the first form" in finding.problem for finding in verify().findings)


def test_the_index_is_compared_with_the_entries(database: Database) -> None:
    for _ in range(search_index.BLOCK // 64):
        write_many(64)
    search_index.build()
    report = verify(with_index=True)
    assert report.ok, report.problem
    assert any("1 of 1 blocks" in text for text in report.checked)
    for statement in (
        "UPDATE audit_posting SET entries = x'' WHERE term = (SELECT min(term) FROM audit_posting)",
        "DELETE FROM audit_posting WHERE term = (SELECT min(term) FROM audit_posting)",
        "INSERT INTO audit_posting (term, block, entries) VALUES ('a', 999999, x'')",
        "UPDATE audit_block SET last_at = '2001-01-01 00:00:00'",
        "INSERT INTO audit_block (number, first_at, last_at)"
        " VALUES (999999, '2026-01-01 00:00:00', '2026-01-01 00:00:00')",
    ):
        with attacker(database) as connection:
            connection.execute(statement)
        assert "search index" in verify().problem
        search_index.forget()
        search_index.build()
    assert verify().ok


def test_half_an_erasure_is_found(database: Database) -> None:
    write_many(SIZE)
    with attacker(database) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute(
            "INSERT INTO audit_personalvalue (commitment, subject, value, salt, created_at)"
            " VALUES ('hmac-sha256:00', 's', 'Eve', NULL, '2026-01-01 00:00:00')"
        )
    assert "personal value" in verify().problem
