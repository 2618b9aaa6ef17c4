"""Finds the modes of delivery: each is the file here that is named as its word in `core.specs.Delivery`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping

from appliance.bus.base import Bus, OnDenied
from appliance.core.specs import Delivery, PublisherSpec, SubscriberSpec
from appliance.delivery.base import Intake, LaneCarrier, Mode, Notes
from appliance.delivery.signer import Signer
from appliance.delivery.verifier import Verifier
from appliance.dialect.base import Dialect

MakeMode = Callable[[Bus, Dialect, str, Notes, Signer, Verifier], Mode]
"""Of the connection, the dialect spoken over it, the own instance, what is remembered on disk, and who signs and checks."""

# NB: all of them at the import: by the first use of one an upgrade may have taken its file away
_MODES: Mapping[str, MakeMode] = {
    name: importlib.import_module(f"appliance.delivery.{name}").MODE for name in Delivery
}


class DeliveryModes:
    """Implements `base.DeliveryMode`: carries each subject as its spec says."""

    def __init__(
        self,
        bus: Bus,
        dialect: Dialect,
        instance: str,
        notes: Notes,
        signer: Signer,
        verifier: Verifier,
    ) -> None:
        self._modes = {
            name: make(bus, dialect, instance, notes, signer, verifier)
            for name, make in _MODES.items()
        }

    def make_carrier(self, spec: PublisherSpec) -> LaneCarrier:
        """See `base.DeliveryMode`."""
        return self._modes[spec.delivery].make_carrier(spec)

    def make_intake(
        self, spec: SubscriberSpec, on_answers_denied: OnDenied, *, begins_once: bool
    ) -> Intake:
        """See `base.DeliveryMode`. What another mode still holds for the subject comes in beside the spec's own."""
        intake = self._modes[spec.delivery].make_intake(
            spec, on_answers_denied, begins_once=begins_once
        )
        for mode in self._modes.values():
            intake = mode.with_rests(intake, spec, begins_once=begins_once)
        return intake
