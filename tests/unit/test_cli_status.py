"""The status table says first whether all is well, and never hides what is not."""

import io
import time

import pytest
from rich.console import Console

from appliance.api.model import Status
from appliance.cli.status_view import fit_status, is_healthy, print_status, render_status
from appliance.core.times import rfc3339
from tests.support.api_answers import read
from tests.support.fake_control import PROBLEM, make_status

NOW = 1_767_225_600.0 + 120  # two minutes after the times of `make_status`


def show(status, *, colour=False, nodes=None, width=160):
    written = io.StringIO()
    console = Console(
        file=written, width=width, force_terminal=colour, highlight=False, markup=False
    )
    console.print(render_status(read(status, Status), NOW, nodes=nodes))
    return written.getvalue()


def test_a_healthy_status_tells_everything_on_one_screen():
    text = show(make_status())
    assert text.startswith("● healthy   generation 12")
    assert "sha256:0123456789ab " in text
    assert "git fedcba9876" in text
    assert "connected to nats://127.0.0.1:4222 (embedded)" in text
    assert "0 pending, 0 in flight, 0 dead" in text
    row = next(line for line in text.splitlines() if "ship1.REQPing.EventACK" in line)
    assert row.split()[:7] == [
        "ship1",
        "ship1.REQPing.EventACK",
        "subscriber",
        "running",
        "1",
        "17",
        "0",
    ]


def test_a_refused_config_shows_its_first_problems_with_their_places():
    status = make_status(healthy=False, degraded_by=["the last config was refused (5 problems)"])
    status["config"]["last_attempt"] |= {"result": "refused", "problems": [PROBLEM] * 5}
    text = show(status)
    assert text.startswith("● degraded")
    assert "last look 2 min ago: refused (watch)" in text
    assert text.count('E021 ships.yaml:14:11 unknown method "REQPng"') == 3
    assert "and 2 more" in text


def test_errors_come_before_warnings_and_are_counted_apart():
    warning = PROBLEM | {"severity": "warning", "code": "W003"}
    status = make_status(healthy=False)
    attempt = status["config"]["last_attempt"]
    attempt |= {"result": "refused", "problems": [warning] * 2 + [PROBLEM] * 2}
    text = show(status)
    assert (text.count("E021"), text.count("W003")) == (2, 1)
    assert text.index("E021") < text.index("W003")
    assert "and 1 warning\n" in text.replace(" \n", "\n")
    attempt["problems"] = [warning] * 2 + [PROBLEM] * 4
    assert "and 1 more, 2 warnings" in show(status)


def test_a_worker_that_does_not_run_shows_why():
    status = make_status()
    status["nodes"]["ship1"]["workers"][0] |= {
        "phase": "backing_off",
        "restarts": 3,
        "last_error": "permission denied\x1b[2J\n",
    }
    text = show(status)
    assert "backing_off" in text
    assert "permission denied\\x1b[2J\\n (3 restarts)" in text


def test_a_worker_tells_what_a_stream_holds_for_it():
    status = make_status()
    kept = {"stream": "appl-ship1", "waiting": 2, "in_hand": 1}
    status["nodes"]["ship1"]["workers"][0]["kept"] = kept
    assert "3 messages in the stream appl-ship1" in show(status)
    kept |= {"waiting": 0, "in_hand": 0}
    assert "appl-ship1" not in show(status)


def test_hundreds_of_workers_are_summed_up_but_never_those_in_trouble():
    status = make_status()
    worker = status["nodes"]["ship1"]["workers"][0]
    for number in range(100):
        workers = [{**worker, "subject": f"n{number}.M{m}.EventACK"} for m in range(5)]
        status["nodes"][f"n{number}"] = {"workers": workers}
    status["nodes"]["n50"]["workers"][2] = {**worker, "subject": "n50.bad", "phase": "failed"}
    text = show(status)
    assert len(text.splitlines()) < 120
    assert "n50.bad" in text
    assert "5 workers" in text


def test_only_the_nodes_asked_for_are_shown():
    status = make_status()
    status["nodes"]["ship2"] = {"workers": []}
    assert "ship1.REQPing" not in show(status, nodes=frozenset(["ship2"]))


@pytest.mark.parametrize(
    "status", [{}, {"nodes": {}, "config": {"paths": []}, "more": {"of": "later"}}]
)
def test_a_status_of_another_version_is_shown_as_far_as_it_goes(status):
    assert "degraded" in show(status)


def test_without_a_judgement_of_the_daemon_health_follows_from_the_facts():
    status = make_status()
    del status["healthy"]
    assert is_healthy(read(status, Status))
    status["broker"]["connected"] = False
    assert not is_healthy(read(status, Status))


def test_a_thousand_nodes_render_at_once():
    status = make_status()
    worker = status["nodes"]["ship1"]["workers"][0]
    for number in range(1_000):
        status["nodes"][f"n{number}"] = {"workers": [worker] * 10}
    started = time.process_time()
    show(status)
    assert time.process_time() - started < 5


def fit(status, height, width=120):
    console = Console(file=io.StringIO(), width=width, height=height, highlight=False)
    lines = console.render_lines(fit_status(console, read(status, Status), time.time()), pad=False)
    return ["".join(segment.text for segment in line) for line in lines]


def make_fleet(count, broken=()):
    worker = make_status()["nodes"]["ship1"]["workers"][0]
    return make_status(
        nodes={
            f"ship{number}": {
                "workers": [
                    {
                        **worker,
                        "subject": f"ship{number}.REQPing.EventACK",
                        "phase": "backing_off" if number in broken else "running",
                    }
                ]
            }
            for number in range(count)
        }
    )


@pytest.mark.parametrize(("height", "width"), [(24, 120), (12, 60), (10, 200), (40, 100)])
def test_a_watched_status_fits_the_terminal(height, width):
    assert len(fit(make_fleet(100), height, width)) <= height


def test_in_a_small_terminal_what_does_not_run_is_shown_first_and_the_rest_is_counted():
    lines = fit(make_fleet(100, broken=(70, 71)), 14)
    shown = "\n".join(lines)
    assert "ship70.REQPing" in shown
    assert "ship71.REQPing" in shown
    assert lines[-1].strip().startswith("… ")
    assert lines[-1].strip().endswith(" running more")


def test_lines_that_fold_leave_room_for_fewer_workers_and_not_for_none():
    lines = fit(make_fleet(100), 14, 90)
    assert any("subscriber" in line for line in lines)
    assert 12 <= len(lines) <= 14


def test_in_a_large_terminal_nothing_is_left_out():
    lines = fit(make_fleet(5), 40)
    assert sum("REQPing" in line for line in lines) == 5
    assert "more" not in "".join(lines)


def test_a_line_that_does_not_fit_goes_on_below_its_text_and_no_line_is_wider_than_the_terminal():
    reason = (
        "worker ship1.REQPing.EventACK_subscriber does not run: " + "the broker denies it, " * 4
    )
    lines = show(make_status(healthy=False, degraded_by=[reason]), width=60).splitlines()
    assert max(map(len, lines)) <= 60
    start = next(number for number, line in enumerate(lines) if "ship1.REQPing" in line)
    told = lines[start : start + 4]
    assert all(line.startswith(" " * 9) and line[9] != " " for line in told[:3])
    assert "".join(line[9:] for line in told).replace(" ", "").startswith(reason.replace(" ", ""))


def test_what_ends_within_two_weeks_has_a_line_and_what_cannot_be_used_is_a_degradation():
    def ends(at, usable=True):
        return {"kind": "file", "name": "x", "usable": usable, "error": None, "expires_at": at}

    secrets = {
        "broker.tls.cert": ends(rfc3339(NOW + 3 * 86_400)),
        "broker.tls.ca": ends(rfc3339(NOW + 15 * 86_400)),
        "admin.token": ends(None),
        "admin.tls.cert": ends(rfc3339(NOW - 1), usable=False),
    }
    lines = [line for line in show(make_status(secrets=secrets)).splitlines() if "secret" in line]
    assert len(lines) == 1
    assert lines[0].startswith("secret   broker.tls.cert ends in 3 d, ")


def test_a_daemon_that_stops_is_stopping_and_not_degraded():
    shown = show(make_status(healthy=False, stopping=True, degraded_by=[]))
    assert shown.startswith("● stopping")
    assert "degraded" not in shown


def test_inputs_have_a_line_each_and_trouble_is_told():
    inputs = {
        "tcp": {"listen": "127.0.0.1:7701", "accepted": 3, "refused": 1},
        "folder": {
            "path": "/spool",
            "accepted": 2,
            "refused": 0,
            "waiting": 4,
            "error": "full\x1b",
        },
    }
    text = show(make_status(inputs=inputs))
    assert "tcp 127.0.0.1:7701   3 accepted, 1 refused\n" in text.replace(" \n", "\n")
    assert "folder /spool   2 accepted, 0 refused, 4 files wait: full\\x1b" in text


def print_on_terminal(capsys, status, height):
    console = Console(width=100, height=height, force_terminal=True, no_color=True, highlight=False)
    print_status(console, read(status, Status), NOW)
    return capsys.readouterr().out.splitlines()


def test_what_is_wrong_stands_at_the_end_again_when_the_table_has_pushed_it_off_the_screen(capsys):
    status = make_fleet(100) | {"healthy": False, "degraded_by": ["the last config was refused"]}
    status["config"]["last_attempt"] |= {"result": "refused", "problems": [PROBLEM]}
    lines = print_on_terminal(capsys, status, 24)
    shown = "\n".join(lines[-5:])
    assert "degraded" in shown
    assert "the last config was refused" in shown
    assert "ships.yaml:14:11" in shown
    assert "\n".join(print_on_terminal(capsys, status, 300)).count("degraded") == 1


def test_a_healthy_fleet_has_nothing_to_say_twice(capsys):
    lines = print_on_terminal(capsys, make_fleet(100), 24)
    assert "ship99.REQPing" in lines[-1]


def test_subjects_of_ordinary_length_stay_whole_in_100_columns(capsys):
    status = make_status()
    (worker,) = status["nodes"]["ship1"]["workers"][:1]
    worker["subject"] = "errorCentral.REQErrorLog.EventACK"
    worker["last_error"], worker["restarts"] = None, 0
    status["nodes"] = {"central": {"workers": [worker]}}
    shown = "\n".join(print_on_terminal(capsys, status, 24))
    assert "errorCentral.REQErrorLog.EventACK" in shown
    assert "LAST ERROR" not in shown


def test_what_waits_is_told_by_why_and_only_where_something_waits():
    outbox = {"pending": 12, "in_flight": 3, "dead": 0, "oldest_seconds": 3}
    waiting = {"nobody there": 7, "silent": 2, "busy": 0}
    text = show(make_status(outbox=outbox, waiting=waiting))
    assert "oldest waits 3 s; waiting: 7 nobody there, 2 silent" in text
    assert "waiting:" not in show(make_status(outbox=outbox, waiting={"busy": 0}))


def test_the_inbox_and_the_store_are_told_where_there_is_something_to_say():
    text = show(make_status(inbox={"unfinished": 0, "orphaned": 0}, store={"state": "ok"}))
    assert "inbox" not in text
    assert "store" not in text
    text = show(
        make_status(
            inbox={"unfinished": 5, "orphaned": 2},
            store={"state": "read_only", "text": "the state directory\x1b[2J"},
        )
    )
    assert "5 unfinished, 2 of them without a worker" in text
    assert "read_only: the state directory\\x1b[2J" in text


def test_what_did_not_count_and_clocks_that_differ_are_told():
    signatures = {
        "refused": {"forged": 3, "unsigned": 1, "expired": 0},
        "clock_skew_seconds": {"ship1": 120.0, "ship2": -45.0},
    }
    text = show(make_status(signatures=signatures))
    assert "4 did not count: 3 forged, 1 unsigned" in text
    assert "the clock of ship1 is 2 min ahead of the one here" in text
    assert "the clock of ship2 is 45 s behind the one here" in text
    assert "did not count" not in show(make_status())


def test_a_terminal_of_80_columns_breaks_no_name_of_a_worker_and_tells_what_is_wrong_below_it():
    status = make_status(healthy=False)
    name = "ship1.REQCliCommandCont.CommandACK"
    worker = status["nodes"]["ship1"]["workers"][0]
    why = "no such directory: /srv/data/longer/than/a/column/of/errors/is/shown"
    worker |= {"name": name, "subject": name, "phase": "backing_off", "last_error": why}
    lines = show(status, width=80).splitlines()
    at = next(index for index, line in enumerate(lines) if name in line)
    assert lines[at].split()[:3] == [name, "sub", "backing_off"]
    assert why in lines[at + 1]
    assert max(map(len, lines)) <= 80


def test_processes_that_compute_have_a_line_each_and_what_died_of_what_is_told():
    processes = [
        {"number": 1, "phase": "working", "pid": 7, "handled": 3, "restarts": 1, "busy_seconds": 2.0,
         "doing": "ship.REQSpin.EventACK 5 of central"},
        {"number": 2, "phase": "backing_off", "error": "was killed by signal 11"},
    ]  # fmt: skip
    text = show({**make_status(), "processes": processes})
    assert (
        "1   working   pid 7   3 done, 1 restart   ship.REQSpin.EventACK 5 of central, 2 s" in text
    )
    assert "2   backing off   0 done   was killed by signal 11" in text
    assert "process" not in show(make_status())
