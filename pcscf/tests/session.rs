//! Sessions through a P-CSCF, message by message (TS 24.229 5.2.6).

mod common;

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

/// There is a queue, and nothing is served: new calls wait with a 503, and the call that is up goes on.
#[test]
fn new_calls_are_refused_while_there_is_too_much_to_do_and_others_go_on() {
    let mut bench = Bench::with(|c| {
        with_hops(c);
        c.overload.least_rate = 1;
    });
    let mut a = Caller::attached(&mut bench, Handset::udp4());
    let invite = a.send(&mut bench, "INVITE", ROUTES).forwarded();
    let (_, ok) = answer_with(&mut bench, &invite, 200, &[]).answered();
    for _ in 0..50 {
        bench.now = bench.now + std::time::Duration::from_millis(10);
        bench.node.waited(std::time::Duration::from_millis(400), bench.now);
    }
    let mut refused = 0;
    for n in 0..20 {
        a.call = format!("new-{n}");
        let out = a.send(&mut bench, "INVITE", ROUTES);
        if out.core.is_empty() {
            let (_, answer) = out.answered();
            assert_eq!(answer.status(), 503);
            assert!(answer.text(Name::RetryAfter).is_some());
            refused += 1;
        }
    }
    assert!(refused >= 18, "one a second is let in: {refused} refused");
    assert_eq!(bench.refused("overload"), refused);
    a.call = "session-1".into();
    a.within(&mut bench, "BYE", &ok, "").forwarded();
    bench.pass(10);
    a.call = "later".into();
    a.send(&mut bench, "INVITE", ROUTES).forwarded();
}

/// 5.2.6.3.3: what the core gets of an INVITE.
#[test]
fn an_invite_of_a_ue_as_the_core_gets_it() {
    for ue in four_ways() {
        let mut bench = bench();
        let mut a = Caller::attached(&mut bench, ue);
        let pcscf = ims_core::uri::host_of(a.ue.pcscf);
        let set = a.ue.set.unwrap();
        let lines = format!(
            "Route: <sip:{pcscf}:6100;lr>, {SCSCF}, <sip:second.example;lr>\r\n{}P-Preferred-Identity: <tel:+4930123456>\r\n\
             P-Asserted-Identity: <sip:president@x>\r\nP-Charging-Vector: icid-value=mine\r\nP-Access-Network-Info: 3GPP-NR;np\r\n\
             P-Early-Media: supported\r\nRequire: 100rel, sec-agree\r\nProxy-Require: sec-agree\r\nP-Served-User: <sip:b@x>\r\n\
             Security-Verify: {}\r\nPrivacy: none\r\nAccept-Contact: *;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.mmtel\"\r\n",
            "",
            Handset::security_verify(&set)
        );
        let invite = a.send(&mut bench, "INVITE", &lines).forwarded();
        assert_eq!(invite.uri(), "tel:+4930999");
        let routes: Vec<String> = invite.all::<Route>().unwrap().iter().map(|r| r.uri.into()).collect();
        assert_eq!(routes, ["sip:orig@scscf.ims.example:6060;lr", "sip:second.example;lr"]);
        let asserted: Vec<String> = invite.all::<PAssertedIdentity>().unwrap().iter().map(|p| p.uri.into()).collect();
        assert_eq!(asserted, ["tel:+4930123456"]);
        for gone in [
            Name::PPreferredIdentity,
            Name::SecurityVerify,
            Name::ProxyRequire,
            Name::PServedUser,
            Name::PAccessNetworkInfo,
        ] {
            assert!(!invite.has(gone), "{gone:?}");
        }
        assert_eq!((invite.tokens(Name::Require), invite.text(Name::PEarlyMedia)), (vec!["100rel"], Some("supported")));
        assert_eq!(invite.text(Name::MaxForwards), Some("69"));
        let vector = invite.text(Name::PChargingVector).unwrap();
        assert!(vector.contains("icid-generated-at=pcscf.") && vector.contains(&format!("orig-ioi=\"{DOMAIN}\"")));
        assert!(!vector.contains("mine"));
        let recorded = invite.text(Name::RecordRoute).unwrap();
        assert!(recorded.ends_with(&format!("@pcscf.{DOMAIN}:5070;lr>")), "{recorded}");
        // What is not ours passes byte for byte.
        let unknown = invite.lines().find(|(name, _)| *name == b"X-Unknown").unwrap();
        assert_eq!(unknown.1, b"kept ;as=it is");
        assert_eq!(invite.text(Name::Privacy), Some("none"));
        assert!(invite.text(Name::AcceptContact).unwrap().contains("icsi.mmtel"));
    }
}

/// 5.2.6.3.4: answers return over the set, and our Record-Route entry names the protected server port.
#[test]
fn answers_reach_the_ue_over_its_set_and_name_our_protected_port() {
    for ue in four_ways() {
        let mut bench = bench();
        let mut a = Caller::attached(&mut bench, ue);
        let set = a.ue.set.unwrap();
        let pcscf = ims_core::uri::host_of(a.ue.pcscf);
        let invite = a.send(&mut bench, "INVITE", "").forwarded();
        assert!(bench.answer(&invite, 100, &[]).is_silent(), "100 is of one hop");
        let charged = [("P-Charging-Vector", "icid-value=x;term-ioi=y"), ("P-Charging-Function-Addresses", "ccf=a")];
        for status in [183, 180, 200] {
            let (flow, answer) = answer_with(&mut bench, &invite, status, &charged).answered();
            assert_eq!((flow, answer.status()), (a.ue.answers_of(&set), status));
            let recorded = answer.tokens(Name::RecordRoute);
            assert_eq!(recorded[0], "<sip:mo@scscf.ims.example:6060;lr>");
            assert!(recorded[1].ends_with(&format!("@{pcscf}:6100;lr>")), "{recorded:?}");
            assert_eq!(texts(&answer, Name::Via).len(), 1);
        }
        assert_eq!((&sessions(&bench)["answered"], &sessions(&bench)["ringing"]), (&1.into(), &0.into()));
    }
}

/// 5.2.6.3.5, 5.2.6.3.9: all of a session has one ICID, and takes the way of its dialog.
#[test]
fn a_session_of_a_caller_from_invite_to_bye() {
    for ue in four_ways() {
        let mut bench = bench();
        let mut a = Caller::attached(&mut bench, ue);
        let invite = a.send(&mut bench, "INVITE", "").forwarded();
        let ringing = answer_with(&mut bench, &invite, 183, &[("RSeq", "1")]).answered().1;
        let early = ["PRACK", "UPDATE"];
        for method in early {
            let request = a.within(&mut bench, method, &ringing, "").forwarded();
            assert_eq!(request.uri(), "sip:b@203.0.113.9:5060");
            let routes: Vec<String> = request.all::<Route>().unwrap().iter().map(|r| r.uri.into()).collect();
            assert_eq!(routes, ["sip:mo@scscf.ims.example:6060;lr"], "{method}");
            assert_eq!(icid(&request), icid(&invite), "{method}");
            assert!(!request.has(Name::PAssertedIdentity));
            bench.answer(&request, 200, &[]).answered();
        }
        let ok = answer_with(&mut bench, &invite, 200, &[]).answered().1;
        // The SA is the proof: an ACK has no Security-Verify (Pixel).
        let ack = a.within(&mut bench, "ACK", &ok, "").forwarded();
        assert_eq!((ack.method().as_str(), texts(&ack, Name::Route).len()), ("ACK", 1));
        for method in ["INVITE", "INFO", "MESSAGE", "OPTIONS", "REFER", "FROBNICATE", "BYE"] {
            let request = a.within(&mut bench, method, &ok, "").forwarded();
            assert_eq!((request.method().as_str(), icid(&request)), (method, icid(&invite)));
            bench.answer(&request, 200, &[("Contact", "<sip:b@203.0.113.9:5060>")]).answered();
        }
        let s = sessions(&bench);
        assert_eq!((&s["answered"], &s["dialogs"], &s["answered_total"]), (&0.into(), &0.into(), &1.into()));
        bench.pass(400);
        assert_eq!(bench.node.snapshot()["forwarded"], 0);
    }
}

/// 5.2.6.3.1: whatever else it is, a request of a registered UE passes, and none of an unknown one.
#[test]
fn standalone_requests_pass() {
    let mut bench = bench();
    let mut a = Caller::attached(&mut bench, Handset::udp4());
    for (method, records) in [
        ("MESSAGE", false),
        ("OPTIONS", false),
        ("PUBLISH", false),
        ("SUBSCRIBE", true),
        ("REFER", true),
        ("FROBNICATE", true),
    ] {
        let request = a.send(&mut bench, method, ROUTES).forwarded();
        assert_eq!(request.has(Name::RecordRoute), records, "{method}");
        assert_eq!(request.text(Name::PAssertedIdentity).unwrap(), format!("<sip:001010000000001@{DOMAIN}>"));
        let (flow, ok) = bench.answer(&request, 202, &[]).answered();
        assert_eq!((flow, ok.status()), (a.ue.answers_of(&a.ue.set.unwrap()), 202));
    }
    let mut stranger = a.ue.clone();
    stranger.port = 5999;
    let text = a.request("MESSAGE", ROUTES).replace(":50001;", ":5999;");
    let refusal = bench.packet(stranger.clear_flow(), &text).answered().1;
    assert_eq!((refusal.status(), bench.refused("register-first")), (403, 1));
    assert_eq!(bench.refused("route-replaced"), 0);
}

/// 5.2.6.3.3: the Service-Route is the way, for whatever a UE writes.
#[test]
fn a_ue_on_a_way_of_its_own_is_put_right_or_refused() {
    for lines in ["", "Route: <sip:evil.example;lr>\r\n", "Route: <sip:192.0.2.1:6100;lr>\r\n"] {
        let mut bench = bench();
        let mut a = Caller::attached(&mut bench, Handset::udp4());
        let invite = a.send(&mut bench, "INVITE", lines).forwarded();
        let routes: Vec<String> = invite.all::<Route>().unwrap().iter().map(|r| r.uri.into()).collect();
        assert_eq!(routes, ["sip:orig@scscf.ims.example:6060;lr", "sip:second.example;lr"], "{lines}");
        assert_eq!(bench.refused("route-replaced"), 1);
        let mut strict = Bench::with(|c| {
            with_hops(c);
            c.route_mismatch = RoutePolicy::Refuse;
        });
        let mut a = Caller::attached(&mut strict, Handset::udp4());
        let refusal = a.send(&mut strict, "INVITE", lines).answered().1;
        assert_eq!((refusal.status(), strict.refused("route-mismatch")), (400, 1));
        a.send(&mut strict, "INVITE", ROUTES).forwarded();
    }
}

#[test]
fn an_identity_that_is_not_registered_is_not_asserted() {
    let mut bench = bench();
    let mut a = Caller::attached(&mut bench, Handset::udp4());
    let invite = a.send(&mut bench, "INVITE", "P-Preferred-Identity: <sip:president@x>\r\n").forwarded();
    assert_eq!(invite.text(Name::PAssertedIdentity).unwrap(), format!("<sip:001010000000001@{DOMAIN}>"));
    assert_eq!(bench.refused("identity-not-registered"), 1);
}

#[test]
fn what_loops_and_what_has_no_service_route_ends_here() {
    let mut bench = bench();
    let mut a = Caller::attached(&mut bench, Handset::udp4());
    let text = a.request("INVITE", ROUTES).replace("Max-Forwards: 70", "Max-Forwards: 0");
    assert_eq!(bench.packet(a.flow(), &text).answered().1.status(), 483);
    assert_eq!(bench.refused("too-many-hops"), 1);
    let mut ue = Handset { imsi: "001010000000009".into(), port: 5999, call: "other".into(), ..Handset::udp4() };
    let request = bench.packet(ue.clear_flow(), &ue.register(3600, "")).forwarded();
    let contact = request.text(Name::Contact).unwrap().to_owned();
    bench.answer(&request, 200, &[("Contact", &contact)]).answered();
    let text = a.request("INVITE", "").replace(":50001;", ":5999;");
    let refusal = bench.packet(ue.clear_flow(), &text).answered().1;
    assert_eq!((refusal.status(), bench.refused("no-service-route")), (500, 1));
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

/// 5.2.6.4.3, 5.2.6.4.4.
#[test]
fn an_invite_for_a_ue_and_its_answers() {
    for ue in four_ways() {
        let mut bench = bench();
        let (mut core, b) = Core::and_callee(&mut bench, ue);
        let set = b.ue.set.unwrap();
        let pcscf = ims_core::uri::host_of(b.ue.pcscf);
        let (flow, invite) = to_ue(core.send(&mut bench, "INVITE", INVITED));
        assert_eq!(flow, b.ue.answers_of(&set), "over the set, or over the connection of the UE");
        let via = invite.text(Name::Via).unwrap();
        assert!(via.contains(&format!("{pcscf}:6100;")), "sent-by is the protected server port: {via}");
        let recorded = invite.tokens(Name::RecordRoute);
        assert!(recorded[0].ends_with(&format!("@{pcscf}:6100;lr>")), "{recorded:?}");
        assert_eq!(recorded[1..], ["<sip:mt@scscf.ims.example:6060;lr>", "<sip:mo@far.example;lr>"]);
        assert!(!invite.has(Name::Route) && !invite.has(Name::PAccessNetworkInfo));
        assert_eq!(invite.text(Name::PCalledPartyId), Some("<sip:called@x>"));
        assert_eq!(invite.text(Name::PAssertedIdentity), Some("<sip:far@x>"));
        assert_eq!(invite.text(Name::MaxForwards), Some("59"));

        // A UE that says what it likes, and sorts parameters (iPhone).
        let lines = [
            ("P-Asserted-Identity", "<sip:president@x>"),
            ("P-Preferred-Identity", "<sip:president@x>"),
            ("P-Charging-Vector", "icid-value=mine"),
            ("P-Early-Media", "sendrecv"),
            ("P-Access-Network-Info", "3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=7"),
        ];
        let ringing = to_core(ue_says(&mut bench, &b, &invite, 180, &lines));
        assert_eq!(ringing.status(), 180);
        assert_eq!(texts(&ringing, Name::PAssertedIdentity), ["<sip:called@x>"]);
        assert!(!ringing.has(Name::PPreferredIdentity) && !ringing.has(Name::PEarlyMedia));
        assert!(ringing.has(Name::PAccessNetworkInfo));
        assert_eq!(
            ringing.text(Name::PChargingVector).unwrap(),
            format!("icid-value=\"theirs\";icid-generated-at=far.example;orig-ioi=\"home\";term-ioi=\"{DOMAIN}\"")
        );
        let recorded = ringing.tokens(Name::RecordRoute);
        assert!(recorded[0].ends_with(&format!("@pcscf.{DOMAIN}:5070;lr>")), "{recorded:?}");
        assert_eq!(recorded[1..], ["<sip:mt@scscf.ims.example:6060;lr>", "<sip:mo@far.example;lr>"]);
        assert_eq!(texts(&ringing, Name::Via).len(), 2);

        let ok = to_core(ue_says(&mut bench, &b, &invite, 200, &[]));
        assert_eq!(ok.status(), 200);
        let (flow, ack) = to_ue(core.within(&mut bench, "ACK", &ok));
        assert_eq!((flow, ack.method().as_str()), (b.ue.answers_of(&set), "ACK"));
        for method in ["INVITE", "UPDATE", "PRACK", "INFO", "FROBNICATE"] {
            let (flow, request) = to_ue(core.within(&mut bench, method, &ok));
            assert_eq!((flow, request.method().as_str()), (b.ue.answers_of(&set), method));
            assert_eq!(to_core(ue_says(&mut bench, &b, &request, 200, &[])).status(), 200);
        }
        // The other way: its own dialog route, and the ICID that came with the INVITE.
        let mut b = b;
        b.call = core.call.clone();
        let bye = b.message("BYE", "sip:far@203.0.113.9", "<sip:far@x>;tag=far", "");
        let bye = bye.replace("tag=ue", "tag=callee").replace(&format!("<sip:a@{DOMAIN}>"), "<sip:a@x>");
        let bye = bench.packet(b.flow(), &bye).forwarded();
        let routes: Vec<String> = bye.all::<Route>().unwrap().iter().map(|r| r.uri.into()).collect();
        assert_eq!(routes, ["sip:mt@scscf.ims.example:6060;lr", "sip:mo@far.example;lr"]);
        assert_eq!(icid(&bye), "icid-value=\"theirs\"");
        assert_eq!(sessions(&bench)["answered"], 1);
        bench.answer(&bye, 200, &[]).answered();
        assert_eq!(sessions(&bench)["answered"], 0);
    }
}

#[test]
fn who_calls_is_not_told_when_the_caller_does_not_want_it() {
    let mut bench = bench();
    let (mut core, _) = Core::and_callee(&mut bench, Handset::udp4());
    let (_, invite) = to_ue(core.send(&mut bench, "INVITE", &format!("{INVITED}Privacy: id\r\n")));
    assert!(!invite.has(Name::PAssertedIdentity) && invite.has(Name::Privacy));
}

/// 5.2.6.4.3: no answer is worse than a refusal.
#[test]
fn a_ue_that_is_gone_is_said_to_be() {
    let mut bench = bench();
    let (mut core, mut b) = Core::and_callee(&mut bench, Handset::udp4());
    // No set: its SAs went, and the registration with them.
    let request = b.ue.protected(&mut bench, 0).forwarded();
    let out = bench.accept(&request, 0);
    bench.kernel_agrees(&out);
    assert_eq!(to_core(core.send(&mut bench, "INVITE", INVITED)).status(), 480);
    assert_eq!(bench.refused("ue-gone"), 1);
}

#[test]
fn a_ue_that_does_not_answer_is_408_and_a_connection_that_cannot_be_made_is_500() {
    let mut bench = bench();
    let (mut core, _) = Core::and_callee(&mut bench, Handset::udp4());
    to_ue(core.send(&mut bench, "MESSAGE", INVITED));
    let out = bench.pass(200);
    assert_eq!(out.core.iter().map(Message::status).collect::<Vec<_>>(), [408]);
    assert_eq!(bench.refused("ue-silent"), 1);

    let mut bench = self::bench();
    let (mut core, b) = Core::and_callee(&mut bench, Handset::new(false, Transport::Tcp));
    bench.handle(Event::FlowClosed(b.ue.conn));
    let path = core.path.clone();
    let text = core.text("MESSAGE", &path, "<sip:a@x>", "");
    let mut out = bench.packet(mw(), &text);
    let (flow, _) = out.ue.remove(0);
    assert_eq!((flow.conn, flow.remote.port(), flow.transport), (None, 50_001, Transport::Tcp));
    let failed = bench.fail_last(ims_core::FlowError::Refused);
    assert_eq!(to_core(failed).status(), 500);
    assert_eq!(bench.refused("no-way-to-ue"), 1);
}

/// RFC 3261 9, 16.10, and what phones do with CANCEL.
#[test]
fn a_cancel_at_each_moment() {
    for (answered, crosses) in [(false, false), (true, false), (true, true)] {
        let mut bench = bench();
        let mut a = Caller::attached(&mut bench, Handset::udp4());
        let text = a.request("INVITE", ROUTES);
        let invite = bench.packet(a.flow(), &text).forwarded();
        if answered {
            answer_with(&mut bench, &invite, 180, &[]).answered();
        }
        // The Pixel's has the route set of the dialog; the Motorola's no Security-Verify; Qualcomm's a body.
        let cancel = text.replace("INVITE", "CANCEL").replace(ROUTES, "Route: <sip:mo@scscf.ims.example:6060;lr>\r\n");
        let mut out = bench.packet(a.flow(), &cancel);
        assert_eq!((out.ue[0].1.status(), out.ue[0].1.method().as_str()), (200, "CANCEL"));
        if !answered {
            assert!(out.core.is_empty(), "not before a provisional answer");
            out = answer_with(&mut bench, &invite, 180, &[]);
        }
        let cancel = out.core.remove(0);
        assert_eq!((cancel.method().as_str(), cancel.uri()), ("CANCEL", invite.uri()));
        assert_eq!(texts(&cancel, Name::Route), texts(&invite, Name::Route));
        bench.answer(&cancel, 200, &[]);
        if crosses {
            let ok = answer_with(&mut bench, &invite, 200, &[]).answered().1;
            assert_eq!((ok.status(), &sessions(&bench)["answered"]), (200, &1.into()));
            continue;
        }
        let out = bench.answer(&invite, 487, &[("Record-Route", invite.text(Name::RecordRoute).unwrap())]);
        assert_eq!(out.core[0].method().as_str(), "ACK");
        let refusal = &out.ue[0].1;
        assert_eq!((refusal.status(), refusal.has(Name::RecordRoute)), (487, false));
        // The Pixel's ACK to it has routes of its own, and goes no further.
        let ack = text.replace("INVITE", "ACK").replace("<tel:+4930999>", "<tel:+4930999>;tag=core");
        assert!(bench.packet(a.flow(), &ack).is_silent());
        assert_eq!((&sessions(&bench)["ringing"], &sessions(&bench)["dialogs"]), (&0.into(), &0.into()));
        bench.pass(400);
        assert_eq!(bench.node.snapshot()["forwarded"], 0);
    }
}

#[test]
fn a_cancel_for_a_callee_reaches_it_with_its_reason() {
    let mut bench = bench();
    let (mut core, b) = Core::and_callee(&mut bench, Handset::udp4());
    let (_, invite) = to_ue(core.send(&mut bench, "INVITE", INVITED));
    to_core(ue_says(&mut bench, &b, &invite, 180, &[]));
    core.n -= 1;
    let path = core.path.clone();
    let cancel = core.text("CANCEL", &path, "<sip:a@x>", "Reason: SIP;cause=200;text=\"elsewhere\"\r\n");
    let out = bench.packet(mw(), &cancel);
    let (_, cancel) = &out.ue[0];
    assert_eq!(
        (cancel.method().as_str(), cancel.text(Name::Reason).unwrap().starts_with("SIP;cause=200")),
        ("CANCEL", true)
    );
    assert_eq!(out.core[0].status(), 200);
    let out = ue_says(&mut bench, &b, &invite, 487, &[]);
    assert_eq!((out.core[0].status(), out.ue[0].1.method().as_str()), (487, "ACK"));
    assert!(!out.core[0].has(Name::PAssertedIdentity) && !out.core[0].has(Name::RecordRoute));
}

/// A forked INVITE makes several dialogs; the one that is answered stays.
#[test]
fn forked_dialogs_are_told_apart_by_their_tags() {
    let mut bench = bench();
    let mut a = Caller::attached(&mut bench, Handset::udp4());
    let invite = a.send(&mut bench, "INVITE", ROUTES).forwarded();
    let mut answers = Vec::new();
    for (tag, route) in [("one", "<sip:mt@one.example;lr>"), ("two", "<sip:mt@two.example;lr>")] {
        let mut answer = Message::response(&invite, 183, Some(tag));
        answer.push_named("Record-Route", route);
        answer.push_named("Record-Route", "<sip:mo@scscf.ims.example:6060;lr>");
        answer.push_named("Record-Route", invite.text(Name::RecordRoute).unwrap());
        answer.push_named("Contact", format!("<sip:{tag}@203.0.113.9>"));
        let out = bench.handle(Event::Sip(Packet { flow: mw(), bytes: answer.to_bytes() }));
        answers.push(out.answered().1);
    }
    assert_eq!(sessions(&bench)["dialogs"], 2);
    for (answer, host) in answers.iter().zip(["one", "two"]) {
        // Whatever the phone writes as Route, each takes its own way.
        let text = a.text_within("PRACK", answer, "").replace("Route: <sip:mt@", "X-Route: <sip:mt@");
        let prack = bench.packet(a.flow(), &text).forwarded();
        let routes: Vec<String> = prack.all::<Route>().unwrap().iter().map(|r| r.uri.into()).collect();
        assert_eq!(routes, ["sip:mo@scscf.ims.example:6060;lr".to_owned(), format!("sip:mt@{host}.example;lr")]);
        bench.answer(&prack, 200, &[]);
    }
    let mut ok = Message::response(&invite, 200, Some("two"));
    ok.push_named("Record-Route", invite.text(Name::RecordRoute).unwrap());
    ok.push_named("Contact", "<sip:two@203.0.113.9>");
    bench.handle(Event::Sip(Packet { flow: mw(), bytes: ok.to_bytes() })).answered();
    assert_eq!((&sessions(&bench)["dialogs"], &sessions(&bench)["answered"]), (&1.into(), &1.into()));
}

/// Samsung: INVITE over TCP, PRACK and BYE over UDP of the same set, whatever Route says.
#[test]
fn a_phone_that_mixes_transports_in_a_dialog_is_followed() {
    let mut bench = bench();
    let mut a = Caller::attached(&mut bench, Handset::udp4());
    let set = a.ue.set.unwrap();
    a.ue.transport = Transport::Tcp;
    a.ue.conn = ConnId(77);
    let invite = a.send(&mut bench, "INVITE", ROUTES).forwarded();
    let (flow, ringing) = answer_with(&mut bench, &invite, 183, &[]).answered();
    assert_eq!(flow, a.ue.flow_of(&set), "on the connection that it came by");
    a.ue.transport = Transport::Udp;
    let prack = a.within(&mut bench, "PRACK", &ringing, "").forwarded();
    let (flow, _) = bench.answer(&prack, 200, &[]).answered();
    assert_eq!(flow, a.ue.answers_of(&set), "by datagram, from port_pc to port_us");
}

/// RFC 3261 18.1.1 with what ESP adds; and the leg keeps the transport that it has then.
#[test]
fn what_is_too_large_for_the_path_goes_by_tcp_within_the_set_and_so_does_the_rest() {
    let mut bench = bench();
    let (mut core, b) = Core::and_callee(&mut bench, Handset::udp4());
    let set = b.ue.set.unwrap();
    let long = format!("{INVITED}X-Long: {}\r\n", "x".repeat(900));
    let (flow, invite) = to_ue(core.send(&mut bench, "INVITE", &long));
    assert!(invite.to_bytes().len() < 2000);
    let tcp = Flow { transport: Transport::Tcp, ..b.ue.answers_of(&set) };
    assert_eq!(flow, tcp, "port_pc to port_us");
    let back = Flow { conn: Some(ConnId(5)), ..tcp };
    let mut ok = Message::response(&invite, 200, Some("callee"));
    ok.copy(Name::RecordRoute, &invite);
    ok.push_named("Contact", "<sip:a@198.51.100.7:50001>");
    let out = bench.handle(Event::Sip(Packet { flow: back, bytes: ok.to_bytes() }));
    let ok = to_core(out);
    let (flow, _) = to_ue(core.within(&mut bench, "BYE", &ok));
    assert_eq!(flow, tcp);
}

/// A session that began on a connection of the UE stays on it, and goes on by another, or by datagram, when that is gone.
#[test]
fn a_leg_keeps_its_connection_as_long_as_it_can() {
    let mut bench = bench();
    let mut a = Caller::attached(&mut bench, Handset::udp4());
    let set = a.ue.set.unwrap();
    a.ue.transport = Transport::Tcp;
    a.ue.conn = ConnId(77);
    let invite = a.send(&mut bench, "INVITE", ROUTES).forwarded();
    answer_with(&mut bench, &invite, 200, &[]).answered();
    let mut core = Core { path: String::new(), n: 0, call: a.call.clone() };
    let token = invite.text(Name::RecordRoute).unwrap().to_owned();
    let mut info = |bench: &mut Bench| {
        let text = core.text("INFO", &token, &format!("<sip:a@{DOMAIN}>;tag=ue"), "");
        let text = text.replace("<sip:far@x>;tag=far", "<tel:+4930999>;tag=core");
        to_ue(bench.packet(mw(), &text))
    };
    assert_eq!(info(&mut bench).0, a.ue.flow_of(&set));
    bench.handle(Event::FlowClosed(ConnId(77)));
    let flow = info(&mut bench).0;
    let udp = Flow { transport: Transport::Udp, ..flow };
    assert_eq!((flow.transport, flow.conn, flow.remote.port()), (Transport::Tcp, None, set.port_us));
    // The UE opened another one meanwhile, and is followed there.
    a.ue.conn = ConnId(78);
    let text = a.request("INFO", "").replace("To: <tel:+4930999>", "To: <tel:+4930999>;tag=core");
    bench.packet(a.flow(), &text).forwarded();
    assert_eq!(info(&mut bench).0, a.ue.flow_of(&set));
    bench.handle(Event::FlowClosed(ConnId(78)));
    assert_eq!(info(&mut bench).0, flow);
    // It does not take connections.
    let out = bench.fail_last(ims_core::FlowError::Refused);
    let (flow, info) = to_ue(out);
    assert_eq!((flow, info.method().as_str()), (udp, "INFO"));
    let ok = Message::response(&info, 200, None);
    a.ue.transport = Transport::Udp;
    let out = bench.handle(Event::Sip(Packet { flow: a.flow(), bytes: ok.to_bytes() }));
    assert_eq!(to_core(out).status(), 200);
}

/// A 2xx without a tag makes no dialog, and leaves none.
#[test]
fn an_answer_without_a_tag_leaves_nothing() {
    let mut bench = bench();
    let mut a = Caller::attached(&mut bench, Handset::udp4());
    let invite = a.send(&mut bench, "INVITE", ROUTES).forwarded();
    let ok = Message::response(&invite, 200, None);
    bench.handle(Event::Sip(Packet { flow: mw(), bytes: ok.to_bytes() })).answered();
    let s = sessions(&bench);
    assert_eq!((&s["answered"], &s["ringing"]), (&0.into(), &0.into()));
}

/// RFC 3261 16.3.
#[test]
fn what_a_proxy_is_required_to_know_and_does_not_is_refused() {
    let mut bench = bench();
    let mut a = Caller::attached(&mut bench, Handset::udp4());
    let refusal = a.send(&mut bench, "INVITE", "Proxy-Require: sec-agree, teleport\r\n").answered().1;
    assert_eq!((refusal.status(), refusal.text(Name::Unsupported)), (420, Some("teleport")));
    assert_eq!(bench.refused("bad-extension"), 1);
    a.send(&mut bench, "INVITE", "Proxy-Require: sec-agree, privacy\r\n").forwarded();
}

/// 5.2.8.1: the UE is gone, the other end hears it.
#[test]
fn a_session_ends_with_the_registration_of_its_ue() {
    for ue in [Handset::udp4(), Handset::new(true, Transport::Tcp)] {
        let mut bench = bench();
        let mut a = Caller::attached(&mut bench, ue);
        let set = a.ue.set.unwrap();
        let invite = a.send(&mut bench, "INVITE", "").forwarded();
        let ok = answer_with(&mut bench, &invite, 200, &[]).answered().1;
        a.within(&mut bench, "ACK", &ok, "").forwarded();
        a.within(&mut bench, "INFO", &ok, "");
        let request = a.ue.protected(&mut bench, 0).forwarded();
        let out = bench.accept(&request, 0);
        bench.kernel_agrees(&out);
        let bye = &out.core[0];
        assert_eq!((bye.method().as_str(), bye.uri()), ("BYE", "sip:b@203.0.113.9:5060"));
        assert_eq!(bye.text(Name::Route), Some("<sip:mo@scscf.ims.example:6060;lr>"));
        assert_eq!((bye.text(Name::CSeq), bye.text(Name::CallId)), (Some("3 BYE"), Some("session-1")));
        assert!(bye.text(Name::From).unwrap().contains("tag=ue") && bye.text(Name::To).unwrap().contains("tag=core"));
        assert!(bye.text(Name::Reason).unwrap().starts_with("SIP;cause=503"));
        assert_eq!(icid(bye), icid(&invite));
        let (flow, bye) = out.ue.iter().find(|(_, m)| m.is_request()).unwrap();
        assert_eq!((bye.method().as_str(), *flow), ("BYE", a.ue.answers_of(&set)), "the set still carries it");
        assert!(bye.text(Name::From).unwrap().contains("tag=core") && bye.text(Name::To).unwrap().contains("tag=ue"));
        assert_eq!((&sessions(&bench)["answered"], bench.refused("session-released")), (&0.into(), 1));
    }
}

#[test]
fn what_rings_is_cancelled_when_its_ue_is_gone() {
    let mut bench = bench();
    let mut a = Caller::attached(&mut bench, Handset::udp4());
    let invite = a.send(&mut bench, "INVITE", "").forwarded();
    answer_with(&mut bench, &invite, 180, &[]).answered();
    let request = a.ue.protected(&mut bench, 0).forwarded();
    let out = bench.accept(&request, 0);
    bench.kernel_agrees(&out);
    assert_eq!(out.core[0].method().as_str(), "CANCEL");
    assert!(out.core[0].text(Name::Reason).unwrap().starts_with("SIP;cause=503"));
    bench.answer(&out.core[0], 200, &[]);
    let out = bench.answer(&invite, 487, &[]);
    assert_eq!(out.ue[0].1.status(), 487, "while the set lingers");

    let mut bench = self::bench();
    let (mut core, mut b) = Core::and_callee(&mut bench, Handset::udp4());
    let (_, invite) = to_ue(core.send(&mut bench, "INVITE", INVITED));
    to_core(ue_says(&mut bench, &b, &invite, 180, &[]));
    let request = b.ue.protected(&mut bench, 0).forwarded();
    let out = bench.accept(&request, 0);
    bench.kernel_agrees(&out);
    assert_eq!(out.core[0].status(), 480);
    assert!(out.ue.iter().any(|(_, m)| m.is_request() && m.method().as_str() == "CANCEL"));
    assert_eq!(sessions(&bench)["ringing"], 0);
}

/// A phone that registers anew from the same address, in the middle of a call, goes on with it.
#[test]
fn a_session_goes_on_with_the_next_registration_of_the_same_ue() {
    let mut bench = bench();
    let mut a = Caller::attached(&mut bench, Handset::udp4());
    let invite = a.send(&mut bench, "INVITE", "").forwarded();
    let ok = answer_with(&mut bench, &invite, 200, &[]).answered().1;
    a.ue.renew();
    a.ue.call = "again".into();
    let set = a.ue.attach(&mut bench, 3600);
    assert_eq!((&sessions(&bench)["answered"], bench.refused("session-released")), (&1.into(), 0));
    let info = a.within(&mut bench, "INFO", &ok, "").forwarded();
    assert_eq!(icid(&info), icid(&invite));
    // And the other way, by the token of before.
    let token = invite.text(Name::RecordRoute).unwrap().to_owned();
    let mut core = Core { path: String::new(), n: 0, call: a.call.clone() };
    let text = core.text("BYE", &token, &format!("<sip:a@{DOMAIN}>;tag=ue"), "");
    let text = text.replace("<sip:far@x>;tag=far", "<tel:+4930999>;tag=core");
    let (flow, bye) = to_ue(bench.packet(mw(), &text));
    assert_eq!(flow, a.ue.answers_of(&set));
    let mut answer = Message::response(&bye, 200, None);
    answer.set(Name::ContentLength, 0);
    let out = bench.handle(Event::Sip(Packet { flow: a.flow(), bytes: answer.to_bytes() }));
    assert_eq!((to_core(out).status(), &sessions(&bench)["answered"]), (200, &0.into()));
}

/// After a restart nothing is known of a session but what Record-Route says.
#[test]
fn a_session_outlasts_a_restart() {
    let mut bench = bench();
    let mut a = Caller::attached(&mut bench, Handset::udp4());
    let set = a.ue.set.unwrap();
    let invite = a.send(&mut bench, "INVITE", "").forwarded();
    let ok = answer_with(&mut bench, &invite, 200, &[]).answered().1;
    bench.restart();
    assert_eq!(sessions(&bench)["answered"], 0);
    let info = a.within(&mut bench, "INFO", &ok, "").forwarded();
    assert_eq!(info.text(Name::Route), Some("<sip:mo@scscf.ims.example:6060;lr>"));
    assert_eq!(icid(&info), icid(&invite), "its ICID comes from what it is");
    let token = invite.text(Name::RecordRoute).unwrap().to_owned();
    let mut core = Core { path: String::new(), n: 0, call: a.call.clone() };
    let text = core.text("BYE", &token, &format!("<sip:a@{DOMAIN}>;tag=ue"), "");
    assert_eq!(to_ue(bench.packet(mw(), &text)).0, a.ue.answers_of(&set));
    // And it calls again.
    a.call = "session-2".into();
    a.send(&mut bench, "INVITE", "").forwarded();
    // What claims to be within a dialog and leads elsewhere is none of ours.
    let text = a.text_within("INFO", &ok, "").replace("mo@scscf.ims.example", "x@evil.example");
    let refusal = bench.packet(a.flow(), &text.replace("session-2", "forged")).answered().1;
    assert_eq!((refusal.status(), bench.refused("no-such-dialog")), (481, 1));
    let ack = a.text_within("ACK", &ok, "").replace("mo@scscf.ims.example", "x@evil.example");
    assert!(bench.packet(a.flow(), &ack).is_silent());
    assert_eq!(bench.refused("ack-not-passed"), 1);
}

#[test]
fn sessions_are_bounded_and_forgotten_when_nobody_refreshes_them() {
    let mut bench = Bench::with(|c| {
        with_hops(c);
        c.limits.max_sessions = 1;
    });
    let mut a = Caller::attached(&mut bench, Handset::udp4());
    let invite = a.send(&mut bench, "INVITE", "").forwarded();
    let ok = answer_with(&mut bench, &invite, 200, &[("Session-Expires", "600;refresher=uac")]).answered().1;
    a.within(&mut bench, "ACK", &ok, "");
    a.call = "session-2".into();
    let refusal = a.send(&mut bench, "INVITE", "").answered().1;
    assert_eq!((refusal.status(), refusal.has(Name::RetryAfter)), (503, true));
    a.call = "session-1".into();
    bench.pass(500);
    let refresh = a.within(&mut bench, "UPDATE", &ok, "").forwarded();
    bench.answer(&refresh, 200, &[("Session-Expires", "600")]).answered();
    bench.pass(500);
    assert_eq!(sessions(&bench)["answered"], 1);
    bench.pass(200);
    assert_eq!((&sessions(&bench)["answered"], bench.refused("session-expired")), (&0.into(), 1));
}

/// OnePlus 5: no IPsec; it registers over UDP and calls over TCP from some port.
#[test]
fn a_ue_without_ipsec_calls_where_the_policy_lets_it() {
    let mut bench = Bench::with(|c| {
        with_hops(c);
        c.security.policy = Policy::Allow;
    });
    let mut ue = Handset::udp4();
    let request = bench.packet(ue.clear_flow(), &ue.register(3600, "")).forwarded();
    let path = request.text(Name::Path).unwrap().to_owned();
    bench.accept(&request, 600).answered();
    let text = |n: u32, call: &str| {
        format!(
            "INVITE sip:b@x SIP/2.0\r\nVia: SIP/2.0/TCP 198.51.100.7:5060;branch=z9hG4bKo{n}\r\nFrom: <sip:001010000000001@{DOMAIN}>;tag=1\r\n\
             To: <sip:b@x>\r\nCall-ID: {call}\r\nCSeq: 1 INVITE\r\nContact: <sip:001010000000001@198.51.100.7:5060>\r\nContent-Length: 0\r\n\r\n"
        )
    };
    let over = |port: u16| Flow {
        transport: Transport::Tcp,
        local: "192.0.2.1:5060".parse().unwrap(),
        remote: format!("198.51.100.7:{port}").parse().unwrap(),
        conn: Some(ConnId(9)),
    };
    let invite = bench.packet(over(39_001), &text(1, "c1")).forwarded();
    assert_eq!(invite.text(Name::Route), Some(SCSCF));
    let (flow, ok) = answer_with(&mut bench, &invite, 200, &[]).answered();
    assert_eq!(flow, over(39_001));
    assert!(ok.tokens(Name::RecordRoute)[1].ends_with("@192.0.2.1:5060;lr>"));
    // Somebody else behind the same address is not that UE.
    let forged = text(2, "c2").replace("001010000000001", "president");
    assert_eq!(bench.packet(over(39_002), &forged).answered().1.status(), 403);
    let mut core = Core { path, n: 0, call: "to-clear".into() };
    let (flow, message) = to_ue(core.send(&mut bench, "MESSAGE", ""));
    assert_eq!((flow, message.method().as_str()), (ue.clear_flow(), "MESSAGE"));
}

/// Before its UE is registered a set carries nothing but REGISTER. Of a new authentication, both sets carry what there is: whoever
/// uses the new one has the keys of the SIM.
#[test]
fn a_set_carries_calls_as_soon_as_its_ue_is_registered() {
    let mut bench = bench();
    let mut stranger = Handset::udp4();
    stranger.set = Some(stranger.get_challenged(&mut bench));
    let mut a = Caller { ue: stranger, branch: 0, cseq: 0, call: "session-1".into() };
    assert_eq!(a.send(&mut bench, "INVITE", "").answered().1.status(), 403);
    let mut bench = self::bench();
    let mut a = Caller::attached(&mut bench, Handset::udp4());
    let old = a.ue.set.unwrap();
    a.ue.renew();
    let request = a.ue.protected(&mut bench, 600_000).forwarded();
    let asked = bench.challenge(&request, "bmV3");
    let (id, new) = asked.install();
    bench.kernel(id, Ok(())).answered();
    for (set, call) in [(new, "session-2"), (old, "session-3")] {
        (a.ue.set, a.call) = (Some(set), call.into());
        a.send(&mut bench, "INVITE", "").forwarded();
    }
}
