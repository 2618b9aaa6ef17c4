"""The reconciler with a source that can be told what to say, and toy workers."""

import asyncio
import contextlib
from types import SimpleNamespace

import pytest

from appliance.core.current import Current
from appliance.core.problems import Problem
from appliance.core.specs import DesiredState, ReloadSettings
from appliance.errors import ConfigInvalid, RequestInvalid
from appliance.methods.registry import METHOD_TABLE
from appliance.reconcile.convergence import Convergence
from appliance.reconcile.disk import SourceReader
from appliance.reconcile.history import History
from appliance.reconcile.kept_files import KeptFile, Pin, PinKeeper, SignedCommits
from appliance.reconcile.overrides import OverrideBook
from appliance.reconcile.pool import WorkerPool
from appliance.reconcile.reconciler import Reconciler
from appliance.reconcile.reload_result import LoadedSet
from appliance.reconcile.start import Start
from appliance.reconcile.trial import KeptTrial
from appliance.reconcile.trigger import Trigger
from tests.component.test_pool import Recorder, ToyWorker, spec
from tests.support.waiting import turns, until_async


class Source:
    """`says` is what the next load gives: a set, or an exception to raise."""

    def __init__(self, says):
        self.says = says
        self.loads = 0
        self.on_fingerprint = lambda: None

    def fingerprint(self):
        self.on_fingerprint()
        return self.says.digest if isinstance(self.says, LoadedSet) else "unreadable"

    def revision(self):
        return None

    def compare_with(self, _find_in_force):
        pass

    def signers(self):
        return ""

    def texts(self):
        return {}

    def load(self):
        self.loads += 1
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


def loaded(digest, *specs, watch=True, poll_interval_s=60.0):
    desired = DesiredState(
        run_nodes=(),
        declared_nodes=frozenset(),
        workers={one.key: one for one in specs},
        publisher_defaults={},
        reload=ReloadSettings(
            settle_s=0.01,
            poll_interval_s=poll_interval_s,
            max_cancel_fraction=1.0,
            watch=watch,
        ),
    )
    return LoadedSet(desired=desired, digest=digest, revision=None, files={})


@pytest.fixture
def tasks():
    """Of the reconciler, once it runs."""
    return []


@pytest.fixture
async def world(tmp_path, tasks):
    ToyWorker.alive = set()
    telemetry = Recorder()
    history = History(tmp_path / "history")
    history.open()
    pool = WorkerPool(ToyWorker, telemetry, wall=lambda: 0.0, on_ended=lambda: None)
    source = Source(loaded("sha256:aa", spec("a"), spec("b")))

    passes = Trigger()
    overrides = OverrideBook(
        tmp_path / "overrides.json",
        desired=Current(source.says.desired),
        methods=lambda: METHOD_TABLE,
        wall=lambda: 0.0,
        on_change=lambda: passes.set("worker"),
    )
    reconciler = Reconciler(
        SourceReader(source),
        Convergence(pool, overrides, dict, telemetry, passes),
        telemetry,
        history,
        trigger=Trigger(),
        reloadables=(),
        on_accepted=lambda desired: None,
        pins=PinKeeper(KeptFile(tmp_path / "pin.json", Pin), telemetry.history_not_written),
        commits=SignedCommits(tmp_path / "commit.json"),
        trial_file=KeptFile(tmp_path / "trial.json", KeptTrial),
        bus=SimpleNamespace(is_connected=True),
        overrides=overrides,
        wall=lambda: 0.0,
    )
    await reconciler.start(Start(first=source.says, files_digest=source.says.digest))
    running = asyncio.create_task(reconciler.run())
    tasks.append(running)
    yield reconciler, source, pool, telemetry, history
    reconciler.stop()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    await pool.stop_all(asyncio.get_running_loop().time() + 1, ["subscriber", "publisher"])


async def test_a_set_is_applied_once_and_then_unchanged(world):
    reconciler, source, pool, _, history = world
    source.says = loaded("sha256:bb", spec("a"), spec("c"))
    verdict = await reconciler.reload(force=False, trigger="request")
    assert (verdict.result, verdict.generation) == ("applied", 2)
    assert set(pool.handles) == {spec("a").key, spec("c").key}
    assert (await reconciler.reload(force=False, trigger="request")).result == "unchanged"
    assert [record["result"] for record in history.newest()] == ["applied", "applied"]


async def test_a_refused_set_moves_nothing_and_is_in_the_history(world):
    reconciler, source, pool, _, history = world
    before = dict(pool.handles)
    source.says = ConfigInvalid([Problem(code="E101", message="no")])
    verdict = await reconciler.reload(force=False, trigger="request")
    assert (verdict.result, [problem.code for problem in verdict.problems]) == ("refused", ["E101"])
    assert pool.handles == before
    assert history.newest()[0]["result"] == "refused"


async def test_an_unforeseen_failure_of_a_look_is_a_refusal_and_the_running_set_goes_on(world):
    reconciler, source, pool, _, _ = world
    before = dict(pool.handles)
    source.says = RuntimeError("nobody thought of this")
    verdict = await reconciler.reload(force=False, trigger="request")
    assert [problem.code for problem in verdict.problems] == ["E306"]
    assert pool.handles == before
    source.says = loaded("sha256:cc", spec("a"))
    assert (await reconciler.reload(force=False, trigger="request")).result == "applied"


async def test_many_triggers_at_once_are_one_look(world):
    reconciler, source, _, _, _ = world
    loads = source.loads
    source.says = loaded("sha256:dd", spec("a"), spec("b"), spec("c"))
    for reason in ("signal", "watch", "poll") * 10:
        reconciler.trigger.set(reason)
    verdicts = await asyncio.gather(
        *(reconciler.reload(force=False, trigger="request") for _ in range(5))
    )
    assert {verdict.generation for verdict in verdicts} == {2}
    assert source.loads == loads + 1


async def test_requests_that_come_while_stopping_are_turned_away(world):
    reconciler, _, _, _, _ = world
    waiting = asyncio.create_task(reconciler.reload(force=False, trigger="request"))
    await turns()
    reconciler.stop()
    outcome = await asyncio.gather(waiting, return_exceptions=True)
    assert outcome[0] is not None
    with pytest.raises(Exception, match="stopping"):
        await reconciler.reload(force=False, trigger="request")


def call_in_the_next_look(source, what):
    """Call it in the loop, once a look has begun and before it takes the reasons that came meanwhile."""
    loop = asyncio.get_running_loop()

    def once():
        source.on_fingerprint = lambda: None
        loop.call_soon_threadsafe(what)

    source.on_fingerprint = once


async def test_a_stop_in_the_middle_of_a_look_is_heeded_after_it(world, tasks):
    reconciler, source, _, _, _ = world
    call_in_the_next_look(source, reconciler.stop)
    reconciler.trigger.set("signal")
    async with asyncio.timeout(40):  # the next poll would come after a minute
        await tasks[0]


async def test_a_request_to_go_back_in_the_middle_of_a_look_is_heeded_after_it(world):
    reconciler, source, _, _, _ = world
    asked = []
    call_in_the_next_look(
        source,
        lambda: asked.append(
            asyncio.ensure_future(reconciler.roll_back(to="no such", force=False))
        ),
    )
    await reconciler.reload(force=False, trigger="request")
    with pytest.raises(RequestInvalid):
        async with asyncio.timeout(40):
            await asked[0]


async def test_without_watching_events_make_no_look_and_the_poll_looks_anyway(world):
    reconciler, source, _, _, _ = world
    source.says = loaded("sha256:bb", spec("a"), watch=False, poll_interval_s=0.02)
    await reconciler.reload(force=False, trigger="request")
    reconciler.hint()
    assert not reconciler.trigger.pending
    looked = asyncio.Event()
    reconciler.on_look = lambda verdict: verdict and looked.set()
    source.says = loaded("sha256:cc", spec("b"))
    async with asyncio.timeout(60):
        await looked.wait()
    assert reconciler.applied.digest == "sha256:cc"
    assert reconciler.last_attempt.trigger == "poll"
    reconciler.hint()
    assert reconciler.trigger.pending


async def test_an_event_of_before_makes_no_look_once_a_set_without_watching_is_in_force(world):
    reconciler, source, _, _, _ = world
    source.says = loaded("sha256:bb", spec("a"), watch=False)

    def edit_again(verdict):
        if verdict is not None and verdict.result == "applied":
            reconciler.on_look = lambda _: None
            source.says = loaded("sha256:cc", spec("b"))
            reconciler.trigger.set("watch")

    reconciler.on_look = edit_again
    await reconciler.reload(force=False, trigger="request")
    await until_async(lambda: not reconciler.trigger.pending and not reconciler.busy_s())
    # nobody has asked for it yet
    assert (source.loads, reconciler.applied.digest) == (1, "sha256:bb")
    await reconciler.reload(force=False, trigger="request")
    assert reconciler.applied.digest == "sha256:cc"


async def test_a_signal_that_comes_while_the_files_settle_asks_no_less_than_one_before(
    world, monkeypatch
):
    reconciler, source, _, _, _ = world
    asked = []
    attempt = reconciler._attempt

    def note(way, *, asked: bool, to=asked):
        to.append(asked)
        return attempt(way, asked=asked)

    monkeypatch.setattr(reconciler, "_attempt", note)
    call_in_the_next_look(source, lambda: reconciler.trigger.set("signal"))
    reconciler.trigger.set("watch")
    await until_async(lambda: asked)
    assert asked == [True]
