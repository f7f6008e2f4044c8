//! `guard-run why` and `guard-run suggest`: from a log to what would allow what was denied.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

use advice::{Denials, Guard, Suggestion, Widen};
use anyhow::Context as _;
use clap::ValueEnum;
use enforce::{exit, machine::ThisMachine, outlet::tell, target};
use policy::Document;
use report::text::{OneLine, pretty_json};
use serde::Serialize;

use crate::{
    chosen::{changeable, choose_for},
    harden::missing_here,
    inside,
    records::records,
};

/// How far suggestions may go beyond what was denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Wider {
    /// All ports of a host
    Port,
    /// A host's network: 256 addresses of IPv4, 2^64 of IPv6
    Network,
    /// All names beside a host's, below the same one
    Subdomains,
}

/// Says why each kind of what a log tells of was denied, and what would allow it. Without a log, this is about the guard that this process
/// is in.
///
/// # Errors
///
/// When the log can't be read, or its policy can't; or there is no such guard.
pub fn why(log: Option<&Path>, policy: Option<&OsStr>, json: bool) -> anyhow::Result<u8> {
    let Some(log) = log else {
        inside::show(json)?;
        return Ok(exit::OK);
    };
    let mut denials = Denials::default();
    let heads = records(&[log.to_owned()], &mut |record| denials.add(record))?;
    if denials.is_empty() && heads.iter().all(|head| head.lost == 0) {
        println!("nothing was denied");
        return Ok(exit::OK);
    }
    let guard = choose_for(policy, advice::policy_of(&heads)?)?.compile()?.guard();
    say(&denials.explain(&guard, &heads, &ThisMachine), json)?;
    Ok(exit::OK)
}

/// Says which changes to a policy allow what logs say was denied, or makes them. The exit status is [`exit::NO`] where something is left
/// for people to decide.
///
/// # Errors
///
/// When a log or the policy can't be read, the changes can't be proved, or the policy can't be written.
pub fn suggest(
    logs: &[PathBuf],
    policy: Option<&OsStr>,
    apply: bool,
    wider: &[Wider],
    json: bool,
) -> anyhow::Result<u8> {
    let mut seen = Denials::default();
    let heads = records(logs, &mut |record| seen.add(record))?;
    let logged = if policy.is_some() { None } else { advice::policy_of(&heads)? };
    let guard = choose_for(policy, logged)?.compile()?.guard();
    let has = |what| wider.contains(&what);
    let further = Widen { port: has(Wider::Port), network: has(Wider::Network), subdomains: has(Wider::Subdomains) };
    let suggestion = advice::suggest(&guard, &heads, &seen, further, &ThisMachine)?;
    if !guard.policy.included.is_empty() {
        // The places in the patch are those of the whole, which no file has.
        say(&suggestion, json)?;
        let path = guard.document.path().display();
        anyhow::ensure!(!apply, "{path} includes other files; write the change into the one where it belongs");
        return Ok(if suggestion.apart.is_empty() { exit::OK } else { exit::NO });
    }
    let text = suggestion.apply(&guard)?;
    say(&suggestion, json)?;
    if heads.iter().filter_map(|head| head.policy.as_ref()).any(|logged| logged.sha256 != guard.document.sha256()) {
        let other = format!(
            "{} is not what the log tells of: it has changed since, or is another policy",
            OneLine(guard.document.path().display())
        );
        // Which file is changed, nobody says but the log: others may have written that.
        anyhow::ensure!(
            !apply || policy.is_some() || suggestion.is_empty(),
            "{other}; name it, if it is to be changed: --policy FILE"
        );
        tell(&other);
    }
    let changed = guard.with_text(text.clone().into_bytes(), &ThisMachine)?;
    if !suggestion.is_empty()
        && let Some(missing) = missing_here(&changed.policy, &changed.tables)
    {
        let missing = format!("this machine can't enforce the changed policy: {missing}");
        anyhow::ensure!(!apply, "{missing}; nothing was written");
        tell(&missing);
    }
    if apply && !suggestion.is_empty() {
        rewrite(&guard, &suggestion, &text)?;
    }
    Ok(if suggestion.apart.is_empty() { exit::OK } else { exit::NO })
}

/// Puts a text into the place of the policy's, unless that has changed meanwhile.
fn rewrite(guard: &Guard, suggestion: &Suggestion, text: &str) -> anyhow::Result<()> {
    let path = guard.document.path();
    changeable(path)?;
    anyhow::ensure!(
        Document::read(path)?.sha256() == guard.document.sha256(),
        "{} has been changed meanwhile; nothing was written",
        path.display()
    );
    target::replace(path, text.as_bytes()).with_context(|| path.display().to_string())?;
    let count = suggestion.patch.0.len();
    eprintln!("guard-run: changed {}: {count} change{}", OneLine(path.display()), if count == 1 { "" } else { "s" });
    Ok(())
}

/// Prints something, for people or as JSON.
fn say<T: Serialize + std::fmt::Display>(what: &T, json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", String::from_utf8(pretty_json(what)?)?);
    } else {
        print!("{what}");
    }
    Ok(())
}
