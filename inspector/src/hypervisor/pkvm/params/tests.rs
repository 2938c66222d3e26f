use super::*;
use crate::hypervisor::testing::{Machine, RAM};

/// Where the templates begin, and where two CPUs have their own.
const SECTION: u64 = RAM.start + 0x8000;
const OWN: [u64; 2] = [RAM.start + 0x1_0000, RAM.start + 0x1_4000];
/// Offset of the record in a section.
const RECORD: u64 = 0x780;
const BASES: u64 = RAM.start + 0x100;
const MEMSTART: u64 = RAM.start + 0x200;

fn places() -> Places {
    let field = |offset| Field {
        offset,
        size: 8,
        bits: None,
        signed: false,
    };
    Places {
        params: Span::new(SECTION + RECORD, 72),
        layout: Layout {
            mair: Some(field(0)),
            tcr: Some(field(8)),
            tpidr: field(16),
            root: Some(field(40)),
            hcr: Some(field(48)),
            vttbr: Some(field(56)),
            vtcr: Some(field(64)),
        },
        section: SECTION,
        bases: Span::new(BASES, 32),
        memstart: MEMSTART,
    }
}

/// A kernel with this many bits of virtual address, whose linear map begins with this physical address.
fn machine(bits: u32, memstart: u64) -> Machine {
    let mut machine = Machine::new();
    let linear = |pa: u64| pa.wrapping_sub(memstart).wrapping_sub(1 << bits);
    machine.put(BASES, &OWN.map(linear));
    machine.put(MEMSTART, &[memstart]);
    for (cpu, own) in (0..).zip(OWN) {
        let tpidr = own - SECTION;
        let record = [0xff, 0x80, tpidr, 0, 0, 0x4100_0000, 1 << 34, cpu, 0x81];
        machine.put(own + RECORD, &record);
    }
    machine
}

fn read_from(
    places: &Places,
    machine: &mut Machine,
    cpus: usize,
) -> Result<BTreeMap<usize, Params>, String> {
    let mut memory = machine.memory();
    let found = memory.complete(|memory| places.read(memory, cpus));
    found.expect("no link")
}

fn read(machine: &mut Machine, cpus: usize) -> Result<BTreeMap<usize, Params>, String> {
    read_from(&places(), machine, cpus)
}

#[test]
fn every_configuration_of_addresses_leads_to_the_records() {
    for bits in VA_BITS {
        // The second: 52 bits on a machine with 48 (`memstart_addr` is below 0 then).
        for memstart in [RAM.start, 0xfff1_0000_4000_0000] {
            let found = read(&mut machine(bits, memstart), 2).expect("records");
            let params = |cpu: usize| Params {
                mair: 0xff,
                tcr: 0x80,
                hcr: 1 << 34,
                root: 0x4100_0000,
                tpidr: OWN[cpu] - SECTION,
                linear: OWN[cpu].wrapping_sub(memstart).wrapping_sub(1 << bits),
                vttbr: cpu as u64,
                vtcr: 0x81,
            };
            let expected = BTreeMap::from([(0, params(0)), (1, params(1))]);
            assert_eq!(found, expected, "{bits} {memstart:#x}");
        }
    }
}

#[test]
fn cpus_that_are_not_set_up_are_left_out() {
    let found = read(&mut machine(48, RAM.start), 1).expect("records");
    assert_eq!(found.into_keys().collect::<Vec<_>>(), [0]);
    let mut machine = machine(48, RAM.start);
    machine.put(BASES, &[0]);
    let found = read(&mut machine, usize::MAX).expect("records");
    assert_eq!(found.into_keys().collect::<Vec<_>>(), [1]);
}

#[test]
fn a_record_that_lies_is_not_taken() {
    let mut machine = machine(48, RAM.start);
    machine.put(OWN[1] + RECORD + 16, &[1]);
    let error = read(&mut machine, 2).expect_err("no record");
    assert!(error.contains("per-CPU variables are not where"), "{error}");
    let mut places = places();
    places.memstart = RAM.start + RAM.size;
    let error = read_from(&places, &mut machine, 2);
    assert_eq!(
        error,
        Err("memstart_addr at 0x40100000 is unreadable".to_owned())
    );
}

fn set_up(params: Params, mmfr0: Option<u64>) -> SetUp {
    SetUp {
        cpus: Some(BTreeMap::from([(3, params)])),
        id: IdRegisters {
            mmfr0,
            ..IdRegisters::default()
        },
    }
}

#[test]
fn registers_are_what_the_cpu_was_set_up_with() {
    // 6.1 on a cortex-a72: without PS, which is 4 in VTCR_EL2.
    let nvhe = Params {
        mair: 0x4_0044_ffff,
        tcr: 0x8080_3510,
        hcr: 1 << 31,
        root: 0x5f60_3000,
        tpidr: 0,
        linear: 0xffff_0000_4000_0000,
        vttbr: 0x5f90_9000,
        vtcr: 0x8024_3594,
    };
    let start = Params {
        vttbr: 0,
        vtcr: 0,
        ..nvhe
    };
    // 7.3 on max.
    let hvhe = Params {
        tcr: 0x0d50_0076_b58c_350c,
        hcr: 0x4304_8008_0001,
        ..nvhe
    };
    for (params, mmfr0, oa_bits) in [
        (nvhe, None, 44),
        (start, Some(2), 40),
        (start, None, 48),
        (hvhe, None, 52),
    ] {
        let (regime, source) = set_up(params, mmfr0).hyp().expect("tables").expect("sound");
        assert_eq!((regime.root, regime.oa_bits), (0x5f60_3000, oa_bits));
        assert!(regime.wxn);
        assert_eq!(source, "__kvm_nvhe_kvm_init_params of CPU 3");
    }
    for (linear, ia_bits, lpa2) in [
        (0xffff_0000_4000_0000, 48, false),
        (0xffff_ff80_1000_0000, 39, false),
        (0xfff0_0000_4000_0000, 52, true),
    ] {
        let set_up = set_up(Params { linear, ..nvhe }, None);
        let (hyp, _) = set_up.hyp().expect("tables").expect("sound");
        let host = set_up.host_stage1(0x4137_b000, &hyp).expect("sound");
        assert_eq!(
            (host.root, host.ia_bits, host.lpa2),
            (0x4137_b000, ia_bits, lpa2)
        );
    }
    let host = set_up(nvhe, None).host().expect("pKVM is up");
    assert_eq!((host.vttbr, host.vtcr), (0x5f90_9000, 0x8024_3594));
    assert!(set_up(start, None).host().is_none());
    assert!(set_up(Params::default(), None).hyp().is_none());
    let unknown = SetUp {
        cpus: None,
        id: IdRegisters::default(),
    };
    assert!(unknown.hyp().is_none() && unknown.host().is_none() && unknown.fact().is_none());
}
