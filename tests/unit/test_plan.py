"""The plan as a table and by property: applied to a model it gives desired, and a second plan is empty."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.describe import describe_changes, describe_plan
from appliance.core.names import MethodName, NodeName, Subject
from appliance.core.plan import (
    ActionKind,
    apply_to_model,
    find_changes,
    find_excess_cancels,
    find_restart_fields,
    make_plan,
)
from appliance.core.specs import (
    AckOn,
    AckSettings,
    BrokerSettings,
    DesiredState,
    Embedded,
    ObservedWorker,
    Phase,
    PublisherSpec,
    StateSettings,
    SubscriberSpec,
)


def subscriber(node="ship1", method="REQPing", kind="EventACK", **changes):
    return SubscriberSpec(
        node=NodeName(node),
        subject=Subject(f"{node}.{method}.{kind}"),
        method=MethodName(method),
        wants_ack=kind.endswith("ACK") and not kind.endswith("NACK"),
        **changes,
    )


def publisher(node="central", to="ship1", method="REQPing", **changes):
    return PublisherSpec(
        node=NodeName(node),
        subject=Subject(f"{to}.{method}.EventACK"),
        to_node=NodeName(to),
        method=MethodName(method),
        wants_ack=True,
        **{"entry": "pings", **changes},
    )


def keyed(*specs):
    return {spec.key: spec for spec in specs}


def running(*specs, phase=Phase.RUNNING, retry_at_mono=None):
    return {s.key: ObservedWorker(spec=s, phase=phase, retry_at_mono=retry_at_mono) for s in specs}


def kinds(plan):
    return [(action.kind, action.key.name) for action in plan.actions]


SUB, PUB = subscriber(), publisher()


@pytest.mark.parametrize(
    ("desired", "observed", "expected"),
    [
        ([SUB], {}, [ActionKind.SPAWN]),
        ([], running(SUB), [ActionKind.CANCEL]),
        ([SUB], running(SUB), []),
        ([replace(SUB, concurrency=3)], running(SUB), [ActionKind.UPDATE]),
        ([replace(SUB, ack_on=AckOn.DONE)], running(SUB), [ActionKind.SWAP]),
        ([replace(SUB, ack_on=AckOn.DONE, concurrency=3)], running(SUB), [ActionKind.SWAP]),
        ([replace(PUB, compression="none")], running(PUB), [ActionKind.SWAP]),
        ([replace(PUB, ack=AckSettings(timeout_s=9))], running(PUB), [ActionKind.UPDATE]),
        ([SUB], running(SUB, phase=Phase.BACKING_OFF, retry_at_mono=11.0), []),
        ([SUB], running(SUB, phase=Phase.BACKING_OFF, retry_at_mono=9.0), [ActionKind.SPAWN]),
        ([SUB], running(SUB, phase=Phase.STOPPED), [ActionKind.SPAWN]),
        ([SUB], running(SUB, phase=Phase.DRAINING), []),
        ([], running(SUB, phase=Phase.DRAINING), []),
        ([SUB], running(SUB, phase=Phase.FAILED), []),
        (
            [replace(SUB, concurrency=3)],
            running(SUB, phase=Phase.BACKING_OFF, retry_at_mono=11.0),
            [ActionKind.SPAWN],
        ),
    ],
)
def test_one_worker_gets_the_action_that_closes_its_gap(desired, observed, expected):
    plan = make_plan(keyed(*desired), observed, now_mono=10.0)
    assert [action.kind for action in plan.actions] == expected


def test_a_plan_names_the_moment_the_next_backing_off_worker_is_due():
    observed = running(SUB, phase=Phase.BACKING_OFF, retry_at_mono=12.5)
    assert make_plan(keyed(SUB), observed, now_mono=10.0).next_due_mono == 12.5


def test_cancels_come_first_so_that_a_subject_is_free_before_another_worker_takes_it():
    plan = make_plan(keyed(PUB), running(SUB), 0.0)
    assert [action.kind for action in plan.actions] == [ActionKind.CANCEL, ActionKind.SPAWN]


specs = st.one_of(
    st.builds(
        subscriber,
        node=st.sampled_from(["a", "b"]),
        method=st.sampled_from(["REQPing", "REQPong", "REQHello"]),
        concurrency=st.integers(1, 3),
        ack_on=st.sampled_from(AckOn),
    ),
    st.builds(
        publisher,
        node=st.sampled_from(["a", "b"]),
        to=st.sampled_from(["a", "b"]),
        window=st.integers(1, 3),
        compression=st.sampled_from(["none", "zstd"]),
    ),
)
worlds = st.lists(specs, max_size=8).map(lambda found: {spec.key: spec for spec in found})


@given(desired=worlds, before=worlds)
def test_applied_to_a_model_the_plan_gives_desired_and_a_second_plan_is_empty(desired, before):
    observed = running(*before.values())
    plan = make_plan(desired, observed, 0.0)
    after = apply_to_model(plan, observed)
    assert {key: seen.spec for key, seen in after.items()} == desired
    assert make_plan(desired, after, 0.0).is_empty
    touched = [action.key for action in plan.actions]
    assert len(touched) == len(set(touched))
    assert plan.kept + len(plan.actions) == len(desired.keys() | before.keys())


@given(desired=worlds, before=worlds)
def test_swaps_and_updates_never_change_what_is_part_of_the_key(desired, before):
    for action in make_plan(desired, running(*before.values()), 0.0).actions:
        if action.kind in (ActionKind.SWAP, ActionKind.UPDATE):
            assert not {"node", "subject", "method", "to_node", "wants_ack"} & set(action.changed)


def test_losing_more_than_the_allowed_share_is_found_and_named():
    fleet = [subscriber(node=name) for name in ("a", "b", "c", "d")]
    observed = running(*fleet)
    assert len(find_excess_cancels(make_plan(keyed(fleet[0]), observed, 0.0), observed, 0.5)) == 3
    assert not find_excess_cancels(make_plan(keyed(*fleet[:2]), observed, 0.0), observed, 0.5)
    assert find_excess_cancels(make_plan({}, observed, 0.0), observed, 0.5)


def test_a_method_that_moves_to_its_other_subject_is_not_counted_as_lost():
    old, new = subscriber(kind="EventACK"), subscriber(kind="EventNACK")
    observed = running(old)
    assert not find_excess_cancels(make_plan(keyed(new), observed, 0.0), observed, 0.5)


def test_publishers_made_on_demand_do_not_count_for_the_guard():
    observed = running(SUB, replace(PUB, entry=None))
    assert not find_excess_cancels(make_plan(keyed(SUB), observed, 0.0), observed, 0.1)


def test_changes_are_described_down_to_the_setting_that_differs():
    changed = replace(PUB, ack=AckSettings(timeout_s=9.0))
    assert describe_changes(find_changes(PUB, changed)) == {"ack.timeout_s": [5.0, 9.0]}
    plan = make_plan(keyed(changed), running(PUB), 0.0)
    assert describe_plan(plan) == [
        {
            "action": "update",
            "worker": PUB.key.name,
            "node": "central",
            "fields": {"ack.timeout_s": [5.0, 9.0]},
        }
    ]


def test_settings_that_need_a_restart_are_named():
    def desired(**settings):
        return DesiredState(
            run_nodes=(), declared_nodes=frozenset(), workers={}, publisher_defaults={}, **settings
        )

    old = desired(broker=BrokerSettings(embedded=Embedded(), port=1), state=StateSettings(dir="a"))
    assert find_restart_fields(old, old) == ()
    new = desired(broker=BrokerSettings(embedded=Embedded(), port=2), state=StateSettings(dir="b"))
    assert find_restart_fields(old, new) == ("broker.port", "state.dir")
    moved = desired(broker=BrokerSettings(servers=("nats://h:1",)), state=StateSettings(dir="a"))
    assert find_restart_fields(old, moved) == ("broker.embedded",)
