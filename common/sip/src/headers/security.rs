//! Security-Client, Security-Server, Security-Verify (RFC 3329 2.2, TS 33.203 Annex H).

use super::{Params, TypedHeader, error, list};
use crate::Name;
use crate::message::HeaderError;
use std::fmt;

/// One mechanism of a security agreement. Owned: it is kept for as long as the agreement.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SecMechanism {
    /// `ipsec-3gpp`, in lower case.
    pub mechanism: String,
    pub q: Option<String>,
    /// Always there in `ipsec-3gpp`.
    pub alg: Option<String>,
    pub ealg: Option<String>,
    pub prot: Option<String>,
    pub mode: Option<String>,
    pub spi_c: Option<u32>,
    pub spi_s: Option<u32>,
    pub port_c: Option<u16>,
    pub port_s: Option<u16>,
    pub other: Vec<(String, Option<String>)>,
}

impl SecMechanism {
    fn parse(value: &str) -> Result<Self, &'static str> {
        let at = list::find_outside(value.as_bytes(), b';', false).unwrap_or(value.len());
        let (mechanism, params) = value.split_at(at);
        let mechanism = list::trim_str(mechanism);
        if !list::is_token_text(mechanism) {
            return Err("does not begin with a mechanism name");
        }
        let mut this = Self { mechanism: mechanism.to_ascii_lowercase(), ..Self::default() };
        for (name, value) in Params::checked(params)?.iter() {
            this.take(&name.to_ascii_lowercase(), value)?;
        }
        if this.is_ipsec_3gpp() && this.alg.is_none() {
            return Err("offers ipsec-3gpp without alg");
        }
        Ok(this)
    }

    fn take(&mut self, name: &str, value: Option<&str>) -> Result<(), &'static str> {
        let word = |slot: &mut Option<String>| match value {
            Some(v) if slot.is_none() => {
                *slot = Some(v.to_ascii_lowercase());
                Ok(())
            }
            Some(_) => Err("has a parameter twice"),
            None => Err("has a parameter without value"),
        };
        match name {
            "q" => word(&mut self.q),
            "alg" => word(&mut self.alg),
            "ealg" => word(&mut self.ealg),
            "prot" => word(&mut self.prot),
            "mod" => word(&mut self.mode),
            "spi-c" => number(&mut self.spi_c, value, "has an SPI that is no number of 32 bits"),
            "spi-s" => number(&mut self.spi_s, value, "has an SPI that is no number of 32 bits"),
            "port-c" => number(&mut self.port_c, value, "has a port that is no number of 16 bits"),
            "port-s" => number(&mut self.port_s, value, "has a port that is no number of 16 bits"),
            _ => {
                self.other.push((name.to_owned(), value.map(str::to_owned)));
                Ok(())
            }
        }
    }

    pub fn is_ipsec_3gpp(&self) -> bool {
        self.mechanism == "ipsec-3gpp"
    }

    /// Preference in thousandths; 1000 when `q` is absent, 0 when it cannot be read.
    pub fn preference(&self) -> u16 {
        let Some(q) = &self.q else { return 1000 };
        let (whole, part) = q.split_once('.').unwrap_or((q, ""));
        let part = part.get(..part.len().min(3)).unwrap_or_default();
        match (whole, format!("{part:0<3}").parse::<u16>()) {
            ("0", Ok(part)) => part,
            ("1", Ok(_)) => 1000,
            _ => 0,
        }
    }

    /// Whether both say the same once the defaults are filled in (`ealg` null, `prot` esp, `mod` trans): order of
    /// parameters, case and blanks do not count (field: phones re-sort what they echo).
    pub fn agrees_with(&self, other: &Self) -> bool {
        fn or<'t>(text: &'t Option<String>, default: &'static str) -> &'t str {
            text.as_deref().unwrap_or(default)
        }
        let mut extra = (self.other.clone(), other.other.clone());
        extra.0.sort();
        extra.1.sort();
        self.mechanism == other.mechanism
            && self.alg == other.alg
            && self.preference() == other.preference()
            && or(&self.ealg, "null") == or(&other.ealg, "null")
            && or(&self.prot, "esp") == or(&other.prot, "esp")
            && or(&self.mode, "trans") == or(&other.mode, "trans")
            && (self.spi_c, self.spi_s, self.port_c, self.port_s)
                == (other.spi_c, other.spi_s, other.port_c, other.port_s)
            && extra.0 == extra.1
    }
}

fn number<T: std::str::FromStr>(
    slot: &mut Option<T>,
    value: Option<&str>,
    reason: &'static str,
) -> Result<(), &'static str> {
    let digits = value.filter(|v| v.bytes().all(|b| b.is_ascii_digit()));
    match digits.and_then(|v| v.parse().ok()) {
        Some(_) if slot.is_some() => Err("has a parameter twice"),
        Some(n) => {
            *slot = Some(n);
            Ok(())
        }
        None => Err(reason),
    }
}

/// In quotes when it is no token: it came in quotes then.
fn write_param(f: &mut fmt::Formatter<'_>, name: &str, value: &str) -> fmt::Result {
    if list::is_token_text(value) { write!(f, ";{name}={value}") } else { write!(f, ";{name}=\"{value}\"") }
}

impl fmt::Display for SecMechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.mechanism)?;
        let words =
            [("q", &self.q), ("alg", &self.alg), ("ealg", &self.ealg), ("prot", &self.prot), ("mod", &self.mode)];
        for (name, value) in words {
            if let Some(value) = value {
                write_param(f, name, value)?;
            }
        }
        let numbers = [
            ("spi-c", self.spi_c),
            ("spi-s", self.spi_s),
            ("port-c", self.port_c.map(u32::from)),
            ("port-s", self.port_s.map(u32::from)),
        ];
        for (name, value) in numbers {
            if let Some(value) = value {
                write!(f, ";{name}={value}")?;
            }
        }
        for (name, value) in &self.other {
            match value {
                Some(value) => write_param(f, name, value)?,
                None => write!(f, ";{name}")?,
            }
        }
        Ok(())
    }
}

macro_rules! security_headers {
    ($($header:ident,)*) => {$(
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub struct $header(pub SecMechanism);

        impl<'a> TypedHeader<'a> for $header {
            const NAME: Name = Name::$header;
            const LIST: bool = true;

            fn parse_value(value: &'a str) -> Result<Self, HeaderError> {
                SecMechanism::parse(value).map(Self).map_err(error::<Self>)
            }
        }

        impl fmt::Display for $header {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

security_headers! { SecurityClient, SecurityServer, SecurityVerify, }

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Message;

    const PLAIN: &str =
        "ipsec-3gpp;alg=hmac-sha-1-96;ealg=aes-cbc;prot=esp;mod=trans;spi-c=4294967295;spi-s=1;port-c=5100;port-s=6100";

    #[test]
    fn order_case_blanks_and_quotes_do_not_matter() {
        let odd = "IPSec-3GPP; port-s = 6100 ; SPI-C=4294967295;Mod=trans; prot=ESP;spi-s=1;port-c=\"5100\"; EALG=AES-CBC;alg=hmac-sha-1-96";
        let (a, b) = (SecMechanism::parse(PLAIN).unwrap(), SecMechanism::parse(odd).unwrap());
        assert_eq!(a, b);
        assert_eq!(b.to_string(), PLAIN);
        let short = SecMechanism::parse("ipsec-3gpp;alg=hmac-md5-96;spi-c=1;spi-s=2;port-c=3;port-s=4").unwrap();
        let long = SecMechanism::parse(
            "ipsec-3gpp;ealg=null;mod=trans;prot=esp;alg=hmac-md5-96;spi-c=1;spi-s=2;port-c=3;port-s=4",
        )
        .unwrap();
        assert!(short.agrees_with(&long) && short != long && !short.agrees_with(&a));
    }

    #[test]
    fn several_lines_and_comma_lists_give_all_offers() {
        let text = "REGISTER sip:a SIP/2.0\r\nSecurity-Client: ipsec-3gpp;alg=hmac-md5-96;q=0.5,\r\n ipsec-3gpp;alg=hmac-sha-1-96;q=0.75\r\nSecurity-Client: tls\r\n\r\n";
        let message = Message::parse(text.as_bytes().to_vec().into()).unwrap();
        let all: Vec<SecurityClient> = message.all().unwrap();
        let shown: Vec<_> =
            all.iter().map(|m| (m.0.mechanism.as_str(), m.0.alg.as_deref(), m.0.preference())).collect();
        assert_eq!(
            shown,
            [("ipsec-3gpp", Some("hmac-md5-96"), 500), ("ipsec-3gpp", Some("hmac-sha-1-96"), 750), ("tls", None, 1000)]
        );
    }

    #[test]
    fn broken_mechanisms_are_refused() {
        for text in [
            "",
            "ipsec-3gpp",
            "ipsec-3gpp;alg",
            "ipsec-3gpp;alg=a;alg=b",
            "ipsec-3gpp;alg=a;spi-c=x",
            "ipsec-3gpp;alg=a;spi-c=-1",
            "ipsec-3gpp;alg=a;spi-c=4294967296",
            "ipsec-3gpp;alg=a;port-s=65536",
            "ipsec-3gpp;;alg=a",
            "ipsec 3gpp;alg=a",
        ] {
            assert!(SecMechanism::parse(text).is_err(), "{text}");
        }
    }

    /// Found by the fuzzer: what came in quotes left without them.
    #[test]
    fn a_value_that_is_no_token_is_written_in_quotes() {
        let m = SecMechanism::parse("ipsec-3gpp;alg=\"y z\";prot=\"\"").unwrap();
        assert_eq!(m.to_string(), "ipsec-3gpp;alg=\"y z\";prot=\"\"");
        assert_eq!(SecMechanism::parse(&m.to_string()), Ok(m));
    }

    #[test]
    fn unknown_parameters_are_kept() {
        let m = SecMechanism::parse("ipsec-3gpp;alg=a;x;y=\"b c\"").unwrap();
        assert_eq!(m.to_string(), "ipsec-3gpp;alg=a;x;y=\"b c\"");
    }
}
