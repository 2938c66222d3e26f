use super::made::btf::kernel as types;
use super::*;
use crate::image::Images;
use crate::image::tests::elf_file::Program;
use std::io::Write;
use tempfile::NamedTempFile;

const TEXT: u64 = 0xffff_8000_0800_0000;
const BANNER: &[u8] = b"Linux version 6.1.0-test (someone@somewhere) #1\0";
const BUILD_ID: [u8; 4] = [0xde, 0xad, 0xbe, 0xef];

/// A kernel in small.
fn vmlinux() -> Program {
    let symbol = |name: &str, offset, size| (name.to_owned(), TEXT + offset, size);
    let mut text = BANNER.to_vec();
    text.resize(0x100, 0xa5);
    // NT_GNU_BUILD_ID of "GNU".
    let mut note = Vec::new();
    for word in [4_u32, BUILD_ID.len() as u32, 3] {
        note.extend(word.to_le_bytes());
    }
    note.extend(b"GNU\0");
    note.extend(BUILD_ID);
    Program {
        segments: vec![(TEXT, TEXT, 0x1000)],
        symbols: vec![
            symbol("linux_banner", 0, BANNER.len() as u64),
            symbol("_text", 0, 0),
            symbol("$x", 0x80, 0),
            symbol("outer", 0x100, 0x200),
            symbol("inner", 0x110, 0x10),
            symbol("__kvm_nvhe_host_mmu", 0x800, 0x20),
            symbol("label", 0x900, 0),
        ],
        others: vec![(".BTF", 1, types()), (".notes", 7, note)],
        text: Some((TEXT, text)),
        ..Program::default()
    }
}

fn file(program: &Program) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a temporary file");
    file.write_all(&program.elf()).expect("room for it");
    file
}

fn open(program: &Program) -> Images {
    Images::open(&[file(program).path().to_owned()]).expect("a sound kernel")
}

fn refused(program: &Program) -> String {
    let file = file(program);
    match Kernel::open(file.path()) {
        Ok(_) => "nothing".to_owned(),
        Err(error) => {
            let path = file.path().display().to_string();
            error.to_string().replace(&path, "vmlinux")
        }
    }
}

#[test]
fn a_kernel_says_what_it_is() {
    let mut images = open(&vmlinux());
    let kernel = images.kernel().expect("it is a kernel");
    assert_eq!(kernel.release(), Some("6.1.0-test"));
    assert_eq!(kernel.build_id(), Some(BUILD_ID.as_slice()));
    assert_eq!(kernel.symbol("_text"), Some(Span::new(TEXT, 0)));
    assert_eq!(
        kernel.symbol("__kvm_nvhe_host_mmu"),
        Some(Span::new(TEXT + 0x800, 0x20))
    );
    assert_eq!(kernel.symbol("$x"), None);
    assert_eq!(kernel.symbol("none"), None);
    assert_eq!(kernel.size_of("hyp_page"), Some(8));
    assert!(
        kernel
            .types()
            .is_ok_and(|types| types.starts_with("BTF of "))
    );
}

#[test]
fn contents_are_those_of_the_file() {
    let mut images = open(&vmlinux());
    let kernel = images.kernel().expect("it is a kernel");
    let mut contents = |offset, size| kernel.contents(Span::new(TEXT + offset, size));
    assert_eq!(contents(0, 5).as_deref(), Some(b"Linux".as_slice()));
    assert_eq!(contents(0xfe, 2), Some(vec![0xa5; 2]));
    // The rest of the segment is zeroed memory, of which a file has nothing.
    assert_eq!(contents(0xfe, 3), None);
    assert_eq!(contents(0, u64::MAX), None);
    assert_eq!(kernel.contents(Span::new(0, 1)), None);
}

#[test]
fn what_is_no_use_is_said() {
    let mut foreign = vmlinux();
    foreign
        .symbols
        .retain(|(name, ..)| name != "_text" && !name.starts_with(NVHE));
    let mut stripped = vmlinux();
    stripped.symbols.clear();
    for (program, message) in [
        (
            foreign,
            "vmlinux: not a Linux kernel: no ELF file with the symbols `_text` and `linux_banner`",
        ),
        (
            stripped,
            "vmlinux: a Linux kernel without symbols; give the vmlinux of its debug package",
        ),
    ] {
        assert_eq!(refused(&program), message);
    }
}

#[test]
fn a_kernel_without_types_says_so() {
    for (types, message) in [
        (
            None,
            "describes no types (it has neither BTF nor DWARF): give the vmlinux of its debug package",
        ),
        (
            Some(b"\x9f\xeb".to_vec()),
            "cannot be read: the BTF is cut off",
        ),
    ] {
        let mut program = vmlinux();
        program.others.retain(|(name, ..)| *name != ".BTF");
        program.others.extend(types.map(|types| (".BTF", 1, types)));
        let mut images = open(&program);
        let kernel = images.kernel().expect("it is a kernel");
        let error = kernel.types().map(str::to_owned).expect_err("it has none");
        assert!(error.ends_with(message), "{error}");
        assert_eq!(kernel.field("hyp_page.count"), None);
    }
}

#[test]
fn one_machine_runs_one_kernel() {
    let files = [file(&vmlinux()), file(&vmlinux())];
    let paths = files.each_ref().map(|file| file.path().to_owned());
    let error = Images::open(&paths).map(|_| ()).expect_err("two kernels");
    for path in paths {
        assert!(error.to_string().contains(&path.display().to_string()));
    }
}

/// Opened elsewhere, without the kernel at hand, the same questions have the same answers, and others have none.
#[test]
fn a_snapshot_remembers_what_was_used() {
    let ask = |images: &mut Images| {
        let kernel = images.kernel().expect("it is a kernel");
        (
            kernel.source().to_owned(),
            kernel.release().map(str::to_owned),
            kernel.build_id().map(<[u8]>::to_vec),
            kernel.types().map(str::to_owned).map_err(str::to_owned),
            kernel.symbol("_text"),
            kernel.field("pgtable.mmu"),
            kernel.field("hyp_page.host_state"),
            kernel.field("hyp_page.none"),
            kernel.size_of("vm"),
            kernel.enumerators("wide"),
            kernel.contents(Span::new(TEXT, 16)),
        )
    };
    let mut first = open(&vmlinux());
    let answers = ask(&mut first);
    first.keep(TEXT + 0x125);
    let notes = first.notes().expect("something was used");

    let mut second = Images::default();
    second.recall(&notes).expect("its own notes");
    assert_eq!(ask(&mut second), answers);
    second.keep(TEXT + 0x125);
    assert_eq!(second.notes(), Some(notes), "a snapshot of a snapshot");
    assert_eq!(second.symbol_files(), first.symbol_files());
    let kernel = second.kernel().expect("it is remembered");
    let names: Vec<_> = kernel
        .symbols()
        .iter()
        .map(|symbol| symbol.name.clone())
        .collect();
    assert_eq!(names, ["_text", "outer", "inner", "__kvm_nvhe_host_mmu"]);
    assert_eq!(kernel.symbol("label"), None);
    assert_eq!(kernel.field("pgtable.root"), None);
    assert_eq!(kernel.contents(Span::new(TEXT, 17)), None);
}

#[test]
fn a_kernel_cut_anywhere_is_an_error_or_an_answer() {
    let bytes = vmlinux().elf();
    for end in (0..bytes.len()).step_by(7) {
        let mut file = NamedTempFile::new().expect("a temporary file");
        file.write_all(&bytes[..end]).expect("room for it");
        if let Ok(mut kernel) = Kernel::open(file.path()) {
            let _ = kernel.field("pgtable.mmu");
            let _ = kernel.contents(Span::new(TEXT, 16));
        }
    }
}
