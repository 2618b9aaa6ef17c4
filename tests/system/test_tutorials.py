"""The configs to learn from, run as their comments say, with what they say around them."""

import asyncio
import contextlib
import re
from pathlib import Path

import nats
import pytest

from appliance.core.message import Message
from appliance.wire.frame import decode_frame, encode_frame
from tests.support.appliance import Appliance
from tests.support.cut_link import CutLink
from tests.support.nats_server import NatsServer
from tests.support.waiting import until

pytestmark = pytest.mark.xdist_group("tutorials")  # they share the bridge's daemons
CONFIGS = Path(__file__).parents[2] / "configs"


def daemon(path, directory, *nodes, environment=None):
    """A daemon with variables of its own."""
    found = Appliance(None, directory, config_path=path)
    found.environment = environment or {}
    found.only_named = True
    found.args = [word for node in nodes for word in ("--node", node)]
    return found


class GoNode:
    """As a Go node of January 2022 behaves on the wire: gob, one fixed reply subject, acknowledged and then answered."""

    def __init__(self, client, name):
        self.client, self.name = client, name
        self.got = asyncio.Queue()

    async def listen(self, subject):
        await self.client.subscribe(subject, cb=self._take)
        await self.client.flush()

    async def _take(self, raw):
        message = decode_frame(raw.data, raw.headers or {})
        if raw.reply:
            await self.client.publish(raw.reply, f"confirmed from: {self.name}: 0".encode())
        await self.got.put(message)

    async def send(self, kind, *, timeout_s=10, **fields):
        """One message and the acknowledgement that came for it."""
        message = Message(from_node=self.name, ack_timeout_s=5, retries=1, **fields)
        subject = f"{message.to_node}.{message.method}.{kind}"
        payload, headers = encode_frame(message, "gob", "none")
        answers = await self.client.subscribe(f"{subject}.reply")
        await self.client.flush()
        await self.client.publish(
            subject, payload, reply=f"{subject}.reply", headers=headers or None
        )
        answer = await answers.next_msg(timeout_s)
        await answers.unsubscribe()
        return answer.data.decode()

    async def wait(self, method):
        async with asyncio.timeout(60):
            while True:
                message = await self.got.get()
                if message.method == method:
                    return message


@pytest.fixture(scope="module")
def bridge(tmp_path_factory):
    """The tutorial's broker, and both nodes of ours at it."""
    root = tmp_path_factory.mktemp("bridge")
    rules = (CONFIGS / "bridge" / "broker.conf").read_text().replace("listen: 127.0.0.1:4222", "")
    with NatsServer(rules) as broker, contextlib.ExitStack() as stack:
        daemons = {}
        for name in ("ship3", "ops"):
            environment = {
                "NATS_SERVER": broker.url,
                "NATS_USER": name,
                "NATS_PASSWORD": f"for-{name}",
            }
            daemons[name] = daemon(CONFIGS / "bridge", root / name, name, environment=environment)
            stack.enter_context(daemons[name])
        yield broker, daemons
        denied = [line for line in broker.log.splitlines() if "Violation" in line]
        assert [line for line in denied if "appliance" in line] == []


@contextlib.asynccontextmanager
async def go_node(broker, name):
    client = await nats.connect(broker.url, user=name, password=f"for-{name}")
    try:
        yield GoNode(client, name)
    finally:
        await client.close()


async def test_a_go_central_commands_our_ship_and_has_its_answer(bridge):
    broker, _ = bridge
    async with go_node(broker, "central") as central:
        await central.listen("central.REQToFileAppend.EventACK")
        said = await central.send(
            "CommandACK", to_node="ship3", method="REQCliCommand", method_args=("hostname",), reply_ack_timeout_s=5,
        )  # fmt: skip
        assert said.startswith("confirmed from: ship3")
        answer = await central.wait("REQToFileAppend")
        assert (answer.from_node, answer.is_reply) == ("ship3", True)
        assert answer.data[0].strip()
        assert answer.previous_message.method_args == ("hostname",)
        said = await central.send(
            "EventACK", to_node="ship3", method="REQPing", reply_method="REQPong"
        )
        assert said.startswith("confirmed from: ship3")


async def test_our_second_bridge_commands_a_go_ship_and_files_its_answer(bridge):
    broker, daemons = bridge
    ops = daemons["ops"]
    async with go_node(broker, "ship1") as ship1:
        await ship1.listen("ship1.REQCliCommand.CommandACK")
        (sent,) = await asyncio.to_thread(
            ops.send, {"from_node": "ops", "to_nodes": ["ship1"], "method": "REQCliCommand", "method_args": ["uptime"],
             "directory": "answers", "file_name": "uptime.log"}
        )  # fmt: skip
        assert sent["to"] == "ship1"
        question = await ship1.wait("REQCliCommand")
        assert (question.from_node, question.method_args) == ("ops", ("uptime",))
        said = await ship1.send(
            "EventACK", to_node="ops", method="REQToFileAppend", data=("up 3 days\n",), is_reply=True,
            directory="answers", file_name="uptime.log", previous_message=question,
        )  # fmt: skip
        assert said.startswith("confirmed from: ops")
    filed = ops.data("answers", "ship1", "uptime.log")
    await asyncio.to_thread(
        ops.wait_until, lambda status: not status["outbox"]["pending"] and filed.exists()
    )
    await asyncio.to_thread(ops.wait_until, lambda status: not status["inbox"]["unfinished"])
    assert filed.read_text() == "up 3 days\n"


async def test_what_the_lists_and_the_broker_do_not_allow_does_not_happen(bridge):
    broker, _ = bridge
    async with go_node(broker, "central") as central:
        await central.listen("errorCentral.REQErrorLog.EventACK")
        await central.send(
            "CommandACK", to_node="ship3", method="REQCliCommand", method_args=("reboot",)
        )
        refused = await central.wait("REQErrorLog")
        assert (refused.from_node, "reboot" in refused.data[0]) == ("ship3", True)
        # who holds the key of a ship orders no other one about
        await central.listen("ship2.REQCliCommand.CommandACK")
        async with go_node(broker, "ship3") as thief:
            with pytest.raises(nats.errors.TimeoutError):
                await thief.send("CommandACK", to_node="ship2", method="REQCliCommand", timeout_s=1)
        assert central.got.empty()


def hub_conf(tmp_path):
    text = (CONFIGS / "satellite" / "hub.conf").read_text()
    text = text.replace("listen: 127.0.0.1:4222", "").replace(":7422", ":-1")
    return text.replace("/tmp/shore", str(tmp_path / "shore"))


def ship_conf(leaf_port):
    text = (CONFIGS / "satellite" / "ship.conf").read_text().replace("listen: 127.0.0.1:4223", "")
    return text.replace(":7422", f":{leaf_port}").replace("reconnect: 5s", "reconnect: 1s")


LEAF = re.compile(r"leafnode connections on 127\.0\.0\.1:(\d+)")


def test_what_is_sent_while_the_link_to_the_ship_is_away_is_done_once_when_it_is_back(tmp_path):
    satellite = CONFIGS / "satellite"
    # what is heard while the link comes up, and confirmed before it is, is asked again after the timeout
    config = tmp_path / "appliance.yaml"
    config.write_text(
        (satellite / "appliance.yaml").read_text().replace("timeout: 30s", "timeout: 2s")
    )
    with NatsServer(hub_conf(tmp_path)) as hub:
        ship_rules = ship_conf(LEAF.search(hub.log)[1])
        with NatsServer(ship_rules) as board, contextlib.ExitStack() as stack:
            daemons = {}
            for name, url in (("central", hub.url), ("ship1", board.url)):
                daemons[name] = daemon(
                    config, tmp_path / name, name, environment={"NATS_SERVER": url}
                )
                stack.enter_context(daemons[name])
            central, ship1 = daemons["central"], daemons["ship1"]
            question = {"to_nodes": ["ship1"], "method": "REQCliCommand", "method_args": ["hostname"],
                        "directory": "answers", "file_name": "host.log"}  # fmt: skip
            answers = central.data("answers", "ship1", "host.log")
            central.send(question)
            central.wait_until(
                lambda status: answers.exists() and answers.read_text().endswith("\n")
            )
            once = answers.read_bytes()
            board.kill()  # the link, and the broker on board with it
            central.send(question)
            central.wait_until(lambda status: status["outbox"]["pending"] == 1)
            board.start()
            central.wait_until(
                lambda status: answers.read_bytes() == once * 2 and not status["outbox"]["pending"],
                60,
            )
            assert ship1.worker("ship1.REQCliCommand.CommandACK_subscriber")["handled"] == 2


def test_a_stream_on_shore_keeps_orders_for_a_ship_out_of_reach_and_central_need_not_wait(tmp_path):
    config = CONFIGS / "satellite" / "appliance.yaml"
    orders = {"to_nodes": ["ship1"], "method": "REQToFileAppend",
              "directory": "orders", "file_name": "today"}  # fmt: skip
    with NatsServer(hub_conf(tmp_path)) as hub, CutLink(int(LEAF.search(hub.log)[1])) as link:
        link.cut()
        with daemon(
            config, tmp_path / "central", "central", environment={"NATS_SERVER": hub.url}
        ) as central:
            for number in range(30):
                central.send({**orders, "data": [f"{number}\n"]})
            until(lambda: not central.status()["outbox"]["pending"], tell=central.log)
        with (
            NatsServer(ship_conf(link.port).replace("reconnect: 1s", "reconnect: 100ms")) as board,
            daemon(
                config, tmp_path / "ship1", "ship1", environment={"NATS_SERVER": board.url}
            ) as ship1,
        ):
            worker = "ship1.REQToFileAppend.EventACK_subscriber"
            until(lambda: "no domain shore" in (ship1.worker(worker)["last_error"] or ""))
            link.mend()
            written = ship1.data("orders", "ship1", "today")
            until(
                lambda: written.exists() and written.read_text().count("\n") == 30, tell=ship1.log
            )
            assert sorted(map(int, written.read_text().split())) == list(range(30))
