//! Logs whose truth is known: an honest simulator that writes the same Parquet as the server, for tests
//! of the whole tool, for rehearsing an analysis before launch, and for trying designs.
//!
//! Everything is a pure function of the [`World`] and its seed. Units arrive uniformly over
//! [`World::days`]; each has a propensity that lasts (so a covariate from before helps), visits on some
//! days, and listens when it visits. [`World::faults`] plants what goes wrong in practice.

use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{
    BooleanBuilder, FixedSizeBinaryBuilder, Float32Builder, Float64Builder, ListBuilder,
    StringBuilder, TimestampMicrosecondBuilder, UInt16Builder, UInt32Builder,
};
use arrow_array::{ArrayRef, RecordBatch};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

/// First instant of every simulated experiment: 2026-01-05 00:00 UTC, a Monday.
pub const START_US: i64 = 1_767_571_200_000_000;
const DAY_US: i64 = 86_400_000_000;

/// What is simulated.
#[derive(Debug, Clone)]
pub struct World {
    /// Same seed, same bytes.
    pub seed: u64,
    /// Name of the experiment; epoch 1.
    pub experiment: String,
    /// Names and shares of the arms, the control first. Shares add up to 1.
    pub arms: Vec<(String, f64)>,
    /// Units of all arms.
    pub units: u64,
    /// Days over which they arrive.
    pub days: u32,
    /// Days for which outcomes go on after that.
    pub tail_days: u32,
    /// Mean visits a day of an average unit, at least 0.
    pub visits: f64,
    /// Relative change of minutes listened in the first treatment.
    pub lift: f64,
    /// Extra relative change on the first day, fading by e every two days: novelty.
    pub novelty: f64,
    /// Relative change of latency in the first treatment.
    pub slowdown: f64,
    /// What goes wrong.
    pub faults: Faults,
    /// Rows a file and row group.
    pub rows_per_group: usize,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Faults {
    /// Share of the treatment's units whose exposures are lost on the surface `search`.
    pub lose_treatment: f64,
    /// Bots in the treatment: share of its units that make 2,000 requests on a day.
    pub treatment_bots: f64,
    /// Share of units that are seen in both arms.
    pub switchers: f64,
    /// Weights change half way (the treatment from 10 % to 50 %), while listening halves for everyone.
    pub ramp: bool,
    /// Share of requests that are logged twice.
    pub retries: f64,
}

impl World {
    /// An A/A world of two equal arms.
    #[must_use]
    pub fn new(seed: u64, units: u64) -> Self {
        Self {
            seed,
            experiment: "blend".to_owned(),
            arms: vec![("control".to_owned(), 0.5), ("blend03".to_owned(), 0.5)],
            units,
            days: 14,
            tail_days: 14,
            visits: 0.5,
            lift: 0.0,
            novelty: 0.0,
            slowdown: 0.0,
            faults: Faults::default(),
            rows_per_group: 100_000,
        }
    }

    /// Writes `exposures`, `outcomes` and `covariates` under a folder and says how many rows of each.
    ///
    /// # Errors
    /// A folder or file that cannot be written.
    pub fn write(&self, folder: &Path) -> Result<[u64; 3], ParquetError> {
        let mut tables = Tables::new(folder, self.rows_per_group)?;
        for unit in 0..self.units {
            self.unit(unit, &mut tables)?;
        }
        tables.finish()
    }

    fn unit(&self, number: u64, tables: &mut Tables) -> Result<(), ParquetError> {
        let mut rng = Rng::new(self.seed, number);
        let id = format!("u{:x}-{number}", self.seed);
        let arrival = rng.unit();
        let late = arrival >= 0.5;
        let ramped = self.faults.ramp && !late;
        let shares: Vec<f64> = if ramped {
            vec![0.9, 0.1]
        } else {
            self.arms.iter().map(|arm| arm.1).collect()
        };
        let mut draw = rng.unit();
        let mut arm = shares.len() - 1;
        for (at, share) in shares.iter().enumerate() {
            if draw < *share {
                arm = at;
                break;
            }
            draw -= share;
        }
        #[expect(clippy::cast_possible_truncation, reason = "microseconds of some days")]
        let first_us = START_US + (arrival * f64::from(self.days) * DAY_US as f64) as i64;
        let end_us = START_US + i64::from(self.days + self.tail_days) * DAY_US;
        // Log-normal appetite: what a unit did before predicts what it will do.
        let appetite = (0.6 * rng.normal()).exp();
        let surface = ["home", "search", "radio"][rng.below(3)];
        let lost = arm > 0 && surface == "search" && rng.chance(self.faults.lose_treatment);
        let bot = arm > 0 && rng.chance(self.faults.treatment_bots);
        let switcher = rng.chance(self.faults.switchers);
        tables.covariate(
            &id,
            first_us - DAY_US,
            "minutes_before",
            20.0 * appetite * (0.3 * rng.normal()).exp(),
        )?;
        let season = if self.faults.ramp && late { 0.5 } else { 1.0 };
        let mut request = 0_u64;
        let mut day = 0_i64;
        loop {
            let mut at = first_us + day * DAY_US;
            if at >= end_us {
                break;
            }
            let visits = if day == 0 {
                1 + rng.poisson(self.visits * appetite)
            } else {
                rng.poisson(self.visits * appetite)
            };
            let visits = if bot && day == 0 { 2_000 } else { visits };
            #[expect(clippy::cast_precision_loss, reason = "a number of days")]
            let fading = self.novelty * (-(day as f64) / 2.0).exp();
            let effect = if arm == 1 {
                1.0 + self.lift + fading
            } else {
                1.0
            };
            for visit in 0..visits {
                // The first visit is the first exposure; others come later that day.
                if visit > 0 || day > 0 {
                    #[expect(clippy::cast_possible_truncation, reason = "within a day")]
                    let later = (rng.unit() * 0.9 * DAY_US as f64) as i64;
                    at = first_us + day * DAY_US + later;
                }
                if at >= end_us {
                    continue;
                }
                request += 1;
                let latency = 2_000.0
                    * (0.5 * rng.normal()).exp()
                    * if arm == 1 { 1.0 + self.slowdown } else { 1.0 };
                let shown = if switcher && request.is_multiple_of(2) {
                    self.arms.len() - 1 - arm
                } else {
                    arm
                };
                let exposure = Exposure {
                    id: (number, request),
                    ts: at,
                    unit: &id,
                    surface,
                    experiment: &self.experiment,
                    variant: &self.arms[shown].0,
                    weights: &shares,
                    prob: shares[shown],
                    latency_us: latency,
                    empty: rng.chance(0.002),
                };
                if !lost {
                    tables.exposure(&exposure)?;
                    if rng.chance(self.faults.retries) {
                        tables.exposure(&Exposure {
                            ts: at + 1_000,
                            ..exposure
                        })?;
                    }
                }
                let minutes = 6.0 * season * effect * appetite * (0.8 * rng.normal()).exp();
                let after = at + 60_000_000;
                tables.outcome(&id, after, "listen_minutes", minutes)?;
                if rng.chance(0.3) {
                    tables.outcome(&id, after, "save", 1.0)?;
                }
                tables.outcome(
                    &id,
                    after,
                    "play",
                    1.0 + f64::from(u32::try_from(rng.below(6)).unwrap_or(0)),
                )?;
            }
            day += 1;
        }
        Ok(())
    }
}

/// The plan that fits a [`World`], with a design of the given TOML inline table.
#[must_use]
pub fn plan_toml(world: &World, design: &str) -> String {
    use std::fmt::Write as _;
    let name = &world.experiment;
    let mut text = format!(
        "[experiment.{name}]\nkind = \"ab\"\nlayer = \"ranking\"\nepoch = 1\nowner = \"team-home\"\n\
         question = \"Does blending in content lengthen listening?\"\n\
         decision = \"Ship the blend on all surfaces, or keep the control\"\n\
         allocation_bp = 10000\nsegments = [\"surface\"]\ndesign = {design}\n"
    );
    for (arm, share) in &world.arms {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "[[experiment.{name}.arm]]\nname = \"{arm}\"\nweight = {share}\n"
        );
    }
    text.push_str(&METRICS.replace("NAME", name));
    text
}

const METRICS: &str = r#"
[[experiment.NAME.metric]]
name = "minutes_week1"
event = "listen_minutes"
role = "success"
window = "closed(0d,7d)"
missing = "zero"
mde_rel = 0.05
covariate = "minutes_before"
[[experiment.NAME.metric]]
name = "saved"
event = "save"
type = "proportion"
role = "guardrail"
window = "closed(0d,7d)"
margin_rel = 0.1
[[experiment.NAME.metric]]
name = "minutes_per_play"
event = "listen_minutes"
denominator = "play"
type = "ratio"
role = "scan"
window = "closed(0d,7d)"
[[experiment.NAME.metric]]
name = "latency_p95"
source = "exposure.latency_us"
type = "quantile(0.95)"
direction = "down"
role = "guardrail"
window = "closed(0d,1d)"
margin_rel = 0.1
"#;

#[derive(Clone, Copy)]
struct Exposure<'a> {
    id: (u64, u64),
    ts: i64,
    unit: &'a str,
    surface: &'a str,
    experiment: &'a str,
    variant: &'a str,
    weights: &'a [f64],
    prob: f64,
    latency_us: f64,
    empty: bool,
}

/// The three tables, written a row group at a time.
struct Tables {
    exposures: Table<Exposures>,
    outcomes: Table<Outcomes>,
    covariates: Table<Covariates>,
}

impl Tables {
    fn new(folder: &Path, rows: usize) -> Result<Self, ParquetError> {
        let table = |name: &str| {
            let folder = folder.join(name);
            fs_err::create_dir_all(&folder)?;
            Ok::<_, ParquetError>(folder.join("simulated-0.parquet"))
        };
        Ok(Self {
            exposures: Table::new(table("exposures")?, rows),
            outcomes: Table::new(table("outcomes")?, rows),
            covariates: Table::new(table("covariates")?, rows),
        })
    }

    fn exposure(&mut self, exposure: &Exposure<'_>) -> Result<(), ParquetError> {
        self.exposures.columns.push(exposure)?;
        self.exposures.row()
    }

    fn outcome(
        &mut self,
        unit: &str,
        ts: i64,
        event: &str,
        value: f64,
    ) -> Result<(), ParquetError> {
        let columns = &mut self.outcomes.columns;
        columns.ts.append_value(ts);
        columns.unit.append_value(unit);
        columns.event.append_value(event);
        columns.value.append_value(value);
        self.outcomes.row()
    }

    fn covariate(
        &mut self,
        unit: &str,
        as_of: i64,
        name: &str,
        value: f64,
    ) -> Result<(), ParquetError> {
        let columns = &mut self.covariates.columns;
        columns.unit.append_value(unit);
        columns.as_of.append_value(as_of);
        columns.name.append_value(name);
        columns.value.append_value(value);
        self.covariates.row()
    }

    fn finish(self) -> Result<[u64; 3], ParquetError> {
        Ok([
            self.exposures.finish()?,
            self.outcomes.finish()?,
            self.covariates.finish()?,
        ])
    }
}

trait Columns: Default {
    fn batch(&mut self) -> Result<RecordBatch, ParquetError>;
}

struct Table<C> {
    columns: C,
    pending: usize,
    rows: u64,
    rows_per_group: usize,
    path: std::path::PathBuf,
    writer: Option<ArrowWriter<std::fs::File>>,
}

impl<C: Columns> Table<C> {
    fn new(path: std::path::PathBuf, rows_per_group: usize) -> Self {
        Self {
            columns: C::default(),
            pending: 0,
            rows: 0,
            rows_per_group: rows_per_group.max(1),
            path,
            writer: None,
        }
    }

    fn row(&mut self) -> Result<(), ParquetError> {
        self.pending += 1;
        self.rows += 1;
        if self.pending >= self.rows_per_group {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> Result<(), ParquetError> {
        let batch = self.columns.batch()?;
        self.pending = 0;
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => {
                let file = fs_err::File::create(&self.path)?.into_parts().0;
                let properties = WriterProperties::builder()
                    .set_compression(Compression::SNAPPY)
                    .build();
                none.insert(ArrowWriter::try_new(
                    file,
                    batch.schema(),
                    Some(properties),
                )?)
            }
        };
        writer.write(&batch)?;
        writer.flush()
    }

    fn finish(mut self) -> Result<u64, ParquetError> {
        if self.pending > 0 || self.writer.is_none() {
            self.flush()?;
        }
        if let Some(writer) = self.writer {
            writer.close()?;
        }
        Ok(self.rows)
    }
}

struct Exposures {
    id: FixedSizeBinaryBuilder,
    ts: TimestampMicrosecondBuilder,
    unit: StringBuilder,
    surface: StringBuilder,
    experiment: StringBuilder,
    epoch: UInt32Builder,
    variant: StringBuilder,
    served: StringBuilder,
    reason: StringBuilder,
    weights: ListBuilder<Float32Builder>,
    prob: Float64Builder,
    index: StringBuilder,
    latency: UInt32Builder,
    degraded: UInt16Builder,
    empty: BooleanBuilder,
    forced: BooleanBuilder,
    bot: BooleanBuilder,
}

impl Default for Exposures {
    fn default() -> Self {
        Self {
            id: FixedSizeBinaryBuilder::new(16),
            ts: TimestampMicrosecondBuilder::new().with_timezone("UTC"),
            unit: StringBuilder::new(),
            surface: StringBuilder::new(),
            experiment: StringBuilder::new(),
            epoch: UInt32Builder::new(),
            variant: StringBuilder::new(),
            served: StringBuilder::new(),
            reason: StringBuilder::new(),
            weights: ListBuilder::new(Float32Builder::new()),
            prob: Float64Builder::new(),
            index: StringBuilder::new(),
            latency: UInt32Builder::new(),
            degraded: UInt16Builder::new(),
            empty: BooleanBuilder::new(),
            forced: BooleanBuilder::new(),
            bot: BooleanBuilder::new(),
        }
    }
}

impl Exposures {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "weights, and a latency in range"
    )]
    fn push(&mut self, exposure: &Exposure<'_>) -> Result<(), ParquetError> {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&exposure.id.0.to_le_bytes());
        id[8..].copy_from_slice(&exposure.id.1.to_le_bytes());
        self.id.append_value(id)?;
        self.ts.append_value(exposure.ts);
        self.unit.append_value(exposure.unit);
        self.surface.append_value(exposure.surface);
        self.experiment.append_value(exposure.experiment);
        self.epoch.append_value(1);
        self.variant.append_value(exposure.variant);
        self.served.append_value(exposure.variant);
        self.reason.append_value("SPLIT");
        for weight in exposure.weights {
            self.weights.values().append_value(*weight as f32);
        }
        self.weights.append(true);
        self.prob.append_value(exposure.prob);
        self.index.append_value("v12");
        self.latency
            .append_value(exposure.latency_us.clamp(1.0, 4e9) as u32);
        self.degraded.append_value(0);
        self.empty.append_value(exposure.empty);
        self.forced.append_value(false);
        self.bot.append_value(false);
        Ok(())
    }
}

impl Columns for Exposures {
    fn batch(&mut self) -> Result<RecordBatch, ParquetError> {
        batch([
            ("exposure_id", Arc::new(self.id.finish())),
            ("ts", Arc::new(self.ts.finish())),
            ("unit_id", Arc::new(self.unit.finish())),
            ("surface", Arc::new(self.surface.finish())),
            ("experiment", Arc::new(self.experiment.finish())),
            ("exp_epoch", Arc::new(self.epoch.finish())),
            ("variant", Arc::new(self.variant.finish())),
            ("served_variant", Arc::new(self.served.finish())),
            ("reason", Arc::new(self.reason.finish())),
            ("weights", Arc::new(self.weights.finish())),
            ("assign_prob", Arc::new(self.prob.finish())),
            ("index_version", Arc::new(self.index.finish())),
            ("latency_us", Arc::new(self.latency.finish())),
            ("degraded", Arc::new(self.degraded.finish())),
            ("empty", Arc::new(self.empty.finish())),
            ("forced", Arc::new(self.forced.finish())),
            ("bot_flag", Arc::new(self.bot.finish())),
        ])
    }
}

struct Outcomes {
    ts: TimestampMicrosecondBuilder,
    unit: StringBuilder,
    event: StringBuilder,
    value: Float64Builder,
}

impl Default for Outcomes {
    fn default() -> Self {
        Self {
            ts: TimestampMicrosecondBuilder::new().with_timezone("UTC"),
            unit: StringBuilder::new(),
            event: StringBuilder::new(),
            value: Float64Builder::new(),
        }
    }
}

impl Columns for Outcomes {
    fn batch(&mut self) -> Result<RecordBatch, ParquetError> {
        batch([
            ("ts", Arc::new(self.ts.finish())),
            ("unit_id", Arc::new(self.unit.finish())),
            ("event", Arc::new(self.event.finish())),
            ("value", Arc::new(self.value.finish())),
        ])
    }
}

struct Covariates {
    unit: StringBuilder,
    as_of: TimestampMicrosecondBuilder,
    name: StringBuilder,
    value: Float64Builder,
}

impl Default for Covariates {
    fn default() -> Self {
        Self {
            unit: StringBuilder::new(),
            as_of: TimestampMicrosecondBuilder::new().with_timezone("UTC"),
            name: StringBuilder::new(),
            value: Float64Builder::new(),
        }
    }
}

impl Columns for Covariates {
    fn batch(&mut self) -> Result<RecordBatch, ParquetError> {
        batch([
            ("unit_id", Arc::new(self.unit.finish())),
            ("as_of", Arc::new(self.as_of.finish())),
            ("name", Arc::new(self.name.finish())),
            ("value", Arc::new(self.value.finish())),
        ])
    }
}

fn batch<const N: usize>(columns: [(&str, ArrayRef); N]) -> Result<RecordBatch, ParquetError> {
    Ok(RecordBatch::try_from_iter(columns)?)
}

/// splitmix64: one stream a unit.
struct Rng(u64);

impl Rng {
    fn new(seed: u64, stream: u64) -> Self {
        let mut rng = Self(seed ^ stream.wrapping_mul(0xd1b5_4a32_d192_ed03));
        rng.0 = rng.next();
        rng
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn chance(&mut self, p: f64) -> bool {
        p > 0.0 && self.unit() < p
    }

    #[expect(clippy::cast_possible_truncation, reason = "less than the bound")]
    fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    /// Box and Muller.
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Knuth's product of uniforms, for small means.
    fn poisson(&mut self, mean: f64) -> u64 {
        let limit = (-mean.min(30.0)).exp();
        let mut product = self.unit();
        let mut count = 0;
        while product > limit {
            product *= self.unit();
            count += 1;
        }
        count
    }
}
