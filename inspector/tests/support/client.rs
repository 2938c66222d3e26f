//! A bare client of a gdb server, for what the inspector does not do: breakpoints, and vanishing.

use fixtures::LIMIT;
use inspector::target::rsp::{self, Decoder, Event};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A connection. Dropping it says nothing to the server.
pub(crate) struct Client {
    stream: UnixStream,
    decoder: Decoder,
    events: VecDeque<Event>,
}

impl Client {
    /// Connects to `unix:PATH`; says nothing.
    pub(crate) fn connect(address: &str) -> Self {
        let path = address.strip_prefix("unix:").expect("a Unix socket");
        let stream = UnixStream::connect(path).expect("a server listens");
        Self {
            stream,
            decoder: Decoder::new(1 << 18),
            events: VecDeque::new(),
        }
    }

    /// Sends a packet.
    pub(crate) fn send(&mut self, body: &str) {
        let mut bytes = Vec::new();
        rsp::encode(body.as_bytes(), &mut bytes);
        self.send_raw(&bytes);
    }

    /// Sends bytes that need be no packet.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
    }

    /// Ctrl-C.
    pub(crate) fn interrupt(&mut self) {
        self.send_raw(&[rsp::INTERRUPT]);
    }

    /// The next packet, acknowledged.
    pub(crate) fn packet(&mut self) -> Vec<u8> {
        self.packet_within(LIMIT).expect("the server answers")
    }

    /// The same, if it comes before for so long nothing comes.
    pub(crate) fn packet_within(&mut self, limit: Duration) -> Option<Vec<u8>> {
        self.stream.set_read_timeout(Some(limit)).expect("a socket");
        loop {
            if let Some(event) = self.events.pop_front() {
                let Event::Packet(body) = event else {
                    continue;
                };
                self.send_raw(b"+");
                return Some(body);
            }
            let mut buffer = [0; 4096];
            let count = match self.stream.read(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                other => other.expect("the server is there"),
            };
            assert!(count > 0, "the server hung up");
            self.decoder.feed(&buffer[..count], &mut self.events);
        }
    }

    /// The next packet that says that the machine stopped; others are passed over.
    pub(crate) fn stop(&mut self) -> String {
        loop {
            let packet = self.packet();
            if packet.starts_with(b"T") {
                return String::from_utf8(packet).expect("text");
            }
        }
    }

    /// The answer to a packet; that the machine stopped is passed over.
    pub(crate) fn ask(&mut self, body: &str) -> Vec<u8> {
        self.send(body);
        loop {
            let packet = self.packet();
            if !packet.starts_with(b"T") {
                return packet;
            }
        }
    }

    /// Asks for what is answered with `OK`.
    pub(crate) fn order(&mut self, body: &str) {
        let answer = self.ask(body);
        assert_eq!(answer, b"OK", "{body}");
    }
}
