//! Fault status codes.

/// An IFSC or DFSC value (6 bits) in words.
pub fn fault_status(code: u64) -> String {
    // Codes with the level in bits 1:0.
    let leveled = match code >> 2 {
        0b0000 => Some("address size fault"),
        0b0001 => Some("translation fault"),
        0b0010 => Some("access flag fault"),
        0b0011 => Some("permission fault"),
        0b0101 => Some("external abort on the walk"),
        0b0111 => Some("parity or ECC error on the walk"),
        0b1001 => Some("granule protection fault on the walk"),
        _ => None,
    };
    if let Some(fault) = leveled {
        return format!("{fault}, level {}", code & 3);
    }
    SINGLE.iter().find(|(value, _)| *value == code).map_or_else(
        || format!("reserved fault status {code:#x}"),
        |(_, text)| (*text).to_owned(),
    )
}

/// Codes without a level, and the levels below 0 that came later.
const SINGLE: &[(u64, &str)] = &[
    (0b010000, "external abort"),
    (0b010001, "tag check fault"),
    (0b010010, "external abort on the walk, level -2"),
    (0b010011, "external abort on the walk, level -1"),
    (0b011000, "parity or ECC error"),
    (0b011011, "parity or ECC error on the walk, level -1"),
    (0b100001, "alignment fault"),
    (
        0b100010,
        "debug exception, or granule protection fault on the walk, level -2",
    ),
    (0b100011, "granule protection fault on the walk, level -1"),
    (0b101000, "granule protection fault"),
    (0b101001, "address size fault, level -1"),
    (0b101010, "translation fault, level -2"),
    (0b101011, "translation fault, level -1"),
    (0b101100, "address size fault, level -2"),
    (0b110000, "TLB conflict abort"),
    (0b110001, "unsupported hardware update"),
    (0b110100, "implementation defined (lockdown)"),
    (
        0b110101,
        "implementation defined (unsupported exclusive or atomic)",
    ),
];
