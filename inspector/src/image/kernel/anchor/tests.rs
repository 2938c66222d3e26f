use super::*;
use crate::image::kernel::made::{self, CODE, INIT, NAMES, kallsyms};
use proptest::prelude::*;

/// Where the kernel is linked.
const LINK: u64 = 0xffff_8000_8000_0000;
/// Where it lies.
const PLACE: u64 = 0x4020_0000;

fn symbols(positions: &[usize]) -> Vec<Symbol> {
    let symbol = |at: &usize| Symbol {
        name: String::new(),
        address: LINK + *at as u64,
        size: 0,
    };
    positions.iter().map(symbol).collect()
}

fn image() -> Vec<u8> {
    made::image(kallsyms::FORMS[0], &made::names(false))
}

/// Asks with this image at a place; nothing else can be read.
fn find(symbols: &[Symbol], image: &[u8], place: u64, inside: u64) -> Option<u64> {
    let mut read = |span: Span| {
        let start = span.start.checked_sub(place);
        let bytes = start.and_then(|start| {
            let start = usize::try_from(start).ok()?;
            image.get(start..start.checked_add(usize::try_from(span.size).ok()?)?)
        });
        Ok(bytes.map(<[u8]>::to_vec))
    };
    by_functions(symbols, inside, &mut read).expect("the link holds")
}

fn inside(place: u64) -> u64 {
    place + NAMES as u64 + 0x1234
}

#[test]
fn functions_tell_where_a_kernel_lies() {
    let (symbols, image) = (symbols(&made::functions()), image());
    for place in [PLACE, PLACE + 0x1_0000, 0x1_0000, 0xffff_ffff_0000_0000] {
        let offset = find(&symbols, &image, place, inside(place));
        assert_eq!(offset, Some(place.wrapping_sub(LINK)), "{place:#x}");
    }
}

/// Wherever in the gap the table stands: just behind the last function before it, and just before the first behind it.
#[test]
fn the_table_may_stand_anywhere_between_functions() {
    let functions = made::functions();
    let (symbols, image) = (symbols(&functions), image());
    let last = *functions.iter().rfind(|at| **at < CODE.end).expect("one");
    for inside in [last + 0x20, CODE.end, CODE.end + 0x4321, INIT.start - 0x40] {
        let offset = find(&symbols, &image, PLACE, PLACE + inside as u64);
        assert_eq!(offset, Some(PLACE.wrapping_sub(LINK)), "{inside:#x}");
    }
}

#[test]
fn names_that_do_not_fit_have_no_place() {
    let functions = made::functions();
    let image = image();
    let inside = inside(PLACE);
    let ask = |positions: &[usize]| find(&symbols(positions), &image, PLACE, inside);
    assert!(ask(&functions).is_some());
    assert_eq!(ask(&[]), None);
    assert_eq!(ask(&functions[..1]), None);
    assert_eq!(ask(&[0x1000; 100]), None);
    // Of another kernel: shifted by less than a section is.
    let shifted: Vec<_> = functions.iter().map(|at| at + 0x80).collect();
    assert_eq!(ask(&shifted), None);
    // So few that they may fit by chance.
    let end = functions.partition_point(|at| *at < CODE.end);
    let few = [&functions[end - 31..end], &[INIT.start]].concat();
    assert_eq!(ask(&few), None);
    // A gap as wide as no kernel's read-only data, and one as wide as all addresses.
    for end in [1 << 27, 1 << 40] {
        let far: Vec<_> = functions.iter().copied().chain([end]).collect();
        assert_eq!(ask(&far), None, "{end:#x}");
    }
    let ends = [0, u64::MAX].map(|address| Symbol {
        name: String::new(),
        address,
        size: 0,
    });
    for inside in [0, inside, u64::MAX] {
        assert_eq!(find(&ends, &image, PLACE, inside), None);
    }
}

/// Where every word begins a function, any place is as good.
#[test]
fn code_that_fits_everywhere_tells_nothing() {
    let symbols = symbols(&made::functions());
    let nops = 0xd503_201f_u32.to_le_bytes().repeat(made::SIZE / 4);
    assert_eq!(find(&symbols, &nops, PLACE, inside(PLACE)), None);
    let zeros = vec![0; made::SIZE];
    assert_eq!(find(&symbols, &zeros, PLACE, inside(PLACE)), None);
}

#[test]
fn code_that_cannot_be_read_tells_nothing() {
    let (symbols, image) = (symbols(&made::functions()), image());
    // The memory begins behind the code, or is not there at all; the table stands lower than code can.
    let late = CODE.end - 0x1_0000;
    let place = PLACE + late as u64;
    assert_eq!(find(&symbols, &image[late..], place, inside(PLACE)), None);
    assert_eq!(find(&symbols, &[], PLACE, inside(PLACE)), None);
    assert_eq!(find(&symbols, &image, 0, 0x1000), None);
    let mut lost = |_| {
        Err(TargetError::Lost {
            target: ":1".to_owned(),
            doing: "reading".to_owned(),
            reason: "gone".to_owned(),
        })
    };
    let error = by_functions(&symbols, inside(PLACE), &mut lost);
    assert!(matches!(error, Err(TargetError::Lost { .. })));
}

#[test]
fn functions_begin_in_few_ways() {
    for (word, begins) in [
        // nop; bti c; paciasp; mov x9, x30
        (0xd503_201f_u32, true),
        (0xd503_245f, true),
        (0xd503_233f, true),
        (0xaa1e_03e9, true),
        // stp x29, x30, [sp, #-16]! and #-512]!
        (0xa9bf_7bfd, true),
        (0xa9a0_7bfd, true),
        // [sp, #16]; [x0, #-16]!; x29, x29; x28, x30; ret; bti j; udf
        (0xa901_7bfd, false),
        (0xa9bf_781d, false),
        (0xa9bf_77fd, false),
        (0xa9bf_7bfc, false),
        (0xd65f_03c0, false),
        (0xd503_249f, false),
        (0, false),
    ] {
        assert_eq!(begins_function(word.to_le_bytes()), begins, "{word:#x}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is changed by chance of a tenth of the functions, and wherever the kernel lies.
    #[test]
    fn some_odd_functions_do_no_harm(
        place in 0x40_u64..0x1_0000,
        odd in prop::collection::btree_set(0..1000_usize, 0..100),
    ) {
        let (place, functions) = (place << 16, made::functions());
        let mut image = image();
        for index in odd {
            made::put(&mut image, functions[index], &[0; 4]);
        }
        let offset = find(&symbols(&functions), &image, place, inside(place));
        prop_assert_eq!(offset, Some(place.wrapping_sub(LINK)));
    }

    /// Any names and any code: an answer, and one at which a kernel can lie.
    #[test]
    fn anything_has_an_answer(
        mut addresses in prop::collection::vec(any::<u64>(), 0..8),
        near in prop::collection::vec(0..0x20_0000_u64, 0..64),
        inside in any::<u64>(),
    ) {
        addresses.extend(near.iter().map(|at| LINK + at));
        addresses.sort_unstable();
        let symbols: Vec<_> = addresses
            .iter()
            .map(|&address| Symbol { name: String::new(), address, size: 0 })
            .collect();
        let mut read = |span: Span| Ok(Some(vec![0x1f; span.size as usize]));
        let found = by_functions(&symbols, inside, &mut read).expect("the link holds");
        prop_assert!(found.is_none_or(|offset| offset % STEP == 0));
    }
}
