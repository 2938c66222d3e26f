//! Each CPU's debug registers, at EL2's service (MDCR_EL2.TDE).

use core::sync::atomic::{AtomicU64, Ordering};

use hyp::debug::{Refused, WatchKind};

use crate::arch::{isb, read_register, write_register};

/// MDCR_EL2: TDE (8) debug exceptions go to EL2; TDA (9), TDOSA (10), TDRA (11) the host's access to the registers traps.
const MDCR: u64 = 0xf << 8;
/// MDSCR_EL1: KDE (13) and MDE (15): breakpoints, watchpoints and steps at EL2 too.
const MDSCR_ATTACHED: u64 = 1 << 15 | 1 << 13;
/// MDSCR_EL1.SS: a step.
const MDSCR_STEP: u64 = 1;

/// DBGBCR<n>_EL1 and DBGWCR<n>_EL1: E (0); PMC or PAC 3 (2:1), HMC (13) and SSC 1 (15:14): EL0, EL1 and EL2.
const EVERYWHERE: u64 = 1 | 3 << 1 | 1 << 13 | 1 << 14;
/// DBGBCR<n>_EL1.BAS: all four bytes of the instruction.
const WHOLE_INSTRUCTION: u64 = 0xf << 5;
const BAS_SHIFT: u32 = 5;
const MASK_SHIFT: u32 = 24;

/// How many of each kind are used: the fewest that any CPU has is two breakpoints and two watchpoints, more are
/// used where they are there.
const MOST: usize = 6;

/// One register pair: control (0 when free) and value.
struct Pair {
    control: AtomicU64,
    value: AtomicU64,
}

impl Pair {
    const fn free() -> Self {
        Self {
            control: AtomicU64::new(0),
            value: AtomicU64::new(0),
        }
    }
}

#[unsafe(link_section = ".bss.debugger")]
static BREAKPOINTS: [Pair; MOST] = [const { Pair::free() }; MOST];
#[unsafe(link_section = ".bss.debugger")]
static WATCHPOINTS: [Pair; MOST] = [const { Pair::free() }; MOST];

/// Makes this CPU's debug registers EL2's.
#[inline(always)]
pub(super) fn take() {
    // SAFETY: hyp alone uses them from here on; nothing is armed.
    unsafe {
        write_register!(mdcr_el2, read_register!(mdcr_el2) | MDCR);
        write_register!(oslar_el1, 0);
        write_register!(mdscr_el1, 0);
    }
    isb();
}

/// How many breakpoints or watchpoints a CPU has: ID_AA64DFR0_EL1.BRPs (15:12) or WRPs (23:20), less one each.
fn count(shift: u32) -> usize {
    ((read_register!(id_aa64dfr0_el1) >> shift & 0xf) as usize + 1).min(MOST)
}

/// The place of a pair in a table.
fn find(table: &[Pair], control: u64, value: u64) -> Option<&Pair> {
    table.iter().find(|pair| {
        (
            pair.control.load(Ordering::Relaxed),
            pair.value.load(Ordering::Relaxed),
        ) == (control, value)
    })
}

/// Adds a pair to a table of `room`, unless it is there.
fn add(table: &[Pair], room: usize, control: u64, value: u64) -> Result<(), Refused> {
    if find(table, control, value).is_some() {
        return Ok(());
    }
    let free = table
        .iter()
        .take(room)
        .find(|pair| pair.control.load(Ordering::Relaxed) == 0)
        .ok_or(Refused::Full)?;
    free.value.store(value, Ordering::Relaxed);
    free.control.store(control, Ordering::Relaxed);
    Ok(())
}

fn take_away(table: &[Pair], control: u64, value: u64) -> bool {
    let known = find(table, control, value);
    if let Some(pair) = known {
        pair.control.store(0, Ordering::Relaxed);
    }
    known.is_some()
}

/// Arms a breakpoint on all CPUs, from when they go on.
pub(super) fn insert_breakpoint(va: u64) -> Result<(), Refused> {
    if !va.is_multiple_of(4) {
        return Err(Refused::Unmapped);
    }
    add(&BREAKPOINTS, count(12), EVERYWHERE | WHOLE_INSTRUCTION, va)
}

/// The opposite of [`insert_breakpoint`].
pub(super) fn remove_breakpoint(va: u64) -> bool {
    take_away(&BREAKPOINTS, EVERYWHERE | WHOLE_INSTRUCTION, va)
}

/// A watchpoint's control and value: up to 8 bytes inside an aligned 8, or a power of two at a multiple of itself.
fn watch(va: u64, size: u64, kind: WatchKind) -> Option<(u64, u64)> {
    // DBGWCR<n>_EL1.LSC.
    let access = match kind {
        WatchKind::Read => 1 << 3,
        WatchKind::Write => 2 << 3,
        WatchKind::ReadWrite => 3 << 3,
    };
    let offset = va % 8;
    if (1..=8 - offset).contains(&size) {
        let bytes = ((1 << size) - 1) << offset;
        return Some((EVERYWHERE | access | bytes << BAS_SHIFT, va - offset));
    }
    let mask = u64::from(size.trailing_zeros());
    // DBGWCR<n>_EL1.MASK: 3 to 31 address bits that need not match; then BAS is all ones.
    let fits = size.is_power_of_two() && va.is_multiple_of(size) && (3..=31).contains(&mask);
    fits.then_some((
        EVERYWHERE | access | 0xff << BAS_SHIFT | mask << MASK_SHIFT,
        va,
    ))
}

/// Arms a watchpoint on all CPUs, from when they go on.
pub(super) fn insert_watchpoint(va: u64, size: u64, kind: WatchKind) -> Result<(), Refused> {
    let (control, value) = watch(va, size, kind).ok_or(Refused::Unmapped)?;
    add(&WATCHPOINTS, count(20), control, value)
}

/// The opposite of [`insert_watchpoint`].
pub(super) fn remove_watchpoint(va: u64, size: u64, kind: WatchKind) -> bool {
    watch(va, size, kind).is_some_and(|(control, value)| take_away(&WATCHPOINTS, control, value))
}

/// Disarms everything; returns how many there were.
pub(super) fn clear() -> usize {
    BREAKPOINTS
        .iter()
        .chain(&WATCHPOINTS)
        .filter(|pair| pair.control.swap(0, Ordering::Relaxed) != 0)
        .count()
}

/// Loads this CPU's registers from the tables. `attached`: whether they are in use at all; `step`: stop after the next
/// instruction.
#[inline(always)]
pub(super) fn load(attached: bool, step: bool) {
    let control = |pair: &Pair| pair.control.load(Ordering::Relaxed);
    let value = |pair: &Pair| pair.value.load(Ordering::Relaxed);
    let features = read_register!(id_aa64dfr0_el1);
    let (breakpoints, watchpoints) = ((features >> 12 & 0xf) + 1, (features >> 20 & 0xf) + 1);
    macro_rules! pair {
        ($count:ident, $table:ident, $n:literal, $value:ident, $control:ident) => {
            if $count > $n {
                // SAFETY: the register is there, and the CPU's debug registers are EL2's.
                unsafe {
                    write_register!($value, value(&$table[$n]));
                    write_register!($control, control(&$table[$n]));
                }
            }
        };
    }
    pair!(breakpoints, BREAKPOINTS, 0, dbgbvr0_el1, dbgbcr0_el1);
    pair!(breakpoints, BREAKPOINTS, 1, dbgbvr1_el1, dbgbcr1_el1);
    pair!(breakpoints, BREAKPOINTS, 2, dbgbvr2_el1, dbgbcr2_el1);
    pair!(breakpoints, BREAKPOINTS, 3, dbgbvr3_el1, dbgbcr3_el1);
    pair!(breakpoints, BREAKPOINTS, 4, dbgbvr4_el1, dbgbcr4_el1);
    pair!(breakpoints, BREAKPOINTS, 5, dbgbvr5_el1, dbgbcr5_el1);
    pair!(watchpoints, WATCHPOINTS, 0, dbgwvr0_el1, dbgwcr0_el1);
    pair!(watchpoints, WATCHPOINTS, 1, dbgwvr1_el1, dbgwcr1_el1);
    pair!(watchpoints, WATCHPOINTS, 2, dbgwvr2_el1, dbgwcr2_el1);
    pair!(watchpoints, WATCHPOINTS, 3, dbgwvr3_el1, dbgwcr3_el1);
    pair!(watchpoints, WATCHPOINTS, 4, dbgwvr4_el1, dbgwcr4_el1);
    pair!(watchpoints, WATCHPOINTS, 5, dbgwvr5_el1, dbgwcr5_el1);
    let mdscr = if attached { MDSCR_ATTACHED } else { 0 };
    // SAFETY: debug exceptions are masked here (PSTATE.D), so nothing of this can stop the debugger itself.
    unsafe { write_register!(mdscr_el1, mdscr | if step { MDSCR_STEP } else { 0 }) }
    isb();
}

/// Whether this CPU is set to stop after the next instruction.
#[inline(always)]
pub(super) fn is_stepping() -> bool {
    read_register!(mdscr_el1) & MDSCR_STEP != 0
}

/// Whether an access at `far` is what the watchpoint is for, and if so at which of the watchpoint's addresses.
pub(super) fn watched(far: u64) -> Option<(u64, WatchKind)> {
    let armed = WATCHPOINTS.iter().filter_map(|pair| {
        let control = pair.control.load(Ordering::Relaxed);
        if control == 0 {
            return None;
        }
        let value = pair.value.load(Ordering::Relaxed);
        let mask = control >> MASK_SHIFT & 0x1f;
        let bytes = control >> BAS_SHIFT & 0xff;
        let (start, size) = if mask == 0 {
            let first = u64::from(bytes.trailing_zeros());
            (value + first, u64::from(bytes.count_ones()))
        } else {
            (value, 1 << mask)
        };
        let kind = match control >> 3 & 3 {
            1 => WatchKind::Read,
            2 => WatchKind::Write,
            _ => WatchKind::ReadWrite,
        };
        Some((start, size, kind))
    });
    // FAR is the lowest address of the access, which may begin before the watchpoint: the nearest it is.
    armed
        .map(|(start, size, kind)| {
            let at = far.clamp(start, start + size - 1);
            (at.abs_diff(far), at, kind)
        })
        .min_by_key(|(distance, ..)| *distance)
        .map(|(_, at, kind)| (at, kind))
}
