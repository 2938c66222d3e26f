//! Where a kernel of which only functions are named lies in memory, by how its functions begin.

use super::kallsyms::Read;
use crate::addr::Span;
use crate::image::Symbol;
use crate::target::TargetError;

/// How much code is looked at: it has hundreds of functions.
const WINDOW: u64 = 0x8_0000;
/// Sections, and so the places where a kernel may lie, are multiples of this.
const STEP: u64 = 0x1_0000;
/// No kernel has more read-only data.
const MAX_GAP: u64 = 1 << 26;
/// Fewer functions prove nothing.
const MIN_FUNCTIONS: usize = 32;

/// Physical − linked (wrapping) for names in order of address, of which `inside` is the position of their own table.
///
/// Functions end where read-only data begins, and go on after it, so the table lies in the widest gap between names. That
/// leaves a place at every 64 KiB of the gap's size; the right one is where most functions begin as compilers let them.
///
/// # Errors
/// The link failed.
pub(super) fn by_functions(
    symbols: &[Symbol],
    inside: u64,
    read: &mut Read,
) -> Result<Option<u64>, TargetError> {
    let gap = |pair: &[Symbol]| (pair[1].address - pair[0].address, pair[0].address);
    let Some((gap, before)) = symbols.windows(2).map(gap).max() else {
        return Ok(None);
    };
    if gap > MAX_GAP {
        return Ok(None);
    }
    // Code whichever place it is: it ends below the table by no more than the gap.
    let Some(start) = inside.checked_sub(gap + WINDOW).map(|start| start & !0xfff) else {
        return Ok(None);
    };
    let Some(code) = read(Span::new(start, WINDOW))? else {
        return Ok(None);
    };
    let lowest = inside.wrapping_sub(before).wrapping_sub(gap) & !(STEP - 1);
    // One more, since both ends were rounded down.
    let places = (0..=gap / STEP + 1).map(|n| lowest.wrapping_add(n * STEP));
    let mut rated: Vec<(usize, u64)> = places
        .map(|offset| (agreement(symbols, offset, start, &code), offset))
        .collect();
    rated.sort_unstable();
    let second = rated.iter().rev().nth(1).map_or(0, |&(rating, _)| rating);
    // Others are right for one function in ten.
    Ok(rated
        .last()
        .filter(|&&(rating, _)| rating > 50 && rating > 2 * second)
        .map(|&(_, offset)| offset))
}

/// How many in a hundred functions within the code begin as one.
fn agreement(symbols: &[Symbol], offset: u64, start: u64, code: &[u8]) -> usize {
    let first = start.wrapping_sub(offset);
    let from = symbols.partition_point(|symbol| symbol.address < first);
    let mut addresses: Vec<u64> = symbols[from..]
        .iter()
        .map(|symbol| symbol.address - first)
        .take_while(|&at| at < code.len() as u64)
        .collect();
    addresses.dedup();
    let begins = addresses.iter().filter(|&&at| {
        let word = code.get(at as usize..at as usize + 4);
        word.is_some_and(|word| begins_function([word[0], word[1], word[2], word[3]]))
    });
    let good = begins.count();
    if addresses.len() < MIN_FUNCTIONS {
        return 0;
    }
    good * 100 / addresses.len()
}

/// What stands first in a function: a mark for indirect branches or a signature of the return address, room for a tracer,
/// what the tracer puts there, or the frame.
fn begins_function(word: [u8; 4]) -> bool {
    const NOP: u32 = 0xd503_201f;
    const BTI_C: u32 = 0xd503_245f;
    const PACIASP: u32 = 0xd503_233f;
    const MOV_X9_X30: u32 = 0xaa1e_03e9;
    let word = u32::from_le_bytes(word);
    // stp x29, x30, [sp, #-N]!
    matches!(word, NOP | BTI_C | PACIASP | MOV_X9_X30) || word & 0xffc0_7fff == 0xa980_7bfd
}

#[cfg(test)]
mod tests;
