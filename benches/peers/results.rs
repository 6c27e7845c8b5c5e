//! The results for people, with the machine that they are of.

use std::process::Command;

use crate::table::Table;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/RESULTS.md");
/// What was tried by hand, and does not change with a run.
const TRIED: &str = include_str!("tried.md");

/// Makes the file anew.
pub fn write(table: &Table) {
    let text = format!(
        "# Results\n\nMade by `cargo bench --bench peers -- --write`; what is not in `benches/peers/tried.md` is written by that command and not \
         by hand.\nTimes say little on shared machines: what counts is how the servers stand to each other in the same run.\n\n\
         {}\n\n{}\n{TRIED}",
        machine(),
        table.markdown()
    );
    std::fs::write(PATH, text).expect("the folder is there");
}

/// What the works were done on, and by whom.
fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let of_cpu = |field: &str| {
        cpu.lines().find_map(|line| line.strip_prefix(field)).map(|rest| rest.trim_start_matches([' ', '\t', ':']).to_owned())
    };
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or_default().trim().to_owned();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let lines = [
        format!("{cores} x {}, {total} of memory", of_cpu("model name").unwrap_or_default()),
        format!("Linux {}", said("uname", &["-r"])),
        format!("cistern {}", env!("CARGO_PKG_VERSION")),
        said("nginx", &["-v"]),
        said("squid", &["-v"]).lines().next().unwrap_or_default().to_owned(),
        said("date", &["--utc", "+%Y-%m-%d"]),
    ];
    lines.map(|line| format!("- {line}")).join("\n")
}

/// What a command says of itself.
fn said(command: &str, arguments: &[&str]) -> String {
    let output = Command::new(command).args(arguments).output();
    let said = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
    String::from_utf8_lossy(&said).trim().to_owned()
}
