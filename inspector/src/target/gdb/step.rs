//! One instruction of one CPU, while the others stand.

use super::exclusive;
use super::link::{is_stop, printable};
use super::run::{Machine, parse_stop, watch_address};
use crate::target::{Breakpoint, RunState, TargetError, rsp};
use std::time::Duration;

/// How long a step may take before the CPU counts as one that waits for an interrupt.
pub(super) const STEP: Duration = Duration::from_secs(1);

/// A CPU as its step left it, until any CPU runs again.
#[derive(Debug)]
pub(super) struct Stepped {
    cpu: usize,
    pc: u64,
    /// The instructions there, as far as they were read before its last steps.
    code: Vec<u32>,
}

/// How many instructions are read ahead of a CPU that is stepped.
const AHEAD: usize = 64;

/// How a step ended.
enum Step {
    /// The CPU has executed an instruction, and its PC is this now.
    Done(u64),
    /// It stands before a write to this address, which we watch for.
    BeforeWrite(u64),
    /// It waits for an interrupt.
    Waits,
}

/// How often QEMU is asked for one step. It ends a step before the instruction where another CPU, which has to throw its
/// translations away after each `Z` and `z`, only then comes to it and has all others pause. Of steps that followed `Z` and
/// `z` at once on a machine of four CPUs more than half ended so, never two in a row without another `Z` between; of other
/// steps one in 2400 (7.2). Nothing was executed then. hyp's server has no part in this, and did it in none of 8000.
const STEP_TRIES: usize = 4;

/// B, B.cond, CBZ, CBNZ, TBZ and TBNZ with an offset of 0.
fn branches_to_itself(word: u32) -> bool {
    word == 0x1400_0000
        || word & 0xffff_ffe0 == 0x5400_0000
        || word & 0x7eff_ffe0 == 0x3400_0000
        || word & 0x7e07_ffe0 == 0x3600_0000
}

impl Machine {
    pub(super) fn step_one(&mut self, cpu: usize) -> Result<u64, TargetError> {
        let doing = format!("stepping CPU {cpu}");
        self.ensure_stopped(&doing)?;
        let stepped = self.stepped.take().filter(|stepped| stepped.cpu == cpu);
        let pc = match &stepped {
            Some(stepped) => Some(stepped.pc),
            None => self.pcs(&doing, cpu..cpu + 1)?.pop().flatten(),
        };
        self.stepped = stepped;
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
        let (mut stop, mut now, mut write);
        let mut tries = 0;
        loop {
            let code;
            (stop, code) = self.step_thread(&doing, cpu, pc)?;
            now = self.see_step(&doing, cpu, pc, &stop, code)?;
            write = watch_address(&stop).filter(|at| !writes && self.breakpoints.watches(*at));
            tries += 1;
            let stays = now == Some(pc) && write.is_none() && stop.starts_with(b"T05");
            let again = stays && self.breakpoints.qemu && tries < STEP_TRIES;
            if !again || self.is_branch_to_itself(&doing, cpu, pc)? {
                break;
            }
        }
        self.link.exchange(&doing, &lay)?;
        let now = now.ok_or_else(|| self.link.protocol(&doing, "it is off now"))?;
        Ok(match write {
            Some(address) if now == pc => Step::BeforeWrite(address),
            // What stopped it is our own interrupt.
            _ if now == pc && stop.starts_with(b"T02") => Step::Waits,
            _ => {
                self.before_write = self.before_write.filter(|other| *other != cpu);
                Step::Done(now)
            }
        })
    }

    /// Where a CPU stands that was stepped from `pc`, where `code` is: hyp says it with the stop, QEMU is asked.
    fn see_step(
        &mut self,
        doing: &str,
        cpu: usize,
        pc: u64,
        stop: &[u8],
        mut code: Vec<u32>,
    ) -> Result<Option<u64>, TargetError> {
        let is_of_it = matches!(self.state, RunState::Stopped { cpu: Some(of), .. } if of == cpu);
        let said = self.breakpoints.pc_in(stop).filter(|_| is_of_it);
        let now = match said {
            Some(now) => Some(now),
            None => self.pcs(doing, cpu..cpu + 1)?.pop().flatten(),
        };
        self.stepped = now.map(|now| {
            // A loop is read anew, so that what it may have written there is seen, and so is what a breakpoint of ours hides.
            let passed = usize::try_from(now.wrapping_sub(pc) / 4).unwrap_or(usize::MAX);
            let rest = code.len().checked_sub(passed);
            let rest = rest.filter(|_| !self.breakpoints.is_code(now));
            let code = code.split_off(code.len() - rest.unwrap_or(0));
            Stepped { cpu, pc: now, code }
        });
        Ok(now)
    }

    /// Whether the instruction at `pc` may lead to itself: then a step that leads there was one.
    fn is_branch_to_itself(
        &mut self,
        doing: &str,
        cpu: usize,
        pc: u64,
    ) -> Result<bool, TargetError> {
        let Some(thread) = self.threads.get(cpu) else {
            return Ok(false);
        };
        let id = thread.id.clone();
        let code = self.code(doing, &id, pc)?;
        Ok(code.first().is_some_and(|word| branches_to_itself(*word)))
    }

    /// Has the server step a CPU, which stands at `pc`; returns its stop reply and, where steps depend on it, the code there.
    fn step_thread(
        &mut self,
        doing: &str,
        cpu: usize,
        pc: u64,
    ) -> Result<(Vec<u8>, Vec<u32>), TargetError> {
        let Some(thread) = self.threads.get(cpu) else {
            return Err(self.link.protocol(doing, "there is no such CPU"));
        };
        let id = thread.id.clone();
        let stepped = self.stepped.take();
        let known = stepped.filter(|stepped| stepped.cpu == cpu && stepped.pc == pc);
        let known = known.filter(|stepped| stepped.code.len() >= exclusive::LONGEST);
        let code = match known {
            _ if self.breakpoints.qemu => Vec::new(),
            Some(known) => known.code,
            None => self.code(doing, &id, pc)?,
        };
        let ways = exclusive::ways_out(&code, pc);
        if ways.is_empty() {
            self.stepping = self.breakpoints.qemu.then(|| id.clone());
            let mut stop = self.go_until_stop(doing, &format!("vCont;s:{id}"), STEP)?;
            if stop.starts_with(b"T02") {
                stop = self.call_off_step(doing)?.unwrap_or(stop);
            }
            self.stepping = None;
            return Ok((stop, code));
        }
        let ways = ways.into_iter().map(Breakpoint::Code);
        let added: Vec<_> = ways
            .filter(|way| !self.breakpoints.set.contains(way))
            .collect();
        self.insert_breakpoints(&added)?;
        let stop = self.go_until_stop(doing, &format!("vCont;c:{id}"), STEP)?;
        self.remove_breakpoints(&added)?;
        Ok((stop, code))
    }

    /// Ends a step that an interrupt came before, on a machine that stands; returns the stop reply if there was one. QEMU calls
    /// it off only for the CPU that `Hc` selects. Another one would stop behind one instruction when the machine runs on.
    pub(super) fn call_off_step(&mut self, doing: &str) -> Result<Option<Vec<u8>>, TargetError> {
        let Some(id) = self.stepping.clone() else {
            return Ok(None);
        };
        self.link.exchange(doing, &[format!("Hc{id}")])?;
        let stop = self.go_until_stop(doing, &format!("vCont;s:{id}"), Duration::ZERO)?;
        self.stepping = None;
        Ok(Some(stop))
    }

    /// The instructions at `pc` as the CPU sees them, as many as are readable.
    pub(super) fn code(&mut self, doing: &str, id: &str, pc: u64) -> Result<Vec<u32>, TargetError> {
        // QEMU reads all or nothing.
        let count = if self.breakpoints.qemu { 1 } else { AHEAD };
        let requests = [format!("Hg{id}"), format!("m{pc:x},{:x}", 4 * count)];
        let replies = self.link.exchange(doing, &requests)?;
        Ok(replies
            .get(1)
            .map_or_else(Vec::new, |digits| instructions(digits)))
    }

    /// Lets CPUs run that stop by themselves soon, and stops them after `limit`; returns the stop reply.
    pub(super) fn go_until_stop(
        &mut self,
        doing: &str,
        request: &str,
        limit: Duration,
    ) -> Result<Vec<u8>, TargetError> {
        self.link.settle(doing)?;
        self.state = RunState::Running;
        self.stepped = None;
        self.link.send_only(doing, request)?;
        let timeout = self.link.timeout();
        let mut packet = self.stop_within(doing, limit.min(timeout))?;
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
    pub(super) fn pcs(
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
        Ok(values.map(|digits| word(digits)).collect())
    }
}

/// The instructions of a reply, as many as there are.
fn instructions(digits: &[u8]) -> Vec<u32> {
    let bytes = rsp::from_hex(digits).unwrap_or_default();
    let words = bytes.as_chunks().0.iter();
    words.map(|word| u32::from_le_bytes(*word)).collect()
}

/// The register of a reply.
pub(super) fn word(digits: &[u8]) -> Option<u64> {
    let bytes = rsp::from_hex(digits)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}
