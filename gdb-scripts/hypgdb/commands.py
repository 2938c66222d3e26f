"""gdb's commands `hyp …`. What they do is imported when one first runs, so that gdb starts as fast as without them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

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

# Types with a pretty-printer.
PRINTED = (
    "hyp_spinlock",
    "hyp_spinlock_t",
    "hyp_page",
    "kvm_pte_t",
    "hyp::lock::TicketLock",
    "hyp::pool::PageRecord",
    "hyp::desc::Desc",
)

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
    Spec(
        "abort",
        "running:abort",
        (),
        "Lets the machine run until the host faults at its stage 2, and says what and where.\n"
        "The CPU stands where EL2's handler begins.",
    ),
    Spec(
        "break",
        "running:break_at",
        (),
        "A breakpoint at a function of EL2's, where it runs: Linux's EL2 is not where it was linked.\n"
        "Usage: hyp break SYMBOL",
    ),
    Spec(
        "symbols",
        "running:load_symbols",
        (),
        "Loads EL2's symbols where EL2 runs: names, lines and backtraces there. At each boot that is elsewhere.",
    ),
    Spec(
        "snapshot",
        "inspector:snapshot",
        (),
        "A snapshot that the inspector opens: all that EL2 maps, and every register.\nUsage: hyp snapshot FILE",
    ),
    Spec(
        "tui",
        "inspector:tui",
        (),
        "The inspector's screen on the same gdb server; gdb is back when it ends.\n"
        "The inspector is the one that INSPECTOR names in the environment, the shell's, or one that is built beside\n"
        "these scripts.",
    ),
    Spec("vms", "answers:vms", (), "The VMs that the hypervisor knows, and their vCPUs."),
]


class Function(NamedTuple):
    """A convenience function."""

    name: str
    answer: str
    help: str


FUNCTIONS = [
    Function("hyp_pa", "values:hyp_pa", "Where an address of EL2's leads to, physically: $hyp_pa(VA)."),
    Function("hyp_va", "values:hyp_va", "Where EL2's linear range has a physical address: $hyp_va(PA)."),
    Function("s2_owner", "values:s2_owner", 'Whose a physical page is, as in "host": $s2_owner(PA).'),
    Function(
        "s2_state", "values:s2_state", 'What the host says of a physical page, as in "shared-owned": $s2_state(PA).'
    ),
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
        """Prints the answer."""
        for line in _answer(self.spec.answer, argument):
            print(line)

    def complete(self, text: str, word: str) -> Sequence[str]:
        """Options, what they take, and regimes."""
        before, _, typed = text.rpartition(" ")
        options = before.split()[-1:]
        words = VALUES.get(options[0], self.spec.words) if options else self.spec.words
        if self.spec.name == "break":
            words = _answer("running:functions", None)
        # gdb completes from the last break in a word, which a slash or hyphen is.
        cut = len(typed) - len(word)
        return [candidate[cut:] for candidate in words if candidate.startswith(typed)]


class HypFunction(gdb.Function):
    """One of the functions."""

    def __init__(self, function: Function) -> None:
        self.answer = function.answer
        self.__doc__ = function.help
        super().__init__(function.name)

    def invoke(self, *arguments: gdb.Value) -> Any:
        """Its value for an address."""
        if len(arguments) != 1:
            raise gdb.GdbError("one address stands in the parentheses")
        found = _answer(self.answer, int(arguments[0]) % (1 << 64))
        return _answer("values:text", found) if isinstance(found, str) else found


def _answer(place: str, argument: object) -> Any:
    """What `module:function` of this package says; what goes wrong is one sentence."""
    from hypgdb.memory import Problem

    module, function = place.split(":")
    try:
        return getattr(import_module(f"hypgdb.{module}"), function)(argument)
    except (Problem, gdb.error) as problem:
        raise gdb.GdbError(str(problem)) from None


def _printer(value: gdb.Value) -> Any:
    """Pretty-printers are looked for at every value, so a type's name decides before anything is imported."""
    name = value.type.name or ""
    if name not in PRINTED and not _is_text(value.type):
        return None
    from hypgdb.printers import printer

    return printer(name, value)


def _is_text(of: gdb.Type) -> bool:
    """Whether functions give it as text to Rust. In programs `int8_t` is another name of a type, and none itself."""
    return of.code == gdb.TYPE_CODE_ARRAY and (of.target().code, of.target().name) == (gdb.TYPE_CODE_INT, "int8_t")


def register() -> None:
    """Makes gdb know them."""
    Prefix()
    for spec in COMMANDS:
        HypCommand(spec)
    for function in FUNCTIONS:
        HypFunction(function)
    _printer.__name__ = "hyp"
    gdb.pretty_printers.append(_printer)
