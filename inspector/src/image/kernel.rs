//! A Linux kernel as a program: its names, its types, and how to recognise it, from whichever source there is.
//!
//! Addresses here are as linked. Where the kernel runs, the hypervisor layer finds out.

mod anchor;
pub mod btf;
mod contents;
mod ctypes;
mod index;
mod kallsyms;
mod notes;
mod parts;
mod ram;
mod raw;
mod signs;
mod types;
mod units;
mod vmlinux;

pub(crate) use ram::{ReadPhys, find as find_in_ram};
pub use types::Field;
pub(crate) use types::KernelTypes;
pub(in crate::image) use units::length as unit_length;
pub(in crate::image) use vmlinux::read;

use super::frames::{CallFrames, Rules};
use super::lines::{ByUnit, Function};
use super::{ImageError, Symbol};
use crate::addr::Span;
use crate::target::TargetError;
use btf::Btf;
use contents::Contents;
use index::Index;
pub(super) use notes::KernelNotes;
use notes::{Piece, Used};
use parts::Parts;
use std::path::Path;
use std::sync::Arc;

/// The names of EL2's own objects begin so in the symbol table; in the types they have their plain names.
pub const NVHE: &str = "__kvm_nvhe_";

/// The source of a kernel that was found in the machine's memory.
pub(crate) const GUEST_RAM: &str = "guest RAM";

/// One kernel.
pub struct Kernel {
    source: String,
    release: Option<String>,
    build_id: Option<Vec<u8>>,
    symbols: Arc<[Symbol]>,
    by_name: Index,
    types: Result<KernelTypes, String>,
    contents: Contents,
    /// Only a file has them.
    lines: Option<ByUnit>,
    /// A file has them, and a snapshot those that were asked for.
    call_frames: CallFrames,
    used: Used,
}

/// A kernel that was found in a machine's RAM.
pub(crate) struct InRam {
    pub(crate) kernel: Kernel,
    /// Physical − linked, wrapping, where the memory itself tells it.
    pub(crate) image_offset: Option<u64>,
}

impl Kernel {
    /// Opens an AArch64 `vmlinux`.
    ///
    /// # Errors
    /// The file cannot be read, or is no such kernel.
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        Self::probe(path)?.ok_or_else(|| ImageError::File {
            file: path.display().to_string(),
            reason: "not a Linux kernel: no ELF file with the symbols `_text` and `linux_banner`"
                .to_owned(),
        })
    }

    /// Opens a kernel; `None` when the file is something else.
    pub(super) fn probe(path: &Path) -> Result<Option<Self>, ImageError> {
        if let Some(kernel) = vmlinux::open(path)? {
            return Ok(Some(kernel));
        }
        let source = path.display().to_string();
        match raw::read(path)? {
            Some(bytes) => Self::of_image(&source, bytes).map(Some),
            None => Ok(None),
        }
    }

    /// A kernel out of the bytes of a raw `Image`, or of one that is compressed with gzip, also as an EFI program.
    ///
    /// # Errors
    /// The bytes are none of these, are damaged, or hold no names.
    pub fn of_image(source: &str, bytes: Vec<u8>) -> Result<Self, ImageError> {
        let parts = raw::parse(bytes).map_err(|reason| ImageError::File {
            file: source.to_owned(),
            reason,
        })?;
        Ok(Self::of_parts(source, parts))
    }

    /// The kernel in a machine's RAM, by a physical address in its code. `None` when there is none.
    ///
    /// # Errors
    /// The link failed.
    pub(crate) fn in_ram(
        read: &mut ReadPhys<'_>,
        ram: &[Span],
        near: u64,
    ) -> Result<Option<InRam>, TargetError> {
        let found = ram::kernel(read, ram, near)?;
        if found.parts.symbols.is_empty() {
            return Ok(None);
        }
        Ok(Some(InRam {
            image_offset: found.offset,
            kernel: Self::of_parts(GUEST_RAM, found.parts),
        }))
    }

    fn of_parts(source: &str, parts: Parts) -> Self {
        let types = parts.btf.and_then(Btf::parse);
        let types = types.map(|btf| KernelTypes::btf(btf, source));
        Self {
            release: parts.release,
            build_id: parts.build_id,
            ..Self::new(source.to_owned(), parts.symbols, types)
        }
    }

    /// A kernel of which names are known, in any order, and maybe types.
    pub(crate) fn new(
        source: String,
        mut symbols: Vec<Symbol>,
        types: Result<KernelTypes, String>,
    ) -> Self {
        symbols.sort_unstable_by(|a, b| {
            (a.address, a.size, &a.name).cmp(&(b.address, b.size, &b.name))
        });
        Self {
            source,
            release: None,
            build_id: None,
            by_name: Index::new(&symbols),
            symbols: symbols.into(),
            types,
            contents: Contents::None,
            lines: None,
            call_frames: CallFrames::default(),
            used: Used::default(),
        }
    }

    /// Where names and types come from: a file's name, or `guest RAM`.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Its release (`6.1.0-50-cloud-arm64`), where it says.
    pub fn release(&self) -> Option<&str> {
        self.release.as_deref()
    }

    /// The build id of its notes, where it has one.
    pub fn build_id(&self) -> Option<&[u8]> {
        self.build_id.as_deref()
    }

    /// All symbols, in order of linked address.
    pub fn symbols(&self) -> Arc<[Symbol]> {
        Arc::clone(&self.symbols)
    }

    /// The linked address and size of a symbol; the size is 0 where it is not known.
    pub fn symbol(&mut self, name: &str) -> Option<Span> {
        let (place, span) = self.find(name)?;
        self.used.symbols.insert(place);
        Some(span)
    }

    /// Remembers, for snapshots, the symbols that name a linked address.
    pub fn keep(&mut self, linked: u64) {
        self.used.keep(&self.symbols, linked);
    }

    /// The bytes at linked addresses as they were built, before the kernel patched itself; at most 1 MiB. `None` where
    /// the source has not all of them.
    pub fn contents(&mut self, linked: Span) -> Option<Vec<u8>> {
        let bytes = self.contents.read(linked)?;
        self.used.contents.insert(Piece::new(linked.start, &bytes));
        Some(bytes)
    }

    /// The functions at a linked address, innermost first; none where the source has no lines, or cannot be read.
    pub(super) fn functions(&mut self, linked: u64) -> Vec<Function> {
        let found = self.lines.as_mut().map(|lines| lines.functions(linked));
        found.and_then(Result::ok).unwrap_or_default()
    }

    /// How the caller of what is at a linked address is found, where the source says it.
    pub(crate) fn rules(&mut self, linked: u64) -> Option<Rules> {
        self.call_frames.rules(linked)
    }

    /// Where its types come from, or why there are none, in one sentence.
    pub fn types(&self) -> Result<&str, &str> {
        self.types
            .as_ref()
            .map(KernelTypes::source)
            .map_err(String::as_str)
    }

    /// A member by its path from a record: `kvm_pgtable.mmu`, `pkvm_hyp_vm.kvm.arch.mmu.pgd_phys`. Anonymous unions and
    /// structs need not be named; a pointer is not followed. `None` where there is no such member, which is how layouts
    /// are told apart.
    pub fn field(&mut self, path: &str) -> Option<Field> {
        self.types.as_mut().ok()?.field(path)
    }

    /// The size of a record in bytes (`hyp_page`).
    pub fn size_of(&mut self, record: &str) -> Option<u64> {
        self.types.as_mut().ok()?.size_of(record)
    }

    /// The names of an enumeration with their values.
    pub fn enumerators(&mut self, enumeration: &str) -> Option<Vec<(String, i64)>> {
        self.types.as_mut().ok()?.enumerators(enumeration)
    }

    /// The place of a symbol in the table, and what it names.
    fn find(&self, name: &str) -> Option<(usize, Span)> {
        let place = self.by_name.find(&self.symbols, name)?;
        let symbol = self.symbols.get(place)?;
        Some((place, Span::new(symbol.address, symbol.size)))
    }
}

#[cfg(test)]
#[path = "../../tests/support/kernel/mod.rs"]
pub(crate) mod made;
#[cfg(test)]
mod tests;
