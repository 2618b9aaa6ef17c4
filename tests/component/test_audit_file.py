"""The audit trail on disk: files that take turns, ends that a crash has torn, disks that are full."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from appliance.core.audit import verify
from appliance.core.audit_room import Crowd, Sender
from appliance.core.current import Current
from appliance.core.hidden import Hidden, Hiding
from appliance.core.specs import AuditSettings
from appliance.telemetry import audit_file
from appliance.telemetry.audit_file import AUDIT_FILE, AuditFile, ChainFiles, find_trail, read_lines


@asynccontextmanager
async def opened(
    state_dir: Path, hiding: Hiding | None = None, **settings: int
) -> AsyncIterator[AuditFile]:
    trail = AuditFile(state_dir, Current(AuditSettings(**settings)), lambda: 0.0, hiding=hiding)
    await trail.open()
    running = asyncio.create_task(trail.run())
    try:
        yield trail
    finally:
        running.cancel()
        await asyncio.wait({running})
        await trail.close()


def enter(trail: AuditFile, *numbers: int) -> None:
    for number in numbers:
        trail.note(by="root", asked="reload", what={"number": number}, outcome=200)


def look(state_dir: Path) -> list[dict]:
    found = verify((path.name, read_lines(path)) for path in find_trail(state_dir))
    assert found.breaks == ()
    return [json.loads(line) for path in find_trail(state_dir) for line in read_lines(path)]


async def test_the_chain_goes_on_over_restarts(tmp_path: Path) -> None:
    for number in range(3):
        async with opened(tmp_path) as trail:
            enter(trail, number)
    entries = look(tmp_path)
    assert [(one["number"], one["what"]["number"]) for one in entries] == [(1, 0), (2, 1), (3, 2)]
    assert (tmp_path / AUDIT_FILE).stat().st_mode & 0o777 == 0o600


async def test_full_files_take_turns_and_the_oldest_goes(tmp_path: Path) -> None:
    for _ in range(6):
        async with opened(tmp_path, max_bytes=4_096, keep_files=2) as trail:
            enter(trail, *range(40))
    entries = look(tmp_path)
    assert len(find_trail(tmp_path)) <= 3
    assert entries[-1]["number"] == 240
    assert entries[0]["number"] > 1


def test_a_turn_that_a_kill_cut_off_is_made_good_by_the_next_without_losing_a_file(
    tmp_path: Path,
) -> None:
    for name, text in (("", "new"), (".2", "older"), (".3", "oldest")):
        (tmp_path / f"{AUDIT_FILE}{name}").write_text(text)  # killed when .1 had got its next name
    assert ChainFiles(tmp_path / AUDIT_FILE).find_end(keep_files=3) == len("new")
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {
        f"{AUDIT_FILE}.1": "new",
        f"{AUDIT_FILE}.2": "older",
        f"{AUDIT_FILE}.3": "oldest",
    }


async def test_a_line_that_a_crash_has_torn_is_taken_off_and_told(tmp_path: Path) -> None:
    async with opened(tmp_path) as trail:
        enter(trail, 1, 2)
    path = tmp_path / AUDIT_FILE
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:40])
    async with opened(tmp_path) as trail:
        enter(trail, 3)
    entries = look(tmp_path)
    assert [one["what"] for one in entries[2:]] == [{"cut_bytes": 40}, {"number": 3}]


async def test_what_a_full_disk_does_not_take_is_written_later_in_order_and_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(audit_file, "AGAIN_S", 0.0)
    tries = 0
    written = asyncio.Event()
    loop = asyncio.get_running_loop()
    real = audit_file.os.fdatasync

    def full(descriptor: int) -> None:
        nonlocal tries
        tries += 1
        if tries <= 3:
            raise OSError(28, "No space left on device")
        real(descriptor)
        loop.call_soon_threadsafe(written.set)

    monkeypatch.setattr(audit_file.os, "fdatasync", full)
    async with opened(tmp_path) as trail:
        enter(trail, 1, 2)
        async with asyncio.timeout(60):
            await written.wait()
        enter(trail, 3)
    assert [one["what"]["number"] for one in look(tmp_path)] == [1, 2, 3]
    told = [line.getMessage() for line in caplog.records if "written" in line.getMessage()]
    assert told == [
        "the audit trail cannot be written: No space left on device",
        "the audit trail is written again",
    ]


async def test_more_than_may_wait_is_counted_and_the_number_is_an_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_file, "MAX_WAITING", 5)
    async with opened(tmp_path) as trail:
        enter(trail, *range(8))
    entries = look(tmp_path)
    assert len(entries) == 6
    assert (entries[-1]["outcome"], entries[-1]["what"]) == ("lost", {"entries": 3})


async def test_files_that_are_nonsense_keep_nobody_from_starting(tmp_path: Path) -> None:
    (tmp_path / AUDIT_FILE).write_bytes(b"\xff" * 1_000_000)
    async with opened(tmp_path) as trail:
        enter(trail, 1)
    lines = [line for path in find_trail(tmp_path) for line in read_lines(path)]
    assert json.loads(lines[-1])["what"] == {"number": 1}


async def test_names_that_are_no_utf_8_stand_escaped_and_break_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as trail:
        trail.note(by="node n1", asked="REQTailFile", what={"path": "/x/\udcef"}, outcome="begun")
        enter(trail, 2)
    assert [one["what"] for one in look(tmp_path)] == [{"path": "/x/\\udcef"}, {"number": 2}]


async def test_what_a_config_took_from_the_environment_stands_as_it_is_written_there(
    tmp_path: Path,
) -> None:
    hiding = Hiding(Hidden({"value-of-it": "${NAME}"}))
    async with opened(tmp_path, hiding) as trail:
        trail.note(
            by="node n1",
            asked="REQTailFile",
            what={"path": "/x/value-of-it"},
            outcome="value-of-it",
        )
    (entry,) = look(tmp_path)
    assert (entry["what"]["path"], entry["outcome"]) == ("/x/${NAME}", "${NAME}")


MALLORY, ALICE = Sender(Crowd.NODES, "mallory"), Sender(Crowd.OPERATORS, "uid 0")


def flood(trail: AuditFile, count: int, sender: Sender = MALLORY, program: str = "echo") -> None:
    for _ in range(count):
        trail.note(
            by="node mallory",
            asked="REQCliCommand",
            what={"program": program},
            outcome="done",
            sender=sender,
        )


async def test_a_flood_leaves_what_was_entered_before_it_over_restarts(tmp_path: Path) -> None:
    async with opened(tmp_path, max_bytes=8_192, keep_files=4) as trail:
        flood(trail, 1, program="evil")
        flood(trail, 1, ALICE, "by-alice")
    for _ in range(20):
        async with opened(tmp_path, max_bytes=8_192, keep_files=4) as trail:
            flood(trail, 200)
    entries = look(tmp_path)
    assert [one["what"].get("program") for one in entries[:2]] == ["evil", "by-alice"]
    assert entries[0]["number"] == 1
    told = sum(
        one["what"].get("summed", one["what"].get("counted", 1))
        for one in entries
        if one["what"].get("program") == "echo" or "counted" in one["what"]
    )
    assert told == 20 * 200


async def test_who_is_summed_up_is_told_in_the_trail_the_log_and_the_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(tmp_path, max_bytes=65_536, keep_files=2) as trail:
        flood(trail, 500)
        assert trail.summing == ["node mallory"]
        assert trail.troubles() == []
        for number in range(500):
            flood(trail, 1, program=f"program-{number}")
        assert trail.unnamed > 0
        assert "node mallory" in trail.troubles()[0]
        flood(trail, 1, ALICE)
        assert trail.summed + trail.entered - 1 == 1_001, "and one that says so"
    marks = [one for one in look(tmp_path) if one["outcome"] == "summing"]
    assert [one["what"] for one in marks] == [{"of": "node mallory"}]
    told = [line for line in caplog.records if "sums up" in line.getMessage()]
    assert [line.fields for line in told] == [{"of": "node mallory"}]


async def test_a_sum_is_told_when_its_time_has_come_however_busy_others_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000.0
    trail = AuditFile(tmp_path, Current(AuditSettings(max_bytes=65_536, keep_files=2)), lambda: now)
    await trail.open()
    running = asyncio.create_task(trail.run())
    written = asyncio.Event()
    loop = asyncio.get_running_loop()
    real = audit_file.os.fdatasync

    def tell(descriptor: int) -> None:
        real(descriptor)
        loop.call_soon_threadsafe(written.set)

    monkeypatch.setattr(audit_file.os, "fdatasync", tell)
    flood(trail, 200)
    for _ in range(22):
        written.clear()
        flood(trail, 1, ALICE, "by-alice")
        await written.wait()
        now += 30.0
    sums = [one["what"]["summed"] for one in look(tmp_path) if "summed" in one["what"]]
    assert len(sums) == 1
    running.cancel()
    await asyncio.wait({running})
    await trail.close()


async def test_while_a_disk_is_full_one_sender_does_not_take_the_places_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_file, "MAX_WAITING", 40)
    is_full = True
    real = audit_file.os.fdatasync

    def full(descriptor: int) -> None:
        if is_full:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(audit_file.os, "fdatasync", full)
    async with opened(tmp_path) as trail:
        flood(trail, 100)
        flood(trail, 3, ALICE, "by-alice")
        is_full = False
    entries = look(tmp_path)
    assert len([one for one in entries if one["what"].get("program") == "by-alice"]) == 3
    sums = [one["what"]["summed"] for one in entries if "summed" in one["what"]]
    assert sums == [90]
