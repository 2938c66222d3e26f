//! A simulated CPU: its registers, and how hyp's library executes on it.
//!
//! The library runs as ordinary code of this process. What a debugger may see of that is modelled here: at
//! every lock attempt and table access the CPU stands in the function of that name, then waits for its turn.

use super::Shared;
use super::layout::{self, Function, LINEAR_OFFSET};
use crate::addr::{Ipa, PAGE_SIZE, Pa};
use crate::cpu::{Cpu, TableMemory};
use crate::debug::Region;
use core::cell::{Cell, RefCell};

/// PSTATE at EL1 on SP_EL1, D, A, I and F masked.
pub(super) const PSTATE_EL1H: u64 = 0x3c5;
/// PSTATE at EL2 on SP_EL2, D, A, I and F masked.
const PSTATE_EL2H: u64 = 0x3c9;

/// The registers of one CPU that change while it runs.
#[derive(Clone, Debug)]
pub(super) struct Registers {
    pub(super) x: [u64; 31],
    pub(super) sp: u64,
    pub(super) pc: u64,
    pub(super) pstate: u64,
    pub(super) esr: u64,
    pub(super) far: u64,
    pub(super) hpfar: u64,
    pub(super) elr: u64,
    pub(super) spsr: u64,
    /// What the next step will write, as far as that is known: virtual addresses.
    pub(super) will_write: Option<Region>,
}

impl Registers {
    /// A CPU that is about to run the host.
    pub(super) fn new(cpu: usize) -> Self {
        Self {
            x: [0; 31],
            sp: layout::stack_pointer(cpu, false),
            pc: Function::HostMain.address(),
            pstate: PSTATE_EL1H,
            esr: 0,
            far: 0,
            hpfar: 0,
            elr: 0,
            spsr: 0,
            will_write: None,
        }
    }
}

/// What made the host trap: decides in whose text the library's work is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cause {
    Abort,
    Call,
}

/// A CPU as the library sees it.
pub(super) struct SimCpu<'a> {
    number: usize,
    shared: &'a Shared,
    registers: RefCell<Registers>,
    function: Cell<Function>,
    cause: Cell<Cause>,
    /// Locks held, and the one waited for.
    locks: Cell<u32>,
    /// False while CPU 0 starts hyp alone.
    takes_turns: bool,
}

impl<'a> SimCpu<'a> {
    pub(super) fn new(number: usize, shared: &'a Shared, takes_turns: bool) -> Self {
        Self {
            number,
            shared,
            registers: RefCell::new(Registers::new(number)),
            function: Cell::new(Function::HostMain),
            cause: Cell::new(Cause::Call),
            locks: Cell::new(0),
            takes_turns,
        }
    }

    pub(super) fn number(&self) -> usize {
        self.number
    }

    pub(super) fn shared(&self) -> &'a Shared {
        self.shared
    }

    /// Moves on in `function`: to its start, or by an instruction where the CPU is in it already. Then ends
    /// this step; what follows happens in the next.
    pub(super) fn step(&self, function: Function) {
        if !self.takes_turns {
            return;
        }
        {
            let mut registers = self.registers.borrow_mut();
            let offset = registers.pc.wrapping_sub(function.address());
            let stays = self.function.get() == function && offset + 4 < function.size();
            registers.pc = function.address() + if stays { offset + 4 } else { 0 };
        }
        self.function.set(function);
        self.finish_step();
    }

    /// The same, where the next step will write to `region`.
    pub(super) fn step_to_write(&self, function: Function, region: Region) {
        self.registers.borrow_mut().will_write = Some(region);
        self.step(function);
        self.registers.borrow_mut().will_write = None;
    }

    /// Ends this step where the CPU stands.
    fn finish_step(&self) {
        self.show();
        self.shared.baton.yield_turn(self.number);
    }

    /// Shows the registers to debuggers.
    fn show(&self) {
        self.shared.cpus.lock()[self.number] = self.registers.borrow().clone();
    }

    /// Changes the host's registers.
    pub(super) fn with_registers<T>(&self, change: impl FnOnce(&mut Registers) -> T) -> T {
        change(&mut self.registers.borrow_mut())
    }

    /// Jumps to an address inside `function`, ending the step there.
    pub(super) fn jump(&self, function: Function, pc: u64) {
        self.registers.borrow_mut().pc = pc;
        self.function.set(function);
        self.finish_step();
    }

    /// Takes an exception to EL2: what the hardware does.
    pub(super) fn enter_hyp(&self, cause: Cause) {
        self.cause.set(cause);
        self.with_registers(|registers| {
            registers.elr = registers.pc;
            registers.spsr = registers.pstate;
            registers.pstate = PSTATE_EL2H;
            registers.sp = layout::stack_pointer(self.number, true);
        });
        // VBAR_EL2 + 0x400: synchronous, from a lower level in AArch64.
        self.jump(Function::HypVectors, Function::HypVectors.address() + 0x400);
        self.step(Function::HandleTrap);
    }

    /// Returns from EL2 to `pc` at EL1 in `function`: what `ERET` does.
    pub(super) fn leave_hyp(&self, function: Function, pc: u64, pstate: u64) {
        self.with_registers(|registers| {
            registers.pstate = pstate;
            registers.sp = layout::stack_pointer(self.number, false);
        });
        self.jump(function, pc);
    }

    /// Stands in hyp's panic for good.
    pub(super) fn panic(&self) {
        self.with_registers(|registers| {
            registers.pc = Function::HypPanic.address();
            registers.pstate = PSTATE_EL2H;
        });
        self.show();
    }
}

/// Physical memory as EL2 maps it.
fn at_hyp(pa: u64, size: u64) -> Region {
    Region {
        base: pa + LINEAR_OFFSET,
        size,
    }
}

impl TableMemory for SimCpu<'_> {
    fn read(&self, at: Pa) -> u64 {
        self.step(Function::GetLeaf);
        let word = self.shared.ram.lock().read_u64(at.get());
        word.unwrap_or_else(|| panic!("external abort: read of {at}, where there is no RAM"))
    }

    fn write(&self, at: Pa, word: u64) {
        let function = match self.shared.pools.hyp.contains(at) {
            true => Function::SetPage,
            false => Function::SetLeaf,
        };
        self.step_to_write(function, at_hyp(at.get(), 8));
        self.shared.unsettled.lock()[self.number] = true;
        if !self.shared.ram.lock().write(at.get(), &word.to_le_bytes()) {
            panic!("external abort: write of {at}, where there is no RAM");
        }
    }

    fn zero_page(&self, page: Pa) {
        self.step_to_write(Function::Alloc, at_hyp(page.get(), PAGE_SIZE));
        if !self.shared.ram.lock().zero_page(page.get()) {
            panic!("external abort: write of {page}, where there is no RAM");
        }
    }
}

impl Cpu for SimCpu<'_> {
    fn id(&self) -> u32 {
        self.number as u32
    }

    fn lock_taker(&self) -> u64 {
        let held = self.locks.get();
        self.locks.set(held + 1);
        // An abort takes the host's lock and a share also hyp's; what comes inside those is a pool's.
        let [host, hyp, ..] = layout::LOCKS.map(|lock| at_hyp(lock.pa, 4));
        match (self.cause.get(), held) {
            (Cause::Abort, 0) => self.step_to_write(Function::HostStage2Idmap, host),
            (Cause::Call, 0) => self.step_to_write(Function::PkvmHostShareHyp, host),
            (Cause::Call, 1) => self.step_to_write(Function::PkvmHostShareHyp, hyp),
            _ => self.step(Function::Alloc),
        }
        self.registers.borrow().pc
    }

    fn relax(&self) {
        self.step(Function::Lock);
    }

    fn wake(&self) {
        self.locks.set(self.locks.get() - 1);
    }

    fn publish(&self) {}

    fn invalidate_ipa(&self, _ipa: Ipa, _level: u8) {
        self.step(Function::InvalidateIpa);
        self.shared.count_invalidation();
    }

    fn invalidate_vmid(&self) {
        self.step(Function::InvalidateVmid);
        self.shared.count_invalidation();
    }
}
