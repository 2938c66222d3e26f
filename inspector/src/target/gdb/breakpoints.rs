//! Breakpoints of ours, and steps.
//!
//! What servers leave to their client, as seen with QEMU 7.2 and hyp:
//!
//! - A CPU that is let run where it stands at a breakpoint, or before a write that is watched for, stops there again at
//!   once. It has to be stepped with these lifted.
//! - Both stop before a watched write is performed. A step meets it too, and then has not happened.
//! - Of several CPUs that get to breakpoints together, one stop reply names one.
//! - A CPU of QEMU's that has met a watchpoint in a stop that named another thinks that this was told: it then writes, stops
//!   after that, and names what may be anything where the watchpoint was removed meanwhile. A stop of its own at the
//!   place where it stands, before it writes, ends that: it names the watchpoint then, and meets it anew later.

use super::link::{is_stop, printable};
use super::run::{Machine, parse_stop, watch_address};
use crate::target::{Breakpoint, RunState, TargetError, rsp};
use memchr::memmem;
use std::time::Duration;

/// How long a step may take before the CPU counts as one that waits for an interrupt.
const STEP: Duration = Duration::from_secs(1);
const REMOVING: &str = "removing a breakpoint";

/// Breakpoints of ours, and how to ask this server for them.
#[derive(Debug, Default)]
pub(super) struct Breakpoints {
    /// Those that may be set, in the order they were set in.
    pub(super) set: Vec<Breakpoint>,
    /// Whether the server is QEMU, and not hyp.
    pub(super) qemu: bool,
    /// Asks for the PC of the selected CPU.
    pub(super) pc_request: String,
}

/// How a step ended.
enum Step {
    /// The CPU has executed an instruction, and its PC is this now.
    Done(u64),
    /// It stands before a write to this address, which we watch for.
    BeforeWrite(u64),
    /// It waits for an interrupt.
    Waits,
}

impl Breakpoints {
    fn request(&self, action: char, breakpoint: Breakpoint) -> String {
        match breakpoint {
            Breakpoint::Code(address) => {
                // hyp has 64 that it writes to memory, and as few as two in debug registers. QEMU needs memory for none,
                // but where it runs guests by KVM for those of kind 0.
                let kind = if self.qemu { 1 } else { 0 };
                format!("{action}{kind},{address:x},4")
            }
            Breakpoint::Write(span) => format!("{action}2,{:x},{:x}", span.start, span.size),
        }
    }

    /// The requests that take all away.
    pub(super) fn removals(&self) -> Vec<String> {
        let all = self.set.iter();
        all.map(|breakpoint| self.request('z', *breakpoint))
            .collect()
    }

    fn is_code(&self, address: u64) -> bool {
        self.set.contains(&Breakpoint::Code(address))
    }

    /// Whether a watchpoint is ours.
    fn watches(&self, address: u64) -> bool {
        self.set.iter().any(
            |breakpoint| matches!(breakpoint, Breakpoint::Write(span) if span.contains(address)),
        )
    }

    /// What holds a CPU back that stands at `pc`; with `writes`, whatever it writes to, too.
    fn holding(&self, pc: u64, writes: bool) -> Vec<Breakpoint> {
        let holds = |breakpoint: &&Breakpoint| match breakpoint {
            Breakpoint::Code(address) => *address == pc,
            Breakpoint::Write(_) => writes,
        };
        self.set.iter().filter(holds).copied().collect()
    }
}

impl Machine {
    pub(super) fn insert_breakpoint(
        &mut self,
        breakpoint: Breakpoint,
    ) -> Result<Result<(), String>, TargetError> {
        let doing = "setting a breakpoint";
        self.ensure_stopped(doing)?;
        if self.breakpoints.set.contains(&breakpoint) {
            return Ok(Ok(()));
        }
        // It counts as set before it is: whatever becomes of the reply, it is taken away again.
        self.breakpoints.set.push(breakpoint);
        let reply = self
            .link
            .ask(doing, &self.breakpoints.request('Z', breakpoint))?;
        if reply == b"OK" {
            return Ok(Ok(()));
        }
        self.breakpoints.set.pop();
        Ok(Err(refusal(&reply)))
    }

    pub(super) fn remove_breakpoint(&mut self, breakpoint: Breakpoint) -> Result<(), TargetError> {
        if self.breakpoints.set.contains(&breakpoint) {
            self.ensure_stopped(REMOVING)?;
            // One that is gone already is answered with an error, and gone.
            self.link
                .ask(REMOVING, &self.breakpoints.request('z', breakpoint))?;
            self.breakpoints.set.retain(|other| *other != breakpoint);
        }
        Ok(())
    }

    pub(super) fn step_one(&mut self, cpu: usize) -> Result<u64, TargetError> {
        let doing = format!("stepping CPU {cpu}");
        self.ensure_stopped(&doing)?;
        let pc = self.pcs(&doing, cpu..cpu + 1)?.pop().flatten();
        let pc = pc.ok_or_else(|| self.link.protocol(&doing, "it is off, or there is none"))?;
        for writes in [false, true] {
            match self.step_from(cpu, pc, writes)? {
                Step::Done(pc) => return Ok(pc),
                Step::BeforeWrite(_) => {}
                Step::Waits => break,
            }
        }
        Ok(pc)
    }

    /// Steps the CPUs off the breakpoints that they stand at, one after the other. True when one of them got to the next
    /// breakpoint by that: then the machine is to stay stopped.
    pub(super) fn step_off_breakpoints(&mut self) -> Result<bool, TargetError> {
        if self.breakpoints.set.is_empty() {
            return Ok(false);
        }
        let doing = "stepping CPUs off breakpoints";
        let pcs = self.pcs(doing, 0..self.threads.len())?;
        let before_write = self.before_write.take();
        let mut arrived = None;
        for (cpu, pc) in pcs.into_iter().enumerate() {
            let Some(pc) = pc else { continue };
            let writes = before_write == Some(cpu);
            if !writes && !self.breakpoints.is_code(pc) {
                continue;
            }
            match self.step_from(cpu, pc, writes)? {
                Step::Done(pc) if self.breakpoints.is_code(pc) => {
                    arrived.get_or_insert((cpu, None));
                }
                Step::BeforeWrite(address) => {
                    arrived.get_or_insert((cpu, Some(address)));
                }
                Step::Done(_) | Step::Waits => {}
            }
        }
        if let Some((cpu, write)) = arrived {
            self.state = RunState::Stopped {
                cpu: Some(cpu),
                reason: "signal 5".to_owned(),
            };
            if let Some(address) = write {
                self.stop_before_write(address);
            }
        }
        Ok(arrived.is_some())
    }

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
            let ask = [
                format!("qThreadExtraInfo,{id}"),
                format!("Hg{id}"),
                format!("m{pc:x},4"),
            ];
            let [about, _, instruction] = &self.link.exchange(doing, &ask)?[..] else {
                continue;
            };
            let about = rsp::from_hex(about).unwrap_or_default();
            let instruction = rsp::from_hex(instruction).and_then(|bytes| bytes.try_into().ok());
            let waits = memmem::find(&about, b"halted").is_some();
            let writes = instruction.is_some_and(|bytes| may_write(u32::from_le_bytes(bytes)));
            if named == Some(cpu) || waits || !writes {
                continue;
            }
            let here = Breakpoint::Code(pc);
            let set = self.breakpoints.is_code(pc);
            if set || self.insert_breakpoint(here)?.is_ok() {
                self.go_until_stop(doing, &format!("vCont;c:{id}"))?;
            }
            if !set {
                self.remove_breakpoint(here)?;
            }
        }
        Ok(())
    }

    fn stop_before_write(&mut self, address: u64) {
        if let RunState::Stopped { cpu, reason } = &mut self.state {
            *reason = format!("about to write to {address:#x}");
            self.before_write = *cpu;
        }
    }

    /// One instruction of a CPU that stands at `pc`, with the breakpoint lifted at which it stands; with `writes`, with all
    /// watchpoints lifted too.
    fn step_from(&mut self, cpu: usize, pc: u64, writes: bool) -> Result<Step, TargetError> {
        let doing = format!("stepping CPU {cpu}");
        let lifted = self.breakpoints.holding(pc, writes);
        let requests = |action| -> Vec<_> {
            let lifted = lifted.iter();
            lifted
                .map(|breakpoint| self.breakpoints.request(action, *breakpoint))
                .collect()
        };
        let (lift, lay) = (requests('z'), requests('Z'));
        self.link.exchange(&doing, &lift)?;
        let stop = self.step_thread(&doing, cpu)?;
        self.link.exchange(&doing, &lay)?;
        let now = self.pcs(&doing, cpu..cpu + 1)?.pop().flatten();
        let now = now.ok_or_else(|| self.link.protocol(&doing, "it is off now"))?;
        let write = watch_address(&stop).filter(|address| self.breakpoints.watches(*address));
        Ok(match write {
            Some(address) if now == pc && !writes => Step::BeforeWrite(address),
            // What stopped it is our own interrupt.
            _ if now == pc && stop.starts_with(b"T02") => Step::Waits,
            _ => {
                self.before_write = self.before_write.filter(|other| *other != cpu);
                Step::Done(now)
            }
        })
    }

    /// Has the server step a CPU; returns its stop reply.
    fn step_thread(&mut self, doing: &str, cpu: usize) -> Result<Vec<u8>, TargetError> {
        let Some(thread) = self.threads.get(cpu) else {
            return Err(self.link.protocol(doing, "there is no such CPU"));
        };
        let request = format!("vCont;s:{}", thread.id);
        self.go_until_stop(doing, &request)
    }

    /// Lets CPUs run that stop by themselves soon; returns the stop reply.
    fn go_until_stop(&mut self, doing: &str, request: &str) -> Result<Vec<u8>, TargetError> {
        self.link.settle(doing)?;
        self.state = RunState::Running;
        self.link.send_only(doing, request)?;
        let timeout = self.link.timeout();
        let mut packet = self.stop_within(doing, STEP.min(timeout))?;
        if packet.is_none() {
            self.link.send_interrupt(doing)?;
            packet = self.stop_within(doing, timeout)?;
        }
        let stop = packet.ok_or_else(|| {
            let seconds = timeout.as_secs_f64();
            self.link
                .protocol(doing, format!("it did not stop within {seconds} s"))
        })?;
        self.state = parse_stop(&stop, &self.threads);
        self.ensure_stopped(doing)?;
        Ok(stop)
    }

    /// The next stop reply; `None` when none came in time.
    fn stop_within(
        &mut self,
        doing: &str,
        limit: Duration,
    ) -> Result<Option<Vec<u8>>, TargetError> {
        loop {
            match self.link.packet_within(doing, limit)? {
                Some(packet) if is_stop(&packet) => return Ok(Some(packet)),
                // Text of the debuggee's.
                Some(packet) if packet.first() == Some(&b'O') => {}
                Some(packet) => {
                    self.state = RunState::Stopped {
                        cpu: None,
                        reason: "would not step".to_owned(),
                    };
                    let reason = format!("the server answered `{}`", printable(&packet));
                    return Err(self.link.protocol(doing, reason));
                }
                None => return Ok(None),
            }
        }
    }

    /// Where CPUs stand; `None` for one that is off, where the server knows.
    fn pcs(
        &mut self,
        doing: &str,
        cpus: std::ops::Range<usize>,
    ) -> Result<Vec<Option<u64>>, TargetError> {
        let threads = self.threads.get(cpus).unwrap_or_default();
        let requests: Vec<_> = threads
            .iter()
            .flat_map(|thread| {
                [
                    format!("Hg{}", thread.id),
                    self.breakpoints.pc_request.clone(),
                ]
            })
            .collect();
        let replies = self.link.exchange(doing, &requests)?;
        let values = replies.iter().skip(1).step_by(2);
        Ok(values
            .map(|digits| {
                let bytes = rsp::from_hex(digits)?;
                Some(u64::from_le_bytes(bytes.try_into().ok()?))
            })
            .collect())
    }
}

/// Whether an A64 instruction is a load or store (bits 28:25 are x1x0), or DC ZVA.
fn may_write(instruction: u32) -> bool {
    instruction >> 25 & 0b0101 == 0b0100 || instruction & !0x1f == 0xd50b_7420
}

/// Why a breakpoint was refused: hyp's numbers are Linux's, QEMU has one for everything.
fn refusal(reply: &[u8]) -> String {
    match reply {
        b"" => "the server has no such breakpoints".to_owned(),
        b"E01" => "hyp's debugger itself runs there".to_owned(),
        b"E0e" => "nothing is mapped there that could stop a CPU".to_owned(),
        b"E1c" => "the server has no room for another".to_owned(),
        other => format!("the server answered `{}`", printable(other)),
    }
}
