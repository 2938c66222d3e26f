//! System registers in words.

mod control;
mod translation;

use super::esr;
use super::fields::{Field, Meaning, Spec, field, flag, read};

/// Every field of a register by its architectural name, from the highest bit down; `None` for a
/// register that has no table here. `e2h` is `HCR_EL2.E2H`, which chooses the format of `TCR_EL2`.
pub fn fields(name: &str, value: u64, e2h: bool) -> Option<Vec<Field>> {
    let specs = match name {
        "VTTBR_EL2" => translation::VTTBR,
        "VTCR_EL2" => translation::VTCR,
        "TTBR0_EL2" | "TTBR1_EL2" => translation::TTBR,
        "TCR_EL2" if e2h => translation::TCR_E2H1,
        "TCR_EL2" => translation::TCR_E2H0,
        "MAIR_EL2" => translation::MAIR,
        "HCR_EL2" => control::HCR,
        "SCTLR_EL2" => control::SCTLR,
        "VBAR_EL2" => VBAR,
        "HPFAR_EL2" => HPFAR,
        "FAR_EL2" | "ELR_EL2" | "TPIDR_EL2" => ADDRESS,
        "SPSR_EL2" | "cpsr" => PSTATE,
        "ESR_EL2" | "ESR_EL1" => return Some(esr::fields(value)),
        _ => return None,
    };
    Some(read(specs, value))
}

/// One sentence about a saved or current PSTATE: the exception level and what is masked.
pub fn pstate(value: u64) -> String {
    let masked: String = [(9, 'D'), (8, 'A'), (7, 'I'), (6, 'F')]
        .iter()
        .map(|&(bit, letter)| if value >> bit & 1 != 0 { letter } else { '-' })
        .collect();
    let flags: String = [(31, 'N'), (30, 'Z'), (29, 'C'), (28, 'V')]
        .iter()
        .map(|&(bit, letter)| if value >> bit & 1 != 0 { letter } else { '-' })
        .collect();
    format!("{} {masked} {flags}", mode(value & 0x1f))
}

/// M\[4:0\].
fn mode(value: u64) -> &'static str {
    match value {
        0 => "EL0t",
        4 => "EL1t",
        5 => "EL1h",
        8 => "EL2t",
        9 => "EL2h",
        12 => "EL3t",
        13 => "EL3h",
        16.. => "AArch32",
        _ => "reserved",
    }
}

const VBAR: &[Spec] = &[field("VBA", 63, 11, Meaning::Address(11))];

/// FIPA is IPA\[55:12\]; the offset within the page is FAR's.
#[rustfmt::skip]
const HPFAR: &[Spec] = &[
    flag("NS", 63, "Secure IPA (Secure state only)", "Non-secure IPA (Secure state only)"),
    field("FIPA", 47, 4, Meaning::Address(12)),
];

const ADDRESS: &[Spec] = &[field("value", 63, 0, Meaning::Address(0))];

const LAST_BRANCH: Meaning = Meaning::Values(&[
    (0, "no indirect branch was last"),
    (1, "BR by x16 or x17, or from a guarded page"),
    (2, "BLR"),
    (3, "BR by another register"),
]);

/// SPSR_ELx for an exception taken from AArch64; gdb's `cpsr` has the same layout.
#[rustfmt::skip]
const PSTATE: &[Spec] = &[
    flag("UINJ", 36, "no Undefined exception injected", "Undefined exception injected (FEAT_UINJ)"),
    flag("PACM", 35, "PACM off", "PACM on (FEAT_PAuth_LR)"),
    flag("EXLOCK", 34, "ELR and SPSR not locked", "ELR and SPSR locked (FEAT_GCS)"),
    flag("PPEND", 33, "no profiling exception pending", "profiling exception pending (FEAT_SEBEP)"),
    flag("PM", 32, "profiling exceptions not masked", "profiling exceptions masked (FEAT_SEBEP)"),
    flag("N", 31, "not negative", "negative"),
    flag("Z", 30, "not zero", "zero"),
    flag("C", 29, "no carry", "carry"),
    flag("V", 28, "no overflow", "overflow"),
    flag("TCO", 25, "tag checks on", "tag checks off"),
    flag("DIT", 24, "data-independent timing off", "data-independent timing on"),
    flag("UAO", 23, "unprivileged loads and stores are", "unprivileged loads and stores are privileged"),
    flag("PAN", 22, "EL0's memory accessible", "EL0's memory not accessible"),
    flag("SS", 21, "not stepping", "software step active-not-pending"),
    flag("IL", 20, "legal state", "illegal execution state"),
    flag("ALLINT", 13, "no mask over IRQ and FIQ", "all interrupts masked (FEAT_NMI)"),
    flag("SSBS", 12, "speculative store bypass is unsafe", "speculative store bypass is safe"),
    field("BTYPE", 11, 10, LAST_BRANCH),
    flag("D", 9, "debug exceptions not masked", "debug exceptions masked"),
    flag("A", 8, "SError not masked", "SError masked"),
    flag("I", 7, "IRQ not masked", "IRQ masked"),
    flag("F", 6, "FIQ not masked", "FIQ masked"),
    field("M", 4, 0, Meaning::With(|value| mode(value).to_owned())),
];

#[cfg(test)]
mod tests;
