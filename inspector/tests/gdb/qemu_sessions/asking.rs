//! Questions: monitor commands, files, registers and memory; and what may be changed.

use super::program::LDR;
use super::session::{Session, assert_says, behind, number, register, session};
use super::{Bench, CPUS, ROUND_ENDS, ROUNDS};
use serde_json::{Value, json};

/// Where the host has memory that it has shared since its first round, and memory that it never shares: a block.
const SHARED: u64 = 0x4200_0000;
const PLAIN: u64 = 0x4320_0000;
/// The UART, where the host sees it.
const UART: u64 = 0x0900_0000;

pub(crate) fn questions_are_answered(mut bench: Bench) {
    monitor_commands(&bench);
    files(&bench);
    what_is_no_memory_is_refused(&mut bench);
    registers_and_memory_are_written(&mut bench);
    a_descriptor_that_is_written_holds(&mut bench);
}

fn monitor_commands(bench: &Bench) {
    let shared = format!("monitor page {SHARED:#x}");
    let own = format!(
        "monitor page {:#x}",
        bench.hyp.address("__text_start") - bench.linear()
    );
    let [help, s2, owners, shared, own, cpus, stats, none] = session(
        &bench.machine,
        [
            "monitor help",
            "monitor s2",
            "monitor owners",
            &shared,
            &own,
            "monitor cpus",
            "monitor stats",
            "monitor nothing",
        ],
    );
    for command in ["help", "s2", "owners", "page", "locks", "cpus", "stats"] {
        assert!(help.lines().any(|line| line.starts_with(command)), "{help}");
    }
    assert_says(
        &s2,
        &[
            "annotation owner hyp",
            "0x000042000000..",
            " level 3 page rwx shared-owned",
        ],
    );
    assert_says(
        &owners,
        &[
            "0x000042000000..",
            "host shared-owned    hyp shared-borrowed",
        ],
    );
    assert_says(
        &shared,
        &[
            "host-s2 level 3 page rwx shared-owned",
            "hyp-s1 at 0x4042000000",
            "shared-borrowed",
        ],
    );
    assert_says(&own, &["annotation owner hyp", "section text"]);
    let lines: Vec<_> = cpus.lines().collect();
    assert_eq!(lines.len(), CPUS, "{cpus}");
    for (cpu, line) in lines.into_iter().enumerate() {
        assert_says(
            line,
            &[
                &format!("CPU {cpu} EL"),
                " pc 0x",
                " VTTBR_EL2 0x",
                " ESR_EL2 0x",
            ],
        );
    }
    assert!(behind(&stats, "aborts mapped: ") > 0);
    assert!(behind(&stats, "shares: ") > 0);
    assert_says(&none, &["no such command"]);
}

/// A table's record in a file of tables: its address, and its page.
const RECORD: usize = 8 + 4096;

fn files(bench: &Bench) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let get = |file: &str, name: &str| format!("remote get {file} {}", path(name).display());
    let [_, _, _, _, missing, roots, root] = session(
        &bench.machine,
        [
            &get("hyp/description", "description"),
            &get("hyp/tables/host-s2", "host"),
            &get("hyp/tables/hyp-s1", "hyp"),
            &get("hyp/stats", "stats"),
            &get("hyp/nothing", "nothing"),
            "info registers VTTBR_EL2",
            "info registers TTBR0_EL2",
        ],
    );
    let read = |name| std::fs::read(path(name)).expect("the file");
    let description: Value = serde_json::from_slice(&read("description")).expect("JSON");
    assert_eq!(description["format"], json!("hyp.description/1"));
    assert_eq!(description["cpus"], json!(CPUS));
    for (name, root) in [("host", &roots), ("hyp", &root)] {
        let tables = read(name);
        assert_eq!(tables.len() % RECORD, 0);
        let records: Vec<u64> = tables
            .chunks_exact(RECORD)
            .map(|record| u64::from_le_bytes(*record.first_chunk().expect("an address")))
            .collect();
        assert_eq!(records[0], register(root));
        assert!(records.len() > 4, "{records:x?}");
    }
    assert_says(
        &String::from_utf8_lossy(&read("stats")),
        &["aborts mapped: "],
    );
    assert_says(&missing, &["No such file or directory"]);
}

/// Nothing is performed: the UART sends no character.
fn what_is_no_memory_is_refused(bench: &mut Bench) {
    let end = 0x4000_0000_u64 + (512 << 20);
    let places = [
        UART,
        UART + bench.linear(),
        0x0800_0000,
        0x10,
        end,
        0xffff_0000_0000_0000,
        u64::MAX - 3,
    ];
    let orders = places.map(|place| {
        [
            format!("x/wx {place:#x}"),
            format!("set var *({place:#x} as *mut u32) = 65"),
            format!("maintenance packet m{place:x},4"),
        ]
    });
    let orders: Vec<_> = orders.as_flattened().iter().map(String::as_str).collect();
    let said = Session::start(&bench.machine, &orders).finish();
    for (place, answers) in places.into_iter().zip(said.chunks_exact(3)) {
        let refusal = format!("Cannot access memory at address {place:#x}");
        assert_says(&answers[0], &[&refusal]);
        assert_says(&answers[1], &[&refusal]);
        assert_says(&answers[2], &["received: \"E"]);
    }
    // What hyp's debugger itself runs on is not to be changed.
    let place = bench.hyp.address("debugger_fiq");
    let write = format!("set var *({place:#x} as *mut u32) = 65");
    let read = format!("x/wx {place:#x}");
    let [write, read, rounds] = session(&bench.machine, [&write, &read, ROUNDS]);
    assert_says(&write, &["Cannot access memory"]);
    assert_eq!(number(&read) as u32, bench.hyp.instruction(place));
    let line = bench.goes_on(number(&rounds));
    assert!(line.starts_with("host: round"), "{line}");
}

fn registers_and_memory_are_written(bench: &mut Bench) {
    let [
        ..,
        written,
        _,
        back,
        flags,
        level,
        own,
        _,
        _,
        memory,
        rounds,
    ] = session(
        &bench.machine,
        [
            ROUND_ENDS,
            "continue",
            "set $old = $x5",
            "set var $x5 = 0x123456789abcdef0",
            "info registers x5",
            "set var $x5 = $old",
            "output $x5 == $old",
            "set var $cpsr = $cpsr ^ 0x80000000",
            // Another exception level, and a register of EL2's.
            "set var $cpsr = 0x3c9",
            "set var $ELR_EL2 = 0",
            "set var hyp_host::rounds::HOST.pace.v.value = 5",
            "set var hyp_host::rounds::HOST.pace.v.value = hyp_host::rounds::HOST.pace.v.value - 1",
            "output hyp_host::rounds::HOST.pace.v.value",
            ROUNDS,
        ],
    );
    assert_eq!(register(&written), 0x1234_5678_9abc_def0);
    assert_eq!(back, "true");
    assert_eq!(flags, "");
    assert_says(&level, &["Could not write register \"cpsr\""]);
    assert_says(&own, &["Could not write register \"ELR_EL2\""]);
    assert_eq!(number(&memory), 4);
    bench.goes_on(number(&rounds));
}

/// CPU 0 reads what it could read before, and hyp has to map it again.
fn a_descriptor_that_is_written_holds(bench: &mut Bench) {
    let load = bench.host.find(LDR, bench.host.begin());
    let registers = bench.host.instruction(load);
    let (address, value) = (registers >> 5 & 0x1f, registers & 0x1f);
    let jump = format!("set var $pc = {load:#x}");
    let aim = format!("set var $x{address} = {PLAIN:#x}");
    let linear = bench.linear();
    let root = format!(
        "set $entry = ($VTTBR_EL2 & 0xfffffffff000) + {linear:#x} + ({PLAIN:#x} >> 30) * 8"
    );
    let entry = format!(
        "set $entry = (*($entry as *mut u64) & 0xfffffffff000) + {linear:#x} + ({PLAIN:#x} >> 21 & 511) * 8"
    );
    let [
        ..,
        mapped,
        before,
        _,
        _,
        _,
        _,
        again,
        after,
        _,
        _,
        _,
        rounds,
    ] = session(
        &bench.machine,
        [
            ROUND_ENDS,
            "continue",
            "set scheduler-locking on",
            "set $place = $pc",
            &format!("set $address = $x{address}"),
            &format!("set $value = $x{value}"),
            &root,
            &entry,
            &jump,
            &aim,
            "stepi",
            "monitor stats",
            "output/x *($entry as *mut u64)",
            "set var *($entry as *mut u64) = 0",
            &jump,
            &aim,
            "stepi",
            "monitor stats",
            "output/x *($entry as *mut u64)",
            "set var $pc = $place",
            &format!("set var $x{address} = $address"),
            &format!("set var $x{value} = $value"),
            ROUNDS,
        ],
    );
    let count = |stats: &str| behind(stats, "aborts mapped: ");
    assert_eq!(number(&before) & 3, 1, "a block: {before}");
    assert_eq!(count(&again), count(&mapped) + 1);
    assert_eq!(before, after);
    bench.goes_on(number(&rounds));
}
