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

/// Whether an A64 instruction is a load or store (bits 28:25 are x1x0), or DC ZVA.
fn may_write(instruction: u32) -> bool {
    instruction >> 25 & 0b0101 == 0b0100 || instruction & !0x1f == 0xd50b_7420
}
