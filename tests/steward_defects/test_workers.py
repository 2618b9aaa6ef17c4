"""Defects 85 to 98 of the original: workers doubled, unordered, unbounded or left behind, and what they told."""

import asyncio
import os

import cbor2
import pytest
import zstandard

from tests.steward_defects.fleet import MUTE, body, line, numbers, wait_for_lines
from tests.support.appliance import Appliance

pytestmark = pytest.mark.xdist_group("steward_defects_workers")

APPEND = "ship1.REQToFileAppend.EventACK"


def test_085_starting_what_runs_starts_nothing_twice(fleet):
    assert "runs already" in fleet.ask("REQOpProcessStart", "REQPing")
    names = [item["name"] for item in fleet.daemon.status()["nodes"]["ship1"]["workers"]]
    assert names.count("ship1.REQPing.EventACK_subscriber") == 1


def test_086_a_started_error_logger_listens_where_errors_are_sent(fleet, tmp_path):
    text = f"""
version: 1
broker: {{servers: ["{fleet.url}"]}}
nodes: {{late: {{subscribe: {{REQOpProcessStart: {{}}, REQToFileAppend: {{}}}}}}}}
"""
    with Appliance(text, tmp_path) as daemon:
        daemon.follow({"to_nodes": ["late"], "method": "REQOpProcessStart", "method_args": ["REQErrorLog"],
                       "file_name": "o"})  # fmt: skip
        daemon.wait_until(lambda _: daemon.worker("errorCentral.REQErrorLog.EventACK_subscriber"))


def test_087_nobody_logs_errors_or_hears_hellos_unless_the_config_says_so(fleet):
    subjects = [item["subject"] for item in fleet.daemon.status()["nodes"]["ship1"]["workers"]
                if item["kind"] == "subscriber"]  # fmt: skip
    assert not [
        subject for subject in subjects if "REQErrorLog" in subject or "REQHello" in subject
    ]


@pytest.mark.parametrize("headers", [{"serial": "xml-088"}, {"cmp": "q-088"}])
def test_088_an_unknown_encoding_is_named(fleet, headers):
    message = body("ship1", "central", "REQToFileAppend", ["x"], file_name="f")
    assert fleet.publish(APPEND, message, wait_s=0.3, headers=headers) is None
    fleet.error_log(next(iter(headers.values())))


def test_089_what_is_given_up_is_kept_and_can_be_sent_again(fleet):
    letter, _ = fleet.give_up()

    async def send_again():
        async with fleet.client() as client:
            heard = asyncio.Queue()
            await client.subscribe(MUTE, cb=heard.put)
            await client.flush()
            await asyncio.to_thread(
                fleet.daemon.request, "POST", "/api/v1/outbox/retry", {"ids": [letter["id"]]}
            )
            async with asyncio.timeout(60):
                message = await heard.get()
            await message.respond(b"confirmed from: mute: 0")
            await client.flush()
            return message.headers["appl-id"]

    assert str(letter["id"]) in asyncio.run(send_again())
    fleet.settle()
    assert letter["id"] not in fleet.dead()


def test_090_messages_of_a_strict_publisher_arrive_in_order(fleet):
    fleet.daemon.send(
        *[{"from_node": "central", **line(number, to="strict")} for number in range(150)]
    )
    assert wait_for_lines(fleet.daemon, fleet.file("strict", "order"), 150) == numbers(150)


def test_091_handlers_at_once_are_bounded(fleet):
    running, seen = fleet.work / "running-091", fleet.work / "seen-091"
    running.mkdir()
    own = f"{running}/$$"
    command = f"mkdir {own}; ls {running} | wc -l >> {seen}; sleep 0.05; rmdir {own}"
    message = {"from_node": "central", "to_nodes": ["narrow"], "method": "REQCliCommand",
               "method_args": ["sh", "-c", command], "file_name": "o"}  # fmt: skip
    fleet.daemon.send(*[message] * 12)
    fleet.daemon.wait_until(
        lambda _: fleet.daemon.worker("narrow.REQCliCommand.CommandACK_subscriber")["handled"] == 12
    )
    # two that begin at the same instant both see two: that one was ever alone is nobody's promise
    assert max(map(int, seen.read_text().split())) == 2


IMPATIENT = "from appliance.workers import publisher; publisher.IDLE_RETIRE_S = 0.2"


def test_092_publishers_made_on_demand_are_gone_when_they_are_idle(fleet, tmp_path):
    text = f'version: 1\nbroker: {{servers: ["{fleet.url}"]}}\nnodes: {{a: {{}}, b: {{subscribe: {{REQToFile: {{}}}}}}}}\n'
    message = {"from_node": "a", "to_nodes": ["b"], "method": "REQToFile", "data": ["x"]}
    daemon = Appliance(text, tmp_path)
    daemon.before = IMPATIENT
    with daemon:
        daemon.follow({**message, "file_name": "f"})
        daemon.wait_until(lambda _: daemon.worker("b.REQToFile.EventACK_publisher") is None)
        # and they are there again for the next message
        daemon.follow({**message, "file_name": "g"})
        daemon.wait_until(lambda _: daemon.data("b", "g").exists())


def test_093_reading_compressed_messages_leaves_no_thread_behind(fleet):
    def threads():
        return len(os.listdir(f"/proc/{fleet.daemon.process.pid}/task"))

    def take(count):
        message = body("ship1", "central", "REQToFileAppend", ["x" * 1000], file_name="z")
        packed = zstandard.compress(cbor2.dumps(message))

        async def publish():
            async with fleet.client() as client:
                for _ in range(count):
                    await client.publish(APPEND, packed, headers={"serial": "cbor", "cmp": "z"})
                await client.flush()

        before = fleet.daemon.worker(f"{APPEND}_subscriber")["handled"]
        asyncio.run(publish())
        fleet.daemon.wait_until(
            lambda _: fleet.daemon.worker(f"{APPEND}_subscriber")["handled"] == before + count
        )

    take(10)
    before = threads()
    take(200)
    assert threads() <= before + 4  # the pool of file writers may still have been growing


def test_094_a_copied_file_is_checked_end_to_end(fleet):
    source, target = fleet.work / "source-094", fleet.work / "target-094"
    source.write_bytes(os.urandom(1_500_000))

    async def copy_while_every_piece_comes_twice():
        async with fleet.client() as client:

            async def repeat(message):
                if message.headers.get("again") is None:
                    headers = {**message.headers, "again": "1"}
                    headers.pop("appl-id")  # else it is known as a resend and not looked at
                    await client.publish(message.subject, message.data, headers=headers)

            await client.subscribe("ship1.REQCopyFileChunk.EventACK", cb=repeat)
            await client.flush()
            return await asyncio.to_thread(
                fleet.ask, "REQCopyFileFrom", str(source), "ship1", str(target)
            )

    assert "sha256" in asyncio.run(copy_while_every_piece_comes_twice())
    assert target.read_bytes() == source.read_bytes()


def test_094_a_file_that_is_not_what_was_sent_is_not_put_in_place(fleet):
    target = fleet.work / "damaged-094"
    message = body("ship1", "central", "REQCopyFileTo", ["damaged"],
                   method_args=["x", "ship1", str(target)])  # fmt: skip
    worker = "ship1.REQCopyFileTo.EventACK_subscriber"
    failed = fleet.daemon.worker(worker)["failed"]
    fleet.publish("ship1.REQCopyFileTo.EventACK", message, headers={"appl-sha256": "0" * 64})
    fleet.daemon.wait_until(lambda _: fleet.daemon.worker(worker)["failed"] == failed + 1)
    assert not target.exists()


def test_096_success_is_no_error_report(fleet):
    def report(mark):
        """The error log once it holds this mark and what was reported before it."""
        message = body("ship1", "central", "REQToFileAppend", ["x"], file_name="f")
        fleet.publish(APPEND, message, headers={"serial": mark})
        fleet.error_log(mark)
        fleet.settle()
        return fleet.error_log(mark)

    before = report("before-096")
    fleet.ask("REQToFile", data=["x"], file_name="fine")
    fleet.ask("REQToFileAppend", data=["x"], file_name="fine-too")
    told = report("after-096")[len(before) :]
    assert len(told.splitlines()) == 1
    assert "after-096" in told


def test_098_one_publisher_says_hello_however_often_the_config_is_read(fleet):
    def count(kind, what):
        return fleet.daemon.worker(f"central.REQHello.EventNACK_{kind}")[what]

    def heard_and_not_said():
        return count("subscriber", "handled") - count("publisher", "sent")

    fleet.settle()
    before, said = heard_and_not_said(), count("publisher", "sent")
    for number in range(3):
        fleet.daemon.write_config(f"{fleet.daemon.config_path.read_text()}# {number}\n")
        assert fleet.daemon.reload()["result"] == "applied"
    # a new config is news that a hello tells
    fleet.daemon.wait_until(lambda _: count("publisher", "sent") > said)
    fleet.daemon.wait_until(lambda _: heard_and_not_said() == before)
    workers = [item["name"] for item in fleet.daemon.status()["nodes"]["central"]["workers"]]
    assert workers.count("central.REQHello.EventNACK_publisher") == 1
