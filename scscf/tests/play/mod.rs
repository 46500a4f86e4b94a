//! The elements around an S-CSCF, played by the test: P-CSCF, I-CSCF and application servers by SIP, the HSS by Cx.

#![allow(dead_code, reason = "each test program uses its part")]

use crate::bench::{Bench, DOMAIN};
use ims_core::{Node, Secret};
use ims_diameter::cx::{AuthItem, Maa, Request, ResultCode, Saa, Sar};
use ims_sip::digest::{Credentials, DigestAlgorithm, DigestInput, response};
use ims_sip::headers::{Contact, RecordRoute, Route, To, Via, WwwAuthenticate};
use ims_sip::{Message, Name};
use scscf::{Config, Scscf};
use std::time::Duration;

pub(crate) const PCSCF: &str = "127.0.0.1:5070";
pub(crate) const ICSCF: &str = "127.0.0.1:4060";
pub(crate) const SCSCF: &str = "sip:scscf.ims.mnc001.mcc001.3gppnetwork.org:6060";
const RES: [u8; 8] = *b"\x01\x02\x03\x04\x05\x06\x07\x08";

pub(crate) struct Play {
    pub(crate) bench: Bench<Scscf>,
    branches: u32,
    /// Servers that were told of a registration.
    pub(crate) told: Vec<String>,
}

/// A profile of one service profile: `sip:USER@domain`, `tel:+1555USER`, and `more` (criteria, other identities).
pub(crate) fn profile(user: &str, more: &str) -> String {
    format!(
        "<IMSSubscription><PrivateID>{user}@{DOMAIN}</PrivateID><ServiceProfile>\
         <PublicIdentity><Identity>sip:{user}@{DOMAIN}</Identity></PublicIdentity>\
         <PublicIdentity><Identity>tel:+1555{user}</Identity></PublicIdentity>{more}</ServiceProfile></IMSSubscription>"
    )
}

/// A request as it comes from the element before the S-CSCF.
#[derive(Clone)]
pub(crate) struct Ask {
    pub(crate) method: &'static str,
    pub(crate) uri: String,
    pub(crate) call: &'static str,
    pub(crate) cseq: u32,
    pub(crate) to_tag: &'static str,
    /// Header lines, each with its line end.
    pub(crate) more: String,
}

/// From the UE of `from` through its P-CSCF, by the Service-Route.
pub(crate) fn from_ue(method: &'static str, from: &str, uri: &str) -> Ask {
    Ask {
        method,
        uri: uri.into(),
        call: "call",
        cseq: 1,
        to_tag: "",
        more: format!(
            "Route: <sip:orig@scscf.{DOMAIN}:6060;lr>\nP-Asserted-Identity: <sip:{from}@{DOMAIN}>\n\
             Record-Route: <sip:dlg@pcscf.{DOMAIN}:5070;lr>\nP-Charging-Vector: icid-value=icid7;orig-ioi=visited\n"
        ),
    }
}

/// From the I-CSCF, to a user served here.
pub(crate) fn to_user(method: &'static str, uri: &str) -> Ask {
    let more =
        format!("Route: <{SCSCF};lr>\nP-Asserted-Identity: <sip:far@{DOMAIN}>\nP-Charging-Vector: icid-value=icid7\n");
    Ask { method, uri: uri.into(), call: "call", cseq: 1, to_tag: "", more }
}

impl Ask {
    pub(crate) fn with(mut self, lines: &str) -> Self {
        self.more.push_str(lines);
        self
    }

    /// Without the header lines of that name, and with these.
    pub(crate) fn replacing(mut self, name: &str, lines: &str) -> Self {
        self.more = self.more.lines().filter(|l| !l.starts_with(name)).map(|l| format!("{l}\n")).collect();
        self.with(lines)
    }

    /// Within a dialog.
    pub(crate) fn tagged(mut self, tag: &'static str) -> Self {
        self.to_tag = tag;
        self
    }

    pub(crate) fn cseq(mut self, cseq: u32) -> Self {
        self.cseq = cseq;
        self
    }

    pub(crate) fn call(mut self, call: &'static str) -> Self {
        self.call = call;
        self
    }

    fn text(&self, remote: &str, branch: u32) -> String {
        let Self { method, uri, call, cseq, to_tag, more } = self;
        let tag = if to_tag.is_empty() { String::new() } else { format!(";tag={to_tag}") };
        let hops = if more.contains("Max-Forwards") { "" } else { "Max-Forwards: 60\n" };
        format!(
            "{method} {uri} SIP/2.0\nVia: SIP/2.0/UDP {remote};branch=z9hG4bK-{branch}\nFrom: <sip:x@{DOMAIN}>;tag=f\n\
             To: <sip:y@{DOMAIN}>{tag}\nCall-ID: {call}\nCSeq: {cseq} {method}\n{hops}\
             Contact: <sip:ue@192.0.2.1:5062>\n{more}Content-Length: 0"
        )
    }
}

pub(crate) fn uris<'a>(message: &'a Message, name: Name) -> Vec<&'a str> {
    match name {
        Name::Route => message.all::<Route<'a>>().unwrap().iter().map(|r| r.uri).collect(),
        Name::RecordRoute => message.all::<RecordRoute<'a>>().unwrap().iter().map(|r| r.uri).collect(),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn lines(message: &Message, name: Name) -> Vec<String> {
    message.raw(name).map(|v| String::from_utf8_lossy(v).trim().to_owned()).collect()
}

impl Play {
    pub(crate) fn new(change: impl FnOnce(&mut Config)) -> Self {
        // Chains of five servers have long messages; TCP is the matter of the transaction layer.
        let mut config = Config { udp_limit: 20_000, ..Config::default() };
        change(&mut config);
        Self { bench: Bench::new(Scscf::new(config).unwrap(), "127.0.0.1:6060", true), branches: 0, told: Vec::new() }
    }

    /// A whole registration of `sip:USER@domain` by the private identity `USER@domain`.
    pub(crate) fn register(&mut self, user: &str, contact: &str, xml: &str) -> Message {
        self.register_as(user, user, contact, "", xml)
    }

    pub(crate) fn register_as(&mut self, impi: &str, user: &str, contact: &str, more: &str, xml: &str) -> Message {
        let impi = format!("{impi}@{DOMAIN}");
        let uri = format!("sip:{DOMAIN}");
        let mut authorization = format!(
            "username=\"{impi}\",realm=\"{DOMAIN}\",nonce=\"\",uri=\"{uri}\",response=\"\",integrity-protected=\"no\""
        );
        for cseq in 1..=2 {
            self.branches += 1;
            let text = format!(
                "REGISTER {SCSCF} SIP/2.0\nVia: SIP/2.0/UDP {PCSCF};branch=z9hG4bK-{}\nFrom: <sip:{user}@{DOMAIN}>;tag=ue\n\
                 To: <sip:{user}@{DOMAIN}>\nCall-ID: reg-{impi}-{user}-{}\nCSeq: {cseq} REGISTER\nContact: {contact}\n\
                 Path: <sip:{user}@pcscf.{DOMAIN}:5070;lr>\nRequire: path\nAuthorization: Digest {authorization}\n\
                 {more}Content-Length: 0",
                self.branches,
                self.branches - cseq,
            );
            self.bench.receive(PCSCF, &text);
            if cseq == 2 {
                break;
            }
            self.bench.hss_answers(|_, message| {
                let aka = AuthItem::Aka {
                    item: 1,
                    rand: [9; 16],
                    autn: [7; 16],
                    xres: RES.to_vec(),
                    ck: Secret::new([0xc1; 16]),
                    ik: Secret::new([0x1c; 16]),
                };
                Maa { result: ResultCode::SUCCESS, impi: None, impu: None, items: vec![aka] }.to_message(message)
            });
            let challenge = self.bench.sent(PCSCF);
            let nonce = challenge.require::<WwwAuthenticate<'_>>().unwrap().get("nonce").unwrap().into_owned();
            let key = Secret::new([0; 16]);
            let input = DigestInput {
                algorithm: DigestAlgorithm::AkaV1Md5,
                username: &impi,
                realm: DOMAIN,
                nonce: &nonce,
                uri: &uri,
                method: "REGISTER",
                qop: Some("auth"),
                nc: Some("00000001"),
                cnonce: Some("c"),
                body: b"",
            };
            let response = response(&input, &Credentials::Aka { res: &RES, ik: &key, ck: &key });
            authorization = format!(
                "username=\"{impi}\",realm=\"{DOMAIN}\",nonce=\"{nonce}\",uri=\"{uri}\",response=\"{response}\",qop=auth,nc=00000001,cnonce=\"c\",integrity-protected=\"yes\""
            );
        }
        self.hss_gives(ResultCode::SUCCESS, Some(xml));
        let ok = self.bench.sent(PCSCF);
        assert_eq!(ok.status(), 200);
        assert!(ok.first::<Contact<'_>>().unwrap().is_some());
        self.servers_agree();
        ok
    }

    /// Servers whose criteria a REGISTER meets are told of it, and have nothing against it.
    fn servers_agree(&mut self) {
        while let Some((at, request)) = self.bench.sent_if(|m| m.is_request() && m.method().as_str() == "REGISTER") {
            self.reply(&at.to_string(), &request, 200);
            self.told.push(at.to_string());
        }
    }

    /// The HSS answers a SAR.
    pub(crate) fn hss_gives(&mut self, result: ResultCode, xml: Option<&str>) -> Sar {
        let user_data = xml.map(|xml| xml.as_bytes().to_vec());
        let asked = self.bench.hss_answers(|_, message| {
            Saa { result, impi: None, user_data, charging: None, associated: vec![] }.to_message(message)
        });
        match asked {
            Request::Sar(sar) => sar,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn ask(&mut self, remote: &str, ask: &Ask) {
        self.branches += 1;
        self.bench.receive(remote, &ask.text(remote, self.branches));
    }

    /// The CANCEL of what was asked last, or its ACK.
    pub(crate) fn again(&mut self, remote: &str, method: &'static str, ask: &Ask) {
        let text = ask.text(remote, self.branches).replacen(ask.method, method, 1);
        let text = text.replace(&format!("CSeq: {} {}", ask.cseq, ask.method), &format!("CSeq: {} {method}", ask.cseq));
        self.bench.receive(remote, &text);
    }

    /// What the S-CSCF sent next: a request, to this address.
    pub(crate) fn request(&mut self, remote: &str, method: &str) -> Message {
        let message = self.bench.sent(remote);
        assert_eq!((message.is_request(), message.method().as_str()), (true, method), "{message:?}");
        message
    }

    /// What the S-CSCF sent next: an answer, to this address.
    pub(crate) fn answer(&mut self, remote: &str, status: u16) -> Message {
        let message = self.bench.sent(remote);
        assert_eq!(message.status(), status, "{message:?}");
        message
    }

    /// Whoever got the request answers it.
    pub(crate) fn reply(&mut self, remote: &str, request: &Message, status: u16) {
        self.reply_with(remote, request, status, |_| {});
    }

    pub(crate) fn reply_with(&mut self, remote: &str, request: &Message, status: u16, more: impl FnOnce(&mut Message)) {
        let tag = format!("t{}", request.first::<Via<'_>>().unwrap().unwrap().branch().unwrap_or_default().len());
        let mut answer = Message::response(request, status, (status > 100).then_some(&*tag));
        answer.copy(Name::RecordRoute, request);
        more(&mut answer);
        self.bench.receive_message(remote, &answer);
    }

    /// An element passes on what it got: own Via on top, own Route off, and what `change` does.
    pub(crate) fn pass_on(&mut self, remote: &str, request: &Message, change: impl FnOnce(&mut Message)) {
        self.branches += 1;
        let mut message = request.clone();
        message.pop_first(Name::Route);
        message.push_front(Name::Via, format!("SIP/2.0/UDP {remote};branch=z9hG4bK-{}", self.branches));
        change(&mut message);
        self.bench.receive_message(remote, &message);
    }

    pub(crate) fn refused(&mut self, remote: &str, status: u16, name: &str) {
        self.answer(remote, status);
        assert_eq!(self.bench.refusals(name), 1, "{name}");
    }

    /// Everything has ended.
    pub(crate) fn is_quiet(&mut self) {
        self.bench.nothing_asked();
        self.bench.nothing_sent();
        self.bench.wait(Duration::from_secs(70));
        self.bench.nothing_sent();
        let snapshot = self.bench.node.snapshot();
        assert!(self.bench.node.is_quiet(), "{snapshot}");
        assert_eq!(snapshot["relay"], 0);
    }
}

pub(crate) fn to_tag(message: &Message) -> String {
    message.require::<To<'_>>().unwrap().tag().unwrap_or_default().to_owned()
}
