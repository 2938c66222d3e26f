//! What the CPUs were doing: the names of their PCs, and the calls that led there.
//!
//! The host's stacks are mapped by the host, so its own tables are walked for them; what the host takes for physical is so,
//! since its stage 2 maps one to one.

use super::super::calls::{Activation, Code, Place, Stack, interrupted, running, upper};
use super::super::memory::{Memory, NotYet, little_endian};
use crate::addr::Span;
use crate::arch::regime::{Regime, vmid};
use crate::image::kernel::{Kernel, NVHE};
use crate::model::{Cpu, Frame, Symbols};
use crate::target::Registers;

/// No stack of EL2 is larger: it has one page, and the largest has 64 KiB.
const MAX_HYP_STACK: u64 = 64 << 10;

/// `SPSR_EL2.M[3:0]`: EL1 and EL2, each on its own stack pointer.
const EL1H: u64 = 5;
const EL2H: u64 = 9;

/// Where each CPU is.
pub(super) fn read(
    memory: &mut Memory<'_>,
    layout: Layout,
    code: &mut Code<'_>,
    cpus: &[Cpu],
) -> Result<Vec<Place>, NotYet> {
    let places = cpus.iter().map(|cpu| follow(memory, layout, code, cpu));
    // All of them ask before one gives up.
    let places: Vec<_> = places.collect();
    places.into_iter().collect()
}

/// Where registers are saved.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// Physical address of the template of the host's x29 and x30, as EL2 saves them on each entry, with those before them
    /// below; `sp` is not in it.
    context: Option<u64>,
    /// Offset of the frame record in the registers that the host's kernel saves of what an exception interrupts, where that
    /// record leads nowhere but says what it is: Linux 6.13, "arm64: stacktrace: unwind exception boundaries". Before, it
    /// led on like any other.
    boundary: Option<u64>,
}

impl Layout {
    /// Asks the kernel.
    pub(super) fn probe(memory: &Memory<'_>, kernel: &mut Kernel) -> Self {
        let boundary = kernel.field("pt_regs.stackframe");
        let boundary = boundary.filter(|record| record.size >= 24);
        Self {
            context: saved_host(memory, kernel),
            boundary: boundary.map(|record| record.offset),
        }
    }
}

fn saved_host(memory: &Memory<'_>, kernel: &mut Kernel) -> Option<u64> {
    let data = kernel.symbol(&format!("{NVHE}kvm_host_data"))?;
    // Since 6.8 or so it does not begin with the context any more.
    let regs = kernel.field("kvm_host_data.host_ctxt.regs")?;
    let x29 = data.start.wrapping_add(regs.offset).wrapping_add(29 * 8);
    Some(memory.phys_of_linked(x29))
}

fn follow(
    memory: &mut Memory<'_>,
    layout: Layout,
    code: &mut Code<'_>,
    cpu: &Cpu,
) -> Result<Place, NotYet> {
    let registers = &cpu.registers;
    let get = |name| registers.get(name);
    let (Some(pc), Some(el)) = (cpu.pc, cpu.el) else {
        return Ok((cpu.pc.and_then(|pc| code.name_of(pc)), Vec::new()));
    };
    // A guest has its own kernel, perhaps at the same addresses.
    let in_guest = match get("VTTBR_EL2") {
        Some(vttbr) => vmid(vttbr) != 0,
        None => memory.in_guest.contains(&cpu.number),
    };
    let at = running(pc, registers);
    match el {
        2 => {
            // In its vectors, the general registers are the host's still.
            let entering = at.x[29].is_some_and(upper);
            let own = match entering {
                true => Ok(Vec::new()),
                false => hyp(memory, code, at, registers),
            };
            let mut calls = Ok(Vec::new());
            let spsr = get("SPSR_EL2").unwrap_or(EL2H);
            if let (false, Some(elr), 0 | 1) = (in_guest, get("ELR_EL2"), spsr >> 2 & 3) {
                let saved = match (entering, spsr >> 2 & 3) {
                    (_, 0) => Ok([None; 31]),
                    (true, _) => Ok(at.x),
                    (false, _) => saved(memory, layout.context, registers),
                };
                calls = saved.and_then(|x| {
                    let sp = get("SP_EL1").filter(|_| spsr & 0xf == EL1H);
                    let at = Activation {
                        sp,
                        x,
                        ..interrupted(elr)
                    };
                    host(memory, layout, code, at, registers)
                });
            }
            let frames = own?.into_iter().chain(calls?);
            Ok((hyp_name(memory, code.symbols, pc)?, frames.collect()))
        }
        0 | 1 if in_guest => Ok((None, Vec::new())),
        1 => {
            let mut frames = host(memory, layout, code, at, registers)?.into_iter();
            let symbol = frames.next().and_then(|frame| frame.symbol);
            Ok((symbol, frames.collect()))
        }
        _ => Ok((None, Vec::new())),
    }
}

/// The name of a place in EL2's code, by any of the addresses it is mapped at: the vectors of guests have one more.
fn hyp_name(memory: &mut Memory<'_>, symbols: &Symbols, pc: u64) -> Result<Option<String>, NotYet> {
    let name = symbols.name_of(pc);
    let Some(offset) = memory.physvirt_offset.filter(|_| name.is_none()) else {
        return Ok(name);
    };
    let pa = memory.phys_of_hyp(pc)?;
    Ok(pa.and_then(|pa| symbols.name_of(pa.wrapping_sub(offset))))
}

/// The host's x19 to x30 as EL2 saved them.
fn saved(
    memory: &mut Memory<'_>,
    context: Option<u64>,
    registers: &Registers,
) -> Result<[Option<u64>; 31], NotYet> {
    let mut x = [None; 31];
    let Some((context, offset)) = context.zip(registers.get("TPIDR_EL2")) else {
        return Ok(x);
    };
    let x29 = context.wrapping_add(offset);
    // Apart: a snapshot may have just x29 and x30.
    let pieces = [Span::new(x29.wrapping_sub(80), 80), Span::new(x29, 16)];
    let answers = memory.read_all(&pieces)?;
    for (first, bytes) in [19, 29].into_iter().zip(answers) {
        let bytes = bytes.unwrap_or_default();
        let words = bytes.chunks_exact(8).map(little_endian);
        for (x, word) in x.iter_mut().skip(first).zip(words) {
            *x = Some(word);
        }
    }
    Ok(x)
}

/// The calls on EL2's stack.
fn hyp(
    memory: &mut Memory<'_>,
    code: &mut Code<'_>,
    at: Activation,
    registers: &Registers,
) -> Result<Vec<Frame>, NotYet> {
    let (Some(regime), Some(sp)) = (memory.hyp.clone(), registers.get("sp")) else {
        return Ok(Vec::new());
    };
    // At the bottom, x29 points to the saved registers of the host: that is no frame record.
    let limits = Span::new(sp, MAX_HYP_STACK);
    let stack = Stack {
        memory,
        regime: Some(regime),
        limits,
        boundary: None,
    };
    stack.frames(code, at)
}

/// Where the host's kernel is, and the calls on its stack; for its user space only the place.
fn host(
    memory: &mut Memory<'_>,
    layout: Layout,
    code: &mut Code<'_>,
    at: Activation,
    registers: &Registers,
) -> Result<Vec<Frame>, NotYet> {
    let mut frames = vec![Frame::interrupted(at.pc, code.name_of(at.pc))];
    let regime = Regime::el1_upper_of(registers).or_else(|| memory.host.clone());
    if let Some(regime) = regime.filter(|_| upper(at.pc)) {
        let limits = Span::new(1 << 63, u64::MAX);
        let stack = Stack {
            memory,
            regime: Some(regime),
            limits,
            boundary: layout.boundary,
        };
        frames.extend(stack.frames(code, at)?);
    }
    // What lies in the lower half is a user's, or EL2 has something else there.
    for frame in frames.iter_mut().filter(|frame| !upper(frame.pc)) {
        frame.symbol = None;
    }
    Ok(frames)
}

#[cfg(test)]
mod tests;
