//! The commands in the documents work as typed, and print what the documents show.
//!
//! A document's blocks are run from top to bottom in one shell, in the place that tests/documents/stage.sh makes:
//!
//! - ```` ```sh ````: each command succeeds.
//! - ```` ```console ````: a line that begins with "$ " is a command, the others are what it prints on standard output and standard
//!   error. "…" stands for any text of a line, and a line "…" for any lines.
//! - A block that is indented by four spaces, behind an empty line: JSON if it begins like that, and otherwise as `sh`.
//! - A block behind `<!-- not run: REASON -->` is not run.
//!
//! Each policy that a document shows is one, and so is each section of a policy, and each configuration of the hook.

use std::{fmt::Write as _, fs, path::Path, process::Command};

use serde_json::Value;
use support::{Run, guard_run};

/// The folder of the repository.
fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// A piece of a document that is run: the text to give to the shell, and what it prints, or nothing for "it succeeds".
struct Step {
    script: String,
    printed: Option<String>,
}

/// A block of a document.
struct Block<'a> {
    /// What is said to be in it. An indented one is JSON or commands.
    language: &'a str,
    /// Its lines, as they are without what they are indented by.
    lines: Vec<&'a str>,
    /// Whether it is to be run, if it can be.
    is_run: bool,
}

/// By what a block is indented that has no fence.
const INDENT: &str = "    ";

/// The blocks of a document, in their order.
fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().peekable();
    let (mut is_run, mut is_apart) = (true, true);
    while let Some(whole) = lines.next() {
        let line = whole.trim_start();
        let indent = &whole[..whole.len() - line.len()];
        if let Some(reason) = line.strip_prefix("<!-- not run: ") {
            assert!(reason.trim_end_matches(" -->").len() > 10, "{line}: why not?");
            is_run = false;
        }
        if let Some(language) = line.strip_prefix("```") {
            let inside = lines.by_ref().map(|line| line.strip_prefix(indent).unwrap_or(line));
            blocks.push(Block { language, lines: inside.take_while(|line| *line != "```").collect(), is_run });
            is_run = true;
        } else if let Some(first) = whole.strip_prefix(INDENT).filter(|first| is_apart && !first.starts_with(' ')) {
            let mut inside = vec![first];
            while let Some(line) = lines.next_if(|line| line.starts_with(INDENT)) {
                inside.push(&line[INDENT.len()..]);
            }
            let language = if first.starts_with(['{', '"']) { "json" } else { "sh" };
            blocks.push(Block { language, lines: inside, is_run });
            is_run = true;
        }
        is_apart = line.is_empty();
    }
    blocks
}

/// The steps of a document, in their order.
fn steps(text: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for Block { language, lines, is_run } in blocks(text) {
        match language {
            "sh" if is_run => steps.push(Step { script: lines.join("\n"), printed: None }),
            "console" if is_run => steps.extend(commands(&lines)),
            "sh" | "console" | "json" | "text" | "ini" | "toml" | "yaml" | "" => {}
            other => panic!("a block in {other:?}: nobody knows what to do with it"),
        }
    }
    steps
}

/// The commands of a block that shows what they print.
fn commands(block: &[&str]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in block {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => steps.push(Step { script: command.to_owned(), printed: Some(String::new()) }),
            (None, Some(Step { printed: Some(printed), .. })) => printed.extend([*line, "\n"]),
            (None, _) => panic!("{line:?} is printed by no command"),
        }
    }
    steps
}

/// Whether a text is as a pattern has it, in which "…" stands for anything within a line.
fn is_like(pattern: &str, text: &str) -> bool {
    let Some((before, after)) = pattern.split_once('…') else { return pattern == text };
    let Some(mut rest) = text.strip_prefix(before) else { return false };
    loop {
        if is_like(after, rest) {
            return true;
        }
        let mut letters = rest.chars();
        if letters.next().is_none() {
            return false;
        }
        rest = letters.as_str();
    }
}

/// Whether lines are as the lines of a pattern have it, among which "…" stands for any number of them.
fn are_like(pattern: &[&str], lines: &[&str]) -> bool {
    match pattern.split_first() {
        None => lines.is_empty(),
        Some((&"…", after)) => (0..=lines.len()).any(|skipped| are_like(after, &lines[skipped..])),
        Some((first, after)) => {
            lines.split_first().is_some_and(|(line, rest)| is_like(first, line) && are_like(after, rest))
        }
    }
}

/// What stands before each step's output.
const MARK: &str = "@@step@@";

/// Runs all steps of a document, and compares what they print.
fn works_as_typed(document: &str) {
    let steps = steps(&fs::read_to_string(repository().join(document)).unwrap());
    if steps.is_empty() {
        return;
    }
    let mut script = String::from("exec 2>&1\n");
    for Step { script: step, printed } in &steps {
        let strict = if printed.is_some() { "+e" } else { "-e" };
        let _ = writeln!(script, "printf '%s\\n' {MARK}\nset {strict}\n{step}\nset +e");
    }
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "--net", "--fork", "--kill-child", "sh"])
        .arg(repository().join("tests/documents/stage.sh"))
        .args([&guard_run(), folder.path()])
        .args(["bash", "-c", &script])
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let outputs: Vec<_> = printed.split(&format!("{MARK}\n")).skip(1).collect();
    for (step, output) in steps.iter().zip(&outputs) {
        let Some(expected) = &step.printed else { continue };
        let (expected, lines): (Vec<_>, Vec<_>) = (expected.lines().collect(), output.lines().collect());
        assert!(are_like(&expected, &lines), "{document}: $ {}\n{output}\ninstead of\n{expected:#?}", step.script);
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && outputs.len() == steps.len(), "{document}: ends with\n{printed}\n{errors}");
}

#[test]
fn the_readme_works_as_typed() {
    works_as_typed("README.md");
}

#[test]
fn the_tutorial_works_as_typed() {
    works_as_typed("docs/tutorial.md");
}

#[test]
fn what_troubleshooting_shows_is_what_is_printed() {
    works_as_typed("docs/troubleshooting.md");
}

#[test]
fn what_is_said_of_tests_works_as_typed() {
    works_as_typed("docs/testing.md");
}

#[test]
fn the_recipes_work_as_typed() {
    for entry in fs::read_dir(repository().join("docs/recipes")).unwrap() {
        works_as_typed(&format!("docs/recipes/{}", entry.unwrap().file_name().to_str().unwrap()));
    }
}

/// The documents of the repository, by their paths in it.
fn documents() -> Vec<String> {
    let names = |folder: &str| {
        let paths = fs::read_dir(repository().join(folder)).unwrap().map(|entry| entry.unwrap().path());
        let documents = paths.filter(|path| path.extension().is_some_and(|kind| kind == "md"));
        documents.map(|path| path.strip_prefix(repository()).unwrap().to_str().unwrap().to_owned()).collect()
    };
    let folders = ["", "docs/", "docs/recipes/", "docs/design/", "examples/containers/"];
    folders.map(names).into_iter().collect::<Vec<Vec<String>>>().concat()
}

/// Whose blocks have a test of their own, so that these run at the same time.
fn has_its_own_test(document: &str) -> bool {
    let alone = ["README.md", "docs/tutorial.md", "docs/troubleshooting.md", "docs/testing.md"];
    alone.contains(&document) || document.starts_with("docs/recipes/")
}

#[test]
fn all_other_documents_work_as_typed() {
    documents().iter().filter(|document| !has_its_own_test(document)).for_each(|document| works_as_typed(document));
}

/// A policy, of which a document may show a section alone.
fn policy(text: &str) -> Option<String> {
    let section = ["\"process\":", "\"network\":", "\"unix\":", "\"devices\":", "\"sysctls\":"];
    if section.iter().any(|section| text.starts_with(section)) {
        return Some(format!("{{\"version\": 1, {text}}}"));
    }
    text.contains("\"version\": 1").then(|| text.to_owned())
}

#[test]
fn every_policy_in_the_documents_is_one() {
    let schema: Value = serde_json::from_str(include_str!("../../schema/hook.schema.json")).unwrap();
    let of_hook = jsonschema::validator_for(&schema).unwrap();
    let (mut policies, mut configurations) = (0, 0);
    for document in documents() {
        let text = fs::read_to_string(repository().join(&document)).unwrap();
        let shown = blocks(&text).into_iter().filter(|block| block.language == "json");
        let shown = shown.map(|block| block.lines.join("\n"));
        let here = text.split("<<'POLICY'\n").skip(1).filter_map(|rest| rest.split_once("POLICY\n"));
        for policy in shown.chain(here.map(|(here, _)| here.to_owned())).filter_map(|text| policy(&text)) {
            if policy.contains("\"annotations\":") {
                assert!(of_hook.is_valid(&serde_json::from_str(&policy).unwrap()), "{document}: {policy}");
                configurations += 1;
                continue;
            }
            let output = Run::new(policy, ["true"]).subcommand("check", &[]);
            assert_eq!(output.code(), Some(0), "{document}: {}", output.stderr);
            policies += 1;
        }
    }
    assert!(policies >= 6 && configurations >= 1, "{policies} {configurations}");
}

#[test]
fn blocks_are_found_with_and_without_fences() {
    let text = [
        "words\n\n    one\n    two\n\n- item\n    goes on\n\n<!-- not run: it is an example -->\n\n    three\n\n",
        "    {\n      4\n    }\n\n  ```console\n  $ five\n  ```\n\n        six\n",
    ];
    let text = text.concat();
    let found: Vec<_> = blocks(&text).into_iter().map(|block| (block.language, block.lines, block.is_run)).collect();
    let expected = [
        ("sh", vec!["one", "two"], true),
        ("sh", vec!["three"], false),
        ("json", vec!["{", "  4", "}"], true),
        ("console", vec!["$ five"], true),
    ];
    assert_eq!(found, expected);
}

#[test]
fn patterns_are_like_what_they_mean_alone() {
    assert!(is_like("a…c…", "abbc") && is_like("…", "") && !is_like("a…c", "abcd") && !is_like("a", "ab"));
    assert!(are_like(&["a", "…", "c"], &["a", "b", "b", "c"]) && are_like(&["…"], &[]));
    assert!(!are_like(&["a"], &["a", "b"]) && !are_like(&["a", "…"], &["b"]));
}
