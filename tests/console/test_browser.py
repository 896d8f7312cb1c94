"""Chromium's own view: the strict policy holds, and a rotation goes its whole way by hand."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import pytest
from django.core.wsgi import get_wsgi_application
from django.db import connections

from keys import administration
from keys.models import Approval
from tests.console.furniture import FOR_EVERYBODY, furnish
from tests.house import House, password
from tests.parts import missing

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--disable-quic", "--disable-gpu",
]  # fmt: skip


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = False
    block_on_close = True


class Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:
            pass  # a browser may go away in the middle
        finally:
            connections.close_all()


@pytest.fixture
def address(house: House) -> Iterator[str]:
    """The console on a port of its own, in this process, on this test's databases."""
    server = Server(("127.0.0.1", 0), Quiet)
    server.set_app(get_wsgi_application())
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Visit:
    """One person's window. What the browser complains about is kept."""

    def __init__(self, browser: Any, address: str, username: str, **options: Any) -> None:
        self.address = address
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.complaints: list[str] = []
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.go("/sign-in")
        self.page.fill("[name=username]", username)
        self.page.fill("[name=password]", password(username))
        self.page.click("main button[type=submit]")
        self.page.wait_for_selector("h1:has-text('Overview')")

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.text} at {self.page.url}")

    def go(self, path: str) -> None:
        self.page.goto(self.address + path)

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than its window."""
        wide: int = self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        return wide


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not Path(CHROMIUM).exists():
        missing("Chromium", "chromium (Debian's package)")
    from playwright.sync_api import sync_playwright

    # Playwright runs an event loop in this thread; the tests' own queries are no danger to it.
    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


def test_no_page_breaks_the_policy_or_is_wider_than_a_phone(
    house: House, address: str, browser: Any
) -> None:
    furnished = furnish(house)
    for username, scheme in (("olga", "light"), ("ada", "dark")):
        visit = Visit(
            browser, address, username, viewport={"width": 390, "height": 844}, color_scheme=scheme
        )
        pages = set(furnished.addresses) if username == "olga" else set(FOR_EVERYBODY)
        for name in sorted(pages):
            visit.go(furnished.addresses[name])
            assert visit.overflow() <= 0, name
        # Forms that the role may not see are 403, which Chromium mentions.
        assert [c for c in visit.complaints if "403 (Forbidden)" not in c] == []
        visit.context.close()


def test_a_rotation_goes_from_the_wish_to_the_new_version_by_hand(
    house: House, address: str, browser: Any
) -> None:
    key = house.key("patient-health", name="Records", alias="records")
    olga = Visit(browser, address, "olga")
    olga.go("/keys")
    olga.page.keyboard.press("/")
    olga.page.keyboard.type("recor")
    olga.page.wait_for_url("**/keys?text=recor*")
    olga.page.click("text=Records")
    olga.page.click("text=Rotate now")
    dialog = olga.page.locator("dialog[open]")
    dialog.locator("textarea").fill("the yearly rotation")
    dialog.locator("button[type=submit]").click()
    olga.page.wait_for_url("**/approvals/*")
    assert "Nothing has changed yet" in olga.page.inner_text("main")
    request = Approval.objects.get()

    for name, said in (("otto", "Your vote is recorded"), ("oona", "the request is approved")):
        officer = Visit(browser, address, name)
        officer.page.click("nav >> text=Approvals")
        officer.page.click("text=Rotate a key: records")
        assert "the yearly rotation" in officer.page.inner_text("main")
        officer.page.click("button:has-text('Approve')")
        officer.page.wait_for_selector(f"text={said}")
        assert officer.complaints == []
        officer.context.close()

    administration.execute(str(request.id))
    olga.go("/keys/records")
    assert "Version 2" in olga.page.inner_text("main")
    key.refresh_from_db()
    assert key.versions.get(primary=True).number == 2
    assert olga.complaints == []
    olga.context.close()


def test_everything_can_be_done_without_script(house: House, address: str, browser: Any) -> None:
    visit = Visit(browser, address, "olga", java_script_enabled=False)
    visit.go("/keys?text=invoices")
    visit.page.click("text=Invoices")
    visit.page.click("text=Rotate now")
    visit.page.fill("textarea[name=reason]", "by hand, without script")
    visit.page.click("main button[type=submit]")
    assert "The key is rotated" in visit.page.inner_text("main")
    assert house.invoices.versions.get(primary=True).number == 2
    visit.context.close()


def test_the_keyboard_reaches_the_content_first_and_closes_a_dialog(
    house: House, address: str, browser: Any
) -> None:
    visit = Visit(browser, address, "olga")
    visit.go("/keys/invoices")
    visit.page.keyboard.press("Tab")
    assert visit.page.evaluate("document.activeElement.textContent") == "Skip to the content"
    visit.page.keyboard.press("Enter")
    assert visit.page.evaluate("document.activeElement.id") == "content"
    visit.page.click("text=Disable")
    visit.page.wait_for_selector("dialog[open] textarea")
    assert visit.page.evaluate("document.activeElement.name") == "reason"
    visit.page.keyboard.press("Escape")
    visit.page.wait_for_selector("dialog[open]", state="detached")
    assert visit.complaints == []
    visit.context.close()


def test_the_menu_opens_on_a_phone(house: House, address: str, browser: Any) -> None:
    visit = Visit(browser, address, "udo", viewport={"width": 390, "height": 844})
    assert not visit.page.locator("nav a[href='/key-stores']").is_visible()
    visit.page.click(".menu-button")
    visit.page.click("nav a[href='/key-stores']")
    visit.page.wait_for_selector("h1:has-text('Key stores')")
    assert visit.complaints == []
    visit.context.close()
