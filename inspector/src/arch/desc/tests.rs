use super::*;
use crate::arch::regime::{El2Stage1, IdRegisters};

/// 40-bit IPA, 4 KiB, start level 1, two roots, 48-bit output: what hyp uses.
fn stage2() -> Regime {
    Regime::stage2_at(0x4800_0000, 0x8005_3558, 0, IdRegisters::default()).unwrap()
}

/// 39-bit VA, 4 KiB, MAIR 0 = device, 1 = normal: what hyp uses.
fn stage1(e2h: bool) -> Regime {
    let registers = El2Stage1 {
        tcr: if e2h {
            0x5 << 32
        } else {
            0x8080_0000 | 5 << 16
        } | 0x3519,
        mair: 0x04ff,
        hcr: u64::from(e2h) << 34,
        sctlr: 0,
    };
    Regime::el2_stage1_at(0x4900_0000, registers, IdRegisters::default()).unwrap()
}

fn leaf(regime: &Regime, level: i8, raw: u64) -> (Shape, u64, Attributes, u8) {
    let descriptor = decode(regime, level, raw);
    assert_eq!(descriptor.fault, None, "{raw:#x}");
    (
        descriptor.shape,
        descriptor.oa.unwrap(),
        descriptor.attributes.unwrap(),
        descriptor.sw,
    )
}

#[test]
fn stage2_words() {
    let ram = Attributes {
        read: true,
        write: true,
        execute: true,
        execute_el0: true,
        memory: Memory::NormalWb,
        shareability: Shareability::Inner,
        af: true,
        contiguous: false,
    };
    let regime = stage2();
    let owned = leaf(&regime, 3, 0x0000_0000_4800_07ff);
    assert_eq!(owned, (Shape::Page, 0x4800_0000, ram, 0));
    let shared_owned = leaf(&regime, 3, 0x0080_0000_4800_07ff);
    assert_eq!(shared_owned, (Shape::Page, 0x4800_0000, ram, 1));
    let block = leaf(&regime, 2, 0x0000_0000_4800_07fd);
    assert_eq!(block, (Shape::Block, 0x4800_0000, ram, 0));
    let mmio = leaf(&regime, 3, 0x0040_0000_0900_07ff);
    let execute_never = Attributes {
        execute: false,
        execute_el0: false,
        ..ram
    };
    assert_eq!(mmio, (Shape::Page, 0x0900_0000, execute_never, 0));
}

#[test]
fn invalid_words_keep_their_software_bits() {
    for (raw, sw) in [
        (4, 0),
        (0x0100_0000_0000_0000, 2),
        (0x2000_0000_0000_0002, 0),
    ] {
        let descriptor = decode(&stage2(), 3, raw);
        assert_eq!((descriptor.shape, descriptor.sw), (Shape::Invalid, sw));
        assert_eq!((descriptor.oa, descriptor.attributes), (None, None));
    }
}

#[test]
fn stage1_words_without_vhe() {
    let regime = stage1(false);
    let (shape, oa, data, sw) = leaf(&regime, 3, 0x0140_0000_4800_0747);
    assert_eq!((shape, oa, sw), (Shape::Page, 0x4800_0000, 2));
    assert!(data.read && data.write && !data.execute && !data.execute_el0);
    assert_eq!(data.memory, Memory::DeviceNGnRE);
    let (_, _, text, _) = leaf(&regime, 3, 0x0000_0000_4120_07c3);
    assert!(text.read && !text.write && text.execute);
    assert_eq!(text.memory, Memory::NormalWb);
}

#[test]
fn stage1_permissions_with_vhe() {
    let regime = stage1(true);
    // AP, UXN, PXN → write, execute at EL2, execute at EL0
    for (ap, uxn, pxn, expected) in [
        (0, 0, 0, (true, true, true)),
        (0, 1, 0, (true, true, false)),
        (2, 1, 1, (false, false, false)),
        (2, 0, 1, (false, false, true)),
        // EL0 may write it: not executable at EL2 whatever PXN says.
        (1, 0, 0, (true, false, true)),
        (3, 0, 0, (false, true, true)),
    ] {
        let raw = 0x4000_0403 | ap << 6 | uxn << 54 | pxn << 53;
        let (_, _, at, _) = leaf(&regime, 3, raw);
        assert_eq!((at.write, at.execute, at.execute_el0), expected, "{raw:#x}");
    }
}

#[test]
fn write_implies_execute_never_with_wxn() {
    let regime = Regime {
        wxn: true,
        ..stage1(false)
    };
    let (_, _, data, _) = leaf(&regime, 3, 0x4000_0443);
    assert!(data.write && !data.execute);
    let (_, _, text, _) = leaf(&regime, 3, 0x4000_04c3);
    assert!(!text.write && text.execute);
}

#[test]
fn managed_dirty_state_is_writable() {
    let clean = 1 << 51 | 0x4000_0043 | 0xf << 2;
    assert!(!leaf(&stage2(), 3, clean).2.write);
    let managed = Regime {
        hd: true,
        ..stage2()
    };
    assert!(leaf(&managed, 3, clean).2.write);
    assert!(!leaf(&managed, 3, clean & !(1 << 51)).2.write);
}

#[test]
fn execute_never_with_and_without_xnx() {
    // XN[1:0] → (EL1, EL0) with FEAT_XNX, both without
    for (xn, with, without) in [
        (0, (true, true), true),
        (1, (false, true), true),
        (2, (false, false), false),
        (3, (true, false), false),
    ] {
        let raw = xn << 53 | 0x4000_07ff;
        let at = leaf(&stage2(), 3, raw).2;
        assert_eq!((at.execute, at.execute_el0), with);
        let plain = Regime {
            xnx: false,
            ..stage2()
        };
        let at = leaf(&plain, 3, raw).2;
        assert_eq!((at.execute, at.execute_el0), (without, without));
    }
}

#[test]
fn table_attributes_limit_what_is_below() {
    let below = |regime: &Regime, table: u64, leaf: u64| {
        let limits = Limits::default().below(regime, table);
        let at = decode_below(regime, limits, 3, leaf).attributes.unwrap();
        (at.write, at.execute, at.execute_el0)
    };
    let regime = stage1(true);
    for (table, leaf, expected) in [
        (3, 0x4000_0403, (true, true, true)),
        (3 | 1 << 62, 0x4000_0403, (false, true, true)),
        (3 | 1 << 60, 0x4000_0403, (true, true, false)),
        (3 | 1 << 59, 0x4000_0403, (true, false, true)),
        // EL0 may write it, so that EL2 may not execute it; unless a table takes that away.
        (3, 0x4000_0443, (true, false, true)),
        (3 | 1 << 62, 0x4000_0443, (false, true, true)),
        (3 | 1 << 61, 0x4000_0443, (true, true, true)),
    ] {
        assert_eq!(
            below(&regime, table, leaf),
            expected,
            "{table:#x} {leaf:#x}"
        );
    }
    let all = 3 | 0x1f << 59;
    let free = Regime {
        hpd: true,
        ..regime
    };
    assert_eq!(
        below(&free, all, 0x4000_0403),
        (true, true, true),
        "HPD=1 turns them off"
    );
    let single = stage1(false);
    assert_eq!(
        below(&single, 3 | 1 << 60, 0x4000_0443),
        (true, false, false)
    );
    assert_eq!(
        below(&single, 3 | 1 << 59, 0x4000_0443),
        (true, true, true),
        "PXNTable is RES0"
    );
    assert_eq!(
        below(&stage2(), all, 0x4000_07ff),
        (true, true, true),
        "stage 2 has none"
    );
}

#[test]
fn reserved_forms() {
    let regime = stage2();
    for (level, raw, fault) in [
        (3, 0x4000_07fd, Fault::Level3Block),
        (
            0,
            0x4000_07fd,
            Fault::NoBlockHere {
                level: 0,
                granule: Granule::Kib4,
            },
        ),
        (
            2,
            0x4000_17fd,
            Fault::Misaligned {
                address: 0x4000_1000,
                size: 0x20_0000,
            },
        ),
        (
            1,
            0x4020_07fd,
            Fault::Misaligned {
                address: 0x4020_0000,
                size: 0x4000_0000,
            },
        ),
    ] {
        let descriptor = decode(&regime, level, raw);
        assert_eq!(
            (descriptor.shape, descriptor.fault),
            (Shape::Reserved, Some(fault))
        );
    }
    let small = Regime {
        oa_bits: 32,
        ..stage2()
    };
    for (level, raw) in [(3, 0x1_0000_07ff), (2, 0x1_0000_07fd), (1, 0x1_0000_0003)] {
        let descriptor = decode(&small, level, raw);
        let fault = Fault::Beyond {
            address: 0x1_0000_0000,
            oa_bits: 32,
        };
        assert_eq!(
            (descriptor.shape, descriptor.fault),
            (Shape::Reserved, Some(fault))
        );
    }
}

#[test]
fn reserved_bits_are_said_and_change_nothing() {
    let page = decode(&stage2(), 3, 1 << 48 | 0x4000_07ff);
    assert_eq!((page.shape, page.oa), (Shape::Page, Some(0x4000_0000)));
    assert_eq!(page.fault, Some(Fault::Res0(1 << 48)));
    let table = decode(&stage2(), 2, 1 << 60 | 0x4000_0003);
    assert_eq!(
        (table.shape, table.fault),
        (Shape::Table, Some(Fault::Res0(1 << 60)))
    );
    // nT of a block is no address bit.
    assert_eq!(decode(&stage2(), 2, 1 << 16 | 0x4000_07fd).fault, None);
}

#[test]
fn addresses_of_the_52_bit_forms() {
    let lpa2 = Regime {
        lpa2: true,
        oa_bits: 52,
        sh0: 2,
        ..stage2()
    };
    // 4 KiB, DS=1: OA[49:12] in place, OA[51:50] in bits 9:8, shareability from SH0.
    let raw = 0x0003_4567_89ab_c000 | 3 << 8 | 0x4ff;
    let (shape, oa, at, _) = leaf(&lpa2, 3, raw);
    assert_eq!((shape, oa), (Shape::Page, 0xf_4567_89ab_c000));
    assert_eq!(at.shareability, Shareability::Outer);
    assert_eq!(
        decode(&lpa2, 2, 0x0002_0000_4000_0203).oa,
        Some(0xa_0000_4000_0000)
    );
    // Blocks at level 0 exist only here.
    assert_eq!(decode(&lpa2, 0, 1 << 39 | 0x4fd).shape, Shape::Block);

    let kib16 = Regime {
        granule: Granule::Kib16,
        ..lpa2
    };
    assert_eq!(leaf(&kib16, 1, 1 << 36 | 0x4fd).1, 1 << 36);
    assert_eq!(
        leaf(&kib16, 3, 0x4000 | 2 << 8 | 0x4ff).1,
        0x8_0000_0000_4000
    );

    let kib64 = Regime {
        granule: Granule::Kib64,
        oa_bits: 52,
        ..stage2()
    };
    assert_eq!(
        leaf(&kib64, 3, 0x9ab_0000 | 0xc000 | 0x7ff).1,
        0xc_0000_09ab_0000
    );
    assert_eq!(
        leaf(&kib64, 2, 1 << 29 | 0x7000 | 0x7fd).1,
        0x7_0000_2000_0000
    );
    assert_eq!(
        decode(&kib64, 2, 0x9ab_0000 | 0xf003).oa,
        Some(0xf_0000_09ab_0000)
    );
    assert_eq!(decode(&kib64, 1, 1 << 42 | 0x7fd).shape, Shape::Block);
    let plain = Regime {
        oa_bits: 48,
        ..kib64
    };
    assert_eq!(decode(&plain, 1, 1 << 42 | 0x7fd).shape, Shape::Reserved);
    assert_eq!(decode(&plain, 3, 0x9ab_f7ff).shape, Shape::Reserved);
}

#[test]
fn mair_bytes() {
    for (byte, memory) in [
        (0x00, Memory::DeviceNGnRnE),
        (0x04, Memory::DeviceNGnRE),
        (0x08, Memory::DeviceNGRE),
        (0x0c, Memory::DeviceGRE),
        (0x01, Memory::DeviceNGnRnE),
        (0x02, Memory::Reserved(0x02)),
        (0x44, Memory::NormalNc),
        (0x40, Memory::NormalNc),
        (0x4f, Memory::NormalMixed(0x4f)),
        (0xf4, Memory::NormalMixed(0xf4)),
        (0xff, Memory::NormalWb),
        (0x77, Memory::NormalWb),
        (0xf0, Memory::NormalWb),
        (0xbb, Memory::NormalWt),
        (0x33, Memory::NormalWt),
        (0xa0, Memory::NormalWt),
        (0x0f, Memory::Reserved(0x0f)),
        (0x80, Memory::Reserved(0x80)),
    ] {
        assert_eq!(Memory::from_mair(byte << 24, 3), memory, "{byte:#x}");
    }
}

#[test]
fn stage2_memory_attributes() {
    use Memory::{DeviceGRE, DeviceNGRE, DeviceNGnRE, DeviceNGnRnE};
    use Memory::{NormalMixed, NormalNc, NormalWb, NormalWt, Reserved, Stage1};
    let plain = [
        DeviceNGnRnE,
        DeviceNGnRE,
        DeviceNGRE,
        DeviceGRE,
        Reserved(4),
        NormalNc,
        NormalMixed(6),
        NormalMixed(7),
        Reserved(8),
        NormalMixed(9),
        NormalWt,
        NormalMixed(11),
        Reserved(12),
        NormalMixed(13),
        NormalMixed(14),
        NormalWb,
    ];
    let fwb = [
        DeviceNGnRnE,
        DeviceNGnRE,
        DeviceNGRE,
        DeviceGRE,
        Reserved(4),
        NormalNc,
        NormalWb,
        Stage1,
    ];
    for bits in 0..16u8 {
        assert_eq!(Memory::from_stage2(bits, false), plain[usize::from(bits)]);
        if bits < 8 {
            assert_eq!(Memory::from_stage2(bits, true), fwb[usize::from(bits)]);
        }
    }
}
