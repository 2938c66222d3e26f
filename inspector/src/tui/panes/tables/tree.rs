//! Table pages in the order of a tree.

use crate::arch::walk::Table;
use std::collections::{BTreeMap, BTreeSet};

/// A line of the tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Node {
    /// Index of the table.
    pub(super) table: usize,
    /// Steps from a root.
    pub(super) depth: u16,
    /// It has children.
    pub(super) children: bool,
    /// Its children are shown.
    pub(super) open: bool,
}

/// The tables in order of input address below their parents, without the children of closed ones.
/// A table whose parent is not among them stands as a root.
pub(super) fn nodes(tables: &[Table], closed: &BTreeSet<usize>) -> Vec<Node> {
    let mut by_pa: BTreeMap<u64, usize> = BTreeMap::new();
    for (i, table) in tables.iter().enumerate() {
        by_pa.entry(table.pa).or_insert(i);
    }
    let mut children: BTreeMap<Option<usize>, Vec<usize>> = BTreeMap::new();
    for (i, table) in tables.iter().enumerate() {
        // A parent has a lower level, so that odd captures make no circles.
        let parent = table.parent.and_then(|pa| by_pa.get(&pa).copied());
        let parent = parent.filter(|parent| tables[*parent].level < table.level);
        children.entry(parent).or_default().push(i);
    }
    for list in children.values_mut() {
        list.sort_by_key(|i| tables[*i].ia);
    }
    let mut nodes = Vec::new();
    let roots = children.get(&None).map_or(&[][..], Vec::as_slice);
    let mut stack: Vec<(usize, u16)> = roots.iter().rev().map(|root| (*root, 0)).collect();
    while let Some((table, depth)) = stack.pop() {
        let below = children.get(&Some(table)).map_or(&[][..], Vec::as_slice);
        let open = !closed.contains(&table);
        nodes.push(Node {
            table,
            depth,
            children: !below.is_empty(),
            open,
        });
        if open {
            stack.extend(below.iter().rev().map(|child| (*child, depth + 1)));
        }
    }
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(pa: u64, level: i8, ia: u64, parent: Option<u64>) -> Table {
        Table {
            pa,
            level,
            ia,
            parent,
            words: Vec::new(),
        }
    }

    fn shape(nodes: &[Node]) -> Vec<(usize, u16, bool)> {
        nodes
            .iter()
            .map(|node| (node.table, node.depth, node.children))
            .collect()
    }

    #[test]
    fn children_follow_their_parents_in_order_of_address() {
        let tables = [
            table(0x1000, 1, 0, None),
            table(0x2000, 1, 1 << 39, None),
            table(0x5000, 2, 2 << 30, Some(0x1000)),
            table(0x4000, 2, 1 << 30, Some(0x1000)),
            table(0x3000, 3, 1 << 30, Some(0x4000)),
        ];
        let all = [
            (0, 0, true),
            (3, 1, true),
            (4, 2, false),
            (2, 1, false),
            (1, 0, false),
        ];
        assert_eq!(shape(&nodes(&tables, &BTreeSet::new())), all);
        let closed = nodes(&tables, &BTreeSet::from([3]));
        assert_eq!(shape(&closed), [all[0], all[1], all[3], all[4]]);
        assert!(!closed[1].open);
    }

    #[test]
    fn odd_parents_make_neither_circles_nor_losses() {
        let tables = [
            table(0x1000, 1, 0, Some(0x1000)),
            table(0x2000, 2, 0, Some(0x9000)),
            table(0x3000, 3, 0, Some(0x3000)),
        ];
        let expected = [(0, 0, false), (1, 0, false), (2, 0, false)];
        assert_eq!(shape(&nodes(&tables, &BTreeSet::new())), expected);
    }
}
