//! Who owns a page and who shares it, as the page tables say it (layout profile A).
//!
//! A side that has a page mapped keeps its state in software bits 56:55 of its leaf. A page the host may not use
//! is an invalid entry of the host's stage 2 that carries the owner's id in bits 9:2. Nothing at all, the zero
//! word, means that the host owns the page exclusively and has not touched it yet.

use crate::desc::Prot;

/// The state of a page from the view of the side whose leaf it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageState {
    /// Owned exclusively: software bits 00.
    Owned,
    /// Owned, and the other side may use it too: SW0.
    SharedOwned,
    /// The other side's; this one may use it: SW1.
    SharedBorrowed,
    /// Both bits: kept for lending, which does not exist yet. Nothing may be done with such a page.
    Reserved,
}

impl PageState {
    const BITS: Prot = Prot::SW0.union(Prot::SW1);

    /// The state `prot` carries.
    pub fn of(prot: Prot) -> Self {
        match (prot.contains(Prot::SW0), prot.contains(Prot::SW1)) {
            (false, false) => Self::Owned,
            (true, false) => Self::SharedOwned,
            (false, true) => Self::SharedBorrowed,
            (true, true) => Self::Reserved,
        }
    }

    /// `prot` with this state instead of the one it carries; everything else stays.
    pub fn mark(self, prot: Prot) -> Prot {
        let bits = match self {
            Self::Owned => Prot::NONE,
            Self::SharedOwned => Prot::SW0,
            Self::SharedBorrowed => Prot::SW1,
            Self::Reserved => Self::BITS,
        };
        prot.without(Self::BITS) | bits
    }
}

/// Who owns a page the host's stage 2 does not map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum OwnerId {
    /// The host: no annotation.
    Host = 0,
    /// hyp itself (the series' `pkvm_hyp_id`).
    Hyp = 1,
}

/// Where page states and owners are kept, so that a debugger need not guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Profile {
    /// State in software bits 56:55 of the leaves, owner id in bits 9:2 of invalid entries.
    A = b'A',
}
