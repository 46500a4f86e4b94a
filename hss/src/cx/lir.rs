//! Location-Info (TS 29.228 6.1.4): which S-CSCF serves a public identity?

use super::uar::capabilities;
use super::{Decision, View, matching_set};
use crate::error::Refusal;
use crate::subscriber::{Registration, State};
use ims_diameter::cx::{Lia, Lir, ResultCode, ServerCapabilities};

pub fn decide(view: View<'_>, request: &Lir) -> Result<Decision<Lia>, Refusal> {
    let set = matching_set(view, None, &request.impu)?;
    let service = view.subscription.service.as_deref();
    if service.is_some_and(|service| !service.is_active) {
        return Err(Refusal::InactiveService { impu: request.impu.clone() });
    }
    let wildcarded = service.filter(|service| service.is_wildcarded()).map(|service| service.identity.clone());
    // Who originates on behalf of a service needs an S-CSCF all the same.
    if let Some(server) = service.and_then(|service| service.server.clone()).filter(|_| !request.originating) {
        let is_direct = true;
        return Ok(Decision::unchanged(Lia {
            wildcarded,
            is_direct,
            ..answer(ResultCode::SUCCESS, Some(server), None)
        }));
    }
    let name = view.state.assigned.as_ref().map(|scscf| scscf.name.clone());
    let is_served = view.state.registration(set) != Registration::NotRegistered && name.is_some();
    // An application server may originate for who is not registered.
    if !is_served && !view.subscription.has_unregistered_services(view.config) && !request.originating {
        return Err(Refusal::NotRegistered { impu: request.impu.clone() });
    }
    let lia = match name {
        // Another choice is asked for (TS 29.228 6.1.4.1, User-Authorization-Type).
        _ if request.capabilities => answer(ResultCode::SUCCESS, None, Some(capabilities(view))),
        // One S-CSCF serves all of a subscription, registered or not.
        Some(name) => answer(ResultCode::SUCCESS, Some(name), None),
        None => answer(ResultCode::UNREGISTERED_SERVICE, None, Some(capabilities(view))),
    };
    Ok(if_another_may_take_over(view, request, Lia { wildcarded, ..lia }))
}

/// An I-CSCF that asks for another S-CSCF has found the assigned one dead: who is chosen may take its place.
fn if_another_may_take_over(view: View<'_>, request: &Lir, lia: Lia) -> Decision<Lia> {
    if !request.capabilities || view.state.assigned.is_none() {
        return Decision::unchanged(lia);
    }
    let state = State { replaceable: true, ..view.state.clone() };
    Decision::with_state(lia, view.state, state, None)
}

fn answer(result: ResultCode, server_name: Option<String>, capabilities: Option<ServerCapabilities>) -> Lia {
    Lia { server_name, capabilities, ..Lia::bare(result) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cx::fixture::{Fixture, S1, impu, number, scscf};
    use serde_json::json;

    fn ask(f: &Fixture, text: &str, capabilities: bool) -> Result<Lia, Refusal> {
        let decision = decide(f.view(), &Lir { impu: impu(text), originating: false, capabilities })?;
        let replaceable = decision.change.as_ref().is_some_and(|change| change.state.replaceable);
        assert_eq!(replaceable, capabilities && f.state.assigned.is_some());
        Ok(decision.answer)
    }

    #[test]
    fn a_registered_identity_is_found_by_each_identity_of_its_set() {
        let mut f = Fixture::new();
        f.state.assigned = Some(scscf(S1));
        f.register(0);
        for text in
            ["tel:+4915112345678", "sip:+4915112345678@ims.example;user=phone", "sip:001010000000001@ims.example"]
        {
            assert_eq!(ask(&f, text, false).unwrap(), answer(ResultCode::SUCCESS, Some(S1.into()), None));
        }
        let other_choice = ask(&f, number().as_str(), true).unwrap();
        assert_eq!((other_choice.server_name, other_choice.capabilities.is_some()), (None, true));
    }

    #[test]
    fn unknown_and_not_registered_without_services_are_refused() {
        let f = Fixture::new();
        assert_eq!(ask(&f, "sip:nobody@ims.example", false).unwrap_err().result(), ResultCode::USER_UNKNOWN);
        let refusal = ask(&f, number().as_str(), false).unwrap_err();
        assert_eq!(refusal.result(), ResultCode::IDENTITY_NOT_REGISTERED);
    }

    /// TS 29.228 6.1.4: services of unregistered users.
    #[test]
    fn services_for_the_unregistered_user_give_a_name_or_capabilities() {
        let mut f = Fixture::with(json!({ "msisdn": "4915112345678", "criteria": [
            { "priority": 0, "server": "sip:voicemail.ims.example", "profile_part": "unregistered" } ] }));
        let first = ask(&f, number().as_str(), false).unwrap();
        assert_eq!(first.result, ResultCode::UNREGISTERED_SERVICE);
        assert_eq!(first.capabilities, Some(ServerCapabilities::default()));
        f.state.assigned = Some(scscf(S1));
        let named = answer(ResultCode::SUCCESS, Some(S1.into()), None);
        assert_eq!(ask(&f, number().as_str(), false).unwrap(), named, "another identity of the subscription is served");
        f.state.set_mut(0).unregistered = true;
        assert_eq!(ask(&f, number().as_str(), false).unwrap(), answer(ResultCode::SUCCESS, Some(S1.into()), None));
    }

    /// TS 29.228 6.1.4: Originating-Request.
    #[test]
    fn an_application_server_may_originate_for_who_is_not_registered() {
        let f = Fixture::new();
        let lir = |impu| Lir { impu, originating: true, capabilities: false };
        let lia = decide(f.view(), &lir(number())).unwrap().answer;
        assert_eq!((lia.result, lia.capabilities.is_some()), (ResultCode::UNREGISTERED_SERVICE, true));
        assert!(decide(f.view(), &lir(impu("sip:nobody@ims.example"))).is_err());
    }

    /// TS 29.228 6.1.4: the name of the application server, or of an S-CSCF; PSI activation state.
    #[test]
    fn a_service_is_at_its_application_server_or_at_an_s_cscf() {
        let direct = json!({ "identity": "sip:chat-!.*!@ims.example", "server": "sip:as.ims.example" });
        let mut f = Fixture::of_service(direct);
        let lia = ask(&f, "sip:chat-1@ims.example", false).unwrap();
        assert_eq!((lia.server_name.as_deref(), lia.is_direct), (Some("sip:as.ims.example"), true));
        assert_eq!(lia.wildcarded.as_deref(), Some("sip:chat-!.*!@ims.example"));
        let originating = Lir { impu: impu("sip:chat-1@ims.example"), originating: true, capabilities: false };
        let lia = decide(f.view(), &originating).unwrap().answer;
        assert_eq!((lia.is_direct, lia.capabilities.is_some()), (false, true));
        f.subscription.service.as_mut().unwrap().is_active = false;
        let refusal = ask(&f, "sip:chat-1@ims.example", false).unwrap_err();
        assert_eq!((refusal.result(), refusal.name()), (ResultCode::USER_UNKNOWN, "inactive-service"));
        let criteria = json!([{ "priority": 0, "server": "sip:as.ims.example" }]);
        let f = Fixture::of_service(json!({ "identity": "sip:echo@ims.example", "criteria": criteria }));
        let lia = ask(&f, "sip:echo@ims.example", false).unwrap();
        assert_eq!((lia.result, lia.wildcarded, lia.is_direct), (ResultCode::UNREGISTERED_SERVICE, None, false));
        let f = Fixture::of_service(json!({ "identity": "sip:echo@ims.example" }));
        assert!(ask(&f, "sip:echo@ims.example", false).is_err(), "neither server nor criteria");
    }
}
