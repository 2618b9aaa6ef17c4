"""Which known word was meant, and words and values as they are shown in messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches


def find_nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` was probably meant to be."""
    candidates = list(known)
    found = _find_closest(word, candidates)
    if found is not None:
        return found
    lowered = {candidate.lower(): candidate for candidate in candidates}
    found = _find_closest(word.lower(), lowered)
    return lowered[found] if found is not None else None


def _find_closest(word: str, candidates: Iterable[str]) -> str | None:
    close = get_close_matches(word, candidates, n=5, cutoff=0.6)
    # letters that changed places are the commonest slip, and the measure knows nothing of them
    letters = sorted(word)
    same = (candidate for candidate in close if sorted(candidate) == letters)
    return next(same, close[0] if close else None)


def did_you_mean(nearest: str | None) -> str:
    """The end of a sentence about a word that nobody knows; "" where nothing is near to it."""
    return f"; did you mean {nearest}?" if nearest else ""


def did_you_mean_quoted(nearest: str | None) -> str:
    """As `did_you_mean`, for words that stand in quotes in the sentence."""
    return did_you_mean(shorten(nearest) if nearest else None)


def shorten(text: object, limit: int = 60) -> str:
    """`text` in quotes as it may be shown in a message."""
    shown = str(text)
    shown = shown if len(shown) <= limit else f"{shown[: limit - 1]}…"
    return '"' + shown.replace("\n", "\\n") + '"'


def describe_kind(value: object) -> str:
    """What stands where something else was expected, as ``nothing``, ``a number``, ``a list``: never its content, which may
    be a secret.
    """
    match value:
        case None:
            return "nothing"
        case bool():
            return f"the truth value {str(value).lower()}"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "a list"
        case Mapping():
            return "a map"
        case _:
            return "something unusable"
