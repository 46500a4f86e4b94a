//! A Docker engine of our own for one test: in a network namespace of its own, so that its bridges and iptables rules end with it,
//! and in a folder of its own. No image can be pulled: bases are trees made of this machine's own files.

use crate::patience::until;
use crate::process::Running;
use crate::{Folder, installed, leftovers};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// Ended and cleaned up when dropped.
pub struct Engine {
    dockerd: Running,
    socket: String,
    network: Namespace,
    folder: Folder,
}

impl Engine {
    /// What earlier runs of this test left when they were killed is removed. None where Docker is not to be had, which was said loudly; under `CI=true` that is a failure.
    pub fn start(name: &str) -> Option<Self> {
        let programs = [
            ("dockerd", "docker.io"),
            ("docker", "docker.io"),
            ("docker-compose", "docker-compose"),
            ("iptables", "iptables"),
            ("setcap", "libcap2-bin"),
            ("ip", "iproute2"),
        ];
        // All are looked for, so that all that is missing is named at once.
        let there = programs.map(|(program, package)| installed(program, package));
        if there.contains(&false) {
            return None;
        }
        leftovers::remove_engines(name);
        let network = match Namespace::new(&format!("{name}-{}", std::process::id())) {
            Ok(network) => network,
            Err(why) => {
                let message = format!("no network namespace can be made (is this root?): {why}");
                assert!(std::env::var("CI").as_deref() != Ok("true"), "{message}");
                eprintln!("SKIPPED, NOT TESTED: {message}");
                return None;
            }
        };
        let folder = Folder::new(name);
        let at = |file: &str| folder.path().join(file).display().to_string();
        let socket = format!("unix://{}", at("docker.sock"));
        // Should this test be killed, the engine ends with it.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "nsenter", &network.option(), "dockerd", "-H", &socket]);
        command.args(["--data-root", &at("data"), "--exec-root", &at("exec"), "--pidfile", &at("dockerd.pid")]);
        let group = cgroup(&folder);
        command.args(["--cgroup-parent", &group]);
        let dockerd = Running::start(&mut command);
        dockerd.wait_for("API listen on", Duration::from_secs(60));
        Some(Self { dockerd, socket, network, folder })
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The namespace of the bridges: what is the host to a user of Docker.
    pub fn host(&self) -> &Namespace {
        &self.network
    }

    /// `docker`, to be given arguments.
    pub fn command(&self) -> Command {
        let mut command = Command::new("docker");
        command.args(["-H", &self.socket]);
        command
    }

    pub fn docker(&self, args: &[&str]) -> String {
        succeed(self.command().args(args))
    }

    /// `docker-compose`, to be called in a folder with the compose files.
    pub fn compose(&self, folder: &Path) -> Command {
        let mut command = Command::new("docker-compose");
        command.current_dir(folder).env("DOCKER_HOST", &self.socket).env("COMPOSE_PROJECT_NAME", "imsbox");
        command
    }

    /// Makes an image of these programs, with their libraries and nothing else.
    pub fn import(&self, image: &str, programs: &[PathBuf]) {
        let tree = self.tree(image, "usr/bin");
        std::os::unix::fs::symlink("usr/bin", tree.join("bin")).expect("the folder is writable");
        for program in programs {
            let name = program.file_name().expect("a program has a name");
            fs::copy(program, tree.join("usr/bin").join(name)).unwrap_or_else(|e| panic!("{}: {e}", program.display()));
        }
        self.import_tree(image, &tree, programs);
    }

    /// As [`Engine::import`], but only the libraries that the programs need.
    pub fn import_libraries(&self, image: &str, programs: &[PathBuf]) {
        let tree = self.tree(image, "usr/local/bin");
        self.import_tree(image, &tree, programs);
    }

    /// The folders that every image has, and one for programs.
    fn tree(&self, image: &str, programs: &str) -> PathBuf {
        let tree = self.folder.path().join(image.replace(':', "-"));
        for folder in ["tmp", "etc", "var/lib", "run", programs] {
            fs::create_dir_all(tree.join(folder)).expect("the folder is writable");
        }
        tree
    }

    fn import_tree(&self, image: &str, tree: &Path, programs: &[PathBuf]) {
        let libraries: BTreeSet<PathBuf> = programs.iter().flat_map(|program| libraries(program)).collect();
        for library in libraries {
            let place = tree.join(library.strip_prefix("/").expect("ldd tells whole paths"));
            fs::create_dir_all(place.parent().expect("a file is in a folder")).expect("the folder is writable");
            fs::copy(&library, &place).unwrap_or_else(|e| panic!("{}: {e}", library.display()));
        }
        let mut tar = Command::new("tar");
        let mut tar = tar.arg("-C").arg(tree).args(["-c", "."]).stdout(Stdio::piped()).spawn().expect("tar is there");
        let archive = tar.stdout.take().expect("it is piped");
        succeed(self.command().args(["import", "-", image]).stdin(archive));
        assert!(tar.wait().expect("our own child").success(), "tar of {}", tree.display());
        let _ = fs::remove_dir_all(tree);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let containers = self.command().args(["ps", "-aq"]).output();
        if let Ok(list) = containers {
            let list = String::from_utf8_lossy(&list.stdout).into_owned();
            let ids: Vec<_> = list.split_whitespace().collect();
            if !ids.is_empty() {
                let _ = self.command().args(["rm", "-f", "-v"]).args(ids).output();
            }
        }
        // It ends its containerd itself.
        self.dockerd.terminate();
        until(Duration::from_secs(20), || !self.dockerd.is_running());
        self.dockerd.kill();
        for group in leftovers::control_groups(self.folder.path()) {
            let _ = fs::remove_dir(group);
        }
    }
}

/// The control group above all containers of this engine.
fn cgroup(folder: &Folder) -> String {
    folder.path().file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// What `ldd` says, and the loader.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let text = succeed(Command::new("ldd").arg(program));
    text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

/// A network namespace, deleted when dropped.
pub struct Namespace(String);

impl Namespace {
    pub fn new(name: &str) -> Result<Self, String> {
        let out = Command::new("ip").args(["netns", "add", name]).output().map_err(|e| e.to_string())?;
        if !out.status.success() {
            return Err(String::from_utf8_lossy(&out.stderr).into_owned());
        }
        let namespace = Self(name.into());
        namespace.ip(&["link", "set", "lo", "up"]);
        Ok(namespace)
    }

    pub fn name(&self) -> &str {
        &self.0
    }

    fn option(&self) -> String {
        format!("--net=/run/netns/{}", self.0)
    }

    pub fn ip(&self, args: &[&str]) -> String {
        succeed(Command::new("ip").args(["-n", &self.0]).args(args))
    }

    /// A command that will run in it; unlike under `ip netns exec`, `/sys` stays what it is.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(self.option()).arg(program);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).output();
    }
}

/// Runs it to its end, which must be a good one; what it printed on standard output.
pub fn succeed(command: &mut Command) -> String {
    let (good, text) = run(command);
    assert!(good, "{command:?} failed:\n{text}");
    text
}

/// Runs it to its end: whether that was a good one, and what it printed: standard output, and after a bad end errors too.
pub fn run(command: &mut Command) -> (bool, String) {
    let Output { status, stdout, stderr } = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (status.success(), if status.success() { text(stdout) } else { text(stdout) + &text(stderr) })
}
