"""A command that reaches its node by way of a gateway, and its answer's way back; and what a forger gets."""

import asyncio

import cbor2
import nats
import pytest

from tests.support.appliance import Appliance
from tests.support.bare_publisher import seed_message
from tests.support.nats_server import NatsServer
from tests.support.waiting import until_async

CONFIG = """
version: 1
broker: {{servers: ["{url}"]}}
reload: {{settle: 1ms, watch: false, poll_interval: 10m}}
defaults: {{compression: none}}
nodes:
  central: {{subscribe: {{REQToFileAppend: {{}}, REQToFile: {{}}, REQErrorLog: {{}}, REQRelayInitial: {{}}}}}}
  gateway:
    subscribe:
      REQRelay: {{relay_to: [ship.one, ship2], relay_methods: [REQCliCommand, REQToFileAppend], accept_from: [central]}}
      REQToFileAppend: {{}}
  ship.one:
    subscribe:
      REQCliCommand: {{accept_from: [gateway], allow_commands: [[echo, "**"]]}}
      REQToFileAppend: {{accept_from: [gateway]}}
  ship2: {{}}
  ship3: {{subscribe: {{REQToFileAppend: {{}}}}}}
"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    with NatsServer() as broker:
        text = CONFIG.format(url=broker.url)
        with Appliance(text, tmp_path_factory.mktemp("relay")) as appliance:
            appliance.url = broker.url
            yield appliance


def relayed(**fields):
    return {"from_node": "central", "to_nodes": ["ship.one"], "relay_via_node": "gateway",
            "directory": "relayed", **fields}  # fmt: skip


def test_a_relayed_command_runs_at_its_node_and_the_asker_gets_the_answer(fleet):
    (answer,) = fleet.send(
        relayed(
            method="REQCliCommand",
            method_args=["echo", "ahoy"],
            relay_reply_method="REQToFile",
            file_name="out.txt",
        )
    )
    assert (answer["to"], answer["via"]) == ("ship.one", "gateway")
    assert "note" not in answer
    own = fleet.data("relayed", "ship.one", "out.txt")
    # the gateway files the answer with REQToFileAppend, as the seed does, and central's copy replaces the file
    fleet.wait_until(lambda status: own.exists() and status["outbox"]["pending"] == 0)
    fleet.wait_until(lambda status: handled(fleet, "central.REQToFile.EventACK_subscriber") == 1)
    assert own.read_text() == "ahoy\n"


def handled(fleet, worker):
    return fleet.worker(worker)["handled"]


def test_data_is_not_lost_on_the_way(fleet):
    fleet.send(relayed(method="REQToFileAppend", data=["kept\n"], file_name="data.txt"))
    file = fleet.data("relayed", "ship.one", "data.txt")
    fleet.wait_until(lambda status: file.exists() and file.read_text() == "kept\n")


def test_send_follows_a_relayed_command_to_its_answer(fleet):
    lines = fleet.follow(
        relayed(method="REQCliCommand", method_args=["echo", "x"], file_name="s.txt")
    )
    assert '"data":"x\\n"' in lines
    assert '"unanswered":[]' in lines.splitlines()[-1]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"method": "REQRelay"}, "cannot be relayed"),
        ({"method": "REQPing", "relay_via_node": "no.*"}, "no node name"),
        ({"method": "REQNothing"}, "unknown method"),
    ],
)
def test_what_cannot_be_relayed_is_refused_at_once(fleet, fields, words):
    code, answer = fleet.request("POST", "/api/v1/messages", [relayed(**fields)])
    assert code == 422
    assert words in str(answer)


def test_a_method_that_the_gateway_does_not_relay_becomes_a_report(fleet):
    before = handled(fleet, "ship3.REQToFileAppend.EventACK_subscriber")
    fleet.send(relayed(method="REQPing"))
    log = fleet.data("errorLog", "errorCentral", "error.log")
    fleet.wait_until(
        lambda status: log.exists() and "REQPing is not in relay_methods" in log.read_text()
    )
    assert handled(fleet, "ship3.REQToFileAppend.EventACK_subscriber") == before


async def publish(fleet, subject, message):
    client = await nats.connect(fleet.url)
    try:
        await client.publish(
            subject, cbor2.dumps(message), reply=f"{subject}.reply.x", headers={"serial": "cbor"}
        )
        await client.flush()
    finally:
        await client.close()


def forged(asked, **fields):
    """An answer in ship.one's name that claims to belong to a relayed question."""
    message = seed_message(
        "gateway", "ship.one", "REQToFileAppend", ["forged"], file_name="f", directory="d"
    )
    previous = seed_message(
        "ship.one", "gateway", "REQCliCommand", None, file_name="f", directory="d"
    )
    for position, value in {
        20: "gateway",
        21: "central",
        22: "ship.one",
        23: "REQCliCommand",
        **asked,
    }.items():
        previous[position] = value
    message[8] = True
    message[18] = previous
    return message


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({21: "ship3"}, "is not in accept_from"),
        ({22: "ship2"}, "not from the node that the question was relayed to"),
        ({23: "REQPing"}, "is not in relay_methods"),
        ({24: "REQCliCommand"}, "not in allow_reply_methods"),
        ({24: "REQNothing"}, "unknown method"),
    ],
)
def test_a_forged_answer_makes_the_gateway_send_nothing(fleet, asked, words):
    asyncio.run(publish(fleet, "gateway.REQToFileAppend.EventACK", forged(asked)))
    log = fleet.data("errorLog", "errorCentral", "error.log")
    fleet.wait_until(lambda status: log.exists() and words in log.read_text())
    assert not any(fleet.data("d", name).exists() for name in ("ship3", "central"))


async def test_a_node_answers_for_itself_and_for_no_other_behind_the_same_gateway(fleet):
    """It can guess which number the message for the other one has: they are asked one after the other."""
    client = await nats.connect(fleet.url)
    try:
        heard = await client.subscribe("ship2.REQCliCommand.CommandACK")
        await client.flush()
        asking = asyncio.create_task(
            asyncio.to_thread(
                fleet.follow,
                relayed(to_nodes=["ship2"], method="REQCliCommand", file_name="n.txt"),
            )
        )
        asked = await heard.next_msg(timeout=60)
        number = cbor2.loads(asked.data)[2]
        await asked.respond(f"confirmed from: ship2: {number}".encode())
        took = "gateway.REQToFileAppend.EventACK_subscriber"
        for name in ("ship.one", "ship2"):
            before = handled(fleet, took)
            request = cbor2.loads(asked.data)
            request[0] = request[22] = name
            answer = seed_message(
                "gateway", name, "REQToFileAppend", [f"by {name}"], file_name="n.txt"
            )
            answer[8], answer[18] = True, request
            await publish(fleet, "gateway.REQToFileAppend.EventACK", answer)
            await until_async(lambda before=before: handled(fleet, took) > before, every_s=0.02)
        lines = await asking
    finally:
        await client.close()
    assert "by ship2" in lines
    assert "by ship.one" not in lines


async def test_an_answer_that_a_go_node_passed_on_is_seen_by_who_asked(fleet):
    """It passes it on as it came, in the name of who answered, and to nobody else's credit."""
    client = await nats.connect(fleet.url)
    try:
        heard = await client.subscribe("ship2.go.REQRelay.EventACK")
        await client.flush()
        message = relayed(to_nodes=["ship2"], method="REQCliCommand", file_name="go.txt")
        message["relay_via_node"] = "go"
        asking = asyncio.create_task(asyncio.to_thread(fleet.follow, message))
        asked = await heard.next_msg(timeout=60)
        await asked.respond(b"confirmed from: ship2.go: 0")
        request = cbor2.loads(asked.data)
        # as it sent it to the final node, which echoed it; its own mark was taken out of the copy
        request[0], request[3], request[4], request[9] = "ship2", None, "REQCliCommand", "go"
        request[20] = ""
        for name, via in (("ship.one", "go"), ("ship2", "gateway"), ("ship2", "go")):
            before = handled(fleet, "central.REQToFileAppend.EventACK_subscriber")
            echoed = [*request]
            echoed[9] = via
            answer = seed_message(
                "central", name, "REQToFileAppend", [f"{name} by {via}"], file_name="go.txt"
            )
            answer[8], answer[18] = True, echoed
            await publish(fleet, "central.REQToFileAppend.EventACK", answer)
            await until_async(
                lambda before=before: (
                    handled(fleet, "central.REQToFileAppend.EventACK_subscriber") > before
                ),
                every_s=0.02,
            )
        lines = await asking
    finally:
        await client.close()
    assert "ship2 by go" in lines
    assert "ship.one by go" not in lines
    assert "ship2 by gateway" not in lines


def test_a_node_without_relaying_passes_no_answer_on(fleet):
    message = forged({20: "ship3"})
    message[0] = "ship3"
    asyncio.run(publish(fleet, "ship3.REQToFileAppend.EventACK", message))
    log = fleet.data("errorLog", "errorCentral", "error.log")
    fleet.wait_until(
        lambda status: (
            log.exists() and "the answer from ship.one is not passed on" in log.read_text()
        )
    )


def test_a_body_that_disagrees_with_its_subject_is_not_relayed(fleet):
    # allowed to reach ship2 by way of the gateway, the sender names ship.one inside
    message = seed_message("ship2.gateway", "central", "REQRelay", ["x"])
    for position, value in {
        20: "gateway",
        21: "central",
        22: "ship.one",
        23: "REQToFileAppend",
    }.items():
        message[position] = value
    asyncio.run(publish(fleet, "ship2.gateway.REQRelay.EventACK", message))
    log = fleet.data("errorLog", "errorCentral", "error.log")
    fleet.wait_until(
        lambda status: log.exists() and "is not the node of the subject" in log.read_text()
    )


def test_the_first_step_is_for_the_own_node_alone(fleet):
    message = seed_message(
        "central", "central", "REQRelayInitial", ["first\n"], file_name="i", directory="initial"
    )
    for position, value in {
        20: "gateway",
        21: "central",
        22: "ship.one",
        23: "REQToFileAppend",
    }.items():
        message[position] = value
    asyncio.run(publish(fleet, "central.REQRelayInitial.EventACK", message))
    file = fleet.data("initial", "ship.one", "i")
    fleet.wait_until(lambda status: file.exists() and file.read_text() == "first\n")
    message[9] = "ship3"
    asyncio.run(publish(fleet, "central.REQRelayInitial.EventACK", message))
    log = fleet.data("errorLog", "errorCentral", "error.log")
    fleet.wait_until(
        lambda status: log.exists() and "sender 'ship3' is not in accept_from" in log.read_text()
    )
