"""REQSpin: keep a core busy, or do what a handler must not do. The first argument says what.

Arguments: `cpu SECONDS [FILE]`, `note FILE` (a line of the data), `hang FILE`, `die`, `die-once FILE`, `flood COUNT`,
`noise`, `fail`, `reach`, `exit`, `grow`, `environment`, `send`, `helper` (starts one that sleeps), `pool WAY` (of
processes). The answer begins with the process's number.
"""

import json
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import time

from appliance.core.message import Message
from appliance.core.method import MethodInfo
from appliance.core.names import Category, MethodName
from appliance.errors import ArgumentsInvalid
from appliance.methods.base import HandlerContext, Method, Outgoing, Result


def spin(seconds: float) -> None:
    """So much time of a core, however many want one."""
    until = time.process_time() + seconds
    while time.process_time() < until:
        sum(range(1_000))


def note(path: str, text: str) -> None:
    """One line, whole."""
    file_fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file_fd, f"{text}\n".encode())
    os.close(file_fd)


class Spin:
    async def handle(self, message: Message, context: HandlerContext) -> Result:
        word, *rest = message.method_args or ("cpu", "0")
        text = "".join(message.data or ())
        match word:
            case "cpu":
                spin(float(rest[0]))
                if len(rest) > 1:
                    note(rest[1], text)
            case "note":
                note(rest[0], text)
            case "hang":
                note(rest[0], text)
                re.match(
                    r"(a+)+$", "a" * 64 + "b"
                )  # holds the interpreter, for longer than anybody lives
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "die-once":
                is_first = not os.path.exists(rest[0])
                note(rest[0], text)
                if is_first:
                    os.kill(os.getpid(), signal.SIGKILL)
            case "exit":
                sys.exit(3)
            case "flood":
                return Result(output=b"x" * int(rest[0]))
            case "noise":
                line = socket.socket(fileno=os.dup(int(sys.argv[1])))
                line.sendall(b"\xff" * 4 if rest else b"\0\0\0\3\xc1\xc1\xc1")
            case "fail":
                raise ArgumentsInvalid("no, not this")
            case "break":
                raise ValueError("broken \udc80")
            case "reach":
                await context.files.write(("a",), b"b")
            case "grow":
                return Result(output=str(len(bytearray(int(rest[0])))).encode())
            case "environment":
                found = {
                    "names": sorted(os.environ),
                    "fds": sorted(os.listdir("/proc/self/fd")),
                    "isolated": sys.flags.isolated,
                }
                return Result(output=json.dumps(found).encode())
            case "helper":
                helper = subprocess.Popen(["sleep", "3600"])  # noqa: ASYNC220
                return Result(output=str(helper.pid).encode())
            case "pool":
                with multiprocessing.get_context(rest[0]).Pool(2) as pool:
                    return Result(output=json.dumps(pool.map(abs, [-1, 2])).encode())
            case "send":
                sent = Message(to_node=message.from_node, method="REQToConsole", data=(text,))
                return Result(output=b"sent", messages=(Outgoing(message=sent),))
        return Result(output=f"{os.getpid()} {text}".encode("utf-8", "surrogateescape"))


METHOD = Method(
    info=MethodInfo(
        name=MethodName("REQSpin"),
        summary="keep a core busy",
        category=Category.EVENT,
        replies=True,
        computes=True,
    ),
    make=Spin,
)
