//! Persists in the background what the sessions of one store appended.
//!
//! The writers never wait for it: it takes no lock of theirs.

use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::ids::SegmentId;
use crate::journal::writer::PersistHandle;

/// A record is on disk at most this long after the call that wrote it.
pub const PERSIST_INTERVAL: Duration = Duration::from_secs(1);

enum Order {
    Begin(SegmentId, PersistHandle),
    End(SegmentId),
}

/// The thread that persists; dropped, it ends.
#[derive(Debug)]
pub(crate) struct Persister {
    orders: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Persister {
    /// Starts the thread; it sleeps while no segment is written.
    pub(crate) fn start() -> io::Result<Self> {
        let (orders, inbox) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("tidelog-persist".into())
            .spawn(move || run(&inbox))?;
        Ok(Self { orders: Some(orders), thread: Some(thread) })
    }

    /// From now on this segment is persisted every [`PERSIST_INTERVAL`].
    pub(crate) fn begin(&self, segment: SegmentId, handle: PersistHandle) {
        self.order(Order::Begin(segment, handle));
    }

    /// The segment is sealed.
    pub(crate) fn end(&self, segment: SegmentId) {
        self.order(Order::End(segment));
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            orders.send(order).ok(); // the thread outlives the sender
        }
    }
}

impl Drop for Persister {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn run(inbox: &Receiver<Order>) {
    let mut handles: Vec<(SegmentId, PersistHandle)> = Vec::new();
    loop {
        let order = match handles.is_empty() {
            true => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => inbox.recv_timeout(PERSIST_INTERVAL),
        };
        match order {
            Ok(Order::Begin(segment, handle)) => handles.push((segment, handle)),
            Ok(Order::End(segment)) => handles.retain(|(id, _)| *id != segment),
            Err(RecvTimeoutError::Timeout) => persist_all(&handles),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// A failure closes its segment, and the writer's next call returns an error.
fn persist_all(handles: &[(SegmentId, PersistHandle)]) {
    for (_, handle) in handles {
        handle.persist().ok();
    }
}
