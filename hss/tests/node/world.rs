//! An HSS, an S-CSCF's Diameter endpoint, and a store that works, is slow, or is down.

use hss::{Config, Hss};
use ims_aka::{Algorithm, Challenge, Usim};
use ims_core::command::{Command, CommandId, Problem};
use ims_core::store::{MemoryStore, Record, StoreError, StoreReply, StoreRequest};
use ims_core::{Action, Ctx, Event, Impi, Impu, LinkId, Node, RequestId, Rng, Secret, Time};
use ims_diameter::cx::{
    AuthItem, Lia, Lir, Maa, Mar, ResultCode, Saa, Sar, ServerAssignmentType, Uaa, Uar, UserAuthorizationType,
};
use ims_diameter::endpoint::{RequestToken, To};
use ims_diameter::{DiameterEvent, Endpoint, EndpointConfig, Message, PeerConfig};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::time::Duration;

pub(crate) const D: &str = "ims.mnc001.mcc001.3gppnetwork.org";
pub(crate) const K: &str = "465b5ce8b199b49faa5f0a2ee238a6bc";
pub(crate) const OPC: &str = "cd63cb71954a9f4e48a5994e37a02baf";
pub(crate) const IMSI: &str = "001010000000001";
pub(crate) const S1: &str = "sip:scscf.ims.mnc001.mcc001.3gppnetwork.org:6060";
const LINK: LinkId = LinkId(1);

pub(crate) enum Disk {
    Works,
    /// Requests wait for [`World::work_off`].
    Slow,
    Down,
}

pub(crate) struct World {
    pub(crate) hss: Hss,
    scscf: Endpoint,
    pub(crate) store: MemoryStore,
    pub(crate) disk: Disk,
    pub(crate) queue: VecDeque<(RequestId, StoreRequest)>,
    now: Time,
    rng: Rng,
    pub(crate) replies: Vec<(CommandId, Result<Value, Problem>)>,
    pub(crate) answers: Vec<Message>,
    pub(crate) requests: Vec<(RequestToken, Message)>,
    last_command: u64,
}

pub(crate) fn config() -> Config {
    Config { master_key: Some(Secret::new([7; 32])), ..Config::default() }
}

impl World {
    pub(crate) fn new(config: Config) -> Self {
        Self::over(MemoryStore::default(), config)
    }

    fn over(store: MemoryStore, config: Config) -> Self {
        Self::on(store, config, Disk::Works)
    }

    fn on(store: MemoryStore, config: Config, disk: Disk) -> Self {
        let peer = PeerConfig { connect: Some("127.0.0.1:3868".into()), ..PeerConfig::default() };
        let scscf =
            EndpointConfig { origin_host: format!("scscf.{D}"), peers: vec![peer], ..EndpointConfig::default() };
        let mut world = Self {
            hss: Hss::new(config).unwrap(),
            scscf: Endpoint::new(scscf),
            store,
            disk,
            queue: VecDeque::new(),
            now: Time::from_secs(1_700_000_000),
            rng: Rng::from_u64(1),
            replies: vec![],
            answers: vec![],
            requests: vec![],
            last_command: 0,
        };
        world.give(Event::Start);
        world.of_scscf(|scscf, ctx| scscf.on_start(ctx));
        assert!(world.hss.is_quiet() || !matches!(world.disk, Disk::Works));
        world
    }

    /// With the lab's subscriber.
    pub(crate) fn with_subscriber() -> Self {
        let mut world = Self::new(config());
        world.create(IMSI, json!({ "msisdn": "4915112345678" })).unwrap();
        world
    }

    /// Another HSS over the same store.
    pub(crate) fn restarted(self, config: Config) -> Self {
        self.restarted_on(config, Disk::Works)
    }

    pub(crate) fn restarted_on(mut self, config: Config, disk: Disk) -> Self {
        let store = std::mem::take(&mut self.store);
        Self { rng: Rng::from_u64(self.rng.u64()), ..Self::on(store, config, disk) }
    }

    /// Kills the HSS. The disk keeps what it acknowledged; what was under way is done or lost.
    pub(crate) fn crash(&mut self, done: bool) {
        for (_, request) in self.queue.drain(..).filter(|_| done) {
            let _ = self.store.perform(request);
        }
        let old = std::mem::replace(self, Self::new(config()));
        *self = old.restarted(config());
    }

    pub(crate) fn give(&mut self, event: Event) {
        let mut actions = vec![];
        self.hss.handle(event, &mut Ctx { now: self.now, rng: &mut self.rng, actions: &mut actions });
        for action in actions {
            match action {
                Action::SendDiameter { bytes, .. } => self.of_scscf(|scscf, ctx| scscf.on_message(LINK, bytes, ctx)),
                Action::Store { id, request } => self.perform(id, request),
                Action::Reply { id, result } => self.replies.push((id, result)),
                // Kept across restarts: the simulator's scenarios look at it.
                Action::Put(_) | Action::Delete { .. } | Action::CloseLink(_) => {}
                other => panic!("unexpected: {other:?}"),
            }
        }
    }

    fn perform(&mut self, id: RequestId, request: StoreRequest) {
        let result = match self.disk {
            Disk::Works => self.store.perform(request),
            Disk::Slow => return self.queue.push_back((id, request)),
            Disk::Down => Err(StoreError::Unavailable("disk full".into())),
        };
        self.give(Event::Stored { id, result });
    }

    /// The first request that waits for the slow disk.
    pub(crate) fn work_one(&mut self) {
        let (id, request) = self.queue.pop_front().unwrap();
        let result = self.store.perform(request);
        self.give(Event::Stored { id, result });
    }

    pub(crate) fn work_off(&mut self) {
        while !self.queue.is_empty() {
            self.work_one();
        }
    }

    pub(crate) fn of_scscf(&mut self, f: impl FnOnce(&mut Endpoint, &mut Ctx<'_>)) {
        let mut actions = vec![];
        f(&mut self.scscf, &mut Ctx { now: self.now, rng: &mut self.rng, actions: &mut actions });
        self.after_scscf(actions);
    }

    fn after_scscf(&mut self, actions: Vec<Action>) {
        while let Some(event) = self.scscf.next_event() {
            match event {
                DiameterEvent::Answer { message, .. } => self.answers.push(message),
                DiameterEvent::Request { token, message } => self.requests.push((token, message)),
                DiameterEvent::Failed { id, cause } => panic!("{id:?}: {cause}"),
                DiameterEvent::PeerUp { .. } | DiameterEvent::PeerDown { .. } => {}
            }
        }
        for action in actions {
            match action {
                Action::Connect { peer, .. } => {
                    let remote = "127.0.0.1:3868".parse().unwrap();
                    self.give(Event::LinkUp { link: LINK, peer: None, remote });
                    self.of_scscf(|scscf, ctx| scscf.on_link_up(LINK, Some(peer), remote, ctx));
                }
                Action::SendDiameter { bytes, .. } => self.give(Event::Diameter { link: LINK, bytes }),
                other => panic!("unexpected: {other:?}"),
            }
        }
    }

    pub(crate) fn send(&mut self, message: Message) {
        let to = To { realm: D.into(), host: None };
        self.of_scscf(|scscf, ctx| {
            scscf.send_request(message, &to, ctx);
        });
    }

    pub(crate) fn ask(&mut self, message: Message) -> Message {
        self.send(message);
        self.answers.pop().expect("an answer")
    }

    pub(crate) fn uar(&mut self, impi: Impi, impu: Impu) -> Uaa {
        let kind = UserAuthorizationType::Registration;
        let uar = Uar { impi, impu, visited_network: None, kind, emergency: false };
        Uaa::from_message(&self.ask(uar.to_message())).unwrap()
    }

    pub(crate) fn mar(&mut self) -> Maa {
        Maa::from_message(&self.ask(mar(IMSI))).unwrap()
    }

    pub(crate) fn sar(&mut self, kind: ServerAssignmentType) -> Saa {
        Saa::from_message(&self.ask(sar(kind).to_message())).unwrap()
    }

    pub(crate) fn register(&mut self) {
        self.mar();
        assert_eq!(self.sar(ServerAssignmentType::Registration).result, ResultCode::SUCCESS);
    }

    pub(crate) fn lir(&mut self, identity: &str) -> Lia {
        let lir = Lir { impu: impu(identity), originating: false, capabilities: false };
        Lia::from_message(&self.ask(lir.to_message())).unwrap()
    }

    pub(crate) fn start_command(&mut self, call: &str, args: Value) {
        self.last_command += 1;
        let id = CommandId(self.last_command);
        self.give(Event::Command(Command { id, call: call.into(), args }));
    }

    pub(crate) fn command(&mut self, call: &str, args: Value) -> Result<Value, Problem> {
        self.start_command(call, args);
        let (id, result) = self.replies.pop().expect("a reply");
        assert_eq!(id, CommandId(self.last_command));
        result
    }

    pub(crate) fn create(&mut self, imsi: &str, more: Value) -> Result<Value, Problem> {
        let mut args = json!({ "imsi": imsi, "k": K, "opc": OPC });
        for (key, value) in more.as_object().unwrap() {
            args[key] = value.clone();
        }
        self.command("subscriber.create", args)
    }

    pub(crate) fn show(&mut self) -> Value {
        self.command("subscriber.show", json!({ "imsi": IMSI })).unwrap()
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.give(Event::Timeout);
    }

    /// Until what was answered is written.
    pub(crate) fn rest(&mut self) {
        self.pass(Duration::from_secs(2));
        assert_eq!(self.unwritten(), 0);
    }

    pub(crate) fn unwritten(&self) -> u64 {
        self.hss.snapshot()["unwritten"].as_u64().unwrap()
    }

    /// The state of the subscriber on the disk.
    pub(crate) fn stored(&mut self) -> (Record, Value) {
        let load = StoreRequest::Load { key: format!("imsi:{IMSI}") };
        let Ok(StoreReply::Loaded(Some(record))) = self.store.perform(load) else { panic!() };
        let state = serde_json::from_slice(&record.state).unwrap();
        (record, state)
    }

    /// Another program changes the subscriber.
    pub(crate) fn change_stored(&mut self, change: impl FnOnce(&mut Value)) {
        let (record, mut state) = self.stored();
        change(&mut state);
        let (id, version, state) = (record.id, record.version, state.to_string().into_bytes());
        self.store.perform(StoreRequest::Commit { id, version, state }).unwrap();
    }

    pub(crate) fn refusals(&self, name: &str) -> u64 {
        self.hss.snapshot()["refusals"][name].as_u64().unwrap_or(0)
    }
}

pub(crate) fn impi(imsi: &str) -> Impi {
    Impi::parse(&format!("{imsi}@{D}")).unwrap()
}

pub(crate) fn impu(text: &str) -> Impu {
    Impu::parse(text).unwrap()
}

pub(crate) fn temporary(imsi: &str) -> Impu {
    impu(&format!("sip:{imsi}@{D}"))
}

pub(crate) fn mar(imsi: &str) -> Message {
    mar_of(imsi).to_message()
}

pub(crate) fn mar_of(imsi: &str) -> Mar {
    Mar {
        impi: impi(imsi),
        impu: temporary(imsi),
        server_name: S1.into(),
        items: 1,
        scheme: "Digest-AKAv1-MD5".into(),
        authorization: None,
    }
}

pub(crate) fn sar(kind: ServerAssignmentType) -> Sar {
    Sar {
        impi: Some(impi(IMSI)),
        impus: vec![temporary(IMSI)],
        server_name: S1.into(),
        kind,
        data_already_available: false,
        wildcarded: None,
    }
}

/// The SEQ in a vector, as the SIM would find it.
pub(crate) fn seq(maa: &Maa) -> u64 {
    let [AuthItem::Aka { rand, autn, .. }] = maa.items.as_slice() else { panic!("{maa:?}") };
    let mut usim = Usim::new(Algorithm::milenage(Secret::from_hex(K).unwrap(), Secret::from_hex(OPC).unwrap()));
    assert!(matches!(usim.authenticate(rand, autn), Challenge::Accepted { .. }));
    usim.sqn_ms().seq()
}
