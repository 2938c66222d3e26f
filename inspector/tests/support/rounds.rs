//! Machines whose built-in host goes on with its rounds where nothing stops it.

use crate::client::Client;
use fixtures::qemu::Machine;
use std::time::Duration;

/// Much more than some rounds take.
const LIMIT: Duration = Duration::from_secs(120);

/// The host's next rounds, which it does not reach if it stands at a breakpoint.
pub(crate) fn goes_on(machine: &mut Machine) {
    for _ in 0..3 {
        machine
            .wait_for("done: 2 CPUs", LIMIT)
            .expect("the host goes on");
    }
}

/// A machine that stands runs where it is let, and comes to no breakpoint.
pub(crate) fn runs_freely(client: &mut Client, machine: &mut Machine, by: &str) {
    client.send("vCont;c");
    goes_on(machine);
    client.interrupt();
    let stop = client.stop();
    assert!(stop.starts_with("T02"), "{by}: {stop}");
}
