"""gdb's commands `hyp …`. What they do is imported when one first runs, so that gdb starts as fast as without them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

import gdb

if TYPE_CHECKING:
    from collections.abc import Sequence

REGIMES = ("host-s2", "hyp-s1", "guest-s2:")
OPTIONS = ("/owner", "/state", "/kind", "/regime", "/each")
OWNERS = ("host", "hyp", "guest:", "locked", "poisoned")
STATES = ("owned", "shared-owned", "shared-borrowed", "no-page", "mixed")
KINDS = ("block", "page", "annotation", "invalid", "reserved", "loop", "unreadable")
# What may stand behind an option.
VALUES = {"/owner": OWNERS, "/state": STATES, "/kind": KINDS, "/regime": REGIMES, "/each": ()}

FILTERS = """
RANGE is ADDRESS, or FIRST..END, of expressions as gdb takes them.
/owner NAME   of this owner: host, hyp, ffa, guest:0x1000
/state NAME   in this state: owned, shared-owned, shared-borrowed, no-page, mixed
/kind NAME    block, page, annotation, invalid, reserved, loop, unreadable
/each         each descriptor by itself; else those that follow on each other are one line"""


class Spec(NamedTuple):
    """A command: the function that is its answer, what may stand behind it, and its help."""

    name: str
    answer: str
    words: Sequence[str]
    help: str


COMMANDS = [
    Spec("info", "answers:info", (), "What was found: hypervisor, tables, RAM, and what is wrong."),
    Spec(
        "s2",
        "answers:stage2",
        OPTIONS,
        "The host's stage 2, or with /regime guest-s2:HANDLE a guest's.\n"
        "Usage: hyp s2 [RANGE] [/regime NAME] [/owner NAME] [/state NAME] [/kind NAME] [/each]" + FILTERS,
    ),
    Spec(
        "s1",
        "answers:stage1",
        OPTIONS,
        "EL2's own tables.\nUsage: hyp s1 [RANGE] [/owner NAME] [/state NAME] [/kind NAME] [/each]" + FILTERS,
    ),
    Spec(
        "owners",
        "answers:owners",
        ("/owner",),
        "Whose each page of RAM is, by what all sides say.\nUsage: hyp owners [RANGE] [/owner NAME]",
    ),
    Spec(
        "walk",
        "answers:walk",
        REGIMES,
        "The way of one address through a regime's tables.\nUsage: hyp walk REGIME ADDRESS",
    ),
    Spec("page", "answers:page", (), "Everything about one physical page.\nUsage: hyp page ADDRESS"),
    Spec("locks", "answers:locks", (), "Every ticket lock: tickets, who holds it, how many wait."),
    Spec("cpus", "answers:cpus", (), "Each CPU: exception level, where it is, the registers that describe tables."),
    Spec("vms", "answers:vms", (), "The VMs that the hypervisor knows, and their vCPUs."),
]


class Prefix(gdb.Command):
    """What a hypervisor at EL2 has mapped, owns, shares and locks.

    Hypervisors are hyp and Linux's pKVM, behind QEMU's gdb server, hyp's own, or in a snapshot that is open as a core.
    The machine is left as it was.
    """

    def __init__(self) -> None:
        super().__init__("hyp", gdb.COMMAND_DATA, gdb.COMPLETE_NONE, prefix=True)


class HypCommand(gdb.Command):
    """One of them."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.__doc__ = spec.help
        super().__init__(f"hyp {spec.name}", gdb.COMMAND_DATA)

    def invoke(self, argument: str, _from_tty: bool) -> None:
        """Prints the answer; what goes wrong is one sentence."""
        from hypgdb.memory import Problem

        module, function = self.spec.answer.split(":")
        answer = getattr(import_module(f"hypgdb.{module}"), function)
        try:
            for line in answer(argument):
                print(line)
        except Problem as problem:
            raise gdb.GdbError(str(problem)) from None

    def complete(self, text: str, word: str) -> Sequence[str]:
        """Options, what they take, and regimes."""
        before, _, typed = text.rpartition(" ")
        options = before.split()[-1:]
        words = VALUES.get(options[0], self.spec.words) if options else self.spec.words
        # gdb completes from the last break in a word, which a slash or hyphen is.
        cut = len(typed) - len(word)
        return [candidate[cut:] for candidate in words if candidate.startswith(typed)]


def register() -> None:
    """Makes gdb know them."""
    Prefix()
    for spec in COMMANDS:
        HypCommand(spec)
