//! Nodes under the shell, with real sockets on loopback.
#![allow(clippy::disallowed_methods)]

use bytes::Bytes;
use ims_core::sa::{AuthAlg, EncAlg, SaChange, SaKeys, SaSet, SaSide, Suite};
use ims_core::store::{StoreReply, StoreRequest};
use ims_core::{
    Action, Ctx, Event, Flow, Node, PeerId, Problem, RequestId, SendTag, SipListener, Time, Transport, Wiring,
};
use ims_shell::{Listen, Running, Settings, Shell, machine_kernel};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

/// Sends back what it gets; does what it is told by commands, and lists what happened.
#[derive(Default)]
struct Echo {
    log: Vec<String>,
    links: Vec<(ims_core::LinkId, bool)>,
    waiting: Option<ims_core::CommandId>,
    wake: Option<Time>,
    silent: bool,
}

impl Echo {
    fn boxed() -> Box<dyn Node + Send> {
        Box::new(Self::default())
    }

    fn on_command(&mut self, command: ims_core::Command, ctx: &mut Ctx<'_>) {
        let args = &command.args;
        let addr = |name: &str| args[name].as_str().and_then(|a| a.parse::<SocketAddr>().ok()).unwrap();
        match command.call.as_str() {
            "send" => {
                let transport = if args["transport"] == "tcp" { Transport::Tcp } else { Transport::Udp };
                let flow = Flow { transport, local: addr("local"), remote: addr("remote"), conn: None };
                let bytes = Bytes::from(args["text"].as_str().unwrap().to_owned());
                ctx.act(Action::SendSip { flow, bytes, tag: SendTag(args["tag"].as_u64().unwrap_or(0)) });
            }
            "connect" => ctx.act(Action::Connect { peer: PeerId(0), target: args["target"].as_str().unwrap().into() }),
            "diameter" => {
                let bytes = diameter(args["text"].as_str().unwrap());
                for (link, _) in self.links.iter().filter(|(_, ours)| *ours) {
                    ctx.act(Action::SendDiameter { link: *link, bytes: bytes.clone() });
                }
            }
            "hang_up" => ctx.act(Action::CloseLink(self.links[0].0)),
            "store" => {
                let request = match args["key"].as_str() {
                    Some(key) => StoreRequest::Load { key: key.into() },
                    None => StoreRequest::Insert {
                        sort: "1".into(),
                        keys: vec!["k".into()],
                        body: b"b".into(),
                        state: vec![],
                    },
                };
                ctx.act(Action::Store { id: RequestId(1), request });
                self.waiting = Some(command.id);
                return;
            }
            "sa" => {
                ctx.act(Action::Sa { id: RequestId(2), change: install(ctx.now) });
                self.waiting = Some(command.id);
                return;
            }
            "wake" => {
                self.wake = Some(ctx.now + Duration::from_millis(20));
                self.waiting = Some(command.id);
                return;
            }
            "subscriber.create" => {
                let result = match args["imsi"].as_str() {
                    Some(imsi) => Ok(json!({"imsi": imsi})),
                    None => Err(Problem::invalid("imsi", "the IMSI is missing")),
                };
                ctx.act(Action::Reply { id: command.id, result });
                return;
            }
            "subscriber.remove" | "subscriber.show" | "subscriber.list" | "subscriber.change" => {}
            "hang" => return,
            other => {
                let problem = Problem::not_found(format!("no call {other}"));
                ctx.act(Action::Reply { id: command.id, result: Err(problem) });
                return;
            }
        }
        ctx.act(Action::Reply { id: command.id, result: Ok(json!({"call": command.call, "args": command.args})) });
    }

    fn reply(&mut self, value: Value, ctx: &mut Ctx<'_>) {
        if let Some(id) = self.waiting.take() {
            ctx.act(Action::Reply { id, result: Ok(value) });
        }
    }
}

fn install(now: Time) -> SaChange {
    let set = SaSet {
        ue: "192.0.2.1".parse().unwrap(),
        pcscf: "192.0.2.2".parse().unwrap(),
        spi_uc: 1001,
        spi_us: 1002,
        spi_pc: 1003,
        spi_ps: 1004,
        port_uc: 1,
        port_us: 2,
        port_pc: 3,
        port_ps: 4,
        suite: Suite { alg: AuthAlg::HmacSha1_96, ealg: EncAlg::Null },
    };
    let keys = SaKeys { ck: [1; 16].into(), ik: [2; 16].into() };
    SaChange::Install { set, keys, side: SaSide::Pcscf, expires: now + Duration::from_secs(60) }
}

impl Node for Echo {
    fn handle(&mut self, event: Event, ctx: &mut Ctx<'_>) {
        let note = match &event {
            Event::Sip(p) => format!("sip {} {}", p.flow.transport, String::from_utf8_lossy(&p.bytes)),
            Event::SipFailed { tag, error, .. } => format!("failed {} {error}", tag.0),
            Event::FlowClosed(_) => "closed".into(),
            Event::LinkUp { peer, .. } => format!("up {}", peer.is_some()),
            Event::LinkDown { link, peer } => format!("down {} {}", link.is_some(), peer.is_some()),
            Event::Diameter { bytes, .. } => format!("diameter {}", String::from_utf8_lossy(&bytes[20..])),
            Event::Stop => "stop".into(),
            _ => String::new(),
        };
        if !note.is_empty() && self.log.len() < 10_000 {
            self.log.push(note);
        }
        match event {
            Event::Sip(packet) if !self.silent && !packet.bytes.starts_with(b"SIP/2.0 200") => {
                let bytes = answer(&packet.bytes);
                ctx.act(Action::SendSip { flow: packet.flow, bytes, tag: SendTag(0) });
            }
            Event::Diameter { link, bytes } if bytes.ends_with(b"ping") => {
                ctx.act(Action::SendDiameter { link, bytes: diameter("pong") })
            }
            Event::LinkUp { link, peer, .. } => self.links.push((link, peer.is_some())),
            Event::LinkDown { link: Some(link), .. } => self.links.retain(|(l, _)| *l != link),
            Event::Command(command) => self.on_command(command, ctx),
            Event::Stored { result, .. } => {
                let loaded = matches!(result, Ok(StoreReply::Loaded(Some(_))));
                self.reply(json!({"loaded": loaded, "ok": result.is_ok()}), ctx);
            }
            Event::Sa { result, .. } => self.reply(json!({"result": format!("{result:?}")}), ctx),
            Event::Stop if self.silent => {}
            Event::Stop => {
                for (link, _) in self.links.clone() {
                    ctx.act(Action::SendDiameter { link, bytes: diameter("bye!") });
                    ctx.act(Action::CloseLink(link));
                }
            }
            Event::Timeout => {
                self.wake = None;
                self.reply(json!("woken"), ctx);
            }
            _ => {}
        }
    }

    fn deadline(&self) -> Option<Time> {
        self.wake
    }

    fn snapshot(&self) -> Value {
        json!({"role": "echo", "log": self.log})
    }
}

fn request(text: &str) -> String {
    format!("OPTIONS sip:x SIP/2.0\r\nContent-Length: {}\r\n\r\n{text}", text.len())
}

fn answer(request: &[u8]) -> Bytes {
    let text = String::from_utf8_lossy(request);
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Bytes::from(format!("SIP/2.0 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

fn diameter(text: &str) -> Bytes {
    assert_eq!(text.len(), 4);
    let mut bytes = vec![1, 0, 0, 24];
    bytes.resize(20, 0);
    bytes.extend_from_slice(text.as_bytes());
    bytes.into()
}

fn wiring(addr: &str) -> Wiring {
    Wiring { sip: vec![SipListener::open(addr.parse().unwrap())], diameter: vec![addr.parse().unwrap()] }
}

fn settings() -> Settings {
    let data_dir = std::env::temp_dir().join(format!("ims-shell-it-{}", std::process::id()));
    Settings { data_dir, http: Listen::Off, ..Settings::default() }
}

async fn one(settings: Settings) -> Running {
    Shell::new(settings).node("echo", Echo::boxed(), wiring("127.0.0.1:0")).start().await.unwrap()
}

fn place(running: &Running, node: &str, service: &str) -> SocketAddr {
    running.listening.iter().find(|l| l.node == node && l.service == service).unwrap().addr
}

/// Waits until the node's log holds a line.
async fn sees(running: &Running, node: &str, line: &str) {
    let look = async {
        loop {
            let snapshot = running.snapshot(node).await.unwrap();
            if snapshot["log"].as_array().unwrap().iter().any(|l| l == line) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    if timeout(PATIENCE, look).await.is_err() {
        panic!("{line:?} not seen: {}", running.snapshot(node).await.unwrap());
    }
}

async fn read_text(stream: &mut TcpStream, wanted: &str) {
    let mut got = vec![0; wanted.len()];
    timeout(PATIENCE, stream.read_exact(&mut got)).await.unwrap().unwrap();
    assert_eq!(String::from_utf8_lossy(&got), wanted);
}

#[tokio::test]
async fn a_datagram_reaches_the_node_and_its_answer_leaves_from_the_same_address() {
    for addr in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(running) = Shell::new(settings()).node("echo", Echo::boxed(), wiring(addr)).start().await else {
            assert!(addr.starts_with('['), "only IPv6 may be absent");
            continue;
        };
        let node = place(&running, "echo", "sip/udp");
        let peer = UdpSocket::bind(addr).await.unwrap();
        peer.connect(node).await.unwrap();
        peer.send(request("hello").as_bytes()).await.unwrap();
        let mut buffer = [0; 2000];
        let n = timeout(PATIENCE, peer.recv(&mut buffer)).await.unwrap().unwrap();
        assert!(buffer[..n].ends_with(b"\r\n\r\nhello"));
        running.shutdown().await;
    }
}

#[tokio::test]
async fn a_refused_datagram_is_told_with_its_tag() {
    for any in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(closed) = std::net::UdpSocket::bind(any) else { continue };
        let remote = closed.local_addr().unwrap().to_string();
        let running = Shell::new(settings()).node("echo", Echo::boxed(), wiring(any)).start().await.unwrap();
        let local = place(&running, "echo", "sip/udp").to_string();
        drop(closed);
        let args = json!({"local": local, "remote": remote, "text": "x", "tag": 7});
        running.command("echo", "send", args).await.unwrap();
        sees(&running, "echo", "failed 7 connection refused").await;
        let args = json!({"local": "127.0.0.1:1", "remote": remote, "text": "x", "tag": 8});
        running.command("echo", "send", args).await.unwrap();
        sees(&running, "echo", "failed 8 no socket is bound to that local address").await;
        running.shutdown().await;
    }
}

#[tokio::test]
async fn a_stream_is_framed_answered_and_pings_get_their_pong() {
    let running = one(settings()).await;
    let mut stream = TcpStream::connect(place(&running, "echo", "sip/tcp")).await.unwrap();
    let two = request("one") + &request("two!");
    let (first, second) = two.as_bytes().split_at(30);
    stream.write_all(first).await.unwrap();
    stream.flush().await.unwrap();
    stream.write_all(second).await.unwrap();
    read_text(&mut stream, "SIP/2.0 200 OK\r\nContent-Length: 3\r\n\r\none").await;
    read_text(&mut stream, "SIP/2.0 200 OK\r\nContent-Length: 4\r\n\r\ntwo!").await;
    stream.write_all(b"\r\n\r\n").await.unwrap();
    read_text(&mut stream, "\r\n").await;
    drop(stream);
    sees(&running, "echo", "closed").await;
    running.shutdown().await;
}

#[tokio::test]
async fn garbage_on_a_stream_closes_it() {
    let running = one(Settings { sip_message_limit: 1000, ..settings() }).await;
    let addr = place(&running, "echo", "sip/tcp");
    let too_large = "OPTIONS sip:x SIP/2.0\r\nContent-Length: 99999\r\n\r\n";
    let endless = "x".repeat(100_000);
    for garbage in ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", "OPTIONS sip:x SIP/2.0\r\nTo: x\r\n\r\n", too_large, &endless]
    {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let _ = stream.write_all(garbage.as_bytes()).await;
        let mut rest = Vec::new();
        // Closed by FIN or, with bytes unread, by RST.
        let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("must be closed");
        assert!(rest.is_empty());
    }
    running.shutdown().await;
}

#[tokio::test]
async fn idle_and_unfinished_connections_are_closed() {
    let quick = Settings {
        tcp_idle: ims_core::config::Span::millis(50),
        tcp_message_time: ims_core::config::Span::millis(50),
        ..settings()
    };
    let running = one(quick).await;
    let addr = place(&running, "echo", "sip/tcp");
    for sent in ["", "OPTIONS sip:x SI"] {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("must be closed");
    }
    running.shutdown().await;
}

#[tokio::test]
async fn connections_per_source_are_limited() {
    let running = one(Settings { tcp_connections_per_source: 1, ..settings() }).await;
    let addr = place(&running, "echo", "sip/tcp");
    let mut first = TcpStream::connect(addr).await.unwrap();
    first.write_all(request("a").as_bytes()).await.unwrap();
    read_text(&mut first, "SIP/2.0 200 OK").await;
    let mut second = TcpStream::connect(addr).await.unwrap();
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, second.read_to_end(&mut rest)).await.expect("must be closed");
    assert!(rest.is_empty());
    running.shutdown().await;
}

#[tokio::test]
async fn a_connection_is_opened_from_the_given_port_reused_and_its_failure_told() {
    let running = one(settings()).await;
    let local = place(&running, "echo", "sip/tcp");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let remote = listener.local_addr().unwrap();
    let send = |remote: SocketAddr, text: &str, tag: u64| {
        let args = json!({"transport": "tcp", "local": local.to_string(), "remote": remote.to_string(), "text": request(text), "tag": tag});
        running.command("echo", "send", args)
    };
    send(remote, "a", 1).await.unwrap();
    send(remote, "b", 2).await.unwrap();
    let (mut stream, from) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    assert_eq!(from, local);
    read_text(&mut stream, &(request("a") + &request("b"))).await;
    stream.write_all(request("back").as_bytes()).await.unwrap();
    sees(&running, "echo", &format!("sip tcp {}", request("back"))).await;
    drop(stream);
    sees(&running, "echo", "closed").await;
    drop(listener);
    send(remote, "c", 3).await.unwrap();
    sees(&running, "echo", "failed 3 connection refused").await;
    running.shutdown().await;
}

#[tokio::test]
async fn nodes_of_one_process_reach_each_other_without_sockets() {
    let running = Shell::new(settings())
        .node("a", Echo::boxed(), wiring("127.0.0.1:0"))
        .node("b", Echo::boxed(), wiring("127.0.0.1:0"))
        .start()
        .await
        .unwrap();
    let (a, b) = (place(&running, "a", "sip/udp"), place(&running, "b", "sip/udp"));
    for transport in ["udp", "tcp"] {
        for text in ["1", "2"] {
            let args =
                json!({"transport": transport, "local": a.to_string(), "remote": b.to_string(), "text": request(text)});
            running.command("a", "send", args).await.unwrap();
            sees(&running, "b", &format!("sip {transport} {}", request(text))).await;
            let back = String::from_utf8(answer(request(text).as_bytes()).to_vec()).unwrap();
            sees(&running, "a", &format!("sip {transport} {back}")).await;
        }
    }
    let target = place(&running, "b", "diameter/tcp").to_string();
    running.command("a", "connect", json!({"target": target})).await.unwrap();
    sees(&running, "a", "up true").await;
    sees(&running, "b", "up false").await;
    running.command("a", "diameter", json!({"text": "ping"})).await.unwrap();
    sees(&running, "b", "diameter ping").await;
    sees(&running, "a", "diameter pong").await;
    running.command("b", "hang_up", json!({})).await.unwrap();
    sees(&running, "a", "down true true").await;
    sees(&running, "b", "down true false").await;
    running.shutdown().await;
}

#[tokio::test]
async fn a_node_takes_leave_of_its_peers_before_the_shell_ends() {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let notes = seen.clone();
    let running = Shell::new(settings())
        .node("a", Echo::boxed(), wiring("127.0.0.1:0"))
        .node("b", Echo::boxed(), wiring("127.0.0.1:0"))
        .tap(Arc::new(move |node: &str, _, tapped: ims_shell::Tapped<'_>| {
            if let ims_shell::Tapped::Event(Event::LinkDown { .. }) = tapped {
                notes.lock().unwrap().push(node.to_owned());
            }
        }))
        .start()
        .await
        .unwrap();
    let peer = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (inside, outside) = (place(&running, "b", "diameter/tcp"), peer.local_addr().unwrap());
    for target in [outside, inside] {
        running.command("a", "connect", json!({"target": target.to_string()})).await.unwrap();
        sees(&running, "a", "up true").await;
    }
    let (mut stream, _) = timeout(PATIENCE, peer.accept()).await.unwrap().unwrap();
    running.command("a", "diameter", json!({"text": "1234"})).await.unwrap();
    sees(&running, "b", "diameter 1234").await;
    let mut first = [0; 24];
    timeout(PATIENCE, stream.read_exact(&mut first)).await.unwrap().unwrap();
    running.shutdown().await;
    let mut rest = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert_eq!(rest, diameter("bye!"), "the goodbye leaves before the connection closes");
    assert!(seen.lock().unwrap().contains(&"b".to_owned()), "the link inside the process was closed too");
}

#[tokio::test]
async fn a_node_that_keeps_its_links_cannot_hold_the_shell() {
    let silent = Box::new(Echo { silent: true, ..Echo::default() });
    let running = Shell::new(settings()).node("echo", silent, wiring("127.0.0.1:0")).start().await.unwrap();
    let mut stream = TcpStream::connect(place(&running, "echo", "diameter/tcp")).await.unwrap();
    sees(&running, "echo", "up false").await;
    timeout(PATIENCE, running.shutdown()).await.unwrap();
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("must be closed");
    assert!(rest.is_empty());
}

#[tokio::test]
async fn what_belongs_inside_ipsec_always_takes_the_kernels_way() {
    let protected = Wiring { sip: vec![SipListener::protected("127.0.0.1:0".parse().unwrap())], diameter: vec![] };
    let taps = Arc::new(AtomicBool::new(false));
    let running = Shell::new(settings())
        .sa_kernel(Box::new(FakeKernel(taps.clone())))
        .node("a", Echo::boxed(), wiring("127.0.0.1:0"))
        .node("b", Echo::boxed(), protected)
        .start()
        .await
        .unwrap();
    assert!(taps.load(Ordering::SeqCst), "the protected port was closed for clear text");
    let (a, b) = (place(&running, "a", "sip/udp"), place(&running, "b", "sip/udp"));
    let args = json!({"transport": "tcp", "local": a.to_string(), "remote": b.to_string(), "text": request("x")});
    running.command("a", "send", args).await.unwrap();
    sees(&running, "b", &format!("sip tcp {}", request("x"))).await;
    assert_eq!(running.command("b", "sa", json!({})).await.unwrap()["result"], "Ok(())");
    running.shutdown().await;
    assert!(!taps.load(Ordering::SeqCst), "and opened at the end");
}

struct FakeKernel(Arc<AtomicBool>);

impl ims_shell::SaKernel for FakeKernel {
    fn protect<'a>(
        &'a mut self,
        ports: &'a [ims_shell::ProtectedPort],
    ) -> ims_shell::SaFuture<'a, Result<(), ims_core::sa::SaError>> {
        assert_eq!(ports.len(), 1);
        self.0.store(true, Ordering::SeqCst);
        Box::pin(async { Ok(()) })
    }
    fn change(&mut self, _: usize, _: SaChange, _: Time) -> ims_shell::SaFuture<'_, Result<(), ims_core::sa::SaError>> {
        Box::pin(async { Ok(()) })
    }
    fn audit(
        &mut self,
        _: usize,
        _: SaSide,
        _: Vec<SaSet>,
    ) -> ims_shell::SaFuture<'_, Result<ims_core::sa::SaAudit, ims_core::sa::SaError>> {
        Box::pin(async { Ok(ims_core::sa::SaAudit::default()) })
    }
    fn expired(&mut self) -> ims_shell::SaFuture<'_, ims_core::sa::SaExpiry> {
        Box::pin(std::future::pending())
    }
    fn clear(&mut self) -> ims_shell::SaFuture<'_, ()> {
        self.0.store(false, Ordering::SeqCst);
        Box::pin(async {})
    }
}

#[tokio::test]
async fn a_machine_without_esp_says_so() {
    let mut kernel = machine_kernel(true);
    let result = kernel.change(0, install(Time::from_secs(1)), Time::from_secs(1)).await;
    // Either kind of machine may run this test; one with ESP and the right to use it installs, and cleans up.
    let report = ims_shell::probe().await;
    assert_eq!(result.is_ok(), report.esp.is_ok(), "{result:?} {report:?}");
    kernel.clear().await;
}

#[tokio::test]
async fn diameter_over_sockets_frames_and_tells_of_links() {
    let running = one(settings()).await;
    let addr = place(&running, "echo", "diameter/tcp");
    let mut peer = TcpStream::connect(addr).await.unwrap();
    let two = [diameter("ping"), diameter("ping")].concat();
    peer.write_all(&two[..21]).await.unwrap();
    peer.write_all(&two[21..]).await.unwrap();
    let mut got = vec![0; 48];
    timeout(PATIENCE, peer.read_exact(&mut got)).await.unwrap().unwrap();
    assert_eq!(got, [diameter("pong"), diameter("pong")].concat());
    peer.write_all(b"\x02garbage").await.unwrap();
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, peer.read_to_end(&mut rest)).await.expect("must be closed");
    sees(&running, "echo", "down true false").await;

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("localhost:{}", listener.local_addr().unwrap().port());
    running.command("echo", "connect", json!({"target": target})).await.unwrap();
    let (mut peer, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    sees(&running, "echo", "up true").await;
    running.command("echo", "diameter", json!({"text": "ping"})).await.unwrap();
    let mut got = vec![0; 24];
    timeout(PATIENCE, peer.read_exact(&mut got)).await.unwrap().unwrap();
    assert_eq!(got, diameter("ping"));
    drop((peer, listener));
    sees(&running, "echo", "down true true").await;
    running.command("echo", "connect", json!({"target": target})).await.unwrap();
    sees(&running, "echo", "down false true").await;
    running.shutdown().await;
}

#[tokio::test]
async fn two_nodes_cannot_have_one_address_and_a_taken_port_is_named() {
    let taken = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let error = Shell::new(settings()).node("x", Echo::boxed(), wiring(&addr)).start().await.err().unwrap().to_string();
    assert!(error.contains(&addr) && error.contains("another process has it"), "{error}");
    let error =
        Shell::new(settings()).node("x", Echo::boxed(), wiring("0.0.0.0:0")).start().await.err().unwrap().to_string();
    assert!(error.contains("wildcard"), "{error}");
}

#[tokio::test]
async fn an_overloaded_node_drops_datagrams_and_still_answers_commands() {
    let running = one(Settings { inbox: 4, ..settings() }).await;
    let node = place(&running, "echo", "sip/udp");
    let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    // Not served meanwhile: this test runs on one thread.
    for _ in 0..500 {
        peer.send_to(b"x", node).await.unwrap();
    }
    let dropped = timeout(PATIENCE, async {
        loop {
            if let Some(n) = running.snapshot("echo").await.unwrap()["inbox_dropped"].as_u64().filter(|n| *n > 0) {
                return n;
            }
            tokio::task::yield_now().await;
        }
    });
    assert!(dropped.await.unwrap() > 0);
    assert!(running.command("echo", "subscriber.show", json!({})).await.is_ok());
    running.shutdown().await;
}

#[tokio::test]
async fn deadlines_wake_the_node_and_the_store_keeps_over_a_restart() {
    let settings = Settings { data_dir: settings().data_dir.join("restart"), ..settings() };
    let start = || {
        let node = ("echo", Echo::boxed(), wiring("127.0.0.1:0"));
        Shell::new(settings.clone()).node(node.0, node.1, node.2).store_for("echo", "x.db").start()
    };
    let running = start().await.unwrap();
    assert_eq!(running.command("echo", "wake", json!({})).await.unwrap(), "woken");
    assert_eq!(running.command("echo", "store", json!({})).await.unwrap()["ok"], true);
    running.shutdown().await;
    let running = start().await.unwrap();
    assert_eq!(running.command("echo", "store", json!({"key": "k"})).await.unwrap()["loaded"], true);
    assert_eq!(running.command("echo", "store", json!({"key": "j"})).await.unwrap()["loaded"], false);
    running.shutdown().await;
    std::fs::remove_dir_all(&settings.data_dir).unwrap();
}

struct Answer {
    status: u16,
    head: String,
    body: Value,
}

async fn rest(addr: SocketAddr, method: &str, path: &str, token: Option<&str>, body: &str) -> Answer {
    let auth = token.map_or(String::new(), |t| format!("Authorization: Bearer {t}\r\n"));
    let text = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{auth}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut got = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut got)).await.unwrap().unwrap();
    let (head, body) = got.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_lowercase(), body: serde_json::from_str(body).unwrap_or(Value::String(body.into())) }
}

#[tokio::test]
async fn rest_needs_the_token_and_speaks_in_problems() {
    let data_dir: PathBuf = settings().data_dir.join("rest");
    let http = Listen::At("127.0.0.1:0".parse().unwrap());
    let quick = ims_core::config::Span::millis(300);
    let settings = Settings { data_dir: data_dir.clone(), http, http_time: quick, ..settings() };
    let running = Shell::new(settings).node("hss", Echo::boxed(), Wiring::default()).start().await.unwrap();
    let addr = running.http().unwrap();
    let token = std::fs::read_to_string(running.admin_token.as_ref().unwrap()).unwrap();
    let token = Some(token.trim());

    for wrong in [None, Some("x"), Some(&"0".repeat(64)[..])] {
        let refused = rest(addr, "GET", "/v1/status", wrong, "").await;
        assert_eq!((refused.status, refused.body["type"].as_str()), (401, Some("urn:imsbox:problem:unauthorized")));
        assert!(refused.head.contains("www-authenticate: bearer") && refused.head.contains("application/problem+json"));
    }
    assert_eq!(rest(addr, "GET", "/healthz", None, "").await.status, 200);
    assert_eq!(rest(addr, "GET", "/v1/status", token, "").await.body["hss"]["role"], "echo");

    let made = rest(addr, "POST", "/v1/subscribers", token, r#"{"imsi":"001010000000001"}"#).await;
    assert_eq!(made.status, 201);
    assert!(made.head.contains("location: /v1/subscribers/001010000000001"));
    let wrong = rest(addr, "POST", "/v1/subscribers", token, "{}").await;
    assert_eq!((wrong.status, wrong.body["field"].as_str()), (400, Some("imsi")));
    let secret = rest(addr, "POST", "/v1/subscribers", token, r#"{"k": 00112233"#).await;
    assert_eq!(secret.status, 400);
    assert!(!secret.body.to_string().contains("00112233"));
    let large = rest(addr, "POST", "/v1/subscribers", token, &" ".repeat(2 << 20)).await;
    assert_eq!(large.status, 413);

    let listed = rest(addr, "GET", "/v1/subscribers?after=5&limit=2", token, "").await;
    assert_eq!(listed.body["args"], json!({"after": "5", "limit": 2}));
    assert_eq!(rest(addr, "GET", "/v1/subscribers?limit=x", token, "").await.body["field"], "limit");
    assert_eq!(rest(addr, "GET", "/v1/subscribers/7", token, "").await.body["args"], json!({"imsi": "7"}));
    let changed = rest(addr, "PATCH", "/v1/subscribers/7", token, r#"{"barred":true}"#).await;
    assert_eq!(changed.body["args"], json!({"imsi": "7", "changes": {"barred": true}}));
    assert_eq!(rest(addr, "DELETE", "/v1/subscribers/7", token, "").await.status, 204);
    assert_eq!(rest(addr, "PUT", "/v1/subscribers/7", token, "").await.status, 405);
    assert_eq!(rest(addr, "GET", "/nothing", None, "").await.body["status"], 404);
    assert_eq!(running.command("hss", "hang", json!({})).await.unwrap_err().status, 503);
    running.shutdown().await;
    std::fs::remove_dir_all(data_dir).unwrap();
}

#[tokio::test]
async fn many_subscribers_come_in_one_request() {
    let http = Listen::At("127.0.0.1:0".parse().unwrap());
    let data_dir = settings().data_dir.join("import");
    let settings = Settings { http, data_dir: data_dir.clone(), http_body_limit: 4_096, ..settings() };
    let running = Shell::new(settings).node("hss", Echo::boxed(), Wiring::default()).start().await.unwrap();
    let token = std::fs::read_to_string(running.admin_token.as_ref().unwrap()).unwrap();
    let (addr, token) = (running.http().unwrap(), token.trim());
    let import = async |body: &str| rest(addr, "POST", "/v1/subscribers/import", Some(token), body).await;

    assert_eq!(rest(addr, "POST", "/v1/subscribers/import", None, "{}").await.status, 401);
    let good: String = (0..1_200).map(|n| format!("{{\"imsi\":\"{n:015}\"}}\n")).collect();
    let done = import(&format!("{good}\n\r\n{{\"imsi\":\"1\"}}")).await;
    assert_eq!(
        (done.status, &done.body["created"]),
        (200, &json!(1_201)),
        "longer than one body may be, and no last line end"
    );
    let part = import(&format!("{good}{{\"k\":\"0011\"}}\n{{\"k\": 0022\n{good}")).await;
    assert_eq!((part.status, &part.body["created"], &part.body["failed"]), (422, &json!(2_400), &json!(2)));
    assert_eq!((&part.body["lines"][0]["line"], &part.body["lines"][0]["field"]), (&json!(1_201), &json!("imsi")));
    assert!(!part.body.to_string().contains("0022"), "a line may hold keys: {}", part.body);
    assert_eq!(import(&"x".repeat(100_000)).await.status, 413);
    running.shutdown().await;
    std::fs::remove_dir_all(data_dir).unwrap();
}

#[tokio::test]
async fn a_process_without_hss_says_so() {
    let http = Listen::At("127.0.0.1:0".parse().unwrap());
    let data_dir = settings().data_dir.join("nohss");
    let running = Shell::new(Settings { http, data_dir: data_dir.clone(), ..settings() })
        .node("pcscf", Echo::boxed(), Wiring::default())
        .start()
        .await
        .unwrap();
    let token = std::fs::read_to_string(running.admin_token.as_ref().unwrap()).unwrap();
    let answer = rest(running.http().unwrap(), "GET", "/v1/subscribers", Some(token.trim()), "").await;
    assert_eq!(answer.status, 404);
    assert!(answer.body["detail"].as_str().unwrap().contains("no hss"));
    running.shutdown().await;
    std::fs::remove_dir_all(data_dir).unwrap();
}
