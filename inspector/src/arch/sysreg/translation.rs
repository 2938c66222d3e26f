//! The registers that place and shape the tables.

use crate::arch::desc::{Memory, Shareability};
use crate::arch::fields::{Meaning, Spec, field, flag};

const CNP: Spec = flag(
    "CnP",
    0,
    "own tables",
    "tables shared with other CPUs (FEAT_TTCNP)",
);

/// With 52-bit tables, bits 5:2 are PA\[51:48\].
const BADDR: Spec = field("BADDR", 47, 1, Meaning::Address(1));

#[rustfmt::skip]
pub(super) const VTTBR: &[Spec] = &[
    field("VMID", 63, 48, Meaning::With(|vmid| format!("VMID {vmid}"))),
    BADDR,
    CNP,
];

#[rustfmt::skip]
pub(super) const TTBR: &[Spec] = &[
    field("ASID", 63, 48, Meaning::With(|asid| format!("ASID {asid}"))),
    BADDR,
    CNP,
];

const SIZES: Meaning = Meaning::Values(&[
    (0, "32 bits of output address"),
    (1, "36 bits of output address"),
    (2, "40 bits of output address"),
    (3, "42 bits of output address"),
    (4, "44 bits of output address"),
    (5, "48 bits of output address"),
    (6, "52 bits of output address"),
    (7, "56 bits of output address (FEAT_D128)"),
]);

const CACHED: Meaning = Meaning::Values(&[
    (0, "walks are non-cacheable"),
    (1, "walks are write-back, allocating"),
    (2, "walks are write-through"),
    (3, "walks are write-back, not allocating on writes"),
]);

const GRANULE: Meaning = Meaning::Values(&[(0, "4 KiB"), (1, "64 KiB"), (2, "16 KiB")]);

/// TG1 encodes the same sizes in another order.
const GRANULE1: Meaning = Meaning::Values(&[(1, "16 KiB"), (2, "4 KiB"), (3, "64 KiB")]);

const INPUT: Meaning = Meaning::With(|size| format!("{} bits of input address", 64 - size));

const SHARED: Meaning =
    Meaning::With(|sh| format!("walks: shareability {}", Shareability::from_sh(sh as u8)));

const ACCESS_FLAG: (&str, &str) = ("access flag by software", "access flag by hardware");
const DIRTY: (&str, &str) = ("dirty state by software", "dirty state by hardware");
const TOP_BYTE: (&str, &str) = ("top byte used", "top byte ignored");
const TAGGED: (&str, &str) = (
    "top byte as TBI says",
    "tag bits are not address (FEAT_MTE_NO_ADDRESS_TAGS)",
);
const HIERARCHY: (&str, &str) = (
    "table descriptors limit what is below",
    "table descriptors limit nothing",
);
const WALKS: (&str, &str) = ("walks on", "walks off: a miss faults");
const IGNORES: (&str, &str) = ("TBI for data and instructions", "TBI for data only");
const UNCHECKED: (&str, &str) = (
    "accesses checked by their tag",
    "accesses with the canonical tag unchecked",
);
const HARDWARE: (&str, &str) = ("ignored in leaves", "may be used by hardware in leaves");
const FORMAT: (&str, &str) = ("48-bit descriptors", "52-bit descriptors (FEAT_LPA2)");

const fn pair(name: &'static str, bit: u32, words: (&'static str, &'static str)) -> Spec {
    flag(name, bit, words.0, words.1)
}

/// Bits 15:0, alike in all three formats.
const SIZE0: Spec = field("T0SZ", 5, 0, INPUT);
const INNER0: Spec = field("IRGN0", 9, 8, CACHED);
const OUTER0: Spec = field("ORGN0", 11, 10, CACHED);
const SHARED0: Spec = field("SH0", 13, 12, SHARED);
const GRANULE0: Spec = field("TG0", 15, 14, GRANULE);

const START_LEVEL: Meaning = Meaning::Values(&[
    (0, "start level 2 with 4K, 3 with 16K and 64K"),
    (1, "start level 1 with 4K, 2 with 16K and 64K"),
    (2, "start level 0 with 4K, 1 with 16K and 64K"),
    (3, "start level 3 with 4K, 0 with 16K"),
]);

#[rustfmt::skip]
pub(super) const VTCR: &[Spec] = &[
    flag("HDBSS", 45, "dirty state not tracked", "dirty state tracked (FEAT_HDBSS)"),
    flag("HAFT", 44, "no access flag in tables", "access flag in table descriptors (FEAT_HAFT)"),
    flag("TL0", 41, "TopLevel0 off", "TopLevel0 permission on (FEAT_THE)"),
    flag("GCSH", 40, "no check of guarded stacks", "guarded control stacks checked (FEAT_THE)"),
    flag("D128", 38, "64-bit descriptors", "128-bit descriptors (FEAT_D128)"),
    flag("S2POE", 37, "no permission overlay", "permission overlay (FEAT_S2POE)"),
    flag("S2PIE", 36, "direct permissions", "indirect permissions (FEAT_S2PIE)"),
    flag("TL1", 35, "TopLevel1 off", "TopLevel1 permission on (FEAT_THE)"),
    flag("AssuredOnly", 34, "bit 58 of a leaf is software's", "bit 58 of a leaf is AssuredOnly (FEAT_THE)"),
    flag("SL2", 33, "start level by SL0", "start level -1 with SL0=0, 4K and DS=1"),
    pair("DS", 32, FORMAT),
    field("RES1", 31, 31, Meaning::Res1),
    flag("NSA", 30, "Secure only", "Secure only"),
    flag("NSW", 29, "Secure only", "Secure only"),
    pair("HWU62", 28, HARDWARE),
    pair("HWU61", 27, HARDWARE),
    pair("HWU60", 26, HARDWARE),
    pair("HWU59", 25, HARDWARE),
    pair("HD", 22, DIRTY),
    pair("HA", 21, ACCESS_FLAG),
    flag("VS", 19, "8-bit VMIDs", "16-bit VMIDs"),
    field("PS", 18, 16, SIZES),
    GRANULE0,
    SHARED0,
    OUTER0,
    INNER0,
    field("SL0", 7, 6, START_LEVEL),
    SIZE0,
];

/// HCR_EL2.E2H = 0: one range.
#[rustfmt::skip]
pub(super) const TCR_E2H0: &[Spec] = &[
    pair("MTX", 33, TAGGED),
    pair("DS", 32, FORMAT),
    field("RES1", 31, 31, Meaning::Res1),
    pair("TCMA", 30, UNCHECKED),
    pair("TBID", 29, IGNORES),
    pair("HWU62", 28, HARDWARE),
    pair("HWU61", 27, HARDWARE),
    pair("HWU60", 26, HARDWARE),
    pair("HWU59", 25, HARDWARE),
    pair("HPD", 24, HIERARCHY),
    field("RES1", 23, 23, Meaning::Res1),
    pair("HD", 22, DIRTY),
    pair("HA", 21, ACCESS_FLAG),
    pair("TBI", 20, TOP_BYTE),
    field("PS", 18, 16, SIZES),
    GRANULE0,
    SHARED0,
    OUTER0,
    INNER0,
    SIZE0,
];

/// HCR_EL2.E2H = 1: two ranges, as TCR_EL1.
#[rustfmt::skip]
pub(super) const TCR_E2H1: &[Spec] = &[
    pair("MTX1", 61, TAGGED),
    pair("MTX0", 60, TAGGED),
    pair("DS", 59, FORMAT),
    pair("TCMA1", 58, UNCHECKED),
    pair("TCMA0", 57, UNCHECKED),
    flag("E0PD1", 56, "EL0 accesses walk", "EL0 accesses fault at once (FEAT_E0PD)"),
    flag("E0PD0", 55, "EL0 accesses walk", "EL0 accesses fault at once (FEAT_E0PD)"),
    flag("NFD1", 54, "non-fault accesses walk", "non-fault EL0 accesses fault at once"),
    flag("NFD0", 53, "non-fault accesses walk", "non-fault EL0 accesses fault at once"),
    pair("TBID1", 52, IGNORES),
    pair("TBID0", 51, IGNORES),
    pair("HWU162", 50, HARDWARE),
    pair("HWU161", 49, HARDWARE),
    pair("HWU160", 48, HARDWARE),
    pair("HWU159", 47, HARDWARE),
    pair("HWU062", 46, HARDWARE),
    pair("HWU061", 45, HARDWARE),
    pair("HWU060", 44, HARDWARE),
    pair("HWU059", 43, HARDWARE),
    pair("HPD1", 42, HIERARCHY),
    pair("HPD0", 41, HIERARCHY),
    pair("HD", 40, DIRTY),
    pair("HA", 39, ACCESS_FLAG),
    pair("TBI1", 38, TOP_BYTE),
    pair("TBI0", 37, TOP_BYTE),
    flag("AS", 36, "8-bit ASIDs", "16-bit ASIDs"),
    field("IPS", 34, 32, SIZES),
    field("TG1", 31, 30, GRANULE1),
    field("SH1", 29, 28, SHARED),
    field("ORGN1", 27, 26, CACHED),
    field("IRGN1", 25, 24, CACHED),
    pair("EPD1", 23, WALKS),
    flag("A1", 22, "ASID of TTBR0_EL2", "ASID of TTBR1_EL2"),
    field("T1SZ", 21, 16, INPUT),
    GRANULE0,
    SHARED0,
    OUTER0,
    INNER0,
    pair("EPD0", 7, WALKS),
    SIZE0,
];

const ATTRIBUTE: Meaning = Meaning::With(|byte| Memory::from_mair(byte, 0).to_string());

#[rustfmt::skip]
pub(super) const MAIR: &[Spec] = &[
    field("Attr7", 63, 56, ATTRIBUTE),
    field("Attr6", 55, 48, ATTRIBUTE),
    field("Attr5", 47, 40, ATTRIBUTE),
    field("Attr4", 39, 32, ATTRIBUTE),
    field("Attr3", 31, 24, ATTRIBUTE),
    field("Attr2", 23, 16, ATTRIBUTE),
    field("Attr1", 15, 8, ATTRIBUTE),
    field("Attr0", 7, 0, ATTRIBUTE),
];
