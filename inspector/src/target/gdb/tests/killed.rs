//! What an earlier client left.

use super::*;

const MODE: &str = "QEMU's physical memory mode was still on, so an earlier client was killed while it read; it is off now.";
const KILLED: &str =
    "An earlier inspector was killed; breakpoints that it may have left are cleared.";
const RAN: &str = "z1,696e737065637452,4";
const STOOD: &str = "z1,696e737065637453,4";
fn left(physical: bool, breakpoints: &[&str]) -> Qemu {
    Qemu {
        physical,
        breakpoints: breakpoints.iter().map(ToString::to_string).collect(),
        ..Qemu::default()
    }
}

/// Attaches to a machine that somebody left so, and leaves it: what the user is told, and what was sent.
fn attach(running: bool, mut qemu: Qemu) -> (Vec<String>, Vec<String>) {
    let greeting = match running {
        true => packet("T02thread:01;"),
        false => Vec::new(),
    };
    let server = Server::start(&greeting, move |request, out| {
        let more = qemu.answer(request, out);
        if request == "?" {
            assert_eq!(qemu.breakpoints.is_empty(), qemu.cleared.len() == 2);
        }
        more
    });
    let gdb = server.attach(PATIENT).unwrap();
    let notes = gdb.notes();
    drop(gdb);
    (notes, server.log())
}

#[test]
fn a_client_that_leaves_says_nothing_to_the_next() {
    for running in [false, true] {
        let (notes, log) = attach(running, Qemu::default());
        assert_eq!(notes, [""; 0]);
        let own = if running { RAN } else { STOOD };
        let set = log
            .iter()
            .rposition(|request| *request == own.replace('z', "Z"));
        let cleared = log.iter().rposition(|request| request == "?");
        assert!(cleared < set, "the own mark stays: {log:?}");
        // `D` clears it; otherwise it is removed.
        assert_eq!(log.last().unwrap(), if running { "D;1" } else { STOOD });
    }
}

#[test]
fn a_mode_left_behind_is_repaired_and_told() {
    let (notes, log) = attach(false, left(true, &[]));
    let unknown = "If the machine ran before that client came, it stands since.";
    assert_eq!(notes, [MODE, unknown]);
    assert_eq!(modes(&log), ["0"]);
    let (notes, _) = attach(true, left(true, &[]));
    assert_eq!(notes, [MODE]);
    let (notes, _) = attach(false, left(true, &[STOOD]));
    assert_eq!(notes, [MODE, KILLED]);
}

#[test]
fn a_mark_tells_whether_the_machine_ran() {
    let (notes, log) = attach(false, left(false, &[STOOD]));
    assert_eq!(notes, [KILLED]);
    assert_eq!(log.last().unwrap(), STOOD);
    let (notes, log) = attach(false, left(false, &[RAN]));
    assert!(
        matches!(notes.as_slice(), [killed, ran] if killed == KILLED && ran.starts_with("The machine ran before")),
        "{notes:?}"
    );
    // It is left as it was found; the next one would be told the same had this one been killed.
    assert_eq!(log.last().unwrap(), RAN);
    assert!(log.contains(&RAN.replace('z', "Z")));
    let (notes, log) = attach(true, left(false, &[RAN]));
    assert_eq!(notes, [KILLED]);
    assert_eq!(log.last().unwrap(), "D;1");
}

#[test]
fn a_breakpoint_at_which_a_cpu_stands_is_told() {
    let (notes, _) = attach(false, left(false, &["z0,202020202020202,4", "z1,1234,4"]));
    assert_eq!(
        notes,
        [
            "CPU 0 stands at a breakpoint that an earlier client left, at 0x202020202020202; all breakpoints are cleared."
        ]
    );
}

#[test]
fn a_machine_that_a_killed_client_stopped_runs_on_when_it_was_continued() {
    for (mark, last) in [(RAN, "D;1"), (STOOD, STOOD)] {
        let mut qemu = left(false, &[mark]);
        let server = Server::start(b"", move |request, out| match request {
            "^C" => {
                encode(b"T02thread:01;", out);
                true
            }
            _ => qemu.answer(request, out),
        });
        let mut gdb = server.attach(PATIENT).unwrap();
        gdb.run_control().unwrap().resume().unwrap();
        drop(gdb);
        let log = server.log();
        assert_eq!(log[log.len() - 3..], ["vCont;c", "^C", last]);
    }
}
