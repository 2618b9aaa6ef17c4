"""Meaning checks of the daemon's own sections: broker, listener, the bounds of every setting."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from appliance.config.compiler.findings import PLACE, Findings, KeyPath
from appliance.config.compiler.layers import Tree, as_map, find_value
from appliance.core.public_keys import PUBLIC_KEYS, is_user_key
from appliance.core.settings import Setting, leaves_of
from appliance.core.specs import DesiredState
from appliance.core.times import read_utc
from appliance.core.urls import find_broker_address_problem

if TYPE_CHECKING:
    from appliance.config.compiler.local_checks import Known

# The section `inputs`: what is wrong with its meaning.

API_SOCKET = "appliance.sock"
"""The API's own socket in the state directory."""


def check_inputs(findings: Findings, tree: Tree, known: Known) -> None:
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
    if isinstance(sender, str) and sender not in known.nodes:
        known.miss("node", sender, ("inputs", "from"))


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


def check_bounds(
    findings: Findings, prefix: KeyPath, settings: Iterable[Setting], tree: Tree
) -> None:
    """Durations and percentages written as text escape the schema's bounds;

    hold them to the same ones.
    """
    for setting in settings:
        value = find_value(tree, setting.keys)
        if not isinstance(value, str) or setting.show is None:
            continue
        path = (*prefix, *setting.keys)
        try:
            number = setting.read(value)
        except ValueError as error:
            findings.add("E106", path, str(error))
            continue
        if setting.minimum is not None and number < setting.minimum:
            findings.add(
                "E105", path, f"{value} is below the least of {setting.show(setting.minimum)}"
            )
        elif setting.maximum is not None and number > setting.maximum:
            findings.add(
                "E105", path, f"{value} is above the limit of {setting.show(setting.maximum)}"
            )


def check_sections(findings: Findings, tree: Tree) -> None:
    """Check everything that is not about nodes."""
    check_bounds(findings, (), leaves_of(DesiredState), tree)
    _check_broker(findings, as_map(tree.get("broker")))
    _check_admin(findings, as_map(tree.get("admin")))


def _check_broker(findings: Findings, broker: Tree) -> None:
    servers = broker.get("servers") or ()
    embedded = broker.get("embedded") not in (None, False)
    if embedded and servers:
        findings.add(
            "E215",
            ("broker", "servers"),
            "`embedded: true` and `servers` exclude one another",
            hint="drop one of them",
        )
    elif not embedded and not servers:
        findings.add(
            "E214",
            ("broker",),
            "no broker: neither `servers` nor `embedded: true` is given",
            hint='write `servers: ["nats://host:4222"]`, or `embedded: true` for a private broker',
            on_key=True,
        )
    for number, address in enumerate(servers):
        problem = find_broker_address_problem(address)
        if problem is not None:
            findings.add(
                "E106", ("broker", "servers", number), f"no address of a broker: {problem}"
            )
    if not embedded and broker.get("port") is not None:
        findings.add(
            "W202",
            ("broker", "port"),
            "`port` is the embedded broker's and has no effect here",
            hint="the port of a server is part of its address",
            on_key=True,
        )
    if embedded:
        for name in ("tls", "auth"):
            if broker.get(name):
                findings.add(
                    "W202",
                    ("broker", name),
                    f"`{name}` has no effect: the embedded broker is private to this daemon",
                    on_key=True,
                )
    _check_tls(findings, as_map(broker.get("tls")))
    _check_auth(findings, as_map(broker.get("auth")))


def check_streams_keeper(tree: Tree, known: Known) -> None:
    """Who makes the streams is a node."""
    keeper = as_map(tree.get("streams")).get("keeper")
    if keeper is not None and keeper not in known.nodes:
        known.miss("node", keeper, ("streams", "keeper"))


def check_enrolment(findings: Findings, tree: Tree, known: Known) -> None:
    """Who keeps requests of new nodes, and by what they may ask."""
    enrolment = as_map(tree.get("enrolment"))
    if not enrolment:
        return
    for name, words in (("node", "who keeps the requests"), ("invitations", "who may ask")):
        if not enrolment.get(name):
            findings.add(
                "E280",
                ("enrolment",),
                f"`{name}` is missing: {words}",
                hint="enrolment: {node: central, invitations: [U…]}",
                on_key=True,
            )
    embedded = as_map(tree.get("broker")).get("embedded")
    if embedded is True or (isinstance(embedded, dict) and embedded.get("secured") is not True):
        findings.add(
            "W202",
            ("enrolment",),
            "nobody needs to be let in: the embedded broker takes everybody as anybody",
            hint="broker: {embedded: {secured: true}}",
            on_key=True,
        )
    keeper = enrolment.get("node")
    if keeper is not None and keeper not in known.nodes:
        known.miss("node", keeper, ("enrolment", "node"))
    node_of = {
        key: node for node, own in known.nodes.items() for key in as_map(own).get(PUBLIC_KEYS) or ()
    }
    for index, key in enumerate(enrolment.get("invitations") or ()):
        path = ("enrolment", "invitations", index)
        if not is_user_key(key):
            findings.add("E245", path, f"{key} is no public key: its checksum is wrong")
        elif key in node_of:
            findings.add(
                "E281",
                path,
                f"the key is that of {node_of[key]}: whoever has the invitation could log in as that node",
                hint="appliance keys new invitation",
            )


def _check_tls(findings: Findings, tls: Tree) -> None:
    for have, lack in (("cert", "key"), ("key", "cert")):
        if tls.get(have) and not tls.get(lack):
            findings.add(
                "E216",
                ("broker", "tls", have),
                f"`{have}` without `{lack}`: a client certificate needs both",
                on_key=True,
            )


def _check_auth(findings: Findings, auth: Tree) -> None:
    base: KeyPath = ("broker", "auth")
    has_user, has_password = auth.get("user") is not None, bool(auth.get("password"))
    if has_user != has_password:
        have, lack = ("user", "password") if has_user else ("password", "user")
        findings.add("E217", (*base, have), f"`{have}` without `{lack}`", on_key=True)
    used = [name for name in ("nkey_seed", "credentials", "token") if auth.get(name)]
    if has_user or has_password:
        used.append("user" if has_user else "password")
    if len(used) > 1:
        findings.add(
            "E217",
            (*base, used[1]),
            f"two ways to log in: `{used[0]}` and `{used[1]}`",
            hint="keep one of nkey_seed, credentials, token, or user with password",
            on_key=True,
        )


def split_listen(listen: str) -> tuple[str, int] | None:
    """Host and port of ``host:port`` or ``[v6]:port``; None when it is neither."""
    host, colon, port = listen.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        return None
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        return (host, int(port)) if host and set(host) <= set("0123456789abcdefABCDEF:.") else None
    is_host = host.isascii() and host.replace("-", "").replace(".", "").isalnum()
    return (host, int(port)) if is_host else None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a listener on `host`."""
    is_v4 = host.startswith("127.") and set(host) <= set("0123456789.")
    return is_v4 or host in ("localhost", "::1")


_BESIDE_LISTEN = ("token", "tls", "tokens", "certificates", "hosts")


def _check_admin(findings: Findings, admin: Tree) -> None:
    listen = admin.get("listen")
    if listen is None:
        for key in _BESIDE_LISTEN:
            if admin.get(key):
                findings.add(
                    "W202",
                    ("admin", key),
                    f"`{key}` has no effect without `listen`",
                    on_key=True,
                )
    else:
        _check_admin_address(findings, admin, listen)
    tls = as_map(admin.get("tls"))
    _check_admin_tls(findings, tls)
    _check_callers(findings, admin, tls)


def _check_admin_address(findings: Findings, admin: Tree, listen: str) -> None:
    address = split_listen(listen)
    if address is None:
        findings.add(
            "E218",
            ("admin", "listen"),
            "not an address and port",
            hint="write 127.0.0.1:8090, [::1]:8090 or localhost:8090",
        )
        return
    if is_loopback(address[0]):
        return
    if not any(admin.get(name) for name in ("token", "tokens", "certificates")):
        findings.add(
            "E219",
            ("admin", "listen"),
            f"{address[0]} is reachable from other machines and no `token` protects changes",
            hint="listen on 127.0.0.1, or add `token: {file: …}`",
        )
    elif not (admin.get("tls") or admin.get("insecure_http")):
        findings.add(
            "W208",
            ("admin", "listen"),
            f"{address[0]} is reachable from other machines, and without `tls` tokens and answers can be read on the way",
            hint="add `tls: {cert: …, key: …}`, listen on 127.0.0.1, or say that it is meant: `insecure_http: true`",
        )


def _check_admin_tls(findings: Findings, tls: Tree) -> None:
    base: KeyPath = ("admin", "tls")
    for have, lack in (("cert", "key"), ("key", "cert")):
        if tls.get(have) and not tls.get(lack):
            findings.add(
                "E216",
                (*base, have),
                f"`{have}` without `{lack}`: a listener's certificate needs both",
                on_key=True,
            )
    if tls.get("client_ca") and not (tls.get("cert") or tls.get("key")):
        findings.add(
            "E216",
            (*base, "client_ca"),
            "`client_ca` without `cert` and `key`: there is no TLS without a certificate of its own",
            on_key=True,
        )


def _check_callers(findings: Findings, admin: Tree, tls: Tree) -> None:
    """Names that stand twice, times that are none, certificates that nobody can bring or that nothing tells apart."""
    names: dict[str, KeyPath] = {}
    subjects: dict[tuple[str, str], KeyPath] = {}
    for section in ("tokens", "certificates"):
        for number, entry in enumerate(admin.get(section) or ()):
            base: KeyPath = ("admin", section, number)
            name, expires_at = entry.get("name"), entry.get("expires_at")
            if name in names:
                findings.add(
                    "E246",
                    (*base, "name"),
                    f'"{name}" is the name of another one at {PLACE}',
                    hint="the history tells who asked by this name",
                    also=names[name],
                )
            names.setdefault(name, (*base, "name"))
            if isinstance(expires_at, str) and read_utc(expires_at) is None:
                findings.add(
                    "E106",
                    (*base, "expires_at"),
                    f"{expires_at} is no time such as 2027-01-31T00:00:00Z",
                )
            if section == "certificates":
                _check_certificate(findings, base, entry, subjects)
    if admin.get("certificates") and not tls.get("client_ca"):
        findings.add(
            "E247",
            ("admin", "certificates"),
            "nobody can bring a certificate: `tls.client_ca` does not say who signs them",
            hint="add `tls: {cert: …, key: …, client_ca: {file: …}}`",
            on_key=True,
        )


def _check_certificate(
    findings: Findings, base: KeyPath, entry: Tree, subjects: dict[tuple[str, str], KeyPath]
) -> None:
    said = [(key, entry[key]) for key in ("cn", "san") if entry.get(key)]
    if len(said) != 1:
        findings.add(
            "E247",
            base,
            "one of `cn` and `san` says which certificate it is",
            hint="write `cn: anna`, or `san: anna@example.org`",
        )
        return
    if said[0] in subjects:
        findings.add(
            "E246",
            (*base, said[0][0]),
            f"this certificate is named at {PLACE}",
            also=subjects[said[0]],
        )
    subjects.setdefault(said[0], (*base, said[0][0]))
