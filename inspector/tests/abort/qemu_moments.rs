//! Whatever ends a session of `abort` in the middle of a story, and wherever: nothing of it stays in the machine.

use crate::client::Client;
use crate::qemu_hyp::{arguments, working};
use crate::qemu_leaving::{signal, start};
use crate::rounds::{goes_on, runs_freely};
use crate::run::inspector;
use crate::wire::{Then, Wire};
use fixtures::qemu::{Boot, Machine};
use std::process::{Child, Output};

/// How many moments of a session.
const MOMENTS: usize = 9;
/// Seconds within which any answer comes, however busy the computer is.
const ANY: &str = "60";
/// From the packet behind the one that sets the inspector's mark on.
const MARKED: usize = 6;

/// How a session ended, and how many packets it sent.
struct Ended {
    output: Output,
    packets: usize,
}

impl Ended {
    /// The one sentence that it said.
    fn sentence(&self) -> String {
        let errors = String::from_utf8_lossy(&self.output.stderr).into_owned();
        assert_eq!(errors.lines().count(), 1, "{errors}");
        assert_eq!(self.output.status.code(), Some(3), "{errors}");
        errors
    }
}

fn machine() -> Machine {
    working(&Boot::hyp().expect("the image builds").cpus(2))
}

/// Two stories, of a client that waits for an answer for as many seconds, and to whom something happens at its packet of
/// that number.
fn session(
    machine: &Machine,
    timeout: &str,
    packets: usize,
    act: impl FnOnce(&Child) -> Then,
) -> Ended {
    let wire = Wire::new();
    let rest = ["abort", "--count", "2", "--timeout", timeout];
    let child = start(&arguments(machine, wire.name(), &rest));
    let mut act = Some(act);
    let mut before = 0;
    let packets = wire.carry(machine.gdb(), |_| {
        let act = act.take_if(|_| before == packets);
        before += 1;
        act.map_or(Then::Goes, |act| act(&child))
    });
    let output = child.wait_with_output().expect("it ends");
    Ended { output, packets }
}

/// The same, and it does happen: stories differ in how many packets they take, so a session may be over before, or has told
/// its stories and leaves. Then it happens to another, earlier.
fn disturbed(
    machine: &Machine,
    timeout: &str,
    mut moment: usize,
    act: impl Fn(&Child) -> Then,
) -> Ended {
    loop {
        let ended = session(machine, timeout, moment, &act);
        if ended.packets > moment && !ended.output.status.success() {
            return ended;
        }
        moment /= 2;
    }
}

/// Moments all over a session, each somewhere else between two of the same kind.
fn moments(machine: &Machine) -> Vec<usize> {
    let whole = session(machine, ANY, usize::MAX, |_| Then::Goes);
    let status = whole.output.status;
    assert!(status.success(), "{:?}", whole.output);
    assert!(whole.packets > 10 * MOMENTS, "{}", whole.packets);
    let step = (whole.packets - MARKED) / MOMENTS;
    (0..MOMENTS).map(|n| MARKED + n * step + n).collect()
}

/// Has the machine stand, or run.
fn set(machine: &mut Machine, runs: bool) {
    let mut client = Client::connect(machine.gdb());
    client.order("Qqemu.PhyMemMode:0");
    if runs {
        client.order("D;1");
        drop(client);
        goes_on(machine);
    }
}

/// It runs or stands, and where it runs it comes to no breakpoint.
fn assert_left(machine: &mut Machine, runs: bool, by: &str) {
    if runs {
        goes_on(machine);
        return;
    }
    let mut client = Client::connect(machine.gdb());
    client.send("Qqemu.PhyMemMode:0");
    // A machine that ran would say first that it stops.
    assert_eq!(client.packet(), b"OK", "{by}");
    runs_freely(&mut client, machine, by);
}

#[test]
fn a_signal_at_any_moment_leaves_the_machine_as_it_was() {
    let mut machine = machine();
    let moments = moments(&machine);
    for (n, moment) in moments.into_iter().enumerate() {
        let runs = n % 2 == 0;
        set(&mut machine, runs);
        let name = ["-INT", "-TERM", "-HUP"][n % 3];
        let ended = disturbed(&machine, ANY, moment, |child| {
            signal(child, name);
            Then::Goes
        });
        let by = format!("{name} at {moment}");
        let errors = ended.sentence();
        assert!(errors.contains("interrupted"), "{by}: {errors}");
        assert_left(&mut machine, runs, &by);
    }
}

/// The interrupt by which it leaves comes with the order to step: no CPU is left with a step to take.
#[test]
fn a_signal_in_the_middle_of_a_step_leaves_no_step_behind() {
    let mut machine = machine();
    for nth in 0..6 {
        let runs = nth % 2 == 0;
        set(&mut machine, runs);
        let wire = Wire::new();
        let child = start(&arguments(
            &machine,
            wire.name(),
            &["abort", "--count", "9", "--timeout", ANY],
        ));
        let mut steps = 0;
        wire.carry(machine.gdb(), |packet| {
            if packet.starts_with("vCont;s") {
                if steps == nth {
                    signal(&child, "-INT");
                }
                steps += 1;
            }
            Then::Goes
        });
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        assert_left(&mut machine, runs, &format!("a signal at step {nth}"));
    }
}

#[test]
fn a_client_that_is_killed_at_any_moment_is_cleaned_up_after_by_the_next() {
    let mut machine = machine();
    for moment in moments(&machine) {
        set(&mut machine, true);
        disturbed(&machine, ANY, moment, |child| {
            signal(child, "-KILL");
            Then::Cut
        });
        let gdb = machine.gdb().to_owned();
        let next = inspector(arguments(&machine, &gdb, &["info"]));
        let says = |words| assert!(next.stderr.contains(words), "{moment}: {}", next.stderr);
        assert_eq!(next.status, 0, "{}", next.stderr);
        says("An earlier inspector was killed");
        let mut client = Client::connect(&gdb);
        client.order("Qqemu.PhyMemMode:0");
        runs_freely(&mut client, &mut machine, &moment.to_string());
    }
}

#[test]
fn a_link_that_is_cut_or_silent_at_any_moment_is_one_sentence() {
    let mut machine = machine();
    for (n, moment) in moments(&machine).into_iter().enumerate() {
        set(&mut machine, true);
        let (then, timeout, words) = match n % 2 {
            0 => (Then::Cut, ANY, "link lost"),
            _ => (Then::Mute, "3", "within 3 s"),
        };
        let ended = disturbed(&machine, timeout, moment, |_| then);
        let errors = ended.sentence();
        assert!(errors.contains(words), "{then:?} at {moment}: {errors}");
        let gdb = machine.gdb().to_owned();
        let next = inspector(arguments(&machine, &gdb, &["info"]));
        assert_eq!(next.status, 0, "{}", next.stderr);
        assert_left(&mut machine, false, &format!("{then:?} at {moment}"));
    }
}
