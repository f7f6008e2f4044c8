//! The user that a command runs as (`--user NAME|UID[:GID]`).

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    process::Command,
    str::FromStr,
};

use nix::unistd::{Gid, Uid, getegid, geteuid, getgroups};

/// An identity to take on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub uid: Uid,
    /// The main group.
    pub gid: Gid,
    /// All groups.
    pub groups: Vec<Gid>,
    /// The user's name and home, where the user is known to the system.
    pub account: Option<Account>,
}

/// What the system knows of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// Home folder.
    pub home: String,
}

impl Identity {
    /// Whether it is this process's own, all groups included.
    #[must_use]
    pub fn is_own(&self) -> bool {
        let set = |groups: &[Gid]| groups.iter().map(|gid| gid.as_raw()).chain([self.gid.as_raw()]).collect();
        let (groups, own): (BTreeSet<u32>, BTreeSet<u32>) = (set(&self.groups), set(&getgroups().unwrap_or_default()));
        (self.uid, self.gid) == (geteuid(), getegid()) && groups == own
    }
}

impl FromStr for Identity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        // getent(1) would take a number modulo 2^32.
        let impossible = user.is_empty() || is_digits(user) && number(user).is_none();
        let entry = if impossible { None } else { lookup("passwd", user)? };
        let uid = match (&entry, number(user)) {
            (Some(entry), _) => entry.uid()?,
            (None, Some(uid)) => uid,
            (None, None) => return Err(format!("there is no user \"{user}\"")),
        };
        let gid = match (group, &entry) {
            (Some(group), _) => parse_group(group)?,
            (None, Some(entry)) => entry.gid()?,
            (None, None) => {
                return Err(format!(
                    "user {user} is not in the user database; write the group, too: --user {user}:GID"
                ));
            }
        };
        let groups = match (group, &entry) {
            (None, Some(entry)) => groups(entry.field(0))?,
            // A group that is given is the only one, as with `--user` of containers.
            _ => vec![Gid::from_raw(gid)],
        };
        let account = entry.map(|entry| Account { name: entry.field(0).to_owned(), home: entry.field(5).to_owned() });
        Ok(Self { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid), groups, account })
    }
}

fn parse_group(text: &str) -> Result<u32, String> {
    if let Some(gid) = number(text) {
        return Ok(gid);
    }
    let entry = if text.is_empty() || is_digits(text) { None } else { lookup("group", text)? };
    entry.ok_or_else(|| format!("there is no group \"{text}\""))?.uid()
}

/// All groups of a user.
fn groups(name: &str) -> Result<Vec<Gid>, String> {
    let text = output("/usr/bin/id", &["-G", "--", name])?.unwrap_or_default();
    let groups: Option<Vec<Gid>> = text.split_whitespace().map(|gid| number(gid).map(Gid::from_raw)).collect();
    groups.filter(|groups| !groups.is_empty()).ok_or_else(|| format!("id -G {name} printed no groups: {text}"))
}

/// A line of the user or group database (passwd(5), group(5)).
struct Entry(String);

impl Entry {
    fn field(&self, index: usize) -> &str {
        self.0.trim_end().split(':').nth(index).unwrap_or_default()
    }

    /// The third field: of a user the user id, of a group the group id.
    fn uid(&self) -> Result<u32, String> {
        number(self.field(2)).ok_or_else(|| format!("strange entry in the user database: {}", self.0))
    }

    /// The fourth: of a user the main group's id.
    fn gid(&self) -> Result<u32, String> {
        number(self.field(3)).ok_or_else(|| format!("strange entry in the user database: {}", self.0))
    }
}

/// Looks a name or number up in a system database, wherever the system keeps it. Through getent(1), since a static
/// program can't load the C library's modules for that.
fn lookup(database: &str, key: &str) -> Result<Option<Entry>, String> {
    Ok(output("/usr/bin/getent", &[database, "--", key])?.map(Entry))
}

/// What a program prints; nothing if it fails.
fn output(program: &str, arguments: &[&str]) -> Result<Option<String>, String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    Ok(output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// The login name of a user in /etc/passwd, for the log.
#[must_use]
pub fn local_name(uid: Uid) -> Option<String> {
    let text = std::fs::read_to_string("/etc/passwd").ok()?;
    let mut entries = text.lines().map(|line| Entry(line.to_owned()));
    entries.find(|entry| entry.uid() == Ok(uid.as_raw())).map(|entry| entry.field(0).to_owned())
}

/// The home of a user in /etc/passwd.
#[must_use]
pub fn local_home(uid: u32) -> Option<PathBuf> {
    let text = std::fs::read_to_string("/etc/passwd").ok()?;
    let mut entries = text.lines().map(|line| Entry(line.to_owned()));
    entries.find(|entry| entry.uid() == Ok(uid)).map(|entry| entry.field(5).into())
}

/// The users of /etc/passwd: their numbers, by their names.
#[must_use]
pub fn local_ids() -> HashMap<String, u32> {
    let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let entries = text.lines().map(|line| Entry(line.to_owned()));
    entries.filter_map(|entry| Some((entry.field(0).to_owned(), entry.uid().ok()?))).collect()
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// An id. Not -1, which means "leave as it is" to the system calls.
fn number(text: &str) -> Option<u32> {
    // u32::from_str would take a sign.
    text.parse().ok().filter(|id| is_digits(text) && *id != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_by_name_and_number() {
        let root: Identity = "root".parse().unwrap();
        assert_eq!((root.uid.as_raw(), root.gid.as_raw()), (0, 0));
        assert_eq!(root.account.unwrap().name, "root");
        assert_eq!("0".parse::<Identity>().unwrap().gid.as_raw(), 0);
        let unknown: Identity = "4242:4343".parse().unwrap();
        assert_eq!((unknown.uid.as_raw(), unknown.groups), (4242, vec![Gid::from_raw(4343)]));
        for text in ["", "no-such-user", "4242", "0:no-such-group", "-1", "4294967295:0", "4294967296:0", "0:"] {
            assert!(text.parse::<Identity>().is_err(), "{text}");
        }
    }
}
