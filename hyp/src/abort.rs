//! Traps from the host: a stage-2 abort becomes a mapping or an exception for the host, an HVC a hypercall.
//!
//! ```text
//! ESR_EL2.EC  0x16 HVC            → hypercall
//!             0x20, 0x24 abort    → DFSC translation fault → host_stage2_idmap(HPFAR) → mapped, or already mapped: resume
//!                                                                                     → not the host's: inject
//!                                 → any other fault: inject
//!             anything else       → the platform's to handle
//! ```
//! What the platform does in the host's place it finds in [`Trap::access`] and [`Trap::system_register`].
//!
//! Field names and codes: Arm ARM, ESR_EL2, HPFAR_EL2, and AArch64.TakeException for what injecting does.

mod access;
mod system;

pub use access::Access;
pub use system::{SystemAccess, SystemRegister};

use crate::addr::Pa;
use crate::cpu::Cpu;
use crate::errno::Errno;
use crate::init::Hyp;
use crate::stats::Event;

/// ESR_EL2.EC, bits 31:26: HVC from AArch64.
const EC_HVC64: u64 = 0x16;
/// ESR_EL2.EC: instruction abort from a lower exception level.
const EC_IABT_LOW: u64 = 0x20;
/// ESR_EL2.EC: data abort from a lower exception level.
const EC_DABT_LOW: u64 = 0x24;
/// EC's lowest bit: the abort was taken without a change of exception level.
const EC_CURRENT: u64 = 1;
const EC_SHIFT: u32 = 26;
/// ESR_ELx.IL, bit 25: the instruction was 32 bits long.
const IL: u64 = 1 << 25;
/// ISS.CM, bit 8 of a data abort: a cache maintenance instruction.
const CM: u64 = 1 << 8;
/// ISS.WnR, bit 6 of a data abort: a write.
const WNR: u64 = 1 << 6;
/// ISS.xFSC, bits 5:0.
const FSC: u64 = 0x3f;
/// xFSC: synchronous external abort, not on a table walk.
const FSC_EXTERNAL: u64 = 0x10;
/// xFSC: translation fault at level −1.
const FSC_TRANSLATION_MINUS_1: u64 = 0x2b;

/// HPFAR_EL2.FIPA, bits 43:4: bits 51:12 of the IPA.
const HPFAR_FIPA: u64 = 0xfff_ffff_fff0;

/// SPSR_EL2.M, bits 4:0.
const SPSR_M: u64 = 0x1f;
/// SPSR_EL2.M\[4\]: AArch32.
const SPSR_M_AARCH32: u64 = 1 << 4;
/// SPSR_EL2.M: EL1 on SP_EL0.
const SPSR_EL1T: u64 = 0x4;
/// SPSR_EL2.M: EL1 on SP_EL1.
const SPSR_EL1H: u64 = 0x5;
/// SPSR_EL2.{D,A,I,F}, bits 9:6.
const SPSR_DAIF: u64 = 0xf << 6;
/// SPSR_EL2.SSBS, bit 12.
const SPSR_SSBS: u64 = 1 << 12;
/// SPSR_EL2.PAN, bit 22.
const SPSR_PAN: u64 = 1 << 22;
/// SPSR_EL2.DIT, bit 24.
const SPSR_DIT: u64 = 1 << 24;
/// SPSR_EL2.{N,Z,C,V}, bits 31:28.
const SPSR_NZCV: u64 = 0xf << 28;
/// SCTLR_EL1.SPAN, bit 23: 0 means an exception to EL1 sets PSTATE.PAN. RES1 where there is no PAN.
const SCTLR_SPAN: u64 = 1 << 23;
/// SCTLR_EL1.DSSBS, bit 44: PSTATE.SSBS after an exception to EL1.
const SCTLR_DSSBS: u64 = 1 << 44;

/// Offsets in the vector table of VBAR_EL1 for a synchronous exception: from EL1 on SP_EL0, from EL1 on
/// SP_EL1, from EL0 in AArch64, from EL0 in AArch32.
const VECTOR_EL1T: u64 = 0x000;
const VECTOR_EL1H: u64 = 0x200;
const VECTOR_EL0_64: u64 = 0x400;
const VECTOR_EL0_32: u64 = 0x600;

/// The registers that say why the host trapped to EL2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trap {
    /// ESR_EL2.
    pub esr: u64,
    /// FAR_EL2.
    pub far: u64,
    /// HPFAR_EL2.
    pub hpfar: u64,
    /// ELR_EL2.
    pub elr: u64,
    /// SPSR_EL2.
    pub spsr: u64,
    /// SCTLR_EL1, which decides about PSTATE when an exception is injected.
    pub sctlr_el1: u64,
}

/// What to do after a trap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Return to the host where ELR_EL2 points.
    Resume,
    /// Write these registers, then return to the host.
    Inject(Injection),
    /// Not for hyp: the platform's (SMC, system registers).
    Unhandled,
}

/// A synchronous exception to be taken at EL1: the values of the registers that make it look as if the hardware
/// had taken it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Injection {
    /// ESR_EL1.
    pub esr_el1: u64,
    /// FAR_EL1.
    pub far_el1: u64,
    /// ELR_EL1.
    pub elr_el1: u64,
    /// SPSR_EL1.
    pub spsr_el1: u64,
    /// ELR_EL2 is VBAR_EL1 plus this.
    pub vector: u64,
    /// SPSR_EL2.
    pub spsr_el2: u64,
}

impl Trap {
    /// ESR_EL2.EC.
    pub fn exception_class(&self) -> u64 {
        self.esr >> EC_SHIFT & 0x3f
    }

    /// The page whose translation faulted, as HPFAR_EL2 gives it. Where in the page is in FAR_EL2, but not for a
    /// fault on the host's own table walk.
    pub fn fault_ipa(&self) -> u64 {
        (self.hpfar & HPFAR_FIPA) << 8
    }

    fn is_translation_fault(&self) -> bool {
        let fsc = self.esr & FSC;
        fsc & 0x3c == 0x04 || fsc == FSC_TRANSLATION_MINUS_1
    }

    /// The external abort the host sees instead of this abort.
    fn external_abort(&self) -> Injection {
        let mode = self.spsr & SPSR_M;
        let from_el1 = mode == SPSR_EL1T || mode == SPSR_EL1H;
        let class = self.exception_class() | if from_el1 { EC_CURRENT } else { 0 };
        let access = if self.exception_class() == EC_DABT_LOW {
            self.esr & (CM | WNR)
        } else {
            0
        };
        self.exception(class << EC_SHIFT | self.esr & IL | access | FSC_EXTERNAL)
    }

    /// The exception the host sees where hyp offers nothing behind a trapped instruction: ESR_ELx.EC 0, as for an
    /// undefined one.
    pub fn undefined(&self) -> Injection {
        self.exception(self.esr & IL)
    }

    /// The exception the host sees where hyp has taken one that was for EL1, as it stands: a breakpoint instruction of
    /// the host's own that came to EL2 because of MDCR_EL2.TDE. Such an exception leaves FAR_EL1 unknown, and FAR_EL2
    /// may still have an address of hyp's.
    pub fn reflect(&self) -> Injection {
        Injection {
            far_el1: 0,
            ..self.exception(self.esr)
        }
    }

    /// The host takes the exception `esr_el1` at EL1 where it is.
    fn exception(&self, esr_el1: u64) -> Injection {
        let vector = match self.spsr & SPSR_M {
            SPSR_EL1T => VECTOR_EL1T,
            SPSR_EL1H => VECTOR_EL1H,
            mode if mode & SPSR_M_AARCH32 != 0 => VECTOR_EL0_32,
            _ => VECTOR_EL0_64,
        };
        let mut pstate = self.spsr & (SPSR_NZCV | SPSR_DIT | SPSR_PAN) | SPSR_DAIF | SPSR_EL1H;
        if self.sctlr_el1 & SCTLR_SPAN == 0 {
            pstate |= SPSR_PAN;
        }
        if self.sctlr_el1 & SCTLR_DSSBS != 0 {
            pstate |= SPSR_SSBS;
        }
        Injection {
            esr_el1,
            far_el1: self.far,
            elr_el1: self.elr,
            spsr_el1: self.spsr,
            vector,
            spsr_el2: pstate,
        }
    }
}

/// The host's general-purpose register `number`, of which 31 is the zero register.
fn general(x: &[u64; 31], number: u8) -> u64 {
    x.get(usize::from(number)).copied().unwrap_or(0)
}

impl Hyp<'_> {
    /// Handles a synchronous exception the host took to EL2. `x` is the host's x0 to x30; a hypercall changes
    /// x0 and x1.
    pub fn handle_trap(&self, cpu: &dyn Cpu, trap: &Trap, x: &mut [u64; 31]) -> Outcome {
        match trap.exception_class() {
            EC_HVC64 => {
                self.handle_host_hcall(cpu, x);
                Outcome::Resume
            }
            EC_IABT_LOW | EC_DABT_LOW => self.handle_host_mem_abort(cpu, trap),
            _ => Outcome::Unhandled,
        }
    }

    /// Handles a stage-2 abort of the host: maps the page if it is the host's, else injects an external abort.
    ///
    /// # Panics
    /// If the page is the host's but cannot be mapped: then hyp is broken, or its pool too small.
    pub fn handle_host_mem_abort(&self, cpu: &dyn Cpu, trap: &Trap) -> Outcome {
        // A permission fault is never hyp's doing: what it maps has the default permissions. HPFAR need not be valid.
        let result = if trap.is_translation_fault() {
            self.host_stage2_idmap(cpu, Pa::new(trap.fault_ipa()))
        } else {
            Err(Errno::Perm)
        };
        let (event, outcome) = match result {
            Ok(()) => (Event::AbortMapped, Outcome::Resume),
            Err(Errno::Again) => (Event::AbortAlreadyMapped, Outcome::Resume),
            Err(Errno::Perm | Errno::Range) => {
                (Event::AbortRefused, Outcome::Inject(trap.external_abort()))
            }
            Err(errno @ (Errno::NoMem | Errno::Inval)) => {
                panic!(
                    "host abort at IPA {:#x} cannot be handled: {errno}; {trap:x?}",
                    trap.fault_ipa()
                )
            }
        };
        self.stats.count(event);
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_undefined_instruction_is_taken_from_where_it_stands() {
        // EC 0x18, a system register access, 32 bits long; its ISS is none of the host's business.
        let trap = Trap {
            esr: 0x18 << EC_SHIFT | IL | 0x1f_ffff,
            far: 0x1000,
            elr: 0x4100_0010,
            spsr: SPSR_NZCV | SPSR_EL1H,
            sctlr_el1: SCTLR_SPAN,
            ..Trap::default()
        };
        assert_eq!(
            trap.undefined(),
            Injection {
                esr_el1: IL,
                far_el1: 0x1000,
                elr_el1: 0x4100_0010,
                spsr_el1: SPSR_NZCV | SPSR_EL1H,
                vector: VECTOR_EL1H,
                spsr_el2: SPSR_NZCV | SPSR_DAIF | SPSR_EL1H,
            }
        );
    }

    #[test]
    fn a_breakpoint_of_the_hosts_own_is_taken_as_it_stands() {
        // EC 0x3c, BRK #0x5a at EL1 and EL0; EC 0x38, AArch32's BKPT.
        for (esr, spsr, vector) in [
            (0xf200_005a, SPSR_EL1H, VECTOR_EL1H),
            (0xf200_005a, 0, VECTOR_EL0_64),
            (0xe200_0001, SPSR_M_AARCH32, VECTOR_EL0_32),
        ] {
            let trap = Trap {
                esr,
                far: 0x40_4020_0000,
                elr: 0x4100_0010,
                spsr,
                sctlr_el1: SCTLR_SPAN,
                ..Trap::default()
            };
            assert_eq!(
                trap.reflect(),
                Injection {
                    esr_el1: esr,
                    far_el1: 0,
                    elr_el1: 0x4100_0010,
                    spsr_el1: spsr,
                    vector,
                    spsr_el2: SPSR_DAIF | SPSR_EL1H,
                }
            );
        }
    }
}
