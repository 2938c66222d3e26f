//! The holder shown for a lock is the CPU that holds it.
//!
//! That is judged by what CPUs are doing, never by the locks' own words: a CPU that stands in a function that runs under
//! a lock holds it, and a CPU in whose calls no function occurs that takes the lock does not.

use crate::client::Client;
use crate::debuggee::{Debuggee, Session, cpu_of};
use fixtures::qemu::Boot;
use std::ops::Range;
use std::thread;
use std::time::Duration;

/// Samples at breakpoints, in each of which a lock is held.
const HELD: usize = 1000;
/// Samples at any moment.
const ANY: usize = 300;

/// A lock, and the functions by which to tell who holds it.
struct Judge {
    lock: &'static str,
    /// All of the code that may hold it, or is about to.
    takers: Vec<Range<u64>>,
    /// Code of which all runs under it.
    inside: Vec<Range<u64>>,
}

const WRITE: &str = "uart::Uart as core::fmt::Write>::write_str";
const GET_LEAF: &str = "PageTable<A>::get_leaf";
const MAP_HOST: &str = "PageTable<hyp::addr::Ipa>>::map";
const MAP_HYP: &str = "PageTable<hyp::addr::Va>>::map";
const CREATE: &str = "Hyp>::pkvm_create_mappings_locked";
const IDMAP: &str = "Hyp>::host_stage2_idmap_locked";
const SHARE: &str = "Hyp>::pkvm_host_share_hyp";
const FAULT: &str = "Hyp>::host_stage2_idmap";

/// What is known of the code of hyp, whose host runs: both `get_leaf` are called by [`SHARE`] and [`FAULT`] only, and
/// everything that works on hyp's own table by [`SHARE`], which takes both locks.
fn judges(debuggee: &Debuggee) -> Vec<Judge> {
    let ranges = |names: &[&str]| -> Vec<_> {
        let found = names.iter().flat_map(|name| debuggee.functions(name));
        found
            .map(|(address, size)| address..address + size)
            .collect()
    };
    let order = "Hyp>::check_order";
    let pools = ["Pool::alloc", "Pool::free"];
    vec![
        Judge {
            lock: "host",
            takers: ranges(&[SHARE, FAULT, order]),
            inside: ranges(&[GET_LEAF, MAP_HOST, MAP_HYP, CREATE, IDMAP]),
        },
        Judge {
            lock: "hyp",
            takers: ranges(&[SHARE, order]),
            inside: ranges(&[MAP_HYP, CREATE]),
        },
        Judge {
            lock: "host-pool",
            takers: ranges(&pools),
            inside: Vec::new(),
        },
        Judge {
            lock: "hyp-pool",
            takers: ranges(&pools),
            inside: Vec::new(),
        },
        Judge {
            lock: "console",
            takers: ranges(&["uart::print", WRITE]),
            inside: ranges(&[WRITE]),
        },
    ]
}

/// What `monitor locks` says of a lock, and its memory.
#[derive(Debug)]
struct Lock {
    name: String,
    /// Where it is in hyp's memory.
    va: u64,
    /// Who holds it, if it is held and that is known.
    holder: Option<u64>,
    held: bool,
    waiters: u64,
}

/// VA − PA of what hyp maps.
const OFFSET: u64 = 0x40_0000_0000;
/// A lock's holder while nobody holds it.
const NO_CPU: u64 = 0xffff_ffff;

/// The locks as they are shown, each as its memory has it.
fn locks(session: &mut Session<'_>) -> Vec<Lock> {
    let text = session.monitor("locks");
    let locks: Vec<_> = text.lines().map(parse_lock).collect();
    for lock in &locks {
        // +0 owner, +2 next, +4 holder.
        let word = session.words(lock.va, 1)[0];
        let (owner, next, holder) = (word & 0xffff, word >> 16 & 0xffff, word >> 32);
        assert_eq!(lock.held, owner != next, "{text}");
        if lock.held {
            assert_eq!(
                lock.waiters,
                next.wrapping_sub(owner + 1) & 0xffff,
                "{text}"
            );
            assert_eq!(lock.holder.unwrap_or(NO_CPU), holder, "{text}");
        }
    }
    locks
}

/// Reads a line like `host 0x402ff398 owner 3 next 5 held, waiters 1, by CPU 2 at 0x40402129b4 hyp::…`.
fn parse_lock(line: &str) -> Lock {
    let words: Vec<_> = line
        .split([' ', ','])
        .filter(|word| !word.is_empty())
        .collect();
    let after = |word: &str| {
        let at = words.iter().position(|known| *known == word)?;
        words.get(at + 1)?.parse().ok()
    };
    let pa = words[1].strip_prefix("0x").expect(line);
    Lock {
        name: words[0].to_owned(),
        va: u64::from_str_radix(pa, 16).expect(line) + OFFSET,
        holder: after("CPU"),
        held: words.contains(&"held"),
        waiters: after("waiters").unwrap_or(0),
    }
}

/// How often a lock was seen in each state.
#[derive(Default, Debug)]
struct Seen {
    free: u32,
    held: u32,
    /// Held, but not yet, or not any more, recorded by whom.
    unknown: u32,
}

impl Seen {
    /// Compares what is shown of all locks with what all CPUs are doing. Returns the locks.
    fn sample(&mut self, session: &mut Session<'_>, judges: &[Judge]) -> Vec<Lock> {
        let cpus: Vec<_> = session
            .all_registers()
            .into_iter()
            .map(|registers| {
                let calls = session.calls(&registers);
                (calls, registers.x[30].wrapping_sub(4))
            })
            .collect();
        let locks = locks(session);
        assert_eq!(locks.len(), judges.len());
        for (lock, judge) in locks.iter().zip(judges) {
            assert_eq!(lock.name, judge.lock);
            let runs = |code: &[Range<u64>], at: u64| code.iter().any(|range| range.contains(&at));
            let those = |what: &dyn Fn(&[u64], u64) -> bool| -> Vec<u64> {
                let cpus = (0..)
                    .zip(&cpus)
                    .filter(|(_, (calls, x30))| what(calls, *x30));
                cpus.map(|(cpu, _)| cpu).collect()
            };
            let inside = those(&|calls, _| calls.iter().any(|at| runs(&judge.inside, *at)));
            // At the first instructions of a function, only x30 says who called it.
            let near = those(&|calls, x30| {
                let mut all = calls.iter().chain([&x30]).filter(|_| !calls.is_empty());
                all.any(|at| runs(&judge.takers, *at) || runs(&judge.inside, *at))
            });
            let truth = format!("{lock:x?}: inside {inside:?}, near {near:?}, {cpus:x?}");
            match (lock.held, lock.holder) {
                (false, _) => {
                    assert!(inside.is_empty(), "{truth}");
                    self.free += 1;
                }
                (true, Some(holder)) => {
                    assert!(inside.iter().all(|cpu| *cpu == holder), "{truth}");
                    assert!(near.contains(&holder), "{truth}");
                    self.held += 1;
                }
                (true, None) => {
                    assert!(inside.is_empty() && !near.is_empty(), "{truth}");
                    self.unknown += 1;
                }
            }
            // Those that wait are on their way, too.
            let wanted = u64::from(lock.held) + lock.waiters;
            assert!(near.len() as u64 >= wanted, "{truth}");
        }
        locks
    }
}

/// Has CPUs run into `places`, one after the other, and says who holds the locks that code there runs under.
fn sample_at(
    session: &mut Session<'_>,
    judges: &[Judge],
    seen: &mut Seen,
    places: &[(u64, &[&str])],
    samples: usize,
) {
    for (place, held) in places.iter().cycle().take(samples) {
        session.client.order(&format!("Z0,{place:x},4"));
        session.resume();
        let stop = session.client.stop();
        assert!(stop.contains("swbreak"), "{stop}");
        let cpu = cpu_of(&stop);
        let locks = seen.sample(session, judges);
        for name in *held {
            let lock = locks.iter().find(|lock| lock.name == *name);
            let holder = lock.and_then(|lock| lock.holder);
            assert_eq!(holder, Some(cpu), "{name} at {place:#x}: {locks:x?}");
        }
        let pc = session.registers(cpu).map(|registers| registers.pc);
        assert_eq!(pc, Some(*place));
        session.client.order(&format!("z0,{place:x},4"));
    }
}

/// QEMU's gdb server reads the same of the same locks. Meanwhile not even hyp's runs.
fn compare_with_qemu(debuggee: &Debuggee, session: &mut Session<'_>) {
    let ours: Vec<_> = locks(session)
        .into_iter()
        .map(|lock| (lock.va, session.client.ask(&format!("m{:x},10", lock.va))))
        .collect();
    let mut qemu = Client::connect(debuggee.machine.gdb());
    qemu.order("Qqemu.PhyMemMode:1");
    for (va, ours) in ours {
        let theirs = qemu.ask(&format!("m{:x},10", va - OFFSET));
        assert_eq!(theirs, ours, "the lock at {va:#x}");
    }
    qemu.order("Qqemu.PhyMemMode:0");
    qemu.order("D");
}

#[test]
fn qemu_the_holder_shown_is_the_one_that_holds_it() {
    let boot = Boot::hyp().expect("the image builds");
    let mut debuggee = Debuggee::start(boot, 4);
    let judges = judges(&debuggee);
    let starts = |name| debuggee.functions(name).into_iter().map(|(start, _)| start);
    let mut seen = Seen::default();
    let mut session = debuggee.attach();

    // All CPUs share the same page, again and again.
    session.set_pace(0);
    let again: Vec<_> = starts(GET_LEAF).map(|at| (at, &["host"][..])).collect();
    for _ in 0..9 {
        sample_at(&mut session, &judges, &mut seen, &again, HELD / 10);
        compare_with_qemu(&debuggee, &mut session);
    }
    // Each round a new one, which hyp has to map.
    session.set_pace(1000);
    let create = starts(CREATE).map(|at| (at, &["host", "hyp"][..]));
    let map = starts(MAP_HOST).map(|at| (at, &["host"][..]));
    let new: Vec<_> = create.chain(map).collect();
    sample_at(&mut session, &judges, &mut seen, &new, HELD / 10);
    assert!(seen.held as usize >= HELD, "{seen:?}");

    session.set_pace(0);
    for sample in 0..ANY {
        session.resume();
        // Anywhere.
        thread::sleep(Duration::from_micros(sample as u64 * 7919 % 2003));
        session.interrupt();
        seen.sample(&mut session, &judges);
    }
    eprintln!("locks seen: {seen:?}");

    session.set_pace(4);
    let rounds = session.counters().rounds;
    session.client.order("D");
    drop(session);
    debuggee.wait_for_rounds(rounds + 2);
}
