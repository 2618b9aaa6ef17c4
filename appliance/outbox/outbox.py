"""The store's former module; see `store`."""

from appliance.outbox.store import MessageStore

__all__ = ["MessageStore"]
