"""`run_daemon`: from options to an exit code."""

from __future__ import annotations

import logging
import socket
import sys
from pathlib import Path

import uvloop

from appliance.core.run_options import RunOptions
from appliance.daemon.app import Daemon
from appliance.daemon.source import FileConfigSource
from appliance.errors import BusError, DaemonAlreadyRunning, StoreError
from appliance.reconcile.history import HISTORY_DIR, History
from appliance.reconcile.pins import PIN_FILE, PinBook
from appliance.reconcile.start import Start, find_start
from appliance.telemetry.logs import setup_logging

EXIT_UNAVAILABLE = 69

SWITCH_INTERVAL_S = 0.0005
"""How long the interpreter lets one thread run while another waits: the store's thread wants its turn soon."""


def run_daemon(options: RunOptions) -> int:
    """Run until told to stop. Raises ConfigInvalid, ConfigUnreadable and RunNodesUnclear before anything started."""
    source = FileConfigSource(
        options.paths,
        nodes=options.nodes,
        all_nodes=options.all_nodes,
        hostname=socket.gethostname(),
        signed_by=options.signed_by,
    )
    state_dir, start = _find_start(options, source)
    first = start.built
    setup_logging(options.log_level or first.log.level, options.log_format or first.log.format)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        state_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
        return uvloop.run(_main(options, source, start, state_dir))
    except (StoreError, DaemonAlreadyRunning, BusError, OSError) as error:
        logging.getLogger("appliance").error("cannot run: %s", error)
        return EXIT_UNAVAILABLE


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
        PinBook(state_dir / PIN_FILE),
        path=", ".join(source.paths),
    )


async def _main(
    options: RunOptions, source: FileConfigSource, start: Start, state_dir: Path
) -> int:
    daemon = Daemon(options, source, start, state_dir)
    return await daemon.run()
