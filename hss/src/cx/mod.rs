//! The Cx commands (TS 29.228 6.1): one file each with one pure `decide`, from what is stored and what is asked to the
//! answer and what changes.

pub mod lir;
pub mod mar;
pub mod sar;
pub mod uar;

use crate::config::Config;
use crate::error::Refusal;
use crate::subscriber::{Scscf, State, Subscription};
use ims_core::{Impi, Impu};
use ims_diameter::Message;
use ims_diameter::cx::{Lia, Maa, ReasonCode, Request, ResultCode, Saa, Uaa};

/// What a decision is made from.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub subscription: &'a Subscription,
    pub state: &'a State,
    pub config: &'a Config,
}

/// The answer, and the state that goes with it: stored before it leaves, or behind it ([`crate::Config::write_behind`]).
#[derive(Clone, Debug)]
pub struct Decision<A> {
    pub answer: A,
    pub change: Option<Box<Change>>,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Change {
    pub state: State,
    /// Registrations at another S-CSCF that this one ends.
    pub terminate: Option<Termination>,
}

/// A Registration-Termination to send.
#[derive(Clone, PartialEq, Debug)]
pub struct Termination {
    pub scscf: Scscf,
    pub impis: Vec<Impi>,
    pub reason: ReasonCode,
    pub info: &'static str,
}

impl<A> Decision<A> {
    fn unchanged(answer: A) -> Self {
        Self { answer, change: None }
    }

    /// With the new state, unless it is what is stored.
    fn with_state(answer: A, old: &State, state: State, terminate: Option<Termination>) -> Self {
        let change = (*old != state).then(|| Box::new(Change { state, terminate }));
        Self { answer, change }
    }

    pub(crate) fn map<B>(self, f: impl FnOnce(A) -> B) -> Decision<B> {
        Decision { answer: f(self.answer), change: self.change }
    }
}

/// The set of a public identity that must go with a private identity of this subscription (steps 1 and 2 of each procedure).
fn matching_set(view: View<'_>, impi: Option<&Impi>, impu: &Impu) -> Result<usize, Refusal> {
    if let Some(impi) = impi
        && !view.subscription.has_private(impi)
    {
        return Err(Refusal::UnknownPrivateIdentity { impi: impi.clone() });
    }
    view.subscription.set_for(impu).ok_or_else(|| match impi {
        Some(impi) => Refusal::IdentitiesDontMatch { impi: impi.clone(), impu: impu.clone() },
        None => Refusal::UnknownPublicIdentity { impu: impu.clone() },
    })
}

/// The identities a request is about.
pub(crate) fn identities(request: &Request) -> (Option<&Impi>, Option<&Impu>) {
    match request {
        Request::Uar(r) => (Some(&r.impi), Some(&r.impu)),
        Request::Mar(r) => (Some(&r.impi), Some(&r.impu)),
        Request::Sar(r) => (r.impi.as_ref(), r.impus.first()),
        Request::Lir(r) => (None, Some(&r.impu)),
        Request::Rtr(_) | Request::Ppr(_) => (None, None),
    }
}

/// The answer that carries nothing but a result.
pub(crate) fn refused(request: &Request, result: ResultCode, message: &Message) -> Option<Message> {
    Some(match request {
        Request::Uar(_) => Uaa { result, server_name: None, capabilities: None }.to_message(message),
        Request::Mar(_) => Maa { result, impi: None, impu: None, items: Vec::new() }.to_message(message),
        Request::Sar(_) => {
            Saa { result, impi: None, user_data: None, charging: None, associated: Vec::new() }.to_message(message)
        }
        Request::Lir(_) => Lia::bare(result).to_message(message),
        Request::Rtr(_) | Request::Ppr(_) => return None,
    })
}

#[cfg(test)]
pub(crate) mod fixture {
    use super::*;
    use crate::provision;
    use crate::seal::KeyRing;
    use ims_core::{Rng, Secret};
    use serde_json::{Value, json};

    pub(crate) const S1: &str = "sip:s1.ims.example:6060";
    pub(crate) const S2: &str = "sip:s2.ims.example:6060";

    /// A subscriber and what has happened to it so far.
    pub(crate) struct Fixture {
        pub(crate) subscription: Subscription,
        pub(crate) state: State,
        pub(crate) config: Config,
        pub(crate) ring: KeyRing,
        pub(crate) rng: Rng,
    }

    impl Fixture {
        /// IMSI 001010000000001 with a number: sip and tel, and the barred temporary identity.
        pub(crate) fn new() -> Self {
            Self::with(json!({ "msisdn": "4915112345678" }))
        }

        pub(crate) fn with(more: Value) -> Self {
            let keys = json!({
                "imsi": "001010000000001",
                "k": "465b5ce8b199b49faa5f0a2ee238a6bc",
                "opc": "cd63cb71954a9f4e48a5994e37a02baf",
            });
            Self::of(keys, more)
        }

        /// The same number without a SIM.
        pub(crate) fn of_softphone(more: Value) -> Self {
            Self::of(json!({ "imsi": "001010000000001" }), more)
        }

        fn of(mut args: Value, more: Value) -> Self {
            for (key, value) in more.as_object().unwrap() {
                args[key] = value.clone();
            }
            let config = Config { domain: "ims.example".into(), ..Config::default() };
            let (ring, mut rng) = (KeyRing::new(&Secret::new([7; 32]), &[]), Rng::from_u64(7));
            let (subscription, state) = provision::create(&args, &config, &ring, &mut rng).unwrap();
            Self { subscription, state, config, ring, rng }
        }

        pub(crate) fn of_service(args: Value) -> Self {
            let (subscription, state) = crate::service::create(&args, &Self::new().config).unwrap();
            Self { subscription, state, ..Self::new() }
        }

        pub(crate) fn view(&self) -> View<'_> {
            View { subscription: &self.subscription, state: &self.state, config: &self.config }
        }

        pub(crate) fn impi(&self) -> Impi {
            let service = self.subscription.service.as_ref().map(|service| service.impi.clone());
            service.unwrap_or_else(|| self.subscription.private_identities[0].impi.clone())
        }

        pub(crate) fn register(&mut self, set: usize) {
            let impi = self.impi();
            self.state.set_mut(set).registered.insert(impi);
        }

        pub(crate) fn apply<A>(&mut self, decision: Decision<A>) -> A {
            if let Some(change) = decision.change {
                self.state = change.state;
            }
            decision.answer
        }
    }

    pub(crate) fn impu(text: &str) -> Impu {
        Impu::parse(text).unwrap()
    }

    pub(crate) fn number() -> Impu {
        impu("sip:+4915112345678@ims.example")
    }

    pub(crate) fn temporary() -> Impu {
        impu("sip:001010000000001@ims.example")
    }

    pub(crate) fn scscf(name: &str) -> Scscf {
        Scscf::new(name.into(), "scscf.ims.example".into(), "ims.example".into())
    }
}
