//! Endpoints on a virtual network under a virtual clock.

use bytes::Bytes;
use ims_core::{Action, Ctx, LinkId, RequestId, Rng, Time};
use ims_diameter::cx::*;
use ims_diameter::endpoint::*;
use ims_diameter::{Message, stream};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

pub(crate) struct World {
    pub(crate) now: Time,
    rng: Rng,
    pub(crate) nodes: Vec<Node>,
    links: BTreeMap<LinkId, (usize, usize)>,
    queue: VecDeque<(usize, Arrival)>,
    next_link: u64,
    /// Nodes whose packets vanish without the connection being closed.
    pub(crate) mute: BTreeSet<usize>,
    /// Every message sent: when, from whom, on which link, what.
    pub(crate) trace: Vec<(Time, usize, LinkId, Message)>,
}

pub(crate) struct Node {
    pub(crate) endpoint: Endpoint,
    name: String,
    pub(crate) listening: bool,
    pub(crate) events: Vec<DiameterEvent>,
    /// Requests are answered with this result at once, or kept in `events`.
    pub(crate) answers: Option<ResultCode>,
}

enum Arrival {
    Up(LinkId, Option<ims_core::PeerId>),
    Down(Option<LinkId>, Option<ims_core::PeerId>),
    Bytes(LinkId, Bytes),
}

/// `name` connects to each of `connect`, and knows the hosts in `known`.
pub(crate) fn config(name: &str, connect: &[&str], known: &[&str]) -> EndpointConfig {
    let out =
        connect.iter().map(|to| PeerConfig { host: Some((*to).into()), realm: None, connect: Some((*to).into()) });
    let known = known.iter().map(|host| PeerConfig { host: Some((*host).into()), ..PeerConfig::default() });
    EndpointConfig {
        origin_host: name.into(),
        origin_realm: "realm".into(),
        peers: out.chain(known).collect(),
        ..EndpointConfig::default()
    }
}

impl World {
    pub(crate) fn new(configs: Vec<EndpointConfig>) -> Self {
        let node = |config: EndpointConfig| Node {
            name: config.origin_host.clone(),
            endpoint: Endpoint::new(config),
            listening: true,
            events: Vec::new(),
            answers: Some(ResultCode::SUCCESS),
        };
        Self {
            now: Time::from_secs(1_800_000_000),
            rng: Rng::from_u64(1),
            nodes: configs.into_iter().map(node).collect(),
            links: BTreeMap::new(),
            queue: VecDeque::new(),
            next_link: 0,
            mute: BTreeSet::new(),
            trace: Vec::new(),
        }
    }

    pub(crate) fn started(configs: Vec<EndpointConfig>) -> Self {
        let mut world = Self::new(configs);
        for node in 0..world.nodes.len() {
            world.act(node, |endpoint, ctx| endpoint.on_start(ctx));
        }
        world.settle();
        world
    }

    /// Lets a node do something, and takes its actions and events.
    pub(crate) fn act<R>(&mut self, node: usize, f: impl FnOnce(&mut Endpoint, &mut Ctx<'_>) -> R) -> R {
        let mut actions = Vec::new();
        let mut ctx = Ctx { now: self.now, rng: &mut self.rng, actions: &mut actions };
        let Node { endpoint, answers, .. } = &mut self.nodes[node];
        let out = f(endpoint, &mut ctx);
        let mut events = Vec::new();
        while let Some(event) = endpoint.next_event() {
            match (&event, *answers) {
                (DiameterEvent::Request { token, message }, Some(result)) => {
                    let answer = Uaa { result, server_name: None, capabilities: None }.to_message(message);
                    endpoint.answer(*token, answer, &mut ctx);
                    events.push(event);
                }
                _ => events.push(event),
            }
        }
        self.nodes[node].events.extend(events);
        for action in actions {
            self.perform(node, action);
        }
        out
    }

    fn perform(&mut self, node: usize, action: Action) {
        match action {
            Action::Connect { peer, target } => match self.nodes.iter().position(|n| n.name == target && n.listening) {
                Some(to) => {
                    let link = self.link(node, to);
                    self.queue.push_back((node, Arrival::Up(link, Some(peer))));
                    self.queue.push_back((to, Arrival::Up(link, None)));
                }
                None => self.queue.push_back((node, Arrival::Down(None, Some(peer)))),
            },
            Action::SendDiameter { link, bytes } => {
                assert_eq!(stream::frame_length(&bytes), Ok(Some(bytes.len())));
                let message = Message::parse(bytes.clone()).unwrap();
                self.trace.push((self.now, node, link, message));
                let Some((a, b)) = self.links.get(&link).copied() else {
                    return;
                };
                let to = if a == node { b } else { a };
                if !self.mute.contains(&node) {
                    self.queue.push_back((to, Arrival::Bytes(link, bytes)));
                }
            }
            Action::CloseLink(link) => self.cut(link, Some(node)),
            other => panic!("{other:?}"),
        }
    }

    fn link(&mut self, a: usize, b: usize) -> LinkId {
        self.next_link += 1;
        self.links.insert(LinkId(self.next_link), (a, b));
        LinkId(self.next_link)
    }

    /// Closes a connection; the one who did it is not told.
    fn cut(&mut self, link: LinkId, by: Option<usize>) {
        if let Some((a, b)) = self.links.remove(&link) {
            for node in [a, b] {
                if Some(node) != by {
                    self.queue.push_back((node, Arrival::Down(Some(link), None)));
                }
            }
        }
    }

    /// A connection to `to` made by a test itself.
    pub(crate) fn dial(&mut self, to: usize) -> LinkId {
        let link = self.link(usize::MAX, to);
        self.queue.push_back((to, Arrival::Up(link, None)));
        self.settle();
        link
    }

    pub(crate) fn inject(&mut self, to: usize, link: LinkId, bytes: impl Into<Bytes>) {
        self.queue.push_back((to, Arrival::Bytes(link, bytes.into())));
        self.settle();
    }

    pub(crate) fn is_open(&self, link: LinkId) -> bool {
        self.links.contains_key(&link)
    }

    pub(crate) fn links_between(&self, a: usize, b: usize) -> usize {
        self.links.values().filter(|ends| **ends == (a, b) || **ends == (b, a)).count()
    }

    pub(crate) fn cut_between(&mut self, a: usize, b: usize) {
        let of_both = |(_, ends): &(&LinkId, &(usize, usize))| **ends == (a, b) || **ends == (b, a);
        for link in self.links.iter().filter(of_both).map(|(l, _)| *l).collect::<Vec<_>>() {
            self.cut(link, None);
        }
        self.settle();
    }

    /// Until nothing is under way.
    pub(crate) fn settle(&mut self) {
        let mut steps = 0;
        while let Some((node, arrival)) = self.queue.pop_front() {
            steps += 1;
            assert!(steps < 10_000, "the world does not come to rest");
            if node == usize::MAX {
                continue;
            }
            self.act(node, |endpoint, ctx| match arrival {
                Arrival::Up(link, peer) => endpoint.on_link_up(link, peer, ([127, 0, 0, 1], 1).into(), ctx),
                Arrival::Down(link, peer) => endpoint.on_link_down(link, peer, ctx),
                Arrival::Bytes(link, bytes) => endpoint.on_message(link, bytes, ctx),
            });
        }
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        self.settle();
        let next = |world: &Self| world.nodes.iter().filter_map(|n| n.endpoint.deadline()).min();
        while let Some(due) = next(self).filter(|due| *due <= end) {
            self.now = self.now.max(due);
            for node in 0..self.nodes.len() {
                if self.nodes[node].endpoint.deadline().is_some_and(|at| at <= self.now) {
                    self.act(node, |endpoint, ctx| endpoint.on_timeout(ctx));
                }
            }
            self.settle();
        }
        self.now = end;
    }

    pub(crate) fn ask(&mut self, node: usize, host: Option<&str>) -> RequestId {
        let to = To { realm: "realm".into(), host: host.map(Into::into) };
        self.act(node, |endpoint, ctx| endpoint.send_request(uar(), &to, ctx))
    }

    /// The result of a request, if it has one.
    pub(crate) fn result(&self, node: usize, wanted: RequestId) -> Option<Result<ResultCode, RequestFailure>> {
        self.nodes[node].events.iter().find_map(|event| match event {
            DiameterEvent::Answer { id, message } if *id == wanted => {
                Some(Ok(ResultCode::from_message(message).unwrap()))
            }
            DiameterEvent::Failed { id, cause } if *id == wanted => Some(Err(*cause)),
            _ => None,
        })
    }

    pub(crate) fn state(&self, node: usize, at: usize) -> (String, String) {
        let snapshot = self.nodes[node].endpoint.snapshot();
        let field = |name: &str| snapshot["peers"][at][name].as_str().unwrap_or_default().to_owned();
        (field("state"), field("watchdog"))
    }

    pub(crate) fn assert_up(&self, node: usize) {
        assert_eq!(self.state(node, 0), ("open".into(), "okay".into()), "node {node}");
    }

    pub(crate) fn assert_quiet(&self) {
        for node in &self.nodes {
            assert!(node.endpoint.is_quiet(), "{}", node.endpoint.snapshot());
        }
    }

    pub(crate) fn requests_at(&self, node: usize) -> Vec<&Message> {
        fn request(event: &DiameterEvent) -> Option<&Message> {
            match event {
                DiameterEvent::Request { message, .. } => Some(message),
                _ => None,
            }
        }
        self.nodes[node].events.iter().filter_map(request).collect()
    }

    /// What `node` sent last.
    pub(crate) fn last_from(&self, node: usize) -> &Message {
        &self.trace.iter().rev().find(|(_, from, ..)| *from == node).unwrap().3
    }
}

pub(crate) fn uar() -> Message {
    Uar {
        impi: ims_core::Impi::parse("u@realm").unwrap(),
        impu: ims_core::Impu::parse("sip:u@realm").unwrap(),
        visited_network: None,
        kind: UserAuthorizationType::Registration,
        emergency: false,
    }
    .to_message()
}

pub(crate) fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}
