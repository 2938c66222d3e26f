"""The machine that gdb is connected to: its physical memory and its CPUs, by three roads.

- QEMU's gdb server, whose memory packets are about physical addresses while `Qqemu.PhyMemMode` is on;
- hyp's own gdb server, which has all of RAM in EL2's linear range, and describes itself in a virtual file;
- a core, as a snapshot of the inspector's is, or QEMU's `dump-guest-memory` makes.
"""

from __future__ import annotations

import json
import re
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import gdb

from .elf import PT_LOAD, Elf
from .memory import PAGE, Memory, Problem, Span, parse_memory_tree
from .own import Description, parse
from .system import Cpu

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# What is read of every CPU: where it is, and what describes tables.
REGISTERS = (
    "pc",
    "cpsr",
    "HCR_EL2",
    "SCTLR_EL2",
    "TCR_EL2",
    "TTBR0_EL2",
    "MAIR_EL2",
    "VTCR_EL2",
    "VTTBR_EL2",
    "VBAR_EL2",
    "TPIDR_EL2",
    "ESR_EL2",
    "FAR_EL2",
    "HPFAR_EL2",
    "ELR_EL2",
    "SPSR_EL2",
    "ID_AA64MMFR1_EL1",
)
BARE = ("VBAR", "SCTLR", "CPACR", "AMAIR0", "AFSR0", "AFSR1")
DESCRIPTION_FILE = "hyp/description"
# The notes of a snapshot: facts, and the description if there was one.
NOTE_OWNER, NOTE_FACTS, NOTE_DESCRIPTION = b"INSPECTOR", 1, 2


class Target:
    """A machine that stands still."""

    memory: Memory
    cpus: list[Cpu]
    # None of a core.
    ram: list[Span]
    description: Description | None = None

    @contextmanager
    def reading(self) -> Iterator[None]:
        """While memory is read; nothing else may be asked of gdb meanwhile."""
        yield


def attached() -> Target:
    """What gdb is connected to; raises `Problem` where that is no machine that stands still."""
    connection = gdb.selected_inferior().connection
    if connection is None or not connection.is_valid():
        raise Problem("gdb is not connected: `target remote :1234`, or open a snapshot with `core-file`")
    if connection.type == "core":
        return Core(_core_file())
    if not isinstance(connection, gdb.RemoteTargetConnection):
        raise Problem(f"this is about machines, and gdb is connected to {connection.type}")
    thread = gdb.selected_thread()
    if thread is None or thread.is_running():
        raise Problem("the machine runs: stop it with Ctrl-C or `interrupt`")
    if connection.send_packet("qqemu.PhyMemMode") in (b"0", b"1"):
        return Qemu(connection)
    return Channel()


class Qemu(Target):
    """A machine behind QEMU's gdb server."""

    def __init__(self, connection: gdb.RemoteTargetConnection) -> None:
        self.connection = connection
        self.inferior = gdb.selected_inferior()
        self.cpus = live_cpus()
        # Where there is no RAM, QEMU reads zeros, or reads a device with all that comes of it.
        self.ram = parse_memory_tree(gdb.execute("monitor info mtree -f", to_string=True))
        self.pages: dict[int, bytes] = {}
        self.memory = self

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Memory packets are about physical addresses. Put back in every case, or gdb itself is lost."""
        before = self.connection.send_packet("qqemu.PhyMemMode")
        number = before.decode() if before in (b"0", b"1") else "0"
        put_back = PutBack(lambda: self.connection.send_packet(f"Qqemu.PhyMemMode:{number}"))
        try:
            self.connection.send_packet("Qqemu.PhyMemMode:1")
            yield
        finally:
            put_back.now()

    def read(self, pa: int, size: int) -> bytes:
        """From RAM only. A page is read whole, and once."""
        if not any(region.covers(Span(pa, size)) for region in self.ram):
            raise Problem(f"{pa:#x} is no RAM")
        first, end = pa // PAGE * PAGE, -(-(pa + size) // PAGE) * PAGE
        missing = [page for page in range(first, end, PAGE) if page not in self.pages]
        if len(missing) > 1:
            self._fetch(first, end - first)
        elif missing:
            self._fetch(missing[0], PAGE)
        data = b"".join(self.pages[page] for page in range(first, end, PAGE))
        return data[pa - first : pa - first + size]

    def _fetch(self, pa: int, size: int) -> None:
        data = read_inferior(self.inferior, pa, size)
        for at in range(0, size, PAGE):
            self.pages[pa + at] = data[at : at + PAGE]


class PutBack:
    """Something to be undone, whatever interrupts it: at the latest before gdb's next prompt."""

    def __init__(self, undo: Callable[[], object]) -> None:
        self.undo = undo
        gdb.events.before_prompt.connect(self.now)

    def now(self, *_: object) -> None:
        """Undoes it, once."""
        interrupted: KeyboardInterrupt | None = None
        while True:
            try:
                self.undo()
                break
            except KeyboardInterrupt as interrupt:
                interrupted = interrupt
            except gdb.error:
                # The link is lost, and with it who it would be undone for.
                break
        gdb.events.before_prompt.disconnect(self.now)
        if interrupted:
            raise interrupted


class Channel(Target):
    """hyp's own gdb server."""

    def __init__(self) -> None:
        self.inferior = gdb.selected_inferior()
        self.description = parse(_remote_file(DESCRIPTION_FILE))
        self.ram = self.description.ram
        self.cpus = live_cpus()
        self.memory = self

    def read(self, pa: int, size: int) -> bytes:
        """By EL2's linear range, which this server has all of RAM in."""
        description = self.description
        assert description
        if not any(region.covers(Span(pa, size)) for region in self.ram):
            raise Problem(f"{pa:#x} is no RAM")
        return read_inferior(self.inferior, (pa - description.physvirt_offset) % (1 << 64), size)


class Core(Target):
    """A file with a machine's physical memory."""

    def __init__(self, path: str) -> None:
        elf = Elf(path)
        self.data = elf.data
        self.segments = [segment for segment in elf.segments if segment.type == PT_LOAD]
        notes = {kind: content for owner, kind, content in elf.notes() if owner == NOTE_OWNER}
        if NOTE_FACTS not in notes:
            raise Problem(f"{path} holds no registers of EL2's: open a snapshot, which `hyp snapshot FILE` makes")
        facts = json.loads(notes[NOTE_FACTS])
        self.cpus = [
            Cpu(number, {name: int(value, 16) for name, value in registers.items()})
            for number, registers in enumerate(facts["cpus"])
        ]
        if NOTE_DESCRIPTION in notes:
            self.description = parse(notes[NOTE_DESCRIPTION].decode())
        self.memory = self

    def read(self, pa: int, size: int) -> bytes:
        """What was saved."""
        for segment in self.segments:
            if Span(segment.pa, segment.file_size).covers(Span(pa, size)):
                at = segment.offset + pa - segment.pa
                return self.data[at : at + size]
        raise Problem(f"{pa:#x} is not in this file")


def live_cpus() -> list[Cpu]:
    """Every CPU, by the registers that are needed."""
    return [Cpu(number, registers) for number, registers in enumerate(_of_each_thread(REGISTERS))]


def all_registers() -> list[dict[str, int]]:
    """Every register of every CPU that is a number."""
    architecture = gdb.newest_frame().architecture()
    names = tuple(register.name for register in architecture.registers() if register.name)
    each = _of_each_thread(names)
    # QEMU leaves out what all names of EL1's have in common.
    return [{f"{name}_EL1" if name in BARE else name: value for name, value in one.items()} for one in each]


def _of_each_thread(names: tuple[str, ...]) -> list[dict[str, int]]:
    """The registers of every CPU, which is a thread to gdb. The selected thread and frame stay so."""
    inferior, selected, frame = gdb.selected_inferior(), gdb.selected_thread(), gdb.selected_frame()
    outer, found = frame != gdb.newest_frame(), list[dict[str, int]]()
    try:
        for thread in sorted(inferior.threads(), key=lambda thread: thread.ptid[1:]):
            thread.switch()
            found.append(dict(_registers(names)))
    finally:
        if selected is not None:
            selected.switch()
        if outer and frame.is_valid():
            frame.select()
    return found


def _registers(names: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    """Those of the selected thread that it has, and that are numbers."""
    frame = gdb.newest_frame()
    for name in names:
        try:
            value = frame.read_register(name)
            yield name, int(value) % (1 << 64)
        except (ValueError, TypeError, gdb.error):
            continue


def read_inferior(inferior: gdb.Inferior, address: int, size: int) -> bytes:
    """Bytes that gdb reads."""
    try:
        return inferior.read_memory(address, size).tobytes()
    except gdb.MemoryError as error:
        raise Problem(str(error)) from error


def _remote_file(name: str) -> str:
    """A virtual file of the server's."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        try:
            gdb.execute(f"remote get {name} {path}", to_string=True)
        except gdb.error as error:
            raise Problem("this gdb server is neither QEMU's nor hyp's: it reads no physical memory") from error
        return path.read_text()


def _core_file() -> str:
    """The core's file name, which gdb tells people only."""
    said = gdb.execute("info files", to_string=True)
    found = re.search(r"^Local core dump file:\s+`(.+)', file type ", said, re.MULTILINE)
    if not found:
        raise Problem("gdb does not say which core it has open")
    return found[1]
