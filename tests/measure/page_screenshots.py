"""Pictures of the page: `python -m tests.measure.page_screenshots DIRECTORY`.

At rest, in trouble, during a reload, with a refused config, with its history, on a phone, dark, with a fleet and with 1,000
workers. To be looked at: what they show is tested in tests/page, how it looks is not.
"""

import functools
import shutil
import sys
import tempfile
import threading
from pathlib import Path

from tests.support.browser import DESKTOP, PHONE, TOKEN, WatchedFleet, open_browser

TRAFFIC_S = 40.0
FLEET_NODES = 40


class Traffic:
    """Messages in waves, so that there is something to draw."""

    def __init__(self, fleet: WatchedFleet) -> None:
        self._fleet = fleet
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Traffic":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        wave = 0
        while not self._ended.wait(0.25):
            wave += 1
            count = 2 + wave % 17
            message = {"to_nodes": ["ship1", "ship2"], "method": "Echo", "method_args": ["x"]}
            message |= {"from_node": "central", "for_caller": True}
            self._fleet.daemon.send(*[message] * count)


def shoot(page, directory: Path, name: str, **options) -> None:
    page.evaluate("window.scrollTo(0, 0)")  # the bar stays at the top of the window
    page.screenshot(path=directory / f"{name}.png", full_page=True, **options)
    print(directory / f"{name}.png")


def open_page(browser, url: str, **options):
    page = browser.new_context(**{"viewport": DESKTOP, **options}).new_page()
    page.goto(url)
    page.wait_for_selector("html[data-shown]")
    return page


def unlock(page) -> None:
    page.get_by_role("button", name="Unlock").click()
    page.get_by_label("Token", exact=True).fill(TOKEN)
    page.keyboard.press("Enter")
    page.wait_for_selector("html[data-access=write]")


def send_some(page) -> None:
    for method, words in (("Echo", "good morning"), ("Moan", None)):
        page.get_by_label("To", exact=True).fill("ship1 ship2")
        page.get_by_label("Method", exact=True).select_option(method)
        if words is not None:
            page.locator("#send-arguments-box").get_by_role("textbox").fill(words)
        page.get_by_role("button", name="Send", exact=True).click()
        page.wait_for_selector(".sending:first-child .target pre:not([hidden])")
        page.wait_for_timeout(500)


def shoot_a_daemon(browser, directory: Path, place: Path) -> None:
    fleet = WatchedFleet(place)
    with fleet.daemon as daemon:
        page = open_page(browser, fleet.url)
        phone = open_page(browser, fleet.url, viewport=PHONE)
        dark = open_page(browser, fleet.url, color_scheme="dark")
        with Traffic(fleet):
            page.wait_for_timeout(TRAFFIC_S * 1000)
            shoot(page, directory, "at-rest")
            shoot(page, directory, "first-screen", clip={"x": 0, "y": 0, **DESKTOP})
            shoot(phone, directory, "phone")
            shoot(dark, directory, "dark")
            unlock(page)
            send_some(page)
            shoot(page, directory, "sent")
            # a command that takes its time, on a subject that the next config does not have
            fleet.write(ship="Slow: {accept_from: [central]}")
            row = page.locator("tr.worker", has_text="ship1.Slow")
            row.wait_for()
            daemon.send({"to_nodes": ["ship1", "ship2"], "method": "Slow", "from_node": "central"})
            page.wait_for_timeout(500)
            fleet.write(ship="REQToConsole: {}")
            page.locator("tr.worker", has_text="draining").first.wait_for()
            shoot(page, directory, "during-a-reload")
        daemon.send(
            {"to_nodes": ["ghost"], "method": "REQPing", "from_node": "central", "expires": "200ms"}
        )
        fleet.write(ship="REQToConsole: {retires: 3, concurency: 4}")
        for shown in (page, phone, dark):
            shown.locator("#config .problem").first.wait_for()
            shown.locator("#outbox tbody tr").first.wait_for()
        page.locator("#history .record-head >> nth=1").click()
        page.locator("#history .diff").wait_for()
        shoot(page, directory, "refused")
        phone.get_by_role("button", name="ship1", exact=True).click()
        shoot(phone, directory, "refused-phone")
        shoot(dark, directory, "refused-dark")
        page.get_by_role("button", name="Drop all").click()
        page.screenshot(path=directory / "dialog.png")
        page.keyboard.press("Escape")
        daemon.stop()
        page.locator("#contact").filter(has_text="No answer since").wait_for()
        page.wait_for_timeout(3000)
        page.screenshot(path=directory / "no-answer.png")


def _fulfil(answer, route) -> None:
    route.fulfill(json=answer)


def shoot_troubles(browser, directory: Path, place: Path) -> None:
    """What cannot be had by waiting for it: a store that fails, silence, messages without a worker."""
    fleet = WatchedFleet(place)
    ages = {
        "accepted_at": "2026-01-01T00:00:00Z",
        "age_seconds": 7300,
        "attempts": 2,
        "from": "central",
    }
    waiting = [
        {**ages, "id": number, "to": f"ship{number}", "method": "REQToFileAppend", "state": state, "why": why}
        for number, (state, why) in enumerate([
            ("waiting", "nobody there"),
            ("waiting", "silent since 14:02:11"),
            ("waiting", 'denied: Permissions Violation for Publish to "ship3.REQToFileAppend.EventACK"'),
            ("working", ""),
            ("sent", ""),
        ])
    ]  # fmt: skip
    dead = [
        {**found, "state": state, "why": why, "reason": f"{state}: {why}", "died_at": "2026-01-01T00:00:00Z"}
        for found, (state, why) in zip(
            waiting,
            [("failed", "disk full"), ("expired", "nobody there"), ("refused", "central is not in accept_from")],
            strict=False,
        )
    ]  # fmt: skip
    orphan = {
        **{
            "id": 7,
            "from": "shore",
            "node": "boat",
            "method": "REQCliCommand",
            "age_seconds": 7300,
        },
        **{"state": "orphaned", "why": "no worker takes REQCliCommand on boat"},
    }
    with fleet.daemon as daemon:
        status = daemon.status() | {
            "healthy": False,
            "degraded_by": [
                "the store cannot be written: Read-only file system",
                "messages on ship2.REQToFileAppend.EventACK: silent since 14:02:11",
                "1 message taken in has no worker (appliance inbox list)",
            ],
            "store": {"state": "read_only", "text": "Read-only file system"},
            "waiting": {"nobody there": 7, "silent": 20, "denied": 1},
            "inbox": {"unfinished": 1, "orphaned": 1},
            "outbox": {"pending": 28, "in_flight": 2, "dead": 3, "oldest_seconds": 7300},
        }
        answers = {
            "status": status,
            "inbox?*": {"records": [orphan]},
            "outbox?l*": {"records": waiting},
        }
        answers["outbox?state=dead*"] = {"records": dead}
        for name, options in (
            ("troubles", {}),
            ("troubles-dark", {"color_scheme": "dark"}),
            ("troubles-phone", {"viewport": PHONE}),
            ("troubles-phone-dark", {"viewport": PHONE, "color_scheme": "dark"}),
        ):
            page = browser.new_context(**{"viewport": DESKTOP, **options}).new_page()
            for path, answer in answers.items():
                page.route(f"**/api/v1/{path}", functools.partial(_fulfil, answer))
            page.goto(fleet.url)
            page.wait_for_selector("html[data-shown]")
            page.locator("#outbox summary", has_text="Waiting").click()
            page.get_by_role("table", name="Waiting messages").locator("tr >> nth=1").wait_for()
            shoot(page, directory, name)


def shoot_a_fleet(browser, directory: Path, place: Path) -> None:
    fleet = WatchedFleet(place)
    more = "".join(f"  ship{number}: {{roles: [ship]}}\n" for number in range(4, FLEET_NODES))
    fleet.daemon.config_path.write_text(fleet.text() + more)
    with fleet.daemon as daemon:
        digest = daemon.status()["config"]["digest"]
        for number in range(4, FLEET_NODES - 2):
            applied = digest if number % 9 else "sha256:0ld"
            report = f'{{"v":"0.1.0","g":{number},"a":"{applied}","d":"{digest}"'
            if number % 13 == 0:
                report += ',"o":"refused","n":1,"p":"E101 ships.yaml:14:11 roles.ship.subscribe.REQPing: unknown key"'
            fleet.hello(f"ship{number}", report + "}")
        for name, options in (("fleet", {}), ("fleet-phone", {"viewport": PHONE})):
            page = open_page(browser, fleet.url, **options)
            page.locator("#fleet tbody tr").first.wait_for()
            page.get_by_label("those in sync too").check()
            shoot(page, directory, name)


def shoot_many_workers(browser, directory: Path, place: Path) -> None:
    fleet = WatchedFleet(place)
    names = [f"buoy{number:03}" for number in range(200)]
    more = "".join(f"  {name}: {{roles: [ship]}}\n" for name in names)
    fleet.daemon.config_path.write_text(fleet.text() + more)
    fleet.daemon.args += [word for name in names for word in ("--node", name)]
    with fleet.daemon:
        page = open_page(browser, fleet.url)
        page.wait_for_timeout(6000)
        page.screenshot(path=directory / "many-workers.png")


def main() -> None:
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix="page-"))
    try:
        with open_browser() as browser:
            shoot_a_daemon(browser, directory, place / "one")
            shoot_troubles(browser, directory, place / "troubles")
            shoot_a_fleet(browser, directory, place / "fleet")
            shoot_many_workers(browser, directory, place / "many")
    finally:
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
