//! Any bytes are a kernel's types or an error, and so are sound types with changes; of what is understood everything can
//! be asked.
#![no_main]

use inspector::image::kernel::btf::Btf;
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/support/kernel/mod.rs"]
#[allow(dead_code)]
mod made;

const PATHS: [&str; 8] = [
    "pgtable.ia_bits",
    "pgtable.root",
    "pgtable.raw",
    "hyp_page.hyp_state",
    "vm.pages",
    "vm.vcpus",
    "old.field",
    "itself.a.b",
];
const NAMES: [&str; 6] = ["pgtable", "vm", "page_state", "signed", "wide", "u64"];

fuzz_target!(|input: (bool, Vec<(u16, u8)>, Vec<u8>)| {
    let (sound, changes, bytes) = input;
    let mut btf = if sound { made::btf::kernel() } else { Vec::new() };
    btf.extend(bytes);
    for (at, byte) in changes {
        if let Some(place) = btf.get_mut(usize::from(at)) {
            *place = byte;
        }
    }
    let size = btf.len() as u64;
    let Ok(mut btf) = Btf::parse(btf) else {
        return;
    };
    for path in PATHS {
        btf.field(path);
    }
    for name in NAMES {
        btf.size_of(name);
        let names = btf.enumerators(name).unwrap_or_default();
        assert!(names.len() as u64 <= size);
    }
});
