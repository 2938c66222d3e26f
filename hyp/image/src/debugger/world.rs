//! Stopping every CPU, and letting them go on.
//!
//! One word says who stands. A CPU that has reason to stop sets [`STOPPED`] and its own bit in one step: if it was the
//! first it leads, asks the others, and hands over to the debugger; later ones only wait, and meet their reason again
//! when they go on. Going on is one step too: the word keeps the bits of CPUs that are held back, and loses the rest.
//! So there is no moment in which a CPU is counted as standing and runs.
//!
//! The host's virtual clock stands while all CPUs stand, as it does under QEMU's gdb server: no timer of the host's is late
//! by what its debugger took, and no watchdog wakes. The physical clock, which nothing can hold up, goes on.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::parked::{self, Parked, set_parked};
use super::{breakpoints, gic, hardware, window};
use crate::arch::{read_register, write_register};
use crate::dtb::MAX_CPUS;
use crate::vectors::{self, Frame};

/// Why a CPU stops.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Why {
    /// Another CPU asked.
    Asked,
    /// The client may have said something.
    Input,
    /// At a software breakpoint.
    Breakpoint,
    /// At a breakpoint of the hardware's.
    HardwareBreakpoint,
    /// Before an access that is watched.
    Watchpoint,
    /// It took its step.
    Step,
    /// hyp panicked.
    Panic,
}

/// [`WORLD`]: CPUs are to stand, or stand.
const STOPPED: u64 = 1 << 63;

/// Bit n: CPU n stands. And [`STOPPED`].
#[unsafe(link_section = ".bss.debugger")]
static WORLD: AtomicU64 = AtomicU64::new(0);
/// Bit n: CPU n is up.
#[unsafe(link_section = ".bss.debugger")]
static ONLINE: AtomicU64 = AtomicU64::new(0);
/// Why each CPU stopped; a [`Why`].
#[unsafe(link_section = ".bss.debugger")]
static REASONS: [AtomicUsize; MAX_CPUS] = [const { AtomicUsize::new(0) }; MAX_CPUS];
/// FAR_EL2 of each CPU when it stopped: the access, if it was a watched one.
#[unsafe(link_section = ".bss.debugger")]
static FAULT_ADDRESSES: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];
/// The CPU that stopped the others.
#[unsafe(link_section = ".bss.debugger")]
static LEADER: AtomicUsize = AtomicUsize::new(0);
/// Bit n: CPU n is not to run with the others.
#[unsafe(link_section = ".bss.debugger")]
static HELD: AtomicU64 = AtomicU64::new(0);
/// Bit n: the BRK that CPU n stands at is the host's own, and goes on as such.
#[unsafe(link_section = ".bss.debugger")]
static REFLECTED: AtomicU64 = AtomicU64::new(0);
/// The CPU that is to take one step, plus 1; 0 for none.
#[unsafe(link_section = ".bss.debugger")]
static STEPPING: AtomicUsize = AtomicUsize::new(0);
/// Whether a client is attached.
#[unsafe(link_section = ".bss.debugger")]
static ATTACHED: AtomicBool = AtomicBool::new(false);

/// The stack pointers of the leading CPU and of the debugger, while the other runs.
#[unsafe(link_section = ".bss.debugger")]
static CPU_STACK: AtomicU64 = AtomicU64::new(0);
#[unsafe(link_section = ".bss.debugger")]
static DEBUGGER_STACK: AtomicU64 = AtomicU64::new(0);

/// Bit n: CPU n did not stand when CPUs were let go last, although it is up.
#[unsafe(link_section = ".bss.debugger")]
static ABSENT: AtomicU64 = AtomicU64::new(0);

/// CNTVOFF_EL2, the same for all CPUs: how long all of them have stood. It only grows, and by time that all have stood
/// through, so that no CPU sees its clock turn back, nor another's ahead.
#[unsafe(link_section = ".bss.debugger")]
static STOOD: AtomicU64 = AtomicU64::new(0);

/// How long the leader waits for the others, in seconds: longer than a computer that is busy with much else keeps one
/// from running, and shorter than gdb waits for an answer. A CPU that is stuck in EL2 with FIQ masked does not come, and is
/// waited for only once.
const PATIENCE: u64 = 1;

unsafe extern "C" {
    fn switch_context(save: *mut u64, next: *const u64);
}

/// This CPU's number.
#[inline(always)]
fn this_cpu() -> usize {
    read_register!(tpidr_el2) as usize
}

/// A CPU has come up. What a client has asked for already holds for it, too.
pub(super) fn join(cpu: usize) {
    ONLINE.fetch_or(1 << cpu, Ordering::SeqCst);
    adopt(false);
    // The call to stop may have gone out before this CPU could hear it. It hears its own in the host; the others stand
    // already.
    if is_stopped() {
        gic::call_this_cpu();
    }
}

/// A CPU goes down.
pub(super) fn leave(cpu: usize) {
    ONLINE.fetch_and(!(1 << cpu), Ordering::SeqCst);
}

/// Whether CPUs are to stand.
#[inline(always)]
fn is_stopped() -> bool {
    WORLD.load(Ordering::SeqCst) & STOPPED != 0
}

/// Sets this CPU's debug registers and vectors to what the client has asked for, and its virtual clock.
#[inline(always)]
fn adopt(step: bool) {
    let attached = ATTACHED.load(Ordering::SeqCst);
    hardware::load(attached, step);
    vectors::choose(attached);
    // SAFETY: the host's virtual clock, which may stand.
    unsafe { write_register!(cntvoff_el2, STOOD.load(Ordering::SeqCst)) }
}

/// Stops this CPU, and if it is the first, all others. Returns when it is to go on as `frame` then says.
#[unsafe(link_section = ".text.unbroken")]
pub(super) fn stop(frame: &mut Frame, why: Why) {
    let cpu = this_cpu();
    let bit = 1 << cpu;
    let (Some(reason), Some(address)) = (REASONS.get(cpu), FAULT_ADDRESSES.get(cpu)) else {
        return;
    };
    if why == Why::Asked && !is_stopped() {
        // It was meant for a stop that is over. If that went by without this CPU, it learns here what came of it.
        adopt(hardware::is_stepping());
        return;
    }
    if ONLINE.load(Ordering::SeqCst) & bit == 0 {
        // On its way up it met a breakpoint, or panicked.
        super::equip();
    }
    reason.store(why as usize, Ordering::Relaxed);
    address.store(read_register!(far_el2), Ordering::Relaxed);
    parked::write_down(cpu, frame);
    let Some(leads) = stand(bit, why == Why::Asked) else {
        set_parked(cpu, 0);
        return;
    };
    gic::set_tick(false);
    let interrupts = gic::keep_host();
    if leads {
        lead(cpu);
    }
    wait(cpu, bit);
    gic::let_host(interrupts);
    let step = STEPPING.load(Ordering::Relaxed) == cpu + 1;
    parked::take_up(cpu, frame, step, ATTACHED.load(Ordering::Relaxed));
    adopt(step);
    gic::set_tick(true);
    // The next stop may have begun before this CPU woke. Then the one call it found was for both.
    if is_stopped() {
        gic::call_this_cpu();
    }
}

/// Whether this CPU, which stood at a BRK, has the host take it. It asks once for each.
#[inline(always)]
pub(super) fn reflects() -> bool {
    let bit = 1 << this_cpu();
    REFLECTED.fetch_and(!bit, Ordering::Relaxed) & bit != 0
}

/// Counts the CPU of `bit` as standing: whether it is the first. `None` where it is to stand only `with_others`, and
/// those run.
#[inline(always)]
fn stand(bit: u64, with_others: bool) -> Option<bool> {
    let mut world = WORLD.load(Ordering::Acquire);
    loop {
        let leads = world & STOPPED == 0;
        if leads && with_others {
            return None;
        }
        match WORLD.compare_exchange_weak(
            world,
            world | STOPPED | bit,
            Ordering::AcqRel,
            Ordering::Acquire,
        ) {
            Ok(_) => return Some(leads),
            Err(now) => world = now,
        }
    }
}

/// Waits until this CPU is let go. One that is held back while others run looks whether the client has said something:
/// the others may all be off.
#[inline(always)]
fn wait(cpu: usize, bit: u64) {
    loop {
        let world = WORLD.load(Ordering::Acquire);
        if world & bit == 0 {
            return;
        }
        let held = world & STOPPED == 0;
        if held && super::has_input() && stand(bit, false) == Some(true) {
            REASONS[cpu].store(Why::Input as usize, Ordering::Relaxed);
            lead(cpu);
            continue;
        }
        gic::set_tick(held);
        // SAFETY: waits for an interrupt, pending or to come; it is not taken, FIQ is masked.
        unsafe { asm!("wfi", options(nostack, preserves_flags)) }
        gic::acknowledge();
    }
}

/// Waits for the others, lets the debugger work, and lets go of those that are to run.
#[inline(always)]
fn lead(cpu: usize) {
    LEADER.store(cpu, Ordering::Relaxed);
    gic::call_others();
    let missing = || ONLINE.load(Ordering::SeqCst) & !WORLD.load(Ordering::Acquire);
    let counter = || read_register!(cntpct_el0);
    let (start, limit) = (counter(), read_register!(cntfrq_el0) * PATIENCE);
    while missing() & !ABSENT.load(Ordering::Relaxed) != 0 && counter().wrapping_sub(start) < limit
    {
        // SAFETY: a hint.
        unsafe { asm!("yield", options(nostack, preserves_flags)) }
    }
    let (all, since) = (missing() == 0, counter());
    let root = window::open();
    breakpoints::lift();
    // SAFETY: the debugger's stack is as `start_context` or its last switch left it, and only one CPU leads.
    unsafe { switch_context(CPU_STACK.as_ptr(), DEBUGGER_STACK.as_ptr()) }
    breakpoints::lay();
    window::close(root);
    ABSENT.store(missing(), Ordering::Relaxed);
    if all {
        STOOD.fetch_add(counter().wrapping_sub(since), Ordering::SeqCst);
    }
    WORLD.fetch_and(HELD.load(Ordering::Relaxed), Ordering::AcqRel);
    gic::call_others();
}

/// Lets CPUs run until they stop again. The debugger's side of [`lead`].
pub(super) fn run() {
    // SAFETY: called on the debugger's stack only; the leading CPU waits in `lead`.
    unsafe { switch_context(DEBUGGER_STACK.as_ptr(), CPU_STACK.as_ptr()) }
}

/// Puts `main` where the first stop goes on, on a stack that ends at `top`.
pub(super) fn start_context(main: extern "C" fn() -> !, top: *mut u64) {
    // `switch_context` takes x29 and x30 from the lowest two words, and ten more registers above.
    // SAFETY: the stack is larger than this, and nobody else uses it.
    let bottom = unsafe {
        let bottom = top.sub(12);
        bottom.add(1).write(main as usize as u64);
        bottom
    };
    DEBUGGER_STACK.store(bottom as u64, Ordering::Release);
}

/// What CPU `cpu` was doing, if it stands. The debugger's, while CPUs stand.
pub(super) fn standing(cpu: usize) -> Option<&'static mut Parked> {
    let stands = cpu < MAX_CPUS && WORLD.load(Ordering::Acquire) >> cpu & 1 != 0;
    // SAFETY: that CPU waits, and only the debugger, one context that takes one reference at a time, is here.
    stands.then(|| unsafe { &mut *parked::parked(cpu) })
}

/// FAR_EL2 as a CPU's stop found it.
pub(super) fn fault_address(cpu: usize) -> u64 {
    let address = FAULT_ADDRESSES.get(cpu);
    address.map_or(0, |address| address.load(Ordering::Relaxed))
}

/// The CPU that is to take one step.
pub(super) fn stepping() -> Option<usize> {
    STEPPING.load(Ordering::Relaxed).checked_sub(1)
}

/// Whether this CPU takes a step while another is held back.
#[inline(always)]
pub(super) fn steps_without_others() -> bool {
    let held = HELD.load(Ordering::Relaxed) & ONLINE.load(Ordering::Relaxed);
    stepping() == Some(this_cpu()) && held != 0
}

/// The CPU that has taken its one step, if it was to.
pub(super) fn stepped() -> Option<usize> {
    stepping().filter(|&cpu| standing(cpu).is_some() && why(cpu) == Why::Step as usize)
}

/// Why a CPU stopped; a [`Why`].
fn why(cpu: usize) -> usize {
    REASONS[cpu.min(MAX_CPUS - 1)].load(Ordering::Relaxed)
}

/// The CPU that stopped the machine, and why.
pub(super) fn reason() -> (usize, Why) {
    let leader = LEADER.load(Ordering::Relaxed);
    let known = [
        Why::Asked,
        Why::Input,
        Why::Breakpoint,
        Why::HardwareBreakpoint,
        Why::Watchpoint,
        Why::Step,
        Why::Panic,
    ];
    let found = known
        .into_iter()
        .find(|&known| known as usize == why(leader));
    (leader, found.unwrap_or(Why::Asked))
}

/// Says that the BRK that CPU `cpu` stands at is the host's, unless a client has CPUs run otherwise meanwhile.
pub(super) fn reflect(cpu: usize) {
    REFLECTED.fetch_or(1 << cpu, Ordering::Relaxed);
}

/// Says which CPUs run when CPUs run again, and that a client is attached.
pub(super) fn set_resume(run: u64, step: Option<usize>) {
    REFLECTED.store(0, Ordering::Relaxed);
    HELD.store(!run & !STOPPED, Ordering::Relaxed);
    STEPPING.store(step.map_or(0, |cpu| cpu + 1), Ordering::Relaxed);
    ATTACHED.store(true, Ordering::Release);
}

/// All CPUs run again, and nobody is attached.
pub(super) fn let_go() {
    REFLECTED.store(0, Ordering::Relaxed);
    HELD.store(0, Ordering::Relaxed);
    STEPPING.store(0, Ordering::Relaxed);
    ATTACHED.store(false, Ordering::Release);
}
