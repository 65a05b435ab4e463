//! Persists in the background what the sessions of one store appended.
//!
//! The writers never wait for it: it takes no lock that an append takes.

use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::ids::SegmentId;
use crate::journal::writer::PersistHandle;

/// A record is on disk at most this long after the call that wrote it, and the time that the disk
/// takes.
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
            .spawn(move || run(&inbox, PERSIST_INTERVAL))?;
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

fn run(inbox: &Receiver<Order>, interval: Duration) {
    let mut handles: Vec<(SegmentId, PersistHandle)> = Vec::new();
    let mut due = Instant::now() + interval;
    loop {
        let order = match handles.is_empty() {
            true => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => inbox.recv_timeout(due.saturating_duration_since(Instant::now())),
        };
        match order {
            Ok(Order::Begin(segment, handle)) => handles.push((segment, handle)),
            Ok(Order::End(segment)) => handles.retain(|(id, _)| *id != segment),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        // orders must not put it off, however many come
        if Instant::now() >= due {
            persist_all(&handles);
            due = Instant::now() + interval;
        }
    }
}

/// A failure closes its segment, and the writer's next call returns an error.
fn persist_all(handles: &[(SegmentId, PersistHandle)]) {
    for (_, handle) in handles {
        handle.persist().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::StoreId;
    use crate::journal::Header;
    use crate::journal::writer::SegmentWriter;

    const INTERVAL: Duration = Duration::from_millis(20);
    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn other_sessions_that_come_and_go_do_not_put_a_persist_off() {
        let folder = tempfile::tempdir().unwrap();
        let header = Header::new(StoreId::random(), None);
        let mut writer = SegmentWriter::create(folder.path(), header, None).unwrap();
        let (orders, inbox) = mpsc::channel();
        let thread = std::thread::spawn(move || run(&inbox, INTERVAL));
        let begin = |segment| Order::Begin(segment, writer.persist_handle());
        orders.send(begin(SegmentId::random())).unwrap();
        let handle = writer.persist_handle();
        writer.append(&serde_json::json!({})).unwrap();
        let start = Instant::now();
        while handle.is_unpersisted() {
            assert!(start.elapsed() < PATIENCE, "nothing was persisted");
            orders.send(Order::End(SegmentId::random())).unwrap();
            std::thread::sleep(INTERVAL / 10);
        }
        drop(orders);
        thread.join().unwrap();
    }
}
