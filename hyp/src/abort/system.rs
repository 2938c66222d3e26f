//! The MSR or MRS behind a trap, for a platform that carries it out in the host's place.

use super::{Trap, general};

/// ESR_EL2.EC: MSR, MRS or system instruction in AArch64.
const EC_SYSTEM: u64 = 0x18;
/// ISS.Rt, bits 9:5: the general-purpose register.
const RT_SHIFT: u32 = 5;
/// ISS.Direction, bit 0: a read of the system register.
const DIRECTION_READ: u64 = 1;
/// ISS.{Op0, Op2, Op1, CRn, CRm}: bits 21:10 and 4:1, what is left of the ISS without Rt and Direction.
const ENCODING: u64 = 0x3f_fc1e;

/// A system register by the fields of its encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemRegister(u32);

impl SystemRegister {
    /// The register `S<op0>_<op1>_C<crn>_C<crm>_<op2>`.
    pub const fn new(op0: u32, op1: u32, crn: u32, crm: u32, op2: u32) -> Self {
        Self(op0 << 20 | op2 << 17 | op1 << 14 | crn << 10 | crm << 1)
    }

    /// Op0: 2 for debug registers, 3 for most others.
    pub const fn op0(self) -> u32 {
        self.0 >> 20 & 3
    }

    /// Op1.
    pub const fn op1(self) -> u32 {
        self.0 >> 14 & 7
    }
}

/// An access to a system register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemAccess {
    /// The system register.
    pub register: SystemRegister,
    /// MSR: the system register is written.
    pub write: bool,
    /// The general-purpose register, 0 to 31, of which 31 is the zero register.
    pub general: u8,
}

impl SystemAccess {
    /// What MSR writes, of the host's x0 to x30.
    pub fn value(&self, x: &[u64; 31]) -> u64 {
        general(x, self.general)
    }

    /// Does what MRS does with the value it reads, to the host's x0 to x30.
    pub fn load(&self, x: &mut [u64; 31], value: u64) {
        if let Some(register) = x.get_mut(usize::from(self.general)) {
            *register = value;
        }
    }
}

impl Trap {
    /// The access to a system register that trapped; `None` if something else did.
    pub fn system_register(&self) -> Option<SystemAccess> {
        (self.exception_class() == EC_SYSTEM).then_some(SystemAccess {
            register: SystemRegister((self.esr & ENCODING) as u32),
            write: self.esr & DIRECTION_READ == 0,
            general: (self.esr >> RT_SHIFT & 0x1f) as u8,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::prelude::rust_2024::*;

    use super::*;

    /// ESR_EL2 written out field by field: Op0, Op2, Op1, CRn, Rt, CRm, Direction.
    fn trap([op0, op1, crn, crm, op2]: [u64; 5], rt: u64, direction: u64) -> Trap {
        let iss = op0 << 20 | op2 << 17 | op1 << 14 | crn << 10 | rt << 5 | crm << 1 | direction;
        Trap {
            esr: 0x18 << 26 | 1 << 25 | iss,
            ..Trap::default()
        }
    }

    #[test]
    fn registers_are_told_by_every_field() {
        // ICC_SGI1R_EL1, and registers that differ in one field.
        let encodings = [
            [3, 0, 12, 11, 5],
            [2, 0, 12, 11, 5],
            [3, 7, 12, 11, 5],
            [3, 0, 4, 11, 5],
            [3, 0, 12, 3, 5],
            [3, 0, 12, 11, 7],
        ];
        for encoding in encodings {
            for other in encodings {
                let [op0, op1, crn, crm, op2] = other.map(|field| field as u32);
                let register = SystemRegister::new(op0, op1, crn, crm, op2);
                let access = trap(encoding, 31, 1).system_register().unwrap();
                assert_eq!(access.register == register, encoding == other, "{other:?}");
                assert_eq!((register.op0(), register.op1()), (op0, op1));
            }
        }
    }

    #[test]
    fn msr_takes_from_a_register_and_mrs_gives_to_it() {
        let mut x = [7; 31];
        x[30] = 0x0123_4567_89ab_cdef;
        let pmr = [3, 0, 4, 6, 0];
        let write = trap(pmr, 30, 0).system_register().unwrap();
        assert_eq!(
            (write.write, write.general, write.value(&x)),
            (true, 30, x[30])
        );
        let read = trap(pmr, 2, 1).system_register().unwrap();
        assert_eq!((read.write, read.general), (false, 2));
        let mut after = x;
        after[2] = 0xf8;
        read.load(&mut x, 0xf8);
        assert_eq!(x, after);

        let zero = trap(pmr, 31, 0).system_register().unwrap();
        assert_eq!(zero.value(&x), 0);
        zero.load(&mut x, 1);
        assert_eq!(x, after);
    }

    #[test]
    fn other_exceptions_are_no_access() {
        let esr = trap([3, 0, 4, 6, 0], 0, 0).esr;
        for class in (0..0x40).filter(|&class| class != 0x18) {
            let trap = Trap {
                esr: esr & 0x3ff_ffff | class << 26,
                ..Trap::default()
            };
            assert_eq!(trap.system_register(), None, "EC {class:#x}");
        }
    }
}
