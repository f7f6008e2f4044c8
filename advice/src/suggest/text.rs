//! Suggestions for people.

use std::{fmt, path::Path};

use report::text::OneLine;

use super::{Denied, Suggestion};
use crate::{
    extent::{counted, grouped},
    guard::written,
    patch,
};

impl Suggestion {
    /// The patch as JSON, an operation on each line.
    #[must_use]
    pub fn patch_text(&self) -> String {
        patch::lines(&self.patch).join("\n")
    }
}

impl fmt::Display for Suggestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { policy, patch, assumes, allows, denials, apart, allowed_already, further, .. } = self;
        if self.is_empty() {
            writeln!(f, "{}: nothing to change", OneLine(policy))?;
        } else {
            writeln!(f, "{}:", OneLine(policy))?;
            for line in patch::lines(patch) {
                writeln!(f, "  {}", OneLine(line))?;
            }
            writeln!(f, "allows, and nothing else:")?;
            for rule in allows {
                writeln!(
                    f,
                    "  {}: {}",
                    OneLine(&rule["section"].as_str().unwrap_or_default()),
                    OneLine(written(&rule["rule"]))
                )?;
            }
            for assumption in assumes {
                writeln!(f, "assumes {}", OneLine(assumption))?;
            }
            writeln!(f, "which is for:")?;
            for denied in denials {
                writeln!(f, "  {denied}")?;
            }
        }
        if !apart.is_empty() {
            writeln!(f, "not suggested, but for you to decide (`guard-run why` has the patches):")?;
            for apart in apart {
                writeln!(f, "  {}: {}", apart.denied, OneLine(&apart.why))?;
            }
        }
        for (count, one, many) in [
            (
                *allowed_already as u64,
                "kind of denial is allowed by the policy already",
                "kinds of denials are allowed by the policy already",
            ),
            (
                *further,
                "denial of a further kind was not looked at: change the policy, and run it again",
                "denials of further kinds were not looked at: change the policy, and run it again",
            ),
        ] {
            if count > 0 {
                writeln!(f, "{}", counted(count, one, many))?;
            }
        }
        Ok(())
    }
}

/// How many kinds of denials, and operations of a patch, are in the lines for one who has not asked.
const BRIEF: usize = 12;

impl Suggestion {
    /// What is new by these denials, who asked, and the change that would allow it, in a few lines. The denials are in a log, if it is a
    /// file.
    #[must_use]
    pub fn brief(&self, log: Option<&Path>) -> Vec<String> {
        let kinds = self.denials.len() + self.apart.len();
        let wanted = self.denials.iter().map(|denied| format!("new: {denied}"));
        let apart =
            self.apart.iter().map(|apart| format!("new, and for you to decide: {}: {}", apart.denied, apart.why));
        let mut lines: Vec<String> = wanted.chain(apart).take(BRIEF).collect();
        if kinds > BRIEF {
            lines.push(format!("new: {}", counted((kinds - BRIEF) as u64, "other kind", "other kinds")));
        }
        lines.extend(self.assumes.iter().map(|assumption| format!("assumed: {assumption}")));
        let patch = patch::lines(&self.patch);
        if !self.is_empty() && patch.len() <= BRIEF {
            lines.push(format!("if that is meant, change {}:", OneLine(&self.policy)));
            lines.extend(patch.into_iter().map(|line| format!("  {line}")));
        }
        if let Some(log) = log.filter(|_| !self.is_empty()) {
            lines.push(format!("which this does: guard-run suggest --apply {}", OneLine(log.display())));
        }
        lines
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, count, who } = self;
        let times = if *count > 1 { format!(" ×{}", grouped(*count)) } else { String::new() };
        write!(f, "{}{times} ({})", OneLine(what), OneLine(who))
    }
}
