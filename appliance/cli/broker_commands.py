"""`keys` and `broker-conf`: who may log in to the broker, and what the broker lets each of them do, out of the config."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from appliance.cli.options import (
    Exit,
    Output,
    OutputOption,
    UnusedStateDirOption,
    print_json,
    read_duration,
    warn,
)
from appliance.cli.rotate_command import rotate
from appliance.core.names import is_node_name
from appliance.core.times import say_moment

if TYPE_CHECKING:
    from appliance.bus.node_keys import KeyKind, UserJwt
    from appliance.core.broker_conf import Login

REVOKED = "revoked.json"
"""Beside the JWTs: until when those of a public key were issued that count no more."""
MAX_FILE_BYTES = 1_048_576
"""Of a seed or a JWT, which holds all permissions of a node."""
_NO_KEY_SHOWN = 5
"""So many nodes without a key are named."""
_CONTROL_LINE_BYTES = 4_096
"""What nats-server reads of a line unless `max_control_line` says more."""
_BESIDE_JWT_BYTES = 1_024
_SHORTEST_S = 3_600.0
"""What ends earlier cannot be handed out to a fleet in time."""

SeedFile = Annotated[
    Path, typer.Argument(metavar="FILE", readable=False, help="The file that holds the seed.")
]


class Format(StrEnum):
    """What `broker-conf` writes."""

    NATS = "nats"
    JWT = "jwt"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    keys = typer.Typer(help="NKEYs, by which nodes log in to the broker.", no_args_is_help=True)
    keys.command("new")(new)
    keys.command("show")(show)
    keys.command("creds")(creds)
    keys.command("rotate")(rotate)
    app.add_typer(keys, name="keys")
    app.command("broker-conf")(broker_conf)


def new(
    node: Annotated[str, typer.Argument(metavar="NODE", help="The node that will log in by it.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", readable=False, help="Where the seed goes. Default: NODE.nk."
        ),
    ] = None,
    output: OutputOption = Output.TEXT,
    _state_dir: UnusedStateDirOption = None,
) -> int:
    """Make a key for a node: the seed into a file for its owner alone, the public key on stdout.

    Make it on the machine of the node: the seed need never leave it. The line on stdout belongs to the node in the config;
    a second one, beside the first, lets it change its key without a gap: put both into the config, let the broker know them
    (`broker-conf`), give the node the new seed, take the old key out.
    """
    from appliance.bus.node_keys import make_seed, public_key_of, write_seed
    from appliance.core.public_keys import fingerprint_of

    if not is_node_name(node):
        raise typer.BadParameter(f"{node[:60]!r} is no node name", param_hint="NODE")
    path = out if out is not None else Path(f"{node}.nk")
    seed = make_seed()
    try:
        write_seed(path, seed)
    except FileExistsError:
        warn(f"{path} is there already, and is left as it is; name another file with --out")
        return Exit.FAILED
    except OSError as error:
        warn(f"{path} cannot be written: {error.strerror}")
        return Exit.NO_PERMISSION if isinstance(error, PermissionError) else Exit.FAILED
    public_key = public_key_of(seed)
    fingerprint = fingerprint_of(public_key)
    if output is Output.JSON:
        print_json(
            {
                "node": node,
                "public_key": public_key,
                "fingerprint": fingerprint,
                "seed_file": str(path),
            }
        )
        return Exit.OK
    typer.echo(f"{node}: {{public_keys: [{public_key}]}}")
    warn(
        f"the seed is in {path}: name it in the node's own config,"
        f" broker: {{auth: {{nkey_seed: {{file: {path.absolute()}}}}}}}"
    )
    return Exit.OK


def show(
    path: SeedFile, output: OutputOption = Output.TEXT, _state_dir: UnusedStateDirOption = None
) -> int:
    """Print the public key that belongs to a seed."""
    from appliance.bus.node_keys import public_key_of
    from appliance.core.public_keys import fingerprint_of

    public_key = _read(path, public_key_of)
    if public_key is None:
        return Exit.DATA
    fingerprint = fingerprint_of(public_key)
    if output is Output.JSON:
        print_json({"public_key": public_key, "fingerprint": fingerprint})
    else:
        typer.echo(public_key)
        warn(f"fingerprint {fingerprint}")
    return Exit.OK


def creds(
    path: SeedFile,
    jwt: Annotated[
        Path,
        typer.Argument(metavar="JWT", readable=False, help="The JWT that `broker-conf` wrote."),
    ],
    _state_dir: UnusedStateDirOption = None,
) -> int:
    """Print the credentials file of a node, its seed and its JWT together, for broker.auth.credentials."""
    from appliance.bus.node_keys import public_key_of, write_credentials

    if _read(path, public_key_of) is None:
        return Exit.DATA
    text = _read(jwt, lambda text: text)
    if text is None:
        return Exit.DATA
    typer.echo(write_credentials(path.read_text(), text), nl=False)
    return Exit.OK


def broker_conf(
    paths: Annotated[
        list[str], typer.Argument(help="Config files and directories.", metavar="PATH…")
    ],
    report_format: Annotated[
        Format,
        typer.Option(
            "--format", help="`nats`: a part of nats-server.conf; `jwt`: signed files in --out."
        ),
    ] = Format.NATS,
    account: Annotated[
        str | None,
        typer.Option(
            "--account", metavar="NAME", help="Put the users into this account of the broker."
        ),
    ] = None,
    bench: Annotated[
        bool, typer.Option("--bench", help="Also allow what `appliance bench` needs.")
    ] = False,
    against: Annotated[
        Path | None,
        typer.Option(
            "--against",
            metavar="FILE",
            readable=False,
            help="Show what differs from this file, which an earlier call wrote; exit 2 where anything does.",
        ),
    ] = None,
    account_seed: Annotated[
        Path | None,
        typer.Option(
            "--account-seed", metavar="FILE", readable=False, help="With `jwt`: signs users."
        ),
    ] = None,
    operator_seed: Annotated[
        Path | None,
        typer.Option(
            "--operator-seed",
            metavar="FILE",
            readable=False,
            help="With `jwt`: signs the account, too, and writes resolver.conf.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", readable=False, help="With `jwt`: where files go."),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(
            "--expires",
            metavar="TIME",
            help="With `jwt`: how long users' JWTs count, as in 2160h. Default: until they are revoked.",
        ),
    ] = None,
    output: OutputOption = Output.TEXT,
    _state_dir: UnusedStateDirOption = None,
) -> int:
    """Write the users of the broker, and exactly what each may publish and subscribe.

    Every node with `public_keys` becomes a user (nodes that share a key become one). It may subscribe what its entries
    say, publish to whoever takes its messages (`accept_from`) and to what its publish entries name, and hear the
    acknowledgements; nothing else. Nodes without a key are named on stderr, and get no login.

    \b
    Examples:
      appliance broker-conf /etc/appliance > /etc/nats/fleet.conf   # include fleet.conf
      appliance broker-conf . --against /etc/nats/fleet.conf        # what a change would change
      appliance broker-conf . --format jwt --account-seed acc.nk --operator-seed op.nk --out jwt
    """
    from appliance.config.loader import load_desired
    from appliance.core.broker_conf import diff_conf, find_logins, render_conf
    from appliance.core.permissions import find_kept_streams, find_permissions
    from appliance.garbage import no_look_for_garbage
    from appliance.methods.registry import METHOD_TABLE

    if report_format is Format.JWT and (account_seed is None or out is None):
        raise typer.BadParameter("jwt needs --account-seed and --out", param_hint="--format")
    valid_s = read_duration("--expires", expires)
    if valid_s is not None and (report_format is not Format.JWT or valid_s < _SHORTEST_S):
        raise typer.BadParameter("is for jwt, and an hour at least", param_hint="--expires")
    with no_look_for_garbage():
        desired = load_desired(paths, environ=os.environ, methods=METHOD_TABLE).desired
        logins = find_logins(desired, find_permissions(desired, bench=bench))
    with_key = (node for node, traits in desired.traits.items() if traits.public_keys)
    _tell_keyless(desired.declared_nodes.difference(with_key))
    if desired.streams.keeper is None and find_kept_streams(desired.workers.values()):
        warn("no node may make the streams of `delivery: jetstream`: streams: {keeper: NODE}")
    if not logins:
        warn("no node has public_keys, so there is nobody to let in: appliance keys new NODE")
        return Exit.FAILED
    if report_format is Format.JWT:
        assert account_seed is not None
        assert out is not None
        return _write_jwts(logins, account or "fleet", account_seed, operator_seed, out, valid_s)
    text = render_conf(logins, account)
    if against is not None:
        try:
            old = against.read_text()
        except OSError as error:
            warn(f"{against} cannot be read: {error.strerror}")
            return Exit.FAILED
        changes = diff_conf(old, text, str(against))
        typer.echo(changes, nl=False)
        return Exit.CHANGES if changes else Exit.OK
    if output is Output.JSON:
        print_json({"logins": [_facts_of(login) for login in logins]})
    else:
        typer.echo(text, nl=False)
    return Exit.OK


def _tell_keyless(nodes: Iterable[str]) -> None:
    keyless = sorted(nodes)
    if keyless:
        more = len(keyless) - _NO_KEY_SHOWN
        shown = ", ".join(keyless[:_NO_KEY_SHOWN]) + (f" and {more} more" if more > 0 else "")
        warn(f"without public_keys, and so without a login: {shown}")


def _facts_of(login: Login) -> dict[str, object]:
    return {
        "public_key": login.public_key,
        "nodes": login.nodes,
        "publish": login.permissions.publish,
        "subscribe": login.permissions.subscribe,
    }


def _write_jwts(
    logins: list[Login],
    account: str,
    account_file: Path,
    operator_file: Path | None,
    out: Path,
    valid_s: float | None,
) -> int:
    from appliance.bus.node_keys import (
        KeyKind,
        public_key_of,
        sign_account,
        sign_operator,
        sign_user,
    )

    now = int(time.time())
    account_seed = _read_seed(account_file, KeyKind.ACCOUNT)
    if account_seed is None:
        return Exit.DATA
    account_key = public_key_of(account_seed, KeyKind.ACCOUNT)
    try:
        old, known = _read_jwts(out), _read_revoked(out)
    except (OSError, ValueError, AttributeError, TypeError):
        warn(f"what is in {out} cannot be read, and so not what counts no more ({REVOKED})")
        return Exit.DATA
    rights = {login.public_key: login.permissions for login in logins}
    # a JWT holds its rights, wherever it has got to: those that the config does not give any more must not count
    revoked = dict(known)
    for jwt in old.values():
        if rights.get(jwt.public_key) != (jwt.publish, jwt.subscribe):
            revoked[jwt.public_key] = max(jwt.issued_at, revoked.get(jwt.public_key, 0))
    files: dict[str, str] = {}
    ends_at = None if valid_s is None else now + int(valid_s)
    first_end = ends_at
    for login in logins:
        key, allowed = login.public_key, login.permissions
        # a key in the name: a node that changes its key has two files
        name = f"{login.nodes[0]}-{key[-8:]}.jwt"
        kept = old.get(name)
        if (
            kept is not None
            and kept == (key, kept.issued_at, *allowed, kept.expires_at)
            and revoked.get(key, -1) < kept.issued_at
            and _lasts(kept, now, valid_s)
        ):
            if first_end is not None and kept.expires_at is not None:
                first_end = min(first_end, kept.expires_at)
            files[name] = (out / name).read_text()
            continue
        user = sign_user(
            account_seed,
            key,
            "+".join(login.nodes)[:100],
            allowed.publish,
            allowed.subscribe,
            issued_at=max(now, revoked.get(key, 0) + 1),
            expires_at=ends_at,
        )
        files[name] = f"{user}\n"
    # the login's JWT is in one line, beside a signature and our name
    longest = max(len(text) for text in files.values()) + _BESIDE_JWT_BYTES
    line_bytes = max(_CONTROL_LINE_BYTES, 1 << longest.bit_length())
    if operator_file is not None:
        operator_seed = _read_seed(operator_file, KeyKind.OPERATOR)
        if operator_seed is None:
            return Exit.DATA
        operator = sign_operator(operator_seed, "appliance", issued_at=now)
        of_account = sign_account(
            operator_seed, account_key, account, issued_at=now, revoked=revoked
        )
        files["resolver.conf"] = (
            f"max_control_line: {line_bytes}\noperator: {operator}\nresolver: MEMORY\n"
            f"resolver_preload: {{\n  {account_key}: {of_account}\n}}\n"
        )
    else:
        if line_bytes > _CONTROL_LINE_BYTES:
            warn(
                f"the longest login has {longest} bytes: the broker needs max_control_line: {line_bytes}"
            )
        for key, until in sorted(revoked.items() - known.items()):
            warn(f"revoke at the account what was issued to {key} until {until}: it counts on else")
    if revoked:
        files[REVOKED] = f"{json.dumps(revoked, indent=1, sort_keys=True)}\n"
    try:
        out.mkdir(parents=True, exist_ok=True)
        for file_name, text in files.items():
            (out / file_name).write_text(text)
        for file_name in old.keys() - files.keys():
            (out / file_name).unlink(missing_ok=True)
    except OSError as error:
        warn(f"{error.filename} cannot be written: {error.strerror}")
        return Exit.FAILED
    typer.echo(f"{len(files)} files in {out}")
    if first_end is not None:
        warn(
            f"the first JWT ends on {say_moment(float(first_end))}: write them anew, and hand them out, before"
        )
    endless = [
        jwt.public_key for jwt in old.values() if ends_at is not None and jwt.expires_at is None
    ]
    counting = sorted(rights.keys() & endless - revoked.keys())
    if counting:
        nodes = ", ".join(login.nodes[0] for login in logins if login.public_key in counting)
        warn(f"earlier JWTs without an end count on; a new key ends them (keys rotate): {nodes}")
    return Exit.OK


def _lasts(jwt: UserJwt, now: int, valid_s: float | None) -> bool:
    """Whether a JWT that is there can stay: it lasts half as long as a new one, at least, and no longer."""
    if valid_s is None or jwt.expires_at is None:
        return valid_s is None and jwt.expires_at is None
    return now + valid_s / 2 <= jwt.expires_at <= now + valid_s


def _read_jwts(out: Path) -> dict[str, UserJwt]:
    """What an earlier call wrote there, by the name of the file."""
    from appliance.bus.node_keys import read_user_jwt

    found = {
        path.name: read_user_jwt(path.read_text(errors="replace")) for path in out.glob("*.jwt")
    }
    return {name: jwt for name, jwt in found.items() if jwt is not None}


def _read_revoked(out: Path) -> dict[str, int]:
    try:
        return {
            str(key): int(until) for key, until in json.loads((out / REVOKED).read_text()).items()
        }
    except FileNotFoundError:
        return {}


def _read_seed(path: Path, kind: KeyKind) -> str | None:
    from appliance.bus.node_keys import public_key_of

    def check(text: str) -> str:
        public_key_of(text, kind)
        return text

    return _read(path, check)


def _read(path: Path, check: Callable[[str], str]) -> str | None:
    """What `check` makes of a small file; None where it is none, which is told."""
    try:
        with path.open() as file:
            return check(file.read(MAX_FILE_BYTES))
    except OSError as error:
        warn(f"{path} cannot be read: {error.strerror}")
    except ValueError as error:
        warn(f"{path} {error}")
    return None
