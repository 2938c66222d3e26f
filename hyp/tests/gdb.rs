//! The real gdb on the simulated machine.

use hyp::debug::server::{Buffers, Line, Received, serve};
use hyp::debug::stub::Stub;
use hyp::machine::Machine;
use hyp::machine::server::Server;
use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// gdb, talked to through pipes.
struct Gdb {
    child: Child,
    output: Receiver<u8>,
    seen: String,
}

/// Far longer than anything here takes, on a loaded machine too.
const LIMIT: Duration = Duration::from_secs(60);

impl Gdb {
    fn attach(address: SocketAddr) -> Self {
        // gdb writes errors and what `monitor` answers to its standard error.
        let mut child = Command::new("sh")
            .args(["-c", "exec gdb-multiarch -nx -q 2>&1"])
            .env("DEBUGINFOD_URLS", "")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut byte = [0];
            while stdout.read_exact(&mut byte).is_ok() && sender.send(byte[0]).is_ok() {}
        });
        let mut gdb = Self {
            child,
            output,
            seen: String::new(),
        };
        gdb.send("set pagination off");
        gdb.send("set confirm off");
        gdb.send(&format!("set remotetimeout {}", LIMIT.as_secs()));
        let attached = gdb.run(&format!("target remote {address}"));
        // That no file was given, and nothing that the server said.
        assert_eq!(attached.matches("warning:").count(), 1, "{attached}");
        gdb
    }

    fn send(&mut self, line: &str) {
        // Where gdb is gone, the next wait says so and shows what it wrote last.
        let _ = writeln!(self.child.stdin.as_mut().unwrap(), "{line}");
    }

    /// Whether `text` comes to stand in what was written since the last wait.
    fn sees(&mut self, text: &str) -> bool {
        let end = Instant::now() + LIMIT;
        while !self.seen.contains(text) {
            let left = end.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(byte) => self.seen.push(char::from(byte)),
                Err(_) => return false,
            }
        }
        true
    }

    /// Waits until `text` stands in what was written since the last wait, and returns all of that.
    fn wait_for(&mut self, text: &str) -> String {
        assert!(
            self.sees(text),
            "no {text:?} in {:?}; this test needs gdb-multiarch: run `cargo fixtures setup`",
            self.seen
        );
        std::mem::take(&mut self.seen)
    }

    /// Runs a command and returns what it writes.
    fn run(&mut self, line: &str) -> String {
        self.send(line);
        self.send("echo END\\n");
        self.wait_for("END\n")
    }
}

impl Drop for Gdb {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn server() -> Server {
    Server::start(Machine::start(4).unwrap()).unwrap()
}

fn steps(gdb: &mut Gdb) -> u64 {
    let stats = gdb.run("monitor stats");
    let line = stats.lines().find_map(|line| line.split_once("steps: "));
    line.unwrap().1.parse().unwrap()
}

#[test]
fn threads_registers_and_memory() {
    let server = server();
    let mut gdb = Gdb::attach(server.address());
    let threads = gdb.run("info threads");
    for cpu in 0..4 {
        assert!(threads.contains(&format!("(CPU {cpu} EL")), "{threads}");
    }
    let vttbr = gdb.run("p/x $VTTBR_EL2");
    assert!(vttbr.contains("= 0x4022"), "{vttbr}");
    let registers = gdb.run("info registers system");
    assert!(
        registers.contains("TTBR0_EL2") && registers.contains("ID_AA64MMFR0_EL1"),
        "{registers}"
    );
    let code = gdb.run("x/2i $pc");
    assert!(code.contains("nop"), "{code}");
    let nothing = gdb.run("x/1gx 0x10");
    assert!(nothing.contains("Cannot access memory"), "{nothing}");
}

#[test]
fn monitor_commands() {
    let server = server();
    let mut gdb = Gdb::attach(server.address());
    let help = gdb.run("monitor help");
    assert!(help.contains("owners [RANGE]"), "{help}");
    let locks = gdb.run("monitor locks");
    assert!(locks.contains("held, waiters"), "{locks}");
    let owners = gdb.run("monitor owners 0x40200000..0x40201000");
    assert!(
        owners.contains("hyp      host no-page         hyp owned"),
        "{owners}"
    );
    let unknown = gdb.run("monitor frobnicate");
    assert!(
        unknown.contains("no such command; try `monitor help`"),
        "{unknown}"
    );
}

#[test]
fn files() {
    let server = server();
    let mut gdb = Gdb::attach(server.address());
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    for (file, starts) in [
        ("hyp/description", &b"{\"format\":\"hyp.description/1\""[..]),
        ("hyp/tables/hyp-s1", &[]),
        ("hyp/stats", b"steps: "),
    ] {
        let name = format!("{}-{}", std::process::id(), file.replace('/', "-"));
        let to = directory.join(name);
        let answer = gdb.run(&format!("remote get {file} {}", to.display()));
        assert!(answer.contains("Successfully fetched"), "{answer}");
        let bytes = std::fs::read(&to).unwrap();
        std::fs::remove_file(&to).unwrap();
        assert!(bytes.starts_with(starts), "{file}: {bytes:?}");
        if starts.is_empty() {
            assert!(
                !bytes.is_empty() && bytes.len() % (8 + 4096) == 0,
                "{}",
                bytes.len()
            );
        }
    }
}

#[test]
fn continue_interrupt_break_step_detach_and_attach_again() {
    let server = server();
    let mut gdb = Gdb::attach(server.address());
    let start = steps(&mut gdb);
    // Ctrl-C would be lost where it comes before gdb listens, and a second one makes gdb give up the machine:
    // `interrupt` sends the same, and gdb reads it after `continue &` is done.
    gdb.send("continue &");
    gdb.wait_for("Continuing.");
    gdb.send("interrupt");
    gdb.wait_for("SIGINT");
    let interrupted = steps(&mut gdb);
    assert!(interrupted > start);
    assert_eq!(steps(&mut gdb), interrupted, "it stands");

    let description = gdb.run("info symbol 0");
    assert!(
        description.contains("No symbol"),
        "no file was given: {description}"
    );
    gdb.run("break *0x4040200b00");
    let hit = gdb.run("continue");
    assert!(hit.contains("hit Breakpoint 1"), "{hit}");
    let pc = gdb.run("p/x $pc");
    assert!(pc.contains("= 0x4040200b00"), "{pc}");
    gdb.run("delete");
    gdb.run("stepi");
    let pc = gdb.run("p/x $pc");
    assert!(!pc.contains("= 0x4040200b00"), "{pc}");

    let detached = gdb.run("detach");
    assert!(detached.contains("detached"), "{detached}");
    drop(gdb);
    let mut again = Gdb::attach(server.address());
    assert!(steps(&mut again) > interrupted);
    let threads = again.run("info threads");
    assert!(threads.contains("(CPU 3 EL"), "{threads}");
}

/// A line as a virtio console is one: a client's end and the next one's beginning cannot be seen in it. It is lost when
/// a client says NUL.
struct Joined {
    listener: TcpListener,
    client: RefCell<Option<TcpStream>>,
    lost: Cell<bool>,
}

impl Line for Joined {
    fn receive(&self, patient: bool) -> Received {
        if self.lost.get() {
            return Received::Lost;
        }
        let mut client = self.client.borrow_mut();
        let Some(stream) = &mut *client else {
            if let Ok((stream, _)) = self.listener.accept() {
                stream.set_nonblocking(true).unwrap();
                stream.set_nodelay(true).unwrap();
                *client = Some(stream);
            }
            return Received::Nothing;
        };
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1) if byte == [0] => self.lost.set(true),
            Ok(1) => return Received::Byte(byte[0]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            _ => *client = None,
        }
        if patient {
            std::thread::sleep(Duration::from_millis(1));
        }
        Received::Nothing
    }

    fn send(&self, bytes: &[u8]) {
        if let Some(stream) = &mut *self.client.borrow_mut() {
            stream.set_nonblocking(false).unwrap();
            // Where nobody listens they are lost.
            let _ = stream.write_all(bytes);
            stream.set_nonblocking(true).unwrap();
        }
    }
}

#[test]
fn clients_come_and_go_on_a_line_that_does_not_say_so() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let server = std::thread::spawn(move || {
        let line = Joined {
            listener,
            client: RefCell::default(),
            lost: Cell::new(false),
        };
        let mut stub = Stub::new(Machine::start(4).unwrap());
        serve(&mut stub, &line, &mut Box::new(Buffers::new()), false)
    });
    // One that is killed while the machine stands at its breakpoint.
    let mut gdb = Gdb::attach(address);
    let mut seen = steps(&mut gdb);
    gdb.run("break *0x4040200b00");
    let hit = gdb.run("continue");
    assert!(hit.contains("hit Breakpoint 1"), "{hit}");
    drop(gdb);
    let mut later = |gdb: &mut Gdb| {
        let now = steps(gdb);
        assert!(now > seen, "{now} steps, {seen} before");
        assert_eq!(steps(gdb), now, "it stands");
        seen = now;
    };
    // One that is killed while the machine runs; it meets no breakpoint any more.
    let mut gdb = Gdb::attach(address);
    later(&mut gdb);
    gdb.run("continue &");
    drop(gdb);
    // And then those that take their leave.
    for farewell in ["detach", "kill", "quit", "disconnect"] {
        let mut gdb = Gdb::attach(address);
        later(&mut gdb);
        let threads = gdb.run("info threads");
        assert!(threads.contains("(CPU 3 EL"), "{threads}");
        gdb.send(farewell);
        gdb.send("quit");
        let end = Instant::now() + LIMIT;
        while gdb.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < end, "{farewell}");
        }
    }
    let mut end = TcpStream::connect(address).unwrap();
    end.write_all(&[0]).unwrap();
    assert!(!server.join().unwrap(), "the last one only disconnected");
}
