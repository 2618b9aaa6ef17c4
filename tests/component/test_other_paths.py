"""Paths that somebody asks about are read within bounds, and apart from the daemon's own."""

import asyncio
import threading
from types import SimpleNamespace

import pytest

from appliance.config import files
from appliance.errors import ConfigUnreadable
from appliance.reconcile import disk
from appliance.reconcile.disk import SourceReader


class Hanging:
    """A source whose other paths do not answer until they are let go."""

    def __init__(self):
        self.released = threading.Event()
        self.asked = []

    def load(self):
        return "own"

    def load_from(self, paths):
        self.asked.append(paths)
        self.released.wait(60)
        return SimpleNamespace(paths=paths)


@pytest.fixture
def source():
    made = Hanging()
    yield made
    made.released.set()


async def test_other_paths_that_hang_are_given_up_and_hold_up_nothing_else(source, monkeypatch):
    monkeypatch.setattr(disk, "LOAD_TIMEOUT_S", 0.05)
    reader = SourceReader(source)
    with pytest.raises(ConfigUnreadable, match="/nfs: the file system does not answer"):
        await reader.load_from(["/nfs"])
    monkeypatch.setattr(disk, "LOAD_TIMEOUT_S", 30.0)
    assert await reader.load() == "own"
    # another thread would hang on the same disk: there is never more than one
    with pytest.raises(ConfigUnreadable, match="ask again later"):
        await reader.load_from(["/elsewhere"])
    assert source.asked == [["/nfs"]]
    source.released.set()
    await asyncio.wait({reader._others._loading})
    assert (await reader.load_from(["/b"])).paths == ["/b"]
    await reader.close()


async def test_who_asks_and_goes_leaves_one_thread_and_no_more(source):
    reader = SourceReader(source)
    asking = asyncio.create_task(reader.load_from(["/nfs"]))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait({asking})
    with pytest.raises(ConfigUnreadable, match="ask again later"):
        await reader.load_from(["/nfs"])
    await reader.close()


def test_a_path_with_more_below_it_than_any_config_has_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_ENTRIES", 20)
    (tmp_path / "a").mkdir()
    for number in range(9):
        (tmp_path / f"{number}.txt").touch()
        (tmp_path / "a" / f"{number}.yaml").touch()
    assert len(files.read_files([tmp_path]).contents) == 9
    (tmp_path / "a" / "more.txt").touch()
    (tmp_path / "a" / "and more.txt").touch()
    with pytest.raises(ConfigUnreadable, match="more than 20 files"):
        files.read_files([tmp_path])
