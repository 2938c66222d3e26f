//! Which layout this kernel's hypervisor has: decided by the members, symbols and enumerators it has, never by a version.

use crate::image::kernel::{Field, Kernel};
use crate::model::Owner;

/// Everything about a layout that reading it needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    /// Where page state is; `None` where the kernel's types are not known.
    pub(super) states: Option<States>,
    /// How an invalid descriptor names an owner.
    pub(super) owners: OwnerEncoding,
    /// `PKVM_ID_HYP` and so on, by id.
    pub(super) parties: Vec<(u64, Owner)>,
    /// Whether the host may share with the secure world, which keeps no state here.
    pub(super) ffa: bool,
}

/// Where page state is kept, for each side by itself: it moved in steps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct States {
    /// The host's, in page records; `None`: in software bits of its leaves.
    pub(super) host: Option<Field>,
    /// The hypervisor's, likewise.
    pub(super) hyp: Option<HypState>,
    /// How many guests a page is lent to, in page records.
    pub(super) share_count: Option<Field>,
    /// Bytes of a page record.
    pub(super) record_size: u64,
}

/// The hypervisor's state in page records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct HypState {
    pub(super) field: Field,
    /// Kept so that a record of zeros means that the hypervisor does not have the page.
    pub(super) complemented: bool,
}

/// How an invalid descriptor of the host's tables names an owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum OwnerEncoding {
    /// Owner id in bits 63:56, until Linux 5.14.
    High,
    /// Owner id in bits 9:2, since "KVM: arm64: Don't overwrite software bits with owner id" (5.15).
    Low,
    /// Type in bits 63:60, since `enum kvm_invalid_pte_type` (7.x: guests' handle and frame number).
    Typed,
    /// The kernel's types are not known: whichever form a word has.
    Unknown,
}

impl OwnerEncoding {
    /// The contract's word for it.
    pub(super) fn name(self) -> Option<&'static str> {
        match self {
            Self::High => Some("63:56"),
            Self::Low => Some("9:2"),
            Self::Typed => Some("63:60"),
            Self::Unknown => None,
        }
    }
}

impl States {
    /// The contract's word for where the host's state is.
    pub(super) fn name(&self) -> &'static str {
        match self.host {
            Some(_) => "vmemmap",
            None => "descriptor",
        }
    }

    /// Whether page records say anything.
    pub(super) fn in_records(&self) -> bool {
        self.host.is_some() || self.hyp.is_some()
    }
}

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
