//! Tables and words that other encoders made, decoded.

use crate::memory::Memory;
use aarch64_paging::descriptor::Stage2Attributes as S2;
use aarch64_paging::descriptor::{El1Attributes, El23Attributes, PhysicalAddress};
use aarch64_paging::mair::{Mair, MairAttribute, NormalMemory};
use aarch64_paging::paging::{Constraints, El2, El2And0, MemoryRegion, RootTable, Stage2, VaRange};
use aarch64_paging::target::TargetAllocator;
use inspector::arch::desc::{self, Memory as MemoryType, Shape, Shareability};
use inspector::arch::regime::{El2Stage1, IdRegisters, Regime};
use inspector::arch::walk::{Attributes, walk_all};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::collections::BTreeMap;

const BASE: u64 = 0x4800_0000;
const MIB: u64 = 1 << 20;

/// What is mapped: for each page, its output address and the encoder's flags.
type Pages = BTreeMap<u64, (u64, usize)>;

/// One range to map: first page, pages (or, when set, 2 MiB blocks), output page, which flags.
type Map = (u64, u64, bool, u64, prop::sample::Index);

fn maps() -> impl Strategy<Value = Vec<Map>> {
    let one = (
        0..4096u64,
        1..20u64,
        any::<bool>(),
        0..0x10_0000u64,
        any::<prop::sample::Index>(),
    );
    prop::collection::vec(one, 1..6)
}

/// The byte range, output address and constraints of one `Map`.
fn range((page, count, blocks, oa, _): &Map) -> (u64, u64, u64) {
    if *blocks {
        let start = (page % 64) * 2 * MIB;
        (
            start,
            start + (count % 3 + 1) * 2 * MIB,
            (oa & !0x1ff) << 12,
        )
    } else {
        (page << 12, (page + count) << 12, oa << 12)
    }
}

/// Maps each range in `RootTable` and in the model, and returns both.
macro_rules! build {
    ($root:expr, $flags:expr, $maps:expr) => {{
        let mut root = $root;
        let mut pages = Pages::new();
        for map in $maps {
            let (start, end, oa) = range(map);
            let flags = *map.4.get($flags);
            root.map_range(
                &MemoryRegion::new(start as usize, end as usize),
                PhysicalAddress(oa as usize),
                flags,
                Constraints::NO_CONTIGUOUS_HINT,
            )
            .unwrap();
            for page in (start..end).step_by(4096) {
                pages.insert(page, (oa + page - start, flags.bits()));
            }
        }
        let bytes = root.translation().as_bytes();
        (root.to_physical().0 as u64, bytes, pages)
    }};
}

/// Walks tables that stand at `BASE` and says what each page maps to.
fn decode(regime: &Regime, bytes: &[u8]) -> BTreeMap<u64, (u64, Attributes, u8)> {
    let mut memory = Memory::default();
    for (n, table) in (0u64..).zip(bytes.chunks(4096)) {
        let (words, _) = table.as_chunks::<8>();
        let words = words.iter().copied().map(u64::from_le_bytes).collect();
        memory.tables.insert(BASE + n * 4096, words);
    }
    let walk = walk_all(regime, &mut |spans| memory.read(spans)).unwrap();
    assert_eq!(walk.problems, [] as [String; 0]);
    let mut pages = BTreeMap::new();
    for entry in walk.entries {
        assert_eq!(entry.problem, None, "{:#x}", entry.raw);
        for offset in (0..entry.size).step_by(4096) {
            let leaf = (
                entry.oa.unwrap() + offset,
                entry.attributes.unwrap(),
                entry.sw,
            );
            pages.insert(entry.ia + offset, leaf);
        }
    }
    pages
}

/// Every page of the model must be there, with what `expected` makes of its flags, and no other.
fn check(
    pages: &Pages,
    decoded: &BTreeMap<u64, (u64, Attributes, u8)>,
    expected: impl Fn(usize) -> (Attributes, u8),
) {
    assert_eq!(
        pages.keys().collect::<Vec<_>>(),
        decoded.keys().collect::<Vec<_>>()
    );
    for (page, &(oa, flags)) in pages {
        let (attributes, sw) = expected(flags);
        assert_eq!(decoded[page], (oa, attributes, sw), "{page:#x} {flags:#x}");
    }
}

fn shareability(none: bool, outer: bool) -> Shareability {
    match (none, outer) {
        (true, _) => Shareability::None,
        (_, true) => Shareability::Outer,
        _ => Shareability::Inner,
    }
}

/// The memory type of attribute `n` of the MAIR that these tests use.
const MAIR: Mair = Mair::EMPTY
    .with_attribute(
        0,
        MairAttribute::normal(
            NormalMemory::WriteBackNonTransientReadWriteAllocate,
            NormalMemory::WriteBackNonTransientReadWriteAllocate,
        ),
    )
    .with_attribute(1, MairAttribute::DEVICE_NGNRE)
    .with_attribute(
        2,
        MairAttribute::normal(NormalMemory::NonCacheable, NormalMemory::NonCacheable),
    );

fn stage1_memory(flags: usize) -> MemoryType {
    match flags >> 2 & 7 {
        0 => MemoryType::NormalWb,
        1 => MemoryType::DeviceNGnRE,
        _ => MemoryType::NormalNc,
    }
}

fn stage1(e2h: bool) -> Regime {
    let registers = El2Stage1 {
        tcr: 25 | if e2h { 5 << 32 } else { 5 << 16 },
        mair: MAIR.0,
        hcr: u64::from(e2h) << 34,
        sctlr: 0,
    };
    Regime::el2_stage1(BASE, registers, IdRegisters::default()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 60,
        rng_seed: RngSeed::Fixed(5),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn stage2_tables_of_aarch64_paging(maps in maps()) {
        let base = S2::VALID | S2::ACCESS_FLAG;
        let normal = S2::MEMATTR_NORMAL_INNER_WB | S2::MEMATTR_NORMAL_OUTER_WB;
        let flags = [
            base | normal | S2::S2AP_ACCESS_RW | S2::SH_INNER,
            base | normal | S2::S2AP_ACCESS_RO | S2::SH_OUTER | S2::XN | S2::SWFLAG_0,
            base | S2::MEMATTR_DEVICE_nGnRE | S2::S2AP_ACCESS_RW | S2::XN | S2::SWFLAG_1,
            S2::VALID | S2::MEMATTR_NORMAL_INNER_NC | S2::MEMATTR_NORMAL_OUTER_NC | S2::SWFLAG_3,
            base | S2::MEMATTR_NORMAL_INNER_WT | S2::MEMATTR_NORMAL_OUTER_WT | S2::S2AP_ACCESS_WO,
        ];
        let root = RootTable::new(TargetAllocator::new(BASE), 1, Stage2);
        let (pa, bytes, pages) = build!(root, &flags, &maps);
        let vtcr = 1 << 31 | 5 << 16 | 1 << 6 | 25;
        let regime = Regime::stage2(pa, vtcr, 0, IdRegisters::default()).unwrap();
        check(&pages, &decode(&regime, &bytes), |bits| {
            let flags = S2::from_bits_retain(bits);
            let has = |flag| flags.contains(flag);
            let memory = match bits >> 2 & 0xf {
                0b1111 => MemoryType::NormalWb,
                0b1010 => MemoryType::NormalWt,
                0b0101 => MemoryType::NormalNc,
                _ => MemoryType::DeviceNGnRE,
            };
            let attributes = Attributes {
                read: has(S2::S2AP_ACCESS_RO),
                write: has(S2::S2AP_ACCESS_WO),
                execute: !has(S2::XN),
                execute_el0: !has(S2::XN),
                memory,
                shareability: shareability(!has(S2::SH_OUTER), !has(S2::SH_INNER)),
                af: has(S2::ACCESS_FLAG),
                contiguous: false,
            };
            (attributes, has(S2::SWFLAG_0) as u8 | (has(S2::SWFLAG_1) as u8) << 1
                | (has(S2::SWFLAG_3) as u8) << 3)
        });
    }

    #[test]
    fn el2_tables_of_aarch64_paging(maps in maps()) {
        use El23Attributes as A;
        let base = A::VALID | A::ACCESSED | A::USER_RES1;
        let flags = [
            base | A::ATTRIBUTE_INDEX_0 | A::INNER_SHAREABLE | A::XN,
            base | A::ATTRIBUTE_INDEX_0 | A::INNER_SHAREABLE | A::READ_ONLY,
            base | A::ATTRIBUTE_INDEX_1 | A::OUTER_SHAREABLE | A::XN | A::SWFLAG_1,
            base | A::ATTRIBUTE_INDEX_2 | A::READ_ONLY | A::XN | A::SWFLAG_0 | A::SWFLAG_2,
        ];
        let root = RootTable::new(TargetAllocator::new(BASE), 1, El2);
        let (pa, bytes, pages) = build!(root, &flags, &maps);
        let regime = stage1(false);
        prop_assert_eq!(pa, regime.root);
        check(&pages, &decode(&regime, &bytes), |bits| {
            let flags = A::from_bits_retain(bits);
            let has = |flag| flags.contains(flag);
            let attributes = Attributes {
                read: true,
                write: !has(A::READ_ONLY),
                execute: !has(A::XN),
                execute_el0: !has(A::XN),
                memory: stage1_memory(bits),
                shareability: shareability(!has(A::OUTER_SHAREABLE), !has(A::INNER_SHAREABLE)),
                af: true,
                contiguous: false,
            };
            (attributes, has(A::SWFLAG_0) as u8 | (has(A::SWFLAG_1) as u8) << 1
                | (has(A::SWFLAG_2) as u8) << 2)
        });
    }

    #[test]
    fn el2_and_0_tables_of_aarch64_paging(maps in maps()) {
        use El1Attributes as A;
        let base = A::VALID | A::ACCESSED | A::INNER_SHAREABLE;
        let flags = [
            base | A::UXN,
            base | A::UXN | A::PXN,
            base | A::READ_ONLY | A::PXN,
            base | A::USER | A::UXN,
            base | A::USER | A::READ_ONLY | A::NON_GLOBAL,
            base | A::ATTRIBUTE_INDEX_1 | A::UXN | A::PXN | A::SWFLAG_1,
        ];
        let translation = TargetAllocator::new(BASE);
        let root = RootTable::with_va_range(translation, 1, El2And0, VaRange::Lower);
        let (pa, bytes, pages) = build!(root, &flags, &maps);
        let regime = stage1(true);
        prop_assert_eq!(pa, regime.root);
        check(&pages, &decode(&regime, &bytes), |bits| {
            let flags = A::from_bits_retain(bits);
            let has = |flag| flags.contains(flag);
            let write = !has(A::READ_ONLY);
            let attributes = Attributes {
                read: true,
                write,
                execute: !(has(A::PXN) || write && has(A::USER)),
                execute_el0: !has(A::UXN),
                memory: stage1_memory(bits),
                shareability: Shareability::Inner,
                af: true,
                contiguous: false,
            };
            (attributes, (has(A::SWFLAG_1) as u8) << 1)
        });
    }
}

#[test]
fn table_attributes_of_aarch64_paging() {
    use El1Attributes as A;
    let regime = stage1(true);
    let leaf = (A::VALID | A::TABLE_OR_PAGE | A::ACCESSED).bits() as u64 | 0x4000_0000;
    let below = |flags: A| {
        let limits = desc::Limits::default().below(&regime, flags.bits() as u64 | 3);
        desc::decode_below(&regime, limits, 3, leaf)
            .attributes
            .unwrap()
    };
    assert!(!below(A::AP_TABLE_NO_WRITE).write);
    assert!(!below(A::PXN_TABLE).execute);
    assert!(!below(A::XN_TABLE).execute_el0);
    assert_eq!(below(A::NS_TABLE), below(A::empty()));
}

#[test]
fn memory_types_of_aarch64_paging() {
    use NormalMemory as N;
    let through = [
        N::WriteThroughTransientWriteAllocate,
        N::WriteThroughTransientReadAllocate,
        N::WriteThroughTransientReadWriteAllocate,
        N::WriteThroughNonTransient,
        N::WriteThroughNonTransientWriteAllocate,
        N::WriteThroughNonTransientReadAllocate,
        N::WriteThroughNonTransientReadWriteAllocate,
    ];
    let back = [
        N::WriteBackTransientWriteAllocate,
        N::WriteBackTransientReadAllocate,
        N::WriteBackTransientReadWriteAllocate,
        N::WriteBackNonTransient,
        N::WriteBackNonTransientWriteAllocate,
        N::WriteBackNonTransientReadAllocate,
        N::WriteBackNonTransientReadWriteAllocate,
    ];
    let named = [
        (&through[..], MemoryType::NormalWt),
        (&back[..], MemoryType::NormalWb),
        (&[N::NonCacheable][..], MemoryType::NormalNc),
    ];
    for (inners, inner_type) in named {
        for (outers, outer_type) in named {
            for (&inner, &outer) in inners
                .iter()
                .flat_map(|i| outers.iter().map(move |o| (i, o)))
            {
                let attribute = MairAttribute::normal(inner, outer);
                let mair = Mair::EMPTY.with_attribute(6, attribute).0;
                let expected = if inner_type == outer_type {
                    inner_type
                } else {
                    MemoryType::NormalMixed(attribute.0)
                };
                assert_eq!(MemoryType::from_mair(mair, 6), expected, "{attribute}");
            }
        }
    }
    for (attribute, expected) in [
        (MairAttribute::DEVICE_NGNRNE, MemoryType::DeviceNGnRnE),
        (MairAttribute::DEVICE_NGNRE, MemoryType::DeviceNGnRE),
        (MairAttribute::DEVICE_NGRE, MemoryType::DeviceNGRE),
        (MairAttribute::DEVICE_GRE, MemoryType::DeviceGRE),
    ] {
        assert_eq!(
            MemoryType::from_mair(Mair::EMPTY.with_attribute(1, attribute).0, 1),
            expected
        );
    }
}

/// Every set of rights that hyp can write, with device memory and software bits.
fn hyp_rights() -> impl Iterator<Item = hyp::desc::Prot> {
    use hyp::desc::Prot;
    let bits = [
        Prot::R,
        Prot::W,
        Prot::X,
        Prot::DEVICE,
        Prot::SW0,
        Prot::SW1,
        Prot::SW2,
        Prot::SW3,
    ];
    (0..1u32 << bits.len()).map(move |set| {
        (0..)
            .zip(bits)
            .filter(|(n, _)| set >> n & 1 != 0)
            .fold(Prot::NONE, |prot, (_, bit)| prot | bit)
    })
}

#[test]
fn leaves_of_hyp() {
    use hyp::addr::Pa;
    use hyp::desc::{Desc, Prot};
    let stage2 = Regime::stage2(BASE, 0x8005_3558, 0, IdRegisters::default()).unwrap();
    let registers = El2Stage1 {
        tcr: 0x8085_3519,
        mair: 0x04ff,
        ..El2Stage1::default()
    };
    let stage1 = Regime::el2_stage1(BASE, registers, IdRegisters::default()).unwrap();
    let mut checked = 0;
    for prot in hyp_rights() {
        for level in 1..=3u8 {
            let oa = Pa::new(0x8_4000_0000);
            for (regime, word) in [
                (&stage2, Desc::stage2_leaf(oa, level, prot)),
                (&stage1, Desc::hyp_leaf(oa, level, prot)),
            ] {
                // What hyp refuses to write there is nothing to read.
                let Ok(word) = word else { continue };
                let leaf = desc::decode(regime, i8::try_from(level).unwrap(), word.raw());
                let has = |bit| prot.contains(bit);
                let attributes = Attributes {
                    read: has(Prot::R),
                    write: has(Prot::W),
                    execute: has(Prot::X),
                    execute_el0: has(Prot::X),
                    memory: if has(Prot::DEVICE) {
                        MemoryType::DeviceNGnRE
                    } else {
                        MemoryType::NormalWb
                    },
                    shareability: Shareability::Inner,
                    af: true,
                    contiguous: false,
                };
                assert_eq!(leaf.fault, None, "{word:?}");
                assert_eq!(
                    leaf.shape,
                    if level == 3 {
                        Shape::Page
                    } else {
                        Shape::Block
                    }
                );
                assert_eq!(
                    (leaf.oa, leaf.attributes),
                    (Some(oa.get()), Some(attributes))
                );
                assert_eq!(u64::from(leaf.sw) << 55, prot.sw_bits());
                checked += 1;
            }
        }
    }
    assert!(checked > 500, "only {checked} words were checked");
}

#[test]
fn tables_and_annotations_of_hyp() {
    use hyp::addr::Pa;
    use hyp::desc::Desc;
    use hyp::page_state::OwnerId;
    let regime = Regime::stage2(BASE, 0x8005_3558, 0, IdRegisters::default()).unwrap();
    for level in 1..3 {
        let table = desc::decode(&regime, level, Desc::table(Pa::new(0x4810_1000)).raw());
        assert_eq!(
            (table.shape, table.oa, table.fault),
            (Shape::Table, Some(0x4810_1000), None)
        );
    }
    let word = Desc::annotation(OwnerId::Hyp).raw();
    assert_eq!(word, 4, "owner id 1 in bits 9:2");
    let annotation = desc::decode(&regime, 3, word);
    assert_eq!((annotation.shape, annotation.oa), (Shape::Invalid, None));
}
