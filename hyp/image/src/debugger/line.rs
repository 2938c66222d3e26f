//! The line to the client, as hyp's library wants it.

use core::cell::Cell;
use core::mem::MaybeUninit;

use hyp::addr::Pa;
use hyp::debug::server::{Line, Received};

use super::console::Console;
use super::{Shared, gic};
use crate::arch::read_register;

#[unsafe(link_section = ".bss.debugger")]
static CONSOLE: Shared<MaybeUninit<Console>> = Shared::new(MaybeUninit::uninit());

/// Keeps the console. CPU 0, before others run.
pub(super) fn set(console: Console) {
    // SAFETY: nobody else is there yet.
    unsafe { (*CONSOLE.get()).write(console) };
}

/// The page of the console's transport. After [`set`].
pub(super) fn page() -> Pa {
    console().page()
}

/// The line to the client.
pub(super) struct ToClient {
    /// CNTPCT_EL0 when its last byte came.
    last: Cell<u64>,
}

impl ToClient {
    /// The line; nobody has said anything yet.
    pub(super) const fn new() -> Self {
        Self { last: Cell::new(0) }
    }
}

/// The console.
fn console() -> &'static mut Console {
    // SAFETY: there is a debugger only since it was set; only the debugger uses it, for one call at a time.
    unsafe { (*CONSOLE.get()).assume_init_mut() }
}

/// How long after its last byte a client is waited for without sleeping, in 1/n seconds: of many requests the next
/// comes sooner.
const EAGER: u64 = 50;
/// How long a sleep is at most, in 1/n seconds.
const SLEEP: u64 = 200;

impl Line for ToClient {
    fn receive(&self, patient: bool) -> Received {
        let console = console();
        if !patient {
            // The machine is to run if there is nothing. In this order, a byte that comes meanwhile is seen by a tick.
            console.acknowledge();
        }
        let byte = console.receive().or_else(|| {
            let eager = read_register!(cntfrq_el0) / EAGER;
            let since = || read_register!(cntpct_el0).wrapping_sub(self.last.get());
            while patient && since() < eager {
                let byte = console.receive();
                if byte.is_some() {
                    return byte;
                }
            }
            if patient {
                gic::sleep(SLEEP);
            }
            None
        });
        byte.map_or(Received::Nothing, |byte| {
            self.last.set(read_register!(cntpct_el0));
            Received::Byte(byte)
        })
    }

    fn send(&self, bytes: &[u8]) {
        console().send(bytes);
    }
}
