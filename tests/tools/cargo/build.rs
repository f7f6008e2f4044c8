//! Asks the compiler who it is, and writes source code.

use std::{env, fs, path::Path, process::Command};

fn main() {
    let version = Command::new(env::var("RUSTC").unwrap()).arg("--version").output().unwrap();
    assert!(version.status.success());
    let folder = env::var("OUT_DIR").unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    fs::write(Path::new(&folder).join("version.rs"), format!("pub const VERSION: &str = {version:?};")).unwrap();
    println!("cargo::rerun-if-changed=build.rs");
}
