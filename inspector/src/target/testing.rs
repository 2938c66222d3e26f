//! Memory of machines that tests make up.

use super::ReadError;
use crate::addr::Span;
use std::collections::BTreeMap;

const PAGE: u64 = 0x1000;

/// RAM that is zeros but for what was put there.
#[derive(Clone)]
pub(crate) struct Ram {
    span: Span,
    pages: BTreeMap<u64, Vec<u8>>,
}

impl Ram {
    pub(crate) fn new(span: Span) -> Self {
        Self {
            span,
            pages: BTreeMap::new(),
        }
    }

    pub(crate) fn put(&mut self, pa: u64, bytes: &[u8]) {
        let span = Span::new(pa, bytes.len() as u64);
        assert!(self.span.covers(span), "{span} is no RAM");
        for (pa, byte) in (pa..).zip(bytes) {
            let page = self.pages.entry(pa & !(PAGE - 1));
            let page = page.or_insert_with(|| vec![0; PAGE as usize]);
            page[(pa % PAGE) as usize] = *byte;
        }
    }

    pub(crate) fn word(&self, pa: u64) -> u64 {
        let bytes = from_pages(&self.pages, Span::new(pa, 8));
        bytes
            .first_chunk()
            .map_or(0, |word| u64::from_le_bytes(*word))
    }

    /// As [`super::Target::read_phys`].
    pub(crate) fn read(&self, requests: &[Span]) -> Vec<Result<Vec<u8>, ReadError>> {
        let read = |span: &Span| match self.span.covers(*span) {
            true => Ok(from_pages(&self.pages, *span)),
            false => Err(ReadError::Unbacked(*span)),
        };
        requests.iter().map(read).collect()
    }
}

/// What a range holds; pages that are not there are zeros.
fn from_pages(pages: &BTreeMap<u64, Vec<u8>>, span: Span) -> Vec<u8> {
    let mut bytes = vec![0; span.size as usize];
    for (pa, page) in pages.range(span.start & !(PAGE - 1)..span.start + span.size) {
        let from = span.start.max(*pa);
        let to = (span.start + span.size).min(pa + PAGE);
        let part = &page[(from - pa) as usize..(to - pa) as usize];
        bytes[(from - span.start) as usize..(to - span.start) as usize].copy_from_slice(part);
    }
    bytes
}
