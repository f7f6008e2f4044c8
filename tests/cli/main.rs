//! What users type and read: subcommands, exit statuses, messages, which policy is chosen.

mod advice;
mod chosen;
mod explain;
mod policy_errors;
mod report;
mod run;
mod said;
mod usage;
