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
        self.line.send(&self.buffer[..self.sent]);
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
