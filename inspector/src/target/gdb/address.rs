//! Where a gdb server listens, and how a connection to it is made.

use crate::target::TargetError;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a gdb server listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    /// A TCP port.
    Tcp {
        /// Name or address; `127.0.0.1` where none was given.
        host: String,
        /// Port, not 0.
        port: u16,
    },
    /// A unix socket.
    Unix(PathBuf),
}

impl Address {
    /// Reads `HOST:PORT`, `:PORT`, `[IPV6]:PORT` or `unix:PATH`; `None` when the name has none of these forms
    /// and so can only be a file.
    ///
    /// # Errors
    /// The name has the form of an address and is none.
    pub fn parse(name: &str) -> Result<Option<Self>, TargetError> {
        let wrong = |reason: String| {
            Err(TargetError::Open {
                target: name.to_owned(),
                reason,
            })
        };
        if let Some(path) = name.strip_prefix("unix:") {
            if path.is_empty() {
                return wrong("the path after unix: is missing".to_owned());
            }
            return Ok(Some(Self::Unix(path.into())));
        }
        let Some((host, port)) = name.rsplit_once(':') else {
            return Ok(None);
        };
        if host.contains('/') || Path::new(name).exists() {
            return Ok(None);
        }
        let Some(port) = port.parse().ok().filter(|port| *port != 0) else {
            return wrong(format!(
                "no such file, and no HOST:PORT either: `{port}` is not a port (1 to 65535)"
            ));
        };
        let host = match host {
            "" => "127.0.0.1",
            host => host.trim_start_matches('[').trim_end_matches(']'),
        };
        Ok(Some(Self::Tcp {
            host: host.to_owned(),
            port,
        }))
    }

    /// Connects.
    ///
    /// # Errors
    /// What the system said, and what to do about it.
    pub(super) fn connect(&self, target: &str, timeout: Duration) -> Result<Stream, TargetError> {
        match self {
            Self::Tcp { host, port } => connect_tcp(host, *port, timeout).map(Stream::Tcp),
            Self::Unix(path) => UnixStream::connect(path).map(Stream::Unix),
        }
        .map_err(|error| TargetError::Open {
            target: target.to_owned(),
            reason: self.explain(&error),
        })
    }

    fn explain(&self, error: &io::Error) -> String {
        let option = match self {
            Self::Tcp { port, .. } => format!("-gdb tcp::{port}"),
            Self::Unix(path) => format!("-gdb unix:{},server=on,wait=off", path.display()),
        };
        match error.kind() {
            io::ErrorKind::ConnectionRefused => format!(
                "connection refused, so nothing listens there: is QEMU running, and was it started with {option}?"
            ),
            io::ErrorKind::NotFound => {
                format!("no such socket: is QEMU running, and was it started with {option}?")
            }
            io::ErrorKind::TimedOut => "no connection within the time limit".to_owned(),
            _ => format!("cannot connect: {error}"),
        }
    }
}

fn connect_tcp(host: &str, port: u16, timeout: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::InvalidInput, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => {
                // Requests are small and waited for.
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A connection to a gdb server.
#[derive(Debug)]
pub(super) enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a unix socket.
    Unix(UnixStream),
}

impl Stream {
    /// Limits how long one read or write may block.
    pub(super) fn set_timeouts(&self, read: Duration, write: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => {
                stream.set_read_timeout(Some(read))?;
                stream.set_write_timeout(Some(write))
            }
            Self::Unix(stream) => {
                stream.set_read_timeout(Some(read))?;
                stream.set_write_timeout(Some(write))
            }
        }
    }

    /// Reads as [`Self::read`], but does not wait: `WouldBlock` when nothing is there.
    pub(super) fn read_at_once(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.set_nonblocking(true)?;
        let read = self.read(buffer);
        self.set_nonblocking(false)?;
        read
    }

    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nonblocking(nonblocking),
            Self::Unix(stream) => stream.set_nonblocking(nonblocking),
        }
    }

    /// Reads what is there or comes within the time limit, into at most `buffer`.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }

    /// Writes all of `bytes`.
    pub(super) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes),
            Self::Unix(stream) => stream.write_all(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Option<Address> {
        Some(Address::Tcp {
            host: host.to_owned(),
            port,
        })
    }

    #[test]
    fn names_are_told_apart() {
        let cases = [
            ("localhost:1234", tcp("localhost", 1234)),
            (":1234", tcp("127.0.0.1", 1234)),
            ("[::1]:65535", tcp("::1", 65535)),
            ("unix:/run/gdb", Some(Address::Unix("/run/gdb".into()))),
            ("unix:gdb:1", Some(Address::Unix("gdb:1".into()))),
            ("snapshot.core", None),
            ("./odd:1234", None),
            ("", None),
        ];
        for (name, address) in cases {
            assert_eq!(Address::parse(name).unwrap(), address, "{name}");
        }
    }

    #[test]
    fn what_is_no_port_is_said() {
        for name in [":0", ":65536", "host:", "host:gdb", ":-1"] {
            let error = Address::parse(name).unwrap_err().to_string();
            assert!(error.contains("is not a port"), "{error}");
        }
        let error = Address::parse("unix:").unwrap_err().to_string();
        assert_eq!(error, "unix:: the path after unix: is missing");
    }

    #[test]
    fn an_existing_file_with_a_colon_is_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a:1234");
        std::fs::write(&file, "").unwrap();
        assert_eq!(Address::parse(file.to_str().unwrap()).unwrap(), None);
    }

    #[test]
    fn a_missing_socket_says_how_to_get_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gdb");
        let error = Address::Unix(path)
            .connect("unix:gdb", Duration::from_secs(1))
            .unwrap_err()
            .to_string();
        assert!(error.contains("no such socket"), "{error}");
        assert!(error.contains("-gdb unix:"), "{error}");
    }
}
