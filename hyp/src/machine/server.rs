//! The simulated machine behind a gdb server on 127.0.0.1.
//!
//! One client at a time, each with a line of its own. A client that detaches lets the machine run; one that vanishes
//! leaves it as it was; the next one stops it again, and if it ran gets a stop reply before it asks for anything, as
//! from QEMU's gdb server.

use super::Machine;
use crate::debug::Inferior;
use crate::debug::server::{self, Buffers, Line, Received};
use crate::debug::stub::Stub;
use core::cell::{Cell, RefCell};
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::prelude::rust_2024::*;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::vec::IntoIter;

/// How long the server waits for something to do before it looks again.
const TICK: Duration = Duration::from_millis(20);
/// How long a client may refuse to read before it is dropped.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
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
    let mut buffers = Box::new(Buffers::new());
    let mut running = false;
    while !quit.load(Ordering::Relaxed) {
        if running {
            // Only a panic of hyp ends this early, and then the other CPUs go on.
            stub.inferior.run();
        }
        match listener.accept() {
            Ok((stream, _)) => {
                if let Ok(link) = Link::new(stream, running, quit) {
                    running = server::serve(&mut stub, &link, &mut buffers, false);
                }
                stub.inferior.let_go();
            }
            Err(_) => std::thread::sleep(TICK),
        }
    }
}

/// A client's connection, read many bytes at a time.
#[derive(Debug)]
struct Link<'a> {
    stream: TcpStream,
    quit: &'a AtomicBool,
    received: RefCell<IntoIter<u8>>,
    /// Whether the machine stood at the last look.
    stood: Cell<bool>,
    /// Whether the client does not take what it is sent.
    stuck: Cell<bool>,
}

impl<'a> Link<'a> {
    fn new(mut stream: TcpStream, machine_ran: bool, quit: &'a AtomicBool) -> io::Result<Self> {
        // The listener does not wait; whether its streams do depends on the system.
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TICK))?;
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        if machine_ran {
            stream.write_all(STOPPED_ON_ATTACH)?;
        }
        Ok(Self {
            stream,
            quit,
            received: RefCell::default(),
            stood: Cell::new(true),
            stuck: Cell::new(false),
        })
    }
}

impl Line for Link<'_> {
    /// Waits a tick whether the machine stands or runs: that is what makes it slow enough to watch.
    fn receive(&self, patient: bool) -> Received {
        if self.quit.load(Ordering::Relaxed) || self.stuck.get() {
            return Received::Lost;
        }
        // However fast the client is, a machine that was let run takes some steps.
        if self.stood.replace(patient) && !patient {
            return Received::Nothing;
        }
        let mut received = self.received.borrow_mut();
        if let Some(byte) = received.next() {
            return Received::Byte(byte);
        }
        let mut bytes = vec![0; 4096];
        match (&self.stream).read(&mut bytes) {
            Ok(0) => Received::Lost,
            Ok(read) => {
                bytes.truncate(read);
                *received = bytes.into_iter();
                received.next().map_or(Received::Nothing, Received::Byte)
            }
            Err(error) if is_nothing_yet(&error) => Received::Nothing,
            Err(_) => Received::Lost,
        }
    }

    fn send(&self, bytes: &[u8]) {
        if (&self.stream).write_all(bytes).is_err() {
            self.stuck.set(true);
        }
    }
}

/// A read that timed out, by the names systems give that.
fn is_nothing_yet(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests;
