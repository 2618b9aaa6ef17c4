"""REQHttpGet against a real server on loopback, which the patterns name, and against names that lead elsewhere."""

from __future__ import annotations

import asyncio
import gzip
import socket
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from appliance.errors import ArgumentsInvalid, FetchFailed, UrlForbidden
from appliance.methods.http import client as _http


@dataclass
class Site:
    """A server, what it was asked, and the method on a bench."""

    bench: object
    server: TestServer | None = None
    asked: list[web.Request] = field(default_factory=list)
    forever: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def port(self):
        return self.server.port

    def url(self, path="/", host="127.0.0.1"):
        return f"http://{host}:{self.port}{path}"

    def allow(self, *patterns):
        self.bench.spec_fields["allow_urls"] = patterns

    async def get(self, url):
        return await self.bench.handle("REQHttpGet", method_args=(url,))

    async def answer(self, request):
        self.asked.append(request)
        match request.path.split("/")[1:]:
            case ["status", status]:
                return web.Response(status=int(status), text="sorry,\n\x1b[2J what?")
            case ["to", *_]:
                return web.Response(status=302, headers={"Location": request.query["url"]})
            case ["hops", count]:
                where = f"/hops/{int(count) - 1}" if int(count) else "/end"
                return web.Response(status=307, headers={"Location": where})
            case ["zip"]:
                packed = gzip.compress(b"packed")
                return web.Response(body=packed, headers={"Content-Encoding": "gzip"})
            case ["flood"]:
                response = web.StreamResponse()
                await response.prepare(request)
                while True:
                    await response.write(b"x" * 65_536)
            case ["drip"]:
                response = web.StreamResponse()
                await response.prepare(request)
                await response.write(b"first")
                await self.forever.wait()
            case ["never"]:
                await self.forever.wait()
            case ["drop"]:
                request.transport.abort()
        return web.Response(body=b"body \xff of " + request.path_qs.encode())


@pytest.fixture
async def site(bench):
    bench.timeout_s = 10.0
    site = Site(bench)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", site.answer)
    site.server = TestServer(app, host="127.0.0.1")
    await site.server.start_server(shutdown_timeout=0.1)
    site.allow(site.url("/**"))
    yield site
    site.forever.set()
    await site.server.close()


async def test_the_body_is_the_answer_as_the_bytes_that_came(site):
    result = await site.get(site.url("/a/b?c=d%20e"))
    assert result.output == b"body \xff of /a/b?c=d%20e"
    assert (result.exit_status, result.report, result.is_truncated) == (0, None, False)
    [request] = site.asked
    assert request.method == "GET"
    assert request.headers["User-Agent"] == "appliance"
    assert request.headers["Accept-Encoding"] == "identity"
    assert request.headers["Host"] == f"127.0.0.1:{site.port}"


async def test_what_is_packed_against_our_word_is_not_unpacked(site):
    assert gzip.decompress((await site.get(site.url("/zip"))).output) == b"packed"


async def test_a_body_without_end_is_cut_and_says_so(site):
    site.bench.spec_fields["max_output_bytes"] = 1_000
    result = await site.get(site.url("/flood"))
    assert result.output == b"x" * 1_000
    assert result.is_truncated


@pytest.mark.parametrize("path", ["/never", "/drip"])
async def test_the_time_bounds_the_whole(site, path):
    site.bench.timeout_s = 0.2
    with pytest.raises(FetchFailed, match=r"no answer within 0\.2 s"):
        await site.get(site.url(path))


@pytest.mark.parametrize("status", [400, 404, 500, 304])
async def test_another_status_is_one_error_with_the_beginning_of_what_was_said(site, status):
    with pytest.raises(FetchFailed) as caught:
        await site.get(site.url(f"/status/{status}?token=secret"))
    text = str(caught.value)
    assert text.startswith(f"GET {site.url(f'/status/{status}')}: answered with status {status} ")
    if status != 304:
        assert text.endswith("sorry,\\n\\x1b[2J what?")
    assert "secret" not in text
    assert text.isprintable()


async def test_a_server_that_hangs_up_or_is_not_there_is_an_error(site):
    with pytest.raises(FetchFailed, match="closed the connection"):
        await site.get(site.url("/drop"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        site.allow(f"http://127.0.0.1:{port}/")
        with pytest.raises(FetchFailed, match="cannot connect"):
            await site.get(f"http://127.0.0.1:{port}/")


async def test_nothing_is_fetched_unless_allowed(site):
    for patterns in [(), (site.url("/a"),), (f"https://127.0.0.1:{site.port}/**",)]:
        site.allow(*patterns)
        with pytest.raises(UrlForbidden, match="not in allow_urls"):
            await site.get(site.url("/b"))
    assert site.asked == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1", "0"])
async def test_any_allows_no_machine_of_ones_own_however_it_is_written(site, host):
    site.bench.spec_fields["allow_urls"] = None
    with pytest.raises(FetchFailed, match=r"not on the open internet|not a canonical"):
        await site.get(site.url("/", host))
    assert site.asked == []


@pytest.fixture
def names(monkeypatch):
    """What names lead to: a list of addresses for each time that one is asked for."""
    book = {}

    class Resolver(aiohttp.ThreadedResolver):
        async def resolve(self, host, port=0, family=socket.AF_INET):
            addresses = book[host].pop(0) if len(book[host]) > 1 else book[host][0]
            return [
                {
                    **{"hostname": host, "host": address, "port": port, "proto": 0, "flags": 0},
                    "family": socket.AF_INET6 if ":" in address else socket.AF_INET,
                }
                for address in addresses
            ]

    monkeypatch.setattr(_http.aiohttp, "ThreadedResolver", Resolver)
    return book


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["169.254.169.254"], ["::1", "127.0.0.1"], ["::ffff:127.0.0.1"], ["10.0.0.1"]],
)
async def test_a_public_name_that_leads_home_is_refused(site, names, addresses):
    site.bench.spec_fields["allow_urls"] = None
    names["evil.example"] = [addresses]
    with pytest.raises(UrlForbidden, match="is not on the open internet"):
        await site.get(site.url("/", "evil.example"))
    assert site.asked == []


async def test_a_name_that_changes_its_mind_is_asked_once_and_the_judged_address_is_used(
    site, names, monkeypatch
):
    site.bench.spec_fields["allow_urls"] = None
    names["evil.example"] = [["93.184.216.34"], ["127.0.0.1"]]
    tried = []
    monkeypatch.setattr(
        _http, "_make_any", lambda info: tried.append(info[4][0]) or _fail("no network here")
    )
    with pytest.raises(FetchFailed, match="no network here"):
        await site.get(site.url("/", "evil.example"))
    assert tried == ["93.184.216.34"]
    assert len(names["evil.example"]) == 1


def _fail(text):
    raise OSError(text)


async def test_a_host_that_the_pattern_names_may_be_anywhere(site, names):
    names["intranet.example"] = [["127.0.0.1"]]
    site.allow(site.url("/**", "intranet.example"))
    assert (await site.get(site.url("/", "intranet.example"))).exit_status == 0
    assert site.asked[0].headers["Host"] == f"intranet.example:{site.port}"


async def test_a_name_that_leads_nowhere_is_an_error(site, monkeypatch):
    site.allow("http://nowhere.invalid/")

    class Nowhere(aiohttp.ThreadedResolver):
        async def resolve(self, host, port=0, family=socket.AF_INET):
            raise OSError(None, "Name or service not known")

    monkeypatch.setattr(_http.aiohttp, "ThreadedResolver", Nowhere)
    with pytest.raises(FetchFailed, match="cannot be resolved: Name or service not known"):
        await site.get("http://nowhere.invalid/")


async def test_redirects_are_followed_within_the_policy(site):
    result = await site.get(site.url("/to?url=/end%3Fa=b"))
    assert result.output.endswith(b"/end?a=b")
    site.allow(site.url("/to/**"))
    with pytest.raises(UrlForbidden, match=r"redirected to http://127.*/end, not in allow_urls"):
        await site.get(site.url("/to/?url=/end"))


async def test_redirects_do_not_lead_to_what_could_not_be_asked_for(site):
    site.allow(site.url("/to/**"), "http://other.example/")
    for place in ("http://127.0.0.1:1/", "file:///etc/passwd", "//evil.example/", "http://u@h/"):
        with pytest.raises(FetchFailed, match="redirected to"):
            await site.get(site.url(f"/to/?url={place}"))


async def test_five_redirects_are_followed_and_no_more(site):
    assert (await site.get(site.url("/hops/4"))).output.endswith(b"/end")
    site.asked.clear()
    with pytest.raises(FetchFailed, match="more than 5 redirects"):
        await site.get(site.url("/hops/5"))
    assert len(site.asked) == 6


async def test_no_proxy_of_the_environment_sees_it(site, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert (await site.get(site.url("/"))).exit_status == 0


@pytest.mark.parametrize("arguments", [(), ("",), ("http://a/", "http://b/")])
async def test_exactly_one_url_is_asked_for(site, arguments):
    with pytest.raises(ArgumentsInvalid):
        await site.bench.handle("REQHttpGet", method_args=arguments)


@pytest.mark.parametrize("url", ["ftp://h/", "http://u:p@h/", "x\x1b[2J", "http://h/../a"])
async def test_what_is_no_url_is_refused_in_harmless_words(site, url):
    site.bench.spec_fields["allow_urls"] = None
    with pytest.raises(FetchFailed) as caught:
        await site.get(url)
    assert str(caught.value).isprintable()
