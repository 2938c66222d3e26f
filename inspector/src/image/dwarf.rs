//! DWARF, unit by unit: only the units that are needed are parsed.

use super::NAME_LIMIT;
use gimli::{
    AttributeValue, DebugInfoOffset, DwTag, EndianArcSlice, LittleEndian, Reader, Section,
    SectionId, UnitHeader, UnitOffset,
};
use memchr::memmem;
use std::collections::BTreeMap;
use std::sync::Arc;

type Bytes = EndianArcSlice<LittleEndian>;
type Unit = gimli::Unit<Bytes>;
pub(super) type Die = gimli::DebuggingInformationEntry<Bytes>;

/// The debug information of one file.
pub(super) struct Dwarf {
    dwarf: Arc<gimli::Dwarf<Bytes>>,
    /// `.debug_str`, `.debug_info`: searched for names before anything is parsed.
    strings: Arc<[u8]>,
    info: Arc<[u8]>,
    headers: Vec<UnitHeader<Bytes>>,
    parsed: BTreeMap<usize, Arc<Unit>>,
    /// Types of variables that were looked for: all units are searched for one, and its members are asked for one by one.
    variables: BTreeMap<String, Option<TypeRef>>,
}

/// A type: the number of its unit and its entry there.
#[derive(Clone, Copy)]
pub(super) struct TypeRef {
    pub(super) unit: usize,
    pub(super) entry: UnitOffset,
}

/// A member of a structure or union.
pub(super) struct Member {
    pub(super) name: String,
    /// In bytes.
    pub(super) offset: u64,
    /// Its type.
    pub(super) of: TypeRef,
}

impl Dwarf {
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
            dwarf: Arc::new(dwarf),
            headers,
            parsed: BTreeMap::new(),
            variables: BTreeMap::new(),
        })
    }

    /// All of it.
    pub(super) fn sections(&self) -> Arc<gimli::Dwarf<Bytes>> {
        Arc::clone(&self.dwarf)
    }

    /// The type of a global variable.
    pub(super) fn variable(&mut self, name: &str) -> Result<Option<TypeRef>, String> {
        if let Some(found) = self.variables.get(name) {
            return Ok(*found);
        }
        let found = self.find_variable(name)?;
        self.variables.insert(name.to_owned(), found);
        Ok(found)
    }

    fn find_variable(&mut self, name: &str) -> Result<Option<TypeRef>, String> {
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

    /// Number of elements of an array, all dimensions together.
    pub(super) fn count(&mut self, of: TypeRef) -> Result<u64, String> {
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
    pub(super) fn members(&mut self, of: TypeRef) -> Result<Vec<Member>, String> {
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

    pub(super) fn children(
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

    pub(super) fn die(&mut self, of: TypeRef) -> Result<(Arc<Unit>, Die), String> {
        let unit = self.unit(of.unit)?;
        let die = unit.entry(of.entry).map_err(damaged)?;
        Ok((unit, die))
    }

    /// The type an entry refers to, in its own unit or another.
    pub(super) fn type_of(&self, unit: usize, die: &Die) -> Option<TypeRef> {
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

    /// The entry of the first unit itself.
    pub(super) fn root(&self) -> Option<TypeRef> {
        let entry = UnitOffset(self.headers.first()?.header_size());
        Some(TypeRef { unit: 0, entry })
    }

    pub(super) fn name_of(&mut self, of: TypeRef) -> Option<String> {
        let (unit, die) = self.die(of).ok()?;
        self.text(&unit, &die, gimli::DW_AT_name)
    }

    pub(super) fn text(&self, unit: &Unit, die: &Die, name: gimli::DwAt) -> Option<String> {
        let text = self.dwarf.attr_string(unit, die.attr_value(name)?).ok()?;
        // A string that has lost its end would be copied again and again.
        if text.len() > NAME_LIMIT {
            return None;
        }
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

pub(super) fn damaged(what: impl std::fmt::Display) -> String {
    format!("the debug information is damaged: {what}")
}
