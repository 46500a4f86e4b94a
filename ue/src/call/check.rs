//! What a strict phone finds wrong with messages that are not of its registration. A fault is counted and told; the call goes on.

use super::send::{Sent, is_sealed_well};
use crate::Ue;
use crate::error::Fault;
use crate::register::{Path, same_contact};
use ims_core::uri::Uri;
use ims_core::{Flow, Transport};
use ims_sip::headers::{CSeq, Contact, From, PCalledPartyId, Privacy, RecordRoute, To, Via};
use ims_sip::{Message, Method, Name};

/// What is for the network only, and what is of one hop (TS 24.229 4.4, 5.2.6.4, RFC 3329 2.3.1).
const NOT_FOR_A_HANDSET: [Name; 11] = [
    Name::PChargingVector,
    Name::PChargingFunctionAddresses,
    Name::PServedUser,
    Name::PProfileKey,
    Name::PUserDatabase,
    Name::PVisitedNetworkId,
    Name::PAccessNetworkInfo,
    Name::PPreferredIdentity,
    Name::SecurityClient,
    Name::SecurityServer,
    Name::SecurityVerify,
];

impl Ue {
    /// A request of the network. `is_initial`: in no dialog.
    pub(super) fn check_request(&mut self, m: &Message, is_initial: bool) {
        self.check_any(m);
        let own = self.contact_uri(self.sets.established().is_some());
        if m.method() != Method::Cancel && !same_contact(m.uri(), &own) {
            self.note(&Fault::NotOurContact(m.uri().to_owned()));
        }
        if m.has(Name::Route) {
            self.note(&Fault::RouteLeft);
        }
        if let Ok(Some(via)) = m.first::<Via<'_>>()
            && !self.is_protected_place(via.host, via.port)
        {
            self.note(&Fault::ViaNotProtected(format!("{}:{}", via.host, via.port.unwrap_or(5060))));
        }
        if is_initial {
            self.check_called_party(m);
        }
        if is_initial && matches!(m.method(), Method::Invite | Method::Subscribe | Method::Refer) {
            // The P-CSCF is the last that records itself on the way to us.
            match m.first::<RecordRoute<'_>>() {
                Ok(Some(route)) => self.check_record_route(route.uri),
                _ => self.note(&Fault::NoRecordRoute),
            }
        }
    }

    /// TS 24.229 5.4.3.3: what was called stands in P-Called-Party-ID, for the Request-URI is our Contact.
    fn check_called_party(&mut self, m: &Message) {
        let Ok(Some(called)) = m.first::<PCalledPartyId<'_>>() else {
            return self.note(&Fault::NoCalledParty);
        };
        let identity = |uri: &str| Uri::parse(uri).ok().and_then(|uri| uri.canonical_identity());
        let called_identity = identity(called.uri);
        let associated = self.binding.as_ref().map_or(&[] as &[String], |b| b.associated.as_slice());
        if !associated.is_empty() && !associated.iter().any(|own| identity(own) == called_identity) {
            self.note(&Fault::WrongCalledParty(called.uri.to_owned()));
        }
    }

    fn check_record_route(&mut self, uri: &str) {
        let place = Uri::parse(uri).ok();
        if !place.is_some_and(|uri| self.is_protected_place(uri.host(), uri.port())) {
            self.note(&Fault::RecordRouteNotProtected(uri.to_owned()));
        }
    }

    /// Whether this names the protected server port of the P-CSCF, when there are associations (TS 24.229 5.2.6.3, 5.2.6.4).
    fn is_protected_place(&self, host: &str, port: Option<u16>) -> bool {
        if self.sets.established().is_none() {
            return true;
        }
        let right = |pcscf, port_ps| {
            port == Some(port_ps) && ims_core::uri::parse_ip(host).is_none_or(|address| address == pcscf)
        };
        self.sets.list.iter().any(|live| right(live.set.pcscf, live.set.port_ps))
    }

    /// A response to a request of ours.
    pub(super) fn check_response(&mut self, sent: &Sent, m: &Message, flow: &Flow) {
        self.check_any(m);
        self.check_way_back(sent, flow);
        let from = m.first::<From<'_>>().ok().flatten().and_then(|f| f.tag().map(str::to_owned));
        let cseq = m.first::<CSeq<'_>>().ok().flatten().map(|c| c.number);
        let same = from.as_deref() == Some(sent.from_tag.as_str()) && m.text(Name::CallId) == Some(&sent.call_id);
        if !same || cseq != Some(sent.cseq) {
            self.note(&Fault::OtherRequest);
        }
        if m.has(Name::Via) {
            self.note(&Fault::ViaLeft);
        }
        let tag = m.first::<To<'_>>().ok().flatten().and_then(|t| t.tag().map(str::to_owned));
        match (&sent.to_tag, tag) {
            (_, None) if m.status() > 100 => self.note(&Fault::NoToTag),
            (Some(before), Some(now)) if *before != now => self.note(&Fault::ToTagChanged),
            _ => {}
        }
        let makes_dialog = m.method() == Method::Invite && sent.to_tag.is_none() && (101..300).contains(&m.status());
        if makes_dialog {
            self.check_dialog_made(m);
        }
    }

    fn check_dialog_made(&mut self, m: &Message) {
        // The P-CSCF was the first that recorded itself on our way out. A phone needs a way back from who rings, too.
        match m.all::<RecordRoute<'_>>().unwrap_or_default().last().map(|route| route.uri.to_owned()) {
            Some(uri) => self.check_record_route(&uri),
            None => self.note(&Fault::NoRecordRoute),
        }
        let contact = m.first::<Contact<'_>>().ok().flatten();
        if m.status() >= 200 && contact.is_none_or(|c| c.addr().is_none()) {
            self.note(&Fault::NoContact);
        }
    }

    /// TS 33.203 7.1: an answer comes by the associations that its request went by, as long as they are.
    fn check_way_back(&mut self, sent: &Sent, flow: &Flow) {
        let right = match sent.path {
            Path::Set(spi_us) => {
                let by = self.sets.of_flow(flow).map(|s| s.set.spi_us);
                by == Some(spi_us) || by.is_some() && self.sets.find(spi_us).is_none()
            }
            Path::Clear => flow.transport == Transport::Tcp || flow.local.port() == self.config.port,
        };
        if !right {
            self.note(&Fault::OutsideSa);
        }
    }

    fn check_any(&mut self, m: &Message) {
        for name in NOT_FOR_A_HANDSET {
            if m.has(name) {
                self.note(&Fault::HeaderLeaked(name.as_str()));
            }
        }
        for name in [Name::Require, Name::ProxyRequire] {
            if m.is_request() && m.has_token(name, "sec-agree") {
                self.note(&Fault::HeaderLeaked("sec-agree"));
            }
        }
        let private = m.first::<Privacy<'_>>().ok().flatten().is_some_and(|p| p.has("id"));
        if private && m.has(Name::PAssertedIdentity) {
            self.note(&Fault::IdentityDespitePrivacy);
        }
        if !is_sealed_well(m) {
            self.note(&Fault::BodyAltered);
        }
    }
}
