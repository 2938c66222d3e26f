"""Snapshots: ELF cores of physical memory, as the inspector opens them.

    PT_NOTE   CORE       1   a CPU's general registers, which gdb shows as a thread
              INSPECTOR  1   RAM and all registers by name, as JSON
              INSPECTOR  2   hyp's description of itself, if there is one
              INSPECTOR  4   checksums: the file's length; of each part its end and CRC-32; and a CRC-32 of all that
    PT_LOAD   a range of memory, by its physical address

The parts are the headers, each note, the last note's head, and each range of memory.
"""

from __future__ import annotations

import json
import os
import struct
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

OWNER, FACTS, DESCRIPTION, CHECKSUMS = b"INSPECTOR", 1, 2, 4
CORE, PRSTATUS = b"CORE", 1
FORMAT = "inspector.snapshot/1"
GENERAL = (*(f"x{number}" for number in range(31)), "sp", "pc", "cpsr")
ET_CORE, EM_AARCH64, PT_LOAD, PT_NOTE = 4, 183, 1, 4
HEADER_SIZE, SEGMENT_SIZE = 64, 56
# Ranges that e_phnum has room for.
MOST_RANGES = 0xFFF0


@dataclass
class Contents:
    """What a snapshot holds."""

    cpus: list[dict[str, int]]
    ram: list[tuple[int, int]]
    memory: list[tuple[int, bytes]]
    physvirt_offset: int
    description: str | None


def encode(contents: Contents) -> bytes:
    """The file."""
    if len(contents.memory) > MOST_RANGES:
        raise ValueError("more ranges of memory than a core holds")
    notes = [_note(CORE, PRSTATUS, _prstatus(number, cpu)) for number, cpu in enumerate(contents.cpus)]
    notes.append(_note(OWNER, FACTS, json.dumps(_facts(contents)).encode()))
    if contents.description is not None:
        notes.append(_note(OWNER, DESCRIPTION, contents.description.encode()))
    parts = 1 + len(notes) + 1 + len(contents.memory)
    sums = _note(OWNER, CHECKSUMS, bytes(8 + 12 * parts + 4))
    sums_size = 8 + 12 * parts + 4
    head = sums[: len(sums) - sums_size]
    notes_at = HEADER_SIZE + SEGMENT_SIZE * (1 + len(contents.memory))
    notes_size = sum(map(len, notes)) + len(sums)
    at = notes_at + notes_size
    segments = _segment(PT_NOTE, notes_at, 0, 0, notes_size)
    for start, data in contents.memory:
        segments += _segment(PT_LOAD, at, (start - contents.physvirt_offset) % (1 << 64), start, len(data))
        at += len(data)
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH",
        ET_CORE,
        EM_AARCH64,
        1,
        0,
        HEADER_SIZE,
        0,
        0,
        HEADER_SIZE,
        SEGMENT_SIZE,
        1 + len(contents.memory),
        0,
        0,
        0,
    )
    before = [header + segments, *notes, head]
    behind = [data for _, data in contents.memory]
    return b"".join([*before, _checksums(before, sums_size, behind), *behind])


def _checksums(before: list[bytes], size: int, behind: list[bytes]) -> bytes:
    """The content of the note of checksums, of `size` bytes, with these parts around it."""
    ends, end = b"", 0
    for part in before:
        end += len(part)
        ends += struct.pack("<QI", end, zlib.crc32(part))
    end += size
    for part in behind:
        end += len(part)
        ends += struct.pack("<QI", end, zlib.crc32(part))
    body = struct.pack("<Q", end) + ends
    return body + struct.pack("<I", zlib.crc32(body))


def _segment(kind: int, offset: int, va: int, pa: int, size: int) -> bytes:
    # A core's notes take no memory. Memory is not read-only: gdb would take that from the program.
    flags, memory_size = (4, 0) if kind == PT_NOTE else (7, size)
    return struct.pack("<IIQQQQQQ", kind, flags, offset, va, pa, size, memory_size, 4 if kind == PT_NOTE else 1)


def _note(owner: bytes, kind: int, content: bytes) -> bytes:
    name = owner + b"\0"
    head = struct.pack("<III", len(name), len(content), kind)
    return head + name.ljust(len(name) + 3 & ~3, b"\0") + content.ljust(len(content) + 3 & ~3, b"\0")


def _prstatus(number: int, cpu: dict[str, int]) -> bytes:
    """`struct elf_prstatus` of AArch64 Linux: the thread's number, and x0 to x30, sp, pc and pstate."""
    values = struct.pack(f"<{len(GENERAL)}Q", *(cpu.get(name, 0) for name in GENERAL))
    return bytes(32) + struct.pack("<I", number + 1) + bytes(76) + values + bytes(8)


def _facts(contents: Contents) -> dict[str, object]:
    return {
        "format": FORMAT,
        "tool": "gdb-scripts",
        "physvirt_offset": hex(contents.physvirt_offset),
        "found_running": None,
        "ram": [{"base": hex(start), "size": hex(size)} for start, size in contents.ram],
        "refused": [],
        "cpus": [{name: hex(value) for name, value in cpu.items()} for cpu in contents.cpus],
    }


def write(path: Path, data: bytes) -> None:
    """Writes a file under another name first, so that it is whole or not there."""
    handle, name = tempfile.mkstemp(prefix=".snapshot", dir=path.resolve().parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        mask = os.umask(0)
        os.umask(mask)
        Path(name).chmod(0o666 & ~mask)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
