"""REQToSocket: write the data to a unix stream socket of this machine.

methodArgs: the path. Which sockets may be written to is the config's `allow_paths`; the very socket that was judged is
connected to. What the other side says is not read. Not told twice after a crash: who knows what the first time did.

An answer may arrive as this method only where the answering node's `allow_reply_methods` names it: programs that
listen on sockets act on what they hear.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

from appliance.core.message import Message
from appliance.core.method import MethodInfo, OnCrash
from appliance.core.names import Category, MethodName
from appliance.errors import ArgumentsInvalid, CopyFailed, HandlerError
from appliance.methods.base import DONE, HandlerContext, Method, Result
from appliance.methods.files.paths import failed, open_socket
from appliance.methods.texts import join_data, shorten
from appliance.running_time import running_timeout

INFO = MethodInfo(
    name=MethodName("REQToSocket"),
    summary="Write the data to an allowed unix socket.",
    category=Category.EVENT,
    on_crash=OnCrash.INTERRUPT,
    options=frozenset({"allow_paths"}),
    is_audited=True,
    path_argument=0,
    arguments="PATH",
    for_answers=False,
)


class ToSocket:
    """One connection per message, so that messages do not mix."""

    async def handle(self, message: Message, context: HandlerContext) -> Result:
        """Write all data elements, one after the other.

        Raises:
            ArgumentsInvalid: there is not exactly one path, or it is not absolute.
            PathForbidden: not in `allow_paths`, or no socket.
            HandlerError: nobody listens, or the listener does not read in time.
        """
        arguments = message.method_args or ()
        if len(arguments) != 1 or not arguments[0]:
            raise ArgumentsInvalid("methodArgs must hold the path of a socket, and nothing else")
        path, data = arguments[0], join_data(message)
        socket_fd = await asyncio.to_thread(open_socket, path, context.spec.allow_paths)
        try:
            async with running_timeout(context.timeout_s):
                await _write(socket_fd, data)
        except TimeoutError:
            raise HandlerError(
                f"{shorten(path)}: the listener did not take {len(data)} bytes within "
                f"{context.timeout_s:g} s"
            ) from None
        except OSError as error:
            raise _explain(path, error) from error
        finally:
            os.close(socket_fd)
        return DONE


async def _write(socket_fd: int, data: bytes) -> None:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.setblocking(False)
        await _connect(connection, f"/proc/self/fd/{socket_fd}")
        await loop.sock_sendall(connection, data)
        with contextlib.suppress(OSError):  # it may have gone, with all that was to be read
            connection.shutdown(socket.SHUT_WR)


async def _connect(connection: socket.socket, address: str) -> None:
    """A listener whose queue is full makes this fail at once instead of waiting."""
    while True:
        try:
            connection.connect(address)
        except BlockingIOError:
            await asyncio.sleep(0.02)
        else:
            return


def _explain(path: str, error: OSError) -> CopyFailed:
    if isinstance(error, ConnectionRefusedError):
        return CopyFailed(shorten(path), "nobody listens on the socket")
    return failed(path, error)


METHOD = Method(info=INFO, make=ToSocket)
