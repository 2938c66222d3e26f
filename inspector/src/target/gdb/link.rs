//! Requests and replies over one connection: in order, many outstanding, each wait limited.

use super::address::{Address, Stream};
use crate::target::rsp::{self, Decoder, Event};
use crate::target::{TargetError, cancellation};
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The longest reply that is accepted, decoded.
const REPLY_LIMIT: usize = 1 << 18;
/// How long one read may block before the limits and [`cancellation`] are looked at.
const SLICE: Duration = Duration::from_millis(50);
/// How often one exchange is begun anew when the machine keeps being resumed behind our back.
const RESTARTS: usize = 4;
/// The longest a wait may take while the machine is put in order for leaving.
const LEAVING: Duration = Duration::from_secs(1);
/// Requests outstanding: QEMU's server gains nothing beyond 16.
const OUTSTANDING: usize = 32;

/// A connection to a gdb server.
#[derive(Debug)]
pub(super) struct Link {
    stream: Stream,
    target: String,
    timeout: Duration,
    decoder: Decoder,
    events: VecDeque<Event>,
    /// The last stop reply nobody asked for.
    stop: Option<Vec<u8>>,
    /// Whether the server wants each of its packets acknowledged.
    acks: bool,
    acks_due: usize,
    /// Requests sent, replies not seen.
    outstanding: usize,
    /// Whether a packet was ever seen: else what listens may be no gdb server.
    greeted: bool,
    /// Nothing more will come.
    lost: bool,
    /// Leaving ignores [`cancellation`]: the machine has to be put in order all the same.
    leaving: bool,
    /// The most requests outstanding.
    pub(super) depth: usize,
}

impl Link {
    /// Connects; nothing is sent yet.
    pub(super) fn connect(
        target: &str,
        address: &Address,
        timeout: Duration,
    ) -> Result<Self, TargetError> {
        let stream = address.connect(target, timeout)?;
        // A limit of zero would mean none.
        let timeout = timeout.max(Duration::from_millis(1));
        stream
            .set_timeouts(SLICE.min(timeout), timeout)
            .map_err(|error| TargetError::Open {
                target: target.to_owned(),
                reason: format!("cannot limit how long to wait: {error}"),
            })?;
        Ok(Self {
            stream,
            target: target.to_owned(),
            timeout,
            decoder: Decoder::new(REPLY_LIMIT),
            events: VecDeque::new(),
            stop: None,
            acks: true,
            acks_due: 0,
            outstanding: 0,
            greeted: false,
            lost: false,
            leaving: false,
            depth: OUTSTANDING,
        })
    }

    /// What the user asked for.
    pub(super) fn target(&self) -> &str {
        &self.target
    }

    /// How long a silent server is waited for.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Whether nothing more can be said to the server.
    pub(super) fn is_lost(&self) -> bool {
        self.lost
    }

    /// From here on waits are short and [`cancellation`] does not end them; replies still owed are done away with.
    pub(super) fn begin_leaving(&mut self, doing: &str) -> Result<(), TargetError> {
        self.leaving = true;
        self.timeout = self.timeout.min(LEAVING);
        let resynchronised = match self.outstanding {
            0 => Ok(()),
            _ => self.resynchronise(doing),
        };
        // One try is enough to find out that nobody answers any more.
        self.lost |= resynchronised.is_err();
        resynchronised
    }

    /// The stop reply that came without being asked for, once.
    pub(super) fn take_stop(&mut self) -> Option<Vec<u8>> {
        self.stop.take()
    }

    /// An answer that may not be.
    pub(super) fn protocol(&self, doing: &str, reason: impl Into<String>) -> TargetError {
        TargetError::Protocol {
            target: self.target.clone(),
            doing: doing.to_owned(),
            reason: reason.into(),
        }
    }

    /// One request and its reply.
    pub(super) fn ask(&mut self, doing: &str, request: &str) -> Result<Vec<u8>, TargetError> {
        let mut replies = self.exchange(doing, &[request.to_owned()])?;
        replies
            .pop()
            .ok_or_else(|| self.protocol(doing, "no reply"))
    }

    /// Requests and their replies, in order, as many outstanding as [`Self::depth`] says.
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
        Err(self.protocol(
            doing,
            "somebody else keeps resuming the machine: stop it there first",
        ))
    }

    fn try_exchange(
        &mut self,
        doing: &str,
        requests: &[String],
    ) -> Result<Option<Vec<Vec<u8>>>, TargetError> {
        let mut replies = Vec::with_capacity(requests.len());
        let mut rest = requests;
        while replies.len() < requests.len() {
            // Refilling at half keeps the server busy with few writes.
            if !rest.is_empty() && self.outstanding <= self.depth / 2 {
                let (batch, later) =
                    rest.split_at(rest.len().min(self.depth.max(1) - self.outstanding));
                self.send(doing, batch)?;
                rest = later;
            }
            let packet = self.packet(doing)?;
            if is_stop(&packet) {
                self.stop = Some(packet);
                return Ok(None);
            }
            self.outstanding = self.outstanding.saturating_sub(1);
            replies.push(packet);
        }
        self.flush(doing, Vec::new())?;
        Ok(Some(replies))
    }

    /// Forgets all outstanding requests: what comes before the reply to a marker belongs to them.
    fn resynchronise(&mut self, doing: &str) -> Result<(), TargetError> {
        self.send(doing, &["qC".to_owned()])?;
        for _ in 0..self.outstanding + RESTARTS {
            let packet = self.packet(doing)?;
            if is_stop(&packet) {
                // The marker itself was lost on a machine that runs.
                self.stop = Some(packet);
                self.send(doing, &["qC".to_owned()])?;
            } else if packet.starts_with(b"QC") {
                self.outstanding = 0;
                return self.flush(doing, Vec::new());
            }
        }
        Err(self.protocol(
            doing,
            "the server's replies are out of step with the requests",
        ))
    }

    /// A monitor command and all the text it prints.
    pub(super) fn monitor(&mut self, doing: &str, command: &str) -> Result<String, TargetError> {
        let request = format!("qRcmd,{}", rsp::to_hex(command.as_bytes()));
        self.send(doing, &[request])?;
        let mut text = Vec::new();
        loop {
            let packet = self.packet(doing)?;
            match packet.as_slice() {
                b"OK" => break,
                [b'O', hex @ ..] => match rsp::from_hex(hex) {
                    Some(part) if text.len() + part.len() <= REPLY_LIMIT => text.extend(part),
                    _ => {
                        return Err(
                            self.protocol(doing, "the monitor's text is damaged or endless")
                        );
                    }
                },
                stop if is_stop(stop) => self.stop = Some(packet),
                other => {
                    return Err(self.protocol(
                        doing,
                        format!(
                            "`monitor {command}` was answered with `{}`",
                            printable(other)
                        ),
                    ));
                }
            }
        }
        self.outstanding = 0;
        self.flush(doing, Vec::new())?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// A request whose reply comes some day, or never: letting the machine run.
    pub(super) fn send_only(&mut self, doing: &str, request: &str) -> Result<(), TargetError> {
        self.send(doing, &[request.to_owned()])?;
        self.outstanding = 0;
        Ok(())
    }

    /// Ctrl-C.
    pub(super) fn send_interrupt(&mut self, doing: &str) -> Result<(), TargetError> {
        self.flush(doing, vec![rsp::INTERRUPT])
    }

    /// Asks for no more acknowledgements, where the server offers that.
    pub(super) fn stop_acknowledging(&mut self, doing: &str) -> Result<(), TargetError> {
        if self.ask(doing, "QStartNoAckMode")? == b"OK" {
            self.acks = false;
        }
        Ok(())
    }

    /// The next packet while the machine runs: `None` when none came within `limit`.
    pub(super) fn packet_within(
        &mut self,
        doing: &str,
        limit: Duration,
    ) -> Result<Option<Vec<u8>>, TargetError> {
        let deadline = Instant::now().checked_add(limit);
        loop {
            if let Some(packet) = self.next_buffered(doing)? {
                self.flush(doing, Vec::new())?;
                return Ok(Some(packet));
            }
            // What is there already is taken without waiting.
            self.fill(doing, true)?;
            if !self.events.is_empty() {
                continue;
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(None);
            }
            self.fill(doing, false)?;
        }
    }

    fn send(&mut self, doing: &str, requests: &[String]) -> Result<(), TargetError> {
        let mut bytes = Vec::new();
        for request in requests {
            rsp::encode(request.as_bytes(), &mut bytes);
        }
        self.outstanding += requests.len();
        self.flush(doing, bytes)
    }

    /// Writes the acknowledgements that are due, then `bytes`.
    ///
    /// Acknowledgements never wait longer than the reply they belong to: on a machine that runs, QEMU takes any byte
    /// as an order to stop it.
    fn flush(&mut self, doing: &str, bytes: Vec<u8>) -> Result<(), TargetError> {
        let mut out = vec![b'+'; std::mem::take(&mut self.acks_due)];
        out.extend(bytes);
        if out.is_empty() {
            return Ok(());
        }
        self.stream
            .write_all(&out)
            .map_err(|error| match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => self.timed_out(doing),
                _ => self.lost(doing, &error.to_string()),
            })
    }

    /// The next packet, within the time limit.
    fn packet(&mut self, doing: &str) -> Result<Vec<u8>, TargetError> {
        if let Some(packet) = self.next_buffered(doing)? {
            return Ok(packet);
        }
        self.flush(doing, Vec::new())?;
        let deadline = Instant::now().checked_add(self.timeout);
        loop {
            self.fill(doing, false)?;
            if let Some(packet) = self.next_buffered(doing)? {
                return Ok(packet);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(self.timed_out(doing));
            }
        }
    }

    fn next_buffered(&mut self, doing: &str) -> Result<Option<Vec<u8>>, TargetError> {
        while let Some(event) = self.events.pop_front() {
            match event {
                Event::Packet(body) => {
                    self.acks_due += usize::from(self.acks);
                    self.greeted = true;
                    return Ok(Some(body));
                }
                // A server that a killed client left in the middle of a packet took our first one for its rest.
                // What it refused was the only one, so the same again is right.
                Event::Nak if !self.greeted && self.outstanding == 1 => {
                    let mut again = Vec::new();
                    rsp::encode(super::HELLO.as_bytes(), &mut again);
                    self.flush(doing, again)?;
                }
                Event::Nak => {
                    return Err(
                        self.protocol(doing, "the server says that a request arrived damaged")
                    );
                }
                // A stream socket delivers every byte once and in order: asking again would not help.
                Event::Damaged(damage) => {
                    return Err(self.protocol(
                        doing,
                        format!("a packet from the server cannot be used: {damage}"),
                    ));
                }
                Event::Ack | Event::Notification(_) | Event::Interrupt => {}
            }
        }
        Ok(None)
    }

    /// Reads once: what is there already, or what comes within one slice.
    fn fill(&mut self, doing: &str, at_once: bool) -> Result<(), TargetError> {
        if !self.leaving && cancellation().load(Ordering::Relaxed) {
            return Err(TargetError::Cancelled {
                target: self.target.clone(),
                doing: doing.to_owned(),
            });
        }
        let mut buffer = [0; 1 << 15];
        if at_once {
            self.stream
                .set_nonblocking(true)
                .map_err(|error| self.lost(doing, &error.to_string()))?;
        }
        let read = self.stream.read(&mut buffer);
        if at_once {
            self.stream
                .set_nonblocking(false)
                .map_err(|error| self.lost(doing, &error.to_string()))?;
        }
        match read {
            Ok(0) => Err(self.lost(doing, "the server closed the connection")),
            Ok(count) => {
                self.decoder.feed(&buffer[..count], &mut self.events);
                Ok(())
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => Ok(()),
                _ => Err(self.lost(doing, &error.to_string())),
            },
        }
    }

    fn lost(&mut self, doing: &str, reason: &str) -> TargetError {
        self.lost = true;
        self.no_gdb_server().unwrap_or_else(|| TargetError::Lost {
            target: self.target.clone(),
            doing: doing.to_owned(),
            reason: reason.to_owned(),
        })
    }

    fn timed_out(&mut self, doing: &str) -> TargetError {
        self.no_gdb_server()
            .unwrap_or_else(|| TargetError::Timeout {
                target: self.target.clone(),
                doing: doing.to_owned(),
                seconds: self.timeout.as_secs_f64(),
            })
    }

    /// Something that talks, but never in packets.
    fn no_gdb_server(&self) -> Option<TargetError> {
        (!self.greeted && self.decoder.skipped() > 0).then(|| TargetError::Open {
            target: self.target.clone(),
            reason: "what listens there does not speak the gdb remote protocol".to_owned(),
        })
    }
}

/// Whether a packet says that the machine stopped (`T02…`, `S05`) or ended (`W00`, `X09`).
/// No reply to anything asked here begins so: replies are lower-case hexadecimal, `E`, `OK`, or begin with other letters.
pub(super) fn is_stop(packet: &[u8]) -> bool {
    matches!(packet, [b'T' | b'S' | b'W' | b'X', high, low, ..]
        if rsp::hex_digit(*high).is_some() && rsp::hex_digit(*low).is_some())
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
