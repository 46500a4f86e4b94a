//! A P-CSCF on the bench: handmade messages in, actions out. This side plays the UE, the core and the kernel.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use bytes::Bytes;
use ims_core::sa::{SaAudit, SaChange, SaError, SaSet, SaUsage};
use ims_core::{
    Action, ConnId, Ctx, Event, Flow, FlowError, Kept, Node, Packet, RequestId, Rng, SendTag, Time, Transport,
};
use ims_sip::{Message, Name};
use pcscf::{Config, Pcscf};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub const DOMAIN: &str = "ims.mnc001.mcc001.3gppnetwork.org";
pub const CK: &str = "00112233445566778899aabbccddeeff";
pub const IK: &str = "ffeeddccbbaa99887766554433221100";

/// What one event brought about.
#[derive(Debug, Default)]
pub struct Out {
    /// In the order of the actions: towards the core, towards UEs, to the kernel.
    pub core: Vec<Message>,
    pub ue: Vec<(Flow, Message)>,
    pub sa: Vec<(RequestId, SaChange)>,
    pub closed: Vec<ConnId>,
    /// Keys of what was kept and forgotten, before anything was sent.
    pub put: Vec<String>,
    pub deleted: Vec<String>,
}

impl Out {
    /// The one thing, and nothing else, that went to the core.
    pub fn forwarded(mut self) -> Message {
        assert_eq!((self.core.len(), self.ue.len(), self.sa.len()), (1, 0, 0), "{self:#?}");
        self.core.remove(0)
    }

    pub fn answered(mut self) -> (Flow, Message) {
        assert_eq!((self.core.len(), self.ue.len()), (0, 1), "{self:#?}");
        self.ue.remove(0)
    }

    pub fn install(&self) -> (RequestId, SaSet) {
        let mut sets = self.sa.iter().filter_map(|(id, change)| match change {
            SaChange::Install { set, .. } => Some((*id, *set)),
            _ => None,
        });
        let found = sets.next().expect("an Install");
        assert!(sets.next().is_none(), "one Install only");
        found
    }

    pub fn removed(&self) -> Vec<SaSet> {
        let removed = |change: &SaChange| match change {
            SaChange::Remove { set } => Some(*set),
            _ => None,
        };
        self.sa.iter().filter_map(|(_, c)| removed(c)).collect()
    }

    pub fn extended(&self) -> Vec<(SaSet, Time)> {
        let extended = |change: &SaChange| match change {
            SaChange::Extend { set, expires } => Some((*set, *expires)),
            _ => None,
        };
        self.sa.iter().filter_map(|(_, c)| extended(c)).collect()
    }

    pub fn is_silent(&self) -> bool {
        self.core.is_empty() && self.ue.is_empty() && self.sa.is_empty() && self.closed.is_empty()
    }
}

pub struct Bench {
    pub node: Pcscf,
    pub now: Time,
    rng: Rng,
    mw: SocketAddr,
    pub config: Config,
    /// Contacts that the S-CSCF has besides the one that it accepts.
    pub others: Vec<String>,
    /// What the node keeps.
    pub kept: BTreeMap<String, Bytes>,
    /// What the kernel was asked to hold, with the packets that came by each set; an audit answers from it.
    pub holds: Vec<(SaSet, u64)>,
    /// What an audit says besides.
    pub audited: Option<Result<SaAudit, SaError>>,
    /// The sets that were adopted last.
    pub adopted: Vec<SaSet>,
    /// What left for a UE last.
    last: Option<(SendTag, Flow)>,
}

impl Bench {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.gm.addresses = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        change(&mut config);
        let mw = config.mw.listen;
        Self {
            node: Pcscf::new(config.clone()).unwrap(),
            now: Time::from_secs(1_000_000),
            rng: Rng::from_u64(7),
            mw,
            config,
            others: Vec::new(),
            kept: BTreeMap::new(),
            holds: Vec::new(),
            audited: None,
            adopted: Vec::new(),
            last: None,
        }
    }

    /// Another process takes over: what was kept comes back, what the kernel holds is there.
    pub fn restart(&mut self) -> Out {
        self.node = Pcscf::new(self.config.clone()).unwrap();
        let kept: Vec<Kept> = self.kept.iter().map(|(k, v)| Kept { key: k.clone(), value: v.clone() }).collect();
        for portion in kept.chunks(2) {
            let out = self.handle(Event::Restored(portion.to_vec()));
            assert!(out.is_silent(), "{out:?}");
        }
        self.handle(Event::Start)
    }

    fn audit(&mut self, adopt: Vec<SaSet>) -> Result<SaAudit, SaError> {
        self.adopted = adopt;
        if let Some(said) = self.audited.take() {
            return said;
        }
        let expires = self.now + Duration::from_secs(1_000_000);
        let usage = |(set, packets): &(SaSet, u64)| {
            set.legs().map(|leg| {
                let (dst, spi, packets) = (leg.dst.ip(), leg.spi, *packets);
                SaUsage { dst, spi, bytes: packets * 100, packets, last_use: None, expires }
            })
        };
        Ok(SaAudit { sas: self.holds.iter().flat_map(usage).collect(), strays: 0, repaired: 0 })
    }

    fn keep(&mut self, out: &mut Out, action: Action) {
        let sent = !out.core.is_empty() || !out.ue.is_empty();
        assert!(!sent, "written after it was said");
        match action {
            Action::Put(Kept { key, value }) => {
                let text: String = value.iter().map(|b| format!("{b:02x}")).collect();
                assert!(!text.contains(CK) && !text.contains(IK), "a key is kept");
                assert_ne!(self.kept.insert(key.clone(), value.clone()), Some(value), "written without a change");
                out.put.push(key);
            }
            Action::Delete { key } => {
                assert!(self.kept.remove(&key).is_some(), "{key} was not kept");
                out.deleted.push(key);
            }
            other => panic!("unexpected {other:?}"),
        }
    }

    pub fn handle(&mut self, event: Event) -> Out {
        let mut actions = Vec::new();
        self.node.handle(event, &mut Ctx { now: self.now, rng: &mut self.rng, actions: &mut actions });
        let mut out = Out::default();
        for action in actions {
            match action {
                Action::SendSip { flow, bytes, .. } if flow.local == self.mw => {
                    out.core.push(Message::parse(bytes).unwrap());
                }
                Action::SendSip { flow, bytes, tag } => {
                    self.last = Some((tag, flow));
                    let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
                    assert!(!text.contains(CK) && !text.contains(IK), "a key towards the UE: {text}");
                    assert!(!text.contains("p-charging"), "charging towards the UE: {text}");
                    out.ue.push((flow, Message::parse(bytes).unwrap()));
                }
                Action::Sa { id, change } => {
                    match &change {
                        SaChange::Install { set, .. } => self.holds.push((*set, 0)),
                        SaChange::Remove { set } => self.holds.retain(|(held, _)| held != set),
                        SaChange::Extend { .. } => {}
                    }
                    out.sa.push((id, change));
                }
                Action::SaAudit { id, adopt, .. } => {
                    let result = self.audit(adopt);
                    let more = self.handle(Event::SaAudited { id, result });
                    assert!(more.core.is_empty() && more.ue.is_empty(), "an audit tells nobody: {more:?}");
                    out.sa.extend(more.sa);
                    out.deleted.extend(more.deleted);
                }
                action @ (Action::Put(_) | Action::Delete { .. }) => self.keep(&mut out, action),
                Action::CloseFlow(conn) => out.closed.push(conn),
                other => panic!("unexpected {other:?}"),
            }
        }
        out
    }

    /// What was sent to a UE last did not leave.
    pub fn fail_last(&mut self, error: FlowError) -> Out {
        let (tag, flow) = self.last.expect("something was sent to a UE");
        self.handle(Event::SipFailed { tag, flow, error })
    }

    pub fn packet(&mut self, flow: Flow, text: &str) -> Out {
        self.handle(Event::Sip(Packet { flow, bytes: Bytes::copy_from_slice(text.as_bytes()) }))
    }

    /// The core answers `request`.
    pub fn answer(&mut self, request: &Message, status: u16, lines: &[(&str, &str)]) -> Out {
        let mut answer = Message::response(request, status, Some("core"));
        for (name, value) in lines {
            answer.push_named(name, value);
        }
        let flow = Flow::udp(self.mw, "127.0.0.1:4060".parse().unwrap());
        self.handle(Event::Sip(Packet { flow, bytes: answer.to_bytes() }))
    }

    pub fn challenge(&mut self, request: &Message, nonce: &str) -> Out {
        let value = format!(
            "Digest realm=\"{DOMAIN}\",nonce=\"{nonce}\",algorithm=AKAv1-MD5,qop=\"auth\",ck=\"{CK}\",ik=\"{IK}\""
        );
        self.answer(
            request,
            401,
            &[
                ("WWW-Authenticate", &value),
                ("P-Charging-Vector", "icid-value=x"),
                ("P-Charging-Function-Addresses", "ccf=a"),
            ],
        )
    }

    /// 200 with what a registrar adds; `expires` for the contact of the request.
    pub fn accept(&mut self, request: &Message, expires: u32) -> Out {
        let path = request.text(Name::Path).unwrap().to_owned();
        let contact = request.text(Name::Contact).unwrap().split(";expires").next().unwrap().to_owned();
        let contact = format!("{contact};expires={expires}");
        let mut lines = vec![
            ("Path", path.as_str()),
            ("Service-Route", "<sip:orig@scscf.ims.example:6060;lr>"),
            ("Service-Route", "<sip:second.example;lr>"),
            ("P-Associated-URI", "<sip:001010000000001@ims.mnc001.mcc001.3gppnetwork.org>, <tel:+4930123456>"),
            ("P-Charging-Vector", "icid-value=x"),
        ];
        let others = self.others.clone();
        lines.extend(others.iter().map(|other| ("Contact", other.as_str())));
        if expires > 0 {
            lines.push(("Contact", &contact));
        }
        self.answer(request, 200, &lines)
    }

    pub fn kernel(&mut self, id: RequestId, result: Result<(), SaError>) -> Out {
        self.handle(Event::Sa { id, result })
    }

    /// Says yes to everything that was asked in `out`, which brings nothing more.
    pub fn kernel_agrees(&mut self, out: &Out) {
        for (id, _) in &out.sa {
            assert!(self.kernel(*id, Ok(())).is_silent());
        }
    }

    /// Lets time pass, deadline by deadline; what the kernel is asked meanwhile it does.
    pub fn pass(&mut self, seconds: u64) -> Out {
        self.pass_ms(seconds * 1000)
    }

    pub fn pass_ms(&mut self, ms: u64) -> Out {
        let end = self.now + Duration::from_millis(ms);
        let mut all = Out::default();
        while let Some(at) = self.node.deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            let out = self.handle(Event::Timeout);
            self.kernel_agrees(&out);
            all.core.extend(out.core);
            all.ue.extend(out.ue);
            all.sa.extend(out.sa);
        }
        self.now = end;
        all
    }

    pub fn refused(&self, name: &str) -> u64 {
        self.node.snapshot()["refusals"][name].as_u64().unwrap_or(0)
    }

    pub fn registrations(&self) -> Vec<serde_json::Value> {
        self.node.snapshot()["registrations"].as_array().unwrap().clone()
    }

    /// Nothing is left of anybody, and nothing is waited for.
    pub fn assert_empty(&mut self) {
        self.pass(400);
        let s = self.node.snapshot();
        assert_eq!(
            (&s["registered"], &s["authenticating"], &s["sa_sets"], &s["forwarded"]),
            (&0.into(), &0.into(), &0.into(), &0.into()),
            "{s:#}"
        );
        assert_eq!(s["waiting"].as_array().unwrap().len(), 0);
        let open = s["sip"]["transactions"].as_object().unwrap();
        assert!(open.values().all(|n| n == &serde_json::Value::from(0)), "{open:?}");
        assert_eq!(self.node.deadline(), None);
    }
}

/// A handset, as far as a P-CSCF sees it.
#[derive(Clone, Debug)]
pub struct Handset {
    pub imsi: String,
    pub ip: IpAddr,
    pub pcscf: IpAddr,
    pub transport: Transport,
    pub port: u16,
    pub uc: u16,
    pub us: u16,
    pub spi: u32,
    pub call: String,
    pub cseq: u32,
    /// The set that it uses.
    pub set: Option<SaSet>,
    pub conn: ConnId,
    pub suites: Vec<&'static str>,
    pub nonce: String,
    /// In Contact, such as ";reg-id=1".
    pub reg_id: &'static str,
    /// In the URI of Contact, such as ";sos".
    pub contact_params: &'static str,
}

impl Handset {
    pub fn new(v6: bool, transport: Transport) -> Self {
        let ip = |v4: &str, six: &str| if v6 { six.parse().unwrap() } else { v4.parse().unwrap() };
        Self {
            imsi: "001010000000001".into(),
            ip: ip("198.51.100.7", "2001:db8:7::7"),
            pcscf: ip("192.0.2.1", "2001:db8::1"),
            transport,
            port: 5060,
            uc: 40_001,
            us: 50_001,
            spi: 7000,
            call: "call-1".into(),
            cseq: 0,
            set: None,
            conn: ConnId(1),
            suites: vec!["hmac-md5-96/des-ede3-cbc", "hmac-sha-1-96/null", "hmac-sha-1-96/aes-cbc"],
            nonce: String::new(),
            reg_id: "",
            contact_params: "",
        }
    }

    pub fn udp4() -> Self {
        Self::new(false, Transport::Udp)
    }

    pub fn clear_flow(&self) -> Flow {
        self.flow(SocketAddr::new(self.pcscf, 5060), self.port)
    }

    fn flow(&self, local: SocketAddr, port: u16) -> Flow {
        let conn = (self.transport == Transport::Tcp).then_some(self.conn);
        Flow { transport: self.transport, local, remote: SocketAddr::new(self.ip, port), conn }
    }

    pub fn flow_of(&self, set: &SaSet) -> Flow {
        self.flow(SocketAddr::new(self.pcscf, set.port_ps), set.port_uc)
    }

    /// Where answers to a request over `set` have to leave.
    pub fn answers_of(&self, set: &SaSet) -> Flow {
        match self.transport {
            Transport::Tcp => self.flow_of(set),
            Transport::Udp => {
                Flow::udp(SocketAddr::new(self.pcscf, set.port_pc), SocketAddr::new(self.ip, set.port_us))
            }
        }
    }

    /// New SPIs and client port, as for every REGISTER that may be challenged.
    pub fn renew(&mut self) {
        self.uc += 2;
        self.spi += 10;
    }

    pub fn security_client(&self) -> String {
        let one = |suite: &&str| {
            let (alg, ealg) = suite.split_once('/').unwrap();
            format!(
                "ipsec-3gpp;alg={alg};ealg={ealg};spi-c={};spi-s={};port-c={};port-s={}",
                self.spi,
                self.spi + 1,
                self.uc,
                self.us
            )
        };
        self.suites.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    pub fn security_verify(set: &SaSet) -> String {
        format!(
            "ipsec-3gpp;alg={};ealg={};mod=trans;port-c={};port-s={};prot=esp;q=0.1;spi-c={};spi-s={}",
            set.suite.alg.token(),
            set.suite.ealg.token(),
            set.port_pc,
            set.port_ps,
            set.spi_pc,
            set.spi_ps
        )
    }

    fn host(&self) -> String {
        ims_core::uri::host_of(self.ip)
    }

    /// A REGISTER; `lines` come on top of what every handset says.
    pub fn register(&mut self, expires: u32, lines: &str) -> String {
        self.cseq += 1;
        let (imsi, host, call, cseq, nonce) = (&self.imsi, self.host(), &self.call, self.cseq, &self.nonce);
        let (reg_id, params) = (self.reg_id, self.contact_params);
        let port = self.set.map_or(self.port, |s| s.port_us);
        let response = if nonce.is_empty() { "" } else { "0123456789abcdef0123456789abcdef" };
        format!(
            "REGISTER sip:{DOMAIN} SIP/2.0\r\nVia: SIP/2.0/{} {host}:{port};branch=z9hG4bK{call}{cseq}\r\nMax-Forwards: 70\r\n\
             From: <sip:{imsi}@{DOMAIN}>;tag=f\r\nTo: <sip:{imsi}@{DOMAIN}>\r\nCall-ID: {call}\r\nCSeq: {cseq} REGISTER\r\n\
             Contact: <sip:{imsi}@{host}:{port}{params}>;+sip.instance=\"<urn:gsma:imei:35000000-000000-0>\"{reg_id};expires={expires}\r\n\
             Authorization: Digest username=\"{imsi}@{DOMAIN}\",realm=\"{DOMAIN}\",uri=\"sip:{DOMAIN}\",nonce=\"{nonce}\",\
             response=\"{response}\",integrity-protected=\"yes\"\r\n{lines}Content-Length: 0\r\n\r\n",
            self.transport.token()
        )
    }

    pub fn sec_agree(&self) -> String {
        let agree = "Require: sec-agree\r\nProxy-Require: sec-agree\r\nSupported: path, sec-agree\r\n";
        let verify = self.set.map(|s| format!("Security-Verify: {}\r\n", Self::security_verify(&s)));
        format!("{agree}Security-Client: {}\r\n{}", self.security_client(), verify.unwrap_or_default())
    }

    /// The first REGISTER, in clear.
    pub fn hello(&mut self, bench: &mut Bench) -> Out {
        (self.set, self.nonce) = (None, String::new());
        let text = self.register(600_000, &self.sec_agree());
        bench.packet(self.clear_flow(), &text)
    }

    /// A REGISTER over the set that it uses.
    pub fn protected(&mut self, bench: &mut Bench, expires: u32) -> Out {
        let text = self.register(expires, &self.sec_agree());
        let flow = self.flow_of(&self.set.expect("a set"));
        bench.packet(flow, &text)
    }

    /// Up to the 401: the set that was installed and proposed.
    pub fn get_challenged(&mut self, bench: &mut Bench) -> SaSet {
        let request = self.hello(bench).forwarded();
        let asked = bench.challenge(&request, "bm9uY2U=");
        let (id, set) = asked.install();
        let (flow, answer) = bench.kernel(id, Ok(())).answered();
        assert_eq!((answer.status(), flow.remote), (401, self.clear_flow().remote));
        set
    }

    /// All of an initial registration.
    pub fn attach(&mut self, bench: &mut Bench, granted: u32) -> SaSet {
        let set = self.get_challenged(bench);
        self.set = Some(set);
        self.nonce = "bm9uY2U=".into();
        let request = self.protected(bench, 600_000).forwarded();
        let out = bench.accept(&request, granted);
        bench.kernel_agrees(&out);
        let (flow, ok) = out.answered();
        assert_eq!((ok.status(), flow), (200, self.answers_of(&set)));
        set
    }
}

pub fn four_ways() -> [Handset; 4] {
    [(false, Transport::Udp), (false, Transport::Tcp), (true, Transport::Udp), (true, Transport::Tcp)]
        .map(|(v6, transport)| Handset::new(v6, transport))
}
