//! Makes a program smaller as long as what was found persists.

use crate::program::{Ask, Call, Program};

/// A smaller program, by leaving out calls one after the other (those within others, too), and by making what is left
/// simpler. `persists` says whether what was found still happens.
pub fn minimise(program: &Program, mut persists: impl FnMut(&Program) -> bool) -> Program {
    let mut best = program.clone();
    loop {
        let smaller = candidates(&best.calls).into_iter().map(|calls| Program { calls, ..best.clone() });
        let Some(next) = smaller.into_iter().find(|candidate| persists(candidate)) else { return best };
        best = next;
    }
}

/// All programs that are one step smaller, the smallest first.
fn candidates(calls: &[Call]) -> Vec<Vec<Call>> {
    let mut all = Vec::new();
    if calls.len() > 3 {
        all.push(calls[calls.len() / 2..].to_vec());
        all.push(calls[..calls.len() / 2].to_vec());
    }
    for index in (0..calls.len()).rev() {
        let without = |with: Vec<Call>| [&calls[..index], &with, &calls[index + 1..]].concat();
        all.push(without(Vec::new()));
        all.extend(simpler(&calls[index]).into_iter().map(|call| without(vec![call])));
    }
    all
}

/// The call with less in it.
fn simpler(call: &Call) -> Vec<Call> {
    let mut all = Vec::new();
    match call {
        Call::Fork { calls } => {
            let fewer = candidates(calls).into_iter().filter(|calls| !calls.is_empty());
            all.extend(fewer.map(|calls| Call::Fork { calls }));
        }
        Call::Race { loops, ask, times } => {
            for index in 0..loops.len() {
                for calls in candidates(&loops[index]) {
                    let mut loops = loops.clone();
                    loops[index] = calls;
                    loops.retain(|calls| !calls.is_empty());
                    all.push(Call::Race { loops, ask: ask.clone(), times: *times });
                }
            }
            all.extend(ask.iter().flat_map(fewer).map(|ask| Call::Race {
                loops: loops.clone(),
                ask: Some(ask),
                times: *times,
            }));
        }
        Call::Ask(ask) => all.extend(fewer(ask).into_iter().map(Call::Ask)),
        Call::Send { slot, way, to, control, flags } => {
            for index in 0..control.len() {
                let mut control = control.clone();
                control.remove(index);
                all.push(Call::Send { slot: *slot, way: *way, to: *to, control, flags: *flags });
            }
            if *flags != 0 {
                all.push(Call::Send { slot: *slot, way: *way, to: *to, control: control.clone(), flags: 0 });
            }
        }
        _ => {}
    }
    all
}

/// What one of several outsiders is asked alone, for each of them.
fn fewer(ask: &Ask) -> Vec<Ask> {
    let (Ask::Datagrams { from, .. } | Ask::Connections { from, .. }) = ask;
    let others = if from.len() > 1 { from.clone() } else { Vec::new() };
    others
        .into_iter()
        .map(|host| match ask {
            Ask::Datagrams { port, to, count, .. } => {
                Ask::Datagrams { from: vec![host], port: *port, to: *to, count: *count }
            }
            Ask::Connections { to, .. } => Ask::Connections { from: vec![host], to: *to },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_matters_is_left() {
        let calls = (0..9).map(|slot| Call::Listen { slot }).collect();
        let matters =
            |program: &Program| [2, 7].iter().all(|slot| program.calls.contains(&Call::Listen { slot: *slot }));
        let least = minimise(&Program { token: 0, calls }, matters);
        assert_eq!(least.calls, [Call::Listen { slot: 2 }, Call::Listen { slot: 7 }]);
    }
}
