//! Difference-in-differences on autocorrelated panels without an effect.

use refrain_analysis::methods::did::Panel;

use super::{Rate, normal, repetitions};
use crate::support::SplitMix;

/// 20 periods, AR(1) with 0.8, half the units treated in the second half; 5 % two-sided. The reference
/// made 600 runs, so its own rates are that uncertain.
#[test]
fn rejections_without_an_effect() {
    let mut random = SplitMix::new(14);
    for (units, expected) in [
        (20_usize, [0.325, 0.060, 0.052, 0.055]),
        (6, [0.405, 0.100, 0.063, 0.0]),
    ] {
        let mut rates: [Rate; 4] = Default::default();
        for _ in 0..repetitions(600, 100) {
            let outcomes = (0..units)
                .map(|_| {
                    let mut level = normal(&mut random) / 0.6;
                    (0..20)
                        .map(|_| {
                            level = 0.8 * level + normal(&mut random);
                            level
                        })
                        .collect()
                })
                .collect();
            let adoption: Vec<Option<usize>> =
                (0..units).map(|u| (u < units / 2).then_some(10)).collect();
            let report = Panel::new(outcomes, &adoption)
                .and_then(|p| p.analyse())
                .expect("valid");
            let changes = report.unit_changes.expect("enough units");
            rates[0].add(report.naive.p_two_sided() < 0.05);
            rates[1].add(report.clustered.p_two_sided() < 0.05);
            rates[2].add(changes.pooled.p_two_sided() < 0.05);
            rates[3].add(report.permutation.p_two_sided <= 0.05);
            assert!(report.permutation.exact);
            if units == 6 {
                assert!(report.permutation.smallest_two_sided > 0.05);
            }
        }
        let names = ["naive", "clustered", "unit changes", "permutation"];
        for ((rate, name), expected) in rates.iter().zip(names).zip(expected) {
            rate.like(&format!("{name}, {units} units"), expected, 600);
        }
    }
}
