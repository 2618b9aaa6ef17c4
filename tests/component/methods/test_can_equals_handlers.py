"""What `can` says of a config is what nodes of that config do: directly, and by way of a relay."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from appliance.bus.base import BusMessage
from appliance.config.arguments import find_argument_problem
from appliance.core.message import Message
from appliance.core.names import MethodName
from appliance.core.policy import ANY_WAY, Question, find_relays, judge
from appliance.core.relay import RELAY_METHOD, wrap
from appliance.core.specs import DesiredState, SubscriberSpec
from appliance.dialect.spoken import make_dialect
from appliance.errors import HandlerError
from appliance.methods.base import Handler, Result
from appliance.methods.registry import METHOD_TABLE, METHODS
from appliance.wire.frame import encode_frame
from appliance.wire.headers import encode_headers
from appliance.workers.incoming import Admission, Incoming
from tests.component.methods.conftest import Bench
from tests.support.config_files import desired_of
from tests.support.config_strategies import to_yaml

NODES = ("central", "gate", "ship1", "north.buoy")
ASKED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("REQPing", ()),
    ("REQCliCommand", ("true",)),
    ("REQCliCommand", ("true", "x")),
    ("REQCliCommand", ("false",)),
    ("REQCliCommand", ()),
    (RELAY_METHOD, ()),
)
DIALECT = make_dialect()
NO_VERIFIER: Any = None
"""Nothing is signed here."""


def make_tree(rng: random.Random) -> dict[str, Any]:
    """A fleet in which some take something from some, and some pass something on."""

    def some(names: tuple[str, ...]) -> list[str]:
        return rng.sample(names, rng.randint(1, len(names)))

    nodes: dict[str, Any] = {}
    for name in NODES:
        subscribe: dict[str, dict[str, Any]] = {}
        for method in rng.sample(("REQPing", "REQCliCommand", RELAY_METHOD), rng.randint(1, 3)):
            entry = subscribe[method] = {}
            if rng.random() < 0.7:
                entry["accept_from"] = rng.choice((some(NODES), some(NODES), "any"))
            if method == "REQCliCommand":
                patterns = [["true"], ["true", "*"], ["false"]]
                entry["allow_commands"] = rng.choice(("any", rng.sample(patterns, 1), patterns))
            if method == RELAY_METHOD:
                entry["relay_to"] = some(NODES)
                entry["relay_methods"] = rng.choice(
                    ("any", ["REQPing"], ["REQPing", "REQCliCommand"])
                )
        nodes[name] = {"subscribe": subscribe}
    return {"version": 1, "broker": {"embedded": True}, "nodes": nodes}


class Fleet:
    """Nodes of a config, each with the admission and the handlers that its daemon has."""

    def __init__(self, desired: DesiredState, bench: Bench) -> None:
        self.desired = desired
        self._bench = bench
        self._handlers: dict[str, Handler] = {}
        self._done: dict[tuple[str, str, tuple[str, ...]], bool] = {}

    async def does(self, message: Message) -> bool:
        """Whether a message that its sender publishes has its node, or the one behind a relay, do it."""
        found = self._admit(message)
        if found is None:
            return False
        spec, opened = found
        if message.method != RELAY_METHOD:
            asked = (spec.node, message.method, tuple(message.method_args or ()))
            if asked not in self._done:
                self._done[asked] = await self._handle(spec, opened) is not None
            return self._done[asked]
        result = await self._handle(spec, opened)
        return result is not None and await self.does(result.messages[0].message)

    def takes(self, message: Message) -> bool:
        """Whether a message is let in."""
        return self._admit(message) is not None

    def _admit(self, message: Message) -> tuple[SubscriberSpec, Message] | None:
        start = f"{message.to_node}.{message.method}."
        for spec in self.desired.workers.values():
            if not (isinstance(spec, SubscriberSpec) and spec.subject.startswith(start)):
                continue
            payload, headers = encode_frame(message, "cbor", "none")
            admission = Admission(spec, message.to_node, self.desired, DIALECT, NO_VERIFIER)
            delivery = BusMessage(spec.subject, payload, encode_headers(headers))
            work = admission.admit(delivery, METHODS[MethodName(message.method)].make())
            return (spec, work.message) if isinstance(work, Incoming) and work.message else None
        return None

    async def _handle(self, spec: SubscriberSpec, message: Message) -> Result | None:
        context = self._bench.context(message.method)
        context.node, context.spec = spec.node, spec
        try:
            return await METHODS[MethodName(message.method)].make().handle(message, context)
        except HandlerError:
            return None


@pytest.mark.parametrize("seed", range(12))
async def test_can_says_what_admission_and_handlers_do_by_every_way(
    tmp_path: Path, bench: Bench, seed: int
) -> None:
    tree = make_tree(random.Random(seed))
    fleet = Fleet(desired_of(tmp_path, to_yaml(tree)), bench)
    said: set[tuple[bool, bool]] = set()
    for node in NODES:
        for sender in (*NODES, "stranger"):
            for method, arguments in ASKED:
                question = Question(node, method, arguments, sender)

                def can(via: str, question: Question = question) -> bool:
                    asked = question._replace(via=via)
                    return judge(
                        asked, fleet.desired, METHOD_TABLE, find_argument_problem
                    ).is_allowed

                message = Message(
                    to_node=node, from_node=sender, method=method, method_args=arguments or None
                )
                ways = {}
                if method == RELAY_METHOD:
                    # what it is asked to pass on is a question of its own
                    specs = fleet.desired.workers.values()
                    finals = [
                        one.subject.removesuffix(f".{node}.{RELAY_METHOD}.EventACK")
                        for one in specs
                        if isinstance(one, SubscriberSpec)
                        and (one.node, one.method) == (node, method)
                    ]
                    is_done = any(
                        fleet.takes(message._replace(to_node=f"{final}.{node}")) for final in finals
                    )
                else:
                    is_done = await fleet.does(message)
                assert can("") is is_done, (question, tree)
                for via in (*NODES, "stranger"):
                    wrapped = wrap(message._replace(relay_via_node=via))
                    ways[via] = not isinstance(wrapped, str) and await fleet.does(wrapped)
                    assert can(via) is ways[via], (question, via, tree)
                    said.add((is_done, ways[via]))
                relays = find_relays(question, fleet.desired, METHOD_TABLE, find_argument_problem)
                assert sorted(relays) == sorted(via for via, is_way in ways.items() if is_way)
                assert can(ANY_WAY) is (is_done or any(ways.values()))
    assert (False, False) in said
    assert len(said) > 1, "a fleet in which nothing is allowed shows nothing"
