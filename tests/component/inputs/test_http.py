"""The HTTP input: what is taken, what each refusal is called, and what a browser cannot do."""

import asyncio
import json
import re

import aiohttp
import pytest

from appliance.api.limits import FAILED_LOGIN_S, MAX_FAILED_LOGINS
from appliance.core.specs import ListenInput, SecretRef
from appliance.errors import StoreFull
from appliance.inputs import http
from tests.support.waiting import until_async

PING = b'[{"toNode": "ship1", "method": "REQPing"}]'
JSON = {"Content-Type": "application/json"}
YAML = {"Content-Type": "application/yaml"}


@pytest.fixture
async def url(bench):
    await bench.set(http=ListenInput(listen="127.0.0.1:0"))
    host, port = bench.address("http")
    return f"http://{host}:{port}/"


@pytest.fixture
async def session():
    async with aiohttp.ClientSession() as session:
        yield session


async def post(session, url, data=PING, headers=JSON, verb="POST"):
    async with session.request(verb, url, data=data, headers=headers) as answer:
        body = await answer.json() if verb != "HEAD" else None
        return answer.status, body, answer.headers


async def test_a_list_is_taken_at_any_path(bench, url, session):
    for path in ("", "x", "a/b?c=d"):
        status, body, headers = await post(session, url + path)
        assert status == 200
        assert body["accepted"][0]["to"] == "ship1"
        assert headers["Cache-Control"] == "no-store"
    assert len(bench.submitted) == 3


@pytest.mark.parametrize(
    "content_type", ["application/yaml", "text/yaml", "application/x-yaml; charset=utf-8"]
)
async def test_yaml_is_taken_where_it_is_said(url, session, content_type):
    text = b"- {toNode: ship1, method: REQPing}"
    assert (await post(session, url, text, {"Content-Type": content_type}))[0] == 200
    assert (await post(session, url, text, JSON))[0] == 400


async def test_partly_taken_is_207_and_with_atomic_400(bench, url, session):
    text = PING[:-1] + b', {"toNode": "nowhere", "method": "m"}]'
    status, body, _ = await post(session, url, text)
    assert (status, len(body["accepted"]), body["problems"][0]["index"]) == (207, 1, 1)
    for query in ("?atomic", "?atomic=1", "?x&atomic=true"):
        status, body, _ = await post(session, url + query, text)
        assert (status, body["accepted"]) == (400, [])
    await bench.set(atomic=True)
    assert (await post(session, url, text))[0] == 400
    assert (await post(session, url + "?atomic=false", text))[0] == 207


async def test_a_bad_text_is_400_and_says_where(url, session):
    status, body, _ = await post(session, url, b'[{"toNode": "a",\n "method" "m"}]')
    assert (status, body["problems"][0]["line"]) == (400, 2)


async def test_too_much_is_413_by_length_or_by_count_and_the_connection_lives(bench, url, session):
    await bench.set(max_bytes=2_000, max_messages=3)

    async def pieces():
        for _ in range(100):
            yield b" " * 1_000

    assert (await post(session, url, b" " * 10_000))[0] == 413
    assert (await post(session, url, pieces()))[0] == 413
    assert (await post(session, url, b"[" + b",".join([PING[1:-1]] * 4) + b"]"))[0] == 413
    assert (await post(session, url))[0] == 200


async def test_a_full_store_is_503_with_a_time_to_come_again(bench, url, session):
    bench.control.raises = StoreFull("no room")
    status, body, headers = await post(session, url)
    assert (status, body["accepted"], headers["Retry-After"]) == (503, [], "1")


async def test_a_bug_below_is_500_and_not_the_end(bench, url, session, caplog):
    bench.control.raises = RuntimeError("a bug")
    assert (await post(session, url))[0] == 500
    bench.control.raises = None
    assert (await post(session, url))[0] == 200


@pytest.mark.parametrize("verb", ["GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"])
async def test_other_verbs_are_405(bench, url, session, verb):
    status, _, headers = await post(session, url, None, {}, verb)
    assert (status, headers["Allow"]) == (405, "POST")
    assert bench.submitted == []


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        (JSON | {"Origin": "http://evil.example"}, 403),
        (JSON | {"Origin": "null"}, 403),
        (JSON | {"Host": "evil.example"}, 421),
        (JSON | {"Host": "10.0.0.1"}, 421),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "multipart/form-data; boundary=x"}, 415),
        ({}, 415),
        (JSON | {"Content-Encoding": "gzip"}, 415),
    ],
)
async def test_what_a_page_in_a_browser_could_send_is_refused(bench, url, session, headers, wanted):
    async with session.post(
        url, data=PING, headers=headers, skip_auto_headers=["Content-Type"]
    ) as answer:
        assert answer.status == wanted
        assert (await answer.json())["problems"]
    assert bench.submitted == []


@pytest.fixture
async def guarded(bench, short_dir):
    (short_dir / "token").write_text("open sesame")
    ref = SecretRef(kind="file", name=str(short_dir / "token"))
    await bench.set(http=ListenInput(listen="127.0.0.1:0", token=ref))
    return "http://{}:{}/".format(*bench.address("http"))


async def test_a_token_is_asked_for_where_the_config_has_one(bench, session, short_dir, guarded):
    url = guarded
    for header in (None, "Bearer", "Bearer wrong", "Basic open sesame"):
        headers = JSON | ({"Authorization": header} if header else {})
        status, _, answered = await post(session, url, headers=headers)
        assert (status, answered["WWW-Authenticate"][:6]) == (401, "Bearer")
    good = JSON | {"Authorization": "Bearer open sesame"}
    assert (await post(session, url, headers=good))[0] == 200
    by_name = {"Host": "central.fleet.example"}  # no page of a browser knows the token
    assert (await post(session, url, headers=good | by_name))[0] == 200
    assert (await post(session, url, headers=JSON | by_name))[0] == 421
    (short_dir / "token").unlink()
    assert (await post(session, url, headers=good))[0] == 503
    await bench.set(http=ListenInput(listen="127.0.0.1:0"))
    assert (await post(session, url))[0] == 200


async def test_the_token_is_not_guessed(bench, session, guarded):
    url = guarded

    async def bring(token, **headers):
        return await post(
            session, url, headers=JSON | {"Authorization": f"Bearer {token}"} | headers
        )

    for number in range(MAX_FAILED_LOGINS):
        other = {"Host": "central.fleet.example"} if number % 2 else {}
        assert (await bring(number, **other))[0] == (421 if other else 401)
    status, _, answered = await bring("one more")
    assert status == 429
    assert 1 <= int(answered["Retry-After"]) <= FAILED_LOGIN_S
    # a right one is told no earlier
    assert (await bring("open sesame"))[0] == 429
    assert bench.submitted == []


async def test_who_guesses_does_not_shut_out_whom_we_know_until_the_token_is_another(
    session, guarded, short_dir
):
    async def bring(token):
        headers = JSON | {"Authorization": f"Bearer {token}"}
        return (await post(session, guarded, headers=headers))[0]

    assert await bring("open sesame") == 200
    for number in range(2 * MAX_FAILED_LOGINS):
        await bring(number)
    assert await bring("open sesame") == 200
    (short_dir / "token").write_text("another")
    assert await bring("another") == 429


async def raw(bench, data):
    reader, writer = await asyncio.open_connection(*bench.address("http"))
    writer.write(data)
    await writer.drain()
    return reader, writer


HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"


async def test_a_body_that_does_not_come_is_408_and_holds_nobody_up(bench, url, session):
    await bench.set(idle_timeout_s=0.1)
    reader, writer = await raw(bench, HEAD + PING)
    assert (await post(session, url))[0] == 200
    assert b" 408 " in await reader.readline()
    writer.close()


async def test_requests_beyond_the_bound_are_429(bench, url, session):
    await bench.set(max_connections=1)
    _, writer = await raw(bench, HEAD)
    await until_async(lambda: bench.inputs.status()["http"].connections == 1)
    status, _, headers = await post(session, url)
    assert (status, headers["Retry-After"]) == (429, "1")
    writer.transport.abort()
    await until_async(lambda: bench.inputs.status()["http"].connections == 0)
    assert (await post(session, url))[0] == 200


async def test_connections_without_requests_are_bounded(bench, url, session, monkeypatch):
    monkeypatch.setattr(http, "_SPARE_CONNECTIONS", 1)
    await bench.set(max_connections=2)
    opened = [await raw(bench, b"POST / HTTP/1.1\r\n") for _ in range(3)]
    reader, writer = await raw(bench, b"")
    assert await reader.read() == b""
    for _, other in (*opened, (reader, writer)):
        other.close()
    await asyncio.gather(*(one.wait_closed() for _, one in opened), writer.wait_closed())


async def test_what_is_no_http_is_answered_and_does_no_harm(bench, url, session):
    reader, writer = await raw(bench, PING + b"\r\n\r\n")
    assert re.match(rb"HTTP/1.[01] 400 ", await reader.readline())
    writer.close()
    assert (await post(session, url))[0] == 200


async def test_the_answer_is_json_whatever_the_text_holds(bench, url, session):
    text = json.dumps([{"toNode": "nowhere", "method": "m\udcff", "\x1b[31m\n": 1}])
    async with session.post(url, data=text, headers=JSON) as answer:
        assert answer.status == 400
        assert json.loads(await answer.read())["problems"]
