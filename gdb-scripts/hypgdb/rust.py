"""Rust's types, as gdb knows them from a small program's debug information."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .memory import Problem
from .system import Field

if TYPE_CHECKING:
    import gdb


class RustRecord:
    """A structure's type."""

    def __init__(self, of: gdb.Type) -> None:
        self.type = of.strip_typedefs()
        self.size = self.type.sizeof

    def _member(self, path: str) -> tuple[int, gdb.Type]:
        """A member by its path: where it is, and its type."""
        offset, member = 0, self.type
        for name in path.split("."):
            found = next((field for field in member.fields() if field.name == name and hasattr(field, "bitpos")), None)
            if found is None or found.type is None:
                raise Problem(f"{self.type} has no member {path}: is this the ELF file of the hyp that runs?")
            offset += (found.bitpos or 0) // 8
            member = found.type.strip_typedefs()
        return offset, member

    def field(self, path: str) -> Field:
        """Where a number is."""
        offset, member = self._member(path)
        return Field(offset, member.sizeof)

    def element(self, path: str) -> RustRecord:
        """The type of a slice's elements: a slice is a pointer and a length."""
        return RustRecord(self._member(path + ".data_ptr")[1].target())

    def enumerators(self, path: str) -> dict[int, str]:
        """The names of a member's values, without the type's."""
        fields = self._member(path)[1].fields()
        return {field.enumval or 0: (field.name or "").rsplit("::", 1)[-1] for field in fields}
