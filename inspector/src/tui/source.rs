//! The source lines around where a CPU is, where the file is at hand.

use crate::model::Cpu;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Lines before and behind the line in question.
const AROUND: usize = 60;
/// More than any source file has, in bytes.
const MOST: u64 = 4 << 20;

/// Lines of a source file.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Listing {
    /// Number of the first.
    pub first: u32,
    /// The lines, without control characters.
    pub lines: Vec<String>,
}

/// Reads the lines around where a CPU is. Debug information names files relative to the folder that the program was
/// built in: they are looked for in `folder` and all folders around it.
pub fn read(cpu: &Cpu, folder: &Path) -> Option<Listing> {
    let source = cpu.source.as_ref()?;
    let mut text = String::new();
    let file = File::open(find(Path::new(&source.file), folder)?).ok()?;
    file.take(MOST).read_to_string(&mut text).ok()?;
    let line = usize::try_from(source.line).ok()?;
    let first = line.saturating_sub(AROUND).max(1);
    let lines = text.lines().skip(first - 1).take(2 * AROUND);
    let plain = |line: &str| line.replace('\t', "    ").replace(char::is_control, "");
    let lines: Vec<_> = lines.map(plain).collect();
    // Another version of the file may be shorter.
    (first + lines.len() > line).then_some(Listing {
        first: first as u32,
        lines,
    })
}

fn find(file: &Path, folder: &Path) -> Option<PathBuf> {
    let mut folders = folder.ancestors().map(|folder| folder.join(file));
    folders.find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Source;
    use crate::target::Registers;

    fn cpu(file: &str, line: u32) -> Cpu {
        let mut cpu = Cpu::new(0, Registers::default());
        let file = file.to_owned();
        cpu.source = Some(Source { file, line });
        cpu
    }

    #[test]
    fn a_file_is_found_in_the_folders_around() {
        let root = tempfile::tempdir().expect("a folder");
        let below = root.path().join("a/b");
        std::fs::create_dir_all(root.path().join("src")).expect("room");
        let text: String = (1..=200)
            .map(|line| format!("\tline {line}\x1b\n"))
            .collect();
        std::fs::write(root.path().join("src/x.rs"), text).expect("room");
        let listing = read(&cpu("src/x.rs", 100), &below).expect("it is there");
        assert_eq!((listing.first, listing.lines.len()), (40, 120));
        assert_eq!(listing.lines[60], "    line 100");
        let listing = read(&cpu("src/x.rs", 1), &below).expect("it is there");
        assert_eq!(
            (listing.first, listing.lines[0].as_str()),
            (1, "    line 1")
        );
        for (file, line) in [("src/y.rs", 1), ("src/x.rs", 300), ("src", 1)] {
            assert_eq!(read(&cpu(file, line), &below), None, "{file}:{line}");
        }
        assert_eq!(read(&Cpu::new(0, Registers::default()), &below), None);
    }
}
