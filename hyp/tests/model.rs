//! Random operations of several CPUs, compared with a model that knows nothing of tables: a map of pages.

mod common;

use std::collections::BTreeMap;

use common::{
    Contents, DATA, DEVICE, FREE, HOST_BSS, HOST_RODATA, MIB, Machine, OWN_DEVICES, Setup, TEXT,
    el2_page, host_page,
};
use hyp::abort::Outcome;
use hyp::addr::PAGE_SIZE;
use hyp::page_state::OwnerId;
use proptest::prelude::*;

/// Whose a page is and who else may use it; the model's whole knowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    Host,
    HostSharesWithHyp,
    HypSharesWithHost,
    Hyp,
    HypDevice,
    NotMemory,
}

#[derive(Clone, Copy, Debug)]
enum Operation {
    Touch {
        cpu: usize,
        page: u64,
    },
    Share {
        page: u64,
    },
    /// hyp takes a page of the host's for itself.
    Donate {
        page: u64,
    },
    Unknown {
        id: u64,
    },
}

/// Pages where something may go wrong: the edges of sections, banks and blocks, and free memory.
fn any_page() -> impl Strategy<Value = u64> {
    let edges = [
        TEXT,
        DATA,
        HOST_RODATA,
        HOST_BSS,
        FREE,
        FREE + 2 * MIB,
        0x4fff_f000,
        0x501f_f000,
        0x5020_0000,
        0x5060_0000,
        0x5068_7000,
        0x6000_3000,
        0x8000_0000,
        0x8020_0000,
        DEVICE,
        OWN_DEVICES[0],
        OWN_DEVICES[1],
        0x4000_0000,
        0x80_0000_0000,
    ];
    (prop::sample::select(edges.to_vec()), 0..6_u64)
        .prop_map(|(edge, page)| edge + page * PAGE_SIZE - 2 * PAGE_SIZE)
}

fn any_operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => (0..4_usize, any_page()).prop_map(|(cpu, page)| Operation::Touch { cpu, page }),
        4 => any_page().prop_map(|page| Operation::Share { page }),
        1 => any_page().prop_map(|page| Operation::Donate { page }),
        1 => (0..64_u64).prop_filter("known", |&id| id != 16).prop_map(|id| Operation::Unknown { id }),
    ]
}

struct Model {
    changed: BTreeMap<u64, Page>,
}

impl Model {
    fn page(&self, page: u64) -> Page {
        if let Some(&changed) = self.changed.get(&page) {
            return changed;
        }
        if OWN_DEVICES.contains(&page) {
            return Page::HypDevice;
        }
        if !common::RAM
            .iter()
            .any(|&(base, size)| (base..base + size).contains(&page))
        {
            return Page::NotMemory;
        }
        match page {
            HOST_RODATA..0x4100_5000 => Page::HypSharesWithHost,
            TEXT..0x4020_d000 | 0x4030_0000..0x4040_0000 => Page::Hyp,
            _ => Page::Host,
        }
    }
}

/// Performs `operation` on both and compares the answers.
fn apply(machine: &Machine, model: &mut Model, operation: Operation) {
    let before = machine.contents();
    let unchanged =
        |after: Contents| assert_eq!(after, before, "{operation:x?} failed and changed something");
    match operation {
        Operation::Touch { cpu, page } => {
            let outcome = machine.touch_on(cpu, page);
            if matches!(model.page(page), Page::Hyp | Page::HypDevice) {
                assert!(matches!(outcome, Outcome::Inject(_)));
                unchanged(machine.contents());
            } else {
                assert_eq!(outcome, Outcome::Resume);
                assert_ne!(machine.host(page).0 & 1, 0, "touched, but not mapped");
            }
        }
        Operation::Share { page } => {
            let expected = match model.page(page) {
                Page::Host | Page::HostSharesWithHyp => 0,
                Page::Hyp | Page::HypSharesWithHost => -1,
                Page::NotMemory | Page::HypDevice => -22,
            };
            assert_eq!(machine.share(page), expected);
            if model.page(page) == Page::Host {
                model.changed.insert(page, Page::HostSharesWithHyp);
            } else {
                unchanged(machine.contents());
            }
        }
        Operation::Donate { page } => {
            if model.page(page) == Page::Host {
                let cpu = machine.cpu();
                machine
                    .hyp
                    .pkvm_create_mappings(cpu, common::page(page), hyp::desc::Prot::RW)
                    .unwrap();
                let _host = machine.hyp.lock_host(cpu);
                machine
                    .hyp
                    .host_stage2_set_owner_locked(cpu, common::page(page), OwnerId::Hyp)
                    .unwrap();
                model.changed.insert(page, Page::Hyp);
            }
        }
        Operation::Unknown { id } => {
            assert_eq!(
                machine.hvc(0xc600_0000 | id, FREE >> 12),
                (u64::MAX, FREE >> 12)
            );
            unchanged(machine.contents());
        }
    }
}

/// Compares what both sides' descriptors say about `page` with the model.
fn compare(machine: &Machine, model: &Model, page: u64) {
    let (host, level) = machine.host(page);
    let el2 = || machine.el2(page).0;
    let size = 1_u64 << (12 + 9 * (3 - level));
    match model.page(page) {
        Page::Host => {
            let kind = if level == 3 { 0x7ff } else { 0x7fd };
            assert!(
                host == 0 || host == page & !(size - 1) | kind,
                "{page:#x}: {host:#x}"
            );
            assert_eq!(el2(), 0, "{page:#x}");
        }
        Page::HostSharesWithHyp => {
            assert_eq!(
                (host, el2()),
                (host_page(page, 1), el2_page(page, 2)),
                "{page:#x}"
            );
        }
        Page::HypSharesWithHost => {
            assert_eq!(
                (host, el2()),
                (host_page(page, 2), page | 0x00c0_0000_0000_07c3),
                "{page:#x}"
            );
        }
        Page::Hyp => {
            assert_eq!(host, 0x4, "{page:#x}");
            assert_eq!(el2() & 1, 1, "{page:#x}");
            assert_eq!(el2() & 3 << 55, 0, "{page:#x}");
        }
        Page::HypDevice => {
            let device = page | 0x0040_0000_0000_0747;
            assert_eq!((host, el2()), (0x4, device), "{page:#x}");
        }
        Page::NotMemory => {
            let kind = if level == 3 { 0x7ff } else { 0x7fd };
            assert!(
                host == 0 || host == page & !(size - 1) | 1 << 54 | kind,
                "{page:#x}: {host:#x}"
            );
            let block = common::range(page & !(size - 1), size);
            if host != 0 && level >= 2 {
                assert!(
                    block.pages().all(|pa| !machine.hyp.addr_is_memory(pa)),
                    "{block} has RAM"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tables_say_what_the_model_says(operations in prop::collection::vec(any_operation(), 1..80)) {
        let machine = Setup::with_own_devices().start();
        let mut model = Model { changed: BTreeMap::new() };
        for &operation in &operations {
            apply(&machine, &mut model, operation);
        }
        machine.check_host_tables();
        for operation in operations {
            if let Operation::Touch { page, .. } | Operation::Share { page } | Operation::Donate { page } = operation {
                for page in [page - PAGE_SIZE, page, page + PAGE_SIZE] {
                    compare(&machine, &model, page);
                }
            }
        }
        for page in machine.hyp.sections().iter().flat_map(|section| section.range.pages()) {
            compare(&machine, &model, page.get());
        }
    }
}
