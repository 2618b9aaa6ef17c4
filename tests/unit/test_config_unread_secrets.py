"""Secrets in a text that is no YAML: hidden by the words before them, at a cost that grows as the text does."""

from __future__ import annotations

import pytest

from appliance.config.secrets import BLOT, redact_unread

MEGABYTE = 1 << 20


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("token: abc def", f"token: {BLOT}"),
        ('my-api_key" = abc', f'my-api_key" = {BLOT}'),
        ("nodes: {PassWord: abc}", f"nodes: {{PassWord: {BLOT}"),
        ("secret:\n  abc\nport: 1", f"secret:\n  {BLOT}\nport: 1"),
        ("seed: {file: /a/b}", "seed: {file: /a/b}"),
        ("seed: {file: /a/b, token: abc}", f"seed: {BLOT}"),
        ("a: token: abc", f"a: token: {BLOT}"),
        ("tokens", "tokens"),
        ("url: nats://me:abc@host", "url: nats://******@host"),
    ],
)
def test_what_follows_a_word_for_a_secret_is_hidden(text: str, shown: str) -> None:
    assert redact_unread(text) == shown


@pytest.mark.parametrize(
    "piece", ["a", "secret", "no", "a:", "secret: ", "-", " ", "\n", "secret:{", "://", "'"]
)
def test_a_line_of_a_megabyte_is_read_in_its_length_and_not_in_the_square_of_it(piece: str) -> None:
    text = f" ex{piece * (MEGABYTE // len(piece))}"
    assert len(redact_unread(text)) <= len(text) + len(BLOT)
