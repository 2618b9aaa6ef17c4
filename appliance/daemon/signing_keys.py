"""The key that the daemon signs with: read at the start, and again when its file or the config changes."""

from __future__ import annotations

import asyncio

from appliance.bus.auth import read_secret
from appliance.bus.node_keys import read_seed
from appliance.core.current import Current
from appliance.core.secret_refs import find_signing_ref
from appliance.core.signatures import find_strange_key
from appliance.core.specs import DesiredState, SecretRef, SignaturePolicy
from appliance.delivery.signer import Signer, make_signing_key
from appliance.errors import BusUnauthorized

READ_TIMEOUT_S = 10.0


class SigningKeys:
    """Gives the signer its key. What cannot be read leaves the key that is there."""

    def __init__(self, desired: Current[DesiredState], signer: Signer) -> None:
        self._desired = desired
        self._signer = signer
        self._ref = find_signing_ref(desired.value)
        self._loading: asyncio.Task[None] | None = None
        self._trouble: str | None = None
        desired.follow(self._follow)

    async def load(self) -> None:
        """Read it now."""
        ref = self._ref
        if ref is None:
            self._signer.key = self._trouble = None
            return
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                seed = await asyncio.to_thread(_read, ref)
        except (BusUnauthorized, ValueError) as error:
            self._trouble = f"the key to sign with: {error}"
        except TimeoutError:
            self._trouble = f"the key to sign with: {ref.kind} {ref.name} cannot be read in time"
        else:
            self._signer.key = make_signing_key(seed)
            self._trouble = None

    def troubles(self) -> list[str]:
        """What keeps messages of the own nodes from counting elsewhere, in words."""
        fleet = self._desired.value
        signing = {
            spec.node
            for spec in fleet.workers.values()
            if spec.signatures is not SignaturePolicy.OFF
        }
        if not signing:
            return []
        key = self._signer.key
        if key is None or self._trouble is not None:
            return [self._trouble or "messages are to be signed, and there is no key to sign with"]
        strange = find_strange_key(fleet, signing, key.public)
        return [] if strange is None else [strange]

    async def close(self) -> None:
        """Read no more."""
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait({self._loading})

    def _follow(self, desired: DesiredState) -> None:
        ref = find_signing_ref(desired)
        if ref != self._ref:
            self._ref = ref
            self._loading = asyncio.get_running_loop().create_task(
                self.load(), name="read the key to sign with"
            )


def _read(ref: SecretRef) -> bytes:
    return read_seed(read_secret(ref, "the seed"))
