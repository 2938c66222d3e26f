//! Clients that keep to the protocol, one after the other.

use super::script::{check, frame, stub};
use crate::debug::registers::Register;
use crate::debug::{Breakpoint, Resume, Stop, WatchKind};
use std::prelude::rust_2024::*;

const HELLO: &str = "qSupported:swbreak+;hwbreak+";
const FEATURES: &str = "[PacketSize=010000;vContSupported+;multiprocess+;QStartNoAckMode+;swbreak+;hwbreak+;\
     qXfer:features:read+]";

fn acknowledged(reply: &str) -> String {
    format!("+{reply}")
}

#[test]
fn a_client_of_a_machine_that_stands() {
    let mut stub = stub();
    let running = check(
        &mut stub,
        false,
        &[
            ("=+", ""),
            (HELLO, &acknowledged(FEATURES)),
            ("?", "+[T05thread:01;]"),
            ("qC", "+[QC01]"),
            ("QStartNoAckMode", "+[OK]"),
            ("=+", ""),
            ("qfThreadInfo", "[m01,02]"),
            ("qsThreadInfo", "[l]"),
            ("qAttached", "[1]"),
            ("vMustReplyEmpty", "[]"),
            ("", ""),
        ],
    );
    assert!(!running, "it closed: the machine stands as before");
    assert_eq!((stub.inferior.runs, stub.inferior.let_go), (0, 1));
}

#[test]
fn a_client_of_a_machine_that_runs_is_told_before_its_packet_is_acknowledged() {
    for first in ["^C", "?", HELLO, "=$qSupported#37"] {
        let mut stub = stub();
        stub.inferior.stops = [None, None].into();
        let reply = match first {
            "^C" => "[T02thread:01;]".into(),
            "?" => "[T02thread:01;]+[T02thread:01;]".into(),
            _ => format!("[T02thread:01;]+{FEATURES}"),
        };
        let table = [("", ""), ("=+", ""), (first, &*reply), ("Hg2", "+[OK]")];
        assert!(!check(&mut stub, true, &table), "{first}");
        assert_eq!(stub.inferior.runs, 2, "{first}");
    }
}

#[test]
fn the_next_client_finds_nothing_of_the_one_before() {
    let mut stub = stub();
    let features = acknowledged(FEATURES);
    let table = [
        ("qSupported:multiprocess+", &*features),
        ("QStartNoAckMode", "+[OK]"),
        ("Hgp1.2", "[OK]"),
        ("qC", "[QCp01.02]"),
        ("Z0,4040002100,4", "[OK]"),
        ("=$vCont;c", ""),
        // It vanished in the middle of a packet, and the machine stands.
        ("=+", ""),
        (HELLO, &features),
        ("qC", "+[QC01]"),
        ("z0,4040002100,4", "+[E16]"),
    ];
    assert!(!check(&mut stub, false, &table));
    assert_eq!(stub.inferior.runs, 0);
}

#[test]
fn the_next_client_stops_what_the_one_before_let_run() {
    let mut stub = stub();
    let features = format!("[T02thread:01;]+{FEATURES}");
    let table = [
        ("qSupported:multiprocess+", &*acknowledged(FEATURES)),
        ("QStartNoAckMode", "+[OK]"),
        ("Z0,4040002100,4", "[OK]"),
        ("vCont;c:p1.1", ""),
        (HELLO, &features),
        ("", ""),
        ("vCont;c", "+"),
    ];
    assert!(check(&mut stub, false, &table), "that one closed");
    let inferior = &stub.inferior;
    assert_eq!((inferior.runs, inferior.let_go), (2, 2));
    assert_eq!(inferior.breakpoints, []);
}

#[test]
fn stops_are_reported_by_the_cpu_that_stopped() {
    let watch = |kind| Stop::Watch {
        cpu: 1,
        kind,
        va: 0x40_4000_2008,
    };
    for (stop, reply) in [
        (Stop::Breakpoint { cpu: 0 }, "[T05thread:01;swbreak:;]"),
        (
            Stop::HardwareBreakpoint { cpu: 1 },
            "[T05thread:02;hwbreak:;]",
        ),
        (watch(WatchKind::Write), "[T05thread:02;watch:4040002008;]"),
        (watch(WatchKind::Read), "[T05thread:02;rwatch:4040002008;]"),
        (
            watch(WatchKind::ReadWrite),
            "[T05thread:02;awatch:4040002008;]",
        ),
        (Stop::Step { cpu: 0 }, "[T05thread:01;]"),
        (Stop::Step { cpu: 1 }, "[T05thread:02;20:b8dc204040000000;]"),
        (Stop::Panic { cpu: 1 }, "[T06thread:02;]"),
    ] {
        let mut stub = stub();
        stub.inferior.set(0, Register::X(0), 1);
        stub.inferior.set(1, Register::X(0), 2);
        stub.inferior.set(1, Register::Pc, 0x40_4020_dcb8);
        stub.inferior.stops = [None, Some(stop)].into();
        let (thread, x0) = match reply.contains("02;") {
            true => ("+[QC02]", "+[0200000000000000]"),
            false => ("+[QC01]", "+[0100000000000000]"),
        };
        let signal = &reply[..reply.find(';').unwrap() + 1];
        let table = [
            ("vCont;c", "+"),
            ("", reply),
            ("", ""),
            ("qC", thread),
            ("p0", x0),
            ("?", &format!("+{signal}]")),
        ];
        assert!(!check(&mut stub, false, &table), "{stop:?}");
        assert_eq!(stub.inferior.runs, 2);
    }
}

#[test]
fn threads_are_named_with_their_process_where_the_client_knows_that() {
    let mut stub = stub();
    stub.inferior.stops = [Some(Stop::Breakpoint { cpu: 1 }), None].into();
    let table = [
        (
            "qSupported:multiprocess+;swbreak+",
            &*acknowledged(FEATURES),
        ),
        ("?", "+[T05thread:p01.01;]"),
        ("qfThreadInfo", "+[mp01.01,p01.02]"),
        ("vCont;c:p1.-1", "+[T05thread:p01.02;swbreak:;]"),
        ("Hgp1.1", "+[OK]"),
        ("qC", "+[QCp01.01]"),
        ("Hgp0.0", "+[OK]"),
        ("Tp1.2", "+[OK]"),
        ("vCont;s:p1.2;c:p1.-1", "+"),
        ("^C", "[T02thread:p01.01;]"),
    ];
    assert!(!check(&mut stub, false, &table));
}

#[test]
fn an_interrupt_counts_only_while_the_machine_runs() {
    let mut stub = stub();
    let table = [
        ("^C", ""),
        ("=\x03\x03+", ""),
        ("vCont;c", "+"),
        ("", ""),
        ("^C", "[T02thread:01;]"),
        ("^C", ""),
        ("vCont;c", "+"),
        ("", ""),
        ("=\x03\x03", "[T02thread:01;]"),
    ];
    assert!(!check(&mut stub, false, &table));
    assert_eq!(stub.inferior.runs, 4);
}

#[test]
fn who_detaches_or_kills_lets_the_machine_run() {
    for (farewell, reply) in [
        ("D", "+[OK]"),
        ("D;1", "+[OK]"),
        ("vKill;1", "+[OK]"),
        ("k", "+"),
    ] {
        for running in [false, true] {
            let mut stub = stub();
            let mut table = vec![("Z0,4040002100,4", "+[OK]")];
            if running {
                table.push(("vCont;c", "+"));
            }
            // Nobody is there to be told of a stop.
            stub.inferior.stops = [None; 4].into();
            stub.inferior.stops[2] = Some(Stop::Breakpoint { cpu: 0 });
            table.extend([(farewell, reply), ("", ""), ("", "")]);
            assert!(check(&mut stub, false, &table), "{farewell}");
            assert_eq!(stub.inferior.runs, 3 + usize::from(running));
            assert_eq!(stub.inferior.breakpoints, []);
            // The next client.
            let table = [
                (farewell, reply),
                ("", ""),
                ("qC", "[T02thread:01;]+[QC01]"),
            ];
            assert!(!check(&mut stub, true, &table), "{farewell}");
        }
    }
}

#[test]
fn a_panic_that_nobody_saw_is_what_the_next_client_finds() {
    let mut stub = stub();
    let panic = Some(Stop::Panic { cpu: 1 });
    stub.inferior.stops = [None, panic, panic, panic].into();
    let features = acknowledged(FEATURES);
    let table = [
        ("", ""),
        ("", ""),
        ("", ""),
        (HELLO, &*features),
        ("?", "+[T06thread:02;]"),
        // It stops where it stopped, whoever is there.
        ("vCont;c", "+[T06thread:02;]"),
        ("D", "+[OK]"),
        ("", ""),
        (HELLO, &*features),
        ("?", "+[T06thread:02;]"),
    ];
    assert!(!check(&mut stub, true, &table));
    assert_eq!(stub.inferior.runs, 4);
}

#[test]
fn a_client_is_told_of_a_cpu_that_it_can_look_at() {
    let mut stub = stub();
    stub.inferior.set(1, Register::Pc, 0x40_4000_2100);
    let table = [
        ("", ""),
        ("^C", "[T02thread:02;]"),
        ("qC", "+[QC02]"),
        ("Hg1", "+[OK]"),
        ("qC", "+[QC01]"),
        ("Hg0", "+[OK]"),
        ("qC", "+[QC02]"),
    ];
    assert!(!check(&mut stub, true, &table));
}

#[test]
fn a_client_that_comes_at_the_moment_of_a_panic_is_told() {
    for first in ["^C", HELLO] {
        let mut stub = stub();
        stub.inferior.panicked = Some(1);
        let reply = match first {
            "^C" => "[T06thread:02;]".into(),
            _ => format!("[T06thread:02;]+{FEATURES}"),
        };
        let table = [("", ""), (first, &*reply), ("?", "+[T06thread:02;]")];
        assert!(!check(&mut stub, true, &table), "{first}");
    }
}

#[test]
fn detaching_ends_a_session_without_acknowledgements() {
    let table = [
        ("QStartNoAckMode", "+[OK]"),
        ("D;1", "[OK]"),
        ("?", "[T02thread:01;]+[T02thread:01;]"),
    ];
    assert!(!check(&mut stub(), false, &table));
}

#[test]
fn a_packet_stops_a_machine_that_runs() {
    let mut stub = stub();
    let table = [
        ("vCont;c", "+"),
        ("", ""),
        ("m4040002000,2", "[T02thread:01;]+[0000]"),
        ("vCont;c", "+"),
        ("vCont;c", "[T02thread:01;]+"),
        ("unknown", "[T02thread:01;]+[]"),
    ];
    assert!(!check(&mut stub, false, &table));
}

#[test]
fn requests_may_come_before_the_answers_are_read() {
    let mut all = Vec::new();
    for request in ["Hg2", "qC", "vCont;c", "\x03", "Hg1", "qC"] {
        match request {
            "\x03" => all.push(3),
            _ => all.extend(frame(request.as_bytes())),
        }
    }
    let all = format!("={}", String::from_utf8(all).unwrap());
    let table = [(&*all, "+[OK]+[QC02]+[T02thread:01;]+[OK]+[QC01]")];
    assert!(!check(&mut stub(), false, &table));
}

#[test]
fn each_cpu_is_resumed_as_asked() {
    let all = u64::MAX;
    for (request, run, step) in [
        ("vCont;c", all, None),
        ("vCont;c:-1", all, None),
        ("vCont;c:0", all, None),
        ("vCont;s:2;c", all, Some(1)),
        ("vCont;S05:2;C05:-1", all, Some(1)),
        ("vCont;s:2", 0b10, Some(1)),
        ("vCont;s:2;c:1", 0b11, Some(1)),
        ("vCont;c:2;s:2", 0b10, None),
        ("c", all, None),
        ("s", all, Some(1)),
    ] {
        let mut stub = stub();
        check(&mut stub, false, &[("Hg2", "+[OK]"), (request, "+")]);
        assert_eq!(stub.inferior.resumed, [Resume { run, step }], "{request}");
        assert_eq!(stub.inferior.runs, 1, "{request}");
    }
    for (request, reply) in [
        ("vCont", "+[E03]"),
        ("vCont;", "+[E16]"),
        ("vCont;x", "+[E16]"),
        ("vCont;t", "+[E16]"),
        ("vCont;s", "+[E16]"),
        ("vCont;c:3", "+[E03]"),
        ("vCont;s:40;c", "+[E03]"),
        ("vCont;s:1;s:2", "+[E1c]"),
        ("vCont;r1,2:1", "+[E16]"),
        ("c4040002100", "+[E16]"),
        ("s4040002100", "+[E16]"),
        ("C05", "+[]"),
    ] {
        let mut stub = stub();
        check(&mut stub, false, &[(request, reply), ("", "")]);
        assert_eq!(stub.inferior.resumed, [], "{request}");
        assert_eq!(stub.inferior.runs, 0, "{request}");
    }
}

#[test]
fn breakpoints_of_every_kind_reach_the_machine() {
    let va = 0x40_4000_2100;
    let watch = |kind| Breakpoint::Watch { va, size: 8, kind };
    for (number, breakpoint) in [
        (0, Breakpoint::Software { va }),
        (1, Breakpoint::Hardware { va }),
        (2, watch(WatchKind::Write)),
        (3, watch(WatchKind::Read)),
        (4, watch(WatchKind::ReadWrite)),
    ] {
        let (set, clear) = (
            format!("Z{number},4040002100,8"),
            format!("z{number},4040002100,8"),
        );
        let mut stub = stub();
        check(&mut stub, false, &[(&set, "+[OK]"), (&set, "+[OK]")]);
        assert_eq!(stub.inferior.breakpoints, [breakpoint]);
        check(&mut stub, false, &[(&clear, "+[OK]"), (&clear, "+[E16]")]);
        assert_eq!(stub.inferior.breakpoints, []);
    }
}

#[test]
fn a_machine_that_refuses_breakpoints_is_believed() {
    let mut stub = stub();
    let table = [
        ("Z0,10,4", "+[E0e]"),
        ("Z2,10,0", "+[E16]"),
        ("Z2,ffffffffffffffff,2", "+[E16]"),
        ("Z2,ffffffffffffffff,1", "+[OK]"),
        ("Z1,10,4", "+[OK]"),
        ("Z1,20,4", "+[OK]"),
        ("Z1,30,4", "+[OK]"),
        ("Z1,40,4", "+[E1c]"),
        ("Z5,10,4", "+[]"),
    ];
    check(&mut stub, false, &table);
    assert_eq!(stub.inferior.breakpoints.len(), 4);
}
