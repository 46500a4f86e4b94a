//! How a phone writes requests and responses that are not of its registration (TS 24.229 5.1.2A), and by which way they leave.

use super::{ACKS, Acked};
use crate::Ue;
use crate::register::Path;
use crate::sa::outward;
use ims_core::uri::{Uri, host_of};
use ims_core::{CommandId, Ctx, Transport};
use ims_sip::dialog::DialogId;
use ims_sip::endpoint::{ClientTx, Destination, Leg, ServerTx};
use ims_sip::headers::{CSeq, From, To};
use ims_sip::{Message, Method, Name};
use std::net::SocketAddr;

/// The service of a call (TS 24.173), as it stands in Contact and Accept-Contact.
const ICSI: &str = "+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.mmtel\"";
const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, PRACK, UPDATE, INFO, OPTIONS, MESSAGE, REFER, NOTIFY";
/// What a handset understands in Require.
pub(super) const KNOWN: [&str; 5] = ["100rel", "timer", "sec-agree", "path", "precondition"];
/// A header that no element knows: it must arrive as it was sent, and so must the body that it is about.
const SEAL: &str = "X-Imsbox-Seal";

/// What a request of ours is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum What {
    Invite,
    Prack,
    /// re-INVITE or UPDATE.
    Change,
    Bye,
    Refer,
    /// For the reg event package.
    Subscribe,
    /// Anything else, in a dialog or not.
    Plain,
}

/// A request of ours that waits for its answer, with what the answer must repeat.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(super) what: What,
    pub(super) call: Option<u32>,
    /// The command that waits for it.
    pub(super) asked: Option<CommandId>,
    pub(super) path: Path,
    pub(super) cseq: u32,
    pub(super) call_id: String,
    pub(super) from_tag: String,
    pub(super) to_tag: Option<String>,
    /// Not an INVITE: it wants no ACK.
    pub(super) is_update: bool,
}

impl Sent {
    pub(super) fn in_call(call: u32, what: What) -> Self {
        Self { call: Some(call), ..Self::outside(what) }
    }

    /// Of no call. What is still empty is known when it leaves.
    pub(crate) fn outside(what: What) -> Self {
        Self {
            what,
            call: None,
            asked: None,
            path: Path::Clear,
            cseq: 0,
            call_id: String::new(),
            from_tag: String::new(),
            to_tag: None,
            is_update: false,
        }
    }
}

impl Ue {
    /// A request outside a dialog: through the P-CSCF by the Service-Route (TS 24.229 5.1.2A.1.1).
    pub(crate) fn fresh_request(&self, method: &str, uri: &str, anonymous: bool, ctx: &mut Ctx<'_>) -> Message {
        let mut m = Message::request(method, uri);
        m.set(Name::MaxForwards, 70);
        m.set(Name::Route, format_args!("<{}>", self.outbound_uri()));
        for route in self.binding.iter().flat_map(|b| &b.service_route) {
            m.push_back(Name::Route, format_args!("<{route}>"));
        }
        let own = self.own_identity();
        let tag = ctx.rng.token(10);
        match anonymous {
            true => m.set(Name::From, format_args!("\"Anonymous\" <sip:anonymous@anonymous.invalid>;tag={tag}")),
            false => m.set(Name::From, format_args!("<{own}>;tag={tag}")),
        }
        m.set(Name::To, format_args!("<{uri}>"));
        m.set(Name::CallId, ctx.rng.token(24));
        m.set(Name::CSeq, format_args!("1 {method}"));
        m.set(Name::PPreferredIdentity, format_args!("<{own}>"));
        if anonymous {
            m.set(Name::Privacy, "id");
        }
        m
    }

    /// The public identity that the handset is called by: the default one of the set (TS 24.229 5.1.1.2.1).
    pub(crate) fn own_identity(&self) -> String {
        let first = self.binding.as_ref().and_then(|b| b.associated.first());
        first.cloned().unwrap_or_else(|| self.identity.impu.to_string())
    }

    /// The P-CSCF as the first route: its protected server port, or the unprotected one (TS 24.229 5.1.2A.1.1).
    fn outbound_uri(&self) -> String {
        let transport = if self.transport() == Transport::Tcp { ";transport=tcp" } else { "" };
        let port = self.sets.established().map_or(self.config.pcscf.port(), |live| live.set.port_ps);
        format!("sip:{}:{port}{transport};lr", host_of(self.config.pcscf.ip()))
    }

    /// Whom a person means: a URI, a number of the whole world, or one that the home network knows.
    pub(super) fn target(&self, to: &str) -> Option<String> {
        if to.contains(':') {
            return Uri::parse(to).is_ok().then(|| to.to_owned());
        }
        let (plus, digits) = (to.starts_with('+'), to.trim_start_matches('+'));
        let number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'*' | b'#'));
        match (number, plus) {
            (false, _) => to.contains('@').then(|| format!("sip:{to}")).filter(|uri| Uri::parse(uri).is_ok()),
            (true, true) => Some(format!("tel:{to}")),
            (true, false) => {
                let home = &self.config.home_domain;
                Some(format!("sip:{to};phone-context={home}@{home};user=phone"))
            }
        }
    }

    pub(super) fn call_contact(&self) -> String {
        let mut contact = format!("<{}>", self.contact_uri(self.sets.established().is_some()));
        if let Some(instance) = &self.config.instance {
            contact.push_str(&format!(";+sip.instance=\"<{instance}>\""));
        }
        contact.push(';');
        contact.push_str(ICSI);
        contact
    }

    /// What says that a request is about a call (TS 24.173, RFC 3841).
    pub(super) fn ask_for_mmtel(&self, m: &mut Message) {
        m.set(Name::PPreferredService, "urn:urn-7:3gpp-service.ims.icsi.mmtel");
        m.set(Name::AcceptContact, format_args!("*;{ICSI}"));
    }

    /// Sends a request as a phone does: with its access network, inside its security associations.
    pub(crate) fn launch(&mut self, mut m: Message, sent: Sent, ctx: &mut Ctx<'_>) -> ClientTx {
        let (path, to) = self.dress(&mut m);
        let from_tag = m.first::<From<'_>>().ok().flatten().and_then(|f| f.tag().map(str::to_owned));
        let sent = Sent {
            path,
            cseq: m.first::<CSeq<'_>>().ok().flatten().map_or(0, |c| c.number),
            call_id: m.text(Name::CallId).unwrap_or_default().to_owned(),
            from_tag: from_tag.unwrap_or_default(),
            to_tag: m.first::<To<'_>>().ok().flatten().and_then(|t| t.tag().map(str::to_owned)),
            is_update: m.method() == Method::Update,
            ..sent
        };
        self.step(ctx.now, || format!("{} to {}", m.method(), m.uri()));
        let tx = self.sip.send_request(m, to, ctx);
        self.calls.sent.insert(tx, sent);
        tx
    }

    /// The ACK to a 2xx; it is kept, for the 2xx may come again (RFC 3261 13.2.2.4).
    pub(super) fn acknowledge(&mut self, ack: Message, id: DialogId, cseq: u32, ctx: &mut Ctx<'_>) {
        self.send_ack(ack.clone(), ctx);
        let until = ctx.now + self.config.t1.0 * 64;
        self.calls.acked.retain(|a| a.until > ctx.now && !(a.id == id && a.cseq == cseq));
        if self.calls.acked.len() == ACKS {
            self.calls.acked.remove(0);
        }
        self.calls.acked.push(Acked { id, cseq, ack, until });
    }

    fn send_ack(&mut self, mut ack: Message, ctx: &mut Ctx<'_>) {
        let (_, to) = self.dress(&mut ack);
        self.sip.send_ack(ack, to, ctx);
    }

    /// A 2xx that was acknowledged already: the ACK is sent again, nothing else happens.
    pub(super) fn on_repeated_2xx(&mut self, message: &Message, ctx: &mut Ctx<'_>) -> bool {
        if message.method() != Method::Invite || !(200..300).contains(&message.status()) {
            return false;
        }
        let (Some(id), Ok(Some(cseq))) = (DialogId::of_response(message), message.first::<CSeq<'_>>()) else {
            return false;
        };
        let known = self.calls.acked.iter().find(|a| a.id == id && a.cseq == cseq.number);
        let Some(ack) = known.map(|a| a.ack.clone()) else { return false };
        self.count("acks-repeated");
        self.send_ack(ack, ctx);
        true
    }

    pub(crate) fn on_stray_2xx(&mut self, message: &Message, ctx: &mut Ctx<'_>) {
        if !self.on_repeated_2xx(message, ctx) {
            self.count("ignored");
        }
    }

    /// What every request of a phone has (RFC 3329 2.3.1, RFC 7315 4.4), and where it goes.
    fn dress(&self, m: &mut Message) -> (Path, Destination) {
        let established = self.sets.established();
        let is_ack = m.method() == Method::Ack;
        if let Some(live) = established {
            m.set(Name::SecurityVerify, &live.verify);
            if !is_ack {
                m.push_back(Name::Require, "sec-agree");
                m.push_back(Name::ProxyRequire, "sec-agree");
            }
        }
        if let Some(access) = self.config.access_network.as_ref().filter(|_| !is_ack) {
            m.set(Name::PAccessNetworkInfo, access);
        }
        m.set(Name::UserAgent, "imsbox-ue");
        self.seal(m);
        let (path, flow, port) = match established {
            Some(live) => (Path::Set(live.set.spi_us), outward(&live.set, self.transport()), self.config.port_us),
            None => (Path::Clear, self.clear_flow(), self.config.port),
        };
        let sent_by = SocketAddr::new(self.config.address, port).to_string();
        (path, Destination::Flow { flow, sent_by, leg: Leg::Ue })
    }

    /// A response with what a phone adds to it.
    pub(crate) fn response(&self, request: &Message, status: u16, tag: Option<&str>) -> Message {
        let mut m = Message::response(request, status, tag);
        if status == 100 {
            return m;
        }
        let method = request.method();
        let about_session = matches!(method, Method::Invite | Method::Update | Method::Options);
        if status < 300 && matches!(method, Method::Invite | Method::Update) {
            m.set(Name::Contact, self.call_contact());
        }
        if (200..300).contains(&status) && about_session || matches!(status, 405 | 501) {
            m.set(Name::Allow, ALLOW);
        }
        if (200..300).contains(&status) && about_session {
            m.set(Name::Supported, "100rel, timer");
        }
        if (200..300).contains(&status) && method == Method::Options {
            m.set(Name::Accept, "application/sdp, text/plain");
        }
        if status == 489 {
            m.set(Name::AllowEvents, "refer");
        }
        if let Some(access) = &self.config.access_network {
            m.set(Name::PAccessNetworkInfo, access);
        }
        m.set(Name::Server, "imsbox-ue");
        m
    }

    pub(crate) fn respond(&mut self, tx: ServerTx, mut response: Message, ctx: &mut Ctx<'_>) {
        self.seal(&mut response);
        self.step(ctx.now, || format!("{} to {}", response.status(), response.method()));
        self.sip.respond(tx, response, ctx);
    }

    fn seal(&self, m: &mut Message) {
        if self.config.seal {
            let value = seal_of(m.body());
            m.set_named(SEAL, value);
        }
    }

    pub(super) fn ask_headers(m: &mut Message) {
        m.set(Name::Allow, ALLOW);
    }
}

/// FNV-1a of the body.
fn seal_of(body: &[u8]) -> String {
    let hash = body
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    format!("{hash:016x}")
}

/// Whether the body is what its sender sealed; a message without a seal is nobody's of ours.
pub(super) fn is_sealed_well(m: &Message) -> bool {
    m.raw_named(SEAL).next().is_none_or(|value| value == seal_of(m.body()).as_bytes())
}
