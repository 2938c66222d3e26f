//! Where the kernel is: from the page that VBAR_EL2 points to, whose symbol is known, or by a scan of RAM.

use super::super::memory::{Memory, NotYet};
use crate::addr::Span;
use crate::image::kernel::{Kernel, find_in_ram};
use crate::image::{Images, build_id};
use crate::model::Cpu;
use crate::target::TargetError;

/// EL2's vectors: while the host runs on a CPU, and while a guest does. Hardened copies of the latter are one slot each.
const VECTORS: [(&str, u64); 3] = [
    ("__kvm_nvhe___kvm_hyp_host_vector", 1),
    ("__kvm_nvhe___kvm_hyp_vector", 1),
    ("__kvm_nvhe___bp_harden_hyp_vecs", 8),
];
/// Bytes of a set of vectors (DDI 0487, VBAR_EL2: 2 KiB aligned).
const VECTOR_SIZE: u64 = 0x800;
/// A kernel's image begins at a multiple of this (Documentation/arch/arm64/booting.rst asks for 2 MiB; a relocated one by
/// EFI keeps 64 KiB).
const IMAGE_ALIGN: u64 = 0x1_0000;
/// Bytes read to find a kernel that nothing leads to: over a link that takes some seconds.
const SEARCH_LIMIT: u64 = 512 << 20;
/// The notes of a kernel are a few dozen bytes.
const NOTES_LIMIT: u64 = 4096;

/// Where a kernel runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Location {
    /// Physical − linked address, wrapping.
    pub(super) image_offset: u64,
    /// EL2's address − linked address, wrapping, where EL2's vectors told it.
    pub(super) hyp_offset: Option<u64>,
    /// How it was found, for people.
    pub(super) source: String,
}

/// Whether the kernel in memory is the very build that names and types are for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Build {
    Same,
    /// The build id that is there instead.
    Other(Vec<u8>),
    /// Nothing to compare.
    Unknown,
}

/// Where the image begins, as linked.
pub(super) fn linked_base(kernel: &mut Kernel) -> Option<u64> {
    if let Some(text) = kernel.symbol("_text") {
        return Some(text.start & !(IMAGE_ALIGN - 1));
    }
    // Functions begin here, behind the header, which has up to 64 KiB for itself.
    let functions = kernel.symbol("_stext")?.start;
    Some(functions.checked_sub(1)? & !(IMAGE_ALIGN - 1))
}

/// Every place that the vectors of these CPUs allow. `vectors` has what [`vector_pages`] found.
pub(super) fn by_vectors(kernel: &mut Kernel, vectors: &[(usize, u64, u64)]) -> Vec<Location> {
    let Some(base) = linked_base(kernel) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for &(cpu, va, pa) in vectors {
        for (name, slots) in VECTORS {
            let Some(linked) = kernel.symbol(name) else {
                continue;
            };
            for slot in 0..slots {
                let linked = linked.start.wrapping_add(slot * VECTOR_SIZE);
                let image_offset = pa.wrapping_sub(linked);
                // Two sets of vectors are less than this apart, so that one of them fits.
                if base.wrapping_add(image_offset) % IMAGE_ALIGN == 0 {
                    found.push(Location {
                        image_offset,
                        // Hardened vectors may run at an address of their own.
                        hyp_offset: (slots == 1).then(|| va.wrapping_sub(linked)),
                        source: format!("VBAR_EL2 of CPU {cpu} is {name}"),
                    });
                }
            }
        }
    }
    // The host's own vectors say most.
    found.sort_by_key(|location| location.hyp_offset.is_none());
    found.dedup_by_key(|location| location.image_offset);
    found
}

/// `(CPU, VBAR_EL2, its physical address)` of all CPUs whose EL2 translation maps it.
pub(super) fn vector_pages(
    memory: &mut Memory<'_>,
    cpus: &[Cpu],
) -> Result<Vec<(usize, u64, u64)>, NotYet> {
    let mut found = Vec::new();
    for cpu in cpus {
        let registers = &cpu.registers;
        if super::regimes::el2_is_on(registers) != Some(true) {
            continue;
        }
        let Some(va) = registers.get("VBAR_EL2") else {
            continue;
        };
        if let Some(pa) = memory.phys_of_hyp(va)? {
            found.push((cpu.number, va, pa));
        }
    }
    Ok(found)
}

/// Where in RAM a kernel is that has its build id where this one has it. Looks at every place that an image can begin at.
pub(super) fn by_scan(
    memory: &mut Memory<'_>,
    kernel: &mut Kernel,
    ram: &[Span],
) -> Result<Option<Location>, TargetError> {
    /// Places looked at in one go.
    const BATCH: usize = 4096;
    /// More than a terabyte of RAM has.
    const PLACES: u64 = 1 << 24;
    let (Some(base), Some(notes)) = (linked_base(kernel), notes_span(kernel)) else {
        return Ok(None);
    };
    let Some(id) = kernel.build_id().map(<[u8]>::to_vec) else {
        return Ok(None);
    };
    let places = ram.iter().flat_map(|ram| {
        let first = ram.start.next_multiple_of(IMAGE_ALIGN);
        (first..ram.last().unwrap_or(first)).step_by(IMAGE_ALIGN as usize)
    });
    let mut places = places.take(PLACES as usize).peekable();
    while places.peek().is_some() {
        let batch: Vec<u64> = places.by_ref().take(BATCH).collect();
        let at = |place: u64| notes.start.wrapping_sub(base).wrapping_add(place);
        let spans: Vec<_> = batch
            .iter()
            .map(|place| Span::new(at(*place), notes.size))
            .collect();
        let answers = memory.target.read_phys(&spans)?;
        let hit = batch.iter().zip(answers).find(|(_, answer)| {
            let found = answer.as_ref().ok().and_then(|bytes| build_id(bytes));
            found == Some(id.as_slice())
        });
        if let Some((place, _)) = hit {
            return Ok(Some(Location {
                image_offset: place.wrapping_sub(base),
                hyp_offset: None,
                source: "a scan of RAM for its build id".to_owned(),
            }));
        }
    }
    Ok(None)
}

/// Compares the build id in memory with that of the names and types.
pub(super) fn compare(
    memory: &mut Memory<'_>,
    kernel: &mut Kernel,
    location: &Location,
) -> Result<Build, NotYet> {
    let Some(notes) = notes_span(kernel) else {
        return Ok(Build::Unknown);
    };
    let pa = notes.start.wrapping_add(location.image_offset);
    let bytes = memory.read(Span::new(pa, notes.size))?;
    let there = bytes.and_then(build_id);
    Ok(match (there, kernel.build_id()) {
        (Some(there), Some(here)) if there == here => Build::Same,
        (Some(there), Some(_)) => Build::Other(there.to_vec()),
        // At a wrong place there are no notes at all.
        (None, Some(_)) => Build::Other(Vec::new()),
        (_, None) => Build::Unknown,
    })
}

fn notes_span(kernel: &mut Kernel) -> Option<Span> {
    let start = kernel.symbol("__start_notes")?.start;
    let stop = kernel.symbol("__stop_notes")?.start;
    let size = stop.checked_sub(start)?;
    (size > 0 && size <= NOTES_LIMIT).then(|| Span::new(start, size))
}

/// Looks for a kernel in guest RAM, where nothing else tells its names: around EL2's vectors, which are part of it, or
/// everywhere. Leaves it in `images`.
pub(super) fn in_memory(
    memory: &mut Memory<'_>,
    images: &mut Images,
    vectors: &[(usize, u64, u64)],
    backed: &[Span],
) -> Result<Option<Location>, TargetError> {
    let target = &mut memory.target;
    let mut read = |spans: &[Span]| target.read_phys(spans);
    let near = match vectors.first() {
        Some((_, _, pa)) => Some(*pa),
        None => find_in_ram(&mut read, backed, SEARCH_LIMIT)?,
    };
    let Some(near) = near else {
        return Ok(None);
    };
    let Some(mut found) = Kernel::in_ram(&mut read, backed, near)? else {
        return Ok(None);
    };
    let by_vectors = by_vectors(&mut found.kernel, vectors).into_iter().next();
    let by_names = found.image_offset.map(|image_offset| Location {
        image_offset,
        hyp_offset: None,
        source: "where its table of names lies in RAM".to_owned(),
    });
    let location = by_vectors.or(by_names);
    if location.is_some() {
        images.set_kernel(found.kernel);
    }
    Ok(location)
}
