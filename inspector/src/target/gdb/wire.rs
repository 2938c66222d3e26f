//! Packets over a connection: framed, acknowledged, each wait limited.

use super::address::{Address, Stream};
use crate::target::rsp::{self, Decoder, Event};
use crate::target::{TargetError, cancellation};
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The longest packet that is accepted, decoded.
pub(super) const PACKET_LIMIT: usize = 1 << 18;
/// How long one read may block before the limits and [`cancellation`] are looked at.
const SLICE: Duration = Duration::from_millis(50);
/// The longest a wait may take while the machine is put in order for leaving.
const LEAVING: Duration = Duration::from_secs(1);

/// A connection that carries packets.
#[derive(Debug)]
pub(super) struct Wire {
    stream: Stream,
    target: String,
    timeout: Duration,
    decoder: Decoder,
    events: VecDeque<Event>,
    /// Whether the server wants each of its packets acknowledged.
    acks: bool,
    acks_due: usize,
    /// The greeting, until more is said: the server may refuse it once.
    greeting: Vec<u8>,
    /// Whether a packet was ever seen: else what listens may be no gdb server.
    greeted: bool,
    lost: bool,
    leaving: bool,
}

impl Wire {
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
            decoder: Decoder::new(PACKET_LIMIT),
            events: VecDeque::new(),
            acks: true,
            acks_due: 0,
            greeting: Vec::new(),
            greeted: false,
            lost: false,
            leaving: false,
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

    /// Says that nothing more can be said to the server.
    pub(super) fn give_up(&mut self) {
        self.lost = true;
    }

    /// From here on waits are short, and [`cancellation`] does not end them: the machine is put in order all the same.
    pub(super) fn begin_leaving(&mut self) {
        self.leaving = true;
        self.timeout = self.timeout.min(LEAVING);
    }

    /// From here on packets are not acknowledged.
    pub(super) fn stop_acknowledging(&mut self) {
        self.acks = false;
    }

    /// An answer that may not be.
    pub(super) fn protocol(&self, doing: &str, reason: impl Into<String>) -> TargetError {
        TargetError::Protocol {
            target: self.target.clone(),
            doing: doing.to_owned(),
            reason: reason.into(),
        }
    }

    /// Sends the first packet of all.
    pub(super) fn greet(&mut self, doing: &str, body: &str) -> Result<(), TargetError> {
        let mut bytes = Vec::new();
        rsp::encode(body.as_bytes(), &mut bytes);
        self.greeting.clone_from(&bytes);
        self.write(doing, &bytes)
    }

    /// Sends packets with these bodies, in one go.
    pub(super) fn send(&mut self, doing: &str, bodies: &[String]) -> Result<(), TargetError> {
        self.greeting.clear();
        let mut bytes = Vec::new();
        for body in bodies {
            rsp::encode(body.as_bytes(), &mut bytes);
        }
        self.write(doing, &bytes)
    }

    /// Ctrl-C.
    pub(super) fn send_interrupt(&mut self, doing: &str) -> Result<(), TargetError> {
        self.write(doing, &[rsp::INTERRUPT])
    }

    /// Sends the acknowledgements that are due.
    ///
    /// They never wait longer than the exchange they belong to: on a machine that runs, QEMU takes any byte as an
    /// order to stop it.
    pub(super) fn acknowledge(&mut self, doing: &str) -> Result<(), TargetError> {
        self.write(doing, &[])
    }

    /// The next packet, within the time limit.
    pub(super) fn packet(&mut self, doing: &str) -> Result<Vec<u8>, TargetError> {
        match self.packet_within(doing, self.timeout)? {
            Some(packet) => Ok(packet),
            None => Err(self.timed_out(doing)),
        }
    }

    /// The next packet, or `None` when none came within `limit`.
    pub(super) fn packet_within(
        &mut self,
        doing: &str,
        limit: Duration,
    ) -> Result<Option<Vec<u8>>, TargetError> {
        if let Some(packet) = self.next_buffered(doing)? {
            return Ok(Some(packet));
        }
        self.acknowledge(doing)?;
        let deadline = Instant::now().checked_add(limit);
        let at_once = limit.is_zero();
        loop {
            self.fill(doing, at_once)?;
            if let Some(packet) = self.next_buffered(doing)? {
                return Ok(Some(packet));
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(None);
            }
        }
    }

    fn write(&mut self, doing: &str, bytes: &[u8]) -> Result<(), TargetError> {
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

    fn next_buffered(&mut self, doing: &str) -> Result<Option<Vec<u8>>, TargetError> {
        while let Some(event) = self.events.pop_front() {
            match event {
                Event::Packet(body) => {
                    self.acks_due += usize::from(self.acks);
                    self.greeted = true;
                    return Ok(Some(body));
                }
                // A server that a killed client left in the middle of a packet took our first one for its rest.
                Event::Nak if !self.greeted || !self.greeting.is_empty() => {
                    let again = std::mem::take(&mut self.greeting);
                    self.write(doing, &again)?;
                }
                Event::Nak => {
                    let reason = "the server says that a request arrived damaged";
                    return Err(self.protocol(doing, reason));
                }
                // A stream socket delivers every byte once and in order: asking again would not help.
                Event::Damaged(damage) => {
                    let reason = format!("a packet from the server cannot be used: {damage}");
                    return Err(self.protocol(doing, reason));
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
        let read = match at_once {
            true => self.stream.read_at_once(&mut buffer),
            false => self.stream.read(&mut buffer),
        };
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

    fn timed_out(&self, doing: &str) -> TargetError {
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
