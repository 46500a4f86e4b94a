//! The truth about kernel IPsec: every suite, IPv4 and IPv6, UDP and TCP, between two network namespaces.
//!
//! Run as root on a kernel with ESP (user-mode Linux will do), with iproute2: prints one `ok` or `FAIL` line for each claim, and
//! ends with 1 when any failed. `xfrm agent` is the part that runs inside a namespace.
#![allow(clippy::disallowed_methods)]

use ims_core::Time;
use ims_core::sa::{AuthAlg, EncAlg, SaChange, SaKeys, SaSet, SaSide, Suite};
use ims_shell::{ProtectedPort, SaKernel, machine_kernel, probe};
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, UdpSocket};
use tokio::time::timeout;

const WAIT: Duration = Duration::from_millis(1500);
const PORTS: [u16; 4] = [5061, 5062, 6101, 6100];

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if std::env::args().nth(1).as_deref() == Some("agent") {
        runtime.block_on(agent());
        return ExitCode::SUCCESS;
    }
    runtime.block_on(truth())
}

fn now() -> Time {
    Time::EPOCH + SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// `v`: 4 or 6. `n` tells sets apart.
fn set(v: &str, suite: Suite, n: u32) -> SaSet {
    let at = |last: u8| -> IpAddr {
        if v == "lo6" {
            "::1".parse().unwrap()
        } else if v == "4" {
            IpAddr::from([10, 9, 0, last])
        } else {
            format!("fd09::{last}").parse().unwrap()
        }
    };
    let [port_uc, port_us, port_pc, port_ps] = PORTS;
    let spi = n * 16 + 0x1000;
    SaSet {
        ue: at(2),
        pcscf: at(1),
        spi_uc: spi,
        spi_us: spi + 1,
        spi_pc: spi + 2,
        spi_ps: spi + 3,
        port_uc,
        port_us,
        port_pc,
        port_ps,
        suite,
    }
}

/// Reads commands from standard input, answers each with one line.
async fn agent() {
    let mut kernel = machine_kernel(true);
    let mut lines = std::io::stdin().lock().lines();
    while let Some(Ok(line)) = lines.next() {
        let words: Vec<&str> = line.split(' ').collect();
        let answer = perform(kernel.as_mut(), &words).await;
        println!("{}", answer.unwrap_or_else(|e| format!("error {e}")));
        std::io::stdout().flush().unwrap();
    }
}

async fn perform(kernel: &mut dyn SaKernel, words: &[&str]) -> Result<String, String> {
    let addr = |n: usize| words[n].parse::<SocketAddr>().map_err(|e| e.to_string());
    match words[0] {
        "protect" => {
            let port = |w: &&str| ProtectedPort { owner: 0, addr: w.parse().unwrap(), keeps_sas: false };
            let ports: Vec<ProtectedPort> = words[1..].iter().map(port).collect();
            kernel.protect(&ports).await.map_err(|e| e.to_string())?;
        }
        "install" | "extend" | "remove" => {
            let suite =
                Suite { alg: AuthAlg::from_token(words[2]).unwrap(), ealg: EncAlg::from_token(words[3]).unwrap() };
            let set = set(words[1], suite, words[4].parse().unwrap());
            let expires = now() + Duration::from_secs(words[5].parse().unwrap());
            let keys = SaKeys { ck: std::array::from_fn(|i| i as u8 * 7).into(), ik: [0xa5; 16].into() };
            let side = if words[6] == "ue" { SaSide::Ue } else { SaSide::Pcscf };
            let change = match words[0] {
                "install" => SaChange::Install { set, keys, side, expires },
                "extend" => SaChange::Extend { set, expires },
                _ => SaChange::Remove { set },
            };
            let owner = usize::from(side == SaSide::Ue);
            kernel.change(owner, change, now()).await.map_err(|e| e.to_string())?;
        }
        "clear" => kernel.clear().await,
        "expiry" => {
            let limit = Duration::from_secs(words[1].parse().unwrap());
            let e = timeout(limit, kernel.expired()).await.map_err(|_| "no expiry")?;
            return Ok(format!("expired {:#x} hard={}", e.spi, e.hard));
        }
        "echo" => echo(addr(1)?).await.map_err(|e| e.to_string())?,
        "udp" => udp(addr(1)?, addr(2)?).await?,
        "tcp" => tcp(addr(1)?, addr(2)?).await?,
        other => return Err(format!("what is {other}?")),
    }
    Ok("ok".into())
}

async fn echo(addr: SocketAddr) -> std::io::Result<()> {
    let socket = UdpSocket::bind(addr).await?;
    tokio::spawn(async move {
        let mut buffer = [0; 4000];
        while let Ok((n, from)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(&buffer[..n], from).await;
        }
    });
    let listener = TcpListener::bind(addr).await?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut r, mut w) = stream.split();
                let _ = tokio::io::copy(&mut r, &mut w).await;
            });
        }
    });
    Ok(())
}

async fn udp(from: SocketAddr, to: SocketAddr) -> Result<(), String> {
    let socket = UdpSocket::bind(from).await.map_err(|e| e.to_string())?;
    let sent = [7u8; 1200];
    socket.send_to(&sent, to).await.map_err(|e| e.to_string())?;
    let mut got = [0; 4000];
    let (n, _) = timeout(WAIT, socket.recv_from(&mut got)).await.map_err(|_| "timeout")?.map_err(|e| e.to_string())?;
    if got[..n] == sent { Ok(()) } else { Err("changed on the way".into()) }
}

async fn tcp(from: SocketAddr, to: SocketAddr) -> Result<(), String> {
    let socket = if from.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(|e| e.to_string())?;
    socket.set_reuseaddr(true).map_err(|e| e.to_string())?;
    // Several connections from one port, one after the other.
    socket.set_zero_linger().map_err(|e| e.to_string())?;
    socket.bind(from).map_err(|e| e.to_string())?;
    let mut stream = timeout(WAIT, socket.connect(to)).await.map_err(|_| "timeout")?.map_err(|e| e.to_string())?;
    let sent = vec![9u8; 20_000];
    let mut got = vec![0; sent.len()];
    let talk = async {
        let (mut r, mut w) = stream.split();
        let (a, b) = tokio::join!(w.write_all(&sent), r.read_exact(&mut got));
        a.and(b)
    };
    timeout(WAIT * 4, talk).await.map_err(|_| "timeout")?.map_err(|e| e.to_string())?;
    if got == sent { Ok(()) } else { Err("changed on the way".into()) }
}

/// An agent in a network namespace.
struct Side {
    name: &'static str,
    input: ChildStdin,
    output: BufReader<std::process::ChildStdout>,
    _child: Child,
}

impl Side {
    fn new(name: &'static str) -> Self {
        let me = std::env::current_exe().unwrap();
        let mut child = Command::new("ip")
            .args(["netns", "exec", name])
            .arg(me)
            .arg("agent")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { name, input, output, _child: child }
    }

    fn ask(&mut self, command: &str) -> String {
        writeln!(self.input, "{command}").unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().into()
    }

    fn ip(&self, args: &str) -> String {
        let out = Command::new("ip").args(["-n", self.name]).args(args.split(' ')).output().unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
    }

    /// Associations and policies of this namespace (the kernel's per-socket policies apart).
    fn state(&self) -> (usize, usize) {
        let sas = self.ip("xfrm state").lines().filter(|l| l.starts_with("src ")).count();
        let policies = self.ip("xfrm policy").lines().filter(|l| l.trim_start().starts_with("dir ")).count();
        (sas, policies)
    }

    /// The smallest number of packets that went through any association.
    fn least_packets(&self) -> u64 {
        let text = self.ip("-s xfrm state");
        let current = text.split("lifetime current:").skip(1);
        current.filter_map(|t| t.split("bytes), ").next()?.rsplit(", ").next().map(|_| packets(t))).min().unwrap_or(0)
    }
}

fn packets(text: &str) -> u64 {
    let Some(end) = text.find("(packets)") else { return 0 };
    text[..end].rsplit([' ', ',']).next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

struct Verdict {
    failed: u32,
}

impl Verdict {
    fn check(&mut self, claim: &str, holds: bool, evidence: &str) {
        if holds {
            println!("ok {claim}");
        } else {
            println!("FAIL {claim}: {evidence}");
            self.failed += 1;
        }
    }
}

async fn truth() -> ExitCode {
    let mut verdict = Verdict { failed: 0 };
    let report = probe().await;
    verdict.check("probe: ESP works and is permitted", report.esp.is_ok() && report.permitted, &format!("{report:?}"));
    for (suite, result) in &report.algorithms {
        let claim = format!("probe: {} {}", suite.alg.token(), suite.ealg.token());
        verdict.check(&claim, result.is_ok(), &format!("{result:?}"));
    }
    let setup = "ip netns add p; ip netns add u; ip link add vp netns p type veth peer name vu netns u
        ip -n p addr add 10.9.0.1/24 dev vp; ip -n u addr add 10.9.0.2/24 dev vu
        ip -n p addr add fd09::1/64 dev vp nodad; ip -n u addr add fd09::2/64 dev vu nodad
        for n in p u; do ip -n $n link set lo up; ip -n $n link set v$n up; done";
    Command::new("sh").args(["-c", setup]).status().unwrap();
    let (mut p, mut u) = (Side::new("p"), Side::new("u"));
    let [uc, us, pc, ps] = PORTS;
    let at = |v: &str, side: &str, port: u16| match (v, side) {
        ("4", "p") => format!("10.9.0.1:{port}"),
        ("4", _) => format!("10.9.0.2:{port}"),
        (_, "p") => format!("[fd09::1]:{port}"),
        _ => format!("[fd09::2]:{port}"),
    };
    for v in ["4", "6"] {
        p.ask(&format!("echo {}", at(v, "p", ps)));
        u.ask(&format!("echo {}", at(v, "u", us)));
        let open = u.ask(&format!("udp {} {}", at(v, "u", uc), at(v, "p", ps)));
        verdict.check(&format!("IPv{v}: before anything, clear text passes"), open == "ok", &open);
    }
    let listeners: Vec<String> = ["4", "6"].iter().flat_map(|v| [at(v, "p", ps), at(v, "p", pc)]).collect();
    let done = p.ask(&format!("protect {}", listeners.join(" ")));
    verdict.check("protect", done == "ok" && p.state() == (0, 8), &format!("{done} {:?}", p.state()));
    for v in ["4", "6"] {
        for transport in ["udp", "tcp"] {
            let clear = u.ask(&format!("{transport} {} {}", at(v, "u", uc), at(v, "p", ps)));
            verdict.check(
                &format!("IPv{v} {transport}: clear text to a protected port is dropped"),
                clear != "ok",
                &clear,
            );
            let out = p.ask(&format!("{transport} {} {}", at(v, "p", pc), at(v, "u", us)));
            verdict.check(
                &format!("IPv{v} {transport}: clear text from a protected port is dropped"),
                out != "ok",
                &out,
            );
        }
    }

    let mut n = 0;
    for (suite, _) in &report.algorithms {
        for v in ["4", "6"] {
            n += 1;
            let name = format!("{} {} IPv{v}", suite.alg.token(), suite.ealg.token());
            let args =
                |secs: u32, side: &str| format!("{v} {} {} {n} {secs} {side}", suite.alg.token(), suite.ealg.token());
            let done = p.ask(&format!("install {}", args(60, "pcscf")));
            verdict.check(&format!("{name}: install, P-CSCF"), done == "ok" && p.state() == (4, 12), &done);
            let clear = u.ask(&format!("udp {} {}", at(v, "u", uc), at(v, "p", ps)));
            verdict.check(&format!("{name}: clear text is dropped beside the set"), clear != "ok", &clear);
            let done = u.ask(&format!("install {}", args(60, "ue")));
            verdict.check(&format!("{name}: install, UE"), done == "ok" && u.state() == (4, 4), &done);
            for transport in ["udp", "tcp"] {
                let sent = u.ask(&format!("{transport} {} {}", at(v, "u", uc), at(v, "p", ps)));
                verdict.check(&format!("{name}: {transport} uc->ps and back"), sent == "ok", &sent);
                let sent = p.ask(&format!("{transport} {} {}", at(v, "p", pc), at(v, "u", us)));
                verdict.check(&format!("{name}: {transport} pc->us and back"), sent == "ok", &sent);
            }
            let least = p.least_packets();
            verdict.check(&format!("{name}: all four associations carried it"), least > 2, &format!("{least} packets"));
            let again = p.ask(&format!("install {}", args(60, "pcscf")));
            verdict.check(
                &format!("{name}: taken SPIs are refused"),
                again.contains("taken") && p.state() == (4, 12),
                &again,
            );
            let done = p.ask(&format!("extend {}", args(600, "pcscf")));
            let text = p.ip("-s xfrm state");
            let extended = text.matches("hard 600(sec)").count() + text.matches("hard 601(sec)").count();
            let more: Vec<&str> = text.lines().filter(|l| l.contains("expire add")).collect();
            let longer = more.iter().filter(|l| !l.contains("hard 60(sec)")).count() == 4;
            verdict.check(&format!("{name}: extend"), done == "ok" && longer, &format!("{done} {extended} {more:?}"));
            let sent = u.ask(&format!("udp {} {}", at(v, "u", uc), at(v, "p", ps)));
            verdict.check(&format!("{name}: the keys stay over an extension"), sent == "ok", &sent);
            let done = p.ask(&format!("remove {}", args(0, "pcscf")));
            verdict.check(&format!("{name}: remove, P-CSCF"), done == "ok" && p.state() == (0, 8), &done);
            let again = p.ask(&format!("remove {}", args(0, "pcscf")));
            verdict.check(&format!("{name}: removing again is fine"), again == "ok", &again);
            let done = u.ask(&format!("remove {}", args(0, "ue")));
            verdict.check(
                &format!("{name}: remove, UE"),
                done == "ok" && u.state() == (0, 0),
                &format!("{done} {:?}", u.state()),
            );
        }
    }
    loopback(&mut verdict, &mut p);
    renewal(&mut verdict, &mut p);
    leftovers(&mut verdict, p, &listeners);
    drop(u);
    println!("{}", if verdict.failed == 0 { "ALL OK".into() } else { format!("{} FAILED", verdict.failed) });
    if verdict.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Handset and P-CSCF on one machine: over the IPv6 loopback ESP is real. (IPv4 loopback passes outside IPsec, see
/// `EspReport::loopback_bypass`.)
fn loopback(verdict: &mut Verdict, p: &mut Side) {
    p.ask("echo [::1]:6100");
    p.ask("install lo6 hmac-sha-1-96 aes-cbc 80 60 pcscf");
    let done = p.ask("install lo6 hmac-sha-1-96 aes-cbc 80 60 ue");
    verdict.check(
        "one machine: both ends installed",
        done == "ok" && p.state() == (4, 16),
        &format!("{:?}", p.state()),
    );
    for transport in ["udp", "tcp"] {
        let sent = p.ask(&format!("{transport} [::1]:5061 [::1]:6100"));
        verdict.check(&format!("one machine: {transport} over ESP on ::1"), sent == "ok", &sent);
    }
    let used = p.ip("-s xfrm state").matches(" 0(packets)").count();
    verdict.check("one machine: the associations carried it", used == 2, &p.ip("-s xfrm state"));
    p.ask("remove lo6 hmac-sha-1-96 aes-cbc 80 0 pcscf");
    let done = p.ask("remove lo6 hmac-sha-1-96 aes-cbc 80 0 ue");
    verdict.check("one machine: both ends removed", done == "ok" && p.state() == (0, 8), &done);
}

/// Expiry is told; two sets with the same ports live side by side.
fn renewal(verdict: &mut Verdict, p: &mut Side) {
    let done = p.ask("install 4 hmac-sha-1-96 aes-cbc 90 2 pcscf");
    let mut expired: Vec<String> = (0..4).map(|_| p.ask("expiry 10")).collect();
    expired.sort();
    let hard = expired.iter().all(|e| e.contains("hard=true")) && expired.windows(2).all(|w| w[0] != w[1]);
    verdict.check("hard expiry of all four is told", done == "ok" && hard, &format!("{done} {expired:?}"));
    let done = p.ask("remove 4 hmac-sha-1-96 aes-cbc 90 0 pcscf");
    verdict.check("an expired set is removed without complaint", done == "ok" && p.state() == (0, 8), &done);
    let first = p.ask("install 4 hmac-sha-1-96 null 91 60 pcscf");
    let second = p.ask("install 4 hmac-sha-1-96 aes-cbc 92 60 pcscf");
    verdict.check(
        "a new set may share the ports of the old",
        first == "ok" && second == "ok" && p.state() == (8, 12),
        &format!("{first} {second} {:?}", p.state()),
    );
    let done = p.ask("remove 4 hmac-sha-1-96 null 91 0 pcscf");
    let out = p.ip("xfrm policy");
    // SPIs 0x15c0.. of set 92 are in the outbound templates now.
    let moved = out.contains("0x000015c1") && out.contains("0x000015c0");
    verdict.check("when the old goes, policies pass to the new", done == "ok" && moved && p.state() == (4, 12), &out);
    // A handset on the same machine, in another role of the same kernel.
    let shared = p.ask("install 4 hmac-sha-1-96 aes-cbc 92 60 ue");
    verdict.check("the other end may live in the same kernel", shared == "ok" && p.state() == (4, 16), &shared);
    let done = p.ask("remove 4 hmac-sha-1-96 aes-cbc 92 0 ue");
    verdict.check("and leaves what is not its own", done == "ok" && p.state() == (4, 12), &done);
    let two = Side::new("p").ask("install 4 hmac-sha-1-96 aes-cbc 92 60 ue");
    verdict.check("or in another process, if the keys agree", two == "ok", &two);
    let other = Side::new("p").ask("install 4 hmac-sha-1-96 null 92 60 ue");
    verdict.check("but not with other keys", other.contains("taken"), &other);
}

/// An agent dies without goodbye; the next one cleans up, but only what is its own.
fn leftovers(verdict: &mut Verdict, mut p: Side, listeners: &[String]) {
    p.ip("xfrm state add src 10.9.0.9 dst 10.9.0.1 proto esp spi 0x77 mode transport auth hmac(md5) 0x00112233445566778899aabbccddeeff enc ecb(cipher_null) ");
    let before = p.state();
    let _ = p._child.kill();
    let _ = p._child.wait();
    let mut next = Side::new("p");
    let done = next.ask(&format!("protect {}", listeners.join(" ")));
    verdict.check(
        "leftovers of a crash are removed, foreign state is not",
        done == "ok" && before.0 == 5 && next.state() == (1, 8),
        &format!("{done} {before:?} {:?}", next.state()),
    );
    let done = next.ask("clear");
    verdict.check("shutdown leaves nothing of ours", done == "ok" && next.state() == (1, 0), &done);
}
