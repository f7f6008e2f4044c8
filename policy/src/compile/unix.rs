//! Compiling the unix section: all names become one automaton, where a verdict depends on a name at all.

use common::{
    Decision, RuleSet,
    glob::{Node, State},
    record::Hook,
    unix::{self, KINDS, Kind, Lookup, NAME_LEN, Peer, Table},
};

use super::{
    CompileError,
    automaton::{Globs, TooManyStates},
};
use crate::{Action, Glob, Section, SocketPattern, Token, UnixRule};

/// The hooks that see an address as it is spelled.
const SPELLED: [Hook; 2] = [Hook::ConnectUnix, Hook::SendmsgUnix];

/// The hooks that see the peer itself.
const PEER: [Hook; 2] = [Hook::UnixStreamConnect, Hook::UnixMaySend];

/// The kinds of peers that have a name.
const NAMED: [Kind; 2] = [Kind::PATH, Kind::ABSTRACT];

/// The compiled unix section.
#[derive(Debug)]
pub struct UnixTables {
    /// What goes into read-only data.
    pub table: Table,
    /// The states of the automaton: none, or a power of two of them.
    pub states: Vec<Node>,
    /// Whether a verdict depends on which peer it is, and not on how its address is spelled alone: a path has many
    /// spellings, and a peer without a name none.
    pub needs_peer: bool,
    /// Whether a verdict does, or at least whether a denial is reported.
    pub asks_for_peer: bool,
    /// There if the sandbox's own sockets may be reached, whatever their names, and no others that have one.
    pub own_alone: Option<OwnAlone>,
}

/// Rules that allow the sandbox's own sockets alone: what a Landlock domain can keep its processes to as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnAlone {
    /// Whether the denial of some other socket is reported.
    pub reports: bool,
    /// Whether it is left to a Landlock domain, so that it takes no hook.
    by_domain: bool,
}

impl UnixTables {
    /// Compiles the section.
    ///
    /// # Errors
    ///
    /// When its paths need more states than the automaton can have.
    pub fn compile(section: &Section<UnixRule>) -> Result<Self, CompileError> {
        let unnamed = section.rules.iter().find(|rule| rule.is_about_unnamed());
        let verdict = |rule: Option<&UnixRule>| rule.map_or(section.default, |rule| rule.action);
        let outcome = |rule: Option<&UnixRule>| (verdict(rule), rule.is_none_or(|rule| rule.report));
        let own = section.rules.iter().enumerate().filter(|(_, rule)| rule.is_about_own());
        let own: RuleSet = own.map(|(index, _)| index).collect();
        let needs_peer = !is_settled(section, Kind::PATH, verdict)
            || unnamed.is_some_and(|rule| rule.action == Action::Deny)
            || own != RuleSet::NONE;
        let asks_for_peer = needs_peer || !is_settled(section, Kind::PATH, outcome);
        // Anybody who sees the peer can say which rule it was, too; anybody who doesn't has no use for more than what comes of it.
        let named = NAMED.map(|kind| (kind, !asks_for_peer && is_settled(section, kind, outcome)));
        let mut whole = [RuleSet::NONE; KINDS];
        let mut globs = Globs::default();
        for (index, rule) in section.rules.iter().enumerate() {
            for (kind, settled) in named {
                match reach(rule, kind) {
                    Reach::All => whole[kind.index()].insert(index),
                    Reach::Some if !settled => {
                        for glob in rule.globs().filter(|glob| reach_of(glob, kind) == Reach::Some) {
                            globs.add(index, glob);
                        }
                    }
                    Reach::Some | Reach::None => {}
                }
            }
            if rule.is_about_unnamed() {
                whole[Kind::UNNAMED.index()].insert(index);
            }
        }
        let automaton = globs.automaton(NAME_LEN).map_err(|TooManyStates| CompileError::TooManyPaths)?;
        let mut by_name = [0; KINDS];
        for (kind, settled) in named {
            by_name[kind.index()] = u32::from(!settled);
        }
        let same = whole[Kind::PATH.index()] == whole[Kind::ABSTRACT.index()];
        let table = Table {
            verdicts: section.verdicts(),
            steps: automaton.steps,
            state_mask: automaton.state_mask(),
            by_kind: u32::from(!same || automaton.steps != 0),
            by_own: (own != RuleSet::NONE).into(),
            own,
            by_name,
            whole,
        };
        let only = |whose, action| NAMED.iter().all(|kind| verdict_on_all(section, *kind, whose) == Some(action));
        let is_own_alone = only(Whose::Own, Action::Allow)
            && only(Whose::Others, Action::Deny)
            && unnamed.is_none_or(|rule| rule.action == Action::Allow);
        let reports = NAMED.iter().any(|kind| reports(section, *kind));
        let own_alone = is_own_alone.then_some(OwnAlone { reports, by_domain: false });
        Ok(Self { table, states: automaton.states, needs_peer, asks_for_peer, own_alone })
    }

    /// Leaves it to a Landlock domain, which has to be the command's, to keep it to its own sockets. Rules that say anything else than that
    /// can't be left to it, and stay as they are.
    pub fn leave_to_domain(&mut self) {
        if let Some(own_alone) = &mut self.own_alone {
            own_alone.by_domain = true;
        }
    }

    /// Whether that was left to a Landlock domain.
    #[must_use]
    pub fn is_left_to_domain(&self) -> bool {
        self.own_alone.is_some_and(|own_alone| own_alone.by_domain)
    }

    /// Whether anything can be denied.
    #[must_use]
    pub fn restricts(&self) -> bool {
        self.table.verdicts.can_deny()
    }

    /// The hooks at which it is best enforced.
    #[must_use]
    pub fn hooks(&self) -> [Hook; 2] {
        if self.asks_for_peer { PEER } else { SPELLED }
    }

    /// The hooks at which it can be enforced on kernels that don't have those, if there are others.
    #[must_use]
    pub fn other_hooks(&self) -> Option<[Hook; 2]> {
        (!self.needs_peer).then_some(if self.asks_for_peer { SPELLED } else { PEER })
    }

    /// Judges a request, as the kernel would.
    #[must_use]
    pub fn decide(&self, peer: &Peer) -> Decision {
        unix::decide(&self.table, self, peer)
    }
}

impl Lookup for UnixTables {
    fn node(&self, number: State) -> &Node {
        &self.states[usize::from(number)]
    }

    fn next(&self, number: State, byte: u32) -> State {
        self.node(number).next[byte as usize]
    }
}

/// Which peers of a kind a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    None,
    Some,
    All,
}

fn reach(rule: &UnixRule, kind: Kind) -> Reach {
    let own = if rule.is_about_own() { Reach::Some } else { Reach::None };
    reach_by_name(rule, kind).max(own)
}

/// Which peers of a kind a rule is about by their names.
fn reach_by_name(rule: &UnixRule, kind: Kind) -> Reach {
    if rule.paths.is_none() {
        return Reach::All;
    }
    rule.globs().map(|glob| reach_of(glob, kind)).fold(Reach::None, Reach::max)
}

/// Whose sockets a verdict is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// Those that the sandbox has made itself.
    Own,
    /// All others.
    Others,
}

/// What the rules say of all sockets of a kind that are theirs. `None` where it depends on their names.
fn verdict_on_all(section: &Section<UnixRule>, kind: Kind, whose: Whose) -> Option<Action> {
    let is_whole = |rule: &UnixRule| whose == Whose::Own && rule.is_about_own();
    let reach = |rule: &UnixRule| if is_whole(rule) { Reach::All } else { reach_by_name(rule, kind) };
    let all = section.rules.iter().position(|rule| reach(rule) == Reach::All);
    let verdict = all.map_or(section.default, |rule| section.rules[rule].action);
    let before = &section.rules[..all.unwrap_or(section.rules.len())];
    before.iter().all(|rule| reach(rule) == Reach::None || rule.action == verdict).then_some(verdict)
}

/// Whether some denial of a socket of a kind is reported: by a rule, or by the default where no rule is about all of them.
fn reports(section: &Section<UnixRule>, kind: Kind) -> bool {
    let all = section.rules.iter().position(|rule| reach(rule, kind) == Reach::All);
    let deciding = &section.rules[..all.map_or(section.rules.len(), |rule| rule + 1)];
    let is_reported = |rule: &UnixRule| rule.action == Action::Deny && rule.report && reach(rule, kind) != Reach::None;
    deciding.iter().any(is_reported) || all.is_none() && section.default == Action::Deny
}

/// How many of the names of a kind one glob matches. Every path begins with `/`, every abstract name with `@`, and the rest can be anything.
fn reach_of(glob: &Glob, kind: Kind) -> Reach {
    let first = if kind == Kind::PATH { b'/' } else { b'@' };
    let mut tokens = glob.tokens().peekable();
    match tokens.peek() {
        Some(Token::Byte(byte)) if *byte != first => return Reach::None,
        Some(Token::Byte(_) | Token::AnyByte) => drop(tokens.next()),
        Some(Token::AnyRun) | None => {}
    }
    let anything = tokens.peek().is_some() && tokens.all(|token| token == Token::AnyRun);
    if anything { Reach::All } else { Reach::Some }
}

/// Whether something is the same for all peers of a kind, whichever rule says it: as the first rule that is about all of them
/// says, or the default, and no rule before it says otherwise about some.
fn is_settled<T: PartialEq>(section: &Section<UnixRule>, kind: Kind, says: impl Fn(Option<&UnixRule>) -> T) -> bool {
    let all = section.rules.iter().position(|rule| reach(rule, kind) == Reach::All);
    let of_all = says(all.map(|rule| &section.rules[rule]));
    let before = &section.rules[..all.unwrap_or(section.rules.len())];
    before.iter().all(|rule| reach(rule, kind) == Reach::None || says(Some(rule)) == of_all)
}

impl UnixRule {
    fn is_about_unnamed(&self) -> bool {
        self.has(&SocketPattern::Unnamed)
    }

    fn is_about_own(&self) -> bool {
        self.has(&SocketPattern::Sandbox)
    }

    fn has(&self, pattern: &SocketPattern) -> bool {
        self.paths.iter().flatten().any(|other| other == pattern)
    }

    /// The names in this rule.
    fn globs(&self) -> impl Iterator<Item = &Glob> {
        self.paths.iter().flatten().filter_map(|pattern| match pattern {
            SocketPattern::Named(glob) => Some(glob),
            SocketPattern::Unnamed | SocketPattern::Sandbox => None,
        })
    }
}
