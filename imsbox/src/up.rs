//! `imsbox up`: the four roles in this process.

use crate::settings::Settings;
use anyhow::{Context, Result};
use ims_shell::{Listen, Running, Shell};
use std::fmt::Write as _;

/// The four roles, started.
pub(crate) async fn start(settings: &Settings, tap: Option<ims_shell::Tap>) -> Result<Running> {
    let mut shell = settings.shell.clone();
    shell.http = match shell.http {
        Listen::Default => Listen::At(settings.rest),
        other => other,
    };
    let pcscf = pcscf::Pcscf::new(settings.pcscf.clone())?;
    let icscf = icscf::Icscf::new(settings.icscf.clone())?;
    let scscf = scscf::Scscf::new(settings.scscf.clone())?;
    let master_key = Some(ims_shell::entropy::master_key(&shell)?);
    let hss = hss::Hss::new(hss::Config { master_key, ..settings.hss.clone() })?;
    let mut builder = Shell::new(shell.clone())
        .node("hss", Box::new(hss), settings.hss.wiring())
        .store_for("hss", shell.data_dir.join("hss.db"))
        .keep_for("hss")
        .node("scscf", Box::new(scscf), settings.scscf.wiring())
        .keep_for("scscf")
        .node("icscf", Box::new(icscf), settings.icscf.wiring())
        .node("pcscf", Box::new(pcscf), settings.pcscf.wiring())
        .keep_for("pcscf");
    if let Some(tap) = tap {
        builder = builder.tap(tap);
    }
    builder.start().await.context("imsbox cannot start (`imsbox check` looks at everything it needs)")
}

pub(crate) async fn run(settings: &Settings) -> Result<()> {
    let running = start(settings, None).await?;
    print!("{}", banner(settings, &running));
    println!("ready");
    ims_shell::wait_for_signal().await?;
    tracing::info!("stopping");
    running.shutdown().await;
    Ok(())
}

/// Where each role listens, where the admin token is, and what to do next.
fn banner(settings: &Settings, running: &Running) -> String {
    let mut out = format!("imsbox {}: PLMN {}, {}\n", env!("CARGO_PKG_VERSION"), settings.plmn, settings.domain);
    let mut shown: Vec<String> = Vec::new();
    for place in &running.listening {
        let what = match (place.node.as_str(), place.protected) {
            ("pcscf", true) => continue,
            ("pcscf", false) if place.addr == settings.pcscf.mw.listen => "P-CSCF, core side",
            ("pcscf", false) => "P-CSCF, handsets",
            ("icscf", _) => "I-CSCF",
            ("scscf", _) => "S-CSCF",
            ("hss", _) if place.service == "http" => "REST API",
            ("hss", _) => "HSS, Cx",
            (other, _) => other,
        };
        let transport = place.service.rsplit('/').next().unwrap_or(place.service);
        let line = format!("  {what:<18} {}", place.addr);
        match shown.iter_mut().find(|l| l.starts_with(&format!("{line} "))) {
            Some(line) => {
                let _ = write!(line, ", {transport}");
            }
            None => shown.push(format!("{line} {transport}")),
        }
    }
    for line in shown {
        let _ = writeln!(out, "{line}");
    }
    let gm = &settings.pcscf.gm;
    let (first, last) = gm.protected_client_ports.0.clone().into_inner();
    let _ = writeln!(out, "  behind IPsec       ports {} and {first}-{last}", gm.protected_server_port);
    if let Some(token) = &running.admin_token {
        let _ = writeln!(out, "Data folder  {}", settings.shell.data_dir.display());
        let _ = writeln!(out, "Admin token  {}", token.display());
    }
    out.push_str(
        "Next: imsbox subscriber add --imsi IMSI --k K --opc OPC --msisdn NUMBER\n      imsbox check    is this machine \
         ready for handsets?\n      imsbox status   who is registered?\n",
    );
    out
}
