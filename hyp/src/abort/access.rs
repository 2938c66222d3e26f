//! The load or store behind a data abort, for a platform that carries it out in the host's place.

use super::{EC_DABT_LOW, Trap, WNR, general};
use crate::addr::{Ipa, PAGE_SIZE};

/// ISS.ISV, bit 24 of a data abort: bits 23:14 describe the instruction.
const ISV: u64 = 1 << 24;
/// ISS.SAS, bits 23:22: log2 of the bytes accessed.
const SAS_SHIFT: u32 = 22;
/// ISS.SSE, bit 21: what is loaded is sign-extended.
const SSE: u64 = 1 << 21;
/// ISS.SRT, bits 20:16: the register loaded or stored.
const SRT_SHIFT: u32 = 16;
/// ISS.SF, bit 15: the register is named as one of 64 bits.
const SF: u64 = 1 << 15;

/// A load or store of one general-purpose register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The first byte.
    pub ipa: Ipa,
    /// How many bytes: 1, 2, 4 or 8.
    pub size: u64,
    /// A store.
    pub write: bool,
    /// The register, 0 to 31, of which 31 is the zero register.
    pub register: u8,
    /// A load sign-extends.
    pub sign_extend: bool,
    /// A load changes all 64 bits of the register; else its upper half becomes zero.
    pub wide: bool,
}

impl Access {
    /// What a store writes, of the host's x0 to x30. Bits above its size are 0.
    pub fn value(&self, x: &[u64; 31]) -> u64 {
        general(x, self.register) & self.mask()
    }

    /// Does what a load does with the value it finds, to the host's x0 to x30.
    pub fn load(&self, x: &mut [u64; 31], value: u64) {
        let Some(register) = x.get_mut(usize::from(self.register)) else {
            return;
        };
        let unused = 64 - 8 * self.size as u32;
        let extended = if self.sign_extend {
            ((value << unused).cast_signed() >> unused).cast_unsigned()
        } else {
            value & self.mask()
        };
        *register = if self.wide {
            extended
        } else {
            extended & 0xffff_ffff
        };
    }

    fn mask(&self) -> u64 {
        u64::MAX >> (64 - 8 * self.size)
    }
}

impl Trap {
    /// The access behind a data abort; `None` for anything else, and where the syndrome does not describe it: more
    /// than one register, floating point, an address that is written back, a table walk.
    pub fn access(&self) -> Option<Access> {
        if self.exception_class() != EC_DABT_LOW || self.esr & ISV == 0 {
            return None;
        }
        Some(Access {
            ipa: Ipa::new(self.fault_ipa() | self.far & (PAGE_SIZE - 1)),
            size: 1 << (self.esr >> SAS_SHIFT & 3),
            write: self.esr & WNR != 0,
            register: (self.esr >> SRT_SHIFT & 0x1f) as u8,
            sign_extend: self.esr & SSE != 0,
            wide: self.esr & SF != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::prelude::rust_2024::*;

    use super::*;

    /// A data abort on a device register, with this ISS but for its fault status: translation, level 3.
    fn trap(iss: u64) -> Trap {
        Trap {
            esr: 0x24 << 26 | 1 << 25 | iss | 0x07,
            far: 0xffff_8000_0123_4e08,
            hpfar: 0x0a_0030,
            ..Trap::default()
        }
    }

    /// ISS written out field by field: ISV, SAS, SSE, SRT, SF, WnR.
    fn iss(size: u64, sign_extend: u64, register: u64, wide: u64, write: u64) -> u64 {
        1 << 24 | size << 22 | sign_extend << 21 | register << 16 | wide << 15 | write << 6
    }

    #[test]
    fn a_syndrome_is_read_field_by_field() {
        let access = |iss| trap(iss).access().unwrap();
        let load = Access {
            ipa: Ipa::new(0x0a00_3e08),
            size: 4,
            write: false,
            register: 3,
            sign_extend: false,
            wide: false,
        };
        assert_eq!(access(iss(2, 0, 3, 0, 0)), load, "ldr w3");
        let cases = [
            (
                "strb w0",
                iss(0, 0, 0, 0, 1),
                Access {
                    size: 1,
                    write: true,
                    register: 0,
                    ..load
                },
            ),
            (
                "ldrsh x30",
                iss(1, 1, 30, 1, 0),
                Access {
                    size: 2,
                    register: 30,
                    sign_extend: true,
                    wide: true,
                    ..load
                },
            ),
            (
                "str xzr",
                iss(3, 0, 31, 1, 1),
                Access {
                    size: 8,
                    write: true,
                    register: 31,
                    wide: true,
                    ..load
                },
            ),
        ];
        for (instruction, iss, expected) in cases {
            assert_eq!(access(iss), expected, "{instruction}");
        }
    }

    #[test]
    fn what_the_syndrome_does_not_describe_is_no_access() {
        let valid = trap(iss(2, 0, 3, 0, 0));
        assert_eq!(trap(iss(2, 0, 3, 0, 0) & !ISV).access(), None);
        for class in (0..0x40).filter(|&class| class != 0x24) {
            let esr = valid.esr & 0x3ff_ffff | class << 26;
            assert_eq!(Trap { esr, ..valid }.access(), None, "EC {class:#x}");
        }
    }

    #[test]
    fn a_store_writes_its_size_of_the_register() {
        let mut x = [0; 31];
        x[5] = 0x8877_6655_4433_2211;
        let value = |size, register| {
            trap(iss(size, 0, register, 1, 1))
                .access()
                .unwrap()
                .value(&x)
        };
        let sizes = [0x11, 0x2211, 0x4433_2211, 0x8877_6655_4433_2211];
        for (size, expected) in (0..).zip(sizes) {
            assert_eq!(value(size, 5), expected, "size {size}");
            assert_eq!(value(size, 31), 0, "the zero register");
        }
    }

    #[test]
    fn a_load_extends_as_its_instruction_says() {
        let junk = 0xaaaa_aaaa_aaaa_aaaa;
        let cases = [
            ("ldrb w", iss(0, 0, 7, 0, 0), 0xffff_ff80, 0x80),
            ("ldrsb w", iss(0, 1, 7, 0, 0), 0x80, 0xffff_ff80),
            ("ldrsb w", iss(0, 1, 7, 0, 0), 0xff7f, 0x7f),
            ("ldrsb x", iss(0, 1, 7, 1, 0), 0x80, 0xffff_ffff_ffff_ff80),
            ("ldrh w", iss(1, 0, 7, 0, 0), 0x1_8001, 0x8001),
            ("ldrsh w", iss(1, 1, 7, 0, 0), 0x8001, 0xffff_8001),
            ("ldrsh x", iss(1, 1, 7, 1, 0), 0x8001, 0xffff_ffff_ffff_8001),
            ("ldr w", iss(2, 0, 7, 0, 0), u64::MAX, 0xffff_ffff),
            (
                "ldrsw x",
                iss(2, 1, 7, 1, 0),
                1 << 31,
                0xffff_ffff_8000_0000,
            ),
            (
                "ldr x",
                iss(3, 0, 7, 1, 0),
                0xfedc_ba98_7654_3210,
                0xfedc_ba98_7654_3210,
            ),
        ];
        for (instruction, iss, found, expected) in cases {
            let mut x = [junk; 31];
            trap(iss).access().unwrap().load(&mut x, found);
            let mut after = [junk; 31];
            after[7] = expected;
            assert_eq!(x, after, "{instruction} of {found:#x}");
        }
        let mut x = [junk; 31];
        trap(iss(3, 0, 31, 1, 0)).access().unwrap().load(&mut x, 0);
        assert_eq!(x, [junk; 31], "the zero register");
    }
}
