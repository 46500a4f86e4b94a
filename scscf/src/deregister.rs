//! Network-initiated de-registration (TS 24.229 5.4.1.5): by the HSS, by an operator, or because an application server cannot be
//! without. Subscribers are told first, the P-CSCF and the UE among them; then the servers, and the HSS when it does not know.

use crate::Scscf;
use crate::reg_event::Why;
use crate::reginfo::Happened;
use crate::registrar::{Changed, Registration};
use ims_core::{Ctx, Impi, Impu, Problem};
use ims_diameter::cx::ServerAssignmentType;
use serde_json::{Value, json};

impl Scscf {
    /// Ends a registration for a reason of ours; false when there is none.
    pub(crate) fn deregister(
        &mut self,
        impi: &Impi,
        impu: &Impu,
        happened: Happened,
        outcome: &'static str,
        ctx: &mut Ctx<'_>,
    ) -> bool {
        let Some(gone) = self.end_registration(impi, impu, happened, outcome, ctx) else { return false };
        self.tell_hss(impi, &gone.impu, ServerAssignmentType::AdministrativeDeregistration, ctx);
        true
    }

    /// The same when the HSS knows.
    pub(crate) fn end_registration(
        &mut self,
        impi: &Impi,
        impu: &Impu,
        happened: Happened,
        outcome: &'static str,
        ctx: &mut Ctx<'_>,
    ) -> Option<Registration> {
        let Changed { id, before } = self.registrar.remove(impi, impu, ctx.actions)?;
        let gone = before?;
        self.outcomes.count(outcome);
        self.count("network-deregistration");
        tracing::info!(impu = ?gone.impu, ?happened, cause = outcome, "de-registered by the network");
        self.on_registration_changed(Some(&gone), id, Why::Network(happened), ctx);
        self.tell_third_parties_of_end(&gone, ctx);
        self.forget_password_if_gone(impi);
        Some(gone)
    }

    /// `deregister`: by `impu` (everybody who is registered with it) or `impi` (all of its sets). The phone is told to register anew;
    /// `retry_after`: after so many seconds; `reject`: not again by itself.
    pub(crate) fn on_deregister_command(&mut self, args: &Value, ctx: &mut Ctx<'_>) -> Result<Value, Problem> {
        let text = |field: &str| args.get(field).and_then(Value::as_str);
        let is_of: Vec<(Impi, Impu)> = match (text("impu"), text("impi")) {
            (Some(impu), None) => {
                let impu = Impu::parse(impu).map_err(|e| Problem::invalid("impu", e.to_string()))?;
                self.registrar.of_impu(&impu).map(|r| (r.impi.clone(), r.impu.clone())).collect()
            }
            (None, Some(impi)) => {
                let impi = Impi::parse(impi).map_err(|e| Problem::invalid("impi", e.to_string()))?;
                self.registrar.of_impi(&impi).map(|r| (r.impi.clone(), r.impu.clone())).collect()
            }
            _ => return Err(Problem::invalid("impu", "name an impu or an impi, and one of them")),
        };
        let happened = happens(args)?;
        if is_of.is_empty() {
            return Err(Problem::not_found("nobody is registered by that identity here: see imsbox status"));
        }
        let mut ended = Vec::new();
        for (impi, impu) in &is_of {
            if self.deregister(impi, impu, happened, "ended-by-operator", ctx) {
                ended.push(json!({"impi": impi.as_str(), "impu": impu.as_str()}));
            }
        }
        Ok(json!({ "deregistered": ended }))
    }
}

fn happens(args: &Value) -> Result<Happened, Problem> {
    let reject = match args.get("reject") {
        None | Some(Value::Null) => false,
        Some(value) => value.as_bool().ok_or_else(|| Problem::invalid("reject", "true or false"))?,
    };
    match args.get("retry_after") {
        None | Some(Value::Null) if reject => Ok(Happened::Rejected),
        None | Some(Value::Null) => Ok(Happened::Deactivated),
        Some(_) if reject => Err(Problem::invalid("retry_after", "who is rejected is not told to come back")),
        Some(value) => value
            .as_u64()
            .and_then(|seconds| u32::try_from(seconds).ok())
            .map(Happened::Probation)
            .ok_or_else(|| Problem::invalid("retry_after", "a number of seconds")),
    }
}
