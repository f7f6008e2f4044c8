//! What names depend on outside a policy: whom they are asked of, what is added to them, and what is known without asking.

use std::net::IpAddr;

/// How many nameservers the resolvers of C libraries ask (`MAXNS`, resolv.conf(5)).
const ASKED: usize = 3;

/// Whom and what the command's resolver asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Nameservers.
    pub nameservers: Vec<IpAddr>,
    /// What is added to names before they are asked for.
    pub search: Vec<String>,
    /// Addresses of names that nobody is asked for.
    pub hosts: Vec<(String, IpAddr)>,
    /// Whether the command may have written these addresses itself: then they count for rules with `"private": true` alone.
    pub hosts_are_its_own: bool,
}

impl Surroundings {
    /// Reads the surroundings from the text of two files: resolv.conf(5) and hosts(5).
    #[must_use]
    pub fn parse(resolver: &str, hosts: &str) -> Self {
        let mut surroundings = Self::default();
        for line in resolver.lines().filter(|line| !line.starts_with(['#', ';'])) {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    // An address may have a zone, by which none can be matched.
                    let address = words.next().and_then(|address| address.parse::<IpAddr>().ok());
                    surroundings.nameservers.extend(address);
                }
                // Of several, the last one holds.
                Some("search") => surroundings.search = words.filter_map(domain).collect(),
                Some("domain") => surroundings.search = words.take(1).filter_map(domain).collect(),
                _ => {}
            }
        }
        surroundings.nameservers.truncate(ASKED);
        for line in hosts.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
            let Some(Ok(address)) = words.next().map(str::parse) else { continue };
            surroundings.hosts.extend(words.filter_map(domain).map(|name| (name, address)));
        }
        surroundings
    }
}

/// A name as it is written in these files.
fn domain(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_resolvers_read_them() {
        let resolver = "# generated\n; by hand\nnameserver 127.0.0.53\nnameserver fe80::1%eth0\nnameserver ::1 \n\
                        domain example.org\nsearch Corp.Test. svc.cluster.local\noptions ndots:5\nnameserver 10.0.0.1\n\
                        nameserver 10.0.0.2\nnameservers 10.0.0.3\n";
        let hosts =
            "127.0.0.1\tlocalhost loopback # myself\n#10.0.0.1 no\n::1 localhost\nnonsense a\n10.0.0.5 DB.corp.test.\n";
        let expected = Surroundings {
            nameservers: ["127.0.0.53", "::1", "10.0.0.1"].map(|address| address.parse().unwrap()).to_vec(),
            search: vec!["corp.test".to_owned(), "svc.cluster.local".to_owned()],
            hosts: [
                ("localhost", "127.0.0.1"),
                ("loopback", "127.0.0.1"),
                ("localhost", "::1"),
                ("db.corp.test", "10.0.0.5"),
            ]
            .map(|(name, address)| (name.to_owned(), address.parse().unwrap()))
            .to_vec(),
            ..Surroundings::default()
        };
        assert_eq!(Surroundings::parse(resolver, hosts), expected);
    }
}
