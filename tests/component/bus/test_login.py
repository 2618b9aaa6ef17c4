"""Logins of every kind against a real nats-server, and what is said (and never said) when one fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from appliance.bus.auth import check_tls
from appliance.bus.nats import NatsBus
from appliance.core.specs import AuthSettings, BrokerSettings, SecretRef, TlsSettings
from appliance.errors import BusUnauthorized, BusUnavailable
from tests.support.nats_login import (
    Certificates,
    make_certificates,
    make_jwt_setup,
    make_nkey,
)
from tests.support.nats_server import NatsServer

from .conftest import INFO_LINE, Heard, Inbox, OpenBus, make_settings

SECRET = "canary-5up3r-53cr3t"

WriteSecret = Callable[[str], SecretRef]


@pytest.fixture
def write_secret(tmp_path: Path) -> WriteSecret:
    def write(text: str) -> SecretRef:
        path = tmp_path / f"secret{len(list(tmp_path.iterdir()))}"
        path.write_text(text)
        return SecretRef(kind="file", name=str(path))

    return write


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def file(path: Path) -> SecretRef:
    return SecretRef(kind="file", name=str(path))


async def check_works(settings: BrokerSettings) -> None:
    """A message goes out and comes back."""
    bus = await NatsBus.open(settings, name="test", require_connection=True)
    try:
        inbox = Inbox()
        await bus.subscribe("a", inbox)
        await bus.publish("a", b"x")
        await inbox.wait_for(1)
    finally:
        await bus.close()


async def check_refused(settings: BrokerSettings, *, match: str) -> str:
    with pytest.raises(BusUnauthorized, match=match) as raised:
        await NatsBus.open(settings, name="test", require_connection=True)
    assert SECRET not in str(raised.value)
    return str(raised.value)


async def test_user_and_password(write_secret: WriteSecret) -> None:
    with NatsServer(f'authorization {{ user: u, password: "{SECRET}" }}') as server:
        auth = AuthSettings(user="u", password=write_secret(SECRET + "\n"))
        await check_works(make_settings(server.url, auth=auth))
        wrong = AuthSettings(user="u", password=write_secret(SECRET + "x"))
        text = await check_refused(make_settings(server.url, auth=wrong), match="refused the cred")
        assert str(server.port) in text
        await check_refused(make_settings(server.url), match="authorization violation")


async def test_token(write_secret: WriteSecret) -> None:
    with NatsServer(f'authorization {{ token: "{SECRET}" }}') as server:
        await check_works(make_settings(server.url, auth=AuthSettings(token=write_secret(SECRET))))
        await check_refused(
            make_settings(server.url, auth=AuthSettings(token=write_secret("other"))),
            match="refused",
        )


async def test_user_and_password_in_the_address_are_used_and_not_shown() -> None:
    with NatsServer(f'authorization {{ user: u, password: "{SECRET}" }}') as server:
        url = server.url.replace("://", f"://u:{SECRET}@")
        await check_works(make_settings(url))
        heard = Heard()
        bus = await NatsBus.open(make_settings(url), name="test", events=heard.make_events())
        server.kill()
        await heard.until(lambda it: len(it.errors) >= 2)
        assert bus.server == server.url
        await bus.close()
        assert not any(SECRET in text for text in heard.errors)
        server.start()
        await check_refused(make_settings(url.replace(SECRET, "wrong")), match="refused")


async def test_nkey_seed(write_secret: WriteSecret) -> None:
    key = make_nkey()
    with NatsServer(f"authorization {{ users: [ {{ nkey: {key.public} }} ] }}") as server:
        auth = AuthSettings(nkey_seed=write_secret(key.seed))
        await check_works(make_settings(server.url, auth=auth))
        other = make_nkey()
        text = await check_refused(
            make_settings(server.url, auth=AuthSettings(nkey_seed=write_secret(other.seed))),
            match="refused",
        )
        assert other.seed not in text


async def test_credentials_file(write_secret: WriteSecret) -> None:
    config, credentials = make_jwt_setup()
    with NatsServer(config) as server:
        auth = AuthSettings(credentials=write_secret(credentials))
        await check_works(make_settings(server.url, auth=auth))
        _, foreign = make_jwt_setup()
        await check_refused(
            make_settings(server.url, auth=AuthSettings(credentials=write_secret(foreign))),
            match="refused",
        )


async def test_tls_with_a_private_authority(certificates: Certificates) -> None:
    with NatsServer(certificates.server_config()) as server:
        tls = TlsSettings(ca=file(certificates.ca))
        await check_works(make_settings(server.url, tls=tls))
        await check_works(make_settings(server.url.replace("nats://", "tls://"), tls=tls))
        for trust in (TlsSettings(ca=file(certificates.other_ca)), TlsSettings()):
            with pytest.raises(BusUnavailable, match="tls: "):
                await NatsBus.open(
                    make_settings(server.url, tls=trust), name="test", require_connection=True
                )


async def test_tls_with_a_client_certificate(certificates: Certificates) -> None:
    with NatsServer(certificates.server_config(verify=True)) as server:
        tls = TlsSettings(
            ca=file(certificates.ca),
            cert=file(certificates.client_cert),
            key=file(certificates.client_key),
        )
        await check_works(make_settings(server.url, tls=tls))
        with pytest.raises((BusUnavailable, BusUnauthorized)):
            await NatsBus.open(
                make_settings(server.url, tls=TlsSettings(ca=file(certificates.ca))),
                name="test",
                require_connection=True,
            )


async def test_tls_and_nkey_together(certificates: Certificates, write_secret: WriteSecret) -> None:
    key = make_nkey()
    config = certificates.server_config(verify=True)
    config += f"authorization {{ users: [ {{ nkey: {key.public} }} ] }}"
    with NatsServer(config) as server:
        settings = make_settings(
            server.url,
            tls=TlsSettings(
                ca=file(certificates.ca),
                cert=file(certificates.client_cert),
                key=file(certificates.client_key),
            ),
            auth=AuthSettings(nkey_seed=write_secret(key.seed)),
        )
        await check_works(settings)


async def test_tls_and_password_and_megabytes(
    certificates: Certificates, write_secret: WriteSecret, open_bus: OpenBus
) -> None:
    config = certificates.server_config() + f'authorization {{ user: u, password: "{SECRET}" }}'
    with NatsServer(config) as server:
        bus = await open_bus(
            make_settings(
                server.url,
                tls=TlsSettings(ca=file(certificates.ca)),
                auth=AuthSettings(user="u", password=write_secret(SECRET)),
            )
        )
        inbox = Inbox()
        await bus.subscribe("a", inbox)
        for number in range(20):
            await bus.publish("a", bytes([number]) * 1_000_000)
        await inbox.wait_for(20)
        assert [payload[0] for payload in inbox.payloads] == list(range(20))
        await bus.close()


async def test_several_kinds_of_login_given_together_are_all_presented(
    write_secret: WriteSecret,
) -> None:
    """A seed next to user and password: a server that knows only the latter lets us in."""
    with NatsServer(f'authorization {{ user: u, password: "{SECRET}" }}') as server:
        auth = AuthSettings(
            nkey_seed=write_secret(make_nkey().seed), user="u", password=write_secret(SECRET)
        )
        await check_works(make_settings(server.url, auth=auth))


async def start_broker_of_words(
    info: bytes,
) -> tuple[asyncio.Server, int, asyncio.Queue[bytes]]:
    """A listener that says this much, its port, and what each client answered before it hung up."""
    said: asyncio.Queue[bytes] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(info)
        try:
            words = await reader.read(4096)
        except ConnectionResetError:
            words = b""
        writer.close()
        await said.put(words)

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    return listener, port, said


async def test_credentials_are_not_sent_in_clear_where_tls_is_asked_for(
    certificates: Certificates, write_secret: WriteSecret
) -> None:
    listener, port, said = await start_broker_of_words(INFO_LINE)
    auth = AuthSettings(token=write_secret(SECRET))
    for settings in (
        make_settings(f"tls://127.0.0.1:{port}", auth=auth),
        make_settings(
            f"nats://127.0.0.1:{port}", auth=auth, tls=TlsSettings(ca=file(certificates.ca))
        ),
    ):
        await check_refused(settings, match="does not offer it")
        assert await said.get() == b""
    listener.close()
    await listener.wait_closed()


@pytest.mark.parametrize(
    "nonce", ["steward-appliance/seal/1\\u0000" + "x" * 32, "a b", "x" * 200, 7]
)
async def test_a_broker_has_nothing_signed_but_a_nonce(
    write_secret: WriteSecret, nonce: object
) -> None:
    """The key of a login signs messages, too."""
    asked = f'"{nonce}"' if isinstance(nonce, str) else str(nonce)
    info = INFO_LINE.replace(b"{", b'{"auth_required":true,"nonce":%b,' % asked.encode(), 1)
    listener, port, said = await start_broker_of_words(info)
    auth = AuthSettings(nkey_seed=write_secret(make_nkey().seed))
    await check_refused(
        make_settings(f"nats://127.0.0.1:{port}", auth=auth), match="that is no nonce"
    )
    assert await said.get() == b""
    listener.close()
    await listener.wait_closed()


async def test_secrets_come_from_the_environment_and_from_the_service_manager(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKER_TOKEN", SECRET)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "broker").write_text(SECRET)
    with NatsServer(f'authorization {{ token: "{SECRET}" }}') as server:
        for kind, name in (("env", "BROKER_TOKEN"), ("credential", "broker")):
            auth = AuthSettings(token=SecretRef(kind=kind, name=name))
            await check_works(make_settings(server.url, auth=auth))


def test_certificates_may_be_as_many_as_a_system_trusts_and_a_secret_that_long_is_none(
    tmp_path: Path, certificates: Certificates
) -> None:
    one = Path(certificates.ca).read_text()
    bundle, long = tmp_path / "bundle.pem", tmp_path / "long"
    bundle.write_text(one * (1 + 70_000 // len(one)))
    check_tls(TlsSettings(ca=file(bundle)))
    long.write_text("x" * 70_000)
    for tls in (TlsSettings(ca=file(long)), TlsSettings(ca=file("/dev/zero"))):
        with pytest.raises(BusUnauthorized, match="not text of at most 64 KiB"):
            check_tls(tls)


@pytest.mark.parametrize(
    ("auth", "reason"),
    [
        ({"nkey_seed": ("file", "/nonexistent/seed")}, "No such file"),
        ({"nkey_seed": ("file", "/")}, "directory"),
        ({"token": ("env", "NOT_SET_ANYWHERE")}, "environment variable is not set"),
        ({"token": ("credential", "x")}, "CREDENTIALS_DIRECTORY is not set .systemd hands a unit"),
        ({"token": ("file", "/dev/zero")}, "not text of at most 64 KiB"),
        ({"token": ("file", "/dev/null")}, "is empty"),
        ({"credentials": ("file", "/proc/self/status")}, "no user JWT"),
        ({"nkey_seed": ("file", "/proc/self/comm")}, "no valid seed"),
    ],
)
async def test_a_secret_that_cannot_be_used_is_named_at_start(
    server: NatsServer, auth: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    refs = {key: SecretRef(kind=kind, name=name) for key, (kind, name) in auth.items()}
    await check_refused(make_settings(server.url, auth=AuthSettings(**refs)), match=reason)


async def test_unusable_certificates_are_named_at_start(
    server: NatsServer, write_secret: WriteSecret, certificates: Certificates
) -> None:
    for tls in (
        TlsSettings(ca=write_secret("no certificate")),
        TlsSettings(cert=file(certificates.client_cert), key=file(certificates.server_key)),
        TlsSettings(cert=file(certificates.client_cert)),
    ):
        await check_refused(make_settings(server.url, tls=tls), match="unusable")


async def test_a_refusal_in_the_background_is_reported_and_held_and_trying_goes_on(
    write_secret: WriteSecret, open_bus: OpenBus
) -> None:
    config = f'authorization {{ token: "{SECRET}" }}'
    with NatsServer(config) as server:
        server.kill()
        heard = Heard()
        token = write_secret("not yet right")
        bus = await open_bus(
            make_settings(server.url, auth=AuthSettings(token=token)), events=heard.make_events()
        )
        assert bus.failed is None
        server.start()
        await heard.until(lambda it: bus.failed is not None)
        assert "refused the credentials" in str(bus.failed)
        assert bus.failed in heard.errors
        Path(token.name).write_text(SECRET)  # rotated: taken without a restart
        await heard.until(lambda it: "connected" in it.calls)
        assert bus.failed is None


async def test_a_login_refused_at_start_is_told_and_tried_until_the_broker_knows_it(
    write_secret: WriteSecret, open_bus: OpenBus
) -> None:
    with NatsServer("authorization { users: [ { user: other, password: p } ] }") as server:
        heard = Heard()
        auth = AuthSettings(user="u", password=write_secret(SECRET))
        bus = await open_bus(make_settings(server.url, auth=auth), events=heard.make_events())
        assert not bus.is_connected
        assert "refused the credentials" in str(bus.failed)
        assert bus.trouble == bus.failed
        assert heard.errors == [bus.failed]
        server.reload(f'authorization {{ users: [ {{ user: u, password: "{SECRET}" }} ] }}')
        await heard.until(lambda it: "connected" in it.calls)
        assert (bus.is_connected, bus.failed, bus.trouble) == (True, None, None)


async def test_a_secret_that_is_not_there_yet_is_told_and_waited_for(
    tmp_path: Path, open_bus: OpenBus
) -> None:
    with NatsServer(f'authorization {{ token: "{SECRET}" }}') as server:
        heard = Heard()
        token = SecretRef(kind="file", name=str(tmp_path / "token"))
        bus = await open_bus(
            make_settings(server.url, auth=AuthSettings(token=token)), events=heard.make_events()
        )
        assert "cannot read token from file" in str(bus.trouble)
        Path(token.name).write_text(SECRET)
        await heard.until(lambda it: "connected" in it.calls)
        assert bus.trouble is None


async def test_every_broker_is_asked_before_any_refusal_counts(
    write_secret: WriteSecret, open_bus: OpenBus
) -> None:
    login = f'authorization {{ users: [ {{ user: u, password: "{SECRET}" }} ] }}'
    with NatsServer(login) as good, NatsServer(login.replace("user: u", "user: old")) as bad:
        auth = AuthSettings(user="u", password=write_secret(SECRET))
        for urls in ((good.url, bad.url), (bad.url, good.url)) * 4:  # the order is shuffled, too
            bus = await open_bus(make_settings(*urls, auth=auth), require_connection=True)
            assert bus.server == good.url
            await bus.reconfigure(make_settings(*reversed(urls), auth=auth))
            assert bus.server == good.url
        good.kill()
        for _ in range(4):
            with pytest.raises(BusUnauthorized, match=f"{bad.port} refused"):
                await NatsBus.open(
                    make_settings(good.url, bad.url, auth=auth),
                    name="test",
                    require_connection=True,
                )


async def test_a_login_that_is_refused_once_is_tried_again() -> None:
    """As by a nats-server that is just taking in its own changed configuration."""
    logins = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal logins
        logins += 1
        is_refused = logins == 1
        writer.write(INFO_LINE)
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"-ERR 'Authorization Violation'\r\n" if is_refused else b"PONG\r\n")
                if is_refused:
                    break
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    bus = await NatsBus.open(
        make_settings(f"nats://127.0.0.1:{port}"), name="test", require_connection=True
    )
    assert (bus.is_connected, logins) == (True, 2)
    await bus.close()
    listener.close()
    await listener.wait_closed()


async def test_an_account_without_room_is_no_refusal_of_the_login_and_waited_for(
    write_secret: WriteSecret, open_bus: OpenBus
) -> None:
    config = """accounts: { A: { users: [ { user: u, password: p } ], limits: { max_connections: 1 } } }"""
    with NatsServer(config) as server:
        settings = make_settings(
            server.url, auth=AuthSettings(user="u", password=write_secret("p"))
        )
        first = await open_bus(settings, require_connection=True)
        heard = Heard()
        second = await open_bus(settings, events=heard.make_events())
        assert second.failed is None
        assert "maximum account active connections exceeded" in str(second.trouble).lower()
        assert "credentials" not in str(second.trouble)
        await first.close()
        await heard.until(lambda it: "connected" in it.calls)


async def test_a_user_removed_by_a_reload_of_the_broker_is_back_when_it_returns(
    write_secret: WriteSecret, open_bus: OpenBus
) -> None:
    config = f'authorization {{ users: [ {{ user: u, password: "{SECRET}" }} ] }}'
    with NatsServer(config) as server:
        heard = Heard()
        auth = AuthSettings(user="u", password=write_secret(SECRET))
        bus = await open_bus(make_settings(server.url, auth=auth), events=heard.make_events())
        inbox = Inbox()
        await bus.subscribe("a", inbox)
        server.reload("authorization { users: [ { user: other, password: p } ] }")
        await heard.until(lambda it: bus.failed is not None)
        assert not bus.is_connected
        server.reload(config)
        await heard.until(lambda it: "reconnect" in it.calls)
        await bus.publish("a", b"")
        await inbox.wait_for(1)


def test_tls_works_the_same_on_uvloop(certificates: Certificates) -> None:
    async def talk(url: str) -> None:
        settings = make_settings(url, tls=TlsSettings(ca=file(certificates.ca)))
        heard = Heard()
        bus = await NatsBus.open(settings, name="test", events=heard.make_events())
        inbox = Inbox()
        await bus.subscribe("a", inbox)
        for number in range(10):
            await bus.publish("a", bytes([number]) * 1_000_000)
        await inbox.wait_for(10, timeout_s=20)
        assert [payload[0] for payload in inbox.payloads] == list(range(10))
        server.kill()
        server.start()
        await heard.until(lambda it: "reconnect" in it.calls)
        await bus.publish("a", b"back")
        await inbox.wait_for(11)
        await bus.close()

    with (
        NatsServer(certificates.server_config()) as server,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(talk(server.url))
