"""Ticket locks and who holds them."""

from __future__ import annotations

from dataclasses import replace

from simulated import RAM, Words, machine

from hypgdb import rows
from hypgdb.locks import Lock, lock
from hypgdb.system import Cpu, LockPlace, System

RECORDED, BARE = (LockPlace("host", "lock", RAM.start, recorded) for recorded in (True, False))


def with_lock(word: int, holder: int = 0) -> System:
    """A machine with this lock, a CPU at EL1 and one at EL2."""
    cpus = [Cpu(0, {"cpsr": 0x3C5}), Cpu(1, {"cpsr": 0x3C9})]
    words = Words({RAM.start: holder << 32 | word, RAM.start + 8: 0x1234})
    return replace(machine({}), memory=words, cpus=cpus)


def test_a_free_one() -> None:
    found = lock(with_lock(0x0007_0007, 0xFFFF_FFFF), RECORDED)
    assert found == Lock(7, 7)
    assert (found.held, found.waiters) == (False, 0)


def test_one_that_records_its_holder() -> None:
    system = with_lock(0x0001_FFFF, 3)
    found = lock(system, RECORDED)
    assert found == Lock(0xFFFF, 1, holder=3, taker=0x1234)
    # Tickets come round.
    assert (found.held, found.waiters) == (True, 1)
    assert rows.lock_line(system, RECORDED).endswith("held by CPU 3, taken at 0x1234, 1 waiting")
    changing = with_lock(0x0001_0000, 0xFFFF_FFFF)
    assert rows.lock_line(changing, RECORDED).endswith("held (changing hands)")


def test_one_that_does_not() -> None:
    assert lock(with_lock(0x0001_0000), BARE).candidates == (1,)
    assert rows.lock_line(with_lock(0x0001_0000), BARE).endswith("held by CPU 1")
    assert lock(with_lock(0), BARE).candidates == ()
