"""What the rest of the program must know of a method, apart from its code.

Every file in `appliance/methods/` that handles a method declares one `MethodInfo`; the compiler, the planner and
the subscribers work from these values, so a new method is one new file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from appliance.core.names import Category, MethodName, NodeName


class OnCrash(StrEnum):
    """What to do with a message whose handler was running when the daemon died."""

    RERUN = "rerun"
    """The handler is idempotent: run it again, the effect stays single."""
    INTERRUPT = "interrupt"
    """Running twice may do harm: report the message as interrupted, unless the subject says `rerun: true`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodInfo:
    """Facts of one method.

    `acks_by_default` is the ACK half of the kind in the wire's table (only REQHello is NACK there); a layer below
    the entry does not change it, see `config.compiler.compile`. `subject_node` replaces the own node in the subscription's
    subject (errorCentral). `replies` tells that a handler answers with a message of its own. `options` names the
    subscriber fields that only this method knows (``allow_commands``). `directory` and `file_name` are what
    scheduled messages of this method carry when the config names none.
    """

    name: MethodName
    summary: str
    category: Category
    acks_by_default: bool = True
    subject_node: NodeName | None = None
    replies: bool = False
    on_crash: OnCrash = OnCrash.RERUN
    journals: bool = False
    """The handler notes durably where it is about to write, so its messages are kept on disk until handled."""
    is_prompt: bool = False
    """The handler never waits, and what it does may be done twice: its messages are taken in and done in one commit.

    Where they are acknowledged when received, too. See `workers.finishing`.
    """
    computes: bool = False
    """The handler needs a core for itself, and nothing of the daemon but the message and the settings.

    It runs in one of the processes that `workers` counts. See `methods.computing`.
    """
    relays: bool = False
    """Subscribes ``<final>.<own>`` for each node in `relay_to`, and not the own node."""
    takes_own: bool = False
    """Takes messages of the own node alone, whatever `accept_from` says: what it does with them, it does in their name."""
    options: frozenset[str] = frozenset()
    directory: str = ""
    file_name: str = ""
    path_argument: int | None = None
    """Which argument is the file at the node that `allow_paths` must cover; None where none is."""
    arguments: str = ""
    """The arguments in the words of a usage line, such as ``PROGRAM [ARG…]``."""
    acks_when_done: bool | None = None
    """What `ack.on` is whatever the config says: a copy is there when its acknowledgement is. None: as it says.

    Such a method is always acknowledged.
    """
    keeps_time: bool = False
    """The handler may take longer than its methodTimeout: it bounds each step by it instead."""
    companions: tuple[MethodName, ...] = ()
    """Methods subscribed with this one, with its settings."""
    runs_programs: bool = False
    """Its subject takes the words of `core.programs`, too: to see and end what it has started."""
    is_companion: bool = False
    """Comes along with another method and is never declared by itself."""
    is_audited: bool = False
    """What peers ask of it is entered in the audit trail: it acts on the machine, beyond the data directory."""
    adds_up: bool = False
    """Whether data that arrives in several messages, one after the other, comes to the same as in one."""
    goes_on_with: str = ""
    """The argument by which an answer in pieces goes on behind a piece that tells its place; "" where none does."""
    for_answers: bool = True
    """Whether an answer may arrive as this method without more being said; only asked of events."""

    def __post_init__(self) -> None:
        assert not (self.is_prompt and (self.journals or self.on_crash is OnCrash.INTERRUPT))
        # what these need lies in the daemon
        assert not (self.computes and (self.is_prompt or self.journals or self.runs_programs))

    @property
    def may_reply(self) -> bool:
        """Whether a peer may ask that an answer arrives as this method.

        Not commands: the answering node would order them in its own name, so that the right to ask one node a
        question were the right to command a third one.
        """
        return self.category is Category.EVENT and self.subject_node is None and self.for_answers


MethodTable = Mapping[MethodName, MethodInfo]


# Appliances look at and end each other's programs with messages of methods that run programs in all but the method's name in
# the body: subject, rights and way are those of the method that started the program.

PROGRAM_STOP = "REQProgramStop"
PROGRAM_LIST = "REQProgramList"
PROGRAM_ORDERS = (PROGRAM_STOP, PROGRAM_LIST)
PROGRAM_METHODS = ("REQCliCommand", "REQCliCommandCont")
"""Methods of the program's own that run programs; those of a config with `exec` do, too."""
