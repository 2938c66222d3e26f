//! A wire between a debugger and a gdb server, on which requests are counted.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use tempfile::TempDir;

/// A packet that no server knows. Whoever cannot look at the counter himself sends it where counting is to begin and
/// where it is to end.
pub(crate) const MARK: &str = "qInspectorBench";

/// A socket for one session.
pub(crate) struct Tap {
    address: String,
    counts: Arc<Counts>,
    _folder: TempDir,
}

#[derive(Default)]
struct Counts {
    requests: AtomicUsize,
    /// Those before the last mark but one, that one among them.
    first: AtomicUsize,
    /// Those before the last mark.
    last: AtomicUsize,
}

impl Counts {
    fn take(&self, bytes: &[u8]) {
        let mark = format!("${MARK}#");
        let is_mark = bytes
            .windows(mark.len())
            .any(|window| window == mark.as_bytes());
        // In a packet it would be escaped.
        let packets = bytes.iter().filter(|byte| **byte == b'#').count();
        let before = self.requests.fetch_add(packets, Ordering::SeqCst);
        if is_mark {
            let last = self.last.swap(before, Ordering::SeqCst);
            self.first.store(last + 1, Ordering::SeqCst);
        }
    }
}

impl Tap {
    /// A wire to the server at `unix:PATH`.
    pub(crate) fn new(server: &str) -> Self {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("tap");
        let listener = UnixListener::bind(&path).expect("a socket");
        let server = server.trim_start_matches("unix:").to_owned();
        let counts = Arc::<Counts>::default();
        let counting = Arc::clone(&counts);
        thread::spawn(move || {
            let (client, _) = listener.accept().expect("a client");
            let server = UnixStream::connect(server).expect("a server listens");
            let back = (server.try_clone(), client.try_clone());
            let (Ok(from), Ok(to)) = back else {
                return;
            };
            thread::spawn(move || pass_on(from, to, |_| ()));
            pass_on(client, server, |bytes| counting.take(bytes));
        });
        Self {
            address: format!("unix:{}", path.display()),
            counts,
            _folder: folder,
        }
    }

    /// Where it listens, as the inspector takes it.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Requests so far.
    pub(crate) fn requests(&self) -> usize {
        self.counts.requests.load(Ordering::SeqCst)
    }

    /// Requests between the last two marks.
    pub(crate) fn between_marks(&self) -> usize {
        let [first, last] = [&self.counts.first, &self.counts.last];
        last.load(Ordering::SeqCst) - first.load(Ordering::SeqCst)
    }
}

/// Until one of both has gone; then the other is told.
fn pass_on(mut from: UnixStream, mut to: UnixStream, mut see: impl FnMut(&[u8])) {
    let mut buffer = [0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        see(&buffer[..count]);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    for end in [from, to] {
        // It may be gone.
        let _ = end.shutdown(std::net::Shutdown::Both);
    }
}
