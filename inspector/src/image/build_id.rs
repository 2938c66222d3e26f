//! Builds of a program, told apart by the GNU build id in its ELF notes.

use super::Segment;
use crate::addr::Span;
use object::LittleEndian;
use object::elf::{PT_NOTE, ProgramHeader64};
use object::read::elf::ProgramHeader;

/// Notes that are loaded are a few dozen bytes.
const NOTES_LIMIT: u64 = 4096;

/// What a build of a program is known by in a machine's memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct BuildId {
    /// Its bytes.
    pub(crate) id: Vec<u8>,
    /// Where the notes with it are in physical memory.
    pub(crate) notes: Span,
}

impl BuildId {
    /// That of an ELF file, if a segment that is loaded holds it.
    pub(super) fn of_file(
        headers: &[ProgramHeader64<LittleEndian>],
        loaded: &[Segment],
        file: &[u8],
    ) -> Option<Self> {
        headers.iter().find_map(|header| {
            let bytes = header.data(LittleEndian, file).ok()?;
            let id = build_id(bytes).filter(|id| !id.is_empty())?;
            let size = bytes.len() as u64;
            let linked = Span::new(header.p_vaddr(LittleEndian), size);
            let fits = header.p_type(LittleEndian) == PT_NOTE && size <= NOTES_LIMIT;
            let mut places = loaded.iter().filter_map(|segment| segment.phys_of(linked));
            Some(Self {
                id: id.to_vec(),
                notes: places.next().filter(|_| fits)?,
            })
        })
    }
}

/// The build id in ELF notes: name `GNU`, type 3.
pub(crate) fn build_id(notes: &[u8]) -> Option<&[u8]> {
    let mut rest = notes;
    loop {
        let (header, after) = rest.split_at_checked(12)?;
        let number = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let (name_size, size) = (number(0) as usize, number(4) as usize);
        let name = after.get(..name_size)?;
        let after = after.get(name_size.checked_next_multiple_of(4)?..)?;
        let contents = after.get(..size)?;
        if name == b"GNU\0" && number(8) == 3 {
            return Some(contents);
        }
        rest = after.get(size.checked_next_multiple_of(4)?..)?;
    }
}

/// A build id as people write it.
pub(crate) fn id_text(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Elf;
    use crate::image::kernel::made::note;
    use crate::image::tests::elf_file::Program;

    #[test]
    fn the_build_id_is_the_gnu_note_of_type_3() {
        let id = [7_u8; 20];
        let other = note(b"Linux\0", 0x100, b"salt");
        let wanted = note(b"GNU\0", 3, &id);
        let notes = [other.clone(), wanted.clone()].concat();
        assert_eq!(build_id(&notes), Some(&id[..]));
        assert_eq!(build_id(&wanted), Some(&id[..]));
        assert_eq!(build_id(&other), None);
        assert_eq!(build_id(&[0; 64]), None);
        assert_eq!(build_id(&[0xff; 64]), None);
        for cut in 0..wanted.len() {
            assert_eq!(build_id(&wanted[..cut]), None, "{cut}");
        }
        assert_eq!(id_text(&[0, 0xab]), "00ab");
    }

    const LINKED: u64 = 0x40_4020_0000;

    fn build(linked: u64, notes: &[u8]) -> Option<BuildId> {
        let program = Program {
            segments: vec![(0x1000, 0x1000, 0x1000), (LINKED, 0x4020_0000, 0x100)],
            notes: Some((linked, notes.to_vec())),
            ..Program::default()
        };
        let elf = Elf::parse("hyp.elf", &program.elf()).expect("a sound file");
        elf.build_id().cloned()
    }

    #[test]
    fn a_file_tells_where_its_build_id_is_loaded() {
        let notes = note(b"GNU\0", 3, &[7; 20]);
        let at = |pa| {
            let (id, notes) = (vec![7; 20], Span::new(pa, 36));
            Some(BuildId { id, notes })
        };
        assert_eq!(build(LINKED, &notes), at(0x4020_0000));
        assert_eq!(build(LINKED + 0x100 - 36, &notes), at(0x4020_00dc));
        let both = [note(b"Linux\0", 0x100, b"salt"), notes].concat();
        assert_eq!(build(LINKED, &both).map(|id| id.notes.size), Some(60));
    }

    #[test]
    fn notes_that_are_damaged_or_not_loaded_tell_no_build() {
        let notes = note(b"GNU\0", 3, &[7; 20]);
        for cut in 0..notes.len() {
            assert_eq!(build(LINKED, &notes[..cut]), None, "{cut}");
        }
        for outside in [0, LINKED - 1, LINKED + 0x100 - 35, LINKED + 0x100, u64::MAX] {
            assert_eq!(build(outside, &notes), None, "{outside:#x}");
        }
        assert_eq!(build(LINKED, &note(b"GNU\0", 3, &[])), None, "no id");
        for (at, size) in [(0, u32::MAX), (4, u32::MAX), (4, 21), (0, 0)] {
            let mut odd = notes.clone();
            odd[at..at + 4].copy_from_slice(&size.to_le_bytes());
            assert_eq!(build(LINKED, &odd), None, "{size:#x} at {at}");
        }
    }
}
