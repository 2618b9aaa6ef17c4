"""The composition root: the only place that knows all parts."""

from appliance.daemon.run import run_daemon

__all__ = ["run_daemon"]
