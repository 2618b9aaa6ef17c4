"""One request to a node to copy a file, from the lines that the API tells. Pure."""

from __future__ import annotations

from typing import Any

from appliance.cli.copy_places import Place
from appliance.cli.standing import Progress
from appliance.core.copying import COPY_FROM, Copied, read_copied

Json = dict[str, Any]


class CopyAsked:
    """How far it is and what came of it."""

    def __init__(self, source: Place) -> None:
        self.source = source
        self.id: int | None = None
        self.progress = Progress()
        self.is_answered = False
        self.problem: str | None = None
        self.note: str | None = None
        """What the config says that may be the reason of a silence to come."""
        self.copied: Copied | None = None
        """What the node says that it copied; None where it does not, as a Go node."""

    def take(self, line: Json) -> bool:
        """Note a line; whether it tells how far the copy is."""
        match line.get("event"):
            case "accepted":
                self.id = line.get("id")
                # NB: what follows tells that the message stays in the outbox, from where it is taken back
                self.note = str(line.get("note") or "").partition(";")[0] or None
            case "rejected":
                self.problem = str(line.get("reason") or "not accepted")
            case "refused" | "dead":
                self.progress.take(line)
                self.problem = self.progress.describe()
            case "missed" | "waits" | "sent" | "working" | "delivered":
                self.progress.take(line)
            case "reply" if line.get("has_more"):
                return bool(line.get("progress"))
            case "reply":
                self.is_answered = True
                status = line.get("exit_status")
                if status not in (None, "0"):
                    self.problem = str(status).removeprefix("failed: ")
                else:
                    self.copied = read_copied(str(line.get("data") or ""))
        return False

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
