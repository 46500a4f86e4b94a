//! Location-Info (TS 29.228 6.1.4): which S-CSCF serves a public identity?

use super::uar::capabilities;
use super::{Decision, View, matching_set};
use crate::error::Refusal;
use crate::subscriber::Registration;
use ims_diameter::cx::{Lia, Lir, ResultCode, ServerCapabilities};

pub fn decide(view: View<'_>, request: &Lir) -> Result<Decision<Lia>, Refusal> {
    let set = matching_set(view, None, &request.impu)?;
    let name = view.state.assigned.as_ref().map(|scscf| scscf.name.clone());
    let registration = view.state.registration(set);
    let served = registration != Registration::NotRegistered && name.is_some();
    if !served && !view.subscription.has_unregistered_services() {
        return Err(Refusal::NotRegistered { impu: request.impu.clone() });
    }
    let result = if served { ResultCode::SUCCESS } else { ResultCode::UNREGISTERED_SERVICE };
    Ok(Decision::unchanged(match name {
        // Another choice is asked for (TS 29.228 6.1.4.1, User-Authorization-Type).
        _ if request.capabilities => answer(result, None, Some(capabilities(view))),
        Some(name) => answer(result, Some(name), None),
        None => answer(result, None, Some(capabilities(view))),
    }))
}

fn answer(result: ResultCode, server_name: Option<String>, capabilities: Option<ServerCapabilities>) -> Lia {
    Lia { result, server_name, capabilities, wildcarded: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cx::fixture::{Fixture, S1, impu, number, scscf};
    use serde_json::json;

    fn ask(f: &Fixture, text: &str, capabilities: bool) -> Result<Lia, Refusal> {
        let decision = decide(f.view(), &Lir { impu: impu(text), originating: false, capabilities })?;
        assert!(decision.change.is_none());
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

    #[test]
    fn services_for_the_unregistered_user_give_a_name_or_capabilities() {
        let mut f = Fixture::with(json!({ "msisdn": "4915112345678", "criteria": [
            { "priority": 0, "server": "sip:voicemail.ims.example", "profile_part": "unregistered" } ] }));
        let first = ask(&f, number().as_str(), false).unwrap();
        assert_eq!(first.result, ResultCode::UNREGISTERED_SERVICE);
        assert_eq!(first.capabilities, Some(ServerCapabilities::default()));
        f.state.assigned = Some(scscf(S1));
        f.state.set_mut(0).unregistered = true;
        assert_eq!(ask(&f, number().as_str(), false).unwrap(), answer(ResultCode::SUCCESS, Some(S1.into()), None));
    }
}
