//! What a strict handset does and refuses, against a network made by hand (TS 24.229 5.1.1).

use ims_aka::{Algorithm, Av, Sqn, vector};
use ims_core::sa::{SaChange, SaError};
use ims_core::{Action, Command, CommandId, Ctx, Event, Flow, Node, Packet, RequestId, Rng, Secret, Time};
use ims_sip::{Message, Name};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;
use ue::{Config, Key, Quirk, Ue};

const K: &str = "465b5ce8b199b49faa5f0a2ee238a6bc";
const OPC: &str = "cd63cb71954a9f4e48a5994e37a02baf";
const DOMAIN: &str = "ims.mnc001.mcc001.3gppnetwork.org";

fn algorithm() -> Algorithm {
    Algorithm::milenage(Secret::from_hex(K).unwrap(), Secret::from_hex(OPC).unwrap())
}

fn config() -> Config {
    Config { k: Key::from_hex(K).unwrap(), opc: Key::from_hex(OPC), ..Config::default() }
}

/// A handset, and a test that plays the network.
struct Bench {
    ue: Ue,
    now: Time,
    rng: Rng,
    actions: Vec<Action>,
    sqn: Sqn,
}

impl Bench {
    fn new(config: Config) -> Self {
        let ue = Ue::new(config).unwrap();
        let mut bench =
            Self { ue, now: Time::from_secs(1000), rng: Rng::from_u64(5), actions: Vec::new(), sqn: Sqn(32) };
        bench.tell(Event::Start);
        bench
    }

    fn tell(&mut self, event: Event) {
        let mut ctx = Ctx { now: self.now, rng: &mut self.rng, actions: &mut self.actions };
        self.ue.handle(event, &mut ctx);
    }

    fn command(&mut self, call: &str) {
        let command = Command { id: CommandId(7), call: call.into(), args: Value::Null };
        self.tell(Event::Command(command));
    }

    /// Lets time pass until the handset wants to be woken, and wakes it.
    fn wake(&mut self) {
        self.now = self.ue.deadline().unwrap();
        self.tell(Event::Timeout);
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.ue.deadline().is_some_and(|d| d <= end) {
            self.wake();
        }
        self.now = end;
    }

    /// The request that was sent last, and its flow.
    fn sent(&mut self) -> (Message, Flow) {
        let at = self.actions.iter().rposition(|a| matches!(a, Action::SendSip { .. })).expect("nothing was sent");
        let Action::SendSip { flow, bytes, .. } = self.actions.remove(at) else { unreachable!() };
        (Message::parse(bytes).unwrap(), flow)
    }

    fn sa_change(&mut self) -> (RequestId, SaChange) {
        let at = self.actions.iter().position(|a| matches!(a, Action::Sa { .. })).expect("no SA was asked for");
        let Action::Sa { id, change } = self.actions.remove(at) else { unreachable!() };
        (id, change)
    }

    /// The network's answer on the way back of this flow.
    fn answer(&mut self, response: &Message, local: SocketAddr, remote: SocketAddr) {
        let bytes = response.to_bytes();
        self.tell(Event::Sip(Packet { flow: Flow::udp(local, remote), bytes }));
    }

    fn answer_in_clear(&mut self, response: &Message) {
        self.answer(response, "127.0.0.1:5062".parse().unwrap(), "127.0.0.1:5060".parse().unwrap());
    }

    fn answer_in_sa(&mut self, response: &Message) {
        self.answer(response, "127.0.0.1:5064".parse().unwrap(), "127.0.0.1:6101".parse().unwrap());
    }

    fn vector(&mut self) -> Av {
        self.sqn = self.sqn.next(1);
        vector(&algorithm(), self.rng.bytes(), self.sqn, [0x80, 0])
    }

    fn challenge(&mut self, request: &Message, extra: &str) -> Message {
        let av = self.vector();
        let nonce = base64(&[av.rand, av.autn].concat());
        let mut m = Message::response(request, 401, Some("net"));
        m.set(
            Name::WwwAuthenticate,
            format!("Digest realm=\"{DOMAIN}\",nonce=\"{nonce}\",algorithm=AKAv1-MD5,qop=\"auth\"{extra}"),
        );
        m
    }

    fn challenge_with_sa(&mut self, request: &Message) -> Message {
        let mut m = self.challenge(request, "");
        m.set(
            Name::SecurityServer,
            "ipsec-3gpp;q=0.5;alg=hmac-sha-1-96;ealg=aes-cbc;spi-c=2001;spi-s=2002;port-c=6101;port-s=6100",
        );
        m
    }

    fn ok(&self, request: &Message, expires: u32) -> Message {
        let mut m = Message::response(request, 200, Some("net"));
        m.set(Name::Contact, format!("{};expires={expires}", request.text(Name::Contact).unwrap()));
        m.set(Name::ServiceRoute, format!("<sip:orig@scscf.{DOMAIN}:6060;lr>"));
        m.set(Name::PAssociatedUri, format!("<sip:001010000000001@{DOMAIN}>"));
        m
    }

    /// Registers through associations; the handset is left registered for `expires` seconds.
    fn register(&mut self, expires: u32) -> (Message, Flow) {
        self.command("register");
        let (first, _) = self.sent();
        let challenge = self.challenge_with_sa(&first);
        self.answer_in_clear(&challenge);
        let (id, _) = self.sa_change();
        self.tell(Event::Sa { id, result: Ok(()) });
        let (second, flow) = self.sent();
        let ok = self.ok(&second, expires);
        self.answer_in_sa(&ok);
        (second, flow)
    }

    fn reply(&self) -> Result<&Value, &str> {
        let reply = self.actions.iter().find_map(|a| match a {
            Action::Reply { result, .. } => Some(result),
            _ => None,
        });
        reply.expect("the command is not answered").as_ref().map_err(|p| p.kind.as_str())
    }

    fn fault(&self, name: &str) -> u64 {
        self.ue.faults().get(name).copied().unwrap_or(0)
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[test]
fn the_first_register_has_an_empty_authorization_and_all_offers() {
    let mut b = Bench::new(config());
    b.command("register");
    let (m, flow) = b.sent();
    assert_eq!(m.uri(), format!("sip:{DOMAIN}"));
    let authorization = m.text(Name::Authorization).unwrap();
    assert!(authorization.contains("nonce=\"\"") && authorization.contains("response=\"\""), "{authorization}");
    assert!(authorization.contains(&format!("username=\"001010000000001@{DOMAIN}\"")), "{authorization}");
    for name in [Name::Require, Name::ProxyRequire, Name::Supported] {
        assert!(m.has_token(name, "sec-agree"), "{name:?}");
    }
    assert_eq!(m.all::<ims_sip::headers::SecurityClient>().unwrap().len(), 5);
    assert!(m.text(Name::Contact).unwrap().contains("127.0.0.1:5064"), "the protected server port");
    assert_eq!((flow.local.port(), flow.remote.port()), (5062, 5060));
}

#[test]
fn the_answer_leaves_from_port_uc_after_the_kernel_agreed() {
    let mut b = Bench::new(config());
    b.command("register");
    let (first, _) = b.sent();
    let challenge = b.challenge_with_sa(&first);
    b.answer_in_clear(&challenge);
    assert!(!b.actions.iter().any(|a| matches!(a, Action::SendSip { .. })), "nothing before the kernel has said yes");
    let (id, change) = b.sa_change();
    let SaChange::Install { set, .. } = change else { panic!("{change:?}") };
    assert_eq!((set.spi_pc, set.spi_ps, set.port_pc, set.port_ps, set.port_us), (2001, 2002, 6101, 6100, 5064));
    b.tell(Event::Sa { id, result: Ok(()) });
    let (second, flow) = b.sent();
    assert_eq!((flow.local.port(), flow.remote.port()), (set.port_uc, 6100));
    assert!(second.text(Name::SecurityVerify).unwrap().contains("spi-c=2001"));
    assert!(second.text(Name::Via).unwrap().contains("127.0.0.1:5064"), "{:?}", second.text(Name::Via));
    assert_eq!(first.text(Name::CallId), second.text(Name::CallId));
    let ok = b.ok(&second, 600_000);
    b.answer_in_sa(&ok);
    assert_eq!(b.reply().unwrap()["state"], "registered");
    assert!(b.ue.faults().is_empty(), "{:?}", b.ue.faults());
}

#[test]
fn leaked_keys_end_the_attempt() {
    let mut b = Bench::new(config());
    b.command("register");
    let (first, _) = b.sent();
    let challenge = b.challenge(&first, ",ck=\"00112233445566778899aabbccddeeff\"");
    b.answer_in_clear(&challenge);
    assert_eq!(b.reply(), Err("fault-ck/ik leaked"));
    assert_eq!(b.fault("ck/ik leaked"), 1);
}

#[test]
fn a_wrong_key_is_answered_without_auts_and_with_an_empty_response() {
    let mut b = Bench::new(Config { k: Key::from_hex(&K.replace("46", "47")).unwrap(), ..config() });
    b.command("register");
    let (first, _) = b.sent();
    let challenge = b.challenge_with_sa(&first);
    b.answer_in_clear(&challenge);
    let (second, flow) = b.sent();
    let authorization = second.text(Name::Authorization).unwrap();
    assert!(authorization.contains("response=\"\"") && !authorization.contains("auts"), "{authorization}");
    assert_eq!(flow.local.port(), 5062, "no association is made from a challenge that failed");
    assert_eq!(b.fault("mac-failure"), 1);
    assert_ne!(first.text(Name::SecurityClient), second.text(Name::SecurityClient));
}

#[test]
fn an_old_sequence_number_is_answered_with_auts() {
    let mut b = Bench::new(Config { sqn: 1 << 20, ..config() });
    b.command("register");
    let (first, _) = b.sent();
    let challenge = b.challenge_with_sa(&first);
    b.answer_in_clear(&challenge);
    let (second, _) = b.sent();
    assert!(second.text(Name::Authorization).unwrap().contains("auts=\""));
    b.sqn = Sqn(1 << 21);
    let challenge = b.challenge_with_sa(&second);
    b.answer_in_clear(&challenge);
    assert!(matches!(b.sa_change().1, SaChange::Install { .. }));
}

#[test]
fn without_security_server_a_strict_handset_stops_and_a_lenient_one_goes_on() {
    for lenient in [false, true] {
        let mut b = Bench::new(Config { allow_unprotected: lenient, ..config() });
        b.command("register");
        let (first, _) = b.sent();
        let challenge = b.challenge(&first, "");
        b.answer_in_clear(&challenge);
        if lenient {
            let (second, flow) = b.sent();
            assert!(!second.has(Name::SecurityClient) && flow.local.port() == 5062);
            let ok = b.ok(&second, 600);
            b.answer_in_clear(&ok);
            assert!(b.reply().is_ok());
        } else {
            assert_eq!(b.reply(), Err("fault-no-security-server"));
        }
    }
}

#[test]
fn a_200_in_clear_where_an_association_was_due_is_refused() {
    let mut b = Bench::new(config());
    b.command("register");
    let (first, _) = b.sent();
    let challenge = b.challenge_with_sa(&first);
    b.answer_in_clear(&challenge);
    let (id, _) = b.sa_change();
    b.tell(Event::Sa { id, result: Ok(()) });
    let (second, _) = b.sent();
    let ok = b.ok(&second, 600);
    b.answer_in_clear(&ok);
    assert_eq!(b.reply(), Err("fault-outside-sa"));
    assert!(matches!(b.sa_change().1, SaChange::Remove { .. }), "the temporary set goes");
}

#[test]
fn a_200_must_bind_our_contact_with_an_expiry() {
    for (contact, fault) in
        [("<sip:other@127.0.0.1:5064>;expires=600", "fault-contact-not-bound"), ("", "fault-no-expiry")]
    {
        let mut b = Bench::new(Config { sec_agree: false, ..config() });
        b.command("register");
        let (first, _) = b.sent();
        let challenge = b.challenge(&first, "");
        b.answer_in_clear(&challenge);
        let (second, _) = b.sent();
        let mut ok = b.ok(&second, 0);
        if !contact.is_empty() {
            ok.set(Name::Contact, contact);
        }
        b.answer_in_clear(&ok);
        assert_eq!(b.reply(), Err(fault));
    }
}

#[test]
fn a_200_to_the_first_register_proves_nothing() {
    let mut b = Bench::new(config());
    b.command("register");
    let (first, _) = b.sent();
    let ok = b.ok(&first, 600);
    b.answer_in_clear(&ok);
    assert_eq!(b.reply(), Err("fault-unchallenged"));
}

#[test]
fn a_missing_service_route_is_noted() {
    let mut b = Bench::new(Config { sec_agree: false, ..config() });
    b.command("register");
    let (first, _) = b.sent();
    let challenge = b.challenge(&first, "");
    b.answer_in_clear(&challenge);
    let (second, _) = b.sent();
    let mut ok = b.ok(&second, 600);
    ok.remove(Name::ServiceRoute);
    b.answer_in_clear(&ok);
    assert!(b.reply().is_ok());
    assert_eq!(b.fault("no-service-route"), 1);
}

#[test]
fn a_refresh_is_due_at_half_the_time_and_goes_through_the_associations() {
    let mut b = Bench::new(config());
    let (_, flow) = b.register(600);
    b.actions.clear();
    b.pass(Duration::from_secs(299));
    assert!(b.actions.is_empty(), "{:?}", b.actions);
    b.pass(Duration::from_secs(2));
    let (refresh, again) = b.sent();
    assert_eq!((again.local, again.remote), (flow.local, flow.remote));
    assert!(refresh.has(Name::SecurityVerify) && refresh.has(Name::SecurityClient));
    assert!(refresh.text(Name::Authorization).unwrap().contains("nc=00000002"));
    let ok = b.ok(&refresh, 600);
    b.answer_in_sa(&ok);
    assert_eq!(b.ue.binding().unwrap().expires, b.now + Duration::from_secs(600));
}

#[test]
fn a_challenged_refresh_makes_a_new_set_and_retires_the_old_one() {
    let mut b = Bench::new(config());
    b.register(600);
    b.command("refresh");
    b.actions.retain(|a| !matches!(a, Action::Sa { .. }));
    let (refresh, _) = b.sent();
    let mut challenge = b.challenge(&refresh, "");
    challenge.set(
        Name::SecurityServer,
        "ipsec-3gpp;alg=hmac-sha-1-96;ealg=aes-cbc;spi-c=3001;spi-s=3002;port-c=6102;port-s=6100",
    );
    b.answer_in_sa(&challenge);
    let (id, change) = b.sa_change();
    let SaChange::Install { set, .. } = change else { panic!("{change:?}") };
    assert_ne!(set.port_uc, 5065, "the client port changes (TS 33.203 7.4)");
    b.tell(Event::Sa { id, result: Ok(()) });
    let (second, flow) = b.sent();
    assert_eq!(flow.local.port(), set.port_uc);
    let ok = b.ok(&second, 600);
    b.answer(&ok, "127.0.0.1:5064".parse().unwrap(), "127.0.0.1:6102".parse().unwrap());
    assert!(matches!(b.sa_change().1, SaChange::Extend { .. }));
    assert_eq!(b.ue.snapshot()["sets"].as_array().unwrap().len(), 2);
    b.pass(Duration::from_secs(129));
    assert!(matches!(b.sa_change().1, SaChange::Remove { .. }));
    assert_eq!(b.ue.snapshot()["sets"].as_array().unwrap().len(), 1);
}

#[test]
fn deregistration_takes_the_associations_away() {
    let mut b = Bench::new(config());
    b.register(600);
    b.actions.clear();
    b.command("deregister");
    let (m, _) = b.sent();
    assert_eq!(m.text(Name::Expires), Some("0"));
    let mut ok = Message::response(&m, 200, Some("net"));
    ok.remove(Name::Contact);
    b.answer_in_sa(&ok);
    assert!(b.reply().is_ok() && b.ue.binding().is_none());
    assert!(matches!(b.sa_change().1, SaChange::Remove { .. }));
    b.pass(Duration::from_secs(200));
    assert!(b.ue.is_quiet() && b.ue.deadline().is_none());
}

#[test]
fn a_registration_that_is_not_renewed_ends() {
    let mut b = Bench::new(config());
    b.register(600);
    b.pass(Duration::from_secs(599));
    assert!(b.ue.binding().is_some());
    b.pass(Duration::from_secs(200));
    assert!(b.ue.binding().is_none());
    assert_eq!(b.ue.snapshot()["sets"], json!([]));
}

#[test]
fn an_interval_too_brief_is_obeyed_once() {
    let mut b = Bench::new(Config { expires: 30, ..config() });
    b.command("register");
    for expected in ["30", "60"] {
        let (m, _) = b.sent();
        assert_eq!(m.text(Name::Expires), Some(expected));
        let mut brief = Message::response(&m, 423, Some("net"));
        brief.set(Name::MinExpires, if expected == "30" { 60 } else { 90 });
        b.answer_in_clear(&brief);
    }
    assert_eq!(b.reply(), Err("status-423"));
}

#[test]
fn no_answer_at_all_is_a_timeout_and_is_tried_again_when_asked_for() {
    let retry = Some(ims_core::config::Span::secs(30));
    let mut b = Bench::new(Config { retry, ..config() });
    b.command("register");
    b.pass(Duration::from_secs(130));
    assert_eq!(b.reply(), Err("timeout"));
    b.actions.clear();
    b.pass(Duration::from_secs(60));
    assert_eq!(b.sent().0.text(Name::Expires), Some("600000"));
}

#[test]
fn a_kernel_without_esp_ends_the_attempt() {
    let mut b = Bench::new(config());
    b.command("register");
    let (first, _) = b.sent();
    let challenge = b.challenge_with_sa(&first);
    b.answer_in_clear(&challenge);
    let (id, _) = b.sa_change();
    b.tell(Event::Sa { id, result: Err(SaError::NoEsp) });
    assert_eq!(b.reply(), Err("sa-refused"));
}

#[test]
fn a_handset_with_a_quirk_misbehaves() {
    let mut b = Bench::new(Config { quirk: Some(Quirk::ClaimsProtection), ..config() });
    b.command("register");
    assert!(b.sent().0.text(Name::Authorization).unwrap().contains("integrity-protected=\"yes\""));
}

#[test]
fn hostile_answers_do_no_harm() {
    let mut b = Bench::new(config());
    b.command("register");
    let (first, _) = b.sent();
    for nonce in ["", "AAAA", "%%%", &"A".repeat(4000)] {
        let mut m = Message::response(&first, 401, Some("net"));
        m.set(Name::WwwAuthenticate, format!("Digest realm=\"{DOMAIN}\",nonce=\"{nonce}\",algorithm=AKAv1-MD5"));
        b.answer_in_clear(&m);
        b.command("register");
    }
    assert!(b.fault("bad-nonce") >= 1);
}

fn refused(request: &Message, status: u16, retry_after: Option<u32>) -> Message {
    let mut m = Message::response(request, status, Some("net"));
    if let Some(seconds) = retry_after {
        m.set(Name::RetryAfter, seconds);
    }
    m
}

fn trying_again(obey_retry_after: bool) -> Config {
    Config { sec_agree: false, retry: Some(ims_core::config::Span::secs(30)), obey_retry_after, ..config() }
}

impl Bench {
    fn register_in_clear(&mut self, expires: u32) {
        self.command("register");
        let (first, _) = self.sent();
        let challenge = self.challenge(&first, "");
        self.answer_in_clear(&challenge);
        let (second, _) = self.sent();
        let ok = self.ok(&second, expires);
        self.answer_in_clear(&ok);
        assert!(self.ue.binding().is_some());
        self.actions.clear();
    }

    /// Whether the handset says something at that time, and not earlier.
    fn speaks_after(&mut self, wait: Duration) -> bool {
        self.pass(wait - Duration::from_millis(1));
        let silent = !self.actions.iter().any(|a| matches!(a, Action::SendSip { .. }));
        self.pass(Duration::from_millis(2));
        silent && self.actions.iter().any(|a| matches!(a, Action::SendSip { .. }))
    }
}

#[test]
fn retry_after_is_waited_for_to_the_second() {
    let mut b = Bench::new(trying_again(true));
    b.command("register");
    let (first, _) = b.sent();
    b.answer_in_clear(&refused(&first, 503, Some(7)));
    assert_eq!(b.reply(), Err("status-503"));
    assert!(b.speaks_after(Duration::from_secs(7)));
}

/// RFC 5626 4.5: after the first failure, 50 to 100 per cent of twice the base.
#[test]
fn without_retry_after_or_obedience_the_back_off_counts() {
    for (obedient, told) in [(true, None), (false, Some(7))] {
        let mut b = Bench::new(trying_again(obedient));
        b.command("register");
        let (first, _) = b.sent();
        b.answer_in_clear(&refused(&first, 503, told));
        b.pass(Duration::from_secs(29));
        assert!(!b.actions.iter().any(|a| matches!(a, Action::SendSip { .. })));
        b.pass(Duration::from_secs(31));
        assert!(b.actions.iter().any(|a| matches!(a, Action::SendSip { .. })));
    }
}

#[test]
fn a_refresh_refused_for_a_while_keeps_the_registration() {
    let mut b = Bench::new(trying_again(true));
    b.register_in_clear(600);
    b.pass(Duration::from_secs(300));
    let (refresh, _) = b.sent();
    let until = b.ue.binding().unwrap().expires;
    b.answer_in_clear(&refused(&refresh, 503, Some(20)));
    assert_eq!(b.ue.binding().unwrap().expires, until);
    b.actions.clear();
    assert!(b.speaks_after(Duration::from_secs(20)));
    assert!(b.sent().0.text(Name::Authorization).unwrap().contains("response=\""));
}

/// TS 24.229 5.1.1.4.1: 408, 500, 504 or no answer to a re-registration: an initial registration follows.
#[test]
fn a_refresh_that_the_core_cannot_serve_is_followed_by_an_initial_registration() {
    for status in [408, 500, 504] {
        let mut b = Bench::new(trying_again(true));
        b.register_in_clear(600);
        b.pass(Duration::from_secs(300));
        let (refresh, _) = b.sent();
        b.answer_in_clear(&refused(&refresh, status, None));
        assert!(b.ue.binding().is_none(), "{status}");
        b.actions.clear();
        b.pass(Duration::from_secs(61));
        let (again, _) = b.sent();
        assert_ne!(again.text(Name::CallId), refresh.text(Name::CallId));
        assert!(again.text(Name::Authorization).unwrap().contains("nonce=\"\""));
    }
}

#[test]
fn a_refresh_may_be_asked_for_at_an_interval() {
    let every = Some(ims_core::config::Span::secs(40));
    let mut b = Bench::new(Config { refresh_every: every, ..trying_again(true) });
    b.register_in_clear(600);
    assert!(b.speaks_after(Duration::from_secs(40)));
}

#[test]
fn a_handset_without_power_repeats_nothing_and_comes_back_on_another_port() {
    let mut b = Bench::new(trying_again(true));
    b.command("register");
    let mut ctx = Ctx { now: b.now, rng: &mut b.rng, actions: &mut b.actions };
    b.ue.power_off(&mut ctx);
    b.ue.move_to(5099);
    b.actions.clear();
    assert!(b.ue.is_quiet() && b.ue.deadline().is_none());
    b.command("register");
    let (again, flow) = b.sent();
    assert_eq!(flow.local.port(), 5099);
    assert!(again.text(Name::Contact).unwrap().contains(":5099") && again.text(Name::Via).unwrap().contains(":5099"));
}

#[test]
fn a_query_binds_nothing_and_sees_what_is_bound() {
    let mut b = Bench::new(trying_again(true));
    b.command("query");
    assert_eq!(b.reply(), Err("conflict"), "nothing to ask for before the registration");
    for (bound, outcome) in [(true, Ok(())), (false, Err("fault-contact-not-bound"))] {
        let mut b = Bench::new(trying_again(true));
        b.register_in_clear(600);
        b.command("query");
        let (query, _) = b.sent();
        assert!(!query.has(Name::Contact) && !query.has(Name::Expires));
        let mut ok = Message::response(&query, 200, Some("net"));
        if bound {
            let user = b.ue.snapshot()["contact"].as_str().unwrap().to_owned();
            ok.set(Name::Contact, format!("<{user}>;expires=500"));
        }
        b.answer_in_clear(&ok);
        assert_eq!(b.reply().map(|_| ()), outcome);
        assert!(b.ue.binding().is_some());
        b.actions.clear();
        b.pass(Duration::from_secs(301));
        assert!(b.sent().0.has(Name::Contact), "the refresh is still due");
    }
}
