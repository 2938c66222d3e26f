//! The ELF file that the embedded machine would have been built from: its symbols, and the types of
//! its variable `HYP`.

use crate::elf::{Program, Record, Type};
use hyp::init::SectionKind;
use hyp::machine::layout::{
    HYP_SIZE, LINEAR_OFFSET, MEMBERS, MemberType, RAM, RECORD_SIZE, SECTION_SIZE, symbols,
};

/// The program; take parts away to see what is said of it.
pub(crate) fn program() -> Program {
    let mut hyp = Type::record("Hyp", HYP_SIZE, vec![]);
    for member in &MEMBERS {
        let path: Vec<&str> = member.path.split('.').skip(1).collect();
        insert(
            &mut hyp,
            &path,
            member.offset,
            type_of(member.path, member.kind),
        );
    }
    Program {
        segments: vec![(RAM.base + LINEAR_OFFSET, RAM.base, RAM.size)],
        symbols: symbols()
            .iter()
            .map(|symbol| (symbol.name.to_owned(), symbol.address, symbol.size))
            .collect(),
        variables: vec![("HYP".to_owned(), hyp)],
        ..Program::default()
    }
}

/// Adds a member at its offset from the start of `HYP`; the records in between all start there too.
fn insert(record: &mut Type, path: &[&str], offset: u64, of: Type) {
    let Type::Record(Record { members, .. }) = record else {
        panic!("only records have members");
    };
    match path {
        [] => panic!("a member has a name"),
        [name] => members.push(((*name).to_owned(), offset, of)),
        [name, rest @ ..] => {
            let at = members.iter().position(|(known, _, _)| known == name);
            let at = at.unwrap_or_else(|| {
                members.push(((*name).to_owned(), 0, Type::record(name, HYP_SIZE, vec![])));
                members.len() - 1
            });
            insert(&mut members[at].2, rest, offset, of);
        }
    }
}

fn type_of(path: &str, kind: MemberType) -> Type {
    let word = || Type::Number(8);
    let range = || {
        Type::record(
            "PageRange<Pa>",
            16,
            vec![("base", 0, word()), ("size", 8, word())],
        )
    };
    match kind {
        MemberType::U8 if path == "HYP.profile" => {
            Type::Enum(vec![("A".to_owned(), u64::from(b'A'))])
        }
        MemberType::U8 => Type::Number(1),
        MemberType::U32 => Type::Number(4),
        MemberType::U64 => word(),
        MemberType::Lock => Type::record(
            "TicketLock",
            16,
            vec![
                ("tickets", 0, Type::Number(4)),
                ("holder", 4, Type::Number(4)),
                ("taker", 8, word()),
            ],
        ),
        MemberType::Records => {
            let count = Type::Number(RECORD_SIZE);
            Type::slice(Type::record(
                "PageRecord",
                RECORD_SIZE,
                vec![("refcount", 0, count)],
            ))
        }
        MemberType::Regions => Type::slice(range()),
        MemberType::Sections => {
            let kinds = [
                SectionKind::Text,
                SectionKind::Rodata,
                SectionKind::Data,
                SectionKind::Bss,
                SectionKind::Stacks,
                SectionKind::Pools,
                SectionKind::HostRodata,
                SectionKind::HostBss,
                SectionKind::Device,
                SectionKind::OwnDevice,
            ];
            let kinds = kinds.map(|kind| (format!("{kind:?}"), kind as u64));
            let members = vec![
                ("kind", 0, Type::Enum(kinds.to_vec())),
                ("range", 8, range()),
            ];
            Type::slice(Type::record("Section", SECTION_SIZE, members))
        }
        MemberType::Text => Type::slice(Type::Number(1)),
    }
}
