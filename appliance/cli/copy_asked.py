"""One request to a node to copy a file, from the lines that the API tells. Pure."""

from __future__ import annotations

from appliance.api.model import Line
from appliance.cli.copy_places import Place
from appliance.cli.standing import Progress
from appliance.core.copying import COPY_FROM, Copied, read_copied


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

    def take(self, line: Line) -> None:
        """Note a line."""
        match line.event:
            case "accepted":
                self.id = line.id or None
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
