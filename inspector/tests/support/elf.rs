//! ELF files with symbols and DWARF, made to measure.

use gimli::write::{
    Address, AttributeValue, DwarfUnit, EndianVec, Expression, Sections, UnitEntryId,
};

/// A type to describe.
#[derive(Clone)]
pub(crate) enum Type {
    /// An integer of this many bytes.
    Number(u64),
    /// An address of something.
    Pointer(Box<Type>),
    /// So many elements of a type.
    Array(Box<Type>, u64),
    /// Another name for a type.
    Typedef(Box<Type>),
    /// An enumeration of one byte.
    Enum(Vec<(String, u64)>),
    /// A structure.
    Record(Record),
    /// A union.
    Union(Record),
}

/// Name, size in bytes, and members with their offsets.
#[derive(Clone)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) members: Vec<(String, u64, Type)>,
}

impl Type {
    /// A structure.
    pub(crate) fn record(name: &str, size: u64, members: Vec<(&str, u64, Type)>) -> Self {
        Self::Record(Record {
            name: name.to_owned(),
            size,
            members: members
                .into_iter()
                .map(|(name, offset, of)| (name.to_owned(), offset, of))
                .collect(),
        })
    }

    /// Rust's slice: an address and a count.
    pub(crate) fn slice(of: Type) -> Self {
        let members = vec![
            ("data_ptr", 0, Self::Pointer(Box::new(of))),
            ("length", 8, Self::Number(8)),
        ];
        Self::record("&[T]", 16, members)
    }
}

/// A program: what is linked where, and of what type it is.
#[derive(Clone, Default)]
pub(crate) struct Program {
    /// Virtual address, physical address, size.
    pub(crate) segments: Vec<(u64, u64, u64)>,
    /// Name, address, size.
    pub(crate) symbols: Vec<(String, u64, u64)>,
    /// Global variables with debug information.
    pub(crate) variables: Vec<(String, Type)>,
    /// Sections that a kernel has beside: name, kind, contents.
    pub(crate) others: Vec<(&'static str, u32, Vec<u8>)>,
    /// A segment whose bytes are in the file: linked address, contents.
    pub(crate) text: Option<(u64, Vec<u8>)>,
    /// A segment of notes: linked address, contents.
    pub(crate) notes: Option<(u64, Vec<u8>)>,
}

impl Program {
    /// The file.
    pub(crate) fn elf(&self) -> Vec<u8> {
        let (symtab, strtab) = self.symbol_table();
        let mut sections = vec![
            Section::new(".symtab", 2, symtab),
            Section::new(".strtab", 3, strtab),
        ];
        if !self.variables.is_empty() {
            sections.extend(
                self.dwarf()
                    .into_iter()
                    .map(|(name, data)| Section::new(name, 1, data)),
            );
        }
        let others = self.others.iter();
        sections.extend(others.map(|(name, kind, data)| Section::new(name, *kind, data.clone())));
        let mut segments = self.segments.clone();
        let notes = self.notes.iter();
        segments.extend(notes.map(|(linked, bytes)| (*linked, 0, bytes.len() as u64)));
        let mut file = link(&segments, sections);
        if let (Some((linked, bytes)), Some((first, ..))) = (&self.text, self.segments.first()) {
            assert_eq!(linked, first, "the first segment is the text");
            fill_segment(&mut file, 0, bytes);
        }
        if let Some((_, bytes)) = &self.notes {
            let last = self.segments.len();
            file[64 + 56 * last] = 4; // PT_NOTE
            fill_segment(&mut file, last, bytes);
        }
        file
    }

    fn symbol_table(&self) -> (Vec<u8>, Vec<u8>) {
        let mut symtab = vec![0; 24];
        let mut strtab = vec![0];
        for (name, address, size) in &self.symbols {
            symtab.extend((strtab.len() as u32).to_le_bytes());
            // Global function, default visibility, defined in section 1.
            symtab.extend([0x12, 0, 1, 0]);
            symtab.extend(address.to_le_bytes());
            symtab.extend(size.to_le_bytes());
            strtab.extend(name.as_bytes());
            strtab.push(0);
        }
        (symtab, strtab)
    }

    fn dwarf(&self) -> Vec<(&'static str, Vec<u8>)> {
        let mut dwarf = DwarfUnit::new(gimli::Encoding {
            format: gimli::Format::Dwarf32,
            version: 4,
            address_size: 8,
        });
        for (name, of) in &self.variables {
            let of = describe(&mut dwarf, of);
            let root = dwarf.unit.root();
            let variable = dwarf.unit.add(root, gimli::DW_TAG_variable);
            let name = AttributeValue::StringRef(dwarf.strings.add(name.as_str()));
            let mut location = Expression::new();
            location.op_addr(Address::Constant(0));
            let entry = dwarf.unit.get_mut(variable);
            entry.set(gimli::DW_AT_name, name);
            entry.set(gimli::DW_AT_external, AttributeValue::Flag(true));
            entry.set(gimli::DW_AT_type, AttributeValue::UnitRef(of));
            entry.set(gimli::DW_AT_location, AttributeValue::Exprloc(location));
        }
        let mut sections = Sections::new(EndianVec::new(gimli::LittleEndian));
        dwarf.write(&mut sections).expect("the types are sound");
        let mut written = Vec::new();
        sections
            .for_each(|id, data| {
                if !data.slice().is_empty() {
                    written.push((id.name(), data.slice().to_vec()));
                }
                Ok::<_, gimli::write::Error>(())
            })
            .expect("nothing here fails");
        written
    }
}

fn describe(dwarf: &mut DwarfUnit, of: &Type) -> UnitEntryId {
    let root = dwarf.unit.root();
    match of {
        Type::Number(size) => {
            let id = dwarf.unit.add(root, gimli::DW_TAG_base_type);
            let entry = dwarf.unit.get_mut(id);
            entry.set(gimli::DW_AT_byte_size, AttributeValue::Udata(*size));
            id
        }
        Type::Pointer(to) | Type::Typedef(to) => {
            let to = describe(dwarf, to);
            let tag = match of {
                Type::Pointer(_) => gimli::DW_TAG_pointer_type,
                _ => gimli::DW_TAG_typedef,
            };
            let id = dwarf.unit.add(root, tag);
            let entry = dwarf.unit.get_mut(id);
            entry.set(gimli::DW_AT_type, AttributeValue::UnitRef(to));
            id
        }
        Type::Array(element, count) => {
            let element = describe(dwarf, element);
            let id = dwarf.unit.add(root, gimli::DW_TAG_array_type);
            let entry = dwarf.unit.get_mut(id);
            entry.set(gimli::DW_AT_type, AttributeValue::UnitRef(element));
            let range = dwarf.unit.add(id, gimli::DW_TAG_subrange_type);
            let entry = dwarf.unit.get_mut(range);
            entry.set(gimli::DW_AT_count, AttributeValue::Udata(*count));
            id
        }
        Type::Enum(names) => {
            let id = dwarf.unit.add(root, gimli::DW_TAG_enumeration_type);
            let entry = dwarf.unit.get_mut(id);
            entry.set(gimli::DW_AT_byte_size, AttributeValue::Udata(1));
            for (name, value) in names {
                let child = dwarf.unit.add(id, gimli::DW_TAG_enumerator);
                let name = AttributeValue::StringRef(dwarf.strings.add(name.as_str()));
                let entry = dwarf.unit.get_mut(child);
                entry.set(gimli::DW_AT_name, name);
                entry.set(gimli::DW_AT_const_value, AttributeValue::Udata(*value));
            }
            id
        }
        Type::Record(record) => members(dwarf, record, gimli::DW_TAG_structure_type),
        Type::Union(record) => members(dwarf, record, gimli::DW_TAG_union_type),
    }
}

fn members(dwarf: &mut DwarfUnit, record: &Record, tag: gimli::DwTag) -> UnitEntryId {
    let root = dwarf.unit.root();
    let id = dwarf.unit.add(root, tag);
    let name = AttributeValue::StringRef(dwarf.strings.add(record.name.as_str()));
    let entry = dwarf.unit.get_mut(id);
    entry.set(gimli::DW_AT_name, name);
    entry.set(gimli::DW_AT_byte_size, AttributeValue::Udata(record.size));
    for (name, offset, of) in &record.members {
        let of = describe(dwarf, of);
        let child = dwarf.unit.add(id, gimli::DW_TAG_member);
        let name = AttributeValue::StringRef(dwarf.strings.add(name.as_str()));
        let entry = dwarf.unit.get_mut(child);
        entry.set(gimli::DW_AT_name, name);
        entry.set(
            gimli::DW_AT_data_member_location,
            AttributeValue::Udata(*offset),
        );
        entry.set(gimli::DW_AT_type, AttributeValue::UnitRef(of));
    }
    id
}

/// Puts the bytes of a segment into the file.
fn fill_segment(file: &mut Vec<u8>, index: usize, bytes: &[u8]) {
    let header = 64 + 56 * index;
    let at = file.len() as u64;
    file[header + 8..][..8].copy_from_slice(&at.to_le_bytes());
    file[header + 32..][..8].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
    file.extend(bytes);
}

struct Section {
    name: &'static str,
    kind: u32,
    data: Vec<u8>,
}

impl Section {
    fn new(name: &'static str, kind: u32, data: Vec<u8>) -> Self {
        Self { name, kind, data }
    }
}

/// Puts an AArch64 executable together: header, program headers, sections, section headers.
fn link(segments: &[(u64, u64, u64)], mut sections: Vec<Section>) -> Vec<u8> {
    let mut names = vec![0_u8];
    sections.push(Section::new(".shstrtab", 3, Vec::new()));
    let mut name_at = Vec::new();
    for section in &sections {
        name_at.push(names.len() as u32);
        names.extend(section.name.as_bytes());
        names.push(0);
    }
    if let Some(last) = sections.last_mut() {
        last.data = names;
    }

    let mut body: Vec<u8> = Vec::new();
    let body_at = 64 + 56 * segments.len() as u64;
    let mut headers = vec![0_u8; 64];
    for (index, section) in sections.iter().enumerate() {
        let at = body_at + body.len() as u64;
        body.extend(&section.data);
        // The symbol table is section 1 and its strings are section 2; its first symbol is local.
        let (link, info, entry) = if section.kind == 2 {
            (2, 1, 24)
        } else {
            (0, 0, 0)
        };
        headers.extend(name_at[index].to_le_bytes());
        headers.extend(section.kind.to_le_bytes());
        for word in [0, 0, at, section.data.len() as u64] {
            headers.extend(u64::to_le_bytes(word));
        }
        headers.extend(u32::to_le_bytes(link));
        headers.extend(u32::to_le_bytes(info));
        headers.extend(u64::to_le_bytes(1));
        headers.extend(u64::to_le_bytes(entry));
    }

    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend([2, 0, 183, 0, 1, 0, 0, 0]); // ET_EXEC, EM_AARCH64, version 1
    for word in [0, 64, body_at + body.len() as u64] {
        file.extend(u64::to_le_bytes(word));
    }
    file.extend([0; 4]);
    let count = sections.len() as u16 + 1;
    for half in [64, 56, segments.len() as u16, 64, count, count - 1] {
        file.extend(u16::to_le_bytes(half));
    }
    for (virt, phys, size) in segments {
        file.extend([1, 0, 0, 0, 7, 0, 0, 0]); // PT_LOAD, rwx
        for word in [0, *virt, *phys, 0, *size, 4096] {
            file.extend(u64::to_le_bytes(word));
        }
    }
    file.extend(body);
    file.extend(headers);
    file
}
