//! A user who registers: the requests as the I-CSCF passes them on, and what the HSS says to them.

#![allow(dead_code, reason = "each test program uses its part")]

use crate::bench::{Bench, DOMAIN};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ims_core::Secret;
use ims_diameter::Message as Cx;
use ims_diameter::cx::{AuthItem, ChargingInformation, Maa, Request, ResultCode, Saa, ServerAssignmentType};
use ims_sip::Message;
use ims_sip::digest::{Credentials, DigestAlgorithm, DigestInput, response};
use ims_sip::headers::WwwAuthenticate;
use scscf::{Config, Scscf};

pub(crate) const PCSCF: &str = "127.0.0.1:5070";
pub(crate) const IMPI: &str = "001010000000001@ims.mnc001.mcc001.3gppnetwork.org";
pub(crate) const RES: [u8; 8] = *b"\x01\x02\x03\x04\x05\x06\x07\x08";
pub(crate) const CONTACT: &str = "<sip:001010000000001@192.0.2.5:5062>;+sip.instance=\"<urn:gsma:imei:35-1-0>\"";

pub(crate) fn up(change: impl FnOnce(&mut Config)) -> Bench<Scscf> {
    let mut config = Config::default();
    change(&mut config);
    Bench::new(Scscf::new(config).unwrap(), "127.0.0.1:6060", true)
}

/// A REGISTER as the I-CSCF passes it on.
pub(crate) struct Register {
    pub(crate) cseq: u32,
    pub(crate) call_id: &'static str,
    pub(crate) contact: String,
    pub(crate) expires: u32,
    pub(crate) authorization: String,
    pub(crate) more: &'static str,
}

pub(crate) fn register(cseq: u32) -> Register {
    let authorization = format!(
        "username=\"{IMPI}\",realm=\"{DOMAIN}\",nonce=\"\",uri=\"sip:{DOMAIN}\",response=\"\",integrity-protected=\"no\""
    );
    Register { cseq, call_id: "call-1", contact: CONTACT.into(), expires: 600_000, authorization, more: "" }
}

impl Register {
    pub(crate) fn text(&self) -> String {
        let Self { cseq, call_id, contact, expires, authorization, more } = self;
        let contact = if contact.is_empty() { String::new() } else { format!("Contact: {contact}\n") };
        format!(
            "REGISTER sip:scscf.{DOMAIN}:6060 SIP/2.0
            Via: SIP/2.0/UDP 127.0.0.1:5070;branch=z9hG4bK-{call_id}-{cseq}-{expires}
            From: <sip:001010000000001@{DOMAIN}>;tag=ue
            To: <sip:001010000000001@{DOMAIN}>
            Call-ID: {call_id}
            CSeq: {cseq} REGISTER
            Max-Forwards: 68
            {contact}Expires: {expires}
            Path: <sip:token@pcscf.{DOMAIN}:5070;lr>
            Require: path
            Supported: path
            P-Visited-Network-ID: \"{DOMAIN}\"
            P-Charging-Vector: icid-value=\"ic\";icid-generated-at=pcscf.{DOMAIN};orig-ioi=visited
            Authorization: Digest {authorization}
            {more}Content-Length: 0"
        )
    }

    /// Over the security association, without an answer to a challenge.
    pub(crate) fn protected(mut self) -> Self {
        self.authorization = self.authorization.replace("\"no\"", "\"yes\"");
        self
    }

    /// The answer to a challenge by a UE whose RES this is.
    pub(crate) fn answering(mut self, challenge: &Message, res: &[u8], qop: &str) -> Self {
        let nonce = challenge.require::<WwwAuthenticate<'_>>().unwrap().get("nonce").unwrap().into_owned();
        let uri = format!("sip:{DOMAIN}");
        let key = Secret::new([0; 16]);
        let input = DigestInput {
            algorithm: DigestAlgorithm::AkaV1Md5,
            username: IMPI,
            realm: DOMAIN,
            nonce: &nonce,
            uri: &uri,
            method: "REGISTER",
            qop: Some(qop),
            nc: Some("00000001"),
            cnonce: Some("c"),
            body: b"",
        };
        let response = response(&input, &Credentials::Aka { res, ik: &key, ck: &key });
        self.authorization = format!(
            "username=\"{IMPI}\",realm=\"{DOMAIN}\",nonce=\"{nonce}\",uri=\"{uri}\",response=\"{response}\",qop={qop},nc=00000001,cnonce=\"c\",algorithm=AKAv1-MD5,integrity-protected=\"yes\""
        );
        self
    }

    /// What a UE answers that rejects the challenge: nothing, or AUTS.
    pub(crate) fn rejecting(mut self, challenge: &Message, auts: Option<&[u8; 14]>) -> Self {
        let nonce = challenge.require::<WwwAuthenticate<'_>>().unwrap().get("nonce").unwrap().into_owned();
        let auts = auts.map(|a| format!(",auts=\"{}\"", STANDARD.encode(a))).unwrap_or_default();
        self.authorization = format!(
            "username=\"{IMPI}\",realm=\"{DOMAIN}\",nonce=\"{nonce}\",uri=\"sip:{DOMAIN}\",response=\"\"{auts},integrity-protected=\"no\""
        );
        self
    }
}

pub(crate) fn vector(rand: u8) -> impl FnOnce(&Request, &Cx) -> Cx {
    move |request, message| {
        assert!(matches!(request, Request::Mar(_)), "{request:?}");
        let aka = AuthItem::Aka {
            item: 1,
            rand: [rand; 16],
            autn: [7; 16],
            xres: RES.to_vec(),
            ck: Secret::new([0xc1; 16]),
            ik: Secret::new([0x1c; 16]),
        };
        Maa { result: ResultCode::SUCCESS, impi: None, impu: None, items: vec![aka] }.to_message(message)
    }
}

pub(crate) fn profile(extra: &str) -> String {
    format!(
        "<IMSSubscription><PrivateID>{IMPI}</PrivateID><ServiceProfile>\
         <PublicIdentity><BarringIndication>1</BarringIndication><Identity>sip:001010000000001@{DOMAIN}</Identity></PublicIdentity>\
         <PublicIdentity><Identity>sip:+15550001@{DOMAIN}</Identity></PublicIdentity>\
         <PublicIdentity><Identity>tel:+15550001</Identity></PublicIdentity>{extra}</ServiceProfile></IMSSubscription>"
    )
}

pub(crate) fn saa(result: ResultCode, xml: Option<String>) -> impl FnOnce(&Request, &Cx) -> Cx {
    let charging = ChargingInformation { primary_ccf: Some("aaa://ccf.example:3868".into()), ..Default::default() };
    move |_, message| {
        let user_data = xml.map(String::into_bytes);
        Saa { result, impi: None, user_data, charging: Some(charging), associated: vec![] }.to_message(message)
    }
}

pub(crate) fn ok_saa() -> impl FnOnce(&Request, &Cx) -> Cx {
    saa(ResultCode::SUCCESS, Some(profile("")))
}

pub(crate) fn kind_of(request: &Request) -> ServerAssignmentType {
    match request {
        Request::Sar(sar) => sar.kind,
        other => panic!("{other:?}"),
    }
}

/// Up to the 401.
pub(crate) fn challenged(bench: &mut Bench<Scscf>, request: &Register) -> Message {
    bench.receive(PCSCF, &request.text());
    bench.hss_answers(vector(request.cseq as u8));
    let challenge = bench.sent(PCSCF);
    assert_eq!(challenge.status(), 401);
    challenge
}

/// A whole registration; gives the 200.
pub(crate) fn registered(bench: &mut Bench<Scscf>) -> Message {
    let challenge = challenged(bench, &register(1));
    bench.receive(PCSCF, &register(2).answering(&challenge, &RES, "auth").text());
    assert_eq!(kind_of(&bench.hss_answers(ok_saa())), ServerAssignmentType::Registration);
    let ok = bench.sent(PCSCF);
    assert_eq!(ok.status(), 200);
    ok
}
