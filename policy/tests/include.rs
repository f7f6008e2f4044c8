//! Policies in several files, and with sets: they mean what one file means in which all is written by hand.

mod generate;
mod oracle;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use policy::{Document, Files, Policy};
use proptest::{collection::vec, prelude::*, sample::Index};
use serde_json::{Map, Value, json};

/// Files in memory, in one folder.
#[derive(Default)]
struct InMemory(BTreeMap<PathBuf, String>);

impl InMemory {
    fn of<const N: usize>(files: [(&str, Value); N]) -> Self {
        Self(files.into_iter().map(|(name, json)| (Path::new("/policies").join(name), json.to_string())).collect())
    }

    /// What the first file means.
    fn parse(&self) -> Result<Policy, String> {
        let path = Path::new("/policies/p.json");
        let document = Document::new(path, self.0[path].clone().into_bytes());
        document.parse_with(self).map_err(|error| error.to_string())
    }
}

impl Files for InMemory {
    fn real(&self, path: &Path) -> Result<PathBuf, String> {
        if self.0.contains_key(path) { Ok(path.to_owned()) } else { Err(format!("{} is not there", path.display())) }
    }

    fn read(&self, path: &Path, _: &Path) -> Result<Document, String> {
        Ok(Document::new(path, self.0[path].clone().into_bytes()))
    }
}

const SECTIONS: [&str; 6] = ["network", "unix", "devices", "sysctls", "sockets", "sockopts"];

/// The parts of a list that begin at these places.
fn parts(rules: &[Value], cuts: &[Index; 3]) -> [Vec<Value>; 4] {
    let mut cuts = cuts.map(|cut| cut.index(rules.len() + 1));
    cuts.sort_unstable();
    let [a, b, c] = cuts;
    [&rules[..a], &rules[a..b], &rules[b..c], &rules[c..]].map(<[Value]>::to_vec)
}

/// Has some hosts of the rules in a file stand in sets of that file.
fn with_sets(file: &mut Map<String, Value>, prefix: &str, chosen: &[bool]) {
    let mut sets = Map::new();
    let mut chosen = chosen.iter().cycle();
    if let Some(Value::Array(rules)) = file.get_mut("network").and_then(|section| section.get_mut("rules")) {
        for rule in rules {
            let Some(Value::Array(hosts)) = rule.get_mut("hosts") else { continue };
            for host in hosts {
                if *chosen.next().unwrap() {
                    let name = format!("{prefix}{}", sets.len());
                    sets.insert(name.clone(), json!([host.clone()]));
                    *host = json!(format!("@{name}"));
                }
            }
        }
    }
    if !sets.is_empty() {
        file.insert("sets".to_owned(), Value::Object(sets));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// p.json includes a.json, which includes b.json, and c.json: the rules of b come first, then those of a, c and p.
    #[test]
    fn what_is_included_means_what_is_written_in_its_place(
        whole in generate::policy(),
        cuts in vec(any::<[Index; 3]>(), SECTIONS.len()),
        chosen in vec(any::<bool>(), 7),
    ) {
        let file = || json!({"version": 1}).as_object().unwrap().clone();
        let mut files = [file(), file(), file(), whole.as_object().unwrap().clone()];
        for (section, cuts) in SECTIONS.iter().zip(&cuts) {
            let Some(Value::Array(rules)) = whole.get(section).and_then(|section| section.get("rules")) else { continue };
            for (file, part) in files.iter_mut().zip(parts(rules, cuts)) {
                file.insert((*section).to_owned(), json!({"default": whole[section]["default"], "rules": part}));
            }
            if let Some(reason) = whole[section].get("reason") {
                files[3][*section]["reason"] = reason.clone();
            }
        }
        for (file, prefix) in files.iter_mut().zip(["b-", "a-", "c-", "p-"]) {
            with_sets(file, prefix, &chosen);
        }
        let [b, mut a, c, mut p] = files;
        a.insert("include".to_owned(), json!(["b.json"]));
        p.insert("include".to_owned(), json!(["a.json", "c.json"]));
        let files = InMemory::of([("a.json", a.into()), ("b.json", b.into()), ("c.json", c.into()), ("p.json", p.into())]);
        let by_hand = Document::new(Path::new("p.json"), whole.to_string().into_bytes()).parse().unwrap();
        let included = files.parse();
        prop_assert!(included.is_ok(), "{:?}: {:?}", included, files.0);
        let included = included.unwrap();
        prop_assert_eq!(serde_json::to_value(&included).unwrap(), serde_json::to_value(&by_hand).unwrap());
        // Each rule is said to be from where it is.
        for origin in &included.origins {
            let (section, number) = origin.rule;
            let text = &files.0[origin.document.path()];
            let written: Value = serde_json::from_str(text).unwrap();
            let mut own = file();
            own.insert(section.to_owned(), json!({"default": "deny", "rules": [written[section]["rules"][origin.place]]}));
            own.insert("sets".to_owned(), written.get("sets").cloned().unwrap_or(json!({})));
            let own = Document::new(Path::new("p.json"), Value::Object(own).to_string().into_bytes()).parse().unwrap();
            let (own, whole) = (serde_json::to_value(&own).unwrap(), serde_json::to_value(&included).unwrap());
            prop_assert_eq!(&own[section]["rules"][0], &whole[section]["rules"][number]);
        }
    }
}

fn allow(hosts: &Value) -> Value {
    json!({"default": "deny", "rules": [{"action": "allow", "hosts": hosts}]})
}

#[test]
fn rules_have_the_sets_of_their_own_file_and_of_what_that_includes() {
    let files = InMemory::of([
        (
            "p.json",
            json!({"version": 1, "include": ["sets.json"], "sets": {"own": ["10.0.0.1"]},
                          "network": allow(&json!(["@own", "10.0.0.2", "@team"]))}),
        ),
        ("sets.json", json!({"version": 1, "sets": {"team": ["*.example.org", "loopback"]}})),
    ]);
    let policy = serde_json::to_value(files.parse().unwrap()).unwrap();
    let hosts = json!(["10.0.0.1", "10.0.0.2", "*.example.org", "127.0.0.0/8", "::1"]);
    assert_eq!(policy["network"]["rules"][0]["hosts"], hosts);
    assert_eq!((policy.get("sets"), policy.get("include")), (None, None), "{policy}");
}

/// Files by their names, the pointer that is said to be wrong, and why.
type Row = (Vec<(&'static str, Value)>, &'static str, &'static str);

#[test]
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn what_can_not_be_put_together_is_refused_with_its_place() {
    let plain = json!({"version": 1, "network": allow(&json!(["10.0.0.1"]))});
    let including = |name: &str| json!({"version": 1, "include": [name]});
    let p = |more: Value| {
        let mut policy = json!({"version": 1, "include": ["a.json"]});
        policy.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        policy
    };
    let many = json!({"version": 1, "network": {"default": "deny", "rules": vec![json!({"action": "allow"}); 200]}});
    let table: Vec<Row> = vec![
        (vec![("p.json", including("none.json"))], "/policies/p.json: /include/0 (line 1): ", "none.json is not there"),
        (vec![("p.json", including("p.json"))], "/policies/p.json: /include/0", "or is this file"),
        (
            vec![("p.json", including("a.json")), ("a.json", including("p.json"))],
            "/policies/a.json: /include/0",
            "includes this file",
        ),
        (
            vec![
                ("p.json", json!({"version": 1, "include": ["a.json", "b.json"]})),
                ("a.json", including("b.json")),
                ("b.json", plain.clone()),
            ],
            "/policies/p.json: /include/1",
            "included twice",
        ),
        (
            vec![("p.json", p(json!({}))), ("a.json", json!({"version": 1, "mode": "audit"}))],
            "/policies/a.json: /mode",
            "as a whole",
        ),
        (
            vec![("p.json", p(json!({}))), ("a.json", json!({"version": 1, "process": {}}))],
            "/policies/a.json: /process",
            "as a whole",
        ),
        (
            vec![
                ("p.json", p(json!({}))),
                (
                    "a.json",
                    json!({"version": 1, "network": {"default": "deny", "nameservers": ["10.0.0.1"],
                "rules": [{"action": "allow", "hosts": ["a.test"]}]}}),
                ),
            ],
            "/policies/a.json: /network/nameservers",
            "as a whole",
        ),
        (
            vec![("p.json", p(json!({"network": {"default": "allow"}}))), ("a.json", plain.clone())],
            "/policies/p.json: /include",
            "\"default\" is",
        ),
        (
            vec![("p.json", p(json!({"network": many["network"].clone()}))), ("a.json", many)],
            "/policies/p.json: /include",
            "400 rules",
        ),
        (
            vec![
                ("p.json", p(json!({"sets": {"x": ["10.0.0.1"]}}))),
                ("a.json", json!({"version": 1, "sets": {"x": ["10.0.0.2"]}})),
            ],
            "/policies/p.json: /include/0",
            "the set \"x\" is in two files",
        ),
        (
            vec![
                ("p.json", p(json!({"sets": {"registry": ["10.0.0.1"]}}))),
                ("a.json", json!({"version": 1, "network": allow(&json!(["@registry"]))})),
            ],
            "/policies/a.json: /network/rules/0/hosts/0",
            "there are none",
        ),
        (
            vec![(
                "p.json",
                json!({"version": 1, "sets": {"registry": ["10.0.0.1"]}, "network": allow(&json!(["10.0.0.2", "@registri"]))}),
            )],
            "/policies/p.json: /network/rules/0/hosts/1",
            "did you mean \"registry\"?",
        ),
        (
            vec![("p.json", json!({"version": 1, "sets": {"a": ["10.0.0.1"], "b": ["@a"]}}))],
            "/policies/p.json: /sets",
            "has a set in it",
        ),
        (
            vec![("p.json", json!({"version": 1, "sets": {"a": []}}))],
            "/policies/p.json: /sets/a",
            "a set without hosts",
        ),
        (
            vec![("p.json", json!({"version": 1, "sets": {"a b": ["10.0.0.1"]}}))],
            "/policies/p.json: /sets",
            "no name of a set",
        ),
        (
            vec![("p.json", json!({"version": 1, "network": allow(&json!(["@"]))}))],
            "/policies/p.json: /network/rules/0/hosts/0",
            "no name of a set",
        ),
        (vec![("p.json", json!({"version": 1, "include": []}))], "/policies/p.json: /include", "empty list"),
        // What sets say counts as what rules say.
        (
            vec![(
                "p.json",
                json!({"version": 1, "sets": {"a": ["a.test"]},
                "network": {"default": "deny", "rules": [{"action": "allow", "ops": ["bind"], "hosts": ["@a"]}]}}),
            )],
            "/policies/p.json: /network/rules/0",
            "host names say",
        ),
        (
            vec![
                ("p.json", p(json!({"network": {"default": "deny", "rules": [{"action": "allow"}]}}))),
                (
                    "a.json",
                    json!({"version": 1, "network": {"default": "deny", "rules": [{"action": "deny", "hosts": ["a.test"]}]}}),
                ),
            ],
            "/policies/p.json: /network",
            "a rule that denies names",
        ),
    ];
    for (files, place, why) in table {
        let files = InMemory(
            files.into_iter().map(|(name, json)| (Path::new("/policies").join(name), json.to_string())).collect(),
        );
        let error = files.parse().unwrap_err();
        assert!(error.starts_with(place) && error.contains(why), "{place}, {why}: {error}");
        assert!(!error.contains(char::is_control), "{error:?}");
    }
}

#[test]
fn files_without_end_are_refused() {
    let name = |number: usize| if number == 0 { "p.json".to_owned() } else { format!("{number}.json") };
    let file = |number| {
        (Path::new("/policies").join(name(number)), json!({"version": 1, "include": [name(number + 1)]}).to_string())
    };
    assert!(InMemory((0..100).map(file).collect()).parse().unwrap_err().contains("more than 64 files"));
}

/// A policy that is in no file can include none.
#[test]
fn nothing_is_included_where_there_are_no_files() {
    let text = json!({"version": 1, "include": ["/etc/passwd"]}).to_string();
    let error = Document::new(Path::new("p.json"), text.into_bytes()).parse().unwrap_err().to_string();
    assert!(error.contains("no files here"), "{error}");
}
