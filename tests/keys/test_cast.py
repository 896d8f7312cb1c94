"""The cast itself: that the house in tests is a set-up console like any other."""

from __future__ import annotations

import pytest
from django.contrib.auth import authenticate

from keys import operations
from keys.models import Principal
from keys.states import VersionState
from kms_console import identity
from tests.house import ALL_PAIRS, LEGAL_PAIRS, House


@pytest.mark.each_database
def test_billing_encrypts_and_the_stranger_does_not_even_see_the_key(house: House) -> None:
    sealed = operations.encrypt(house.billing, "invoices", b"hello", context={"p": "1"})
    opened = operations.decrypt(house.billing, "invoices", sealed.ciphertext, context={"p": "1"})
    assert opened.plaintext.reveal() == b"hello"
    with pytest.raises(Exception, match="no such key"):
        operations.encrypt(house.stranger, "invoices", b"hello")
    assert [e["outcome"] for e in house.entries(action="encrypt")] == ["success", "denied"]


def test_tokens_and_passwords_are_the_ones_that_doors_accept(house: House) -> None:
    caller = identity.bearer("Bearer " + house.token("billing"), source="", request_id="1")
    assert caller.name == "billing"
    assert authenticate(username="olga", password=house.password("olga")) is not None
    assert Principal.objects.filter(role="officer").count() == 3


@pytest.mark.each_database(fast="sqlite")
@pytest.mark.parametrize("state", list(VersionState))
def test_every_version_state_is_reached_by_legal_steps(house: House, state: VersionState) -> None:
    key, number = house.version_in(state)
    assert key.versions.get(number=number).state == state


def test_the_table_has_13_edges_of_42_pairs() -> None:
    assert (len(ALL_PAIRS), len(LEGAL_PAIRS)) == (42, 13)
