"""The page follows what the daemon does, without being loaded again."""

import re

import pytest

from tests.page.conftest import ONE_WORKER
from tests.support.waiting import until

expect = pytest.importorskip("playwright.sync_api").expect

pytestmark = ONE_WORKER


def workers(page):
    return page.get_by_role("table", name="Workers by node")


def mark(page):
    """Leave something that a load of the page would wipe away."""
    page.evaluate("window.isSame = true")


def is_same(page):
    return page.evaluate("window.isSame === true")


def test_it_shows_what_runs_without_a_complaint(fleet, page):
    status = fleet.daemon.status()
    expect(page.locator("#health")).to_have_text("healthy")
    expect(page.locator("h1")).to_contain_text("central, ship1, ship2")
    expect(page.locator("#facts")).to_contain_text(status["config"]["digest"][7:19])
    expect(page.locator("#facts")).to_contain_text("embedded")
    rows = workers(page).locator("tr.worker")
    expect(rows).to_have_count(sum(len(node["workers"]) for node in status["nodes"].values()))
    row = rows.filter(has_text="central.REQHello.EventNACK").filter(has_text="subscriber")
    expect(row).to_contain_text("running")
    expect(row).to_contain_text(re.compile(r"\d\.\d"))  # two hellos a second
    expect(
        page.get_by_role("img", name=re.compile("Messages per second.*handled now [1-9]"))
    ).to_be_visible()


def test_a_live_reload_shows_without_a_load_of_the_page(fleet, page):
    mark(page)
    expect(workers(page).get_by_text("REQToConsole.EventACK")).to_have_count(0)
    generation = fleet.daemon.status()["generation"]
    fleet.write(ship="REQToConsole: {}")
    for ship in ("ship1", "ship2"):
        row = workers(page).locator("tr.worker", has_text=f"{ship}.REQToConsole.EventACK")
        expect(row).to_contain_text("running")
    expect(page.locator("#facts")).to_contain_text(f"Generation{generation + 1}")
    expect(page.locator("#history .record").first).to_contain_text(
        f"generation {generation + 1}in force"
    )
    fleet.write()
    expect(workers(page).get_by_text("REQToConsole.EventACK")).to_have_count(0)
    assert is_same(page)


def test_a_refused_config_is_shown_with_its_place_and_goes_when_it_is_good_again(fleet, page):
    mark(page)
    broken = fleet.text(ship="REQToConsole: {retires: 3}")
    line = 1 + broken.split("\n").index("      REQToConsole: {retires: 3}")
    fleet.daemon.write_config(broken)
    problem = page.locator("#config .problem")
    expect(problem).to_contain_text(f"{fleet.daemon.config_path}:{line}:22")
    expect(problem.locator(".code").first).to_have_text("E101")
    expect(problem.locator("mark")).to_have_text("retires")
    expect(problem).to_contain_text("hint: ")
    expect(page.locator("#health")).to_have_text("degraded")
    expect(page.locator("#reasons")).to_contain_text("the last config was refused (1 problem)")
    expect(page.locator("#config .note")).to_contain_text("Nothing changed")
    expect(page.locator("#history .record").first).to_contain_text("refused")
    fleet.write()
    expect(page.locator("#health")).to_have_text("healthy")
    expect(problem).to_have_count(0)
    assert is_same(page)


def test_the_plan_is_shown_while_the_files_are_not_what_runs(fleet, page):
    """The set would cancel too many workers, so it waits to be forced."""
    fleet.daemon.write_config(fleet.bare_text())
    plan = page.get_by_role("table", name="What a reload would do")
    expect(
        plan.get_by_role("row", name=re.compile("cancel ship1.REQPing.EventACK_subscriber"))
    ).to_be_visible()
    # the subscribers of two ships, and as many publishers as tests before this one had made on demand
    expect(page.locator("#config")).to_contain_text(re.compile(r"(?<!\d)([89]|\d\d) cancel"))
    expect(page.locator("#config .problem")).to_contain_text("E302")
    expect(page.locator("#facts")).to_contain_text("the files differ")
    fleet.write()
    expect(plan).to_be_hidden()
    expect(page.locator("#facts")).to_contain_text("as the files say")


def test_a_set_without_a_node_that_runs_here_is_refused_by_name(fleet, page):
    fleet.daemon.write_config(re.sub(r"\n  ship1: .*", "", fleet.text()))
    expect(page.locator("#config .problem")).to_contain_text("node 'ship1' is not declared")
    expect(page.locator("#config h3").first).to_have_text("A reload would be refused")


def test_comparing_tells_that_nothing_would_change(page):
    page.get_by_role("button", name="Compare with the files").click()
    expect(page.locator("#config")).to_contain_text("nothing: what runs is what the files say")


def test_events_come_live_and_can_be_held(fleet, page):
    events = page.locator("#events li.event")
    expect(page.locator("#events-sum")).to_contain_text("live")
    fleet.write(ship="REQToConsole: {}")
    expect(
        events.filter(has_text="worker started").filter(has_text="ship1.REQToConsole")
    ).not_to_have_count(0)
    page.get_by_role("button", name="Pause").click()
    before = events.first.inner_text()
    fleet.write()
    expect(workers(page).get_by_text("REQToConsole.EventACK")).to_have_count(0)
    assert events.first.inner_text() == before
    page.get_by_role("button", name="Pause").click()
    expect(
        events.filter(has_text="worker stopped").filter(has_text="ship1.REQToConsole")
    ).not_to_have_count(0)


def test_single_messages_are_events_too_where_they_are_asked_for(page):
    delivered = page.locator("#events li.event", has_text="message delivered")
    expect(delivered).to_have_count(0)
    page.get_by_label("single messages too").check()
    expect(delivered).not_to_have_count(0)


def test_the_fleet_is_shown_with_where_each_node_stands(page):
    fleet = page.locator("#fleet")
    expect(fleet).to_contain_text("3 nodes: 2 in sync, 1 silent")
    expect(fleet.locator("tbody tr")).to_have_count(1)
    expect(fleet.get_by_role("row", name=re.compile("ship3 @ship silent"))).to_be_visible()
    page.get_by_label("those in sync too").check()
    expect(fleet.get_by_role("row", name=re.compile("ship1 @ship in sync"))).to_be_visible()


def test_workers_can_be_filtered_and_folded(page):
    rows = workers(page).locator("tr.worker")
    page.get_by_label("Filter workers").fill("ship1 ping")
    expect(rows).to_have_count(1)
    page.get_by_label("Filter workers").fill("")
    page.get_by_label("not running only").check()
    expect(rows).to_have_count(0)
    expect(page.locator("#workers")).to_contain_text("No worker matches.")
    page.get_by_label("not running only").uncheck()
    page.get_by_role("button", name="ship1", exact=True).click()
    expect(rows.filter(has_text="ship1.REQPing")).to_have_count(0)
    expect(rows.filter(has_text="ship2.REQPing")).to_have_count(1)


def hide(page, hidden=True):
    """As if another tab came to the front, or this one again."""
    page.evaluate(
        "Object.defineProperty(document, 'hidden', {configurable: true, get: () => window.isHidden})"
    )
    page.evaluate(
        "hidden => { window.isHidden = hidden; document.dispatchEvent(new Event('visibilitychange')); }",
        hidden,
    )


def test_an_answer_that_comes_when_nobody_looks_any_more_makes_it_ask_for_nothing(fleet, page):
    expect(page.locator("#events-sum")).to_contain_text("live")
    held = []
    page.route("**/api/v1/status", lambda route: held.append(route))
    until(
        lambda: page.wait_for_timeout(20) or held
    )  # its events come while the browser is waited for
    fleet.write(ship="REQToConsole: {}")  # so that the history has something new
    fleet.daemon.wait_until(lambda status: "REQToConsole" in str(status["nodes"]))
    hide(page)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    with page.expect_response("**/api/v1/status"):
        for route in held:
            route.continue_()
    page.wait_for_timeout(300)  # what an answer makes it ask for it asks for at once
    assert asked == []
    page.unroute("**/api/v1/status")
    hide(page, False)
    expect(workers(page).get_by_text("ship1.REQToConsole.EventACK")).to_be_visible()


def test_it_asks_for_nothing_while_nobody_looks(fleet, page):
    expect(page.locator("#events-sum")).to_contain_text("live")
    hide(page)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    fleet.write(ship="REQToConsole: {}")
    fleet.daemon.wait_until(lambda status: "REQToConsole" in str(status["nodes"]))
    page.wait_for_timeout(2500)  # longer than between two looks
    assert asked == []
    hide(page, False)
    expect(workers(page).get_by_text("ship1.REQToConsole.EventACK")).to_be_visible()
    expect(page.locator("#events-sum")).to_contain_text("live")


def test_a_daemon_that_is_gone_is_told_and_found_again(fleet, open_page):
    page = open_page(console_may=["net::ERR_"])
    mark(page)
    pid = str(fleet.daemon.status()["pid"])
    expect(page.locator("#facts")).to_contain_text(f"pid {pid}")
    fleet.daemon.stop()
    expect(page.locator("#health")).to_have_text("no answer")
    expect(page.locator("#contact")).to_contain_text(
        re.compile(r"since \d\d:\d\d:\d\d \(.*\): this is what was known then")
    )
    expect(page).to_have_title(re.compile(r"^\? "))
    expect(workers(page).locator("tr.worker").first).to_be_visible()
    fleet.daemon.start()
    expect(page.locator("#health")).to_have_text("healthy")
    expect(page.locator("#contact")).to_have_text("")
    expect(page.locator("#facts")).to_contain_text(f"pid {fleet.daemon.status()['pid']}")
    expect(page.locator("#events-sum")).to_contain_text("live")
    expect(page.locator("#events li.event").first).to_contain_text("daemon ready")
    assert is_same(page)
