//! The commands of the REST API: `subscriber.create`, `show`, `list`, `change`, `remove` and `profile`.

use crate::behind::WINDOW;
use crate::config::Config;
use crate::error::Refusal;
use crate::fields::Fields;
use crate::profile::user_data;
use crate::subscriber::{State, Subscription};
use crate::{Hss, Job, Outcome, Stage, provision, service, store};
use ims_core::command::{Command, CommandId, Problem};
use ims_core::store::{Record, StoreRequest};
use ims_core::{Action, Ctx, Impu, Imsi};
use ims_diameter::cx::ReasonCode;
use serde_json::{Value, json};
use std::fmt;

const DEFAULT_PAGE: u64 = 100;
const LARGEST_PAGE: u64 = 1000;

/// A command in progress.
#[derive(Debug)]
pub(crate) struct CommandJob {
    id: CommandId,
    subject: Subject,
    call: Call,
    pub(crate) tries: u8,
}

/// What a command is about.
#[derive(Debug)]
enum Subject {
    Subscriber(String),
    Service(String),
    /// A listing.
    Subscribers,
    Services,
}

enum Call {
    Create(Box<(Subscription, State)>),
    List,
    Show,
    /// May hold keys.
    Change(Value),
    Remove,
    /// The profile of this public identity as an S-CSCF is given it.
    Profile(Impu),
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create(_) => "Create",
            Self::List => "List",
            Self::Show => "Show",
            Self::Change(_) => "Change",
            Self::Remove => "Remove",
            Self::Profile(_) => "Profile",
        })
    }
}

impl CommandJob {
    pub(crate) fn key(&self) -> String {
        match (&self.subject, &self.call) {
            (_, Call::Profile(impu)) => store::impu_key(impu),
            (Subject::Subscriber(imsi), _) => format!("imsi:{imsi}"),
            (Subject::Service(identity), _) => service::key(identity),
            (Subject::Subscribers | Subject::Services, _) => String::new(),
        }
    }
}

impl Hss {
    pub(crate) fn on_command(&mut self, command: Command, ctx: &mut Ctx<'_>) {
        let id = command.id;
        if let Err(problem) = self.start_command(command, ctx) {
            ctx.act(Action::Reply { id, result: Err(problem) });
        }
    }

    fn start_command(&mut self, command: Command, ctx: &mut Ctx<'_>) -> Result<(), Problem> {
        let Command { id, call, args } = command;
        if self.waiting.len() >= self.config.max_pending {
            return Err(Problem::unavailable("too many requests are in progress: try again"));
        }
        let job = |subject, call| Job::Command(Box::new(CommandJob { id, subject, call, tries: 0 }));
        let subscriber = |args: &Value| named(args).map(Subject::Subscriber);
        let service = |args: &Value| service::named(args).map(Subject::Service);
        let changes = |args: &Value| Call::Change(args.get("changes").cloned().unwrap_or_else(|| json!({})));
        match call.as_str() {
            "subscriber.create" => {
                let mut made = provision::create(&args, &self.config, &self.ring, ctx.rng)?;
                made.1.run = self.behind.run();
                let request = insertion(&made.0, &made.1);
                let subject = Subject::Subscriber(made.0.sort());
                self.ask_store(job(subject, Call::Create(Box::new(made))), Stage::Inserting, request, ctx);
            }
            "subscriber.list" => {
                let (after, limit) = page(&args)?;
                let request = StoreRequest::List { after, limit: u32::try_from(limit + 1).unwrap_or(u32::MAX) };
                self.ask_store(job(Subject::Subscribers, Call::List), Stage::Listing { limit }, request, ctx);
            }
            "subscriber.show" => self.submit(job(subscriber(&args)?, Call::Show), ctx),
            "subscriber.remove" => self.submit(job(subscriber(&args)?, Call::Remove), ctx),
            "subscriber.profile" => {
                let text = args.get("impu").and_then(Value::as_str).unwrap_or_default();
                let impu = Impu::parse(text).map_err(|error| Problem::invalid("impu", error.to_string()))?;
                self.submit(job(Subject::Subscribers, Call::Profile(impu)), ctx);
            }
            "subscriber.change" => self.submit(job(subscriber(&args)?, changes(&args)), ctx),
            "service.create" => {
                let mut made = service::create(&args, &self.config)?;
                made.1.run = self.behind.run();
                if self.wildcards.len() >= service::MOST_WILDCARDS {
                    let detail = format!(
                        "there are {} wildcarded services, and no more are looked through",
                        self.wildcards.len()
                    );
                    return Err(Problem::conflict(Some("identity"), detail));
                }
                let request = insertion(&made.0, &made.1);
                let identity = made.0.service.as_ref().map(|service| service.identity.clone()).unwrap_or_default();
                let create = Call::Create(Box::new(made));
                self.ask_store(job(Subject::Service(identity), create), Stage::Inserting, request, ctx);
            }
            "service.list" => {
                let (after, limit) = page(&args)?;
                let after = service::sort(&after);
                let request = StoreRequest::List { after, limit: u32::try_from(limit + 1).unwrap_or(u32::MAX) };
                self.ask_store(job(Subject::Services, Call::List), Stage::Listing { limit }, request, ctx);
            }
            "service.show" => self.submit(job(service(&args)?, Call::Show), ctx),
            "service.remove" => self.submit(job(service(&args)?, Call::Remove), ctx),
            "service.change" => self.submit(job(service(&args)?, changes(&args)), ctx),
            other => return Err(Problem::not_found(format!("the HSS has no command {other}"))),
        }
        Ok(())
    }

    pub(crate) fn decide_command(&mut self, job: Box<CommandJob>, record: i64, ctx: &mut Ctx<'_>) {
        let Some(entry) = self.cache.entry(record) else { return self.retry(Job::Command(job), ctx) };
        let (subscription, state) = (&entry.subscription, &entry.state);
        match &job.call {
            Call::Change(changes) => {
                let changed = match subscription.service {
                    Some(_) => service::change(subscription, state, changes, &self.config),
                    None => provision::change(subscription, state, changes, &self.config, &self.ring, ctx.rng),
                };
                match changed {
                    Ok(changed) => {
                        self.commit(Job::Command(job), record, Outcome::Changed(Box::new(changed)), ctx);
                    }
                    Err(problem) => self.reply(&Job::Command(job), Err(problem), ctx),
                }
            }
            Call::Remove => {
                let terminate =
                    provision::termination(state, ReasonCode::PermanentTermination, "the subscription was removed");
                self.commit(Job::Command(job), record, Outcome::Removed { terminate }, ctx);
            }
            Call::Profile(impu) => {
                let shown = profile_of(subscription, &self.config, impu);
                self.reply(&Job::Command(job), Ok(shown), ctx);
            }
            Call::Show | Call::List | Call::Create(_) => {
                let shown = show(subscription, state);
                self.reply(&Job::Command(job), Ok(shown), ctx);
            }
        }
    }

    pub(crate) fn on_inserted(&mut self, job: Job, ctx: &mut Ctx<'_>) {
        if let Job::Command(job) = &job
            && let Call::Create(made) = &job.call
        {
            tracing::info!("{} was provisioned", kind(&made.0));
            self.wildcards.take(&made.0);
            ctx.act(Action::Reply { id: job.id, result: Ok(show_new(&made.0, &made.1)) });
        }
    }

    pub(crate) fn on_listed(&mut self, job: Job, limit: usize, records: &[Record], ctx: &mut Ctx<'_>) {
        let read: Result<Vec<_>, _> = records.iter().take(limit).map(|record| self.as_it_is(record)).collect();
        let services = matches!(&job, Job::Command(job) if matches!(job.subject, Subject::Services));
        let result = read.map(|mut page| {
            let is_whole = records.len() <= limit;
            let before = page.len();
            // Services come after the last subscriber.
            page.retain(|(subscription, _)| subscription.service.is_some() == services);
            let is_end = is_whole || page.len() < before;
            let shown: Vec<Value> = page.iter().map(|(subscription, state)| show(subscription, state)).collect();
            let last = page.last().filter(|_| !is_end).map(|(subscription, _)| name(subscription));
            let list = if services { "services" } else { "subscribers" };
            json!({ list: shown, "next": last })
        });
        match result {
            Ok(listing) => self.reply(&job, Ok(listing), ctx),
            Err(refusal) => self.fail(job, refusal, ctx),
        }
    }

    /// What a record says now: in memory it may be newer.
    fn as_it_is(&self, record: &Record) -> Result<(Subscription, State), Refusal> {
        let (subscription, mut state) = store::read(record)?;
        match self.cache.peek(record.id) {
            Some(entry) if !entry.stale => state.clone_from(&entry.state),
            _ => state.catch_up(self.behind.run(), WINDOW, &subscription),
        }
        Ok((subscription, state))
    }

    pub(crate) fn reply(&mut self, job: &Job, result: Result<Value, Problem>, ctx: &mut Ctx<'_>) {
        if let Job::Command(job) = job {
            ctx.act(Action::Reply { id: job.id, result });
        }
    }

    pub(crate) fn unknown_subscriber(&mut self, job: &CommandJob, ctx: &mut Ctx<'_>) {
        let problem = match (&job.subject, &job.call) {
            (_, Call::Profile(impu)) => {
                Problem::not_found(format!("no subscriber has the public identity {}", impu.as_str()))
            }
            (Subject::Service(identity), _) => service::unknown(identity),
            (Subject::Subscriber(imsi), _) => Problem::not_found(format!("no subscriber has the IMSI {imsi}")),
            (Subject::Subscribers | Subject::Services, _) => Problem::not_found("there is no such list"),
        };
        ctx.act(Action::Reply { id: job.id, result: Err(problem) });
    }

    pub(crate) fn fail_command(&mut self, job: &CommandJob, refusal: &Refusal, ctx: &mut Ctx<'_>) {
        *self.refusals.entry(refusal.name()).or_default() += 1;
        tracing::warn!("a command failed: {refusal}");
        ctx.act(Action::Reply { id: job.id, result: Err(Problem::unavailable(refusal.to_string())) });
    }
}

pub(crate) fn show(subscription: &Subscription, state: &State) -> Value {
    match subscription.service {
        Some(_) => service::show(subscription, state),
        None => provision::show(subscription, state),
    }
}

/// The same for who has just written it: with what is allowed, and surely not meant.
pub(crate) fn show_new(subscription: &Subscription, state: &State) -> Value {
    let mut shown = show(subscription, state);
    let findings = xml_ifc::trigger::check(&subscription.criteria);
    if !findings.is_empty() {
        shown["warnings"] = findings.iter().map(|finding| Value::from(finding.to_string())).collect();
    }
    shown
}

/// Where the listing goes on.
fn name(subscription: &Subscription) -> String {
    match &subscription.service {
        Some(service) => service.identity.clone(),
        None => subscription.sort(),
    }
}

/// For the log.
fn kind(subscription: &Subscription) -> String {
    match (&subscription.service, &subscription.imsi) {
        (Some(service), _) => format!("service {}", service.identity),
        (None, Some(imsi)) => format!("subscriber {imsi:?}"),
        (None, None) => "nobody".into(),
    }
}

fn insertion(subscription: &Subscription, state: &State) -> StoreRequest {
    StoreRequest::Insert {
        sort: subscription.sort(),
        keys: store::keys(subscription),
        body: store::body(subscription),
        state: store::state(state),
    }
}

/// The User-Data of an identity, as the answer to a SAR has it.
fn profile_of(subscription: &Subscription, config: &Config, impu: &Impu) -> Value {
    let set = subscription.set_of(impu).unwrap_or(0);
    let service = subscription.service.as_deref().map(|service| &service.impi);
    let impi = subscription.private_identities.first().map(|p| &p.impi).or(service);
    let xml = impi.map(|impi| user_data(subscription, config, impi, set, Some(impu)));
    let xml = xml.and_then(|xml| String::from_utf8(xml).ok()).unwrap_or_default();
    json!({ "imsi": subscription.imsi, "impu": impu, "user_data": xml })
}

/// The subscriber that a command is about.
fn named(args: &Value) -> Result<String, Problem> {
    let text =
        args.get("imsi").and_then(Value::as_str).ok_or_else(|| Problem::invalid("imsi", "the IMSI is missing"))?;
    // What is no IMSI is nobody's.
    let unknown = |_| {
        Problem::not_found(format!("no subscriber has the IMSI {}", text.escape_debug().take(40).collect::<String>()))
    };
    Imsi::parse(text).map(|imsi| imsi.to_string()).map_err(unknown)
}

fn page(args: &Value) -> Result<(String, usize), Problem> {
    let mut fields = match args {
        Value::Null => Fields::new(&json!({}), "")?,
        args => Fields::new(args, "")?,
    };
    let after = fields.text("after")?.unwrap_or_default();
    let limit = fields.number("limit", u64::MAX)?.unwrap_or(DEFAULT_PAGE);
    if !(1..=LARGEST_PAGE).contains(&limit) {
        return Err(fields.invalid("limit", format!("give a number from 1 to {LARGEST_PAGE}")));
    }
    fields.finish()?;
    Ok((after, usize::try_from(limit).unwrap_or(1)))
}
