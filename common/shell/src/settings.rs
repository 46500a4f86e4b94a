//! The `[shell]` table of a configuration file: what has nothing to do with IMS.

use ims_core::config::Span;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Settings of the process, not of a network element.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Folder of the database, the admin token and the keys; created when missing.
    pub data_dir: PathBuf,
    /// File of the bearer token of the REST API, when it is not `admin.token` of the data folder. Never made, and its
    /// permissions are its owner's business: a mounted secret.
    pub admin_token_file: Option<PathBuf>,
    /// File of the HSS master key, when it is not `hss.key` of the data folder. As above.
    pub master_key_file: Option<PathBuf>,
    /// Address of the REST API and console: `"127.0.0.1:8080"`, or `"off"`.
    pub http: Listen,
    /// Log filter as `tracing` reads it: `info`, `warn,pcscf=debug`.
    pub log: String,
    /// Threads that nodes and sockets share: 1 is the thread that the program begins with, more are so many worker threads, 0 is
    /// one for each processor. One is enough for thousands of registrations a second, and handing messages from thread to thread
    /// costs more CPU than it gains time. The database and the syncing of what is kept have threads of their own.
    pub threads: usize,
    /// Wake-ups a second of a process with `threads = 1`, beyond which it lets a moment pass and takes several messages at once:
    /// a wake-up costs as much as a message. It adds at most that moment, 1 s / `wakeups`, to a message; 0 means never.
    pub wakeups: u32,
    /// Kernel receive buffer of each UDP socket, in bytes (without CAP_NET_ADMIN the kernel cuts it to net.core.rmem_max).
    pub udp_receive_buffer: usize,
    /// Kernel send buffer of each UDP socket, in bytes.
    pub udp_send_buffer: usize,
    /// Events a node may have waiting before datagrams are dropped and connections are held back.
    pub inbox: usize,
    /// Largest SIP message on a connection, in bytes.
    pub sip_message_limit: usize,
    /// Largest Diameter message, in bytes; 1 MiB at most.
    pub diameter_message_limit: usize,
    /// Open TCP connections per listener.
    pub tcp_connections: usize,
    /// Open TCP connections per source address and listener.
    pub tcp_connections_per_source: usize,
    /// A SIP connection without traffic is closed after this long.
    pub tcp_idle: Span,
    /// A message on a connection must be complete this long after its first byte.
    pub tcp_message_time: Span,
    /// How long opening a connection may take.
    pub tcp_connect: Span,
    /// Messages that may wait for a slow connection.
    pub tcp_queue: usize,
    /// Requests that may wait for the database.
    pub store_queue: usize,
    /// Whether registrations are kept on disk, in `data_dir`, so that a restart finds them. Of P-CSCF and S-CSCF.
    pub keep: bool,
    /// How often what is kept is synced to the disk. The death of the process loses nothing; a power failure loses what came after
    /// the last sync.
    pub keep_sync: Span,
    /// How long a REST request may take.
    pub http_time: Span,
    /// Whether `/metrics` wants the admin token too. It names no subscriber and no address.
    pub metrics_need_token: bool,
    /// Largest REST request body, in bytes.
    pub http_body_limit: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("imsbox-data"),
            admin_token_file: None,
            master_key_file: None,
            http: Listen::Default,
            log: "info".into(),
            threads: 1,
            wakeups: 0,
            udp_receive_buffer: 4 << 20,
            udp_send_buffer: 4 << 20,
            inbox: 16_384,
            sip_message_limit: 65_536,
            diameter_message_limit: 1 << 20,
            tcp_connections: 10_000,
            tcp_connections_per_source: 100,
            tcp_idle: Span::secs(3_700),
            tcp_message_time: Span::secs(20),
            tcp_connect: Span::secs(5),
            tcp_queue: 1_024,
            store_queue: 65_536,
            keep: true,
            keep_sync: Span::secs(1),
            http_time: Span::secs(10),
            metrics_need_token: false,
            http_body_limit: 1 << 20,
        }
    }
}

/// Where to listen, if at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Listen {
    /// What the role says.
    #[default]
    Default,
    Off,
    At(SocketAddr),
}

impl Listen {
    /// The address, where `default` stands for [`Listen::Default`].
    pub fn or(self, default: Option<SocketAddr>) -> Option<SocketAddr> {
        match self {
            Self::Default => default,
            Self::Off => None,
            Self::At(addr) => Some(addr),
        }
    }
}

impl std::str::FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            _ => text.parse().map(Self::At).map_err(|_| format!("'{text}' is no address: write 127.0.0.1:8080 or off")),
        }
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Settings {
    /// Where the bearer token of the REST API is.
    pub fn token_file(&self) -> PathBuf {
        self.admin_token_file.clone().unwrap_or_else(|| self.data_dir.join("admin.token"))
    }

    /// Environment over file: `IMSBOX_DATA_DIR`, `IMSBOX_ADMIN_TOKEN_FILE`, `IMSBOX_MASTER_KEY_FILE`, `IMSBOX_HTTP`,
    /// `IMSBOX_LOG`, `IMSBOX_THREADS`.
    pub fn with_environment(self) -> Result<Self, String> {
        self.with_variables(|name| std::env::var(name).ok())
    }

    fn with_variables(mut self, variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        if let Some(dir) = variable("IMSBOX_DATA_DIR") {
            self.data_dir = dir.into();
        }
        if let Some(file) = variable("IMSBOX_ADMIN_TOKEN_FILE") {
            self.admin_token_file = Some(file.into());
        }
        if let Some(file) = variable("IMSBOX_MASTER_KEY_FILE") {
            self.master_key_file = Some(file.into());
        }
        if let Some(http) = variable("IMSBOX_HTTP") {
            self.http = http.parse().map_err(|e| format!("IMSBOX_HTTP: {e}"))?;
        }
        if let Some(log) = variable("IMSBOX_LOG") {
            self.log = log;
        }
        if let Some(threads) = variable("IMSBOX_THREADS") {
            self.threads =
                threads.parse().map_err(|_| format!("IMSBOX_THREADS: '{threads}' is no number of threads"))?;
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_overrides_file() {
        let settings: Settings = toml::from_str("http = \"off\"\ninbox = 10").unwrap();
        assert_eq!(settings.http, Listen::Off);
        let settings = settings.with_variables(|n| (n == "IMSBOX_HTTP").then(|| "[::1]:9".to_owned())).unwrap();
        assert_eq!(settings.http.or(None), Some("[::1]:9".parse().unwrap()));
        assert_eq!(settings.inbox, 10);
        assert_eq!(settings.token_file(), PathBuf::from("imsbox-data/admin.token"));
        let secret = |n: &str| (n == "IMSBOX_ADMIN_TOKEN_FILE").then(|| "/run/secrets/token".to_owned());
        let settings = settings.with_variables(secret).unwrap();
        assert_eq!(settings.token_file(), PathBuf::from("/run/secrets/token"));
    }

    #[test]
    fn the_shipped_files_say_what_the_defaults_are() {
        for text in [
            include_str!("../../../configs/imsbox.toml"),
            include_str!("../../../configs/pcscf.toml"),
            include_str!("../../../configs/icscf.toml"),
            include_str!("../../../configs/scscf.toml"),
            include_str!("../../../configs/hss.toml"),
        ] {
            let file: toml::Table = text.parse().unwrap();
            let shell = file.get("shell").cloned().unwrap_or(toml::Table::new().into());
            let shipped: Settings = shell.try_into().unwrap();
            assert_eq!(format!("{shipped:?}"), format!("{:?}", Settings::default()));
        }
    }

    #[test]
    fn an_unknown_setting_is_an_error() {
        assert!(toml::from_str::<Settings>("inbx = 10").is_err());
    }
}
