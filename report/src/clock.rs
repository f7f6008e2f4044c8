//! The kernel side's times.

use jiff::{SignedDuration, Timestamp};

/// Translates the kernel side's times, which are nanoseconds of `CLOCK_BOOTTIME`.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    boot: Timestamp,
}

impl Clock {
    /// A clock of a machine on which so much time has passed since its boot, seen at `now`.
    #[must_use]
    pub fn new(now: Timestamp, since_boot: SignedDuration) -> Self {
        Self { boot: now.checked_sub(since_boot).unwrap_or(Timestamp::UNIX_EPOCH) }
    }

    /// The time that is so many nanoseconds of `CLOCK_BOOTTIME`.
    #[must_use]
    pub fn time(&self, nanoseconds: u64) -> Timestamp {
        let since_boot = SignedDuration::from_nanos(i64::try_from(nanoseconds).unwrap_or(i64::MAX));
        self.boot.checked_add(since_boot).unwrap_or(Timestamp::MAX)
    }
}
