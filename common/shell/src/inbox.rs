//! The one queue of a node, bounded by what comes from outside.
//!
//! Nobody inside the shell ever waits on a node's inbox while a node waits on it: a node's own actions only *offer* to other
//! inboxes. Answers to what a node asked itself are always let in, for their number is bounded by its questions.

use ims_core::metrics::{Samples, catalogue};
use ims_core::{Event, Problem};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc, oneshot};

pub(crate) type CommandReply = oneshot::Sender<Result<serde_json::Value, Problem>>;

pub(crate) enum Input {
    Event(Event),
    Command {
        call: String,
        args: serde_json::Value,
        reply: CommandReply,
    },
    Snapshot(oneshot::Sender<serde_json::Value>),
    /// Answered when it is this one's turn.
    Ping(oneshot::Sender<()>),
    Metrics(oneshot::Sender<Samples>),
}

/// Which budget an input was counted against.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    Free,
    General,
    /// Kept for messages of other nodes over reliable transports (Diameter answers above all): a flood of datagrams must not
    /// make us throw away work that is nearly done.
    Reserved,
}

pub(crate) struct Queued {
    input: Input,
    room: Room,
    since: Instant,
}

impl Queued {
    fn new(input: Input, room: Room) -> Self {
        Self { input, room, since: Instant::now() }
    }
}

#[derive(Clone)]
pub(crate) struct Inbox {
    tx: mpsc::UnboundedSender<Queued>,
    general: Arc<Semaphore>,
    reserved: Arc<Semaphore>,
    dropped: Arc<AtomicU64>,
    size: usize,
}

impl Inbox {
    pub(crate) fn new(size: usize) -> (Self, Intake) {
        let size = size.clamp(1, Semaphore::MAX_PERMITS / 4);
        let (tx, rx) = mpsc::unbounded_channel();
        let general = Arc::new(Semaphore::new(size));
        let reserved = Arc::new(Semaphore::new(size * 2));
        let inbox = Self { tx, general, reserved, dropped: Arc::default(), size };
        (inbox.clone(), Intake { rx, inbox, batch: Vec::new(), oldest: None })
    }

    /// For datagrams: false when there is no room.
    pub(crate) fn offer(&self, event: Event) -> bool {
        self.try_enqueue(event, &self.general, Room::General)
    }

    /// For messages between nodes over what stands for a connection.
    pub(crate) fn offer_reserved(&self, event: Event) -> bool {
        self.try_enqueue(event, &self.reserved, Room::Reserved)
    }

    fn try_enqueue(&self, event: Event, budget: &Semaphore, room: Room) -> bool {
        match budget.try_acquire() {
            Ok(permit) => {
                permit.forget();
                self.tx.send(Queued::new(Input::Event(event), room)).is_ok()
            }
            Err(_) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                false
            }
        }
    }

    /// For readers of connections: waits for room, which holds the peer back. False when the node is gone.
    pub(crate) async fn send(&self, event: Event) -> bool {
        match self.general.acquire().await {
            Ok(permit) => {
                permit.forget();
                self.tx.send(Queued::new(Input::Event(event), Room::General)).is_ok()
            }
            Err(_) => false,
        }
    }

    /// For answers to the node's own requests, and for the end of things.
    pub(crate) fn push(&self, event: Event) {
        self.input(Input::Event(event));
    }

    pub(crate) fn input(&self, input: Input) {
        let _ = self.tx.send(Queued::new(input, Room::Free));
    }

    /// Events that found no room.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(crate) fn measure(&self, out: &mut Samples) {
        let (general, reserved) = (self.general.available_permits(), self.reserved.available_permits());
        out.size(&catalogue::INBOX_EVENTS, &["general"], self.size.saturating_sub(general));
        out.size(&catalogue::INBOX_EVENTS, &["reserved"], (self.size * 2).saturating_sub(reserved));
        out.count(&catalogue::INBOX_DROPPED, &[], self.dropped());
    }

    fn release(&self, room: Room) {
        match room {
            Room::Free => {}
            Room::General => self.general.add_permits(1),
            Room::Reserved => self.reserved.add_permits(1),
        }
    }
}

/// The node's end of the queue.
pub(crate) struct Intake {
    rx: mpsc::UnboundedReceiver<Queued>,
    inbox: Inbox,
    batch: Vec<Queued>,
    /// When the first of the last batch came in.
    oldest: Option<Instant>,
}

impl Intake {
    /// Waits for something and takes up to `limit`. Safe to cancel.
    pub(crate) async fn next_batch(&mut self, limit: usize, out: &mut Vec<Input>) -> usize {
        let count = self.rx.recv_many(&mut self.batch, limit).await;
        self.oldest = self.batch.first().map(|queued| queued.since);
        for queued in self.batch.drain(..) {
            self.inbox.release(queued.room);
            out.push(queued.input);
        }
        count
    }

    /// How long the first of the last batch had waited.
    pub(crate) fn waited(&self) -> Duration {
        self.oldest.map_or(Duration::ZERO, |since| since.elapsed())
    }

    pub(crate) fn inbox(&self) -> &Inbox {
        &self.inbox
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_inbox_refuses_datagrams_but_not_answers() {
        let (inbox, mut intake) = Inbox::new(2);
        assert!(inbox.offer(Event::Timeout) && inbox.offer(Event::Timeout));
        assert!(!inbox.offer(Event::Timeout));
        assert!(inbox.offer_reserved(Event::Timeout), "other nodes have their own room");
        inbox.push(Event::Timeout);
        assert_eq!(inbox.dropped(), 1);
        let mut out = Vec::new();
        assert_eq!(intake.next_batch(64, &mut out).await, 4);
        assert!(inbox.offer(Event::Timeout), "taking makes room");
    }
}
