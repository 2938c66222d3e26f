//! Memory of machines that tests make up.

use crate::addr::Span;
use std::collections::BTreeMap;

/// What a range holds; pages that are not there are zeros.
pub(crate) fn from_pages(pages: &BTreeMap<u64, Vec<u8>>, span: Span) -> Vec<u8> {
    let mut bytes = vec![0; span.size as usize];
    for (pa, page) in pages.range(span.start & !0xfff..span.start + span.size) {
        let from = span.start.max(*pa);
        let to = (span.start + span.size).min(pa + 0x1000);
        let part = &page[(from - pa) as usize..(to - pa) as usize];
        bytes[(from - span.start) as usize..(to - span.start) as usize].copy_from_slice(part);
    }
    bytes
}
