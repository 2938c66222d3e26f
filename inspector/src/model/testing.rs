//! A small capture made by hand, for tests of views and of their users.

use crate::addr::Span;
use crate::arch::regime::{Granule, Regime, Stage};
use crate::arch::walk::{self, Attributes, Kind, Memory, Shareability};
use crate::model::*;
use crate::target::Registers;

pub(crate) const RAM: u64 = 0x4000_0000;

/// A regime of 4 KiB pages; `Stage::Two` has two concatenated roots.
pub(crate) fn regime(stage: Stage, root: u64) -> Regime {
    Regime {
        stage,
        root,
        root_pages: if stage == Stage::Two { 2 } else { 1 },
        start_level: 1,
        granule: Granule::Kib4,
        ia_bits: if stage == Stage::Two { 40 } else { 39 },
        oa_bits: 40,
        lpa2: false,
        mair: 0x04ff,
        fwb: false,
        xnx: false,
        sh0: 3,
        hd: false,
        wxn: false,
        hpd: false,
        problem: None,
    }
}

pub(crate) const RWX: Attributes = Attributes {
    read: true,
    write: true,
    execute: true,
    execute_el0: true,
    memory: Memory::NormalWb,
    shareability: Shareability::Inner,
    af: true,
    contiguous: false,
};

/// A leaf of 4 KiB.
pub(crate) fn leaf(ia: u64, oa: u64, state: State, owner: Owner) -> Entry {
    let sw = match state {
        State::SharedOwned => 1,
        State::SharedBorrowed => 2,
        _ => 0,
    };
    Entry {
        leaf: walk::Entry {
            ia,
            size: 4096,
            level: 3,
            kind: Kind::Page,
            raw: oa | 0x7ff | u64::from(sw) << 55,
            at: 0x4030_0000,
            oa: Some(oa),
            attributes: Some(RWX),
            sw,
            problem: None,
        },
        kind: EntryKind::Page,
        state: Some(state),
        owner: Some(owner),
        guest_ipa: None,
    }
}

/// An entry that is no leaf.
pub(crate) fn word(ia: u64, kind: EntryKind, raw: u64, owner: Option<Owner>) -> Entry {
    let problem = match kind {
        EntryKind::Annotation | EntryKind::Invalid => None,
        _ => Some("does not look like a descriptor".into()),
    };
    Entry {
        leaf: walk::Entry {
            ia,
            size: 4096,
            level: 3,
            kind: match kind {
                EntryKind::Reserved => Kind::Reserved,
                EntryKind::Loop => Kind::Loop,
                EntryKind::Unreadable => Kind::Unreadable,
                _ => Kind::Invalid,
            },
            raw,
            at: 0x4030_0008,
            oa: None,
            attributes: None,
            sw: 0,
            problem,
        },
        kind,
        state: (kind == EntryKind::Annotation).then_some(State::NoPage),
        owner,
        guest_ipa: None,
    }
}

/// Two CPUs; the host owns most of RAM, shares one page, and hyp keeps two; one lock is held.
pub(crate) fn system() -> System {
    System {
        complete: true,
        problems: Vec::new(),
        hypervisor: Hypervisor {
            kind: HypervisorKind::Hyp,
            release: Some("0.1.0".to_owned()),
            mode: Some("nvhe"),
            page_state_in: Some("descriptor"),
            owner_encoding: Some("9:2"),
        },
        facts: vec![Fact {
            what: "host-s2 root".to_owned(),
            value: "0x40310000".to_owned(),
            source: "VTTBR_EL2 of CPU 0".to_owned(),
        }],
        physvirt_offset: Some(0xffff_ffc0_0000_0000),
        ram: vec![Span::new(RAM, 0x40_0000)],
        regimes: regimes(),
        owners: owners(),
        locks: locks(),
        cpus: (0..2).map(cpu).collect(),
        page_records: None,
        hypercalls: [(16, "__pkvm_host_share_hyp".to_owned())].into(),
        pools: vec![Pool {
            name: "host-pool".to_owned(),
            pages: Span::new(0x4031_0000, 0x2000),
            refcounts: Some(vec![3, 0]),
        }],
        sections: vec![Section {
            name: "pools".to_owned(),
            pa: Span::new(0x4031_0000, 0x2000),
        }],
        vms: Vec::new(),
        no_vms: None,
        no_locks: None,
        symbols: Symbols::default(),
        run_state: None,
    }
}

fn regimes() -> Vec<RegimeCapture> {
    let hyp_va = |pa: u64| pa + 0x40_0000_0000;
    vec![
        RegimeCapture {
            name: "host-s2".to_owned(),
            regime: regime(Stage::Two, 0x4031_0000),
            tables: vec![walk::Table {
                pa: 0x4031_0000,
                level: 1,
                ia: 0,
                parent: None,
                words: vec![0, 3, 0],
            }],
            entries: vec![
                leaf(RAM, RAM, State::Owned, Owner::Host),
                leaf(RAM + 0x1000, RAM + 0x1000, State::Owned, Owner::Host),
                leaf(RAM + 0x2000, RAM + 0x2000, State::SharedOwned, Owner::Host),
                word(0x4031_0000, EntryKind::Annotation, 4, Some(Owner::Hyp)),
                word(0x4031_1000, EntryKind::Annotation, 4, Some(Owner::Hyp)),
            ],
        },
        RegimeCapture {
            name: "hyp-s1".to_owned(),
            regime: regime(Stage::One { e2h: false }, 0x4031_1000),
            tables: Vec::new(),
            entries: vec![
                leaf(
                    hyp_va(RAM + 0x2000),
                    RAM + 0x2000,
                    State::SharedBorrowed,
                    Owner::Host,
                ),
                leaf(hyp_va(0x4031_0000), 0x4031_0000, State::Owned, Owner::Hyp),
                leaf(hyp_va(0x4031_1000), 0x4031_1000, State::Owned, Owner::Hyp),
            ],
        },
    ]
}

fn owners() -> Vec<OwnerRange> {
    let owned = |start, size, owner, host, hyp, rule| OwnerRange {
        pa: Span::new(start, size),
        owner,
        host: Some(host),
        hyp: Some(hyp),
        guests: Vec::new(),
        refcount: None,
        rule,
    };
    let host = JointOwner::One(Owner::Host);
    let hyp = JointOwner::One(Owner::Hyp);
    vec![
        owned(RAM, 0x2000, host, State::Owned, State::NoPage, Some("J1")),
        owned(
            RAM + 0x2000,
            0x1000,
            host,
            State::SharedOwned,
            State::SharedBorrowed,
            Some("J2"),
        ),
        owned(
            RAM + 0x3000,
            0x30_d000,
            host,
            State::Owned,
            State::NoPage,
            Some("J1"),
        ),
        owned(
            0x4031_0000,
            0x2000,
            hyp,
            State::NoPage,
            State::Owned,
            Some("J4"),
        ),
        owned(
            0x4031_2000,
            0xe_e000,
            host,
            State::Owned,
            State::NoPage,
            Some("J1"),
        ),
    ]
}

fn locks() -> Vec<Lock> {
    vec![
        Lock {
            name: "host".to_owned(),
            symbol: "HYP.host.lock".to_owned(),
            pa: 0x4030_8000,
            tickets: Some(Tickets { owner: 5, next: 7 }),
            holder: Some(Holder {
                cpu: 1,
                how: HolderSource::Recorded,
                pc: Some(0x40_4020_1040),
                symbol: Some("host_mem_abort+0x40".to_owned()),
                by: None,
            }),
        },
        Lock {
            name: "hyp".to_owned(),
            symbol: "HYP.hyp.lock".to_owned(),
            pa: 0x4030_9000,
            tickets: Some(Tickets { owner: 9, next: 9 }),
            holder: None,
        },
    ]
}

/// One at EL1, one at EL2.
fn cpu(number: usize) -> Cpu {
    let el2 = u64::from(number == 1);
    let registers = [
        ("VTTBR_EL2", 0x4031_0000),
        ("ESR_EL2", number as u64),
        ("cpsr", 4 << el2),
        ("pc", 0x4100_0000),
    ];
    Cpu::new(
        number,
        Registers(
            registers
                .map(|(name, value)| (name.to_owned(), value))
                .into(),
        ),
    )
}

/// The VM that runs, and the one that borrows.
const PROTECTED: u64 = 0x1001;
const OTHER: u64 = 0x1000;
const GUEST: Owner = Owner::Guest(PROTECTED);
/// Two pages of the protected VM's own, one that it lent back, and one that the host lends.
const OWN: u64 = RAM + 0x20_0000;
const LENT: u64 = RAM + 0x20_2000;
const BORROWED: u64 = RAM + 0x2000;

/// The same on a kernel that keeps states in page records, with three VMs: a protected one that runs on CPU 1 and lent
/// a page back, another one that borrows a page of the host's, and one of which there is only the handle.
pub(crate) fn guests() -> System {
    let mut system = system();
    system.hypervisor = Hypervisor {
        kind: HypervisorKind::Pkvm,
        release: Some("7.3.0".to_owned()),
        mode: Some("nvhe"),
        page_state_in: Some("vmemmap"),
        owner_encoding: Some("63:60"),
    };
    let host = &mut system.regimes[0].entries;
    host.truncate(3);
    host.extend(taken_from_the_host());
    system.regimes.extend(guest_regimes());
    system.owners = guest_owners(&system.owners[0]);
    system.vms = guest_vms();
    system.cpus[0].stage2 = Some("host-s2".to_owned());
    enter_guest(&mut system.cpus[1]);
    system
}

/// Entries of the host's stage 2 where the protected VM has its memory.
fn taken_from_the_host() -> [Entry; 3] {
    let annotation = |pa: u64, ipa| Entry {
        guest_ipa: Some(ipa),
        ..word(
            pa,
            EntryKind::Annotation,
            0x2000_0040_0000_0014,
            Some(GUEST),
        )
    };
    let mut lent_back = leaf(LENT, LENT, State::SharedBorrowed, GUEST);
    // The record knows; the descriptor does not.
    lent_back.leaf.sw = 0;
    [
        annotation(OWN, 0x8000_0000),
        annotation(OWN + 0x1000, 0x8000_1000),
        lent_back,
    ]
}

fn guest_regimes() -> [RegimeCapture; 2] {
    let regime = |handle: u64, root, entries| RegimeCapture {
        name: format!("guest-s2:{handle:#x}"),
        regime: regime(Stage::Two, root),
        tables: vec![walk::Table {
            pa: root,
            level: 1,
            ia: 0,
            parent: None,
            words: vec![0, 0, 3],
        }],
        entries,
    };
    [
        regime(
            OTHER,
            0x4034_0000,
            vec![leaf(
                0x9000_0000,
                BORROWED,
                State::SharedBorrowed,
                Owner::Host,
            )],
        ),
        regime(
            PROTECTED,
            0x4035_0000,
            vec![
                leaf(0x8000_0000, OWN, State::Owned, GUEST),
                leaf(0x8000_1000, OWN + 0x1000, State::Owned, GUEST),
                leaf(0x8000_2000, LENT, State::SharedOwned, GUEST),
                word(
                    0x8000_3000,
                    EntryKind::Annotation,
                    3 << 60,
                    Some(Owner::Poisoned),
                ),
            ],
        ),
    ]
}

/// `host` is what RAM is that is the host's alone.
fn guest_owners(host: &OwnerRange) -> Vec<OwnerRange> {
    let side = |handle, ipa, state| GuestSide { handle, ipa, state };
    let range = |start, size, owner, by_host, at_guest, refcount, rule| OwnerRange {
        pa: Span::new(start, size),
        owner: JointOwner::One(owner),
        host: Some(by_host),
        hyp: Some(State::NoPage),
        guests: vec![at_guest],
        refcount,
        rule: Some(rule),
    };
    let rest = |start: u64, end: u64| OwnerRange {
        pa: Span::new(start, end - start),
        ..host.clone()
    };
    vec![
        rest(RAM, BORROWED),
        range(
            BORROWED,
            0x1000,
            Owner::Host,
            State::SharedOwned,
            side(OTHER, 0x9000_0000, State::SharedBorrowed),
            Some(1),
            "J6",
        ),
        rest(BORROWED + 0x1000, OWN),
        range(
            OWN,
            0x2000,
            GUEST,
            State::NoPage,
            side(PROTECTED, 0x8000_0000, State::Owned),
            None,
            "J7",
        ),
        range(
            LENT,
            0x1000,
            GUEST,
            State::SharedBorrowed,
            side(PROTECTED, 0x8000_2000, State::SharedOwned),
            None,
            "J8",
        ),
        rest(LENT + 0x1000, RAM + 0x40_0000),
    ]
}

fn guest_vms() -> Vec<Vm> {
    let vcpu = |number, pa, cpu| Vcpu {
        number,
        pa: Some(pa),
        cpu,
    };
    let pages = |owned, shared, borrowed, poisoned| VmPages {
        owned,
        shared,
        borrowed,
        poisoned,
    };
    vec![
        Vm {
            handle: OTHER,
            pa: Some(0x4036_0000),
            protected: Some(false),
            state: VmState::Created,
            vmid: Some(1),
            vcpus: vec![vcpu(0, 0x4036_8000, None)],
            pages: Some(pages(0, 0, 0x1000, 0)),
        },
        Vm {
            handle: PROTECTED,
            pa: Some(0x4037_0000),
            protected: Some(true),
            state: VmState::Created,
            vmid: Some(2),
            vcpus: vec![vcpu(0, 0x4037_8000, Some(1)), vcpu(1, 0x4037_9000, None)],
            pages: Some(pages(0x2000, 0x1000, 0, 0x1000)),
        },
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

/// The CPU is about to enter the protected VM.
fn enter_guest(cpu: &mut Cpu) {
    let frame = |pc, symbol: &str| Frame::returning(pc, Some(symbol.to_owned()));
    let source = |file: &str, line| Source {
        file: format!("arch/arm64/kvm/hyp/{file}"),
        line,
    };
    let at = |frame, source| Frame {
        source: Some(source),
        ..frame
    };
    cpu.stage2 = Some("guest-s2:0x1001".to_owned());
    cpu.vcpu = Some((PROTECTED, 0));
    cpu.symbol = Some("__guest_enter".to_owned());
    cpu.source = Some(source("entry.S", 71));
    let run = frame(0x40_4020_1040, "__kvm_vcpu_run+0x1c0");
    let inlined = Frame {
        symbol: Some("__activate_traps".to_owned()),
        source: Some(source("nvhe/switch.c", 45)),
        inlined: true,
        ..run.clone()
    };
    let handle = frame(0x40_4020_2210, "handle___kvm_vcpu_run+0x90");
    cpu.calls = vec![
        inlined,
        at(run, source("nvhe/switch.c", 289)),
        at(handle, source("nvhe/hyp-main.c", 231)),
        Frame::returning(0x40_4020_3330, None),
    ];
}
