//! The summary as text for a terminal.

use std::fmt;

use report::text::OneLine;

use crate::{
    Summary,
    run::Guarding,
    summary::{Flow, PolicyPart},
    words::{bytes, counted, grouped, times},
};

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.headline())?;
        self.write_runs(f)?;
        self.write_tests(f)?;
        if !self.destinations.is_empty() {
            writeln!(f, "\nBy destination")?;
            self.destinations.iter().try_for_each(|destination| {
                writeln!(f, "  {}{}", OneLine(&destination.name), times(destination.count))
            })?;
            writeln!(f, "\nBy rule")?;
            self.rules.iter().try_for_each(|rule| {
                let line = rule.line.map(|line| format!(", line {line}")).unwrap_or_default();
                let policy = OneLine(self.policy_name(rule.policy));
                writeln!(f, "  {} ({policy}{line}){}", OneLine(&rule.rule), times(rule.count))
            })?;
        }
        self.write_denials(f)?;
        for part in &self.policies {
            part.write(f)?;
        }
        if !self.flows.is_empty() {
            writeln!(f, "\nReached")?;
            self.flows.iter().try_for_each(|flow| writeln!(f, "  {}", OneLine(flow)))?;
        }
        if self.further > 0 {
            writeln!(f, "\nand {} that are not listed", counted(self.further, "denial or flow"))?;
        }
        Ok(())
    }
}

impl Summary {
    /// What all of it comes to, in a line.
    #[must_use]
    pub fn headline(&self) -> String {
        let refused = self.denials.iter().any(|denial| denial.refused);
        let verdict = if refused || self.denials.is_empty() { "denied" } else { "would have been denied" };
        let runs = counted(self.runs.len() as u64, "run");
        let mut line = match self.denied() {
            0 => format!("nothing was {verdict} in {runs}"),
            1 => format!("1 request {verdict} in {runs}"),
            count => format!(
                "{} requests of {} {verdict} in {runs}",
                grouped(count),
                counted(self.denials.len() as u64, "kind")
            ),
        };
        if !self.is_guarded() {
            line.push_str("; NOT ALL RUNS ARE KNOWN TO HAVE BEEN GUARDED");
        }
        line
    }

    fn write_runs(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nRuns")?;
        for (number, run) in self.runs.iter().enumerate() {
            writeln!(f, "  {}. {}", number + 1, OneLine(run.name()))?;
            let policy = OneLine(self.policy_name(run.policy));
            writeln!(f, "     policy {policy}: {}", OneLine(run.guard()))?;
            if let Some(end) = run.end() {
                writeln!(f, "     {end}")?;
            }
            for doubt in &run.doubts {
                let mark = if matches!(run.guarding, Guarding::Unknown | Guarding::Nothing) { "!!" } else { " !" };
                writeln!(f, "  {mark} {}", OneLine(doubt))?;
            }
            if !run.hooks.is_empty() {
                let head = ["hook", "program", "tag", "allowed", "denied", "audited"];
                let [hook, program, tag, allowed, denied, audited] = head;
                writeln!(f, "     {hook:16} {program:>8} {tag:16} {allowed:>10} {denied:>8} {audited:>8}")?;
            }
            for hook in &run.hooks {
                let report::HookCounts { program_id, tag, allowed, denied, audited, .. } = hook;
                let name = OneLine(&hook.hook).to_string();
                let tag = OneLine(tag).to_string();
                writeln!(f, "     {name:16} {program_id:>8} {tag:16} {allowed:>10} {denied:>8} {audited:>8}")?;
            }
        }
        Ok(())
    }

    fn write_tests(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tests.is_empty() {
            return Ok(());
        }
        writeln!(f, "\nBy test")?;
        for part in &self.tests {
            writeln!(f, "  {}", OneLine(&part.test))?;
            for known in &part.denials {
                writeln!(f, "    {}{}", OneLine(self.denials[known.denial].what()), times(known.count))?;
            }
        }
        if self.unattributed > 0 {
            writeln!(f, "  {} of no test that is known", counted(self.unattributed, "denial"))?;
        }
        Ok(())
    }

    fn write_denials(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.denials.is_empty() {
            return Ok(());
        }
        writeln!(f, "\nDenials")?;
        self.denials.iter().enumerate().try_for_each(|(number, denial)| write!(f, "{}. {}", number + 1, denial.why))
    }
}

impl PolicyPart {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(problem) = &self.problem {
            writeln!(f, "\n ! {}", OneLine(problem))?;
        }
        if self.changed {
            let path = self.path.as_deref().unwrap_or_default();
            writeln!(f, "\n ! {} has changed since: this is about what it says now", OneLine(path))?;
        }
        match &self.suggestion {
            Some(suggestion) if !suggestion.is_empty() || !suggestion.apart.is_empty() => {
                write!(f, "\nSuggested change of {suggestion}")
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { program, destination, outgoing, sent, received, .. } = self;
        let arrow = if *outgoing { "→" } else { "←" };
        write!(f, "{program} {arrow} {destination}: {}", self.extent())?;
        write!(f, ", {} sent, {} received", bytes(*sent), bytes(*received))
    }
}

impl Flow {
    /// How many connections and datagrams there were, in words.
    #[must_use]
    pub fn extent(&self) -> String {
        let extents = [(self.connections, "connection"), (self.datagrams, "datagram")];
        let extents = extents.into_iter().filter(|(count, _)| *count > 0);
        let extents: Vec<String> = extents.map(|(count, what)| counted(count, what)).collect();
        if extents.is_empty() { "no connection".to_owned() } else { extents.join(", ") }
    }
}
