"""`setup allow`: opens the cage of the packaged unit as far as somebody asks, by a drop-in of systemd."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from appliance.cli.options import UnusedStateDirOption, warn

UNITS_DIR = Path("/etc/systemd/system")
DROP_IN = "allow.conf"
_HEAD = """\
# Written by `appliance setup allow`, which adds to it; take it away to close the cage again.
"""
_HIDDEN = ("/home", "/root", "/run/user")
"""What `ProtectHome=yes` hides."""
_PRIVATE = ("/tmp", "/var/tmp")
_CAPABILITY = re.compile(r"CAP_[A-Z_]{2,40}")
_GROUP = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_CALLS = {"CAP_CHOWN": "@chown", "CAP_SETUID": "@setuid", "CAP_SETGID": "@setuid"}
"""System calls that the unit denies and the capability is of no use without."""
RUNNER_PARTS = {"Unit": ["Wants=appliance-runner.socket", "After=appliance-runner.socket"]}
NETWORK_PARTS = {"Service": ["IPAddressDeny="]}

Sections = dict[str, list[str]]

PathsOption = list[str] | None


def register(app: typer.Typer) -> None:
    """Add the group."""
    setup = typer.Typer(help="Set up the packaged service on this machine.", no_args_is_help=True)
    setup.callback()(_setup)
    setup.command("allow")(allow)
    app.add_typer(setup, name="setup")


def _setup() -> None:
    """Set up the packaged service on this machine."""


def allow(
    read: Annotated[
        PathsOption,
        typer.Option(metavar="PATH", help="What it may read, below /home and /tmp, too; repeats."),
    ] = None,
    write: Annotated[
        PathsOption,
        typer.Option(metavar="PATH", help="What it may write, with everything below; repeats."),
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A group that it is of, such as adm; repeats."),
    ] = None,
    capability: Annotated[
        list[str] | None,
        typer.Option(metavar="CAP", help="A capability, such as CAP_NET_RAW; repeats."),
    ] = None,
    address: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS",
            help="An address or network such as 10.0.0.0/8 that it may reach: with the first one it reaches no other "
            "beyond this machine; repeats.",
        ),
    ] = None,
    runner: Annotated[
        bool, typer.Option("--runner", help="Start the runner's socket with the daemon.")
    ] = False,
    runner_network: Annotated[
        bool, typer.Option("--runner-network", help="Let the runner's commands use the network.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "--print", help="Print the files, write nothing.")
    ] = False,
    directory: Annotated[
        Path, typer.Option(metavar="DIR", readable=False, help="Where units are kept.")
    ] = UNITS_DIR,
    _state_dir: UnusedStateDirOption = None,
) -> None:
    """Open the cage of the packaged service: paths, groups, capabilities; network for the runner. --address closes it.

    What is asked for is added to a drop-in of the unit. The rights of files hold as ever: what the user `appliance` may not
    read or write, it may not in an open cage, either; hence --group.
    """
    daemon = make_drop_in(
        read=_absolute("--read", read),
        write=_absolute("--write", write),
        groups=_checked("--group", group, _GROUP),
        capabilities=_checked(
            "--capability", [text.upper() for text in capability or ()], _CAPABILITY
        ),
        addresses=_networks(address),
    )
    if runner:
        daemon = merge(daemon, RUNNER_PARTS)
    files: dict[Path, Sections] = {}
    if daemon:
        files[directory / "appliance.service.d" / DROP_IN] = daemon
    if runner_network:
        files[directory / "appliance-runner.service.d" / DROP_IN] = NETWORK_PARTS
    if not files:
        raise typer.BadParameter(
            "say what to allow: --read, --write, --group, --capability, --address, --runner-network"
        )
    for path, wanted in files.items():
        text = render(merge(_read_sections(path), wanted))
        if dry_run:
            typer.echo(f"# {path}\n{text}")
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".new")
        temporary.write_text(text, encoding="utf-8")
        temporary.chmod(0o644)
        os.replace(temporary, path)
        typer.echo(f"wrote {path}")
    if not dry_run:
        names = " ".join(path.parent.name.removesuffix(".d") for path in files)
        typer.echo(f"next: systemctl daemon-reload && systemctl try-restart {names}")
    for place in _absolute("--write", write):
        if not os.path.lexists(place):
            warn(f"{place} is not there yet: install -d -o appliance -g appliance {place}")


def make_drop_in(
    *,
    read: Sequence[str] = (),
    write: Sequence[str] = (),
    groups: Sequence[str] = (),
    capabilities: Sequence[str] = (),
    addresses: Sequence[str] = (),
) -> Sections:
    """The lines that open the cage of `appliance.service` so far."""
    lines: list[str] = []
    if any(_is_below(path, _HIDDEN) for path in (*read, *write)):
        lines.append("ProtectHome=tmpfs")
    for paths, plain, bound in (
        (read, "ReadOnlyPaths", "BindReadOnlyPaths"),
        (write, "ReadWritePaths", "BindPaths"),
    ):
        for path in paths:
            is_hidden = _is_below(path, (*_HIDDEN, *_PRIVATE))
            # a colon would begin the place within the cage
            place = path.replace(":", "\\:") if is_hidden else path
            lines.append(f"{bound if is_hidden else plain}={quote(place)}")
    lines += [f"SupplementaryGroups={name}" for name in groups]
    for name in capabilities:
        # NB: capset: programs with capabilities put away those that they do not need
        calls = " ".join(filter(None, ("capset", _CALLS.get(name))))
        lines += [
            f"CapabilityBoundingSet={name}",
            f"AmbientCapabilities={name}",
            f"SystemCallFilter={calls}",
        ]
    if addresses:
        # what is allowed goes before what is denied, in whichever order it stands
        lines += ["IPAddressDeny=any", "IPAddressAllow=localhost"]
        lines += [f"IPAddressAllow={network}" for network in addresses]
    return {"Service": lines} if lines else {}


def quote(path: str) -> str:
    """A path as a unit has it, which may be missing: specifiers and spaces are none."""
    text = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"-{text}"' if re.search(r'[\s"\\\']', text) else f"-{text}"


def merge(old: Sections, new: Sections) -> Sections:
    """What either has, once."""
    return {
        name: list(dict.fromkeys([*old.get(name, ()), *new.get(name, ())]))
        for name in dict.fromkeys([*old, *new])
    }


def render(sections: Sections) -> str:
    """The file."""
    parts = [
        f"[{name}]\n" + "".join(f"{line}\n" for line in sections[name])
        for name in sorted(sections, reverse=True)
    ]
    return _HEAD + "\n".join(parts)


def _read_sections(path: Path) -> Sections:
    found: Sections = {}
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return found
    name = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            name = line[1:-1]
        elif line and name and not line.startswith(("#", ";")):
            found.setdefault(name, []).append(line)
    return found


def _is_below(path: str, places: Iterable[str]) -> bool:
    return any(path == place or path.startswith(f"{place}/") for place in places)


def _absolute(option: str, paths: Sequence[str] | None) -> list[str]:
    found = [os.path.normpath(path) for path in paths or ()]
    for path in found:
        if not path.startswith("/") or not path.isprintable() or len(path) > 1000:
            raise typer.BadParameter("write an absolute path", param_hint=option)
    return found


def _networks(addresses: Sequence[str] | None) -> list[str]:
    try:
        return [str(ipaddress.ip_network(text, strict=False)) for text in addresses or ()]
    except ValueError:
        raise typer.BadParameter(
            "write an address or network, such as 192.0.2.7 or 10.0.0.0/8, and no name",
            param_hint="--address",
        ) from None


def _checked(option: str, names: Sequence[str] | None, shape: re.Pattern[str]) -> list[str]:
    for name in names or ():
        if shape.fullmatch(name) is None:
            raise typer.BadParameter(f"{name[:80]!r} is none", param_hint=option)
    return list(names or ())
