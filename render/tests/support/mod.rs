//! Logs that tests make reports of.

#![allow(dead_code, reason = "each test program uses some of it")]

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use advice::Guard;
use policy::{DeviceNode, Document, Machine, Surroundings};
use render::{Gathered, Summary};
use serde_json::Value;

/// A machine without devices.
pub struct Bare;

impl Machine for Bare {
    fn device(&self, _: &Path) -> Result<DeviceNode, String> {
        Err("no device node".to_owned())
    }

    fn surroundings(&self) -> Result<Surroundings, String> {
        Ok(Surroundings::default())
    }
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

/// A file beside the tests.
pub fn file(name: &str) -> String {
    let path = path(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The policy of the logs here, if that is meant.
pub fn guard(path: Option<&Path>) -> Result<Guard, String> {
    match path {
        Some(path) if path == Path::new("policy.json") => {
            Ok(Guard::new(Document::new(path, file("logs/policy.json").into()), &Bare).unwrap())
        }
        _ => Err("it is not here".to_owned()),
    }
}

/// A log, changed.
pub fn log(name: &str, edit: impl FnOnce(&mut Value)) -> String {
    let mut log = serde_json::from_str(&file(&format!("logs/{name}"))).unwrap();
    edit(&mut log);
    log.to_string()
}

/// What logs tell of.
pub fn summary_of(logs: &[(&str, &str)], guard: &mut dyn FnMut(Option<&Path>) -> Result<Guard, String>) -> Summary {
    let mut gathered = Gathered::new(false);
    for (name, text) in logs {
        gathered.read(name, text.as_bytes()).unwrap();
    }
    gathered.summarize(guard, &Bare)
}

/// What the log of the test suite here tells of.
pub fn summary() -> Summary {
    summary_of(&[("suite.json", &file("logs/suite.json"))], &mut |path| guard(path))
}

/// Compares a text with the one in golden/.
pub fn assert_golden(name: &str, text: &str) {
    let name = format!("golden/{name}");
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(path(&name), text).unwrap();
    }
    assert!(text == file(&name), "{name}: run with UPDATE_GOLDEN=1 if this is what it says now:\n{text}");
}

/// Checks a document by a schema of schema/, which may refer to others there.
pub fn assert_valid(name: &str, json: &Value) {
    let schema =
        |name: &str| -> Value { serde_json::from_str(&file(&format!("../../schema/{name}.schema.json"))).unwrap() };
    let asked = schema(name);
    assert!(jsonschema::meta::is_valid(&asked), "{name} is no JSON Schema");
    let others = ["why", "suggest", "log"].map(|name| (format!("json-schema:///{name}.schema.json"), schema(name)));
    let registry = others.iter().try_fold(jsonschema::Registry::new(), |all, (uri, schema)| all.add(uri, schema));
    let registry = registry.unwrap().prepare().unwrap();
    let options = jsonschema::draft202012::options();
    let validator = options.with_registry(&registry).with_base_uri("json-schema:///").build(&asked).unwrap();
    let errors: Vec<String> =
        validator.iter_errors(json).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?}");
}
