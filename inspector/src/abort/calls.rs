//! Hypercalls of the host: their names, and which argument is a page.

use super::{Call, OwnerChange, trap};
use crate::addr::Span;
use crate::model::{HypervisorKind, System};
use crate::target::Registers;

/// What a hypercall's number begins with: a fast 64-bit call of the hypervisor's vendor.
const HYPERCALL: u64 = 0xc600_0000;

/// What is known of a hypercall.
struct Known {
    name: &'static str,
    /// How many arguments it has.
    arguments: usize,
    /// Which of them is a page frame number, from 1.
    page: Option<usize>,
}

/// hyp's hypercalls: number 16 is the only one.
const HYP: [(u64, Known); 1] = [(
    16,
    Known {
        name: "host_share_hyp",
        arguments: 1,
        page: Some(1),
    },
)];

/// The hypercall that a CPU at the entry makes.
pub(super) fn call(before: &System, registers: &Registers) -> Call {
    let argument = |number: usize| registers.get(&format!("x{number}")).unwrap_or(0);
    // Others are calls of PSCI, for example: their numbers stay whole.
    let id = match argument(0) {
        number if number & !0xffff == HYPERCALL => number & 0xffff,
        number => number,
    };
    let known: &[(u64, Known)] = match before.hypervisor.kind {
        HypervisorKind::Hyp => &HYP,
        HypervisorKind::Pkvm | HypervisorKind::None => &[],
    };
    let known = known.iter().find(|(number, _)| *number == id);
    let known = known.map(|(_, known)| known);
    let page = known.and_then(|known| argument(known.page?).checked_mul(4096));
    let page = page.map(|pa| OwnerChange {
        pa: Span::new(pa, 4096),
        before: trap::page(before, pa, 4096),
        after: None,
    });
    Call {
        id,
        name: known.map(|known| known.name.to_owned()),
        arguments: (1..=known.map_or(4, |known| known.arguments))
            .map(argument)
            .collect(),
        status: None,
        result: None,
        pages: page.into_iter().collect(),
    }
}
