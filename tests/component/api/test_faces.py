"""Who may ask what on which face."""

import io
import json
import os
import socket
from dataclasses import replace

import aiohttp
import msgspec
import pytest

from appliance.api import guards
from appliance.api.guards import MAX_TOLD_HOSTS, MONITORING, is_host_allowed, name_user
from appliance.api.job_routes import hide_arguments
from appliance.api.limits import MAX_FAILED_LOGINS
from appliance.api.model import Job, JobNode
from appliance.core.specs import AdminSettings, SecretRef
from appliance.errors import RequestInvalid, StoreFull, StoreLocked
from tests.component.api.conftest import TOKEN, Client
from tests.support.fake_control import PROBLEM, make_status

MESSAGE = {"to_nodes": ["ship1"], "method": "REQPing"}
READING = ["/", "/livez", "/readyz", "/-/healthy", "/-/ready", "/metrics", "/api/v1/status", "/api/v1/plan",
           "/api/v1/methods", "/api/v1/outbox", "/api/v1/inbox", "/api/v1/history"]  # fmt: skip
WRITING = [
    "/api/v1/reload",
    "/-/reload",
    "/api/v1/messages",
    "/api/v1/outbox/retry",
    "/api/v1/outbox/drop",
    "/api/v1/inbox/drop",
]


@pytest.mark.parametrize("path", READING)
async def test_reading_needs_nothing_on_either_face(unix, tcp, path):
    for face in (unix, tcp):
        answer = await face.get(path)
        assert answer.status == 200, answer.text
        assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", WRITING)
async def test_writing_over_tcp_needs_the_bearer_token(tcp, control, path):
    body = MESSAGE if path.endswith("messages") else {"all": True} if "inbox" in path else {}
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
        answer = await tcp.post(path, json=body, headers=headers)
        assert answer.status == 401
        assert "WWW-Authenticate" in answer.headers
        assert "error" in answer.json()
    assert control.calls == []
    answer = await tcp.post(path, json=body, headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status in (200, 202)
    assert len(control.calls) == 1


async def test_files_are_copied_over_tcp_by_who_may_send(tcp):
    begun = await tcp.post("/api/v1/copies", json={"from_node": "ship1"})
    content = await tcp.get(f"/api/v1/copies/{'0' * 32}/content")
    assert (begun.status, content.status) == (401, 401)
    assert content.json()["missing_scope"] == "send"


async def test_without_a_configured_token_nothing_is_written_over_tcp(server, control):
    await server.move_tcp(AdminSettings(listen="127.0.0.1:0"))
    host, port = server.tcp_address
    async with aiohttp.ClientSession(f"http://{host}:{port}") as session:
        answer = await Client(session).post("/-/reload", headers={"Authorization": "Bearer "})
    assert answer.status == 401


async def test_a_token_whose_file_is_replaced_holds_from_the_next_request_on(tcp, short_dir):
    (short_dir / "token").write_text("rotated")
    assert (await tcp.post("/-/reload", headers={"Authorization": f"Bearer {TOKEN}"})).status == 401
    assert (await tcp.post("/-/reload", headers={"Authorization": "Bearer rotated"})).status == 200


async def test_a_page_under_a_foreign_name_cannot_read_over_tcp(tcp):
    for host in ("evil.example", "evil.example:8090", "127.0.0.1.evil.example"):
        answer = await tcp.get("/api/v1/status", headers={"Host": host})
        assert answer.status == 421
    assert (await tcp.get("/api/v1/status", headers={"Host": "localhost:1"})).status == 200


@pytest.mark.parametrize(
    ("header", "listen", "allowed"),
    [
        ("127.0.0.1:8090", "127.0.0.1", True),
        ("[::1]:8090", "127.0.0.1", True),
        ("LOCALHOST", "127.0.0.1", True),
        ("ship1.lan:8090", "ship1.lan", True),
        ("10.0.0.1", "127.0.0.1", False),
        ("10.0.0.1:8090", "0.0.0.0", True),
        ("[2001:db8::1]:8090", "::", True),
        ("evil.example", "0.0.0.0", False),
        ("10.96.0.1:8090", "192.168.0.7", True),  # what a load balancer has before it
        ("10.96.0.1:8090", "ship1.lan", True),
        (socket.gethostname(), "192.168.0.7", True),
        (socket.gethostname(), "127.0.0.1", socket.gethostname() == "localhost"),
        ("Metrics.Fleet.Example:443", "127.0.0.1", True),
        ("metrics.fleet.example.", "127.0.0.1", True),
        ("metrics.fleet.example.evil", "0.0.0.0", False),
        (socket.gethostname(), "0.0.0.0", True),
        ("", "0.0.0.0", False),
        ("[::1].evil.example", "127.0.0.1", False),
        ("[127.0.0.1]evil.example:8090", "127.0.0.1", False),
        ("localhost:80@evil.example", "127.0.0.1", False),
        ("localhost:", "127.0.0.1", False),
    ],
)
def test_which_hosts_are_meant_for_us(header, listen, allowed):
    assert is_host_allowed(header, listen, ["metrics.fleet.example"]) is allowed


@pytest.fixture
async def wide(server, short_dir):
    """A listener beyond loopback, which this machine asks at its own address."""
    token = SecretRef(kind="file", name=str(short_dir / "token"))
    (short_dir / "token").write_text(TOKEN)
    settings = AdminSettings(listen="0.0.0.0:0", token=token, hosts=("ships.example",))
    await server.move_tcp(settings)
    port = server.tcp_address[1]
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        yield Client(session)


FOREIGN = {"Host": "ship1.fleet.example:8090"}
BRINGS = {"Authorization": f"Bearer {TOKEN}"}


@pytest.mark.parametrize("path", sorted(MONITORING))
async def test_monitoring_reads_under_any_name_beyond_loopback(wide, path):
    assert (await wide.get(path, headers=FOREIGN)).status == 200


@pytest.mark.parametrize("path", sorted(MONITORING))
async def test_on_loopback_a_foreign_name_reads_nothing_without_the_token(tcp, path):
    assert (await tcp.get(path, headers=FOREIGN)).status == 421
    assert (await tcp.get(path, headers={**FOREIGN, **BRINGS})).status == 200


async def test_a_foreign_name_needs_the_token_for_all_else(wide, control):
    for path in ("/", "/api/v1/status"):
        answer = await wide.get(path, headers=FOREIGN)
        assert answer.status == 421
        assert "admin.hosts" in answer.json()["error"]
        assert (await wide.get(path, headers={**FOREIGN, **BRINGS})).status == 200
    assert (await wide.post("/api/v1/reload", json={}, headers=FOREIGN)).status == 421
    assert control.calls == []
    done = await wide.post("/api/v1/reload", json={}, headers={**FOREIGN, **BRINGS})
    assert done.status == 200


async def test_a_token_is_not_guessed_under_a_foreign_name_either(wide):
    def guess(text):
        return {**FOREIGN, "Authorization": f"Bearer {text}"}

    for number in range(MAX_FAILED_LOGINS):
        assert (await wide.get("/api/v1/status", headers=guess(number))).status == 421
    assert (await wide.get("/api/v1/status", headers=guess("one more"))).status == 429
    # a right one is told no earlier
    assert (await wide.get("/api/v1/status", headers={**FOREIGN, **BRINGS})).status == 429


async def test_a_name_in_the_config_is_ours_until_it_is_not(wide, server):
    headers = {"Host": "ships.example"}
    assert (await wide.get("/api/v1/status", headers=headers)).status == 200
    await server.move_tcp(replace(server._settings.value, hosts=()))
    assert (await wide.get("/api/v1/status", headers=headers)).status == 421


@pytest.mark.parametrize("host", ["ships.example", "127.0.0.1"])
async def test_the_page_writes_through_a_proxy_with_a_name_of_ours(wide, host):
    for name, status in (("ships.example", 200), ("evil.example", 403)):
        headers = {"Host": host, "Origin": f"https://{name}", **BRINGS}
        assert (await wide.post("/api/v1/reload", json={}, headers=headers)).status == status


async def test_what_was_turned_away_is_told_once_by_name(wide, caplog):
    for _ in range(3):
        await wide.get("/api/v1/status", headers=FOREIGN)
    await wide.get("/api/v1/status", headers={"Host": "other.example"})
    told = [record.fields for record in caplog.records if "turned away" in record.message]
    assert [(fields["host"], fields["from"]) for fields in told] == [
        ("ship1.fleet.example", "127.0.0.1"),
        ("other.example", "127.0.0.1"),
    ]
    for number in range(2 * MAX_TOLD_HOSTS):
        await wide.get("/api/v1/status", headers={"Host": f"host{number}.example"})
    told = [record for record in caplog.records if "turned away" in record.message]
    assert len(told) == MAX_TOLD_HOSTS


@pytest.mark.parametrize("path", WRITING)
async def test_a_writing_request_from_a_web_page_is_refused_on_the_unix_socket_too(
    unix, control, path
):
    answer = await unix.post(path, json={}, headers={"Origin": "http://localhost"})
    assert answer.status == 403
    assert control.calls == []


async def test_a_body_must_be_json_and_bounded(unix, control):
    answer = await unix.post("/api/v1/messages", data="to_nodes=x")
    assert answer.status == 415
    big = b'{"to_nodes":["ship1"],"method":"M","data":["' + b"x" * (8 * 1024 * 1024) + b'"]}'
    answer = await unix.post(
        "/api/v1/messages", data=io.BytesIO(big), headers={"Content-Type": "application/json"}
    )
    assert answer.status == 413
    assert "error" in answer.json()
    assert control.calls == []


@pytest.mark.parametrize(
    "body",
    ["", "[", "[[", "null", "{}", '{"to_nodes":[],"method":"M"}', '{"to_nodes":["a"],"method":""}',
     '{"to_nodes":["a"],"method":"M","colour":"red"}', '{"to_nodes":"a","method":"M"}',
     '{"to_nodes":["a"],"method":"M","retries":-1}', '{"to_nodes":["a"],"method":"M","ack_timeout":"soon"}',
     '{"to_nodes":["a"],"method":"M","ack_timeout":true}', '{"to_nodes":["a"],"method":"M","data":["\\ud800"]}',
     "[" * 100_000],
)  # fmt: skip
async def test_an_unusable_body_is_an_answer_and_not_an_accident(unix, control, body):
    headers = {"Content-Type": "application/json"}
    answer = await unix.post("/api/v1/messages", data=body.encode(), headers=headers)
    assert answer.status == 400
    assert (answer.json())["error"]
    assert control.calls == []


async def test_bytes_that_are_no_json_text_are_refused(unix):
    headers = {"Content-Type": "application/json"}
    answer = await unix.post(
        "/api/v1/messages", data=b'{"to_nodes":["\xff"],"method":"M"}', headers=headers
    )
    assert answer.status == 400


async def test_data_times_destinations_is_bounded(unix):
    body = {"to_nodes": ["ship1"] * 10_000, "method": "M", "data": ["x" * 1_000_000]}
    big = io.BytesIO(json.dumps(body).encode())
    answer = await unix.post(
        "/api/v1/messages", data=big, headers={"Content-Type": "application/json"}
    )
    assert answer.status == 400
    assert "exceed" in (answer.json())["error"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RequestInvalid("no"), 400),
        (StoreFull("full"), 507),
        (StoreLocked("locked"), 500),
        (KeyError("x"), 500),
    ],
)
async def test_every_error_is_json_with_a_fitting_status(unix, control, error, status, caplog):
    control.raises = error
    answer = await unix.post("/api/v1/messages", json=MESSAGE)
    assert answer.status == status
    assert "error" in answer.json()


async def test_unknown_paths_and_methods_are_json_too(unix):
    answer = await unix.get("/api/v1/nothing")
    assert (answer.status, answer.json()) == (404, {"error": "not found"})
    answer = await unix.get("/api/v1/reload")
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")


async def test_status_is_json_even_if_a_text_in_it_is_not(unix, control):
    control.answers["status"] = make_status(degraded_by=["cannot open \udcff\udcfe"])
    assert ((await unix.get("/api/v1/status")).json())["degraded_by"] == ["cannot open \\xff\\xfe"]


async def test_not_being_ready_shows_in_readyz_only(unix, control):
    control.is_ready = False
    answer = await unix.get("/readyz")
    assert (answer.status, answer.text) == (503, "not connected to the broker\n")
    assert (await unix.get("/livez")).status == 200


async def test_a_refused_reload_is_an_error_status_with_the_whole_verdict(unix, control):
    control.answers["reload"] = {
        "result": "refused",
        "generation": 1,
        "problems": [PROBLEM],
    }
    answer = await unix.post("/api/v1/reload", json={"force": True})
    assert (answer.status, (answer.json())["problems"]) == (422, [PROBLEM])
    assert control.calls == [("reload", True, "request")]
    assert (await unix.post("/-/reload")).status == 422


async def test_other_paths_are_planned_for_the_unix_socket_only(unix, tcp, control):
    await unix.get("/api/v1/plan", params=[("path", "/a"), ("path", "/b")])
    assert control.calls == [("plan", ["/a", "/b"])]
    assert (await tcp.get("/api/v1/plan?path=/etc/shadow")).status == 403
    assert len(control.calls) == 1


async def test_over_tcp_plan_and_history_show_values_with_the_token_alone(unix, tcp, control):
    action = {
        "action": "update",
        "worker": "w",
        "node": "n",
        "fields": {"data": ["canary", "canary2"]},
    }
    facts = {
        "actions": [action],
        "settings": {"log.level": ["canary", "x"]},
        "problems": [PROBLEM],
        "diff": "+canary",
    }
    control.answers["plan"] = facts
    control.records = [{"number": 1, "generation": 1, **facts}]
    authorized = {"Authorization": f"Bearer {TOKEN}"}
    for path in ("/api/v1/plan", "/api/v1/history", "/api/v1/history/1"):
        hidden = await tcp.get(path)
        assert "canary" not in hidden.text
        assert '"data"' in hidden.text
        assert '"values_hidden":true' in hidden.text
        assert "canary" in (await tcp.get(path, headers=authorized)).text
        assert "canary" in (await unix.get(path)).text


def test_a_job_without_what_was_asked_names_no_files_either():
    job = Job(args=["canary"], nodes=[JobNode(to="ship1", file="/canary")])
    hide_arguments(job)
    assert "canary" not in msgspec.json.encode(job).decode()


async def test_a_path_is_planned_for_root_and_the_own_user_alone(unix, control, monkeypatch):
    monkeypatch.setattr(guards, "find_uid", lambda _transport: os.geteuid() + 1)
    answer = await unix.get("/api/v1/plan?path=/etc/shadow")
    assert (answer.status, control.calls) == (403, [])
    assert (await unix.get("/api/v1/plan")).status == 200


@pytest.mark.parametrize("other_user", [False, True])
async def test_files_that_the_caller_read_are_planned(unix, control, monkeypatch, other_user):
    monkeypatch.setattr(guards, "find_uid", lambda _transport: os.geteuid() + other_user)
    answer = await unix.post("/api/v1/plan", json={"files": {"/x.yaml": "/w=="}, "force": True})
    assert answer.status == 200
    assert control.calls == [("plan_given", {"/x.yaml": b"\xff"}, True, not other_user)]


@pytest.mark.parametrize("body", [{}, {"files": {}}, {"files": {"x": ""}}, {"files": {"/x": "?"}}])
async def test_files_to_plan_are_judged_on_the_way_in(unix, control, body):
    assert (await unix.post("/api/v1/plan", json=body)).status == 400
    assert control.calls == []


async def test_files_are_planned_over_tcp_with_the_token_alone(tcp, control):
    body = {"files": {"/x.yaml": ""}}
    assert (await tcp.post("/api/v1/plan", json=body)).status == 401
    authorized = {"Authorization": f"Bearer {TOKEN}"}
    assert (await tcp.post("/api/v1/plan", json=body, headers=authorized)).status == 200
    assert control.calls == [("plan_given", {"/x.yaml": b""}, False, False)]


async def test_the_metrics_are_what_a_scraper_expects(tcp):
    answer = await tcp.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    text = answer.text
    assert "appliance_config_last_reload_successful 1.0\n" in text
    assert "process_resident_memory_bytes" in text


async def test_the_outbox_is_listed_retried_and_dropped(unix, control):
    control.records = [{"id": 5, "to": "ship1"}]
    answer = await unix.get("/api/v1/outbox?state=dead&limit=3")
    (record,) = (answer.json())["records"]
    assert (record["id"], record["id_text"], record["to"]) == (5, "5", "ship1")
    assert ((await unix.post("/api/v1/outbox/retry")).json()) == {"count": 7}
    assert ((await unix.post("/api/v1/outbox/drop", json={"ids": [5, "6"]})).json()) == {"count": 2}
    assert control.calls == [
        ("outbox_list", "dead", 3),
        ("outbox_retry", None),
        ("outbox_drop", [5, 6], True),
    ]
    for path, body in (("drop", {"pending": True}), ("drop", {"ids": ["x"]}), ("retry", {"id": 5})):
        assert (await unix.post(f"/api/v1/outbox/{path}", json=body)).status == 400
    assert (await unix.get("/api/v1/outbox?state=alive")).status == 400
    assert (await unix.get("/api/v1/outbox?limit=many")).status == 400


async def test_the_inbox_is_listed_and_dropped_by_id_or_expressly_all(unix, control):
    control.records = [{"id": 5, "message_id": 2**60, "state": "orphaned"}]
    (record,) = (await unix.get("/api/v1/inbox?limit=3")).json()["records"]
    assert (record["id_text"], record["message_id_text"]) == ("5", str(2**60))
    dropped = await unix.post("/api/v1/inbox/drop", json={"ids": [5, "6"]})
    assert dropped.json() == {"count": 2, "held": 0}
    assert (await unix.post("/api/v1/inbox/drop", json={"all": True})).json()["count"] == 7
    assert control.calls == [("inbox_list", 3), ("inbox_drop", [5, 6]), ("inbox_drop", None)]
    for body in ({}, {"all": False}, {"all": True, "ids": [5]}, {"ids": ["x"]}, {"id": 5}):
        assert (await unix.post("/api/v1/inbox/drop", json=body)).status == 400
    assert (await unix.post("/api/v1/inbox/drop")).status == 400
    assert len(control.calls) == 3


async def test_the_history_is_listed_and_one_record_found(unix, control):
    control.records = [{"generation": 2}, {"generation": 1}]
    assert ((await unix.get("/api/v1/history?limit=1")).json()) == {"records": [{"generation": 2}]}
    assert ((await unix.get("/api/v1/history/1")).json()) == {"generation": 1}
    assert (await unix.get("/api/v1/history/9")).status == 404


@pytest.mark.parametrize(
    ("uid", "uid_map", "name"),
    [
        (0, "0 0 4294967295", "root (uid 0)"),
        (65534, "0 0 4294967295", "nobody (uid 65534)"),
        (65534, "0 0 1", "unknown user (of another user namespace)"),
        (65534, "0 0 1\n1000 1000 1", "unknown user (of another user namespace)"),
        (65534, "0 100000 65536", "unknown user (of another user namespace)"),
        (65534, "", "unknown user (of another user namespace)"),
        (0, "0 0 1", "root (uid 0)"),
        (3_000_000_000, "0 0 4294967295", "uid 3000000000"),
    ],
)
def test_a_user_who_cannot_be_known_is_not_called_nobody(uid, uid_map, name):
    assert name_user(uid, uid_map, "65534") == name
