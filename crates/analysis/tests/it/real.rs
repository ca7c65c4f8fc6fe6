//! Known answers on real data. Where the data sets are not beside the repository, each test says that
//! it is skipped.

use std::collections::HashMap;
use std::path::PathBuf;

use refrain_analysis::methods::did::{self, Panel};
use refrain_analysis::methods::linear::{Covariance, Regression};
use refrain_analysis::methods::moments::{PairSummary, Summary, Tally};
use refrain_analysis::methods::off_policy::{Method, Row, value};
use refrain_analysis::methods::proportion::{self, Share};
use refrain_analysis::methods::{MethodError, iv, mean, srm};

use crate::simulation::normal;
use crate::support::{SplitMix, close};

/// A table by columns of text; `None`, said on stderr, where it is not there.
struct Table {
    columns: HashMap<String, usize>,
    rows: Vec<csv::StringRecord>,
}

fn table(name: &str) -> Option<Table> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/datasets")
        .join(name);
    let Ok(file) = fs_err::File::open(&path) else {
        eprintln!("skipped: {} is not there", path.display());
        return None;
    };
    let mut reader = csv::Reader::from_reader(flate2::read::GzDecoder::new(file));
    let columns = reader.headers().expect("a header").iter().zip(0..);
    let columns = columns.map(|(name, at)| (name.to_owned(), at)).collect();
    let rows = reader.records().collect::<Result<_, _>>().expect("a table");
    Some(Table { columns, rows })
}

impl Table {
    fn text(&self, row: usize, column: &str) -> &str {
        &self.rows[row][self.columns[column]]
    }

    /// `None` for "NA" and empty cells.
    fn number(&self, row: usize, column: &str) -> Option<f64> {
        self.text(row, column).parse().ok()
    }

    /// Numbers of one column in the rows that pass, empty cells left out.
    fn numbers(&self, column: &str, keep: impl Fn(usize) -> bool) -> Vec<f64> {
        (0..self.rows.len())
            .filter(|&row| keep(row))
            .filter_map(|row| self.number(row, column))
            .collect()
    }

    fn is(&self, row: usize, column: &str, value: f64) -> bool {
        self.number(row, column) == Some(value)
    }
}

fn summary(values: &[f64]) -> Summary {
    Summary::of(values).expect("enough values")
}

#[test]
fn cookie_cats_and_its_sample_ratio_alarm() {
    let Some(data) = table("cookie-cats/cookie_cats.csv.gz") else {
        return;
    };
    let arm = |row: usize| usize::from(data.text(row, "version") == "gate_40");
    let mut counts = [0_u64; 2];
    let mut retained = [[0_u64; 2]; 2];
    let mut rounds = [Vec::new(), Vec::new()];
    for row in 0..data.rows.len() {
        let arm = arm(row);
        counts[arm] += 1;
        for (of_day, column) in retained.iter_mut().zip(["retention_1", "retention_7"]) {
            of_day[arm] += u64::from(data.text(row, column).eq_ignore_ascii_case("true"));
        }
        rounds[arm].push(data.number(row, "sum_gamerounds").expect("a number"));
    }
    assert_eq!(counts, [44_700, 45_489]);
    let ratio = srm::fixed(&counts, &[0.5, 0.5]).expect("valid");
    close(ratio.chi_square, 6.90, 0.005);
    close(ratio.p, 0.0086, 5e-5);
    for (successes, delta, z, p) in [
        (retained[0], -0.00591, -1.78, 0.074),
        (retained[1], -0.00820, -3.16, 0.0016),
    ] {
        let share = |arm: usize| Share {
            successes: successes[arm],
            n: counts[arm],
        };
        let effect = proportion::compare(share(0), share(1))
            .expect("valid")
            .effect();
        close(effect.delta, delta, 5e-6);
        close(effect.z(), z, 0.006);
        close(effect.p_two_sided(), p, 5e-4);
    }
    // One player with 49,854 rounds: without them, the standard error falls visibly.
    let with = mean::compare(&summary(&rounds[0]), &summary(&rounds[1]))
        .expect("valid")
        .effect();
    let cut = rounds.map(|r| r.into_iter().filter(|v| *v < 5_000.0).collect::<Vec<f64>>());
    let without = mean::compare(&summary(&cut[0]), &summary(&cut[1]))
        .expect("valid")
        .effect();
    assert!(without.se < 0.75 * with.se, "{with:?} {without:?}");
    assert!(
        (with.delta - without.delta).abs() > 0.5,
        "{with:?} {without:?}"
    );
}

#[test]
fn training_programme_against_an_experiment_and_a_survey() {
    let (Some(nsw), Some(cps)) = (
        table("causal-classics/nsw_mixtape.csv.gz"),
        table("causal-classics/cps_mixtape.csv.gz"),
    ) else {
        return;
    };
    let treated = summary(&nsw.numbers("re78", |r| nsw.is(r, "treat", 1.0)));
    let control = summary(&nsw.numbers("re78", |r| nsw.is(r, "treat", 0.0)));
    assert_eq!((treated.n, control.n), (185, 260));
    let effect = mean::compare(&control, &treated).expect("valid").effect();
    close(effect.delta, 1794.34, 0.005);
    close(effect.se, 671.0, 0.05);
    let survey = summary(&cps.numbers("re78", |_| true));
    let naive = mean::compare(&survey, &treated).expect("valid").effect();
    close(naive.delta, -8497.52, 0.005);

    // Adjusting for what was known before moves the naive comparison most of the way.
    let covariates = [
        "age", "educ", "black", "hisp", "marr", "nodegree", "re74", "re75",
    ];
    let (mut x, mut y) = (Vec::new(), Vec::new());
    for (data, treat) in [(&nsw, 1.0), (&cps, 0.0)] {
        for row in 0..data.rows.len() {
            if data.is(row, "treat", treat) {
                x.extend([1.0, treat]);
                x.extend(
                    covariates
                        .iter()
                        .map(|c| data.number(row, c).expect("complete")),
                );
                y.push(data.number(row, "re78").expect("complete"));
            }
        }
    }
    let adjusted = Regression {
        k: 10,
        x: &x,
        y: &y,
    }
    .fit(Covariance::Hc2)
    .and_then(|f| f.effect(1))
    .expect("fits");
    assert!((0.0..1_794.0).contains(&adjusted.delta), "{adjusted:?}");
}

#[test]
fn return_to_education() {
    let Some(data) = table("causal-classics/card_proximity.csv.gz") else {
        return;
    };
    let controls = [
        "exper", "expersq", "black", "smsa", "south", "smsa66", "reg662", "reg663", "reg664",
        "reg665", "reg666", "reg667", "reg668", "reg669",
    ];
    let k = 2 + controls.len();
    let (mut x, mut z, mut y) = (Vec::new(), Vec::new(), Vec::new());
    for row in 0..data.rows.len() {
        let of = |column: &str| data.number(row, column).expect("complete");
        for (rows, first) in [(&mut x, "educ"), (&mut z, "nearc4")] {
            rows.extend([1.0, of(first)]);
            rows.extend(controls.iter().map(|c| of(c)));
        }
        y.push(of("lwage"));
    }
    assert_eq!(y.len(), 3010);
    let regression = Regression { k, x: &x, y: &y };
    let ols = regression
        .fit(Covariance::Classical)
        .and_then(|f| f.effect(1))
        .expect("fits");
    close(ols.delta, 0.0747, 5e-5);
    close(ols.se, 0.0035, 5e-5);
    let iv = regression
        .fit_with_instruments(&z, Covariance::Classical)
        .and_then(|f| f.effect(1))
        .expect("fits");
    close(iv.delta, 0.1315, 5e-5);
    close(iv.se, 0.0550, 5e-5);
}

#[test]
fn minimum_wage() {
    let Some(data) = table("causal-classics/card_krueger_1994.csv.gz") else {
        return;
    };
    let cell = |nj: f64, after: f64| {
        summary(&data.numbers("fte", |r| data.is(r, "nj", nj) && data.is(r, "d", after)))
    };
    let (pa, nj) = (
        [cell(0.0, 0.0), cell(0.0, 1.0)],
        [cell(1.0, 0.0), cell(1.0, 1.0)],
    );
    for (cell, mean) in pa.iter().chain(&nj).zip([23.331, 21.166, 20.439, 21.027]) {
        close(cell.mean, mean, 5e-4);
    }
    let effect = did::of_cells([&pa[0], &pa[1]], [&nj[0], &nj[1]]).expect("valid");
    close(effect.delta, 2.754, 5e-4);
}

#[test]
fn incentives_and_fetched_results() {
    let Some(data) = table("causal-classics/thornton_hiv.csv.gz") else {
        return;
    };
    // The outcome is taken as uptake itself: the first stage is what is known.
    let arm = |any: f64| -> PairSummary {
        let mut tally = Tally::new(2);
        for row in (0..data.rows.len()).filter(|&r| data.is(r, "any", any)) {
            if let (Some(got), Some(age)) = (data.number(row, "got"), data.number(row, "age")) {
                tally.push(&[age, got]).expect("finite");
            }
        }
        tally.moments().pair(0, 1)
    };
    let uptake = |any: f64| summary(&data.numbers("got", |r| data.is(r, "any", any)));
    let (without, with) = (uptake(0.0), uptake(1.0));
    close(without.mean, 0.339, 5e-4);
    close(with.mean, 0.789, 5e-4);
    let found = iv::encouragement(&arm(0.0), &arm(1.0), 0.95).expect("valid");
    close(found.first_stage.delta, 0.45, 0.005);
    assert!(!found.weak && found.f > 400.0, "{found:?}");
    assert!(found.anderson_rubin.is_bounded());
}

#[test]
fn laws_that_came_at_different_times() {
    let Some(data) = table("causal-classics/castle.csv.gz") else {
        return;
    };
    let mut outcomes: HashMap<String, Vec<(f64, f64, f64)>> = HashMap::new();
    for row in 0..data.rows.len() {
        let of = |column: &str| data.number(row, column).expect("complete");
        outcomes
            .entry(data.text(row, "sid").to_owned())
            .or_default()
            .push((of("year"), of("homicide").ln(), of("post")));
    }
    let (mut rows, mut adoption) = (Vec::new(), Vec::new());
    let mut states: Vec<_> = outcomes.into_iter().collect();
    states.sort_by(|a, b| a.0.cmp(&b.0));
    for (_, mut years) in states {
        years.sort_by(|a, b| a.0.total_cmp(&b.0));
        adoption.push(years.iter().position(|y| y.2 > 0.0));
        rows.push(years.iter().map(|y| y.1).collect());
    }
    assert_eq!(rows.len(), 50);
    let refused = Panel::new(rows, &adoption).expect_err("staggered");
    assert!(
        matches!(refused, MethodError::NotApplicable { .. }),
        "{refused}"
    );
}

/// Marsaglia and Tsang (2000).
fn gamma(random: &mut SplitMix, shape: f64) -> f64 {
    if shape < 1.0 {
        let boost = random.uniform().powf(1.0 / shape);
        return gamma(random, shape + 1.0) * boost;
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal(random);
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && random.uniform().ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}

/// `alpha` and `beta` of one campaign in the priors' file.
fn priors(campaign: &str) -> Option<[Vec<f64>; 2]> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/datasets/open-bandit-small/prior_bts.yaml.gz");
    let file = fs_err::File::open(path).ok()?;
    let text = std::io::read_to_string(flate2::read::GzDecoder::new(file)).expect("text");
    let mut found = [Vec::new(), Vec::new()];
    let (mut here, mut into) = (false, 0);
    for line in text.lines() {
        let trimmed = line.trim();
        if let Some(number) = trimmed.strip_prefix("- ") {
            if here {
                found[into].push(number.parse().expect("a number"));
            }
        } else if trimmed == "alpha:" || trimmed == "beta:" {
            into = usize::from(trimmed == "beta:");
        } else if !trimmed.is_empty() {
            here = trimmed.trim_end_matches(':') == campaign;
        }
    }
    Some(found)
}

/// The Thompson policy's value from randomly served slots covers what it earned when it was served.
#[test]
fn thompson_sampling_valued_from_random_logs() {
    for campaign in ["men", "women"] {
        let (Some(random), Some(served), Some([alpha, beta])) = (
            table(&format!("open-bandit-small/random/{campaign}.csv.gz")),
            table(&format!("open-bandit-small/bts/{campaign}.csv.gz")),
            priors(campaign),
        ) else {
            return;
        };
        // The policy shows the three items with the largest draws; by simulation, its probability of
        // each item at each position.
        let items = alpha.len();
        let mut shown = vec![[0_u32; 3]; items];
        let mut generator = SplitMix::new(19);
        const DRAWS: u32 = 20_000;
        for _ in 0..DRAWS {
            let mut draws: Vec<(f64, usize)> = (0..items)
                .map(|i| {
                    let (a, b) = (
                        gamma(&mut generator, alpha[i]),
                        gamma(&mut generator, beta[i]),
                    );
                    (a / (a + b), i)
                })
                .collect();
            draws.sort_by(|x, y| y.0.total_cmp(&x.0));
            for (position, (_, item)) in draws.iter().take(3).enumerate() {
                shown[*item][position] += 1;
            }
        }
        let index = |row: usize, column: &str| -> usize {
            random.text(row, column).parse().expect("a whole number")
        };
        let rows: Vec<Row> = (0..random.rows.len())
            .zip(0..)
            .map(|(row, user)| {
                let times = shown[index(row, "item_id")][index(row, "position") - 1];
                Row {
                    logged: random.number(row, "propensity_score").expect("logged"),
                    target: f64::from(times) / f64::from(DRAWS),
                    reward: random.number(row, "click").expect("logged"),
                    predicted: 0.0,
                    predicted_target: 0.0,
                    user,
                }
            })
            .collect();
        let on_policy = summary(&served.numbers("click", |_| true)).mean;
        // A model for the doubly robust estimates: the click rate of an item, drawn towards that of all, from
        // the half of the rows that it does not predict.
        let mut clicks = vec![[[0.0_f64; 2]; 2]; items];
        for (row, at) in (0..random.rows.len()).zip(0_usize..) {
            let item = &mut clicks[index(row, "item_id")][at % 2];
            item[0] += random.number(row, "click").expect("logged");
            item[1] += 1.0;
        }
        let models: Vec<Vec<f64>> = (0..2)
            .map(|half| {
                let all = clicks.iter().map(|item| item[half]);
                let all = all.fold([0.0; 2], |a, b| [a[0] + b[0], a[1] + b[1]]);
                let rate = all[0] / all[1];
                let of =
                    |item: &[[f64; 2]; 2]| (item[half][0] + 100.0 * rate) / (item[half][1] + 100.0);
                clicks.iter().map(of).collect()
            })
            .collect();
        let modelled: Vec<Row> = rows
            .iter()
            .enumerate()
            .map(|(at, row)| {
                let model = &models[1 - at % 2];
                let position = index(at, "position") - 1;
                let averaged: f64 = model
                    .iter()
                    .zip(&shown)
                    .map(|(rate, times)| rate * f64::from(times[position]) / f64::from(DRAWS))
                    .sum();
                Row {
                    predicted: model[index(at, "item_id")],
                    predicted_target: averaged,
                    ..*row
                }
            })
            .collect();
        let se = |rows: &[Row], method| {
            let found = value(rows, method, 0.95).expect("randomised");
            println!(
                "{campaign} {method:?}: {:.5} ({:.5} to {:.5}), on policy {on_policy:.5}",
                found.value.delta, found.interval.low, found.interval.high
            );
            assert!(
                found.interval.contains(on_policy),
                "{campaign} {method:?}: {on_policy} {found:?}"
            );
            assert!(found.diagnostics.effective_rows < 10_000.0);
            found.value.se
        };
        for method in [Method::Ips, Method::Snips] {
            se(&rows, method);
        }
        for method in [
            Method::DoublyRobust,
            Method::SelfNormalisedDoublyRobust,
            Method::Switch(100.0),
        ] {
            se(&modelled, method);
        }
    }
}
