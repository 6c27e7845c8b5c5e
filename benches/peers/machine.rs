//! What the machine as a whole did: a server shares it with its hosts and with the image server.

/// How many processors had something to do while this was done.
pub fn processors_used<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let before = ticks();
    let done = work();
    let after = ticks();
    let [idle, all] = [0, 1].map(|at| after[at] - before[at]);
    (done, processors() * (1.0 - idle / all))
}

/// How many processors there are.
pub fn processors() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |count| count.get() as f64)
}

/// How long all processors together had nothing to do, and how long they have been there.
fn ticks() -> [f64; 2] {
    const IDLE_AND_WAITING: std::ops::Range<usize> = 3..5;
    /// What comes after them belongs to other machines, or is counted elsewhere, too.
    const KINDS: usize = 7;
    let stat = std::fs::read_to_string("/proc/stat").expect("Linux has it");
    let line = stat.lines().next().expect("it begins with all processors together");
    let ticks: Vec<f64> = line.split_whitespace().skip(1).take(KINDS).map(|ticks| ticks.parse().expect("they are numbers")).collect();
    [ticks[IDLE_AND_WAITING].iter().sum(), ticks.iter().sum()]
}
