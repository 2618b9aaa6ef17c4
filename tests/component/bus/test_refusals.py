"""What must not be sent is refused before it is; what the broker denies reaches the worker it concerns."""

from __future__ import annotations

import pytest

from appliance.bus.base import Denial
from appliance.bus.nats import NatsBus
from appliance.errors import BusError, PayloadTooLarge, SubjectInvalid
from tests.support.nats_server import NatsServer

from .conftest import Heard, Inbox, OpenBus, make_settings

BAD_TO_PUBLISH = [
    "", ".", "a.", ".a", "a..b", "a b", "a\tb", "a\r\nPUB x 0\r\n\r\n", "a\n", "a\x00", "a\x7f", "*",
    "a.*", "a.>", ">", "x" * 513, "\udcff", "é" * 257,
]  # fmt: skip
BAD_TO_SUBSCRIBE = ["", "a.", "a..b", "a b", "a\r\n", ">.a", "a*", "a.>b", "x" * 513, "\udcff"]


@pytest.mark.parametrize("subject", BAD_TO_PUBLISH)
async def test_a_bad_subject_is_refused_before_anything_is_sent(
    server: NatsServer, open_bus: OpenBus, subject: str
) -> None:
    bus = await open_bus(server.url)
    with pytest.raises(SubjectInvalid):
        await bus.publish(subject, b"")
    if subject:
        with pytest.raises(SubjectInvalid):
            await bus.publish("a", b"", reply_to=subject)
    await bus.barrier()
    assert bus.connection_epoch == 0


@pytest.mark.parametrize("subject", BAD_TO_SUBSCRIBE)
async def test_a_bad_subscription_is_refused_before_anything_is_sent(
    server: NatsServer, open_bus: OpenBus, subject: str
) -> None:
    bus = await open_bus(server.url)
    with pytest.raises(SubjectInvalid):
        await bus.subscribe(subject, Inbox())
    if subject and "." not in subject and "*" not in subject:
        with pytest.raises(SubjectInvalid):
            await bus.subscribe("a", Inbox(), queue=subject)


async def test_subjects_beyond_ascii_go_through(server: NatsServer, open_bus: OpenBus) -> None:
    bus = await open_bus(server.url)
    inbox = Inbox()
    await bus.subscribe("schiff.größe.*", inbox)
    await bus.publish("schiff.größe.µ", b"")
    (delivery,) = await inbox.wait_for(1)
    assert delivery.subject == "schiff.größe.µ"


async def test_the_size_check_counts_headers_and_keeps_the_connection(open_bus: OpenBus) -> None:
    with NatsServer("max_payload: 1024") as server:
        bus = await open_bus(server.url)
        assert bus.max_payload == 1024
        inbox = Inbox()
        await bus.subscribe("a", inbox)
        headers = {"serial": "cbor"}
        block_bytes = len(b"NATS/1.0\r\nserial: cbor\r\n\r\n")
        await bus.publish("a", b"x" * 1024)
        await bus.publish("a", b"x" * (1024 - block_bytes), headers=headers)
        with pytest.raises(PayloadTooLarge) as raised:
            await bus.publish("a", b"x" * (1025 - block_bytes), headers=headers)
        assert (raised.value.size_bytes, raised.value.limit_bytes) == (1025, 1024)
        with pytest.raises(PayloadTooLarge):
            await bus.publish("a", b"x" * 1025)
        await inbox.wait_for(2)
        assert bus.connection_epoch == 0


async def test_a_header_value_cannot_add_a_line(server: NatsServer, open_bus: OpenBus) -> None:
    bus = await open_bus(server.url)
    inbox = Inbox()
    await bus.subscribe("a", inbox)
    await bus.publish("a", b"", headers={"x": "1\r\nserial: gob\r\n\r\nbody", "y": "2"})
    (delivery,) = await inbox.wait_for(1)
    assert delivery.headers == {"x": "1  serial: gob    body", "y": "2"}
    with pytest.raises(BusError, match="header name"):
        await bus.publish("a", b"", headers={"bad name": "1"})


PERMISSIONS = """authorization { users: [ { user: u, password: p, permissions: {
  publish: { deny: ["Ship1.REQSecret.CommandACK"] }
  subscribe: { deny: ["Ship1.REQSecret.CommandACK", "Ship1.>"] } } } ] }"""


async def test_denials_reach_the_worker_they_concern_in_mixed_case(open_bus: OpenBus) -> None:
    with NatsServer(PERMISSIONS) as server:
        heard = Heard()
        bus = await open_bus(server.url.replace("://", "://u:p@"), events=heard.make_events())
        denied: list[str] = []
        queue = subject = "Ship1.REQSecret.CommandACK"
        await bus.subscribe(
            subject,
            Inbox(),
            queue=queue,
            on_denied=lambda denial: denied.append(f"sub {denial.text}"),
        )
        assert len(denied) == 1, "known before subscribe returns"
        await bus.subscribe(
            "Ship2.REQSecret.CommandACK",
            Inbox(),
            on_denied=lambda denial: denied.append(str(denial)),
        )
        end = bus.on_publish_denied(subject, lambda denial: denied.append(f"pub {denial.text}"))
        await bus.publish(subject, b"")
        await bus.barrier()
        assert [text[:3] for text in denied] == ["sub", "pub"]
        assert all(subject in text for text in denied)
        assert heard.errors == []
        end()
        await bus.publish(subject, b"")
        await bus.barrier()
        assert len(denied) == 2
        assert any(subject in text for text in heard.errors)
        assert bus.connection_epoch == 0


async def test_denials_come_again_after_a_reconnect_and_a_callback_that_raises_does_no_harm(
    open_bus: OpenBus,
) -> None:
    with NatsServer(PERMISSIONS) as server:
        heard = Heard()
        bus = await open_bus(server.url.replace("://", "://u:p@"), events=heard.make_events())
        denied: list[Denial] = []

        def note(denial: Denial) -> None:
            denied.append(denial)
            raise RuntimeError("bug")

        await bus.subscribe("Ship1.REQSecret.CommandACK", Inbox(), on_denied=note)
        server.kill()
        server.start()
        await heard.until(lambda it: "reconnect" in it.calls)
        assert len(denied) == 2
        assert any("handling a denial failed" in text for text in heard.errors)


async def test_denied_answers_are_one_report_a_minute_however_many_tokens_they_name(
    open_bus: OpenBus,
) -> None:
    allowed = 'publish: ["x"]'
    config = (
        f"authorization {{ users: [ {{ user: u, password: p, permissions: {{ {allowed} }} }} ] }}"
    )
    with NatsServer(config) as server:
        heard = Heard()
        bus = await open_bus(server.url.replace("://", "://u:p@"), events=heard.make_events())
        denied: list[Denial] = []
        subject = "Ship1.REQPing.EventACK"
        bus.on_publish_denied(subject, denied.append)
        answers = [f"{subject}.reply.{number}.a" for number in range(100)] + [f"{subject}.reply"]
        for name in answers:
            await bus.publish(name, b"")
        await bus.barrier()
        assert [item.subject for item in denied] == answers
        assert len(heard.errors) == 1
        assert answers[0] in heard.errors[0]
        await bus.publish(subject, b"")
        await bus.barrier()
        assert denied[-1].subject == subject
        assert len(heard.errors) == 1, "who registered the subject tells of it"


async def test_strangers_cannot_fill_the_log_with_reply_subjects_that_are_denied(
    open_bus: OpenBus,
) -> None:
    allowed = 'publish: ["x"]'
    config = (
        f"authorization {{ users: [ {{ user: u, password: p, permissions: {{ {allowed} }} }} ] }}"
    )
    with NatsServer(config) as server:
        heard = Heard()
        bus = await open_bus(server.url.replace("://", "://u:p@"), events=heard.make_events())
        for number in range(300):
            await bus.publish(f"_INBOX.{number}", b"")
            await bus.publish(f"a{number}.reply.{number}", b"")
        await bus.barrier()
        assert len(heard.errors) == 1


async def test_what_a_callback_raises_is_not_taken_for_words_of_the_broker(
    server: NatsServer, open_bus: OpenBus
) -> None:
    heard = Heard()
    bus = await open_bus(server.url, events=heard.make_events())
    denied: list[Denial] = []
    bus.on_publish_denied("b", denied.append)

    def fail(_messages: object) -> None:
        raise RuntimeError('Permissions Violation for Publish to "b"')

    await bus.subscribe("a", fail)
    await bus.publish("a", b"")
    await bus.barrier()
    assert denied == []
    assert heard.errors == [
        'taking messages of a failed: RuntimeError: Permissions Violation for Publish to "b"'
    ]


async def test_a_subscription_beyond_the_brokers_maximum_is_a_denial(open_bus: OpenBus) -> None:
    with NatsServer("max_subscriptions: 2") as server:
        bus = await open_bus(server.url)
        denied: list[Denial] = []
        for name in "ab":
            await bus.subscribe(name, Inbox(), on_denied=denied.append)
        assert denied == []
        await bus.subscribe("c", Inbox(), on_denied=denied.append)
        assert [(item.is_publish, item.subject) for item in denied] == [(False, "c")]


async def test_a_subscription_that_is_denied_can_still_be_stopped(open_bus: OpenBus) -> None:
    with NatsServer(PERMISSIONS) as server:
        bus = await open_bus(server.url.replace("://", "://u:p@"))
        subscription = await bus.subscribe("Ship1.a", Inbox())
        await subscription.stop_intake()
        await bus.barrier()


async def test_an_address_of_another_kind_is_an_error_in_words() -> None:
    from appliance.errors import BusUnavailable

    with pytest.raises(BusUnavailable, match="neither nats:// nor tls://"):
        await NatsBus.open(make_settings("ws://127.0.0.1:1"), name="test", require_connection=True)
