//! Public service identities (TS 23.228 5.4.12, TS 23.003 13.5): nobody registers with them. A request for one goes to the
//! application server that is named here, or to an S-CSCF that serves it by its criteria. Stored as a subscription without a SIM.

use crate::config::Config;
use crate::fields::{Fields, Result};
use crate::profile::differs;
use crate::provision::{self, Changed};
use crate::subscriber::{PublicIdentity, State, Subscription};
use ims_core::command::Problem;
use ims_core::uri::Uri;
use ims_core::{Impi, Impu};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use xml_ifc::Pattern;

/// Wildcarded identities that are looked through for each identity that is not known otherwise.
pub(crate) const MOST_WILDCARDS: usize = 1000;
const LONGEST: usize = 255;
const PROBLEM: &str =
    "give a SIP or tel URI, with one extended regular expression between exclamation marks if it is wildcarded";

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Service {
    /// As it is provisioned: with its wildcard.
    pub identity: String,
    /// The private service identity (TS 23.228 5.4.12.1): what the S-CSCF's profile is about.
    pub impi: Impi,
    /// SIP URI of the application server that requests go to without an S-CSCF.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Inactive: as if it did not exist (PSI activation state).
    #[serde(rename = "active")]
    pub is_active: bool,
}

impl Service {
    pub fn is_wildcarded(&self) -> bool {
        self.identity.contains('!')
    }
}

/// Where the store finds it.
pub(crate) fn key(identity: &str) -> String {
    format!("psi:{identity}")
}

/// Behind all subscribers in the order of the listing: those begin with a digit.
pub(crate) fn sort(identity: &str) -> String {
    format!("psi:{identity}")
}

/// A wildcarded identity: text, an extended regular expression between `!`, text (TS 23.003 13.5).
#[derive(Debug)]
pub(crate) struct Wildcard {
    pub(crate) identity: String,
    pattern: Pattern,
    /// How much of it is no wildcard.
    fixed: usize,
}

impl Wildcard {
    pub(crate) fn parse(identity: &str) -> std::result::Result<Self, String> {
        let mut parts = identity.split('!');
        let (Some(before), Some(expression), Some(after), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(PROBLEM.into());
        };
        // What is left with a plain letter in its place is an identity, in its one spelling.
        let example = format!("{before}0{after}");
        if Impu::parse(&example).map(|impu| impu.to_string()) != Ok(example) {
            return Err(format!("{PROBLEM}; host in lower case, no parameters"));
        }
        if expression.is_empty() || !expression.bytes().all(|b| b.is_ascii_graphic() && !b"<>\"@".contains(&b)) {
            return Err("the wildcard is a regular expression of printable characters without <, >, \" and @".into());
        }
        let pattern = Pattern::wildcard(identity).ok_or(PROBLEM)?;
        let pattern = pattern.map_err(|e| format!("the wildcard cannot be used: {e}"))?;
        Ok(Self { identity: identity.into(), pattern, fixed: before.len() + after.len() })
    }

    fn matches(&self, impu: &Impu) -> bool {
        self.pattern.is_in(impu.as_str().as_bytes())
    }
}

/// All wildcarded identities that are provisioned: the most specific first.
#[derive(Default)]
pub(crate) struct Wildcards(Vec<Wildcard>);

impl Wildcards {
    pub(crate) fn insert(&mut self, wildcard: Wildcard) {
        self.remove(&wildcard.identity);
        let rank = |w: &Wildcard| (std::cmp::Reverse(w.fixed), w.identity.clone());
        let at = self.0.partition_point(|known| rank(known) < rank(&wildcard));
        self.0.insert(at, wildcard);
    }

    pub(crate) fn remove(&mut self, identity: &str) {
        self.0.retain(|known| known.identity != identity);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The one that an identity falls under which nobody has for himself.
    pub(crate) fn find(&self, impu: &Impu) -> Option<&str> {
        self.0.iter().find(|known| known.matches(impu)).map(|known| known.identity.as_str())
    }

    /// What was read from the store.
    pub(crate) fn take(&mut self, subscription: &Subscription) {
        let service = subscription.service.as_ref().filter(|service| service.is_wildcarded());
        match service.map(|service| Wildcard::parse(&service.identity)) {
            Some(Ok(wildcard)) => self.insert(wildcard),
            Some(Err(why)) => tracing::warn!("a wildcarded service is left out: {why}"),
            None => {}
        }
    }
}

/// A new service from the arguments of `service.create`.
pub(crate) fn create(args: &Value, config: &Config) -> Result<(Subscription, State)> {
    let mut fields = Fields::new(args, "")?;
    let text = fields.text("identity")?.ok_or_else(|| fields.invalid("identity", "the identity is missing"))?;
    let identity = spelling(&text).map_err(|why| fields.invalid("identity", why))?;
    let impi = match fields.text("impi")? {
        Some(text) => Impi::parse(&text).map_err(|e| fields.invalid("impi", e.to_string()))?,
        None => {
            derived(&identity, config).ok_or_else(|| fields.invalid("impi", "give the private service identity"))?
        }
    };
    let service = Service { impi, server: None, is_active: true, identity };
    let distinct = (!service.is_wildcarded()).then(|| Impu::parse(&service.identity).ok()).flatten();
    let set = distinct.map(|impu| PublicIdentity { impu, barred: false, display_name: None });
    let mut subscription = Subscription {
        imsi: None,
        service: Some(Box::new(service)),
        msisdn: None,
        private_identities: Vec::new(),
        sets: vec![set.into_iter().collect()],
        impus_given: true,
        barred: false,
        visited_networks: None,
        capabilities: None,
        criteria: Vec::new(),
        shared_ifc_sets: Vec::new(),
        service_profile: None,
        revision: 1,
    };
    read(&mut fields, &mut subscription, config)?;
    fields.finish()?;
    Ok((subscription, State::default()))
}

/// A service changed by the arguments of `service.change`: what is not named stays.
pub(crate) fn change(old: &Subscription, state: &State, changes: &Value, config: &Config) -> Result<Changed> {
    let mut fields = Fields::new(changes, "")?;
    let mut new = old.clone();
    let same = |text: Option<String>, known: &str| text.is_none_or(|text| text == known);
    let service = old.service.as_deref();
    let (identity, impi) = service.map_or(("", ""), |service| (service.identity.as_str(), service.impi.as_str()));
    if !same(fields.text("identity")?, identity) {
        return Err(fields.invalid("identity", "an identity does not change: create another service"));
    }
    if !same(fields.text("impi")?, impi) {
        return Err(fields.invalid("impi", "a private identity does not change: create another service"));
    }
    read(&mut fields, &mut new, config)?;
    fields.finish()?;
    new.revision += 1;
    let profile_changed = new.impi_of_profile().is_some_and(|impi| differs(old, &new, config, impi));
    Ok(Changed { subscription: new, state: state.clone(), terminate: None, profile_changed })
}

fn read(fields: &mut Fields, subscription: &mut Subscription, config: &Config) -> Result<()> {
    if let Some(service) = subscription.service.as_deref_mut() {
        if fields.has("server") {
            service.server = fields.text("server")?.filter(|text| !text.is_empty());
            let is_sip = |server: &String| Uri::parse(server).is_ok_and(|uri| uri.is_sip());
            if service.server.as_ref().is_some_and(|server| !is_sip(server)) {
                return Err(fields.invalid("server", "give the SIP URI of the application server"));
            }
        }
        if let Some(active) = fields.bool("active")? {
            service.is_active = active;
        }
    }
    if fields.has("display_name") {
        let name = fields.text("display_name")?.map(|name| name.chars().take(128).collect());
        subscription.sets.iter_mut().flatten().for_each(|p| p.display_name.clone_from(&name));
    }
    provision::profile(fields, subscription, config)
}

/// The one spelling of an identity.
fn spelling(text: &str) -> std::result::Result<String, String> {
    if text.len() > LONGEST {
        return Err(format!("an identity has {LONGEST} bytes at most"));
    }
    match text.contains('!') {
        true => Wildcard::parse(text).map(|wildcard| wildcard.identity),
        false => Impu::parse(text).map(|impu| impu.to_string()).map_err(|_| PROBLEM.into()),
    }
}

/// What follows from the identity: no SIM and no softphone has such a one.
fn derived(identity: &str, config: &Config) -> Option<Impi> {
    let rest = identity.split_once(':').map_or(identity, |(_, rest)| rest);
    let name: String =
        rest.chars().map(|c| if c.is_ascii_alphanumeric() || "-.+".contains(c) { c } else { '_' }).collect();
    Impi::parse(&format!("psi.{name}@{}", config.domain)).ok()
}

pub(crate) fn show(subscription: &Subscription, state: &State) -> Value {
    let service = subscription.service.as_deref();
    json!({
        "identity": service.map(|s| &s.identity),
        "impi": service.map(|s| &s.impi),
        "wildcarded": service.is_some_and(Service::is_wildcarded),
        "server": service.and_then(|s| s.server.as_ref()),
        "active": service.is_some_and(|s| s.is_active),
        "display_name": subscription.impus().find_map(|p| p.display_name.as_ref()),
        "capabilities": subscription.capabilities,
        "criteria": subscription.criteria.len(),
        "shared_ifc_sets": subscription.shared_ifc_sets,
        "service_profile": subscription.service_profile,
        "scscf": state.assigned.as_ref().map(|scscf| &scscf.name),
    })
}

/// The service that a command is about.
pub(crate) fn named(args: &Value) -> Result<String> {
    let text = args.get("identity").and_then(Value::as_str);
    let text = text.ok_or_else(|| Problem::invalid("identity", "the identity is missing"))?;
    // What is no identity is nobody's.
    spelling(text).map_err(|_| unknown(text))
}

pub(crate) fn unknown(identity: &str) -> Problem {
    Problem::not_found(format!("no service has the identity {}", identity.escape_debug().take(80).collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn impu(text: &str) -> Impu {
        Impu::parse(text).unwrap()
    }

    /// TS 23.003 13.5: wildcarded public service identities.
    #[test]
    fn a_wildcard_stands_for_the_whole_of_what_is_between_its_marks() {
        let rooms = Wildcard::parse("sip:chat-![0-9]+!@ims.example").unwrap();
        for (text, fits) in [
            ("sip:chat-42@ims.example", true),
            ("sip:chat-42@IMS.example;user=phone", true),
            ("sip:chat-@ims.example", false),
            ("sip:chat-4x@ims.example", false),
            ("sip:xchat-42@ims.example", false),
            ("sip:chat-42@ims.example.org", false),
            ("sip:chat-42@ims-example", false),
        ] {
            assert_eq!(rooms.matches(&impu(text)), fits, "{text}");
        }
        let either = Wildcard::parse("tel:+49800!1|2!").unwrap();
        assert!(either.matches(&impu("tel:+498002")) && !either.matches(&impu("tel:+4980012")));
    }

    /// TS 23.003 13.5: several wildcards.
    #[test]
    fn the_most_specific_wildcard_decides() {
        let mut all = Wildcards::default();
        for text in ["sip:!.*!@ims.example", "sip:chat-!.*!@ims.example", "sip:chat-vip-!.*!@ims.example"] {
            all.insert(Wildcard::parse(text).unwrap());
        }
        let find = |text: &str| all.find(&impu(text));
        assert_eq!(find("sip:chat-vip-1@ims.example"), Some("sip:chat-vip-!.*!@ims.example"));
        assert_eq!(find("sip:chat-1@ims.example"), Some("sip:chat-!.*!@ims.example"));
        assert_eq!(find("sip:x@ims.example"), Some("sip:!.*!@ims.example"));
        assert_eq!(find("sip:x@else.example"), None);
    }

    #[test]
    fn what_cannot_be_a_wildcard_says_why() {
        for text in [
            "sip:a!b",
            "sip:a!!@x",
            "sip:a!.*!b!.*!@x",
            "sip:a!(!@x",
            "sip:a!.*!@X",
            "urn:!.*!",
            "sip:a!.*!@x;user=phone",
            "sip:a![!@x",
            "sip:a!(a{1000}){1000}!@x",
        ] {
            assert!(Wildcard::parse(text).is_err(), "{text}");
        }
    }
}
