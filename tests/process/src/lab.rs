//! A running core for one test: on a loopback address of its own, so that tests run side by side with all default ports.

use crate::process::Running;
use crate::{Folder, handset, http, program};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

pub struct Lab {
    pub address: String,
    pub folder: Folder,
    config: PathBuf,
    env: Vec<(String, String)>,
    core: Running,
}

impl Lab {
    /// `imsbox up` on `address`.
    pub fn start(name: &str, address: &str) -> Self {
        Self::start_with(name, address, &[])
    }

    /// With these environment variables.
    pub fn start_with(name: &str, address: &str, env: &[(&str, &str)]) -> Self {
        Self::start_on(name, address, &format!("addresses = [\"{address}\"]"), env)
    }

    /// With these lines in the table `[gm]`.
    pub fn start_on(name: &str, address: &str, gm: &str, env: &[(&str, &str)]) -> Self {
        let folder = Folder::new(name);
        let data = folder.path().join("data");
        let text = format!(
            "core_address = \"{address}\"\n[gm]\n{gm}\n\
             [shell]\ndata_dir = \"{}\"\nhttp = \"{address}:8080\"\n",
            data.display()
        );
        let config = folder.write("imsbox.toml", &text);
        let env: Vec<_> = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let core = up(&config, &env);
        Self { address: address.into(), folder, config, env, core }
    }

    pub fn token(&self) -> String {
        let file = self.folder.path().join("data/admin.token");
        fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display())).trim().into()
    }

    /// REST with the admin's token.
    pub fn rest(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        http::request(&format!("{}:8080", self.address), &self.token(), method, path, body)
    }

    /// Provisions a subscriber with the handset's keys.
    pub fn subscribe(&self, imsi: &str) {
        self.provision(imsi, &handset::hex(&handset::K), "opc", &handset::hex(&handset::OPC));
    }

    /// Provisions a subscriber with K, and OP or OPc.
    pub fn provision(&self, imsi: &str, k: &str, op_or_opc: &str, value: &str) {
        let body = format!("{{\"imsi\":\"{imsi}\",\"k\":\"{k}\",\"{op_or_opc}\":\"{value}\"}}");
        let (status, answer) = self.rest("POST", "/v1/subscribers", &body);
        assert_eq!(status, 201, "{answer}");
    }

    /// `imsbox ARGS --config ...`: exit code and everything printed.
    pub fn imsbox(&self, args: &[&str]) -> (Option<i32>, String) {
        let out = Command::new(program("imsbox")).args(args).arg("--config").arg(&self.config).output();
        let out = out.unwrap_or_else(|e| panic!("imsbox: {e}"));
        let text = [out.stdout, out.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat();
        (out.status.code(), text)
    }

    /// SIGTERM, and everything it has printed from its start to its end.
    pub fn stop(mut self) -> String {
        self.core.terminate();
        self.core.wait_end(Duration::from_secs(30));
        self.core.printed()
    }

    pub fn status(&self) -> String {
        self.imsbox(&["status"]).1
    }

    pub fn printed(&self) -> String {
        self.core.printed()
    }

    /// kill -9, then up again with the same data.
    pub fn crash_and_restart(&mut self) {
        self.core.kill();
        self.core = up(&self.config, &self.env);
    }
}

fn up(config: &Path, env: &[(String, String)]) -> Running {
    let mut command = Command::new(program("imsbox"));
    command.args(["up", "--config"]).arg(config).envs(env.iter().map(|(name, value)| (name, value)));
    let core = Running::start(&mut command);
    core.wait_for("ready", Duration::from_secs(60));
    core
}
