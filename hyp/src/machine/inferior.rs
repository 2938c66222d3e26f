//! The simulated machine under a debugger.

use super::layout::{self, Function};
use super::{
    ALL_CPUS, HCR_EL2, ID_AA64MMFR0_EL1, MAIR_EL2, Machine, SCTLR_EL2, TCR_EL2, VTCR_EL2,
    cpu::Registers,
};
use crate::debug::registers::{Register, System};
use crate::debug::walk::{self, Kind, Regime};
use crate::debug::{
    Breakpoint, Facts, HostStage2, HypStage1, Inferior, Refused, Region, Resume, Stop, WatchKind,
};
use std::prelude::rust_2024::*;

/// Steps between two looks for a client: with its waits between them slow enough to watch.
pub(super) const STEPS_PER_RUN: u64 = 16;
/// Most bytes that one watchpoint is for.
const MAX_WATCHED: u64 = crate::addr::PAGE_SIZE;
/// Most watchpoints: there are no registers that would run out.
const MAX_WATCHPOINTS: usize = 16;

impl Inferior for Machine {
    fn facts(&self) -> Facts<'_> {
        Facts {
            cpus: self.facts.cpus,
            physvirt_offset: layout::PHYSVIRT_OFFSET,
            host_s2: HostStage2 {
                root: self.facts.host_root,
                vtcr: VTCR_EL2,
            },
            hyp_s1: HypStage1 {
                root: self.facts.hyp_root,
                tcr: TCR_EL2,
                mair: MAIR_EL2,
            },
            ram: &[layout::RAM],
            sections: &self.facts.sections,
            locks: &layout::LOCKS,
            pools: &self.facts.pools,
            stacks: &self.facts.stacks,
            symbols: &self.facts.symbols,
        }
    }

    fn register(&self, cpu: usize, register: Register) -> Option<u64> {
        let cpus = self.shared.cpus.lock();
        let registers = cpus.get(cpu)?;
        match register {
            Register::X(n) => registers.x.get(usize::from(n)).copied(),
            Register::Sp => Some(registers.sp),
            Register::Pc => Some(registers.pc),
            Register::Cpsr => Some(registers.pstate),
            Register::System(system) => self.system(cpu, registers, system),
        }
    }

    /// The simulation computes registers and reads none of them back.
    fn set_register(&mut self, cpu: usize, register: Register, _: u64) -> Result<(), Refused> {
        Err(match self.register(cpu, register) {
            Some(_) => Refused::ReadOnly,
            None => Refused::Missing,
        })
    }

    fn read_phys(&self, pa: u64, bytes: &mut [u8]) -> usize {
        self.shared.ram.lock().read(pa, bytes)
    }

    fn write_phys(&mut self, pa: u64, bytes: &[u8]) -> Result<(), Refused> {
        if self.shared.is_published(pa, bytes.len() as u64) {
            return Err(Refused::ReadOnly);
        }
        if self.shared.ram.lock().write(pa, bytes) {
            Ok(())
        } else {
            Err(Refused::Unmapped)
        }
    }

    fn translate(&self, cpu: usize, va: u64) -> Option<u64> {
        // PSTATE bits 3:2 hold the exception level.
        if self.register(cpu, Register::Cpsr)? >> 2 & 3 == 2 {
            return walk::lookup(self, Regime::HypS1, va).output(va);
        }
        // The host's MMU is off: a virtual address is an IPA.
        let entry = walk::lookup(self, Regime::HostS2, va);
        match entry.kind {
            // The host's, only not touched yet.
            Kind::Empty if layout::RAM.contains(va) => Some(va),
            _ => entry.output(va),
        }
    }

    fn resume(&mut self, resume: Resume) {
        self.resume = resume;
    }

    fn run(&mut self) -> Option<Stop> {
        self.run_steps(STEPS_PER_RUN)
    }

    fn insert(&mut self, breakpoint: Breakpoint) -> Result<(), Refused> {
        match breakpoint {
            // The simulation executes no instructions: both kinds compare the PC.
            Breakpoint::Software { va } | Breakpoint::Hardware { va } => {
                self.breakpoints.insert(va);
                Ok(())
            }
            Breakpoint::Watch {
                va,
                size,
                kind: WatchKind::Write,
            } if size <= MAX_WATCHED && self.watchpoints.len() < MAX_WATCHPOINTS => {
                let watched = Region { base: va, size };
                if !self.watchpoints.contains(&watched) {
                    self.watchpoints.push(watched);
                }
                Ok(())
            }
            Breakpoint::Watch { .. } => Err(Refused::Full),
        }
    }

    fn remove(&mut self, breakpoint: Breakpoint) -> bool {
        match breakpoint {
            Breakpoint::Software { va } | Breakpoint::Hardware { va } => {
                self.breakpoints.remove(&va)
            }
            Breakpoint::Watch {
                va,
                size,
                kind: WatchKind::Write,
            } => {
                let watched = Region { base: va, size };
                let before = self.watchpoints.len();
                self.watchpoints.retain(|other| *other != watched);
                self.watchpoints.len() < before
            }
            Breakpoint::Watch { .. } => false,
        }
    }

    fn let_go(&mut self) -> usize {
        let breakpoints = self.breakpoints.len() + self.watchpoints.len();
        self.breakpoints.clear();
        self.watchpoints.clear();
        self.resume = ALL_CPUS;
        breakpoints
    }

    fn stats(&self, visit: &mut dyn FnMut(&str, u64)) {
        for (name, value) in self.shared.stats.lock().iter() {
            visit(name, *value);
        }
    }
}

impl Machine {
    fn system(&self, cpu: usize, registers: &Registers, system: System) -> Option<u64> {
        Some(match system {
            System::ELR_EL2 => registers.elr,
            System::ESR_EL2 => registers.esr,
            System::FAR_EL2 => registers.far,
            System::HPFAR_EL2 => registers.hpfar,
            System::SPSR_EL2 => registers.spsr,
            System::HCR_EL2 => HCR_EL2,
            System::MAIR_EL2 => MAIR_EL2,
            System::SCTLR_EL2 => SCTLR_EL2,
            System::TCR_EL2 => TCR_EL2,
            System::VTCR_EL2 => VTCR_EL2,
            // VMID 0, in bits 63:48.
            System::VTTBR_EL2 => self.facts.host_root,
            System::TTBR0_EL2 => self.facts.hyp_root,
            // There is no VHE here.
            System::TTBR1_EL2 => return None,
            System::VBAR_EL2 => Function::HypVectors.address(),
            System::TPIDR_EL2 => cpu as u64,
            System::ID_AA64MMFR0_EL1 => ID_AA64MMFR0_EL1,
            System::ID_AA64MMFR1_EL1 | System::ID_AA64MMFR2_EL1 => 0,
        })
    }
}
