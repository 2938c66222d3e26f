//! Rows of cells with roles: one definition for text and for the terminal.

/// What a cell means; a theme turns it into colour and a glyph, plain text ignores it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// Ordinary text.
    Plain,
    /// A label or something of little weight.
    Dim,
    /// An address or a size.
    Address,
    /// A raw word.
    Raw,
    /// A symbol's name.
    Symbol,
    /// Owned by the host.
    Host,
    /// Owned by the hypervisor.
    Hyp,
    /// Owned by a guest.
    Guest,
    /// Shared, seen from its owner.
    SharedOwned,
    /// Shared, seen from its borrower.
    SharedBorrowed,
    /// Not RAM.
    Mmio,
    /// A lock that is held, a CPU at EL2: something going on.
    Active,
    /// Something wrong.
    Problem,
}

/// A piece of text with a meaning.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cell {
    /// The text, without control characters.
    pub text: String,
    /// Its meaning.
    pub role: Role,
}

impl Cell {
    /// A cell.
    pub fn new(role: Role, text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            role,
        }
    }
}

/// A row of a table: one cell a column.
pub type Row = Vec<Cell>;

/// A table for text or for a pane.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Table {
    /// Column titles.
    pub titles: Vec<&'static str>,
    /// Rows, each as long as `titles`.
    pub rows: Vec<Row>,
}
