"""The page for everybody: what axe-core finds, by keyboard, on a phone, in both themes."""

import json
from importlib import resources

import pytest

from tests.page.conftest import ONE_WORKER, unlock
from tests.support.browser import DESKTOP, PHONE

expect = pytest.importorskip("playwright.sync_api").expect
pytestmark = ONE_WORKER

TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def findings(page):
    """What axe-core finds, as `impact rule: elements`."""
    source = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
    page.evaluate(source)
    found = page.evaluate(
        "tags => axe.run(document, {runOnly: tags, resultTypes: ['violations']})", TAGS
    )
    return [
        f"{item['impact']} {item['id']}: {json.dumps([node['html'][:120] for node in item['nodes']])}"
        for item in found["violations"]
    ]


def open_everything(page):
    """Unfold whatever can be unfolded."""
    for name in ("#history .record-head", "#history .record-head >> nth=1"):
        page.locator(name).first.click()
    for summary in page.locator("summary").all():
        summary.click()
    page.get_by_label("those in sync too").check()


def find_everywhere(page):
    """The findings in both themes, on a desk and on a phone."""
    found = {}
    for viewport in (DESKTOP, PHONE):
        page.set_viewport_size(viewport)
        for scheme in ("dark", "light"):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            found[viewport["width"], scheme] = findings(page)
    page.set_viewport_size(DESKTOP)
    return {place: some for place, some in found.items() if some}


def test_axe_finds_nothing_at_rest_and_would_find_something(page):
    assert findings(page) == []
    page.evaluate("document.querySelector('#health').style.color = '#7aa88c'")
    assert [found.split(":")[0] for found in findings(page)] == ["serious color-contrast"]


def test_axe_finds_nothing_in_trouble_in_light_and_dark_on_a_desk_and_a_phone(fleet, open_page):
    page = open_page()
    unlock(page)
    page.get_by_label("To", exact=True).fill("ship1 ghost")
    page.get_by_label("Method", exact=True).select_option("Moan")
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.locator(".target")).to_contain_text(["exit 3", "not accepted"])
    fleet.daemon.send(
        {"to_nodes": ["ghost"], "method": "REQPing", "from_node": "central", "expires": "200ms"}
    )
    fleet.write(ship="REQToConsole: {}")
    expect(page.locator("#workers").get_by_text("ship1.REQToConsole.EventACK")).to_be_visible()
    fleet.write(ship="REQToConsole: {retires: 3}")
    expect(page.locator("#config .problem")).to_be_visible()
    expect(page.get_by_role("table", name="Dead letters")).to_be_visible()
    # a record that came while they are opened would move them
    expect(page.locator("#history .record-head").first).to_contain_text("refused")
    open_everything(page)
    expect(page.locator("#history .diff").first).to_be_visible()
    assert find_everywhere(page) == {}
    page.get_by_role("button", name="Drop all").click()
    assert findings(page) == []


def test_the_choice_of_a_theme_goes_over_the_systems_and_stays(open_page):
    page = open_page(color_scheme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    button = page.get_by_role("button", name="Theme: auto")
    button.click()
    page.get_by_role("button", name="Theme: light").click()
    expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()
    dark = page.evaluate(ground)
    assert dark != light
    page.reload()
    assert page.evaluate(ground) == dark
    page.get_by_role("button", name="Theme: dark").click()
    assert page.evaluate(ground) == light


def test_everything_is_reached_by_keyboard(open_page):
    page = open_page(console_may=["401"])
    focused = page.locator(":focus")
    page.keyboard.press("Tab")
    expect(focused).to_have_text("Skip to the content")
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.keyboard.press("Tab")
    expect(focused).to_have_text("Compare with the files")
    page.keyboard.press("Enter")
    expect(page.locator("#config")).to_contain_text("nothing: what runs is what the files say")
    expect(focused).to_have_text("Compare with the files")  # it is not taken away
    page.get_by_role("button", name="Unlock").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Token", exact=True)).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Unlock")).to_be_focused()
    page.get_by_role("button", name="ship1", exact=True).focus()
    page.keyboard.press("Space")
    expect(page.get_by_role("button", name="ship1", exact=True)).to_have_attribute(
        "aria-expanded", "false"
    )


def test_changes_are_said_to_screen_readers(fleet, page):
    said = page.locator("#said")
    fleet.write(ship="REQToConsole: {retires: 3}")
    expect(said).to_contain_text("The appliance is degraded. the last config was refused")
    fleet.write()
    expect(said).to_contain_text("The appliance is healthy.")
