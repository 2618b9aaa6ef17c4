"""What the command line asks of a daemon, beside the config itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class RunOptions:
    """The flags of `run` after environment and defaults. None means: as the config says."""

    paths: tuple[str, ...]
    nodes: tuple[str, ...] = ()
    all_nodes: bool = False
    state_dir: str | None = None
    """From flag or environment; it wins over `state.dir` of the config."""
    default_state_dir: str = ""
    """Used when neither flag, environment nor config names one."""
    log_level: str | None = None
    log_format: str | None = None
    signed_by: str | None = None
    """A file of public keys; with it only commits that one of them signed are taken, whatever the config says."""
    hup_pending: bool = False
    """A SIGHUP came while the program was starting; it becomes one look once the daemon runs."""
