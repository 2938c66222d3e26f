//! Tables, descriptions and variables that are not as they should be.

use super::*;

/// Damage to one word of a level-3 table: the row says so, and all other rows are as before.
#[test]
fn damage_is_marked_and_the_rest_is_shown() {
    let sound = Machine::new().capture(&mut Images::default());
    let slot = 0x4080_0000;
    let mut probe = Machine::new();
    probe.map(HOST_ROOT, slot, 1);
    let table = |ia: u64| {
        let first = probe.word(HOST_ROOT + (ia >> 30) * 8) & 0x0000_ffff_ffff_f000;
        first + (ia >> 21 & 0x1ff) * 8
    };
    for (word, kind) in [
        (table(slot) & !0xfff | 3, EntryKind::Loop),
        (0x7_0000_0003, EntryKind::Unreadable),
        (0x4080_0000 | 1 << 50 | 0x7fd, EntryKind::Block),
    ] {
        let mut machine = Machine::new();
        machine.put(table(slot), &u64::to_le_bytes(word));
        let system = machine.capture(&mut Images::default());
        let marked: Vec<_> = system.regimes[0]
            .entries
            .iter()
            .filter(|entry| entry.leaf.ia == slot)
            .collect();
        assert_eq!(
            marked.iter().map(|entry| entry.kind).collect::<Vec<_>>(),
            [kind],
            "{word:#x}"
        );
        assert_eq!(system.complete, kind == EntryKind::Block, "{word:#x}");
        let others: Vec<_> = system.regimes[0]
            .entries
            .iter()
            .filter(|entry| entry.leaf.ia != slot)
            .cloned()
            .collect();
        assert_eq!(others, sound.regimes[0].entries);
    }
    let mut machine = Machine::new();
    machine.map(HOST_ROOT, 0x4000_3000, 1);
    let system = machine.capture(&mut Images::default());
    assert_eq!(system.regimes[0].entries[4].kind, EntryKind::Reserved);
    assert!(!system.complete);
}

/// What stands in no row of the table of legal states has no rule.
#[test]
fn illegal_joint_states_have_no_rule() {
    let pa = 0x4000_3000;
    let host = |word: u64| (HOST_ROOT, pa, word);
    let hyp = |word: u64| (HYP_ROOT, LINEAR + pa, word);
    for (words, expected) in [
        // Both claim it.
        (
            vec![host(0x4000_37ff), hyp(0x0040_0000_4000_3743)],
            "conflict owned owned -",
        ),
        (vec![hyp(0x0040_0000_4000_3743)], "conflict owned owned -"),
        (
            vec![host(0x0080_0000_4000_37ff), hyp(0x00c0_0000_4000_3743)],
            "conflict shared-owned shared-owned -",
        ),
        // Neither does.
        (vec![host(4)], "none no-page no-page -"),
        (vec![host(8)], "none no-page no-page -"),
        (vec![host(1)], "none no-page no-page -"),
        (
            vec![host(0x0100_0000_4000_37ff), hyp(0x0140_0000_4000_3743)],
            "none shared-borrowed shared-borrowed -",
        ),
        // The annotation is another's.
        (
            vec![host(8), hyp(0x0040_0000_4000_3743)],
            "hyp no-page owned -",
        ),
        // Lent to nobody.
        (
            vec![host(0x0080_0000_4000_37ff)],
            "host shared-owned no-page -",
        ),
        (vec![host(0x0180_0000_4000_37ff)], "none reserved no-page -"),
        // hyp's leaf in the linear range maps another page.
        (vec![hyp(0x0040_0000_4000_4743)], "host owned no-page J1"),
    ] {
        let mut machine = Machine::new();
        for (root, ia, word) in words {
            machine.map(root, ia, word);
        }
        let system = machine.capture(&mut Images::default());
        let text = owners_text(&system);
        let line = text
            .lines()
            .find(|line| line.starts_with("0x40003000 "))
            .unwrap_or(&text);
        // The page may have merged with the rest of the host's.
        let states = line.splitn(3, ' ').nth(2);
        assert_eq!(states, Some(expected));
    }
}

#[test]
fn an_unreadable_table_makes_its_pages_unknown() {
    let mut machine = Machine::new();
    machine.put(HOST_ROOT + 8, &0x7_0000_0003_u64.to_le_bytes());
    let system = machine.capture(&mut Images::default());
    let unknown = system
        .owners
        .iter()
        .all(|range| range.owner == JointOwner::Unknown);
    assert!(unknown && !system.owners.is_empty());
    assert!(system.owners.iter().all(|range| range.rule.is_none()));
}

#[test]
fn descriptions_that_are_not_ours_are_refused() {
    for (text, message) in [
        ("", "EOF while parsing"),
        ("[]", "invalid"),
        (
            &description().replace("description/1", "description/2")[..],
            "its format is `hyp.description/2`",
        ),
        (
            &description().replace("0x40000000", "everywhere")[..],
            "`everywhere` is not an address",
        ),
    ] {
        let mut machine = Machine::new();
        machine.description = Some(text.to_owned());
        let system = machine.capture(&mut Images::default());
        assert_eq!(system.hypervisor.kind, HypervisorKind::None);
        assert!(
            system.problems[0].contains(message),
            "{:?}",
            system.problems
        );
    }
}

/// A description is the machine's word, and machines lie.
#[test]
fn absurd_sizes_end_in_a_sentence() {
    let mut machine = Machine::new();
    machine.description =
        Some(description().replace("\"pages\":16", "\"pages\":18446744073709551615"));
    let system = machine.capture(&mut Images::default());
    assert!(
        system
            .problems
            .iter()
            .any(|problem| problem.contains("too many to be true"))
    );
    let whole =
        r#"[{"base":"0x0","size":18446744073709551615},{"base":"0x40000000","size":16777216}]"#;
    machine.description =
        Some(description().replace(r#"[{"base":"0x40000000","size":16777216}]"#, whole));
    let system = machine.capture(&mut Images::default());
    assert_eq!(system.ram.len(), 1);
    let covered: u128 = system
        .owners
        .iter()
        .map(|range| u128::from(range.pa.size))
        .sum();
    assert_eq!(covered, u128::from(u64::MAX));

    let mut machine = Machine::new();
    machine.put(VAR + 0x18, &u64::MAX.to_le_bytes());
    let system = machine.capture(&mut images(&program()));
    assert!(
        system
            .problems
            .iter()
            .any(|problem| problem.contains("`HYP.regions` has 18446744073709551615 elements"))
    );
    assert_eq!(system.hypervisor.kind, HypervisorKind::Hyp);
}
