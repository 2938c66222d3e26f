//! The simulated machine behind a gdb server on 127.0.0.1.
//!
//! One client at a time. A client that detaches lets the machine run; one that vanishes leaves it as it
//! was; the next one stops it again, and if it ran gets a stop reply before it asks for anything, as from
//! QEMU's gdb server.

use super::Machine;
use crate::debug::stub::{Stub, thread};
use crate::debug::{Inferior, Stop};
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use gdbstub::common::Signal;
use gdbstub::conn::Connection;
use gdbstub::stub::state_machine::GdbStubStateMachine;
use gdbstub::stub::{DisconnectReason, GdbStub, MultiThreadStopReason};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::prelude::rust_2024::*;
use std::sync::Arc;
use std::thread::JoinHandle;

/// How long the server waits for something to do before it looks again.
const TICK: Duration = Duration::from_millis(20);
/// How long a client may refuse to read before it is dropped.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest packet, in bytes.
const PACKET_SIZE: usize = 64 << 10;
/// What a client that attaches to a running machine is told first: stopped by SIGINT.
const STOPPED_ON_ATTACH: &[u8] = b"$T02thread:01;#04";

/// A running server; dropping it ends the server and its machine.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    quit: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves `machine` on a free port of 127.0.0.1, from a thread of this process. It stands still until a
    /// client lets it run.
    ///
    /// # Errors
    /// The system has no port or thread to spare.
    pub fn start(machine: Machine) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let quit = Arc::new(AtomicBool::new(false));
        let asked_to_quit = Arc::clone(&quit);
        let thread = std::thread::Builder::new()
            .name("hyp-gdb".into())
            .spawn(move || serve(&listener, machine, &asked_to_quit))?;
        Ok(Self {
            address,
            quit,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.quit.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It ends by itself, whatever its clients did.
            let _ = thread.join();
        }
    }
}

fn serve(listener: &TcpListener, machine: Machine, quit: &AtomicBool) {
    let mut stub = Stub::new(machine);
    let mut buffer = vec![0; PACKET_SIZE];
    let mut running = false;
    while !quit.load(Ordering::Relaxed) {
        if running {
            // Only a panic of hyp ends this early, and then the other CPUs go on.
            stub.inferior.run();
        }
        match listener.accept() {
            Ok((stream, _)) => {
                if let Ok(link) = Link::new(stream, running) {
                    running = session(&mut stub, link, &mut buffer, quit);
                }
                stub.inferior.let_go();
            }
            Err(_) => std::thread::sleep(TICK),
        }
    }
}

/// Serves one client until it leaves; returns whether the machine runs then.
fn session(stub: &mut Stub<Machine>, link: Link, buffer: &mut [u8], quit: &AtomicBool) -> bool {
    let mut running = false;
    let built = GdbStub::builder(link).with_packet_buffer(buffer).build();
    let Ok(session) = built.map(|session| session.run_state_machine(stub)) else {
        return running;
    };
    let mut session = session;
    while !quit.load(Ordering::Relaxed) {
        // An error is a lost link, or a packet that makes no sense: the client is dropped, the machine stays.
        let Ok(state) = session else {
            return running;
        };
        match state {
            GdbStubStateMachine::Idle(_) => running = false,
            GdbStubStateMachine::Running(_) => running = true,
            GdbStubStateMachine::CtrlCInterrupt(_) | GdbStubStateMachine::Disconnected(_) => {}
        }
        session = match state {
            GdbStubStateMachine::Idle(mut state) => match state.borrow_conn().next_byte() {
                Ok(Some(byte)) => state.incoming_data(stub, byte),
                Ok(None) => Ok(state.into()),
                Err(_) => return running,
            },
            GdbStubStateMachine::Running(mut state) => match stub.inferior.run() {
                Some(stop) => state.report_stop(stub, reason(stop)),
                None => match state.borrow_conn().next_byte() {
                    Ok(Some(byte)) => state.incoming_data(stub, byte),
                    Ok(None) => Ok(state.into()),
                    Err(_) => return running,
                },
            },
            GdbStubStateMachine::CtrlCInterrupt(state) => {
                // One that comes while the machine stands must not stop it at the next continue.
                let reason = running.then(|| signal(0, Signal::SIGINT));
                state.interrupt_handled(stub, reason)
            }
            GdbStubStateMachine::Disconnected(state) => {
                return state.get_reason() == DisconnectReason::Disconnect;
            }
        };
    }
    running
}

fn reason(stop: Stop) -> MultiThreadStopReason<u64> {
    match stop {
        Stop::Breakpoint { cpu } => MultiThreadStopReason::SwBreak(thread(cpu)),
        Stop::HardwareBreakpoint { cpu } => MultiThreadStopReason::HwBreak(thread(cpu)),
        Stop::Watch { cpu, kind, va } => MultiThreadStopReason::Watch {
            tid: thread(cpu),
            kind,
            addr: va,
        },
        Stop::Step { cpu } => signal(cpu, Signal::SIGTRAP),
        Stop::Panic { cpu } => signal(cpu, Signal::SIGABRT),
    }
}

fn signal(cpu: usize, signal: Signal) -> MultiThreadStopReason<u64> {
    MultiThreadStopReason::SignalWithThread {
        tid: thread(cpu),
        signal,
    }
}

/// A client's connection, buffered both ways: gdbstub reads and writes byte by byte.
#[derive(Debug)]
struct Link {
    stream: TcpStream,
    received: Vec<u8>,
    /// Bytes of `received` that were taken.
    taken: usize,
    to_send: Vec<u8>,
}

impl Link {
    fn new(mut stream: TcpStream, machine_ran: bool) -> io::Result<Self> {
        // The listener does not wait; whether its streams do depends on the system.
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TICK))?;
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        if machine_ran {
            Write::write_all(&mut stream, STOPPED_ON_ATTACH)?;
        }
        Ok(Self {
            stream,
            received: Vec::new(),
            taken: 0,
            to_send: Vec::new(),
        })
    }

    /// The next byte, or `None` when none comes within a tick.
    fn next_byte(&mut self) -> io::Result<Option<u8>> {
        if self.taken == self.received.len() {
            self.received.resize(4096, 0);
            self.taken = 0;
            let read = self.stream.read(&mut self.received);
            self.received.truncate(*read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if is_nothing_yet(&error) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let byte = self.received.get(self.taken).copied();
        self.taken += 1;
        Ok(byte)
    }
}

/// A read that timed out, by the names systems give that.
fn is_nothing_yet(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

impl Connection for Link {
    type Error = io::Error;

    fn write(&mut self, byte: u8) -> io::Result<()> {
        self.to_send.push(byte);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Write::write_all(&mut self.stream, &self.to_send)?;
        self.to_send.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
