//! The tables of the page.

use maud::{Markup, html};
use report::Parent;

use super::shown;
use crate::{
    Denial, Summary,
    words::{bytes, grouped, times},
};

/// A table. Who can't drag it to the side with a mouse can by the keyboard. Heads that begin with `#` are of numbers.
pub(super) fn table(caption: &str, heads: &[&str], rows: impl Iterator<Item = Markup>) -> Markup {
    html! {
        div class="scroll" role="region" tabindex="0" aria-label=(shown(caption)) {
            table class="sortable" {
                caption { (shown(caption)) }
                thead { tr { @for head in heads { (self::head(head)) } } }
                tbody { @for row in rows { tr { (row) } } }
            }
        }
    }
}

fn head(head: &str) -> Markup {
    html! {
        @match head.strip_prefix('#') {
            Some(head) => th scope="col" class="number" { (head) },
            None => th scope="col" { (head) },
        }
    }
}

/// A cell with a number, by which it is sorted.
pub(super) fn number(number: u64) -> Markup {
    html! { td class="number" data-value=(number) { (grouped(number)) } }
}

fn amount(count: u64) -> Markup {
    html! { td class="number" data-value=(count) { (bytes(count)) } }
}

fn section(id: &str, heading: &str, content: &Markup) -> Markup {
    html! { section aria-labelledby=(id) { h2 id=(id) { (heading) } (content) } }
}

pub(super) fn tests(summary: &Summary) -> Markup {
    if summary.tests.is_empty() {
        return html! {};
    }
    let rows = summary.tests.iter().map(|part| {
        html! {
            td { code { (shown(&part.test)) } }
            td {
                ul class="plain" {
                    @for known in &part.denials {
                        li {
                            a href=(format!("#denial-{}", known.denial + 1)) {
                                (shown(summary.denials[known.denial].what()))
                            }
                            (times(known.count))
                        }
                    }
                }
            }
            (number(part.count))
        }
    });
    let content = html! {
        (table("Tests during which something was denied", &["test", "denied", "#times"], rows))
        @if summary.unattributed > 0 {
            p { "Denials of no test that is known: " (grouped(summary.unattributed)) "." }
        }
    };
    section("tests", "Denials by test", &content)
}

pub(super) fn denials(summary: &Summary) -> Markup {
    let rows = summary.denials.iter().enumerate().map(|(number, denial)| row(summary, number, denial));
    let heads = ["denied", "rule", "policy", "#line", "#times"];
    let content = html! {
        @if summary.denials.is_empty() {
            p { "Nothing was denied." }
        } @else {
            (table("Kinds of denials, each with its reason, its processes and what would allow it", &heads, rows))
        }
    };
    section("denials", "Denials", &content)
}

fn row(summary: &Summary, number: usize, denial: &Denial) -> Markup {
    html! {
        td id=(format!("denial-{}", number + 1)) {
            details {
                summary { (if denial.refused { "" } else { "(audited) " }) code { (shown(denial.what())) } }
                (explanation(summary, denial))
            }
        }
        td { code { (shown(denial.rule())) } }
        td { code { (shown(summary.policy_name(denial.policy))) } }
        @match denial.line() {
            Some(line) => (self::number(line as u64)),
            None => td {},
        }
        (self::number(denial.why.count))
    }
}

fn explanation(summary: &Summary, denial: &Denial) -> Markup {
    let why = &denial.why;
    html! {
        dl {
            @if let Some(decides) = &why.decides { dt { "Rule" } dd { code { (shown(decides)) } } }
            @if let Some(reason) = &why.reason { dt { "Reason" } dd { (shown(reason)) } }
            @for part in &why.hardening { dt { "Part" } dd { code { (shown(&part.part)) } ": " (shown(part.why)) } }
            @if let Some(nearest) = &why.nearest {
                dt { "Nearest rule" }
                dd { ul class="plain" { @for line in nearest.lines() { li { code { (shown(line)) } } } } }
            }
            @if !denial.tests.is_empty() { dt { "Test" } dd { (shown(summary.tests_of(denial))) } }
            @if !denial.processes.is_empty() {
                dt { "Processes" }
                dd { @for process in &denial.processes { (tree(process)) } }
            }
            @if why.more_processes > 0 { dt { "Others" } dd { (grouped(why.more_processes)) } }
            @for note in &why.notes { dt { "Note" } dd { (shown(note)) } }
        }
        @for way in &why.ways {
            p { "This would allow it" @if let Some(when) = way.when { " " (when) } ", and beyond it: " (shown(&way.beyond)) }
            (patch(&way.patch_text()))
        }
    }
}

/// A process below its ancestors.
fn tree(process: &[Parent]) -> Markup {
    let Some((first, rest)) = process.split_first() else { return html! {} };
    html! {
        ul class="tree" {
            li {
                code { (shown(first.comm.as_deref().unwrap_or("a process that has ended"))) } " (pid " (first.pid) ")"
                (tree(rest))
            }
        }
    }
}

/// A patch to copy.
fn patch(text: &str) -> Markup {
    let lines: Vec<String> = text.lines().map(shown).collect();
    html! { pre class="patch" tabindex="0" { (lines.join("\n")) } }
}

pub(super) fn destinations(summary: &Summary) -> Markup {
    if summary.destinations.is_empty() {
        return html! {};
    }
    let rows = summary.destinations.iter().map(|part| {
        html! { td { code { (shown(&part.name)) } } (number(part.denials.len() as u64)) (number(part.count)) }
    });
    let content = table("Destinations that were not reached", &["destination", "#kinds", "#times"], rows);
    section("destinations", "Denials by destination", &content)
}

pub(super) fn rules(summary: &Summary) -> Markup {
    if summary.rules.is_empty() {
        return html! {};
    }
    let rows = summary.rules.iter().map(|part| {
        html! {
            td { code { (shown(&part.rule)) } }
            td { code { (shown(summary.policy_name(part.policy))) } }
            @match part.line { Some(line) => (number(line as u64)), None => td {} }
            (number(part.count))
        }
    });
    section(
        "rules",
        "Denials by rule",
        &table("Rules that denied something", &["rule", "policy", "#line", "#times"], rows),
    )
}

pub(super) fn changes(summary: &Summary) -> Markup {
    let suggestions = summary.policies.iter().filter_map(|part| part.suggestion.as_ref());
    let all: Vec<_> = suggestions.filter(|it| !it.is_empty() || !it.apart.is_empty()).collect();
    let problems = summary.policies.iter().any(|part| part.problem.is_some() || part.changed);
    if all.is_empty() && !problems {
        return html! {};
    }
    let content = html! {
        @for part in &summary.policies {
            @if let Some(problem) = &part.problem { p class="doubt" { (shown(problem)) } }
            @if part.changed {
                p class="doubt" { code { (shown(part.path.as_deref().unwrap_or_default())) } " has changed since: this is about what it says now." }
            }
        }
        @for suggestion in all {
            pre tabindex="0" { (suggestion) }
            @if !suggestion.is_empty() {
                p { "As a patch (RFC 6902):" }
                (patch(&suggestion.patch_text()))
            }
        }
    };
    section("changes", "The change that would allow it", &content)
}

pub(super) fn flows(summary: &Summary) -> Markup {
    if summary.flows.is_empty() {
        return html! {};
    }
    let rows = summary.flows.iter().map(|flow| {
        html! {
            td { code { (shown(&flow.program)) } }
            td { (if flow.outgoing { "to" } else { "from" }) }
            td { code { (shown(&flow.destination)) } }
            (number(flow.connections))
            (number(flow.datagrams))
            (amount(flow.sent))
            (amount(flow.received))
        }
    });
    let heads = ["program", "direction", "peer", "#connections", "#datagrams", "#sent", "#received"];
    section("flows", "What was reached", &table("Peers that programs reached, or were reached by", &heads, rows))
}
