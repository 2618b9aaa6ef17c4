"""The methods that keep something in files: hello, error log, ping, pong, file, file append."""

from __future__ import annotations

import os
import stat

import pytest

from appliance.core.message import Message
from appliance.errors import ArgumentsInvalid, FileFailed, PathForbidden
from appliance.methods import texts as _text

NOW_TEXT = "2023-11-14T22:13:20Z"


async def test_hello_is_logged_below_the_senders_name_and_told_to_presence(bench):
    result = await bench.handle("REQHello", from_node="ship2", data=("Hello from ship2\n",))
    assert result.output is None
    assert bench.hellos == ["ship2"]
    line = f'{NOW_TEXT}, received hello from "ship2", Hello from ship2\n'
    assert bench.read("hello-messages/ship2/hello.log") == line.encode()


async def test_hello_follows_the_names_in_the_message(bench):
    await bench.handle("REQHello", from_node="ship2", directory="in/there", file_name="h.log")
    assert bench.list_files() == ["in/there/ship2/h.log"]


async def test_hello_text_cannot_forge_a_second_line_or_fill_the_log(bench):
    await bench.handle("REQHello", data=("a\n2024, received hello\x1b[2J" + "x" * 5_000,))
    content = bench.read("hello-messages/central/hello.log")
    assert content.count(b"\n") == 1
    assert b"\x1b" not in content
    assert len(content) < 400


async def test_hello_from_a_hostile_name_is_refused_and_not_counted_as_presence(bench):
    with pytest.raises(PathForbidden):
        await bench.handle("REQHello", from_node="../../ship")
    assert bench.hellos == []
    assert bench.list_files() == []


async def test_error_report_goes_below_error_central_with_terminal_escapes_made_visible(bench):
    text = "2024, node: ship1, broke \x1b]0;x\x07\n"
    await bench.handle("REQErrorLog", to_node="errorCentral", from_node="ship1", data=(text,))
    content = bench.read("errorLog/errorCentral/error.log")
    assert content == b"2024, node: ship1, broke \\x1b]0;x\\x07\n"


async def test_error_report_without_a_line_end_gets_one(bench):
    for text in ("one", "two\n"):
        await bench.handle("REQErrorLog", to_node="errorCentral", data=(text,))
    assert (
        bench.read("errorLog/errorCentral/error.log") == b"from central: one\nfrom central: two\n"
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("now, node: ship2, broke\n", "from ship1: now, node: ship2, broke\n"),
        ("x, node: ship1 , node: ship2, y", "from ship1: x, node: ship1 , node: ship2, y\n"),
        (
            "now, node: ship1, broke\nnow, node: ship2, broke\n\n",
            "now, node: ship1, broke\n  now, node: ship2, broke\n  \n",
        ),
        (
            "now, node: ship1, \u202e\u061c\x9b2J\r",
            "now, node: ship1, \\u202e\\u061c\\u009b2J\\x0d\n",
        ),
        ("", "from ship1: \n"),
    ],
)
async def test_no_error_report_reads_like_another_nodes(bench, text, line):
    await bench.handle("REQErrorLog", to_node="errorCentral", from_node="ship1", data=(text,))
    assert bench.read("errorLog/errorCentral/error.log").decode() == line


async def test_log_that_grows_too_large_is_moved_aside_once(bench, monkeypatch):
    monkeypatch.setattr("appliance.methods.error_log.LOG_ROTATE_BYTES", 40)
    assert _text.LOG_ROTATE_BYTES == 16 * 1024 * 1024
    for number in range(9):
        await bench.handle(
            "REQErrorLog", to_node="errorCentral", from_node="c", data=(f"{number:08}\n",)
        )
    # 17 bytes a line, two lines a file, and one file before the present one
    folder = "errorLog/errorCentral"
    assert bench.list_files() == [f"{folder}/error.log", f"{folder}/error.log.1"]
    assert bench.read(f"{folder}/error.log") == b"from c: 00000008\n"
    assert bench.read(f"{folder}/error.log.1") == b"from c: 00000006\nfrom c: 00000007\n"


async def test_ping_without_a_file_is_answered_and_writes_nothing(bench):
    result = await bench.handle("REQPing")
    assert result.output == b""
    assert result.report is None
    assert bench.list_files() == []


async def test_ping_with_a_file_adds_a_line_and_keeps_what_was_there(bench):
    (bench.root / "d/ship1").mkdir(parents=True)
    (bench.root / "d/ship1/notes").write_text("mine\n")
    result = await bench.handle("REQPing", directory="d", file_name="notes")
    assert result.output == b""
    expected = f'mine\n{NOW_TEXT}, ping received from "central"\n'
    assert bench.read("d/ship1/notes") == expected.encode()


async def test_ping_is_answered_even_if_its_file_cannot_be_written(bench):
    result = await bench.handle("REQPing", directory="../..", file_name="x")
    assert result.output == b""
    assert result.report is not None
    assert "'..'" in result.report


async def test_pong_notes_the_pinged_node_in_the_file_of_the_ping(bench):
    ping = Message(to_node="ship2", from_node="ship1", directory="pings", file_name="p.log")
    result = await bench.handle("REQPong", from_node="ship2", previous_message=ping, data=("",))
    assert result.output is None
    expected = f'{NOW_TEXT}, pong received from "ship2"\n'
    assert bench.read("pings/ship2/p.log") == expected.encode()


async def test_pong_without_a_previous_message_is_no_crash(bench):
    await bench.handle("REQPong")
    assert bench.list_files() == []
    await bench.handle("REQPong", file_name="p.log")
    assert bench.read("ship1/p.log").endswith(b'pong received from "central"\n')


async def test_pong_to_a_ping_without_a_file_writes_nothing(bench):
    await bench.handle("REQPong", previous_message=Message(to_node="ship2"))
    assert bench.list_files() == []


async def test_file_is_replaced_whole_with_a_safe_mode(bench):
    for content in (("long old content",), ("a\udcff", "b")):
        await bench.handle("REQToFile", directory="d", file_name="f", data=content)
    assert bench.read("d/ship1/f") == b"a\xffb"
    assert bench.list_files() == ["d/ship1/f"]
    mode = stat.S_IMODE(os.stat(bench.root / "d/ship1/f").st_mode)
    assert mode & 0o137 == 0
    assert stat.S_IMODE(os.stat(bench.root / "d/ship1").st_mode) & 0o027 == 0


async def test_reply_is_filed_under_the_names_of_its_request(bench):
    request = Message(to_node="ship2", directory="uptimes", file_name="u.log")
    await bench.handle(
        "REQToFileAppend",
        from_node="ship2",
        directory="other",
        file_name="other.log",
        previous_message=request,
        data=("up 3 days\n",),
    )
    assert bench.list_files() == ["uptimes/ship2/u.log"]


async def test_append_joins_all_elements_and_carries_any_bytes(bench):
    for _ in range(2):
        await bench.handle("REQToFileAppend", file_name="a\udcfe\\b", data=("x\udc80", "", "y\n"))
    assert (bench.root / os.fsdecode(b"ship1/a\xfe\\b")).read_bytes() == b"x\x80y\n" * 2


@pytest.mark.parametrize("method", ["REQToFile", "REQToFileAppend"])
async def test_message_that_names_no_file_is_refused(bench, method):
    with pytest.raises(ArgumentsInvalid, match="names no file"):
        await bench.handle(method, directory="d", data=("x",))
    assert bench.list_files() == []


@pytest.mark.parametrize("method", ["REQToFile", "REQToFileAppend"])
async def test_message_without_data_makes_an_empty_file(bench, method):
    await bench.handle(method, file_name="f")
    assert bench.read("ship1/f") == b""
    assert bench.positions == []


@pytest.mark.parametrize("method", ["REQToFile", "REQToFileAppend"])
async def test_data_that_no_encoding_can_carry_is_refused(bench, method):
    with pytest.raises(ArgumentsInvalid, match="no encoding"):
        await bench.handle(method, file_name="f", data=("\ud800",))


@pytest.mark.parametrize("method", ["REQToFile", "REQToFileAppend"])
@pytest.mark.parametrize(
    "fields",
    [
        {"directory": "../outside", "file_name": "f"},
        {"file_name": "../../outside.txt"},
        {"file_name": "a\0b"},
        {"file_name": "x" * 256},
        {"directory": "d/" * 70, "file_name": "f"},
        {"file_name": ".appliance-appending"},
        {"previous_message": Message(to_node="../..", file_name="f")},
    ],
    ids=str,
)
async def test_hostile_names_touch_nothing(bench, method, fields, tmp_path):
    with pytest.raises(PathForbidden):
        await bench.handle(method, data=("x",), **fields)
    assert bench.list_files() == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


@pytest.mark.parametrize("method", ["REQToFile", "REQToFileAppend"])
async def test_absolute_names_stay_below_the_data_directory(bench, method):
    await bench.handle(method, directory="//etc/./cron.d", file_name="/f/", data=("x",))
    assert bench.list_files() == ["etc/cron.d/ship1/f"]


@pytest.mark.parametrize("method", ["REQToFile", "REQToFileAppend"])
async def test_what_is_no_plain_file_or_directory_is_refused(bench, method, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_text("theirs")
    home = bench.root / "ship1"
    home.mkdir()
    (home / "link").symlink_to(outside / "f")
    (home / "dangling").symlink_to(outside / "new")
    (home / "folder").symlink_to(outside)
    (home / "directory").mkdir()
    (home / "plain").write_text("")
    os.mkfifo(home / "pipe")
    for name in ("link", "dangling", "folder/f", "directory", "pipe", "plain/f"):
        with pytest.raises(PathForbidden):
            await bench.handle(method, file_name=name, data=("x",))
    assert (outside / "f").read_text() == "theirs"
    assert [path.name for path in outside.iterdir()] == ["f"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
async def test_refusal_of_the_system_is_an_error_that_names_file_and_reason(bench):
    (bench.root / "ship1").mkdir(mode=0o500)
    with pytest.raises(FileFailed, match=r"'ship1/f'.*Permission denied"):
        await bench.handle("REQToFile", file_name="f", data=("x",))
