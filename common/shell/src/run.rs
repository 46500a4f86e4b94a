//! Nodes as tasks: binding all that they need, starting them, and ending them.

use crate::dns::Dns;
use crate::inbox::{Inbox, Input, Intake};
use crate::keep::{Journal, Keeping};
use crate::node_task::{NodeTask, Tap};
use crate::store::{self, Sqlite, StoreJob};
use crate::world::{Bound, Clock, Ids, Meters, NodeIndex, Seat, Tasks, World};
use crate::xfrm::{self, ProtectedPort, SaKernel};
use crate::{Settings, StartError, diameter_tcp, entropy, http, sip_tcp, sip_udp, tcp};
use ims_core::{Event, Node, Problem, Secret, Wiring};
use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::{debug, error};

/// How long the database and the kernel may take to be left in good order.
const GOODBYE: Duration = Duration::from_secs(5);
/// How long the nodes may take to say goodbye to their peers, and how often we look.
const FAREWELL: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(5);

/// Nodes and what they need, before they run.
pub struct Shell {
    settings: Settings,
    nodes: Vec<(String, Box<dyn Node + Send>, Wiring)>,
    stores: Vec<(String, PathBuf)>,
    keeping: Vec<String>,
    kernel: Option<Box<dyn SaKernel>>,
    tap: Option<Tap>,
}

impl Shell {
    pub fn new(settings: Settings) -> Self {
        Self { settings, nodes: Vec::new(), stores: Vec::new(), keeping: Vec::new(), kernel: None, tap: None }
    }

    /// Adds a node under a unique name (`pcscf`, `icscf`, `scscf`, `hss`, `ue`, ...), with the sockets it wants open. Port 0 binds
    /// any port, told in [`Running::listening`].
    pub fn node(mut self, name: &str, node: Box<dyn Node + Send>, wiring: Wiring) -> Self {
        self.nodes.push((name.into(), node, wiring));
        self
    }

    /// Gives the node `name` a durable store in this file.
    pub fn store_for(mut self, name: &str, path: impl Into<PathBuf>) -> Self {
        self.stores.push((name.into(), path.into()));
        self
    }

    /// What the node `name` wants kept ([`ims_core::Action::Put`]) is kept in the data folder, unless [`Settings::keep`] is off.
    pub fn keep_for(mut self, name: &str) -> Self {
        self.keeping.push(name.into());
        self
    }

    /// Uses this instead of the kernel of the machine for IPsec: for tests.
    pub fn sa_kernel(mut self, kernel: Box<dyn SaKernel>) -> Self {
        self.kernel = Some(kernel);
        self
    }

    /// Shows all events and actions of all nodes: for ladders and traces.
    pub fn tap(mut self, tap: Tap) -> Self {
        self.tap = Some(tap);
        self
    }

    /// Binds everything, opens the stores, then starts the nodes ([`ims_core::Event::Start`]). All or nothing.
    pub async fn start(self) -> Result<Running, StartError> {
        let Self { settings, nodes, stores, keeping, kernel, tap } = self;
        let mut names = Vec::new();
        let (mut seats, mut ready) = (Vec::new(), Vec::new());
        let mut sockets = Sockets::default();
        for (index, (name, node, wiring)) in nodes.into_iter().enumerate() {
            if names.contains(&name) {
                return Err(StartError::Config(format!("two nodes are named {name}")));
            }
            sockets.bind(&settings, index, &name, &wiring)?;
            let (inbox, intake) = Inbox::new(settings.inbox);
            names.push(name.clone());
            seats.push(Seat { name, inbox, meters: Arc::<Meters>::default() });
            ready.push((node, intake, entropy::rng()?));
        }
        let http = sockets.bind_http(&settings, &seats)?;
        let databases = open_stores(&settings, &seats, stores).await?;
        let keeping = open_keepers(&settings, &seats, keeping).await?;
        let mut kernel = match kernel {
            Some(kernel) => kernel,
            None => xfrm::machine_kernel(!sockets.protected.is_empty()),
        };
        xfrm::protect(kernel.as_mut(), &sockets.protected).await;

        let clock = Clock::start();
        let (sa, sa_jobs) = mpsc::channel(settings.store_queue.max(1));
        let mut store_senders = HashMap::new();
        let mut store_tasks = Vec::new();
        for (index, database) in databases {
            let (sender, jobs) = mpsc::channel::<StoreJob>(settings.store_queue.max(1));
            store_senders.insert(index, sender);
            store_tasks.push(tokio::spawn(store::run(database, jobs)));
        }
        let Sockets { listening, udp, udp_receivers, sip, tcp, diameter, diameter_listeners, .. } = sockets;
        let world = Arc::new(World {
            settings,
            clock,
            nodes: seats,
            udp,
            sip,
            diameter,
            connections: sip_tcp::Connections::default(),
            links: diameter_tcp::Links::default(),
            dns: Dns::new(),
            stores: store_senders,
            sa,
            sa_refused: AtomicU64::new(0),
            tasks: Tasks::default(),
            ids: Ids::default(),
            tap,
        });

        let (stop_sa, sa_stopped) = oneshot::channel();
        let inboxes = world.nodes.iter().map(|seat| seat.inbox.clone()).collect();
        let sa_task = tokio::spawn(xfrm::run(kernel, sa_jobs, inboxes, clock, sa_stopped));
        serve(&world, udp_receivers, tcp, diameter_listeners);
        let mut admin_token = None;
        if let Some((listener, path, token)) = http {
            admin_token = Some(path);
            world.tasks.spawn(http::serve(world.clone(), listener, token));
        }
        let failed = start_nodes(&world, ready, keeping);
        Ok(Running { listening, admin_token, world, store_tasks, sa_task: Some((stop_sa, sa_task)), failed })
    }
}

/// Every socket gets its task.
fn serve(
    world: &Arc<World>,
    udp: Vec<(NodeIndex, SocketAddr, UdpSocket)>,
    tcp: Vec<(NodeIndex, SocketAddr, TcpListener)>,
    diameter: Vec<(NodeIndex, TcpListener)>,
) {
    for (node, local, socket) in udp {
        if let Some(port) = world.udp.get(&local) {
            world.tasks.spawn(port.receiver(node, socket, local).run(world.clone()));
        }
    }
    for (node, local, listener) in tcp {
        world.tasks.spawn(sip_tcp::serve(world.clone(), node, listener, local));
    }
    for (node, listener) in diameter {
        world.tasks.spawn(diameter_tcp::serve(world.clone(), node, listener));
    }
}

type Ready = (Box<dyn Node + Send>, Intake, ims_core::Rng);

/// Each node gets its task; the receiver hears of one that panicked.
fn start_nodes(
    world: &Arc<World>,
    ready: Vec<Ready>,
    mut keeping: HashMap<NodeIndex, Keeping>,
) -> mpsc::Receiver<String> {
    let (fail, failed) = mpsc::channel(1);
    for (index, (node, intake, rng)) in ready.into_iter().enumerate() {
        let task = NodeTask::new(index, node, intake, world.clone(), rng, keeping.remove(&index));
        let guard = FailGuard { name: world.nodes[index].name.clone(), fail: fail.clone() };
        world.tasks.spawn(async move {
            task.run().await;
            drop(guard);
        });
    }
    failed
}

/// Tells when its task ends by a panic.
struct FailGuard {
    name: String,
    fail: mpsc::Sender<String>,
}

impl Drop for FailGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            error!(node = self.name, "the node failed: this is a fault in the program, please report it");
            let _ = self.fail.try_send(self.name.clone());
        }
    }
}

async fn open_stores(
    settings: &Settings,
    seats: &[Seat],
    stores: Vec<(String, PathBuf)>,
) -> Result<Vec<(NodeIndex, Sqlite)>, StartError> {
    let mut databases = Vec::new();
    for (name, path) in stores {
        let Some(index) = seats.iter().position(|seat| seat.name == name) else {
            return Err(StartError::Config(format!("a store is given to {name}, but no node has that name")));
        };
        let path = if path.is_absolute() || path.starts_with(&settings.data_dir) {
            path
        } else {
            settings.data_dir.join(path)
        };
        databases.push((index, Sqlite::open(&path).await?));
    }
    Ok(databases)
}

/// Opens what the nodes of these names keep. The files are read here, so that a fault in them is told before anything runs.
async fn open_keepers(
    settings: &Settings,
    seats: &[Seat],
    names: Vec<String>,
) -> Result<HashMap<NodeIndex, Keeping>, StartError> {
    let mut keepers = HashMap::new();
    for name in names {
        let Some(index) = seats.iter().position(|seat| seat.name == name) else {
            return Err(StartError::Config(format!("{name} is to keep its state, but no node has that name")));
        };
        if settings.keep {
            let (folder, sync) = (settings.data_dir.join(format!("{name}.kept")), settings.keep_sync.0);
            let opened = tokio::task::spawn_blocking(move || Journal::open(&folder, sync)).await;
            let journal = opened.map_err(|e| StartError::System(std::io::Error::other(e)))??;
            keepers.insert(index, Keeping::new(&name, Box::new(journal)));
        }
    }
    Ok(keepers)
}

/// All sockets of all nodes, bound before anything runs.
#[derive(Default)]
struct Sockets {
    listening: Vec<Listening>,
    protected: Vec<ProtectedPort>,
    udp: HashMap<SocketAddr, sip_udp::UdpPort>,
    udp_receivers: Vec<(NodeIndex, SocketAddr, UdpSocket)>,
    sip: HashMap<SocketAddr, Bound>,
    tcp: Vec<(NodeIndex, SocketAddr, TcpListener)>,
    diameter: HashMap<SocketAddr, NodeIndex>,
    diameter_listeners: Vec<(NodeIndex, TcpListener)>,
}

impl Sockets {
    fn bind(&mut self, settings: &Settings, node: NodeIndex, name: &str, wiring: &Wiring) -> Result<(), StartError> {
        for listener in &wiring.sip {
            let addr = self.bind_sip(settings, node, name, listener.addr, listener.protected)?;
            if listener.protected {
                self.protected.push(ProtectedPort { owner: node, addr, keeps_sas: listener.keeps_sas });
            }
        }
        for addr in &wiring.diameter {
            let listener = listen(name, "diameter/tcp", *addr)?;
            let addr = listener.local_addr()?;
            self.diameter.insert(addr, node);
            self.diameter_listeners.push((node, listener));
            self.listening.push(Listening { node: name.into(), service: "diameter/tcp", addr, protected: false });
        }
        Ok(())
    }

    fn bind_sip(
        &mut self,
        settings: &Settings,
        node: NodeIndex,
        name: &str,
        addr: SocketAddr,
        protected: bool,
    ) -> Result<SocketAddr, StartError> {
        if addr.ip().is_unspecified() {
            return Err(StartError::Wildcard { node: name.into(), addr });
        }
        if self.sip.contains_key(&addr) {
            let first = self.listening.iter().find(|l| l.addr == addr).map_or_else(String::new, |l| l.node.clone());
            return Err(StartError::Twice { first, second: name.into(), addr });
        }
        let bind = |transport, reason| StartError::Bind { node: name.into(), transport, addr, reason };
        // With port 0 the kernel picks for UDP; TCP may find that port taken and then both try again.
        let mut attempts = if addr.port() == 0 { 16 } else { 1 };
        let (port, receiver, listener, addr) = loop {
            attempts -= 1;
            let (port, receiver) = sip_udp::bind(addr, settings.udp_receive_buffer, settings.udp_send_buffer)
                .map_err(|e| bind("UDP", e))?;
            let bound = port.local_addr()?;
            match tcp::listen(bound) {
                Ok(listener) => break (port, receiver, listener, bound),
                Err(_) if attempts > 0 => {}
                Err(reason) => return Err(bind("TCP", reason)),
            }
        };
        self.udp.insert(addr, port);
        self.udp_receivers.push((node, addr, receiver));
        self.tcp.push((node, addr, listener));
        self.sip.insert(addr, Bound { node, protected });
        for service in ["sip/udp", "sip/tcp"] {
            self.listening.push(Listening { node: name.into(), service, addr, protected });
        }
        Ok(addr)
    }

    fn bind_http(
        &mut self,
        settings: &Settings,
        seats: &[Seat],
    ) -> Result<Option<(TcpListener, PathBuf, Secret<32>)>, StartError> {
        let Some(addr) = settings.http.or(None) else { return Ok(None) };
        let (path, token) = http::admin_token(settings)?;
        let owner = seats.iter().find(|s| s.name == "hss").or(seats.first()).map_or("console", |s| &s.name);
        let listener = listen(owner, "HTTP", addr)?;
        let addr = listener.local_addr()?;
        self.listening.push(Listening { node: owner.into(), service: "http", addr, protected: false });
        Ok(Some((listener, path, token)))
    }
}

fn listen(node: &str, transport: &'static str, addr: SocketAddr) -> Result<TcpListener, StartError> {
    tcp::listen(addr).map_err(|reason| StartError::Bind { node: node.into(), transport, addr, reason })
}

/// One open socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listening {
    pub node: String,
    /// `sip/udp`, `sip/tcp`, `diameter/tcp`, `http`.
    pub service: &'static str,
    pub addr: SocketAddr,
    /// Behind IPsec.
    pub protected: bool,
}

impl fmt::Display for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protected = if self.protected { " (IPsec only)" } else { "" };
        write!(f, "{} {} on {}{protected}", self.node, self.service, self.addr)
    }
}

/// Nodes that run. Dropping it stops them at once; [`Running::shutdown`] also cleans up behind them.
pub struct Running {
    /// All sockets, in the order of the nodes.
    pub listening: Vec<Listening>,
    /// Where the REST API's bearer token is, when there is a REST API.
    pub admin_token: Option<PathBuf>,
    world: Arc<World>,
    store_tasks: Vec<JoinHandle<()>>,
    sa_task: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    failed: mpsc::Receiver<String>,
}

impl Running {
    /// The address of the REST API, when there is one.
    pub fn http(&self) -> Option<SocketAddr> {
        self.listening.iter().find(|l| l.service == "http").map(|l| l.addr)
    }

    /// Sends a command (`subscriber.create`, ...) to a node and waits for its reply.
    pub async fn command(&self, node: &str, call: &str, args: serde_json::Value) -> Result<serde_json::Value, Problem> {
        http::call(&self.world, node, call, args).await
    }

    /// The state of a node, as `GET /v1/status` shows it; None when there is no such node.
    pub async fn snapshot(&self, node: &str) -> Option<serde_json::Value> {
        http::snapshot(&self.world, node).await
    }

    /// Returns the name of a node that failed (a fault in the program); pends while all is well.
    pub async fn failure(&mut self) -> String {
        match self.failed.recv().await {
            Some(name) => name,
            None => std::future::pending().await,
        }
    }

    /// Lets the nodes say goodbye ([`ims_core::Event::Stop`]), then ends them, closes the sockets, removes what was put into
    /// the kernel.
    pub async fn shutdown(mut self) {
        self.farewell().await;
        self.world.tasks.abort_all();
        if let Some((stop, task)) = self.sa_task.take() {
            let _ = stop.send(());
            let _ = tokio::time::timeout(GOODBYE, task).await;
        }
        let stores = std::mem::take(&mut self.store_tasks);
        // Their queues close with the world, which the aborted tasks give up as they end.
        drop(self);
        for task in stores {
            let _ = tokio::time::timeout(GOODBYE, task).await;
        }
    }

    /// Until the Diameter links are closed and the databases have taken all that waits, or too long.
    async fn farewell(&self) {
        let mut heard = Vec::new();
        for seat in &self.world.nodes {
            seat.inbox.push(Event::Stop);
            let (reply, turn) = oneshot::channel();
            seat.inbox.input(Input::Ping(reply));
            heard.push(turn);
        }
        let done = async {
            // What a node wants written in the end is with the database when its turn has come.
            for turn in heard {
                let _ = turn.await;
            }
            let idle = |store: &mpsc::Sender<StoreJob>| store.capacity() == store.max_capacity();
            while !(self.world.links.all_closed() && self.world.stores.values().all(idle)) {
                tokio::time::sleep(LOOK).await;
            }
        };
        if tokio::time::timeout(FAREWELL, done).await.is_err() {
            debug!("a Diameter peer or the database is slow to take leave: not waited for");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.world.tasks.abort_all();
    }
}
