"""What the convenience functions give."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gdb

from .detect import machine
from .memory import Problem
from .walk import output

if TYPE_CHECKING:
    from .joint import Page


def hyp_pa(va: int) -> int:
    """`$hyp_pa`."""
    with machine() as states:
        pa = output(states.system.regime("hyp-s1"), states.system.memory, va)
    if pa is None:
        raise Problem(f"EL2 has nothing at {va:#x}")
    return pa


def hyp_va(pa: int) -> int:
    """`$hyp_va`."""
    with machine() as states:
        return states.system.linear_va(pa)


def s2_owner(pa: int) -> str:
    """`$s2_owner`."""
    return _page(pa).owner


def s2_state(pa: int) -> str:
    """`$s2_state`."""
    return _page(pa).host or "unreadable"


def text(found: str) -> str | gdb.Value:
    """Text, as gdb's language has it: Rust's is in the program's memory, so it gets an array, which has a printer."""
    if "rust" not in gdb.execute("show language", to_string=True):
        return found
    letter = gdb.selected_inferior().architecture().integer_type(8)
    return gdb.Value(found.encode(), letter.array(len(found) - 1))


def _page(pa: int) -> Page:
    with machine() as states:
        found = states.page(pa)
    if found is None:
        raise Problem(f"{pa:#x} is no RAM that the hypervisor knows")
    return found
