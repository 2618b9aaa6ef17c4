"""Defects 67 to 98 of the original: messages lost, doubled, reordered, or acknowledged for nothing."""

import asyncio
import os
import re
import sys

import cbor2
import nats
import pytest

from appliance.core.message import Message
from appliance.wire.frame import encode_frame
from appliance.wire.gob import decode_gob
from tests.steward_defects.fleet import body
from tests.support.appliance import Appliance
from tests.support.nats_server import NatsServer

APPEND = "ship1.REQToFileAppend.EventACK"
PAIR = """
version: 1
broker: {{servers: ["{url}"]}}
reload: {{settle: 20ms}}
nodes:
  a: {{subscribe: {{REQToFileAppend: {{}}}}{more}}}
  b: {{subscribe: {{REQToFile: {{}}, REQToFileAppend: {{}}, REQCliCommand: {{allow_commands: [[sh, -c, "*"]]}}}}}}
"""


@pytest.fixture
def broker():
    with NatsServer() as server:
        yield server


def one_node(broker, folder, name, more=""):
    daemon = Appliance(PAIR.format(url=broker.url, more=more), folder / name, args=["--node", name])
    daemon.only_named = True
    return daemon


def file_message(name, text="x", **fields):
    return {"to_nodes": ["b"], "method": "REQToFile", "data": [text], "file_name": name, **fields}


def test_067_a_message_to_a_node_that_is_off_waits_for_it(broker, tmp_path):
    with one_node(broker, tmp_path, "a") as sender:
        sender.send(file_message("late", retries=1, ack_timeout=1))
        sender.wait_until(lambda status: status["outbox"]["pending"] == 1)
        with one_node(broker, tmp_path, "b") as receiver:
            sender.wait_until(lambda status: status["outbox"]["pending"] == 0)
            receiver.wait_until(lambda _: receiver.data("b", "late").exists())
        assert sender.status()["outbox"]["dead"] == 0


async def count_attempts(daemon, url, retries):
    client = await nats.connect(url)
    heard = []

    async def hear(message):
        heard.append(message)

    await client.subscribe("b.REQToFile.EventACK", cb=hear)
    await client.flush()
    await asyncio.to_thread(daemon.send, file_message("f", retries=retries, ack_timeout=1))
    await asyncio.to_thread(daemon.wait_until, lambda status: status["outbox"]["dead"] == 1)
    await client.close()
    return len(heard)


def test_068_retries_are_the_sends_after_the_first(broker, tmp_path):
    with one_node(broker, tmp_path, "a") as sender:
        assert asyncio.run(count_attempts(sender, broker.url, 1)) == 2


def test_069_missed_acknowledgements_leave_no_subscription_behind(broker, tmp_path):
    async def watch(sender):
        client = await nats.connect(broker.url)

        async def ignore(_):
            pass

        await client.subscribe("b.REQToFile.EventACK", cb=ignore)
        await client.flush()
        await asyncio.to_thread(
            sender.send, *[file_message(f"f{n}", retries=1, ack_timeout=1) for n in range(20)]
        )
        await asyncio.to_thread(sender.wait_until, lambda status: status["outbox"]["dead"] == 20)
        await client.close()

    with one_node(broker, tmp_path, "a") as sender:
        asyncio.run(watch(sender))
        missed = sender.worker("b.REQToFile.EventACK_publisher")["missed"]
        assert missed >= 20
        descriptors = os.listdir(f"/proc/{sender.process.pid}/fd")
        assert len(descriptors) < 60


def test_070_done_is_acknowledged_only_when_it_is_done(fleet, tmp_path):
    text = f"""
version: 1
broker: {{servers: ["{fleet.url}"]}}
nodes: {{central: {{}}, careful: {{subscribe: {{REQToFile: {{ack: {{on: done}}}}}}}}}}
"""
    with Appliance(text, tmp_path) as daemon:
        bad = body("careful", "central", "REQToFile", ["x"], file_name="../../f")
        assert fleet.publish("careful.REQToFile.EventACK", bad, wait_s=0.5) is None
        good = body("careful", "central", "REQToFile", ["x"], file_name="f", id=3)
        assert (
            fleet.publish("careful.REQToFile.EventACK", good, wait_s=5)
            == "confirmed from: careful: 3"
        )
        assert daemon.data("careful", "f").read_text() == "x"


def test_071_a_resend_is_acknowledged_again_and_not_run_again(broker, tmp_path):
    # the receiver's acknowledgement never arrives: the sender may hear only what it is allowed to
    counted = tmp_path / "counted"
    with one_node(broker, tmp_path, "b") as receiver:

        async def send_twice():
            client = await nats.connect(broker.url)
            answers = asyncio.Queue()
            subject = "b.REQCliCommand.CommandACK"
            await client.subscribe(f"{subject}.reply.me.*", cb=answers.put)
            message = body(
                "b", "a", "REQCliCommand", None, method_args=["sh", "-c", f"echo x >> {counted}"]
            )
            headers = {"serial": "cbor", "appl-id": "0123456789abcdef-77"}
            for number in range(3):
                await client.publish(
                    subject,
                    cbor2.dumps(message),
                    reply=f"{subject}.reply.me.{number}",
                    headers=headers,
                )
                async with asyncio.timeout(10):
                    await answers.get()
            await client.close()

        asyncio.run(send_twice())
        receiver.wait_until(lambda status: status["inbox"]["unfinished"] == 0)
        receiver.wait_until(lambda _: counted.exists())
        assert counted.read_text() == "x\n"


def test_072_output_that_is_no_utf8_arrives_byte_for_byte_and_as_gob(fleet):
    reply = fleet.file("ship1", "out-072")
    lines = fleet.ask(
        "REQCliCommand", "sh", "-c", r"printf '\377\376'", directory="", file_name="out-072"
    )
    assert '"unanswered":[]' in lines
    fleet.wait_for(reply)
    assert reply.read_bytes() == b"\xff\xfe"
    # a Go node refuses CBOR text that is no UTF-8, so such a message leaves as gob, whatever was asked for
    payload, headers = encode_frame(Message(data=("\udcff",), method="REQToFile"), "cbor", "none")
    assert "serial" not in headers
    assert decode_gob(payload).data == ("\udcff",)


def test_073_every_message_has_an_id_of_its_own_on_the_wire(broker, tmp_path):
    async def hear_two(sender):
        client = await nats.connect(broker.url)
        heard = asyncio.Queue()
        await client.subscribe("b.REQToFile.EventACK", cb=heard.put)
        await client.flush()
        sent = await asyncio.to_thread(sender.send, file_message("f1"), file_message("f2"))
        ids = []
        while len(set(ids)) < 2:
            message = await heard.get()
            text = message.headers["appl-id"]
            ids.append(int(re.fullmatch(r"[0-9a-f]{16}-(\d+)(?:-m)?", text)[1]))
        await client.close()
        return [item["id"] for item in sent], sorted(set(ids))

    with one_node(broker, tmp_path, "a", ", serialization: gob, compression: none") as sender:
        given, seen = asyncio.run(hear_two(sender))
        assert sorted(given) == seen


def test_074_a_relayed_message_keeps_its_data():
    from appliance.core.relay import unwrap, wrap
    from appliance.core.specs import ANY_METHOD, SubscriberSpec

    sent = wrap(
        Message(
            to_node="end", from_node="me", method="REQToFile", data=("kept",), relay_via_node="via"
        )
    )
    spec = SubscriberSpec(node="via", subject="end.via.REQRelay.EventACK", method="REQRelay", wants_ack=True,
                          relay_methods=ANY_METHOD)  # fmt: skip
    passed = unwrap(sent, spec)
    assert (passed.to_node, passed.from_node, passed.method, passed.data) == (
        "end",
        "via",
        "REQToFile",
        ("kept",),
    )


def test_075_a_dotted_name_can_be_relayed_to(fleet, tmp_path):
    text = f"""
version: 1
broker: {{servers: ["{fleet.url}"]}}
nodes:
  asker: {{}}
  via.one: {{subscribe: {{REQRelay: {{relay_to: [end.two.three], relay_methods: any}}}}}}
  end.two.three: {{subscribe: {{REQToFile: {{}}}}}}
"""
    with Appliance(text, tmp_path) as daemon:
        daemon.send({"from_node": "asker", "to_nodes": ["end.two.three"], "method": "REQToFile", "data": ["x"],
                     "file_name": "f", "relay_via_node": "via.one"})  # fmt: skip
        daemon.wait_until(lambda _: daemon.data("end.two.three", "f").exists())


def order_of(daemon, count):
    file = daemon.data("b", "order")
    daemon.wait_until(lambda _: file.exists() and len(file.read_text().split()) == count)
    return file.read_text().split()


def line(number):
    return {
        "to_nodes": ["b"],
        "method": "REQToFileAppend",
        "data": [f"{number}\n"],
        "file_name": "order",
    }


def test_076_what_waited_over_a_restart_goes_out_oldest_first(broker, tmp_path):
    with one_node(broker, tmp_path, "a") as sender:
        sender.send(*[line(number) for number in range(50)])
        sender.kill()
        sender.start()
        with one_node(broker, tmp_path, "b") as receiver:
            assert order_of(receiver, 50) == [str(number) for number in range(50)]


def test_077_no_kill_gives_an_id_twice(broker, tmp_path):
    ids = []
    with one_node(broker, tmp_path, "a") as sender:
        for _ in range(3):
            ids += [item["id"] for item in sender.send(*[file_message(f"f{n}") for n in range(20)])]
            sender.kill()
            sender.start()
        assert sender.status()["outbox"]["pending"] == 60
    assert len(set(ids)) == 60


def test_078_bytes_survive_a_restart_unchanged(broker, tmp_path):
    with one_node(broker, tmp_path, "a") as sender:
        sender.send({"to_nodes": ["b"], "method": "REQToFile", "file_name": "raw",
                     "data": [{"base64": "//4AgGE="}]})  # fmt: skip
        sender.kill()
        sender.start()
        with one_node(broker, tmp_path, "b") as receiver:
            receiver.wait_until(lambda _: receiver.data("b", "raw").exists())
            assert receiver.data("b", "raw").read_bytes() == b"\xff\xfe\x00\x80a"


def test_079_a_stored_message_stays_while_tries_are_left(broker, tmp_path):
    with one_node(broker, tmp_path, "a") as sender:
        (sent,) = sender.send(file_message("f", retries=100, ack_timeout=1))
        sender.wait_until(
            lambda _: (sender.worker("b.REQToFile.EventACK_publisher") or {}).get("missed", 0) >= 2
        )
        (record,) = sender.request("GET", "/api/v1/outbox")[1]["records"]
        assert record["id"] == sent["id"]


def test_080_one_publisher_serves_all_messages_of_a_subject(broker, tmp_path):
    with one_node(broker, tmp_path, "b") as receiver, one_node(broker, tmp_path, "a") as sender:
        sender.send(*[file_message(f"f{number}") for number in range(100)])
        sender.wait_until(lambda status: status["outbox"]["pending"] == 0)
        workers = sender.status()["nodes"]["a"]["workers"]
        assert len([item for item in workers if item["kind"] == "publisher"]) == 1
        assert receiver.worker("b.REQToFile.EventACK_subscriber")["handled"] >= 1


def test_081_a_message_given_up_counts_as_dead_and_not_as_delivered(broker, tmp_path):
    with one_node(broker, tmp_path, "a") as sender:
        asyncio.run(count_attempts(sender, broker.url, 0))
        worker = sender.worker("b.REQToFile.EventACK_publisher")
        assert (worker["handled"], worker["failed"]) == (0, 1)


def test_082_an_accepted_message_survives_a_kill_at_once(broker, tmp_path):
    with one_node(broker, tmp_path, "a") as sender:
        (sent,) = sender.send(file_message("f"))
        sender.kill()
        sender.start()
        (record,) = sender.request("GET", "/api/v1/outbox")[1]["records"]
        assert record["id"] == sent["id"]


def test_083_a_message_without_acknowledgement_waits_while_the_broker_is_away(tmp_path):
    with NatsServer() as broker:
        text = PAIR.format(url=broker.url, more="").replace(
            "REQToFile: {}", "REQToFile: {ack: {mode: none}}"
        )
        with Appliance(text, tmp_path) as daemon:
            broker.kill()
            daemon.wait_until(lambda status: not status["broker"]["connected"])
            daemon.send({"from_node": "a", **file_message("f")})
            assert daemon.status()["outbox"]["pending"] == 1
            broker.start()
            daemon.wait_until(lambda _: daemon.data("b", "f").exists())


def test_084_two_daemons_of_one_name_share_the_work(broker, tmp_path):
    with (
        one_node(broker, tmp_path, "a") as sender,
        one_node(broker, tmp_path / "1", "b") as first,
        one_node(broker, tmp_path / "2", "b") as second,
    ):
        sender.send(*[line(number) for number in range(40)])
        sender.wait_until(lambda status: status["outbox"]["pending"] == 0)

        def lines():
            return [
                text
                for daemon in (first, second)
                if daemon.data("b", "order").exists()
                for text in daemon.data("b", "order").read_text().split()
            ]

        sender.wait_until(lambda _: len(lines()) >= 40)
        assert sorted(map(int, lines())) == list(range(40))


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


@pytest.mark.parametrize("headers", [{"serial": "xml"}, {"cmp": "q"}])
def test_088_an_unknown_encoding_is_named(fleet, headers):
    message = body("ship1", "central", "REQToFileAppend", ["x"], file_name="f")
    assert fleet.publish(APPEND, message, wait_s=0.3, headers=headers) is None
    fleet.error_log(next(iter(headers.values())))


def test_089_what_is_given_up_is_kept_and_can_be_sent_again(broker, tmp_path):
    with one_node(broker, tmp_path, "a") as sender:
        asyncio.run(count_attempts(sender, broker.url, 0))
        with one_node(broker, tmp_path, "b") as receiver:
            sender.request("POST", "/api/v1/outbox/retry")
            receiver.wait_until(lambda _: receiver.data("b", "f").exists())
        assert sender.status()["outbox"]["dead"] == 0


def test_090_messages_of_one_subject_arrive_in_order(broker, tmp_path):
    with one_node(broker, tmp_path, "b") as receiver, one_node(broker, tmp_path, "a") as sender:
        sender.send(*[line(number) for number in range(500)])
        got = order_of(receiver, 500)
        assert got == [str(number) for number in range(500)]


def test_091_handlers_at_once_are_bounded(tmp_path):
    text = """
version: 1
broker: {embedded: true}
nodes:
  a: {subscribe: {REQCliCommand: {concurrency: 2, allow_commands: [[sh, -c, "*"]]}, REQToFileAppend: {}}}
"""
    with Appliance(text, tmp_path) as daemon:
        own = f"{tmp_path}/c.$$"
        command = (
            f"mkdir {own}; ls -d {tmp_path}/c.* | wc -l >> {tmp_path}/seen; sleep 0.05; rmdir {own}"
        )
        daemon.send(*[{"to_nodes": ["a"], "method": "REQCliCommand", "method_args": ["sh", "-c", command],
                       "file_name": "o"} for _ in range(12)])  # fmt: skip
        daemon.wait_until(
            lambda status: daemon.worker("a.REQCliCommand.CommandACK_subscriber")["handled"] == 12
        )
        assert max(map(int, (tmp_path / "seen").read_text().split())) <= 2


IMPATIENT = """
import sys
from appliance.workers import publisher
publisher.IDLE_RETIRE_S = 0.2
from appliance.__main__ import main
sys.exit(main())
"""


def test_092_publishers_made_on_demand_are_gone_when_they_are_idle(broker, tmp_path):
    sender = one_node(broker, tmp_path, "a")
    sender.command = [sys.executable, "-c", IMPATIENT]
    with one_node(broker, tmp_path, "b"), sender:
        sender.send(file_message("f"))
        sender.wait_until(lambda status: status["outbox"]["pending"] == 0)
        sender.wait_until(lambda _: sender.worker("b.REQToFile.EventACK_publisher") is None)


def test_093_reading_compressed_messages_leaves_no_thread_behind(fleet):
    def threads():
        return len(os.listdir(f"/proc/{fleet.daemon.process.pid}/task"))

    fleet.assert_alive()
    before = threads()
    for number in range(50):
        fleet.send("REQToFile", data=["x"], file_name=f"z{number}")
    fleet.settle()
    assert threads() <= before + 2


def test_094_a_copied_file_is_checked_end_to_end(fleet):
    source = fleet.work / "source-094"
    source.write_bytes(os.urandom(1_500_000))
    lines = fleet.ask("REQCopyFileFrom", str(source), "ship1", f"{fleet.work}/target-094")
    assert "sha256" in lines
    assert (fleet.work / "target-094").read_bytes() == source.read_bytes()


def test_096_success_is_no_error_report(fleet):
    fleet.settle()
    worker = "errorCentral.REQErrorLog.EventACK_subscriber"
    before = fleet.daemon.worker(worker)["handled"]
    fleet.ask("REQToFile", data=["x"], file_name="fine")
    fleet.ask("REQToFileAppend", data=["x"], file_name="fine-too")
    fleet.settle()
    assert fleet.daemon.worker(worker)["handled"] == before
