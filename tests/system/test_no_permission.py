"""Who may not use a state directory is told so, and who may, whatever he asks; root does not take one from its owner."""

import os

import pytest

from appliance.cli import api_client
from appliance.cli.api_client import ApiClient, UnixWay
from appliance.errors import DaemonUnreachable
from tests.support import forked
from tests.support.appliance import Appliance

CONFIG = "version: 1\nbroker: {embedded: true}\nnodes: {a: {subscribe: {REQPing: {}}}}\n"
ASKING = [
    "status",
    "history",
    "history show 1",
    "rollback",
    "fleet status",
    "fleet wait --timeout 1s",
    "reload",
    "outbox list",
    "outbox retry --all",
    "inbox list",
    "methods",
    "methods REQPing",
    "plan {config}",
    "send --to a REQPing",
    "tail a /tmp/x",
    "cp a:/tmp/x {home}/",
    "run {config} --all-nodes",
    "run --check {config} --all-nodes",
    "demo --once",
]


@pytest.fixture
def place(tmp_path):
    """A directory that nobody may look into, a config, and a home."""
    (tmp_path / "home").mkdir()
    (tmp_path / "config.yaml").write_text(CONFIG)
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "appliance.sock").touch()
    closed.chmod(0)
    yield tmp_path
    closed.chmod(0o700)


def ask(place, words):
    """As a user without root's way around the rights of files."""
    env = {**os.environ, "HOME": str(place / "home")}
    env.pop("APPLIANCE_STATE_DIR", None)
    return forked.run(words, env=env, is_plain_user=True)


@pytest.mark.parametrize("words", ASKING)
def test_every_command_says_that_a_permission_is_missing_and_which_group_has_it(place, words):
    words = words.format(config=place / "config.yaml", home=place / "home").split()
    done = ask(place, [*words, "--state-dir", str(place / "closed")])
    assert done.returncode == 77, done.stderr
    assert f"no permission to use {place}/closed/" in done.stderr
    assert "group" in done.stderr


@pytest.mark.parametrize(
    "words", ["check {closed}", "run {closed} --all-nodes --state-dir {home}", "bench {closed}"]
)
def test_a_config_that_may_not_be_read_is_a_bad_config(place, words):
    done = ask(place, words.format(closed=place / "closed", home=place / "home").split())
    assert done.returncode == 78
    assert "permission denied" in done.stderr + done.stdout


def test_a_place_that_may_not_be_looked_into_may_have_a_daemon(place, monkeypatch):
    def look(_path, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(api_client, "SYSTEM_STATE_DIR", place / "closed")
    monkeypatch.setattr(type(place), "stat", look)
    with pytest.raises(DaemonUnreachable, match=r"there may be one below .*closed, which root"):
        ApiClient(UnixWay(place / "home")).get("/api/v1/status", dict)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a directory another user's")
def test_root_leaves_no_files_in_the_state_directory_of_another_user(tmp_path):
    appliance = Appliance(CONFIG, tmp_path)
    appliance.state.mkdir()
    os.chown(appliance.state, 1, 1)
    appliance.spawn()
    assert appliance.process.wait(60) == 77
    assert "belongs to daemon" in appliance.log()
    assert os.listdir(appliance.state) == []
