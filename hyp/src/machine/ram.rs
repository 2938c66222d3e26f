//! Simulated RAM: pages come into being when they are first written; until then they read as zero.

use crate::addr::PAGE_SIZE;
use crate::debug::Region;
use std::collections::HashMap;
use std::prelude::rust_2024::*;

const PAGE: usize = PAGE_SIZE as usize;

/// One bank of RAM.
#[derive(Debug)]
pub(super) struct Ram {
    region: Region,
    pages: HashMap<u64, Box<[u8; PAGE]>>,
}

impl Ram {
    pub(super) fn new(region: Region) -> Self {
        Self {
            region,
            pages: HashMap::new(),
        }
    }

    /// Whether all of `size` bytes at `pa` are RAM.
    pub(super) fn contains(&self, pa: u64, size: usize) -> bool {
        pa >= self.region.base && (size as u64) <= self.region.end().saturating_sub(pa)
    }

    /// Fills `bytes` from `pa` on and returns how many there were before RAM ended.
    pub(super) fn read(&self, pa: u64, bytes: &mut [u8]) -> usize {
        if !self.region.contains(pa) {
            return 0;
        }
        let size = (self.region.end() - pa).min(bytes.len() as u64) as usize;
        for (pa, piece) in pieces(pa, size) {
            let offset = (pa % PAGE_SIZE) as usize;
            match self.pages.get(&(pa / PAGE_SIZE)) {
                Some(page) => {
                    let size = piece.len();
                    bytes[piece].copy_from_slice(&page[offset..offset + size]);
                }
                None => bytes[piece].fill(0),
            }
        }
        size
    }

    /// Writes all of `bytes`; false, and nothing written, when not all of it is RAM.
    pub(super) fn write(&mut self, pa: u64, bytes: &[u8]) -> bool {
        if !self.contains(pa, bytes.len()) {
            return false;
        }
        for (pa, piece) in pieces(pa, bytes.len()) {
            let offset = (pa % PAGE_SIZE) as usize;
            let page = self
                .pages
                .entry(pa / PAGE_SIZE)
                .or_insert_with(|| Box::new([0; PAGE]));
            page[offset..offset + piece.len()].copy_from_slice(&bytes[piece]);
        }
        true
    }

    /// Reads a word, or `None` where not all of it is RAM.
    pub(super) fn read_u64(&self, pa: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        (self.read(pa, &mut bytes) == bytes.len()).then(|| u64::from_le_bytes(bytes))
    }

    /// Makes a page zero again; false when it is no RAM.
    pub(super) fn zero_page(&mut self, pa: u64) -> bool {
        self.pages.remove(&(pa / PAGE_SIZE));
        self.region.contains(pa)
    }
}

/// Cuts `size` bytes at `pa` at page boundaries: the address of each piece and where it is in the bytes.
fn pieces(pa: u64, size: usize) -> impl Iterator<Item = (u64, core::ops::Range<usize>)> {
    let mut done = 0;
    core::iter::from_fn(move || {
        let at = pa + done as u64;
        let room = (PAGE_SIZE - at % PAGE_SIZE) as usize;
        let piece = done..(done + room).min(size);
        done = piece.end;
        (!piece.is_empty()).then_some((at, piece))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REGION: Region = Region {
        base: 0x4000,
        size: 0x4000,
    };

    #[test]
    fn the_edges_of_ram() {
        let mut ram = Ram::new(REGION);
        assert!(ram.write(0x7ff8, &[1; 8]));
        assert!(!ram.write(0x7ff9, &[2; 8]));
        assert!(!ram.write(0x3fff, &[2; 8]));
        assert!(!ram.write(u64::MAX, &[2; 8]));
        assert_eq!(
            ram.read_u64(0x7ff8),
            Some(0x0101_0101_0101_0101),
            "refused writes leave no trace"
        );
        assert_eq!(ram.read_u64(0x7ff9), None);
        let mut bytes = [9; 4];
        assert_eq!(ram.read(0x7ffe, &mut bytes), 2);
        assert_eq!(ram.read(0x8000, &mut bytes), 0);
        assert!(!ram.zero_page(0x8000));
        assert!(ram.zero_page(0x7000));
        assert_eq!(ram.read_u64(0x7ff8), Some(0));
    }

    proptest! {
        /// Sparse RAM behaves as an array does.
        #[test]
        fn ram_is_an_array(
            writes in prop::collection::vec((0u64..0x4000, prop::collection::vec(any::<u8>(), 0..5000)), 0..6),
            at in 0u64..0x4000,
            size in 0usize..9000,
        ) {
            let mut ram = Ram::new(REGION);
            let mut model = vec![0u8; 0x4000];
            for (offset, bytes) in &writes {
                let end = *offset as usize + bytes.len();
                let fits = end <= model.len();
                prop_assert_eq!(ram.write(REGION.base + offset, bytes), fits);
                if fits {
                    model[*offset as usize..end].copy_from_slice(bytes);
                }
            }
            let mut read = vec![0xff; size];
            let count = ram.read(REGION.base + at, &mut read);
            let end = (at as usize + size).min(model.len());
            prop_assert_eq!(&read[..count], &model[at as usize..end]);
        }
    }
}
