//! RAM beyond what 32 bits address.

use crate::debuggee::{Debuggee, cpu_of};
use crate::starting::run_into_host;
use crate::steps::{set, step_in_host, write};
use fixtures::qemu::{Boot, Cpu};
use inspector::addr::Span;
use inspector::target::{self, ReadError};

const GIB: u64 = 1 << 30;
/// Where 8 GiB of RAM end.
const END: u64 = 9 * GIB;
/// The last page of it.
const PLACE: u64 = END - 0x1000;

/// The host is given an address for it, and then writes to it, breaks there, and is seen to have: hyp maps it, and both
/// servers read it.
#[test]
fn qemu_ram_beyond_4_gib_is_the_hosts_and_the_debuggers() {
    /// STR W0, [X0]; NOP and B to it, as one word.
    const STORE: u32 = 0xb900_0000;
    const LOOP: u64 = 0x17ff_ffff_d503_201f;
    for cpu in [Cpu::CortexA57, Cpu::NeoverseN1, Cpu::Max] {
        let boot = Boot::hyp().expect("the image builds");
        let debuggee = Debuggee::start(boot.cpu(cpu).memory("8G"), 2);
        let (table, _) = debuggee.functions("HOST_TABLE")[0];
        let mut session = debuggee.attach();
        run_into_host(&mut session, 0);
        session.registers(0);
        // Blocks of 1 GiB.
        let first = session.words(table + 8, 1)[0];
        let last = first + END - 2 * GIB;
        write(&mut session, table + 8 * (PLACE / GIB), &[last]);

        let page = format!("page {PLACE:#x}");
        assert!(!session.monitor(&page).contains("rwx"));
        assert_eq!(step_in_host(&mut session, STORE, PLACE), 4);
        let shown = session.monitor(&page);
        assert!(shown.contains("host-s2 level 1 block rwx"), "{shown}");
        assert_eq!(session.words(PLACE, 1)[0], PLACE as u32 as u64);

        write(&mut session, PLACE, &[LOOP]);
        set(&mut session, 0, PLACE);
        set(&mut session, 0x20, PLACE);
        session.client.order(&format!("Z0,{:x},4", PLACE + 4));
        session.client.send("vCont;c:1");
        let stop = session.client.stop();
        assert!(stop.contains("swbreak") && cpu_of(&stop) == 0, "{stop}");
        drop(session);

        let limit = crate::debuggee::LIMIT;
        for road in [debuggee.machine.channel(), debuggee.machine.gdb()] {
            let mut target = target::open(road, limit).expect("it attaches");
            let [code, behind] = [PLACE, END].map(|at| Span::new(at, 8));
            let answers = target.read_phys(&[code, behind]).expect("a link");
            assert_eq!(answers[0].as_deref(), Ok(&LOOP.to_le_bytes()[..]));
            assert_eq!(answers[1], Err(ReadError::Unbacked(behind)));
        }
    }
}
