//! The REST and console API as the command line uses it.

use crate::settings::Settings;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

/// How to reach a running imsbox.
#[derive(clap::Args, Debug, Default, Clone)]
pub(crate) struct Target {
    /// Address of the REST API (default: as configured, 127.0.0.1:8080). Where the roles run apart, that of each, the HSS
    /// first, with commas between
    #[arg(long, value_name = "HOST:PORT", global = true, env = "IMSBOX_API", value_delimiter = ',')]
    pub(crate) api: Vec<String>,
    /// File with the admin token (default: admin.token in the data folder)
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) token_file: Option<PathBuf>,
}

pub(crate) struct Client {
    agent: ureq::Agent,
    base: String,
    bearer: String,
}

/// What an RFC 9457 problem says to people.
#[derive(serde::Deserialize)]
struct Refused {
    detail: String,
    field: Option<String>,
}

impl Client {
    /// The first: the box, or the HSS.
    pub(crate) fn new(target: &Target, settings: &Settings) -> Result<Self> {
        Self::all(target, settings)?.into_iter().next().context("no address of a REST API was given")
    }

    /// One for each process that was named.
    pub(crate) fn all(target: &Target, settings: &Settings) -> Result<Vec<Self>> {
        let file = target.token_file.clone().unwrap_or_else(|| settings.token_file());
        let token = std::fs::read_to_string(&file).with_context(|| {
            format!("cannot read the admin token in {}: is imsbox up? Otherwise give --token-file", file.display())
        })?;
        let addresses = match &target.api[..] {
            [] => vec![settings.rest.to_string()],
            given => given.to_vec(),
        };
        Ok(addresses.iter().map(|address| Self::with_token(address, token.trim())).collect())
    }

    pub(crate) fn with_token(address: &str, token: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(2)))
            .timeout_global(Some(Duration::from_secs(15)))
            .build();
        Self { agent: config.into(), base: format!("http://{address}"), bearer: format!("Bearer {token}") }
    }

    pub(crate) fn read(&self, path: &str) -> Result<Value> {
        let request = self.agent.get(format!("{}{path}", self.base)).header("Authorization", &self.bearer);
        self.answer(request.call())
    }

    pub(crate) fn create(&self, path: &str, body: &Value) -> Result<Value> {
        let request = self.agent.post(format!("{}{path}", self.base)).header("Authorization", &self.bearer);
        self.answer(request.send_json(body))
    }

    pub(crate) fn remove(&self, path: &str) -> Result<Value> {
        let request = self.agent.delete(format!("{}{path}", self.base)).header("Authorization", &self.bearer);
        self.answer(request.call())
    }

    fn answer(&self, result: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Value> {
        let mut response = result.with_context(|| format!("{} does not answer: is imsbox up?", self.base))?;
        let status = response.status().as_u16();
        let text = response.body_mut().read_to_string().context("the answer broke off")?;
        if (200..300).contains(&status) {
            return if text.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_str(&text)?) };
        }
        match serde_json::from_str::<Refused>(&text) {
            _ if status == 401 => bail!("the admin token is not the one of this imsbox"),
            Ok(Refused { field: Some(field), detail }) if !field.is_empty() => bail!("{field}: {detail}"),
            Ok(Refused { detail, .. }) => bail!("{detail}"),
            Err(_) => bail!("{} answered {status}: {text}", self.base),
        }
    }
}
