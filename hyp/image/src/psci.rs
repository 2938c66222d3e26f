//! The host's SMCs. PSCI (Arm DEN0022) is passed on to the firmware, but that a CPU the host switches on comes
//! to hyp first.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hyp::Cpu;

use crate::cpu::ThisCpu;
use crate::dtb::MAX_CPUS;
use crate::el2::{hypervisor, mpidrs};
use crate::layout::secondary_entry;
use crate::smc::smc;

/// Function ids: PSCI_VERSION, CPU_OFF, AFFINITY_INFO, SYSTEM_OFF, SYSTEM_RESET, PSCI_FEATURES, 32-bit calls.
const VERSION: u64 = 0x8400_0000;
const CPU_OFF: u64 = 0x8400_0002;
const AFFINITY_INFO_32: u64 = 0x8400_0004;
const AFFINITY_INFO_64: u64 = 0xc400_0004;
const SYSTEM_OFF: u64 = 0x8400_0008;
const SYSTEM_RESET: u64 = 0x8400_0009;
const FEATURES: u64 = 0x8400_000a;
const CPU_ON_32: u64 = 0x8400_0003;
const CPU_ON_64: u64 = 0xc400_0003;

/// Bit 30 of a function id: a 64-bit call.
const SMC64: u64 = 1 << 30;
/// The half of a register that a 32-bit call uses.
const LOW: u64 = 0xffff_ffff;

const SUCCESS: u64 = 0;
const NOT_SUPPORTED: u64 = -1_i64 as u64;
const INVALID_PARAMETERS: u64 = -2_i64 as u64;
const ON_PENDING: u64 = -5_i64 as u64;

/// Where a CPU that is being switched on goes on in the host.
struct Start {
    /// Taken from CPU_ON until the CPU has read the rest.
    pending: AtomicBool,
    entry: AtomicU64,
    context: AtomicU64,
}

static STARTS: [Start; MAX_CPUS] = [const {
    Start {
        pending: AtomicBool::new(false),
        entry: AtomicU64::new(0),
        context: AtomicU64::new(0),
    }
}; MAX_CPUS];

/// Answers the host's SMC in its x0 to x3. Only PSCI calls that cannot lead around hyp reach the firmware.
pub(crate) fn handle_host_smc(x: &mut [u64; 31]) {
    // The upper half of a function id is not part of it, nor are those of a 32-bit call's arguments.
    let function = x[0] & LOW;
    let used = if function & SMC64 == 0 { LOW } else { u64::MAX };
    let arguments = [x[1] & used, x[2] & used, x[3] & used];
    let result = match function {
        CPU_ON_32 | CPU_ON_64 => cpu_on(arguments),
        #[cfg(feature = "channel")]
        CPU_OFF => {
            let off = || smc(function, arguments);
            crate::debugger::without_cpu(ThisCpu.id() as usize, off)
        }
        FEATURES if !is_passed_on(arguments[0]) => NOT_SUPPORTED,
        _ if is_passed_on(function) => smc(function, arguments),
        _ => NOT_SUPPORTED,
    };
    x[0] = result;
    x[1..4].fill(0);
}

/// Whether the firmware answers this function; CPU_ON with some help from hyp.
fn is_passed_on(function: u64) -> bool {
    matches!(
        function,
        VERSION
            | CPU_OFF
            | CPU_ON_32
            | CPU_ON_64
            | AFFINITY_INFO_32
            | AFFINITY_INFO_64
            | SYSTEM_OFF
            | SYSTEM_RESET
            | FEATURES
    )
}

/// Starts the CPU with these affinity fields in hyp, from where it enters the host at `entry`.
fn cpu_on([mpidr, entry, context]: [u64; 3]) -> u64 {
    let Some(cpu) = mpidrs().iter().position(|&known| known == mpidr) else {
        return INVALID_PARAMETERS;
    };
    let start = &STARTS[cpu];
    if start.pending.swap(true, Ordering::Acquire) {
        return ON_PENDING;
    }
    start.entry.store(entry, Ordering::Relaxed);
    start.context.store(context, Ordering::Relaxed);
    // Roots are aligned to pages, so the number fits below.
    let root_and_cpu = hypervisor().hyp().root().get() | cpu as u64;
    ThisCpu.publish();
    let result = smc(CPU_ON_64, [mpidr, secondary_entry().get(), root_and_cpu]);
    if result != SUCCESS {
        start.pending.store(false, Ordering::Release);
    }
    result
}

/// Where this CPU, just switched on, enters the host, and with what in x0.
pub(crate) fn take_start() -> (u64, u64) {
    let start = &STARTS[ThisCpu.id() as usize];
    let taken = (
        start.entry.load(Ordering::Relaxed),
        start.context.load(Ordering::Relaxed),
    );
    start.pending.store(false, Ordering::Release);
    taken
}
