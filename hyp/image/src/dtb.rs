//! What hyp must know of the machine, from its device tree.

use core::fmt;

use dtoolkit::fdt::Fdt;
use dtoolkit::{Node, ToCellInt};
use hyp::addr::{PAGE_SIZE, Pa, PageRange};

/// The most RAM regions hyp has room for.
pub(crate) const MAX_REGIONS: usize = 8;
/// The most CPUs hyp runs on: each has a stack in the image.
pub(crate) const MAX_CPUS: usize = 8;

/// RAM and CPUs.
#[derive(Debug)]
pub(crate) struct Machine {
    regions: [PageRange<Pa>; MAX_REGIONS],
    region_count: usize,
    mpidrs: [u64; MAX_CPUS],
    cpu_count: usize,
}

/// Why a device tree cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Error {
    /// It is not a device tree, or breaks its own rules.
    Malformed,
    /// A `memory` node is no list of pages.
    Memory { base: u64, size: u64 },
    /// It has no RAM or no CPU, or more of either than there is room for.
    Count {
        what: &'static str,
        found: usize,
        room: usize,
    },
    /// The CPU that reads it is not in it.
    BootCpu { mpidr: u64 },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => write!(f, "the device tree is malformed"),
            Self::Memory { base, size } => {
                write!(
                    f,
                    "the device tree's memory of {size:#x} bytes at {base:#x} is not whole pages"
                )
            }
            Self::Count { what, found, room } => {
                write!(
                    f,
                    "the device tree has {found} {what}; there must be 1 to {room}"
                )
            }
            Self::BootCpu { mpidr } => {
                write!(f, "the device tree has no CPU {mpidr:#x}, which reads it")
            }
        }
    }
}

impl Machine {
    /// Reads the device tree. RAM regions come out sorted. `boot` is the affinity of the CPU that reads: it becomes
    /// CPU 0 wherever the tree has it, and no other CPU can be started as that.
    pub(crate) fn read(tree: Fdt<'_>, boot: u64) -> Result<Self, Error> {
        let nothing = PageRange::new(Pa::new(0), 0).map_err(|_| Error::Malformed)?;
        let mut machine = Self {
            regions: [nothing; MAX_REGIONS],
            region_count: 0,
            mpidrs: [0; MAX_CPUS],
            cpu_count: 0,
        };
        for node in tree.root().children() {
            if node.name_without_address() == "memory" {
                for reg in node
                    .reg()
                    .map_err(|_| Error::Malformed)?
                    .into_iter()
                    .flatten()
                {
                    machine.add_region(
                        reg.address().map_err(|_| Error::Malformed)?,
                        reg.size().map_err(|_| Error::Malformed)?,
                    )?;
                }
            }
        }
        let cpus = tree.cpus().map_err(|_| Error::Malformed)?;
        for cpu in cpus.cpus() {
            for id in cpu.ids().map_err(|_| Error::Malformed)? {
                machine.add_cpu(id.to_int().map_err(|_| Error::Malformed)?);
            }
        }
        check_count("RAM regions", machine.region_count, MAX_REGIONS)?;
        check_count("CPUs", machine.cpu_count, MAX_CPUS)?;
        let first = machine.mpidrs().iter().position(|&mpidr| mpidr == boot);
        let first = first.ok_or(Error::BootCpu { mpidr: boot })?;
        machine.mpidrs[..=first].rotate_right(1);
        machine.regions[..machine.region_count].sort_unstable_by_key(|region| region.base());
        Ok(machine)
    }

    fn add_region(&mut self, base: u64, size: u64) -> Result<(), Error> {
        let region = PageRange::new(Pa::new(base), size & !(PAGE_SIZE - 1))
            .map_err(|_| Error::Memory { base, size })?;
        if let Some(slot) = self.regions.get_mut(self.region_count) {
            *slot = region;
        }
        self.region_count += 1;
        Ok(())
    }

    fn add_cpu(&mut self, mpidr: u64) {
        if let Some(slot) = self.mpidrs.get_mut(self.cpu_count) {
            *slot = mpidr;
        }
        self.cpu_count += 1;
    }

    /// All RAM, lowest first.
    pub(crate) fn regions(&self) -> &[PageRange<Pa>] {
        &self.regions[..self.region_count]
    }

    /// The affinity fields of each CPU's MPIDR_EL1, CPU 0 first.
    pub(crate) fn mpidrs(&self) -> &[u64] {
        &self.mpidrs[..self.cpu_count]
    }
}

fn check_count(what: &'static str, found: usize, room: usize) -> Result<(), Error> {
    if (1..=room).contains(&found) {
        Ok(())
    } else {
        Err(Error::Count { what, found, room })
    }
}

#[cfg(test)]
mod tests {
    use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};

    use super::*;

    /// A tree of `memory` nodes, each a list of (base, size), and CPUs with these affinities.
    fn tree(memory: &[&[(u64, u64)]], cpus: &[u32]) -> Vec<u8> {
        let node = |name: String, cells: [u32; 2], reg: Vec<u8>| {
            DeviceTreeNode::builder(&name)
                .and_then(|node| {
                    Ok(node
                        .property(DeviceTreeProperty::new(
                            "#address-cells",
                            cells[0].to_be_bytes(),
                        )?)
                        .property(DeviceTreeProperty::new(
                            "#size-cells",
                            cells[1].to_be_bytes(),
                        )?)
                        .property(DeviceTreeProperty::new("reg", reg)?)
                        .build())
                })
                .expect("a node")
        };
        let mut tree = DeviceTree::new();
        for (name, cells) in [("#address-cells", 2_u32), ("#size-cells", 2)] {
            tree.root.add_property(
                DeviceTreeProperty::new(name, cells.to_be_bytes()).expect("a property"),
            );
        }
        for (index, regions) in memory.iter().enumerate() {
            let reg = regions
                .iter()
                .flat_map(|(base, size)| [base.to_be_bytes(), size.to_be_bytes()]);
            tree.root.add_child(node(
                format!("memory@{index}"),
                [2, 2],
                reg.flatten().collect(),
            ));
        }
        let mut all = node("cpus".into(), [1, 0], Vec::new());
        for cpu in cpus {
            all.add_child(node(
                format!("cpu@{cpu:x}"),
                [1, 0],
                cpu.to_be_bytes().into(),
            ));
        }
        tree.root.add_child(all);
        tree.to_dtb()
    }

    fn read(blob: &[u8]) -> Result<Machine, Error> {
        read_on(blob, 0)
    }

    fn read_on(blob: &[u8], boot: u64) -> Result<Machine, Error> {
        Machine::read(Fdt::new(blob).expect("a device tree"), boot)
    }

    fn shown(machine: &Machine) -> Vec<String> {
        machine.regions().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn one_bank_and_its_cpus() {
        let blob = tree(&[&[(0x4000_0000, 0x2000_0000)]], &[0, 1]);
        let machine = read(&blob).expect("a machine");
        assert_eq!(shown(&machine), ["0x40000000..0x60000000"]);
        assert_eq!(machine.mpidrs(), [0, 1]);
    }

    #[test]
    fn banks_of_several_nodes_come_out_sorted() {
        let blob = tree(
            &[
                &[(0x8000_0000, 0x1000)],
                &[(0x5000_0000, 0x1000), (0x4000_0000, 0x1000)],
            ],
            &[0x100],
        );
        let machine = read_on(&blob, 0x100).expect("a machine");
        assert_eq!(
            shown(&machine),
            [
                "0x40000000..0x40001000",
                "0x50000000..0x50001000",
                "0x80000000..0x80001000"
            ]
        );
        assert_eq!(machine.mpidrs(), [0x100]);
    }

    #[test]
    fn the_cpu_that_reads_is_cpu_0() {
        let blob = tree(&[&[(0x4000_0000, 0x1000)]], &[0, 1, 0x100, 0x101]);
        let mpidrs = |boot| read_on(&blob, boot).expect("a machine").mpidrs().to_vec();
        assert_eq!(mpidrs(0), [0, 1, 0x100, 0x101]);
        assert_eq!(mpidrs(0x100), [0x100, 0, 1, 0x101]);
        assert_eq!(mpidrs(0x101), [0x101, 0, 1, 0x100]);
        let error = read_on(&blob, 2).expect_err("no such CPU").to_string();
        assert_eq!(error, "the device tree has no CPU 0x2, which reads it");
    }

    #[test]
    fn a_last_page_that_is_not_whole_is_left_out() {
        let blob = tree(&[&[(0x4000_0000, 0x1fff)]], &[0]);
        assert_eq!(
            shown(&read(&blob).expect("a machine")),
            ["0x40000000..0x40001000"]
        );
    }

    #[test]
    fn what_cannot_be_used_is_refused_in_words() {
        let bank: &[(u64, u64)] = &[(0x4000_0000, 0x1000)];
        for (memory, cpus, sentence) in [
            (
                &[][..],
                &[0][..],
                "the device tree has 0 RAM regions; there must be 1 to 8",
            ),
            (
                &[bank; 9],
                &[0],
                "the device tree has 9 RAM regions; there must be 1 to 8",
            ),
            (
                &[bank],
                &[],
                "the device tree has 0 CPUs; there must be 1 to 8",
            ),
            (
                &[bank],
                &[0, 1, 2, 3, 4, 5, 6, 7, 8],
                "the device tree has 9 CPUs; there must be 1 to 8",
            ),
            (
                &[&[(0x4000_0800, 0x1000)]],
                &[0],
                "the device tree's memory of 0x1000 bytes at 0x40000800 is not whole pages",
            ),
            (
                &[&[(0xffff_ffff_ffff_f000, 0x1000)]],
                &[0],
                "the device tree's memory of 0x1000 bytes at 0xfffffffffffff000 is not whole pages",
            ),
        ] {
            let error = read(&tree(memory, cpus)).expect_err(sentence);
            assert_eq!(error.to_string(), sentence);
        }
    }

    #[test]
    fn a_tree_without_cpus_at_all_is_malformed() {
        let blob = DeviceTree::new().to_dtb();
        assert_eq!(read(&blob).expect_err("no cpus node"), Error::Malformed);
    }
}
