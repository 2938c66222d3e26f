//! The road by symbols and types: hyp's variable `HYP`, read out of the machine's memory.

use super::VARIABLE;
use super::description::{Description, LockPlace, PoolPlace, RegimeFacts, in_order};
use crate::addr::Span;
use crate::image::{ImageError, Images, Place, Shape};
use crate::model::Section;
use crate::target::{ReadError, Target, TargetError};
use std::path::Path;

/// More than any build of hyp's variable takes.
const MAX_VARIABLE: u64 = 1 << 20;
/// More regions or sections than any machine has.
const MAX_ELEMENTS: u64 = 4096;
/// hyp is built for pages of 4 KiB only.
const GRANULE: u64 = 4096;

/// Reads `HYP`. Where a part is missing the rest is read, and `problems` says what is not there.
pub(super) fn describe(
    target: &mut dyn Target,
    images: &mut Images,
    problems: &mut Vec<String>,
) -> Result<Option<Description>, TargetError> {
    let file = images.file_of(VARIABLE).map(Path::new);
    let file = file.and_then(Path::file_name).unwrap_or_default();
    let source = format!("{VARIABLE} in {}", file.display());
    let mut variable = match Variable::read(target, images)? {
        Ok(variable) => variable,
        Err(problem) => {
            problems.push(problem);
            return Ok(None);
        }
    };
    if variable.bytes.iter().all(|byte| *byte == 0) {
        problems.push("hyp has not started yet: its variable is all zero".to_owned());
        return Ok(None);
    }
    let physvirt_offset = variable.number("HYP.physvirt_offset").unwrap_or(0);
    variable.physvirt_offset = physvirt_offset;
    if variable.number("HYP.finalised") == Some(0) {
        let problem = "hyp has not finished its start: tables and owners are not final";
        variable.problems.push(problem.to_owned());
    }
    let profile = variable.name("HYP.profile").unwrap_or_default();
    let release = variable.text(target, "HYP.release")?;
    let ram = variable
        .memory(target, "HYP.regions", None)?
        .into_iter()
        .map(|(_, span)| span)
        .collect();
    let sections = variable.memory(target, "HYP.sections", Some("kind"))?;
    let root = |variable: &mut Variable<'_>, path| RegimeFacts {
        root: variable.number(path).unwrap_or(0),
        ..RegimeFacts::default()
    };
    let host_s2 = root(&mut variable, "HYP.host.pgt.root");
    let hyp_s1 = root(&mut variable, "HYP.hyp.pgt.root");
    let locks = [
        ("host", "HYP.host.lock"),
        ("hyp", "HYP.hyp.lock"),
        ("host-pool", "HYP.host.pool.lock"),
        ("hyp-pool", "HYP.hyp.pool.lock"),
    ];
    let locks = locks
        .iter()
        .filter_map(|(name, path)| variable.lock(name, path))
        .collect();
    let pools = ["host", "hyp"]
        .iter()
        .filter_map(|side| variable.pool(side))
        .collect();
    let problems = variable.problems;
    Ok(Some(Description {
        source,
        release,
        profile,
        granule: GRANULE,
        physvirt_offset,
        host_s2,
        hyp_s1,
        ram: in_order(ram),
        sections: sections
            .into_iter()
            .map(|(name, pa)| Section { name, pa })
            .collect(),
        locks,
        pools,
        symbols: images.symbols(),
        problems,
    }))
}

/// The bytes of `HYP`, and the types to read them by.
struct Variable<'a> {
    images: &'a mut Images,
    /// Its linked address.
    address: u64,
    /// Its physical address.
    pa: u64,
    bytes: Vec<u8>,
    physvirt_offset: u64,
    problems: Vec<String>,
}

impl<'a> Variable<'a> {
    fn read(
        target: &mut dyn Target,
        images: &'a mut Images,
    ) -> Result<Result<Self, String>, TargetError> {
        let place = match images.place(VARIABLE) {
            Ok(place) => place,
            Err(error) => return Ok(Err(error.to_string())),
        };
        if place.size > MAX_VARIABLE {
            return Ok(Err(format!(
                "{VARIABLE} has {} bytes, which is too many to be true",
                place.size
            )));
        }
        let Some(pa) = images.load_address(place.address) else {
            let address = place.address;
            return Ok(Err(format!(
                "{VARIABLE} at {address:#x} lies in no segment of its file"
            )));
        };
        Ok(match read(target, Span::new(pa, place.size))? {
            Ok(bytes) => Ok(Self {
                images,
                address: place.address,
                pa,
                bytes,
                physvirt_offset: 0,
                problems: Vec::new(),
            }),
            Err(error) => Err(format!("{VARIABLE}: {error}")),
        })
    }

    /// A part of the variable; where it is missing the problem is noted.
    fn place(&mut self, path: &str) -> Option<Place> {
        let place = self.images.place(path);
        self.noted(place)
    }

    fn noted(&mut self, place: Result<Place, ImageError>) -> Option<Place> {
        place
            .map_err(|error| self.problems.push(error.to_string()))
            .ok()
    }

    /// The value at a place, an integer of at most 8 bytes.
    fn value(&self, at: u64, size: u64) -> Option<u64> {
        little_endian(&self.bytes, at.checked_sub(self.address)?, size)
    }

    fn number(&mut self, path: &str) -> Option<u64> {
        let place = self.place(path)?;
        let value = self.value(place.address, place.size);
        if value.is_none() {
            self.problems.push(format!("`{path}` is no number"));
        }
        value
    }

    /// The name of an enumeration's value.
    fn name(&mut self, path: &str) -> Option<String> {
        let place = self.place(path)?;
        let value = self.value(place.address, place.size)?;
        let name = name_of(&place.shape, value);
        if name.is_none() {
            self.problems
                .push(format!("`{path}` has no name for {value:#x}"));
        }
        name
    }

    /// Where the elements of a slice or array are in physical memory, and how many.
    fn elements(&mut self, path: &str) -> Option<(u64, u64)> {
        let place = self.place(path)?;
        let found = match place.shape {
            Shape::Array { count } => {
                let offset = place.address.wrapping_sub(self.address);
                Some((self.pa.wrapping_add(offset), count))
            }
            Shape::Slice { data, length } => {
                let data = self.value(place.address.wrapping_add(data), 8);
                let length = self.value(place.address.wrapping_add(length), 8);
                data.zip(length)
                    .map(|(data, length)| (data.wrapping_add(self.physvirt_offset), length))
            }
            _ => None,
        };
        if found.is_none() {
            self.problems
                .push(format!("`{path}` is neither an array nor a slice"));
        }
        found
    }

    /// Reads the elements of a slice or array.
    fn read_elements(
        &mut self,
        target: &mut dyn Target,
        path: &str,
    ) -> Result<Vec<Vec<u8>>, TargetError> {
        let element = self.place(&format!("{path}[]"));
        let (Some((pa, count)), Some(element)) = (self.elements(path), element) else {
            return Ok(Vec::new());
        };
        if count > MAX_ELEMENTS || element.size == 0 || element.size > MAX_VARIABLE / MAX_ELEMENTS {
            self.problems.push(format!(
                "`{path}` has {count} elements of {} bytes, which cannot be",
                element.size
            ));
            return Ok(Vec::new());
        }
        Ok(match read(target, Span::new(pa, count * element.size))? {
            Ok(bytes) => bytes
                .chunks_exact(element.size as usize)
                .map(<[u8]>::to_vec)
                .collect(),
            Err(error) => {
                self.problems.push(format!("`{path}`: {error}"));
                Vec::new()
            }
        })
    }

    /// A string.
    fn text(&mut self, target: &mut dyn Target, path: &str) -> Result<Option<String>, TargetError> {
        let bytes = self.read_elements(target, path)?.concat();
        Ok(String::from_utf8(bytes)
            .ok()
            .filter(|text| !text.is_empty()))
    }

    /// Elements that are ranges of memory (`base`, `size`), each with the name of its `kind`.
    fn memory(
        &mut self,
        target: &mut dyn Target,
        path: &str,
        kind: Option<&str>,
    ) -> Result<Vec<(String, Span)>, TargetError> {
        let inner = if kind.is_some() { "range." } else { "" };
        let first = self.place(&format!("{path}[]"));
        let base = self.place(&format!("{path}[].{inner}base"));
        let size = self.place(&format!("{path}[].{inner}size"));
        let kind = kind.and_then(|kind| self.place(&format!("{path}[].{kind}")));
        let (Some(first), Some(base), Some(size)) = (first, base, size) else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        for bytes in self.read_elements(target, path)? {
            let part = |place: &Place| {
                little_endian(
                    &bytes,
                    place.address.wrapping_sub(first.address),
                    place.size,
                )
            };
            let (Some(start), Some(length)) = (part(&base), part(&size)) else {
                self.problems
                    .push(format!("`{path}`: an element has no base or size"));
                continue;
            };
            let name = kind
                .as_ref()
                .and_then(|kind| name_of(&kind.shape, part(kind)?));
            found.push((kebab(&name.unwrap_or_default()), Span::new(start, length)));
        }
        Ok(found)
    }

    fn lock(&mut self, name: &str, path: &str) -> Option<LockPlace> {
        let place = self.place(path)?;
        let offset = place.address.wrapping_sub(self.address);
        Some(LockPlace {
            name: name.to_owned(),
            symbol: path.to_owned(),
            pa: self.pa.wrapping_add(offset),
        })
    }

    fn pool(&mut self, side: &str) -> Option<PoolPlace> {
        let base = self.number(&format!("HYP.{side}.pool.base"))?;
        let pages = self.number(&format!("HYP.{side}.pool.pages"))?;
        let (records, _) = self.elements(&format!("HYP.{side}.pool.records"))?;
        let record = self.place(&format!("HYP.{side}.pool.records[]"))?;
        Some(PoolPlace {
            name: format!("{side}-pool"),
            base,
            pages,
            records,
            record_size: record.size,
        })
    }
}

fn read(target: &mut dyn Target, span: Span) -> Result<Result<Vec<u8>, ReadError>, TargetError> {
    let answer = target.read_phys(&[span])?.pop();
    Ok(answer.unwrap_or(Err(ReadError::Unbacked(span))))
}

/// The integer of `size` bytes at `offset`; `None` outside the bytes or beyond 8 of them.
fn little_endian(bytes: &[u8], offset: u64, size: u64) -> Option<u64> {
    let start = usize::try_from(offset).ok()?;
    let end = start.checked_add(
        usize::try_from(size)
            .ok()
            .filter(|size| (1..=8).contains(size))?,
    )?;
    let mut word = [0; 8];
    let part = bytes.get(start..end)?;
    word[..part.len()].copy_from_slice(part);
    Some(u64::from_le_bytes(word))
}

fn name_of(shape: &Shape, value: u64) -> Option<String> {
    match shape {
        Shape::Enum { names } => names.get(&value).cloned(),
        _ => None,
    }
}

/// An enumerator's name as documents write it: `HostRodata` is `host-rodata`.
fn kebab(name: &str) -> String {
    let mut text = String::new();
    for (at, c) in name.chars().enumerate() {
        if c.is_uppercase() && at > 0 {
            text.push('-');
        }
        text.extend(c.to_lowercase());
    }
    text
}
