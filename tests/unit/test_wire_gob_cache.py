"""The memory of type descriptors: what peers really use stays, however many others come by."""

from __future__ import annotations

import pytest

from appliance.errors import DecodeError
from appliance.wire.gob.decode import (
    MAX_KEPT_BYTES,
    MAX_NEWCOMERS,
    MAX_REGULARS,
    USES_TO_STAY,
    DescriptorCache,
)
from appliance.wire.gob.plan import Descriptor
from tests.support import gob_streams as gob


def raw_of(number: int) -> bytes:
    return gob.struct_type(100 + number, ("ID", gob.INT))


OURS = raw_of(0)


def use(cache: DescriptorCache, raw: bytes) -> Descriptor:
    descriptor = cache.get(raw)
    cache.keep(descriptor)
    return descriptor


def make_regular(cache: DescriptorCache, raw: bytes) -> Descriptor:
    for _ in range(USES_TO_STAY):
        descriptor = use(cache, raw)
    return descriptor


def test_descriptor_is_read_once_when_its_peer_goes_on():
    cache = DescriptorCache([OURS])
    first = use(cache, raw_of(1))
    assert use(cache, raw_of(1)) is first


def test_flood_of_new_ones_is_bounded_and_pushes_out_no_regular():
    cache = DescriptorCache([OURS])
    regular = make_regular(cache, raw_of(1))
    for number in range(2, 500):
        use(cache, raw_of(number))
        assert len(cache) <= 1 + MAX_REGULARS + MAX_NEWCOMERS
    assert cache.get(raw_of(1)) is regular
    assert len(cache._uses) <= MAX_REGULARS + MAX_NEWCOMERS


def test_flood_that_repeats_itself_pushes_out_no_regular_that_is_used():
    cache = DescriptorCache([OURS])
    regular = make_regular(cache, raw_of(1))
    for number in range(2, 200):
        make_regular(cache, raw_of(number))
        assert use(cache, raw_of(1)) is regular
        assert len(cache) <= 1 + MAX_REGULARS + MAX_NEWCOMERS
    assert len(cache._uses) <= MAX_REGULARS + MAX_NEWCOMERS


def test_pinned_one_is_never_read_again():
    cache = DescriptorCache([OURS])
    pinned = cache.latest
    for number in range(1, 60):
        make_regular(cache, raw_of(number))
    assert use(cache, OURS) is pinned
    assert cache.latest is pinned


def test_huge_descriptor_is_not_kept():
    cache = DescriptorCache([OURS])
    huge = gob.struct_type(65, ("x" * MAX_KEPT_BYTES, gob.INT))
    first = use(cache, huge)
    assert use(cache, huge) is not first
    assert len(cache) == 1


def test_descriptor_that_is_none_is_refused_each_time():
    cache = DescriptorCache([OURS])
    for _ in range(2):
        with pytest.raises(DecodeError):
            cache.get(b"\x02\x01\x00")
    assert len(cache) == 1
