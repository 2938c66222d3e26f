"""Pretty-printers: ticket locks, page records and descriptors, of Linux and of hyp."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gdb

from .descriptors import bit, bits
from .locks import NO_CPU, tickets
from .states import STATES, software_state

if TYPE_CHECKING:
    from collections.abc import Callable


def lock_text(word: int) -> str:
    """A ticket lock."""
    lock = tickets(word)
    if not lock.held:
        return f"free, ticket {lock.owner}"
    return f"held, ticket {lock.owner}" + (f", {lock.waiters} waiting" if lock.waiters else "")


def descriptor_text(raw: int) -> str:
    """A descriptor by itself: its level and regime are not known."""
    if raw == 0:
        return "zero"
    if not bit(raw, 0):
        typed = {1: "locked", 2: f"owner {bits(raw, 3, 1)}", 3: "poisoned"}.get(bits(raw, 63, 60))
        said = typed or (f"owner {bits(raw, 9, 2)}" if raw == bits(raw, 9, 2) << 2 else "no owner")
        return f"{raw:#x} invalid, {said}"
    kind = "table or page" if bit(raw, 1) else "block"
    state = software_state(raw)
    return f"{raw:#x} {kind} → {bits(raw, 47, 12) << 12:#x}" + (f", {state}" if state != "owned" else "")


class Text:
    """A value as one line."""

    def __init__(self, text: str) -> None:
        self.text = text

    def to_string(self) -> str:
        """What gdb prints."""
        return self.text


def _number(value: gdb.Value) -> int:
    """A number, out of whatever structures have only that."""
    while value.type.strip_typedefs().code == gdb.TYPE_CODE_STRUCT:
        value = value[value.type.strip_typedefs().fields()[0]]
    return int(value) % (1 << 64)


def _linux_lock(value: gdb.Value) -> str:
    return lock_text(_number(value["__val"]))


def _own_lock(value: gdb.Value) -> str:
    text, holder = lock_text(_number(value["tickets"])), _number(value["holder"])
    return text if holder == NO_CPU else f"{text}, by CPU {holder} at {_number(value['taker']):#x}"


def _linux_record(value: gdb.Value) -> str:
    parts = [f"refcount {_number(value['refcount'])}", f"order {_number(value['order'])}"]
    names = [field.name for field in value.type.strip_typedefs().fields()]
    for name in names:
        if name in ("__host_state", "host_state"):
            parts.append(f"host {_state(_number(value[name]))}")
        elif name == "__hyp_state_comp":
            # Kept inverted.
            parts.append(f"hyp {_state(_number(value[name]) ^ 3)}")
        elif name == "host_share_guest_count":
            parts.append(f"lent to {_number(value[name])} guests")
    return ", ".join(parts)


def _own_record(value: gdb.Value) -> str:
    return f"refcount {_number(value['refcount'])}"


def _state(value: int) -> str:
    return STATES[value] if value < len(STATES) else f"state {value}"


def _descriptor(value: gdb.Value) -> str:
    return descriptor_text(_number(value))


def _text(value: gdb.Value) -> str:
    """What a function gave as text, in bytes."""
    letters = (int(value[index]) for index in range(value.type.sizeof))
    return f'"{bytes(letters).decode()}"'


# By the names of types; arrays have none.
PRINTERS: dict[str, Callable[[gdb.Value], str]] = {
    "hyp_spinlock": _linux_lock,
    "hyp_spinlock_t": _linux_lock,
    "hyp::lock::TicketLock": _own_lock,
    "hyp_page": _linux_record,
    "hyp::pool::PageRecord": _own_record,
    "kvm_pte_t": _descriptor,
    "hyp::desc::Desc": _descriptor,
    "": _text,
}


def printer(name: str, value: gdb.Value) -> Text:
    """That of a value whose type has this name."""
    return Text(PRINTERS[name](value))
