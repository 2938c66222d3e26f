//! Stops before writes.

use super::run::{Machine, parse_stop, watch_address};
use super::step::STEP;
use crate::target::{Breakpoint, RunControl, RunState, TargetError, rsp};
use memchr::memmem;

impl Machine {
    /// Takes in a stop of the machine that it came to by itself.
    pub(super) fn stopped(&mut self, stop: &[u8]) -> Result<(), TargetError> {
        self.state = parse_stop(stop, &self.threads);
        self.before_write = None;
        let RunState::Stopped { cpu, .. } = self.state else {
            return Ok(());
        };
        if let Some(address) = watch_address(stop)
            && self.breakpoints.watches(address)
        {
            self.stop_before_write(address);
        }
        let watching = |breakpoint: &Breakpoint| matches!(breakpoint, Breakpoint::Write(_));
        if self.breakpoints.qemu && self.breakpoints.set.iter().any(watching) {
            let state = self.state.clone();
            // What stops a machine from outside names a CPU that may have met one all the same.
            self.have_writes_met_anew(cpu.filter(|_| !stop.starts_with(b"T02")))?;
            self.state = state;
        }
        Ok(())
    }

    /// Has QEMU's CPUs forget that they met a watchpoint, all but the one that a stop has named.
    fn have_writes_met_anew(&mut self, named: Option<usize>) -> Result<(), TargetError> {
        let doing = "looking which other CPUs are about to write";
        let pcs = self.pcs(doing, 0..self.threads.len())?;
        for (cpu, pc) in pcs.into_iter().enumerate() {
            let (Some(pc), Some(thread)) = (pc, self.threads.get(cpu)) else {
                continue;
            };
            let id = thread.id.clone();
            let about = self.link.ask(doing, &format!("qThreadExtraInfo,{id}"))?;
            let about = rsp::from_hex(&about).unwrap_or_default();
            // One that waits would not come to a stop.
            let waits = memmem::find(&about, b"halted").is_some();
            let code = self.code(doing, &id, pc)?;
            let writes = code.first().is_some_and(|first| may_write(*first));
            if named == Some(cpu) || waits || !writes {
                continue;
            }
            let here = Breakpoint::Code(pc);
            let set = self.breakpoints.is_code(pc);
            if set || self.insert(here)?.is_ok() {
                self.go_until_stop(doing, &format!("vCont;c:{id}"), STEP)?;
            }
            if !set {
                self.remove(here)?;
            }
        }
        Ok(())
    }

    pub(super) fn stop_before_write(&mut self, address: u64) {
        if let RunState::Stopped { cpu, reason } = &mut self.state {
            *reason = format!("about to write to {address:#x}");
            self.before_write = *cpu;
        }
    }
}

/// Whether an A64 instruction may write to memory: a load or store (bits 28:25 are x1x0) other than the usual loads of general
/// registers, or DC ZVA.
pub(crate) fn may_write(instruction: u32) -> bool {
    let is = |mask, value| instruction & mask == value;
    // LDP and its kin: L (22) is 1.
    let pair = is(0x3e40_0000, 0x2840_0000);
    // LDR with an unsigned offset, with a signed one or write-back, and with a register as offset: opc (23:22) is not 0.
    let offset = is(0x3f00_0000, 0x3900_0000)
        || is(0x3f20_0000, 0x3800_0000)
        || is(0x3f20_0c00, 0x3820_0800);
    let loads = pair || offset && !is(0x00c0_0000, 0);
    is(0x0a00_0000, 0x0800_0000) && !loads || is(!0x1f, 0xd50b_7420)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_but_plain_loads_may_write() {
        for load in [
            0xf940_0c08, // ldr x8, [x0, #24]
            0x3940_0021, // ldrb w1, [x1]
            0xb980_0820, // ldrsw x0, [x1, #8]
            0xf85f_8020, // ldur x0, [x1, #-8]
            0xf840_8420, // ldr x0, [x1], #8
            0xf862_7820, // ldr x0, [x1, x2, lsl #3]
            0xa943_7bfd, // ldp x29, x30, [sp, #48]
            0xa8c2_7bfd, // ldp x29, x30, [sp], #32
        ] {
            assert!(!may_write(load), "{load:#x}");
        }
        for other in [
            0xd503_201f, // nop
            0x9100_83fd, // add x29, sp, #32
            0x9400_0008, // bl
            0x5400_0101, // b.ne
            0xd53c_1100, // mrs x0, HCR_EL2
        ] {
            assert!(!may_write(other), "{other:#x}");
        }
        for store in [
            0xf900_0c08, // str x8, [x0, #24]
            0x3900_0021, // strb w1, [x1]
            0xf81f_8020, // stur x0, [x1, #-8]
            0xf822_7820, // str x0, [x1, x2, lsl #3]
            0xa903_7bfd, // stp x29, x30, [sp, #48]
            0xa9be_7bfd, // stp x29, x30, [sp, #-32]!
            0x3d80_0020, // str q0, [x1]
            0x885f_ff48, // ldaxr w8, [x26]
            0x880a_7f49, // stxr w10, w9, [x26]
            0x889f_fc20, // stlr w0, [x1]
            0x88e0_fc41, // casal w0, w1, [x2]
            0x4820_7c82, // casp x0, x1, x2, x3, [x4]
            0xb8e0_0041, // ldaddal w0, w1, [x2]
            0xb8e0_8041, // swpal w0, w1, [x2]
            0xd50b_7422, // dc zva, x2
        ] {
            assert!(may_write(store), "{store:#x}");
        }
    }
}
