//! A policy file can be anything: it is parsed, compiled and asked for verdicts, or refused with an error of one line.
//!
//! `make fuzz-parser` begins with the examples.
#![no_main]

use std::{
    hint::black_box,
    path::{Path, PathBuf},
};

use common::{device, net, sockopt, sysctl, unix};
use libfuzzer_sys::fuzz_target;
use policy::{DeviceNode, Document, Files, Machine, Surroundings, compile::Tables};

/// A machine on which each path is a device's.
struct Devices;

impl Machine for Devices {
    fn device(&self, _: &Path) -> Result<DeviceNode, String> {
        Ok(DeviceNode { kind: device::Type::Char, major: 1, minor: 3 })
    }

    fn surroundings(&self) -> Result<Surroundings, String> {
        Ok(Surroundings::parse("nameserver 127.0.0.53\nsearch example.test\n", "127.0.0.1 localhost\n"))
    }
}

/// A folder in which every file has this text.
struct Folder;

const INCLUDED: &str = r#"{"version": 1, "sets": {"set": ["*.example.org", "10.0.0.0/8"]},
    "network": {"default": "deny", "rules": [{"action": "allow", "hosts": ["@set"]}]}}"#;

impl Files for Folder {
    fn real(&self, path: &Path) -> Result<PathBuf, String> {
        Ok(path.to_owned())
    }

    fn read(&self, path: &Path, _: &Path) -> Result<Document, String> {
        Ok(Document::new(path, INCLUDED.into()))
    }
}

fuzz_target!(|text: &[u8]| {
    let document = Document::new(Path::new("policy.json"), text.to_vec());
    let policy = match document.parse_with(&Folder).and_then(|policy| policy.resolve(&document, &Devices)) {
        Ok(policy) => policy,
        Err(error) => {
            let message = error.to_string();
            assert!(message.starts_with("policy.json: ") && !message.contains(char::is_control), "{message:?}");
            return;
        }
    };
    let Ok(tables) = Tables::compile(&policy) else { return };
    if let Some(network) = tables.network {
        for address in [net::Address::LOOPBACK4, net::Address::LOOPBACK6, net::Address::from_bits(u128::MAX)] {
            for port in [0, 80, u16::MAX] {
                let protocol = net::Protocol::TCP;
                black_box(network.decide(&net::Request { op: net::Op::CONNECT, protocol, address, port, own: 0 }));
            }
        }
    }
    if let Some(devices) = tables.devices {
        for (kind, access) in [(1, 1), (2, 6)] {
            black_box(devices.decide(&device::Request { kind, access, major: 1, minor: 3 }));
        }
    }
    if let Some(sockopts) = tables.sockopts {
        for access in [sockopt::access::GET, sockopt::access::SET] {
            black_box(sockopts.decide(&sockopt::Request { level: 6, option: 1, access }));
        }
    }
    if let Some(sysctls) = tables.sysctls {
        // The longest name there can be, and the shortest.
        let mut name = [b'k'; sysctl::NAME_LEN];
        name[sysctl::NAME_LEN - 1] = 0;
        black_box(sysctls.decide(&name, sysctl::Access::READ));
        black_box(sysctls.decide(&[0; sysctl::NAME_LEN], sysctl::Access::WRITE));
    }
    if let Some(tables) = tables.unix {
        for kind in [unix::Kind::UNNAMED, unix::Kind::PATH, unix::Kind::ABSTRACT] {
            let name = [b'k'; unix::NAME_LEN];
            black_box(tables.decide(&unix::Peer { kind, length: unix::NAME_LEN as u32, name: &name, own: 0 }));
        }
    }
});
