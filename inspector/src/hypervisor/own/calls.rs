//! The calls that led to where the CPUs are.
//!
//! hyp's entries from the host set x29 to 0, so the chain of EL2's frame records ends there. What the host was doing, they
//! keep at the top of the CPU's stack, in a `Frame`: `hyp/image/src/vectors.rs` has the same numbers.

use super::super::calls::{Activation, Code, Stack, interrupted as place, running};
use super::super::memory::{Memory, NotYet};
use crate::addr::Span;
use crate::arch::regime::{IdRegisters, Regime};
use crate::image::Images;
use crate::model::{Cpu, Frame, RegimeCapture, Symbols};
use crate::target::{Registers, Target, TargetError};

/// Bytes of the host's saved registers, and where ELR_EL2 and SPSR_EL2 are in them; x0 to x30 come first.
const FRAME: u64 = 320;
const ELR: u64 = 248;
const SPSR: u64 = 256;

/// No stack is larger: each has 16 KiB and an unmapped guard on both sides.
const MAX_STACK: u64 = 64 << 10;

/// Adds their calls to the CPUs, by EL2's captured tables and the host's own. Memory that cannot be read ends a chain.
///
/// # Errors
/// The link failed.
pub(in crate::hypervisor) fn add(
    target: &mut dyn Target,
    images: &mut Images,
    symbols: &Symbols,
    regimes: &[RegimeCapture],
    cpus: &mut [Cpu],
) -> Result<(), TargetError> {
    let mut memory = Memory::new(target);
    if let Some(hyp) = regimes.iter().find(|regime| regime.name == "hyp-s1") {
        memory.know_hyp(hyp.regime.clone(), &hyp.tables);
    }
    let code = &mut Code {
        symbols,
        rules: &mut |linked| images.rules(linked),
    };
    let calls = memory.complete(|memory| {
        let calls = cpus.iter().map(|cpu| follow(memory, code, cpu));
        // All of them ask before one gives up.
        let calls: Vec<_> = calls.collect();
        calls.into_iter().collect::<Result<Vec<_>, _>>()
    })?;
    for (cpu, calls) in cpus.iter_mut().zip(calls) {
        cpu.calls = calls;
    }
    Ok(())
}

fn follow(memory: &mut Memory<'_>, code: &mut Code<'_>, cpu: &Cpu) -> Result<Vec<Frame>, NotYet> {
    let registers = &cpu.registers;
    let Some(pc) = cpu.pc else {
        return Ok(Vec::new());
    };
    let at = running(pc, registers);
    match cpu.el {
        Some(1) => host(memory, code, at, registers),
        Some(2) => {
            let (hyp, host) = (
                hyp(memory, code, at, registers),
                interrupted(memory, code, at, registers),
            );
            Ok(hyp?.into_iter().chain(host?).collect())
        }
        _ => Ok(Vec::new()),
    }
}

/// EL2's stack from the stack pointer on, and whether its end is known.
fn stack(memory: &mut Memory<'_>, registers: &Registers) -> Result<Option<(Span, bool)>, NotYet> {
    let (Some(sp), Some(page)) = (
        registers.get("sp"),
        memory.hyp.as_ref().map(|hyp| hyp.granule.bytes()),
    ) else {
        return Ok(None);
    };
    // An empty stack's pointer is in the guard above it.
    let first = sp.wrapping_sub(1) & !(page - 1);
    let mut top = first;
    while memory.phys_of_hyp(top)?.is_some() {
        top = top.wrapping_add(page);
        // The stack of the start has no guard.
        if top.wrapping_sub(sp) > MAX_STACK {
            return Ok(Some((Span::new(sp, MAX_STACK), false)));
        }
    }
    Ok((top != first).then(|| (Span::new(sp, top.wrapping_sub(sp)), true)))
}

/// The calls on EL2's stack.
fn hyp(
    memory: &mut Memory<'_>,
    code: &mut Code<'_>,
    mut at: Activation,
    registers: &Registers,
) -> Result<Vec<Frame>, NotYet> {
    let Some((limits, _)) = stack(memory, registers)? else {
        return Ok(Vec::new());
    };
    // In the entries and on the way out it is the host's.
    if let Some(x30) = at.x[30]
        && memory.phys_of_hyp(x30)?.is_none()
    {
        at.x[30] = None;
    }
    let regime = memory.hyp.clone();
    Stack {
        memory,
        regime,
        limits,
        boundary: None,
    }
    .frames(code, at)
}

/// Where the host was when it came to EL2, and the calls that led there.
fn interrupted(
    memory: &mut Memory<'_>,
    code: &mut Code<'_>,
    at: Activation,
    registers: &Registers,
) -> Result<Vec<Frame>, NotYet> {
    let Some((limits, true)) = stack(memory, registers)? else {
        return Ok(Vec::new());
    };
    let Some((at, spsr)) = saved(memory, limits, at, registers)? else {
        return Ok(Vec::new());
    };
    let mut frames = vec![Frame::interrupted(at.pc, code.name_of(at.pc))];
    // What runs at EL0 has a stack of its own.
    if level(spsr) == 1 {
        frames.extend(host(memory, code, at, registers)?);
    }
    Ok(frames)
}

/// The exception level in a SPSR_EL2: M\[3:2\].
fn level(spsr: u64) -> u64 {
    spsr >> 2 & 3
}

/// What the host was doing that came to EL2, and its PSTATE.
fn saved(
    memory: &mut Memory<'_>,
    limits: Span,
    at: Activation,
    registers: &Registers,
) -> Result<Option<(Activation, u64)>, NotYet> {
    let taken = registers.get("ELR_EL2").zip(registers.get("SPSR_EL2"));
    // hyp's own fault has overwritten them.
    let taken = taken.filter(|(_, spsr)| level(*spsr) < 2);
    let sp = |spsr: u64| registers.get(if spsr & 1 == 0 { "SP_EL0" } else { "SP_EL1" });
    // Before x29 is saved and after it is restored, it is the host's still.
    if limits.size == 0 || at.x[29] != Some(0) && limits.size == FRAME {
        return Ok(taken.map(|(pc, spsr)| {
            (
                Activation {
                    pc,
                    sp: sp(spsr),
                    ..at
                },
                spsr,
            )
        }));
    }
    // A CPU without such a stack has not come from the host.
    let Some(unused) = limits.size.checked_sub(FRAME) else {
        return Ok(None);
    };
    let frame = limits.start.wrapping_add(unused);
    let regime = memory.hyp.clone();
    let mut stack = Stack {
        memory,
        regime,
        limits,
        boundary: None,
    };
    let mut word = |offset| stack.word(frame.wrapping_add(offset));
    let (elr, spsr) = (word(ELR), word(SPSR));
    let (Some(pc), Some(spsr)) = (elr?, spsr?) else {
        return Ok(None);
    };
    // Before the CPU's host has come here for the first time. The embedded machine's stacks are empty for good: its PCs are a
    // model.
    if (pc, spsr) == (0, 0) {
        return Ok(None);
    }
    let mut saved = place(pc);
    for (n, x) in (0..).zip(&mut saved.x) {
        *x = word(n * 8)?;
    }
    saved.sp = sp(spsr);
    Ok(Some(match taken {
        // It is not saved yet, or changed already for the way back: only the place is sure.
        Some((elr, spsr)) if elr != pc => (place(elr), spsr),
        _ => (saved, spsr),
    }))
}

/// The calls on the host's stack. Its MMU is on or off; where nothing tells, addresses are those that the built-in host
/// uses: it maps VA = PA, as its stage 2 does. A memory dump has no registers of EL1, hyp's channel alone has none, and so a
/// snapshot from there has not the host's tables, though its `PARKED` says where they are.
fn host(
    memory: &mut Memory<'_>,
    code: &mut Code<'_>,
    at: Activation,
    registers: &Registers,
) -> Result<Vec<Frame>, NotYet> {
    let sctlr = registers.get("SCTLR_EL1");
    let regime = if sctlr.is_some_and(|sctlr| sctlr & 1 != 0) {
        let Some(regime) = lower_half(registers) else {
            return Ok(Vec::new());
        };
        let is_there = memory.read(regime.root_span())?.is_some();
        is_there.then_some(regime)
    } else {
        None
    };
    Stack {
        memory,
        regime,
        limits: Span::new(0, 1 << 55),
        boundary: None,
    }
    .frames(code, at)
}

/// The half of EL1's translation that the host uses.
fn lower_half(registers: &Registers) -> Option<Regime> {
    let get = |name| registers.get(name);
    let (ttbr0, tcr, sctlr) = (get("TTBR0_EL1")?, get("TCR_EL1")?, get("SCTLR_EL1")?);
    Regime::el1_stage1_lower(ttbr0, tcr, sctlr, IdRegisters::of(registers)).ok()
}

#[cfg(test)]
mod tests;
