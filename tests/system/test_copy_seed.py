"""Copies to and from a node of the original, which knows one message of up to 1,000,000 bytes and no header of ours."""

import asyncio
import contextlib
import hashlib
import os

import cbor2
import nats
import pytest

from appliance.core.message import text_to_bytes
from appliance.wire.gob import decode_gob
from tests.support.bare_publisher import seed_message
from tests.support.copy_fleet import copy_fleet
from tests.support.waiting import until

LIMIT = 1_000_000
TEXT = ("ein Umlaut ä\n" * 80_000).encode()[:LIMIT]


@pytest.fixture(scope="module", params=["cbor", "gob"])
def fleet(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("seed")
    with copy_fleet(directory, serialization=request.param) as fleet:
        fleet.serialization = request.param
        yield fleet


class Goer:
    """The node `goer`: subscribes what it is told to, acknowledges as the original does, keeps what came."""

    def __init__(self, client):
        self._client = client
        self.heard = asyncio.Queue()
        self.files = {}
        """Content by path: what REQCopyFileFrom reads."""

    async def subscribe(self, *methods):
        for method in methods:
            await self._client.subscribe(f"goer.{method}.EventACK", cb=self._take)
        await self._client.flush()

    async def _take(self, message):
        headers = message.headers or {}
        assert "cmp" not in headers
        read = cbor2.loads if headers.get("serial") == "cbor" else decode_gob
        fields = list(read(message.data))
        assert len(fields) == 25
        await self._client.publish(message.reply, b"confirmed from: goer: 0")
        if fields[4] == "REQCopyFileFrom":
            await self._copy(fields)
        self.heard.put_nowait(fields)

    async def _copy(self, asked):
        """As the seed: the asker's message again with the content, in the asker's name; then the answer."""
        source, node, target = asked[5]
        copied = list(asked)
        directory, _, name = target.rpartition("/")
        copied[0], copied[3], copied[4] = node, [self.files[source].decode()], "REQCopyFileTo"
        copied[16], copied[17] = directory or ".", name
        await self.publish(copied)
        reply = seed_message(asked[9], "goer", asked[6] or "REQToFileAppend", ["copy initiated\n"])
        reply[8], reply[16], reply[17], reply[18] = True, asked[16], asked[17], asked
        await self.publish(reply)

    async def publish(self, fields):
        subject = f"{fields[0]}.{fields[4]}.EventACK"
        await self._client.publish(
            subject, cbor2.dumps(fields), reply=f"{subject}.reply", headers={"serial": "cbor"}
        )

    async def answer(self, asked):
        """What it did, to the sender of the message; whether that was acknowledged."""
        reply = seed_message(asked[9], "goer", asked[6] or "REQToFileAppend", ["wrote it\n"])
        reply[8], reply[16], reply[17] = True, asked[16], asked[17]
        reply[18] = [*asked[:3], None, *asked[4:]]
        subject = f"{reply[0]}.{reply[4]}.EventACK"
        answers = asyncio.Queue()
        subscription = await self._client.subscribe(f"{subject}.reply", cb=answers.put)
        await self.publish(reply)
        async with asyncio.timeout(60):
            said = await answers.get()
        await subscription.unsubscribe()
        return said.data.startswith(b"confirmed from: ")

    async def next(self):
        async with asyncio.timeout(60):
            return await self.heard.get()


@contextlib.asynccontextmanager
async def goer(fleet, *methods):
    client = await nats.connect(fleet.url)
    try:
        node = Goer(client)
        await node.subscribe(*methods)
        yield node
    finally:
        await client.close()


def cp(fleet, *words):
    return asyncio.to_thread(fleet.run, "cp", "--wait", "6s", *words)


@pytest.mark.parametrize("content", [TEXT, os.urandom(LIMIT), b""], ids=["text", "bytes", "empty"])
async def test_it_gets_one_message_with_the_whole_content(fleet, tmp_path, content):
    file = tmp_path / "file"
    file.write_bytes(content)
    async with goer(fleet, "REQCopyFileTo") as node:
        done = await cp(fleet, str(file), "goer:/srv/there")
        message = await node.next()
        assert node.heard.empty()
    assert (done.returncode, "goer:/srv/there: it was handed over" in done.stderr) == (0, True)
    assert (message[0], message[4], message[9]) == ("goer", "REQCopyFileTo", "central")
    assert message[5][1:] in (["goer", "/srv/there"], ("goer", "/srv/there"))
    assert 0 < message[2] < 2**31  # what a 32-bit Go node reads
    # whom its answer is for: it is taken and filed nowhere
    assert (message[16], message[17]) == ("/srv", "@caller")
    (data,) = message[3]
    assert text_to_bytes(data) == content


async def test_a_larger_file_is_told_to_need_an_appliance(fleet, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"x" * (LIMIT + 1))
    async with goer(fleet, "REQCopyFileTo") as node:
        done = await cp(fleet, str(file), "goer:/srv/there")
        assert node.heard.empty()
    assert done.returncode == 3
    assert "or is no appliance, which files larger than 1000000 bytes need" in done.stderr
    fleet.settle()
    assert fleet.central.status()["outbox"]["dead"] == 0


@pytest.mark.parametrize("source", ["here", "ship1"])
async def test_what_it_knows_nothing_of_is_not_told_as_copied(fleet, tmp_path, source):
    """It finds an empty text for a path, and writes nothing; its acknowledgement came before it looked."""
    file = tmp_path / "file" if source == "here" else fleet.at("ship1", "with-mode")
    file.write_bytes(b"x")
    place = str(file) if source == "here" else f"ship1:{file}"
    async with goer(fleet, "REQCopyFileTo") as node:
        done = await cp(fleet, "--mode", "0640", place, "goer:/srv/there")
        message = await node.next()
    assert message[5][2] == ""
    assert (done.returncode, "nothing was written" in done.stderr) == (1, True), done.stderr
    assert (
        fleet.central.request("GET", "/api/v1/jobs?limit=1")[1]["jobs"][0]["counts"]["failed"] == 1
    )


async def test_a_file_is_fetched_from_it(fleet, tmp_path):
    async with goer(fleet, "REQCopyFileFrom") as node:
        node.files["/var/log/x"] = TEXT
        done = await cp(fleet, "goer:/var/log/x", str(tmp_path / "came"))
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "came").read_bytes() == TEXT


async def test_it_is_had_to_copy_to_another_node(fleet):
    target = fleet.at("ship1", "from-goer")
    async with goer(fleet, "REQCopyFileFrom") as node:
        node.files["/var/log/x"] = TEXT
        done = await cp(fleet, "goer:/var/log/x", f"ship1:{target}")
    words = f"ship1:{target}: goer has read it and sends it there, and does not say what came of it"
    assert (done.returncode, words in done.stderr) == (0, True)
    # it may still be on its way: nobody waits for what goes from node to node
    until(lambda: target.exists() and target.read_bytes() == TEXT)


async def test_what_it_sends_is_written_and_answered_as_it_expects(fleet):
    target = fleet.at("ship1", "given")
    async with goer(fleet, "REQToFileAppend") as node:
        given = seed_message("ship1", "goer", "REQCopyFileTo", ["given"], file_name="given",
                             method_args=["/x", "ship1", str(target)], directory="d")  # fmt: skip
        await node.publish(given)
        reply = await node.next()
    assert target.read_text() == "given"
    assert reply[3][0].startswith(f"wrote {target}, 5 bytes")
    assert (reply[8], reply[17]) == (True, "given")


async def test_what_it_asks_for_is_copied_and_it_hears_of_no_progress(fleet):
    source, target = fleet.at("ship1", "asked"), fleet.at("central", "asked")
    content = os.urandom(6_000_000)
    source.write_bytes(content)
    async with goer(fleet, "REQToFileAppend") as node:
        await node.publish(seed_message("ship1", "goer", "REQCopyFileFrom", [], file_name="asked", directory="d",
                                        method_args=[str(source), "central", str(target)]))  # fmt: skip
        reply = await node.next()
        assert node.heard.empty()
    (text,) = reply[3]
    assert hashlib.sha256(content).hexdigest() in text
    assert target.read_bytes() == content


async def test_what_it_says_of_a_file_that_was_copied_to_it_finds_somebody(fleet, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"x")
    async with goer(fleet, "REQCopyFileTo") as node:
        assert (await cp(fleet, str(file), "goer:/srv/there")).returncode == 0
        assert await node.answer(await node.next())
    assert not list(fleet.central.data("srv").glob("**/*"))


async def test_who_asked_for_a_copy_between_go_nodes_is_answered_by_the_one_that_took_it(fleet):
    source = fleet.at("ship1", "between")
    source.write_bytes(b"x")
    async with goer(fleet, "REQCopyFileTo", "REQToFileAppend") as node:
        await node.publish(seed_message("ship1", "goer", "REQCopyFileFrom", [], file_name="log", directory="d",
                                        method_args=[str(source), "goer", "/srv/there"]))  # fmt: skip
        message = await node.next()
        assert (message[4], message[9]) == ("REQCopyFileTo", "goer")
        assert (message[16], message[17]) == ("/srv", "there")
        # else the next one who listens under this name hears it
        (text,) = (await node.next())[3]
        assert text.startswith(f"handed over {source} to goer:/srv/there, 1 bytes")


async def test_an_appliance_that_knows_nothing_of_a_go_asker_still_gets_the_copy(fleet):
    source, target = fleet.at("ship1", "asked-too"), fleet.at("central", "asked-too")
    source.write_bytes(b"x")
    async with goer(fleet, "REQToFileAppend") as node:
        await node.publish(seed_message("ship1", "goer", "REQCopyFileFrom", [], file_name="log", directory="d",
                                        method_args=[str(source), "central", str(target)]))  # fmt: skip
        (text,) = (await node.next())[3]
    assert text.startswith(f"copied {source} to central:{target}, 1 bytes")
    assert target.read_bytes() == b"x"
