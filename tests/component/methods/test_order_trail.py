"""What peers ask of a node's machine is entered in its audit trail: by whom, what for, and what came of it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from appliance.core.audit_room import Sender
from appliance.core.copying import PIECE_HEADER, Piece
from appliance.core.message import Message
from appliance.core.names import MethodName
from appliance.errors import CommandForbidden, HandlerError
from appliance.methods.registry import METHOD_TABLE, METHODS
from appliance.workers.order_trail import in_trail
from tests.component.methods.conftest import Bench


class Kept:
    """Implements `core.audit.Trail` in memory."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self.senders: list[Sender] = []

    def note(self, *, sender: Sender, **entry: Any) -> None:
        self.entries.append(entry)
        self.senders.append(sender)

    @property
    def outcomes(self) -> list[object]:
        return [entry["outcome"] for entry in self.entries]


async def ask(bench: Bench, trail: Kept, method: str, *arguments: str, signer: str = "") -> None:
    handler = in_trail(METHODS[MethodName(method)], trail).make()
    message = Message(
        method=method, to_node="ship1", from_node="central", id=7, method_args=arguments
    )
    context = bench.context(method)
    context.signer = signer
    await handler.handle(message, context)


@pytest.fixture
def trail() -> Kept:
    return Kept()


async def test_a_command_is_entered_when_it_begins_and_when_it_ends_by_its_program_alone(
    bench: Bench, trail: Kept
) -> None:
    bench.spec_fields["allow_commands"] = None
    bench.headers["appl-job"] = "2a6mey96"
    await ask(bench, trail, "REQCliCommand", "echo", "canary-in-argument")
    what = {"node": "ship1", "arguments": 2, "program": "echo", "job": "2a6mey96"}
    told = {"by": "node central", "from": "NATS", "asked": "REQCliCommand", "what": what}
    assert trail.entries == [{**told, "outcome": "begun"}, {**told, "outcome": "done"}]
    assert "canary" not in json.dumps(trail.entries)


async def test_options_before_a_program_do_not_hide_it(bench: Bench, trail: Kept) -> None:
    bench.spec_fields["allow_commands"] = (("true",),)
    await ask(bench, trail, "REQCliCommand", "", '{"stdin": true}', "true")
    assert [one["what"]["program"] for one in trail.entries] == ["true", "true"]
    with pytest.raises(HandlerError):
        await ask(bench, trail, "REQCliCommand", "", '{"user": "no-such-user"}', "true")
    assert trail.entries[-1]["what"]["user"] == "no-such-user"
    with pytest.raises(HandlerError):
        await ask(bench, trail, "REQCliCommand", "", "no JSON", "true")
    assert trail.entries[-1]["what"]["program"] == ""


async def test_what_is_refused_never_began(bench: Bench, trail: Kept) -> None:
    bench.spec_fields["allow_commands"] = (("true",),)
    with pytest.raises(CommandForbidden):
        await ask(bench, trail, "REQCliCommand", "false")
    assert trail.outcomes == ["refused"]


async def test_who_is_proved_to_have_asked_is_entered(bench: Bench, trail: Kept) -> None:
    bench.spec_fields["allow_commands"] = None
    await ask(bench, trail, "REQCliCommand", "true", signer="central")
    assert [entry["what"]["signed_by"] for entry in trail.entries] == ["central"] * 2
    await ask(bench, trail, "REQCliCommand", "true")
    # his name may be anybody's: what nobody has signed has one room together
    assert [one.name for one in trail.senders] == ["central"] * 2 + [""] * 2


async def test_a_status_a_refusal_and_a_failure_are_told_apart(bench: Bench, trail: Kept) -> None:
    bench.spec_fields["allow_commands"] = None
    await ask(bench, trail, "REQCliCommand", "false")
    bench.spec_fields["allow_commands"] = ()
    with pytest.raises(CommandForbidden):
        await ask(bench, trail, "REQCliCommand", "true")
    bench.spec_fields = {"allow_paths": None}
    with pytest.raises(HandlerError):
        await ask(bench, trail, "REQCopyFileTo", "/from", "central", "/no/such/file")
    ended = [outcome for outcome in trail.outcomes if outcome != "begun"]
    assert ended == ["status 1", "refused", "failed"]
    assert trail.entries[-1]["what"]["path"] == "/no/such/file"


async def test_what_is_cut_off_is_entered_as_that(bench: Bench, trail: Kept) -> None:
    bench.spec_fields["allow_commands"] = None
    asked = asyncio.create_task(ask(bench, trail, "REQCliCommand", "sleep", "60"))
    await bench.until(lambda: trail.outcomes == ["begun"])
    asked.cancel()
    await asyncio.wait({asked})
    assert trail.outcomes == ["begun", "cut off"]


async def test_of_a_file_in_pieces_the_first_is_entered(bench: Bench, trail: Kept) -> None:
    for offset in (0, 8, 16):
        piece = Piece(id="a" * 32, offset=offset, size=24, sha256="0" * 64)
        bench.headers[PIECE_HEADER] = json.dumps(piece._asdict())
        with pytest.raises(HandlerError):
            await ask(bench, trail, "REQCopyFileChunk", "/from", "central", "/to")
    assert len(trail.entries) == 1
    assert trail.entries[0]["what"]["path"] == "/to"


def test_whoever_acts_beyond_the_data_directory_is_entered_and_nobody_else() -> None:
    acting = {
        name
        for name, info in METHOD_TABLE.items()
        if info.runs_programs or any(option.startswith("allow_") for option in info.options)
    }
    entered = {name for name, info in METHOD_TABLE.items() if info.is_audited}
    assert acting <= entered
    assert entered - acting == {"REQOpProcessStart", "REQOpProcessStop", "REQProgramStop"}
    for name, method in METHODS.items():
        assert (in_trail(method, Kept()) is method) == (name not in entered)
