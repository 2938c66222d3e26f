//! The same machine under a kernel that runs VMs: a protected one, loaded on CPU 1, which lent a page back; another one
//! that borrows a page of the host's; a third of which there is only the handle.

use super::{Fake, LINEAR, TEXT};
use crate::addr::Span;
use crate::arch::regime::{IdRegisters, Regime};
use crate::arch::walk::walk_all;
use crate::model::{
    Entry, EntryKind, Frame, GuestSide, HypervisorKind, JointOwner, Owner, OwnerRange,
    RegimeCapture, Source, State, System, Vcpu, Vm, VmPages, VmState,
};
use crate::target::Target;

const OTHER: u64 = 0x1000;
const PROTECTED: u64 = 0x1001;
const OTHER_ROOT: u64 = 0x4038_0000;
const PROTECTED_ROOT: u64 = 0x4039_0000;
/// Pages of the host's: donated to the protected VM, lent back by it, lent to the other VM.
const DONATED: Span = Span {
    start: 0x4900_0000,
    size: 0x4000,
};
const LENT_BACK: u64 = 0x4900_4000;
const LENT: u64 = 0x4800_0000;
const POISONED: u64 = 3 << 60;

impl Fake {
    /// Captures it with VMs.
    pub(in crate::tui) fn guests(&mut self) -> System {
        self.tables.extend([
            (OTHER_ROOT, OTHER_ROOT + 0x2000),
            (PROTECTED_ROOT, PROTECTED_ROOT + 0x2000),
        ]);
        self.map(OTHER_ROOT, 3, 0x8000_0000, 0x0100_0000_0000_07ff | LENT);
        for page in 0..4 {
            let offset = page << 12;
            let word = 0x7ff | (DONATED.start + offset);
            self.map(PROTECTED_ROOT, 3, 0x4000_0000 + offset, word);
            let tag = 0x2000_0000_0000_0014 | (0x4_0000 + page) << 20;
            self.map_host(3, DONATED.start + offset, tag);
        }
        let lent = 0x0080_0000_0000_07ff | LENT_BACK;
        self.map(PROTECTED_ROOT, 3, 0x4000_4000, lent);
        self.map(PROTECTED_ROOT, 3, 0x4000_5000, POISONED);
        self.map_host(3, LENT_BACK, 0x7ff | LENT_BACK);
        self.set(1, "VTTBR_EL2", 2 << 48 | PROTECTED_ROOT);

        let mut system = self.system();
        system.hypervisor.kind = HypervisorKind::Pkvm;
        system.hypervisor.page_state_in = Some("vmemmap");
        system.no_vms = None;
        for (handle, root) in [(OTHER, OTHER_ROOT), (PROTECTED, PROTECTED_ROOT)] {
            system.regimes.push(self.guest(handle, root));
        }
        tag_donated(&mut system);
        share(&mut system);
        system.vms = vms();
        let frame = |offset, symbol: &str| Frame {
            source: Some(Source {
                file: "hyp/src/abort.rs".to_owned(),
                line: 120,
            }),
            ..Frame::returning(LINEAR + TEXT + offset, Some(symbol.to_owned()))
        };
        let cpu = &mut system.cpus[1];
        cpu.stage2 = Some("guest-s2:0x1001".to_owned());
        cpu.vcpu = Some((PROTECTED, 0));
        cpu.calls = vec![
            Frame {
                inlined: true,
                ..frame(0x2f0, "host_stage2_idmap")
            },
            frame(0x2f0, "handle_host_mem_abort+0x1f0"),
            frame(0x80, "handle_trap+0x80"),
        ];
        system
    }

    fn guest(&mut self, handle: u64, root: u64) -> RegimeCapture {
        let regime = Regime::stage2_at(root, 0x8002_3558, 0, IdRegisters::default());
        let regime = regime.expect("sound registers");
        let walked = walk_all(&regime, &mut |spans| self.read_phys(spans));
        let walked = walked.expect("the link holds");
        let entry = |leaf: crate::arch::walk::Entry| {
            let (kind, state, owner) = match (leaf.raw, leaf.sw) {
                (POISONED, _) => (EntryKind::Annotation, State::NoPage, Owner::Poisoned),
                (_, 0) => (EntryKind::Page, State::Owned, Owner::Guest(handle)),
                (_, 1) => (EntryKind::Page, State::SharedOwned, Owner::Guest(handle)),
                _ => (EntryKind::Page, State::SharedBorrowed, Owner::Host),
            };
            Entry {
                leaf,
                kind,
                state: Some(state),
                owner: Some(owner),
                guest_ipa: None,
            }
        };
        RegimeCapture {
            name: format!("guest-s2:{handle:#x}"),
            regime,
            tables: walked.tables,
            entries: walked.entries.into_iter().map(entry).collect(),
        }
    }
}

/// The host's entries, as this kernel means them.
fn tag_donated(system: &mut System) {
    for entry in &mut system.regimes[0].entries {
        let ia = entry.leaf.ia;
        if DONATED.contains(ia) {
            entry.kind = EntryKind::Annotation;
            entry.state = Some(State::NoPage);
            entry.owner = Some(Owner::Guest(PROTECTED));
            entry.guest_ipa = Some(0x4000_0000 + ia - DONATED.start);
        } else if ia == LENT_BACK {
            entry.state = Some(State::SharedBorrowed);
            entry.owner = Some(Owner::Guest(PROTECTED));
        }
    }
}

fn share(system: &mut System) {
    let page = |start| Span::new(start, 0x1000);
    let sides = [
        (
            DONATED,
            PROTECTED,
            0x4000_0000,
            State::NoPage,
            State::Owned,
            None,
            "J7",
        ),
        (
            page(LENT_BACK),
            PROTECTED,
            0x4000_4000,
            State::SharedBorrowed,
            State::SharedOwned,
            None,
            "J8",
        ),
        (
            page(LENT),
            OTHER,
            0x8000_0000,
            State::SharedOwned,
            State::SharedBorrowed,
            Some(1),
            "J6",
        ),
    ];
    for (pa, handle, ipa, host, state, refcount, rule) in sides {
        let protected = handle == PROTECTED;
        let owner = if protected {
            Owner::Guest(handle)
        } else {
            Owner::Host
        };
        carve(
            &mut system.owners,
            OwnerRange {
                pa,
                owner: JointOwner::One(owner),
                host: Some(host),
                hyp: Some(State::NoPage),
                guests: vec![GuestSide { handle, ipa, state }],
                refcount,
                rule: Some(rule),
            },
        );
    }
}

/// Puts a range in the place of what was there.
fn carve(owners: &mut Vec<OwnerRange>, new: OwnerRange) {
    let (start, end) = (new.pa.start, new.pa.start + new.pa.size);
    let mut after = Vec::new();
    for range in owners.iter_mut() {
        let stop = range.pa.start + range.pa.size;
        if range.pa.start < end && stop > end {
            let mut rest = range.clone();
            rest.pa = Span::new(end, stop - end);
            after.push(rest);
        }
        if range.pa.start < start && stop > start {
            range.pa.size = start - range.pa.start;
        }
    }
    owners.retain(|range| range.pa.start < start || range.pa.start >= end);
    owners.push(new);
    owners.extend(after);
    owners.sort_by_key(|range| range.pa.start);
}

fn vms() -> Vec<Vm> {
    let vcpu = |number: u64, cpu| Vcpu {
        number,
        pa: Some(0x403b_0000 + (number << 12)),
        cpu,
    };
    let vm = |handle, protected, vmid: u64, vcpus, pages| Vm {
        handle,
        pa: Some(0x403a_0000 + (vmid << 12)),
        protected: Some(protected),
        state: VmState::Created,
        vmid: Some(vmid),
        vcpus,
        pages: Some(pages),
    };
    let other = VmPages {
        borrowed: 0x1000,
        ..VmPages::default()
    };
    let protected = VmPages {
        owned: 0x4000,
        shared: 0x1000,
        borrowed: 0,
        poisoned: 0x1000,
    };
    vec![
        vm(OTHER, false, 1, vec![vcpu(0, None)], other),
        vm(
            PROTECTED,
            true,
            2,
            vec![vcpu(0, Some(1)), vcpu(1, None)],
            protected,
        ),
        Vm {
            handle: 0x1002,
            pa: None,
            protected: None,
            state: VmState::Reserved,
            vmid: None,
            vcpus: Vec::new(),
            pages: None,
        },
    ]
}
