//! Pages of devices: the GIC's, of whose registers some bits are hyp's, and those of which the host sees nothing.
//!
//! Offsets and fields: Arm IHI 0069 (GICv3), chapter 12. Registers are 32 bits wide, and priorities may be accessed by
//! bytes; what another width does is the GIC's to say, and no more than hyp lets happen.

use core::sync::atomic::Ordering;

use hyp::abort::Access;
use hyp::addr::{PAGE_SIZE, Pa};
use hyp::init::{Section, SectionKind};

use super::{Bus, SGI, TIMER, View};
use crate::dtb::MAX_CPUS;

/// QEMU's `virt` has its distributor here. hyp has the first page: all that the host uses of it but where interrupts
/// are routed to.
pub(crate) const DISTRIBUTOR: Pa = Pa::new(0x0800_0000);
/// And the first redistributor here: of each CPU 64 KiB of control, then 64 KiB for its private interrupts.
const REDISTRIBUTORS: Pa = Pa::new(0x080a_0000);
const REDISTRIBUTOR_SIZE: u64 = 0x2_0000;
const PRIVATE: u64 = 0x1_0000;

const GICD_CTLR: u64 = 0x000;
/// GICD_CTLR.EnableGrp0: GICD_CTLR.DS is 1, because there is no EL3.
const ENABLE_GROUP0: u32 = 1 << 0;
const GICD_IGROUPR: u64 = 0x080;
const GICD_IGROUPR_LAST: u64 = 0x0fc;

const GICR_IGROUPR0: u64 = 0x080;
/// GICR_{ISENABLER0, ICENABLER0, ISPENDR0, ICPENDR0, ISACTIVER0, ICACTIVER0}: the first, the last, and the step.
const GICR_ISENABLER0: u64 = 0x100;
const GICR_ICACTIVER0: u64 = 0x380;
const GICR_STEP: u64 = 0x080;
/// GICR_IPRIORITYR<n>: a byte an interrupt.
const GICR_IPRIORITYR: u64 = 0x400;
/// GICR_ICFGR1: two bits for each interrupt from 16 on.
const GICR_ICFGR1: u64 = 0xc04;

/// A CPU's redistributor.
pub(crate) fn redistributor(cpu: usize) -> Pa {
    REDISTRIBUTORS.wrapping_add(cpu as u64 * REDISTRIBUTOR_SIZE)
}

/// The page of a CPU's private interrupts.
pub(crate) fn private_page(cpu: usize) -> Pa {
    redistributor(cpu).wrapping_add(PRIVATE)
}

/// What hyp changes in the bits of a register. Two 32-bit registers side by side have their rules side by side, too.
#[derive(Clone, Copy, Default)]
struct Rule<T> {
    /// Bits that read as 0, whatever they are.
    read_zero: T,
    /// Bits that read as 1.
    read_one: T,
    /// Bits that are written as 0, whatever the host writes.
    write_zero: T,
    /// Bits that are written as 1.
    write_one: T,
}

impl Rule<u32> {
    /// The host sees nothing of `bits`. hyp's priority and triggering are 0, and so is what changes nothing in the
    /// registers that set or clear: a 0 may be written always.
    fn hide(bits: u32) -> Self {
        Self {
            read_zero: bits,
            write_zero: bits,
            ..Self::default()
        }
    }
}

impl Rule<u64> {
    /// The rules of two registers as one of 64 bits.
    fn of_both(low: Rule<u32>, high: Rule<u32>) -> Self {
        let both = |low, high| u64::from(low) | u64::from(high) << 32;
        Self {
            read_zero: both(low.read_zero, high.read_zero),
            read_one: both(low.read_one, high.read_one),
            write_zero: both(low.write_zero, high.write_zero),
            write_one: both(low.write_one, high.write_one),
        }
    }
}

/// A page of the GIC's that the host does not reach by itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Page {
    /// The distributor's first.
    Distributor,
    /// A CPU's private interrupts.
    Private,
}

impl Page {
    fn at(pa: Pa) -> Option<Self> {
        let page = pa.page();
        if page == DISTRIBUTOR {
            Some(Self::Distributor)
        } else {
            let is_private = (0..MAX_CPUS).any(|cpu| page == private_page(cpu));
            is_private.then_some(Self::Private)
        }
    }

    /// The rule of the register at `offset`, a multiple of 4.
    fn rule(self, offset: u64, view: &View) -> Rule<u32> {
        match self {
            Self::Distributor => distributor_rule(offset, view),
            Self::Private => private_rule(offset),
        }
    }
}

fn distributor_rule(offset: u64, view: &View) -> Rule<u32> {
    match offset {
        GICD_CTLR => Rule {
            read_zero: ENABLE_GROUP0,
            read_one: u32::from(view.group0.load(Ordering::Relaxed)),
            write_one: ENABLE_GROUP0,
            ..Rule::default()
        },
        // Group 0 is hyp's: whatever the host writes, its interrupts are in group 1, and that is what it reads.
        GICD_IGROUPR..=GICD_IGROUPR_LAST => Rule {
            write_one: u32::MAX,
            ..Rule::default()
        },
        _ => Rule::default(),
    }
}

fn private_rule(offset: u64) -> Rule<u32> {
    const OWN: u32 = 1 << SGI | 1 << TIMER;
    match offset {
        GICR_IGROUPR0 => Rule {
            read_zero: 0,
            read_one: OWN,
            write_zero: OWN,
            write_one: !OWN,
        },
        GICR_ISENABLER0..=GICR_ICACTIVER0 if offset.is_multiple_of(GICR_STEP) => Rule::hide(OWN),
        GICR_ICFGR1 => Rule::hide(3 << (2 * (TIMER - 16))),
        _ => Rule::hide(priority(SGI, offset) | priority(TIMER, offset)),
    }
}

/// The bits of the register at `offset` that are an interrupt's priority.
fn priority(interrupt: u32, offset: u64) -> u32 {
    match (GICR_IPRIORITYR + u64::from(interrupt)).checked_sub(offset) {
        Some(byte @ 0..4) => 0xff << (8 * byte),
        _ => 0,
    }
}

/// Carries out the host's access to a page of a device that is hyp's own; true if it did. Only what is aligned to its
/// size, as an access to a device must be.
pub(super) fn access(
    bus: &impl Bus,
    view: &View,
    sections: &[Section],
    access: &Access,
    x: &mut [u64; 31],
) -> bool {
    let (pa, size) = (Pa::new(access.ipa.get()), access.size);
    let is_own = sections
        .iter()
        .any(|section| section.kind == SectionKind::OwnDevice && section.range.contains(pa));
    if !is_own || !pa.get().is_multiple_of(size) {
        return false;
    }
    let Some(page) = Page::at(pa) else {
        // A device the host knows nothing of.
        if !access.write {
            access.load(x, 0);
        }
        return true;
    };
    let offset = pa.get() % PAGE_SIZE;
    let [low, high] = [0, 4].map(|register| page.rule(offset & !7 | register, view));
    let rule = Rule::of_both(low, high);
    let shift = 8 * (offset & 7);
    if access.write {
        let value = access.value(x);
        if page == Page::Distributor && offset == GICD_CTLR {
            let group0 = value as u32 & ENABLE_GROUP0 != 0;
            view.group0.store(group0, Ordering::Relaxed);
        }
        let written = value & !(rule.write_zero >> shift) | rule.write_one >> shift;
        bus.store(pa, size, written);
    } else {
        let found = bus.load(pa, size);
        let read = found & !(rule.read_zero >> shift) | rule.read_one >> shift;
        access.load(x, read);
    }
    true
}

#[cfg(test)]
mod tests;
