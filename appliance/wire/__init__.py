"""Bytes and messages: what Steward's seed generation puts on the bus. Pure and bounded."""
