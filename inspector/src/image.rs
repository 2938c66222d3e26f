//! Symbols and types of the programs that a machine runs, out of their ELF files.
//!
//! Whatever is looked up is noted, so that a snapshot can carry just the symbols and members that
//! were used ([`Images::notes`]) and be opened without the files ([`Images::recall`]).

mod build_id;
mod dwarf;
mod elf;
mod frames;
pub mod kernel;
mod lines;
mod types;

use crate::addr::{Span, hex};
pub(crate) use build_id::{BuildId, build_id, id_text};
use elf::Elf;
pub(crate) use frames::{Activation, Caller, Rules};
use frames::{CallFrames, RulesAt};
use kernel::{Kernel, KernelNotes};
pub use lines::{Function, Source};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A longer name is not shown to anybody; the limit keeps a damaged string table from multiplying.
const NAME_LIMIT: usize = 2048;

/// Why a file, or an answer from it, could not be had.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ImageError {
    /// The file cannot be used at all.
    #[error("{file}: {reason}")]
    File {
        /// The file, as given.
        file: String,
        /// What is wrong with it, and what is expected.
        reason: String,
    },
    /// No file defines a symbol.
    #[error("no symbol `{symbol}` in {files}")]
    NoSymbol {
        /// What was looked for.
        symbol: String,
        /// Where.
        files: String,
    },
    /// A symbol or member has no such part.
    #[error("{file}: `{path}`: {reason}")]
    NoMember {
        /// The path that was looked for (`HYP.host.lock`).
        path: String,
        /// Where.
        file: String,
        /// The part that is missing, and the type it was looked for in.
        reason: String,
    },
}

/// A named address.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Symbol {
    /// Its name, demangled.
    pub name: String,
    /// Its virtual address at EL2 (or at EL1 for the host's).
    #[serde(with = "hex")]
    pub address: u64,
    /// Its size in bytes; 0 when unknown.
    pub size: u64,
}

/// Where a variable or a part of one is, and what it looks like.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Place {
    /// Virtual address in the program as linked; for elements of a slice, counted from the first.
    #[serde(with = "hex")]
    pub address: u64,
    /// Size in bytes.
    pub size: u64,
    /// Its type, as far as reading it needs.
    pub shape: Shape,
}

/// What kind of value lies at a [`Place`], wrappers of a single member taken off.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// An integer, a boolean or a character.
    Number,
    /// An address in the program's own address space.
    Pointer,
    /// An address and a count of elements, 8 bytes each.
    Slice {
        /// Offset of the address in bytes.
        data: u64,
        /// Offset of the count in bytes.
        length: u64,
    },
    /// Elements in a row.
    Array {
        /// How many.
        count: u64,
    },
    /// A value with names.
    Enum {
        /// The names by value.
        names: BTreeMap<u64, String>,
    },
    /// Several members.
    Record,
}

/// What a snapshot remembers of the files.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
struct Notes {
    /// The file that the places came from.
    file: String,
    /// Its build id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    build_id: Option<String>,
    /// Segments: where the program is linked and where it is loaded.
    segments: Vec<Segment>,
    /// Places by path.
    places: BTreeMap<String, Place>,
    /// Symbols, in order of address.
    symbols: Vec<Symbol>,
    /// Names of the files they came from, without folders.
    #[serde(default)]
    symbol_files: Vec<String>,
    /// Functions by linked address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    functions: Vec<FunctionsAt>,
    /// Rules of call frames; a kernel remembers its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    call_frames: Vec<RulesAt>,
    /// The Linux kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kernel: Option<KernelNotes>,
}

/// The functions at a linked address, innermost first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct FunctionsAt {
    #[serde(with = "hex")]
    address: u64,
    functions: Vec<Function>,
}

/// One loaded piece of a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Segment {
    #[serde(with = "hex")]
    virt: u64,
    #[serde(with = "hex")]
    phys: u64,
    size: u64,
}

impl Segment {
    /// Where linked addresses are loaded to, if all of them are.
    fn phys_of(&self, linked: Span) -> Option<Span> {
        let offset = linked.start.wrapping_sub(self.virt);
        let is_whole = Span::new(self.virt, self.size).covers(linked);
        is_whole.then(|| Span::new(self.phys.wrapping_add(offset), linked.size))
    }
}

/// The programs a machine runs, as far as the user gave their files.
#[derive(Default)]
pub struct Images {
    files: Vec<Elf>,
    /// Those that are of other builds than what runs.
    others: Vec<Elf>,
    kernel: Option<Kernel>,
    recalled: Option<Notes>,
    /// What it remembers of call frames.
    recalled_frames: CallFrames,
    used: Notes,
    /// The functions at addresses that were asked for.
    functions: BTreeMap<u64, Vec<Function>>,
}

impl Images {
    /// Opens ELF files of AArch64 programs, one of which may be a Linux kernel; debug information is read when it is
    /// asked for.
    ///
    /// # Errors
    /// A file cannot be read, or is no such ELF, or several are kernels.
    pub fn open(paths: &[PathBuf]) -> Result<Self, ImageError> {
        let mut images = Self::default();
        for path in paths {
            let Some(kernel) = Kernel::probe(path)? else {
                images.files.push(open(path)?);
                continue;
            };
            if let Some(first) = &images.kernel {
                return Err(ImageError::File {
                    file: kernel.source().to_owned(),
                    reason: format!(
                        "{} is a kernel already, and a machine runs one: give one of the two",
                        first.source()
                    ),
                });
            }
            images.kernel = Some(kernel);
        }
        Ok(images)
    }

    /// The Linux kernel among the programs.
    pub fn kernel(&mut self) -> Option<&mut Kernel> {
        self.kernel.as_mut()
    }

    /// Takes a kernel that was found in the machine's memory.
    pub fn set_kernel(&mut self, kernel: Kernel) {
        self.kernel = Some(kernel);
    }

    /// Adds what a snapshot remembers ([`Images::notes`]); files that were given come first.
    ///
    /// # Errors
    /// The text is not what [`Images::notes`] writes.
    pub fn recall(&mut self, notes: &str) -> Result<(), ImageError> {
        let mut notes: Notes = serde_json::from_str(notes).map_err(|error| ImageError::File {
            file: "the snapshot's notes of symbols and types".to_owned(),
            reason: error.to_string(),
        })?;
        if let Some(kernel) = notes.kernel.take()
            && self.kernel.is_none()
        {
            self.kernel = Some(Kernel::recall(kernel));
        }
        self.recalled_frames = CallFrames::recall(&notes.call_frames);
        self.recalled = Some(notes);
        Ok(())
    }

    /// What was used so far, as JSON text, or `None` when nothing was.
    pub fn notes(&self) -> Option<String> {
        if self.used.places.is_empty() && self.kernel.is_none() {
            return None;
        }
        let functions = self.functions.iter();
        let functions = functions.filter(|(_, functions)| !functions.is_empty());
        let functions = functions.map(|(address, functions)| FunctionsAt {
            address: *address,
            functions: functions.clone(),
        });
        let files = self.files.iter().map(Elf::known_rules);
        let call_frames = files.chain([self.recalled_frames.notes()]).flatten();
        let notes = Notes {
            functions: functions.collect(),
            call_frames: call_frames.collect(),
            kernel: self.kernel.as_ref().map(Kernel::notes),
            ..self.used.clone()
        };
        serde_json::to_string(&notes).ok()
    }

    /// The name of the file that defines a variable, or of the notes that remember it.
    pub fn file_of(&self, variable: &str) -> Option<&str> {
        let file = self
            .files
            .iter()
            .find(|file| file.address_of(variable).is_some());
        file.map(Elf::name).or_else(|| {
            let notes = self.recalled.as_ref()?;
            notes
                .places
                .contains_key(variable)
                .then_some(notes.file.as_str())
        })
    }

    /// The build id of the file that defines a variable, or of the notes that remember it.
    pub(crate) fn build_id_of(&self, variable: &str) -> Option<String> {
        let mut files = self.files.iter();
        match files.find(|file| file.address_of(variable).is_some()) {
            Some(file) => Some(id_text(&file.build_id()?.id)),
            None => self.recalled.as_ref()?.build_id.clone(),
        }
    }

    /// Uses, of the files that define a variable and have a build id, only those that run. All of them are asked about
    /// each time: a machine may start anew with another build.
    ///
    /// # Errors
    /// Those of `runs`.
    pub(crate) fn keep_running<E>(
        &mut self,
        variable: &str,
        mut runs: impl FnMut(&str, &BuildId) -> Result<bool, E>,
    ) -> Result<(), E> {
        self.files.append(&mut self.others);
        let files = self.files.iter();
        let running = files.map(|file| match file.build_id() {
            Some(id) if file.address_of(variable).is_some() => runs(file.name(), id),
            _ => Ok(true),
        });
        let running: Vec<bool> = running.collect::<Result<_, E>>()?;
        let mut running = running.into_iter();
        let others = self.files.extract_if(.., |_| running.next() == Some(false));
        self.others = others.collect();
        Ok(())
    }

    /// Whether a file is of another build than what runs.
    pub(crate) fn has_others(&self) -> bool {
        !self.others.is_empty()
    }

    /// Where a variable or a part of one is: `HYP.host.lock`. `[]` stands for the first element of
    /// an array or a slice: `HYP.regions[].base`. Wrappers of a single member (newtypes,
    /// `UnsafeCell`, `MaybeUninit`, atomics) need not be named.
    ///
    /// # Errors
    /// No file defines the symbol, or its type has no such member, or the debug information is
    /// missing or damaged.
    pub fn place(&mut self, path: &str) -> Result<Place, ImageError> {
        let variable = path.split(['.', '[']).next().unwrap_or(path);
        let found = self
            .files
            .iter_mut()
            .find(|file| file.address_of(variable).is_some());
        let place = match (found, &self.recalled) {
            (Some(file), _) => {
                self.used.file = file.name().to_owned();
                self.used.segments = file.segments().to_vec();
                self.used.build_id = file.build_id().map(|id| id_text(&id.id));
                file.place(variable, path)?
            }
            (None, Some(notes)) => {
                let place = notes.places.get(path).ok_or_else(|| ImageError::NoMember {
                    path: path.to_owned(),
                    file: notes.file.clone(),
                    reason: "not among the members that the snapshot remembers".to_owned(),
                })?;
                self.used.file.clone_from(&notes.file);
                self.used.segments.clone_from(&notes.segments);
                self.used.build_id.clone_from(&notes.build_id);
                place.clone()
            }
            (None, None) => {
                return Err(ImageError::NoSymbol {
                    symbol: variable.to_owned(),
                    files: self.names(),
                });
            }
        };
        self.used.places.insert(path.to_owned(), place.clone());
        Ok(place)
    }

    /// Where the linked address is loaded in physical memory, by the file's program headers.
    pub fn load_address(&self, address: u64) -> Option<u64> {
        let files = self.files.iter().flat_map(Elf::segments);
        let recalled = self.recalled.iter().flat_map(|notes| &notes.segments);
        let place = Span::new(address, 1);
        let mut places = files.chain(recalled).map(|segment| segment.phys_of(place));
        places.find_map(|place| Some(place?.start))
    }

    /// All functions, variables and labels, in order of address.
    pub fn symbols(&mut self) -> Vec<Symbol> {
        let mut symbols: Vec<Symbol> = Vec::new();
        for file in &self.files {
            symbols.extend_from_slice(file.symbols());
        }
        if let Some(notes) = &self.recalled {
            symbols.extend_from_slice(&notes.symbols);
        }
        symbols.sort_by(|a, b| (a.address, a.size, &a.name).cmp(&(b.address, b.size, &b.name)));
        // A file may be given twice, or be what a snapshot remembers.
        symbols.dedup();
        self.used.symbols.clone_from(&symbols);
        self.used.symbol_files = self.symbol_files();
        if let Some(kernel) = &self.kernel {
            symbols.extend_from_slice(&kernel.symbols());
            symbols.sort_by(|a, b| (a.address, a.size, &a.name).cmp(&(b.address, b.size, &b.name)));
        }
        symbols
    }

    /// Remembers, for snapshots, the names of an address; all of those that are not a kernel's are remembered anyway.
    pub fn keep(&mut self, linked: u64) {
        if let Some(kernel) = &mut self.kernel {
            kernel.keep(linked);
        }
    }

    /// The functions at a linked address with their source lines, innermost first: all but the last are inlined there.
    /// None where no file describes it, which the debug information of small parts in assembly does not either.
    ///
    /// The first question to a kernel reads some 50 MB of its file, and each about another of its files a few more.
    pub fn functions(&mut self, linked: u64) -> &[Function] {
        let Self {
            files,
            kernel,
            functions,
            recalled,
            ..
        } = self;
        functions.entry(linked).or_insert_with(|| {
            let kernel = kernel.iter_mut().map(|kernel| kernel.functions(linked));
            let files = files.iter_mut().map(|file| file.functions(linked));
            let noted = recalled.iter().flat_map(|notes| &notes.functions);
            let noted = noted.filter(|noted| noted.address == linked);
            let noted = noted.map(|noted| noted.functions.clone());
            let mut found = files.chain(kernel).chain(noted);
            found.find(|found| !found.is_empty()).unwrap_or_default()
        })
    }

    /// How the caller of what is at a linked address is found, where a file says it.
    pub(crate) fn rules(&mut self, linked: u64) -> Option<Rules> {
        let mut files = self.files.iter_mut();
        files
            .find_map(|file| file.rules(linked))
            .or_else(|| self.kernel.as_mut()?.rules(linked))
            .or_else(|| self.recalled_frames.rules(linked))
    }

    /// Names of the files that [`Images::symbols`] come from, without their folders.
    pub fn symbol_files(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        let files = self.files.iter().map(|file| file_name(file.name()));
        let kernel = self.kernel.iter().map(|kernel| file_name(kernel.source()));
        let files = files.chain(kernel);
        let notes = self.recalled.iter();
        for name in files.chain(notes.flat_map(|notes| notes.symbol_files.iter().cloned())) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    fn names(&self) -> String {
        let kernel = self.kernel.iter().map(Kernel::source);
        let names: Vec<_> = self.files.iter().map(Elf::name).chain(kernel).collect();
        if names.is_empty() {
            "any file: none was given (--image FILE gives one)".to_owned()
        } else {
            names.join(", ")
        }
    }
}

fn file_name(path: &str) -> String {
    let name = Path::new(path).file_name().unwrap_or_default();
    name.display().to_string()
}

fn open(path: &Path) -> Result<Elf, ImageError> {
    let file = path.display().to_string();
    let failed = |reason: String| ImageError::File {
        file: file.clone(),
        reason,
    };
    let metadata = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?;
    if !metadata.is_file() {
        return Err(failed("not a file".to_owned()));
    }
    let bytes = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    Elf::parse(&file, &bytes)
}

#[cfg(test)]
pub(crate) mod tests;
