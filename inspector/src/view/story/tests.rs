use super::*;
use crate::abort::testing::{gave_up, mapped, place, refused, shared};
use crate::abort::{Cause, Missing};

/// Headings and rows, cells two spaces apart.
fn text(story: &Story) -> String {
    let mut text = String::new();
    for (heading, table) in story_tables(story) {
        text.push_str(&format!("{heading}\n"));
        for row in &table.rows {
            assert_eq!(row.len(), table.titles.len(), "{heading}");
            let cells: Vec<_> = row.iter().map(|cell| cell.text.as_str()).collect();
            text.push_str(&format!("  {}\n", cells.join("  ")));
        }
    }
    text
}

#[track_caller]
fn has(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(
            text.lines().any(|known| known.trim() == *line),
            "`{line}` is not in\n{text}"
        );
    }
}

#[test]
fn a_mapping_is_told_with_its_range_its_word_and_its_locks() {
    let story = mapped();
    has(
        &text(&story),
        &[
            "CPU 1 at host_touch+0x8: data abort from a lower level: translation fault, level 2, write, IPA 0x41234560: mapped, 2M at 0x41200000",
            "IPA  0x41234560  RAM, in the region 0x40000000..=0x43ffffff",
            "walk of 0x41234560 in host-s2 before: hole",
            "1  0x40310008  0x40312003  [1]  table  to 0x40312000",
            "2  0x40312048  0x0  [9]  invalid",
            "range: 2M at 0x41200000, in the hole of 2M at level 2, in 0x40000000..=0x43ffffff",
            "2  0x41200000  2M  the largest that fits",
            "-  0x41200000  2M  seen",
            "lock  -  takes the lock host with ticket 5, after CPU 2",
            "words written, by what changed under the lock",
            "host-s2  2  0x41200000  0x40312048  0x0  0x412007fd  2M block rwx normal-wb  -  -",
            "count, host-pool  0x40312000  3  4",
            "lock, owner/next  host  4/5  6/6",
            "no stops  no such symbol  host_stage2_idmap_locked",
        ],
    );
    let row: Vec<_> = story_row(&story)
        .into_iter()
        .map(|cell| cell.text)
        .collect();
    assert_eq!(
        row,
        ["1", "host_touch+0x8", "0x41234560", "mapped", "2M", "42"]
    );
}

#[test]
fn a_range_that_the_rule_does_not_give_is_a_problem() {
    let mut story = mapped();
    if let Cause::Abort(fault) = &mut story.cause
        && let Some(choice) = &mut fault.choice
    {
        choice.seen = Some(Span::new(0x4000_0000, 1 << 30));
        let table = choice_table(choice);
        let last = table.rows.last().and_then(|row| row.last());
        assert_eq!(last.map(|cell| cell.role), Some(Role::Problem));
        let text = choice_text(choice);
        assert!(text.ends_with("; seen: 1G at 0x40000000"), "{text}");
    }
    assert_eq!(
        outcome_text(&story),
        "mapped, 1G at 0x40000000 in leaves of 2M"
    );
    let size = story_row(&story).into_iter().nth(4);
    assert_eq!(size.map(|cell| cell.text).as_deref(), Some("1G"));
}

/// S1PTW: the address that was translated is none of the page that was read.
#[test]
fn an_abort_on_the_hosts_own_walk_says_whose_address_it_is() {
    let mut story = mapped();
    has(&text(&story), &["FAR_EL2  0x41234560  virtual address"]);
    story.esr |= 1 << 7;
    let said = "FAR_EL2  0x41234560  virtual address, whose walk reads the IPA";
    has(&text(&story), &[said]);
}

#[test]
fn a_refusal_says_what_the_host_takes_and_whose_memory_it_was() {
    has(
        &text(&refused()),
        &[
            "IPA  0x40310010  memory of hyp: its tables of host-s2",
            "3  0x40313880  0x4  [272]  invalid  no-page of hyp",
            "page  0x40310000  owner hyp: host no-page, hyp owned",
            "refused  0x4040200c40  `cbz x8, 0x4040200c60` at get_leaf+0x40, not taken (host_stage2_idmap, mem_protect.rs:197)",
        ],
    );
    assert_eq!(
        outcome_text(&refused()),
        "refused, the host takes: data abort from this level: external abort, read, at VBAR_EL1 + 0x200"
    );
}

#[test]
fn every_outcome_is_a_clause() {
    let mut story = gave_up();
    assert_eq!(
        outcome_text(&story),
        "gave up, by `tbz x0, #0, 0x4040200940` at handle_host_mem_abort+0x10 (mem_protect.c:512)"
    );
    let leaf = Span::new(0x4120_0000, 4096);
    let at = place(0x40_4020_0f00, "hyp_panic");
    for (outcome, text) in [
        (
            Outcome::AlreadyMapped {
                leaf: Some(leaf),
                by: Some(2),
            },
            "already mapped by CPU 2, 4K at 0x41200000",
        ),
        (
            Outcome::AlreadyMapped {
                leaf: Some(leaf),
                by: None,
            },
            "already mapped by another CPU, 4K at 0x41200000",
        ),
        (
            Outcome::Emulated,
            "emulated, the host goes on behind the instruction",
        ),
        (
            Outcome::Panic { at: at.clone() },
            "the hypervisor panicked at hyp_panic",
        ),
        (Outcome::Left { to: at }, "left for hyp_panic"),
        (
            Outcome::GaveUp { branch: None },
            "gave up: back at the same instruction with nothing changed",
        ),
    ] {
        story.outcome = outcome;
        assert_eq!(outcome_text(&story), text);
    }
}

#[test]
fn a_hypercall_is_told_with_both_sides_of_its_page() {
    has(
        &text(&shared()),
        &[
            "CPU 1 at host_touch+0x8: __pkvm_host_share_hyp(0x40000): returned 0 in x0, 0 in x1",
            "page  0x40000000  owner host: host owned, hyp no-page → owner host: host shared-owned, hyp shared-borrowed",
        ],
    );
    let mut range = shared();
    if let Cause::Call(call) = &mut range.cause {
        call.pages[0].pa.size = 0x3000;
    }
    has(
        &text(&range),
        &[
            "pages  0x40000000  12K: owner host: host owned, hyp no-page → owner host: host shared-owned, hyp shared-borrowed",
        ],
    );
    let road = Road {
        missing: vec![Missing {
            function: "x".to_owned(),
            reason: "no room".to_owned(),
        }],
        ..Road::default()
    };
    assert_eq!(road_table(&road).rows.len(), 3);
}
