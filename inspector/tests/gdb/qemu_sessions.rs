//! Sessions of the real gdb with hyp's own debugger, as its users have them, on each CPU model.
//!
//! A machine and its host run for ever, so a session is ordered by what the host does: before each that has to know where
//! its CPUs are, the machine is stopped where a round of the host's ends ([`ROUND_ENDS`]). No CPU is inside EL2 then.

mod asking;
mod breaking;
mod coming_and_going;
mod interrupting;
pub(crate) mod program;
mod session;
mod stepping;
mod watching;

use fixtures::qemu::{Boot, Cpu, Machine};
use program::Program;
use std::time::Duration;

/// Longer than a busy computer takes.
const PATIENT: Duration = Duration::from_secs(100);
const CPUS: usize = 4;

/// Stops CPU 0 when it reports a round.
const ROUND_ENDS: &str = "tbreak hyp_host::rounds::report";
/// Says how many rounds there were.
const ROUNDS: &str = "output hyp_host::rounds::HOST.rounds.v.value";

/// A running machine, and what runs on it.
struct Bench {
    machine: Machine,
    hyp: Program,
    host: Program,
}

impl Bench {
    fn new(cpu: Cpu) -> Self {
        let boot = Boot::hyp().expect("the image builds");
        let boot = boot.cpu(cpu).cpus(CPUS as u32).channel();
        let mut machine = boot.start().expect("QEMU starts");
        let image = machine.image().clone();
        machine
            .wait_for("round 2 done", PATIENT)
            .expect("the host runs");
        Self {
            machine,
            hyp: Program::read(&image.hyp),
            host: Program::read(&image.host),
        }
    }

    /// VA − PA of all that hyp maps at its fixed offset.
    fn linear(&self) -> u64 {
        self.hyp.address("OFFSET")
    }

    /// Waits until the host is well beyond `rounds`, the number of its rounds when it stood; returns what it says then.
    fn goes_on(&mut self, rounds: u64) -> String {
        let done = format!("round {} done", rounds + 2);
        let line = self.machine.wait_for(&done, PATIENT);
        line.expect("the host goes on")
    }
}

/// The tests of each CPU model.
macro_rules! on_each_model {
    ($($item:ident::$session:ident,)*) => {
        on_each_model!(cortex_a57 CortexA57, $($item::$session,)*);
        on_each_model!(neoverse_n1 NeoverseN1, $($item::$session,)*);
        on_each_model!(max Max, $($item::$session,)*);
    };
    ($name:ident $model:ident, $($item:ident::$session:ident,)*) => {
        mod $name {
            $(#[test]
            fn $session() {
                super::$item::$session(super::Bench::new(super::Cpu::$model));
            })*
        }
    };
}

on_each_model! {
    breaking::breakpoints_stop_hyp_and_its_host,
    coming_and_going::clients_come_and_go,
    interrupting::ctrl_c_stops_every_cpu,
    stepping::steps_are_single,
    watching::watchpoints_stop_where_it_is_written,
    asking::questions_are_answered,
}
