"""What was found on a machine, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .descriptors import Regime, bits

if TYPE_CHECKING:
    from .elf import Elf
    from .memory import Memory, Span

HOST, HYP = "host", "hyp"


@dataclass(frozen=True)
class Cpu:
    """A CPU and those of its registers that are needed here."""

    number: int
    registers: dict[str, int]
    # Stopped by hyp's own debugger; the registers are those that it saved.
    parked: bool = False

    def __getitem__(self, name: str) -> int:
        return self.registers.get(name, 0)

    @property
    def level(self) -> int:
        """The exception level, from CPSR, as no debugger has CurrentEL."""
        return bits(self["cpsr"], 3, 2)


@dataclass(frozen=True)
class Field:
    """A number in a structure: `width` bits from bit `shift` of the `size` bytes at `offset`."""

    offset: int
    size: int
    shift: int = 0
    width: int = 64
    signed: bool = False

    def of(self, data: bytes) -> int:
        """Its value, from the structure's bytes."""
        value = int.from_bytes(data[self.offset : self.offset + self.size], "little")
        width = min(self.width, 8 * self.size)
        value = value >> self.shift & (1 << width) - 1
        return value - (1 << width) if self.signed and value >> width - 1 else value


@dataclass(frozen=True)
class Records:
    """Page records, where they say whose a page is."""

    # Virtual address of the record of page 0, in the hypervisor's tables.
    base: int
    size: int
    host: Field
    # None: in software bits of its descriptors.
    hyp: Field | None
    # Kept inverted, so that all zeros mean that the page is the host's alone.
    hyp_inverted: bool
    share_count: Field | None


@dataclass(frozen=True)
class Layout:
    """Where owners and page states are."""

    # Bits of an annotation that hold the owner: "9:2", or "63:60" where they begin with a type.
    owner_encoding: str
    # Owners by number.
    owners: dict[int, str]
    # None: states are in software bits of descriptors.
    records: Records | None = None
    # Whether the host may share pages by FF-A, of which nothing is tracked.
    ffa: bool = False

    @property
    def page_state_in(self) -> str:
        """In words."""
        return "vmemmap" if self.records else "descriptor"


@dataclass(frozen=True)
class LockPlace:
    """A ticket lock, and whether a record of its holder stands behind the tickets."""

    name: str
    symbol: str
    pa: int
    recorded: bool


@dataclass(frozen=True)
class Vcpu:
    """A virtual CPU of a VM."""

    number: int
    pa: int | None
    # The CPU that it is loaded on.
    cpu: int | None


@dataclass(frozen=True)
class Vm:
    """A VM that the hypervisor knows. One without `pa` is a handle that is only reserved."""

    handle: int
    pa: int | None
    protected: bool | None = None
    dying: bool | None = None
    vmid: int | None = None
    root: int | None = None
    vcpus: tuple[Vcpu, ...] = ()


@dataclass
class System:
    """A machine with a hypervisor."""

    kind: str
    release: str | None
    mode: str
    layout: Layout
    # PA = VA + this, modulo 2**64, in the hypervisor's linear range.
    physvirt_offset: int
    regimes: list[Regime]
    memory: Memory
    # Its file, and the address where EL2 runs less the linked one, modulo 2**64.
    elf: Elf | None
    link_offset: int
    ram: list[Span]
    cpus: list[Cpu]
    locks: list[LockPlace] = field(default_factory=list)
    vms: list[Vm] = field(default_factory=list)
    sections: list[tuple[str, Span]] = field(default_factory=list)
    # What tells which kernel this is, besides what EL2 maps.
    kept: list[Span] = field(default_factory=list)
    # What each fact is from, for `hyp info`.
    facts: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def regime(self, name: str) -> Regime:
        """A regime by name; raises `KeyError`."""
        return {regime.name: regime for regime in self.regimes}[name]

    def linear_pa(self, va: int) -> int:
        """What the linear range has at an address of the hypervisor's."""
        return (va + self.physvirt_offset) % (1 << 64)

    def linear_va(self, pa: int) -> int:
        """Where the linear range has a physical address."""
        return (pa - self.physvirt_offset) % (1 << 64)
