//! A machine under hyp's own debugger, and what a test asks it.

use crate::client::Client;
pub(crate) use fixtures::LIMIT;
use fixtures::qemu::{Boot, Machine};
use inspector::image::{Images, Symbol};
use inspector::target::rsp;
use std::thread;
use std::time::{Duration, Instant};

/// How long a client waits for an answer before it asks again.
const PATIENCE: Duration = Duration::from_secs(2);

/// A machine with hyp's channel.
pub(crate) struct Debuggee {
    pub(crate) machine: Machine,
    pub(crate) cpus: u64,
    /// Of hyp and of its host, by address.
    symbols: Vec<Symbol>,
    /// Where the host has its [`Counters`], and how fast it goes on.
    counters: [u64; 6],
    pace: u64,
}

/// What the host has counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Counters {
    pub(crate) rounds: u64,
    /// Pages touched and shared, requests refused, aborts survived, breakpoints taken.
    counts: [u64; 5],
}

/// How much of each a CPU counts in a round.
const A_ROUND: [u64; 5] = [3, 2, 4, 2, 1];

impl Debuggee {
    /// Boots, and waits until the host is at work.
    pub(crate) fn start(boot: Boot, cpus: u32) -> Self {
        let mut debuggee = Self::early(boot, cpus);
        debuggee.wait_for_rounds(1);
        debuggee
    }

    /// Boots.
    pub(crate) fn early(boot: Boot, cpus: u32) -> Self {
        let boot = boot.cpus(cpus).channel();
        let machine = boot.start().expect("QEMU starts");
        let image = machine.image();
        let files = [image.hyp.clone(), image.host.clone()];
        let mut images = Images::open(&files).expect("two ELF files");
        let mut symbols = images.symbols();
        symbols.sort_by_key(|symbol| symbol.address);
        let mut place = |path: &str| images.place(path).expect(path).address;
        let counters = [
            "HOST.rounds",
            "HOST.touched",
            "HOST.shared",
            "HOST.refused",
            "ABORTS",
            "BREAKS",
        ]
        .map(&mut place);
        Self {
            cpus: cpus.into(),
            counters,
            pace: place("HOST.pace"),
            symbols,
            machine,
        }
    }

    /// Waits until the host has reported a round after `round`, and says what it has counted then: nothing got lost.
    pub(crate) fn wait_for_rounds(&mut self, round: u64) {
        loop {
            let line = self.machine.wait_for("host: round ", LIMIT);
            let line = line.expect("the host goes on");
            let numbers: Vec<u64> = line
                .split(|letter: char| !letter.is_ascii_digit())
                .filter_map(|digits| digits.parse().ok())
                .collect();
            let done = numbers[0];
            if done >= round {
                let expected = A_ROUND.map(|count| count * self.cpus * done);
                assert_eq!(numbers[1], self.cpus, "{line}");
                assert_eq!(numbers[2..], expected, "{line}");
                return;
            }
        }
    }

    /// The functions whose names end so; `(address, size)`.
    pub(crate) fn functions(&self, name: &str) -> Vec<(u64, u64)> {
        let named = self
            .symbols
            .iter()
            .filter(|symbol| symbol.name.ends_with(name));
        let found: Vec<_> = named.map(|symbol| (symbol.address, symbol.size)).collect();
        assert!(!found.is_empty(), "no function {name}");
        found
    }

    /// A client that finds the machine as it is, and stops it.
    pub(crate) fn attach(&self) -> Session<'_> {
        self.greet(|| ())
    }

    /// A machine, paused at boot, whose host has not executed anything when hyp sees its client. On a busy computer QEMU may
    /// bring what the client says after hyp has looked for it, so that the host has begun: then another machine is started.
    /// Each is given to `prepare` before it executes anything.
    pub(crate) fn with_client_first(
        boot: impl Fn() -> Boot,
        cpus: u32,
        prepare: impl Fn(&Self),
    ) -> (Self, Client) {
        for _ in 0..20 {
            let debuggee = Self::early(boot(), cpus);
            prepare(&debuggee);
            let (start, _) = debuggee.functions("host_start")[0];
            let mut session = debuggee.attach_first();
            let first = session.registers(0).map(|cpu| (cpu.el, cpu.pc));
            if first == Some((1, start)) {
                let client = session.client;
                return (debuggee, client);
            }
        }
        panic!("hyp saw its client too late, 20 times");
    }

    /// A client that spoke before the machine, which was paused, ran its first instruction.
    pub(crate) fn attach_first(&self) -> Session<'_> {
        self.greet(|| Client::connect(self.machine.gdb()).order("D"))
    }

    fn greet(&self, meanwhile: impl FnOnce()) -> Session<'_> {
        let mut client = Client::connect(self.machine.channel());
        let hello = "qSupported:swbreak+;hwbreak+";
        client.send(hello);
        meanwhile();
        // What the server still owed a client that is gone comes first. QEMU drops what finds no room behind that, so
        // a client asks again, as gdb does.
        loop {
            match client.packet_within(PATIENCE) {
                Some(packet) if packet.starts_with(b"PacketSize=") => break,
                Some(_) => {}
                None => client.send(hello),
            }
        }
        // If it was only slow, it answers each.
        client.send("Hg1");
        while client.packet() != b"OK" {}
        self.session(client)
    }

    /// The session of a client that is attached.
    pub(crate) fn session(&self, client: Client) -> Session<'_> {
        Session {
            debuggee: self,
            client,
        }
    }
}

/// A client of hyp's channel. Dropping it says nothing to the server.
pub(crate) struct Session<'a> {
    pub(crate) debuggee: &'a Debuggee,
    pub(crate) client: Client,
}

/// A CPU's general registers.
#[derive(Clone, Debug)]
pub(crate) struct Registers {
    pub(crate) x: [u64; 31],
    pub(crate) sp: u64,
    pub(crate) pc: u64,
    /// The exception level.
    pub(crate) el: u64,
}

impl Session<'_> {
    /// Lets all CPUs run.
    pub(crate) fn resume(&mut self) {
        self.client.send("vCont;c");
    }

    /// Ctrl-C, and the stop that it leads to.
    pub(crate) fn interrupt(&mut self) -> String {
        self.client.interrupt();
        self.client.stop()
    }

    /// Runs and stops until `look` finds what it waits for.
    pub(crate) fn run_until<T>(
        &mut self,
        what: &str,
        look: impl FnMut(&mut Self) -> Option<T>,
    ) -> T {
        self.resume_until("vCont;c", what, look)
    }

    /// The same with the CPUs that `resume` lets run.
    ///
    /// Each time is longer than the one before: a CPU gets nowhere while Ctrl-C always comes right behind.
    pub(crate) fn resume_until<T>(
        &mut self,
        resume: &str,
        what: &str,
        mut look: impl FnMut(&mut Self) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + LIMIT;
        let mut time = Duration::ZERO;
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            assert!(Instant::now() < deadline, "in vain: {what}");
            time += Duration::from_micros(200);
            self.client.send(resume);
            thread::sleep(time);
            self.interrupt();
        }
    }

    /// A CPU's registers, if it stands.
    pub(crate) fn registers(&mut self, cpu: u64) -> Option<Registers> {
        self.client.order(&format!("Hg{:x}", cpu + 1));
        let answer = self.client.ask("g");
        // x0 to x30, SP and PC, then 32 bits of PSTATE. An unknown digit is `x`.
        let bytes = rsp::from_hex(answer.get(..2 * (33 * 8 + 4)).expect("registers"))?;
        let word = |n: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[8 * n..8 * n + 8]);
            u64::from_le_bytes(word)
        };
        Some(Registers {
            x: std::array::from_fn(word),
            sp: word(31),
            pc: word(32),
            el: u64::from(bytes[33 * 8] >> 2 & 3),
        })
    }

    /// Has a CPU go on elsewhere.
    pub(crate) fn set_pc(&mut self, cpu: u64, pc: u64) {
        self.client.order(&format!("Hg{:x}", cpu + 1));
        // PC is register 0x20.
        let pc = rsp::to_hex(&pc.to_le_bytes());
        self.client.order(&format!("P20={pc}"));
    }

    /// The registers of all CPUs.
    ///
    /// # Panics
    /// One does not stand.
    pub(crate) fn all_registers(&mut self) -> Vec<Registers> {
        let cpus = 0..self.debuggee.cpus;
        cpus.map(|cpu| {
            self.registers(cpu)
                .unwrap_or_else(|| panic!("CPU {cpu} does not stand"))
        })
        .collect()
    }

    /// Memory as the CPU of the last [`Session::registers`] sees it, in words.
    pub(crate) fn words(&mut self, va: u64, count: usize) -> Vec<u64> {
        let answer = self.client.ask(&format!("m{va:x},{:x}", 8 * count));
        let bytes = rsp::from_hex(&answer).unwrap_or_else(|| panic!("{va:#x}: {answer:?}"));
        assert_eq!(bytes.len(), 8 * count, "{va:#x}");
        let words = bytes.chunks_exact(8);
        words
            .map(|word| u64::from_le_bytes(std::array::from_fn(|n| word[n])))
            .collect()
    }

    /// Addresses of the code that a CPU is in at EL2: its PC, and the calls that led there.
    pub(crate) fn calls(&mut self, registers: &Registers) -> Vec<u64> {
        const STACK_SIZE: u64 = 0x4000;
        if registers.el != 2 {
            return Vec::new();
        }
        let (sp, top) = (registers.sp, (registers.sp | (STACK_SIZE - 1)) + 1);
        let stack = self.words(sp, ((top - sp) / 8) as usize);
        let record = |at: u64| {
            let offset = at.checked_sub(sp).filter(|offset| offset % 8 == 0)?;
            let first = usize::try_from(offset / 8).ok()?;
            Some([*stack.get(first)?, *stack.get(first + 1)?])
        };
        let mut calls = vec![registers.pc];
        let mut frame = registers.x[29];
        while let Some([next, caller]) = record(frame) {
            calls.push(caller.wrapping_sub(4));
            // Callers are further up.
            if next <= frame {
                break;
            }
            frame = next;
        }
        calls
    }

    /// Says how many rounds a second the host does; 0 is as many as it can.
    pub(crate) fn set_pace(&mut self, pace: u64) {
        let data = rsp::to_hex(&pace.to_le_bytes());
        let va = self.debuggee.pace;
        self.client.order(&format!("M{va:x},8:{data}"));
    }

    /// What the host has counted.
    ///
    /// # Panics
    /// The counters contradict each other.
    pub(crate) fn counters(&mut self) -> Counters {
        let [rounds, counts @ ..] = self.debuggee.counters.map(|va| self.words(va, 1)[0]);
        // A round's counts are complete before it is counted itself; and none of the next begins before.
        for (count, each) in counts.iter().zip(A_ROUND) {
            let a_round = each * self.debuggee.cpus;
            let possible = a_round * rounds..=a_round * (rounds + 1);
            assert!(
                possible.contains(count),
                "after {rounds} rounds: {counts:?}"
            );
        }
        Counters { rounds, counts }
    }

    /// The answer to a monitor command.
    pub(crate) fn monitor(&mut self, command: &str) -> String {
        self.client
            .send(&format!("qRcmd,{}", rsp::to_hex(command.as_bytes())));
        let mut text = Vec::new();
        loop {
            match self.client.packet().as_slice() {
                b"OK" => return String::from_utf8(text).expect("text"),
                [b'O', line @ ..] => text.extend(rsp::from_hex(line).expect("hexadecimal")),
                other => panic!("{command}: {}", String::from_utf8_lossy(other)),
            }
        }
    }
}

impl Counters {
    /// Whether none of them is smaller than before.
    pub(crate) fn follow(&self, before: &Self) -> bool {
        let counts = self.counts.iter().zip(before.counts);
        self.rounds >= before.rounds && counts.into_iter().all(|(now, before)| *now >= before)
    }
}

/// The CPU that a stop reply names: `T05thread:02;…`.
pub(crate) fn cpu_of(stop: &str) -> u64 {
    let thread = stop.split_once("thread:").map(|(_, rest)| rest);
    let digits = thread.and_then(|rest| rest.split(';').next());
    let number = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    number.expect(stop) - 1
}
