use super::*;
use elf_file::{Program, Record, Type};
use proptest::prelude::*;

#[path = "../../tests/support/elf.rs"]
pub(crate) mod elf_file;

const HYP: u64 = 0x40_4030_0000;

fn number() -> Type {
    Type::Number(8)
}

fn newtype(name: &str, of: Type, size: u64) -> Type {
    Type::record(name, size, vec![("__0", 0, of)])
}

/// `UnsafeCell<MaybeUninit<Hyp>>` with one member of every kind.
fn program() -> Program {
    let region = Type::record(
        "Region",
        16,
        vec![
            ("base", 0, newtype("Pa", number(), 8)),
            ("size", 8, number()),
        ],
    );
    let unit = Type::record("()", 0, vec![]);
    let hyp = Type::record(
        "Hyp",
        0x200,
        vec![
            ("marker", 0, unit.clone()),
            (
                "profile",
                1,
                Type::Enum(vec![("A".to_owned(), 0), ("B".to_owned(), 1)]),
            ),
            (
                "root",
                8,
                Type::Typedef(Box::new(newtype("Pa", number(), 8))),
            ),
            (
                "records",
                16,
                Type::slice(Type::record(
                    "Record",
                    2,
                    vec![("count", 0, Type::Number(2))],
                )),
            ),
            ("next", 32, Type::Pointer(Box::new(number()))),
            ("regions", 64, Type::Array(Box::new(region), 4)),
            (
                "lock",
                0x100,
                Type::record(
                    "Lock",
                    16,
                    vec![("tickets", 0, Type::Number(4)), ("taker", 8, number())],
                ),
            ),
        ],
    );
    let maybe = Type::Union(Record {
        name: "MaybeUninit<Hyp>".to_owned(),
        size: 0x200,
        members: vec![("uninit".to_owned(), 0, unit), ("value".to_owned(), 0, hyp)],
    });
    let cell = Type::record(
        "UnsafeCell<MaybeUninit<Hyp>>",
        0x200,
        vec![("value", 0, maybe)],
    );
    Program {
        segments: vec![(0x40_4020_0000, 0x4020_0000, 0x20_0000)],
        symbols: vec![
            (
                "_ZN3hyp5abort14host_mem_abort17h0123456789abcdefE".to_owned(),
                0x40_4020_1000,
                0x80,
            ),
            ("$x".to_owned(), 0x40_4020_1000, 0),
            ("HYP".to_owned(), HYP, 0x200),
        ],
        variables: vec![("OTHER".to_owned(), number()), ("HYP".to_owned(), cell)],
        ..Program::default()
    }
}

fn images(bytes: &[u8]) -> Result<Images, ImageError> {
    Ok(Images {
        files: vec![Elf::parse("hyp.elf", bytes)?],
        ..Images::default()
    })
}

fn place(path: &str) -> Result<Place, ImageError> {
    images(&program().elf()).and_then(|mut images| images.place(path))
}

#[test]
fn members_are_found_through_wrappers() {
    let names = [(0, "A".to_owned()), (1, "B".to_owned())].into();
    for (path, offset, size, shape) in [
        ("HYP", 0, 0x200, Shape::Record),
        ("HYP.profile", 1, 1, Shape::Enum { names }),
        ("HYP.root", 8, 8, Shape::Number),
        ("HYP.records", 16, 16, Shape::Slice { data: 0, length: 8 }),
        ("HYP.next", 32, 8, Shape::Pointer),
        ("HYP.regions", 64, 64, Shape::Array { count: 4 }),
        ("HYP.regions[]", 64, 16, Shape::Record),
        ("HYP.regions[].size", 72, 8, Shape::Number),
        ("HYP.lock", 0x100, 16, Shape::Record),
        ("HYP.lock.taker", 0x108, 8, Shape::Number),
    ] {
        assert_eq!(
            place(path),
            Ok(Place {
                address: HYP + offset,
                size,
                shape
            }),
            "{path}"
        );
    }
}

#[test]
fn elements_of_a_slice_are_counted_from_its_first() {
    assert_eq!(
        place("HYP.records[]"),
        Ok(Place {
            address: 0,
            size: 2,
            shape: Shape::Number
        })
    );
    assert_eq!(
        place("HYP.records[].count").map(|place| place.address),
        Ok(0)
    );
}

#[test]
fn what_is_missing_is_named_with_its_file() {
    for (path, message) in [
        ("HYQ.lock", "no symbol `HYQ` in hyp.elf"),
        ("HYP.lok", "hyp.elf: `HYP.lok`: no member `lok` in `Hyp`"),
        (
            "HYP.lock.owner",
            "hyp.elf: `HYP.lock.owner`: no member `owner` in `Lock`",
        ),
        (
            "HYP.root[]",
            "hyp.elf: `HYP.root[]`: `root` is neither an array nor a slice",
        ),
    ] {
        assert_eq!(
            place(path).map_err(|error| error.to_string()),
            Err(message.to_owned())
        );
    }
    let mut stripped = program();
    stripped.variables.clear();
    let error = images(&stripped.elf())
        .and_then(|mut images| images.place("HYP"))
        .map_err(|error| error.to_string());
    assert_eq!(
        error,
        Err("hyp.elf: `HYP`: the file has no debug information (.debug_info)".to_owned())
    );
    let error = Images::default()
        .place("HYP")
        .map_err(|error| error.to_string());
    assert_eq!(
        error,
        Err("no symbol `HYP` in any file: none was given (--image FILE gives one)".to_owned())
    );
}

#[test]
fn symbols_are_demangled_and_in_order() {
    let mut images = images(&program().elf()).expect("a sound file");
    let symbols = images.symbols();
    let names: Vec<_> = symbols.iter().map(|symbol| symbol.name.as_str()).collect();
    assert_eq!(names, ["hyp::abort::host_mem_abort", "HYP"]);
}

#[test]
fn program_headers_say_where_it_is_loaded() {
    let images = images(&program().elf()).expect("a sound file");
    assert_eq!(images.load_address(HYP), Some(0x4030_0000));
    assert_eq!(images.load_address(0x40_4040_0000), None);
    assert_eq!(images.load_address(0), None);
}

/// What a snapshot carries answers the same questions, and no others.
#[test]
fn notes_answer_what_was_asked() {
    let mut first = images(&program().elf()).expect("a sound file");
    assert_eq!(first.notes(), None);
    let place = first.place("HYP.records").expect("it is there");
    let symbols = first.symbols();
    let notes = first.notes().expect("something was used");

    let mut second = Images::default();
    second.recall(&notes).expect("its own notes");
    assert_eq!(second.place("HYP.records"), Ok(place));
    assert_eq!(second.symbols(), symbols);
    assert_eq!(second.load_address(HYP), Some(0x4030_0000));
    assert!(second.place("HYP.lock").is_err());
    assert_eq!(
        second.notes(),
        Some(notes.clone()),
        "a snapshot of a snapshot remembers the same"
    );
    assert!(second.recall("{}").is_err());

    // The file of another program adds its symbols.
    let host = Program {
        symbols: vec![("host_main".to_owned(), 0x4100_0000, 64)],
        ..Program::default()
    };
    let mut both = Images {
        files: vec![Elf::parse("folder/host.elf", &host.elf()).expect("a sound file")],
        ..Images::default()
    };
    both.recall(&notes).expect("its own notes");
    assert_eq!(both.symbols().len(), symbols.len() + 1);
    assert_eq!(both.symbol_files(), ["host.elf", "hyp.elf"]);
}

#[test]
fn a_file_given_twice_counts_once() {
    let bytes = program().elf();
    let once = images(&bytes).expect("a sound file").symbols();
    let mut twice = images(&bytes).expect("a sound file");
    twice.files.extend(Elf::parse("hyp.elf", &bytes));
    assert_eq!(twice.symbols(), once);
}

#[test]
fn only_aarch64_programs_are_taken() {
    let sound = program().elf();
    for (change, message) in [
        ((4, 1), "not an ELF file of 64 bits"),
        ((18, 62), "not an ELF for AArch64"),
        (
            (16, 4),
            "a core file, not a program; give it as TARGET instead",
        ),
    ] {
        let mut bytes = sound.clone();
        let (at, value) = change;
        bytes[at] = value;
        let error = images(&bytes)
            .map(|_| ())
            .map_err(|error| error.to_string());
        assert!(
            error
                .as_ref()
                .is_err_and(|error| error.starts_with(&format!("hyp.elf: {message}"))),
            "{error:?}"
        );
    }
    let error = Images::open(&["/dev/zero".into()])
        .map(|_| ())
        .map_err(|error| error.to_string());
    assert_eq!(error, Err("/dev/zero: not a file".to_owned()));
    assert!(Images::open(&["/nonexistent/hyp.elf".into()]).is_err());
}

const PATHS: [&str; 6] = [
    "HYP",
    "HYP.profile",
    "HYP.records[].count",
    "HYP.regions[].size",
    "HYP.lock.taker",
    "HYP.next",
];

/// Asks everything; the answers do not matter, that there are some does.
fn ask(bytes: &[u8]) {
    if let Ok(mut images) = images(bytes) {
        for path in PATHS {
            let _ = images.place(path);
        }
        let _ = images.symbols();
    }
}

#[test]
fn a_file_cut_anywhere_is_an_error_or_an_answer() {
    let bytes = program().elf();
    for end in 0..bytes.len() {
        ask(&bytes[..end]);
    }
}

proptest! {
    #[test]
    fn a_damaged_file_is_an_error_or_an_answer(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)
    ) {
        let mut bytes = program().elf();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        ask(&bytes);
    }
}

/// A type that contains itself, as no compiler writes it.
#[test]
fn types_that_nest_without_end_are_refused() {
    let mut inner = number();
    for _ in 0..100 {
        inner = newtype("Wrapper", inner, 8);
    }
    let program = Program {
        symbols: vec![("HYP".to_owned(), HYP, 8)],
        variables: vec![("HYP".to_owned(), inner)],
        ..Program::default()
    };
    let error = images(&program.elf())
        .and_then(|mut images| images.place("HYP"))
        .map_err(|error| error.to_string());
    assert_eq!(
        error,
        Err("hyp.elf: `HYP`: the debug information is damaged: types nest without end".to_owned())
    );
}
