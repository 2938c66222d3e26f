//! Hypercalls of the host: what they are called, and which argument is a page.

use super::Call;
use super::difference::sides;
use super::trap::HOST_STAGE2;
use crate::addr::Span;
use crate::model::System;
use crate::target::Registers;

/// What a hypercall's number begins with: a fast 64-bit call of the hypervisor's vendor.
const HYPERCALL: u64 = 0xc600_0000;

/// How many arguments of any hypercall are shown where it is not known how many it has.
const ARGUMENTS: usize = 4;

/// More pages than any hypercall is about; a wrong argument is no reason to look at more.
const MAX_PAGES: u64 = 512;

/// A hypercall about pages of the host, of which the first argument is the first page's frame number.
struct AboutPages {
    name: &'static str,
    /// How many arguments it has.
    arguments: usize,
    /// Which of them, from 1, is the number of pages; without it, it is one.
    count: Option<usize>,
}

/// hyp has the first of them, and Linux has each since its name is among the kernel's own. The third argument of
/// `__pkvm_host_share_guest` is the number of pages in 7.3, and was the protection, at most 7, when it was about one
/// page: of such a kernel some pages more are told of than changed.
#[rustfmt::skip]
const ABOUT_PAGES: [AboutPages; 4] = [
    AboutPages { name: "__pkvm_host_share_hyp", arguments: 1, count: None },
    AboutPages { name: "__pkvm_host_unshare_hyp", arguments: 1, count: None },
    AboutPages { name: "__pkvm_host_donate_guest", arguments: 2, count: None },
    AboutPages { name: "__pkvm_host_share_guest", arguments: 4, count: Some(3) },
];

/// What is called by `x0`, and its name. Calls of PSCI, for example, are none of the hypervisor's own: their numbers stay
/// whole.
pub(super) fn named(system: &System, x0: u64) -> (u64, Option<&String>) {
    match x0 & !0xffff == HYPERCALL {
        true => (x0 & 0xffff, system.hypercalls.get(&(x0 & 0xffff))),
        false => (x0, None),
    }
}

/// The hypercall that a CPU at the entry makes.
pub(super) fn call(before: &System, registers: &Registers) -> Call {
    let argument = |number: usize| registers.get(&format!("x{number}")).unwrap_or(0);
    let (id, name) = named(before, argument(0));
    let mut about = ABOUT_PAGES.iter();
    let about = about.find(|about| name.is_some_and(|name| name == about.name));
    let span = about.and_then(|about| {
        let size = page_size(before);
        let count = about.count.map_or(1, argument).clamp(1, MAX_PAGES);
        let start = argument(1).checked_mul(size)?;
        Some(Span::new(start, count * size))
    });
    Call {
        id,
        name: name.cloned(),
        arguments: (1..=about.map_or(ARGUMENTS, |about| about.arguments))
            .map(argument)
            .collect(),
        status: None,
        result: None,
        pages: span.map_or_else(Vec::new, |span| sides(&before.owners, &[], span)),
    }
}

/// The host's granule, in bytes.
fn page_size(system: &System) -> u64 {
    let mut regimes = system.regimes.iter();
    let host = regimes.find(|regime| regime.name == HOST_STAGE2);
    host.map_or(4096, |host| host.regime.granule.bytes())
}

impl Call {
    /// Takes in what the hypercall returned, and the states of its pages afterwards.
    pub(super) fn returned(&mut self, before: &System, after: &System, registers: &Registers) {
        self.status = registers.get("x0");
        self.result = registers.get("x1").map(|x1| x1 as i64);
        let first = self.pages.first().map(|first| first.pa.start);
        let last = self.pages.last().map(|last| last.pa.start + last.pa.size);
        if let (Some(first), Some(end)) = (first, last) {
            let span = Span::new(first, end - first);
            self.pages = sides(&before.owners, &after.owners, span);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing::{RAM, guests};
    use crate::model::{HypervisorKind, State};

    /// A call of pKVM's, on a capture with guests.
    fn called(name: &str, arguments: &[u64]) -> (System, Call) {
        let mut system = guests();
        assert_eq!(system.hypervisor.kind, HypervisorKind::Pkvm);
        system.hypercalls.insert(32, name.to_owned());
        let words = [&[HYPERCALL | 32], arguments].concat();
        let registers = words.iter().enumerate();
        let registers = registers.map(|(number, word)| (format!("x{number}"), *word));
        let call = call(&system, &Registers(registers.collect()));
        (system, call)
    }

    fn spans(call: &Call) -> Vec<(u64, u64)> {
        let spans = call.pages.iter().map(|page| (page.pa.start, page.pa.size));
        spans.collect()
    }

    #[test]
    fn all_pages_of_a_range_are_told() {
        let pfn = RAM >> 12;
        let (before, mut call) = called("__pkvm_host_share_guest", &[pfn, 0x8_0000, 2, 7]);
        assert_eq!(call.arguments, [pfn, 0x8_0000, 2, 7]);
        assert_eq!(spans(&call), [(RAM, 0x2000)]);
        let mut after = before.clone();
        let shared = after.owners[0].clip(Span::new(RAM, 0x1000)).unwrap();
        after.owners[0] = after.owners[0]
            .clip(Span::new(RAM + 0x1000, before.owners[0].pa.size - 0x1000))
            .unwrap();
        after.owners.insert(
            0,
            crate::model::OwnerRange {
                host: Some(State::SharedOwned),
                ..shared
            },
        );
        let registers = [("x0".to_owned(), 0), ("x1".to_owned(), -1_i64 as u64)];
        call.returned(&before, &after, &Registers(registers.into()));
        assert_eq!((call.status, call.result), (Some(0), Some(-1)));
        assert_eq!(spans(&call), [(RAM, 0x1000), (RAM + 0x1000, 0x1000)]);
        let states = call.pages.iter().map(|page| {
            let host = |side: &Option<crate::model::OwnerRange>| side.as_ref().unwrap().host;
            (host(&page.before), host(&page.after))
        });
        let (owned, shared) = (Some(State::Owned), Some(State::SharedOwned));
        assert_eq!(
            states.collect::<Vec<_>>(),
            [(owned, shared), (owned, owned)]
        );
    }

    #[test]
    fn wrong_arguments_are_no_reason_to_look_at_more() {
        for (arguments, pages) in [
            // Of no pages, and of more than there are.
            ([RAM >> 12, 0, 0, 7], vec![(RAM, 0x1000)]),
            ([0, 0, u64::MAX, 7], vec![(0, MAX_PAGES * 0x1000)]),
            // The address of this page frame does not fit 64 bits.
            ([u64::MAX, 0, 1, 7], vec![]),
        ] {
            let (_, call) = called("__pkvm_host_share_guest", &arguments);
            assert_eq!(spans(&call), pages, "{arguments:x?}");
        }
        let (_, call) = called("__kvm_vcpu_run", &[1, 2, 3, 4]);
        assert_eq!((call.pages, call.arguments.len()), (vec![], ARGUMENTS));
    }
}
