//! `guard-run compare`: what one policy allows and another does not.

use std::ffi::OsStr;

use advice::{Side, compare as compared};
use enforce::exit;
use report::text::pretty_json;

use crate::chosen::choose;

/// Prints what B allows that A does not, and the other way round. The exit status tells whether B is wider: [`exit::NO`] if it is.
///
/// # Errors
///
/// When one of them isn't valid, or their names can be told apart in too many ways.
pub fn compare(a: &OsStr, b: &OsStr, json: bool) -> anyhow::Result<u8> {
    let (a, b) = (choose(Some(a))?.compile()?, choose(Some(b))?.compile()?);
    let comparison =
        compared(Side { policy: &a.policy, tables: &a.tables }, Side { policy: &b.policy, tables: &b.tables })?;
    if json {
        println!("{}", String::from_utf8(pretty_json(&comparison)?)?);
    } else {
        print!("{comparison}");
    }
    Ok(if comparison.wider.is_empty() { exit::OK } else { exit::NO })
}
