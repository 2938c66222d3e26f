//! The fields of a descriptor. Layouts as in [`desc`](crate::arch::desc).

use super::{Field, Meaning, Spec, field, flag, read};
use crate::arch::desc::{Fault, Form, Memory, Shape, decode};
use crate::arch::regime::{Regime, Stage};

/// Every field of a word that stands in a table of `level` (−1…3), from the highest bit down. Each
/// set bit of the word belongs to one of them.
pub fn descriptor(regime: &Regime, level: i8, word: u64) -> Vec<Field> {
    let decoded = decode(regime, level, word);
    let shape = match (decoded.shape, decoded.fault) {
        // Reserved by its address only: the fields are those of the form it has.
        (Shape::Reserved, Some(Fault::Beyond { .. } | Fault::Misaligned { .. })) => {
            match (level, word & 2 != 0) {
                (3, _) => Shape::Page,
                (_, true) => Shape::Table,
                (_, false) => Shape::Block,
            }
        }
        (shape, _) => shape,
    };
    match shape {
        Shape::Invalid => read(INVALID, word),
        Shape::Reserved => read(RESERVED, word),
        Shape::Table => read(&table(regime, level), word),
        Shape::Block | Shape::Page => {
            let mut fields = read(&leaf(regime, level, shape), word);
            for field in &mut fields {
                name_memory(regime, field);
            }
            fields
        }
    }
}

fn table(regime: &Regime, level: i8) -> Vec<Spec> {
    let mut specs = vec![VALID, TABLE_OR_BLOCK];
    specs.extend(address(
        "next table",
        &Form::new(regime, level, Shape::Table),
    ));
    specs.extend_from_slice(TABLE_IGNORED);
    if !regime.lpa2 {
        specs.push(field("ignored", 9, 8, IGNORED));
    }
    specs.extend_from_slice(match regime.stage {
        Stage::One { e2h: true } => TABLE_E2H1,
        Stage::One { e2h: false } => TABLE_E2H0,
        // Bits 63:59 are RES0.
        Stage::Two => &[],
    });
    specs
}

fn leaf(regime: &Regime, level: i8, shape: Shape) -> Vec<Spec> {
    let mut specs = vec![VALID];
    if shape == Shape::Block {
        specs.extend([TABLE_OR_BLOCK, NT]);
    } else {
        specs.push(PAGE);
    }
    specs.extend(address("OA", &Form::new(regime, level, shape)));
    if !regime.lpa2 {
        specs.push(SH);
    }
    specs.extend_from_slice(LEAF);
    match regime.stage {
        Stage::Two => {
            specs.extend_from_slice(LEAF_STAGE2);
            specs.extend_from_slice(if regime.xnx { XN_XNX } else { XN_ALONE });
        }
        Stage::One { e2h } => {
            specs.extend_from_slice(LEAF_STAGE1);
            specs.extend_from_slice(if e2h { LEAF_E2H1 } else { LEAF_E2H0 });
        }
    }
    specs
}

/// The memory type in words: it depends on MAIR_EL2 or FWB, which a table of fields cannot know.
fn name_memory(regime: &Regime, field: &mut Field) {
    let value = field.value as u8;
    match field.name {
        "AttrIndx" => {
            let memory = Memory::from_mair(regime.mair, value);
            field.meaning = format!("{memory} (MAIR_EL2 Attr{value})").into();
        }
        "MemAttr" => {
            let memory = Memory::from_stage2(value, regime.fwb);
            let forced = if regime.fwb { " (FWB)" } else { "" };
            field.meaning = format!("{memory}{forced}").into();
        }
        _ => {}
    }
}

/// The pieces of the address.
fn address(name: &'static str, form: &Form) -> Vec<Spec> {
    let mut specs = vec![field(name, form.high, form.low, Meaning::Address(form.low))];
    if form.high_in_9_8 {
        specs.push(field("OA[51:50]", 9, 8, Meaning::Address(50)));
    }
    if form.high_in_15_12 {
        specs.push(field("OA[51:48]", 15, 12, Meaning::Address(48)));
    }
    specs
}

const VALID: Spec = flag(
    "valid",
    0,
    "invalid: a walk ends here in a translation fault",
    "valid",
);
const TABLE_OR_BLOCK: Spec = flag("type", 1, "block", "table");
const PAGE: Spec = flag("type", 1, "reserved", "page");
const NT: Spec = flag(
    "nT",
    16,
    "cached like any other",
    "no TLB conflict while its size changes (FEAT_BBM)",
);

const IGNORED: Meaning = Meaning::Text("ignored by the walker");

const SOFTWARE: Spec = field("SW", 58, 55, Meaning::With(software));

fn software(value: u64) -> String {
    format!("for software: {value:#06b}")
}

/// Bits 63:1 are all software's; shown by the places where software is known to keep something.
#[rustfmt::skip]
const INVALID: &[Spec] = &[
    VALID,
    field("ignored", 63, 59, Meaning::Text("for software: not looked at by the walker")),
    SOFTWARE,
    field("ignored", 54, 1, Meaning::Text("for software: not looked at by the walker")),
];

#[rustfmt::skip]
const RESERVED: &[Spec] = &[
    VALID,
    flag("type", 1, "reserved at this level: behaves as invalid", ""),
    field("ignored", 63, 59, Meaning::Text("of no meaning in a reserved form")),
    SOFTWARE,
    field("ignored", 54, 2, Meaning::Text("of no meaning in a reserved form")),
];

#[rustfmt::skip]
const TABLE_IGNORED: &[Spec] = &[
    field("ignored", 58, 51, IGNORED),
    field("ignored", 11, 11, IGNORED),
    flag("AF", 10, "not accessed, or not managed (FEAT_HAFT)", "accessed (FEAT_HAFT)"),
    field("ignored", 7, 2, IGNORED),
];

#[rustfmt::skip]
const TABLE_E2H0: &[Spec] = &[
    NS_TABLE,
    flag("APTable[1]", 62, "no limit on writes below", "nothing below is writable"),
    flag("XNTable", 60, "no limit on execution below", "nothing below is executable"),
];

const TABLE_ACCESS: Meaning = Meaning::Values(&[
    (0, "no limit below"),
    (1, "nothing below is EL0's"),
    (2, "nothing below is writable"),
    (3, "nothing below is EL0's or writable"),
]);

#[rustfmt::skip]
const TABLE_E2H1: &[Spec] = &[
    NS_TABLE,
    field("APTable", 62, 61, TABLE_ACCESS),
    flag("UXNTable", 60, "no limit on EL0 execution below", "nothing below is executable at EL0"),
    flag("PXNTable", 59, "no limit on EL2 execution below", "nothing below is executable at EL2"),
];

const NS_TABLE: Spec = flag(
    "NSTable",
    63,
    "Secure below (Secure state only)",
    "Non-secure below (Secure state only)",
);

/// What leaves of all stages have in common.
#[rustfmt::skip]
const LEAF: &[Spec] = &[
    field("ignored", 63, 63, IGNORED),
    field("PBHA", 62, 59, Meaning::Text("page-based hardware attributes, or ignored")),
    SOFTWARE,
    flag("Contiguous", 52, "stands alone", "one of a contiguous set"),
    flag("DBM", 51, "dirty state not managed", "dirty state managed by hardware where HD=1"),
    flag("AF", 10, "not accessed: the first access faults", "accessed"),
];

const SH: Spec = field(
    "SH",
    9,
    8,
    Meaning::Values(&[
        (0, "non-shareable"),
        (2, "outer shareable"),
        (3, "inner shareable"),
    ]),
);

const STAGE2_ACCESS: Meaning = Meaning::Values(&[
    (0, "no access"),
    (1, "read"),
    (2, "write"),
    (3, "read and write"),
]);

#[rustfmt::skip]
const LEAF_STAGE2: &[Spec] = &[
    flag("FnXS", 11, "XS as stage 1 says", "XS is 0 (FEAT_XS)"),
    field("S2AP", 7, 6, STAGE2_ACCESS),
    field("MemAttr", 5, 2, Meaning::Text("memory type")),
];

const EXECUTE: Meaning = Meaning::Values(&[
    (0, "executable at EL1 and EL0"),
    (1, "executable at EL0 only"),
    (2, "not executable"),
    (3, "executable at EL1 only"),
]);

const XN_XNX: &[Spec] = &[field("XN", 54, 53, EXECUTE)];

const XN: Spec = flag("XN", 54, "executable", "not executable");

/// Without FEAT_XNX, bit 53 is not looked at.
const XN_ALONE: &[Spec] = &[XN, field("ignored", 53, 53, IGNORED)];

#[rustfmt::skip]
const LEAF_STAGE1: &[Spec] = &[
    flag("GP", 50, "branch targets not guarded", "guarded page: branch targets need BTI"),
    flag("NS", 5, "Secure (Secure state only)", "Non-secure (Secure state only)"),
    field("AttrIndx", 4, 2, Meaning::Text("memory type by MAIR_EL2")),
];

#[rustfmt::skip]
const LEAF_E2H0: &[Spec] = &[
    XN,
    flag("AP[2]", 7, "read and write", "read only"),
    field("AP[1]", 6, 6, Meaning::Res1),
];

const ACCESS: Meaning = Meaning::Values(&[
    (0, "EL2 reads and writes, EL0 nothing"),
    (1, "EL2 and EL0 read and write"),
    (2, "EL2 reads, EL0 nothing"),
    (3, "EL2 and EL0 read"),
]);

#[rustfmt::skip]
const LEAF_E2H1: &[Spec] = &[
    flag("UXN", 54, "executable at EL0", "not executable at EL0"),
    flag("PXN", 53, "executable at EL2", "not executable at EL2"),
    flag("nG", 11, "global", "not global"),
    field("AP", 7, 6, ACCESS),
];
