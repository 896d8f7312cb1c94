"""Key stores from the command line: what is in them, what is adopted, what differs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from keys import administration
from keys.models import Drift, Listing
from tests.house import House
from tests.keys import remote
from tests.keys.remote import Vendor


@pytest.fixture
def vendor(house: House) -> Iterator[Vendor]:
    with remote.furnished(house) as vendor:
        yield vendor


def run(*words: str, code: int = 0) -> tuple[str, str]:
    """Run `keystore` as a person types it; return what it wrote on both channels."""
    out, errors = StringIO(), StringIO()
    try:
        call_command("keystore", *words, stdout=out, stderr=errors)
        ended = 0
    except SystemExit as end:
        ended = int(end.code or 0)
    assert ended == code, (out.getvalue(), errors.getvalue())
    return out.getvalue(), errors.getvalue()


def test_what_is_in_a_store_is_listed_and_adopted(house: House, vendor: Vendor) -> None:
    ours = house.key("cloud", name="Payroll")
    vendor.create("old-key", "ECC_NIST_P256")
    vendor.create("odd", problem="The console knows no such type.")
    out, progress = run("discover", "cloud")
    assert out.splitlines() == [
        f"{vendor.of(ours)}  AES_256  enabled  adopted as payroll",
        "odd  AES_256  enabled  The console knows no such type.",
        "old-key  ECC_NIST_P256  enabled  not adopted",
    ]
    assert "3 of 3 keys found" in progress
    out, _ = run("adopt", "cloud", "old-key", "--classification", "cloud", "--alias", "signer")
    assert out.startswith("Adopted signer as it is; nothing was changed there. Its next rotation")
    told = json.loads(run("discover", "cloud", "--json")[0])
    assert [row["key"] for row in told["keys"]] == ["payroll", None, "signer"]
    with pytest.raises(CommandError, match="has this key already: signer"):
        run("adopt", "cloud", "old-key", "--classification", "cloud", "--json")


def test_a_listing_that_fails_or_has_to_wait_is_told(house: House, vendor: Vendor) -> None:
    vendor.in_trouble("throttled")
    with pytest.raises(CommandError, match="0 keys were found so far; the worker"):
        run("discover", "cloud")
    Listing.objects.all().delete()
    vendor.in_trouble("nonsense")
    with pytest.raises(CommandError, match="The listing failed: The answer makes no sense"):
        run("discover", "cloud")
    with pytest.raises(CommandError, match="There is no such key store"):
        run("discover", "nowhere")
    with pytest.raises(CommandError, match="nothing to list"):
        run("discover", "software")


def test_what_differs_is_listed_and_ends_with_code_1(house: House, vendor: Vendor) -> None:
    key = house.key("cloud", name="Payroll")
    assert run("drift", "--check") == ("Nothing differs.\n", "")
    vendor.disable(vendor.of(key))
    assert run("drift")[0] == "Nothing differs.\n", "nobody asked the store"
    out, _ = run("drift", "--check", code=1)
    row = Drift.objects.get()
    assert out == f"{row.id}  payroll  Key state: here enabled, there disabled\n"
    (told,) = json.loads(run("drift", "cloud", "--json", code=1)[0])
    assert (told["field"], told["observed"], told["ways"]["accept"]) == (
        "key_state",
        "disabled",
        "",
    )
    assert run("drift", "--key", "payroll", code=1)[0] == out
    assert run("drift", "--key", "invoices")[0] == "Nothing differs.\n"
    assert run("drift", "software")[0] == "Nothing differs.\n"
    for words in (["nowhere"], ["--key", "nobody"]):
        with pytest.raises(CommandError, match="There is no such"):
            run("drift", *words)
    administration.accept_drift(house.olga, str(row.id))
    assert run("drift", "--check", "--key", "payroll")[0] == "Nothing differs.\n"


@pytest.mark.exhaustive
def test_a_store_that_can_not_be_asked_is_told_and_the_others_are_asked(
    house: House, vendor: Vendor
) -> None:
    house.key("cloud", name="One")
    second = house.key("cloud", name="Two")
    vendor.tag(vendor.of(second), a="b")
    administration.check_drift(house.olga, "two")
    vendor.tag(vendor.of(second), a="c")
    vendor.in_trouble("away", times=1)
    out, errors = run("drift", "--check", code=1)
    assert errors.splitlines()[0] == "one: The cable is out."
    assert "An officer decides" in errors
    assert 'Tags: here {"a": "b"}, there {"a": "c"}' in out


def test_one_store_is_checked_by_name(house: House, vendor: Vendor) -> None:
    assert run("check", "cloud")[0] == "cloud  remote  Cloud  well\n"
    vendor.in_trouble("away")
    out, _ = run("check", "cloud", code=1)
    assert out == "cloud  remote  Cloud  not well: The cable is out.\n"
    assert "software" in run("check", code=1)[0]
    with pytest.raises(CommandError, match="no such key store"):
        run("check", "nowhere")
    listed, _ = run("list")
    assert "cloud  remote  Cloud  not well" in listed
