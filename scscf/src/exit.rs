//! Where a request of a user goes that leaves the originating side (TS 24.229 5.4.3.2).

use crate::me::Side;
use crate::session::Step;
use crate::{Refusal, Scscf};
use ims_core::Ctx;
use ims_core::uri::{Scheme, Uri};
use ims_sip::endpoint::ServerTx;
use ims_sip::{Message, Name, proxy};

/// The next hop of a request that leaves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    /// To the I-CSCF, which finds whoever serves the user; with another Request-URI, if there is one.
    Home { uri: Option<String> },
    /// Where Route or Request-URI say, by RFC 3263.
    Away,
}

impl Scscf {
    pub(crate) fn leave(&mut self, tx: ServerTx, ctx: &mut Ctx<'_>) -> Result<(), Refusal> {
        let Some(passage) = self.relay.get_mut(tx) else { return Ok(()) };
        if let Some(stage) = &mut passage.with.stage {
            stage.step = Step::Left;
        }
        let mut request = passage.request.clone();
        let target = self.next_target(&request)?;
        self.record_route(&mut request, Side::Originating);
        let to = match target {
            Target::Home { uri } => {
                if let Some(uri) = uri {
                    request.set_uri(&uri);
                }
                self.config.sessions.icscf.clone().unwrap_or_else(|| format!("sip:{}", self.config.domain))
            }
            Target::Away => proxy::prepare_next_hop(&mut request),
        };
        self.send_branch(tx, request, to, ctx);
        Ok(())
    }

    /// Users of ours by their domain or their number, all others where they are.
    fn next_target(&self, request: &Message) -> Result<Target, Refusal> {
        if request.has(Name::Route) {
            return Ok(Target::Away);
        }
        let uri = Uri::parse(request.uri()).map_err(|e| Refusal::Malformed(format!("Request-URI: {e}")))?;
        let host = uri.host();
        match uri.scheme() {
            Scheme::Sip | Scheme::Sips if host.eq_ignore_ascii_case(&self.config.domain) => {
                Ok(Target::Home { uri: None })
            }
            Scheme::Sip | Scheme::Sips if self.config.aliases.iter().any(|a| a.eq_ignore_ascii_case(host)) => {
                Ok(Target::Home { uri: Some(with_host(&uri, &self.config.domain)) })
            }
            Scheme::Sip | Scheme::Sips => Ok(Target::Away),
            Scheme::Tel => Ok(Target::Home { uri: None }),
            Scheme::Urn | Scheme::Other(_) => Err(Refusal::NoRoute(request.uri().to_owned())),
        }
    }
}

/// The same user, with all parameters, at another domain.
fn with_host(uri: &Uri<'_>, domain: &str) -> String {
    let text = uri.as_str();
    let host_at = text.find('@').map_or_else(|| text.find(':').map_or(0, |at| at + 1), |at| at + 1);
    let (head, rest) = text.split_at(host_at);
    let port =
        uri.port().map_or(0, |_| rest[uri.host().len()..].find([';', '?']).unwrap_or(rest.len() - uri.host().len()));
    format!("{head}{domain}{}", &rest[uri.host().len() + port..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_of_the_domain_becomes_the_domain() {
        for (from, to) in [
            ("sip:a@x.example", "sip:a@ims"),
            ("sip:a;p=1@x.example:5060;user=phone?Subject=x", "sip:a;p=1@ims;user=phone?Subject=x"),
            ("sip:x.example:5060", "sip:ims"),
            ("sips:a:b@[::1]:5061;lr", "sips:a:b@ims;lr"),
        ] {
            assert_eq!(with_host(&Uri::parse(from).unwrap(), "ims"), to);
        }
    }
}
