//! The scripted host: what each CPU does at EL1, for ever.
//!
//! In [`Scene::Work`] it opens with one of everything, so that the first capture shows every kind of page; then it goes on
//! at random, from a seed that is its CPU's number, so that every run is the same. The other scenes come to what that does
//! not.

use super::Scene;
use super::cpu::{Cause, PSTATE_EL1H, SimCpu};
use super::layout::{self, Function};
use crate::abort::{Outcome, Trap};
use crate::addr::PAGE_SIZE;
use crate::debug::Region;
use crate::debug::walk::{self, Kind, Regime};
use crate::hypercall::{HCALL_BASE, HOST_SHARE_HYP};
use crate::init::Hyp;
use core::sync::atomic::Ordering;
use std::prelude::rust_2024::*;

/// Where the host keeps data that it may share: 4 MiB for each CPU.
const DATA: u64 = 0x4200_0000;
const DATA_SIZE: u64 = 4 << 20;
/// Where the host keeps data that it never shares: 2 MiB for each CPU.
const PRIVATE: u64 = 0x4600_0000;
const PRIVATE_SIZE: u64 = 2 << 20;
/// What the host touches in scenes without data: 8 MiB for each CPU.
const FRESH: u64 = 0x4300_0000;
const FRESH_SIZE: u64 = 8 << 20;
/// What is mapped at once there.
const BLOCK_SIZE: u64 = 2 << 20;
/// Devices of QEMU's `virt`: UART, RTC, the first virtio-mmio transport, PCIe configuration space.
const DEVICES: [u64; 4] = [0x0900_0000, 0x0901_0000, 0x0a00_0000, 0x40_1000_0000];
/// The hypercall that patch 18 of the series took away.
const MARK_HYP: u64 = 20;

/// ESR_EL2.EC: HVC from AArch64, instruction and data abort from a lower exception level.
const EC_HVC64: u64 = 0x16 << 26;
const EC_IABT_LOW: u64 = 0x20 << 26;
const EC_DABT_LOW: u64 = 0x24 << 26;
/// ESR_EL2.IL: a 32-bit instruction.
const IL: u64 = 1 << 25;
/// ISS.WnR of a data abort.
const WNR: u64 = 1 << 6;
/// DFSC without its level: translation fault, permission fault, external abort on a table walk.
const FSC_TRANSLATION: u64 = 0x04;
const FSC_PERMISSION: u64 = 0x0c;
const FSC_EXTERNAL_ON_WALK: u64 = 0x14;

/// How often an access is tried: once to fault, once to succeed, once more where another CPU took the
/// mapping away in between. Damaged tables could make it fault for ever.
const TRIES: usize = 3;

/// What an access is, and what it needs of a descriptor.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
    Execute,
}

impl Access {
    /// What the syndrome says of it, but for the fault.
    fn syndrome(self) -> u64 {
        match self {
            Self::Read => EC_DABT_LOW | IL,
            Self::Write => EC_DABT_LOW | IL | WNR,
            Self::Execute => EC_IABT_LOW | IL,
        }
    }

    /// S2AP\[0\], bit 6: read; S2AP\[1\], bit 7: write; XN, bit 54: do not execute.
    fn is_granted(self, leaf: u64) -> bool {
        match self {
            Self::Read => leaf & 1 << 6 != 0,
            Self::Write => leaf & 1 << 7 != 0,
            Self::Execute => leaf & 1 << 54 == 0,
        }
    }
}

/// The host on one CPU.
pub(super) struct Host<'a> {
    cpu: SimCpu<'a>,
    hyp: &'a Hyp<'a>,
    random: u64,
}

impl<'a> Host<'a> {
    pub(super) fn new(cpu: SimCpu<'a>, hyp: &'a Hyp<'a>) -> Self {
        // Xorshift wants a state other than 0.
        let random = 0x9e37_79b9_7f4a_7c15 ^ cpu.number() as u64;
        Self { cpu, hyp, random }
    }

    pub(super) fn cpu(&self) -> &SimCpu<'a> {
        &self.cpu
    }

    /// Runs until the machine ends.
    pub(super) fn run(&mut self, scene: Scene) -> ! {
        match scene {
            Scene::Work => self.go_to_work(),
            Scene::Race => self.race(),
            Scene::Fetch => self.fetch(),
        }
    }

    fn go_to_work(&mut self) -> ! {
        self.open();
        self.cpu.shared().opened.lock()[self.cpu.number()] = true;
        loop {
            self.work();
            self.act();
        }
    }

    /// Block after block, the same for all CPUs, each of which begins only when the others are as far.
    fn race(&mut self) -> ! {
        let cpus = self.cpu.shared().cpus.lock().len() as u64;
        for round in 1.. {
            let met = &self.cpu.shared().met;
            met.fetch_add(1, Ordering::Relaxed);
            while met.load(Ordering::Relaxed) < round * cpus {
                self.cpu.step(Function::HostMain);
            }
            self.touch(FRESH + round * BLOCK_SIZE % (cpus * FRESH_SIZE), true);
        }
        unreachable!("a u64 of rounds outlasts every machine")
    }

    /// Code of its own, block after block, and in between hyp's.
    fn fetch(&mut self) -> ! {
        let own = FRESH + self.cpu.number() as u64 * FRESH_SIZE;
        for offset in (0..FRESH_SIZE).step_by(BLOCK_SIZE as usize).cycle() {
            self.work();
            self.execute(own + offset);
            self.work();
            self.execute(layout::SECTIONS[0].1.base);
        }
        unreachable!("it goes round and round")
    }

    /// One of everything.
    fn open(&mut self) {
        let number = self.cpu.number() as u64;
        let data = DATA + number * DATA_SIZE;
        self.touch(layout::stack_pointer(self.cpu.number(), false), true);
        self.touch(PRIVATE + number * PRIVATE_SIZE, true);
        self.touch(data, true);
        for page in 0..2 {
            self.share(data + page * PAGE_SIZE);
        }
        self.share(data);
        self.touch(data + 8 * PAGE_SIZE, true);
        self.touch(DEVICES[number as usize % DEVICES.len()], true);
        self.touch(layout::HYP, false);
    }

    /// Something at random.
    fn act(&mut self) {
        let page = self.pick(DATA_SIZE / PAGE_SIZE) * PAGE_SIZE;
        let number = self.cpu.number() as u64;
        let own = DATA + number * DATA_SIZE + page;
        match self.pick(20) {
            0..8 => self.touch(own, true),
            8..10 => self.touch(PRIVATE + number * PRIVATE_SIZE + page % PRIVATE_SIZE, true),
            10 => {
                let device = self.pick(DEVICES.len() as u64) as usize;
                self.touch(DEVICES[device], true);
            }
            11..15 => self.share(own),
            // The same page from every CPU.
            15..18 => self.share(DATA),
            _ => self.provoke(),
        }
    }

    /// Something that must be refused.
    fn provoke(&mut self) {
        let section = self.pick(layout::SECTIONS.len() as u64) as usize;
        let hyp_page = layout::SECTIONS[section].1.base;
        match self.pick(7) {
            0 => self.touch(layout::HYP, true),
            1 => self.touch(layout::SECTIONS[0].1.base, false),
            2 => self.share(hyp_page),
            3 => self.share(layout::HOST_BSS.base),
            4 => self.share(DEVICES[0]),
            // The address of this page frame does not fit 64 bits.
            5 => self.call(HOST_SHARE_HYP, u64::MAX),
            _ => self.call(MARK_HYP, 0),
        }
    }

    /// The host's own business: a few steps at EL1.
    fn work(&mut self) {
        for _ in 0..2 + self.pick(8) {
            self.cpu.step(Function::HostMain);
        }
    }

    /// A number below `limit`, by Marsaglia's xorshift.
    fn pick(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % limit
    }

    fn share(&mut self, pa: u64) {
        self.call(HOST_SHARE_HYP, pa / PAGE_SIZE);
    }

    /// `HVC #0`.
    fn call(&mut self, id: u64, argument: u64) {
        self.cpu.step(Function::HostCall);
        self.cpu.with_registers(|registers| {
            registers.x[0] = HCALL_BASE | id;
            registers.x[1] = argument;
            registers.esr = EC_HVC64 | IL;
            // The preferred return address of HVC is the instruction behind it.
            registers.pc += 4;
        });
        self.cpu.enter_hyp(Cause::Call);
        self.cpu.step(Function::HandleHostHcall);
        self.trap(Function::HostCall);
    }

    /// One load or store. Where it faults, hyp has its say, and it is tried again unless it was refused.
    fn touch(&mut self, ipa: u64, write: bool) {
        let access = if write { Access::Write } else { Access::Read };
        for _ in 0..TRIES {
            let word = Region { base: ipa, size: 8 };
            match write && self.translate(ipa, access).is_ok() {
                true => self.cpu.step_to_write(Function::HostTouch, word),
                false => self.cpu.step(Function::HostTouch),
            }
            let Err(fault) = self.access(ipa, access) else {
                return;
            };
            if !self.abort(ipa, access.syndrome() | fault) {
                // The host's handler skips the instruction.
                let behind = self.cpu.with_registers(|registers| registers.elr) + 4;
                self.cpu.jump(Function::HostTouch, behind);
                return;
            }
        }
    }

    /// Calls what is at an address: an instruction that returns. Where it is refused, the host's handler returns.
    fn execute(&mut self, ipa: u64) {
        for _ in 0..TRIES {
            self.cpu.jump(Function::HostTouch, ipa);
            let Err(fault) = self.translate(ipa, Access::Execute) else {
                break;
            };
            if !self.abort(ipa, Access::Execute.syndrome() | fault) {
                break;
            }
        }
        self.cpu.step(Function::HostMain);
    }

    /// Takes an abort to hyp. False when the host got an exception.
    fn abort(&mut self, ipa: u64, esr: u64) -> bool {
        self.cpu.with_registers(|registers| {
            registers.esr = esr;
            registers.far = ipa;
            // HPFAR_EL2.FIPA, bits 43:4, holds bits 51:12 of the IPA.
            registers.hpfar = (ipa >> 12) << 4;
        });
        self.cpu.enter_hyp(Cause::Abort);
        self.cpu.step(Function::HandleHostMemAbort);
        self.trap(Function::HostTouch)
    }

    /// What the hardware does with a load or store: performs it, or says why not (DFSC).
    fn access(&self, ipa: u64, access: Access) -> Result<(), u64> {
        let pa = self.translate(ipa, access)?;
        let mut ram = self.cpu.shared().ram.lock();
        // A device takes everything, and a load has no effect that could be seen.
        if access == Access::Write
            && let Some(word) = ram.read_u64(pa)
        {
            ram.write(pa, &word.wrapping_add(1).to_le_bytes());
        }
        Ok(())
    }

    /// What the hardware does before an access: translates and checks; or says why not (xFSC).
    fn translate(&self, ipa: u64, access: Access) -> Result<u64, u64> {
        let ram = self.cpu.shared().ram.lock();
        let root = self.hyp.host().root().get();
        let entry = walk::lookup_in(|pa| ram.read_u64(pa), Regime::HostS2, root, ipa);
        let level = u64::from(entry.level);
        let Some(pa) = entry.output(ipa) else {
            let unreadable = entry.kind == Kind::Unreadable;
            let fault = if unreadable {
                FSC_EXTERNAL_ON_WALK
            } else {
                FSC_TRANSLATION
            };
            return Err(fault | level);
        };
        if !access.is_granted(entry.raw) {
            return Err(FSC_PERMISSION | level);
        }
        Ok(pa)
    }

    /// Gives the trap to hyp and returns to the host in `function`. False when the host got an exception.
    fn trap(&mut self, function: Function) -> bool {
        let (trap, mut x) = self.cpu.with_registers(|registers| {
            let trap = Trap {
                esr: registers.esr,
                far: registers.far,
                hpfar: registers.hpfar,
                elr: registers.elr,
                spsr: registers.spsr,
                sctlr_el1: super::SCTLR_EL1,
            };
            (trap, registers.x)
        });
        let outcome = self.hyp.handle_trap(&self.cpu, &trap, &mut x);
        self.cpu.shared().unsettled.lock()[self.cpu.number()] = false;
        self.cpu.with_registers(|registers| registers.x = x);
        let Outcome::Inject(injection) = outcome else {
            self.cpu.leave_hyp(function, trap.elr, trap.spsr);
            return true;
        };
        let vector = Function::HostVectors.address() + injection.vector;
        self.cpu
            .leave_hyp(Function::HostVectors, vector, injection.spsr_el2);
        self.cpu.step(Function::HostVectors);
        self.cpu
            .with_registers(|registers| registers.pstate = PSTATE_EL1H);
        false
    }
}
