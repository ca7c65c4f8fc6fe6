//! Kinds of experiments and turns of the tool that an A/B experiment of two arms does not take.

use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::{BinaryArray, RecordBatch, StringArray};
use parquet::file::metadata::KeyValue;
use refrain_analysis::simulate::{self, START_US, World};
use refrain_analysis::verdict::document::Status;
use refrain_analysis::{Analysis, Look, Looks, Options, Plan, report};

use crate::support::{Case, GST, check, ids, rewrite, rewrite_with, table, with_column};

const DAY_US: i64 = 86_400_000_000;

/// The simulated experiment as a kind that claims no success: minutes are a guardrail.
fn guarded(world: &World, kind: &str) -> Case {
    let mut case = Case::new(world, GST);
    let text = simulate::plan_toml(world, GST)
        .replace("kind = \"ab\"", &format!("kind = \"{kind}\""))
        .replace("role = \"success\"", "role = \"guardrail\"")
        .replace("mde_rel = 0.05", "margin_rel = 0.2");
    case.plan = Plan::from_toml(&text, None).expect("valid plan");
    case
}

#[test]
fn a_rollout_advances_or_stops_and_names_no_winner() {
    let analysis = guarded(&World::new(21, 4_000), "rollout").analyze();
    let verdict = &analysis.verdict;
    assert_eq!(verdict.recommendation, "ADVANCE", "{verdict:?}");
    assert!(verdict.headline.contains("go on to the next step"));
    assert!(verdict.arms[0].improved.is_empty());
    assert_eq!(
        verdict.arms[0].within_margin,
        ["minutes_week1", "saved", "latency_p95"]
    );
    let document = serde_json::to_string(&analysis).expect("JSON");
    let page = report::html(&analysis, "refrain experiment report");
    for text in [&document, &page] {
        assert!(!text.contains("winner") && !text.contains("SHIP"));
    }
    // The glossary has the words.
    assert!(!document.contains("evidence of improvement"));
    assert!(!page.contains("✓ evidence of improvement"));
    assert!(page.contains("monitored rollout: guardrails only, no claim of success"));

    // Better is no claim either.
    let mut better = World::new(22, 4_000);
    better.lift = 0.3;
    let analysis = guarded(&better, "rollout").analyze();
    assert_eq!(analysis.verdict.recommendation, "ADVANCE");
    assert!(analysis.verdict.arms[0].improved.is_empty());

    let mut slow = World::new(23, 4_000);
    slow.slowdown = 0.3;
    let analysis = guarded(&slow, "rollout").analyze();
    assert_eq!(analysis.verdict.recommendation, "STOP_HARM");
    assert_eq!(analysis.verdict.arms[0].harmed, ["latency_p95"]);
}

#[test]
fn a_holdout_is_compared_and_named() {
    let mut world = World::new(24, 4_000);
    world.arms = vec![("held".to_owned(), 0.5), ("shipped".to_owned(), 0.5)];
    world.lift = 0.2;
    let case = guarded(&world, "holdout");
    let analysis = case.analyze();
    let minutes = &analysis.metrics[0].comparisons[0];
    assert_eq!(
        (minutes.arm.as_str(), minutes.outcome),
        ("shipped", "within_margin")
    );
    assert!(minutes.delta > 3.0 * minutes.se, "{minutes:?}");
    let page = report::html(&analysis, "refrain experiment report");
    assert!(page.contains("<dt>Kind</dt><dd>holdout</dd>"));
    assert!(!page.contains("winner"));
}

#[test]
fn a_shadow_has_no_verdict_and_says_why() {
    let world = World::new(25, 10);
    let text = simulate::plan_toml(&world, GST).replace("kind = \"ab\"", "kind = \"shadow\"");
    // With one arm, too, as the server takes it.
    let arm = text.find("[[experiment.blend.arm]]").expect("an arm");
    let second = text[arm + 1..].find("[[").expect("another") + arm + 1;
    let one = [&text[..arm], &text[second..]].concat();
    for text in [text, one] {
        let error = Plan::from_toml(&text, None)
            .expect_err("refused")
            .to_string();
        assert!(
            error.contains("experiment `blend` is of kind \"shadow\"")
                && error.contains("section Lists of the report on an `ab` experiment"),
            "{error}"
        );
    }
}

#[test]
fn each_treatment_is_judged_at_its_share_of_the_level() {
    let mut world = World::new(26, 9_000);
    world.arms = ["control", "blend03", "blend06"]
        .map(|name| (name.to_owned(), 1.0 / 3.0))
        .into();
    world.lift = 0.2;
    let analysis = Case::new(&world, r#"{ method = "gst", max_units = 9000 }"#).analyze();
    let verdict = &analysis.verdict;
    assert_eq!(check(&analysis, "srm").status, Status::Pass);
    assert_eq!(verdict.recommendation, "SHIP", "{verdict:?}");
    let words: Vec<(&str, &str)> = verdict
        .arms
        .iter()
        .map(|arm| (arm.arm.as_str(), arm.recommendation))
        .collect();
    assert_eq!(words, [("blend03", "SHIP"), ("blend06", "NO_SHIP")]);
    let minutes = &analysis.metrics[0];
    let truth = 0.2 * minutes.arms[0].value.expect("shown");
    for (comparison, truth) in minutes.comparisons.iter().zip([truth, 0.0]) {
        assert!(
            (comparison.delta - truth).abs() < 4.0 * comparison.se,
            "{comparison:?}, {truth}"
        );
        let arm = minutes.arms.iter().find(|arm| arm.arm == comparison.arm);
        assert!(arm.is_some_and(|arm| arm.units > 2_900), "{arm:?}");
    }
    assert!(
        verdict.assumptions[0].contains("2.50 % a success metric"),
        "{:?}",
        verdict.assumptions
    );
    // A lone treatment asks for less.
    let mut two = World::new(26, 9_000);
    two.lift = 0.2;
    let two = Case::new(&two, r#"{ method = "gst", max_units = 9000 }"#).analyze();
    let bound = |analysis: &Analysis| analysis.metrics[0].comparisons[0].bound.expect("judged");
    assert!(bound(&two) < bound(&analysis));
    let page = report::html(&analysis, "refrain experiment report");
    assert!(page.contains("minutes_week1 · blend03") && page.contains("minutes_week1 · blend06"));
}

#[test]
fn what_may_still_arrive_is_waited_for() {
    let mut case = Case::new(&World::new(27, 1_500), GST);
    let at = |case: &Case, day: i64| {
        let mut options = Options::default();
        options.read.until_us = Some(START_US + day * DAY_US);
        case.look(&options).0
    };
    let units = |analysis: &Analysis| -> [u64; 2] {
        let arms = &analysis.metrics[0].arms;
        [
            arms.iter().map(|arm| arm.units).sum(),
            arms.iter().map(|arm| arm.immature).sum(),
        ]
    };
    let without = at(&case, 13);
    let later = at(&case, 17);
    case.plan.policy.settle = 4 * DAY_US;
    let waited = at(&case, 17);
    // Four days later, the same units are complete, with the same values to the bit.
    assert_eq!(units(&waited)[0], units(&without)[0]);
    assert!(units(&waited)[1] > units(&without)[1]);
    assert!(units(&later)[0] > units(&waited)[0]);
    let values = |analysis: &Analysis| -> Vec<Option<f64>> {
        analysis.metrics[0]
            .arms
            .iter()
            .map(|arm| arm.value)
            .collect()
    };
    assert_eq!(values(&waited), values(&without));
    let policy = waited
        .data
        .policies
        .iter()
        .find(|policy| policy.about == "late data")
        .expect("stated");
    assert!(
        policy.rule.starts_with("a unit is complete 4 d after"),
        "{}",
        policy.rule
    );
    assert!(report::html(&waited, "").contains("A unit is complete 4 d after"));
}

#[test]
fn rows_that_one_arm_lost_are_named() {
    let told = |control: u32, treatment: u32| {
        let case = Case::new(&World::new(28, 1_500), GST);
        let note = format!(
            "{{\"blend\":{{\"control\":{control},\"blend03\":{treatment}}},\"other\":{{\"x\":9}}}}"
        );
        let note = KeyValue::new("refrain.dropped".to_owned(), note);
        rewrite_with(&table(&case, "exposures"), Some(note), |_, batch| batch);
        case.analyze()
    };
    let lost = told(20, 90);
    let found = check(&lost, "loss");
    assert_eq!(found.status, Status::Fail, "{}", found.finding);
    assert!(
        found
            .finding
            .contains("dropped 110 exposures (control 20, blend03 90"),
        "{}",
        found.finding
    );
    assert_eq!(lost.verdict.recommendation, "INVALID");
    assert!(lost.verdict.headline.contains("lost exposures"));
    // Both arms alike: told, and no reason to distrust.
    let alike = told(52, 58);
    let found = check(&alike, "loss");
    assert_eq!(found.status, Status::Warn, "{}", found.finding);
    assert_ne!(alike.verdict.recommendation, "INVALID", "{:?}", ids(&alike));
    assert!(report::html(&alike, "").contains("dropped 110 exposures"));
}

#[test]
fn an_edit_of_the_configuration_is_told_with_both_digests() {
    let digests = |of: &dyn Fn(usize) -> u8| {
        let case = Case::new(&World::new(29, 800), GST);
        rewrite(&table(&case, "exposures"), |group, batch| {
            let digest =
                BinaryArray::from_iter_values((0..batch.num_rows()).map(|_| [of(group); 32]));
            let schema = batch.schema();
            let columns = schema
                .fields()
                .iter()
                .zip(batch.columns())
                .map(|(field, column)| (field.name().as_str(), column.clone()));
            RecordBatch::try_from_iter(
                columns.chain([("config_digest", Arc::new(digest) as arrow_array::ArrayRef)]),
            )
            .expect("same length")
        });
        case.analyze()
    };
    let edited = digests(&|group| if group == 0 { 0xaa } else { 0xbb });
    let found = check(&edited, "config");
    assert_eq!(found.status, Status::Warn);
    assert!(
        found.finding.starts_with("2 different configurations"),
        "{}",
        found.finding
    );
    assert_eq!(
        edited.observed.config_digests,
        ["aa".repeat(32), "bb".repeat(32)]
    );
    let page = report::html(&edited, "");
    assert!(page.contains("<code>aaaaaaaaaaaa</code>, <code>bbbbbbbbbbbb</code>"));
    assert!(page.contains("raise its epoch"));
    let whole = digests(&|_| 0xaa);
    assert!(whole.quality.iter().all(|check| check.id != "config"));
}

/// Units of the treatment move from one segment to another: overall nothing is missing.
#[test]
fn a_mismatch_within_segments_is_found_where_the_whole_is_in_balance() {
    let moved = |share: u8, looked_before: bool| {
        let case = Case::new(&World::new(30, 6_000), GST);
        rewrite(&table(&case, "exposures"), |_, batch| {
            let text = |name: &str| {
                let column = batch.column_by_name(name).expect("there");
                column.as_string::<i32>().clone()
            };
            let (units, arms, surfaces) = (text("unit_id"), text("variant"), text("surface"));
            let surfaces = (0..batch.num_rows()).map(|row| {
                let last = units.value(row).as_bytes().last().copied().unwrap_or(0);
                match (arms.value(row), surfaces.value(row)) {
                    ("blend03", "search") if last < b'0' + share => "home",
                    (_, surface) => surface,
                }
            });
            with_column(
                &batch,
                "surface",
                Arc::new(StringArray::from_iter_values(surfaces)),
            )
        });
        let mut looks = Looks::new(&case.plan);
        if looked_before {
            looks.looks.push(Look {
                cutoff_us: START_US,
                ..Look::default()
            });
        }
        case.look(&Options {
            looks: Some(looks),
            ..Options::default()
        })
        .0
    };
    for looked_before in [false, true] {
        let analysis = moved(5, looked_before);
        assert_eq!(check(&analysis, "srm").status, Status::Pass);
        let found = check(&analysis, "srm_segments");
        assert_eq!(found.status, Status::Fail, "{}", found.finding);
        assert!(
            found
                .finding
                .starts_with("of 3 segments and versions, surface = `"),
            "{}",
            found.finding
        );
        assert_eq!(analysis.verdict.recommendation, "INVALID");
        let page = report::html(&analysis, "");
        assert!(page.contains("<b>Sample ratio by segment</b>"));
        let sound = moved(0, looked_before);
        let found = check(&sound, "srm_segments");
        assert_eq!(found.status, Status::Pass, "{}", found.finding);
    }
    // Weights that changed: a segment that grew late is no mismatch.
    let mut world = World::new(31, 2_000);
    world.faults.ramp = true;
    let ramped = Case::new(&world, GST).analyze();
    assert_eq!(check(&ramped, "srm_segments").status, Status::Skipped);
}

#[test]
fn what_was_not_served_as_assigned_is_told() {
    let of = |fallback: f64| {
        let mut world = World::new(32, 1_500);
        world.faults.fallback = fallback;
        Case::new(&world, GST).analyze()
    };
    let told = of(0.3);
    let found = check(&told, "served");
    assert_eq!(found.status, Status::Warn);
    let share = told.operation[1].served_other;
    assert!((share - 0.3).abs() < 0.03, "{share}");
    assert!(
        found.finding.contains("control 0.00 %, blend03 "),
        "{}",
        found.finding
    );
    assert_ne!(told.verdict.recommendation, "INVALID");
    let sound = of(0.0);
    assert_eq!(check(&sound, "served").status, Status::Pass);
}
