"""Run by gdb: sets `$annotation`, `$lock` and `$record` to where there is one of each, physically.

The record is of a page of the hypervisor's, or on hyp of a root table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import gdb

from hypgdb.detect import HYP_TYPE, machine, rust_record
from hypgdb.memory import PAGE, number
from hypgdb.walk import output

if TYPE_CHECKING:
    from hypgdb.own import Record
    from hypgdb.states import States


def main() -> None:
    """Does it."""
    record = rust_record(HYP_TYPE)
    with machine() as states:
        named = [entry for entry in states.entries["host-s2"] if entry.kind == "invalid"]
        found = {"annotation": named[0].at, "lock": states.system.locks[0].pa, "record": record_of(states, record)}
    for name, place in found.items():
        gdb.set_convenience_variable(name, place)


def record_of(states: States, record: Record | None) -> int:
    system = states.system
    records = system.layout.records
    if records:
        page = next(page for page in states.pages if page.owner == "hyp")
        va = records.base + page.span.start // PAGE * records.size
        found = output(system.regime("hyp-s1"), system.memory, va)
        assert found is not None
        return found
    assert record
    assert system.elf
    variable = system.elf.symbol("HYP")
    assert variable
    offset = record.field("host.pool.records.data_ptr").offset
    return system.linear_pa(number(system.memory, system.linear_pa(variable.address + offset)))


if __name__ == "__main__":
    main()
