"""The kernel's types, names of functions, and why a CPU came to EL2."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import cast

import pytest

from hypgdb import symbols, syndrome
from hypgdb.btf import Btf
from hypgdb.elf import Elf, Symbol
from hypgdb.memory import Problem
from hypgdb.system import Cpu, Field

NAMES = b"\0u32\0s8\0pair\0a\0b\0level\0side\0HERE\0THERE\0again\0"


def btf_bytes() -> bytes:
    """`struct pair { u32 a:4, b:4; struct { s8 level; }; }; enum side { HERE = -1, THERE = 7 }`, `typedef … again`."""

    def name(word: bytes) -> int:
        return NAMES.index(b"\0" + word + b"\0") + 1

    def head(word: bytes, kind: int, count: int, size: int, flag: int = 0) -> bytes:
        return struct.pack("<III", name(word) if word else 0, flag << 31 | kind << 24 | count, size)

    types = head(b"u32", 1, 0, 4) + struct.pack("<I", 32)
    types += head(b"s8", 1, 0, 1) + struct.pack("<I", 1 << 24 | 8)
    types += head(b"", 4, 1, 1) + struct.pack("<III", name(b"level"), 2, 0)
    types += head(b"pair", 4, 3, 8, flag=1)
    types += struct.pack("<III", name(b"a"), 1, 4 << 24 | 24) + struct.pack("<III", name(b"b"), 1, 4 << 24 | 28)
    types += struct.pack("<III", 0, 3, 32)
    types += head(b"side", 6, 2, 4) + struct.pack("<Ii", name(b"HERE"), -1) + struct.pack("<Ii", name(b"THERE"), 7)
    # A name for itself.
    types += head(b"again", 8, 0, 6)
    return struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(NAMES)) + types + NAMES


def test_members_by_their_path() -> None:
    btf = Btf(btf_bytes())
    assert btf.field("pair.b") == Field(0, 4, 28, 4)
    level = btf.field("pair.level")
    assert level is not None
    assert level.of(bytes([0, 0, 0, 0xA5, 0xFF])) == -1
    assert [btf.field(path) for path in ("pair.none", "none.a", "pair.a.b")] == [None, None, None]
    assert (btf.size("pair"), btf.size("none")) == (8, 0)
    assert (btf.has("side"), btf.has("again")) == (True, False)
    assert btf.enumerators("side") == {"HERE": -1, "THERE": 7}
    assert btf.enumerators("pair") == {}


def test_odd_types() -> None:
    with pytest.raises(Problem):
        Btf(b"").has("pair")
    whole = btf_bytes()
    with pytest.raises(Problem, match="unknown kind 31"):
        Btf(whole[:28] + struct.pack("<I", 31 << 24) + whole[32:]).has("pair")


def elf_with(*names: str) -> Elf:
    """A file of these symbols, each at its number."""
    table = {name: Symbol(number, 0) for number, name in enumerate(names)}
    text = b"\0" + b"".join(name.encode() + b"\0" for name in names)
    return cast("Elf", SimpleNamespace(names=text, symbol=table.get))


RUST = "_ZN3hyp5abort32_$LT$impl$u20$hyp..init..Hyp$GT$21handle_host_mem_abort17h40dca0ecfe3a870cE"


@pytest.mark.parametrize(
    ("names", "wanted", "found"),
    [
        (("vm_table", "__kvm_nvhe_vm_table"), "vm_table", 1),
        (("el2_vectors",), "el2_vectors", 0),
        (("other", RUST), "handle_host_mem_abort", 1),
        ((RUST,), "host_mem_abort", None),
        ((RUST,), "abort", None),
    ],
)
def test_functions_by_the_name_that_people_say(names: tuple[str, ...], wanted: str, found: int | None) -> None:
    symbol = symbols.find(elf_with(*names), wanted)
    assert (None if symbol is None else symbol.address) == found


def test_names_for_completion() -> None:
    assert symbols.names(elf_with(RUST, "el2_vectors")) == {"handle_host_mem_abort"}
    assert symbols.names(elf_with("start", "__kvm_nvhe_a", "__kvm_nvhe_b.c")) == {"a", "b.c"}


@pytest.mark.parametrize(
    ("esr", "text"),
    [
        (0x93890047, "data abort from a lower level: translation fault, level 3, write"),
        (0x82000006, "instruction abort from a lower level: translation fault, level 2"),
        (0x9200000F, "data abort from a lower level: permission fault, level 3, read"),
        (0x92000087, "data abort from a lower level: translation fault, level 3, read, on a walk of stage 1"),
        (0x9200002B, "data abort from a lower level: translation fault, level -1, read"),
        (0x5A000000, "HVC"),
        (0xFC000000, "exception class 0x3f"),
    ],
)
def test_syndromes(esr: int, text: str) -> None:
    assert syndrome.cause(esr) == text


def test_the_address_that_faulted() -> None:
    cpu = {"HPFAR_EL2": 0x4226B0, "FAR_EL2": 0xFFFF_8000_1234_5678}
    assert syndrome.ipa(Cpu(0, cpu | {"ESR_EL2": 0x93890047})) == 0x4226_B678
    # On a walk of stage 1 the offset is not that of the table.
    assert syndrome.ipa(Cpu(0, cpu | {"ESR_EL2": 0x920000C7})) == 0x4226_B000
