"""Whoever asks to be let in and waits outlasts a broker that is away for a while."""

import pytest

from appliance.bus import enrolling
from appliance.cli import enrol_command
from appliance.core.enrolment import Result
from appliance.core.specs import BrokerSettings
from appliance.errors import BusUnauthorized, BusUnavailable

BROKER = BrokerSettings(servers=("nats://broker:4222",))


@pytest.fixture
def ask(monkeypatch):
    """`_ask` with what becomes of each asking, in turn."""

    async def no_login(_settings):
        pass

    async def ask(*outcomes, wait_s):
        left = list(outcomes)

        async def come_of_it(*_):
            outcome = left.pop(0)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        monkeypatch.setattr(enrol_command, "ASK_EVERY_S", 0.0)
        monkeypatch.setattr(enrolling, "ask_to_be_let_in", come_of_it)
        monkeypatch.setattr(enrolling, "try_login", no_login)
        return await enrol_command._ask(BROKER, BROKER, "ship7", "", wait_s)

    return ask


async def test_with_a_time_to_wait_a_broker_that_is_away_is_asked_again(ask):
    away = BusUnavailable("no broker")
    assert await ask(away, away, Result.ACCEPTED, wait_s=60) is Result.ACCEPTED


async def test_without_one_it_is_told_at_once(ask):
    with pytest.raises(BusUnavailable, match="no broker"):
        await ask(BusUnavailable("no broker"), wait_s=None)


async def test_an_invitation_that_opens_nothing_is_told_at_once(ask):
    with pytest.raises(BusUnauthorized):
        await ask(BusUnauthorized("authorization violation"), Result.ACCEPTED, wait_s=60)
