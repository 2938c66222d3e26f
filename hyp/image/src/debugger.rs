//! hyp's own debugger: a gdb server at EL2, behind a virtio console.
//!
//! ```text
//!   any CPU                                             the debugger: one context, its own stack and tables
//!
//!   FIQ: tick, and the client said something ──┐
//!   BRK, step, breakpoint, watchpoint, panic ──┤ world::stop                        ┌── server::serve, for ever
//!   FIQ: another CPU asks ─────────────────────┘   │ write down the registers        │     reads, writes, answers
//!                                                  │ first: stop all others, take    │
//!                                                  │   breakpoints out of memory ────┤ switch_context
//!                                                  │ others: wait                    │     Inferior::run
//!   goes on  ◄─────────────────────────────────────┘ ◄───────────────────────────────┘
//! ```
//!
//! Everything from the exception to `switch_context` and back is in the section `.text.unbroken`: it runs while
//! breakpoints are in memory, so it calls nothing that is not there, and none can be set in it. Where no client is
//! attached, all that is left is a tick a hundredth of a second on each CPU. Without a virtio console there is nothing
//! at all.
//!
//! | module | holds |
//! |---|---|
//! | [`console`] | the line: virtio-console over virtio-mmio |
//! | [`dma`] | the memory that its device works with |
//! | [`line`] | the same, as hyp's library wants it |
//! | [`gic`] | interrupts of group 0: the tick, and the call to stop |
//! | [`hardware`] | registers for breakpoints, watchpoints and steps |
//! | [`window`] | the debugger's tables: all RAM |
//! | [`world`] | stopping every CPU, and letting them go on |
//! | [`parked`] | what each CPU was doing |
//! | [`breakpoints`] | software breakpoints |
//! | [`symbols`] | names, so that a client needs no file |
//! | [`facts`] | what hyp says of itself |
//! | [`inferior`] | the machine as hyp's library debugs it |

mod breakpoints;
mod console;
mod dma;
mod facts;
mod gic;
mod hardware;
mod inferior;
mod line;
mod parked;
mod symbols;
mod window;
mod world;

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hyp::Hyp;
use hyp::addr::{Pa, PageRange};

use crate::arch::read_register;
use crate::dtb::Machine;
use crate::emulate;
use crate::vectors::Frame;
use world::Why;

/// Memory that one context at a time uses: a CPU's own, or the debugger's while CPUs stand.
#[repr(transparent)]
struct Shared<T>(UnsafeCell<T>);

// SAFETY: whoever takes the pointer says why nobody else uses the memory then.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    const fn get(&self) -> *mut T {
        self.0.get()
    }
}

/// Whether there is a console, and hyp took what the debugger needs.
static PRESENT: AtomicBool = AtomicBool::new(false);
/// Whether it can run: hyp is there, and the debugger's tables are.
#[unsafe(link_section = ".bss.debugger")]
static READY: AtomicBool = AtomicBool::new(false);
/// Where the console's register is that says whether there is something to read.
#[unsafe(link_section = ".bss.debugger")]
static INPUT: AtomicU64 = AtomicU64::new(0);

/// ISS of a BRK: its immediate, ESR_EL2 bits 15:0. These are the debugger's own: one in place of an instruction, one that
/// ends a step, and one that a panic ends in.
const BRK_BREAKPOINT: u64 = 0xe12;
const BRK_WAIT: u64 = 0xe13;
const BRK_PANIC: u64 = 0xe1f;

/// ESR_EL2.EC of debug exceptions, from a lower level; with bit 0, from EL2 itself.
const EC_BREAKPOINT: u64 = 0x30;
const EC_STEP: u64 = 0x32;
const EC_WATCHPOINT: u64 = 0x34;
/// BRK has one class for all levels.
const EC_BRK: u64 = 0x3c;

/// Whether hyp has a debugger.
pub(crate) fn is_present() -> bool {
    PRESENT.load(Ordering::Relaxed)
}

/// Takes what the debugger needs, if there is a console. CPU 0, with the boot table, before hyp is there.
pub(crate) fn find(machine: &Machine) {
    let Some(console) = console::Console::find() else {
        return;
    };
    INPUT.store(console.status() as u64, Ordering::Relaxed);
    gic::take(machine.mpidrs());
    line::set(console);
    inferior::prepare();
    PRESENT.store(true, Ordering::Relaxed);
}

/// The pages of devices that are the debugger's: the console's transport, and the GIC's that hold something of group 0.
pub(crate) fn pages() -> impl Iterator<Item = PageRange<Pa>> {
    let pages = is_present().then(|| {
        let cpus = crate::el2::mpidrs().len();
        [line::page(), emulate::DISTRIBUTOR]
            .into_iter()
            .chain((0..cpus).map(emulate::private_page))
    });
    pages.into_iter().flatten().filter_map(PageRange::page_of)
}

/// Makes the debugger's tables. CPU 0, when hyp's own are on and before other CPUs run.
pub(crate) fn open_window(hyp: &Hyp<'_>) {
    if is_present() {
        window::make(hyp.regions(), hyp.hyp().root());
        READY.store(true, Ordering::Release);
    }
}

/// Has this CPU's registers be the debugger's.
#[inline(always)]
fn equip() {
    hardware::take();
    gic::start();
}

/// Has this CPU take part. Before it enters the host.
pub(crate) fn start_cpu(cpu: usize) {
    if is_present() {
        equip();
        emulate::start(cpu);
        world::join(cpu);
    }
}

/// Has this CPU go, by `off`. Where that fails, it is back.
pub(crate) fn without_cpu<T>(cpu: usize, off: impl FnOnce() -> T) -> T {
    if !is_present() {
        return off();
    }
    world::leave(cpu);
    let failed = off();
    world::join(cpu);
    failed
}

/// The end: stops every CPU, for a debugger to look. Returns only where there is none, or not yet.
pub(crate) fn panicked() {
    while READY.load(Ordering::Acquire) {
        // SAFETY: it is taken to this CPU's own vector, which stops it.
        unsafe { core::arch::asm!("brk #{}", const BRK_PANIC, options(nostack, preserves_flags)) }
    }
}

/// This CPU waits for another. Ends its step if that one may stand until the step is over: a client that steps over a
/// breakpoint at the host's HVC lets no other CPU run meanwhile, and one of those may hold a lock.
#[inline(always)]
pub(crate) fn wait() {
    if world::steps_without_others() {
        // SAFETY: it is taken to this CPU's own vector, which stops it, and has it go on behind.
        unsafe { core::arch::asm!("brk #{}", const BRK_WAIT, options(nostack, preserves_flags)) }
    }
}

/// FIQ, from `vectors.s`: a tick, or another CPU asks this one to stop.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.unbroken")]
extern "C" fn debugger_fiq(frame: &mut Frame) {
    match gic::acknowledge() {
        Some(gic::Interrupt::Tick) if has_input() => world::stop(frame, Why::Input),
        Some(gic::Interrupt::Stop) => world::stop(frame, Why::Asked),
        Some(gic::Interrupt::Tick) | None => {}
    }
}

/// A debug exception from the host, from `attached_vectors`. False: it is the host's own.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.unbroken")]
extern "C" fn debugger_host_exception(frame: &mut Frame) -> bool {
    match why(read_register!(esr_el2)) {
        // The host may use the debugger's own immediates, too.
        Some(Why::Panic) | None => false,
        Some(why) => {
            world::stop(frame, why);
            !world::reflects()
        }
    }
}

/// An exception of EL2's own, from either table. False: hyp is broken.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.unbroken")]
extern "C" fn debugger_own_exception(frame: &mut Frame) -> bool {
    if !READY.load(Ordering::Acquire) {
        return false;
    }
    let esr = read_register!(esr_el2);
    if esr >> 26 == EC_BRK && esr & 0xffff == BRK_WAIT {
        frame.elr = frame.elr.wrapping_add(4);
        world::stop(frame, Why::Step);
        return true;
    }
    match why(esr) {
        Some(why) => world::stop(frame, why),
        None => return false,
    }
    true
}

/// What a debug exception is about, if it is the debugger's.
#[inline(always)]
fn why(esr: u64) -> Option<Why> {
    match esr >> 26 & 0x3e {
        EC_BRK if esr & 0xffff == BRK_BREAKPOINT => Some(Why::Breakpoint),
        EC_BRK if esr & 0xffff == BRK_PANIC => Some(Why::Panic),
        EC_BREAKPOINT => Some(Why::HardwareBreakpoint),
        EC_STEP => Some(Why::Step),
        EC_WATCHPOINT => Some(Why::Watchpoint),
        _ => None,
    }
}

/// Whether the client may have said something: one bit of the console's, which [`console::Console::acknowledge`] clears.
#[inline(always)]
fn has_input() -> bool {
    let status = INPUT.load(Ordering::Relaxed) as *const u32;
    // SAFETY: `find` found a console there before the first tick; EL2 maps its page for good, and reading the
    // register changes nothing.
    unsafe { status.read_volatile() & 1 != 0 }
}
