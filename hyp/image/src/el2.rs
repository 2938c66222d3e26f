//! The flow: CPU 0 starts hyp, every CPU starts the host.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;

use dtoolkit::fdt::Fdt;
#[cfg(feature = "channel")]
use hyp::addr::{Pa, PageRange};
use hyp::{Cpu, Hyp};

use crate::arch::{isb, read_register, write_register};
use crate::cpu::ThisCpu;
#[cfg(feature = "channel")]
use crate::debugger;
use crate::dtb::Machine;
use crate::layout::{DEVICE_TREE, va};
use crate::memory::{self, Memory};
use crate::psci;
use crate::uart::println;

/// Written once by CPU 0 while it is alone, then only read. It has one member, so that a debugger finds what is in it.
#[repr(transparent)]
struct Once<T>(UnsafeCell<MaybeUninit<T>>);

// SAFETY: it is written before any other CPU runs, and shared references to a `Sync` value may be sent anywhere.
unsafe impl<T: Sync> Sync for Once<T> {}

impl<T> Once<T> {
    const fn new() -> Self {
        Self(UnsafeCell::new(MaybeUninit::uninit()))
    }

    /// # Safety
    /// CPU 0, before it enters the host; once.
    unsafe fn set(&self, value: T) -> &T {
        // SAFETY: nobody else refers to it yet, says the caller.
        unsafe { (*self.0.get()).write(value) }
    }

    /// # Safety
    /// After `set`.
    unsafe fn get(&self) -> &T {
        // SAFETY: it was set, says the caller, and is not written again.
        unsafe { (*self.0.get()).assume_init_ref() }
    }
}

/// The hypervisor. Debuggers find everything from here: its name and its members' names are part of what the
/// inspector relies on.
#[unsafe(no_mangle)]
static HYP: Once<Hyp<'static>> = Once::new();
/// What [`Translation`] says of every CPU. Whoever debugs hyp by its memory alone, as in a memory dump, finds it by this name.
#[unsafe(no_mangle)]
static TRANSLATION: Once<Translation> = Once::new();
static MACHINE: Once<Machine> = Once::new();
static MEMORY: Once<Memory> = Once::new();

/// The hypervisor.
pub(crate) fn hypervisor() -> &'static Hyp<'static> {
    // SAFETY: called for the host's exceptions and by other CPUs only, all of which come after `hyp_main` set it.
    unsafe { HYP.get() }
}

/// The registers by which the roots in [`HYP`] are read, with their own names.
#[expect(dead_code, reason = "it is for debuggers")]
struct Translation {
    hcr_el2: u64,
    id_aa64mmfr0_el1: u64,
    id_aa64mmfr1_el1: u64,
    id_aa64mmfr2_el1: u64,
    mair_el2: u64,
    tcr_el2: u64,
    vtcr_el2: u64,
}

impl Translation {
    /// Those of this CPU, as all others will have them.
    fn read() -> Self {
        Self {
            hcr_el2: read_register!(hcr_el2),
            id_aa64mmfr0_el1: read_register!(id_aa64mmfr0_el1),
            id_aa64mmfr1_el1: read_register!(id_aa64mmfr1_el1),
            // Not every assembler knows it by name.
            id_aa64mmfr2_el1: read_register!(S3_0_C0_C7_2),
            mair_el2: read_register!(mair_el2),
            tcr_el2: read_register!(tcr_el2),
            vtcr_el2: read_register!(vtcr_el2),
        }
    }
}

/// All RAM, lowest first.
#[cfg(feature = "channel")]
pub(crate) fn regions() -> &'static [PageRange<Pa>] {
    // SAFETY: as above.
    unsafe { MACHINE.get() }.regions()
}

/// The affinity fields of each CPU's MPIDR_EL1, CPU 0 first.
pub(crate) fn mpidrs() -> &'static [u64] {
    // SAFETY: as above.
    unsafe { MACHINE.get() }.mpidrs()
}

/// MPIDR_EL1.{Aff3, Aff2, Aff1, Aff0}: what a device tree and PSCI know a CPU by.
const AFFINITY: u64 = 0xff_00ff_ffff;

unsafe extern "C" {
    fn install_tables(root: u64);
    fn enter_host(cpu: u64, entry: u64, argument: u64) -> !;
}

/// CPU 0, from `boot.s`: with the boot table, alone, on its stack at the fixed offset.
#[unsafe(no_mangle)]
extern "C" fn hyp_main() -> ! {
    println!("hyp: starting at EL2, {}", env!("CARGO_PKG_VERSION"));
    // SAFETY: QEMU puts the device tree of an ELF image here, the boot table maps it, and nothing writes it.
    let tree = unsafe { Fdt::from_raw(va(DEVICE_TREE).get() as *const u8) };
    let machine = match tree
        .map_err(|_| crate::dtb::Error::Malformed)
        .and_then(|tree| Machine::read(tree, read_register!(mpidr_el1) & AFFINITY))
    {
        Ok(machine) => machine,
        Err(error) => panic!("{error}"),
    };
    // SAFETY: CPU 0 is alone and the host does not run yet; each is set here and nowhere else.
    let machine = unsafe { MACHINE.set(machine) };
    #[cfg(feature = "channel")]
    debugger::find(machine);
    // SAFETY: as above.
    let memory = unsafe { MEMORY.set(Memory::plan(machine.regions())) };
    let config = memory.config(machine);
    let hyp = match Hyp::new(&ThisCpu, config) {
        // SAFETY: as above.
        Ok(hyp) => unsafe { HYP.set(hyp) },
        Err(error) => panic!("{error}"),
    };
    if let Err(error) = hyp.init(&ThisCpu).and_then(|()| memory::map_aliases(hyp)) {
        panic!("{error}");
    }
    // SAFETY: the new tables map the code, data and stack in use where they are now.
    unsafe { install_tables(hyp.hyp().root().get()) }
    println!("hyp: own tables on, root {}", hyp.hyp().root());
    if let Err(error) = hyp.finalise(&ThisCpu) {
        panic!("{error}");
    }
    #[cfg(feature = "channel")]
    debugger::open_window(hyp);
    protect_cpu(hyp);
    // SAFETY: as above.
    unsafe { TRANSLATION.set(Translation::read()) };
    println!("hyp: host stage 2 on, {} CPUs", hyp.cpus());
    // SAFETY: the host's code is at its entry, and cannot reach hyp's memory any more.
    unsafe { enter_host(0, memory.host_entry(), 0) }
}

/// Every other CPU, from `boot.s`: with hyp's tables, on its own stack.
#[unsafe(no_mangle)]
extern "C" fn secondary_main() -> ! {
    protect_cpu(hypervisor());
    let (entry, context) = psci::take_start();
    println!("hyp: CPU {} is up", ThisCpu.id());
    // SAFETY: the host may start wherever it likes: it runs under its stage 2.
    unsafe { enter_host(ThisCpu.id().into(), entry, context) }
}

/// HCR_EL2: VM (0) stage 2 on; TSC (19) the host's SMCs come here; RW (31) the host is AArch64; APK, API (40, 41)
/// and ATA (56) leave it pointer authentication and memory tags, where there are any.
const HCR: u64 = 1 | 1 << 19 | 1 << 31 | 1 << 40 | 1 << 41 | 1 << 56;
/// CPTR_EL2: RES1, and TZ (8): SVE and SME trap. TFP (10) is 0: floating point is the host's alone.
const CPTR: u64 = 0x33ff;
/// CNTHCTL_EL2: EL1PCTEN, EL1PCEN: the timers are the host's.
const CNTHCTL: u64 = 3;
/// ICC_SRE_EL2: the host may use the GIC's system registers.
const ICC_SRE: u64 = 0xf;
/// SCTLR_EL1: RES1, MMU and caches off, as out of reset.
const SCTLR_EL1: u64 = 0x30d0_0800;
/// VTCR_EL2 but for PS: RES1 (31), SH0 3, ORGN0 1, IRGN0 1, SL0 1 (the walk starts at level 1), T0SZ 24 (40 bits).
const VTCR: u64 = 1 << 31 | 3 << 12 | 1 << 10 | 1 << 8 | 1 << 6 | 24;

/// Puts this CPU's host under stage 2, and has it trap to hyp.
fn protect_cpu(hyp: &Hyp<'_>) {
    // ID_AA64MMFR0_EL1.PARange, of which 48 bits (5) are the most this format has.
    let (midr, mpidr) = (read_register!(midr_el1), read_register!(mpidr_el1));
    let pa_range = (read_register!(id_aa64mmfr0_el1) & 0xf).min(5);
    // SAFETY: these only change what happens at EL1 and how it traps; the tables are complete.
    unsafe {
        write_register!(vtcr_el2, VTCR | pa_range << 16);
        write_register!(vttbr_el2, hyp.host().root().get());
        // The TLBI takes the VMID from VTTBR_EL2 as it is known by then.
        isb();
        ThisCpu.invalidate_vmid();
        write_register!(hcr_el2, HCR);
        write_register!(cptr_el2, CPTR);
        write_register!(cnthctl_el2, CNTHCTL);
        write_register!(cntvoff_el2, 0);
        write_register!(vpidr_el2, midr);
        write_register!(vmpidr_el2, mpidr);
        // ICC_SRE_EL2, which not every assembler knows by name.
        write_register!(S3_4_C12_C9_5, ICC_SRE);
        write_register!(sctlr_el1, SCTLR_EL1);
    }
    isb();
    #[cfg(feature = "channel")]
    debugger::start_cpu(ThisCpu.id() as usize);
}
