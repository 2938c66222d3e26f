//! Requests and replies: in order, many outstanding, asked again where the server lost one.

use super::address::Address;
use super::wire::{PACKET_LIMIT, Wire};
use crate::target::{TargetError, rsp};
use memchr::memmem;
use std::time::Duration;

/// How often one exchange is begun anew when the machine keeps being resumed behind our back.
const RESTARTS: usize = 4;
/// More replies than any client leaves behind.
const STALE: usize = 1024;
/// Requests outstanding: QEMU's server gains nothing beyond 16.
const OUTSTANDING: usize = 32;

/// A conversation with a gdb server.
#[derive(Debug)]
pub(super) struct Link {
    wire: Wire,
    /// The last stop reply nobody asked for.
    stop: Option<Vec<u8>>,
    /// Requests sent, replies not seen.
    outstanding: usize,
    /// Whether the first question was answered.
    greeted: bool,
    /// The most requests outstanding, at least 1.
    depth: usize,
}

impl Link {
    /// Connects; nothing is sent yet.
    pub(super) fn connect(
        target: &str,
        address: &Address,
        timeout: Duration,
    ) -> Result<Self, TargetError> {
        Ok(Self {
            wire: Wire::connect(target, address, timeout)?,
            stop: None,
            outstanding: 0,
            greeted: false,
            depth: OUTSTANDING,
        })
    }

    /// Whether the first question was answered.
    pub(super) fn is_greeted(&self) -> bool {
        self.greeted
    }

    /// What the user asked for.
    pub(super) fn target(&self) -> &str {
        self.wire.target()
    }

    /// How long a silent server is waited for.
    pub(super) fn timeout(&self) -> Duration {
        self.wire.timeout()
    }

    /// Whether nothing more can be said to the server.
    pub(super) fn is_lost(&self) -> bool {
        self.wire.is_lost()
    }

    /// Keeps at most this many requests outstanding, and never more than the protocol gains from.
    pub(super) fn limit_outstanding(&mut self, depth: usize) {
        self.depth = depth.clamp(1, OUTSTANDING);
    }

    /// From here on waits are short, and a cancellation does not end them; replies still owed are done away with.
    pub(super) fn begin_leaving(&mut self, doing: &str) -> Result<(), TargetError> {
        self.wire.begin_leaving();
        self.settle(doing).inspect_err(|_| {
            // One try is enough to find out that nobody answers any more.
            self.wire.give_up();
        })
    }

    /// Does away with the replies that an exchange that was broken off is owed. On a machine that runs it could not be done.
    pub(super) fn settle(&mut self, doing: &str) -> Result<(), TargetError> {
        match self.outstanding {
            0 => Ok(()),
            _ => self.resynchronise(doing),
        }
    }

    /// The stop reply that came without being asked for, once.
    pub(super) fn take_stop(&mut self) -> Option<Vec<u8>> {
        self.stop.take()
    }

    /// An answer that may not be.
    pub(super) fn protocol(&self, doing: &str, reason: impl Into<String>) -> TargetError {
        self.wire.protocol(doing, reason)
    }

    /// Asks the very first question, and takes its answer for one by its form: where the server cannot see that a client
    /// is gone (behind a serial console), what that client left unanswered is answered to the next.
    pub(super) fn greet(&mut self, doing: &str, hello: &str) -> Result<Vec<u8>, TargetError> {
        let answer = self.try_greet(doing, hello);
        match &answer {
            Ok(_) => (self.greeted, self.outstanding) = (true, 0),
            Err(TargetError::Cancelled { .. }) => {}
            // Nobody is there who would have to be left.
            Err(_) => self.wire.give_up(),
        }
        answer
    }

    fn try_greet(&mut self, doing: &str, hello: &str) -> Result<Vec<u8>, TargetError> {
        self.outstanding = 1;
        self.wire.greet(doing, hello)?;
        for _ in 0..STALE {
            let packet = self.wire.packet(doing)?;
            if is_stop(&packet) {
                self.stop = Some(packet);
            } else if packet.is_empty() || memmem::find(&packet, b"PacketSize=").is_some() {
                self.wire.acknowledge(doing)?;
                return Ok(packet);
            }
        }
        Err(self.protocol(doing, "the server does not answer what it is asked"))
    }

    /// One request and its reply.
    pub(super) fn ask(&mut self, doing: &str, request: &str) -> Result<Vec<u8>, TargetError> {
        let mut replies = self.exchange(doing, &[request.to_owned()])?;
        replies
            .pop()
            .ok_or_else(|| self.protocol(doing, "no reply"))
    }

    /// Requests and their replies, in order, as many outstanding as the depth allows.
    ///
    /// A machine that somebody else resumed (QEMU's monitor can) is stopped by the first byte of a request, and that
    /// request is lost. The stop reply tells: then everything is asked again, from the first request on, because
    /// later ones may rest on earlier ones.
    pub(super) fn exchange(
        &mut self,
        doing: &str,
        requests: &[String],
    ) -> Result<Vec<Vec<u8>>, TargetError> {
        for _ in 0..RESTARTS {
            if let Some(replies) = self.try_exchange(doing, requests)? {
                return Ok(replies);
            }
            self.resynchronise(doing)?;
        }
        let reason = "somebody else keeps resuming the machine: stop it there first";
        Err(self.protocol(doing, reason))
    }

    /// `None` when a stop reply came between.
    fn try_exchange(
        &mut self,
        doing: &str,
        requests: &[String],
    ) -> Result<Option<Vec<Vec<u8>>>, TargetError> {
        let mut replies = Vec::new();
        let mut rest = requests;
        while replies.len() < requests.len() {
            // Refilling at half keeps the server busy with few writes.
            if !rest.is_empty() && self.outstanding <= self.depth / 2 {
                let room = self.depth - self.outstanding;
                let (batch, later) = rest.split_at(rest.len().min(room));
                self.outstanding += batch.len();
                self.wire.send(doing, batch)?;
                rest = later;
            }
            let packet = self.wire.packet(doing)?;
            if is_stop(&packet) && !answers(&packet, &requests[replies.len()]) {
                self.stop = Some(packet);
                return Ok(None);
            }
            self.outstanding = self.outstanding.saturating_sub(1);
            replies.push(packet);
        }
        self.wire.acknowledge(doing)?;
        Ok(Some(replies))
    }

    /// Forgets all outstanding requests: what comes before the reply to a marker belongs to them.
    fn resynchronise(&mut self, doing: &str) -> Result<(), TargetError> {
        let marker = ["qC".to_owned()];
        self.wire.send(doing, &marker)?;
        // One request of the monitor has many replies.
        for _ in 0..STALE {
            let packet = self.wire.packet(doing)?;
            if packet.starts_with(b"T02") {
                self.stop = Some(packet);
                // The marker itself was lost on a machine that ran; but not where connecting has stopped it.
                if self.greeted {
                    self.wire.send(doing, &marker)?;
                }
            } else if packet.starts_with(b"QC") {
                self.outstanding = 0;
                return self.wire.acknowledge(doing);
            }
        }
        let reason = "the server's replies are out of step with the requests";
        Err(self.protocol(doing, reason))
    }

    /// A monitor command and all the text it prints.
    pub(super) fn monitor(&mut self, doing: &str, command: &str) -> Result<String, TargetError> {
        let request = format!("qRcmd,{}", rsp::to_hex(command.as_bytes()));
        self.outstanding += 1;
        self.wire.send(doing, &[request])?;
        let mut text = Vec::new();
        loop {
            let packet = self.wire.packet(doing)?;
            match packet.as_slice() {
                b"OK" => break,
                [b'O', hex @ ..] => match rsp::from_hex(hex) {
                    Some(part) if text.len() + part.len() <= PACKET_LIMIT => text.extend(part),
                    _ => {
                        let reason = "the monitor's text is damaged or endless";
                        return Err(self.protocol(doing, reason));
                    }
                },
                other => {
                    let reason = format!(
                        "`monitor {command}` was answered with `{}`",
                        printable(other)
                    );
                    return Err(self.protocol(doing, reason));
                }
            }
        }
        self.outstanding = self.outstanding.saturating_sub(1);
        self.wire.acknowledge(doing)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// A request whose reply comes some day, or never: letting the machine run.
    pub(super) fn send_only(&mut self, doing: &str, request: &str) -> Result<(), TargetError> {
        self.wire.send(doing, &[request.to_owned()])
    }

    /// Ctrl-C.
    pub(super) fn send_interrupt(&mut self, doing: &str) -> Result<(), TargetError> {
        self.wire.send_interrupt(doing)
    }

    /// Asks for no more acknowledgements, where the server offers that.
    pub(super) fn stop_acknowledging(&mut self, doing: &str) -> Result<(), TargetError> {
        if self.ask(doing, "QStartNoAckMode")? == b"OK" {
            self.wire.stop_acknowledging();
        }
        Ok(())
    }

    /// The next packet while the machine runs: `None` when none came within `limit`.
    pub(super) fn packet_within(
        &mut self,
        doing: &str,
        limit: Duration,
    ) -> Result<Option<Vec<u8>>, TargetError> {
        let packet = self.wire.packet_within(doing, limit)?;
        // Where the machine has ended, nobody is there to take an acknowledgement.
        if !matches!(packet.as_deref(), Some([b'W' | b'X', ..])) {
            self.wire.acknowledge(doing)?;
        }
        Ok(packet)
    }
}

/// Whether a packet says that the machine stopped (`T02…`, `S05`) or ended (`W00`, `X09`).
/// No reply to anything asked here but `?` begins so: replies are lower-case hexadecimal, `E`, `OK`, or begin with other letters.
pub(super) fn is_stop(packet: &[u8]) -> bool {
    matches!(packet, [b'T' | b'S' | b'W' | b'X', high, low, ..]
        if rsp::hex_digit(*high).is_some() && rsp::hex_digit(*low).is_some())
}

/// Whether a stop reply was asked for: QEMU always says `T05` to `?`, and `T02` of a machine that a request's first byte
/// has stopped.
fn answers(stop: &[u8], request: &str) -> bool {
    request == "?" && !stop.starts_with(b"T02")
}

/// A reply as text for a message: short, without control characters.
pub(super) fn printable(packet: &[u8]) -> String {
    let text = packet.iter().take(40).map(|byte| match byte {
        b' '..=b'~' => char::from(*byte),
        _ => '.',
    });
    let more = if packet.len() > 40 { "…" } else { "" };
    text.chain(more.chars()).collect()
}
