"""How the API answers: JSON that is always valid, and errors as JSON with a fitting status."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from appliance.core.escape import escape_controls
from appliance.errors import (
    ApplianceError,
    ConfigError,
    DaemonUnreachable,
    RequestInvalid,
    StoreFull,
)


def encode_json(value: Any) -> bytes:
    """JSON text. What is no JSON type becomes its text; bytes that are not UTF-8 are shown as
    escapes.
    """
    try:
        return msgspec.json.encode(value, enc_hook=str)
    except UnicodeEncodeError:
        return msgspec.json.encode(_scrub(msgspec.to_builtins(value, enc_hook=str)))


def _scrub(value: Any) -> Any:
    if isinstance(value, str):
        return escape_controls(value)
    if isinstance(value, dict):
        return {_scrub(key): _scrub(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_scrub(item) for item in value]
    return value


_IDS = ("id", "previous_id", "message_id")


def with_id_texts(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields, and beside every id its text: ids exceed 2^53, where many readers of JSON round."""
    twins = {
        f"{name}_text": str(fields[name]) for name in _IDS if isinstance(fields.get(name), int)
    }
    return {**fields, **twins} if twins else fields


def reply(value: Any, status: int = 200) -> web.Response:
    """An answer."""
    return web.Response(
        body=encode_json(value), status=status, content_type="application/json", charset="utf-8"
    )


def refuse(status: int, error: str, **more: Any) -> web.Response:
    """An answer that says why not."""
    return reply({"error": error, **more}, status)


def refuse_error(error: ApplianceError, text: str) -> web.Response:
    """An answer for an error of ours, in words that may be shown."""
    if isinstance(error, RequestInvalid | ConfigError):
        return refuse(400, text)
    if isinstance(error, StoreFull):
        return refuse(507, text)
    if isinstance(error, DaemonUnreachable) or error.retryable:
        return refuse(503, text)
    return refuse(500, text)
