//! Where a container's programs look for host names: in what its engine mounts at /etc/resolv.conf and /etc/hosts.
//!
//! What an image has there is not asked: it would choose its own nameserver, and thereby which addresses its policy's names have. Nor may the
//! engine's files say everything, since a container may write to them, and some engines use them again at its next start.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use common::{name::address::nearness, net::ones_if_equal};
use enforce::machine::ThisMachine;
use policy::{DeviceNode, Machine, Surroundings, shared_space};

use crate::{cli::tell, config::Config, container::read};

/// What a policy may ask of the machine that a container is.
#[derive(Debug)]
pub struct Inside {
    /// The files that are mounted there.
    resolver: Option<PathBuf>,
    hosts: Option<PathBuf>,
}

impl Inside {
    /// The container that has this configuration, whose bundle is this folder.
    #[must_use]
    pub fn new(config: &Config, bundle: &Path) -> Self {
        let mounted = |place: &str| {
            let mount = config.mounts.iter().rfind(|mount| Path::new(&mount.destination) == Path::new(place))?;
            Some(bundle.join(mount.source.as_ref()?))
        };
        Self { resolver: mounted("/etc/resolv.conf"), hosts: mounted("/etc/hosts") }
    }
}

impl Machine for Inside {
    fn device(&self, path: &Path) -> Result<DeviceNode, String> {
        ThisMachine.device(path)
    }

    fn surroundings(&self) -> Result<Surroundings, String> {
        let text = |path: &Option<PathBuf>| match path {
            Some(path) => read(path).map_err(|error| {
                format!("{}, which says how they are resolved, can't be read: {error:#}", path.display())
            }),
            None => Ok(String::new()),
        };
        let resolver = text(&self.resolver)?;
        if let Some(path) = self.resolver.as_ref().filter(|_| resolver.is_empty()) {
            // podman does so since version 5.
            tell(&format!(
                "the engine has written nothing to {} yet, so it is not known whom the container will ask for names: write \"nameservers\" into \
                 the policy",
                path.display()
            ));
        }
        let found = Surroundings::parse(&resolver, &text(&self.hosts)?);
        let own = ThisMachine.surroundings()?.nameservers;
        Ok(believed(found, &own, |refused| {
            tell(&format!(
                "the container's nameserver {refused} is neither at a loopback address nor this machine's, so it is not asked for names; if \
                 it is meant, write it into \"nameservers\" of the policy"
            ));
        }))
    }
}

/// What is believed of a container's files, which it may have written itself before it was started anew: nameservers at loopback addresses, as
/// engines have them, or this machine's own; and addresses that are near, for rules that mean such. An address in a container's /etc/hosts that is
/// near is another container's; any other would be somewhere that no nameserver has said.
fn believed(found: Surroundings, own: &[IpAddr], mut refuse: impl FnMut(IpAddr)) -> Surroundings {
    let Surroundings { mut nameservers, search, mut hosts, .. } = found;
    nameservers.retain(|address| {
        let good = address.is_loopback() || own.contains(address);
        if !good {
            refuse(*address);
        }
        good
    });
    hosts.retain(|(_, address)| is_near(*address));
    Surroundings { nameservers, search, hosts, hosts_are_its_own: true }
}

fn is_near(address: IpAddr) -> bool {
    nearness(shared_space(address), ones_if_equal).private != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_those_that_are_mounted_last() {
        let config = Config::parse(
            r#"{"mounts": [
                {"destination": "/etc/resolv.conf", "type": "bind", "source": "/run/first"},
                {"destination": "/etc/hosts", "source": "hosts", "options": ["rbind"]},
                {"destination": "/etc/resolv.conf/", "type": "bind", "source": "/run/second"},
                {"destination": "/etc", "type": "tmpfs", "source": "tmpfs"}]}"#,
        )
        .unwrap();
        let inside = Inside::new(&config, Path::new("/bundle"));
        assert_eq!(inside.resolver.as_deref(), Some(Path::new("/run/second")));
        assert_eq!(inside.hosts.as_deref(), Some(Path::new("/bundle/hosts")));
        let inside = Inside::new(&Config::default(), Path::new("/bundle"));
        assert_eq!((inside.resolver, inside.hosts), (None, None));
    }

    #[test]
    fn a_container_can_not_choose_who_says_where_names_are() {
        let found = Surroundings::parse(
            "nameserver 203.0.113.53\nnameserver 127.0.0.11\nnameserver 198.51.100.53\nsearch dns.podman\n",
            "203.0.113.9 api.example.org\n10.89.0.3 db\n169.254.1.1 api.example.org\n::1 localhost\n",
        );
        let mut refused = Vec::new();
        let own = ["198.51.100.53".parse().unwrap()];
        let believed = believed(found, &own, |address| refused.push(address.to_string()));
        let texts = |addresses: &[IpAddr]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            (texts(&believed.nameservers), refused),
            (vec!["127.0.0.11".to_owned(), "198.51.100.53".to_owned()], vec!["203.0.113.53".to_owned()])
        );
        let hosts: Vec<&str> = believed.hosts.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            (hosts, believed.search),
            (vec!["db", "api.example.org", "localhost"], vec!["dns.podman".to_owned()])
        );
    }
}
