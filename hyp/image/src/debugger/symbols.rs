//! The names of hyp's and the built-in host's functions and variables, which the image carries.

use core::mem::MaybeUninit;

use hyp::debug::Symbol;
use hyp::debug::symbols::{MAX, decode};

use super::Shared;

/// Bytes of the table, four times what it needs.
const SIZE: usize = 256 << 10;

/// Room for the table, which is written after linking.
#[unsafe(link_section = ".symbols")]
#[used]
static SYMBOLS: [u8; SIZE] = [0; SIZE];

unsafe extern "C" {
    /// The same bytes by the linker script's name for them: of [`SYMBOLS`] the compiler knows that they are zero.
    #[link_name = "__symbols"]
    static TABLE: [u8; SIZE];
}

/// Room for the symbols as the library wants them.
#[unsafe(link_section = ".bss.debugger")]
static DECODED: Shared<[MaybeUninit<Symbol<'static>>; MAX]> =
    Shared::new([MaybeUninit::uninit(); MAX]);

/// All symbols, in order of address. The debugger, once.
pub(super) fn all() -> &'static [Symbol<'static>] {
    // SAFETY: the linker script puts the name where `SYMBOLS` is, which is never written; and nobody else uses the
    // other.
    let (table, room) = unsafe { (&TABLE, &mut *DECODED.get()) };
    for slot in room.iter_mut() {
        slot.write(Symbol::default());
    }
    // SAFETY: each was written just now.
    decode(table, unsafe { room.assume_init_mut() })
}
