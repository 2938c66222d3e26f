//! Clients that are there while CPUs come up, go, and do not come.

use crate::client::Client;
use crate::debuggee::{Debuggee, Registers, Session, cpu_of};
use crate::late::BRK;
use fixtures::qemu::{Boot, Cpu};
use inspector::target::rsp;
use std::cell::Cell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

fn boot(cpu: Cpu) -> Boot {
    Boot::hyp().expect("the image builds").cpu(cpu).paused()
}

/// Lets the machine run on by itself: all of its host comes up.
fn leave(mut session: Session<'_>) {
    session.client.order("D");
}

/// Stops the machine, which runs as `resume` says, again and again until all CPUs stand.
fn stop_until_all_are_up(session: &mut Session<'_>, cpus: u64, resume: &str) {
    let mut up = 0;
    session.resume_until(resume, "all CPUs come up", |session| {
        let standing = (0..cpus).filter(|cpu| session.registers(*cpu).is_some());
        let standing = standing.count() as u64;
        assert!(standing >= up, "of {up} CPUs only {standing} stand");
        up = standing;
        (up == cpus).then_some(())
    });
}

#[test]
fn qemu_a_client_that_was_there_first_sees_each_cpu_come_up() {
    for (cpu, cpus) in [(Cpu::CortexA57, 4), (Cpu::NeoverseN1, 2), (Cpu::Max, 8)] {
        let (mut debuggee, client) = Debuggee::with_client_first(|| boot(cpu), cpus, |_| ());
        let mut session = debuggee.session(client);
        for cpu in 1..debuggee.cpus {
            assert!(session.registers(cpu).is_none(), "CPU {cpu} is not up");
        }
        // Of all CPUs only one is to run that is off: Ctrl-C helps out of that, too, also when all have gone to sleep.
        session.client.send("vCont;c:2");
        thread::sleep(Duration::from_millis(50));
        session.interrupt();
        stop_until_all_are_up(&mut session, debuggee.cpus, "vCont;c");
        leave(session);
        debuggee.wait_for_rounds(2);
    }
}

#[test]
fn qemu_a_cpu_stops_where_it_comes_up() {
    let (mut debuggee, client) = Debuggee::with_client_first(|| boot(Cpu::CortexA57), 4, |_| ());
    let mut session = debuggee.session(client);
    let [main, print] = [
        "secondary_main",
        "uart::Uart as core::fmt::Write>::write_str",
    ]
    .map(|name| debuggee.functions(name)[0].0);

    // In its first function, where it has no host yet and its interrupts are not set up.
    session.client.order(&format!("Z0,{main:x},4"));
    session.resume();
    let cpu = cpu_of(&session.client.stop());
    session.client.order(&format!("z0,{main:x},4"));
    assert_eq!(session.registers(cpu).map(|cpu| cpu.pc), Some(main));
    session.client.send(&format!("vCont;s:{:x}", cpu + 1));
    assert_eq!(cpu_of(&session.client.stop()), cpu);
    assert_eq!(session.registers(cpu).map(|cpu| cpu.pc), Some(main + 4));

    // While it prints under the console's lock, for which the others then wait: they can be stopped there, too.
    session.client.order(&format!("Z0,{print:x},4"));
    session.resume();
    let printing = cpu_of(&session.client.stop());
    session.client.order(&format!("z0,{print:x},4"));
    let others = (0..4).filter(|cpu| *cpu != printing);
    let run: String = others.map(|cpu| format!(";c:{:x}", cpu + 1)).collect();
    stop_until_all_are_up(&mut session, 4, &format!("vCont{run}"));
    let locks = session.monitor("locks");
    let console = locks.lines().find(|line| line.starts_with("console"));
    let holder = format!("by CPU {printing} ");
    assert!(
        console.is_some_and(|line| line.contains(&holder)),
        "{locks}"
    );
    let (start, size) = debuggee.functions("secondary_main")[0];
    for cpu in (1..4).filter(|cpu| *cpu != printing) {
        let registers = session.registers(cpu).expect("it stands");
        let calls = session.calls(&registers);
        assert!(
            registers.el == 1 || calls.iter().any(|at| (start..start + size).contains(at)),
            "CPU {cpu}: {calls:x?}"
        );
    }
    leave(session);
    debuggee.wait_for_rounds(2);
}

/// QEMU may keep the translation of a breakpoint that is gone: of one that was taken away while QEMU translated it for a
/// CPU on its way up. Here it keeps one because it does not notice who else writes the machine's memory.
#[test]
fn qemu_a_cpu_gets_past_a_breakpoint_that_only_qemu_still_has() {
    /// Where RAM begins.
    const RAM: u64 = 0x4000_0000;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ram");
    let boot = || {
        // Whatever another machine has left there.
        let _ = std::fs::remove_file(&path);
        let boot = Boot::hyp().expect("the image builds");
        boot.ram_file(&path).paused()
    };
    let ram = || File::options().read(true).write(true).open(&path);
    // hyp maps RAM at a multiple of 1 GiB.
    let place = |debuggee: &Debuggee| debuggee.functions("secondary_main")[0].0;
    let old = Cell::new([0; 4]);
    let lay = |debuggee: &Debuggee| {
        let (ram, offset) = (ram().expect("QEMU has created it"), place(debuggee) % RAM);
        let mut instruction = [0; 4];
        ram.read_exact_at(&mut instruction, offset).expect("code");
        assert_ne!(instruction, [0; 4], "the image is loaded");
        ram.write_all_at(&BRK.to_le_bytes(), offset).expect("RAM");
        old.set(instruction);
    };
    let (mut debuggee, client) = Debuggee::with_client_first(boot, 2, lay);
    let mut session = debuggee.session(client);
    let main = place(&debuggee);
    session.run_until("CPU 1 comes up", |session| {
        session.registers(1).filter(|cpu| cpu.pc == main)
    });
    let ram = ram().expect("QEMU has created it");
    ram.write_all_at(&old.get(), main % RAM).expect("RAM");
    leave(session);
    debuggee.wait_for_rounds(2);
}

/// Runs until a CPU is in its host, in whose place the test then makes calls.
pub(crate) fn run_into_host(session: &mut Session<'_>, cpu: u64) -> Registers {
    session.run_until("a CPU in its host", |session| {
        let registers = session.registers(cpu).expect("it stands");
        (registers.el == 1).then_some(registers)
    })
}

/// Where an instruction of the host's first is. CPU 0 is in the host then.
pub(crate) fn find_in_host(session: &mut Session<'_>, instruction: u32) -> u64 {
    run_into_host(session, 0);
    let (main, size) = session.debuggee.functions("host_main")[0];
    let code = session.words(main, size as usize / 8);
    let mut words = code
        .iter()
        .flat_map(|word| [*word as u32, (word >> 32) as u32]);
    let index = words.position(|word| word == instruction);
    main + 4 * index.expect("it is there") as u64
}

/// Has the CPU call PSCI when it goes on. `smc` is where an SMC is.
fn call_psci(session: &mut Session<'_>, cpu: u64, smc: u64, function: u64, arguments: [u64; 3]) {
    run_into_host(session, cpu);
    let [first, second, third] = arguments;
    // PC is register 0x20.
    for (number, value) in [
        (0, function),
        (1, first),
        (2, second),
        (3, third),
        (0x20, smc),
    ] {
        let value = rsp::to_hex(&value.to_le_bytes());
        session.client.order(&format!("P{number:x}={value}"));
    }
}

#[test]
fn qemu_a_cpu_that_went_and_comes_back_stops_as_asked_meanwhile() {
    const CPU_OFF: u64 = 0x8400_0002;
    const CPU_ON: u64 = 0xc400_0003;
    const SMC: u32 = 0xd400_0003;
    let debuggee = Debuggee::start(Boot::hyp().expect("the image builds"), 2);
    let mut session = debuggee.attach();
    let smc = find_in_host(&mut session, SMC);

    call_psci(&mut session, 1, smc, CPU_OFF, [0; 3]);
    session.run_until("CPU 1 goes", |session| {
        session.registers(1).is_none().then_some(())
    });
    let (start, _) = debuggee.functions("host_start")[0];
    session.client.order(&format!("Z0,{start:x},4"));
    call_psci(&mut session, 0, smc, CPU_ON, [1, start, 0x55]);
    session.resume();
    let stop = session.client.stop();
    assert!(stop.contains("swbreak") && cpu_of(&stop) == 1, "{stop}");
    let registers = session.registers(1).expect("it stands");
    assert_eq!((registers.pc, registers.x[0]), (start, 0x55));
}

#[test]
fn qemu_a_cpu_that_is_stuck_is_waited_for_once() {
    /// How long the others wait for one.
    const PATIENCE: Duration = Duration::from_secs(1);
    /// So many that half of what they would wait in all is enough on a busy computer.
    const STOPS: u32 = 40;
    let debuggee = Debuggee::start(Boot::hyp().expect("the image builds"), 2);
    let (place, _) = debuggee.functions("Hyp>::handle_host_mem_abort")[0];
    let (loops, _) = debuggee.functions("park_here")[0];
    let mut qemu = debuggee.session(Client::connect(debuggee.machine.gdb()));
    // Registers have numbers only for those who know their names.
    qemu.client.ask("qXfer:features:read:target.xml:0,ffb");
    qemu.client.order(&format!("Z1,{place:x},4"));
    qemu.client.send("c");
    let stuck = cpu_of(&qemu.client.stop());
    qemu.client.order(&format!("z1,{place:x},4"));
    qemu.set_pc(stuck, loops);
    qemu.client.order("D");
    drop(qemu);

    let mut session = debuggee.attach();
    let start = Instant::now();
    for _ in 0..STOPS {
        assert!(session.registers(stuck).is_none());
        assert!(session.registers(1 - stuck).is_some());
        session.resume();
        session.interrupt();
    }
    let limit = STOPS * PATIENCE / 2;
    assert!(start.elapsed() < limit, "{:?}", start.elapsed());
}
