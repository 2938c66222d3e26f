//! The host's and the guests' stage 2: which there are, and why there is none.

use super::meaning::Side;
use super::params::SetUp;
use super::vms::GuestRoot;
use super::{BADDR, Linux, Walked, calls, regimes, variables};
use crate::arch::regime::vmid;
use crate::arch::walk::walk_all;
use crate::model::Cpu;
use crate::target::TargetError;

impl Linux<'_, '_> {
    /// The host's stage 2, or why there is none.
    pub(super) fn host_tables(&mut self, hyp_is_on: bool) -> Result<Option<Walked>, TargetError> {
        let kept = variables::host_tables(&mut self.memory, self.kernel)?;
        let by_registers = regimes::host_by_registers(self.cpus);
        let active = by_registers.or_else(|| self.set_up.as_ref()?.host());
        let common = self.common()?;
        let (regime, source) = match (&kept, &active) {
            (Some(kept), _) => (common.stage2_at(kept.root, kept.vtcr), kept.source.clone()),
            (None, Some(active)) => {
                let regime = common.stage2(active.vttbr, active.vtcr);
                (regime, active.source.clone())
            }
            (None, None) => {
                // Or else it was said already what is not known.
                if self.set_up.as_ref().is_none_or(SetUp::is_known) {
                    let why = self.why_no_host(hyp_is_on)?;
                    self.problems.push(why);
                }
                return Ok(None);
            }
        };
        let regime = match regime {
            Ok(regime) => regime,
            Err(error) => {
                self.problems.push(format!("host-s2: {error} ({source})"));
                return Ok(None);
            }
        };
        if let (Some(kept), Some(active)) = (&kept, &active)
            && let Ok(used) = common.stage2(active.vttbr, active.vtcr)
            && used.root != regime.root
        {
            self.problems.push(format!(
                "host-s2: {} says the root is at {:#x}, but {} say {:#x}",
                kept.source, kept.root, active.source, used.root
            ));
        }
        let unused = |cpu: &Cpu| cpu.registers.get("VTTBR_EL2") == Some(0);
        let unused = match &self.set_up {
            Some(set_up) => set_up.is_known(),
            None => self.cpus.iter().all(unused),
        };
        if active.is_none() && unused {
            let outlook = self.outlook("let the machine run");
            self.problems.push(format!(
                "pKVM has not finished its start: the host's tables exist, but no CPU uses them yet; {outlook}"
            ));
        }
        let facts = regimes::facts("host-s2", &regime, &source);
        self.facts.extend(facts);
        let target = &mut self.memory.target;
        let walk = walk_all(&regime, &mut |spans| target.read_phys(spans))?;
        Ok(Some(Walked {
            name: "host-s2".to_owned(),
            side: Side::Host,
            regime,
            walk,
        }))
    }

    /// The stage 2 of each VM that the hypervisor knows, and of guests on CPUs that it does not: until Linux 6.14 their
    /// tables are the host's.
    pub(super) fn guest_tables(
        &mut self,
        roots: &[GuestRoot],
        host: Option<&Walked>,
    ) -> Result<Vec<Walked>, TargetError> {
        let common = self.common()?;
        let mut wanted = Vec::new();
        for guest in roots {
            let name = format!("guest-s2:{:#x}", guest.handle);
            let vtcr = guest.vtcr.or_else(|| self.active_vtcr(guest.root));
            match vtcr.map(|vtcr| common.stage2_at(guest.root, vtcr)) {
                Some(Ok(regime)) => {
                    let source = format!("pkvm_hyp_vm in {}", self.kernel.source());
                    wanted.push((name, Side::Guest(guest.handle), regime, source));
                }
                Some(Err(error)) => self.problems.push(format!("{name}: {error}")),
                None => self
                    .problems
                    .push(format!("{name}: its VTCR_EL2 is not known")),
            }
        }
        for cpu in self.cpus.iter() {
            let registers = &cpu.registers;
            let (Some(vttbr), Some(vtcr)) = (registers.get("VTTBR_EL2"), registers.get("VTCR_EL2"))
            else {
                continue;
            };
            let vmid = vmid(vttbr);
            let common = regimes::Common::of_cpu(cpu);
            let Some(Ok(regime)) = (vmid != 0).then(|| common.stage2(vttbr, vtcr)) else {
                continue;
            };
            let mut known = wanted.iter().map(|(_, _, regime, _)| regime.root);
            let host = host.is_some_and(|host| host.regime.root == regime.root);
            if !host && !known.any(|root| root == regime.root) {
                let source = format!("VTTBR_EL2 of CPU {}", cpu.number);
                wanted.push((
                    format!("guest-s2:vmid-{vmid}"),
                    Side::Untracked,
                    regime,
                    source,
                ));
            }
        }
        let mut walked = Vec::new();
        for (name, side, regime, source) in wanted {
            self.facts.extend(regimes::facts(&name, &regime, &source));
            let target = &mut self.memory.target;
            let walk = walk_all(&regime, &mut |spans| target.read_phys(spans))?;
            walked.push(Walked {
                name,
                side,
                regime,
                walk,
            });
        }
        Ok(walked)
    }

    /// What the host's stage 2 takes from CPUs.
    fn common(&mut self) -> Result<regimes::Common, TargetError> {
        let kept = variables::host_hcr(&mut self.memory, self.kernel, self.cpus)?;
        Ok(regimes::Common::of_host(self.cpus, kept))
    }

    /// VTCR_EL2 of a CPU that uses this root.
    fn active_vtcr(&self, root: u64) -> Option<u64> {
        let user = self.cpus.iter().find(|cpu| {
            let vttbr = cpu.registers.get("VTTBR_EL2");
            vttbr.is_some_and(|vttbr| vttbr & BADDR == root)
        });
        user?.registers.get("VTCR_EL2")
    }

    /// Why the host is not confined, in one sentence.
    fn why_no_host(&mut self, hyp_is_on: bool) -> Result<String, TargetError> {
        if self.cpus.iter().any(|cpu| regimes::is_vhe(&cpu.registers)) {
            return Ok("protected mode is off: the kernel itself runs at EL2 (VHE); boot it with kvm-arm.mode=protected".to_owned());
        }
        let off = self.mode()?.filter(|mode| mode != "KVM_MODE_PROTECTED");
        Ok(match off {
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
        })
    }

    /// What to do about a kernel that has not come far enough, unless it never will.
    fn outlook(&self, otherwise: &str) -> String {
        match calls::panicked(self.cpus) {
            Some(cpu) => format!("it never will, for the kernel has panicked on CPU {cpu}"),
            None => otherwise.to_owned(),
        }
    }

    /// What the kernel was asked for: the variable `kvm_mode`, by name.
    fn mode(&mut self) -> Result<Option<String>, TargetError> {
        let (Some(variable), Some(names)) = (
            self.kernel.symbol("kvm_mode"),
            self.kernel.enumerators("kvm_mode"),
        ) else {
            return Ok(None);
        };
        let at = self.memory.phys_of_linked(variable.start);
        let value = self.memory.word(at, 4)?;
        let named = names
            .into_iter()
            .find(|(_, number)| u64::try_from(*number).ok() == value);
        Ok(named.map(|(name, _)| name))
    }
}
