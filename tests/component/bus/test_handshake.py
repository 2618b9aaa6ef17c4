"""The seams to nats-py: what `bus.handshake` overrides and reads must exist in the installed version."""

from __future__ import annotations

import inspect

import nats.errors
import pytest
from nats.aio.client import Client
from nats.aio.transport import TcpTransport

from appliance.bus.handshake import _HandshakeClient, _map_error, parse_info
from appliance.errors import BusError

OVERRIDDEN = (
    "_select_next_server", "_process_info", "_connect_command", "_read_loop", "_flusher",
    "_ping_interval",
)  # fmt: skip


def test_every_overridden_method_exists_with_the_same_parameters() -> None:
    for name in OVERRIDDEN:
        theirs, ours = getattr(Client, name), getattr(_HandshakeClient, name)
        assert ours is not theirs
        assert list(inspect.signature(ours).parameters) == list(
            inspect.signature(theirs).parameters
        )


def test_the_private_fields_that_are_read_exist() -> None:
    client = Client()
    for name in ("_server_pool", "_current_server", "_transport", "_max_payload"):
        assert hasattr(client, name)
    transport = TcpTransport()
    for name in ("_io_reader", "_io_writer", "_bare_io_writer"):
        assert hasattr(transport, name)


def test_every_error_of_nats_py_is_mapped_to_one_of_ours() -> None:
    classes = [
        item
        for _, item in inspect.getmembers(nats.errors, inspect.isclass)
        if issubclass(item, nats.errors.Error)
    ]
    assert len(classes) > 10
    for item in classes:
        try:
            error = item()
        except TypeError:
            continue
        mapped = _map_error(error, "nats://broker:4222")
        assert isinstance(mapped, BusError)
        assert "nats://broker:4222" in str(mapped)


@pytest.mark.parametrize("line", [b"no JSON", b"[]", b"\xff", b'{"a":' + b"[" * 3_000])
def test_an_info_that_is_none_says_nothing(line: bytes) -> None:
    assert parse_info(line) == {}
