"""The documentation in a real browser, under the console's own content security policy."""

from __future__ import annotations

import shutil

import pytest

from tests.api.test_processes import serving
from tests.house import House
from tests.parts import missing


@pytest.fixture
def chromium() -> str:
    return shutil.which("chromium") or missing("Chromium", "the Debian package chromium")


@pytest.mark.own_door
def test_the_docs_render_without_a_violation_of_the_policy(house: House, chromium: str) -> None:
    from playwright.sync_api import sync_playwright

    with serving(house) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            page = browser.new_page()
            told: list[str] = []
            page.on("console", lambda message: told.append(f"{message.type}: {message.text}"))
            page.on("pageerror", lambda error: told.append(f"error: {error}"))
            page.goto(f"http://127.0.0.1:{server.port}/api/v1/docs")
            page.click("#operations-tag-use", timeout=60_000)
            page.wait_for_selector("#operations-use-encrypt", timeout=60_000)
            assert page.inner_text("h1, h2.title").startswith("KMS Console API")
            page.click("#operations-use-encrypt .opblock-summary-control")
            page.wait_for_selector("#operations-use-encrypt .opblock-body", timeout=60_000)
            assert "plaintext" in page.inner_text("#operations-use-encrypt .opblock-body")
            page.screenshot(path=str(house.folder / "docs.png"))
            assert [line for line in told if line.startswith(("error", "warning"))] == []
        finally:
            browser.close()
