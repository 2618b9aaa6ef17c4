"""Methods of the config on a running daemon and a real broker: all three kinds, refusals, and a change in mid-work."""

import contextlib
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.support import forked
from tests.support.appliance import Appliance
from tests.support.nats_server import NatsServer
from tests.support.waiting import until

WAIT = """import os, sys, time
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
print(sys.argv[2])
"""

BASE = """
version: 1
broker: {{embedded: true}}
reload: {{settle: 1ms, watch: false, poll_interval: 10m}}
methods:
  RestartWeb:
    summary: Restart a web service
    exec: [printf, "restarted %s", "{{args.0}}"]
    args: {{type: array, prefixItems: [{{title: service, enum: [nginx, caddy]}}], minItems: 1, items: false}}
  Notify: {{http: {{method: POST, url: "http://127.0.0.1:{port}/{{args.0}}", body: "{{data}}"}}, args: {{maxItems: 1}}}}
  Note: {{kind: event, file: {{directory: notes, name: "{{from}}.log", content: "{{data}}\\n"}}}}
  Slow:
    exec: [{python}, -c, {wait}, "{{args.0}}", {word}]
    args: {{minItems: 1, maxItems: 1}}
nodes:
  central: {{subscribe: {{REQErrorLog: , REQToFileAppend: , Note: }}}}
  ship1:
    subscribe:
      RestartWeb: {{accept_from: [central]}}
      Notify:
      Note: {{ack: {{on: done}}}}
      Slow: {{concurrency: 4}}
      REQToFileAppend:
"""


class _Hook(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((self.path, body.decode()))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"noted")

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def hook():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hook)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(10)


def config(hook, word="old", **changes):
    text = BASE.format(
        port=hook.server_port, python=sys.executable, wait=json.dumps(WAIT), word=word
    )
    for old, new in changes.values():
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module")
def daemon(tmp_path_factory, hook):
    with Appliance(config(hook), tmp_path_factory.mktemp("methods")) as appliance:
        yield appliance


@pytest.fixture
def appliance(daemon, hook):
    daemon.write_config(config(hook))
    assert daemon.reload()["result"] in ("applied", "unchanged")
    return daemon


def run_cli(appliance, *args):
    return forked.run([*args, "--state-dir", str(appliance.state)])


def send(appliance, *args):
    return run_cli(appliance, "send", "--from", "central", "--to", "ship1", *args)


def answers(appliance):
    with contextlib.suppress(FileNotFoundError):
        return appliance.data("r", "ship1", "slow.log").read_text().split()
    return []


def test_program_request_and_file_do_what_the_config_says(appliance, hook):
    done = send(appliance, "RestartWeb", "nginx")
    assert (done.returncode, done.stdout) == (0, "ship1:\n    restarted nginx\n")
    done = send(appliance, "Notify", "a/b c", "--data", "hello")
    assert (done.returncode, done.stdout) == (0, "ship1:\n    noted\n")
    assert hook.asked == [("/a%2Fb%20c", "hello")]
    done = send(appliance, "Note", "--data", "one")
    assert done.returncode == 0
    assert appliance.data("notes", "central.log").read_text() == "one\n"


def test_wrong_arguments_are_refused_at_once_with_the_usage_of_the_method(appliance):
    before = appliance.status()
    for args, words in (
        ((), "RestartWeb: service is missing"),
        (("apache",), 'RestartWeb: service: "apache" is not one of nginx, caddy'),
        (("nginx", "x"), "RestartWeb: 2 arguments given, at most 1 taken"),
    ):
        done = send(appliance, "RestartWeb", *args)
        assert (done.returncode, done.stdout) == (64, "")
        assert words in done.stderr
        assert "usage: appliance send --to NODE RestartWeb SERVICE" in done.stderr
        assert "nginx | caddy" in done.stderr
    after = appliance.status()
    assert after["outbox"] == before["outbox"]
    assert after["nodes"]["ship1"] == before["nodes"]["ship1"]


def test_request_over_the_api_says_why_and_of_what_kind(appliance):
    code, body = appliance.request(
        "POST", "/api/v1/messages",
        {"to_nodes": ["ship1"], "from_node": "central", "method": "RestartWeb"},
    )  # fmt: skip
    assert code == 422
    (item,) = body["messages"]
    assert (item["accepted"], item["code"]) == (False, "arguments")
    assert item["error"] == "RestartWeb: service is missing"


def test_status_and_the_methods_command_list_them(appliance):
    methods = {item["name"]: item for item in appliance.status()["methods"]}
    assert methods["RestartWeb"]["source"] == "config"
    assert methods["RestartWeb"]["summary"] == "Restart a web service"
    assert methods["RestartWeb"]["args"] == [
        {"name": "service", "required": True, "type": "text", "choices": ["nginx", "caddy"]}
    ]
    assert methods["REQPing"]["source"] == "builtin"
    shown = run_cli(appliance, "methods", "RestartWeb")
    offline = run_cli(appliance, "methods", "RestartWeb", "--config", str(appliance.config_path))
    assert shown.stdout == offline.stdout
    assert "Restart a web service" in shown.stdout
    listed = run_cli(appliance, "methods")
    assert "RestartWeb SERVICE" in listed.stdout
    assert run_cli(appliance, "methods", "RestartWbe").returncode == 64


def test_answer_may_arrive_as_an_event_of_the_config_that_writes_a_file(appliance):
    done = send(appliance, "RestartWeb", "nginx", "--reply-method", "Note")
    assert done.returncode == 0
    log = appliance.data("notes", "ship1.log")
    until(lambda: log.exists() and log.read_text() == "restarted nginx\n")


def test_name_slightly_wrong_is_suggested(appliance):
    done = send(appliance, "RestartWbe", "nginx")
    assert done.returncode == 1
    assert "did you mean RestartWeb?" in done.stderr


def test_changed_definition_is_a_swap_and_work_in_hand_ends_under_the_old_one(appliance, hook):
    worker = "ship1.Slow.CommandACK_subscriber"
    gates = [appliance.state / f"gate{number}" for number in range(2)]

    def submit(gate):
        appliance.send(
            {"to_nodes": ["ship1"], "from_node": "central", "method": "Slow",
             "method_args": [str(gate)], "directory": "r", "file_name": "slow.log",
             "method_timeout": 60}
        )  # fmt: skip

    submit(gates[0])
    appliance.wait_until(lambda _: appliance.worker(worker)["in_flight"] == 1)
    since = appliance.worker(worker)["since"]
    appliance.write_config(config(hook, "new"))
    code, plan = appliance.request("GET", "/api/v1/plan")
    assert code == 200
    (action,) = [item for item in plan["actions"] if item["worker"] == worker]
    assert action["action"] == "swap"
    assert list(action["fields"]) == ["definition.exec.argv"]
    assert appliance.reload()["result"] in ("applied", "unchanged")
    submit(gates[1])
    appliance.wait_until(lambda _: appliance.worker(worker)["in_flight"] == 2)
    assert appliance.worker(worker)["since"] == since
    gates[1].touch()
    until(lambda: answers(appliance) == ["new"])
    gates[0].touch()
    until(lambda: answers(appliance) == ["new", "old"])
    assert appliance.worker(worker)["failed"] == 0


def test_arguments_of_a_new_definition_count_for_the_next_message(appliance, hook):
    assert send(appliance, "RestartWeb", "lighttpd").returncode == 64
    changed = config(hook, services=("[nginx, caddy]", "[nginx, lighttpd]"))
    appliance.write_config(changed)
    assert appliance.reload()["result"] in ("applied", "unchanged")
    assert send(appliance, "RestartWeb", "lighttpd").stdout.endswith("restarted lighttpd\n")
    assert send(appliance, "RestartWeb", "caddy").returncode == 64


def test_definition_that_is_wrong_changes_nothing(appliance, hook):
    before = appliance.status()
    appliance.write_config(
        config(hook, bad=('"{args.0}"]\n    args: {type', '"{args.1}"]\n    args: {type'))
    )
    verdict = appliance.reload()
    assert verdict["result"] == "refused"
    assert [problem["code"] for problem in verdict["problems"]] == ["E232"]
    assert verdict["problems"][0]["line"] == 8
    assert appliance.status()["nodes"] == before["nodes"]
    assert send(appliance, "RestartWeb", "nginx").returncode == 0


def test_receiver_checks_what_a_sender_did_not(tmp_path, hook):
    """Two daemons with different ideas of the arguments: the receiver runs nothing and says why."""
    with NatsServer() as broker, contextlib.ExitStack() as stack:
        strict = config(hook, broker=("{embedded: true}", f'{{servers: ["{broker.url}"]}}'))
        loose = strict.replace("enum: [nginx, caddy]", "maxLength: 20").replace(
            ", REQErrorLog: ", ""
        )
        peers = {}
        for node, text in (("ship1", strict), ("central", loose)):
            peer = peers[node] = Appliance(text, tmp_path / node, args=["--node", node])
            peer.only_named = True
            stack.enter_context(peer)
        done = send(peers["central"], "RestartWeb", "apache")
        assert done.returncode == 1
        assert 'service: "apache" is not one of nginx, caddy' in done.stdout
        assert peers["ship1"].worker("ship1.RestartWeb.CommandACK_subscriber")["failed"] == 1
        assert send(peers["central"], "RestartWeb", "caddy").returncode == 0


@pytest.mark.parametrize(("on_crash", "words"), [("interrupt", "interrupted"), ("rerun", "new")])
def test_crash_in_mid_work_is_reported_or_made_good_as_the_config_says(
    tmp_path, hook, on_crash, words
):
    gate = tmp_path / "gate"
    text = config(hook, slow=("  Slow:\n", f"  Slow:\n    on_crash: {on_crash}\n"))
    with Appliance(text, tmp_path) as appliance:
        appliance.send(
            {"to_nodes": ["ship1"], "from_node": "central", "method": "Slow",
             "method_args": [str(gate)], "directory": "r", "file_name": "slow.log",
             "method_timeout": 60}
        )  # fmt: skip
        worker = "ship1.Slow.CommandACK_subscriber"
        appliance.wait_until(lambda _: appliance.worker(worker)["in_flight"] == 1)
        appliance.kill()
        # what is taken up again meets the definition of now
        appliance.write_config(text.replace('"{args.0}", old]', '"{args.0}", new]'))
        appliance.start()
        if on_crash == "rerun":
            gate.touch()
            until(lambda: answers(appliance) == [words])
        else:
            log = appliance.data("errorLog", "errorCentral", "error.log")
            until(lambda: log.exists() and words in log.read_text())
            gate.touch()
            assert appliance.worker(worker)["in_flight"] == 0
            assert appliance.worker(worker)["handled"] == 0
