//! From the values of VTTBR, VTCR, TTBR0, TCR and HCR to a [`Regime`].

use super::{Granule, Regime, Stage};
use crate::target::Registers;

/// A register value that describes no regime.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{register}.{field} is {value:#x} ({register} = {whole:#x}): {reason}")]
pub struct RegimeError {
    /// Architectural name of the register.
    pub register: &'static str,
    /// Name of the field in it.
    pub field: &'static str,
    /// Value of that field.
    pub value: u64,
    /// Value of the register.
    pub whole: u64,
    /// What the architecture says of it.
    pub reason: String,
}

/// The ID registers that settle what other registers leave open; `None` where they are not known.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct IdRegisters {
    /// `ID_AA64MMFR0_EL1`: PARange.
    pub mmfr0: Option<u64>,
    /// `ID_AA64MMFR1_EL1`: XNX.
    pub mmfr1: Option<u64>,
    /// `ID_AA64MMFR2_EL1`: ST (small translation tables).
    pub mmfr2: Option<u64>,
}

impl IdRegisters {
    /// Takes them from a CPU's registers.
    pub fn of(registers: &Registers) -> Self {
        Self {
            mmfr0: registers.get("ID_AA64MMFR0_EL1"),
            mmfr1: registers.get("ID_AA64MMFR1_EL1"),
            mmfr2: registers.get("ID_AA64MMFR2_EL1"),
        }
    }

    /// PARange in bits; unknown and reserved values limit nothing.
    fn pa_bits(self) -> u32 {
        self.mmfr0
            .and_then(|mmfr0| physical_bits(mmfr0 & 0xf))
            .unwrap_or(52)
    }

    /// FEAT_XNX. Where it is not known, assumed: software writes the forms that need it (XN = 0b01
    /// and 0b11) only where it exists, and the other two mean the same either way.
    fn xnx(self) -> bool {
        self.mmfr1.is_none_or(|mmfr1| mmfr1 >> 28 & 0xf != 0)
    }

    /// FEAT_TTST; assumed where it is not known.
    fn small_tables(self) -> bool {
        self.mmfr2.is_none_or(|mmfr2| mmfr2 >> 28 & 0xf != 0)
    }
}

/// The registers of EL2's own stage 1.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct El2Stage1 {
    /// `TCR_EL2`
    pub tcr: u64,
    /// `MAIR_EL2`
    pub mair: u64,
    /// `HCR_EL2`; only E2H matters.
    pub hcr: u64,
    /// `SCTLR_EL2`; only EE and WXN matter, 0 where it is not known.
    pub sctlr: u64,
}

/// The registers of the upper half of EL1's stage 1.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct El1Stage1 {
    /// `TTBR1_EL1`
    pub ttbr1: u64,
    /// `TCR_EL1`
    pub tcr: u64,
    /// `SCTLR_EL1`; only EE and WXN matter, 0 where it is not known.
    pub sctlr: u64,
}

/// The VMID of a `VTTBR_EL2` value. With 8-bit VMIDs (`VTCR_EL2.VS`=0) the upper half is RES0.
pub fn vmid(vttbr: u64) -> u16 {
    (vttbr >> 48) as u16
}

impl Regime {
    /// The stage 2 of EL1&0 by its registers.
    ///
    /// # Errors
    /// The field whose value the architecture reserves.
    pub fn stage2(vttbr: u64, vtcr: u64, hcr: u64, id: IdRegisters) -> Result<Self, RegimeError> {
        let mut regime = Self::stage2_at(0, vtcr, hcr, id)?;
        regime.place_baddr("VTTBR_EL2", vttbr);
        Ok(regime)
    }

    /// The stage 2 whose first root table is at the physical address `root`; the other values are
    /// those of the registers.
    ///
    /// # Errors
    /// The field whose value the architecture reserves.
    pub fn stage2_at(root: u64, vtcr: u64, hcr: u64, id: IdRegisters) -> Result<Self, RegimeError> {
        let control = Control::new("VTCR_EL2", vtcr);
        for (field, bit) in [("S2PIE", 36), ("D128", 38)] {
            if vtcr >> bit & 1 != 0 {
                return Err(control.error(field, 1, "this descriptor format is not decoded"));
            }
        }
        let granule = control.granule()?;
        let lpa2 = granule != Granule::Kib64 && vtcr >> 32 & 1 != 0;
        let oa_bits = control.output_bits("PS", vtcr >> 16 & 7, granule, lpa2, id)?;
        let start_level = control.start_level(granule, lpa2, id)?;
        // 52 bits of IPA need DS=1, or the 64 KiB granule with FEAT_LPA.
        let large = lpa2 || granule == Granule::Kib64 && oa_bits == 52;
        let ia_bits = control.input_bits(granule, large, id)?;

        // DDI 0487, pseudocode AArch64.S2InconsistentSL: the start level must resolve at least one
        // bit, and at most 16 tables may stand side by side.
        let least = granule.level_shift(start_level) + 1;
        let most = least + granule.index_bits() - 1 + 4;
        if !(least..=most).contains(&ia_bits) {
            return Err(control.error(
                "T0SZ",
                vtcr & 0x3f,
                &format!(
                    "{ia_bits} bits of input address do not fit start level {start_level}, which \
                     takes {least} to {most}"
                ),
            ));
        }
        let mut regime = Self {
            stage: Stage::Two,
            root: 0,
            root_pages: 1 << ia_bits.saturating_sub(least + granule.index_bits() - 1),
            start_level,
            granule,
            ia_bits,
            oa_bits,
            lpa2,
            mair: 0,
            fwb: hcr >> 46 & 1 != 0,
            xnx: id.xnx(),
            sh0: (vtcr >> 12 & 3) as u8,
            hd: vtcr >> 22 & 1 != 0,
            wxn: false,
            hpd: false,
            problem: None,
        };
        regime.place("stage 2", root);
        Ok(regime)
    }

    /// EL2's own stage 1 by its registers: what `TTBR0_EL2` translates.
    ///
    /// # Errors
    /// The field whose value the architecture reserves.
    pub fn el2_stage1(
        ttbr0: u64,
        registers: El2Stage1,
        id: IdRegisters,
    ) -> Result<Self, RegimeError> {
        let mut regime = Self::el2_stage1_at(0, registers, id)?;
        regime.place_baddr("TTBR0_EL2", ttbr0);
        Ok(regime)
    }

    /// EL2's own stage 1 whose root table is at the physical address `root`.
    ///
    /// # Errors
    /// The field whose value the architecture reserves.
    pub fn el2_stage1_at(
        root: u64,
        registers: El2Stage1,
        id: IdRegisters,
    ) -> Result<Self, RegimeError> {
        let El2Stage1 {
            tcr,
            mair,
            hcr,
            sctlr,
        } = registers;
        let e2h = hcr >> 34 & 1 != 0;
        if sctlr >> 25 & 1 != 0 {
            return Err(Control::new("SCTLR_EL2", sctlr).error(
                "EE",
                1,
                "big-endian tables are not decoded",
            ));
        }
        let control = Control::new("TCR_EL2", tcr);
        if e2h && tcr >> 7 & 1 != 0 {
            return Err(control.error("EPD0", 1, "walks from TTBR0_EL2 are off"));
        }
        let granule = control.granule()?;
        let (size_field, size, ds_bit, hpd_bit) = if e2h {
            ("IPS", tcr >> 32 & 7, 59, 41)
        } else {
            ("PS", tcr >> 16 & 7, 32, 24)
        };
        let lpa2 = granule != Granule::Kib64 && tcr >> ds_bit & 1 != 0;
        let oa_bits = control.output_bits(size_field, size, granule, lpa2, id)?;
        // 52 bits of VA need DS=1, or the 64 KiB granule with FEAT_LVA.
        let large = lpa2 || granule == Granule::Kib64;
        let ia_bits = control.input_bits(granule, large, id)?;
        let levels = (ia_bits - granule.shift()).div_ceil(granule.index_bits());
        let mut regime = Self {
            stage: Stage::One { e2h },
            root: 0,
            root_pages: 1,
            start_level: 4 - levels as i8,
            granule,
            ia_bits,
            oa_bits,
            lpa2,
            mair,
            fwb: false,
            xnx: false,
            sh0: (tcr >> 12 & 3) as u8,
            // HD is bit 22 with E2H=0; with E2H=1 that is A1, and HD is bit 40.
            hd: tcr >> if e2h { 40 } else { 22 } & 1 != 0,
            wxn: sctlr >> 19 & 1 != 0,
            hpd: tcr >> hpd_bit & 1 != 0,
            problem: None,
        };
        regime.place("stage 1", root);
        Ok(regime)
    }

    /// The upper half of EL1's own stage 1 as a CPU's registers have it; `None` while its MMU is off, or where they do not
    /// tell.
    pub fn el1_upper_of(registers: &Registers) -> Option<Self> {
        let get = |name| registers.get(name);
        if get("SCTLR_EL1").is_some_and(|sctlr| sctlr & 1 == 0) {
            return None;
        }
        let el1 = El1Stage1 {
            ttbr1: get("TTBR1_EL1")?,
            tcr: get("TCR_EL1")?,
            sctlr: get("SCTLR_EL1").unwrap_or(0),
        };
        Self::el1_stage1_upper(el1, IdRegisters::of(registers)).ok()
    }

    /// The upper half of EL1's own stage 1: what `TTBR1_EL1` translates. Input addresses are without their upper bits,
    /// which are all ones. Where a virtual machine is active its output is an intermediate physical address.
    ///
    /// The format is that of EL2 with E2H=1. `MAIR_EL1` is not taken, so that memory attributes mean nothing.
    ///
    /// # Errors
    /// The field whose value the architecture reserves; the names are those of EL2's registers.
    pub fn el1_stage1_upper(registers: El1Stage1, id: IdRegisters) -> Result<Self, RegimeError> {
        let El1Stage1 { ttbr1, tcr, sctlr } = registers;
        // TG1 has other values than TG0; its 0 is reserved, as TG0's 3 is.
        let tg0 = match tcr >> 30 & 3 {
            1 => 2,
            2 => 0,
            3 => 1,
            _ => 3,
        };
        // T1SZ, EPD1, SH1 and HPD1 go where T0SZ, EPD0, SH0 and HPD0 are; IPS, HD and DS are both halves'.
        let lower = tcr >> 16 & (0x3f | 1 << 7 | 3 << 12) | tg0 << 14 | tcr >> 1 & 1 << 41;
        let common = tcr & (7 << 32 | 1 << 40 | 1 << 59);
        let el2 = El2Stage1 {
            tcr: lower | common,
            hcr: 1 << 34,
            sctlr,
            ..El2Stage1::default()
        };
        Self::el2_stage1(ttbr1, el2, id)
    }

    /// The lower half of EL1's own stage 1: what `TTBR0_EL1` translates, by `TCR_EL1` and `SCTLR_EL1`. Format and output are
    /// those of the upper half.
    ///
    /// # Errors
    /// The field whose value the architecture reserves; the names are those of EL2's registers.
    pub fn el1_stage1_lower(
        ttbr0: u64,
        tcr: u64,
        sctlr: u64,
        id: IdRegisters,
    ) -> Result<Self, RegimeError> {
        // With E2H=1, TCR_EL2 has every field where TCR_EL1 has it.
        let el2 = El2Stage1 {
            tcr,
            hcr: 1 << 34,
            sctlr,
            ..El2Stage1::default()
        };
        Self::el2_stage1(ttbr0, el2, id)
    }

    /// Sets the root from a base register: BADDR is bits 47:1, or 47:6 with PA\[51:48\] in bits 5:2
    /// where tables may lie above 48 bits. Bits 63:48 (VMID, ASID) and 0 (CnP) are not address.
    fn place_baddr(&mut self, register: &str, value: u64) {
        let root = if self.lpa2 || self.has_high_bits_15_12() {
            value & 0xffff_ffff_ffc0 | (value >> 2 & 0xf) << 48
        } else {
            value & 0xffff_ffff_fffe
        };
        self.place(&format!("{register}.BADDR"), root);
    }

    /// Sets the root, aligned as the walker takes it; says so when it was not, or is out of range.
    fn place(&mut self, what: &str, root: u64) {
        let bytes = (self.root_entries() * 8).max(if self.lpa2 || self.has_high_bits_15_12() {
            64
        } else {
            8
        });
        self.root = root & !(bytes - 1);
        self.problem = if self.root != root {
            Some(format!(
                "{what}: root {root:#x} is not aligned to the {bytes:#x} bytes of its tables; read at {:#x}",
                self.root
            ))
        } else if root >> self.oa_bits != 0 {
            Some(format!(
                "{what}: root {root:#x} is beyond the {} bits of output address",
                self.oa_bits
            ))
        } else {
            None
        };
    }
}

/// A control register while it is taken apart.
#[derive(Clone, Copy)]
struct Control {
    register: &'static str,
    value: u64,
}

impl Control {
    fn new(register: &'static str, value: u64) -> Self {
        Self { register, value }
    }

    fn error(self, field: &'static str, value: u64, reason: &str) -> RegimeError {
        RegimeError {
            register: self.register,
            field,
            value,
            whole: self.value,
            reason: reason.to_owned(),
        }
    }

    /// TG0, bits 15:14 in every format.
    fn granule(self) -> Result<Granule, RegimeError> {
        match self.value >> 14 & 3 {
            0 => Ok(Granule::Kib4),
            1 => Ok(Granule::Kib64),
            2 => Ok(Granule::Kib16),
            reserved => Err(self.error("TG0", reserved, "reserved; 0 is 4K, 1 is 64K, 2 is 16K")),
        }
    }

    /// The output address size that is in effect: PS or IPS, limited by what the CPU implements and
    /// by what the descriptor format can say.
    fn output_bits(
        self,
        field: &'static str,
        value: u64,
        granule: Granule,
        lpa2: bool,
        id: IdRegisters,
    ) -> Result<u32, RegimeError> {
        let stated = physical_bits(value)
            .ok_or_else(|| self.error(field, value, "reserved; 0…6 are 32 to 52 bits"))?;
        let format = if lpa2 || granule == Granule::Kib64 {
            52
        } else {
            48
        };
        Ok(stated.min(id.pa_bits()).min(format))
    }

    /// 64 − T0SZ. `large` allows more than 48 bits.
    fn input_bits(
        self,
        granule: Granule,
        large: bool,
        id: IdRegisters,
    ) -> Result<u32, RegimeError> {
        let t0sz = self.value & 0x3f;
        let least = if large { 12 } else { 16 };
        let most = match (id.small_tables(), granule) {
            (false, _) => 39,
            (true, Granule::Kib64) => 47,
            (true, _) => 48,
        };
        if !(least..=most).contains(&t0sz) {
            return Err(self.error("T0SZ", t0sz, &format!("out of range {least}…{most}")));
        }
        Ok(64 - t0sz as u32)
    }

    /// SL0 and SL2 of VTCR_EL2 (DDI 0487, pseudocode AArch64.S2StartLevel and S2InvalidSL).
    fn start_level(self, granule: Granule, lpa2: bool, id: IdRegisters) -> Result<i8, RegimeError> {
        let sl0 = self.value >> 6 & 3;
        // SL2 is RES0 but for the 4 KiB granule with DS=1.
        if granule == Granule::Kib4 && lpa2 && self.value >> 33 & 1 != 0 {
            return match sl0 {
                0 => Ok(-1),
                _ => Err(self.error("SL0", sl0, "reserved with SL2=1")),
            };
        }
        match (granule, sl0) {
            (Granule::Kib4, 3) if id.small_tables() => Ok(3),
            (Granule::Kib4, 3) => Err(self.error("SL0", sl0, "needs FEAT_TTST with 4K")),
            (Granule::Kib4, sl0) => Ok(2 - sl0 as i8),
            (Granule::Kib16, 3) if lpa2 => Ok(0),
            (Granule::Kib16, 3) => Err(self.error("SL0", sl0, "needs DS=1 with 16K")),
            (Granule::Kib64, 3) => Err(self.error("SL0", sl0, "reserved with 64K")),
            (_, sl0) => Ok(3 - sl0 as i8),
        }
    }
}

/// The encoding that PS, IPS and PARange share, in bits; 7 and above are 56 bits or reserved, and
/// need the 128-bit descriptor format.
fn physical_bits(encoding: u64) -> Option<u32> {
    [32, 36, 40, 42, 44, 48, 52]
        .get(usize::try_from(encoding).ok()?)
        .copied()
}
