"""Defects 18 to 29 of the original: rights that were checked for some, lists and modes that a peer could choose."""

import asyncio
import json
import os
import stat

import nats
import nats.errors
import pytest

from tests.steward_defects.fleet import body
from tests.support.appliance import Appliance

pytestmark = pytest.mark.xdist_group("steward_defects_rights")

CONFIG = """
version: 1
broker: {{servers: ["{url}"]}}
reload: {{settle: 1ms, watch: false, poll_interval: 10m}}
inputs: {{folder: {{path: folder}}}}
nodes:
  mother:
    subscribe: {{REQToFileAppend: {{}}, REQCliCommand: {{allow_commands: [[sh, -c, "*"]]}}}}
"""


@pytest.fixture(scope="module")
def mother(fleet, tmp_path_factory):
    with Appliance(CONFIG.format(url=fleet.url), tmp_path_factory.mktemp("mother")) as daemon:
        yield daemon


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("REQCliCommand", ["touch", "{work}/made-019"]),
        ("REQCliCommandCont", ["touch", "{work}/made-019"]),
        ("REQTailFile", ["/etc/hostname"]),
        ("REQHttpGet", ["http://127.0.0.1:1/"]),
        ("REQToSocket", ["/run/none-019"]),
        ("REQCopyFileFrom", ["/etc/hostname", "central", "{work}/made-019"]),
        ("REQCopyFileTo", ["x", "ship1", "/run/made-019"]),
    ],
)
def test_019_every_method_that_reaches_out_has_its_list(fleet, method, arguments):
    (subject,) = [item["subject"] for item in fleet.daemon.status()["nodes"]["ship1"]["workers"]
                  if item["kind"] == "subscriber" and f".{method}." in item["subject"]]  # fmt: skip
    failed = fleet.daemon.worker(f"{subject}_subscriber")["failed"]
    message = body("ship1", "central", method, ["x"], file_name="o",
                   method_args=[word.format(work=fleet.work) for word in arguments])  # fmt: skip
    fleet.publish(subject, message)
    fleet.daemon.wait_until(
        lambda _: fleet.daemon.worker(f"{subject}_subscriber")["failed"] == failed + 1
    )
    assert not (fleet.work / "made-019").exists()
    assert not os.path.exists("/run/made-019")


async def hearers(fleet, *methods, silence_s=30.0):
    """Those of the methods, named as the later generations name them, that anybody subscribes.

    The broker says at once that nobody is there; who is there and says nothing for `silence_s` is one.
    """
    found = []
    async with fleet.client() as client:
        for method in methods:
            for node in ("central", "ship1"):
                for kind in ("CommandACK", "CommandNACK", "EventACK", "EventNACK"):
                    subject = f"{node}.{method}.{kind}"
                    try:
                        await client.request(subject, b"x", timeout=silence_s)
                    except nats.errors.NoRespondersError:
                        continue
                    except nats.errors.TimeoutError:
                        pass
                    found.append(subject)
    return found


def test_020_no_message_changes_who_may_do_what(fleet):
    names = ("REQKeysAllow", "REQKeysDeliverUpdate", "REQAclAddCommand", "REQAclDeliverUpdate",
             "keysAllow", "keysUpdateReceive", "aclAddCommand", "aclDeliverUpdate")  # fmt: skip
    assert asyncio.run(hearers(fleet, *names)) == []
    assert asyncio.run(hearers(fleet, "REQCliCommand", silence_s=1.0)) == [
        "ship1.REQCliCommand.CommandACK"
    ]


def put_into_folder(daemon, name, **message):
    folder = daemon.config_path.parent / "folder"
    temporary = folder / f".{name}"
    temporary.write_text(json.dumps([{"toNode": "mother", "fileName": "o", **message}]))
    temporary.rename(folder / name)
    daemon.wait_until(lambda _: (folder / "done" / name).exists())


def test_021_what_comes_by_the_folder_is_checked_like_anything(mother, tmp_path):
    worker = "mother.REQCliCommand.CommandACK_subscriber"
    put_into_folder(mother, "bad", method="REQCliCommand", methodArgs=["touch", f"{tmp_path}/made"])
    mother.wait_until(lambda _: mother.worker(worker)["failed"] == 1)
    assert not (tmp_path / "made").exists()
    put_into_folder(
        mother, "good", method="REQCliCommand", methodArgs=["sh", "-c", f"touch {tmp_path}/made"]
    )
    mother.wait_until(lambda _: (tmp_path / "made").exists())


def test_022_a_placeholder_for_files_is_plain_text(fleet):
    lines = fleet.ask("REQCliCommand", "echo", "{{CTRL_FILE:/etc/hostname}}")
    assert "{{CTRL_FILE:/etc/hostname}}" in lines


def test_023_what_is_no_longer_allowed_is_refused_from_the_reload_on(mother, tmp_path):
    def run():
        return mother.follow({"to_nodes": ["mother"], "method": "REQCliCommand", "file_name": "o",
                              "method_args": ["sh", "-c", f"echo x >> {tmp_path}/ran"]})  # fmt: skip

    assert '"exit_status":"0"' in run()
    text = mother.config_path.read_text()
    mother.write_config(text.replace("[[sh, -c", "[[ls, -c"))
    assert mother.reload()["result"] == "applied"
    try:
        assert "is not in allow_commands" in run()
    finally:
        mother.write_config(text)
        mother.reload()
    assert (tmp_path / "ran").read_text() == "x\n"


def test_026_secrets_are_never_written_by_the_daemon_and_its_state_is_private(fleet):
    assert stat.S_IMODE(fleet.daemon.state.stat().st_mode) & 0o007 == 0
    for path in fleet.daemon.state.rglob("*"):
        if path.is_file():
            assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0, path


def test_027_nothing_forwards_a_port(fleet):
    assert asyncio.run(hearers(fleet, "portSrc", "portDst", "REQPortSrc", "REQPortDst")) == []


def test_028_a_copied_file_gets_a_mode_that_no_peer_chose(fleet):
    source = fleet.work / "setuid"
    source.write_text("x")
    source.chmod(0o4755)
    fleet.ask("REQCopyFileFrom", str(source), "ship1", str(fleet.work / "copied"))
    fleet.settle()
    assert stat.S_IMODE((fleet.work / "copied").stat().st_mode) == 0o600


def test_029_a_replay_of_a_message_of_ours_is_not_run_again(fleet):
    async def record_and_replay():
        client = await nats.connect(fleet.url)
        heard = asyncio.Queue()
        await client.subscribe("ship1.REQCliCommand.CommandACK", cb=heard.put)
        await client.flush()
        counted = fleet.work / "counted-029"
        await asyncio.to_thread(
            fleet.ask, "REQCliCommand", "sh", "-c", f"echo x >> {counted}", file_name="c.out"
        )
        message = await heard.get()
        answers = asyncio.Queue()
        reply = "ship1.REQCliCommand.CommandACK.reply.replayed"
        await client.subscribe(reply, cb=answers.put)
        await client.publish(
            message.subject, message.data, reply=reply, headers=dict(message.headers)
        )
        async with asyncio.timeout(60):
            await answers.get()
        await client.close()
        return counted

    counted = asyncio.run(record_and_replay())
    fleet.settle()
    assert counted.read_text() == "x\n"
