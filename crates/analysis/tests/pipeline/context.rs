//! What stands beside the decision, through the whole tool: interleaved lists, the effect on those
//! reached, other policies, the lists themselves, and open metrics.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Float64Type, TimestampMicrosecondType};
use arrow_array::{
    Array as _, ArrayRef, Date32Array, FixedSizeBinaryArray, Float64Array, RecordBatch,
    StringArray, TimestampMicrosecondArray, UInt32Array,
};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use refrain_analysis::methods::effect::ConfidenceSet;
use refrain_analysis::methods::longitudinal::{Units, analyse};
use refrain_analysis::plan::Window;
use refrain_analysis::report;
use refrain_analysis::simulate::{self, CANDIDATES, Lists, Show, World, quality};
use refrain_analysis::verdict::document::Status;
use refrain_analysis::{Analysis, Options};

use crate::support::{Case, check, comparison, ids};

const DAY_US: i64 = 86_400_000_000;

pub(crate) fn listed(seed: u64, units: u64, show: Show, length: usize) -> World {
    let mut world = World::new(seed, units);
    world.lists = Some(Lists { length, show });
    world
}

fn batches(case: &Case, table: &str) -> Vec<RecordBatch> {
    let path = case.folder.path().join(table).join("simulated-0.parquet");
    let file = fs_err::File::open(path).expect("there").into_parts().0;
    ParquetRecordBatchReaderBuilder::try_new(file)
        .and_then(ParquetRecordBatchReaderBuilder::build)
        .expect("readable")
        .map(|batch| batch.expect("readable"))
        .collect()
}

fn write(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter(columns).expect("same length");
    fs_err::create_dir_all(path.parent().expect("a folder")).expect("made");
    let file = fs_err::File::create(path).expect("writable").into_parts().0;
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");
}

/// The rows of the exposures: unit, arm, instant, id, and the items with their propensities and teams.
struct Shown {
    id: Vec<u8>,
    unit: String,
    arm: String,
    ts: i64,
    seed: String,
    items: Vec<(String, Option<f64>, Option<i8>)>,
}

fn shown(case: &Case) -> Vec<Shown> {
    let mut rows = Vec::new();
    for batch in batches(case, "exposures") {
        let text = |name: &str| -> StringArray {
            batch
                .column_by_name(name)
                .expect("there")
                .as_string::<i32>()
                .clone()
        };
        let (units, arms, seeds) = (text("unit_id"), text("variant"), text("seed_ids_hash"));
        let ids = batch.column_by_name("exposure_id").expect("there");
        let ids = ids.as_fixed_size_binary();
        let times = batch.column_by_name("ts").expect("there");
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let lists = batch
            .column_by_name("items")
            .expect("there")
            .as_list::<i32>();
        for row in 0..batch.num_rows() {
            let list = lists.value(row);
            let list = list.as_struct();
            let items = list
                .column_by_name("item")
                .expect("there")
                .as_string::<i32>();
            let drawn = list.column_by_name("propensity").expect("there");
            let drawn = drawn.as_primitive::<Float64Type>();
            let teams = list.column_by_name("team").expect("there");
            let teams = teams.as_primitive::<arrow_array::types::Int8Type>();
            rows.push(Shown {
                id: ids.value(row).to_vec(),
                unit: units.value(row).to_owned(),
                arm: arms.value(row).to_owned(),
                ts: times.value(row),
                seed: seeds.value(row).to_owned(),
                items: (0..list.len())
                    .map(|at| {
                        (
                            items.value(at).to_owned(),
                            drawn.is_valid(at).then(|| drawn.value(at)),
                            teams.is_valid(at).then(|| teams.value(at)),
                        )
                    })
                    .collect(),
            });
        }
    }
    rows
}

/// Outcomes of an event: unit, instant, value, and the exposure and item where they are named.
type Happened = (String, i64, f64, Option<(Vec<u8>, String)>);

fn happened(case: &Case, event: &str) -> Vec<Happened> {
    let mut rows = Vec::new();
    for batch in batches(case, "outcomes") {
        let text = |name: &str| {
            batch
                .column_by_name(name)
                .map(|c| c.as_string::<i32>().clone())
        };
        let (units, events, items) = (text("unit_id"), text("event"), text("item"));
        let (units, events) = (units.expect("there"), events.expect("there"));
        let times = batch.column_by_name("ts").expect("there");
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let values = batch.column_by_name("value").expect("there");
        let values = values.as_primitive::<Float64Type>();
        let exposures = batch.column_by_name("exposure_id");
        let exposures = exposures.map(|c| c.as_fixed_size_binary());
        for row in (0..batch.num_rows()).filter(|row| events.value(*row) == event) {
            let named = items
                .as_ref()
                .zip(exposures)
                .filter(|(items, _)| items.is_valid(row));
            rows.push((
                units.value(row).to_owned(),
                times.value(row),
                values.value(row),
                named.map(|(items, ids)| (ids.value(row).to_vec(), items.value(row).to_owned())),
            ));
        }
    }
    rows
}

#[test]
fn a_preferred_ranker_goes_on_to_an_experiment() {
    let gst = r#"{ method = "gst", max_units = 600 }"#;
    let case = Case::new(&listed(1, 600, Show::Drafted { preference: 0.8 }, 8), gst);
    let analysis = case.analyze();
    assert_eq!(
        analysis.verdict.recommendation,
        "ADVANCE",
        "{:?} {:?}",
        analysis.verdict,
        ids(&analysis)
    );
    assert!(
        analysis
            .verdict
            .headline
            .contains("prefer the items of `blend03`")
    );
    assert_eq!(check(&analysis, "srm").status, Status::Pass);

    // By hand, from the rows of the log.
    let rows = shown(&case);
    let mut first: HashMap<&str, i64> = HashMap::new();
    for row in &rows {
        let known = first.entry(&row.unit).or_insert(row.ts);
        *known = (*known).min(row.ts);
    }
    let chosen: BTreeSet<(Vec<u8>, String)> = happened(&case, "choose")
        .into_iter()
        .filter_map(|(_, _, _, named)| named)
        .collect();
    let mut users: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut won = [0, 0, 0];
    for row in &rows {
        let mut credit = [0, 0];
        for (item, _, team) in &row.items {
            if let Some(team) = team
                && chosen.contains(&(row.id.clone(), item.clone()))
            {
                credit[usize::from(*team == 1)] += 1;
            }
        }
        if row.ts - first[row.unit.as_str()] < 7 * DAY_US {
            let sign = f64::from(i8::from(credit[1] > credit[0]) - i8::from(credit[0] > credit[1]));
            users.entry(&row.unit).or_default().push(sign);
            won[match sign {
                s if s < 0.0 => 0,
                s if s > 0.0 => 1,
                _ => 2,
            }] += 1;
        }
    }
    let means: Vec<f64> = users
        .values()
        .map(|signs| signs.iter().sum::<f64>() / signs.len() as f64)
        .collect();
    let n = means.len() as f64;
    let mean = means.iter().sum::<f64>() / n;
    let variance = means.iter().map(|m| (m - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let found = comparison(&analysis, "chosen");
    assert!((found.delta - mean).abs() < 1e-12, "{} {mean}", found.delta);
    assert!((found.se - (variance / n).sqrt()).abs() < 1e-12);
    let sessions = &analysis.interleaving.as_ref().expect("interleaved").metrics[0];
    assert_eq!(sessions.won, Some([won[0], won[1]]));
    assert_eq!(sessions.ties, Some(won[2]));

    let page = report::html(&analysis, "refrain experiment report");
    assert!(page.contains("Interleaved lists") && page.contains("Won by blend03"));
    assert!(!page.contains("SHIP"), "interleaving ships nothing");
    assert_eq!(
        analysis.metrics[0].units(analysis.plan.kind),
        users.len() as u64
    );
}

#[test]
fn equal_rankers_stay_undecided_and_a_worse_one_stops() {
    let gst = r#"{ method = "gst", max_units = 400 }"#;
    let equal = Case::new(&listed(2, 400, Show::Drafted { preference: 0.0 }, 8), gst).analyze();
    assert_eq!(
        equal.verdict.recommendation, "NO_SHIP",
        "{:?}",
        equal.verdict
    );
    let worse = Case::new(&listed(3, 400, Show::Drafted { preference: -0.9 }, 8), gst).analyze();
    assert_eq!(worse.verdict.recommendation, "STOP_HARM");
    assert!(
        worse
            .verdict
            .headline
            .contains("prefer the items of the control")
    );
}

#[test]
fn a_draft_that_loses_one_arms_lists_is_unfair() {
    let world = listed(4, 400, Show::Drafted { preference: 0.0 }, 8);
    let case = Case::new(&world, r#"{ method = "gst", max_units = 400 }"#);
    // A quarter of the lists in which the second arm picked first are lost.
    let rows = shown(&case);
    let second_first: BTreeSet<Vec<u8>> = rows
        .iter()
        .filter(|row| row.items.iter().find_map(|item| item.2) == Some(1))
        .map(|row| row.id.clone())
        .collect();
    let path = case.folder.path().join("exposures/simulated-0.parquet");
    let whole = batches(&case, "exposures");
    let file = fs_err::File::create(path).expect("writable").into_parts().0;
    let mut writer = ArrowWriter::try_new(file, whole[0].schema(), None).expect("writer");
    for batch in &whole {
        let ids = batch.column_by_name("exposure_id").expect("there");
        let ids = ids.as_fixed_size_binary();
        for row in 0..batch.num_rows() {
            if row % 4 != 0 || !second_first.contains(ids.value(row)) {
                writer.write(&batch.slice(row, 1)).expect("written");
            }
        }
    }
    writer.close().expect("closed");
    let analysis = case.analyze();
    assert_eq!(analysis.verdict.recommendation, "INVALID");
    assert_eq!(check(&analysis, "srm").name, "Fair draft");
    let sessions = &analysis.interleaving.as_ref().expect("interleaved").metrics[0];
    assert_eq!(
        (sessions.won, sessions.delta),
        (None, None),
        "effects are hidden"
    );
}

#[test]
fn the_effect_on_those_reached_undoes_dilution() {
    let mut world = World::new(5, 6_000);
    world.lift = 0.4;
    world.faults.fallback = 0.5;
    let gst = r#"{ method = "gst", max_units = 6000 }"#;
    let analysis = Case::new(&world, gst).analyze();
    let found = comparison(&analysis, "minutes_week1");
    let uptake = found.uptake.as_ref().expect("some fell back");
    assert_eq!(uptake.control, 0.0);
    assert!((uptake.treatment - 0.5).abs() < 0.02, "{uptake:?}");
    assert!(!uptake.weak && uptake.first_stage_f > 100.0);
    let control = analysis.metrics[0].arms[0].value.expect("shown");
    let truth = 0.4 * control;
    assert!(
        (uptake.late - truth).abs() < 3.0 * uptake.late_se,
        "{uptake:?}, {truth}"
    );
    assert!(uptake.intention_to_treat < 0.7 * uptake.late);
    let ConfidenceSet::Interval(safe) = uptake.anderson_rubin else {
        panic!("{uptake:?}")
    };
    assert!(safe.contains(uptake.late), "{safe:?}");
    let page = report::html(&analysis, "refrain experiment report");
    assert!(page.contains("The effect on those whom it reached"));
    // Where everybody gets what they are assigned there is nothing to tell apart.
    world.faults.fallback = 0.0;
    let plain = Case::new(&world, gst).analyze();
    assert!(comparison(&plain, "minutes_week1").uptake.is_none());
    let page = report::html(&plain, "refrain experiment report");
    assert!(!page.contains("The effect on those whom it reached"));
}

#[test]
fn an_encouragement_is_taken_up_by_an_event() {
    let world = World::new(6, 2_000);
    let mut case = Case::new(&world, r#"{ method = "gst", max_units = 2000 }"#);
    case.plan.uptake = Some("save".to_owned());
    let analysis = case.analyze();
    let uptake = comparison(&analysis, "minutes_week1")
        .uptake
        .clone()
        .expect("declared");
    // The event is the one that the guardrail `saved` counts over the same week.
    let saved = &analysis
        .metrics
        .iter()
        .find(|m| m.name == "saved")
        .expect("there")
        .arms;
    assert!((uptake.control - saved[0].value.expect("shown")).abs() < 1e-12);
    assert!((uptake.treatment - saved[1].value.expect("shown")).abs() < 1e-12);
    assert!(uptake.weak, "nobody was encouraged: {uptake:?}");
    assert!(uptake.of.contains("`save`"));
}

/// A policy that draws without replacement, item `i` with weight `i + 1`, and its true value a list.
fn bold() -> (impl Fn(&[usize], usize) -> f64, f64) {
    let weight = |item: usize| (item + 1) as f64;
    let total: f64 = (0..CANDIDATES).map(weight).sum();
    let chance = move |above: &[usize], item: usize| {
        weight(item) / (total - above.iter().map(|i| weight(*i)).sum::<f64>())
    };
    let mut value = 0.0;
    for first in 0..CANDIDATES {
        let p = chance(&[], first);
        value += p * quality(first);
        for second in (0..CANDIDATES).filter(|item| *item != first) {
            value += p * chance(&[first], second) * quality(second);
        }
    }
    (chance, value)
}

/// The target table of a policy; `predict` adds a model that is right.
pub(crate) fn target(case: &Case, path: &Path, predict: bool) {
    let (chance, _) = bold();
    let (mut ids, mut items) = (Vec::new(), Vec::new());
    let (mut chances, mut predicted, mut averaged) = (Vec::new(), Vec::new(), Vec::new());
    let mut at_place = Vec::new();
    // Of an item at the first and the second place, whatever is above it.
    let second = |item: usize| {
        (0..CANDIDATES)
            .filter(|first| *first != item)
            .map(|first| chance(&[], first) * chance(&[first], item))
            .sum::<f64>()
    };
    let seconds: Vec<f64> = (0..CANDIDATES).map(second).collect();
    for row in shown(case) {
        let mut above: Vec<usize> = Vec::new();
        for (item, _, _) in &row.items {
            let number: usize = item[1..].parse().expect("a number");
            ids.push(row.id.clone());
            items.push(item.clone());
            chances.push(chance(&above, number));
            at_place.push(match above.is_empty() {
                true => chance(&[], number),
                false => seconds[number],
            });
            predicted.push(quality(number));
            averaged.push(
                (0..CANDIDATES)
                    .filter(|other| !above.contains(other))
                    .map(|other| chance(&above, other) * quality(other))
                    .sum::<f64>(),
            );
            above.push(number);
        }
    }
    let ids = FixedSizeBinaryArray::try_from_iter(ids.into_iter()).expect("16 bytes each");
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        ("exposure_id", Arc::new(ids)),
        ("item", Arc::new(StringArray::from(items))),
        ("probability", Arc::new(Float64Array::from(chances))),
    ];
    if predict {
        columns.push(("predicted", Arc::new(Float64Array::from(predicted))));
        columns.push(("predicted_target", Arc::new(Float64Array::from(averaged))));
        // Drawn evenly, an item is as likely at any place.
        let even = vec![1.0 / CANDIDATES as f64; at_place.len()];
        columns.push(("logged_at_place", Arc::new(Float64Array::from(even))));
        columns.push((
            "probability_at_place",
            Arc::new(Float64Array::from(at_place)),
        ));
    }
    write(path, columns);
}

pub(crate) fn off_policy(
    case: &Case,
    path: &Path,
) -> Result<Analysis, refrain_analysis::AnalyzeError> {
    let options = Options {
        off_policy: Some(path.to_owned()),
        ..Options::default()
    };
    refrain_analysis::from_log(case.folder.path(), &case.plan, &options, &|_, _| ())
        .map(|(analysis, _)| analysis)
}

#[test]
fn another_policy_is_valued_on_the_drawn_answers() {
    let case = Case::new(
        &listed(7, 1_500, Show::Drawn, 2),
        r#"{ method = "gst", max_units = 1500 }"#,
    );
    let path = case.folder.path().join("target.parquet");
    target(&case, &path, true);
    let analysis = off_policy(&case, &path).expect("valued");
    let found = analysis.off_policy.as_ref().expect("asked");
    let chosen = found
        .metrics
        .iter()
        .find(|m| m.metric == "chosen")
        .expect("an event");
    assert_eq!(chosen.refused, None);
    assert_eq!(found.sampled, found.slates);
    let (_, truth) = bold();
    let uniform = 2.0 * (0..CANDIDATES).map(quality).sum::<f64>() / CANDIDATES as f64;
    assert!((chosen.logged.expect("rows") - uniform).abs() < 0.02);
    assert!(truth > uniform + 0.05, "{truth} {uniform}");
    let names: Vec<&str> = chosen.values.iter().map(|v| v.estimator).collect();
    assert_eq!(
        names,
        [
            "IPS",
            "clipped IPS",
            "SNIPS",
            "DM",
            "DR",
            "SNDR",
            "switch DR",
            "shrunk DR",
            "cascade",
            "item-position"
        ]
    );
    for value in &chosen.values {
        let se = value.se.max(0.002);
        assert!((value.value - truth).abs() < 3.5 * se, "{value:?}, {truth}");
    }
    let se = |name: &str| {
        chosen
            .values
            .iter()
            .find(|v| v.estimator == name)
            .expect("there")
            .se
    };
    assert!(
        se("DR") < se("IPS")
            && se("shrunk DR") <= se("DR")
            && se("cascade") < se("IPS")
            && se("item-position") < se("cascade"),
        "{:?}",
        chosen.values
    );
    let page = report::html(&analysis, "refrain experiment report");
    assert!(page.contains("What another policy would have earned") && page.contains("SNIPS"));

    target(&case, &path, false);
    let analysis = off_policy(&case, &path).expect("valued");
    let found = analysis.off_policy.expect("asked");
    let chosen = found
        .metrics
        .iter()
        .find(|m| m.metric == "chosen")
        .expect("an event");
    let names: Vec<&str> = chosen.values.iter().map(|v| v.estimator).collect();
    assert_eq!(
        names,
        ["IPS", "clipped IPS", "SNIPS", "cascade"],
        "no model, no model's estimates"
    );
}

#[test]
fn a_deterministic_log_values_nothing() {
    let case = Case::new(
        &listed(8, 400, Show::Ranked, 2),
        r#"{ method = "gst", max_units = 400 }"#,
    );
    let path = case.folder.path().join("target.parquet");
    target(&case, &path, false);
    let analysis = off_policy(&case, &path).expect("refused in words");
    let found = analysis.off_policy.expect("asked");
    assert_eq!(found.sampled, 0);
    let chosen = found
        .metrics
        .iter()
        .find(|m| m.metric == "chosen")
        .expect("an event");
    assert!(chosen.values.is_empty());
    assert!(
        chosen
            .refused
            .as_ref()
            .expect("refused")
            .contains("not randomised")
    );
}

#[test]
fn a_wrong_target_is_refused_with_its_place() {
    let case = Case::new(
        &listed(9, 200, Show::Drawn, 2),
        r#"{ method = "gst", max_units = 200 }"#,
    );
    let path = case.folder.path().join("target.parquet");
    let rows = shown(&case);
    let mut ids: Vec<Vec<u8>> = rows
        .iter()
        .flat_map(|r| [r.id.clone(), r.id.clone()])
        .collect();
    let mut items: Vec<String> = rows
        .iter()
        .flat_map(|r| r.items.iter().map(|item| item.0.clone()))
        .collect();
    let mut chances = vec![0.05; items.len()];
    let table = |ids: &[Vec<u8>], items: &[String], chances: &[f64]| {
        let ids = FixedSizeBinaryArray::try_from_iter(ids.iter()).expect("16 bytes each");
        write(
            &path,
            vec![
                ("exposure_id", Arc::new(ids)),
                ("item", Arc::new(StringArray::from(items.to_vec()))),
                (
                    "probability",
                    Arc::new(Float64Array::from(chances.to_vec())),
                ),
            ],
        );
    };
    chances[4] = 1.5;
    table(&ids, &items, &chances);
    let error = off_policy(&case, &path).expect_err("1.5").to_string();
    assert!(
        error.contains("target.parquet, row group 0, row 5: `probability` is 1.5"),
        "{error}"
    );
    chances[4] = f64::NAN;
    table(&ids, &items, &chances);
    let error = off_policy(&case, &path).expect_err("NaN").to_string();
    assert!(error.contains("row 5: `probability` is NaN"), "{error}");
    chances[4] = 0.1;
    items[1] = items[0].clone();
    table(&ids, &items, &chances);
    let error = off_policy(&case, &path).expect_err("twice").to_string();
    assert!(
        error.contains("row 2: `item`") && error.contains("twice"),
        "{error}"
    );
    ids.remove(1);
    items.remove(1);
    chances.remove(1);
    table(&ids, &items, &chances);
    let error = off_policy(&case, &path).expect_err("missing").to_string();
    assert!(
        error.contains("exposures/simulated-0.parquet, row group 0, row 1: `items`")
            && error.contains("which the target does not name"),
        "{error}"
    );
}

/// Comparisons in the dark of the treatment with what the control was served, two a listener.
pub(crate) fn dark(case: &Case, overlaps: Vec<Option<f64>>, errors: Vec<Option<&str>>) {
    let n = overlaps.len();
    let zeros: Vec<u32> = vec![2_000; n];
    let names = |name: &str| Arc::new(StringArray::from(vec![name.to_owned(); n])) as ArrayRef;
    let units: Vec<String> = (0..n).map(|at| format!("u{}", at / 2)).collect();
    write(
        &case.folder.path().join("shadow/2026-01-05/s.parquet"),
        vec![
            (
                "ts",
                Arc::new(
                    TimestampMicrosecondArray::from(vec![simulate::START_US; n])
                        .with_timezone("UTC"),
                ),
            ),
            ("day", Arc::new(Date32Array::from(vec![20_458; n]))),
            ("unit_id", Arc::new(StringArray::from(units))),
            ("ranking_variant", names("blend03")),
            ("served_variant", names("control")),
            ("rbo", Arc::new(Float64Array::from(vec![0.5; n]))),
            ("overlap", Arc::new(Float64Array::from(overlaps))),
            ("error", Arc::new(StringArray::from(errors))),
            ("latency_us", Arc::new(UInt32Array::from(zeros.clone()))),
            (
                "served_latency_us",
                Arc::new(UInt32Array::from(vec![1_000; n])),
            ),
        ],
    );
}

#[test]
fn lists_of_the_arms_are_compared_for_the_same_seeds() {
    let case = Case::new(
        &listed(10, 500, Show::Ranked, 5),
        r#"{ method = "gst", max_units = 500 }"#,
    );
    let no_list = [Some("failed: panicked"), Some("dropped: busy")];
    dark(
        &case,
        vec![Some(0.2), Some(0.4), Some(0.6), Some(0.8), None, None],
        [&[None; 4][..], &no_list].concat(),
    );
    let analysis = case.analyze();
    let lists = analysis.lists.as_ref().expect("the log has them");
    let found = &lists.comparisons[0];

    let mut last: BTreeMap<(String, String), (i64, Vec<String>)> = BTreeMap::new();
    let mut places: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    for row in shown(&case) {
        let items: Vec<String> = row.items.iter().map(|item| item.0.clone()).collect();
        for item in &items {
            *places
                .entry(row.arm.clone())
                .or_default()
                .entry(item.clone())
                .or_default() += 1;
        }
        let known = last
            .entry((row.seed.clone(), row.arm.clone()))
            .or_insert((i64::MIN, Vec::new()));
        if row.ts >= known.0 {
            *known = (row.ts, items);
        }
    }
    let mut overlaps = Vec::new();
    for ((seed, arm), (_, items)) in &last {
        if arm == "control"
            && let Some((_, other)) = last.get(&(seed.clone(), "blend03".to_owned()))
        {
            let common = items.iter().filter(|item| other.contains(item)).count();
            overlaps.push(common as f64 / items.len() as f64);
        }
    }
    assert_eq!(found.seeds, overlaps.len() as u64);
    let mean = overlaps.iter().sum::<f64>() / overlaps.len() as f64;
    assert!((found.overlap.expect("seeds") - mean).abs() < 1e-12 && mean > 0.3 && mean < 0.95);
    let share = |arm: &str, item: &str| {
        let of = &places[arm];
        *of.get(item).unwrap_or(&0) as f64 / of.values().sum::<usize>() as f64
    };
    let most = &found.added[0];
    let gain = |item: &str| share("blend03", item) - share("control", item);
    let best = (0..CANDIDATES)
        .map(|i| gain(&format!("t{i}")))
        .fold(f64::MIN, f64::max);
    assert!((most.treatment - most.control - best).abs() < 1e-12);
    assert!((most.control - share("control", &most.item)).abs() < 1e-12);
    assert_eq!(found.examples.len(), 3);
    assert_eq!(lists.arms[0].items, places["control"].len() as u64);

    let shadow = &lists.shadows[0];
    assert_eq!((shadow.lists, shadow.arm.as_str()), (4, "blend03"));
    assert!((shadow.overlap - 0.5).abs() < 1e-12 && (shadow.latency_ratio - 2.0).abs() < 1e-12);
    // What has no list is in no mean.
    assert_eq!((shadow.errors, shadow.dropped), (1, 1));
    // Two listeners, at 0.3 and 0.7.
    assert!((shadow.overlap_se - 0.2).abs() < 1e-12, "{shadow:?}");
    let page = report::html(&analysis, "refrain experiment report");
    assert!(page.contains("<h2>Lists</h2>") && page.contains("In the dark"));
    dark(&case, vec![Some(0.2), Some(1.4)], vec![None; 2]);
    let error = refrain_analysis::from_log(
        case.folder.path(),
        &case.plan,
        &Options::default(),
        &|_, _| (),
    )
    .expect_err("1.4");
    assert!(
        error
            .to_string()
            .contains("s.parquet, row group 0, row 2: `overlap`"),
        "{error}"
    );
}

/// An open metric, judged: the same numbers as from the rows of the log by hand.
#[test]
fn an_open_metric_is_judged_by_its_days() {
    let mut world = World::new(11, 900);
    world.lift = 0.25;
    world.visits = 0.8;
    let mut case = Case::new(&world, r#"{ method = "gst", max_units = 900 }"#);
    let text = simulate::plan_toml(&world, r#"{ method = "gst", max_units = 900 }"#)
        .replace(
            "window = \"closed(0d,7d)\"\nmissing = \"zero\"\nmde_rel",
            "window = \"open(14d)\"\nmde_rel",
        )
        .replace("covariate = \"minutes_before\"\n", "");
    case.plan = refrain_analysis::Plan::from_toml(&text, None).expect("valid");
    assert_eq!(case.plan.metrics[0].window, Window::Daily { days: 14 });
    let looks = case.looks(&[9, 16, 28]);
    let until = simulate::START_US + 16 * DAY_US;
    let mut first: HashMap<String, (i64, usize)> = HashMap::new();
    for batch in batches(&case, "exposures") {
        let units = batch
            .column_by_name("unit_id")
            .expect("there")
            .as_string::<i32>();
        let arms = batch
            .column_by_name("variant")
            .expect("there")
            .as_string::<i32>();
        let times = batch.column_by_name("ts").expect("there");
        let times = times.as_primitive::<TimestampMicrosecondType>();
        for row in (0..batch.num_rows()).filter(|row| times.value(*row) < until) {
            let entry = first
                .entry(units.value(row).to_owned())
                .or_insert((times.value(row), usize::from(arms.value(row) != "control")));
            entry.0 = entry.0.min(times.value(row));
        }
    }
    let mut days: HashMap<&str, Vec<f64>> = HashMap::new();
    for (unit, (since, _)) in &first {
        // The last row of the log ends it.
        let age = usize::try_from((until - since) / DAY_US)
            .expect("since the start")
            .min(14);
        days.insert(unit, vec![0.0; age]);
    }
    for (unit, ts, value, _) in happened(&case, "listen_minutes") {
        if let Some((since, _)) = first.get(&unit)
            && ts < until
            && let Some(day) = days.get_mut(unit.as_str()).and_then(|days| {
                days.get_mut(usize::try_from((ts - since) / DAY_US).expect("after"))
            })
        {
            *day += value;
        }
    }
    let mut units = [Units::default(), Units::default()];
    for (unit, days) in days.iter().filter(|(_, days)| !days.is_empty()) {
        units[first[*unit].1]
            .add_measurements(days)
            .expect("finite");
    }
    let by_hand = analyse(&units[0], &units[1], 14).expect("measured");
    let found = comparison(&looks[1], "minutes_week1");
    let effect = by_hand.comparison.effect();
    assert!(
        (found.delta - effect.delta).abs() < 1e-9 * effect.se,
        "{} {}",
        found.delta,
        effect.delta
    );
    assert!((found.se - effect.se).abs() < 1e-9 * effect.se);
    let all = (units[0].n() + units[1].n()) as f64;
    let t = found.information.expect("has an end");
    assert!((t - by_hand.share * all / 900.0).abs() < 1e-9, "{t}");
    let fractions: Vec<f64> = looks
        .iter()
        .map(|look| {
            comparison(look, "minutes_week1")
                .information
                .expect("has an end")
        })
        .collect();
    assert!(
        fractions.is_sorted() && (fractions[2] - 1.0).abs() < 1e-9,
        "{fractions:?}"
    );
    assert_eq!(
        looks[2].verdict.arms[0].improved,
        ["minutes_week1"],
        "{:?}",
        looks[2].verdict
    );
    assert!(found.test.contains("generalised least squares"));
    // It is told which metric is open, and how it was judged.
    assert!(
        looks[2]
            .verdict
            .assumptions
            .iter()
            .any(|a| a.contains("measured again every day"))
    );
}
