//! Types of Debian's kernels: BTF and DWARF, of the same build, give the same answers.

use fixtures::kernels::Kernel as Fixture;
use flate2::Compression;
use flate2::write::GzEncoder;
use inspector::image::kernel::{Field, Kernel};
use object::{Object, ObjectSection};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use tempfile::NamedTempFile;

/// Members that pKVM's state is read by, of all kernels together.
const FIELDS: [&str; 47] = [
    "host_kvm.arch",
    "host_kvm.pgt",
    "host_kvm.mm_ops",
    "host_kvm.lock",
    "host_kvm.arch.mmu.pgd_phys",
    "host_kvm.arch.mmu.vtcr",
    "host_kvm.arch.vtcr",
    "host_mmu.arch",
    "host_mmu.pgt",
    "host_mmu.mm_ops",
    "host_mmu.lock",
    "host_mmu.arch.mmu.pgd_phys",
    "host_mmu.arch.mmu.vtcr",
    "host_mmu.arch.vtcr",
    "kvm_pgtable.ia_bits",
    "kvm_pgtable.start_level",
    "kvm_pgtable.pgd",
    "kvm_pgtable.mmu",
    "hyp_page.refcount",
    "hyp_page.order",
    "hyp_page.__host_state",
    "hyp_page.host_state",
    "hyp_page.__hyp_state_comp",
    "hyp_page.__hyp_state",
    "hyp_page.hyp_state",
    "hyp_page.host_share_guest_count",
    "hyp_pool.lock",
    "hyp_pool.range_start",
    "hyp_pool.range_end",
    "memblock_region.base",
    "memblock_region.size",
    "kvm_ffa_buffers.lock",
    "kvm_host_data.host_ctxt.regs",
    "kvm_host_data.host_ctxt.__hyp_running_vcpu",
    "pkvm_hyp_vm.vcpus",
    "pkvm_hyp_vm.kvm.arch.pkvm.handle",
    "pkvm_hyp_vm.kvm.arch.pkvm.is_protected",
    "pkvm_hyp_vm.kvm.arch.pkvm.enabled",
    "pkvm_hyp_vm.kvm.arch.pkvm.is_created",
    "pkvm_hyp_vm.kvm.arch.pkvm.is_dying",
    "pkvm_hyp_vm.kvm.arch.mmu.vmid",
    "pkvm_hyp_vm.kvm.arch.mmu.pgd_phys",
    "pkvm_hyp_vm.kvm.arch.mmu.vtcr",
    "pkvm_hyp_vm.nr_vcpus",
    "pkvm_hyp_vm.kvm.created_vcpus",
    "pkvm_hyp_vm.lock",
    "pkvm_hyp_vm.pool",
];
const RECORDS: [&str; 4] = ["hyp_page", "memblock_region", "kvm_pgtable", "pkvm_hyp_vm"];
const ENUMERATIONS: [&str; 5] = [
    "kvm_invalid_pte_type",
    "pkvm_page_state",
    "pkvm_component_id",
    "kvm_mode",
    "__kvm_host_smccc_func",
];

type Values = Vec<(String, i64)>;

/// Every question's answer.
#[derive(PartialEq, Debug)]
struct Answers {
    fields: Vec<(&'static str, Option<Field>)>,
    sizes: Vec<(&'static str, Option<u64>)>,
    enumerations: Vec<(&'static str, Option<Values>)>,
}

impl Answers {
    fn of(vmlinux: &Path, format: &str) -> Self {
        let mut kernel = Kernel::open(vmlinux).expect("a kernel");
        let source = kernel.types().expect("it describes its types").to_owned();
        assert_eq!(source, format!("{format} of {}", vmlinux.display()));
        Self {
            fields: FIELDS.map(|path| (path, kernel.field(path))).into(),
            sizes: RECORDS.map(|name| (name, kernel.size_of(name))).into(),
            enumerations: ENUMERATIONS
                .map(|name| (name, kernel.enumerators(name)))
                .into(),
        }
    }

    /// The offset of a member.
    fn offset(&self, path: &str) -> Option<u64> {
        let mut fields = self.fields.iter();
        let (_, field) = fields.find(|(name, _)| *name == path).expect("it is asked");
        field.map(|field| field.offset)
    }

    fn enumeration(&self, wanted: &str) -> Option<&Values> {
        let mut enumerations = self.enumerations.iter();
        enumerations
            .find(|(name, _)| *name == wanted)
            .expect("it is asked")
            .1
            .as_ref()
    }
}

/// A copy in which `.BTF` has another name.
fn without_btf(vmlinux: &Path) -> NamedTempFile {
    let copy = NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary file");
    std::fs::copy(vmlinux, copy.path()).expect("room for a copy");
    let cache = object::ReadCache::new(File::open(vmlinux).expect("it is there"));
    let elf = object::File::parse(&cache).expect("an ELF file");
    let names = elf.section_by_name(".shstrtab").expect("names of sections");
    let (start, _) = names.file_range().expect("it has bytes");
    let names = names.data().expect("whole");
    let name = memchr::memmem::find(names, b"\0.BTF\0").expect("it has BTF");
    let file = File::options().write(true).open(copy.path());
    file.expect("it can be written")
        .write_all_at(b"gone", start + name as u64 + 2)
        .expect("it can be written");
    copy
}

fn both(kernel: Fixture) -> Answers {
    let vmlinux = kernel.files().expect("Debian's kernel").vmlinux;
    let btf = Answers::of(&vmlinux, "BTF");
    let copy = without_btf(&vmlinux);
    assert_eq!(Answers::of(copy.path(), "DWARF"), btf);
    btf
}

#[test]
fn page_states_in_descriptors() {
    let answers = both(Fixture::Linux61);
    for (path, offset) in [
        ("host_kvm.arch", Some(0)),
        ("host_kvm.pgt", Some(480)),
        ("host_kvm.mm_ops", Some(528)),
        ("host_kvm.lock", Some(608)),
        ("host_kvm.arch.mmu.pgd_phys", Some(8)),
        ("host_kvm.arch.vtcr", Some(40)),
        ("host_kvm.arch.mmu.vtcr", None),
        ("host_mmu.lock", None),
        ("kvm_pgtable.start_level", Some(4)),
        ("kvm_pgtable.mmu", Some(24)),
        ("hyp_page.order", Some(2)),
        ("hyp_page.__host_state", None),
        ("hyp_pool.range_start", Some(184)),
        ("hyp_pool.range_end", Some(192)),
        ("memblock_region.size", Some(8)),
        ("pkvm_hyp_vm.lock", None),
    ] {
        assert_eq!(answers.offset(path), offset, "{path}");
    }
    assert_eq!(answers.sizes[0], ("hyp_page", Some(4)));
    assert!(answers.offset("kvm_host_data.host_ctxt.regs").is_some());
    let shared = ("PKVM_PAGE_SHARED_OWNED".to_owned(), 1 << 55);
    let states = answers.enumeration("pkvm_page_state").expect("it has them");
    assert!(states.contains(&shared), "{states:?}");
    assert_eq!(answers.enumeration("kvm_invalid_pte_type"), None);
    assert!(answers.enumeration("kvm_mode").is_some());
}

#[test]
fn page_states_in_records() {
    let answers = both(Fixture::Linux7);
    for (path, offset) in [
        ("host_mmu.arch", Some(0)),
        ("host_mmu.pgt", Some(1304)),
        ("host_mmu.mm_ops", Some(1352)),
        ("host_mmu.lock", Some(1440)),
        ("host_mmu.arch.mmu.pgd_phys", Some(8)),
        ("host_mmu.arch.mmu.vtcr", Some(24)),
        ("host_kvm.lock", None),
        ("kvm_pgtable.start_level", Some(4)),
        ("kvm_pgtable.mmu", Some(40)),
        ("hyp_page.order", Some(2)),
        ("hyp_page.__host_state", Some(0)),
        ("hyp_page.__hyp_state_comp", Some(0)),
        ("hyp_page.host_share_guest_count", Some(4)),
        ("hyp_pool.range_start", Some(184)),
        ("hyp_pool.range_end", Some(192)),
        ("memblock_region.size", Some(8)),
        ("pkvm_hyp_vm.pool", Some(4280)),
        ("pkvm_hyp_vm.lock", Some(4488)),
        ("pkvm_hyp_vm.vcpus", Some(4496)),
        ("pkvm_hyp_vm.kvm.arch.mmu.pgd_phys", Some(2488)),
        ("pkvm_hyp_vm.kvm.arch.mmu.vtcr", Some(2504)),
        ("pkvm_hyp_vm.kvm.arch.mmu.vmid", Some(2480)),
        ("pkvm_hyp_vm.kvm.arch.pkvm.handle", Some(3704)),
        ("pkvm_hyp_vm.kvm.arch.pkvm.is_protected", Some(3776)),
        ("pkvm_hyp_vm.kvm.arch.pkvm.is_created", Some(3777)),
        ("pkvm_hyp_vm.kvm.arch.pkvm.is_dying", Some(3778)),
        ("pkvm_hyp_vm.kvm.created_vcpus", Some(2296)),
    ] {
        assert_eq!(answers.offset(path), offset, "{path}");
    }
    let bits = |path| answers.fields.iter().find(|(name, _)| *name == path);
    for (path, low) in [
        ("hyp_page.__host_state", 24),
        ("hyp_page.__hyp_state_comp", 28),
    ] {
        let field = bits(path).and_then(|(_, field)| *field).expect("it has it");
        assert_eq!(field.bits, Some((low, 4)), "{path}");
    }
    assert_eq!(answers.sizes[0], ("hyp_page", Some(8)));
    let shared = ("PKVM_PAGE_SHARED_OWNED".to_owned(), 1);
    let states = answers.enumeration("pkvm_page_state").expect("it has them");
    assert!(states.contains(&shared), "{states:?}");
    assert!(answers.enumeration("kvm_invalid_pte_type").is_some());
    assert!(answers.enumeration("kvm_mode").is_some());
}

/// The Image as it is, compressed with gzip, and as the EFI program that CONFIG_EFI_ZBOOT makes of that.
#[test]
fn an_image_may_be_compressed() {
    for fixture in Fixture::ALL {
        let files = fixture.files().expect("Debian's kernel");
        let image = std::fs::read(files.image).expect("an Image");
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&image).expect("room");
        let gzip = encoder.finish().expect("room");
        let mut program = vec![0; 0x400];
        program[..8].copy_from_slice(b"MZ\0\0zimg");
        program[8..12].copy_from_slice(&0x400_u32.to_le_bytes());
        program[12..16].copy_from_slice(&(gzip.len() as u32).to_le_bytes());
        program[24..28].copy_from_slice(b"gzip");
        program.extend(&gzip);

        let open = |bytes: &[u8]| {
            let mut file = NamedTempFile::new().expect("a temporary file");
            file.write_all(bytes).expect("room for it");
            Kernel::open(file.path()).expect("a kernel")
        };
        let mut plain = open(&image);
        assert_eq!(plain.release(), Some(files.release.as_str()));
        assert!(plain.size_of("hyp_page").is_some());
        for mut other in [open(&gzip), open(&program)] {
            assert_eq!(other.build_id(), plain.build_id());
            assert_eq!(other.symbols(), plain.symbols());
            assert_eq!(other.size_of("hyp_page"), plain.size_of("hyp_page"));
        }
    }
}
