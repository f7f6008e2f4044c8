//! Models of how runtimes read config.json, as far as the guard depends on it: Go's encoding/json, with which runc is written, and
//! libyajl with libocispec, with which crun is. They only choose which documents are tried with the real ones, which are slow.

use crate::{json::Read, world::DEFAULT_POLICY};

/// What of a container's configuration the guard depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Understood {
    /// The hooks at createRuntime: their paths and arguments.
    hooks: Vec<(Option<String>, Vec<String>)>,
    /// What the annotation for the policy says.
    policy: Option<String>,
}

impl Understood {
    /// Whether guard-hook is called so that it guards the container by the default policy.
    #[must_use]
    pub fn is_guarded(&self, hook: &str) -> bool {
        let guards = |arguments: &[String]| {
            let rest: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
            matches!(rest[..], [] | ["createRuntime"])
        };
        let called = self.hooks.iter().any(|(path, arguments)| path.as_deref() == Some(hook) && guards(arguments));
        called && self.policy.as_deref() == Some(DEFAULT_POLICY)
    }
}

const POLICY: &str = "io.guard-run.policy";

/// As Go's decoder has it: the first document of a text; keys are equal if they fold to the same; the last one wins; objects are
/// merged; null empties. None where it makes an error.
#[must_use]
pub fn go(text: &[u8]) -> Option<Understood> {
    let Read::Object(members) = Read::first(text)? else { return None };
    let mut understood = Understood::default();
    for (key, value) in members {
        match folded(&key).as_str() {
            "hooks" => match value {
                Read::Null => understood.hooks.clear(),
                Read::Object(stages) => {
                    for (_, list) in stages.into_iter().filter(|(stage, _)| folded(stage) == "createruntime") {
                        understood.hooks = match list {
                            Read::Null => Vec::new(),
                            Read::List(list) => list.into_iter().map(go_hook).collect::<Option<_>>()?,
                            _ => return None,
                        };
                    }
                }
                _ => return None,
            },
            "annotations" => match value {
                Read::Null => understood.policy = None,
                Read::Object(annotations) => {
                    for (name, value) in annotations {
                        match value {
                            Read::Text(value) if name == POLICY => understood.policy = Some(value),
                            Read::Null if name == POLICY => understood.policy = Some(String::new()),
                            Read::Text(_) | Read::Null => {}
                            _ => return None,
                        }
                    }
                }
                _ => return None,
            },
            _ => {}
        }
    }
    Some(understood)
}

fn go_hook(hook: Read) -> Option<(Option<String>, Vec<String>)> {
    let (mut path, mut arguments) = (None, Vec::new());
    match hook {
        Read::Null => {}
        Read::Object(members) => {
            for (key, value) in members {
                match (folded(&key).as_str(), value) {
                    ("path", Read::Text(value)) => path = Some(value),
                    ("path" | "args", Read::Null) => arguments.clear(),
                    ("args", Read::List(list)) => arguments = list.into_iter().map(text).collect::<Option<_>>()?,
                    ("path" | "args", _) => return None,
                    _ => {}
                }
            }
        }
        _ => return None,
    }
    Some((path, arguments))
}

fn text(value: Read) -> Option<String> {
    match value {
        Read::Text(text) => Some(text),
        Read::Null => Some(String::new()),
        _ => None,
    }
}

/// What a key folds to: of all characters, these two are the only ones beyond ASCII that fold to ASCII letters.
fn folded(key: &str) -> String {
    let fold = |c: char| match c {
        '\u{212a}' => 'k',
        '\u{17f}' => 's',
        c => c.to_ascii_lowercase(),
    };
    key.chars().map(fold).collect()
}

/// As libyajl's tree and libocispec have it: strings end at NUL, the first of equal keys is found, and what has another type than
/// expected is not there.
#[must_use]
pub fn yajl(text: &[u8]) -> Option<Understood> {
    let document = Read::whole(text)?;
    let mut understood = Understood::default();
    if let Some(Read::List(list)) = member(&document, "hooks").and_then(|hooks| member(hooks, "createRuntime")) {
        for hook in list {
            let Some(Read::Text(path)) = member(hook, "path") else { return None };
            let arguments = match member(hook, "args") {
                Some(Read::List(list)) => list.iter().map(|word| text_of(word).unwrap_or_default()).collect(),
                _ => Vec::new(),
            };
            understood.hooks.push((Some(cut(path)), arguments));
        }
    }
    // All of them are handed on, and guard-hook takes the last.
    if let Some(Read::Object(annotations)) = member(&document, "annotations") {
        let last = annotations.iter().rfind(|(key, _)| cut(key) == POLICY);
        understood.policy = last.and_then(|(_, value)| text_of(value));
    }
    Some(understood)
}

fn text_of(value: &Read) -> Option<String> {
    match value {
        Read::Text(text) => Some(cut(text)),
        _ => None,
    }
}

fn member<'a>(object: &'a Read, name: &str) -> Option<&'a Read> {
    match object {
        Read::Object(members) => members.iter().find(|(key, _)| cut(key) == name).map(|(_, value)| value),
        _ => None,
    }
}

/// What a string in C is of a text.
fn cut(text: &str) -> String {
    text.split('\0').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOOK: &str = "/bin/guard-hook";

    /// A document whose guard is as it should be, with more before and after.
    fn document(before: &str, after: &str) -> String {
        let hook = format!(r#"{{"path":"{HOOK}","args":["guard-hook","createRuntime"]}}"#);
        let hooks = format!(r#""hooks":{{"createRuntime":[{hook}]}}"#);
        format!(r#"{{{before}{hooks},"annotations":{{"{POLICY}":"{DEFAULT_POLICY}"}}{after}}}"#)
    }

    /// What Go's and crun's readers make of it: whether it is guarded; none if it is refused.
    fn guarded(before: &str, after: &str) -> [Option<bool>; 2] {
        let text = document(before, after);
        [go, yajl].map(|reader| reader(text.as_bytes()).map(|understood| understood.is_guarded(HOOK)))
    }

    #[test]
    fn go_folds_keys_and_takes_the_last_and_crun_takes_the_first_up_to_a_nul() {
        let (yes, no) = (Some(true), Some(false));
        let table = [
            ("", "", [yes, yes]),
            ("", r#","Hooks":null"#, [no, yes]),
            ("", r#","hoo\u212as":null"#, [no, yes]),
            ("", r#","hook\u017f":{"createruntime":[]}"#, [no, yes]),
            ("", r#","Hooks":{}"#, [yes, yes]),
            (r#""Hooks":null,"#, "", [yes, yes]),
            (r#""hooks\u0000":null,"#, "", [yes, no]),
            (r#""hooks\u0000x":{},"#, "", [yes, no]),
            ("", r#","hooks\u0000":{}"#, [yes, yes]),
            ("", r#","hooks":"no object""#, [None, yes]),
            ("", r#","Annotations":{"io.guard-run.policy":"/other"}"#, [no, yes]),
            ("", r#","annotations":{"IO.guard-run.policy":"/other"}"#, [yes, yes]),
            ("", r#"} {"hooks":null"#, [yes, None]),
        ];
        for (before, after, expected) in table {
            assert_eq!(guarded(before, after), expected, "{before} … {after}");
        }
    }

    #[test]
    fn an_entry_guards_only_as_it_is() {
        let entry = |more: &str| {
            let text = document("", "").replace(r#","args""#, &format!(r#"{more},"args""#));
            [go, yajl].map(|reader| reader(text.as_bytes()).map(|understood| understood.is_guarded(HOOK)))
        };
        assert_eq!(entry(r#","Path":"/bin/true""#), [Some(false), Some(true)]);
        assert_eq!(entry(r#","args\u0000":["guard-hook","gc"]"#), [Some(true), Some(false)]);
        let text = document("", "").replace(r#""createRuntime"]"#, r#""createRuntime","--help"]"#);
        assert_eq!([go, yajl].map(|reader| reader(text.as_bytes()).unwrap().is_guarded(HOOK)), [false, false]);
    }
}
