"""Inputs over a control without a daemon."""

import dataclasses
import time

import pytest

from appliance.core.current import Current
from appliance.core.specs import DesiredState, InputSettings, StateSettings
from appliance.inputs.inputs import Inputs
from tests.support.fake_control import FakeControl


def _desired(window_s):
    return DesiredState(
        run_nodes=(),
        declared_nodes=frozenset(),
        workers={},
        publisher_defaults={},
        state=StateSettings(dedupe_window_s=window_s),
    )


class Bench:
    """Inputs under test; `set` changes their settings as a reload does."""

    def __init__(self, directory):
        self.directory = directory
        self.control = FakeControl()
        self.troubles = []
        self.desired = Current(_desired(86_400.0))
        self.inputs = self.make()
        self.inputs.start_taking()

    def make(self, store="0123456789abcdef"):
        return Inputs(
            self.control,
            self.directory,
            store=store,
            now=time.time,
            desired=self.desired,
            on_trouble=self.troubles.append,
        )

    async def set(self, **sections):
        staged = await self.inputs.stage(
            dataclasses.replace(self.inputs.settings.value, **sections)
        )
        await staged.commit()

    @property
    def submitted(self):
        return [call[1] for call in self.control.calls if call[0] == "submit"]

    def address(self, name):
        host, _, port = self.inputs.status()[name].listen.rpartition(":")
        return host.strip("[]"), int(port)


@pytest.fixture
async def bench(short_dir):
    bench = Bench(short_dir)
    bench.inputs.settings.put(InputSettings(idle_timeout_s=5.0))
    yield bench
    await bench.inputs.close()
