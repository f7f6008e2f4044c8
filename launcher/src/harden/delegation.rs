//! Sockets of services that do things for anybody who asks: asking one of them to run a command outside is the oldest way out. They
//! are covered, so that nobody answers there, unless a rule of the unix section allows them by name.
//!
//! Most are in folders of root's or of the command's user, and are covered one by one. A folder in which others can make
//! sockets is covered as a whole, and so is one with more sockets than [`MANY`]. Into those of other users, nobody looks: such a
//! user could have them hold anything, or never answer. A command of root's could reach the sockets in them all the same, so
//! it has these folders covered as well.

use std::{
    cell::OnceCell,
    collections::BTreeSet,
    env,
    ffi::{OsStr, OsString},
    os::{fd::AsRawFd as _, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, ResolveFlag},
    sys::{
        socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket},
        stat::{SFlag, fstat},
    },
    unistd::getuid,
};

use super::{
    allowed::Allowed,
    cover::Cover,
    services::{By, FIRST, FOLDERS, GPG_AGENT, HOME, RESOLVERS, RUNTIME, SHARED, SYSTEM, USER, VARIABLES},
    walk::{Found, Trust, Walk, What, if_there, is, open_without_links},
};
use crate::user::{Identity, local_ids, local_name};
use enforce::mounts::Mount;
use policy::{Section, UnixRule};

/// How many sockets like one pattern are covered one by one.
const MANY: usize = 64;

/// How many folders of other users, in one for all of them, are looked at: anybody can make as many as there is room for. Those of
/// the lowest numbers come first, and no user that isn't one of a directory service or of another user's (subuid(5)) has a higher one.
const TRIED: usize = 1 << 17;

/// How many of them are covered, each user having one; and how many sockets are in a folder that can't be covered as a whole.
const OTHERS: usize = 256;

/// Where to look, and for whom.
pub(super) struct Doors<'a> {
    /// Below this folder, for tests; `/` otherwise.
    root: PathBuf,
    /// Whose command it is.
    user: u32,
    /// The user's name.
    name: Option<String>,
    /// Paths that the environment names.
    named: Vec<PathBuf>,
    /// Folders that the environment names, with what to look for there.
    folders: Vec<(PathBuf, &'static [&'static str])>,
    mounts: &'a [Mount],
}

impl<'a> Doors<'a> {
    /// The doors of this machine, where this is mounted, and of this process's environment. The command is another user's than this
    /// process, if one is given.
    pub(super) fn host(identity: Option<&Identity>, mounts: &'a [Mount]) -> Self {
        let user = identity.map_or_else(getuid, |identity| identity.uid);
        let account = identity.and_then(|identity| identity.account.as_ref());
        let name = match account {
            Some(account) => Some(account.name.clone()),
            None if user.is_root() => None,
            None => local_name(user),
        };
        let home = account.map(|account| (PathBuf::from(&account.home), HOME));
        let named = VARIABLES.iter().filter_map(|(name, before)| {
            let value = env::var(name).ok()?;
            // What follows a path: other properties, or other addresses.
            let path = value.strip_prefix(before)?.split([',', ';']).next()?;
            Some(PathBuf::from(path)).filter(|path| path.is_absolute())
        });
        let folders = FOLDERS.iter().filter_map(|(name, patterns)| Some((env::var_os(name)?.into(), *patterns)));
        let folders = folders.chain(home).collect();
        Self { root: "/".into(), user: user.as_raw(), name, named: named.collect(), folders, mounts }
    }

    /// The users into whose folders it looks, with their names.
    fn owners(&self) -> Vec<(u32, Option<&str>)> {
        let own = (self.user, self.name.as_deref());
        if own.0 == ROOT.0 { vec![ROOT] } else { vec![ROOT, own] }
    }
}

const ROOT: (u32, Option<&str>) = (0, Some("root"));

/// What there is to be covered.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Covers {
    /// What was found.
    pub(super) found: BTreeSet<Cover>,
    /// Folders that have so much of other users that there may be more in them.
    pub(super) crowded: BTreeSet<PathBuf>,
}

/// Finds the sockets that are there, but for those that a rule of the policy's unix section allows. Those of services that resolve host names
/// are among them if these are kept from the command ([`super::keeps_resolvers`]).
///
/// # Errors
///
/// When this process can't look.
pub(super) fn find(doors: &Doors, unix: Option<&Section<UnixRule>>, keeps_resolvers: bool) -> nix::Result<Covers> {
    let owners = doors.owners();
    let numbers: Vec<u32> = owners.iter().map(|(number, _)| *number).collect();
    let walk = &Walk::new(&doors.root, &numbers, doors.mounts)?;
    let mut finder = Finder { allowed: Allowed::new(unix), covers: Covers::default() };
    for (folder, patterns) in SYSTEM {
        finder.below(walk, folder, patterns)?;
    }
    for (_, folder, pattern) in RESOLVERS.iter().filter(|_| keeps_resolvers) {
        finder.resolver(walk, folder, pattern)?;
    }
    for folder in BTreeSet::from(SHARED.map(|(folder, ..)| folder)) {
        finder.in_shared(walk, folder, &owners, doors.user == ROOT.0)?;
    }
    for number in numbers {
        finder.below(walk, format!("{RUNTIME}/{number}"), &USER)?;
    }
    for (folder, patterns) in &doors.folders {
        finder.below(walk, folder, patterns)?;
    }
    if doors.user == ROOT.0 {
        finder.sessions_of_others(walk)?;
    }
    for path in &doors.named {
        finder.named(path)?;
    }
    Ok(finder.covers.without_hidden())
}

impl Covers {
    /// Without what is in a folder that is covered as a whole.
    fn without_hidden(mut self) -> Self {
        let folders = self.found.iter().filter(|cover| cover.is_folder());
        let folders: Vec<PathBuf> = folders.map(|cover| cover.path().to_owned()).collect();
        let is_hidden = |path: &Path| folders.iter().any(|folder| path != folder && path.starts_with(folder));
        self.found.retain(|cover| !is_hidden(cover.path()));
        self
    }
}

/// Whether nobody listens at a stream socket's path. Who is not known to have gone is there.
fn is_abandoned(path: &Path) -> bool {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (Ok(address), Ok(client)) = (UnixAddr::new(path), socket(AddressFamily::Unix, SockType::Stream, flags, None))
    else {
        return false;
    };
    connect(client.as_raw_fd(), &address) == Err(Errno::ECONNREFUSED)
}

struct Finder<'a> {
    allowed: Allowed<'a>,
    covers: Covers,
}

impl Finder<'_> {
    /// Covers what is like these patterns, below a folder.
    fn below(&mut self, walk: &Walk, folder: impl AsRef<Path>, patterns: &[&str]) -> nix::Result<()> {
        let Some(folder) = walk.find(folder)?.map(Found::shared) else { return Ok(()) };
        patterns.iter().try_for_each(|pattern| self.like(walk, &folder, pattern, MANY))
    }

    /// Covers what is like a pattern, in a folder: the folder as a whole where others can make something in it, or where more
    /// than this many entries are like it.
    fn like(&mut self, walk: &Walk, folder: &Found, pattern: &str, most: usize) -> nix::Result<()> {
        let (part, rest) = pattern.split_once('/').map_or((pattern, None), |(part, rest)| (part, Some(rest)));
        let What::Folder(trust) = folder.what else { return Ok(()) };
        if trust == Trust::Others {
            return self.whole(walk, folder, pattern);
        }
        let Some((start, end)) = part.split_once('*') else {
            return self.entry(walk, folder, part.as_ref(), rest, most);
        };
        let names = folder.names(most.saturating_add(1), |name| is_like(&name, start, end).then_some(name))?;
        if names.len() > most {
            if trust == Trust::Owner && most == MANY {
                return self.whole(walk, folder, pattern);
            }
            self.covers.crowded.insert(folder.path.clone());
        }
        names.iter().take(most).try_for_each(|name| self.entry(walk, folder, name, rest, most))
    }

    fn entry(&mut self, walk: &Walk, folder: &Found, name: &OsStr, rest: Option<&str>, most: usize) -> nix::Result<()> {
        let Some(found) = walk.enter(folder, name)? else { return Ok(()) };
        if let Some(rest) = rest {
            return self.like(walk, &found, rest, most);
        }
        if matches!(found.what, What::Socket) {
            self.socket(found.path);
        }
        Ok(())
    }

    /// Covers the sockets of a service that resolves names, whosever its folder is, one by one: in that of systemd-resolved is the file that
    /// /etc/resolv.conf leads to.
    fn resolver(&mut self, walk: &Walk, folder: &str, pattern: &str) -> nix::Result<()> {
        let Some(folder) = walk.find(folder)? else { return Ok(()) };
        let walk = walk.trusting(folder.owner);
        let folder = walk.again(&folder)?.shared();
        self.like(&walk, &folder, pattern, OTHERS)
    }

    /// Covers a folder. If a rule allows anything in it, that could not be reached then, so it is looked into instead.
    fn whole(&mut self, walk: &Walk, folder: &Found, pattern: &str) -> nix::Result<()> {
        if self.allowed.is_possible_below(&folder.path) {
            let walk = walk.trusting(folder.owner);
            let folder = walk.again(folder)?.shared();
            return self.like(&walk, &folder, pattern, OTHERS);
        }
        self.covers.found.insert(Cover::Folder(folder.path.clone().into()));
        Ok(())
    }

    fn socket(&mut self, path: PathBuf) {
        // What an agent has left behind that has ended is in the next one's way, which the command may start for itself. In the
        // folders of sessions, a socket may wait for somebody to start the agent.
        let is_of_home = path.ends_with(GPG_AGENT) && !path.starts_with(RUNTIME);
        if !(self.allowed.allows(&path) || is_of_home && is_abandoned(&path)) {
            self.covers.found.insert(Cover::Socket(path.into()));
        }
    }

    /// Covers a socket that the environment names. Anybody who can set that may look there, but not in a session of another user's.
    fn named(&mut self, path: &Path) -> nix::Result<()> {
        if self.covers.found.iter().any(|cover| cover.is_folder() && path.starts_with(cover.path())) {
            return Ok(());
        }
        let Ok(path) = path.canonicalize() else { return Ok(()) };
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW;
        if let Some(file) = if_there(open_without_links(AT_FDCWD, &path, flags, ResolveFlag::empty()))?
            && is(&fstat(&file)?, SFlag::S_IFSOCK)
        {
            self.socket(path);
        }
        Ok(())
    }

    /// Covers the folders of other users' sessions.
    fn sessions_of_others(&mut self, walk: &Walk) -> nix::Result<()> {
        let Some(folder) = walk.find(RUNTIME)? else { return Ok(()) };
        if !matches!(folder.what, What::Folder(Trust::Owner)) {
            return Ok(());
        }
        for user in folder.names(usize::MAX, |name| number(name.to_str()?))? {
            let path = folder.path.join(user.to_string());
            if walk.trusts(user) {
                continue;
            }
            if self.allowed.is_possible_below(&path) {
                self.below(&walk.trusting(user), format!("{RUNTIME}/{user}"), &USER)?;
            } else {
                self.covers.found.insert(Cover::Folder(path.into()));
            }
        }
        Ok(())
    }

    /// Covers what is in the folders of these users, in one for all of them; and the folders of others, if the command is root's.
    fn in_shared(&mut self, walk: &Walk, path: &str, owners: &[(u32, Option<&str>)], others: bool) -> nix::Result<()> {
        let Some(folder) = walk.find(path)?.map(Found::shared) else { return Ok(()) };
        for (start, by, below) in
            SHARED.iter().filter(|(folder, ..)| *folder == path).map(|(_, start, by, below)| (start, by, below))
        {
            for (number, name) in owners {
                let own = match by {
                    By::Number => Some(number.to_string()),
                    By::Name => name.map(str::to_owned),
                };
                if let Some(own) = own {
                    self.like(walk, &folder, &format!("{start}{own}/{below}"), MANY)?;
                }
            }
        }
        if path == FIRST.0 {
            self.like(walk, &folder, FIRST.1, MANY)?;
        }
        if others { self.folders_of_others(walk, folder, path) } else { Ok(()) }
    }

    /// Covers the folders of other users in a folder for all of them, which is at this path.
    fn folders_of_others(&mut self, walk: &Walk, folder: Found, path: &str) -> nix::Result<()> {
        let ids = OnceCell::new();
        let candidate = |name: OsString| {
            let text = name.to_str()?;
            SHARED.iter().filter(|(folder, ..)| *folder == path).find_map(|(_, start, by, below)| {
                let user = text.strip_prefix(start)?;
                let user = match by {
                    By::Number => number(user),
                    By::Name => ids.get_or_init(local_ids).get(user).copied(),
                };
                user.filter(|user| !walk.trusts(*user)).map(|user| (user, text.to_owned(), *below))
            })
        };
        let mut candidates = folder.names(usize::MAX, candidate)?;
        candidates.sort_unstable();
        let (mut covered, tried) = (0, candidates.len().min(TRIED));
        let mut is_crowded = tried < candidates.len();
        for (user, name, below) in candidates.into_iter().take(tried) {
            let walk = walk.trusting(user);
            let found = walk.enter(&folder, &name)?;
            let Some(found) = found.filter(|found| found.owner == user && matches!(found.what, What::Folder(_))) else {
                continue;
            };
            if self.allowed.is_possible_below(&found.path) {
                self.like(&walk, &found, below, MANY)?;
            } else if covered < OTHERS {
                covered += 1;
                self.covers.found.insert(Cover::FolderOf(found.path.into(), user));
            } else {
                is_crowded = true;
            }
        }
        if is_crowded {
            self.covers.crowded.insert(folder.path);
        }
        Ok(())
    }
}

/// The number of a user, as it is written.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number: &u32| number.to_string() == text)
}

fn is_like(name: &OsStr, start: &str, end: &str) -> bool {
    name.as_bytes().strip_prefix(start.as_bytes()).is_some_and(|rest| rest.ends_with(end.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::{fs::PermissionsExt as _, fs::symlink, net::UnixListener},
    };

    use nix::unistd::geteuid;
    use tempfile::TempDir;

    use super::*;
    use policy::Document;

    /// A folder that counts as `/`, in which this process's user has a session.
    struct Machine {
        folder: TempDir,
        user: u32,
        listeners: Vec<UnixListener>,
    }

    impl Machine {
        fn with(sockets: &[&str]) -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let mut machine = Self { folder, user: geteuid().as_raw(), listeners: Vec::new() };
            machine.shared("tmp");
            machine.listen(sockets);
            machine
        }

        fn root(&self) -> PathBuf {
            self.folder.path().canonicalize().expect("its path")
        }

        /// A path in which `UID` is the user's number.
        fn path(&self, path: &str) -> PathBuf {
            self.root().join(path.replace("UID", &self.user.to_string()))
        }

        fn shared(&self, path: &str) {
            let path = self.path(path);
            fs::create_dir_all(&path).expect("a folder");
            fs::set_permissions(path, fs::Permissions::from_mode(0o1777)).expect("it is ours");
        }

        fn listen(&mut self, sockets: &[&str]) {
            for path in sockets {
                let path = self.path(path);
                fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
                // The path may be longer than an address can be.
                let link = self.root().join("here");
                symlink(path.parent().expect("a folder"), &link).expect("a link");
                self.listeners
                    .push(UnixListener::bind(link.join(path.file_name().expect("a name"))).expect("a socket"));
                fs::remove_file(link).expect("it is ours");
            }
        }

        fn covers(&self, named: &[&str], policy: Option<&str>) -> Covers {
            let doors = Doors {
                root: self.root(),
                user: self.user,
                name: Some("me".into()),
                named: named.iter().map(|path| self.path(path)).collect(),
                folders: vec![(Path::new("/home/me").into(), HOME)],
                mounts: &[],
            };
            let policy = policy.map(|rules| {
                let unix = format!(r#"{{"default": "allow", "rules": [{rules}]}}"#)
                    .replace("ROOT", &self.root().display().to_string());
                let text = format!(r#"{{"version": 1, "unix": {unix}}}"#);
                Document::new(Path::new("test"), text.into()).parse().expect("a policy")
            });
            find(&doors, policy.as_ref().and_then(|policy| policy.unix.as_ref()), false).expect("this process can look")
        }

        fn found(&self, policy: Option<&str>) -> Vec<String> {
            let root = self.root().display().to_string();
            let covers = self.covers(&[], policy);
            let mut names: Vec<String> =
                covers.found.iter().map(|cover| cover.name().trim_start_matches(&root)[1..].to_owned()).collect();
            names.sort_unstable();
            names
        }

        fn is_found(&self, sockets: &[&str]) {
            let user = self.user.to_string();
            let mut sockets: Vec<String> = sockets.iter().map(|path| path.replace("UID", &user)).collect();
            sockets.sort_unstable();
            assert_eq!(self.found(None), sockets);
        }
    }

    #[test]
    fn every_service_is_found_where_it_listens() {
        let sockets = [
            "run/dbus/system_bus_socket",
            "run/systemd/private",
            "run/systemd/io.systemd.Manager",
            "run/systemd/machine/io.systemd.Machine",
            "run/udev/control",
            "run/udev/io.systemd.Udev",
            "run/docker.sock",
            "run/docker/metrics.sock",
            "run/docker/containerd/containerd.sock",
            "run/podman/podman.sock",
            "run/containerd/containerd.sock",
            "run/containerd/containerd.sock.ttrpc",
            "run/containerd/s/0a5f3c",
            "run/k3s/containerd/containerd.sock",
            "run/k3s/containerd/containerd.sock.ttrpc",
            "run/cri-dockerd.sock",
            "run/crio/crio.sock",
            "run/buildkit/buildkitd.sock",
            "run/lxd.socket",
            "run/libvirt/libvirt-sock",
            "run/snapd.socket",
            "run/snapd-snap.socket",
            "run/php/php8.2-fpm.sock",
            "run/php-fpm/www.sock",
            "run/php-fpm.sock",
            "var/lib/lxd/unix.socket",
            "var/lib/incus/unix.socket",
            "var/snap/lxd/common/lxd/unix.socket",
            "var/snap/microk8s/common/run/containerd.sock",
            "nix/var/nix/daemon-socket/socket",
            "run/user/UID/bus",
            "run/user/UID/dbus-1/services",
            "run/user/UID/systemd/private",
            "run/user/UID/systemd/io.systemd.Manager",
            "run/user/UID/docker.sock",
            "run/user/UID/podman/podman.sock",
            "run/user/UID/buildkit/buildkitd.sock",
            "run/user/UID/libvirt/libvirt-sock",
            "run/user/UID/emacs/server",
            "run/user/UID/vscode-ipc-1.sock",
            "run/user/UID/nvim.4321.0",
            "run/user/UID/sway-ipc.7.4321.sock",
            "run/user/UID/i3/ipc-socket.4321",
            "run/user/UID/hypr/abc_1/.socket.sock",
            "run/user/UID/gnupg/S.gpg-agent",
            "run/user/UID/gnupg/d.abc/S.gpg-agent",
            "run/user/UID/tmux-7/default",
            "tmp/tmux-UID/default",
            "tmp/emacsUID/server",
            "tmp/hypr/abc_1/.socket.sock",
            "run/tmux/UID/default",
            "run/screen/S-root/123.tty",
            "home/me/.gnupg/S.gpg-agent",
        ];
        let mut machine = Machine::with(&sockets);
        machine.is_found(&sockets);
        // These use keys, and run nothing.
        machine.listen(&[
            "run/user/UID/gnupg/S.gpg-agent.ssh",
            "run/user/UID/gnupg/S.gpg-agent.extra",
            "tmp/ssh-x/agent.1",
        ]);
        machine.is_found(&sockets);
    }

    #[test]
    fn only_sockets_are_found_and_by_their_real_paths() {
        let machine = Machine::with(&["run/podman/podman.sock", "srv/bus"]);
        fs::create_dir_all(machine.path("run/docker")).expect("a folder");
        fs::write(machine.path("run/docker/x.sock"), "").expect("a file");
        symlink("/run/podman/podman.sock", machine.path("run/docker.sock")).expect("a link");
        symlink("../podman/podman.sock", machine.path("run/docker/y.sock")).expect("a link");
        symlink("loop.sock", machine.path("run/docker/loop.sock")).expect("a link");
        machine.is_found(&["run/podman/podman.sock"]);

        symlink("srv", machine.path("link")).expect("a link");
        let covers = machine.covers(&["link/bus", "missing", "run/docker/x.sock"], None);
        let named = [machine.path("run/podman/podman.sock"), machine.path("srv/bus")];
        assert_eq!(covers.found, named.map(|path| Cover::Socket(path.into())).into());
    }

    #[test]
    fn what_rules_allow_is_left_alone() {
        let machine = Machine::with(&["run/docker.sock", "run/docker/x.sock", "tmp/tmux-UID/default"]);
        let mut found = machine.found(None);
        found.retain(|path| path != "run/docker.sock");
        let rule = r#"{"action": "allow", "paths": ["ROOT/run/docker.sock"]}"#;
        assert_eq!(machine.found(Some(rule)), found);
        assert_eq!(machine.found(Some(r#"{"action": "allow", "paths": ["*"]}"#)), Vec::<String>::new());
        let but = r#"{"action": "deny", "paths": ["ROOT/run/docker.sock"]}, {"action": "allow"}"#;
        assert_eq!(machine.found(Some(but)), ["run/docker.sock"]);
    }

    #[test]
    fn a_folder_is_covered_as_a_whole_where_there_are_many_sockets_or_others_can_make_them() {
        let mut machine = Machine::with(&["run/libvirt/0"]);
        fs::create_dir_all(machine.path("tmp/tmux-UID")).expect("a folder");
        for name in 0..=MANY {
            fs::hard_link(machine.path("run/libvirt/0"), machine.path(&format!("tmp/tmux-UID/{name}")))
                .expect("a link");
        }
        machine.listen(&["run/docker/x.sock"]);
        fs::set_permissions(machine.path("run/docker"), fs::Permissions::from_mode(0o775)).expect("it is ours");
        machine.is_found(&["run/docker/", "run/libvirt/0", "tmp/tmux-UID/"]);
        // Unless a rule allows something in it: then all else is.
        let rule = r#"{"action": "allow", "paths": ["ROOT/run/docker/x.sock", "ROOT/tmp/*/7"]}"#;
        let found = machine.found(Some(rule));
        assert_eq!(found.len(), 1 + MANY, "{found:?}");
        assert!(!found.iter().any(|path| path.ends_with("/7") || path.ends_with("x.sock")), "{found:?}");
    }

    #[test]
    fn nobody_looks_into_the_sessions_of_others() {
        let other = geteuid().as_raw() + 1;
        let [bus, tmux] = [format!("run/user/{other}/bus"), format!("tmp/tmux-{other}/default")];
        let machine = Machine::with(&[&bus, &tmux]);
        // The folder in /tmp doesn't belong to the user whose it is said to be.
        let expected = if machine.user == 0 { vec![format!("run/user/{other}/")] } else { Vec::new() };
        assert_eq!(machine.found(None), expected);
    }
}
