//! Taking turns: of all simulated CPUs and their scheduler, one thread runs at a time.
//!
//! A CPU runs until its next [`Baton::yield_turn`]; that stretch is a step. Everybody else waits, so a run
//! depends on nothing but the order of turns, and a stopped machine is one where the scheduler has the baton.

use std::panic::resume_unwind;
use std::prelude::rust_2024::*;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Who may run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Turn {
    Scheduler,
    Cpu(usize),
    /// Nobody any more: every CPU's thread ends.
    End,
}

/// The baton.
#[derive(Debug)]
pub(super) struct Baton {
    turn: Mutex<Turn>,
    scheduler: Condvar,
    cpus: Vec<Condvar>,
}

/// What unwinds the stack of a CPU's thread when the machine ends.
struct Ended;

impl Baton {
    /// The scheduler has it.
    pub(super) fn new(cpus: usize) -> Self {
        Self {
            turn: Mutex::new(Turn::Scheduler),
            scheduler: Condvar::new(),
            cpus: (0..cpus).map(|_| Condvar::new()).collect(),
        }
    }

    /// Lets a CPU take one step and waits until it has. Only for the scheduler, and only for a CPU whose
    /// thread has not given its last turn back.
    pub(super) fn step(&self, cpu: usize) {
        let mut turn = self.pass(Turn::Cpu(cpu));
        while *turn != Turn::Scheduler {
            turn = wait(&self.scheduler, turn);
        }
    }

    /// Ends a step of `cpu` and waits for its next. Unwinds the thread when the machine ends.
    pub(super) fn yield_turn(&self, cpu: usize) {
        // While unwinding, guards release their locks: the thread is on its way out and needs no turn.
        if std::thread::panicking() {
            return;
        }
        drop(self.pass(Turn::Scheduler));
        self.wait_for_turn(cpu);
    }

    /// Waits for the first turn of `cpu`.
    pub(super) fn wait_for_turn(&self, cpu: usize) {
        let mut turn = self.locked();
        while *turn != Turn::Cpu(cpu) {
            if *turn == Turn::End {
                drop(turn);
                resume_unwind(Box::new(Ended));
            }
            turn = wait(&self.cpus[cpu], turn);
        }
    }

    /// Gives back the last turn of a CPU whose thread ends.
    pub(super) fn leave(&self) {
        let turn = self.locked();
        if *turn != Turn::End {
            drop(turn);
            drop(self.pass(Turn::Scheduler));
        }
    }

    /// Ends every CPU's thread. Only for the scheduler.
    pub(super) fn end(&self) {
        drop(self.pass(Turn::End));
    }

    fn pass(&self, to: Turn) -> MutexGuard<'_, Turn> {
        let mut turn = self.locked();
        *turn = to;
        match to {
            Turn::Scheduler => self.scheduler.notify_one(),
            Turn::Cpu(cpu) => self.cpus[cpu].notify_one(),
            Turn::End => self.cpus.iter().for_each(Condvar::notify_one),
        }
        turn
    }

    fn locked(&self) -> MutexGuard<'_, Turn> {
        // A turn is one word: a thread that panicked cannot have left it half changed.
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wait<'a>(condvar: &Condvar, turn: MutexGuard<'a, Turn>) -> MutexGuard<'a, Turn> {
    condvar.wait(turn).unwrap_or_else(PoisonError::into_inner)
}

/// Whether a caught panic is the end of the machine and not a fault of the CPU.
pub(super) fn is_end(panic: &(dyn std::any::Any + Send)) -> bool {
    panic.is::<Ended>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::thread;

    #[test]
    fn only_the_cpu_whose_turn_it_is_moves() {
        let baton = Baton::new(2);
        let log = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for cpu in 0..2 {
                let (baton, log) = (&baton, &log);
                scope.spawn(move || {
                    let end = catch_unwind(AssertUnwindSafe(|| {
                        baton.wait_for_turn(cpu);
                        for step in 0.. {
                            log.lock().unwrap().push((cpu, step));
                            baton.yield_turn(cpu);
                        }
                    }));
                    assert!(is_end(&*end.unwrap_err()));
                    baton.leave();
                });
            }
            for cpu in [1, 1, 0, 1, 0] {
                baton.step(cpu);
            }
            baton.end();
        });
        assert_eq!(
            log.into_inner().unwrap(),
            [(1, 0), (1, 1), (0, 0), (1, 2), (0, 1)]
        );
    }

    #[test]
    fn a_thread_that_leaves_gives_its_turn_back() {
        let baton = Baton::new(1);
        thread::scope(|scope| {
            scope.spawn(|| {
                baton.wait_for_turn(0);
                baton.leave();
            });
            baton.step(0);
            baton.end();
        });
    }
}
