//! What is told of the kernel itself: where it runs, what it was built as, which layout it has.

use super::variables::Variables;
use super::vms::names_data;
use super::{Linux, locate};
use crate::addr::Span;
use crate::hypervisor::layout::{Layout, States};
use crate::image::id_text;
use crate::image::kernel::{GUEST_RAM, NVHE};
use crate::model::{Hypervisor, HypervisorKind, Symbol, Symbols, View};

impl Linux<'_, '_> {
    /// PA − EL2's linear address, by the variable, or else by the vectors.
    pub(super) fn physvirt_offset(&mut self, variables: &Variables) -> Option<u64> {
        const VARIABLE: &str = "__kvm_nvhe_hyp_physvirt_offset";
        let by_vectors = self.location.hyp_offset;
        let by_vectors = by_vectors.map(|hyp| self.location.image_offset.wrapping_sub(hyp));
        // Zero until EL2 is set up.
        let stored = variables.physvirt_offset.filter(|offset| *offset != 0);
        if let (Some(stored), Some(by_vectors)) = (stored, by_vectors)
            && stored != by_vectors
        {
            self.problems.push(format!(
                "{VARIABLE} is {stored:#x}, but EL2's vectors run at an offset of {by_vectors:#x}"
            ));
        }
        let found = stored.or(by_vectors);
        if let Some(offset) = found {
            let source = match stored {
                Some(_) => format!("{VARIABLE} in {}", self.kernel.source()),
                None => self.location.source.clone(),
            };
            self.fact("physvirt offset", format!("{offset:#x}"), source);
        }
        found
    }

    /// The symbols where they run: the kernel's with its slide, the hypervisor's at EL2's addresses.
    pub(super) fn symbols(&mut self, variables: &Variables) -> Symbols {
        let list = self.kernel.symbols();
        let Some(base) = locate::linked_base(self.kernel) else {
            return Symbols::default();
        };
        let last = |symbol: &Symbol| symbol.address.checked_add(symbol.size.max(1));
        let end = match self.kernel.symbol("_end") {
            Some(end) => end.start,
            None => list.iter().rev().find_map(last).unwrap_or(base),
        };
        let linked = Span::new(base, end.saturating_sub(base));
        let image_offset = self.location.image_offset;
        let mut views = Vec::new();
        if let Some(physvirt) = self.memory.physvirt_offset {
            views.push(View {
                linked,
                offset: image_offset.wrapping_sub(physvirt),
                prefix: NVHE,
            });
        }
        if let Some(slide) = self.slide(variables) {
            self.note_slide(slide);
            views.push(View {
                linked,
                offset: slide,
                prefix: "",
            });
        }
        match views.is_empty() {
            true => Symbols::default(),
            false => Symbols::moved(list, views),
        }
    }

    /// Kernel VA − linked address: by the kernel's own variable, or by where EL1's vectors are.
    fn slide(&mut self, variables: &Variables) -> Option<u64> {
        if let Some(offset @ 1..) = variables.image_offset {
            return Some(offset.wrapping_add(self.location.image_offset));
        }
        let vectors = self.kernel.symbol("vectors").map(|vectors| vectors.start);
        let slides = self.cpus.iter().filter_map(|cpu| {
            let slide = cpu.registers.get("VBAR_EL1")?.wrapping_sub(vectors?);
            // Trampoline vectors are elsewhere, and then this is no multiple of what KASLR slides by.
            (slide % 0x1_0000 == 0).then_some(slide)
        });
        slides.min()
    }

    /// Names out of RAM have the addresses of a table that the kernel relocated when it started (until 7.0 dropped
    /// the table's base), so that a difference of 0 is not the slide.
    fn note_slide(&mut self, slide: u64) {
        let (value, source) = match (self.kernel.source(), slide) {
            (GUEST_RAM, 0) => (
                "unknown".to_owned(),
                "names from guest RAM may be relocated already; a file of the kernel tells",
            ),
            _ => (format!("{slide:#x}"), "kernel VA − linked address"),
        };
        self.fact("KASLR slide", value, source);
    }

    pub(super) fn note_kernel(&mut self, layout: &Layout) {
        let source = self.kernel.source().to_owned();
        let release = self
            .kernel
            .release()
            .unwrap_or("of unknown release")
            .to_owned();
        self.fact("kernel", format!("Linux {release}"), source.clone());
        if let Some(id) = self.kernel.build_id().map(id_text) {
            self.fact("build id", id, source.clone());
        }
        if let Some(base) = locate::linked_base(self.kernel) {
            let pa = self.memory.phys_of_linked(base);
            let source = self.location.source.clone();
            self.fact("kernel image", format!("{pa:#x}"), source);
        }
        let named = match names_data(self.kernel) {
            true => "functions and data",
            false => "functions",
        };
        self.fact("symbols", named.to_owned(), source);
        match self.kernel.types() {
            Ok(from) => {
                let from = from.to_owned();
                self.fact("types", "known".to_owned(), from);
            }
            Err(why) => {
                let why = format!("page states and variables are not known: {why}");
                self.problems.push(why);
            }
        }
        if let Some(name) = layout.owners.name() {
            self.fact(
                "owner encoding",
                name.to_owned(),
                "enum kvm_invalid_pte_type, enum pkvm_page_state",
            );
        }
        let count = self.cpus.len().to_string();
        self.fact("CPUs", count, "the target's threads");
    }

    pub(super) fn hypervisor(&self, layout: &Layout, found: bool) -> Hypervisor {
        let states = layout.states.as_ref();
        let mut hcrs = self.cpus.iter().map(|cpu| cpu.registers.get("HCR_EL2"));
        let hcr = hcrs.find_map(|hcr| hcr);
        let hcr = hcr.or_else(|| self.set_up.as_ref()?.hcr());
        let e2h = hcr.map(|hcr| hcr >> 34 & 1 != 0);
        Hypervisor {
            kind: match found {
                true => HypervisorKind::Pkvm,
                false => HypervisorKind::None,
            },
            release: self.kernel.release().map(str::to_owned),
            mode: e2h
                .filter(|_| found)
                .map(|e2h| if e2h { "hvhe" } else { "nvhe" }),
            page_state_in: states.map(States::name),
            owner_encoding: layout.owners.name(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypervisor::memory::Memory;
    use crate::hypervisor::pkvm::{locate::Location, regimes::Common};
    use crate::hypervisor::testing::{Machine, cpu};
    use crate::image::{Images, kernel::Kernel};
    use crate::model::Fact;

    const VECTORS: u64 = 0xffff_8000_8001_0800;

    /// A kernel of nothing but vectors.
    fn kernel(source: &str) -> Kernel {
        let named = |name: &str, address| Symbol {
            name: name.to_owned(),
            address,
            size: 0x800,
        };
        let symbols = vec![
            named("_text", VECTORS & !0xf_ffff),
            named("vectors", VECTORS),
        ];
        Kernel::new(source.to_owned(), symbols, Err("not given".to_owned()))
    }

    /// What is told of a kernel whose vectors run so far from where its names are.
    fn slide(kernel: &mut Kernel, moved: u64) -> Vec<Fact> {
        let mut machine = Machine::new();
        let mut linux = Linux {
            memory: Memory::new(&mut machine),
            kernel,
            location: Location {
                image_offset: 0,
                hyp_offset: None,
                source: String::new(),
            },
            set_up: None,
            common: Common::default(),
            facts: Vec::new(),
            problems: &mut Vec::new(),
            cpus: &mut vec![cpu(0, &[("VBAR_EL1", VECTORS + moved)])],
        };
        linux.symbols(&Variables::default());
        linux.facts
    }

    #[test]
    fn names_that_were_relocated_do_not_tell_the_slide() {
        for (source, moved, value) in [
            ("vmlinux", 0x1234_0000, "0x12340000"),
            ("vmlinux", 0, "0x0"),
            (GUEST_RAM, 0x1234_0000, "0x12340000"),
            (GUEST_RAM, 0, "unknown"),
        ] {
            let mut kernel = kernel(source);
            let live = slide(&mut kernel, moved);
            let [fact] = &live[..] else {
                panic!("{live:?}");
            };
            assert_eq!((&fact.what[..], &fact.value[..]), ("KASLR slide", value));
            assert_eq!(fact.source.contains("relocated"), value == "unknown");

            let mut images = Images::default();
            images.set_kernel(kernel);
            let notes = images.notes().expect("a kernel");
            let mut saved = Images::default();
            saved.recall(&notes).expect("sound notes");
            let kernel = saved.kernel().expect("it was remembered");
            assert_eq!(slide(kernel, moved), live, "{source} in a snapshot");
        }
    }
}
