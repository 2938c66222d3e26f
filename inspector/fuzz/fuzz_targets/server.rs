//! Whatever clients say to hyp's gdb server and wherever the machine stops: replies are whole packets of bounded
//! length, the machine runs only when it was let run, and the next client is served.
#![no_main]

use hyp::debug::registers::Register;
use hyp::debug::server::{Buffers, Line, PACKET_SIZE, Received, serve};
use hyp::debug::stub::Stub;
use hyp::debug::{
    Breakpoint, Facts, HostStage2, HypStage1, Inferior, Refused, Region, Resume, Stop, WatchKind,
};
use libfuzzer_sys::fuzz_target;
use std::cell::{Cell, RefCell};

const RAM: Region = Region {
    base: 0x1000,
    size: 0x8000,
};
const CPUS: usize = 2;

/// Beginnings of packets.
const KNOWN: [&[u8]; 32] = [
    b"",
    b"qSupported:multiprocess+",
    b"QStartNoAckMode",
    b"?",
    b"q",
    b"qfThreadInfo",
    b"qThreadExtraInfo,",
    b"Hg",
    b"Hc",
    b"T",
    b"g",
    b"G",
    b"p",
    b"P",
    b"m1000,",
    b"m",
    b"M1000,",
    b"X1000,",
    b"Z0,1000,",
    b"Z",
    b"z",
    b"vCont;",
    b"vCont;s:1;c",
    b"c",
    b"s",
    b"D",
    b"vKill;",
    b"qXfer:features:read:target.xml:",
    b"vFile:open:",
    b"vFile:pread:1,",
    b"vFile:close:",
    b"qRcmd,",
];

/// What a client and the machine do, in their order.
enum Event {
    Say(u8),
    /// The client is silent for a moment, in which a machine that runs may stop.
    Pause(Option<Stop>),
}

struct Script {
    events: Vec<Event>,
    next: Cell<usize>,
    sent: RefCell<Vec<u8>>,
}

impl Line for &Script {
    fn receive(&self, patient: bool) -> Received {
        match self.events.get(self.next.get()) {
            Some(Event::Say(byte)) => {
                self.next.set(self.next.get() + 1);
                Received::Byte(*byte)
            }
            Some(Event::Pause(_)) => {
                // Where the machine runs, that takes the pause.
                self.next.set(self.next.get() + usize::from(patient));
                Received::Nothing
            }
            None => Received::Lost,
        }
    }

    fn send(&self, bytes: &[u8]) {
        assert!((1..=PACKET_SIZE).contains(&bytes.len()));
        self.sent.borrow_mut().extend(bytes);
    }
}

struct Machine<'a> {
    script: &'a Script,
    ram: Vec<u8>,
    registers: [u64; Register::COUNT],
    breakpoints: Vec<Breakpoint>,
    may_run: bool,
}

impl Machine<'_> {
    fn place(&self, pa: u64, size: usize) -> Option<core::ops::Range<usize>> {
        let start = usize::try_from(pa.checked_sub(RAM.base)?).ok()?;
        let end = start.checked_add(size)?;
        (end <= self.ram.len()).then_some(start..end)
    }
}

impl Inferior for Machine<'_> {
    fn facts(&self) -> Facts<'_> {
        Facts {
            cpus: CPUS,
            physvirt_offset: 0,
            host_s2: HostStage2 {
                root: RAM.base,
                vtcr: 0x8002_3558,
            },
            hyp_s1: HypStage1 {
                root: RAM.base,
                tcr: 0x8082_3519,
                mair: 0x4ff,
            },
            ram: &[RAM],
            sections: &[],
            locks: &[],
            pools: &[],
            stacks: &[],
            symbols: &[],
        }
    }

    fn register(&self, cpu: usize, register: Register) -> Option<u64> {
        assert!(cpu < CPUS);
        let number = Register::all().position(|other| other == register)?;
        // CPU 1 does not stand.
        (cpu == 0).then_some(self.registers[number])
    }

    fn set_register(&mut self, cpu: usize, register: Register, value: u64) -> Result<(), Refused> {
        self.register(cpu, register).ok_or(Refused::Missing)?;
        let number = Register::all().position(|other| other == register);
        self.registers[number.ok_or(Refused::Missing)?] = value;
        Ok(())
    }

    fn read_phys(&self, pa: u64, bytes: &mut [u8]) -> usize {
        let whole = (0..=bytes.len())
            .rev()
            .find_map(|size| self.place(pa, size));
        let Some(place) = whole else { return 0 };
        let size = place.len();
        bytes[..size].copy_from_slice(&self.ram[place]);
        size
    }

    fn write_phys(&mut self, pa: u64, bytes: &[u8]) -> Result<(), Refused> {
        let place = self.place(pa, bytes.len()).ok_or(Refused::Unmapped)?;
        self.ram[place].copy_from_slice(bytes);
        Ok(())
    }

    fn translate(&self, cpu: usize, va: u64) -> Option<u64> {
        assert!(cpu < CPUS);
        RAM.contains(va).then_some(va)
    }

    fn resume(&mut self, resume: Resume) {
        assert!(resume.run != 0);
        assert!(
            resume
                .step
                .is_none_or(|cpu| cpu < CPUS && resume.run >> cpu & 1 == 1)
        );
        self.may_run = true;
    }

    fn run(&mut self) -> Option<Stop> {
        assert!(self.may_run);
        let next = self.script.next.get();
        let Some(Event::Pause(stop)) = self.script.events.get(next) else {
            panic!("a byte waits");
        };
        self.script.next.set(next + 1);
        *stop
    }

    fn insert(&mut self, breakpoint: Breakpoint) -> Result<(), Refused> {
        if let Breakpoint::Watch { va, size, .. } = breakpoint {
            assert!(size > 0 && va.checked_add(size - 1).is_some());
        }
        if self.breakpoints.len() == 4 {
            return Err(Refused::Full);
        }
        self.breakpoints.push(breakpoint);
        Ok(())
    }

    fn remove(&mut self, breakpoint: Breakpoint) -> bool {
        let before = self.breakpoints.len();
        self.breakpoints.retain(|other| *other != breakpoint);
        self.breakpoints.len() < before
    }

    fn let_go(&mut self) -> usize {
        self.may_run = true;
        self.breakpoints.drain(..).count()
    }

    fn stats(&self, visit: &mut dyn FnMut(&str, u64)) {
        visit("steps", 1);
    }
}

fn sum(body: &[u8]) -> u8 {
    body.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn frame(body: &[u8]) -> Vec<u8> {
    [b"$", body, format!("#{:02x}", sum(body)).as_bytes()].concat()
}

/// The bodies of packets, all of which must be whole.
fn bodies(sent: &[u8]) -> Vec<&[u8]> {
    let mut bodies = Vec::new();
    let mut rest = sent;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'$' {
            assert!(matches!(byte, b'+' | b'-'));
            continue;
        }
        let end = rest.iter().position(|byte| *byte == b'#').unwrap();
        let (body, after) = rest.split_at(end);
        assert!(!body.contains(&b'$'));
        assert_eq!(after[1..3], *format!("{:02x}", sum(body)).as_bytes());
        bodies.push(body);
        rest = &after[3..];
    }
    bodies
}

fuzz_target!(|input: (bool, Vec<(u8, Vec<u8>)>)| {
    let (running, utterances) = input;
    let mut events = Vec::new();
    for (kind, bytes) in utterances {
        let cpu = usize::from(kind >> 3) % CPUS;
        match kind % 8 {
            0 => events.extend(bytes.into_iter().map(Event::Say)),
            1 => events.push(Event::Say(3)),
            2 => events.push(Event::Pause(None)),
            3 => events.push(Event::Pause(Some(match kind >> 4 {
                0..4 => Stop::Breakpoint { cpu },
                4..8 => Stop::HardwareBreakpoint { cpu },
                8..10 => Stop::Step { cpu },
                10..12 => Stop::Panic { cpu },
                _ => Stop::Watch {
                    cpu,
                    kind: WatchKind::Write,
                    va: 8,
                },
            }))),
            _ => {
                let body = [KNOWN[usize::from(kind >> 3)], &bytes].concat();
                events.extend(frame(&body).into_iter().map(Event::Say));
            }
        }
    }
    // The next client.
    for body in [b"qSupported".as_slice(), b"m1000,1"] {
        events.extend(frame(body).into_iter().map(Event::Say));
        events.push(Event::Pause(None));
    }
    let script = Script {
        events,
        next: Cell::new(0),
        sent: RefCell::default(),
    };
    let mut stub = Stub::new(Machine {
        script: &script,
        ram: vec![0; RAM.size as usize],
        registers: [1; Register::COUNT],
        breakpoints: Vec::new(),
        may_run: running,
    });
    assert!(!serve(
        &mut stub,
        &&script,
        &mut Box::new(Buffers::new()),
        running
    ));
    assert_eq!(stub.inferior.breakpoints, []);
    let sent = script.sent.borrow();
    let [.., features, memory] = bodies(&sent)[..] else {
        panic!("no reply");
    };
    assert!(features.starts_with(b"PacketSize="));
    assert_eq!(memory.len(), 2);
});
