//! Server transactions other than INVITE, over UDP, that have their final answer (RFC 3261 17.2.2, Completed): until timer J
//! they repeat it. At thousands a second and 32 or 128 s each they outnumber all others by far, so of each is kept only what
//! that takes: a fingerprint of what it is found by, the answer, and where it goes.

use super::Leg;
use super::identity::Print;
use bytes::Bytes;
use ims_core::hash::IdMap;
use ims_core::{Flow, Time};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

/// Room for answers on each leg. Beyond it the oldest transactions absorb without repeating: at 1,000 registrations a second
/// this is the last 10 s, when a client that lost the answer has asked again three times.
const ANSWERS: usize = 16 << 20;

struct Answered {
    print: Print,
    leg: Leg,
    local: SocketAddr,
    remote: SocketAddr,
    /// Empty: there was no room for it any more.
    answer: Bytes,
}

/// The transactions of one leg in the order in which they end, which is that in which they were answered. What is freed out of
/// turn is still in here; the first is not.
#[derive(Default)]
struct Queue {
    order: VecDeque<(Time, u64)>,
    /// So many of the first have no answer any more.
    bare: usize,
    /// Of all answers.
    bytes: usize,
}

pub(super) struct Finished {
    by_id: IdMap<u64, Answered>,
    by_print: IdMap<Print, u64>,
    core: Queue,
    ue: Queue,
    room: usize,
}

impl Finished {
    pub(super) fn new() -> Self {
        Self {
            by_id: IdMap::default(),
            by_print: IdMap::default(),
            core: Queue::default(),
            ue: Queue::default(),
            room: ANSWERS,
        }
    }

    fn queue(&mut self, leg: Leg) -> &mut Queue {
        match leg {
            Leg::Core => &mut self.core,
            Leg::Ue => &mut self.ue,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn find(&self, print: Print) -> Option<u64> {
        self.by_print.get(&print).copied()
    }

    /// The answer and its way, as long as it is kept.
    pub(super) fn answer(&self, id: u64) -> Option<(Flow, Bytes)> {
        let answered = self.by_id.get(&id).filter(|answered| !answered.answer.is_empty())?;
        Some((Flow::udp(answered.local, answered.remote), answered.answer.clone()))
    }

    /// Takes a transaction in until `end_at`: never earlier than that of the one before on the same leg.
    pub(super) fn insert(&mut self, id: u64, print: Print, (leg, reply): (Leg, Flow), answer: Bytes, end_at: Time) {
        let room = self.room;
        let queue = self.queue(leg);
        queue.bytes += answer.len();
        queue.order.push_back((end_at, id));
        self.by_print.insert(print, id);
        self.by_id.insert(id, Answered { print, leg, local: reply.local, remote: reply.remote, answer });
        while self.queue(leg).bytes > room {
            self.strip(leg);
        }
    }

    /// Lets go of the oldest answer that is still there.
    fn strip(&mut self, leg: Leg) {
        let queue = self.queue(leg);
        let Some((_, id)) = queue.order.get(queue.bare).copied() else { return };
        queue.bare += 1;
        if let Some(answered) = self.by_id.get_mut(&id) {
            let gone = std::mem::take(&mut answered.answer).len();
            self.queue(leg).bytes -= gone;
        }
    }

    pub(super) fn remove(&mut self, id: u64) -> bool {
        let Some(gone) = self.by_id.remove(&id) else { return false };
        if self.by_print.get(&gone.print) == Some(&id) {
            self.by_print.remove(&gone.print);
        }
        let known = &self.by_id;
        let queue = match gone.leg {
            Leg::Core => &mut self.core,
            Leg::Ue => &mut self.ue,
        };
        queue.bytes -= gone.answer.len();
        while queue.order.front().is_some_and(|(_, id)| !known.contains_key(id)) {
            queue.order.pop_front();
            queue.bare = queue.bare.saturating_sub(1);
        }
        true
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        let first = |queue: &Queue| queue.order.front().map(|(at, _)| *at);
        ims_core::time::earliest(first(&self.core), first(&self.ue))
    }

    /// Forgets those whose time is over, and the oldest beyond `most`.
    pub(super) fn expire(&mut self, now: Time, most: usize) {
        for leg in [Leg::Core, Leg::Ue] {
            while self.queue(leg).order.front().is_some_and(|(at, _)| *at <= now) {
                self.pop(leg);
            }
        }
        while self.by_id.len() > most {
            let ends = |queue: &Queue| queue.order.front().map_or(Time::EPOCH + Duration::MAX, |(at, _)| *at);
            self.pop(if ends(&self.core) <= ends(&self.ue) { Leg::Core } else { Leg::Ue });
        }
    }

    fn pop(&mut self, leg: Leg) {
        if let Some((_, id)) = self.queue(leg).order.front().copied() {
            self.remove(id);
        }
        // What a burst has filled is given back.
        let queue = self.queue(leg);
        if queue.order.capacity() > 4 * queue.order.len().max(256) {
            queue.order.shrink_to(2 * queue.order.len());
        }
        if self.by_id.capacity() > 8 * self.by_id.len().max(256) {
            self.by_id.shrink_to(2 * self.by_id.len());
            self.by_print.shrink_to(2 * self.by_id.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(finished: &mut Finished, id: u64, leg: Leg, at: u64) {
        let flow = Flow::udp("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap());
        finished.insert(id, print(id), (leg, flow), vec![b'x'; 100].into(), Time::from_secs(at));
    }

    fn print(id: u64) -> Print {
        Print::for_test(id)
    }

    fn found(finished: &Finished, id: u64) -> Option<u64> {
        finished.find(print(id))
    }

    #[test]
    fn its_fingerprint_finds_it() {
        let mut finished = Finished::new();
        insert(&mut finished, 7, Leg::Core, 32);
        assert_eq!((found(&finished, 7), found(&finished, 8)), (Some(7), None));
        let (flow, answer) = finished.answer(7).unwrap();
        assert_eq!((flow.remote.port(), answer.len()), (2, 100));
    }

    #[test]
    fn each_ends_at_its_time_and_nothing_stays() {
        let mut finished = Finished::new();
        (0..1_000).for_each(|id| insert(&mut finished, id, if id % 2 == 0 { Leg::Core } else { Leg::Ue }, 100 + id));
        assert_eq!(finished.deadline(), Some(Time::from_secs(100)));
        finished.expire(Time::from_secs(599), usize::MAX);
        assert_eq!((finished.len(), found(&finished, 499), found(&finished, 500)), (500, None, Some(500)));
        assert!(finished.remove(501) && !finished.remove(501));
        finished.expire(Time::from_secs(700), 10);
        assert_eq!((finished.len(), found(&finished, 989), found(&finished, 990)), (10, None, Some(990)));
        finished.expire(Time::from_secs(2_000), usize::MAX);
        assert_eq!((finished.len(), finished.deadline()), (0, None));
        assert_eq!((finished.core.bytes, finished.ue.bytes, finished.by_print.len()), (0, 0, 0));
        assert!(finished.by_id.capacity() < 5_000);
    }

    #[test]
    fn without_room_the_oldest_absorb_and_answer_no_more() {
        let mut finished = Finished { room: 1_000, ..Finished::new() };
        (0..30).for_each(|id| insert(&mut finished, id, Leg::Ue, 100 + id));
        assert_eq!((finished.len(), finished.ue.bytes), (30, 1_000));
        assert!(found(&finished, 19).is_some() && finished.answer(19).is_none(), "known, and that is all");
        assert!(finished.answer(20).is_some() && finished.answer(29).is_some());
        finished.remove(20);
        finished.expire(Time::from_secs(110), usize::MAX);
        insert(&mut finished, 30, Leg::Ue, 130);
        insert(&mut finished, 31, Leg::Ue, 131);
        assert!(finished.answer(21).is_none() && finished.answer(22).is_some());
        finished.expire(Time::from_secs(200), usize::MAX);
        assert_eq!((finished.len(), finished.ue.bytes, finished.ue.bare), (0, 0, 0));
    }
}
