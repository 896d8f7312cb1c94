"""Witness policies: how they are written, and when a checkpoint has what they ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from audit.checkpoints import notes, signing
from audit.errors import NoteError
from audit.witness import policy
from tests.audit.checkpoints.helpers import ORIGIN, Log


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path, 8)


@pytest.fixture
def witnesses(tmp_path: Path) -> dict[str, signing.SigningKey]:
    return {
        name: signing.witness_key(tmp_path / f"{name}.pem", f"{name}.example")
        for name in ("a", "b", "c", "d")
    }


def text(log: Log, witnesses: dict[str, signing.SigningKey], *rules: str) -> str:
    lines = ["# whose keys count", f"log {log.vkey()}", ""]
    lines += [f"witness {name} {key.verifier.text()}" for name, key in witnesses.items()]
    return "\n".join([*lines, *rules]) + "\n"


def cosigned(log: Log, witnesses: dict[str, signing.SigningKey], *names: str) -> notes.Note:
    note = log.note(5)
    return note.signed(witnesses[name].sign(note.body, 1_700_000_000) for name in names)


def test_two_of_three_are_enough_whoever_they_are(
    log: Log, witnesses: dict[str, signing.SigningKey]
) -> None:
    rule = policy.parse(text(log, witnesses, "group g 2 a b c", "quorum g"))
    for names, enough in (("", False), ("a", False), ("ab", True), ("bc", True), ("abc", True)):
        found, said = policy.satisfied(cosigned(log, witnesses, *names), rule)
        assert found is enough, names
        assert f"The quorum g is {'' if enough else 'not '}reached." in said
        assert "1 of the log's 1 keys signed it." in said
    assert not policy.satisfied(cosigned(log, witnesses, "a", "d"), rule)[0]


def test_groups_of_groups(log: Log, witnesses: dict[str, signing.SigningKey]) -> None:
    rules = ["group one any a b", "group two all c d", "group both all one two", "quorum both"]
    rule = policy.parse(text(log, witnesses, *rules))
    for names, enough in (("ab", False), ("cd", False), ("acd", True), ("ac", False)):
        assert policy.satisfied(cosigned(log, witnesses, *names), rule)[0] is enough, names


def test_a_single_witness_or_none(log: Log, witnesses: dict[str, signing.SigningKey]) -> None:
    one = policy.parse(text(log, witnesses, "quorum b"))
    assert policy.satisfied(cosigned(log, witnesses, "b").text(), one)[0]
    assert not policy.satisfied(cosigned(log, witnesses, "a").text(), one)[0]
    none = policy.parse(text(log, witnesses, "quorum none"))
    assert policy.satisfied(log.note(5), none)[0]


def test_one_wrong_signature_spoils_the_note(
    log: Log, witnesses: dict[str, signing.SigningKey]
) -> None:
    rule = policy.parse(text(log, witnesses, "quorum a"))
    other = witnesses["b"].sign(log.note(6).body, 1_700_000_000)
    found, said = policy.satisfied(cosigned(log, witnesses, "a").signed([other]), rule)
    assert (found, said) == (False, ["The signature of b.example is wrong."])


def test_witnesses_do_not_make_up_for_the_log(
    log: Log, witnesses: dict[str, signing.SigningKey], tmp_path: Path
) -> None:
    rule = policy.parse(text(log, witnesses, "quorum a"))
    note = cosigned(log, witnesses, "a")
    bare = notes.Note(note.body, note.signatures[1:])
    assert not policy.satisfied(bare, rule)[0]
    stranger = Log(tmp_path / "stranger", 8).note(5)
    assert not policy.satisfied(
        notes.Note(note.body, (*stranger.signatures, *bare.signatures)), rule
    )[0]
    found, said = policy.satisfied(log.note(5, "example.com/other"), rule)
    assert (found, said) == (False, ["The policy does not know the log example.com/other."])
    assert policy.satisfied("nonsense", rule)[0] is False


def test_a_policy_without_a_log_looks_at_witnesses_only(
    log: Log, witnesses: dict[str, signing.SigningKey]
) -> None:
    lines = text(log, witnesses, "quorum a").replace(f"log {log.vkey()}", "")
    found, said = policy.satisfied(cosigned(log, witnesses, "a"), policy.parse(lines))
    assert found
    assert "The policy names no log: its signatures were not looked at." in said


def test_addresses_and_white_space(log: Log, witnesses: dict[str, signing.SigningKey]) -> None:
    vkey = witnesses["a"].verifier.text()
    rule = policy.parse(f"\n \t# note\n\twitness  a\t{vkey}   https://w.example/x \nquorum a\n")
    assert rule.witnesses["a"].url == "https://w.example/x"
    assert policy.parse(f"log {log.vkey()} https://log.example\nquorum none").logs[0].name == ORIGIN


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        ([], "exactly one line"),
        (["quorum none", "quorum none"], "exactly one line"),
        (["quorum x"], "nothing before it is called x"),
        (["group g 5 a b c d", "quorum g"], "1 to 4"),
        (["group g 0 a", "quorum g"], "1 to 1"),
        (["group g -1 a", "quorum g"], "1 to 1"),
        (["group g ² a b", "quorum g"], "1 to 2"),
        (["group g 1", "quorum g"], "no statement"),
        (["group g 1 a a", "quorum g"], "named twice"),
        (["group g any a b", "group h any b c", "quorum h"], "another group already"),
        (["group g any h", "group h any a", "quorum g"], "nothing before it is called h"),
        (["group a any b", "quorum a"], "the name a is taken"),
        (["group none any b", "quorum none"], "the name none is taken"),
        (["nonsense", "quorum none"], "no statement"),
        (["log x", "quorum none"], "a verifier key|Base64"),
    ],
)
def test_what_is_no_policy_is_refused_with_its_line(
    log: Log, witnesses: dict[str, signing.SigningKey], rules: list[str], why: str
) -> None:
    with pytest.raises(NoteError, match=f"(?i){why}"):
        policy.parse(text(log, witnesses, *rules))


def test_one_witness_under_two_names_counts_once(
    log: Log, witnesses: dict[str, signing.SigningKey], tmp_path: Path
) -> None:
    again = signing.witness_key(tmp_path / "a.pem", "other.example")
    with pytest.raises(NoteError, match="the same public key"):
        policy.parse(text(log, {**witnesses, "again": again}, "quorum none"))
    with pytest.raises(NoteError, match="key of a log"):
        policy.parse(f"witness w {log.vkey()}\nquorum none\n")
    with pytest.raises(NoteError, match="key of a witness"):
        policy.parse(f"log {again.verifier.text()}\nquorum none\n")


def test_a_file_that_can_not_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NoteError, match="can't be read"):
        policy.load(tmp_path / "none")
    (tmp_path / "bytes").write_bytes(b"\xff")
    with pytest.raises(NoteError, match="not UTF-8"):
        policy.load(tmp_path / "bytes")
