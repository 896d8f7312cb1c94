"""Canonical JSON agrees with a full implementation of RFC 8785 on everything entries may hold."""

from __future__ import annotations

import json
from enum import StrEnum

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from audit import canonical

LIMIT = canonical.INTEGER_LIMIT
texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.none() | st.booleans() | st.integers(-LIMIT, LIMIT) | texts,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.text(st.characters(codec="ascii")), inner, max_size=5)
    ),
)


@given(values)
def test_agrees_with_rfc8785_on_any_value(value: canonical.JsonValue) -> None:
    assert canonical.encode(value) == rfc8785.dumps(value)  # type: ignore[arg-type]


@given(values)
def test_reads_back_as_the_same_value(value: canonical.JsonValue) -> None:
    assert json.loads(canonical.encode(value)) == value


@pytest.mark.parametrize(
    "text",
    [chr(code) for code in range(0x20)]
    + ['"', "\\", "/", "\x7f", "\x80", "\u2028", "\u2029", "\ufeff", "\ufffe", "\uffff", "😀", "é"],
)
def test_agrees_with_rfc8785_on_awkward_characters(text: str) -> None:
    assert canonical.encode(text) == rfc8785.dumps(text)
    assert canonical.encode({"a": [text + "x"]}) == rfc8785.dumps({"a": [text + "x"]})


def test_members_are_sorted_whatever_their_order() -> None:
    assert canonical.encode({"b": 1, "a": {"_": 2, "Z": 3, "": 4}}) == (
        b'{"a":{"":4,"Z":3,"_":2},"b":1}'
    )


def test_words_of_an_enumeration_are_plain_text() -> None:
    class Word(StrEnum):
        YES = "yes"

    assert canonical.encode([Word.YES]) == b'["yes"]'


@pytest.mark.parametrize("text", ["\ud800", "a\udfff", "\udc00\ud800"])
def test_lone_surrogates_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        canonical.encode({"a": text})


@pytest.mark.parametrize("number", [LIMIT + 1, -LIMIT - 1, 2**64, 10**40])
def test_integers_that_a_reader_could_not_hold_are_refused(number: int) -> None:
    with pytest.raises(ValueError):
        canonical.encode([number])


@pytest.mark.parametrize("value", [1.0, float("nan"), b"bytes", {1: "a"}, {1, 2}, object()])
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        canonical.encode(value)  # type: ignore[arg-type]


def test_member_names_outside_ascii_are_refused() -> None:
    with pytest.raises(ValueError):
        canonical.encode({"é": 1})
