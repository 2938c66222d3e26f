"""Why a CPU came to EL2: ESR_EL2, FAR_EL2 and HPFAR_EL2 (DDI 0487, D17.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .descriptors import bit, bits

if TYPE_CHECKING:
    from .system import Cpu

CLASSES = {
    0x00: "unknown",
    0x01: "WFI or WFE",
    0x12: "HVC in AArch32",
    0x16: "HVC",
    0x17: "SMC",
    0x18: "system register access",
    0x20: "instruction abort from a lower level",
    0x21: "instruction abort at EL2",
    0x24: "data abort from a lower level",
    0x25: "data abort at EL2",
    0x3C: "BRK",
}
ABORTS = (0x20, 0x24)
FAULTS = {
    0b0000: "address size fault",
    0b0001: "translation fault",
    0b0010: "access flag fault",
    0b0011: "permission fault",
}


def is_abort(esr: int) -> bool:
    """Whether an access of the host's, or a guest's, brought it."""
    return bits(esr, 31, 26) in ABORTS


def cause(esr: int) -> str:
    """The exception class, and of an abort what was wrong and who wanted what."""
    number = bits(esr, 31, 26)
    text = CLASSES.get(number, f"exception class {number:#x}")
    if not is_abort(esr):
        return text
    status = bits(esr, 5, 0)
    if status == 0b101011:
        fault = "translation fault, level -1"
    elif status >> 2 in FAULTS:
        fault = f"{FAULTS[status >> 2]}, level {status & 3}"
    else:
        fault = f"fault status {status:#x}"
    walk = ", on a walk of stage 1" if bit(esr, 7) else ""
    write = "" if number == 0x20 else ", write" if bit(esr, 6) else ", read"
    return f"{text}: {fault}{write}{walk}"


def ipa(cpu: Cpu) -> int:
    """The intermediate physical address that faulted. On a walk of stage 1 the page offset is not that of FAR_EL2."""
    page = bits(cpu["HPFAR_EL2"], 47, 4) << 12
    return page if bit(cpu["ESR_EL2"], 7) else page | cpu["FAR_EL2"] & 0xFFF
