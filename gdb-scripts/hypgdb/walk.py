"""The walk through translation tables: all of them, or the way of one address.

What is wrong with a table ends in an entry that says so; all else is still walked. Each table is read once, so that the
walk ends whatever the tables hold.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .descriptors import FREE, Limits, Regime, limits_below
from .memory import Memory, Problem, Span, number

if TYPE_CHECKING:
    from collections.abc import Iterator

# Bytes of tables that are read for one regime at most: those of 64 GiB in pages.
MOST_BYTES = 128 << 20


@dataclass(frozen=True)
class Entry:
    """A descriptor that is not zero and leads to no good table."""

    ia: int
    size: int
    level: int
    # block, page, invalid, reserved; of table descriptors loop and unreadable.
    kind: str
    raw: int
    # Where it stands.
    at: int
    # Of leaves.
    oa: int | None = None
    limits: Limits = FREE
    # One sentence, of what is wrong.
    problem: str | None = None


@dataclass(frozen=True)
class Table:
    """A table that was read."""

    pa: int
    level: int
    ia: int
    limits: Limits
    entry: Entry | None


def entries(regime: Regime, memory: Memory, within: Span | None = None) -> list[Entry]:
    """All of a regime's, or those that touch the span `within`, in order of input address."""
    found: list[Entry] = []
    seen: set[int] = set()
    size = 8 << regime.index_bits
    level = [Table(regime.root, regime.start_level, 0, FREE, None)]
    while level:
        below: list[Table] = []
        for table in level:
            count = regime.root_entries if table.entry is None else 1 << regime.index_bits
            known = table.pa in seen
            seen.update(range(table.pa, table.pa + 8 * count, size))
            if known:
                found.append(_bad(table, "loop", f"the table at {table.pa:#x} was walked already"))
                continue
            if len(seen) * size > MOST_BYTES:
                found.append(_bad(table, "unreadable", f"more than {MOST_BYTES >> 20} MiB of tables are not read"))
                continue
            try:
                data = memory.read(table.pa, 8 * count)
            except Problem as problem:
                found.append(_bad(table, "unreadable", str(problem)))
                continue
            for entry in _decode(regime, table, data):
                if within is not None and not within.overlaps(Span(entry.ia, entry.size)):
                    continue
                if entry.kind == "table":
                    pa = regime.address(entry.raw, regime.granule_shift)
                    limits = limits_below(regime, entry.raw, table.limits)
                    below.append(Table(pa, table.level + 1, entry.ia, limits, entry))
                else:
                    found.append(entry)
        level = below
    return sorted(found, key=lambda entry: entry.ia)


def _bad(table: Table, kind: str, problem: str) -> Entry:
    """The entry of a table that is not walked. To a root no descriptor points."""
    entry = table.entry or Entry(0, 0, table.level, kind, 0, table.pa)
    return replace(entry, kind=kind, problem=problem)


def _decode(regime: Regime, table: Table, data: bytes) -> Iterator[Entry]:
    """Descriptors that are not zero."""
    shift = regime.shift(table.level)
    for index, (raw,) in enumerate(struct.iter_unpack("<Q", data)):
        if raw:
            yield _entry(regime, table, raw, table.ia + (index << shift), table.pa + 8 * index)


def _entry(regime: Regime, table: Table, raw: int, ia: int, at: int) -> Entry:
    level, shift = table.level, regime.shift(table.level)
    kind, oa, problem = regime.kind(raw, level), None, None
    if kind in ("block", "page"):
        oa = regime.address(raw, shift)
        if oa >> regime.oa_bits:
            kind, problem = "reserved", f"its output address {oa:#x} has more than {regime.oa_bits} bits"
    elif kind == "reserved":
        problem = f"bits 1:0 = 01 are reserved at level {level}"
    return Entry(ia, 1 << shift, level, kind, raw, at, oa, table.limits, problem)


@dataclass(frozen=True)
class Step:
    """One descriptor on the way of an address, by its table and index in it."""

    table: int
    index: int
    entry: Entry


def translate(regime: Regime, memory: Memory, ia: int) -> list[Step]:
    """The way of an address: the last step's entry has the output address of the leaf, if there is one."""
    if ia < 0 or ia >> regime.ia_bits:
        raise Problem(f"{regime.name}: {ia:#x} is outside of its {regime.ia_bits} bits of input address")
    steps: list[Step] = []
    table = Table(regime.root, regime.start_level, 0, FREE, None)
    while True:
        shift = regime.shift(table.level)
        count = regime.root_entries if not steps else 1 << regime.index_bits
        index = ia >> shift & count - 1
        at = table.pa + 8 * index
        raw = number(memory, at)
        entry = _entry(regime, table, raw, ia >> shift << shift, at)
        steps.append(Step(table.pa, index, entry))
        if entry.kind != "table":
            return steps
        pa = regime.address(raw, regime.granule_shift)
        table = Table(pa, table.level + 1, entry.ia, limits_below(regime, raw, table.limits), entry)


def output(regime: Regime, memory: Memory, ia: int) -> int | None:
    """Where an address leads to, if anywhere."""
    entry = translate(regime, memory, ia)[-1].entry
    return None if entry.oa is None else entry.oa + (ia - entry.ia)
