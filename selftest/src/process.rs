//! The section `process` of the self-test's policies. They have none, unless something of what keeps commands inside is to
//! be done without, because this kernel can't do it, or to see what it is good for.

use std::{fs, process::Command};

use anyhow::{Context as _, bail};
use clap::Args;
use policy::Part;
use serde::{
    Deserialize as _,
    de::{IntoDeserializer as _, value::Error},
};
use serde_json::json;

use super::{Role, guard::Programs, vector::Vector};

/// The parts that the policies disable.
#[derive(Args, Clone, Debug, Default)]
pub struct Process {
    /// Try what is left of the guard with this in place of "full" as "isolation" of the policies
    #[arg(long, value_name = "ISOLATION", conflicts_with = "allow")]
    isolation: Option<String>,
    /// Have the policies "allow" this, which this kernel can't prevent, and don't fail because it is a way out
    #[arg(long, value_name = "PART", value_delimiter = ',', value_parser = part)]
    allow: Vec<Part>,
}

/// What nothing is denied for.
const NOTHING_DENIED: Vector = Vector::new("", "", "", |_| Ok(Vec::new()));

impl Process {
    /// Whether the policies allow what this part of the guard prevents.
    pub fn allows(&self, part: Part) -> bool {
        self.allow.contains(&part)
    }

    /// The section, by which a command keeps these capabilities, too; nothing where it is left out.
    pub fn section(&self, capabilities: &[&str]) -> Option<String> {
        let mut section = match (&self.isolation, &*self.allow) {
            (Some(isolation), _) => json!({"isolation": isolation}),
            (None, []) => json!({}),
            (None, allow) => json!({"allow": allow}),
        };
        if !capabilities.is_empty() {
            section["capabilities"] = json!(capabilities);
        }
        (section != json!({})).then(|| format!("\"process\": {section}"))
    }

    /// Only the programs on the cgroup.
    pub fn cgroup_only() -> Self {
        Self { isolation: Some("cgroup-only".to_owned()), allow: Vec::new() }
    }

    /// Checks that guard-run can keep commands inside here as the section says; otherwise nothing could be tried.
    ///
    /// # Errors
    ///
    /// When it can't, with what it says.
    pub fn require(&self, programs: &Programs) -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let policy = folder.path().join("policy.json");
        fs::write(&policy, super::runner::policy(&NOTHING_DENIED, self, (0, 0, None)))?;
        let mut command = Command::new(&programs.guard_run);
        command.arg("--policy").arg(&policy).arg("--log").arg(folder.path().join("log.json"));
        command.args(["--quiet", "--"]).arg(&programs.own).args(Role::Nothing.arguments());
        let output = command.output().with_context(|| programs.guard_run.display().to_string())?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().last().unwrap_or("guard-run failed without a word").trim_start_matches("guard-run: ");
        match parts_in(said) {
            Some(parts) => bail!("{said}; and to the self-test: --allow {}", parts.join(",")),
            None => bail!("{said}"),
        }
    }
}

/// The parts that a message of guard-run's says to allow: the list behind `"allow":`.
fn parts_in(said: &str) -> Option<Vec<String>> {
    let (_, list) = said.split_once("\"allow\": ")?;
    let end = list.find(']')?;
    serde_json::from_str(&list[..=end]).ok()
}

/// A part by its word.
fn part(word: &str) -> Result<Part, Error> {
    Part::deserialize(word.into_deserializer())
}

/// The word of a part.
pub fn word(part: Part) -> String {
    json!(part).as_str().unwrap_or_default().to_owned()
}
