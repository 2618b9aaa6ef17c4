"""`inbox.unfinished` counts a message from its arrival to the commit that ends it, also while the store is at work."""

from tests.support.appliance import Appliance

HELD_STORE = """
import asyncio, pathlib, sys
from appliance.outbox.store import MessageStore

folder = pathlib.Path(sys.argv[2]).parent

async def held_back(name):
    (folder / f"{name}-reached").touch()
    while not (folder / f"{name}-go").exists():
        await asyncio.sleep(0.005)

take_in, finish_soon = MessageStore.take_in, MessageStore.finish_soon
later = set()

async def held_take_in(self, items):
    found = await take_in(self, items)
    await held_back("take_in")
    return found

def held_finish(self, *args, **kwargs):
    async def finish():
        await held_back("finish")
        finish_soon(self, *args, **kwargs)
    later.add(asyncio.get_running_loop().create_task(finish()))

MessageStore.take_in, MessageStore.finish_soon = held_take_in, held_finish
"""
CONFIG = """
version: 1
broker: {embedded: true}
nodes: {solo: {subscribe: {REQToFile: {}}}}
"""


def test_a_message_in_the_stores_hands_is_unfinished(tmp_path):
    daemon = Appliance(CONFIG, tmp_path)
    daemon.before = HELD_STORE
    with daemon:
        daemon.send({"to_nodes": ["solo"], "method": "REQToFile", "data": ["x"], "file_name": "f"})
        for step in ("take_in", "finish"):
            daemon.wait_until(lambda _, step=step: (tmp_path / f"{step}-reached").exists())
            assert daemon.status()["inbox"]["unfinished"] == 1, step
            (tmp_path / f"{step}-go").touch()
        daemon.wait_until(lambda status: status["inbox"]["unfinished"] == 0)
        assert daemon.data("solo", "f").read_text() == "x"
