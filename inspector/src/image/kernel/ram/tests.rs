use super::*;
use crate::image::kernel::made::kallsyms::{BASE, FORMS, Form, Order};
use crate::image::kernel::made::{self, BUILD_ID, CODE, INIT, NAMES, RELEASE, SIZE, TYPES, put};
use proptest::prelude::*;

/// Where the RAM of most tests begins, and the kernel in it.
const RAM: u64 = 0x4000_0000;
const PLACE: u64 = RAM + 0x20_0000;
/// A place in its code.
const NEAR: u64 = PLACE + CODE.start as u64 + 0x2345;

/// RAM that is zeros but for some pieces, and what was read of it.
#[derive(Default)]
struct Machine {
    ram: Vec<Span>,
    pieces: Vec<(u64, Vec<u8>)>,
    /// Where reads fail.
    bad: Option<Span>,
    /// Requests, and their bytes.
    requests: usize,
    bytes: u64,
}

impl Machine {
    fn new(ram: &[(u64, u64)], pieces: &[(u64, &[u8])]) -> Self {
        Self {
            ram: ram
                .iter()
                .map(|(start, size)| Span::new(*start, *size))
                .collect(),
            pieces: pieces
                .iter()
                .map(|(at, bytes)| (*at, bytes.to_vec()))
                .collect(),
            ..Self::default()
        }
    }

    /// 512 MiB with an Image in it.
    fn with(image: &[u8]) -> Self {
        Self::new(&[(RAM, 512 << 20)], &[(PLACE, image)])
    }

    fn read(&mut self, span: Span) -> Result<Vec<u8>, ReadError> {
        assert!(
            self.ram.iter().any(|ram| ram.covers(span)),
            "{span} is no RAM"
        );
        assert!(span.size <= 64 << 20, "{span} is too much at once");
        self.requests += 1;
        self.bytes += span.size;
        if self.bad.is_some_and(|bad| bad.overlaps(span)) {
            return Err(ReadError::Unbacked(span));
        }
        let mut bytes = vec![0; span.size as usize];
        for (at, piece) in &self.pieces {
            let (from, to) = (span.start.max(*at), at + piece.len() as u64);
            let to = span.last().map_or(0, |last| to.min(last + 1));
            if from < to {
                let piece = &piece[(from - at) as usize..(to - at) as usize];
                put(&mut bytes, (from - span.start) as usize, piece);
            }
        }
        Ok(bytes)
    }

    fn ask<T>(&mut self, ask: impl FnOnce(&mut ReadPhys, &[Span]) -> Result<T, TargetError>) -> T {
        let ram = self.ram.clone();
        let mut read = |spans: &[Span]| {
            Ok(spans
                .iter()
                .map(|span| self.read(*span))
                .collect::<Vec<_>>())
        };
        ask(&mut read, &ram).expect("the link holds")
    }

    fn kernel(&mut self, near: u64) -> Found {
        self.ask(|read, ram| kernel(read, ram, near))
    }

    fn find(&mut self, budget: u64) -> Option<u64> {
        self.ask(|read, ram| find(read, ram, budget))
    }
}

fn image(form: Form) -> Vec<u8> {
    made::image(form, &made::names(true))
}

/// Nothing that finds a kernel is in these.
const NOISE: u8 = 0x5a;

fn assert_whole(found: &Found, what: &str) {
    let parts = &found.parts;
    assert_eq!(parts.release.as_deref(), Some(RELEASE), "{what}");
    assert_eq!(
        parts.build_id.as_deref(),
        Some(BUILD_ID.as_slice()),
        "{what}"
    );
    let types = super::super::btf::Btf::parse(parts.btf.clone().expect(what));
    assert_eq!(types.expect(what).size_of("hyp_page"), Some(8), "{what}");
    let place = found.offset.map(|offset| {
        let mut symbols = parts.symbols.iter();
        let text = symbols.find(|symbol| symbol.name == "_text").expect(what);
        text.address.wrapping_add(offset)
    });
    assert_eq!(place, Some(PLACE), "{what}");
}

#[test]
fn a_kernel_of_every_form_is_found_from_its_code() {
    for form in FORMS {
        let image = image(form);
        for near in [NEAR, NEAR | 0xfff, PLACE, PLACE + NAMES as u64 - 0x1001] {
            let mut machine = Machine::with(&image);
            let found = machine.kernel(near);
            assert_whole(&found, &format!("{form:?} from {near:#x}"));
            assert_eq!(found.parts.symbols.len(), made::names(true).len());
            // It ends where all is found, and reads nothing twice but what it finds.
            assert!(machine.bytes < 4 << 20, "{form:?}: {:#x}", machine.bytes);
        }
    }
}

/// From behind its banner, its names, or all of it: then memory is read downwards.
#[test]
fn a_kernel_is_found_from_behind_its_parts() {
    for form in FORMS {
        let image = image(form);
        for near in [
            NAMES,
            TYPES - 0x100,
            TYPES + 0x1000,
            INIT.start,
            SIZE,
            SIZE + (1 << 20),
        ] {
            let found = Machine::with(&image).kernel(PLACE + near as u64);
            assert_whole(&found, &format!("{form:?} from {near:#x}"));
        }
    }
}

/// Where only functions have names, what else tells the kernel's place is how they begin.
#[test]
fn a_kernel_that_names_functions_only_is_found() {
    for form in FORMS {
        let image = made::image(form, &made::names(false));
        let found = Machine::with(&image).kernel(NEAR);
        if form.order == Order::Places {
            // Such a table must reach beyond itself, which these functions do.
            assert_eq!(found.offset, Some(PLACE.wrapping_sub(BASE)));
        }
        assert_whole(&found, &format!("{form:?}"));
    }
    // Their beginnings are gone: it is not guessed.
    let mut image = made::image(FORMS[1], &made::names(false));
    image[CODE].fill(NOISE);
    let found = Machine::with(&image).kernel(NEAR);
    assert_eq!(
        (found.offset, found.parts.symbols.is_empty()),
        (None, false)
    );
    // `__start_BTF` tells it without them.
    let mut image = self::image(FORMS[1]);
    image[CODE].fill(NOISE);
    assert_whole(&Machine::with(&image).kernel(NEAR), "by its types");
}

/// As a kernel is in memory that runs at a random address: its table's base has been relocated.
#[test]
fn a_base_that_was_relocated_is_taken_as_it_is() {
    let slide = 0x1234_5660_0000;
    let mut image = image(FORMS[1]);
    let base = memchr::memmem::find(&image, &BASE.to_le_bytes()).expect("a base");
    put(&mut image, base, &(BASE + slide).to_le_bytes());
    let found = Machine::with(&image).kernel(NEAR);
    assert_whole(&found, "relocated");
    assert_eq!(found.offset, Some(PLACE.wrapping_sub(BASE + slide)));
}

#[test]
fn what_is_missing_is_said_and_the_rest_is_there() {
    let image = image(FORMS[3]);
    let cut = |end: usize| Machine::with(&image[..end]);
    let error = |found: &Found| found.parts.btf.clone().expect_err("no types");
    let sentence = format!("no types (BTF) were found in guest RAM around {NEAR:#x}");

    let found = cut(TYPES).kernel(NEAR);
    assert_eq!(error(&found), sentence);
    assert_eq!(found.parts.build_id.as_deref(), Some(BUILD_ID.as_slice()));
    // This form has a base, and says nothing of where it lies; the banner does.
    assert_eq!(found.offset, Some(PLACE.wrapping_sub(BASE)));

    let found = cut(CODE.end).kernel(NEAR);
    assert_eq!(error(&found), sentence);
    assert!(found.parts.symbols.is_empty() && found.offset.is_none());

    let mut machine = Machine::with(&image);
    machine.bad = Some(Span::new(PLACE + TYPES as u64 + 0x4_0000, 0x1000));
    let found = machine.kernel(NEAR);
    let lost = error(&found);
    let words = lost.strip_prefix(&sentence).expect("the same sentence");
    assert!(
        words.starts_with(", where 0x") && words.ends_with(" bytes cannot be read"),
        "{lost}"
    );
    assert!(!found.parts.symbols.is_empty());

    // RAM ends in the middle of the types, or there is no RAM where it is looked for.
    let mut machine = Machine::new(
        &[(RAM, PLACE + TYPES as u64 + 0x8000 - RAM)],
        &[(PLACE, &image)],
    );
    let found = machine.kernel(NEAR);
    assert_eq!(error(&found), sentence);
    assert!(!found.parts.symbols.is_empty());
    for near in [0, RAM - 1, RAM + (512 << 20), u64::MAX] {
        let mut machine = Machine::with(&image);
        let found = machine.kernel(near);
        assert!(found.parts.symbols.is_empty() && found.offset.is_none());
        assert_eq!(machine.requests, 0, "{near:#x}");
    }
}

/// A page that cannot be read hides nothing but what lies in it, on the way up and on the way down.
#[test]
fn what_lies_beside_an_unreadable_page_is_found() {
    let image = image(FORMS[3]);
    for near in [NEAR, PLACE + SIZE as u64] {
        for bad in [
            CODE.end - 0x2_0000,
            NAMES + 0x6000,
            made::NOTES - 0x1000,
            SIZE - 0x1000,
        ] {
            let mut machine = Machine::with(&image);
            machine.bad = Some(Span::new(PLACE + bad as u64 + 0x123, 1));
            assert_whole(&machine.kernel(near), &format!("{bad:#x} from {near:#x}"));
        }
    }
}

/// Memory is read in pieces, and what lies across two of them is found, on the way up and on the way down.
#[test]
fn what_lies_across_two_pieces_is_found() {
    let all = made::names(true);
    let mut tried = 0;
    for fewer in (0..640).step_by(40) {
        let image = made::image(FORMS[3], &[&all[..200], &all[200 + fewer..]].concat());
        let tokens = kallsyms::Tokens::find(&image, 0).expect("a table");
        let end = (tokens.position() + 0x200).next_multiple_of(0x1000);
        if end - tokens.position() > 0x600 {
            continue;
        }
        tried += 1;
        for near in [end - CHUNK, end, end + CHUNK] {
            let found = Machine::with(&image).kernel(PLACE + near);
            assert_whole(&found, &format!("{fewer} names fewer from {near:#x}"));
        }
    }
    assert!(tried > 1, "the table never lay across two pages");
}

#[test]
fn a_kernel_that_is_not_there_costs_no_more_than_the_largest() {
    for near in [RAM, RAM + (256 << 20), RAM + (512 << 20) - 1] {
        let mut machine = Machine::with(&[NOISE; 0x1000]);
        let found = machine.kernel(near);
        assert!(found.parts.symbols.is_empty());
        // Windows overlap.
        assert!(
            machine.bytes <= 2 * MAX_IMAGE + (16 << 20),
            "{:#x}",
            machine.bytes
        );
    }
}

/// Another hypervisor's vectors, say: around them RAM is empty.
#[test]
fn where_memory_is_empty_no_kernel_goes_on() {
    let mut machine = Machine::with(&[NOISE; 3 << 20]);
    let found = machine.kernel(PLACE + (1 << 20));
    assert!(found.parts.symbols.is_empty());
    assert!(machine.bytes <= 16 << 20, "{:#x}", machine.bytes);
}

/// Two banks that touch are one; of others only that with the kernel is read.
#[test]
fn memory_is_taken_as_it_lies() {
    let image = image(FORMS[3]);
    let middle = PLACE + NAMES as u64 + 0x1000;
    let banks = [
        (middle, 64 << 20),
        (RAM, middle - RAM),
        (0, 0x1000),
        (1 << 40, 1 << 30),
    ];
    let mut machine = Machine::new(&banks, &[(PLACE, &image)]);
    // A target reads no further than a bank.
    machine.ram.push(Span::new(RAM, middle - RAM + (64 << 20)));
    assert_whole(&machine.kernel(NEAR), "two banks");
}

#[test]
fn an_image_is_found_by_its_header() {
    let image = image(FORMS[3]);
    // At 2 MiB; as EFI loads it; the first of several. Not where it cannot be.
    for (places, expected) in [
        (&[PLACE][..], Some(PLACE)),
        (&[PLACE + 0x5_0000], Some(PLACE + 0x5_0000)),
        (
            &[PLACE + 0x5_0000, PLACE + 0x60_0000],
            Some(PLACE + 0x60_0000),
        ),
        (&[RAM, PLACE], Some(RAM)),
    ] {
        let pieces: Vec<_> = places
            .iter()
            .map(|place| (*place, &image[..0x1000]))
            .collect();
        let mut machine = Machine::new(&[(RAM, 64 << 20)], &pieces);
        assert_eq!(machine.find(512 << 20), expected, "{places:x?}");
        assert!(machine.bytes <= 4 * 2048, "{}", machine.bytes);
        let banks = [
            (RAM + 0x8000, 32 << 20),
            (RAM + (32 << 20) + 0x8000, 32 << 20),
        ];
        let mut machine = Machine::new(&banks, &pieces);
        let expected = expected
            .filter(|place| *place > RAM)
            .or(places.get(1).copied());
        assert_eq!(machine.find(512 << 20), expected, "{places:x?}");
    }
}

/// 6.1 reuses the page of the header once user space runs.
#[test]
fn an_image_without_header_is_found_by_its_names() {
    for form in FORMS {
        let mut image = image(form);
        image[..0x1_0000].fill(NOISE);
        for place in [PLACE, RAM + (20 << 20) + 0x3_0000] {
            let mut machine = Machine::new(&[(RAM, 64 << 20)], &[(place, &image)]);
            let near = machine.find(512 << 20).expect("a kernel");
            let found = machine.kernel(near);
            assert_eq!(found.parts.release.as_deref(), Some(RELEASE), "{form:?}");
            assert_eq!(found.offset, Some(place.wrapping_sub(BASE)), "{form:?}");
        }
    }
}

#[test]
fn a_search_keeps_to_its_budget() {
    let mut image = image(FORMS[3]);
    image[..0x1_0000].fill(NOISE);
    let place = RAM + (40 << 20);
    for (budget, found) in [
        (0, false),
        (8 << 20, false),
        (32 << 20, false),
        (64 << 20, true),
    ] {
        let mut machine = Machine::new(&[(RAM, 64 << 20)], &[(place, &image)]);
        assert_eq!(machine.find(budget).is_some(), found, "{budget:#x}");
        assert!(
            machine.bytes <= budget + CHUNK,
            "{budget:#x}: {:#x}",
            machine.bytes
        );
    }
    // More RAM than there is, to the very end of addresses.
    let mut machine = Machine::new(&[(0x123, u64::MAX), (u64::MAX - 5, 6)], &[]);
    assert_eq!(machine.find(4 << 20), None);
    assert!(machine.bytes <= 6 << 20, "{:#x}", machine.bytes);
}

/// RAM at the end of addresses: positions neither wrap nor panic.
#[test]
fn a_kernel_at_the_end_of_addresses_is_found() {
    let image = image(FORMS[3]);
    let place = 0_u64.wrapping_sub(0x40_0000);
    let mut machine = Machine::new(&[(place, 0x3f_ffff)], &[(place, &image)]);
    assert_eq!(machine.find(64 << 20), Some(place));
    let found = machine.kernel(place + CODE.start as u64);
    assert_eq!(found.parts.release.as_deref(), Some(RELEASE));
    assert_eq!(found.offset, Some(place.wrapping_sub(BASE)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Wherever it lies, and wherever in it one begins.
    #[test]
    fn a_kernel_is_found_wherever_it_lies(
        form in prop::sample::select(FORMS.to_vec()),
        place in 0..0x400_u64,
        near in 0..SIZE as u64,
    ) {
        let place = RAM + place * 0x1_0000;
        let mut machine = Machine::new(&[(RAM, 80 << 20)], &[(place, &image(form))]);
        let found = machine.kernel(place + near);
        prop_assert_eq!(found.parts.release.as_deref(), Some(RELEASE));
        prop_assert_eq!(found.offset, Some(place.wrapping_sub(BASE)));
    }

    #[test]
    fn damage_and_holes_are_survived(
        form in prop::sample::select(FORMS.to_vec()),
        damage in prop::collection::vec((0..SIZE, any::<[u8; 4]>()), 0..40),
        hole in prop::option::of((0..SIZE as u64, 1..0x10_0000_u64)),
        near in 0..SIZE as u64,
    ) {
        let mut image = image(form);
        for (at, bytes) in damage {
            let at = at.min(SIZE - 4);
            put(&mut image, at, &bytes);
        }
        let mut machine = Machine::with(&image);
        machine.bad = hole.map(|(at, size)| Span::new(PLACE + at, size));
        let found = machine.kernel(PLACE + near);
        prop_assert!(found.parts.symbols.len() <= made::names(true).len());
        prop_assert!(machine.bytes <= 3 * MAX_IMAGE);
    }
}
