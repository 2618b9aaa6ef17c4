"""`run_daemon`: from options to an exit code."""

from __future__ import annotations

import logging
import os
import pwd
import socket
import sys
from pathlib import Path

import uvloop

from appliance.core.plan import make_plan
from appliance.core.problems import Problem
from appliance.core.run_options import RunOptions
from appliance.daemon.app import run_until_stopped
from appliance.errors import BusError, DaemonAlreadyRunning, StateDirForeign, StoreError
from appliance.garbage import no_look_for_garbage
from appliance.reconcile.history import HISTORY_DIR, History
from appliance.reconcile.kept_files import (
    PIN_FILE,
    SIGNED_COMMIT_FILE,
    KeptFile,
    Pin,
    SignedCommits,
)
from appliance.reconcile.reload_result import find_rejections
from appliance.reconcile.source import FileConfigSource
from appliance.reconcile.start import Start, find_start
from appliance.telemetry.logs import setup_logging

EXIT_UNAVAILABLE = 69

SWITCH_INTERVAL_S = 0.0005
"""How long the interpreter lets one thread run while another waits: the store's thread wants its turn soon."""


def run_daemon(options: RunOptions) -> int:
    """Run until told to stop. Raises ConfigInvalid, ConfigUnreadable and RunNodesUnclear before anything started."""
    source = _make_source(options)
    with no_look_for_garbage():
        state_dir, start = _find_start(options, source)
    _refuse_foreign(state_dir)
    first = start.built
    setup_logging(options.log_level or first.log.level, options.log_format or first.log.format)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        state_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
        return uvloop.run(run_until_stopped(options, source, start, state_dir))
    except (StoreError, DaemonAlreadyRunning, BusError, OSError) as error:
        logging.getLogger("appliance").error("cannot run: %s", error)
        return EXIT_UNAVAILABLE


def _refuse_foreign(state_dir: Path) -> None:
    """One run by hand as root must not take the directory from the user who runs the daemon else.

    Raises:
        StateDirForeign: it would.
    """
    if os.geteuid() != 0:
        return
    try:
        owner_id = state_dir.stat().st_uid
    except FileNotFoundError:
        return
    if owner_id == 0:
        return
    try:
        owner = pwd.getpwuid(owner_id).pw_name
    except KeyError:
        owner = str(owner_id)
    raise StateDirForeign(state_dir, owner)


def predict_start(options: RunOptions) -> tuple[Path, Start, tuple[Problem, ...]]:
    """What `run_daemon` would start with and where, and why it is not what the files hold. Touches nothing.

    Raises:
        ConfigInvalid, ConfigUnreadable, RunNodesUnclear: nothing would start.
    """
    state_dir, start = _find_start(options, _make_source(options))
    return state_dir, start, start.problems or _find_rejections(start)


def _find_rejections(start: Start) -> tuple[Problem, ...]:
    """What speaks against the set that would be brought into force, as the reconciler judges a start."""
    good, observed = start.last_good, start.observed
    if good is None or observed is None:
        return ()
    plan = make_plan(start.first.desired.workers, observed, 0.0)
    return find_rejections(start.first, good.desired, good.filled, plan, observed, restarts=True)


def _make_source(options: RunOptions) -> FileConfigSource:
    return FileConfigSource(
        options.paths,
        nodes=options.nodes,
        all_nodes=options.all_nodes,
        hostname=socket.gethostname(),
        signed_by=options.signed_by,
    )


def _find_start(options: RunOptions, source: FileConfigSource) -> tuple[Path, Start]:
    """Where the state is, and what to start with.

    The directory may be named by the config alone, and the config may be unusable without what the directory holds:
    then the usual place is looked at.
    """
    named = options.state_dir
    start = _start_below(Path(named or options.default_state_dir), options, source)
    found = named or start.first.desired.state.dir
    if named is None and found is not None and Path(found) != Path(options.default_state_dir):
        start = _start_below(Path(found), options, source)
    return Path(found or options.default_state_dir), start


def _start_below(state_dir: Path, options: RunOptions, source: FileConfigSource) -> Start:
    return find_start(
        source,
        History(state_dir / HISTORY_DIR),
        KeptFile(state_dir / PIN_FILE, Pin),
        SignedCommits(state_dir / SIGNED_COMMIT_FILE),
        path=", ".join(source.paths),
    )
