//! Stories made by hand, for tests of views and of their users, and a machine to follow traps on.

mod machine;

pub(crate) use machine::Machine;

use super::*;
use crate::abort::choice::choose;
use crate::abort::difference::{Tables, written};
use crate::arch::walk::Table;
use crate::model::testing::{RAM, system};
use crate::model::{JointOwner, System};
use crate::target::Registers;

pub(crate) fn place(pc: u64, symbol: &str) -> Place {
    Place {
        pc,
        symbol: Some(symbol.to_owned()),
    }
}

/// The capture with more RAM, and with the tables of hyp's pages and of a hole of 2 MiB.
pub(crate) fn before() -> System {
    let mut system = system();
    system.ram = vec![Span::new(RAM, 64 << 20)];
    let host = &mut system.regimes[0];
    host.tables[0].words[1] = 0x4031_2003;
    let table = |pa, level, ia, parent| Table {
        pa,
        level,
        ia,
        parent: Some(parent),
        words: vec![0; 512],
    };
    let mut pages = table(0x4031_3000, 3, 0x4020_0000, 0x4031_2000);
    // The two pages of hyp's.
    pages.words[0x110..0x112].fill(4);
    host.tables.push(table(0x4031_2000, 2, RAM, 0x4031_0000));
    host.tables[1].words[1] = 0x4031_3003;
    host.tables.push(pages);
    system
}

/// The story of an abort at `ipa`, up to the look-up.
fn begun(ipa: u64, esr: u64) -> Story {
    let registers = [
        ("ESR_EL2", esr),
        ("FAR_EL2", ipa),
        ("HPFAR_EL2", ipa >> 12 << 4),
    ];
    let registers = registers.map(|(name, value)| (name.to_owned(), value));
    let registers = Registers(registers.into());
    let fault = trap::fault(&before(), &registers).expect("an abort");
    let entry = place(0x40_4020_0400, "hyp_vectors+0x400");
    let lookup = place(0x40_4020_0c00, "get_leaf");
    let tickets = Tickets { owner: 5, next: 7 };
    let step = |stage, place: Option<&Place>, text: &str| Step {
        stage,
        place: place.cloned(),
        text: text.to_owned(),
        lock: None,
    };
    Story {
        cpu: 1,
        host: place(0x4100_0888, "host_touch+0x8"),
        from: 1,
        esr,
        cause: Cause::Abort(Box::new(fault)),
        steps: vec![
            step(Stage::Trap, Some(&entry), "data abort from a lower level"),
            Step {
                lock: Some(LockStep {
                    name: "host".to_owned(),
                    tickets,
                    holder: Some(1),
                }),
                ..step(
                    Stage::Lock,
                    None,
                    "takes the lock host with ticket 5, after CPU 2",
                )
            },
            step(
                Stage::LookUp,
                Some(&lookup),
                "finds a hole of 2M at level 2",
            ),
        ],
        writes: Vec::new(),
        changes: Changes::default(),
        outcome: Outcome::GaveUp { branch: None },
        after: Some(place(0x4100_0888, "host_touch+0x8")),
        instructions: Some(42),
        road: Road {
            entry: Some(entry),
            functions: vec![lookup],
            missing: vec![Missing {
                function: "host_stage2_idmap_locked".to_owned(),
                reason: "no such symbol".to_owned(),
            }],
            writes: Comparison::UnderLock,
            ..Road::default()
        },
        problems: Vec::new(),
    }
}

/// A write that the host's first touch of RAM makes a block of.
pub(crate) fn mapped() -> Story {
    let ipa = RAM + 0x123_4560;
    let mut story = begun(ipa, 0x9200_0046);
    let before = before();
    let host = &before.regimes[0];
    let mut after = host.tables.clone();
    after[1].words[9] = 0x4120_07fd;
    let found = written(&Tables {
        name: "host-s2",
        regime: &host.regime,
        before: &host.tables,
        after: &after,
        meaning: [Some(host), None],
    });
    story.writes = found.writes;
    let leaf = Span::new(RAM + 0x120_0000, 2 << 20);
    if let Cause::Abort(fault) = &mut story.cause
        && let Some(choice) = &mut fault.choice
    {
        choice.seen = Some(leaf);
    }
    story.changes.counts.push(CountChange {
        pool: "host-pool".to_owned(),
        pa: 0x4031_2000,
        before: 3,
        after: 4,
    });
    story.changes.locks.push(LockChange {
        name: "host".to_owned(),
        before: Tickets { owner: 4, next: 5 },
        after: Tickets { owner: 6, next: 6 },
    });
    story.outcome = Outcome::Mapped { leaf, level: 2 };
    story
}

/// A read of the hypervisor's memory.
pub(crate) fn refused() -> Story {
    let mut story = begun(0x4031_0010, 0x9200_0007);
    story.outcome = Outcome::Refused {
        exception: Injected {
            vector: Some(0x200),
            esr: Some(0x9600_0010),
            far: Some(0x4031_0010),
            elr: Some(0x4100_0888),
        },
        branch: Some(Branch {
            at: place(0x40_4020_0c40, "get_leaf+0x40"),
            to: place(0x40_4020_0c44, "get_leaf+0x44"),
            taken: false,
            instruction: Some("cbz x8, 0x4040200c60".to_owned()),
            function: Some("host_stage2_idmap".to_owned()),
            source: Some("mem_protect.rs:197".to_owned()),
        }),
    };
    story.after = Some(place(0x4100_0200, "host_vectors+0x200"));
    story
}

/// A touch of a device that a branch gives up on.
pub(crate) fn gave_up() -> Story {
    let mut story = begun(0x0900_0000, 0x9200_0006);
    let branch = Branch {
        at: place(0x40_4020_0910, "handle_host_mem_abort+0x10"),
        to: place(0x40_4020_0940, "handle_host_mem_abort+0x40"),
        taken: true,
        instruction: Some("tbz x0, #0, 0x4040200940".to_owned()),
        function: None,
        source: Some("mem_protect.c:512".to_owned()),
    };
    story.outcome = Outcome::GaveUp {
        branch: Some(branch),
    };
    story
}

/// A touch of what another CPU has mapped meanwhile.
pub(crate) fn already_mapped() -> Story {
    let mut story = mapped();
    let leaf = Span::new(RAM + 0x120_0000, 2 << 20);
    story.writes.clear();
    story.changes.counts.clear();
    story.steps[2].text = "looks the leaf up: it is mapped by now, 2M at level 2".to_owned();
    if let Cause::Abort(fault) = &mut story.cause {
        fault.choice = None;
    }
    story.outcome = Outcome::AlreadyMapped {
        leaf: Some(leaf),
        by: Some(2),
    };
    story
}

/// A read of a device that the hypervisor does in the host's place.
pub(crate) fn emulated() -> Story {
    let mut story = begun(0x0800_0004, 0x9200_0007);
    story.outcome = Outcome::Emulated;
    story.after = Some(place(0x4100_088c, "host_touch+0xc"));
    story
}

/// A touch that the hypervisor does not survive.
pub(crate) fn panicked() -> Story {
    let mut story = begun(RAM + 0x123_4560, 0x9200_0046);
    let at = place(0x40_4020_0f00, "hyp_panic");
    story.steps.push(Step {
        stage: Stage::Return,
        place: Some(at.clone()),
        text: "panics".to_owned(),
        lock: None,
    });
    story.road.exit = Some(at.clone());
    story.outcome = Outcome::Panic { at };
    story.after = None;
    story
}

/// An abort after which the CPU goes on in a guest.
pub(crate) fn left() -> Story {
    let mut story = begun(RAM + 0x123_4560, 0x9200_0046);
    let to = Place {
        pc: 0x8020_0000,
        symbol: None,
    };
    story.after = Some(to.clone());
    story.outcome = Outcome::Left { to };
    story
}

/// A page that the host shares.
pub(crate) fn shared() -> Story {
    let mut story = begun(RAM, 0x9200_0046);
    story.esr = 0x5a00_0000;
    let page = before().owners[0]
        .clip(Span::new(RAM, 4096))
        .expect("it is RAM");
    let after = OwnerRange {
        host: Some(State::SharedOwned),
        hyp: Some(State::SharedBorrowed),
        owner: JointOwner::One(Owner::Host),
        ..page.clone()
    };
    story.cause = Cause::Call(Call {
        id: 16,
        name: Some("__pkvm_host_share_hyp".to_owned()),
        arguments: vec![RAM >> 12],
        status: Some(0),
        result: Some(0),
        pages: vec![OwnerChange {
            pa: page.pa,
            before: Some(page),
            after: Some(after),
        }],
    });
    story.outcome = Outcome::Returned;
    story
}

#[test]
fn what_is_at_an_address_is_told() {
    let at = |ipa| begun(ipa, 0x9200_0046).fault().expect("an abort").clone();
    let ram = at(RAM + 0x120_0000);
    assert!(matches!(ram.memory, Memory::Ram { region } if region.size == 64 << 20));
    let host = &before().regimes[0].regime;
    assert_eq!(
        ram.choice,
        Some(choose(host, RAM + 0x120_0000, 2, Span::new(RAM, 64 << 20)))
    );
    // Whose part: one of the host's tables.
    let Memory::Taken { section, .. } = at(0x4031_0010).memory else {
        panic!("it is hyp's");
    };
    assert_eq!(section.as_deref(), Some("tables of host-s2"));
    assert!(
        matches!(at(0x0900_0000).memory, Memory::Mmio { gap, owner: None } if gap == Span::new(0, RAM))
    );
    assert!(matches!(
        at(0x4031_0010).memory,
        Memory::Taken {
            owner: Owner::Hyp,
            ..
        }
    ));
    assert_eq!(at(1 << 40).memory, Memory::Beyond);
    // A permission fault leaves HPFAR_EL2 unknown.
    let unknown = begun(RAM, 0x9200_000f).fault().expect("an abort").clone();
    assert_eq!(
        (unknown.ipa, unknown.memory, unknown.walk),
        (None, Memory::Unknown, None)
    );
}

#[test]
fn what_is_injected_is_told_with_the_mark_of_linux() {
    let what = |esr| {
        let injected = Injected {
            vector: None,
            esr,
            far: None,
            elr: None,
        };
        injected.what()
    };
    // From EL1 and from EL0, as 7.x has them; an external abort, as hyp has it.
    for (esr, text) in [
        (
            0x97c0_8087,
            "data abort from this level: translation fault, level 3, read, marked as stage 2's",
        ),
        (
            0x9200_0087,
            "data abort from a lower level: translation fault, level 3, read, marked as stage 2's",
        ),
        (
            0x9600_0010,
            "data abort from this level: external abort, read",
        ),
    ] {
        assert_eq!(what(Some(esr)).as_deref(), Some(text));
    }
    assert_eq!(what(None), None);
}
