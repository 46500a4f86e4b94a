//! `docker-compose.yml` under a real Docker engine: the images are built from the Dockerfile, the containers become healthy, handsets
//! reach the P-CSCF without NAT; then each container is stopped, killed and cut off while load runs, and the system heals.
//!
//! The kernel under these containers may have no ESP: the P-CSCF's policy is `allow`, as configs/compose has it, and what is
//! shown here is everything but IPsec, which `kernel.rs` is about.

use ims_process_tests::engine::{Engine, Namespace, run, succeed};
use ims_process_tests::process::Running;
use ims_process_tests::{handset, json_in, patience, program};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const ROLES: [&str; 4] = ["hss", "scscf", "icscf", "pcscf"];
const APIS: [&str; 4] = ["172.29.40.10:8080", "172.29.40.11:8080", "172.29.40.12:8080", "172.29.40.13:8080"];
const PCSCF: &str = "172.29.41.13:5060";
const PCSCF6: &str = "[fd69:6d73:626f:41::13]:5060";
/// The handset that is there from the beginning, and must still be at the end.
const FAITHFUL: &str = "001010000000001";
const FAITHFUL_ADDRESS: &str = "10.46.0.1";
/// Handsets that register for the first time after a disturbance, one each.
const FRESH: std::ops::Range<u32> = 10..22;
/// The handsets of the load: from 001010000000100 on.
const LOAD: u32 = 40;
/// How soon everything must work again after a disturbance.
const HEALED: Duration = Duration::from_secs(30);

#[test]
fn containers_are_stopped_killed_and_cut_off_under_load_and_the_system_heals() {
    let Some(engine) = Engine::start("compose") else { return };
    let lab = Lab::build(&engine);
    lab.up("docker-compose.yml", &ROLES);
    lab.packet_core();
    for n in [1, 2].into_iter().chain(FRESH).chain(100..100 + LOAD) {
        lab.subscribe(n);
    }
    no_container_has_more_rights_than_it_needs(&engine);
    registered_without_nat(&lab);

    let namespace = network_namespace(&engine, "pcscf");
    let mut fresh = FRESH;
    let mut under_load = load(&lab);
    for role in ROLES {
        for disturb in [stop_and_start, kill_9, cut_off] {
            disturb(&lab, role);
            lab.healed(fresh.next().expect("one for each disturbance"));
            still_registered(role, &lab.status().1);
            if !under_load.is_running() {
                nobody_is_lost(under_load);
                under_load = load(&lab);
            }
        }
    }
    nobody_is_lost(under_load);
    still_registered("all of that", &lab.status().1);
    assert_eq!(network_namespace(&engine, "pcscf"), namespace, "where the security associations would be");
    // The command of the documentation, from a container of its own.
    let status = succeed(lab.compose().args(["run", "--rm", "imsbox", "status"]));
    assert!(status.contains("Handsets at the P-CSCF"), "{status}");
    succeed(lab.compose().args(["down", "--volumes"]));
    the_box_in_one_container_registers_a_handset_and_keeps_its_data(&lab);
}

fn the_box_in_one_container_registers_a_handset_and_keeps_its_data(lab: &Lab<'_>) {
    lab.up("docker-compose.box.yml", &["imsbox"]);
    let exec = |args: &[&str]| {
        let file = ["-f", "docker-compose.box.yml", "exec", "-T", "imsbox", "imsbox"];
        succeed(lab.compose().args(file).args(args))
    };
    let (k, opc) = (handset::hex(&handset::K), handset::hex(&handset::OPC));
    exec(&["subscriber", "add", "--imsi", FAITHFUL, "--k", &k, "--opc", &opc]);
    lab.register(1, FAITHFUL_ADDRESS, PCSCF).unwrap_or_else(|why| panic!("{why}"));
    let status = exec(&["status"]);
    assert!(status.contains("Handsets at the P-CSCF: 1"), "{status}");
    let still_registered = |after: &str| {
        lab.wait_healthy(&["imsbox"]);
        still_registered(after, &json_in(&exec(&["status", "--json"])));
    };
    lab.engine.docker(&["kill", &container("imsbox")]);
    lab.engine.docker(&["start", &container("imsbox")]);
    still_registered("the death of the box");
    // A new container, as an upgrade makes one: the data are in the volume.
    succeed(lab.compose().args(["-f", "docker-compose.box.yml", "up", "-d", "--force-recreate"]));
    still_registered("an upgrade of the box");
    assert!(exec(&["subscriber", "list"]).contains(FAITHFUL));
    lab.register(1, FAITHFUL_ADDRESS, PCSCF).unwrap_or_else(|why| panic!("{why}"));
}

fn no_container_has_more_rights_than_it_needs(engine: &Engine) {
    for role in ROLES {
        let pid = engine.docker(&["inspect", "-f", "{{.State.Pid}}", &container(role)]);
        let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim())).expect("the container runs");
        let line = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default().trim().to_owned();
        assert_eq!(line("Uid:"), "10001\t10001\t10001\t10001", "{role}");
        // CAP_NET_ADMIN is bit 12.
        let (capabilities, no_new_privileges) = if role == "pcscf" { (1 << 12, "0") } else { (0, "1") };
        assert_eq!(u64::from_str_radix(&line("CapEff:"), 16), Ok(capabilities), "{role}");
        assert_eq!(line("NoNewPrivs:"), no_new_privileges, "{role}");
        assert_eq!(
            engine.docker(&["inspect", "-f", "{{.HostConfig.ReadonlyRootfs}}", &container(role)]).trim(),
            "true"
        );
    }
}

fn network_namespace(engine: &Engine, service: &str) -> PathBuf {
    let pid = engine.docker(&["inspect", "-f", "{{.State.Pid}}", &container(service)]);
    std::fs::read_link(format!("/proc/{}/ns/net", pid.trim())).expect("the container runs")
}

/// The P-CSCF sees the handsets' own addresses, of both families.
fn registered_without_nat(lab: &Lab<'_>) {
    lab.register(1, FAITHFUL_ADDRESS, PCSCF).unwrap_or_else(|why| panic!("{why}"));
    lab.register(2, "2001:db8:46::2", PCSCF6).unwrap_or_else(|why| panic!("{why}"));
    let (_, status) = lab.status();
    let ues: Vec<_> = registrations(&status).iter().filter_map(|r| r["ue"].as_str()).collect();
    assert!(ues.contains(&FAITHFUL_ADDRESS) && ues.contains(&"2001:db8:46::2"), "{status}");
    assert_eq!(status["pcscf"]["address_rewritten"], 0, "{status}");
}

fn stop_and_start(lab: &Lab<'_>, role: &str) {
    lab.engine.docker(&["stop", &container(role)]);
    let code = lab.engine.docker(&["inspect", "-f", "{{.State.ExitCode}}", &container(role)]);
    assert_eq!(code.trim(), "0", "{role} ends by itself on SIGTERM");
    lab.seen_away(role);
    lab.engine.docker(&["start", &container(role)]);
}

/// By its id, as a crash: the engine starts it again without being asked.
fn kill_9(lab: &Lab<'_>, role: &str) {
    let pid = lab.engine.docker(&["inspect", "-f", "{{.State.Pid}}", &container(role)]);
    succeed(Command::new("kill").args(["-9", pid.trim()]));
}

fn cut_off(lab: &Lab<'_>, role: &str) {
    let address = APIS[ROLES.iter().position(|r| *r == role).expect("one of the roles")].trim_end_matches(":8080");
    // The P-CSCF lives in the network namespace of another container.
    let network = container(if role == "pcscf" { "pcscf-net" } else { role });
    lab.engine.docker(&["network", "disconnect", "imsbox_core", &network]);
    lab.seen_away(role);
    lab.engine.docker(&["network", "connect", "--ip", address, "imsbox_core", &network]);
}

fn container(service: &str) -> String {
    format!("imsbox_{service}_1")
}

fn imsi(n: u32) -> String {
    format!("001010000000{n:03}")
}

/// The handset that registered once, and never since, is still known.
fn still_registered(disturbed: &str, status: &Value) {
    assert!(registrations(status).iter().any(|r| r["ue"] == FAITHFUL_ADDRESS), "after {disturbed}: {status}");
    let user = format!("sip:{FAITHFUL}@ims.mnc001.mcc001.3gppnetwork.org");
    let bindings = status["scscf"]["registrations"].as_array().map_or(&[][..], Vec::as_slice);
    let bound = bindings.iter().any(|b| b["impus"].as_array().is_some_and(|i| i.iter().any(|impu| *impu == *user)));
    assert!(bound, "after {disturbed}: {status}");
}

fn registrations(status: &Value) -> &[Value] {
    status["pcscf"]["registrations"].as_array().map_or(&[], Vec::as_slice)
}

/// The repository's files as a user has them, with programs that are built already, and the network of handsets.
struct Lab<'a> {
    engine: &'a Engine,
    files: PathBuf,
    handsets: Namespace,
}

impl<'a> Lab<'a> {
    fn build(engine: &'a Engine) -> Self {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let files = engine.folder().join("imsbox");
        std::fs::create_dir_all(files.join("prebuilt")).expect("the folder is writable");
        for part in
            ["Dockerfile", ".dockerignore", "docker-compose.yml", "docker-compose.box.yml", "configs", "scripts"]
        {
            succeed(Command::new("cp").arg("-r").arg(repository.join(part)).arg(&files));
        }
        succeed(&mut Command::new(files.join("scripts/secrets")));
        let programs = ["hss", "icscf", "scscf", "pcscf", "imsbox", "ue"].map(program);
        for built in &programs {
            let name = built.file_name().expect("a program has a name");
            succeed(Command::new("strip").arg("-o").arg(files.join("prebuilt").join(name)).arg(built));
        }
        let tools = ["sh", "cp", "mkdir", "chmod", "setcap"].map(found);
        engine.import("imsbox-test-build", &tools);
        engine.import_libraries("imsbox-test-base", &programs);
        let handsets = Namespace::new(&format!("{}-ue", engine.host().name())).unwrap_or_else(|why| panic!("{why}"));
        Self { engine, files, handsets }
    }

    fn compose(&self) -> Command {
        let mut command = self.engine.compose(&self.files);
        command.envs([("RUST_IMAGE", "imsbox-test-build"), ("RUNTIME_BASE", "imsbox-test-base")]);
        command.env("IMSBOX_HEALTH_INTERVAL", "1s");
        command
    }

    /// The commands of the documentation.
    fn up(&self, file: &str, services: &[&str]) {
        let (good, text) = run(self.compose().args(["-f", file, "up", "-d", "--build"]));
        assert!(good, "{text}\n{}", services.iter().map(|service| self.story(service)).collect::<String>());
        self.wait_healthy(services);
    }

    fn wait_healthy(&self, services: &[&str]) {
        for service in services {
            let name = container(service);
            eventually(&format!("{service} is healthy"), || {
                let state = self.engine.docker(&["inspect", "-f", "{{.State.Health.Status}}", &name]);
                if state.trim() == "healthy" { Ok(()) } else { Err(self.story(service)) }
            });
        }
    }

    /// What a container said, and what its health checks said.
    fn story(&self, service: &str) -> String {
        let name = container(service);
        let docker = |args: &[&str]| {
            let out = self.engine.command().args(args).arg(&name).output().expect("docker is installed");
            String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned()
        };
        let health = docker(&["inspect", "-f", "{{.State.Status}} {{json .State.Health}}"]);
        format!("{service}: {health}\n{}\n", docker(&["logs"]))
    }

    /// A packet core that routes: handsets behind it, and on the Docker host what docs/deployment.md says.
    fn packet_core(&self) {
        let host = self.engine.host();
        host.ip(&["link", "add", "upf", "type", "veth", "peer", "name", "gi", "netns", self.handsets.name()]);
        for (namespace, interface, v4, v6) in [
            (host, "upf", "192.0.2.1/24", "2001:db8:1::1/64"),
            (&self.handsets, "gi", "192.0.2.2/24", "2001:db8:1::2/64"),
        ] {
            namespace.ip(&["address", "add", v4, "dev", interface]);
            namespace.ip(&["address", "add", v6, "dev", interface, "nodad"]);
            namespace.ip(&["link", "set", interface, "up"]);
        }
        self.handsets.ip(&["route", "add", "default", "via", "192.0.2.1"]);
        self.handsets.ip(&["-6", "route", "add", "default", "via", "2001:db8:1::1"]);
        self.handsets.ip(&["route", "add", "local", "10.46.0.0/16", "dev", "lo"]);
        self.handsets.ip(&["-6", "address", "add", "2001:db8:46::2/128", "dev", "lo", "nodad"]);
        host.ip(&["route", "add", "10.46.0.0/16", "via", "192.0.2.2"]);
        host.ip(&["-6", "route", "add", "2001:db8:46::/64", "via", "2001:db8:1::2"]);
        let rule = ["-I", "DOCKER-USER", "-s", "10.46.0.0/16", "-o", "imsbox-gm", "-j", "ACCEPT"];
        succeed(host.command("iptables").args(rule));
    }

    /// `imsbox ...` as the operator calls it on the Docker host.
    fn imsbox(&self, args: &[&str]) -> (bool, String) {
        let mut command = self.engine.host().command(program("imsbox"));
        command.args(args).args(["--api", &APIS.join(","), "--token-file"]).arg(self.files.join("secrets/admin.token"));
        run(&mut command)
    }

    fn subscribe(&self, n: u32) {
        let (k, opc) = (handset::hex(&handset::K), handset::hex(&handset::OPC));
        let (good, text) = self.imsbox(&["subscriber", "add", "--imsi", &imsi(n), "--k", &k, "--opc", &opc]);
        assert!(good, "{text}");
    }

    /// Whether all roles answered, and what they said.
    fn status(&self) -> (bool, Value) {
        let (good, text) = self.imsbox(&["status", "--json"]);
        (good, json_in(&text))
    }

    fn register(&self, n: u32, address: &str, pcscf: &str) -> Result<(), String> {
        let mut command = self.handsets.command(program("ue"));
        command.args(["register", "--allow-unprotected", "--imsi", &imsi(n), "--address", address, "--pcscf", pcscf]);
        command.args(["--k", &handset::hex(&handset::K), "--opc", &handset::hex(&handset::OPC)]);
        match run(&mut command) {
            (true, _) => Ok(()),
            (false, text) => Err(text),
        }
    }

    /// `imsbox status` says that the role is away: it does not answer, and the peers of an HSS say that they have none.
    fn seen_away(&self, role: &str) {
        eventually(&format!("the status says that {role} is away"), || {
            let (all_answer, status) = self.status();
            if all_answer || !status[role].is_null() {
                return Err(status.to_string());
            }
            let others_silent = ROLES.iter().any(|other| *other != role && status[other].is_null());
            let wrong = role == "hss" && (hss_is_open(&status, "icscf") || hss_is_open(&status, "scscf"));
            if others_silent || wrong { Err(status.to_string()) } else { Ok(()) }
        });
    }

    /// All answer, see each other, and a handset that was never there registers.
    fn healed(&self, fresh: u32) {
        eventually("all roles answer and see the HSS", || {
            let (all_answer, status) = self.status();
            let good = all_answer && hss_is_open(&status, "icscf") && hss_is_open(&status, "scscf");
            if good { Ok(()) } else { Err(status.to_string()) }
        });
        eventually("a new handset registers", || self.register(fresh, &format!("10.46.0.{fresh}"), PCSCF));
        let (_, status) = self.status();
        assert!(registrations(&status).iter().any(|r| r["ue"] == format!("10.46.0.{fresh}")), "{status}");
    }
}

fn hss_is_open(status: &Value, role: &str) -> bool {
    status[role]["diameter"]["peers"][0]["state"] == "open"
}

fn found(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|folder| folder.join(name));
    places.find(|p| p.is_file()).unwrap_or_else(|| panic!("{name} is not installed"))
}

/// Tries until it is so, and tells how long it took.
fn eventually(what: &str, attempt: impl FnMut() -> Result<(), String>) {
    let began = Instant::now();
    if let Err(why) = patience::eventually(HEALED, attempt) {
        panic!("not within {HEALED:?}: {what}:\n{why}");
    }
    eprintln!("{what}: after {:.1} s", began.elapsed().as_secs_f64());
}

/// Handsets that refresh every few seconds, over UDP and TCP.
fn load(lab: &Lab<'_>) -> Running {
    let mut command = lab.handsets.command(program("ue"));
    command.args([
        "load",
        "--handsets",
        &LOAD.to_string(),
        "--imsi",
        &imsi(100),
        "--pcscf",
        PCSCF,
        "--ue-net",
        "10.46.1.0",
    ]);
    command.args(["--rate", "20", "--seconds", "25", "--drain", "60", "--transport", "mixed"]);
    command.args(["--refresh-every", "3s", "--retry", "1s", "--expect-restart", "--verify", "--interval", "1"]);
    command.args(["--k", &handset::hex(&handset::K), "--opc", &handset::hex(&handset::OPC)]);
    let load = Running::start(&mut command);
    load.wait_for(&format!(" {LOAD} registered"), Duration::from_secs(20));
    load
}

/// Whatever happened meanwhile, no handset is without the registration that it was told it has.
fn nobody_is_lost(mut load: Running) {
    let ended = load.wait_end(Duration::from_secs(150));
    let printed = load.printed();
    let json = json_in(&load.stdout());
    assert!(ended.success(), "{printed}");
    assert_eq!((json["lost"].as_u64(), json["registered"].as_u64()), (Some(0), Some(u64::from(LOAD))), "{printed}");
}
