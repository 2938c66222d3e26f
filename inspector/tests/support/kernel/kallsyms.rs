//! The table of names of a kernel (kallsyms), as each form of it is written: an encoder that shares nothing with the decoder.

/// Where the kernel is linked.
pub(crate) const BASE: u64 = 0xffff_8000_8000_0000;

/// How a kernel writes its table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Form {
    pub(crate) order: Order,
    /// An order of the names by text stands between markers and tokens.
    pub(crate) seqs: bool,
    /// Lengths from 0x80 on have two bytes.
    pub(crate) big: bool,
    /// The alignment of each part in bytes.
    pub(crate) align: usize,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Order {
    /// Offsets and base stand first (until 6.3).
    AddressesFirst,
    /// They stand last (from 6.4 on).
    AddressesLast,
    /// They stand last and count from their own places (from 7.0 on).
    Places,
}

pub(crate) const FORMS: [Form; 5] = {
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

/// A kernel of which only the table is there, at a position: names with their kinds and their positions, which rise.
pub(crate) fn kernel(form: Form, at: usize, names: &[(u64, String)]) -> Vec<u8> {
    let tokens: Vec<String> = (0..=255_u8)
        .map(|token| match token {
            0..0x20 => format!("{}_", char::from(b'a' + token % 26)),
            0x20..0x7f => char::from(token).to_string(),
            0x7f => String::new(),
            _ => format!("sym{token}"),
        })
        .collect();
    let mut bytes = vec![0xa5; at];
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
