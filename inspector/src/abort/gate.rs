//! Where a host comes under stage 2 for the first time: stopped there, nobody misses its first abort.

use super::error::FollowError;
use super::follow::{Follower, run};
use crate::image::Images;
use crate::target::{Breakpoint, Registers, RunState, Target};
use std::time::Duration;

/// hyp enters the host by it on each CPU, when that CPU's stage 2 is on. It runs where it is linked.
const HYP_GATE: &str = "enter_host";
/// Linux's EL1 calls it on each CPU, and it has EL2 put that CPU's stage 2 on.
const LINUX_GATE: &str = "_kvm_host_prot_finalize";
/// EL1's vectors, `VBAR_EL1`.
const VECTORS: &str = "vectors";
/// Linux slides by multiples of this.
const SLIDE: u64 = 0x1_0000;
/// More instructions than there are from a gate to where stage 2 is on.
const MAX_STEPS: usize = 20_000;
/// What tells whether a CPU's stage 2 is on.
const STAGE2: [&str; 2] = ["HCR_EL2", "VTTBR_EL2"];

/// Gates of the programs whose files are known.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Gates {
    /// Those that are where they are linked.
    fixed: Vec<u64>,
    /// Linux's, as its distance from the vectors.
    from_vectors: Option<u64>,
    /// Where the vectors are linked.
    vectors: u64,
}

impl Gates {
    /// The gates of programs with these files.
    pub fn of(images: &mut Images) -> Self {
        let symbols = images.symbols();
        let find = |name: &str| {
            let mut found = symbols.iter().filter(|symbol| symbol.name == name);
            found.next().map(|symbol| symbol.address)
        };
        let Some(vectors) = find(VECTORS) else {
            return Self {
                fixed: find(HYP_GATE).into_iter().collect(),
                ..Self::default()
            };
        };
        Self {
            from_vectors: find(LINUX_GATE).map(|gate| gate.wrapping_sub(vectors)),
            vectors,
            ..Self::default()
        }
    }

    /// Where they are now, as far as CPUs that stand so tell: Linux's, once the kernel has its vectors.
    fn places(&self, cpus: &[Registers]) -> Vec<u64> {
        let vectors = cpus.iter().filter_map(|cpu| cpu.get("VBAR_EL1"));
        // Before the MMU is on, and in trampolines, these are no vectors of a kernel that is slid.
        let is_slid = |at: &u64| {
            let slide = at.wrapping_sub(self.vectors);
            slide.is_multiple_of(SLIDE) && at >> 48 == self.vectors >> 48
        };
        let vectors = vectors.filter(is_slid).min();
        let slid = vectors.zip(self.from_vectors);
        let slid = slid.map(|(vectors, distance)| vectors.wrapping_add(distance));
        self.fixed.iter().copied().chain(slid).collect()
    }

    /// Lets a machine without a host under stage 2 run for `limit`, or until there is one. It stands afterwards.
    ///
    /// # Errors
    /// The link failed, or the machine has ended.
    pub fn wait(&self, target: &mut dyn Target, limit: Duration) -> Result<bool, FollowError> {
        let cpus = target.all_registers()?;
        let places = self.places(&cpus);
        let breakpoints: Vec<_> = places.iter().map(|at| Breakpoint::Code(*at)).collect();
        let control = run(target)?;
        // Where one is refused, it is looked again and again.
        let _ = control.insert_all(&breakpoints)?;
        control.resume()?;
        let state = control.wait(limit)?;
        control.interrupt()?;
        control.remove_all(&breakpoints)?;
        if state == RunState::Exited {
            let target = target.name().to_owned();
            return Err(FollowError::Ended { target });
        }
        let cpus = target.some_registers(&["pc"])?;
        let at_gate = |cpu: &Registers| cpu.get("pc").is_some_and(|pc| places.contains(&pc));
        if let Some(cpu) = cpus.iter().position(at_gate) {
            pass(target, cpu)?;
        }
        Follower::is_ready(target)
    }
}

/// Steps a CPU that stands at a gate until its stage 2 is on.
fn pass(target: &mut dyn Target, cpu: usize) -> Result<(), FollowError> {
    for _ in 0..MAX_STEPS {
        let registers = target.some_registers(&STAGE2)?;
        if registers
            .get(cpu)
            .is_some_and(super::follow::is_under_stage2)
        {
            break;
        }
        run(target)?.step(cpu)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINKED: u64 = 0xffff_8000_0801_0800;

    fn cpus(vectors: &[u64]) -> Vec<Registers> {
        let named = |at: &u64| Registers([("VBAR_EL1".to_owned(), *at)].into());
        vectors.iter().map(named).collect()
    }

    #[test]
    fn a_gate_of_linux_slides_with_its_vectors() {
        let gates = Gates {
            fixed: Vec::new(),
            from_vectors: Some(0x2_0000),
            vectors: LINKED,
        };
        let slid = LINKED + 0x1234_0000;
        for (vectors, places) in [
            (vec![LINKED], vec![LINKED + 0x2_0000]),
            (vec![slid], vec![slid + 0x2_0000]),
            // The others are off.
            (vec![0, slid, 0], vec![slid + 0x2_0000]),
            // Out of reset; before the MMU is on; a trampoline's.
            (vec![0, 0], vec![]),
            (vec![0x4021_0800], vec![]),
            (vec![slid + 0x800], vec![]),
        ] {
            assert_eq!(gates.places(&cpus(&vectors)), places, "{vectors:x?}");
        }
    }

    #[test]
    fn a_gate_of_hyp_is_where_it_is_linked() {
        let gates = Gates {
            fixed: vec![0x40_4020_1000],
            ..Gates::default()
        };
        assert_eq!(gates.places(&cpus(&[0])), [0x40_4020_1000]);
    }
}
