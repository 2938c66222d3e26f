//! Virtual files: bulk data by name, read at an offset.
//!
//! | file | holds |
//! |---|---|
//! | `hyp/description` | the self-description, JSON |
//! | `hyp/physmem` | physical memory; the offset is the address; what is not RAM reads as an error |
//! | `hyp/tables/host-s2`, `hyp/tables/hyp-s1` | every table page: its address as 8 bytes, least significant first, then its 4096 bytes |
//! | `hyp/stats` | counters, text |

use super::description::write_description;
use super::monitor::write_stats;
use super::walk::{self, Regime};
use super::window::Window;
use super::{Inferior, PAGE};

/// A virtual file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum File {
    /// The self-description.
    Description,
    /// Physical memory.
    Physmem,
    /// The table pages of a regime.
    Tables(Regime),
    /// Counters.
    Stats,
}

/// Names of files; the place in this table is the file's descriptor.
const FILES: [(&[u8], File); 5] = [
    (b"hyp/description", File::Description),
    (b"hyp/physmem", File::Physmem),
    (b"hyp/tables/host-s2", File::Tables(Regime::HostS2)),
    (b"hyp/tables/hyp-s1", File::Tables(Regime::HypS1)),
    (b"hyp/stats", File::Stats),
];

/// The descriptor of a file by its name.
///
/// Descriptors need no state: a name always has the same one, and it stays good after a close.
pub fn open(name: &[u8]) -> Option<u32> {
    let fd = FILES.iter().position(|(known, _)| *known == name)?;
    u32::try_from(fd).ok()
}

/// The file of a descriptor.
pub fn file(fd: u32) -> Option<File> {
    Some(FILES.get(usize::try_from(fd).ok()?)?.1)
}

/// Reads from a file at `offset` and returns how much was read: less than `bytes` at its end.
/// `None` for physical memory that is not RAM, which has no end to speak of.
pub fn pread(inferior: &impl Inferior, file: File, offset: u64, bytes: &mut [u8]) -> Option<usize> {
    let mut window = Window::new(offset, bytes);
    match file {
        File::Physmem => {
            let read = inferior.read_phys(offset, bytes);
            return (read > 0 || bytes.is_empty()).then_some(read);
        }
        // The writers' errors say that the window is full.
        File::Description => drop(write_description(inferior, &mut window)),
        File::Stats => drop(write_stats(inferior, &mut window)),
        File::Tables(regime) => walk::tables(inferior, regime, |table| {
            if !window.pass(8 + PAGE) {
                let mut page = [0; PAGE as usize];
                inferior.read_phys(table, &mut page);
                window.write(&table.to_le_bytes());
                window.write(&page);
            }
            !window.is_full()
        }),
    }
    Some(window.kept())
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, HOST_ROOT, RAM};
    use super::*;
    use std::prelude::rust_2024::*;

    fn read_in_pieces(fake: &Fake, file: File, piece: usize) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let mut bytes = vec![0; piece];
            let read = pread(fake, file, all.len() as u64, &mut bytes).unwrap();
            if read == 0 {
                return all;
            }
            all.extend_from_slice(&bytes[..read]);
        }
    }

    #[test]
    fn names_lead_to_files() {
        for (name, file_of_name) in FILES {
            assert_eq!(file(open(name).unwrap()), Some(file_of_name));
        }
        assert_eq!(open(b"hyp/tables"), None);
        assert_eq!(open(b"/etc/passwd"), None);
        assert_eq!(file(5), None);
        assert_eq!(file(u32::MAX), None);
    }

    #[test]
    fn pieces_of_any_size_give_the_same_file() {
        let fake = Fake::with_tables();
        for file in [File::Description, File::Stats, File::Tables(Regime::HostS2)] {
            let whole = read_in_pieces(&fake, file, 1 << 20);
            assert!(!whole.is_empty());
            for piece in [97, 4096, 4104, 10_000] {
                assert_eq!(
                    read_in_pieces(&fake, file, piece),
                    whole,
                    "{file:?} {piece}"
                );
            }
        }
    }

    #[test]
    fn table_records_are_address_and_page() {
        let fake = Fake::with_tables();
        let bytes = read_in_pieces(&fake, File::Tables(Regime::HostS2), 1 << 20);
        let records: Vec<_> = bytes.chunks(8 + 4096).collect();
        assert_eq!(records.len(), 4);
        assert_eq!(records[0][..8], HOST_ROOT.to_le_bytes());
        assert_eq!(records[0][16..24], 0x4010_3003u64.to_le_bytes());
        assert_eq!(records[3][..8], (HOST_ROOT + 0x1000).to_le_bytes());
    }

    #[test]
    fn physical_memory_ends_where_ram_ends() {
        let fake = Fake::with_tables();
        let mut bytes = [0; 16];
        assert_eq!(
            pread(&fake, File::Physmem, HOST_ROOT + 8, &mut bytes),
            Some(16)
        );
        assert_eq!(bytes[..8], 0x4010_3003u64.to_le_bytes());
        let last = RAM.end() - 4;
        assert_eq!(pread(&fake, File::Physmem, last, &mut bytes), Some(4));
        for outside in [0, RAM.base - 1, RAM.end(), u64::MAX] {
            assert_eq!(pread(&fake, File::Physmem, outside, &mut bytes), None);
        }
    }
}
