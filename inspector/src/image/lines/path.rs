//! What of a file's path tells a reader something.

/// A file without the folder it was built in. Rust's own library and crates from a registry keep their names.
pub(super) fn shortened(file: &str, folder: Option<&str>) -> String {
    let parts = parts(file);
    let after = |marker: &[&str], more: usize| {
        let at = parts
            .windows(marker.len())
            .position(|window| window == marker)?;
        parts.get(at + marker.len() + more..)
    };
    let known = after(&["registry", "src"], 1)
        .or_else(|| after(&["rustlib", "src", "rust"], 0))
        .or_else(|| {
            parts
                .strip_prefix(&["rustc"])
                .and_then(|rest| rest.get(1..))
        })
        .filter(|rest| !rest.is_empty());
    if let Some(known) = known {
        return known.join("/");
    }
    // A kernel is built in a folder below its source.
    let folder = self::parts(folder.unwrap_or_default());
    let common = parts
        .iter()
        .zip(&folder)
        .take_while(|(a, b)| a == b)
        .count();
    let rest = parts.get(common..).unwrap_or_default();
    if rest.is_empty() || common < folder.len().min(2) || folder.is_empty() {
        return file.to_owned();
    }
    rest.join("/")
}

/// The parts of a path, `.` and `..` resolved.
fn parts(path: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_that_it_was_built_in_goes() {
        for (file, folder, expected) in [
            (
                "/home/me/hyp/src/abort.rs",
                Some("/home/me"),
                "hyp/src/abort.rs",
            ),
            (
                "/home/me/./hyp/x/../src/abort.rs",
                Some("/home/me/"),
                "hyp/src/abort.rs",
            ),
            (
                "debian/build/none/arch/arm64/kvm/hyp/nvhe/tlb.c",
                Some("debian/build/none"),
                "arch/arm64/kvm/hyp/nvhe/tlb.c",
            ),
            (
                "/build/linux-6.1/arch/arm64/kernel/entry.S",
                Some("/build/linux-6.1/debian/build"),
                "arch/arm64/kernel/entry.S",
            ),
            (
                "/rustc/59807616e1fa/library/core/src/slice/mod.rs",
                Some("/home/me"),
                "library/core/src/slice/mod.rs",
            ),
            (
                "/x/lib/rustlib/src/rust/library/core/src/ptr/mod.rs",
                Some("/home/me"),
                "library/core/src/ptr/mod.rs",
            ),
            (
                "/home/me/.cargo/registry/src/index-1/gdbstub-0.7.10/src/lib.rs",
                Some("/home/me"),
                "gdbstub-0.7.10/src/lib.rs",
            ),
            (
                "/usr/include/stdio.h",
                Some("/home/me"),
                "/usr/include/stdio.h",
            ),
            ("/home/other/a.rs", Some("/home/me/b"), "/home/other/a.rs"),
            ("main.c", None, "main.c"),
            ("/home/me", Some("/home/me"), "/home/me"),
        ] {
            assert_eq!(shortened(file, folder), expected);
        }
    }
}
