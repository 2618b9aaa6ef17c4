"""The parts of the daemon whose settings change while it runs, as the way into force sees them."""

from __future__ import annotations

from appliance.api.port import Port, split_listen
from appliance.api.server import AdminServer, StagedListener
from appliance.bus.nats import NatsBus
from appliance.core.problems import Problem
from appliance.core.specs import BrokerSettings, DesiredState
from appliance.daemon.own_broker import OwnBroker, reach
from appliance.errors import BusUnavailable
from appliance.inputs.inputs import Inputs, Staged


class PortsPart:
    """Addresses that `admin` and `inputs` exchange: who gives one up makes room before the other takes it. Staged first."""

    def __init__(self, server: AdminServer, inputs: Inputs) -> None:
        self._server = server
        self._inputs = inputs

    def differs(self, old: DesiredState, new: DesiredState) -> bool:
        """Whether both change."""
        return old.admin.listen != new.admin.listen and old.inputs != new.inputs

    async def stage(self, _old: DesiredState, new: DesiredState, *, insist: bool) -> FreedPorts:
        """Let go what the other section takes. Raises nothing."""
        wanted_of_inputs = {
            split_listen(section.listen)[1]
            for section in (new.inputs.tcp, new.inputs.http)
            if section is not None
        }
        freed = FreedPorts()
        own = self._server.leaving_port(new.admin)
        if own is not None and own.number in wanted_of_inputs:
            await freed.take(own)
        wanted = split_listen(new.admin.listen)[1] if new.admin.listen is not None else 0
        for port in self._inputs.leaving_ports(new.inputs):
            if port.number == wanted:
                await freed.take(port)
        return freed

    def describe(self, error: Exception) -> Problem:
        """E303."""
        return Problem(code="E303", path="admin.listen", message=f"cannot listen: {error}")


class FreedPorts:
    """Ports that take no connections until the set is in force, or was given up."""

    def __init__(self) -> None:
        self._ports: list[Port] = []

    async def take(self, port: Port) -> None:
        """Let it go."""
        await port.pause()
        self._ports.append(port)

    async def commit(self) -> None:
        """Their owners end with the old set."""

    async def abandon(self) -> None:
        """Listen again. Raises OSError when one was taken meanwhile."""
        for port in self._ports:
            await port.resume()


class ListenerPart:
    """`admin`."""

    def __init__(self, server: AdminServer) -> None:
        self._server = server

    def differs(self, old: DesiredState, new: DesiredState) -> bool:
        """Whether address or token are others."""
        return old.admin != new.admin

    async def stage(self, _old: DesiredState, new: DesiredState, *, insist: bool) -> StagedListener:
        """Raises DaemonError."""
        return await self._server.stage_tcp(new.admin)

    def describe(self, error: Exception) -> Problem:
        """E303."""
        return Problem(code="E303", path="admin.listen", message=f"cannot listen: {error}")


class InputsPart:
    """`inputs`."""

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs

    def differs(self, old: DesiredState, new: DesiredState) -> bool:
        """Whether anything of the section is another."""
        return old.inputs != new.inputs

    async def stage(self, _old: DesiredState, new: DesiredState, *, insist: bool) -> Staged:
        """Raises DaemonError."""
        return await self._inputs.stage(new.inputs)

    def describe(self, error: Exception) -> Problem:
        """E307."""
        return Problem(code="E307", path="inputs", message=f"cannot open an input: {error}")


class UsersPart:
    """Whom the daemon's own broker lets in."""

    def __init__(self, broker: OwnBroker) -> None:
        self._broker = broker

    def differs(self, old: DesiredState, new: DesiredState) -> bool:
        """Whether anybody else is let in, or to something else."""
        return self._broker.users_differ(old, new)

    async def stage(self, old: DesiredState, new: DesiredState, *, insist: bool) -> StagedUsers:
        """Raises BusUnavailable."""
        try:
            await self._broker.admit_both(old, new)
        except BusUnavailable:
            # a full disk blocks no way back: the broker takes the users when it can, and denies the new ones until then
            if insist:
                raise
        return StagedUsers(self._broker, old)

    def describe(self, error: Exception) -> Problem:
        """E304."""
        return Problem(code="E304", path="broker", message=str(error))


class StagedUsers:
    """Who may something by the old set or by the new one is let in to it."""

    def __init__(self, broker: OwnBroker, old: DesiredState) -> None:
        self._broker = broker
        self._old = old

    async def commit(self) -> None:
        """What only the old set allows ends when no worker needs it any more: `OwnBroker.settle`."""

    async def abandon(self) -> None:
        """Raises BusUnavailable."""
        await self._broker.admit_only(self._old)


class BrokerPart:
    """`broker`. Staged last: a connection that is exchanged is not exchanged back without need."""

    def __init__(self, bus: NatsBus, own: OwnBroker | None) -> None:
        self._bus = bus
        self._own = own

    def differs(self, old: DesiredState, new: DesiredState) -> bool:
        """Whether anything of the section is another."""
        return old.broker != new.broker

    async def stage(self, old: DesiredState, new: DesiredState, *, insist: bool) -> StagedBroker:
        """Raises BusUnauthorized, BusUnavailable."""
        await self._bus.reconfigure(reach(new.broker, self._own), insist=insist)
        return StagedBroker(self._bus, reach(old.broker, self._own))

    def describe(self, error: Exception) -> Problem:
        """E304."""
        return Problem(code="E304", path="broker", message=f"cannot use this broker: {error}")


class StagedBroker:
    """The new connection is in use, the old one is closed."""

    def __init__(self, bus: NatsBus, old: BrokerSettings) -> None:
        self._bus = bus
        self._old = old

    async def commit(self) -> None:
        """Nothing is left to do."""

    async def abandon(self) -> None:
        """Go back; where the old broker is away, it is tried until it is there."""
        await self._bus.reconfigure(self._old, insist=False)
