"""What the commands answer: lines. Memory is read first and lines are printed after, when gdb may page them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import gdb

from . import rows
from .arguments import Filters, filters
from .detect import machine
from .memory import PAGE, Problem, Span
from .walk import entries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .descriptors import Regime
    from .states import States
    from .system import System


def evaluate(expression: str) -> int:
    """An expression's value, as an address."""
    try:
        value = gdb.parse_and_eval(expression)
        return int(value) % (1 << 64)
    except (gdb.error, TypeError) as error:
        raise Problem(f"`{expression}` is no address: {error}") from error


@contextmanager
def lines_of() -> Iterator[tuple[States, list[str]]]:
    """A machine to be read, and a list for what is found, which begins with what is wrong."""
    with machine() as states:
        lines: list[str] = []
        yield states, lines
        lines[:0] = [f"{rows.MARK} {problem}" for problem in states.system.problems]


def regime_of(system: System, name: str) -> Regime:
    """A regime by its name; raises `Problem` where there is none."""
    try:
        return system.regime(name)
    except KeyError:
        names = ", ".join(regime.name for regime in system.regimes)
        raise Problem(f"there is no regime `{name}` here, but {names}") from None


def nothing_behind(argument: str) -> None:
    """Raises `Problem` where something stands behind a command that takes nothing."""
    if argument.strip():
        raise Problem("nothing stands behind this command")


def info(argument: str) -> list[str]:
    """`hyp info`."""
    nothing_behind(argument)
    with lines_of() as (states, lines):
        system = states.system
        release = f" {system.release}" if system.release else ""
        lines.append(f"{system.kind}{release}, {system.mode}, {len(system.cpus)} CPUs")
        lines += [f"{what}: {value}" for what, value in system.facts]
        lines.append(f"page states in: {system.layout.page_state_in}")
        lines.append(f"owner in bits: {system.layout.owner_encoding}")
        lines.append(f"PA = VA + {system.physvirt_offset:#x} in EL2's linear range")
        lines += [rows.regime_line(regime) for regime in system.regimes]
        lines += [f"RAM {region} {rows.size(region.size)}" for region in system.ram]
        lines += [f"section {name} {span} {rows.size(span.size)}" for name, span in system.sections]
    return lines


def _table(argument: str, name: str, options: tuple[str, ...]) -> list[str]:
    given = filters(argument, evaluate, options)
    with lines_of() as (states, lines):
        regime = regime_of(states.system, given.regime or name)
        found = entries(regime, states.system.memory, given.within)
        lines.extend(rows.table(states, regime, found, given))
    return lines


def stage2(argument: str) -> list[str]:
    """`hyp s2`."""
    return _table(argument, "host-s2", ("regime", "owner", "state", "kind", "each"))


def stage1(argument: str) -> list[str]:
    """`hyp s1`."""
    return _table(argument, "hyp-s1", ("owner", "state", "kind", "each"))


def owners(argument: str) -> list[str]:
    """`hyp owners`."""
    given = filters(argument, evaluate, ("owner",))
    with lines_of() as (states, lines):
        found = [page for page in states.pages if _is_wanted(page.span, page.owner, given)]
        lines += [rows.page_line(page) for page in found]
        if not found:
            lines.append("  nothing")
    return lines


def _is_wanted(span: Span, owner: str, given: Filters) -> bool:
    within = given.within is None or given.within.overlaps(span)
    return within and given.owner in (None, owner)


def walk(argument: str) -> list[str]:
    """`hyp walk REGIME ADDRESS`."""
    name, _, expression = argument.strip().partition(" ")
    if not expression.strip():
        raise Problem("a regime and an address, as in: hyp walk host-s2 0x40000000")
    address = evaluate(expression)
    with lines_of() as (states, lines):
        regime = regime_of(states.system, name)
        lines.append(rows.regime_line(regime))
        lines.extend(rows.walk_lines(states, regime, address))
    return lines


def page(argument: str) -> list[str]:
    """`hyp page ADDRESS`."""
    if not argument.strip():
        raise Problem("a physical address, as in: hyp page 0x40000000")
    span = Span(evaluate(argument) // PAGE * PAGE, PAGE)
    with lines_of() as (states, lines):
        found = states.page(span.start)
        if found is None:
            lines.append(f"{span.start:#x} is no RAM that the hypervisor knows")
        else:
            lines.append(rows.page_line(found.at(span.start)))
        lines += [f"  in section {name}" for name, section in states.system.sections if section.overlaps(span)]
        for regime in states.system.regimes:
            for entry in states.entries[regime.name]:
                invalid_here = (
                    regime.name == "host-s2" and entry.oa is None and Span(entry.ia, entry.size).overlaps(span)
                )
                if invalid_here or list(rows.touching([entry], span)):
                    lines.append(f"  {regime.name}: {rows.entry_line(rows.row(states, regime, entry)).strip()}")
    return lines


def locks(argument: str) -> list[str]:
    """`hyp locks`."""
    nothing_behind(argument)
    with lines_of() as (states, lines):
        lines += [rows.lock_line(states.system, place) for place in states.system.locks]
    return lines


def cpus(argument: str) -> list[str]:
    """`hyp cpus`."""
    nothing_behind(argument)
    with lines_of() as (states, lines):
        found = states.system.cpus
    return lines + [line for cpu in found for line in rows.cpu_lines(cpu, _with_symbol(cpu["pc"]))]


def _with_symbol(address: int) -> str:
    symbol = gdb.execute(f"info symbol {address:#x}", to_string=True).split(" in section")[0].strip()
    return f"{address:#x}" if symbol.startswith("No symbol") else f"{address:#x} {symbol}"


def vms(argument: str) -> list[str]:
    """`hyp vms`."""
    nothing_behind(argument)
    with lines_of() as (states, lines):
        for vm in states.system.vms:
            lines.extend(rows.vm_lines(vm))
        if not states.system.vms:
            lines.append("the hypervisor keeps no VMs")
    return lines
