//! Two things done at once, where there is a thread to be had.

use std::panic::resume_unwind;
use std::thread;

/// What both come to: `beside` on a thread of its own, or, where the system has none, after `here`.
///
/// A panic of either is the caller's.
pub fn both<A: Send, B>(beside: impl Fn() -> A + Sync, here: impl FnOnce() -> B) -> (A, B) {
    both_on(thread::Builder::new(), beside, here)
}

fn both_on<A: Send, B>(
    builder: thread::Builder,
    beside: impl Fn() -> A + Sync,
    here: impl FnOnce() -> B,
) -> (A, B) {
    thread::scope(|scope| {
        let started = builder.spawn_scoped(scope, &beside);
        let here = here();
        let beside = match started {
            Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
            Err(_) => beside(),
        };
        (beside, here)
    })
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn both_are_done_once_with_a_thread_or_without() {
        // There is no stack of 4 EiB.
        let greedy = || thread::Builder::new().stack_size(1 << 62);
        thread::scope(|scope| assert!(greedy().spawn_scoped(scope, || ()).is_err()));
        for builder in [thread::Builder::new(), greedy()] {
            let done = AtomicU32::new(0);
            let count = |step| done.fetch_add(step, Ordering::Relaxed);
            let told = both_on(builder, || (count(1), "beside").1, || (count(10), "here").1);
            assert_eq!((told, done.into_inner()), (("beside", "here"), 11));
        }
    }

    #[test]
    fn a_panic_is_the_callers() {
        let both = || both(|| panic!("beside"), || 1);
        let caught = catch_unwind(AssertUnwindSafe(both)).map(|(never, _): ((), i32)| never);
        assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"beside"));
    }
}
