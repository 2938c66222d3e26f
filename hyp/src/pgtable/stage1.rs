//! EL2's own stage 1: pages only, never unmapped.

use super::{Mm, PageTable};
use crate::addr::{Pa, PageRange, Va};
use crate::desc::{Desc, LAST_LEVEL, Prot};
use crate::errno::Errno;

impl PageTable<Va> {
    /// Maps the pages of `range` to those from `oa` on. `-ENOMEM` if the pool runs dry, `-EINVAL` for a
    /// protection that cannot be, or where something else is mapped already; pages before the failing one stay.
    ///
    /// A mapping that exists may be made again, and again with other software bits: hardware ignores those, so
    /// the new word is simply stored, with neither break-before-make nor TLB invalidation.
    pub fn map(&self, mm: Mm<'_>, range: PageRange<Va>, oa: Pa, prot: Prot) -> Result<(), Errno> {
        self.check(range)?;
        for va in range.pages() {
            let page = oa.wrapping_add(va.get() - range.base().get());
            let new = Desc::hyp_leaf(page, LAST_LEVEL, prot)?;
            self.set_page(mm, va, new)?;
        }
        mm.cpu.publish();
        Ok(())
    }

    fn set_page(&self, mm: Mm<'_>, va: Va, new: Desc) -> Result<(), Errno> {
        let leaf = loop {
            let leaf = self.get_leaf(mm.cpu, va)?;
            if leaf.level == LAST_LEVEL {
                break leaf;
            }
            if leaf.desc.is_valid() {
                return Err(Errno::Inval);
            }
            let table = mm.pool.alloc(mm.cpu, 1)?;
            mm.cpu.write(leaf.slot, Desc::table(table).raw());
        };
        if leaf.desc == new {
            return Ok(());
        }
        if leaf.desc.is_valid() && !leaf.desc.differs_only_in_sw(new) {
            return Err(Errno::Inval);
        }
        mm.cpu.write(leaf.slot, new.raw());
        Ok(())
    }
}
