//! EL2's registers where a target has none, as a memory dump: the host keeps what it set them up with.
//!
//! For each CPU there is a `kvm_nvhe_init_params` among EL2's per-CPU variables; the hypervisor sets the registers from it
//! when the CPU comes up, and again after it slept. They do not change but for those of a guest that runs.

use super::super::memory::{Memory, NotYet, little_endian};
use super::regimes::{Active, HCR_E2H};
use super::variables;
use crate::addr::Span;
use crate::arch::regime::{El1Stage1, El2Stage1, Granule, IdRegisters, Regime};
use crate::image::kernel::{Field, Kernel};
use crate::model::Fact;
use std::collections::{BTreeMap, HashMap};

/// The name for people.
const VARIABLE: &str = "__kvm_nvhe_kvm_init_params";
/// More bytes than the record has: 72 on all kernels seen.
const MAX_BYTES: u64 = 4096;
/// What a kernel may be configured to for the bits of a virtual address; its linear map begins at −2^bits (Linux,
/// Documentation/arch/arm64/memory.rst).
const VA_BITS: [u32; 7] = [52, 48, 47, 46, 42, 39, 36];

/// What matters of `SCTLR_EL2`, which is not kept: Linux always sets WXN, and EE only in a kernel that is big-endian.
const SCTLR: u64 = 1 << 19;

/// What one CPU was set up with. Members that this kernel does not have are 0.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Params {
    mair: u64,
    tcr: u64,
    hcr: u64,
    /// Physical address of EL2's own root table.
    root: u64,
    /// How far the CPU's own variables are from their templates.
    tpidr: u64,
    /// The host's address of the CPU's own section, in its linear map.
    linear: u64,
    /// Of the host; 0 until pKVM has finished its start.
    vttbr: u64,
    vtcr: u64,
}

/// What all CPUs were set up with.
pub(super) struct SetUp {
    /// By number, those that have been. `None` where the kernel's symbols or types do not tell.
    cpus: Option<BTreeMap<usize, Params>>,
    /// The ID registers as the hypervisor has them, less what not all CPUs have.
    pub(super) id: IdRegisters,
}

impl SetUp {
    /// Whether it is known which CPUs were set up, and with what.
    pub(super) fn is_known(&self) -> bool {
        self.cpus.is_some()
    }

    fn first(&self) -> Option<(usize, &Params)> {
        let (cpu, params) = self.cpus.as_ref()?.first_key_value()?;
        Some((*cpu, params))
    }

    /// EL2's own regime, with where it comes from; `None` where there are no tables yet.
    pub(super) fn hyp(&self) -> Option<Result<(Regime, String), String>> {
        let (cpu, params) = self.first()?;
        if params.root == 0 {
            return None;
        }
        let registers = El2Stage1 {
            tcr: self.tcr(params),
            mair: params.mair,
            hcr: params.hcr,
            sctlr: SCTLR,
        };
        let source = source(cpu);
        let regime = Regime::el2_stage1_at(params.root, registers, self.id);
        Some(match regime {
            Ok(regime) => Ok((regime, source)),
            Err(error) => Err(format!("hyp-s1: {error} ({source})")),
        })
    }

    /// With E2H=0, PS comes from the CPU when it is set up, not from the record. The host's `VTCR_EL2` has the same.
    fn tcr(&self, params: &Params) -> u64 {
        /// 48 bits.
        const LIKELY: u64 = 5;
        if params.hcr & HCR_E2H != 0 {
            return params.tcr;
        }
        let ps = match (params.vtcr, self.id.mmfr0) {
            (0, None) => LIKELY,
            (0, Some(mmfr0)) => mmfr0 & 7,
            (vtcr, _) => vtcr >> 16 & 7,
        };
        params.tcr & !(7 << 16) | ps << 16
    }

    /// The host's stage 2, once pKVM has finished its start.
    pub(super) fn host(&self) -> Option<Active> {
        let (cpu, params) = self.first().filter(|(_, params)| params.vttbr != 0)?;
        Some(Active {
            vttbr: params.vttbr,
            vtcr: params.vtcr,
            source: source(cpu),
        })
    }

    /// The host kernel's own translation, by the physical address of its `swapper_pg_dir`. Pages are of the size that the
    /// hypervisor has.
    pub(super) fn host_stage1(&self, root: u64, hyp: &Regime) -> Option<Regime> {
        let (_, params) = self.first()?;
        // The linear map is the lower half of the kernel's addresses, of which all upper bits are ones.
        let t1sz = u64::from(params.linear.leading_ones());
        let tg1 = match hyp.granule {
            Granule::Kib4 => 2,
            Granule::Kib16 => 1,
            Granule::Kib64 => 3,
        };
        // 52 bits of virtual address need FEAT_LPA2 with small pages; there are no more physical ones than that allows.
        let (ds, ips) = match (hyp.granule, t1sz) {
            (Granule::Kib64, _) => (0, 6),
            (_, ..=12) => (1, 6),
            _ => (0, 5),
        };
        let registers = El1Stage1 {
            ttbr1: root,
            tcr: t1sz << 16 | tg1 << 30 | ips << 32 | ds << 59,
            sctlr: 0,
        };
        Regime::el1_stage1_upper(registers, self.id).ok()
    }

    /// `HCR_EL2` while the host runs.
    pub(super) fn hcr(&self) -> Option<u64> {
        Some(self.first()?.1.hcr)
    }

    /// What stands in for `TPIDR_EL2`, by CPU.
    pub(super) fn per_cpu(&self) -> HashMap<usize, u64> {
        let cpus = self.cpus.iter().flatten();
        cpus.map(|(cpu, params)| (*cpu, params.tpidr)).collect()
    }

    /// What people are told of it.
    pub(super) fn fact(&self) -> Option<Fact> {
        let cpus = self.cpus.as_ref()?.keys().map(usize::to_string);
        let cpus: Vec<_> = cpus.collect();
        Some(Fact {
            what: "EL2 registers".to_owned(),
            value: format!("not read; set up on CPU {}", cpus.join(", ")),
            source: VARIABLE.to_owned(),
        })
    }
}

fn source(cpu: usize) -> String {
    format!("{VARIABLE} of CPU {cpu}")
}

/// Where what is in the record.
struct Layout {
    mair: Option<Field>,
    tcr: Option<Field>,
    tpidr: Field,
    root: Option<Field>,
    hcr: Option<Field>,
    vttbr: Option<Field>,
    vtcr: Option<Field>,
}

impl Layout {
    fn of(kernel: &mut Kernel) -> Option<Self> {
        let mut member = |name: &str| kernel.field(&format!("kvm_nvhe_init_params.{name}"));
        Some(Self {
            mair: member("mair_el2"),
            tcr: member("tcr_el2"),
            tpidr: member("tpidr_el2")?,
            root: member("pgd_pa"),
            // These came with the host's stage 2.
            hcr: member("hcr_el2"),
            vttbr: member("vttbr"),
            vtcr: member("vtcr"),
        })
    }

    fn params(&self, bytes: &[u8]) -> Option<Params> {
        let get = |field: &Field| {
            let start = usize::try_from(field.offset).ok()?;
            Some(little_endian(bytes.get(start..start.checked_add(8)?)?))
        };
        let get_or_zero = |field: &Option<Field>| field.as_ref().and_then(get).unwrap_or(0);
        Some(Params {
            mair: get_or_zero(&self.mair),
            tcr: get_or_zero(&self.tcr),
            hcr: get_or_zero(&self.hcr),
            root: get_or_zero(&self.root),
            tpidr: get(&self.tpidr)?,
            linear: 0,
            vttbr: get_or_zero(&self.vttbr),
            vtcr: get_or_zero(&self.vtcr),
        })
    }
}

/// Finds those of the first `cpus` CPUs, as far as they have been set up. Why this kernel does not tell, `problems` says
/// then.
pub(super) fn read(
    memory: &mut Memory<'_>,
    kernel: &mut Kernel,
    cpus: usize,
    problems: &mut Vec<String>,
) -> Result<SetUp, NotYet> {
    let found = match Places::of(memory, kernel) {
        Ok(places) => places.read(memory, cpus)?,
        Err(why) => Err(why),
    };
    let mut id = |number: u8| {
        let symbol = format!("__kvm_nvhe_id_aa64mmfr{number}_el1_sys_val");
        variables::word(memory, kernel, &symbol)
    };
    // The first says which pages there are, so it is zero only until protected mode is set up. The others may be.
    let id = match id(0)? {
        mmfr0 @ Some(1..) => IdRegisters {
            mmfr0,
            mmfr1: id(1)?,
            mmfr2: id(2)?,
        },
        _ => IdRegisters::default(),
    };
    // Nothing is waited for any more, so that it is said once.
    Ok(SetUp {
        id,
        cpus: found
            .map_err(|why| problems.push(format!("the target has no EL2 registers, and {why}")))
            .ok(),
    })
}

/// What leads to the record of each CPU, by physical addresses.
struct Places {
    /// The template of the record.
    params: Span,
    layout: Layout,
    /// Where the templates of all per-CPU variables begin.
    section: u64,
    /// The host's addresses of each CPU's own section.
    bases: Span,
    /// The physical address that the host's linear map begins with is there.
    memstart: u64,
}

impl Places {
    /// The error is a clause.
    fn of(memory: &Memory<'_>, kernel: &mut Kernel) -> Result<Self, String> {
        let symbols = [
            VARIABLE,
            "__kvm_nvhe___per_cpu_start",
            // First another name of the host's array, later EL2's own.
            "__kvm_nvhe_kvm_arm_hyp_percpu_base",
            "memstart_addr",
        ];
        let [params, section, bases, memstart] = symbols.map(|name| kernel.symbol(name));
        let (Some(params), Some(section), Some(bases), Some(memstart)) =
            (params, section, bases, memstart)
        else {
            return Err(format!(
                "the symbols in {} do not name where the hypervisor keeps them: give --image vmlinux",
                kernel.source()
            ));
        };
        let (Some(layout), Some(size)) =
            (Layout::of(kernel), kernel.size_of("kvm_nvhe_init_params"))
        else {
            return Err(format!(
                "no types in {} describe how the hypervisor keeps them: give --image vmlinux",
                kernel.source()
            ));
        };
        let at = |symbol: Span| memory.phys_of_linked(symbol.start);
        Ok(Self {
            params: Span::new(at(params), size.min(MAX_BYTES)),
            layout,
            section: at(section),
            bases: Span::new(at(bases), bases.size),
            memstart: at(memstart),
        })
    }

    fn read(
        &self,
        memory: &mut Memory<'_>,
        cpus: usize,
    ) -> Result<Result<BTreeMap<usize, Params>, String>, NotYet> {
        let unreadable = |what: &str, at: u64| Ok(Err(format!("{what} at {at:#x} is unreadable")));
        // Where the array's size is not known it has one for each CPU.
        let wanted = u64::try_from(cpus).unwrap_or(u64::MAX).saturating_mul(8);
        let size = match self.bases.size {
            0 => wanted,
            size => size.min(wanted),
        };
        let Some(bases) = memory.read(Span::new(self.bases.start, size))? else {
            return unreadable("kvm_arm_hyp_percpu_base", self.bases.start);
        };
        let bases: Vec<_> = bases.chunks_exact(8).map(little_endian).collect();
        let Some(memstart) = memory.word(self.memstart, 8)? else {
            return unreadable("memstart_addr", self.memstart);
        };
        let mut found = BTreeMap::new();
        let bases = bases.into_iter().enumerate();
        for (cpu, base) in bases.filter(|(_, base)| *base != 0) {
            let Some(params) = self.of_cpu(memory, base, memstart)? else {
                return Ok(Err(format!(
                    "its per-CPU variables are not where kvm_arm_hyp_percpu_base has them, at the host's {base:#x}"
                )));
            };
            found.insert(cpu, params);
        }
        Ok(Ok(found))
    }

    /// Those of the CPU whose own section is at this address of the host's.
    fn of_cpu(
        &self,
        memory: &mut Memory<'_>,
        base: u64,
        memstart: u64,
    ) -> Result<Option<Params>, NotYet> {
        for bits in VA_BITS {
            // PA = VA − PAGE_OFFSET + memstart_addr, and PAGE_OFFSET is −2^bits.
            let own = base.wrapping_add(1 << bits).wrapping_add(memstart);
            let tpidr = own.wrapping_sub(self.section);
            let at = self.params.start.wrapping_add(tpidr);
            let bytes = memory.read(Span::new(at, self.params.size))?;
            let params = bytes.and_then(|bytes| self.layout.params(bytes));
            // At the right place the record itself says how far it is from its template.
            if let Some(params) = params.filter(|params| params.tpidr == tpidr) {
                let linear = base;
                return Ok(Some(Params { linear, ..params }));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
