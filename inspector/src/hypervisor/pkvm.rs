//! Linux's pKVM, from whatever tells its symbols and types, to a [`System`].
//!
//! The order of things: EL2's own tables by the registers; the kernel by the page its vectors lie in; its variables;
//! the host's tables; page records; guests; and then what all of them mean together.

mod calls;
mod facts;
mod gather;
mod hypercalls;
mod joint;
mod layout;
mod locate;
mod locks;
mod params;
mod records;
mod regimes;
mod tables;
mod variables;
mod vms;

pub(super) use records::Records;

use super::layout::Layout;
use super::meaning::Meaning;
use super::memory::Memory;
use super::panic_fact;
use crate::addr::Span;
use crate::image::kernel::{GUEST_RAM, Kernel};
use crate::image::{Images, id_text};
use crate::model::{Cpu, Fact, Pool, RegimeCapture, Symbols, System};
use crate::target::{Target, TargetError};
use gather::Leads;
use joint::{name_lenders, with_pages};
use locate::{Build, Location};
use params::SetUp;
use tables::Tables;
use variables::Variables;

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
    let common = regimes::Common::of_host(cpus, None);
    let known = tables::by_registers(
        regimes::hyp(cpus),
        regimes::host_by_registers(cpus),
        common,
        problems,
    );
    let (mut hyp, mut host) = first_tables(&mut memory, known, &mut facts)?;
    let vectors = memory.complete(|memory| locate::vector_pages(memory, cpus))?;
    let Some(location) = find(&mut memory, images, &vectors, &backed, problems)? else {
        return Ok(None);
    };
    let Some(kernel) = images.kernel() else {
        return Ok(None);
    };
    memory.image_offset = location.image_offset;
    let set_up = match regimes::are_known(cpus) {
        true => None,
        false => {
            let read = |memory: &mut Memory<'_>| params::read(memory, kernel, cpus.len(), problems);
            Some(memory.complete(read)?)
        }
    };
    if let Some(set_up) = &set_up {
        memory.per_cpu = set_up.per_cpu();
        facts.extend(set_up.fact());
        let common = common.with_id(set_up.id);
        let known = tables::by_registers(set_up.hyp(), set_up.host(), common, problems);
        (hyp, host) = first_tables(&mut memory, known, &mut facts)?;
        let running = |memory: &mut Memory<'_>| vms::running(memory, kernel, cpus);
        memory.in_guest = memory.complete(running)?;
        let root = kernel.symbol("swapper_pg_dir");
        let root = root.map(|root| memory.phys_of_linked(root.start));
        let known = root.zip(hyp.as_ref());
        memory.host = known.and_then(|(root, hyp)| set_up.host_stage1(root, &hyp.regime));
    }
    let mut linux = Linux {
        memory,
        kernel,
        location,
        set_up,
        common,
        facts,
        problems,
        cpus,
    };
    linux.capture(hyp, host, backed).map(Some)
}

/// Reads EL2's own tables and the host's, as far as these are known yet.
fn first_tables(
    memory: &mut Memory<'_>,
    (mut hyp, mut host): (Option<Tables>, Option<Tables>),
    facts: &mut Vec<Fact>,
) -> Result<(Option<Tables>, Option<Tables>), TargetError> {
    let both = hyp.iter_mut().chain(&mut host);
    tables::walk(both, &mut |spans| memory.target.read_phys(spans))?;
    if let Some(tables) = &hyp {
        facts.extend(tables.facts());
        if let Some(walk) = &tables.walk {
            memory.know_hyp(tables.regime.clone(), &walk.tables);
        }
    }
    Ok((hyp, host))
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
            let build = memory.complete(|memory| locate::compare(memory, kernel, &location))?;
            match build {
                Build::Same | Build::Unknown => return Ok(Some(location)),
                Build::Other(_) => {}
            }
        }
        let id = kernel.build_id().map_or_else(|| "none".to_owned(), id_text);
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
                id_text(running)
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
    /// What a stage 2 takes from CPUs.
    common: regimes::Common,
    facts: Vec<Fact>,
    problems: &'a mut Vec<String>,
    cpus: &'a mut Vec<Cpu>,
}

impl Linux<'_, '_> {
    fn capture(
        &mut self,
        hyp: Option<Tables>,
        host: Option<Tables>,
        backed: Vec<Span>,
    ) -> Result<System, TargetError> {
        let read = |memory: &mut Memory<'_>| variables::read(memory, self.kernel, self.cpus);
        let variables = self.memory.complete(read)?;
        self.memory.physvirt_offset = self.physvirt_offset(&variables);
        let symbols = self.symbols(&variables);
        let layout = layout::probe(self.kernel);
        self.note_kernel(&layout);
        let ram = self.ram(variables.ram.as_deref(), backed);
        self.common = regimes::Common::of_host(self.cpus, variables.host_hcr);
        if let Some(set_up) = &self.set_up {
            self.common = self.common.with_id(set_up.id);
        }
        let mut host = self.host_tables(variables.host.as_ref(), host);
        let leads = Leads {
            symbols: &symbols,
            ram: &ram,
            records: self.records(&variables, &layout, hyp.as_ref()),
            pools: variables.pools.iter().map(|(_, pages)| *pages).collect(),
        };
        let gathered = self.gather(&leads, &mut host)?;
        let page_records = leads.records.as_ref().and_then(records::Place::all);
        self.facts.extend(panic_fact(self.cpus));
        let regime = host.as_ref().map(|host| &host.regime);
        self.doubt_host(&variables, regime, hyp.is_some());
        let pools = self.pools(&variables, gathered.refcounts);
        let sections = variables::sections(&self.memory, self.kernel);
        let meaning = Meaning {
            layout: &layout,
            records: gathered.records.as_ref(),
            ram: &ram,
            page_shift: hyp.as_ref().map_or(12, |hyp| hyp.regime.granule.shift()),
        };
        let tables = host.into_iter().chain(hyp).chain(gathered.guests);
        let mut regimes: Vec<_> = tables.map(|tables| self.regime(&meaning, tables)).collect();
        let owners = self.owners(&layout, gathered.records, &regimes, &ram);
        name_lenders(&mut regimes, &owners);
        super::regimes::name_stage2(self.cpus, &regimes);
        self.name_stage2(&regimes);
        self.keep_names(&symbols)?;
        let locks = gathered.locks.locks(self.cpus, self.problems);
        let vms = with_pages(gathered.vms.vms, &regimes);
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
            vms,
            no_vms: gathered.vms.no_vms,
            locks,
            no_locks: gathered.no_locks,
            cpus: std::mem::take(self.cpus),
            pools,
            page_records,
            hypercalls: hypercalls::names(self.kernel),
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
                    (None, Some(offset)) => {
                        let pa = self.memory.complete(|memory| memory.phys_of_hyp(pc))?;
                        pa.map(|pa| pa.wrapping_sub(offset))
                    }
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

    fn ram(&mut self, listed: Option<&[Span]>, backed: Vec<Span>) -> Vec<Span> {
        let (ram, source) = match listed.filter(|ram| !ram.is_empty()) {
            Some(ram) => (ram.to_vec(), "__kvm_nvhe_hyp_memory"),
            None => (backed, "the target's memory map"),
        };
        for ram in &ram {
            self.fact("RAM", ram.to_string(), source);
        }
        ram
    }

    /// Where page records are: as the variable says, or where Linux puts them in EL2's address space.
    fn records<'t>(
        &mut self,
        variables: &Variables,
        layout: &'t Layout,
        hyp: Option<&'t Tables>,
    ) -> Option<records::Place<'t>> {
        let (Some(states), Some(Tables { regime, walk, .. })) = (&layout.states, hyp) else {
            return None;
        };
        let bits = regime.ia_bits;
        let base = match variables.records {
            Some(base @ 1..) => base,
            // Seen so on all kernels: the quarter below the private range's, with the private range from bit va − 2 on.
            _ => 1 << (bits - 2) | 1 << (bits - 3),
        };
        if states.in_records() {
            let base = format!("{base:#x}");
            self.fact("page records", base, "__kvm_nvhe___hyp_vmemmap");
        }
        Some(records::Place {
            base,
            page_shift: regime.granule.shift(),
            states,
            entries: walk.as_ref().map_or(&[], |walk| &walk.entries),
            refcount: self.kernel.field("hyp_page.refcount"),
        })
    }

    /// Pools of table pages with their reference counts.
    fn pools(&mut self, variables: &Variables, refcounts: Vec<Option<Vec<u16>>>) -> Vec<Pool> {
        let mut refcounts = refcounts.into_iter();
        let mut pools = Vec::new();
        for &(name, pages) in &variables.pools {
            self.fact(name, pages.to_string(), "hyp_pool");
            pools.push(Pool {
                name: name.to_owned(),
                pages,
                refcounts: refcounts.next().flatten(),
            });
        }
        pools
    }

    fn regime(&mut self, meaning: &Meaning<'_>, tables: Tables) -> RegimeCapture {
        let Tables {
            name,
            side,
            regime,
            walk,
            ..
        } = tables;
        let walk = walk.unwrap_or_default();
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
