"""Jobs: what a command asked of whom is kept, with late answers, over kills of the daemon that asked."""

import json
import os
import signal
import subprocess
import threading

import pytest

from tests.support import forked
from tests.support.appliance import Appliance
from tests.support.nats_server import NatsServer
from tests.support.programs import ended
from tests.support.waiting import until

CONFIG = """
version: 1
broker: {{servers: ["{url}"]}}
reload: {{settle: 1ms, watch: false, poll_interval: 10m}}
roles:
  ship:
    subscribe:
      REQPing: {{}}
      REQCliCommand: {{accept_from: [central], allow_commands: any}}
      REQCliCommandCont: {{accept_from: [central], allow_commands: any}}
nodes:
  central: {{subscribe: {{REQErrorLog: {{}}, REQToFileAppend: {{}}}}}}
  ship1: {{roles: [ship]}}
  ship2: {{roles: [ship], subscribe: {{REQCliCommand: {{allow_commands: [[uptime]]}}}}}}
  away: {{roles: [ship]}}
"""


class Fleet:
    """Central and the ships, a daemon for each side."""

    def __init__(self, url, root):
        text = CONFIG.format(url=url)
        self.central = Appliance(text, root / "central", args=["--node", "central"])
        self.ships = Appliance(text, root / "ships", args=["--node", "ship1", "--node", "ship2"])
        self.away = Appliance(text, root / "away", args=["--node", "away"])
        for daemon in (self.central, self.ships, self.away):
            daemon.only_named = True

    def words(self, *words):
        return [*words[:1], "--state-dir", str(self.central.state), *words[1:]]

    def run(self, *words):
        return forked.run(self.words(*words))

    def jobs(self, *words):
        """`appliance jobs WORD …` with the place of the daemon behind it."""
        return forked.run(["jobs", words[0], "--state-dir", str(self.central.state), *words[1:]])

    def show(self, job):
        return json.loads(self.jobs("show", job, "-o", "json").stdout)

    def newest(self):
        return self.central.request("GET", "/api/v1/jobs?limit=1")[1]["jobs"][0]

    def start(self, *words):
        command = [forked.program(), *self.words(*words)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def wait_over_or_expired(self, job):
        """Until its only message was given up."""
        until(lambda: self.show(job)["nodes"][0]["state"] == "expired", tell=self.central.log)
        return self.show(job)

    def wait_over(self, job):
        found = {}

        def is_over():
            found.update(self.central.request("GET", f"/api/v1/jobs/{job}")[1])
            return found["state"] == "over"

        until(is_over, tell=lambda: f"{found}\n{self.central.log()}")
        return found


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    with NatsServer() as broker:
        fleet = Fleet(broker.url, tmp_path_factory.mktemp("jobs"))
        with fleet.central, fleet.ships:
            yield fleet
            fleet.away.close()


def test_what_was_asked_and_what_came_of_it_is_kept(fleet):
    done = fleet.run(
        "exec", "ship1", "-o", "json", "--", "sh", "-c", "echo hi; echo oh >&2; exit 3"
    )
    told = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (3, "")
    job = fleet.show(told["job"])
    assert (job["command"], job["from"], job["state"]) == ("exec", "central", "over")
    assert job["args"] == ["sh", "-c", "echo hi; echo oh >&2; exit 3"]
    assert f"uid {os.getuid()}" in job["by"]
    (node,) = job["nodes"]
    assert (node["to"], node["state"], node["exit_status"]) == ("ship1", "done", 3)
    shown = fleet.jobs("output", told["job"])
    assert (shown.returncode, shown.stdout, shown.stderr) == (3, "hi\n", "oh\n")


def test_several_nodes_stand_there_each_with_its_end(fleet):
    done = fleet.run("exec", "ship1", "ship2", "--", "hostname")
    assert done.returncode == 1
    assert "job" not in done.stderr, "nothing is left to come"
    job = fleet.show(fleet.newest()["id"])
    found = {node["to"]: (node["state"], node["kind"]) for node in job["nodes"]}
    assert found["ship1"] == ("done", "done")
    assert found["ship2"][1] == "failed"
    assert job["counts"] == {"total": 2, "done": 1, "failed": 1, "silent": 0}
    assert fleet.jobs("show", job["id"]).returncode == 1


def test_the_output_of_several_nodes_says_which_of_them_failed(fleet):
    job = detach(fleet, "ship1", "ship2", "--", "sh", "-c", "exit 3")
    fleet.wait_over(job)
    done = fleet.jobs("output", job)
    assert done.returncode == 1
    assert "appliance: ship1: done, exit 3" in done.stderr
    alone = fleet.jobs("output", job, "--node", "ship1")
    assert (alone.returncode, alone.stderr) == (3, "")


def test_a_silent_node_is_told_with_the_job_and_its_late_answer_is_kept(fleet):
    done = fleet.run("exec", "away", "--wait", "1s", "--", "echo", "late")
    assert done.returncode == 3
    job = fleet.newest()["id"]
    assert f"appliance jobs watch --state-dir {fleet.central.state} {job}" in done.stderr
    until(lambda: fleet.show(job)["nodes"][0]["why"] == "nobody there")
    assert fleet.jobs("show", job).returncode == 3
    fleet.central.kill()
    fleet.central.start()
    assert fleet.show(job)["state"] == "open"
    fleet.away.start()
    watched = fleet.jobs("watch", job)
    assert (watched.returncode, watched.stdout) == (0, "late\n")
    fleet.away.close()


def test_the_list_and_the_status_count_them(fleet):
    fleet.run("send", "--to", "ship1", "REQPing")
    shown = fleet.jobs("list").stdout
    assert "REQPing" in shown
    assert shown.splitlines()[0].split()[:2] == ["ID", "AGE"]
    words = ["jobs", "--state-dir", str(fleet.central.state)]
    assert forked.run(words).stdout.startswith("ID")
    before = forked.run([*words, "-o", "json", "show", fleet.newest()["id"]])
    assert json.loads(before.stdout)["id"] == fleet.newest()["id"]
    kept = fleet.central.status()["jobs"]
    assert kept["kept"] >= 1
    assert kept["bytes"] > 0
    metrics = fleet.central.request("GET", "/metrics")[1]
    assert "appliance_jobs_open" in metrics
    assert "appliance_jobs_bytes" in metrics


def test_a_filed_answer_says_where_it_lies(fleet):
    fleet.run("send", "--to", "ship1", "REQCliCommand", "hostname")
    job = fleet.newest()["id"]
    (node,) = fleet.show(job)["nodes"]
    file = fleet.central.state / node["filed"]
    fleet.central.wait_until(lambda _: file.exists())
    assert "filed_before" not in node
    moved = file.with_name(f"{file.name}.1")
    moved.touch()
    assert fleet.show(job)["nodes"][0]["filed_before"] == [f"{node['filed']}.1"]
    assert f"or {node['filed']}.1 …" in fleet.jobs("show", job).stdout
    moved.unlink()


def test_an_answer_that_cannot_be_filed_is_shown_and_told_as_that(fleet):
    # a directory stands where the file would
    (fleet.central.state / "data/replies/ship1/taken").mkdir(parents=True)
    done = fleet.run("send", "--to", "ship1", "--file", "taken", "REQCliCommand", "hostname")
    assert done.returncode == 1
    assert "not filed here: 'taken' is no regular file" in done.stderr
    assert done.stdout.strip().startswith("ship1:")
    (node,) = fleet.show(fleet.newest()["id"])["nodes"]
    assert (node["exit_status"], node["kind"]) == (0, "failed")
    assert node["not_filed"] == "'taken' is no regular file"
    shown = fleet.jobs("show", fleet.newest()["id"])
    assert "done, exit 0, " in shown.stdout
    assert "not filed: 'taken' is no regular file" in shown.stdout
    assert "filed at" not in shown.stdout


def test_cancelling_what_is_over_cancels_nothing(fleet):
    body = {"to_nodes": ["ship1"], "method": "REQCliCommand", "method_args": ["hostname"]}
    body |= {"data": [{"base64": "6QA="}], "for_caller": True}
    _, told = fleet.central.request("POST", "/api/v1/messages?job=exec", body)
    job = fleet.wait_over(told["messages"][0]["job"])
    assert job["data_bytes"] == 2
    assert "nothing to end: done" in fleet.jobs("cancel", job["id"]).stdout
    assert "cancelled_by" not in fleet.show(job["id"])


def test_an_id_may_be_shortened_and_an_unknown_one_is_told(fleet):
    fleet.run("exec", "ship1", "--", "true")
    job = fleet.newest()["id"]
    assert fleet.jobs("show", job[:6]).returncode in (0, 1, 3)
    # what shells complete with
    assert job in fleet.run("complete-words", "jobs").stdout.split()
    done = fleet.jobs("show", "zzzz0000")
    assert done.returncode == 1
    assert "no job" in done.stderr


@pytest.mark.parametrize("kills", [3])
def test_no_kill_of_the_asking_daemon_loses_a_job_or_what_came_of_it(fleet, kills):
    """Every command whose messages left is a job that tells what became of it, whenever the daemon was killed."""
    for number in range(kills):
        asked = []
        stop = threading.Event()

        def ask(asked=asked, stop=stop):
            while not stop.is_set():
                body = {"to_nodes": ["ship1"], "method": "REQCliCommand", "for_caller": True,
                        "method_args": ["echo", str(len(asked))]}  # fmt: skip
                try:
                    code, found = fleet.central.request("POST", "/api/v1/messages?job=exec", body)
                except OSError:
                    return
                assert code == 202, found
                asked.append(found["messages"][0]["job"])

        asking = threading.Thread(target=ask)
        asking.start()
        until(lambda asked=asked, number=number: len(asked) >= 5 + 7 * number)
        fleet.central.kill()
        stop.set()
        asking.join()
        fleet.central.start()
        for at, job in enumerate(asked):
            found = fleet.wait_over(job)
            assert found["counts"]["done"] == 1, found
            pieces = fleet.central.request("GET", f"/api/v1/jobs/{job}/output")[1]["pieces"]
            assert [piece["data"] for piece in pieces] == [f"{at}\n"]
        # those that were on their way to the disk when it was killed are whole as well
        for job in fleet.central.request("GET", "/api/v1/jobs")[1]["jobs"]:
            assert fleet.wait_over(job["id"])["counts"]["total"] >= 1


def test_an_interrupted_wait_leaves_the_program_to_its_job(fleet, tmp_path):
    go = tmp_path / "go"
    script = f"echo begun; until [ -e {go} ]; do sleep 0.05; done; echo end"
    with ended(fleet.start("exec", "ship1", "--stream", "--", "sh", "-c", script)) as process:
        assert process.stdout.readline() == b"begun\n"  # so it knows its job
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    job = fleet.newest()["id"]
    assert job in err.decode()
    go.touch()
    assert fleet.wait_over(job)["counts"]["done"] == 1
    assert fleet.jobs("output", job).stdout == "begun\nend\n"


@pytest.mark.parametrize("ends", ["kill", "stop"])
@pytest.mark.parametrize("command", ["exec", "send"])
def test_a_wait_that_ends_with_the_daemon_names_the_job(fleet, tmp_path, command, ends):
    begun, go = tmp_path / "begun", tmp_path / "go"
    script = f"touch {begun}; until [ -e {go} ]; do sleep 0.05; done; echo end"
    words = {
        "exec": ["exec", "ship1", "--", "sh", "-c", script],
        "send": [
            "send",
            "--wait",
            "60s",
            "--to",
            "ship1",
            "REQCliCommand",
            "--",
            "sh",
            "-c",
            script,
        ],
    }
    with ended(fleet.start(*words[command])) as process:
        until(begun.exists)
        getattr(fleet.central, ends)()
        _, err = process.communicate(timeout=60)
    fleet.central.start()
    assert process.returncode == 69
    job = fleet.newest()["id"]
    assert f"appliance jobs watch --state-dir {fleet.central.state} {job}" in err.decode()
    go.touch()
    assert fleet.wait_over(job)["counts"]["done"] == 1


def running(fleet, node="ship1", method="REQCliCommand"):
    return fleet.ships.worker(f"{node}.{method}.CommandACK_subscriber")["in_flight"]


def wait_running(fleet, count, **where):
    fleet.ships.wait_until(lambda _: running(fleet, **where) == count)


def detach(fleet, *words):
    done = fleet.run("exec", "--detach", *words)
    assert (done.returncode, done.stderr) == (0, "")
    job = done.stdout.strip()
    assert len(job) == 8
    return job


def test_a_detached_job_is_watched_to_its_end(fleet):
    job = detach(fleet, "ship1", "--", "sh", "-c", "echo a; sleep 0.3; echo b; exit 4")
    done = fleet.jobs("watch", job)
    assert (done.returncode, done.stdout) == (4, "a\nb\n")


def test_a_detached_stream_goes_on_though_nobody_looks(fleet):
    job = detach(
        fleet, "ship1", "--stream", "--", "sh", "-c", "for n in 1 2 3; do echo $n; sleep 0.3; done"
    )
    assert fleet.wait_over(job)["counts"]["done"] == 1
    assert fleet.jobs("output", job).stdout == "1\n2\n3\n"


def test_what_expires_says_so(fleet):
    # long enough for the broker to say that nobody is there, however busy the machine is
    job = detach(fleet, "away", "--expires", "3s", "--", "echo", "never")
    (node,) = fleet.wait_over_or_expired(job)["nodes"]
    assert node["state"] == "expired"
    assert "nobody there" in node["why"]


def test_now_is_for_those_that_are_there(fleet):
    done = fleet.run("exec", "--now", "ship1", "away", "-o", "json", "--", "echo", "here")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    found = {node["node"]: node["state"] for node in told["nodes"]}
    assert found == {"ship1": "done", "away": "expired"}
    assert fleet.central.status()["outbox"]["pending"] == 0
    shown = {node["to"]: node["state"] for node in fleet.show(told["job"])["nodes"]}
    assert shown == found


def test_cancelling_takes_back_what_waits_and_ends_what_runs(fleet):
    marks = fleet.central.state.parent / "marks"
    begun = marks.with_name("is-begun")
    script = (
        f"trap 'echo tidy; touch {marks}; exit 9' TERM; echo begun; touch {begun}; sleep 60 & wait"
    )
    job = detach(fleet, "ship1", "away", "--timeout", "2m", "--", "sh", "-c", script)
    until(begun.exists)
    done = fleet.jobs("cancel", job)
    assert done.returncode == 0, done.stdout
    assert "away: taken back: it was not sent" in done.stdout
    assert "ship1: told to end (SIGTERM" in done.stdout
    found = fleet.wait_over(job)
    nodes = {node["to"]: node for node in found["nodes"]}
    assert (nodes["ship1"]["state"], nodes["ship1"]["exit_status"]) == ("done", 9)
    assert nodes["away"]["state"] == "failed"
    assert "cancelled by" in nodes["away"]["why"]
    assert found["cancelled_by"]
    assert marks.exists()
    assert (
        "begun\ntidy\n"
        in fleet.central.request("GET", f"/api/v1/jobs/{job}/output")[1]["pieces"][0]["data"]
    )
    assert fleet.central.status()["outbox"]["pending"] == 0
    wait_running(fleet, 0)


def test_a_stream_and_what_waits_for_its_turn_are_cancelled_too(fleet):
    job = detach(fleet, "ship1", "--stream", "--timeout", "2m", "--", "sleep", "60")
    wait_running(fleet, 1, method="REQCliCommandCont")
    assert fleet.jobs("cancel", job).returncode == 0
    (node,) = fleet.wait_over(job)["nodes"]
    assert (node["exit_status"], node["signal"]) == (143, 15)
    # as many as run at once, and one that waits for its turn
    crowd = [detach(fleet, "ship1", "--timeout", "2m", "--", "sleep", "60") for _ in range(16)]
    wait_running(fleet, 16)
    last = detach(fleet, "ship1", "--timeout", "2m", "--", "touch", "/nowhere")
    done = fleet.jobs("cancel", last)
    assert "will not begin" in done.stdout
    shown = forked.run(["ps", "ship1", "--state-dir", str(fleet.central.state)])
    assert shown.returncode == 0
    assert shown.stdout.count("sleep 60") == 16
    for other in crowd:
        assert other in shown.stdout
        assert fleet.jobs("cancel", other).returncode == 0
    (node,) = fleet.wait_over(last)["nodes"]
    assert (node["state"], node["why"]) == ("failed", "cancelled before it began")


def test_what_was_called_off_in_its_turn_does_not_begin_after_a_kill(fleet):
    mark = fleet.ships.state.parent / "begun"
    crowd = [detach(fleet, "ship1", "--timeout", "2m", "--", "sleep", "60") for _ in range(16)]
    wait_running(fleet, 16)
    last = detach(fleet, "ship1", "--timeout", "2m", "--", "touch", str(mark))
    fleet.ships.wait_until(lambda status: status["inbox"]["unfinished"] == 17)
    assert "will not begin" in fleet.jobs("cancel", last).stdout
    fleet.ships.kill()
    fleet.ships.start()
    for job in (*crowd, last):
        fleet.wait_over(job)
    assert fleet.show(last)["nodes"][0]["why"] == "cancelled before it began"
    assert "interrupted" in fleet.show(crowd[0])["nodes"][0]["why"]
    assert not mark.exists()


def test_a_job_that_is_cancelled_asks_no_further_batch(fleet):
    words = ("exec", "ship1", "away", "--batch", "1", "-o", "json", "--timeout", "2m")
    with ended(fleet.start(*words, "--", "sleep", "60")) as process:
        wait_running(fleet, 1)
        job = fleet.newest()
        assert job["batches"] == 2
        assert fleet.jobs("cancel", job["id"]).returncode == 0
        out, _ = process.communicate(timeout=60)
    told = json.loads(out)
    assert told["jobs"] == [job["id"]]
    assert told["summary"]["not_asked"] == ["away"]
    assert "was cancelled" in told["nodes"][-1]["why"]
    assert [node["to"] for node in fleet.show(job["id"])["nodes"]] == ["ship1"]
    # nor is anything kept in another job
    assert fleet.newest()["id"] == job["id"]
    wait_running(fleet, 0)


def test_a_second_interrupt_cancels(fleet):
    words = ("sh", "-c", "echo begun; exec sleep 60")
    with ended(
        fleet.start("exec", "ship1", "--stream", "--timeout", "2m", "--", *words)
    ) as process:
        # by then it knows its job; that the program runs over there it may not have heard yet
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(signal.SIGINT)
        line = process.stderr.readline().decode()
        assert "Ctrl-C again cancels it" in line
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"ship1: told to end" in err
    (node,) = fleet.wait_over(fleet.newest()["id"])["nodes"]
    assert node["exit_status"] == 143
    wait_running(fleet, 0)


def test_what_was_refused_is_tried_again(fleet):
    job = detach(fleet, "away", "--expires", "1s", "--", "echo", "again")
    fleet.wait_over_or_expired(job)
    fleet.away.start()
    assert "is tried again" in fleet.jobs("retry", job).stdout
    assert fleet.jobs("watch", job).stdout == "again\n"
    fleet.away.close()
    done = fleet.jobs("retry", job)
    assert done.returncode == 1
    assert "it ran, exit 0" in done.stdout


def test_where_no_job_can_be_kept_what_was_asked_is_done_all_the_same(fleet):
    fleet.central.stop()
    file = fleet.central.state / "jobs.db"
    kept = file.rename(file.with_name("jobs.kept"))
    file.mkdir()
    fleet.central.start()
    done = fleet.run("exec", "ship1", "-o", "json", "--", "echo", "hi")
    (node,) = json.loads(done.stdout)["nodes"]
    assert (done.returncode, node["stdout"]) == (0, "hi\n")
    assert json.loads(done.stdout)["job"] is None
    assert "jobs are not kept" in fleet.central.log()
    fleet.central.stop()
    file.rmdir()
    kept.rename(file)
    fleet.central.start()
    assert fleet.jobs("list").returncode == 0
