//! Where a member is, and what it looks like.

use super::dwarf::{Dwarf, Member, TypeRef, damaged};
use super::lines::Lines;
use super::{Place, Shape};
use gimli::SectionId;
use std::collections::BTreeMap;
use std::sync::Arc;

/// No sound program nests wrappers or qualifiers deeper; a damaged one may have a cycle.
const DEPTH_LIMIT: usize = 32;

/// The types of one file.
pub(super) struct Types {
    dwarf: Dwarf,
}

impl Types {
    /// Takes the debug sections; an empty one stands for one that is not there.
    pub(super) fn load(
        section: impl Fn(SectionId) -> Result<Arc<[u8]>, String>,
    ) -> Result<Self, String> {
        Ok(Self {
            dwarf: Dwarf::load(section)?,
        })
    }

    /// The lines of the same debug information.
    pub(super) fn lines(&self) -> Option<Lines> {
        Lines::new(self.dwarf.sections())
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
            .dwarf
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

    /// A member of a record by name, looked for through wrappers; its offset and type.
    fn member(&mut self, of: TypeRef, name: &str) -> Result<(u64, TypeRef), String> {
        let mut at = 0_u64;
        let mut inside = of;
        for _ in 0..DEPTH_LIMIT {
            inside = self.strip(inside)?;
            let members = self.dwarf.members(inside)?;
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
            self.dwarf.name_of(inside).unwrap_or_else(|| "?".to_owned())
        ))
    }

    /// The type of the elements of an array or slice, and where the first is.
    fn element(&mut self, at: u64, of: TypeRef, name: &str) -> Result<(u64, TypeRef), String> {
        let (offset, of) = self.unwrap(of)?;
        let (unit, die) = self.dwarf.die(of)?;
        if die.tag() == gimli::DW_TAG_array_type {
            return match self.dwarf.type_of(of.unit, &die) {
                Some(element) => Ok((at.wrapping_add(offset), element)),
                None => Err(format!("the array `{name}` has no type of elements")),
            };
        }
        drop(unit);
        let members = self.dwarf.members(of)?;
        if let Some((data, _)) = slice_parts(&members) {
            let pointer = self.strip(data.of)?;
            let (_, die) = self.dwarf.die(pointer)?;
            if let Some(element) = self.dwarf.type_of(pointer.unit, &die) {
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
            let members = self.dwarf.members(inside)?;
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
            let (_, die) = self.dwarf.die(inside)?;
            let wrapped = matches!(
                die.tag(),
                gimli::DW_TAG_typedef | gimli::DW_TAG_const_type | gimli::DW_TAG_volatile_type
            );
            match self.dwarf.type_of(inside.unit, &die) {
                Some(next) if wrapped => inside = next,
                _ => return Ok(inside),
            }
        }
        Err(damaged("types nest without end"))
    }

    fn shape(&mut self, of: TypeRef) -> Result<Shape, String> {
        let (unit, die) = self.dwarf.die(of)?;
        Ok(match die.tag() {
            gimli::DW_TAG_base_type => Shape::Number,
            gimli::DW_TAG_pointer_type => Shape::Pointer,
            gimli::DW_TAG_array_type => Shape::Array {
                count: self.dwarf.count(of)?,
            },
            gimli::DW_TAG_enumeration_type => {
                let mut names = BTreeMap::new();
                self.dwarf
                    .children(of, gimli::DW_TAG_enumerator, |dwarf, child| {
                        let value = child.attr_value(gimli::DW_AT_const_value);
                        let value = value.as_ref().and_then(|value| {
                            value
                                .udata_value()
                                .or_else(|| value.sdata_value().map(i64::cast_unsigned))
                        });
                        if let (Some(value), Some(name)) =
                            (value, dwarf.text(&unit, child, gimli::DW_AT_name))
                        {
                            names.insert(value, name);
                        }
                    })?;
                Shape::Enum { names }
            }
            _ => match slice_parts(&self.dwarf.members(of)?) {
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
            let (_, die) = self.dwarf.die(inside)?;
            let size = die
                .attr(gimli::DW_AT_byte_size)
                .and_then(gimli::Attribute::udata_value);
            match (size, die.tag()) {
                (Some(size), _) => return Ok(times.saturating_mul(size)),
                (None, gimli::DW_TAG_pointer_type) => return Ok(times.saturating_mul(8)),
                (None, gimli::DW_TAG_array_type) => {
                    times = times.saturating_mul(self.dwarf.count(inside)?);
                    let Some(element) = self.dwarf.type_of(inside.unit, &die) else {
                        return Ok(0);
                    };
                    inside = self.strip(element)?;
                }
                _ => return Ok(0),
            }
        }
        Err(damaged("types nest without end"))
    }
}

/// Rust's `&[T]`: `data_ptr` and `length`.
fn slice_parts(members: &[Member]) -> Option<(&Member, &Member)> {
    let find = |name| members.iter().find(|member| member.name == name);
    Some((find("data_ptr")?, find("length")?))
}
