//! The thread that owns the machine.

mod follow;
mod run;

use super::*;
use crate::image::Images;
use crate::tui::worker::{Command, Machine, Opener, spawn};
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// A worker on a fake, and what it reports.
struct Rig {
    commands: Sender<Command>,
    reports: Receiver<Report>,
    handle: Option<JoinHandle<()>>,
}

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

impl Rig {
    /// `again` is what is opened when the link was lost, in order; then opening fails.
    fn start(first: Fake, again: Vec<Fake>) -> Self {
        let again = Mutex::new(again.into_iter());
        let opener: Opener = Box::new(move || {
            let next = again.lock().expect("one thread").next();
            let next = next.ok_or_else(|| anyhow::anyhow!("connection refused"))?;
            Ok(Box::new((next, Images::default())) as Box<dyn Machine>)
        });
        Self::spawn(Box::new((first, Images::default())), opener)
    }

    fn spawn(machine: Box<dyn Machine>, opener: Opener) -> Self {
        let (sender, reports) = channel();
        let report = move |report| {
            let _ = sender.send(report);
        };
        let (commands, handle) = spawn(machine, opener, report).expect("a thread");
        Self {
            commands,
            reports,
            handle: Some(handle),
        }
    }

    fn tell(&self, command: Command) {
        self.commands.send(command).expect("the worker is there");
    }

    /// Waits for a report that is wanted.
    fn wait<T>(&self, wanted: impl Fn(&Report) -> Option<T>) -> T {
        loop {
            let report = self
                .reports
                .recv_timeout(PATIENCE)
                .expect("a report in time");
            if let Some(found) = wanted(&report) {
                return found;
            }
        }
    }

    fn capture(&self) -> Arc<Capture> {
        self.wait(|report| match report {
            Report::Captured(capture) => Some(Arc::clone(capture)),
            _ => None,
        })
    }

    /// Where the CPUs stand in the next capture.
    fn pcs(&self) -> Vec<u64> {
        let capture = self.capture();
        let cpus = capture.system.cpus.iter();
        cpus.filter_map(|cpu| cpu.pc).collect()
    }

    fn failure(&self) -> String {
        self.wait(|report| match report {
            Report::Failed(text) => Some(text.clone()),
            _ => None,
        })
    }

    fn run_state(&self) -> RunState {
        self.wait(|report| match report {
            Report::Run(state) => Some(state.clone()),
            _ => None,
        })
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Quit);
        if let Some(handle) = self.handle.take() {
            let _ = handle.join();
        }
    }
}

#[test]
fn it_opens_captures_and_says_that_the_machine_stands() {
    let rig = Rig::start(Fake::new(), Vec::new());
    let live = rig.wait(|report| match report {
        Report::Opened { name, live, .. } => Some((name.clone(), *live)),
        _ => None,
    });
    assert_eq!(live, ("fake".to_owned(), true));
    assert_eq!(rig.capture().number, 1);
    assert_eq!(rig.run_state(), super::super::testing::stopped());
}

#[test]
fn a_running_machine_is_stopped_for_each_capture_and_goes_on() {
    let rig = Rig::start(Fake::new(), Vec::new());
    rig.capture();
    rig.run_state();
    rig.tell(Command::Every(Some(Duration::from_millis(1))));
    rig.tell(Command::Continue);
    // The fake refuses to be read while it runs.
    for number in 2..5 {
        assert_eq!(rig.run_state(), RunState::Running);
        assert_eq!(rig.capture().number, number);
    }
    rig.tell(Command::Interrupt);
    let stopped = super::super::testing::stopped();
    rig.wait(|report| (*report == Report::Run(stopped.clone())).then_some(()));
}

#[test]
fn a_lost_link_is_tried_until_it_is_back_and_captures_go_on_counting() {
    let fake = Fake::new();
    let broken = Arc::clone(&fake.broken);
    let rig = Rig::start(fake, vec![Fake::new()]);
    rig.run_state();
    // The machine stands and nobody asks for anything: it is noticed all the same.
    broken.store(true, Ordering::SeqCst);
    let reason = rig.wait(|report| match report {
        Report::Lost(reason) => Some(reason.clone()),
        _ => None,
    });
    assert_eq!(reason, "fake: link lost while reading: connection reset");
    rig.tell(Command::Capture);
    assert!(rig.wait(|report| match report {
        Report::Failed(text) => Some(text == "the link is lost"),
        Report::Opened { .. } => Some(true),
        _ => None,
    }));
    assert_eq!(rig.capture().number, 2);
}

#[test]
fn another_machine_may_come_when_one_has_ended() {
    let mut fake = Fake::new();
    fake.ends = true;
    let rig = Rig::start(fake, vec![Fake::new()]);
    rig.run_state();
    rig.tell(Command::Continue);
    rig.wait(|report| (*report == Report::Lost("the machine has ended".into())).then_some(()));
    rig.wait(|report| matches!(report, Report::Opened { .. }).then_some(()));
    assert_eq!(rig.capture().number, 2);
}

#[test]
fn what_stays_lost_is_said_again() {
    let fake = Fake::new();
    fake.broken.store(true, Ordering::SeqCst);
    let rig = Rig::start(fake, Vec::new());
    for expected in [
        "fake: link lost while reading: connection reset",
        "connection refused",
    ] {
        rig.wait(|report| (*report == Report::Lost(expected.into())).then_some(()));
    }
}

#[test]
fn a_file_that_cannot_be_written_is_no_lost_link() {
    let rig = Rig::start(Fake::new(), Vec::new());
    rig.tell(Command::Save("/no/such/folder/a.core".into()));
    let text = rig.wait(|report| match report {
        Report::Failed(text) => Some(text.clone()),
        Report::Lost(reason) => panic!("{reason}"),
        _ => None,
    });
    assert!(text.contains("no such folder"), "{text}");
    rig.tell(Command::Save(
        std::env::temp_dir().join("never-written.core"),
    ));
    rig.wait(|report| matches!(report, Report::Saved(_)).then_some(()));
}

#[test]
fn an_older_snapshot_is_not_overwritten() {
    let rig = Rig::start(Fake::new(), Vec::new());
    let old = tempfile::NamedTempFile::new().unwrap();
    rig.tell(Command::Save(old.path().into()));
    let text = rig.wait(|report| match report {
        Report::Failed(text) => Some(text.clone()),
        Report::Saved(path) => panic!("{path:?} was overwritten"),
        _ => None,
    });
    assert!(
        text.ends_with("exists already: choose another name"),
        "{text}"
    );
}

#[test]
fn a_panic_of_the_worker_is_told() {
    let mut fake = Fake::new();
    fake.panics = true;
    let rig = Rig::start(fake, Vec::new());
    rig.wait(|report| (*report == Report::Gone).then_some(()));
}
