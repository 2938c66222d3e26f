//! How often the program waits for QEMU while it follows aborts: round trips, whatever each takes.

use crate::qemu_hyp::{arguments, working};
use crate::run::succeed;
use fixtures::qemu::{Boot, Machine};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Mutex, MutexGuard};
use std::thread;

/// Attaching, finding out what is there, and leaving: 52 were counted.
const ONCE: usize = 70;
/// A session of `abort`, but for its stories: it attaches, finds out what is there and where to stop, and leaves. On a busy
/// computer 160 were counted, 60 for each story and 10 for each stop, or 65 more or less in all: requests that are sent ahead
/// are one trip only where they come before the last answer does. If none did, there would be a fifth more.
const SESSION: usize = 300;
/// A story: two captures, breakpoints set and removed.
const STORY: usize = 90;
/// A stop.
const STOP: usize = 15;

/// What went over a wire.
#[derive(Default)]
struct Count {
    /// Requests that are not answered yet.
    open: usize,
    /// How often the client, with all of them answered, asked again.
    trips: usize,
    /// How often it let the machine run.
    runs: usize,
}

fn packets(bytes: &[u8], start: &[u8]) -> usize {
    let parts = bytes.windows(start.len());
    parts.filter(|part| *part == start).count()
}

impl Count {
    fn requested(&mut self, bytes: &[u8]) {
        let requests = packets(bytes, b"$");
        self.trips += usize::from(self.open == 0 && requests > 0);
        self.open += requests;
        self.runs += packets(bytes, b"$vCont;c#");
    }

    /// Stops come unasked for, too.
    fn answered(&mut self, bytes: &[u8]) {
        self.open = self.open.saturating_sub(packets(bytes, b"$"));
    }
}

/// Takes bytes from one end to the other until one of the two is gone.
fn carry(mut from: UnixStream, mut to: UnixStream, see: impl Fn(&[u8])) {
    let mut bytes = [0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        see(&bytes[..count]);
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}

fn lock(count: &Mutex<Count>) -> MutexGuard<'_, Count> {
    count.lock().expect("nobody panicked")
}

/// What one run of the program asks of a machine.
fn count(machine: &Machine, rest: &[&str]) -> (usize, usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("gdb");
    let listener = UnixListener::bind(&path).expect("a socket");
    let server = machine.gdb().trim_start_matches("unix:").to_owned();
    let count = Mutex::new(Count::default());
    thread::scope(|scope| {
        scope.spawn(|| {
            let (client, _) = listener.accept().expect("a client");
            let server = UnixStream::connect(server).expect("a server");
            let other = |end: &UnixStream| end.try_clone().expect("a second end");
            let (back, again) = (other(&server), other(&client));
            thread::scope(|scope| {
                scope.spawn(|| carry(back, again, |bytes| lock(&count).answered(bytes)));
                carry(client, server, |bytes| lock(&count).requested(bytes));
            });
        });
        let address = format!("unix:{}", path.display());
        succeed(arguments(machine, &address, rest));
    });
    let count = lock(&count);
    (count.trips, count.runs)
}

#[test]
fn round_trips_of_a_story_are_few() {
    let machine = working(&Boot::hyp().expect("the image builds").cpus(2));
    let (trips, _) = count(&machine, &["info"]);
    assert!(trips <= ONCE, "{trips} round trips to look");
    for stories in [1, 4] {
        let rest = [
            "abort",
            "--ipa",
            "0x43000000..0x43200000",
            "--count",
            &stories.to_string(),
        ];
        let (trips, runs) = count(&machine, &rest);
        let limit = SESSION + stories * STORY + runs * STOP;
        assert!(
            trips <= limit,
            "{trips} of {limit} round trips for {stories} stories, {runs} runs"
        );
    }
}
