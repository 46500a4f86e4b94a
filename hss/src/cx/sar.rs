//! Server-Assignment (TS 29.228 6.1.2): the S-CSCF says what became of a registration, and gets the user's profile.

use super::{Decision, Termination, View, matching_set};
use crate::error::Refusal;
use crate::profile::user_data;
use crate::subscriber::{Scscf, State};
use ims_core::Impi;
use ims_diameter::DiameterError;
use ims_diameter::cx::{ReasonCode, ResultCode, Saa, Sar, ServerAssignmentType};
use ims_diameter::dict;
use std::collections::BTreeSet;

pub fn decide(view: View<'_>, request: &Sar, asking: &Scscf) -> Result<Decision<Saa>, Refusal> {
    use ServerAssignmentType as Kind;
    match request.kind {
        // Nobody registers with a service.
        Kind::Registration | Kind::ReRegistration if view.subscription.service.is_some() => {
            Err(Refusal::AssignmentType { kind: request.kind })
        }
        Kind::Registration | Kind::ReRegistration => register(view, request, asking),
        Kind::UnregisteredUser => serve_unregistered(view, request, asking),
        Kind::NoAssignment => download(view, request, asking),
        Kind::TimeoutDeregistration
        | Kind::UserDeregistration
        | Kind::AdministrativeDeregistration
        | Kind::DeregistrationTooMuchData => deregister(view, request, asking, false),
        Kind::TimeoutDeregistrationStoreServerName | Kind::UserDeregistrationStoreServerName => {
            deregister(view, request, asking, true)
        }
        Kind::AuthenticationFailure | Kind::AuthenticationTimeout => forget_challenge(view, request, asking),
        // Of SWx, not of Cx (TS 29.273).
        Kind::AaaUserDataRequest | Kind::PgwUpdate | Kind::Restoration => {
            Err(Refusal::AssignmentType { kind: request.kind })
        }
    }
}

fn register(view: View<'_>, request: &Sar, asking: &Scscf) -> Result<Decision<Saa>, Refusal> {
    let (impi, set) = one_identity(view, request)?;
    let challenged = view.state.pending.get(impi);
    if challenged.is_none_or(|scscf| scscf.name != asking.name) {
        check_free(view, asking)?;
    }
    if challenged.is_none() && is_served(view, impi, set, asking) {
        return Ok(Decision::unchanged(profile(view, request, impi, set)));
    }
    let mut state = view.state.clone();
    let terminate = take_over(&mut state, asking);
    state.authenticated(impi);
    let set_state = state.set_mut(set);
    set_state.registered.insert(view.subscription.own(impi));
    set_state.unregistered = false;
    Ok(with_profile(view, request, impi, set, state, terminate))
}

/// The registration is as it is to be, and so is the profile that the S-CSCF was given.
fn is_served(view: View<'_>, impi: &Impi, set: usize, asking: &Scscf) -> bool {
    let State { assigned, sets, downloaded, replaceable, .. } = view.state;
    let is_registered = sets.get(set).is_some_and(|set| set.registered.contains(impi) && !set.unregistered);
    is_registered && !replaceable && assigned.as_ref() == Some(asking) && *downloaded == view.subscription.revision
}

/// The registrations at an S-CSCF that is replaced end there (TS 29.228 6.1.3.1, NEW_SERVER_ASSIGNED).
fn take_over(state: &mut State, asking: &Scscf) -> Option<Termination> {
    state.replaceable = false;
    let replaced = state.assigned.replace(asking.clone()).filter(|old| old.name != asking.name)?;
    let impis: Vec<Impi> = state.registered_impis().into_iter().cloned().collect();
    state.sets.clear();
    let info = "another S-CSCF serves the user now";
    let reason = ReasonCode::NewServerAssigned;
    (!impis.is_empty()).then_some(Termination { scscf: replaced, impis, reason, info })
}

fn serve_unregistered(view: View<'_>, request: &Sar, asking: &Scscf) -> Result<Decision<Saa>, Refusal> {
    let (impi, set) = one_identity(view, request)?;
    check_free(view, asking)?;
    let mut state = view.state.clone();
    let terminate = take_over(&mut state, asking);
    let set_state = state.set_mut(set);
    set_state.unregistered = set_state.registered.is_empty();
    Ok(with_profile(view, request, impi, set, state, terminate))
}

fn download(view: View<'_>, request: &Sar, asking: &Scscf) -> Result<Decision<Saa>, Refusal> {
    let (impi, set) = one_identity(view, request)?;
    if !view.state.is_assigned_to(&asking.name) {
        return Err(Refusal::NotAssigned { asking: asking.name.clone() });
    }
    Ok(with_profile(view, request, impi, set, view.state.clone(), None))
}

fn deregister(view: View<'_>, request: &Sar, asking: &Scscf, keep: bool) -> Result<Decision<Saa>, Refusal> {
    let sets = named_sets(view, request)?;
    if view.state.assigned.is_some() && !view.state.is_assigned_to(&asking.name) {
        return Err(Refusal::NotAssigned { asking: asking.name.clone() });
    }
    let mut state = view.state.clone();
    let keep_name = keep && view.config.keep_server_name;
    for set in sets {
        let set_state = state.set_mut(set);
        match &request.impi {
            Some(impi) => drop(set_state.registered.remove(impi)),
            None => set_state.registered.clear(),
        }
        set_state.unregistered = keep_name && set_state.registered.is_empty();
    }
    forget(&mut state, request, asking);
    state.release_if_idle();
    let result = if keep && !keep_name { ResultCode::SUCCESS_SERVER_NAME_NOT_STORED } else { ResultCode::SUCCESS };
    Ok(Decision::with_state(bare(result, request), view.state, state, None))
}

fn forget_challenge(view: View<'_>, request: &Sar, asking: &Scscf) -> Result<Decision<Saa>, Refusal> {
    named_sets(view, request)?;
    let mut state = view.state.clone();
    forget(&mut state, request, asking);
    Ok(Decision::with_state(bare(ResultCode::SUCCESS, request), view.state, state, None))
}

fn forget(state: &mut State, request: &Sar, asking: &Scscf) {
    let concerns = |impi: &Impi| request.impi.as_ref().is_none_or(|named| named == impi);
    state.pending.retain(|impi, scscf| !(concerns(impi) && scscf.name == asking.name));
}

/// One S-CSCF at a time serves a subscription.
fn check_free(view: View<'_>, asking: &Scscf) -> Result<(), Refusal> {
    match &view.state.assigned {
        Some(assigned) if assigned.name != asking.name && !view.state.replaceable => {
            Err(Refusal::OtherServerAssigned { assigned: assigned.name.clone(), asking: asking.name.clone() })
        }
        _ => Ok(()),
    }
}

/// All but de-registrations are about exactly one public identity. Without a private one, any that shares it will do.
fn one_identity<'a>(view: View<'a>, request: &'a Sar) -> Result<(&'a Impi, usize), Refusal> {
    let impu = match request.impus.as_slice() {
        [impu] => impu,
        [] => return Err(Refusal::Malformed(DiameterError::missing(&dict::PUBLIC_IDENTITY))),
        more => return Err(Refusal::TooManyIdentities { count: more.len() }),
    };
    let set = matching_set(view, request.impi.as_ref(), impu)?;
    let any = view.state.sets.get(set).and_then(|s| s.registered.first());
    let any = any.or(view.subscription.private_identities.first().map(|p| &p.impi));
    let any = any.or(view.subscription.service.as_ref().map(|service| &service.impi));
    match request.impi.as_ref().or(any) {
        Some(impi) => Ok((impi, set)),
        None => Err(Refusal::Corrupt("a subscription without a private identity".into())),
    }
}

/// The sets named by any number of public identities; all sets where only the private identity is given.
fn named_sets(view: View<'_>, request: &Sar) -> Result<BTreeSet<usize>, Refusal> {
    if request.impus.is_empty() {
        let known = request.impi.as_ref().filter(|impi| !view.subscription.has_private(impi));
        return match known {
            Some(impi) => Err(Refusal::UnknownPrivateIdentity { impi: impi.clone() }),
            None => Ok((0..view.subscription.sets.len()).collect()),
        };
    }
    request.impus.iter().map(|impu| matching_set(view, request.impi.as_ref(), impu)).collect()
}

/// The new state, in which the S-CSCF has the profile, and the profile.
fn with_profile(
    view: View<'_>,
    request: &Sar,
    impi: &Impi,
    set: usize,
    mut state: State,
    terminate: Option<Termination>,
) -> Decision<Saa> {
    state.downloaded = view.subscription.profile_revision(view.config);
    Decision::with_state(profile(view, request, impi, set), view.state, state, terminate)
}

/// The profile, unless the S-CSCF says that it has it, and has it as it is now.
fn profile(view: View<'_>, request: &Sar, impi: &Impi, set: usize) -> Saa {
    let subscription = view.subscription;
    let has_it = request.data_already_available && view.state.downloaded == subscription.profile_revision(view.config);
    let others = subscription.private_identities.iter().map(|p| &p.impi).filter(|other| *other != impi);
    Saa {
        result: ResultCode::SUCCESS,
        impi: Some(impi.clone()),
        user_data: (!has_it).then(|| user_data(subscription, view.config, impi, set, request.impus.first())),
        charging: view.config.charging.to_cx(),
        associated: others.cloned().collect(),
    }
}

fn bare(result: ResultCode, request: &Sar) -> Saa {
    Saa { result, impi: request.impi.clone(), user_data: None, charging: None, associated: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cx::fixture::{Fixture, S1, S2, impu, number, scscf, temporary};
    use crate::subscriber::Registration;
    use ServerAssignmentType as Kind;
    use ims_core::Impu;
    use serde_json::json;

    fn sar(f: &Fixture, kind: Kind, impus: &[Impu], server: &str) -> Sar {
        Sar {
            impi: Some(f.impi()),
            impus: impus.to_vec(),
            server_name: server.into(),
            kind,
            data_already_available: false,
            wildcarded: None,
        }
    }

    fn ask(f: &mut Fixture, request: &Sar) -> Result<Saa, Refusal> {
        let decision = decide(f.view(), request, &scscf(&request.server_name))?;
        Ok(f.apply(decision))
    }

    fn say(f: &mut Fixture, kind: Kind, impus: &[Impu], server: &str) -> Result<Saa, Refusal> {
        let request = sar(f, kind, impus, server);
        ask(f, &request)
    }

    fn registered() -> Fixture {
        let mut f = Fixture::new();
        f.state.pending.insert(f.impi(), scscf(S1));
        say(&mut f, Kind::Registration, &[temporary()], S1).unwrap();
        f
    }

    #[test]
    fn registration_registers_the_whole_set_and_gives_the_profile() {
        let mut f = Fixture::new();
        f.config.charging.primary_ccf = Some("aaa://ccf.ims.example".into());
        f.state.pending.insert(f.impi(), scscf(S1));
        let answer = say(&mut f, Kind::Registration, &[temporary()], S1).unwrap();
        assert_eq!(answer.result, ResultCode::SUCCESS);
        assert_eq!(answer.charging.unwrap().primary_ccf.as_deref(), Some("aaa://ccf.ims.example"));
        assert_eq!(f.state.registration(0), Registration::Registered);
        assert!(f.state.is_assigned_to(S1) && f.state.pending.is_empty());
        let profile = xml_ifc::parse(&answer.user_data.unwrap()).unwrap();
        assert_eq!(profile.private_id, f.impi().as_str());
        let identities = &profile.service_profiles[0].public_identities;
        let listed: Vec<_> = identities.iter().map(|p| (p.identity.as_str(), p.barred)).collect();
        let tel = ("tel:+4915112345678", false);
        assert_eq!(listed, [(number().as_str(), false), tel, (temporary().as_str(), true)]);
    }

    #[test]
    fn the_profile_is_left_out_only_for_one_who_has_it_as_it_is() {
        let mut f = registered();
        let again = Sar { data_already_available: true, ..sar(&f, Kind::ReRegistration, &[temporary()], S1) };
        let decision = decide(f.view(), &again, &scscf(S1)).unwrap();
        assert!(decision.answer.user_data.is_none() && decision.change.is_none(), "nothing to store");
        f.subscription.revision += 1;
        assert!(ask(&mut f, &again).unwrap().user_data.is_some());
        assert!(ask(&mut f, &again).unwrap().user_data.is_none());
    }

    #[test]
    fn a_second_server_is_refused_unless_it_authenticated_the_user() {
        let mut f = registered();
        for kind in [Kind::Registration, Kind::ReRegistration, Kind::UnregisteredUser] {
            let refusal = say(&mut f, kind, &[temporary()], S2).unwrap_err();
            assert_eq!(refusal.result(), ResultCode::IDENTITY_ALREADY_REGISTERED, "{kind:?}");
        }
        f.state.pending.insert(f.impi(), scscf(S2));
        let request = sar(&f, Kind::Registration, &[temporary()], S2);
        let decision = decide(f.view(), &request, &scscf(S2)).unwrap();
        let change = decision.change.unwrap();
        let terminate = change.terminate.unwrap();
        assert_eq!((terminate.scscf.name.as_str(), terminate.impis), (S1, vec![f.impi()]));
        assert_eq!(terminate.reason, ReasonCode::NewServerAssigned);
        assert!(change.state.is_assigned_to(S2));
        assert_eq!(change.state.registration(0), Registration::Registered);
    }

    #[test]
    fn each_deregistration_ends_the_registration_and_the_assignment() {
        for kind in [
            Kind::TimeoutDeregistration,
            Kind::UserDeregistration,
            Kind::AdministrativeDeregistration,
            Kind::DeregistrationTooMuchData,
        ] {
            for impus in [vec![], vec![number()], vec![number(), temporary()]] {
                let mut f = registered();
                let answer = say(&mut f, kind, &impus, S1).unwrap();
                assert_eq!((answer.result, answer.user_data), (ResultCode::SUCCESS, None));
                assert_eq!(f.state.registration(0), Registration::NotRegistered);
                assert_eq!(f.state.assigned, None);
                assert_eq!(say(&mut f, kind, &impus, S1).unwrap().result, ResultCode::SUCCESS, "again");
            }
            let mut f = registered();
            assert_eq!(say(&mut f, kind, &[], S2).unwrap_err().name(), "not-assigned");
        }
    }

    #[test]
    fn the_server_name_is_kept_on_request_or_the_answer_says_that_it_is_not() {
        for kind in [Kind::TimeoutDeregistrationStoreServerName, Kind::UserDeregistrationStoreServerName] {
            let mut f = registered();
            assert_eq!(say(&mut f, kind, &[number()], S1).unwrap().result, ResultCode::SUCCESS);
            assert_eq!(f.state.registration(0), Registration::Unregistered);
            assert!(f.state.is_assigned_to(S1));
            let mut f = registered();
            f.config.keep_server_name = false;
            let answer = say(&mut f, kind, &[number()], S1).unwrap();
            assert_eq!(answer.result, ResultCode::SUCCESS_SERVER_NAME_NOT_STORED);
            assert_eq!(f.state.assigned, None);
        }
    }

    #[test]
    fn failed_and_timed_out_authentication_clears_the_pending_one_alone() {
        for kind in [Kind::AuthenticationFailure, Kind::AuthenticationTimeout] {
            let mut f = registered();
            let before = f.state.clone();
            f.state.pending.insert(f.impi(), scscf(S2));
            say(&mut f, kind, &[temporary()], S1).unwrap();
            assert_eq!(f.state.pending.len(), 1, "another server's challenge goes on");
            assert_eq!(say(&mut f, kind, &[temporary()], S2).unwrap().result, ResultCode::SUCCESS);
            assert_eq!(f.state, before);
        }
    }

    #[test]
    fn an_unregistered_user_is_served_and_may_then_register() {
        let mut f = Fixture::new();
        let request = Sar { impi: None, ..sar(&f, Kind::UnregisteredUser, &[number()], S1) };
        assert!(ask(&mut f, &request).unwrap().user_data.is_some());
        assert_eq!(f.state.registration(0), Registration::Unregistered);
        say(&mut f, Kind::Registration, &[temporary()], S1).unwrap();
        assert_eq!(f.state.registration(0), Registration::Registered);
        ask(&mut f, &request).unwrap();
        assert_eq!(f.state.registration(0), Registration::Registered, "a call does not end a registration");
    }

    #[test]
    fn no_assignment_gives_the_profile_to_the_serving_server_alone() {
        let mut f = registered();
        let before = f.state.clone();
        assert!(say(&mut f, Kind::NoAssignment, &[number()], S1).unwrap().user_data.is_some());
        assert_eq!(f.state, before);
        let refusal = say(&mut f, Kind::NoAssignment, &[number()], S2).unwrap_err();
        assert_eq!(refusal.result(), ResultCode::UNABLE_TO_COMPLY);
    }

    #[test]
    fn types_of_swx_and_wrong_numbers_of_identities_are_refused() {
        let mut f = registered();
        for kind in [Kind::AaaUserDataRequest, Kind::PgwUpdate, Kind::Restoration] {
            let refusal = say(&mut f, kind, &[number()], S1).unwrap_err();
            assert_eq!(refusal.result(), ResultCode::IN_ASSIGNMENT_TYPE);
        }
        let two = say(&mut f, Kind::Registration, &[number(), temporary()], S1).unwrap_err();
        assert_eq!(two.result(), ResultCode::Base(5009));
        assert_eq!(say(&mut f, Kind::Registration, &[], S1).unwrap_err().result(), ResultCode::Base(5005));
        let foreign = say(&mut f, Kind::UserDeregistration, &[impu("sip:x@ims.example")], S1).unwrap_err();
        assert_eq!(foreign.result(), ResultCode::IDENTITIES_DONT_MATCH);
    }

    #[test]
    fn private_identities_that_share_a_set_register_it_each_for_itself() {
        let key = json!({ "impi": "tablet@ims.example", "k": "11".repeat(16), "opc": "22".repeat(16) });
        let mut f = Fixture::with(json!({ "msisdn": "4915112345678", "private_identities": [key] }));
        let tablet = Impi::parse("tablet@ims.example").unwrap();
        let answer = say(&mut f, Kind::Registration, &[temporary()], S1).unwrap();
        assert_eq!(answer.associated, std::slice::from_ref(&tablet));
        let second = Sar { impi: Some(tablet.clone()), ..sar(&f, Kind::Registration, &[number()], S1) };
        assert_eq!(ask(&mut f, &second).unwrap().impi, Some(tablet));
        say(&mut f, Kind::UserDeregistration, &[number()], S1).unwrap();
        assert_eq!(f.state.registration(0), Registration::Registered, "the other one still is");
        assert!(f.state.is_assigned_to(S1));
        ask(&mut f, &Sar { kind: Kind::UserDeregistration, ..second }).unwrap();
        assert_eq!((f.state.registration(0), &f.state.assigned), (Registration::NotRegistered, &None));
    }

    /// TS 29.228 6.1.2: UNREGISTERED_USER and NO_ASSIGNMENT for a wildcarded service.
    #[test]
    fn a_service_is_served_under_its_wildcard_and_never_registered() {
        let wildcard = "sip:chat-!.*!@ims.example";
        let mut f = Fixture::of_service(json!({ "identity": wildcard,
            "criteria": [{ "priority": 0, "server": "sip:as.ims.example" }] }));
        let room = impu("sip:chat-1@ims.example");
        let request = Sar { impi: None, ..sar(&f, Kind::UnregisteredUser, std::slice::from_ref(&room), S1) };
        let saa = ask(&mut f, &request).unwrap();
        let profile = String::from_utf8(saa.user_data.unwrap()).unwrap();
        assert!(profile.contains("<WildcardedPSI>sip:chat-!.*!@ims.example</WildcardedPSI>"), "{profile}");
        assert!(profile.contains("<Identity>sip:chat-1@ims.example</Identity>"), "{profile}");
        assert_eq!((f.state.registration(0), saa.impi), (Registration::Unregistered, Some(f.impi())));
        assert!(say(&mut f, Kind::NoAssignment, std::slice::from_ref(&room), S1).is_ok());
        let refusal = say(&mut f, Kind::Registration, std::slice::from_ref(&room), S1).unwrap_err();
        assert_eq!(refusal.name(), "assignment-type");
        say(&mut f, Kind::TimeoutDeregistration, &[room], S1).unwrap();
        assert_eq!((f.state.registration(0), f.state.assigned.is_none()), (Registration::NotRegistered, true));
    }

    #[test]
    fn an_s_cscf_that_is_said_to_be_dead_is_replaced_once() {
        for kind in [Kind::UnregisteredUser, Kind::Registration] {
            let mut f = registered();
            f.state.replaceable = true;
            let decision = decide(f.view(), &sar(&f, kind, &[number()], S2), &scscf(S2)).unwrap();
            let change = decision.change.unwrap();
            assert_eq!(change.terminate.unwrap().scscf.name, S1, "it is told when it is back");
            assert!(change.state.is_assigned_to(S2) && !change.state.replaceable);
            let mut f = registered();
            f.state.replaceable = true;
            say(&mut f, kind, &[number()], S1).unwrap();
            assert!(!f.state.replaceable, "it lives after all: {kind:?}");
        }
    }
}
