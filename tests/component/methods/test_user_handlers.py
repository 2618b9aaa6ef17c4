"""Methods of the config do what they say: a program, a request, a file, and nothing before the arguments are checked."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiohttp import web

from appliance.core.message import Message
from appliance.core.method import OnCrash
from appliance.core.names import Category, MethodName
from appliance.core.specs import SubscriberSpec
from appliance.errors import ArgumentsInvalid, HandlerError, PathForbidden
from appliance.methods.declared.methods import make_user_method
from tests.support.config_files import desired_of

ANY = "args: {type: array}"


def spec_of(directory: Path, definition: str) -> SubscriberSpec:
    """The spec of a subscriber of ship1 whose method is defined so."""
    desired = desired_of(
        directory,
        "version: 1\nbroker: {embedded: true}\nnodes: {ship1: {subscribe: {Mine: }}}\n"
        f"methods: {{Mine: {{{definition}}}}}\n",
    )
    (spec,) = desired.workers.values()
    assert isinstance(spec, SubscriberSpec)
    return spec


@pytest.fixture
def call(bench, tmp_path):
    """Have a method that is defined so handle a message of central's."""

    async def call(definition, *args, **fields):
        handler = make_user_method(spec_of(tmp_path, definition)).make()
        fields = {"from_node": "central", "to_node": "ship1", "id": 7, **fields}
        message = Message(method="Mine", method_args=args or None, **fields)
        return await handler.handle(message, bench.context("Mine"))

    return call


# -- programs -----------------------------------------------------------------------------------------


async def test_program_gets_its_arguments_as_they_are_and_its_output_is_the_reply(call):
    result = await call(
        f'exec: [printf, "%s|", "{{args.0}}", "a {{args.1}} b", "{{from}}", "{{to}}", "{{id}}"], {ANY}',
        "$(id); *", "x y",
    )  # fmt: skip
    assert (result.output, result.exit_status) == (b"$(id); *|a x y b|central|ship1|7|", 0)
    assert result.report is None


async def test_rest_of_the_arguments_stands_where_the_config_puts_it(call):
    result = await call(
        f'exec: [printf, "%s|", "{{args.*}}", end, "{{args.1}}"], {ANY}', "a", "b", "c d", ""
    )
    assert result.output == b"c d||end|b|"


async def test_element_of_an_argument_that_is_not_given_is_left_out(call):
    definition = f'exec: [printf, "%s|", "--lines={{args.0}}", x, "{{args.0}}"], {ANY}'
    assert (await call(definition)).output == b"x|"
    assert (await call(definition, "5")).output == b"--lines=5|x|5|"


async def test_value_that_would_be_an_option_is_refused_unless_the_config_allows_it(call):
    definition = f'exec: [printf, "%s|", "{{args.0}}", "{{args.*}}"], {ANY}'
    for args in (("--help",), ("x", "-rf")):
        with pytest.raises(ArgumentsInvalid, match="begins with a dash"):
            await call(definition, *args)
    allowed = f'exec: [printf, "%s|", --, "{{args.0}}"], allow_options: true, {ANY}'
    assert (await call(allowed, "-x")).output == b"--|-x|"


async def test_sender_whose_name_begins_with_a_dash_is_no_option_either(call):
    with pytest.raises(ArgumentsInvalid, match="begins with a dash"):
        await call('exec: [printf, "%s|", "{from}"]', from_node="-rf")


async def test_data_goes_to_standard_input_whole(call):
    data = "x" * 300_000
    result = await call('exec: [wc, -c], stdin: "<{data}>"', data=(data, data))
    assert int(result.output) == 600_002
    assert (await call('exec: [cat], stdin: "{data}"', data=("a\0\udcff",))).output == b"a\0\xff"
    assert (await call("exec: [cat]", data=("ignored",))).output == b""


async def test_program_that_reads_nothing_is_no_trouble(call):
    result = await call('exec: ["true"], stdin: "{data}"', data=("x" * 1_000_000,))
    assert (result.exit_status, result.report) == (0, None)


async def test_environment_is_the_configs_and_shows_no_secret(call, monkeypatch):
    monkeypatch.setenv("NKEY_SEED", "SUA")
    result = await call(
        "exec: [sh, -c, 'echo \"$LANG $WHO [$OPT] [$NKEY_SEED] $NODE\"'], "
        f'environment: {{LANG: C, WHO: "{{from}}", OPT: "{{args.0}}", NODE: "${{node}}"}}, {ANY}'
    )
    assert result.output == b"C central [] [] ship1\n"


async def test_exit_status_and_error_output_are_reported(call):
    result = await call("exec: [sh, -c, 'echo out; echo bad >&2; exit 3']")
    assert (result.output, result.exit_status, result.stderr) == (b"out\n", 3, b"bad\n")
    assert "exit status 3" in result.report
    assert result.report.endswith("stderr: bad")
    assert "could not be started" in (await call("exec: [no-such-program]")).report


async def test_time_and_output_are_bounded(bench, call):
    bench.timeout_s = 0.3
    assert (await call("exec: [sleep, '30']")).exit_status == 124
    bench.timeout_s = 10.0
    bench.spec_fields["max_output_bytes"] = 4
    result = await call("exec: [echo, '123456']")
    assert (result.output, result.is_truncated) == (b"1234", True)


async def test_nothing_runs_before_the_arguments_are_checked(bench, call):
    marker = bench.root / "ran"
    definition = (
        f'exec: [touch, {marker}], args: {{prefixItems: [{{title: service, enum: [nginx]}}], '
        "minItems: 1, items: false}"
    )  # fmt: skip
    for args, words in (((), "service is missing"), (("x",), 'service: "x" is not one of nginx')):
        with pytest.raises(ArgumentsInvalid, match=words):
            await call(definition, *args)
    assert not marker.exists()
    await call(definition, "nginx")
    assert marker.exists()


async def test_arguments_that_no_program_can_be_given_are_refused(call):
    definition = f'exec: [echo, "{{args.0}}", "{{from}}"], {ANY}'
    for text in ("a\0b", "\udcff", "\ud800"):
        with pytest.raises(ArgumentsInvalid):
            await call(definition, text)


# -- files --------------------------------------------------------------------------------------------


async def test_file_is_appended_to_below_the_data_directory(bench, call):
    definition = 'kind: event, file: {directory: "notes/${node}", name: "{from}.log", content: "{id} {data}\\n"}'
    assert (await call(definition, data=("a", "b"))).output is None
    await call(definition, data=("\udcff",), id=8)
    assert bench.read("notes/ship1/central.log") == b"7 ab\n8 \xff\n"
    assert [position.length for position in bench.positions] == [5, 4]


async def test_file_is_replaced(bench, call):
    definition = f'file: {{name: "state-{{args.0}}", mode: write}}, {ANY}'
    for data in ("long content", "short"):
        await call(definition, "a", data=(data,))
    assert bench.read("state-a") == b"short"


@pytest.mark.parametrize("value", ["../x", "a/b", "..", "/etc/passwd", "a\0b"])
async def test_value_names_no_other_directory(bench, call, value):
    with pytest.raises((PathForbidden, ArgumentsInvalid)):
        await call(f'file: {{directory: "d/{{args.0}}", name: f}}, {ANY}', value)
    with pytest.raises((PathForbidden, ArgumentsInvalid)):
        await call(f'file: {{name: "{{args.0}}"}}, {ANY}', value)
    assert bench.list_files() == []


async def test_file_that_needs_an_argument_is_not_written_without(bench, call):
    with pytest.raises(ArgumentsInvalid, match="not given"):
        await call(f'file: {{name: "{{args.0}}"}}, {ANY}')
    assert bench.list_files() == []


# -- requests -----------------------------------------------------------------------------------------


class Site:
    """A web server that notes what it is asked, and answers as the path says."""

    def __init__(self):
        self.asked = []
        self.port = 0
        self.is_over = asyncio.Event()

    async def answer(self, request):
        body = await request.read()
        self.asked.append((request.method, request.raw_path, dict(request.headers), body))
        match request.path:
            case "/slow":
                await self.is_over.wait()
            case "/big":
                return web.Response(body=b"x" * 100_000)
            case "/teapot":
                return web.Response(status=418, text="short and stout")
            case "/moved":
                raise web.HTTPFound("/there")
            case "/go":
                to = request.query.get("to", request.raw_path)
                return web.Response(status=int(request.query["status"]), headers={"Location": to})
        return web.Response(text="done")


@pytest.fixture
async def site():
    site = Site()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", site.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    listener = web.TCPSite(runner, "127.0.0.1", 0)
    await listener.start()
    site.port = runner.addresses[0][1]
    yield site
    site.is_over.set()
    await runner.cleanup()


async def test_request_carries_data_and_values_and_its_answer_is_the_reply(call, site):
    result = await call(
        f'http: {{method: POST, url: "http://127.0.0.1:{site.port}/h/{{args.0}}?q={{args.1}}", '
        f'headers: {{X-Node: "${{node}}", X-From: "{{from}}", X-Opt: "{{args.2}}"}}, body: "<{{data}}>"}}, {ANY}',
        "a/b ü", "x&y=z#f", data=("one", "\udcff"),
    )  # fmt: skip
    assert (result.output, result.exit_status, result.report) == (b"done", 0, None)
    ((method, path, headers, body),) = site.asked
    assert (method, path) == ("POST", "/h/a%2Fb%20%C3%BC?q=x%26y%3Dz%23f")
    assert (headers["X-Node"], headers["X-From"], body) == ("ship1", "central", b"<one\xff>")
    assert "X-Opt" not in headers


@pytest.mark.parametrize("value", ["..", "."])
async def test_value_does_not_make_a_path_climb(call, site, value):
    with pytest.raises(ArgumentsInvalid, match="climb"):
        await call(f'http: {{url: "http://127.0.0.1:{site.port}/a/{{args.0}}/b"}}, {ANY}', value)
    assert site.asked == []


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\0b", "a\x7f"])
async def test_value_does_not_end_a_header(call, site, value):
    with pytest.raises(ArgumentsInvalid):
        await call(
            f'http: {{url: "http://127.0.0.1:{site.port}/", headers: {{X-A: "{{args.0}}"}}}}, {ANY}',
            value,
        )
    assert site.asked == []


async def test_status_that_is_no_success_is_a_failure_with_a_report(call, site):
    url = f"http://127.0.0.1:{site.port}/teapot"
    result = await call(f'http: {{url: "{url}"}}')
    assert (result.output, result.exit_status) == (b"short and stout", 1)
    assert "was answered with status 418" in result.report
    allowed = await call(f'http: {{url: "{url}", allow_status: [418]}}')
    assert (allowed.exit_status, allowed.report) == (0, None)


async def test_redirect_is_followed_only_when_the_config_says_so(call, site):
    url = f"http://127.0.0.1:{site.port}/moved"
    assert "status 302" in (await call(f'http: {{url: "{url}"}}')).report
    assert len(site.asked) == 1
    result = await call(f'http: {{url: "{url}", follow_redirects: true}}')
    assert result.output == b"done"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_to_another_origin_takes_no_header_of_the_config_along(
    call, site, tmp_path, status
):
    (tmp_path / "key.txt").write_text("canary")
    headers = (
        "{X-Api-Key: {file: key.txt}, Authorization: {file: key.txt}, X-Note: canary, Accept: a/b}"
    )
    for host, is_told in (("127.0.0.1", True), ("localhost", False)):
        site.asked.clear()
        url = f"http://127.0.0.1:{site.port}/go?status={status}&to=http://{host}:{site.port}/x"
        await call(f'http: {{url: "{url}", follow_redirects: true, headers: {headers}}}')
        _, (_, _, told, _) = site.asked
        assert ("canary" in str(dict(told))) is is_told
        assert told["Accept"] == "a/b"


async def test_a_redirect_to_another_origin_takes_no_body_along(call, site):
    url = f"http://127.0.0.1:{site.port}/go?status=307&to=http://localhost:{site.port}/x"
    definition = f'http: {{method: POST, url: "{url}", follow_redirects: true, body: canary}}'
    result = await call(definition)
    assert "which is given no body" in result.report
    assert len(site.asked) == 1
    site.asked.clear()
    await call(definition.replace("307", "302"))
    assert [(method, body) for method, _, _, body in site.asked] == [
        ("POST", b"canary"),
        ("GET", b""),
    ]


async def test_a_redirect_leads_to_http_alone_and_five_are_followed(call, site):
    for to, reason in (
        ("ftp://127.0.0.1/x", "no address of HTTP"),
        ("/go?status=302", "more than 5"),
    ):
        url = f"http://127.0.0.1:{site.port}/go?status=302&to={to}"
        assert reason in (await call(f'http: {{url: "{url}", follow_redirects: true}}')).report


async def test_answer_is_bounded_in_size_and_time(bench, call, site):
    bench.spec_fields["max_output_bytes"] = 5
    result = await call(f'http: {{url: "http://127.0.0.1:{site.port}/big"}}')
    assert (result.output, result.is_truncated) == (b"xxxxx", True)
    bench.timeout_s = 0.2
    result = await call(f'http: {{url: "http://127.0.0.1:{site.port}/slow"}}')
    assert (result.output, result.exit_status) == (b"", 124)
    assert "no answer within 0.2 s" in result.report


async def test_host_that_does_not_answer_is_reported_without_what_a_value_brought(
    call, unused_tcp_port
):
    result = await call(
        f'http: {{url: "http://127.0.0.1:{unused_tcp_port}/{{args.0}}"}}, {ANY}', "s3cr3t"
    )
    assert (result.output, result.exit_status) == (b"", 1)
    assert f"GET http://127.0.0.1:{unused_tcp_port} for central, message 7, failed" in result.report
    assert "s3cr3t" not in result.report


async def test_secret_of_a_header_is_read_for_each_request(call, site, tmp_path):
    secret = tmp_path / "hook.txt"
    definition = f'http: {{url: "http://127.0.0.1:{site.port}/", headers: {{Authorization: {{file: hook.txt}}}}}}'
    with pytest.raises(HandlerError, match="cannot read the header Authorization from file"):
        await call(definition)
    for word in ("Bearer a", "Bearer b"):
        secret.write_text(f"{word}\n")
        await call(definition)
    assert [headers["Authorization"] for _, _, headers, _ in site.asked] == ["Bearer a", "Bearer b"]


# -- facts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("definition", "facts"),
    [
        ("exec: [date]", (Category.COMMAND, True, OnCrash.INTERRUPT, False, False)),
        ("exec: [date], on_crash: rerun", (Category.COMMAND, True, OnCrash.RERUN, False, False)),
        ("kind: event, exec: [date]", (Category.EVENT, True, OnCrash.INTERRUPT, False, False)),
        ("kind: event, http: {url: 'http://h/'}", (Category.EVENT, True, OnCrash.INTERRUPT, False, False)),
        ("file: {name: x}", (Category.COMMAND, False, OnCrash.RERUN, True, False)),
        ("kind: event, file: {name: x, mode: write}", (Category.EVENT, False, OnCrash.RERUN, False, True)),
    ],
)  # fmt: skip
def test_facts_follow_from_the_definition(tmp_path, definition, facts):
    spec = spec_of(tmp_path, definition)
    info = make_user_method(spec).info
    assert (info.category, info.replies, info.on_crash, info.journals, info.may_reply) == facts
    assert info.name == MethodName("Mine")
    assert spec.subject == f"ship1.Mine.{info.category}ACK"
    assert info.summary


def test_swap_makes_the_method_of_the_new_definition(tmp_path):
    old = make_user_method(spec_of(tmp_path, "exec: [date]"))
    assert old.renew is not None
    new = old.renew(spec_of(tmp_path, "exec: [date], on_crash: rerun"))
    assert (old.info.on_crash, new.info.on_crash) == (OnCrash.INTERRUPT, OnCrash.RERUN)
