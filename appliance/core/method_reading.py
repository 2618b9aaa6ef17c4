"""From an entry of `methods` in the config to its value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from appliance.core.layers import Tree, as_map, find_value, read_values
from appliance.core.method import OnCrash
from appliance.core.names import MethodName
from appliance.core.user_method import SecretHeader, UserMethod


def make_method(name: str, entry: Tree, arguments: Mapping[str, Any] | None) -> UserMethod:
    """The value of one entry; faults in it were told before and make no difference here."""
    values = read_values(UserMethod, entry)
    if "file" in values:
        values.setdefault("on_crash", OnCrash.RERUN)
    if "http" in values:
        secrets = tuple(
            SecretHeader(header, kind, source)
            for header, value in as_map(find_value(entry, ("http", "headers"))).items()
            for kind, source in as_map(value).items()
        )
        values["http"] = replace(values["http"], secret_headers=secrets)
    values["args"] = json.dumps(
        arguments or {}, sort_keys=True, ensure_ascii=False, separators=(",", ":")
    )
    return UserMethod(name=MethodName(name), **values)
