//! What the programs need to know of the running kernel, those for Unix sockets above all, and whether it has what they need.

use std::fs;

use common::{
    name::PacketLayout,
    record::Hook,
    unix::{AddressLayout, PeerLayout},
};

use super::{
    LoadError,
    btf::{Btf, BtfError},
    hook::spec,
};
use crate::sys::plain::bytes_of;
use policy::compile::Tables;

/// The security modules that are active. That a program can be loaded and attached says nothing about it: without the BPF
/// module, it is never called.
const ACTIVE: &str = "/sys/kernel/security/lsm";

/// The program for what leaves where it is all the same what that is, as long as it goes where it was judged to.
const LEAVING: &str = "guard_leaving";

/// The hooks that see an address as it is spelled.
pub(super) const SPELLED: [Hook; 2] = [Hook::ConnectUnix, Hook::SendmsgUnix];

/// The function that the kernel has for an LSM hook, so that programs can be attached there.
pub(super) fn lsm_function(hook: Hook) -> Option<&'static str> {
    match hook {
        Hook::UnixStreamConnect => Some("bpf_lsm_unix_stream_connect"),
        Hook::UnixMaySend => Some("bpf_lsm_unix_may_send"),
        _ => None,
    }
}

/// What was found out for the programs of some hooks.
#[derive(Default)]
pub(super) struct Facts {
    address: Option<AddressLayout>,
    peer: Option<PeerLayout>,
    packet: Option<PacketLayout>,
    functions: Vec<(Hook, u32)>,
    /// Whether the smaller one of the two programs for what leaves will do.
    leaving: bool,
}

impl Facts {
    /// Asks the kernel what the programs of these hooks need to know. It is only asked where a verdict depends on it:
    /// reading its types takes longer than anything else of a launch.
    pub(super) fn of(tables: &Tables, hooks: &[Hook]) -> Result<Self, LoadError> {
        let mut facts = Self { leaving: tables.asks_only_where_packets_go(), ..Self::default() };
        let by_kind = tables.unix.as_ref().is_some_and(|unix| unix.table.by_kind != 0);
        if by_kind && hooks.iter().any(|hook| SPELLED.contains(hook)) {
            facts.address = Some(address_layout().map_err(|error| match error {
                // The length came together with the hooks.
                BtfError::Missing(_) => LoadError::no_hook(Hook::ConnectUnix),
                error => error.into(),
            })?);
        }
        // By UDP, what is asked is in one piece; by TCP, nothing is.
        if tables.names().is_some() && hooks.contains(&Hook::Egress) {
            facts.packet = Some(packet_layout()?);
        }
        let functions = hooks.iter().filter_map(|hook| Some((*hook, lsm_function(*hook)?)));
        let functions: Vec<(Hook, &str)> = functions.collect();
        if !functions.is_empty() {
            let btf = Btf::of_kernel(&PEER_TYPES)?;
            facts.peer = Some(peer_layout(&btf)?);
            for (hook, name) in functions {
                facts.functions.push((hook, btf.function(name)?));
            }
        }
        Ok(facts)
    }

    /// The name of the program for a hook.
    pub(super) fn program(&self, hook: Hook) -> &'static str {
        if hook == Hook::Egress && self.leaving { LEAVING } else { spec(hook).program }
    }

    /// The values of the programs' global variables.
    pub(super) fn globals(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        let address = self.address.iter().map(|layout| ("UNIX_ADDRESS", bytes_of(std::slice::from_ref(layout))));
        let peer = self.peer.iter().map(|layout| ("UNIX_PEER", bytes_of(std::slice::from_ref(layout))));
        let packet = self.packet.iter().map(|layout| ("NAME_PACKET", bytes_of(std::slice::from_ref(layout))));
        address.chain(peer).chain(packet)
    }

    /// The number by which the kernel knows the function that a hook's program is attached to; 0 for hooks that are none.
    pub(super) fn function(&self, hook: Hook) -> u32 {
        self.functions.iter().find(|(other, _)| *other == hook).map_or(0, |(_, number)| *number)
    }
}

/// Why programs at LSM hooks would never be called, if they wouldn't.
pub(super) fn inactive_lsm() -> Option<String> {
    match fs::read_to_string(ACTIVE) {
        Ok(modules) if modules.trim().split(',').any(|module| module == "bpf") => None,
        Ok(modules) => {
            Some(format!("its security modules are {}; boot it with lsm={},bpf", modules.trim(), modules.trim()))
        }
        Err(error) => Some(format!(
            "which security modules are active can't be read from {ACTIVE} ({error}); \
             mount -t securityfs securityfs /sys/kernel/security"
        )),
    }
}

fn packet_layout() -> Result<PacketLayout, BtfError> {
    const PACKET: &str = "sk_buff";
    const SHARED: &str = "skb_shared_info";
    let btf = Btf::of_kernel(&[PACKET, SHARED])?;
    Ok(PacketLayout {
        head: btf.offset(PACKET, "head")?,
        end: btf.offset(PACKET, "end")?,
        flags: btf.offset(SHARED, "flags")?,
        padding: 0,
    })
}

fn address_layout() -> Result<AddressLayout, BtfError> {
    const CONTEXT: &str = "bpf_sock_addr_kern";
    let btf = Btf::of_kernel(&[CONTEXT])?;
    Ok(AddressLayout { address: btf.offset(CONTEXT, "uaddr")?, length: btf.offset(CONTEXT, "uaddrlen")? })
}

const PEER_TYPES: [&str; 15] = [
    "socket",
    "unix_sock",
    "path",
    "unix_address",
    "dentry",
    "qstr",
    "vfsmount",
    "mount",
    "sock",
    "sock_cgroup_data",
    "cgroup",
    "cgroup_subsys_state",
    "kernfs_node",
    "bpf_lsm_unix_stream_connect",
    "bpf_lsm_unix_may_send",
];

fn peer_layout(btf: &Btf) -> Result<PeerLayout, BtfError> {
    let (path, name) = (btf.offset("unix_sock", "path")?, btf.offset("dentry", "d_name")?);
    Ok(PeerLayout {
        socket_sk: btf.offset("socket", "sk")?,
        sock_address: btf.offset("unix_sock", "addr")?,
        sock_mount: path + btf.offset("path", "mnt")?,
        sock_dentry: path + btf.offset("path", "dentry")?,
        address_length: btf.offset("unix_address", "len")?,
        address_name: btf.offset("unix_address", "name")?,
        dentry_parent: btf.offset("dentry", "d_parent")?,
        dentry_length: name + btf.offset("qstr", "len")?,
        dentry_name: name + btf.offset("qstr", "name")?,
        vfsmount_root: btf.offset("vfsmount", "mnt_root")?,
        mount_vfsmount: btf.offset("mount", "mnt")?,
        mount_parent: btf.offset("mount", "mnt_parent")?,
        mount_point: btf.offset("mount", "mnt_mountpoint")?,
        mount_namespace: btf.offset("mount", "mnt_ns")?,
        sock_cgroup: btf.offset("sock", "sk_cgrp_data")? + btf.offset("sock_cgroup_data", "cgroup")?,
        cgroup_parent: btf.offset("cgroup", "self")? + btf.offset("cgroup_subsys_state", "parent")?,
        cgroup_folder: btf.offset("cgroup", "kn")?,
        folder_id: btf.offset("kernfs_node", "id")?,
    })
}
