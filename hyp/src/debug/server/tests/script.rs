//! A client that says what a test wrote down.

use super::super::*;
use crate::debug::fake::Fake;
use core::cell::{Cell, RefCell};
use std::prelude::rust_2024::*;

/// A line along which a client says one thing after the other. After each, nothing comes for once, so that a machine
/// that runs has its turn; at the end the line is lost.
pub(crate) struct Script {
    steps: Vec<Vec<u8>>,
    /// Step, and byte in it.
    next: Cell<(usize, usize)>,
    /// What came during each step.
    heard: RefCell<Vec<Vec<u8>>>,
}

impl Line for Script {
    fn receive(&self, _patient: bool) -> Received {
        let (step, byte) = self.next.get();
        let Some(said) = self.steps.get(step) else {
            return Received::Lost;
        };
        if byte == 0 {
            self.heard.borrow_mut().resize(step + 1, Vec::new());
        }
        match said.get(byte) {
            Some(&said) => {
                self.next.set((step, byte + 1));
                Received::Byte(said)
            }
            None => {
                self.next.set((step + 1, 0));
                Received::Nothing
            }
        }
    }

    fn send(&self, bytes: &[u8]) {
        assert!(bytes.len() <= PACKET_SIZE);
        let mut heard = self.heard.borrow_mut();
        heard.last_mut().unwrap().extend_from_slice(bytes);
    }
}

/// A packet around a body.
pub(crate) fn frame(body: &[u8]) -> Vec<u8> {
    let sum = body.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    [b"$", body, format!("#{sum:02x}").as_bytes()].concat()
}

/// Says `steps` to a server of `stub` and returns what came in reply to each, and whether the machine is to run.
pub(crate) fn converse(
    stub: &mut Stub<Fake>,
    running: bool,
    steps: Vec<Vec<u8>>,
) -> (Vec<Vec<u8>>, bool) {
    let script = Script {
        steps,
        next: Cell::new((0, 0)),
        heard: RefCell::default(),
    };
    let running = serve(stub, &script, &mut Box::new(Buffers::new()), running);
    (script.heard.into_inner(), running)
}

/// What was sent, with `[body]` for each packet; its checksum must be right.
pub(crate) fn read(sent: &[u8]) -> String {
    let mut text = String::new();
    let mut rest = sent;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'$' {
            text.push(char::from(byte));
            continue;
        }
        let end = rest.iter().position(|byte| *byte == b'#').unwrap();
        let (body, after) = rest.split_at(end);
        let whole = frame(body);
        assert_eq!(after[..3], whole[whole.len() - 3..]);
        text.push_str(&format!("[{}]", String::from_utf8_lossy(body)));
        rest = &after[3..];
    }
    text
}

/// Bytes for what a table says: `^C`; `=…` as it stands; anything else, but nothing, is the body of a packet.
pub(crate) fn step(said: &str) -> Vec<u8> {
    match said {
        "" => Vec::new(),
        "^C" => vec![3],
        _ => match said.strip_prefix('=') {
            Some(raw) => raw.into(),
            None => frame(said.as_bytes()),
        },
    }
}

/// A machine with tables, behind the protocol.
pub(crate) fn stub() -> Stub<Fake> {
    Stub::new(Fake::with_tables())
}

/// Holds a conversation and compares it with a table of what is said and what is heard then. Returns whether the
/// machine is to run at its end.
pub(crate) fn check(stub: &mut Stub<Fake>, running: bool, table: &[(&str, &str)]) -> bool {
    let steps = table.iter().map(|(said, _)| step(said)).collect();
    let (heard, running) = converse(stub, running, steps);
    assert_eq!(heard.len(), table.len());
    for ((said, expected), heard) in table.iter().zip(heard) {
        assert_eq!(read(&heard), *expected, "{said}");
    }
    running
}
