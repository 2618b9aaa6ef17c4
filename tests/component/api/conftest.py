"""A server over a fake daemon, and an HTTP client for each of its faces."""

import json
from dataclasses import dataclass

import aiohttp
import pytest

from appliance.api.server import AdminServer
from appliance.core.specs import AdminSettings, SecretRef
from tests.support.fake_control import FakeControl

TOKEN = "a secret token"


@dataclass
class Answer:
    """One whole answer."""

    status: int
    headers: object
    text: str

    def json(self):
        return json.loads(self.text)


class Client:
    """Asks and reads to the end; `session` is for answers that go on."""

    def __init__(self, session):
        self.session = session

    async def get(self, path, **options):
        return await self._ask("GET", path, options)

    async def post(self, path, **options):
        return await self._ask("POST", path, options)

    async def _ask(self, verb, path, options):
        async with self.session.request(verb, path, **options) as answer:
            return Answer(answer.status, answer.headers, await answer.text())


@pytest.fixture
def control():
    return FakeControl()


@pytest.fixture
async def server(control):
    server = AdminServer(control)
    yield server
    await server.close()


@pytest.fixture
async def unix(server, short_dir):
    """A client of the unix socket."""
    await server.start_unix(short_dir / "appliance.sock")
    connector = aiohttp.UnixConnector(str(short_dir / "appliance.sock"))
    async with aiohttp.ClientSession("http://localhost", connector=connector) as session:
        yield Client(session)


@pytest.fixture
async def tcp(server, short_dir):
    """A client of the TCP face, whose token is `TOKEN`."""
    (short_dir / "token").write_text(f"{TOKEN}\n")
    token = SecretRef(kind="file", name=str(short_dir / "token"))
    await server.move_tcp(AdminSettings(listen="127.0.0.1:0", token=token))
    host, port = server.tcp_address
    async with aiohttp.ClientSession(f"http://{host}:{port}") as session:
        yield Client(session)
