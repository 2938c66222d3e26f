//! The machine as hyp's library debugs it, and the context in which it does.

use hyp::addr::{Pa, PageRange};
use hyp::debug::host::HostStage1;
use hyp::debug::instructions::{begin_of_attempt, notices_masks};
use hyp::debug::registers::{Register, System};
use hyp::debug::server::{self, Buffers};
use hyp::debug::stub::Stub;
use hyp::debug::walk::{self, Regime};
use hyp::debug::{Breakpoint, Facts, Inferior, Refused, Resume, Stop};
use hyp::stats::Event;

use super::breakpoints::BRK;
use super::facts::Gathered;
use super::line::ToClient;
use super::parked::{Parked, unmask_interrupts};
use super::window::window;
use super::world::{self, Why};
use super::{Shared, breakpoints, hardware};
use crate::dtb::MAX_CPUS;
use crate::el2::{hypervisor, regions};
use crate::layout::{debugger_memory, unbroken};
use crate::panic::culprit;

#[unsafe(link_section = ".bss.debugger")]
static BUFFERS: Shared<Buffers> = Shared::new(Buffers::new());

const STACK_WORDS: usize = 8192;

#[repr(C, align(16))]
struct Stack([u64; STACK_WORDS]);

/// The debugger's: gdbstub is not made for the stacks of EL2's handlers.
#[unsafe(link_section = ".bss.debugger")]
static STACK: Shared<Stack> = Shared::new(Stack([0; STACK_WORDS]));

/// Puts the debugger where the first stop goes on. CPU 0, before others run.
pub(super) fn prepare() {
    world::start_context(main, STACK.get().cast::<u64>().wrapping_add(STACK_WORDS));
}

/// The debugger: begins at the first stop, and goes on at each.
extern "C" fn main() -> ! {
    let facts = Gathered::new();
    let mut stub = Stub::new(ThisMachine {
        facts: &facts,
        masked: None,
        written: false,
    });
    let client = ToClient::new();
    let mut running = true;
    loop {
        // SAFETY: there is one debugger, and this is its only use of them.
        let buffers = unsafe { &mut *BUFFERS.get() };
        running = server::serve(&mut stub, &client, buffers, running);
    }
}

/// The machine, while its CPUs stand.
struct ThisMachine<'a> {
    facts: &'a Gathered,
    /// The CPU that steps with interrupts masked that were not.
    masked: Option<usize>,
    /// Memory was changed, and a table may have been in it.
    written: bool,
}

/// PSTATE.I, and PSTATE.M\[3:2\]: the exception level.
const PSTATE_I: u64 = 1 << 7;
const PSTATE_EL: u64 = 3 << 2;
/// What of PSTATE a client may change: N, Z, C, V, D, A, I.
const PSTATE_FREE: u64 = 0xf << 28 | 7 << 7;

fn is_el2(parked: &Parked) -> bool {
    parked.pstate & PSTATE_EL == 2 << 2
}

impl Inferior for ThisMachine<'_> {
    fn facts(&self) -> Facts<'_> {
        self.facts.facts()
    }

    fn register(&self, cpu: usize, register: Register) -> Option<u64> {
        let parked = world::standing(cpu)?;
        Some(match register {
            Register::X(n) => *parked.x.get(usize::from(n))?,
            Register::Sp => parked.sp,
            Register::Pc => parked.pc,
            Register::Cpsr => parked.pstate,
            Register::System(system) => return parked.system(system),
        })
    }

    fn set_register(&mut self, cpu: usize, register: Register, value: u64) -> Result<(), Refused> {
        let parked = world::standing(cpu).ok_or(Refused::Missing)?;
        match register {
            Register::X(n) => *parked.x.get_mut(usize::from(n)).ok_or(Refused::Missing)? = value,
            Register::Pc => parked.pc = value,
            Register::Cpsr if (parked.pstate ^ value) & !PSTATE_FREE == 0 => parked.pstate = value,
            // EL2's stack pointer is where its frame is.
            Register::Sp if !is_el2(parked) => parked.sp = value,
            Register::Sp | Register::Cpsr | Register::System(_) => return Err(Refused::ReadOnly),
        }
        Ok(())
    }

    fn read_phys(&self, pa: u64, bytes: &mut [u8]) -> usize {
        let Some(region) = region_of(pa) else {
            return 0;
        };
        let size = bytes.len().min((region.end().get() - pa) as usize);
        // SAFETY: all of it is RAM, which the window maps; whatever it holds, it is bytes.
        unsafe { core::ptr::copy_nonoverlapping(window(pa), bytes.as_mut_ptr(), size) };
        size
    }

    fn write_phys(&mut self, pa: u64, bytes: &[u8]) -> Result<(), Refused> {
        let end = pa
            .checked_add(bytes.len() as u64)
            .ok_or(Refused::Unmapped)?;
        let region = region_of(pa).ok_or(Refused::Unmapped)?;
        if end > region.end().get() {
            return Err(Refused::Unmapped);
        }
        let own = [unbroken(), debugger_memory()];
        if own
            .iter()
            .any(|own| pa < own.end().get() && own.base().get() < end)
        {
            return Err(Refused::ReadOnly);
        }
        // SAFETY: all of it is RAM, and none of it is what the debugger itself runs on. What else the client breaks is
        // its own affair.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), window(pa), bytes.len()) };
        for line in (pa & !(CACHE_LINE - 1)..end).step_by(CACHE_LINE as usize) {
            breakpoints::clean(window(line) as u64);
        }
        breakpoints::forget_instructions();
        self.written = true;
        Ok(())
    }

    fn translate(&self, cpu: usize, va: u64) -> Option<u64> {
        let parked = world::standing(cpu)?;
        let own = || walk::lookup(self, Regime::HypS1, va).output(va);
        let host = || self.host_translate(parked, va);
        // A CPU inside EL2 has come from the host, and a backtrace goes on there; from one in the host, hyp's code and
        // data are looked at too.
        if is_el2(parked) {
            own().or_else(host)
        } else {
            host().or_else(own)
        }
    }

    fn resume(&mut self, resume: Resume) {
        world::set_resume(resume.run, resume.step);
    }

    fn run(&mut self) -> Option<Stop> {
        self.before_running();
        world::run();
        self.after_running();
        let (cpu, why) = world::reason();
        let stop = match why {
            Why::Asked | Why::Input => None,
            Why::Breakpoint if !self.is_at_breakpoint(cpu) => {
                if self.is_at_own_break(cpu) {
                    world::reflect(cpu);
                } else {
                    // One that was taken away while this CPU was on its way here.
                    self.renew_instruction(cpu);
                }
                None
            }
            Why::Breakpoint => Some(Stop::Breakpoint { cpu }),
            Why::HardwareBreakpoint => Some(Stop::HardwareBreakpoint { cpu }),
            Why::Watchpoint => hardware::watched(world::fault_address(cpu)).map(|(va, kind)| {
                self.begin_anew(cpu);
                Stop::Watch { cpu, kind, va }
            }),
            Why::Step => Some(Stop::Step { cpu }),
            // Which the other CPUs follow, and one of them may have been the first to stop.
            Why::Panic => Some(Stop::Panic {
                cpu: culprit().unwrap_or(cpu),
            }),
        };
        // If the first to stop has nothing to tell, another CPU may have taken its step meanwhile.
        stop.or_else(|| world::stepped().map(|cpu| Stop::Step { cpu }))
    }

    fn panicked(&self) -> Option<usize> {
        culprit().filter(|&cpu| world::standing(cpu).is_some())
    }

    fn insert(&mut self, breakpoint: Breakpoint) -> Result<(), Refused> {
        match breakpoint {
            Breakpoint::Software { va } => {
                let pa = self.instruction(va)?;
                breakpoints::insert(va, pa)
            }
            Breakpoint::Hardware { va } => {
                self.instruction(va)?;
                hardware::insert_breakpoint(va)
            }
            Breakpoint::Watch { va, size, kind } => hardware::insert_watchpoint(va, size, kind),
        }
    }

    fn remove(&mut self, breakpoint: Breakpoint) -> bool {
        match breakpoint {
            Breakpoint::Software { va } => breakpoints::remove(va),
            Breakpoint::Hardware { va } => hardware::remove_breakpoint(va),
            Breakpoint::Watch { va, size, kind } => hardware::remove_watchpoint(va, size, kind),
        }
    }

    fn let_go(&mut self) -> usize {
        world::let_go();
        breakpoints::clear() + hardware::clear()
    }

    fn stats(&self, visit: &mut dyn FnMut(&str, u64)) {
        for event in Event::ALL {
            visit(event.name(), hypervisor().stats().get(event));
        }
    }
}

/// The least a data cache line is, in bytes.
const CACHE_LINE: u64 = 16;

fn region_of(pa: u64) -> Option<PageRange<Pa>> {
    regions()
        .iter()
        .copied()
        .find(|region| region.contains(Pa::new(pa)))
}

impl ThisMachine<'_> {
    /// What the host's stage 1 says; hyp's stage 2 then changes no address.
    fn host_translate(&self, parked: &Parked, va: u64) -> Option<u64> {
        let stage1 = HostStage1 {
            sctlr: parked.sctlr_el1,
            tcr: parked.tcr_el1,
            ttbr0: parked.ttbr0_el1,
            ttbr1: parked.ttbr1_el1,
        };
        stage1.translate(|pa| self.word(pa), va)
    }

    fn word(&self, pa: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        (self.read_phys(pa, &mut bytes) == 8).then(|| u64::from_le_bytes(bytes))
    }

    /// The memory of an instruction at which a CPU may be stopped: hyp's, or the host's on any CPU.
    fn instruction(&self, va: u64) -> Result<u64, Refused> {
        let own = walk::lookup(self, Regime::HypS1, va).output(va);
        let host = || {
            let standing = (0..MAX_CPUS).find_map(world::standing);
            standing.and_then(|parked| self.host_translate(parked, va))
        };
        let pa = own.or_else(host).filter(|pa| pa.is_multiple_of(4));
        let pa = pa
            .filter(|&pa| region_of(pa).is_some())
            .ok_or(Refused::Unmapped)?;
        if unbroken().contains(Pa::new(pa)) {
            return Err(Refused::ReadOnly);
        }
        Ok(pa)
    }

    /// The instruction that CPU `cpu` would find at `va`.
    fn fetch(&self, cpu: usize, va: u64) -> Option<u32> {
        let pa = self.translate(cpu, va)?;
        let word = self.word(pa & !7)?;
        Some((word >> (8 * (pa & 4))) as u32)
    }

    /// A store-exclusive fails after any stop. A CPU that stopped before one that is watched would do so for ever, and so
    /// it begins anew with the load: there a debugger knows that it must step over both at once.
    fn begin_anew(&self, cpu: usize) {
        if let Some(parked) = world::standing(cpu)
            && let Some(pc) = begin_of_attempt(|va| self.fetch(cpu, va), parked.pc)
        {
            parked.pc = pc;
        }
    }

    /// The memory of the instruction that CPU `cpu` stopped at.
    fn instruction_of(&self, cpu: usize) -> Option<u64> {
        let pc = world::standing(cpu)?.pc;
        self.translate(cpu, pc)
    }

    fn is_at_breakpoint(&self, cpu: usize) -> bool {
        self.instruction_of(cpu).is_some_and(breakpoints::is_at)
    }

    /// Whether the BRK that CPU `cpu` stopped at is of the host's own program: breakpoints are out of memory while CPUs
    /// stand. An address that leads nowhere has never had one.
    fn is_at_own_break(&self, cpu: usize) -> bool {
        world::standing(cpu).is_some_and(|parked| {
            let pc = parked.pc;
            !is_el2(parked) && self.fetch(cpu, pc).is_none_or(|word| word == BRK)
        })
    }

    /// Has the instruction fetched anew that CPU `cpu` stopped at.
    fn renew_instruction(&self, cpu: usize) {
        let pa = self.instruction_of(cpu);
        if let Some(pa) = pa.filter(|&pa| region_of(pa).is_some()) {
            breakpoints::renew(pa);
        }
    }

    /// A step in the host would end in an interrupt handler if one were pending, so interrupts are masked for it, but where
    /// the instruction would notice.
    fn before_running(&mut self) {
        if let Some(cpu) = world::stepping()
            && let Some(parked) = world::standing(cpu)
            && !is_el2(parked)
            && parked.pstate & PSTATE_I == 0
            && let Some(instruction) = self.fetch(cpu, parked.pc)
            && !notices_masks(instruction)
        {
            parked.pstate |= PSTATE_I;
            self.masked = Some(cpu);
        }
        if core::mem::take(&mut self.written) {
            // A descriptor that the client has written holds from now on.
            // SAFETY: forgetting translations is always allowed.
            unsafe {
                core::arch::asm!(
                    "dsb ish",
                    "tlbi alle2is",
                    "tlbi alle1is",
                    "dsb ish",
                    "isb",
                    options(nostack, preserves_flags)
                );
            }
        }
    }

    fn after_running(&mut self) {
        if let Some(cpu) = self.masked
            && let Some(parked) = world::standing(cpu)
        {
            unmask_interrupts(cpu, parked);
            self.masked = None;
        }
    }
}

impl Parked {
    fn system(&self, system: System) -> Option<u64> {
        Some(match system {
            System::ELR_EL2 => self.elr_el2,
            System::ESR_EL2 => self.esr_el2,
            System::FAR_EL2 => self.far_el2,
            System::HCR_EL2 => self.hcr_el2,
            System::HPFAR_EL2 => self.hpfar_el2,
            System::MAIR_EL2 => self.mair_el2,
            System::SCTLR_EL2 => self.sctlr_el2,
            System::SPSR_EL2 => self.spsr_el2,
            System::TCR_EL2 => self.tcr_el2,
            System::TPIDR_EL2 => self.tpidr_el2,
            System::TTBR0_EL2 => self.ttbr0_el2,
            // ID_AA64MMFR1_EL1.VH: there is one.
            System::TTBR1_EL2 if self.id_aa64mmfr1_el1 >> 8 & 0xf == 0 => return None,
            System::TTBR1_EL2 => self.ttbr1_el2,
            System::VBAR_EL2 => self.vbar_el2,
            System::VTCR_EL2 => self.vtcr_el2,
            System::VTTBR_EL2 => self.vttbr_el2,
            System::ID_AA64MMFR0_EL1 => self.id_aa64mmfr0_el1,
            System::ID_AA64MMFR1_EL1 => self.id_aa64mmfr1_el1,
            System::ID_AA64MMFR2_EL1 => self.id_aa64mmfr2_el1,
        })
    }
}
