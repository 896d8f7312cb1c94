"""A key ceremony through the console: who must do what, what each sees, what is left of it."""

from __future__ import annotations

import base64
import os
import re
from typing import Any

import pytest
from django.test import Client

from keys.administration import ceremonies as steps
from keys.algorithms import SPECS
from keys.backends.materials import check_value_of_secret
from keys.backends.software.models import WrappedMaterial
from keys.models import Approval, Ceremony, Key, Principal
from keys.stores import COMPONENTS
from tests.console.bringing import REASON, oaep, parameters, rsa_aes
from tests.console.conftest import signed_in_client
from tests.house import House

AES = SPECS["AES_256"]


def grouped(data: bytes) -> str:
    """Write a component as it stands on paper: capitals, in groups of four."""
    return " ".join(re.findall("....", data.hex().upper()))


def xor(*parts: bytes) -> bytes:
    total = bytes(len(parts[0]))
    for part in parts:
        total = bytes(a ^ b for a, b in zip(total, part, strict=True))
    return total


def opened(client: Client, alias: str, *officers: str, split: str = "yes", first: str = "") -> str:
    """Open a ceremony through the form; return its address."""
    ids = {row.name: str(row.id) for row in Principal.objects.filter(name__in=officers)}
    form: dict[str, Any] = {
        "custodians": [ids[name] for name in officers], "split": split, "place": "Room 2", **REASON,
    }  # fmt: skip
    if first:
        form["first"] = ids[first]
    answer = client.post(f"/keys/{alias}/import/ceremony", form)
    assert answer.status_code == 302, answer.content.decode()
    return str(answer["Location"])


@pytest.fixture
def brought(house: House) -> Key:
    return house.key("internal", name="Brought", alias="brought", origin="imported")


def test_two_officers_enter_a_component_each_compare_and_import(
    house: House, olga: Client, brought: Key
) -> None:
    otto, udo = signed_in_client("otto"), signed_in_client("udo")
    parts = [os.urandom(32), os.urandom(32)]
    whole = check_value_of_secret(AES, xor(*parts))
    address = opened(olga, "brought", "Olga", "Otto")
    for client in (olga, otto):
        assert "You are asked to enter a component: Brought" in client.get("/").content.decode()
    assert "You are asked" not in signed_in_client("oona").get("/").content.decode()
    assert "You are asked" not in udo.get("/").content.decode()
    assert "A key ceremony</a> is under way" in olga.get("/keys/brought").content.decode()

    mine = check_value_of_secret(AES, parts[0])
    form = {"component": grouped(parts[0]), "check_value": mine}
    page = olga.post(f"{address}/enter", form, follow=True).content.decode()
    assert f"Its check value is {mine}" in page
    assert "Otto must enter a component next" in page
    assert "load delay" in olga.get(address).content.decode(), "it looks again by itself"
    assert "Enter your component" in otto.get(address).content.decode()
    page = otto.post(f"{address}/enter", {"component": parts[1].hex()}, follow=True)
    assert f'<p class="check-value mono">{whole}</p>' in page.content.decode()

    for client in (olga, otto):
        assert "You are asked to compare a check value" in client.get("/").content.decode()
    wrong = olga.post(f"{address}/confirm", {"check_value": "0" * 16})
    assert wrong.status_code == 400
    assert "not the ceremony&#x27;s check value" in wrong.content.decode()
    typed = {"check_value": f" {whole[:8].upper()} {whole[8:]} "}
    page = olga.post(f"{address}/confirm", typed, follow=True).content.decode()
    assert "1 of 2 officers have" in page
    page = otto.post(f"{address}/confirm", {"check_value": whole}, follow=True).content.decode()
    assert "Import it" in page
    assert "ready for its import: Brought" in olga.get("/").content.decode()
    assert olga.post(f"{address}/import", {}).status_code == 400
    page = olga.post(f"{address}/import", REASON, follow=True).content.decode()
    assert "The ceremony is over: print its minutes" in page
    brought.refresh_from_db()
    assert brought.state == "enabled"
    assert brought.versions.get().check_value == whole
    assert not WrappedMaterial.objects.filter(store_id=COMPONENTS).exists()

    minutes = udo.get(f"{address}/minutes").content.decode()
    text = udo.get(f"{address}/minutes.txt")
    assert text["Content-Disposition"].startswith("attachment")
    for found in (minutes, text.content.decode()):
        for word in ("Olga", "Otto", "Room 2", whole, mine, "Enter a key component"):
            assert word in found, word
    for data in (*parts, xor(*parts)):
        for secret in (data.hex(), data.hex().upper(), grouped(data)):
            told = (
                minutes,
                text.content.decode(),
                str(house.entries()),
                page,
                str(dict(olga.session)),
                str(dict(otto.session)),
            )
            assert not [one for one in told if secret in one]
    assert "Done" in olga.get("/keys/brought").content.decode()


def test_a_mistyped_component_is_told_beside_its_field_and_never_shown_again(
    house: House, olga: Client, brought: Key
) -> None:
    address = opened(olga, "brought", "Olga", "Otto")
    good = os.urandom(32)
    for form, word in (
        ({"component": ""}, "required"),
        ({"component": "zz" * 32}, "pairs of the digits"),
        ({"component": good.hex()[:-1]}, "pairs of the digits"),
        ({"component": good.hex()[:-2]}, "has 64 digits; these are 62"),
        ({"component": "00" * 32}, "all zeros"),
        ({"component": good.hex(), "check_value": "1" * 16}, "it was mistyped"),
        ({"component": "é" * 64}, "pairs of the digits"),
    ):
        answer = olga.post(f"{address}/enter", form)
        page = answer.content.decode()
        assert answer.status_code == 400, form
        assert word in page, word
        assert good.hex() not in page
        assert 'type="password"' in page
    assert Ceremony.objects.get().custodians.filter(entered_at__isnull=False).count() == 0
    assert good.hex() not in str(house.entries())


def test_nobody_does_anothers_part_and_nothing_twice(
    house: House, olga: Client, brought: Key
) -> None:
    address = opened(olga, "brought", "Olga", "Otto")
    part = {"component": os.urandom(32).hex()}
    oona = signed_in_client("oona")
    assert "Olga, Otto must enter a component next" in oona.get(address).content.decode()
    assert oona.post(f"{address}/enter", part).status_code == 403
    assert oona.post(f"{address}/confirm", {"check_value": "0" * 16}).status_code == 403
    assert olga.post(f"{address}/confirm", {"check_value": "0" * 16}).status_code == 409
    assert olga.post(f"{address}/import", REASON).status_code == 409
    assert olga.post(f"{address}/enter", part).status_code == 302
    again = olga.post(f"{address}/enter", part)
    assert again.status_code == 409
    assert "You have entered your component already" in again.content.decode()
    for name in ("ada", "udo"):
        other = signed_in_client(name)
        assert other.get(address).status_code == 200
        for step, form in (
            ("enter", part),
            ("confirm", {"check_value": "0" * 16}),
            ("import", REASON),
            ("cancel", REASON),
        ):
            assert other.post(f"{address}/{step}", form).status_code == 403, (name, step)


def test_a_pair_is_brought_whole_by_the_officer_named_and_the_others_compare(
    house: House, olga: Client
) -> None:
    house.key("internal", name="Whole", alias="whole", origin="imported")
    address = opened(olga, "whole", "Olga", "Otto", split="no", first="Otto")
    otto = signed_in_client("otto")
    assert "You are asked to bring the material: Whole" in otto.get("/").content.decode()
    assert "Otto must bring the material next" in olga.get(address).content.decode()
    material = os.urandom(32)
    pem, token = parameters(otto, "whole")
    form = {"algorithm": "RSAES_OAEP_SHA_256", "token": token}
    nothing = otto.post(f"{address}/enter", form)
    assert nothing.status_code == 400
    assert "Give the wrapped material once" in nothing.content.decode()
    bad = base64.b64encode(rsa_aes(pem, material)).decode()
    refused = otto.post(f"{address}/enter", {**form, "blob": bad})
    assert refused.status_code == 400
    assert token not in refused.content.decode()
    blob = base64.b64encode(oaep(pem, material)).decode()
    value = check_value_of_secret(AES, material)
    page = otto.post(f"{address}/enter", {**form, "blob": blob}, follow=True).content.decode()
    assert f"The material is in. Its check value is {value}" in page
    for client in (olga, otto):
        assert client.post(f"{address}/confirm", {"check_value": value}).status_code == 302
    assert olga.post(f"{address}/import", REASON).status_code == 302
    assert Key.objects.get(alias="whole").versions.get().check_value == value
    house.key("internal", name="Pair", alias="pair", spec="ECC_NIST_P256", origin="imported")
    page = olga.get("/keys/pair/import/ceremony").content.decode()
    assert 'name="split"' not in page, "a pair has no components"


def test_the_form_that_opens_a_ceremony_says_what_is_missing(
    house: House, olga: Client, brought: Key
) -> None:
    ids = {row.name: str(row.id) for row in Principal.objects.all()}
    address = "/keys/brought/import/ceremony"
    for form, word in (
        ({}, "required"),
        ({"custodians": [ids["Olga"]], "split": "yes"}, "Choose 2 to 5 officers"),
        ({"custodians": [ids["Olga"], ids["Udo"]], "split": "yes"}, "Select a valid choice"),
        (
            {"custodians": [ids["Olga"], ids["Otto"]], "split": "no", "first": ids["Oona"]},
            "Choose one of the officers who take part",
        ),
    ):
        answer = olga.post(address, {**form, **REASON})
        assert answer.status_code == 400, form
        assert word in answer.content.decode(), word
    assert Ceremony.objects.count() == 0
    opened(olga, "brought", "Olga", "Otto")
    second = olga.post(
        address, {"custodians": [ids["Olga"], ids["Otto"]], "split": "yes", **REASON}
    )
    assert second.status_code == 409
    page = olga.get("/keys/brought/import").content.decode()
    assert "nothing else is taken until it ends" in page


def test_a_ceremony_is_cancelled_with_a_reason_and_leaves_no_component(
    house: House, olga: Client, brought: Key
) -> None:
    address = opened(olga, "brought", "Olga", "Otto")
    olga.post(f"{address}/enter", {"component": os.urandom(32).hex()})
    assert WrappedMaterial.objects.filter(store_id=COMPONENTS).exists()
    assert "Every component that was entered is removed" in (
        olga.get(f"{address}/cancel").content.decode()
    )
    assert olga.post(f"{address}/cancel", {}).status_code == 400
    page = olga.post(f"{address}/cancel", REASON, follow=True).content.decode()
    assert "The ceremony was cancelled" in page
    assert 'name="component"' not in page
    assert not WrappedMaterial.objects.filter(store_id=COMPONENTS).exists()
    for step, form in (
        ("enter", {"component": os.urandom(32).hex()}),
        ("confirm", {"check_value": "0" * 16}),
        ("import", REASON),
        ("cancel", REASON),
    ):
        assert olga.post(f"{address}/{step}", form).status_code == 409, step
    assert "You are asked" not in signed_in_client("otto").get("/").content.decode()
    assert "Cancelled" in olga.get(f"{address}/minutes").content.decode()


def test_an_import_that_a_ceremony_leads_to_waits_for_votes_where_the_policy_asks(
    house: House, olga: Client
) -> None:
    key = house.key("patient-health", name="Brought", alias="brought", origin="imported")
    address = opened(olga, "brought", "Olga", "Otto")
    ceremony = Ceremony.objects.get()
    parts = [os.urandom(32), os.urandom(32)]
    whole = check_value_of_secret(AES, xor(*parts))
    for client, part in ((olga, parts[0]), (signed_in_client("otto"), parts[1])):
        assert client.post(f"{address}/enter", {"component": part.hex()}).status_code == 302
    for caller in (house.olga, house.otto):
        steps.confirm_ceremony(caller, str(ceremony.id), check_value=whole)
    assert "Ask for the import" in olga.get(address).content.decode()
    page = olga.post(f"{address}/import", REASON, follow=True).content.decode()
    assert "Nothing has changed yet" in page
    request = Approval.objects.get(action="import_key")
    oona = signed_in_client("oona")
    seen = oona.get(f"/approvals/{request.id}").content.decode()
    assert whole in seen
    assert "Officers brought it together in a ceremony" in seen
    assert address in seen
    assert "waits for other officers' votes" in olga.get(address).content.decode()
    house.approve(str(request.id), execute=False)
    assert "Back to the ceremony" in olga.get(f"/approvals/{request.id}").content.decode()
    page = olga.get(address).content.decode()
    assert "The officers have agreed" in page
    assert 'name="reason"' not in page
    assert olga.post(f"{address}/import", {}).status_code == 302
    key.refresh_from_db()
    assert key.state == "enabled"
    minutes = olga.get(f"{address}/minutes").content.decode()
    assert "Votes on the import" in minutes
    assert "Oona" in minutes


def test_a_ceremony_that_there_is_none_of_is_no_page(olga: Client) -> None:
    for reference in ("nothing", "00000000-0000-0000-0000-000000000000"):
        for step in ("", "/minutes", "/minutes.txt", "/cancel"):
            assert olga.get(f"/ceremonies/{reference}{step}").status_code == 404, step
        for step in ("enter", "confirm", "import", "cancel"):
            answer = olga.post(f"/ceremonies/{reference}/{step}", REASON)
            assert answer.status_code == 404, step
