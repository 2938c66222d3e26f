//! The names of hyp's and the built-in host's functions and variables, which the image carries.

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

/// The table, for [`hyp::debug::symbols::decode`].
pub(crate) fn table() -> &'static [u8] {
    // SAFETY: the linker script puts the name where `SYMBOLS` is, which is never written.
    unsafe { &TABLE }
}
