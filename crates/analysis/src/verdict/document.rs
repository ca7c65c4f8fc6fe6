//! The result: one document, of which the report is a view.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Input, LookMetric};
use crate::methods::effect::{ConfidenceSet, Interval};
use crate::methods::off_policy::Diagnostics;
use crate::plan::{Kind, Plan};
use crate::units::fold::Leftovers;

/// Version of this document's shape.
pub const SCHEMA: &str = "refrain.analysis/1";

/// An experiment, looked at once.
#[derive(Debug, Clone, Serialize)]
pub struct Analysis {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Version of the program.
    pub version: &'static str,
    /// The plan as declared.
    pub plan: Plan,
    /// What the log says about it.
    pub observed: Observed,
    /// What to do, and why.
    pub verdict: Verdict,
    /// Whether the data can be trusted.
    pub quality: Vec<Check>,
    /// Each metric. Comparisons are absent where the verdict hides them.
    pub metrics: Vec<MetricResult>,
    /// Which arm's items listeners chose, where both draft one list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interleaving: Option<InterleavingResult>,
    /// What other policies would have earned, where that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub off_policy: Option<OffPolicyResult>,
    /// What was shown, where the log has the lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lists: Option<ListsResult>,
    /// What the age of an index does, where arms served builds of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub staleness: Option<StalenessResult>,
    /// How requests went, by arm.
    pub operation: Vec<OperationResult>,
    /// All looks so far, this one last.
    pub looks: Vec<LookResult>,
    /// What was read and what was left out, each with its policy.
    pub data: Data,
    /// What whoever finds this later must know of it.
    pub vitals: Vitals,
}

/// Vital signs of a report.
#[derive(Debug, Clone, Serialize)]
pub struct Vitals {
    /// `low`: something that every report must have is missing, or the data are older than twice the
    /// cadence; `golden`: nothing is missing; else `high`.
    pub label: &'static str,
    /// One by one.
    pub signs: Vec<Vital>,
}

/// A vital sign.
#[derive(Debug, Clone, Serialize)]
pub struct Vital {
    /// `owner`, `description`, `refresh`, `access`.
    pub sign: &'static str,
    /// What is known.
    pub value: String,
    /// Whether it is as it should be.
    pub fine: bool,
}

/// Arms that serve builds of different age.
#[derive(Debug, Clone, Serialize)]
pub struct StalenessResult {
    /// Arms whose builds have a known time.
    pub arms: Vec<AgedArm>,
    /// What the age does to each metric that is compared.
    pub metrics: Vec<AgedMetric>,
}

/// An arm by the age of its index.
#[derive(Debug, Clone, Serialize)]
pub struct AgedArm {
    /// The arm.
    pub arm: String,
    /// When its index was built; from the first to the last, if there were several.
    pub built: String,
    /// Age of the build that a unit met first, on average.
    pub age_days: f64,
}

/// A metric by age.
#[derive(Debug, Clone, Serialize)]
pub struct AgedMetric {
    /// The metric.
    pub metric: String,
    /// Each treatment against the control.
    pub effects: Vec<AgedEffect>,
    /// Change of the metric for each day of age, by a line through all arms.
    pub per_day: Option<Slope>,
}

/// The effect of an arm that is older, or younger, than the control.
#[derive(Debug, Clone, Serialize)]
pub struct AgedEffect {
    /// The treatment.
    pub arm: String,
    /// Days that its index is older than the control's.
    pub older_days: f64,
    /// Treatment minus control.
    pub delta: f64,
    /// Its standard error.
    pub se: f64,
    /// 95 % interval.
    pub interval: Interval,
}

/// How fast something changes.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Slope {
    /// Change a day.
    pub delta: f64,
    /// Its standard error.
    pub se: f64,
    /// 95 % interval.
    pub interval: Interval,
}

/// What was actually running.
#[derive(Debug, Clone, Serialize)]
pub struct Observed {
    /// First and last first-exposure, and the instant up to which data was read; UTC.
    pub first_exposure: Option<String>,
    /// The last unit's first exposure.
    pub last_exposure: Option<String>,
    /// Data ends here.
    pub cutoff: String,
    /// The same in microseconds since 1970.
    pub cutoff_us: i64,
    /// Configurations that were in force.
    pub config_digests: Vec<String>,
    /// Index versions that served.
    pub index_versions: Vec<String>,
    /// Model versions that served.
    pub model_versions: Vec<String>,
    /// What each arm was served, by the exposures.
    pub arms: Vec<ServedArm>,
    /// Units by arm.
    pub units: Vec<u64>,
    /// Units by arm and day of first exposure.
    pub units_by_day: Vec<DayUnits>,
    /// Different weights that were in force, if more than one.
    pub periods: Vec<Period>,
}

/// What an arm was served.
#[derive(Debug, Clone, Serialize)]
pub struct ServedArm {
    /// The arm.
    pub arm: String,
    /// Ranking variants, with the parameters that they were derived with (`balanced|alpha=0.3`).
    pub ranking_variants: Vec<String>,
    /// Index versions.
    pub index_versions: Vec<String>,
}

/// Units that came on a day.
#[derive(Debug, Clone, Serialize)]
pub struct DayUnits {
    /// UTC date.
    pub day: String,
    /// By arm.
    pub units: Vec<u64>,
}

/// A stretch with its own weights.
#[derive(Debug, Clone, Serialize)]
pub struct Period {
    /// Share of each arm.
    pub shares: Vec<f64>,
    /// Units by arm.
    pub units: Vec<u64>,
}

/// What the tool recommends. The owner decides.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// One of INVALID, STOP_HARM, SHIP, ADVANCE, KEEP_RUNNING, NO_SHIP.
    pub recommendation: &'static str,
    /// In one sentence.
    pub headline: String,
    /// Why: one sentence each.
    pub reasons: Vec<String>,
    /// What it rests on.
    pub assumptions: Vec<String>,
    /// What to do next.
    pub next: Vec<String>,
    /// By treatment arm.
    pub arms: Vec<ArmVerdict>,
    /// Why effects are not shown, if they are not.
    pub effects_hidden: Option<String>,
    /// Least information fraction of the metrics that decide, if the design has an end.
    pub information: Option<f64>,
}

/// What holds for one treatment.
#[derive(Debug, Clone, Serialize)]
pub struct ArmVerdict {
    /// The arm.
    pub arm: String,
    /// As in [`Verdict::recommendation`].
    pub recommendation: &'static str,
    /// Success metrics with evidence of improvement.
    pub improved: Vec<String>,
    /// Guardrails within their margin.
    pub within_margin: Vec<String>,
    /// Guardrails not shown to be within their margin.
    pub not_within_margin: Vec<String>,
    /// Metrics with evidence of harm.
    pub harmed: Vec<String>,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Nothing found.
    Pass,
    /// Worth knowing; effects are shown.
    Warn,
    /// No effect may be read.
    Fail,
    /// Could not be asked.
    Skipped,
}

/// A quality check.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// Stable name: `srm`, `bots`, …
    pub id: String,
    /// For people.
    pub name: String,
    /// How it ended.
    pub status: Status,
    /// What was found, in a sentence.
    pub finding: String,
    /// P-value, where there is one.
    pub p: Option<f64>,
    /// Level at which it fails.
    pub threshold: Option<f64>,
    /// Where to look for the cause.
    pub hints: Vec<String>,
}

/// A metric over all arms.
#[derive(Debug, Clone, Serialize)]
pub struct MetricResult {
    /// As declared.
    pub name: String,
    /// `success`, `guardrail`, `scan`.
    pub role: &'static str,
    /// `mean`, `ratio`, …
    pub kind: String,
    /// `up` or `down`.
    pub direction: &'static str,
    /// Which outcomes count.
    pub window: String,
    /// By arm; the control first.
    pub arms: Vec<ArmValue>,
    /// Treatments against control; none where effects are hidden or cannot be computed.
    pub comparisons: Vec<MetricComparison>,
    /// Whom to give which arm, by each segment column, valued on units that did not choose.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<PolicyResult>,
    /// Not judged: what an open window or a missing value keeps from being judged.
    pub descriptive: bool,
    /// What there is to say beside the numbers.
    pub notes: Vec<String>,
}

impl MetricResult {
    /// Units that count, of all arms. Both arms of an interleaved list have the same.
    #[must_use]
    pub fn units(&self, kind: Kind) -> u64 {
        let arms = match kind {
            Kind::Interleave => 1,
            _ => self.arms.len(),
        };
        self.arms.iter().take(arms).map(|arm| arm.units).sum()
    }
}

/// A metric in one arm.
#[derive(Debug, Clone, Serialize)]
pub struct ArmValue {
    /// The arm.
    pub arm: String,
    /// Units whose window is over and that have a value.
    pub units: u64,
    /// Units too young.
    pub immature: u64,
    /// Units without a value, left out.
    pub missing: u64,
    /// The estimate; absent where effects are hidden.
    pub value: Option<f64>,
    /// Its standard error.
    pub se: Option<f64>,
}

/// A treatment against the control.
#[derive(Debug, Clone, Serialize)]
pub struct MetricComparison {
    /// The treatment.
    pub arm: String,
    /// `improvement`, `within_margin`, `harm`, `not_within_margin`, `no_evidence`, `descriptive`.
    pub outcome: &'static str,
    /// The same in the report's fixed words.
    pub words: &'static str,
    /// Treatment minus control.
    pub delta: f64,
    /// Its standard error.
    pub se: f64,
    /// Interval at the level of the metric's own test at this look.
    pub interval: Interval,
    /// Confidence of the interval as if it were two-sided.
    pub confidence: f64,
    /// Relative lift.
    pub relative: Option<RelativeResult>,
    /// Standard errors from zero, positive is good.
    pub z: f64,
    /// Standard errors that the metric's own test asks for.
    pub bound: Option<f64>,
    /// One-sided p of its own test, as if at a single look.
    pub p: f64,
    /// Of an always-valid design: the smallest p so far that is valid at all looks together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p_all_looks: Option<f64>,
    /// Test used.
    pub test: String,
    /// Margin in the metric's unit.
    pub margin: Option<f64>,
    /// Smallest effect that matters, in the metric's unit.
    pub mde: Option<f64>,
    /// Information fraction.
    pub information: Option<f64>,
    /// Chance to see an effect of the size that matters, with this many units and this bound.
    pub achieved_power: Option<f64>,
    /// Effect that would be seen with the planned power.
    pub detectable: Option<f64>,
    /// What the covariate saved.
    pub covariate: Option<CovariateResult>,
    /// Without the covariate and strata.
    pub unadjusted: Option<f64>,
    /// Larger than believable: look for a defect first.
    pub twyman: bool,
    /// What to mind before believing it, a sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cautions: Vec<String>,
    /// Median-unbiased estimate after an early stop.
    pub median_unbiased: Option<f64>,
    /// 95 % interval after an early stop, by the stagewise ordering.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stagewise: Option<Interval>,
    /// The effect on those who took up what their arm offers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uptake: Option<UptakeResult>,
    /// Effects in the declared segments.
    pub segments: Vec<SegmentResult>,
    /// Cumulative effect by day, with an always-valid band.
    pub by_day: Vec<DayEffect>,
    /// Effect by days since first exposure, if units are old enough.
    pub by_age: Option<Novelty>,
}

impl MetricComparison {
    /// Standard errors that its own test counts: for a guardrail from its margin, else from zero.
    #[must_use]
    pub fn z_tested(&self, role: &str) -> f64 {
        match self.margin {
            Some(margin) if role == "guardrail" => self.z + margin / self.se,
            _ => self.z,
        }
    }
}

/// A relative lift.
#[derive(Debug, Clone, Serialize)]
pub struct RelativeResult {
    /// `treatment / control - 1`.
    pub lift: f64,
    /// At the same level as the absolute interval.
    pub interval: Option<Interval>,
    /// `delta method` or `Fieller`.
    pub method: &'static str,
    /// By the delta method.
    pub delta_method: Interval,
    /// By Fieller's theorem: right also where the control is close to zero, and then sometimes unbounded.
    pub fieller: ConfidenceSet,
}

/// What a covariate did.
#[derive(Debug, Clone, Serialize)]
pub struct CovariateResult {
    /// Its name.
    pub name: String,
    /// Share of the variance it explained.
    pub variance_reduction: f64,
    /// Whether it was used.
    pub used: bool,
    /// Why it was not, where it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The effect of taking something up, where assignment only offers it (instrumental variables).
#[derive(Debug, Clone, Serialize)]
pub struct UptakeResult {
    /// What is taken up.
    pub of: String,
    /// Mean uptake in the control.
    pub control: f64,
    /// Mean uptake in the treatment.
    pub treatment: f64,
    /// Effect of being assigned, without covariate: what [`UptakeResult::late`] divides.
    pub intention_to_treat: f64,
    /// Effect on those whom the assignment moved (Wald).
    pub late: f64,
    /// Its robust standard error.
    pub late_se: f64,
    /// F of the first stage.
    pub first_stage_f: f64,
    /// The assignment moved too few for the estimate to be trusted.
    pub weak: bool,
    /// Anderson-Rubin set at 95 %: right however few were moved, hence sometimes unbounded.
    pub anderson_rubin: ConfidenceSet,
}

/// Lists that two arms draft.
#[derive(Debug, Clone, Serialize)]
pub struct InterleavingResult {
    /// The two arms; the first is the control.
    pub arms: [String; 2],
    /// Lists whose first item of one arm alone was of each.
    pub first_picks: [u64; 2],
    /// By metric.
    pub metrics: Vec<SessionsResult>,
}

/// Which arm won the answers of an interleaved experiment, by one metric. For display: answers of one
/// listener are not independent, and the comparison of the metric counts listeners.
#[derive(Debug, Clone, Serialize)]
pub struct SessionsResult {
    /// The metric.
    pub metric: String,
    /// Answers in the metric's window.
    pub sessions: u64,
    /// Won by each arm; absent where effects are hidden.
    pub won: Option<[u64; 2]>,
    /// Won by neither.
    pub ties: Option<u64>,
    /// `(wins of the second + ties / 2) / n − 1/2`.
    pub delta: Option<f64>,
    /// Exact sign test of the answers that are no ties.
    pub sign_test_p: Option<f64>,
}

/// What other policies would have earned from the logged, truly randomised answers.
#[derive(Debug, Clone, Serialize)]
pub struct OffPolicyResult {
    /// Where the target policy's probabilities come from.
    pub target: String,
    /// Answers of the experiment that the target names.
    pub slates: u64,
    /// Of them, drawn with known probabilities: only these count.
    pub sampled: u64,
    /// By metric.
    pub metrics: Vec<OffPolicyMetric>,
}

/// The value of the target policy by one metric.
#[derive(Debug, Clone, Serialize)]
pub struct OffPolicyMetric {
    /// The metric.
    pub metric: String,
    /// Mean reward of the sampled answers as they were.
    pub logged: Option<f64>,
    /// The log's fitness for the question.
    pub diagnostics: Option<Diagnostics>,
    /// Estimates.
    pub values: Vec<OffPolicyValue>,
    /// Why there is none, if there is none.
    pub refused: Option<String>,
}

/// One estimate of the target policy's mean reward.
#[derive(Debug, Clone, Serialize)]
pub struct OffPolicyValue {
    /// `IPS`, `clipped IPS`, `SNIPS`, `DM`, `DR`, `shrunk DR`, `SNDR`, `switch DR`, `cascade`,
    /// `item-position`.
    pub estimator: &'static str,
    /// Mean reward an answer.
    pub value: f64,
    /// Its standard error, answers taken as independent.
    pub se: f64,
    /// 95 % interval, by resampling listeners.
    pub interval: Interval,
}

/// What was shown.
#[derive(Debug, Clone, Serialize)]
pub struct ListsResult {
    /// Lists looked at, by arm.
    pub lists: Vec<u64>,
    /// Whether these are a sample of the log.
    pub sampled: bool,
    /// By arm.
    pub arms: Vec<ShownResult>,
    /// Treatments against the control.
    pub comparisons: Vec<ListComparison>,
    /// Comparisons that were made in the dark, on the same request.
    pub shadows: Vec<ShadowResult>,
}

/// The items of one arm.
#[derive(Debug, Clone, Serialize)]
pub struct ShownResult {
    /// The arm.
    pub arm: String,
    /// Distinct items.
    pub items: u64,
    /// Items that the arm shows, of all that any arm does.
    pub coverage: f64,
    /// How unequally its places are spread over all those items, 0 to 1.
    pub gini: f64,
    /// Mean length of a list.
    pub length: f64,
}

/// The lists of a treatment against those of the control.
#[derive(Debug, Clone, Serialize)]
pub struct ListComparison {
    /// The treatment.
    pub arm: String,
    /// Seeds that were asked in both arms.
    pub seeds: u64,
    /// Over these seeds: mean share of the control's items that the treatment shows, too.
    pub overlap: Option<f64>,
    /// Over these seeds: mean rank-biased overlap, persistence 0.9.
    pub rank_biased_overlap: Option<f64>,
    /// Items whose share of places grew most.
    pub added: Vec<ItemShare>,
    /// Items whose share of places fell most.
    pub removed: Vec<ItemShare>,
    /// Seeds with both lists, chosen by their hash.
    pub examples: Vec<SeedExample>,
}

/// An item's share of all places.
#[derive(Debug, Clone, Serialize)]
pub struct ItemShare {
    /// The item.
    pub item: String,
    /// In the control.
    pub control: f64,
    /// In the treatment.
    pub treatment: f64,
}

/// What two arms showed for the same seeds.
#[derive(Debug, Clone, Serialize)]
pub struct SeedExample {
    /// Hash of the seeds, as the log has it.
    pub seed: String,
    /// Of the control, best first.
    pub control: Vec<String>,
    /// Of the treatment.
    pub treatment: Vec<String>,
}

/// Lists that were computed in the dark beside served ones.
#[derive(Debug, Clone, Serialize)]
pub struct ShadowResult {
    /// The arm in the dark.
    pub arm: String,
    /// Comparisons.
    pub lists: u64,
    /// Lists that failed.
    pub errors: u64,
    /// Lists that were not computed, since the server had no time for them.
    pub dropped: u64,
    /// Mean share of the served items that are in the dark list, too.
    pub overlap: f64,
    /// Its standard error, listeners as clusters.
    pub overlap_se: f64,
    /// Mean rank-biased overlap, persistence 0.9.
    pub rank_biased_overlap: f64,
    /// Mean time of the dark answer over that of the served one.
    pub latency_ratio: f64,
}

/// Effects in the values of one segment column.
#[derive(Debug, Clone, Serialize)]
pub struct SegmentResult {
    /// The column.
    pub segment: String,
    /// Declared to confirm something; else it is only explored.
    pub confirmatory: bool,
    /// Cochran's Q; absent with a single value, like all that compares values.
    pub q: Option<f64>,
    /// P-value of "the effect is the same everywhere".
    pub heterogeneity_p: Option<f64>,
    /// Share of the variation that is not chance.
    pub i_squared: Option<f64>,
    /// Variance of the true effects between values.
    pub tau_squared: Option<f64>,
    /// Average weighted by precision.
    pub pooled: Option<f64>,
    /// Its standard error.
    pub pooled_se: Option<f64>,
    /// The effect over everybody points the other way than in every value (Simpson's paradox).
    pub simpson: bool,
    /// Its values.
    pub values: Vec<SegmentValue>,
}

/// The effect in one value of a segment column.
#[derive(Debug, Clone, Serialize)]
pub struct SegmentValue {
    /// The value.
    pub value: String,
    /// Units by arm: control and treatment.
    pub units: [u64; 2],
    /// Treatment minus control.
    pub delta: f64,
    /// Its standard error.
    pub se: f64,
    /// 95 % interval.
    pub interval: Interval,
    /// Two-sided p of "no effect in this value".
    pub p: f64,
    /// Corrected over all values of all columns of its kind, confirmatory or explored: Holm.
    pub p_holm: f64,
    /// The same by Hommel.
    pub p_hommel: f64,
    /// The same by Benjamini and Hochberg: false discovery rate.
    pub p_bh: f64,
    /// Drawn towards the average as far as its noise suggests; what to believe of a value that was only
    /// explored.
    pub shrunk: Option<ShrunkEffect>,
}

impl SegmentValue {
    /// The p-value to read: Holm's where something was to be confirmed, else the false discovery rate.
    #[must_use]
    pub fn corrected(&self, confirmatory: bool) -> f64 {
        if confirmatory { self.p_holm } else { self.p_bh }
    }
}

/// An effect drawn towards the average of all.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ShrunkEffect {
    /// Treatment minus control.
    pub delta: f64,
    /// Its standard error.
    pub se: f64,
    /// 95 % interval.
    pub interval: Interval,
}

/// Whom to give which arm, chosen on one half of the units and valued on the other.
#[derive(Debug, Clone, Serialize)]
pub struct PolicyResult {
    /// The column by which arms are given.
    pub segment: String,
    /// The best arm of each of its values.
    pub choices: Vec<PolicyChoice>,
    /// The arm that is best for everybody together.
    pub best_single_arm: String,
    /// Units that chose, and units that valued the choice.
    pub units: [u64; 2],
    /// The metric if everybody got the arm of their value.
    pub value: f64,
    /// Its standard error.
    pub se: f64,
    /// 95 % interval.
    pub interval: Interval,
    /// The metric if everybody got the best single arm.
    pub single: f64,
    /// Policy less best single arm.
    pub gain: f64,
    /// Its standard error; 0 where the policy is the best single arm.
    pub gain_se: f64,
    /// 95 % interval.
    pub gain_interval: Interval,
    /// What to make of it, in fixed words.
    pub words: &'static str,
}

/// The arm chosen for one value.
#[derive(Debug, Clone, Serialize)]
pub struct PolicyChoice {
    /// The value.
    pub value: String,
    /// Its arm.
    pub arm: String,
    /// Too few units to choose: the best single arm.
    pub fell_back: bool,
}

/// The cumulative effect at the end of a day.
#[derive(Debug, Clone, Serialize)]
pub struct DayEffect {
    /// UTC date.
    pub day: String,
    /// Units so far.
    pub units: u64,
    /// Effect so far.
    pub delta: f64,
    /// Always-valid band: true at all days together.
    pub interval: Interval,
}

/// Does the effect wear off?
#[derive(Debug, Clone, Serialize)]
pub struct Novelty {
    /// Day 1, week 1 and week 2, each per day.
    pub periods: Vec<PeriodEffect>,
    /// Effect on each day since first exposure.
    pub days: Vec<AgeEffect>,
    /// Effect on the first day, by the line through all days.
    pub intercept: Option<f64>,
    /// Effect per unit of ln(1 + day).
    pub slope: Option<f64>,
    /// Its standard error.
    pub slope_se: Option<f64>,
    /// Week 2 minus week 1, paired by unit.
    pub week_two_minus_one: Option<f64>,
    /// Its standard error.
    pub week_two_minus_one_se: Option<f64>,
}

/// The effect in a period of a unit's life.
#[derive(Debug, Clone, Serialize)]
pub struct PeriodEffect {
    /// `day 1`, `week 1`, `week 2`.
    pub period: &'static str,
    /// Units of both arms.
    pub units: u64,
    /// Treatment minus control, a day.
    pub delta: f64,
    /// Its standard error.
    pub se: f64,
}

/// The effect on one day of a unit's life.
#[derive(Debug, Clone, Serialize)]
pub struct AgeEffect {
    /// Days since first exposure.
    pub day: u16,
    /// Treatment minus control.
    pub delta: f64,
    /// Its standard error.
    pub se: f64,
}

/// Requests of an arm. Any of them may be what a metric counts, so they are absent where effects are
/// hidden; only what the arm did not serve is told all the same.
#[derive(Debug, Clone, Serialize)]
pub struct OperationResult {
    /// The arm.
    pub arm: String,
    /// Distinct exposures.
    pub requests: Option<u64>,
    /// Latency quantiles in milliseconds: 50 %, 95 %, 99 %.
    pub latency_ms: Option<[f64; 3]>,
    /// Mean time of an answer in milliseconds: what a request costs.
    pub cost_ms: Option<f64>,
    /// The same as a multiple of the control's.
    pub cost_ratio: Option<f64>,
    /// Share of the arm's requests that failed by the server's fault, as the log's writers counted them; a
    /// request that failed leaves no exposure, so it is not among `requests`.
    pub errors: Option<f64>,
    /// Share of empty answers.
    pub empty: Option<f64>,
    /// Share of degraded answers.
    pub degraded: Option<f64>,
    /// Share in which another arm, or none, was served.
    pub served_other: f64,
}

/// A look, past or present.
#[derive(Debug, Clone, Serialize)]
pub struct LookResult {
    /// Data up to.
    pub cutoff: String,
    /// Units that count for the slowest deciding metric.
    pub units: u64,
    /// By metric and treatment (`METRIC / ARM`).
    pub metrics: BTreeMap<String, LookMetric>,
    /// P-value of the sample ratio at that look, valid over all looks.
    pub srm_p: Option<f64>,
}

/// What was read, and what was left out and why.
#[derive(Debug, Clone, Serialize)]
pub struct Data {
    /// Files and rows.
    pub input: Input,
    /// What no unit used.
    pub leftovers: Leftovers,
    /// Each policy with how often it applied.
    pub policies: Vec<Policy>,
}

/// A rule that was fixed before anybody saw an effect.
#[derive(Debug, Clone, Serialize)]
pub struct Policy {
    /// What it is about.
    pub about: &'static str,
    /// The rule.
    pub rule: String,
    /// How often it applied.
    pub applied: u64,
}
