"""What runs in a process that computes: take an order, call the handler, give the outcome back, until the daemon ends it.

It holds no connection, no store and no secret of the daemon's, and does not outlive it: the kernel kills it, and what
handlers have started, when the daemon's end of a pipe closes, whatever it is doing. It heeds no signal meant for the
daemon: what it has in hand may end.

Run as ``python -m appliance.methods.computing.child LINE ALARM``, with two descriptors that it is given.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import importlib
import os
import pickle
import resource
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import appliance.methods
from appliance.errors import HandlerError
from appliance.methods.base import Handler, HandlerContext, Method, Result
from appliance.methods.computing.frames import (
    HEAD,
    READY,
    Facts,
    Greeting,
    Order,
    OrderReader,
    encode_failure,
    encode_result,
)

OOM_SCORE = "500"
"""Where memory runs out, this process goes before the daemon does."""

_FOR_THE_DAEMON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Unavailable:
    """In the place of what lies in the daemon."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise HandlerError(
            f"a handler that computes has its message and settings alone, and no {name}"
        )

    def __call__(self, *_args: object, **_fields: object) -> Any:
        raise HandlerError("a handler that computes has its message and settings alone")


_UNAVAILABLE: Any = _Unavailable()


def make_context(facts: Facts) -> HandlerContext:
    """What the handler is given; whatever else it touches fails it."""
    return HandlerContext(
        node=facts.node,
        spec=facts.spec,
        timeout_s=facts.timeout_s,
        now=facts.now,
        files=_UNAVAILABLE,
        console=_UNAVAILABLE,
        hellos=_UNAVAILABLE,
        list_workers=_UNAVAILABLE,
        switch=_UNAVAILABLE,
        intend=_UNAVAILABLE,
        outlet=_UNAVAILABLE,
        headers=facts.headers,
        asker_is_appliance=facts.asker_is_appliance,
        signer=facts.signer,
        is_known_appliance=_UNAVAILABLE,
        max_payload_bytes=facts.max_payload_bytes,
        programs=_UNAVAILABLE,
        call_off=_UNAVAILABLE,
    )


class Handlers:
    """The handlers that were asked for, one of each method."""

    def __init__(self) -> None:
        self._made: dict[str, Handler] = {}

    def find(self, module: str) -> Handler:
        """The handler of the module's `METHOD`.

        Raises:
            Exception: whatever is wrong with the module.
        """
        handler = self._made.get(module)
        if handler is None:
            method = importlib.import_module(module).METHOD
            if not isinstance(method, Method):
                raise TypeError(f"{module} holds no METHOD")
            handler = self._made[module] = method.make()
        return handler


async def perform(order: Order, handlers: Handlers) -> bytes:
    """The outcome of an order."""
    try:
        result = await handlers.find(order.module).handle(order.message, make_context(order.facts))
        if not isinstance(result, Result):
            raise TypeError(f"the handler gave a {type(result).__name__}, and no Result")
        return encode_result(result)
    except MemoryError as error:
        bound = "limits.max_process_bytes bounds what a process may have"
        return encode_failure(MemoryError(f"{error} ({bound})" if str(error) else bound))
    except Exception as error:  # noqa: BLE001 - the boundary around a handler: every failure becomes a value
        return encode_failure(error)


async def _serve(line: socket.socket) -> None:
    reader, handlers = OrderReader(), Handlers()
    greeting = Greeting(*pickle.loads(_read_frame(line)))  # noqa: S301 - the daemon wrote it
    sys.path[:] = greeting.search_path
    appliance.methods.__path__ = list(greeting.method_paths)
    _bound_memory(greeting.max_bytes)
    for module in greeting.modules:
        with contextlib.suppress(Exception):  # told to whoever asks for it
            handlers.find(module)
    gc.freeze()
    _write_frame(line, READY)
    while True:
        _write_frame(line, await perform(reader.decode(_read_frame(line)), handlers))


def _read_frame(line: socket.socket) -> bytes:
    # NB: without the loop on purpose: nothing else is to run here while no order is in hand
    (size,) = HEAD.unpack(_read_exactly(line, HEAD.size))
    return _read_exactly(line, size)


def _read_exactly(line: socket.socket, size: int) -> bytes:
    found = bytearray(size)
    left = memoryview(found)
    while left:
        count = line.recv_into(left)
        if not count:
            raise EOFError
        left = left[count:]
    return bytes(found)


def _write_frame(line: socket.socket, raw: bytes) -> None:
    line.sendall(HEAD.pack(len(raw)) + raw)


def end_with(alarm_fd: int) -> None:
    """Have the kernel kill this process and its group when nobody holds the other end of the pipe any more.

    Not PR_SET_PDEATHSIG, which minds the thread that forked and not its process. Nor a thread that waits: code that holds
    the interpreter, as a regular expression does, would keep it from running.
    """
    # NB: the daemon has made it the leader of a group of its own
    fcntl.fcntl(alarm_fd, fcntl.F_SETOWN, -os.getpid())
    fcntl.fcntl(alarm_fd, fcntl.F_SETSIG, signal.SIGKILL)
    flags = fcntl.fcntl(alarm_fd, fcntl.F_GETFL)
    fcntl.fcntl(alarm_fd, fcntl.F_SETFL, flags | os.O_ASYNC)
    poll = select.poll()
    poll.register(alarm_fd, 0)
    if poll.poll(0):  # it went before the kernel was told
        os.killpg(os.getpid(), signal.SIGKILL)


def heed_no_signal_of_the_daemon() -> None:
    """Go on over signals that are meant for the daemon; what a handler starts heeds them as anybody does.

    Not SIG_IGN, which is inherited: who ends processes of its own by a signal, as `multiprocessing` does, would wait for
    ever.
    """
    before = {number: signal.signal(number, _go_on) for number in _FOR_THE_DAEMON}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    # a new program forgets handlers by itself
    os.register_at_fork(after_in_child=restore)


def _go_on(_number: int, _frame: object) -> None:
    pass


def _bound_memory(max_bytes: int) -> None:
    # NB: a service manager may deny all of these (@resources); its own bounds hold then
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_DATA, (max_bytes, max_bytes))
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold messages
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE, encoding="ascii")


def main() -> None:
    """Serve until the daemon closes the line."""
    line_fd, alarm_fd = map(int, sys.argv[1:3])
    end_with(alarm_fd)
    heed_no_signal_of_the_daemon()
    with socket.socket(fileno=line_fd) as line, contextlib.suppress(EOFError, ConnectionError):
        asyncio.run(_serve(line))


if __name__ == "__main__":
    main()
