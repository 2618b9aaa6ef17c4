"""Every task that is to last has a boundary: what breaks it is told, and it begins anew."""

import ast
import asyncio
import itertools

from appliance.supervision import keep_running
from tests.support.source_trees import APPLIANCE, GROUP, trees_below
from tests.support.virtual_time import run_virtual

pytestmark = GROUP

OWN_BOUNDARY = {
    # each catches what may break one of its turns itself, or is a part of a worker or handler, whose boundary holds
    "bench/sides.py", "bench/run.py", "cli/following.py",
    "workers/publisher.py", "workers/subscriber.py", "workers/leftovers.py", "workers/executor.py", "workers/schedule.py",
    "workers/lane_sender.py", "reconcile/convergence.py", "reconcile/reconciler.py", "inputs/folder.py",
    "inputs/stream.py", "supervision.py", "methods/programs/chunks.py",
}  # fmt: skip


def lasting_functions(tree):
    """Names of coroutine functions with a loop that nothing but their end ends."""
    for item in ast.walk(tree):
        if isinstance(item, ast.AsyncFunctionDef):
            loops = [one for one in ast.walk(item) if isinstance(one, ast.While)]
            if any(isinstance(one.test, ast.Constant) and one.test.value is True for one in loops):
                yield item.name


def called_in_tasks(tree):
    """(name of the coroutine function, line) of every task that is made."""
    for item in ast.walk(tree):
        is_task = isinstance(item, ast.Call) and getattr(item.func, "attr", "") == "create_task"
        if is_task and item.args and isinstance(item.args[0], ast.Call):
            function = item.args[0].func
            yield getattr(function, "attr", getattr(function, "id", "")), item.lineno


def test_tasks_that_last_are_kept_running_or_named_here_with_a_boundary_of_their_own():
    found = []
    for path, tree in trees_below(APPLIANCE).items():
        name = str(path.relative_to(APPLIANCE))
        lasting = set(lasting_functions(tree))
        for called, line in called_in_tasks(tree):
            if called in lasting and name not in OWN_BOUNDARY:
                found.append(f"{name}:{line} {called}")
    assert not found


def test_what_breaks_is_told_and_run_again_ever_later():
    told, runs = [], []

    async def run():
        runs.append(asyncio.get_running_loop().time())
        if len(runs) < 4:
            async with asyncio.TaskGroup() as group:
                group.create_task(breaks())

    async def breaks():
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no such start")

    run_virtual(keep_running("the watch", run, told.append))
    assert len(told) == 3
    assert told[0].startswith("the watch broke, and begins anew: UnicodeDecodeError")
    waits = [later - earlier for earlier, later in itertools.pairwise(runs)]
    assert waits == [0.5, 1.0, 2.0]


def test_a_task_that_ends_by_itself_or_is_cancelled_is_over():
    async def main():
        async def ends():
            pass

        await keep_running("it", ends, lambda _: None)
        task = asyncio.ensure_future(keep_running("it", asyncio.Event().wait, lambda _: None))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()

    run_virtual(main())
