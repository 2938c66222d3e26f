//! A gdb server: one client at a time, for ever, whatever it sends.
//!
//! The line has no beginning and no end that the server could see: a client may vanish halfway through a packet, and
//! the next one's first byte follows. A `qSupported` packet therefore always begins a session, and what the client
//! before left is put right then.
//!
//! A machine that runs is stopped by a client's first packet, as QEMU's gdb server does it, and the client gets a stop
//! reply that it did not ask for: so it knows that the machine ran. A machine that stands stays so.
//!
//! | module | holds |
//! |---|---|
//! | `framer` | packets out of the stream |
//! | `request` | requests as gdbstub takes them right |
//! | `exchange` | a request and its reply through gdbstub |
//! | `outgoing` | packets to the client |

mod exchange;
mod framer;
mod outgoing;
mod request;

#[cfg(test)]
pub(super) mod tests;

use super::registers::{PC, Register};
use super::stub::{Stub, errno};
use super::{Inferior, Refused, Stop, WatchKind};
use core::fmt;
use exchange::{Outcome, exchange};
use framer::{Event, Framer};
use outgoing::Outgoing;
use request::{Scratch, is_hello, number, reword};

/// The most a client may send in one packet, and the most of one reply; both with their frames.
pub const PACKET_SIZE: usize = 64 << 10;

/// `$`, `#` and two digits.
const FRAME_SIZE: usize = 4;

// Linux's numbers, which gdb shows.
const E2BIG: u8 = 7;
const EINVAL: u8 = 22;

// Numbers of signals, as the protocol has them.
const SIGINT: u8 = 2;
const SIGTRAP: u8 = 5;
const SIGABRT: u8 = 6;

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
    /// What the client says.
    body: [u8; PACKET_SIZE - FRAME_SIZE],
    /// gdbstub's copy of it, in which it works.
    packet: [u8; PACKET_SIZE],
    /// What the client is told.
    reply: [u8; PACKET_SIZE],
}

impl Buffers {
    /// All zero.
    pub const fn new() -> Self {
        Self {
            body: [0; PACKET_SIZE - FRAME_SIZE],
            packet: [0; PACKET_SIZE],
            reply: [0; PACKET_SIZE],
        }
    }
}

impl Default for Buffers {
    fn default() -> Self {
        Self::new()
    }
}

/// Serves one client after the other until the line is lost. `running` says whether the machine runs when this is
/// called; the result, whether it is to run afterwards. In between it runs only while the line has nothing to say.
pub fn serve<I: Inferior>(
    stub: &mut Stub<I>,
    line: &impl Line,
    buffers: &mut Buffers,
    running: bool,
) -> bool {
    let mut framer = Framer::new(&mut buffers.body);
    let mut server = Server {
        stub,
        packet: &mut buffers.packet,
        out: Outgoing::new(line, &mut buffers.reply),
        session: Session::new(b""),
        attached: false,
        running,
        stopped: (SIGTRAP, 1),
    };
    loop {
        match line.receive(!server.running) {
            Received::Byte(byte) => {
                if let Some(event) = framer.push(byte) {
                    server.handle(event, framer.body());
                }
            }
            Received::Nothing if server.running => server.run(),
            Received::Nothing => {}
            Received::Lost => return server.running,
        }
    }
}

/// What is to be remembered of a client.
#[derive(Clone, Copy, Debug)]
struct Session {
    /// Whether packets are acknowledged.
    acknowledges: bool,
    /// Whether threads are named together with their process.
    multiprocess: bool,
    /// The thread whose registers and memory are asked for.
    thread: usize,
}

impl Session {
    /// A client that introduced itself with `hello`.
    fn new(hello: &[u8]) -> Self {
        let mut features = hello.split(|byte| matches!(byte, b':' | b';'));
        Self {
            acknowledges: true,
            multiprocess: features.any(|feature| feature == b"multiprocess+"),
            thread: 1,
        }
    }

    /// A thread as this client knows it: `02`, or `p01.02` with its process.
    fn name(self, thread: usize) -> impl fmt::Display {
        let process = if self.multiprocess { "p01." } else { "" };
        fmt::from_fn(move |f| write!(f, "{process}{thread:02x}"))
    }
}

struct Server<'a, I, L> {
    stub: &'a mut Stub<I>,
    packet: &'a mut [u8],
    out: Outgoing<'a, L>,
    session: Session,
    /// Whether a client has said something since the last one detached. It may have vanished.
    attached: bool,
    running: bool,
    /// How the machine stopped last: signal and thread.
    stopped: (u8, usize),
}

impl<I: Inferior, L: Line> Server<'_, I, L> {
    fn handle(&mut self, event: Event, body: &[u8]) {
        match event {
            Event::Packet if is_farewell(body) => self.leave(body),
            Event::Packet => {
                if is_hello(body) {
                    self.session = Session::new(body);
                    self.stub.inferior.let_go();
                }
                self.receipt();
                if let Err(errno) = self.answer(body) {
                    self.out.send(format_args!("E{errno:02x}"));
                }
            }
            Event::TooLong => {
                self.receipt();
                self.out.send(format_args!("E{E2BIG:02x}"));
            }
            Event::Damaged if self.session.acknowledges => self.out.send_raw(b"-"),
            Event::Again if self.session.acknowledges => self.out.send_again(),
            Event::Damaged | Event::Again => {}
            Event::Interrupt => self.interrupt(),
        }
    }

    /// A packet came: the machine stands from now on. A stop reply goes before the acknowledgement, because until
    /// that gdb passes over packets that it did not ask for.
    fn receipt(&mut self) {
        self.interrupt();
        self.attached = true;
        self.acknowledge();
    }

    fn acknowledge(&self) {
        if self.session.acknowledges {
            self.out.send_raw(b"+");
        }
    }

    /// One that comes while the machine stands must not stop it at the next continue.
    fn interrupt(&mut self) {
        if self.running {
            self.attached = true;
            let inferior = &self.stub.inferior;
            // A client wants to see the registers of the CPU that it is told of.
            let stands = |cpu: &usize| inferior.register(*cpu, Register::Pc).is_some();
            let (signal, cpu) = match inferior.panicked() {
                Some(cpu) => (SIGABRT, cpu),
                None => (SIGINT, (0..inferior.facts().cpus).find(stands).unwrap_or(0)),
            };
            self.stop(signal, cpu, format_args!(""));
        }
    }

    /// Lets the machine run for a while.
    fn run(&mut self) {
        match self.stub.inferior.run() {
            Some(stop) if self.attached => self.report(stop),
            // It cannot go on: the next client finds it stopped.
            Some(Stop::Panic { cpu }) => self.halt(SIGABRT, cpu),
            // Where there is nobody to tell, the machine goes on.
            Some(_) | None => {}
        }
    }

    fn report(&mut self, stop: Stop) {
        match stop {
            Stop::Breakpoint { cpu } => self.stop(SIGTRAP, cpu, format_args!("swbreak:;")),
            Stop::HardwareBreakpoint { cpu } => self.stop(SIGTRAP, cpu, format_args!("hwbreak:;")),
            Stop::Watch { cpu, kind, va } => {
                let kind = match kind {
                    WatchKind::Write => "watch",
                    WatchKind::Read => "rwatch",
                    WatchKind::ReadWrite => "awatch",
                };
                self.stop(SIGTRAP, cpu, format_args!("{kind}:{va:x};"));
            }
            // Whoever steps asks for the PC next. gdb takes registers that a stop reply has along: number, value.
            Stop::Step { cpu } => match self.stub.inferior.register(cpu, Register::Pc) {
                Some(pc) => {
                    let pc = pc.swap_bytes();
                    self.stop(SIGTRAP, cpu, format_args!("{PC:x}:{pc:016x};"));
                }
                None => self.stop(SIGTRAP, cpu, format_args!("")),
            },
            Stop::Panic { cpu } => self.stop(SIGABRT, cpu, format_args!("")),
        }
    }

    fn stop(&mut self, signal: u8, cpu: usize, details: fmt::Arguments<'_>) {
        self.halt(signal, cpu);
        self.send_stop(details);
    }

    fn halt(&mut self, signal: u8, cpu: usize) {
        self.running = false;
        self.session.thread = cpu + 1;
        self.stopped = (signal, cpu + 1);
    }

    fn send_stop(&mut self, details: fmt::Arguments<'_>) {
        let (signal, thread) = self.stopped;
        let thread = self.session.name(thread);
        self.out
            .send(format_args!("T{signal:02x}thread:{thread};{details}"));
    }

    /// `D` and its kin. `k` kills nothing: the hypervisor and its host outlive their debugger.
    fn leave(&mut self, farewell: &[u8]) {
        self.acknowledge();
        self.stub.inferior.let_go();
        self.running = true;
        self.attached = false;
        if farewell != b"k" {
            self.out.send(format_args!("OK"));
        }
        self.session = Session::new(b"");
    }

    /// Answers a request, or lets the machine run, which is answered when it stops.
    fn answer(&mut self, body: &[u8]) -> Result<(), u8> {
        match body {
            b"?" => self.send_stop(format_args!("")),
            b"qC" => {
                let thread = self.session.name(self.session.thread);
                self.out.send(format_args!("QC{thread}"));
            }
            b"qfThreadInfo" => {
                let (session, cpus) = (self.session, self.stub.inferior.facts().cpus);
                let threads = fmt::from_fn(|f| {
                    (1..=cpus).try_for_each(|thread| {
                        let comma = if thread == 1 { "" } else { "," };
                        write!(f, "{comma}{}", session.name(thread))
                    })
                });
                self.out.send(format_args!("m{threads}"));
            }
            [b'H', b'g', id @ ..] => {
                let thread = match parse_thread(id).ok_or(EINVAL)? {
                    // Any: one that has registers.
                    0 => self.stopped.1,
                    thread => thread,
                };
                if thread > self.stub.inferior.facts().cpus {
                    return Err(errno(Refused::Missing));
                }
                self.session.thread = thread;
                self.out.send(format_args!("OK"));
            }
            b"QStartNoAckMode" => {
                self.out.send(format_args!("OK"));
                self.session.acknowledges = false;
            }
            _ => {
                let mut scratch: Scratch = [0; 64];
                let thread = self.session.thread;
                let request = reword(body, thread, &mut scratch)?;
                let outcome = exchange(self.stub, thread, self.packet, &mut self.out, request)?;
                self.running = outcome == Outcome::Resumed;
            }
        }
        Ok(())
    }
}

/// Whether a client takes its leave: `D`, `D;1`, `k`, `vKill;1`.
fn is_farewell(body: &[u8]) -> bool {
    matches!(body, [b'D', ..] | b"k") || body.starts_with(b"vKill;")
}

/// The number in a thread id, `2` or `p1.2`; 0 is any.
fn parse_thread(id: &[u8]) -> Option<usize> {
    let thread = match id {
        [b'p', both @ ..] => both.splitn(2, |byte| *byte == b'.').nth(1)?,
        _ => id,
    };
    usize::try_from(number(thread)?).ok()
}
