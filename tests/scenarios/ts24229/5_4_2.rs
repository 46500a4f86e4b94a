//! Subscription to registration state (TS 24.229 5.4.2.1, RFC 3680): a phone inside its security associations, with the P-CSCF's
//! subscription (5.2.3) beside it, through every element.

use ims_core::{Flow, Transport};
use ims_sip::headers::{Contact, From, ServiceRoute};
use ims_sip::{Message, Name};
use ims_tests::lab::{DOMAIN, impi, imsi, msisdn};

use ims_tests::{Lab, LabConfig, Phone};
use serde_json::json;
use std::time::Duration;

/// A phone that is attached, and the way its requests take.
pub(super) struct Subscriber {
    pub(super) phone: Phone,
    routes: String,
    cseq: u32,
    /// Of its subscription, once there is one.
    to_tag: String,
    target: String,
}

impl Subscriber {
    pub(super) fn attach(lab: &mut Lab, transport: Transport) -> Self {
        let mut phone = Phone::new(lab, 0).over(transport);
        let ok = phone.attach(lab);
        lab.rest();
        let set = phone.set.as_ref().unwrap();
        let mut routes = vec![format!("<sip:{}:{};lr>", ims_core::uri::host_of(set.pcscf), set.port_ps)];
        routes.extend(ok.all::<ServiceRoute<'_>>().unwrap().iter().map(ToString::to_string));
        let target = format!("sip:{}@{DOMAIN}", msisdn(0));
        Self { phone, routes: routes.join(", "), cseq: 0, to_tag: String::new(), target }
    }

    fn text(&mut self, expires: u32) -> String {
        self.cseq += 1;
        let Self { phone, routes, cseq, to_tag, target } = self;
        let (host, port, imsi, number) = (phone.host(), phone.port_us, imsi(phone.number), msisdn(0));
        let verify = &phone.verify;
        format!(
            "SUBSCRIBE {target} SIP/2.0\r\nVia: SIP/2.0/{} {host}:{port};branch=z9hG4bKsub{cseq}\r\nMax-Forwards: 70\r\n\
             Route: {routes}\r\nFrom: <sip:{number}@{DOMAIN}>;tag=watcher\r\nTo: <sip:{number}@{DOMAIN}>{to_tag}\r\n\
             Call-ID: reg-event\r\nCSeq: {cseq} SUBSCRIBE\r\nContact: <sip:{imsi}@{host}:{port}>\r\nEvent: reg\r\n\
             Accept: application/reginfo+xml\r\nExpires: {expires}\r\nP-Preferred-Identity: <sip:{number}@{DOMAIN}>\r\n\
             Require: sec-agree\r\nProxy-Require: sec-agree\r\nSecurity-Verify: {verify}\r\nContent-Length: 0\r\n\r\n",
            phone.transport.token()
        )
    }

    /// The answer to a SUBSCRIBE.
    pub(super) fn subscribe(&mut self, lab: &mut Lab, expires: u32) -> Message {
        let text = self.text(expires);
        let answer = self.phone.ask(lab, &text);
        assert_eq!(answer.method().as_str(), "SUBSCRIBE", "{answer:?}");
        answer
    }

    /// The next NOTIFY, which is answered; the routes of the dialog are those that it came by.
    pub(super) fn notified(&mut self, lab: &mut Lab) -> Message {
        let (flow, notify) = self.phone.next(lab);
        self.take(lab, flow, notify)
    }

    /// A REGISTER: its answer, and the NOTIFY that it causes. The one comes by the I-CSCF, the other does not.
    pub(super) fn registers(&mut self, lab: &mut Lab) -> (Message, Message) {
        let text = self.phone.register(&self.phone.sec_agree());
        self.phone.send(lab, &text);
        let both = [self.phone.next(lab), self.phone.next(lab)];
        let (mut answer, mut notify) = (None, None);
        for (flow, message) in both {
            match message.is_request() {
                true => notify = Some(self.take(lab, flow, message)),
                false => answer = Some(message),
            }
        }
        (answer.unwrap(), notify.unwrap())
    }

    fn take(&mut self, lab: &mut Lab, flow: Flow, notify: Message) -> Message {
        assert_eq!(notify.method().as_str(), "NOTIFY", "{notify:?}");
        let set = self.phone.set.as_ref().unwrap();
        let port = match flow.transport {
            Transport::Udp => set.port_us,
            // It may come on the connection of the phone.
            Transport::Tcp => flow.local.port(),
        };
        assert_eq!((flow.remote.ip(), flow.local.port()), (set.pcscf, port), "inside the association");
        let answer = Message::response(&notify, 200, None);
        let flow = match flow.transport {
            Transport::Udp => self.phone.flow(),
            Transport::Tcp => flow,
        };
        self.phone.send_by(lab, flow, std::str::from_utf8(&answer.to_bytes()).unwrap());
        lab.world.run_for(Duration::from_millis(50));
        self.to_tag = format!(";tag={}", notify.require::<From<'_>>().unwrap().tag().unwrap());
        self.target = notify.require::<Contact<'_>>().unwrap().addr().unwrap().uri.to_owned();
        notify
    }

    /// From here on in the dialog that the 200 gave.
    pub(super) fn in_dialog(&mut self, ok: &Message) {
        let routes: Vec<ims_sip::headers::RecordRoute<'_>> = ok.all().unwrap();
        self.routes = routes.iter().rev().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let set = self.phone.set.as_ref().unwrap();
        assert!(self.routes.contains(&ims_core::uri::host_of(set.pcscf)) || self.routes.contains("pcscf"), "{ok:?}");
    }

    /// Both.
    pub(super) fn subscribed(lab: &mut Lab, transport: Transport) -> Self {
        let mut one = Self::attach(lab, transport);
        let ok = one.subscribe(lab, 600_000);
        assert_eq!((ok.status(), ok.text(Name::Expires)), (200, Some("600000")), "{ok:?}");
        one.in_dialog(&ok);
        let notify = one.notified(lab);
        assert!(body(&notify).contains("version=\"0\" state=\"full\""), "{notify:?}");
        lab.rest();
        one
    }
}

pub(super) fn body(notify: &Message) -> &str {
    std::str::from_utf8(notify.body()).unwrap()
}

fn subscriptions(lab: &Lab) -> u64 {
    lab.world.snapshot(lab.scscf)["subscriptions"].as_u64().unwrap()
}

pub(super) fn watched_by_the_pcscf() -> LabConfig {
    let mut config = LabConfig { handsets: 0, ..LabConfig::default() };
    config.pcscf.subscribe_reg_event = true;
    config
}

#[test]
fn a_phone_and_its_p_cscf_are_told_of_the_whole_set() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut lab = Lab::new(watched_by_the_pcscf());
        let mut one = Subscriber::attach(&mut lab, transport);
        assert_eq!(subscriptions(&lab), 1, "the P-CSCF's own");
        let ok = one.subscribe(&mut lab, 600_000);
        assert_eq!(ok.status(), 200);
        assert!(!ok.has(Name::PChargingVector), "no charging towards a UE: {ok:?}");
        let notify = one.notified(&mut lab);
        assert!(!notify.has(Name::PChargingVector) && !notify.has(Name::Route), "{notify:?}");
        let text = body(&notify);
        for aor in [format!("sip:{}@{DOMAIN}", msisdn(0)), format!("tel:{}", msisdn(0))] {
            assert!(text.contains(&format!("aor=\"{aor}\"")), "{aor}: {text}");
        }
        assert!(!text.contains(&format!("aor=\"sip:{}@", imsi(0))), "the temporary identity is barred: {text}");
        assert!(text.contains("<unknown-param name=\"+sip.instance\">"), "{text}");
        lab.rest();
        assert_eq!(subscriptions(&lab), 2);
    }
}

#[test]
fn a_refresh_of_the_registration_is_told_and_the_end_too() {
    let mut lab = Lab::new(watched_by_the_pcscf());
    let mut one = Subscriber::subscribed(&mut lab, Transport::Udp);
    lab.world.run_for(Duration::from_secs(600));
    let (ok, notify) = one.registers(&mut lab);
    assert!(ok.status() == 200 && body(&notify).contains("event=\"refreshed\""), "{notify:?}");
    one.phone.expires = 0;
    let (ok, last) = one.registers(&mut lab);
    assert_eq!(ok.status(), 200);
    assert_eq!(last.text(Name::SubscriptionState), Some("terminated;reason=noresource"));
    assert!(body(&last).contains("event=\"unregistered\""));
    lab.rest();
    assert_eq!((subscriptions(&lab), lab.registered_at_pcscf(), lab.world.kept(lab.scscf)), (0, 0, 0));
}

#[test]
fn a_subscription_is_refreshed_and_ended_by_the_phone() {
    let mut lab = Lab::new(LabConfig { handsets: 0, ..LabConfig::default() });
    let mut one = Subscriber::subscribed(&mut lab, Transport::Udp);
    lab.world.run_for(Duration::from_secs(1000));
    assert_eq!(one.subscribe(&mut lab, 3600).text(Name::Expires), Some("3600"));
    assert!(body(&one.notified(&mut lab)).contains("version=\"1\" state=\"full\""));
    assert_eq!(one.subscribe(&mut lab, 0).status(), 200);
    let last = one.notified(&mut lab);
    assert_eq!(last.text(Name::SubscriptionState), Some("terminated;reason=timeout"));
    lab.rest();
    assert_eq!((subscriptions(&lab), one.subscribe(&mut lab, 60).status()), (0, 481));
}

/// 5.4.2.1.1 step 1: another user of the network, by its own P-CSCF.
#[test]
fn a_stranger_is_refused_and_so_is_who_watches_nobody() {
    let mut lab = Lab::new(LabConfig { handsets: 0, ..LabConfig::default() });
    let mut one = Subscriber::attach(&mut lab, Transport::Udp);
    lab.provision(1, json!({}));
    one.target = format!("sip:{}@{DOMAIN}", msisdn(1));
    let status = one.subscribe(&mut lab, 3600).status();
    assert_eq!(status, 480, "who is watched is not registered");
    let address = lab.config.handset(1).address;
    let mut other = Phone::with_sim(&mut lab, 1, address);
    other.attach(&mut lab);
    assert_eq!(one.subscribe(&mut lab, 3600).status(), 403);
    lab.rest();
    assert_eq!((subscriptions(&lab), lab.refusals(lab.scscf, "may-not-subscribe")), (0, 1));
}

#[test]
fn a_restart_of_the_s_cscf_is_not_noticed() {
    let mut lab = Lab::new(watched_by_the_pcscf());
    let mut one = Subscriber::subscribed(&mut lab, Transport::Udp);
    assert_eq!(lab.world.kept(lab.scscf), 3, "a registration and two subscriptions");
    lab.world.crash(lab.scscf);
    lab.world.run_for(Duration::from_secs(5));
    lab.rebuild(lab.scscf);
    lab.world.run_for(Duration::from_secs(5));
    assert_eq!(subscriptions(&lab), 2);
    lab.world.run_for(Duration::from_secs(60));
    let (_, notify) = one.registers(&mut lab);
    let cseq: u32 = notify.text(Name::CSeq).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(cseq > 1 && body(&notify).contains(&format!("version=\"{}\" state=\"full\"", cseq - 1)), "{notify:?}");
    assert_eq!(one.subscribe(&mut lab, 7200).status(), 200, "in the same dialog");
    one.notified(&mut lab);
    let ended = lab.world.ask(lab.scscf, "deregister", json!({ "impi": impi(0) })).unwrap();
    assert_eq!(ended["deregistered"].as_array().map(Vec::len), Some(1));
    assert!(body(&one.notified(&mut lab)).contains("event=\"deactivated\""));
    lab.rest();
    assert_eq!((lab.registered_at_pcscf(), lab.world.kept(lab.scscf)), (0, 0));
}
