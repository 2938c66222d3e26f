//! The host's stage 2: blocks and pages, annotations, reference counts, break-before-make.

use super::{GRANULE, Leaf, Mm, PageTable};
use crate::addr::{Ipa, PAGE_SIZE, Pa, PageRange};
use crate::desc::{Desc, LAST_LEVEL, Prot};
use crate::errno::Errno;
use crate::page_state::OwnerId;

impl PageTable<Ipa> {
    /// Maps the pages of `range` to those from `oa` on, in the largest blocks that fit, or in pages if `force_pte`.
    ///
    /// What was there goes: a page inside a block takes the rest of the block with it, so this is only for tables
    /// whose contents can be rebuilt. An equal entry is left alone. `-ENOMEM` if the pool runs dry, `-EINVAL` for
    /// a protection that cannot be; entries before the failing one stay.
    pub fn map(
        &self,
        mm: Mm<'_>,
        range: PageRange<Ipa>,
        oa: Pa,
        prot: Prot,
        force_pte: bool,
    ) -> Result<(), Errno> {
        self.check(range)?;
        let mut done = 0;
        while done < range.size() {
            let ipa = range.base().wrapping_add(done);
            let page = oa.wrapping_add(done);
            let level = if force_pte {
                LAST_LEVEL
            } else {
                self.leaf_level(ipa, page, range.size() - done)
            };
            self.set_leaf(mm, ipa, level, Desc::stage2_leaf(page, level, prot)?)?;
            done += GRANULE.level_size(level);
        }
        mm.cpu.publish();
        Ok(())
    }

    /// Says that `owner` owns every page of `range`, which the host can then no longer use. Always page by page.
    /// The host's annotation is the zero word: giving it pages unmaps them.
    pub fn set_owner(
        &self,
        mm: Mm<'_>,
        range: PageRange<Ipa>,
        owner: OwnerId,
    ) -> Result<(), Errno> {
        if owner == OwnerId::Host {
            return self.unmap(mm, range);
        }
        self.check(range)?;
        for ipa in range.pages() {
            self.set_leaf(mm, ipa, LAST_LEVEL, Desc::annotation(owner))?;
        }
        Ok(())
    }

    /// Clears every entry that decides about a page of `range`, annotations too, and frees tables that become
    /// empty. A block goes as a whole even where `range` holds only part of it.
    pub fn unmap(&self, mm: Mm<'_>, range: PageRange<Ipa>) -> Result<(), Errno> {
        self.clear_where(mm, range, |desc| desc != Desc::ZERO)
    }

    /// The same, but leaves annotations alone.
    pub fn unmap_valid(&self, mm: Mm<'_>, range: PageRange<Ipa>) -> Result<(), Errno> {
        self.clear_where(mm, range, Desc::is_valid)
    }

    fn clear_where(
        &self,
        mm: Mm<'_>,
        range: PageRange<Ipa>,
        goes: fn(Desc) -> bool,
    ) -> Result<(), Errno> {
        self.for_each_leaf(mm.cpu, range, |ipa, leaf| {
            if goes(leaf.desc) {
                self.clear(mm, ipa, leaf);
                mm.pool.put(leaf.slot);
                self.prune(mm, ipa);
            }
            Ok(())
        })
    }

    /// Adds to what the leaf of `ipa` allows. `-EINVAL` if `prot` has software bits, which say who owns a page and
    /// are no permission; `-EAGAIN` if nothing is mapped.
    pub fn relax_perms(&self, mm: Mm<'_>, ipa: Ipa, prot: Prot) -> Result<(), Errno> {
        if prot.sw_bits() != 0 {
            return Err(Errno::Inval);
        }
        let leaf = self.get_leaf(mm.cpu, ipa)?;
        if !leaf.desc.is_valid() {
            return Err(Errno::Again);
        }
        let relaxed = leaf.desc.stage2_relaxed(prot);
        if relaxed != leaf.desc {
            mm.cpu.write(leaf.slot, relaxed.raw());
            mm.cpu.invalidate_ipa(ipa, leaf.level);
        }
        Ok(())
    }

    /// The level of the largest leaf that maps `ipa` to `oa` and no more than `size` bytes.
    fn leaf_level(&self, ipa: Ipa, oa: Pa, size: u64) -> u8 {
        let fits = |level: u8| {
            let leaf = GRANULE.level_size(level);
            GRANULE.supports_leaf(level)
                && leaf <= size
                && (ipa.get() | oa.get()).is_multiple_of(leaf)
        };
        (self.geometry.start_level..LAST_LEVEL)
            .find(|&level| fits(level))
            .unwrap_or(LAST_LEVEL)
    }

    /// Makes `new`, a leaf or an annotation, the entry for `ipa` at `level`.
    fn set_leaf(&self, mm: Mm<'_>, ipa: Ipa, level: u8, new: Desc) -> Result<(), Errno> {
        let mut table = self.root;
        for at in self.geometry.start_level..level {
            let slot = self.slot(table, at, ipa.get());
            let desc = Desc::from_raw(mm.cpu.read(slot));
            table = if desc.is_table(at) {
                desc.output_address()
            } else {
                self.add_table(
                    mm,
                    ipa,
                    Leaf {
                        slot,
                        desc,
                        level: at,
                    },
                )
                .inspect_err(|_| self.prune(mm, ipa))?
            };
        }
        let slot = self.slot(table, level, ipa.get());
        let old = Desc::from_raw(mm.cpu.read(slot));
        if old == new {
            return Ok(());
        }
        if old.is_table(level) {
            mm.cpu.write(slot, 0);
            mm.cpu.invalidate_vmid();
            self.free_table(mm, old.output_address(), level + 1);
        } else {
            self.clear(
                mm,
                ipa,
                Leaf {
                    slot,
                    desc: old,
                    level,
                },
            );
        }
        if old == Desc::ZERO {
            mm.pool.get(slot);
        }
        mm.cpu.write(slot, new.raw());
        Ok(())
    }

    /// Puts an empty table in the place of `leaf`; the page is taken before anything is changed.
    fn add_table(&self, mm: Mm<'_>, ipa: Ipa, leaf: Leaf) -> Result<Pa, Errno> {
        let table = mm.pool.alloc(mm.cpu, 1)?;
        self.clear(mm, ipa, leaf);
        if leaf.desc == Desc::ZERO {
            mm.pool.get(leaf.slot);
        }
        mm.cpu.write(leaf.slot, Desc::table(table).raw());
        Ok(table)
    }

    /// The break of break-before-make: the entry becomes zero and, if hardware could have cached it, is forgotten
    /// everywhere. Its reference stays with the table page until the caller drops it or makes another entry.
    fn clear(&self, mm: Mm<'_>, ipa: Ipa, leaf: Leaf) {
        if leaf.desc == Desc::ZERO {
            return;
        }
        mm.cpu.write(leaf.slot, 0);
        if leaf.desc.is_valid() {
            mm.cpu.invalidate_ipa(ipa, leaf.level);
        }
    }

    /// Frees tables on the way to `ipa` that have no entries left, from the last one up.
    fn prune(&self, mm: Mm<'_>, ipa: Ipa) {
        for last in (self.geometry.start_level..LAST_LEVEL).rev() {
            let mut table = self.root;
            for at in self.geometry.start_level..=last {
                let slot = self.slot(table, at, ipa.get());
                let desc = Desc::from_raw(mm.cpu.read(slot));
                if !desc.is_table(at) {
                    break;
                }
                table = desc.output_address();
                if at == last && mm.pool.refcount(table) == 1 {
                    mm.cpu.write(slot, 0);
                    mm.cpu.invalidate_vmid();
                    mm.pool.put(slot);
                    mm.pool.free(mm.cpu, table);
                }
            }
        }
    }

    /// Frees a table of `level` that is no longer linked, and all tables under it.
    fn free_table(&self, mm: Mm<'_>, table: Pa, level: u8) {
        for offset in (0..PAGE_SIZE).step_by(8) {
            let slot = table.wrapping_add(offset);
            let desc = Desc::from_raw(mm.cpu.read(slot));
            if desc == Desc::ZERO {
                continue;
            }
            if desc.is_table(level) {
                self.free_table(mm, desc.output_address(), level + 1);
            }
            mm.pool.put(slot);
        }
        mm.pool.free(mm.cpu, table);
    }
}
