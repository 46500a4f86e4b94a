//! Cx requests: from the message to the decision, and the one place that refuses, counts and logs.

use crate::cache::Entry;
use crate::cx::{self, Decision, View, lir, mar, sar, uar};
use crate::error::Refusal;
use crate::seal::KeyRing;
use crate::subscriber::Scscf;
use crate::{Config, Hss, Job, Outcome, Stage, is_served, service, store};
use ims_core::store::StoreRequest;
use ims_core::{Ctx, Impi, Rng};
use ims_diameter::cx::Request;
use ims_diameter::endpoint::RequestToken;
use ims_diameter::{DiameterError, Message, dict};

/// A Cx request in progress.
#[derive(Debug)]
pub(crate) struct CxJob {
    pub(crate) token: RequestToken,
    pub(crate) message: Message,
    pub(crate) request: Request,
    pub(crate) tries: u8,
    /// The wildcarded identity of a service that the public identity falls under: nobody has it for himself.
    pub(crate) wildcard: Option<String>,
}

impl CxJob {
    /// Where the subscription is found: by the private identity if there is one.
    pub(crate) fn key(&self) -> String {
        match cx::identities(&self.request) {
            _ if self.wildcard.is_some() => service::key(self.wildcard.as_deref().unwrap_or_default()),
            (Some(impi), _) => store::impi_key(impi),
            (None, Some(impu)) => store::impu_key(impu),
            (None, None) => String::new(),
        }
    }

    pub(crate) fn unknown(&self) -> Refusal {
        match cx::identities(&self.request) {
            (Some(impi), _) => Refusal::UnknownPrivateIdentity { impi: impi.clone() },
            (None, Some(impu)) => Refusal::UnknownPublicIdentity { impu: impu.clone() },
            (None, None) => Refusal::Malformed(DiameterError::missing(&dict::PUBLIC_IDENTITY)),
        }
    }

    /// The S-CSCF that asks, as it will be reached; nobody of whom a state could tell when it is no S-CSCF.
    fn asking(&self) -> Scscf {
        let name = match &self.request {
            Request::Mar(r) => &r.server_name,
            Request::Sar(r) => &r.server_name,
            Request::Uar(_) | Request::Lir(_) | Request::Rtr(_) | Request::Ppr(_) => return Scscf::default(),
        };
        let text = |def| self.message.avps().first(def).and_then(|avp| avp.utf8().ok()).unwrap_or_default().to_owned();
        Scscf::new(name.clone(), text(&dict::ORIGIN_HOST), text(&dict::ORIGIN_REALM))
    }
}

impl Hss {
    pub(crate) fn on_request(&mut self, token: RequestToken, message: Message, ctx: &mut Ctx<'_>) {
        let request = match Request::from_message(&message) {
            Ok(request) if is_served(&request) => request,
            Ok(_) => return self.refuse_malformed(token, &message, DiameterError::Command(message.command()), ctx),
            Err(error) => return self.refuse_malformed(token, &message, error, ctx),
        };
        *self.commands.entry(request.name()).or_default() += 1;
        let job = Box::new(CxJob { token, message, request, tries: 0, wildcard: None });
        if self.waiting.len() >= self.config.max_pending {
            return self.refuse(&job, &Refusal::Busy("the store is slower than the requests come"), ctx);
        }
        if self.is_late(ctx.now) && !matches!(job.request, Request::Sar(_)) {
            return self.refuse(&job, &Refusal::Busy("the store takes longer than busy_after"), ctx);
        }
        self.submit(Job::Cx(job), ctx);
    }

    /// An identity that nobody has for himself may fall under the wildcard of a service.
    pub(crate) fn by_wildcard(&mut self, mut job: Box<CxJob>, ctx: &mut Ctx<'_>) {
        let found = match cx::identities(&job.request) {
            (None, Some(impu)) if job.wildcard.is_none() => self.wildcards.find(impu).map(str::to_owned),
            _ => None,
        };
        match found {
            Some(wildcard) => {
                job.wildcard = Some(wildcard);
                self.submit(Job::Cx(job), ctx);
            }
            None => self.refuse(&job, &job.unknown(), ctx),
        }
    }

    pub(crate) fn decide_cx(&mut self, job: Box<CxJob>, record: i64, ctx: &mut Ctx<'_>) {
        let asking = self.cache.scscf(job.asking());
        let Some(entry) = self.cache.entry(record) else { return self.retry(Job::Cx(job), ctx) };
        match decide(&self.config, &self.ring, entry, (&job, &asking), ctx.rng) {
            Ok(Decision { answer, change: None }) => self.endpoint.answer(job.token, answer, ctx),
            Ok(Decision { answer: message, change: Some(change) }) => match self.take_behind(record, change, ctx) {
                Ok(()) => self.endpoint.answer(job.token, message, ctx),
                Err(change) => self.commit(Job::Cx(job), record, Outcome::Answer { message, change }, ctx),
            },
            Err(refusal) => self.refuse_or_probe(job, refusal, ctx),
        }
    }

    /// A public identity that is not of this subscription may be another's (5002) or nobody's (5001).
    fn refuse_or_probe(&mut self, job: Box<CxJob>, refusal: Refusal, ctx: &mut Ctx<'_>) {
        match &refusal {
            Refusal::IdentitiesDontMatch { impu, .. } => {
                let request = StoreRequest::Load { key: store::impu_key(impu) };
                self.ask_store(Job::Cx(job), Stage::Probing { refusal: Box::new(refusal) }, request, ctx);
            }
            _ => self.refuse(&job, &refusal, ctx),
        }
    }

    pub(crate) fn on_probed(&mut self, job: Job, refusal: Refusal, exists: bool, ctx: &mut Ctx<'_>) {
        let refusal = match refusal {
            Refusal::IdentitiesDontMatch { impu, .. } if !exists => Refusal::UnknownPublicIdentity { impu },
            other => other,
        };
        self.fail(job, refusal, ctx);
    }

    pub(crate) fn answer(&mut self, job: &Job, message: Message, ctx: &mut Ctx<'_>) {
        if let Job::Cx(job) = job {
            self.endpoint.answer(job.token, message, ctx);
        }
    }

    pub(crate) fn refuse(&mut self, job: &CxJob, refusal: &Refusal, ctx: &mut Ctx<'_>) {
        let answer = match refusal {
            Refusal::Malformed(error) => Some(job.message.error_answer(error)),
            _ => cx::refused(&job.request, refusal.result(), &job.message),
        };
        self.note(job.request.name(), refusal);
        if let Some(answer) = answer {
            self.endpoint.answer(job.token, answer, ctx);
        }
    }

    fn refuse_malformed(&mut self, token: RequestToken, message: &Message, error: DiameterError, ctx: &mut Ctx<'_>) {
        let answer = message.error_answer(&error);
        self.note(&message.name(), &Refusal::Malformed(error));
        self.endpoint.answer(token, answer, ctx);
    }

    pub(crate) fn note(&mut self, command: &str, refusal: &Refusal) {
        *self.refusals.entry(refusal.name()).or_default() += 1;
        match refusal.is_fault() {
            true => tracing::warn!("{command} refused: {refusal}"),
            false => tracing::info!("{command} refused: {refusal}"),
        }
    }
}

fn decide(
    config: &Config,
    ring: &KeyRing,
    entry: &mut Entry,
    (job, asking): (&CxJob, &Scscf),
    rng: &mut Rng,
) -> Result<Decision<Message>, Refusal> {
    if let Request::Mar(r) = &job.request {
        mar::check(View { subscription: &entry.subscription, state: &entry.state, config }, r)?;
        open(entry, &r.impi, ring)?;
    }
    let view = View { subscription: &entry.subscription, state: &entry.state, config };
    let message = &job.message;
    Ok(match &job.request {
        Request::Uar(r) => uar::decide(view, r)?.map(|answer| answer.to_message(message)),
        Request::Mar(r) => {
            let known = entry.opened.iter().find(|(impi, _)| *impi == r.impi);
            let (_, opened) = known.ok_or_else(|| job.unknown())?;
            mar::decide(view, r, asking, opened, rng)?.map(|answer| answer.to_message(message))
        }
        Request::Sar(r) => sar::decide(view, r, asking)?.map(|answer| answer.to_message(message)),
        Request::Lir(r) => lir::decide(view, r)?.map(|answer| answer.to_message(message)),
        Request::Rtr(_) | Request::Ppr(_) => {
            return Err(Refusal::Malformed(DiameterError::Command(message.command())));
        }
    })
}

/// Opens the credential of a private identity, once.
fn open(entry: &mut Entry, impi: &Impi, ring: &KeyRing) -> Result<(), Refusal> {
    if entry.opened.iter().any(|(known, _)| known == impi) {
        return Ok(());
    }
    let identity = entry.subscription.private_identity(impi);
    let identity = identity.ok_or_else(|| Refusal::UnknownPrivateIdentity { impi: impi.clone() })?;
    let opened = identity.unseal(ring)?;
    // Most have one.
    entry.opened.reserve_exact(1);
    entry.opened.push((identity.impi.clone(), opened));
    Ok(())
}
