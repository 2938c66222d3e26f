"""Snapshots are read back as they were written."""

from __future__ import annotations

import json
import struct
import zlib
from typing import TYPE_CHECKING

import pytest

from hypgdb.elf import PT_LOAD, Elf
from hypgdb.saving import CHECKSUMS, FACTS, OWNER, PRSTATUS, Contents, encode, write

if TYPE_CHECKING:
    from pathlib import Path

OFFSET = (-(1 << 38)) % (1 << 64)
CONTENTS = Contents(
    cpus=[{"x0": 7, "pc": 0x4100_0000, "cpsr": 0x3C5, "VTTBR_EL2": 0x5FEB_C000}, {}],
    ram=[(0x4000_0000, 0x2000_0000)],
    memory=[(0x4000_0000, b"a" * 4096), (0x4800_0000, b"b" * 8192)],
    physvirt_offset=OFFSET,
    description=None,
)


def test_segments_and_notes(tmp_path: Path) -> None:
    path = tmp_path / "snapshot"
    write(path, encode(CONTENTS))
    elf = Elf(str(path))
    loads = [segment for segment in elf.segments if segment.type == PT_LOAD]
    assert [(load.pa, load.va - load.pa, load.file_size) for load in loads] == [
        (0x4000_0000, 1 << 38, 4096),
        (0x4800_0000, 1 << 38, 8192),
    ]
    assert [elf.data[load.offset : load.offset + 1] for load in loads] == [b"a", b"b"]
    notes = [(owner, kind) for owner, kind, _ in elf.notes()]
    assert notes == [(b"CORE", PRSTATUS)] * 2 + [(OWNER, FACTS), (OWNER, CHECKSUMS)]
    facts = json.loads(next(content for owner, kind, content in elf.notes() if (owner, kind) == (OWNER, FACTS)))
    assert facts["cpus"][0]["VTTBR_EL2"] == "0x5febc000"
    # x0 of the first CPU, where `struct elf_prstatus` has it.
    first = next(content for _, _, content in elf.notes())
    assert struct.unpack_from("<Q", first, 112) == (7,)


def test_every_byte_is_covered_by_a_checksum() -> None:
    data = encode(CONTENTS)
    sums_at = data.index(struct.pack("<Q", len(data)))
    (size,) = struct.unpack_from("<I", data, data.rindex(OWNER) - 8)
    body = data[sums_at : sums_at + size - 4]
    assert struct.unpack_from("<I", data, sums_at + size - 4) == (zlib.crc32(body),)
    start = 0
    for end, crc in struct.iter_unpack("<QI", body[8:]):
        assert zlib.crc32(data[start:end]) == crc
        start = end + size if end == sums_at else end
    assert start == len(data)


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="none"):
        write(tmp_path / "none" / "snapshot", b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write(tmp_path / "folder", b"")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
