"""`run --check` says what a start would do, with all that a start knows, and touches nothing."""

import os
import socket

from tests.support import forked
from tests.support.appliance import Appliance

GOOD = "version: 1\nbroker: {embedded: true}\nnodes: {a: {subscribe: {REQPing: {}}}}\n"


def check(appliance, *more):
    return forked.run(
        [
            *("run", str(appliance.config_path), "--state-dir", str(appliance.state)),
            *("--check", *(more or ("--all-nodes",))),
        ]
    )


def test_it_says_yes_and_leaves_no_trace(tmp_path):
    appliance = Appliance(GOOD, tmp_path)
    done = check(appliance)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "ok: starts a with 1 worker\n"
    assert os.listdir(tmp_path) == ["appliance.yaml"]


def test_it_says_no_to_a_node_that_is_not_declared(tmp_path):
    done = check(Appliance(GOOD, tmp_path), "--node", "b")
    assert done.returncode == 78
    assert "node 'b' is not declared" in done.stderr


def test_it_says_no_where_a_start_would_fall_back_to_the_last_good_set(tmp_path):
    with Appliance(GOOD, tmp_path) as appliance:
        pass
    appliance.write_config(GOOD + "nonsense: 1\n")
    done = check(appliance)
    assert done.returncode == 78
    assert "E101" in done.stderr
    assert "fall back to the last set that was in force" in done.stderr


def test_it_says_why_the_last_good_set_would_not_start_instead(tmp_path):
    with Appliance(GOOD, tmp_path) as appliance:
        pass
    done = check(appliance, "--node", "gone")
    assert done.returncode == 78
    first, second = done.stderr.splitlines()
    assert "node 'gone' is not declared" in first
    assert "the last good set (" in second
    assert "cannot start instead: node 'gone'" in second


def test_it_says_no_where_a_start_would_cancel_too_much(tmp_path):
    many = "{REQPing: {}, REQPong: {}, REQHello: {}, REQToConsole: {}}"
    guarded = GOOD.replace("{REQPing: {}}", many) + "reload: {max_cancel: 50%}\n"
    with Appliance(guarded, tmp_path) as appliance:
        pass
    appliance.write_config(GOOD + "reload: {max_cancel: 50%}\n")
    done = check(appliance)
    assert done.returncode == 78
    assert "E302" in done.stderr


def test_it_asks_a_running_daemon_for_what_the_files_do_not_show(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as busy, Appliance(GOOD, tmp_path) as appliance:
        assert check(appliance).returncode == 0
        port = busy.getsockname()[1]
        appliance.write_config(GOOD + f'admin: {{listen: "127.0.0.1:{port}"}}\n')
        assert appliance.reload()["result"] == "refused"
        done = check(appliance)
        assert done.returncode == 78
        assert "E303" in done.stderr
        assert "the running daemon says" in done.stderr
