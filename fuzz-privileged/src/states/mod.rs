//! States: what guard-hook is told on its standard input, with any content. Its annotations come from the author of the image or the
//! container; the rest comes from the runtime, which may be wrong. guard-hook must do what it says, or refuse it in one line: write
//! nowhere but where logs go, and leave processes that are no container's where they are.

mod changes;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use self::changes::{Change, change, document};
use crate::{
    attacker::Attacker,
    containers::{Container, FAILURES, STATE, call},
    finding::{Finding, Known, Violation, manners},
    guarded::own_program,
    minimise::minimise,
    place::{self, Place, cgroup_of, enter},
    probe::Seen,
    session::{Session, found, note},
    world::{self, OUT, OWN, PROGRAMS},
};

/// What is fuzzed, for people.
const SUBJECT: &str = "guard-hook with a state that has";

/// The processes that are no container's, by what they are.
struct Others(Vec<(&'static str, u32)>);

impl Others {
    fn cgroups(&self) -> Vec<Option<String>> {
        self.0.iter().map(|(_, process)| cgroup_of(*process)).collect()
    }
}

struct States<'a> {
    place: &'a Place,
    container: Container,
    others: Others,
    before: BTreeMap<PathBuf, Result<Seen, i32>>,
    count: u64,
    /// How many states were accepted.
    guarded: u64,
    /// A user's process.
    user: u32,
    // Ends with this value.
    _attacker: Attacker,
}

/// Fuzzes until the time is over.
///
/// # Errors
///
/// When the world around an attempt can't be made.
pub fn fuzz(session: &mut Session, place: &Place) -> anyhow::Result<()> {
    let mut random = session.random.clone();
    let mut states = States::new(place)?;
    let mut known = Known::default();
    let none = states.attempt(&[])?;
    anyhow::ensure!(none.is_empty() && states.guarded == 1, "a container that nothing is wrong with: {none:?}");
    let (ids, user) = (format!("{}-s-x", place.name()), states.user);
    while !session.is_over() {
        let changes: Vec<Change> = (0..=random.below(3)).map(|_| change(&mut random, &ids, user)).collect();
        // What is known to hang takes all of the time.
        if known.has(SUBJECT, "hang", &changes.iter().map(Change::class).collect()) {
            continue;
        }
        session.count();
        let after = (session.elapsed(), session.attempts());
        for violation in states.attempt(&changes)? {
            let classes = |changes: &[Change]| changes.iter().map(Change::class).collect();
            if known.has(SUBJECT, &violation.kind, &classes(&changes)) {
                continue;
            }
            let (changes, violation) = minimise(&changes, violation, |fewer| states.attempt(fewer))?;
            known.add(SUBJECT, &violation.kind, classes(&changes));
            let way = changes.iter().map(ToString::to_string).collect();
            found(Finding { subject: SUBJECT.into(), violation, way, after })?;
        }
    }
    note(&format!("{} states were accepted", states.guarded));
    Ok(())
}

impl<'a> States<'a> {
    fn new(place: &'a Place) -> anyhow::Result<Self> {
        let attacker = Attacker::start(&own_program()?)?;
        let others =
            vec![("the first process", 1), ("its parent", std::process::id()), ("a user's process", attacker.id())];
        let user = attacker.id();
        enter(&place.make("states-user")?, attacker.id())?;
        // A bundle whose configuration can't be read.
        let bundle = Path::new(OWN).join("odd");
        fs::create_dir(&bundle)?;
        std::os::unix::fs::symlink("/dev/zero", bundle.join("config.json"))?;
        world::attackers(false)?;
        let before = world::snapshot();
        Ok(Self {
            place,
            container: Container::start(place)?,
            others: Others(others),
            before,
            count: 0,
            guarded: 0,
            user,
            _attacker: attacker,
        })
    }

    /// Calls guard-hook with a state that is changed so.
    fn attempt(&mut self, changes: &[Change]) -> anyhow::Result<Vec<Violation>> {
        self.count += 1;
        let id = format!("{}-s-{}", self.place.name(), self.count);
        let cgroup = self.place.make(&id)?;
        enter(&cgroup, self.container.process)?;
        let (text, stage) = document(&id, self.container.process, changes);
        let cgroups = self.others.cgroups();
        let outcome = call(stage, &text, 0, |_| Ok(()))?;
        let mut violations = manners(&outcome.output, outcome.hung, "guard-hook: ", &FAILURES);
        if !outcome.output.status.success() && !outcome.hung {
            violations.extend(said_into_a_file(stage)?);
        }
        if outcome.output.status.success() {
            self.guarded += 1;
            // If there is a guard now, its log is written.
            self.container.park()?;
            let outcome = call("poststop", &text, 0, |_| Ok(()))?;
            violations.extend(manners(&outcome.output, outcome.hung, "guard-hook: ", &FAILURES));
            enter(&cgroup, self.container.process)?;
        }
        for ((what, process), (was, now)) in self.others.0.iter().zip(cgroups.iter().zip(self.others.cgroups())) {
            if *was != now {
                let story = format!("{what} ({process}) was moved: from {was:?} to {now:?}");
                violations.push(Violation::new("moved", story));
                if let Some(was) = was {
                    enter(&self.place.mount.join(was.trim_start_matches('/')), *process)?;
                }
            }
        }
        let own = cgroup_of(self.container.process);
        if own.as_deref().is_none_or(|own| !own.ends_with(&id)) {
            violations.push(Violation::new("moved", format!("the container was moved: to {own:?}")));
        }
        let differences = world::differences(&self.before, &world::snapshot());
        if !differences.is_empty() {
            violations.push(Violation::new("outside", differences.join("; ")));
            world::victim()?;
        }
        world::attackers(false)?;
        world::tidy()?;
        self.before = world::snapshot();
        self.container.park()?;
        place::end(&cgroup);
        self.place.remove_made_by_hooks(&format!("{}-s-", self.place.name()));
        Ok(violations)
    }
}

/// Calls guard-hook once more with the state that it has been told, and a file as its standard error, as crun does where an annotation names
/// one. Nothing must be said there.
fn said_into_a_file(stage: &str) -> anyhow::Result<Option<Violation>> {
    let file = Path::new(OUT).join("said");
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", "10"]).arg(Path::new(PROGRAMS).join("guard-hook"));
    command.args(Some(stage).filter(|stage| !stage.is_empty())).current_dir("/").env_clear();
    command.stdin(fs::File::open(Path::new(OUT).join(STATE))?).stderr(fs::File::create(&file)?).stdout(Stdio::null());
    command.status()?;
    let said = fs::read_to_string(&file)?;
    fs::remove_file(file)?;
    Ok((!said.is_empty()).then(|| Violation::new("said", format!("into a file, it says {said:?}"))))
}
