"""Signed notes and verifier keys: the published example, and everything that is none."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given
from hypothesis import strategies as st

from audit.checkpoints import notes, signing, vkeys
from audit.errors import NoteError, SignerError
from audit.evidence import verify

# The example key and note of Go's sumdb/note package, which every implementation is tested with.
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETERS_SEED = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"  # the type, 0x01, before it
TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
LINE = (
    "— PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
TREE = notes.Tree("example.com/log", 12, bytes(range(32)))


@pytest.fixture(scope="module")
def signers(tmp_path_factory: pytest.TempPathFactory) -> list[signing.SigningKey]:
    """One key of each algorithm."""
    return signing.load_or_make(
        tmp_path_factory.mktemp("keys"), list(signing.ALGORITHMS), "example.com/log"
    )


def signed(signers: list[signing.SigningKey]) -> notes.Note:
    body = TREE.body()
    return notes.Note(body, tuple(key.sign(body, 1_700_000_000) for key in signers))


def test_the_published_example_verifies() -> None:
    note = notes.parse(TEXT + "\n" + LINE)
    assert note.body == TEXT
    (verified,) = notes.verify(note, [vkeys.parse_vkey(PETER)])
    assert verified.key.name == "PeterNeumann"
    assert note.text() == TEXT + "\n" + LINE


def test_the_published_key_signs_the_published_signature() -> None:
    private = ed25519.Ed25519PrivateKey.from_private_bytes(base64.b64decode(PETERS_SEED)[1:])
    peter = vkeys.parse_vkey(PETER)
    assert private.public_key().public_bytes_raw() == peter.public
    line = signing.SigningKey(peter, private).sign(TEXT, 0)
    assert line.line() == LINE


def test_every_mangled_verifier_key_is_refused() -> None:
    assert vkeys.parse_vkey(PETER).text() == PETER
    for start in range(len(PETER)):
        for end in range(start + 1, len(PETER) + 1):
            if (start, end) != (0, len(PETER)):
                with pytest.raises(NoteError):
                    vkeys.parse_vkey(PETER[start:end])
    for at, letter in enumerate(PETER):
        with pytest.raises(NoteError):
            vkeys.parse_vkey(PETER[:at] + chr(ord(letter) + 1) + PETER[at + 1 :])


def test_every_algorithm_signs_what_only_its_own_key_verifies(
    signers: list[signing.SigningKey],
) -> None:
    note, tree = notes.parse_checkpoint(signed(signers).text())
    assert tree == TREE
    known = [vkeys.parse_vkey(key.verifier.text()) for key in signers]
    assert [(one.key.kind, one.seconds) for one in notes.verify(note, known)] == [
        (vkeys.ED25519, None),
        (vkeys.ECDSA_P384, 1_700_000_000),
        (vkeys.ML_DSA_87, 1_700_000_000),
    ]
    assert notes.verify(note, [vkeys.parse_vkey(PETER)]) == [], "unknown signatures are ignored"
    other = notes.Tree(TREE.origin, TREE.size + 1, TREE.root).body()
    for key in known:
        with pytest.raises(NoteError, match="is wrong"):
            notes.verify(notes.Note(other, note.signatures), [key])


def test_a_time_that_was_changed_breaks_the_signature(signers: list[signing.SigningKey]) -> None:
    for key in signers[1:]:
        line = key.sign(TREE.body(), 1_700_000_000)
        later = notes.Signature(
            line.name, line.key_id, (1_700_000_001).to_bytes(8, "big") + line.value[8:]
        )
        with pytest.raises(NoteError):
            notes.verify(notes.Note(TREE.body(), (later,)), [key.verifier])


def test_a_log_key_is_no_witness_key_and_the_other_way_round(tmp_path: Path) -> None:
    witness = signing.witness_key(tmp_path / "key.pem", "w")
    line = witness.sign(TREE.body(), 5)
    as_log = vkeys.VerifierKey("w", vkeys.ED25519, witness.verifier.public)
    assert as_log.key_id != witness.verifier.key_id
    assert notes.verify(notes.Note(TREE.body(), (line,)), [as_log]) == []
    forged = notes.Signature("w", as_log.key_id, line.value[8:])
    with pytest.raises(NoteError):
        notes.verify(notes.Note(TREE.body(), (forged,)), [as_log])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "\n\n",
        TEXT,
        TEXT + LINE,
        TEXT + "\n",
        "\n\n" + LINE,
        TEXT + "\n" + LINE[:-1],
        TEXT + "\n" + LINE + "more\n",
        TEXT + "\n" + LINE.replace("— ", "-- "),
        TEXT + "\n" + LINE.replace("—", "—\t"),
        TEXT + "\n" + LINE.replace("PeterNeumann", "Peter+Neumann"),
        TEXT + "\n" + LINE.replace("PeterNeumann", "Peter\u2003Neumann"),
        TEXT + "\n" + LINE.replace("PeterNeumann ", ""),
        TEXT + "\n" + LINE.replace("=", ""),
        TEXT + "\n" + LINE.replace("AM=", "AN="),
        TEXT + "\n— PeterNeumann AAAA\n",
        TEXT.replace(" ", "\t") + "\n" + LINE,
        TEXT.replace("\n", "\r\n") + "\n" + LINE,
        TEXT + "\n" + LINE * 101,
        "x" * notes.NOTE_LIMIT + "\n\n" + LINE,
    ],
)
def test_what_is_no_note_is_refused(text: str) -> None:
    with pytest.raises(NoteError):
        notes.parse(text)
    with pytest.raises(NoteError):
        notes.parse(text.encode())


def test_bytes_that_are_no_text_are_no_note() -> None:
    with pytest.raises(NoteError):
        notes.parse(b"\xff\n\n" + LINE.encode())


@pytest.mark.parametrize(
    "body",
    [
        "",
        "log\n1\n",
        "log\n1\nAAAA\n",
        "log\n01\n" + notes.encoded(bytes(32)) + "\n",
        "log\n-1\n" + notes.encoded(bytes(32)) + "\n",
        "log\n٣\n" + notes.encoded(bytes(32)) + "\n",
        "log\n9999999999999999999\n" + notes.encoded(bytes(32)) + "\n",
        "\n1\n" + notes.encoded(bytes(32)) + "\n",
        "log\n1\n" + notes.encoded(bytes(32)) + "\n\n",
        "log\n1\n" + notes.encoded(bytes(32)),
    ],
)
def test_what_is_no_checkpoint_is_refused(body: str) -> None:
    with pytest.raises(NoteError):
        notes.parse_tree(body)


def test_extension_lines_are_let_through() -> None:
    assert notes.parse_tree(TREE.body() + "an extension\n") == TREE


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_nothing_but_a_note_error_comes_of_garbage(data: bytes) -> None:
    for text in (data, (TEXT + "\n").encode() + data, data + b"\n\n" + LINE.encode()):
        try:
            note = notes.parse(text)
        except NoteError:
            continue
        assert notes.parse(note.text()) == note


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    signing.load_or_make(folder, ["ed25519"], "log")
    assert folder.stat().st_mode & 0o777 == 0o700
    path = folder / "ed25519.pem"
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    with pytest.raises(SignerError, match="open to others"):
        signing.load_or_make(folder, ["ed25519"], "log")
    path.chmod(0o600)
    path.write_bytes(b"nonsense")
    with pytest.raises(SignerError, match="can't be read"):
        signing.load_or_make(folder, ["ed25519"], "log")


def test_an_unknown_algorithm_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SignerError, match="KMS_SIGNER_ALGORITHMS"):
        signing.load_or_make(tmp_path / "keys", ["rsa"], "log")


def test_the_offline_verifiers_own_code_agrees(
    signers: list[signing.SigningKey], tmp_path: Path
) -> None:
    note = signed(signers)
    witness = signing.witness_key(tmp_path / "key.pem", "w.example/1")
    note = note.signed([witness.sign(note.body, 1_700_000_000)])
    keys = [verify.Key(one.verifier.text()) for one in (*signers, witness)]
    read = verify.Note(note.text().encode())
    assert (read.origin, read.size, read.root) == (TREE.origin, TREE.size, TREE.root)
    assert read.signers(keys) == keys
    other = verify.Note(note.text().replace("\n12\n", "\n13\n").encode())
    with pytest.raises(verify.Malformed):
        other.signers(keys)
