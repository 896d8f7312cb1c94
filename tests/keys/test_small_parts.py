"""Names, parameters, secrets, diffs: the small parts that everything rests on."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import pickle
import unicodedata
from typing import Any

import pytest
from auditlog.models import LogEntry
from hypothesis import given, settings
from hypothesis import strategies as st

from audit import canonical
from audit.models import Entry
from keys import administration, names, parameters
from keys.errors import AlreadyExists, Invalid, KeyServiceError
from keys.models import Principal
from keys.secret import Secret
from tests.house import House

# --- names

ALIKE = [
    ("Billing", "billing"),
    ("Billing", "BILLING"),
    ("Billing", "Ｂｉｌｌｉｎｇ"),  # full width
    ("Billing", " Billing "),
    ("Straße", "STRASSE"),
    ("ﬁnance", "finance"),  # a ligature
    ("Café", "Cafe\u0301"),  # composed and decomposed
    ("Ångström", "\u212bngström"),  # the unit's own sign
    ("x²", "x2"),
    ("ΣΑΣ", "σας"),  # a final sigma
    ("№ 5", "no 5"),
    ("ǅ", "ǆ"),
]
INVISIBLE = [
    f"a{character}b"
    for character in "\u200b\u200d\ufeff\u202e\x00\n\t\ud800\x7f\u2066\U000e0041\ue000"
]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_names_that_look_alike_are_one_name(one: str, other: str) -> None:
    shown = names.display_name(one), names.display_name(other)
    assert names.folded(shown[0]) == names.folded(shown[1])


@pytest.mark.each_database
@pytest.mark.parametrize(("one", "other"), [ALIKE[2], ALIKE[4], ALIKE[6]])
def test_two_accounts_can_not_look_alike(house: House, one: str, other: str) -> None:
    if one != "Billing":
        administration.create_application(house.ada, name=one)
    count = Principal.objects.count()
    with pytest.raises(AlreadyExists):
        administration.create_application(house.ada, name=other)
    assert Principal.objects.count() == count


@pytest.mark.parametrize("name", [*INVISIBLE, "", " ", "\u3000", "x" * 129, "\u200b"], ids=ascii)
def test_a_name_that_can_not_be_read_is_refused(name: str) -> None:
    with pytest.raises(Invalid) as refused:
        names.display_name(name)
    assert refused.value.extra["field"] == "name"


@pytest.mark.parametrize("alias", [
    "", "-a", ".a", "a b", "a/b", "a\\b", "ä", "а", "a\u0301", "a" * 129, "a\x00", "..",
    "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "6ba7b8109dad11d180b400c04fd430c8",
])  # fmt: skip
def test_an_alias_is_plain_and_no_uuid(alias: str) -> None:
    with pytest.raises(Invalid):
        names.slug(alias)


@pytest.mark.parametrize(
    ("given", "kept"), [("A.b-c_9", "a.b-c_9"), (" Keys ", "keys"), ("ＫＥＹ", "key"), ("ﬁ", "fi")]
)
def test_an_alias_is_normalised_once(given: str, kept: str) -> None:
    assert names.slug(given) == kept == names.slug(kept)


@given(st.text(max_size=200))
def test_folding_twice_is_folding_once_and_a_shown_name_is_clean(text: str) -> None:
    folded = names.folded(text)
    assert names.folded(folded) == folded
    folded.encode()
    try:
        shown = names.display_name(text)
    except Invalid:
        return
    assert shown == unicodedata.normalize("NFKC", shown).strip()
    assert names.display_name(shown) == shown
    assert all(unicodedata.category(character)[0] != "C" for character in shown)


@given(st.text(alphabet=st.characters(), max_size=600))
def test_prose_keeps_nothing_that_can_not_be_printed(text: str) -> None:
    try:
        kept = names.prose(text, "reason")
    except Invalid:
        return
    assert len(kept) <= 500
    assert all(character == "\n" or character.isprintable() for character in kept)
    kept.encode()


def test_prose_that_is_required_is_required() -> None:
    for text in ("", "  ", "\u200b", "\x00"):
        with pytest.raises(Invalid):
            names.prose(text, "reason", required=True)


# --- parameters

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
CHECKS: list[Any] = [
    lambda value: parameters.whole(value, "f", 1, 10),
    lambda value: parameters.whole_or_none(value, "f", 1, 10),
    lambda value: parameters.yes_or_no(value, "f"),
    lambda value: parameters.one_of(value, "f", ["a", "b"]),
    lambda value: parameters.some_of(value, "f", ["a", "b"]),
    lambda value: parameters.text_pairs(value, "f", 2),
    lambda value: parameters.networks(value, "f"),
    lambda value: parameters.moment(value, "f"),
]


@settings(max_examples=60)
@given(anything)
def test_a_parameter_is_clean_or_invalid_and_nothing_else(value: Any) -> None:
    for check in CHECKS:
        try:
            clean = check(value)
        except Invalid as error:
            assert error.extra["field"] == "f"
        else:
            assert (
                clean is None or isinstance(clean, bool | int | str | list | dict) or clean.tzinfo
            )


GOOD = [
    (parameters.whole, 5, 5, (1, 10)),
    (parameters.networks, ["10.0.0.0/8", "10.0.0.0/8"], ["10.0.0.0/8"], ()),
    (parameters.networks, ["192.0.2.7"], ["192.0.2.7/32"], ()),
    (parameters.networks, ["2001:DB8::/32"], ["2001:db8::/32"], ()),
    (parameters.text_pairs, {"b": "2", "a": ""}, {"a": "", "b": "2"}, ()),
    (parameters.some_of, ["b", "a", "b"], ["a", "b"], (["a", "b"],)),
]


@pytest.mark.parametrize(("check", "value", "kept", "more"), GOOD)
def test_a_good_parameter_is_kept_in_one_form(check: Any, value: Any, kept: Any, more: Any) -> None:
    assert check(value, "f", *more) == kept


BAD = [
    (parameters.networks, ["10.0.0.1/8"], ()),
    (parameters.networks, "10.0.0.0/8", ()),
    (parameters.networks, [5], ()),
    (parameters.networks, [True], ()),
    (parameters.networks, [None], ()),
    (parameters.networks, ["10.0.0.0/8"] * 33, ()),
    (parameters.moment, "2027-01-01", ()),
    (parameters.moment, "2027-01-01T00:00:00", ()),
    (parameters.moment, 1, ()),
    (parameters.moment, "0001-01-01T00:00:00+14:00", ()),
    (parameters.moment, "9999-12-31T23:59:59-14:00", ()),
    (parameters.text_pairs, {"a": "x" * 257}, ()),
    (parameters.text_pairs, {"a\n": "x"}, ()),
    (parameters.text_pairs, {"": "x"}, ()),
    (parameters.text_pairs, {str(n): "x" for n in range(33)}, ()),
    (parameters.whole, 1.0, (1, 10)),
    (parameters.whole, True, (1, 10)),
    (parameters.some_of, [], (["a"],)),
    (parameters.some_of, [["a"]], (["a"],)),
]


@pytest.mark.parametrize(("check", "value", "more"), BAD)
def test_a_bad_parameter_is_refused_by_name(check: Any, value: Any, more: Any) -> None:
    with pytest.raises(Invalid) as refused:
        check(value, "f", *more)
    assert refused.value.extra["field"] == "f"


# --- secrets

CANARY = b"canary-7f3a"


def test_a_secret_is_not_printed_formatted_pickled_copied_or_compared_as_bytes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    secret = Secret(CANARY)
    shown = [repr(secret), str(secret), f"{secret}", f"{secret:>40}", f"{secret!r} {secret!s}"]
    shown += [repr([secret]), repr({"a": secret}), repr(ValueError(secret))]
    logging.getLogger("tests").warning("a secret: %s", secret)
    shown.append(caplog.text)
    assert not [text for text in shown if "canary" in text]
    for attempt in (
        lambda: pickle.dumps(secret),
        lambda: copy.copy(secret),
        lambda: copy.deepcopy(secret),
        lambda: json.dumps(secret),
        lambda: hash(secret),
        lambda: bytes(secret),
        lambda: vars(secret),
        lambda: canonical.encode(secret),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError):
            attempt()
    assert secret == Secret(bytes(CANARY)) and secret != Secret(b"other")
    assert secret != CANARY and len(secret) == len(CANARY)
    assert secret.reveal() == CANARY


def test_a_secret_that_is_brought_is_in_no_entry_no_request_and_no_error(house: House) -> None:
    material = Secret(CANARY + bytes(21))
    house.key("patient-health", origin="imported", alias="brought")
    for arguments in ({"material": material}, {"material": material, "colour": material}):
        with pytest.raises(KeyServiceError) as raised:
            administration.import_key(house.olga, "brought", **arguments)
        assert "canary" not in str(raised.value) + repr(raised.value.extra)
    for row in Entry.objects.all():
        assert CANARY not in bytes(row.body) and CANARY.hex().encode() not in bytes(row.body)
    for path in house.database.path.parent.iterdir():
        assert CANARY not in path.read_bytes(), path.name


def test_a_token_and_a_password_are_kept_nowhere(house: House) -> None:
    issued = administration.issue_credential(house.ada, "billing")
    made = administration.create_person(house.ada, name="Uta", username="uta", role="auditor")
    assert made.password is not None
    for path in house.database.path.parent.iterdir():
        content = path.read_bytes()
        for secret in (issued.token, made.password, Secret(house.password("olga").encode())):
            assert secret.reveal() not in content, path.name


# --- diffs


@pytest.mark.each_database
def test_a_change_of_configuration_has_its_digest_in_the_log(house: House) -> None:
    administration.update_classification(house.ada, "internal", rotation_days=200, title="Inside")
    shown = LogEntry.objects.latest("id")
    assert shown.changes_dict == {
        "rotation_days": ["365", "200"],
        "title": ["Internal", "Inside"],
    }
    (digest,) = house.last_entry()["facts"]["diffs"]
    assert digest == {
        "object": "classification",
        "id": shown.object_pk,
        "sha256": hashlib.sha256(canonical.encode(shown.changes_dict)).hexdigest(),
    }


def test_every_kind_of_configuration_has_its_diffs(house: House) -> None:
    grant = house.grant("billing", house.key(), "encrypt")
    assert house.last_entry(action="create_grant")["facts"]["diffs"][0]["object"] == "grant"
    administration.revoke_grant(house.olga, str(grant.id))
    administration.update_key_store(house.ada, "software", title="Soft")
    administration.issue_credential(house.ada, "billing")
    administration.deactivate_principal(house.ada, "stranger")
    administration.create_classification(
        house.ada, name="c", title="C", allowed_specs=["AES_256"], key_stores=["software"]
    )
    for action, kind in (
        ("revoke_grant", "grant"),
        ("update_key_store", "keystore"),
        ("issue_credential", "credential"),
        ("deactivate_principal", "principal"),
        ("create_classification", "classification"),
    ):
        facts = house.last_entry(action=action)["facts"]
        assert {diff["object"] for diff in facts["diffs"]} == {kind}, action
    assert not LogEntry.objects.filter(changes__icontains="digest").exists()


def test_a_change_that_does_not_happen_leaves_no_diff(house: House) -> None:
    before = LogEntry.objects.count()
    house.pending(administration.update_classification, house.ada, "patient-health", title="X")
    with pytest.raises(Invalid):
        administration.update_classification(house.ada, "internal", rotation_days=9999)
    assert LogEntry.objects.count() == before
