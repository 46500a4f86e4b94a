//! User-Authorization (TS 29.228 6.1.1): may this user register here, and at which S-CSCF? Nothing changes by asking.

use super::{Decision, View, matching_set};
use crate::error::Refusal;
use crate::subscriber::Registration;
use ims_core::Impi;
use ims_diameter::cx::{ResultCode, ServerCapabilities, Uaa, Uar, UserAuthorizationType};

pub fn decide(view: View<'_>, request: &Uar) -> Result<Decision<Uaa>, Refusal> {
    let set = matching_set(view, Some(&request.impi), &request.impu)?;
    if request.kind != UserAuthorizationType::DeRegistration && !request.emergency {
        may_register(view, request)?;
        may_roam(view, request)?;
    }
    let registration = view.state.registration(set);
    Ok(Decision::unchanged(match request.kind {
        UserAuthorizationType::RegistrationAndCapabilities => {
            with_capabilities(ResultCode::SUCCESS, capabilities(view))
        }
        UserAuthorizationType::DeRegistration => match serving(view, &request.impi) {
            Some(name) if registration != Registration::NotRegistered => with_name(ResultCode::SUCCESS, name),
            _ => return Err(Refusal::NotRegistered { impu: request.impu.clone() }),
        },
        UserAuthorizationType::Registration => match serving(view, &request.impi) {
            Some(name) => with_name(ResultCode::SUBSEQUENT_REGISTRATION, name),
            None => with_capabilities(ResultCode::FIRST_REGISTRATION, capabilities(view)),
        },
    }))
}

/// The S-CSCF that authenticates this private identity now, or else serves the subscription.
fn serving(view: View<'_>, impi: &Impi) -> Option<String> {
    let pending = view.state.pending.get(impi);
    let any_pending = || view.state.pending.values().next();
    pending.or(view.state.assigned.as_ref()).or_else(any_pending).map(|scscf| scscf.name.clone())
}

/// The subscriber's own, or the configured ones.
pub(super) fn capabilities(view: View<'_>) -> ServerCapabilities {
    view.subscription.capabilities.as_ref().unwrap_or(&view.config.capabilities).to_cx()
}

fn may_register(view: View<'_>, request: &Uar) -> Result<(), Refusal> {
    match view.subscription.may_register(&request.impu) {
        true => Ok(()),
        false => Err(Refusal::AuthorizationRejected { impu: request.impu.clone() }),
    }
}

/// A request that does not say where the user is comes from home.
fn may_roam(view: View<'_>, request: &Uar) -> Result<(), Refusal> {
    let Some(visited) = &request.visited_network else { return Ok(()) };
    let visited = String::from_utf8_lossy(visited);
    let visited = visited.trim().trim_matches('"');
    let allowed = view.subscription.visited_networks.as_deref();
    let (allowed, anywhere) = match allowed {
        Some(own) => (own, false),
        None => (view.config.visited_networks.as_slice(), view.config.visited_networks.is_empty()),
    };
    let home = visited.eq_ignore_ascii_case(&view.config.domain);
    if anywhere || home || allowed.iter().any(|network| network.eq_ignore_ascii_case(visited)) {
        return Ok(());
    }
    Err(Refusal::RoamingNotAllowed { impi: request.impi.clone(), network: visited.chars().take(80).collect() })
}

fn with_name(result: ResultCode, name: String) -> Uaa {
    Uaa { result, server_name: Some(name), capabilities: None }
}

fn with_capabilities(result: ResultCode, capabilities: ServerCapabilities) -> Uaa {
    Uaa { result, server_name: None, capabilities: Some(capabilities) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cx::fixture::{Fixture, S1, S2, impu, number, scscf, temporary};
    use ims_core::Impu;
    use serde_json::json;

    fn uar(f: &Fixture, impu: Impu, kind: UserAuthorizationType) -> Uar {
        Uar { impi: f.impi(), impu, visited_network: None, kind, emergency: false }
    }

    fn ask(f: &Fixture, impu: Impu, kind: UserAuthorizationType) -> Result<Uaa, Refusal> {
        let decision = decide(f.view(), &uar(f, impu, kind))?;
        assert!(decision.change.is_none(), "a UAR changes nothing");
        Ok(decision.answer)
    }

    use UserAuthorizationType::{DeRegistration, Registration as Register, RegistrationAndCapabilities};

    #[test]
    fn first_registration_carries_capabilities_even_when_there_are_none() {
        let f = Fixture::new();
        let answer = ask(&f, temporary(), Register).unwrap();
        assert_eq!(answer, with_capabilities(ResultCode::FIRST_REGISTRATION, ServerCapabilities::default()));
    }

    #[test]
    fn while_authentication_is_pending_and_when_registered_the_name_is_returned() {
        let mut f = Fixture::new();
        f.state.pending.insert(f.impi(), scscf(S1));
        let subsequent = with_name(ResultCode::SUBSEQUENT_REGISTRATION, S1.into());
        assert_eq!(ask(&f, temporary(), Register).unwrap(), subsequent);
        assert!(ask(&f, temporary(), DeRegistration).is_err(), "pending is not registered");
        f.state.pending.clear();
        f.state.assigned = Some(scscf(S1));
        f.register(0);
        assert_eq!(ask(&f, temporary(), Register).unwrap(), subsequent);
        assert_eq!(ask(&f, temporary(), DeRegistration).unwrap(), with_name(ResultCode::SUCCESS, S1.into()));
    }

    #[test]
    fn the_name_assigned_for_one_identity_serves_the_whole_subscription() {
        let mut f = Fixture::with(json!({ "impus": [
            { "impu": "sip:a@ims.example", "irs": 0 }, { "impu": "sip:b@ims.example", "irs": 1 } ] }));
        f.state.assigned = Some(scscf(S2));
        f.register(0);
        let b = || impu("sip:b@ims.example");
        assert_eq!(ask(&f, b(), Register).unwrap(), with_name(ResultCode::SUBSEQUENT_REGISTRATION, S2.into()));
        assert_eq!(ask(&f, b(), DeRegistration), Err(Refusal::NotRegistered { impu: b() }));
    }

    #[test]
    fn for_a_new_choice_capabilities_are_returned_and_no_name() {
        let mut f = Fixture::with(json!({ "capabilities": { "mandatory": [3], "optional": [5] } }));
        f.state.assigned = Some(scscf(S1));
        f.register(0);
        let answer = ask(&f, temporary(), RegistrationAndCapabilities).unwrap();
        assert_eq!((answer.result, answer.server_name), (ResultCode::SUCCESS, None));
        assert_eq!(answer.capabilities.unwrap().mandatory, [3]);
    }

    #[test]
    fn unknown_and_foreign_identities_are_told_apart() {
        let f = Fixture::new();
        let other = impu("sip:other@ims.example");
        assert_eq!(ask(&f, other, Register).unwrap_err().result(), ResultCode::IDENTITIES_DONT_MATCH);
        let mut request = uar(&f, number(), Register);
        request.impi = Impi::parse("nobody@ims.example").unwrap();
        assert_eq!(decide(f.view(), &request).unwrap_err().result(), ResultCode::USER_UNKNOWN);
    }

    #[test]
    fn a_barred_identity_registers_if_another_of_its_set_is_not_barred() {
        let f = Fixture::new();
        assert!(ask(&f, temporary(), Register).is_ok());
        let f = Fixture::with(json!({ "impus": [{ "impu": "sip:a@ims.example", "barred": true }] }));
        let refusal = ask(&f, impu("sip:a@ims.example"), Register).unwrap_err();
        assert_eq!(refusal.result(), ResultCode::Base(5003));
        let f = Fixture::with(json!({ "barred": true }));
        assert_eq!(ask(&f, temporary(), Register).unwrap_err().result(), ResultCode::Base(5003));
        let mut emergency = uar(&f, temporary(), Register);
        emergency.emergency = true;
        assert!(decide(f.view(), &emergency).is_ok());
    }

    #[test]
    fn roaming_is_checked_against_the_subscribers_list_or_the_configured_one() {
        let mut f = Fixture::with(json!({ "visited_networks": ["ims.partner.example"] }));
        let from = |f: &Fixture, network: &str, kind| {
            let request = Uar { visited_network: Some(network.into()), ..uar(f, temporary(), kind) };
            decide(f.view(), &request).map(|d| d.answer.result)
        };
        for network in ["ims.partner.example", "\"IMS.partner.example\"", "ims.example"] {
            assert_eq!(from(&f, network, Register), Ok(ResultCode::FIRST_REGISTRATION), "{network}");
        }
        assert_eq!(from(&f, "else.example", Register).unwrap_err().result(), ResultCode::ROAMING_NOT_ALLOWED);
        assert_eq!(from(&f, "else.example", DeRegistration).unwrap_err().name(), "not-registered");
        f.subscription.visited_networks = None;
        assert!(from(&f, "else.example", Register).is_ok());
        f.config.visited_networks = vec!["ims.partner.example".into()];
        assert_eq!(from(&f, "else.example", Register).unwrap_err().name(), "roaming-not-allowed");
        f.subscription.visited_networks = Some(vec![]);
        assert_eq!(from(&f, "ims.partner.example", Register).unwrap_err().name(), "roaming-not-allowed");
    }
}
