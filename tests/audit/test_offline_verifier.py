"""The verifier that auditors take with them: one file, on evidence that may be anything."""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import os
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from audit import canonical
from audit.evidence import verify as rules
from keys import states
from tests.audit.tampering.logs import (
    LOG,
    ORIGIN,
    POLICY,
    WITNESS,
    Author,
    Log,
    make,
    note_body,
    signed,
)
from tests.audit.tampering.placing import InFolder

FILE = Path(rules.__file__)


@pytest.fixture
def folder(tmp_path: Path) -> InFolder:
    place = InFolder(tmp_path)
    place.put(make(7))
    return place


def zipped(folder: InFolder, target: Path) -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.evidence.iterdir()):
            archive.write(path, path.name)
    return target


def run(*words: object) -> subprocess.CompletedProcess[str]:
    """Run the file as an auditor does: isolated, in a folder of its own, without the project."""
    return subprocess.run(
        [sys.executable, "-I", str(FILE), *map(str, words)],
        capture_output=True,
        text=True,
        cwd="/",
        env={"PATH": os.environ["PATH"]},
    )


def test_the_file_stands_alone() -> None:
    allowed = {*sys.stdlib_module_names, "cryptography", "__future__"}
    for node in ast.walk(ast.parse(FILE.read_text())):
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= allowed
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] in allowed
            assert not node.level


def test_its_tables_are_those_of_the_product() -> None:
    """Written down twice on purpose; here they are compared."""
    assert {
        str(a): {str(b) for b in to} for a, to in states.VERSION_EDGES.items()
    } == rules.VERSION_EDGES
    assert {str(a): {str(b) for b in to} for a, to in states.KEY_EDGES.items()} == rules.KEY_EDGES


def test_an_archive_is_verified_by_the_file_alone(folder: InFolder, tmp_path: Path) -> None:
    archive = zipped(folder, tmp_path / "evidence.zip")
    done = run(archive, "--keys", folder.keys, "--policy", folder.policy)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The evidence is sound." in done.stdout
    assert "Witnesses: w." in done.stdout
    said = json.loads(run(archive, "--keys", folder.keys, "--json").stdout)
    assert (said["exit_code"], said["findings"], said["origin"]) == (0, [], ORIGIN)
    assert run(archive, "--keys", folder.keys, "--quiet").stdout == "The evidence is sound.\n"


def test_keys_that_came_with_the_evidence_are_said_to_have(folder: InFolder) -> None:
    (folder.evidence / "keys.txt").write_text(LOG.vkey + "\n")
    done = run(folder.evidence)
    assert (done.returncode, "nothing of yours to compare" in done.stdout) == (2, True)
    done = run(folder.evidence, "--trust-enclosed-keys")
    assert (done.returncode, "came with the evidence" in done.stdout) == (0, True)
    assert run(folder.evidence, "--policy", folder.policy).returncode == 0, (
        "it names the log's keys"
    )
    (folder.evidence / "keys.txt").unlink()
    assert run(folder.evidence).returncode == 2
    assert run(folder.evidence, "--no-signatures").returncode == 0


def test_a_plain_export_is_verified_with_a_checkpoint(folder: InFolder, tmp_path: Path) -> None:
    lines, checkpoint = folder.evidence / "entries.jsonl", folder.evidence / "checkpoint"
    words = ("--checkpoint", checkpoint, "--keys", folder.keys)
    assert run(lines, *words).returncode == 0
    assert run(lines, "--keys", folder.keys).returncode == 2
    whole = lines.read_bytes().splitlines(keepends=True)
    cut = tmp_path / "cut.jsonl"
    cut.write_bytes(b"".join(whole[:-1]))
    done = run(cut, *words)
    assert (done.returncode, f"First bad index: {len(whole) - 1}." in done.stdout) == (1, True)
    longer = tmp_path / "longer.jsonl"
    body = rules.parse(whole[-1].strip()) | {"index": len(whole), "approvals": [], "facts": {}}
    longer.write_bytes(b"".join(whole) + canonical.encode(body) + b"\n")
    done = run(longer, *words)
    assert (done.returncode, "newer than the checkpoint" in done.stdout) == (0, True)


@pytest.mark.parametrize("chosen", [None, [0, 3, 9]])
def test_the_auditors_own_checkpoint_counts(folder: InFolder, chosen: list[int] | None) -> None:
    log = make(7)
    log.kept, log.chosen = log.notes[0], chosen
    assert folder.verify(log).exit_code == 0
    size = rules.Note(log.kept.encode()).size
    log.kept = signed(size, hashlib.sha256(b"another").digest())
    assert folder.verify(log).exit_code == 1
    if chosen:  # a selection needs a proof; without one nobody can tell
        folder.put(make(7) if chosen is None else log)
        (folder.evidence / "consistency.jsonl").write_bytes(b"")
        result, _ = rules.verify(str(folder.evidence), folder.options())
        assert result.exit_code == 2


def p384(name: str) -> tuple[str, Callable[[str], str]]:
    """Return a verifier key of the second kind, and what signs a note's text with it."""
    key = ec.derive_private_key(77, ec.SECP384R1())
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    data = rules.ECDSA_P384 + point
    identity = hashlib.sha256(name.encode() + b"\n" + data).digest()[:4]

    def sign(body: str) -> str:
        message = f"kms-console/timestamped/v1\ntime 5\n{body}".encode()
        value = key.sign(message, ec.ECDSA(hashes.SHA384()))
        line = base64.b64encode(identity + (5).to_bytes(8, "big") + value).decode()
        return f"\u2014 {name} {line}\n"

    return f"{name}+{identity.hex()}+{base64.b64encode(data).decode()}", sign


def test_both_signatures_are_asked_for_and_unknown_ones_are_ignored() -> None:
    text, sign = p384(ORIGIN)
    keys = [rules.Key(LOG.vkey), rules.Key(text)]
    body = note_body(3, bytes(32))
    both = rules.Note((f"{body}\n" + LOG.line(body) + sign(body) + WITNESS.line(body)).encode())
    both.check(keys, every_kind=True)
    one = rules.Note(f"{body}\n{LOG.line(body)}".encode())
    one.check(keys, every_kind=False)
    with pytest.raises(rules.Malformed, match="not signed by the log's keys"):
        one.check(keys, every_kind=True)
    forged = rules.Note(f"{body}\n{LOG.line(body)}{sign(note_body(4, bytes(32)))}".encode())
    with pytest.raises(rules.Malformed, match="wrong signature"):
        forged.check(keys, every_kind=False)


@pytest.mark.parametrize(
    ("statements", "held"),
    [
        ("group g any a b\nquorum g", True),
        ("group g 1 a b\nquorum g", True),
        ("group g all a b\nquorum g", False),
        ("group g 2 a b\nquorum g", False),
        ("group g all a\ngroup h 1 g b\nquorum h", True),
        ("quorum b", False),
        ("quorum none", True),
    ],
)
def test_a_policy_says_how_many_witnesses_are_enough(statements: str, held: bool) -> None:
    other = type(WITNESS)("other.example", rules.COSIGNATURE, 9)
    policy = rules.Policy(f"witness a {WITNESS.vkey}\nwitness b {other.vkey}\n{statements}")
    note = rules.Note(signed(3, bytes(32)).encode())
    if held:
        assert policy.satisfied(note) == ["a"]
    else:
        with pytest.raises(rules.Malformed, match="not cosigned"):
            policy.satisfied(note)


@pytest.mark.parametrize(
    "text",
    [
        "quorum nobody",
        "group g 2 a",
        "group g 3 a a",
        "log x",
        "witness",
        "what is this",
        "group g 0 a",
        "",
        "quorum a\nquorum a",
        f"witness b {WITNESS.vkey}\nquorum a",
        f"witness b {LOG.vkey}\nquorum a",
        f"log {WITNESS.vkey}\nquorum a",
        f"log {LOG.vkey} https://log.example more\nquorum a",
    ],
)
def test_a_policy_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(rules.Malformed):
        rules.Policy(f"witness a {WITNESS.vkey}\n{text}")


def test_one_witness_under_two_names_is_one(folder: InFolder) -> None:
    """The same public key as the key of another name has another id: it would count twice."""
    other = type(WITNESS)("second.example", rules.COSIGNATURE, 2)
    assert (other.vkey != WITNESS.vkey, other.data == WITNESS.data) == (True, True)
    folder.policy.write_text(f"witness a {WITNESS.vkey}\nwitness b {other.vkey}\nquorum a\n")
    done = run(folder.evidence, "--keys", folder.keys, "--policy", folder.policy)
    assert (done.returncode, "one witness twice" in done.stdout) == (1, True)


def test_a_policy_may_name_where_the_log_is(folder: InFolder) -> None:
    folder.policy.write_text(f"log {LOG.vkey} https://log.example\n")
    assert run(folder.evidence, "--policy", folder.policy).returncode == 0


def test_an_empty_policy_is_no_policy(folder: InFolder) -> None:
    """Not that in the evidence instead: who asked for witnesses would get none."""
    (folder.evidence / "policy.txt").write_text(POLICY)
    folder.policy.write_text("# nothing\n")
    done = run(folder.evidence, "--keys", folder.keys, "--policy", folder.policy)
    assert (done.returncode, "names no log and no witness" in done.stdout) == (2, True)


def test_a_key_of_another_log_does_not_sign_for_this_one() -> None:
    other = type(LOG)("elsewhere.example", rules.ED25519, 5)
    body = note_body(3, bytes(32))
    note = rules.Note(f"{body}\n{other.line(body)}".encode())
    with pytest.raises(rules.Malformed, match="not signed by the log's keys"):
        note.check([rules.Key(other.vkey)], every_kind=False)


@pytest.mark.parametrize("length", [0, 16, 64])
def test_a_proof_with_steps_of_other_lengths_is_none(length: int) -> None:
    """Two hashes cut elsewhere hash to the same: an old root that never was would be consistent."""
    leaves = [hashlib.sha256(b"%d" % at).digest() for at in range(4)]
    pair, both = rules.node(leaves[0], leaves[1]), leaves[2] + leaves[3]
    new = rules.node(pair, rules.node(leaves[2], leaves[3]))
    proof = [both[:length], both[length:], pair]
    assert not rules.consistent(3, rules.node(pair, both[:length]), 4, new, proof)
    true = [both[:32], both[32:], pair]
    assert rules.consistent(3, rules.node(pair, leaves[2]), 4, new, true)
    assert not rules.included(leaves[0], 0, 4, [leaves[1], both[:length]], new)
    with pytest.raises(rules.Malformed, match="is not a proof"):
        rules.hashes_of({"hashes": [base64.b64encode(step).decode() for step in proof]})


# --- hostile input


def test_a_bomb_a_stranger_and_a_link_are_not_opened(folder: InFolder, tmp_path: Path) -> None:
    bomb = zipped(folder, tmp_path / "bomb.zip")
    with zipfile.ZipFile(bomb, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("README.txt", bytes(40 << 20))
    done = run(bomb, "--keys", folder.keys)
    assert (done.returncode, "unpack to far more" in done.stdout) == (2, True)
    for name in ("../outside", "/etc/passwd", "more.txt"):
        strange = zipped(folder, tmp_path / "strange.zip")
        with zipfile.ZipFile(strange, "a") as archive:
            archive.writestr(name, "x")
        assert run(strange).returncode == 2
    (folder.evidence / "entries.jsonl").unlink()
    (folder.evidence / "entries.jsonl").symlink_to("/dev/zero")
    assert run(folder.evidence).returncode == 2


def test_nothing_from_the_evidence_reaches_the_terminal_as_it_is(folder: InFolder) -> None:
    body = "evil\x1b[2J\u202e\n3\n" + base64.b64encode(bytes(32)).decode() + "\n"
    (folder.evidence / "checkpoint").write_text(f"{body}\n{LOG.line(body)}")
    done = run(folder.evidence, "--keys", folder.keys)
    assert done.returncode == 1
    assert "\x1b" not in done.stdout and "\u202e" not in done.stdout


NASTY = [
    b"",
    b"\n",
    b"[]",
    b"{",
    b"\xff\xfe",
    b"[" * 100_000,
    b"9" * 10_000,
    b'{"a":1e400}',
    b"null",
]


@pytest.mark.parametrize("data", NASTY, ids=range(len(NASTY)))
@pytest.mark.parametrize(
    "name", ["manifest.json", "entries.jsonl", "checkpoint", "consistency.jsonl", "personal.jsonl"]
)
def test_a_file_that_is_not_what_it_should_be_is_an_answer_too(
    folder: InFolder, name: str, data: bytes
) -> None:
    (folder.evidence / name).write_bytes(data)
    result, _ = rules.verify(str(folder.evidence), folder.options())
    if name.endswith(".jsonl") and name != "entries.jsonl" and not data:
        assert result.exit_code == 0, "these may be empty"
    else:
        assert result.exit_code in (1, 2)


@pytest.mark.exhaustive
def test_whatever_bytes_are_changed_in_an_archive_it_is_an_answer(
    folder: InFolder, tmp_path: Path
) -> None:
    archive = zipped(folder, tmp_path / "evidence.zip").read_bytes()
    dice, target = random.Random(5), tmp_path / "changed.zip"
    for _ in range(3000):
        data = bytearray(archive)
        for _ in range(dice.randrange(1, 5)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        target.write_bytes(data)
        result, _ = rules.verify(str(target), folder.options())
        assert result.exit_code in (0, 1, 2)


# --- the short way through an entry


def slowly(line: bytes) -> int | None:
    """Look at an entry the exact way only."""
    try:
        body = rules.parse(line)
        if rules.canonical(body) != line:
            return None
        rules.check_form(body)
    except rules.Malformed:
        return None
    return int(body["index"])


LINES = [line for seed in range(3) for line in make(seed).bodies]
PIECES = [
    b'"',
    b"\\",
    b",",
    b'"a":1',
    b"0",
    b"-0",
    b"1e5",
    b" ",
    b"\xc3\xa9",
    b"{}",
    b"null",
    b"states",
]


def changed(line: bytes, at: int, cut: int, piece: bytes) -> bytes:
    at %= len(line)
    return line[:at] + piece + line[at + cut :]


@settings(max_examples=400, deadline=None)
@given(
    line=st.sampled_from(LINES),
    at=st.integers(0, 5000),
    cut=st.integers(0, 3),
    piece=st.one_of(st.sampled_from(PIECES), st.binary(max_size=3)),
)
def test_the_short_way_takes_nothing_that_the_exact_way_refuses(
    line: bytes, at: int, cut: int, piece: bytes
) -> None:
    given = changed(line, at, cut, piece)
    try:
        index, _ = rules.look(given)
    except rules.Malformed:
        assert slowly(given) is None
    else:
        assert slowly(given) == index


@pytest.mark.parametrize(
    ("facts", "common"),
    [
        ({}, True),
        ({"grant": "g", "role": "r"}, True),
        ({"n": -5, "yes": True, "nothing": None}, True),
        ({"states": 1}, False),
        ({"list": [1, "a", None], "empty": []}, True),
        ({"list": [[1]]}, False),
        ({"members": {"a": 1}}, False),
        ({"text": 'a "quote"'}, False),
        ({"text": "é"}, False),
        ({"n": 2**53 - 1}, False),
    ],
)
def test_the_short_way_is_for_plain_uses(facts: dict[str, Any], common: bool) -> None:
    author = Author(1)
    author.write(facts=facts)
    (line,) = author.bodies
    assert bool(rules.COMMON.fullmatch(line)) is (common or "states" in facts)
    assert (rules.look(line)[1] is None) is common
    assert rules.look(line)[0] == 0


@pytest.mark.parametrize(
    "facts",
    [
        b'{"b":1,"a":2}',
        b'{"a":1,"a":2}',
        b'{"a":-0}',
        b'{"a":01}',
        b'{"a":[1,]}',
        b'{"b":[],"a":[]}',
        b'{"a":9007199254740993}',
    ],
)
def test_what_is_not_canonical_is_refused(facts: bytes) -> None:
    author = Author(1)
    author.write()
    line = author.bodies[0].replace(b'"facts":{}', b'"facts":' + facts)
    with pytest.raises(rules.Malformed):
        rules.look(line)


# --- lives and votes


def told(
    *moves: tuple[int | None, str, str], outcome: str = "success", v: int = 2
) -> dict[str, Any]:
    said = [{"key": "k", "version": n, "from": a, "to": b} for n, a, b in moves]
    return {"v": v, "outcome": outcome, "facts": {"states": said}}


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        ([(1, "", "active"), (1, "active", "deactivated"), (1, "deactivated", "destroyed")], ""),
        ([(None, "", "enabled"), (None, "enabled", "disabled")], ""),
        ([(1, "", "active"), (1, "active", "destroyed")], "which no key may"),
        ([(1, "", "active"), (1, "suspended", "active")], "but it was active"),
        ([(1, "active", "suspended")], "no entry says that it was made"),
        ([(1, "", "destroyed")], "where none begins"),
        ([(1, "", "active"), (1, "", "active")], "made before"),
        ([(None, "", "enabled"), (None, "enabled", "active")], "which no key may"),
    ],
)
def test_a_life_that_no_key_can_have_is_found(steps: list[Any], problem: str) -> None:
    lives = rules.Lives(whole=True)
    found = [text for step in steps for text in lives.see(told(step))]
    assert problem in found[-1] if problem else not found


def test_a_selection_is_not_blamed_for_its_gaps_but_for_what_no_key_may() -> None:
    lives = rules.Lives(whole=False)
    assert not list(lives.see(told((1, "suspended", "active"))))
    assert not list(lives.see(told((1, "suspended", "deactivated"))))
    assert list(lives.see(told((1, "destroyed", "active"))))
    assert list(lives.see(told((1, "active", "suspended"), outcome="denied")))
    assert list(lives.see({"v": 2, "outcome": "success", "facts": {"states": "none"}}))


def first_form(body: dict[str, Any]) -> dict[str, Any]:
    about = {name: value for name, value in body["object"].items() if name != "classification"}
    return body | {"v": 1, "object": about}


def forms(folder: InFolder, old: Callable[[int], bool], chosen: list[int] | None) -> Any:
    """Verify a log of which some entries are of the first form."""
    author = Author(4)
    for _ in range(12):
        author.use()
    bodies = [rules.parse(body) for body in author.bodies]
    lines = [canonical.encode(first_form(b) if old(at) else b) for at, b in enumerate(bodies)]
    log = Log(lines, list(author.personal.values()), chosen=chosen)
    log.redo()
    log.notes = [signed(12, log.root(12))]
    log.kept = log.notes[0]
    return folder.verify(log)


def test_a_log_begins_with_the_first_form_or_never_has_it(tmp_path: Path) -> None:
    folder = InFolder(tmp_path)
    found = forms(folder, lambda at: at < 5, None)
    assert found.exit_code == 0, found.findings
    assert any("up to 4 are of the first form" in note for note in found.notes)
    found = forms(folder, lambda at: at == 7, None)
    assert (found.exit_code, found.first_bad) == (1, 7)
    found = forms(folder, lambda at: at == 7, [2, 7, 9])
    assert (found.exit_code, found.first_bad) == (1, 7)
    assert forms(folder, lambda at: at < 8, [2, 7, 9]).exit_code == 0


def voted() -> list[dict[str, Any]]:
    """Return the entries of a request with two votes of three, and of what was done."""
    for seed in range(100):
        author = Author(seed)
        author.create()
        author.vote()
        if len(author.bodies) == 5:
            return [rules.parse(body) for body in author.bodies]
    raise AssertionError("no officer agreed")


def copied(body: dict[str, Any], **changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(json.dumps(body)) | changes
    return made


def service(body: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return an entry like this one, by the scheduler."""
    return copied(body, actor={"id": "id-scheduler", "kind": "service", "name": "s"}, **changes)


def problems(bodies: list[dict[str, Any]]) -> list[str]:
    votes = rules.Approvals(whole=True)
    return [text for body in bodies for text in votes.see(body)]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda b: None, ""),
        (lambda b: b.pop(2), "1 of 2 votes"),
        (lambda b: b.pop(1), "nobody made"),
        (lambda b: b[3]["actor"].update(id=b[2]["actor"]["id"]), "second vote"),
        (lambda b: b[3]["actor"].update(id="id-Alice"), "of the one who asked"),
        (lambda b: b[3]["actor"].update(id="id-Eve"), "not an officer"),
        (lambda b: b[3]["facts"].update(agreed=False), "refused by an officer"),
        (lambda b: b[3]["facts"].update(request_sha256="0" * 64), "something else than was asked"),
        (lambda b: b[1]["facts"].update(request="{}"), "does not have the hash"),
        (lambda b: b[1]["facts"].update(quorum={"m": 1, "n": 3}), "says something else"),
        (lambda b: b[1]["facts"].update(quorum={"m": 4, "n": 3}), "nobody could give"),
        (lambda b: b[4].update(action="destroy_version"), "something else than was asked"),
        (lambda b: b[4]["object"].update(id="another"), "something else than was asked"),
        (lambda b: b.insert(3, b[3] | {"action": "withdraw_request"}), "was closed"),
        (lambda b: b.insert(2, b.pop(4)), "0 of 2 votes"),
        (lambda b: b[4]["object"].update(kind="principal"), "something else than was asked"),
        (lambda b: b[4]["actor"].update(id="id-Eve"), "somebody else had asked for"),
        (lambda b: b[4]["actor"].update(id="id-Sam", kind="service"), ""),
        (lambda b: b.append(service(b[4], outcome="success")), ""),
        (lambda b: b.append(service(b[4], outcome="success", action="vanish")), "something else"),
        (lambda b: b.append(service(b[4], facts={"job": "another"})), "not of the work"),
        (lambda b: b.append(copied(b[4], outcome="success")), "not of the work"),
        (
            lambda b: b.extend([service(b[4], outcome="success")] * 2),
            "was carried out before",
        ),
        (lambda b: b[4].update(outcome="success") or b.append(service(b[4])), "carried out before"),
    ],
)
def test_what_was_done_without_its_votes_is_found(
    change: Callable[[list[dict[str, Any]]], object], problem: str
) -> None:
    bodies = voted()
    change(bodies)
    found = problems(bodies)
    assert any(problem in text for text in found) if problem else not found


def test_the_work_that_an_approval_began_may_cite_it_again() -> None:
    bodies = voted()
    bodies[4]["facts"]["job"] = "7"
    failed, done = service(bodies[4], outcome="failed"), service(bodies[4], outcome="success")
    assert not problems([*bodies, failed, done, failed])
    other = copied(done)
    other["object"]["id"] = "another"
    assert "something else" in problems([*bodies, other])[0]


def test_a_log_is_made_the_same_way_twice() -> None:
    one, other = make(3), make(3)
    assert isinstance(one, Log)
    assert (one.bodies, one.notes) == (other.bodies, other.notes)
    assert POLICY.count("\n") == 3
