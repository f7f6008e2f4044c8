//! `guard-bench`: measures guard-run against its peers, against no guard at all, and against its goals.
//!
//! `guard-bench [SECTION]...` prints one table and writes it as JSON. Everything is measured in the same run, the sides
//! taking turns in short rounds, so that a busy machine disturbs all of them alike. Figures are medians over rounds;
//! differences and ratios are medians of what each round says. It uses the loopback interface only, and takes less than
//! five minutes.
#![forbid(unsafe_code)]

mod cgroup;
mod containers;
mod denied;
mod launch;
mod memory;
mod operations;
mod policies;
mod quiet;
mod replay;
mod report;
mod rounds;
mod setup;
mod side;
mod sockets;
mod stats;
mod throughput;
mod worker;

use std::{process::ExitCode, thread, time::Duration};

use anyhow::bail;

use crate::{
    report::{Figure, Figures},
    setup::Setup,
};

/// Nothing here takes longer; if something does, it hangs.
const LIMIT: Duration = Duration::from_secs(300);

type Measure = fn(&Setup) -> anyhow::Result<Vec<Figure>>;

const SECTIONS: [(&str, Measure); 8] = [
    ("launch", launch::measure),
    ("operations", operations::measure),
    ("sockets", sockets::measure),
    ("throughput", throughput::measure),
    ("denied", denied::measure),
    ("memory", memory::measure),
    ("replay", replay::measure),
    ("containers", containers::measure),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        [worker::WORKER] => worker::serve(),
        [worker::STORM, processes, connects] => worker::storm(processes, connects),
        _ => bench(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guard-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures the sections that are named, or all. A goal that is missed is a result, not a failure.
fn bench(wanted: &[&str]) -> anyhow::Result<()> {
    if let Some(unknown) = wanted.iter().find(|name| SECTIONS.iter().all(|(section, _)| section != *name)) {
        bail!("there is no section \"{unknown}\"; there are {}", SECTIONS.map(|(name, _)| name).join(", "));
    }
    // Workers end with their input, so ending here ends them, too.
    thread::spawn(|| {
        thread::sleep(LIMIT);
        eprintln!("guard-bench: not done after {} s", LIMIT.as_secs());
        std::process::exit(1);
    });
    let setup = Setup::new()?;
    let mut report = Figures::new()?;
    for (name, measure) in SECTIONS {
        if wanted.is_empty() || wanted.contains(&name) {
            eprintln!("measuring {name} …");
            report.add(name, measure(&setup)?);
        }
    }
    print!("{report}");
    report.write(&setup.results)
}
