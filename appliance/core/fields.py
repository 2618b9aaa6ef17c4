"""Every setting of the config: where it stands, which field of which spec it becomes, and its
bounds.

The compiler reads settings through this table only. The JSON Schema repeats names, defaults, bounds
and reload classes for editors; a test walks both and fails when something stands in one of them
alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from appliance.core.specs import ReloadClass


class FieldKind(StrEnum):
    """How the value in the config becomes the value in the spec."""

    PLAIN = "plain"
    """Taken as it is: text, whole number, truth value, one of a set of words."""
    DURATION = "duration"
    TEXTS = "texts"
    PERCENT = "percent"
    """``"50%"`` or a number of percent; the spec holds the fraction."""
    SECRET = "secret"
    """A reference: ``{file: …}``, ``{env: …}`` or ``{credential: …}``."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One leaf. `keys` is its path below the section, `attr` the spec's field;

    bounds are in the spec's unit.
    """

    keys: tuple[str, ...]
    attr: str
    kind: FieldKind = FieldKind.PLAIN
    minimum: float | None = None
    maximum: float | None = None
    reload: ReloadClass = ReloadClass.LIVE


_D = FieldKind.DURATION
_SWAP = ReloadClass.SWAP
_RESTART = ReloadClass.RESTART
_DAY_S = 86_400.0

ACK_FIELDS = (
    Setting(("ack", "timeout"), "timeout_s", _D, 0.01, _DAY_S),
    Setting(("ack", "retries"), "retries", minimum=0, maximum=1_000_000),
    Setting(("ack", "retry_wait"), "retry_wait_s", _D, 0, _DAY_S),
    Setting(("ack", "expires"), "expires_s", _D, 1, 366 * _DAY_S),
)
"""Become an `AckSettings`, of publishers."""

PUBLISHER_FIELDS = (
    Setting(("window",), "window", minimum=1, maximum=65_536),
    Setting(("serialization",), "serialization", reload=_SWAP),
    Setting(("compression",), "compression", reload=_SWAP),
)
SUBSCRIBER_FIELDS = (
    Setting(("ack", "on"), "ack_on", reload=_SWAP),
    Setting(("concurrency",), "concurrency", minimum=1, maximum=4_096),
    Setting(("backlog",), "backlog", minimum=1, maximum=1_000_000),
    Setting(("method_timeout",), "method_timeout_s", _D, 0.01, 366 * _DAY_S),
    Setting(("max_output_bytes",), "max_output_bytes", minimum=0, maximum=64 * 1024**2),
    Setting(("max_file_bytes",), "max_file_bytes", minimum=0, maximum=2**50),
    Setting(("dedupe",), "dedupe"),
    Setting(("rerun",), "rerun"),
)
ACK_MODE = Setting(("ack", "mode"), "ack_mode", reload=_SWAP)
"""Part of the subject: a change of it is another worker, so it has no field of its own in the
specs.
"""

WORKER_FIELDS = (ACK_MODE, *ACK_FIELDS, *PUBLISHER_FIELDS, *SUBSCRIBER_FIELDS)
"""May stand in `defaults`, in a role, in a node and in an entry."""

SCHEDULE_FIELDS = (
    Setting(("every",), "every_s", _D, 0.01, 366 * _DAY_S, _SWAP),
    Setting(("cron",), "cron", reload=_SWAP),
    Setting(("timezone",), "timezone", reload=_SWAP),
    Setting(("catch_up",), "catch_up", reload=_SWAP),
    Setting(("data",), "data", FieldKind.TEXTS, reload=_SWAP),
    Setting(("method_args",), "method_args", FieldKind.TEXTS, reload=_SWAP),
    Setting(("reply_method",), "reply_method", reload=_SWAP),
    Setting(("reply_method_args",), "reply_method_args", FieldKind.TEXTS, reload=_SWAP),
    Setting(("directory",), "directory", reload=_SWAP),
    Setting(("file_name",), "file_name", reload=_SWAP),
)
"""Become a `Schedule` of a publish entry. Its `method_timeout` is the worker field of that name,
where the entry sets it.
"""

BROKER_FIELDS = (
    Setting(("embedded",), "embedded", reload=_RESTART),
    Setting(("port",), "port", minimum=0, maximum=65_535, reload=_RESTART),
    Setting(("servers",), "servers", FieldKind.TEXTS, reload=_SWAP),
    Setting(("connect_timeout",), "connect_timeout_s", _D, 0.05, 600, _SWAP),
    Setting(("ping_interval",), "ping_interval_s", _D, 0.1, 3_600, _SWAP),
    Setting(("reconnect_wait",), "reconnect_wait_s", _D, 0.01, 600, _SWAP),
)
TLS_FIELDS = tuple(
    Setting((name,), name, FieldKind.SECRET, reload=_SWAP) for name in ("ca", "cert", "key")
)
AUTH_FIELDS = (
    Setting(("nkey_seed",), "nkey_seed", FieldKind.SECRET, reload=_SWAP),
    Setting(("credentials",), "credentials", FieldKind.SECRET, reload=_SWAP),
    Setting(("user",), "user", reload=_SWAP),
    Setting(("password",), "password", FieldKind.SECRET, reload=_SWAP),
    Setting(("token",), "token", FieldKind.SECRET, reload=_SWAP),
)
ADMIN_FIELDS = (
    Setting(("listen",), "listen", reload=_SWAP),
    Setting(("token",), "token", FieldKind.SECRET, reload=_SWAP),
)
INPUT_FIELDS = (
    Setting(("from",), "from_node"),
    Setting(("atomic",), "atomic"),
    Setting(("max_bytes",), "max_bytes", minimum=1_024, maximum=64 * 1024**2),
    Setting(("max_messages",), "max_messages", minimum=1, maximum=10_000),
    Setting(("max_connections",), "max_connections", minimum=1, maximum=4_096),
    Setting(("idle_timeout",), "idle_timeout_s", _D, 0.05, 3_600),
    Setting(("timeout",), "timeout_s", _D, 0.1, 3_600),
)
SOCKET_INPUT_FIELDS = (
    Setting(("path",), "path", reload=_SWAP),
    Setting(("mode",), "mode", reload=_SWAP),
)
LISTEN_INPUT_FIELDS = (
    Setting(("listen",), "listen", reload=_SWAP),
    Setting(("token",), "token", FieldKind.SECRET),
)
FOLDER_INPUT_FIELDS = (
    Setting(("path",), "path", reload=_SWAP),
    Setting(("settle",), "settle_s", _D, 0, 60),
    Setting(("poll_interval",), "poll_interval_s", _D, 0.05, 3_600),
    Setting(("keep",), "keep_s", _D, 0, 3_660 * _DAY_S),
)
STATE_FIELDS = (
    Setting(("dir",), "dir", reload=_RESTART),
    Setting(("max_messages",), "max_messages", minimum=1, maximum=10**9),
    Setting(("max_bytes",), "max_bytes", minimum=1_048_576, maximum=2**50),
    Setting(("dedupe_window",), "dedupe_window_s", _D, 1, 366 * _DAY_S),
    Setting(("dead_letter_keep",), "dead_letter_keep_s", _D, 1, 3_660 * _DAY_S),
)
RELOAD_FIELDS = (
    Setting(("max_cancel",), "max_cancel_fraction", FieldKind.PERCENT, 0, 1),
    Setting(("watch",), "watch"),
    Setting(("poll_interval",), "poll_interval_s", _D, 0.05, _DAY_S),
    Setting(("settle",), "settle_s", _D, 0, 60),
    Setting(("drain_timeout",), "drain_timeout_s", _D, 0, 3_600),
    Setting(("overrides",), "overrides"),
    Setting(("trial",), "trial_s", _D, 0, 86_400),
)
LIMIT_FIELDS = (
    Setting(("max_message_bytes",), "max_message_bytes", minimum=1_024, maximum=64 * 1024**2),
    Setting(("max_decompressed_bytes",), "max_decompressed_bytes", minimum=1_024, maximum=1024**3),
    Setting(("max_depth",), "max_depth", minimum=4, maximum=64),
    Setting(("error_reports_per_minute",), "error_reports_per_minute", minimum=0, maximum=100_000),
)
SOURCE_FIELDS = (
    Setting(("source",), "source"),
    Setting(("signed_by",), "signed_by", FieldKind.TEXTS),
)
LOG_FIELDS = (Setting(("level",), "level"), Setting(("format",), "format"))

SECTION_FIELDS = {
    ("broker",): BROKER_FIELDS,
    ("broker", "tls"): TLS_FIELDS,
    ("broker", "auth"): AUTH_FIELDS,
    ("admin",): ADMIN_FIELDS,
    ("inputs",): INPUT_FIELDS,
    ("inputs", "socket"): SOCKET_INPUT_FIELDS,
    ("inputs", "tcp"): LISTEN_INPUT_FIELDS,
    ("inputs", "http"): LISTEN_INPUT_FIELDS,
    ("inputs", "folder"): FOLDER_INPUT_FIELDS,
    ("state",): STATE_FIELDS,
    ("reload",): RELOAD_FIELDS,
    ("limits",): LIMIT_FIELDS,
    ("log",): LOG_FIELDS,
    ("config",): SOURCE_FIELDS,
}

SUBSCRIBE_ONLY = (
    Setting(("accept_from",), "accept_from", FieldKind.TEXTS),
    Setting(("allow_commands",), "allow_commands", FieldKind.TEXTS),
    Setting(("runner",), "runner"),
    Setting(("allow_paths",), "allow_paths", FieldKind.TEXTS),
    Setting(("allow_urls",), "allow_urls", FieldKind.TEXTS),
    Setting(("allow_reply_methods",), "allow_reply_methods", FieldKind.TEXTS),
    Setting(("relay_methods",), "relay_methods", FieldKind.TEXTS),
)
RELAY_TO = Setting(("relay_to",), "subject", FieldKind.TEXTS, reload=_SWAP)
"""Of a REQRelay subscription: becomes the subjects of its workers, so a change spawns and cancels some."""
PUBLISH_ONLY = (
    Setting(("to",), "to_node", FieldKind.TEXTS),
    Setting(("method",), "method"),
    *SCHEDULE_FIELDS,
)
ENABLED = Setting(("enabled",), "enabled")
"""In every entry: `false` switches off what a role brought."""

METHOD_FIELDS = (
    Setting(("summary",), "summary"),
    Setting(("kind",), "category", reload=_SWAP),
    Setting(("args",), "args", reload=_SWAP),
    Setting(("timeout",), "timeout_s", _D, 0.01, 366 * _DAY_S),
    Setting(("on_crash",), "on_crash", reload=_SWAP),
    Setting(("exec",), "exec.argv", FieldKind.TEXTS, reload=_SWAP),
    Setting(("stdin",), "exec.stdin", reload=_SWAP),
    Setting(("allow_options",), "exec.allow_options", reload=_SWAP),
    Setting(("http", "method"), "http.method", reload=_SWAP),
    Setting(("http", "url"), "http.url", reload=_SWAP),
    Setting(("http", "body"), "http.body", reload=_SWAP),
    Setting(("http", "allow_status"), "http.allow_status", reload=_SWAP),
    Setting(("http", "follow_redirects"), "http.follow_redirects", reload=_SWAP),
    Setting(("file", "directory"), "file.directory", reload=_SWAP),
    Setting(("file", "name"), "file.name", reload=_SWAP),
    Setting(("file", "mode"), "file.mode", reload=_SWAP),
    Setting(("file", "content"), "file.content", reload=_SWAP),
)
"""Of a method that the config declares; `environment` and `http.headers` are maps and stand beside these."""
