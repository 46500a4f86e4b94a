//! Provisioning: from the JSON of a command to a subscription, and back without the keys. Private and public identities follow
//! from IMSI and MSISDN (TS 23.003 13) unless they are given.

use crate::config::{Capabilities, Config, unusable};
use crate::credential::{AkaKeys, AlgorithmName, Credential, DigestSecret, PrivateIdentity};
use crate::cx::Termination;
use crate::fields::{Fields, Result};
use crate::profile::differs;
use crate::seal::KeyRing;
use crate::subscriber::{PublicIdentity, State, Subscription};
use ims_aka::Sqn;
use ims_core::command::Problem;
use ims_core::{Impi, Impu, Imsi, Msisdn, Rng, Secret};
use ims_diameter::cx::ReasonCode;
use ims_sip::digest::DigestAlgorithm;
use serde_json::{Value, json};
use xml_ifc::{Criterion, Ifc};
use zeroize::Zeroizing;

const MOST_PRIVATE: usize = 20;
const MOST_PUBLIC: usize = 100;
const MOST_CRITERIA: usize = 100;
const MOST_NETWORKS: usize = 1000;
const DEFAULT_AMF: [u8; 2] = [0x80, 0];

/// What belongs to the keys of a SIM, in the order in which a missing one is asked for.
const KEY_FIELDS: [&str; 7] = ["k", "opc", "op", "topc", "top", "algorithm", "iterations"];
/// What belongs to a password.
const DIGEST_FIELDS: [&str; 4] = ["password", "ha1", "realm", "digest_algorithms"];
/// More of a password is a mistake.
const LONGEST_PASSWORD: usize = 256;

/// A new subscription from the arguments of `subscriber.create`.
pub fn create(args: &Value, config: &Config, ring: &KeyRing, rng: &mut Rng) -> Result<(Subscription, State)> {
    let mut fields = Fields::new(args, "")?;
    let imsi = imsi(&mut fields)?;
    let msisdn = msisdn(&mut fields)?;
    let given_impi = impi(&mut fields)?;
    let first = given_impi.clone().unwrap_or_else(|| Impi::from_imsi(&imsi, &config.domain));
    let mut state = State::default();
    let mut sealer = Sealer { ring, rng, state: &mut state, realm: &config.domain };
    let others = fields.list("private_identities", MOST_PRIVATE)?.unwrap_or_default();
    let mut private_identities = Vec::new();
    if others.is_empty() || KEY_FIELDS.iter().chain(&DIGEST_FIELDS).any(|name| fields.has(name)) {
        private_identities.push(sealer.private_identity(&mut fields, first.clone(), None)?);
    }
    sealer.others(&others, &[], &mut private_identities)?;
    let given = public_identities(&mut fields)?;
    let temporary = given_impi.is_none().then(|| Impu::temporary(&imsi, &config.domain));
    let impus_given = given.is_some();
    let sets = match given {
        Some(sets) => with_temporary(sets, temporary),
        None => derived(&imsi, msisdn.as_ref(), &config.domain),
    };
    let mut subscription = Subscription {
        imsi: Some(imsi.clone()),
        service: None,
        msisdn,
        private_identities,
        sets,
        impus_given,
        barred: false,
        visited_networks: None,
        capabilities: None,
        criteria: Vec::new(),
        shared_ifc_sets: Vec::new(),
        service_profile: None,
        revision: 1,
    };
    services(&mut fields, &mut subscription, config)?;
    fields.finish()?;
    Ok((subscription, state))
}

/// What a change makes of a subscription, and the registrations that end with it.
#[derive(Debug)]
pub struct Changed {
    pub subscription: Subscription,
    pub state: State,
    pub terminate: Option<Termination>,
    /// What an S-CSCF is given is not what it was.
    pub profile_changed: bool,
}

/// A subscription changed by the arguments of `subscriber.change`: what is not named stays. Null takes a value away, and lets
/// public identities follow from IMSI and MSISDN again.
pub fn change(
    old: &Subscription,
    state: &State,
    changes: &Value,
    config: &Config,
    ring: &KeyRing,
    rng: &mut Rng,
) -> Result<Changed> {
    let mut fields = Fields::new(changes, "")?;
    let (mut new, mut state) = (old.clone(), state.clone());
    let own = old.imsi.clone().ok_or_else(|| fields.invalid("imsi", "this is a service and no subscriber"))?;
    if fields.has("imsi") && imsi(&mut fields)? != own {
        return Err(fields.invalid("imsi", "an IMSI does not change: create another subscriber"));
    }
    if fields.has("msisdn") {
        new.msisdn = msisdn(&mut fields)?;
    }
    change_private(&mut fields, &mut new, &mut Sealer { ring, rng, state: &mut state, realm: &config.domain })?;
    let first = &new.private_identities[0].impi;
    let derived_impi = *first == Impi::from_imsi(&own, &config.domain);
    let reset = fields.has("impus");
    if let Some(sets) = public_identities(&mut fields)? {
        new.sets = with_temporary(sets, derived_impi.then(|| Impu::temporary(&own, &config.domain)));
        new.impus_given = true;
    } else if reset || !new.impus_given {
        new.sets = derived(&own, new.msisdn.as_ref(), &config.domain);
        new.impus_given = false;
    }
    services(&mut fields, &mut new, config)?;
    fields.finish()?;
    new.revision += 1;
    let impis = |s: &Subscription| s.private_identities.iter().map(|p| p.impi.clone()).collect::<Vec<_>>();
    let remaining = impis(&new);
    let ends = new.sets != old.sets || remaining != impis(old) || (new.barred && !old.barred);
    // Who has other identities now is to register again; who may not any more, or has a SIM less, is not.
    let is_for_good = new.barred || impis(old).iter().any(|impi| !remaining.contains(impi));
    let reason = if is_for_good { ReasonCode::PermanentTermination } else { ReasonCode::ServerChange };
    let terminate = ends.then(|| termination(&state, reason, "the subscription was changed")).flatten();
    if ends {
        state = State { sqn: state.sqn, run: state.run, ..State::default() };
        state.sqn.retain(|impi, _| remaining.contains(impi));
    }
    let profile_changed = !ends && differs(old, &new, config, &remaining[0]);
    Ok(Changed { subscription: new, state, terminate, profile_changed })
}

/// De-registration of all that is registered, at the S-CSCF that has it (TS 29.228 6.1.3).
pub fn termination(state: &State, reason: ReasonCode, info: &'static str) -> Option<Termination> {
    let scscf = state.assigned.clone()?;
    let impis: Vec<Impi> = state.registered_impis().into_iter().cloned().collect();
    (!impis.is_empty()).then_some(Termination { scscf, impis, reason, info })
}

/// All that may be read of a subscription: no key.
pub fn show(subscription: &Subscription, state: &State) -> Value {
    let private = subscription.private_identities.iter().map(|p| match &p.credential {
        Credential::Aka(keys) => {
            let kind = serde_json::to_value(keys.algorithm).unwrap_or_default();
            let amf = ims_core::hex::encode(&keys.amf);
            let sqn = state.sqn(&p.impi).to_string();
            json!({ "impi": p.impi, "algorithm": kind, "amf": amf, "sqn": sqn, "key_set": true })
        }
        Credential::Digest(digest) => {
            let algorithms: Vec<&str> = digest.algorithms().collect();
            json!({ "impi": p.impi, "realm": digest.realm, "digest_algorithms": algorithms, "password_set": true })
        }
    });
    let public = subscription.sets.iter().enumerate().flat_map(|(irs, set)| {
        set.iter().map(move |p| {
            let registration = state.registration(irs).name();
            let mut one = json!({ "impu": p.impu, "barred": p.barred, "irs": irs, "state": registration });
            if let Some(name) = &p.display_name {
                one["display_name"] = json!(name);
            }
            one
        })
    });
    json!({
        "imsi": subscription.imsi,
        "msisdn": subscription.msisdn,
        "impi": subscription.private_identities.first().map(|p| &p.impi),
        "barred": subscription.barred,
        "private_identities": private.collect::<Vec<_>>(),
        "impus": public.collect::<Vec<_>>(),
        "visited_networks": subscription.visited_networks,
        "capabilities": subscription.capabilities,
        "criteria": subscription.criteria.len(),
        "shared_ifc_sets": subscription.shared_ifc_sets,
        "service_profile": subscription.service_profile,
        "scscf": state.assigned.as_ref().map(|scscf| &scscf.name),
    })
}

fn imsi(fields: &mut Fields) -> Result<Imsi> {
    let text = fields.text("imsi")?.ok_or_else(|| fields.invalid("imsi", "the IMSI is missing"))?;
    Imsi::parse(&text).map_err(|e| fields.invalid("imsi", e.to_string()))
}

fn msisdn(fields: &mut Fields) -> Result<Option<Msisdn>> {
    let text = fields.text("msisdn")?.filter(|text| !text.is_empty());
    text.map(|text| Msisdn::parse(&text).map_err(|e| fields.invalid("msisdn", e.to_string()))).transpose()
}

fn impi(fields: &mut Fields) -> Result<Option<Impi>> {
    let text = fields.text("impi")?;
    text.map(|text| Impi::parse(&text).map_err(|e| fields.invalid("impi", e.to_string()))).transpose()
}

/// The temporary identity, barred where there is a number (TS 23.003 13.4B); `sip:+NUMBER@domain` and `tel:+NUMBER`.
fn derived(imsi: &Imsi, msisdn: Option<&Msisdn>, domain: &str) -> Vec<Vec<PublicIdentity>> {
    let open = |impu| PublicIdentity { impu, barred: false, display_name: None };
    let temporary = PublicIdentity { barred: msisdn.is_some(), ..open(Impu::temporary(imsi, domain)) };
    let numbers = msisdn.map(|m| [open(Impu::sip_number(m, domain)), open(Impu::tel(m))]);
    vec![numbers.into_iter().flatten().chain([temporary]).collect()]
}

/// A SIM without ISIM registers with its temporary identity, whatever else it is known as.
fn with_temporary(mut sets: Vec<Vec<PublicIdentity>>, temporary: Option<Impu>) -> Vec<Vec<PublicIdentity>> {
    if let Some(impu) = temporary
        && !sets.iter().flatten().any(|p| p.impu == impu)
        && let Some(first) = sets.first_mut()
    {
        first.push(PublicIdentity { impu, barred: true, display_name: None });
    }
    sets
}

/// `impus`: strings, or objects with `barred`, `display_name` and `irs`, the number of the implicit registration set.
fn public_identities(fields: &mut Fields) -> Result<Option<Vec<Vec<PublicIdentity>>>> {
    let Some(list) = fields.list("impus", MOST_PUBLIC)? else { return Ok(None) };
    let mut sets: std::collections::BTreeMap<u64, Vec<PublicIdentity>> = Default::default();
    for (at, value) in list.iter().enumerate() {
        let place = format!("impus[{at}]");
        let (irs, identity) = match value {
            Value::String(text) => (0, public_identity(text, &place)?),
            object => public_identity_of_object(object, &place)?,
        };
        if sets.values().flatten().any(|other| other.impu == identity.impu) {
            return Err(Problem::invalid(&place, "this public identity is given twice"));
        }
        sets.entry(irs).or_default().push(identity);
    }
    match sets.is_empty() {
        true => Err(fields.invalid("impus", "give at least one public identity, or leave the field out")),
        false => Ok(Some(sets.into_values().collect())),
    }
}

fn public_identity(text: &str, place: &str) -> Result<PublicIdentity> {
    let impu = Impu::parse(text).map_err(|e| Problem::invalid(place, e.to_string()))?;
    Ok(PublicIdentity { impu, barred: false, display_name: None })
}

fn public_identity_of_object(object: &Value, place: &str) -> Result<(u64, PublicIdentity)> {
    let mut fields = Fields::new(object, &format!("{place}."))?;
    let text = fields.text("impu")?.ok_or_else(|| fields.invalid("impu", "the public identity is missing"))?;
    let mut identity = public_identity(&text, &format!("{place}.impu"))?;
    identity.barred = fields.bool("barred")?.unwrap_or(false);
    identity.display_name = fields.text("display_name")?.map(|name| name.chars().take(128).collect());
    let irs = fields.number("irs", MOST_PUBLIC as u64)?.unwrap_or(0);
    fields.take("state");
    fields.finish()?;
    Ok((irs, identity))
}

fn change_private(fields: &mut Fields, new: &mut Subscription, sealer: &mut Sealer<'_>) -> Result<()> {
    let first = new.private_identities[0].clone();
    if let Some(given) = impi(fields)?
        && given != first.impi
    {
        return Err(fields.invalid("impi", "a private identity does not change: create another subscriber"));
    }
    let first = sealer.private_identity(fields, first.impi.clone(), Some(&first))?;
    let known = std::mem::replace(&mut new.private_identities, vec![first]);
    if fields.has("private_identities") {
        let others = fields.list("private_identities", MOST_PRIVATE)?.unwrap_or_default();
        sealer.others(&others, &known, &mut new.private_identities)
    } else {
        new.private_identities.extend(known.into_iter().skip(1));
        Ok(())
    }
}

/// Takes keys out of arguments and puts them away.
struct Sealer<'a> {
    ring: &'a KeyRing,
    rng: &'a mut Rng,
    state: &'a mut State,
    /// Of digests that name no other.
    realm: &'a str,
}

impl Sealer<'_> {
    fn others(&mut self, list: &[Value], known: &[PrivateIdentity], into: &mut Vec<PrivateIdentity>) -> Result<()> {
        for (at, value) in list.iter().enumerate() {
            let mut fields = Fields::new(value, &format!("private_identities[{at}]."))?;
            let impi = impi(&mut fields)?.ok_or_else(|| fields.invalid("impi", "the private identity is missing"))?;
            if into.iter().any(|other| other.impi == impi) {
                return Err(fields.invalid("impi", "this private identity is given twice"));
            }
            let old = known.iter().find(|p| p.impi == impi);
            let one = self.private_identity(&mut fields, impi, old)?;
            fields.take("key_set");
            fields.take("password_set");
            fields.finish()?;
            into.push(one);
        }
        Ok(())
    }

    /// With the keys of `old` where no others are given.
    fn private_identity(
        &mut self,
        fields: &mut Fields,
        impi: Impi,
        old: Option<&PrivateIdentity>,
    ) -> Result<PrivateIdentity> {
        let digest = DIGEST_FIELDS.iter().find(|name| fields.has(name));
        let sim = KEY_FIELDS.iter().chain(&["amf", "sqn"]).find(|name| fields.has(name));
        match (digest, sim, old) {
            (None, None, Some(old)) => Ok(old.clone()),
            (Some(digest), Some(sim), _) => {
                let detail = format!("a private identity has a SIM ({sim}) or a password ({digest}), not both");
                Err(fields.invalid(digest, detail))
            }
            (Some(_), None, _) => self.digest(fields, impi, old),
            (None, ..) => self.aka(fields, impi, old),
        }
    }

    fn aka(&mut self, fields: &mut Fields, impi: Impi, old: Option<&PrivateIdentity>) -> Result<PrivateIdentity> {
        let old = old.and_then(|old| match &old.credential {
            Credential::Aka(keys) => Some(keys),
            Credential::Digest(_) => None,
        });
        let amf = fields.hex("amf", &[2])?.and_then(|amf| <[u8; 2]>::try_from(amf.as_slice()).ok());
        if let Some(sqn) = self.sqn(fields)? {
            self.state.sqn.insert(impi.clone(), sqn.0);
        }
        let mut keys = match old {
            Some(old) if !KEY_FIELDS.iter().any(|name| fields.has(name)) => old.clone(),
            _ => self.keys(fields, &impi)?,
        };
        keys.amf = amf.or(old.map(|old| old.amf)).unwrap_or(DEFAULT_AMF);
        Ok(PrivateIdentity { impi, credential: Credential::Aka(keys) })
    }

    /// A password, or what is left of it when its realm and user name are hashed in: H(A1) by algorithm.
    fn digest(&mut self, fields: &mut Fields, impi: Impi, old: Option<&PrivateIdentity>) -> Result<PrivateIdentity> {
        let known = match old.map(|old| &old.credential) {
            Some(Credential::Digest(digest)) => &digest.realm,
            _ => self.realm,
        };
        let realm = fields.text("realm")?.unwrap_or_else(|| known.to_owned());
        if realm.is_empty() || realm.len() > 255 || realm.contains(|c: char| c.is_control() || matches!(c, '"' | '\\'))
        {
            return Err(fields.invalid("realm", "give the realm that the challenge names, as a rule the home domain"));
        }
        let algorithms = digest_algorithms(fields)?;
        let password = fields.text("password")?.map(Zeroizing::new);
        let ha1 = match (password, fields.take("ha1")) {
            (Some(_), Some(_)) => return Err(fields.invalid("ha1", "give password or ha1, not both")),
            (None, None) => return Err(fields.invalid("password", "the password is missing: give it or ha1")),
            (Some(password), None) if password.is_empty() || password.len() > LONGEST_PASSWORD => {
                return Err(fields.invalid("password", format!("give 1 to {LONGEST_PASSWORD} bytes")));
            }
            (Some(password), None) => {
                let algorithms = algorithms.unwrap_or(vec![DigestAlgorithm::Md5, DigestAlgorithm::Sha256]);
                DigestSecret::of_password(&impi, &realm, password.as_bytes(), &algorithms)
            }
            (None, Some(_)) if algorithms.is_some() => {
                return Err(fields.invalid("digest_algorithms", "ha1 says by itself which algorithms there are"));
            }
            (None, Some(given)) => given_ha1(fields, &given)?,
        };
        let secret = DigestSecret::seal(&impi, realm, &ha1, self.ring, self.rng);
        Ok(PrivateIdentity { impi, credential: Credential::Digest(secret) })
    }

    fn sqn(&mut self, fields: &mut Fields) -> Result<Option<Sqn>> {
        let Some(text) = fields.text("sqn")? else { return Ok(None) };
        let digits = (1..=12).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
        let number = u64::from_str_radix(&text, 16).ok().filter(|_| digits);
        number.map(|n| Some(Sqn(n))).ok_or_else(|| fields.invalid("sqn", "give up to 12 hexadecimal digits"))
    }

    fn keys(&mut self, fields: &mut Fields, impi: &Impi) -> Result<AkaKeys> {
        let algorithm = match fields.text("algorithm")? {
            None => AlgorithmName::Milenage,
            Some(name) => {
                AlgorithmName::parse(&name).ok_or_else(|| fields.invalid("algorithm", "give milenage, tuak or xor"))?
            }
        };
        let lengths: &[usize] = if algorithm == AlgorithmName::Tuak { &[16, 32] } else { &[16] };
        let k = fields.hex("k", lengths)?.ok_or_else(|| fields.invalid("k", "the key K is missing"))?;
        let iterations = u8::try_from(fields.number("iterations", 255)?.unwrap_or(1)).unwrap_or(1);
        let opc = match algorithm {
            AlgorithmName::Milenage => Some(milenage_opc(fields, &k)?),
            AlgorithmName::Tuak => Some(tuak_topc(fields, &k, iterations)?),
            AlgorithmName::Xor => None,
        };
        Ok(AkaKeys {
            algorithm,
            amf: DEFAULT_AMF,
            k: self.ring.seal(&k, impi, "k", self.rng),
            opc: opc.map(|opc| self.ring.seal(&opc, impi, "opc", self.rng)),
            iterations,
        })
    }
}

fn digest_algorithm(name: &str) -> Option<DigestAlgorithm> {
    DigestAlgorithm::from_token(name).filter(|a| matches!(a, DigestAlgorithm::Md5 | DigestAlgorithm::Sha256))
}

fn digest_algorithms(fields: &mut Fields) -> Result<Option<Vec<DigestAlgorithm>>> {
    let Some(list) = fields.list("digest_algorithms", 2)? else { return Ok(None) };
    let read: Option<Vec<_>> = list.iter().map(|name| digest_algorithm(name.as_str()?)).collect();
    let read = read.filter(|list| !list.is_empty() && (list.len() < 2 || list[0] != list[1]));
    read.map(Some).ok_or_else(|| fields.invalid("digest_algorithms", "give MD5, SHA-256 or both"))
}

/// `ha1`: `{"MD5": HEX, "SHA-256": HEX}`, one of them at least.
fn given_ha1(fields: &Fields, given: &Value) -> Result<Vec<(DigestAlgorithm, Zeroizing<String>)>> {
    let wrong = || fields.invalid("ha1", "give an object with MD5 (32 hexadecimal digits), SHA-256 (64) or both");
    let one = |(name, value): (&String, &Value)| {
        let algorithm = digest_algorithm(name)?;
        let digits = if algorithm == DigestAlgorithm::Sha256 { 64 } else { 32 };
        let hex = value.as_str().filter(|hex| hex.len() == digits && hex.bytes().all(|b| b.is_ascii_hexdigit()))?;
        Some((algorithm, Zeroizing::new(hex.to_ascii_lowercase())))
    };
    let members = given.as_object().filter(|members| !members.is_empty()).ok_or_else(wrong)?;
    members.iter().map(one).collect::<Option<Vec<_>>>().ok_or_else(wrong)
}

type Bytes = Zeroizing<Vec<u8>>;

fn exactly_one(fields: &mut Fields, ready: &str, raw: &str, len: usize) -> Result<(Option<Bytes>, Option<Bytes>)> {
    let both = (fields.hex(ready, &[len])?, fields.hex(raw, &[len])?);
    match both {
        (Some(_), Some(_)) => Err(fields.invalid(raw, format!("give {ready} or {raw}, not both"))),
        (None, None) => Err(fields.invalid(ready, format!("give {ready} or {raw}: the key alone is not enough"))),
        one => Ok(one),
    }
}

fn milenage_opc(fields: &mut Fields, k: &[u8]) -> Result<Bytes> {
    let (opc, op) = exactly_one(fields, "opc", "op", 16)?;
    let secret = |bytes: &[u8]| bytes.try_into().map(Secret::<16>::new).ok();
    let computed = || Some(ims_aka::opc(&secret(k)?, &secret(&op?)?).expose().to_vec());
    match opc {
        Some(opc) => Ok(opc),
        None => computed().map(Zeroizing::new).ok_or_else(|| fields.invalid("op", "give 32 hexadecimal digits")),
    }
}

fn tuak_topc(fields: &mut Fields, k: &[u8], iterations: u8) -> Result<Bytes> {
    let (topc, top) = exactly_one(fields, "topc", "top", 32)?;
    if iterations == 0 {
        return Err(fields.invalid("iterations", "TUAK iterates Keccak once at least"));
    }
    let secret = |bytes: &[u8]| bytes.try_into().map(Secret::<32>::new).ok();
    let computed = || Some(ims_aka::topc(k, &secret(&top?)?, iterations)?.expose().to_vec());
    match topc {
        Some(topc) => Ok(topc),
        None => computed().map(Zeroizing::new).ok_or_else(|| fields.invalid("top", "give 64 hexadecimal digits")),
    }
}

/// What says neither who the subscriber is nor how to authenticate it.
fn services(fields: &mut Fields, subscription: &mut Subscription, config: &Config) -> Result<()> {
    if let Some(barred) = fields.bool("barred")? {
        subscription.barred = barred;
    }
    if fields.has("visited_networks") {
        subscription.visited_networks = networks(fields)?;
    }
    profile(fields, subscription, config)
}

/// What subscribers and services have alike.
pub(crate) fn profile(fields: &mut Fields, subscription: &mut Subscription, config: &Config) -> Result<()> {
    if fields.has("capabilities") {
        subscription.capabilities = fields.value::<Capabilities>("capabilities")?;
    }
    if fields.has("criteria") {
        subscription.criteria = criteria(fields)?;
    }
    if fields.has("shared_ifc_sets") {
        subscription.shared_ifc_sets = fields.value("shared_ifc_sets")?.unwrap_or_default();
    }
    if fields.has("service_profile") {
        let name = fields.text("service_profile")?;
        if let Some(name) = name.as_ref().filter(|name| !config.service_profiles.contains_key(*name)) {
            let known: Vec<&str> = config.service_profiles.keys().map(String::as_str).take(10).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let detail =
                format!("there is no service profile {name:?} in the configuration of the HSS: it has {known}");
            return Err(fields.invalid("service_profile", detail));
        }
        subscription.service_profile = name.map(Into::into);
    }
    Ok(())
}

/// A list of criteria, or text with `InitialFilterCriteria` elements. What would never match is refused (TS 29.228 B.2.2, B.2.3).
fn criteria(fields: &mut Fields) -> Result<Vec<Ifc>> {
    const NAME: &str = "criteria";
    let mut criteria: Vec<Ifc> = match fields.take(NAME) {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(xml)) => xml_ifc::parse_criteria(&xml).map_err(|e| fields.invalid(NAME, e.to_string()))?,
        Some(Value::Array(list)) => {
            let read = |(at, value)| {
                let one = serde_json::from_value::<Criterion>(value);
                one.map(|c| c.0).map_err(|e| fields.invalid(&format!("{NAME}[{at}]"), e.to_string()))
            };
            list.into_iter().enumerate().map(read).collect::<Result<_>>()?
        }
        Some(_) => return Err(fields.invalid(NAME, "give a list, or InitialFilterCriteria elements as text")),
    };
    if criteria.len() > MOST_CRITERIA {
        return Err(fields.invalid(NAME, format!("{MOST_CRITERIA} entries at most")));
    }
    if let Some(finding) = unusable(&criteria) {
        return Err(fields.invalid(NAME, finding.to_string()));
    }
    criteria.sort_by_key(|c| c.priority);
    Ok(criteria)
}

fn networks(fields: &mut Fields) -> Result<Option<Vec<String>>> {
    let Some(list) = fields.value::<Vec<String>>("visited_networks")? else { return Ok(None) };
    if list.len() > MOST_NETWORKS {
        return Err(fields.invalid("visited_networks", format!("{MOST_NETWORKS} entries at most")));
    }
    Ok(Some(list))
}
