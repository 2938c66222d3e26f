//! C's types out of DWARF, for a kernel without BTF: of hundreds of megabytes only the units of a few functions are read.

use super::Field;
use super::ctypes::{self, Graph, Member, Node};
use crate::image::dwarf::{Die, Dwarf, TypeRef, damaged};
use gimli::{Attribute, AttributeValue, EndianSlice, LittleEndian, SectionId};
use std::collections::HashMap;
use std::sync::Arc;

/// Functions whose units have, together, all types that are asked for.
const FUNCTIONS: [&str; 5] = [
    // Page tables, owners, VMs.
    "__kvm_nvhe_handle_host_mem_abort",
    // Hypercalls.
    "__kvm_nvhe_handle_trap",
    // The host's context, `kvm_host_data`.
    "__kvm_nvhe___kvm_vcpu_run",
    // Mailboxes, since Linux 6.7.
    "__kvm_nvhe_kvm_host_ffa_handler",
    // `kvm_mode`, which only EL1 has.
    "kvm_get_mode",
];
/// A unit of the kernel has one or two megabytes.
const UNIT_LIMIT: u64 = 64 << 20;

/// The types of a few units.
pub(super) struct Units(Vec<Unit>);

struct Unit {
    dwarf: Dwarf,
    /// Types that can be asked for by name.
    named: HashMap<String, Vec<TypeRef>>,
}

/// A type: which unit has it, and where.
#[derive(Clone, Copy)]
pub(super) struct Id {
    unit: usize,
    of: TypeRef,
}

impl Units {
    /// Reads the units of [`FUNCTIONS`]. `address` gives a function's linked address; `section` where a debug section is
    /// in the file, as offset and size; `read` a piece of the file.
    ///
    /// # Errors
    /// One sentence: the sections are missing or damaged, or none of the functions is described.
    pub(super) fn load(
        address: impl Fn(&str) -> Option<u64>,
        section: impl Fn(SectionId) -> Option<(u64, u64)>,
        read: impl Fn(u64, u64) -> Result<Vec<u8>, String>,
    ) -> Result<Self, String> {
        let whole = |id| match section(id) {
            Some((at, size)) => read(at, size),
            None => Ok(Vec::new()),
        };
        let aranges = whole(SectionId::DebugAranges)?;
        let addresses: Vec<_> = FUNCTIONS.iter().filter_map(|name| address(name)).collect();
        let mut others: HashMap<&str, Arc<[u8]>> = HashMap::new();
        for id in [
            SectionId::DebugAbbrev,
            SectionId::DebugStr,
            SectionId::DebugLine,
            SectionId::DebugLineStr,
            SectionId::DebugStrOffsets,
        ] {
            others.insert(id.name(), whole(id)?.into());
        }
        let (info, size) = section(SectionId::DebugInfo).unwrap_or_default();
        let mut units = Vec::new();
        for offset in offsets(&aranges, &addresses)? {
            let left = size
                .checked_sub(offset)
                .ok_or_else(|| damaged("a unit lies outside"))?;
            let at = info.saturating_add(offset);
            let length = length(&read(at, left.min(4))?)?;
            if length > left.min(UNIT_LIMIT) {
                return Err(damaged("a unit is cut off, or far too large"));
            }
            let unit: Arc<[u8]> = read(at, length)?.into();
            units.push(Unit::new(Dwarf::load(|id| {
                Ok(match id {
                    SectionId::DebugInfo => Arc::clone(&unit),
                    _ => others.get(id.name()).cloned().unwrap_or_default(),
                })
            })?)?);
        }
        if units.is_empty() {
            let names = FUNCTIONS.join(" or ");
            return Err(format!(
                "no debug information is found by the address of {names}"
            ));
        }
        Ok(Self(units))
    }

    /// As `Kernel::field`.
    pub(super) fn field(&mut self, path: &str) -> Option<Field> {
        ctypes::field(self, path)
    }

    /// As `Kernel::size_of`.
    pub(super) fn size_of(&mut self, name: &str) -> Option<u64> {
        ctypes::size_of(self, name)
    }

    /// As `Kernel::enumerators`.
    pub(super) fn enumerators(&mut self, name: &str) -> Option<Vec<(String, i64)>> {
        ctypes::enumerators(self, name)
    }
}

/// Where the units of addresses begin in `.debug_info`: of each address one, each once.
fn offsets(aranges: &[u8], addresses: &[u64]) -> Result<Vec<u64>, String> {
    let mut missing = addresses.to_vec();
    let mut found = Vec::new();
    let section = gimli::DebugAranges::new(aranges, LittleEndian);
    let mut headers = section.headers();
    while let Some(header) = headers.next().map_err(damaged)? {
        let mut entries = header.entries();
        while let Some(entry) = entries.next().map_err(damaged)? {
            let inside = |address: &u64| {
                address
                    .checked_sub(entry.address())
                    .is_some_and(|inside| inside < entry.length())
            };
            let before = missing.len();
            missing.retain(|address| !inside(address));
            let offset = header.debug_info_offset().0 as u64;
            if missing.len() < before && !found.contains(&offset) {
                found.push(offset);
            }
        }
    }
    Ok(found)
}

/// The size of a unit, with the length that it begins with; the kernel's DWARF is of 32 bits.
pub(in crate::image) fn length(start: &[u8]) -> Result<u64, String> {
    let word = EndianSlice::new(start, LittleEndian);
    let length = gimli::Reader::read_u32(&mut { word }).map_err(damaged)?;
    if length >= 0xffff_fff0 {
        return Err("the debug information is DWARF of 64 bits, which no kernel has".to_owned());
    }
    Ok(u64::from(length) + 4)
}

impl Unit {
    fn new(mut dwarf: Dwarf) -> Result<Self, String> {
        let root = dwarf.root().ok_or_else(|| damaged("an empty unit"))?;
        let (unit, _) = dwarf.die(root)?;
        let mut named: HashMap<String, Vec<TypeRef>> = HashMap::new();
        for tag in [
            gimli::DW_TAG_structure_type,
            gimli::DW_TAG_union_type,
            gimli::DW_TAG_enumeration_type,
            gimli::DW_TAG_typedef,
            gimli::DW_TAG_base_type,
        ] {
            dwarf.children(root, tag, |dwarf, die| {
                let declared = die.attr(gimli::DW_AT_declaration).is_some();
                if let (false, Some(name)) = (declared, dwarf.text(&unit, die, gimli::DW_AT_name)) {
                    named.entry(name).or_default().push(TypeRef {
                        unit: root.unit,
                        entry: die.offset(),
                    });
                }
            })?;
        }
        Ok(Self { dwarf, named })
    }

    fn node(&mut self, of: TypeRef) -> Result<Option<Node<TypeRef>>, String> {
        let (_, die) = self.dwarf.die(of)?;
        let inside = inside(of, &die);
        let number = |name| die.attr(name).and_then(Attribute::udata_value);
        let size = number(gimli::DW_AT_byte_size);
        Ok(match die.tag() {
            gimli::DW_TAG_typedef
            | gimli::DW_TAG_const_type
            | gimli::DW_TAG_volatile_type
            | gimli::DW_TAG_restrict_type
            | gimli::DW_TAG_atomic_type => inside.map(Node::Alias),
            gimli::DW_TAG_pointer_type => Some(Node::Number {
                size: size.unwrap_or(8),
                signed: false,
            }),
            gimli::DW_TAG_base_type => size.map(|size| Node::Number {
                size,
                signed: is_signed(&die),
            }),
            gimli::DW_TAG_array_type => {
                let count = self.dwarf.count(of)?;
                inside.map(|of| Node::Array { of, count })
            }
            gimli::DW_TAG_structure_type | gimli::DW_TAG_union_type => match size {
                Some(size) => Some(Node::Record {
                    size,
                    members: self.members(of)?,
                }),
                None => None,
            },
            gimli::DW_TAG_enumeration_type => {
                let signed = match inside {
                    Some(inside) => is_signed(&self.dwarf.die(inside)?.1),
                    None => false,
                };
                let values = self.values(of, signed)?;
                size.map(|size| Node::Enum {
                    size,
                    signed,
                    values,
                })
            }
            _ => None,
        })
    }

    fn members(&mut self, of: TypeRef) -> Result<Vec<Member<TypeRef>>, String> {
        let (unit, _) = self.dwarf.die(of)?;
        let mut members = Vec::new();
        self.dwarf
            .children(of, gimli::DW_TAG_member, |dwarf, die| {
                let number = |name| die.attr(name).and_then(Attribute::udata_value);
                let Some(inside) = inside(of, die) else {
                    return;
                };
                let byte = number(gimli::DW_AT_data_member_location).unwrap_or(0);
                let bit = number(gimli::DW_AT_data_bit_offset);
                members.push(Member {
                    name: dwarf.text(&unit, die, gimli::DW_AT_name),
                    bit: bit.unwrap_or(byte.saturating_mul(8)),
                    width: number(gimli::DW_AT_bit_size)
                        .and_then(|width| u32::try_from(width).ok()),
                    of: inside,
                });
            })?;
        Ok(members)
    }

    fn values(&mut self, of: TypeRef, signed: bool) -> Result<Vec<(String, i64)>, String> {
        let (unit, _) = self.dwarf.die(of)?;
        let mut values = Vec::new();
        self.dwarf
            .children(of, gimli::DW_TAG_enumerator, |dwarf, die| {
                let value = die.attr_value(gimli::DW_AT_const_value);
                let value = value.as_ref().and_then(|value| {
                    let unsigned = value.udata_value().map(u64::cast_signed);
                    let number = value.sdata_value();
                    if signed { number } else { unsigned.or(number) }
                });
                if let (Some(value), Some(name)) =
                    (value, dwarf.text(&unit, die, gimli::DW_AT_name))
                {
                    values.push((name, value));
                }
            })?;
        Ok(values)
    }
}

/// The type an entry of a unit refers to. One of another unit is not there: only this one was read.
fn inside(unit: TypeRef, die: &Die) -> Option<TypeRef> {
    match die.attr_value(gimli::DW_AT_type)? {
        AttributeValue::UnitRef(entry) => Some(TypeRef { entry, ..unit }),
        _ => None,
    }
}

/// Whether a base type holds signed numbers.
fn is_signed(die: &Die) -> bool {
    matches!(
        die.attr_value(gimli::DW_AT_encoding),
        Some(AttributeValue::Encoding(
            gimli::DW_ATE_signed | gimli::DW_ATE_signed_char | gimli::DW_ATE_float
        ))
    )
}

impl Graph for Units {
    type Id = Id;

    fn named(&mut self, name: &str) -> Vec<Id> {
        let units = self.0.iter().enumerate();
        let types = units.flat_map(|(unit, types)| {
            let found = types.named.get(name).into_iter().flatten();
            found.map(move |of| Id { unit, of: *of })
        });
        types.collect()
    }

    fn node(&mut self, id: Id) -> Option<Node<Id>> {
        let node = self.0.get_mut(id.unit)?.node(id.of).ok()??;
        let wrap = |of| Id { unit: id.unit, of };
        Some(match node {
            Node::Alias(of) => Node::Alias(wrap(of)),
            Node::Number { size, signed } => Node::Number { size, signed },
            Node::Array { of, count } => Node::Array {
                of: wrap(of),
                count,
            },
            Node::Record { size, members } => {
                let members = members.into_iter().map(|member| Member {
                    name: member.name,
                    bit: member.bit,
                    width: member.width,
                    of: wrap(member.of),
                });
                Node::Record {
                    size,
                    members: members.collect(),
                }
            }
            Node::Enum {
                size,
                signed,
                values,
            } => Node::Enum {
                size,
                signed,
                values,
            },
        })
    }
}

#[cfg(test)]
mod tests;
