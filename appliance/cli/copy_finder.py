"""Asks the daemon which nodes are meant, and nodes which files they have."""

from __future__ import annotations

import base64
import json
from typing import Any

from appliance.api.model import Chosen, Count, Line
from appliance.cli.api_client import ApiClient, ApiRefused
from appliance.cli.copy_places import PlacesUnclear
from appliance.cli.copy_plan import NotListed
from appliance.cli.options import warn
from appliance.cli.standing import Progress
from appliance.core.listing import COPY_LIST, RECURSIVE, Entry, read_entries
from appliance.core.names import is_node_name
from appliance.core.targets import EVERYTHING
from appliance.errors import ApplianceError

LIST_TIME_S = 600.0
"""What a node has to look at a large tree."""


class FleetFinder:
    """Implements `copy_plan.Finder` by the API."""

    def __init__(self, client: ApiClient, *, node: str | None, wait_s: float) -> None:
        self._client = client
        self._node = node
        self._wait_s = wait_s

    def nodes(self, targets: str, method: str) -> list[str]:
        """See `Finder`. A plain name is that node, known or not."""
        if is_node_name(targets) and targets != EVERYTHING:
            return [targets]
        body: dict[str, Any] = {"targets": [targets], "method": method}
        if self._node is not None:
            body["from_node"] = self._node
        try:
            chosen = self._client.post("/api/v1/targets", Chosen, body).value
        except ApiRefused as error:
            if error.status == 400:
                raise PlacesUnclear(str(error)) from None
            raise
        for left_out in chosen.left_out:
            warn(f"{left_out.node} is left out: {left_out.why}")
        for note in chosen.notes:
            warn(note)
        if not chosen.nodes:
            raise PlacesUnclear(f"{targets}: no node is left")
        return list(chosen.nodes)

    def files(self, node: str, path: str, *, is_recursive: bool) -> list[Entry]:
        """See `Finder`."""
        body: dict[str, Any] = {
            "to_nodes": [node],
            "method": COPY_LIST,
            "method_args": [path, *([RECURSIVE] if is_recursive else [])],
            "method_timeout": LIST_TIME_S,
            "expires": self._wait_s,
            "for_caller": True,
        }
        if self._node is not None:
            body["from_node"] = self._node
        query = {"wait": f"{LIST_TIME_S:g}s", "idle": f"{self._wait_s:g}s"}
        asked = _Asked(f"{node}:{path}")
        try:
            for line in self._client.stream("/api/v1/messages", Line, body, query, LIST_TIME_S):
                asked.take(line.value)
                if asked.is_over:
                    break
        finally:
            self._take_back(asked)
        return asked.entries(self._wait_s)

    def _take_back(self, asked: _Asked) -> None:
        if asked.id is None or asked.progress.is_settled or asked.is_over:
            return
        try:
            body = {"ids": [str(asked.id)], "pending": True}
            self._client.post("/api/v1/outbox/drop", Count, body)
        except ApplianceError:
            pass  # it expires by itself


class _Asked:
    """One question, from the lines that the API tells."""

    def __init__(self, place: str) -> None:
        self._place = place
        self.id: int | None = None
        self.progress = Progress()
        self.is_over = False
        self._problem: str | None = None
        self._data = bytearray()
        self._note = ""

    def take(self, line: Line) -> None:
        match line.event:
            case "accepted":
                self.id = line.id or None
                self._note = (line.note or "").partition(";")[0]
            case "rejected":
                self._problem, self.is_over = line.reason or "not accepted", True
            case "refused" | "dead":
                self.progress.take(line)
                self._problem, self.is_over = self.progress.describe(), True
            case "missed" | "waits" | "sent" | "working" | "delivered":
                self.progress.take(line)
            case "reply":
                self._data += (
                    base64.b64decode(line.data_base64)
                    if line.data_base64
                    else (line.data or "").encode("utf-8", "backslashreplace")
                )
                if line.has_more:
                    return
                self.is_over = True
                status = line.exit_status if isinstance(line.exit_status, str) else None
                if status != "0":
                    self._problem = (status or "it does not say what it has").removeprefix(
                        "failed: "
                    )

    def entries(self, wait_s: float) -> list[Entry]:
        if self._problem is not None:
            raise NotListed(f"{self._place}: {self._problem}", is_silent=False)
        if not self.is_over:
            note = f"; {self._note}" if self._note else ""
            raise NotListed(
                f"{self._place}: no list of files came for {wait_s:g} s (--wait): the node is away, subscribes no"
                f" {COPY_LIST} (with REQCopyFileFrom, of this version on), or is a Go node{note}",
                is_silent=True,
            )
        try:
            return read_entries(bytes(self._data))
        except (ValueError, json.JSONDecodeError) as error:
            raise NotListed(f"{self._place}: {error}", is_silent=False) from None
