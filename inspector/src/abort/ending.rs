//! What became of a trap, by where its CPU went on.

use super::following::{Following, host_lock};
use super::trap::HOST_STAGE2;
use super::{Injected, Outcome, Place};
use crate::addr::Span;
use crate::arch::walk::End;
use crate::model::System;
use crate::target::Registers;

/// Offsets of a host's vectors for synchronous exceptions, from `VBAR_EL1`.
const HOST_VECTORS: [u64; 4] = [0, 0x200, 0x400, 0x600];
/// `SPSR_EL2.M[3:2]` of an exception that was taken from EL2.
const EL2: u64 = 2;

impl Following {
    /// What it means that the CPU goes on there.
    pub(super) fn outcome(&self, after: &System, registers: &Registers, to: Place) -> Outcome {
        let host = self.story.host.pc;
        let is_call = self.story.fault().is_none();
        if to.pc == host && !is_call {
            return self.tried_again(after);
        }
        match self.story.from {
            _ if to.pc == host => Outcome::Returned,
            _ if !is_call && to.pc == host.wrapping_add(4) => Outcome::Emulated,
            _ if HOST_VECTORS.contains(&(to.pc & 0x7ff)) => Outcome::Refused {
                exception: injected(registers, to.pc),
                branch: None,
            },
            _ => Outcome::Left { to },
        }
    }

    /// The host tries the access once more.
    fn tried_again(&self, after: &System) -> Outcome {
        let gave_up = Outcome::GaveUp { branch: None };
        let Some(ipa) = self.ipa() else {
            return gave_up;
        };
        let own = self.story.writes.iter().find_map(|write| {
            let new = write.new.as_ref()?;
            let is_leaf = new.descriptor.attributes.is_some();
            let leaf = Span::new(write.ia, write.size);
            let is_it = write.regime == HOST_STAGE2 && is_leaf && leaf.contains(ipa);
            is_it.then_some((leaf, write.level))
        });
        if let Some((leaf, level)) = own {
            return Outcome::Mapped { leaf, level };
        }
        let end = |system: &System| {
            let host = system
                .regimes
                .iter()
                .find(|regime| regime.name == HOST_STAGE2);
            host.map(|host| host.translate(ipa).end)
        };
        let tickets = |system| host_lock(system).and_then(|lock| lock.tickets);
        let was_locked = tickets(&self.before).map(|t| t.next) != tickets(after).map(|t| t.next);
        match end(after) {
            Some(End::Mapped { size, .. }) => Outcome::AlreadyMapped {
                leaf: Some(Span::new(ipa & !(size - 1), size)),
                by: None,
            },
            // It came under the lock and mapped nothing, so it found a mapping, which is being changed again.
            _ if was_locked && self.sees_mapping => Outcome::AlreadyMapped {
                leaf: None,
                by: None,
            },
            _ => gave_up,
        }
    }
}

/// What the host is made to take, with EL1's registers as they stand at the return.
fn injected(registers: &Registers, to: u64) -> Injected {
    let get = |name| registers.get(name);
    Injected {
        vector: Some(get("VBAR_EL1").map_or(to & 0x7ff, |vbar| to.wrapping_sub(vbar))),
        esr: get("ESR_EL1"),
        far: get("FAR_EL1"),
        elr: get("ELR_EL1"),
    }
}

/// Where a hypervisor that stands at its panic was when an exception of its own took it there, such as the BRK of a BUG;
/// `None` where the last exception is the host's, so that the panic was called.
pub(super) fn panicked_at(registers: &Registers) -> Option<u64> {
    let from = registers.get("SPSR_EL2")? >> 2 & 3;
    registers.get("ELR_EL2").filter(|_| from == EL2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_where_its_exception_came_from_if_that_is_the_hypervisors() {
        let at = |spsr, elr| {
            let named = [("SPSR_EL2", spsr), ("ELR_EL2", elr)];
            let registers = named.map(|(name, value)| (name.to_owned(), value));
            panicked_at(&Registers(registers.into()))
        };
        // EL2h, EL1h with PAN and flags, EL0.
        assert_eq!(at(0x6000_03c9, 0x82c0_e0dc_30e8), Some(0x82c0_e0dc_30e8));
        assert_eq!(at(0x6040_03c5, 0xffff_8000_0800_0000), None);
        assert_eq!(at(0, 0x21_2bb4), None);
        assert_eq!(panicked_at(&Registers::default()), None);
    }
}
