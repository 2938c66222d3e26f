//! Software breakpoints: BRK in place of an instruction, in memory only while CPUs run.
//!
//! So the debugger itself never meets one, and memory reads as it is.

use core::arch::asm;

use hyp::debug::Refused;

use super::window::window;
use super::{BRK_BREAKPOINT, Shared};

/// The most there are.
const MOST: usize = 64;

/// BRK with the immediate in bits 20:5.
pub(super) const BRK: u32 = 0xd420_0000 | (BRK_BREAKPOINT as u32) << 5;

/// A breakpoint; free while `pa` is 0, where this machine has no RAM.
#[derive(Clone, Copy)]
struct Place {
    va: u64,
    pa: u64,
    /// What stands there while BRK does not.
    instruction: u32,
}

const FREE: Place = Place {
    va: 0,
    pa: 0,
    instruction: 0,
};

#[unsafe(link_section = ".bss.debugger")]
static PLACES: Shared<[Place; MOST]> = Shared::new([FREE; MOST]);

fn places() -> &'static mut [Place; MOST] {
    // SAFETY: only the debugger calls this, while CPUs stand, and keeps no two of them.
    unsafe { &mut *PLACES.get() }
}

/// Adds one at `va`, whose memory is at `pa`: RAM, a multiple of 4.
pub(super) fn insert(va: u64, pa: u64) -> Result<(), Refused> {
    // The same instruction may have two addresses, and then has two breakpoints.
    let known = |place: &Place| (place.va, place.pa) == (va, pa);
    if places().iter().any(known) {
        return Ok(());
    }
    let free = places().iter_mut().find(|place| place.pa == 0);
    *free.ok_or(Refused::Full)? = Place {
        va,
        pa,
        instruction: 0,
    };
    Ok(())
}

/// Takes the one at `va` away.
pub(super) fn remove(va: u64) -> bool {
    let known = places()
        .iter_mut()
        .find(|place| place.pa != 0 && place.va == va);
    known.is_some_and(|place| {
        *place = FREE;
        true
    })
}

/// Takes all away; returns how many there were.
pub(super) fn clear() -> usize {
    let count = places().iter().filter(|place| place.pa != 0).count();
    *places() = [FREE; MOST];
    count
}

/// Whether there is one in the memory at `pa`.
pub(super) fn is_at(pa: u64) -> bool {
    places().iter().any(|place| place.pa == pa)
}

/// Writes the instruction in the memory at `pa`, which is RAM, once more as it is. QEMU (7.2, as seen) may translate
/// instructions for a CPU that comes up while they are changed, and keep what it then has: the CPU would meet a
/// breakpoint that is gone, for ever. It forgets that when the memory is written again, and not for the sake of cache
/// maintenance.
pub(super) fn renew(pa: u64) {
    let at = window(pa & !3).cast::<u32>();
    // SAFETY: the debugger only calls this, while CPUs stand, and so the memory stays as it is.
    unsafe { at.write_volatile(at.read_volatile()) }
    clean(at as u64);
    forget_instructions();
}

/// Puts BRK in place of the instructions.
#[inline(always)]
pub(super) fn lay() {
    for_each(|place, at| {
        // SAFETY: as `for_each` says.
        unsafe {
            place.instruction = at.read_volatile();
            at.write_volatile(BRK);
        }
    });
}

/// Puts the instructions back.
#[inline(always)]
pub(super) fn lift() {
    for_each(|place, at| {
        // SAFETY: as `for_each` says. If the program has written there, that stays; of two in one place, the first has
        // put the instruction back.
        unsafe {
            if at.read_volatile() == BRK {
                at.write_volatile(place.instruction);
            }
        }
    });
}

/// Calls `change` with each breakpoint and where its memory is, which is RAM in the window; then has all CPUs see what
/// was written there as instructions.
#[inline(always)]
fn for_each(change: impl Fn(&mut Place, *mut u32)) {
    let mut any = false;
    // SAFETY: only the leading CPU is here, and the debugger waits.
    for place in unsafe { &mut *PLACES.get() } {
        if place.pa != 0 {
            let at = window(place.pa).cast::<u32>();
            change(place, at);
            clean(at as u64);
            any = true;
        }
    }
    if any {
        forget_instructions();
    }
}

/// Writes the data cache's line of `va` back to where instructions are fetched from.
#[inline(always)]
pub(super) fn clean(va: u64) {
    // SAFETY: has no effect on what is read.
    unsafe { asm!("dc cvau, {}", in(reg) va, options(nostack, preserves_flags)) }
}

/// Has every CPU fetch its instructions anew.
#[inline(always)]
pub(super) fn forget_instructions() {
    // SAFETY: as above.
    unsafe {
        asm!(
            "dsb ish",
            "ic ialluis",
            "dsb ish",
            "isb",
            options(nostack, preserves_flags)
        );
    }
}
