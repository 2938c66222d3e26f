use super::*;
use crate::tui::testing::Fake;
use proptest::prelude::*;

fn capture(fake: &mut Fake, before: Option<&Capture>) -> Capture {
    Capture::new(Arc::new(fake.system()), before, 1, Duration::ZERO)
}

/// Areas as lines, with what changed marked.
fn text(areas: &[Area]) -> String {
    let line = |area: &Area| {
        let mark = if area.changed { "* " } else { "" };
        format!("{mark}{} {}\n", area.span, area.class.name())
    };
    areas.iter().map(line).collect()
}

#[test]
fn each_space_is_cut_where_its_class_changes() {
    let capture = capture(&mut Fake::new(), None);
    assert_eq!(
        text(&capture.spaces[0].areas[..5]),
        "0x40000000..=0x4005ffff host, owned\n\
         0x40060000..=0x401fffff host, not mapped yet\n\
         0x40200000..=0x403fffff hyp, owned\n\
         0x40400000..=0x407fffff host, not mapped yet\n\
         0x40800000..=0x40801fff shared-borrowed\n"
    );
    assert_eq!(
        text(&capture.spaces[2].areas),
        "0x1000000000..=0x1000000fff mapped, not RAM\n\
         0x4040200000..=0x40403fffff hyp, owned\n\
         0x4040800000..=0x4040801fff shared-owned\n\
         0x4048003000..=0x4048006fff shared-borrowed\n\
         0x4048028000..=0x4048028fff shared-borrowed\n"
    );
    // RAM is covered without gaps, whichever way it is looked at.
    for space in &capture.spaces[..2] {
        let ram = space.within(Span::new(0x4000_0000, 512 << 20));
        assert_eq!(
            ram.map(|area| area.span.size).sum::<u64>(),
            512 << 20,
            "{}",
            space.name
        );
    }
    assert_eq!(capture.changes, Changes::default());
    assert_eq!(capture.faults, Vec::<String>::new());
}

#[test]
fn what_changed_is_marked_in_every_space_it_concerns() {
    let mut fake = Fake::new();
    let before = capture(&mut fake, None);
    fake.share(0x4800_9000);
    fake.lock(1, 9, 10, Some((0, 0)));
    fake.set(2, "x3", 77);
    let after = capture(&mut fake, Some(&before));
    let changed = |space: &Space| {
        let areas: Vec<_> = space
            .areas
            .iter()
            .filter(|area| area.changed)
            .copied()
            .collect();
        text(&areas)
    };
    assert_eq!(
        changed(&after.spaces[0]),
        "* 0x48009000..=0x48009fff shared-owned\n"
    );
    assert_eq!(
        changed(&after.spaces[1]),
        "* 0x48009000..=0x48009fff shared-owned\n"
    );
    assert_eq!(
        changed(&after.spaces[2]),
        "* 0x4048009000..=0x4048009fff shared-borrowed\n"
    );
    assert_eq!(after.changes.locks, [1].into());
    assert_eq!(after.changes.registers, [(2, "x3".to_owned())].into());
    assert!(after.changes.touch(0, Span::new(0x4800_0000, 0x20_0000)));
    assert!(!after.changes.touch(0, Span::new(0x4800_0000, 0x9000)));
    // Nothing happened between these two.
    let again = capture(&mut fake, Some(&after));
    assert!(
        again
            .spaces
            .iter()
            .all(|space| space.areas.iter().all(|area| !area.changed))
    );
}

#[test]
fn what_is_gone_leaves_a_marked_place() {
    let mut fake = Fake::new();
    let before = capture(&mut fake, None);
    fake.map_host(3, 0x0900_0000, 0);
    let after = capture(&mut fake, Some(&before));
    let area = after.spaces[1].within(Span::new(0x0900_0000, 1)).next();
    let expected = Area {
        span: Span::new(0x0900_0000, 0x1000),
        class: Class::Nothing,
        changed: true,
    };
    assert_eq!(area, Some(&expected));
}

#[test]
fn odd_descriptors_are_faults() {
    let mut fake = Fake::new();
    fake.map_host(3, 0x4800_1000, 0x4800_0001);
    fake.map_host(3, 0x4800_2000, 0x0180_0000_4800_27ff);
    let capture = capture(&mut fake, None);
    assert!(
        capture
            .faults
            .iter()
            .any(|fault| fault.starts_with("host-s2 at 0x48001000: "))
    );
    assert!(capture.faults.iter().all(|fault| !fault.contains('\n')));
    let problems = |space: &Space| {
        space
            .within(Span::new(0x4800_1000, 0x2000))
            .all(|area| area.class == Class::Problem)
    };
    assert!(problems(&capture.spaces[1]));
}

#[test]
fn addresses_lead_from_one_space_to_another() {
    let capture = capture(&mut Fake::new(), None);
    let (host, hyp) = (0, 1);
    assert_eq!(capture.translate(host, 0x4800_0123), Some(0x4800_0123));
    assert_eq!(capture.translate(hyp, 0x40_4020_0140), Some(0x4020_0140));
    // An annotation translates to nothing.
    assert_eq!(capture.translate(host, 0x4020_0000), None);
    assert_eq!(capture.input_of(hyp, 0x4020_0140), Some(0x40_4020_0140));
    assert_eq!(
        capture.resolve(0x40_4020_0140),
        (Some(0x4020_0140), Some((hyp, 0x40_4020_0140)))
    );
    assert_eq!(capture.resolve(0x5000_0000), (Some(0x5000_0000), None));
    assert_eq!(capture.resolve(0x1234), (None, None));
    assert_eq!(
        capture.symbol_at(0x40_4020_0140).as_deref(),
        Some("handle_host_mem_abort+0x40")
    );
}

/// Disjoint ranges in order, of pages below 64, each with a value.
fn ranges() -> impl Strategy<Value = Vec<(Span, u8)>> {
    prop::collection::btree_map(0..64_u64, (1..4_u64, 0..3_u8), 0..12).prop_map(|map| {
        let mut out: Vec<(Span, u8)> = Vec::new();
        for (start, (size, value)) in map {
            let end = out.last().map_or(0, |(span, _)| span.start + span.size);
            if start >= end {
                out.push((Span::new(start, size), value));
            }
        }
        out
    })
}

proptest! {
    #[test]
    fn differences_are_those_of_page_by_page(old in ranges(), new in ranges()) {
        let found = changes::difference(new.iter().copied(), old.iter().copied());
        let at = |side: &[(Span, u8)], page: u64| {
            side.iter().find(|(span, _)| span.contains(page)).map(|(_, value)| *value)
        };
        for page in 0..80 {
            let differs = at(&old, page) != at(&new, page);
            prop_assert_eq!(found.iter().any(|span| span.contains(page)), differs, "page {}", page);
        }
        for pair in found.windows(2) {
            prop_assert!(pair[0].start + pair[0].size < pair[1].start);
        }
    }

    #[test]
    fn marking_changes_no_class_and_marks_every_change(areas in ranges(), changes in ranges()) {
        let spans: Vec<_> = changes.iter().map(|(span, _)| *span).collect();
        let plain: Vec<_> = areas
            .iter()
            .map(|&(span, value)| Area {
                span,
                class: Class::ALL[usize::from(value) + 1],
                changed: false,
            })
            .collect();
        let marked = mark(plain.clone(), &spans);
        for page in 0..80 {
            let at = |areas: &[Area]| areas.iter().find(|area| area.span.contains(page)).copied();
            let changed = spans.iter().any(|span| span.contains(page));
            let expected = at(&plain).map(|area| (area.class, changed));
            let expected = expected.or(changed.then_some((Class::Nothing, true)));
            prop_assert_eq!(at(&marked).map(|area| (area.class, area.changed)), expected);
        }
        for pair in marked.windows(2) {
            prop_assert!(pair[0].span.start + pair[0].span.size <= pair[1].span.start);
        }
    }
}

/// Linux's hypervisor leaves such words in its fixmap; in the host's tables they stand for something unknown.
#[test]
fn an_invalid_word_of_hyp_itself_is_no_fault() {
    let system = crate::model::testing::system();
    let word = crate::model::testing::word(
        0x4000_0000,
        crate::model::EntryKind::Invalid,
        0x60_0000_429d_c402,
        None,
    );
    assert_eq!(
        areas::class_of_entry(&system, "hyp-s1", &word),
        Class::Nothing
    );
    assert_eq!(
        areas::class_of_entry(&system, "host-s2", &word),
        Class::Problem
    );
}
