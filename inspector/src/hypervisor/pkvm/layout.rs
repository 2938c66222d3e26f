//! Which layout this kernel's hypervisor has: decided by the members, symbols and enumerators it has, never by a version.

use crate::hypervisor::layout::{HypState, Layout, OwnerEncoding, States};
use crate::image::kernel::Kernel;
use crate::model::Owner;

/// Asks the kernel.
pub(super) fn probe(kernel: &mut Kernel) -> Layout {
    let known = kernel.types().is_ok();
    let parties = parties(kernel);
    Layout {
        states: known.then(|| states(kernel)),
        owners: owners(kernel, known),
        // Linux 6.7, "KVM: arm64: Add a handler to share memory with FF-A": the mailboxes.
        ffa: parties.iter().any(|(_, owner)| *owner == Owner::Ffa)
            || kernel.symbol("__kvm_nvhe_host_buffers").is_some(),
        // Linux 6.2, "KVM: arm64: Atomically update stage 2 leaf attributes in parallel walks". Nothing else has the bit.
        lock_bit: true,
        parties,
    }
}

fn states(kernel: &mut Kernel) -> States {
    // Linux 6.14, "KVM: arm64: Move host page ownership tracking to the hyp vmemmap"; a bit-field with underscores since
    // 6.16, "KVM: arm64: Introduce {get,set}_host_state() helpers".
    let host = ["hyp_page.__host_state", "hyp_page.host_state"];
    let host = host.iter().find_map(|path| kernel.field(path));
    // Linux 6.16, "KVM: arm64: Move hyp state to hyp_vmemmap".
    let complemented = kernel.field("hyp_page.__hyp_state_comp");
    let hyp = match complemented {
        Some(field) => Some(HypState {
            field,
            complemented: true,
        }),
        None => ["hyp_page.__hyp_state", "hyp_page.hyp_state"]
            .iter()
            .find_map(|path| kernel.field(path))
            .map(|field| HypState {
                field,
                complemented: false,
            }),
    };
    States {
        host,
        hyp,
        // Linux 6.14, "KVM: arm64: Introduce __pkvm_host_share_guest()".
        share_count: kernel.field("hyp_page.host_share_guest_count"),
        record_size: kernel.size_of("hyp_page").unwrap_or(0),
    }
}

fn owners(kernel: &mut Kernel, known: bool) -> OwnerEncoding {
    if kernel.enumerators("kvm_invalid_pte_type").is_some() {
        OwnerEncoding::Typed
    } else if kernel.enumerators("pkvm_page_state").is_some() {
        // Both came with 5.15's "Track shared pages at EL2 in protected mode".
        OwnerEncoding::Low
    } else if known {
        OwnerEncoding::High
    } else {
        OwnerEncoding::Unknown
    }
}

/// The owners by id; the enumeration grew and was put in another order.
fn parties(kernel: &mut Kernel) -> Vec<(u64, Owner)> {
    let Some(names) = kernel.enumerators("pkvm_component_id") else {
        // The only id there was before the enumeration (`pkvm_hyp_id`, until 6.1).
        return vec![(1, Owner::Hyp)];
    };
    let party = |name: &str| match name {
        "PKVM_ID_HOST" => Some(Owner::Host),
        "PKVM_ID_HYP" => Some(Owner::Hyp),
        "PKVM_ID_FFA" => Some(Owner::Ffa),
        // Which guest stands elsewhere in the word.
        "PKVM_ID_GUEST" => Some(Owner::Guest(0)),
        _ => None,
    };
    let known = names
        .iter()
        .filter_map(|(name, id)| Some((u64::try_from(*id).ok()?, party(name)?)));
    known.collect()
}
