//! What came out, vector by vector.

use nix::sys::utsname::uname;
use policy::Part;
use serde::Serialize;

use super::{
    NO, OK,
    attempt::Stop,
    process::word,
    runner::Tried,
    vector::{Control, Layer, Vector},
};

/// The verdict on a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    /// The vector is a way out, and it is closed.
    Stopped,
    /// The vector is a way out, and it is open.
    Out,
    /// The vector is a way out that the policy allows.
    Allowed,
    /// The vector could not be tried.
    Missing,
    /// The vector could not be tried, and that was declared.
    DeclaredMissing,
}

/// What stopped an attempt.
#[derive(Debug, Serialize)]
struct StoppedBy {
    /// The measure: for a denial in the log, the hook; otherwise what the vector expects.
    layer: Layer,
    /// The hooks that denied something.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hooks: Vec<String>,
    /// By these rules.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rules: Vec<String>,
    /// As the attempt saw it.
    #[serde(flatten)]
    stop: Stop,
}

/// A line of the matrix.
#[derive(Debug, Serialize)]
struct Row {
    family: &'static str,
    name: &'static str,
    shows: &'static str,
    verdict: Verdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped_by: Option<StoppedBy>,
    /// What of "allow" makes it a way out.
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed_by: Option<Part>,
    /// Why it could not be tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<String>,
}

/// The matrix, printed line by line.
#[derive(Debug, Serialize)]
pub struct Matrix {
    version: &'static str,
    kernel: String,
    vectors: Vec<Row>,
    #[serde(skip)]
    json: bool,
}

impl Matrix {
    /// An empty one.
    ///
    /// # Errors
    ///
    /// When the kernel does not say its name.
    pub fn new(json: bool) -> anyhow::Result<Self> {
        let kernel = uname()?.release().to_string_lossy().into_owned();
        let version = env!("CARGO_PKG_VERSION");
        if !json {
            println!("guard-run {version} on Linux {kernel}");
            println!("{:<12} {:<26} {:<8} {:<8} stopped by", "family", "vector", "bare", "guarded");
        }
        Ok(Self { version, kernel, vectors: Vec::new(), json })
    }

    /// Adds what came out of a vector. `declared`: it need not be possible here. `allowed`: the policy allows it by this.
    pub fn add(
        &mut self,
        (family, vector): (&'static str, &Vector),
        (bare, guarded): (Tried, Tried),
        declared: bool,
        allowed: Option<Part>,
    ) {
        let missing = if declared { Verdict::DeclaredMissing } else { Verdict::Missing };
        let (mut verdict, mut stopped_by, mut why) = (missing, None, None);
        match (bare, guarded) {
            // Whatever the control says.
            (_, Tried::Out) => verdict = if allowed.is_some() { Verdict::Allowed } else { Verdict::Out },
            (Tried::CouldNot(reason), _) => why = Some(format!("without the guard: {reason}")),
            (Tried::Stopped { stop, .. }, _) => why = Some(format!("without the guard: {}", stop.step)),
            (Tried::Out, Tried::CouldNot(reason)) => why = Some(format!("under the guard: {reason}")),
            (Tried::Out, Tried::Stopped { stop, denials }) => {
                verdict = Verdict::Stopped;
                // A launcher that was killed leaves no log; but nothing else refuses that step.
                let killed = vector.control == Control::StandIn && stop.step == "connect";
                let layer = if denials.is_empty() && !killed { vector.layer } else { Layer::Hook };
                let (hooks, rules) = denials.into_iter().unzip();
                stopped_by = Some(StoppedBy { layer, hooks, rules, stop });
            }
        }
        let allowed_by = allowed.filter(|_| verdict == Verdict::Allowed);
        let row = Row { family, name: vector.name, shows: vector.shows, verdict, stopped_by, allowed_by, missing: why };
        if !self.json {
            println!("{}", row.line());
        }
        self.vectors.push(row);
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.vectors.iter().filter(|row| row.verdict == verdict).count()
    }

    /// Prints the sums, and returns the exit status.
    ///
    /// # Errors
    ///
    /// When the matrix can't be written.
    pub fn conclude(&self) -> anyhow::Result<u8> {
        let [stopped, out, allowed] = [Verdict::Stopped, Verdict::Out, Verdict::Allowed].map(|it| self.count(it));
        let [missing, declared] = [Verdict::Missing, Verdict::DeclaredMissing].map(|it| self.count(it));
        if self.json {
            println!("{}", serde_json::to_string_pretty(self)?);
        } else {
            println!(
                "{} vectors: {stopped} stopped, {out} ways out, {} could not be tried{}",
                self.vectors.len(),
                missing + declared,
                if allowed > 0 { format!(", {allowed} allowed") } else { String::new() }
            );
            for row in self.vectors.iter().filter(|row| row.verdict == Verdict::Out) {
                println!("WAY OUT: {}/{}: {}", row.family, row.name, row.shows);
            }
            for row in self.vectors.iter().filter(|row| row.verdict == Verdict::Missing) {
                println!(
                    "not tried, and not declared by --allow-missing: {}/{}: {}",
                    row.family,
                    row.name,
                    row.missing.as_deref().unwrap_or_default()
                );
            }
        }
        Ok(if out + missing == 0 { OK } else { NO })
    }
}

impl Row {
    fn line(&self) -> String {
        let (bare, guarded) = match self.verdict {
            Verdict::Stopped => ("out", "stopped"),
            Verdict::Out => ("out", "OUT"),
            Verdict::Allowed => ("out", "allowed"),
            Verdict::Missing | Verdict::DeclaredMissing => ("-", "-"),
        };
        let by = match (&self.stopped_by, self.allowed_by, &self.missing) {
            (Some(by), ..) => by.text(),
            (None, Some(part), _) => format!("nothing: --allow {}", word(part)),
            (None, None, Some(missing)) => missing.clone(),
            (None, None, None) => String::new(),
        };
        format!("{:<12} {:<26} {bare:<8} {guarded:<8} {by}", self.family, self.name).trim_end().to_owned()
    }
}

impl StoppedBy {
    fn text(&self) -> String {
        let seen = match &self.stop.errno {
            Some(errno) => format!("{}: {errno}", self.stop.step),
            None => self.stop.step.to_string(),
        };
        match (self.hooks.first(), self.rules.first()) {
            (Some(hook), Some(rule)) => format!("{hook} [{rule}] ({seen})"),
            _ => format!("{} ({seen})", self.layer.name()),
        }
    }
}
