//! Diameter connections between the nodes of the world.

use super::*;

impl World {
    pub(super) fn send_diameter(&mut self, id: NodeId, link: LinkId, bytes: Bytes) {
        let number = link.0 / 2;
        let Some(l) = self.links.get_mut(&number) else { return };
        let to = 1 - l.side(link.0);
        let arrival = (self.now + self.core.latency).max(l.ends[to].last_arrival + Duration::from_micros(1));
        l.ends[to].last_arrival = arrival;
        let other = l.ends[to].node;
        self.invariants.on_diameter(&bytes);
        let what = What::Diameter(bytes.clone());
        self.trace.push(Entry { at: self.now, from: id, to: Some(other), what, lost: None });
        self.at(arrival, Due::LinkData { link: number, to, bytes });
    }

    pub(super) fn on_link_open(&mut self, from: NodeId, peer: PeerId, target: Option<SocketAddr>) {
        let other = target.and_then(|t| self.diameter.get(&t).copied());
        let open = other.filter(|o| self.hosts[o.0].node.is_some() && !self.is_cut(from, *o));
        let (Some(other), Some(target)) = (open, target) else {
            return self.tell(from, Event::LinkDown { link: None, peer: Some(peer) });
        };
        self.sequence += 1;
        let number = self.sequence;
        let port = 32_768 + u16::try_from(self.rng.below(28_000)).unwrap_or(0);
        let source = SocketAddr::new(target.ip(), port);
        let end = |node, addr, id| End { node, addr, id, last_arrival: Time::EPOCH };
        let ends = [end(from, source, number * 2), end(other, target, number * 2 + 1)];
        self.links.insert(number, Link { ends, peer, told: [false; 2] });
        self.tell(from, Event::LinkUp { link: LinkId(number * 2), peer: Some(peer), remote: target });
        self.tell(other, Event::LinkUp { link: LinkId(number * 2 + 1), peer: None, remote: source });
    }

    pub(super) fn on_link_fin(&mut self, link: u64, to: usize) {
        let Some(l) = self.links.get_mut(&link) else { return };
        let (end, told) = (l.ends[to], l.told[to]);
        l.told[to] = true;
        // The end that opened it knows it by its place in its list of peers.
        let peer = (to == 0).then_some(l.peer);
        if l.told == [true, true] {
            self.links.remove(&link);
        }
        if !told {
            self.tell(end.node, Event::LinkDown { link: Some(LinkId(end.id)), peer });
        }
    }
}
