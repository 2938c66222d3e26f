//! The threads of a machine: one for each CPU, and one that owns hyp and gives the CPUs their turns.

use super::baton::is_end;
use super::cpu::SimCpu;
use super::host::Host;
use super::publish::{publish, publish_constants};
use super::ram::Ram;
use super::{Scene, Shared, StartError, layout};
use crate::debug::{Region, Resume, Stop, WatchKind};
use crate::init::{Config, Hyp, InitError, PoolMemory};
use crate::pgtable::Geometry;
use crate::pool::PageRecord;
use crate::stats::Event;
use core::sync::atomic::{AtomicU64, Ordering};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::prelude::rust_2024::*;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Once};
use std::thread::{self, JoinHandle};

/// What the scheduler is asked for.
#[derive(Clone, Debug)]
pub(super) struct Command {
    pub(super) steps: u64,
    pub(super) resume: Resume,
    pub(super) breakpoints: BTreeSet<u64>,
    /// Virtual addresses.
    pub(super) watchpoints: Vec<Region>,
}

/// Where hyp put its root tables.
#[derive(Clone, Copy, Debug)]
pub(super) struct Roots {
    pub(super) host: u64,
    pub(super) hyp: u64,
}

/// The machine's threads, from outside.
#[derive(Debug)]
pub(super) struct World {
    /// `None` once they are to end.
    commands: Option<Sender<Command>>,
    stops: Receiver<Option<Stop>>,
    thread: Option<JoinHandle<()>>,
}

/// Names of the CPUs' threads start with this.
const CPU_THREAD: &str = "hyp-cpu-";

impl World {
    /// Starts hyp and the threads; nothing runs yet.
    pub(super) fn start(
        shared: &Arc<Shared>,
        cpus: usize,
        scene: Scene,
    ) -> Result<(Self, Roots), StartError> {
        silence_simulated_panics();
        let (commands, inbox) = channel();
        let (outbox, stops) = channel();
        let (started, start) = channel();
        let shared = Arc::clone(shared);
        let thread = thread::Builder::new()
            .name("hyp-world".into())
            .spawn(move || {
                let result = live(&shared, (cpus, scene), &started, &inbox, &outbox);
                if let Err(error) = result {
                    // Nobody listens any more once the machine has started.
                    let _ = started.send(Err(error));
                }
            })
            .map_err(|error| StartError::Thread(error.to_string()))?;
        let world = Self {
            commands: Some(commands),
            stops,
            thread: Some(thread),
        };
        let roots = start
            .recv()
            .unwrap_or_else(|_| Err(StartError::Thread("it ended".into())))?;
        Ok((world, roots))
    }

    /// Carries out a command and waits for its end.
    pub(super) fn run(&self, command: Command) -> Option<Stop> {
        self.commands.as_ref()?.send(command).ok()?;
        self.stops.recv().ok().flatten()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            // It has nothing to say that the machine has not said.
            let _ = thread.join();
        }
    }
}

/// A panic of simulated EL2 code is an event of the simulation: a debugger shows it, this process's standard
/// error does not.
fn silence_simulated_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let simulated = thread::current()
                .name()
                .is_some_and(|name| name.starts_with(CPU_THREAD));
            if !simulated {
                previous(info);
            }
        }));
    });
}

/// The whole life of a machine: start hyp, serve commands, end.
fn live(
    shared: &Shared,
    (cpus, scene): (usize, Scene),
    started: &Sender<Result<Roots, StartError>>,
    inbox: &Receiver<Command>,
    outbox: &Sender<Option<Stop>>,
) -> Result<(), StartError> {
    let ram = [layout::page_range(layout::RAM)?];
    let sections = layout::sections()?;
    let records =
        |pages: u64| -> Vec<PageRecord> { (0..pages).map(|_| PageRecord::new()).collect() };
    let pool_pages = [shared.pools.host, shared.pools.hyp];
    let [host_records, hyp_records] =
        pool_pages.map(|pages| records(pages.size() / crate::addr::PAGE_SIZE));
    let boot = SimCpu::new(0, shared, false);
    let hyp = Hyp::new(
        &boot,
        Config {
            regions: &ram,
            sections: &sections,
            physvirt_offset: layout::PHYSVIRT_OFFSET,
            cpus: cpus as u32,
            host_pool: PoolMemory {
                pages: shared.pools.host,
                records: &host_records,
            },
            hyp_pool: PoolMemory {
                pages: shared.pools.hyp,
                records: &hyp_records,
            },
            host_geometry: Geometry::HOST_STAGE2,
            lock_checks: true,
        },
    )?;
    start_hyp(&hyp, &boot)?;
    publish_constants(&hyp, &mut shared.ram.lock());
    let roots = Roots {
        host: hyp.host().root().get(),
        hyp: hyp.hyp().root().get(),
    };
    let alive = AtomicU64::new(0);
    thread::scope(|scope| {
        let mut result = Ok(());
        for number in 0..cpus {
            let (hyp, alive) = (&hyp, &alive);
            let spawned = thread::Builder::new()
                .name(format!("{CPU_THREAD}{number}"))
                .spawn_scoped(scope, move || run_cpu((number, scene), shared, hyp, alive));
            if let Err(error) = spawned {
                result = Err(StartError::Thread(error.to_string()));
                break;
            }
            alive.fetch_or(1 << number, Ordering::Relaxed);
        }
        if result.is_ok() {
            let _ = started.send(Ok(roots));
            Scheduler::new(shared, &hyp, &alive).serve(inbox, outbox);
        }
        shared.baton.end();
        result
    })
}

fn start_hyp(hyp: &Hyp<'_>, boot: &SimCpu<'_>) -> Result<(), InitError> {
    hyp.init(boot)?;
    hyp.finalise(boot)?;
    boot.shared().unsettled.lock()[0] = false;
    Ok(())
}

/// The thread of one CPU.
fn run_cpu((number, scene): (usize, Scene), shared: &Shared, hyp: &Hyp<'_>, alive: &AtomicU64) {
    let mut host = Host::new(SimCpu::new(number, shared, true), hyp);
    let end = catch_unwind(AssertUnwindSafe(|| {
        shared.baton.wait_for_turn(number);
        host.run(scene);
    }));
    if let Err(panic) = end
        && !is_end(&*panic)
    {
        host.cpu().panic();
        alive.fetch_and(!(1 << number), Ordering::Relaxed);
    }
    shared.baton.leave();
}

fn meet(one: Region, other: Region) -> bool {
    one.base < other.end() && other.base < one.end()
}

/// Gives CPUs their turns.
struct Scheduler<'a> {
    shared: &'a Shared,
    hyp: &'a Hyp<'a>,
    /// CPUs whose threads run, a bit each.
    alive: &'a AtomicU64,
    random: u64,
    steps: u64,
}

impl<'a> Scheduler<'a> {
    fn new(shared: &'a Shared, hyp: &'a Hyp<'a>, alive: &'a AtomicU64) -> Self {
        Self {
            shared,
            hyp,
            alive,
            random: 1,
            steps: 0,
        }
    }

    /// Carries out commands until the machine is dropped.
    fn serve(&mut self, inbox: &Receiver<Command>, outbox: &Sender<Option<Stop>>) {
        while let Ok(command) = inbox.recv() {
            let stop = self.run(&command);
            publish(self.hyp, &self.shared.pools, &mut self.shared.ram.lock());
            self.publish_stats();
            if outbox.send(stop).is_err() {
                return;
            }
        }
    }

    fn run(&mut self, command: &Command) -> Option<Stop> {
        for _ in 0..command.steps {
            let alive = self.alive.load(Ordering::Relaxed);
            let runnable = alive & command.resume.run;
            let cpu = match command.resume.step {
                Some(cpu) if runnable >> cpu & 1 == 1 => cpu,
                Some(cpu) => return Some(Stop::Step { cpu }),
                None => self.choose(runnable)?,
            };
            let foreseen = self.shared.cpus.lock()[cpu].will_write;
            self.shared.baton.step(cpu);
            self.steps += 1;
            let change = self.change(&command.watchpoints);
            // CPUs stop before a write that they are known to make, and behind another.
            let change =
                change.filter(|&watched| !foreseen.is_some_and(|write| meet(write, watched)));
            if self.alive.load(Ordering::Relaxed) != alive {
                return Some(Stop::Panic { cpu });
            }
            if command.resume.step.is_some() {
                return Some(Stop::Step { cpu });
            }
            let (pc, will_write) = {
                let registers = &self.shared.cpus.lock()[cpu];
                (registers.pc, registers.will_write)
            };
            if command.breakpoints.contains(&pc) {
                return Some(Stop::Breakpoint { cpu });
            }
            let mut watchpoints = command.watchpoints.iter();
            let met = watchpoints.find(|&&watched| {
                change == Some(watched) || will_write.is_some_and(|write| meet(write, watched))
            });
            if let Some(watched) = met {
                return Some(Stop::Watch {
                    cpu,
                    kind: WatchKind::Write,
                    va: watched.base,
                });
            }
        }
        None
    }

    /// What is watched and has changed of what the library keeps in objects of this process: locks, reference counts.
    fn change(&self, watchpoints: &[Region]) -> Option<Region> {
        let published = watchpoints.iter().filter(|watched| {
            let pa = watched.base.wrapping_sub(layout::LINEAR_OFFSET);
            self.shared.is_published(pa, watched.size)
        });
        let published: Vec<_> = published.copied().collect();
        if published.is_empty() {
            return None;
        }
        let mut ram = self.shared.ram.lock();
        let read = |ram: &Ram, watched: &Region| {
            let mut bytes = vec![0; watched.size as usize];
            ram.read(watched.base.wrapping_sub(layout::LINEAR_OFFSET), &mut bytes);
            bytes
        };
        let before: Vec<_> = published
            .iter()
            .map(|watched| read(&ram, watched))
            .collect();
        publish(self.hyp, &self.shared.pools, &mut ram);
        let mut changed = published.iter().zip(before);
        let changed = changed.find(|(watched, before)| read(&ram, watched) != *before);
        changed.map(|(watched, _)| *watched)
    }

    /// One of the CPUs whose bits are set, by Marsaglia's xorshift; `None` when there is none.
    fn choose(&mut self, runnable: u64) -> Option<usize> {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let count = u64::from(runnable.count_ones());
        let nth = self.random.checked_rem(count)? as usize;
        (0..64).filter(|cpu| runnable >> cpu & 1 == 1).nth(nth)
    }

    fn publish_stats(&self) {
        let hyp = self.hyp;
        let events = Event::ALL.map(|event| (event.name(), hyp.stats().get(event)));
        let own = [
            ("steps", self.steps),
            (
                "TLB invalidations",
                self.shared.invalidations.load(Ordering::Relaxed),
            ),
            ("host pool pages free", hyp.host().pool().free_pages()),
            ("hyp pool pages free", hyp.hyp().pool().free_pages()),
        ];
        *self.shared.stats.lock() = own.into_iter().chain(events).collect();
    }
}
