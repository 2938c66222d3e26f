//! kallsyms: the table in which a kernel keeps its own names, found by its structure.
//!
//! ```text
//! num_syms     u32    how many names
//! names               for each a length (1 byte; 2 from 0x80 on) and as many bytes, each a token's number;
//!                     the first letter of the text is the kind that nm shows
//! markers      u32    for every 256th name its offset in `names`
//! token_table         256 texts, each ended by a NUL; a digit or letter that names use stands for itself
//! token_index  u16    for every token its offset in `token_table`
//! ```
//!
//! Around these, in their order, stand the addresses: see [`addresses`].

use super::super::Symbol;
use crate::addr::Span;
use crate::target::TargetError;
use memchr::memmem;

/// Bytes at a position in a file or in physical memory, exactly as many as asked; `None` where they are not all there.
pub(crate) type Read<'a> = dyn FnMut(Span) -> Result<Option<Vec<u8>>, TargetError> + 'a;

/// More than [`Tokens::find`] needs before and after the digits: the index has 16 bits, and 512 bytes of its own.
pub(crate) const TOKENS_SIZE: usize = 0x10000 + 8 + 512;

/// arm64 Linux with page tables for 48 bits is linked here since 6.5; earlier ones elsewhere in the upper half.
const USUAL_LINK: u64 = 0xffff_8000_8000_0000;

/// Names of one kernel; the largest have some 300 000.
const MAX_NAMES: u32 = 1 << 22;
/// The bytes of 256 names.
const MAX_GROUP: u64 = 0x1_0000;
/// Bytes of all names.
const MAX_NAMES_SIZE: u64 = 1 << 24;
/// What looks like markers and is none is given up after this often.
const MAX_ATTEMPTS: usize = 64;
/// A longer name is not shown to anybody.
const NAME_LIMIT: usize = 2048;
/// All names unpacked are some 10 MB.
const MAX_TEXT: usize = 1 << 26;

/// The names of a kernel.
#[derive(Default)]
pub(crate) struct Kallsyms {
    /// Functions and data in order of address; an address is what the table's base says, so as linked in a file and as
    /// relocated in memory.
    pub(crate) symbols: Vec<Symbol>,
    /// Position − address (wrapping), where the table says it.
    pub(crate) offset: Option<u64>,
    /// Where the addresses' base stands, and what it is; `None` where every address is relative to its own place.
    pub(crate) base: Option<(u64, u64)>,
}

/// The table of tokens: with its index it is unlike anything else.
pub(crate) struct Tokens {
    /// Position of `token_table`.
    at: u64,
    /// Position after `token_index`.
    end: u64,
    texts: Vec<Vec<u8>>,
}

impl Tokens {
    /// Where the table stands.
    pub(crate) fn position(&self) -> u64 {
        self.at
    }

    /// Looks for both in a window on the file or memory, which begins at position `at`.
    pub(crate) fn find(window: &[u8], at: u64) -> Option<Self> {
        let digits: Vec<u8> = (b'0'..=b'9').flat_map(|digit| [digit, 0]).collect();
        memmem::find_iter(window, &digits).find_map(|zero| Self::around(window, at, zero))
    }

    /// `zero`: where the text of token `0` is in the window.
    fn around(window: &[u8], at: u64, zero: usize) -> Option<Self> {
        let rest = window.get(zero..)?;
        let rest = &rest[..rest.len().min(TOKENS_SIZE)];
        let last = memchr::memchr_iter(0, rest).nth(usize::from(u8::MAX - b'0'))?;
        let end = zero + last + 1;
        // The index is aligned to 8 bytes; since 7.0 to less.
        (end..end + 8).find_map(|index_at| {
            let index = window.get(index_at..index_at + 512)?;
            let index: Vec<usize> = index
                .chunks_exact(2)
                .map(|pair| usize::from(u16::from_le_bytes([pair[0], pair[1]])))
                .collect();
            let start = zero.checked_sub(index[usize::from(b'0')])?;
            let table = window.get(start..end)?;
            let texts: Vec<_> = table.strip_suffix(&[0])?.split(|&byte| byte == 0).collect();
            let mut offset = 0;
            let agrees = texts.len() == 256
                && texts.iter().zip(&index).all(|(text, &expected)| {
                    let here = offset;
                    offset += text.len() + 1;
                    here == expected
                });
            agrees.then(|| Self {
                at: at + start as u64,
                end: at + index_at as u64 + 512,
                texts: texts.into_iter().map(<[u8]>::to_vec).collect(),
            })
        })
    }
}

/// Reads the table around its tokens; `None` where a part cannot be read or fits no known form.
///
/// # Errors
/// The link failed.
pub(crate) fn decode(tokens: &Tokens, read: &mut Read) -> Result<Option<Kallsyms>, TargetError> {
    let Some(names) = find_names(tokens, read)? else {
        return Ok(None);
    };
    let Some(addresses) = addresses(tokens, &names, read)? else {
        return Ok(None);
    };
    Ok(Some(collect(tokens, &names, &addresses)))
}

/// The names, still packed.
struct Names {
    /// Position of `num_syms`.
    count_at: u64,
    count: u32,
    bytes: Vec<u8>,
    big: bool,
}

/// Finds markers before the tokens, and the names before those. In 6.2, and where that was taken over, an order of the
/// names by their text (3 bytes each) stands between markers and tokens, so that there may be much to look through.
fn find_names(tokens: &Tokens, read: &mut Read) -> Result<Option<Names>, TargetError> {
    let mut attempts = 0;
    let mut searched = tokens.at;
    for size in [0x4000, 0x8_0000, 0x40_0000] {
        let start = tokens.at.saturating_sub(size).next_multiple_of(4);
        let Some(bytes) = read(Span::new(start, tokens.at - start))? else {
            return Ok(None);
        };
        let words: Vec<u32> = bytes.chunks_exact(4).map(word).collect();
        let fresh = ((searched - start) / 4) as usize;
        for first in (0..fresh.min(words.len())).rev() {
            let Some(markers) = markers(&words[first..]) else {
                continue;
            };
            if let Some(names) = names_before(start + 4 * first as u64, markers, read)? {
                return Ok(Some(names));
            }
            attempts += 1;
            if attempts == MAX_ATTEMPTS {
                return Ok(None);
            }
        }
        searched = start;
    }
    Ok(None)
}

/// The markers that begin here, if any do: at least two, the first of them 0.
fn markers(words: &[u32]) -> Option<&[u32]> {
    if words.first() != Some(&0) {
        return None;
    }
    let rising = |pair: &[u32]| {
        let step = u64::from(pair[1]).saturating_sub(u64::from(pair[0]));
        // A name has a length and at least its kind.
        (512..=MAX_GROUP).contains(&step)
    };
    let steps = words.windows(2).take_while(|pair| rising(pair)).count();
    (steps > 0).then(|| &words[..=steps])
}

/// The names that end where their markers begin, at position `end`: their count stands just before them.
fn names_before(end: u64, markers: &[u32], read: &mut Read) -> Result<Option<Names>, TargetError> {
    let last = u64::from(markers.last().copied().unwrap_or(0));
    if last > MAX_NAMES_SIZE {
        return Ok(None);
    }
    let start = end.saturating_sub(last + MAX_GROUP + 16);
    let Some(bytes) = read(Span::new(start, end - start))? else {
        return Ok(None);
    };
    let words = |at: u64| {
        let at = usize::try_from(at.checked_sub(start)?).ok()?;
        bytes.get(at..at + 4).map(word)
    };
    let highest = end.saturating_sub(last) & !3;
    let lowest = highest.saturating_sub(MAX_GROUP).max(start + 8);
    for names_at in (lowest..=highest).rev().step_by(4) {
        // The count is padded to 8 bytes; since 7.0 it is not.
        for count_at in [names_at - 4, names_at - 8] {
            let count = words(count_at).unwrap_or(0);
            if count.div_ceil(256) as usize != markers.len() || count > MAX_NAMES {
                continue;
            }
            let packed = &bytes[(names_at - start) as usize..];
            // 6.1 brought lengths of two bytes; before, all had one.
            let big = [true, false]
                .into_iter()
                .find(|&big| fits(packed, count, markers, big));
            if let Some(big) = big {
                return Ok(Some(Names {
                    count_at,
                    count,
                    bytes: packed.to_vec(),
                    big,
                }));
            }
        }
    }
    Ok(None)
}

/// Whether as many names as are counted fill these bytes up to their end and agree with the markers.
fn fits(packed: &[u8], count: u32, markers: &[u32], big: bool) -> bool {
    let at_marker = |index: u32| markers.get(index as usize / 256).copied().unwrap_or(0) as usize;
    // From the last marker on first: it is what most wrong guesses fail at.
    let tail = count.saturating_sub(1) & !255;
    let Some(end) = (tail..count).try_fold(at_marker(tail), |at, _| next(packed, at, big)) else {
        return false;
    };
    let walked = || {
        (0..tail).try_fold(0, |at, index| {
            let marked = index % 256 != 0 || at == at_marker(index);
            next(packed, at, big).filter(|_| marked)
        })
    };
    packed.len().saturating_sub(end) < 8 && walked() == Some(at_marker(tail))
}

/// Where the name after the one at `at` begins.
fn next(packed: &[u8], at: usize, big: bool) -> Option<usize> {
    let (start, length) = entry(packed, at, big)?;
    let next = start + length;
    (length > 0 && next <= packed.len()).then_some(next)
}

/// Where the tokens of the name at `at` begin, and how many they are.
fn entry(packed: &[u8], at: usize, big: bool) -> Option<(usize, usize)> {
    let low = usize::from(*packed.get(at)?);
    if !big || low < 0x80 {
        return Some((at + 1, low));
    }
    let high = usize::from(*packed.get(at + 1)?);
    Some((at + 2, low & 0x7f | high << 7))
}

/// Where names are.
struct Addresses {
    /// In the order of the names.
    addresses: Vec<u64>,
    offset: Option<u64>,
    base: Option<(u64, u64)>,
}

/// The addresses of the names, in one of three forms:
///
/// * up to 6.3, before the count: u32 offsets, then the 64-bit base they count from;
/// * 6.4 put both after the tokens;
/// * 7.0 dropped the base: each is an i32 that counts from its own place, so only distances are known.
fn addresses(
    tokens: &Tokens,
    names: &Names,
    read: &mut Read,
) -> Result<Option<Addresses>, TargetError> {
    let size = u64::from(names.count) * 4;
    let padded = size.next_multiple_of(8);
    let after = tokens.end.next_multiple_of(8);
    let before = names.count_at.checked_sub(padded + 8);
    for at in [Some(after), before].into_iter().flatten() {
        if let Some(bytes) = read(Span::new(at, padded + 8))? {
            let (offsets, base) = bytes.split_at(padded as usize);
            let base = u64::from_le_bytes(base.try_into().unwrap_or_default());
            if let Some(addresses) = from_base(&offsets[..size as usize], base) {
                return Ok(Some(Addresses {
                    addresses,
                    offset: None,
                    base: Some((at + padded, base)),
                }));
            }
        }
    }
    let at = tokens.end.next_multiple_of(4);
    let bytes = read(Span::new(at, size))?;
    Ok(bytes.and_then(|bytes| from_places(&bytes, at)))
}

/// Addresses that count from a base, which a file may leave to be relocated (0).
fn from_base(offsets: &[u8], base: u64) -> Option<Vec<u64>> {
    let offsets: Vec<u32> = offsets.chunks_exact(4).map(word).collect();
    let kernel = base == 0 || base >> 63 == 1;
    let rising = offsets.is_sorted() && offsets.first() < offsets.last();
    let addresses = offsets
        .iter()
        .map(|&offset| base.checked_add(u64::from(offset)));
    addresses
        .collect::<Option<_>>()
        .filter(|_| kernel && rising)
}

/// Addresses that count each from its own place, the first place being `at`; shown as if linked at the usual address.
fn from_places(offsets: &[u8], at: u64) -> Option<Addresses> {
    let places = (at..).step_by(4);
    let positions = places.zip(offsets.chunks_exact(4)).map(|(place, bytes)| {
        // Sign-extended from 32 bits.
        place.checked_add_signed(i64::from(word(bytes).cast_signed()))
    });
    let positions: Vec<u64> = positions.collect::<Option<_>>()?;
    let (first, last) = (*positions.first()?, *positions.last()?);
    // The table lies inside the kernel that it describes; an image begins at a multiple of 64 KiB.
    let inside = first < at && at < last && positions.is_sorted();
    let offset = (first & !0xffff).wrapping_sub(USUAL_LINK);
    inside.then(|| Addresses {
        addresses: positions
            .iter()
            .map(|position| position.wrapping_sub(offset))
            .collect(),
        offset: Some(offset),
        base: None,
    })
}

/// Unpacks the names of functions and data.
fn collect(tokens: &Tokens, names: &Names, found: &Addresses) -> Kallsyms {
    let mut symbols: Vec<Symbol> = Vec::with_capacity(found.addresses.len());
    let (mut at, mut total) = (0, 0);
    for &address in &found.addresses {
        let Some((start, length)) = entry(&names.bytes, at, names.big) else {
            break;
        };
        at = start + length;
        let packed = names.bytes.get(start..at).unwrap_or_default();
        let texts = packed
            .iter()
            .map(|&token| &tokens.texts[usize::from(token)]);
        let text: Vec<u8> = texts.flatten().copied().take(NAME_LIMIT + 2).collect();
        total += text.len();
        if total > MAX_TEXT {
            break;
        }
        let Some((kind, name)) = text.split_first() else {
            continue;
        };
        // As nm has them: text, weak, data, bss, read-only.
        if !b"TtWwVvDdBbRr".contains(kind) || name.len() > NAME_LIMIT {
            continue;
        }
        // `$x` and `$d` mark code and data inside functions.
        if name.is_empty() || name.starts_with(b"$") {
            continue;
        }
        let name = String::from_utf8_lossy(name);
        symbols.push(Symbol {
            name: format!("{:#}", rustc_demangle::demangle(&name)),
            address,
            size: 0,
        });
    }
    size(&mut symbols);
    Kallsyms {
        symbols,
        offset: found.offset,
        base: found.base,
    }
}

/// Lets every symbol reach to the next address that has another.
fn size(symbols: &mut [Symbol]) {
    let mut next = None;
    let mut here = None;
    for symbol in symbols.iter_mut().rev() {
        if here != Some(symbol.address) {
            next = here;
            here = Some(symbol.address);
        }
        symbol.size = next.map_or(0, |next| next - symbol.address);
    }
}

fn word(bytes: &[u8]) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[..4]);
    u32::from_le_bytes(word)
}

#[cfg(test)]
mod tests;
