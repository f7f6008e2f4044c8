//! Policies in several files: what a file includes, its rules come before those of the file itself.
//!
//! This crate opens no files. Somebody who can ([`Files`]) also knows who may write to them.

use std::{
    mem,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{Document, Policy, PolicyError, Queries, Section, error::unexpanded};

/// The most files of one policy.
const MAX_FILES: usize = 64;

/// What a file may have that others include.
const KEYS: [&str; 11] = [
    "$schema",
    "version",
    "description",
    "include",
    "sets",
    "network",
    "unix",
    "devices",
    "sysctls",
    "sockets",
    "sockopts",
];

/// Where the files are that a policy includes.
pub trait Files {
    /// The path by which a file is known, in which nothing is a link.
    ///
    /// # Errors
    ///
    /// When there is no file: the reason, for people.
    fn real(&self, path: &Path) -> Result<PathBuf, String>;

    /// Reads the file at such a path, which the one at another such path includes.
    ///
    /// # Errors
    ///
    /// When it can't be read, or others than those who may write the one that includes it could have written it: the reason, for people.
    fn read(&self, path: &Path, including: &Path) -> Result<Document, String>;
}

/// No files, for policies that are in none.
#[derive(Clone, Copy, Debug)]
pub struct NoFiles;

impl Files for NoFiles {
    fn real(&self, _: &Path) -> Result<PathBuf, String> {
        Err("there are no files here to include".to_owned())
    }

    fn read(&self, path: &Path, _: &Path) -> Result<Document, String> {
        self.real(path).map(|path| Document::new(&path, Vec::new()))
    }
}

/// Which rule of which file a rule of a policy is.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The section, and the number of the rule in the whole policy.
    pub rule: (&'static str, usize),
    /// The file.
    pub document: Arc<Document>,
    /// The number of the rule in that file's section.
    pub place: usize,
}

impl Origin {
    /// The JSON pointer of the rule in the whole policy.
    #[must_use]
    pub fn whole(&self) -> String {
        format!("/{}/rules/{}", self.rule.0, self.rule.1)
    }

    /// The JSON pointer of the rule in its own file.
    #[must_use]
    pub fn pointer(&self) -> String {
        format!("/{}/rules/{}", self.rule.0, self.place)
    }
}

/// A policy in reading.
pub(super) struct Reader<'a, F> {
    files: &'a F,
    /// The files that are being read, each including the next.
    open: Vec<PathBuf>,
    /// All that have been read but the first.
    read: Vec<Arc<Document>>,
}

impl<'a, F: Files> Reader<'a, F> {
    pub(super) const fn new(files: &'a F) -> Self {
        Self { files, open: Vec::new(), read: Vec::new() }
    }

    /// The policy that begins in this document, with all that it includes.
    pub(super) fn policy(mut self, document: &Document) -> Result<Policy, PolicyError> {
        let mut policy = self.part(document)?;
        policy.included = self.read;
        Ok(policy)
    }

    /// What a document says, with what it includes.
    fn part(&mut self, document: &Document) -> Result<Policy, PolicyError> {
        let mut own = document.parse_alone()?;
        let Some(names) = own.include.take() else {
            own.expand(document)?;
            own.check(document)?;
            return Ok(own);
        };
        let at = |pointer: String, why: &str| PolicyError::at(document, pointer, why);
        if self.open.is_empty() {
            let real = self.files.real(document.path()).map_err(|why| at("/include".to_owned(), &why))?;
            self.open.push(real);
        }
        let mut whole = own.without_rules();
        for (number, name) in names.iter().enumerate() {
            let here = |why: String| at(format!("/include/{number}"), &why);
            let included = self.included(name).map_err(|refused| match refused {
                Refused::Here(why) => here(why),
                Refused::There(error) => error,
            })?;
            whole.join(included).map_err(here)?;
        }
        // Its own rules may have all sets, and come last.
        own.sets = mem::take(&mut whole.sets);
        own.expand(document)?;
        own.origins = own.own_origins(&Arc::new(document.clone()));
        whole.join(own).map_err(|why| at("/include".to_owned(), &why))?;
        whole.check(document)?;
        Ok(whole)
    }

    /// Reads a file that the one that is being read includes.
    fn included(&mut self, name: &str) -> Result<Policy, Refused> {
        let including = self.open.last().expect("a file is being read").clone();
        let path = self
            .files
            .real(&including.with_file_name(name))
            .map_err(|why| Refused::Here(unexpanded(name).map_or(why, |hint| format!("\"{name}\": {hint}"))))?;
        if self.open.contains(&path) {
            return Err(Refused::Here(format!("\"{name}\" includes this file, or is this file")));
        }
        if self.read.iter().any(|read| read.path() == path) {
            return Err(Refused::Here(format!("\"{name}\" is included twice; a rule has one place")));
        }
        if self.read.len() + 1 == MAX_FILES {
            return Err(Refused::Here(format!("more than {MAX_FILES} files")));
        }
        let other = Arc::new(self.files.read(&path, &including).map_err(Refused::Here)?);
        self.read.push(Arc::clone(&other));
        self.open.push(path);
        let mut part = self.part(&other).map_err(Refused::There)?;
        self.open.pop();
        only_rules(&other, &part).map_err(Refused::There)?;
        if part.origins.is_empty() {
            part.origins = part.own_origins(&other);
        }
        Ok(part)
    }
}

/// Why a file can't be included.
enum Refused {
    /// What is wrong with including it.
    Here(String),
    /// What is wrong in it.
    There(PolicyError),
}

/// Makes sure that a file that others include has nothing but rules and sets: all else is for one policy as a whole.
fn only_rules(document: &Document, policy: &Policy) -> Result<(), PolicyError> {
    let network = policy.network.as_ref();
    let extra = if let Some(key) = document.keys().into_iter().find(|key| !KEYS.contains(&&**key)) {
        Some(format!("/{key}"))
    } else if network.is_some_and(|section| section.nameservers.is_some()) {
        Some("/network/nameservers".to_owned())
    } else if network.is_some_and(|section| section.queries != Queries::default()) {
        Some("/network/queries".to_owned())
    } else {
        None
    };
    extra.map_or(Ok(()), |pointer| {
        let why = "this is for the policy as a whole, and not for a file that others include";
        Err(PolicyError::at(document, pointer, why))
    })
}

impl Policy {
    /// The policy but for its rules and sections.
    fn without_rules(&self) -> Self {
        let (network, unix, devices, sysctls, sockets, sockopts) = (None, None, None, None, None, None);
        Self { network, unix, devices, sysctls, sockets, sockopts, ..self.clone() }
    }

    /// Adds the rules of another file behind those that are there, and its sets.
    fn join(&mut self, part: Self) -> Result<(), String> {
        let mut offsets = Vec::new();
        if let Some(part) = part.network {
            match &mut self.network {
                Some(whole) => {
                    offsets.push(("network", whole.rules.len()));
                    whole.append(part).map_err(|why| format!("/network: {why}"))?;
                }
                whole => *whole = Some(part),
            }
        }
        append("unix", &mut self.unix, part.unix, &mut offsets)?;
        append("devices", &mut self.devices, part.devices, &mut offsets)?;
        append("sysctls", &mut self.sysctls, part.sysctls, &mut offsets)?;
        append("sockets", &mut self.sockets, part.sockets, &mut offsets)?;
        append("sockopts", &mut self.sockopts, part.sockopts, &mut offsets)?;
        for mut origin in part.origins {
            let offset = offsets.iter().find(|(name, _)| *name == origin.rule.0).map_or(0, |(_, offset)| *offset);
            origin.rule.1 += offset;
            self.origins.push(origin);
        }
        for (name, hosts) in part.sets {
            if self.sets.insert(name.clone(), hosts).is_some() {
                return Err(format!("the set \"{name}\" is in two files; each set has a name of its own"));
            }
        }
        Ok(())
    }

    /// Where its rules are from, if they are all of one document.
    fn own_origins(&self, document: &Arc<Document>) -> Vec<Origin> {
        let count = |name: &'static str, count: Option<usize>| (name, count.unwrap_or(0));
        let sections = [
            count("network", self.network.as_ref().map(|section| section.rules.len())),
            count("unix", self.unix.as_ref().map(|section| section.rules.len())),
            count("devices", self.devices.as_ref().map(|section| section.rules.len())),
            count("sysctls", self.sysctls.as_ref().map(|section| section.rules.len())),
            count("sockets", self.sockets.as_ref().map(|section| section.rules.len())),
            count("sockopts", self.sockopts.as_ref().map(|section| section.rules.len())),
        ];
        let rules = sections.into_iter().flat_map(|(name, count)| (0..count).map(move |rule| (name, rule)));
        rules.map(|(name, place)| Origin { rule: (name, place), document: Arc::clone(document), place }).collect()
    }
}

/// Adds the rules of another file's section, if it has that, and notes how many were there before.
fn append<R>(
    name: &'static str,
    whole: &mut Option<Section<R>>,
    part: Option<Section<R>>,
    offsets: &mut Vec<(&'static str, usize)>,
) -> Result<(), String> {
    match (whole, part) {
        (_, None) => Ok(()),
        (Some(whole), Some(part)) => {
            offsets.push((name, whole.rules.len()));
            whole.append(part).map_err(|why| format!("/{name}: {why}"))
        }
        (whole, part) => {
            *whole = part;
            Ok(())
        }
    }
}
