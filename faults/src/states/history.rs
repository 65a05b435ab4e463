//! What happened to the disk, call by call, told in nodes and names instead of descriptors.
//!
//! A **node** is a file or a folder, whatever it is called; a name is an entry of a folder. Each
//! event changes one node or one name, or makes changes durable, or tells something.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use super::trace::Call;
use super::tree::Tree;
use crate::{Error, Result};

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
    /// So many first events only describe what was there, durable, at the beginning.
    pub(super) initial: usize,
    /// Of each node, whether it is a folder.
    pub(super) folders: Vec<bool>,
    /// Of each node, the last path it had.
    pub(super) last_paths: HashMap<Node, PathBuf>,
}

/// Where the program under test tells what returned.
const STDOUT: &str = "1";

/// What an open descriptor leads to.
#[derive(Debug, Clone, Copy)]
struct Opened {
    node: Node,
    offset: usize,
    append: bool,
}

struct Player<'a> {
    base: &'a Path,
    history: History,
    names: HashMap<Name, Node>,
    /// Bytes of each node now.
    lengths: HashMap<Node, usize>,
    /// Descriptors of nodes; copies of one share their place.
    descriptors: HashMap<usize, usize>,
    opened: Vec<Opened>,
    line: usize,
}

impl History {
    /// Follows the calls of a program on the folder `base`, which held `initial` before.
    pub(super) fn of(base: &Path, initial: &Tree, calls: &[Call]) -> Result<Self> {
        let history = History {
            events: Vec::new(),
            initial: 0,
            folders: vec![true],
            last_paths: HashMap::from([(0, PathBuf::new())]),
        };
        let mut player = Player {
            base,
            history,
            names: HashMap::new(),
            lengths: HashMap::new(),
            descriptors: HashMap::new(),
            opened: Vec::new(),
            line: 0,
        };
        player.begin(initial)?;
        for call in calls {
            player.line = call.ended + 1; // line 0 is before everything
            player.play(call)?;
        }
        Ok(player.history)
    }
}

impl Player<'_> {
    fn begin(&mut self, initial: &Tree) -> Result<()> {
        for (path, content) in initial.iter() {
            let name = self.name(path)?;
            let node = self.create(name, content.is_none());
            if let Some(bytes) = content {
                self.lengths.insert(node, bytes.len());
                self.add(Event::Write { node, offset: 0, bytes: bytes.clone() });
            }
        }
        self.history.initial = self.history.events.len();
        Ok(())
    }

    fn play(&mut self, call: &Call) -> Result<()> {
        match call.name.as_str() {
            "openat" => self.open(call, 1),
            "open" => self.open(call, 0),
            "close" => {
                self.descriptors.remove(&call.number(0)?);
                Ok(())
            }
            "dup" | "dup2" | "dup3" => self.copy(call),
            "fcntl" if call.argument(1).starts_with("F_DUPFD") => self.copy(call),
            "fcntl" => Ok(()),
            "lseek" => self.seek(call, |_| call.result),
            "read" => self.seek(call, |offset| offset + call.result),
            "write" | "writev" if call.argument(0) == STDOUT => self.told(call),
            "write" | "writev" => self.write(call),
            "pwrite64" | "pwritev" | "pwritev2" => self.write_at(call, call.number(3)?),
            "ftruncate" => self.resize(call, call.number(1)?, false),
            "fallocate" if call.argument(1) == "0" => {
                self.resize(call, call.number(2)? + call.number(3)?, true)
            }
            "fsync" | "fdatasync" => self.persist(call),
            "mkdir" => self.make_folder(call, 0),
            "mkdirat" => self.make_folder(call, 1),
            "unlink" | "rmdir" => self.remove(call, 0),
            "unlinkat" => self.remove(call, 1),
            "rename" => self.rename(call, 0, 1),
            "renameat" | "renameat2" => self.rename(call, 1, 3),
            "link" => self.link(call, 0, 1),
            "linkat" => self.link(call, 1, 3),
            "mmap" => self.refuse_shared_memory(call),
            _ => self.refuse(call),
        }
    }

    fn add(&mut self, event: Event) {
        self.history.events.push(Happened { event, line: self.line });
    }

    /// The path in this argument, relative to the base; `None` if it lies elsewhere.
    fn path(&self, call: &Call, argument: usize) -> Result<Option<PathBuf>> {
        let path = String::from_utf8(call.bytes(argument)?)?;
        Ok(Path::new(&path).strip_prefix(self.base).ok().map(Path::to_owned))
    }

    fn name(&self, path: &Path) -> Result<Name> {
        let mut parts = path.components();
        let Some(Component::Normal(last)) = parts.next_back() else { return Err(unknown(path)) };
        let folder = self.node(parts.as_path()).ok_or_else(|| unknown(path))?;
        Ok((folder, last.to_string_lossy().into_owned()))
    }

    /// The node of this path now.
    fn node(&self, path: &Path) -> Option<Node> {
        path.components().try_fold(0, |folder, part| {
            self.names.get(&(folder, part.as_os_str().to_string_lossy().into_owned())).copied()
        })
    }

    fn new_node(&mut self, is_folder: bool) -> Node {
        self.history.folders.push(is_folder);
        self.history.folders.len() - 1
    }

    fn create(&mut self, name: Name, is_folder: bool) -> Node {
        let node = self.new_node(is_folder);
        self.put(name.clone(), node);
        self.add(Event::Put { name, node });
        node
    }

    fn put(&mut self, name: Name, node: Node) {
        let folder = self.history.last_paths.get(&name.0).cloned().unwrap_or_default();
        self.history.last_paths.insert(node, folder.join(&name.1));
        self.names.insert(name, node);
    }

    fn open(&mut self, call: &Call, argument: usize) -> Result<()> {
        let Some(path) = self.path(call, argument)? else { return Ok(()) };
        let flags = call.argument(argument + 1);
        let node = match self.node(&path) {
            _ if flags.contains("O_TMPFILE") => self.new_node(false),
            Some(node) => node,
            None if flags.contains("O_CREAT") => self.create(self.name(&path)?, false),
            None => return Err(unknown(&path)),
        };
        if flags.contains("O_TRUNC") && self.lengths.insert(node, 0).unwrap_or_default() > 0 {
            self.add(Event::Resize { node, bytes: 0 });
        }
        self.descriptors.insert(call.result, self.opened.len());
        self.opened.push(Opened { node, offset: 0, append: flags.contains("O_APPEND") });
        Ok(())
    }

    fn copy(&mut self, call: &Call) -> Result<()> {
        if let Some(opened) = self.descriptors.get(&call.number(0)?).copied() {
            self.descriptors.insert(call.result, opened);
        }
        Ok(())
    }

    fn opened(&mut self, call: &Call) -> Result<Option<&mut Opened>> {
        let number = self.descriptors.get(&call.number(0)?).copied();
        Ok(number.and_then(|number| self.opened.get_mut(number)))
    }

    fn seek(&mut self, call: &Call, to: impl FnOnce(usize) -> usize) -> Result<()> {
        if let Some(opened) = self.opened(call)? {
            opened.offset = to(opened.offset);
        }
        Ok(())
    }

    fn told(&mut self, call: &Call) -> Result<()> {
        let text = String::from_utf8(call.bytes(1)?)?;
        self.add(Event::Told(text.trim_end().to_owned()));
        Ok(())
    }

    fn write(&mut self, call: &Call) -> Result<()> {
        let Some(opened) = self.opened(call)?.copied() else { return Ok(()) };
        let length = self.lengths.get(&opened.node).copied().unwrap_or_default();
        let offset = if opened.append { length } else { opened.offset };
        let end = self.written(opened.node, offset, call)?;
        self.seek(call, |_| end)
    }

    fn write_at(&mut self, call: &Call, offset: usize) -> Result<()> {
        let Some(opened) = self.opened(call)?.copied() else { return Ok(()) };
        self.written(opened.node, offset, call).map(|_| ())
    }

    /// The place behind the bytes; a short write wrote the first ones.
    fn written(&mut self, node: Node, offset: usize, call: &Call) -> Result<usize> {
        let mut bytes = call.bytes(1)?;
        bytes.truncate(call.result);
        let end = offset + bytes.len();
        let length = self.lengths.entry(node).or_default();
        *length = end.max(*length);
        self.add(Event::Write { node, offset, bytes });
        Ok(end)
    }

    fn resize(&mut self, call: &Call, bytes: usize, only_grows: bool) -> Result<()> {
        let Some(opened) = self.opened(call)?.copied() else { return Ok(()) };
        let node = opened.node;
        let length = self.lengths.entry(node).or_default();
        if !only_grows || bytes > *length {
            *length = bytes;
            self.add(Event::Resize { node, bytes });
        }
        Ok(())
    }

    fn persist(&mut self, call: &Call) -> Result<()> {
        let Some(opened) = self.opened(call)?.copied() else { return Ok(()) };
        self.add(Event::Persist { node: opened.node, began: call.began + 1 });
        Ok(())
    }

    fn make_folder(&mut self, call: &Call, argument: usize) -> Result<()> {
        if let Some(path) = self.path(call, argument)? {
            self.create(self.name(&path)?, true);
        }
        Ok(())
    }

    fn remove(&mut self, call: &Call, argument: usize) -> Result<()> {
        let Some(path) = self.path(call, argument)? else { return Ok(()) };
        let name = self.name(&path)?;
        self.names.remove(&name);
        self.add(Event::Remove { name });
        Ok(())
    }

    fn rename(&mut self, call: &Call, from: usize, to: usize) -> Result<()> {
        let (Some(from), Some(to)) = (self.path(call, from)?, self.path(call, to)?) else {
            return Ok(());
        };
        let (from, to) = (self.name(&from)?, self.name(&to)?);
        let node = self.names.remove(&from).ok_or("a file was renamed that is not known")?;
        self.put(to.clone(), node);
        self.add(Event::Move { from, to, node });
        Ok(())
    }

    fn link(&mut self, call: &Call, from: usize, to: usize) -> Result<()> {
        let Some(to) = self.path(call, to)? else { return Ok(()) };
        let from = self.path(call, from)?.and_then(|path| self.node(&path));
        let node = from.ok_or("a link leads to a file that is not known")?;
        let name = self.name(&to)?;
        self.put(name.clone(), node);
        self.add(Event::Put { name, node });
        Ok(())
    }

    /// Bytes that change without a call would be missing in the model. SQLite's `-shm` is made anew.
    fn refuse_shared_memory(&mut self, call: &Call) -> Result<()> {
        let flags = (call.argument(2), call.argument(3));
        if !flags.0.contains("PROT_WRITE") || !flags.1.contains("MAP_SHARED") {
            return Ok(());
        }
        let number = call.argument(4).parse().ok();
        let opened = number.and_then(|number: usize| self.descriptors.get(&number));
        let node = opened.and_then(|opened| self.opened.get(*opened)).map(|opened| opened.node);
        match node.and_then(|node| self.history.last_paths.get(&node)) {
            Some(path) if !path.to_string_lossy().ends_with("-shm") => {
                Err(format!("{} is shared memory, which the model does not see", path.display())
                    .into())
            }
            _ => Ok(()),
        }
    }

    /// A call that the model does not know must not pass unseen if it is about the folder.
    fn refuse(&self, call: &Call) -> Result<()> {
        let base = self.base.to_string_lossy().into_owned().into_bytes();
        let is_path_within = (0..call.arguments.len())
            .any(|number| call.bytes(number).is_ok_and(|bytes| bytes.starts_with(&base)));
        let mut numbers = call.arguments.iter().filter_map(|text| text.parse::<usize>().ok());
        let is_opened = numbers.any(|number| self.descriptors.contains_key(&number));
        match is_path_within || is_opened || call.name == "sync" {
            true => {
                Err(format!("the model of the disk does not know the call {}", call.name).into())
            }
            false => Ok(()),
        }
    }
}

fn unknown(path: &Path) -> Error {
    format!("{} is used and was never made", path.display()).into()
}
