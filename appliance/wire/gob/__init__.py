"""Go's gob encoding of one message, as a Go node of the seed reads and writes it."""

from appliance.wire.gob.decode import decode_gob
from appliance.wire.gob.encode import encode_gob

__all__ = ["decode_gob", "encode_gob"]
