//! Packets to the client, each sent in one piece.

use super::{E2BIG, Line};
use core::convert::Infallible;
use core::fmt::{self, Write};
use gdbstub::conn::Connection;

/// Collects a packet until it is whole.
#[derive(Debug)]
pub(super) struct Outgoing<'a, L> {
    line: &'a L,
    buffer: &'a mut [u8],
    /// The size of the packet so far, also where that is beyond the buffer.
    length: usize,
    /// The size of the last packet that was sent, while it is in the buffer.
    sent: usize,
    /// How many packets to come are kept from the client.
    hidden: usize,
}

impl<'a, L: Line> Outgoing<'a, L> {
    /// Sends to `line`; a packet may be as long as `buffer`, frame included.
    pub(super) fn new(line: &'a L, buffer: &'a mut [u8]) -> Self {
        Self {
            line,
            buffer,
            length: 0,
            sent: 0,
            hidden: 0,
        }
    }

    /// Sends bytes that are no packet: acknowledgements.
    pub(super) fn send_raw(&self, bytes: &[u8]) {
        self.line.send(bytes);
    }

    /// Sends a packet in place of what was collected so far.
    pub(super) fn send(&mut self, body: fmt::Arguments<'_>) {
        self.length = 0;
        self.hidden = 0;
        self.push(b'$');
        // Takes everything.
        let _ = self.write_fmt(body);
        let body = self.buffer.get(1..self.length).unwrap_or_default();
        let sum = body.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        let _ = write!(self, "#{sum:02x}");
        self.end();
    }

    /// Sends the last packet once more, if it is still there.
    pub(super) fn send_again(&self) {
        if self.sent > 0 {
            self.line.send(&self.buffer[..self.sent]);
        }
    }

    /// Keeps the next packets from the client.
    pub(super) fn hide(&mut self, packets: usize) {
        self.hidden = packets;
    }

    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.buffer.get_mut(self.length) {
            *slot = byte;
        }
        self.length += 1;
        self.sent = 0;
    }

    fn end(&mut self) {
        let length = core::mem::take(&mut self.length);
        if let Some(hidden) = self.hidden.checked_sub(1) {
            self.hidden = hidden;
        } else if let Some(packet) = self.buffer.get(..length) {
            self.line.send(packet);
            self.sent = length;
        } else {
            self.send(format_args!("E{E2BIG:02x}"));
        }
    }
}

impl<L: Line> Write for Outgoing<'_, L> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| self.push(byte));
        Ok(())
    }
}

impl<L: Line> Connection for &mut Outgoing<'_, L> {
    type Error = Infallible;

    fn write(&mut self, byte: u8) -> Result<(), Infallible> {
        // What stands before a packet is gdbstub's acknowledgement; the server has given its own.
        if self.length > 0 || byte == b'$' {
            self.push(byte);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        self.end();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Received;
    use super::*;
    use core::cell::RefCell;
    use std::prelude::rust_2024::*;

    /// What was sent, one piece each.
    #[derive(Default)]
    struct Sent(RefCell<Vec<String>>);

    impl Line for Sent {
        fn receive(&self, _patient: bool) -> Received {
            Received::Lost
        }

        fn send(&self, bytes: &[u8]) {
            let text = String::from_utf8(bytes.into()).unwrap();
            self.0.borrow_mut().push(text);
        }
    }

    /// What gdbstub does to answer a packet.
    fn reply(mut out: &mut Outgoing<'_, Sent>, bytes: &[u8]) {
        let Ok(()) = out.write_all(bytes);
        let Ok(()) = out.flush();
    }

    #[test]
    fn packets_are_sent_in_one_piece_and_once_more_when_asked() {
        let (line, mut buffer) = (Sent::default(), [0; 16]);
        let mut out = Outgoing::new(&line, &mut buffer);
        out.send_again();
        out.send(format_args!("E{:02x}", 22));
        out.send_again();
        reply(&mut out, b"+$OK#9a");
        out.send_again();
        out.send_raw(b"+");
        out.send_again();
        let sent = ["$E16#ac", "$E16#ac", "$OK#9a", "$OK#9a", "+", "$OK#9a"];
        assert_eq!(*line.0.borrow(), sent);
    }

    #[test]
    fn what_was_begun_gives_way_to_what_is_sent() {
        let (line, mut buffer) = (Sent::default(), [0; 16]);
        let mut out = Outgoing::new(&line, &mut buffer);
        out.hide(1);
        reply(&mut out, b"$OK#9a");
        out.send_again();
        let Ok(()) = (&mut out).write_all(b"$half");
        out.send_again();
        out.hide(1);
        out.send(format_args!("OK"));
        assert_eq!(*line.0.borrow(), ["$OK#9a"]);
    }

    #[test]
    fn a_packet_that_does_not_fit_becomes_an_error() {
        let (line, mut buffer) = (Sent::default(), [0; 16]);
        let mut out = Outgoing::new(&line, &mut buffer);
        out.send(format_args!("{}", "x".repeat(12)));
        out.send(format_args!("{}", "x".repeat(13)));
        reply(&mut out, &[b'$'; 17]);
        assert_eq!(line.0.borrow()[1..], ["$E07#ac", "$E07#ac"]);
        assert_eq!(line.0.borrow()[0].len(), 16);
    }
}
