use super::*;
use crate::addr::Span;
use crate::model::testing::{self, RAM, guests, leaf, system, word};
use crate::model::{EntryKind, System};

/// One line a row, cells separated by one space.
fn text(table: &Table) -> String {
    table
        .rows
        .iter()
        .map(|row| {
            let cells: Vec<_> = row.iter().map(|cell| cell.text.as_str()).collect();
            cells.join(" ") + "\n"
        })
        .collect()
}

fn runs_text(system: &System, filter: &RunFilter) -> String {
    text(&runs_table(system, &runs(system, filter)))
}

#[test]
fn neighbours_that_say_the_same_merge() {
    assert_eq!(
        runs_text(&system(), &RunFilter::default()),
        "host-s2 0x40000000 8K page = IA rwx normal-wb owned host\n\
         host-s2 0x40002000 4K page = IA rwx normal-wb shared-owned host\n\
         host-s2 0x40310000 8K annotation - - - no-page hyp\n\
         hyp-s1 0x4040002000 4K page 0x40002000 rwx normal-wb shared-borrowed host\n\
         hyp-s1 0x4040310000 8K page 0x40310000 rwx normal-wb owned hyp\n"
    );
}

#[test]
fn every_table_has_a_cell_for_each_title() {
    let system = guests();
    let shared = page(&system, RAM + 0x2000);
    let tables = [
        runs_table(&system, &runs(&system, &RunFilter::default())),
        owners_table(&system.owners),
        page_facts(&system, &shared),
        page_states(&shared),
        mappings_table(&system, &shared),
        locks_table(&system),
        cpus_table(&system),
        calls_table(&system.cpus[1]),
        vms_table(&system),
        vcpus_table(&system),
        vm_table(&system, &system.vms[1]),
        registers_table(&system),
        info_table(&system),
    ];
    for table in tables {
        assert!(!table.rows.is_empty());
        for row in &table.rows {
            assert_eq!(row.len(), table.titles.len(), "{:?}", table.titles);
        }
    }
}

/// What each difference does to two neighbours that would merge otherwise.
#[test]
fn any_difference_keeps_neighbours_apart() {
    type Change = fn(&mut Entry);
    let changes: [(&str, Change); 10] = [
        ("gap in input", |e| e.leaf.ia += 0x1000),
        ("gap in output", |e| e.leaf.oa = Some(0x5000_0000)),
        ("level", |e| e.leaf.level = 2),
        ("kind", |e| e.kind = EntryKind::Block),
        ("attributes", |e| {
            e.leaf.attributes.as_mut().expect("a leaf").execute_el0 = false;
        }),
        ("software bits", |e| e.leaf.sw = 8),
        ("state", |e| e.state = Some(State::Reserved)),
        ("owner", |e| e.owner = Some(Owner::Hyp)),
        ("guest's address", |e| e.guest_ipa = Some(0)),
        ("problem", |e| e.leaf.problem = Some("odd".into())),
    ];
    for (what, change) in changes {
        let mut system = system();
        change(&mut system.regimes[0].entries[1]);
        let runs = runs(&system, &RunFilter::default());
        assert_eq!((runs[0].count, runs[0].size), (1, 0x1000), "{what}");
    }
}

#[test]
fn invalid_words_merge_without_an_output_address() {
    let mut system = system();
    system.regimes[0].entries = vec![
        word(RAM, EntryKind::Reserved, 1, None),
        word(RAM + 0x1000, EntryKind::Reserved, 1, None),
        word(RAM + 0x3000, EntryKind::Reserved, 1, None),
    ];
    let runs = runs(
        &system,
        &RunFilter {
            regime: Some("host-s2".to_owned()),
            ..RunFilter::default()
        },
    );
    assert_eq!(runs.iter().map(|run| run.count).collect::<Vec<_>>(), [2, 1]);
}

#[test]
fn a_run_at_the_top_of_the_address_space_ends_there() {
    let mut system = system();
    system.regimes.truncate(1);
    system.regimes[0].entries = vec![
        leaf(0, 0, State::Owned, Owner::Host),
        leaf(
            u64::MAX - 0xfff,
            u64::MAX - 0xfff,
            State::Owned,
            Owner::Host,
        ),
    ];
    let runs = runs(&system, &RunFilter::default());
    assert_eq!(runs.len(), 2);
    assert_eq!(runs[1].ia(&system).last(), Some(u64::MAX));
}

#[test]
fn filters_choose_entries_before_they_merge() {
    let all = RunFilter::default;
    let cases: [(RunFilter, &[(usize, usize)]); 8] = [
        (
            RunFilter {
                no_merge: true,
                regime: Some("hyp-s1".into()),
                ..all()
            },
            &[(0, 1), (1, 1), (2, 1)],
        ),
        (
            RunFilter {
                regime: Some("guest-s2:0x1".into()),
                ..all()
            },
            &[],
        ),
        (
            RunFilter {
                range: Some(Span::new(RAM + 0x1fff, 2)),
                ..all()
            },
            &[(1, 1), (2, 1)],
        ),
        // The annotation of 0x40310000 has no output address, but stands for that page.
        (
            RunFilter {
                pa: Some(Span::new(0x4031_0000, 1)),
                ..all()
            },
            &[(3, 1), (1, 1)],
        ),
        (
            RunFilter {
                owner: Some(Owner::Hyp),
                ..all()
            },
            &[(3, 2), (1, 2)],
        ),
        (
            RunFilter {
                state: Some(State::SharedBorrowed),
                ..all()
            },
            &[(0, 1)],
        ),
        (
            RunFilter {
                kind: Some(EntryKind::Annotation),
                ..all()
            },
            &[(3, 2)],
        ),
        (
            RunFilter {
                range: Some(Span::new(RAM, 0)),
                ..all()
            },
            &[],
        ),
    ];
    let system = system();
    for (filter, expected) in cases {
        let found: Vec<_> = runs(&system, &filter)
            .iter()
            .map(|run| (run.first, run.count))
            .collect();
        assert_eq!(found, expected, "{filter:?}");
    }
}

#[test]
fn owners_are_cut_to_the_range_asked_for() {
    let system = system();
    let filter = OwnerFilter {
        pa: Some(Span::new(RAM + 0x1fff, 0x1002)),
        owner: None,
    };
    assert_eq!(
        text(&owners_table(&owners(&system, &filter))),
        "0x40001000 4K host J1 owned no-page\n\
         0x40002000 4K host J2 shared-owned shared-borrowed\n\
         0x40003000 4K host J1 owned no-page\n"
    );
    let everything = OwnerFilter {
        pa: Some(Span::new(0, u64::MAX)),
        owner: None,
    };
    assert_eq!(owners(&system, &everything), system.owners);
    let filter = OwnerFilter {
        pa: None,
        owner: Some(JointOwner::One(Owner::Hyp)),
    };
    assert_eq!(owners(&system, &filter).len(), 1);
}

#[test]
fn guests_and_counts_have_columns_where_there_are_any() {
    let mut system = system();
    let range = &mut system.owners[1];
    range.refcount = Some(2);
    range.guests = vec![crate::model::GuestSide {
        handle: 0x1000,
        ipa: 0x8000_0000,
        state: State::SharedBorrowed,
    }];
    let table = owners_table(&system.owners);
    assert_eq!(table.titles[6..], ["GUESTS", "COUNT"]);
    let cells = |row: usize| {
        table.rows[row][6..]
            .iter()
            .map(|cell| cell.text.as_str())
            .collect::<Vec<_>>()
    };
    assert_eq!(cells(1), ["0x1000 at 0x80000000 shared-borrowed", "2"]);
    assert_eq!(cells(0), ["-", "-"]);
}

#[test]
fn a_page_shows_every_side_of_it() {
    let system = system();
    let table = page(&system, 0x4031_0abc);
    assert_eq!(
        text(&page_facts(&system, &table)),
        "pa 0x40310000..=0x40310fff\n\
         owner hyp\n\
         refcount 3 (host-pool)\n\
         table host-s2 level 1, for 0x0, root, 1 used\n\
         section pools\n"
    );
    assert_eq!(
        text(&page_states(&table)),
        "host no-page\nhyp owned\nrule J4\n"
    );
    assert_eq!(
        text(&mappings_table(&system, &table)),
        "host-s2 0x40310000 annotation 3 - - - hyp 0x4\n\
         hyp-s1 0x4040310000 page 3 rwx normal-wb 0x0 - 0x403107ff\n"
    );
    let lock = page(&system, 0x4030_8000);
    assert_eq!(lock.locks, [0]);
    assert!(lock.mappings.is_empty());
    let device = page(&system, 0x900_0000);
    assert_eq!(device.owner, None);
    assert_eq!(page_states(&device).rows, [] as [Row; 0]);
    assert_eq!(page(&system, u64::MAX).pa.last(), Some(u64::MAX));
}

/// The page that a protected guest lent back: the host's record says borrowed, its descriptor nothing.
#[test]
fn states_and_tables_are_two_layers() {
    let system = guests();
    let lent = page(&system, RAM + 0x20_2000);
    assert_eq!(
        text(&page_states(&lent)),
        "host shared-borrowed\nhyp no-page\n\
         guest:0x1001 shared-owned at 0x80002000\nrule J8\n"
    );
    assert_eq!(
        text(&mappings_table(&system, &lent)),
        "host-s2 0x40202000 page 3 rwx normal-wb 0x0 - 0x1000000402027ff\n\
         guest-s2:0x1001 0x80002000 page 3 rwx normal-wb 0x1 - 0x800000402027ff\n"
    );
    let headings = [&system, &testing::system()].map(states_heading);
    assert!(headings[0].contains("page records") && headings[1].contains("software bits"));
    let shared = page(&system, RAM + 0x2000);
    let facts = text(&page_facts(&system, &shared));
    assert!(facts.ends_with("refcount 1 (shares or pins)\n"), "{facts}");
}

#[test]
fn annotations_say_where_the_guest_sees_the_page() {
    let system = guests();
    let filter = RunFilter {
        kind: Some(EntryKind::Annotation),
        ..RunFilter::default()
    };
    assert_eq!(
        runs_text(&system, &filter),
        "host-s2 0x40200000 8K annotation - - - no-page guest:0x1001 at 0x80000000\n\
         guest-s2:0x1001 0x80003000 4K annotation - - - no-page poisoned\n"
    );
}

#[test]
fn vms_show_what_is_known_of_them() {
    let mut system = guests();
    assert_eq!(
        text(&vms_table(&system)),
        "0x1000 no created 1 1 0 B 0 B 4K 0 B 0x40360000\n\
         0x1001 yes created 2 2 8K 4K 0 B 4K 0x40370000\n\
         0x1002 - reserved - 0 - - - - -\n"
    );
    assert_eq!(
        text(&vcpus_table(&system)),
        "0x1000 0 0x40368000 -\n\
         0x1001 0 0x40378000 1\n\
         0x1001 1 0x40379000 -\n"
    );
    assert_eq!(
        text(&vm_table(&system, &system.vms[1])),
        "handle 0x1001\nstate created\nprotected yes\nVMID 2\npa 0x40370000\nroot 0x40350000\n\
         stage 2 guest-s2:0x1001, level 1, 40 bits, 1 tables\n\
         owned 8K\nshared 4K\nborrowed 0 B\npoisoned 4K\n\
         vCPU 0 loaded on CPU 1, at 0x40378000\n\
         vCPU 1 not loaded, at 0x40379000\n"
    );
    system.regimes.pop();
    let rows = text(&vm_table(&system, &system.vms[1]));
    assert!(
        rows.contains("stage 2 its tables were not captured\n"),
        "{rows}"
    );
}

#[test]
fn cpus_show_whose_stage_2_is_active_and_what_is_loaded() {
    let system = guests();
    assert_eq!(
        text(&cpus_table(&system)),
        "0 EL1 0x41000000 - host-s2 - 0x40310000 0x0\n\
         1 EL2 0x41000000 __guest_enter guest-s2:0x1001 0x1001:0 0x40310000 0x1\n"
    );
    assert_eq!(
        text(&calls_table(&system.cpus[1])),
        "0 0x41000000 __guest_enter arch/arm64/kvm/hyp/entry.S:71\n\
         1 inlined __activate_traps arch/arm64/kvm/hyp/nvhe/switch.c:45\n\
         2 0x4040201040 __kvm_vcpu_run+0x1c0 arch/arm64/kvm/hyp/nvhe/switch.c:289\n\
         3 0x4040202210 handle___kvm_vcpu_run+0x90 arch/arm64/kvm/hyp/nvhe/hyp-main.c:231\n\
         4 0x4040203330 - -\n"
    );
    let without = cpus_table(&testing::system());
    assert!(!without.titles.contains(&"VCPU"));
}

#[test]
fn a_page_inside_a_block_has_its_own_input_address() {
    let mut system = system();
    let block = &mut system.regimes[1].entries[0];
    block.leaf.size = 0x20_0000;
    block.kind = EntryKind::Block;
    let view = page(&system, RAM + 0x5000);
    assert_eq!(view.mappings.len(), 1);
    assert_eq!(view.mappings[0].ia, 0x40_4000_5000);
}

#[test]
fn locks_show_tickets_and_holder() {
    let mut system = system();
    system.locks[1].tickets = None;
    assert_eq!(
        text(&locks_table(&system)),
        "host 0x40308000 5 7 held 1 1 recorded host_mem_abort+0x40\n\
         hyp 0x40309000 - - unreadable - - - -\n"
    );
}

#[test]
fn what_is_inferred_is_told_with_its_reason() {
    let mut system = system();
    assert_eq!(inferred_table(&system), None);
    let holder = system.locks[0].holder.as_mut().expect("it is held");
    holder.by = Some("CPU 1 is at EL2 in map".to_owned());
    let table = inferred_table(&system).expect("there is one");
    assert_eq!(text(&table), "host 1 CPU 1 is at EL2 in map\n");
}

#[test]
fn registers_name_the_cpus_that_agree() {
    assert_eq!(
        text(&registers_table(&system())),
        "VTTBR_EL2 0x40310000 0-1\nESR_EL2 0x0 0\nESR_EL2 0x1 1\n"
    );
}

#[test]
fn problems_name_regime_and_address() {
    let mut system = system();
    system.problems.push("CPU 1 has no VTTBR_EL2".to_owned());
    system.regimes[0]
        .entries
        .push(word(0x4800_0000, EntryKind::Reserved, 1, None));
    assert_eq!(
        problems(&system),
        [
            "CPU 1 has no VTTBR_EL2",
            "host-s2 0x48000000, level 3, word at 0x40300008: does not look like a descriptor"
        ]
    );
}

#[test]
fn the_first_unreadable_table_stands_for_all_of_its_regime() {
    let mut system = system();
    for ia in [0x4800_0000, 0x4820_0000, 0x4840_0000] {
        let mut lost = word(ia, EntryKind::Unreadable, 1, None);
        lost.leaf.problem = Some("cannot be read".into());
        system.regimes[0].entries.push(lost);
    }
    assert_eq!(
        problems(&system),
        [
            "host-s2 0x48000000, level 3, word at 0x40300008: cannot be read; 2 more tables of host-s2 cannot be read"
        ]
    );
    let entries = &mut system.regimes[0].entries;
    entries.truncate(entries.len() - 2);
    assert_eq!(
        problems(&system),
        ["host-s2 0x48000000, level 3, word at 0x40300008: cannot be read"]
    );
}

#[test]
fn sizes_have_the_unit_that_divides_them() {
    for (bytes, text) in [
        (0, "0 B"),
        (3, "3 B"),
        (4096, "4K"),
        (0x20_1000, "2052K"),
        (1 << 30, "1G"),
        (3 << 40, "3T"),
    ] {
        assert_eq!(size_text(bytes), text);
    }
}

#[test]
fn a_walk_reads_the_captured_tables() {
    let mut system = system();
    let host = &mut system.regimes[0];
    host.tables[0].words = vec![0; 1024];
    host.tables[0].words[1] = 0x4031_2003;
    let hole = walk(&system, "host-s2", 0x8000_0000).expect("the regime is there");
    assert_eq!(hole.translation.steps.len(), 1);
    assert!(hole.entry.is_none());
    let lost = walk(&system, "host-s2", RAM + 0x2004).expect("the regime is there");
    let steps = walk_table(&lost.regime.regime, &lost.translation);
    assert_eq!(lost.translation.steps.len(), 2);
    assert_eq!(
        lost.entry.map(|entry| entry.state),
        Some(Some(State::SharedOwned))
    );
    let first: Vec<_> = steps.rows[0]
        .iter()
        .map(|cell| cell.text.as_str())
        .collect();
    assert_eq!(
        first,
        [
            "1",
            "0x40310008",
            "0x40312003",
            "[1]",
            "table",
            "to 0x40312000"
        ]
    );
    assert!(steps.rows.iter().any(|row| row[4].text == "unreadable"));
    assert!(walk(&system, "guest-s2:0x1", 0).is_none());
    let beyond = walk(&system, "host-s2", u64::MAX).expect("the regime is there");
    assert!(beyond.translation.steps.is_empty());
}
