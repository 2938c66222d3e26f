//! Watchpoints: on a descriptor, on a lock, and on what the host has.

use super::session::{assert_says, behind, number, session};
use super::{Bench, ROUND_ENDS, ROUNDS};

/// A descriptor's address, and its software bits, in which hyp has a page's state: 1 is owned and shared.
const ADDRESS: u64 = 0xffff_ffff_f000;
const STATE_SHIFT: u32 = 55;
const SHARED_OWNED: u64 = 1;

pub(crate) fn watchpoints_stop_where_it_is_written(mut bench: Bench) {
    a_descriptor_of_stage_2(&bench);
    a_lock(&bench);
    what_the_host_reads_and_writes(&mut bench);
}

/// Of a page that the host is about to share: hyp breaks it, then makes it. Then it is the host's turn to ask again.
fn a_descriptor_of_stage_2(bench: &Bench) {
    // Where hyp sees the descriptor for `$page`, in the table that `$table` leads to.
    let entry = |shift| {
        format!("set $entry = ($table & {ADDRESS:#x}) + $linear + (($page >> {shift}) & 511) * 8")
    };
    const FOLLOW: &str = "set $table = *($entry as *mut u64)";
    let linear = format!("set $linear = {:#x}", bench.linear());
    // Both root tables, one behind the other, have one index: bits 39:30.
    let root = "set $entry = ($VTTBR_EL2 & 0xfffffffff000) + $linear + ($page >> 30) * 8";
    let [
        ..,
        page,
        before,
        _,
        broken,
        during,
        made,
        after,
        trace,
        locks,
        thread,
    ] = session(
        &bench.machine,
        [
            ROUND_ENDS,
            "continue",
            // A page of one CPU's alone.
            "tbreak hyp::init::Hyp::pkvm_host_share_hyp if pfn < 0x43000",
            "continue",
            "set $page = pfn * 4096",
            &linear,
            root,
            FOLLOW,
            &entry(21),
            FOLLOW,
            &entry(12),
            "output $page",
            "output/x *($entry as *mut u64)",
            "watch *($entry as *mut u64)",
            "continue",
            "output/x *($entry as *mut u64)",
            "continue",
            "output/x *($entry as *mut u64)",
            "backtrace",
            "monitor locks",
            "output $_thread",
        ],
    );
    let page = number(&page);
    assert_eq!(number(&before) & ADDRESS, page);
    assert_eq!(number(&before) >> STATE_SHIFT & 3, 0);
    let old = number(&before);
    assert_says(
        &broken,
        &[
            "hit Hardware watchpoint",
            &format!("Old value = {old}\n"),
            "New value = 0\n",
        ],
    );
    assert_eq!(number(&during), 0);
    let new = number(&after);
    assert_says(
        &made,
        &[
            "hit Hardware watchpoint",
            "Old value = 0\n",
            &format!("New value = {new}\n"),
        ],
    );
    assert_eq!(new, old | SHARED_OWNED << STATE_SHIFT);
    assert_says(
        &trace,
        &[
            "hyp::pgtable::PageTable<hyp::addr::Ipa>::set_leaf",
            "hyp::pgtable::PageTable<hyp::addr::Ipa>::map",
            "hyp::init::Hyp::share",
            "<signal handler called>",
            &format!("hyp_host::rounds::share (page={page})"),
        ],
    );
    let held = format!("by CPU {} at ", number(&thread) - 1);
    assert_says(&locks, &["host ", &held]);
}

/// Its word is changed by instructions that fail after any stop.
fn a_lock(bench: &Bench) {
    let [locks] = session(&bench.machine, ["monitor locks"]);
    let lock = behind(&locks, "host      ") + bench.linear();
    let watch = format!("watch *({lock:#x} as *mut u32)");
    let [.., taken, trace, locks, given_back] = session(
        &bench.machine,
        [
            ROUND_ENDS,
            "continue",
            &watch,
            "continue",
            "backtrace",
            "monitor locks",
            "continue",
        ],
    );
    let change = |said: &str| {
        let [old, new] = ["Old value = ", "New value = "].map(|text| behind(said, text) as u32);
        (old, new)
    };
    // It is free where a round ends: `owner` in the lower half is `next` in the upper.
    let (free, held) = change(&taken);
    assert_eq!(free as u16, (free >> 16) as u16);
    assert_eq!(held, free.wrapping_add(1 << 16));
    assert_says(
        &trace,
        &[
            "hyp::lock::TicketLock::lock",
            "hyp::init::Hyp::lock_host",
            "<signal handler called>",
        ],
    );
    assert_says(&locks, &["host ", "held, waiters 0"]);
    let (before, after) = change(&given_back);
    assert_eq!(before, held);
    assert_ne!(after, before);
}

/// What only CPU 0 writes; what all read; and what all add to, which takes two accesses.
fn what_the_host_reads_and_writes(bench: &mut Bench) {
    let [
        ..,
        written,
        trace,
        _,
        _,
        read,
        _,
        _,
        access,
        _,
        _,
        added,
        _,
        rounds,
    ] = session(
        &bench.machine,
        [
            "watch hyp_host::rounds::HOST.rounds.v.value",
            "continue",
            // The store itself is inlined.
            "backtrace",
            "delete",
            "rwatch hyp_host::rounds::HOST.pace.v.value",
            "continue",
            "delete",
            "awatch hyp_host::rounds::HOST.touched.v.value",
            "continue",
            "delete",
            "watch hyp_host::rounds::HOST.shared.v.value",
            "continue",
            "delete",
            ROUNDS,
        ],
    );
    let change = |said: &str| {
        let [old, new] = ["Old value = ", "New value = "].map(|text| behind(said, text));
        assert_eq!(new, old + 1, "{said}");
    };
    assert_says(&written, &["Thread 1 hit Hardware watchpoint"]);
    change(&written);
    assert_says(&trace, &["hyp_host::rounds::host_main (cpu="]);
    assert_says(&read, &["hit Hardware read watchpoint", "Value = 4"]);
    assert_says(&access, &["hit Hardware access (read/write) watchpoint"]);
    change(&added);
    bench.goes_on(number(&rounds));
}
