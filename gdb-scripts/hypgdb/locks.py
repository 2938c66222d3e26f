"""Ticket locks, and who holds them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .descriptors import bits
from .memory import number

if TYPE_CHECKING:
    from .system import LockPlace, System

NO_CPU = 0xFFFF_FFFF


class Lock(NamedTuple):
    """A lock's tickets: `owner` is being served, and `next` is the one to be had."""

    owner: int
    next: int
    # Of a lock with a record: the CPU that holds it, and where it was taken.
    holder: int | None = None
    taker: int | None = None
    # Of a lock without one: the CPUs of which one holds it.
    candidates: tuple[int, ...] = ()

    @property
    def held(self) -> bool:
        """Whether anybody has it."""
        return self.owner != self.next

    @property
    def waiters(self) -> int:
        """How many wait for it."""
        return (self.next - self.owner - 1) % (1 << 16) if self.held else 0


def tickets(word: int) -> Lock:
    """Those of a word: 16 bits of `owner`, and `next` above them, which must be read at once."""
    return Lock(bits(word, 15, 0), bits(word, 31, 16))


def lock(system: System, place: LockPlace) -> Lock:
    """The lock at a place."""
    found = tickets(number(system.memory, place.pa, 4))
    if not found.held:
        return found
    if not place.recorded:
        # Whoever holds it is at EL2, where nothing moves it to another CPU.
        return found._replace(candidates=tuple(cpu.number for cpu in system.cpus if cpu.level == 2))
    holder, taker = number(system.memory, place.pa + 4, 4), number(system.memory, place.pa + 8)
    return found if holder == NO_CPU else found._replace(holder=holder, taker=taker)
