"""Start, reload, rollback and the end of a trial promise the same: real files and history, toy workers."""

import asyncio
import contextlib
import errno
import re
import threading

import pytest

from appliance.core.current import Current
from appliance.core.problems import Problem
from appliance.errors import ConfigError, DaemonError, RequestInvalid
from appliance.methods.registry import METHOD_TABLE
from appliance.reconcile import disk, history, trigger
from appliance.reconcile import pool as pool_module
from appliance.reconcile import rollback as way_back
from appliance.reconcile import start as starting
from appliance.reconcile.convergence import Convergence
from appliance.reconcile.disk import SourceReader
from appliance.reconcile.history import History
from appliance.reconcile.kept_files import (
    SIGNED_COMMIT_FILE,
    KeptFile,
    Pin,
    PinKeeper,
    SignedCommits,
)
from appliance.reconcile.overrides import OverrideBook
from appliance.reconcile.pool import WorkerPool
from appliance.reconcile.reconciler import Reconciler
from appliance.reconcile.source import FileConfigSource
from appliance.reconcile.start import find_start
from appliance.reconcile.trial import KeptTrial
from appliance.reconcile.trigger import Trigger
from tests.component.test_pool import Recorder, ToyWorker
from tests.support.waiting import until_async

GOOD = """
version: 1
broker: {servers: ["nats://127.0.0.1:1"]}
reload: {settle: 0s, poll_interval: 50ms, trial: 0s, max_cancel: 50%}
nodes:
  ship1: {subscribe: {REQPing: {}, REQToFile: {}, REQToConsole: {}, REQHello: {}}}
"""
OTHER = GOOD.replace("REQHello: {}", "REQPong: {}")
THIRD = GOOD.replace("REQHello: {}", "REQErrorLog: {}")
TRIAL = OTHER.replace("trial: 0s", "trial: 60s")


class Part:
    """Something with settings that can be moved; refuses what `refuses` says of the new set."""

    def __init__(self, code, section):
        self.code, self.section = code, section
        self.refuses = False
        self.is_stubborn = False
        """Refuses a way back, too."""
        self.at = None

    def differs(self, old, new):
        return getattr(old, self.section) != getattr(new, self.section)

    async def stage(self, old, new, *, insist):
        if self.refuses and (insist or self.is_stubborn):
            raise DaemonError("not today")
        before, self.at = self.at, getattr(new, self.section)
        return Moved(self, before)

    def describe(self, error):
        return Problem(code=self.code, path=self.section, message=str(error))


class Moved:
    def __init__(self, part, before):
        self.part, self.before = part, before

    async def commit(self):
        pass

    async def abandon(self):
        self.part.at = self.before


class Node:
    """A reconciler over a directory of files and one of state; can be ended and started again."""

    def __init__(self, tmp_path):
        self.files = tmp_path / "conf"
        self.state = tmp_path / "state"
        self.file = self.files / "fleet.yaml"
        self.files.mkdir()
        self.state.mkdir()
        self.parts = [Part("E303", "admin"), Part("E307", "inputs"), Part("E304", "broker")]
        self.asked_nodes = ("ship1",)
        self.is_connected = True
        self.telemetry = Recorder()
        self.history = History(self.state / "history")
        self.running = None
        self.wall = 1_000_000.0

    def write(self, text):
        self.files.mkdir(exist_ok=True)
        self.file.write_text(text)

    def remove_files(self):
        self.file.unlink(missing_ok=True)
        self.files.rmdir()

    async def start(self):
        self.source = FileConfigSource(
            [str(self.files)], nodes=self.asked_nodes, all_nodes=False, hostname="ship1"
        )
        self.history.open()
        book = KeptFile(self.state / "pin.json", Pin)
        commits = SignedCommits(self.state / SIGNED_COMMIT_FILE)
        start = find_start(self.source, self.history, book, commits, path=str(self.files))
        self.source.compare_with(lambda: commits.newest)
        pool = self.pool = WorkerPool(
            ToyWorker, self.telemetry, wall=lambda: self.wall, on_ended=lambda: None
        )
        self.desired = Current(start.built)
        self.desired.follow(self.source.trust)
        overrides = OverrideBook(
            self.state / "overrides.json",
            desired=self.desired,
            methods=lambda: METHOD_TABLE,
            wall=lambda: self.wall,
            on_change=lambda: None,
        )
        self.reader = SourceReader(self.source, str(self.files))
        self.reconciler = Reconciler(
            self.reader,
            Convergence(pool, overrides, dict, self.telemetry, Trigger()),
            self.telemetry,
            self.history,
            trigger=Trigger(),
            reloadables=self.parts,
            on_accepted=self.desired.put,
            overrides=overrides,
            pins=PinKeeper(book, self.telemetry.history_not_written),
            commits=commits,
            trial_file=KeptFile(self.state / "trial.json", KeptTrial),
            bus=self,
            wall=lambda: self.wall,
        )
        await self.reconciler.start(start)
        self.running = asyncio.create_task(self.reconciler.run())

    async def stop(self):
        if self.running is None:
            return
        self.reconciler.stop()
        with contextlib.suppress(asyncio.CancelledError):
            await self.running
        self.running = None
        await self.reader.close()
        await self.pool.stop_all(asyncio.get_running_loop().time() + 1, ["subscriber", "publisher"])

    async def restart(self):
        await self.stop()
        await self.start()

    async def reload(self, *, force=False):
        return await self.reconciler.reload(force=force, trigger="request")

    async def roll_back(self, to=None):
        return await self.reconciler.roll_back(to=to, force=False)

    @property
    def methods(self):
        return {key.subject.split(".")[1] for key in self.pool.handles}

    @property
    def codes(self):
        return [problem.code for problem in self.reconciler.last_attempt.problems]

    def part(self, code):
        return next(part for part in self.parts if part.code == code)


@pytest.fixture
async def node(tmp_path, monkeypatch):
    ToyWorker.alive = set()
    made = Node(tmp_path)
    yield made
    await made.stop()


GOOD_METHODS = {"REQPing", "REQToFile", "REQToConsole", "REQHello"}
OTHER_METHODS = {"REQPing", "REQToFile", "REQToConsole", "REQPong"}


def refuse_mistake(node):
    node.write(OTHER + "typo: 1\n")


def refuse_most_cancelled(node):
    node.write(GOOD.replace("REQToFile: {}, REQToConsole: {}, REQHello: {}", ""))


def refuse_listener(node):
    node.part("E303").refuses = True
    node.write(OTHER + 'admin: {listen: "127.0.0.1:1"}\n')


def refuse_input(node):
    node.part("E307").refuses = True
    node.write(OTHER + 'inputs: {tcp: {listen: "127.0.0.1:1"}}\n')


def refuse_broker(node):
    node.part("E304").refuses = True
    node.write(OTHER.replace("127.0.0.1:1", "127.0.0.1:2"))


def refuse_node_gone(node):
    node.write(OTHER.replace("ship1", "ship2"))


def refuse_no_work_tree(node):
    node.write(OTHER + "config: {source: git}\n")


def refuse_missing(node):
    node.remove_files()


def refuse_empty(node):
    node.write("")


REFUSALS = {
    refuse_mistake: "E101",
    refuse_most_cancelled: "E302",
    refuse_listener: "E303",
    refuse_broker: "E304",
    refuse_node_gone: "E305",
    refuse_input: "E307",
    refuse_no_work_tree: "E311",
    refuse_missing: "E001",
    refuse_empty: "E103",
}
REFUSED = pytest.mark.parametrize(
    ("refuse", "code"), REFUSALS.items(), ids=[f.__name__.removeprefix("refuse_") for f in REFUSALS]
)


async def reloads(node):
    await node.reload()


async def restarts(node):
    await node.restart()


async def reboots_twice(node):
    await node.restart()
    await node.restart()


WAYS = pytest.mark.parametrize("goes", [reloads, restarts, reboots_twice])


@WAYS
@REFUSED
async def test_what_is_refused_comes_into_force_on_no_way(node, refuse, code, goes):
    node.write(GOOD)
    await node.start()
    digest = node.reconciler.applied.digest
    refuse(node)
    await goes(node)
    assert node.reconciler.applied.digest == digest
    assert node.methods == GOOD_METHODS
    assert node.reconciler.last_attempt.result == "refused"
    assert code in node.codes
    assert node.reconciler.applied.generation == 1
    # and nothing of it was kept moved
    assert all(part.at is None for part in node.parts)


@REFUSED
async def test_a_rollback_works_whatever_the_files_hold_and_survives_a_restart(node, refuse, code):
    node.write(OTHER)
    await node.start()
    first = node.reconciler.applied.digest
    node.write(GOOD)
    assert (await node.reload()).result == "applied"
    refuse(node)
    await node.reload()
    assert (await node.roll_back()).result == "applied"
    assert (node.reconciler.applied.digest, node.methods) == (first, OTHER_METHODS)
    await node.restart()
    assert (node.reconciler.applied.digest, node.methods) == (first, OTHER_METHODS)
    assert node.reconciler.rollback.pin.digest == first


async def test_a_set_that_came_while_the_disk_was_full_is_where_a_restart_and_a_rollback_find_it(
    node, monkeypatch
):
    node.write(OTHER)
    await node.start()
    first = node.reconciler.applied.digest
    write = history.write_private

    def refuse_to_write(path, content):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(history, "write_private", refuse_to_write)
    node.write(GOOD)
    assert (await node.reload()).result == "applied"
    second = node.reconciler.applied.digest
    assert (await node.reload()).result == "unchanged"
    assert node.reconciler.unwritten_records == 1
    assert node.telemetry.names().count("history_not_written") == 1
    monkeypatch.setattr(history, "write_private", write)
    refuse_mistake(node)
    await node.reload()
    assert node.reconciler.unwritten_records == 0
    await node.stop()
    node.history = History(node.state / "history")
    await node.start()
    assert (node.reconciler.applied.digest, node.reconciler.applied.generation) == (second, 2)
    node.write(GOOD + "log: {level: debug}\n")
    assert (await node.reload()).result == "applied"
    await node.roll_back()
    assert node.reconciler.applied.digest == second
    await node.roll_back()
    assert node.reconciler.applied.digest == first


@WAYS
@REFUSED
async def test_a_trial_goes_on_whatever_the_files_hold_and_over_a_restart(node, refuse, code, goes):
    node.write(GOOD)
    await node.start()
    good = node.reconciler.applied.digest
    node.write(TRIAL)
    assert (await node.reload()).result == "applied"
    tried = node.reconciler.applied.digest
    refuse(node)
    await goes(node)
    assert node.reconciler.applied.digest == tried
    assert node.reconciler.rollback.trial.baseline.digest == good
    assert 0 < node.reconciler.rollback.trial_left_s() <= 60.0


async def test_a_trial_that_fails_after_a_restart_goes_back_and_stays_back(node):
    node.write(GOOD)
    await node.start()
    good = node.reconciler.applied.digest
    ToyWorker.refuses = {"REQPong"}
    try:
        node.write(TRIAL.replace("trial: 60s", "trial: 200ms"))
        await node.stop()
        await node.start()  # its trial begins with the start that brings it into force
        await until_async(lambda: node.reconciler.last_attempt.result == "reverted")
        assert node.reconciler.applied.digest == good
        assert node.methods == GOOD_METHODS
        await node.restart()
        assert node.reconciler.applied.digest == good
        assert node.reconciler.rollback.pin.reason == "trial"
    finally:
        ToyWorker.refuses = set()


async def test_a_trial_that_ends_while_a_failed_worker_is_being_tried_again_is_not_passed(
    node, monkeypatch
):
    tried = asyncio.Semaphore(0)
    let_go = asyncio.Event()
    starts = []

    async def start(worker):
        if worker.spec.method != "REQPong":
            return await original(worker)
        starts.append(worker)
        if len(starts) > 1:
            # long enough for the trial to end meanwhile
            tried.release()
            await let_go.wait()
        raise OSError("denied")

    original = ToyWorker.start
    monkeypatch.setattr(ToyWorker, "start", start)
    soon_then_late = lambda failures, **_: 0.01 if failures == 1 else 60.0  # noqa: E731
    monkeypatch.setattr(pool_module, "backoff_s", soon_then_late)
    node.write(GOOD)
    await node.start()
    good = node.reconciler.applied.digest
    node.write(TRIAL.replace("trial: 60s", "trial: 200ms"))
    await node.reload()
    try:
        await tried.acquire()
        await until_async(lambda: node.reconciler.rollback.trial.unclear_since_mono is not None)
        assert node.reconciler.last_attempt.result == "applied"
    finally:
        let_go.set()
    await until_async(lambda: node.reconciler.last_attempt.result == "reverted")
    assert node.reconciler.applied.digest == good
    assert "denied" in node.reconciler.last_attempt.problems[0].message


async def test_a_set_taken_back_stays_a_bad_one_over_hints_looks_and_restarts(node):
    node.write(GOOD)
    await node.start()
    ToyWorker.refuses = {"REQPong"}
    try:
        node.write(TRIAL.replace("trial: 60s", "trial: 200ms"))
        await until_async(lambda: node.reconciler.last_attempt.result == "reverted")
        why = node.reconciler.rollback.pin.failures
        assert [text.split()[0] for text in why] == ["ship1.REQPong.EventACK_subscriber"]
        node.reconciler.hint()
        await until_async(lambda: node.reconciler.last_attempt.result == "unchanged")
        assert ("config_unchanged", "watch", True) in node.telemetry.facts
        await node.reload()
        assert ("config_unchanged", "request", True) in node.telemetry.facts
        # what hellos and the status tell of the files
        assert node.reconciler.verdict_on_files.result == "reverted"
        await node.restart()
        verdict = node.reconciler.verdict_on_files
        assert (verdict.result, [one.message for one in verdict.problems]) == ("reverted", [*why])
        assert node.reconciler.rollback.pin.failures == why
        started = [fact for fact in node.telemetry.facts if fact[0] == "config_applied"][-1]
        assert started[-3:] == ("start", "applied", True)
        # the files change: over
        node.write(GOOD + "# mended\n")
        await node.reload()
        assert node.reconciler.rollback.pin is None
        assert [fact for fact in node.telemetry.facts if fact[0] == "config_applied"][-1][
            -1
        ] is False
    finally:
        ToyWorker.refuses = set()


async def test_a_first_start_with_bad_files_is_none(node):
    node.write("nodes: 1\n")
    with pytest.raises(ConfigError):
        await node.start()


async def test_who_opts_out_gets_no_older_set_at_the_start(node):
    node.write(GOOD + "start: {fallback: none}\n")
    await node.start()
    await node.stop()
    node.write(GOOD + "typo: 1\n")
    with pytest.raises(ConfigError) as refused:
        await node.start()
    assert "it says `start: {fallback: none}`" in refused.value.__notes__[0]


async def test_a_start_says_which_variable_the_last_good_set_misses_too(node, monkeypatch):
    monkeypatch.setenv("SITE_OF_TEST", "ship1")
    node.write(GOOD.replace("REQHello: {}", "REQHello: {accept_from: ['${SITE_OF_TEST}']}"))
    await node.start()
    await node.stop()
    monkeypatch.delenv("SITE_OF_TEST")
    with pytest.raises(ConfigError) as refused:
        await node.start()
    (note,) = refused.value.__notes__
    # the clock of this test stands at that time, told in the reader's zone
    assert re.match(
        r"the last good set \([0-9a-f]{8}, of 1970-01-1\d \d\d:\d\d:\d\d\) cannot start", note
    )
    assert "E013 the environment variable SITE_OF_TEST is not set" in note


async def test_a_start_says_that_the_last_good_set_has_no_such_node_either(node):
    node.write(GOOD)
    await node.start()
    await node.stop()
    node.asked_nodes = ("gone",)
    with pytest.raises(ConfigError) as refused:
        await node.start()
    assert "cannot start instead: node 'gone' is not declared" in refused.value.__notes__[0]


async def test_what_only_a_restart_can_change_comes_into_force_by_one(node, tmp_path):
    node.write(GOOD)
    await node.start()
    node.write(OTHER + f"state: {{dir: {tmp_path / 'elsewhere'}}}\n")
    assert [problem.code for problem in (await node.reload()).problems] == ["E301"]
    await node.restart()
    assert node.reconciler.last_attempt.result == "applied"
    assert node.methods == OTHER_METHODS


@pytest.mark.parametrize("code", ["E303", "E304", "E307"])
async def test_a_set_refused_for_something_outside_is_tried_again_by_itself(
    node, code, monkeypatch
):
    monkeypatch.setattr(trigger, "RETRY_FIRST_S", 0.05)
    monkeypatch.setattr(trigger, "RETRY_MAX_S", 0.1)
    node.write(GOOD)
    await node.start()
    {"E303": refuse_listener, "E304": refuse_broker, "E307": refuse_input}[code](node)
    assert [problem.code for problem in (await node.reload()).problems] == [code]
    attempts = node.reconciler.last_attempt
    await until_async(lambda: node.reconciler.last_attempt.trigger == "retry")
    assert node.reconciler.last_attempt.says_the_same(attempts)
    refused = [record for record in node.history.newest() if record["result"] == "refused"]
    assert len(refused) == 1  # the same again is no news
    node.part(code).refuses = False
    await until_async(lambda: node.reconciler.last_attempt.result == "applied")
    assert node.methods == OTHER_METHODS


async def test_a_part_that_refuses_undoes_what_was_moved_before_it(node):
    node.write(GOOD)
    await node.start()
    node.part("E304").refuses = True
    node.write(
        OTHER.replace("127.0.0.1:1", "127.0.0.1:2")
        + 'admin: {listen: "127.0.0.1:1"}\ninputs: {tcp: {listen: "127.0.0.1:1"}}\n'
    )
    assert (await node.reload()).result == "refused"
    assert [part.at for part in node.parts] == [None, None, None]


async def test_each_rollback_goes_further_back_and_past_sets_without_effect(node):
    digests = []
    for number, text in enumerate([GOOD, OTHER, OTHER + "# a word\n", THIRD]):
        node.write(text)
        await (node.reload() if number else node.start())
        digests.append(node.reconciler.applied.digest)
    verdict = await node.roll_back()
    assert verdict.digest == digests[2]  # the newest of those that do the same
    verdict = await node.roll_back()
    assert verdict.digest == digests[0]
    with pytest.raises(RequestInvalid, match="no set was in force before"):
        await node.roll_back()
    await node.restart()
    with pytest.raises(RequestInvalid, match="no set was in force before"):
        await node.roll_back()
    # from the files again, the way back is the one they came by
    node.write(THIRD + "# again\n")
    await node.reload()
    assert (await node.roll_back()).digest == digests[0]


async def test_a_pin_holds_when_files_that_were_away_come_back_as_they_were(node):
    node.write(GOOD)
    await node.start()
    first = node.reconciler.applied.digest
    node.write(OTHER)
    await node.reload()
    node.remove_files()
    await node.reload()
    await node.roll_back()
    node.write(OTHER)
    verdict = await node.reload()
    assert (verdict.result, verdict.problems[0].code) == ("unchanged", "W301")
    assert node.reconciler.applied.digest == first
    prediction = node.reconciler.predict(node.source.load())
    assert (prediction.is_pinned, prediction.plan.is_empty) == (True, True)
    node.write(THIRD)
    assert (await node.reload()).result == "applied"
    assert node.reconciler.rollback.pin is None


async def test_a_disk_that_takes_no_pin_blocks_no_way_back_and_is_tried_again(node):
    node.write(GOOD)
    await node.start()
    first = node.reconciler.applied.digest
    node.write(OTHER)
    await node.reload()
    (node.state / "pin.tmp").mkdir()
    assert (await node.roll_back()).result == "applied"
    assert node.reconciler.applied.digest == first
    assert "pin is not on disk" in str(node.telemetry.facts)
    assert not (node.state / "pin.json").exists()
    (node.state / "pin.tmp").rmdir()
    await until_async((node.state / "pin.json").exists)
    await node.restart()
    assert node.reconciler.applied.digest == first


async def test_the_stricter_guard_of_old_and_new_set_holds(node):
    node.write(GOOD.replace("max_cancel: 50%", "max_cancel: 10%"))
    await node.start()
    node.write(GOOD.replace("max_cancel: 50%", "max_cancel: 100%").replace(", REQHello: {}", ""))
    assert [problem.code for problem in (await node.reload()).problems] == ["E302"]
    assert (await node.reload(force=True)).result == "applied"


async def test_a_set_that_touches_nothing_prolongs_no_trial(node):
    node.write(GOOD)
    await node.start()
    node.write(TRIAL)
    await node.reload()
    ends_mono = node.reconciler.rollback.trial_ends_mono
    node.write(TRIAL + "# a word\n")
    await node.reload()
    assert node.reconciler.rollback.trial_ends_mono == ends_mono


async def test_a_file_system_that_hangs_holds_up_no_worker_and_no_stop(node, monkeypatch):
    monkeypatch.setattr(disk, "READ_TIMEOUT_S", 0.1)
    node.write(GOOD)
    await node.start()
    released = threading.Event()
    hang = lambda: released.wait(60) and ""  # noqa: E731
    monkeypatch.setattr(node.source, "fingerprint", hang)
    try:
        verdict = await node.reload()
        assert (verdict.result, verdict.problems[0].code) == ("refused", "E001")
        assert "does not answer" in verdict.problems[0].message
        # a worker that ends meanwhile is started again
        key, handle = next(iter(node.pool.handles.items()))
        handle.task.cancel()
        await asyncio.wait({handle.task})
        del node.pool.handles[key]
        node.reconciler.convergence.trigger.set("worker")
        await until_async(lambda: key in node.pool.handles)
        async with asyncio.timeout(60):
            await node.stop()
    finally:
        released.set()


@WAYS
async def test_a_file_that_became_empty_takes_no_node_with_it(node, goes):
    node.asked_nodes = ()
    node.write(GOOD)
    other = node.files / "other.yaml"
    other.write_text("nodes:\n  ship2: {subscribe: {REQPing: {}}}\n")
    await node.start()
    digest = node.reconciler.applied.digest
    other.write_text("# cut off\n")
    await goes(node)
    assert (node.reconciler.applied.digest, node.codes) == (digest, ["E308"])
    assert "ship2" in node.reconciler.last_attempt.problems[0].message
    # one that took nothing with it is told and no more, and so is one that is removed
    other.write_text("# cut off\n")
    assert (await node.reload(force=True)).result == "applied"
    other.unlink()
    assert (await node.reload()).result == "applied"


async def test_a_set_that_came_back_from_a_trial_still_takes_no_node_with_an_emptied_file(node):
    node.asked_nodes = ()
    node.write(GOOD)
    other = node.files / "other.yaml"
    other.write_text("nodes:\n  ship2: {subscribe: {REQPing: {}}}\n")
    await node.start()
    ToyWorker.refuses = {"REQPong"}
    try:
        node.write(TRIAL.replace("trial: 60s", "trial: 50ms"))
        await node.reload()
        await until_async(lambda: node.reconciler.last_attempt.result == "reverted")
    finally:
        ToyWorker.refuses = set()
    digest = node.reconciler.applied.digest
    node.write(GOOD)
    other.write_text("# cut off\n")
    await node.reload()
    assert (node.reconciler.applied.digest, node.codes) == (digest, ["E308"])


async def test_a_disk_that_hangs_after_the_first_look_keeps_no_last_good_set_from_starting(
    node, monkeypatch
):
    monkeypatch.setattr(starting, "LOAD_TIMEOUT_S", 0.05)
    monkeypatch.setattr(starting, "READ_TIMEOUT_S", 0.5)
    node.write(GOOD)
    await node.start()
    digest = node.reconciler.applied.digest
    await node.stop()
    node.write(OTHER)
    released = threading.Event()
    hang = lambda _: released.wait(60) and {}  # noqa: E731
    try:
        with monkeypatch.context() as hanging:
            hanging.setattr(FileConfigSource, "load", hang)
            hanging.setattr(FileConfigSource, "texts", hang)
            await node.start()
            assert (node.reconciler.applied.digest, node.codes) == (digest, ["E001"])
    finally:
        released.set()


async def test_a_trial_that_the_disk_did_not_take_is_written_once_it_has_room(node):
    node.write(GOOD)
    await node.start()
    book = node.state / "trial.json"
    book.mkdir()  # stands for a disk that takes nothing
    node.write(TRIAL)
    assert (await node.reload()).result == "applied"
    assert node.reconciler.rollback.trial is not None
    book.rmdir()
    await until_async(book.exists)
    await node.restart()
    assert node.reconciler.rollback.trial is not None


async def test_a_trial_goes_on_over_a_start_whose_files_touch_nothing_of_it(node):
    node.write(GOOD)
    await node.start()
    good = node.reconciler.applied.digest
    node.write(TRIAL)
    await node.reload()
    await node.stop()
    node.write(TRIAL + "# a word\n")
    await node.start()
    assert node.reconciler.last_attempt.result == "applied"
    assert node.reconciler.rollback.trial.baseline.digest == good
    await node.restart()
    assert node.reconciler.rollback.trial.baseline.digest == good
    # what the files take over is their own matter, and a set without a trial confirms what it builds on
    await node.stop()
    node.write(OTHER + "# confirmed\n")
    await node.start()
    assert node.reconciler.rollback.trial is None
    assert not (node.state / "trial.json").exists()


async def test_a_way_back_that_something_outside_refuses_is_tried_until_it_is_free(
    node, monkeypatch
):
    monkeypatch.setattr(way_back, "WAY_BACK_RETRY_S", 0.05)
    node.write(GOOD)
    await node.start()
    good = node.reconciler.applied.digest
    ToyWorker.refuses = {"REQPong"}
    try:
        node.write(TRIAL.replace("trial: 60s", "trial: 100ms") + 'admin: {listen: "127.0.0.1:1"}\n')
        await node.reload()
        listener = node.part("E303")
        listener.refuses = listener.is_stubborn = True
        await until_async(lambda: node.codes == ["E303"])
        rounds = node.reconciler.rollback.trial.until_mono
        await until_async(lambda: node.reconciler.rollback.trial.until_mono > rounds)
        refused = [record for record in node.history.newest() if record["result"] == "refused"]
        assert len(refused) == 1  # the same again is no news
        listener.refuses = False
        await until_async(lambda: node.reconciler.last_attempt.result == "reverted")
        assert node.reconciler.applied.digest == good
        assert node.reconciler.rollback.trial is None
    finally:
        ToyWorker.refuses = set()


async def test_a_pinned_set_that_cannot_start_any_more_gives_way_not_without_a_word(
    node, monkeypatch
):
    monkeypatch.setenv("SITE_OF_TEST", "ship1")
    node.write(GOOD.replace("REQHello: {}", "REQHello: {accept_from: ['${SITE_OF_TEST}']}"))
    await node.start()
    node.write(OTHER)
    await node.reload()
    await node.roll_back()
    await node.stop()
    monkeypatch.delenv("SITE_OF_TEST")
    await node.start()
    assert node.methods == OTHER_METHODS
    assert node.codes == ["W304"]
    assert "SITE_OF_TEST is not set" in node.reconciler.last_attempt.problems[0].message
    await node.restart()
    assert node.codes == []


async def test_a_pin_that_cannot_be_read_is_told(node):
    node.write(GOOD)
    await node.start()
    node.write(OTHER)
    await node.reload()
    await node.roll_back()
    await node.stop()
    (node.state / "pin.json").write_bytes(b"\0" * 100)
    await node.start()
    assert (node.methods, node.codes) == (OTHER_METHODS, ["W304"])
    assert "pin.json is damaged" in node.reconciler.last_attempt.problems[0].message
