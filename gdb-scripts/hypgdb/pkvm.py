"""Linux's pKVM: where an unmodified kernel keeps its tables, states, VMs and locks.

Which symbol, member or enumerator there is decides, never a version.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from . import descriptors
from .btf import Btf
from .memory import Memory, Problem, Span, number, words
from .symbols import EL2
from .system import Cpu, Field, Layout, LockPlace, Records, System, Vcpu, Vm
from .walk import output

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .descriptors import Regime
    from .elf import Elf

# EL2's vectors while the host runs, while a guest does, and the latter's hardened copies: eight slots of 2 KiB.
VECTORS = (("__kvm_hyp_host_vector", 1), ("__kvm_hyp_vector", 1), ("__bp_harden_hyp_vecs", 8))
VECTOR_SIZE = 0x800
# The VM table: its length (KVM_MAX_PVMS), the first handle, and what stands for a handle that is only reserved.
VM_COUNT, FIRST_HANDLE, VM_RESERVED = 255, 0x1000, 0xA110CA7ED
# More than any VM or machine has.
MOST_VCPUS, MOST_REGIONS = 512, 1024
OWNERS = ("host", "hyp", "guest", "ffa")
SECTIONS = {"text": "text", "idmap": "idmap_text", "rodata": "rodata", "data": "data", "bss": "bss"}


@dataclass
class Kernel:
    """The kernel that runs: its symbols where they are in memory, and its types."""

    elf: Elf
    btf: Btf
    memory: Memory
    # Physical address less the linked one, modulo 2**64.
    offset: int
    hyp_s1: Regime

    def has(self, name: str) -> bool:
        """Whether EL2 has this symbol."""
        return self.elf.symbol(EL2 + name) is not None

    def pa(self, symbol: str) -> int:
        """Where a symbol is; raises `Problem` where there is none."""
        found = self.elf.symbol(symbol)
        if found is None:
            raise Problem(f"{self.elf.path} has no symbol {symbol}")
        return (found.address + self.offset) % (1 << 64)

    def number(self, symbol: str, size: int = 8) -> int:
        """The number at a symbol."""
        return number(self.memory, self.pa(symbol), size)

    def field(self, *paths: str) -> Field:
        """The first of these members that there is; the newest stands first. Raises `Problem` where there is none."""
        for path in paths:
            found = self.btf.field(path)
            if found:
                return found
        raise Problem(f"this kernel has no {paths[0]}")

    def member(self, pa: int, *paths: str) -> int:
        """The number in a member of the structure at `pa`."""
        field = self.field(*paths)
        return Field(0, field.size, field.shift, field.width, field.signed).of(
            self.memory.read(pa + field.offset, field.size)
        )

    def el2_pa(self, va: int) -> int:
        """Where an address of EL2's leads to."""
        pa = output(self.hyp_s1, self.memory, va)
        if pa is None:
            raise Problem(f"EL2 has nothing at {va:#x}")
        return pa

    def on_cpu(self, name: str, cpu: Cpu) -> int:
        """Where this CPU has its copy of a variable of EL2's: TPIDR_EL2 behind the common one."""
        return (self.pa(EL2 + name) + cpu["TPIDR_EL2"]) % (1 << 64)


def is_pkvm(elf: Elf) -> bool:
    """Whether this is a vmlinux with an EL2 of its own."""
    return elf.symbol(EL2 + "__kvm_hyp_host_vector") is not None


def system(elf: Elf, memory: Memory, cpus: list[Cpu]) -> System:
    """The machine, by the kernel's symbols and types; raises `Problem` where pKVM is not up, or for another build."""
    kernel = _kernel(elf, memory, cpus)
    layout, problems = _layout(kernel), list[str]()
    host = _host(kernel, cpus)
    physvirt_offset = kernel.number(EL2 + "hyp_physvirt_offset")
    found = System(
        kind="pkvm",
        release=_release(elf),
        mode="hvhe" if kernel.hyp_s1.e2h else "nvhe",
        layout=layout,
        physvirt_offset=physvirt_offset,
        regimes=[host.regime, kernel.hyp_s1],
        memory=memory,
        elf=elf,
        link_offset=(kernel.offset - physvirt_offset) % (1 << 64),
        ram=_ram(kernel),
        cpus=cpus,
        locks=list(_locks(kernel, host)),
        sections=list(_sections(kernel)),
        kept=list(_kept(kernel)),
        facts=[("found by", f"VBAR_EL2, and the notes of {elf.path}"), *_slide(kernel)],
        problems=problems,
    )
    try:
        for vm, regime in _vms(kernel, cpus, host):
            found.vms.append(vm)
            if regime:
                found.regimes.append(regime)
                found.locks += _vm_locks(kernel, vm)
    except Problem as problem:
        problems.append(f"VMs: {problem}")
    return found


def _kernel(elf: Elf, memory: Memory, cpus: list[Cpu]) -> Kernel:
    types = _types(elf)
    on = [cpu for cpu in cpus if descriptors.bit(cpu["SCTLR_EL2"], 0) and cpu["TTBR0_EL2"]]
    if not on:
        raise Problem("EL2's MMU is off on every CPU: pKVM is not up yet, or not on")
    notes = elf.section(".notes")
    for cpu in on:
        regime = descriptors.stage1(
            cpu["TTBR0_EL2"],
            cpu["TCR_EL2"],
            cpu["MAIR_EL2"],
            cpu["SCTLR_EL2"],
            descriptors.bit(cpu["HCR_EL2"], 34),
        )
        pa = output(regime, memory, cpu["VBAR_EL2"])
        for linked in _vectors(elf) if pa is not None else ():
            offset = ((pa or 0) - linked) % (1 << 64)
            if notes is None or _is_there(memory, (notes[0] + offset) % (1 << 64), notes[1]):
                return Kernel(elf, types, memory, offset, regime)
    raise Problem(f"{elf.path} is not the kernel that runs: its build id is nowhere that EL2's vectors lead to")


@lru_cache(maxsize=4)
def _types(elf: Elf) -> Btf:
    """The kernel's types, found once."""
    found = elf.section(".BTF")
    if found is None:
        raise Problem(f"{elf.path} has no BTF, by which members are found: it needs CONFIG_DEBUG_INFO_BTF")
    return Btf(found[1])


def _vectors(elf: Elf) -> Iterator[int]:
    """Linked addresses of all sets of EL2's vectors."""
    for name, slots in VECTORS:
        symbol = elf.symbol(EL2 + name)
        if symbol:
            yield from (symbol.address + slot * VECTOR_SIZE for slot in range(slots))


def _is_there(memory: Memory, pa: int, data: bytes) -> bool:
    try:
        return memory.read(pa, len(data)) == data
    except Problem:
        return False


def _release(elf: Elf) -> str | None:
    """The second word behind "Linux version"."""
    symbol = elf.symbol("linux_banner")
    banner = elf.content(symbol.address, 256) if symbol else None
    parts = banner.split(b"\0")[0].split() if banner else []
    return parts[2].decode(errors="replace") if len(parts) > 2 else None


def _kept(kernel: Kernel) -> Iterator[Span]:
    """What says which build this is, and where it runs."""
    notes = kernel.elf.section(".notes")
    if notes:
        yield Span((notes[0] + kernel.offset) % (1 << 64), len(notes[1]))
    for name in ("kimage_voffset", "memstart_addr", "kvm_mode", "linux_banner", EL2 + "__kvm_hyp_host_vector"):
        if kernel.elf.symbol(name):
            yield Span(kernel.pa(name), 256)


def _slide(kernel: Kernel) -> Iterator[tuple[str, str]]:
    """How far the kernel runs from where it was linked: KASLR."""
    if kernel.elf.symbol("kimage_voffset"):
        slide = (kernel.number("kimage_voffset") + kernel.offset) % (1 << 64)
        yield "KASLR slide", f"{slide:#x}"


def _layout(kernel: Kernel) -> Layout:
    """Where states and owners are."""
    btf = kernel.btf
    ids = btf.enumerators("pkvm_component_id")
    names = {value: name.removeprefix("PKVM_ID_").lower() for name, value in ids.items()}
    records = None
    # Linux 6.14: "KVM: arm64: Move host page ownership tracking to the hyp vmemmap"; with underscores since the
    # state is read through a function.
    host = btf.field("hyp_page.__host_state") or btf.field("hyp_page.host_state")
    if host:
        records = Records(
            base=kernel.number(EL2 + "__hyp_vmemmap"),
            size=btf.size("hyp_page"),
            host=host,
            # The hypervisor's own followed, inverted.
            hyp=btf.field("hyp_page.__hyp_state_comp"),
            hyp_inverted=True,
            share_count=btf.field("hyp_page.host_share_guest_count"),
        )
    return Layout(
        owner_encoding="63:60" if btf.has("kvm_invalid_pte_type") else "9:2",
        owners={value: name for value, name in names.items() if name in OWNERS},
        records=records,
        # Linux 6.7, "KVM: arm64: Add a handler to share memory with FF-A".
        ffa=kernel.has("host_buffers"),
    )


@dataclass
class Host:
    """The object of the host's stage 2."""

    name: str
    pa: int
    regime: Regime
    fwb: bool
    xnx: bool


def _host(kernel: Kernel, cpus: list[Cpu]) -> Host:
    # Until Linux 6.2 `host_kvm`: "KVM: arm64: Rename 'host_kvm' to 'host_mmu'".
    name = "host_mmu" if kernel.has("host_mmu") else "host_kvm"
    pa = kernel.pa(EL2 + name)
    root = kernel.member(pa, f"{name}.arch.mmu.pgd_phys")
    if not root:
        raise Problem("the host has no stage 2: the kernel does not run in protected mode, or is not that far")
    # Linux 6.8: "KVM: arm64: Move VTCR_EL2 into struct s2_mmu".
    vtcr = kernel.member(pa, f"{name}.arch.mmu.vtcr", f"{name}.arch.vtcr")
    # Not from a register, which may be a guest's.
    params = kernel.on_cpu("kvm_init_params", cpus[0])
    fwb = descriptors.bit(kernel.member(params, "kvm_nvhe_init_params.hcr_el2"), 46)
    xnx = descriptors.bits(cpus[0]["ID_AA64MMFR1_EL1"], 31, 28) != 0
    return Host(name, pa, descriptors.stage2("host-s2", root, vtcr, fwb, xnx), fwb, xnx)


def _ram(kernel: Kernel) -> list[Span]:
    """The regions that EL2 knows as memory, those that Linux does not map too; neighbours in one."""
    size, count = kernel.btf.size("memblock_region"), kernel.number(EL2 + "hyp_memblock_nr", 4)
    if count > MOST_REGIONS:
        raise Problem(f"EL2 knows {count} regions of memory, which cannot be")
    first, regions = kernel.pa(EL2 + "hyp_memory"), list[Span]()
    spans = [
        Span(*(kernel.member(first + index * size, f"memblock_region.{name}") for name in ("base", "size")))
        for index in range(count)
    ]
    for span in sorted(spans):
        if regions and regions[-1].end == span.start:
            regions[-1] = Span(regions[-1].start, regions[-1].size + span.size)
        else:
            regions.append(span)
    return regions


def _sections(kernel: Kernel) -> Iterator[tuple[str, Span]]:
    """The hypervisor's parts of the kernel."""
    for name, part in SECTIONS.items():
        start, end = (kernel.elf.symbol(f"__hyp_{part}_{edge}") for edge in ("start", "end"))
        if start and end and start.address < end.address:
            yield name, Span((start.address + kernel.offset) % (1 << 64), end.address - start.address)


def _locks(kernel: Kernel, host: Host) -> Iterator[LockPlace]:
    """All that are no VM's."""
    for name, symbol, member in [
        ("host", host.name, f"{host.name}.lock"),
        ("hyp", "pkvm_pgd_lock", None),
        ("vm-table", "vm_table_lock", None),
        ("host-pool", "host_s2_pool", "hyp_pool.lock"),
        ("hyp-pool", "hpool", "hyp_pool.lock"),
        ("fixblock", "hyp_fixblock_lock", None),
        ("ffa-version", "version_lock", None),
        ("ffa-host", "host_buffers", "kvm_ffa_buffers.lock"),
        ("ffa-hyp", "hyp_buffers", "kvm_ffa_buffers.lock"),
    ]:
        if kernel.has(symbol):
            offset = kernel.field(member).offset if member else 0
            yield LockPlace(name, member or symbol, kernel.pa(EL2 + symbol) + offset, recorded=False)


def _vm_locks(kernel: Kernel, vm: Vm) -> Iterator[LockPlace]:
    """A VM's, and its pool's."""
    for name, member in (("", "lock"), ("-pool", "pool.lock")):
        field = kernel.btf.field(f"pkvm_hyp_vm.{member}")
        if field and vm.pa is not None:
            yield LockPlace(
                f"guest:{vm.handle:#x}{name}", f"pkvm_hyp_vm.{member}", vm.pa + field.offset, recorded=False
            )


def _vms(kernel: Kernel, cpus: list[Cpu], host: Host) -> Iterator[tuple[Vm, Regime | None]]:
    """Those of EL2's own table. Linux 6.1 has a `vm_table` too, but not at EL2."""
    if not kernel.has("vm_table"):
        return
    table = kernel.number(EL2 + "vm_table")
    if not table:
        return
    for index, word in enumerate(words(kernel.memory, kernel.el2_pa(table), VM_COUNT)):
        handle = FIRST_HANDLE + index
        if word == VM_RESERVED:
            yield Vm(handle, None), None
        elif word:
            yield _vm(kernel, cpus, host, handle, word)


def _vm(kernel: Kernel, cpus: list[Cpu], host: Host, handle: int, va: int) -> tuple[Vm, Regime]:
    pa = kernel.el2_pa(va)

    def member(path: str) -> int:
        return kernel.member(pa, f"pkvm_hyp_vm.{path}")

    def flag(name: str) -> bool | None:
        path = f"kvm.arch.pkvm.{name}"
        return bool(member(path)) if kernel.btf.field(f"pkvm_hyp_vm.{path}") else None

    root = member("kvm.arch.mmu.pgd_phys")
    regime = descriptors.stage2(f"guest-s2:{handle:#x}", root, member("kvm.arch.mmu.vtcr"), host.fwb, host.xnx)
    count = min(member("kvm.created_vcpus"), MOST_VCPUS)
    pointers = words(kernel.memory, pa + kernel.field("pkvm_hyp_vm.vcpus").offset, count) if count else ()
    vcpus = [
        Vcpu(at, kernel.el2_pa(pointer), _loaded_on(kernel, cpus, pointer))
        for at, pointer in enumerate(pointers)
        if pointer
    ]
    vmid = member("kvm.arch.mmu.vmid.id.counter")
    return Vm(handle, pa, flag("is_protected"), flag("is_dying"), vmid, root, tuple(vcpus)), regime


def _loaded_on(kernel: Kernel, cpus: list[Cpu], vcpu: int) -> int | None:
    """The CPU that has this vCPU loaded."""
    if not kernel.has("loaded_hyp_vcpu"):
        return None
    for cpu in cpus:
        if number(kernel.memory, kernel.on_cpu("loaded_hyp_vcpu", cpu)) == vcpu:
            return cpu.number
    return None
