//! The handsets of a load run: who begins when, who goes away and comes back, and what became of each.

pub(super) mod calls;
mod ipsec;
mod outcome;

use super::curve::Curve;
use super::place::Places;
use super::stats::Tally;
use super::wire::{Arrived, Wire};
use super::{Options, Plan, Transports};
use bytes::Bytes;
use calls::Calling;
use ims_core::sa::{SaChange, SaError};
use ims_core::{Action, Ctx, Event, Flow, Node, Packet, Rng, SendTag, Time, Transport};
use ipsec::Ipsec;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use ue::config::{GmTransport, Quirk};
use ue::{Config, Key, Procedure, Script, Ue};

/// What a handset is made to do.
enum Do {
    Handle(Event),
    Start(Procedure),
    /// From scratch, as a phone that was switched on.
    Register,
    /// Away without a word; the next port is another one.
    Vanish,
    Call(String, Box<Script>),
    HangUp,
}

/// One handset of the fleet.
struct Handset {
    node: Ue,
    /// What it sent last, while it waits for the answer: the same again is a retransmission.
    last: Bytes,
    /// When it is in the queue to be woken.
    queued: Option<Time>,
    /// When it comes back, or goes away, by our plan.
    turns_at: Option<Time>,
    /// Which of its ports it has.
    turn: u32,
    /// Refusing it is right.
    is_wrong: bool,
    /// Until when the network has promised to know it; None when the handset itself ended that.
    bound_until: Option<Time>,
    was_busy: bool,
    was_registered: bool,
}

/// Where in the run we are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Load,
    /// No more is begun; what runs may end.
    Drain,
    /// Each registered handset asks what is bound.
    Verify,
    /// The last answers.
    Settle,
    Over,
}

pub(super) struct Fleet<'a> {
    options: &'a Options,
    plan: Plan,
    config: Config,
    first_imsi: u64,
    places: Places,
    wire: Wire,
    ipsec: Option<Ipsec>,
    handsets: Vec<Option<Box<Handset>>>,
    wake: BinaryHeap<Reverse<(Time, u32)>>,
    phase: Phase,
    phase_since: Time,
    calling: Option<Calling>,
    to_verify: VecDeque<u32>,
    /// Queries begun.
    asked: u64,
    begun: u64,
    churned: u64,
    busy: u32,
    registered: u32,
    began: Instant,
    began_at: Time,
    /// When the last registration was begun.
    last_begun: Duration,
    rng: Rng,
    curve: Curve,
    total: Tally,
    interval: Tally,
    interval_since: Time,
    lost: Vec<String>,
}

impl<'a> Fleet<'a> {
    pub(super) fn new(options: &'a Options, mut plan: Plan) -> Result<Self, String> {
        let t1 = plan.t1;
        let calling = plan.calls.take().map(|calls| Calling::new(calls, plan.handsets));
        let base = options.subscription.config()?;
        let config = Config {
            sec_agree: options.sec_agree || options.ipsec,
            allow_unprotected: !options.ipsec,
            port: options.port,
            t1,
            t2: ims_core::config::Span(t1.0 * 8),
            t4: ims_core::config::Span(t1.0 * 10),
            retry: (options.handsets.is_some() || options.obey_retry_after).then_some(plan.retry),
            obey_retry_after: options.obey_retry_after,
            refresh_every: plan.refresh_every,
            journal: false,
            script: calling.as_ref().map(|c| c.script().clone()).unwrap_or_default(),
            ..base
        };
        let first_imsi = config.imsi.parse().map_err(|_| "--imsi: digits are needed")?;
        let moving = options.churn > 0.0;
        let places = Places::new(plan.first_address, plan.addresses, plan.handsets, options.port, moving)?;
        let mut protected = Vec::new();
        let mut ipsec = None;
        if options.ipsec {
            if !places.are_addresses() {
                return Err("--ipsec: an address for each handset is needed".into());
            }
            protected.push(config.port_us);
            protected.extend((0..config.client_ports).map(|n| config.port_uc.saturating_add(n)));
            if protected.iter().any(|port| *port >= options.port) {
                return Err(format!("--port: must be above the protected ports, {protected:?}"));
            }
            ipsec = Some(Ipsec::open()?);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let began_at = Time::EPOCH + now;
        Ok(Self {
            wire: Wire::open(&places, &protected, options.transport != Transports::Tcp)?,
            ipsec,
            places,
            first_imsi,
            config,
            handsets: (0..plan.handsets).map(|_| None).collect(),
            wake: BinaryHeap::new(),
            phase: Phase::Load,
            phase_since: began_at,
            calling,
            to_verify: VecDeque::new(),
            asked: 0,
            begun: 0,
            churned: 0,
            busy: 0,
            registered: 0,
            began: Instant::now(),
            began_at,
            last_begun: Duration::ZERO,
            rng: Rng::from_seed(ims_shell::entropy::random().map_err(|e| e.to_string())?),
            curve: Curve::new(options.curve.as_deref(), &options.watch_pid, options.calls.is_some(), options.quiet)?,
            total: Tally::default(),
            interval: Tally::default(),
            interval_since: began_at,
            lost: Vec::new(),
            options,
            plan,
        })
    }

    fn now(&self) -> Time {
        self.began_at + self.began.elapsed()
    }

    pub(super) fn run(&mut self) -> std::io::Result<()> {
        self.began = Instant::now();
        let mut arrived = Vec::new();
        loop {
            self.begin_due();
            self.call_due();
            self.churn_due();
            self.verify_due();
            self.wake_due();
            self.expire_associations();
            self.point_due();
            self.next_phase();
            if self.phase == Phase::Over {
                break;
            }
            let patience = self.patience();
            self.wire.wait(patience, &mut arrived)?;
            for message in arrived.drain(..) {
                self.on_arrived(message);
            }
        }
        self.close();
        Ok(())
    }

    fn patience(&self) -> Duration {
        let mut patience = Duration::from_millis(20);
        if self.phase == Phase::Load || self.phase == Phase::Verify {
            patience = patience.min(Duration::from_secs_f64(1.0 / self.options.rate));
        }
        if let Some(calling) = &self.calling {
            patience = patience.min(Duration::from_secs_f64(1.0 / calling.rate()));
        }
        if let Some(Reverse((at, _))) = self.wake.peek() {
            patience = patience.min(at.since(self.now()));
        }
        // The clock of the poll counts milliseconds, rounded up: less would be spinning, and none is for what is due.
        if patience < Duration::from_micros(200) { Duration::ZERO } else { patience }
    }

    fn next_phase(&mut self) {
        let since = self.now().since(self.phase_since);
        let calls = self.calling.as_ref().map_or(0, |c| c.open);
        let settled = self.busy == 0 && calls == 0 && (!self.options.expect_restart || self.missing() == 0);
        let calls_end = self.calling.as_ref().map_or(Duration::ZERO, Calling::ending);
        let rested = settled || since >= self.plan.drain + calls_end;
        let next = match self.phase {
            Phase::Load => {
                let ended = match self.plan.in_turn {
                    Some(total) => self.begun == total,
                    // Calls begin when all have attached.
                    None if self.calling.is_some() => self.called_for().is_some_and(|t| t >= self.plan.seconds),
                    None => since >= self.plan.seconds,
                };
                ended.then_some(Phase::Drain)
            }
            Phase::Drain if rested && self.options.verify => {
                self.to_verify = (0..self.plan.handsets).filter(|index| self.is_registered(*index)).collect();
                Some(Phase::Verify)
            }
            Phase::Verify => self.to_verify.is_empty().then_some(Phase::Settle),
            Phase::Drain | Phase::Settle => rested.then_some(Phase::Over),
            Phase::Over => None,
        };
        if let Some(next) = next {
            (self.phase, self.phase_since) = (next, self.now());
        }
    }

    fn is_registered(&self, index: u32) -> bool {
        matches!(self.handsets.get(index as usize), Some(Some(handset)) if handset.was_registered)
    }

    /// Handsets that should be registered and are not.
    fn missing(&self) -> u32 {
        let missing = |h: &&Handset| h.bound_until.is_some() && !h.was_registered;
        u32::try_from(self.handsets.iter().flatten().map(|h| &**h).filter(missing).count()).unwrap_or(u32::MAX)
    }

    fn begin_due(&mut self) {
        if self.phase != Phase::Load {
            return;
        }
        let total = self.plan.in_turn.unwrap_or(u64::from(self.plan.handsets));
        let due = (self.began.elapsed().as_secs_f64() * self.options.rate) as u64 + 1;
        while self.begun < total.min(due) {
            let index = u32::try_from(self.begun % u64::from(self.plan.handsets)).unwrap_or(0);
            self.begun += 1;
            self.last_begun = self.began.elapsed();
            let Some(mut handset) = self.take(index) else { continue };
            if handset.node.is_busy() {
                self.interval.fail("still-busy".into());
            } else {
                self.act(index, &mut handset, Do::Register);
            }
            self.put(index, handset);
        }
    }

    /// So many of the registered handsets go away each minute.
    fn churn_due(&mut self) {
        if self.phase != Phase::Load || self.options.churn <= 0.0 {
            return;
        }
        let per_second = f64::from(self.plan.handsets) * self.options.churn / 6000.0;
        let due = (self.began.elapsed().as_secs_f64() * per_second) as u64;
        while self.churned < due {
            self.churned += 1;
            let index = u32::try_from(self.rng.below(u64::from(self.plan.handsets))).unwrap_or(0);
            let Some(Some(handset)) = self.handsets.get(index as usize) else { continue };
            if handset.turns_at.is_some() || handset.node.is_busy() || !handset.was_registered {
                continue;
            }
            let Some(mut handset) = self.take(index) else { continue };
            let leave = if self.churned.is_multiple_of(2) { Do::Start(Procedure::Deregister) } else { Do::Vanish };
            self.act(index, &mut handset, leave);
            self.put(index, handset);
        }
    }

    fn verify_due(&mut self) {
        if self.phase != Phase::Verify {
            return;
        }
        // A population may have attached slowly; asking it is over in half a minute.
        let rate = self.options.rate.max(f64::from(self.plan.handsets) / 30.0);
        let due = (self.now().since(self.phase_since).as_secs_f64() * rate) as u64 + 1;
        while self.asked < due {
            let Some(index) = self.to_verify.pop_front() else { return };
            self.asked += 1;
            let Some(mut handset) = self.take(index) else { continue };
            if handset.node.is_busy() {
                // Later: it refreshes just now.
                self.to_verify.push_back(index);
            } else {
                self.act(index, &mut handset, Do::Start(Procedure::Query));
            }
            self.put(index, handset);
        }
    }

    fn take(&mut self, index: u32) -> Option<Box<Handset>> {
        if let Some(handset) = self.handsets.get_mut(index as usize)?.take() {
            return Some(handset);
        }
        let is_wrong = is_among(index, self.options.fail);
        let is_tcp = match self.options.transport {
            Transports::Udp => false,
            Transports::Tcp => true,
            Transports::Mixed => index % 2 == 1,
        };
        let mut config = Config {
            imsi: format!("{:0w$}", self.first_imsi + u64::from(index), w = self.config.imsi.len()),
            address: self.places.address(index),
            port: self.places.port(index, 0),
            transport: if is_tcp { GmTransport::Tcp } else { GmTransport::Udp },
            ..self.config.clone()
        };
        if is_wrong {
            make_wrong(&mut config, index);
        }
        match Ue::new(config) {
            Ok(node) => Some(Box::new(Handset {
                node,
                last: Bytes::new(),
                queued: None,
                turns_at: None,
                turn: 0,
                is_wrong,
                bound_until: None,
                was_busy: false,
                was_registered: false,
            })),
            Err(e) => {
                self.interval.fail(e.to_string());
                None
            }
        }
    }

    fn put(&mut self, index: u32, handset: Box<Handset>) {
        if let Some(slot) = self.handsets.get_mut(index as usize) {
            *slot = Some(handset);
        }
    }

    /// Lets the node do something, performs its actions, takes its reports, and queues its deadline.
    fn act(&mut self, index: u32, handset: &mut Handset, first: Do) {
        let mut open = vec![first];
        while let Some(next) = open.pop() {
            let mut actions = Vec::new();
            let now = self.now();
            let ctx = &mut Ctx { now, rng: &mut self.rng, actions: &mut actions };
            match next {
                Do::Handle(event) => handset.node.handle(event, ctx),
                Do::Start(procedure) => {
                    handset.node.start(procedure, ctx);
                }
                Do::Register => {
                    handset.turns_at = None;
                    handset.bound_until = None;
                    handset.node.power_off(ctx);
                    handset.node.start(Procedure::Register, ctx);
                }
                Do::Call(to, script) => {
                    let begun = handset.node.call(&to, &script, ctx);
                    self.on_call_begun(index, begun);
                }
                Do::HangUp => handset.node.leave_calls(ctx),
                Do::Vanish => {
                    self.interval.vanished += 1;
                    handset.node.power_off(ctx);
                    self.go_away(index, handset, now);
                }
            }
            for action in actions {
                match action {
                    Action::SendSip { flow, bytes, tag } => open.extend(self.send(index, handset, flow, bytes, tag)),
                    Action::Sa { id, change } => {
                        open.push(Do::Handle(Event::Sa { id, result: self.change_sa(index, change) }));
                    }
                    _ => {}
                }
            }
            while let Some(report) = handset.node.next_report() {
                open.extend(self.on_report(index, handset, report));
            }
            while let Some(report) = handset.node.next_call_report() {
                self.on_call_report(index, handset, &report);
            }
        }
        self.account(index, handset);
    }

    /// What has changed with this handset.
    fn account(&mut self, index: u32, handset: &mut Handset) {
        let (busy, registered) = (handset.node.is_busy(), handset.node.binding().is_some());
        let change = |count: &mut u32, was: &mut bool, is: bool| {
            *count = count.wrapping_add(u32::from(is)).wrapping_sub(u32::from(*was));
            *was = is;
        };
        change(&mut self.busy, &mut handset.was_busy, busy);
        change(&mut self.registered, &mut handset.was_registered, registered);
        if !busy {
            handset.last = Bytes::new();
            // Thousands of empty tables are most of what a fleet of idle handsets would hold.
            handset.node.trim();
        }
        let deadline = [handset.node.deadline(), handset.turns_at].into_iter().flatten().min();
        if let Some(at) = deadline.filter(|at| handset.queued.is_none_or(|queued| *at < queued)) {
            handset.queued = Some(at);
            self.wake.push(Reverse((at, index)));
        }
    }

    fn change_sa(&mut self, index: u32, change: SaChange) -> Result<(), SaError> {
        let now = self.now();
        // In clear, as in most load runs, there is no ESP: the handset goes on without.
        self.ipsec.as_mut().map_or(Err(SaError::NoEsp), |ipsec| ipsec.change(index, change, now))
    }

    fn expire_associations(&mut self) {
        let Some(ipsec) = &mut self.ipsec else { return };
        for expiry in ipsec.expired() {
            let Some(index) = self.places.whose((expiry.dst, self.options.port).into()) else { continue };
            let Some(mut handset) = self.take(index) else { continue };
            self.act(index, &mut handset, Do::Handle(Event::SaExpired(expiry)));
            self.put(index, handset);
        }
    }

    /// Off until its think time is over; then it is on another port.
    fn go_away(&mut self, index: u32, handset: &mut Handset, now: Time) {
        handset.bound_until = None;
        self.wire.hang_up(index);
        handset.turn += 1;
        handset.node.move_to(self.places.port(index, handset.turn));
        handset.turns_at = Some(now + self.think());
    }

    fn think(&mut self) -> Duration {
        let think = u64::try_from(self.plan.think.as_micros()).unwrap_or(u64::MAX).max(1);
        Duration::from_micros(think / 2 + self.rng.below(think))
    }

    fn send(&mut self, index: u32, handset: &mut Handset, flow: Flow, bytes: Bytes, tag: SendTag) -> Option<Do> {
        if handset.last == bytes {
            self.interval.retransmissions += 1;
        }
        let failed = match flow.transport {
            Transport::Udp => {
                // As good as lost when not taken: the transaction repeats it.
                self.interval.unsent += u64::from(!self.wire.send_udp(&flow, &bytes));
                None
            }
            Transport::Tcp => self.wire.send_tcp(index, &flow, &bytes, tag).err(),
        };
        handset.last = bytes;
        failed.map(|error| Do::Handle(Event::SipFailed { tag, flow, error }))
    }

    fn wake_due(&mut self) {
        let now = self.now();
        while let Some(Reverse((at, index))) = self.wake.peek().copied().filter(|Reverse((at, _))| *at <= now) {
            self.wake.pop();
            let Some(mut handset) = self.take(index) else { continue };
            if handset.queued == Some(at) {
                handset.queued = None;
                self.wake_up(index, &mut handset, now);
            }
            self.put(index, handset);
        }
    }

    fn wake_up(&mut self, index: u32, handset: &mut Handset, now: Time) {
        let Some(_) = handset.turns_at.filter(|at| *at <= now) else {
            return self.act(index, handset, Do::Handle(Event::Timeout));
        };
        handset.turns_at = None;
        let next = if handset.node.binding().is_some() { Do::Start(Procedure::Deregister) } else { Do::Register };
        if self.phase == Phase::Load {
            self.act(index, handset, next);
        } else {
            self.account(index, handset);
        }
    }

    fn on_arrived(&mut self, arrived: Arrived) {
        let (index, event) = match arrived {
            Arrived::Stray => {
                self.interval.received += 1;
                self.interval.strays += 1;
                return;
            }
            Arrived::Message { owner, flow, bytes } => {
                self.interval.received += 1;
                (owner, Event::Sip(Packet { flow, bytes }))
            }
            Arrived::Failed { owner, flow, tag, error } => (owner, Event::SipFailed { tag, flow, error }),
            Arrived::Closed { owner, conn } => (owner, Event::FlowClosed(conn)),
        };
        match self.handsets.get(index as usize) {
            Some(Some(_)) => {}
            _ => return self.interval.strays += 1,
        }
        let Some(mut handset) = self.take(index) else { return };
        self.act(index, &mut handset, Do::Handle(event));
        self.put(index, handset);
    }
}

/// Whether the handset is one of so many per cent, spread evenly.
fn is_among(index: u32, per_cent: f64) -> bool {
    let before = |n: f64| (n * per_cent / 100.0) as u64;
    before(f64::from(index) + 1.0) > before(f64::from(index))
}

/// A handset that must be refused: nobody knows it, or its key is another one, or its answer is wrong.
fn make_wrong(config: &mut Config, index: u32) {
    match index % 3 {
        // Nobody has this number: the first digit behind the PLMN is a 9.
        0 => config.imsi.replace_range(5..6, "9"),
        1 => config.k = Key::from_hex("000102030405060708090a0b0c0d0e0f").unwrap_or_default(),
        _ => config.quirk = Some(Quirk::WrongRes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn so_many_per_cent_are_wrong_and_all_else_is_not() {
        for (per_cent, of, many) in [(3.0, 200, 6), (0.0, 100, 0), (100.0, 50, 50), (0.1, 10_000, 10)] {
            assert_eq!((0..of).filter(|i| is_among(*i, per_cent)).count(), many, "{per_cent} per cent of {of}");
        }
    }

    /// A network that answers everything with this.
    fn network(status: u16, retry_after: u32) -> (std::net::SocketAddr, std::thread::JoinHandle<usize>) {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let at = socket.local_addr().unwrap();
        let serve = move || {
            let (mut buffer, mut answered) = ([0; 65_536], 0);
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let request = ims_sip::Message::parse(Bytes::copy_from_slice(&buffer[..length])).unwrap();
                let mut answer = ims_sip::Message::response(&request, status, Some("net"));
                answer.set(ims_sip::Name::RetryAfter, retry_after);
                socket.send_to(&answer.to_bytes(), from).unwrap();
                answered += 1;
            }
            answered
        };
        (at, std::thread::spawn(serve))
    }

    fn run(pcscf: std::net::SocketAddr, more: &str) -> (Value, bool) {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            options: Options,
        }
        let line = format!("ue --pcscf {pcscf} --quiet {more}");
        let Line { options } = clap::Parser::try_parse_from(line.split_ascii_whitespace()).unwrap();
        let mut fleet = Fleet::new(&options, Plan::new(&options).unwrap()).unwrap();
        fleet.run().unwrap();
        (fleet.summary(), fleet.is_good())
    }

    #[test]
    fn an_early_refusal_is_no_failure_of_another_kind() {
        let (at, network) = network(503, 1);
        let (found, good) = run(at, "--rate 100 --seconds 0.2 --port 41090");
        assert!(!good && found["failed_per_cent"] == 100.0, "{found}");
        assert_eq!((&found["refused"], &found["failures"]), (&json!({ "503": 20 }), &json!({})));
        let repeated = found["retransmissions"].as_u64().unwrap();
        assert_eq!(network.join().unwrap() as u64, 20 + repeated, "nobody comes again unasked");
    }

    #[test]
    fn retry_after_is_obeyed_when_asked_for() {
        let (at, network) = network(503, 1);
        let (found, _) = run(at, "--handsets 10 --rate 100 --seconds 2.5 --port 41190 --obey-retry-after");
        let (refused, tolerated) = (found["refused"]["503"].as_u64().unwrap(), found["tolerated"].as_u64().unwrap());
        assert!((20..=30).contains(&refused) && tolerated == refused, "at 0, 1 and 2 s: {found}");
        assert!(network.join().unwrap() >= 20);
    }

    /// A network that lets everybody in and connects who calls: a registrar and a stateless proxy.
    fn switchboard() -> (std::net::SocketAddr, std::thread::JoinHandle<()>) {
        use ims_core::uri::Uri;
        use ims_sip::headers::Via;
        use ims_sip::{Message, Method, Name};
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let at = socket.local_addr().unwrap();
        let serve = move || {
            let (mut buffer, mut contacts) = ([0; 65_536], std::collections::HashMap::new());
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let mut m = Message::parse(Bytes::copy_from_slice(&buffer[..length])).unwrap();
                if !m.is_request() {
                    m.pop_first(Name::Via);
                    let via: Via<'_> = m.first().unwrap().unwrap();
                    let to = format!("{}:{}", via.host, via.port.unwrap());
                    socket.send_to(&m.to_bytes(), to).unwrap();
                } else if m.method() == Method::Register {
                    let in_brackets = |text: &str| text.split(['<', '>']).nth(1).unwrap().to_owned();
                    let (user, contact) = (m.text(Name::To).unwrap(), m.text(Name::Contact).unwrap());
                    let known = m.text(Name::Authorization).is_some_and(|a| !a.contains("response=\"\""));
                    let mut answer = Message::response(&m, if known { 200 } else { 401 }, Some("net"));
                    contacts.insert(in_brackets(user), in_brackets(contact));
                    answer.set(Name::Contact, format!("{contact};expires=600"));
                    answer.set(Name::ServiceRoute, format!("<sip:{at};lr>"));
                    answer.set(Name::PAssociatedUri, user);
                    let challenge =
                        "Digest realm=\"ims.mnc001.mcc001.3gppnetwork.org\",nonce=\"n\",algorithm=MD5,qop=\"auth\"";
                    answer.set(Name::WwwAuthenticate, challenge);
                    socket.send_to(&answer.to_bytes(), from).unwrap();
                } else {
                    let branch = m.first::<Via<'_>>().unwrap().unwrap().params.value("branch").unwrap().to_owned();
                    m.push_front(Name::Via, format!("SIP/2.0/UDP {at};branch={branch}p"));
                    m.remove(Name::Route);
                    let to = contacts.get(m.uri()).cloned().unwrap_or_else(|| m.uri().to_owned());
                    m.set_uri(&to);
                    let uri = Uri::parse(&to).unwrap();
                    socket.send_to(&m.to_bytes(), (uri.host(), uri.port().unwrap())).unwrap();
                }
            }
        };
        (at, std::thread::spawn(serve))
    }

    #[test]
    fn pairs_of_a_population_call_and_each_call_is_accounted_for() {
        let (at, network) = switchboard();
        let line =
            "--handsets 8 --rate 100 --calls 20 --hold 0.2 --ring 20ms --seconds 1 --port 41290 --password secret";
        let (found, good) = run(at, line);
        network.join().unwrap();
        let calls = &found["calls"];
        let number = |name: &str| calls[name].as_u64().unwrap();
        assert_eq!(number("begun"), number("completed") + number("failed") + number("cut_short"), "{calls:#}");
        // Four pairs may all be busy for a while.
        let busy = calls["failures"]["no-free-pair"].as_u64().unwrap_or(0);
        assert_eq!((number("failed"), good), (busy, busy == 0), "{calls:#}");
        assert!(number("answered") >= 10 && calls["setup_ms"]["p50"].as_f64() >= Some(20.0), "{calls:#}");
    }

    #[test]
    fn options_that_cannot_be_are_refused_before_anything_is_sent() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            options: Options,
        }
        for (line, named) in [
            ("--rate 0", "--rate"),
            ("--churn 5", "--handsets"),
            ("--handsets 5 --fail 101", "--fail"),
            ("--pcscf [::1]:5060 --ue-net 127.0.0.1", "--ue-net"),
            ("--ipsec --transport tcp", "--ipsec"),
            ("--t1 soon", "--t1"),
            ("--calls 5", "--handsets"),
            ("--handsets 1 --calls 5", "--handsets"),
            ("--handsets 4 --calls 5 --churn 1", "--churn"),
            ("--handsets 4 --calls 5 --hold=-1", "--hold"),
            ("--handsets 4 --calls 5 --ring soon", "--ring"),
        ] {
            let words = std::iter::once("ue").chain(line.split_ascii_whitespace());
            let Line { options } = clap::Parser::try_parse_from(words).unwrap();
            let refused = Plan::new(&options).err().unwrap_or_default();
            assert!(refused.contains(named), "{line}: {refused}");
        }
    }

    #[test]
    fn the_unknown_stay_in_their_network() {
        let mut config = Config { imsi: "001010000000003".into(), ..Config::default() };
        make_wrong(&mut config, 3);
        assert_eq!(config.imsi, "001019000000003");
        make_wrong(&mut config, 2);
        assert_eq!(config.quirk, Some(Quirk::WrongRes));
    }
}
