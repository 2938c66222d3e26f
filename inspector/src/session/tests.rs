//! Following traps on the embedded machine, whose CPUs stand where the test has them stand.

use super::*;
use crate::abort::{Outcome, Stage};
use crate::target::{RunState, TargetError};

const LIMIT: Duration = Duration::from_secs(60);
/// More stops than it takes.
const STOPS: usize = 1000;

fn machine() -> Session {
    let opener = Opener {
        target: DEMO.to_owned(),
        images: Vec::new(),
        timeout: LIMIT,
    };
    opener.open().expect("it is always there")
}

/// Runs to the next stop of the machine, which nobody is told of.
fn run(session: &mut Session) -> Result<(), TargetError> {
    let control = session.target.run_control().expect("it can run");
    control.resume()?;
    let state = control.wait(LIMIT)?;
    assert!(matches!(state, RunState::Stopped { .. }), "{state:?}");
    Ok(())
}

/// Lets CPUs stand on their way through a trap, or follows them to the end.
fn by_hand(session: &mut Session, follower: &mut Follower, by_hand: bool) -> Vec<Story> {
    let (target, images) = session.parts();
    let ended = follower.by_hand(target, images, by_hand);
    ended.expect("it is seen")
}

/// Runs until one CPU has just begun a trap, and stands at the entry.
fn begin(session: &mut Session, follower: &mut Follower) -> Story {
    by_hand(session, follower, true);
    for _ in 0..STOPS {
        run(session).expect("it runs");
        let (target, images) = session.parts();
        follower.stopped(target, images).expect("it is seen");
        let cpus = target.all_registers().expect("they are known");
        let begun = follower.in_progress().find(|story| {
            let entry = story.road.entry.as_ref().map(|entry| entry.pc);
            cpus[story.cpu].get("pc") == entry
        });
        if let Some(story) = begun {
            return story.clone();
        }
    }
    panic!("no CPU comes to the entry");
}

/// The next story of the CPU of that one, which is about the same trap.
fn ends(session: &mut Session, follower: &mut Follower, begun: &Story) {
    let mut stories = by_hand(session, follower, false);
    let story = loop {
        if let Some(story) = stories.into_iter().find(|story| story.cpu == begun.cpu) {
            break story;
        }
        stories = session.stories(follower, LIMIT).expect("it runs");
    };
    assert_eq!((&story.host, story.esr), (&begun.host, begun.esr));
    assert_eq!(story.fault().map(|f| f.far), begun.fault().map(|f| f.far));
    assert!(
        !matches!(story.outcome, Outcome::Left { .. }),
        "{:?}",
        story.outcome
    );
    let traps = story.steps.iter().filter(|step| step.stage == Stage::Trap);
    assert_eq!(traps.count(), 1, "{:?}", story.steps);
}

#[test]
fn a_cpu_that_is_told_of_twice_at_the_entry_is_in_one_trap() {
    let mut session = machine();
    let mut follower = session.follow(Wanted::default()).expect("it is armed");
    let begun = begin(&mut session, &mut follower);
    for _ in 0..3 {
        let (target, images) = session.parts();
        let again = follower.stopped(target, images).expect("it is seen");
        assert_eq!(again, []);
    }
    ends(&mut session, &mut follower, &begun);
}

#[test]
fn a_cpu_that_stands_at_the_entry_already_is_followed() {
    let mut session = machine();
    let mut follower = session.follow(Wanted::default()).expect("it is armed");
    let begun = begin(&mut session, &mut follower);
    let (target, _) = session.parts();
    follower.disarm(target).expect("it stands");
    let mut follower = session.follow(Wanted::default()).expect("it is armed");
    ends(&mut session, &mut follower, &begun);
}
