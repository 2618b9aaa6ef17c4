"""How a lane stands: why it is not sent, whether the node that is asked declares ours, where each record is."""

from __future__ import annotations

from collections.abc import Callable

from appliance.bus.base import Bus
from appliance.core.delivery import DeliveryState, Standing, WaitReason
from appliance.core.pacing import LanePace
from appliance.core.retry import NO_BROKER, NOBODY_THERE
from appliance.core.specs import PublisherSpec
from appliance.core.times import clock_time
from appliance.delivery.base import Flight, FlightPhase
from appliance.outbox.store import MessageStore
from appliance.telemetry.report import Telemetry
from appliance.workers.in_flight import InFlight

SENDS_THAT_CLEAR = 3
"""So many hellos that are not refused mean that the node is declared again."""


class LaneStanding:
    """Of one publisher, whose loop has it tell what is new. Of the spec it uses only what stays."""

    def __init__(
        self,
        spec: PublisherSpec,
        *,
        flights: InFlight,
        pace: LanePace,
        bus: Bus,
        store: MessageStore,
        telemetry: Telemetry,
        mono: Callable[[], float],
    ) -> None:
        self._spec = spec
        self._flights = flights
        self._pace = pace
        self._bus = bus
        self._store = store
        self._telemetry = telemetry
        self._mono = mono
        self.told = ""
        """The reason that was told last."""
        self._silent_since_at = 0.0
        self._sends_since_undeclared: int | None = None
        """What was sent since the node that is asked said that no config there declares ours; None where it did not."""

    @property
    def is_undeclared(self) -> bool:
        """Whether the node that is asked refuses everything of ours, as no config there declares it."""
        return self._sends_since_undeclared is not None

    def reason(self) -> str:
        """Why the lane stands still, in words; "" while it does not."""
        if not self._bus.is_connected:
            return str(WaitReason.BROKER_AWAY)
        reason = self._pace.reason(self._mono())
        if reason is WaitReason.SILENT:
            return f"silent since {clock_time(self._silent_since_at)}"
        if reason is WaitReason.NOBODY and self._pace.kept_by:
            return self._pace.kept_by
        return "" if reason is None else str(reason)

    def of(self, record_id: int) -> Standing | None:
        """Where a record of this lane stands; None for one that only waits behind others."""
        flight = self._flights.find(record_id)
        reason = self.reason()
        if flight is None:
            return Standing(DeliveryState.WAITING, reason) if reason else None
        if flight.phase is FlightPhase.WORKING:
            return Standing(DeliveryState.WORKING)
        if flight.phase is FlightPhase.AWAITING:
            return Standing(DeliveryState.SENT)
        if not reason and flight.unanswered:
            reason = f"not answered, sent {flight.record.sends} times"
        return Standing(DeliveryState.WAITING, reason or str(WaitReason.BEHIND))

    def why_expired(self, flight: Flight) -> str:
        """What kept a record until its time was over, in words."""
        if not self._bus.is_connected:
            return NO_BROKER
        if flight.was_absent or (self._pace.absences and not self._pace.kept_by):
            return NOBODY_THERE
        if flight.phase is FlightPhase.WORKING or flight.record.taker:
            return "the node has taken it, and nothing was heard of its end"
        return self.reason()

    # -- news ------------------------------------------------------------------------------------------

    def note_silence(self) -> None:
        """The lane has fallen silent."""
        self._silent_since_at = self._store.wall_of(self._store.now())

    def note_undeclared(self) -> None:
        """The node that is asked says that no config there declares ours."""
        if self._sends_since_undeclared is None:
            self._telemetry.node_not_declared(self._spec.key, self._spec.to_node)
        self._sends_since_undeclared = 0

    def note_unheard(self, count: int) -> None:
        """So many were sent that are answered by nothing but that, so silence is what tells that it is over."""
        if self._sends_since_undeclared is not None:
            self._sends_since_undeclared += count
            if self._sends_since_undeclared > SENDS_THAT_CLEAR:
                self.note_declared()

    def note_declared(self) -> None:
        """The node that is asked takes what is sent again."""
        self._sends_since_undeclared = None
        self._telemetry.node_declared_again(self._spec.key, self._spec.to_node)

    def tell(self) -> None:
        """Have whoever follows messages know why they wait, once for each reason."""
        reason = self.reason()
        if reason == self.told:
            return
        self.told = reason
        if reason and self._telemetry.follows_messages:
            for flight in self._flights:
                if flight.phase is FlightPhase.IDLE:
                    record = flight.record
                    self._telemetry.message_waits(record.node, record.id, record.to_node, reason)
