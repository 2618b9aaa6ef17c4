"""Who may do what over TCP: tokens and certificates with names, scopes and ends; TLS that is renewed while it serves."""

import asyncio
import json
import ssl
from contextlib import ExitStack
from dataclasses import replace

import aiohttp
import pytest

from appliance.api import guards
from appliance.api.access import Caller, find_client_of
from appliance.api.clients import Shares
from appliance.api.limits import (
    FAILED_LOGIN_S,
    MAX_FAILED_LOGINS,
    MAX_STRANGE_REQUESTS,
    STRANGE_REQUESTS_PER_S,
    Limits,
)
from appliance.api.routing import ROUTES
from appliance.core.specs import (
    AdminCertificate,
    AdminSettings,
    AdminTls,
    AdminToken,
    ReadingBy,
    Scope,
    SecretRef,
)
from appliance.errors import DaemonError
from tests.component.api.conftest import Client
from tests.support.api_routes import ROUTE_SCOPES
from tests.support.authority import Authority
from tests.support.waiting import until_async

pytestmark = pytest.mark.xdist_group("access")  # they share certificates
TOKENS = {
    "reader": {Scope.READ},
    "sender": {Scope.SEND},
    "reloader": {Scope.RELOAD},
    "auditor": {Scope.READ, Scope.CONFIG_VALUES},
}
MESSAGE = {"to_nodes": ["ship1"], "method": "REQPing"}


def brings(name):
    return {"Authorization": f"Bearer token of {name}"}


@pytest.fixture
def ref(short_dir):
    def write(name, text):
        (short_dir / name).write_text(text)
        return SecretRef(kind="file", name=str(short_dir / name))

    return write


@pytest.fixture
def settings(ref):
    tokens = tuple(
        AdminToken(name=name, token=ref(name, f"token of {name}\n"), scopes=frozenset(scopes))
        for name, scopes in TOKENS.items()
    )
    return AdminSettings(listen="127.0.0.1:0", tokens=tokens, reading=ReadingBy.KNOWN)


@pytest.fixture
async def named(server, settings):
    await server.move_tcp(settings)
    host, port = server.tcp_address
    async with aiohttp.ClientSession(f"http://{host}:{port}") as session:
        yield Client(session)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def clients(tmp_path_factory):
    """The authority that signs what callers bring."""
    return Authority(tmp_path_factory.mktemp("clients"), "clients")


# -- scopes ---------------------------------------------------------------------------------------


async def test_no_route_is_served_whose_scope_is_not_told(server):
    app = server._make_app(guards.ListenerKind())
    routes = {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.method != "HEAD"
    }
    assert routes == set(app[ROUTES]) == set(ROUTE_SCOPES)


async def test_what_changes_something_always_asks_for_a_scope():
    assert not [route for route, scope in ROUTE_SCOPES.items() if route[0] != "GET" and not scope]


@pytest.mark.parametrize(("verb", "path"), sorted(ROUTE_SCOPES))
async def test_a_route_is_for_those_who_have_its_scope(named, verb, path):
    scope = ROUTE_SCOPES[verb, path]
    parts = {"{key}": "1", "{id}": "1", "{token}": "0" * 32, "{name}": "main.js"}
    for name, value in parts.items():
        path = path.replace(name, value)
    options = {} if verb == "GET" else {"data": b"x", "headers": {"Content-Type": "text/none"}}

    async def ask(headers):
        headers = {**options.get("headers", {}), **headers}
        async with named.session.request(verb, path, **{**options, "headers": headers}) as answer:
            # a stream never ends; of what is no JSON nothing is looked at
            is_refusal = answer.status in (401, 403)
            return answer.status, json.loads(await answer.text()) if is_refusal else {}

    status, body = await ask({})
    if scope is None:
        assert status not in (401, 403)
        return
    assert (status, body["missing_scope"]) == (401, scope)
    for name, scopes in TOKENS.items():
        status, body = await ask(brings(name))
        if scope in scopes:
            assert status not in (401, 403), name
        else:
            assert (status, body["missing_scope"]) == (403, scope), name
            assert body["error"] == f"token {name} lacks the scope {scope}"


async def test_a_token_that_is_none_is_refused_for_reading_too(named, server, settings):
    for reading in ReadingBy:
        await server.move_tcp(replace(settings, reading=reading))
        answer = await named.get("/api/v1/status", headers=brings("nobody"))
        assert answer.status == 401
        assert "the token is none of this daemon" in answer.text
    # what watches machines sees what anybody may
    await server.move_tcp(replace(settings, reading=ReadingBy.ANYBODY))
    assert (await named.get("/metrics", headers=brings("nobody"))).status == 200


async def test_values_of_the_config_are_for_their_scope(named, server, settings, control, ref):
    action = {"action": "update", "worker": "w", "node": "n", "fields": {"data": ["canary", "x"]}}
    plan = {"actions": [action], "settings": {"log.level": ["canary", "x"]}, "diff": "+canary"}
    control.answers["plan"] = plan
    control.answers["reload"] = {**control.answers["reload"], "actions": [action]}
    control.records = [{"number": 1, "generation": 1, **plan}]
    every = AdminToken(name="every", token=ref("every", "token of every"), scopes=frozenset(Scope))
    few = replace(
        every,
        name="few",
        token=ref("few", "token of few"),
        scopes=frozenset(Scope) - {Scope.CONFIG_VALUES},
    )
    await server.move_tcp(replace(settings, tokens=(every, few)))
    asked = [
        ("GET", "/api/v1/plan", {}),
        ("GET", "/api/v1/history", {}),
        ("GET", "/api/v1/history/1", {}),
        ("POST", "/api/v1/plan", {"json": {"files": {"/a.yaml": ""}}}),
        ("POST", "/api/v1/reload", {"json": {}}),
        ("POST", "/api/v1/rollback", {"json": {}}),
    ]
    for verb, path, options in asked:
        for name in ("every", "few"):
            answer = await named._ask(verb, path, {**options, "headers": brings(name)})
            assert answer.status == 200, answer.text
            assert ("canary" in answer.text) is (name == "every"), (verb, path)
            assert ('"values_hidden":true' in answer.text) is (name == "few")


async def test_the_history_tells_by_name_who_asked(named, control):
    for path in ("/api/v1/reload", "/api/v1/rollback", "/-/reload"):
        control.asked_by = ""
        await named.post(path, json={}, headers=brings("reloader"))
        assert control.asked_by == "token reloader, from 127.0.0.1"


async def test_access_tells_who_one_is(named):
    answer = await named.get("/api/v1/access", headers=brings("auditor"))
    assert answer.json() == {
        "may_write": False,
        "token_configured": True,
        "name": "auditor",
        "by": "token",
        "scopes": ["config-values", "read"],
    }


async def test_the_plain_token_may_do_everything_beside_named_ones(named, server, settings, ref):
    await server.move_tcp(replace(settings, token=ref("plain", "plain")))
    headers = {"Authorization": "Bearer plain"}
    assert (await named.post("/api/v1/reload", json={}, headers=headers)).status == 200
    assert "values_hidden" not in (await named.get("/api/v1/history", headers=headers)).text


async def test_a_token_ends_at_its_time_and_by_no_clock_but_the_wall(server, settings, ref):
    token = AdminToken(
        name="ci", token=ref("ci", "ci"), scopes=frozenset({Scope.READ}), expires_at="2027-01-31"
    )
    wall = 1_801_353_600.0  # midnight of that day, in UTC
    server._gate._wall = lambda: wall
    await server.move_tcp(replace(settings, tokens=(token,)))
    host, port = server.tcp_address
    async with aiohttp.ClientSession(f"http://{host}:{port}") as session:
        headers = {"Authorization": "Bearer ci"}
        answer = await Client(session).get("/api/v1/status", headers=headers)
        assert (answer.status, answer.json()["error"]) == (401, "token ci has expired")
        wall -= 1.0
        answer = await Client(session).get("/api/v1/access", headers=headers)
        assert answer.json()["expires_at"] == "2027-01-31T00:00:00.000+00:00"


async def test_a_token_that_cannot_be_read_is_nobodys_and_keeps_none_of_the_others_out(
    named, short_dir
):
    (short_dir / "sender").unlink()
    assert (await named.get("/api/v1/status", headers=brings("reader"))).status == 200
    for given in ("token of sender", "", "None"):
        headers = {"Authorization": f"Bearer {given}"}
        assert (await named.post("/api/v1/messages", json=MESSAGE, headers=headers)).status == 401


async def test_a_set_whose_token_cannot_be_read_is_refused(named, server, settings):
    gone = SecretRef(kind="file", name="/nowhere/token")
    token = AdminToken(name="ci", token=gone, scopes=frozenset({Scope.READ}))
    with pytest.raises(DaemonError, match=r"admin\.tokens\.ci"):
        await server.move_tcp(replace(settings, tokens=(token,)))
    assert (await named.get("/api/v1/status", headers=brings("reader"))).status == 200


async def test_no_token_stands_in_an_answer(named):
    for headers in (brings("reader"), {"Authorization": "Bearer hush-hush"}, {}):
        for verb, path in sorted(ROUTE_SCOPES):
            if "events" in path or "{" in path:
                continue
            async with named.session.request(verb, path, headers=headers) as answer:
                text = await answer.text()
                assert "hush-hush" not in text
                assert "token of" not in text


# -- what goes on when rights go ------------------------------------------------------------------


@pytest.fixture
def soon(monkeypatch):
    monkeypatch.setattr(guards, "RECHECK_S", 0.01)
    monkeypatch.setattr("appliance.api.following.GONE_CHECK_S", 0.01)


async def read_all(session, verb, path, **options):
    async with session.request(verb, path, **options) as answer:
        assert answer.status in (200, 202)
        return (await answer.read()).decode()


@pytest.mark.parametrize(
    ("verb", "path", "name", "options"),
    [
        ("GET", "/api/v1/events", "reader", {}),
        (
            "POST",
            "/api/v1/messages?wait=60s",
            "sender",
            {"json": MESSAGE, "headers": {"Accept": "application/x-ndjson"}},
        ),
    ],
)
async def test_a_stream_of_a_token_that_was_taken_away_ends_and_says_so(
    named, server, settings, soon, verb, path, name, options
):
    headers = {**options.get("headers", {}), **brings(name)}
    reading = asyncio.create_task(
        read_all(named.session, verb, path, **{**options, "headers": headers})
    )
    await until_async(lambda: server._following._streams._held or server._following._followed._held)
    left = tuple(item for item in settings.tokens if item.name != name)
    await server.move_tcp(replace(settings, tokens=left))
    text = await asyncio.wait_for(reading, 60.0)
    assert "withdrawn" in text
    assert "the token is none of this daemon" in text


async def test_a_stream_of_another_token_goes_on(named, server, settings, soon, monkeypatch):
    looks = []
    look = server._gate.find_withdrawal

    async def count(request):
        looks.append(await look(request))
        return looks[-1]

    monkeypatch.setattr(server._gate, "find_withdrawal", count)
    headers = brings("auditor")
    async with named.session.get("/api/v1/events", headers=headers) as answer:
        left = tuple(item for item in settings.tokens if item.name == "auditor")
        await server.move_tcp(replace(settings, tokens=left))
        assert await answer.content.readline() == b": listening\n"
        await until_async(lambda: len(looks) > 5)
        assert not any(looks)
        assert not answer.content.at_eof()


# -- limits ---------------------------------------------------------------------------------------


async def test_guessing_is_slowed_down_and_shuts_out_nobody_who_is_known_there(named):
    assert (await named.get("/api/v1/status", headers=brings("reader"))).status == 200
    for number in range(MAX_FAILED_LOGINS):
        # a page or a scraper that repeats what was a token once guesses nothing
        for _ in range(3):
            headers = brings(f"nobody {number}")
            assert (await named.get("/api/v1/status", headers=headers)).status == 401
    answer = await named.get("/api/v1/status", headers=brings("nobody"))
    assert answer.status == 429
    assert (await named.get("/api/v1/status", headers=brings("nobody 9"))).status == 401
    assert 1 <= int(answer.headers["Retry-After"]) <= FAILED_LOGIN_S
    # a right guess is told no earlier; who was here before is let in
    assert (await named.get("/api/v1/status", headers=brings("auditor"))).status == 429
    assert (await named.get("/api/v1/status", headers=brings("reader"))).status == 200


def test_strangers_have_so_many_requests_and_take_none_from_who_has_a_name():
    now = 0.0
    limits = Limits(lambda: now)
    assert not any(limits.count(None, "10.0.0.1") for _ in range(MAX_STRANGE_REQUESTS))
    assert limits.count(None, "10.0.0.1") > 0
    assert limits.count(None, "10.0.0.2") == 0
    assert limits.count(("token", "ci"), "10.0.0.1") == 0
    now += 1.0
    assert not any(limits.count(None, "10.0.0.1") for _ in range(int(STRANGE_REQUESTS_PER_S)))
    assert limits.count(None, "10.0.0.1") > 0


def test_what_is_remembered_of_those_who_ask_is_bounded():
    limits = Limits(lambda: 0.0)
    for number in range(10_000):
        limits.count(None, f"10.0.0.{number}")
        limits.count(None, f"10.0.0.{number}", guess=b"x")
        limits.count(None, "10.0.0.1", guess=str(number).encode())
        limits.count(("token", str(number)), "10.0.0.1")
    assert all(
        len(one._left) <= 4_096 for one in (limits._failed, limits._strangers, limits._known)
    )
    assert len(limits._let_in) <= 4_096
    assert len(limits._guesses) <= 4_096
    assert all(len(known) <= MAX_FAILED_LOGINS for known in limits._guesses.values())


# -- TLS ------------------------------------------------------------------------------------------


def file(path):
    return SecretRef(kind="file", name=str(path))


def tls_of(pair, ca=None):
    return AdminTls(
        cert=file(pair.cert), key=file(pair.key), client_ca=None if ca is None else file(ca.pem)
    )


def trusting(authority, pair=None):
    context = ssl.create_default_context(cafile=str(authority.pem))
    if pair is not None:
        context.load_cert_chain(pair.cert, pair.key)
    return context


async def ask(server, context, path="/api/v1/access", **options):
    host, port = server.tcp_address
    connector = aiohttp.TCPConnector(ssl=context, force_close=True)
    async with aiohttp.ClientSession(f"https://{host}:{port}", connector=connector) as session:
        return await Client(session).get(path, **options)


async def test_page_probes_and_metrics_are_served_over_tls(server, authority):
    await server.move_tcp(AdminSettings(listen="127.0.0.1:0", tls=tls_of(authority.issue("ship1"))))
    for path in ("/", "/livez", "/readyz", "/metrics", "/api/v1/status", "/page/main.js"):
        assert (await ask(server, trusting(authority), path)).status == 200
    # a name that no browser would take our certificate for needs no list
    answer = await ask(
        server, trusting(authority), "/api/v1/status", headers={"Host": "ship1.example"}
    )
    assert answer.status == 200


async def test_what_speaks_no_tls_is_cut_off_and_leaves_nothing(server, authority):
    await server.move_tcp(AdminSettings(listen="127.0.0.1:0", tls=tls_of(authority.issue("ship1"))))
    reader, writer = await asyncio.open_connection(*server.tcp_address)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b"HTTP" not in await reader.read()
    writer.close()
    assert (await ask(server, trusting(authority))).status == 200
    await until_async(lambda: not [one for one in server._tcp._open if one.transport])


async def test_connections_that_never_shake_hands_are_counted(server, authority, monkeypatch):
    monkeypatch.setattr("appliance.api.server.MAX_TCP_CONNECTIONS", 4)
    await server.move_tcp(AdminSettings(listen="127.0.0.1:0", tls=tls_of(authority.issue("ship1"))))
    held = [await asyncio.open_connection(*server.tcp_address) for _ in range(2)]
    await until_async(lambda: len(server._tcp._open) == 2)
    reader, writer = await asyncio.open_connection(*server.tcp_address)
    assert await reader.read() == b""
    for _, open_one in [*held, (reader, writer)]:
        open_one.close()


async def test_a_listener_that_ends_leaves_no_handshake_behind(server, authority):
    await server.move_tcp(AdminSettings(listen="127.0.0.1:0", tls=tls_of(authority.issue("ship1"))))
    reader, writer = await asyncio.open_connection(*server.tcp_address)
    await until_async(lambda: server._tcp._open)
    await server.close()
    assert await asyncio.wait_for(reader.read(), 60.0) == b""
    writer.close()


async def test_a_renewed_certificate_is_for_new_connections_and_ends_none(
    server, authority, tmp_path
):
    other = Authority(tmp_path / "other", "other")
    first, second = authority.issue("one"), other.issue("two")
    await server.move_tcp(AdminSettings(listen="127.0.0.1:0", tls=tls_of(first)))
    host, port = server.tcp_address
    connector = aiohttp.TCPConnector(ssl=trusting(authority))
    async with (
        aiohttp.ClientSession(f"https://{host}:{port}", connector=connector) as session,
        session.get("/api/v1/events") as stream,
    ):
        assert await stream.content.readline() == b": listening\n"
        first.cert.write_bytes(second.cert.read_bytes())
        with pytest.raises(DaemonError, match="unusable"):
            await server.renew_tls()  # the key is not there yet
        assert (await ask(server, trusting(authority))).status == 200
        first.key.write_bytes(second.key.read_bytes())
        await server.renew_tls()
        assert (await ask(server, trusting(other))).status == 200
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await ask(server, trusting(authority))
        assert not stream.content.at_eof()
        assert server.tcp_address == (host, port)


async def test_tls_comes_and_goes_on_the_same_address_and_ends_no_stream(server, authority):
    plain = AdminSettings(listen="127.0.0.1:0")
    await server.move_tcp(plain)
    host, port = server.tcp_address
    async with (
        aiohttp.ClientSession(f"http://{host}:{port}") as session,
        session.get("/api/v1/events") as stream,
    ):
        assert await stream.content.readline() == b": listening\n"
        await server.move_tcp(replace(plain, tls=tls_of(authority.issue("ship1"))))
        assert (await ask(server, trusting(authority))).status == 200
        assert not stream.content.at_eof()
    staged = await server.stage_tcp(plain)
    async with aiohttp.ClientSession(f"http://{host}:{port}") as session:
        assert (await Client(session).get("/livez")).status == 200
    await staged.abandon()
    assert (await ask(server, trusting(authority))).status == 200


async def test_tls_that_cannot_be_used_refuses_the_set_and_the_listener_goes_on(
    server, authority, clients
):
    good = AdminSettings(listen="127.0.0.1:0", tls=tls_of(authority.issue("ship1")))
    await server.move_tcp(good)
    one, two = authority.issue("a"), authority.issue("b")
    mismatched = AdminTls(cert=file(one.cert), key=file(two.key))
    for tls in (mismatched, AdminTls(cert=file("/nowhere"), key=file(one.key))):
        with pytest.raises(DaemonError):
            await server.move_tcp(replace(good, tls=tls))
    assert (await ask(server, trusting(authority))).status == 200


@pytest.mark.parametrize(
    ("cn", "san", "entry"),
    [
        ("anna", "DNS:x.example", {"cn": "anna"}),
        ("x", "email:anna@example.org", {"san": "anna@example.org"}),
        ("x", "DNS:laptop.example", {"san": "laptop.example"}),
        ("x", "URI:spiffe://example/anna", {"san": "spiffe://example/anna"}),
    ],
)
async def test_a_certificate_is_somebody_by_its_name(server, authority, clients, cn, san, entry):
    settings = AdminSettings(
        listen="127.0.0.1:0",
        reading=ReadingBy.KNOWN,
        tls=tls_of(authority.issue("ship1"), clients),
        certificates=(AdminCertificate(name="Anna", scopes=frozenset({Scope.READ}), **entry),),
    )
    await server.move_tcp(settings)
    anna, other = clients.issue(cn, san), clients.issue("else", "DNS:else.example")
    answer = await ask(server, trusting(authority, anna), "/api/v1/access")
    assert (answer.json()["name"], answer.json()["by"]) == ("Anna", "certificate")
    assert (await ask(server, trusting(authority, anna), "/api/v1/status")).status == 200
    answer = await ask(server, trusting(authority, other), "/api/v1/status")
    assert answer.status == 401
    assert "the certificate of else, else.example is not named" in answer.text
    answer = await ask(server, trusting(authority), "/api/v1/status")
    assert answer.status == 401


async def test_certificates_of_another_authority_or_past_their_end_are_not_taken(
    server, authority, clients
):
    settings = AdminSettings(
        listen="127.0.0.1:0",
        tls=tls_of(authority.issue("ship1"), clients),
        certificates=(AdminCertificate(name="Anna", cn="anna", scopes=frozenset({Scope.READ})),),
    )
    await server.move_tcp(settings)
    for pair in (authority.issue("anna"), clients.issue("anna", days=-1)):
        with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
            await ask(server, trusting(authority, pair))


async def test_a_certificate_that_ends_while_its_connection_is_open_is_nobodys(
    server, authority, clients
):
    settings = AdminSettings(
        listen="127.0.0.1:0",
        reading=ReadingBy.KNOWN,
        tls=tls_of(authority.issue("ship1"), clients),
        certificates=(AdminCertificate(name="Anna", cn="anna", scopes=frozenset({Scope.READ})),),
    )
    await server.move_tcp(settings)
    context = trusting(authority, clients.issue("anna", days=1))
    assert (await ask(server, context, "/api/v1/status")).status == 200
    wall = server._gate._wall
    server._gate._wall = lambda: wall() + 2 * 86_400.0
    answer = await ask(server, context, "/api/v1/status")
    assert (answer.status, answer.json()["error"]) == (401, "the certificate has expired")


async def test_a_certificate_that_is_no_longer_named_or_signed_is_nobodys(
    server, authority, clients, tmp_path, soon
):
    settings = AdminSettings(
        listen="127.0.0.1:0",
        reading=ReadingBy.KNOWN,
        tls=tls_of(authority.issue("ship1"), clients),
        certificates=(AdminCertificate(name="Anna", cn="anna", scopes=frozenset({Scope.READ})),),
    )
    context = trusting(authority, clients.issue("anna"))
    other = Authority(tmp_path / "other", "other")
    changes = ({"certificates": ()}, {"tls": tls_of(authority.issue("ship1"), other)})
    for change in changes:
        await server.move_tcp(settings)
        host, port = server.tcp_address
        connector = aiohttp.TCPConnector(ssl=context)
        async with aiohttp.ClientSession(f"https://{host}:{port}", connector=connector) as session:
            reading = asyncio.create_task(read_all(session, "GET", "/api/v1/events"))
            await until_async(lambda: server._following._streams._held)
            await server.move_tcp(replace(settings, **change))
            assert "withdrawn" in await asyncio.wait_for(reading, 60.0)


def test_each_name_has_a_share_of_its_own_and_all_strangers_have_one():
    one, two = Caller(kind="token", name="one"), Caller(kind="token", name="two")
    shares = Shares()
    with ExitStack() as held:
        for address in ("10.0.0.1", "10.0.0.2"):
            for client in (find_client_of(one, address), find_client_of(Caller(), address)):
                for _ in range(2):
                    held.enter_context(shares.held(client))
        assert not shares.has_room(find_client_of(one, "10.0.0.3"), 4)
        assert not shares.has_room(find_client_of(Caller(), "10.0.0.3"), 4)
        assert shares.has_room(find_client_of(two, "10.0.0.1"), 4)
