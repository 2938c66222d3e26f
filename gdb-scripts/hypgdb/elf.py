"""ELF files of AArch64, read by ourselves: gdb would expand every type of a big vmlinux to answer a question."""

from __future__ import annotations

import mmap
import struct
from array import array
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from .memory import Problem, Span

if TYPE_CHECKING:
    from collections.abc import Iterator

PT_LOAD, PT_NOTE, SHT_SYMTAB = 1, 4, 2
NT_GNU_BUILD_ID = 3
EM_AARCH64 = 183
SYMBOL_SIZE = 24


class Segment(NamedTuple):
    """A program header."""

    type: int
    flags: int
    offset: int
    va: int
    pa: int
    file_size: int
    size: int
    align: int


class Section(NamedTuple):
    """A section header."""

    name: int
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    entry_size: int


class Symbol(NamedTuple):
    """A symbol's value and size."""

    address: int
    size: int


class Elf:
    """A file that stays open."""

    def __init__(self, path: str) -> None:
        """Raises `Problem` for what is no 64-bit little-endian ELF file of AArch64."""
        self.path = path
        self._known: dict[str, Symbol | None] = {}
        try:
            with open(path, "rb") as file:
                self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise Problem(f"{path}: cannot read it: {error}") from error
        if self.data[:6] != b"\x7fELF\x02\x01" or len(self.data) < 64:
            raise Problem(f"{path} is no 64-bit little-endian ELF file")
        self.type, machine = struct.unpack_from("<HH", self.data, 16)
        if machine != EM_AARCH64:
            raise Problem(f"{path} is not for AArch64")
        try:
            self.segments = [Segment(*fields) for fields in self._headers("<IIQQQQQQ", 0x20, 0x36)]
            self.sections = [Section(*fields) for fields in self._headers("<IIQQQQIIQQ", 0x28, 0x3A)]
        except struct.error as error:
            raise Problem(f"{path} is truncated or damaged") from error

    def _headers(self, form: str, offset_at: int, sizes_at: int) -> Iterator[tuple[int, ...]]:
        (offset,) = struct.unpack_from("<Q", self.data, offset_at)
        size, count = struct.unpack_from("<HH", self.data, sizes_at)
        for index in range(count):
            yield struct.unpack_from(form, self.data, offset + index * size)

    def section(self, name: str) -> tuple[int, bytes] | None:
        """The address and content of the section of this name."""
        (names,) = struct.unpack_from("<H", self.data, 0x3E)
        wanted = name.encode() + b"\0"
        for section in self.sections:
            at = self.sections[names].offset + section.name
            if self.data[at : at + len(wanted)] == wanted:
                return section.address, self.data[section.offset : section.offset + section.size]
        return None

    @cached_property
    def _symtab(self) -> tuple[bytes, bytes, array[int]]:
        """The names, the table, and where each symbol's name begins. Half a million symbols are no objects."""
        table = next((section for section in self.sections if section.type == SHT_SYMTAB), None)
        if table is None or table.link >= len(self.sections):
            return b"", b"", array("I")
        names = self.sections[table.link]
        data = self.data[table.offset : table.offset + table.size // SYMBOL_SIZE * SYMBOL_SIZE]
        starts = array("I", data)[:: SYMBOL_SIZE // 4]
        return self.data[names.offset : names.offset + names.size], data, starts

    def symbol(self, name: str) -> Symbol | None:
        """The symbol of exactly this name. Names share their ends: one may begin anywhere in another."""
        if name not in self._known:
            self._known[name] = self._search(name)
        return self._known[name]

    def _search(self, name: str) -> Symbol | None:
        names, data, starts = self._symtab
        wanted = name.encode() + b"\0"
        at = names.find(wanted)
        while at >= 0:
            if at in starts:
                _, _, _, section, value, size = struct.unpack_from("<IBBHQQ", data, SYMBOL_SIZE * starts.index(at))
                return Symbol(value, size) if section else None
            at = names.find(wanted, at + 1)
        return None

    @property
    def names(self) -> bytes:
        """The names of all symbols, with a zero byte around each."""
        return self._symtab[0]

    def load_address(self, va: int) -> int | None:
        """Where a linked address is loaded to, physically."""
        for segment in self.segments:
            if segment.type == PT_LOAD and va in Span(segment.va, segment.size):
                return va - segment.va + segment.pa
        return None

    def content(self, va: int, size: int) -> bytes | None:
        """The file's bytes for a linked address."""
        for segment in self.segments:
            if segment.type == PT_LOAD and Span(segment.va, segment.file_size).covers(Span(va, size)):
                at = segment.offset + va - segment.va
                return self.data[at : at + size]
        return None

    def notes(self) -> Iterator[tuple[bytes, int, bytes]]:
        """Owner, type and content of each note."""
        for segment in self.segments:
            if segment.type == PT_NOTE:
                yield from _notes(self.data[segment.offset : segment.offset + segment.file_size])

    def loaded_build_id(self) -> tuple[Span, bytes] | None:
        """Where the notes with the build id are loaded to, physically, and the id."""
        for segment in self.segments:
            if segment.type != PT_NOTE:
                continue
            pa, notes = self.load_address(segment.va), self.content(segment.va, segment.file_size)
            found = build_id(notes) if notes else None
            if pa is not None and found:
                return Span(pa, segment.file_size), found
        return None


def _notes(data: bytes) -> Iterator[tuple[bytes, int, bytes]]:
    at = 0
    while at + 12 <= len(data):
        name_size, size, kind = struct.unpack_from("<III", data, at)
        content = at + 12 + (name_size + 3 & ~3)
        if content + size > len(data):
            return
        yield data[at + 12 : at + 12 + name_size].rstrip(b"\0"), kind, data[content : content + size]
        at = content + (size + 3 & ~3)


def build_id(notes: bytes) -> bytes | None:
    """The GNU build id among the notes of a program."""
    return next((content for owner, kind, content in _notes(notes) if (owner, kind) == (b"GNU", NT_GNU_BUILD_ID)), None)
