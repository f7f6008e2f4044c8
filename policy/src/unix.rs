//! Rules of the unix section.

use common::unix::NAME_LEN;
use serde::{Deserialize, Serialize};

use super::{
    Action, Rule,
    error::{did_you_mean, unexpanded},
    glob::Glob,
    section::{is_reported, non_empty, reason, reported},
};

/// The longest abstract name: an address has 108 bytes (`UNIX_PATH_MAX`, include/uapi/linux/un.h), the first a NUL.
const MAX_ABSTRACT: usize = 107;

/// What a rule calls sockets that have no name.
const UNNAMED: &str = "unnamed";

/// What a rule calls sockets that the same sandbox has made.
const SANDBOX: &str = "sandbox";

/// A rule on Unix sockets.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct UnixRule {
    /// What happens to the requests that match.
    pub action: Action,
    /// Whether what it denies is reported.
    #[serde(default = "reported", skip_serializing_if = "is_reported")]
    pub report: bool,
    /// The peers; `None` are all that have a name.
    #[serde(default, deserialize_with = "non_empty", skip_serializing_if = "Option::is_none")]
    pub paths: Option<Vec<SocketPattern>>,
    /// Why it is there, for anybody who meets it.
    #[serde(default, deserialize_with = "reason", skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Rule for UnixRule {
    fn action(&self) -> Action {
        self.action
    }

    fn reports(&self) -> bool {
        self.report
    }

    fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }
}

/// One or more sockets.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum SocketPattern {
    /// Sockets without a name.
    Unnamed,
    /// Those that the same sandbox has made, whatever name they have.
    Sandbox,
    /// Those with such a name: a path, or `@` and an abstract name.
    Named(Glob),
}

impl TryFrom<String> for SocketPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == UNNAMED {
            return Ok(Self::Unnamed);
        }
        if text == SANDBOX {
            return Ok(Self::Sandbox);
        }
        if text.is_empty() {
            return Err("a socket's path can't be empty; write \"*\" to mean all".to_owned());
        }
        if let Some(name) = text.strip_prefix('@') {
            if name.len() > MAX_ABSTRACT {
                let length = name.len();
                return Err(format!("abstract name of {length} bytes; the longest possible has {MAX_ABSTRACT}"));
            }
        } else if text.len() >= NAME_LEN {
            let (length, max) = (text.len(), NAME_LEN - 1);
            return Err(format!("socket path of {length} bytes; the longest that can be judged has {max}"));
        } else if text.starts_with('/') {
            if text.ends_with('/') || text.split('/').skip(1).any(|part| ["", ".", ".."].contains(&part)) {
                return Err(format!(
                    "socket path \"{text}\" has an empty part or a dot for one, so it would never match"
                ));
            }
        } else if let Some(hint) = unexpanded(&text) {
            return Err(format!("socket path \"{text}\": {hint}"));
        } else if !text.starts_with(['*', '?']) {
            let hint = did_you_mean(&text, &[UNNAMED, SANDBOX]);
            return Err(format!(
                "socket path \"{text}\" is relative{hint}; write \"/{text}\", or \"@{text}\" for an abstract name"
            ));
        }
        Glob::new(text, "socket path", |c| c != '\0').map(Self::Named)
    }
}

impl From<SocketPattern> for String {
    fn from(pattern: SocketPattern) -> Self {
        match pattern {
            SocketPattern::Unnamed => UNNAMED.to_owned(),
            SocketPattern::Sandbox => SANDBOX.to_owned(),
            SocketPattern::Named(glob) => glob.into(),
        }
    }
}
