"""In Chromium: a whole split ceremony by two officers, and an import from parameters to the key."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization

from keys.algorithms import SPECS
from keys.backends.materials import check_value_of_secret
from keys.models import Approval, Key
from tests.console.bringing import rsa_aes
from tests.console.test_browser import Visit, address, browser  # noqa: F401  fixtures
from tests.console.test_ceremony import grouped, xor
from tests.house import House

PHONE = {"width": 390, "height": 844}
AES = SPECS["AES_256"]


def test_two_officers_hold_a_ceremony_and_three_agree_to_its_import(
    house: House,
    address: str,  # noqa: F811
    browser: Any,  # noqa: F811
) -> None:
    key = house.key("patient-health", name="Vault", alias="vault", origin="imported")
    parts = [os.urandom(32), os.urandom(32)]
    olga = Visit(browser, address, "olga")
    otto = Visit(browser, address, "otto", viewport=PHONE)
    olga.go("/keys/vault")
    olga.page.click("a.button:has-text('Import the material')")
    olga.page.click("a.button:has-text('Open a ceremony')")
    for name in ("Olga", "Otto"):
        olga.page.get_by_label(name, exact=True).check()
    olga.page.fill("[name=place]", "The small meeting room")
    olga.page.fill("[name=reason]", "our own key, from two envelopes")
    olga.page.click("main button[type=submit]")
    olga.page.wait_for_selector("h2:has-text('Enter your component')")
    ceremony = olga.page.url.removeprefix(address)

    # Each is told on the first page, and enters what stands in the own envelope.
    otto.go("/")
    assert otto.overflow() <= 0
    otto.page.click("li:has-text('You are asked to enter a component') >> a")
    for visit, part in ((olga, parts[0]), (otto, parts[1])):
        field = visit.page.locator("[name=component]")
        assert field.get_attribute("type") == "password"
        assert field.get_attribute("autocomplete") == "off"
        field.fill(grouped(part))
        visit.page.fill("[name=check_value]", check_value_of_secret(AES, part))
        visit.page.click("button:has-text('Enter it')")
        visit.page.wait_for_selector("text=Its check value is")
        assert visit.overflow() <= 0
    whole = check_value_of_secret(AES, xor(*parts))

    # Olga's page has looked again by itself, and asks for the next step.
    olga.page.wait_for_selector("h2:has-text('Compare the check value')")
    for visit in (olga, otto):
        assert visit.page.inner_text(".check-value") == whole
        visit.page.fill("[name=check_value]", whole)
        visit.page.click("button:has-text('It is the same')")
        visit.page.wait_for_selector("text=You have confirmed the check value")

    olga.go(ceremony)
    olga.page.fill("[name=reason]", "all compared it")
    olga.page.click("button:has-text('Ask for the import')")
    olga.page.wait_for_url("**/approvals/*")
    request = Approval.objects.get()
    oona = Visit(browser, address, "oona")
    for visit, said in ((otto, "Your vote is recorded"), (oona, "the request is approved")):
        visit.go(f"/approvals/{request.id}")
        assert whole in visit.page.inner_text("main")
        visit.page.click("button:has-text('Approve')")
        visit.page.wait_for_selector(f"text={said}")
        assert visit.overflow() <= 0
    olga.go(ceremony)
    olga.page.click("main form button:has-text('Import')")
    olga.page.wait_for_selector("text=print its minutes")
    olga.page.click("a.button:has-text('Minutes')")
    minutes = olga.page.inner_text("main")
    for word in ("The small meeting room", "Olga", "Otto", "Oona", whole, "Leaf hash"):
        assert word in minutes, word
    with olga.page.expect_download() as download:
        olga.page.click("a.button:has-text('Download as text')")
    text = Path(download.value.path()).read_text()
    key.refresh_from_db()
    assert key.state == "enabled"
    assert key.versions.get().check_value == whole
    told = text + minutes + str(house.entries())
    for data in (*parts, xor(*parts)):
        assert data.hex() not in told.lower().replace(" ", "")
    for visit in (olga, otto, oona):
        assert visit.complaints == []
        visit.context.close()


def test_material_goes_from_the_parameters_page_into_the_key_by_hand(
    house: House,
    address: str,  # noqa: F811
    browser: Any,  # noqa: F811
    tmp_path: Path,
) -> None:
    house.key("internal", name="Brought", alias="brought", origin="imported")
    olga = Visit(browser, address, "olga", viewport=PHONE)
    olga.go("/keys/brought/import")
    olga.page.click("a.button:has-text('Get import parameters')")
    olga.page.click("button:has-text('Make them')")
    token = olga.page.inner_text("#token")
    assert olga.overflow() <= 0
    with olga.page.expect_download() as download:
        olga.page.click("text=Download wrapping-key.pem")
    pem = Path(download.value.path()).read_text()
    assert serialization.load_pem_public_key(pem.encode()).key_size == 4096  # type: ignore[union-attr]
    assert pem.strip() == olga.page.inner_text("#wrapping-key").strip()
    wrapped = tmp_path / "wrapped.bin"
    wrapped.write_bytes(rsa_aes(pem, os.urandom(32)))
    olga.page.click("text=I have both: upload it")
    olga.page.set_input_files("[name=file]", wrapped)
    olga.page.fill("[name=token]", token)
    olga.page.fill("[name=reason]", "moved from the old place")
    olga.page.click("main button[type=submit]")
    olga.page.wait_for_selector("text=the key is enabled")
    assert Key.objects.get(alias="brought").state == "enabled"
    assert token not in olga.page.content()
    assert olga.complaints == []
    olga.context.close()


def test_a_key_is_chosen_and_brought_without_script(
    house: House,
    address: str,  # noqa: F811
    browser: Any,  # noqa: F811
) -> None:
    visit = Visit(browser, address, "olga", java_script_enabled=False)
    visit.go("/keys")
    visit.page.click("text=Create a key")
    visit.page.click(".cards-choice >> text=Internal")
    visit.page.click("tr:has-text('ML-KEM-768') >> text=Encapsulate a shared secret")
    visit.page.fill("[name=name]", "Post-quantum mail")
    visit.page.fill("[name=publish_days]", "14")
    visit.page.click("main button[type=submit]")
    assert "The key is created" in visit.page.inner_text("main")
    assert "14 days before a rotation" in visit.page.inner_text("main")
    key = Key.objects.get(alias="post-quantum-mail")
    assert (key.spec, key.usage) == ("ML_KEM_768", "KEY_ENCAPSULATION")
    visit.context.close()
