//! Hypercalls: SMC Calling Convention function ids to functions.
//!
//! ```text
//! HVC #0   x0 = 0xC600_0000 | id   x1… = arguments   →   x0 = 0, x1 = result     (known)
//!                                                        x0 = −1                 (unknown: nothing else changes)
//! ```
//! Ids are those of the series' last patch. 20 was `__pkvm_mark_hyp` before patch 18: the host no longer says
//! which memory is hyp's.

use crate::cpu::Cpu;
use crate::init::Hyp;
use crate::stats::Event;

/// Function id of a 64-bit fast call to the vendor-specific hypervisor service; the low 16 bits are the id.
pub const HCALL_BASE: u64 = 0xc600_0000;
/// `__pkvm_host_share_hyp(pfn)`.
pub const HOST_SHARE_HYP: u64 = 16;

/// x0 after a call hyp knows.
const SMCCC_SUCCESS: u64 = 0;
/// x0 after a call hyp does not know.
const SMCCC_NOT_SUPPORTED: u64 = u64::MAX;

impl Hyp<'_> {
    /// Handles the HVC with the host's x0 to x30, and writes its results there.
    pub fn handle_host_hcall(&self, cpu: &dyn Cpu, x: &mut [u64; 31]) {
        let result = match x[0].wrapping_sub(HCALL_BASE) {
            HOST_SHARE_HYP => self.pkvm_host_share_hyp(cpu, x[1]),
            _ => {
                self.stats.count(Event::UnknownHypercall);
                x[0] = SMCCC_NOT_SUPPORTED;
                return;
            }
        };
        x[0] = SMCCC_SUCCESS;
        x[1] = match result {
            Ok(()) => 0,
            Err(errno) => errno.code() as u64,
        };
    }
}
