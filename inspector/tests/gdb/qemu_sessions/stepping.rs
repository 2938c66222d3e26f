//! Steps, inside hyp and in its host.

use super::program::{BL, HVC, LDR, STR};
use super::session::{Session, assert_says, behind, number, session};
use super::{Bench, CPUS, ROUND_ENDS, ROUNDS};

/// `__pkvm_host_share_hyp` with SMCCC's prefix of a fast 64-bit call, and what it says of a page that is no memory.
const SHARE_HYP: u64 = 0xc600_0010;
const EINVAL: u64 = 0_u64.wrapping_sub(22);
/// RAM that the host has not touched.
const UNTOUCHED: u64 = 0x4800_0000;
/// Where hyp is loaded.
const HYP: u64 = 0x4020_0000;
/// From a vector table to the entry for exceptions of the same level on its own stack.
const SAME_LEVEL: u64 = 0x200;

pub(crate) fn steps_are_single(mut bench: Bench) {
    instructions_follow_each_other(&bench);
    lines_follow_each_other(&bench);
    others_stand_while_the_scheduler_is_locked(&bench);
    others_run_while_it_is_not(&bench);
    a_step_ends_where_it_would_wait_for_one_that_stands(&mut bench);
    a_call_is_stepped_over(&bench);
    the_way_out_of_hyp_ends_in_the_host(&mut bench);
    the_host_steps_over_what_hyp_does_for_it(&mut bench);
}

/// At both levels, and where no CPU would wait for one that stands.
fn instructions_follow_each_other(bench: &Bench) {
    const STEPS: usize = 12;
    for (program, begin) in [(&bench.hyp, "tbreak host_sync"), (&bench.host, ROUND_ENDS)] {
        let mut orders = vec![
            begin,
            "continue",
            "set scheduler-locking on",
            "output/x $pc",
        ];
        orders.extend([["stepi", "output/x $pc"]; STEPS].concat());
        let said = Session::start(&bench.machine, &orders).finish();
        let places: Vec<_> = said[3..]
            .iter()
            .step_by(2)
            .map(|said| number(said))
            .collect();
        assert_eq!(places.len(), STEPS + 1);
        for pair in places.windows(2) {
            assert!(program.leads(pair[0], pair[1]), "{pair:#x?}");
        }
    }
}

/// A step into a function that is inlined goes nowhere, but shows another line.
fn lines_follow_each_other(bench: &Bench) {
    for begin in ["tbreak host_sync", ROUND_ENDS] {
        let [.., before, first, second, third, after] = session(
            &bench.machine,
            [
                begin,
                "continue",
                "output/x $pc",
                "step",
                "next",
                "next",
                "output/x $pc",
            ],
        );
        for line in [&first, &second, &third] {
            assert!(line.contains(|c: char| c.is_ascii_digit()), "{line}");
        }
        assert!(first != second && second != third);
        assert_ne!(before, after);
    }
}

/// What threads say, each by itself.
fn by_thread(said: &str) -> Vec<&str> {
    let threads: Vec<_> = said.split("pc ").skip(1).map(str::trim).collect();
    assert_eq!(threads.len(), CPUS, "{said}");
    threads
}

fn others_stand_while_the_scheduler_is_locked(bench: &Bench) {
    const REGISTERS: &str = "thread apply all -ascending -q info registers pc sp x0 x8 x9 x29 x30";
    let [.., thread, before, _, _, after] = session(
        &bench.machine,
        [
            "tbreak hyp::init::Hyp::pkvm_host_share_hyp",
            "continue",
            "set scheduler-locking on",
            "output $_thread",
            REGISTERS,
            "stepi 5",
            "stepi",
            REGISTERS,
        ],
    );
    let (before, after) = (by_thread(&before), by_thread(&after));
    for (number, (before, after)) in before.into_iter().zip(after).enumerate() {
        assert_eq!(before != after, number as u64 + 1 == self::number(&thread));
    }
}

/// CPU 0 waits for the others, and they come although it is stepped.
fn others_run_while_it_is_not(bench: &Bench) {
    let [.., waits, _, _, _, arrives] = session(
        &bench.machine,
        [
            ROUND_ENDS,
            "continue",
            "set scheduler-locking on",
            "tbreak hyp_host::machine::relax",
            "continue",
            "set scheduler-locking off",
            // Beyond either of the two places where it may wait.
            "tbreak hyp_host::rounds::contend thread 1",
            "tbreak hyp_host::rounds::report thread 1",
            "stepi 1000000",
        ],
    );
    assert_says(&waits, &["Thread 1 hit Temporary breakpoint", "relax"]);
    assert_says(&arrives, &["Thread 1 hit Temporary breakpoint"]);
}

/// The host's lock is made to look held by who had it before, and is given back before any other CPU runs.
fn a_step_ends_where_it_would_wait_for_one_that_stands(bench: &mut Bench) {
    let [locks] = session(&bench.machine, ["monitor locks"]);
    let lock = behind(&locks, "host      ") + bench.linear();
    let change =
        |by: &str| format!("set var *({lock:#x} as *mut u32) = *({lock:#x} as *mut u32) {by}");
    let call = bench.host.find(HVC, bench.host.address("host_main"));
    let [.., place, _, _, _, returns, _, back, rounds] = session(
        &bench.machine,
        [
            &format!("tbreak *{call:#x}"),
            "continue",
            "set scheduler-locking on",
            &change("- 1"),
            "stepi",
            "info symbol $pc",
            &change("+ 1"),
            "set scheduler-locking off",
            &format!("tbreak *{:#x}", call + 4),
            "continue",
            "delete",
            "output/x $pc",
            ROUNDS,
        ],
    );
    assert_says(&place, &["relax"]);
    assert_says(&returns, &["hit Temporary breakpoint"]);
    assert_eq!(number(&back), call + 4);
    bench.goes_on(number(&rounds));
}

fn a_call_is_stepped_over(bench: &Bench) {
    let call = bench.hyp.find(BL, bench.hyp.address("attached_host_sync"));
    let order = format!("tbreak *{call:#x}");
    let [.., pc] = session(
        &bench.machine,
        [&order, "continue", "nexti", "output/x $pc"],
    );
    assert_eq!(number(&pc), call + 4);
}

/// From where `host_sync` returns to: the mask, a branch, and then no step ends before the host.
fn the_way_out_of_hyp_ends_in_the_host(bench: &mut Bench) {
    let call = bench.hyp.find(BL, bench.hyp.address("attached_host_sync"));
    let returns = format!("tbreak *{:#x}", call + 4);
    let [.., target, _, place, pstate, rounds] = session(
        &bench.machine,
        [
            &returns,
            "continue",
            // What the host does next may need a lock that another CPU holds, so no further.
            "set scheduler-locking on",
            "output/x $ELR_EL2",
            "stepi 3",
            "output/x $pc",
            "output/x $cpsr",
            ROUNDS,
        ],
    );
    assert_eq!(number(&place), number(&target));
    assert_eq!(number(&pstate) >> 2 & 3, 1);
    bench.goes_on(number(&rounds));
}

/// CPU 0, while the others are not inside hyp, does what is given to it: a hypercall, an access that hyp maps memory for,
/// one that needs it no more, and one that hyp refuses. Then it goes on as if nothing had been.
fn the_host_steps_over_what_hyp_does_for_it(bench: &mut Bench) {
    let begin = bench.host.begin();
    let [hypercall, store, load] = [HVC, STR, LDR].map(|kind| bench.host.find(kind, begin));
    let registers = |place| {
        let word = bench.host.instruction(place);
        (word >> 5 & 0x1f, word & 0x1f)
    };
    let ((address, value), (refused, _)) = (registers(store), registers(load));
    let orders = [
        ROUND_ENDS,
        "continue",
        "set scheduler-locking on",
        "set $pc0 = $pc",
    ];
    let mut orders: Vec<_> = orders.map(str::to_owned).into();
    orders.extend((0..=30).map(|n| format!("set $saved{n} = $x{n}")));
    orders.push("set $flags = $cpsr".to_owned());
    let stepped = orders.len();
    for (place, registers) in [
        (hypercall, [(0, SHARE_HYP), (1, u64::MAX)]),
        (store, [(address, UNTOUCHED), (value, 0x1234_5678)]),
        (store, [(address, UNTOUCHED), (value, 0x8765_4321)]),
        (load, [(refused, HYP), (refused, HYP)]),
    ] {
        orders.push(format!("set var $pc = {place:#x}"));
        orders.extend(registers.map(|(n, value)| format!("set var $x{n} = {value:#x}")));
        orders.extend(["stepi", "output/x $pc", "monitor stats"].map(str::to_owned));
        orders.extend([format!("x/wx {UNTOUCHED:#x}"), "output/x $x1".to_owned()]);
    }
    let restored = orders.len();
    orders.push("set var $pc = $pc0".to_owned());
    orders.extend((0..=30).map(|n| format!("set var $x{n} = $saved{n}")));
    orders.extend(["set var $cpsr = $flags", ROUNDS].map(str::to_owned));
    let orders: Vec<_> = orders.iter().map(String::as_str).collect();
    let said = Session::start(&bench.machine, &orders).finish();

    let steps: Vec<_> = said[stepped..restored].chunks(8).collect();
    let places = steps.iter().map(|step| number(&step[4]));
    let vector = bench.host.address("host_vectors") + SAME_LEVEL;
    assert!(places.eq([hypercall + 4, store + 4, store + 4, vector]));
    let mapped = |step: usize| behind(&steps[step][5], "aborts mapped: ");
    let refused = |step: usize| behind(&steps[step][5], "aborts refused: ");
    let memory = |step: usize| number(&steps[step][6]);
    assert_eq!(number(&steps[0][7]), EINVAL);
    assert_eq!((mapped(1), memory(1)), (mapped(0) + 1, 0x1234_5678));
    assert_eq!((mapped(2), memory(2)), (mapped(1), 0x8765_4321));
    assert_eq!((mapped(3), refused(3)), (mapped(2), refused(2) + 1));
    bench.goes_on(number(said.last().expect("the rounds")));
}
