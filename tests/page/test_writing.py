"""What changes something is done from the page with the token, and not without."""

import re

import pytest

from tests.page.conftest import ONE_WORKER, unlock
from tests.support.waiting import until

expect = pytest.importorskip("playwright.sync_api").expect
pytestmark = ONE_WORKER

WRITING = ["Reload", "Send"]


def make_dead_letter(fleet):
    """A message to a node that does not exist, and that waits for it no more than half a second."""
    fleet.daemon.send(
        {"to_nodes": ["ghost"], "method": "REQPing", "from_node": "central", "expires": "500ms"}
    )
    fleet.daemon.wait_until(lambda status: status["outbox"]["dead"] == 1)


def send(page, to, method, *, data=None, argument=None):
    page.get_by_label("To", exact=True).fill(to)
    page.get_by_label("Method", exact=True).select_option(method)
    if argument is not None:
        page.locator("#send-arguments-box").get_by_role("textbox").fill(argument)
    if data is not None:
        page.get_by_label("Data").fill(data)
    page.get_by_role("button", name="Send", exact=True).click()
    return page.locator(".sending").first


def test_without_the_token_it_reads_only(fleet, open_page):
    page = open_page(console_may=["401"])
    make_dead_letter(fleet)
    for name in [*WRITING, "Retry all", "Drop all", "Retry REQPing to ghost"]:
        button = page.get_by_role("button", name=name, exact=True)
        expect(button).to_be_disabled()
        expect(button).to_have_attribute("title", re.compile("unlock with the token"))
    for path in ("reload", "rollback", "outbox/drop", "messages"):
        code = page.evaluate(
            """path => fetch(`api/v1/${path}`, {method: "POST", body: "{}",
                 headers: {"Content-Type": "application/json"}}).then(answer => answer.status)""",
            path,
        )
        assert code == 401
    assert fleet.daemon.status()["outbox"]["dead"] == 1


def test_only_the_token_unlocks_and_it_goes_with_the_tab(open_page):
    page = open_page(console_may=["401"])
    page.get_by_role("button", name="Unlock").click()
    field = page.get_by_label("Token", exact=True)
    expect(field).to_be_focused()
    for wrong in ("open sesame", "ключ", "a\tb"):
        field.fill(wrong)
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_contain_text("This is not the token.")
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Reload")).to_be_disabled()
    unlock(page)
    for name in WRITING:
        expect(page.get_by_role("button", name=name, exact=True)).to_be_enabled()
    page.reload()
    expect(page.get_by_role("button", name="Reload")).to_be_enabled()
    assert page.evaluate("localStorage.length") == 0
    page.get_by_role("button", name="Lock", exact=True).click()
    expect(page.get_by_role("button", name="Reload")).to_be_disabled()
    page.reload()
    expect(page.get_by_role("button", name="Reload")).to_be_disabled()


def test_a_message_is_sent_and_its_answers_are_shown_per_node(unlocked):
    sent = send(unlocked, "ship1, ship2", "Echo", argument="good <i>morning</i>")
    for ship in ("ship1", "ship2"):
        target = sent.locator(".target", has_text=ship)
        expect(target.locator(".pill")).to_have_text("answered")
        expect(target.locator("pre")).to_have_text("good <i>morning</i>\n")
    expect(sent).to_contain_text("2 delivered")
    expect(unlocked.locator("i")).to_have_count(0)


def test_a_command_that_fails_says_with_what_status_and_what_it_complained_of(unlocked):
    target = send(unlocked, "ship2", "Moan").locator(".target")
    expect(target.locator(".pill")).to_have_text("exit 3")
    expect(target.locator("pre")).to_have_text("moan\n")


def test_what_is_not_taken_is_told_beside_the_button_and_keeps_what_was_written(unlocked):
    unlocked.get_by_role("button", name="Send", exact=True).click()
    expect(unlocked.locator("#send")).to_contain_text("Say which node it goes to.")
    unlocked.get_by_label("From", exact=True).select_option("ship1")
    target = send(unlocked, "ship2", "Echo", argument="word").locator(".target")
    expect(target.locator(".pill")).to_have_text("refused")  # ship1 is none that may ask
    expect(unlocked.get_by_label("To", exact=True)).to_have_value("ship2")


def test_where_no_answer_could_come_back_it_says_what_to_do(unlocked):
    target = send(unlocked, "ghost", "REQPing").locator(".target")
    expect(target).to_contain_text("not accepted")
    expect(target).to_contain_text("or let the answer be filed, see the options")
    unlocked.locator("summary", has_text="Options").click()
    unlocked.get_by_label("show the answer here only").uncheck()
    unlocked.get_by_label("File name").fill("pings")
    unlocked.get_by_role("button", name="Send", exact=True).click()
    expect(unlocked.locator(".target").first).to_contain_text("nobody there")


def test_one_that_nobody_answers_for_waits_and_need_not_be_watched(fleet, unlocked):
    sent = send(unlocked, "ghost", "REQToConsole", data="hello?")
    expect(sent.locator(".target .pill")).to_have_text("waiting")
    expect(sent.locator(".target")).to_contain_text("nobody there")
    sent.get_by_role("button", name="Stop watching").click()
    expect(sent).to_contain_text("no longer watched")
    unlocked.locator("summary", has_text="Waiting (1)").click()
    row = unlocked.get_by_role("table", name="Waiting messages").get_by_role(
        "row", name=re.compile("ghost")
    )
    expect(row).to_contain_text("REQToConsole")
    expect(row.locator(".pill")).to_have_text("waiting")
    ids = [
        record["id_text"] for record in fleet.daemon.request("GET", "/api/v1/outbox")[1]["records"]
    ]
    fleet.daemon.request("POST", "/api/v1/outbox/drop", {"ids": ids, "pending": True})
    expect(row).to_have_count(0)


def test_a_dead_letter_is_tried_again_and_dropped(fleet, unlocked):
    make_dead_letter(fleet)
    letters = unlocked.get_by_role("table", name="Dead letters")
    expect(letters.locator(".pill")).to_have_text("expired")
    expect(unlocked.locator("#dead-count")).to_have_text(" 1 dead")
    unlocked.get_by_role("button", name="Retry REQPing to ghost").click()
    expect(unlocked.locator(".toast")).to_contain_text(
        "1 dead letter put back into the outbox: what had failed runs again, what was done is not done twice"
    )
    expect(letters.get_by_role("cell", name=re.compile("ago"))).to_have_text(
        re.compile("^[0-9]+ s ago")
    )
    fleet.daemon.wait_until(lambda status: status["outbox"]["dead"] == 1)
    unlocked.get_by_role("button", name="Drop REQPing to ghost").click()
    dialog = unlocked.get_by_role("dialog", name="Drop this dead letter?")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    unlocked.keyboard.press("Escape")
    assert fleet.daemon.status()["outbox"]["dead"] == 1
    unlocked.get_by_role("button", name="Drop REQPing to ghost").click()
    dialog.get_by_role("button", name="Drop", exact=True).click()
    expect(unlocked.locator(".toast").last).to_contain_text("1 dead letter dropped")
    expect(unlocked.locator("#outbox")).to_contain_text("No dead letters.")
    assert fleet.daemon.status()["outbox"]["dead"] == 0


def letter(number):
    return {
        "id": number, "id_text": str(number), "from": "central", "to": f"boat{number}", "method": "REQPing",
        "state": "expired", "why": "nobody there takes it", "attempts": 1, "died_at": "2026-01-01T00:00:00Z",
    }  # fmt: skip


def change_letters(page, *numbers):
    """These are the dead letters, as far as the page hears."""
    page.route(
        "**/api/v1/outbox?state=dead*",
        lambda route: route.fulfill(json={"records": [letter(number) for number in numbers]}),
    )


def test_dead_letter_in_the_place_of_another_is_shown_though_there_are_no_more_than_before(
    fleet, unlocked
):
    change_status(unlocked, fleet, outbox=fleet.daemon.status()["outbox"] | {"dead": 1})
    change_letters(unlocked, 1)
    rows = unlocked.get_by_role("table", name="Dead letters").locator("tbody tr")
    expect(rows).to_contain_text("boat1")
    change_letters(unlocked, 2)
    expect(rows).to_contain_text("boat2")
    expect(rows).to_have_count(1)


def test_list_that_was_asked_for_before_something_changed_is_asked_for_once_more(fleet, unlocked):
    change_status(unlocked, fleet, outbox=fleet.daemon.status()["outbox"] | {"dead": 1})
    change_letters(unlocked, 1)
    rows = unlocked.get_by_role("table", name="Dead letters").locator("tbody tr")
    expect(rows).to_contain_text("boat1")
    held = []
    unlocked.route("**/api/v1/outbox?state=dead*", lambda route: held.append(route))
    until(lambda: unlocked.wait_for_timeout(20) or held)
    change_letters(unlocked)
    change_status(unlocked, fleet, outbox=fleet.daemon.status()["outbox"] | {"dead": 0})
    expect(unlocked.locator("#outbox-sum")).to_contain_text("0 dead")
    for route in held:
        route.fulfill(json={"records": [letter(1)]})
    expect(unlocked.locator("#outbox")).to_contain_text("No dead letters.")
    expect(rows).to_have_count(0)


ORPHAN = {
    "id": 7, "id_text": "7", "from": "shore<b>", "node": "boat", "method": "REQCliCommand", "age_seconds": 7300,
    "taken_at": "2026-01-01T00:00:00Z", "state": "orphaned", "why": "no worker takes REQCliCommand on boat",
}  # fmt: skip
WORKING = ORPHAN | {"id": 8, "id_text": "8", "from": "hub", "state": "working", "why": ""}


def change_status(page, fleet, **changes):
    """The page sees the daemon's status with these sections instead."""
    status = fleet.daemon.status() | changes
    page.route("**/api/v1/status", lambda route: route.fulfill(json=status))


def test_what_no_worker_takes_is_named_and_dropped_and_what_a_worker_has_is_not(fleet, unlocked):
    change_status(unlocked, fleet, inbox={"unfinished": 2, "orphaned": 1})
    unlocked.route(
        "**/api/v1/inbox?*", lambda route: route.fulfill(json={"records": [ORPHAN, WORKING]})
    )
    asked = []

    def drop(route):
        asked.append(route.request.post_data_json)
        route.fulfill(json={"count": 1, "held": 0})

    unlocked.route("**/api/v1/inbox/drop", drop)
    expect(
        unlocked.locator("summary", has_text="not finished (2, 1 without a worker)")
    ).to_be_visible()
    rows = unlocked.get_by_role("table", name="Messages taken in").locator("tbody tr")
    expect(rows.first).to_contain_text("orphaned no worker takes REQCliCommand on boat")
    expect(rows.first).to_contain_text("from shore<b>")
    expect(rows.nth(1).locator(".pill")).to_have_text("working")
    expect(rows.nth(1).get_by_role("button")).to_have_count(0)
    rows.first.get_by_role("button", name="Drop REQCliCommand from shore<b>").click()
    unlocked.get_by_role("dialog").get_by_role("button", name="Drop", exact=True).click()
    expect(unlocked.locator(".toast")).to_contain_text("1 message dropped")
    unlocked.get_by_role("button", name="Drop all without a worker").click()
    unlocked.get_by_role("dialog").get_by_role("button", name="Drop", exact=True).click()
    expect(unlocked.locator(".toast").nth(1)).to_contain_text("1 message dropped")
    assert asked == [{"ids": ["7"]}, {"all": True}]


def test_the_store_in_trouble_and_what_waits_by_why_are_seen_at_a_glance(fleet, page):
    change_status(
        page,
        fleet,
        healthy=False,
        degraded_by=["the store cannot be written: Read-only file system"],
        store={"state": "read_only", "text": "Read-only file system"},
        waiting={"nobody there": 7, "silent": 2, "busy": 0},
    )
    expect(page.locator("#reasons")).to_contain_text(
        "the store cannot be written: Read-only file system"
    )
    fact = page.locator(".fact", has_text="Outbox")
    expect(fact).to_contain_text("store read only")
    expect(fact).to_have_attribute("data-tone", "bad")
    page.locator("#outbox summary", has_text="Waiting").click()
    expect(page.locator("#outbox")).to_contain_text("7 nobody there · 2 silent")


def test_the_history_shows_what_changed_and_rolls_back_to_it(fleet, unlocked):
    before = fleet.daemon.status()["config"]["digest"]
    fleet.write(ship="REQToConsole: {}")
    records = unlocked.locator("#history .record")
    expect(records.first.get_by_text("in force")).to_be_visible()
    expect(records.first).to_contain_text("2 spawn")
    records.first.get_by_role("button").first.click()
    diff = records.first.locator(".diff")
    expect(diff.locator(".diff-in")).to_have_text("+      REQToConsole: {}\n")
    expect(
        records.first.get_by_role("row", name="spawn ship1.REQToConsole.EventACK_subscriber")
    ).to_be_visible()
    older = unlocked.locator("#history .record", has_text=before[7:19]).first
    older.get_by_role("button").first.click()
    older.get_by_role("button", name="Roll back to this").click()
    unlocked.get_by_role("dialog").get_by_role("button", name="Roll back").click()
    expect(unlocked.locator(".toast")).to_contain_text("Rollback: applied")
    expect(unlocked.locator("#config .note")).to_contain_text(
        "an older set is pinned until the files change"
    )
    expect(
        unlocked.get_by_role("table", name="Workers by node").get_by_text(
            "ship1.REQToConsole.EventACK", exact=True
        )
    ).to_have_count(0)
    assert fleet.daemon.status()["config"]["digest"] == before
    plan = unlocked.get_by_role("table", name="What a reload would do")
    expect(
        plan.get_by_role("row", name="spawn ship1.REQToConsole.EventACK_subscriber")
    ).to_be_visible()
    unlocked.get_by_role("button", name="Take the files as they are").click()
    unlocked.get_by_role("dialog").get_by_role("button", name="Take the files").click()
    expect(
        unlocked.get_by_role("table", name="Workers by node").get_by_text(
            "ship1.REQToConsole.EventACK", exact=True
        )
    ).to_be_visible()
    expect(unlocked.locator("#config .note")).to_be_hidden()


def test_a_reload_that_would_cancel_too_many_asks_whether_it_is_meant(fleet, unlocked):
    unlocked.get_by_role("button", name="Reload").click()
    expect(unlocked.locator(".toast")).to_contain_text("Reload: unchanged")
    fleet.daemon.write_config(fleet.bare_text())
    expect(unlocked.locator("#config .problem")).to_contain_text("E302")
    unlocked.get_by_role("button", name="Reload").click()
    dialog = unlocked.get_by_role("dialog", name="Cancel that many workers?")
    expect(dialog).to_contain_text("it would cancel 8 of")
    dialog.get_by_role("button", name="Reload all the same").click()
    expect(
        unlocked.get_by_role("table", name="Workers by node").get_by_text(
            "ship1.REQPing.EventACK", exact=True
        )
    ).to_have_count(0)
    expect(unlocked.locator("#health")).to_have_text("healthy")


def test_where_no_token_is_configured_the_page_says_that_it_only_reads(fleet, unlocked):
    fleet.daemon.write_config(re.sub(r", token: \{.*?\}", "", fleet.text()))
    expect(unlocked.locator("#send-lock")).to_have_text("read-only: no admin.token is configured")
    expect(unlocked.locator("#unlock")).to_be_hidden()
    expect(unlocked.get_by_role("button", name="Reload")).to_be_disabled()
    fleet.write()
    unlock(unlocked)


def test_a_token_that_was_replaced_locks_the_page(fleet, unlocked):
    held = fleet.token.read_text()
    try:
        fleet.token.write_text("another")
        unlocked.get_by_role("button", name="Reload").click()
        expect(unlocked.locator(".toast")).to_contain_text("The token is not accepted (any more)")
        expect(unlocked.get_by_role("button", name="Reload")).to_be_disabled()
        unlock(unlocked, "another")
    finally:
        fleet.token.write_text(held)
