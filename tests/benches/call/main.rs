//! A whole call through the nodes in one thread: INVITE, 180, 200, ACK, BYE, 200 between two registered handsets, through P,
//! S, I, S, P: what a call costs before the shell adds its part. `cargo bench -p ims-tests --bench call [-- CALLS]`
//!
//! Each role's time is what its `handle` takes; the handsets are text and are left out. The memory is what lives on the heap of
//! all roles together for a call just answered (its transactions linger), for one that lasts, for one that has just ended, and when its transactions are over.

#![allow(clippy::disallowed_methods)]

#[path = "../core/mod.rs"]
mod core;

use crate::core::{Core, PACE, REST, config, heap, report};
use ims_core::{Flow, Rng};
use ims_sip::dialog::Dialog;
use ims_sip::{Message, Name};
use ims_tests::LabConfig;
use ims_tests::lab::DOMAIN;
use ue::{Binding, Ue};

#[global_allocator]
static HEAP: heap::Heap = heap::Heap;

const HANDSETS: usize = 100;

/// A registered handset.
struct Phone {
    number: usize,
    flow: Flow,
    binding: Binding,
}

impl Phone {
    fn uri(&self) -> String {
        format!("sip:+4915100{:05}@{DOMAIN}", self.number)
    }

    fn register(core: &mut Core, config: &LabConfig, number: usize, rng: &mut Rng) -> Self {
        let config = config.handset(number);
        let mut handset = Ue::new(config).expect("a handset");
        assert!(core.register(&mut handset, rng), "handset {number} registers");
        let flow = core.handset.expect("it has sent something");
        Self { number, flow, binding: handset.binding().expect("a binding").clone() }
    }

    fn send(&self, core: &mut Core, mut message: Message, branch: &str) {
        if message.status() == 0 {
            message.push_front(Name::Via, format_args!("SIP/2.0/UDP {};branch=z9hG4bK{branch}", self.flow.local));
        }
        core.sends(self.flow, message.to_bytes());
    }

    fn contact(&self) -> String {
        format!("<sip:{}>", self.flow.local)
    }

    fn invite(&self, callee: &Self, call: usize) -> Message {
        let mut invite = Message::request("INVITE", &callee.uri());
        invite.push_back(Name::Route, format_args!("<sip:{};lr>", self.flow.remote));
        self.binding.service_route.iter().for_each(|route| invite.push_back(Name::Route, format_args!("<{route}>")));
        invite.set(Name::MaxForwards, 70);
        invite.set(Name::From, format_args!("<{}>;tag=from{call}", self.uri()));
        invite.set(Name::To, format_args!("<{}>", callee.uri()));
        invite.set(Name::CallId, format_args!("call-{call}@{}", self.flow.local.ip()));
        invite.set(Name::CSeq, "1 INVITE");
        invite.set(Name::Contact, self.contact());
        invite.set_named("P-Preferred-Identity", format_args!("<{}>", self.uri()));
        invite.set_named("P-Access-Network-Info", "3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=0010100010000001");
        invite.set_named("Accept-Contact", "*;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.mmtel\"");
        invite.set(Name::Supported, "100rel, timer, precondition");
        invite.set(Name::Allow, "INVITE, ACK, CANCEL, BYE, PRACK, UPDATE, INFO, MESSAGE");
        invite.set_body("application/sdp", SDP.as_bytes());
        invite
    }

    fn answer(&self, core: &mut Core, request: &Message, status: u16) {
        let mut answer = Message::response(request, status, Some("callee"));
        answer.copy(Name::RecordRoute, request);
        answer.set(Name::Contact, self.contact());
        if status == 200 && request.method() == ims_sip::Method::Invite {
            answer.set_body("application/sdp", SDP.as_bytes());
        }
        self.send(core, answer, "");
    }
}

const SDP: &str = "v=0\r\no=- 1 1 IN IP4 10.1.0.1\r\ns=-\r\nc=IN IP4 10.1.0.1\r\nt=0 0\r\nm=audio 49170 RTP/AVP 104 102\r\n\
    a=rtpmap:104 AMR-WB/16000\r\na=rtpmap:102 AMR/8000\r\na=fmtp:104 mode-change-capability=2;max-red=0\r\na=ptime:20\r\n\
    a=curr:qos local none\r\na=curr:qos remote none\r\na=des:qos mandatory local sendrecv\r\na=sendrecv\r\n";

/// The next message for this handset; others (100 Trying) are passed over.
fn expect(core: &mut Core, phone: &Phone, what: &str) -> Message {
    while let Some(packet) = core.to_handset.pop_front() {
        let message = Message::parse(packet.bytes).expect("SIP");
        let is = match message.status() {
            0 => message.method().to_string(),
            status => status.to_string(),
        };
        if is == what {
            assert_eq!(packet.flow.local, phone.flow.local, "{what} for another handset");
            return message;
        }
        assert_eq!(is, "100", "{}", String::from_utf8_lossy(&message.to_bytes()));
    }
    panic!("no {what} came: {}", core.describe());
}

/// A call that has been answered, as its caller sees it.
fn establish(core: &mut Core, caller: &Phone, callee: &Phone, call: usize) -> Dialog {
    let invite = caller.invite(callee, call);
    caller.send(core, invite.clone(), &format!("i{call}"));
    let at_callee = expect(core, callee, "INVITE");
    callee.answer(core, &at_callee, 180);
    expect(core, caller, "180");
    callee.answer(core, &at_callee, 200);
    let ok = expect(core, caller, "200");
    let dialog = Dialog::as_uac(&invite, &ok).expect("a dialog");
    let (ack, _) = dialog.ack(1);
    caller.send(core, ack, &format!("a{call}"));
    expect(core, callee, "ACK");
    dialog
}

fn hang_up(core: &mut Core, caller: &Phone, callee: &Phone, mut dialog: Dialog, call: usize) {
    let (bye, _) = dialog.request("BYE");
    caller.send(core, bye, &format!("b{call}"));
    let at_callee = expect(core, callee, "BYE");
    callee.answer(core, &at_callee, 200);
    expect(core, caller, "200");
}

fn main() {
    let calls: usize = std::env::args().find_map(|arg| arg.parse().ok()).unwrap_or(5_000);
    let config = config();
    let mut core = Core::new(&config);
    let mut rng = Rng::from_u64(99);
    (0..HANDSETS).for_each(|number| core.provision(number));
    let phones: Vec<Phone> =
        (0..HANDSETS).map(|number| Phone::register(&mut core, &config, number, &mut rng)).collect();
    core.pass(REST);
    let pair = |call: usize| (&phones[call % HANDSETS], &phones[(call + HANDSETS / 2) % HANDSETS]);
    core.forget_costs();
    let before = heap::live();
    let mut dialogs = Vec::with_capacity(calls);
    for call in 0..calls {
        let (caller, callee) = pair(call);
        dialogs.push(establish(&mut core, caller, callee, call));
        core.pass(PACE);
    }
    let answered = heap::live().saturating_sub(before);
    core.pass(REST);
    let held = heap::live().saturating_sub(before);
    for (call, dialog) in dialogs.into_iter().enumerate() {
        let (caller, callee) = pair(call);
        hang_up(&mut core, caller, callee, dialog, call);
        core.pass(PACE);
    }
    let at_once = heap::live().saturating_sub(before);
    core.pass(REST);
    let at_rest = heap::live().saturating_sub(before);
    report("INVITE, 180, 200, ACK, BYE, 200", "call", &core, calls);
    let each = |bytes: usize| bytes as f64 / calls as f64;
    println!(
        "  heap: {:.0} bytes a call just answered, {:.0} while it lasts (the caller's dialog among them), {:.0} just ended, {:.0} at rest",
        each(answered),
        each(held),
        each(at_once),
        each(at_rest)
    );
}
