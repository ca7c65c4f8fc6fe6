//! How threads in the dark stay out of the way of those that answer.

use std::time::Duration;

/// What the kernel says of a thread.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scheduled {
    ran: Duration,
    /// Ready to run, while a processor ran others.
    waited: Duration,
}

impl Scheduled {
    /// Of this thread, since it began; none where the kernel does not say.
    pub(super) fn now() -> Option<Self> {
        // Brings the account up to date, which is else done a few hundred times a second.
        std::thread::yield_now();
        Self::parse(&fs_err::read_to_string("/proc/thread-self/schedstat").ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut nanos = text.split_ascii_whitespace().map(str::parse);
        let mut next = || Some(Duration::from_nanos(nanos.next()?.ok()?));
        Some(Self {
            ran: next()?,
            waited: next()?,
        })
    }

    pub(super) fn since(self, before: Self) -> Self {
        Self {
            ran: self.ran.saturating_sub(before.ran),
            waited: self.waited.saturating_sub(before.waited),
        }
    }

    /// How long to compute nothing after that. A thread that had to wait longer than it ran is in the way of others:
    /// every moment that it gets, a thread that answers comes to its own a little later.
    pub(super) fn rest(self) -> Duration {
        if self.waited > self.ran {
            (self.waited * RESTS).min(LONGEST_REST)
        } else {
            Duration::ZERO
        }
    }
}

/// Rest for each moment waited.
const RESTS: u32 = 4;
/// What waits meanwhile is late after `[shadow] timeout_ms`, by default four of these.
const LONGEST_REST: Duration = Duration::from_millis(250);

/// Lets this thread run only where no other wants to; what it computes gives way besides, at every look at the
/// clock ([`refrain_engine::Deadline::giving_way`]). The lowest niceness would not do: once it runs, the
/// kernel lets it end its turn before a thread that answers. Where it may not be set, the bound on the
/// queue still holds.
pub(super) fn yield_to_all_others() {
    #[cfg(target_os = "linux")]
    {
        use thread_priority::unix::{
            NormalThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy,
            thread_native_id,
        };
        let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
        let lowest = thread_priority::ThreadPriority::Min;
        if let Err(error) = set_thread_priority_and_policy(thread_native_id(), lowest, idle) {
            tracing::debug!(%error, "the priority of a shadow thread could not be lowered");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_in_the_way_of_others_rests() {
        let of = |text| Scheduled::parse(text).map(Scheduled::rest);
        let millis = Duration::from_millis;
        assert_eq!(of("2000000 1000000 7\n"), Some(millis(0)));
        assert_eq!(of("1000000 20000000 7\n"), Some(millis(80)));
        assert_eq!(of("1 900000000 7"), Some(LONGEST_REST));
        for text in ["", "1", "a b", "-1 2"] {
            assert_eq!(of(text), None, "{text:?}");
        }
        let before = Scheduled::parse("5 9").expect("two numbers");
        let since = Scheduled::parse("7 8").expect("two").since(before);
        assert_eq!((since.ran.as_nanos(), since.waited.as_nanos()), (2, 0));
        // Not every kernel says it; one that does counts on.
        if let Some(before) = Scheduled::now() {
            let now = Scheduled::now().expect("it was said a moment ago");
            assert!(now.ran >= before.ran && now.waited >= before.waited);
        }
    }
}
