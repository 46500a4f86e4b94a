//! What a handset does by itself when it calls and when it is called: a small TOML file (docs/handset.md).

use ims_core::config::{ConfigError, Span};
use ims_core::uri::Uri;
use serde::Deserialize;

/// A script. What it does not say, the handset does not do until it is told: a call rings until `answer` or `reject`.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Script {
    pub calling: Calling,
    pub called: Called,
}

/// As the caller.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Calling {
    /// CANCEL when there is no answer so long after the INVITE.
    pub give_up_after: Option<Span>,
    /// Can reliable provisional responses (RFC 3262).
    pub reliable: bool,
    /// Offers video beside audio.
    pub video: bool,
    /// Asks for privacy: `Privacy: id`, and a From that says nothing (RFC 3323, RFC 3325).
    pub anonymous: bool,
    /// Asks for preconditions (RFC 3312, TS 24.229 5.1.3.1): its bearer comes up while it rings not yet.
    pub preconditions: bool,
    /// Leaves the offer to the called side: an INVITE without a body.
    pub offerless: bool,
    /// Session-Expires in seconds (RFC 4028); 0: no session timer.
    pub session_expires: u32,
    /// What happens in the call, each so long after it was answered.
    pub steps: Vec<Step>,
}

impl Default for Calling {
    fn default() -> Self {
        Self {
            give_up_after: None,
            reliable: true,
            video: false,
            anonymous: false,
            preconditions: false,
            offerless: false,
            session_expires: 1800,
            steps: Vec::new(),
        }
    }
}

/// As the called side.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Called {
    /// The provisional response: 180, 183, or 0 for none.
    pub ringing: u16,
    /// Sends it reliably when the caller can (RFC 3262).
    pub reliable: bool,
    /// An answer in the provisional response: early media.
    pub early_media: bool,
    /// Knows preconditions: it rings when the caller has its bearer.
    pub preconditions: bool,
    /// Takes video when it is offered.
    pub video: bool,
    /// Says 480 when nobody has taken the call by then.
    pub ring_for: Span,
    pub answer_after: Option<Span>,
    pub reject_after: Option<Span>,
    /// The status of that: 300 to 699.
    pub reject_with: u16,
    pub divert_after: Option<Span>,
    /// Where the caller is sent (302).
    pub divert_to: Option<String>,
    /// Shortest session interval taken, in seconds (RFC 4028 Min-SE, at least 90).
    pub min_se: u32,
    /// What happens in the call, each so long after it was answered.
    pub steps: Vec<Step>,
}

impl Default for Called {
    fn default() -> Self {
        Self {
            ringing: 180,
            reliable: false,
            early_media: false,
            preconditions: false,
            video: false,
            ring_for: Span::secs(180),
            answer_after: None,
            reject_after: None,
            reject_with: 486,
            divert_after: None,
            divert_to: None,
            min_se: 90,
            steps: Vec::new(),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    pub after: Span,
    #[serde(rename = "do")]
    pub act: Act,
}

/// What one side does while the call is up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// re-INVITE with `sendonly`.
    Hold,
    /// re-INVITE with `sendrecv`.
    Resume,
    /// re-INVITE that adds video.
    Video,
    /// re-INVITE that takes video away.
    Audio,
    /// re-INVITE with the narrow-band codecs alone.
    Narrowband,
    /// UPDATE with the session as it is.
    Update,
    Info,
    Options,
    Hangup,
}

impl Act {
    pub fn name(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Resume => "resume",
            Self::Video => "video",
            Self::Audio => "audio",
            Self::Narrowband => "narrowband",
            Self::Update => "update",
            Self::Info => "info",
            Self::Options => "options",
            Self::Hangup => "hangup",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        use Act::{Audio, Hangup, Hold, Info, Narrowband, Options, Resume, Update, Video};
        [Hold, Resume, Video, Audio, Narrowband, Update, Info, Options, Hangup].into_iter().find(|a| a.name() == name)
    }
}

/// What the called side decides by itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Decision {
    Answer,
    Reject(u16),
    Divert(String),
}

impl Script {
    /// Reads a script; `file` is only for the message.
    pub fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        let script: Self = ims_core::config::parse(file, text)?;
        script.check().map_err(|reason| ConfigError::Invalid { file: file.into(), reason })?;
        Ok(script)
    }

    /// What is wrong with it, in words that name the key.
    pub fn check(&self) -> Result<(), String> {
        let (calling, called) = (&self.calling, &self.called);
        if calling.preconditions && (calling.offerless || !calling.reliable) {
            return Err("calling.preconditions: needs an offer and reliable provisional responses".into());
        }
        if ![0, 180, 183].contains(&called.ringing) {
            return Err(format!("called.ringing: {} is not 180, 183 or 0", called.ringing));
        }
        let decisions = [
            ("answer_after", called.answer_after),
            ("reject_after", called.reject_after),
            ("divert_after", called.divert_after),
        ];
        let given: Vec<&str> = decisions.iter().filter(|(_, at)| at.is_some()).map(|(name, _)| *name).collect();
        if let [first, second, ..] = given.as_slice() {
            return Err(format!("called.{second}: a call has one end; called.{first} is given already"));
        }
        if !(300..700).contains(&called.reject_with) {
            return Err(format!("called.reject_with: {} is no status from 300 to 699", called.reject_with));
        }
        match (&called.divert_after, &called.divert_to) {
            (Some(_), None) => return Err("called.divert_after: say where with called.divert_to".into()),
            (None, Some(_)) => return Err("called.divert_to: say when with called.divert_after".into()),
            (Some(_), Some(to)) if Uri::parse(to).is_err() => {
                return Err(format!("called.divert_to: '{to}' is no URI"));
            }
            _ => {}
        }
        if called.min_se < 90 {
            return Err(format!("called.min_se: {} is below the 90 s of RFC 4028", called.min_se));
        }
        if (1..90).contains(&self.calling.session_expires) {
            let given = self.calling.session_expires;
            return Err(format!("calling.session_expires: {given} is below the 90 s of RFC 4028 (0 means none)"));
        }
        for (name, steps) in [("calling", &self.calling.steps), ("called", &called.steps)] {
            if let Some(pair) = steps.windows(2).find(|pair| pair[0].after > pair[1].after) {
                return Err(format!("{name}.steps: {} comes before the step above it", pair[1].act.name()));
            }
        }
        Ok(())
    }
}

impl Called {
    pub(crate) fn decision(&self) -> Option<(Span, Decision)> {
        let divert = || self.divert_after.zip(self.divert_to.clone()).map(|(at, to)| (at, Decision::Divert(to)));
        let reject = || self.reject_after.map(|at| (at, Decision::Reject(self.reject_with)));
        self.answer_after.map(|at| (at, Decision::Answer)).or_else(reject).or_else(divert)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_reads_as_the_manual_shows_it() {
        let text = "[called]\nringing = 183\nreliable = true\nearly_media = true\nanswer_after = '2s'\n\
                    steps = [{ after = '5s', do = 'hold' }, { after = '8s', do = 'resume' }]\n\
                    [calling]\ngive_up_after = '30s'\nsteps = [{ after = '20s', do = 'hangup' }]\n";
        let script = Script::parse("t", text).unwrap();
        assert_eq!(script.called.decision(), Some((Span::secs(2), Decision::Answer)));
        assert_eq!(script.called.steps[0], Step { after: Span::secs(5), act: Act::Hold });
        assert_eq!(script.calling.give_up_after, Some(Span::secs(30)));
        assert_eq!(Script::parse("t", "").unwrap(), Script::default());
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_key() {
        for (text, named) in [
            ("[called]\nringing = 200", "called.ringing"),
            ("[called]\nanswer_after = 1\nreject_after = 2", "called.reject_after"),
            ("[called]\nreject_after = 1\nreject_with = 200", "called.reject_with"),
            ("[called]\ndivert_after = 1", "called.divert_to"),
            ("[called]\ndivert_to = 'tel:1'", "called.divert_after"),
            ("[called]\ndivert_after = 1\ndivert_to = 'nobody'", "called.divert_to"),
            ("[called]\nmin_se = 60", "called.min_se"),
            ("[calling]\npreconditions = true\noffferless = true", "offferless"),
            ("[calling]\npreconditions = true\nreliable = false", "calling.preconditions"),
            ("[calling]\nsession_expires = 30", "calling.session_expires"),
            ("[called]\nsteps = [{ after = 5, do = 'hold' }, { after = 2, do = 'resume' }]", "called.steps"),
            ("[called]\nsteps = [{ after = 5, do = 'sing' }]", "sing"),
            ("[called]\nansver_after = 1", "ansver_after"),
            ("[calling]\ngive_up_after = 'soon'", "soon"),
        ] {
            let error = Script::parse("t", text).unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
