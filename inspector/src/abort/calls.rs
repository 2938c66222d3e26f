//! Hypercalls of the host: what they are called, and which argument is a page.

use super::{Call, OwnerChange, trap};
use crate::addr::Span;
use crate::model::System;
use crate::target::Registers;

/// What a hypercall's number begins with: a fast 64-bit call of the hypervisor's vendor.
const HYPERCALL: u64 = 0xc600_0000;

/// How many arguments of any hypercall are shown where it is not known how many it has.
const ARGUMENTS: usize = 4;

/// Hypercalls about pages: the function, how many arguments it has, and which of them is the page's frame number, from 1.
/// hyp has the first of them, and Linux has each since its name is among the kernel's own.
const ABOUT_PAGES: [(&str, usize, usize); 4] = [
    ("__pkvm_host_share_hyp", 1, 1),
    ("__pkvm_host_unshare_hyp", 1, 1),
    ("__pkvm_host_donate_guest", 2, 1),
    ("__pkvm_host_share_guest", 4, 1),
];

/// The hypercall that a CPU at the entry makes.
pub(super) fn call(before: &System, registers: &Registers) -> Call {
    let argument = |number: usize| registers.get(&format!("x{number}")).unwrap_or(0);
    // Others are calls of PSCI, for example: their numbers stay whole, and are none of the hypervisor's own.
    let (id, name) = match argument(0) {
        number if number & !0xffff == HYPERCALL => {
            let id = number & 0xffff;
            (id, before.hypercalls.get(&id).cloned())
        }
        number => (number, None),
    };
    let about = ABOUT_PAGES.iter();
    let about = about
        .copied()
        .find(|(function, ..)| name.as_deref() == Some(*function));
    let host = before
        .regimes
        .iter()
        .find(|regime| regime.name == "host-s2");
    let size = host.map_or(4096, |host| host.regime.granule.bytes());
    let page = about.and_then(|(.., page)| argument(page).checked_mul(size));
    let page = page.map(|pa| OwnerChange {
        pa: Span::new(pa, size),
        before: trap::page(before, pa, size),
        after: None,
    });
    Call {
        id,
        name,
        arguments: (1..=about.map_or(ARGUMENTS, |(_, arguments, _)| arguments))
            .map(argument)
            .collect(),
        status: None,
        result: None,
        pages: page.into_iter().collect(),
    }
}
