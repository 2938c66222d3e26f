//! The order of the inspector's modules, who may use hyp, and the sizes of files and functions.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::fs;
use std::path::{Path, PathBuf};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

const MAX_FILE_LINES: usize = 600;
const MAX_FUNCTION_LINES: usize = 100;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All Rust files below `folder`, in order, with their paths relative to it.
fn files(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(folder).unwrap().to_owned(), text));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no Rust files in {}", folder.display());
    found
}

/// The modules that lib.rs declares, in its order.
fn modules(lib: &str) -> Vec<String> {
    syn::parse_file(lib)
        .unwrap()
        .items
        .iter()
        .filter_map(|item| match item {
            syn::Item::Mod(module) => Some(module.ident.to_string()),
            _ => None,
        })
        .collect()
}

/// Names that a file takes from the root of its crate, and of other crates when a path starts there.
#[derive(Default)]
struct Uses {
    /// `x` of `crate::x`, or of as many `super::` as lead there.
    modules: Vec<String>,
    /// First names of paths.
    roots: Vec<String>,
}

impl Uses {
    /// `depth` is how many modules down from the root the file stands: 1 for src/x.rs.
    fn of(text: &str, depth: usize) -> Self {
        let mut uses = Self::default();
        uses.scan(text.parse().unwrap(), depth);
        uses
    }

    fn scan(&mut self, tokens: TokenStream, depth: usize) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let name = |at: usize| match tokens.get(at) {
            Some(TokenTree::Ident(ident)) => Some(ident.to_string()),
            _ => None,
        };
        let colons = |at: usize| {
            (at..at + 2).all(|at| {
                matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == ':')
            })
        };
        for (at, token) in tokens.iter().enumerate() {
            if let TokenTree::Group(group) = token {
                let inline = group.delimiter() == Delimiter::Brace
                    && at >= 2
                    && name(at - 2).as_deref() == Some("mod");
                self.scan(group.stream(), depth + usize::from(inline));
            }
            if name(at).is_some() && colons(at + 1) && !(at >= 2 && colons(at - 2)) {
                self.path(&tokens[at..], depth);
            }
        }
    }

    /// Takes in a path: names and `::` in turn.
    fn path(&mut self, tokens: &[TokenTree], depth: usize) {
        let mut names = tokens.iter().step_by(3);
        let mut level = depth;
        let mut first = names.next();
        self.roots.extend(first.map(ToString::to_string));
        loop {
            match first.map(ToString::to_string).as_deref() {
                Some("crate") => level = 0,
                Some("super") => level = level.saturating_sub(1),
                Some("self") => {}
                _ => break,
            }
            first = names.next();
        }
        if level == 0 {
            self.modules.extend(first_names(first));
        }
    }
}

/// The name there, or the first name of each path of a `{…}` list.
fn first_names(token: Option<&TokenTree>) -> Vec<String> {
    match token {
        Some(TokenTree::Ident(ident)) => vec![ident.to_string()],
        Some(TokenTree::Group(group)) => {
            let mut names = Vec::new();
            let mut fresh = true;
            for token in group.stream() {
                match token {
                    TokenTree::Ident(ident) if fresh => {
                        names.push(ident.to_string());
                        fresh = false;
                    }
                    TokenTree::Punct(punct) if punct.as_char() == ',' => fresh = true,
                    _ => {}
                }
            }
            names
        }
        _ => Vec::new(),
    }
}

/// The top module a file of src belongs to, and how deep it stands; none for lib.rs and main.rs.
fn place(path: &Path) -> Option<(String, usize)> {
    let parts: Vec<_> = path.iter().map(|part| part.to_str().unwrap()).collect();
    let top = parts[0].trim_end_matches(".rs");
    (!["lib", "main"].contains(&top)).then(|| (top.to_owned(), parts.len()))
}

#[test]
fn no_module_uses_a_later_one() {
    let source = workspace().join("inspector/src");
    let order = modules(&fs::read_to_string(source.join("lib.rs")).unwrap());
    let rank = |name: &str| order.iter().position(|module| module == name);
    let mut wrong = Vec::new();
    for (path, text) in files(&source) {
        let Some((top, depth)) = place(&path) else {
            continue;
        };
        let Some(own) = rank(&top) else {
            wrong.push(format!("{}: {top} is not in lib.rs", path.display()));
            continue;
        };
        for used in Uses::of(&text, depth).modules {
            if rank(&used).is_some_and(|used| used > own) {
                wrong.push(format!("{}: {top} uses {used}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn only_demo_uses_hyp() {
    let mut wrong = Vec::new();
    for (path, text) in files(&workspace().join("inspector/src")) {
        let (top, depth) = place(&path).unwrap_or_default();
        let uses = Uses::of(&text, depth);
        if top != "demo" && uses.roots.iter().any(|root| root == "hyp") {
            wrong.push(format!("{} uses hyp", path.display()));
        }
        if ["arch", "hypervisor"].contains(&top.as_str())
            && uses.modules.iter().any(|module| module == "demo")
        {
            wrong.push(format!("{} uses demo", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn uses_are_seen() {
    let text = "
        use crate::a::x;
        use crate::{b, c::{d, e}};
        use super::f;
        fn g() { self::super::h::i(); format!(\"{}\", crate::j::K); }
        /// Not [`crate::l`].
        mod tests { use super::m; use super::super::n; }
        use hyp::desc; use x::hyp::y;
    ";
    let uses = Uses::of(text, 1);
    assert_eq!(uses.modules, ["a", "b", "c", "f", "h", "j", "n"]);
    assert_eq!(uses.roots.iter().filter(|root| *root == "hyp").count(), 1);
    assert!(Uses::of("use super::f;", 2).modules.is_empty());
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<syn::Path>()
                .is_ok_and(|path| path.is_ident("test"))
    })
}

fn lines(span: proc_macro2::Span) -> usize {
    span.end().line - span.start().line + 1
}

/// Lengths of one file.
#[derive(Default)]
struct Lengths {
    /// Lines of `#[cfg(test)]` items.
    tests: usize,
    /// `#[cfg(test)] mod x;`: files that are tests as a whole.
    test_modules: Vec<String>,
    /// Functions that are too long.
    functions: Vec<String>,
}

impl Lengths {
    fn function(&mut self, signature: &syn::Signature, all: usize) {
        if all > MAX_FUNCTION_LINES {
            self.functions
                .push(format!("{} has {all} lines", signature.ident));
        }
    }
}

impl<'a> Visit<'a> for Lengths {
    fn visit_item(&mut self, item: &'a syn::Item) {
        if let syn::Item::Mod(module) = item
            && is_test(&module.attrs)
        {
            if module.content.is_none() {
                self.test_modules.push(module.ident.to_string());
            }
            self.tests += lines(item.span());
            return;
        }
        visit::visit_item(self, item);
    }

    fn visit_item_fn(&mut self, function: &'a syn::ItemFn) {
        self.function(
            &function.sig,
            lines(function.sig.span().join(function.block.span()).unwrap()),
        );
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'a syn::ImplItemFn) {
        self.function(
            &function.sig,
            lines(function.sig.span().join(function.block.span()).unwrap()),
        );
        visit::visit_impl_item_fn(self, function);
    }
}

#[test]
fn files_and_functions_are_short() {
    let mut wrong = Vec::new();
    for package in ["inspector", "hyp", "hyp/image", "fixtures", "fixtures/init"] {
        let mut test_files = Vec::new();
        let mut long = Vec::new();
        for (path, text) in files(&workspace().join(package).join("src")) {
            let mut lengths = Lengths::default();
            lengths.visit_file(&syn::parse_file(&text).unwrap());
            let folder = match path.file_name().and_then(|name| name.to_str()) {
                Some("lib.rs" | "main.rs") => path.with_file_name(""),
                _ => path.with_extension(""),
            };
            let tests = lengths.test_modules.iter();
            test_files.extend(tests.map(|module| folder.join(module).with_extension("rs")));
            let count = text.lines().count() - lengths.tests;
            if count > MAX_FILE_LINES {
                lengths.functions.push(format!("{count} lines"));
            }
            long.extend(
                lengths
                    .functions
                    .into_iter()
                    .map(|what| (path.clone(), what)),
            );
        }
        long.retain(|(path, _)| !test_files.contains(path));
        wrong.extend(
            long.iter()
                .map(|(path, what)| format!("{package}/src/{}: {what}", path.display())),
        );
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn lengths_are_measured() {
    let body = "    x();\n".repeat(MAX_FUNCTION_LINES - 2);
    let fits = format!("fn a() {{\n{body}}}\n");
    let long = format!("impl T {{ fn b() {{\n    x();\n{body}}} }}\n");
    let tests = "#[cfg(test)]\nmod tests {\n    fn c() {}\n}\n#[cfg(test)]\nmod more;\n";
    let mut lengths = Lengths::default();
    lengths.visit_file(&syn::parse_file(&format!("{fits}{long}{tests}")).unwrap());
    assert_eq!(lengths.functions, ["b has 101 lines"]);
    assert_eq!(lengths.tests, 6);
    assert_eq!(lengths.test_modules, ["more"]);
}
