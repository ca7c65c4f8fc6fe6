//! Until when work may go on, and how it stands to other work meanwhile.

use std::time::Instant;

/// Until when a search may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    at: Instant,
    gives_way: bool,
}

impl Deadline {
    /// Of work that nobody waits for: at every look at the clock, some tens of microseconds apart, another
    /// thread may run first.
    ///
    /// The lowest priority does not do that by itself. Where every core has something to run, a kernel may find
    /// out only at its next tick, milliseconds later, that one of them should have been taken from such work.
    #[must_use]
    pub fn giving_way(at: Instant) -> Self {
        let gives_way = true;
        Self { at, gives_way }
    }

    /// Whether it is past; gives way first where it should.
    #[must_use]
    pub fn has_passed(self) -> bool {
        self.give_way();
        Instant::now() >= self.at
    }

    /// Lets another thread run first where it should: between steps that do not ask for the time.
    pub fn give_way(self) {
        if self.gives_way {
            std::thread::yield_now();
        }
    }
}

impl From<Instant> for Deadline {
    fn from(at: Instant) -> Self {
        let gives_way = false;
        Self { at, gives_way }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_gives_way_has_as_long_as_who_does_not() {
        let now = Instant::now();
        for of in [Deadline::from, Deadline::giving_way] {
            assert!(of(now).has_passed());
            assert!(!of(now + Duration::from_secs(600)).has_passed());
        }
    }
}
