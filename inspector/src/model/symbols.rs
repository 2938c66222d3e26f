//! Names of addresses, and addresses of names.

use super::Symbol;
use crate::addr::Span;
use std::sync::Arc;

/// A label without a size covers what is up to the next symbol, at most this.
const LABEL: u64 = 4096;
/// How many symbols that begin later, but end before the address, are passed over.
const NESTED: usize = 16;

/// The symbols of the programs that a machine runs, where they run. Cheap to clone.
///
/// A kernel runs elsewhere than it is linked, and the part of it that is EL2's at two places, one for each exception
/// level. So the table stays as linked, and its addresses are moved when they are asked for.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Symbols {
    /// In order of their linked addresses.
    linked: Arc<[Symbol]>,
    /// Empty for programs that run where they are linked.
    views: Vec<View>,
}

/// A linked program as one exception level sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct View {
    /// Linked addresses.
    pub linked: Span,
    /// Run-time address − linked address, wrapping.
    pub offset: u64,
    /// Beginning of the names that are looked up in this view; the first view with a name's beginning has it.
    pub prefix: &'static str,
}

impl Symbols {
    /// Symbols of programs that run where they are linked, in any order.
    pub fn new(mut symbols: Vec<Symbol>) -> Self {
        symbols.sort_by(|a, b| (a.address, a.size, &a.name).cmp(&(b.address, b.size, &b.name)));
        Self::moved(symbols.into(), Vec::new())
    }

    /// Symbols in order of their linked addresses, and how they are seen: the view to look up names in first comes first.
    pub fn moved(linked: Arc<[Symbol]>, views: Vec<View>) -> Self {
        Self { linked, views }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.linked.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.linked.is_empty()
    }

    /// The name of a run-time address by the symbol that covers it: `name`, or `name+0x40` inside it.
    pub fn name_of(&self, address: u64) -> Option<String> {
        let linked = self.linked_address(address)?;
        let after = self
            .linked
            .partition_point(|symbol| symbol.address <= linked);
        let before = self.linked[..after].iter().rev().take(NESTED);
        let found = before.enumerate().find(|(back, symbol)| {
            let offset = linked - symbol.address;
            offset < symbol.size || symbol.size == 0 && *back == 0 && offset < LABEL
        });
        let (_, symbol) = found?;
        Some(match linked - symbol.address {
            0 => symbol.name.clone(),
            offset => format!("{}+{offset:#x}", symbol.name),
        })
    }

    /// All names, in order of linked address.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.linked.iter().map(|symbol| symbol.name.as_str())
    }

    /// The run-time addresses that a name stands for.
    pub fn find(&self, name: &str) -> Option<Span> {
        let symbol = self.linked.iter().find(|symbol| symbol.name == name)?;
        Some(Span::new(self.address_of(symbol), symbol.size))
    }

    /// The run-time addresses of all that have a name: instances of one generic function share theirs.
    pub fn find_all(&self, name: &str) -> Vec<Span> {
        let named = self.linked.iter().filter(|symbol| symbol.name == name);
        named
            .map(|symbol| Span::new(self.address_of(symbol), symbol.size))
            .collect()
    }

    /// The symbols whose run-time addresses begin in a range, with those addresses.
    pub fn within(&self, range: Span) -> Vec<(&str, u64)> {
        let Some(start) = self.linked_address(range.start) else {
            return Vec::new();
        };
        let from = self.linked.partition_point(|symbol| symbol.address < start);
        self.linked[from..]
            .iter()
            .take_while(|symbol| symbol.address - start < range.size)
            .map(|symbol| {
                let offset = symbol.address - start;
                (symbol.name.as_str(), range.start.wrapping_add(offset))
            })
            .collect()
    }

    /// Where what runs at an address is linked; `None` where nothing is.
    pub fn linked_address(&self, address: u64) -> Option<u64> {
        if self.views.is_empty() {
            return Some(address);
        }
        let mut seen = self
            .views
            .iter()
            .map(|view| (view, address.wrapping_sub(view.offset)));
        let (_, linked) = seen.find(|(view, linked)| view.linked.contains(*linked))?;
        Some(linked)
    }

    fn address_of(&self, symbol: &Symbol) -> u64 {
        let view = self.views.iter().find(|view| {
            symbol.name.starts_with(view.prefix) && view.linked.contains(symbol.address)
        });
        symbol
            .address
            .wrapping_add(view.map_or(0, |view| view.offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbols(list: &[(&str, u64, u64)]) -> Vec<Symbol> {
        let symbol = |(name, address, size): &(&str, u64, u64)| Symbol {
            name: (*name).to_owned(),
            address: *address,
            size: *size,
        };
        list.iter().map(symbol).collect()
    }

    #[test]
    fn an_address_has_the_name_of_the_symbol_that_covers_it() {
        let symbols = Symbols::new(symbols(&[
            ("outer", 0x2000, 0x100),
            ("early", 0x1000, 0x10),
            ("label", 0x4000, 0),
            ("inner", 0x2010, 0x10),
        ]));
        for (address, name) in [
            (0xfff, None),
            (0x1000, Some("early")),
            (0x100f, Some("early+0xf")),
            (0x1010, None),
            (0x2018, Some("inner+0x8")),
            (0x2020, Some("outer+0x20")),
            (0x2100, None),
            (0x4000, Some("label")),
            (0x4fff, Some("label+0xfff")),
            (0x5000, None),
            (u64::MAX, None),
        ] {
            assert_eq!(symbols.name_of(address).as_deref(), name, "{address:#x}");
        }
        assert_eq!(Symbols::default().name_of(0), None);
    }

    /// A kernel with a slide of 0x10_0000, whose EL2 code also runs 0x8000_0000_0000 lower.
    #[test]
    fn a_kernel_has_its_names_where_each_exception_level_sees_it() {
        const TEXT: u64 = 0xffff_8000_0800_0000;
        const SLIDE: u64 = 0x10_0000;
        const HYP: u64 = 0_u64.wrapping_sub(0x8000_0000_0000_0000);
        let linked = Span::new(TEXT, 0x1_0000);
        let view = |offset, prefix| View {
            linked,
            offset,
            prefix,
        };
        let list = symbols(&[
            ("start", TEXT, 0x100),
            ("el2_vector", TEXT + 0x800, 0x80),
            ("stop", TEXT + 0x1000, 0x10),
        ]);
        let symbols = Symbols::moved(list.into(), vec![view(HYP, "el2_"), view(SLIDE, "")]);
        let vector = (TEXT + 0x800).wrapping_add(HYP);
        assert_eq!(
            symbols.name_of(vector + 4).as_deref(),
            Some("el2_vector+0x4")
        );
        assert_eq!(symbols.name_of(TEXT + SLIDE).as_deref(), Some("start"));
        assert_eq!(symbols.name_of(TEXT.wrapping_sub(8)), None);
        assert_eq!(symbols.find("el2_vector"), Some(Span::new(vector, 0x80)));
        assert_eq!(
            symbols.find("stop"),
            Some(Span::new(TEXT + 0x1000 + SLIDE, 0x10))
        );
        assert_eq!(symbols.find("none"), None);
        let page = Span::new(vector & !0xfff, 0x1000);
        assert_eq!(
            symbols.within(page),
            [("start", vector - 0x800), ("el2_vector", vector)]
        );
    }
}
