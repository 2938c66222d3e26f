//! The tables of all regimes: which there are, and why there is none of the host's.

use super::Linux;
use super::params::SetUp;
use super::regimes::{self, Active};
use super::variables::{HostTables, Variables};
use super::vms::GuestRoot;
use crate::arch::regime::{Regime, vmid};
use crate::arch::walk::{Reader, Walk, walk_together};
use crate::hypervisor::meaning::Side;
use crate::hypervisor::panicked;
use crate::model::{Cpu, Fact, RegimeCapture};

/// The root's address in a VTTBR_EL2: bits 47:1, without VMID and CnP. Addresses of 52 bits are told by [`Regime::stage2`].
const BADDR: u64 = 0x0000_ffff_ffff_fffe;

/// A regime before it is known what its entries mean.
pub(super) struct Tables {
    pub(super) name: String,
    pub(super) side: Side,
    pub(super) regime: Regime,
    /// Where the root and the geometry come from, for people.
    pub(super) source: String,
    /// What they hold, once they are read.
    pub(super) walk: Option<Walk>,
}

impl Tables {
    pub(super) fn new(name: impl Into<String>, side: Side, regime: Regime, source: String) -> Self {
        Self {
            name: name.into(),
            side,
            regime,
            source,
            walk: None,
        }
    }

    pub(super) fn facts(&self) -> [Fact; 2] {
        regimes::facts(&self.name, &self.regime, &self.source)
    }
}

/// Reads those that are not read yet, side by side.
pub(super) fn walk<'t, E>(
    tables: impl IntoIterator<Item = &'t mut Tables>,
    reader: &mut Reader<'_, E>,
) -> Result<(), E> {
    let left = tables.into_iter().filter(|tables| tables.walk.is_none());
    let left: Vec<_> = left.collect();
    let regimes: Vec<_> = left.iter().map(|tables| &tables.regime).collect();
    let walks = walk_together(&regimes, reader)?;
    for (tables, walk) in left.into_iter().zip(walks) {
        tables.walk = Some(walk);
    }
    Ok(())
}

/// The hypervisor's own and the host's, by what was found of their registers.
pub(super) fn by_registers(
    hyp: Option<Result<(Regime, String), String>>,
    host: Option<Active>,
    common: regimes::Common,
    problems: &mut Vec<String>,
) -> (Option<Tables>, Option<Tables>) {
    let hyp = match hyp {
        Some(Ok((regime, source))) => Some(Tables::new("hyp-s1", Side::Hyp, regime, source)),
        Some(Err(error)) => {
            problems.push(error);
            None
        }
        None => None,
    };
    let host = host.and_then(|host| {
        let regime = common.stage2(host.vttbr, host.vtcr).ok()?;
        Some(Tables::new("host-s2", Side::Host, regime, host.source))
    });
    (hyp, host)
}

/// Those of each VM that the hypervisor knows, and of guests on CPUs that it does not: until Linux 6.14 their tables are
/// the host's. With what is wrong with the others.
pub(super) fn of_guests(
    roots: &[GuestRoot],
    host: Option<&Regime>,
    common: regimes::Common,
    cpus: &[Cpu],
    kernel: &str,
) -> (Vec<Tables>, Vec<String>) {
    let (mut found, mut problems) = (Vec::<Tables>::new(), Vec::new());
    for guest in roots {
        let name = format!("guest-s2:{:#x}", guest.handle);
        let vtcr = guest.vtcr.or_else(|| active_vtcr(cpus, guest.root));
        match vtcr.map(|vtcr| common.stage2_at(guest.root, vtcr)) {
            Some(Ok(regime)) => {
                let source = format!("pkvm_hyp_vm in {kernel}");
                found.push(Tables::new(name, Side::Guest(guest.handle), regime, source));
            }
            Some(Err(error)) => problems.push(format!("{name}: {error}")),
            None => problems.push(format!("{name}: its VTCR_EL2 is not known")),
        }
    }
    for cpu in cpus {
        let get = |name| cpu.registers.get(name);
        let (Some(vttbr), Some(vtcr)) = (get("VTTBR_EL2"), get("VTCR_EL2")) else {
            continue;
        };
        let vmid = vmid(vttbr);
        let common = regimes::Common::of_cpu(cpu);
        let Some(Ok(regime)) = (vmid != 0).then(|| common.stage2(vttbr, vtcr)) else {
            continue;
        };
        let mut known = found.iter().map(|tables| &tables.regime).chain(host);
        if !known.any(|known| known.root == regime.root) {
            let name = format!("guest-s2:vmid-{vmid}");
            let source = format!("VTTBR_EL2 of CPU {}", cpu.number);
            found.push(Tables::new(name, Side::Untracked, regime, source));
        }
    }
    (found, problems)
}

/// VTCR_EL2 of a CPU that uses this root.
fn active_vtcr(cpus: &[Cpu], root: u64) -> Option<u64> {
    let user = cpus.iter().find(|cpu| {
        let vttbr = cpu.registers.get("VTTBR_EL2");
        vttbr.is_some_and(|vttbr| vttbr & BADDR == root)
    });
    user?.registers.get("VTCR_EL2")
}

impl Linux<'_, '_> {
    /// The host's stage 2 as the hypervisor keeps it, or else by the registers; `None` where nothing leads to one. `walked`
    /// are the tables that the registers led to: where these are the same, they need not be read again.
    pub(super) fn host_tables(
        &mut self,
        kept: Option<&HostTables>,
        walked: Option<Tables>,
    ) -> Option<Tables> {
        let active = self.active();
        let common = self.common;
        let (regime, source) = match (kept, active) {
            (Some(kept), _) => (common.stage2_at(kept.root, kept.vtcr), kept.source.clone()),
            (None, Some(active)) => (common.stage2(active.vttbr, active.vtcr), active.source),
            (None, None) => return None,
        };
        match regime {
            Ok(regime) => {
                let mut tables = Tables::new("host-s2", Side::Host, regime, source);
                let same = walked.filter(|walked| walked.regime == tables.regime);
                tables.walk = same.and_then(|walked| walked.walk);
                self.facts.extend(tables.facts());
                Some(tables)
            }
            Err(error) => {
                self.problems.push(format!("host-s2: {error} ({source})"));
                None
            }
        }
    }

    /// Says why there is no stage 2 of the host, or what is odd about it. The CPUs must have their calls.
    pub(super) fn doubt_host(
        &mut self,
        variables: &Variables,
        host: Option<&Regime>,
        hyp_is_on: bool,
    ) {
        let (kept, active) = (&variables.host, self.active());
        // Or else it was said already what is not known.
        let is_known = self.set_up.as_ref().is_none_or(SetUp::is_known);
        if kept.is_none() && active.is_none() && is_known {
            let why = self.why_no_host(variables.mode.as_deref(), hyp_is_on);
            self.problems.push(why);
        }
        let (Some(kept), Some(host)) = (kept, host) else {
            return;
        };
        let Some(active) = active else {
            let unused = |cpu: &Cpu| cpu.registers.get("VTTBR_EL2") == Some(0);
            let unused = match &self.set_up {
                Some(set_up) => set_up.is_known(),
                None => self.cpus.iter().all(unused),
            };
            if unused {
                let outlook = self.outlook("let the machine run");
                self.problems.push(format!(
                    "pKVM has not finished its start: the host's tables exist, but no CPU uses them yet; {outlook}"
                ));
            }
            return;
        };
        if let Ok(used) = self.common.stage2(active.vttbr, active.vtcr)
            && used.root != host.root
        {
            self.problems.push(format!(
                "host-s2: {} says the root is at {:#x}, but {} say {:#x}",
                kept.source, kept.root, active.source, used.root
            ));
        }
    }

    /// Names the stage 2 of CPUs below EL2, where no register tells it: the host's, or that of the VM whose vCPU is loaded.
    pub(super) fn name_stage2(&mut self, regimes: &[RegimeCapture]) {
        let unknown = |cpu: &&mut Cpu| {
            cpu.registers.get("VTTBR_EL2").is_none() && cpu.el.is_some_and(|el| el < 2)
        };
        if self.set_up.as_ref().and_then(SetUp::host).is_none() {
            return;
        }
        for cpu in self.cpus.iter_mut().filter(unknown) {
            let in_guest = self.memory.in_guest.contains(&cpu.number);
            let name = match (in_guest, cpu.vcpu) {
                (false, _) => "host-s2".to_owned(),
                (true, Some((vm, _))) => format!("guest-s2:{vm:#x}"),
                (true, None) => continue,
            };
            let known = regimes.iter().any(|regime| regime.name == name);
            cpu.stage2 = known.then_some(name);
        }
    }

    /// The host's stage 2 as CPUs have it.
    fn active(&self) -> Option<Active> {
        regimes::host_by_registers(self.cpus).or_else(|| self.set_up.as_ref()?.host())
    }

    /// Why the host is not confined, in one sentence.
    fn why_no_host(&self, mode: Option<&str>, hyp_is_on: bool) -> String {
        if self.cpus.iter().any(|cpu| regimes::is_vhe(&cpu.registers)) {
            return "protected mode is off: the kernel itself runs at EL2 (VHE); boot it with kvm-arm.mode=protected".to_owned();
        }
        match mode.filter(|mode| *mode != "KVM_MODE_PROTECTED") {
            // KVM_MODE_DEFAULT is what the variable says before the command line is read, and EL2 is off without VMs.
            Some(mode) if !hyp_is_on && mode == "KVM_MODE_DEFAULT" => format!(
                "protected mode is off, or the kernel has not come so far yet: EL2's own translation is off on every CPU and KVM's mode is {mode}; {}, or boot it with kvm-arm.mode=protected",
                self.outlook("let it run")
            ),
            Some(mode) => format!(
                "protected mode is off: KVM's mode is {mode}; boot the kernel with kvm-arm.mode=protected"
            ),
            None if hyp_is_on => format!(
                "the host is not confined: protected mode is off, or pKVM has not finished its start; {}",
                self.outlook("let the machine run")
            ),
            None => format!(
                "pKVM is not up: EL2's own translation is off on every CPU; the kernel has not come so far yet, or KVM is off; {}",
                self.outlook("let the machine run")
            ),
        }
    }

    /// What to do about a kernel that has not come far enough, unless it never will.
    fn outlook(&self, otherwise: &str) -> String {
        match panicked(self.cpus) {
            Some(cpu) => format!("it never will, for the kernel has panicked on CPU {cpu}"),
            None => otherwise.to_owned(),
        }
    }
}
