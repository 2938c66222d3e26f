"""Commands that let the machine run, or set breakpoints."""

from __future__ import annotations

import gdb

from . import rows, symbols, syndrome
from .answers import nothing_behind, regime_of
from .detect import machine, program_files
from .memory import Problem

# Every abort of the host's ends here, on Linux and on hyp.
HANDLER = "handle_host_mem_abort"


def _address(name: str) -> int:
    """Where a function of EL2's runs; raises `Problem` where there is none."""
    with machine() as states:
        system = states.system
    if system.elf is None:
        raise Problem("gdb has no symbols of the hypervisor: give it hyp's ELF file or vmlinux with `file`")
    symbol = symbols.find(system.elf, name)
    if symbol is None:
        raise Problem(f"{system.elf.path} has no function {name} at EL2")
    return (symbol.address + system.link_offset) % (1 << 64)


def break_at(argument: str) -> list[str]:
    """`hyp break SYMBOL`."""
    name = argument.strip()
    if not name:
        raise Problem(f"a function of EL2's, as in: hyp break {HANDLER}")
    # gdb says what it has set.
    gdb.Breakpoint(f"*{_address(name):#x}")
    return []


def functions(_: None) -> list[str]:
    """The names that `hyp break` knows."""
    return sorted({name for elf in program_files() for name in symbols.names(elf)})


def load_symbols(argument: str) -> list[str]:
    """`hyp symbols`."""
    nothing_behind(argument)
    with machine() as states:
        system = states.system
    if system.elf is None:
        raise Problem("gdb has no symbols of the hypervisor: give it hyp's ELF file or vmlinux with `file`")
    if system.link_offset == 0:
        return [f"{system.elf.path} is linked where it runs: its symbols are right as they are"]
    elf, offset = system.elf, system.link_offset
    text = symbols.find(elf, HANDLER)
    if text is None:
        raise Problem(f"{elf.path} has no function {HANDLER} at EL2")
    before = _loaded.pop(elf.path, None)
    if before is not None:
        # At each boot EL2 is elsewhere.
        gdb.execute(f"remove-symbol-file -a {(text.address + before) % (1 << 64):#x}", to_string=True)
    gdb.execute(f"add-symbol-file {elf.path} -o {offset:#x}", to_string=True)
    _loaded[elf.path] = offset
    return [f"EL2's symbols of {elf.path}, {offset:#x} behind where they are linked"]


# How far behind where it is linked each file was loaded.
_loaded: dict[str, int] = {}


def abort(argument: str) -> list[str]:
    """`hyp abort`."""
    nothing_behind(argument)
    address = _address(HANDLER)
    # Two of them at one place where the machine stands there already; gdb goes on from it.
    here = gdb.Breakpoint(f"*{address:#x}", internal=True)
    here.silent = True
    try:
        gdb.execute("continue", to_string=True)
    finally:
        if here.is_valid():
            here.delete()
    thread = gdb.selected_thread()
    if thread is None or int(gdb.newest_frame().pc()) != address:
        raise Problem("the machine stopped for another reason, and not at an abort of the host's")
    with machine() as states:
        cpu = next(cpu for cpu in states.system.cpus if cpu.number == thread.ptid[1] - 1)
        regime = regime_of(states.system, "host-s2")
        ipa = syndrome.ipa(cpu)
        lines = [
            f"CPU {cpu.number}: {syndrome.cause(cpu['ESR_EL2'])}",
            f"  IPA {ipa:#x}, address {cpu['FAR_EL2']:#x}, from {cpu['ELR_EL2']:#x}",
        ]
        lines += rows.walk_lines(states, regime, ipa)
        found = states.page(ipa)
        if found is None:
            lines.append("  no RAM")
        else:
            lines.append(rows.page_line(found.at(ipa)))
    return lines
