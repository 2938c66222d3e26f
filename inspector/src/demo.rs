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
    use crate::hypervisor::capture;
    use crate::image::Images;
    use crate::model::{EntryKind, HolderSource, JointOwner, Owner, State, System};
    use crate::target::gdb::{Address, Gdb};
    use crate::target::{Breakpoint, RunState, Target};
    use std::time::Duration;

    fn attach(address: SocketAddr) -> Gdb {
        let address = Address::parse(&address.to_string()).unwrap().unwrap();
        Gdb::attach("demo", &address, Duration::from_secs(20)).unwrap()
    }

    fn look(target: &mut Gdb) -> System {
        capture(target, &mut Images::open(&[]).unwrap()).unwrap()
    }

    #[test]
    fn the_ordinary_target_captures_all_of_it() {
        let demo = start().unwrap();
        let system = look(&mut attach(demo.address()));
        assert!(system.complete, "{:?}", system.problems);
        assert_eq!(system.cpus.len(), CPUS);
        let symbol = |cpu: &crate::model::Cpu| cpu.symbol.is_some();
        assert!(system.cpus.iter().all(symbol), "{:?}", system.cpus);

        let kinds: Vec<_> = system.regimes.iter().flat_map(|r| &r.entries).collect();
        for kind in [EntryKind::Block, EntryKind::Page, EntryKind::Annotation] {
            assert!(kinds.iter().any(|entry| entry.kind == kind), "{kind:?}");
        }
        for (owner, host, hyp) in [
            (Owner::Host, State::Owned, State::NoPage),
            (Owner::Host, State::SharedOwned, State::SharedBorrowed),
            (Owner::Hyp, State::NoPage, State::Owned),
            (Owner::Hyp, State::SharedBorrowed, State::SharedOwned),
        ] {
            let row = (JointOwner::One(owner), Some(host), Some(hyp));
            let found = system
                .owners
                .iter()
                .any(|o| (o.owner, o.host, o.hyp) == row);
            assert!(found, "{row:?}");
        }
        let contended: Vec<_> = system
            .locks
            .iter()
            .filter(|lock| lock.tickets.is_some_and(|tickets| tickets.waiters() > 0))
            .collect();
        let [lock] = contended[..] else {
            panic!("not one contended lock: {contended:?}");
        };
        let holder = lock.holder.as_ref().unwrap();
        assert_eq!(holder.how, HolderSource::Recorded);
        assert!(holder.symbol.is_some(), "{holder:?}");
    }

    #[test]
    fn every_start_is_the_same() {
        let demos = [start().unwrap(), start().unwrap()];
        assert_ne!(demos[0].address(), demos[1].address());
        let [one, other] = demos
            .each_ref()
            .map(|demo| look(&mut attach(demo.address())));
        assert!(one == other);
    }

    #[test]
    fn it_runs_and_stops_and_the_next_capture_differs() {
        let demo = start().unwrap();
        let mut target = attach(demo.address());
        let before = look(&mut target);
        let control = target.run_control().unwrap();
        assert!(!control.found_running());
        control.resume().unwrap();
        assert_eq!(control.state().unwrap(), RunState::Running);
        control.interrupt().unwrap();
        assert_ne!(look(&mut target).cpus, before.cpus);
    }

    #[test]
    fn it_stops_at_breakpoints_and_steps() {
        let demo = start().unwrap();
        let mut target = attach(demo.address());
        let symbols = look(&mut target).symbols;
        let entry = symbols.find("handle_trap").unwrap().start;
        let pcs = |target: &mut Gdb| -> Vec<_> {
            let registers = target.all_registers().unwrap();
            registers.iter().map(|cpu| cpu.get("pc").unwrap()).collect()
        };
        let control = target.run_control().unwrap();
        control.insert(Breakpoint::Code(entry)).unwrap().unwrap();
        let mut seen = [0; CPUS];
        while seen.contains(&0) {
            let control = target.run_control().unwrap();
            control.resume().unwrap();
            let stop = control.wait(Duration::from_secs(20)).unwrap();
            let RunState::Stopped { cpu: Some(cpu), .. } = stop else {
                panic!("{stop:?}");
            };
            let mut expected = pcs(&mut target);
            assert_eq!(expected[cpu], entry);
            seen[cpu] += 1;
            expected[cpu] = target.run_control().unwrap().step(cpu).unwrap();
            assert_ne!(expected[cpu], entry);
            assert_eq!(pcs(&mut target), expected, "only CPU {cpu} has moved");
        }
        drop(target);
        let mut target = attach(demo.address());
        let control = target.run_control().unwrap();
        assert!(!control.found_running());
        control.resume().unwrap();
        assert_eq!(control.state().unwrap(), RunState::Running);
    }

    #[test]
    fn it_stops_before_a_write_that_is_watched() {
        let demo = start().unwrap();
        let mut target = attach(demo.address());
        // A level-2 entry of the host's stage 2, in a hole of 2 MiB.
        let slot = crate::addr::Span::new(0x4022_4098, 8);
        let hyp = look(&mut target).physvirt_offset.unwrap();
        let watched = Breakpoint::Write(crate::addr::Span::new(slot.start.wrapping_sub(hyp), 8));
        let read = |target: &mut Gdb| target.read_phys(&[slot]).unwrap().remove(0).unwrap();
        assert_eq!(read(&mut target), [0; 8]);
        let control = target.run_control().unwrap();
        control.insert(watched).unwrap().unwrap();
        control.resume().unwrap();
        let stop = control.wait(Duration::from_secs(20)).unwrap();
        let RunState::Stopped { cpu: Some(cpu), .. } = stop else {
            panic!("{stop:?}");
        };
        assert_eq!(read(&mut target), [0; 8], "not yet");
        target.run_control().unwrap().step(cpu).unwrap();
        assert_eq!(read(&mut target), 0x4260_07fd_u64.to_le_bytes());
        target.run_control().unwrap().remove(watched).unwrap();
    }

    #[test]
    fn looking_leaves_it_as_it_was() {
        let demo = start().unwrap();
        let [first, second] = [(), ()].map(|()| look(&mut attach(demo.address())));
        assert!(first == second);
    }
}
