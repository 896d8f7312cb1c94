"""Words and sets of entries: how a text is taken apart, and how a block's rows are read back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.index import postings
from audit.index.postings import BLOCK
from audit.index.words import words

UUID = "0192f0c1-0000-7000-8000-00000000a11c"
COMMITMENT = "hmac-sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ()),
        ("%_\\ .-", ()),
        ("rotate_key", ("rotate", "key")),
        ("Wages-2026, wages", ("wages", "2026")),
        ("100%_of\\it", ("100", "of", "it")),
        (f"key {UUID.upper()}!", ("key", UUID)),
        (f"x{UUID}", ("x0192f0c1", "0000", "7000", "8000", "00000000a11c")),
        (COMMITMENT, (COMMITMENT,)),
        ("from 10.1.4.7.", ("from", "10.1.4.7")),
        ("2001:DB8::1, ::1", ("2001:db8::1", "::1")),
        ("2001:db8", ("2001:db8",)),
        ("Straße", ("strasse",)),
        ("ﬁle ２", ("file", "2")),
        ("e\u0301te\u0301", ("été",)),
        ("鍵 管理", ("鍵", "管理")),
        ("a\0b", ("a", "b")),
    ],
)
def test_a_text_is_taken_apart_into_words(text: str, found: tuple[str, ...]) -> None:
    assert words(text) == found


def test_words_are_taken_apart_the_same_when_they_are_taken_apart_again() -> None:
    for text in ("Straße ǅ ﬀ İ", UUID, COMMITMENT, "10.1.4.7", "2001:db8::1"):
        for word in words(text):
            assert words(word) == (word,)


SETS = st.one_of(
    st.sets(st.integers(0, BLOCK - 1), max_size=8),
    st.sampled_from([set(range(255)), set(range(256)), set(range(1000, BLOCK)), {0}, {BLOCK - 1}]),
)


@given(SETS)
@settings(max_examples=50, deadline=None)
def test_a_set_of_entries_reads_back(some: set[int]) -> None:
    packed = postings.pack_set(sorted(some))
    assert len(packed) == (2 * len(some) if len(some) < 256 else 512)
    assert postings.offsets(postings.unpack_set(packed)) == sorted(some)


LETTERS = st.text("abé", min_size=1, max_size=4)


@given(st.dictionaries(LETTERS, SETS, max_size=12), LETTERS)
@settings(max_examples=100, deadline=None)
def test_a_row_of_words_is_searched_by_the_beginning(rows: dict[str, set[int]], word: str) -> None:
    packed = sorted((one.encode(), postings.pack_set(sorted(some))) for one, some in rows.items())
    found = postings.find_words(postings.pack_words(packed), word.encode())
    wanted = set().union(*(some for one, some in rows.items() if one.startswith(word)))
    assert postings.offsets(found) == sorted(wanted)


@given(st.dictionaries(st.binary(min_size=8, max_size=8), SETS, max_size=12), st.data())
@settings(max_examples=100, deadline=None)
def test_a_row_of_whole_terms_is_searched_by_the_hash(
    rows: dict[bytes, set[int]], data: st.DataObject
) -> None:
    packed = sorted((one, postings.pack_set(sorted(some))) for one, some in rows.items())
    row = postings.pack_terms(packed)
    # Also what stands across two hashes, and is none.
    everywhere = [row[at : at + 8] for at in range(4, len(packed) * 8 - 4)]
    wanted = data.draw(st.sampled_from([*rows, *everywhere, b"12345678"]))
    found = postings.offsets(postings.find_term(row, wanted))
    assert found == sorted(rows.get(wanted, set()))
