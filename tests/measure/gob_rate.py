"""Messages per second through the codecs, on one core: gob beside CBOR on the same message.

`python -m tests.measure.gob_rate [seconds per figure]`. CBOR is decoded by cbor2, which is compiled; both figures
include the checks of every field. The messages are the recorded ones of a Go node.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from appliance.wire.cbor import decode_cbor, encode_cbor
from appliance.wire.gob import decode_gob, encode_gob
from tests.support.wire_cases import Vector, load_vectors

SHOWN = ("hello", "cli_request", "cli_reply", "relay", "unicode", "bulk")


def measure(call: Callable[[], object], seconds: float) -> float:
    """Calls per second, the best of five rounds: what disturbs only ever slows down."""
    calls, best = 1, 0.0
    while best < 0.02:
        calls *= 2
        started = time.perf_counter()
        for _ in range(calls):
            call()
        best = time.perf_counter() - started
    calls = max(1, round(calls * seconds / 5 / best))
    rates = []
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(calls):
            call()
        rates.append(calls / (time.perf_counter() - started))
    return max(rates)


def measure_vector(vector: Vector, seconds: float) -> list[float]:
    message = vector.message
    return [
        measure(lambda: decode_gob(vector.gob), seconds),
        measure(lambda: decode_cbor(vector.cbor), seconds),
        measure(lambda: encode_gob(message), seconds),
        measure(lambda: encode_cbor(message), seconds),
    ]


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    print(
        "message        bytes gob  cbor   decode gob     cbor  ratio   encode gob     cbor  ratio"
    )
    for vector in load_vectors():
        if vector.name not in SHOWN:
            continue
        decode_g, decode_c, encode_g, encode_c = measure_vector(vector, seconds)
        print(
            f"{vector.name:12s} {len(vector.gob):8d} {len(vector.cbor):6d}"
            f"   {decode_g:8.0f}/s {decode_c:7.0f}/s  {decode_g / decode_c:5.2f}"
            f"   {encode_g:8.0f}/s {encode_c:7.0f}/s  {encode_g / encode_c:5.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
