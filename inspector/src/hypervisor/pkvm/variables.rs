//! The hypervisor's variables: where its tables and records are, which RAM it manages, which memory is its own.

use super::memory::{Memory, little_endian};
use super::vms::per_cpu;
use crate::addr::Span;
use crate::hypervisor::description::in_order;
use crate::image::kernel::Kernel;
use crate::model::{Cpu, Section};
use crate::target::TargetError;

/// `hyp_memory` has 128 elements at most in every kernel seen.
const REGION_LIMIT: u64 = 1024;

/// The host's stage 2 as the hypervisor keeps it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct HostTables {
    /// Physical address of the root.
    pub(super) root: u64,
    /// The value for VTCR_EL2.
    pub(super) vtcr: u64,
    /// The variable, for people.
    pub(super) source: String,
}

/// The variable with the host's stage 2, and the name of its type: `host_mmu` since Linux 6.2, "KVM: arm64: Rename 'host_kvm'
/// to 'host_mmu'".
const HOST: [(&str, &str); 2] = [
    ("__kvm_nvhe_host_mmu", "host_mmu"),
    ("__kvm_nvhe_host_kvm", "host_kvm"),
];

/// The host's tables; `None` where symbols or types do not name them, or there are none yet.
pub(super) fn host_tables(
    memory: &mut Memory<'_>,
    kernel: &mut Kernel,
) -> Result<Option<HostTables>, TargetError> {
    for (symbol, record) in HOST {
        let Some(variable) = kernel.symbol(symbol) else {
            continue;
        };
        let root = kernel.field(&format!("{record}.arch.mmu.pgd_phys"));
        // In `kvm_s2_mmu` since Linux 6.8, "KVM: arm64: Move VTCR_EL2 into struct s2_mmu".
        let vtcr = ["arch.mmu.vtcr", "arch.vtcr"]
            .iter()
            .find_map(|path| kernel.field(&format!("{record}.{path}")));
        let (Some(root), Some(vtcr)) = (root, vtcr) else {
            continue;
        };
        let at = memory.phys_of_linked(variable.start);
        let root = memory.word(at.wrapping_add(root.offset), 8)?;
        let vtcr = memory.word(at.wrapping_add(vtcr.offset), 8)?;
        if let (Some(root @ 1..), Some(vtcr)) = (root, vtcr) {
            return Ok(Some(HostTables {
                root,
                vtcr,
                source: format!("{symbol} in {}", kernel.source()),
            }));
        }
    }
    Ok(None)
}

/// The value that the hypervisor keeps for HCR_EL2 while the host runs, of any CPU: they are alike.
pub(super) fn host_hcr(
    memory: &mut Memory<'_>,
    kernel: &mut Kernel,
    cpus: &[Cpu],
) -> Result<Option<u64>, TargetError> {
    let (Some(variable), Some(member)) = (
        kernel.symbol("__kvm_nvhe_kvm_init_params"),
        kernel.field("kvm_nvhe_init_params.hcr_el2"),
    ) else {
        return Ok(None);
    };
    let template = memory.phys_of_linked(variable.start);
    let kept = per_cpu(memory, template.wrapping_add(member.offset), cpus)?;
    Ok(kept.into_iter().flatten().find(|hcr| *hcr != 0))
}

/// The RAM that the hypervisor manages, in order: `hyp_memory`. `None` where symbols or types do not name it.
pub(super) fn ram(
    memory: &mut Memory<'_>,
    kernel: &mut Kernel,
) -> Result<Option<Vec<Span>>, TargetError> {
    let (Some(list), Some(count)) = (
        kernel.symbol("__kvm_nvhe_hyp_memory"),
        kernel.symbol("__kvm_nvhe_hyp_memblock_nr"),
    ) else {
        return Ok(None);
    };
    let (Some(base), Some(size), Some(step)) = (
        kernel.field("memblock_region.base"),
        kernel.field("memblock_region.size"),
        kernel.size_of("memblock_region"),
    ) else {
        return Ok(None);
    };
    let count = memory.phys_of_linked(count.start);
    let Some(count) = memory
        .word(count, 4)?
        .filter(|count| *count <= REGION_LIMIT)
    else {
        return Ok(None);
    };
    let list = memory.phys_of_linked(list.start);
    let list = Span::new(list, count.saturating_mul(step));
    let Some(bytes) = memory.read(list)?.filter(|_| step > 0) else {
        return Ok(None);
    };
    let regions = bytes.chunks_exact(step as usize).filter_map(|region| {
        let number = |at: u64| Some(little_endian(region.get(at as usize..)?.get(..8)?));
        Some(Span::new(number(base.offset)?, number(size.offset)?))
    });
    Ok(Some(in_order(regions.collect())))
}

/// A variable of 8 bytes.
pub(super) fn word(
    memory: &mut Memory<'_>,
    kernel: &mut Kernel,
    symbol: &str,
) -> Result<Option<u64>, TargetError> {
    let Some(variable) = kernel.symbol(symbol) else {
        return Ok(None);
    };
    let at = memory.phys_of_linked(variable.start);
    memory.word(at, 8)
}

/// The parts of the image that are the hypervisor's, by the symbols that enclose them.
pub(super) fn sections(memory: &Memory<'_>, kernel: &mut Kernel) -> Vec<Section> {
    let parts = [
        ("text", "text"),
        ("idmap", "idmap_text"),
        ("rodata", "rodata"),
        // Linux 6.19 or so: data that is neither per CPU nor zero.
        ("data", "data"),
        ("bss", "bss"),
    ];
    let sections = parts.iter().filter_map(|(name, part)| {
        let start = kernel.symbol(&format!("__hyp_{part}_start"))?.start;
        let end = kernel.symbol(&format!("__hyp_{part}_end"))?.start;
        let size = end.checked_sub(start).filter(|size| *size > 0)?;
        Some(Section {
            name: (*name).to_owned(),
            pa: Span::new(memory.phys_of_linked(start), size),
        })
    });
    sections.collect()
}

/// A pool of table pages: its name, and the pages between its bounds.
pub(super) fn pools(
    memory: &mut Memory<'_>,
    kernel: &mut Kernel,
) -> Result<Vec<(&'static str, Span)>, TargetError> {
    let (Some(first), Some(end)) = (
        kernel.field("hyp_pool.range_start"),
        kernel.field("hyp_pool.range_end"),
    ) else {
        return Ok(Vec::new());
    };
    let mut pools = Vec::new();
    for (name, symbol) in [
        ("host-pool", "__kvm_nvhe_host_s2_pool"),
        ("hyp-pool", "__kvm_nvhe_hpool"),
    ] {
        let Some(variable) = kernel.symbol(symbol) else {
            continue;
        };
        let at = memory.phys_of_linked(variable.start);
        let start = memory.word(at.wrapping_add(first.offset), 8)?;
        let end = memory.word(at.wrapping_add(end.offset), 8)?;
        if let (Some(start), Some(end)) = (start, end)
            && start < end
        {
            pools.push((name, Span::new(start, end - start)));
        }
    }
    Ok(pools)
}
