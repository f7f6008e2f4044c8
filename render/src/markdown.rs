//! The summary as Markdown, as GitHub and GitLab show it: tables, and what is long behind a click.
//!
//! Names from logs are text that nobody may take for markup. They stand in `<code>` with all that could mean something to Markdown or HTML
//! as character references, which can't begin or end anything; and in fenced blocks, whose fence is longer than any in the text.

use std::fmt::Write as _;

use report::text::{OneLine, cut};

use crate::{
    Guarding, Summary,
    run::Run,
    words::{bytes, counted, grouped},
};

/// How many rows a table has at the most, and how many denials are explained.
const ROWS: usize = 100;
const EXPLAINED: usize = 50;

/// How many bytes of Markdown there are at the most: a job summary of GitHub has room for 1 MiB.
const LONGEST: usize = 900_000;

/// The summary as Markdown.
#[must_use]
pub fn markdown(summary: &Summary) -> String {
    let mut page = Page(format!("## guard-run: {}\n", summary.headline()));
    page.runs(summary);
    page.tests(summary);
    page.destinations(summary);
    page.denials(summary);
    page.changes(summary);
    page.flows(summary);
    if summary.further > 0 {
        page.line(&format!("And {} that are not listed.", counted(summary.further, "denial or flow")));
    }
    let Page(text) = page;
    if text.len() <= LONGEST {
        return text;
    }
    // A block that was cut open ends here.
    let fence = fence(&text);
    format!("{}\n\n{fence}\n{fence}\n\n**Cut: the report is too long for a summary.**\n", cut(&text, LONGEST))
}

struct Page(String);

impl Page {
    fn line(&mut self, line: &str) {
        let _ = writeln!(self.0, "\n{line}");
    }

    /// A table. What there is no room for is counted.
    fn table(&mut self, head: &[&str], rows: impl ExactSizeIterator<Item = Vec<String>>) {
        let more = rows.len().saturating_sub(ROWS);
        let _ = writeln!(self.0, "\n| {} |\n|{}", head.join(" | "), "---|".repeat(head.len()));
        for row in rows.take(ROWS) {
            let _ = writeln!(self.0, "| {} |", row.join(" | "));
        }
        if more > 0 {
            self.line(&format!("And {more} more."));
        }
    }

    fn block(&mut self, language: &str, text: &str) {
        let fence = fence(text);
        let _ = writeln!(self.0, "\n{fence}{language}\n{}\n{fence}", text.trim_end_matches('\n'));
    }

    fn runs(&mut self, summary: &Summary) {
        if !summary.is_guarded() {
            self.line("> [!CAUTION]\n> Not all runs are known to have been guarded. No denials there means nothing.");
        }
        self.line("### What was enforced");
        self.table(
            &["run", "policy", "guard", "end"],
            summary.runs.iter().map(|run| {
                let guard = if matches!(run.guarding, Guarding::Enforced | Guarding::Audited) { "" } else { "🔴 " };
                let policy = code(summary.policy_name(run.policy));
                vec![code(&run.name()), policy, format!("{guard}{}", text(&run.guard())), run.end().unwrap_or_default()]
            }),
        );
        for run in summary.runs.iter().take(ROWS) {
            self.run(run);
        }
    }

    fn run(&mut self, run: &Run) {
        if !run.doubts.is_empty() {
            self.0.push('\n');
        }
        for doubt in &run.doubts {
            let _ = writeln!(self.0, "- ⚠️ {}: {}", code(&run.name()), text(doubt));
        }
        if run.hooks.is_empty() {
            return;
        }
        let programs = counted(run.hooks.len() as u64, "program");
        self.line(&format!("<details><summary>The {programs} of {}</summary>", code(&run.name())));
        self.table(
            &["hook", "program", "tag", "allowed", "denied", "audited"],
            run.hooks.iter().map(|hook| {
                let numbers = [hook.allowed, hook.denied, hook.audited].map(grouped);
                let names = [code(&hook.hook), hook.program_id.to_string(), code(&hook.tag)];
                names.into_iter().chain(numbers).collect()
            }),
        );
        self.line("</details>");
    }

    fn tests(&mut self, summary: &Summary) {
        if summary.tests.is_empty() {
            return;
        }
        self.line("### Denials by test");
        let row = |part: &crate::TestPart| {
            let what = part.denials.iter().take(EXPLAINED).map(|known| code(&summary.denials[known.denial].what()));
            vec![code(&part.test.to_string()), what.collect::<Vec<_>>().join("<br>"), grouped(part.count)]
        };
        self.table(&["test", "denied", "times"], summary.tests.iter().map(row));
        if summary.unattributed > 0 {
            self.line(&format!("And {} of no test that is known.", counted(summary.unattributed, "denial")));
        }
    }

    fn destinations(&mut self, summary: &Summary) {
        if summary.denials.is_empty() {
            return;
        }
        self.line("### Denials by destination");
        let row = |part: &crate::Destination| vec![code(&part.name), grouped(part.count)];
        self.table(&["destination", "times"], summary.destinations.iter().map(row));
        self.line("### Denials by rule");
        let row = |part: &crate::RulePart| {
            let line = part.line.map(|line| line.to_string()).unwrap_or_default();
            vec![code(&part.rule), code(summary.policy_name(part.policy)), line, grouped(part.count)]
        };
        self.table(&["rule", "policy", "line", "times"], summary.rules.iter().map(row));
    }

    fn denials(&mut self, summary: &Summary) {
        for denial in summary.denials.iter().take(EXPLAINED) {
            let times = grouped(denial.why.count);
            self.line(&format!("<details><summary>Why {} was denied ({times}×)</summary>", code(&denial.what())));
            self.block("text", &denial.why.to_string());
            self.line("</details>");
        }
        if let Some(more @ 1..) = summary.denials.len().checked_sub(EXPLAINED) {
            self.line(&format!("And {} more: `guard-run why LOG` explains them.", counted(more as u64, "kind")));
        }
    }

    fn changes(&mut self, summary: &Summary) {
        for part in &summary.policies {
            if let Some(problem) = &part.problem {
                self.line(&format!("⚠️ {}", text(problem)));
            }
            if part.changed {
                let path = code(part.path.as_deref().unwrap_or_default());
                self.line(&format!("⚠️ {path} has changed since: this is about what it says now."));
            }
            let Some(suggestion) = &part.suggestion else { continue };
            if !suggestion.is_empty() || !suggestion.apart.is_empty() {
                self.line("### The change that would allow it");
                self.block("text", &suggestion.to_string());
            }
        }
    }

    fn flows(&mut self, summary: &Summary) {
        if summary.flows.is_empty() {
            return;
        }
        self.line("### What was reached");
        self.table(
            &["program", "", "peer", "extent", "sent", "received"],
            summary.flows.iter().map(|flow| {
                let arrow = if flow.outgoing { "→" } else { "←" };
                let (program, peer) = (code(&flow.program), code(&flow.destination));
                vec![program, arrow.to_owned(), peer, flow.extent(), bytes(flow.sent), bytes(flow.received)]
            }),
        );
    }
}

/// A name, which is nothing but text wherever it stands.
fn code(name: &str) -> String {
    format!("<code>{}</code>", text(name))
}

/// A text, which is nothing but that wherever it stands in a line.
fn text(text: &str) -> String {
    OneLine(text).to_string().chars().fold(String::new(), |mut escaped, character| {
        match character {
            'a'..='z' | 'A'..='Z' | '0'..='9' | ' ' | '-' | '/' | ',' => escaped.push(character),
            '\0'..='\x7f' => {
                let _ = write!(escaped, "&#{};", u32::from(character));
            }
            character => escaped.push(character),
        }
        escaped
    })
}

/// A fence that is longer than any in a text.
fn fence(text: &str) -> String {
    let longest = text.split(|character| character != '`').map(str::len).max().unwrap_or(0);
    "`".repeat(longest.max(2) + 1)
}
