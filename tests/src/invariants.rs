//! What must hold after every step, whatever the scenario is.

use crate::trace::avp;
use crate::world::NodeId;
use bytes::Bytes;
use ims_aka::{Algorithm, Sqn};
use ims_sip::headers::Via;
use ims_sip::{Message, Name};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A SIP message on its way between two nodes.
pub(crate) struct Hop {
    pub(crate) from: NodeId,
    pub(crate) to: Option<NodeId>,
    pub(crate) from_handset: bool,
    pub(crate) to_handset: bool,
    pub(crate) esp: bool,
    /// The sender has an association towards the receiver's address.
    pub(crate) has_sa: bool,
}

#[derive(Default)]
pub(crate) struct Invariants {
    /// Packets are changed on their way: what was refused unread may be taken when it is repeated.
    pub(crate) garbled: bool,
    /// The final answer given on each hop: sender, receiver, branch and method.
    finals: BTreeMap<(NodeId, Option<NodeId>, String), u16>,
    /// Branches of requests that handsets sent in clear: they may be answered in clear.
    clear_branches: BTreeSet<String>,
    sims: BTreeMap<String, Algorithm>,
    /// The last sequence number handed out per IMPI.
    sqns: BTreeMap<String, Sqn>,
    /// All of them.
    handed_out: BTreeSet<(String, Sqn)>,
    /// Sessions and what they were given: a request repeated with the T bit gets the same answer again.
    given: BTreeSet<(Vec<u8>, Vec<u8>)>,
    /// Sessions of MARs that carry AUTS: the SIM may set the counter back.
    resynchronising: BTreeSet<Vec<u8>>,
}

impl Invariants {
    pub(crate) fn know_sim(&mut self, impi: &str, algorithm: Algorithm) {
        self.sims.insert(impi.to_owned(), algorithm);
    }

    /// Who has lost its memory may answer what is repeated to it in another way.
    pub(crate) fn on_crash(&mut self, node: NodeId) {
        self.finals.retain(|(from, to, _), _| *from != node && *to != Some(node));
    }

    pub(crate) fn on_sip(&mut self, hop: &Hop, bytes: &Bytes) {
        let Ok(message) = Message::parse(bytes.clone()) else {
            assert!(hop.from_handset, "the network sent what is no SIP message");
            return;
        };
        let branch =
            message.first::<Via<'_>>().ok().flatten().and_then(|v| v.params.value("branch").map(str::to_owned));
        let branch = branch.unwrap_or_default();
        if hop.from_handset && !hop.esp && message.is_request() {
            self.clear_branches.insert(branch.clone());
        }
        if !message.is_request() && message.status() >= 200 && !self.garbled {
            let key = (hop.from, hop.to, format!("{branch} {}", message.method()));
            let status = *self.finals.entry(key).or_insert(message.status());
            assert_eq!(status, message.status(), "two different final answers to one request");
        }
        if hop.to_handset {
            self.towards_handset(hop, &message, &branch);
        }
    }

    fn towards_handset(&self, hop: &Hop, message: &Message, branch: &str) {
        for name in [Name::WwwAuthenticate, Name::ProxyAuthenticate, Name::AuthenticationInfo] {
            for value in message.raw(name) {
                let text = String::from_utf8_lossy(value).to_ascii_lowercase();
                let leak = text.split([',', ' ']).any(|p| p.starts_with("ck=") || p.starts_with("ik="));
                assert!(!leak, "ck or ik towards a handset");
            }
        }
        let answer_in_kind = !message.is_request() && (self.garbled || self.clear_branches.contains(branch));
        assert!(hop.esp || !hop.has_sa || answer_in_kind, "in clear to a handset that has security associations");
    }

    pub(crate) fn on_diameter(&mut self, bytes: &[u8]) {
        let command = bytes.get(5..8).map_or(0, |c| u32::from_be_bytes([0, c[0], c[1], c[2]]));
        let request = bytes.get(4).is_some_and(|flags| flags & 0x80 != 0);
        let avps = bytes.get(20..).unwrap_or_default();
        if command != 303 {
            return;
        }
        let session = avp(avps, 263).unwrap_or_default().to_vec();
        let item = avp(avps, 612).unwrap_or_default();
        if request {
            if avp(item, 610).is_some() {
                self.resynchronising.insert(session);
            }
            return;
        }
        let impi = String::from_utf8_lossy(avp(avps, 1).unwrap_or_default()).into_owned();
        let (Some(algorithm), Some(token)) = (self.sims.get(&impi), avp(item, 609)) else {
            return;
        };
        let (Some(rand), Some(autn)) = (token.first_chunk::<16>(), token.get(16..).and_then(|t| t.first_chunk::<16>()))
        else {
            panic!("SIP-Authenticate has {} bytes", token.len());
        };
        if !self.given.insert((session.clone(), token.to_vec())) {
            return;
        }
        let mut sqn = [0; 6];
        sqn.copy_from_slice(&autn[..6]);
        sqn.iter_mut().zip(algorithm.f2345(rand).ak).for_each(|(byte, ak)| *byte ^= ak);
        let sqn = Sqn::from_bytes(sqn);
        assert!(self.handed_out.insert((impi.clone(), sqn)), "{sqn:?} was handed out before");
        let before = self.sqns.insert(impi, sqn);
        let resync = self.resynchronising.remove(&session);
        if let Some(before) = before.filter(|_| !resync) {
            assert!(sqn.seq() > before.seq(), "a sequence number that is not higher: {sqn:?} after {before:?}");
        }
    }
}

/// Whether a snapshot shows nothing that waits: no pending request, no transaction.
pub(crate) fn quiet(snapshot: &Value) -> bool {
    let count = |v: &Value| match v {
        Value::Number(n) => n.as_u64().unwrap_or(0),
        Value::Array(list) => list.len() as u64,
        Value::Object(map) => map.values().filter_map(Value::as_u64).sum(),
        _ => 0,
    };
    let own = count(&snapshot["waiting"]) + count(&snapshot["forwarded"]) + count(&snapshot["relay"]);
    let sip = count(&snapshot["sip"]["transactions"]);
    let diameter = count(&snapshot["diameter"]["in_flight"]) + count(&snapshot["diameter"]["serving"]);
    own + sip + diameter == 0
}
