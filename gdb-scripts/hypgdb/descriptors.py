"""Descriptors of Arm's VMSAv8-64 translation tables: DDI 0487, chapter D8. Stage 2, and stage 1 of EL2."""

from __future__ import annotations

from dataclasses import dataclass

from .memory import Problem

# By TG0 of TCR_EL2 and VTCR_EL2.
GRANULE_SHIFTS = {0: 12, 1: 16, 2: 14}
# By PS; 7 is reserved, and reads as 6.
OUTPUT_BITS = (32, 36, 40, 42, 44, 48, 52, 52)
# VTCR_EL2.SL0 by granule shift: the level where the walk starts. 3 with 4 KiB needs FEAT_TTST.
STAGE2_START = {12: (2, 1, 0, 3), 14: (3, 2, 1, 0), 16: (3, 2, 1)}

DEVICES = ("device-nGnRnE", "device-nGnRE", "device-nGRE", "device-GRE")
SHAREABILITY = ("none", "reserved", "outer", "inner")


def bits(value: int, high: int, low: int) -> int:
    """The field `value[high:low]`."""
    return value >> low & (1 << high - low + 1) - 1


def bit(value: int, number: int) -> bool:
    """One bit of it."""
    return bool(value >> number & 1)


@dataclass(frozen=True)
class Regime:
    """What registers say of a set of tables: their geometry, and how attributes are read."""

    name: str
    stage: int
    root: int
    start_level: int
    granule_shift: int
    ia_bits: int
    oa_bits: int
    lpa2: bool
    # HD: hardware makes leaves with DBM writable.
    dirty: bool
    # The shareability of everything where descriptors have no room for it (LPA2).
    sh0: int
    # Stage 1: MAIR_EL2, HCR_EL2.E2H, SCTLR_EL2.WXN, and TCR_EL2.HPD.
    mair: int = 0
    e2h: bool = False
    wxn: bool = False
    flat: bool = False
    # Stage 2: HCR_EL2.FWB, and FEAT_XNX.
    fwb: bool = False
    xnx: bool = False

    @property
    def index_bits(self) -> int:
        """How many bits of input address one table resolves."""
        return self.granule_shift - 3

    def shift(self, level: int) -> int:
        """log2 of the bytes that a descriptor of this level covers."""
        return self.granule_shift + (3 - level) * self.index_bits

    @property
    def root_entries(self) -> int:
        """How many descriptors there are at the start level."""
        return 1 << max(0, self.ia_bits - self.shift(self.start_level))

    @property
    def root_pages(self) -> int:
        """How many tables the start level has, one behind the other: several only at stage 2."""
        return max(1, self.root_entries >> self.index_bits)

    def address(self, raw: int, shift: int) -> int:
        """The address in a descriptor, without its low `shift` bits."""
        if self.lpa2:
            # OA[51:50] are where SH is otherwise.
            address = bits(raw, 49, 12) << 12 | bits(raw, 9, 8) << 50
        elif self.granule_shift == 16 and self.oa_bits == 52:
            # FEAT_LPA: OA[51:48] are in bits 15:12.
            address = bits(raw, 47, 16) << 16 | bits(raw, 15, 12) << 48
        else:
            address = bits(raw, 47, 12) << 12
        return address >> shift << shift

    def has_blocks(self, level: int) -> bool:
        """Whether leaves may stand at this level above 3."""
        wide = {12: self.lpa2, 14: self.lpa2, 16: self.oa_bits == 52}[self.granule_shift]
        lowest = {12: 1, 14: 2, 16: 2}[self.granule_shift]
        return lowest - wide <= level < 3

    def kind(self, raw: int, level: int) -> str:
        """What a descriptor is: zero, invalid, reserved, table, block or page."""
        if raw == 0:
            return "zero"
        if not bit(raw, 0):
            return "invalid"
        if bit(raw, 1):
            return "page" if level == 3 else "table"
        return "block" if self.has_blocks(level) else "reserved"

    def base(self, register: int) -> int:
        """The address in TTBR0_EL2 or VTTBR_EL2; the root is aligned to its size."""
        address = bits(register, 47, 1) << 1
        if self.oa_bits == 52 and (self.lpa2 or self.granule_shift == 16):
            # BADDR[51:48] are in bits 5:2; such a root is aligned to 64 bytes.
            address = bits(register, 47, 6) << 6 | bits(register, 5, 2) << 48
        size = max(8 * self.root_entries, 64 if self.oa_bits == 52 else 8)
        return address // size * size


def stage2(name: str, root: int, vtcr: int, fwb: bool, xnx: bool) -> Regime:
    """Stage 2, by VTCR_EL2; its root is where it is said to be."""
    shift = _granule_shift(name, vtcr)
    lpa2, sl0 = bit(vtcr, 32), bits(vtcr, 7, 6)
    if sl0 >= len(STAGE2_START[shift]):
        raise Problem(f"{name}: VTCR_EL2 {vtcr:#x} has no start level: SL0 is reserved")
    # DS and SL2 together: five levels, of 4 KiB.
    start = -1 if shift == 12 and lpa2 and bit(vtcr, 33) else STAGE2_START[shift][sl0]
    return Regime(
        name=name,
        stage=2,
        root=root,
        start_level=start,
        granule_shift=shift,
        ia_bits=64 - bits(vtcr, 5, 0),
        oa_bits=OUTPUT_BITS[bits(vtcr, 18, 16)],
        lpa2=lpa2,
        dirty=bit(vtcr, 22),
        sh0=bits(vtcr, 13, 12),
        fwb=fwb,
        xnx=xnx,
    )


def stage1(ttbr: int, tcr: int, mair: int, sctlr: int, e2h: bool) -> Regime:
    """Stage 1 of EL2, by TTBR0_EL2, TCR_EL2, MAIR_EL2, SCTLR_EL2 and HCR_EL2.E2H, which moves fields of TCR_EL2."""
    name = "hyp-s1"
    shift = _granule_shift(name, tcr)
    ia_bits = 64 - bits(tcr, 5, 0)
    levels = -(-(ia_bits - shift) // (shift - 3))
    regime = Regime(
        name=name,
        stage=1,
        root=0,
        start_level=4 - levels,
        granule_shift=shift,
        ia_bits=ia_bits,
        oa_bits=OUTPUT_BITS[bits(tcr, 34, 32) if e2h else bits(tcr, 18, 16)],
        lpa2=bit(tcr, 59 if e2h else 32),
        dirty=bit(tcr, 40 if e2h else 22),
        sh0=bits(tcr, 13, 12),
        mair=mair,
        e2h=e2h,
        wxn=bit(sctlr, 19),
        flat=bit(tcr, 41 if e2h else 24),
    )
    return _with_root(regime, regime.base(ttbr))


def _with_root(regime: Regime, root: int) -> Regime:
    return Regime(**{**vars(regime), "root": root})


def _granule_shift(name: str, control: int) -> int:
    granule = bits(control, 15, 14)
    if granule not in GRANULE_SHIFTS or not 16 <= 64 - bits(control, 5, 0) <= 52:
        raise Problem(f"{name}: its control register {control:#x} describes no tables: is the hypervisor up?")
    return GRANULE_SHIFTS[granule]


@dataclass(frozen=True)
class Limits:
    """What table descriptors of stage 1 take away from all below them."""

    read_only: bool = False
    no_execute: bool = False
    no_execute_el0: bool = False


FREE = Limits()


def limits_below(regime: Regime, raw: int, above: Limits) -> Limits:
    """The limits with those of one more table descriptor: APTable[1], XNTable or PXNTable, UXNTable."""
    if regime.stage == 2 or regime.flat:
        return above
    privileged = bit(raw, 59 if regime.e2h else 60)
    return Limits(above.read_only or bit(raw, 62), above.no_execute or privileged, above.no_execute_el0 or bit(raw, 60))


@dataclass(frozen=True)
class Attributes:
    """What a leaf allows, and of what kind its memory is."""

    read: bool
    write: bool
    execute: bool
    execute_el0: bool
    memory: str
    shareability: str
    af: bool
    contiguous: bool

    @property
    def access(self) -> str:
        """In three letters; `x` is execution at the higher of the two levels, `u` at EL0 alone."""
        execute = "x" if self.execute else "u" if self.execute_el0 else "-"
        return ("r" if self.read else "-") + ("w" if self.write else "-") + execute


def attributes(regime: Regime, raw: int, limits: Limits = FREE) -> Attributes:
    """Those of a block or page."""
    # With DBM the page is writable: hardware notes the write.
    dirty = regime.dirty and bit(raw, 51)
    if regime.stage == 2:
        read, write = bit(raw, 6), bit(raw, 7) or dirty
        # XN[1:0]: both execute, EL0 alone, neither, EL1 alone. Without FEAT_XNX bit 53 is ignored.
        xn = bits(raw, 54, 53) if regime.xnx else bits(raw, 54, 54) << 1
        execute, execute_el0 = xn in (0, 3), xn in (0, 1)
        memory = _stage2_memory(regime, bits(raw, 5, 2))
    else:
        read = True
        write = (not bit(raw, 7) or dirty) and not limits.read_only
        if regime.e2h:
            # PXN is EL2's, UXN EL0's.
            execute = not (bit(raw, 53) or limits.no_execute)
            execute_el0 = not (bit(raw, 54) or limits.no_execute_el0)
        else:
            execute = execute_el0 = not (bit(raw, 54) or limits.no_execute)
        if regime.wxn and write:
            execute = False
            # EL0 has a say in it only where it may write: AP[1].
            execute_el0 = execute_el0 and regime.e2h and not bit(raw, 6)
        memory = _stage1_memory(regime.mair >> 8 * bits(raw, 4, 2) & 0xFF)
    shareability = regime.sh0 if regime.lpa2 else bits(raw, 9, 8)
    return Attributes(read, write, execute, execute_el0, memory, SHAREABILITY[shareability], bit(raw, 10), bit(raw, 52))


def _stage2_memory(regime: Regime, attr: int) -> str:
    """MemAttr[3:0], in the form that HCR_EL2.FWB says."""
    if regime.fwb:
        forced = {5: "normal-nc", 6: "normal-wb", 7: "stage1"}
        return DEVICES[attr & 3] if not attr & 4 else forced.get(attr & 7, "reserved")
    if attr < 4:
        return DEVICES[attr]
    kinds = {1: "nc", 2: "wt", 3: "wb"}
    outer, inner = kinds.get(attr >> 2), kinds.get(attr & 3)
    return _cacheable(outer, inner)


def _stage1_memory(attr: int) -> str:
    """A byte of MAIR_EL2."""
    if attr == 0xF0:
        # Tagged memory.
        return "normal-wb"
    if attr >> 4 == 0:
        return DEVICES[attr >> 2 & 3] if not attr & 3 else "reserved"
    return _cacheable(_half(attr >> 4), _half(attr & 0xF))


def _half(attr: int) -> str | None:
    """Half a byte of MAIR_EL2: non-cacheable, or write-through or -back by bit 2."""
    if attr == 4:
        return "nc"
    return None if attr == 0 else "wb" if attr & 4 else "wt"


def _cacheable(outer: str | None, inner: str | None) -> str:
    if outer is None or inner is None:
        return "reserved"
    return f"normal-{outer}" if outer == inner else f"normal-{outer}/{inner}"
