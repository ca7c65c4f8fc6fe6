//! What a quarter was worth: a server that holds listeners out, its log, and the verdict on it.

use std::collections::BTreeMap;

use refrain::v1::recommend_request::Subject;
use refrain::v1::{Outcome, RecommendRequest, ReportOutcomesRequest};

use crate::logged::Logged;
use crate::support::{Catalogue, Server, arg, run, stderr};

/// Half of all listeners held out, the other half the slice: each of them is in an experiment or in none.
const SERVED: &str = r#"
[holdout.2026q4]
epoch = 2
share_bp = 5000
[layer.ranking]
epoch = 1
[surface.default]
layer = "ranking"
variant = "plain"
[variant.plain]
score = "similarity"
[variant.blend]
score = "similarity + 0.2 * popularity"
[experiment.blend]
kind = "ab"
layer = "ranking"
epoch = 1
allocation_bp = 5000
arm = [{ name = "control", variant = "plain" }, { name = "treatment", variant = "blend" }]
"#;

const PLAN: &str = r#"
[experiment.worth]
kind = "holdout"
holdout = "2026q4"
epoch = 2
owner = "team-home"
question = "Does what the quarter shipped make listeners play more?"
decision = "How much of the next quarter goes into ranking"
design = { method = "fixed", max_units = 300 }
[[experiment.worth.metric]]
name = "plays"
event = "play"
role = "success"
window = "closed(0s,1h)"
missing = "zero"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_server_logs_what_a_holdout_is_judged_by() {
    let home = Catalogue::shared().store();
    let at = |name: &str| home.path().join(name);
    let (log, config, plan) = (at("log"), at("refrain.toml"), at("plan.toml"));
    let exposures = format!("[exposures]\npath = {:?}\n", arg(&log));
    fs_err::write(&config, format!("{exposures}{SERVED}")).expect("writable");
    fs_err::write(&plan, PLAN).expect("writable");
    let server = Server::start_in(
        home.path(),
        &at("profiles.redb"),
        &["--config", arg(&config)],
    );
    let mut client = server.recommendations().await;
    let mut feedback = server.feedback().await;
    let mut inside = BTreeMap::new();
    for n in 0..400 {
        let ask = RecommendRequest {
            request_id: format!("r{n}"),
            subject: Some(Subject::UserId(format!("user-{n}"))),
            page_size: Some(3),
            ..RecommendRequest::default()
        };
        let answer = client.recommend(ask).await.expect("an answer").into_inner();
        let arm = answer.served_by.map(|served_by| served_by.arm);
        inside.insert(format!("user-{n}"), arm.unwrap_or_default());
    }
    // Who is held out stands in the log alone, so what comes of it is reported once it does.
    assert_eq!(server.terminate(), Some(0));
    let logged = Logged::read(&log, "exposures");
    let sides: Vec<(String, String, String)> = logged
        .texts("unit_id")
        .into_iter()
        .zip(logged.texts("holdouts"))
        .zip(logged.texts("reason"))
        .map(|((unit, sides), reason)| (unit, sides, reason))
        .collect();
    assert_eq!(sides.len(), 400);
    for (unit, side, reason) in &sides {
        let held = side == "2026q4|2|held";
        assert!(held || side == "2026q4|2|slice", "{unit}: {side}");
        assert_eq!(held, reason == "HOLDOUT", "{unit}: {reason}");
        assert!(
            !held || inside[unit].is_empty(),
            "{unit} is in an experiment"
        );
    }
    assert!(inside.values().any(|arm| arm == "treatment"));
    let server = Server::start_in(
        home.path(),
        &at("profiles.redb"),
        &["--config", arg(&config)],
    );
    drop((client, feedback));
    feedback = server.feedback().await;
    let outcomes = (0_u32..).zip(&sides).map(|(n, (unit, side, _))| Outcome {
        outcome_id: format!("o-{unit}"),
        unit_id: unit.clone(),
        event: "play".to_owned(),
        // Two more of the slice, and listeners who are not all the same.
        value: f64::from(n % 5) + if side.ends_with("held") { 0.0 } else { 2.0 },
        ..Outcome::default()
    });
    let report = ReportOutcomesRequest {
        outcomes: outcomes.collect(),
    };
    feedback.report_outcomes(report).await.expect("durable");
    assert_eq!(server.terminate(), Some(0));

    let out = run([
        "experiment",
        "analyze",
        "--config",
        arg(&plan),
        "--log",
        arg(&log),
        "--until",
        "2199-01-01",
        "--json",
    ]);
    assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
    let found: serde_json::Value = serde_json::from_slice(&out.stdout).expect("a document");
    assert_eq!(
        found["verdict"]["recommendation"], "SHIP",
        "{}",
        found["verdict"]
    );
    let plays = &found["metrics"][0]["comparisons"][0];
    assert_eq!(plays["arm"], "slice");
    let number = |name: &str| plays[name].as_f64().expect("a number");
    assert!(
        (number("delta") - 2.0).abs() < 4.0 * number("se"),
        "{plays}"
    );
    let units = &found["observed"]["units"];
    assert_eq!(
        units[0].as_u64().zip(units[1].as_u64()).map(|(a, b)| a + b),
        Some(400)
    );
    // What the slice was served, by experiment or without: both variants.
    let served = &found["observed"]["arms"];
    assert_eq!(served[0]["ranking_variants"], serde_json::json!(["plain"]));
    assert_eq!(
        served[1]["ranking_variants"],
        serde_json::json!(["blend", "plain"])
    );
}
