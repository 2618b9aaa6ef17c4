"""What came into a config from the environment: values, and how they are written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache

from appliance.config.positions import SourceMap
from appliance.config.scalars import NumberRefused, resolve_plain, substitute
from appliance.core.hidden import Hidden
from appliance.core.settings import Setting, leaves_of
from appliance.core.specs import DesiredState, PublisherSpec, Schedule, SubscriberSpec

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-[^{}]*)?\}")


def find_hidden(
    spots: Sequence[SourceMap],
    files: Mapping[str, str],
    show: Callable[[], Mapping[str, str]],
    environ: Mapping[str, str],
) -> Hidden:
    """Everything that the environment put into the config.

    Args:
        files: the texts as they are; `show` gives them as they may be shown. What stands in these is no secret.
    """
    names = {name for text in files.values() for name in _REFERENCE.findall(text)}
    texts = {
        environ[name]: f"${{{name}}}" for name in sorted(names) if environ.get(name, "").strip()
    }
    settings: dict[tuple[str, object], str] = {}
    for spot in spots:
        for key, written in _replaced(spot, ""):
            value = substitute(written, environ).text
            settings.update(dict.fromkeys(_readings(key, value), written))
    shown = "\n".join(show().values()) if texts else ""
    hidden = {text: written for text, written in texts.items() if not _stands_in(text, shown)}
    return Hidden(hidden, settings)


def _stands_in(text: str, shown: str) -> bool:
    return text in shown and re.search(rf"(?<!\w){re.escape(text)}(?!\w)", shown) is not None


def _replaced(spot: SourceMap, key: str) -> Iterator[tuple[str, str]]:
    """The key and the written text of every scalar in which something was replaced."""
    if spot.written is not None:
        yield key, spot.written
    for name, child in spot.children.items():
        yield from _replaced(child, name if isinstance(name, str) else key)
    for name, _, child in spot.dropped:
        yield from _replaced(child, name)


def _readings(key: str, text: str) -> Iterator[tuple[str, object]]:
    """Name and value of the settings that the text may have become."""
    yield key, text
    try:
        value = resolve_plain(text) if text else None
    except NumberRefused:
        return
    if value is None:
        return
    if not isinstance(value, str):
        yield key, value
    for setting in _settings_by_key().get(key, ()):
        try:
            read = setting.read(value)
        except (ValueError, TypeError):
            continue
        if isinstance(read, str | int | float):
            yield setting.attr, read


@cache
def _settings_by_key() -> dict[str, list[Setting]]:
    found: dict[str, list[Setting]] = {}
    for spec in (DesiredState, PublisherSpec, SubscriberSpec, Schedule):
        for setting in leaves_of(spec):
            found.setdefault(setting.keys[-1], []).append(setting)
    return found
