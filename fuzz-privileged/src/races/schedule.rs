//! Schedules: what the attacker replaces, and at which look-up.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    attacker::{Attacker, Replace, Replacement},
    drive::Lookup,
    world::{FOLDERS, VICTIM},
};

/// A look-up that leads through a folder of the attacker's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// The process that makes it, and how many such look-ups it had made before.
    pub at: (usize, usize),
    /// The system call.
    pub call: &'static str,
    /// Paths that lead through such a folder.
    pub paths: Vec<PathBuf>,
}

/// Something is replaced just before a look-up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Swap {
    /// Before which: see [`Stop::at`].
    pub at: (usize, usize),
    /// What is replaced by what.
    pub replace: Replace,
}

/// A schedule while it runs: counts the look-ups, has the attacker do what is due, and notes what was seen.
#[derive(Debug)]
pub struct Running<'a> {
    swaps: &'a [Swap],
    attacker: &'a mut Attacker,
    counts: Vec<usize>,
    /// The look-ups so far.
    pub stops: Vec<Stop>,
    /// What was replaced at which of them, and whether that was possible.
    pub done: Vec<(Swap, usize, bool)>,
}

impl<'a> Running<'a> {
    /// Begins.
    pub fn new(swaps: &'a [Swap], attacker: &'a mut Attacker) -> Self {
        Self { swaps, attacker, counts: Vec::new(), stops: Vec::new(), done: Vec::new() }
    }

    /// To be called at every look-up.
    ///
    /// # Errors
    ///
    /// When the attacker has ended.
    pub fn at(&mut self, lookup: &Lookup) -> anyhow::Result<()> {
        let paths: Vec<PathBuf> = lookup.paths.iter().filter(|path| attackers(path).is_some()).cloned().collect();
        if paths.is_empty() {
            return Ok(());
        }
        let needed = self.counts.len().max(lookup.process + 1);
        self.counts.resize(needed, 0);
        let at = (lookup.process, self.counts[lookup.process]);
        self.counts[lookup.process] += 1;
        for swap in self.swaps.iter().filter(|swap| swap.at == at) {
            let possible = self.attacker.replace(&swap.replace)?;
            self.done.push((swap.clone(), self.stops.len(), possible));
        }
        self.stops.push(Stop { at, call: lookup.call, paths });
        Ok(())
    }

    /// What was done, for people.
    #[must_use]
    pub fn story(&self) -> Vec<String> {
        let done = self.done.iter().filter(|(_, _, possible)| *possible);
        done.map(|(swap, index, _)| format!("before {}: {}", self.stops[*index], swap.replace)).collect()
    }
}

/// The folder of the attacker's that a path leads through.
fn attackers(path: &Path) -> Option<(&'static Path, bool)> {
    let found = FOLDERS.iter().find(|(folder, _)| path.starts_with(folder));
    found.map(|(folder, itself)| (Path::new(*folder), *itself))
}

impl Stop {
    /// All that the attacker could replace here.
    #[must_use]
    pub fn replacements(&self) -> Vec<Replace> {
        let all = self.paths.iter().flat_map(|path| {
            let (folder, itself) = attackers(path).expect("only such paths are kept");
            let parts = path.ancestors().filter(move |part| part.starts_with(folder) && (itself || *part != folder));
            parts.flat_map(move |part| {
                let rest = path.strip_prefix(part).unwrap_or(Path::new(""));
                replacements(part, rest)
            })
        });
        let mut all: Vec<Replace> = all.collect();
        all.sort();
        all.dedup();
        all
    }
}

/// What a part of a path can be replaced by; `rest` is what follows it.
fn replacements(part: &Path, rest: &Path) -> Vec<Replace> {
    let name = part.file_name().unwrap_or_default();
    let victim = Path::new(VICTIM);
    let magic = Path::new("/proc/self/root").join(victim.strip_prefix("/").unwrap_or(victim));
    let link = |to: PathBuf| Replacement::Link(to);
    let mut by = if rest.as_os_str().is_empty() {
        vec![
            link(victim.join(name)),
            link(victim.join("passwd")),
            link(victim.join("new")),
            link(victim.join("root.sock")),
            link(victim.to_owned()),
            link(magic.join(name)),
            Replacement::Socket,
        ]
    } else {
        vec![link(victim.to_owned()), link(victim.join("sub")), link(magic)]
    };
    by.extend([
        Replacement::Nothing,
        Replacement::Folder(rest.to_owned()),
        Replacement::File,
        Replacement::Fifo,
        link(part.to_owned()),
    ]);
    by.into_iter().map(|by| Replace { what: part.to_owned(), by }).collect()
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (process, number) = self.at;
        let paths: Vec<_> = self.paths.iter().map(|path| path.display().to_string()).collect();
        write!(f, "{}({}), look-up {number} of process {process}", self.call, paths.join(", "))
    }
}

impl fmt::Display for Replace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = self.what.display();
        match &self.by {
            Replacement::Link(to) if *to == self.what => write!(f, "{what} becomes a link to itself"),
            Replacement::Link(to) => write!(f, "{what} becomes a link to {}", to.display()),
            Replacement::Nothing => write!(f, "{what} is moved away"),
            Replacement::File => write!(f, "{what} becomes an empty file"),
            Replacement::Folder(inside) if inside.as_os_str().is_empty() => write!(f, "{what} becomes another folder"),
            Replacement::Folder(inside) => write!(f, "{what} becomes another folder, with {} in it", inside.display()),
            Replacement::Fifo => write!(f, "{what} becomes a FIFO"),
            Replacement::Socket => write!(f, "{what} becomes another socket"),
            Replacement::Crowd(count) => write!(f, "{what} becomes a folder with {count} sockets"),
            Replacement::Former => write!(f, "{what} is put back"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(path: &str) -> Vec<String> {
        let stop = Stop { at: (0, 0), call: "openat", paths: vec![path.into()] };
        let mut parts: Vec<String> =
            stop.replacements().iter().map(|replace| replace.what.display().to_string()).collect();
        parts.dedup();
        parts
    }

    #[test]
    fn every_part_of_a_path_that_is_the_attackers_is_replaced_and_no_other() {
        assert_eq!(replaced("/tmp/home/sub/log.json"), ["/tmp/home", "/tmp/home/sub", "/tmp/home/sub/log.json"]);
        assert_eq!(replaced("/run/user/54321/bus"), ["/run/user/54321/bus"]);
        assert_eq!(attackers(Path::new("/tmp/homes/x")), None);
        assert_eq!(attackers(Path::new("/run/w/victim/log.json")), None);
    }

    #[test]
    fn folders_become_links_under_which_the_rest_of_the_path_is_found() {
        let stop = Stop { at: (1, 2), call: "mount", paths: vec!["/tmp/tmux-54321/default".into()] };
        let all = stop.replacements();
        let link = |what: &str, to: &str| Replace { what: what.into(), by: Replacement::Link(to.into()) };
        assert!(all.contains(&link("/tmp/tmux-54321", "/run/w/victim")));
        assert!(all.contains(&link("/tmp/tmux-54321/default", "/run/w/victim/default")));
        let folder = Replace { what: "/tmp/tmux-54321".into(), by: Replacement::Folder("default".into()) };
        assert!(all.contains(&folder));
    }
}
