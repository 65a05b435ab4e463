//! What happened to the disk, call by call, told in nodes and names instead of descriptors.
//!
//! A **node** is a file or a folder, whatever it is called; a name is an entry of a folder. Each
//! event changes one node or one name, or makes changes durable, or tells something.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::check::{Crash, Run};
use crate::scenario::Task;

/// A file or folder; the number counts from 0, which is the folder that everything lies in.
pub(super) type Node = usize;

/// A name in a folder.
pub(super) type Name = (Node, String);

/// One thing that happened.
#[derive(Debug)]
pub(super) enum Event {
    /// Bytes of a file were written.
    Write { node: Node, offset: usize, bytes: Vec<u8> },
    /// A file was cut or made longer with NULs.
    Resize { node: Node, bytes: usize },
    /// A name was given to a node.
    Put { name: Name, node: Node },
    /// A name was taken away.
    Remove { name: Name },
    /// A name was changed, in one step.
    Move { from: Name, to: Name, node: Node },
    /// What happened to a node before line `began` of the trace is durable: bytes and length of a
    /// file, names of a folder.
    Persist { node: Node, began: usize },
    /// A line was told.
    Told(String),
}

/// An event and the line of the trace where it was done.
#[derive(Debug)]
pub(super) struct Happened {
    pub(super) event: Event,
    pub(super) line: usize,
}

/// Everything that happened to a folder.
#[derive(Debug)]
pub(super) struct History {
    pub(super) events: Vec<Happened>,
    /// Where the run begins whose power is cut; what a killed one did lies before.
    pub(super) began: usize,
    /// Of each node, whether it is a folder.
    pub(super) folders: Vec<bool>,
    /// Of each node, the last path it had.
    pub(super) last_paths: HashMap<Node, PathBuf>,
}

impl History {
    /// Nothing but an empty folder.
    pub(super) fn new() -> Self {
        let last_paths = HashMap::from([(0, PathBuf::new())]);
        Self { events: Vec::new(), began: 0, folders: vec![true], last_paths }
    }

    /// An event by its number.
    pub(super) fn event(&self, number: usize) -> Option<&Event> {
        self.events.get(number).map(|happened| &happened.event)
    }

    /// What the killed run's task had told.
    pub(super) fn killed_run(&self, task: &Task, crash: Crash) -> Run {
        self.run_between(task, 0, self.began, crash)
    }

    /// What the run's task had told by the first `point` events.
    pub(super) fn run(&self, task: &Task, point: usize, crash: Crash) -> Run {
        self.run_between(task, self.began, point, crash)
    }

    fn run_between(&self, task: &Task, from: usize, to: usize, crash: Crash) -> Run {
        let events = self.events.get(from..to).unwrap_or_default();
        let told = events.iter().filter_map(|happened| match &happened.event {
            Event::Told(line) => Some(format!("{line}\n")),
            _ => None,
        });
        Run::new(task.clone(), &told.collect::<String>(), crash)
    }
}
