"""What operators ask a real daemon is entered, survives kill -9, and cannot be changed unseen."""

import asyncio
import json

import cbor2
import nats

from tests.support import forked
from tests.support.appliance import Appliance
from tests.support.bare_publisher import seed_message
from tests.support.nats_server import NatsServer
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
    return json.loads(audit(daemon, "show", "-n", "1000", "-o", "json").stdout)["entries"]


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


SMALL = """
version: 1
broker: {{servers: ["{url}"]}}
reload: {{settle: 1ms, watch: false, poll_interval: 10m}}
audit: {{max_bytes: 8192, keep_files: 4}}
limits: {{error_reports_per_minute: 1}}
nodes:
  central: {{}}
  ship1: {{subscribe: {{REQCliCommand: {{accept_from: [central], allow_commands: [[echo, "**"]]}}}}}}
"""
"""Without bounds for each sender a hundred commands would push out what was there before."""


async def command(url, *commands):
    """Commands in central's name, of somebody who may publish there."""
    client = await nats.connect(url)
    subject = "ship1.REQCliCommand.CommandACK"
    try:
        messages = [
            seed_message("ship1", "central", "REQCliCommand", None, method_args=arguments)
            for arguments in commands
        ]
        headers = {"serial": "cbor"}
        asked = [
            client.request(subject, cbor2.dumps(message), timeout=60, headers=headers)
            for message in messages
        ]
        await asyncio.gather(*asked)
    finally:
        await client.close()


def test_a_peer_that_floods_pushes_out_nothing_of_what_he_and_others_did_before(tmp_path):
    with (
        NatsServer() as broker,
        Appliance(SMALL.format(url=broker.url), tmp_path / "node") as daemon,
    ):
        asyncio.run(command(broker.url, ["echo", "evil"]))
        until(lambda: [one["outcome"] for one in entries(daemon)][-1:] == ["done"])
        daemon.reload()
        until(lambda: entries(daemon)[-1]["asked"] == "POST /api/v1/reload")
        before = entries(daemon)
        refused = [[f"no-{number}", "x"] for number in range(100)]
        asyncio.run(command(broker.url, *refused))

        def told_of(status):
            counts = status["audit"]
            return counts["entered"] + counts["summed"] >= len(before) + 100

        daemon.wait_until(told_of)
        status = daemon.status()
        assert status["audit"]["summing"] == ["nodes that do not sign"]
        assert "only counts some of what nodes that do not sign" in str(status["degraded_by"])
        # others have their room, whatever nodes do
        daemon.reload()
        until(lambda: entries(daemon)[-1]["asked"] == "POST /api/v1/reload")
        metrics = daemon.request("GET", "/metrics")[1]
        assert f'audit_entries_total{{result="unnamed"}} {status["audit"]["unnamed"]}' in metrics
        daemon.kill()
        daemon.start()
        # nobody has a new share by a restart
        asyncio.run(command(broker.url, *refused[:40]))
        daemon.stop()
        kept = entries(daemon)
        assert kept[: len(before)] == before
        sums = [one["what"] for one in kept if one["asked"] == "audit"]
        assert {"of": "nodes that do not sign"} in sums
        begins = max(at for at, one in enumerate(kept) if one["asked"] == "config")
        told = [one["what"] for one in kept[begins:] if one["asked"] != "config"]
        told = [what for what in told if "program" in what or "counted" in what]
        assert sum(what.get("summed", what.get("counted", 1)) for what in told) == 40
        assert audit(daemon, "verify").returncode == 0
        log = daemon.log()
        assert "the audit trail sums up what it is asked" in log
