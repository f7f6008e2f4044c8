//! Explanations for people.

use std::{
    fmt::{self, Write as _},
    iter,
};

use policy::Machine;
use report::{Process, Verdict, text::OneLine};
use serde_json::Value;

use super::{Denial, NearestRule, Report, Way, Written, ways};
use crate::{
    Guard,
    asked::Asked,
    extent::{grouped, listed, plain},
    guard::written,
    nearest::PLACE,
    patch,
};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.changed {
            writeln!(f, "{} has changed since: this is about what it says now", OneLine(&self.policy))?;
        }
        for (number, denial) in self.denials.iter().enumerate() {
            let gap = if number > 0 || self.changed { "\n" } else { "" };
            write!(f, "{gap}{}. {denial}", number + 1)?;
        }
        for (count, what) in [(self.further, "of further kinds"), (self.lost, "counted, but not recorded one by one")] {
            if count > 0 {
                writeln!(f, "\nand {} {what}", grouped(count))?;
            }
        }
        Ok(())
    }
}

/// A line of an explanation: what it is about, and what it says. Nothing in it steers a terminal.
fn line(f: &mut fmt::Formatter<'_>, head: &str, what: impl fmt::Display) -> fmt::Result {
    f.write_str(&headed(head, &[what]))
}

/// Lines of which the first says what they are about.
fn headed(head: &str, lines: &[impl fmt::Display]) -> String {
    let heads = [head].into_iter().chain(iter::repeat(""));
    heads.zip(lines).fold(String::new(), |mut text, (head, line)| {
        let _ = writeln!(text, "   {head:9} {}", OneLine(line));
        text
    })
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { op, subject, count, rule, .. } = self;
        let times = if *count > 1 { format!(" ×{}", grouped(*count)) } else { String::new() };
        let verdict = if self.verdict == Verdict::Audited { "would be denied" } else { "denied" };
        writeln!(f, "{}{times}: {verdict} by {}", OneLine(format!("{op} {subject}")), OneLine(rule))?;
        for process in &self.processes {
            line(f, "who", Who(process))?;
        }
        if self.more_processes > 0 {
            line(f, "", format!("and others, {} times", grouped(self.more_processes)))?;
        }
        if let Some(decides) = &self.decides {
            line(f, "rule", decides)?;
        }
        if let Some(reason) = &self.reason {
            line(f, "reason", reason)?;
        }
        for hardening in &self.hardening {
            line(f, "part", format!("{}: {}", hardening.part, hardening.why))?;
        }
        if let Some(nearest) = &self.nearest {
            f.write_str(&headed("nearest", &nearest.lines()))?;
        }
        self.ways.iter().try_for_each(|way| f.write_str(&headed("allow by", &way.lines())))?;
        self.notes.iter().try_for_each(|note| line(f, "note", note))
    }
}

/// A process that asked, in words: its command line, its ids and its parent.
#[derive(Debug)]
pub struct Who<'a>(pub &'a Process);

impl fmt::Display for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Process { pid, uid, comm, details }) = self;
        match &details.argv {
            Some(argv) => f.write_str(&argv.join(" "))?,
            None => f.write_str(comm)?,
        }
        match pid {
            Some(pid) => write!(f, " (pid {pid}, uid {uid}")?,
            None => write!(f, " (several processes, uid {uid}")?,
        }
        if let Some(exe) = &details.exe {
            write!(f, ", {exe}")?;
        }
        if let Some(parent) = &details.parent {
            let comm = parent.comm.as_deref().unwrap_or("a process that has ended");
            write!(f, ", child of {comm} {}", parent.pid)?;
        }
        f.write_str(")")
    }
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.pointer)?;
        if let Some(line) = self.line {
            write!(f, " (line {line})")?;
        }
        write!(f, ": {}", written(&self.value))
    }
}

impl NearestRule {
    /// The rule, and what the request misses of it, in lines for people.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let missed = self.missed.iter().map(|missed| match (missed.property, &missed.known) {
            (PLACE, _) => format!("  stands behind {}, which decides first", missed.value),
            ("private", _) => format!("  private: {} is a private address, which the rule does not mean", missed.value),
            (property, Value::Array(list)) => {
                let of = self.host.as_ref().filter(|_| property == "ports");
                let of = of.map_or_else(String::new, |host| format!(" of {host}"));
                format!("  {property}: {} is not in {}{of}", missed.value, listed(list, ", "))
            }
            (property, known) => format!("  {property}: {} is not {}", missed.value, plain(known)),
        });
        [self.rule.to_string()].into_iter().chain(missed).collect()
    }
}

impl Way {
    /// The patch as JSON, an operation on each line.
    #[must_use]
    pub fn patch_text(&self) -> String {
        patch::lines(&self.patch).join("\n")
    }

    /// The patch, the condition under which it helps, and what it grants beyond, in lines for people.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = patch::lines(&self.patch);
        lines.extend(self.when.map(|when| format!("  helps {when}")));
        lines.extend(self.assumes.iter().map(|assumes| format!("  assumes {assumes}")));
        lines.push(format!("  grants beyond this: {}", self.beyond));
        lines
    }
}

/// What there is to say about one request that is denied.
pub(super) fn of_request(guard: &Guard, asked: &Asked, machine: &impl Machine) -> String {
    let Some(decision) = asked.judge(&guard.tables).filter(|decision| !decision.allow) else { return String::new() };
    let nearest = super::nearest_rule(guard, asked, decision);
    let nearest = nearest.map(|nearest| headed("nearest", &nearest.lines())).unwrap_or_default();
    let ways = match ways::all(guard, asked, decision, machine) {
        Ok(ways) => ways.iter().map(|way| headed("allow by", &way.lines())).collect(),
        Err(why) => headed("note", &[why]),
    };
    nearest + &ways
}
