"""Which secrets and certificates a set names, found by the type of the setting. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from appliance.core.settings import Section, Setting, parts_of
from appliance.core.specs import DesiredState, SecretRef


def find_secret_refs(desired: DesiredState) -> Mapping[str, SecretRef]:
    """Every one by the place in the config that names it, such as ``broker.tls.cert``."""
    found = dict(_find(DesiredState, desired, ""))
    for name, method in desired.methods.items():
        for secret in method.http.secret_headers if method.http is not None else ():
            place = f"methods.{name}.http.headers.{secret.header}"
            found[place] = SecretRef(kind=secret.kind, name=secret.name)
    return found


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
