use super::*;

const NONE: IdRegisters = IdRegisters {
    mmfr0: None,
    mmfr1: None,
    mmfr2: None,
};

/// A VTCR_EL2 value.
fn vtcr(t0sz: u64, sl0: u64, tg0: u64, ps: u64, ds: u64, sl2: u64) -> u64 {
    1 << 31 | t0sz | sl0 << 6 | 0x3500 | tg0 << 14 | ps << 16 | ds << 32 | sl2 << 33
}

#[test]
fn values_seen_on_machines() {
    // VTCR_EL2 → input bits, start level, root tables and bytes, output bits (QEMU, Linux 6.1 and 7.3, hyp)
    for (vtcr, ia_bits, start, roots, bytes, oa_bits) in [
        (0x1_802e_358c, 52, 0, 16, 16 << 12, 52),
        (0x802d_3590, 48, 0, 1, 1 << 12, 48),
        (0x8024_3594, 44, 0, 1, 32 * 8, 44),
        (0x802d_b590, 48, 1, 2, 2 << 14, 48),
        (0x8005_3558, 40, 1, 2, 2 << 12, 48),
    ] {
        let regime = Regime::stage2(0x4800_0000, vtcr, 0, NONE).unwrap();
        assert_eq!(
            (
                regime.ia_bits,
                regime.start_level,
                regime.root_pages,
                regime.oa_bits
            ),
            (ia_bits, start, roots, oa_bits),
            "{vtcr:#x}"
        );
        assert_eq!(regime.root_span().size, bytes);
        assert_eq!((regime.root, regime.problem), (0x4800_0000, None));
    }
}

#[test]
fn every_start_level() {
    // T0SZ, SL0, TG0, PS, DS, SL2 → start level, root tables
    for ((t0sz, sl0, tg0, ps, ds, sl2), start, roots) in [
        ((12, 0, 0, 6, 1, 1), -1, 1),
        ((16, 2, 0, 5, 0, 0), 0, 1),
        ((25, 1, 0, 5, 0, 0), 1, 1),
        ((21, 1, 0, 5, 0, 0), 1, 16),
        ((34, 0, 0, 5, 0, 0), 2, 1),
        ((43, 3, 0, 5, 0, 0), 3, 1),
        ((12, 3, 2, 6, 1, 0), 0, 1),
        ((16, 2, 2, 5, 0, 0), 1, 2),
        ((28, 1, 2, 5, 0, 0), 2, 1),
        ((39, 0, 2, 5, 0, 0), 3, 1),
        ((12, 2, 1, 6, 0, 0), 1, 1),
        ((22, 1, 1, 5, 0, 0), 2, 1),
        ((35, 0, 1, 5, 0, 0), 3, 1),
    ] {
        let regime = Regime::stage2(0, vtcr(t0sz, sl0, tg0, ps, ds, sl2), 0, NONE).unwrap();
        assert_eq!((regime.start_level, regime.root_pages), (start, roots));
    }
}

#[test]
fn reserved_stage2_values_are_named() {
    let small = IdRegisters {
        mmfr2: Some(0),
        ..NONE
    };
    // A value, and the field that is at fault with its value
    for (value, id, field, at) in [
        (vtcr(24, 1, 3, 5, 0, 0), NONE, "TG0", 3),
        (vtcr(24, 1, 0, 7, 0, 0), NONE, "PS", 7),
        (vtcr(24, 3, 0, 5, 0, 0), small, "SL0", 3),
        (vtcr(40, 0, 0, 5, 0, 0), small, "T0SZ", 40),
        (vtcr(16, 3, 2, 5, 0, 0), NONE, "SL0", 3),
        (vtcr(24, 3, 1, 5, 0, 0), NONE, "SL0", 3),
        (vtcr(12, 1, 0, 6, 1, 1), NONE, "SL0", 1),
        (vtcr(15, 2, 0, 5, 0, 0), NONE, "T0SZ", 15),
        (vtcr(12, 2, 1, 5, 0, 0), NONE, "T0SZ", 12),
        (vtcr(49, 3, 0, 5, 0, 0), NONE, "T0SZ", 49),
        // 52 bits from level 1 would need 2^13 tables; 25 bits do not reach down to level 1.
        (vtcr(16, 1, 0, 5, 0, 0), NONE, "T0SZ", 16),
        (vtcr(39, 1, 0, 5, 0, 0), NONE, "T0SZ", 39),
        (vtcr(24, 1, 0, 5, 0, 0) | 1 << 36, NONE, "S2PIE", 1),
        (vtcr(24, 1, 0, 5, 0, 0) | 1 << 38, NONE, "D128", 1),
    ] {
        let error = Regime::stage2(0, value, 0, id).unwrap_err();
        assert_eq!(
            (error.register, error.field, error.value),
            ("VTCR_EL2", field, at)
        );
        let text = error.to_string();
        assert!(text.starts_with(&format!(
            "VTCR_EL2.{field} is {at:#x} (VTCR_EL2 = {value:#x}): "
        )));
    }
}

#[test]
fn id_registers_settle_the_rest() {
    let id = IdRegisters {
        mmfr0: Some(2),
        mmfr1: Some(0),
        mmfr2: None,
    };
    let regime = Regime::stage2(0, vtcr(24, 1, 0, 5, 0, 0), 1 << 46, id).unwrap();
    assert_eq!((regime.oa_bits, regime.xnx, regime.fwb), (40, false, true));
    let id = IdRegisters {
        mmfr1: Some(1 << 28),
        ..id
    };
    assert!(
        Regime::stage2(0, vtcr(24, 1, 0, 5, 0, 0), 0, id)
            .unwrap()
            .xnx
    );
}

#[test]
fn base_registers() {
    let place = |vttbr, vtcr| {
        let regime = Regime::stage2(vttbr, vtcr, 0, NONE).unwrap();
        (regime.root, regime.problem)
    };
    // VMID and CnP are not address.
    let plain = vtcr(24, 1, 0, 5, 0, 0);
    assert_eq!(place(0x0007_0000_4800_0001, plain), (0x4800_0000, None));
    assert_eq!(vmid(0x0007_0000_4800_0001), 7);
    // Two concatenated tables are aligned to 8 KiB.
    let (root, problem) = place(0x4800_1000, plain);
    assert_eq!(root, 0x4800_0000);
    assert!(
        problem
            .unwrap()
            .contains("0x48001000 is not aligned to the 0x2000 bytes")
    );
    let (_, problem) = place(0x8000_0000_0000, vtcr(24, 1, 0, 2, 0, 0));
    assert!(problem.unwrap().contains("beyond the 40 bits"));
    // 52-bit bases: bits 5:2 are PA[51:48], and a small root is aligned to 64 bytes at least.
    assert_eq!(
        place(0x4800_0028, vtcr(12, 0, 0, 6, 1, 1)),
        (0xa_0000_4800_0000, None)
    );
    assert_eq!(
        place(0x4800_0004, vtcr(12, 2, 1, 6, 0, 0)).0,
        0x1_0000_4800_0000
    );
    assert_eq!(place(0x4800_0080, vtcr(12, 0, 0, 6, 1, 1)).0, 0x4800_0080);
}

fn tcr(value: u64, hcr: u64) -> Result<Regime, RegimeError> {
    let registers = El2Stage1 {
        tcr: value,
        mair: 0,
        hcr,
        sctlr: 0,
    };
    Regime::el2_stage1(0x4900_0000, registers, NONE)
}

#[test]
fn el2_stage1_in_both_formats() {
    let vhe = 1 << 34;
    // TCR_EL2, HCR_EL2 → input bits, output bits, start level, DS
    for (value, hcr, ia, oa, start, lpa2) in [
        (1 << 31 | 1 << 23 | 5 << 16 | 0x3519, 0, 39, 48, 1, false),
        (5 << 16 | 16, 0, 48, 48, 0, false),
        (1 << 32 | 6 << 16 | 12, 0, 52, 52, -1, true),
        (5 << 32 | 16, vhe, 48, 48, 0, false),
        (1 << 59 | 6 << 32 | 12, vhe, 52, 52, -1, true),
        // With E2H=1, bits 18:16 belong to the other half and DS is not bit 32 (that is IPS).
        (7 << 16 | 1 << 32 | 16, vhe, 48, 36, 0, false),
        (2 << 14 | 5 << 16 | 17, 0, 47, 48, 1, false),
        (2 << 14 | 1 << 32 | 6 << 16 | 12, 0, 52, 52, 0, true),
        (1 << 14 | 5 << 16 | 22, 0, 42, 48, 2, false),
        (1 << 14 | 6 << 16 | 12, 0, 52, 52, 1, false),
        (5 << 16 | 48, 0, 16, 48, 3, false),
    ] {
        let regime = tcr(value, hcr).unwrap();
        assert_eq!(
            (
                regime.ia_bits,
                regime.oa_bits,
                regime.start_level,
                regime.lpa2
            ),
            (ia, oa, start, lpa2),
            "{value:#x}"
        );
        assert_eq!((regime.root, regime.root_pages), (0x4900_0000, 1));
    }
    let regime = tcr(1 << 59 | 6 << 32 | 12, vhe).unwrap();
    assert_eq!(regime.root_span(), Span::new(0x4900_0000, 16 * 8));
}

#[test]
fn reserved_stage1_values_are_named() {
    let vhe = 1 << 34;
    for (value, hcr, field) in [
        (3 << 14 | 25, 0, "TG0"),
        (7 << 16 | 25, 0, "PS"),
        (7 << 32 | 25, vhe, "IPS"),
        (5 << 16 | 15, 0, "T0SZ"),
        (5 << 16 | 49, 0, "T0SZ"),
        (5 << 32 | 1 << 7 | 25, vhe, "EPD0"),
    ] {
        assert_eq!(tcr(value, hcr).unwrap_err().field, field);
    }
    let big = El2Stage1 {
        tcr: 25,
        sctlr: 1 << 25,
        ..El2Stage1::default()
    };
    assert_eq!(Regime::el2_stage1(0, big, NONE).unwrap_err().field, "EE");
}

#[test]
fn no_register_value_panics() {
    // Every combination of the fields that matter, and the rest set or clear.
    for fields in 0..1u64 << 16 {
        let (t0sz, sl0, tg0, ps) = (
            fields & 63,
            fields >> 6 & 3,
            fields >> 8 & 3,
            fields >> 10 & 7,
        );
        for rest in [0, !0x15_000f_c0ff & !(3 << 32)] {
            let value = vtcr(t0sz, sl0, tg0, ps, fields >> 13 & 1, fields >> 14 & 1) | rest;
            if let Ok(regime) = Regime::stage2(u64::MAX, value, fields, NONE) {
                assert!(regime.root_entries() * 8 <= 16 * regime.granule.bytes());
                assert!((-1..=3).contains(&regime.start_level));
            }
            if let Ok(regime) = tcr(value, fields << 19) {
                assert!(regime.root_entries() * 8 <= regime.granule.bytes());
            }
        }
    }
}

#[test]
fn the_upper_half_of_el1_has_its_own_fields() {
    // TCR_EL1 → input bits, start level, granule, LPA2. The first is Linux 7.3's, with both halves alike but for TG1.
    for (tcr, ia_bits, start, granule, lpa2) in [
        (0x0000_0005_b510_3510_u64, 48, 0, Granule::Kib4, false),
        (
            1 << 59 | 6 << 32 | 2 << 30 | 12 << 16,
            52,
            -1,
            Granule::Kib4,
            true,
        ),
        (5 << 32 | 1 << 30 | 17 << 16, 47, 1, Granule::Kib16, false),
        (5 << 32 | 3 << 30 | 22 << 16, 42, 2, Granule::Kib64, false),
        // What the lower half has does not matter: EPD0, and another size.
        (
            5 << 32 | 2 << 30 | 25 << 16 | 1 << 7 | 40,
            39,
            1,
            Granule::Kib4,
            false,
        ),
    ] {
        let registers = El1Stage1 {
            ttbr1: 0x00ab_0000_4800_0001,
            tcr,
            sctlr: 0,
        };
        let regime = Regime::el1_stage1_upper(registers, NONE).unwrap();
        let found = (
            regime.ia_bits,
            regime.start_level,
            regime.granule,
            regime.lpa2,
        );
        assert_eq!(found, (ia_bits, start, granule, lpa2), "{tcr:#x}");
        assert_eq!((regime.root, regime.problem), (0x4800_0000, None));
        assert_eq!(regime.stage, Stage::One { e2h: true });
    }
    for tcr in [5 << 32 | 16 << 16, 5 << 32 | 2 << 30 | 16 << 16 | 1 << 23] {
        let registers = El1Stage1 {
            tcr,
            ..El1Stage1::default()
        };
        assert!(
            Regime::el1_stage1_upper(registers, NONE).is_err(),
            "{tcr:#x}"
        );
    }
}

/// What the built-in host of hyp sets, and forms of the other granules.
#[test]
fn el1s_lower_half_is_as_its_fields_say() {
    for (tcr, expected) in [
        (2 << 32 | 1 << 23 | 25, Some((39, 1, Granule::Kib4, 40))),
        (
            5 << 32 | 2 << 14 | 25 << 16 | 17,
            Some((47, 1, Granule::Kib16, 48)),
        ),
        (5 << 32 | 1 << 14 | 22, Some((42, 2, Granule::Kib64, 48))),
        // EPD0: no walks.
        (5 << 32 | 1 << 7 | 25, None),
        // TG0 is reserved.
        (5 << 32 | 3 << 14 | 25, None),
    ] {
        let regime = Regime::el1_stage1_lower(0x00ab_0000_4800_0001, tcr, 0, NONE).ok();
        let found = regime.map(|regime| {
            assert_eq!((regime.root, regime.problem), (0x4800_0000, None));
            (
                regime.ia_bits,
                regime.start_level,
                regime.granule,
                regime.oa_bits,
            )
        });
        assert_eq!(found, expected, "{tcr:#x}");
    }
}
