//! Ratio metrics against per-event tests, and fairness of interleaving.

use refrain_analysis::methods::interleaving::{Sessions, by_session};
use refrain_analysis::methods::moments::Tally;
use refrain_analysis::methods::proportion::{self, Share};
use refrain_analysis::methods::ratio;

use super::{Rate, repetitions};
use crate::support::SplitMix;

/// 400 users an arm, clicks of a user `Binomial(d, p)`, `p ~ Beta(1, 3)`, `d ~ 1 + Poisson(10)`, no
/// effect: events of a user are not independent.
#[test]
fn events_are_not_units() {
    let mut random = SplitMix::new(2);
    let (mut per_event, mut delta_method) = (Rate::default(), Rate::default());
    for _ in 0..repetitions(2_000, 300) {
        let mut tallies = [Tally::new(2), Tally::new(2)];
        for tally in &mut tallies {
            for _ in 0..400 {
                let p = 1.0 - (1.0 - random.uniform()).powf(1.0 / 3.0);
                let mut events = 1.0;
                let mut product = random.uniform();
                while product > (-10f64).exp() {
                    events += 1.0;
                    product *= random.uniform();
                }
                let mut clicks = 0.0;
                let mut left = events;
                while left > 0.0 {
                    clicks += f64::from(u8::from(random.uniform() < p));
                    left -= 1.0;
                }
                tally.push(&[clicks, events]).expect("finite");
            }
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "whole sums"
        )]
        let [c, t] = tallies.each_ref().map(|t| Share {
            successes: t.sum(0) as u64,
            n: t.sum(1) as u64,
        });
        let naive = proportion::compare(c, t).expect("valid").normal();
        per_event.add(naive.p_two_sided() < 0.05);
        let [c, t] = tallies.map(|t| t.moments().pair(0, 1));
        let effect = ratio::compare(&c, &t).expect("valid").normal();
        delta_method.add(effect.p_two_sided() < 0.05);
    }
    per_event.near("per event", 0.278, 0.02);
    delta_method.near("delta method", 0.055, 0.012);
}

/// Two rankers with the same list: each round a coin says who picks first, each picks its best item
/// not yet there; clicks at random, and clicks on the first item only.
#[test]
fn interleaving_of_equal_rankers_is_fair() {
    let mut random = SplitMix::new(18);
    for first_only in [false, true] {
        let mut sessions = Sessions::default();
        for _ in 0..repetitions(100_000, 20_000) {
            let mut teams = Vec::new();
            while teams.len() < 10 {
                let a_first = random.next().is_multiple_of(2);
                teams.extend([a_first, !a_first]);
            }
            let mut credit = [0, 0];
            for (position, of_a) in teams.iter().enumerate() {
                let clicked = if first_only {
                    position == 0
                } else {
                    random.uniform() < 0.2
                };
                if clicked {
                    credit[usize::from(!of_a)] += 1;
                }
            }
            sessions.add(credit[0], credit[1]);
        }
        let found = by_session(&sessions).expect("valid");
        assert!(found.credit.z().abs() < 3.0, "{first_only} {found:?}");
    }
}
