//! Bad input: one clear sentence, status 3, in time, and no partial file.

use crate::demo_elf::program;
use crate::run::{Ran, inspector, succeed};
use ::inspector::demo;
use ::inspector::session::Opener;
use ::inspector::target::snapshot::{self, Contents};
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// It fails with one sentence, which holds `words`.
pub(crate) fn fail<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>, words: &str) -> Ran {
    let ran = inspector(arguments);
    assert_eq!(ran.status, 3, "{ran:?}");
    assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
    assert!(ran.stderr.starts_with("inspector: "), "{ran:?}");
    assert!(ran.stderr.contains(words), "{words}: {ran:?}");
    ran
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    entries
        .map(|entry| entry.expect("an entry").file_name().display().to_string())
        .collect()
}

#[test]
fn a_port_where_nothing_listens() {
    // A client's own port, which nobody else gets as long as it is there.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let client = TcpStream::connect(listener.local_addr().expect("an address"));
    let address = client.as_ref().expect("it is connected").local_addr();
    fail(
        ["list", &address.expect("an address").to_string()],
        "connection refused",
    );
}

#[test]
fn a_port_that_stays_silent() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let start = Instant::now();
    fail(
        ["list", &address, "--timeout", "0.5"],
        "no answer within 0.5 s",
    );
    // A busy computer may take that long to start the program.
    assert!(start.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_server_of_something_else() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    fail(["cpus", &address, "--timeout", "1"], &address);
    server.join().expect("it ends");
}

/// Passes everything between a client and the demo until so many bytes came from the demo.
fn dropping_proxy(demo: std::net::SocketAddr, limit: usize) -> (String, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let proxy = thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("a client");
        let mut server = TcpStream::connect(demo).expect("the demo listens");
        let (mut from_client, mut to_server) = (
            client.try_clone().expect("a clone"),
            server.try_clone().expect("a clone"),
        );
        let upwards = thread::spawn(move || {
            let _ = std::io::copy(&mut from_client, &mut to_server);
        });
        let mut left = limit;
        let mut buffer = [0; 4096];
        while left > 0 {
            let wanted = left.min(buffer.len());
            let Ok(count @ 1..) = server.read(&mut buffer[..wanted]) else {
                break;
            };
            if client.write_all(&buffer[..count]).is_err() {
                break;
            }
            left -= count;
        }
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
        upwards.join().expect("it ends");
    });
    (address, proxy)
}

#[test]
fn a_link_that_drops_in_the_middle() {
    let folder = TempDir::new().expect("a folder");
    for limit in [1, 100, 3_000, 20_000, 60_000] {
        let demo = demo::start().expect("a demo");
        let (address, proxy) = dropping_proxy(demo.address(), limit);
        let file = folder.path().join("snapshot");
        let ran = fail(["save", &address, text(&file), "--timeout", "60"], &address);
        assert!(!ran.stderr.contains("no answer within"), "{}", ran.stderr);
        proxy.join().expect("it ends");
        assert_eq!(names(folder.path()), [""; 0], "after {limit} bytes");
    }
}

#[test]
fn files_that_are_not_ours() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("file");
    for (content, words) in [
        (&b""[..], "neither a snapshot nor a memory dump"),
        (b"text", "neither a snapshot nor a memory dump"),
        (&[0; 4096], "neither a snapshot nor a memory dump"),
        (b"\x7fELF", "truncated or damaged"),
        (
            &program().elf(),
            "no snapshot but a program: name it with --image",
        ),
    ] {
        fs::write(&path, content).expect("a file");
        fail(["list", text(&path)], words);
    }
    fail(["list", text(folder.path())], "not a regular file");
    fail(
        ["list", text(&folder.path().join("missing"))],
        "no such file",
    );
}

/// By the library, which is quicker; the program prints just that sentence.
#[test]
fn a_snapshot_cut_at_any_byte() {
    let folder = TempDir::new().expect("a folder");
    let whole = folder.path().join("whole");
    succeed(["save", "demo", text(&whole)]);
    let bytes = fs::read(&whole).expect("it was saved");
    let path = folder.path().join("cut");
    let opener = Opener {
        target: text(&path).to_owned(),
        images: Vec::new(),
        timeout: Duration::from_secs(5),
    };
    let ends = (0..2048)
        .chain((2048..bytes.len()).step_by(997))
        .chain(bytes.len() - 64..bytes.len());
    for end in ends {
        fs::write(&path, &bytes[..end]).expect("a file");
        let error = opener.open().err().map(|error| error.to_string());
        let error = error.unwrap_or_else(|| panic!("{end} bytes of {} open", bytes.len()));
        assert!(
            error.starts_with(text(&path)) && !error.contains('\n'),
            "{end}: {error}"
        );
    }
    fs::write(&path, &bytes[..bytes.len() / 2]).expect("a file");
    fail(["list", text(&path)], text(&path));
}

#[test]
fn a_file_that_cannot_be_written_stays_away() {
    let folder = TempDir::new().expect("a folder");
    let missing = folder.path().join("missing/snapshot");
    let ran = fail(["save", "demo", text(&missing)], "there is no such folder");
    assert!(!ran.stderr.contains(".snapshot"), "{}", ran.stderr);
    fail(["save", "demo", text(folder.path())], text(folder.path()));
    assert_eq!(names(folder.path()), [""; 0]);

    // As a device would be, it is not replaced.
    let socket = folder.path().join("socket");
    let _listener = UnixListener::bind(&socket).expect("a socket");
    fail(["save", "demo", text(&socket)], "not a regular file");
    assert_eq!(names(folder.path()), ["socket"]);
    let kind = fs::metadata(&socket).expect("it is there").file_type();
    assert!(kind.is_socket());
}

#[test]
fn images_without_what_is_needed() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("hyp.elf");
    let image = ["--image", text(&path)];

    fail([&["list", "demo"], &image[..]].concat(), "No such file");
    fs::write(&path, "text").expect("a file");
    fail(
        [&["list", "demo"], &image[..]].concat(),
        "not an ELF file of 64 bits",
    );

    let mut stripped = program();
    stripped.variables.clear();
    fs::write(&path, stripped.elf()).expect("a file");
    let ran = fail(
        [&["cpus", "demo"], &image[..]].concat(),
        "hyp.elf: `HYP`: the file has no debug information",
    );
    assert!(
        ran.stdout.contains("EL2"),
        "CPUs need no symbols: {}",
        ran.stdout
    );

    // A machine that does not describe itself, and an ELF without the symbol.
    let mute = folder.path().join("mute");
    snapshot::write(
        &mute,
        &Contents {
            registers: vec![Default::default()],
            ..Contents::default()
        },
    )
    .expect("a snapshot");
    stripped.symbols.clear();
    fs::write(&path, stripped.elf()).expect("a file");
    fail(
        [&["list", text(&mute)], &image[..]].concat(),
        "no symbol `HYP` in ",
    );
    fail(["list", text(&mute)], "no hypervisor found");
}

#[test]
fn a_regime_that_is_not_there() {
    fail(
        ["list", "demo", "--regime", "guest-s2:0x1000"],
        "there are host-s2, hyp-s1",
    );
    fail(["walk", "demo", "s2", "0x0"], "no regime `s2`");
}

/// Nothing would ever come of waiting for it.
#[test]
fn a_cpu_that_is_not_there() {
    fail(
        ["abort", "--cpu", "4"],
        "no CPU 4; there are 4, numbered from 0",
    );
}

/// A file holds a machine that cannot run.
#[test]
fn nothing_is_followed_in_a_snapshot() {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("snapshot");
    let file = file.to_str().expect("a plain path");
    succeed(["save", "demo", file]);
    let ran = inspector(["abort", file]);
    assert_eq!(
        (ran.status, ran.stdout.as_str(), ran.stderr),
        (
            3,
            "",
            format!(
                "inspector: {file}: it cannot run: host aborts are followed on a machine, not in a file\n"
            )
        )
    );
}
