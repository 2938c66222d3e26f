//! Lines of a file that is too large to be read as a whole.

use super::{Bytes, Function, Lines};
use crate::image::dwarf::damaged;
use crate::image::kernel::{read, unit_length};
use gimli::{EndianArcSlice, LittleEndian, SectionId};
use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

/// A unit of the kernel has one or two megabytes.
const UNIT_LIMIT: u64 = 64 << 20;
/// How many units are kept: of any more, those of a moment ago go.
const MAX_UNITS: usize = 32;
/// What units share. Of a kernel's these are some 50 MB, and the units themselves 200.
const SHARED: [SectionId; 8] = [
    SectionId::DebugAbbrev,
    SectionId::DebugAddr,
    SectionId::DebugLine,
    SectionId::DebugLineStr,
    SectionId::DebugRanges,
    SectionId::DebugRngLists,
    SectionId::DebugStr,
    SectionId::DebugStrOffsets,
];

/// The debug information of an open file, read unit by unit.
pub(in crate::image) struct ByUnit {
    file: File,
    /// Offset and size in the file, by name.
    sections: BTreeMap<&'static str, (u64, u64)>,
    /// What is read when the first line is asked for, or why it cannot be.
    index: Option<Result<Index, String>>,
    /// By where they begin in `.debug_info`.
    units: BTreeMap<u64, Option<Lines>>,
}

struct Index {
    /// In order of address.
    ranges: Vec<Range>,
    shared: BTreeMap<&'static str, Arc<[u8]>>,
}

/// Addresses that a unit describes.
struct Range {
    start: u64,
    size: u64,
    /// Where the unit begins in `.debug_info`.
    unit: u64,
}

impl ByUnit {
    /// Takes an open file; `section` says where in it a section is, as offset and size, unless it is compressed.
    pub(in crate::image) fn new(
        file: File,
        section: impl Fn(SectionId) -> Option<(u64, u64)>,
    ) -> Self {
        let sections = [SectionId::DebugInfo, SectionId::DebugAranges]
            .iter()
            .chain(&SHARED)
            .filter_map(|id| Some((id.name(), section(*id)?)))
            .collect();
        Self {
            file,
            sections,
            index: None,
            units: BTreeMap::new(),
        }
    }

    /// The functions at a linked address, innermost first.
    ///
    /// # Errors
    /// One sentence: the file cannot be read any more, or is damaged.
    pub(in crate::image) fn functions(&mut self, address: u64) -> Result<Vec<Function>, String> {
        let index = self
            .index
            .get_or_insert_with(|| Index::read(&self.file, &self.sections))
            .as_ref()
            .map_err(Clone::clone)?;
        let Some(unit) = index.unit(address) else {
            return Ok(Vec::new());
        };
        if !self.units.contains_key(&unit) {
            let info = self.sections.get(SectionId::DebugInfo.name());
            let lines = index.lines(&self.file, info.copied().unwrap_or_default(), unit)?;
            if self.units.len() >= MAX_UNITS {
                self.units.clear();
            }
            self.units.insert(unit, lines);
        }
        let lines = self.units.get(&unit).and_then(Option::as_ref);
        Ok(lines.map_or_else(Vec::new, |lines| lines.functions(address)))
    }
}

impl Index {
    fn read(file: &File, sections: &BTreeMap<&'static str, (u64, u64)>) -> Result<Self, String> {
        let whole = |id: SectionId| match sections.get(id.name()) {
            Some((at, size)) => read(file, *at, *size),
            None => Ok(Vec::new()),
        };
        let aranges = whole(SectionId::DebugAranges)?;
        let mut shared = BTreeMap::new();
        for id in SHARED {
            shared.insert(id.name(), whole(id)?.into());
        }
        Ok(Self {
            ranges: ranges(&aranges)?,
            shared,
        })
    }

    /// The unit that describes an address.
    fn unit(&self, address: u64) -> Option<u64> {
        let after = self.ranges.partition_point(|range| range.start <= address);
        let range = self.ranges.get(after.checked_sub(1)?)?;
        (address - range.start < range.size).then_some(range.unit)
    }

    /// The lines of the unit that begins at an offset in `.debug_info`.
    fn lines(&self, file: &File, info: (u64, u64), unit: u64) -> Result<Option<Lines>, String> {
        let (at, size) = info;
        let left = size
            .checked_sub(unit)
            .ok_or_else(|| damaged("a unit lies outside"))?;
        let at = at.saturating_add(unit);
        let length = unit_length(&read(file, at, left.min(4))?)?;
        if length > left.min(UNIT_LIMIT) {
            return Err(damaged("a unit is cut off, or far too large"));
        }
        let unit: Arc<[u8]> = read(file, at, length)?.into();
        let dwarf = gimli::Dwarf::load(|id| -> Result<Bytes, String> {
            let bytes = match id {
                SectionId::DebugInfo => Arc::clone(&unit),
                _ => self.shared.get(id.name()).cloned().unwrap_or_default(),
            };
            Ok(EndianArcSlice::new(bytes, LittleEndian))
        })?;
        Ok(Lines::new(Arc::new(dwarf)))
    }
}

fn ranges(aranges: &[u8]) -> Result<Vec<Range>, String> {
    let mut ranges = Vec::new();
    let section = gimli::DebugAranges::new(aranges, LittleEndian);
    let mut headers = section.headers();
    while let Some(header) = headers.next().map_err(damaged)? {
        let mut entries = header.entries();
        while let Some(entry) = entries.next().map_err(damaged)? {
            ranges.push(Range {
                start: entry.address(),
                size: entry.length(),
                unit: header.debug_info_offset().0 as u64,
            });
        }
    }
    ranges.sort_unstable_by_key(|range| (range.start, range.size));
    Ok(ranges)
}
