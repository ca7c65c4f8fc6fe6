//! How much memory there is and how much of it this process has. Linux only; elsewhere unknown.

use std::path::Path;

/// Bytes that could still become resident without swapping, the page cache counted as free: the
/// least of what the machine has and what the control group of the process may still take.
pub(crate) fn available() -> Option<u64> {
    let machine = read("/proc/meminfo").and_then(|text| meminfo(&text, "MemAvailable:"));
    match (machine, control_group()) {
        (Some(machine), Some(group)) => Some(machine.min(group)),
        (machine, group) => machine.or(group),
    }
}

/// Bytes of this process that are resident, mapped files included.
pub(crate) fn process_resident() -> Option<u64> {
    read("/proc/self/status").and_then(|text| meminfo(&text, "VmRSS:"))
}

/// What the control group (version 2, at its usual place in a container) may still take, its file
/// cache counted as free.
fn control_group() -> Option<u64> {
    let limit: u64 = read("/sys/fs/cgroup/memory.max")?.trim().parse().ok()?;
    let used: u64 = read("/sys/fs/cgroup/memory.current")?.trim().parse().ok()?;
    let cache = read("/sys/fs/cgroup/memory.stat")
        .and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("file "))?;
            line.trim().parse::<u64>().ok()
        })
        .unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_sub(cache)))
}

/// The value of a line such as `MemAvailable:   123 kB`, in bytes.
fn meminfo(text: &str, key: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key))?;
    value
        .trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

fn read(path: &str) -> Option<String> {
    fs_err::read_to_string(Path::new(path)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_and_scaled() {
        let text = "MemTotal:       100 kB\nMemAvailable:    42 kB\n";
        assert_eq!(meminfo(text, "MemAvailable:"), Some(42 * 1024));
        assert_eq!(meminfo(text, "MemFree:"), None);
        assert_eq!(meminfo("MemAvailable: many kB\n", "MemAvailable:"), None);
        assert_eq!(
            meminfo("MemAvailable: 99999999999999999999 kB\n", "MemAvailable:"),
            None
        );
        assert_eq!(
            meminfo("MemAvailable: 18446744073709551615 kB\n", "MemAvailable:"),
            None
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_some() {
        assert!(process_resident().is_some_and(|bytes| bytes > 0));
        assert!(available().is_some_and(|bytes| bytes > 0));
    }
}
