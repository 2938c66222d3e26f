//! The embedded machine: hyp's library on simulated memory, behind a real gdb server in this process.
//!
//! The only module that uses `hyp`. Everything else meets the machine as it meets any other: through its
//! gdb server.

use hyp::machine::Machine;
use hyp::machine::server::Server;
use std::io;
use std::net::SocketAddr;

/// CPUs of the embedded machine.
const CPUS: usize = 4;

/// A running embedded machine; dropping it ends it.
#[derive(Debug)]
pub struct Demo {
    server: Server,
}

/// Starts the embedded machine, stopped in a state that is the same every time.
///
/// # Errors
/// The system has no thread or port on 127.0.0.1 to spare.
pub fn start() -> io::Result<Demo> {
    let machine = Machine::start(CPUS).map_err(io::Error::other)?;
    Ok(Demo {
        server: Server::start(machine)?,
    })
}

impl Demo {
    /// Where its gdb server listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    /// What a server says to each packet, frames and acknowledgements included.
    fn ask(demo: &Demo, packets: &[&str]) -> Vec<Vec<u8>> {
        let mut stream = TcpStream::connect(demo.address()).unwrap();
        let mut answer = |packet: &str| {
            let sum = packet.bytes().fold(0u8, u8::wrapping_add);
            write!(stream, "${packet}#{sum:02x}").unwrap();
            let mut answer = Vec::new();
            while answer.iter().rev().nth(2) != Some(&b'#') {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                answer.push(byte[0]);
            }
            answer
        };
        packets.iter().map(|packet| answer(packet)).collect()
    }

    #[test]
    fn every_start_is_the_same() {
        let [one, other] = [start().unwrap(), start().unwrap()];
        assert_ne!(one.address(), other.address());
        // Registers of each CPU, then all table pages of the host's stage 2.
        let file: String = "hyp/tables/host-s2"
            .bytes()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let packets = [
            "Hg1",
            "g",
            "Hg2",
            "g",
            "Hg3",
            "g",
            "Hg4",
            "g",
            &format!("vFile:open:{file},0,0"),
            "vFile:pread:2,7000,0",
        ];
        let answers = ask(&one, &packets);
        assert!(answers[7].len() > 2 * 35 * 8 && answers[9].len() > 0x7000);
        assert!(answers == ask(&other, &packets));
    }
}
