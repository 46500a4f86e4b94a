//! The one queue of a node, bounded by what comes from outside.
//!
//! It is first in, first out until more waits than one turn takes. Then what is nearly done comes first: answers, what goes on in a
//! dialog or answers a challenge, and whatever is not a message of a peer. What begins something keeps a share of each turn, for to
//! be refused early is better than to wait in vain.
//!
//! Nobody inside the shell ever waits on a node's inbox while a node waits on it: a node's own actions only *offer* to other
//! inboxes. Answers to what a node asked itself are always let in, for their number is bounded by its questions.

use ims_core::metrics::{Samples, catalogue};
use ims_core::{Event, Problem};
use std::collections::VecDeque;
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
    /// Answered when all that came before it is done.
    Ping(oneshot::Sender<()>),
    Metrics(oneshot::Sender<Samples>),
}

/// Inputs that are looked at in one turn, to see which are urgent.
const DEEPEST: usize = 4_096;
/// What begins something has at least one place of so many in each turn.
const BEGIN_SHARE: usize = 2;

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
    is_request_from_outside: bool,
}

impl Queued {
    fn new(input: Input, room: Room) -> Self {
        Self { input, room, since: Instant::now(), is_request_from_outside: false }
    }

    /// That came by a socket so long ago.
    fn came_by_socket(mut self, waited: Duration) -> Self {
        self.since = self.since.checked_sub(waited).unwrap_or(self.since);
        self.is_request_from_outside =
            matches!(&self.input, Input::Event(Event::Sip(packet)) if !ims_sip::stream::is_response(&packet.bytes));
        self
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
        let intake = Intake {
            rx,
            inbox: inbox.clone(),
            came: Vec::new(),
            urgent: VecDeque::new(),
            rest: VecDeque::new(),
            oldest: None,
            oldest_request: None,
        };
        (inbox, intake)
    }

    /// For datagrams: false when there is no room.
    /// `waited`: so long ago the kernel had it. None: it comes from a node of this process.
    pub(crate) fn offer(&self, event: Event, waited: Option<Duration>) -> bool {
        self.try_enqueue(event, &self.general, Room::General, waited)
    }

    /// For messages between nodes over what stands for a connection.
    pub(crate) fn offer_reserved(&self, event: Event) -> bool {
        self.try_enqueue(event, &self.reserved, Room::Reserved, None)
    }

    fn try_enqueue(&self, event: Event, budget: &Semaphore, room: Room, waited: Option<Duration>) -> bool {
        match budget.try_acquire() {
            Ok(permit) => {
                permit.forget();
                let queued = Queued::new(Input::Event(event), room);
                self.tx.send(if let Some(waited) = waited { queued.came_by_socket(waited) } else { queued }).is_ok()
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
                let queued = Queued::new(Input::Event(event), Room::General);
                self.tx.send(queued.came_by_socket(Duration::ZERO)).is_ok()
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
    came: Vec<Queued>,
    /// Only while more waits than one turn takes.
    urgent: VecDeque<Queued>,
    rest: VecDeque<Queued>,
    /// When the first of the last batch came in, and the first request from outside.
    oldest: Option<Instant>,
    oldest_request: Option<Instant>,
}

impl Intake {
    /// Waits for something and takes up to `limit`. Safe to cancel.
    pub(crate) async fn next_batch(&mut self, limit: usize, out: &mut Vec<Input>) -> usize {
        if self.urgent.is_empty() && self.rest.is_empty() {
            self.rx.recv_many(&mut self.came, DEEPEST).await;
        }
        while self.came.len() < DEEPEST
            && let Ok(queued) = self.rx.try_recv()
        {
            self.came.push(queued);
        }
        self.sort(limit);
        (self.oldest, self.oldest_request) = (None, None);
        let share = if self.urgent.is_empty() { limit } else { limit / BEGIN_SHARE };
        let begin = share.max(limit.saturating_sub(self.urgent.len())).min(self.rest.len());
        let known = (limit - begin).min(self.urgent.len());
        let shallow = known == self.urgent.len() && begin == self.rest.len();
        for queued in self.urgent.drain(..known).chain(self.rest.drain(..begin)) {
            let earlier = |oldest: Option<Instant>| Some(oldest.map_or(queued.since, |o| o.min(queued.since)));
            self.oldest = earlier(self.oldest);
            if queued.is_request_from_outside {
                self.oldest_request = earlier(self.oldest_request);
            }
            self.inbox.release(queued.room);
            out.push(queued.input);
        }
        // What a storm has filled is given back.
        if shallow && self.came.capacity() + self.urgent.capacity() + self.rest.capacity() > 4 * limit {
            (self.came, self.urgent, self.rest) = Default::default();
        }
        known + begin
    }

    fn sort(&mut self, limit: usize) {
        let is_deep = self.urgent.len() + self.rest.len() + self.came.len() > limit;
        for queued in self.came.drain(..) {
            if is_deep && is_urgent(&queued.input) { &mut self.urgent } else { &mut self.rest }.push_back(queued);
        }
    }

    /// How long a request from outside in the last batch had waited at most. None: there was none. What our own nodes send has
    /// hardly waited, and says nothing about those at the door.
    pub(crate) fn request_waited(&self) -> Option<Duration> {
        self.oldest_request.map(|since| since.elapsed())
    }

    /// How long the first of the last batch had waited.
    pub(crate) fn waited(&self) -> Duration {
        self.oldest.map_or(Duration::ZERO, |since| since.elapsed())
    }

    pub(crate) fn inbox(&self) -> &Inbox {
        &self.inbox
    }
}

/// Whether to do it at once spares work that was done already. The end of a connection stays behind what came by it, and a ping
/// behind all that begins something.
fn is_urgent(input: &Input) -> bool {
    match input {
        Input::Event(Event::Sip(packet)) => ims_sip::stream::continues(&packet.bytes),
        Input::Event(Event::Diameter { bytes, .. }) => ims_diameter::stream::continues(bytes),
        Input::Event(Event::FlowClosed(_) | Event::LinkDown { .. } | Event::Stop) | Input::Ping(_) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ims_core::{Flow, Packet};

    #[tokio::test]
    async fn a_full_inbox_refuses_datagrams_but_not_answers() {
        let (inbox, mut intake) = Inbox::new(2);
        assert!(inbox.offer(Event::Timeout, None) && inbox.offer(Event::Timeout, None));
        assert!(!inbox.offer(Event::Timeout, None));
        assert!(inbox.offer_reserved(Event::Timeout), "other nodes have their own room");
        inbox.push(Event::Timeout);
        assert_eq!(inbox.dropped(), 1);
        let mut out = Vec::new();
        assert_eq!(intake.next_batch(64, &mut out).await, 4);
        assert!(inbox.offer(Event::Timeout, None), "taking makes room");
    }

    fn register(nonce: &str) -> Event {
        let text = format!("REGISTER sip:a SIP/2.0\r\nAuthorization: Digest nonce=\"{nonce}\"\r\n\r\n");
        let flow = Flow::udp("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap());
        Event::Sip(Packet { flow, bytes: text.into() })
    }

    fn is_new(input: &Input) -> bool {
        matches!(input, Input::Event(Event::Sip(packet)) if !ims_sip::stream::continues(&packet.bytes))
    }

    #[tokio::test]
    async fn a_deep_inbox_gives_first_what_is_nearly_done_and_half_of_each_turn_to_what_begins() {
        let (inbox, mut intake) = Inbox::new(1000);
        for n in 0..400 {
            assert!(inbox.offer(register(if n % 4 == 0 { "" } else { "x" }), None));
        }
        let mut turns = Vec::new();
        let mut left = 400;
        while left > 0 {
            let mut out = Vec::new();
            left -= intake.next_batch(100, &mut out).await;
            turns.push((out.len(), out.iter().filter(|i| is_new(i)).count(), out.first().map(is_new)));
        }
        let known_first = Some(false);
        assert_eq!(
            turns,
            [(100, 50, known_first), (100, 50, known_first), (100, 0, known_first), (100, 0, known_first)]
        );
        assert_eq!(inbox.general.available_permits(), 1000);
    }

    #[tokio::test]
    async fn however_deep_the_inbox_a_ping_says_that_what_came_before_is_done() {
        let (inbox, mut intake) = Inbox::new(1000);
        assert!((0..200).all(|_| inbox.offer(register(""), None)));
        inbox.push(Event::Stop);
        inbox.input(Input::Ping(oneshot::channel().0));
        let mut out = Vec::new();
        while intake.next_batch(64, &mut out).await == 64 {}
        assert!(matches!(out[..], [.., Input::Event(Event::Stop), Input::Ping(_)]));
        assert_eq!(out.len(), 202);
    }

    #[tokio::test]
    async fn an_inbox_that_is_not_deep_keeps_the_order() {
        let (inbox, mut intake) = Inbox::new(1000);
        for n in 0..100 {
            inbox.offer(register(if n % 2 == 0 { "" } else { "x" }), None);
        }
        let mut out = Vec::new();
        assert_eq!(intake.next_batch(128, &mut out).await, 100);
        assert!(out.iter().enumerate().all(|(n, input)| is_new(input) == (n % 2 == 0)));
    }

    #[tokio::test]
    async fn the_wait_begins_in_the_kernel_and_is_that_of_requests_came_by_socket() {
        let (inbox, mut intake) = Inbox::new(1000);
        let (long, longer) = (Duration::from_secs(2), Duration::from_secs(4));
        inbox.offer(register(""), Some(long));
        let mut out = Vec::new();
        intake.next_batch(128, &mut out).await;
        assert!(intake.request_waited().is_some_and(|w| w >= long && w < longer));
        assert!((0..20).all(|_| inbox.offer(register("x"), None)));
        inbox.offer(register(""), Some(longer));
        intake.next_batch(8, &mut Vec::new()).await;
        assert!(intake.request_waited().is_some_and(|w| w >= longer), "it has its share of the turn");
        intake.next_batch(8, &mut Vec::new()).await;
        assert_eq!(intake.request_waited(), None, "what comes from within says nothing");
    }
}
