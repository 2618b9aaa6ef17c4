"""Which programs run for whom: only who started one can name it, and what was called off does not begin."""

import asyncio
import itertools

import pytest

from appliance.errors import HandlerError
from appliance.methods.programs import running
from appliance.methods.programs.running import ProgramKey, RunningPrograms

KEY = ProgramKey("central", "0123456789abcdef", 7)


def enter(programs, key=KEY, **facts):
    told = {"node": "ship1", "method": "REQCliCommand", "arguments": ("sleep", "60"), "job": "k3f9"}
    return programs.entered(key, **{**told, **facts})


def test_what_runs_is_listed_with_who_asked_and_since_when():
    clock = itertools.count(10.0, 5.0)
    programs = RunningPrograms(lambda: next(clock))
    with enter(programs) as leash:
        leash.pid = 4711
        ((found, seconds),) = programs.of_node("ship1")
        assert (found.program, found.job, found.pid) == ("sleep 60", "k3f9", 4711)
        assert found.key.from_node == "central"
        assert seconds == 5.0
        assert programs.of_node("ship2") == []
    assert programs.of_node("ship1") == []


@pytest.mark.parametrize(
    "other",
    [KEY._replace(from_node="ship2"), KEY._replace(instance="f" * 16), KEY._replace(message_id=8)],
)
def test_a_program_is_ended_by_whoever_started_it_and_nobody_else(other):
    programs = RunningPrograms()
    with enter(programs) as leash:
        assert programs.end(other) is None
        assert not leash.asked.is_set()
        assert programs.end(KEY) is leash
        assert leash.asked.is_set()


def test_what_was_called_off_before_it_came_does_not_begin():
    programs = RunningPrograms()
    assert programs.end(KEY) is None
    with pytest.raises(HandlerError, match="cancelled before it began"), enter(programs):
        raise AssertionError
    with enter(programs):
        assert len(programs.of_node("ship1")) == 1, "a new attempt of it is another matter"


def test_what_was_called_off_is_remembered_within_bounds(monkeypatch):
    monkeypatch.setattr(running, "MAX_CALLED_OFF", 3)
    programs = RunningPrograms()
    for number in range(5):
        programs.end(KEY._replace(message_id=number))
    for number in (0, 1):
        with enter(programs, KEY._replace(message_id=number)):
            pass
    with pytest.raises(HandlerError), enter(programs, KEY._replace(message_id=4)):
        raise AssertionError


async def test_work_that_is_told_to_end_is_cancelled_and_what_ends_by_itself_is_not():
    programs = RunningPrograms()
    with enter(programs) as leash:

        async def work():
            return "done"

        assert await leash.race(work()) == "done"
        ended = asyncio.Event()

        async def wait():
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        asyncio.get_running_loop().call_soon(programs.end, KEY)
        assert await leash.race(wait()) is None
        assert ended.is_set()


def test_what_nobody_may_see_of_arguments_is_not_listed_not_even_its_beginning():
    programs = RunningPrograms(hide=lambda text: text.replace("s3cret" * 20, "${TOKEN}"))
    arguments = ("curl", "-H", "x" * (running.MAX_SHOWN_CHARACTERS - 20) + "s3cret" * 20)
    with enter(programs, arguments=arguments):
        ((found, _),) = programs.of_node("ship1")
    assert "s3cret" not in found.program
    assert "${TOKEN}" in found.program
