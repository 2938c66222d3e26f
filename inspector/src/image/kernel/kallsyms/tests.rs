//! An encoder of its own for each form of the table, and the decoder against it.

use super::*;
use proptest::prelude::*;

/// Where a kernel of tests is linked.
const BASE: u64 = 0xffff_8000_8000_0000;
/// Where its table stands in it.
const AT: usize = 0x2_0000;

/// How a kernel writes its table.
#[derive(Clone, Copy, Debug)]
pub(in crate::image::kernel) struct Form {
    pub(in crate::image::kernel) order: Order,
    /// An order of the names by text stands between markers and tokens.
    pub(in crate::image::kernel) seqs: bool,
    /// Lengths from 0x80 on have two bytes.
    pub(in crate::image::kernel) big: bool,
    /// The alignment of each part in bytes.
    pub(in crate::image::kernel) align: usize,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub(in crate::image::kernel) enum Order {
    /// Offsets and base stand first (until 6.3).
    AddressesFirst,
    /// They stand last (from 6.4 on).
    AddressesLast,
    /// They stand last and count from their own places (from 7.0 on).
    Places,
}

pub(in crate::image::kernel) const FORMS: [Form; 5] = {
    use Order::{AddressesFirst, AddressesLast, Places};
    [
        Form {
            order: AddressesFirst,
            seqs: false,
            big: false,
            align: 8,
        },
        Form {
            order: AddressesFirst,
            seqs: false,
            big: true,
            align: 8,
        },
        Form {
            order: AddressesFirst,
            seqs: true,
            big: true,
            align: 8,
        },
        Form {
            order: AddressesLast,
            seqs: false,
            big: true,
            align: 8,
        },
        Form {
            order: Places,
            seqs: false,
            big: true,
            align: 4,
        },
    ]
};

/// A kernel of which only the table is there: names with their kinds and their positions, which rise.
pub(in crate::image::kernel) fn kernel(form: Form, names: &[(u64, String)]) -> Vec<u8> {
    let tokens: Vec<String> = (0..=255_u8)
        .map(|token| match token {
            0..0x20 => format!("{}_", char::from(b'a' + token % 26)),
            0x20..0x7f => char::from(token).to_string(),
            0x7f => String::new(),
            _ => format!("sym{token}"),
        })
        .collect();
    let mut bytes = vec![0xa5; AT];
    let offsets = |bytes: &mut Vec<u8>| {
        let here = bytes.len() as u64;
        for (index, (position, _)) in names.iter().enumerate() {
            let offset = match form.order {
                Order::Places => position.wrapping_sub(here + 4 * index as u64),
                _ => *position,
            };
            bytes.extend((offset as u32).to_le_bytes());
        }
        if form.order != Order::Places {
            pad(bytes, form.align);
            bytes.extend(BASE.to_le_bytes());
        }
    };
    if form.order == Order::AddressesFirst {
        offsets(&mut bytes);
    }
    bytes.extend((names.len() as u32).to_le_bytes());
    pad(&mut bytes, form.align);
    let start = bytes.len();
    let mut markers = Vec::new();
    for (index, (_, name)) in names.iter().enumerate() {
        if index % 256 == 0 {
            markers.push((bytes.len() - start) as u32);
        }
        let packed = pack(name, &tokens);
        if form.big && packed.len() >= 0x80 {
            bytes.push(packed.len() as u8 | 0x80);
            bytes.push((packed.len() >> 7) as u8);
        } else {
            bytes.push(u8::try_from(packed.len()).expect("a short name"));
        }
        bytes.extend(packed);
    }
    pad(&mut bytes, form.align);
    bytes.extend(markers.iter().flat_map(|marker| marker.to_le_bytes()));
    pad(&mut bytes, form.align);
    if form.seqs {
        bytes.extend(
            (0..names.len() as u32).flat_map(|n| [(n >> 16) as u8, (n >> 8) as u8, n as u8]),
        );
        pad(&mut bytes, form.align);
    }
    let mut index = Vec::new();
    let table = bytes.len();
    for token in &tokens {
        index.extend(((bytes.len() - table) as u16).to_le_bytes());
        bytes.extend(token.bytes());
        bytes.push(0);
    }
    pad(&mut bytes, form.align);
    bytes.extend(index);
    pad(&mut bytes, form.align);
    if form.order != Order::AddressesFirst {
        offsets(&mut bytes);
    }
    bytes.extend([0x5a; 64]);
    bytes
}

fn pad(bytes: &mut Vec<u8>, align: usize) {
    bytes.resize(bytes.len().next_multiple_of(align), 0);
}

/// The longest token first.
fn pack(name: &str, tokens: &[String]) -> Vec<u8> {
    let mut packed = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let matching = (0..=255_u8).filter(|&n| {
            let token = &tokens[usize::from(n)];
            !token.is_empty() && rest.starts_with(token.as_str())
        });
        let best = matching
            .max_by_key(|&n| tokens[usize::from(n)].len())
            .expect("printable");
        packed.push(best);
        rest = &rest[tokens[usize::from(best)].len()..];
    }
    packed
}

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
            let found = decoded(&kernel(form, names)).expect("a table");
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
        let mut bytes = kernel(form, &names);
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
    let found = decoded(&kernel(FORMS[3], &names)).expect("a table");
    assert_eq!(found.symbols.len(), 597);
    assert_eq!(found.symbols[3].name, "name_6");
}

#[test]
fn names_at_one_address_have_one_size_and_the_last_has_none() {
    let mut names = numbered("T");
    names[7].0 = names[6].0;
    let found = decoded(&kernel(FORMS[0], &names)).expect("a table");
    assert_eq!([6, 7].map(|n| found.symbols[n].size), [0x2000; 2]);
    assert_eq!(found.symbols[599].size, 0);
}

#[test]
fn digits_that_are_no_table_are_passed_over() {
    let digits: Vec<u8> = (b'0'..=b'9').flat_map(|digit| [digit, 0]).collect();
    let mut bytes = kernel(FORMS[1], &numbered("T"));
    bytes[0x100..0x114].copy_from_slice(&digits);
    assert!(decoded(&bytes).is_some());
    assert!(Tokens::find(&bytes[..AT], 0).is_none());
}
