//! What goes into the maps before the programs run, and what comes out afterwards.

use std::{io, net::IpAddr, os::fd::OwnedFd, path::Path};

use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues, RingBuf},
    util::nr_cpus,
};
use common::{
    RuleSet,
    net::{self, Address},
    record::{Counters, Hook, Kind},
};
use nix::sys::stat::fstat;
use policy::{
    compile::{NameTables, Tables},
    shared_space,
};

use super::{Denials, Flows, LoadError, RecordMaps};
use crate::sys::plain::{Plain, Wire, bytes_of};

/// There if the kernel has MPTCP.
const MPTCP: &str = "/proc/sys/net/mptcp";

/// The elements that a map is filled with before it is frozen. They also set its size.
pub struct MapContent {
    pub(super) name: &'static str,
    pub(super) keys: Vec<u8>,
    pub(super) values: Vec<u8>,
    pub(super) count: u32,
}

impl MapContent {
    /// A table as the only element of an array map.
    pub(super) fn table<T: Plain>(name: &'static str, rows: &[T]) -> Self {
        Self { name, keys: bytes_of(&[0_u32]).to_vec(), values: bytes_of(rows).to_vec(), count: 1 }
    }

    /// The entries of a map that is looked up by key.
    fn entries<K: Plain, V: Plain>(name: &'static str, entries: impl Iterator<Item = (K, V)>) -> Self {
        let mut content = Self { name, keys: Vec::new(), values: Vec::new(), count: 0 };
        for (key, value) in entries {
            content.keys.extend_from_slice(bytes_of(&[key]));
            content.values.extend_from_slice(bytes_of(&[value]));
            content.count += 1;
        }
        content
    }

    /// The size of one element's key, in bytes.
    pub(super) fn key_size(&self) -> u32 {
        u32::try_from(self.keys.len()).expect("tables are small") / self.count
    }

    /// The size of one element's value, in bytes.
    pub(super) fn value_size(&self) -> u32 {
        u32::try_from(self.values.len()).expect("tables are small") / self.count
    }
}

/// The contents of the maps that these tables need.
#[must_use]
pub fn contents(tables: &Tables) -> Vec<MapContent> {
    let mut contents = Vec::new();
    if let Some(network) = &tables.network {
        if !network.hosts.is_empty() {
            // The key of an LPM trie: the prefix's length, then its bits.
            contents.push(MapContent::entries(
                "NET_HOSTS",
                network.hosts.iter().map(|(prefix, rules)| {
                    let [a, b, c, d] = Address::from_bits(prefix.bits()).words();
                    ([u32::from(prefix.length()), a, b, c, d], *rules)
                }),
            ));
        }
        if !network.ports.is_empty() {
            contents.push(MapContent::table("NET_PORTS", &network.ports));
        }
        if !network.local_ports.is_empty() {
            contents.push(MapContent::table("NET_LOCAL_PORTS", &network.local_ports));
        }
    }
    if let Some(unix) = &tables.unix
        && !unix.states.is_empty()
    {
        contents.push(MapContent::table("UNIX_STATES", &unix.states));
    }
    if let Some(sysctls) = &tables.sysctls {
        if !sysctls.names.is_empty() {
            contents
                .push(MapContent::entries("SYSCTL_NAMES", sysctls.names.iter().map(|(name, rules)| (*name, *rules))));
        }
        if !sysctls.states.is_empty() {
            contents.push(MapContent::table("SYSCTL_STATES", &sysctls.states));
        }
    }
    if let Some(names) = tables.names() {
        contents.push(names_content(names));
    }
    contents
}

/// Names as the keys of an LPM trie: how many bits they have, then these, each key as long as the longest.
fn names_content(names: &NameTables) -> MapContent {
    let room = names.table.bits as usize / 8;
    let mut content = MapContent { name: "NAMES", keys: Vec::new(), values: Vec::new(), count: 0 };
    for (name, rules) in &names.names {
        let bits = 8 * u32::try_from(name.bytes().len()).expect("names are short");
        content.keys.extend_from_slice(&bits.to_ne_bytes());
        content.keys.extend_from_slice(name.bytes());
        content.keys.resize(content.keys.len() + room - name.bytes().len(), 0);
        content.values.extend_from_slice(bytes_of(&[*rules]));
        content.count += 1;
    }
    content
}

/// The maps that programs refer to but have no use for with these tables: the verifier finds that they never get there.
#[must_use]
pub fn unused(tables: &Tables) -> Vec<&'static str> {
    let (network, sysctls) = (tables.network.as_ref(), tables.sysctls.as_ref());
    let maps = [
        ("NET_HOSTS", network.is_some_and(|network| !network.hosts.is_empty())),
        ("NET_LOCAL_PORTS", network.is_some_and(|network| !network.local_ports.is_empty())),
        ("NET_PORTS", network.is_some_and(|network| !network.ports.is_empty())),
        ("SYSCTL_NAMES", sysctls.is_some_and(|sysctls| !sysctls.names.is_empty())),
        ("SYSCTL_STATES", sysctls.is_some_and(|sysctls| !sysctls.states.is_empty())),
        ("UNIX_STATES", tables.unix.as_ref().is_some_and(|unix| !unix.states.is_empty())),
        ("FLOWS", tables.flows),
        ("FLOWS_LOST", tables.flows),
    ];
    maps.iter().filter(|(_, used)| !used).map(|(name, _)| *name).collect()
}

/// The values of the programs' global variables for these tables.
#[must_use]
pub fn globals(tables: &Tables) -> Vec<(&'static str, &[u8])> {
    let mut globals = vec![
        ("CONFIG", bytes_of(std::slice::from_ref(&tables.config))),
        ("UNREPORTED", bytes_of(std::slice::from_ref(&tables.unreported))),
    ];
    let flag = |set: bool| bytes_of::<u32>(if set { &[1] } else { &[0] });
    if !tables.asks_only_who_made_a_socket() {
        globals.push(("COUNT_FLOWS", flag(tables.flows)));
        globals.push(("HAS_MPTCP", flag(Path::new(MPTCP).exists())));
    }
    let unrestricted = &net::Table::ALLOW_ALL;
    let network = tables.network.as_ref().map_or(unrestricted, |network| &network.table);
    globals.push(("NET_TABLE", bytes_of(std::slice::from_ref(network))));
    if let Some(names) = tables.names() {
        globals.push(("NAME_TABLE", bytes_of(std::slice::from_ref(&names.table))));
    }
    if let Some(unix) = &tables.unix {
        globals.push(("UNIX_TABLE", bytes_of(std::slice::from_ref(&unix.table))));
    }
    if let Some(devices) = &tables.devices {
        globals.push(("DEVICE_VERDICTS", bytes_of(std::slice::from_ref(&devices.verdicts))));
        globals.push(("DEVICE_RULES", bytes_of(std::slice::from_ref(devices.rules.as_ref()))));
    }
    if let Some(sysctls) = &tables.sysctls {
        globals.push(("SYSCTL_TABLE", bytes_of(std::slice::from_ref(&sysctls.table))));
    }
    if let Some(sockets) = &tables.sockets {
        globals.push(("SOCKET_TABLE", bytes_of(std::slice::from_ref(&sockets.table))));
        globals.push(("SOCKET_RULES", bytes_of(std::slice::from_ref(sockets.rules.as_ref()))));
    }
    if let Some(sockopts) = &tables.sockopts {
        globals.push(("SOCKOPT_TABLE", bytes_of(std::slice::from_ref(&sockopts.table))));
        globals.push(("SOCKOPT_RULES", bytes_of(std::slice::from_ref(sockopts.rules.as_ref()))));
    }
    globals
}

/// The maps in which the programs leave their records.
pub struct Records {
    counters: PerCpuArray<MapData, Wire<Counters>>,
    /// How many identities each map of denials has, by [`Kind`].
    in_room: Array<MapData, u64>,
    /// Keys of new denials.
    pub news: RingBuf<MapData>,
    /// The denials.
    pub denials: Denials,
    /// In which cgroup the sandbox is, where programs ask.
    own_cgroup: Option<Array<MapData, u64>>,
    /// What was learnt of names, if there are names.
    pub learned: Option<Learned>,
    /// What was reached, if that is recorded.
    pub flows: Option<Flows>,
}

impl Records {
    /// Begins to read these maps.
    ///
    /// # Errors
    ///
    /// When they are not those of this version's programs.
    pub fn of(mut maps: RecordMaps) -> Result<Self, LoadError> {
        let maps = &mut maps;
        let required = |name: &'static str, map: Option<MapData>| map.ok_or(LoadError::NotInImage { name });
        let unusable = |name: &'static str| move |error| LoadError::map(name, error);
        let counters = required("COUNTERS", maps.take("COUNTERS"))?;
        let in_room = required("IN_ROOM", maps.take("IN_ROOM"))?;
        let news = required("NEWS", maps.take("NEWS"))?;
        Ok(Self {
            counters: PerCpuArray::try_from(Map::PerCpuArray(counters)).map_err(unusable("COUNTERS"))?,
            in_room: Array::try_from(Map::Array(in_room)).map_err(unusable("IN_ROOM"))?,
            news: RingBuf::try_from(Map::RingBuf(news)).map_err(unusable("NEWS"))?,
            denials: Denials::of(maps)?,
            own_cgroup: maps
                .take("OWN_CGROUP")
                .map(|map| Array::try_from(Map::Array(map)))
                .transpose()
                .map_err(unusable("OWN_CGROUP"))?,
            learned: Learned::of(maps)?,
            flows: Flows::of(maps)?,
        })
    }

    /// Forgets all that is recorded, for the next run. There must be nobody who adds to it.
    pub(super) fn empty(&mut self) -> Result<(), MapError> {
        for hook in Hook::ALL {
            self.counters.set(u32::from(hook as u8), on_every_cpu(Wire(Counters::default()))?, 0)?;
        }
        for kind in Kind::ALL {
            self.in_room.set(kind as u32, 0, 0)?;
        }
        while self.news.next().is_some() {}
        self.denials.empty()?;
        // What another run has learnt is nothing to this one.
        self.learned.iter_mut().try_for_each(|learned| empty(&mut learned.0))?;
        self.flows.iter_mut().try_for_each(Flows::empty)
    }

    /// Tells the programs in which cgroup the sandbox is, if they ask. To be done before anything runs there: until then, no socket
    /// is one of the sandbox's own.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn tell_cgroup(&mut self, cgroup: &OwnedFd) -> io::Result<()> {
        let Some(map) = &mut self.own_cgroup else { return Ok(()) };
        // The number of a cgroup's folder is its id (`kernfs_id_ino`, include/linux/kernfs.h).
        map.set(0, fstat(cgroup)?.st_ino, 0).map_err(io::Error::other)
    }

    /// What a hook has done so far, on all CPUs together.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read the map.
    pub fn counters(&self, hook: Hook) -> Result<Counters, MapError> {
        let mut sum = Counters::default();
        for Wire(counters) in self.counters.get(&u32::from(hook as u8), 0)?.iter() {
            sum.allowed += counters.allowed;
            sum.denied += counters.denied;
            sum.unrecorded += counters.unrecorded;
            sum.late += counters.late;
            sum.unjudged += counters.unjudged;
            sum.unreported += counters.unreported;
        }
        Ok(sum)
    }
}

/// The addresses that answers of nameservers had, and the rules that have the names which were asked for.
pub struct Learned(HashMap<MapData, Wire<Address>, Wire<RuleSet>>);

impl Learned {
    /// `None` where there are no names.
    fn of(maps: &mut RecordMaps) -> Result<Option<Self>, LoadError> {
        let map = maps.take("NAME_LEARNED").map(|map| HashMap::try_from(Map::HashMap(map)).map(Self));
        map.transpose().map_err(|error| LoadError::map("NAME_LEARNED", error))
    }

    /// What was learnt of an address: its rules, and the names' bits of [`policy::compile::Hosts`].
    #[must_use]
    pub fn of_address(&self, address: IpAddr) -> Option<RuleSet> {
        self.0.get(&Wire(shared_space(address)), 0).map(|Wire(set)| set).ok()
    }
}

/// Removes all entries of a map to which nobody adds any.
pub(super) fn empty<K: Pod, V: Pod>(map: &mut HashMap<MapData, K, V>) -> Result<(), MapError> {
    loop {
        // While some are removed, the kernel may leave others out.
        let keys = map.keys().collect::<Result<Vec<K>, MapError>>()?;
        if keys.is_empty() {
            return Ok(());
        }
        keys.iter().try_for_each(|key| map.remove(key))?;
    }
}

/// A value as the value of each CPU.
pub(super) fn on_every_cpu<V: Pod>(value: V) -> Result<PerCpuValues<V>, MapError> {
    Ok(PerCpuValues::try_from(vec![value; nr_cpus().map_err(|(_, error)| error)?])?)
}
