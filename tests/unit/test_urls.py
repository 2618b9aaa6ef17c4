"""Which URLs may be fetched, and which machines are on the open internet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.urls import (
    find_broker_address_problem,
    find_pattern_problem,
    find_permission,
    is_public_address,
    parse_url,
)


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("http://Example.COM", "http://example.com/"),
        ("HTTPS://example.com.:443/a?b=c#d", "https://example.com/a?b=c"),
        ("http://example.com:8080/%C3%BC", "http://example.com:8080/%C3%BC"),
        ("http://example.com/ü b\\c", "http://example.com/%C3%BC%20b%5Cc"),
        ("http://example.com/?q=[1] 2", "http://example.com/?q=%5B1%5D%202"),
        ("http://[0:0::1]:81/", "http://[::1]:81/"),
    ],
)
def test_a_url_is_read_in_one_way_and_asked_for_as_it_was_read(text, asked):
    assert parse_url(text).text == asked
    assert parse_url(asked).text == asked


@pytest.mark.parametrize(
    "text",
    [
        *("", "example.com", "/a", "ftp://example.com/", "file:///etc/passwd", "http:///a"),
        *("http://user@example.com/", "http://a:b@example.com/", "http://example.com@evil/"),
        *("http://example.com\\@evil/", "http://exa mple/", "http://ex\nample/", "http://ü/"),
        *("http://example.com:0/", "http://example.com:65536/", "http://example.com:x/"),
        *("http://a..b/", "http://[::1/", "http://[1.2.3.4]/", "http://./", "http://h/\ud800"),
        *("http://h/a/../b", "http://h/%2e%2E/b", "http://h/%252e./b", "http://h/a/..;x/b"),
        *("http://h/..%2fb", "http://h/..%5cb", "http://h/a/.", "http://h/" + "a" * 9_000),
    ],
)
def test_what_could_be_read_in_two_ways_is_no_url(text):
    assert isinstance(parse_url(text), str)


@pytest.mark.parametrize(
    ("pattern", "url", "allowed"),
    [
        ("http://h/a", "http://h/a", True),
        ("http://h", "http://h/", True),
        ("http://h:80/", "http://H/", True),
        ("http://h/a", "https://h/a", False),
        ("http://h/a", "http://h:81/a", False),
        ("http://h/a", "http://h/a/", False),
        ("http://h/a", "http://h/ab", False),
        ("http://h/a", "http://h/a?x", False),
        ("http://h/a", "http://h.evil/a", False),
        ("http://h/*", "http://h/a", True),
        ("http://h/*", "http://h/a/b", False),
        ("http://h/*", "http://h/a%2Fb", False),
        ("http://h/a*c/d", "http://h/abc/d", True),
        ("http://h/**", "http://h/", True),
        ("http://h/**", "http://h/a/b?c=d", True),
        ("http://h/a/**", "http://h/a", False),
        ("http://h/a/**", "http://h/a/", True),
        ("http://h/a/**", "http://h/b/c", False),
        ("http://h/a?id=*", "http://h/a?id=7", True),
        ("http://h/a?id=*", "http://h/a", False),
        ("http://h/a?id=*", "http://h/a?di=7", False),
        ("http://h/a b", "http://h/a%20b", True),
        ("http://h/[ab]", "http://h/a", False),
        ("http://[::1]/**", "http://[0::1]/x", True),
        ("http://127.0.0.1/**", "http://127.1/x", False),
    ],
)
def test_scheme_host_and_port_agree_and_wildcards_stand_for_parts_of_the_path(
    pattern, url, allowed
):
    permission = find_permission(parse_url(url), [pattern])
    assert (permission is not None) is allowed
    if permission is not None:
        assert permission.names_host


def test_any_covers_everything_and_names_no_host_and_nothing_covers_nothing():
    url = parse_url("http://h/")
    assert find_permission(url, None) == (False,)
    assert find_permission(url, []) is None


@pytest.mark.parametrize(
    ("pattern", "part"),
    [
        ("http://*.example.com/**", "written out"),
        ("http://*/**", "written out"),
        ("http://h:*/", "written out"),
        ("http://h/**/a", "whole rest"),
        ("http://h/a**", "whole rest"),
        ("http://h/#a", "never sent"),
        ("h/a", "form http"),
        ("http://u@h/", "user name"),
        ("http://h/../a", "different ways"),
    ],
)
def test_a_pattern_that_names_no_machine_is_none(pattern, part):
    assert part in find_pattern_problem(pattern)


@pytest.mark.parametrize(
    "pattern", ["http://h", "https://${node}.example.com:8443/a/*/b?c=*", "http://[::1]:8080/**"]
)
def test_good_patterns_have_no_problem(pattern):
    assert find_pattern_problem(pattern) is None


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.9.10", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1"),
        *("169.254.169.254", "100.64.0.1", "100.100.100.200", "168.63.129.16", "224.0.0.1"),
        *("255.255.255.255", "192.0.2.1", "198.18.0.1", "240.0.0.1"),
        *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1"),
        *("2002:7f00:1::", "2002:a00:1::1", "2001:db8::1"),
        "2001:0:4136:e378:8000:63bf:80ff:fffe",  # Teredo of 127.0.0.1
    ],
)
def test_machines_of_ones_own_are_not_public(address):
    assert not is_public_address(address)


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_the_open_internet_is_public(address):
    assert is_public_address(address)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("nats://hub:0", "0 is no port"),
        ("nats://hub:65536", "65536 is no port"),
        ("tls://hub:99999", "99999 is no port"),
        ("nats://[1:2:3]:4222", "[1:2:3] is no IPv6 address"),
        ("nats://[::1.2.3.4.5]", "[::1.2.3.4.5] is no IPv6 address"),
        ("nats://.:4222", ". is no host"),
        ("nats://a..b", "a..b is no host"),
        ("nats://.a", ".a is no host"),
        (f"nats://{'a' * 64}.b", f"{'a' * 64}.b is no host"),
        ("nats://10.0.0.256:4222", "10.0.0.256 is no IPv4 address"),
        ("nats://1.2.3.4.5", "1.2.3.4.5 is no IPv4 address"),
    ],
)
def test_broker_addresses_that_can_never_work_are_told(address, said):
    assert find_broker_address_problem(address) == said


@pytest.mark.parametrize(
    "address",
    [
        *("nats://hub", "nats://hub:1", "tls://nats.example.com.:65535", "nats://127.1:4222"),
        *(
            "nats://[::1]:4222",
            "nats://[::ffff:10.0.0.1]",
            "nats://hub_1-a:4222",
            "nats://10.0.0.1",
        ),
    ],
)
def test_broker_addresses_that_may_work_have_no_problem(address):
    assert find_broker_address_problem(address) is None


@given(st.text(max_size=30) | st.text("ab/.%2eEfF\\;@:?#", max_size=20).map("http://h/".__add__))
def test_reading_never_fails_and_is_stable(text):
    url = parse_url(text)
    if not isinstance(url, str):
        again = parse_url(url.text)
        assert again == url
        assert ".." not in url.path.split("/")
        assert url.text.isascii()
