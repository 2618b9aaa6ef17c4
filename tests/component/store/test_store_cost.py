"""What measures the store still finds it: figures are asked for now and then only."""

import pytest

from tests.measure.store_cost import measure, receive, send


@pytest.mark.parametrize("work", [send, receive])
async def test_the_cost_of_a_message_is_told_for_the_loop_and_for_the_writer(work):
    loop_us, writer_us, wall_us = await measure(work, count=64, batch=8)
    assert 0 < loop_us <= wall_us
    assert writer_us > 0
