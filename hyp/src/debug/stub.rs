//! A machine behind the gdb remote protocol, as a target of the `gdbstub` crate.

use super::files;
use super::monitor::{self, NOT_STOPPED};
use super::registers::{Aarch64, Register, RegisterFile, from_le, write_target_xml};
use super::window::{Lines, Window};
use super::{Breakpoint, Inferior, Refused, Resume, WatchKind};
use core::fmt::Write;
use gdbstub::common::{Signal, Tid};
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::multithread::{
    MultiThreadBase, MultiThreadResume, MultiThreadResumeOps, MultiThreadSchedulerLocking,
    MultiThreadSchedulerLockingOps, MultiThreadSingleStep, MultiThreadSingleStepOps,
};
use gdbstub::target::ext::base::single_register_access::{
    SingleRegisterAccess, SingleRegisterAccessOps,
};
use gdbstub::target::ext::breakpoints::{
    Breakpoints, BreakpointsOps, HwBreakpoint, HwBreakpointOps, HwWatchpoint, HwWatchpointOps,
    SwBreakpoint, SwBreakpointOps,
};
use gdbstub::target::ext::host_io::{
    HostIo, HostIoClose, HostIoCloseOps, HostIoErrno, HostIoError, HostIoOpen, HostIoOpenFlags,
    HostIoOpenMode, HostIoOpenOps, HostIoOps, HostIoPread, HostIoPreadOps, HostIoResult,
};
use gdbstub::target::ext::monitor_cmd::{ConsoleOutput, MonitorCmd, MonitorCmdOps};
use gdbstub::target::ext::target_description_xml_override::{
    TargetDescriptionXmlOverride, TargetDescriptionXmlOverrideOps,
};
use gdbstub::target::ext::thread_extra_info::{ThreadExtraInfo, ThreadExtraInfoOps};
use gdbstub::target::{Target, TargetError, TargetResult};

/// An [`Inferior`] as gdbstub wants it.
#[derive(Debug)]
pub struct Stub<I> {
    /// The machine.
    pub inferior: I,
    /// What the client asked for so far of the resumption it is composing.
    resume: Resume,
    scheduler_lock: bool,
}

impl<I: Inferior> Stub<I> {
    /// Puts a machine behind the protocol.
    pub fn new(inferior: I) -> Self {
        Self {
            inferior,
            resume: NOTHING,
            scheduler_lock: false,
        }
    }

    fn cpu(&self, tid: Tid) -> Result<usize, Refused> {
        let cpu = tid.get() - 1;
        if cpu < self.inferior.facts().cpus {
            Ok(cpu)
        } else {
            Err(Refused::Missing)
        }
    }

    /// The bit of a thread's CPU in [`Resume::run`].
    fn bit(&self, tid: Tid) -> Result<u64, Refused> {
        Ok(1 << self.cpu(tid)?)
    }
}

/// The thread of a CPU.
pub fn thread(cpu: usize) -> Tid {
    Tid::MIN.saturating_add(cpu)
}

const NOTHING: Resume = Resume { run: 0, step: None };

// Linux's numbers, which gdb shows.
const EPERM: u8 = 1;
const ESRCH: u8 = 3;
const EFAULT: u8 = 14;
const ENOSPC: u8 = 28;

/// The number of an error as a client is told it.
pub(super) fn errno(refused: Refused) -> u8 {
    match refused {
        Refused::Missing => ESRCH,
        Refused::ReadOnly => EPERM,
        Refused::Unmapped => EFAULT,
        Refused::Full => ENOSPC,
    }
}

impl<E> From<Refused> for TargetError<E> {
    fn from(refused: Refused) -> Self {
        Self::Errno(errno(refused))
    }
}

impl<I: Inferior> Target for Stub<I> {
    type Arch = Aarch64;
    /// Resuming has no other way to say no.
    type Error = Refused;

    fn base_ops(&mut self) -> BaseOps<'_, Self::Arch, Self::Error> {
        BaseOps::MultiThread(self)
    }

    // Run-length encoding costs a factor 3 in speed over a link that is fast enough.
    fn use_rle(&self) -> bool {
        false
    }

    fn use_fork_stop_reason(&self) -> bool {
        false
    }

    fn use_vfork_stop_reason(&self) -> bool {
        false
    }

    fn use_vforkdone_stop_reason(&self) -> bool {
        false
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }

    fn support_monitor_cmd(&mut self) -> Option<MonitorCmdOps<'_, Self>> {
        Some(self)
    }

    fn support_target_description_xml_override(
        &mut self,
    ) -> Option<TargetDescriptionXmlOverrideOps<'_, Self>> {
        Some(self)
    }

    fn support_host_io(&mut self) -> Option<HostIoOps<'_, Self>> {
        Some(self)
    }
}

impl<I: Inferior> MultiThreadBase for Stub<I> {
    fn read_registers(&mut self, file: &mut RegisterFile, tid: Tid) -> TargetResult<(), Self> {
        let cpu = self.cpu(tid)?;
        for (register, slot) in Register::all().zip(&mut file.0) {
            *slot = self.inferior.register(cpu, register);
        }
        Ok(())
    }

    fn write_registers(&mut self, file: &RegisterFile, tid: Tid) -> TargetResult<(), Self> {
        let cpu = self.cpu(tid)?;
        // One that cannot be stopped has no registers to write to.
        self.inferior
            .register(cpu, Register::Pc)
            .ok_or(Refused::Missing)?;
        for (register, value) in Register::all().zip(file.0) {
            // A client writes back the whole file to change one of it. What it could not read, it does not write.
            let known = self.inferior.register(cpu, register);
            if let (Some(known), Some(value)) = (known, value)
                && known != value
            {
                self.inferior.set_register(cpu, register, value)?;
            }
        }
        Ok(())
    }

    fn support_single_register_access(&mut self) -> Option<SingleRegisterAccessOps<'_, Tid, Self>> {
        Some(self)
    }

    fn read_addrs(&mut self, va: u64, bytes: &mut [u8], tid: Tid) -> TargetResult<usize, Self> {
        let cpu = self.cpu(tid)?;
        let mut done = 0;
        for (va, range) in pages(va, bytes.len()) {
            let Some(pa) = self.inferior.translate(cpu, va) else {
                break;
            };
            let wanted = range.len();
            let read = self.inferior.read_phys(pa, &mut bytes[range]);
            done += read;
            if read < wanted {
                break;
            }
        }
        if done == 0 && !bytes.is_empty() {
            return Err(Refused::Unmapped.into());
        }
        Ok(done)
    }

    fn write_addrs(&mut self, va: u64, bytes: &[u8], tid: Tid) -> TargetResult<(), Self> {
        let cpu = self.cpu(tid)?;
        // Not even a part of what does not fit is written.
        va.checked_add((bytes.len() as u64).saturating_sub(1))
            .ok_or(Refused::Unmapped)?;
        for (va, range) in pages(va, bytes.len()) {
            let pa = self.inferior.translate(cpu, va).ok_or(Refused::Unmapped)?;
            self.inferior.write_phys(pa, &bytes[range])?;
        }
        Ok(())
    }

    fn list_active_threads(&mut self, visit: &mut dyn FnMut(Tid)) -> Result<(), Self::Error> {
        (0..self.inferior.facts().cpus).for_each(|cpu| visit(thread(cpu)));
        Ok(())
    }

    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }

    fn support_thread_extra_info(&mut self) -> Option<ThreadExtraInfoOps<'_, Self>> {
        Some(self)
    }
}

/// Cuts a range of virtual addresses at page boundaries: the address of each piece, and where it lies
/// in the range. Ends at the end of the address space.
fn pages(va: u64, size: usize) -> impl Iterator<Item = (u64, core::ops::Range<usize>)> {
    let mut done = 0;
    core::iter::from_fn(move || {
        if done == size {
            return None;
        }
        let va = va.checked_add(done as u64)?;
        let piece = (super::PAGE - va % super::PAGE).min((size - done) as u64) as usize;
        let range = done..done + piece;
        done += piece;
        Some((va, range))
    })
}

impl<I: Inferior> SingleRegisterAccess<Tid> for Stub<I> {
    fn read_register(
        &mut self,
        tid: Tid,
        register: Register,
        bytes: &mut [u8],
    ) -> TargetResult<usize, Self> {
        let cpu = self.cpu(tid)?;
        let Some(value) = self.inferior.register(cpu, register) else {
            // No bytes: the register is there, its value is not known.
            return Ok(0);
        };
        let value = value.to_le_bytes();
        let size = register.size().min(bytes.len());
        bytes[..size].copy_from_slice(&value[..size]);
        Ok(size)
    }

    fn write_register(
        &mut self,
        tid: Tid,
        register: Register,
        bytes: &[u8],
    ) -> TargetResult<(), Self> {
        let cpu = self.cpu(tid)?;
        if bytes.len() != register.size() {
            return Err(TargetError::NonFatal);
        }
        Ok(self.inferior.set_register(cpu, register, from_le(bytes))?)
    }
}

impl<I: Inferior> ThreadExtraInfo for Stub<I> {
    fn thread_extra_info(&self, tid: Tid, buffer: &mut [u8]) -> Result<usize, Self::Error> {
        let mut window = Window::new(0, buffer);
        let Ok(cpu) = self.cpu(tid) else {
            return Ok(0);
        };
        // Fails only when the buffer is full.
        let _ = match self.inferior.register(cpu, Register::Cpsr) {
            Some(cpsr) => write!(window, "CPU {cpu} EL{}", cpsr >> 2 & 3),
            None => write!(window, "CPU {cpu} {NOT_STOPPED}"),
        };
        Ok(window.kept())
    }
}

impl<I: Inferior> MultiThreadResume for Stub<I> {
    fn clear_resume_actions(&mut self) -> Result<(), Self::Error> {
        self.resume = NOTHING;
        self.scheduler_lock = false;
        Ok(())
    }

    fn set_resume_action_continue(
        &mut self,
        tid: Tid,
        _signal: Option<Signal>,
    ) -> Result<(), Self::Error> {
        self.resume.run |= self.bit(tid)?;
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }

    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }

    fn resume(&mut self) -> Result<(), Self::Error> {
        if !self.scheduler_lock {
            self.resume.run = u64::MAX;
        } else if self.resume.run == 0 {
            return Err(Refused::Missing);
        }
        self.inferior.resume(self.resume);
        Ok(())
    }
}

impl<I: Inferior> MultiThreadSingleStep for Stub<I> {
    fn set_resume_action_step(
        &mut self,
        tid: Tid,
        _signal: Option<Signal>,
    ) -> Result<(), Self::Error> {
        let bit = self.bit(tid)?;
        // The first action that names a thread is the one for it.
        if self.resume.run & bit == 0 {
            self.resume.run |= bit;
            if self.resume.step.replace(tid.get() - 1).is_some() {
                return Err(Refused::Full);
            }
        }
        Ok(())
    }
}

impl<I: Inferior> MultiThreadSchedulerLocking for Stub<I> {
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), Self::Error> {
        self.scheduler_lock = true;
        Ok(())
    }
}

impl<I: Inferior> Breakpoints for Stub<I> {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        Some(self)
    }
}

impl<I: Inferior> SwBreakpoint for Stub<I> {
    fn add_sw_breakpoint(&mut self, va: u64, _kind: usize) -> TargetResult<bool, Self> {
        self.inferior.insert(Breakpoint::Software { va })?;
        Ok(true)
    }

    fn remove_sw_breakpoint(&mut self, va: u64, _kind: usize) -> TargetResult<bool, Self> {
        Ok(self.inferior.remove(Breakpoint::Software { va }))
    }
}

impl<I: Inferior> HwBreakpoint for Stub<I> {
    fn add_hw_breakpoint(&mut self, va: u64, _kind: usize) -> TargetResult<bool, Self> {
        self.inferior.insert(Breakpoint::Hardware { va })?;
        Ok(true)
    }

    fn remove_hw_breakpoint(&mut self, va: u64, _kind: usize) -> TargetResult<bool, Self> {
        Ok(self.inferior.remove(Breakpoint::Hardware { va }))
    }
}

impl<I: Inferior> HwWatchpoint for Stub<I> {
    fn add_hw_watchpoint(
        &mut self,
        va: u64,
        size: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        if size == 0 || va.checked_add(size - 1).is_none() {
            return Ok(false);
        }
        self.inferior.insert(Breakpoint::Watch { va, size, kind })?;
        Ok(true)
    }

    fn remove_hw_watchpoint(
        &mut self,
        va: u64,
        size: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        Ok(self.inferior.remove(Breakpoint::Watch { va, size, kind }))
    }
}

impl<I: Inferior> MonitorCmd for Stub<I> {
    fn handle_monitor_cmd(
        &mut self,
        line: &[u8],
        mut out: ConsoleOutput<'_>,
    ) -> Result<(), Self::Error> {
        let mut lines = Lines::new(|line| {
            out.write_raw(line);
            // With a heap gdbstub keeps all of it for one packet.
            #[cfg(feature = "std")]
            out.flush();
        });
        // `Lines` takes everything.
        let _ = monitor::run(&self.inferior, line, &mut lines);
        lines.flush();
        Ok(())
    }
}

impl<I: Inferior> TargetDescriptionXmlOverride for Stub<I> {
    fn target_description_xml(
        &self,
        annex: &[u8],
        offset: u64,
        length: usize,
        buffer: &mut [u8],
    ) -> TargetResult<usize, Self> {
        if annex != b"target.xml" {
            return Err(TargetError::NonFatal);
        }
        let length = length.min(longest_data(buffer));
        let mut window = Window::new(offset, &mut buffer[..length]);
        // Fails only when the window is full.
        let _ = write_target_xml(&mut window);
        Ok(window.kept())
    }
}

/// How much binary data an answer may carry: each byte may take two on the wire, and the answer no
/// more than the packet size that was promised.
fn longest_data(buffer: &[u8]) -> usize {
    buffer.len().saturating_sub(32) / 2
}

impl<I: Inferior> HostIo for Stub<I> {
    fn support_open(&mut self) -> Option<HostIoOpenOps<'_, Self>> {
        Some(self)
    }

    fn support_close(&mut self) -> Option<HostIoCloseOps<'_, Self>> {
        Some(self)
    }

    fn support_pread(&mut self) -> Option<HostIoPreadOps<'_, Self>> {
        Some(self)
    }
}

impl<I: Inferior> HostIoOpen for Stub<I> {
    fn open(
        &mut self,
        name: &[u8],
        flags: HostIoOpenFlags,
        _mode: HostIoOpenMode,
    ) -> HostIoResult<u32, Self> {
        if flags != HostIoOpenFlags::O_RDONLY {
            return Err(HostIoError::Errno(HostIoErrno::EROFS));
        }
        files::open(name).ok_or(HostIoError::Errno(HostIoErrno::ENOENT))
    }
}

impl<I: Inferior> HostIoClose for Stub<I> {
    fn close(&mut self, fd: u32) -> HostIoResult<(), Self> {
        match files::file(fd) {
            Some(_) => Ok(()),
            None => Err(HostIoError::Errno(HostIoErrno::EBADF)),
        }
    }
}

impl<I: Inferior> HostIoPread for Stub<I> {
    fn pread(
        &mut self,
        fd: u32,
        count: usize,
        offset: u64,
        buffer: &mut [u8],
    ) -> HostIoResult<usize, Self> {
        let file = files::file(fd).ok_or(HostIoError::Errno(HostIoErrno::EBADF))?;
        let count = count.min(longest_data(buffer));
        files::pread(&self.inferior, file, offset, &mut buffer[..count])
            .ok_or(HostIoError::Errno(HostIoErrno::EFAULT))
    }
}

#[cfg(test)]
mod tests;
