"""What is remembered of a message and whether it runs again: each way a handler can end, each place where the answer to
its sender can get lost, and what comes next.

The receiver acknowledges after the work (``ack.on: done``). `EXPECTED` states, for a command and for a method that may
run twice, per end and per place of the loss:

- `remembered`: the verdict that the receiver's store keeps
- `runs`: how often the handler was called until everything is at rest: the sender asks again by itself, and
  whoever
  crashed has started again
- `told`: what the sender made of it: settled as done, or a dead letter in that state
- `after retry`: how often the handler was called after the operator of the sender retried his dead letters and the
  handler
  has learnt to succeed; for messages that are done nothing is to be retried and nothing runs

Then both daemons start anew and nothing of it changes.

The table in short: how the handler ends / what kind of method / where the answer gets lost ("elsewhere": anywhere but at the
place named in the line beside it).

- done / command / elsewhere: remembered done, told done, 1 run, 1 after a retry
- done / command / receiver crashes before the verdict is durable: remembered failed, told failed, 1 run, 2 after a
  retry
- done / may run twice / elsewhere: remembered done, told done, 1 run, 1 after a retry
- done / may run twice / receiver crashes before the verdict is durable: remembered done, told done, 2 runs, 2
  after a retry
- HandlerError / command / wherever: remembered failed, told failed, 1 run, 2 after a retry
- HandlerError / may run twice / elsewhere: remembered failed, told failed, 1 run, 2 after a retry
- HandlerError / may run twice / receiver crashes before the verdict is durable: remembered failed, told failed, 2
  runs, 3 after a retry
- exception / command / wherever: remembered failed, told failed, 1 run, 2 after a retry
- exception / may run twice / elsewhere: remembered failed, told failed, 1 run, 2 after a retry
- exception / may run twice / receiver crashes before the verdict is durable: remembered failed, told failed, 2
  runs, 3 after a retry
- time-out / command / wherever: remembered failed, told failed, 1 run, 2 after a retry
- time-out / may run twice / elsewhere: remembered failed, told failed, 1 run, 2 after a retry
- time-out / may run twice / receiver crashes before the verdict is durable: remembered failed, told failed, 2
  runs, 3 after a retry
- unwanted / command / elsewhere: remembered done, told done, 1 run, 1 after a retry
- unwanted / command / receiver crashes before the verdict is durable: remembered failed, told failed, 1 run, 2
  after a retry
- unwanted / may run twice / elsewhere: remembered done, told done, 1 run, 1 after a retry
- unwanted / may run twice / receiver crashes before the verdict is durable: remembered done, told done, 2 runs, 2
  after a retry
- receiver crashes in the middle of it / command / wherever: remembered failed, told failed, 1 run, 2 after a retry
- receiver crashes in the middle of it / may run twice / elsewhere: remembered done, told done, 2 runs, 2 after a
  retry
- receiver crashes in the middle of it / may run twice / receiver crashes before the verdict is durable: remembered
  done, told done, 3 runs, 3 after a retry
"""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import NamedTuple

import pytest

from appliance.bus.base import BusMessage
from appliance.core.delivery import DeliveryState, state_of_reason
from appliance.errors import BusUnavailable
from tests.support.heart_checks import find_violations
from tests.support.heart_world import Behaviour, Daemon, End, Run, Sent, World, quiet_logs
from tests.support.memory_store import CrashPoint
from tests.support.virtual_time import run_virtual

CONFIG = """
version: 1
broker: {servers: ["nats://127.0.0.1:4222"]}
nodes:
  alpha: {subscribe: {REQToFileAppend: {accept_from: [beta]}, REQErrorLog: {accept_from: any}}}
  beta:
    subscribe:
      REQToConsole: {accept_from: [alpha], ack: {on: done}, method_timeout: 3s}
      REQCliCommand: {accept_from: [alpha], allow_commands: any, ack: {on: done}, method_timeout: 3s}
"""
REST_S = 3_600.0
COMMAND, REPEATABLE = "REQCliCommand", "REQToConsole"
TEXT = "the message"


class Ending(StrEnum):
    """How the handler ends at first."""

    DONE = "done"
    HANDLER_ERROR = "HandlerError"
    EXCEPTION = "exception"
    TIMEOUT = "time-out"
    UNWANTED = "unwanted"
    CRASH = "receiver crashes in the middle of it"


class Loss(StrEnum):
    """Where the first answer gets lost."""

    NOWHERE = "nowhere"
    BEFORE_SEND = "connection lost before it is sent"
    ON_THE_WIRE = "on the wire"
    SENDER_CRASH = "sender crashes before it settles"
    BEFORE_FINISH = "receiver crashes before the verdict is durable"
    AFTER_FINISH = "receiver crashes right after"


class Cell(NamedTuple):
    """What is expected; see the module."""

    remembered: str
    runs: int
    told: DeliveryState
    runs_after_retry: int


DONE, FAILED = DeliveryState.DONE, DeliveryState.FAILED
_ENDS_WELL = Cell("done", 1, DONE, 1)
_FAILS = Cell("failed", 1, FAILED, 2)

EXPECTED: dict[tuple[str, Ending, Loss], Cell] = {}
for _loss in Loss:
    for _method in (COMMAND, REPEATABLE):
        for _ending in (Ending.DONE, Ending.UNWANTED):
            EXPECTED[_method, _ending, _loss] = _ENDS_WELL
        for _ending in (Ending.HANDLER_ERROR, Ending.EXCEPTION, Ending.TIMEOUT):
            EXPECTED[_method, _ending, _loss] = _FAILS
    # cut off in the middle: a command is reported as interrupted and not run again; the other runs again
    EXPECTED[COMMAND, Ending.CRASH, _loss] = _FAILS
    EXPECTED[REPEATABLE, Ending.CRASH, _loss] = Cell("done", 2, DONE, 2)
for _ending in (Ending.DONE, Ending.UNWANTED):
    # the work is done, but a crash came before that was on disk: nobody knows, so it was interrupted
    EXPECTED[COMMAND, _ending, Loss.BEFORE_FINISH] = _FAILS
    EXPECTED[REPEATABLE, _ending, Loss.BEFORE_FINISH] = Cell("done", 2, DONE, 2)
for _ending in (Ending.HANDLER_ERROR, Ending.EXCEPTION, Ending.TIMEOUT):
    EXPECTED[REPEATABLE, _ending, Loss.BEFORE_FINISH] = Cell("failed", 2, FAILED, 3)
EXPECTED[REPEATABLE, Ending.CRASH, Loss.BEFORE_FINISH] = Cell("done", 3, DONE, 3)


def table() -> list[str]:
    """`EXPECTED` in lines; places of the loss that change nothing stand together."""
    groups: dict[tuple[Ending, str, Cell], list[Loss]] = {}
    for ending in Ending:
        for method in (COMMAND, REPEATABLE):
            for loss in Loss:
                cell = EXPECTED[method, ending, loss]
                groups.setdefault((ending, method, cell), []).append(loss)
    lines = []
    for (ending, method, cell), losses in groups.items():
        where = {len(Loss): "wherever", 1: losses[0]}.get(len(losses), "elsewhere")
        name = "command" if method == COMMAND else "may run twice"
        runs = f"{cell.runs} {'run' if cell.runs == 1 else 'runs'}, {cell.runs_after_retry} after a retry"
        lines.append(
            f"{ending} / {name} / {where}: remembered {cell.remembered}, told {cell.told}, {runs}"
        )
    return lines


class Trial:
    """One cell, tried."""

    def __init__(self, world: World, method: str, ending: Ending, loss: Loss) -> None:
        self.world = world
        self.method = method
        self.ending = ending
        self.loss = loss
        self.lost = 0
        """Whether what was to happen to the first answer has happened."""

    async def run(self) -> tuple[Cell, list[str]]:
        """What came of it, and what was violated."""
        world = self.world
        alpha = await world.add_daemon("alpha", CONFIG, ["alpha"])
        beta = await world.add_daemon("beta", CONFIG, ["beta"])
        world.behaviour[TEXT] = Behaviour(0.5, (self._end(),))
        self._arm(alpha, beta)
        nurse = asyncio.get_running_loop().create_task(world.revive_the_dead(1.0))
        (number,) = await alpha.submit([TEXT], method=self.method)
        if self.ending is Ending.CRASH:
            await asyncio.sleep(0.3)
            assert world.log.of(TEXT), "the handler was not called yet"
            if self.loss is Loss.BEFORE_FINISH:
                self._crash_at_next_verdict(beta, is_durable=False)
            if self.loss is Loss.AFTER_FINISH:
                self._crash_at_next_verdict(beta, is_durable=True)
            beta.kill()
        await world.settle(REST_S, until=world.is_quiet)
        assert self.lost or self.loss is Loss.NOWHERE, f"nothing was lost: {self.loss}"
        found = Cell(
            self._remembered(beta, number), len(world.log.of(TEXT)), self._told(alpha, number), 0
        )
        world.behaviour[TEXT] = Behaviour()
        retried = await alpha.run(alpha.store.retry_dead())
        assert retried == (found.told is not DONE)
        await world.settle(REST_S, until=world.is_quiet)
        found = found._replace(runs_after_retry=len(world.log.of(TEXT)))
        await self._start_anew(alpha, beta)
        assert len(world.log.of(TEXT)) == found.runs_after_retry
        assert self._remembered(beta, number) == "done"
        assert self._told(alpha, number) is DONE
        nurse.cancel()
        return found, find_violations(world)

    def _end(self) -> End:
        return End.DONE if self.ending is Ending.CRASH else End[self.ending.name]

    def _arm(self, alpha: Daemon, beta: Daemon) -> None:
        """Have the first answer, or what leads to it, go wrong."""
        if self.loss in (Loss.BEFORE_SEND, Loss.ON_THE_WIRE):
            # NB: whichever process says it; a crash in the middle gives the daemon a new line
            self.world.swallows["beta"] = self._on_sent
        elif self.loss is Loss.SENDER_CRASH:
            self.world.hears["alpha"] = self._on_heard
        elif (
            self.loss in (Loss.BEFORE_FINISH, Loss.AFTER_FINISH) and self.ending is not Ending.CRASH
        ):

            def crash(run: Run) -> None:
                self.world.on_run_end = lambda _: None
                self._crash_at_next_verdict(beta, is_durable=self.loss is Loss.AFTER_FINISH)

            self.world.on_run_end = crash

    def _on_sent(self, sent: Sent) -> bool:
        if not sent.is_answer or self.lost or self.method not in sent.subject:
            return False
        self.lost += 1
        if self.loss is Loss.BEFORE_SEND:
            self.world.daemons["beta"].line.stay_away(2.0)
            raise BusUnavailable("the connection broke just now")
        return True

    def _on_heard(self, message: BusMessage) -> None:
        if self.lost or not message.payload.startswith((b"confirmed", b"refused")):
            return
        self.lost += 1
        disk = self.world.daemons["alpha"].disk
        disk.crash_at = CrashPoint(disk.commits + 1, is_durable=False)

    def _crash_at_next_verdict(self, beta: Daemon, *, is_durable: bool) -> None:
        self.lost += 1
        beta.disk.crash_at_verdict = is_durable

    def _remembered(self, beta: Daemon, number: int) -> str:
        verdicts = [
            known.verdict for key, known in beta.disk.seen.items() if key.message_id == number
        ]
        assert len(verdicts) == 1, verdicts
        return verdicts[0].partition(":")[0]

    def _told(self, alpha: Daemon, number: int) -> DeliveryState:
        assert number not in alpha.disk.records, "it still waits"
        dead = alpha.disk.dead.get(number)
        return DONE if dead is None else state_of_reason(dead.reason)

    async def _start_anew(self, alpha: Daemon, beta: Daemon) -> None:
        for daemon in (alpha, beta):
            daemon.kill()
        await asyncio.sleep(3)
        await self.world.settle(REST_S, until=self.world.is_quiet)


@pytest.mark.parametrize(("method", "ending", "loss"), EXPECTED)
def test_each_end_is_remembered_told_and_run_again_as_the_table_says(
    method: str, ending: Ending, loss: Loss
):
    async def scenario() -> tuple[Cell, list[str]]:
        async with World() as world:
            return await Trial(world, method, ending, loss).run()

    with quiet_logs():
        found, violations = run_virtual(scenario(), seed=1)
    assert found == EXPECTED[method, ending, loss]
    assert violations == []


@pytest.mark.parametrize(("end", "is_told"), [(End.HANDLER_ERROR, True), (End.BEGIN_AGAIN, False)])
def test_a_sender_that_is_to_begin_again_hears_so_and_no_operator_is_told_of_a_failure(
    caplog, end, is_told
):
    async def scenario() -> DeliveryState:
        async with World() as world:
            alpha = await world.add_daemon("alpha", CONFIG, ["alpha"])
            await world.add_daemon("beta", CONFIG, ["beta"])
            world.behaviour[TEXT] = Behaviour(0.5, (end,))
            (number,) = await alpha.submit([TEXT], method=REPEATABLE)
            await world.settle(REST_S, until=world.is_quiet)
            return state_of_reason(alpha.disk.dead[number].reason)

    assert run_virtual(scenario(), seed=1) is FAILED
    assert ("handler failed" in caplog.text) == is_told


def test_table_stands_in_the_docstring():
    assert __doc__ is not None
    said = " ".join(__doc__.split())
    missing = [line for line in table() if line not in said]
    assert not missing, "\n".join(table())
