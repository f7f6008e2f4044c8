//! Unix sockets: the names by which programs reach those outside, the sockets behind these names, and what policies say of them.
//!
//! An abstract name belongs to a network namespace, so that each world has all of them. A file is beside the fuzzer's program, with the
//! world's network namespace in its name.

use std::{
    fs,
    io::{Error, Result},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    },
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{random::Random, sys, token::Token};

/// The types of sockets that those outside have, each with all names.
pub const KINDS: [i32; 3] = [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET];

/// How all abstract names here begin.
const PREFIX: &str = "guard-run-fuzz-";

/// What a name leads to, as far as policies tell it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Peer {
    /// Abstract names that policies like to allow.
    Allowed,
    /// Abstract names that policies like to deny.
    Denied,
    /// An abstract name that nobody has.
    Nobody,
    /// A file.
    File,
}

impl Peer {
    /// Those that somebody outside has.
    const SERVED: [Self; 3] = [Self::Allowed, Self::Denied, Self::File];
}

/// How a program spells a file's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Spelling {
    /// As it is.
    Plain,
    /// With a slash twice.
    Doubled,
    /// By a symbolic link.
    Linked,
    /// By a hard link.
    Twin,
    /// From the program's root, by /proc.
    Root,
}

/// A socket as a program names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Name {
    pub peer: Peer,
    /// Of which type the socket of that name is, `SOCK_*`.
    pub kind: i32,
    /// Of a file; an abstract name has one spelling.
    pub spelling: Spelling,
}

/// A name of somebody outside, mostly of a socket of this type.
pub fn any_name(random: &mut Random, kind: i32) -> Name {
    let kind = if random.percent(10) { random.one(&KINDS) } else { kind };
    let peer = random.weighted(&[(4, Peer::Allowed), (4, Peer::Denied), (1, Peer::Nobody), (4, Peer::File)]);
    let spelling = random.weighted(&[
        (3, Spelling::Plain),
        (1, Spelling::Doubled),
        (1, Spelling::Linked),
        (1, Spelling::Twin),
        (1, Spelling::Root),
    ]);
    Name { peer, kind, spelling: if peer == Peer::File { spelling } else { Spelling::Plain } }
}

impl Name {
    /// The name as an address of bind(2) and connect(2), with files beside this program.
    pub fn bytes(self, program: &Path) -> Vec<u8> {
        let kind = match self.kind {
            libc::SOCK_STREAM => "stream",
            libc::SOCK_DGRAM => "dgram",
            _ => "seqpacket",
        };
        let name = match self.peer {
            Peer::Allowed => format!("\0{PREFIX}allowed-{kind}"),
            Peer::Denied => format!("\0{PREFIX}denied-{kind}"),
            Peer::Nobody => format!("\0{PREFIX}allowed-nobody"),
            Peer::File => {
                let (folder, file) = (program.parent().unwrap_or(Path::new("/")).display(), self.file(kind));
                match self.spelling {
                    Spelling::Doubled => format!("{folder}//{file}\0"),
                    Spelling::Root => format!("/proc/self/root{folder}/{file}\0"),
                    _ => format!("{folder}/{file}\0"),
                }
            }
        };
        [&libc::AF_UNIX.to_ne_bytes()[..2], name.as_bytes()].concat()
    }

    fn file(self, kind: &str) -> String {
        let world = fs::metadata("/proc/thread-self/ns/net").map_or(0, |namespace| namespace.ino());
        let suffix = match self.spelling {
            Spelling::Linked => ".link",
            Spelling::Twin => ".twin",
            _ => "",
        };
        format!("unix-{world}-{kind}{suffix}")
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "unix {:?}", self.peer)?;
        if self.spelling != Spelling::Plain {
            write!(f, " ({:?})", self.spelling)?;
        }
        write!(f, " of type {}", self.kind)
    }
}

/// The sockets of those outside, in one world.
pub struct Servers {
    sockets: Vec<(Name, OwnedFd)>,
    files: Vec<PathBuf>,
}

impl Servers {
    /// Listens in the calling thread's network namespace, and beside this program.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn new(program: &Path) -> Result<Self> {
        let (mut sockets, mut files) = (Vec::new(), Vec::new());
        for peer in Peer::SERVED {
            for kind in KINDS {
                let name = Name { peer, kind, spelling: Spelling::Plain };
                let failed = Error::from_raw_os_error;
                let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
                let socket = sys::owned(sys::socket(libc::AF_UNIX, kind | flags, 0).map_err(failed)?);
                sys::bind(socket.as_raw_fd(), &name.bytes(program)).map_err(failed)?;
                if kind != libc::SOCK_DGRAM {
                    sys::listen(socket.as_raw_fd(), 64).map_err(failed)?;
                }
                sockets.push((name, socket));
                if peer == Peer::File {
                    files.extend(reachable(name, program)?);
                }
            }
        }
        Ok(Self { sockets, files })
    }

    /// The descriptors that become readable when somebody has come.
    pub fn descriptors(&self) -> impl Iterator<Item = i32> {
        self.sockets.iter().map(|(_, socket)| socket.as_raw_fd())
    }

    /// Takes what has come to one of them in the run of this number. The socket's name, if it was of that run; a connection is.
    pub fn take(&self, place: usize, run: u32) -> Option<Name> {
        let (name, socket) = &self.sockets[place];
        let fd = socket.as_raw_fd();
        if name.kind != libc::SOCK_DGRAM {
            let (accepted, _) = sys::accept(fd).ok()?;
            let _ = sys::close(accepted);
            return Some(*name);
        }
        let mut buffer = [0; 4096];
        let (length, _) = sys::recvfrom(fd, &mut buffer).ok()?;
        let token = Token::find(&buffer[..length])?;
        (token.run == run && token.from.is_none()).then_some(*name)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for file in &self.files {
            // It may be gone with its folder.
            let _ = fs::remove_file(file);
        }
    }
}

/// Has everybody reach a socket's file by all spellings. The files that there are then.
fn reachable(name: Name, program: &Path) -> Result<Vec<PathBuf>> {
    let path = |spelling| {
        let bytes = Name { spelling, ..name }.bytes(program);
        PathBuf::from(String::from_utf8_lossy(&bytes[2..bytes.len() - 1]).into_owned())
    };
    let [plain, link, twin] = [Spelling::Plain, Spelling::Linked, Spelling::Twin].map(path);
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o666))?;
    symlink(&plain, &link)?;
    fs::hard_link(&plain, &twin)?;
    Ok(vec![plain, link, twin])
}

/// Which names a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// Those of one abstract peer.
    Of(Peer),
    /// All abstract ones.
    Abstract,
    /// All files.
    Files,
}

impl Names {
    fn has(self, name: Name) -> bool {
        match self {
            // Nobody's name begins like the ones that are allowed.
            Self::Of(peer) => peer == if name.peer == Peer::Nobody { Peer::Allowed } else { name.peer },
            Self::Abstract => name.peer != Peer::File,
            Self::Files => name.peer == Peer::File,
        }
    }

    fn pattern(self) -> String {
        match self {
            Self::Of(Peer::Denied) => format!("@{PREFIX}denied-*"),
            Self::Of(_) => format!("@{PREFIX}allowed-*"),
            Self::Abstract => String::from("@*"),
            Self::Files => String::from("/*"),
        }
    }
}

/// A policy's section on Unix sockets: one that needs no more than addresses to be judged, since each kernel has hooks for these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    pub allow: bool,
    /// What is judged otherwise than the rest.
    pub but: Option<Names>,
}

impl Section {
    /// Any section.
    pub fn any(random: &mut Random) -> Self {
        let (allow, but) = random.one(&[
            (false, None),
            (false, Some(Names::Of(Peer::Allowed))),
            (true, Some(Names::Of(Peer::Denied))),
            (true, Some(Names::Files)),
            (true, Some(Names::Abstract)),
            (false, Some(Names::Abstract)),
            (false, Some(Names::Files)),
        ]);
        Self { allow, but }
    }

    /// Whether the peer of that name may be reached.
    pub fn allows(self, name: Name) -> bool {
        self.allow != self.but.is_some_and(|names| names.has(name))
    }

    /// The section as guard-run reads it.
    pub fn json(self) -> Value {
        let action = |allow| if allow { "allow" } else { "deny" };
        let rule = |names: Names| json!({ "action": action(!self.allow), "paths": [names.pattern()] });
        json!({ "default": action(self.allow), "rules": self.but.map(rule).into_iter().collect::<Vec<_>>() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_section_excepts_is_judged_otherwise() {
        let name = |peer| Name { peer, kind: libc::SOCK_STREAM, spelling: Spelling::Plain };
        let allowed = |section: Section| {
            [Peer::Allowed, Peer::Denied, Peer::Nobody, Peer::File].map(|peer| section.allows(name(peer)))
        };
        let section = |allow, but| Section { allow, but };
        assert_eq!(allowed(section(false, None)), [false; 4]);
        assert_eq!(allowed(section(false, Some(Names::Of(Peer::Allowed)))), [true, false, true, false]);
        assert_eq!(allowed(section(true, Some(Names::Of(Peer::Denied)))), [true, false, true, true]);
        assert_eq!(allowed(section(true, Some(Names::Files))), [true, true, true, false]);
    }

    #[test]
    fn all_spellings_of_a_file_lead_to_its_socket() {
        let folder = tempfile::tempdir().expect("folder");
        let program = folder.path().join("worker");
        let servers = Servers::new(&program).expect("listening");
        for spelling in [Spelling::Plain, Spelling::Doubled, Spelling::Linked, Spelling::Twin, Spelling::Root] {
            let name = Name { peer: Peer::File, kind: libc::SOCK_STREAM, spelling };
            let socket = sys::owned(sys::socket(libc::AF_UNIX, name.kind, 0).expect("socket"));
            sys::connect(socket.as_raw_fd(), &name.bytes(&program)).expect("connect");
            let place = servers.sockets.iter().position(|(of, _)| (of.peer, of.kind) == (name.peer, name.kind));
            assert_eq!(servers.take(place.expect("there"), 0).map(|of| of.peer), Some(Peer::File), "{name}");
        }
    }
}
