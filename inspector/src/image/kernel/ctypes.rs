//! C's types as a graph, and the questions asked of them: the rules are C's, so BTF and DWARF share them.

use super::Field;

/// No sound type nests typedefs, qualifiers, arrays or anonymous records deeper; a damaged one may have a cycle.
const DEPTH_LIMIT: usize = 32;
/// How many members one question may decode: a damaged graph may share its anonymous records without end.
const MEMBER_LIMIT: usize = 1 << 16;

/// One type, as far as layouts need it.
pub(super) enum Node<Id> {
    /// Another name or a qualifier of a type.
    Alias(Id),
    /// An integer, a boolean, a floating-point number or a pointer.
    Number { size: u64, signed: bool },
    /// Elements in a row, all dimensions together.
    Array { of: Id, count: u64 },
    /// A structure or union.
    Record { size: u64, members: Vec<Member<Id>> },
    /// An enumeration.
    Enum {
        size: u64,
        signed: bool,
        values: Vec<(String, i64)>,
    },
}

/// A member of a record.
pub(super) struct Member<Id> {
    /// `None` for an anonymous record, whose members count as the outer one's.
    pub(super) name: Option<String>,
    /// Bits from the beginning of the record.
    pub(super) bit: u64,
    /// The width of a bit-field.
    pub(super) width: Option<u32>,
    pub(super) of: Id,
}

/// Where types come from.
pub(super) trait Graph {
    /// Names a type.
    type Id: Copy;

    /// All types of that name, records before others.
    fn named(&mut self, name: &str) -> Vec<Self::Id>;

    /// `None` where the type is not described, or not understood.
    fn node(&mut self, id: Self::Id) -> Option<Node<Self::Id>>;
}

/// A member by its path from a record. Several records may have one name: the first that has the path answers.
pub(super) fn field<G: Graph>(graph: &mut G, path: &str) -> Option<Field> {
    let mut parts = path.split('.');
    let record = parts.next()?;
    let names: Vec<_> = parts.collect();
    let mut budget = MEMBER_LIMIT;
    graph
        .named(record)
        .into_iter()
        .find_map(|id| follow(graph, id, &names, &mut budget))
}

/// The size of a type in bytes; of several of one name, the first that has one.
pub(super) fn size_of<G: Graph>(graph: &mut G, name: &str) -> Option<u64> {
    graph
        .named(name)
        .into_iter()
        .find_map(|id| size(graph, id).filter(|size| *size > 0))
}

/// The names of an enumeration with their values.
pub(super) fn enumerators<G: Graph>(graph: &mut G, name: &str) -> Option<Vec<(String, i64)>> {
    let found = graph.named(name).into_iter();
    found
        .filter_map(|id| strip(graph, id))
        .find_map(|node| match node {
            Node::Enum { values, .. } if !values.is_empty() => Some(values),
            _ => None,
        })
}

fn follow<G: Graph>(
    graph: &mut G,
    record: G::Id,
    names: &[&str],
    budget: &mut usize,
) -> Option<Field> {
    let mut inside = record;
    let mut base = 0_u64;
    for (index, name) in names.iter().enumerate() {
        let found = member(graph, inside, name, DEPTH_LIMIT, budget)?;
        base = base.checked_add(found.base)?;
        if index + 1 == names.len() {
            return place(graph, base, &found.member);
        }
        if found.member.width.is_some() {
            return None;
        }
        base = base.checked_add(found.member.bit / 8)?;
        inside = found.member.of;
    }
    None
}

/// A member, and how many bytes into the record looked at the anonymous record that holds it begins.
struct Found<Id> {
    base: u64,
    member: Member<Id>,
}

fn member<G: Graph>(
    graph: &mut G,
    record: G::Id,
    name: &str,
    depth: usize,
    budget: &mut usize,
) -> Option<Found<G::Id>> {
    let depth = depth.checked_sub(1)?;
    let Node::Record { members, .. } = strip(graph, record)? else {
        return None;
    };
    // What was decoded counts, looked at or not.
    *budget = budget.checked_sub(members.len().max(1))?;
    for member in members {
        if member.name.as_deref() == Some(name) {
            return Some(Found { base: 0, member });
        }
        if member.name.is_none()
            && let Some(found) = self::member(graph, member.of, name, depth, budget)
        {
            let base = found.base.checked_add(member.bit / 8)?;
            return Some(Found { base, ..found });
        }
    }
    None
}

/// Where a member of a record that begins `base` bytes from the outermost one lies.
fn place<G: Graph>(graph: &mut G, base: u64, member: &Member<G::Id>) -> Option<Field> {
    let signed = matches!(
        strip(graph, member.of),
        Some(Node::Number { signed: true, .. } | Node::Enum { signed: true, .. })
    );
    // A type that is only declared (an empty array of them, say) has no size, but the member has a place.
    let size = size(graph, member.of).unwrap_or(0);
    let Some(width) = member.width else {
        return Some(Field {
            offset: base.checked_add(member.bit / 8)?,
            size,
            bits: None,
            signed,
        });
    };
    // The unit of the declared type that holds the bits; a packed bit-field may lie across two.
    let unit = size.checked_mul(8).filter(|unit| *unit > 0)?;
    let first = member.bit - member.bit % unit;
    let end = member.bit.checked_add(u64::from(width))?;
    let (first, bits) = if end <= first.checked_add(unit)? {
        (first, unit)
    } else {
        let first = member.bit - member.bit % 8;
        (first, (end - first).next_multiple_of(8))
    };
    Some(Field {
        offset: base.checked_add(first / 8)?,
        size: bits / 8,
        bits: Some((u32::try_from(member.bit - first).ok()?, width)),
        signed,
    })
}

/// Takes off typedefs and qualifiers.
fn strip<G: Graph>(graph: &mut G, id: G::Id) -> Option<Node<G::Id>> {
    let mut inside = id;
    for _ in 0..DEPTH_LIMIT {
        match graph.node(inside)? {
            Node::Alias(of) => inside = of,
            node => return Some(node),
        }
    }
    None
}

fn size<G: Graph>(graph: &mut G, id: G::Id) -> Option<u64> {
    let mut inside = id;
    let mut times = 1_u64;
    for _ in 0..DEPTH_LIMIT {
        match strip(graph, inside)? {
            Node::Array { of, count } => {
                times = times.checked_mul(count)?;
                inside = of;
            }
            Node::Number { size, .. } | Node::Record { size, .. } | Node::Enum { size, .. } => {
                return times.checked_mul(size);
            }
            Node::Alias(_) => return None,
        }
    }
    None
}
