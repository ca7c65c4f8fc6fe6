//! The statement by which a warehouse makes the table of units, for logs too large for one machine.
//!
//! What it returns is what [`crate::from_units`] reads, and the analysis of that table is to equal
//! the one of the log itself: `tests/analysis/warehouse.py` compares them in DuckDB and Spark, and in DuckDB what
//! a translator makes of the statements for BigQuery and Trino. One thing is left open: where a unit's first
//! exposures share one microsecond, whose segment counts.

use std::fmt::Write as _;

use crate::log::files::ASSIGNED;
use crate::plan::{ExposureValue, HOLDOUT_ARMS, MetricType, Plan, Source, Window};
use crate::units::table::in_table;

/// Whose SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Spark SQL 3.4 and later.
    Spark,
    /// GoogleSQL; lists loaded with list inference.
    BigQuery,
    /// Trino.
    Trino,
    /// DuckDB.
    DuckDb,
}

/// What the statement reads, and as of when.
#[derive(Debug, Clone)]
pub struct Tables {
    /// Table or table function of the exposures, as the warehouse writes it.
    pub exposures: String,
    /// Of the outcomes.
    pub outcomes: String,
    /// Of the covariates; needed where a metric has one.
    pub covariates: String,
    /// Whether outcomes have an `outcome_id` that repeats when an outcome was sent twice.
    pub outcome_ids: bool,
    /// Rows at or after this instant (microseconds since 1970 UTC) are not read.
    pub until_us: Option<i64>,
}

impl Dialect {
    fn text(self, text: &str) -> String {
        let text = text.replace('\'', "''");
        match self {
            Self::Spark | Self::BigQuery => {
                format!("'{}'", text.replace('\\', "\\\\").replace("''", "\\'"))
            }
            Self::Trino | Self::DuckDb => format!("'{text}'"),
        }
    }

    fn name(self, name: &str) -> String {
        match self {
            Self::Spark | Self::BigQuery => format!("`{}`", name.replace('`', "")),
            Self::Trino | Self::DuckDb => format!("\"{}\"", name.replace('"', "\"\"")),
        }
    }

    /// Microseconds since 1970, UTC.
    fn micros(self, column: &str) -> String {
        match self {
            Self::Spark => format!("unix_micros({column})"),
            Self::BigQuery => format!("UNIX_MICROS({column})"),
            Self::Trino => format!("CAST(round(to_unixtime({column}) * 1000000) AS BIGINT)"),
            Self::DuckDb => format!("epoch_us({column})"),
        }
    }

    /// The weights in one text, apart by spaces.
    fn weights(self) -> &'static str {
        match self {
            Self::Spark => "concat_ws(' ', transform(weights, w -> CAST(w AS STRING)))",
            Self::BigQuery => {
                "ARRAY_TO_STRING(ARRAY(SELECT CAST(w AS STRING) FROM UNNEST(weights) AS w WITH OFFSET AS o ORDER BY o), ' ')"
            }
            Self::Trino => "array_join(weights, ' ')",
            Self::DuckDb => "array_to_string(weights, ' ')",
        }
    }

    fn instant(self, us: i64) -> String {
        let text = crate::verdict::words::instant(us);
        let (date, time) = (
            text.get(..10).unwrap_or_default(),
            text.get(11..19).unwrap_or_default(),
        );
        let micros = us.rem_euclid(1_000_000);
        match self {
            Self::Spark => format!("TIMESTAMP '{date} {time}.{micros:06}+00:00'"),
            Self::BigQuery => format!("TIMESTAMP '{date} {time}.{micros:06}+00'"),
            Self::Trino => format!("TIMESTAMP '{date} {time}.{micros:06} UTC'"),
            Self::DuckDb => format!("TIMESTAMPTZ '{date} {time}.{micros:06}+00'"),
        }
    }

    fn double(self) -> &'static str {
        match self {
            Self::BigQuery => "FLOAT64",
            _ => "DOUBLE",
        }
    }
}

/// The statement for a plan.
#[must_use]
pub fn units(plan: &Plan, dialect: Dialect, tables: &Tables) -> String {
    let d = dialect;
    let until = tables.until_us;
    let before = |column: &str| {
        until.map_or(String::new(), |us| {
            format!(" AND {} < {us}", d.micros(column))
        })
    };
    let segments: Vec<String> = plan.segments.iter().map(|name| d.name(name)).collect();
    let columns = |prefix: &str| {
        let mut text = String::new();
        for at in 0..segments.len() {
            let _ = write!(text, ", {prefix}segment_{at}");
        }
        text
    };
    let mut sql = String::new();
    let named: String = segments
        .iter()
        .enumerate()
        .fold(String::new(), |mut text, (at, name)| {
            let _ = write!(text, ", {name} AS segment_{at}");
            text
        });
    let population = Population::of(plan, d);
    let _ = write!(
        sql,
        "-- Units of experiment {}, epoch {}: one row a unit. Made by `refrain experiment sql`;\n\
         -- save the result as Parquet and read it with `refrain experiment analyze --units`.\n\
         WITH logged AS (\n  SELECT exposure_id, unit_id, {} AS variant, ts, {} AS ts_us, {} AS weights, index_version{named},\n    \
         latency_us, COALESCE(empty, FALSE) AS empty, COALESCE(degraded, 0) AS degraded, COALESCE(bot_flag, FALSE) AS flagged,\n    \
         ROW_NUMBER() OVER (PARTITION BY unit_id, exposure_id ORDER BY ts) AS copy\n  FROM {}\n  \
         WHERE {} AND NOT COALESCE(forced, FALSE){}\n),\n",
        plan.experiment.replace(['\n', '\r'], " "),
        plan.epoch,
        population.variant,
        d.micros("ts"),
        population.weights,
        tables.exposures,
        population.rows,
        before("ts"),
    );
    let _ = write!(
        sql,
        "exposed AS (\n  SELECT *, ROW_NUMBER() OVER (PARTITION BY unit_id ORDER BY ts_us, exposure_id) AS nth\n  FROM logged WHERE copy = 1\n),\n\
         busiest AS (\n  SELECT unit_id, MAX(n) AS most FROM (\n    SELECT unit_id, CAST(FLOOR(ts_us / 86400000000.0) AS BIGINT) AS utc_day, COUNT(*) AS n\n    \
         FROM exposed GROUP BY unit_id, CAST(FLOOR(ts_us / 86400000000.0) AS BIGINT)\n  ) AS per_day GROUP BY unit_id\n),\n\
         first_seen AS (\n  SELECT unit_id, variant AS arm, ts AS first_ts, ts_us AS first_us, weights, index_version{}\n  FROM exposed WHERE nth = 1\n),\n\
         seen AS (\n  SELECT unit_id, COUNT(DISTINCT variant) AS arms, MAX(CASE WHEN flagged THEN 1 ELSE 0 END) AS flagged\n  FROM exposed GROUP BY unit_id\n),\n",
        columns(""),
    );
    let (events, shown) = sums(plan, d);
    let names: Vec<String> = event_names(plan).iter().map(|name| d.text(name)).collect();
    let names = if names.is_empty() {
        "''".to_owned()
    } else {
        names.join(", ")
    };
    let (copy, once) = if tables.outcome_ids {
        (
            ", ROW_NUMBER() OVER (PARTITION BY unit_id, event, outcome_id ORDER BY ts) AS copy",
            " AND (copy = 1 OR outcome_id IS NULL)",
        )
    } else {
        ("", "")
    };
    let id = if tables.outcome_ids {
        ", outcome_id"
    } else {
        ""
    };
    let _ = write!(
        sql,
        "happened AS (\n  SELECT unit_id, event, value, ts, {} AS ts_us{id}{copy}\n  FROM {} WHERE event IN ({names}){}\n),\n\
         outcome_sums AS (\n  SELECT happened.unit_id{events}\n  FROM happened JOIN first_seen ON happened.unit_id = first_seen.unit_id\n  \
         WHERE happened.ts_us >= first_us{once}\n  GROUP BY happened.unit_id\n),\n\
         exposure_sums AS (\n  SELECT exposed.unit_id, COUNT(*) AS requests{shown}\n  FROM exposed JOIN first_seen ON exposed.unit_id = first_seen.unit_id\n  GROUP BY exposed.unit_id\n)",
        d.micros("ts"),
        tables.outcomes,
        before("ts"),
    );
    let covariates = covariate_names(plan);
    if !covariates.is_empty() {
        let list: Vec<String> = covariates.iter().map(|name| d.text(name)).collect();
        let columns: String =
            covariates
                .iter()
                .enumerate()
                .fold(String::new(), |mut text, (at, name)| {
                    let _ = write!(
                        text,
                        ", MAX(CASE WHEN name = {} THEN value END) AS x_{at}",
                        d.text(name)
                    );
                    text
                });
        let _ = write!(
            sql,
            ",\nknown_before AS (\n  SELECT covariates.unit_id, covariates.name, CAST(covariates.value AS {}) AS value,\n    \
             ROW_NUMBER() OVER (PARTITION BY covariates.unit_id, covariates.name ORDER BY covariates.as_of DESC, covariates.value DESC) AS latest\n  \
             FROM {} AS covariates JOIN first_seen ON covariates.unit_id = first_seen.unit_id\n  \
             WHERE {} < first_us AND covariates.name IN ({})\n),\n\
             covariate_values AS (\n  SELECT unit_id{columns}\n  FROM known_before WHERE latest = 1 GROUP BY unit_id\n)",
            d.double(),
            tables.covariates,
            d.micros("covariates.as_of"),
            list.join(", "),
        );
    }
    let cutoff = match until {
        Some(us) => d.instant(us),
        None => "(SELECT MAX(ts) FROM (SELECT ts FROM logged UNION ALL SELECT ts FROM happened) AS everything)".to_owned(),
    };
    let mut values = String::new();
    for (at, metric) in plan.metrics.iter().enumerate() {
        let of = |source: &Source| match source {
            Source::Event(_) => "outcome_sums",
            Source::Exposure(_) => "exposure_sums",
        };
        if !in_table(metric) {
            continue;
        }
        let _ = write!(values, ",\n  {}.m{at}_y AS m{at}_y", of(&metric.source));
        if let Some(source) = &metric.denominator {
            let _ = write!(values, ", {}.m{at}_d AS m{at}_d", of(source));
        }
        if let Some(name) = &metric.covariate {
            let x = covariates
                .iter()
                .position(|known| *known == name)
                .unwrap_or(0);
            let _ = write!(values, ", covariate_values.x_{x} AS m{at}_x");
        }
    }
    let joined = if covariates.is_empty() {
        ""
    } else {
        "\nLEFT JOIN covariate_values ON first_seen.unit_id = covariate_values.unit_id"
    };
    let _ = write!(
        sql,
        "\nSELECT first_seen.unit_id AS unit_id, first_seen.arm AS arm, first_seen.first_ts AS first_ts,\n  \
         {cutoff} AS cutoff,\n  first_seen.weights AS weights, first_seen.index_version AS index_version{},\n  \
         seen.arms > 1 AS multi_arm,\n  ({}busiest.most > {}) AS bot{values}\n\
         FROM first_seen\nJOIN seen ON first_seen.unit_id = seen.unit_id\nJOIN busiest ON first_seen.unit_id = busiest.unit_id\n\
         LEFT JOIN outcome_sums ON first_seen.unit_id = outcome_sums.unit_id\n\
         LEFT JOIN exposure_sums ON first_seen.unit_id = exposure_sums.unit_id{joined}\n",
        segments
            .iter()
            .enumerate()
            .fold(String::new(), |mut text, (at, _)| {
                let _ = write!(text, ", first_seen.segment_{at} AS segment_{at}");
                text
            }),
        if plan.policy.drop_flagged {
            "seen.flagged = 1 OR "
        } else {
            ""
        },
        plan.policy.max_exposures_per_day,
    );
    sql
}

/// Which exposures are a plan's, of which arm, and by which weights they were dealt out.
struct Population {
    rows: String,
    variant: String,
    weights: String,
}

impl Population {
    fn of(plan: &Plan, d: Dialect) -> Self {
        let Some(holdout) = &plan.holdout else {
            return Self {
                rows: format!(
                    "experiment = {} AND exp_epoch = {} AND reason IN ({})",
                    d.text(&plan.experiment),
                    plan.epoch,
                    ASSIGNED.map(|reason| d.text(reason)).join(", "),
                ),
                variant: "variant".to_owned(),
                weights: d.weights().to_owned(),
            };
        };
        // `NAME|EPOCH|held` or `NAME|EPOCH|slice`, parted by `||`. What has it and what is left without it
        // differ: every dialect knows REPLACE.
        let all = "CONCAT('||', COALESCE(holdouts, ''), '||')";
        let [held, slice] =
            HOLDOUT_ARMS.map(|side| d.text(&format!("||{holdout}|{}|{side}||", plan.epoch)));
        let has = |what: &str| format!("REPLACE({all}, {what}, '||') <> {all}");
        let others = format!(
            "REPLACE(REPLACE({all}, {held}, '||'), '|{0}||', '') <> REPLACE({all}, {held}, '||')",
            HOLDOUT_ARMS[0]
        );
        Self {
            rows: format!("({} OR {}) AND NOT ({others})", has(&held), has(&slice)),
            variant: format!(
                "CASE WHEN {} THEN '{}' ELSE '{}' END",
                has(&held),
                HOLDOUT_ARMS[0],
                HOLDOUT_ARMS[1]
            ),
            weights: "''".to_owned(),
        }
    }
}

fn event_names(plan: &Plan) -> Vec<&String> {
    let mut names: Vec<&String> = plan
        .metrics
        .iter()
        .filter(|metric| in_table(metric))
        .flat_map(|metric| std::iter::once(&metric.source).chain(&metric.denominator))
        .filter_map(|source| match source {
            Source::Event(name) => Some(name),
            Source::Exposure(_) => None,
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

fn covariate_names(plan: &Plan) -> Vec<&String> {
    let mut names: Vec<&String> = plan
        .metrics
        .iter()
        .filter_map(|m| m.covariate.as_ref())
        .collect();
    names.sort();
    names.dedup();
    names
}

/// The sums over outcomes and over exposures, each as further columns.
fn sums(plan: &Plan, d: Dialect) -> (String, String) {
    let (mut events, mut shown) = (String::new(), String::new());
    for (at, metric) in plan.metrics.iter().enumerate() {
        if !in_table(metric) {
            continue;
        }
        let parts = [
            (Some(&metric.source), "y"),
            (metric.denominator.as_ref(), "d"),
        ];
        for (source, suffix) in parts {
            let Some(source) = source else { continue };
            let (table, value, of) = match source {
                Source::Event(name) => (
                    "happened",
                    format!("CAST(value AS {})", d.double()),
                    format!("event = {}", d.text(name)),
                ),
                Source::Exposure(what) => {
                    let (value, of) = match what {
                        ExposureValue::Latency => ("latency_us", "latency_us IS NOT NULL"),
                        ExposureValue::Empty => ("CASE WHEN empty THEN 1 ELSE 0 END", "TRUE"),
                        ExposureValue::Degraded => {
                            ("CASE WHEN degraded <> 0 THEN 1 ELSE 0 END", "TRUE")
                        }
                        ExposureValue::Count => ("1", "TRUE"),
                    };
                    (
                        "exposed",
                        format!("CAST({value} AS {})", d.double()),
                        of.to_owned(),
                    )
                }
            };
            let inside = match metric.window {
                Window::Closed { from_us, to_us } => format!(
                    "{of} AND {table}.ts_us - first_us >= {from_us} AND {table}.ts_us - first_us < {to_us}"
                ),
                Window::Open | Window::Daily { .. } => of,
            };
            let sum = if metric.kind == MetricType::Proportion {
                format!(
                    "MAX(CASE WHEN {inside} THEN CASE WHEN {value} <> 0 THEN CAST(1 AS {0}) ELSE CAST(0 AS {0}) END END)",
                    d.double()
                )
            } else {
                format!("SUM(CASE WHEN {inside} THEN {value} END)")
            };
            let into = if table == "happened" {
                &mut events
            } else {
                &mut shown
            };
            let _ = write!(into, ",\n    {sum} AS m{at}_{suffix}");
        }
    }
    (events, shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_quotes() {
        assert_eq!(Dialect::DuckDb.text("it's"), "'it''s'");
        assert_eq!(Dialect::BigQuery.text("it's \\"), "'it\\'s \\\\'");
        assert_eq!(Dialect::Trino.name("a\"b"), "\"a\"\"b\"");
        assert_eq!(Dialect::Spark.name("a`b"), "`ab`");
    }
}
