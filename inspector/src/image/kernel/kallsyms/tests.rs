//! The encoder of each form of the table, and the decoder against it.

use super::*;
use crate::image::kernel::made::kallsyms::{BASE, FORMS, Order, kernel};
use proptest::prelude::*;

/// Where its table stands in it.
const AT: usize = 0x2_0000;

fn decoded(bytes: &[u8]) -> Option<Kallsyms> {
    let tokens = Tokens::find(bytes, 0)?;
    decode(&tokens, &mut |span| {
        let end = usize::try_from(span.start + span.size).expect("small");
        Ok(bytes.get(span.start as usize..end).map(<[u8]>::to_vec))
    })
    .expect("a slice is no link")
}

/// Names with their kinds at rising positions around the table, more than 256 of them.
fn names(longest: usize) -> impl Strategy<Value = Vec<(u64, String)>> {
    let text = prop::string::string_regex(&format!("[a-zA-Z_][a-z0-9_.]{{0,{longest}}}"));
    let name = (0_u64..3, "[TtDdBbRrWwVv]", text.expect("a pattern"));
    prop::collection::vec(name, 257..700).prop_map(|names| {
        let mut position = 0;
        let mut names: Vec<_> = names
            .into_iter()
            .map(|(step, kind, name)| {
                position += step * 16;
                (position, kind + &name)
            })
            .collect();
        // The last is far behind the table.
        names.push((0x20_0000, "B_end".to_owned()));
        names
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn every_form_is_read_back(names in names(40), long in names(200)) {
        for form in FORMS {
            let names = if form.big { &long } else { &names };
            let found = decoded(&kernel(form, AT, names)).expect("a table");
            let base = found.symbols[0].address - names[0].0;
            let read: Vec<_> = found.symbols.iter().map(|s| (s.address - base, s.name.as_str())).collect();
            let written: Vec<_> = names.iter().map(|(at, name)| (*at, &name[1..])).collect();
            prop_assert_eq!(read, written, "{:?}", form);
            prop_assert_eq!(base, BASE, "{:?}", form);
            prop_assert_eq!(found.offset.is_some(), form.order == Order::Places);
            for pair in found.symbols.windows(2).filter(|pair| pair[0].address < pair[1].address) {
                prop_assert_eq!(pair[0].size, pair[1].address - pair[0].address);
            }
        }
    }

    #[test]
    fn damage_is_survived(
        names in names(20),
        form in prop::sample::select(FORMS.to_vec()),
        damage in prop::collection::vec((AT..AT + 0x4000, any::<u8>()), 1..20),
        cut in AT..AT + 0x8000,
    ) {
        let mut bytes = kernel(form, AT, &names);
        for (at, value) in damage {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(cut);
        if let Some(found) = decoded(&bytes) {
            prop_assert!(found.symbols.len() <= names.len());
            prop_assert!(found.symbols.is_sorted_by_key(|symbol| symbol.address));
        }
    }
}

fn numbered(kind: &str) -> Vec<(u64, String)> {
    (0..600)
        .map(|n| (n * 0x1000, format!("{kind}name_{n}")))
        .collect()
}

#[test]
fn marks_and_kinds_that_name_nothing_are_left_out() {
    let mut names = numbered("t");
    names[3].1 = "t$x.5".to_owned();
    names[4].1 = "Aabsolute".to_owned();
    names[5].1 = "t".to_owned();
    let found = decoded(&kernel(FORMS[3], AT, &names)).expect("a table");
    assert_eq!(found.symbols.len(), 597);
    assert_eq!(found.symbols[3].name, "name_6");
}

#[test]
fn names_at_one_address_have_one_size_and_the_last_has_none() {
    let mut names = numbered("T");
    names[7].0 = names[6].0;
    let found = decoded(&kernel(FORMS[0], AT, &names)).expect("a table");
    assert_eq!([6, 7].map(|n| found.symbols[n].size), [0x2000; 2]);
    assert_eq!(found.symbols[599].size, 0);
}

#[test]
fn digits_that_are_no_table_are_passed_over() {
    let digits: Vec<u8> = (b'0'..=b'9').flat_map(|digit| [digit, 0]).collect();
    let mut bytes = kernel(FORMS[1], AT, &numbered("T"));
    bytes[0x100..0x114].copy_from_slice(&digits);
    assert!(decoded(&bytes).is_some());
    assert!(Tokens::find(&bytes[..AT], 0).is_none());
}
