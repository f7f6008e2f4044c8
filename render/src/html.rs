//! The summary as one HTML file: readable without scripts and network, by keyboard, on paper, in light and dark.
//!
//! The template crate escapes all text. A Content-Security-Policy allows the page's own style and script by their hashes and nothing else,
//! so that a name which became markup by a fault could still do nothing.

mod picture;
mod tables;

use data_encoding::BASE64;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use report::text::OneLine;
use sha2::{Digest as _, Sha256};

use crate::{Guarding, Summary, run::Run, words::grouped};

const STYLE: &str = include_str!("html/style.css");
const SCRIPT: &str = include_str!("html/script.js");

/// The summary as an HTML file.
#[must_use]
pub fn html(summary: &Summary) -> String {
    let hash = |text: &str| format!("'sha256-{}'", BASE64.encode(&Sha256::digest(text)));
    let policy = format!(
        "default-src 'none'; style-src {}; script-src {}; base-uri 'none'; form-action 'none'",
        hash(STYLE),
        hash(SCRIPT)
    );
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="referrer" content="no-referrer";
                title { "guard-run: " (summary.headline()) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                a class="skip" href="#denials" { "Skip to the denials" }
                header {
                    p class="brand" { "guard-run report" }
                    h1 { (summary.headline()) }
                }
                main {
                    (banner(summary))
                    (picture::who_reached_what(summary))
                    (picture::when(summary))
                    (runs(summary))
                    (tables::tests(summary))
                    (tables::denials(summary))
                    (tables::destinations(summary))
                    (tables::rules(summary))
                    (tables::changes(summary))
                    (tables::flows(summary))
                    @if summary.further > 0 {
                        p class="doubt" { "And " (grouped(summary.further)) " denials or flows that are not listed." }
                    }
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    page.into_string()
}

/// A text from a log, of which nothing is hidden or turns other text around.
fn shown(text: impl std::fmt::Display) -> String {
    OneLine(text).to_string()
}

fn banner(summary: &Summary) -> Markup {
    html! {
        @if !summary.is_guarded() {
            p class="banner" role="alert" {
                strong { "Not all runs are known to have been guarded. " }
                "That nothing was denied in these means nothing."
            }
        }
    }
}

fn runs(summary: &Summary) -> Markup {
    html! {
        section aria-labelledby="runs" {
            h2 id="runs" { "What was enforced" }
            @for run in &summary.runs {
                article class="run" { (one_run(summary, run)) }
            }
        }
    }
}

fn one_run(summary: &Summary, run: &Run) -> Markup {
    let guarded = matches!(run.guarding, Guarding::Enforced | Guarding::Audited);
    html! {
        h3 { code { (shown(run.name())) } }
        p {
            span class=(if guarded { "guarded" } else { "unguarded" }) { (shown(run.guard())) }
            " · policy " code { (shown(summary.policy_name(run.policy))) }
            @if let Some(end) = run.end() { " · " (end) }
            @if let Some(started) = run.started { " · started " time datetime=(started) { (format!("{started:.0}")) } }
            " · log " code { (shown(&run.log)) }
        }
        @if !run.doubts.is_empty() {
            ul class="doubts" { @for doubt in &run.doubts { li { (shown(doubt)) } } }
        }
        @if !run.hooks.is_empty() {
            details {
                summary { "The programs, their ids and what they have counted" }
                (tables::table(&format!("Programs of {}", run.name()), &["hook", "#program", "tag", "#allowed", "#denied", "#audited"],
                    run.hooks.iter().map(|hook| {
                        let numbers = [hook.allowed, hook.denied, hook.audited];
                        html! {
                            td { code { (shown(&hook.hook)) } }
                            (tables::number(hook.program_id.into()))
                            td { code { (shown(&hook.tag)) } }
                            @for number in numbers { (tables::number(number)) }
                        }
                    })))
            }
        }
    }
}
