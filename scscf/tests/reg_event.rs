//! Subscriptions to how a user is registered (TS 24.229 5.4.2.1, RFC 3680, RFC 5628), at the S-CSCF alone.

mod bench;
mod user;

use bench::{Bench, DOMAIN};
use ims_core::Impi;
use ims_diameter::cx::{Ppr, ReasonCode, ResultCode, Rtr, ServerAssignmentType};
use ims_sip::headers::{Contact, From, SubscriptionState, To};
use ims_sip::{Message, Name};
use scscf::Scscf;
use std::time::Duration;
use user::*;

const AS: &str = "127.0.0.1:5080";
const NAMES: [(&str, &str); 1] = [("as.ims.example", AS)];

/// With an application server that may be asked for.
fn node() -> Bench<Scscf> {
    up(|config| {
        // The bench speaks UDP alone.
        config.udp_limit = 9000;
        for (host, at) in NAMES {
            config.next_hops.insert(host.into(), vec![format!("udp:{at}")]);
        }
    })
}

fn limited_to(subscriptions: usize) -> Bench<Scscf> {
    up(|config| {
        config.udp_limit = 9000;
        config.limits.max_subscriptions = subscriptions;
    })
}

struct Subscribe {
    from: &'static str,
    uri: String,
    asserted: String,
    call_id: &'static str,
    to_tag: String,
    cseq: u32,
    expires: Option<u32>,
    more: &'static str,
}

/// As the P-CSCF passes it on for the phone.
fn subscribe() -> Subscribe {
    Subscribe {
        from: PCSCF,
        uri: format!("sip:+15550001@{DOMAIN}"),
        asserted: format!("<sip:+15550001@{DOMAIN}>"),
        call_id: "sub-1",
        to_tag: String::new(),
        cseq: 1,
        expires: Some(600_000),
        more: "",
    }
}

impl Subscribe {
    /// In the dialog that a NOTIFY of ours has shown.
    fn within(mut self, notify: &Message) -> Self {
        self.to_tag = format!(";tag={}", notify.require::<From<'_>>().unwrap().tag().unwrap());
        self.uri = notify.require::<Contact<'_>>().unwrap().addr().unwrap().uri.to_owned();
        self.cseq += 1;
        self
    }

    fn text(&self) -> String {
        let Self { from, uri, asserted, call_id, to_tag, cseq, expires, more } = self;
        let expires = expires.map(|e| format!("Expires: {e}\n")).unwrap_or_default();
        let asserted = if asserted.is_empty() { String::new() } else { format!("P-Asserted-Identity: {asserted}\n") };
        format!(
            "SUBSCRIBE {uri} SIP/2.0
            Via: SIP/2.0/UDP {from};branch=z9hG4bK-{call_id}-{cseq}-{}
            Record-Route: <sip:dialog@{from};lr>
            From: <sip:+15550001@{DOMAIN}>;tag=watcher
            To: <sip:+15550001@{DOMAIN}>{to_tag}
            Call-ID: {call_id}
            CSeq: {cseq} SUBSCRIBE
            Max-Forwards: 68
            Contact: <sip:watcher@192.0.2.5:5062>
            P-Charging-Vector: icid-value=\"sub-icid\";orig-ioi=visited
            {asserted}{expires}{more}Content-Length: 0",
            expires.len()
        )
    }
}

fn ask(bench: &mut Bench<Scscf>, subscribe: &Subscribe) -> Message {
    bench.receive(subscribe.from, &with_event(&subscribe.text()));
    bench.sent(subscribe.from)
}

fn with_event(text: &str) -> String {
    match text.contains("\nEvent:") {
        true => text.to_owned(),
        false => text.replace("Content-Length: 0", "Event: reg\nContent-Length: 0"),
    }
}

fn answer(bench: &mut Bench<Scscf>, at: &str, notify: &Message, status: u16) {
    bench.receive_message(at, &Message::response(notify, status, None));
}

/// The next NOTIFY, answered with 200.
fn notified(bench: &mut Bench<Scscf>, at: &str) -> Message {
    let notify = bench.sent(at);
    assert_eq!(notify.method().as_str(), "NOTIFY", "{notify:?}");
    answer(bench, at, &notify, 200);
    notify
}

fn body(notify: &Message) -> &str {
    std::str::from_utf8(notify.body()).unwrap()
}

fn state(notify: &Message) -> String {
    notify.text(Name::SubscriptionState).unwrap().to_owned()
}

/// A registered user and its subscription; gives the first NOTIFY.
fn watched() -> (Bench<Scscf>, Message) {
    let mut bench = node();
    registered(&mut bench);
    assert_eq!(ask(&mut bench, &subscribe()).status(), 200);
    let notify = notified(&mut bench, PCSCF);
    bench.nothing_sent();
    (bench, notify)
}

fn refresh_registration(bench: &mut Bench<Scscf>, request: Register) -> Message {
    bench.receive(PCSCF, &request.protected().text());
    bench.hss_answers(ok_saa());
    bench.sent(PCSCF)
}

fn subscriptions(bench: &Bench<Scscf>) -> u64 {
    use ims_core::Node;
    bench.node.snapshot()["subscriptions"].as_u64().unwrap()
}

fn is_quiet(bench: &mut Bench<Scscf>) {
    use ims_core::Node;
    bench.nothing_sent();
    bench.wait(Duration::from_secs(40));
    bench.drop_sent();
    assert!(bench.node.is_quiet(), "{}", bench.node.snapshot());
}

/// TS 24.229 5.4.2.1.2.
#[test]
fn who_subscribes_is_told_at_once_in_its_dialog() {
    let mut bench = node();
    registered(&mut bench);
    let ok = ask(&mut bench, &subscribe());
    assert_eq!((ok.status(), ok.text(Name::Expires)), (200, Some("600000")));
    assert_eq!(ok.text(Name::RecordRoute), Some("<sip:dialog@127.0.0.1:5070;lr>"));
    assert!(ok.text(Name::PChargingVector).unwrap().contains("term-ioi"), "{ok:?}");
    let notify = notified(&mut bench, PCSCF);
    assert_eq!(notify.uri(), "sip:watcher@192.0.2.5:5062");
    assert_eq!(notify.text(Name::Route), Some("<sip:dialog@127.0.0.1:5070;lr>"));
    assert_eq!(notify.require::<To<'_>>().unwrap().tag(), Some("watcher"));
    assert_eq!(notify.require::<From<'_>>().unwrap().tag(), ok.require::<To<'_>>().unwrap().tag());
    assert_eq!((notify.text(Name::CallId), notify.text(Name::CSeq)), (Some("sub-1"), Some("1 NOTIFY")));
    assert_eq!((notify.text(Name::Event), state(&notify).as_str()), (Some("reg"), "active;expires=600000"));
    assert_eq!(notify.text(Name::Contact), ok.text(Name::Contact));
    assert_eq!(notify.text(Name::ContentType), Some("application/reginfo+xml"));
    assert!(notify.text(Name::PChargingVector).unwrap().starts_with("icid-value=sub-icid;orig-ioi="), "{notify:?}");
    let text = body(&notify);
    assert!(text.contains("version=\"0\" state=\"full\""), "{text}");
    assert!(
        text.contains(&format!("aor=\"sip:+15550001@{DOMAIN}\"")) && text.contains("aor=\"tel:+15550001\""),
        "{text}"
    );
    assert!(!text.contains("aor=\"sip:001010000000001@"), "a barred identity is not told: {text}");
    assert!(
        text.contains("event=\"created\" expires=\"7200\"><uri>sip:001010000000001@192.0.2.5:5062</uri>"),
        "{text}"
    );
    let instance = "<unknown-param name=\"+sip.instance\">&quot;&lt;urn:gsma:imei:35-1-0&gt;&quot;</unknown-param>";
    assert!(text.contains(instance), "{text}");
    assert!(text.contains(&format!("<gr:pub-gruu uri=\"sip:+15550001@{DOMAIN};gr=urn:uuid:")), "{text}");
    is_quiet(&mut bench);
}

/// TS 24.229 5.4.2.1.1 step 1.
#[test]
fn the_user_its_pcscf_and_its_servers_may_and_nobody_else() {
    let mut bench = node();
    let server = "<InitialFilterCriteria><Priority>0</Priority><TriggerPoint><ConditionTypeCNF>0</ConditionTypeCNF>\
                  <SPT><ConditionNegated>0</ConditionNegated><Group>0</Group><Method>INVITE</Method></SPT></TriggerPoint><ApplicationServer><ServerName>sip:as.ims.example:5080</ServerName>\
                  </ApplicationServer></InitialFilterCriteria>";
    let challenge = challenged(&mut bench, &register(1));
    bench.receive(PCSCF, &register(2).answering(&challenge, &RES, "auth").text());
    bench.hss_answers(saa(ResultCode::SUCCESS, Some(profile(server))));
    assert_eq!(bench.sent(PCSCF).status(), 200);
    let by = |asserted: &str, call_id| Subscribe { asserted: asserted.into(), call_id, ..subscribe() };
    for (asserted, call_id) in [
        ("<tel:+1-555-0001>", "a"),
        ("<sip:x@elsewhere.example>, <sip:+15550001@ims.mnc001.mcc001.3gppnetwork.org>", "b"),
        ("<sip:pcscf.ims.mnc001.mcc001.3gppnetwork.org:5070>", "c"),
        ("\"Voicemail\" <sip:AS.ims.example>", "d"),
    ] {
        assert_eq!(ask(&mut bench, &by(asserted, call_id)).status(), 200, "{asserted}");
        notified(&mut bench, PCSCF);
    }
    for (asserted, call_id) in [
        ("<sip:+15550002@ims.mnc001.mcc001.3gppnetwork.org>", "e"),
        ("<sip:001010000000001@ims.mnc001.mcc001.3gppnetwork.org>", "f"),
        ("<sip:other.example>", "g"),
        ("", "h"),
    ] {
        assert_eq!(ask(&mut bench, &by(asserted, call_id)).status(), 403, "{asserted}");
    }
    assert_eq!((bench.refusals("may-not-subscribe"), subscriptions(&bench)), (4, 4));
    let at_the_server = Subscribe { from: AS, asserted: "<sip:as.ims.example>".into(), call_id: "i", ..subscribe() };
    assert_eq!(ask(&mut bench, &at_the_server).status(), 200);
    notified(&mut bench, AS);
    is_quiet(&mut bench);
}

/// TS 24.229 5.4.2.1.1.
#[test]
fn what_is_no_subscription_to_registrations_is_refused() {
    let mut bench = node();
    let here = format!("sip:scscf.{DOMAIN}:6060");
    assert_eq!(ask(&mut bench, &Subscribe { uri: here.clone(), ..subscribe() }).status(), 480);
    assert_eq!(bench.refusals("not-registered"), 1);
    let presence = Subscribe { uri: here.clone(), more: "Event: presence\n", call_id: "p", ..subscribe() };
    let refused = ask(&mut bench, &presence);
    assert_eq!((refused.status(), refused.text(Name::AllowEvents)), (489, Some("reg")));
    assert_eq!(bench.refusals("bad-event"), 1);
    registered(&mut bench);
    let not_accepted = Subscribe { more: "Accept: application/pidf+xml\n", call_id: "x", ..subscribe() };
    let refused = ask(&mut bench, &not_accepted);
    assert_eq!((refused.status(), refused.text(Name::Accept)), (406, Some("application/reginfo+xml")));
    let accepted = Subscribe { more: "Accept: text/plain, application/reginfo+xml;q=1\n", call_id: "y", ..subscribe() };
    assert_eq!(ask(&mut bench, &accepted).status(), 200);
    notified(&mut bench, PCSCF);
    let brief = ask(&mut bench, &Subscribe { expires: Some(30), call_id: "z", ..subscribe() });
    assert_eq!((brief.status(), brief.text(Name::MinExpires)), (423, Some("60")));
    bench.receive(PCSCF, &with_event(&Subscribe { call_id: "w", ..subscribe() }.text()).replace("Contact:", "X:"));
    assert_eq!(bench.sent(PCSCF).status(), 400);
    let stranger = Subscribe { uri: here, to_tag: ";tag=abcdefghij7".into(), call_id: "v", ..subscribe() };
    assert_eq!(ask(&mut bench, &stranger).status(), 481);
    for (name, n) in [("not-acceptable", 1), ("interval-too-brief", 1), ("dialog", 1), ("no-subscription", 1)] {
        assert_eq!(bench.refusals(name), n, "{name}");
    }
    is_quiet(&mut bench);
}

#[test]
fn a_full_table_takes_no_more_and_one_user_has_no_endless_number() {
    let mut bench = limited_to(22);
    registered(&mut bench);
    let calls: Vec<&'static str> = (0..23).map(|n| &*Box::leak(format!("call{n}").into_boxed_str())).collect();
    for call_id in &calls[..20] {
        assert_eq!(ask(&mut bench, &Subscribe { call_id, ..subscribe() }).status(), 200);
        notified(&mut bench, PCSCF);
    }
    // Two more, and the oldest two have to go.
    for (n, call_id) in calls[20..22].iter().enumerate() {
        assert_eq!(ask(&mut bench, &Subscribe { call_id, ..subscribe() }).status(), 200);
        let last = notified(&mut bench, PCSCF);
        assert_eq!((last.text(Name::CallId), state(&last).as_str()), (Some(calls[n]), "terminated;reason=probation"));
        assert_eq!(notified(&mut bench, PCSCF).text(Name::CallId), Some(*call_id));
    }
    assert_eq!((subscriptions(&bench), bench.refusals("subscription-displaced")), (20, 2));
    let mut bench = limited_to(1);
    registered(&mut bench);
    assert_eq!(ask(&mut bench, &subscribe()).status(), 200);
    notified(&mut bench, PCSCF);
    let full = ask(&mut bench, &Subscribe { call_id: "more", ..subscribe() });
    assert!(full.status() == 503 && full.has(Name::RetryAfter), "{full:?}");
    is_quiet(&mut bench);
}

/// RFC 3680 5.
#[test]
fn a_refresh_is_told_and_so_is_a_shorter_time() {
    let (mut bench, _) = watched();
    bench.wait(Duration::from_secs(100));
    refresh_registration(&mut bench, register(3));
    let notify = notified(&mut bench, PCSCF);
    assert_eq!(notify.text(Name::CSeq), Some("2 NOTIFY"));
    let text = body(&notify);
    assert!(
        text.contains("version=\"1\" state=\"full\"") && text.matches("event=\"refreshed\"").count() == 2,
        "{text}"
    );
    assert_eq!(state(&notify), "active;expires=599900");
    refresh_registration(&mut bench, Register { expires: 600, ..register(4) });
    let text = body(&notified(&mut bench, PCSCF)).to_owned();
    assert!(text.contains("event=\"shortened\" expires=\"600\""), "{text}");
    is_quiet(&mut bench);
}

/// RFC 3680 5.
#[test]
fn a_second_phone_is_told_in_part() {
    let (mut bench, _) = watched();
    let contact = "<sip:001010000000001@192.0.2.6:5062>;+sip.instance=\"<urn:gsma:imei:35-2-0>\"";
    let second = |cseq| Register { call_id: "call-2", contact: contact.into(), expires: 600, ..register(cseq) };
    let challenge = challenged(&mut bench, &second(1));
    bench.receive(PCSCF, &second(2).answering(&challenge, &RES, "auth").text());
    bench.hss_answers(ok_saa());
    assert_eq!(bench.sent(PCSCF).status(), 200);
    let text = body(&notified(&mut bench, PCSCF)).to_owned();
    assert!(text.contains("state=\"partial\"") && !text.contains("192.0.2.5"), "{text}");
    assert_eq!(text.matches("<uri>sip:001010000000001@192.0.2.6:5062").count(), 2, "{text}");
    // It is not refreshed.
    bench.wait(Duration::from_secs(600));
    let text = body(&notified(&mut bench, PCSCF)).to_owned();
    assert!(text.contains("version=\"2\" state=\"partial\"") && text.contains("event=\"expired\""), "{text}");
    assert!(text.contains("id=\"a") && text.contains("state=\"active\">\n<contact"), "the user is still there: {text}");
    is_quiet(&mut bench);
}

/// TS 24.229 5.4.2.1.2.
#[test]
fn the_end_of_the_registration_is_the_end_of_the_subscription() {
    let (mut bench, _) = watched();
    bench.receive(PCSCF, &Register { expires: 0, ..register(3) }.protected().text());
    assert_eq!(kind_of(&bench.hss_answers(ok_saa())), ServerAssignmentType::UserDeregistration);
    assert_eq!(bench.sent(PCSCF).status(), 200);
    let notify = notified(&mut bench, PCSCF);
    assert_eq!(state(&notify), "terminated;reason=noresource");
    let text = body(&notify);
    assert!(text.contains("state=\"full\"") && text.matches("event=\"unregistered\"").count() == 2, "{text}");
    assert!(!text.contains("state=\"active\""), "{text}");
    assert_eq!(subscriptions(&bench), 0);
    is_quiet(&mut bench);
    // By itself, too.
    let (mut bench, _) = watched();
    bench.wait(Duration::from_secs(7200));
    let notify = notified(&mut bench, PCSCF);
    assert!(body(&notify).contains("event=\"expired\"") && state(&notify).starts_with("terminated"), "{notify:?}");
    bench.hss_answers(ok_saa());
    is_quiet(&mut bench);
}

/// TS 24.229 5.4.1.5.
#[test]
fn the_hss_ends_registrations_and_the_ue_hears_whether_to_come_back() {
    let cases = [
        (ReasonCode::PermanentTermination, "rejected"),
        (ReasonCode::NewServerAssigned, "deactivated"),
        (ReasonCode::ServerChange, "deactivated"),
        (ReasonCode::RemoveScscf, "deactivated"),
    ];
    for (reason, word) in cases {
        let (mut bench, _) = watched();
        let rtr = Rtr { impi: Impi::parse(IMPI).unwrap(), impus: Vec::new(), reason, reason_info: None };
        bench.hss_asks(&format!("scscf.{DOMAIN}"), rtr.to_message());
        let notify = notified(&mut bench, PCSCF);
        assert_eq!(state(&notify), "terminated;reason=noresource");
        assert_eq!(body(&notify).matches(&format!("state=\"terminated\" event=\"{word}\"")).count(), 2, "{word}");
        is_quiet(&mut bench);
    }
}

/// TS 29.228 6.2.
#[test]
fn a_changed_profile_is_told_by_identity() {
    let (mut bench, _) = watched();
    let xml = profile(&format!("<PublicIdentity><Identity>sip:new@{DOMAIN}</Identity></PublicIdentity>"))
        .replace("<PublicIdentity><Identity>tel:+15550001</Identity></PublicIdentity>", "");
    let ppr = Ppr { impi: Impi::parse(IMPI).unwrap(), user_data: Some(xml.into_bytes()), charging: None };
    bench.hss_asks(&format!("scscf.{DOMAIN}"), ppr.to_message());
    let text = body(&notified(&mut bench, PCSCF)).to_owned();
    assert!(text.contains("state=\"partial\""), "what has not changed is not told again: {text}");
    let of =
        |aor: &str| text.split("<registration ").find(|r| r.contains(&format!("aor=\"{aor}\""))).map(str::to_owned);
    assert!(of(&format!("sip:new@{DOMAIN}")).unwrap().contains("state=\"active\" event=\"created\""), "{text}");
    assert!(of("tel:+15550001").unwrap().contains("state=\"terminated\" event=\"deactivated\""), "{text}");
    assert_eq!(of(&format!("sip:+15550001@{DOMAIN}")), None, "{text}");
    is_quiet(&mut bench);
}

/// RFC 6665 4.2.1.
#[test]
fn a_subscription_is_refreshed_and_ended_in_its_dialog() {
    let (mut bench, first) = watched();
    bench.wait(Duration::from_secs(1000));
    let again = Subscribe { expires: None, ..subscribe() }.within(&first);
    let ok = ask(&mut bench, &again);
    assert_eq!((ok.status(), ok.text(Name::Expires)), (200, Some("3761")));
    let notify = notified(&mut bench, PCSCF);
    assert!(body(&notify).contains("version=\"1\" state=\"full\""), "{notify:?}");
    // An older SUBSCRIBE of the same dialog.
    let late = Subscribe { cseq: 0, call_id: "sub-1", ..subscribe() }.within(&first);
    assert_eq!(ask(&mut bench, &late).status(), 500);
    let other = Subscribe { more: "Event: reg;id=9\n", cseq: 5, ..subscribe() }.within(&first);
    assert_eq!(ask(&mut bench, &other).status(), 481);
    let end = Subscribe { expires: Some(0), cseq: 6, ..subscribe() }.within(&first);
    assert_eq!(ask(&mut bench, &end).text(Name::Expires), Some("0"));
    let last = notified(&mut bench, PCSCF);
    assert_eq!(state(&last), "terminated;reason=timeout");
    assert!(
        body(&last).contains("version=\"2\" state=\"full\"") && body(&last).contains("state=\"active\""),
        "{last:?}"
    );
    let gone = Subscribe { cseq: 9, ..subscribe() }.within(&first);
    assert_eq!(ask(&mut bench, &gone).status(), 481);
    is_quiet(&mut bench);
}

/// RFC 6665 4.2.1.
#[test]
fn a_look_without_a_subscription() {
    let mut bench = node();
    registered(&mut bench);
    let with_id = Subscribe { expires: Some(0), more: "Event: reg;id=5\n", ..subscribe() };
    assert_eq!(ask(&mut bench, &with_id).text(Name::Expires), Some("0"));
    let notify = notified(&mut bench, PCSCF);
    assert_eq!((notify.text(Name::Event), state(&notify).as_str()), (Some("reg;id=5"), "terminated;reason=timeout"));
    assert!(body(&notify).contains("state=\"active\""), "{notify:?}");
    assert_eq!(subscriptions(&bench), 0);
    is_quiet(&mut bench);
}

/// RFC 6665 4.2.1.
#[test]
fn an_unrefreshed_subscription_ends() {
    let mut bench = node();
    registered(&mut bench);
    assert_eq!(ask(&mut bench, &Subscribe { expires: Some(60), ..subscribe() }).status(), 200);
    notified(&mut bench, PCSCF);
    bench.wait(Duration::from_secs(60));
    assert_eq!(state(&notified(&mut bench, PCSCF)), "terminated;reason=timeout");
    is_quiet(&mut bench);
}

#[test]
fn one_notify_at_a_time_and_the_rest_is_told_after_its_answer() {
    let mut bench = node();
    registered(&mut bench);
    assert_eq!(ask(&mut bench, &subscribe()).status(), 200);
    let first = bench.sent(PCSCF);
    refresh_registration(&mut bench, register(3));
    bench.wait(Duration::from_millis(100));
    refresh_registration(&mut bench, register(4));
    bench.nothing_sent();
    answer(&mut bench, PCSCF, &first, 200);
    let second = bench.sent(PCSCF);
    assert!(body(&second).contains("version=\"1\" state=\"full\""), "{second:?}");
    // The end, too, waits its turn, and tells what it was about.
    let reason = ReasonCode::PermanentTermination;
    let rtr = Rtr { impi: Impi::parse(IMPI).unwrap(), impus: Vec::new(), reason, reason_info: None };
    bench.hss_asks(&format!("scscf.{DOMAIN}"), rtr.to_message());
    bench.nothing_sent();
    let late = Subscribe { ..subscribe() }.within(&first);
    assert_eq!(ask(&mut bench, &late).status(), 481, "it is over");
    answer(&mut bench, PCSCF, &second, 200);
    let last = notified(&mut bench, PCSCF);
    assert!(body(&last).contains("version=\"2\" state=\"full\"") && body(&last).contains("rejected"), "{last:?}");
    assert!(last.first::<SubscriptionState<'_>>().unwrap().unwrap().is_terminated());
    assert_eq!(subscriptions(&bench), 0);
    is_quiet(&mut bench);
}

/// RFC 6665 4.2.2.
#[test]
fn a_subscriber_that_has_forgotten_is_not_told_again() {
    for (status, retry, left) in [(481, false, 0), (503, false, 0), (500, true, 1), (200, false, 1)] {
        let mut bench = node();
        registered(&mut bench);
        assert_eq!(ask(&mut bench, &subscribe()).status(), 200);
        let notify = bench.sent(PCSCF);
        let mut response = Message::response(&notify, status, None);
        if retry {
            response.set(Name::RetryAfter, 5);
        }
        bench.receive_message(PCSCF, &response);
        assert_eq!((subscriptions(&bench), bench.refusals("subscription-lost")), (left, 1 - left), "{status}");
        bench.wait(Duration::from_secs(1));
        refresh_registration(&mut bench, register(3));
        if left > 0 {
            assert!(body(&notified(&mut bench, PCSCF)).contains("state=\"full\""));
        }
        is_quiet(&mut bench);
    }
    // Nor one that is silent.
    let mut bench = node();
    registered(&mut bench);
    assert_eq!(ask(&mut bench, &subscribe()).status(), 200);
    bench.wait(Duration::from_secs(33));
    assert!(bench.drop_sent() > 1);
    assert_eq!((subscriptions(&bench), bench.refusals("subscription-lost")), (0, 1));
}

/// TS 24.229 5.4.8.2.
#[test]
fn contacts_for_emergencies_are_not_told() {
    let (mut bench, _) = watched();
    let contact = "<sip:001010000000001@192.0.2.5:5062;sos>;+sip.instance=\"<urn:gsma:imei:35-1-0>\"";
    let sos = |cseq| Register { contact: contact.into(), call_id: "call-sos", ..register(cseq) };
    let challenge = challenged(&mut bench, &sos(1));
    bench.receive(PCSCF, &sos(2).answering(&challenge, &RES, "auth").text());
    bench.hss_answers(ok_saa());
    assert_eq!(bench.sent(PCSCF).status(), 200);
    bench.nothing_sent();
    bench.wait(Duration::from_secs(10));
    bench.receive(PCSCF, &Register { expires: 0, ..register(5) }.protected().text());
    assert_eq!(bench.sent(PCSCF).status(), 200);
    let text = body(&notified(&mut bench, PCSCF)).to_owned();
    assert!(text.matches("event=\"unregistered\"").count() == 2 && !text.contains("sos"), "{text}");
    is_quiet(&mut bench);
}
