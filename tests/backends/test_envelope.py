"""The ciphertext envelope: nothing in it can be changed, moved or read in two ways."""

from __future__ import annotations

import itertools
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys import envelope
from keys.algorithms import ALGORITHMS, Usage
from keys.errors import CannotDecrypt, Invalid
from keys.primitives.xaes import CommittingXaes

ROOT = Path(__file__).resolve().parent.parent.parent
KEY_ID = uuid.UUID("0123456789abcdef0123456789abcdef")
HEADER = envelope.seal_header("XAES_256_GCM", KEY_ID, 7)
ENCRYPTING = [row.name for row in ALGORITHMS.values() if Usage.ENCRYPT_DECRYPT in row.usages]

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
contexts = st.dictionaries(texts.filter(bool), texts, max_size=6)
headers = st.builds(
    envelope.seal_header,
    st.sampled_from(ENCRYPTING),
    st.uuids(),
    st.integers(1, envelope.MAX_VERSION),
)


def test_the_header_is_the_documented_bytes() -> None:
    assert HEADER.hex() == "4b0103" + "0123456789abcdef0123456789abcdef" + "00000007"


def test_the_context_is_the_documented_bytes() -> None:
    aad = envelope.associated_data(HEADER, {"ward": "7", "é": ""})
    pairs = bytes.fromhex("00000004 77617264 00000001 37 00000002 c3a9 00000000".replace(" ", ""))
    assert aad == HEADER + bytes.fromhex("00000002") + pairs


def test_the_example_in_the_documentation_is_what_we_make() -> None:
    context = {"ward": "7", "patient": "Ä-12"}
    aad = envelope.associated_data(HEADER, context)
    nonce = b"ABCDEFGHIJKLMNOPQRSTUVWX"
    body = nonce + CommittingXaes(bytes(range(32))).seal(nonce, b"dose: 5 mg", aad)
    text = (ROOT / "docs" / "ciphertext.md").read_text(encoding="utf-8")
    lines = {" ".join(line.split()) for line in text.splitlines()}
    assert f"header {HEADER.hex()}" in lines
    assert f"associated data {aad.hex()}" in lines
    assert f"ciphertext {(HEADER + body).hex()}" in lines


@given(headers, st.binary(min_size=1, max_size=64))
def test_parse_gives_back_what_was_written(header: bytes, body: bytes) -> None:
    parsed = envelope.parse(header + body)
    again = envelope.seal_header(parsed.algorithm, parsed.key_id, parsed.version)
    assert (again, parsed.header, parsed.body, parsed.format) == (header, header, body, 1)


@given(st.binary(max_size=64))
def test_any_bytes_parse_exactly_or_are_refused(data: bytes) -> None:
    try:
        parsed = envelope.parse(data)
    except CannotDecrypt:
        return
    header = envelope.seal_header(parsed.algorithm, parsed.key_id, parsed.version)
    assert header + parsed.body == data


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"",
        lambda data: data[: envelope.HEADER_BYTES],
        lambda data: b"X" + data[1:],
        lambda data: data[:1] + b"\x02" + data[2:],
        lambda data: data[:2] + b"\x00" + data[3:],  # no such algorithm
        lambda data: data[:2] + b"\x01" + data[3:],  # retired: XAES without key commitment
        lambda data: data[:2] + b"\x80" + data[3:],  # AES_KWP wraps and encrypts nothing
        lambda data: data[:2] + b"\x10" + data[3:],  # HMAC_SHA_256 encrypts nothing
        lambda data: data[:19] + bytes(4) + data[23:],  # versions count from 1
    ],
)
def test_a_malformed_ciphertext_is_refused(change: object) -> None:
    assert callable(change)
    with pytest.raises(CannotDecrypt):
        envelope.parse(change(HEADER + b"body"))


def test_a_header_that_could_not_be_parsed_is_not_written() -> None:
    for algorithm, version in (("HMAC_SHA_256", 1), ("ROT13", 1), ("XAES_256_GCM", 0)):
        with pytest.raises(Invalid):
            envelope.seal_header(algorithm, KEY_ID, version)
    with pytest.raises(Invalid):
        envelope.seal_header("XAES_256_GCM", KEY_ID, 2**32)


@given(headers, contexts, headers, contexts)
def test_different_inputs_give_different_associated_data(
    header: bytes, context: dict[str, str], other_header: bytes, other: dict[str, str]
) -> None:
    same = envelope.associated_data(header, context) == envelope.associated_data(
        other_header, other
    )
    assert same == ((header, context) == (other_header, other))


def splits(text: str) -> list[tuple[str, str]]:
    return [(text[:cut], text[cut:]) for cut in range(1, len(text) + 1)]


def test_no_text_moved_between_name_and_value_or_pairs_gives_the_same_bytes() -> None:
    candidates: list[dict[str, str]] = [{}]
    candidates += [{name: value} for name, value in splits("aabb\x00\x00\x00\x01a")]
    for cut in range(1, 8):
        for one, two in itertools.product(splits("aabb1122"[:cut]), splits("aabb1122"[cut:])):
            candidates.append(dict([one, two]))
    encodings = [envelope.associated_data(HEADER, context) for context in candidates]
    distinct = {tuple(sorted(context.items())) for context in candidates}
    assert len(set(encodings)) == len(distinct) > 50


@given(contexts)
def test_the_order_in_which_pairs_were_given_does_not_matter(context: dict[str, str]) -> None:
    reversed_ = dict(reversed(list(context.items())))
    assert envelope.associated_data(HEADER, context) == envelope.associated_data(HEADER, reversed_)


@pytest.mark.parametrize(
    "context",
    [
        {str(number): "" for number in range(33)},
        {"n" * 1025: ""},
        {"n": "v" * 1025},
        {"n": "é" * 513},  # 1026 bytes
        {"": "v"},
        {"n": "\ud800"},
        {"\udfff": "v"},
        {"n": 1},
        {1: "v"},
        {"n": None},
        {"n": b"v"},
    ],
)
def test_what_is_no_context_is_refused(context: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        envelope.associated_data(HEADER, context)


def test_the_largest_context_is_taken() -> None:
    context = {f"{number:02}" + "n" * 1022: "é" * 512 for number in range(32)}
    assert len(envelope.associated_data(HEADER, context)) == 23 + 4 + 32 * (8 + 2048)


def test_text_that_only_looks_alike_is_another_context() -> None:
    composed, decomposed = {"n": "\u00e9"}, {"n": "e\u0301"}
    assert envelope.associated_data(HEADER, composed) != envelope.associated_data(
        HEADER, decomposed
    )


def opens(cipher: CommittingXaes, data: bytes, context: dict[str, str]) -> bool:
    try:
        parsed = envelope.parse(data)
        cipher.decrypt(parsed.body, envelope.associated_data(parsed.header, context))
    except CannotDecrypt:
        return False
    return True


def test_every_field_swapped_between_two_ciphertexts_makes_both_unreadable() -> None:
    """Even where key and backend are the same, so that only the associated data can tell."""
    cipher = CommittingXaes(bytes(range(32)))
    one = ("XAES_256_GCM", KEY_ID, 1, {"ward": "7"}, b"first message")
    two = ("AES_256_GCM", uuid.UUID(int=9), 2, {"ward": "8"}, b"other message")
    sealed = []
    for algorithm, key_id, version, context, text in (one, two):
        header = envelope.seal_header(algorithm, key_id, version)
        body = cipher.encrypt(text, envelope.associated_data(header, context))
        sealed.append((header + body, context))
    (first, first_context), (second, second_context) = sealed
    assert opens(cipher, first, first_context)
    assert opens(cipher, second, second_context)
    fields = {
        "algorithm": slice(2, 3),
        "key id": slice(3, 19),
        "version": slice(19, 23),
        "nonce": slice(23, 47),
        "commitment": slice(47, 79),
        "ciphertext": slice(79, len(first) - 16),
        "tag": slice(len(first) - 16, len(first)),
    }
    for name, where in fields.items():
        a, b = bytearray(first), bytearray(second)
        a[where], b[where] = second[where], first[where]
        assert not opens(cipher, bytes(a), first_context), name
        assert not opens(cipher, bytes(b), second_context), name
    assert not opens(cipher, first, second_context)
    assert not opens(cipher, second, first_context)
