use super::*;
use gimli::write::{AttributeValue as Value, DwarfUnit, EndianVec, Sections, UnitEntryId};
use proptest::prelude::*;

const FUNCTION: u64 = 0xffff_8000_0810_0000;
const ATTRIBUTE: [gimli::DwAt; 3] = [
    gimli::DW_AT_byte_size,
    gimli::DW_AT_encoding,
    gimli::DW_AT_type,
];

/// A member: name, type, and what says where it is.
type Part<'a> = (&'a str, UnitEntryId, Vec<(gimli::DwAt, u64)>);
/// Debug sections, by name.
type Parts = Vec<(&'static str, Vec<u8>)>;

/// Types, entry by entry.
struct Builder(DwarfUnit);

impl Builder {
    fn add(
        &mut self,
        parent: UnitEntryId,
        tag: gimli::DwTag,
        name: &str,
        attributes: Vec<(gimli::DwAt, Value)>,
    ) -> UnitEntryId {
        let id = self.0.unit.add(parent, tag);
        let name = (!name.is_empty()).then(|| self.0.strings.add(name));
        let entry = self.0.unit.get_mut(id);
        if let Some(name) = name {
            entry.set(gimli::DW_AT_name, Value::StringRef(name));
        }
        for (attribute, value) in attributes {
            entry.set(attribute, value);
        }
        id
    }

    fn number(&mut self, name: &str, size: u64, encoding: gimli::DwAte) -> UnitEntryId {
        let root = self.0.unit.root();
        let [byte_size, how, _] = ATTRIBUTE;
        let attributes = vec![
            (byte_size, Value::Udata(size)),
            (how, Value::Encoding(encoding)),
        ];
        self.add(root, gimli::DW_TAG_base_type, name, attributes)
    }

    fn record(
        &mut self,
        tag: gimli::DwTag,
        name: &str,
        size: u64,
        members: Vec<Part<'_>>,
    ) -> UnitEntryId {
        let root = self.0.unit.root();
        let [byte_size, _, of_type] = ATTRIBUTE;
        let id = self.add(root, tag, name, vec![(byte_size, Value::Udata(size))]);
        for (name, of, places) in members {
            let places = places.into_iter();
            let mut attributes: Vec<_> = places
                .map(|(place, number)| (place, Value::Udata(number)))
                .collect();
            attributes.push((of_type, Value::UnitRef(of)));
            self.add(id, gimli::DW_TAG_member, name, attributes);
        }
        id
    }

    fn sections(mut self) -> Parts {
        let mut sections = Sections::new(EndianVec::new(LittleEndian));
        self.0.write(&mut sections).expect("the types are sound");
        let mut parts = vec![(".debug_aranges", aranges())];
        sections
            .for_each(|id, data| {
                parts.push((id.name(), data.slice().to_vec()));
                Ok::<_, gimli::write::Error>(())
            })
            .expect("nothing here fails");
        parts
    }
}

/// One unit, at 0 in `.debug_info`, with 256 bytes of code.
fn aranges() -> Vec<u8> {
    let mut bytes = 44_u32.to_le_bytes().to_vec();
    bytes.extend([2, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0]);
    for word in [FUNCTION - 0x80, 0x100, 0, 0] {
        bytes.extend(u64::to_le_bytes(word));
    }
    bytes
}

/// Types as the hypervisor has them, in small.
fn parts() -> Parts {
    let mut types = Builder(DwarfUnit::new(gimli::Encoding {
        format: gimli::Format::Dwarf32,
        version: 5,
        address_size: 8,
    }));
    let root = types.0.unit.root();
    let [byte_size, _, of_type] = ATTRIBUTE;
    let at = |offset| vec![(gimli::DW_AT_data_member_location, offset)];
    let structure = gimli::DW_TAG_structure_type;
    let declared = vec![(gimli::DW_AT_declaration, Value::Flag(true))];
    types.add(root, structure, "vm", declared);
    let word = types.number("unsigned int", 4, gimli::DW_ATE_unsigned);
    let byte = types.number("signed char", 1, gimli::DW_ATE_signed_char);
    let bits = vec![
        (gimli::DW_AT_data_bit_offset, 24),
        (gimli::DW_AT_bit_size, 4),
    ];
    let both = types.record(
        gimli::DW_TAG_union_type,
        "",
        4,
        vec![("share", word, at(0))],
    );
    let members = vec![
        ("order", byte, at(2)),
        ("state", word, bits),
        ("", both, at(4)),
    ];
    let page = types.record(structure, "hyp_page", 8, members);
    let alias = vec![(of_type, Value::UnitRef(page))];
    let page = types.add(root, gimli::DW_TAG_typedef, "page_t", alias);
    let several = vec![(of_type, Value::UnitRef(page))];
    let several = types.add(root, gimli::DW_TAG_array_type, "", several);
    let count = vec![(gimli::DW_AT_upper_bound, Value::Udata(2))];
    types.add(several, gimli::DW_TAG_subrange_type, "", count);
    let members = vec![("first", page, at(8)), ("pages", several, at(16))];
    types.record(structure, "vm", 40, members);
    let attributes = vec![
        (byte_size, Value::Udata(1)),
        (of_type, Value::UnitRef(byte)),
    ];
    let step = types.add(root, gimli::DW_TAG_enumeration_type, "step", attributes);
    for (name, value) in [("BACK", Value::Sdata(-1)), ("FORTH", Value::Data1(1))] {
        let value = vec![(gimli::DW_AT_const_value, value)];
        types.add(step, gimli::DW_TAG_enumerator, name, value);
    }
    types.sections()
}

fn load(parts: &Parts) -> Result<Units, String> {
    let file = parts.iter().flat_map(|(_, bytes)| bytes).copied();
    let file: Vec<u8> = file.collect();
    let section = |id: SectionId| {
        let place = parts.iter().position(|(name, _)| *name == id.name())?;
        let before = parts[..place].iter().map(|(_, bytes)| bytes.len() as u64);
        Some((before.sum(), parts[place].1.len() as u64))
    };
    let address = |name: &str| (name == FUNCTIONS[1]).then_some(FUNCTION);
    Units::load(address, section, |at, size| {
        let bytes = file.get(at as usize..(at + size) as usize);
        bytes
            .map(<[u8]>::to_vec)
            .ok_or_else(|| "cut off".to_owned())
    })
}

fn field(offset: u64, size: u64, bits: Option<(u32, u32)>, signed: bool) -> Option<Field> {
    Some(Field {
        offset,
        size,
        bits,
        signed,
    })
}

#[test]
fn members_are_found_by_their_paths() {
    let mut units = load(&parts()).expect("sound sections");
    for (path, expected) in [
        ("hyp_page.order", field(2, 1, None, true)),
        ("hyp_page.state", field(0, 4, Some((24, 4)), false)),
        ("hyp_page.share", field(4, 4, None, false)),
        ("vm.first.share", field(12, 4, None, false)),
        ("vm.pages", field(16, 24, None, false)),
        ("page_t.order", field(2, 1, None, true)),
        ("vm.none", None),
        ("vm", None),
        ("none.order", None),
    ] {
        assert_eq!(units.field(path), expected, "{path}");
    }
}

#[test]
fn a_declaration_has_no_size() {
    let mut units = load(&parts()).expect("sound sections");
    let sizes = ["vm", "page_t", "unsigned int", "step", "none"].map(|name| units.size_of(name));
    assert_eq!(sizes, [Some(40), Some(8), Some(4), Some(1), None]);
}

#[test]
fn an_enumeration_has_its_values() {
    let mut units = load(&parts()).expect("sound sections");
    let expected = vec![("BACK".to_owned(), -1), ("FORTH".to_owned(), 1)];
    assert_eq!(units.enumerators("step"), Some(expected));
    assert_eq!(units.enumerators("vm"), None);
}

#[test]
fn a_unit_is_found_by_an_address_inside() {
    let bytes = aranges();
    for (address, expected) in [
        (FUNCTION - 0x81, vec![]),
        (FUNCTION - 0x80, vec![0]),
        (FUNCTION + 0x7f, vec![0]),
        (FUNCTION + 0x80, vec![]),
    ] {
        assert_eq!(offsets(&bytes, &[address]), Ok(expected), "{address:#x}");
    }
    assert_eq!(offsets(&bytes, &[FUNCTION; 3]), Ok(vec![0]));
}

#[test]
fn what_is_missing_is_said() {
    let without = |name: &str| {
        let mut parts = parts();
        parts.retain(|(part, _)| *part != name);
        load(&parts).map(|_| ()).expect_err("it needs them")
    };
    let unknown = without(".debug_aranges");
    assert!(unknown.contains("no debug information is found by the address of"));
    assert!(without(".debug_info").starts_with("the debug information is damaged"));
    assert!(without(".debug_abbrev").starts_with("the debug information is damaged"));
}

/// Whatever is asked for, of whatever is left.
fn ask(parts: &Parts) {
    if let Ok(mut units) = load(parts) {
        for path in ["hyp_page.state", "vm.pages", "vm.first.share", "vm.none"] {
            units.field(path);
        }
        units.size_of("page_t");
        units.enumerators("step");
    }
}

#[test]
fn sections_cut_anywhere_are_errors_or_answers() {
    let whole = parts();
    for section in 0..whole.len() {
        for end in 0..whole[section].1.len() {
            let mut cut = whole.clone();
            cut[section].1.truncate(end);
            ask(&cut);
        }
    }
}

proptest! {
    #[test]
    fn sections_damaged_anywhere_are_errors_or_answers(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)
    ) {
        let mut parts = parts();
        let sizes: Vec<_> = parts.iter().map(|(_, bytes)| bytes.len()).collect();
        for (place, byte) in damage {
            let mut at = place.index(sizes.iter().sum());
            let hit = sizes.iter().position(|size| {
                let inside = at < *size;
                at -= if inside { 0 } else { *size };
                inside
            });
            if let Some((_, bytes)) = hit.and_then(|hit| parts.get_mut(hit)) {
                bytes[at] = byte;
            }
        }
        ask(&parts);
    }
}
