"""What operators ask a real daemon is entered, survives kill -9, and cannot be changed unseen."""

import json

from tests.support import forked
from tests.support.appliance import Appliance
from tests.support.waiting import until

CONFIG = """
version: 1
broker: {embedded: true}
reload: {settle: 1ms, watch: false, poll_interval: 10m}
nodes:
  central:
    subscribe:
      REQErrorLog: {}
      REQToFileAppend: {}
      REQCliCommand: {accept_from: [central], allow_commands: [[echo, "**"]]}
"""


def audit(daemon, *words):
    return forked.run(["audit", *words, "--state-dir", str(daemon.state)])


def entries(daemon):
    return json.loads(audit(daemon, "show", "-n", "100", "-o", "json").stdout)["entries"]


def test_who_asked_for_what_is_there_after_a_kill_and_holds_no_text(tmp_path):
    with Appliance(CONFIG, tmp_path / "node") as daemon:
        command = [
            "exec",
            "central",
            "--state-dir",
            str(daemon.state),
            "--",
            "echo",
            "canary-in-argument",
        ]
        assert forked.run(command).returncode == 0
        daemon.write_config(CONFIG.replace("REQErrorLog: {}", "REQErrorLog: {}\n      REQPing: {}"))
        assert daemon.reload()["result"] == "applied"
        daemon.write_config(CONFIG + "nodes: broken\n")
        assert daemon.reload()["result"] == "refused"
        until(lambda: [one["outcome"] for one in entries(daemon)][-1:] == [422])
        daemon.kill()
        found = entries(daemon)
        told = [(one["asked"], one["outcome"]) for one in found]
        assert told[0] == ("config", "applied"), "the start"
        assert ("POST /api/v1/messages", 202) in told
        assert ("config", "refused") in told
        assert told[-1] == ("POST /api/v1/reload", 422)
        (sent,) = (one for one in found if one["asked"] == "POST /api/v1/messages")
        assert sent["what"]["methods"] == ["REQCliCommand"]
        assert sent["what"]["to"] == ["central"]
        assert sent["from"] == "unix socket"
        assert sent["by"]
        (begun, ended) = (one for one in found if one["asked"] == "REQCliCommand")
        assert (begun["by"], begun["what"]["program"]) == ("node central", "echo")
        assert begun["what"]["job"], "by which the asking daemon knows it"
        assert (begun["outcome"], ended["outcome"]) == ("begun", "done")
        assert "canary-in-argument" not in json.dumps(found)
        whole = audit(daemon, "verify")
        assert whole.returncode == 0, whole.stderr
        assert whole.stdout.startswith(f"whole: {len(found)} entries, 1 to {len(found)}")
        daemon.start()
        until(lambda: len(entries(daemon)) > len(found))
        assert "appliance audit show, and verify --head with this digest number=" in daemon.log()
    path = daemon.state / "audit.jsonl"
    text = path.read_text()
    path.write_text(text.replace('"REQCliCommand"', '"REQPing"', 1))
    changed = audit(daemon, "verify")
    assert changed.returncode == 1
    assert "is not what followed the line before it" in changed.stderr
    # cut off at its end the chain is whole, and the digest in the log is not there
    path.write_text("".join(text.splitlines(keepends=True)[:2]))
    digest = daemon.log().rsplit("digest=", 1)[1].split()[0]
    assert audit(daemon, "verify").returncode == 0
    assert audit(daemon, "verify", "--head", digest).returncode == 1


def test_asking_to_look_at_something_is_no_entry(tmp_path):
    with Appliance(CONFIG, tmp_path / "node") as daemon:
        until(lambda: entries(daemon))
        before = len(entries(daemon))
        daemon.status()
        daemon.request("POST", "/api/v1/plan", {"files": {}, "digest": ""})
        daemon.request("POST", "/api/v1/reload", {"unknown": 1})
        daemon.reload()
        until(lambda: len(entries(daemon)) > before)
        assert [one["asked"] for one in entries(daemon)[before:]] == ["POST /api/v1/reload"]
