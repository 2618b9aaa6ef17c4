"""One copy of `cp`, from a node or to one: asks the daemon, shows how far it is, finds out what came of it."""

from __future__ import annotations

import base64
import contextlib
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

from msgspec import UNSET

from appliance.api.model import (
    CopyBegun,
    CopyKept,
    CopyLine,
    Count,
    JobBegun,
    JobNode,
    JobOutput,
    Line,
    Status,
)
from appliance.api.model import Job as JobOfDaemon
from appliance.cli.api_client import AccessWithdrawn, ApiClient, ApiRefused, NotPermitted
from appliance.cli.copy_local import LocalSource, check_writable, write_file
from appliance.cli.copy_places import Job, Place
from appliance.cli.options import warn
from appliance.cli.progress_view import ProgressView
from appliance.cli.standing import Progress
from appliance.core.copying import (
    COPY_FROM,
    NOBODY_TOOK,
    Copied,
    TargetPlace,
    join_target,
    read_copied,
)
from appliance.core.delivery import DeliveryState
from appliance.core.outcome import Kind
from appliance.errors import ApplianceError, DaemonUnreachable

MAX_COPY_S = 86_400.0
ANSWER_S = 5.0
"""A node that waits for another one as long as we would has that long to say that it was in vain."""
MAX_RESTARTS = 5
"""Of our own daemon in one copy: one that ends each time may do so because of it."""
SHA256_HEADER = "X-Appliance-SHA256"


class CopyProblem(ApplianceError):
    """This file was not copied; the text says why."""


class NobodyAnswers(CopyProblem):
    """No sign of life for as long as was to be waited."""


class Copier:
    """Copies one file after another."""

    def __init__(
        self,
        client: ApiClient,
        view: ProgressView,
        *,
        node: str | None,
        wait_s: float,
        makes_directories: bool = False,
        is_stopped: threading.Event,
        into: JobBegun | None = None,
    ) -> None:
        """With `into` each file becomes a part of that job."""
        self._client = client
        self._view = view
        self._node = node
        self._wait_s = wait_s
        self._makes_directories = makes_directories
        self._is_stopped = is_stopped
        """Whether nobody waits any more, though this thread was not interrupted itself."""
        self._is_begun = self._goes_on = False
        self._part = {"into": into.id} if into is not None else {}
        self._whole_bytes = into.takes_content if into is not None else 0
        """Up to which size a file goes with the request that copies it."""

    def copy(self, job: Job) -> Copied | None:
        """Copy one file; None where the node that did it does not say what.

        Raises:
            ApplianceError: it was not copied.
            KeyboardInterrupt: after what can be taken back was taken back.
        """
        self._is_begun = self._goes_on = False
        self._view.begin(os.path.basename(job.source.path))
        copied: Copied | None
        try:
            if job.source.node is not None and job.target.node is not None:
                copied = self._pass_on(job)
            else:
                copied = self._copy_over_restarts(job)
        except CopyProblem as error:
            if (hint := _directory_hint(job, str(error))) is not None:
                raise CopyProblem(f"{error} ({hint})") from error
            raise
        if copied is not None:
            self._view.finish(copied.size)
        if copied is None or not copied.is_confirmed:
            self._view.end()
            said = "it was handed over; the node there"
            if copied is None:
                # a Go node says so when it has read the file
                said = f"{job.source.node} has read it and sends it there, and"
            warn(f"{job.target}: {said} does not say what came of it")
        return copied

    def _copy_over_restarts(self, job: Job) -> Copied:
        """Bring or fetch it, from the beginning again where our own daemon went away in the middle and came back."""
        restarts = 0
        while True:
            self._is_begun = False
            try:
                if job.source.node is None:
                    return self._bring(job)
                check_writable(job.target.path)
                return self._fetch(job)
            except AccessWithdrawn:
                raise
            except DaemonUnreachable as error:
                if self._is_stopped.is_set():
                    raise KeyboardInterrupt from error
                restarts += 1
                if not self._is_begun or restarts > MAX_RESTARTS or not self._wait_for_daemon():
                    raise

    def _wait_for_daemon(self) -> bool:
        """Whether it is ready again within --wait."""
        self._view.clear()
        warn(f"the daemon went away; waiting up to {self._wait_s:g} s for it (--wait)")
        until_mono = time.monotonic() + self._wait_s
        while time.monotonic() < until_mono:
            with contextlib.suppress(ApplianceError, OSError):
                self._client.get("/api/v1/status", Status)
                return True
            time.sleep(0.2)
        return False

    def describe_interrupted(self, job: Job) -> str:
        """Words for the one who pressed Ctrl-C."""
        if self._goes_on:
            return (
                f"interrupted: {job.source.node} has begun and goes on copying to {job.target};"
                " what comes of it is not shown"
            )
        return f"interrupted: {job.target} is as it was"

    # -- from here to a node ----------------------------------------------------------------------

    def _bring(self, job: Job) -> Copied:
        path, target, attributes = job.source.path, job.target, job.attributes
        source = LocalSource(path)
        with contextlib.closing(source):
            body: dict[str, str | int | None] = {
                "to_node": target.node,
                "path": target.path,
                "name": os.path.abspath(path),
            }
            if self._makes_directories or job.makes_directories:
                body["make_directories"] = True
                if not self._makes_directories:
                    body["within"] = job.within
            body |= {name: value for name, value in attributes._asdict().items() if value}
            if attributes.mode is not None:
                body["mode"] = attributes.mode
            if source.size <= self._whole_bytes:
                return self._bring_whole(body, source)
            begun = self._begin(body)
            token = begun.token
            with self._forgetting(token):
                blocks = source.blocks(self._view.show_reading)
                place = f"/api/v1/copies/{token}/content"
                kept = self._client.bring(place, CopyKept, blocks, source.size)
                if kept.sha256 != source.sha256:
                    raise CopyProblem(f"{path}: damaged on the way to the daemon")
                return self._send(token, path, begun.hint)

    def _bring_whole(self, body: dict[str, Any], source: LocalSource) -> Copied:
        """In one request: of many small files these are most of what a copy costs."""
        if self._node is not None:
            body["node"] = self._node
        content = base64.b64encode(b"".join(source.blocks(self._view.show_reading))).decode()
        body["content"] = {"base64": content}
        copied = self._follow("/api/v1/copies", body, source.path, None)
        if copied.sha256 != source.sha256:
            raise CopyProblem(f"{source.path}: damaged on the way to the daemon")
        return copied

    def _send(self, token: str, path: str, hint: str | None) -> Copied:
        return self._follow(f"/api/v1/copies/{token}/send", {}, path, hint)

    def _follow(self, place: str, body: object, path: str, hint: str | None) -> Copied:
        # NB: the daemon says something every two seconds, whatever the line to the node does
        query = {"wait": f"{self._wait_s:g}s", **self._part}
        last = CopyLine()
        for line in self._client.stream(place, CopyLine, body, query, self._wait_s):
            last = line.value
            self._is_begun = True
            if last.event == "begun":
                hint = last.hint or None
                self._tell_unknown(last.note or None)
            if last.progress:
                self._view.show(*last.progress)
        if last.event == "failed":
            reason = last.reason or ""
            is_named = os.path.abspath(path) in reason
            raise _problem(reason if is_named else f"{path}: {reason}", hint)
        return Copied(last.size or 0, last.sha256 or "", bool(last.is_confirmed))

    # -- from a node ------------------------------------------------------------------------------

    def _fetch(self, job: Job) -> Copied:
        source, path = job.source, job.target.path
        begun = self._begin({"from_node": source.node})
        token = begun.token
        with self._forgetting(token):
            arguments = [source.path, begun.node, begun.path]
            asked = CopyAsked(source)
            self._ask(asked, arguments, begun.node, idle_s=self._wait_s, hint=begun.hint)
            query = {"wait": f"{self._wait_s:g}s"}
            place = f"/api/v1/copies/{token}/content"
            try:
                with self._client.fetch(place, query, self._wait_s) as response:
                    sha256 = response.headers.get(SHA256_HEADER, "")
                    size = write_file(path, response, sha256, job.attributes)
                    return Copied(size, sha256, True)
            except NotPermitted:
                raise
            except ApiRefused as error:
                raise NobodyAnswers(f"{source}: {error}") from error

    def _pass_on(self, job: Job) -> Copied | None:
        source, target = job.source, job.target
        assert target.node is not None
        makes = self._makes_directories or job.makes_directories
        within = "" if self._makes_directories else job.within
        place = TargetPlace(target.path, makes, job.attributes, within)
        asked = CopyAsked(source)
        idle_s = self._wait_s + ANSWER_S
        try:
            arguments = [source.path, target.node, *join_target(place)]
            try:
                return self._ask(asked, arguments, self._node, idle_s=idle_s)
            except AccessWithdrawn:
                raise
            except DaemonUnreachable:
                # it goes on without us, and its job knows what became of it
                if not (asked.id and asked.job) or not self._wait_for_daemon():
                    raise
                return self._look_after(asked, idle_s)
        except KeyboardInterrupt:
            self._goes_on = self._is_begun = self._is_begun or asked.is_delivered
            raise

    def _look_after(self, asked: CopyAsked, idle_s: float) -> Copied | None:
        """What became of a copy between two nodes, by the job that it is part of."""
        until_mono = time.monotonic() + idle_s
        place = f"/api/v1/jobs/{asked.job}"
        known: JobNode | None = None
        while time.monotonic() < until_mono:
            found = self._client.get(place, JobOfDaemon, {"wait": "2s"}).value
            nodes = [] if found.nodes is UNSET else found.nodes
            node = next((item for item in nodes if item.id == asked.id), None)
            if node is None or node.kind == Kind.DONE:
                return self._read_answer(asked)
            if node.kind == Kind.FAILED:
                is_silent = node.state == DeliveryState.EXPIRED
                raise _problem(f"{asked.source}: {node.why or node.state}", is_silent=is_silent)
            if known is None or (node.state, node.why) != (known.state, known.why):
                known, until_mono = node, time.monotonic() + idle_s
        self._withdraw(asked)
        raise NobodyAnswers(f"{asked.source}: {asked.describe_silence(self._wait_s)}")

    def _read_answer(self, asked: CopyAsked) -> Copied | None:
        said, after = "", 0
        while True:
            query = {"after": str(after), "node": asked.source.node or ""}
            found = self._client.get(f"/api/v1/jobs/{asked.job}/output", JobOutput, query).value
            said += "".join(piece.data for piece in found.pieces if piece.id == asked.id)
            if found.next is None:
                return read_copied(said)
            after = found.next

    def _ask(
        self,
        asked: CopyAsked,
        arguments: list[str],
        node: str | None,
        *,
        idle_s: float,
        hint: str | None = None,
    ) -> Copied | None:
        """Have a node copy, and follow it."""
        source = asked.source
        body: dict[str, Any] = {
            "to_nodes": [source.node],
            "method": COPY_FROM,
            "method_args": arguments,
            "method_timeout": self._wait_s,
            "for_caller": True,
        }
        if node is not None:
            body["from_node"] = node
        query = {"wait": f"{MAX_COPY_S:g}s", "idle": f"{idle_s:g}s", "job": "cp", **self._part}
        try:
            for answer in self._client.stream("/api/v1/messages", Line, body, query, idle_s):
                line = answer.value
                asked.take(line)
                if line.progress:
                    self._view.show(*line.progress)
                elif line.event == "accepted" and hint is None:
                    hint = asked.note
                    self._tell_unknown(hint)
        except (KeyboardInterrupt, DaemonUnreachable) as error:
            if not (isinstance(error, KeyboardInterrupt) or self._is_stopped.is_set()):
                raise
            self._withdraw(asked)
            self._is_begun = asked.is_delivered
            raise KeyboardInterrupt from error
        if asked.problem is not None:
            is_named = source.path in asked.problem
            raise _problem(
                f"{source.node if is_named else source}: {asked.problem}",
                is_silent=asked.progress.is_expired,
            )
        if not asked.is_answered:
            self._withdraw(asked)
            text = f"{source}: {asked.describe_silence(self._wait_s)}"
            raise NobodyAnswers(f"{text}; {hint}" if hint and not asked.is_delivered else text)
        return asked.copied

    def _withdraw(self, asked: CopyAsked) -> None:
        """A copy that nobody waits for is not begun tomorrow."""
        if asked.id is None or asked.is_delivered:
            return
        with contextlib.suppress(ApplianceError):
            body = {"ids": [str(asked.id)], "pending": True}
            self._client.post("/api/v1/outbox/drop", Count, body)

    # -- tokens -----------------------------------------------------------------------------------

    def _begin(self, body: dict[str, str | int | None]) -> CopyBegun:
        if self._node is not None:
            body["node"] = self._node
        begun = self._client.post("/api/v1/copies", CopyBegun, body).value
        self._is_begun = True
        self._tell_unknown(begun.note)
        return begun

    def _tell_unknown(self, note: str | None) -> None:
        """A name that no config knows is told at once: it is a slip more often than not."""
        if note is not None and "is not declared" in note:
            self._view.clear()
            warn(f"{note}; trying all the same")

    @contextlib.contextmanager
    def _forgetting(self, token: str) -> Iterator[None]:
        """Whatever happens, the daemon keeps nothing; what still comes for the token is refused."""
        try:
            yield
        finally:
            with contextlib.suppress(ApplianceError):
                self._client.delete(f"/api/v1/copies/{token}")


def _problem(text: str, hint: str | None = None, *, is_silent: bool = False) -> CopyProblem:
    if is_silent or NOBODY_TOOK in text:
        return NobodyAnswers(f"{text}; {hint}" if hint else text)
    return CopyProblem(text)


def _directory_hint(job: Job, reason: str) -> str | None:
    """For those who named a directory without a slash, as scp lets them."""
    target, name = job.target, os.path.basename(job.source.path)
    is_about_it = f"{target.path} is not in allow_paths" in reason or "is a directory" in reason
    if target.node is None or not is_about_it or target.path.endswith(f"/{name}"):
        return None
    return f"to copy into a directory: {target}/"


# One request to a node to copy a file, from the lines that the API tells. Pure.


class CopyAsked:
    """How far it is and what came of it."""

    def __init__(self, source: Place) -> None:
        self.source = source
        self.id: int | None = None
        self.job = ""
        """Where what becomes of it is kept."""
        self.progress = Progress()
        self.is_answered = False
        self.problem: str | None = None
        self.note: str | None = None
        """What the config says that may be the reason of a silence to come."""
        self.copied: Copied | None = None
        """What the node says that it copied; None where it does not, as a Go node."""

    def take(self, line: Line) -> None:
        """Note a line."""
        match line.event:
            case "accepted":
                self.id = line.id or None
                self.job = line.job or ""
                # NB: what follows tells that the message stays in the outbox, from where it is taken back
                self.note = (line.note or "").partition(";")[0] or None
            case "rejected":
                self.problem = line.reason or "not accepted"
            case "refused" | "dead":
                self.progress.take(line)
                self.problem = self.progress.describe()
            case "missed" | "waits" | "sent" | "working" | "delivered":
                self.progress.take(line)
            case "reply" if not line.has_more:
                self.is_answered = True
                if isinstance(line.exit_status, str) and line.exit_status != "0":
                    self.problem = line.exit_status.removeprefix("failed: ")
                else:
                    self.copied = read_copied(line.data or "")

    @property
    def is_delivered(self) -> bool:
        """Whether the node has it: it may have begun."""
        return self.progress.is_delivered

    def describe_silence(self, wait_s: float) -> str:
        """Words for an answer that did not come."""
        node = self.source.node
        if self.is_delivered:
            return f"{node} was asked and gave no sign for {wait_s:g} s (--wait)"
        if self.progress.is_absent:
            return f"{node} is away, or does not subscribe {COPY_FROM} ({wait_s:g} s, --wait)"
        why = f": {self.progress.describe()}" if self.progress.why else ""
        return f"{node} did not answer within {wait_s:g} s (--wait){why}"
