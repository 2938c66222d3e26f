use std::cell::RefCell;
use std::collections::BTreeMap;

use hyp::addr::{Ipa, PageRange};

use super::*;

const GICD: u64 = 0x0800_0000;
/// CPU 2's private interrupts.
const GICR: u64 = 0x080f_0000;
const VIRTIO: u64 = 0x0a00_3000;
/// Bits 15 and 26.
const OWN: u64 = 0x0400_8000;

/// Memory instead of devices: a register holds what was written last. And the writes, in order.
#[derive(Default)]
struct Memory {
    bytes: RefCell<BTreeMap<u64, u8>>,
    writes: RefCell<Vec<(u64, u64, u64)>>,
}

impl Memory {
    fn set(&self, pa: u64, word: u32) {
        let bytes = (pa..).zip(word.to_le_bytes());
        self.bytes.borrow_mut().extend(bytes);
    }
}

impl Bus for Memory {
    fn load(&self, pa: Pa, size: u64) -> u64 {
        let bytes = self.bytes.borrow();
        let at = |index| u64::from(bytes.get(&(pa.get() + index)).copied().unwrap_or(0));
        (0..size).fold(0, |all, index| all | at(index) << (8 * index))
    }

    fn store(&self, pa: Pa, size: u64, value: u64) {
        let value = value & u64::MAX >> (64 - 8 * size);
        self.writes.borrow_mut().push((pa.get(), size, value));
        let bytes = (pa.get()..).zip(value.to_le_bytes());
        self.bytes.borrow_mut().extend(bytes.take(size as usize));
    }
}

/// A machine whose pages are hyp's own.
struct Machine {
    memory: Memory,
    view: View,
    sections: Vec<Section>,
}

impl Machine {
    fn new() -> Self {
        let own = [GICD, GICR, VIRTIO].map(|page| (SectionKind::OwnDevice, page));
        let others = [
            (SectionKind::Device, 0x0900_0000),
            (SectionKind::Data, 0x4020_0000),
        ];
        let section = |(kind, page)| Section {
            kind,
            range: PageRange::new(Pa::new(page), PAGE_SIZE).expect("a page"),
        };
        Self {
            memory: Memory::default(),
            view: View::new(),
            sections: own.into_iter().chain(others).map(section).collect(),
        }
    }

    /// An access with x1; `None` where it is none of hyp's business.
    fn access(&self, pa: u64, size: u64, write: Option<u64>) -> Option<u64> {
        let description = Access {
            ipa: Ipa::new(pa),
            size,
            write: write.is_some(),
            register: 1,
            sign_extend: false,
            wide: true,
        };
        let mut x = [0; 31];
        x[1] = write.unwrap_or(u64::MAX);
        let done = access(
            &self.memory,
            &self.view,
            &self.sections,
            &description,
            &mut x,
        );
        done.then_some(x[1])
    }

    #[track_caller]
    fn read(&self, pa: u64, size: u64) -> u64 {
        self.access(pa, size, None).expect("carried out")
    }

    /// What reaches the device of a write.
    #[track_caller]
    fn written(&self, pa: u64, size: u64, value: u64) -> u64 {
        self.memory.writes.borrow_mut().clear();
        assert_eq!(self.access(pa, size, Some(value)), Some(value));
        let writes = self.memory.writes.borrow();
        let [(at, bytes, written)] = writes[..] else {
            panic!("{writes:x?}")
        };
        assert_eq!((at, bytes), (pa, size));
        written
    }
}

#[test]
fn what_is_none_of_hyps_own_devices_is_refused() {
    let machine = Machine::new();
    // The next pages, CPU 1's, CPU 2's control page, hyp's other sections.
    for pa in [
        GICD + 0x1000,
        GICR + 0x1000,
        GICR - 0x2_0000,
        GICR - 0x1_0000,
        VIRTIO - 0x1000,
        0x0900_0000,
        0x4020_0000,
    ] {
        assert_eq!(machine.access(pa, 4, None), None, "{pa:#x}");
        assert_eq!(machine.access(pa, 4, Some(1)), None, "{pa:#x}");
    }
    assert!(machine.memory.writes.borrow().is_empty());
}

#[test]
fn an_access_that_is_not_aligned_is_refused() {
    let machine = Machine::new();
    for page in [GICD, GICR, VIRTIO] {
        for (offset, size) in [(1, 2), (2, 4), (1, 4), (4, 8), (0xfff, 2)] {
            assert_eq!(machine.access(page + offset, size, None), None);
            assert_eq!(machine.access(page + offset, size, Some(1)), None);
        }
    }
    assert!(machine.memory.writes.borrow().is_empty());
}

#[test]
fn of_the_transports_nothing_is_there() {
    let machine = Machine::new();
    machine.memory.set(VIRTIO + 0xe00, 0x7472_6976);
    for (offset, size) in [(0xe00, 4), (0, 4), (0xe00, 1), (0xff8, 8)] {
        assert_eq!(machine.read(VIRTIO + offset, size), 0, "{offset:#x}");
        assert_eq!(machine.access(VIRTIO + offset, size, Some(7)), Some(7));
    }
    assert!(machine.memory.writes.borrow().is_empty());
}

/// The host disables group 0, or leaves it alone, and finds it so; hyp's interrupts never stop.
#[test]
fn group_0_stays_enabled_behind_the_hosts_back() {
    let machine = Machine::new();
    // ARE, DS, and both groups.
    machine.memory.set(GICD, 0x53);
    assert_eq!(machine.read(GICD, 4), 0x52, "as after a reset");
    assert_eq!(machine.written(GICD, 4, 0x13), 0x13);
    assert_eq!(machine.read(GICD, 4), 0x13);
    assert_eq!(machine.written(GICD, 4, 0x12), 0x13);
    assert_eq!(machine.read(GICD, 4), 0x12);
    assert_eq!(machine.written(GICD, 4, 0), 0x01);
    assert_eq!(machine.read(GICD, 4), 0);
    assert_eq!(machine.read(GICD, 1), 0);
    // GICD_TYPER beside it is as it is.
    machine.memory.set(GICD + 4, 0x037a_0001);
    assert_eq!(machine.read(GICD + 4, 4), 0x037a_0001);
    assert_eq!(machine.written(GICD + 4, 4, 1), 1);
    assert_eq!(machine.read(GICD, 4), 0);
}

#[test]
fn shared_interrupts_are_of_group_1() {
    let machine = Machine::new();
    for register in (0x80..0x100).step_by(4) {
        for value in [0, 0x1234_5678, 0xffff_ffff] {
            assert_eq!(machine.written(GICD + register, 4, value), 0xffff_ffff);
            assert_eq!(machine.read(GICD + register, 4), 0xffff_ffff);
        }
    }
    // GICD_ISENABLER<0> is no group, nor is what is before GICD_IGROUPR<0>.
    for register in [0x7c, 0x100] {
        assert_eq!(machine.written(GICD + register, 4, 0x10), 0x10);
    }
}

/// All other registers of the distributor are the host's, whatever the width.
#[test]
fn the_rest_of_the_distributor_is_the_hosts() {
    let machine = Machine::new();
    for offset in (0x100..0x1000).step_by(8) {
        let value = 0xfedc_ba98_7654_3210 ^ offset;
        for size in [1, 2, 4, 8] {
            let part = value & u64::MAX >> (64 - 8 * size);
            assert_eq!(machine.written(GICD + offset, size, value), part);
            assert_eq!(machine.read(GICD + offset, size), part);
        }
    }
}

#[test]
fn hyps_interrupts_stay_in_group_0_and_all_others_in_group_1() {
    let machine = Machine::new();
    for value in [0, 0xffff_ffff, 0x0400_8000] {
        assert_eq!(machine.written(GICR + 0x80, 4, value), 0xfbff_7fff);
        assert_eq!(machine.read(GICR + 0x80, 4), 0xffff_ffff);
    }
    for (byte, written) in [0xff, 0x7f, 0xff, 0xfb].into_iter().enumerate() {
        let pa = GICR + 0x80 + byte as u64;
        assert_eq!(machine.written(pa, 1, 0), written, "byte {byte}");
        assert_eq!(machine.read(pa, 1), 0xff, "byte {byte}");
    }
}

/// Set and clear of enable, pending and active.
#[test]
fn hyps_interrupts_are_not_the_hosts_to_see_or_to_change() {
    let machine = Machine::new();
    for register in (0x100..=0x380).step_by(0x80) {
        machine.memory.set(GICR + register, 0xffff_ffff);
        assert_eq!(machine.read(GICR + register, 4), !OWN & 0xffff_ffff);
        assert_eq!(machine.read(GICR + register + 2, 2), 0xfbff);
        assert_eq!(machine.read(GICR + register + 1, 1), 0x7f);
        assert_eq!(machine.read(GICR + register, 8), !OWN & 0xffff_ffff);
        assert_eq!(
            machine.written(GICR + register, 4, 0xffff_ffff),
            !OWN & 0xffff_ffff
        );
        assert_eq!(machine.written(GICR + register + 3, 1, 0xff), 0xfb);
        assert_eq!(machine.written(GICR + register, 2, 0xffff), 0x7fff);
        // The register beside it is none of these.
        assert_eq!(
            machine.written(GICR + register + 4, 4, 0xffff_ffff),
            0xffff_ffff
        );
    }
}

#[test]
fn hyps_priorities_stay_0() {
    let machine = Machine::new();
    for interrupt in 0..32 {
        let own = interrupt == 15 || interrupt == 26;
        let kept = if own { 0 } else { 0xa0 };
        let pa = GICR + 0x400 + interrupt;
        assert_eq!(machine.written(pa, 1, 0xa0), kept, "{interrupt}");
        machine.memory.set(pa & !3, 0xa0a0_a0a0);
        assert_eq!(machine.read(pa, 1), kept, "{interrupt}");
    }
    // Four at once, and the words around hyp's.
    for (register, kept) in [
        (0x408, 0xa0a0_a0a0),
        (0x40c, 0x00a0_a0a0),
        (0x410, 0xa0a0_a0a0),
        (0x418, 0xa000_a0a0),
        (0x41c, 0xa0a0_a0a0),
    ] {
        assert_eq!(
            machine.written(GICR + register, 4, 0xa0a0_a0a0),
            kept,
            "{register:#x}"
        );
    }
    assert_eq!(
        machine.written(GICR + 0x418, 8, 0xa0a0_a0a0_a0a0_a0a0),
        0xa0a0_a0a0_a000_a0a0
    );
}

/// GICR_ICFGR1: two bits for interrupts 16 to 31; the timer's is level, which is 0.
#[test]
fn the_timers_triggering_stays() {
    let machine = Machine::new();
    assert_eq!(machine.written(GICR + 0xc04, 4, 0xaaaa_aaaa), 0xaa8a_aaaa);
    machine.memory.set(GICR + 0xc04, 0xffff_ffff);
    assert_eq!(machine.read(GICR + 0xc04, 4), 0xffcf_ffff);
    assert_eq!(machine.written(GICR + 0xc00, 4, 0xaaaa_aaaa), 0xaaaa_aaaa);
}

#[test]
fn every_cpu_has_a_page_of_its_own() {
    assert_eq!(private_page(0), Pa::new(0x080b_0000));
    assert_eq!(private_page(2), Pa::new(GICR));
    assert_eq!(private_page(7), Pa::new(0x0819_0000));
}
