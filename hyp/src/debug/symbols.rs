//! A table of symbols: what the image carries of its own names, so that a client needs no file.
//!
//! Whoever links the image writes it, with the symbols of the built-in host too: just those that the inspector takes
//! from the two ELF files, named in the same way, in order of address, then of size, then of name. An address therefore
//! has the same name for an inspector without any file on hyp's channel, and for one that is given both files
//! (`--image hyp.elf --image host.elf`), by whatever road it reads the machine. With only one of the files, the other
//! program's addresses have no names.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | [`MAGIC`] |
//! | 4 | how many symbols follow |
//! | 8 | a symbol's address |
//! | 8 | its size |
//! | 4 | how many bytes its name has |
//! | … | its name, UTF-8 |
//!
//! Numbers are little-endian; nothing is padded.

use core::fmt;

use super::Symbol;
use super::window::Window;

/// The first bytes of a table.
pub const MAGIC: [u8; 8] = *b"hyp-syms";

/// The most symbols in a table, so that whoever reads one knows how much room to have.
pub const MAX: usize = 2048;

/// Bytes before the first symbol.
const HEAD: usize = 8 + 4;
/// Bytes of a symbol but for its name.
const FIXED: usize = 8 + 8 + 4;

/// Reads a table into as many of `into` as it has symbols, and returns them. A table that was never written has none;
/// what follows damage, or a symbol out of order, is left out.
pub fn decode<'a, 'b>(table: &'a [u8], into: &'b mut [Symbol<'a>]) -> &'b [Symbol<'a>] {
    let mut read = 0;
    for (symbol, slot) in Symbols::of(table).zip(into.iter_mut()) {
        *slot = symbol;
        read += 1;
    }
    &into[..read]
}

/// The symbols of a table, up to where it makes no sense any more.
struct Symbols<'a> {
    rest: &'a [u8],
    left: u32,
    last: u64,
}

impl<'a> Symbols<'a> {
    fn of(table: &'a [u8]) -> Self {
        let mut symbols = Self {
            rest: table,
            left: 0,
            last: 0,
        };
        if symbols.bytes() == Some(MAGIC) {
            symbols.left = symbols.bytes().map_or(0, u32::from_le_bytes);
        }
        symbols
    }

    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*bytes)
    }
}

impl<'a> Iterator for Symbols<'a> {
    type Item = Symbol<'a>;

    fn next(&mut self) -> Option<Symbol<'a>> {
        self.left = self.left.checked_sub(1)?;
        let address = u64::from_le_bytes(self.bytes()?);
        let size = u64::from_le_bytes(self.bytes()?);
        let length = usize::try_from(u32::from_le_bytes(self.bytes()?)).ok()?;
        let (name, rest) = self.rest.split_at_checked(length)?;
        let name = str::from_utf8(name).ok()?;
        if address < self.last {
            return None;
        }
        (self.rest, self.last) = (rest, address);
        Some(Symbol {
            name,
            address,
            size,
        })
    }
}

/// There is no room for a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoRoom {
    /// How many symbols it would have.
    pub symbols: usize,
    /// How many bytes it would take.
    pub bytes: usize,
    /// How many bytes there are.
    pub room: usize,
}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            symbols,
            bytes,
            room,
        } = self;
        write!(
            f,
            "{symbols} symbols take {bytes} bytes; there is room for {MAX} in {room} bytes"
        )
    }
}

impl core::error::Error for NoRoom {}

/// Writes a table of `symbols`, which are in order of address, to the first bytes of `table`.
///
/// # Errors
/// There are more than [`MAX`], or more than fit.
pub fn encode(symbols: &[Symbol<'_>], table: &mut [u8]) -> Result<(), NoRoom> {
    let size = |symbol: &Symbol<'_>| FIXED + symbol.name.len();
    let needed = NoRoom {
        symbols: symbols.len(),
        bytes: HEAD + symbols.iter().map(size).sum::<usize>(),
        room: table.len(),
    };
    if needed.symbols > MAX || needed.bytes > needed.room {
        return Err(needed);
    }
    let mut table = Window::new(0, table);
    table.write(&MAGIC);
    // Neither number needs more bits: both are bounded by now.
    table.write(&(symbols.len() as u32).to_le_bytes());
    for symbol in symbols {
        table.write(&symbol.address.to_le_bytes());
        table.write(&symbol.size.to_le_bytes());
        table.write(&(symbol.name.len() as u32).to_le_bytes());
        table.write(symbol.name.as_bytes());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::prelude::rust_2024::*;
    use std::string::ToString;
    use std::vec;

    const NONE: Symbol<'_> = Symbol {
        name: "",
        address: 0,
        size: 0,
    };

    fn symbol(name: &str, address: u64, size: u64) -> Symbol<'_> {
        Symbol {
            name,
            address,
            size,
        }
    }

    fn decoded(table: &[u8]) -> Vec<Symbol<'_>> {
        decode(table, &mut [NONE; 8]).to_vec()
    }

    fn two() -> Vec<u8> {
        let mut table = vec![0; 100];
        let symbols = [
            symbol("HYP", 0x40_4020_0000, 0x100),
            symbol("été", 0x40_4020_0100, 0),
        ];
        encode(&symbols, &mut table).expect("room");
        assert_eq!(decoded(&table), symbols);
        table
    }

    #[test]
    fn the_bytes_are_as_the_format_says() {
        let mut table = [0xff; 40];
        encode(&[symbol("name", 0x1234, 5)], &mut table).expect("room");
        let expected = [
            b"hyp-syms".as_slice(),
            &[1, 0, 0, 0],
            &[0x34, 0x12, 0, 0, 0, 0, 0, 0],
            &[5, 0, 0, 0, 0, 0, 0, 0],
            &[4, 0, 0, 0],
            b"name",
            &[0xff; 4],
        ];
        assert_eq!(table[..], expected.concat());
    }

    #[test]
    fn a_table_that_was_never_written_has_no_symbols() {
        assert!(decoded(&[0; 100]).is_empty());
        assert!(decoded(&[]).is_empty());
    }

    #[test]
    fn what_follows_damage_is_left_out() {
        let table = two();
        let names = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut table = table.clone();
            change(&mut table);
            decoded(&table).len()
        };
        assert_eq!(names(&|table| table[0] = b'H'), 0, "another magic number");
        assert_eq!(
            names(&|table| table.truncate(11)),
            0,
            "cut off in the count"
        );
        assert_eq!(names(&|table| table.truncate(59)), 1, "cut off in a name");
        assert_eq!(names(&|table| table[32] = 0xff), 0, "not UTF-8");
        assert_eq!(names(&|table| table[31] = 0xff), 0, "a name without end");
        assert_eq!(names(&|table| table[37] -= 1), 1, "out of order");
        // Zeros behind the last symbol are out of order.
        assert_eq!(names(&|table| table[8..12].fill(0xff)), 2, "too many");
    }

    #[test]
    fn more_than_there_is_room_for_is_left_out() {
        assert_eq!(decode(&two(), &mut [NONE; 1]).len(), 1);
        assert!(decode(&two(), &mut []).is_empty());
    }

    #[test]
    fn what_does_not_fit_is_an_error_in_numbers() {
        let symbols = [symbol("name", 1, 1)];
        assert_eq!(encode(&symbols, &mut [0; 36]), Ok(()));
        let error = encode(&symbols, &mut [0; 35]).expect_err("a byte too many");
        assert_eq!(
            error.to_string(),
            "1 symbols take 36 bytes; there is room for 2048 in 35 bytes"
        );
        let many = vec![symbol("", 1, 1); MAX + 1];
        assert!(encode(&many[1..], &mut vec![0; 1 << 20]).is_ok());
        assert!(encode(&many, &mut vec![0; 1 << 20]).is_err());
    }

    proptest! {
        #[test]
        fn a_table_reads_as_it_was_written(
            mut symbols in prop::collection::vec((any::<u64>(), any::<u64>(), ".{0,20}"), 0..8),
        ) {
            symbols.sort();
            let symbols: Vec<_> = symbols
                .iter()
                .map(|(address, size, name)| symbol(name, *address, *size))
                .collect();
            let mut table = vec![0; 4096];
            encode(&symbols, &mut table).expect("room");
            prop_assert_eq!(decoded(&table), symbols);
        }

        /// Of any bytes, only what is in order and lies inside comes out.
        #[test]
        fn no_bytes_are_too_odd(
            count in any::<u32>(),
            bytes in prop::collection::vec(prop_oneof![Just(0), any::<u8>()], 0..200),
        ) {
            let table = [&MAGIC[..], &count.to_le_bytes(), &bytes].concat();
            let symbols = decoded(&table);
            prop_assert!(symbols.is_sorted_by_key(|symbol| symbol.address));
            let names: usize = symbols.iter().map(|symbol| FIXED + symbol.name.len()).sum();
            prop_assert!(names <= bytes.len() && symbols.len() <= count as usize);
        }
    }
}
