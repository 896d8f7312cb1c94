"""The auditor's day in Chromium: a filter kept, a proof looked at, an export taken out in pieces."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from audit.models import Entry, SavedFilter
from keys import operations
from kms_console.web import audit_exports
from tests.console.test_browser import Visit, address, browser  # noqa: F401
from tests.house import House


def test_an_auditor_keeps_a_filter_and_takes_the_entries_out(
    house: House,
    address: str,  # noqa: F811
    browser: Any,  # noqa: F811
    tmp_path: Path,
    monkeypatch: Any,
) -> None:
    for _ in range(20):
        operations.encrypt(house.billing, "invoices", b"hello")
    monkeypatch.setattr(audit_exports, "PIECE", 2000)
    udo = Visit(browser, address, "udo", accept_downloads=True)
    udo.go("/audit")
    udo.page.select_option("[name=action]", "encrypt")
    udo.page.click("button:has-text('Filter')")
    udo.page.click("nav[aria-label=Time] >> text=7 days")
    udo.page.click("text=Save this filter")
    dialog = udo.page.locator("dialog[open]")
    dialog.locator("[name=name]").fill("Encryption this week")
    dialog.locator("button[type=submit]").click()
    udo.page.wait_for_selector("a.chip[aria-current]")
    assert SavedFilter.objects.get().query == {"action": "encrypt", "range": "7d"}

    # The connection breaks once, in the middle.
    broken: list[str] = []

    def break_once(route: Any) -> None:
        if "bytes=0-" in route.request.headers.get("range", "") or broken:
            route.continue_()
        else:
            broken.append(route.request.url)
            route.abort("connectionreset")

    udo.page.route("**/content", break_once)
    udo.page.click("text=Export this")
    udo.page.check("#format-jsonl")
    udo.page.click("button:has-text('Make the export')")
    with udo.page.expect_download() as download:
        udo.page.click("[data-start]")
    path = tmp_path / "taken"
    download.value.save_as(path)
    bodies = [bytes(e.body) for e in Entry.objects.filter(action="encrypt").order_by("index")]
    assert path.read_bytes().splitlines() == bodies
    assert broken and os.path.getsize(path) > 3 * 2000
    udo.page.wait_for_selector("text=Complete")
    assert udo.page.evaluate("document.querySelector('#export-bar').value") == 1
    assert [c for c in udo.complaints if "ERR_CONNECTION_RESET" not in c] == []
    udo.context.close()


@pytest.mark.exhaustive
def test_the_proof_and_the_trails_pages_fit_a_phone_and_keep_the_policy(
    house: House,
    address: str,  # noqa: F811
    browser: Any,  # noqa: F811
) -> None:
    for _ in range(70):
        operations.encrypt(house.billing, "invoices", b"hello")
    udo = Visit(
        browser, address, "udo", viewport={"width": 390, "height": 844}, color_scheme="dark"
    )
    for path in ("/audit", "/audit/40", "/audit/export", "/audit/filters", "/proofs"):
        udo.go(path)
        assert udo.overflow() <= 0, path
    udo.go("/audit/40")
    assert udo.page.locator("svg.tree g.leaf").count() == 1
    # Small print on a phone is still eleven pixels high or so.
    text = udo.page.locator("svg.tree .covers").first.bounding_box()
    assert text["height"] >= 10
    udo.page.click("text=The same in words")
    assert "it gives the hash of" in udo.page.inner_text("#inclusion")
    assert udo.complaints == []
    udo.context.close()


@pytest.mark.exhaustive
def test_an_export_needs_no_script(
    house: House,
    address: str,  # noqa: F811
    browser: Any,  # noqa: F811
    tmp_path: Path,
) -> None:
    udo = Visit(browser, address, "udo", java_script_enabled=False, accept_downloads=True)
    udo.go("/audit/export")
    udo.page.check("#format-csv")
    udo.page.click("button:has-text('Make the export')")
    assert not udo.page.locator("[data-start]").is_visible()
    with udo.page.expect_download() as download:
        udo.page.click("text=plain download")
    download.value.save_as(tmp_path / "taken.csv")
    assert (tmp_path / "taken.csv").read_bytes().startswith(b"index,time,")
    udo.context.close()
