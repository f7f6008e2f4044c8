//! The kernel finds the rules that have a name as user space does, and as somebody who compares texts.

use std::{os::fd::AsFd as _, path::Path};

use aya_obj::generated::bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS;
use enforce::{
    load::{Image, MapImage, ProgramImage, Variable, contents, globals, unused},
    sys::bpf,
};
use policy::{DeviceNode, Document, Machine, Surroundings, compile::Tables};
use proptest::{
    collection::vec,
    prelude::*,
    sample::select,
    strategy::ValueTree as _,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

#[allow(clippy::unreadable_literal)] // written by the build script
static JUDGE: Image = include!(concat!(env!("OUT_DIR"), "/judge_named.rs"));

/// What a judge takes for the Ethernet header.
const HEADER: [u8; 14] = [0; 14];

/// A machine that adds nothing to what policies say.
struct Nothing;

impl Machine for Nothing {
    fn device(&self, _: &Path) -> Result<DeviceNode, String> {
        Err("no device node".to_owned())
    }

    fn surroundings(&self) -> Result<Surroundings, String> {
        Ok(Surroundings::default())
    }
}

/// Few words, so that names have much in common.
fn name() -> impl Strategy<Value = String> {
    vec(select(["a", "b", "ab", "ba", "x-1", "long-label-of-a-name"].as_slice()), 1..5)
        .prop_map(|labels| labels.join(".") + ".test")
}

/// Rules: whether each allows, its names, and whether each of them means those below.
fn rules() -> impl Strategy<Value = Vec<(bool, Vec<(bool, String)>)>> {
    let allows = prop_oneof![3 => Just(true), 1 => Just(false)];
    vec((allows, vec((any::<bool>(), name()), 1..4)), 1..9)
}

fn query(name: &str) -> Vec<u8> {
    let labels = name.split('.').flat_map(|label| [&[u8::try_from(label.len()).unwrap()], label.as_bytes()].concat());
    let header = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    HEADER.into_iter().chain(header).chain(labels).chain([0, 0, 1, 0, 1]).collect()
}

/// The first rule that has a name, if that allows it.
fn expected(rules: &[(bool, Vec<(bool, String)>)], name: &str) -> Option<usize> {
    let has = |(below, pattern): &(bool, String)| {
        if *below { name.ends_with(&format!(".{pattern}")) } else { name == pattern }
    };
    let first = rules.iter().position(|(_, names)| names.iter().any(has))?;
    rules[first].0.then_some(first)
}

#[test]
fn the_kernel_finds_the_rules_of_names() {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut found = [0, 0];
    let case = (rules(), vec((name(), any::<bool>()), 40));
    for _ in 0..60 {
        let (rules, asked) = case.new_tree(&mut runner).unwrap().current();
        let written: Vec<serde_json::Value> = rules
            .iter()
            .map(|(allow, names)| {
                let hosts: Vec<String> =
                    names.iter().map(|(below, name)| format!("{}{name}", if *below { "*." } else { "" })).collect();
                serde_json::json!({"action": if *allow { "allow" } else { "deny" }, "hosts": hosts})
            })
            .collect();
        let network = serde_json::json!({"default": "deny", "nameservers": ["10.0.0.53"], "rules": written});
        let text = serde_json::json!({"version": 1, "network": network}).to_string();
        let policy = Document::new(Path::new("p.json"), text.clone().into_bytes()).resolve(&Nothing).unwrap();
        let tables = Tables::compile(&policy).unwrap();
        let mut image = JUDGE.begin(&globals(&tables), contents(&tables), unused(&tables)).unwrap();
        let judge = image.prepare("judge_name").unwrap().load(BPF_PROG_TYPE_SCHED_CLS, None).unwrap();
        for (name, upper) in asked {
            let written = if upper { name.to_uppercase() } else { name.clone() };
            let returned = bpf::test_run(judge.as_fd(), &query(&written)).unwrap().cast_signed();
            let expected = expected(&rules, &name);
            assert_eq!(usize::try_from(returned).ok(), expected, "{name} by the kernel: {text}");
            let decision = tables.names().unwrap().decide(&written);
            let decided = decision.allow.then_some(usize::from(decision.rule));
            assert_eq!(decided, expected, "{name} by user space: {text}");
            found[usize::from(expected.is_some())] += 1;
        }
    }
    assert!(found.iter().all(|count| *count > 200), "{found:?}");
}
