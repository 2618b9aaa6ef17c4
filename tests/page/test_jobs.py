"""Jobs on the page: what was asked, what came of it, the output as text and nothing else, and the way to end one."""

import pytest

from tests.page.conftest import ONE_WORKER, unlock
from tests.page.test_accessibility import findings
from tests.page.test_hostile_texts import MARKUP, nothing_ran, overflow
from tests.support.browser import DESKTOP, PHONE

expect = pytest.importorskip("playwright.sync_api").expect
pytestmark = ONE_WORKER


def ask(fleet, *nodes, words=MARKUP):
    body = {"to_nodes": list(nodes), "method": "Echo", "method_args": [words]}
    # NB: not for a caller: for an answer of a node that nobody declares there would be no way
    body |= {"from_node": "central", "directory": "d", "file_name": "f"}
    code, found = fleet.daemon.request("POST", "/api/v1/messages?job=exec", body)
    assert code == 202, found
    return found["messages"][0]["job"]


def open_job(page, job):
    box = page.locator(".job", has_text=job)
    box.locator("summary").click()
    return box


def test_a_job_tells_what_was_asked_and_said_as_text(fleet, open_page):
    job = ask(fleet, "ship1", "ship2", "ghost")
    page = open_page()
    unlock(page)
    box = open_job(page, job)
    expect(box.locator("summary")).to_contain_text("2 of 3 done, 1 open")
    expect(box.locator("summary")).to_contain_text("Echo '<img src=x")
    expect(box.get_by_role("row", name="ship1")).to_contain_text("exit 0")
    expect(box.get_by_role("row", name="ghost")).to_contain_text("nobody there")
    expect(box.locator("pre").first).to_contain_text("<script>")
    assert nothing_ran(page)
    for viewport, scheme in ((DESKTOP, "light"), (PHONE, "dark")):
        page.set_viewport_size(viewport)
        page.emulate_media(color_scheme=scheme)
        assert overflow(page) == [0, []]
        assert findings(page) == []


def test_without_the_token_neither_arguments_nor_output_are_shown(fleet, open_page):
    job = ask(fleet, "ship1", words="confidential")
    page = open_page()
    box = open_job(page, job)
    expect(box).to_contain_text("shown with the token")
    expect(box.get_by_role("row", name="ship1")).to_contain_text("exit 0")
    assert "confidential" not in page.content()
    expect(box.get_by_role("button", name=f"Cancel job {job}")).to_be_hidden()


def test_a_job_is_cancelled_from_the_page(fleet, open_page):
    job = ask(fleet, "ghost", words="x")
    page = open_page()
    unlock(page)
    box = open_job(page, job)
    box.get_by_role("button", name=f"Cancel job {job}").click()
    page.get_by_role("button", name="Cancel the job").click()
    expect(box.get_by_role("row", name="ghost")).to_contain_text("cancelled by")
    expect(box.locator("summary")).to_contain_text("1 failed")
    # answers of tests before this one may still be acknowledged
    fleet.daemon.wait_until(lambda status: status["outbox"]["pending"] == 0)
