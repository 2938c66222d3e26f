//! What following asks of a machine: breakpoints at its entries, registers, locks and tables as they are now.

use super::Missing;
use super::error::FollowError;
use super::follow::run;
use super::following::{Following, Look};
use super::plan::{HANDLER, Plan};
use crate::addr::Span;
use crate::arch::walk::{End, walk_together};
use crate::model::{System, Tickets};
use crate::target::{Breakpoint, Registers, Target, TargetError};

/// Sets breakpoints at the handler of aborts, if nothing but aborts is to be followed. It must have a symbol, and the server
/// room for it: otherwise none is set, and the answer is `false`.
pub(super) fn arm_handler(target: &mut dyn Target, plan: &mut Plan) -> Result<bool, FollowError> {
    let handlers: Vec<_> = plan.handlers().collect();
    for (set, handler) in handlers.iter().enumerate() {
        let Err(reason) = run(target)?.insert(Breakpoint::Code(*handler))? else {
            continue;
        };
        for handler in &handlers[..set] {
            run(target)?.remove(Breakpoint::Code(*handler))?;
        }
        plan.missing.push(Missing {
            function: format!("{HANDLER}, as the entry"),
            reason,
        });
        return Ok(false);
    }
    let is_armed = !handlers.is_empty();
    if is_armed {
        plan.entries = handlers;
    }
    Ok(is_armed)
}

/// Sets breakpoints at the vectors, or, where the server has none for them, at the function that they call.
pub(super) fn arm_vectors(target: &mut dyn Target, plan: &mut Plan) -> Result<(), FollowError> {
    for entry in plan.entries.clone() {
        let Err(reason) = run(target)?.insert(Breakpoint::Code(entry))? else {
            continue;
        };
        let name = target.name().to_owned();
        let refused = |reason| FollowError::NoEntry {
            target: name,
            entry,
            reason,
        };
        let Some(function) = plan.called_by_vector else {
            return Err(refused(reason));
        };
        if let Err(reason) = run(target)?.insert(Breakpoint::Code(function))? {
            return Err(refused(reason));
        }
        plan.missing.push(Missing {
            function: format!("the vector {entry:#x}"),
            reason,
        });
        plan.entries = vec![function];
        break;
    }
    Ok(())
}

/// Sets breakpoints where the hypervisor panics, whatever it did until then.
pub(super) fn arm_panic(target: &mut dyn Target, plan: &mut Plan) -> Result<(), FollowError> {
    for stop in plan.functions.iter().filter(|stop| stop.is_panic()) {
        if let Err(reason) = run(target)?.insert(Breakpoint::Code(stop.place.pc))? {
            plan.missing.push(Missing {
                function: stop.function.name.to_owned(),
                reason,
            });
        }
    }
    Ok(())
}

/// The registers of a CPU as the host left them: where it stands behind the vector, `x0` is where those were put.
pub(super) fn host_registers(
    target: &mut dyn Target,
    system: &System,
    frame: Option<u64>,
    registers: &Registers,
) -> Result<Registers, TargetError> {
    let hyp = system.regimes.iter().find(|regime| regime.name == "hyp-s1");
    let frame = frame.zip(hyp).map(|(va, hyp)| hyp.translate(va).end);
    let Some(End::Mapped { oa, .. }) = frame else {
        return Ok(registers.clone());
    };
    let mut found = registers.clone();
    if let Some(Ok(bytes)) = target.read_phys(&[Span::new(oa, 31 * 8)])?.pop() {
        let (words, _) = bytes.as_chunks::<8>();
        for (number, word) in words.iter().enumerate() {
            let name = format!("x{number}");
            found.0.insert(name, u64::from_le_bytes(*word));
        }
    }
    Ok(found)
}

/// Whether a CPU that stands at an `ERET` leaves EL2 by it: `SPSR_EL2.M[3:2]`.
pub(super) fn leads_below(registers: &Registers) -> bool {
    registers
        .get("SPSR_EL2")
        .is_none_or(|spsr| spsr >> 2 & 3 < 2)
}

/// The tickets of the lock at `pa`, as they are now.
pub(super) fn tickets(
    target: &mut dyn Target,
    pa: Option<u64>,
) -> Result<Option<Tickets>, TargetError> {
    let Some(pa) = pa else { return Ok(None) };
    let answer = target.read_phys(&[Span::new(pa, 4)])?.pop();
    let word = answer.and_then(Result::ok);
    let word = word.and_then(|bytes| Some(u32::from_le_bytes(*bytes.first_chunk()?)));
    Ok(word.map(Tickets::of_word))
}

/// All tables as they are now.
pub(super) fn look(target: &mut dyn Target, following: &Following) -> Result<Look, TargetError> {
    let regimes: Vec<_> = following
        .regimes()
        .iter()
        .map(|regime| &regime.regime)
        .collect();
    let mut read = |spans: &[Span]| target.read_phys(spans);
    walk_together(&regimes, &mut read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abort::follow::tests::plan;
    use crate::abort::testing::Machine;

    const VECTOR: u64 = 0x40_4020_0400;

    /// A handler of which there are two instances, and a panic.
    #[test]
    fn what_a_server_without_room_refuses_is_told() {
        let (handler, panic) = ("handle_host_mem_abort, as the entry", "hyp_panic");
        for (room, by_handler, missing) in [
            (3, true, &[][..]),
            (2, true, &[panic]),
            (1, false, &[handler]),
            (0, false, &[handler, panic]),
        ] {
            let mut machine = Machine::at(&[]);
            machine.room = room;
            let mut plan = plan();
            let mut second = plan.functions[0].clone();
            second.place.pc += 0x40;
            plan.functions.push(second);
            plan.entries = vec![VECTOR];
            plan.missing.clear();
            let handlers: Vec<_> = plan.handlers().collect();
            let is_armed = arm_handler(&mut machine, &mut plan).expect("the link holds");
            assert_eq!(is_armed, by_handler, "{room}");
            // The vectors, which are tried next, need the room.
            let (entries, set) = match by_handler {
                true => (handlers, 2),
                false => (vec![VECTOR], 0),
            };
            assert_eq!(plan.entries, entries, "{room}");
            assert_eq!(machine.breakpoints.len(), set, "{room}");
            arm_panic(&mut machine, &mut plan).expect("the link holds");
            assert_eq!(machine.breakpoints.len(), room);
            let functions = plan.missing.iter().map(|missing| missing.function.as_str());
            assert_eq!(functions.collect::<Vec<_>>(), missing, "{room}");
        }
    }
}
