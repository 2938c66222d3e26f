//! One ELF file: symbols, load addresses, and the way to its debug information.

use super::build_id::BuildId;
use super::frames::{CallFrames, Rules, RulesAt, Sections};
use super::lines::{Function, Lines};
use super::types::Types;
use super::{ImageError, NAME_LIMIT, Place, Segment, Symbol};
use object::elf::{EM_AARCH64, ET_CORE, FileHeader64, PT_LOAD};
use object::read::elf::{ElfFile, FileHeader, ProgramHeader};
use object::{LittleEndian, Object, ObjectSection, ObjectSymbol, SymbolKind};
use std::sync::Arc;

/// One file, without its bytes.
pub(super) struct Elf {
    name: String,
    /// Mangled names with their addresses are looked up here; the rest shows names demangled.
    symbols: Vec<Symbol>,
    segments: Vec<Segment>,
    /// Which build it is of, if what is loaded tells it.
    build_id: Option<BuildId>,
    /// What is wrong with the debug information, or the types in it.
    types: Result<Types, String>,
    /// Its lines, once they were asked for.
    lines: Option<Option<Lines>>,
    call_frames: CallFrames,
}

impl Elf {
    /// Reads an AArch64 ELF of 64 bits, little endian.
    pub(super) fn parse(name: &str, bytes: &[u8]) -> Result<Self, ImageError> {
        let failed = |reason: String| ImageError::File {
            file: name.to_owned(),
            reason,
        };
        let file = ElfFile::<FileHeader64<LittleEndian>>::parse(bytes)
            .map_err(|error| failed(format!("not an ELF file of 64 bits: {error}")))?;
        let header = file.elf_header();
        if header.e_machine(LittleEndian) != EM_AARCH64 {
            return Err(failed("not an ELF for AArch64".to_owned()));
        }
        if header.e_type(LittleEndian) == ET_CORE {
            return Err(failed(
                "a core file, not a program; give it as TARGET instead".to_owned(),
            ));
        }
        let segments: Vec<_> = file
            .elf_program_headers()
            .iter()
            .filter(|segment| segment.p_type(LittleEndian) == PT_LOAD)
            .map(|segment| Segment {
                virt: segment.p_vaddr(LittleEndian),
                phys: segment.p_paddr(LittleEndian),
                size: segment.p_memsz(LittleEndian),
            })
            .collect();
        let section = |id: gimli::SectionId| -> Result<Arc<[u8]>, String> {
            let Some(section) = file.section_by_name(id.name()) else {
                return Ok(Arc::from([]));
            };
            match section.uncompressed_data() {
                Ok(data) => Ok(Arc::from(&*data)),
                Err(error) => Err(format!("section {}: {error}", id.name())),
            }
        };
        Ok(Self {
            name: name.to_owned(),
            symbols: symbols(&file),
            build_id: BuildId::of_file(file.elf_program_headers(), &segments, bytes),
            segments,
            types: Types::load(section),
            lines: None,
            call_frames: call_frames(&file),
        })
    }

    /// The file's name as given.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Functions, variables and labels.
    pub(super) fn symbols(&self) -> &[Symbol] {
        &self.symbols
    }

    /// What is loaded where.
    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Which build it is of, if what is loaded tells it.
    pub(super) fn build_id(&self) -> Option<&BuildId> {
        self.build_id.as_ref()
    }

    /// The linked address of a symbol.
    pub(super) fn address_of(&self, name: &str) -> Option<u64> {
        let symbol = self.symbols.iter().find(|symbol| symbol.name == name)?;
        Some(symbol.address)
    }

    /// The functions at a linked address, innermost first; none where there is no debug information.
    pub(super) fn functions(&mut self, address: u64) -> Vec<Function> {
        let types = self.types.as_ref().ok();
        let lines = self
            .lines
            .get_or_insert_with(|| types.and_then(Types::lines));
        lines
            .as_ref()
            .map_or_else(Vec::new, |lines| lines.functions(address))
    }

    /// How the caller of what is at a linked address is found.
    pub(super) fn rules(&mut self, address: u64) -> Option<Rules> {
        self.call_frames.rules(address)
    }

    /// The rules that were asked for.
    pub(super) fn known_rules(&self) -> Vec<RulesAt> {
        self.call_frames.notes()
    }

    /// Follows a path from a variable that [`Elf::address_of`] knows.
    pub(super) fn place(&mut self, variable: &str, path: &str) -> Result<Place, ImageError> {
        let failed = |reason: String| ImageError::NoMember {
            path: path.to_owned(),
            file: self.name.clone(),
            reason,
        };
        let address = self
            .address_of(variable)
            .ok_or_else(|| failed(format!("no symbol `{variable}`")))?;
        match &mut self.types {
            Ok(types) => types.place(variable, address, path).map_err(failed),
            Err(reason) => Err(failed(reason.clone())),
        }
    }
}

fn call_frames(file: &ElfFile<'_, FileHeader64<LittleEndian>>) -> CallFrames {
    let section = |name| file.section_by_name(name);
    let bytes = |name| -> Option<Arc<[u8]>> {
        let data = section(name)?.uncompressed_data().ok()?;
        Some(Arc::from(&*data))
    };
    let sections = Sections {
        debug_frame: bytes(".debug_frame").unwrap_or_default(),
        eh_frame: bytes(".eh_frame").unwrap_or_default(),
        eh_frame_at: section(".eh_frame").map_or(0, |section| section.address()),
    };
    CallFrames::new(|| sections)
}

fn symbols(file: &ElfFile<'_, FileHeader64<LittleEndian>>) -> Vec<Symbol> {
    file.symbols()
        .filter(|symbol| {
            symbol.is_definition()
                && matches!(
                    symbol.kind(),
                    SymbolKind::Text | SymbolKind::Data | SymbolKind::Unknown | SymbolKind::Label
                )
        })
        .filter_map(|symbol| {
            let name = symbol.name().ok()?;
            // `$x` and `$d` mark code and data inside functions.
            if name.is_empty() || name.starts_with('$') || name.len() > NAME_LIMIT {
                return None;
            }
            Some(Symbol {
                name: format!("{:#}", rustc_demangle::demangle(name)),
                address: symbol.address(),
                size: symbol.size(),
            })
        })
        .collect()
}
