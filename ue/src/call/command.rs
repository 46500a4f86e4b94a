//! Commands about calls, as the shell, a test or a load run gives them.

use super::script::{Act, Script};
use super::send::{Sent, What};
use super::{Call, Goal, Stage};
use crate::Ue;
use ims_core::{Action, Command, CommandId, Ctx, Problem};
use ims_sip::Name;
use serde_json::{Value, json};

impl Ue {
    /// False: it is no command about calls.
    pub(crate) fn on_call_command(&mut self, command: &Command, ctx: &mut Ctx<'_>) -> bool {
        let (id, args) = (command.id, &command.args);
        let done = match command.call.as_str() {
            "call" => self.on_call(id, args, ctx),
            "answer" => self.on_ringing_call(args, ctx, |ue, call, ctx| ue.answer_for(call, id, ctx)),
            "reject" => {
                let status = args.get("status").and_then(Value::as_u64).map_or(Some(486), |s| u16::try_from(s).ok());
                match status.filter(|s| (300..700).contains(s)) {
                    None => Err(Problem::invalid("status", "a status from 300 to 699")),
                    Some(status) => self.on_ringing_call(args, ctx, |ue, call, ctx| {
                        call.asked.push((Goal::Over, id));
                        ue.refuse(call, status, ctx)
                    }),
                }
            }
            "divert" => match args.get("to").and_then(Value::as_str).and_then(|to| self.target(to)) {
                None => Err(Problem::invalid("to", "a URI, a number, or user@domain")),
                Some(to) => self.on_ringing_call(args, ctx, |ue, call, ctx| {
                    call.asked.push((Goal::Over, id));
                    ue.divert(call, &to, ctx)
                }),
            },
            "hangup" => self.on_chosen(
                args,
                |_| true,
                ctx,
                |ue, call, ctx| {
                    call.asked.push((Goal::Over, id));
                    ue.hang_up(call, ctx)
                },
            ),
            "refer" => match args.get("to").and_then(Value::as_str).and_then(|to| self.target(to)) {
                None => Err(Problem::invalid("to", "a URI, a number, or user@domain")),
                Some(to) => {
                    self.on_chosen(args, |c| c.stage == Stage::Up, ctx, |ue, call, ctx| ue.refer(call, &to, id, ctx))
                }
            },
            "message" => self.on_page(id, args, "MESSAGE", ctx),
            "options" if args.get("to").is_some() => self.on_page(id, args, "OPTIONS", ctx),
            "script" => self.on_script(id, args, ctx),
            "calls" => {
                let result = Ok(json!({ "calls": self.calls.snapshot(), "ended": self.calls.ended() }));
                ctx.act(Action::Reply { id, result });
                Ok(())
            }
            name => match Act::parse(name) {
                Some(act) => self.on_chosen(args, |_| true, ctx, |ue, call, ctx| ue.act_for(call, act, id, ctx)),
                None => return false,
            },
        };
        if let Err(problem) = done {
            ctx.act(Action::Reply { id, result: Err(problem) });
        }
        true
    }

    fn on_call(&mut self, id: CommandId, args: &Value, ctx: &mut Ctx<'_>) -> Result<(), Problem> {
        let to = args.get("to").and_then(Value::as_str).ok_or(Problem::invalid("to", "whom to call"))?.to_owned();
        let script = script_of(args)?.unwrap_or_else(|| self.config.script.clone());
        self.call_for(&to, &script, Some(id), ctx).map(|_| ()).map_err(|why| Problem::conflict(None, why))
    }

    /// What the handset does from now on.
    fn on_script(&mut self, id: CommandId, args: &Value, ctx: &mut Ctx<'_>) -> Result<(), Problem> {
        self.config.script = script_of(args)?.ok_or(Problem::invalid("script", "a script, as TOML or JSON"))?;
        ctx.act(Action::Reply { id, result: Ok(json!({})) });
        Ok(())
    }

    /// A request outside any dialog.
    fn on_page(&mut self, id: CommandId, args: &Value, method: &str, ctx: &mut Ctx<'_>) -> Result<(), Problem> {
        let to = args.get("to").and_then(Value::as_str).and_then(|to| self.target(to));
        let to = to.ok_or(Problem::invalid("to", "a URI, a number, or user@domain"))?;
        if self.binding.is_none() {
            return Err(Problem::conflict(None, "not registered"));
        }
        let mut m = self.fresh_request(method, &to, false, ctx);
        if method == "MESSAGE" {
            let text = args.get("text").and_then(Value::as_str).unwrap_or("hello");
            m.set_body("text/plain;charset=UTF-8", text.as_bytes());
        } else {
            m.set(Name::Contact, self.call_contact());
            m.set(Name::Accept, "application/sdp");
        }
        self.launch(m, Sent { asked: Some(id), ..Sent::outside(What::Plain) }, ctx);
        Ok(())
    }

    fn on_ringing_call(
        &mut self,
        args: &Value,
        ctx: &mut Ctx<'_>,
        act: impl FnOnce(&mut Self, &mut Call, &mut Ctx<'_>) -> super::Next,
    ) -> Result<(), Problem> {
        self.on_chosen(args, |call| call.incoming.is_some(), ctx, act)
    }

    /// The call that `args` names, or the only one that fits.
    fn on_chosen(
        &mut self,
        args: &Value,
        fits: impl Fn(&Call) -> bool,
        ctx: &mut Ctx<'_>,
        act: impl FnOnce(&mut Self, &mut Call, &mut Ctx<'_>) -> super::Next,
    ) -> Result<(), Problem> {
        let named = args.get("call").and_then(Value::as_u64);
        let is_named = |c: &Call| named.is_none_or(|n| n == u64::from(c.number));
        let open = |c: &Call| c.stage != Stage::Leaving;
        let mut fitting = self.calls.list.values().filter(|c| fits(c) && is_named(c) && open(c)).map(|c| c.number);
        match (fitting.next(), fitting.next()) {
            (None, _) => Err(Problem::not_found("there is no such call now")),
            (Some(_), Some(_)) => Err(Problem::invalid("call", "there are several calls: say which")),
            (Some(number), None) => {
                self.with_call(number, ctx, act);
                Ok(())
            }
        }
    }
}

fn script_of(args: &Value) -> Result<Option<Script>, Problem> {
    let bad = |why: String| Problem::invalid("script", why);
    match args.get("script") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Script::parse("script", text).map(Some).map_err(|e| bad(e.to_string())),
        Some(other) => {
            let script: Script = serde_json::from_value(other.clone()).map_err(|e| bad(e.to_string()))?;
            script.check().map(|()| Some(script)).map_err(bad)
        }
    }
}
