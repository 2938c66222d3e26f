//! System instructions: registers, hints, cache and TLB maintenance.
//!
//! The library names few of them and takes four bits of five for the register that MSR writes from.

use super::names;

/// `op0, op1, CRn, CRm, op2`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Encoding(
    pub(super) u8,
    pub(super) u8,
    pub(super) u8,
    pub(super) u8,
    pub(super) u8,
);

/// Registers of EL1 and EL0 whose encodings mean EL2's at EL2 with `HCR_EL2.E2H` = 1 (Arm ARM, D8.12); those of EL1 and
/// EL0 are then reached with op1 = 5.
#[rustfmt::skip]
const REDIRECTED: &[&str] = &[
    "sctlr_el1", "sctlr2_el1", "cpacr_el1", "trfcr_el1", "zcr_el1", "smcr_el1",
    "ttbr0_el1", "ttbr1_el1", "tcr_el1", "tcr2_el1", "gcscr_el1", "gcspr_el1",
    "spsr_el1", "elr_el1", "afsr0_el1", "afsr1_el1", "esr_el1", "tfsr_el1", "far_el1",
    "mair_el1", "mair2_el1", "amair_el1", "amair2_el1", "pire0_el1", "pir_el1", "por_el1",
    "mpam1_el1", "pmscr_el1", "brbcr_el1", "vbar_el1", "contextidr_el1", "scxtnum_el1", "cntkctl_el1",
    "cntp_tval_el0", "cntp_ctl_el0", "cntp_cval_el0", "cntv_tval_el0", "cntv_ctl_el0", "cntv_cval_el0",
];

impl Encoding {
    fn of(word: u32) -> Self {
        let bits = |low: u32, count: u32| (word >> low & ((1 << count) - 1)) as u8;
        Self(
            bits(19, 2),
            bits(16, 3),
            bits(12, 4),
            bits(8, 4),
            bits(5, 3),
        )
    }

    /// The register that this one means at EL2 with `HCR_EL2.E2H` = 1, if it is another.
    fn with_e2h(self) -> Option<Self> {
        let Self(op0, op1, crn, crm, op2) = self;
        if op1 == 5 {
            return self.of_alias();
        }
        let name = names::register(self)?;
        if !REDIRECTED.contains(&name.as_str()) {
            return None;
        }
        Some(match name.as_str() {
            "cpacr_el1" => Self(3, 4, 1, 1, 2),
            "mair2_el1" => Self(3, 4, 10, 1, 1),
            _ => Self(op0, 4, crn, crm, op2),
        })
    }

    /// The register of EL1 or EL0 that an encoding with op1 = 5 stands for.
    pub(super) fn of_alias(self) -> Option<Self> {
        let Self(op0, 5, crn, crm, op2) = self else {
            return None;
        };
        let op1 = match (op0, crn, crm) {
            (2, ..) => 1,
            (_, 14, 2 | 3) => 3,
            _ => 0,
        };
        let lower = Self(op0, op1, crn, crm, op2);
        let name = names::register(lower)?;
        REDIRECTED.contains(&name.as_str()).then_some(lower)
    }

    fn generic(self) -> String {
        let Self(op0, op1, crn, crm, op2) = self;
        format!("s{op0}_{op1}_c{crn}_c{crm}_{op2}")
    }
}

/// A system instruction and what it means under E2H; `None` for what is left to the library (barriers) or unallocated.
pub(super) fn text(word: u32, e2h: bool) -> Option<(String, Option<String>)> {
    if word & 0xffc0_0000 != 0xd500_0000 {
        return None;
    }
    let encoding = Encoding::of(word);
    let Encoding(op0, op1, crn, crm, op2) = encoding;
    let reads = word >> 21 & 1 != 0;
    let rt = word & 31;
    let x = if rt == 31 {
        "xzr".to_owned()
    } else {
        format!("x{rt}")
    };
    let plain = |text: String| Some((text, None));
    match (reads, op0) {
        (false, 0) if crn == 1 && op1 == 3 && crm == 0 && op2 < 2 => {
            plain(format!("wf{}t {x}", ["e", "i"][usize::from(op2)]))
        }
        (false, 0) if crn == 2 && op1 == 3 && rt == 31 => plain(hint(crm << 3 | op2)),
        // CRm is ignored, and 15 by default.
        (false, 0) if (op1, crn, crm, op2, rt) == (3, 3, 15, 2, 31) => plain("clrex".to_owned()),
        (false, 0) if crn == 4 && rt == 31 => pstate(op1, crm, op2).and_then(plain),
        (false, 1) => plain(match names::operation(encoding) {
            // These are for all entries, and take no address.
            Some(name) if rt == 31 && takes_none(&name) => name,
            Some(name) => format!("{name}, {x}"),
            None if rt == 31 => format!("sys #{op1}, c{crn}, c{crm}, #{op2}"),
            None => format!("sys #{op1}, c{crn}, c{crm}, #{op2}, {x}"),
        }),
        (true, 1) => plain(format!("sysl {x}, #{op1}, c{crn}, c{crm}, #{op2}")),
        (_, 2 | 3) => {
            let name = |register| names::register(register).unwrap_or_else(|| register.generic());
            let accessed = encoding.with_e2h().filter(|_| e2h);
            let note =
                accessed.map(|register| format!("{} (E2H)", name(register).to_ascii_uppercase()));
            let name = name(encoding);
            let text = match reads {
                true => format!("mrs {x}, {name}"),
                false => format!("msr {name}, {x}"),
            };
            Some((text, note))
        }
        _ => None,
    }
}

fn takes_none(operation: &str) -> bool {
    ["tlbi vmall", "tlbi all", "ic iall"]
        .iter()
        .any(|name| operation.starts_with(name))
}

/// `CRm:op2` of a hint.
fn hint(number: u8) -> String {
    let name = match number {
        0 => "nop",
        1 => "yield",
        2 => "wfe",
        3 => "wfi",
        4 => "sev",
        5 => "sevl",
        6 => "dgh",
        7 => "xpaclri",
        8 => "pacia1716",
        10 => "pacib1716",
        12 => "autia1716",
        14 => "autib1716",
        16 => "esb",
        17 => "psb csync",
        18 => "tsb csync",
        19 => "gcsb dsync",
        20 => "csdb",
        22 => "clearbhb",
        24 => "paciaz",
        25 => "paciasp",
        26 => "pacibz",
        27 => "pacibsp",
        28 => "autiaz",
        29 => "autiasp",
        30 => "autibz",
        31 => "autibsp",
        32 => "bti",
        34 => "bti c",
        36 => "bti j",
        38 => "bti jc",
        40 => "chkfeat x16",
        _ => return format!("hint #{number:#x}"),
    };
    name.to_owned()
}

/// MSR (immediate), and what shares its encoding.
fn pstate(op1: u8, crm: u8, op2: u8) -> Option<String> {
    let field = match (op1, op2) {
        (0, 0) => return Some("cfinv".to_owned()),
        (0, 1) => return Some("xaflag".to_owned()),
        (0, 2) => return Some("axflag".to_owned()),
        (0, 3) => "uao",
        (0, 4) => "pan",
        (0, 5) => "spsel",
        (1, 0) => "allint",
        (3, 1) => "ssbs",
        (3, 2) => "dit",
        (3, 3) => "svcr",
        (3, 4) => "tco",
        (3, 6) => "daifset",
        (3, 7) => "daifclr",
        _ => return None,
    };
    Some(format!("msr {field}, #{crm:#x}"))
}
