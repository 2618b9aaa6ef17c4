"""Ages in a store: jumps of the wall clock, restarts, kills and reboots make nothing older than it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from appliance.core.specs import StateSettings
from appliance.outbox.store import MessageStore
from tests.support.store_bench import START_AT, HandClock, make_record, open_store


async def open_at(directory: Path, clock: HandClock, boot_id: str = "boot") -> MessageStore:
    return await MessageStore.open(
        directory, StateSettings(), wall=clock.wall, mono=clock.mono, boot_id=boot_id
    )


@pytest.mark.parametrize("jump_s", [-10 * 365 * 86_400.0, 10 * 365 * 86_400.0])
async def test_a_jump_of_the_wall_clock_changes_no_age(tmp_path: Path, jump_s: float):
    clock = HandClock()
    async with open_store(tmp_path, clock) as store:
        clock.now += 10
        clock.jump_wall(jump_s)
        assert store.now() == START_AT + 10
        assert store.wall_of(START_AT) == START_AT + jump_s
    clock.now += 5
    async with open_store(tmp_path, clock) as store:
        assert store.now() == START_AT + 15


async def test_a_kill_loses_no_time(tmp_path: Path):
    clock = HandClock()
    store = await open_at(tmp_path / "live", clock)
    try:
        clock.now += 100
        clock.jump_wall(-50_000)
        await store.put([make_record(store)])
        shutil.copytree(tmp_path / "live", tmp_path / "killed")
        (tmp_path / "killed" / "without-mark").mkdir()
    finally:
        await store.close()
    clock.now += 7
    for _ in range(2):
        killed = await open_at(tmp_path / "killed", clock)
        assert killed.now() == pytest.approx(START_AT + 107, abs=1e-5)
        await killed.close()
        (tmp_path / "killed" / "store.mark").unlink()  # the commits know it as well


@pytest.mark.parametrize(("wall_s", "passed_s"), [(3_600.0, 3_600.0), (-500.0, 30.0), (0.0, 30.0)])
async def test_over_a_reboot_what_can_have_passed_has_passed(
    tmp_path: Path, wall_s: float, passed_s: float
):
    clock = HandClock()
    store = await open_at(tmp_path, clock, "boot-a")
    await store.put([make_record(store)])
    await store.close()
    clock.jump_wall(wall_s)
    clock.mono_s = 30.0
    store = await open_at(tmp_path, clock, "boot-b")
    assert store.now() == pytest.approx(START_AT + passed_s)
    await store.close()
