use super::*;
use gimli::write::{
    Address, AttributeValue, DwarfUnit, EndianVec, LineProgram, LineString, Sections,
};
use gimli::{Encoding, Format, LineEncoding, SectionId};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io::Write;

const CODE: u64 = 0x40_4020_1000;
const SIZE: u64 = 0x40;

type Parts = BTreeMap<&'static str, Vec<u8>>;

fn text(text: &str) -> AttributeValue {
    AttributeValue::String(text.into())
}

/// `outer`, with `inner` inlined at 0x10 to 0x20, called in line 12.
fn sections() -> Parts {
    let encoding = Encoding {
        format: Format::Dwarf32,
        version: 4,
        address_size: 8,
    };
    let string = |text: &str| LineString::String(text.into());
    let mut program = LineProgram::new(
        encoding,
        LineEncoding::default(),
        string("/home/me"),
        None,
        string("src/outer.rs"),
        None,
    );
    let folder = program.default_directory();
    let outer = program.add_file(string("src/outer.rs"), folder, None);
    let inner = program.add_file(string("/rustc/123/library/core/src/inner.rs"), folder, None);
    program.begin_sequence(Some(Address::Constant(CODE)));
    for (offset, file, line) in [(0, outer, 10), (0x10, inner, 200), (0x20, outer, 13)] {
        let row = program.row();
        (row.address_offset, row.file, row.line) = (offset, file, line);
        program.generate_row();
    }
    program.end_sequence(SIZE);

    let mut dwarf = DwarfUnit::new(encoding);
    dwarf.unit.line_program = program;
    let unit = &mut dwarf.unit;
    let root = unit.root();
    unit.get_mut(root)
        .set(gimli::DW_AT_comp_dir, text("/home/me"));
    let place = |entry: &mut gimli::write::DebuggingInformationEntry, start, size| {
        let start = AttributeValue::Address(Address::Constant(start));
        entry.set(gimli::DW_AT_low_pc, start);
        entry.set(gimli::DW_AT_high_pc, AttributeValue::Udata(size));
    };
    place(unit.get_mut(root), CODE, SIZE);
    let origin = unit.add(root, gimli::DW_TAG_subprogram);
    unit.get_mut(origin).set(gimli::DW_AT_name, text("inner"));
    let function = unit.add(root, gimli::DW_TAG_subprogram);
    unit.get_mut(function).set(gimli::DW_AT_name, text("outer"));
    place(unit.get_mut(function), CODE, SIZE);
    let inlined = unit.add(function, gimli::DW_TAG_inlined_subroutine);
    let entry = unit.get_mut(inlined);
    entry.set(
        gimli::DW_AT_abstract_origin,
        AttributeValue::UnitRef(origin),
    );
    place(entry, CODE + 0x10, 0x10);
    entry.set(
        gimli::DW_AT_call_file,
        AttributeValue::FileIndex(Some(outer)),
    );
    entry.set(gimli::DW_AT_call_line, AttributeValue::Udata(12));

    let mut written = Sections::new(EndianVec::new(LittleEndian));
    dwarf.write(&mut written).expect("it can be written");
    let mut parts = Parts::new();
    let each = written.for_each(|id, data| -> gimli::write::Result<()> {
        parts.insert(id.name(), data.slice().to_vec());
        Ok(())
    });
    each.expect("they are listed");
    parts.insert(SectionId::DebugAranges.name(), aranges());
    parts
}

/// One set, for the unit at 0.
fn aranges() -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(44_u32.to_le_bytes());
    bytes.extend(2_u16.to_le_bytes());
    bytes.extend(0_u32.to_le_bytes());
    bytes.extend([8, 0, 0, 0, 0, 0]);
    for word in [CODE, SIZE, 0, 0] {
        bytes.extend(word.to_le_bytes());
    }
    bytes
}

fn whole(parts: &Parts) -> Option<Lines> {
    let dwarf = gimli::Dwarf::load(|id| -> Result<Bytes, ()> {
        let bytes = parts.get(id.name()).cloned().unwrap_or_default();
        Ok(Bytes::new(bytes.into(), LittleEndian))
    });
    Lines::new(Arc::new(dwarf.expect("nothing fails")))
}

fn by_unit(parts: &Parts) -> ByUnit {
    let mut file = tempfile::tempfile().expect("a temporary file");
    let mut places = BTreeMap::new();
    let mut at = 0;
    for (name, bytes) in parts {
        file.write_all(bytes).expect("it takes them");
        places.insert(*name, (at, bytes.len() as u64));
        at += bytes.len() as u64;
    }
    ByUnit::new(file, |id| places.get(id.name()).copied())
}

fn function(name: &str, file: &str, line: u32) -> Function {
    Function {
        name: Some(name.to_owned()),
        source: Some(Source {
            file: file.to_owned(),
            line,
        }),
    }
}

#[test]
fn functions_and_lines_are_found_either_way() {
    let parts = sections();
    let whole = whole(&parts).expect("it is sound");
    let mut by_unit = by_unit(&parts);
    let inlined = vec![
        function("inner", "library/core/src/inner.rs", 200),
        function("outer", "src/outer.rs", 12),
    ];
    for (address, expected) in [
        (CODE, vec![function("outer", "src/outer.rs", 10)]),
        (CODE + 0x14, inlined),
        (CODE + 0x3c, vec![function("outer", "src/outer.rs", 13)]),
        (CODE + SIZE, Vec::new()),
        (CODE - 4, Vec::new()),
        (u64::MAX, Vec::new()),
    ] {
        assert_eq!(whole.functions(address), expected, "{address:#x}");
        assert_eq!(by_unit.functions(address), Ok(expected), "{address:#x}");
    }
}

#[test]
fn a_file_that_is_cut_off_says_so() {
    let parts = sections();
    let file = tempfile::tempfile().expect("a temporary file");
    let mut cut = ByUnit::new(file, |id| Some((0, parts.get(id.name())?.len() as u64)));
    let reason = "the file is cut off".to_owned();
    assert_eq!(cut.functions(CODE), Err(reason));
}

proptest! {
    #[test]
    fn damage_is_survived(hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut parts = sections();
        for (at, value) in hits {
            let all: usize = parts.values().map(Vec::len).sum();
            let mut at = at.index(all);
            for bytes in parts.values_mut() {
                match bytes.get_mut(at) {
                    Some(byte) => {
                        *byte = value;
                        break;
                    }
                    None => at -= bytes.len(),
                }
            }
        }
        let mut by_unit = by_unit(&parts);
        let whole = whole(&parts);
        for address in (CODE..CODE + SIZE).step_by(4) {
            whole.as_ref().map(|lines| lines.functions(address));
            drop(by_unit.functions(address));
        }
    }
}
