"""`inbox.unfinished` counts a message from its arrival to the commit that ends it, also while the store is at work."""

import sys

from tests.support.appliance import Appliance

HELD_STORE = """
import asyncio, pathlib, sys
from appliance.outbox.store import MessageStore

def hold(name):
    real = getattr(MessageStore, name)
    async def held(self, *args, **kwargs):
        found = await real(self, *args, **kwargs) if name == "take_in" else None
        folder = pathlib.Path(sys.argv[2]).parent
        (folder / f"{name}-reached").touch()
        while not (folder / f"{name}-go").exists():
            await asyncio.sleep(0.005)
        return found if name == "take_in" else await real(self, *args, **kwargs)
    setattr(MessageStore, name, held)

hold("take_in")
hold("finish")
from appliance.__main__ import main
sys.exit(main())
"""
CONFIG = """
version: 1
broker: {embedded: true}
nodes: {solo: {subscribe: {REQToFile: {}}}}
"""


def test_a_message_in_the_stores_hands_is_unfinished(tmp_path):
    daemon = Appliance(CONFIG, tmp_path, command=[sys.executable, "-c", HELD_STORE])
    with daemon:
        daemon.send({"to_nodes": ["solo"], "method": "REQToFile", "data": ["x"], "file_name": "f"})
        for step in ("take_in", "finish"):
            daemon.wait_until(lambda _, step=step: (tmp_path / f"{step}-reached").exists())
            assert daemon.status()["inbox"]["unfinished"] == 1, step
            (tmp_path / f"{step}-go").touch()
        daemon.wait_until(lambda status: status["inbox"]["unfinished"] == 0)
        assert daemon.data("solo", "f").read_text() == "x"
