//! Sessions through a P-CSCF, message by message (TS 24.229 5.2.6).

#[path = "../common/mod.rs"]
mod common;
mod dialog;
mod end;
mod originating;
mod terminating;

use common::{Bench, DOMAIN, Handset, Out, four_ways};
use ims_core::{ConnId, Event, Flow, Node, Packet, Transport};
use ims_sip::headers::{PAssertedIdentity, Route};
use ims_sip::{Message, Name};
use pcscf::Config;
use pcscf::config::{Policy, RoutePolicy};

const SCSCF: &str = "<sip:orig@scscf.ims.example:6060;lr>";
const ROUTES: &str =
    "Route: <sip:192.0.2.1:6100;lr>, <sip:orig@scscf.ims.example:6060;lr>, <sip:second.example;lr>\r\n";
const CORE: &str = "127.0.0.1:6060";

fn mw() -> Flow {
    Flow::udp("127.0.0.1:5070".parse().unwrap(), CORE.parse().unwrap())
}

/// Where next hops without a name of their own are.
fn with_hops(config: &mut Config) {
    for host in ["scscf.ims.example:6060", "second.example", "scscf.ims.example"] {
        config.next_hops.insert(host.into(), vec![format!("udp:{CORE}")]);
    }
}

fn bench() -> Bench {
    Bench::with(with_hops)
}

/// A handset that is attached, and calls.
struct Caller {
    ue: Handset,
    branch: u32,
    cseq: u32,
    call: String,
}

impl Caller {
    fn attached(bench: &mut Bench, mut ue: Handset) -> Self {
        ue.attach(bench, 3600);
        Self { ue, branch: 0, cseq: 0, call: "session-1".into() }
    }

    fn flow(&self) -> Flow {
        self.ue.flow_of(&self.ue.set.unwrap())
    }

    fn own(&self) -> String {
        let set = self.ue.set.unwrap();
        format!("{}:{}", ims_core::uri::host_of(set.ue), set.port_us)
    }

    /// A request that begins something.
    fn request(&mut self, method: &str, lines: &str) -> String {
        self.message(method, "tel:+4930999", "<tel:+4930999>", lines)
    }

    fn message(&mut self, method: &str, uri: &str, to: &str, lines: &str) -> String {
        self.branch += 1;
        if !matches!(method, "ACK" | "CANCEL") {
            self.cseq += 1;
        }
        let (own, call, cseq, branch) = (self.own(), &self.call, self.cseq, self.branch);
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/{} {own};branch=z9hG4bKs{branch}\r\nMax-Forwards: 70\r\n{lines}\
             From: <sip:a@{DOMAIN}>;tag=ue\r\nTo: {to}\r\nCall-ID: {call}\r\nCSeq: {cseq} {method}\r\n\
             Contact: <sip:a@{own}>\r\nX-Unknown:  kept ;as=it is\r\nContent-Length: 0\r\n\r\n",
            self.ue.transport.token()
        )
    }

    fn send(&mut self, bench: &mut Bench, method: &str, lines: &str) -> Out {
        let text = self.request(method, lines);
        bench.packet(self.flow(), &text)
    }

    /// A request within the dialog that `answer` made, with the route set that a UAC has from it.
    fn within(&mut self, bench: &mut Bench, method: &str, answer: &Message, lines: &str) -> Out {
        let text = self.text_within(method, answer, lines);
        bench.packet(self.flow(), &text)
    }

    fn text_within(&mut self, method: &str, answer: &Message, lines: &str) -> String {
        let recorded = answer.tokens(Name::RecordRoute);
        let routes: String = recorded.iter().rev().map(|r| format!("Route: {r}\r\n")).collect();
        let contact = answer.text(Name::Contact).unwrap().trim_matches(['<', '>']).to_owned();
        let to = answer.text(Name::To).unwrap().to_owned();
        self.message(method, &contact, &to, &format!("{routes}{lines}"))
    }
}

/// What a callee says, with the Record-Route that it got and those that the core put above.
fn answer_with(bench: &mut Bench, request: &Message, status: u16, more: &[(&str, &str)]) -> Out {
    let own = request.text(Name::RecordRoute).unwrap_or_default().to_owned();
    let mut lines = vec![("Record-Route", "<sip:mo@scscf.ims.example:6060;lr>")];
    if !own.is_empty() {
        lines.push(("Record-Route", &own));
    }
    lines.push(("Contact", "<sip:b@203.0.113.9:5060>"));
    lines.extend_from_slice(more);
    bench.answer(request, status, &lines)
}

fn texts(message: &Message, name: Name) -> Vec<String> {
    message.raw(name).map(|v| String::from_utf8_lossy(v).into_owned()).collect()
}

fn icid(message: &Message) -> String {
    let vector = message.text(Name::PChargingVector).expect("P-Charging-Vector");
    vector.split(';').next().unwrap().to_owned()
}

fn sessions(bench: &Bench) -> serde_json::Value {
    bench.node.snapshot()["sessions"].clone()
}

fn to_core(out: Out) -> Message {
    assert_eq!((out.core.len(), out.ue.len()), (1, 0), "{out:#?}");
    out.core.into_iter().next().unwrap()
}

fn to_ue(out: Out) -> (Flow, Message) {
    assert_eq!((out.core.len(), out.ue.len()), (0, 1), "{out:#?}");
    out.ue.into_iter().next().unwrap()
}

/// What the UE answers to a request of ours.
fn ue_says(bench: &mut Bench, b: &Caller, request: &Message, status: u16, lines: &[(&str, &str)]) -> Out {
    let mut answer = Message::response(request, status, Some("callee"));
    answer.copy(Name::RecordRoute, request);
    answer.push_named("Contact", format!("<sip:a@{}>", b.own()));
    for (name, value) in lines {
        answer.push_named(name, value);
    }
    bench.handle(Event::Sip(Packet { flow: b.flow(), bytes: answer.to_bytes() }))
}

/// What the core sends to a callee here.
struct Core {
    path: String,
    n: u32,
    call: String,
}

impl Core {
    /// A UE that is attached, and the Path by which it is reached.
    fn and_callee(bench: &mut Bench, ue: Handset) -> (Self, Caller) {
        let mut b = Caller::attached(bench, ue);
        let request = b.ue.protected(bench, 600_000).forwarded();
        let path = request.text(Name::Path).unwrap().to_owned();
        let out = bench.accept(&request, 3600);
        bench.kernel_agrees(&out);
        (Self { path, n: 0, call: "to-ue".into() }, b)
    }

    fn text(&mut self, method: &str, route: &str, to: &str, lines: &str) -> String {
        self.n += 1;
        let (n, call) = (self.n, &self.call);
        let cseq = if matches!(method, "ACK" | "CANCEL") { 1 } else { n };
        format!(
            "{method} sip:a@198.51.100.7:50001 SIP/2.0\r\nVia: SIP/2.0/UDP {CORE};branch=z9hG4bKc{n}\r\n\
             Via: SIP/2.0/UDP 203.0.113.9;branch=z9hG4bKfar{n}\r\nMax-Forwards: 60\r\nRoute: {route}\r\n{lines}\
             From: <sip:far@x>;tag=far\r\nTo: {to}\r\nCall-ID: {call}\r\nCSeq: {cseq} {method}\r\n\
             Contact: <sip:far@203.0.113.9>\r\nContent-Length: 0\r\n\r\n"
        )
    }

    fn send(&mut self, bench: &mut Bench, method: &str, lines: &str) -> Out {
        let path = self.path.clone();
        let text = self.text(method, &path, "<sip:a@x>", lines);
        bench.packet(mw(), &text)
    }

    /// Within the dialog that `answer` made.
    fn within(&mut self, bench: &mut Bench, method: &str, answer: &Message) -> Out {
        let own = answer.tokens(Name::RecordRoute).first().unwrap().to_string();
        let to = answer.text(Name::To).unwrap().to_owned();
        let text = self.text(method, &own, &to, "");
        bench.packet(mw(), &text)
    }
}

const INVITED: &str = "Record-Route: <sip:mt@scscf.ims.example:6060;lr>\r\nRecord-Route: <sip:mo@far.example;lr>\r\n\
    P-Called-Party-ID: <sip:called@x>\r\nP-Asserted-Identity: <sip:far@x>\r\nP-Early-Media: supported\r\n\
    P-Charging-Vector: icid-value=\"theirs\";icid-generated-at=far.example;orig-ioi=\"home\"\r\n\
    P-Charging-Function-Addresses: ccf=a\r\nP-Access-Network-Info: 3GPP-NR;utran-cell-id-3gpp=secret\r\n";
