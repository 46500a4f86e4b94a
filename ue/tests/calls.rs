//! Calls between two handsets through a network as thin as it can be: a registrar that lets everybody in, and a stateless proxy
//! (RFC 3261 16.11). What a handset says, checks and repeats; the network's own part is in the simulator's scenarios.

use ims_core::config::Span;
use ims_core::uri::Uri;
use ims_core::{Action, Command, CommandId, Ctx, Event, Flow, Node, Packet, Rng, Time};
use ims_sip::headers::{To, Via};
use ims_sip::{Message, Method, Name};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use ue::{Config, Password, Ue};

const PROXY: &str = "127.0.0.1:5060";
const LATENCY: Duration = Duration::from_millis(10);

fn address(n: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 11 + n as u8], 5062))
}

fn identity(n: usize) -> String {
    format!("sip:{n}@example.com")
}

/// A test's word on a message on its way to a handset: take it, change it, or lose it.
type Filter = Box<dyn FnMut(&mut Message) -> bool>;

struct Bench {
    ues: Vec<Ue>,
    rngs: Vec<Rng>,
    now: Time,
    /// When, to whom (None: the network), from where, what.
    wire: BTreeMap<(Time, u64), (Option<usize>, SocketAddr, Message)>,
    sent: u64,
    contacts: Vec<String>,
    replies: BTreeMap<u64, Result<Value, ims_core::Problem>>,
    /// Everything that a handset was given: method or status.
    seen: Vec<String>,
    filter: Option<Filter>,
}

impl Bench {
    fn new(scripts: [&str; 2]) -> Self {
        let ue = |(n, script): (usize, &str)| {
            Ue::new(Config {
                impu: Some(identity(n)),
                impi: Some(format!("{n}@example.com")),
                home_domain: "example.com".into(),
                address: address(n).ip(),
                pcscf: PROXY.parse().unwrap(),
                password: Some(Password::new("secret".into())),
                sec_agree: false,
                seal: true,
                t1: Span::millis(500),
                t2: Span::secs(4),
                t4: Span::secs(5),
                script: ue::Script::parse("test", script).unwrap(),
                ..Config::default()
            })
            .unwrap()
        };
        let mut bench = Self {
            ues: scripts.into_iter().enumerate().map(ue).collect(),
            rngs: (0..2).map(|n| Rng::from_u64(7 + n)).collect(),
            now: Time::from_secs(1000),
            wire: BTreeMap::new(),
            sent: 0,
            contacts: vec![String::new(); 2],
            replies: BTreeMap::new(),
            seen: Vec::new(),
            filter: None,
        };
        for n in 0..2 {
            assert!(bench.ask(n, "register", Value::Null).is_ok());
        }
        bench.seen.clear();
        bench
    }

    fn tell(&mut self, n: usize, event: Event) {
        let mut actions = Vec::new();
        self.ues[n].handle(event, &mut Ctx { now: self.now, rng: &mut self.rngs[n], actions: &mut actions });
        for action in actions {
            match action {
                Action::SendSip { flow, bytes, .. } => {
                    let message = Message::parse(bytes).unwrap();
                    message.check().unwrap();
                    self.put(None, flow.local, message);
                }
                Action::Reply { id, result } => assert!(self.replies.insert(id.0, result).is_none()),
                _ => {}
            }
        }
    }

    fn put(&mut self, to: Option<usize>, from: SocketAddr, message: Message) {
        self.sent += 1;
        self.wire.insert((self.now + LATENCY, self.sent), (to, from, message));
    }

    /// The earliest thing that happens; false when there is none.
    fn step(&mut self) -> bool {
        let packet = self.wire.keys().next().map(|(at, _)| *at);
        let timer = self.ues.iter().filter_map(Node::deadline).min();
        let Some(at) = packet.into_iter().chain(timer).min() else { return false };
        self.now = self.now.max(at);
        if packet == Some(at) {
            let (_, (to, from, message)) = self.wire.pop_first().unwrap();
            match to {
                None => self.route(from, message),
                Some(n) => self.deliver(n, message),
            }
        } else {
            for n in 0..self.ues.len() {
                if self.ues[n].deadline().is_some_and(|d| d <= self.now) {
                    self.tell(n, Event::Timeout);
                }
            }
        }
        true
    }

    fn deliver(&mut self, n: usize, mut message: Message) {
        if let Some(filter) = &mut self.filter
            && !filter(&mut message)
        {
            return;
        }
        let what = if message.is_request() { message.method().to_string() } else { message.status().to_string() };
        self.seen.push(what);
        let flow = Flow::udp(address(n), PROXY.parse().unwrap());
        self.tell(n, Event::Sip(Packet { flow, bytes: message.to_bytes() }));
    }

    /// The network.
    fn route(&mut self, from: SocketAddr, mut m: Message) {
        let sender = (0..2).find(|n| address(*n) == from).unwrap();
        m.remove(Name::PAccessNetworkInfo);
        if !m.is_request() {
            m.pop_first(Name::Via);
            let via: Via<'_> = m.first().unwrap().unwrap();
            let to = (0..2).find(|n| via.host == address(*n).ip().to_string()).unwrap();
            return self.put(Some(to), from, m);
        }
        if m.method() == Method::Register {
            return self.register(sender, &m);
        }
        let branch = m.first::<Via<'_>>().unwrap().unwrap().params.value("branch").unwrap().to_owned();
        m.push_front(Name::Via, format!("SIP/2.0/UDP {PROXY};branch={branch}p"));
        m.remove(Name::Route);
        m.remove(Name::PPreferredIdentity);
        let initial = m.first::<To<'_>>().unwrap().unwrap().tag().is_none();
        let uri = m.uri().to_owned();
        let known = |n: &usize| uri == identity(*n) || uri == self.contacts[*n];
        let Some(to) = (0..2).find(known) else {
            let mut answer = Message::response(&m, 404, Some("net"));
            answer.pop_first(Name::Via);
            if m.method() != Method::Ack {
                self.put(Some(sender), from, answer);
            }
            return;
        };
        if initial {
            m.set(Name::PCalledPartyId, format!("<{}>", identity(to)));
            m.push_front(Name::RecordRoute, format!("<sip:{PROXY};lr>"));
        }
        m.set_uri(&self.contacts[to].clone());
        self.put(Some(to), from, m);
    }

    fn register(&mut self, n: usize, m: &Message) {
        let answered = m.text(Name::Authorization).is_some_and(|a| !a.contains("response=\"\""));
        let mut answer = Message::response(m, if answered { 200 } else { 401 }, Some("net"));
        if answered {
            let contact = m.text(Name::Contact).unwrap().to_owned();
            self.contacts[n] = contact.trim_start_matches('<').split('>').next().unwrap().to_owned();
            assert!(Uri::parse(&self.contacts[n]).is_ok());
            answer.set(Name::Contact, format!("{contact};expires=600000"));
            answer.set(Name::ServiceRoute, format!("<sip:orig@{PROXY};lr>"));
            answer.set(Name::PAssociatedUri, format!("<{}>", identity(n)));
        } else {
            answer.set(Name::WwwAuthenticate, "Digest realm=\"example.com\",nonce=\"abc\",algorithm=MD5,qop=\"auth\"");
        }
        self.put(Some(n), PROXY.parse().unwrap(), answer);
    }

    fn command(&mut self, n: usize, call: &str, args: Value) -> u64 {
        self.sent += 1;
        let id = self.sent;
        self.tell(n, Event::Command(Command { id: CommandId(id), call: call.into(), args }));
        id
    }

    fn ask(&mut self, n: usize, call: &str, args: Value) -> Result<Value, ims_core::Problem> {
        let id = self.command(n, call, args);
        while !self.replies.contains_key(&id) {
            assert!(self.step(), "{call} is never answered: {:#}", self.ues[n].snapshot());
        }
        self.replies.remove(&id).unwrap()
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let next = self.wire.keys().next().map(|(at, _)| *at);
            let next = next.into_iter().chain(self.ues.iter().filter_map(Node::deadline)).min();
            if next.is_none_or(|at| at > end) {
                break;
            }
            self.step();
        }
        self.now = end;
    }

    /// The first handset calls the second.
    fn call(&mut self) -> Result<Value, ims_core::Problem> {
        self.ask(0, "call", json!({ "to": identity(1) }))
    }

    fn calls(&self, n: usize) -> Value {
        self.ues[n].snapshot()["calls"].clone()
    }

    /// How the calls of a handset ended.
    fn ended(&self, n: usize) -> Vec<String> {
        let all = self.ues[n].snapshot()["ended"].clone();
        all.as_array().unwrap().iter().map(|e| e["outcome"].as_str().unwrap().to_owned()).collect()
    }

    fn faults(&self, n: usize) -> Value {
        self.ues[n].snapshot()["faults"].clone()
    }

    /// Everything is over, both sides say the same, and nobody has anything to say against the network.
    fn rest(&mut self) {
        self.pass(Duration::from_secs(200));
        for n in 0..2 {
            let s = self.ues[n].snapshot();
            assert_eq!((&s["calls"], &s["waiting"], &s["faults"]), (&json!([]), &json!(0), &json!({})), "{s:#}");
            let open: u64 = s["sip"]["transactions"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
            assert_eq!(open, 0, "{s:#}");
        }
    }
}

const ANSWERS: &str = "[called]\nanswer_after = '1s'";

#[test]
fn a_call_is_made_and_hung_up() {
    let mut bench = Bench::new(["", ANSWERS]);
    let up = bench.call().unwrap();
    assert_eq!((&up["state"], &up["media"]["direction"]), (&json!("up"), &json!("sendrecv")));
    bench.pass(Duration::from_secs(5));
    assert_eq!(bench.calls(1)[0]["state"], "up");
    assert_eq!(bench.calls(0)[0]["media"], bench.calls(1)[0]["media"]);
    assert!(bench.ask(0, "hangup", Value::Null).is_ok());
    bench.rest();
    assert_eq!(bench.seen, ["INVITE", "180", "200", "ACK", "BYE", "200"]);
    assert_eq!((bench.ended(0), bench.ended(1)), (vec!["hung-up".into()], vec!["hung-up-by-peer".to_owned()]));
}

#[test]
fn the_called_side_hangs_up() {
    let mut bench = Bench::new(["", "[called]\nanswer_after = 0\nsteps = [{ after = '3s', do = 'hangup' }]"]);
    bench.call().unwrap();
    bench.rest();
    assert_eq!((bench.ended(0), bench.ended(1)), (vec!["hung-up-by-peer".into()], vec!["hung-up".to_owned()]));
}

#[test]
fn the_user_answers_by_hand() {
    let mut bench = Bench::new(["", ""]);
    let asked = bench.command(0, "call", json!({ "to": identity(1) }));
    bench.pass(Duration::from_secs(20));
    assert_eq!((&bench.calls(0)[0]["state"], &bench.calls(1)[0]["state"]), (&json!("ringing"), &json!("ringing")));
    assert!(bench.ask(1, "answer", Value::Null).is_ok());
    bench.pass(Duration::from_secs(1));
    assert!(bench.replies.remove(&asked).unwrap().is_ok());
    assert!(bench.ask(1, "hangup", Value::Null).is_ok());
    bench.rest();
}

#[test]
fn refused_by_the_script_and_by_hand() {
    let mut bench = Bench::new(["", "[called]\nreject_after = '1s'\nreject_with = 486"]);
    assert_eq!(bench.call().unwrap_err().kind, "status-486");
    bench.rest();
    assert_eq!(bench.ended(1), ["status-486"]);
    let mut bench = Bench::new(["", ""]);
    let asked = bench.command(0, "call", json!({ "to": identity(1) }));
    bench.pass(Duration::from_secs(1));
    assert!(bench.ask(1, "reject", json!({ "status": 603 })).is_ok());
    bench.rest();
    assert_eq!(bench.replies.remove(&asked).unwrap().unwrap_err().kind, "status-603");
    assert_eq!(bench.ask(0, "call", json!({ "to": "sip:nobody@example.com" })).unwrap_err().kind, "status-404");
}

#[test]
fn given_up_while_it_rings_and_before() {
    let mut bench = Bench::new(["[calling]\ngive_up_after = '3s'", ""]);
    assert_eq!(bench.call().unwrap_err().kind, "cancelled");
    bench.rest();
    assert_eq!(bench.seen, ["INVITE", "180", "CANCEL", "200", "487", "ACK"]);
    assert_eq!(bench.ended(1), ["cancelled"]);
    // At once: CANCEL waits for the first provisional response (RFC 3261 9.1).
    let mut bench = Bench::new(["[calling]\ngive_up_after = '1ms'", ""]);
    assert_eq!(bench.call().unwrap_err().kind, "cancelled");
    bench.rest();
}

#[test]
fn an_answer_that_crosses_the_cancel_ends_in_bye() {
    // The CANCEL is sent when the 200 is on its way already.
    let mut bench = Bench::new(["[calling]\ngive_up_after = '1035ms'", ANSWERS]);
    let up = bench.call();
    bench.rest();
    assert!(up.is_ok() && bench.seen.contains(&"BYE".to_owned()), "{:?}", bench.seen);
    assert_eq!((bench.ended(0), bench.ended(1)), (vec!["hung-up".into()], vec!["hung-up-by-peer".to_owned()]));
}

#[test]
fn diverted_to_somebody_else() {
    let script = format!("[called]\ndivert_after = 0\ndivert_to = '{}'", identity(0));
    let mut bench = Bench::new([ANSWERS, &script]);
    // The first handset is called by itself then: busy with its own call it is not, it takes both ends.
    bench.command(0, "call", json!({ "to": identity(1) }));
    bench.pass(Duration::from_secs(4));
    let states: Vec<Value> = bench.calls(0).as_array().unwrap().iter().map(|c| c["state"].clone()).collect();
    assert_eq!(states, ["up", "up"]);
    assert_eq!(bench.ended(1), ["status-302"]);
}

#[test]
fn a_lost_200_and_a_lost_ack_are_repeated() {
    for lost in ["200", "ACK"] {
        let mut bench = Bench::new(["", ANSWERS]);
        let mut left = 2;
        bench.filter = Some(Box::new(move |m: &mut Message| {
            let what = if m.is_request() { m.method().to_string() } else { m.status().to_string() };
            let invite = m.is_request() || m.method() == Method::Invite;
            let lose = what == lost && invite && left > 0;
            left -= i32::from(lose);
            !lose
        }));
        bench.call().unwrap();
        bench.pass(Duration::from_secs(10));
        assert_eq!((&bench.calls(0)[0]["state"], &bench.calls(1)[0]["state"]), (&json!("up"), &json!("up")), "{lost}");
        bench.ask(0, "hangup", Value::Null).unwrap();
        bench.rest();
    }
}

#[test]
fn a_200_that_is_never_acknowledged_ends_the_call() {
    let mut bench = Bench::new(["", ANSWERS]);
    bench.filter = Some(Box::new(|m: &mut Message| m.method() != Method::Ack));
    bench.call().unwrap();
    bench.rest();
    assert_eq!((bench.ended(0), bench.ended(1)), (vec!["hung-up-by-peer".into()], vec!["hung-up".to_owned()]));
}

#[test]
fn reliable_ringing_is_acknowledged_and_early_media_is_the_answer() {
    let called = "[called]\nringing = 183\nreliable = true\nearly_media = true\nanswer_after = '2s'";
    let mut bench = Bench::new(["", called]);
    bench.call().unwrap();
    assert_eq!(bench.calls(0)[0]["media"]["codec"], "AMR-WB/16000/1");
    bench.ask(1, "hangup", Value::Null).unwrap();
    bench.rest();
    assert_eq!(bench.seen, ["INVITE", "183", "PRACK", "200", "200", "ACK", "BYE", "200"]);
}

#[test]
fn with_preconditions_it_rings_when_the_bearer_is_there() {
    let called = "[called]\npreconditions = true\nanswer_after = '1s'";
    let mut bench = Bench::new(["[calling]\npreconditions = true", called]);
    let body = std::rc::Rc::new(std::cell::RefCell::new(String::new()));
    let seen = body.clone();
    bench.filter = Some(Box::new(move |m: &mut Message| {
        if m.method() == Method::Update && m.is_request() {
            *seen.borrow_mut() = String::from_utf8_lossy(m.body()).into_owned();
        }
        true
    }));
    bench.call().unwrap();
    bench.pass(Duration::from_secs(2));
    assert!(body.borrow().contains("a=curr:qos local sendrecv"));
    assert_eq!(bench.calls(0)[0]["media"], bench.calls(1)[0]["media"]);
    bench.ask(0, "hangup", Value::Null).unwrap();
    bench.rest();
    let expected = ["INVITE", "183", "PRACK", "200", "UPDATE", "200", "180", "200", "ACK", "BYE", "200"];
    assert_eq!(bench.seen, expected);
    // Whoever does not know them rings at once.
    let mut bench = Bench::new(["[calling]\npreconditions = true", ANSWERS]);
    bench.call().unwrap();
    bench.ask(0, "hangup", Value::Null).unwrap();
    bench.rest();
}

#[test]
fn a_lost_prack_or_183_is_repeated_and_without_any_the_call_ends() {
    let called = "[called]\nringing = 183\nreliable = true\nanswer_after = '100ms'";
    for lost in ["183", "PRACK"] {
        let mut bench = Bench::new(["", called]);
        let mut left = 1;
        bench.filter = Some(Box::new(move |m: &mut Message| {
            let what = if m.is_request() { m.method().to_string() } else { m.status().to_string() };
            let lose = what == lost && left > 0;
            left -= i32::from(lose);
            !lose
        }));
        bench.call().unwrap();
        bench.ask(0, "hangup", Value::Null).unwrap();
        bench.rest();
    }
    let mut bench = Bench::new(["", called]);
    bench.filter = Some(Box::new(|m: &mut Message| m.method() != Method::Prack));
    assert_eq!(bench.call().unwrap_err().kind, "status-500");
    bench.rest();
    assert_eq!(bench.ended(1), ["no-prack"]);
}

#[test]
fn an_invite_without_offer_is_answered_in_ack_or_prack() {
    for called in [ANSWERS, "[called]\nreliable = true\nanswer_after = '1s'"] {
        let mut bench = Bench::new(["[calling]\nofferless = true", called]);
        bench.call().unwrap();
        bench.pass(Duration::from_secs(3));
        assert_eq!(bench.calls(1)[0]["media"]["direction"], "sendrecv", "{called}");
        assert_eq!(bench.calls(0)[0]["media"], bench.calls(1)[0]["media"], "{called}");
        bench.ask(1, "hangup", Value::Null).unwrap();
        bench.rest();
    }
}

#[test]
fn hold_resume_video_and_codec_from_both_sides() {
    let mut bench = Bench::new(["", "[called]\nanswer_after = 0\nvideo = true"]);
    bench.call().unwrap();
    for (who, what, near, far) in [
        (0, "hold", "sendonly", "recvonly"),
        (1, "hold", "inactive", "inactive"),
        (0, "resume", "recvonly", "sendonly"),
        (1, "resume", "sendrecv", "sendrecv"),
        (1, "update", "sendrecv", "sendrecv"),
    ] {
        let own = bench.ask(who, what, Value::Null).unwrap();
        bench.pass(Duration::from_secs(1));
        assert_eq!(
            (&own["media"]["direction"], &bench.calls(1 - who)[0]["media"]["direction"]),
            (&json!(near), &json!(far))
        );
    }
    bench.ask(0, "video", Value::Null).unwrap();
    bench.pass(Duration::from_secs(1));
    assert_eq!(
        (&bench.calls(0)[0]["media"]["video"], &bench.calls(1)[0]["media"]["video"]),
        (&json!(true), &json!(true))
    );
    bench.ask(1, "audio", Value::Null).unwrap();
    bench.ask(1, "narrowband", Value::Null).unwrap();
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.calls(0)[0]["media"], bench.calls(1)[0]["media"]);
    assert_eq!(bench.calls(0)[0]["media"], json!({ "direction": "sendrecv", "codec": "AMR/8000/1", "video": false }));
    for what in ["info", "options"] {
        assert_eq!(bench.ask(0, what, Value::Null).unwrap()["status"], 200);
    }
    bench.ask(0, "hangup", Value::Null).unwrap();
    bench.rest();
}

#[test]
fn when_both_change_the_session_at_once_both_changes_come_about() {
    let mut bench = Bench::new(["", "[called]\nanswer_after = 0"]);
    bench.call().unwrap();
    bench.pass(Duration::from_secs(2));
    let (a, b) = (bench.command(0, "hold", Value::Null), bench.command(1, "hold", Value::Null));
    bench.pass(Duration::from_secs(10));
    assert!(bench.replies.remove(&a).unwrap().is_ok() && bench.replies.remove(&b).unwrap().is_ok());
    assert!(bench.seen.contains(&"491".to_owned()));
    assert_eq!(bench.calls(0)[0]["media"]["direction"], "inactive");
    bench.ask(0, "hangup", Value::Null).unwrap();
    bench.rest();
}

#[test]
fn both_hang_up_at_once() {
    let mut bench = Bench::new(["", "[called]\nanswer_after = 0"]);
    bench.call().unwrap();
    bench.pass(Duration::from_secs(2));
    let (a, b) = (bench.command(0, "hangup", Value::Null), bench.command(1, "hangup", Value::Null));
    bench.rest();
    assert!(bench.replies.remove(&a).unwrap().is_ok() && bench.replies.remove(&b).unwrap().is_ok());
}

#[test]
fn the_session_timer_refreshes_and_ends_what_is_not_refreshed() {
    let mut bench = Bench::new(["[calling]\nsession_expires = 90", "[called]\nanswer_after = 0"]);
    bench.call().unwrap();
    bench.pass(Duration::from_secs(400));
    assert_eq!((&bench.calls(0)[0]["state"], &bench.calls(1)[0]["state"]), (&json!("up"), &json!("up")));
    assert!(bench.seen.iter().filter(|m| *m == "UPDATE").count() >= 7, "{:?}", bench.seen);
    bench.filter = Some(Box::new(|_| false));
    bench.pass(Duration::from_secs(200));
    assert_eq!((bench.calls(0), bench.calls(1)), (json!([]), json!([])));
}

#[test]
fn an_interval_too_small_is_raised_as_422_says() {
    let called = "[called]\nanswer_after = 0\nmin_se = 300";
    let mut bench = Bench::new(["[calling]\nsession_expires = 90", called]);
    let up = bench.call().unwrap();
    assert_eq!(up["session_expires"], 300);
    assert!(bench.seen.contains(&"422".to_owned()));
    bench.ask(0, "hangup", Value::Null).unwrap();
    bench.rest();
}

#[test]
fn a_script_runs_the_whole_call() {
    let calling = "[calling]\nsteps = [{ after = '1s', do = 'hold' }, { after = '2s', do = 'resume' }, \
                   { after = '3s', do = 'update' }, { after = '4s', do = 'info' }, { after = '5s', do = 'hangup' }]";
    let mut bench = Bench::new([calling, "[called]\nanswer_after = '1s'\nreliable = true"]);
    bench.call().unwrap();
    bench.rest();
    let requests = ["INVITE", "ACK", "BYE", "PRACK", "UPDATE", "INFO"];
    let count = |m: &str| bench.seen.iter().filter(|s| *s == m).count();
    assert_eq!(requests.map(count), [3, 3, 1, 1, 1, 1]);
}

#[test]
fn a_message_and_options_outside_a_call() {
    let mut bench = Bench::new(["", ""]);
    assert_eq!(bench.ask(0, "message", json!({ "to": identity(1), "text": "hi" })).unwrap()["status"], 200);
    assert_eq!(bench.ues[1].snapshot()["messages"][0], json!({ "from": identity(0), "text": "hi" }));
    assert_eq!(bench.ask(0, "options", json!({ "to": identity(1) })).unwrap()["status"], 200);
    bench.rest();
}

#[test]
fn asked_by_refer_a_handset_calls_and_tells_how_it_went() {
    let mut bench = Bench::new(["", "[called]\nanswer_after = '1s'"]);
    bench.call().unwrap();
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.ask(1, "refer", json!({ "to": identity(1) })).unwrap()["status"], 200);
    assert_eq!(bench.calls(0).as_array().unwrap().len(), 2);
    assert_eq!(
        bench.ask(1, "refer", json!({ "to": "sip:nobody@example.com", "call": 1 })).unwrap_err().kind,
        "status-404"
    );
    for n in [1, 2] {
        bench.ask(0, "hangup", json!({ "call": n })).unwrap();
    }
    bench.rest();
}

#[test]
fn a_call_ends_before_its_handset_is_deregistered() {
    let mut bench = Bench::new(["", "[called]\nanswer_after = 0"]);
    bench.call().unwrap();
    bench.ask(0, "deregister", Value::Null).unwrap();
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.ended(1), ["hung-up-by-peer"]);
    let refused = bench.ask(0, "call", json!({ "to": identity(1) })).unwrap_err();
    assert_eq!((refused.status, refused.kind.as_str()), (409, "conflict"));
}

#[test]
fn what_the_network_does_wrong_is_a_fault_by_name() {
    type Spoil = fn(&mut Message);
    let cases: [(&str, Spoil); 9] = [
        ("header-leaked", |m| m.set(Name::PChargingVector, "icid-value=1")),
        ("no-called-party", |m| {
            m.remove(Name::PCalledPartyId);
        }),
        ("wrong-called-party", |m| m.set(Name::PCalledPartyId, "<sip:other@example.com>")),
        ("no-record-route", |m| {
            m.remove(Name::RecordRoute);
        }),
        ("route-left", |m| m.set(Name::Route, "<sip:x@y;lr>")),
        ("not-our-contact", |m| m.set_uri("sip:other@127.0.0.12:5062")),
        ("body-altered", |m| m.set_body("application/sdp", &[m.body(), b"a=x\r\n"].concat())),
        ("identity-despite-privacy", |m| {
            m.set(Name::Privacy, "id");
            m.set(Name::PAssertedIdentity, "<sip:0@example.com>");
        }),
        ("header-leaked", |m| m.set(Name::SecurityVerify, "ipsec-3gpp")),
    ];
    for (name, spoil) in cases {
        let mut bench = Bench::new(["", "[called]\nanswer_after = '1s'"]);
        bench.filter = Some(Box::new(move |m: &mut Message| {
            if m.method() == Method::Invite && m.is_request() {
                spoil(m);
            }
            true
        }));
        let _ = bench.call();
        assert!(bench.faults(1)[name].as_u64() >= Some(1), "{name}: {}", bench.faults(1));
    }
    let answers: [(&str, Spoil); 4] = [
        ("to-tag-changed", |m| {
            let to = m.text(Name::To).unwrap().to_owned();
            m.set(Name::To, format!("{to}x"));
        }),
        ("other-request", |m| m.set(Name::CallId, "other")),
        ("via-left", |m| m.push_back(Name::Via, "SIP/2.0/UDP 1.2.3.4;branch=z9hG4bKx")),
        ("header-leaked", |m| m.set(Name::PChargingFunctionAddresses, "ccf=1.1.1.1")),
    ];
    for (name, spoil) in answers {
        let mut bench = Bench::new(["", "[called]\nanswer_after = 0"]);
        bench.call().unwrap();
        bench.filter = Some(Box::new(move |m: &mut Message| {
            if m.method() == Method::Info && !m.is_request() {
                spoil(m);
            }
            true
        }));
        let _ = bench.ask(0, "info", Value::Null);
        assert!(bench.faults(0)[name].as_u64() >= Some(1), "{name}: {}", bench.faults(0));
    }
}
