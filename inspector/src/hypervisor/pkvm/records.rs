//! Page records: the array `hyp_vmemmap`, one `struct hyp_page` for each page of RAM.

use super::super::memory::{Memory, NotYet, little_endian};
use crate::addr::Span;
use crate::arch::walk::{self, Kind};
use crate::hypervisor::layout::States;
use crate::hypervisor::meaning::{Side, of_record};
use crate::hypervisor::owners::Said;
use crate::image::kernel::Field;
use crate::model::{PageRecords, State};

/// More records than any machine has that one debugs so: those of 128 GiB in pages of 4 KiB.
const LIMIT: u64 = 256 << 20;
/// More bytes than any record has.
const MAX_SIZE: u64 = 256;

/// What the records say, in runs of pages of which they say the same.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(in crate::hypervisor) struct Records {
    /// The host's state; `None` where the record cannot be read.
    pub(super) host: Vec<Said<Option<State>>>,
    /// The hypervisor's, likewise.
    pub(super) hyp: Vec<Said<Option<State>>>,
    /// Share counts that are not 0.
    pub(super) counts: Vec<Said<u64>>,
    /// What cannot be read or makes no sense, in sentences.
    pub(super) problems: Vec<String>,
}

impl Records {
    /// The state of the pages in a range; mixed where they differ, `None` where one is not known.
    pub(in crate::hypervisor) fn state_of(&self, side: Side, span: Span) -> Option<State> {
        let runs = match side {
            Side::Host => &self.host,
            Side::Hyp => &self.hyp,
            Side::Guest(_) | Side::Untracked => return None,
        };
        let last = span.last()?;
        let from = runs.partition_point(|run| run.span.last().is_none_or(|end| end < span.start));
        let mut found = None;
        for run in runs[from..].iter().take_while(|run| run.span.start <= last) {
            let state = run.what?;
            if found.is_some_and(|found| found != state) {
                return Some(State::Mixed);
            }
            found = Some(state);
        }
        found
    }
}

/// Where the records are and how to read them.
pub(super) struct Place<'a> {
    /// EL2's address of the record of physical address 0.
    pub(super) base: u64,
    /// log2 of a page's bytes.
    pub(super) page_shift: u32,
    pub(super) states: &'a States,
    /// The entries of EL2's own tables, in order of input address.
    pub(super) entries: &'a [walk::Entry],
    /// Where the reference count is in a record.
    pub(super) refcount: Option<Field>,
}

impl Place<'_> {
    /// Where the record of every page is, if its size can be true.
    pub(super) fn all(&self) -> Option<PageRecords> {
        let size = self.states.record_size;
        (1..=MAX_SIZE).contains(&size).then_some(PageRecords {
            base: self.base,
            page_shift: self.page_shift,
            size,
        })
    }
}

/// Reads the records of all of `ram`; `None` where they say nothing of states.
pub(super) fn read(
    memory: &mut Memory<'_>,
    place: &Place<'_>,
    ram: &[Span],
) -> Result<Option<Records>, NotYet> {
    if !place.states.in_records() {
        return Ok(None);
    }
    let mut records = Records::default();
    let size = place.states.record_size;
    if !(1..=MAX_SIZE).contains(&size) {
        records
            .problems
            .push(format!("a page record of {size} bytes cannot be true"));
        return Ok(Some(records));
    }
    let total = ram.iter().map(|ram| ram.size >> place.page_shift);
    let total = total.fold(0_u64, u64::saturating_add).saturating_mul(size);
    if total > LIMIT {
        records.problems.push(format!(
            "page records of {total} bytes were not read: more than {LIMIT}"
        ));
        return Ok(Some(records));
    }
    let first = |ram: &Span| ram.start >> place.page_shift;
    let range = |ram: &Span| {
        let start = place.base.wrapping_add(first(ram).wrapping_mul(size));
        Span::new(start, (ram.size >> place.page_shift) * size)
    };
    let ranges = ram
        .iter()
        .map(|ram| read_range(memory, place.entries, range(ram)));
    // All of them ask before one gives up.
    let ranges: Vec<_> = ranges.collect();
    for (ram, bytes) in ram.iter().zip(ranges) {
        let (bytes, missing) = bytes?;
        if missing > 0 {
            records.problems.push(format!(
                "page records of {ram}: {missing} bytes from EL2's {:#x} on are not mapped or cannot be read",
                range(ram).start
            ));
        }
        let first = first(ram);
        for page in 0..ram.size >> place.page_shift {
            let at = (page * size) as usize;
            let record = bytes.get(at..at + size as usize);
            let record =
                record.and_then(|bytes| bytes.iter().copied().collect::<Option<Vec<u8>>>());
            let span = Span::new((first + page) << place.page_shift, 1 << place.page_shift);
            records.add(place.states, span, record.as_deref());
        }
    }
    Ok(Some(records))
}

/// The reference counts of the pages in a range; `None` where a record cannot be read.
pub(super) fn refcounts(
    memory: &mut Memory<'_>,
    place: &Place<'_>,
    pages: Span,
) -> Result<Option<Vec<u16>>, NotYet> {
    let Some(count) = &place.refcount else {
        return Ok(None);
    };
    let size = place.states.record_size;
    let (first, number) = (
        pages.start >> place.page_shift,
        pages.size >> place.page_shift,
    );
    if size == 0 || number.saturating_mul(size) > LIMIT {
        return Ok(None);
    }
    let start = place.base.wrapping_add(first.wrapping_mul(size));
    let (bytes, _) = read_range(memory, place.entries, Span::new(start, number * size))?;
    let bytes: Option<Vec<u8>> = bytes.into_iter().collect();
    Ok(bytes.and_then(|bytes| {
        let records = bytes.chunks_exact(size as usize);
        let counts = records.map(|record| u16::try_from(value(record, count)?).ok());
        counts.collect()
    }))
}

impl Records {
    fn add(&mut self, states: &States, span: Span, record: Option<&[u8]>) {
        let state = |field: &Field, complemented: bool| {
            let value = value(record?, field)?;
            Some(of_record(if complemented { value ^ 3 } else { value }))
        };
        if let Some(field) = &states.host {
            extend(&mut self.host, span, state(field, false));
        }
        if let Some(hyp) = &states.hyp {
            extend(&mut self.hyp, span, state(&hyp.field, hyp.complemented));
        }
        let count = states.share_count.as_ref().zip(record);
        if let Some(count) = count.and_then(|(field, record)| value(record, field))
            && count != 0
        {
            extend(&mut self.counts, span, count);
        }
    }
}

/// The number in a member.
fn value(record: &[u8], field: &Field) -> Option<u64> {
    let at = usize::try_from(field.offset).ok()?;
    let size = usize::try_from(field.size.min(8)).ok()?;
    let word = little_endian(record.get(at..at.checked_add(size)?)?);
    Some(match field.bits {
        Some((low, width)) if width < 64 => word.checked_shr(low)? & ((1 << width) - 1),
        _ => word,
    })
}

/// Appends a page to the runs.
fn extend<T: PartialEq>(runs: &mut Vec<Said<T>>, span: Span, what: T) {
    match runs.last_mut() {
        Some(last)
            if last.what == what
                && last.span.start.checked_add(last.span.size) == Some(span.start) =>
        {
            last.span.size += span.size;
        }
        _ => runs.push(Said { span, what }),
    }
}

/// The bytes at a range of EL2's addresses, `None` where they cannot be had, and how many those are.
fn read_range(
    memory: &mut Memory<'_>,
    entries: &[walk::Entry],
    range: Span,
) -> Result<(Vec<Option<u8>>, usize), NotYet> {
    let mut bytes = vec![None; range.size as usize];
    let from = entries.partition_point(|entry| {
        let span = Span::new(entry.ia, entry.size);
        span.last().is_none_or(|last| last < range.start)
    });
    let Some(last) = range.last() else {
        return Ok((bytes, 0));
    };
    // Where in `bytes` what lies at which physical address; neighbours in one read.
    let mut wanted: Vec<(usize, Span)> = Vec::new();
    for entry in entries[from..].iter().take_while(|entry| entry.ia <= last) {
        let (Kind::Block | Kind::Page, Some(oa)) = (entry.kind, entry.oa) else {
            continue;
        };
        let leaf = Span::new(entry.ia, entry.size);
        let start = leaf.start.max(range.start);
        let end = leaf.last().unwrap_or(start).min(last);
        let pa = oa.wrapping_add(start - leaf.start);
        let size = end - start + 1;
        let at = (start - range.start) as usize;
        match wanted.last_mut() {
            Some((before, span))
                if *before + span.size as usize == at
                    && span.start.checked_add(span.size) == Some(pa) =>
            {
                span.size += size;
            }
            _ => wanted.push((at, Span::new(pa, size))),
        }
    }
    let spans: Vec<_> = wanted.iter().map(|(_, span)| *span).collect();
    let answers = memory.read_all(&spans)?;
    for ((at, _), answer) in wanted.iter().zip(answers) {
        for (to, byte) in bytes[*at..].iter_mut().zip(answer.unwrap_or_default()) {
            *to = Some(byte);
        }
    }
    let missing = bytes.iter().filter(|byte| byte.is_none()).count();
    Ok((bytes, missing))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypervisor::layout::HypState;

    fn field(offset: u64, size: u64, bits: Option<(u32, u32)>) -> Field {
        Field {
            offset,
            size,
            bits,
            signed: false,
        }
    }

    /// As on Linux 7.3: two nibbles at the top of the first word, the share count in the second.
    fn states() -> States {
        States {
            host: Some(field(0, 4, Some((24, 4)))),
            hyp: Some(HypState {
                field: field(0, 4, Some((28, 4))),
                complemented: true,
            }),
            share_count: Some(field(4, 4, None)),
            record_size: 8,
        }
    }

    fn page(number: u64) -> Span {
        Span::new(number << 12, 0x1000)
    }

    #[test]
    fn records_of_zeros_mean_that_the_host_owns_and_hyp_has_nothing() {
        let mut records = Records::default();
        for (number, word, count) in [
            (0, 0, 0_u64),
            (1, 0, 0),
            // Shared with hyp: 1 and 2 ^ 3.
            (2, 1 << 24 | 1 << 28, 0),
            // Hyp's own: no page and 0 ^ 3; with a reference count beside it.
            (3, 3 << 24 | 3 << 28 | 7, 0),
            // Lent to two guests.
            (4, 1 << 24, 2),
        ] {
            let record = word | count << 32;
            records.add(&states(), page(number), Some(&u64::to_le_bytes(record)));
        }
        records.add(&states(), page(5), None);
        let runs = |runs: &[Said<Option<State>>]| {
            let run =
                |run: &Said<Option<State>>| (run.span.start >> 12, run.span.size >> 12, run.what);
            runs.iter().map(run).collect::<Vec<_>>()
        };
        use State::{NoPage, Owned, SharedBorrowed, SharedOwned};
        assert_eq!(
            runs(&records.host),
            [
                (0, 2, Some(Owned)),
                (2, 1, Some(SharedOwned)),
                (3, 1, Some(NoPage)),
                (4, 1, Some(SharedOwned)),
                (5, 1, None),
            ]
        );
        assert_eq!(
            runs(&records.hyp),
            [
                (0, 2, Some(NoPage)),
                (2, 1, Some(SharedBorrowed)),
                (3, 1, Some(Owned)),
                (4, 1, Some(NoPage)),
                (5, 1, None),
            ]
        );
        assert_eq!(
            records.counts,
            [Said {
                span: page(4),
                what: 2
            }]
        );

        let host = |first: u64, pages: u64| {
            records.state_of(Side::Host, Span::new(first << 12, pages << 12))
        };
        assert_eq!(host(0, 2), Some(Owned));
        assert_eq!(host(0, 3), Some(State::Mixed));
        assert_eq!(host(3, 1), Some(NoPage));
        assert_eq!(host(4, 2), None);
        assert_eq!(host(6, 1), None);
        assert_eq!(
            records.state_of(Side::Hyp, Span::new(0x3000, 0x1000)),
            Some(Owned)
        );
    }

    #[test]
    fn a_member_outside_of_its_record_is_no_number() {
        let record = [0xff; 8];
        assert_eq!(value(&record, &field(4, 4, None)), Some(0xffff_ffff));
        assert_eq!(value(&record, &field(6, 4, None)), None);
        assert_eq!(value(&record, &field(u64::MAX, 8, None)), None);
        assert_eq!(value(&record, &field(0, 4, Some((24, 4)))), Some(0xf));
        assert_eq!(value(&record, &field(0, 4, Some((200, 4)))), None);
        assert_eq!(value(&record, &field(0, 8, Some((0, 64)))), Some(u64::MAX));
    }
}
