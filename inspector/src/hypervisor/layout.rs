//! Where page state and owners stand in a hypervisor's descriptors and page records.

use crate::image::kernel::Field;
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
    /// Whether bit 10 of an invalid descriptor is a software lock, which is held while a descriptor is replaced in tables
    /// that several CPUs walk.
    pub(super) lock_bit: bool,
}

/// Where page state is kept, for each side by itself: it moved in steps.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
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

impl Layout {
    /// Layout A, which is hyp's: Linux 5.15, "KVM: arm64: Track shared pages at EL2 in protected mode".
    pub(super) fn a() -> Self {
        Self {
            states: Some(States::default()),
            owners: OwnerEncoding::Low,
            parties: vec![(0, Owner::Host), (1, Owner::Hyp)],
            ffa: false,
            lock_bit: false,
        }
    }

    /// Who lends what the host borrows, where it can be one party only.
    pub(super) fn only_lender(&self) -> Option<Owner> {
        let mut others = self
            .parties
            .iter()
            .filter(|(_, party)| *party != Owner::Host);
        match (others.next(), others.next()) {
            (Some((_, party)), None) => Some(*party),
            _ => None,
        }
    }
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
