"""A store is listed while the page looks, its keys adopted, a difference settled: by hand, in Chromium."""

from __future__ import annotations

from typing import Any

import pytest

from keys import administration, discovery
from keys.models import Key, Listing
from tests.console.test_browser import Visit, address, browser  # noqa: F401  fixtures
from tests.house import House
from tests.keys.remote import Vendor


@pytest.mark.exhaustive
def test_a_store_is_listed_adopted_from_and_compared_by_hand(
    house: House,
    address: str,  # noqa: F811
    browser: Any,  # noqa: F811
    vendor: Vendor,
) -> None:
    for number in range(3):
        vendor.create(f"orders-{number}")
    olga = Visit(browser, address, "olga", viewport={"width": 390, "height": 844})
    olga.go("/key-stores/cloud")
    # What it can do comes by itself, once the page is there.
    olga.page.wait_for_selector("text=the store waits 1 to 30 days")
    olga.page.click("text=List what is in it")
    olga.page.wait_for_selector("progress")
    discovery.run(Listing.objects.get().id)
    olga.page.wait_for_selector("text=Choose all on this page")
    assert olga.page.locator("progress").count() == 0
    olga.page.click("text=Choose all on this page")
    olga.page.click("label:has-text('orders-1')")
    olga.page.click("text=Adopt the chosen keys")
    olga.page.wait_for_selector("h1:has-text('Adopt 2 keys')")
    olga.page.select_option("#id_classification", "cloud")
    olga.page.fill("#id_reason", "the shop moves")
    olga.page.click("button:has-text('Adopt')")
    olga.page.wait_for_selector("h1:has-text('2 keys adopted')")
    assert sorted(key.alias for key in Key.objects.filter(adopted=True)) == ["orders-0", "orders-2"]

    vendor.disable("orders-0")
    administration.check_drift(house.olga, "orders-0")
    olga.go("/keys/orders-0")
    olga.page.click("a:has-text('Accept')")
    dialog = olga.page.locator("dialog[open]")
    assert "The key, enabled here, becomes disabled." in dialog.inner_text()
    dialog.locator("textarea").fill("they are right")
    dialog.locator("button[type=submit]").click()
    olga.page.wait_for_selector("text=The console now says what the store says.")
    assert Key.objects.get(alias="orders-0").state == "disabled"
    for path in ("/key-stores/cloud", "/drift", "/drift?state=accepted", "/keys/orders-0"):
        olga.go(path)
        assert olga.overflow() <= 0, path
    assert olga.complaints == []
    olga.context.close()
