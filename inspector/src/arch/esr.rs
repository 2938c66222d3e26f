//! Syndromes: ESR_ELx in words, and the address that a stage-2 abort is about.

mod status;

pub use status::fault_status;

use super::fields::{Field, Meaning, Spec, field, flag, read};

/// The intermediate physical address of a stage-2 abort: the page of `HPFAR_EL2`.FIPA with the
/// offset of `FAR_EL2`.
pub fn ipa(hpfar: u64, far: u64) -> u64 {
    (hpfar & 0xffff_ffff_fff0) << 8 | far & 0xfff
}

/// Whether an exception taken to EL2 is an instruction or data abort from EL1 or EL0.
pub fn is_abort_from_below(esr: u64) -> bool {
    matches!(esr >> 26 & 0x3f, 0x20 | 0x24)
}

/// The intermediate physical address of a stage-2 abort, where `HPFAR_EL2` is known to be its own: not so for a permission
/// fault outside of a walk (DDI 0487, HPFAR_EL2). On a stage-1 walk it is that of the table, as near as its page.
pub fn faulting_ipa(esr: u64, hpfar: u64, far: u64) -> Option<u64> {
    let translation_or_access = matches!(esr & 0x3f, 0b00_0000..=0b00_1011 | 0b10_1001..=0b10_1100);
    match is_on_walk(esr) {
        true => Some(ipa(hpfar, 0)),
        false => translation_or_access.then(|| ipa(hpfar, far)),
    }
}

/// Whether it was stage 2 that failed where EL1's own walk of its tables read it: `S1PTW` of an abort.
pub fn is_on_walk(esr: u64) -> bool {
    const S1PTW: u64 = 1 << 7;
    is_abort_from_below(esr) && esr & S1PTW != 0
}

/// What raised an exception: the EC field in words.
pub fn class(esr: u64) -> &'static str {
    let ec = esr >> 26 & 0x3f;
    CLASSES
        .iter()
        .find(|(value, _)| *value == ec)
        .map_or("reserved exception class", |(_, text)| text)
}

/// One line: the class and the gist of its syndrome.
pub fn describe(esr: u64) -> String {
    let class = class(esr);
    match esr >> 26 & 0x3f {
        ec @ (0x20 | 0x21 | 0x24 | 0x25) => {
            let status = fault_status(esr & 0x3f);
            let walk = if esr >> 7 & 1 != 0 {
                ", on a stage-1 walk"
            } else {
                ""
            };
            let access = match (ec, esr >> 6 & 1) {
                (0x24 | 0x25, 0) => ", read",
                (0x24 | 0x25, _) => ", write",
                _ => "",
            };
            format!("{class}: {status}{access}{walk}")
        }
        0x11..=0x17 | 0x3c => format!("{class}: #{:#x}", esr & 0xffff),
        0x18 => {
            let (op, read) = (system_register(esr), esr & 1 != 0);
            format!(
                "{class}: {} {op}",
                if read { "read of" } else { "write of" }
            )
        }
        _ => class.to_owned(),
    }
}

/// Every field of an ESR_ELx value, from the highest bit down.
pub fn fields(esr: u64) -> Vec<Field> {
    let mut specs = vec![ISS2, EC, IL];
    specs.extend_from_slice(match esr >> 26 & 0x3f {
        0x01 => WAIT,
        0x11..=0x13 | 0x15..=0x17 => CALL,
        0x18 => SYSTEM,
        0x20 | 0x21 => INSTRUCTION_ABORT,
        0x24 | 0x25 if esr >> 24 & 1 != 0 => DATA_ABORT_VALID,
        0x24 | 0x25 => DATA_ABORT,
        0x2f => SERROR,
        0x30 | 0x31 => BREAKPOINT,
        0x32 | 0x33 => STEP,
        0x34 | 0x35 => WATCHPOINT,
        0x38 | 0x3c => BREAK,
        _ => OTHER,
    });
    let mut fields = read(&specs, esr);
    if let Some(ec) = fields.iter_mut().find(|field| field.name == "EC") {
        ec.meaning = class(esr).into();
    }
    fields
}

/// The register of a trapped MSR, MRS or system instruction, as assemblers write it.
fn system_register(esr: u64) -> String {
    let bits = |high: u32, low: u32| esr >> low & ((1 << (high - low + 1)) - 1);
    format!(
        "S{}_{}_C{}_C{}_{}",
        bits(21, 20),
        bits(16, 14),
        bits(13, 10),
        bits(4, 1),
        bits(19, 17)
    )
}

/// EC values of AArch64 state (DDI 0487, ESR_EL2.EC).
const CLASSES: &[(u64, &str)] = &[
    (0x00, "unknown reason"),
    (0x01, "trapped WFI or WFE"),
    (0x03, "trapped AArch32 MCR or MRC (coproc 15)"),
    (0x04, "trapped AArch32 MCRR or MRRC (coproc 15)"),
    (0x05, "trapped AArch32 MCR or MRC (coproc 14)"),
    (0x06, "trapped AArch32 LDC or STC"),
    (0x07, "trapped SVE, SIMD or floating point"),
    (0x08, "trapped AArch32 VMRS"),
    (0x09, "trapped pointer authentication"),
    (0x0a, "trapped LD64B, ST64B or similar"),
    (0x0c, "trapped AArch32 MRRC (coproc 14)"),
    (0x0d, "branch target exception"),
    (0x0e, "illegal execution state"),
    (0x11, "SVC from AArch32"),
    (0x12, "HVC from AArch32"),
    (0x13, "SMC from AArch32"),
    (0x14, "trapped 128-bit MSR, MRS or system instruction"),
    (0x15, "SVC"),
    (0x16, "HVC"),
    (0x17, "SMC"),
    (0x18, "trapped MSR, MRS or system instruction"),
    (0x19, "trapped SVE"),
    (0x1a, "trapped ERET"),
    (0x1c, "pointer authentication failure"),
    (0x1d, "trapped SME"),
    (0x1e, "granule protection check"),
    (0x20, "instruction abort from a lower level"),
    (0x21, "instruction abort from this level"),
    (0x22, "PC alignment fault"),
    (0x24, "data abort from a lower level"),
    (0x25, "data abort from this level"),
    (0x26, "SP alignment fault"),
    (0x27, "memory copy or set"),
    (0x28, "floating-point exception from AArch32"),
    (0x2c, "floating-point exception"),
    (0x2d, "guarded control stack"),
    (0x2f, "SError"),
    (0x30, "breakpoint from a lower level"),
    (0x31, "breakpoint from this level"),
    (0x32, "software step from a lower level"),
    (0x33, "software step from this level"),
    (0x34, "watchpoint from a lower level"),
    (0x35, "watchpoint from this level"),
    (0x38, "BKPT from AArch32"),
    (0x3a, "vector catch from AArch32"),
    (0x3c, "BRK"),
    (0x3d, "profiling exception"),
];

const ISS2: Spec = field(
    "ISS2",
    55,
    32,
    Meaning::Text("second syndrome, for data aborts and the like"),
);
const EC: Spec = field("EC", 31, 26, Meaning::Text("exception class"));
const IL: Spec = flag(
    "IL",
    25,
    "16-bit instruction",
    "32-bit instruction, or none in particular",
);

const OTHER: &[Spec] = &[field(
    "ISS",
    24,
    0,
    Meaning::Text("syndrome of this class, not taken apart"),
)];

const STATUS: Meaning = Meaning::With(fault_status);

const ERROR_SET: Spec = field(
    "SET",
    12,
    11,
    Meaning::Values(&[
        (0, "recoverable, where the abort is external"),
        (2, "uncontainable"),
        (3, "restartable"),
    ]),
);
const FAR_NOT_VALID: Spec = flag("FnV", 10, "FAR is valid", "FAR is not valid");
const EXTERNAL: Spec = flag("EA", 9, "external abort type 0", "external abort type 1");
const MAINTENANCE: Spec = flag(
    "CM",
    8,
    "no cache maintenance",
    "by cache maintenance or address translation",
);
const ON_WALK: Spec = flag(
    "S1PTW",
    7,
    "not on a stage-1 walk",
    "stage-2 fault on a stage-1 walk",
);
const WRITE: Spec = flag("WnR", 6, "read", "write");
const VNCR: Spec = flag(
    "VNCR",
    13,
    "no VNCR_EL2 access",
    "by an access through VNCR_EL2",
);

#[rustfmt::skip]
const INSTRUCTION_ABORT: &[Spec] = &[
    ERROR_SET,
    FAR_NOT_VALID,
    EXTERNAL,
    ON_WALK,
    field("IFSC", 5, 0, STATUS),
];

#[rustfmt::skip]
const DATA_ABORT: &[Spec] = &[
    flag("ISV", 24, "no access syndrome", "access syndrome valid"),
    VNCR,
    field("SET", 12, 11, Meaning::Text("error type of an external abort, or LD64B/ST64B kind")),
    FAR_NOT_VALID,
    EXTERNAL,
    MAINTENANCE,
    ON_WALK,
    WRITE,
    field("DFSC", 5, 0, STATUS),
];

/// With ISV=1, bits 23:14 say what the instruction accessed.
#[rustfmt::skip]
const DATA_ABORT_VALID: &[Spec] = &[
    flag("ISV", 24, "no access syndrome", "access syndrome valid"),
    field("SAS", 23, 22, Meaning::Values(&[(0, "byte"), (1, "halfword"), (2, "word"), (3, "doubleword")])),
    flag("SSE", 21, "no sign extension", "sign-extends"),
    field("SRT", 20, 16, Meaning::With(|n| { if n == 31 { "xzr".to_owned() } else { format!("x{n}") } })),
    flag("SF", 15, "32-bit register", "64-bit register"),
    flag("AR", 14, "no acquire or release", "acquire or release"),
    VNCR,
    field("SET", 12, 11, Meaning::Text("error type of an external abort, or LD64B/ST64B kind")),
    FAR_NOT_VALID,
    EXTERNAL,
    MAINTENANCE,
    ON_WALK,
    WRITE,
    field("DFSC", 5, 0, STATUS),
];

const CALL: &[Spec] = &[field(
    "imm16",
    15,
    0,
    Meaning::With(|imm| format!("#{imm:#x}")),
)];

const BREAK: &[Spec] = &[field(
    "Comment",
    15,
    0,
    Meaning::With(|imm| format!("#{imm:#x}")),
)];

#[rustfmt::skip]
const WAIT: &[Spec] = &[
    flag("CV", 24, "COND not valid", "COND valid"),
    field("COND", 23, 20, Meaning::Text("condition code")),
    field("RN", 9, 5, Meaning::With(|n| format!("timeout in x{n}, where RV=1"))),
    flag("RV", 2, "RN not valid", "RN valid"),
    field("TI", 1, 0, Meaning::Values(&[(0, "WFI"), (1, "WFE"), (2, "WFIT"), (3, "WFET")])),
];

#[rustfmt::skip]
const SYSTEM: &[Spec] = &[
    field("Op0", 21, 20, Meaning::Text("op0")),
    field("Op2", 19, 17, Meaning::Text("op2")),
    field("Op1", 16, 14, Meaning::Text("op1")),
    field("CRn", 13, 10, Meaning::Text("CRn")),
    field("Rt", 9, 5, Meaning::With(|n| { if n == 31 { "xzr".to_owned() } else { format!("x{n}") } })),
    field("CRm", 4, 1, Meaning::Text("CRm")),
    flag("Direction", 0, "write (MSR)", "read (MRS)"),
];

const ERROR_TYPE: Meaning = Meaning::Values(&[
    (0, "uncontainable"),
    (1, "unrecoverable"),
    (2, "restartable"),
    (3, "recoverable"),
    (6, "corrected"),
]);

#[rustfmt::skip]
const SERROR: &[Spec] = &[
    flag("IDS", 24, "architectural syndrome", "implementation-defined syndrome"),
    field("ISS", 23, 14, Meaning::Text("implementation defined where IDS=1")),
    flag("IESB", 13, "not by the implicit barrier", "synchronized by the implicit barrier"),
    field("AET", 12, 10, ERROR_TYPE),
    EXTERNAL,
    field("ISS", 8, 6, Meaning::Text("implementation defined where IDS=1")),
    field("DFSC", 5, 0, Meaning::Values(&[(0, "uncategorized"), (0x11, "asynchronous SError")])),
];

const BREAKPOINT: &[Spec] = &[field("IFSC", 5, 0, STATUS)];

#[rustfmt::skip]
const STEP: &[Spec] = &[
    flag("ISV", 24, "EX not valid", "EX valid"),
    flag("EX", 6, "no load-exclusive was stepped", "a load-exclusive was stepped"),
    field("IFSC", 5, 0, STATUS),
];

#[rustfmt::skip]
const WATCHPOINT: &[Spec] = &[
    field("WPT", 23, 18, Meaning::With(|n| format!("watchpoint {n}, where WPTV=1"))),
    flag("WPTV", 17, "WPT not valid", "WPT valid"),
    flag("WPF", 16, "the address matched", "may be a false match"),
    flag("FnP", 15, "FAR is precise", "FAR may be imprecise"),
    VNCR,
    FAR_NOT_VALID,
    MAINTENANCE,
    WRITE,
    field("DFSC", 5, 0, STATUS),
];

#[cfg(test)]
mod tests;
