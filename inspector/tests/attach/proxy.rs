//! A wire between the inspector and QEMU that knows how far a session is.

use inspector::target::rsp::{self, Decoder, Event};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use tempfile::TempDir;

/// What a session has come to.
#[derive(Default, Debug)]
pub(crate) struct Session {
    /// What the inspector has asked and QEMU has answered, in order.
    pub(crate) requests: Vec<String>,
    /// QEMU's physical memory mode is on.
    pub(crate) physical: bool,
    /// The inspector's mark is set.
    pub(crate) marked: bool,
    /// QEMU was told to let the machine run.
    pub(crate) detached: bool,
}

impl Session {
    fn take(&mut self, request: String) {
        match request.as_str() {
            "Qqemu.PhyMemMode:0" => self.physical = false,
            "Qqemu.PhyMemMode:1" => self.physical = true,
            "?" => self.marked = false,
            _ if request.starts_with("D;") => (self.marked, self.detached) = (false, true),
            _ if request.starts_with("z1,696e7370656374") => self.marked = false,
            _ if request.starts_with("Z1,696e7370656374") => self.marked = true,
            _ => {}
        }
        self.requests.push(request);
    }
}

/// A socket for one session.
pub(crate) struct Proxy {
    listener: UnixListener,
    address: String,
    server: String,
    _folder: TempDir,
}

/// One end of the wire.
struct End {
    stream: UnixStream,
    decoder: Decoder,
}

impl End {
    fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            decoder: Decoder::new(1 << 18),
        }
    }

    fn send(&mut self, body: &[u8]) {
        let mut bytes = Vec::new();
        rsp::encode(body, &mut bytes);
        self.stream.write_all(&bytes).expect("QEMU reads");
    }

    /// The packets of one read; `None` at the end. Each is acknowledged.
    fn packets(&mut self) -> Option<Vec<Vec<u8>>> {
        let mut buffer = [0; 1 << 16];
        let count = match self.stream.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
            other => other.expect("it is read"),
        };
        if count == 0 {
            return None;
        }
        let mut events = VecDeque::new();
        self.decoder.feed(&buffer[..count], &mut events);
        let packets: Vec<_> = events
            .into_iter()
            .filter_map(|event| match event {
                Event::Packet(body) => Some(body),
                _ => None,
            })
            .collect();
        Some(packets)
    }
}

impl Proxy {
    /// Listens for a client of `unix:PATH`.
    pub(crate) fn new(server: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("gdb");
        Self {
            listener: UnixListener::bind(&path).expect("a socket"),
            address: format!("unix:{}", path.display()),
            server: server.trim_start_matches("unix:").to_owned(),
            _folder: folder,
        }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Takes requests to QEMU and replies back, one at a time, until the client is gone. Once QEMU has answered as many
    /// as `moment`, `disturb` is called; if that was `fatal`, nothing more reaches QEMU, as from a client that is dead.
    pub(crate) fn serve(&self, moment: usize, disturb: impl Fn(), fatal: bool) -> Session {
        let (client, _) = self.listener.accept().expect("a client");
        let mut client = End::new(client);
        let server = UnixStream::connect(&self.server).expect("a server");
        let mut server = End::new(server);
        let mut session = Session::default();
        let mut replies = VecDeque::new();
        while let Some(requests) = client.packets() {
            for request in requests {
                server.send(&request);
                loop {
                    let Some(reply) = replies.pop_front() else {
                        replies.extend(server.packets().expect("QEMU is there"));
                        continue;
                    };
                    server.stream.write_all(b"+").expect("QEMU reads");
                    let mut bytes = Vec::new();
                    rsp::encode(&reply, &mut bytes);
                    // It may be gone.
                    let _ = client.stream.write_all(&bytes);
                    // That the machine stopped, and text of the monitor's, come before the reply.
                    let more =
                        reply.starts_with(b"T02") || reply.starts_with(b"O") && reply != b"OK";
                    if !more {
                        break;
                    }
                }
                session.take(String::from_utf8(request).expect("text"));
                if session.requests.len() == moment {
                    disturb();
                    if fatal {
                        return session;
                    }
                }
            }
        }
        session
    }
}
