//! Logs in the folder for logs, which pile up.

use std::{
    fmt,
    fs::{self, File},
    io,
    os::{fd::AsRawFd as _, unix::ffi::OsStrExt as _},
    path::Path,
    str::FromStr,
    time::{Duration, SystemTime},
};

use enforce::target::kind;
use jiff::{Span, SpanRelativeTo};
use nix::{
    errno::Errno,
    fcntl::AtFlags,
    sys::stat::{SFlag, fstatat},
    unistd::{UnlinkatFlags, geteuid, unlinkat},
};

/// How old a log must be to be removed.
#[derive(Clone, Debug)]
pub struct Age {
    text: String,
    duration: Duration,
}

impl FromStr for Age {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "\"{text}\" is no age; write a number of days or weeks, such as 30d or 8w, or of hours, such as 12h"
            )
        };
        // Without a unit it could be anything.
        let span: Span = text.parse().map_err(|_| wrong())?;
        let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
        let duration = Duration::try_from(duration).map_err(|_| wrong())?;
        Ok(Self { text: text.to_owned(), duration })
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Removes this user's logs from the folder for logs that were written longer ago: those whose names guard-run has chosen. Returns how
/// many.
///
/// # Errors
///
/// When the folder can't be read, or one can't be removed.
pub fn remove_older(folder: &Path, age: &Age) -> io::Result<usize> {
    let folder = match File::open(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        folder => folder?,
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(io::Error::other)?;
    let oldest = now.saturating_sub(age.duration);
    let mut removed = 0;
    for entry in fs::read_dir(format!("/proc/self/fd/{}", folder.as_raw_fd()))? {
        let name = entry?.file_name();
        if !is_log(name.as_bytes()) {
            continue;
        }
        let file = match fstatat(&folder, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => continue,
            file => file?,
        };
        let is_older = u64::try_from(file.st_mtime).is_ok_and(|written| written < oldest.as_secs());
        if kind(&file) == SFlag::S_IFREG && file.st_uid == geteuid().as_raw() && is_older {
            unlinkat(&folder, name.as_os_str(), UnlinkatFlags::NoRemoveDir)?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Whether a file's name is one that guard-run chooses for a log, `20261129T205212.123456789Z-4242.json`.
fn is_log(name: &[u8]) -> bool {
    const TIME: &[u8] = b"00000000T000000.000000000Z-";
    let is_like = |(byte, like): (&u8, &u8)| if *like == b'0' { byte.is_ascii_digit() } else { byte == like };
    let Some((time, rest)) = name.split_at_checked(TIME.len()) else { return false };
    let pid = rest.strip_suffix(b".json").unwrap_or_default();
    time.iter().zip(TIME).all(is_like) && !pid.is_empty() && pid.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_units() {
        for (text, seconds) in [("30d", 30 * 86_400), ("8w", 56 * 86_400), ("12h", 43_200), ("1h30m", 5_400), ("0s", 0)]
        {
            assert_eq!(text.parse::<Age>().unwrap().duration.as_secs(), seconds, "{text}");
        }
        for text in ["", "30", "-1d", "1 year", "1mo", "d", "soon"] {
            assert!(text.parse::<Age>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_logs_are_taken_for_logs() {
        assert!(is_log(b"20261129T205212.123456789Z-4242.json"));
        for name in [
            "policy.json",
            "20261129T205212.123456789Z-.json",
            "20261129T205212.123456789Z-42",
            "x20261129T205212.123456789Z-1.json",
        ] {
            assert!(!is_log(name.as_bytes()), "{name}");
        }
    }
}
