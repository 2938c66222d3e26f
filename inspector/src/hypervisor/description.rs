//! What a hypervisor says of itself, and its form as JSON (`hyp.description/1`).

use super::layout::Layout;
use crate::addr::{Span, hex};
use crate::arch::regime::IdRegisters;
use crate::model::{Cpu, Fact, Hypervisor, HypervisorKind, Section, Symbol, Symbols};
use serde::Deserialize;

/// The format that this reads.
const FORMAT: &str = "hyp.description/1";
/// What it is called where it is named as a source.
const SOURCE: &str = "self-description";

/// The facts that everything else is worked out from, by whichever road they came.
pub(super) struct Description {
    /// Where the facts came from.
    pub(super) source: String,
    pub(super) release: Option<String>,
    /// Of the file that was given, if it has one.
    pub(super) build_id: Option<String>,
    /// The layout's letter: series of patches, see [`Layout::a`].
    pub(super) profile: String,
    /// Bytes of a page.
    pub(super) granule: u64,
    /// PA = VA + this, wrapping, in the linear range of EL2.
    pub(super) physvirt_offset: u64,
    pub(super) host_s2: RegimeFacts,
    pub(super) hyp_s1: RegimeFacts,
    /// `HCR_EL2`, where it says.
    pub(super) hcr: Option<u64>,
    /// The ID registers, where it says.
    pub(super) id: IdRegisters,
    /// Where these registers came from.
    pub(super) register_source: String,
    /// In order of address.
    pub(super) ram: Vec<Span>,
    pub(super) sections: Vec<Section>,
    pub(super) locks: Vec<LockPlace>,
    pub(super) pools: Vec<PoolPlace>,
    pub(super) symbols: Symbols,
    /// Where the symbols came from.
    pub(super) symbol_source: String,
    /// What could not be found out.
    pub(super) problems: Vec<String>,
}

/// Where a regime's tables are, and the registers that the hypervisor means to use with them.
#[derive(Clone, Copy, Default)]
pub(super) struct RegimeFacts {
    /// 0 when there is none yet.
    pub(super) root: u64,
    /// `VTCR_EL2` or `TCR_EL2`, where it says.
    pub(super) control: Option<u64>,
    /// `MAIR_EL2`, where it says.
    pub(super) mair: Option<u64>,
}

#[derive(Deserialize)]
pub(super) struct LockPlace {
    pub(super) name: String,
    pub(super) symbol: String,
    #[serde(with = "hex")]
    pub(super) pa: u64,
}

#[derive(Deserialize)]
pub(super) struct PoolPlace {
    pub(super) name: String,
    #[serde(with = "hex")]
    pub(super) base: u64,
    pub(super) pages: u64,
    #[serde(with = "hex")]
    pub(super) records: u64,
    pub(super) record_size: u64,
}

impl Description {
    pub(super) fn hypervisor(&self, cpus: &[Cpu]) -> Hypervisor {
        let layout = (self.profile == "A").then(Layout::a);
        let layout = layout.as_ref();
        Hypervisor {
            kind: HypervisorKind::Hyp,
            release: self.release.clone(),
            mode: self.mode(cpus).map(|(mode, _)| mode),
            page_state_in: layout.and_then(|layout| Some(layout.states.as_ref()?.name())),
            owner_encoding: layout.and_then(|layout| layout.owners.name()),
        }
    }

    /// Everything said, each with its source.
    pub(super) fn facts(&self, cpus: &[Cpu]) -> Vec<Fact> {
        let mut facts = Vec::new();
        let mut fact = |what: String, value: String| {
            facts.push(Fact {
                what,
                value,
                source: self.source.clone(),
            });
        };
        let release = self.release.as_deref().unwrap_or("of unknown release");
        fact("hypervisor".to_owned(), format!("hyp {release}"));
        if let Some(id) = &self.build_id {
            fact("build id".to_owned(), id.clone());
        }
        fact("layout profile".to_owned(), self.profile.clone());
        fact(
            "physvirt offset".to_owned(),
            format!("{:#x}", self.physvirt_offset),
        );
        for ram in &self.ram {
            fact("RAM".to_owned(), ram.to_string());
        }
        for section in &self.sections {
            fact(format!("section {}", section.name), section.pa.to_string());
        }
        for pool in &self.pools {
            let pages = Span::new(pool.base, pool.pages.saturating_mul(self.granule));
            fact(pool.name.clone(), pages.to_string());
        }
        facts.push(Fact {
            what: "symbols".to_owned(),
            value: self.symbols.len().to_string(),
            source: self.symbol_source.clone(),
        });
        facts.push(Fact {
            what: "CPUs".to_owned(),
            value: cpus.len().to_string(),
            source: "the target's threads".to_owned(),
        });
        if let Some((mode, source)) = self.mode(cpus) {
            facts.push(Fact {
                what: "mode".to_owned(),
                value: mode.to_owned(),
                source: format!("HCR_EL2.E2H {source}"),
            });
        }
        facts
    }

    /// What HCR_EL2.E2H says of the mode, and where.
    fn mode(&self, cpus: &[Cpu]) -> Option<(&'static str, String)> {
        let read = |cpu: &Cpu| {
            let hcr = cpu.registers.get("HCR_EL2")?;
            Some((hcr, format!("of CPU {}", cpu.number)))
        };
        let kept = || Some((self.hcr?, format!("in {}", self.register_source)));
        let (hcr, source) = cpus.iter().find_map(read).or_else(kept)?;
        let mode = if hcr >> 34 & 1 != 0 { "hvhe" } else { "nvhe" };
        Some((mode, source))
    }
}

/// The JSON text. Unknown fields are ignored: the format grows.
#[derive(Deserialize)]
struct Text {
    format: String,
    release: String,
    layout: LayoutText,
    granule: u64,
    #[serde(with = "hex")]
    physvirt_offset: u64,
    regimes: Vec<RegimeText>,
    ram: Vec<Memory>,
    sections: Vec<NamedMemory>,
    locks: Vec<LockPlace>,
    pools: Vec<PoolPlace>,
    symbols: Vec<Symbol>,
}

#[derive(Deserialize)]
struct LayoutText {
    profile: String,
}

#[derive(Deserialize)]
struct RegimeText {
    name: String,
    #[serde(with = "hex")]
    root: u64,
    vtcr: Option<HexText>,
    tcr: Option<HexText>,
    mair: Option<HexText>,
}

#[derive(Deserialize)]
#[serde(transparent)]
struct HexText(#[serde(with = "hex")] u64);

#[derive(Deserialize)]
struct Memory {
    #[serde(with = "hex")]
    base: u64,
    size: u64,
}

#[derive(Deserialize)]
struct NamedMemory {
    name: String,
    #[serde(with = "hex")]
    base: u64,
    size: u64,
}

/// Reads a self-description.
pub(super) fn parse(text: &str) -> Result<Description, String> {
    let text: Text = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if text.format != FORMAT {
        return Err(format!("its format is `{}`, not `{FORMAT}`", text.format));
    }
    let regime = |name: &str| {
        let found = text.regimes.iter().find(|regime| regime.name == name);
        found.map_or_else(RegimeFacts::default, |regime| RegimeFacts {
            root: regime.root,
            control: regime
                .vtcr
                .as_ref()
                .or(regime.tcr.as_ref())
                .map(|word| word.0),
            mair: regime.mair.as_ref().map(|word| word.0),
        })
    };
    Ok(Description {
        source: SOURCE.to_owned(),
        release: Some(text.release),
        build_id: None,
        profile: text.layout.profile,
        granule: text.granule.max(1),
        physvirt_offset: text.physvirt_offset,
        host_s2: regime("host-s2"),
        hyp_s1: regime("hyp-s1"),
        hcr: None,
        id: IdRegisters::default(),
        register_source: format!("the {SOURCE}"),
        ram: in_order(
            text.ram
                .iter()
                .map(|ram| Span::new(ram.base, ram.size))
                .collect(),
        ),
        sections: text
            .sections
            .into_iter()
            .map(|section| Section {
                name: section.name,
                pa: Span::new(section.base, section.size),
            })
            .collect(),
        locks: text.locks,
        pools: text.pools,
        symbols: Symbols::new(text.symbols),
        symbol_source: SOURCE.to_owned(),
        problems: Vec::new(),
    })
}

/// Sorts regions of RAM and cuts what overlaps.
pub(super) fn in_order(mut regions: Vec<Span>) -> Vec<Span> {
    regions.sort();
    let mut ordered: Vec<Span> = Vec::new();
    for region in regions {
        let free = ordered
            .last()
            .and_then(|last| last.last())
            .map_or(Some(0), |last| last.checked_add(1));
        let (Some(free), Some(last)) = (free, region.last()) else {
            continue;
        };
        let start = region.start.max(free);
        if start <= last {
            ordered.push(Span::new(start, (last - start).saturating_add(1)));
        }
    }
    ordered
}
