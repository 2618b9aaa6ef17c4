"""`doctor` on a real machine: files with wrong rights, a daemon that runs or does not."""

import json

from tests.support import forked
from tests.support.appliance import Appliance

CONFIG = """
version: 1
broker: {{embedded: true}}
admin: {{listen: 127.0.0.1:0, token: {{file: {token}}}}}
nodes: {{central: {{subscribe: {{REQErrorLog: {{}}}}}}}}
"""


def look(*words):
    done = forked.run(["doctor", *words, "-o", "json"])
    points = {point["name"]: point for point in json.loads(done.stdout)["points"]}
    return done.returncode, points


def test_wrong_rights_are_seen_and_told_with_what_mends_them(tmp_path):
    token = tmp_path / "token"
    token.write_text("secret-of-the-token")
    token.chmod(0o600)
    with Appliance(CONFIG.format(token=token), tmp_path / "node") as daemon:
        words = [str(daemon.config_path), "--state-dir", str(daemon.state)]
        code, points = look(*words)
        assert (code, points["config"]["grade"], points["secrets"]["grade"]) == (0, "ok", "ok")
        assert points["daemon"]["grade"] == points["version"]["grade"] == "ok"
        assert look(*words[1:])[1]["config"] == points["config"], "the config of the daemon"
        token.chmod(0o644)
        code, points = look(*words)
        assert (code, points["secrets"]["grade"]) == (1, "bad")
        assert str(token) in points["secrets"]["text"]
        token.chmod(0o600)
        daemon.config_path.chmod(0o666)
        code, points = look(*words)
        assert (code, points["config"]["grade"]) == (1, "bad")
        assert "chmod" in points["config"]["remedy"]
        daemon.config_path.chmod(0o644)
        # who may write to a directory above may put another file in the place
        daemon.config_path.parent.chmod(0o777)
        assert look(*words)[1]["config"]["grade"] == "bad"
        daemon.config_path.parent.chmod(0o755)
        told = forked.run(["doctor", *words])
        assert told.returncode == 0, told.stdout
        assert "secret-of-the-token" not in told.stdout + told.stderr


def test_without_a_config_and_a_daemon_it_says_what_to_name(tmp_path):
    done = forked.run(["doctor", "--state-dir", str(tmp_path / "nowhere")])
    assert done.returncode == 64
    assert "name the config: no daemon that could be asked runs here" in done.stderr


def test_what_cannot_be_seen_is_unknown_and_not_good(tmp_path):
    config = tmp_path / "appliance.yaml"
    config.write_text(CONFIG.format(token=tmp_path / "missing"))
    code, points = look(str(config), "--state-dir", str(tmp_path / "nowhere"))
    assert code == 0
    for name in ("secrets", "state", "daemon", "room"):
        assert points[name]["grade"] == "unknown", name


def test_nodes_of_other_machines_are_no_nodes_of_the_daemon_that_is_asked(tmp_path):
    nodes = "nodes: {central: {subscribe: {REQErrorLog: {}}}, ship1: {subscribe: {REQPing: {}}}}\n"
    text = f"version: 1\nbroker: {{embedded: {{secured: true}}}}\n{nodes}"
    node = Appliance(text, tmp_path / "node", args=["--node", "central"])
    node.only_named = True
    with node as daemon:
        words = [str(daemon.config_path), "--state-dir", str(daemon.state)]
        assert look(*words)[1]["keys"]["text"].endswith("own broker: ship1")
