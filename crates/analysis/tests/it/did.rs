//! Difference-in-differences: the exact panel, refusals, and regression covariances.

use refrain_analysis::methods::MethodError;
use refrain_analysis::methods::did::{Panel, Recommended};
use refrain_analysis::methods::linear::{Covariance, Regression};

use crate::support::{close, t12};

fn panel() -> Panel {
    let outcomes = [
        [10, 11, 12, 15, 16, 17],
        [20, 20, 21, 24, 25, 25],
        [15, 16, 16, 19, 18, 20],
        [12, 13, 13, 14, 15, 15],
        [18, 18, 19, 20, 20, 21],
        [14, 15, 16, 16, 17, 18],
    ];
    let outcomes = outcomes
        .iter()
        .map(|r| r.iter().map(|&v| f64::from(v)).collect());
    let adoption = [Some(3), Some(3), Some(3), None, None, None];
    Panel::new(outcomes.collect(), &adoption).expect("balanced")
}

#[test]
fn the_exact_panel() {
    let report = panel().analyse().expect("valid");
    close(report.delta, 2.222222, 5e-7);
    close(report.naive.delta, 2.222222, 5e-7);
    close(report.naive.se, 2.232615, 5e-7);
    close(report.two_way.se, 0.333333, 5e-7);
    close(report.clustered.se, 0.453042, 5e-7);
    close(report.clustered_two_way.se, 0.523128, 5e-7);
    let changes = report.unit_changes.expect("three units a group");
    close(changes.pooled.z(), 4.588315, 5e-7);
    close(changes.pooled.p_two_sided(), 0.010119690, 5e-10);
    close(changes.pooled.se, 0.484322, 5e-7);
    assert_eq!(changes.pooled.df, Some(4.0));
    close(changes.welch.p_two_sided(), 0.044363035, 5e-10);
    close(changes.welch.df.expect("has one"), 2.0, 1e-9);
    assert_eq!(report.permutation.splits, 20);
    assert!(report.permutation.exact);
    close(report.permutation.p_one_sided, 0.05, 1e-15);
    close(report.permutation.p_two_sided, 0.10, 1e-15);
    // Known before the data: twenty splits, each with its mirror image.
    close(report.permutation.smallest_two_sided, 0.10, 1e-15);
    assert_eq!(report.recommended, Recommended::Clustered);
    assert_eq!(report.pre_trend.len(), 3);
    assert!(report.placebo.expect("three periods before").p_two_sided > 0.1);
}

#[test]
fn staggered_adoption_is_refused() {
    let outcomes = vec![vec![1.0, 2.0, 3.0]; 4];
    let error =
        Panel::new(outcomes.clone(), &[Some(1), Some(2), None, None]).expect_err("staggered");
    assert!(
        matches!(error, MethodError::NotApplicable { .. }),
        "{error}"
    );
    assert!(Panel::new(outcomes.clone(), &[None; 4]).is_err());
    assert!(Panel::new(outcomes.clone(), &[Some(1); 4]).is_err());
    assert!(Panel::new(outcomes.clone(), &[Some(0), None, None, None]).is_err());
    assert!(Panel::new(outcomes, &[Some(3), None, None, None]).is_err());
    assert!(Panel::new(vec![vec![1.0], vec![1.0, 2.0]], &[Some(1), None]).is_err());
}

#[test]
fn many_units_are_sampled_and_reproducible() {
    let outcomes: Vec<Vec<f64>> = (0..40)
        .map(|u| {
            let base = f64::from(u % 7);
            vec![
                base,
                base + f64::from(u % 5) + if u < 20 { 3.0 } else { 0.0 },
            ]
        })
        .collect();
    let adoption: Vec<Option<usize>> = (0..40).map(|u| (u < 20).then_some(1)).collect();
    let panel = Panel::new(outcomes, &adoption).expect("balanced");
    let report = panel.analyse().expect("valid");
    assert!(!report.permutation.exact);
    assert!(report.permutation.p_two_sided < 1e-3 && report.permutation.p_two_sided > 0.0);
    assert_eq!(report, panel.analyse().expect("valid"));
}

/// Regression equivalents of CUPED on the table of twelve rows.
#[test]
fn ancova_and_lin() {
    let [c, t] = t12();
    let rows: Vec<(f64, [f64; 3])> = c
        .iter()
        .map(|r| (0.0, *r))
        .chain(t.iter().map(|r| (1.0, *r)))
        .collect();
    let y: Vec<f64> = rows.iter().map(|r| r.1[0]).collect();
    let ancova: Vec<f64> = rows.iter().flat_map(|(a, r)| [1.0, *a, r[2]]).collect();
    let regression = Regression {
        k: 3,
        x: &ancova,
        y: &y,
    };
    let se = |covariance| {
        regression
            .fit(covariance)
            .and_then(|f| f.effect(1))
            .expect("fits")
            .se
    };
    close(se(Covariance::Classical), 0.420275378, 5e-10);
    close(se(Covariance::Hc2), 0.426683760, 5e-10);
    let mean = rows.iter().map(|r| r.1[2]).sum::<f64>() / 12.0;
    let lin: Vec<f64> = rows
        .iter()
        .flat_map(|(a, r)| [1.0, *a, r[2] - mean, a * (r[2] - mean)])
        .collect();
    let fit = Regression {
        k: 4,
        x: &lin,
        y: &y,
    }
    .fit(Covariance::Hc2)
    .expect("fits");
    close(fit.effect(1).expect("has it").se, 0.456553209, 5e-10);
    let twice: Vec<f64> = rows.iter().flat_map(|(a, _)| [1.0, *a, *a]).collect();
    assert!(matches!(
        Regression {
            k: 3,
            x: &twice,
            y: &y
        }
        .fit(Covariance::Classical),
        Err(MethodError::Singular { .. })
    ));
}
