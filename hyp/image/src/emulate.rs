//! What the host still sees of the devices and registers that hyp's debugger has taken: hyp carries its accesses out
//! in its place, and leaves out what touches the debugger.
//!
//! | the host uses | and finds |
//! |---|---|
//! | the page of virtio transports that has the debugger's | nothing there: all reads are 0 |
//! | GICD_CTLR, GICD_IGROUPR | the GIC, but that its interrupts are of group 1, the only one it has |
//! | each GICR's page of private interrupts | the GIC, but for hyp's two interrupts |
//! | ICC_PMR, ICC_CTLR, ICC_RPR, ICC_DIR, ICC_SGI1R | the CPU interface, but for hyp's two interrupts |
//! | ICC_SGI0R, ICC_ASGI1R | that group 0 gets no interrupt from it |
//! | debug registers | registers without effect: MDSCR_EL1 and the OS lock keep what they are given, the others are 0 |
//!
//! Linux finds nothing missing: it puts all its interrupts into group 1, never uses a priority as high as hyp's, 0, and
//! lives without hardware breakpoints. A host that does use priority 0 is served as long as it does not mask it.
mod gic;
#[cfg(target_os = "none")]
mod hardware;
mod registers;

use core::sync::atomic::{AtomicBool, AtomicU64};

use hyp::addr::Pa;

use crate::dtb::MAX_CPUS;

#[cfg(target_os = "none")]
pub(crate) use gic::{DISTRIBUTOR, private_page, redistributor};
#[cfg(target_os = "none")]
pub(crate) use hardware::{device, start, system_register};

/// hyp's software-generated interrupt: the call to stop.
pub(crate) const SGI: u32 = 15;
/// hyp's private interrupt: CNTHP, EL2's physical timer.
pub(crate) const TIMER: u32 = 26;

/// What the host believes to have written, where hyp has written something else.
struct View {
    /// GICD_CTLR.EnableGrp0.
    group0: AtomicBool,
    cpus: [CpuView; MAX_CPUS],
}

/// The same for one CPU; as after a reset, all are 0.
struct CpuView {
    /// ICC_PMR_EL1.
    priority_mask: AtomicU64,
    /// MDSCR_EL1.
    debug_control: AtomicU64,
    /// Not OSLSR_EL1.OSLK.
    os_unlocked: AtomicBool,
}

impl View {
    const fn new() -> Self {
        Self {
            group0: AtomicBool::new(false),
            cpus: [const {
                CpuView {
                    priority_mask: AtomicU64::new(0),
                    debug_control: AtomicU64::new(0),
                    os_unlocked: AtomicBool::new(false),
                }
            }; MAX_CPUS],
        }
    }
}

/// The devices under the emulation.
trait Bus {
    /// Reads `size` bytes (1, 2, 4 or 8) at `pa`, a multiple of `size`.
    fn load(&self, pa: Pa, size: u64) -> u64;
    /// Writes the lowest `size` bytes of `value`.
    fn store(&self, pa: Pa, size: u64, value: u64);
}

/// This CPU's interface of the GIC under the emulation.
trait CpuInterface {
    /// ICC_CTLR_EL1.
    fn control(&self) -> u64;
    /// The same, written.
    fn set_control(&self, value: u64);
    /// ICC_RPR_EL1.
    fn running_priority(&self) -> u64;
    /// ICC_PMR_EL1, written.
    fn set_priority_mask(&self, value: u64);
    /// ICC_DIR_EL1, written.
    fn deactivate(&self, value: u64);
    /// ICC_SGI1R_EL1, written.
    fn send(&self, value: u64);
}
