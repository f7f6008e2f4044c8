//! The policy that a container asks for, as far as it can be judged by itself: guard-runtime does that before there is a
//! container, since not every runtime shows what a hook says, and the hook once more, as it is what enforces it.

use std::path::Path;

use anyhow::Context as _;
use enforce::include::Included;
use policy::{Document, Part, ProcessSection, Resolved};

use crate::{annotations::POLICY, inside::Inside, trusted::open_roots_file};

/// The member of the process section that matters for containers, too.
const ACCEPTED: &str = "capabilities";

/// Reads a policy for a container. It may be one for commands, too: of its process section, only the capabilities count here, and for
/// guard-runtime the architectures.
///
/// # Errors
///
/// When it can't be read, somebody else than root could have written it, or put it there, or it is no policy.
pub fn read(path: &Path, inside: &Inside) -> anyhow::Result<(Document, Resolved)> {
    let file = open_roots_file(path).context(POLICY)?;
    let document = Document::of_file(path, file)?;
    let open = |path: &Path| open_roots_file(path).map_err(|error| format!("{:#}", anyhow::Error::from(error)));
    let mut policy = document.parse_with(&Included(open))?;
    // Who may write tunables that no rule is about is the engine's business, too: runtimes write some in the container's
    // process, podman has one by default.
    let allow = vec![Part::Sysctls];
    let ProcessSection { capabilities, architectures, .. } = policy.process;
    policy.process = ProcessSection { capabilities, architectures, allow, ..ProcessSection::default() };
    let policy = policy.resolve(&document, inside)?;
    Ok((document, policy))
}

/// What a policy says that is the engine's business with containers, and not done here: JSON pointers, sorted.
#[must_use]
pub fn left_to_engine(document: &Document) -> Vec<String> {
    let members = document.process_members().into_iter();
    members.filter(|name| name != ACCEPTED).map(|name| format!("/process/{name}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_commands_is_left_to_the_engine() {
        for (text, expected) in [
            (r#"{"version": 1}"#, &[][..]),
            (r#"{"version": 1, "process": {}}"#, &[]),
            (r#"{"version": 1, "process": {"capabilities": ["CAP_NET_RAW"]}}"#, &[]),
            (
                r#"{"version": 1, "process": {"isolation": "full", "capabilities": [], "allow": ["namespaces"]}}"#,
                &["/process/allow", "/process/isolation"],
            ),
        ] {
            let document = Document::new(Path::new("test"), text.into());
            assert_eq!(left_to_engine(&document), expected, "{text}");
        }
    }
}
