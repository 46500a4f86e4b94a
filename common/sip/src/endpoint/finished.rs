//! Server transactions other than INVITE, over UDP, that have their final answer (RFC 3261 17.2.2, Completed): until timer J
//! they repeat it. At thousands a second and 32 or 128 s each they outnumber all others by far, so of each is kept only what
//! that takes: a fingerprint of what it is found by, the answer, and where it goes.

use super::Leg;
use super::identity::Print;
use bytes::Bytes;
use ims_core::hash::{IdMap, give_back};
use ims_core::{Flow, Time};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

/// Room for answers on each leg. Beyond it the oldest transactions absorb without repeating: at 1,000 registrations a second
/// this is the last 10 s, when a client that lost the answer has asked again three times.
const ANSWERS: usize = 16 << 20;
/// Answers lie in blocks of this size, one after the other: each on its own would stand between what a registration leaves
/// behind for hours, and leave holes there.
const BLOCK: usize = 64 << 10;
/// Room for so many entries is not given back: a few KiB.
pub(super) const FEW: usize = 32;

/// Where an answer lies: the number of the block, and where in it.
#[derive(Clone, Copy, Default)]
struct Place {
    block: u32,
    start: u32,
    length: u32,
}

struct Answered {
    print: Print,
    leg: Leg,
    local: SocketAddr,
    remote: SocketAddr,
    /// Empty: there was no room for it any more.
    answer: Place,
}

/// A piece of memory with answers that came one after the other. It goes as a whole.
struct Block {
    bytes: Vec<u8>,
    /// So many answers in it are still wanted.
    wanted: usize,
}

#[derive(Default)]
struct Blocks {
    held: VecDeque<Block>,
    /// The number of the first; it wraps around.
    first: u32,
}

impl Blocks {
    fn push(&mut self, answer: &[u8]) -> Place {
        if self.held.back().is_none_or(|last| last.bytes.capacity() - last.bytes.len() < answer.len()) {
            self.held.push_back(Block { bytes: Vec::with_capacity(answer.len().max(BLOCK)), wanted: 0 });
        }
        let index = self.held.len() - 1;
        let last = &mut self.held[index];
        let start = last.bytes.len() as u32;
        last.bytes.extend_from_slice(answer);
        last.wanted += 1;
        Place { block: self.first.wrapping_add(index as u32), start, length: answer.len() as u32 }
    }

    fn index(&self, place: Place) -> usize {
        place.block.wrapping_sub(self.first) as usize
    }

    fn find(&self, place: Place) -> Option<&[u8]> {
        let start = place.start as usize;
        self.held.get(self.index(place))?.bytes.get(start..start + place.length as usize)
    }

    fn let_go(&mut self, place: Place) {
        let index = self.index(place);
        if let Some(block) = self.held.get_mut(index) {
            block.wanted -= 1;
        }
        while self.held.front().is_some_and(|block| block.wanted == 0) {
            self.held.pop_front();
            self.first = self.first.wrapping_add(1);
        }
    }
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
    blocks: Blocks,
}

impl Queue {
    fn let_go(&mut self, answer: Place) {
        if answer.length > 0 {
            self.bytes -= answer.length as usize;
            self.blocks.let_go(answer);
        }
    }
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
        let answered = self.by_id.get(&id).filter(|answered| answered.answer.length > 0)?;
        let queue = match answered.leg {
            Leg::Core => &self.core,
            Leg::Ue => &self.ue,
        };
        let answer = Bytes::copy_from_slice(queue.blocks.find(answered.answer)?);
        Some((Flow::udp(answered.local, answered.remote), answer))
    }

    /// Takes a transaction in until `end_at`: never earlier than that of the one before on the same leg.
    pub(super) fn insert(&mut self, id: u64, print: Print, (leg, reply): (Leg, Flow), answer: &[u8], end_at: Time) {
        let room = self.room;
        let queue = self.queue(leg);
        queue.bytes += answer.len();
        queue.order.push_back((end_at, id));
        let answer = if answer.is_empty() { Place::default() } else { queue.blocks.push(answer) };
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
            let gone = std::mem::take(&mut answered.answer);
            self.queue(leg).let_go(gone);
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
        queue.let_go(gone.answer);
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
        if queue.order.capacity() > 4 * queue.order.len().max(FEW) {
            queue.order.shrink_to(2 * queue.order.len());
        }
        give_back(&mut self.by_id);
        give_back(&mut self.by_print);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(finished: &mut Finished, id: u64, leg: Leg, at: u64) {
        let flow = Flow::udp("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap());
        finished.insert(id, print(id), (leg, flow), &[b'x'; 100], Time::from_secs(at));
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
        assert!(finished.by_id.capacity() < 500 && finished.core.order.capacity() < 500);
        assert!(finished.core.blocks.held.is_empty() && finished.ue.blocks.held.is_empty());
    }

    #[test]
    fn each_repeats_its_own_answer_whatever_its_length() {
        let mut finished = Finished::new();
        let flow = Flow::udp("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap());
        let text = |id: u64| vec![id as u8; if id == 50 { 2 * BLOCK } else { 1 + (id * 997) as usize % 3_000 }];
        for id in 0..200 {
            finished.insert(id, print(id), (Leg::Core, flow), &text(id), Time::from_secs(100 + id));
        }
        // Out of turn, with a whole block.
        assert!((40..120).all(|id| finished.remove(id)));
        finished.expire(Time::from_secs(120), usize::MAX);
        for id in 0..200 {
            let answer = finished.answer(id).map(|(_, answer)| answer.to_vec());
            let is_there = (21..40).contains(&id) || id >= 120;
            assert_eq!(answer, is_there.then(|| text(id)), "{id}");
        }
        let mut finished = Finished {
            core: Queue { blocks: Blocks { first: u32::MAX, ..Blocks::default() }, ..Queue::default() },
            ..Finished::new()
        };
        for id in 0..200 {
            finished.insert(id, print(id), (Leg::Core, flow), &text(id), Time::from_secs(100 + id));
        }
        assert!((0..200).all(|id| finished.answer(id).unwrap().1 == text(id)), "the numbers of the blocks wrap around");
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
