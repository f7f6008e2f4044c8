//! Host names in network rules: `api.example.org`, and `*.example.org` for all names below it.

use std::{fmt, str::FromStr};

use common::name::LONGEST;

/// The longest label of a name.
const LONGEST_LABEL: usize = 63;

/// A host name, or all names below one, at any depth.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName {
    /// In small letters, international ones encoded (RFC 5891), without a dot at the end and without the asterisk.
    name: String,
    below: bool,
}

impl HostName {
    /// The name, or the one below which all are meant.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a name is meant, or a wildcard that means nothing but such names. It is written in small letters, without a dot at the end.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        match name.strip_suffix(&self.name) {
            Some("") => !self.below,
            Some(rest) => self.below && rest.ends_with('.'),
            None => false,
        }
    }

    /// Whether all names below it are meant, and not the name itself.
    #[must_use]
    pub const fn is_wildcard(&self) -> bool {
        self.below
    }

    /// Whether this is meant to be the name of a host, and not an address or a word that was misspelt.
    pub(super) fn is_meant(text: &str) -> bool {
        let text = text.strip_suffix('.').unwrap_or(text);
        // The last label of a name is never a number, that of an IPv4 address always is (RFC 1123, section 2.1), also in the ways to
        // write one that inet_aton(3) knows.
        let last = text.rsplit('.').next().unwrap_or(text);
        let number = match last.strip_prefix("0x").or_else(|| last.strip_prefix("0X")) {
            Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
            None => last.bytes().all(|byte| byte.is_ascii_digit()),
        };
        let of_v6 = |byte: u8| byte.is_ascii_hexdigit() || b":./[]".contains(&byte);
        let looks_like_v6 = text.matches(':').count() > 1 && text.bytes().all(of_v6);
        !text.is_empty() && !number && !looks_like_v6 && !text.contains('%')
    }

    /// A name as somebody writes it in a policy.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let refused = |why: String| Err(format!("\"{text}\": {why}"));
        if let Some((_, rest)) = text.split_once("://") {
            let host = rest.split(['/', ':', '?', '#']).next().unwrap_or_default();
            return refused(format!(
                "this is a URL; write the name of its host alone, \"{host}\", and its port in \"ports\""
            ));
        }
        if let Some((host, _)) = text.split_once('/') {
            return refused(format!("rules know no paths; write the name of the host alone, \"{host}\""));
        }
        if let Some((host, port)) = text.split_once(':') {
            return refused(format!("write the port in \"ports\": \"hosts\": [\"{host}\"], \"ports\": [{port}]"));
        }
        if let Some(host) = text.split_once('@').map(|(_, host)| host) {
            return refused(format!("rules know no users; write the name of the host alone, \"{host}\""));
        }
        let (name, below) = match text.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (text, false),
        };
        if name == "*" {
            return refused("to mean every address, write \"any\"".to_owned());
        }
        if name.contains(['*', '?']) {
            return refused(
                "a wildcard stands for whole labels, at the beginning only; write names one by one, or \"*.example.org\" \
                 for all names below example.org"
                    .to_owned(),
            );
        }
        if name.contains('_') {
            return refused(
                "names of hosts have no underscores; names of other records are not connected to".to_owned(),
            );
        }
        let name = name.strip_suffix('.').unwrap_or(name);
        if name.split('.').any(str::is_empty) {
            return refused("between its dots, a name has at least one character".to_owned());
        }
        let Ok(name) = idna::domain_to_ascii_strict(name) else {
            return refused(reason(name).unwrap_or_else(|| "this is no name that a host can have".to_owned()));
        };
        if below {
            // The one that is asked about is the base of the wildcard.
            let suffix = psl::suffix(name.as_bytes());
            if suffix.is_some_and(|suffix| suffix.is_known() && suffix.as_bytes() == name.as_bytes()) {
                return refused(format!(
                    "anybody can register a name below {name}; write the names that are meant, as in \"*.example.{name}\""
                ));
            }
        }
        Ok(Self { name, below })
    }
}

/// What makes a text no name.
fn reason(name: &str) -> Option<String> {
    if name.is_ascii() && name.len() > LONGEST {
        return Some(format!("it has {} characters; a name has at most {LONGEST}", name.len()));
    }
    if let Some(label) = name.split('.').find(|label| label.is_ascii() && label.len() > LONGEST_LABEL) {
        return Some(format!(
            "\"{label}\" has {} characters; between dots, there are at most {LONGEST_LABEL}",
            label.len()
        ));
    }
    if name.split('.').any(|label| label.starts_with('-') || label.ends_with('-')) {
        return Some("no part of a name begins or ends with a hyphen".to_owned());
    }
    let strange = name.chars().find(|c| c.is_ascii() && !c.is_ascii_alphanumeric() && !['-', '.'].contains(c))?;
    Some(format!("names of hosts don't have the character {strange:?}"))
}

impl FromStr for HostName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if Self::is_meant(text) { Self::parse(text) } else { Err(format!("\"{text}\" is no name of a host")) }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.below { "*." } else { "" }, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        let table = [
            ("api.example.org", "api.example.org"),
            ("API.Example.ORG.", "api.example.org"),
            ("*.example.org", "*.example.org"),
            ("*.Example.org.", "*.example.org"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("*.bücher.example", "*.xn--bcher-kva.example"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("db", "db"),
            ("1password.com", "1password.com"),
            ("3com", "3com"),
            ("*.internal", "*.internal"),
            ("*.corp.test", "*.corp.test"),
        ];
        for (text, expected) in table {
            assert!(HostName::is_meant(text), "{text}");
            assert_eq!(HostName::parse(text).map(|name| name.to_string()), Ok(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused_with_what_to_write() {
        let long = format!("{}.org", "a".repeat(64));
        let longer = ["a".repeat(63), "a".repeat(63), "a".repeat(63), "a".repeat(63)].join(".");
        let table = [
            ("https://api.example.org/v1", "\"api.example.org\""),
            ("http://api.example.org:8080", "\"api.example.org\""),
            ("api.example.org/v1", "\"api.example.org\""),
            ("api.example.org:443", "\"ports\": [443]"),
            ("user@example.org", "\"example.org\""),
            ("*", "\"any\""),
            ("*.*", "\"any\""),
            ("api.*.org", "at the beginning"),
            ("a*.example.org", "at the beginning"),
            ("**.example.org", "at the beginning"),
            ("ap?.example.org", "at the beginning"),
            ("*.com", "\"*.example.com\""),
            ("*.co.uk", "\"*.example.co.uk\""),
            ("*.github.io", "anybody can register"),
            ("_dmarc.example.org", "underscores"),
            ("a..b", "at least one character"),
            (".org", "at least one character"),
            ("*..org", "at least one character"),
            (&long, "64 characters"),
            (&longer, "255 characters"),
            ("-a.org", "hyphen"),
            ("a b.org", "' '"),
            ("a\u{7}b.org", "\\u{7}"),
            ("\u{202e}a.org", "no name"),
        ];
        for (text, expected) in table {
            let error = HostName::parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn addresses_are_not_taken_for_names() {
        for text in [
            "10.0.0.1",
            "10.0.0",
            "010.0.0.1",
            "::1",
            "fe80::1%eth0",
            "2001:db8::/129",
            "",
            "1.2.3.4.5",
            "0x7f000001",
            "[::1]",
        ] {
            assert!(!HostName::is_meant(text), "{text}");
        }
    }
}
