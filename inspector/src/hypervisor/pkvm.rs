//! Linux's pKVM, from whatever tells its symbols and types, to a [`System`].
//!
//! The order of things: EL2's own tables by the registers; the kernel by the page its vectors lie in; its variables;
//! the host's tables; page records; guests; and then what all of them mean together.

mod calls;
mod facts;
mod joint;
mod layout;
mod locate;
mod locks;
mod meaning;
mod memory;
mod params;
mod records;
mod regimes;
mod tables;
#[cfg(test)]
mod testing;
mod variables;
mod vms;

use crate::addr::Span;
use crate::arch::regime::Regime;
use crate::arch::walk::{self, walk_all};
use crate::image::Images;
use crate::image::kernel::{GUEST_RAM, Kernel};
use crate::model::{Cpu, Fact, Pool, RegimeCapture, Symbols, System};
use crate::target::{Target, TargetError};
use joint::{name_lenders, with_pages};
use layout::Layout;
use locate::{Build, Location};
use meaning::{Meaning, Side};
use memory::Memory;
use params::SetUp;
use records::Records;

/// The root's address in a VTTBR_EL2: bits 47:1, without VMID and CnP. Addresses of 52 bits are told by [`Regime::stage2`].
const BADDR: u64 = 0x0000_ffff_ffff_fffe;

/// A regime before it is known what its entries mean.
struct Walked {
    name: String,
    side: Side,
    regime: Regime,
    walk: walk::Walk,
}

/// Reads a Linux kernel and its hypervisor; `None` where no Linux kernel is found. What is wrong, or not known, `problems`
/// says.
pub(super) fn capture(
    target: &mut dyn Target,
    images: &mut Images,
    cpus: &mut Vec<Cpu>,
    problems: &mut Vec<String>,
) -> Result<Option<System>, TargetError> {
    let backed = target.ram()?.unwrap_or_default();
    let mut memory = Memory::new(target);
    let mut facts = Vec::new();
    let by_registers = regimes::hyp(cpus);
    let mut hyp = hyp_tables(&mut memory, by_registers, &mut facts, problems)?;
    let vectors = locate::vector_pages(&mut memory, cpus)?;
    let Some(location) = find(&mut memory, images, &vectors, &backed, problems)? else {
        return Ok(None);
    };
    let Some(kernel) = images.kernel() else {
        return Ok(None);
    };
    memory.image_offset = location.image_offset;
    let set_up = match regimes::are_known(cpus) {
        true => None,
        false => Some(params::read(&mut memory, kernel, cpus.len(), problems)?),
    };
    if let Some(set_up) = &set_up {
        memory.per_cpu = set_up.per_cpu();
        facts.extend(set_up.fact());
        hyp = hyp_tables(&mut memory, set_up.hyp(), &mut facts, problems)?;
    }
    let mut linux = Linux {
        memory,
        kernel,
        location,
        set_up,
        facts,
        problems,
        cpus,
    };
    linux.capture(hyp, backed).map(Some)
}

/// EL2's own tables, by what was found of their registers.
fn hyp_tables(
    memory: &mut Memory<'_>,
    found: Option<Result<(Regime, String), String>>,
    facts: &mut Vec<Fact>,
    problems: &mut Vec<String>,
) -> Result<Option<Walked>, TargetError> {
    let (regime, source) = match found {
        Some(Ok(found)) => found,
        Some(Err(error)) => {
            problems.push(error);
            return Ok(None);
        }
        None => return Ok(None),
    };
    let walk = walk_all(&regime, &mut |spans| memory.target.read_phys(spans))?;
    memory.know_hyp(regime.clone(), &walk.tables);
    facts.extend(regimes::facts("hyp-s1", &regime, &source));
    Ok(Some(Walked {
        name: "hyp-s1".to_owned(),
        side: Side::Hyp,
        regime,
        walk,
    }))
}

/// Finds the kernel: one that was given must be the build that runs; else the one in guest RAM.
fn find(
    memory: &mut Memory<'_>,
    images: &mut Images,
    vectors: &[(usize, u64, u64)],
    backed: &[Span],
    problems: &mut Vec<String>,
) -> Result<Option<Location>, TargetError> {
    let mut refused = None;
    if let Some(kernel) = images.kernel() {
        let mut places = locate::by_vectors(kernel, vectors);
        if vectors.is_empty() {
            places.extend(locate::by_scan(memory, kernel, backed)?);
        }
        for location in places {
            match locate::compare(memory, kernel, &location)? {
                Build::Same | Build::Unknown => return Ok(Some(location)),
                Build::Other(_) => {}
            }
        }
        let id = kernel
            .build_id()
            .map_or_else(|| "none".to_owned(), locate::hex);
        // One found in RAM is of a machine that has started again since.
        if kernel.source() != GUEST_RAM {
            refused = Some((kernel.source().to_owned(), id));
        }
    }
    let found = locate::in_memory(memory, images, vectors, backed)?;
    if let Some((file, id)) = refused {
        let running = images.kernel().filter(|_| found.is_some());
        problems.push(match running.as_deref().and_then(Kernel::build_id) {
            Some(running) => format!(
                "{file} is not the kernel that runs: its build id is {id}, the running kernel's is {}; names and types are taken from guest RAM instead",
                locate::hex(running)
            ),
            None => format!(
                "{file} (build id {id}) is not the kernel that runs here, or no kernel runs yet; no other was found in RAM"
            ),
        });
    }
    Ok(found)
}

/// A kernel that was found, while it is read.
struct Linux<'a, 'm> {
    memory: Memory<'m>,
    kernel: &'a mut Kernel,
    location: Location,
    /// What CPUs without EL2's registers were set up with; `None` where the registers are known.
    set_up: Option<SetUp>,
    facts: Vec<Fact>,
    problems: &'a mut Vec<String>,
    cpus: &'a mut Vec<Cpu>,
}

impl Linux<'_, '_> {
    fn capture(&mut self, hyp: Option<Walked>, backed: Vec<Span>) -> Result<System, TargetError> {
        self.memory.physvirt_offset = self.physvirt_offset()?;
        let symbols = self.symbols()?;
        let layout = layout::probe(self.kernel);
        self.note_kernel(&layout);
        calls::read(&mut self.memory, self.kernel, &symbols, self.cpus)?;
        if let Some(cpu) = calls::panicked(self.cpus) {
            self.fact("panic", format!("on CPU {cpu}"), "the calls of that CPU");
        }
        let ram = self.ram(backed)?;
        let host = self.host_tables(hyp.is_some())?;
        let records = self.records(&layout, hyp.as_ref(), &ram)?;
        let vms = vms::read(&mut self.memory, self.kernel, self.cpus, self.problems)?;
        let guests = self.guest_tables(&vms.roots, host.as_ref())?;
        let pools = self.pools(hyp.as_ref(), &layout)?;
        let sections = variables::sections(&self.memory, self.kernel);

        let meaning = Meaning {
            layout: &layout,
            records: records.as_ref(),
            ram: &ram,
            page_shift: self.page_shift(hyp.as_ref()),
        };
        let walked: Vec<_> = host.into_iter().chain(hyp).chain(guests).collect();
        let mut regimes: Vec<_> = walked
            .into_iter()
            .map(|walked| self.regime(&meaning, walked))
            .collect();
        let owners = self.owners(&layout, records, &regimes, &ram);
        name_lenders(&mut regimes, &owners);
        super::regimes::name_stage2(self.cpus, &regimes);
        self.keep_names(&symbols)?;
        let locks = locks::read(
            &mut self.memory,
            self.kernel,
            &vms.vms,
            self.cpus,
            self.problems,
        )?;
        let counted = with_pages(vms.vms, &regimes);
        let complete = self.problems.is_empty() && regimes.iter().all(super::regimes::is_complete);
        Ok(System {
            complete,
            problems: self.problems.clone(),
            hypervisor: self.hypervisor(&layout, !regimes.is_empty()),
            facts: std::mem::take(&mut self.facts),
            physvirt_offset: self.memory.physvirt_offset,
            ram,
            regimes,
            owners,
            vms: counted,
            no_vms: vms.no_vms,
            locks: locks.locks,
            no_locks: locks.note,
            cpus: std::mem::take(self.cpus),
            pools,
            sections,
            symbols,
            run_state: None,
        })
    }

    /// Has snapshots remember what names the places where CPUs are and will return to.
    fn keep_names(&mut self, symbols: &Symbols) -> Result<(), TargetError> {
        for cpu in self.cpus.iter() {
            let saved = ["x30", "ELR_EL2"].map(|name| cpu.registers.get(name));
            let calls = cpu.calls.iter().map(|frame| frame.pc);
            let places = cpu.pc.into_iter().chain(saved.into_iter().flatten());
            for pc in places.chain(calls) {
                // EL2 maps some of its code a second time.
                let mapped = match (symbols.linked_address(pc), self.memory.physvirt_offset) {
                    (None, Some(offset)) => self
                        .memory
                        .phys_of_hyp(pc)?
                        .map(|pa| pa.wrapping_sub(offset)),
                    _ => Some(pc),
                };
                // The call itself may be named instead of what stands behind it.
                for place in mapped.into_iter().flat_map(|pc| [pc, pc.wrapping_sub(4)]) {
                    if let Some(linked) = symbols.linked_address(place) {
                        self.kernel.keep(linked);
                    }
                }
            }
        }
        Ok(())
    }

    fn fact(&mut self, what: &str, value: String, source: impl Into<String>) {
        self.facts.push(Fact {
            what: what.to_owned(),
            value,
            source: source.into(),
        });
    }

    fn ram(&mut self, backed: Vec<Span>) -> Result<Vec<Span>, TargetError> {
        let listed = variables::ram(&mut self.memory, self.kernel)?;
        let (ram, source) = match listed.filter(|ram| !ram.is_empty()) {
            Some(ram) => (ram, "__kvm_nvhe_hyp_memory"),
            None => (backed, "the target's memory map"),
        };
        for ram in &ram {
            self.fact("RAM", ram.to_string(), source);
        }
        Ok(ram)
    }

    fn page_shift(&self, hyp: Option<&Walked>) -> u32 {
        hyp.map_or(12, |hyp| hyp.regime.granule.shift())
    }

    /// Where page records are: the variable, or where Linux puts them in EL2's address space.
    fn record_base(&mut self, hyp: &Walked) -> Result<u64, TargetError> {
        const VARIABLE: &str = "__kvm_nvhe___hyp_vmemmap";
        let stored = variables::word(&mut self.memory, self.kernel, VARIABLE)?;
        let bits = hyp.regime.ia_bits;
        Ok(match stored.filter(|base| *base != 0) {
            Some(base) => base,
            // Seen so on all kernels: the quarter below the private range's, with the private range from bit va − 2 on.
            None => 1 << (bits - 2) | 1 << (bits - 3),
        })
    }

    fn records(
        &mut self,
        layout: &Layout,
        hyp: Option<&Walked>,
        ram: &[Span],
    ) -> Result<Option<Records>, TargetError> {
        let (Some(states), Some(hyp)) = (&layout.states, hyp) else {
            return Ok(None);
        };
        if !states.in_records() {
            return Ok(None);
        }
        let place = records::Place {
            base: self.record_base(hyp)?,
            page_shift: hyp.regime.granule.shift(),
            states,
        };
        self.fact(
            "page records",
            format!("{:#x}", place.base),
            "__kvm_nvhe___hyp_vmemmap",
        );
        let leaves = &hyp.walk.entries;
        records::read(&mut self.memory, &place, leaves, ram, self.problems).map(Some)
    }

    /// Pools of table pages with their reference counts.
    fn pools(&mut self, hyp: Option<&Walked>, layout: &Layout) -> Result<Vec<Pool>, TargetError> {
        let found = variables::pools(&mut self.memory, self.kernel)?;
        let count = self.kernel.field("hyp_page.refcount");
        let mut pools = Vec::new();
        for (name, pages) in found {
            let refcounts = match (hyp, &layout.states, &count) {
                (Some(hyp), Some(states), Some(count)) => {
                    let place = records::Place {
                        base: self.record_base(hyp)?,
                        page_shift: hyp.regime.granule.shift(),
                        states,
                    };
                    let leaves = &hyp.walk.entries;
                    records::refcounts(&mut self.memory, &place, leaves, pages, count)?
                }
                _ => None,
            };
            self.fact(name, pages.to_string(), "hyp_pool");
            pools.push(Pool {
                name: name.to_owned(),
                pages,
                refcounts,
            });
        }
        Ok(pools)
    }

    fn regime(&mut self, meaning: &Meaning<'_>, walked: Walked) -> RegimeCapture {
        let Walked {
            name,
            side,
            regime,
            walk,
        } = walked;
        let problems = walk.problems.iter();
        self.problems
            .extend(problems.map(|problem| format!("{name}: {problem}")));
        let entries = walk.entries.into_iter();
        RegimeCapture {
            name,
            regime,
            tables: walk.tables,
            entries: entries.map(|entry| meaning.entry(side, entry)).collect(),
        }
    }
}
