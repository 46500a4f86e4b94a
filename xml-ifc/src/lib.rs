//! The Cx User-Data (TS 29.228 Annex B, C, E, F): types, parser, writer, and the matching of trigger points. SKELETON of types.
use serde::{Deserialize, Serialize};

/// `IMSSubscription`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ImsSubscription { pub private_id: String, pub service_profiles: Vec<ServiceProfile> }
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ServiceProfile { pub public_identities: Vec<PublicIdentity>, pub criteria: Vec<Ifc>, pub shared_ifc_sets: Vec<u32>, pub subscribed_media_profile: Option<u32> }
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PublicIdentity { pub identity: String, pub barred: bool, pub identity_type: Option<u8>, pub wildcarded: Option<String>, pub display_name: Option<String>, pub alias_group: Option<String> }
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Ifc { pub priority: u32, pub profile_part: Option<ProfilePart>, pub trigger: Option<TriggerPoint>, pub server: ApplicationServer }
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ProfilePart { Registered, Unregistered }
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ApplicationServer { pub server_name: String, pub default_handling: DefaultHandling, pub service_info: Option<String>, pub include_register_request: bool, pub include_register_response: bool }
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum DefaultHandling { #[default] SessionContinued, SessionTerminated }
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct TriggerPoint { pub cnf: bool, pub spts: Vec<Spt> }
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Spt { pub negated: bool, pub groups: Vec<u32>, pub kind: SptKind }
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SptKind { RequestUri(String), Method { method: String, registration_types: Vec<u8> }, SipHeader { header: String, content: Option<String> }, SessionCase(u8), SessionDescription { line: String, content: Option<String> } }

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct XmlError(pub String);
pub fn parse(_xml: &[u8]) -> Result<ImsSubscription, XmlError> { todo!() }
pub fn write(_s: &ImsSubscription) -> String { todo!() }
