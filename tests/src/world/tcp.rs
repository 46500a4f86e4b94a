//! SIP over TCP between the nodes of the world.

use super::*;

/// Requests of an end that are remembered.
const REMEMBERED: usize = 1_024;

impl World {
    pub(super) fn send_tcp(&mut self, id: NodeId, flow: Flow, bytes: Bytes, tag: SendTag) {
        let wanted = flow.conn;
        let found = self.conns.iter().find_map(|(conn, c)| {
            let side = c.ends.iter().position(|e| match wanted {
                _ if c.told != [false; 2] => false,
                Some(own) => e.id == own.0 && e.node == id,
                None => {
                    e.node == id && (e.addr == flow.local || flow.local.port() == 0 && e.addr.ip() == flow.local.ip())
                }
            })?;
            (wanted.is_some() || c.ends[1 - side].addr == flow.remote).then_some((*conn, side))
        });
        match (found, wanted) {
            (Some((conn, side)), _) => self.send_on(conn, side, Queued { bytes, tag, flow }),
            (None, Some(_)) => self.fail(id, tag, flow, FlowError::Closed, LOCAL),
            (None, None) => self.open_tcp(id, Queued { bytes, tag, flow }),
        }
    }

    fn open_tcp(&mut self, id: NodeId, first: Queued) {
        let flow = first.flow;
        self.sequence += 1;
        let conn = self.sequence;
        let mut local = flow.local;
        if local.port() == 0 {
            local.set_port(32_768 + u16::try_from(self.rng.below(28_000)).unwrap_or(0));
        } else if self.listeners.get(&local).is_none_or(|l| l.0 != id) {
            return self.fail(id, first.tag, flow, FlowError::NoSocket, LOCAL);
        }
        let Some(&(other, _)) = self.listeners.get(&flow.remote) else {
            return self.fail(id, first.tag, flow, FlowError::Refused, self.gm.latency * 2);
        };
        let end = |node, addr, id| End { node, addr, id, last_arrival: Time::EPOCH };
        let ends = [end(id, local, conn * 2), end(other, flow.remote, conn * 2 + 1)];
        self.conns
            .insert(conn, Conn { ends, open: false, queued: vec![first], told: [false; 2], sent: Default::default() });
        let rtt = self.conditions(id, Some(other)).latency * 2;
        self.after(rtt, Due::Syn { conn });
    }

    /// SYN and its answer have travelled, if they could.
    pub(super) fn on_syn(&mut self, conn: u64) {
        let Some(c) = self.conns.get(&conn) else { return };
        let [a, b] = c.ends;
        let alive = self.hosts[b.node.0].node.is_some() && !self.is_cut(a.node, b.node);
        let there = self.hosts[a.node.0].sas.outward(a.addr, b.addr);
        let back = self.hosts[b.node.0].sas.outward(b.addr, a.addr);
        let way = alive && self.admits(&a, &b, there.as_ref()).is_ok() && self.admits(&b, &a, back.as_ref()).is_ok();
        if !way {
            let Some(c) = self.conns.remove(&conn) else { return };
            self.note(a.node, format!("tcp to {} gets no answer", b.addr));
            *self.lost.entry("tcp: no answer to SYN").or_default() += 1;
            for q in c.queued {
                self.fail(a.node, q.tag, q.flow, FlowError::TimedOut, TCP_PATIENCE);
            }
            return;
        }
        let Some(c) = self.conns.get_mut(&conn) else { return };
        c.open = true;
        for queued in std::mem::take(&mut c.queued) {
            self.send_on(conn, 0, queued);
        }
    }

    /// Whether a packet from one end gets into the host of the other.
    pub(super) fn admits(&self, from: &End, to: &End, esp: Option<&Esp>) -> Result<(), &'static str> {
        let protected = |addr: &SocketAddr| self.listeners.get(addr).is_some_and(|l| l.1);
        match esp {
            Some(esp) => self.hosts[to.node.0].sas.inward(esp, from.addr, to.addr),
            None if protected(&to.addr) || protected(&from.addr) => Err("in clear to a protected port"),
            None => Ok(()),
        }
    }

    fn send_on(&mut self, conn: u64, side: usize, q: Queued) {
        let Some(c) = self.conns.get_mut(&conn) else { return };
        if !c.open {
            return c.queued.push(q);
        }
        if q.tag.0 != 0 && !ims_sip::stream::is_response(&q.bytes) {
            let sent = &mut c.sent[side];
            sent.drain(..(sent.len() + 1).saturating_sub(REMEMBERED));
            sent.push((q.tag, q.flow));
        }
        let (from, to) = (c.ends[side], c.ends[1 - side]);
        let Some((entry, bytes, esp)) = self.outgoing(from.node, "tcp", from.addr, to.addr, q.bytes) else {
            return self.stall(conn);
        };
        let delay = self.conditions(from.node, Some(to.node)).delay(&mut self.rng);
        let Some(c) = self.conns.get_mut(&conn) else { return };
        let arrival = (self.now + delay).max(c.ends[1 - side].last_arrival + Duration::from_micros(1));
        c.ends[1 - side].last_arrival = arrival;
        self.at(arrival, Due::Segment { entry, conn, to: 1 - side, bytes, esp });
    }

    /// Nothing gets through: after a while both ends give the connection up.
    fn stall(&mut self, conn: u64) {
        self.close_conn(conn, None, TCP_PATIENCE);
    }

    /// Its ends hear that a connection is gone, except the one that closed it; what is under way still arrives.
    pub(super) fn close_conn(&mut self, conn: u64, by: Option<NodeId>, delay: Duration) {
        let Some(c) = self.conns.get_mut(&conn) else { return };
        for side in 0..2 {
            c.told[side] |= by == Some(c.ends[side].node);
        }
        let ends = c.ends;
        for (to, end) in ends.iter().enumerate() {
            self.after(delay.max(end.last_arrival.since(self.now)), Due::Fin { conn, to });
        }
    }

    pub(super) fn on_fin(&mut self, conn: u64, to: usize) {
        let Some(c) = self.conns.get_mut(&conn) else { return };
        let (end, told) = (c.ends[to], c.told[to]);
        c.told[to] = true;
        let sent = std::mem::take(&mut c.sent[to]);
        if c.told == [true, true] {
            self.conns.remove(&conn);
        }
        for (tag, flow) in sent {
            self.fail(end.node, tag, flow, FlowError::Closed, Duration::ZERO);
        }
        if !told {
            self.tell(end.node, Event::FlowClosed(ConnId(end.id)));
        }
    }

    /// All connections of a node that carry SIP break at both ends, and what was on its way is lost.
    pub fn reset_connections(&mut self, node: NodeId) {
        let conns: Vec<u64> =
            self.conns.iter().filter(|(_, c)| c.ends.iter().any(|e| e.node == node)).map(|(id, _)| *id).collect();
        for id in conns {
            let Some(conn) = self.conns.remove(&id) else { continue };
            let unsent = conn.queued.into_iter().map(|q| (q.tag, q.flow));
            for (tag, flow) in unsent {
                self.fail(conn.ends[0].node, tag, flow, FlowError::Closed, LOCAL);
            }
            for ((end, sent), told) in conn.ends.into_iter().zip(conn.sent).zip(conn.told) {
                for (tag, flow) in sent {
                    self.fail(end.node, tag, flow, FlowError::Closed, LOCAL);
                }
                if !told {
                    self.after(LOCAL, Due::Tell(end.node, Event::FlowClosed(ConnId(end.id))));
                }
            }
        }
    }

    pub(super) fn on_segment(&mut self, entry: usize, conn: u64, to: usize, bytes: Bytes, esp: Option<Esp>) {
        let Some(ends) = self.conns.get(&conn).map(|c| c.ends) else {
            return;
        };
        let (from, end) = (ends[1 - to], ends[to]);
        if let Err(why) = self.admits(&from, &end, esp.as_ref()) {
            self.lose(entry, why);
            return self.stall(conn);
        }
        self.count_esp(end.node, esp.as_ref(), end.addr, &bytes);
        let flow = Flow { transport: Transport::Tcp, local: end.addr, remote: from.addr, conn: Some(ConnId(end.id)) };
        self.tell(end.node, Event::Sip(Packet { flow, bytes }));
    }
}
