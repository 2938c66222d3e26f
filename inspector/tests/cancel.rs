//! Ctrl-C while a server is silent. The flag is the process's, so these tests have a file of their own.

use inspector::target::rsp::{self, Decoder, Event};
use inspector::target::{self, TargetError};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

#[test]
fn cancellation_ends_a_wait_before_its_limit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("silent");
    let listener = UnixListener::bind(&path).unwrap();
    let name = format!("unix:{}", path.display());
    let client = std::thread::spawn(move || target::open(&name, Duration::from_secs(3600)).err());
    // Held open and never answered.
    let connection = listener.accept().unwrap();
    target::cancellation().store(true, Ordering::Relaxed);
    let error = client.join().unwrap().unwrap();
    assert!(matches!(error, TargetError::Cancelled { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("interrupted while greeting the gdb server")
    );
    drop(connection);
}

/// A server of a machine that ran, which falls silent when asked for its memory map: says so on `asked`, and returns
/// what it was sent. `leaving` is done before it lets its client go.
fn serve(listener: &UnixListener, asked: &Sender<()>, leaving: impl Fn()) -> Vec<String> {
    let (mut stream, _) = listener.accept().unwrap();
    let mut log = Vec::new();
    let mut decoder = Decoder::new(4096);
    let mut out = Vec::new();
    rsp::encode(b"T02thread:01;", &mut out);
    let mut buffer = [0; 4096];
    loop {
        stream.write_all(&out).unwrap();
        out.clear();
        let count = stream.read(&mut buffer).unwrap();
        if count == 0 {
            return log;
        }
        let mut events = VecDeque::new();
        decoder.feed(&buffer[..count], &mut events);
        for event in events {
            let Event::Packet(request) = event else {
                continue;
            };
            let request = String::from_utf8(request).unwrap();
            match request.as_str() {
                "qqemu.PhyMemMode" => rsp::encode(b"0", &mut out),
                _ if request.starts_with("z1,") => rsp::encode(b"E22", &mut out),
                _ if request.starts_with("Z1,") => rsp::encode(b"OK", &mut out),
                "qC" => rsp::encode(b"QC01", &mut out),
                "D;1" => {
                    leaving();
                    rsp::encode(b"OK", &mut out);
                }
                _ if request.starts_with("qSupported") => rsp::encode(b"PacketSize=1000", &mut out),
                _ => asked.send(()).unwrap(),
            }
            log.push(request);
        }
    }
}

#[test]
fn ctrl_c_and_its_kin_leave_the_machine_running_as_it_was() {
    for signal in ["-INT", "-TERM", "-HUP"] {
        interrupted_by(signal);
    }
}

fn interrupted_by(signal: &'static str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gdb");
    let listener = UnixListener::bind(&path).unwrap();
    let (asked, is_asked) = channel();
    let (process, is_known) = channel::<u32>();
    let send = move |process: u32| {
        let process = process.to_string();
        let status = Command::new("kill").args([signal, &process]).status();
        assert!(status.unwrap().success());
    };
    // Who presses Ctrl-C once more while it leaves has not seen that it does.
    let leaving = move || send(is_known.recv().unwrap());
    let server = std::thread::spawn(move || serve(&listener, &asked, leaving));
    let client = Command::new(env!("CARGO_BIN_EXE_inspector"))
        .args([
            "list",
            &format!("unix:{}", path.display()),
            "--timeout",
            "3600",
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    is_asked.recv().unwrap();
    send(client.id());
    process.send(client.id()).unwrap();
    let output = client.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(
        said.contains("interrupted while asking QEMU for its memory map"),
        "{said}"
    );
    assert_eq!(server.join().unwrap().last().unwrap(), "D;1");
}
