//! Breakpoints: in hyp, in its host, where none may be, and the host's own.

use super::program::HVC;
use super::session::{
    HIDE_PACKETS, RESUMED, SHOW_PACKETS, Session, assert_says, behind, number, register, said,
    session,
};
use super::{Bench, CPUS, ROUND_ENDS, ROUNDS};

/// Exception classes in ESR_EL2, bits 31:26: HVC, and a data abort from a lower level.
const EC_HVC: u64 = 0x16;
const EC_DATA_ABORT: u64 = 0x24;

pub(crate) fn breakpoints_stop_hyp_and_its_host(mut bench: Bench) {
    a_hypercall_is_traced_into_the_host(&bench);
    a_stop_shows_locks_and_the_trap(&bench);
    a_trap_is_older_than_the_client(&mut bench);
    an_abort_shows_what_was_accessed(&bench);
    both_kinds_stop_at_both_levels(&bench);
    hardware_has_only_so_many(&bench);
    memory_has_only_so_many(&mut bench);
    none_is_set_in_the_code_that_stops_cpus(&mut bench);
    the_debugger_does_not_stop_itself(&mut bench);
    the_hosts_own_are_the_hosts(&mut bench);
}

fn a_hypercall_is_traced_into_the_host(bench: &Bench) {
    let [_, stop, trace, finish, again, out, trace_of_exit] = session(
        &bench.machine,
        [
            "tbreak hyp::init::Hyp::pkvm_host_share_hyp",
            "continue",
            "backtrace",
            "finish",
            "up",
            "finish",
            "backtrace",
        ],
    );
    assert_says(&stop, &["hit Temporary breakpoint", "pkvm_host_share_hyp"]);
    assert_says(
        &trace,
        &[
            "#0  hyp::init::Hyp::pkvm_host_share_hyp",
            "hyp::init::Hyp::handle_host_hcall",
            "hyp::init::Hyp::handle_trap",
            "hyp_image::vectors::host_sync",
            "<signal handler called>",
            "hyp_host::rounds::",
            "hyp_host::rounds::host_main",
        ],
    );
    assert!(trace.ends_with("in host_start ()"), "{trace}");
    assert_says(
        &finish,
        &["Value returned", "Result<(), hyp::errno::Errno>"],
    );
    assert_says(&again, &["#1 ", "handle_trap"]);
    assert_says(&out, &["host_sync"]);
    assert_says(
        &trace_of_exit,
        &["#0 ", "<signal handler called>", "host_main"],
    );
}

/// Where a page is shared, both locks are held.
fn a_stop_shows_locks_and_the_trap(bench: &Bench) {
    let [.., thread, trace, _, locals, locks, esr, elr] = session(
        &bench.machine,
        [
            "tbreak hyp::init::Hyp::pkvm_create_mappings_locked",
            "continue",
            "output $_thread",
            "backtrace",
            "frame function hyp::init::Hyp::share",
            "info locals",
            "monitor locks",
            "info registers ESR_EL2",
            "info registers ELR_EL2",
        ],
    );
    // What the host asked for is what hyp is about.
    let page = behind(&trace, "hyp_host::rounds::share (page=");
    assert_eq!(behind(&locals, "base: hyp::addr::Pa ("), page);
    expect_held(&locks, &["host", "hyp"], number(&thread) - 1);
    assert_eq!(register(&esr) >> 26, EC_HVC);
    assert_eq!(bench.host.instruction(register(&elr) - 4), HVC.0);
}

/// The host's lock is made to look held, so that the next client finds each CPU where it waits for it: the first thing
/// in a round is a device that hyp emulates. Then it is given back.
fn a_trap_is_older_than_the_client(bench: &mut Bench) {
    let [locks] = session(&bench.machine, ["monitor locks"]);
    let lock = behind(&locks, "host      ") + bench.linear();
    let change =
        |by: u64| format!("set var *({lock:#x} as *mut u32) = *({lock:#x} as *mut u32) + {by:#x}");
    let [.., rounds] = session(
        &bench.machine,
        [ROUND_ENDS, "continue", &change(1 << 16), ROUNDS],
    );
    let waiting = format!("held, waiters {CPUS}, holder not recorded yet");
    while !session(&bench.machine, ["monitor locks"])[0].contains(&waiting) {}
    let [before, _, _, stop, after] = session(
        &bench.machine,
        [
            "info registers ESR_EL2",
            &change(1),
            "tbreak hyp_image::vectors::take_over",
            "continue",
            "info registers ESR_EL2",
        ],
    );
    assert_says(&stop, &["hit Temporary breakpoint"]);
    for esr in [before, after] {
        assert_eq!(register(&esr) >> 26, EC_DATA_ABORT);
    }
    bench.goes_on(number(&rounds));
}

/// An access to RAM that hyp is about to map, under the host's lock.
fn an_abort_shows_what_was_accessed(bench: &Bench) {
    let [.., thread, trace, locks, esr, elr, far, hpfar, _, pc] = session(
        &bench.machine,
        [
            "tbreak hyp::init::Hyp::host_stage2_idmap_locked if $ESR_EL2 >> 26 == 0x24 && $HPFAR_EL2 >= 0x400000",
            "continue",
            "output $_thread",
            "backtrace",
            "monitor locks",
            "info registers ESR_EL2",
            "info registers ELR_EL2",
            "info registers FAR_EL2",
            "info registers HPFAR_EL2",
            "frame function hyp_host::machine::write",
            "output/x $pc",
        ],
    );
    assert_says(
        &trace,
        &[
            "#0  hyp::init::Hyp::host_stage2_idmap_locked",
            "hyp::init::Hyp::host_stage2_idmap ",
            "handle_host_mem_abort",
        ],
    );
    let address = behind(&trace, "hyp_host::machine::write (address=");
    expect_held(&locks, &["host"], number(&thread) - 1);
    assert_eq!(register(&esr) >> 26, EC_DATA_ABORT);
    // HPFAR_EL2 has bits 47:12 of the address in 43:4.
    assert_eq!(register(&hpfar) << 8 | register(&far) & 0xfff, address);
    assert_eq!(register(&elr), number(&pc));
}

/// Which locks are held, by this CPU; the others are free.
fn expect_held(locks: &str, held: &[&str], cpu: u64) {
    for lock in locks.lines() {
        let name = lock.split_whitespace().next().unwrap_or_default();
        let by = format!("by CPU {cpu} at ");
        let says = if held.contains(&name) { &by } else { " free" };
        assert!(lock.contains(says), "no{says:?} in {lock}");
    }
    assert_says(locks, held);
}

fn both_kinds_stop_at_both_levels(bench: &Bench) {
    let hypercall = bench.host.find(HVC, bench.host.address("host_main"));
    for (place, level) in [(bench.hyp.address("host_sync"), 2), (hypercall, 1)] {
        for kind in ["break", "hbreak"] {
            let order = format!("{kind} *{place:#x}");
            let [.., pc, thread, threads, _, other] = session(
                &bench.machine,
                [
                    &order,
                    "continue",
                    "output/x $pc",
                    "output $_thread",
                    "info threads",
                    "continue",
                    "output/x $pc",
                ],
            );
            assert_eq!(number(&pc), place);
            let stopped = format!("(CPU {} EL{level})", number(&thread) - 1);
            let here = threads.lines().find(|line| line.starts_with('*'));
            assert_says(here.unwrap_or_default(), &[&stopped]);
            // It goes on from a breakpoint to the next.
            assert_eq!(number(&other), place);
        }
    }
}

/// Each of the models has six.
fn hardware_has_only_so_many(bench: &Bench) {
    let begin = bench.host.address("host_main");
    let mut orders: Vec<_> = (0..7)
        .map(|n| format!("hbreak *{:#x}", begin + 4 * n))
        .collect();
    orders.extend(["continue", "delete 1", ROUND_ENDS, "continue"].map(str::to_owned));
    let orders: Vec<_> = orders.iter().map(String::as_str).collect();
    let said = Session::start(&bench.machine, &orders).finish();
    assert_says(
        &said[7],
        &["You may have requested too many hardware breakpoints"],
    );
    assert_says(&said[10], &["hit Temporary breakpoint"]);
}

/// hyp has room for so many. One more is refused, and with it that CPUs go on; those that go make room.
fn memory_has_only_so_many(bench: &mut Bench) {
    const ROOM: usize = 64;
    /// Memory of the host's that it never executes.
    const DATA: usize = 0x4320_0000;
    let mut orders: Vec<_> = (0..=ROOM)
        .map(|n| format!("break *{:#x}", DATA + 4 * n))
        .collect();
    orders
        .extend(["continue", "delete 64-65", ROUND_ENDS, "continue", "delete"].map(str::to_owned));
    orders.extend((0..=ROOM).map(|n| format!("maintenance packet Z0,{:x},4", DATA + 4 * n)));
    orders.push(ROUNDS.to_owned());
    let orders: Vec<_> = orders.iter().map(String::as_str).collect();
    let said = Session::start(&bench.machine, &orders).finish();
    let [refused, _, _, stop, _, packets @ .., rounds] = &said[ROOM + 1..] else {
        panic!("{said:?}");
    };
    assert_says(
        refused,
        &["Cannot insert breakpoint 65", "Command aborted."],
    );
    assert_says(stop, &["hit Temporary breakpoint"]);
    let (room, more) = packets.split_at(ROOM);
    assert!(
        room.iter().all(|said| said.contains("received: \"OK\"")),
        "{room:?}"
    );
    assert_says(&more[0], &["received: \"E1c\""]);
    bench.goes_on(number(rounds));
}

fn none_is_set_in_the_code_that_stops_cpus(bench: &mut Bench) {
    let names = [
        "el2_vectors",
        "attached_vectors",
        "attached_host_sync_entry",
        "own_sync_entry",
        "own_fiq_entry",
        "debugger_fiq",
        "switch_context",
    ];
    let mut orders = vec![ROUNDS.to_owned()];
    for name in names {
        let place = bench.hyp.address(name);
        for kind in ["break", "hbreak"] {
            orders.push(format!("{kind} *{place:#x}"));
            orders.extend(["continue", "delete"].map(str::to_owned));
        }
    }
    orders.push(ROUNDS.to_owned());
    let orders: Vec<_> = orders.iter().map(String::as_str).collect();
    let said = Session::start(&bench.machine, &orders).finish();
    let (software, hardware) = (
        "Cannot insert breakpoint",
        "Cannot insert hardware breakpoint",
    );
    for answers in said[1..].chunks_exact(6) {
        assert_says(&answers[1], &[software, "Command aborted."]);
        assert_says(&answers[4], &[hardware, "Command aborted."]);
    }
    assert_eq!(said[0], said[orders.len() - 1], "it did not run");
    bench.goes_on(number(&said[0]));
}

/// It compares names with the function that hyp compares them with.
fn the_debugger_does_not_stop_itself(bench: &mut Bench) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("stats");
    let get = format!("remote get hyp/stats {}", file.display());
    let order = format!("break *{:#x}", bench.hyp.address("memcmp"));
    let [.., first, stats, second, locks, _, third, _, rounds] = session(
        &bench.machine,
        [
            &order,
            "continue",
            "backtrace",
            "monitor stats",
            "continue",
            "monitor locks",
            &get,
            "continue",
            "delete",
            ROUNDS,
        ],
    );
    assert_says(
        &first,
        &[
            "memcmp",
            "hyp::init::Hyp::",
            "hyp_image::vectors::host_sync",
            "<signal handler called>",
        ],
    );
    for stop in [&second, &third] {
        assert_says(stop, &["hit Breakpoint 1"]);
    }
    assert_says(&stats, &["aborts mapped: "]);
    assert_says(&locks, &["host ", "hyp "]);
    let got = std::fs::read_to_string(&file).expect("the file");
    assert_says(&got, &["aborts mapped: "]);
    bench.goes_on(number(&rounds));
}

/// The host breaks once a round on each CPU, and goes on by its own handler.
fn the_hosts_own_are_the_hosts(bench: &mut Bench) {
    let mut gdb = Session::start(
        &bench.machine,
        &[
            ROUND_ENDS,
            "continue",
            ROUNDS,
            SHOW_PACKETS,
            "continue",
            HIDE_PACKETS,
            ROUND_ENDS,
            "continue",
            ROUNDS,
            "output hyp_host::machine::BREAKS.v.value",
        ],
    );
    gdb.wait_for(RESUMED);
    let said_so_far = gdb.wait_for_command(4);
    bench.goes_on(number(&said_so_far[2]));
    gdb.interrupt();
    let [.., stop, _, _, _, rounds, breaks] = said::<10>(gdb);
    assert_says(&stop, &["SIGINT"]);
    assert!(!stop.contains("SIGTRAP"), "{stop}");
    assert!(number(&rounds) >= number(&said_so_far[2]) + 2);
    assert_eq!(number(&breaks), CPUS as u64 * number(&rounds));
}
