//! A wire between a client and a gdb server that can be cut, or fall silent, at a given packet.

use std::io::{BufReader, Read, Write};
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

    /// Carries bytes between the next client and the server at `unix:PATH`, until either is gone. Each packet of the client's
    /// is given to `see` before it is passed on, which says how it goes on. Returns how many there were.
    pub(crate) fn carry(&self, server: &str, mut see: impl FnMut(&str) -> Then) -> usize {
        let (client, _) = self.listener.accept().expect("a client");
        let path = server.trim_start_matches("unix:");
        let mut server = UnixStream::connect(Path::new(path)).expect("a server");
        let mut replies = server.try_clone().expect("a socket");
        let mut out = client.try_clone().expect("a socket");
        let back = std::thread::spawn(move || {
            let _ = std::io::copy(&mut replies, &mut out);
            let _ = out.shutdown(Shutdown::Both);
        });
        let (mut sent, mut then) = (0, Then::Goes);
        let mut bytes = Vec::new();
        for byte in BufReader::new(&client).bytes().map_while(Result::ok) {
            bytes.push(byte);
            // A packet ends behind the two digits of its checksum; all else is one byte.
            match *bytes {
                [b'$', .., b'#', _, _] => {}
                [b'$', ..] => continue,
                _ => {}
            }
            if let [b'$', body @ .., _, _, _] = &*bytes {
                if then == Then::Goes {
                    then = see(&String::from_utf8_lossy(body));
                }
                sent += 1;
            }
            match then {
                Then::Cut => break,
                Then::Goes if server.write_all(&bytes).is_err() => break,
                Then::Mute | Then::Goes => bytes.clear(),
            }
        }
        for stream in [&client, &server] {
            let _ = stream.shutdown(Shutdown::Both);
        }
        back.join().expect("it ends");
        sent
    }
}
