//! The hypervisor's variables: where its tables and records are, which RAM it manages, which memory is its own.

use super::super::memory::{Memory, NotYet, little_endian};
use super::vms::per_cpu;
use crate::addr::Span;
use crate::hypervisor::description::in_order;
use crate::image::kernel::Kernel;
use crate::model::{Cpu, Section};

/// `hyp_memory` has 128 elements at most in every kernel seen.
const REGION_LIMIT: u64 = 1024;

/// What the variables say; `None` for those that symbols or types do not name, or that cannot be read.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Variables {
    /// `hyp_physvirt_offset`; 0 until EL2 is set up.
    pub(super) physvirt_offset: Option<u64>,
    /// `kimage_voffset`; 0 until the kernel has come so far.
    pub(super) image_offset: Option<u64>,
    /// EL2's address of the page records; 0 until EL2 is set up.
    pub(super) records: Option<u64>,
    /// What the kernel was asked for: `kvm_mode`, by name.
    pub(super) mode: Option<String>,
    /// The host's tables, once there are some.
    pub(super) host: Option<HostTables>,
    /// The value for HCR_EL2 while the host runs, of any CPU: they are alike.
    pub(super) host_hcr: Option<u64>,
    /// The RAM that the hypervisor manages, in order.
    pub(super) ram: Option<Vec<Span>>,
    /// Pools of table pages: the name, and the pages between the bounds.
    pub(super) pools: Vec<(&'static str, Span)>,
}

/// Reads them. All is asked for before anything is taken, so that it comes with one wait.
pub(super) fn read(
    memory: &mut Memory<'_>,
    kernel: &mut Kernel,
    cpus: &[Cpu],
) -> Result<Variables, NotYet> {
    let physvirt_offset = word(memory, kernel, "__kvm_nvhe_hyp_physvirt_offset");
    let image_offset = word(memory, kernel, "kimage_voffset");
    let records = word(memory, kernel, "__kvm_nvhe___hyp_vmemmap");
    let mode = mode(memory, kernel);
    let host = host_tables(memory, kernel);
    let host_hcr = host_hcr(memory, kernel, cpus);
    let ram = ram(memory, kernel);
    let pools = pools(memory, kernel);
    Ok(Variables {
        physvirt_offset: physvirt_offset?,
        image_offset: image_offset?,
        records: records?,
        mode: mode?,
        host: host?,
        host_hcr: host_hcr?,
        ram: ram?,
        pools: pools?,
    })
}

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
fn host_tables(memory: &mut Memory<'_>, kernel: &mut Kernel) -> Result<Option<HostTables>, NotYet> {
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
        let root = memory.word(at.wrapping_add(root.offset), 8);
        let vtcr = memory.word(at.wrapping_add(vtcr.offset), 8);
        if let (Some(root @ 1..), Some(vtcr)) = (root?, vtcr?) {
            return Ok(Some(HostTables {
                root,
                vtcr,
                source: format!("{symbol} in {}", kernel.source()),
            }));
        }
    }
    Ok(None)
}

fn host_hcr(
    memory: &mut Memory<'_>,
    kernel: &mut Kernel,
    cpus: &[Cpu],
) -> Result<Option<u64>, NotYet> {
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

/// `hyp_memory`, of which `hyp_memblock_nr` elements count.
fn ram(memory: &mut Memory<'_>, kernel: &mut Kernel) -> Result<Option<Vec<Span>>, NotYet> {
    let (Some(list), Some(count)) = (
        kernel.symbol("__kvm_nvhe_hyp_memory"),
        kernel.symbol("__kvm_nvhe_hyp_memblock_nr"),
    ) else {
        return Ok(None);
    };
    let (Some(base), Some(size), Some(step @ 1..)) = (
        kernel.field("memblock_region.base"),
        kernel.field("memblock_region.size"),
        kernel.size_of("memblock_region"),
    ) else {
        return Ok(None);
    };
    // All elements at once, where it is known how many there are.
    let room = list.size.min(REGION_LIMIT.saturating_mul(step));
    let whole = Span::new(memory.phys_of_linked(list.start), room);
    let whole = memory.read(whole).map(|bytes| bytes.map(<[u8]>::to_vec));
    let count = memory.word(memory.phys_of_linked(count.start), 4)?;
    let Some(count) = count.filter(|count| *count <= REGION_LIMIT) else {
        return Ok(None);
    };
    let used = Span::new(memory.phys_of_linked(list.start), count * step);
    let bytes = match whole? {
        Some(whole) if whole.len() as u64 >= used.size => Some(whole),
        _ => memory.read(used)?.map(<[u8]>::to_vec),
    };
    let Some(bytes) = bytes else {
        return Ok(None);
    };
    let regions = bytes.chunks_exact(step as usize).take(count as usize);
    let regions = regions.filter_map(|region| {
        let number = |at: u64| Some(little_endian(region.get(at as usize..)?.get(..8)?));
        Some(Span::new(number(base.offset)?, number(size.offset)?))
    });
    Ok(Some(in_order(regions.collect())))
}

fn mode(memory: &mut Memory<'_>, kernel: &mut Kernel) -> Result<Option<String>, NotYet> {
    let (Some(variable), Some(names)) = (kernel.symbol("kvm_mode"), kernel.enumerators("kvm_mode"))
    else {
        return Ok(None);
    };
    let value = memory.word(memory.phys_of_linked(variable.start), 4)?;
    let mut names = names.into_iter();
    let named = names.find(|(_, number)| u64::try_from(*number).ok() == value);
    Ok(named.map(|(name, _)| name))
}

/// A variable of 8 bytes.
pub(super) fn word(
    memory: &mut Memory<'_>,
    kernel: &mut Kernel,
    symbol: &str,
) -> Result<Option<u64>, NotYet> {
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

fn pools(
    memory: &mut Memory<'_>,
    kernel: &mut Kernel,
) -> Result<Vec<(&'static str, Span)>, NotYet> {
    let (Some(first), Some(end)) = (
        kernel.field("hyp_pool.range_start"),
        kernel.field("hyp_pool.range_end"),
    ) else {
        return Ok(Vec::new());
    };
    let known = [
        ("host-pool", "__kvm_nvhe_host_s2_pool"),
        ("hyp-pool", "__kvm_nvhe_hpool"),
    ];
    let pools = known.map(|(name, symbol)| {
        let Some(variable) = kernel.symbol(symbol) else {
            return Ok(None);
        };
        let at = memory.phys_of_linked(variable.start);
        let start = memory.word(at.wrapping_add(first.offset), 8);
        let end = memory.word(at.wrapping_add(end.offset), 8);
        let (Some(start), Some(end)) = (start?, end?) else {
            return Ok(None);
        };
        Ok((start < end).then(|| (name, Span::new(start, end - start))))
    });
    let pools: Result<Vec<_>, NotYet> = pools.into_iter().collect();
    Ok(pools?.into_iter().flatten().collect())
}
