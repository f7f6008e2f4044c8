//! Finding a tool chain that compiles for eBPF.

use std::{env, fs, path::PathBuf, process::Command};

/// What eBPF programs are compiled for.
pub const TARGET: &str = "bpfel-unknown-none";

const HELP: &str = "\
guard-run's eBPF programs need a Rust tool chain for the target bpfel-unknown-none, and bpf-linker.
Run `make setup`, which installs both on Debian, or one of these by hand:
  Debian:     apt-get install rustc-web cargo-web libstd-rust-web-dev-bpf
  elsewhere:  rustup toolchain install nightly --component rust-src
and:          cargo install bpf-linker
Set GUARD_EBPF_RUSTC or GUARD_BPF_LINKER to use a particular one.";

/// A compiler that can build for [`TARGET`].
pub struct Toolchain {
    pub cargo: PathBuf,
    pub rustc: PathBuf,
    /// The target's `core` has to be built first.
    pub build_std: bool,
}

impl Toolchain {
    /// The first of these that has `core` for the target, or its source and the right to build it: `GUARD_EBPF_RUSTC`,
    /// the compiler of this build, the system's, rustup's nightly.
    pub fn find() -> Result<Self, String> {
        let candidates = if let Some(rustc) = env::var_os("GUARD_EBPF_RUSTC") {
            vec![PathBuf::from(rustc)]
        } else {
            let own = PathBuf::from(env::var_os("RUSTC").expect("cargo sets it"));
            let nightly = output(Command::new("rustup").args(["which", "--toolchain", "nightly", "rustc"]));
            [own, PathBuf::from("/usr/bin/rustc")].into_iter().chain(nightly.map(PathBuf::from)).collect()
        };
        let tried: Vec<String> = candidates.iter().map(|rustc| rustc.display().to_string()).collect();
        candidates
            .into_iter()
            .find_map(Self::of)
            .ok_or_else(|| format!("no Rust compiler for {TARGET} found; tried: {}\n\n{HELP}", tried.join(", ")))
    }

    fn of(rustc: PathBuf) -> Option<Self> {
        let sysroot = PathBuf::from(output(Command::new(&rustc).args(["--print", "sysroot"]))?);
        // The cargo beside the compiler knows the flags that go with it.
        let beside = sysroot.join("bin/cargo");
        let cargo = if beside.exists() { beside } else { PathBuf::from(env::var_os("CARGO")?) };
        let core = fs::read_dir(sysroot.join("lib/rustlib").join(TARGET).join("lib")).is_ok_and(|mut files| {
            files.any(|file| file.is_ok_and(|file| file.file_name().to_string_lossy().starts_with("libcore-")))
        });
        let version = output(Command::new(&rustc).arg("--version"))?;
        let source = sysroot.join("lib/rustlib/src/rust/library/core").exists();
        let build_std = !core && source && version.contains("nightly");
        (core || build_std).then_some(Self { cargo, rustc, build_std })
    }
}

/// bpf-linker.
pub fn find_linker() -> Result<PathBuf, String> {
    if let Some(linker) = env::var_os("GUARD_BPF_LINKER") {
        return Ok(PathBuf::from(linker));
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo_bin = cargo_home.map(|home| home.join("bin"));
    env::split_paths(&path)
        .chain(cargo_bin)
        .map(|folder| folder.join("bpf-linker"))
        .find(|linker| linker.exists())
        .ok_or_else(|| format!("bpf-linker not found in PATH or cargo's bin folder\n\n{HELP}"))
}

/// The first line that a command prints, if it succeeds.
fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.lines().next()?.to_owned())
}
