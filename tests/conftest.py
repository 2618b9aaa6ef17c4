"""What all tests share: a guard against leaked tasks, short directories for sockets, a clean environment."""

import asyncio
import contextlib
import gc
import importlib
import inspect
import logging
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import hypothesis
import pytest

from tests.support.waiting import turns

# Many processes load the same modules here: that each compiles them anew would be half of what a start costs.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell that runs the tests in the background has Ctrl-C ignored, and every program under test would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

LONGEST_ID = 200
"""So many characters or bytes of a parameter stand in the name of a test; what has more is named by its beginning."""

# The same examples in every run: what a run finds, the next one finds, too. Whoever looks for new ones has `tests.lab`,
# or `--hypothesis-profile=drawn`. How long one takes depends on the machine.
for name, is_same in (("suite", True), ("drawn", False)):
    hypothesis.settings.register_profile(
        name,
        derandomize=is_same,
        database=None,
        deadline=None,
        max_examples=60,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
hypothesis.settings.load_profile("suite")


@pytest.hookimpl(wrapper=True)
def pytest_collection(session):
    """What collecting makes stays to the end: whoever looks for garbage need not look at it, again and again."""
    gc.disable()
    try:
        if session.config.args_source is pytest.Config.ArgsSource.TESTPATHS:
            _import_beside_others()
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def _import_beside_others():
    """Each of several processes begins elsewhere with what all of them import: in a fresh clone, where nothing is compiled
    yet, each would compile all of it at the same time."""
    number, count = (os.environ.get(f"PYTEST_XDIST_WORKER{end}", "") for end in ("", "_COUNT"))
    if not count:
        return
    root = Path(__file__).parents[1]
    paths = sorted(root.glob("tests/**/test_*.py"))
    first = len(paths) * int(number.removeprefix("gw")) // int(count)
    for path in (*paths[first:], *paths[:first]):
        # what cannot be imported is told when it is collected
        with contextlib.suppress(Exception, pytest.skip.Exception):
            importlib.import_module(".".join(path.relative_to(root).with_suffix("").parts))


@pytest.hookimpl(tryfirst=True)
def pytest_make_parametrize_id(config, val):
    """A test is not named by all of a large value: each process makes these names, and sends them with every report."""
    if isinstance(val, str | bytes) and len(val) > LONGEST_ID:
        kind = "characters" if isinstance(val, str) else "bytes"
        return f"{ascii(val[:20])[:40]}... {len(val)} {kind}"
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """A file of tests on real parts stays in one process: its fleet is started once, and its tests meet in order."""
    for item in items:
        if "system" in item.path.parts and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture(autouse=True)
def _level_of_logs():
    """A daemon or a command that was run in this process set it as its config said: no matter of this test."""
    logging.getLogger("appliance").setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    """Variables of the one who runs the tests must not reach the program under test."""
    for name in [name for name in os.environ if name.startswith("APPLIANCE_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)


@pytest.fixture(autouse=True)
def _no_leaked_tasks(request):
    """A test of ours that is a coroutine leaves no task behind, its fixtures included."""
    function = getattr(request, "function", None)
    if function is not None and inspect.iscoroutinefunction(function):
        request.getfixturevalue("_leaked_task_guard")


@pytest.fixture
async def _leaked_task_guard():
    # NB: made before every other asynchronous fixture of the test, so it looks after they are gone
    before = asyncio.all_tasks()
    yield
    await turns(3)  # what is ending gets the turns it needs to end
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left, f"tasks outlive their test: {[task.get_name() for task in left]}"


@pytest.fixture
def short_dir():
    """A directory whose path leaves room for a unix socket's 107 bytes."""
    directory = Path(tempfile.mkdtemp(prefix="appl-", dir="/tmp"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)
