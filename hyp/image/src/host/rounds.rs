//! What the host does, round after round: all CPUs together, then a pause, unless a debugger takes that out.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::devices::{self, UART};
use crate::machine::{self, ABORTS, BREAKS, MAX_CPUS};

const PAGE_SIZE: u64 = 0x1000;
/// hyp's own code: where it is loaded.
const HYP: u64 = 0x4020_0000;
/// Memory for each CPU alone, one area after the other.
const OWN: u64 = 0x4200_0000;
/// Memory that all CPUs touch and share at the same time.
const COMMON: u64 = 0x4300_0000;
/// Memory that all CPUs touch and none shares: it stays in blocks.
const PLAIN: u64 = 0x4320_0000;
/// The size of each of these areas. After its last page it begins again.
const AREA: u64 = 0x20_0000;

/// `__pkvm_host_share_hyp`, whose argument is a page frame number.
const SHARE_HYP: u64 = 16;
/// `__pkvm_mark_hyp` had this number before the host lost its say in what is hyp's.
const OLD_MARK_HYP: u64 = 20;

const EPERM: i64 = -1;
const EINVAL: i64 = -22;

/// PSCI's functions and what they return.
const CPU_SUSPEND: u64 = 0xc400_0001;
const CPU_ON_32: u64 = 0x8400_0003;
const CPU_ON_64: u64 = 0xc400_0003;
const PSCI_FEATURES: u64 = 0x8400_000a;
const NOT_SUPPORTED: i64 = -1;
const INVALID_PARAMETERS: i64 = -2;
const ALREADY_ON: i64 = -4;
/// The half of a register that a 32-bit call does not use.
const JUNK: u64 = 0xdead_beef << 32;
/// Without a pause, only one of so many rounds is reported, and goes on to a new page.
const BRISK: u64 = 32;

/// What has happened so far, on all CPUs, and how fast it goes on; a debugger finds it by this name.
#[repr(C)]
struct Counters {
    rounds: AtomicU64,
    touched: AtomicU64,
    shared: AtomicU64,
    refused: AtomicU64,
    /// Rounds a second, for a debugger to change; 0 for no pause between them.
    pace: AtomicU64,
    /// What else to do, once, for a debugger to write: one of the orders below. The host puts 0 back as it does it.
    order: AtomicU64,
    /// The address that this is about.
    address: AtomicU64,
}

/// An order to read 4 bytes.
const TOUCH: u64 = 1;
/// An order to share a page with hyp.
const SHARE: u64 = 2;
/// An order to call what is there: a debugger has written a RET, unless hyp has to refuse.
const EXECUTE: u64 = 3;
/// An order to walk the table there: a debugger has written its fourth entry, unless hyp has to refuse.
const WALK: u64 = 4;

#[unsafe(no_mangle)]
static HOST: Counters = Counters {
    rounds: AtomicU64::new(0),
    touched: AtomicU64::new(0),
    shared: AtomicU64::new(0),
    refused: AtomicU64::new(0),
    pace: AtomicU64::new(4),
    order: AtomicU64::new(0),
    address: AtomicU64::new(0),
};

/// The page of each area that this round is about.
static PAGE: AtomicU64 = AtomicU64::new(0);

/// CPUs that have come up. It is in .bss, which hyp has lent us: no page of that can be shared back.
static ONLINE: AtomicU64 = AtomicU64::new(0);
/// How many CPUs there are; 0 until all have come up.
static CPUS: AtomicU64 = AtomicU64::new(0);
/// How often a CPU has reached a barrier.
static ARRIVED: AtomicU64 = AtomicU64::new(0);

#[unsafe(no_mangle)]
extern "C" fn host_main(cpu: u64) -> ! {
    let cpus = if cpu == 0 {
        start_others()
    } else {
        wait_for_all()
    };
    devices::enable_timer(cpu);
    let mut barriers = 0;
    let mut meet = || {
        barriers += 1;
        ARRIVED.fetch_add(1, Ordering::AcqRel);
        while ARRIVED.load(Ordering::Acquire) < barriers * cpus {
            machine::relax();
        }
    };
    for round in 1.. {
        meet();
        let page = PAGE.load(Ordering::Relaxed) * PAGE_SIZE % AREA;
        contend(COMMON + page);
        touch(PLAIN + page + 64 * cpu);
        touch(OWN + cpu * AREA + page);
        share(OWN + cpu * AREA + page);
        devices::check(cpu, round);
        machine::breakpoint();
        refuse(cpu);
        meet();
        // Nothing is counted up to the next meeting: CPU 0 finds the counters as the round left them.
        let pace = HOST.pace.load(Ordering::Relaxed);
        if cpu == 0 {
            HOST.rounds.store(round, Ordering::Relaxed);
            if pace != 0 || round % BRISK == 0 {
                report(cpus);
                PAGE.fetch_add(1, Ordering::Relaxed);
            }
            host_order();
        }
        if pace != 0 {
            machine::sleep(pace);
        }
    }
    unreachable!("a u64 of rounds outlasts every machine")
}

/// Does what a debugger has ordered, whether it is refused or not, on CPU 0 alone: the others have ended the round. A
/// debugger that stops CPU 0 where this begins finds the machine between two rounds.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn host_order() {
    let address = HOST.address.load(Ordering::Relaxed);
    let aborts = ABORTS.load(Ordering::Relaxed);
    match HOST.order.swap(0, Ordering::Relaxed) {
        TOUCH => {
            machine::read(address);
        }
        SHARE => {
            machine::hypercall(SHARE_HYP, address / PAGE_SIZE);
        }
        EXECUTE => machine::execute(address),
        WALK => machine::walk(address),
        _ => {}
    }
    // Rounds have theirs counted.
    ABORTS.store(aborts, Ordering::Relaxed);
}

/// Switches on every CPU there is, and says how many that are.
fn start_others() -> u64 {
    let mut cpus = 1;
    // PSCI refuses the first number that is no CPU's.
    while cpus < MAX_CPUS as u64 && machine::cpu_on(cpus) == 0 {
        cpus += 1;
    }
    while ONLINE.load(Ordering::Acquire) < cpus - 1 {
        machine::relax();
    }
    CPUS.store(cpus, Ordering::Release);
    cpus
}

fn wait_for_all() -> u64 {
    ONLINE.fetch_add(1, Ordering::AcqRel);
    loop {
        match CPUS.load(Ordering::Acquire) {
            0 => machine::relax(),
            cpus => return cpus,
        }
    }
}

/// Writes RAM, which hyp maps on the way, and reads it back.
fn touch(address: u64) {
    let pattern = address as u32 | 1;
    machine::write(address, pattern);
    assert!(
        machine::read(address) == pattern,
        "memory at {address:#x} lost what was written"
    );
    HOST.touched.fetch_add(1, Ordering::Relaxed);
}

/// Shares a page with hyp twice: the second time changes nothing, and is no error.
fn share(page: u64) {
    for _ in 0..2 {
        let answer = machine::hypercall(SHARE_HYP, page / PAGE_SIZE);
        assert!(answer == (0, 0), "share of {page:#x}: {answer:?}");
    }
    HOST.shared.fetch_add(1, Ordering::Relaxed);
}

/// What every CPU does at the same time: the same device registers, the same page.
fn contend(page: u64) {
    devices::contend();
    touch(page);
    share(page);
}

/// Asks for what hyp must refuse: to share a device, hyp's memory, memory hyp has lent us, and no memory at all; a
/// hypercall that is no more; PSCI calls; and hyp's memory itself.
fn refuse(cpu: u64) {
    let bss = &raw const ONLINE as u64;
    for (page, error) in [
        (UART, EINVAL),
        (HYP, EPERM),
        (bss, EPERM),
        (u64::MAX, EINVAL),
    ] {
        let answer = machine::hypercall(SHARE_HYP, page / PAGE_SIZE);
        assert!(answer == (0, error), "share of {page:#x}: {answer:?}");
        HOST.refused.fetch_add(1, Ordering::Relaxed);
    }
    let answer = machine::hypercall(OLD_MARK_HYP, 0);
    assert!(answer.0 == -1, "hypercall {OLD_MARK_HYP}: {answer:?}");
    // CPU_SUSPEND would come back around hyp, so there is none; CPU_ON finds this CPU on, and refuses a number no CPU has.
    for (function, arguments, status) in [
        (CPU_SUSPEND, [0; 3], NOT_SUPPORTED),
        (PSCI_FEATURES, [CPU_SUSPEND, 0, 0], NOT_SUPPORTED),
        (PSCI_FEATURES, [JUNK | CPU_ON_32, 0, 0], 0),
        (JUNK | CPU_ON_32, [JUNK | cpu, JUNK, JUNK], ALREADY_ON),
        (CPU_ON_64, [JUNK | cpu, 0, 0], INVALID_PARAMETERS),
    ] {
        let answer = machine::psci(function, arguments);
        assert!(
            answer == status,
            "PSCI {function:#x} {arguments:x?}: {answer}"
        );
    }
    machine::read(HYP);
    machine::write(HYP, 0);
}

fn report(cpus: u64) {
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (rounds, aborts, breaks) = (count(&HOST.rounds), count(&ABORTS), count(&BREAKS));
    assert!(
        aborts == 2 * cpus * rounds && breaks == cpus * rounds,
        "{aborts} aborts and {breaks} breakpoints after {rounds} rounds"
    );
    machine::print(format_args!(
        "host: round {rounds} done: {cpus} CPUs, {} pages touched, {} shared, {} requests refused, {aborts} aborts survived, {breaks} breakpoints taken",
        count(&HOST.touched),
        count(&HOST.shared),
        count(&HOST.refused),
    ));
}
