"""The daemon's API for copies: what it takes, what it refuses, and what is left when a caller goes away."""

import base64
import hashlib
import http.client
import json
import os
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.appliance import Appliance, settle
from tests.support.waiting import until

CONFIG = """
version: 1
broker: {embedded: true}
nodes:
  central:
    subscribe: {REQErrorLog: {}, REQToFileAppend: {}, REQCopyFileTo: {accept_from: [ship1]}}
  ship1:
    subscribe:
      REQCopyFileFrom: {allow_paths: ["FILES/**"]}
      REQCopyFileTo: {allow_paths: ["FILES/**"]}
  quiet: {subscribe: {REQPing: {}}}
  away: {}
"""
DATA = os.urandom(2_500_000)


class Connection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Api:
    def __init__(self, daemon, files):
        self.daemon, self.files = daemon, files
        self.spool = daemon.state / "copies" / "spool"

    def open(self):
        return Connection(self.daemon.state / "appliance.sock")

    def ask(self, verb, path, body=None, headers=None):
        """Status and body, decoded where it is JSON."""
        connection = self.open()
        try:
            if isinstance(body, dict):
                body, headers = json.dumps(body), {"Content-Type": "application/json"}
            connection.request(verb, f"/api/v1/copies{path}", body, headers or {})
            response = connection.getresponse()
            raw = response.read()
            is_json = response.headers.get_content_type() == "application/json"
            return response.status, json.loads(raw) if is_json else raw
        finally:
            connection.close()

    def begin(self, **body):
        status, answer = self.ask("POST", "", {"node": "central", **body})
        assert status == 201, answer
        return answer

    def bring(self, token, data=DATA):
        return self.ask("PUT", f"/{token}/content", data, {"Content-Type": "application/octet-stream"})  # fmt: skip

    def send(self, token, wait="1m"):
        status, raw = self.ask("POST", f"/{token}/send?wait={wait}", {})
        return status, [json.loads(line) for line in raw.splitlines()] if status == 200 else raw


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    directory = tmp_path_factory.mktemp("copies")
    (directory / "files").mkdir()
    config = CONFIG.replace("FILES", str(directory / "files"))
    args = ["--node", "central", "--node", "ship1", "--node", "quiet"]
    daemon = Appliance(config, directory, args=args)
    daemon.only_named = True
    with daemon:
        yield Api(daemon, directory / "files")


def test_a_file_is_brought_sent_and_forgotten(api):
    target = api.files / "brought"
    begun = api.begin(to_node="ship1", path=str(target), name="x")
    assert (begun["node"], begun["note"], begun["hint"]) == ("central", None, None)
    status, kept = api.bring(begun["token"])
    assert (status, kept) == (200, {"sha256": hashlib.sha256(DATA).hexdigest()})
    status, lines = api.send(begun["token"])
    assert lines[0] == {"event": "progress", "progress": [0, len(DATA)]}
    assert {line["event"] for line in lines[:-1]} == {"progress"}
    last = lines[-1]
    assert (last["event"], last["size"], last["sha256"]) == ("copied", len(DATA), kept["sha256"])
    assert target.read_bytes() == DATA
    assert api.ask("DELETE", f"/{begun['token']}") == (200, {"ended": True})
    assert api.ask("DELETE", f"/{begun['token']}")[0] == 404
    assert os.listdir(api.spool) == []


def test_a_file_that_a_node_sends_is_fetched_once_it_is_there(api):
    source = api.files / "source"
    source.write_bytes(DATA)
    begun = api.begin(from_node="ship1")
    assert api.ask("GET", f"/{begun['token']}/content")[0] == 409
    api.daemon.follow({
        "from_node": "central", "to_nodes": ["ship1"], "method": "REQCopyFileFrom", "for_caller": True,
        "method_args": [str(source), begun["node"], begun["path"]],
    })  # fmt: skip
    assert api.ask("GET", f"/{begun['token']}/content?wait=60s") == (200, DATA)
    api.ask("DELETE", f"/{begun['token']}")
    assert os.listdir(api.spool) == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "one of from_node and to_node"),
        ({"from_node": "ship1", "to_node": "ship1"}, "one of from_node and to_node"),
        ({"to_node": "no node", "path": "/x"}, "is no node name"),
        ({"to_node": "ship1"}, "begins with a slash"),
        ({"to_node": "ship1", "path": "x"}, "begins with a slash"),
        ({"to_node": "ship1", "path": "/x", "node": "away"}, "does not run node 'away'"),
        ({"to_node": "ship1", "path": "/x", "more": 1}, "more"),
        ({"to_node": 7}, "to_node"),
        ({"from_node": "quiet"}, "takes nothing from quiet; add quiet to its accept_from"),
        ({"from_node": "shp1"}, "'shp1' is not declared (did you mean ship1?); add it to `nodes`"),
        ({"from_node": "ship1", "node": "quiet"}, "quiet does not subscribe REQCopyFileTo; add"),
    ],
)
def test_what_cannot_be_is_refused_in_words(api, body, said):
    status, answer = api.ask("POST", "", {"node": "central", **body})
    assert status in (400, 422)
    assert said in answer["error"]


def test_silence_to_come_is_hinted_at(api):
    begun = api.begin(to_node="quiet", path="/x")
    assert begun["hint"] == "the config here names no REQCopyFileTo of quiet"
    api.ask("DELETE", f"/{begun['token']}")


@pytest.mark.parametrize("token", ["0" * 32, "x", "..", "%2e%2e%2f%2e%2e", "a b"])
def test_tokens_that_were_not_given_open_nothing(api, token):
    token = token.replace(" ", "%20")
    for verb, path in (("GET", "content"), ("POST", "send")):
        status, _ = api.ask(verb, f"/{token}/{path}")
        assert status in (400, 404, 415, 422)
    assert api.bring(token, b"x")[0] in (400, 404, 422)
    assert api.ask("DELETE", f"/{token}")[0] == 404


def test_the_steps_come_in_their_order(api):
    begun = api.begin(to_node="ship1", path=str(api.files / "order"))
    status, _ = api.send(begun["token"])
    assert status in (400, 422)
    assert api.bring(begun["token"], b"x")[0] == 200
    status, answer = api.bring(begun["token"], b"y")
    assert (status in (400, 422), "here already" in answer["error"]) == (True, True)
    api.ask("DELETE", f"/{begun['token']}")
    begun = api.begin(from_node="ship1")
    status, answer = api.bring(begun["token"], b"x")
    assert (status in (400, 422), "nothing is brought for it" in answer["error"]) == (True, True)
    api.ask("DELETE", f"/{begun['token']}")


def test_content_has_a_length_and_a_type(api):
    begun = api.begin(to_node="ship1", path=str(api.files / "typed"))
    place = f"/{begun['token']}/content"
    status, _ = api.ask("PUT", place, b"x", {"Content-Type": "text/plain"})
    assert status == 415
    connection = api.open()
    connection.request("PUT", f"/api/v1/copies{place}", iter([b"x"]), {"Content-Type": "application/octet-stream"},
                       encode_chunked=True)  # fmt: skip
    assert connection.getresponse().status in (400, 422)
    connection.close()
    api.ask("DELETE", f"/{begun['token']}")


def test_a_caller_that_hangs_up_in_the_middle_of_its_content_has_sent_nothing(api):
    begun = api.begin(to_node="ship1", path=str(api.files / "half"))
    connection = api.open()
    connection.putrequest("PUT", f"/api/v1/copies/{begun['token']}/content")
    connection.putheader("Content-Type", "application/octet-stream")
    connection.putheader("Content-Length", "1000000")
    connection.endheaders(b"x" * 500_000)
    until(lambda: os.listdir(api.spool))
    connection.close()
    # nor does the half of it lie there for an hour
    until(lambda: os.listdir(api.spool) == [])
    assert api.send(begun["token"])[0] in (400, 422)


def test_a_caller_that_hangs_up_while_it_waits_for_an_absent_node_leaves_nothing_behind(api):
    begun = api.begin(to_node="away", path="/x")
    assert api.bring(begun["token"])[0] == 200
    connection = api.open()
    connection.request("POST", f"/api/v1/copies/{begun['token']}/send?wait=60s", "{}",
                       {"Content-Type": "application/json"})  # fmt: skip
    response = connection.getresponse()
    assert json.loads(response.readline())["event"] == "progress"
    until(lambda: api.daemon.status()["outbox"]["pending"])
    response.close()
    connection.close()
    until(lambda: not api.daemon.status()["outbox"]["pending"])
    assert api.daemon.status()["outbox"]["dead"] == 0
    # nor in the daemon's keeping, where 64 such copies would leave room for none
    until(lambda: os.listdir(api.spool) == [])


def test_a_caller_that_hangs_up_while_a_node_sends_for_it_leaves_nothing_behind(api):
    (api.files / "wanted").write_bytes(os.urandom(30_000_000))
    begun = api.begin(from_node="ship1")
    connection = api.open()
    body = {
        "to_nodes": ["ship1"],
        "method": "REQCopyFileFrom",
        "method_args": [str(api.files / "wanted"), begun["node"], begun["path"]],
        "for_caller": True,
        "from_node": "central",
    }
    connection.request("POST", "/api/v1/messages?wait=60s&job=cp", json.dumps(body),
                       {"Content-Type": "application/json", "Accept": "application/x-ndjson"})  # fmt: skip
    response = connection.getresponse()
    assert json.loads(response.readline())["event"] == "accepted"
    response.close()
    connection.close()
    until(lambda: api.ask("GET", f"/{begun['token']}/content")[0] in (400, 404))
    settle(api.daemon)
    assert os.listdir(api.spool) == []


def test_a_small_file_goes_with_the_request_that_copies_it(api):
    target = api.files / "small"
    body = {"to_node": "ship1", "path": str(target), "content": {"base64": "6QBhYmM="}}
    status, raw = api.ask("POST", "?wait=1m", {"node": "central", **body})
    lines = [json.loads(line) for line in raw.splitlines()]
    assert status == 200
    assert [lines[0]["event"], lines[-1]["event"]] == ["begun", "copied"]
    assert target.read_bytes() == b"\xe9\0abc"
    assert lines[-1]["sha256"] == hashlib.sha256(b"\xe9\0abc").hexdigest()
    assert os.listdir(api.spool) == []


def test_content_that_is_too_large_or_goes_nowhere_is_refused(api):
    large = base64.b64encode(bytes(200_000)).decode()
    for body in (
        {"to_node": "ship1", "path": str(api.files / "x"), "content": {"base64": large}},
        {"from_node": "ship1", "content": {"base64": "YQ=="}},
    ):
        assert api.ask("POST", "", {"node": "central", **body})[0] == 400
    assert not (api.files / "x").exists()


def test_there_is_room_for_so_many_copies_at_once(api):
    tokens = []
    while True:
        status, answer = api.ask("POST", "", {"node": "central", "to_node": "ship1", "path": "/x"})
        if status != 201:
            break
        tokens.append(answer["token"])
    assert len(tokens) == 64
    assert "64 copies are on their way already" in answer["error"]
    for token in tokens:
        assert api.ask("DELETE", f"/{token}")[0] == 200


def test_more_callers_than_are_served_at_once_all_get_their_turn(api):
    def copy(number):
        target = api.files / f"turn-{number}"
        node, wait = ("ship1", "1m") if number % 2 else ("away", "1s")
        token = api.begin(to_node=node, path=str(target))["token"]
        api.bring(token, b"x" * number)
        _, lines = api.send(token, wait=wait)
        api.ask("DELETE", f"/{token}")
        return lines[-1]["event"] == "copied" and target.read_bytes() == b"x" * number

    with ThreadPoolExecutor(40) as threads:
        assert list(threads.map(copy, range(40))) == [number % 2 == 1 for number in range(40)]
    assert os.listdir(api.spool) == []
