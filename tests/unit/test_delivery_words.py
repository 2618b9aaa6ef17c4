"""The words for what became of a message, and the reasons that earlier versions wrote."""

import pytest

from appliance.core.delivery import (
    DeliveryState,
    WaitReason,
    describe_end,
    end_reason,
    kind_of_wait,
    state_of_reason,
    why_of_missed,
    why_of_reason,
)

EXPIRED = "expired after 1 s without acknowledgement: nobody there takes it"


@pytest.mark.parametrize(
    ("reason", "state", "why", "shown"),
    [
        ("failed: disk full", "failed", "disk full", "failed: disk full"),
        ("refused: not in accept_from", "refused", "not in accept_from", None),
        ("refused by the receiver: no", "refused", "no", "refused: no"),
        ("refused by the receiver", "refused", "", "refused"),
        ("expired: silent since 14:02:11", "expired", "silent since 14:02:11", None),
        (EXPIRED, "expired", EXPIRED.removeprefix("expired "), EXPIRED),
        ("failed", "failed", "", "failed"),
        ("no acknowledgement after 4 tries of 5 s", "failed", None, "failed: no acknowledgement after 4 tries of 5 s"),
    ],
)  # fmt: skip
def test_a_dead_letter_says_how_it_ended_and_why_whichever_version_wrote_it(
    reason, state, why, shown
):
    assert state_of_reason(reason) == state
    assert why_of_reason(reason) == (reason if why is None else why)
    assert describe_end(reason) == (shown or reason)


@pytest.mark.parametrize("state", [DeliveryState.REFUSED, DeliveryState.FAILED])
@pytest.mark.parametrize("why", ["", "disk full", "refused: it said"])
def test_what_is_written_is_what_is_read(state, why):
    written = end_reason(state, why)
    assert (state_of_reason(written), why_of_reason(written)) == (state, why)


@pytest.mark.parametrize(
    ("why", "kind"),
    [
        ("nobody there", WaitReason.NOBODY),
        ("silent since 14:02:11", WaitReason.SILENT),
        ("denied: Permissions Violation for Publish", WaitReason.DENIED),
        ("behind others", WaitReason.BEHIND),
        ("busyness", None),
        ("try 2", None),
        ("", None),
    ],
)
def test_a_reason_to_wait_is_known_by_how_it_begins(why, kind):
    assert kind_of_wait(why) is kind


def test_an_attempt_without_an_acknowledgement_says_why_the_message_waits():
    assert why_of_missed("no_responder") == WaitReason.NOBODY
    assert why_of_missed("ack_timeout") == "no acknowledgement"
    assert why_of_missed("bus_down") == WaitReason.BROKER_AWAY
    assert why_of_missed("something_else") == "something else"
