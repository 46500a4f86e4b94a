//! A handset that the test plays itself, message by message: for what real phones do and `ue` does not. It owns a SIM, a
//! kernel and its ports; what it says is text that a test may bend as it likes.

use crate::lab::{DOMAIN, Lab, algorithm, impi, imsi};
use crate::world::NodeId;
use base64::Engine as _;
use bytes::Bytes;
use ims_aka::{Challenge, Usim};
use ims_core::sa::{AuthAlg, EncAlg, SaChange, SaKeys, SaSet, SaSide, Suite};
use ims_core::{
    Action, ConnId, Ctx, Event, Flow, Node, Packet, RequestId, SendTag, SipListener, Time, Transport, Wiring,
};
use ims_sip::digest::{Credentials, DigestAlgorithm, DigestInput, response};
use ims_sip::headers::{SecurityServer, WwwAuthenticate};
use ims_sip::{Message, Name};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

const CLEAR_PORT: u16 = 5060;
const SERVER_PORT: u16 = 50_001;
const FIRST_CLIENT_PORT: u16 = 40_001;
const CLIENT_PORTS: u16 = 20;

/// What passes between the test and its node.
#[derive(Default)]
struct Desk {
    outbox: Vec<Action>,
    inbox: VecDeque<(Flow, Message)>,
    closed: Vec<ConnId>,
}

struct Puppet(Rc<RefCell<Desk>>);

impl Node for Puppet {
    fn handle(&mut self, event: Event, ctx: &mut Ctx<'_>) {
        let mut desk = self.0.borrow_mut();
        match event {
            Event::Sip(Packet { flow, bytes }) => match Message::parse(bytes) {
                Ok(message) => desk.inbox.push_back((flow, message)),
                Err(e) => panic!("the network sent what is no SIP: {e}"),
            },
            Event::Sa { result: Err(e), .. } => panic!("the kernel of the phone says: {e}"),
            Event::FlowClosed(conn) => desk.closed.push(conn),
            Event::Command(command) => {
                ctx.actions.append(&mut desk.outbox);
                ctx.act(Action::Reply { id: command.id, result: Ok(Value::Null) });
            }
            _ => {}
        }
    }

    fn deadline(&self) -> Option<Time> {
        None
    }

    fn snapshot(&self) -> Value {
        json!({ "role": "phone" })
    }
}

/// A phone in the hand of a test. The fields are what it writes into its next message.
pub struct Phone {
    pub id: NodeId,
    pub number: usize,
    pub address: IpAddr,
    pub pcscf: SocketAddr,
    pub transport: Transport,
    pub port: u16,
    pub port_uc: u16,
    pub port_us: u16,
    pub spi: u32,
    pub offers: Vec<&'static str>,
    pub call: String,
    pub cseq: u32,
    pub expires: u32,
    /// The set that it uses, and what the network said about it.
    pub set: Option<SaSet>,
    pub verify: String,
    /// Authorization, without the name of the header; empty: there is none.
    pub authorization: String,
    /// What the last challenge gave, to answer a nonce once more.
    answered: Option<Answered>,
    usim: Usim,
    requests: u64,
    desk: Rc<RefCell<Desk>>,
}

struct Answered {
    nonce: String,
    res: Vec<u8>,
    keys: SaKeys,
    count: u32,
}

impl Phone {
    /// With the SIM of this number, which is provisioned, at the address of this number.
    pub fn new(lab: &mut Lab, number: usize) -> Self {
        lab.provision(number, json!({}));
        let address = lab.config.handset(number).address;
        Self::with_sim(lab, number, address)
    }

    /// With a SIM that is provisioned already.
    pub fn with_sim(lab: &mut Lab, number: usize, address: IpAddr) -> Self {
        let desk = Rc::new(RefCell::new(Desk::default()));
        let at = |port| SocketAddr::new(address, port);
        let mut sip = vec![SipListener::open(at(CLEAR_PORT)), SipListener::open(at(CLEAR_PORT + 2))];
        sip.push(SipListener::protected(at(SERVER_PORT)));
        sip.extend((0..CLIENT_PORTS).map(|n| SipListener::protected(at(FIRST_CLIENT_PORT + n))));
        let wiring = Wiring { sip, diameter: Vec::new() };
        let name = format!("phone{}", number + 1);
        let id = lab.world.add_handset(&name, Box::new(Puppet(desk.clone())), wiring);
        Self::in_hand(lab, number, address, id, desk)
    }

    fn in_hand(lab: &Lab, number: usize, address: IpAddr, id: NodeId, desk: Rc<RefCell<Desk>>) -> Self {
        let imsi = imsi(number);
        Self {
            id,
            number,
            address,
            pcscf: lab.config.handset(number).pcscf,
            transport: Transport::Udp,
            port: CLEAR_PORT,
            port_uc: FIRST_CLIENT_PORT,
            port_us: SERVER_PORT,
            spi: 2306,
            offers: vec!["hmac-sha-1-96/aes-cbc"],
            call: format!("call-{imsi}"),
            cseq: 0,
            expires: 600_000,
            set: None,
            verify: String::new(),
            authorization: format!(
                "Digest username=\"{}\",realm=\"{DOMAIN}\",uri=\"sip:{DOMAIN}\",nonce=\"\",response=\"\"",
                impi(number)
            ),
            answered: None,
            usim: Usim::new(algorithm()),
            requests: 0,
            desk,
        }
    }

    /// Another phone behind the same address, with its own SIM and port, without IPsec.
    pub fn neighbour(&self, lab: &mut Lab, number: usize) -> Self {
        lab.provision(number, json!({}));
        let mut other = Self::in_hand(lab, number, self.address, self.id, self.desk.clone());
        other.port = CLEAR_PORT + 2;
        other
    }

    pub fn over(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }

    pub fn host(&self) -> String {
        ims_core::uri::host_of(self.address)
    }

    /// Everything new, as after a reboot, but the SIM.
    pub fn reboot(&mut self, lab: &mut Lab) {
        lab.world.clear_sas(self.id);
        lab.world.close_connections(self.id);
        lab.world.run_for(Duration::from_millis(1));
        self.forget_what_came();
        (self.set, self.answered, self.cseq) = (None, None, 0);
        self.call.push('x');
        let user = impi(self.number);
        self.authorization =
            format!("Digest username=\"{user}\",realm=\"{DOMAIN}\",uri=\"sip:{DOMAIN}\",nonce=\"\",response=\"\"");
    }

    /// New SPIs and client port, as for every REGISTER that may be challenged.
    pub fn renew(&mut self) {
        self.port_uc = FIRST_CLIENT_PORT + (self.port_uc - FIRST_CLIENT_PORT + 1) % CLIENT_PORTS;
        self.spi += 2;
    }

    pub fn security_client(&self) -> String {
        let one = |suite: &&str| {
            let (alg, ealg) = suite.split_once('/').unwrap_or((suite, "null"));
            format!(
                "ipsec-3gpp;alg={alg};ealg={ealg};prot=esp;mod=trans;spi-c={};spi-s={};port-c={};port-s={}",
                self.spi,
                self.spi.wrapping_add(1),
                self.port_uc,
                self.port_us
            )
        };
        self.offers.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    /// The header lines of a security agreement.
    pub fn sec_agree(&self) -> String {
        self.sec_agree_with(&self.security_client())
    }

    pub fn sec_agree_with(&self, client: &str) -> String {
        let agree = "Require: sec-agree\r\nProxy-Require: sec-agree\r\nSupported: path, sec-agree\r\n";
        let verify = match self.set {
            Some(_) => format!("Security-Verify: {}\r\n", self.verify),
            None => String::new(),
        };
        format!("{agree}Security-Client: {client}\r\n{verify}")
    }

    /// A REGISTER; `lines` come on top of what every phone says.
    pub fn register(&mut self, lines: &str) -> String {
        self.cseq += 1;
        let (host, imsi, call, cseq, expires) = (self.host(), imsi(self.number), &self.call, self.cseq, self.expires);
        let port = if self.set.is_some() { self.port_us } else { self.port };
        let authorization = match self.authorization.as_str() {
            "" => String::new(),
            text => format!("Authorization: {text}\r\n"),
        };
        format!(
            "REGISTER sip:{DOMAIN} SIP/2.0\r\nVia: SIP/2.0/{} {host}:{port};branch=z9hG4bK{call}{cseq}\r\nMax-Forwards: 70\r\n\
             From: <sip:{imsi}@{DOMAIN}>;tag=f{call}\r\nTo: <sip:{imsi}@{DOMAIN}>\r\nCall-ID: {call}\r\n\
             CSeq: {cseq} REGISTER\r\nContact: <sip:{imsi}@{host}:{port}>;+sip.instance=\"<urn:gsma:imei:35000000-000000-0>\"\r\n\
             Expires: {expires}\r\n{authorization}{lines}Content-Length: 0\r\n\r\n",
            self.transport.token()
        )
    }

    /// The way out: over the set when there is one.
    pub fn flow(&self) -> Flow {
        let at = |port| SocketAddr::new(self.address, port);
        let (local, remote) = match (&self.set, self.transport) {
            (Some(set), _) => (at(set.port_uc), SocketAddr::new(set.pcscf, set.port_ps)),
            (None, Transport::Udp) => (at(self.port), self.pcscf),
            (None, Transport::Tcp) => (at(0), self.pcscf),
        };
        Flow { transport: self.transport, local, remote, conn: None }
    }

    pub fn send(&mut self, lab: &mut Lab, text: &str) {
        self.send_by(lab, self.flow(), text);
    }

    pub fn send_by(&mut self, lab: &mut Lab, flow: Flow, text: &str) {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        self.act(lab, Action::SendSip { flow, bytes, tag: SendTag(0) });
    }

    fn act(&mut self, lab: &mut Lab, action: Action) {
        self.desk.borrow_mut().outbox.push(action);
        let id = lab.world.command(self.id, "act", Value::Null);
        assert!(lab.world.reply(id).is_some());
    }

    /// The next message from the network.
    ///
    /// # Panics
    /// When none comes within ten minutes.
    pub fn next(&mut self, lab: &mut Lab) -> (Flow, Message) {
        for _ in 0..60_000 {
            let found = self.desk.borrow_mut().inbox.pop_front();
            if let Some(found) = found {
                return found;
            }
            lab.world.run_for(Duration::from_millis(10));
        }
        panic!("the phone waits in vain")
    }

    /// Nothing comes for so long.
    pub fn hears_nothing(&mut self, lab: &mut Lab, seconds: u64) -> bool {
        lab.world.run_for(Duration::from_secs(seconds));
        self.desk.borrow().inbox.is_empty()
    }

    /// What has come and was not read.
    pub fn forget_what_came(&mut self) {
        self.desk.borrow_mut().inbox.clear();
    }

    /// Sends, and gives what comes back.
    pub fn ask(&mut self, lab: &mut Lab, text: &str) -> Message {
        self.send(lab, text);
        self.next(lab).1
    }

    /// Lets the SIM answer a challenge, and takes the security associations that come with it.
    ///
    /// # Panics
    /// When the SIM does not accept it.
    pub fn accept(&mut self, lab: &mut Lab, challenge: &Message) {
        let header: WwwAuthenticate<'_> = challenge.require().expect("WWW-Authenticate");
        let nonce = header.params.get("nonce").expect("a nonce").into_owned();
        let bytes = base64::engine::general_purpose::STANDARD.decode(&nonce).expect("base64");
        let (rand, autn) = (bytes[..16].try_into().expect("RAND"), bytes[16..32].try_into().expect("AUTN"));
        let Challenge::Accepted { res, ck, ik } = self.usim.authenticate(rand, autn) else {
            panic!("the SIM does not accept the challenge")
        };
        let keys = SaKeys { ck, ik };
        let servers: Vec<SecurityServer> = challenge.all().expect("Security-Server");
        if let Some(server) = servers.first() {
            self.verify = challenge.text(Name::SecurityServer).expect("Security-Server").to_owned();
            self.install(lab, server, keys.clone());
        }
        self.answered = Some(Answered { nonce, res, keys, count: 0 });
        self.answer_again();
    }

    /// Authorization with the last nonce and the next nonce count.
    ///
    /// # Panics
    /// Before any challenge.
    pub fn answer_again(&mut self) {
        let user = impi(self.number);
        let answered = self.answered.as_mut().expect("a challenge");
        answered.count += 1;
        let (uri, nc) = (format!("sip:{DOMAIN}"), format!("{:08x}", answered.count));
        let input = DigestInput {
            algorithm: DigestAlgorithm::AkaV1Md5,
            username: &user,
            realm: DOMAIN,
            nonce: &answered.nonce,
            uri: &uri,
            method: "REGISTER",
            qop: Some("auth"),
            nc: Some(&nc),
            cnonce: Some("c0ffee"),
            body: b"",
        };
        let SaKeys { ck, ik } = &answered.keys;
        let proof = response(&input, &Credentials::Aka { res: &answered.res, ik, ck });
        self.authorization = format!(
            "Digest username=\"{user}\",realm=\"{DOMAIN}\",nonce=\"{}\",uri=\"{uri}\",algorithm=AKAv1-MD5,qop=auth,nc={nc},\
             cnonce=\"c0ffee\",response=\"{proof}\"",
            answered.nonce
        );
    }

    fn install(&mut self, lab: &mut Lab, server: &SecurityServer, keys: SaKeys) {
        let s = &server.0;
        let word = |w: &Option<String>, absent: &str| w.clone().unwrap_or_else(|| absent.to_owned());
        let suite = Suite {
            alg: AuthAlg::from_token(&word(&s.alg, "")).expect("alg"),
            ealg: EncAlg::from_token(&word(&s.ealg, "null")).expect("ealg"),
        };
        let set = SaSet {
            ue: self.address,
            pcscf: self.pcscf.ip(),
            spi_uc: self.spi,
            spi_us: self.spi.wrapping_add(1),
            spi_pc: s.spi_c.expect("spi-c"),
            spi_ps: s.spi_s.expect("spi-s"),
            port_uc: self.port_uc,
            port_us: self.port_us,
            port_pc: s.port_c.expect("port-c"),
            port_ps: s.port_s.expect("port-s"),
            suite,
        };
        self.set = Some(set);
        self.requests += 1;
        let expires = lab.world.now + Duration::from_secs(1_000_000);
        let change = SaChange::Install { set, keys, side: SaSide::Ue, expires };
        self.act(lab, Action::Sa { id: RequestId(self.requests), change });
        lab.world.run_for(Duration::from_millis(1));
    }

    /// Sends a first REGISTER with an offer and takes the challenge.
    pub fn get_challenged(&mut self, lab: &mut Lab) -> Message {
        let text = self.register(&self.sec_agree());
        let challenge = self.ask(lab, &text);
        assert_eq!(challenge.status(), 401);
        self.accept(lab, &challenge);
        challenge
    }

    /// A whole registration; gives the 200.
    pub fn attach(&mut self, lab: &mut Lab) -> Message {
        self.get_challenged(lab);
        let text = self.register(&self.sec_agree());
        let ok = self.ask(lab, &text);
        assert_eq!(ok.status(), 200);
        ok
    }

    /// A whole registration without security agreement.
    pub fn attach_in_clear(&mut self, lab: &mut Lab) -> Message {
        let text = self.register("");
        let challenge = self.ask(lab, &text);
        assert_eq!((challenge.status(), challenge.has(Name::SecurityServer)), (401, false));
        self.accept(lab, &challenge);
        let text = self.register("");
        let ok = self.ask(lab, &text);
        assert_eq!(ok.status(), 200);
        ok
    }

    /// Where the network sends, for a message that the phone got: (from, to).
    pub fn ports(flow: Flow) -> (u16, u16) {
        (flow.remote.port(), flow.local.port())
    }
}
