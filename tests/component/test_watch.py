"""Hints come for every way in which configuration files change; the watch survives all of them."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import watchfiles

from appliance.config import watch as watch_module
from appliance.config.watch import watch_paths
from tests.support.waiting import until_async, until_still

HINT_TIMEOUT_S = 30.0
QUIET_S = 0.15
"""A hint of what was just done has mostly come by then (they take some 50 ms)."""


class Hints:
    """Counts hints and waits for the next."""

    def __init__(self, armed: Armed) -> None:
        self.count = 0
        self._armed = armed
        self._came = asyncio.Event()

    def __call__(self) -> None:
        self.count += 1
        self._came.set()

    async def after(self, change: Callable[[], object]) -> None:
        """Make a change and wait for a hint that follows it."""
        self._came.clear()
        change()
        async with asyncio.timeout(HINT_TIMEOUT_S):
            await self._came.wait()

    async def none_after(self, path: Path, change: Callable[[], object]) -> None:
        """Make a change and wait until it was seen and judged."""
        await self.settle()
        before = self.count
        change()
        await until_async(lambda: str(path) in self._armed.judged)
        assert self.count == before

    async def settle(self) -> None:
        """Wait until no hint comes for a while."""
        await until_still(lambda: self.count, for_s=QUIET_S)


class Armed:
    """Tells when the operating system watches: what changes before that gives no event. And what it told of."""

    def __init__(self) -> None:
        self.count = 0
        self.judged: set[str] = set()
        self._changed = asyncio.Event()

    def note(self) -> None:
        self.count += 1
        self._changed.set()

    async def wait_for(self, count: int) -> None:
        async with asyncio.timeout(HINT_TIMEOUT_S):
            while self.count < count:
                self._changed.clear()
                await self._changed.wait()


@pytest.fixture
def armed(monkeypatch: pytest.MonkeyPatch) -> Armed:
    """Hooks into the library's constructor, which returns with the watches in place."""
    noted = Armed()
    original = watchfiles.main.RustNotify

    def make(*arguments: object, **options: object) -> object:
        made = original(*arguments, **options)
        noted.note()
        return made

    is_relevant = watch_module._Watched.is_relevant

    def judge(watched: object, changed: str) -> bool:
        noted.judged.add(changed)
        return is_relevant(watched, changed)

    monkeypatch.setattr(watchfiles.main, "RustNotify", make)
    monkeypatch.setattr(watch_module._Watched, "is_relevant", judge)
    monkeypatch.setattr(watch_module, "_REARM_EVERY_MS", 50)
    monkeypatch.setattr(watch_module, "_RETRY_S", 0.05)
    return noted


@asynccontextmanager
async def watching(armed: Armed, *paths: Path) -> AsyncIterator[Hints]:
    hints = Hints(armed)
    stop = asyncio.Event()
    task = asyncio.create_task(watch_paths(paths, on_hint=hints, stop=stop))
    await armed.wait_for(armed.count + 1)
    yield hints
    stop.set()
    async with asyncio.timeout(HINT_TIMEOUT_S):
        await task


def replace(path: Path, text: str) -> None:
    """As most editors and package managers save: a new file renamed over the old one."""
    fresh = path.with_name(f".{path.name}.swp")
    fresh.write_text(text)
    fresh.rename(path)


def remove_and_create(path: Path, text: str) -> None:
    path.unlink()
    path.write_text(text)


@pytest.mark.parametrize("target", ["file", "directory"])
async def test_every_way_of_saving_gives_a_hint_again_and_again(
    tmp_path: Path, armed: Armed, target: str
) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("0")
    async with watching(armed, path if target == "file" else tmp_path) as hints:
        for number in range(3):
            await hints.after(lambda n=number: path.write_text(f"in place {n}"))
            await hints.after(lambda n=number: replace(path, f"renamed {n}"))
            await hints.after(lambda n=number: remove_and_create(path, f"created {n}"))
        await hints.after(path.unlink)
        await hints.after(lambda: path.write_text("back"))


async def test_files_and_directories_that_come_and_go_below_a_directory_give_hints(
    tmp_path: Path, armed: Armed
) -> None:
    async with watching(armed, tmp_path) as hints:
        await hints.after(lambda: (tmp_path / "b.yml").write_text(""))
        count = armed.count
        await hints.after((tmp_path / "sub").mkdir)
        await armed.wait_for(count + 1)
        await hints.after(lambda: (tmp_path / "sub" / "c.yaml").write_text("1"))
        await hints.after(lambda: (tmp_path / "sub" / "c.yaml").write_text("2"))
        await hints.after(lambda: shutil.rmtree(tmp_path / "sub"))


async def test_other_files_give_no_hints(tmp_path: Path, armed: Armed) -> None:
    config = tmp_path / "conf.d"
    config.mkdir()
    (config / "a.yaml").write_text("")
    async with watching(armed, config) as hints:
        for other in (config / "outbox.db", config / "a.yaml~", tmp_path / "beside.yaml"):
            await hints.none_after(other, lambda other=other: other.write_text("x"))
        await hints.after(lambda: (config / "a.yaml").write_text("x"))


def swap_config_map(root: Path, version: int) -> None:
    """As the kubelet updates a ConfigMap volume."""
    fresh = root / f"..v{version}"
    fresh.mkdir()
    (fresh / "a.yaml").write_text(str(version))
    (root / "..data_tmp").symlink_to(fresh.name)
    (root / "..data_tmp").rename(root / "..data")
    if not (root / "a.yaml").is_symlink():
        (root / "a.yaml").symlink_to("..data/a.yaml")
    old = root / f"..v{version - 1}"
    if old.exists():
        shutil.rmtree(old)


@pytest.mark.parametrize("target", ["file", "directory"])
async def test_swaps_of_a_kubernetes_config_map_give_hints(
    tmp_path: Path, armed: Armed, target: str
) -> None:
    swap_config_map(tmp_path, 1)
    path = tmp_path / "a.yaml" if target == "file" else tmp_path
    async with watching(armed, path) as hints:
        for version in range(2, 5):
            await hints.after(lambda v=version: swap_config_map(tmp_path, v))
            await hints.settle()
            assert (tmp_path / "a.yaml").read_text() == str(version)


async def test_a_directory_deleted_and_made_again_is_watched_again(
    tmp_path: Path, armed: Armed
) -> None:
    config = tmp_path / "deep" / "conf.d"
    config.mkdir(parents=True)
    (config / "a.yaml").write_text("1")
    async with watching(armed, config) as hints:
        for number in range(3):
            await hints.after(lambda: shutil.rmtree(config))
            await hints.after(config.mkdir)
            await hints.settle()
            await hints.after(lambda n=number: (config / "a.yaml").write_text(f"{n}"))
            await hints.after(lambda n=number: replace(config / "a.yaml", f"again {n}"))
        # Its parent too.
        await hints.after(lambda: shutil.rmtree(tmp_path / "deep"))
        await hints.after(lambda: config.mkdir(parents=True))
        await hints.settle()
        await hints.after(lambda: (config / "a.yaml").write_text("back"))


async def test_a_directory_replaced_by_another_is_watched_again(
    tmp_path: Path, armed: Armed
) -> None:
    config = tmp_path / "conf.d"
    config.mkdir()
    async with watching(armed, config) as hints:
        for number in range(3):
            fresh = tmp_path / f"fresh{number}"
            fresh.mkdir()
            (fresh / "a.yaml").write_text("1")

            def swap(number: int = number, fresh: Path = fresh) -> None:
                config.rename(tmp_path / f"old{number}")
                fresh.rename(config)

            await hints.after(swap)
            await hints.settle()
            await hints.after(lambda n=number: (config / "a.yaml").write_text(f"new {n}"))


async def test_a_target_behind_a_symbolic_link_gives_hints(tmp_path: Path, armed: Armed) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "real.yaml").write_text("1")
    config = tmp_path / "conf.d"
    config.mkdir()
    (config / "a.yaml").symlink_to("../elsewhere/real.yaml")
    async with watching(armed, config) as hints:
        await hints.after(lambda: (elsewhere / "real.yaml").write_text("2"))
        await hints.after(lambda: replace(elsewhere / "real.yaml", "3"))


async def test_the_link_of_a_git_sync_layout_gives_hints(tmp_path: Path, armed: Armed) -> None:
    link = tmp_path / "current"
    for name in ("one", "two", "three"):
        (tmp_path / name / "conf.d").mkdir(parents=True)
        (tmp_path / name / "conf.d" / "a.yaml").write_text(name)
    link.symlink_to("one")

    def point_to(name: str) -> None:
        (tmp_path / "next").symlink_to(name)
        (tmp_path / "next").rename(link)

    async with watching(armed, link / "conf.d") as hints:
        for name in ("two", "three", "one"):
            await hints.after(lambda n=name: point_to(n))
            await hints.settle()
            await hints.after(lambda n=name: (link / "conf.d" / "a.yaml").write_text(f"{n} edited"))


async def test_a_storm_of_changes_gives_few_hints_and_the_last_change_gives_one(
    tmp_path: Path, armed: Armed
) -> None:
    paths = [tmp_path / f"{number}.yaml" for number in range(200)]

    def checkout(text: str) -> None:
        for path in paths:
            path.unlink(missing_ok=True)
            path.write_text(text)

    async with watching(armed, tmp_path) as hints:
        await hints.after(lambda: checkout("one"))
        await hints.settle()
        before = hints.count
        await hints.after(lambda: checkout("two"))
        await hints.settle()
        assert hints.count - before < 20
        await hints.after(lambda: paths[-1].write_text("three"))


async def test_a_path_that_does_not_exist_yet_is_waited_for(tmp_path: Path, armed: Armed) -> None:
    config = tmp_path / "later" / "conf.d"
    async with watching(armed, config) as hints:
        await hints.after(lambda: config.mkdir(parents=True))
        await hints.settle()
        await hints.after(lambda: (config / "a.yaml").write_text("1"))


async def test_a_refusal_of_the_operating_system_is_survived(
    tmp_path: Path, armed: Armed, monkeypatch: pytest.MonkeyPatch
) -> None:
    working = watchfiles.main.RustNotify
    refusals = 3

    def make(*arguments: object, **options: object) -> object:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise OSError(28, "OS file watch limit reached")
        return working(*arguments, **options)

    monkeypatch.setattr(watchfiles.main, "RustNotify", make)
    async with watching(armed, tmp_path) as hints:
        assert refusals == 0
        await hints.after(lambda: (tmp_path / "a.yaml").write_text(""))


async def test_a_loop_of_links_and_odd_entries_are_survived(tmp_path: Path, armed: Armed) -> None:
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    (tmp_path / "dangling.yaml").symlink_to("nowhere/x.yaml")
    (tmp_path / "up").symlink_to("..")
    os.mkfifo(tmp_path / "pipe.yaml")
    async with watching(armed, tmp_path, tmp_path / "loop.yaml", tmp_path / "none.yaml") as hints:
        await hints.after(lambda: (tmp_path / "a.yaml").write_text(""))


async def test_cancelling_ends_it(tmp_path: Path, armed: Armed) -> None:
    task = asyncio.create_task(watch_paths([tmp_path], on_hint=Hints(armed), stop=asyncio.Event()))
    await armed.wait_for(1)
    task.cancel()
    async with asyncio.timeout(HINT_TIMEOUT_S):
        await asyncio.wait({task})
    assert task.cancelled()


async def test_a_name_that_is_no_utf8_ends_no_watch(tmp_path: Path, armed: Armed) -> None:
    directory = tmp_path / "conf"
    directory.mkdir()
    path = directory / "a.yaml"
    path.write_text("0")
    async with watching(armed, directory) as hints:
        beside = os.fsencode(tmp_path) + b"/r\xe9sum\xe9.txt"
        below = os.fsencode(directory) + b"/bj\xf8rn"
        with open(beside, "wb"):
            pass
        os.mkdir(below)
        await hints.after(lambda: path.write_text("1"))
        os.rmdir(below)
        os.unlink(beside)
        await hints.after(lambda: path.write_text("2"))
