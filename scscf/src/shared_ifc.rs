//! Shared iFC sets (TS 29.228 B.2.2): criteria that profiles name by a number and that the S-CSCF holds itself.

use crate::config::invalid;
use ims_core::config::ConfigError;
use serde::Deserialize;
use std::io;
use std::path::{Path, PathBuf};
use xml_ifc::trigger::Compiler;
use xml_ifc::{Criteria, SharedSets};

/// `[shared_ifc]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SharedIfc {
    /// XML: `<SharedIFCsSets><SharedIFCsSet><SetID>5</SetID><InitialFilterCriteria>...`.
    pub file: Option<PathBuf>,
    pub sets: Vec<SharedSet>,
    /// What stands in the file, since [`crate::Config::read_files`].
    #[serde(skip)]
    text: Option<Vec<u8>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharedSet {
    /// SharedIFCSetID.
    pub id: u32,
    /// A list, or `InitialFilterCriteria` elements as text.
    pub criteria: Criteria,
}

impl SharedIfc {
    /// Reads the file, with what reads files.
    pub(crate) fn read(&mut self, read: impl Fn(&Path) -> io::Result<Vec<u8>>) -> Result<(), ConfigError> {
        if let Some(file) = &self.file {
            let unreadable = |error| invalid(format!("shared_ifc.file: {} cannot be read: {error}", file.display()));
            self.text = Some(read(file).map_err(unreadable)?);
        }
        Ok(())
    }

    /// Those of the file and those written here.
    pub(crate) fn sets(&self) -> Result<SharedSets, ConfigError> {
        let wrong = |place: &str, error: &dyn std::fmt::Display| invalid(format!("shared_ifc.{place}: {error}"));
        let mut sets = match (&self.file, &self.text) {
            (None, _) => SharedSets::default(),
            (Some(file), None) => return Err(wrong("file", &format!("{} was not read", file.display()))),
            (Some(file), Some(text)) => xml_ifc::parse_shared_sets(text)
                .map_err(|error| wrong("file", &format!("{}: {error}", file.display())))?,
        };
        for set in &self.sets {
            sets.insert(set.id, set.criteria.0.clone()).map_err(|error| wrong("sets", &error))?;
        }
        match Compiler::new(&sets).findings().iter().find(|finding| finding.is_error()) {
            Some(finding) => Err(invalid(format!("shared_ifc: {finding}"))),
            None => Ok(sets),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    #[test]
    fn shared_sets_come_from_a_file_and_from_the_configuration() {
        const IFC: &str = "<InitialFilterCriteria><Priority>1</Priority><ApplicationServer><ServerName>sip:as@x</ServerName>\
                           </ApplicationServer></InitialFilterCriteria>";
        let parse = |text: &str| ims_core::config::parse::<Config>("x", text);
        let mut config = parse(&format!(
            "[shared_ifc]\nfile = 'sets.xml'\n[[shared_ifc.sets]]\nid = 2\ncriteria = '{IFC}'\n[[shared_ifc.sets]]\nid = 3\n\
             criteria = [{{ priority = 1, server = 'sip:b@x', when = {{ method = 'INVITE' }} }}]"
        ))
        .unwrap();
        assert!(config.check().unwrap_err().to_string().contains("sets.xml was not read"));
        let missing = config.read_files(|_| Err(io::ErrorKind::NotFound.into())).unwrap_err().to_string();
        assert!(missing.contains("shared_ifc.file: sets.xml cannot be read"), "{missing}");
        let mut with = |id: u32| {
            let file = format!("<Sets><Set><SetID>{id}</SetID>{IFC}</Set></Sets>");
            config.read_files(|_| Ok(file.clone().into_bytes())).unwrap();
            config.check().and_then(|()| config.shared_ifc.sets())
        };
        assert_eq!(
            with(1).unwrap().iter().map(|(id, list)| (id, list.len())).collect::<Vec<_>>(),
            [(1, 1), (2, 1), (3, 1)]
        );
        assert!(with(2).unwrap_err().to_string().contains("set 2 is given twice"));
        let bad = "[[shared_ifc.sets]]\nid = 3\ncriteria = [{ priority = 1, server = 'sip:b@x', when = { request_uri = '*' } }]";
        let error = parse(bad).unwrap().check().unwrap_err().to_string();
        assert!(
            error.contains("shared_ifc: the criterion for sip:b@x") && error.contains("no regular expression"),
            "{error}"
        );
        assert!(parse(&bad.replace("request_uri", "uri")).unwrap_err().to_string().contains("unknown field `uri`"));
    }
}
