//! However a client ends, the machine is left without its breakpoints, and running or standing as it was found.

use super::{COUNT, LOOP, STORE, insert, next, program, run};
use crate::qemu::{PATIENT, Qemu, packet};
use inspector::addr::Span;
use inspector::target::gdb::{Address, Gdb};
use inspector::target::{Breakpoint, RunState, Target, TargetError};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

const CODE: [u64; 2] = [LOOP, STORE];
/// Half of what is written, so that nothing of it is ever in the way of the other.
const WATCHED: Span = Span {
    start: COUNT,
    size: 4,
};

/// Asks QEMU itself, by its two doors.
fn assert_left(qemu: &mut Qemu, running: bool, by: &str) {
    assert_eq!(qemu.is_running(), running, "{by}");
    qemu.qmp("stop");
    let watch = format!("z2,{:x},{:x}", WATCHED.start, WATCHED.size);
    let code = CODE.map(|address| format!("z1,{address:x},4"));
    let marks = ["z1,696e737065637452,4", "z1,696e737065637453,4"].map(str::to_owned);
    for request in code.into_iter().chain(marks).chain([watch]) {
        qemu.killed_client(&packet(&request), "$E22#");
    }
    if running {
        qemu.qmp("cont");
    }
}

/// The machine of [`program`], somewhere in its loop.
fn machine(running: bool) -> (Qemu, impl Sized) {
    let (mut qemu, file) = program();
    let mut gdb = qemu.attach();
    insert(&mut gdb, Breakpoint::Code(LOOP));
    next(&mut gdb);
    drop(gdb);
    assert_left(&mut qemu, false, "its start");
    if running {
        qemu.qmp("cont");
    }
    (qemu, file)
}

/// Fails where the link is cut.
fn session(gdb: &mut Gdb) -> Result<(), TargetError> {
    let run = gdb.run_control().unwrap();
    for address in CODE {
        run.insert(Breakpoint::Code(address))?.unwrap();
    }
    run.insert(Breakpoint::Write(WATCHED))?.unwrap();
    for _ in 0..6 {
        run.resume()?;
        if let RunState::Stopped { cpu: Some(cpu), .. } = run.wait(PATIENT)? {
            run.step(cpu)?;
        }
    }
    run.remove(Breakpoint::Code(LOOP))
}

#[test]
fn a_client_that_leaves() {
    for running in [false, true] {
        let (mut qemu, _file) = machine(running);
        let mut gdb = qemu.attach();
        session(&mut gdb).unwrap();
        drop(gdb);
        assert_left(&mut qemu, running, "standing at a stop");

        let mut gdb = qemu.attach();
        insert(&mut gdb, Breakpoint::Code(COUNT));
        run(&mut gdb).resume().unwrap();
        assert_eq!(run(&mut gdb).state().unwrap(), RunState::Running);
        drop(gdb);
        assert_left(&mut qemu, running, "while it runs");
        qemu.killed_client(
            &packet(&format!("z1,{COUNT:x},4")),
            if running { "$T02" } else { "$E22#" },
        );
        if running {
            qemu.qmp("cont");
        }

        let mut gdb = qemu.attach();
        let ended = catch_unwind(AssertUnwindSafe(move || {
            session(&mut gdb).unwrap();
            resume_unwind(Box::new(()));
        }));
        assert!(ended.is_err());
        assert_left(&mut qemu, running, "by a panic");
    }
}

/// Carries bytes between one client and the server, until the client has sent so many packets. Returns whether it had.
fn cut_after(packets: usize, listener: &UnixListener, server: &Path) -> bool {
    let (mut client, _) = listener.accept().unwrap();
    let mut server = UnixStream::connect(server).unwrap();
    let (mut replies, mut out) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    let back = std::thread::spawn(move || {
        let _ = std::io::copy(&mut replies, &mut out);
    });
    let mut left = packets;
    let mut byte = [0];
    while client.read(&mut byte).unwrap_or(0) > 0 {
        if byte == *b"$" {
            if left == 0 {
                break;
            }
            left -= 1;
        }
        if server.write_all(&byte).is_err() {
            break;
        }
    }
    for stream in [&client, &server] {
        let _ = stream.shutdown(std::net::Shutdown::Both);
    }
    back.join().unwrap();
    left == 0
}

/// As after `kill -9`: whatever was under way, the next client puts it in order.
#[test]
fn a_client_that_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wire");
    let listener = UnixListener::bind(&path).unwrap();
    for running in [false, true] {
        let (mut qemu, _file) = machine(running);
        let mut told = 0;
        // From the first on by which the mark is set.
        for packets in (5..).step_by(7) {
            let socket = qemu.name().trim_start_matches("unix:").to_owned();
            let cut = std::thread::scope(|scope| {
                let wire = scope.spawn(|| cut_after(packets, &listener, Path::new(&socket)));
                let name = format!("unix:{}", path.display());
                let address = Address::Unix(path.clone());
                let ended =
                    Gdb::attach(&name, &address, PATIENT).and_then(|mut gdb| session(&mut gdb));
                if let Err(error) = ended {
                    assert!(matches!(error, TargetError::Lost { .. }), "{error}");
                }
                wire.join().unwrap()
            });
            if !cut {
                break;
            }
            let mut gdb = qemu.attach();
            told += usize::from(gdb.notes().iter().any(|note| note.contains("was killed")));
            if running {
                run(&mut gdb).resume().unwrap();
            }
            drop(gdb);
            assert_left(&mut qemu, running, &format!("cut after {packets}"));
        }
        assert!(told > 10, "{told}");
    }
}

#[test]
fn a_watchpoint_of_a_killed_client_is_named_where_a_cpu_stands_at_it() {
    for (kind, size) in [(2, 8), (4, 4), (2, 1)] {
        let (qemu, _file) = machine(false);
        let watch = format!("{kind},{COUNT:x},{size:x}");
        qemu.killed_client(&packet(&format!("Z{watch}")), "$OK#");
        qemu.killed_client(&packet("c"), "watch:");
        let gdb = qemu.attach();
        let notes = gdb.notes();
        assert!(
            matches!(&notes[..], [note] if note.contains("stands at a watchpoint that an earlier client left") && note.contains(&format!("on {COUNT:#x};"))),
            "{notes:?}"
        );
        drop(gdb);
        qemu.killed_client(&packet(&format!("z{watch}")), "$E22#");
        assert_eq!(qemu.attach().notes(), [""; 0]);
    }
}
