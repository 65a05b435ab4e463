//! What may lie on the disk if power fails now?
//!
//! Everything durable does. Each change that is not durable yet is **pending**, and has a
//! [`Fate`] of its own: disks and file systems reorder what nobody persisted. A write may be lost,
//! done, or done in part, with the length of the file already changed and NULs in place of bytes;
//! a name, or a change of length, is there or not. Nothing is assumed of the order of names: that
//! a journaling file system keeps them in order is its own kindness.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::history::{Event, History, Name, Node};
use super::tree::Tree;

/// What becomes of one pending change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing of it is there.
    Lost,
    /// All of it is there.
    Done,
    /// Of a write: this many first bytes are there.
    Torn(usize),
    /// Of a write: this many first bytes, then NULs up to its end.
    TornThenNul(usize),
    /// Of a write: so many NULs, then the bytes.
    NulThenRest(usize),
}

/// A history as the disk sees it.
pub(super) struct Disk<'a> {
    pub(super) history: &'a History,
    /// Of each event, the persist that made it durable first.
    durable_at: Vec<usize>,
    /// Of each event, whether it is about the index, which is derived.
    derived: Vec<bool>,
}

/// Never.
const NEVER: usize = usize::MAX;

/// The files of SQLite, which no promise is about.
fn is_of_index(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("index.sqlite"))
}

impl<'a> Disk<'a> {
    /// A disk that does not hear one of the persists, if one is given.
    pub(super) fn new(history: &'a History, ignored: Option<usize>) -> Self {
        let mut durable_at = vec![NEVER; history.events.len()];
        for (number, happened) in history.events.iter().enumerate() {
            let Event::Persist { node, began } = &happened.event else { continue };
            if ignored == Some(number) {
                continue;
            }
            for (earlier, at) in history.events.iter().zip(&mut durable_at).take(number) {
                if earlier.line < *began && *at == NEVER && is_about(&earlier.event, *node) {
                    *at = number;
                }
            }
        }
        let derived = history.events.iter().map(|happened| is_derived(history, &happened.event));
        Self { history, derived: derived.collect(), durable_at }
    }

    /// The changes that are not durable after the first `point` events, oldest first.
    pub(super) fn pending(&self, point: usize) -> Vec<usize> {
        let is_pending = |number: &usize| {
            self.durable_at.get(*number).is_some_and(|at| *at >= point)
                && !self.is_derived(*number)
                && self.history.event(*number).is_some_and(Event::is_change)
        };
        (0..point).filter(is_pending).collect()
    }

    /// The changes that this disk never makes durable, or later than the other one.
    pub(super) fn later_than(&self, other: &Disk<'_>) -> Vec<usize> {
        let pairs = self.durable_at.iter().zip(&other.durable_at).enumerate();
        let later =
            pairs.filter(|(number, (mine, theirs))| mine > theirs && !self.is_derived(*number));
        later.map(|(number, _)| number).collect()
    }

    /// Whether the event is about the index.
    pub(super) fn is_derived(&self, event: usize) -> bool {
        self.derived.get(event).copied().unwrap_or_default()
    }

    /// What lies there after the first `point` events, with these fates of the pending ones. The
    /// index's files are as they were last written, or gone.
    pub(super) fn tree(&self, point: usize, fates: &HashMap<usize, Fate>, index: bool) -> Tree {
        let mut contents = Contents::default();
        for (number, happened) in self.history.events.iter().take(point).enumerate() {
            let fate = fates.get(&number).copied().unwrap_or(Fate::Done);
            if index || !self.is_derived(number) {
                contents.apply(&happened.event, fate);
            }
        }
        contents.tree(&self.history.folders)
    }
}

/// Whether a persist of this node makes the event durable.
fn is_about(event: &Event, persisted: Node) -> bool {
    match event {
        Event::Write { node, .. } | Event::Resize { node, .. } => *node == persisted,
        Event::Put { name, .. } | Event::Remove { name } => name.0 == persisted,
        Event::Move { from, to, .. } => from.0 == persisted || to.0 == persisted,
        Event::Persist { .. } | Event::Told(_) => false,
    }
}

fn is_derived(history: &History, event: &Event) -> bool {
    let of_node = |node: &Node| history.last_paths.get(node).is_some_and(|path| is_of_index(path));
    match event {
        Event::Write { node, .. }
        | Event::Resize { node, .. }
        | Event::Put { node, .. }
        | Event::Move { node, .. }
        | Event::Persist { node, .. } => of_node(node),
        Event::Remove { name } => is_of_index(Path::new(&name.1)),
        Event::Told(_) => false,
    }
}

impl Event {
    /// Whether it changes what is on the disk.
    pub(super) fn is_change(&self) -> bool {
        !matches!(self, Event::Persist { .. } | Event::Told(_))
    }
}

/// A disk's content while events are applied.
#[derive(Default)]
struct Contents {
    files: HashMap<Node, Vec<u8>>,
    names: HashMap<Name, Node>,
}

impl Contents {
    fn apply(&mut self, event: &Event, fate: Fate) {
        match event {
            _ if fate == Fate::Lost => {}
            Event::Write { node, offset, bytes } => {
                write(self.files.entry(*node).or_default(), *offset, bytes, fate);
            }
            Event::Resize { node, bytes } => self.files.entry(*node).or_default().resize(*bytes, 0),
            Event::Put { name, node } => {
                self.names.insert(name.clone(), *node);
            }
            Event::Remove { name } => {
                self.names.remove(name);
            }
            Event::Move { from, to, node } => {
                self.names.remove(from);
                self.names.insert(to.clone(), *node);
            }
            Event::Persist { .. } | Event::Told(_) => {}
        }
    }

    /// What can be reached from the folder that everything lies in.
    fn tree(mut self, folders: &[bool]) -> Tree {
        let mut children: HashMap<Node, Vec<(String, Node)>> = HashMap::new();
        for ((folder, name), node) in self.names {
            children.entry(folder).or_default().push((name, node));
        }
        let mut tree = Tree::default();
        let mut waiting = vec![(PathBuf::new(), 0)];
        while let Some((path, folder)) = waiting.pop() {
            for (name, node) in children.remove(&folder).unwrap_or_default() {
                let path = path.join(name);
                if folders.get(node).copied().unwrap_or_default() {
                    waiting.push((path.clone(), node));
                    tree.insert(path, None);
                } else {
                    tree.insert(path, Some(self.files.get(&node).cloned().unwrap_or_default()));
                }
            }
        }
        self.files.clear();
        tree
    }
}

/// Puts what the fate leaves of a write into a file; a hole before it is NULs.
fn write(file: &mut Vec<u8>, offset: usize, bytes: &[u8], fate: Fate) {
    let mut left = bytes.to_vec();
    match fate {
        Fate::Done | Fate::Lost => {}
        Fate::Torn(first) => left.truncate(first),
        Fate::TornThenNul(first) => left.iter_mut().skip(first).for_each(|byte| *byte = 0),
        Fate::NulThenRest(first) => left.iter_mut().take(first).for_each(|byte| *byte = 0),
    }
    let end = offset + left.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    if let Some(place) = file.get_mut(offset..end) {
        place.copy_from_slice(&left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::states::history::Happened;

    fn written(fate: Fate) -> Vec<u8> {
        let mut file = b"12".to_vec();
        write(&mut file, 2, b"abcd", fate);
        file
    }

    #[test]
    fn a_torn_write_leaves_its_beginning_or_nuls_in_its_place() {
        assert_eq!(written(Fate::Done), b"12abcd");
        assert_eq!(written(Fate::Torn(1)), b"12a");
        assert_eq!(written(Fate::TornThenNul(1)), b"12a\0\0\0");
        assert_eq!(written(Fate::NulThenRest(1)), b"12\0bcd");
    }

    #[test]
    fn a_later_write_whose_predecessor_is_lost_leaves_a_hole() {
        let mut file = Vec::new();
        write(&mut file, 3, b"x", Fate::Done);
        assert_eq!(file, b"\0\0\0x");
    }

    /// A file is written under a name, a word is told, and then both are persisted.
    fn history() -> History {
        let mut history = History::new();
        history.folders.push(false);
        let events = [
            Event::Put { name: (0, "a".into()), node: 1 },
            Event::Write { node: 1, offset: 0, bytes: b"bytes".to_vec() },
            Event::Persist { node: 1, began: 9 },
            Event::Told("ok".into()),
            Event::Persist { node: 0, began: 9 },
        ];
        history.events = events.map(|event| Happened { event, line: 1 }).into();
        history
    }

    #[test]
    fn what_was_not_persisted_is_pending() {
        let history = history();
        let disk = Disk::new(&history, None);
        let pending: Vec<Vec<usize>> = (0..=5).map(|point| disk.pending(point)).collect();
        assert_eq!(pending, [vec![], vec![0], vec![0, 1], vec![0], vec![0], vec![]]);
        let deaf = Disk::new(&history, Some(4));
        assert_eq!((deaf.pending(5), deaf.later_than(&disk)), (vec![0], vec![0]));
    }

    #[test]
    fn a_write_that_came_after_the_persist_began_is_not_covered() {
        let mut history = history();
        history.events[1].line = 9;
        assert_eq!(Disk::new(&history, None).pending(3), [0, 1]);
    }

    #[test]
    fn a_file_whose_name_is_lost_is_not_there() {
        let history = history();
        let disk = Disk::new(&history, None);
        let paths = |fate| disk.tree(4, &HashMap::from([(0, fate)]), true).iter().count();
        assert_eq!((paths(Fate::Done), paths(Fate::Lost)), (1, 0));
    }
}
