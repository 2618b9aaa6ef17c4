"""The page at `/` and what it asks of the API: who gets it, under which policy, and who may write from it."""

import re

import aiohttp
import pytest

from appliance.api.page import load_page
from appliance.core.specs import AdminSettings, Phase
from appliance.telemetry.metrics import WorkerView
from appliance.telemetry.stats import WorkerStats
from tests.component.api.conftest import TOKEN, Client
from tests.support.fake_control import make_key

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
BEARER = {"Authorization": f"Bearer {TOKEN}"}
MESSAGE = {"to_nodes": ["ship1"], "method": "REQPing"}
LINK = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


def origin_of(client, name="127.0.0.1"):
    return f"http://{name}:{client.session._base_url.port}"


async def test_a_browser_gets_the_page_and_a_program_the_index(tcp, unix):
    for face in (tcp, unix):
        page = await face.get("/", headers=BROWSER)
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "<main" in page.text
        index = await face.get("/")
        assert index.headers["Content-Type"].startswith("text/plain")
        assert "/api/v1/status" in index.text
        assert page.headers["Vary"] == index.headers["Vary"] == "Accept"


async def test_every_file_that_the_page_names_is_served_and_no_other(tcp):
    for name, content in load_page().items():
        if name == "index.html":
            named = re.findall(r'(?:href|src)="page/([^"]+)"', content.decode())
        elif name.endswith(".js"):
            named = re.findall(r'from "\./([^"]+)"', content.decode())
        else:
            continue
        for other in named:
            answer = await tcp.get(f"/page/{other}")
            assert (answer.status, answer.headers["X-Content-Type-Options"]) == (200, "nosniff")
    for name in ("index.html", "__init__.py", "..%2Fpy.typed", "nothing.js"):
        assert (await tcp.get(f"/page/{name}")).status == 404


async def test_the_policy_lets_nothing_run_but_the_pages_own_files(tcp):
    answer = await tcp.get("/", headers=BROWSER)
    policy = answer.headers["Content-Security-Policy"].split("; ")
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "require-trusted-types-for 'script'" in policy
    assert not [rule for rule in policy if "unsafe" in rule or "http" in rule or "*" in rule]


def test_the_page_loads_nothing_from_elsewhere_and_writes_no_markup():
    for name, content in load_page().items():
        text = content.decode()
        addresses = set(re.findall(r"https?://[^\s\"'`)]+", text))
        assert addresses <= {"http://www.w3.org/2000/svg"}, name
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", text
        ), name
        assert not re.search(r"<[^>]+\s(style|on\w+)=", text), name


@pytest.mark.parametrize("path", ["/api/v1/reload", "/api/v1/messages", "/api/v1/outbox/drop"])
async def test_the_own_page_writes_with_the_token_and_not_without(tcp, control, path):
    body = MESSAGE if path.endswith("messages") else {}
    same = {"Origin": origin_of(tcp), "Sec-Fetch-Site": "same-origin"}
    assert (await tcp.post(path, json=body, headers=same)).status == 401
    assert control.calls == []
    assert (await tcp.post(path, json=body, headers={**same, **BEARER})).status in (200, 202)
    assert len(control.calls) == 1


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "", "http://127.0.0.1", "http://127.0.0.1:1", "http://localhost:{port}",
     "ftp://127.0.0.1:{port}", "http://127.0.0.1:{port}.evil.example", "http://127.0.0.1:{port}/"],
)  # fmt: skip
async def test_another_page_does_not_write_even_with_the_token(tcp, control, origin):
    port = tcp.session._base_url.port
    headers = {"Origin": origin.format(port=port), **BEARER}
    assert (await tcp.post("/api/v1/reload", json={}, headers=headers)).status == 403
    assert control.calls == []


async def test_a_name_that_a_server_of_theirs_points_here_is_no_own_page(tcp, control):
    headers = {"Host": "evil.example", "Origin": "http://evil.example", **BEARER}
    assert (await tcp.post("/api/v1/reload", json={}, headers=headers)).status == 421
    assert control.calls == []


@pytest.mark.parametrize("site", ["cross-site", "same-site", "nonsense"])
async def test_pages_of_other_sites_may_not_even_read(tcp, unix, site):
    for face in (tcp, unix):
        for path in ("/api/v1/status", "/metrics", "/page/main.js", "/"):
            headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"}
            assert (await face.get(path, headers=headers)).status == 403


async def test_a_person_may_follow_a_link_to_the_page(tcp):
    assert (await tcp.get("/", headers={**BROWSER, **LINK})).status == 200
    framed = {**BROWSER, **LINK, "Sec-Fetch-Dest": "iframe"}
    assert (await tcp.get("/", headers=framed)).status == 403
    assert (await tcp.post("/api/v1/reload", json={}, headers={**LINK, **BEARER})).status == 403


async def test_access_tells_what_the_token_is_good_for(tcp, unix):
    assert (await tcp.get("/api/v1/access")).json() == {
        "may_write": False,
        "token_configured": True,
    }
    answer = await tcp.get("/api/v1/access", headers=BEARER)
    assert answer.json() == {"may_write": True, "token_configured": True}
    for wrong in ("Bearer wrong", f"Basic {TOKEN}", "Bearer", ""):
        answer = await tcp.get("/api/v1/access", headers={"Authorization": wrong})
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (
            401,
            'Bearer realm="appliance"',
        )
    assert (await unix.get("/api/v1/access")).json()["may_write"] is True


async def test_access_tells_where_no_token_is_configured(server):
    await server.move_tcp(AdminSettings(listen="127.0.0.1:0"))
    host, port = server.tcp_address
    async with aiohttp.ClientSession(f"http://{host}:{port}") as session:
        answer = await Client(session).get("/api/v1/access")
    assert answer.json() == {"may_write": False, "token_configured": False}


async def test_traffic_sums_all_workers_and_keeps_what_gone_ones_counted(tcp, control):
    first, second = WorkerStats(), WorkerStats()
    first.handled, first.in_flight = 3, 1
    second.handled, second.acked, second.sent = 4, 5, 6
    second.delivery.observe(0.002)
    views = [
        WorkerView(key=make_key(node), phase=Phase.RUNNING, stats=stats)
        for node, stats in (("ship1", first), ("ship2", second), ("ship3", None))
    ]
    control.workers = views
    found = (await tcp.get("/api/v1/traffic")).json()
    assert (found["handled"], found["acked"], found["sent"], found["in_flight"]) == (7, 5, 6, 1)
    assert found["delivery_seconds"]["count"] == 1
    buckets = dict(found["delivery_seconds"]["buckets"])
    assert (buckets[0.001], buckets[0.0025], buckets[None]) == (0, 1, 1)
    control.workers = views[:1]
    control.gone.add(second)
    found = (await tcp.get("/api/v1/traffic")).json()
    assert (found["handled"], found["acked"], found["in_flight"]) == (7, 5, 1)


async def test_events_come_without_the_kinds_that_are_not_wanted(tcp, control):
    control.events.emit("config_applied", generation=1)
    control.events.emit("worker_started", worker="w")
    path = "/api/v1/events?recent=10&without=worker_started,message_delivered"
    async with tcp.session.get(path) as stream:
        assert await stream.content.readline() == b": listening\n"
        control.telemetry.message_delivered("central", 1, "ship1", "REQPing", 0.1)
        control.events.emit("worker_started", worker="w")
        control.events.emit("broker_connected", server="s")
        kinds = []
        while len(kinds) < 2:
            line = await stream.content.readline()
            if line.startswith(b"event: "):
                kinds.append(line.decode().strip().removeprefix("event: "))
    assert kinds == ["config_applied", "broker_connected"]
