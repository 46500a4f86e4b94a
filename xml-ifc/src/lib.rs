//! The Cx User-Data (TS 29.228 Annex B, C, E and F): the service profiles of a subscription with their initial filter
//! criteria, as types, with a parser that survives whatever an HSS or its operator writes, a writer that keeps the
//! element order of the schema in Annex E, and what says which criteria a request meets.

mod parse;
mod profile;
mod shared;
pub mod trigger;
mod write;
mod written;

pub use parse::{MAX_BYTES, parse, parse_criteria, parse_shared_sets};
pub use profile::{
    ApplicationServer, DefaultHandling, Ifc, ImsSubscription, ProfilePart, PublicIdentity, ServiceProfile, Spt,
    SptKind, TriggerPoint,
};
pub use shared::SharedSets;
pub use trigger::Pattern;
pub use write::write;
pub use written::{Criteria, Criterion};

/// Why a document is not a usable subscription, in words for the operator.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct XmlError(pub String);
