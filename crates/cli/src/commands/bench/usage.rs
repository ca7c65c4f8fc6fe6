//! What this process and its threads use, as Linux tells it under `/proc`.

use std::time::Duration;

use anyhow::Context as _;

/// What the process uses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    /// Processor time of all threads, ended ones included; in steps of 10 ms.
    pub(super) cpu: Duration,
    /// Resident bytes.
    pub(super) resident: u64,
    /// Of these, bytes of no file.
    pub(super) anonymous: u64,
}

impl Usage {
    pub(super) fn now() -> anyhow::Result<Self> {
        let stat = fs_err::read_to_string("/proc/self/stat")?;
        let status = fs_err::read_to_string("/proc/self/status")?;
        Ok(Self {
            cpu: cpu(&stat).context("/proc/self/stat: no processor time")?,
            resident: kib(&status, "VmRSS:").context("/proc/self/status: no VmRSS")?,
            anonymous: kib(&status, "RssAnon:").context("/proc/self/status: no RssAnon")?,
        })
    }
}

/// Processor time of the calling thread, in nanosecond steps.
pub(super) fn thread_cpu() -> anyhow::Result<Duration> {
    let stat = fs_err::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = stat
        .split_whitespace()
        .next()
        .and_then(|field| field.parse().ok());
    nanos
        .map(Duration::from_nanos)
        .context("/proc/thread-self/schedstat: no processor time")
}

/// User and system time, fields 14 and 15 in ticks of 10 ms. The name of the program, field 2, may
/// hold spaces and parentheses.
fn cpu(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(Duration::from_millis((ticks()? + ticks()?) * 10))
}

fn kib(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace()
        .next()?
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_a_name_with_parentheses() {
        let stat = "7 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 150 25 0 0";
        assert_eq!(cpu(stat), Some(Duration::from_millis(1_750)));
        assert_eq!(
            kib("VmRSS:\t  12 kB\nRssAnon: 5 kB\n", "RssAnon:"),
            Some(5 * 1024)
        );
        assert_eq!(kib("", "VmRSS:"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_uses_something() {
        let usage = Usage::now().expect("proc");
        assert!(usage.resident >= usage.anonymous && usage.anonymous > 0);
        thread_cpu().expect("proc");
    }
}
