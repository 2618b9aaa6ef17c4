"""The section `inputs`: what is wrong with its meaning."""

from __future__ import annotations

from appliance.core.findings import PLACE, Findings, KeyPath, find_nearest, shorten
from appliance.core.layers import Tree, as_map
from appliance.core.section_checks import is_loopback, split_listen

API_SOCKET = "appliance.sock"
"""The API's own socket in the state directory."""


def check_inputs(findings: Findings, tree: Tree) -> None:
    """Listeners that anybody reaches, addresses wanted twice, a sender that is no node."""
    inputs = as_map(tree.get("inputs"))
    taken: dict[tuple[str, int], KeyPath] = {}
    admin = as_map(tree.get("admin")).get("listen")
    address = split_listen(admin) if isinstance(admin, str) else None
    if address is not None:
        taken[address] = ("admin", "listen")
    for name in ("tcp", "http"):
        _check_listener(findings, name, as_map(inputs.get(name)), taken)
    if as_map(inputs.get("socket")).get("path") == API_SOCKET:
        findings.add(
            "E241",
            ("inputs", "socket", "path"),
            f"{API_SOCKET} is the socket of the API",
            hint="choose another name, or leave it out",
        )
    sender = inputs.get("from")
    nodes = as_map(tree.get("nodes"))
    if isinstance(sender, str) and sender not in nodes:
        nearest = find_nearest(sender, nodes)
        findings.add(
            "E202",
            ("inputs", "from"),
            f"node {shorten(sender)} is not declared"
            + (f" (closest: {shorten(nearest)}, declared at {PLACE})" if nearest else ""),
            hint="" if nearest else "declare it below `nodes`",
            also=("nodes", nearest) if nearest else None,
        )


def _check_listener(
    findings: Findings, name: str, section: Tree, taken: dict[tuple[str, int], KeyPath]
) -> None:
    listen = section.get("listen")
    if not isinstance(listen, str):
        return
    path: KeyPath = ("inputs", name, "listen")
    address = split_listen(listen)
    if address is None:
        findings.add(
            "E218",
            path,
            "not an address and port",
            hint="write 127.0.0.1:7701, [::1]:7701 or localhost:7701",
        )
        return
    if not is_loopback(address[0]) and not section.get("token"):
        findings.add(
            "E240",
            path,
            f"{address[0]} is reachable from other machines and no `token` keeps strangers out",
            hint="listen on 127.0.0.1, or add `token: {file: …}`",
        )
    if address[1] and address in taken:
        findings.add(
            "E241",
            path,
            f"{listen} is taken by {'.'.join(map(str, taken[address]))} at {PLACE}",
            hint="choose another port",
            also=taken[address],
        )
    taken.setdefault(address, path)
