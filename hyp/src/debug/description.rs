//! The self-description: what an inspector must know to read hyp without its ELF file, as JSON.
//!
//! Addresses are "0x…" strings, sizes and counts integers. The format only grows; its name says so.

use super::{Facts, Inferior, Region};
use core::fmt::{self, Display, Write};

/// Writes the description. A writer that returns an error ends it early.
///
/// # Errors
/// The writer's own.
pub fn write_description(inferior: &impl Inferior, out: &mut impl Write) -> fmt::Result {
    let facts = inferior.facts();
    out.write_str("{\"format\":\"hyp.description/1\",\"release\":")?;
    write_string(out, env!("CARGO_PKG_VERSION"))?;
    out.write_str(concat!(
        ",\"layout\":{\"profile\":\"A\",\"page_state_in\":\"descriptor\",",
        "\"owner_encoding\":\"9:2\"},\"mode\":\"nvhe\""
    ))?;
    write!(
        out,
        ",\"cpus\":{},\"granule\":4096,\"physvirt_offset\":\"{:#x}\",",
        facts.cpus, facts.physvirt_offset
    )?;
    write!(
        out,
        "\"regimes\":[{{\"name\":\"host-s2\",\"stage\":2,\"root\":\"{:#x}\",\"vtcr\":\"{:#x}\"}},",
        facts.host_s2.root, facts.host_s2.vtcr
    )?;
    write!(
        out,
        "{{\"name\":\"hyp-s1\",\"stage\":1,\"root\":\"{:#x}\",\"tcr\":\"{:#x}\",\"mair\":\"{:#x}\"}}],",
        facts.hyp_s1.root, facts.hyp_s1.tcr, facts.hyp_s1.mair
    )?;
    write_lists(&facts, out)?;
    out.write_str("}\n")
}

fn write_lists(facts: &Facts<'_>, out: &mut impl Write) -> fmt::Result {
    list(out, "ram", facts.ram, |out, region| {
        write_region(out, *region)
    })?;
    out.write_char(',')?;
    list(out, "sections", facts.sections, |out, section| {
        field(out, "name", section.name)?;
        write_region(out, section.region)
    })?;
    out.write_char(',')?;
    list(out, "locks", facts.locks, |out, lock| {
        field(out, "name", lock.name)?;
        field(out, "symbol", lock.symbol)?;
        write!(out, "\"pa\":\"{:#x}\"", lock.pa)
    })?;
    out.write_char(',')?;
    list(out, "pools", facts.pools, |out, pool| {
        field(out, "name", pool.name)?;
        write!(
            out,
            "\"base\":\"{:#x}\",\"pages\":{},\"records\":\"{:#x}\",\"record_size\":{}",
            pool.base, pool.pages, pool.records, pool.record_size
        )
    })?;
    out.write_str(",\"per_cpu\":[")?;
    for (cpu, stack) in facts.stacks.iter().enumerate() {
        let comma = if cpu == 0 { "" } else { "," };
        write!(out, "{comma}{{\"cpu\":{cpu},\"stack\":\"{stack:#x}\"}}")?;
    }
    out.write_str("],")?;
    list(out, "symbols", facts.symbols, |out, symbol| {
        field(out, "name", symbol.name)?;
        write!(
            out,
            "\"address\":\"{:#x}\",\"size\":{}",
            symbol.address, symbol.size
        )
    })
}

/// `"name":[{…},{…}]`
fn list<T, W: Write>(
    out: &mut W,
    name: &str,
    items: &[T],
    mut write_fields: impl FnMut(&mut W, &T) -> fmt::Result,
) -> fmt::Result {
    write!(out, "\"{name}\":[")?;
    for (i, item) in items.iter().enumerate() {
        out.write_str(if i == 0 { "{" } else { ",{" })?;
        write_fields(out, item)?;
        out.write_char('}')?;
    }
    out.write_char(']')
}

/// `"key":"value",`
fn field(out: &mut impl Write, key: impl Display, value: &str) -> fmt::Result {
    write!(out, "\"{key}\":")?;
    write_string(out, value)?;
    out.write_char(',')
}

fn write_region(out: &mut impl Write, region: Region) -> fmt::Result {
    write!(
        out,
        "\"base\":\"{:#x}\",\"size\":{}",
        region.base, region.size
    )
}

/// A JSON string: quotes, backslashes and control characters are escaped (RFC 8259, section 7).
fn write_string(out: &mut impl Write, text: &str) -> fmt::Result {
    out.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(out, "\\{c}")?,
            '\0'..='\x1f' => write!(out, "\\u{:04x}", u32::from(c))?,
            _ => out.write_char(c)?,
        }
    }
    out.write_char('"')
}

#[cfg(test)]
mod tests {
    use super::super::fake::Fake;
    use super::*;
    use std::prelude::rust_2024::*;

    #[test]
    fn the_description_is_as_its_format_says() {
        let mut text = String::new();
        write_description(&Fake::new(), &mut text).unwrap();
        let expected = concat!(
            r#"{"format":"hyp.description/1","release":""#,
            env!("CARGO_PKG_VERSION"),
            r#"","layout":{"profile":"A","page_state_in":"descriptor","owner_encoding":"9:2"},"#,
            r#""mode":"nvhe","cpus":2,"granule":4096,"physvirt_offset":"0xffffffc000000000","#,
            r#""regimes":[{"name":"host-s2","stage":2,"root":"0x40100000","vtcr":"0x80023558"},"#,
            r#"{"name":"hyp-s1","stage":1,"root":"0x40102000","tcr":"0x80823519","mair":"0x4ff"}],"#,
            r#""ram":[{"base":"0x40000000","size":2097152}],"#,
            r#""sections":[{"name":"text","base":"0x40002000","size":4096}],"#,
            r#""locks":[{"name":"host","symbol":"HYP.host.lock","pa":"0x40180000"}],"#,
            r#""pools":[{"name":"host-pool","base":"0x40100000","pages":8,"records":"0x40181000","record_size":2}],"#,
            r#""per_cpu":[{"cpu":0,"stack":"0x4040190000"},{"cpu":1,"stack":"0x4040194000"}],"#,
            r#""symbols":[{"name":"share_hyp","address":"0x4040002100","size":64}]}"#,
            "\n",
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn strings_are_escaped() {
        let mut text = String::new();
        write_string(&mut text, "a\"b\\c\nd").unwrap();
        assert_eq!(text, r#""a\"b\\c\u000ad""#);
    }
}
