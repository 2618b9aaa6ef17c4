"""What peers and files say is text on the page, however it looks, and much of it does not stand the page still."""

import re

import pytest

from tests.page.conftest import ONE_WORKER, unlock
from tests.support.browser import PHONE

expect = pytest.importorskip("playwright.sync_api").expect
pytestmark = ONE_WORKER

MARKUP = "<img src=x onerror=window.wasRun=1><script>window.wasRun=1</script>"


def nothing_ran(page):
    return page.evaluate("window.wasRun === undefined") and page.locator("main img").count() == 0


def overflow(page):
    """By how much the page is wider than the window, and what sticks out."""
    return page.evaluate(
        """() => {
          const width = document.documentElement.clientWidth;
          const out = [...document.querySelectorAll("body *")].filter((node) =>
            node.getBoundingClientRect().right > width + 1 && !node.closest("pre, .sections, .for-readers, .skip"));
          return [document.documentElement.scrollWidth - width, out.map((node) => node.outerHTML.slice(0, 80))];
        }"""
    )


class Work:
    """Seconds of processor time that the page's own thread spends, whatever else the machine does."""

    def __init__(self, page):
        self._devtools = page.context.new_cdp_session(page)
        self._devtools.send("Performance.enable", {"timeDomain": "threadTicks"})
        self._start_s = self._read_s()

    def _read_s(self):
        found = self._devtools.send("Performance.getMetrics")["metrics"]
        return next(item["value"] for item in found if item["name"] == "TaskDuration")

    def spent_s(self):
        return self._read_s() - self._start_s


def test_markup_in_answers_dead_letters_and_the_config_stays_text(fleet, open_page):
    page = open_page(console_may=["422"])
    unlock(page)
    # what a peer says of itself, in its answer, and why it refuses
    page.get_by_label("To", exact=True).fill("ship1")
    page.get_by_label("Method", exact=True).select_option("Echo")
    page.locator("#send-arguments-box").get_by_role("textbox").fill(MARKUP)
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.locator(".target pre")).to_have_text(MARKUP + "\n")
    # what stands in the files: a line of a refused config, its diff in the history
    fleet.daemon.write_config(fleet.text() + f"# {MARKUP}\nnonsense: '{MARKUP}'\n")
    expect(page.locator("#config .problem pre")).to_contain_text("<script>")
    fleet.daemon.write_config(fleet.text().replace("Say it again", MARKUP.replace("'", "")))
    expect(page.locator("#config .problem")).to_have_count(0)
    newest = page.locator("#history .record").first
    # else the refused one is opened, or that of the start, which is told until both are there
    expect(newest).to_contain_text("the files changed")
    expect(newest.get_by_text("in force")).to_be_visible()
    newest.get_by_role("button").first.click()
    expect(page.locator("#history .diff")).to_contain_text("<script>")
    page.locator("summary", has_text="Show the").click()
    expect(page.get_by_role("table", name="Methods")).to_contain_text(MARKUP)
    assert nothing_ran(page)


def test_a_hello_of_a_stranger_cannot_break_out(fleet, page):
    """Its config report rides in a header that any peer may fill as it likes."""
    report = f'{{"v":"{MARKUP}","g":1,"a":"sha256:{MARKUP}","d":"x","o":"refused","n":1,"p":"{MARKUP} {"w" * 200}"}}'
    fleet.hello("ship3", report)
    row = page.locator("#fleet tbody tr", has_text="ship3")
    expect(row).to_contain_text("refused")
    expect(row).to_contain_text(MARKUP)
    assert nothing_ran(page)
    assert overflow(page) == [0, []]


@pytest.mark.parametrize(
    "viewport", [PHONE, {"width": 768, "height": 900}], ids=["phone", "tablet"]
)
def test_nothing_sticks_out_of_a_narrow_window(fleet, open_page, viewport):
    page = open_page(viewport=viewport, console_may=["422"])
    unlock(page)
    long = "x" * 200
    page.get_by_label("To", exact=True).fill("ship1")
    page.get_by_label("Method", exact=True).select_option("Echo")
    page.locator("#send-arguments-box").get_by_role("textbox").fill(long)
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.locator(".target pre")).to_contain_text(long)
    fleet.daemon.send(
        {
            "to_nodes": [f"ghost{long[:100]}"],
            "method": "REQPing",
            "from_node": "central",
            "expires": "200ms",
        }
    )
    expect(page.get_by_role("table", name="Dead letters")).to_contain_text(long[:100])
    fleet.daemon.write_config(fleet.text() + f"nonsense_{long}: {long}\n")
    expect(page.locator("#config .problem")).to_contain_text(long)
    page.locator("#history .record").first.get_by_role("button").first.click()
    for summary in page.locator("summary").all():
        summary.click()
    page.get_by_label("those in sync too").check()
    assert overflow(page) == [0, []]


def test_a_storm_of_events_leaves_the_page_at_ease(fleet, open_page):
    page = open_page()
    page.get_by_label("single messages too").check()
    expect(page.locator("#events-sum")).to_contain_text("live")
    work = Work(page)
    for _ in range(5):
        fleet.daemon.send(
            *(
                {"to_nodes": ["ship1", "ship2"], "method": "Echo", "method_args": ["x"]}
                for _ in range(50)
            )
        )
    fleet.daemon.wait_until(lambda status: status["outbox"]["pending"] == 0, 60)
    expect(page.locator("#events-sum")).to_contain_text(re.compile(r"live, [1-9]"))
    assert page.locator("#events li.event").count() <= 200
    page.get_by_role("button", name="Clear").click()
    assert work.spent_s() < 3.0


def test_a_thousand_workers_are_folded_filtered_and_opened_without_a_pause(fleet, open_page):
    page = open_page()
    status = fleet.daemon.status()
    ship = status["nodes"]["ship1"]
    status["nodes"] |= {
        f"buoy{number}": {
            **ship,
            "workers": [
                {**worker, "subject": worker["subject"].replace("ship1", f"buoy{number}")}
                for worker in ship["workers"]
                if worker["kind"] == "subscriber" or worker["declared"]
            ],
        }
        for number in range(200)
    }
    page.route("**/api/v1/status", lambda route: route.fulfill(json=status))
    expect(page.locator("#workers-sum")).to_have_text(
        re.compile(r"^1,0\d\d of 1,0\d\d running, 203 nodes")
    )
    work = Work(page)
    rows = page.locator("tr.worker")
    expect(rows).to_have_count(0)  # all is well, so all nodes are folded
    page.get_by_role("button", name="buoy7", exact=True).click()
    expect(rows).to_have_count(5)
    page.get_by_role("button", name="buoy7", exact=True).click()
    page.get_by_label("Filter workers").fill("event")
    expect(rows).to_have_count(600)
    page.get_by_label("Filter workers").fill("buoy11 ping")
    expect(rows).to_have_count(11)
    page.get_by_label("Filter workers").fill("")
    status["nodes"]["buoy99"]["workers"][0] |= {"phase": "failed", "last_error": MARKUP}
    expect(rows.filter(has_text=MARKUP)).to_have_count(1)  # and what is not well is opened
    assert nothing_ran(page)
    assert work.spent_s() < 3.0
