//! Shared initial filter criteria (SiFC): sets that the S-CSCF holds itself, and that profiles name by number (TS 29.228 B.2.2,
//! `SharedIFCSetID`).

use crate::{Ifc, XmlError};
use std::collections::BTreeMap;

/// Sets of criteria by number.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SharedSets(BTreeMap<u32, Vec<Ifc>>);

impl SharedSets {
    pub fn iter(&self) -> impl Iterator<Item = (u32, &[Ifc])> {
        self.0.iter().map(|(id, criteria)| (*id, criteria.as_slice()))
    }

    pub fn get(&self, id: u32) -> Option<&[Ifc]> {
        self.0.get(&id).map(Vec::as_slice)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A number is given once.
    pub fn insert(&mut self, id: u32, criteria: Vec<Ifc>) -> Result<(), XmlError> {
        match self.0.insert(id, criteria) {
            None => Ok(()),
            Some(_) => Err(XmlError(format!("shared iFC set {id} is given twice"))),
        }
    }
}
