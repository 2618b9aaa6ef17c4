"""What runs on nodes, and the words with which it is ended: asked of the nodes themselves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import msgspec

from appliance.api.model import Programs, ProgramsOfNode, RunningProgram
from appliance.api.submission import Submission
from appliance.core.current import Current
from appliance.core.message import CALLER_FILE, Message
from appliance.core.method import PROGRAM_LIST, PROGRAM_METHODS
from appliance.core.names import MethodName
from appliance.core.specs import DesiredState
from appliance.errors import RequestInvalid, StoreError
from appliance.jobs.asking import Asking, Said
from appliance.outbox.store import MessageStore
from appliance.workers.peers import PeerBook
from appliance.workers.router import Router

LIST_WAIT_S = 5.0
UNKNOWN = "it has not said yet that it is an appliance, and others know no such question"


class ProgramWords:
    """Asks nodes about programs, on the subjects of the methods that start them."""

    def __init__(
        self,
        router: Router,
        store: MessageStore,
        asking: Asking,
        peers: PeerBook,
        submission: Submission,
        desired: Current[DesiredState],
    ) -> None:
        self._router = router
        self._store = store
        self._asking = asking
        self._peers = peers
        self._submission = submission
        self._desired = desired

    def understands(self, node: str) -> bool:
        """Whether a node is known to understand such words; to others they are not said."""
        return self._peers.is_appliance(node) or node in self._desired.value.run_nodes

    def can_end(self, method: str) -> bool:
        """Whether what a method has started can be ended."""
        info = self._router.methods.get(MethodName(method))
        return info is not None and info.runs_programs

    async def ask(
        self,
        node: str,
        to_node: str,
        method: str,
        order: str,
        arguments: Sequence[str],
        *,
        expires_s: float,
    ) -> Said:
        """Say a word about what `method` has started at a node, and wait for the answer."""
        try:
            message = Message(
                to_node=to_node,
                from_node=node,
                method=method,
                method_args=tuple(arguments),
                reply_method=self._submission.answer_method(node, to_node),
                file_name=CALLER_FILE,
            )
            record = self._router.make_record(message, expires_s=expires_s, order=order)
        except RequestInvalid as error:
            return Said(failure=str(error))
        answer = self._asking.expect(record.id, to_node)
        try:
            await self._store.put([record])
            said = await answer
            if said.failure:
                # told to whoever asked: it is no dead letter of anybody's
                await self._store.drop([record.id])
            return said
        except StoreError as error:
            return Said(failure=str(error))
        finally:
            answer.cancel()

    async def list(self, nodes: Sequence[str], from_node: str | None) -> Programs:
        """What runs on each of them."""
        found = await asyncio.gather(*(self._list(node, from_node) for node in nodes))
        return Programs(nodes=list(found))

    async def _list(self, to_node: str, from_node: str | None) -> ProgramsOfNode:
        method = self._method_of(to_node)
        if method is None:
            why = f"the config here names no method of {to_node} that runs programs"
            return ProgramsOfNode(node=to_node, runs_programs=False, error=why)
        if not self.understands(to_node):
            return ProgramsOfNode(node=to_node, error=UNKNOWN)
        try:
            node = self._submission.sender(from_node, to_node, method)
        except RequestInvalid as error:
            return ProgramsOfNode(node=to_node, error=str(error))
        try:
            async with asyncio.timeout(LIST_WAIT_S):
                said = await self.ask(
                    node, to_node, method, PROGRAM_LIST, (), expires_s=2 * LIST_WAIT_S
                )
        except TimeoutError:
            return ProgramsOfNode(node=to_node, is_silent=True, error="no answer")
        if said.failure:
            return ProgramsOfNode(node=to_node, error=said.failure)
        return ProgramsOfNode(node=to_node, programs=_read(said.text))

    def _method_of(self, node: str) -> str | None:
        """A method of a node that runs programs, by the config."""
        known = {method for name, method in self._desired.value.declared_acks if name == node}
        methods = self._router.methods
        running = [name for name in known if name in methods and methods[name].runs_programs]
        for name in (*PROGRAM_METHODS, *sorted(running)):
            if MethodName(name) in running:
                return name
        return None


def _read(text: str) -> list[RunningProgram]:
    """What is no line of ours is left out."""
    found = []
    for line in text.splitlines():
        try:
            found.append(msgspec.convert(json.loads(line), RunningProgram))
        except (ValueError, msgspec.ValidationError):
            continue
    return found
