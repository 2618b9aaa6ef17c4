"""Secrets planted at forty places of a config come out at no other end of the program."""

import contextlib
import http.server
import json
import os
import socket
import stat
import threading
import urllib.error
import urllib.request

import pytest

from tests.support import forked
from tests.support.api_routes import ROUTE_SCOPES
from tests.support.appliance import Appliance
from tests.support.nats_server import NatsServer
from tests.support.waiting import until

FROM_ENVIRONMENT = {
    name: f"cnry{name.lower().replace('_', '')}value"
    for name in (
        "DATA", "WITHIN", "ARGS", "REPLY_ARGS", "DIRECTORY", "FILE_NAME", "EXEC", "OPTION", "PROGRAM_ENV", "STDIN",
        "URL_PATH", "HEADER", "SUMMARY", "COMMAND", "READ_PATH", "ALLOWED_URL", "ENUM", "HOSTS", "FOLDED",
    )
} | {
    "WINDOW": "481", "TIMEOUT": "47m13.271s", "PIN": "z9q4",
    "QUOTES": 'cnry"quo\\tes', "LINES": "cnryfirstline\ncnrysecondline",
}  # fmt: skip
IN_REFUSED = {
    name: f"cnry{name.lower().replace('_', '')}wrong"
    for name in ("CHOICE", "NUMBER", "DESTINATION", "METHOD", "CRON", "ZONE", "SERVER", "LISTEN", "ENTRY")
}  # fmt: skip
TYPED = {
    name: f"cnry{name.lower().replace('_', '')}typed"
    for name in ("ADMIN_TOKEN", "INPUT_TOKEN", "AUTHORIZATION")
}

BASE = """
version: 1
broker: {{embedded: true}}
reload: {{settle: 1ms, watch: false, poll_interval: 10m}}
admin: {{listen: "127.0.0.1:{port}", token: {{file: admin.token}}, hosts: [localhost, 127.0.0.1{hosts}]}}
inputs: {{tcp: {{listen: "127.0.0.1:{input_port}", token: {{env: INPUT_TOKEN}}}}}}
"""
PLAIN = """
methods:
  Run: {summary: runs, exec: [/bin/true, x], stdin: x, environment: {A: x}, args: {type: array, items: {enum: [x]}}}
  Ask: {summary: asks, http: {url: "https://example.org/x", headers: {X-Plain: x, Authorization: {env: AUTHORIZATION}}}}
nodes:
  n1:
    subscribe: {Run: {}, Ask: {}, REQPing: {}, REQToFile: {}, REQCliCommand: {allow_commands: [[x]]},
        REQTailFile: {allow_paths: [/x]}, REQHttpGet: {allow_urls: ["https://example.org/x"]}}
    publish:
      p: {to: n1, method: REQToFile, every: 9h, data: [x], directory: x, file_name: x, window: 9}
      q: {to: n1, method: REQCliCommand, cron: "0 0 29 2 *", method_args: [x, x], reply_method: REQToFile,
          reply_method_args: [x], method_timeout: 9m}
"""
FILLED = """
methods:
  Run: {summary: "runs ${SUMMARY}", exec: [/bin/true, "${EXEC}", "--key=${OPTION}"], stdin: "${STDIN}",
      environment: {A: "${PROGRAM_ENV}"}, args: {type: array, items: {enum: ["${ENUM}"]}}}
  Ask: {summary: asks, http: {url: "https://example.org/${URL_PATH}", headers: {X-Plain: "${HEADER}",
      Authorization: {env: AUTHORIZATION}}}}
nodes:
  n1:
    subscribe: {Run: {}, Ask: {}, REQPing: {}, REQToFile: {},
        REQCliCommand: {allow_commands: [["${COMMAND}"]]}, REQTailFile: {allow_paths: ["/${READ_PATH}/x"]},
        REQHttpGet: {allow_urls: ["https://example.org/${ALLOWED_URL}"]}}
    publish:
      p:
        to: n1
        method: REQToFile
        every: 9h
        data: ["${DATA}", "user:${WITHIN}@host", "${QUOTES}", "${LINES}", "pin ${PIN}.", >-
          folded ${FOLDED}
          text
          ]
        directory: "${DIRECTORY}"
        file_name: "${FILE_NAME}"
        window: ${WINDOW}
      q: {to: n1, method: REQCliCommand, cron: "0 0 29 2 *", method_args: ["${COMMAND}", "${ARGS}"],
          reply_method: REQToFile, reply_method_args: ["${REPLY_ARGS}"], method_timeout: "${TIMEOUT}"}
""".replace(
    """, >-
          folded ${FOLDED}
          text
          ]""",
    ', "folded\n          ${FOLDED}"]',
)
REFUSED = {
    "a password beside another mistake": "broker: {auth: {user: u, password: cnrysameline, tokn: 1}}\nnodes: {n1: {}}",
    "a misspelt password": "broker: {auth: {user: u, pasword: cnrymisspelt}}\nnodes: {n1: {}}",
    "a seed": "broker: {auth: {nkey_seed: SUcnryseed00}}\nnodes: {n1: {}}",
    "several lines": "admin:\n  token: |\n    cnrylineone\n    cnrylinetwo\nnodes: {n1: {}}",
    "a quoted one over lines": 'admin:\n  token: "cnryquotedone\n    cnryquotedtwo"\n  listen: 5\nnodes: {n1: {}}',
    "an address": 'broker: {servers: ["nats://u:cnryaddress@h:4222"]}\nnodes: {n1: {}}',
    "a list": "admin: {token: [cnryinlist]}\nnodes: {n1: {}}",
    "a map": "admin: {token: {value: cnryinmap}}\nnodes: {n1: {}}",
    "a tag": "admin: {token: !x cnrytagged}\nnodes: {n1: {}}",
    "twice": "admin: {token: {file: x}, token: cnrytwice}\nnodes: {n1: {}}",
    "a header": "methods: {A: {http: {url: 'https://h/', headers: {Authorization: Bearer cnryheader}}}}\nnodes: {n1: {}}",
    "a header of one's own": "methods: {A: {http: {url: x, headers: {X-Api-Key: cnryapikey}}}}\nnodes: {n1: {x: 1}}",
    "a method's environment": "methods: {A: {exec: [/bin/true], environment: {DB_PASSWORD: cnryprogram}}}\nnodes: {n1: 1}",
    "a method's address": "methods: {A: {http: {url: 'https://u:cnrymethodurl@h/'}}}\nnodes: {n1: {x: 1}}",
    "a comment": "# password: cnrycomment\nnodes: {n1: {x: 1}}",
    "a comment behind a mistake": "nodes: {n1: {x: 1}}   # token: cnrybehind",
    "no YAML": "admin: {token: cnrybroken\nnodes: {n1: {}}: :",
    "a reference that is none": "admin: {token: {env: 'cnry no name!'}}\nnodes: {n1: {}}",
    "a digit": "admin: {token: 4815162342}\nnodes: {n1: {}}",
    "the environment": 'log: {level: "${CHOICE}"}\nlimits: {max_depth: "${NUMBER}"}\nbroker: {servers: ["${SERVER}"]}\n'
    'admin: {listen: "${LISTEN}"}\nnodes: {n1: {publish: {p: {to: "${DESTINATION}", method: REQPing, every: 1h}, '
    'q: {to: n1, method: "${METHOD}", cron: "${CRON}", timezone: "${ZONE}"}, '
    'r: {to: n1, method: REQPing, data: ["${ENTRY}"]}}}}',
    "the environment, in a valid shape": 'nodes: {n1: {publish: {p: {to: "${DESTINATION}", method: REQPing, every: 1h}, '
    'q: {to: n1, method: REQPing, cron: "${CRON}"}, r: {to: n1, method: REQPing, cron: "* * * * *", timezone: "${ZONE}"}, '
    's: {to: n1, method: "${METHOD}"}}}}',
}  # fmt: skip
SECRETS = [*sorted(
    {word for value in (*FROM_ENVIRONMENT.values(), *IN_REFUSED.values(), *TYPED.values()) for word in value.split()}
    - {"481"}
), "cnry", "4815162342", "SUcnryseed00", "2833.271"]  # fmt: skip
"""2833.271 are the seconds of `TIMEOUT`; `window` is looked for beside its name."""


WRONG_TOKEN = "cnryguessedtoken"
READ_PATHS = [
    resource.replace("{key}", key)
    for verb, resource in ROUTE_SCOPES
    if verb == "GET" and "{name}" not in resource and "{id}" not in resource and "{token}" not in resource
    and resource != "/api/v1/events"
    for key in (("1", "2") if "{key}" in resource else ("",))
]  # fmt: skip
"""Each route that only reads, the page among them; events are heard all the time."""


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def find_leaks(what, text, found):
    lower = text.lower()
    for secret in SECRETS:
        for form in {secret, json.dumps(secret)[1:-1]}:
            at = lower.find(form.lower())
            if at >= 0:
                found.append(f"{what}: {secret}: …{text[max(0, at - 90) : at + 60]}…")
                break
    for line in ('"window":[9,481]', '"window": [9, 481]', "window: 9 → 481"):
        if line in text:
            found.append(f"{what}: {line}")


@pytest.fixture
def own(tmp_path):
    port = free_port()
    head = BASE.format(port=port, input_port=free_port(), hosts="")
    filled = BASE.format(port=port, input_port=free_port(), hosts=', "${HOSTS}"')
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "admin.token").write_text(TYPED["ADMIN_TOKEN"])
    daemon = Appliance(head + PLAIN, tmp_path / "daemon", config_path=folder / "fleet.yaml")
    daemon.environment = {**FROM_ENVIRONMENT, **IN_REFUSED, **TYPED}
    with daemon:
        yield daemon, port, head, filled


def test_what_is_secret_is_shown_nowhere(own, tmp_path):
    daemon, port, head, filled = own
    found: list[str] = []
    env = {**os.environ, **daemon.environment}

    def run(*words):
        done = forked.run([*words], env=env)
        find_leaks(" ".join(words[:3]), done.stdout + done.stderr, found)
        return done

    def ask(path, token=None, method="GET", body=None):
        asked = urllib.request.Request(
            f"http://127.0.0.1:{port}{path}",
            headers={"Authorization": f"Bearer {token}"} if token else {},
            method=method,
        )
        if body is not None:
            asked.add_header("Content-Type", "application/json")
            asked.data = json.dumps(body).encode()
        try:
            with urllib.request.urlopen(asked, timeout=60) as answer:
                text = answer.read().decode()
        except urllib.error.HTTPError as error:
            text = error.read().decode()
        find_leaks(f"TCP {path} {'with' if token else 'without'} token", text, found)
        return text

    events: list[bytes] = []

    def hear():
        with socket.socket(socket.AF_UNIX) as heard:
            heard.connect(str(daemon.state / "appliance.sock"))
            heard.sendall(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            while chunk := heard.recv(65_536):
                events.append(chunk)
                hears.set()

    hears = threading.Event()
    hearing = threading.Thread(target=hear, daemon=True)
    hearing.start()
    assert hears.wait(60)

    def look_everywhere(name):
        for path in READ_PATHS:
            ask(path)
            ask(path, WRONG_TOKEN)
            ask(path, TYPED["ADMIN_TOKEN"])
            find_leaks(f"{name}: unix {path}", json.dumps(daemon.request("GET", path)[1]), found)
        for path, body in (
            ("/api/v1/targets", {"targets": ["all"]}),
            ("/api/v1/programs", {"nodes": ["n1"]}),
        ):
            ask(path, TYPED["ADMIN_TOKEN"], "POST", body)

    # a set that brings values from the environment, and goes back
    daemon.write_config(filled + FILLED)
    path = str(daemon.config_path)
    at = ("--state-dir", str(daemon.state))
    for form in ("text", "json", "github"):
        run("check", path, "--format", form)
    assert run("plan", *at).returncode == 2
    run("plan", "-o", "json", *at)
    (tmp_path / "before.yaml").write_text(head + PLAIN)
    run("plan", path, "--against", str(tmp_path / "before.yaml"), "--all-nodes")
    look_everywhere("planned")
    verdict = daemon.reload()
    assert verdict["result"] == "applied", verdict
    assert "${DATA}" in json.dumps(verdict)
    find_leaks("reload", json.dumps(verdict), found)
    look_everywhere("applied")
    for words in (
        ("history",),
        ("history", "show", "2"),
        ("status",),
        ("methods", "Run"),
        ("methods",),
    ):
        assert run(*words, *at).returncode == 0, words
    find_leaks("rollback", json.dumps(daemon.request("POST", "/api/v1/rollback", {})[1]), found)
    look_everywhere("rolled back")
    # sets that are refused
    for name, text in REFUSED.items():
        is_of_own = any(
            text.startswith(part) or f"\n{part}" in text for part in ("broker:", "admin:")
        )
        daemon.write_config(f"version: 1\n{text}\n" if is_of_own else f"{head}{text}\n")
        for form in ("text", "github"):
            assert run("check", path, "--format", form).returncode != 0, name
        find_leaks(f"{name}: plan", json.dumps(daemon.request("GET", "/api/v1/plan")[1]), found)
        verdict = daemon.reload()
        assert verdict["result"] == "refused", (name, verdict)
        find_leaks(f"{name}: reload", json.dumps(verdict), found)
        find_leaks(f"{name}: status", json.dumps(daemon.status()), found)
    run("plan", *at)
    run("history", *at)
    look_everywhere("refused")
    records = daemon.request("GET", "/api/v1/history?limit=100")[1]["records"]
    for record in records:
        shown = json.dumps(daemon.request("GET", f"/api/v1/history/{record['number']}")[1])
        find_leaks(f"record {record['number']}", shown, found)
    assert daemon.stop() == 0
    hearing.join(10)
    find_leaks("log", daemon.log(), found)
    told = b"".join(events).decode()
    assert "E109" in told or "refused" in told
    find_leaks("events", told, found)
    for file in filter(os.path.isfile, daemon.state.rglob("*")):
        within = str(file.relative_to(daemon.state))
        if within.startswith("data/"):
            continue  # what the messages brought, for their reader
        if within.startswith(("history/sets/", "store.db")):
            # texts of the config, for a rollback, and the messages themselves
            assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file
        else:
            find_leaks(f"file {within}", file.read_bytes().decode("latin-1"), found)
    assert not found, "\n".join(found)


def test_what_judges_the_machine_lists_what_was_done_or_writes_for_others_shows_no_secret(own):
    daemon, _, _, filled = own
    found: list[str] = []
    env = {**os.environ, **daemon.environment}

    def run(*words):
        done = forked.run([*words], env=env)
        find_leaks(" ".join(words[:3]), done.stdout + done.stderr, found)
        return done

    daemon.write_config(filled + FILLED)
    assert daemon.reload()["result"] == "applied"
    path = str(daemon.config_path)
    at = ("--state-dir", str(daemon.state))
    for words in (
        ("check", "--secrets", path),
        ("run", "--check", path, *at, "--all-nodes"),
        ("doctor", path, *at),
        ("broker-conf", path),
        ("can", "n1", "REQCliCommand", "x", "--from", "n1", "--config", path),
        ("ps", *at),
        ("fleet", "status", "--all", *at),
        ("send", "--to", "n1", "Run", "x", "--wait", "1s", *at),
        ("send", "--to", "n1", "Run", "--wait", "1s", *at),
        ("jobs", *at),
        ("outbox", "list", *at),
        ("inbox", "list", *at),
        ("nodes", "pending", *at),
        ("jetstream", "list", *at),
        ("audit", "show", "-n", "1000", *at),
    ):
        done = run(*words)
        assert done.returncode in (0, 1, 3, 64, 78), (words, done.stderr)
        assert "Traceback" not in done.stderr, words
    [job] = daemon.request("GET", "/api/v1/jobs")[1]["jobs"]
    for word in ("show", "output"):
        assert run("jobs", word, job["id"], *at).returncode in (0, 1, 3), word
    assert daemon.stop() == 0
    find_leaks("log", daemon.log(), found)
    for file in daemon.state.glob("audit*"):
        find_leaks(file.name, file.read_text(), found)
    assert not found, "\n".join(found)


FAILING = """
version: 1
broker: {{servers: ["{url}"]}}
reload: {{settle: 1ms, watch: false, poll_interval: 10m}}
admin: {{listen: "127.0.0.1:{port}", token: {{file: admin.token}}}}
inputs: {{tcp: {{listen: "127.0.0.1:{input_port}", token: {{env: INPUT_TOKEN}}}}}}
methods:
  Missing: {{exec: ["/nonexistent/${{EXEC}}"]}}
  Picky: {{exec: [/bin/true], args: {{type: array, items: {{enum: ["${{ENUM}}"]}}}}}}
  Away: {{http: {{url: "http://127.0.0.1:{nobody}/${{URL_PATH}}"}}}}
  Echo: {{http: {{url: "http://127.0.0.1:{web}/${{URL_PATH}}", headers: {{X-Plain: "${{HEADER}}",
      Authorization: {{env: AUTHORIZATION}}}}}}}}
  Said: {{exec: [/bin/sh, -c, "echo $A >&2; exit 3"], environment: {{A: "${{PROGRAM_ENV}}"}}}}
  Take: {{exec: [/bin/true], args: {{type: array}}}}
nodes:
  peer: {{subscribe: {{Take: {{ack: {{on: done}}}}}}}}
  central: {{subscribe: {{REQErrorLog: {{}}}}}}
  n1:
    subscribe: {{Missing: {{}}, Picky: {{}}, Away: {{}}, Echo: {{}}, Said: {{}}, REQToFile: {{}}, REQToFileAppend: {{}},
        REQCliCommand: {{allow_commands: [["${{COMMAND}}"]]}}, REQTailFile: {{allow_paths: ["/${{READ_PATH}}/x"]}},
        REQHttpGet: {{allow_urls: ["https://example.org/${{ALLOWED_URL}}"]}}}}
    publish:
      quoted: {{to: peer, method: Take, every: 9h, method_args: ["${{ARGS}}", "only"]}}
      named: {{to: n1, method: REQToFile, every: 9h, directory: "../${{DIRECTORY}}", file_name: x, data: ["${{DATA}}"]}}
      forbidden: {{to: n1, method: REQCliCommand, every: 9h, method_args: ["/bin/${{OPTION}}"]}}
      fetched: {{to: n1, method: REQHttpGet, every: 9h, method_args: ["https://example.org/${{WITHIN}}"]}}
      tailed: {{to: n1, method: REQTailFile, every: 9h, method_args: ["/x/${{FILE_NAME}}"]}}
"""
PEER = """
version: 1
broker: {{servers: ["{url}"]}}
methods: {{Take: {{exec: [/bin/true], args: {{type: array, items: {{enum: [only]}}}}}}}}
nodes: {{n1: {{}}, peer: {{subscribe: {{Take: {{ack: {{on: done}}}}}}}}}}
"""


class _Reflecting(http.server.BaseHTTPRequestHandler):
    """Refuses, in words that repeat what it was asked with."""

    def do_GET(self):
        said = f"not {self.headers['Authorization']} and {self.headers['X-Plain']} for {self.path}"
        self.send_response(401, said)
        self.end_headers()

    def log_message(self, *_):
        pass


def test_what_failed_or_was_refused_tells_no_secret(tmp_path):
    found: list[str] = []
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(NatsServer())
        web = stack.enter_context(http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Reflecting))
        threading.Thread(target=web.serve_forever, daemon=True).start()
        stack.callback(web.shutdown)
        folder = tmp_path / "config"
        folder.mkdir()
        (folder / "admin.token").write_text(TYPED["ADMIN_TOKEN"])
        ports = {"port": free_port(), "input_port": free_port(), "nobody": free_port()}
        text = FAILING.format(url=broker.url, web=web.server_port, **ports)
        peer = Appliance(PEER.format(url=broker.url), tmp_path / "peer", args=["--node", "peer"])
        peer.only_named = True
        stack.enter_context(peer)
        daemon = Appliance(text, tmp_path / "daemon", config_path=folder / "fleet.yaml")
        daemon.environment = {**FROM_ENVIRONMENT, **TYPED}
        daemon.args = ["--node", "n1", "--node", "central"]
        daemon.only_named = True
        stack.enter_context(daemon)
        path = "/api/v1/events?recent=1000"
        stream = stack.enter_context(
            urllib.request.urlopen(f"http://127.0.0.1:{ports['port']}{path}", timeout=60)
        )
        asked = [
            {"to_nodes": ["n1"], "method": name} for name in ("Missing", "Away", "Echo", "Said")
        ]
        daemon.send(*asked)
        picky = {"to_nodes": ["n1"], "method": "Picky", "method_args": ["x"]}
        code, refused = daemon.request("POST", "/api/v1/messages", [picky])
        assert code == 422
        assert "${ENUM}" in refused["error"]
        find_leaks("refused", json.dumps(refused), found)
        reports = daemon.data("errorLog", "errorCentral", "error.log")

        def reported():
            return [line for line in reports.read_text().splitlines() if "node: peer" not in line]

        words = (
            "${EXEC}",
            "${WITHIN}",
            "${OPTION}",
            "${FILE_NAME}",
            "${PROGRAM_ENV}",
            "Away ",
            "Echo ",
            "gave up",
        )
        until(
            lambda: reports.exists() and all(word in "\n".join(reported()) for word in words),
            tell=lambda: "\n".join(reported()),
        )
        find_leaks("reports", "\n".join(reported()), found)
        [dead] = daemon.request("GET", "/api/v1/outbox?state=dead")[1]["records"]
        assert "${ARGS}" in dead["reason"]
        for path in ("status", "outbox?state=dead", "outbox", "inbox", "methods"):
            find_leaks(path, json.dumps(daemon.request("GET", f"/api/v1/{path}")[1]), found)
        find_leaks("metrics", daemon.request("GET", "/metrics")[1], found)
        env = {**os.environ, **daemon.environment}
        for words in (
            ("status",),
            ("outbox", "list", "--dead"),
            ("send", "--to", "n1", "Picky", "x"),
        ):
            done = forked.run([*words, "--state-dir", str(daemon.state)], env=env)
            find_leaks(" ".join(words), done.stdout + done.stderr, found)
        assert daemon.stop() == 0
        find_leaks("log", daemon.log(), found)
        assert "${WITHIN}" in daemon.log()
        told = stream.read().decode()
        assert "${ARGS}" in told
        find_leaks("events", told, found)
        for file in filter(os.path.isfile, daemon.state.rglob("*")):
            within = str(file.relative_to(daemon.state))
            if not within.startswith(("data/", "history/sets/", "store.db")):
                find_leaks(f"file {within}", file.read_bytes().decode("latin-1"), found)
    assert not found, "\n".join(found)


SECRET_FILES = {
    "login by key": "broker: {{servers: ['nats://127.0.0.1:{nobody}'], auth: {{nkey_seed: {{file: SECRET}}}}}}",
    "login by credentials": "broker: {{servers: ['nats://127.0.0.1:{nobody}'], auth: {{credentials: {{file: SECRET}}}}}}",
    "login by password": "broker: {{servers: ['nats://127.0.0.1:{nobody}'], auth: {{user: u, password: {{file: SECRET}}}}}}",
    "login by token": "broker: {{servers: ['nats://127.0.0.1:{nobody}'], auth: {{token: {{file: SECRET}}}}}}",
    "keys of TLS": "broker: {{servers: ['tls://127.0.0.1:{nobody}'], "
    "tls: {{ca: {{file: SECRET}}, cert: {{file: SECRET}}, key: {{file: SECRET}}}}}}",
    "a key to sign with": "broker: {{embedded: true}}\nsigning: {{key: {{file: SECRET}}}}\ndefaults: {{signatures: prefer}}",
    "tokens of the API": "broker: {{embedded: true}}\nadmin: {{listen: '127.0.0.1:{port}', token: {{file: SECRET}}, "
    "tls: {{cert: {{file: SECRET}}, key: {{file: SECRET}}, client_ca: {{file: SECRET}}}}}}",
    "tokens of inputs": "broker: {{embedded: true}}\n"
    "inputs: {{tcp: {{listen: '127.0.0.1:{port}', token: {{file: SECRET}}}}}}",
    "a header": "broker: {{embedded: true}}\n"
    "methods: {{A: {{http: {{url: 'http://h/', headers: {{Authorization: {{file: SECRET}}}}}}}}}}",
}  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [b"cnryinfile", b"cnryinfile\ncnrysecond\n", b"SUcnryseed00\xff\xfe", b"-----BEGIN NATS USER JWT-----\ncnry\n"],
)  # fmt: skip
def test_what_a_file_of_a_secret_holds_is_quoted_nowhere_though_it_is_wrong(tmp_path, content):
    found: list[str] = []
    secret = tmp_path / "secret"
    secret.write_bytes(content)
    secret.chmod(0o600)
    for name, text in SECRET_FILES.items():
        path = tmp_path / "fleet.yaml"
        filled = text.format(nobody=free_port(), port=free_port()).replace("SECRET", str(secret))
        path.write_text(
            f"version: 1\n{filled}\nnodes: {{n1: {{subscribe: {{REQErrorLog: {{}}}}}}}}\n"
        )
        for words in (
            ("check", "--secrets", str(path)),
            ("doctor", str(path), "--state-dir", str(tmp_path / "state")),
            ("run", "--check", str(path), "--all-nodes", "--state-dir", str(tmp_path / "state")),
            ("broker-conf", str(path)),
        ):
            done = forked.run([*words])
            assert "Traceback" not in done.stderr, (name, words, done.stderr)
            find_leaks(f"{name}: {words[0]}", done.stdout + done.stderr, found)
    assert not found, "\n".join(found)


def test_a_token_for_a_server_stays_in_a_private_file_of_its_own(tmp_path, monkeypatch):
    found: list[str] = []
    env = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "home")}
    server = f"https://127.0.0.1:{free_port()}"
    words = ["context", "add", "ship", "--server", server, "--token-stdin"]
    done = forked.run(words, env=env, input=b"cnrytypedtoken\n")
    assert done.returncode == 0, done.stderr
    find_leaks("add", done.stdout + done.stderr, found)
    for words in (
        ("context", "list"),
        ("context", "list", "-o", "json"),
        ("context", "show", "ship"),
        ("context", "test", "ship"),
        ("-c", "ship", "status"),
        ("-c", "ship", "--debug", "send", "--to", "n1", "REQPing"),
    ):
        done = forked.run([*words], env=env)
        find_leaks(" ".join(words), done.stdout + done.stderr, found)
    holding = [
        file for file in filter(os.path.isfile, tmp_path.rglob("*")) if b"cnry" in file.read_bytes()
    ]
    assert len(holding) == 1, holding
    assert stat.S_IMODE(holding[0].stat().st_mode) == 0o600
    assert forked.run(["context", "remove", "ship"], env=env).returncode == 0
    assert not holding[0].exists()
    assert not found, "\n".join(found)
