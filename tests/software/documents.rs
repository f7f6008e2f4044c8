//! The commands in the documents work as typed, and print what the documents show.
//!
//! A document's blocks are run from top to bottom in one shell, in the place that tests/documents/stage.sh makes:
//!
//! - ```` ```sh ````: each command succeeds.
//! - ```` ```console ````: a line that begins with "$ " is a command, the others are what it prints on standard output and standard
//!   error. "…" stands for any text of a line, and a line "…" for any lines.
//! - A block behind `<!-- not run: REASON -->` is not run.

use std::{fmt::Write as _, fs, path::Path, process::Command};

use support::guard_run;

/// The folder of the repository.
fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// A piece of a document that is run: the text to give to the shell, and what it prints, or nothing for "it succeeds".
struct Step {
    script: String,
    printed: Option<String>,
}

/// The steps of a document, in their order.
fn steps(text: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut lines = text.lines();
    let mut run = true;
    while let Some(whole) = lines.next() {
        let line = whole.trim_start();
        let indent = &whole[..whole.len() - line.len()];
        if let Some(reason) = line.strip_prefix("<!-- not run: ") {
            assert!(reason.trim_end_matches(" -->").len() > 10, "{line}: why not?");
            run = false;
        }
        let Some(language) = line.strip_prefix("```") else { continue };
        let block: Vec<_> = lines
            .by_ref()
            .map(|line| line.strip_prefix(indent).unwrap_or(line))
            .take_while(|line| *line != "```")
            .collect();
        match language {
            "sh" if run => steps.push(Step { script: block.join("\n"), printed: None }),
            "console" if run => steps.extend(commands(&block)),
            "sh" | "console" | "json" | "text" | "yaml" => {}
            other => panic!("a block in {other:?}: nobody knows what to do with it"),
        }
        run = true;
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

#[test]
fn patterns_are_like_what_they_mean_alone() {
    assert!(is_like("a…c…", "abbc") && is_like("…", "") && !is_like("a…c", "abcd") && !is_like("a", "ab"));
    assert!(are_like(&["a", "…", "c"], &["a", "b", "b", "c"]) && are_like(&["…"], &[]));
    assert!(!are_like(&["a"], &["a", "b"]) && !are_like(&["a", "…"], &["b"]));
}
