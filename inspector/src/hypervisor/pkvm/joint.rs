//! What all tables and records say together.

use super::Linux;
use super::records::Records;
use crate::addr::Span;
use crate::hypervisor::layout::Layout;
use crate::hypervisor::owners::{self, Claims, Said};
use crate::model::{
    Entry, EntryKind, GuestSide, JointOwner, Owner, OwnerRange, RegimeCapture, State, Vm, VmPages,
};

impl Linux<'_, '_> {
    /// The joint state of all RAM, once both sides have tables and types say where states are.
    pub(super) fn owners(
        &self,
        layout: &Layout,
        records: Option<Records>,
        regimes: &[RegimeCapture],
        ram: &[Span],
    ) -> Vec<OwnerRange> {
        let named = |name: &str| regimes.iter().find(|regime| regime.name == name);
        let (Some(states), Some(host), Some(hyp)) =
            (&layout.states, named("host-s2"), named("hyp-s1"))
        else {
            return Vec::new();
        };
        let records = records.unwrap_or_default();
        let offset = self.memory.physvirt_offset;
        let claims = Claims {
            host: match states.host {
                Some(_) => records.host,
                None => owners::host_states(host),
            },
            hyp: match (states.hyp, offset) {
                (Some(_), _) => records.hyp,
                (None, Some(offset)) => owners::hyp_states(hyp, offset),
                (None, None) => Vec::new(),
            },
            annotations: owners::annotations(host),
            read_only: read_only(host),
            counts: records.counts,
            guests: guest_sides(regimes),
            ffa: layout.ffa,
        };
        owners::joint(ram, claims)
    }
}

/// What the host can read and nothing else.
fn read_only(host: &RegimeCapture) -> Vec<Said<()>> {
    let leaves = host.entries.iter().filter(|entry| {
        let rights = entry.leaf.attributes;
        matches!(entry.kind, EntryKind::Block | EntryKind::Page)
            && rights.is_some_and(|rights| rights.read && !rights.write && !rights.execute)
    });
    leaves
        .map(|entry| Said {
            span: Span::new(entry.leaf.ia, entry.leaf.size),
            what: (),
        })
        .collect()
}

/// Counts what each VM's tables hold, where they could be read.
pub(super) fn with_pages(mut vms: Vec<Vm>, regimes: &[RegimeCapture]) -> Vec<Vm> {
    for vm in &mut vms {
        let name = vm.regime_name();
        let Some(tables) = regimes.iter().find(|regime| regime.name == name) else {
            continue;
        };
        let mut pages = VmPages::default();
        for entry in &tables.entries {
            let count = match (entry.state, entry.owner) {
                (_, Some(Owner::Poisoned)) => &mut pages.poisoned,
                (Some(State::Owned), _) => &mut pages.owned,
                (Some(State::SharedOwned), _) => &mut pages.shared,
                (Some(State::SharedBorrowed), _) => &mut pages.borrowed,
                _ => continue,
            };
            *count = count.saturating_add(entry.leaf.size);
        }
        vm.pages = Some(pages);
    }
    vms
}

/// The pages in the tables of the VMs that the hypervisor tracks.
fn guest_sides(regimes: &[RegimeCapture]) -> Vec<Said<GuestSide>> {
    let mut sides = Vec::new();
    for regime in regimes {
        let handle = regime.name.strip_prefix("guest-s2:0x");
        let Some(handle) = handle.and_then(|handle| u64::from_str_radix(handle, 16).ok()) else {
            continue;
        };
        let leaves = regime.entries.iter().filter_map(|entry| {
            let span = Span::new(entry.leaf.oa?, entry.leaf.size);
            let (ipa, state) = (entry.leaf.ia, entry.state?);
            let what = GuestSide { handle, ipa, state };
            matches!(entry.kind, EntryKind::Block | EntryKind::Page).then_some(Said { span, what })
        });
        sides.extend(leaves);
    }
    sides
}

/// Who lends what the host borrows, its own tables do not say; the joint state does.
pub(super) fn name_lenders(regimes: &mut [RegimeCapture], owners: &[OwnerRange]) {
    let host = regimes.iter_mut().filter(|regime| regime.name == "host-s2");
    let borrowed =
        |entry: &&mut Entry| entry.state == Some(State::SharedBorrowed) && entry.owner.is_none();
    for entry in host.flat_map(|regime| &mut regime.entries).filter(borrowed) {
        let span = Span::new(entry.leaf.ia, entry.leaf.size);
        let at = owners.partition_point(|range| range.pa.start <= span.start);
        let range = at.checked_sub(1).and_then(|at| owners.get(at));
        if let Some(range) = range.filter(|range| range.pa.covers(span))
            && let JointOwner::One(owner) = range.owner
        {
            entry.owner = Some(owner);
        }
    }
}
