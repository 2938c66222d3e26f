"""ELF files, hyp's description of itself, QEMU's memory map."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING

import pytest
from simulated import LINEAR, RAM, Words

from hypgdb.elf import Elf, Symbol, build_id
from hypgdb.memory import Problem, Span, parse_memory_tree
from hypgdb.own import compare_builds, parse

if TYPE_CHECKING:
    from pathlib import Path

STRINGS = b"\0long_name\0other\0"


def elf_bytes() -> bytes:
    """One segment of four bytes, a note, and symbols of which one name is the other's end."""
    note = struct.pack("<III", 10, 2, 7) + b"INSPECTOR\0\0\0" + b"{}\0\0"
    symbols = b"\0" * 24
    for name, address, size in [(STRINGS.index(b"long_name"), 0x1000, 8), (STRINGS.index(b"name"), 0x1010, 4)]:
        symbols += struct.pack("<IBBHQQ", name, 1, 0, 1, address, size)
    body = b"CODE" + note + symbols + STRINGS
    at = 64 + 2 * 56
    notes_at, symbols_at = at + 4, at + 4 + len(note)
    strings_at = symbols_at + len(symbols)
    sections_at = at + len(body)
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header += struct.pack("<HHIQQQIHHHHHH", 4, 183, 1, 0, 64, sections_at, 0, 64, 56, 2, 64, 3, 0)
    segments = struct.pack("<IIQQQQQQ", 1, 7, at, 0x1000, 0x4000_0000, 4, 32, 1)
    segments += struct.pack("<IIQQQQQQ", 4, 4, notes_at, 0, 0, len(note), 0, 4)
    sections = b"\0" * 64
    sections += struct.pack("<IIQQQQIIQQ", 0, 2, 0, 0, symbols_at, len(symbols), 2, 0, 8, 24)
    sections += struct.pack("<IIQQQQIIQQ", 0, 3, 0, 0, strings_at, len(STRINGS), 0, 0, 1, 0)
    return header + segments + body + sections


def test_an_elf_file(tmp_path: Path) -> None:
    path = tmp_path / "elf"
    path.write_bytes(elf_bytes())
    elf = Elf(str(path))
    assert elf.symbol("long_name") == Symbol(0x1000, 8)
    assert elf.symbol("name") == Symbol(0x1010, 4)
    assert elf.symbol("other") is None
    assert elf.load_address(0x1010) == 0x4000_0010
    assert elf.load_address(0x1020) is None
    assert (elf.content(0x1000, 4), elf.content(0x1000, 5)) == (b"CODE", None)
    assert list(elf.notes()) == [(b"INSPECTOR", 7, b"{}")]


def test_what_is_no_elf_file(tmp_path: Path) -> None:
    path = tmp_path / "elf"
    whole = elf_bytes()
    for data in (b"", b"text", whole[:16], whole[:100], whole[:18] + b"\x3e\0" + whole[20:]):
        path.write_bytes(data)
        with pytest.raises(Problem):
            Elf(str(path))
    with pytest.raises(Problem, match="cannot read it"):
        Elf(str(tmp_path / "none"))


def note(owner: bytes, kind: int, content: bytes) -> bytes:
    """An ELF note."""
    head = struct.pack("<III", len(owner), len(content), kind)
    return head + owner.ljust(len(owner) + 3 & ~3, b"\0") + content.ljust(len(content) + 3 & ~3, b"\0")


def build_of(path: Path, notes: bytes, va: int = LINEAR + RAM.start) -> Elf:
    """A file of a program that begins with notes, and whose notes are said to be at an address."""
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header += struct.pack("<HHIQQQIHHHHHH", 2, 183, 1, 0, 64, 0, 0, 64, 56, 2, 64, 0, 0)
    at, size = 64 + 2 * 56, len(notes)
    segments = struct.pack("<IIQQQQQQ", 1, 5, at, LINEAR + RAM.start, RAM.start, size, size, 1)
    segments += struct.pack("<IIQQQQQQ", 4, 4, at, va, 0, size, size, 4)
    path.write_bytes(header + segments + notes)
    return Elf(str(path))


def memory_of(data: bytes) -> Words:
    """RAM that begins with these bytes."""
    data = data.ljust(len(data) + 7 & ~7, b"\0")
    return Words({RAM.start + at: int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8)})


ID = note(b"GNU\0", 3, b"this build")


def test_the_build_id_is_the_gnu_note_of_type_3() -> None:
    salt = note(b"Linux\0", 0x100, b"salt")
    assert build_id(ID) == build_id(salt + ID) == b"this build"
    assert all(build_id(ID[:cut]) is None for cut in range(len(ID) - 2))
    for other in (salt, bytes(64), b"\xff" * 64, note(b"GNU\0", 1, b"abi")):
        assert build_id(other) is None


def test_another_build_than_the_file_is_told_by_both_ids(tmp_path: Path) -> None:
    path = tmp_path / "hyp.elf"
    elf = build_of(path, ID)
    assert compare_builds(memory_of(ID), elf) == (True, None)
    said = f"{path} is not the hyp that runs: its build id is {b'this build'.hex()}, "
    behind = "; give gdb the file of that build"
    other = memory_of(note(b"GNU\0", 3, b"another id"))
    running = f"the running hyp's is {b'another id'.hex()}"
    assert compare_builds(other, elf) == (False, f"{said}{running}{behind}")
    assert compare_builds(memory_of(b"code" * 9), elf) == (False, f"{said}there is none at 0x40000000{behind}")


def test_builds_that_cannot_be_compared(tmp_path: Path) -> None:
    path = tmp_path / "hyp.elf"
    elf = build_of(path, ID)
    assert compare_builds(Words(), elf) == (True, None), "nothing is loaded yet"
    used, doubt = compare_builds(Words(ram=Span(0x8000_0000, 0x1000)), elf)
    assert used, "memory is not there"
    assert f"{doubt}".startswith(f"whether {path} is of the build that runs is not known: ")
    running = memory_of(note(b"GNU\0", 3, b"another id"))
    assert compare_builds(running, build_of(path, note(b"GNU\0", 1, b"abi"))) == (True, None)
    assert compare_builds(running, build_of(path, ID[:-4])) == (True, None)
    assert compare_builds(running, build_of(path, ID, va=0)) == (True, None)


DESCRIPTION = {
    "format": "hyp.description/1",
    "release": "0.1.0",
    "layout": {"profile": "A"},
    "physvirt_offset": "0xffffffc000000000",
    "regimes": [{"name": "host-s2", "root": "0x40100000"}, {"name": "hyp-s1", "root": "0x40102000"}],
    "ram": [{"base": "0x40000000", "size": 2097152}],
    "sections": [{"name": "text", "base": "0x40002000", "size": 4096}],
    "locks": [{"name": "host", "symbol": "HYP.host.lock", "pa": "0x40180000"}],
    "symbols": [],
}


def test_the_description() -> None:
    found = parse(json.dumps(DESCRIPTION))
    assert (found.host_root, found.hyp_root) == (0x4010_0000, 0x4010_2000)
    assert found.ram == [Span(0x4000_0000, 0x20_0000)]
    assert [lock.pa for lock in found.locks] == [0x4018_0000]


@pytest.mark.parametrize("change", [{"format": "other/1"}, {"ram": None}, {"regimes": []}, {"physvirt_offset": "x"}])
def test_a_description_that_is_odd(change: dict[str, object]) -> None:
    with pytest.raises(Problem):
        parse(json.dumps(DESCRIPTION | change))
    with pytest.raises(Problem):
        parse("[")


def test_ram_in_the_memory_map() -> None:
    text = """FlatView #0
 AS "I/O", root: io
  0000000000000000-000000000000ffff (prio 0, ram): io
FlatView #1
 AS "memory", root: system
 AS "cpu-memory-0", root: system
 Root memory region: system
  0000000000000000-0000000003ffffff (prio 0, romd): virt.flash0
  0000000009000000-0000000009000fff (prio 0, i/o): pl011
  0000000040000000-000000005fffffff (prio 0, ram): mach-virt.ram
"""
    assert parse_memory_tree(text) == [Span(0x4000_0000, 0x2000_0000)]
