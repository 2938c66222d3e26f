//! A wire between a client and a gdb server that can be cut, or fall silent, at a given packet.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use tempfile::TempDir;

/// What becomes of the wire from one packet on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Then {
    /// It goes on.
    Goes,
    /// Both ends find it closed.
    Cut,
    /// Nothing more reaches the server, and so nothing is answered.
    Mute,
}

/// A socket in front of a server.
pub(crate) struct Wire {
    listener: UnixListener,
    name: String,
    _folder: TempDir,
}

impl Wire {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("wire");
        Self {
            listener: UnixListener::bind(&path).expect("a socket"),
            name: format!("unix:{}", path.display()),
            _folder: folder,
        }
    }

    /// What a client connects to.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Carries bytes between the next client and the server at `unix:PATH`, until either is gone. Where the client has sent
    /// so many packets and begins another, `act` is called and says how it goes on. Returns how many the client has sent.
    pub(crate) fn carry(&self, server: &str, packets: usize, act: impl FnOnce() -> Then) -> usize {
        let (mut client, _) = self.listener.accept().expect("a client");
        let path = server.trim_start_matches("unix:");
        let mut server = UnixStream::connect(Path::new(path)).expect("a server");
        let mut replies = server.try_clone().expect("a socket");
        let mut out = client.try_clone().expect("a socket");
        let back = std::thread::spawn(move || {
            let _ = std::io::copy(&mut replies, &mut out);
            let _ = out.shutdown(Shutdown::Both);
        });
        let mut act = Some(act);
        let (mut sent, mut then) = (0, Then::Goes);
        let mut byte = [0];
        while client.read(&mut byte).unwrap_or(0) > 0 {
            if byte == *b"$" {
                if sent == packets
                    && let Some(act) = act.take()
                {
                    then = act();
                }
                sent += 1;
            }
            match then {
                Then::Cut => break,
                Then::Goes if server.write_all(&byte).is_err() => break,
                Then::Mute | Then::Goes => {}
            }
        }
        for stream in [&client, &server] {
            let _ = stream.shutdown(Shutdown::Both);
        }
        back.join().expect("it ends");
        sent
    }
}
