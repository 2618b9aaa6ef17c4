"""How fast one lane may go, and why it stands still. Pure: what happened comes in with the time at which it did.

A lane stands still as a whole, because what keeps it is a property of the destination and not of a message:

- *absent*: the broker says that nobody subscribes. One record probes, with growing delay.
- *silent*: something was sent and not answered in its time, nor anything sent after it. One record probes.
- *busy*: the receiver has no room. Nothing is sent until it asked to be asked again, and then less than before.

An answer ends all of it. So do the node's hello and a reconnect, which only let everything be tried at once.
"""

from __future__ import annotations

from appliance.core.delivery import WaitReason
from appliance.core.retry import MAX_ABSENT_BACKOFF_S, absent_backoff_cap_s, backoff_s

HERE_EVERY_S = 1.0
"""A node that says more often that it is back is not heard."""
BUSY_ROUND_S = 0.5
"""Busy words that come in so short a time answer one burst and slow the lane down once."""


class LanePace:
    """Owned by one publisher. Times are monotonic seconds."""

    __slots__ = (
        "absences",
        "absent_since_mono",
        "allowance",
        "answered_mono",
        "busy_until_mono",
        "held_until_mono",
        "here_mono",
        "kept_by",
        "missed_mono",
        "silences",
        "silent_since_mono",
        "slowed_mono",
        "window",
    )

    def __init__(self, window: int) -> None:
        self.window = window
        self.allowance = float(window)
        """Unanswered messages that may be on their way now; between 1 and `window`."""
        self.absences = 0
        self.absent_since_mono = 0.0
        self.silences = 0
        """Bursts, the first one, and probes after it that were not answered."""
        self.missed_mono = 0.0
        """When the last of them was missed."""
        self.silent_since_mono: float | None = None
        self.held_until_mono = 0.0
        """When the next probe of an absent or silent lane is due."""
        self.busy_until_mono = 0.0
        self.slowed_mono = float("-inf")
        self.answered_mono = float("-inf")
        self.here_mono = float("-inf")
        self.kept_by = ""
        """Why no stream takes anything, while the lane is absent for that."""

    def set_window(self, window: int) -> None:
        """The setting has changed."""
        if self.allowance >= self.window or self.allowance > window:
            self.allowance = float(window)
        self.window = window

    @property
    def is_probing(self) -> bool:
        """Whether one record at a time asks if anybody is there."""
        return self.absences > 0 or self.silent_since_mono is not None

    @property
    def opens_mono(self) -> float:
        """Until when time keeps everything, the next probe of a lane that stands still included."""
        return max(self.held_until_mono, self.busy_until_mono)

    def reason(self, now: float) -> WaitReason | None:
        """Why the lane stands still; None while it does not."""
        if self.silent_since_mono is not None:
            return WaitReason.SILENT
        if self.absences:
            return WaitReason.NOBODY
        if now < self.busy_until_mono:
            return WaitReason.BUSY
        return None

    def room(self, awaiting: int, now: float) -> int:
        """How many more may be sent now while `awaiting` sends are unanswered; probes are not counted here."""
        if self.is_probing or now < self.busy_until_mono:
            return 0
        return max(0, int(self.allowance) - awaiting)

    def may_probe(self, awaiting: int, now: float) -> bool:
        """Whether the one record of a lane that stands still may be sent now."""
        return not awaiting and now >= self.opens_mono

    def answered(self, now: float, count: int) -> bool:
        """So many answers came that say the node is there; whether that woke the lane."""
        self.answered_mono = now
        if self.allowance < self.window:
            self.allowance = min(float(self.window), self.allowance + count / self.allowance)
        if not self.is_probing:
            return False
        self._end_hold()
        return True

    def nobody(self, now: float, *, jitter: float, kept_by: str = "") -> bool:
        """The broker says that nobody is there, or that a stream which should take it does not; whether that is news."""
        self.kept_by = kept_by
        if now < self.held_until_mono and self.absences:
            return False  # the answers to one burst are one absence
        is_news = not self.absences
        if is_news:
            self.absent_since_mono = now
        self.silent_since_mono = None
        self.silences = 0
        self.absences += 1
        # a node says when it is back; of a stream nobody hears that
        cap_s = (
            MAX_ABSENT_BACKOFF_S if kept_by else absent_backoff_cap_s(now - self.absent_since_mono)
        )
        self.held_until_mono = now + backoff_s(self.absences, cap_s=cap_s, jitter=jitter)
        return is_news

    def unanswered(self, now: float, sent_mono: float) -> bool:
        """A send was not answered in its time; whether the lane has fallen silent by that."""
        if self.answered_mono >= sent_mono or self.absences:
            return False  # others were answered since: it is the message's own trouble
        is_news = self.silent_since_mono is None
        if is_news:
            self.silent_since_mono = now
        # NB: the probe itself waits for its answer that long, so the next one is due at once
        self.held_until_mono = now
        # what was sent before the silence began tells nothing more of it, however many were under way
        if is_news or sent_mono >= self.missed_mono:
            self.missed_mono = now
            self.silences += 1
        return is_news

    def busy(self, now: float, wait_s: float) -> None:
        """The receiver has no room: half as much from now on, and nothing for a while."""
        self.answered_mono = now
        self._end_hold()
        self.busy_until_mono = max(self.busy_until_mono, now + wait_s)
        if now - self.slowed_mono >= BUSY_ROUND_S:
            self.slowed_mono = now
            self.allowance = max(1.0, self.allowance / 2)

    def wake(self, now: float) -> None:
        """There is a sign that the node may be there: try everything at once."""
        self._end_hold()
        self.busy_until_mono = min(self.busy_until_mono, now)

    def here(self, now: float) -> bool:
        """As `wake`, for the node's own word: said in two places, and by whoever wants to, it makes no flood of sends.

        Of words that come one upon the other the first counts; whether this is one that does.
        """
        if now - self.here_mono < HERE_EVERY_S:
            return False
        self.here_mono = now
        self.wake(now)
        return True

    def _end_hold(self) -> None:
        self.absences = 0
        self.silences = 0
        self.silent_since_mono = None
        self.held_until_mono = 0.0
