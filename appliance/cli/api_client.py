"""Talks to a daemon: over the unix socket of its state directory, or another way. Small on purpose: a command must
start quickly.
"""

from __future__ import annotations

import base64
import contextlib
import grp
import http.client
import json
import os
import socket
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NoReturn, Protocol, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from appliance.api.model import CopyLine, Line
from appliance.cli.interruptible import InterruptibleResponse
from appliance.cli.options import SOCKET_NAME, SYSTEM_STATE_DIR
from appliance.errors import ApplianceError, DaemonError, DaemonUnreachable

T = TypeVar("T")
LineT = TypeVar("LineT", Line, CopyLine)

ANSWER_TIMEOUT_S = 30.0
MAX_LINE_BYTES = 16 * 1024 * 1024
LAST_EVENTS = frozenset({"end", "copied", "failed"})
"""What the last line of a stream tells."""

_UNKNOWN_ROUTE = frozenset({"not found", "method not allowed"})
"""What a server says of a path that it does not serve; what it serves and has not is said otherwise."""

STOPPING = "stopping"
"""What a stream ends with whose daemon stops."""
WITHDRAWN = "withdrawn"
"""What one ends with whose asker was known, and is not any more."""


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What the daemon said: `value` as this version reads it, `raw` as it came."""

    value: T
    raw: bytes

    @classmethod
    def of(cls, kind: type[T], facts: object) -> Answer[T]:
        """What no daemon was asked for, in the same form."""
        raw = msgspec.json.encode(facts)
        return cls(msgspec.json.decode(raw, type=kind), raw)

    @property
    def plain(self) -> Any:
        """All of it, also what only a later version knows: for -o json."""
        return json.loads(self.raw)


class ApiRefused(ApplianceError):
    """The daemon answered, and said no."""

    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.status = status


class NotPermitted(ApiRefused):
    """The daemon does not know who asks, or does not let them."""


class NotKnownThere(ApiRefused):
    """The daemon knows no such request: it is of another version."""


class AccessWithdrawn(DaemonUnreachable):
    """We were let in, and then not any more."""


class SocketForbidden(DaemonError):
    """The socket is there, or may be, and we may not use it."""

    def __init__(self, path: Path) -> None:
        group = _find_group(path)
        who = f"members of its group {group} may" if group else "its group may"
        super().__init__(f"no permission to use {path}; {who}, or say sudo")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float | None) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path
        self._timeout_s = timeout_s

    def connect(self) -> None:
        # not at the top: a command that asks another machine needs no socket
        from appliance.api.unix_socket import connect_unix

        self.sock: socket.socket = connect_unix(self._path, self._timeout_s)


class Content:
    """What comes from a daemon as it is. A connection that breaks is told as such, and is not the end."""

    def __init__(
        self,
        response: http.client.HTTPResponse,
        explain: Callable[[Exception], DaemonError],
        name: str,
    ) -> None:
        self.headers = response.headers
        self._response = response
        self._explain = explain
        self._name = name

    def read(self, amount: int) -> bytes:
        """The next bytes; empty at the end.

        Raises:
            DaemonUnreachable: there is more, and it does not come.
        """
        try:
            block = self._response.read(amount)
        except (OSError, http.client.HTTPException) as error:
            raise self._explain(error) from error
        if not block and amount and self._response.length:
            raise DaemonUnreachable(f"the daemon on {self._name} went away in the middle")
        return block


class Way(Protocol):
    """How one daemon is reached."""

    is_remote: bool
    """Whether it sees other files than we do."""

    @property
    def name(self) -> str:
        """Where it is, as messages say it."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """What goes along with every request."""
        ...

    def open(self, timeout_s: float | None) -> http.client.HTTPConnection:
        """A connection, which connects with its first request; whatever it waits for later is bounded by `timeout_s`."""
        ...

    def explain(self, error: Exception) -> DaemonError | None:
        """Words for what went wrong with a connection; None for the usual ones."""
        ...

    def explain_refusal(self, status: int, error: str) -> str:
        """Words for an answer that says no."""
        ...


MAX_OTHERS = 3
"""Daemons of this machine that are named to who asked none."""


class UnixWay:
    """By the socket in a state directory."""

    is_remote = False
    headers: Mapping[str, str] = {}

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / SOCKET_NAME
        self.name = str(self._path)

    def open(self, timeout_s: float | None) -> http.client.HTTPConnection:
        """See `Way`."""
        return _UnixConnection(self._path, timeout_s)

    def explain(self, error: Exception) -> DaemonError | None:
        """See `Way`."""
        if isinstance(error, PermissionError):
            return SocketForbidden(self._path)
        if isinstance(error, FileNotFoundError | ConnectionRefusedError | NotADirectoryError):
            return DaemonUnreachable(f"no daemon answers on {self._path}{self._other_place()}")
        return None

    def explain_refusal(self, status: int, error: str) -> str:
        """See `Way`."""
        return error

    def _other_place(self) -> str:
        """What to do next: where daemons of this machine are, if others than the one that was asked run."""
        from appliance.api.unix_socket import find_listening

        other = SYSTEM_STATE_DIR / SOCKET_NAME
        try:
            other.stat()
        except PermissionError:
            group = _find_group(other)
            members = f" and members of the group {group}" if group else ""
            return f"; there may be one below {SYSTEM_STATE_DIR}, which root{members} may ask"
        except OSError:
            pass
        asked = os.path.realpath(self._path.parent)
        found = [place for place in find_listening(SOCKET_NAME) if os.path.realpath(place) != asked]
        if not found:
            return "; start it (appliance run), or name its --state-dir"
        named = ", ".join(f"--state-dir {place}" for place in found[:MAX_OTHERS])
        more = f" and {len(found) - MAX_OTHERS} more" if len(found) > MAX_OTHERS else ""
        return f"; there is one with {named}" if len(found) == 1 else f"; there are {named}{more}"


class _EndableWay:
    """A way that knows the connections that were opened by it."""

    def __init__(self, way: Way) -> None:
        self.explain, self.explain_refusal = way.explain, way.explain_refusal
        self._way = way
        self._opened: weakref.WeakSet[http.client.HTTPConnection] = weakref.WeakSet()

    def open(self, timeout_s: float | None) -> http.client.HTTPConnection:
        connection = self._way.open(timeout_s)
        connection.response_class = InterruptibleResponse
        self._opened.add(connection)
        return connection

    @property
    def name(self) -> str:
        return self._way.name

    @property
    def headers(self) -> Mapping[str, str]:
        return self._way.headers

    def end_all(self) -> None:
        for connection in list(self._opened):
            if connection.sock is not None:
                with contextlib.suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)


class ApiClient:
    """One daemon. Every call opens a connection of its own."""

    def __init__(self, way: Way) -> None:
        self._way = _EndableWay(way)
        self.is_remote = way.is_remote

    def end_requests(self) -> None:
        """End those that are under way in other threads, as if the daemon had gone."""
        self._way.end_all()

    def get(
        self,
        path: str,
        kind: type[T],
        query: Mapping[str, str] | Sequence[tuple[str, str]] = (),
    ) -> Answer[T]:
        """The answer to a question.

        Raises:
            DaemonUnreachable: nobody answers.
            ApiRefused: the daemon says no.
        """
        return self._ask("GET", _with_query(path, query), kind, None, (), ANSWER_TIMEOUT_S)

    def post(
        self,
        path: str,
        kind: type[T],
        body: object,
        *,
        accept: Sequence[int] = (),
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> Answer[T]:
        """The answer to a request; `accept` names error statuses whose body is an answer too.

        Raises:
            DaemonUnreachable: nobody answers.
            ApiRefused: the daemon says no.
        """
        return self._ask("POST", path, kind, body, accept, timeout_s)

    def stream(
        self, path: str, kind: type[LineT], body: object, query: Mapping[str, str], wait_s: float
    ) -> Iterator[Answer[LineT]]:
        """Post, and yield one value per line as it comes.

        Raises:
            DaemonUnreachable: nobody answers, or the daemon went away in the middle.
            ApiRefused: the daemon says no.
        """
        connection = self._way.open(wait_s + ANSWER_TIMEOUT_S)
        try:
            headers = {"Accept": "application/x-ndjson"}
            response = self._open(connection, "POST", _with_query(path, query), body, headers)
            if response.status >= 400:
                self._refuse(response.status, response.read())
            last = ""
            while raw := response.readline(MAX_LINE_BYTES):
                if not raw.endswith(b"\n"):
                    break  # cut off in its middle
                line = Answer(msgspec.json.decode(raw, type=kind), raw)
                last = line.value.event
                if last == WITHDRAWN:
                    raise AccessWithdrawn(
                        f"{self._way.name} does not let us in any more: {line.value.reason or 'it does not say why'};"
                        " what it had accepted goes on"
                    )
                if last == STOPPING:
                    raise DaemonUnreachable(
                        f"the daemon on {self._way.name} stopped in the middle; what it had accepted goes on when it is"
                        " back"
                    )
                yield line
            # NB: http.client takes a connection that breaks between two lines for the end
            if last not in LAST_EVENTS:
                raise DaemonUnreachable(f"the daemon on {self._way.name} went away in the middle")
        except (OSError, http.client.HTTPException, msgspec.MsgspecError) as error:
            raise self._unreachable(error) from error
        finally:
            connection.close()

    def bring(self, path: str, kind: type[T], blocks: Iterator[bytes], size: int) -> T:
        """Put content of a known size, block by block. Raises as `post`; errors of `blocks` go through."""
        connection = self._way.open(ANSWER_TIMEOUT_S)
        try:
            try:
                connection.putrequest("PUT", path)
                connection.putheader("Content-Type", "application/octet-stream")
                connection.putheader("Content-Length", str(size))
                for name, value in self._way.headers.items():
                    connection.putheader(name, value)
                connection.endheaders()
            except OSError as error:
                raise self._unreachable(error) from error
            for block in blocks:
                try:
                    connection.send(block)
                except (BrokenPipeError, ConnectionResetError):
                    break  # it does not want more: the answer says why
                except OSError as error:
                    raise self._unreachable(error) from error
            try:
                response = connection.getresponse()
                raw = response.read()
                if response.status >= 400:
                    self._refuse(response.status, raw)
                return msgspec.json.decode(raw, type=kind)
            except (OSError, http.client.HTTPException, msgspec.MsgspecError) as error:
                raise self._unreachable(error) from error
        finally:
            connection.close()

    @contextlib.contextmanager
    def fetch(self, path: str, query: Mapping[str, str], wait_s: float) -> Iterator[Content]:
        """Get content, which is read within the block. Raises as `get`."""
        connection = self._way.open(wait_s + ANSWER_TIMEOUT_S)
        try:
            try:
                response = self._open(connection, "GET", _with_query(path, query), None, {})
                if response.status >= 400:
                    self._refuse(response.status, response.read())
            except (OSError, http.client.HTTPException) as error:
                raise self._unreachable(error) from error
            yield Content(response, self._unreachable, self._way.name)
        finally:
            connection.close()

    def delete(self, path: str) -> None:
        """Have something forgotten; that it is unknown is fine. Raises as `post`."""
        self._ask("DELETE", path, dict, None, (404,), ANSWER_TIMEOUT_S)

    def _ask(
        self,
        verb: str,
        path: str,
        kind: type[T],
        body: object,
        accept: Sequence[int],
        timeout_s: float,
    ) -> Answer[T]:
        connection = self._way.open(timeout_s)
        try:
            response = self._open(connection, verb, path, body, {})
            raw = response.read()
            if response.status >= 400 and response.status not in accept:
                self._refuse(response.status, raw)
            return Answer(msgspec.json.decode(raw, type=kind), raw)
        except (OSError, http.client.HTTPException, msgspec.MsgspecError) as error:
            raise self._unreachable(error) from error
        finally:
            connection.close()

    def _open(
        self,
        connection: http.client.HTTPConnection,
        verb: str,
        path: str,
        body: object,
        headers: dict[str, str],
    ) -> http.client.HTTPResponse:
        raw = None
        headers = {**self._way.headers, **headers}
        if body is not None:
            raw = json.dumps(_carried(body)).encode()
            headers = {**headers, "Content-Type": "application/json"}
        connection.request(verb, path, raw, headers)
        return connection.getresponse()

    def _unreachable(self, error: Exception) -> DaemonError:
        name = self._way.name
        if (explained := self._way.explain(error)) is not None:
            return explained
        if isinstance(error, TimeoutError):
            return DaemonUnreachable(f"the daemon on {name} does not answer in time")
        if isinstance(error, msgspec.ValidationError):
            return DaemonUnreachable(f"the daemon on {name} speaks another version: {error}")
        if isinstance(error, msgspec.MsgspecError):
            return DaemonUnreachable(f"what answers on {name} is no appliance: {error}")
        return DaemonUnreachable(f"the daemon on {name} went away: {error}")

    def _refuse(self, status: int, raw: bytes) -> NoReturn:
        try:
            error = str(json.loads(raw)["error"])
        except (ValueError, KeyError, TypeError):
            raise DaemonUnreachable(
                f"what answers on {self._way.name} is no appliance, or does not reach one: status {status}"
            ) from None
        words = self._way.explain_refusal(status, error)
        if status in (401, 403):
            raise NotPermitted(status, words)
        if status in (404, 405) and error in _UNKNOWN_ROUTE:
            raise NotKnownThere(
                status,
                f"the daemon on {self._way.name} is of another version: it does not know that",
            )
        raise ApiRefused(status, words)


def _carried(value: Any) -> Any:
    """A body with texts that are not UTF-8 (arguments and names that were typed so) as the bytes they are: JSON has none."""
    if isinstance(value, str):
        if value.isascii():
            return value
        try:
            value.encode()
        except UnicodeEncodeError:
            return {"base64": base64.b64encode(os.fsencode(value)).decode()}
        return value
    if isinstance(value, dict):
        return {key: _carried(item) for key, item in value.items()}
    return [_carried(item) for item in value] if isinstance(value, (list, tuple)) else value


def _find_group(path: Path) -> str:
    """The group that may use it: its own, or that of the directory in the way that can be looked at; "" for none."""
    for place in (path, *path.parents):
        try:
            return grp.getgrgid(place.stat().st_gid).gr_name
        except OSError:
            continue
        except KeyError:
            return ""
    return ""


def _with_query(path: str, query: Mapping[str, str] | Sequence[tuple[str, str]]) -> str:
    return f"{path}?{urlencode(query, quote_via=quote)}" if query else path
