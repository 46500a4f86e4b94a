//! Requests that peers have asked and we have not answered yet, and the last answers, for duplicates (RFC 6733 5.5.4).

use crate::Message;
use crate::dict;
use ims_core::{LinkId, Time};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Answers kept for duplicates: so many, so much, and as long as an end-to-end identifier is unique (RFC 6733 3).
const MAX_RECENT: usize = 2048;
const MAX_RECENT_BYTES: usize = 8 << 20;
const MAX_RECENT_AGE: Duration = Duration::from_secs(240);

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
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some((_, old)) = self.recent.remove(&oldest) {
                self.recent_bytes -= old.length();
            }
        }
    }

    pub(crate) fn next_expiry(&self) -> Option<Time> {
        self.asked.first_key_value().map(|(_, asked)| asked.expires)
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
