//! Interleaved lists: both rankers in one answer, and the clicks say which one people prefer. Needs far
//! fewer users than an A/B test (Chapelle, Joachims, Radlinski, Yue 2012).
//!
//! For choosing candidates. Never for decisions on retention, latency, diversity or anything else that
//! belongs to a whole list. Both rankers must read the same index version and profile revision; items
//! of a common beginning carry no team.

use serde::{Deserialize, Serialize};

use super::effect::{Effect, Interval};
use super::error::{MethodError, check_count};
use super::moments::{Summary, count};
use super::special::{fair_coin_two_sided, normal_two_sided};

/// Sessions by whose items got more credit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    /// A got more.
    pub a: u64,
    /// B got more.
    pub b: u64,
    /// Both the same, or no click at all.
    pub ties: u64,
}

impl Sessions {
    /// Counts one session by the clicks credited to each team.
    pub fn add(&mut self, credit_a: u64, credit_b: u64) {
        match credit_a.cmp(&credit_b) {
            std::cmp::Ordering::Greater => self.a += 1,
            std::cmp::Ordering::Less => self.b += 1,
            std::cmp::Ordering::Equal => self.ties += 1,
        }
    }

    /// Mean credit of B over the sessions, +1, −1 and 0 each: what one user prefers; `None` without
    /// sessions.
    #[must_use]
    pub fn preference(&self) -> Option<f64> {
        let n = self.a + self.b + self.ties;
        (n > 0).then(|| (count(self.b) - count(self.a)) / count(n))
    }

    /// Adds all sessions of another count.
    pub fn merge(&mut self, other: &Self) {
        self.a += other.a;
        self.b += other.b;
        self.ties += other.ties;
    }
}

/// Preference over sessions, for display: sessions of one user are not independent, so decide on
/// [`by_user`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Preference {
    /// `(wins of A + ties/2) / n − 1/2`, −½..½; above 0, A is preferred.
    pub delta: f64,
    /// Exact sign test of the sessions that are no ties.
    pub p_sign: f64,
    /// The same by the normal distribution.
    pub z: f64,
    /// Its p-value.
    pub p_z: f64,
    /// Mean of +1, −1 and 0 a session, twice `delta`.
    pub credit: Effect,
}

/// Preference over sessions.
///
/// # Errors
/// Fewer than two sessions, or ties only.
pub fn by_session(sessions: &Sessions) -> Result<Preference, MethodError> {
    let (a, b) = (count(sessions.a), count(sessions.b));
    let decided = sessions.a + sessions.b;
    let total = decided + sessions.ties;
    check_count("sessions", 2, total)?;
    check_count("sessions that are no ties", 1, decided)?;
    let n = count(total);
    let mean = (a - b) / n;
    let variance = ((a + b) - n * mean * mean) / (n - 1.0);
    let z = (a - b) / (a + b).sqrt();
    Ok(Preference {
        delta: 0.5 * mean,
        p_sign: fair_coin_two_sided(sessions.a, decided),
        z,
        p_z: normal_two_sided(z),
        credit: Effect::new(mean, (variance / n).sqrt(), None)?,
    })
}

/// Preference over users: each user is the mean over their sessions of the credit (its sign, or the
/// difference in clicks) from −1 to 1; a one-sample t-test of their mean.
///
/// # Errors
/// Fewer than two users, or users who all agree to the last digit.
pub fn by_user(preferences: &Summary) -> Result<Effect, MethodError> {
    check_count("users", 2, preferences.n)?;
    Effect::new(
        preferences.mean,
        (preferences.variance / count(preferences.n)).sqrt(),
        Some(count(preferences.n - 1)),
    )
}

/// Interval of `delta` of [`Preference`] from [`by_user`].
///
/// # Errors
/// A confidence outside 0..1.
pub fn delta_interval(by_user: &Effect, confidence: f64) -> Result<Interval, MethodError> {
    let credit = by_user.interval(confidence)?;
    Ok(Interval {
        low: 0.5 * credit.low,
        high: 0.5 * credit.high,
    })
}
