//! The gdb remote serial protocol as a machine that eats bytes: no I/O, no allocation beyond its limit.
//!
//! ```text
//!  $ body # 6d      a packet; the two digits are the sum of the body's bytes as sent
//!  % body # 6d      a notification, framed likewise and never acknowledged
//!  + -  0x03        acknowledgement, its refusal, interrupt
//!  } c              inside a body: the byte c ^ 0x20
//!  c * n            inside a body: c, then n - 29 more of it
//! ```
//!
//! Bytes between packets belong to nobody: they are counted and skipped, so that a stream which
//! starts in the middle of a packet is in step again at the next `$`.

use std::collections::VecDeque;

/// Ctrl-C: asks a running machine to stop.
pub const INTERRUPT: u8 = 0x03;
/// What a run's count is offset by, so that it is printable.
const RUN_OFFSET: u8 = 29;

/// Something the other side said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A packet with a correct checksum, decoded.
    Packet(Vec<u8>),
    /// A notification with a correct checksum, decoded.
    Notification(Vec<u8>),
    /// `+`: the last packet arrived.
    Ack,
    /// `-`: the last packet arrived damaged; send it again.
    Nak,
    /// 0x03, which a client sends to a server.
    Interrupt,
    /// A packet that must not be used.
    Damaged(Damage),
}

/// What is wrong with a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Damage {
    /// The digits after `#` are not the sum of the body.
    #[error("its checksum is wrong")]
    Checksum,
    /// The decoded body is longer than the limit.
    #[error("it is longer than allowed")]
    Oversize,
    /// A run without a byte before it, a count below the offset, or an escape without a byte after it.
    #[error("its run-length or escape coding is wrong")]
    Coding,
    /// Another `$` came before this packet's end.
    #[error("it was cut short by another packet")]
    Restarted,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Between packets.
    Idle,
    Body,
    /// After `}`.
    Escape,
    /// After `*`.
    Run,
    /// After `#`.
    High,
    /// After `#` and the first digit, as sent.
    Low(u8),
}

/// Cuts a stream of bytes into [`Event`]s.
#[derive(Clone, Debug)]
pub struct Decoder {
    state: State,
    notification: bool,
    body: Vec<u8>,
    sum: u8,
    damage: Option<Damage>,
    limit: usize,
    skipped: u64,
}

impl Decoder {
    /// A decoder that keeps at most `limit` bytes of a decoded body.
    pub fn new(limit: usize) -> Self {
        Self {
            state: State::Idle,
            notification: false,
            body: Vec::new(),
            sum: 0,
            damage: None,
            limit,
            skipped: 0,
        }
    }

    /// How many bytes stood between packets and meant nothing.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Eats `bytes` and appends what they complete to `events`.
    pub fn feed(&mut self, bytes: &[u8], events: &mut VecDeque<Event>) {
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            let plain = match self.state {
                State::Body => rest.iter().take_while(|byte| is_plain(**byte)).count(),
                _ => 0,
            };
            if plain > 0 {
                self.keep_plain(&rest[..plain]);
                rest = &rest[plain..];
            } else {
                events.extend(self.push(byte));
                rest = after;
            }
        }
    }

    /// Bytes of a body that stand for themselves, which is nearly all of a long one.
    fn keep_plain(&mut self, bytes: &[u8]) {
        self.sum = sum(self.sum, bytes);
        if self.body.len() + bytes.len() > self.limit {
            self.spoil(Damage::Oversize);
        }
        if self.damage.is_none() {
            self.body.extend(bytes);
        }
    }

    /// Eats one byte; it completes at most one event.
    pub fn push(&mut self, byte: u8) -> Option<Event> {
        match self.state {
            State::Idle => return self.between(byte),
            State::Body | State::Escape | State::Run if byte == b'$' => {
                // `$` is always escaped inside a body, so the rest of this one got lost.
                self.start(false);
                return Some(Event::Damaged(Damage::Restarted));
            }
            State::Body | State::Escape | State::Run if byte == b'#' => {
                if self.state != State::Body {
                    self.spoil(Damage::Coding);
                }
                self.state = State::High;
            }
            State::High => self.state = State::Low(byte),
            State::Low(high) => return Some(self.finish(high, byte)),
            State::Body | State::Escape | State::Run => {
                self.sum = self.sum.wrapping_add(byte);
                self.coded(byte);
            }
        }
        None
    }

    fn between(&mut self, byte: u8) -> Option<Event> {
        match byte {
            b'$' => self.start(false),
            b'%' => self.start(true),
            b'+' => return Some(Event::Ack),
            b'-' => return Some(Event::Nak),
            INTERRUPT => return Some(Event::Interrupt),
            _ => self.skipped += 1,
        }
        None
    }

    fn start(&mut self, notification: bool) {
        self.state = State::Body;
        self.notification = notification;
        self.body.clear();
        self.sum = 0;
        self.damage = None;
    }

    /// One byte of a body, neither `#` nor `$`.
    fn coded(&mut self, byte: u8) {
        match self.state {
            State::Escape => self.keep(byte ^ 0x20, 1),
            State::Run => {
                match (self.body.last().copied(), byte.checked_sub(RUN_OFFSET)) {
                    (Some(last), Some(count)) if byte < 0x7f => self.keep(last, count.into()),
                    _ => self.spoil(Damage::Coding),
                };
            }
            _ => {
                self.state = match byte {
                    b'}' => State::Escape,
                    b'*' => State::Run,
                    _ => {
                        self.keep(byte, 1);
                        State::Body
                    }
                };
                return;
            }
        }
        self.state = State::Body;
    }

    fn keep(&mut self, byte: u8, count: usize) {
        if self.damage.is_some() {
            return;
        }
        let length = self.body.len() + count;
        if length > self.limit {
            self.spoil(Damage::Oversize);
        } else {
            self.body.resize(length, byte);
        }
    }

    /// Remembers the first thing wrong with a packet; its rest is skipped.
    fn spoil(&mut self, damage: Damage) {
        self.damage.get_or_insert(damage);
        self.body.clear();
    }

    fn finish(&mut self, high: u8, low: u8) -> Event {
        self.state = State::Idle;
        let sent = hex_digit(high).zip(hex_digit(low));
        // Whether the bytes arrived comes before what they mean.
        if sent.is_none_or(|(high, low)| high << 4 | low != self.sum) {
            return Event::Damaged(Damage::Checksum);
        }
        match self.damage {
            Some(damage) => Event::Damaged(damage),
            None if self.notification => Event::Notification(std::mem::take(&mut self.body)),
            None => Event::Packet(std::mem::take(&mut self.body)),
        }
    }
}

/// Whether a byte stands for itself in a body.
fn is_plain(byte: u8) -> bool {
    !matches!(byte, b'#' | b'$' | b'}' | b'*')
}

/// The sum of bytes modulo 256, on top of `start`.
fn sum(start: u8, bytes: &[u8]) -> u8 {
    bytes
        .iter()
        .fold(start, |sum, byte| sum.wrapping_add(*byte))
}

/// Appends `body` to `out` as a packet: framed, escaped, without run-length coding.
pub fn encode(body: &[u8], out: &mut Vec<u8>) {
    out.push(b'$');
    let start = out.len();
    for &byte in body {
        match is_plain(byte) {
            true => out.push(byte),
            false => out.extend([b'}', byte ^ 0x20]),
        }
    }
    let sum = sum(0, &out[start..]);
    out.extend(format!("#{sum:02x}").into_bytes());
}

/// The value of one hexadecimal digit of either case.
pub fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// The bytes that pairs of hexadecimal digits stand for; `None` for anything else.
pub fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_chunks::<2>() else {
        return None;
    };
    pairs
        .iter()
        .map(|&[high, low]| Some(hex_digit(high)? << 4 | hex_digit(low)?))
        .collect()
}

/// Bytes as pairs of hexadecimal digits.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        text.push(char::from_digit((byte >> 4).into(), 16).unwrap_or('0'));
        text.push(char::from_digit((byte & 15).into(), 16).unwrap_or('0'));
        text
    })
}

#[cfg(test)]
mod tests;
