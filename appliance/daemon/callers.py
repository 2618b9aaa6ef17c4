"""What a caller is told before anything is sent: whether an answer could come back, and slips in a node's name."""

from __future__ import annotations

from collections.abc import Iterator

from appliance.core.findings import find_nearest
from appliance.core.message import DEFAULT_REPLY_METHOD
from appliance.core.names import MethodName
from appliance.core.relay import relay_token
from appliance.core.specs import ANY_SENDER, DesiredState, SubscriberSpec
from appliance.errors import RequestInvalid

ANSWER_METHODS = (
    MethodName(DEFAULT_REPLY_METHOD),
    MethodName("REQToConsole"),
    MethodName("REQToFile"),
)
"""Methods that an answer for a caller may arrive as; the answer is shown, so none of them does its work."""


def choose_answer_method(desired: DesiredState, node: str, to_node: str) -> MethodName:
    """The method of `node` that takes an answer from `to_node`.

    Raises:
        RequestInvalid: there is none; the text says what to add to the config.
    """
    found = list(_answer_specs(desired, node))
    for spec in found:
        if accepts(spec, to_node, desired):
            return spec.method
    if not found:
        raise RequestInvalid(
            f"no answer could come back: {node} subscribes none of {', '.join(ANSWER_METHODS)};"
            f" add `{ANSWER_METHODS[0]}: {{}}` to nodes.{node}.subscribe"
        )
    unknown = describe_unknown(desired, to_node)
    if unknown is not None:
        raise RequestInvalid(f"no answer could come back: {unknown}; add it to `nodes`")
    raise RequestInvalid(
        f"no answer could come back: {found[0].method} of {node} takes nothing from {to_node};"
        f" add {to_node} to its accept_from"
    )


def accepts(spec: SubscriberSpec, sender: str, desired: DesiredState) -> bool:
    """Whether a subscriber takes messages of a node."""
    if spec.accept_from is None:
        return sender in desired.declared_nodes
    return spec.accept_from == ANY_SENDER or sender in spec.accept_from


def describe_unknown(desired: DesiredState, node: str) -> str | None:
    """Words for a node that no config names; None where it is declared."""
    if node in desired.declared_nodes:
        return None
    nearest = find_nearest(node, sorted(desired.declared_nodes))
    hint = f" (did you mean {nearest}?)" if nearest else ""
    return f"{node[:60]!r} is not declared{hint}"


def describe_unsubscribed(
    desired: DesiredState, node: str, method: str, *, final: str | None = None
) -> str | None:
    """Words for a declared node that no config has subscribe the method, or pass messages on to `final`; another
    daemon's config may know it better than ours.
    """
    token = relay_token(final, node) if final else node
    if node not in desired.declared_nodes or (token, method) in desired.declared_acks:
        return None
    onward = f" that leads to {final}" if final else ""
    return f"the config here names no {method} of {node}{onward}"


def _answer_specs(desired: DesiredState, node: str) -> Iterator[SubscriberSpec]:
    specs = {
        spec.method: spec
        for spec in desired.workers.values()
        if isinstance(spec, SubscriberSpec) and spec.node == node and spec.method in ANSWER_METHODS
    }
    return (specs[method] for method in ANSWER_METHODS if method in specs)
