"""`run_daemon`: from options to an exit code."""

from __future__ import annotations

import gc
import logging
import socket
import sys
from pathlib import Path

import uvloop

from appliance.core.run_options import RunOptions
from appliance.daemon.app import Daemon
from appliance.daemon.source import FileConfigSource
from appliance.errors import BusError, ConfigError, DaemonAlreadyRunning, StoreError
from appliance.reconcile.history import HISTORY_DIR, History
from appliance.reconcile.pins import PIN_FILE, PinBook
from appliance.reconcile.verdicts import LoadedSet
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
    first = source.load()
    setup_logging(
        options.log_level or first.desired.log.level, options.log_format or first.desired.log.format
    )
    state_dir = Path(options.state_dir or first.desired.state.dir or options.default_state_dir)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.freeze()
    try:
        state_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
        first = pinned_set(source, state_dir) or first
        return uvloop.run(_main(options, source, first, state_dir))
    except (StoreError, DaemonAlreadyRunning, BusError, OSError) as error:
        logging.getLogger("appliance").error("cannot run: %s", error)
        return EXIT_UNAVAILABLE


def pinned_set(source: FileConfigSource, state_dir: Path) -> LoadedSet | None:
    """The older set that was in force when the daemon ended, if the files are still those it was pinned against."""
    pin = PinBook(state_dir / PIN_FILE).load()
    if pin is None or pin.files_digest != source.fingerprint():
        return None
    files = History(state_dir / HISTORY_DIR).files_of(pin.digest)
    if files is None:
        return None
    try:
        return source.load_kept(files, pin.digest, pin.label)
    except ConfigError as error:
        logging.getLogger("appliance").error("the pinned config cannot be used: %s", error)
        return None


async def _main(
    options: RunOptions, source: FileConfigSource, first: LoadedSet, state_dir: Path
) -> int:
    daemon = Daemon(options, source, first, state_dir)
    return await daemon.run()
