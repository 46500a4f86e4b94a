//! The messages of the base protocol that peers exchange about themselves (RFC 6733 5.3 to 5.5), and what they say.

use crate::Message;
use crate::avp::{Avps, Writer};
use crate::config::EndpointConfig;
use crate::dict::{self, APPLICATION_BASE, APPLICATION_RELAY, command};
use crate::message::{Builder, DiameterError, result};

const PRODUCT: &str = "imsbox";
const FIRMWARE: u32 = 1;
const NO_INBAND_SECURITY: u32 = 0;

/// Disconnect-Cause (RFC 6733 5.4.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DisconnectCause {
    Rebooting,
    Busy,
    DoNotWantToTalkToYou,
}

impl DisconnectCause {
    const ALL: [Self; 3] = [Self::Rebooting, Self::Busy, Self::DoNotWantToTalkToYou];

    /// The cause in a DPR; without one that we know, as if it were Rebooting.
    pub(crate) fn read(dpr: &Message) -> Self {
        let number = dpr.avps().first(&dict::DISCONNECT_CAUSE).and_then(|a| a.u32().ok());
        number.and_then(|n| Self::ALL.get(usize::try_from(n).ok()?).copied()).unwrap_or(Self::Rebooting)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rebooting => "rebooting",
            Self::Busy => "busy",
            Self::DoNotWantToTalkToYou => "do not want to talk to you",
        }
    }
}

/// What a peer says of itself in a CER or CEA.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Capabilities {
    pub(crate) host: String,
    pub(crate) realm: String,
    pub(crate) applications: Vec<u32>,
    /// Without any Inband-Security-Id a peer has no security inside the connection (RFC 6733 6.10).
    pub(crate) security: Vec<u32>,
    pub(crate) state_id: Option<u32>,
}

impl Capabilities {
    pub(crate) fn read(m: &Message) -> Result<Self, DiameterError> {
        let avps = m.avps();
        let numbers = |def| avps.all(def).map(|a| a.u32()).collect::<Result<Vec<_>, _>>();
        let mut applications = numbers(&dict::AUTH_APPLICATION_ID)?;
        applications.extend(numbers(&dict::ACCT_APPLICATION_ID)?);
        for group in avps.all(&dict::VENDOR_SPECIFIC_APPLICATION_ID) {
            let members = group.group()?;
            for def in [&dict::AUTH_APPLICATION_ID, &dict::ACCT_APPLICATION_ID] {
                if let Some(application) = members.first(def) {
                    applications.push(application.u32()?);
                }
            }
        }
        applications.sort_unstable();
        applications.dedup();
        Ok(Self {
            host: name(&avps, &dict::ORIGIN_HOST)?,
            realm: name(&avps, &dict::ORIGIN_REALM)?,
            applications,
            security: numbers(&dict::INBAND_SECURITY_ID)?,
            state_id: avps.first(&dict::ORIGIN_STATE_ID).map(|a| a.u32()).transpose()?,
        })
    }

    pub(crate) fn is_relay(&self) -> bool {
        self.applications.contains(&APPLICATION_RELAY)
    }

    /// Whether we and this peer can talk, or the Result-Code that says why not (RFC 6733 5.3).
    pub(crate) fn fits(&self, config: &EndpointConfig) -> Result<(), u32> {
        if !self.is_relay() && !config.applications.iter().any(|(_, app)| self.applications.contains(app)) {
            return Err(result::NO_COMMON_APPLICATION);
        }
        if !self.security.is_empty() && !self.security.contains(&NO_INBAND_SECURITY) {
            return Err(result::NO_COMMON_SECURITY);
        }
        Ok(())
    }
}

/// A DiameterIdentity: not empty, and short enough to be a name.
fn name(avps: &Avps<'_>, def: &dict::Def) -> Result<String, DiameterError> {
    let avp = avps.required(def)?;
    let text = avp.utf8()?;
    let valid = (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if valid { Ok(text.into()) } else { Err(avp.bad_value()) }
}

pub(crate) fn origin(w: &mut Writer, config: &EndpointConfig) {
    w.utf8(&dict::ORIGIN_HOST, &config.origin_host);
    w.utf8(&dict::ORIGIN_REALM, &config.origin_realm);
}

fn write_capabilities(w: &mut Writer, config: &EndpointConfig, state_id: u32) {
    origin(w, config);
    w.address(&dict::HOST_IP_ADDRESS, config.host_ip);
    // 0: not a vendor (RFC 6733 5.3.3).
    w.u32(&dict::VENDOR_ID, 0);
    w.utf8(&dict::PRODUCT_NAME, PRODUCT);
    w.u32(&dict::ORIGIN_STATE_ID, state_id);
    let mut vendors: Vec<u32> = config.applications.iter().map(|(vendor, _)| *vendor).filter(|v| *v != 0).collect();
    vendors.sort_unstable();
    vendors.dedup();
    vendors.iter().for_each(|vendor| w.u32(&dict::SUPPORTED_VENDOR_ID, *vendor));
    for (_, application) in config.applications.iter().filter(|(vendor, _)| *vendor == 0) {
        w.u32(&dict::AUTH_APPLICATION_ID, *application);
    }
    w.u32(&dict::INBAND_SECURITY_ID, NO_INBAND_SECURITY);
    for (vendor, application) in config.applications.iter().filter(|(vendor, _)| *vendor != 0) {
        w.group(&dict::VENDOR_SPECIFIC_APPLICATION_ID, |w| {
            w.u32(&dict::VENDOR_ID, *vendor);
            w.u32(&dict::AUTH_APPLICATION_ID, *application);
        });
    }
    w.u32(&dict::FIRMWARE_REVISION, FIRMWARE);
}

pub(crate) fn cer(config: &EndpointConfig, state_id: u32) -> Message {
    Message::request(command::CAPABILITIES_EXCHANGE, APPLICATION_BASE)
        .with(|w| write_capabilities(w, config, state_id))
        .build()
}

pub(crate) fn cea(cer: &Message, code: u32, config: &EndpointConfig, state_id: u32) -> Message {
    with_result(cer, code).with(|w| write_capabilities(w, config, state_id)).build()
}

pub(crate) fn dwr(config: &EndpointConfig, state_id: u32) -> Message {
    Message::request(command::DEVICE_WATCHDOG, APPLICATION_BASE)
        .with(|w| {
            origin(w, config);
            w.u32(&dict::ORIGIN_STATE_ID, state_id);
        })
        .build()
}

pub(crate) fn dwa(dwr: &Message, config: &EndpointConfig, state_id: u32) -> Message {
    with_result(dwr, result::SUCCESS)
        .with(|w| {
            origin(w, config);
            w.u32(&dict::ORIGIN_STATE_ID, state_id);
        })
        .build()
}

pub(crate) fn dpr(cause: DisconnectCause, config: &EndpointConfig) -> Message {
    Message::request(command::DISCONNECT_PEER, APPLICATION_BASE)
        .with(|w| {
            origin(w, config);
            w.u32(&dict::DISCONNECT_CAUSE, cause as u32);
        })
        .build()
}

pub(crate) fn dpa(dpr: &Message, config: &EndpointConfig) -> Message {
    with_result(dpr, result::SUCCESS).with(|w| origin(w, config)).build()
}

fn with_result(request: &Message, code: u32) -> Builder {
    request.answer_with_result(Some(code)).with(|w| w.u32(&dict::RESULT_CODE, code))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> EndpointConfig {
        let (origin_host, origin_realm) = ("h.x".into(), "x".into());
        EndpointConfig { origin_host, origin_realm, ..EndpointConfig::default() }
    }

    /// By hand from RFC 6733 5.3.1.
    #[test]
    fn a_cer_has_the_bytes_that_the_specification_says() {
        let expected = [
            "010000a8 80000101 00000000 00000000 00000000",
            "00000108 4000000b 682e7800",
            "00000128 40000009 78000000",
            "00000101 4000000e 00017f00 00010000",
            "0000010a 4000000c 00000000",
            "0000010d 0000000e 696d7362 6f780000",
            "00000116 4000000c 00000007",
            "00000109 4000000c 000028af",
            "0000012b 4000000c 00000000",
            "00000104 40000020 0000010a 4000000c 000028af 00000102 4000000c 01000000",
            "0000010b 0000000c 00000001",
        ];
        let written: String = cer(&config(), 7).to_bytes().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(written, expected.concat().replace(' ', ""));
    }

    #[test]
    fn capabilities_are_read_back() {
        let read = Capabilities::read(&cer(&config(), 7)).unwrap();
        assert_eq!((read.host.as_str(), read.realm.as_str(), read.state_id), ("h.x", "x", Some(7)));
        assert_eq!(read.applications, [dict::APPLICATION_CX]);
        assert_eq!(read.fits(&config()), Ok(()));
        let other = EndpointConfig { applications: vec![(0, 4)], ..config() };
        assert_eq!(read.fits(&other), Err(5010));
        assert_eq!(Capabilities { security: vec![1], ..read.clone() }.fits(&config()), Err(5017));
        assert_eq!(Capabilities { applications: vec![APPLICATION_RELAY], ..read }.fits(&other), Ok(()));
    }
}
