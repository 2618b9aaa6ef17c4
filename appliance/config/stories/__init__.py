"""The stories behind the codes. Codes are stable, names may improve."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from appliance.config.stories import meaning, methods, reading, running, shape
from appliance.config.stories.story import Story

STORIES: Mapping[str, Story] = MappingProxyType(
    {
        story.code: story
        for story in sorted(
            (
                *reading.STORIES,
                *shape.STORIES,
                *meaning.STORIES,
                *methods.STORIES,
                *running.STORIES,
            )
        )
    }
)


def name_of(code: str) -> str:
    """The short name of a code, "" for one that is unknown."""
    story = STORIES.get(code)
    return story.name if story else ""
