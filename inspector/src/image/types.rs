//! Types out of DWARF: only the units that are needed are parsed.

use super::{Place, Shape};
use gimli::{
    AttributeValue, DebugInfoOffset, DwTag, EndianArcSlice, LittleEndian, Reader, Section,
    SectionId, UnitHeader, UnitOffset,
};
use memchr::memmem;
use std::collections::BTreeMap;
use std::sync::Arc;

type Bytes = EndianArcSlice<LittleEndian>;
type Unit = gimli::Unit<Bytes>;
type Die = gimli::DebuggingInformationEntry<Bytes>;

/// No sound program nests wrappers or qualifiers deeper; a damaged one may have a cycle.
const DEPTH_LIMIT: usize = 32;

/// The types of one file.
pub(super) struct Types {
    dwarf: gimli::Dwarf<Bytes>,
    /// `.debug_str`, `.debug_info`: searched for names before anything is parsed.
    strings: Arc<[u8]>,
    info: Arc<[u8]>,
    headers: Vec<UnitHeader<Bytes>>,
    parsed: BTreeMap<usize, Arc<Unit>>,
}

/// A type: the number of its unit and its entry there.
#[derive(Clone, Copy)]
struct TypeRef {
    unit: usize,
    entry: UnitOffset,
}

struct Member {
    name: String,
    offset: u64,
    of: TypeRef,
}

impl Types {
    /// Takes the debug sections; an empty one stands for one that is not there.
    pub(super) fn load(
        section: impl Fn(SectionId) -> Result<Arc<[u8]>, String>,
    ) -> Result<Self, String> {
        let info = section(SectionId::DebugInfo)?;
        if info.is_empty() {
            return Err("the file has no debug information (.debug_info)".to_owned());
        }
        let dwarf = gimli::Dwarf::load(|id| {
            section(id).map(|bytes| EndianArcSlice::new(bytes, LittleEndian))
        })?;
        let mut headers = Vec::new();
        let mut units = dwarf.units();
        while let Some(header) = units.next().map_err(damaged)? {
            headers.push(header);
        }
        Ok(Self {
            strings: section(SectionId::DebugStr)?,
            info,
            dwarf,
            headers,
            parsed: BTreeMap::new(),
        })
    }

    /// Follows `path` from the variable it begins with, which is linked at `address`.
    pub(super) fn place(
        &mut self,
        variable: &str,
        address: u64,
        path: &str,
    ) -> Result<Place, String> {
        let mut at = address;
        let mut of = self
            .variable(variable)?
            .ok_or_else(|| format!("no debug information says the type of `{variable}`"))?;
        for (index, part) in path.split('.').enumerate() {
            let (name, element) = match part.strip_suffix("[]") {
                Some(name) => (name, true),
                None => (part, false),
            };
            if index > 0 {
                let (offset, member) = self.member(of, name)?;
                at = at.wrapping_add(offset);
                of = member;
            }
            if element {
                (at, of) = self.element(at, of, name)?;
            }
        }
        let (offset, of) = self.unwrap(of)?;
        Ok(Place {
            address: at.wrapping_add(offset),
            size: self.size_of(of)?,
            shape: self.shape(of)?,
        })
    }

    /// The type of a global variable.
    fn variable(&mut self, name: &str) -> Result<Option<TypeRef>, String> {
        for index in 0..self.headers.len() {
            if !self.mentions(index, name) {
                continue;
            }
            let unit = self.unit(index)?;
            let mut entries = unit.entries();
            while let Some(die) = entries.next_dfs().map_err(damaged)? {
                if die.tag() != gimli::DW_TAG_variable {
                    continue;
                }
                let linked =
                    self.text(&unit, die, gimli::DW_AT_linkage_name).as_deref() == Some(name);
                let global = die.attr(gimli::DW_AT_external).is_some()
                    && self.text(&unit, die, gimli::DW_AT_name).as_deref() == Some(name);
                if (linked || global)
                    && let Some(of) = self.type_of(index, die)
                {
                    return Ok(Some(of));
                }
            }
        }
        Ok(None)
    }

    /// Whether a unit can name `name`: holds it inline, or a reference to where `.debug_str` has it.
    fn mentions(&self, index: usize, name: &str) -> bool {
        if !self.dwarf.debug_str_offsets.reader().is_empty() {
            return true; // indexed strings leave no trace in the unit's bytes
        }
        let start = self.headers[index].debug_info_offset().map_or(0, |at| at.0);
        let end = self
            .headers
            .get(index + 1)
            .and_then(UnitHeader::debug_info_offset)
            .map_or(self.info.len(), |at| at.0);
        let Some(bytes) = self.info.get(start..end) else {
            return false;
        };
        let needle = [name.as_bytes(), b"\0"].concat();
        memmem::find(bytes, &needle).is_some()
            || memmem::find_iter(&self.strings, &needle).any(|at| {
                u32::try_from(at).is_ok_and(|at| memmem::find(bytes, &at.to_le_bytes()).is_some())
            })
    }

    /// A member of a record by name, looked for through wrappers; its offset and type.
    fn member(&mut self, of: TypeRef, name: &str) -> Result<(u64, TypeRef), String> {
        let mut at = 0_u64;
        let mut inside = of;
        for _ in 0..DEPTH_LIMIT {
            inside = self.strip(inside)?;
            let members = self.members(inside)?;
            if let Some(member) = members.iter().find(|member| member.name == name) {
                return Ok((at.wrapping_add(member.offset), member.of));
            }
            let Some(only) = self.single(members)? else {
                break;
            };
            at = at.wrapping_add(only.offset);
            inside = only.of;
        }
        Err(format!(
            "no member `{name}` in `{}`",
            self.name_of(inside).unwrap_or_else(|| "?".to_owned())
        ))
    }

    /// The type of the elements of an array or slice, and where the first is.
    fn element(&mut self, at: u64, of: TypeRef, name: &str) -> Result<(u64, TypeRef), String> {
        let (offset, of) = self.unwrap(of)?;
        let (unit, die) = self.die(of)?;
        if die.tag() == gimli::DW_TAG_array_type {
            return match self.type_of(of.unit, &die) {
                Some(element) => Ok((at.wrapping_add(offset), element)),
                None => Err(format!("the array `{name}` has no type of elements")),
            };
        }
        drop(unit);
        let members = self.members(of)?;
        if let Some((data, _)) = slice_parts(&members) {
            let pointer = self.strip(data.of)?;
            let (_, die) = self.die(pointer)?;
            if let Some(element) = self.type_of(pointer.unit, &die) {
                return Ok((0, element));
            }
        }
        Err(format!("`{name}` is neither an array nor a slice"))
    }

    /// Takes off wrappers of a single member; the offset of what is inside, and its type.
    fn unwrap(&mut self, of: TypeRef) -> Result<(u64, TypeRef), String> {
        let mut at = 0_u64;
        let mut inside = self.strip(of)?;
        for _ in 0..DEPTH_LIMIT {
            let members = self.members(inside)?;
            let Some(only) = self.single(members)? else {
                return Ok((at, inside));
            };
            at = at.wrapping_add(only.offset);
            inside = self.strip(only.of)?;
        }
        Err(damaged("types nest without end"))
    }

    /// The only member that has a size.
    fn single(&mut self, members: Vec<Member>) -> Result<Option<Member>, String> {
        let mut only = None;
        for member in members {
            if self.size_of(member.of)? == 0 {
                continue;
            }
            if only.replace(member).is_some() {
                return Ok(None);
            }
        }
        Ok(only)
    }

    /// Takes off typedefs and qualifiers.
    fn strip(&mut self, of: TypeRef) -> Result<TypeRef, String> {
        let mut inside = of;
        for _ in 0..DEPTH_LIMIT {
            let (_, die) = self.die(inside)?;
            let wrapped = matches!(
                die.tag(),
                gimli::DW_TAG_typedef | gimli::DW_TAG_const_type | gimli::DW_TAG_volatile_type
            );
            match self.type_of(inside.unit, &die) {
                Some(next) if wrapped => inside = next,
                _ => return Ok(inside),
            }
        }
        Err(damaged("types nest without end"))
    }

    fn shape(&mut self, of: TypeRef) -> Result<Shape, String> {
        let (unit, die) = self.die(of)?;
        Ok(match die.tag() {
            gimli::DW_TAG_base_type => Shape::Number,
            gimli::DW_TAG_pointer_type => Shape::Pointer,
            gimli::DW_TAG_array_type => Shape::Array {
                count: self.count(of)?,
            },
            gimli::DW_TAG_enumeration_type => {
                let mut names = BTreeMap::new();
                self.children(of, gimli::DW_TAG_enumerator, |types, child| {
                    let value = child.attr_value(gimli::DW_AT_const_value);
                    let value = value.as_ref().and_then(|value| {
                        value
                            .udata_value()
                            .or_else(|| value.sdata_value().map(i64::cast_unsigned))
                    });
                    if let (Some(value), Some(name)) =
                        (value, types.text(&unit, child, gimli::DW_AT_name))
                    {
                        names.insert(value, name);
                    }
                })?;
                Shape::Enum { names }
            }
            _ => match slice_parts(&self.members(of)?) {
                Some((data, length)) => Shape::Slice {
                    data: data.offset,
                    length: length.offset,
                },
                None => Shape::Record,
            },
        })
    }

    /// Size of a type in bytes.
    fn size_of(&mut self, of: TypeRef) -> Result<u64, String> {
        let mut inside = self.strip(of)?;
        let mut times = 1_u64;
        for _ in 0..DEPTH_LIMIT {
            let (_, die) = self.die(inside)?;
            let size = die
                .attr(gimli::DW_AT_byte_size)
                .and_then(gimli::Attribute::udata_value);
            match (size, die.tag()) {
                (Some(size), _) => return Ok(times.saturating_mul(size)),
                (None, gimli::DW_TAG_pointer_type) => return Ok(times.saturating_mul(8)),
                (None, gimli::DW_TAG_array_type) => {
                    times = times.saturating_mul(self.count(inside)?);
                    let Some(element) = self.type_of(inside.unit, &die) else {
                        return Ok(0);
                    };
                    inside = self.strip(element)?;
                }
                _ => return Ok(0),
            }
        }
        Err(damaged("types nest without end"))
    }

    /// Number of elements of an array, all dimensions together.
    fn count(&mut self, of: TypeRef) -> Result<u64, String> {
        let mut count = 1_u64;
        self.children(of, gimli::DW_TAG_subrange_type, |_, child| {
            let number = |name| child.attr(name).and_then(gimli::Attribute::udata_value);
            let elements = number(gimli::DW_AT_count)
                .or_else(|| number(gimli::DW_AT_upper_bound).map(|last| last.saturating_add(1)))
                .unwrap_or(0);
            count = count.saturating_mul(elements);
        })?;
        Ok(count)
    }

    /// Members of a structure or union.
    fn members(&mut self, of: TypeRef) -> Result<Vec<Member>, String> {
        let (unit, die) = self.die(of)?;
        let mut members = Vec::new();
        if !matches!(
            die.tag(),
            gimli::DW_TAG_structure_type | gimli::DW_TAG_union_type
        ) {
            return Ok(members);
        }
        self.children(of, gimli::DW_TAG_member, |types, child| {
            let offset = child
                .attr(gimli::DW_AT_data_member_location)
                .and_then(gimli::Attribute::udata_value);
            if let (Some(member), Some(name)) = (
                types.type_of(of.unit, child),
                types.text(&unit, child, gimli::DW_AT_name),
            ) {
                members.push(Member {
                    name,
                    offset: offset.unwrap_or(0),
                    of: member,
                });
            }
        })?;
        Ok(members)
    }

    fn children(
        &mut self,
        of: TypeRef,
        tag: DwTag,
        mut each: impl FnMut(&Self, &Die),
    ) -> Result<(), String> {
        let unit = self.unit(of.unit)?;
        let mut tree = unit.entries_tree(Some(of.entry)).map_err(damaged)?;
        let mut children = tree.root().map_err(damaged)?.children();
        while let Some(child) = children.next().map_err(damaged)? {
            if child.entry().tag() == tag {
                each(self, child.entry());
            }
        }
        Ok(())
    }

    fn die(&mut self, of: TypeRef) -> Result<(Arc<Unit>, Die), String> {
        let unit = self.unit(of.unit)?;
        let die = unit.entry(of.entry).map_err(damaged)?;
        Ok((unit, die))
    }

    /// The type an entry refers to, in its own unit or another.
    fn type_of(&self, unit: usize, die: &Die) -> Option<TypeRef> {
        match die.attr_value(gimli::DW_AT_type)? {
            AttributeValue::UnitRef(entry) => Some(TypeRef { unit, entry }),
            AttributeValue::DebugInfoRef(DebugInfoOffset(offset)) => {
                let start = |header: &UnitHeader<Bytes>| {
                    header.debug_info_offset().map_or(usize::MAX, |at| at.0)
                };
                let after = self
                    .headers
                    .partition_point(|header| start(header) <= offset);
                let unit = after.checked_sub(1)?;
                let entry = UnitOffset(offset - start(&self.headers[unit]));
                Some(TypeRef { unit, entry })
            }
            _ => None,
        }
    }

    fn name_of(&mut self, of: TypeRef) -> Option<String> {
        let (unit, die) = self.die(of).ok()?;
        self.text(&unit, &die, gimli::DW_AT_name)
    }

    fn text(&self, unit: &Unit, die: &Die, name: gimli::DwAt) -> Option<String> {
        let text = self.dwarf.attr_string(unit, die.attr_value(name)?).ok()?;
        Some(text.to_string_lossy().ok()?.into_owned())
    }

    fn unit(&mut self, index: usize) -> Result<Arc<Unit>, String> {
        if let Some(unit) = self.parsed.get(&index) {
            return Ok(Arc::clone(unit));
        }
        let header = self.headers[index].clone();
        let unit = Arc::new(self.dwarf.unit(header).map_err(damaged)?);
        self.parsed.insert(index, Arc::clone(&unit));
        Ok(unit)
    }
}

/// Rust's `&[T]`: `data_ptr` and `length`.
fn slice_parts(members: &[Member]) -> Option<(&Member, &Member)> {
    let find = |name| members.iter().find(|member| member.name == name);
    Some((find("data_ptr")?, find("length")?))
}

fn damaged(what: impl std::fmt::Display) -> String {
    format!("the debug information is damaged: {what}")
}
