//! The symbols that hyp's image carries are those that its ELF files have.

use fixtures::{Variant, build_image};
use hyp::debug::symbols::{MAX, decode};
use inspector::image::Images;
use object::{Object, ObjectSection};

#[test]
fn qemu_no_file_is_needed_to_know_the_same_symbols() {
    let image = build_image(Variant::Channel).expect("the image builds");
    let bytes = std::fs::read(&image.hyp).expect("the image is there");
    let elf = object::File::parse(&*bytes).expect("it is an ELF file");
    let section = elf.section_by_name(".symbols").expect("it has symbols");
    let mut room = vec![hyp::debug::Symbol::default(); MAX];
    let carried = decode(section.data().expect("they are in it"), &mut room);

    let mut images = Images::open(&[image.hyp, image.host]).expect("both are read");
    let symbols = images.symbols();
    let named: Vec<_> = symbols
        .iter()
        .map(|symbol| hyp::debug::Symbol {
            name: &symbol.name,
            address: symbol.address,
            size: symbol.size,
        })
        .collect();
    assert_eq!(carried, named);
    for name in [
        "HYP",
        "<hyp_image::cpu::ThisCpu as hyp::cpu::Cpu>::lock_taker",
        "host_main",
    ] {
        assert!(named.iter().any(|symbol| symbol.name == name), "{name}");
    }
}
