//! The end: says where, walks the stack, and stops every CPU where a debugger can read it.

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU32, Ordering};

use hyp::Cpu;
use hyp::addr::{Pa, Va};

use crate::arch::{park, read_register};
use crate::cpu::ThisCpu;
use crate::dtb::MAX_CPUS;
use crate::layout::{stack, stack_memory, va};
use crate::uart::{CONSOLE, print_unlocked};

/// The CPU whose panic stopped the machine; [`NO_CPU`] while all is well.
static PANICKED: AtomicU32 = AtomicU32::new(NO_CPU);
const NO_CPU: u32 = u32::MAX;

/// Frames that are printed.
const MAX_FRAMES: usize = 24;
/// How often a panic looks whether the console is free, before it prints into whatever line there is.
const CONSOLE_TRIES: u32 = 1 << 20;

/// Parks this CPU if another has panicked. Every entry to EL2 and every wait at EL2 comes by here.
pub(crate) fn stop_if_asked() {
    if PANICKED.load(Ordering::Relaxed) != NO_CPU {
        stop();
    }
}

/// The CPU whose panic stopped the machine.
#[cfg(feature = "channel")]
pub(crate) fn culprit() -> Option<usize> {
    let cpu = PANICKED.load(Ordering::Relaxed);
    (cpu != NO_CPU).then_some(cpu as usize)
}

/// Stops for good: for the debugger, or for QEMU's.
fn stop() -> ! {
    #[cfg(feature = "channel")]
    crate::debugger::panicked();
    park()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let syndrome = Syndrome::read();
    let frame: u64;
    // SAFETY: reads a register.
    unsafe {
        core::arch::asm!("mov {}, x29", out(reg) frame, options(nomem, nostack, preserves_flags));
    }
    hyp_panic();
    print_unlocked(format_args!(
        "hyp: PANIC on CPU {}: {}",
        ThisCpu.id(),
        info.message()
    ));
    if let Some(location) = info.location() {
        print_unlocked(format_args!("hyp:   at {location}"));
    }
    end(frame, &syndrome)
}

/// An exception hyp never takes if it is right. `pc` is where, `frame` the frame pointer there.
pub(crate) fn unexpected(what: &str, pc: u64, frame: u64) -> ! {
    let syndrome = Syndrome::read();
    hyp_panic();
    print_unlocked(format_args!("hyp: PANIC on CPU {}: {what}", ThisCpu.id()));
    print_unlocked(format_args!("hyp:   at {pc:#x}"));
    end(frame, &syndrome)
}

/// The first CPU to panic reports; a second one, or a panic while reporting, only parks. Debuggers stop here.
#[inline(never)]
fn hyp_panic() {
    let cpu = ThisCpu.id();
    if PANICKED
        .compare_exchange(NO_CPU, cpu, Ordering::Relaxed, Ordering::Relaxed)
        .is_err()
    {
        stop();
    }
    for _ in 0..CONSOLE_TRIES {
        if !CONSOLE.is_locked() {
            break;
        }
        core::hint::spin_loop();
    }
}

/// What the last exception has left. A debugger that stops the panic is one, too, so that this is read before.
struct Syndrome {
    esr: u64,
    elr: u64,
    far: u64,
    hpfar: u64,
    spsr: u64,
}

impl Syndrome {
    #[inline(always)]
    fn read() -> Self {
        Self {
            esr: read_register!(esr_el2),
            elr: read_register!(elr_el2),
            far: read_register!(far_el2),
            hpfar: read_register!(hpfar_el2),
            spsr: read_register!(spsr_el2),
        }
    }
}

fn end(frame: u64, syndrome: &Syndrome) -> ! {
    let Syndrome {
        esr,
        elr,
        far,
        hpfar,
        spsr,
    } = syndrome;
    print_unlocked(format_args!(
        "hyp:   ESR_EL2 {esr:#x} ELR_EL2 {elr:#x} FAR_EL2 {far:#x} HPFAR_EL2 {hpfar:#x} SPSR_EL2 {spsr:#x}"
    ));
    for caller in callers(frame) {
        print_unlocked(format_args!("hyp:   called from {caller:#x}"));
    }
    print_unlocked(format_args!(
        "hyp: stopped; CPUs stop as they enter EL2. Attach a debugger."
    ));
    ThisCpu.wake();
    stop()
}

/// Return addresses along the chain of frame records, the innermost first, as far as it lies on this CPU's stack.
fn callers(frame: u64) -> impl Iterator<Item = u64> {
    let cpu = (ThisCpu.id() as usize).min(MAX_CPUS - 1);
    let on_stack = move |address: u64| {
        // While it starts, CPU 0 uses its stack at the fixed offset.
        let at_offset = address.wrapping_sub(va(Pa::new(0)).get());
        stack(cpu).contains(Va::new(address)) || stack_memory(cpu).contains(Pa::new(at_offset))
    };
    let mut frame = frame;
    core::iter::from_fn(move || {
        if !frame.is_multiple_of(16) || !on_stack(frame) {
            return None;
        }
        let record = frame as *const [u64; 2];
        // SAFETY: the record lies on this CPU's stack, which is mapped, and is aligned; it is only read.
        let [next, caller] = unsafe { record.read_volatile() };
        // Callers are further up: a chain that turns back is broken.
        frame = if next > frame { next } else { 0 };
        Some(caller)
    })
    .take(MAX_FRAMES)
}
