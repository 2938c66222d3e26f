//! A kernel out of its `vmlinux`, of which only the parts that are needed are read: with debug information it has
//! hundreds of megabytes.

use super::btf::Btf;
use super::contents::{Contents, Loaded};
use super::units::Units;
use super::{Kernel, KernelTypes, NVHE, Symbol};
use crate::addr::Span;
use crate::image::frames::{CallFrames, SECTION_LIMIT, Sections};
use crate::image::lines::ByUnit;
use crate::image::{ImageError, NAME_LIMIT};
use object::elf::{EM_AARCH64, ET_REL, FileHeader64, PT_LOAD, STT_FILE, STT_SECTION, Sym64};
use object::read::elf::{ElfFile, FileHeader, ProgramHeader, SectionHeader, Sym};
use object::{LittleEndian, Object, ObjectSection, ReadCache};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

type Vmlinux<'a> = ElfFile<'a, FileHeader64<LittleEndian>, &'a ReadCache<File>>;

/// No banner is longer.
const BANNER_LIMIT: u64 = 1024;

/// Opens a `vmlinux`; `None` when the file is something else.
///
/// # Errors
/// The file cannot be read, or is a kernel that is of no use.
pub(super) fn open(path: &Path) -> Result<Option<Kernel>, ImageError> {
    let failed = |reason: String| ImageError::File {
        file: path.display().to_string(),
        reason,
    };
    let io = |error: std::io::Error| failed(error.to_string());
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        return Err(failed("not a file".to_owned()));
    }
    let file = File::open(path).map_err(io)?;
    // The cache keeps what it read: it goes when all is copied.
    let cache = ReadCache::new(file.try_clone().map_err(io)?);
    let Ok(elf) = Vmlinux::parse(&cache) else {
        return Ok(None);
    };
    let symbols = symbols(&elf);
    let btf = elf.section_by_name(".BTF");
    let has = |name: &str| symbols.iter().any(|symbol| symbol.name == name);
    let is_kernel = has("_text") && has("linux_banner")
        || btf.is_some()
            && (symbols.is_empty() || symbols.iter().any(|symbol| symbol.name.starts_with(NVHE)));
    if !is_kernel {
        return Ok(None);
    }
    if elf.elf_header().e_machine(LittleEndian) != EM_AARCH64 {
        return Err(failed("a Linux kernel, but not for AArch64".to_owned()));
    }
    if elf.elf_header().e_type(LittleEndian) == ET_REL {
        return Err(failed(
            "a kernel module; give the kernel's own vmlinux".to_owned(),
        ));
    }
    if symbols.is_empty() {
        return Err(failed(
            "a Linux kernel without symbols; give the vmlinux of its debug package".to_owned(),
        ));
    }

    let source = path.display().to_string();
    let types = match btf.and_then(|section| section.file_range()) {
        Some((at, size)) => read(&file, at, size)
            .and_then(Btf::parse)
            .map(|btf| KernelTypes::btf(btf, &source))
            .map_err(|reason| format!("the types in {source} cannot be read: {reason}")),
        None if elf.section_by_name(".debug_info").is_some() => units(&elf, &file, &symbols)
            .map(|units| KernelTypes::dwarf(units, &source))
            .map_err(|reason| format!("the types in {source} cannot be read: {reason}")),
        None => Err(format!(
            "{source} describes no types (it has neither BTF nor DWARF): \
             give the vmlinux of its debug package"
        )),
    };
    let loaded = loaded(&elf);
    let build_id = elf.build_id().ok().flatten().map(<[u8]>::to_vec);
    let section = |id: gimli::SectionId| elf.section_by_name(id.name())?.file_range();
    let lines = ByUnit::new(file.try_clone().map_err(io)?, section);
    let call_frames = call_frames(&elf, file.try_clone().map_err(io)?);
    drop(cache);
    let mut kernel = Kernel::new(source, symbols, types);
    kernel.lines = Some(lines);
    kernel.call_frames = call_frames;
    kernel.contents = Contents::File { file, loaded };
    kernel.build_id = build_id;
    kernel.release = release(&kernel);
    Ok(Some(kernel))
}

/// Functions, variables and labels, local ones too.
fn symbols(elf: &Vmlinux<'_>) -> Vec<Symbol> {
    let table = elf.elf_symbol_table();
    // All names at once: one by one the cache would keep a piece for each.
    let section = elf.elf_section_table().section(table.string_section());
    let strings = section.and_then(|section| section.data(LittleEndian, elf.data()));
    let strings = strings.unwrap_or_default();
    let symbol = |symbol: &Sym64<LittleEndian>| {
        let kind = symbol.st_type();
        if symbol.is_undefined(LittleEndian) || kind == STT_FILE || kind == STT_SECTION {
            return None;
        }
        let start = usize::try_from(symbol.st_name(LittleEndian)).ok()?;
        let name = strings.get(start..)?;
        let length = memchr::memchr(0, name.get(..NAME_LIMIT).unwrap_or(name))?;
        let name = std::str::from_utf8(&name[..length]).ok()?;
        // `$x` and `$d` mark code and data inside functions.
        if name.is_empty() || name.starts_with('$') {
            return None;
        }
        Some(Symbol {
            name: name.to_owned(),
            address: symbol.st_value(LittleEndian),
            size: symbol.st_size(LittleEndian),
        })
    };
    table.iter().filter_map(symbol).collect()
}

/// The debug information of EL2.
fn units(elf: &Vmlinux<'_>, file: &File, symbols: &[Symbol]) -> Result<Units, String> {
    let address = |name: &str| {
        let symbol = symbols.iter().find(|symbol| symbol.name == name)?;
        Some(symbol.address)
    };
    let section = |id: gimli::SectionId| elf.section_by_name(id.name())?.file_range();
    Units::load(address, section, |at, size| read(file, at, size))
}

/// Its call frame information; one that is compressed is not read.
fn call_frames(elf: &Vmlinux<'_>, file: File) -> CallFrames {
    let section = |name| elf.section_by_name(name);
    let range = |name| section(name)?.file_range();
    let [debug_frame, eh_frame] = [".debug_frame", ".eh_frame"].map(range);
    let eh_frame_at = section(".eh_frame").map_or(0, |section| section.address());
    CallFrames::new(move || {
        let bytes = |range: Option<(u64, u64)>| {
            let range = range.filter(|(_, size)| *size <= SECTION_LIMIT);
            let bytes = range.and_then(|(at, size)| read(&file, at, size).ok());
            bytes.unwrap_or_default().into()
        };
        Sections {
            debug_frame: bytes(debug_frame),
            eh_frame: bytes(eh_frame),
            eh_frame_at,
        }
    })
}

/// What the file has of memory, by its program headers.
fn loaded(elf: &Vmlinux<'_>) -> Vec<Loaded> {
    let segments = elf.elf_program_headers().iter();
    let segments = segments.filter(|segment| segment.p_type(LittleEndian) == PT_LOAD);
    segments
        .map(|segment| Loaded {
            linked: Span::new(
                segment.p_vaddr(LittleEndian),
                segment.p_filesz(LittleEndian),
            ),
            at: segment.p_offset(LittleEndian),
        })
        .collect()
}

/// Reads a piece of a file that is there as a whole.
pub(in crate::image) fn read(file: &File, at: u64, size: u64) -> Result<Vec<u8>, String> {
    let length = file.metadata().map_err(|error| error.to_string())?.len();
    if at.checked_add(size).is_none_or(|end| end > length) {
        return Err("the file is cut off".to_owned());
    }
    let mut bytes = vec![0; usize::try_from(size).map_err(|error| error.to_string())?];
    file.read_exact_at(&mut bytes, at)
        .map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// The release, out of the text that the kernel prints first: `Linux version 6.1.0-50-cloud-arm64 (…`.
fn release(kernel: &Kernel) -> Option<String> {
    let (_, banner) = kernel.find("linux_banner")?;
    let size = match banner.size {
        0 => BANNER_LIMIT,
        size => size.min(BANNER_LIMIT),
    };
    let bytes = kernel.contents.read(Span::new(banner.start, size))?;
    let text = String::from_utf8_lossy(&bytes);
    let release = text.strip_prefix("Linux version ")?.split(' ').next()?;
    Some(release.to_owned())
}
