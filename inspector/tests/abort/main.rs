//! Real aborts on hyp and on Linux, followed by the program; each field of the story is held against tables that are read
//! here, by other means and by other code.

#[path = "../support/client.rs"]
mod client;
mod qemu_fetches;
mod qemu_full;
mod qemu_hyp;
mod qemu_leaving;
mod qemu_linux;
mod qemu_linux_touches;
mod qemu_moments;
mod qemu_orders;
mod qemu_restarts;
mod qemu_round_trips;
#[path = "../support/rounds.rs"]
mod rounds;
#[path = "../support/run.rs"]
#[expect(dead_code, reason = "shared with tests that ask for more")]
mod run;
mod tables;
#[path = "../support/wire.rs"]
mod wire;
