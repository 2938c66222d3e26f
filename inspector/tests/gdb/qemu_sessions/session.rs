//! One run of gdb in batch mode over hyp's own channel, with both programs' symbols.

use fixtures::qemu::Machine;
use std::io::{Read, pipe};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long a run may take on a computer that is busy with much else.
const LIMIT: Duration = Duration::from_secs(100);

/// Has gdb show what it sends: [`Session::interrupt`] must wait until it has sent [`RESUMED`].
pub(crate) const SHOW_PACKETS: &str = "set debug remote 1";
pub(crate) const HIDE_PACKETS: &str = "set debug remote 0";
/// What stands in the packet that lets the machine run.
pub(crate) const RESUMED: &str = "$vCont;c";

/// What gdb echoes before each command, and after the last.
const MARK: &str = "<<<>>>";

/// A gdb at work. Dropping it kills it.
pub(crate) struct Session {
    gdb: Child,
    pieces: Receiver<Vec<u8>>,
    said: Vec<u8>,
    /// How much of it [`Session::wait_for`] has passed over.
    passed: usize,
    deadline: Instant,
    /// Open, so that a gdb that reads its commands there waits.
    _stdin: Option<ChildStdin>,
}

impl Session {
    /// Attaches gdb to the machine's channel, and has it carry out `commands`.
    pub(crate) fn start(machine: &Machine, commands: &[&str]) -> Self {
        let image = machine.image();
        let socket = machine.channel().replace("unix:", "");
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "gdb-multiarch", "-nx", "-batch"])
            .arg(&image.hyp)
            // In assembly, too.
            .args(["-ex", "set language rust"])
            .args(["-ex", "set width 0"])
            .args(["-ex", &format!("add-symbol-file {}", image.host.display())])
            .args(["-ex", &format!("target remote {socket}")]);
        let mark = format!("echo \\n{MARK}\\n");
        for order in commands {
            command.args(["-ex", &mark, "-ex", order]);
        }
        command.args(["-ex", &mark]);
        // One pipe for both, so that all is in the order in which it was said.
        let (mut output, input) = pipe().expect("a pipe");
        command
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(input.try_clone().expect("a pipe"))
            .stderr(input);
        let mut gdb = command.spawn().expect("setpriv and gdb-multiarch run");
        // It has the ends of the pipe that gdb has.
        drop(command);
        let (sender, pieces) = channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self {
            _stdin: gdb.stdin.take(),
            gdb,
            pieces,
            said: Vec::new(),
            passed: 0,
            deadline: Instant::now() + LIMIT,
        }
    }

    /// Waits until gdb says `text`, after what was waited for before.
    pub(crate) fn wait_for(&mut self, text: &str) {
        loop {
            let new = String::from_utf8_lossy(&self.said[self.passed..]).into_owned();
            if let Some(at) = new.find(text) {
                self.passed += at + text.len();
                return;
            }
            assert!(self.read(), "gdb ended before {text:?}:\n{}", self.text());
        }
    }

    /// Waits until the command of this number is about to be carried out; they count from 0. Returns what those before it
    /// said.
    pub(crate) fn wait_for_command(&mut self, number: usize) -> Vec<String> {
        loop {
            let mut said = self.by_command();
            if said.len() > number {
                said.truncate(number);
                return said;
            }
            assert!(self.read(), "gdb ended:\n{}", self.text());
        }
    }

    /// Ctrl-C.
    pub(crate) fn interrupt(&self) {
        let id = self.gdb.id().to_string();
        let status = Command::new("kill").args(["-INT", &id]).status();
        assert!(status.expect("kill runs").success());
    }

    /// Kills gdb, which cannot say goodbye.
    pub(crate) fn kill(mut self) {
        self.gdb.kill().expect("it runs");
        self.gdb.wait().expect("it was killed");
    }

    /// Waits for gdb's end; returns what each command said, without white space around it.
    pub(crate) fn finish(mut self) -> Vec<String> {
        while self.read() {}
        // Seen where the test fails.
        println!("{}", self.text());
        let mut said = self.by_command();
        // What it said when all was done.
        said.pop();
        said
    }

    fn by_command(&self) -> Vec<String> {
        let text = self.text();
        let parts = text.split(MARK).skip(1);
        parts.map(|part| part.trim().to_owned()).collect()
    }

    /// Whether gdb said something more before it ended.
    fn read(&mut self) -> bool {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match self.pieces.recv_timeout(left) {
            Ok(piece) => {
                self.said.extend(piece);
                true
            }
            Err(RecvTimeoutError::Disconnected) => false,
            Err(RecvTimeoutError::Timeout) => {
                panic!("gdb is not done after {LIMIT:?}:\n{}", self.text())
            }
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.said).into_owned()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Neither can fail but for a process that is gone already.
        let _ = self.gdb.kill();
        let _ = self.gdb.wait();
    }
}

/// A whole session; what each command said.
pub(crate) fn session<const N: usize>(machine: &Machine, commands: [&str; N]) -> [String; N] {
    said(Session::start(machine, &commands))
}

/// The rest of a session; what each of its commands said.
pub(crate) fn said<const N: usize>(session: Session) -> [String; N] {
    let said = session.finish();
    said.try_into().expect("a part for each command")
}

/// The number that `output` or `print` said, or an examined word: the last there is.
pub(crate) fn number(said: &str) -> u64 {
    let word = said.split_whitespace().last().unwrap_or_default();
    let number = match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => word.parse(),
    };
    number.unwrap_or_else(|_| panic!("no number: {said}"))
}

/// The number that stands right behind `text`.
pub(crate) fn behind(said: &str, text: &str) -> u64 {
    let Some((_, after)) = said.split_once(text) else {
        panic!("{text:?} is missing in:\n{said}")
    };
    let end = after.find(|c: char| !c.is_ascii_alphanumeric());
    number(&after[..end.unwrap_or(after.len())])
}

/// The value that `info registers` said of one.
pub(crate) fn register(said: &str) -> u64 {
    let value = said.split_whitespace().nth(1);
    number(value.unwrap_or(said))
}

/// Checks that texts stand in what was said, in this order.
pub(crate) fn assert_says(said: &str, texts: &[&str]) {
    let mut rest = said;
    for text in texts {
        match rest.split_once(text) {
            Some((_, after)) => rest = after,
            None => panic!("{text:?} is missing, or not in its place, in:\n{said}"),
        }
    }
}
