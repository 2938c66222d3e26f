//! Following aborts of the embedded machine.

use super::*;
use crate::abort::{Cause, Outcome, Stage, Story, Until, Wanted};
use crate::session;
use crate::target::{Breakpoint, Target};
use crate::tui::worker::Point;
use std::path::Path;

/// The embedded machine.
fn open() -> session::Session {
    let opener = session::Opener {
        target: "demo".to_owned(),
        images: Vec::new(),
        timeout: PATIENCE,
    };
    opener.open().expect("it starts")
}

/// A worker on it.
fn rig() -> Rig {
    let rig = Rig::spawn(Box::new(open()), Box::new(|| anyhow::bail!("not again")));
    rig.run_state();
    rig
}

impl Rig {
    /// The aborts that are not at their end, after the next capture.
    fn under_way(&self) -> Vec<Arc<Story>> {
        self.capture();
        self.wait(|report| match report {
            Report::Following { stories, .. } => Some(stories.clone()),
            _ => None,
        })
    }

    fn told(&self) -> Arc<Story> {
        self.wait(|report| match report {
            Report::Told(story) => Some(Arc::clone(story)),
            Report::Failed(text) | Report::Lost(text) => panic!("{text}"),
            _ => None,
        })
    }
}

#[test]
fn an_abort_is_followed_from_stage_to_stage() {
    let rig = rig();
    rig.tell(Command::Follow(Point::Entry));
    let stories = rig.under_way();
    let first = stories.first().expect("one is under way");
    let stages = |story: &Story| {
        story
            .steps
            .iter()
            .map(|step| step.stage)
            .collect::<Vec<_>>()
    };
    assert_eq!(stages(first), [Stage::Trap]);
    let cpu = first.cpu;
    rig.tell(Command::Follow(Point::Stage(cpu)));
    let stories = rig.under_way();
    let next = stories
        .iter()
        .find(|story| story.cpu == cpu)
        .expect("still");
    assert_eq!(stages(next), [Stage::Trap, Stage::Decode]);
    // A step or two lead no further than that, and lose nothing.
    rig.tell(Command::Step(cpu));
    rig.tell(Command::StepOver(cpu));
    rig.tell(Command::Follow(Point::End(cpu)));
    let story = rig.told();
    assert_eq!(story.cpu, cpu);
    assert_eq!(stages(&story)[..2], [Stage::Trap, Stage::Decode]);
    let first = |at: usize, text: &str| !story.steps[..at].iter().any(|step| step.text == text);
    for (at, step) in story.steps.iter().enumerate() {
        assert!(first(at, &step.text), "{story:#?}");
    }
    // What it changed is marked in the capture of its end.
    let capture = rig.capture();
    let words = story.writes.iter().map(|write| write.at).collect();
    assert_eq!(capture.last_abort.words, words);
    rig.tell(Command::Follow(Point::Stage(99)));
    assert!(rig.failure().starts_with("CPU 99 is in no abort"));
}

#[test]
fn an_abort_under_way_is_told_to_its_end_before_the_next_one() {
    let rig = rig();
    rig.tell(Command::Follow(Point::Entry));
    let first = Arc::clone(rig.under_way().first().expect("one is under way"));
    rig.tell(Command::Follow(Point::Entry));
    let story = rig.told();
    assert_eq!((story.cpu, &story.host), (first.cpu, &first.host));
    assert!(story.after.is_some(), "{:?}", story.outcome);
}

#[test]
fn a_run_to_the_next_refused_one_tells_of_those_before_it() {
    let rig = rig();
    rig.tell(Command::Follow(Point::Outcome(Until::Refused)));
    let last = std::iter::from_fn(|| Some(rig.told()));
    let refused = |story: &Arc<Story>| matches!(story.outcome, Outcome::Refused { .. });
    let mut last = last.skip_while(|story| !refused(story));
    assert!(last.next().is_some());
    rig.tell(Command::Disarm);
    let disarmed =
        |report: &Report| matches!(report, Report::Following { armed: false, .. }).then_some(());
    rig.wait(disarmed);
}

#[test]
fn while_the_machine_runs_on_aborts_are_told() {
    let rig = rig();
    rig.tell(Command::Follow(Point::Entry));
    rig.capture();
    rig.tell(Command::Continue);
    for _ in 0..3 {
        rig.told();
    }
    rig.tell(Command::Interrupt);
    rig.capture();
}

#[test]
fn only_what_is_wanted_is_followed() {
    let rig = rig();
    // Those of another CPU that were armed for before are followed no more.
    rig.tell(Command::Follow(Point::Entry));
    rig.under_way();
    rig.tell(Command::Want(Wanted {
        cpu: Some(2),
        call: Some("share".to_owned()),
        steps: true,
        ..Wanted::default()
    }));
    rig.tell(Command::Follow(Point::Outcome(Until::Refused)));
    let story = loop {
        let story = rig.told();
        assert_eq!(story.cpu, 2);
        let Cause::Call(call) = &story.cause else {
            panic!("{story:?}")
        };
        assert!(
            call.name
                .as_ref()
                .is_some_and(|name| name.contains("share"))
        );
        assert!(story.instructions.is_some(), "it is stepped");
        if call.result.is_some_and(|result| result < 0) {
            break story;
        }
    };
    assert_eq!(story.outcome, Outcome::Returned);
    // By hand, too, steps lead to the end.
    rig.capture();
    rig.tell(Command::Follow(Point::Entry));
    rig.under_way();
    rig.tell(Command::Follow(Point::End(2)));
    assert!(rig.told().instructions.is_some());
}

#[test]
fn a_machine_that_runs_is_stopped_for_the_next_one() {
    let rig = rig();
    rig.tell(Command::Continue);
    assert_eq!(rig.run_state(), RunState::Running);
    rig.tell(Command::Follow(Point::Entry));
    assert_eq!(rig.under_way()[0].steps.len(), 1);
}

/// The embedded machine, and the breakpoints that it had at its last capture.
struct Watched {
    session: session::Session,
    set: Arc<Mutex<Vec<Breakpoint>>>,
}

impl Machine for Watched {
    fn name(&self) -> &str {
        self.session.name()
    }

    fn notes(&self) -> Vec<String> {
        self.session.notes()
    }

    fn capture(&mut self) -> anyhow::Result<System> {
        let breakpoints = self.run_control().expect("it runs").breakpoints();
        *self.set.lock().expect("one thread") = breakpoints;
        Machine::capture(&mut self.session)
    }

    fn parts(&mut self) -> (&mut dyn Target, &mut Images) {
        self.session.parts()
    }

    fn save(&mut self, path: &Path) -> anyhow::Result<()> {
        Machine::save(&mut self.session, path)
    }
}

#[test]
fn of_all_breakpoints_only_the_users_stay() {
    let set = Arc::new(Mutex::new(Vec::new()));
    let machine = Watched {
        session: open(),
        set: Arc::clone(&set),
    };
    let rig = Rig::spawn(Box::new(machine), Box::new(|| anyhow::bail!("not again")));
    let is_set = |at| {
        let set = set.lock().expect("one thread");
        set.contains(&Breakpoint::Code(at))
    };
    let first = rig.capture();
    let find = |name| first.system.symbols.find(name).expect("it has one").start;
    // Both are stops on the way, and one is the user's as well.
    let (looks_up, maps) = (find("get_leaf"), find("set_leaf"));
    rig.tell(Command::Break(looks_up));
    rig.tell(Command::Want(Wanted {
        cpu: Some(1),
        ..Wanted::default()
    }));
    rig.tell(Command::Follow(Point::Entry));
    while rig.under_way().is_empty() {
        rig.tell(Command::Follow(Point::Entry));
    }
    assert!(is_set(looks_up) && is_set(maps));
    // Every CPU stops at the user's.
    let is_told = |report: &Report| match report {
        Report::Told(_) => Some(true),
        Report::Captured(_) => Some(false),
        _ => None,
    };
    rig.tell(Command::Follow(Point::End(1)));
    while !rig.wait(is_told) {
        rig.tell(Command::Follow(Point::End(1)));
    }
    rig.capture();
    assert!(is_set(looks_up) && !is_set(maps));
    rig.tell(Command::Disarm);
    rig.tell(Command::Capture);
    rig.capture();
    let all = set.lock().expect("one thread").clone();
    assert_eq!(all, [Breakpoint::Code(looks_up)]);
}
