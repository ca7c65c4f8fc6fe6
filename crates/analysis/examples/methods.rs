//! Answers questions about single methods, for comparison with other libraries: one JSON question a line
//! on standard input, one JSON answer a line on standard output. `tests/analysis/crosscheck.py` asks.
#![expect(clippy::print_stdout, reason = "its purpose")]

use std::io::BufRead as _;

use refrain_analysis::methods::always_valid::{self, ConfidenceSequence};
use refrain_analysis::methods::did::Panel;
use refrain_analysis::methods::effect::{Comparison, Effect};
use refrain_analysis::methods::interleaving::{self, Sessions};
use refrain_analysis::methods::linear::{Covariance, Regression};
use refrain_analysis::methods::longitudinal::{self, Components};
use refrain_analysis::methods::moments::{Moments, Summary, Tally};
use refrain_analysis::methods::off_policy::{self, Row, Slate, SlateMethod, slate_value};
use refrain_analysis::methods::offline_online::{self, Experiment};
use refrain_analysis::methods::power::Target;
use refrain_analysis::methods::proportion::{self, Share};
use refrain_analysis::methods::sequential::{GroupSequential, Spending};
use refrain_analysis::methods::{
    MethodError, cuped, iv, mean, multiplicity, novelty, quantile, ratio, segments, special, srm,
};
use serde::Deserialize;
use serde_json::{Value, json};

type Table = Vec<Vec<f64>>;

#[derive(Deserialize)]
#[serde(tag = "method", rename_all = "snake_case", deny_unknown_fields)]
enum Question {
    Mean {
        control: Vec<f64>,
        treatment: Vec<f64>,
        confidence: f64,
    },
    Proportion {
        control: Share,
        treatment: Share,
        confidence: f64,
    },
    /// Rows y, d.
    Ratio {
        control: Table,
        treatment: Table,
        confidence: f64,
    },
    /// Rows y, x.
    Cuped {
        control: Table,
        treatment: Table,
    },
    GroupSequential {
        alpha: f64,
        spending: Spending,
        looks: Vec<f64>,
    },
    Size {
        target: Target,
        shares: [f64; 2],
    },
    Multiplicity {
        p: Vec<f64>,
    },
    /// Pairs of effect and standard error.
    Segments {
        effects: Vec<[f64; 2]>,
    },
    Novelty {
        days: Vec<u32>,
        effects: Vec<[f64; 2]>,
    },
    DifferenceInDifferences {
        outcomes: Table,
        adoption: Vec<Option<usize>>,
    },
    /// Rows y, d.
    Encouragement {
        control: Table,
        encouraged: Table,
        confidence: f64,
    },
    Regression {
        x: Table,
        y: Vec<f64>,
        errors: String,
        clusters: Vec<usize>,
        instruments: Table,
    },
    OfflineOnline {
        experiments: Vec<Experiment>,
        confidence: f64,
    },
    SampleRatio {
        counts: Vec<u64>,
        weights: Vec<f64>,
    },
    Interleaving {
        sessions: Sessions,
        users: Vec<f64>,
    },
    Quantile {
        values: Vec<f64>,
        nu: f64,
        confidence: f64,
    },
    /// Measurements by unit.
    Longitudinal {
        control: Table,
        treatment: Table,
        components: Components,
    },
    OffPolicy {
        rows: Vec<Row>,
        estimator: off_policy::Method,
    },
    /// How far to shrink the weights.
    Shrinkage {
        rows: Vec<Row>,
    },
    /// One look of a confidence sequence.
    ConfidenceSequence {
        effect: Effect,
        units: u64,
        tuned_units: u64,
        alpha: f64,
    },
    Msprt {
        effect: Effect,
        tau: f64,
        alpha: f64,
    },
    Slates {
        slates: Vec<Slate>,
        estimator: SlateMethod,
    },
    /// Survival functions and quantiles.
    Distributions {
        z: f64,
        t: [f64; 2],
        chi_square: [f64; 2],
        f: [f64; 3],
        p: f64,
    },
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for line in std::io::stdin().lock().lines() {
        let question: Question = serde_json::from_str(&line?)?;
        let answer = answer(question).unwrap_or_else(|error| json!({ "error": error.to_string() }));
        println!("{answer}");
    }
    Ok(())
}

fn answer(question: Question) -> Result<Value, MethodError> {
    Ok(match question {
        Question::Mean {
            control,
            treatment,
            confidence,
        } => {
            let comparison = mean::compare(&Summary::of(&control)?, &Summary::of(&treatment)?)?;
            compared(&comparison, confidence)?
        }
        Question::Proportion {
            control,
            treatment,
            confidence,
        } => {
            let mut found = compared(&proportion::compare(control, treatment)?, confidence)?;
            found["wilson"] = json!(proportion::wilson(treatment, confidence)?);
            found
        }
        Question::Ratio {
            control,
            treatment,
            confidence,
        } => {
            let arm = |rows: &Table| Ok::<_, MethodError>(moments(rows)?.pair(0, 1));
            compared(
                &ratio::compare(&arm(&control)?, &arm(&treatment)?)?,
                confidence,
            )?
        }
        Question::Cuped { control, treatment } => {
            let found = cuped::compare(&moments(&control)?, &moments(&treatment)?)?;
            let effect = found.comparison.normal();
            json!({ "theta": found.theta, "effect": effect, "variance_reduction": found.variance_reduction })
        }
        Question::GroupSequential {
            alpha,
            spending,
            looks,
        } => {
            let test = GroupSequential::planned(alpha, spending, &looks)?;
            json!(test.looks())
        }
        Question::Size { target, shares } => {
            let units = target.units(shares)?;
            json!({ "units": units, "power": target.power_at(&units)?, "detectable": target.minimum_detectable(&units)? })
        }
        Question::Multiplicity { p } => json!({
            "bonferroni": multiplicity::bonferroni(&p),
            "holm": multiplicity::holm(&p),
            "hommel": multiplicity::hommel(&p),
            "fdr_bh": multiplicity::benjamini_hochberg(&p),
        }),
        Question::Segments { effects: rows } => json!(segments::heterogeneity(&effects(&rows)?)?),
        Question::Novelty {
            days,
            effects: rows,
        } => json!(novelty::trend(&days, &effects(&rows)?)?),
        Question::DifferenceInDifferences { outcomes, adoption } => {
            let report = Panel::new(outcomes, &adoption)?.analyse()?;
            let changes = report.unit_changes;
            let mut found = json!(report);
            found["p"] = json!({
                "clustered": report.clustered.p_two_sided(),
                "pooled": changes.map(|c| c.pooled.p_two_sided()),
                "welch": changes.map(|c| c.welch.p_two_sided()),
            });
            found
        }
        Question::Encouragement {
            control,
            encouraged,
            confidence,
        } => {
            let arm = |rows: &Table| Ok::<_, MethodError>(moments(rows)?.pair(0, 1));
            json!(iv::encouragement(
                &arm(&control)?,
                &arm(&encouraged)?,
                confidence
            )?)
        }
        Question::Regression {
            x,
            y,
            errors,
            clusters,
            instruments,
        } => {
            let covariance = match errors.as_str() {
                "hc0" => Covariance::Hc0,
                "hc1" => Covariance::Hc1,
                "hc2" => Covariance::Hc2,
                "hc3" => Covariance::Hc3,
                "clustered" => Covariance::Clustered(&clusters),
                _ => Covariance::Classical,
            };
            let k = x.first().map_or(0, Vec::len);
            let rows = x.concat();
            let regression = Regression { k, x: &rows, y: &y };
            let fit = if instruments.is_empty() {
                regression.fit(covariance)?
            } else {
                regression.fit_with_instruments(&instruments.concat(), covariance)?
            };
            let effects: Result<Vec<Effect>, _> = (0..k).map(|i| fit.effect(i)).collect();
            let p: Vec<f64> = effects.as_ref().map_or_else(
                |_| Vec::new(),
                |e| e.iter().map(Effect::p_two_sided).collect(),
            );
            json!({ "effects": effects?, "p": p })
        }
        Question::OfflineOnline {
            experiments,
            confidence,
        } => {
            json!(offline_online::agreement(&experiments, confidence)?)
        }
        Question::SampleRatio { counts, weights } => json!({
            "fixed": srm::fixed(&counts, &weights)?,
            "sequential": srm::sequential(&counts, &weights)?,
        }),
        Question::Interleaving { sessions, users } => {
            let by_user = interleaving::by_user(&Summary::of(&users)?)?;
            json!({
                "sessions": interleaving::by_session(&sessions)?,
                "users": by_user,
                "p": by_user.p_two_sided(),
            })
        }
        Question::Quantile {
            values,
            nu,
            confidence,
        } => {
            json!(quantile::independent(&values, nu, confidence)?)
        }
        Question::Longitudinal {
            control,
            treatment,
            components,
        } => {
            let arm = |rows: &Table| {
                let mut units = longitudinal::Units::default();
                for row in rows {
                    units.add_measurements(row)?;
                }
                Ok::<_, MethodError>(units)
            };
            let comparison =
                longitudinal::Units::compare(&arm(&control)?, &arm(&treatment)?, &components)?;
            json!({ "effect": comparison.normal(), "information": longitudinal::information(&comparison) })
        }
        Question::OffPolicy { rows, estimator } => {
            json!(off_policy::value(&rows, estimator, 0.95)?)
        }
        Question::Shrinkage { rows } => json!(off_policy::shrinkage(&rows)?),
        Question::ConfidenceSequence {
            effect,
            units,
            tuned_units,
            alpha,
        } => {
            let two = ConfidenceSequence::two_sided(alpha, tuned_units)?;
            let one = ConfidenceSequence::one_sided(alpha, tuned_units)?;
            json!({
                "scale": [two.scale(), one.scale()],
                "multiplier": [two.multiplier(units), one.multiplier(units)],
                "interval": two.interval(&effect, units),
                "evidence": two.evidence(&effect, units),
            })
        }
        Question::Msprt { effect, tau, alpha } => json!({
            "evidence": always_valid::msprt(&effect, tau)?,
            "multiplier": always_valid::msprt_multiplier(effect.se, tau, alpha)?,
        }),
        Question::Slates { slates, estimator } => json!(slate_value(&slates, estimator)?),
        Question::Distributions {
            z,
            t,
            chi_square,
            f,
            p,
        } => json!({
            "z": [special::normal_sf(z), special::normal_upper_quantile(p)],
            "t": [special::t_sf(t[0], t[1]), special::t_upper_quantile(p, t[1])],
            "chi_square": [
                special::chi_square_sf(chi_square[0], chi_square[1]),
                special::chi_square_upper_quantile(p, chi_square[1]),
            ],
            "f": [special::f_sf(f[0], f[1], f[2]), special::f_upper_quantile(p, f[1], f[2])],
        }),
    })
}

fn compared(comparison: &Comparison, confidence: f64) -> Result<Value, MethodError> {
    let (normal, welch) = (comparison.normal(), comparison.welch());
    Ok(json!({
        "normal": normal,
        "p": normal.p_two_sided(),
        "interval": normal.interval(confidence)?,
        "welch": welch,
        "p_welch": welch.p_two_sided(),
        "relative": comparison.relative(confidence).ok(),
    }))
}

fn moments(rows: &Table) -> Result<Moments, MethodError> {
    let mut tally = Tally::new(rows.first().map_or(0, Vec::len));
    for row in rows {
        tally.push(row)?;
    }
    Ok(tally.moments())
}

fn effects(rows: &[[f64; 2]]) -> Result<Vec<Effect>, MethodError> {
    rows.iter()
        .map(|&[delta, se]| Effect::new(delta, se, None))
        .collect()
}
