//! `imsbox demo`: the whole story on this machine with throw-away data. Where the kernel has ESP, core and handsets get a
//! network namespace each, so that the real addresses, ports and security associations of a network are used and nothing
//! of the machine's own is touched; where it has none, everything runs on loopback and says so.

use crate::client::Client;
use crate::ladder::Ladder;
use crate::settings::Settings;
use crate::up;
use anyhow::{Context, Result, bail, ensure};
use ims_shell::{Listen, Shell};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

const LOOPBACK: (&str, [&str; 2]) = ("127.83.0.1", ["127.83.0.11", "127.83.0.12"]);
const NAMESPACE: (&str, [&str; 2]) = ("10.83.0.1", ["10.83.0.11", "10.83.0.12"]);
/// Test set 1 of TS 35.208.
const K: &str = "465b5ce8b199b49faa5f0a2ee238a6bc";
const OPC: &str = "cd63cb71954a9f4e48a5994e37a02baf";
/// What a handset says when it has done what it was told to do.
const DONE: &str = "done";
/// What a handset does that is called: as plain as can be, or with all that a VoLTE call has.
const ANSWERS: &str = "[called]\nanswer_after = '1s'";
const ANSWERS_FULLY: &str = "[calling]\nvideo = true\nsession_expires = 1800\n\
    [called]\nringing = 183\nreliable = true\nearly_media = true\nvideo = true\nanswer_after = '1s'";
/// Where a handset changes to TCP in a full call: an INVITE with video, and its Route, does not fit.
const PATH_LIMIT: usize = 1200;
const SUBSCRIBERS: [(&str, &str); 2] = [("001010000000001", "4915100000001"), ("001010000000002", "4915100000002")];

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Demo {
    /// The handsets speak TCP
    #[arg(long)]
    tcp: bool,
    /// The call has it all: reliable ringing with early media (PRACK), video, UPDATE, hold and resume, and a request too large
    /// for UDP
    #[arg(long)]
    full: bool,
}

impl Demo {
    fn args(&self) -> impl Iterator<Item = &'static str> {
        self.tcp.then_some("--tcp").into_iter().chain(self.full.then_some("--full"))
    }

    pub(crate) async fn run(self) -> Result<()> {
        let report = ims_shell::probe().await;
        let program = std::env::current_exe().context("cannot find the imsbox program itself")?;
        match report.esp {
            Ok(()) if Namespaces::possible() => {
                println!("IPsec: this kernel has ESP; core and handsets run in network namespaces of their own.");
                let spaces = Namespaces::make().context("cannot make the demo's network namespaces")?;
                let status = Command::new("ip")
                    .args(["netns", "exec", &spaces.core])
                    .arg(program)
                    .args(["demo-core", "--handsets-in", &spaces.ue])
                    .args(self.args())
                    .status()?;
                finish(status)
            }
            Ok(()) => {
                println!(
                    "IPsec: this kernel has ESP, but the demo needs root to make network namespaces; registering without IPsec."
                );
                Core { handsets_in: None, demo: self }.run().await
            }
            Err(why) => {
                println!("IPsec: not shown here, because {why}. Registering without IPsec.");
                Core { handsets_in: None, demo: self }.run().await
            }
        }
    }
}

fn finish(status: ExitStatus) -> Result<()> {
    ensure!(status.success(), "the demo failed");
    Ok(())
}

/// Two network namespaces with a cable between them, gone when dropped.
struct Namespaces {
    core: String,
    ue: String,
}

impl Namespaces {
    fn possible() -> bool {
        let out = Command::new("ip").args(["netns", "list"]).output();
        let is_root = std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0);
        is_root && out.is_ok_and(|o| o.status.success())
    }

    fn make() -> Result<Self> {
        let id = std::process::id();
        let spaces = Self { core: format!("imsbox-demo-{id}"), ue: format!("imsbox-demo-ue-{id}") };
        let (core, ue) = (spaces.core.as_str(), spaces.ue.as_str());
        ip(&["netns", "add", core])?;
        ip(&["netns", "add", ue])?;
        ip(&["link", "add", "gm0", "netns", core, "type", "veth", "peer", "name", "gm1", "netns", ue])?;
        ip(&["-n", core, "addr", "add", &format!("{}/24", NAMESPACE.0), "dev", "gm0"])?;
        for address in NAMESPACE.1 {
            ip(&["-n", ue, "addr", "add", &format!("{address}/24"), "dev", "gm1"])?;
        }
        for (space, device) in [(core, "lo"), (core, "gm0"), (ue, "lo"), (ue, "gm1")] {
            ip(&["-n", space, "link", "set", device, "up"])?;
        }
        Ok(spaces)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for space in [&self.core, &self.ue] {
            let _ = Command::new("ip").args(["netns", "del", space]).output();
        }
    }
}

fn ip(words: &[&str]) -> Result<()> {
    let out = Command::new("ip").args(words).output().context("cannot run `ip` (Debian package iproute2)")?;
    ensure!(out.status.success(), "ip {}: {}", words.join(" "), String::from_utf8_lossy(&out.stderr).trim());
    Ok(())
}

#[derive(clap::Args, Debug)]
pub(crate) struct Core {
    /// Network namespace of the handsets; without it, everything is on loopback and without IPsec
    #[arg(long)]
    handsets_in: Option<String>,
    #[command(flatten)]
    demo: Demo,
}

impl Core {
    pub(crate) async fn run(self) -> Result<()> {
        ims_shell::init_logging("warn")?;
        let folder = Scratch::new()?;
        let outcome = self.story(&folder).await;
        drop(folder);
        outcome
    }

    async fn story(&self, folder: &Scratch) -> Result<()> {
        let (core, handsets) = if self.handsets_in.is_some() { NAMESPACE } else { LOOPBACK };
        let settings = folder.settings(core, self.handsets_in.is_some())?;
        let ladder = Arc::new(Ladder::new(handsets[1].parse().ok()));
        let tap = Arc::clone(&ladder);
        let running = up::start(&settings, Some(Arc::new(move |node, at, what| tap.on_tap(node, at, &what)))).await?;
        ladder.learn(&running.listening);
        println!("1. P-CSCF, I-CSCF, S-CSCF and HSS are up on {core}.");

        let token = std::fs::read_to_string(settings.token_file())?;
        let client = Client::with_token(&settings.rest.to_string(), token.trim());
        for (imsi, msisdn) in SUBSCRIBERS {
            let body = json!({ "imsi": imsi, "k": K, "opc": OPC, "msisdn": msisdn });
            tokio::task::block_in_place(|| client.create("/v1/subscribers", &body))?;
        }
        println!("2. Two subscribers are provisioned over REST.");

        let mut phones = Vec::new();
        for (n, (address, (imsi, _))) in handsets.into_iter().zip(SUBSCRIBERS).enumerate() {
            println!("{}. Handset {} attaches from {address}:", n + 3, n + 1);
            let attached = tokio::task::block_in_place(|| {
                let mut phone = self.switch_on(core, address, imsi)?;
                phone.hear()?;
                Ok::<_, anyhow::Error>(phone)
            });
            println!("\n{}", ladder.draw());
            phones.push(attached.with_context(|| format!("handset {} did not register", n + 1))?);
        }
        println!("5. Handset 1 calls +{}; it rings for a second, they talk, and handset 1 hangs up:", SUBSCRIBERS[1].1);
        let called = self.talk(&mut phones).await;
        println!("\n{}", ladder.draw());
        called.context("the call failed")?;
        let faults: Vec<String> = phones.into_iter().flat_map(Phone::switch_off).collect();
        let pcscf = running.snapshot("pcscf").await.unwrap_or_default();
        running.shutdown().await;
        verdict(&pcscf, self.handsets_in.is_some())?;
        ensure!(faults.is_empty(), "the handsets find fault with the network: {}", faults.join(", "));
        println!("Handset 1 called handset 2, and both hung up; neither found fault with the network.");
        Ok(())
    }

    async fn talk(&self, phones: &mut [Phone]) -> Result<()> {
        let caller = phones.first_mut().context("there is no handset")?;
        let mut say = |what: &str, args: Value| tokio::task::block_in_place(|| caller.say(what, &args));
        say("call", json!({ "to": format!("+{}", SUBSCRIBERS[1].1) }))?;
        if self.demo.full {
            for change in ["update", "hold", "resume", "audio"] {
                say(change, json!({}))?;
                // Nobody presses two keys at once: the ACK of one, a small datagram, would be overtaken by the next, over TCP.
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        say("hangup", json!({}))
    }

    /// The handset is a process of its own: outside the core's namespace, as a phone is.
    fn switch_on(&self, core: &str, address: &str, imsi: &str) -> Result<Phone> {
        let program = std::env::current_exe()?;
        let mut command = match &self.handsets_in {
            Some(space) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", space]).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.args(["demo-handsets", "--pcscf", &format!("{core}:5060"), "--address", address, "--imsi", imsi]);
        command.args(self.demo.args());
        if self.handsets_in.is_some() {
            command.arg("--ipsec");
        }
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (hears, says) = (process.stdin.take(), process.stdout.take());
        let (hears, says) = hears.zip(says).context("the handset has no pipes")?;
        Ok(Phone { process, hears: Some(hears), says: BufReader::new(says) })
    }
}

/// A handset's process: commands in, a line for each answer out.
struct Phone {
    process: Child,
    hears: Option<ChildStdin>,
    says: BufReader<ChildStdout>,
}

impl Phone {
    /// What it was told to do is done.
    fn hear(&mut self) -> Result<()> {
        let mut line = String::new();
        self.says.read_line(&mut line)?;
        match line.trim() {
            DONE => Ok(()),
            "" => bail!("the handset has ended"),
            why => bail!("{why}"),
        }
    }

    fn say(&mut self, call: &str, args: &Value) -> Result<()> {
        let hears = self.hears.as_mut().context("the handset is off")?;
        writeln!(hears, "{}", json!({ "call": call, "args": args }))?;
        self.hear()
    }

    /// What it found wrong with the network.
    fn switch_off(mut self) -> Vec<String> {
        self.hears = None;
        let faults = std::io::read_to_string(&mut self.says).unwrap_or_default();
        faults.lines().map(str::to_owned).collect()
    }
}

/// The handset shall not outlive the demo.
impl Drop for Phone {
    fn drop(&mut self) {
        self.hears = None;
        let _ = self.process.wait();
    }
}

fn verdict(pcscf: &Value, ipsec: bool) -> Result<()> {
    let all = pcscf["registrations"].as_array().map_or(&[] as &[Value], Vec::as_slice);
    let registered = |imsi: &str| all.iter().find(|r| r["impi"].as_str().is_some_and(|i| i.starts_with(imsi)));
    let found: Vec<_> = SUBSCRIBERS.iter().filter_map(|(imsi, _)| registered(imsi)).collect();
    let protected = found.iter().filter(|r| !r["sa"].is_null()).count();
    if found.len() < SUBSCRIBERS.len() || (ipsec && protected < SUBSCRIBERS.len()) {
        bail!("only {} of 2 handsets are registered, {protected} of them inside IPsec", found.len());
    }
    let suite = found.iter().find_map(|r| r["sa"]["suite"].as_str());
    match suite {
        Some(suite) => println!("2 of 2 handsets are registered, inside IPsec ({suite})."),
        None => println!("2 of 2 handsets are registered, without IPsec."),
    }
    Ok(())
}

/// A throw-away data folder.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("imsbox-demo-{}", std::process::id()));
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self(folder))
    }

    fn settings(&self, core: &str, ipsec: bool) -> Result<Settings> {
        let text = format!(
            "core_address = \"{core}\"\n[gm]\naddresses = [\"{core}\"]\n[shell]\ndata_dir = \"{}\"\nhttp = \"{core}:8080\"\n\
             [pcscf.security]\npolicy = \"{}\"\n",
            self.0.display(),
            if ipsec { "require" } else { "allow" },
        );
        let file = self.0.join("imsbox.toml");
        std::fs::write(&file, text)?;
        Settings::load(Some(&file), &[])
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[derive(clap::Args, Debug)]
pub(crate) struct Handsets {
    #[arg(long)]
    pcscf: SocketAddr,
    #[arg(long)]
    address: IpAddr,
    #[arg(long)]
    imsi: String,
    #[arg(long)]
    ipsec: bool,
    #[command(flatten)]
    demo: Demo,
}

impl Handsets {
    pub(crate) async fn run(self) -> Result<()> {
        ims_shell::init_logging("warn")?;
        let mut config = ue::Config {
            imsi: self.imsi.clone(),
            k: ue::Key::from_hex(K).unwrap_or_default(),
            opc: ue::Key::from_hex(OPC),
            address: self.address,
            pcscf: self.pcscf,
            allow_unprotected: !self.ipsec,
            expires: 3600,
            seal: true,
            script: ue::Script::parse("demo", if self.demo.full { ANSWERS_FULLY } else { ANSWERS })?,
            ..ue::Config::default()
        };
        if self.demo.tcp {
            config.transport = ue::config::GmTransport::Tcp;
        }
        if self.demo.full {
            config.udp_limit = PATH_LIMIT;
        }
        let wiring = config.wiring();
        let handset = ue::Ue::new(config)?;
        let settings = ims_shell::Settings { http: Listen::Off, ..Default::default() };
        let running = Shell::new(settings).node("ue", Box::new(handset), wiring).start().await?;
        let tell = async |call: &str, args: Value| match running.command("ue", call, args).await {
            Ok(_) => println!("{DONE}"),
            Err(problem) => println!("{}", problem.detail),
        };
        tell("register", json!({})).await;
        while let Some(line) = next_line().await {
            let command: Value = serde_json::from_str(&line)?;
            tell(command["call"].as_str().unwrap_or_default(), command["args"].clone()).await;
        }
        // The phone stays registered, and so do its SAs: a namespace of the demo takes them along.
        let state = running.snapshot("ue").await.unwrap_or_default();
        for (fault, times) in state["faults"].as_object().into_iter().flatten() {
            println!("{fault} ({times})");
        }
        Ok(())
    }
}

/// The next command; None when there are no more.
async fn next_line() -> Option<String> {
    let read = || std::io::stdin().lines().next()?.ok();
    tokio::task::spawn_blocking(read).await.ok().flatten()
}
