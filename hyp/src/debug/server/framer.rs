//! Packets out of a stream of bytes that may begin and end anywhere.
//!
//! ```text
//!  $ body # 6d      a packet; the two digits are the sum of the body's bytes
//!  -                the last reply arrived damaged
//!  0x03             between packets: stop the machine
//! ```
//!
//! No `$` stands inside a body, so one always begins a packet: what a vanished client left half said is forgotten as
//! soon as the next one speaks. Whatever else stands between packets, acknowledgements among it, means nothing.

use super::request::digit;

/// Ctrl-C.
const INTERRUPT: u8 = 0x03;

/// What a byte completed. The body of a packet is [`Framer::body`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Event {
    /// A packet.
    Packet,
    /// A packet whose body did not fit.
    TooLong,
    /// A packet whose checksum is wrong or none.
    Damaged,
    /// The client wants the last reply again.
    Again,
    /// The client wants the machine to stop.
    Interrupt,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Between,
    Body,
    /// Behind `#`.
    High,
    /// Behind the first digit of the checksum.
    Low {
        high: u8,
    },
}

/// Collects packets.
#[derive(Debug)]
pub(super) struct Framer<'a> {
    state: State,
    buffer: &'a mut [u8],
    /// The size of the body so far, also where that is beyond the buffer.
    length: usize,
    sum: u8,
}

impl<'a> Framer<'a> {
    /// Between packets; a body may be as long as `buffer`.
    pub(super) fn new(buffer: &'a mut [u8]) -> Self {
        Self {
            state: State::Between,
            buffer,
            length: 0,
            sum: 0,
        }
    }

    /// The body of the packet that the last byte completed.
    pub(super) fn body(&self) -> &[u8] {
        self.buffer.get(..self.length).unwrap_or_default()
    }

    /// Takes the next byte.
    pub(super) fn push(&mut self, byte: u8) -> Option<Event> {
        if byte == b'$' {
            self.state = State::Body;
            self.length = 0;
            self.sum = 0;
            return None;
        }
        match self.state {
            State::Between => match byte {
                b'-' => Some(Event::Again),
                INTERRUPT => Some(Event::Interrupt),
                _ => None,
            },
            State::Body if byte == b'#' => {
                self.state = State::High;
                None
            }
            State::Body => {
                if let Some(slot) = self.buffer.get_mut(self.length) {
                    *slot = byte;
                }
                self.length += 1;
                self.sum = self.sum.wrapping_add(byte);
                None
            }
            State::High => match digit(byte) {
                Some(high) => {
                    self.state = State::Low { high };
                    None
                }
                None => self.give_up(byte),
            },
            State::Low { high } => match digit(byte) {
                Some(low) => Some(self.finish(high << 4 | low)),
                None => self.give_up(byte),
            },
        }
    }

    fn finish(&mut self, sum: u8) -> Event {
        self.state = State::Between;
        if sum != self.sum {
            Event::Damaged
        } else if self.length > self.buffer.len() {
            Event::TooLong
        } else {
            Event::Packet
        }
    }

    /// Ends a packet at what is no digit of its checksum; that may be the first byte of another client.
    fn give_up(&mut self, byte: u8) -> Option<Event> {
        self.state = State::Between;
        Some(match byte {
            INTERRUPT => Event::Interrupt,
            _ => Event::Damaged,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::script::frame;
    use super::*;
    use proptest::prelude::*;
    use std::prelude::rust_2024::*;

    /// What bytes complete; of packets the bodies.
    fn events(bytes: &[u8]) -> Vec<(Event, Vec<u8>)> {
        let mut buffer = [0; 8];
        let mut framer = Framer::new(&mut buffer);
        let mut events = Vec::new();
        for &byte in bytes {
            if let Some(event) = framer.push(byte) {
                let body = match event {
                    Event::Packet => framer.body(),
                    _ => &[],
                };
                events.push((event, body.to_vec()));
            }
        }
        events
    }

    #[test]
    fn streams_and_what_they_hold() {
        use Event::*;
        type Case<'a> = (&'a [u8], &'a [(Event, &'a str)]);
        let cases: &[Case<'_>] = &[
            (b"$#00", &[(Packet, "")]),
            (b"$OK#9a", &[(Packet, "OK")]),
            (b"$OK#9A", &[(Packet, "OK")]),
            (b"++$?#3f+", &[(Packet, "?")]),
            (b"?#3f%Stop#01", &[]),
            (b"$?#3f$?#3f", &[(Packet, "?"), (Packet, "?")]),
            // The end of one client, and the beginning of the next.
            (b"$m40", &[]),
            (b"$m40$?#3f", &[(Packet, "?")]),
            (b"$m40#$?#3f", &[(Packet, "?")]),
            (b"$m40#3$?#3f", &[(Packet, "?")]),
            (b"$m40#+$?#3f", &[(Damaged, ""), (Packet, "?")]),
            (b"$m40#\x03", &[(Interrupt, "")]),
            (b"$m40#3\x03$?#3f", &[(Interrupt, ""), (Packet, "?")]),
            // Damage.
            (b"$?#3e", &[(Damaged, "")]),
            (b"$?#zz", &[(Damaged, "")]),
            (b"$?#3z", &[(Damaged, "")]),
            (b"$?#-", &[(Damaged, "")]),
            (b"$?##3f", &[(Damaged, "")]),
            // What stands alone.
            (b"-", &[(Again, "")]),
            (b"\x03", &[(Interrupt, "")]),
            (b"$-\x03#30", &[(Packet, "-\u{3}")]),
            // Eight bytes fit.
            (b"$12345678#a4", &[(Packet, "12345678")]),
            (b"$123456789#dd", &[(TooLong, "")]),
            (b"$123456789#de", &[(Damaged, "")]),
            (b"$123456789#dd$?#3f", &[(TooLong, ""), (Packet, "?")]),
        ];
        for (bytes, expected) in cases {
            let expected: Vec<_> = expected
                .iter()
                .map(|(event, body)| (*event, body.as_bytes().to_vec()))
                .collect();
            assert_eq!(
                events(bytes),
                expected,
                "{}",
                String::from_utf8_lossy(bytes)
            );
        }
    }

    proptest! {
        /// Whatever stands before a packet, it arrives.
        #[test]
        fn a_packet_behind_anything_arrives(
            before in prop::collection::vec(any::<u8>(), 0..40),
            body in "[^$#]{0,4}",
        ) {
            let body = body.as_bytes();
            prop_assume!(body.len() <= 8);
            let bytes = [&before, &*frame(body)].concat();
            let last = events(&bytes).pop().unwrap();
            prop_assert_eq!(last, (Event::Packet, body.to_vec()));
        }
    }
}
