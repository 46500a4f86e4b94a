//! P-headers about networks and charging (RFC 7315 4.3 to 4.6, TS 24.229 7.2A.4, 7.2A.5).

use super::{Params, TypedHeader, error, head_and_params, list};
use crate::Name;
use crate::message::HeaderError;
use std::fmt;

/// The network a request was roaming in: a token or a quoted string.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PVisitedNetworkId<'a> {
    /// Quotes taken off.
    pub network: &'a str,
    pub params: Params<'a>,
}

impl<'a> TypedHeader<'a> for PVisitedNetworkId<'a> {
    const NAME: Name = Name::PVisitedNetworkId;
    const LIST: bool = true;

    fn parse_value(value: &'a str) -> Result<Self, HeaderError> {
        let (head, params) = head_and_params::<Self>(value)?;
        let network = list::unquote(head);
        let quoted = network.len() != head.len();
        if network.is_empty() || (!quoted && !list::is_token_text(network)) {
            return Err(error::<Self>("is neither a token nor a quoted string"));
        }
        Ok(Self { network, params })
    }
}

impl fmt::Display for PVisitedNetworkId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"{}", self.network, self.params)
    }
}

/// What access the UE uses: `3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=...;network-provided`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PAccessNetworkInfo<'a> {
    pub access: &'a str,
    pub params: Params<'a>,
}

impl PAccessNetworkInfo<'_> {
    pub fn is_network_provided(&self) -> bool {
        self.params.has("network-provided") || self.params.has("np")
    }
}

impl<'a> TypedHeader<'a> for PAccessNetworkInfo<'a> {
    const NAME: Name = Name::PAccessNetworkInfo;
    const LIST: bool = true;

    fn parse_value(value: &'a str) -> Result<Self, HeaderError> {
        let (access, params) = head_and_params::<Self>(value)?;
        match list::is_token_text(access) {
            true => Ok(Self { access, params }),
            false => Err(error::<Self>("does not begin with an access type")),
        }
    }
}

impl fmt::Display for PAccessNetworkInfo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.access, self.params)
    }
}

/// Charging correlation: `icid-value=..;icid-generated-at=..;orig-ioi=..;term-ioi=..`. Quotes taken off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PChargingVector<'a> {
    pub icid_value: &'a str,
    pub icid_generated_at: Option<&'a str>,
    pub orig_ioi: Option<&'a str>,
    pub term_ioi: Option<&'a str>,
    /// All of them, with those we do not know; those above are not printed twice.
    pub params: Params<'a>,
}

impl<'a> TypedHeader<'a> for PChargingVector<'a> {
    const NAME: Name = Name::PChargingVector;
    const LIST: bool = false;

    fn parse_value(value: &'a str) -> Result<Self, HeaderError> {
        let params = bare_params::<Self>(value)?;
        let icid_value =
            params.value("icid-value").filter(|v| !v.is_empty()).ok_or(error::<Self>("has no icid-value"))?;
        Ok(Self {
            icid_value,
            icid_generated_at: params.value("icid-generated-at"),
            orig_ioi: params.value("orig-ioi"),
            term_ioi: params.value("term-ioi"),
            params,
        })
    }
}

impl fmt::Display for PChargingVector<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "icid-value={}", word(self.icid_value))?;
        let known =
            [("icid-generated-at", self.icid_generated_at), ("orig-ioi", self.orig_ioi), ("term-ioi", self.term_ioi)];
        for (name, value) in known {
            if let Some(value) = value {
                write!(f, ";{name}={}", word(value))?;
            }
        }
        for (name, value) in self.params.iter() {
            let listed =
                name.eq_ignore_ascii_case("icid-value") || known.iter().any(|(k, _)| k.eq_ignore_ascii_case(name));
            match value {
                _ if listed => {}
                Some(value) => write!(f, ";{name}={}", word(value))?,
                None => write!(f, ";{name}")?,
            }
        }
        Ok(())
    }
}

/// Where charging events go: `ccf=..;ecf=..`, each possibly several times.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PChargingFunctionAddresses<'a>(pub Params<'a>);

impl<'a> PChargingFunctionAddresses<'a> {
    pub fn ccf(&self) -> impl Iterator<Item = &'a str> {
        self.named("ccf")
    }

    pub fn ecf(&self) -> impl Iterator<Item = &'a str> {
        self.named("ecf")
    }

    fn named(&self, name: &'static str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).filter_map(|(_, v)| v)
    }
}

impl<'a> TypedHeader<'a> for PChargingFunctionAddresses<'a> {
    const NAME: Name = Name::PChargingFunctionAddresses;
    const LIST: bool = false;

    fn parse_value(value: &'a str) -> Result<Self, HeaderError> {
        bare_params::<Self>(value).map(Self)
    }
}

impl fmt::Display for PChargingFunctionAddresses<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.0)
    }
}

/// Parameters without a head, separated by `;`.
fn bare_params<'a, H: TypedHeader<'a>>(value: &'a str) -> Result<Params<'a>, HeaderError> {
    Params::checked_list(list::trim_str(value)).map_err(error::<H>)
}

/// A token as it is, anything else in quotes.
fn word(text: &str) -> std::borrow::Cow<'_, str> {
    if list::is_token_text(text) { text.into() } else { format!("\"{text}\"").into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visited_network() {
        let v = PVisitedNetworkId::parse_value("\"ims.mnc001.mcc001.3gppnetwork.org\"").unwrap();
        assert_eq!(v.network, "ims.mnc001.mcc001.3gppnetwork.org");
        assert_eq!(v.to_string(), "\"ims.mnc001.mcc001.3gppnetwork.org\"");
        assert_eq!(PVisitedNetworkId::parse_value("other.net;x=1").unwrap().network, "other.net");
        for text in ["", "\"", "a b", "\"\""] {
            assert!(PVisitedNetworkId::parse_value(text).is_err(), "{text}");
        }
    }

    #[test]
    fn access_network() {
        let text = "3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=00101000100000001;network-provided";
        let p = PAccessNetworkInfo::parse_value(text).unwrap();
        assert_eq!((p.access, p.is_network_provided()), ("3GPP-E-UTRAN-FDD", true));
        assert_eq!(p.params.value("utran-cell-id-3gpp"), Some("00101000100000001"));
        assert_eq!(p.to_string(), text);
        assert!(
            !PAccessNetworkInfo::parse_value("IEEE-802.11; i-wlan-node-id=ffffffffffff").unwrap().is_network_provided()
        );
        assert!(PAccessNetworkInfo::parse_value("a b;c").is_err());
    }

    #[test]
    fn charging_vector() {
        let v = PChargingVector::parse_value(
            "icid-value=\"AyretyU0dm+6O2IrT5tAFrbHLso=023551024\";icid-generated-at=[::1]; orig-ioi=\"type 1\";x=y;np",
        )
        .unwrap();
        assert_eq!((v.icid_value, v.icid_generated_at), ("AyretyU0dm+6O2IrT5tAFrbHLso=023551024", Some("[::1]")));
        assert_eq!((v.orig_ioi, v.term_ioi, v.params.value("x")), (Some("type 1"), None, Some("y")));
        assert_eq!(
            v.to_string(),
            "icid-value=\"AyretyU0dm+6O2IrT5tAFrbHLso=023551024\";icid-generated-at=\"[::1]\";orig-ioi=\"type 1\";x=y;np"
        );
        for text in ["", "orig-ioi=a", "icid-value=", "icid-value=\"a", ";icid-value=a"] {
            assert!(PChargingVector::parse_value(text).is_err(), "{text}");
        }
    }

    #[test]
    fn charging_addresses() {
        let p = PChargingFunctionAddresses::parse_value("ccf=192.0.8.1; ccf=\"aaa://b\";ecf=[::1]").unwrap();
        assert_eq!(p.ccf().collect::<Vec<_>>(), ["192.0.8.1", "aaa://b"]);
        assert_eq!(p.ecf().collect::<Vec<_>>(), ["[::1]"]);
        assert!(PChargingFunctionAddresses::parse_value("").is_err());
    }
}
