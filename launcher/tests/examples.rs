//! The policies in examples/: each decides what the file beside it, NAME.expected, says, and `guard-run check` prints what
//! is in NAME.resolved.json. With UPDATE_GOLDEN=1 in the environment the latter is written instead.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use clap::Parser;
use enforce::machine::ThisMachine;
use launcher::explain::{Request, judge};
use policy::{Document, compile::Tables};
use report::Cause;

/// A line of a table, up to the arrow, as `guard-run explain` takes it.
#[derive(Parser)]
#[command(no_binary_name = true)]
struct Line {
    #[command(subcommand)]
    request: Request,
}

fn examples() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut policies: Vec<PathBuf> = files
        .filter(|path| path.extension() == Some("json".as_ref()))
        .filter(|path| path.file_stem().is_none_or(|name| !name.to_str().unwrap().ends_with(".resolved")))
        .collect();
    policies.sort();
    assert!(policies.len() >= 5, "{policies:?}");
    policies
}

#[test]
fn examples_decide_as_expected() {
    for path in examples() {
        let tables = Tables::compile(&Document::read(&path).unwrap().resolve(&ThisMachine).unwrap()).unwrap();
        let table = path.with_extension("expected");
        let lines = fs::read_to_string(&table).unwrap_or_else(|error| panic!("{}: {error}", table.display()));
        assert!(lines.lines().count() >= 10, "{} has next to nothing to check", table.display());
        for (number, line) in lines.lines().enumerate() {
            let place = format!("{}:{}: {line}", table.display(), number + 1);
            let (request, expected) = line.split_once(" => ").unwrap_or_else(|| panic!("{place}"));
            let request = Line::try_parse_from(request.split(' ')).unwrap_or_else(|error| panic!("{place}\n{error}"));
            let (section, _, decision) =
                judge(&tables, &request.request).unwrap_or_else(|error| panic!("{place}\n{error}"));
            let decided = match decision {
                Some(decision) => {
                    let verdict = if decision.allow { "allowed" } else { "denied" };
                    format!("{verdict} {}", Cause::new(section, decision.rule).rule)
                }
                None => "allowed unrestricted".to_owned(),
            };
            assert_eq!(decided, expected, "{place}");
        }
    }
}

#[test]
fn check_prints_what_an_example_means() {
    for path in examples() {
        let output = Command::new(env!("CARGO_BIN_EXE_guard-run")).arg("check").arg(&path).output().unwrap();
        assert!(output.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
        let golden = path.with_extension("resolved.json");
        if env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&golden, &output.stdout).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_else(|error| panic!("{}: {error}", golden.display()));
        let printed = String::from_utf8(output.stdout).unwrap();
        assert_eq!(printed, expected, "{}: run with UPDATE_GOLDEN=1 if this is what it means now", golden.display());
    }
}

/// What `check` prints of a policy is that policy.
#[test]
fn what_check_prints_means_the_same() {
    for path in examples() {
        let text = fs::read(path.with_extension("resolved.json")).unwrap();
        let mut printed: serde_json::Value = serde_json::from_slice(&text).unwrap();
        for key in ["hooks", "unrestricted", "notes"] {
            printed.as_object_mut().unwrap().remove(key);
        }
        let policy = Document::new(&path, printed.to_string().into()).parse().unwrap();
        assert_eq!(serde_json::to_value(&policy).unwrap(), printed, "{}", path.display());
    }
}

#[test]
fn examples_name_their_schema() {
    for path in examples() {
        let json: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let schema = path.parent().unwrap().join(json["$schema"].as_str().expect("an example has \"$schema\""));
        assert!(schema.exists(), "{}: there is no {}", path.display(), schema.display());
    }
}
