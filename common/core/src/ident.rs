//! Identities by TS 23.003: IMSI, MSISDN, IMPI, IMPU, and what is derived from them.
//!
//! `Display` gives the identity for the wire, `Debug` a redacted form for logs: only its last digits.

use crate::uri::Uri;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::sync::Arc;

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IdentError {
    #[error("an IMSI has 6 to 15 digits and nothing else")]
    Imsi,
    #[error("an MSISDN has 5 to 15 digits, with or without a leading +")]
    Msisdn,
    #[error("a PLMN is written MCC/MNC with 3 and 2 or 3 digits, such as 001/01")]
    Plmn,
    #[error("an IMPI has the form user@realm")]
    Impi,
    #[error("an IMPU is a SIP, SIPS or tel URI")]
    Impu,
}

fn digits(text: &str, least: usize, most: usize) -> bool {
    (least..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
}

/// `…0001@host`: enough to tell two subscribers of a lab apart, not enough to name one.
fn redacted(text: &str) -> String {
    let (user, rest) = text.split_at(text.find('@').unwrap_or(text.len()));
    let (scheme, user) = user.split_at(user.find(':').map_or(0, |i| i + 1));
    let tail = user.char_indices().rev().nth(3).map_or(0, |(i, _)| i);
    format!("{scheme}…{}{rest}", &user[tail..])
}

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// A copy shares the text: tables and records that name one subscriber hold it once.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&redacted(&self.0))
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer).map(|text| Self(text.into()))
            }
        }
    };
}

identity!(
    /// International mobile subscriber identity (TS 23.003 2.2).
    Imsi
);
identity!(
    /// Mobile number in international form, digits only (TS 23.003 3.3).
    Msisdn
);
identity!(
    /// IP multimedia private identity, `user@realm` (TS 23.003 13.3).
    Impi
);
identity!(
    /// IP multimedia public identity in canonical form (TS 23.003 13.4): a `sip:` URI without parameters and with its
    /// host in lower case, or a global `tel:` URI without visual separators.
    Impu
);

/// Mobile country and network code.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plmn {
    mcc: String,
    mnc: String,
}

impl Plmn {
    /// From `001/01` or `001/001`.
    pub fn parse(text: &str) -> Result<Self, IdentError> {
        let (mcc, mnc) = text.split_once('/').ok_or(IdentError::Plmn)?;
        if !digits(mcc, 3, 3) || !digits(mnc, 2, 3) {
            return Err(IdentError::Plmn);
        }
        Ok(Self { mcc: mcc.into(), mnc: mnc.into() })
    }

    /// `ims.mncXXX.mccXXX.3gppnetwork.org`, the MNC always with three digits (TS 23.003 13.2).
    pub fn home_domain(&self) -> String {
        format!("ims.mnc{:0>3}.mcc{}.3gppnetwork.org", self.mnc, self.mcc)
    }

    pub fn mcc(&self) -> &str {
        &self.mcc
    }

    pub fn mnc(&self) -> &str {
        &self.mnc
    }
}

impl fmt::Display for Plmn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.mcc, self.mnc)
    }
}

impl Imsi {
    pub fn parse(text: &str) -> Result<Self, IdentError> {
        if digits(text, 6, 15) { Ok(Self(text.into())) } else { Err(IdentError::Imsi) }
    }
}

impl Msisdn {
    pub fn parse(text: &str) -> Result<Self, IdentError> {
        let number = text.strip_prefix('+').unwrap_or(text);
        if digits(number, 5, 15) { Ok(Self(number.into())) } else { Err(IdentError::Msisdn) }
    }
}

impl Impi {
    pub fn parse(text: &str) -> Result<Self, IdentError> {
        let (user, realm) = text.split_once('@').ok_or(IdentError::Impi)?;
        let ok = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'<' | b'>' | b'\\' | b',' | b';');
        if user.is_empty() || realm.is_empty() || realm.contains('@') || !text.bytes().all(ok) || text.len() > 255 {
            return Err(IdentError::Impi);
        }
        Ok(Self(text.into()))
    }

    /// Of a REGISTER without Authorization: the public identity without its scheme (TS 24.229 5.3.1.2, 5.4.1.1). None
    /// for a number.
    pub fn from_impu(impu: &Impu) -> Option<Self> {
        impu.as_str().split_once(':').and_then(|(_, rest)| Self::parse(rest).ok())
    }

    /// The private identity of a UE without ISIM (TS 23.003 13.3).
    pub fn from_imsi(imsi: &Imsi, home_domain: &str) -> Self {
        Self(format!("{imsi}@{home_domain}").into())
    }
}

impl Impu {
    /// Canonical form of a URI that names a user: parameters, headers, port and password are no part of an identity.
    pub fn parse(text: &str) -> Result<Self, IdentError> {
        Uri::parse(text).ok().and_then(|uri| Self::from_uri(&uri)).ok_or(IdentError::Impu)
    }

    pub fn from_uri(uri: &Uri<'_>) -> Option<Self> {
        uri.canonical_identity().filter(|s| s.len() <= 255).map(|s| Self(s.into()))
    }

    /// The temporary public identity of a UE without ISIM (TS 23.003 13.4B).
    pub fn temporary(imsi: &Imsi, home_domain: &str) -> Self {
        Self(format!("sip:{imsi}@{home_domain}").into())
    }

    /// `sip:+NUMBER@domain`, the SIP form of a number (TS 23.003 13.4).
    pub fn sip_number(msisdn: &Msisdn, home_domain: &str) -> Self {
        Self(format!("sip:+{msisdn}@{home_domain}").into())
    }

    /// `tel:+NUMBER`.
    pub fn tel(msisdn: &Msisdn) -> Self {
        Self(format!("tel:+{msisdn}").into())
    }
}

/// What a request to the HSS is about: a public identity of a user or of a service.
pub type PublicId = Impu;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_identity_is_derived_from_a_public_one_without_scheme_port_and_parameters() {
        let derived = |text: &str| Impi::from_impu(&Impu::parse(text).unwrap());
        let expected = Impi::parse("a@ims.example").ok();
        for text in ["sip:a@IMS.example", "sips:a@ims.example", "sip:a@ims.example:5060;user=phone"] {
            assert_eq!(derived(text), expected, "{text}");
        }
        assert_eq!(derived("tel:+15550001"), None);
    }

    #[test]
    fn derived_from_the_imsi_with_a_three_digit_mnc() {
        let imsi = Imsi::parse("001010000000001").unwrap();
        let domain = Plmn::parse("001/01").unwrap().home_domain();
        assert_eq!(domain, "ims.mnc001.mcc001.3gppnetwork.org");
        assert_eq!(Impi::from_imsi(&imsi, &domain).as_str(), "001010000000001@ims.mnc001.mcc001.3gppnetwork.org");
        assert_eq!(Impu::temporary(&imsi, &domain).as_str(), "sip:001010000000001@ims.mnc001.mcc001.3gppnetwork.org");
    }

    #[test]
    fn debug_is_redacted() {
        let impi = Impi::parse("001010000000001@ims.example").unwrap();
        assert_eq!(format!("{impi:?}"), "…0001@ims.example");
        assert_eq!(format!("{:?}", Impu::parse("tel:+491701234567").unwrap()), "tel:…4567");
    }

    #[test]
    fn public_identities_have_one_spelling() {
        let canon = |s| Impu::parse(s).map(|i| i.to_string());
        assert_eq!(canon("sip:Alice@IMS.Example;user=phone").unwrap(), "sip:Alice@ims.example");
        assert_eq!(canon("sip:+49-170@ims.example:5060").unwrap(), "sip:+49-170@ims.example");
        assert_eq!(canon("tel:+49-170(12)34.567;isub=1").unwrap(), "tel:+491701234567");
        assert!(canon("urn:service:sos").is_err());
        assert!(Impi::parse("no-realm").is_err());
        assert!(Imsi::parse("12a456").is_err());
        assert!(Plmn::parse("1/01").is_err());
    }
}
