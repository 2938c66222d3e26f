//! An Arm64 EL2 hypervisor that tracks page ownership as Linux's pKVM does.
//!
//! The host runs at EL1 under a stage-2 identity map that is filled as it touches memory. hyp's own pages are taken
//! out of it; a page the host shares is marked in both sides' tables. The crate is the whole logic without one line
//! of unsafe code or assembly: the image and the simulated machine bring memory and instructions through [`Cpu`].
//!
//! ```text
//!            once, on CPU 0                                  for ever, on every CPU
//!
//!  Config: RAM, sections, pools                   host touches a page          host: HVC #0, x0 = 0xC6000010
//!         │ Hyp::new       roots from the pools          │ stage-2 abort              │
//!         ▼                                              └──────────┬─────────────────┘
//!   Hyp::init              sections → EL2 stage 1                   ▼ Hyp::handle_trap
//!         │ caller: MMU on                          abort ┌─────────┴────────┐ hypercall
//!         ▼                                               ▼                  ▼
//!   Hyp::finalise          EL2 stage 1 → owners    handle_host_mem_abort   handle_host_hcall
//!         │                in host stage 2                ▼                  ▼
//!         ▼                                        host_stage2_idmap       pkvm_host_share_hyp
//!   caller: stage 2 on,                            lock host               lock host, then hyp
//!   other CPUs, the host                           zero  → map a block     check both sides
//!                                                  valid → resume          mark both sides
//!                                                  owned → inject abort    x1 = 0 or −errno
//! ```
//!
//! Lock order: `host` → `hyp`; the pools' locks are innermost. Modules, in reading order: [`addr`], [`errno`],
//! [`cpu`], [`lock`], [`desc`], [`page_state`], [`pool`], [`pgtable`], [`init`], [`mem_protect`], [`stats`],
//! [`abort`], [`hypercall`]; then, each with the feature of its name, [`debug`], what a debugger may ask, and
//! `machine`, the simulated one.
//!
//! # The series, patch by patch
//!
//! hyp implements "KVM: arm64: Track shared pages at EL2 in protected mode", version 4 as merged in Linux 5.15, with
//! what was found wrong in it later put right (06, 17, 20). Sharing a shared page again succeeds and changes nothing.
//! Tests are in `tests/` by file, or beside the code by module.
//!
//! | patch | title | here | test |
//! |---|---|---|---|
//! | 01 | Add hyp_spin_is_locked | [`lock::TicketLock::is_locked`] | lock `is_locked_from_taking_to_release`, `halves_wrap_without_carry` |
//! | 02 | Introduce hyp_assert_lock_held | [`Config::lock_checks`](init::Config::lock_checks) | locks `assertions_fire_once_final_and_name_lock_and_place` |
//! | 03 | host_stage2_try helper | the retry in [`Hyp::host_stage2_idmap_locked`] | aborts `a_dry_pool_takes_back_everything_that_is_not_ram_and_tries_once_more`, `a_dry_pool_is_no_reason_not_to_set_an_owner`, `a_pool_that_stays_dry_is_an_error_after_one_retry`, `other_errors_are_not_retried` |
//! | 04 | Helper to get a PTE and its level | [`pgtable::PageTable::get_leaf`] | page_tables `get_leaf_finds_pages_blocks_and_holes_of_every_level` |
//! | 05 | Expose page-table helpers | [`desc::Granule`] | desc `levels_of_every_granule`, `output_addresses_of_every_granule` |
//! | 06 | Optimize host memory aborts | [`Hyp::host_stage2_idmap`] | aborts `a_touch_maps_the_largest_block_that_is_all_of_one_kind`, `a_hole_at_level_0_is_filled_by_a_block_of_level_1`, `cpus_that_race_map_a_page_once`; injection `a_page_of_hyp_is_refused_and_stays_as_it_is` |
//! | 07 | Rename …S2_IGNORED to HI_SW | [`desc::SW_BITS`] | desc `only_software_bits_may_differ` |
//! | 08 | Don't overwrite SW bits with owner id | [`desc::Desc::annotation`] | desc `annotations_leave_the_software_bits_alone` |
//! | 09 | Tolerate re-creating hyp mappings | [`PageTable<Va>::map`](pgtable::PageTable#method.map) | page_tables `hyp_mappings_may_be_made_again_to_change_software_bits` |
//! | 10 | Enable forcing page-level stage-2 mappings | `force_pte` of [`PageTable<Ipa>::map`](pgtable::PageTable#method.map-1) | transitions `only_default_protections_are_mapped_in_blocks`, `set_owner_annotates_page_by_page` |
//! | 11 | Allow populating software bits | [`desc::Prot::SW0`], [`pgtable::PageTable::relax_perms`] | desc `protections_survive_the_round_trip`; page_tables `permissions_can_be_relaxed_but_software_bits_are_none` |
//! | 12 | Helpers to tag shared pages | [`page_state::PageState`] | desc `a_state_replaces_a_state_and_nothing_else` |
//! | 13 | Expose host stage-2 helpers | [`Hyp::host_stage2_idmap_locked`], [`Hyp::host_stage2_set_owner_locked`] | transitions `ranges_touch_their_pages_only`; addr `ranges_are_whole_pages_whose_end_is_an_address` |
//! | 14 | Expose pkvm_hyp_id | [`page_state::OwnerId::Hyp`] | desc `annotations_leave_the_software_bits_alone` |
//! | 15 | Introduce addr_is_memory | [`Hyp::addr_is_memory`] | transitions `addr_is_memory_knows_where_ram_begins_and_ends`; start `regions_must_be_sorted_and_apart` |
//! | 16 | Retrieve protection attributes of PTEs | [`desc::Desc::stage2_prot`], [`desc::Desc::hyp_prot`] | desc `protections_survive_the_round_trip`, `an_invalid_word_has_software_bits_and_no_permissions` |
//! | 17 | Mark host bss and rodata as shared | [`Hyp::finalize_host_mappings`] | finalise `finalise_gives_every_page_of_hyp_its_owner`, `finalise_mirrors_states_and_refuses_what_cannot_be`, `finalise_looks_at_fixed_offset_ranges_of_ram_only` |
//! | 18 | Remove __pkvm_mark_hyp | [`hypercall`] | transitions `unknown_hypercalls_change_nothing` |
//! | 19 | Refactor stage-1 locking | [`Hyp::pkvm_create_mappings_locked`] | locks `assertions_fire_once_final_and_name_lock_and_place`; transitions `create_mappings_keeps_the_fixed_offset` |
//! | 20 | Restrict EL2 stage-1 changes | [`Hyp::pkvm_host_share_hyp`] | transitions `share_follows_the_acceptance_matrix`; model `tables_say_what_the_model_says` |
//! | 21 | Make __pkvm_create_mappings static | private `create_mapping` | the example below |
//!
//! Nothing outside chooses what EL2 maps where (patch 21): this does not compile.
//!
//! ```compile_fail,E0624
//! fn alias(hyp: &hyp::Hyp<'_>, cpu: &dyn hyp::Cpu) {
//!     use hyp::addr::{Pa, Va};
//!     let _ = hyp.create_mapping(cpu, Va::new(0x1000), Pa::new(0x4000_0000), hyp::desc::Prot::RW);
//! }
//! ```
#![no_std]
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "std"))]
#[macro_use]
extern crate std;

pub mod addr;
pub mod errno;

pub mod cpu;
pub mod lock;

pub mod desc;
pub mod page_state;
pub mod pool;

pub mod pgtable;

pub mod init;
pub mod mem_protect;
pub mod stats;

pub mod abort;
pub mod hypercall;

#[cfg(feature = "debug")]
pub mod debug;
#[cfg(feature = "machine")]
pub mod machine;

pub use cpu::{Cpu, TableMemory};
pub use init::{Config, Hyp};
