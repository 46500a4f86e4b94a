//! Sessions that UEs here take part in: what an INVITE began, with all the dialogs that it made (a forked one makes several).
//!
//! A request within a dialog finds its UE by the token in our Record-Route, without anything of this. What is kept here is what
//! no message of a dialog says: its ICID, the transport of its UE, and all that it takes to end it for both sides when the UE is
//! gone (TS 24.229 5.2.8.1). After a restart sessions go on without.

use crate::charging::Icid;
use crate::contacts::RegId;
use crate::routes;
use ims_core::{ConnId, FewSet, Flow, Time, Transport};
use ims_sip::endpoint::ServerTx;
use ims_sip::headers::{CSeq, Contact, From, SessionExpires, To};
use ims_sip::{Message, Method, Name};
use serde_json::{Value, json};
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Dialogs of one INVITE that are remembered: what forks further is routed all the same.
const MOST_DIALOGS: usize = 8;
/// Beyond what was negotiated, a session may be silent for so long (RFC 4028 10: the refresh may be under way).
const SLACK: Duration = Duration::from_secs(64);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct LegId(u64);

/// Who sent a request: the UE, or somebody in the core for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    FromUe,
    ToUe,
}

/// How a UE is reached in a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Line {
    pub(crate) transport: Transport,
    /// The connection that the INVITE came by, as long as it is open.
    pub(crate) over: Option<Flow>,
}

impl Line {
    pub(crate) fn of(invite: Flow) -> Self {
        Self { transport: invite.transport, over: invite.conn.is_some().then_some(invite) }
    }

    fn conn(&self) -> Option<ConnId> {
        self.over?.conn
    }
}

/// The part of one UE in a session.
#[derive(Debug)]
pub(crate) struct Leg {
    pub(crate) registration: RegId,
    /// Who began it.
    pub(crate) way: Way,
    pub(crate) call_id: Box<str>,
    /// From of the INVITE, with its tag.
    caller: Box<str>,
    pub(crate) icid: Icid,
    /// Of the first message between the UE and us: what we send keeps to it.
    pub(crate) line: Line,
    /// The INVITE, until it has its final answer.
    pub(crate) invite: Option<ServerTx>,
    /// Boxed: while it rings there is often none.
    pub(crate) dialogs: SmallVec<[Box<Dialog>; 1]>,
    /// When it is forgotten.
    pub(crate) until: Time,
}

/// One dialog, as both ends see it.
#[derive(Debug)]
pub(crate) struct Dialog {
    /// To of the answers, with its tag.
    callee: Box<str>,
    pub(crate) is_confirmed: bool,
    ue: End,
    core: End,
    /// From us to the other end.
    pub(crate) route: Box<[Box<str>]>,
}

#[derive(Debug, Default)]
struct End {
    /// URI of the Contact.
    target: Box<str>,
    /// Of the last request that came from there.
    cseq: u32,
}

/// What it takes to send a request within a dialog.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) way: Way,
    pub(crate) message: Message,
}

/// What names a dialog in a request of one side.
pub(crate) struct Names<'m> {
    call_id: &'m str,
    from_tag: &'m str,
    to_tag: Option<&'m str>,
}

impl<'m> Names<'m> {
    pub(crate) fn of(message: &'m Message) -> Option<Self> {
        let from: From<'m> = message.first().ok()??;
        let to: To<'m> = message.first().ok()??;
        let call_id = message.text(Name::CallId)?.trim();
        Some(Self { call_id, from_tag: from.0.tag().unwrap_or_default(), to_tag: to.0.tag() })
    }

    pub(crate) fn is_in_dialog(&self) -> bool {
        self.to_tag.is_some()
    }

    pub(crate) fn call_id(&self) -> &'m str {
        self.call_id
    }

    /// Tag of the UE.
    pub(crate) fn ue_tag(&self, way: Way) -> &'m str {
        match way {
            Way::FromUe => self.from_tag,
            Way::ToUe => self.to_tag.unwrap_or_default(),
        }
    }
}

fn tag_of(party: &str) -> &str {
    ims_sip::headers::NameAddr::parse(party).ok().and_then(|addr| addr.tag()).unwrap_or_default()
}

impl Leg {
    /// The one of its dialogs that a request of this side belongs to; `None` for the leg when it is no request of it at all.
    fn position(&self, way: Way, names: &Names<'_>) -> Option<Option<usize>> {
        let of_caller = way == self.way;
        let (caller, callee) = match of_caller {
            true => (names.from_tag, names.to_tag),
            false => (names.to_tag.unwrap_or_default(), Some(names.from_tag)),
        };
        if self.call_id.as_ref() != names.call_id || tag_of(&self.caller) != caller {
            return None;
        }
        let callee = callee?;
        Some(self.dialogs.iter().position(|d| tag_of(&d.callee) == callee))
    }

    pub(crate) fn dialog(&self, way: Way, names: &Names<'_>) -> Option<&Dialog> {
        self.dialogs.get(self.position(way, names)??).map(|d| &**d)
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.dialogs.iter().any(|d| d.is_confirmed)
    }

    /// BYE for both ends of a dialog that was answered, as if each came from the other (TS 24.229 5.2.8.1.2).
    pub(crate) fn endings(&self, reason: &str) -> Vec<Ending> {
        let confirmed = self.dialogs.iter().filter(|d| d.is_confirmed);
        confirmed.flat_map(|d| [self.bye(d, Way::FromUe, reason), self.bye(d, Way::ToUe, reason)]).collect()
    }

    fn bye(&self, dialog: &Dialog, way: Way, reason: &str) -> Ending {
        let (sender, target) = match way {
            Way::FromUe => (&dialog.ue, &dialog.core.target),
            Way::ToUe => (&dialog.core, &dialog.ue.target),
        };
        let (from, to) = match way == self.way {
            true => (&self.caller, &dialog.callee),
            false => (&dialog.callee, &self.caller),
        };
        let mut bye = Message::request("BYE", target);
        bye.set(Name::MaxForwards, 70);
        if way == Way::FromUe {
            routes::set_route(&mut bye, &dialog.route);
        }
        bye.set(Name::From, from);
        bye.set(Name::To, to);
        bye.set(Name::CallId, &self.call_id);
        bye.set(Name::CSeq, format_args!("{} BYE", sender.cseq.saturating_add(1)));
        bye.set(Name::Reason, reason);
        bye.set(Name::ContentLength, 0);
        Ending { way, message: bye }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Dialogs {
    legs: BTreeMap<LegId, Box<Leg>>,
    by_registration: BTreeMap<RegId, FewSet<LegId>>,
    by_conn: BTreeMap<ConnId, FewSet<LegId>>,
    /// Tokens of registrations that gave way to a later one of their UE, whose sessions went on with it.
    inherited: BTreeMap<Arc<str>, RegId>,
    /// Registrations whose last session has ended.
    idle: Vec<RegId>,
    next_id: u64,
    begun: u64,
    answered: u64,
    /// Requests to the emergency services, and those of handsets that are not registered.
    pub(crate) emergencies: u64,
    pub(crate) guests: u64,
}

impl Dialogs {
    /// An INVITE that begins a session.
    pub(crate) fn begin(
        &mut self,
        registration: RegId,
        way: Way,
        invite: &Message,
        icid: Icid,
        line: Line,
        (tx, until): (ServerTx, Time),
    ) -> LegId {
        self.next_id += 1;
        self.begun += 1;
        let id = LegId(self.next_id);
        let leg = Leg {
            registration,
            way,
            call_id: invite.text(Name::CallId).unwrap_or_default().trim().into(),
            caller: invite.text(Name::From).unwrap_or_default().trim().into(),
            icid,
            line,
            invite: Some(tx),
            dialogs: SmallVec::new(),
            until,
        };
        self.on(line, id);
        self.legs.insert(id, Box::new(leg));
        self.by_registration.entry(registration).or_default().insert(id);
        id
    }

    /// The session that a request of this UE, or for it, belongs to.
    pub(crate) fn find(&self, registration: RegId, way: Way, names: &Names<'_>) -> Option<LegId> {
        let of_registration = self.by_registration.get(&registration)?;
        let belongs = |id: &&LegId| self.legs.get(*id).is_some_and(|leg| leg.position(way, names).is_some());
        of_registration.iter().find(belongs).copied()
    }

    pub(crate) fn get(&self, id: LegId) -> Option<&Leg> {
        self.legs.get(&id).map(|leg| &**leg)
    }

    pub(crate) fn get_mut(&mut self, id: LegId) -> Option<&mut Leg> {
        self.legs.get_mut(&id).map(|leg| &mut **leg)
    }

    pub(crate) fn of(&self, registration: RegId) -> Vec<LegId> {
        self.by_registration.get(&registration).into_iter().flatten().copied().collect()
    }

    pub(crate) fn remove(&mut self, id: LegId) -> Option<Box<Leg>> {
        let leg = self.legs.remove(&id)?;
        self.off(leg.line, id);
        if let Some(ids) = self.by_registration.get_mut(&leg.registration) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_registration.remove(&leg.registration);
                self.idle.push(leg.registration);
                self.inherited.retain(|_, by| *by != leg.registration);
            }
        }
        Some(leg)
    }

    /// The UE sent something within a session: on another connection than before, perhaps.
    pub(crate) fn heard(&mut self, id: LegId, from: Flow) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        if leg.line.transport != Transport::Tcp || from.conn.is_none() || leg.line.conn() == from.conn {
            return;
        }
        let old = std::mem::replace(&mut leg.line, Line::of(from));
        self.off(old, id);
        self.on(Line::of(from), id);
    }

    fn on(&mut self, line: Line, id: LegId) {
        if let Some(conn) = line.conn() {
            self.by_conn.entry(conn).or_default().insert(id);
        }
    }

    fn off(&mut self, line: Line, id: LegId) {
        if let Some(conn) = line.conn()
            && let Some(ids) = self.by_conn.get_mut(&conn)
        {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_conn.remove(&conn);
            }
        }
    }

    /// What went over this connection has to open another.
    pub(crate) fn closed(&mut self, gone: ConnId) {
        for id in &self.by_conn.remove(&gone).unwrap_or_default() {
            if let Some(leg) = self.legs.get_mut(id) {
                leg.line.over = None;
            }
        }
    }

    /// The UE has registered anew, at the same address: its sessions go on.
    pub(crate) fn inherit(&mut self, old: RegId, token: &Arc<str>, new: RegId) {
        let Some(legs) = self.by_registration.remove(&old) else { return };
        for id in &legs {
            if let Some(leg) = self.legs.get_mut(id) {
                leg.registration = new;
            }
        }
        self.inherited.values_mut().filter(|by| **by == old).for_each(|by| *by = new);
        self.inherited.insert(token.clone(), new);
        let all = self.by_registration.entry(new).or_default();
        for id in legs.iter().copied() {
            all.insert(id);
        }
    }

    pub(crate) fn heir(&self, token: &str) -> Option<RegId> {
        self.inherited.get(token).copied()
    }

    /// A provisional answer or a 2xx to the INVITE of a leg.
    pub(crate) fn on_answer(&mut self, id: LegId, invite: &Message, response: &Message, now: Time, most: Duration) {
        let is_final = response.status() >= 200;
        let to = response.first::<To<'_>>().ok().flatten();
        let Some(tag) = to.as_ref().and_then(|to| to.0.tag()) else {
            // A 2xx without a tag makes no dialog.
            return if is_final {
                self.on_refused(id)
            };
        };
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let at = leg.dialogs.iter().position(|d| tag_of(&d.callee) == tag);
        let at = match at {
            Some(at) => at,
            None if leg.dialogs.len() < MOST_DIALOGS || is_final => {
                leg.dialogs.push(Box::new(dialog(leg.way, invite, response)));
                leg.dialogs.len() - 1
            }
            None => return,
        };
        let was_answered = leg.is_answered();
        let Some(dialog) = leg.dialogs.get_mut(at) else { return };
        let answerer = match leg.way {
            Way::FromUe => &mut dialog.core,
            Way::ToUe => &mut dialog.ue,
        };
        retarget(answerer, response);
        if is_final {
            dialog.is_confirmed = true;
            leg.invite = None;
            // The other branches were cancelled; a 2xx that crosses comes back in.
            leg.dialogs.retain(|d| d.is_confirmed);
            leg.until = now + interval(response).unwrap_or(most).min(most);
            self.answered += u64::from(!was_answered);
        }
    }

    /// The INVITE ended without a dialog.
    pub(crate) fn on_refused(&mut self, id: LegId) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        leg.invite = None;
        leg.dialogs.retain(|d| d.is_confirmed);
        if leg.dialogs.is_empty() {
            self.remove(id);
        }
    }

    /// A request within a dialog: its CSeq counts for the next.
    pub(crate) fn on_request(&mut self, id: LegId, way: Way, message: &Message) {
        let Ok(Some(cseq)) = message.first::<CSeq<'_>>() else { return };
        if message.method() == Method::Ack {
            return;
        }
        if let Some(dialog) = self.dialog_mut(id, way, message) {
            let sender = match way {
                Way::FromUe => &mut dialog.ue,
                Way::ToUe => &mut dialog.core,
            };
            sender.cseq = sender.cseq.max(cseq.number);
        }
    }

    /// A request within a dialog has its final answer: BYE ends it, a target refresh moves its ends and its expiry.
    pub(crate) fn on_final(
        &mut self,
        id: LegId,
        way: Way,
        request: &Message,
        response: &Message,
        (now, most): (Time, Duration),
    ) {
        let (Some(names), Some(leg)) = (Names::of(request), self.legs.get_mut(&id)) else { return };
        let Some(at) = leg.position(way, &names).flatten() else { return };
        let (status, method) = (response.status(), request.method());
        // 481 to a re-INVITE ends it too (RFC 5057 5.1).
        if method == Method::Bye || status == 481 && method == Method::Invite {
            leg.dialogs.remove(at);
            if leg.dialogs.is_empty() && leg.invite.is_none() {
                self.remove(id);
            }
            return;
        }
        if !matches!(method, Method::Invite | Method::Update) || !(200..300).contains(&status) {
            return;
        }
        let Some(dialog) = leg.dialogs.get_mut(at) else { return };
        if let Some(interval) = interval(response).filter(|_| dialog.is_confirmed) {
            leg.until = now + interval.min(most);
        }
        let (sender, answerer) = match way {
            Way::FromUe => (&mut dialog.ue, &mut dialog.core),
            Way::ToUe => (&mut dialog.core, &mut dialog.ue),
        };
        retarget(sender, request);
        retarget(answerer, response);
    }

    fn dialog_mut(&mut self, id: LegId, way: Way, message: &Message) -> Option<&mut Dialog> {
        let leg = self.legs.get_mut(&id)?;
        let at = leg.position(way, &Names::of(message)?)??;
        leg.dialogs.get_mut(at).map(|d| &mut **d)
    }

    pub(crate) fn take_idle(&mut self) -> Vec<RegId> {
        std::mem::take(&mut self.idle)
    }

    pub(crate) fn len(&self) -> usize {
        self.legs.len()
    }

    pub(crate) fn by_state(&self) -> [(&'static str, usize); 2] {
        let answered = self.legs.values().filter(|leg| leg.is_answered()).count();
        [("ringing", self.legs.len() - answered), ("answered", answered)]
    }

    pub(crate) fn describe(&self) -> Value {
        let [(_, ringing), (_, answered)] = self.by_state();
        let dialogs: usize = self.legs.values().map(|leg| leg.dialogs.len()).sum();
        json!({
            "ringing": ringing, "answered": answered, "dialogs": dialogs,
            "begun_total": self.begun, "answered_total": self.answered,
            "emergency_total": self.emergencies, "unregistered_total": self.guests,
        })
    }
}

fn dialog(way: Way, invite: &Message, response: &Message) -> Dialog {
    let recorded = routes::recorded(response);
    let mut caller = End { cseq: cseq(invite), ..End::default() };
    retarget(&mut caller, invite);
    let (ue, core, route) = match way {
        // We are the first proxy: our entry is the last one, and the rest is the way to the callee, read backwards.
        Way::FromUe => (caller, End::default(), recorded.iter().rev().skip(1).cloned().collect()),
        // We are the last one: our entry is the first.
        Way::ToUe => (End::default(), caller, recorded.into_iter().skip(1).collect()),
    };
    let callee = response.text(Name::To).unwrap_or_default().trim().into();
    Dialog { callee, is_confirmed: false, ue, core, route }
}

fn cseq(message: &Message) -> u32 {
    message.first::<CSeq<'_>>().ok().flatten().map_or(0, |cseq| cseq.number)
}

fn retarget(end: &mut End, message: &Message) {
    let contact = message.first::<Contact<'_>>().ok().flatten();
    if let Some(addr) = contact.as_ref().and_then(Contact::addr)
        && *end.target != *addr.uri
    {
        end.target = addr.uri.into();
    }
}

fn interval(response: &Message) -> Option<Duration> {
    let expires = response.first::<SessionExpires<'_>>().ok().flatten()?;
    Some(Duration::from_secs(expires.seconds.into()) + SLACK)
}
