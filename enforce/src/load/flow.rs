//! What the programs leave of flows.

use aya::maps::{HashMap, Map, MapData, MapError, PerCpuArray};
use common::flow::{Key, Tally};

use super::{
    LoadError, RecordMaps,
    maps::{empty, on_every_cpu},
};
use crate::sys::plain::Wire;

/// The maps in which the programs count flows.
pub struct Flows {
    tallies: HashMap<MapData, Wire<Key>, Wire<Tally>>,
    lost: PerCpuArray<MapData, u64>,
}

impl Flows {
    /// `None` where no program counts flows.
    pub(super) fn of(maps: &mut RecordMaps) -> Result<Option<Self>, LoadError> {
        let (Some(tallies), Some(lost)) = (maps.take("FLOWS"), maps.take("FLOWS_LOST")) else {
            return Ok(None);
        };
        let unusable = |name: &'static str| move |error| LoadError::map(name, error);
        Ok(Some(Self {
            tallies: HashMap::try_from(Map::HashMap(tallies)).map_err(unusable("FLOWS"))?,
            lost: PerCpuArray::try_from(Map::PerCpuArray(lost)).map_err(unusable("FLOWS_LOST"))?,
        }))
    }

    /// Forgets all of them.
    pub(super) fn empty(&mut self) -> Result<(), MapError> {
        empty(&mut self.tallies)?;
        self.lost.set(0, on_every_cpu(0)?, 0)
    }

    /// All flows so far.
    pub fn all(&self) -> impl Iterator<Item = Result<(Key, Tally), MapError>> + '_ {
        self.tallies.iter().map(|entry| entry.map(|(Wire(key), Wire(tally))| (key, tally)))
    }

    /// How many connections and datagrams are in no flow.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read the map.
    pub fn lost(&self) -> Result<u64, MapError> {
        Ok(self.lost.get(&0, 0)?.iter().sum())
    }
}
