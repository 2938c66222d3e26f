//! Lock assertions: when they fire, what they say, and the order of the locks.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};

use common::{FREE, Machine, Setup, page};
use hyp::desc::Prot;
use hyp::lock::NO_CPU;
use hyp::page_state::OwnerId;

/// What `action` says when it panics, and the file and line it names.
fn panic_of(action: impl FnOnce()) -> Option<(String, String)> {
    use std::sync::{Arc, Mutex};
    let place = Arc::new(Mutex::new(String::new()));
    let hook_place = Arc::clone(&place);
    let old = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let location = info.location().unwrap();
        *hook_place.lock().unwrap() = format!("{}:{}", location.file(), location.line());
    }));
    let result = catch_unwind(AssertUnwindSafe(action));
    std::panic::set_hook(old);
    let message = result.err()?.downcast::<String>().unwrap();
    let place = place.lock().unwrap().clone();
    Some((*message, place))
}

type Locked = (&'static str, fn(&Machine));

/// Every function whose caller must hold a lock, and the lock.
const LOCKED: [Locked; 3] = [
    ("host", |m| {
        let _ = m
            .hyp
            .host_stage2_idmap_locked(m.cpu(), page(FREE), Prot::RWX);
    }),
    ("host", |m| {
        let _ = m
            .hyp
            .host_stage2_set_owner_locked(m.cpu(), page(FREE), OwnerId::Hyp);
    }),
    ("hyp", |m| {
        let _ = m
            .hyp
            .pkvm_create_mappings_locked(m.cpu(), page(FREE), Prot::RW);
    }),
];

// One test, because the panic hook is the process's.
#[test]
fn assertions_fire_once_final_and_name_lock_and_place() {
    let started = |lock_checks| {
        Setup {
            lock_checks,
            ..Setup::default()
        }
        .start()
    };
    for (lock, call) in LOCKED {
        let machine = Setup::default().build().unwrap();
        assert_eq!(panic_of(|| call(&machine)), None, "{lock}: before finalise");

        let machine = started(false);
        assert_eq!(
            panic_of(|| call(&machine)),
            None,
            "{lock}: without lock checks"
        );

        let machine = started(true);
        let (message, place) = panic_of(|| call(&machine)).expect("no lock is held");
        assert!(
            message.starts_with(&format!("lock {lock} is not held by CPU 0")),
            "{message}"
        );
        assert!(
            place.contains("tests/locks.rs:"),
            "{place} is not the caller"
        );

        let (_host, _hyp) = (
            machine.hyp.lock_host(machine.cpu()),
            machine.hyp.lock_hyp(machine.cpu()),
        );
        assert_eq!(panic_of(|| call(&machine)), None, "{lock}: held");
    }

    // Held, but by another CPU.
    let machine = started(true);
    let _host = machine.hyp.lock_host(&machine.cpus[2]);
    let (message, _) = panic_of(|| LOCKED[0].1(&machine)).expect("the lock is another CPU's");
    assert!(
        message.contains("is not held by CPU 0") && message.contains("holder: 2"),
        "{message}"
    );

    // The order.
    let machine = started(true);
    let _hyp = machine.hyp.lock_hyp(machine.cpu());
    let (message, _) =
        panic_of(|| drop(machine.hyp.lock_host(machine.cpu()))).expect("wrong order");
    assert_eq!(message, "CPU 0 takes lock host while it holds hyp");
    let (message, _) = panic_of(|| drop(machine.hyp.lock_hyp(machine.cpu()))).expect("twice");
    assert_eq!(message, "CPU 0 takes lock hyp while it holds hyp");
}

#[test]
fn the_record_says_who_holds_a_lock_and_where_it_was_taken() {
    let machine = Machine::start();
    let [(_, host), ..] = machine.hyp.locks();
    let idle = host.state();
    assert_eq!(
        (idle.owner, idle.holder, idle.taker),
        (idle.next, NO_CPU, 0)
    );
    let held = machine.hyp.lock_host(&machine.cpus[3]);
    let state = host.state();
    assert_eq!((state.holder, state.taker), (3, 0x40_4020_0003));
    assert_eq!(state.next, state.owner.wrapping_add(1));
    drop(held);
    let after = host.state();
    assert_eq!((after.owner, after.next), (state.next, state.next));
    assert_eq!((after.holder, after.taker), (NO_CPU, 0));
}

#[test]
fn locks_have_the_names_documents_use() {
    let machine = Machine::start();
    assert_eq!(
        machine.hyp.locks().map(|(name, _)| name),
        ["host", "hyp", "host-pool", "hyp-pool"]
    );
}
