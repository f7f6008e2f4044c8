//! The file in which a command finds what it was denied (GUARD_RUN_DENIALS). Who could write it could have others believe in denials, or
//! hide them. In the control, it is a file of the attempt's own.

use std::{
    env,
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::fd::AsRawFd as _,
    path::PathBuf,
};

use super::{
    attempt::{At as _, Scene, Stop},
    policies::NOTHING,
    vector::{Evidence, Layer, Vector},
};

/// The variable that names the file.
const VARIABLE: &str = "GUARD_RUN_DENIALS";

const fn vector(name: &'static str, shows: &'static str, attempt: super::vector::Attempt) -> Vector {
    Vector::new(name, shows, NOTHING, attempt).seen_by(Evidence::Word).stopped_by(Layer::Mounts)
}

/// The vectors.
pub const VECTORS: &[Vector] = &[
    vector("forge", "adds a line to the file of denials", |s| {
        let mut file = OpenOptions::new().append(true).open(file(s)?).at("open")?;
        file.write_all(b"{}\n").at("write").map(|()| Vec::new())
    }),
    vector("forge-by-descriptor", "opens it anew by a descriptor that it may have (/proc/self/fd)", |s| {
        let read = File::open(file(s)?).at("open")?;
        let again = OpenOptions::new().write(true).open(format!("/proc/self/fd/{}", read.as_raw_fd()));
        again.at("open /proc/self/fd")?.write_all(b"{}\n").at("write").map(|()| Vec::new())
    }),
    vector("empty", "empties it", |s| {
        OpenOptions::new().write(true).truncate(true).open(file(s)?).at("open").map(|_| Vec::new())
    }),
    vector("replace", "puts another file in its place", |s| {
        let file = file(s)?;
        let other = file.with_extension("other");
        fs::write(&other, "{}\n").at("write")?;
        fs::rename(other, file).at("rename").map(|()| Vec::new())
    }),
    vector("remove", "removes it", |s| fs::remove_file(file(s)?).at("unlink").map(|()| Vec::new())),
];

/// The file: the guard's, or one like it.
fn file(s: &Scene) -> Result<PathBuf, Stop> {
    if let Some(told) = env::var_os(VARIABLE) {
        return Ok(told.into());
    }
    let own = s.work().join("denials.jsonl");
    fs::write(&own, "").at("write")?;
    Ok(own)
}
