//! The maps that count denials: one for each kind of subject. What there is to know of a kind is in one row of [`Denials`].

use aya::maps::{HashMap, Map, MapData, MapError};
use common::record::{
    DeviceSubject, Key, Kind, NameSubject, NetSubject, SocketSubject, SockoptSubject, SysctlSubject, Tally, UnixSubject,
};
use report::Recorded;

use super::{LoadError, RecordMaps, maps::empty};
use crate::sys::plain::{Plain, Wire};

/// Something that is done with the denials of a kind, whichever it is.
pub trait Visitor {
    /// Does it.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read the map.
    fn visit<S: Recorded + Plain>(&mut self, denials: &Tallies<S>) -> Result<(), MapError>;
}

macro_rules! denials {
    ($($field:ident: $kind:ident, $subject:ty, $map:literal;)+) => {
        /// The denials of all kinds. `None` where no loaded program counts denials of that kind.
        pub struct Denials {
            $($field: Option<Tallies<$subject>>,)+
        }

        impl Denials {
            /// The names of the maps.
            pub(super) const MAPS: &[&str] = &[$($map),+];

            pub(super) fn of(maps: &mut RecordMaps) -> Result<Self, LoadError> {
                Ok(Self { $($field: Tallies::open(maps, $map)?,)+ })
            }

            /// Forgets all of them.
            pub(super) fn empty(&mut self) -> Result<(), MapError> {
                $(self.$field.iter_mut().try_for_each(Tallies::empty)?;)+
                Ok(())
            }

            /// Visits those of one kind.
            ///
            /// # Errors
            ///
            /// Those of the visitor.
            pub fn visit(&self, kind: Kind, visitor: &mut impl Visitor) -> Result<(), MapError> {
                match kind {
                    $(Kind::$kind => self.$field.iter().try_for_each(|denials| visitor.visit(denials)),)+
                }
            }

            /// Visits those of all kinds.
            ///
            /// # Errors
            ///
            /// Those of the visitor.
            pub fn visit_all(&self, visitor: &mut impl Visitor) -> Result<(), MapError> {
                $(self.visit(Kind::$kind, visitor)?;)+
                Ok(())
            }
        }
    };
}

denials! {
    net: Net, NetSubject, "NET_TALLIES";
    name: Name, NameSubject, "NAME_TALLIES";
    unix: Unix, UnixSubject, "UNIX_TALLIES";
    device: Device, DeviceSubject, "DEVICE_TALLIES";
    sysctl: Sysctl, SysctlSubject, "SYSCTL_TALLIES";
    socket: Socket, SocketSubject, "SOCKET_TALLIES";
    sockopt: Sockopt, SockoptSubject, "SOCKOPT_TALLIES";
}

/// A map that counts denials by identity.
pub struct Tallies<S: Plain>(HashMap<MapData, Wire<Key<S>>, Wire<Tally>>);

impl<S: Plain> Tallies<S> {
    fn open(maps: &mut RecordMaps, name: &'static str) -> Result<Option<Self>, LoadError> {
        let map = maps.take(name).map(|map| HashMap::try_from(Map::HashMap(map)).map(Self));
        map.transpose().map_err(|error| LoadError::map(name, error))
    }

    fn empty(&mut self) -> Result<(), MapError> {
        empty(&mut self.0)
    }

    /// All denials so far.
    pub fn all(&self) -> impl Iterator<Item = Result<(Key<S>, Tally), MapError>> + '_ {
        self.0.iter().map(|entry| entry.map(|(Wire(key), Wire(tally))| (key, tally)))
    }

    /// The denials of one identity so far.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read the map, or there are none.
    pub fn of(&self, key: Key<S>) -> Result<Tally, MapError> {
        self.0.get(&Wire(key), 0).map(|Wire(tally)| tally)
    }
}
