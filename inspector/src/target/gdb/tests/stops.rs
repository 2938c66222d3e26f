//! Breakpoints and steps against a machine of two CPUs whose server has the habits of QEMU's, or of hyp's.

use super::*;
use crate::target::{Breakpoint, RunControl};
use proptest::prelude::*;
use std::sync::{Arc, Mutex, MutexGuard};

const BASE: u64 = 0x1000;
const WORDS: u64 = 0x2000;
/// What both CPUs execute, round and round, and which of the words at [`WORDS`] an instruction writes.
const PROGRAM: [(u32, Option<u64>); 9] = [
    (0xd503_201f, None),    // nop
    (0xf900_0020, Some(0)), // str x0, [x1]
    (0xf900_0020, Some(1)),
    (0xd503_201f, None),
    (0xf940_0020, None), // ldr x0, [x1]
    (LOAD, None),        // ldxr w8, [x26]
    (STORE, Some(2)),    // stxr w10, w9, [x26]
    (0x35ff_ffca, None), // cbnz w10, -8
    (0x17ff_fff8, None), // b, to the first
];
const LOAD: u32 = 0x885f_7f48;
const STORE: u32 = 0x880a_7f49;
/// An address that a server names where it has forgotten what was there.
const GARBAGE: u64 = 0xdead_0000;

fn place(index: usize) -> u64 {
    BASE + 4 * index as u64
}

fn word(index: u64) -> Span {
    Span::new(WORDS + 8 * index, 8)
}

/// The machine behind the server.
#[derive(Default)]
struct World {
    /// hyp's server, not QEMU's.
    hyp: bool,
    /// An older QEMU's, whose steps stop at breakpoints; of hyp's, that of the simulated machine, where a CPU stops when it
    /// gets to a breakpoint and not where it stands at one.
    other: bool,
    /// Every entry as often as it was set.
    set: Vec<String>,
    /// Indices into [`PROGRAM`].
    at: [usize; 2],
    /// The last load-exclusive still holds, and the last store-exclusive failed.
    exclusive: [bool; 2],
    failed: [bool; 2],
    /// Of QEMU's: a CPU has yet to throw its translations away, and ends a step before the instruction when it does.
    late: bool,
    /// Has met this watchpoint in a stop that named another.
    untold: [Option<u64>; 2],
    random: u64,
    selected: usize,
    /// What was executed: which CPU, and where.
    executed: Vec<(usize, usize)>,
}

impl World {
    fn draw(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    fn is_set(&self, breakpoint: Breakpoint) -> bool {
        let request = match breakpoint {
            Breakpoint::Code(address) => format!("{},{address:x},4", u8::from(!self.hyp)),
            Breakpoint::Write(span) => format!("2,{:x},{:x}", span.start, span.size),
        };
        self.set.contains(&request)
    }

    fn is_at_breakpoint(&self, cpu: usize) -> bool {
        self.is_set(Breakpoint::Code(place(self.at[cpu])))
    }

    /// The watchpoint that the next instruction of a CPU meets.
    fn watched(&self, cpu: usize) -> Option<u64> {
        let written = word(PROGRAM[self.at[cpu]].1?);
        let fails = PROGRAM[self.at[cpu]].0 == STORE && self.hyp && !self.exclusive[cpu];
        (self.is_set(Breakpoint::Write(written)) && !fails).then_some(written.start)
    }

    fn execute(&mut self, cpu: usize) {
        let at = self.at[cpu];
        self.executed.push((cpu, at));
        self.at[cpu] = match PROGRAM[at].0 {
            LOAD => {
                self.exclusive[cpu] = true;
                at + 1
            }
            STORE => {
                self.failed[cpu] = self.hyp && !std::mem::take(&mut self.exclusive[cpu]);
                at + 1
            }
            _ if at == 7 && self.failed[cpu] => 5,
            _ => (at + 1) % PROGRAM.len(),
        };
    }

    /// One turn of a CPU. Some when it stops: at a breakpoint, before a write, or after one that was not told.
    fn turn(&mut self, cpu: usize, steps: bool) -> Option<Option<u64>> {
        let stands = if self.hyp {
            !self.other && !steps
        } else {
            self.other || !steps
        };
        if stands && self.is_at_breakpoint(cpu) {
            return Some(self.untold[cpu].take());
        }
        match (self.watched(cpu), self.untold[cpu].take()) {
            (Some(_), Some(address)) => {
                self.execute(cpu);
                let there = self.is_set(Breakpoint::Write(Span::new(address, 8)));
                return Some(Some(if there { address } else { GARBAGE }));
            }
            (Some(address), None) => return Some(Some(address)),
            (None, untold) => self.untold[cpu] = untold,
        }
        self.execute(cpu);
        let arrives = self.hyp && self.other && self.is_at_breakpoint(cpu);
        (steps || arrives).then_some(None)
    }

    fn reply(&mut self, cpu: usize, watch: Option<u64>) -> String {
        // hyp has an attempt begin anew that was stopped.
        if self.hyp && watch.is_some() && PROGRAM[self.at[cpu]].0 == STORE {
            self.at[cpu] -= 1;
            if let Some(last) = self.executed.iter().rposition(|(other, _)| *other == cpu) {
                self.executed.remove(last);
            }
        }
        let watch = watch.map_or_else(String::new, |address| format!("watch:{address:x};"));
        // Where it then stands hyp's server says itself.
        let pc = to_hex(&place(self.at[cpu]).to_le_bytes());
        let pc = if self.hyp {
            format!("1:{pc};")
        } else {
            String::new()
        };
        format!("T05thread:0{};{watch}{pc}", cpu + 1)
    }

    /// Lets CPUs run until one stops, or until somebody else stops the machine.
    fn resume(&mut self, action: &str) -> String {
        if self.hyp {
            self.exclusive = [false; 2];
        }
        let steps = action.starts_with('s');
        let late = std::mem::take(&mut self.late) && !self.hyp;
        let cpus = match action.split_once(':') {
            Some((_, "01")) => 0..1,
            Some(_) => 1..2,
            None => 0..2,
        };
        if steps && late && self.draw(2) == 0 {
            return self.reply(cpus.start, None);
        }
        for _ in 0..40 {
            let mut stops = Vec::new();
            for cpu in cpus.clone() {
                if (cpus.len() == 1 || self.draw(3) > 0)
                    && let Some(watch) = self.turn(cpu, steps)
                {
                    stops.push((cpu, watch));
                }
            }
            let outside = !steps && cpus.len() > 1 && self.draw(16) == 0;
            if stops.is_empty() && !outside {
                continue;
            }
            let named = self.draw(stops.len().max(1) as u64) as usize;
            let named = (!outside).then(|| stops.remove(named));
            for (cpu, watch) in stops {
                // Only QEMU's keep it in mind.
                self.untold[cpu] = watch.filter(|_| !self.hyp);
            }
            return match named {
                Some((cpu, watch)) => self.reply(cpu, watch),
                None => "T02thread:01;".to_owned(),
            };
        }
        "T02thread:02;".to_owned()
    }

    /// `None` for what is none of its business.
    fn answer(&mut self, request: &str) -> Option<String> {
        Some(match request {
            "?" => {
                self.set.clear();
                "T05thread:01;".to_owned()
            }
            "Hg01" | "Hg02" => {
                self.selected = usize::from(request == "Hg02");
                "OK".to_owned()
            }
            "p1" => to_hex(&place(self.at[self.selected]).to_le_bytes()),
            _ if request.starts_with("qThreadExtraInfo,") => to_hex(b"CPU#0 [running]"),
            _ if request.starts_with('m') => {
                let (address, size) = request[1..].split_once(',')?;
                let address = u64::from_str_radix(address, 16).ok()?;
                let first = usize::try_from(address.checked_sub(BASE)? / 4).ok()?;
                let size = usize::from_str_radix(size, 16).ok()?;
                let code = PROGRAM.get(first..)?.iter();
                let bytes: Vec<_> = code.flat_map(|(word, _)| word.to_le_bytes()).collect();
                to_hex(&bytes[..size.min(bytes.len())])
            }
            _ => match (request.split_at(1), request.strip_prefix("vCont;")) {
                (("Z", what), _) => {
                    self.late = true;
                    self.set.push(what.to_owned());
                    "OK".to_owned()
                }
                (("z", what), _) => match self.set.iter().position(|set| set == what) {
                    Some(index) => {
                        self.late = true;
                        self.set.remove(index);
                        "OK".to_owned()
                    }
                    None => "E22".to_owned(),
                },
                (_, Some(action)) => self.resume(action),
                _ => return None,
            },
        })
    }
}

/// A client of that machine.
struct Bench {
    world: Arc<Mutex<World>>,
    gdb: Gdb,
    server: Server,
    /// The CPU that the last stop said is about to write, until it has moved.
    writer: Option<usize>,
}

impl Bench {
    fn new(hyp: bool, other: bool, seed: u64) -> Self {
        let world = Arc::new(Mutex::new(World {
            other,
            random: seed | 1,
            ..World::default()
        }));
        let there = Arc::clone(&world);
        let mut qemu = Qemu::default();
        let server = Server::start(b"", move |request, out| {
            let answer = there.lock().unwrap().answer(request);
            match answer {
                Some(answer) => {
                    encode(answer.as_bytes(), out);
                    true
                }
                None => qemu.answer(request, out),
            }
        });
        let mut gdb = server.attach(PATIENT).unwrap();
        gdb.machine.breakpoints.qemu = !hyp;
        world.lock().unwrap().hyp = hyp;
        Self {
            world,
            gdb,
            server,
            writer: None,
        }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// Where the CPUs stand, and how much was executed.
    fn now(&self) -> ([usize; 2], usize) {
        let world = self.world();
        (world.at, world.executed.len())
    }

    fn toggle(&mut self, breakpoint: Breakpoint) {
        let run = &mut self.gdb.machine;
        match run.breakpoints().contains(&breakpoint) {
            true => run.remove(breakpoint).unwrap(),
            false => run.insert(breakpoint).unwrap().unwrap(),
        }
    }

    /// Exactly what the client has set is set, each once, and its mark.
    fn check_set(&self) {
        let ours = self.gdb.machine.breakpoints();
        let world = self.world();
        assert_eq!(world.set.len(), ours.len() + 1, "{:?}", world.set);
        assert!(ours.iter().all(|breakpoint| world.is_set(*breakpoint)));
    }

    fn step(&mut self, cpu: usize) {
        let (before, executed) = self.now();
        let pc = self.gdb.machine.step(cpu).unwrap();
        let (after, _) = self.now();
        assert_eq!(pc, place(after[cpu]));
        assert_eq!(after[1 - cpu], before[1 - cpu]);
        let world = self.world();
        let attempt = world.hyp && before[cpu] == 5;
        let expected: Vec<_> = (before[cpu]..=before[cpu] + usize::from(attempt))
            .map(|at| (cpu, at))
            .collect();
        assert_eq!(world.executed[executed..], expected);
        drop(world);
        self.writer = self.writer.filter(|writer| *writer != cpu);
    }

    /// Whatever is executed where a CPU is to stop, was stopped at before.
    fn resume(&mut self) {
        let (before, executed) = self.now();
        self.gdb.machine.resume().unwrap();
        let state = self.gdb.machine.wait(PATIENT).unwrap();
        let RunState::Stopped { cpu, reason } = state else {
            panic!("{state:?}");
        };
        let world = self.world.lock().unwrap();
        let mut moved = [0; 2];
        for &(cpu, at) in &world.executed[executed..] {
            let first = moved[cpu] == 0 && at == before[cpu];
            assert!(
                first || !world.is_set(Breakpoint::Code(place(at))),
                "{cpu} {at}"
            );
            let written = PROGRAM[at].1.map(word).map(Breakpoint::Write);
            let attempt = world.hyp && moved[cpu] == 1 && before[cpu] == 5;
            let told = self.writer == Some(cpu) && (first || attempt);
            let fails = PROGRAM[at].0 == STORE && world.failed[cpu];
            let watched = written.is_some_and(|written| world.is_set(written));
            assert!(told || fails || !watched, "{cpu} {at}");
            moved[cpu] += 1;
        }
        let cpu = cpu.expect("it is named");
        let about = reason.strip_prefix("about to write to 0x");
        self.writer = about.map(|_| cpu);
        if reason == "signal 5" {
            assert!(world.is_set(Breakpoint::Code(place(world.at[cpu]))));
        }
        if let Some(address) = about {
            let at = world.at[cpu] + usize::from(PROGRAM[world.at[cpu]].0 == LOAD);
            let written = word(PROGRAM[at].1.expect("a write"));
            assert_eq!(address, format!("{:x}", written.start));
            assert!(world.is_set(Breakpoint::Write(written)));
        }
    }

    fn leave(self) -> Vec<String> {
        drop(self.gdb);
        assert_eq!(self.world.lock().unwrap().set, [""; 0]);
        self.server.log()
    }
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Code(usize),
    Write(u64),
    Step(usize),
    Resume,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        1 => (0..PROGRAM.len()).prop_map(Action::Code),
        1 => (0_u64..3).prop_map(Action::Write),
        2 => (0_usize..2).prop_map(Action::Step),
        4 => Just(Action::Resume),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_stop_is_missed_and_nothing_is_left(
        (hyp, other, seed) in (any::<bool>(), any::<bool>(), any::<u64>()),
        actions in prop::collection::vec(action(), 1..60),
    ) {
        let mut bench = Bench::new(hyp, other, seed);
        for action in actions {
            match action {
                // No CPU ever gets through an attempt with a breakpoint inside.
                Action::Code(6) if hyp => {}
                Action::Code(index) => bench.toggle(Breakpoint::Code(place(index))),
                Action::Write(index) => bench.toggle(Breakpoint::Write(word(index))),
                Action::Step(cpu) => bench.step(cpu),
                Action::Resume => bench.resume(),
            }
            bench.check_set();
        }
        bench.leave();
    }
}

/// hyp names the PC in the reply to a step; QEMU does not.
#[test]
fn where_a_step_leads_is_asked_for_only_where_it_is_not_said() {
    let asked = |hyp| {
        let mut bench = Bench::new(hyp, false, 1);
        for _ in 0..4 {
            bench.step(0);
        }
        let log = bench.leave();
        log.iter().filter(|request| *request == "p1").count()
    };
    assert_eq!([true, false].map(asked), [1, 5]);
}
