//! Requests that peers have asked and we have not answered yet, and the last answers, for duplicates (RFC 6733 5.5.4).

use crate::Message;
use crate::dict;
use ims_core::time::earliest;
use ims_core::{LinkId, Time};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Answers kept for duplicates: so many, so much, and as long as a peer repeats. That is until it has found out that the connection
/// is dead, two watchdog intervals of 30 s at most (RFC 3539 3.4.1), and that once more for what it asked meanwhile; well within
/// the time for which an end-to-end identifier is unique (RFC 6733 3).
const MAX_RECENT: usize = 2048;
const MAX_RECENT_BYTES: usize = 8 << 20;
const MAX_RECENT_AGE: Duration = Duration::from_secs(120);
/// Those that are too old within this time go together.
const FORGET_TOGETHER: Duration = Duration::from_secs(8);

/// End-to-End Identifier and Origin-Host: the same in every copy of a request. The number differs almost always.
type Origin = (u32, Arc<str>);

/// What to do with a request.
pub(crate) enum Verdict {
    New(u64),
    /// A copy of one that is being worked on: it is answered together with that.
    InProgress,
    /// A copy of one that was answered: the same answer again.
    Answered(Message),
    Full,
}

struct Asked {
    request: Message,
    origin: Origin,
    /// Where the answer goes, and under which hop-by-hop identifier.
    from: Vec<(LinkId, u32)>,
    expires: Time,
}

#[derive(Default)]
pub(crate) struct Served {
    asked: BTreeMap<u64, Asked>,
    by_origin: BTreeMap<Origin, u64>,
    recent: BTreeMap<Origin, (Time, Message)>,
    order: VecDeque<Origin>,
    recent_bytes: usize,
    last_token: u64,
    /// Of the last request: as a rule the next one is from there too.
    last_host: Arc<str>,
}

impl Served {
    /// `expires` must not go back from one request to the next.
    pub(crate) fn accept(&mut self, m: &Message, link: LinkId, now: Time, expires: Time, most: usize) -> Verdict {
        let host = m.avps().first(&dict::ORIGIN_HOST).and_then(|a| a.utf8().ok()).unwrap_or_default();
        if !self.last_host.eq_ignore_ascii_case(host) {
            self.last_host = host.to_ascii_lowercase().into();
        }
        let origin = (m.end_to_end, self.last_host.clone());
        if m.is_retransmitted() {
            let in_progress = self.by_origin.get(&origin).and_then(|token| self.asked.get_mut(token));
            if let Some(asked) = in_progress.filter(|asked| asked.request.command() == m.command()) {
                if asked.from.len() < 8 {
                    asked.from.push((link, m.hop_by_hop));
                }
                return Verdict::InProgress;
            }
            let answered = self.recent.get(&origin).filter(|(at, _)| now.since(*at) < MAX_RECENT_AGE);
            if let Some((_, answer)) = answered.filter(|(_, answer)| answer.command() == m.command()) {
                return Verdict::Answered(answer.with_ids(m.hop_by_hop, m.end_to_end));
            }
        }
        if self.asked.len() >= most {
            return Verdict::Full;
        }
        self.last_token += 1;
        let token = self.last_token;
        self.by_origin.insert(origin.clone(), token);
        self.asked.insert(token, Asked { request: m.clone(), origin, from: vec![(link, m.hop_by_hop)], expires });
        Verdict::New(token)
    }

    /// Takes the answer; gives it back once for every connection that waits for it.
    pub(crate) fn answer(&mut self, token: u64, answer: Message, now: Time) -> Vec<(LinkId, Message)> {
        let Some(asked) = self.asked.remove(&token) else {
            return Vec::new();
        };
        if self.by_origin.get(&asked.origin) == Some(&token) {
            self.by_origin.remove(&asked.origin);
        }
        let answer = answer.with_ids(asked.request.hop_by_hop, asked.request.end_to_end);
        self.remember(asked.origin, answer.clone(), now);
        let copy = |(link, hop_by_hop)| (link, answer.with_ids(hop_by_hop, answer.end_to_end));
        asked.from.into_iter().map(copy).collect()
    }

    fn remember(&mut self, origin: Origin, answer: Message, now: Time) {
        self.recent_bytes += answer.length();
        match self.recent.insert(origin.clone(), (now, answer)) {
            Some((_, old)) => self.recent_bytes -= old.length(),
            None => self.order.push_back(origin),
        }
        while self.recent.len() > MAX_RECENT || self.recent_bytes > MAX_RECENT_BYTES {
            self.drop_oldest();
        }
    }

    pub(crate) fn next_expiry(&self) -> Option<Time> {
        let oldest = self.order.front().and_then(|origin| self.recent.get(origin));
        let forget = oldest.map(|(at, _)| *at + MAX_RECENT_AGE + FORGET_TOGETHER);
        earliest(self.asked.first_key_value().map(|(_, asked)| asked.expires), forget)
    }

    /// Forgets the answers that nobody asks for any more, and gives back what a storm has filled.
    pub(crate) fn forget(&mut self, now: Time) {
        while let Some(origin) = self.order.front() {
            if self.recent.get(origin).is_some_and(|(at, _)| now.since(*at) < MAX_RECENT_AGE) {
                break;
            }
            self.drop_oldest();
        }
        if self.order.capacity() > 8 * self.order.len().max(8) {
            self.order.shrink_to(2 * self.order.len());
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, old)) = self.order.pop_front().and_then(|oldest| self.recent.remove(&oldest)) {
            self.recent_bytes -= old.length();
        }
    }

    /// A request that nobody answered in time.
    pub(crate) fn pop_expired(&mut self, now: Time) -> Option<(u64, Message)> {
        let (token, asked) = self.asked.first_key_value().filter(|(_, asked)| asked.expires <= now)?;
        Some((*token, asked.request.clone()))
    }

    pub(crate) fn len(&self) -> usize {
        self.asked.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: LinkId = LinkId(1);

    fn at(secs: u64) -> Time {
        Time::from_secs(secs)
    }

    fn request(end_to_end: u32, is_repeated: bool) -> Message {
        let mut request =
            Message::request(300, dict::APPLICATION_CX).with(|w| w.utf8(&dict::ORIGIN_HOST, "cscf.example")).build();
        request.end_to_end = end_to_end;
        let mut bytes = request.to_bytes().to_vec();
        bytes[4] |= if is_repeated { 0x10 } else { 0 };
        Message::parse(bytes.into()).unwrap()
    }

    fn serve(served: &mut Served, end_to_end: u32, now: Time) {
        let request = request(end_to_end, false);
        let Verdict::New(token) = served.accept(&request, LINK, now, now + Duration::from_secs(5), 10) else {
            panic!()
        };
        assert_eq!(served.answer(token, request.answer().build(), now).len(), 1);
    }

    fn repeat(served: &mut Served, end_to_end: u32, now: Time) -> Verdict {
        served.accept(&request(end_to_end, true), LINK, now, now, usize::MAX)
    }

    #[test]
    fn answers_stay_for_as_long_as_a_peer_repeats_and_no_longer() {
        let mut served = Served::default();
        (0..1_000).for_each(|n| serve(&mut served, n, at(100 + u64::from(n) / 100)));
        assert_eq!(served.next_expiry(), Some(at(228)));
        served.forget(at(219));
        assert!(matches!(repeat(&mut served, 0, at(219)), Verdict::Answered(answer) if answer.end_to_end == 0));
        served.forget(at(228));
        assert!(matches!(repeat(&mut served, 900, at(228)), Verdict::Answered(_)));
        assert!(matches!(repeat(&mut served, 899, at(228)), Verdict::New(_)));
        served.forget(at(237));
        assert_eq!((served.recent.len(), served.recent_bytes, served.order.len()), (0, 0, 0));
        assert!(served.order.capacity() <= 64);
    }

    #[test]
    fn an_identifier_that_is_used_again_lives_by_its_later_use() {
        let mut served = Served::default();
        serve(&mut served, 7, at(100));
        serve(&mut served, 8, at(150));
        serve(&mut served, 7, at(200));
        served.forget(at(275));
        assert!(matches!(repeat(&mut served, 7, at(275)), Verdict::Answered(_)));
        served.forget(at(320));
        assert_eq!((served.recent.len(), served.recent_bytes, served.next_expiry()), (0, 0, None));
    }
}
