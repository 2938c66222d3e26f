"""hyp: its variable `HYP`, or its description of itself, which say where everything is."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from . import descriptors
from .elf import build_id
from .memory import Memory, Problem, Span
from .system import HOST, HYP, Cpu, Field, Layout, LockPlace, System

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .elf import Elf

FORMAT = "hyp.description/1"
# More elements of a list, or bytes of a text, than there ever are.
MOST = 4096


class Record(Protocol):
    """A structure's type."""

    size: int

    def field(self, path: str) -> Field:
        """A member by its path; raises `Problem` where there is none."""

    def element(self, path: str) -> Record:
        """The type of a slice's elements."""

    def enumerators(self, path: str) -> dict[int, str]:
        """The names of a member's values."""


@dataclass
class Description:
    """What hyp says of itself, by whichever way."""

    source: str
    release: str
    profile: str
    physvirt_offset: int
    host_root: int
    hyp_root: int
    ram: list[Span]
    sections: list[tuple[str, Span]]
    locks: list[LockPlace]
    problems: list[str] = field(default_factory=list)
    # As it was read.
    text: str | None = None


def parse(text: str) -> Description:
    """The description that hyp's own gdb channel has as a virtual file."""
    try:
        said: dict[str, Any] = json.loads(text)
        if said["format"] != FORMAT:
            raise Problem(f"hyp's description has the format {said['format']}, and this reads {FORMAT}")
        roots = {regime["name"]: int(regime["root"], 16) for regime in said["regimes"]}
        return Description(
            source="self-description",
            release=said["release"],
            profile=said["layout"]["profile"],
            physvirt_offset=int(said["physvirt_offset"], 16),
            host_root=roots["host-s2"],
            hyp_root=roots["hyp-s1"],
            ram=[_extent(ram) for ram in said["ram"]],
            sections=[(section["name"], _extent(section)) for section in said["sections"]],
            locks=[LockPlace(lock["name"], lock["symbol"], int(lock["pa"], 16), True) for lock in said["locks"]],
            text=text,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Problem(f"hyp's description of itself is not as expected: {error!r}") from error


def _extent(said: dict[str, Any]) -> Span:
    return Span(int(said["base"], 16), said["size"])


def read(memory: Memory, elf: Elf, record: Record) -> Description:
    """The description in `HYP`, by hyp's ELF file and the type `Hyp`."""
    variable = Variable(memory, elf, "HYP", record)
    if not any(variable.data):
        raise Problem(f"hyp has not started yet: HYP at {variable.pa:#x} is all zero; let the machine run")
    problems = []
    if not variable.number("finalised"):
        problems.append("hyp has not finished its start, so tables and owners are not final: let the machine run")
    places = {
        "host": "host.lock",
        "hyp": "hyp.lock",
        "host-pool": "host.pool.lock",
        "hyp-pool": "hyp.pool.lock",
    }
    locks = [
        LockPlace(name, f"HYP.{path}", variable.pa + record.field(path).offset, True) for name, path in places.items()
    ]
    # The UART's, which only the image has.
    console = elf.symbol("CONSOLE")
    console_pa = console and elf.load_address(console.address)
    if console_pa is not None:
        locks.append(LockPlace("console", "CONSOLE", console_pa, True))
    kinds = record.element("sections").enumerators("kind")
    sections = record.element("sections")
    return Description(
        source=f"HYP in {elf.path}",
        release=variable.list_bytes("release", 1).decode(errors="replace"),
        profile=record.enumerators("profile").get(variable.number("profile"), "unknown"),
        physvirt_offset=variable.physvirt_offset,
        host_root=variable.number("host.pgt.root"),
        hyp_root=variable.number("hyp.pgt.root"),
        ram=[_span(record.element("regions"), "", data) for data in variable.list("regions")],
        sections=[
            (_kebab(kinds.get(sections.field("kind").of(data), "unknown")), _span(sections, "range.", data))
            for data in variable.list("sections")
        ],
        locks=locks,
        problems=problems,
    )


def compare_builds(memory: Memory, elf: Elf) -> tuple[bool, str | None]:
    """Whether hyp's ELF file is to be used, which another build's is not, and what there is to say of it."""
    wanted = elf.loaded_build_id()
    if wanted is None:
        return True, None
    notes, here = wanted
    try:
        # Every build begins with its id.
        data = memory.read(notes.start, notes.size)
    except Problem as problem:
        return True, f"whether {elf.path} is of the build that runs is not known: {problem}"
    there = build_id(data)
    # Where nothing is loaded yet, hyp has not started.
    if there == here or not any(data):
        return True, None
    running = f"the running hyp's is {there.hex()}" if there else f"there is none at {notes.start:#x}"
    other = f"{elf.path} is not the hyp that runs: its build id is {here.hex()}, {running}"
    return False, f"{other}; give gdb the file of that build"


def _span(record: Record, path: str, data: bytes) -> Span:
    return Span(record.field(path + "base").of(data), record.field(path + "size").of(data))


def _kebab(name: str) -> str:
    """`HostRodata` as host-rodata."""
    return "".join("-" + c.lower() if c.isupper() else c for c in name).lstrip("-")


class Variable:
    """A variable's bytes, and their type."""

    def __init__(self, memory: Memory, elf: Elf, name: str, record: Record) -> None:
        symbol = elf.symbol(name)
        pa = symbol and elf.load_address(symbol.address)
        if pa is None:
            raise Problem(f"{elf.path} has no variable {name}")
        self.memory, self.record, self.pa = memory, record, pa
        self.data = memory.read(pa, record.size)
        self.physvirt_offset = self.number("physvirt_offset")

    def number(self, path: str) -> int:
        """A member."""
        return self.record.field(path).of(self.data)

    def list_bytes(self, path: str, size: int) -> bytes:
        """All elements, of `size` bytes each, of a slice."""
        data, length = self.number(path + ".data_ptr"), self.number(path + ".length")
        if length > MOST:
            raise Problem(f"HYP.{path} has {length} elements, which cannot be: is this the image that runs?")
        return self.memory.read((data + self.physvirt_offset) % (1 << 64), length * size) if length else b""

    def list(self, path: str) -> list[bytes]:
        """Each element of a slice."""
        size = self.record.element(path).size
        data = self.list_bytes(path, size)
        return [data[at : at + size] for at in range(0, len(data), size)]


def uncovered(memory: Memory, elf: Elf, record: Record, cpus: list[Cpu]) -> list[Cpu]:
    """CPUs as they were where hyp's own debugger has stopped them: it keeps what each was doing in `PARKED`."""
    symbol = elf.symbol("PARKED")
    pa = symbol and elf.load_address(symbol.address)
    if symbol is None or pa is None:
        return cpus
    data, found = memory.read(pa, symbol.size), list[Cpu]()
    for index, cpu in enumerate(cpus):
        element = data[index * record.size : (index + 1) * record.size]
        parked = len(element) == record.size and record.field("parked").of(element)
        found.append(Cpu(cpu.number, dict(_saved(record, element, cpu)), parked=True) if parked else cpu)
    return found


def _saved(record: Record, element: bytes, cpu: Cpu) -> Iterator[tuple[str, int]]:
    """Registers of a parked CPU, as far as they are kept: members are named as their register but for the case."""
    for name in cpu.registers:
        try:
            yield name, record.field("pstate" if name == "cpsr" else name.lower()).of(element)
        except Problem:
            continue


def system(description: Description, memory: Memory, cpus: list[Cpu], elf: Elf | None) -> System:
    """The machine, by what hyp says of itself and by its CPUs' registers."""
    # hyp's own debugger runs on tables of its own; whoever it has not stopped has hyp's.
    first = next((cpu for cpu in cpus if cpu["TTBR0_EL2"] & ~1 == description.hyp_root), cpus[0])
    e2h = descriptors.bit(first["HCR_EL2"], 34)
    mmfr1 = first["ID_AA64MMFR1_EL1"]
    hyp_s1 = descriptors.stage1(first["TTBR0_EL2"], first["TCR_EL2"], first["MAIR_EL2"], first["SCTLR_EL2"], e2h)
    host_s2 = descriptors.stage2(
        "host-s2",
        description.host_root,
        first["VTCR_EL2"],
        fwb=descriptors.bit(first["HCR_EL2"], 46),
        xnx=descriptors.bits(mmfr1, 31, 28) != 0,
    )
    problems = list(description.problems)
    parked = ", ".join(str(cpu.number) for cpu in cpus if cpu.parked)
    shown = [("parked", f"CPU {parked}: shown are the registers that hyp's debugger saved")] if parked else []
    for cpu in cpus:
        for register, regime, root in [
            ("VTTBR_EL2", host_s2, description.host_root),
            ("TTBR0_EL2", hyp_s1, description.hyp_root),
        ]:
            if regime.base(cpu[register]) != root:
                problems.append(
                    f"CPU {cpu.number}: {register} is {cpu[register]:#x}, and hyp says {root:#x}: "
                    "is this the image that runs?"
                )
    if description.profile != "A":
        problems.append(f"hyp's layout is {description.profile}, and only A is known here")
    return System(
        kind="hyp",
        release=description.release,
        mode="hvhe" if e2h else "nvhe",
        # Linux 5.15's layout, "KVM: arm64: Track shared pages at EL2 in protected mode".
        layout=Layout(owner_encoding="9:2", owners={0: HOST, 1: HYP}),
        physvirt_offset=description.physvirt_offset,
        regimes=[host_s2, hyp_s1],
        memory=memory,
        elf=elf,
        link_offset=0,
        ram=sorted(description.ram),
        cpus=cpus,
        locks=description.locks,
        sections=description.sections,
        facts=[("found by", description.source), *shown],
        problems=problems,
    )
