"""What stands in the place of a method that computes: what the end of a process means for the message, as a config says."""

from dataclasses import replace

import pytest

from appliance.config.loader import load_desired
from appliance.core.describe import describe_settings
from appliance.core.message import Message
from appliance.core.method import MethodInfo, OnCrash
from appliance.core.names import Category, MethodName, NodeName
from appliance.core.outcome import was_cut_off
from appliance.core.specs import SubscriberSpec
from appliance.errors import HandlerError
from appliance.methods.base import Method, Result
from appliance.methods.computing.child import make_context
from appliance.methods.computing.frames import Facts, encode_result
from appliance.methods.computing.handler import MAX_TRIES, MOMENT_S, in_processes
from appliance.methods.computing.process import ProcessEnded
from appliance.methods.registry import METHOD_TABLE
from tests.support.config_files import desired_of, load_text

INFO = MethodInfo(
    name=MethodName("REQSpin"), summary="", category=Category.EVENT, replies=True, computes=True
)
SPEC = SubscriberSpec(
    node=NodeName("ship"),
    subject="ship.REQSpin.EventACK",
    method=INFO.name,
    wants_ack=True,
)
MESSAGE = Message(to_node="ship", from_node="central", id=7)


class Pool:
    """Ends as it is told, one after the other."""

    def __init__(self, *ends):
        self.ends = list(ends)
        self.asked = []

    async def compute(self, raw, limit_s, doing):
        self.asked.append((limit_s, doing))
        end = self.ends.pop(0)
        if isinstance(end, Exception):
            raise end
        return end


async def handle(pool, *, on_crash=OnCrash.RERUN, rerun=False):
    info = replace(INFO, on_crash=on_crash)
    method = in_processes(Method(info=info, make=object, module="m"), pool)
    facts = Facts(node=SPEC.node, spec=replace(SPEC, rerun=rerun), timeout_s=5.0, now=0.0)
    return await method.make().handle(MESSAGE, make_context(facts))


DIED = ProcessEnded("was killed by signal 9")
DONE = encode_result(Result(output=b"done"))


async def test_message_whose_process_died_is_handled_once_more_where_it_may_run_twice():
    pool = Pool(DIED, DONE)
    assert (await handle(pool)).output == b"done"
    assert pool.asked == [(5.0 + MOMENT_S, "ship.REQSpin.EventACK 7 of central")] * 2
    pool = Pool(DIED, DONE)
    assert (await handle(pool, on_crash=OnCrash.INTERRUPT, rerun=True)).output == b"done"


async def test_message_that_must_not_run_twice_is_reported_as_interrupted():
    pool = Pool(DIED, DONE)
    with pytest.raises(HandlerError, match="killed by signal 9") as raised:
        await handle(pool, on_crash=OnCrash.INTERRUPT)
    assert was_cut_off(f"failed: {raised.value}")
    assert len(pool.asked) == 1


async def test_message_that_processes_die_of_has_failed_in_the_end():
    pool = Pool(*[DIED] * 10)
    with pytest.raises(HandlerError, match=f"{MAX_TRIES} processes ended"):
        await handle(pool)
    assert len(pool.asked) == MAX_TRIES


async def test_word_that_is_no_outcome_fails_the_message_and_is_not_asked_for_again():
    pool = Pool(b"\xc1", DONE)
    with pytest.raises(HandlerError, match="no outcome"):
        await handle(pool)


def test_method_that_does_not_compute_is_left_as_it_is():
    method = Method(info=replace(INFO, computes=False), make=object)
    assert in_processes(method, Pool()) is method


CONFIG = """
version: 1
workers: {workers}
broker: {{embedded: true}}
nodes: {{ship: {{subscribe: {{REQSpin: {{}}, REQPing: {{}}}}}}}}
"""


def test_change_of_their_number_is_told_by_the_word_in_the_config(tmp_path):
    plain = CONFIG.replace("REQSpin: {{}}, ", "")
    old, new = (desired_of(tmp_path, plain.format(workers=count)) for count in (1, 4))
    assert describe_settings(old, new) == {"workers": [1, 4]}


def test_their_number_is_warned_of_only_where_nothing_computes(tmp_path):
    plain = CONFIG.replace("REQSpin: {{}}, ", "")
    found = load_text(tmp_path, plain.format(workers=2)).warnings
    assert [problem.code for problem in found] == ["W262"]
    assert load_text(tmp_path, plain.format(workers=1)).warnings == ()
    path = tmp_path / "spins.yaml"
    path.write_text(CONFIG.format(workers=2))
    methods = {**METHOD_TABLE, INFO.name: INFO}
    assert load_desired([str(path)], environ={}, methods=methods).warnings == ()
