"""Schedules in a daemon that is restarted, killed and reloaded: the beat is kept, and one message waits."""

from __future__ import annotations

from pathlib import Path

from tests.support.appliance import Appliance

CONFIG = """
version: 1
broker: {embedded: true}
reload: {settle: 20ms}
nodes:
  hub:
    subscribe: {REQErrorLog: {}, REQToFileAppend: {}, REQToFile: {}}
    publish:
      hourly: {to: far, method: REQCliCommand, method_args: [backup], every: 1h, file_name: b.log}
      here: {to: hub, method: REQToFileAppend, data: [x], every: 1h, directory: here, file_name: beats}
      nightly: {to: hub, method: REQToFile, data: [x], cron: "@yearly", timezone: Pacific/Kiritimati, catch_up: once}
  far: {subscribe: {REQCliCommand: {accept_from: [hub], allow_commands: [[backup]]}}}
"""


def has_made_its_messages(appliance: Appliance) -> bool:
    return (
        appliance.data("here", "hub", "beats").exists()
        and appliance.status()["outbox"]["pending"] == 1
    )


def test_restarts_and_kills_keep_the_beat_and_make_no_second_message(tmp_path: Path) -> None:
    appliance = Appliance(CONFIG, tmp_path, args=["--node", "hub"])
    appliance.only_named = True
    with appliance:
        appliance.wait_until(lambda _: has_made_its_messages(appliance))
        appliance.kill()
    for _ in range(2):
        with appliance:
            # what a start would make is made by the time that a message sent after it is there
            appliance.send(
                {
                    "to_nodes": ["hub"],
                    "method": "REQToFile",
                    "data": ["y"],
                    "directory": "d",
                    "file_name": "f",
                }
            )
            appliance.wait_until(lambda status: status["outbox"]["pending"] == 1)
    assert appliance.data("here", "hub", "beats").read_text() == "x"
