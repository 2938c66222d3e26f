//! The ticket lock under every order of steps the memory model allows:
//! `RUSTFLAGS="--cfg loom" cargo test -p hyp --release --test lock_loom`.
#![cfg(loom)]

use hyp::addr::{Ipa, Pa};
use hyp::cpu::{Cpu, TableMemory};
use hyp::lock::{NO_CPU, TicketLock};
use loom::cell::UnsafeCell;
use loom::sync::{Arc, Notify};

/// A CPU and every CPU's event register: `relax` is WFE and waits until its own is set, `wake` is SEV and sets
/// all. So the model also finds a wake-up that is lost.
struct LoomCpu {
    id: u32,
    events: Arc<Vec<Notify>>,
}

impl TableMemory for LoomCpu {
    fn read(&self, _: Pa) -> u64 {
        unreachable!("a lock reads no tables")
    }

    fn write(&self, _: Pa, _: u64) {
        unreachable!("a lock writes no tables")
    }
}

impl Cpu for LoomCpu {
    fn id(&self) -> u32 {
        self.id
    }

    fn lock_taker(&self) -> u64 {
        0x1000 + u64::from(self.id)
    }

    fn relax(&self) {
        self.events[self.id as usize].wait();
    }

    fn wake(&self) {
        for event in self.events.iter() {
            event.notify();
        }
    }

    fn publish(&self) {}

    fn invalidate_ipa(&self, _: Ipa, _: u8) {}

    fn invalidate_vmid(&self) {}
}

/// What the lock guards: loom reports two threads in here at once as an error of the model.
struct Shared {
    lock: TicketLock,
    value: UnsafeCell<u32>,
}

/// Each CPU adds 1 `times` times, under the lock.
fn cpus_add(cpus: u32, times: u32, first_ticket: u16) {
    let mut builder = loom::model::Builder::new();
    // CPUs that wait do not count. Without a bound three CPUs take hours.
    builder.preemption_bound = Some(2);
    builder.check(move || {
        let shared = Arc::new(Shared {
            lock: TicketLock::with_tickets(first_ticket),
            value: UnsafeCell::new(0),
        });
        let events = Arc::new((0..cpus).map(|_| Notify::new()).collect::<Vec<_>>());
        let threads: Vec<_> = (0..cpus)
            .map(|id| {
                let shared = Arc::clone(&shared);
                let cpu = LoomCpu {
                    id,
                    events: Arc::clone(&events),
                };
                loom::thread::spawn(move || {
                    for _ in 0..times {
                        let _held = shared.lock.lock(&cpu);
                        assert!(shared.lock.is_held_by(&cpu));
                        shared.value.with_mut(|value| {
                            // SAFETY: this CPU holds the lock, so no other is here; loom checks exactly that.
                            unsafe { *value += 1 }
                        });
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        // SAFETY: all threads are joined.
        let value = shared.value.with(|value| unsafe { *value });
        assert_eq!(value, cpus * times);
        let state = shared.lock.state();
        let end = first_ticket.wrapping_add((cpus * times) as u16);
        assert_eq!(
            (state.owner, state.next, state.holder, state.taker),
            (end, end, NO_CPU, 0)
        );
    });
}

#[test]
fn two_cpus_exclude_each_other() {
    cpus_add(2, 2, 0);
}

#[test]
fn three_cpus_exclude_each_other() {
    cpus_add(3, 1, 0);
}

/// One CPU releases ticket 0xffff while another draws the next: neither half may carry into the other.
#[test]
fn tickets_wrap_without_carry() {
    cpus_add(2, 2, 0xffff);
    cpus_add(2, 2, 0xfffe);
}
