"""What was found, as lines of text."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from .descriptors import attributes
from .locks import lock
from .memory import Span
from .states import LEAVES, States
from .walk import translate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .arguments import Filters
    from .descriptors import Regime
    from .joint import Page
    from .system import Cpu, LockPlace, System, Vm
    from .walk import Entry, Step

UNITS = ((1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K"))
MARK = "!"


def size(value: int) -> str:
    """Bytes in the largest unit that leaves no rest."""
    for unit, letter in UNITS:
        if value >= unit and value % unit == 0:
            return f"{value // unit}{letter}"
    return str(value)


class Row(NamedTuple):
    """An entry, or a run of them, and whose it is."""

    entry: Entry
    number: int
    kind: str
    access: str
    memory: str
    state: str | None
    owner: str | None


def row(states: States, regime: Regime, entry: Entry) -> Row:
    """What is to be said of an entry."""
    state = states.state_of(regime, entry)
    owner = states.owner_of(regime, entry, state)
    kind = "annotation" if states.owner_in(regime, entry) else entry.kind
    if entry.oa is None or kind not in LEAVES:
        return Row(entry, 1, kind, "", "", state, owner)
    found = attributes(regime, entry.raw, entry.limits)
    memory = found.memory if found.af else f"{found.memory} not accessed"
    return Row(entry, 1, kind, found.access, memory, state, owner)


def wanted(rows: Iterable[Row], filters: Filters) -> Iterator[Row]:
    """Those that pass."""
    for one in rows:
        for value, filtered in [(one.owner, filters.owner), (one.state, filters.state), (one.kind, filters.kind)]:
            if filtered is not None and value != filtered:
                break
        else:
            yield one


def runs(rows: Iterable[Row]) -> Iterator[Row]:
    """Rows that follow on each other and say the same are one."""
    last: Row | None = None
    for one in rows:
        if last is not None and _continues(last, one):
            entry = replace(last.entry, size=last.entry.size + one.entry.size)
            last = last._replace(entry=entry, number=last.number + 1)
            continue
        if last is not None:
            yield last
        last = one
    if last is not None:
        yield last


def _continues(last: Row, one: Row) -> bool:
    a, b = last.entry, one.entry
    return (
        last[2:] == one[2:]
        and (a.level, a.limits, a.problem) == (b.level, b.limits, b.problem)
        and a.ia + a.size == b.ia
        and (a.oa is None or a.oa + a.size == b.oa)
        and (a.oa is not None or last.kind == "annotation" or a.raw == b.raw)
    )


def entry_line(one: Row) -> str:
    """A row. What is wrong is marked."""
    entry = one.entry
    where = f"{entry.ia:#014x}..{entry.ia + entry.size:#014x}"
    times = f"{one.number}×" if one.number > 1 else ""
    line = f"{where} {times:>6} L{entry.level} {one.kind:10}"
    if entry.oa is not None and one.kind in LEAVES:
        line += f" → {entry.oa:#x} {one.access} {one.memory}"
    else:
        line += f" {entry.raw:#x}"
    if one.state and one.kind in LEAVES:
        line += f"  {one.state}"
    if one.owner:
        line += f"  {one.owner}"
    return f"{MARK} {line}: {entry.problem}" if entry.problem else f"  {line}"


def regime_line(regime: Regime) -> str:
    """What is known of a set of tables."""
    roots = f"{regime.root_pages} root tables" if regime.root_pages > 1 else "root"
    lpa2 = ", LPA2" if regime.lpa2 else ""
    return (
        f"{regime.name}: stage {regime.stage}, {roots} at {regime.root:#x}, level {regime.start_level} first, "
        f"{size(1 << regime.granule_shift)} granule, {regime.ia_bits} bits in, {regime.oa_bits} bits out{lpa2}"
    )


def table(states: States, regime: Regime, entries: list[Entry], filters: Filters) -> Iterator[str]:
    """A regime's entries."""
    yield regime_line(regime)
    rows = wanted((row(states, regime, entry) for entry in entries), filters)
    lines = [entry_line(one) for one in (rows if filters.each else runs(rows))]
    yield from lines
    if not lines:
        yield "  nothing"


def page_line(page: Page) -> str:
    """A range of pages and whose they are."""
    sides = [f"host {page.host or 'unreadable'}", f"hyp {page.hyp or 'unreadable'}"]
    sides += [f"guest {side.handle:#x} {side.state} at {side.ipa:#x}" for side in page.guests]
    if page.lent is not None:
        sides.append(f"lent {page.lent} times")
    mark = " " if page.rule else MARK
    return (
        f"{mark} {page.span} {size(page.span.size):>6}  {page.owner:12} {', '.join(sides)}  {page.rule or ''}".rstrip()
    )


def step_line(step: Step) -> str:
    """A step of a walk."""
    entry = step.entry
    line = f"  L{entry.level} table {step.table:#x} [{step.index}] = {entry.raw:#x} {entry.kind}"
    return f"{line}: {entry.problem}" if entry.problem else line


def walk_lines(states: States, regime: Regime, ia: int) -> Iterator[str]:
    """The way of one address, and what is at its end."""
    steps = translate(regime, states.system.memory, ia)
    for step in steps:
        yield step_line(step)
    last = steps[-1].entry
    yield f"  {ia:#x} is not mapped" if last.kind == "zero" else entry_line(row(states, regime, last))


def lock_line(system: System, place: LockPlace) -> str:
    """A ticket lock."""
    found = lock(system, place)
    line = f"  {place.name:10} {place.pa:#x}  owner {found.owner} next {found.next}"
    if not found.held:
        return line + "  free"
    line += "  held"
    if place.recorded:
        recorded = found.holder is not None
        line += f" by CPU {found.holder}, taken at {found.taker:#x}" if recorded else " (changing hands)"
    else:
        one_of = " or ".join(map(str, found.candidates))
        line += f" by CPU {one_of}" if one_of else " by no CPU at EL2"
    return line + f", {found.waiters} waiting" if found.waiters else line


def cpu_lines(cpu: Cpu, where: str) -> Iterator[str]:
    """A CPU."""
    yield f"CPU {cpu.number}  EL{cpu.level}  pc {where}"
    for names in [
        ("VTTBR_EL2", "VTCR_EL2", "HCR_EL2"),
        ("TTBR0_EL2", "TCR_EL2", "MAIR_EL2", "SCTLR_EL2", "VBAR_EL2"),
        ("ESR_EL2", "FAR_EL2", "HPFAR_EL2", "ELR_EL2"),
    ]:
        yield "  " + "  ".join(f"{name} {cpu[name]:#x}" for name in names if name in cpu.registers)


def vm_lines(vm: Vm) -> Iterator[str]:
    """A VM."""
    if vm.pa is None:
        yield f"guest:{vm.handle:#x}  reserved"
        return
    flags = ["protected" if vm.protected else "not protected"] + (["dying"] if vm.dying else [])
    where = f"stage 2 at {vm.root or 0:#x}, object at {vm.pa:#x}"
    yield f"guest:{vm.handle:#x}  {', '.join(flags)}, VMID {vm.vmid}, {where}"
    for vcpu in vm.vcpus:
        where = f"at {vcpu.pa:#x}" if vcpu.pa is not None else "not readable"
        loaded = f", loaded on CPU {vcpu.cpu}" if vcpu.cpu is not None else ""
        yield f"  vCPU {vcpu.number}  {where}{loaded}"


def touching(entries: Iterable[Entry], span: Span) -> Iterator[Entry]:
    """The leaves that map something of a physical range."""
    for entry in entries:
        if entry.oa is not None and entry.kind in LEAVES and span.overlaps(Span(entry.oa, entry.size)):
            yield entry
