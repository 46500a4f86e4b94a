//! Emergency calls at a P-CSCF (TS 24.229 5.2.10).

mod common;

use common::{Bench, DOMAIN, Handset, Out};
use ims_core::{Event, Flow, Node, Packet};
use ims_sip::headers::PAssertedIdentity;
use ims_sip::{Message, Name};
use pcscf::Config;
use pcscf::config::EmergencyPolicy;

const ECSCF: &str = "sip:ecscf.example:7000;lr";

fn mw() -> Flow {
    Flow::udp("127.0.0.1:5070".parse().unwrap(), "127.0.0.1:7000".parse().unwrap())
}

fn routed(config: &mut Config) {
    config.emergency.route = ECSCF.into();
    for host in ["ecscf.example:7000", "scscf.ims.example:6060"] {
        config.next_hops.insert(host.into(), vec!["udp:127.0.0.1:7000".into()]);
    }
}

fn with(change: impl FnOnce(&mut Config)) -> Bench {
    Bench::with(|config| {
        routed(config);
        change(config);
    })
}

fn call(ue: &Handset, method: &str, uri: &str, n: u32) -> String {
    let (host, port) = (ims_core::uri::host_of(ue.ip), ue.set.map_or(ue.port, |s| s.port_us));
    format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/{} {host}:{port};branch=z9hG4bKe{n}\r\nMax-Forwards: 70\r\n\
         Route: <sip:192.0.2.1:6100;lr>, <sip:orig@scscf.ims.example:6060;lr>\r\nP-Preferred-Identity: <tel:+4930123456>\r\n\
         From: <sip:anonymous@anonymous.invalid>;tag=e\r\nTo: <{uri}>\r\nCall-ID: help{n}\r\nCSeq: 1 {method}\r\n\
         Contact: <sip:a@{host}:{port}>\r\nContent-Length: 0\r\n\r\n",
        ue.transport.token()
    )
}

fn routes(message: &Message) -> Vec<String> {
    message.raw(Name::Route).map(|v| String::from_utf8_lossy(v).into_owned()).collect()
}

/// 5.2.10.4: past the Service-Route, to the E-CSCF, with the service as a URN.
#[test]
fn an_emergency_call_goes_to_the_emergency_services_and_passes_no_s_cscf() {
    let mut bench = with(|c| c.limits.max_sessions = 1);
    let mut ue = Handset::udp4();
    let set = ue.attach(&mut bench, 3600);
    for (n, uri, urn) in [
        (1, "urn:service:sos.police", "urn:service:sos.police"),
        (2, "tel:112;phone-context=ims.example", "urn:service:sos"),
        (3, "sip:911@ims.example;user=phone", "urn:service:sos"),
    ] {
        // Two at once are one more than limits.max_sessions.
        let invite = bench.packet(ue.flow_of(&set), &call(&ue, "INVITE", uri, n)).forwarded();
        assert_eq!((invite.uri(), routes(&invite)), (urn, vec![format!("<{ECSCF}>")]));
        let asserted: Vec<String> = invite.all::<PAssertedIdentity>().unwrap().iter().map(|p| p.uri.into()).collect();
        assert_eq!(asserted, ["tel:+4930123456"]);
        assert!(invite.has(Name::PChargingVector) && invite.has(Name::RecordRoute));
        let out = bench.answer(&invite, 200, &[("Contact", "<sip:psap@203.0.113.1>")]);
        assert_eq!(out.answered().1.status(), 200);
    }
    assert_eq!(bench.node.snapshot()["sessions"]["emergency_total"], 3);
    let ordinary = call(&ue, "INVITE", "tel:+49301", 9);
    assert_eq!(bench.packet(ue.flow_of(&set), &ordinary).answered().1.status(), 503, "others wait");
}

#[test]
fn a_psap_that_is_no_proxy_is_called_by_its_own_address() {
    let mut bench = with(|c| {
        c.emergency.route = "sip:112@psap.example".into();
        c.next_hops.insert("psap.example".into(), vec!["udp:127.0.0.1:7000".into()]);
    });
    let mut ue = Handset::udp4();
    let set = ue.attach(&mut bench, 3600);
    let invite = bench.packet(ue.flow_of(&set), &call(&ue, "INVITE", "urn:service:sos", 1)).forwarded();
    assert_eq!((invite.uri(), routes(&invite).len()), ("sip:112@psap.example", 0));
}

fn alternative(out: Out) -> (Message, String) {
    let answer = out.answered().1;
    assert_eq!((answer.status(), answer.text(Name::ContentType)), (380, Some("application/3gpp-ims+xml")));
    let body = String::from_utf8(answer.body().to_vec()).unwrap();
    (answer, body)
}

/// 5.2.10.5: told so, by whom the handset knows from Path.
#[test]
fn where_nobody_takes_emergency_calls_the_handset_is_sent_elsewhere() {
    let mut bench = Bench::new();
    let mut ue = Handset::udp4();
    let set = ue.attach(&mut bench, 3600);
    let request = ue.protected(&mut bench, 600_000).forwarded();
    let path = request.text(Name::Path).unwrap().to_owned();
    let out = bench.accept(&request, 3600);
    bench.kernel_agrees(&out);
    let (answer, body) = alternative(bench.packet(ue.flow_of(&set), &call(&ue, "INVITE", "urn:service:sos", 1)));
    assert_eq!(answer.text(Name::PAssertedIdentity), Some(path.as_str()));
    assert_eq!(
        body,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ims-3gpp version=\"1\"><alternative-service><type>emergency</type>\
         <reason/></alternative-service></ims-3gpp>"
    );
    assert_eq!(bench.refused("emergency-elsewhere"), 1);
    let mut stranger = Handset { port: 5999, ..Handset::udp4() };
    stranger.set = None;
    let (answer, body) = alternative(bench.packet(stranger.clear_flow(), &call(&stranger, "INVITE", "tel:112", 2)));
    assert!(answer.text(Name::PAssertedIdentity).unwrap().contains(&format!("pcscf.{DOMAIN}")));
    assert!(!body.contains("action"));
}

#[test]
fn the_policy_may_want_an_emergency_registration_first() {
    let mut bench = with(|c| c.emergency.registered = EmergencyPolicy::Register);
    let mut ue = Handset::udp4();
    let set = ue.attach(&mut bench, 3600);
    let (_, body) = alternative(bench.packet(ue.flow_of(&set), &call(&ue, "INVITE", "urn:service:sos", 1)));
    assert!(body.contains("<action>emergency-registration</action>"));
    // It registers for emergencies, from another address (another bearer), and calls.
    let mut sos = Handset { ip: "198.51.100.8".parse().unwrap(), call: "sos".into(), ..Handset::udp4() };
    sos.contact_params = ";sos";
    let emergency = sos.attach(&mut bench, 3600);
    assert_eq!(bench.registrations().len(), 2, "beside the ordinary registration");
    let invite = bench.packet(sos.flow_of(&emergency), &call(&sos, "INVITE", "urn:service:sos", 2)).forwarded();
    assert_eq!(routes(&invite), [format!("<{ECSCF}>")]);
    // And nothing else (5.2.10.3).
    let refusal = bench.packet(sos.flow_of(&emergency), &call(&sos, "INVITE", "tel:+49301", 3)).answered().1;
    assert_eq!((refusal.status(), bench.refused("no-emergency")), (403, 1));
    bench.packet(ue.flow_of(&set), &call(&ue, "INVITE", "tel:+49301", 4)).forwarded();
}

/// The same address too: a contact with `sos` is another contact.
#[test]
fn an_emergency_registration_takes_the_place_of_no_ordinary_one() {
    let mut bench = with(|_| {});
    let mut ue = Handset::udp4();
    let set = ue.attach(&mut bench, 3600);
    let ordinary = format!("<sip:001010000000001@198.51.100.7:{}>;expires=3000", set.port_us);
    bench.others = vec![ordinary];
    let mut sos = Handset { uc: 40_101, us: 50_101, spi: 9000, call: "sos".into(), ..Handset::udp4() };
    sos.contact_params = ";sos";
    sos.attach(&mut bench, 3600);
    assert_eq!(bench.registrations().len(), 2);
    bench.packet(ue.flow_of(&set), &call(&ue, "INVITE", "tel:+49301", 1)).forwarded();
}

/// 5.2.10.2: nobody in particular, in clear, as long as the call lasts.
#[test]
fn who_is_not_registered_may_call_for_help_where_the_policy_lets_it() {
    let mut bench = with(|c| c.emergency.unregistered = true);
    let ue = Handset { port: 5999, ..Handset::udp4() };
    let invite = bench.packet(ue.clear_flow(), &call(&ue, "INVITE", "urn:service:sos", 1)).forwarded();
    assert_eq!((invite.uri(), routes(&invite)), ("urn:service:sos", vec![format!("<{ECSCF}>")]));
    assert!(!invite.has(Name::PAssertedIdentity) && !invite.has(Name::PPreferredIdentity));
    let own = invite.text(Name::RecordRoute).unwrap().to_owned();
    let out = bench.answer(&invite, 200, &[("Contact", "<sip:psap@203.0.113.1>"), ("Record-Route", &own)]);
    let (flow, ok) = out.answered();
    assert_eq!((flow, ok.status()), (ue.clear_flow(), 200));
    let to = ok.text(Name::To).unwrap().to_owned();
    let within = |method: &str, n: u32| {
        call(&ue, method, "sip:psap@203.0.113.1", n)
            .replace("To: <sip:psap@203.0.113.1>", &format!("To: {to}"))
            .replace(&format!("help{n}"), "help1")
    };
    bench.packet(ue.clear_flow(), &within("ACK", 2));
    // Nothing but emergency calls.
    let ordinary = call(&ue, "INVITE", "tel:+49301", 3);
    assert_eq!(bench.packet(ue.clear_flow(), &ordinary).answered().1.status(), 403);
    // The PSAP asks for something, and the token of the call leads back.
    let info = format!(
        "INFO sip:a@198.51.100.7:5999 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:7000;branch=z9hG4bKp\r\nMax-Forwards: 70\r\n\
         Route: {own}\r\nFrom: {to}\r\nTo: <sip:anonymous@anonymous.invalid>;tag=e\r\nCall-ID: help1\r\nCSeq: 5 INFO\r\n\
         Content-Length: 0\r\n\r\n"
    );
    let out = bench.packet(mw(), &info);
    let (flow, info) = &out.ue[0];
    assert_eq!((*flow, info.method().as_str()), (ue.clear_flow(), "INFO"));
    let ok = Message::response(info, 200, None);
    bench.handle(Event::Sip(Packet { flow: ue.clear_flow(), bytes: ok.to_bytes() }));
    let bye = bench.packet(ue.clear_flow(), &within("BYE", 4)).forwarded();
    assert_eq!(bench.answer(&bye, 200, &[]).answered().1.status(), 200);
    assert_eq!(bench.node.snapshot()["sessions"]["unregistered_total"], 1);
    bench.assert_empty();
    assert!(bench.kept.is_empty());
}

#[test]
fn who_is_not_registered_is_otherwise_asked_to_be() {
    for (unregistered, method) in [(false, "INVITE"), (true, "MESSAGE")] {
        let mut bench = with(|c| c.emergency.unregistered = unregistered);
        let ue = Handset { port: 5999, ..Handset::udp4() };
        let (_, body) = alternative(bench.packet(ue.clear_flow(), &call(&ue, method, "urn:service:sos", 1)));
        assert!(body.contains("<action>emergency-registration</action>"));
        bench.assert_empty();
    }
}

/// 5.2.10: no limit of new registrations holds up one for emergencies.
#[test]
fn an_overloaded_core_holds_up_no_emergency_registration() {
    let mut bench = with(|c| {
        c.overload.least_rate = 1;
        c.sources.rate = 0;
    });
    let mut ue = Handset::udp4();
    bench.node.waited(std::time::Duration::from_secs(5), bench.now);
    bench.pass(1);
    let mut refused = 0;
    for n in 0..50 {
        bench.node.waited(std::time::Duration::from_secs(5), bench.now);
        ue.call = format!("storm{n}");
        let text = ue.register(3600, "");
        refused += usize::from(bench.packet(ue.clear_flow(), &text).core.is_empty());
        bench.pass_ms(10);
    }
    assert!(refused > 10, "it is overloaded: {refused}");
    ue.contact_params = ";sos";
    for n in 0..50 {
        ue.call = format!("help{n}");
        let text = ue.register(3600, "");
        bench.packet(ue.clear_flow(), &text).forwarded();
    }
}
