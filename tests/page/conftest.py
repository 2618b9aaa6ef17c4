"""One daemon and one browser for all; a fresh page for each test, which must not complain on its console."""

import pytest

from tests.support.browser import (
    DESKTOP,
    TOKEN,
    Console,
    WatchedFleet,
    find_chromium,
    open_browser,
)

WAIT_MS = 60_000
"""A browser without a graphics card on a machine at work: what takes a moment elsewhere may take twenty seconds."""


ONE_WORKER = pytest.mark.xdist_group("page")
"""For every module here: several browsers at once would only wait for each other."""


@pytest.fixture(scope="package")
def browser():
    if find_chromium() is None:
        pytest.skip("chromium is not installed here (Debian: apt-get install chromium)")
    from playwright.sync_api import expect

    expect.set_options(timeout=WAIT_MS)
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="package")
def shared_fleet(browser, tmp_path_factory):
    fleet = WatchedFleet(tmp_path_factory.mktemp("page"))
    with fleet.daemon:
        yield fleet


@pytest.fixture(scope="package")
def window(browser, shared_fleet):
    """Its pages are of one process, which is half of what a page costs: a small one keeps it for the next test."""
    context = browser.new_context(reduced_motion="reduce")
    kept = context.new_page()
    kept.goto(f"{shared_fleet.url}livez")
    yield context
    context.close()


@pytest.fixture
def fleet(shared_fleet):
    """The daemon, put back to its plain config before each test."""
    shared_fleet.restore()
    return shared_fleet


@pytest.fixture
def open_page(window, fleet):
    """Opens the page as `open_page(viewport=…, color_scheme=…)`; `console_may` names complaints that are expected."""
    opened = []

    def open_(*, console_may=(), url=None, viewport=DESKTOP, color_scheme=None):
        page = window.new_page()
        page.set_default_timeout(WAIT_MS)
        page.set_viewport_size(viewport)
        if color_scheme is not None:
            page.emulate_media(color_scheme=color_scheme)
        opened.append((page, Console(page), tuple(console_may)))
        page.goto(url or fleet.url, wait_until="domcontentloaded")
        page.wait_for_selector("html[data-shown]")
        return page

    yield open_
    complaints = [
        complaint
        for _, console, may in opened
        for complaint in console.complaints
        if not any(text in complaint for text in may)
    ]
    for page, _, _ in opened:
        page.evaluate("localStorage.clear()")  # what is of the tab goes with it
        page.close()
    assert complaints == []


@pytest.fixture
def page(open_page):
    """The page on a desk, read-only."""
    return open_page()


@pytest.fixture
def unlocked(open_page):
    """The page on a desk, with the token entered."""
    page = open_page(console_may=["401", "422"])
    unlock(page)
    return page


def unlock(page, token=TOKEN):
    page.get_by_role("button", name="Unlock").click()
    page.get_by_label("Token", exact=True).fill(token)
    page.keyboard.press("Enter")
    page.wait_for_selector("html[data-access=write]")
