"""The kernel's types, in BTF (Linux, Documentation/bpf/btf.rst): gdb needs half a minute to find one of vmlinux's."""

from __future__ import annotations

import struct
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from .memory import Problem
from .system import Field

if TYPE_CHECKING:
    from collections.abc import Iterator

INT, PTR, ARRAY, STRUCT, UNION, ENUM, TYPEDEF = 1, 2, 3, 4, 5, 6, 8
VOLATILE, CONST, RESTRICT, TYPE_TAG, ENUM64 = 9, 10, 11, 18, 19
# Other names of a type, and its qualifiers.
TRANSPARENT = (TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG)
# Bytes behind a type's first twelve: so many, and so many for each of its elements.
BEHIND = {
    INT: (4, 0),
    PTR: (0, 0),
    ARRAY: (12, 0),
    STRUCT: (0, 12),
    UNION: (0, 12),
    ENUM: (0, 8),
    7: (0, 0),
    TYPEDEF: (0, 0),
    VOLATILE: (0, 0),
    CONST: (0, 0),
    RESTRICT: (0, 0),
    12: (0, 0),
    13: (0, 8),
    14: (4, 0),
    15: (0, 12),
    16: (0, 0),
    17: (4, 0),
    TYPE_TAG: (0, 0),
    ENUM64: (0, 12),
}


class Type(NamedTuple):
    """The head of a type; `size` is the number of another type for those that refer to one."""

    at: int
    kind: int
    elements: int
    flag: bool
    size: int


class Btf:
    """The types of one kernel."""

    def __init__(self, data: bytes) -> None:
        try:
            magic, _, _, header, types, size, strings, _ = struct.unpack_from("<HBBIIIII", data)
        except struct.error:
            magic = 0
        if magic != 0xEB9F:
            raise Problem("the kernel's types are no BTF")
        self.data, self.strings = data, header + strings
        self.first, self.end = header + types, header + types + size

    @cached_property
    def _index(self) -> tuple[list[int], dict[str, int]]:
        """Where each type is, by number, and numbers of structures, unions and enumerations by name."""
        places, named = [0], dict[str, int]()
        at, data, strings = self.first, self.data, self.strings
        while at < self.end:
            name, info, _ = struct.unpack_from("<III", data, at)
            kind = info >> 24 & 0x1F
            if kind not in BEHIND:
                raise Problem(f"the kernel's BTF has a type of the unknown kind {kind}")
            if name and kind in (STRUCT, UNION, ENUM, ENUM64):
                named.setdefault(self._string(strings + name), len(places))
            places.append(at)
            fixed, each = BEHIND[kind]
            at += 12 + fixed + each * (info & 0xFFFF)
        return places, named

    def _string(self, at: int) -> str:
        return self.data[at : self.data.find(b"\0", at)].decode(errors="replace")

    def _type(self, number: int) -> Type:
        """A type behind its other names and qualifiers."""
        places, _ = self._index
        # No type has more names than there are types.
        for _ in places:
            _, info, size = struct.unpack_from("<III", self.data, places[number])
            head = Type(places[number], info >> 24 & 0x1F, info & 0xFFFF, bool(info >> 31), size)
            if head.kind not in TRANSPARENT:
                return head
            number = size
        raise Problem("the kernel's BTF has a type that is named after itself")

    def _named(self, name: str) -> Type | None:
        number = self._index[1].get(name)
        return None if number is None else self._type(number)

    def has(self, name: str) -> bool:
        """Whether there is a structure, union or enumeration of this name."""
        return self._named(name) is not None

    def size(self, name: str) -> int:
        """A structure's, in bytes; 0 of what there is not."""
        found = self._named(name)
        return found.size if found else 0

    def _members(self, of: Type) -> Iterator[tuple[str, int, int, int]]:
        """Name, type, offset in bits, and width of a bit-field."""
        for index in range(of.elements):
            name, number, offset = struct.unpack_from("<III", self.data, of.at + 12 + 12 * index)
            width = offset >> 24 if of.flag else 0
            yield self._string(self.strings + name), number, offset & 0xFFFFFF if of.flag else offset, width

    def _find(self, of: Type, name: str, depth: int = 0) -> tuple[int, int, int] | None:
        """Type, offset in bits and width of a member, also of members that have no name themselves."""
        for member, number, offset, width in self._members(of):
            if member == name:
                return number, offset, width
            inner = None if member or depth > 8 else self._type(number)
            if inner and inner.kind in (STRUCT, UNION):
                found = self._find(inner, name, depth + 1)
                if found:
                    return found[0], offset + found[1], found[2]
        return None

    def field(self, path: str) -> Field | None:
        """The number at `structure.member.member…`; of a structure or array, where it begins."""
        name, *members = path.split(".")
        of, offset, width = self._named(name), 0, 0
        for member in members:
            found = self._find(of, member) if of and of.kind in (STRUCT, UNION) else None
            if not found:
                return None
            of, offset, width = self._type(found[0]), offset + found[1], found[2]
        if of is None:
            return None
        size = {PTR: 8, ARRAY: 0}.get(of.kind, of.size)
        signed = of.kind == INT and bool(self.data[of.at + 15] & 1)
        if not width:
            return Field(offset // 8, size, signed=signed)
        # A bit-field is in that one of the integers of its type's size in which it begins.
        begin = offset // (8 * size) * size
        return Field(begin, size, offset - 8 * begin, width, signed)

    def enumerators(self, name: str) -> dict[str, int]:
        """The values of an enumeration by name; none of what there is not."""
        of = self._named(name)
        if of is None or of.kind not in (ENUM, ENUM64):
            return {}
        form = "<Ii" if of.kind == ENUM else "<IQ"
        step, first = struct.calcsize(form), of.at + 12
        pairs = struct.iter_unpack(form, self.data[first : first + step * of.elements])
        return {self._string(self.strings + text): value for text, value in pairs}
