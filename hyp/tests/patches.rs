//! The table of patches in the crate's documentation: it has all 21, and its tests exist.

const TABLE: &str = include_str!("../src/lib.rs");

/// Files by the name the table uses: integration tests, and unit tests by their module.
const FILES: [(&str, &str); 11] = [
    ("aborts", include_str!("aborts.rs")),
    ("addr", include_str!("../src/addr.rs")),
    ("desc", include_str!("../src/desc/tests.rs")),
    ("finalise", include_str!("finalise.rs")),
    ("injection", include_str!("injection.rs")),
    ("lock", include_str!("../src/lock.rs")),
    ("locks", include_str!("locks.rs")),
    ("model", include_str!("model.rs")),
    ("page_tables", include_str!("page_tables.rs")),
    ("start", include_str!("start.rs")),
    ("transitions", include_str!("transitions.rs")),
];

#[test]
fn every_patch_has_tests_that_exist() {
    let rows: Vec<Vec<&str>> = TABLE
        .lines()
        .filter_map(|line| line.strip_prefix("//! | "))
        .filter(|row| row.starts_with(|first: char| first.is_ascii_digit()))
        .map(|row| row.split(" | ").collect())
        .collect();
    let numbers: Vec<_> = rows
        .iter()
        .map(|row| row[0].parse::<u32>().unwrap())
        .collect();
    assert_eq!(numbers, (1..=21).collect::<Vec<_>>());

    // The last row's test is the documentation's own example.
    for row in &rows[..20] {
        for part in row[3].split("; ") {
            let (file, names) = part.split_once(' ').unwrap();
            let source = FILES.iter().find(|(name, _)| *name == file);
            let (_, source) = source.unwrap_or_else(|| panic!("patch {}: no file {file}", row[0]));
            let names: Vec<_> = names.split('`').skip(1).step_by(2).collect();
            assert!(!names.is_empty(), "patch {}: no test in {file}", row[0]);
            for name in names {
                let test = format!("fn {name}(");
                assert!(
                    source.contains(&test),
                    "patch {}: no test {name} in {file}",
                    row[0]
                );
            }
        }
    }
}
