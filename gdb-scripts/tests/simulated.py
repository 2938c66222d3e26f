"""A machine's memory, of a few words."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypgdb.descriptors import Regime, stage1, stage2
from hypgdb.memory import PAGE, Problem, Span
from hypgdb.system import Cpu, Layout, Records, System

# Of hyp on QEMU's cortex-a57: 40 bits from level 1, two root tables.
VTCR = 0x80043558
TCR = 0x80843519
# Of Linux 7.3 on QEMU's `max`: 52 bits from level 0, LPA2, 16 root tables.
VTCR_LPA2 = 0x1802E358C
MAIR = 0x4FF
ROOT, NEXT, LAST, HYP_ROOT, HYP_NEXT, HYP_LAST = (0x4000_0000 + page * 0x1_0000 for page in range(6))
RAM = Span(0x4000_0000, 0x80_0000)
LINEAR = 1 << 38


@dataclass
class Words:
    """RAM that is zero but for these words."""

    words: dict[int, int] = field(default_factory=dict)
    ram: Span = RAM
    reads: int = 0

    def read(self, pa: int, size: int) -> bytes:
        self.reads += 1
        if not self.ram.covers(Span(pa, size)):
            raise Problem(f"{pa:#x} is no RAM")
        words = (self.words.get(at, 0).to_bytes(8, "little") for at in range(pa // 8 * 8, pa + size, 8))
        return b"".join(words)[pa % 8 :][:size]


def host() -> Regime:
    """The host's stage 2, with tables for 0x40000000 at `NEXT` and `LAST`."""
    return stage2("host-s2", ROOT, VTCR, fwb=False, xnx=False)


def machine(
    host_words: dict[int, int], hyp_words: dict[int, int] | None = None, records: Records | None = None
) -> System:
    """A machine: words of the last tables, by index, of what is mapped from 0x40000000 on."""
    words = {ROOT + 8: NEXT | 3, NEXT: LAST | 3} | {LAST + 8 * index: word for index, word in host_words.items()}
    # 0x40000000 + LINEAR: index 1 of the half that begins at 256.
    words |= {HYP_ROOT + 8 * 257: HYP_NEXT | 3, HYP_NEXT: HYP_LAST | 3}
    words |= {HYP_LAST + 8 * index: word for index, word in (hyp_words or {}).items()}
    layout = Layout("9:2", {0: "host", 1: "hyp"}, records)
    regimes = [host(), stage1(HYP_ROOT, TCR, MAIR, 0, e2h=False)]
    cpus = [Cpu(0, {"cpsr": 0x3C5})]
    memory = Words(words)
    return System(
        "hyp", None, "nvhe", layout, (-LINEAR) % (1 << 64), regimes, memory, None, 0, [Span(RAM.start, 8 * PAGE)], cpus
    )
