"""One copy of `cp`, from a node or to one: asks the daemon, shows how far it is, says what came of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from appliance.cli.api_client import ApiClient, ApiRefused
from appliance.cli.copy_local import LocalSource, check_writable, write_file
from appliance.cli.copy_places import Job, Place
from appliance.cli.options import Exit, warn
from appliance.cli.progress_view import ProgressView
from appliance.errors import ApplianceError, DaemonUnreachable

Json = dict[str, Any]

MAX_COPY_S = 86_400.0
COPY_FROM = "REQCopyFileFrom"
SHA256_HEADER = "X-Appliance-SHA256"


class CopyProblem(ApplianceError):
    """This file was not copied; the text says why."""


class NobodyAnswers(CopyProblem):
    """No sign of life for as long as was to be waited."""


class Copier:
    """Copies one file after another."""

    def __init__(
        self, client: ApiClient, view: ProgressView, *, node: str | None, wait_s: float
    ) -> None:
        self._client = client
        self._view = view
        self._node = node
        self._wait_s = wait_s

    def copy(self, job: Job) -> None:
        """Copy one file.

        Raises:
            ApplianceError: it was not copied.
            KeyboardInterrupt: after what can be taken back was taken back, and the rest told.
        """
        self._view.begin(os.path.basename(job.source.path))
        if job.source.node is None:
            self._bring(job.source.path, job.target)
        elif job.target.node is None:
            check_writable(job.target.path)
            self._fetch(job.source, job.target.path)
        else:
            self._pass_on(job.source, job.target)

    # -- from here to a node ----------------------------------------------------------------------

    def _bring(self, path: str, target: Place) -> None:
        source = LocalSource(path)
        with contextlib.closing(source):
            begun = self._begin(
                {
                    "to_node": target.node,
                    "path": target.path,
                    "name": os.path.abspath(path),
                    "size": source.size,
                }
            )
            token = begun["token"]
            with self._forgetting(token):
                kept = self._client.bring(
                    f"/api/v1/copies/{token}/content", source.blocks(), source.size
                )
                if kept["sha256"] != source.sha256:
                    raise CopyProblem(f"{path}: damaged on the way to the daemon")
                self._send(token)

    def _send(self, token: str) -> None:
        # NB: the daemon says something every two seconds, whatever the line to the node does
        query = {"wait": f"{self._wait_s:g}s"}
        last: Json = {}
        for last in self._client.stream(f"/api/v1/copies/{token}/send", {}, query, self._wait_s):
            if last["event"] == "progress":
                self._view.show(*last["progress"])
        if last.get("event") == "failed":
            reason = str(last["reason"])
            raise (
                NobodyAnswers(reason) if "does not take the file" in reason else CopyProblem(reason)
            )
        if last.get("event") != "copied":
            raise DaemonUnreachable("the daemon went away in the middle of the copy")

    # -- from a node ------------------------------------------------------------------------------

    def _fetch(self, source: Place, path: str) -> None:
        begun = self._begin({"from_node": source.node})
        token = begun["token"]
        with self._forgetting(token):
            self._ask(source, [source.path, begun["node"], begun["path"]], begun["node"])
            query = {"wait": f"{self._wait_s:g}s"}
            place = f"/api/v1/copies/{token}/content"
            try:
                with self._client.fetch(place, query, self._wait_s) as response:
                    write_file(path, response, response.headers.get(SHA256_HEADER, ""))
            except ApiRefused as error:
                raise NobodyAnswers(f"{source}: {error}") from error

    def _pass_on(self, source: Place, target: Place) -> None:
        assert target.node is not None
        try:
            self._ask(source, [source.path, target.node, target.path], self._node)
        except KeyboardInterrupt:
            self._view.end()
            warn(
                f"{source}: if {source.node} has begun, it goes on copying to {target};"
                " what comes of it is not shown"
            )
            raise

    def _ask(self, source: Place, arguments: list[str], node: str | None) -> None:
        """Have a node copy, and follow it."""
        body: Json = {
            "to_nodes": [source.node],
            "method": COPY_FROM,
            "method_args": arguments,
            "for_caller": True,
        }
        if node is not None:
            body["from_node"] = node
        asked = _Asked(source)
        query = {"wait": f"{MAX_COPY_S:g}s", "idle": f"{self._wait_s:g}s"}
        try:
            for line in self._client.stream("/api/v1/messages", body, query, self._wait_s):
                if asked.take(line):
                    self._view.show(*line["progress"])
        except KeyboardInterrupt:
            self._withdraw(asked)
            raise
        if asked.problem is not None:
            raise CopyProblem(f"{source}: {asked.problem}")
        if not asked.is_answered:
            self._withdraw(asked)
            raise NobodyAnswers(f"{source}: {asked.describe_silence(self._wait_s)}")

    def _withdraw(self, asked: _Asked) -> None:
        """A copy that nobody waits for is not begun tomorrow."""
        if asked.id is None or asked.is_delivered:
            return
        with contextlib.suppress(ApplianceError):
            self._client.post("/api/v1/outbox/drop", {"ids": [str(asked.id)], "pending": True})

    # -- tokens -----------------------------------------------------------------------------------

    def _begin(self, body: Json) -> Json:
        if self._node is not None:
            body["node"] = self._node
        begun = self._client.post("/api/v1/copies", body)
        if begun.get("note"):
            self._view.clear()
            warn(str(begun["note"]))
        return begun

    @contextlib.contextmanager
    def _forgetting(self, token: str) -> Iterator[None]:
        """Whatever happens, the daemon keeps nothing; what still comes for the token is refused."""
        try:
            yield
        finally:
            with contextlib.suppress(ApplianceError):
                self._client.delete(f"/api/v1/copies/{token}")


class _Asked:
    """One request to a node to copy, from the lines that the API tells."""

    def __init__(self, source: Place) -> None:
        self.source = source
        self.id: int | None = None
        self.is_delivered = False
        self.is_answered = False
        self.is_absent = False
        self.problem: str | None = None

    def take(self, line: Json) -> bool:
        """Note a line; whether it tells how far the copy is."""
        match line.get("event"):
            case "accepted":
                self.id = line.get("id")
            case "rejected" | "dead":
                self.problem = str(line.get("reason") or "not accepted")
            case "refused":
                self.problem = f"refused: {line.get('reason')}"
            case "missed":
                self.is_absent = line.get("outcome") == "no_responder"
            case "delivered":
                self.is_delivered = True
            case "reply" if line.get("has_more"):
                return bool(line.get("progress"))
            case "reply":
                self.is_answered = True
                status = line.get("exit_status")
                if status not in (None, "0"):
                    self.problem = str(status).removeprefix("failed: ")
        return False

    def describe_silence(self, wait_s: float) -> str:
        """Words for an answer that did not come."""
        node = self.source.node
        if self.is_delivered:
            return f"{node} was asked and gave no sign for {wait_s:g} s (--wait)"
        if self.is_absent:
            return f"{node} is away, or does not subscribe {COPY_FROM} ({wait_s:g} s, --wait)"
        return f"{node} did not answer within {wait_s:g} s (--wait)"


def exit_code_of(error: ApplianceError) -> Exit:
    """How bad it is."""
    return Exit.SILENT if isinstance(error, NobodyAnswers) else Exit.FAILED
