"""Which secrets and certificates a set names, found by the type of the setting. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from appliance.core.settings import Section, Setting, parts_of
from appliance.core.specs import DesiredState, SecretRef
from appliance.core.times import read_utc


def find_secret_refs(desired: DesiredState) -> Mapping[str, SecretRef]:
    """Every one by the place in the config that names it, such as ``broker.tls.cert``."""
    found = dict(_find(DesiredState, desired, ""))
    for name, method in desired.methods.items():
        for secret in method.http.secret_headers if method.http is not None else ():
            place = f"methods.{name}.http.headers.{secret.header}"
            found[place] = SecretRef(kind=secret.kind, name=secret.name)
    return found


def find_signing_ref(desired: DesiredState) -> SecretRef | None:
    """What the daemon signs with: a key of its own, or the one that it logs in by; None where there is neither."""
    auth = desired.broker.auth
    login = None if auth is None else auth.nkey_seed or auth.credentials
    return desired.signing.key or login


def find_secret_ends(desired: DesiredState) -> Mapping[str, float]:
    """When those end for which the config says so: wall-clock seconds by the place of the secret."""
    ends = {
        f"admin.tokens.{item.name}.token": read_utc(item.expires_at)
        for item in desired.admin.tokens
        if item.expires_at is not None
    }
    return {place: at for place, at in ends.items() if at is not None}


def secret_variables(desired: DesiredState) -> frozenset[str]:
    """Environment variables that the config names as holding secrets; no command of a peer may read them."""
    return frozenset(ref.name for ref in find_secret_refs(desired).values() if ref.kind == "env")


def _find(spec: type, value: object, prefix: str) -> Iterator[tuple[str, SecretRef]]:
    for part in parts_of(spec):
        there = getattr(value, part.attr, None)
        place = prefix + ".".join(part.keys)
        if isinstance(there, SecretRef):
            yield place, there
        elif isinstance(part, Setting) and part.entry is not None:
            for item in there or ():
                # by its name: another place in the list is no other secret
                yield from _find(part.entry, item, f"{place}.{item.name}.")
        elif isinstance(part, Section) and there is not None:
            yield from _find(part.spec, there, f"{place}." if part.keys else prefix)
