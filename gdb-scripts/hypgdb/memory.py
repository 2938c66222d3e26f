"""Physical memory, wherever it is."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Protocol

PAGE = 4096


class Problem(Exception):
    """Something that cannot be shown, in one sentence for the user."""


@dataclass(frozen=True, order=True)
class Span:
    """`size` bytes from `start`."""

    start: int
    size: int

    @property
    def end(self) -> int:
        """The address behind it."""
        return self.start + self.size

    def __contains__(self, address: int) -> bool:
        return self.start <= address < self.end

    def covers(self, other: Span) -> bool:
        """Whether all of `other` is in it."""
        return self.start <= other.start and other.end <= self.end

    def overlaps(self, other: Span) -> bool:
        """Whether an address is in both."""
        return self.start < other.end and other.start < self.end

    def __str__(self) -> str:
        return f"{self.start:#x}..{self.end:#x}"


class Memory(Protocol):
    """Physical memory, which is only ever read."""

    def read(self, pa: int, size: int) -> bytes:
        """These bytes; raises `Problem` unless all of them are RAM that can be read."""


def words(memory: Memory, pa: int, count: int) -> tuple[int, ...]:
    """As many 64-bit words."""
    return struct.unpack(f"<{count}Q", memory.read(pa, 8 * count))


def number(memory: Memory, pa: int, size: int = 8) -> int:
    """An unsigned number of `size` bytes."""
    return int.from_bytes(memory.read(pa, size), "little")


def find(spans: list[Span], address: int) -> Span | None:
    """The span that holds an address."""
    return next((span for span in spans if address in span), None)


def parse_memory_tree(text: str) -> list[Span]:
    """The RAM that CPUs see, in QEMU's `info mtree -f`: lines as `40000000-5fffffff (prio 0, ram): mach-virt.ram`."""
    ram = []
    for view in text.split("FlatView #")[1:]:
        if '"memory"' not in view:
            continue
        for start, last in re.findall(r"^\s*([0-9a-f]+)-([0-9a-f]+) \(prio \d+, ram\):", view, re.MULTILINE):
            ram.append(Span(int(start, 16), int(last, 16) - int(start, 16) + 1))
    return sorted(ram)
