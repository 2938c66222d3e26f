//! Reading the parts of a variable out of the machine's memory, by their types.

use super::super::description::{LockPlace, PoolPlace};
use crate::addr::Span;
use crate::image::{Images, Place, Shape};
use crate::target::{ReadError, Target, TargetError};

/// More than any variable of hyp's takes.
const MAX_VARIABLE: u64 = 1 << 20;
/// More regions or sections than any machine has.
const MAX_ELEMENTS: u64 = 4096;

/// The bytes of a variable of hyp's, and the types to read them by.
pub(super) struct Variable<'a> {
    images: &'a mut Images,
    /// Its linked address.
    address: u64,
    /// Its physical address.
    pub(super) pa: u64,
    pub(super) bytes: Vec<u8>,
    /// PA − VA of what its pointers point to; for the caller to fill in.
    pub(super) physvirt_offset: u64,
    /// What could not be read.
    pub(super) problems: Vec<String>,
}

impl<'a> Variable<'a> {
    pub(super) fn read(
        target: &mut dyn Target,
        images: &'a mut Images,
        name: &str,
    ) -> Result<Result<Self, String>, TargetError> {
        let place = match images.place(name) {
            Ok(place) => place,
            Err(error) => return Ok(Err(error.to_string())),
        };
        if place.size > MAX_VARIABLE {
            return Ok(Err(format!(
                "{name} has {} bytes, which is too many to be true",
                place.size
            )));
        }
        let Some(pa) = images.load_address(place.address) else {
            let address = place.address;
            return Ok(Err(format!(
                "{name} at {address:#x} lies in no segment of its file"
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
            Err(error) => Err(format!("{name}: {error}")),
        })
    }

    /// Whether the file knows of this part.
    pub(super) fn has(&mut self, path: &str) -> bool {
        self.images.place(path).is_ok()
    }

    /// A part of the variable; where it is missing the problem is noted.
    fn place(&mut self, path: &str) -> Option<Place> {
        let place = self.images.place(path);
        place
            .map_err(|error| self.problems.push(error.to_string()))
            .ok()
    }

    /// The value at a place, an integer of at most 8 bytes.
    fn value(&self, at: u64, size: u64) -> Option<u64> {
        little_endian(&self.bytes, at.checked_sub(self.address)?, size)
    }

    pub(super) fn number(&mut self, path: &str) -> Option<u64> {
        let place = self.place(path)?;
        let value = self.value(place.address, place.size);
        if value.is_none() {
            self.problems.push(format!("`{path}` is no number"));
        }
        value
    }

    /// The name of an enumeration's value.
    pub(super) fn name(&mut self, path: &str) -> Option<String> {
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
    pub(super) fn text(
        &mut self,
        target: &mut dyn Target,
        path: &str,
    ) -> Result<Option<String>, TargetError> {
        let bytes = self.read_elements(target, path)?.concat();
        Ok(String::from_utf8(bytes)
            .ok()
            .filter(|text| !text.is_empty()))
    }

    /// Elements that are ranges of memory (`base`, `size`), each with the name of its `kind`.
    pub(super) fn memory(
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

    pub(super) fn lock(&mut self, name: &str, path: &str) -> Option<LockPlace> {
        let place = self.place(path)?;
        let offset = place.address.wrapping_sub(self.address);
        Some(LockPlace {
            name: name.to_owned(),
            symbol: path.to_owned(),
            pa: self.pa.wrapping_add(offset),
        })
    }

    pub(super) fn pool(&mut self, side: &str) -> Option<PoolPlace> {
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

pub(super) fn read(
    target: &mut dyn Target,
    span: Span,
) -> Result<Result<Vec<u8>, ReadError>, TargetError> {
    let answer = target.read_phys(&[span])?.pop();
    Ok(answer.unwrap_or(Err(ReadError::Unbacked(span))))
}

/// The integer of `size` bytes at `offset`; `None` outside the bytes or beyond 8 of them.
pub(super) fn little_endian(bytes: &[u8], offset: u64, size: u64) -> Option<u64> {
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
