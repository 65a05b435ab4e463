//! Turns system calls into a history: descriptors and paths into nodes and names.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use super::history::{Event, Happened, History, Name, Node};
use super::trace::Call;
use crate::{Error, Result};

/// Where the program under test tells what returned.
const STDOUT: &str = "1";

/// What an open descriptor leads to.
#[derive(Debug, Clone, Copy)]
struct Opened {
    node: Node,
    offset: usize,
    append: bool,
}

/// Follows one program after another, each on a copy of the same folder.
pub(super) struct Player {
    pub(super) history: History,
    /// The folder that the program works in.
    base: PathBuf,
    names: HashMap<Name, Node>,
    /// Bytes of each node now.
    lengths: HashMap<Node, usize>,
    /// Descriptors of nodes; copies of one share their place.
    descriptors: HashMap<usize, usize>,
    opened: Vec<Opened>,
    /// The trace's line of the call that is followed; a program's lines follow its predecessor's.
    line: usize,
}

impl Player {
    /// An empty folder.
    pub(super) fn new() -> Self {
        Self {
            history: History::new(),
            base: PathBuf::new(),
            names: HashMap::new(),
            lengths: HashMap::new(),
            descriptors: HashMap::new(),
            opened: Vec::new(),
            line: 0,
        }
    }

    /// Follows the calls of a program on `base`.
    ///
    /// # Errors
    /// A call about this folder that the model does not know.
    pub(super) fn follow(&mut self, base: &Path, calls: &[Call]) -> Result<()> {
        self.base = base.to_owned();
        self.descriptors.clear();
        self.history.began = self.history.events.len();
        let before = self.line;
        for call in calls {
            self.line = before + call.ended + 1;
            self.play(call, before)?;
        }
        Ok(())
    }

    /// Adds bytes to a file that nobody persists.
    ///
    /// # Errors
    /// There is no such file.
    pub(super) fn append(&mut self, path: &Path, bytes: &[u8]) -> Result<()> {
        let node = self.node(path).ok_or_else(|| unknown(path))?;
        let length = self.lengths.entry(node).or_default();
        let offset = *length;
        *length += bytes.len();
        self.add(Event::Write { node, offset, bytes: bytes.to_owned() });
        Ok(())
    }

    fn play(&mut self, call: &Call, before: usize) -> Result<()> {
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
            "fsync" | "fdatasync" => self.persist(call, before + call.began + 1),
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
        Ok(Path::new(&path).strip_prefix(&self.base).ok().map(Path::to_owned))
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

    fn persist(&mut self, call: &Call, began: usize) -> Result<()> {
        let Some(opened) = self.opened(call)?.copied() else { return Ok(()) };
        self.add(Event::Persist { node: opened.node, began });
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
