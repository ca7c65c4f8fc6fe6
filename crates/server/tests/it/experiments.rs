//! What running servers make of their experiments: whom they leave alone, what they refuse while they
//! run, and what they stop by themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message as _;
use refrain::v1;
use refrain::v1::experiment_service_client::ExperimentServiceClient;
use refrain::v1::recommend_request::Subject;
use refrain::v1::recommendation_service_client::RecommendationServiceClient;
use refrain::v1::taste_profile_service_client::TasteProfileServiceClient;
use refrain_experiments::schema::FAILED_KEY;
use refrain_experiments::{Action, Journal, arms_digest};
use refrain_server::{Config, JournalFile, JournalFileError, Signature};
use tonic::Code;

use crate::dark::metrics;
use crate::exposures::{footers, read, texts};
use crate::fixture::{Running, World, play};

const SETUP: &str = r#"
[server]
labels = ["stable", "canary"]
[assignment]
reload_interval_ms = 10
journal = "experiments.jsonl"
[parameter.alpha]
type = "number"
unit = "score"
min = 0.0
max = 1.0
default = 0.1
[variant.plain]
score = "similarity"
[variant.blend]
score = "similarity + alpha * popularity"
pinned = ["item-150", "item-140"]
[variant.broken]
score = "similarity"
label = "canary"
[layer.ranking]
epoch = 1
[layer.ranking.params.alpha]
default = 0.1
[surface.default]
layer = "ranking"
variant = "plain"
"#;

const BLEND: &str = r#"
[experiment.blend]
kind = "ab"
layer = "ranking"
epoch = 1
allocation_bp = 5000
[[experiment.blend.arm]]
name = "little"
variant = "blend"
params = { alpha = 0.2 }
[[experiment.blend.arm]]
name = "much"
variant = "blend"
params = { alpha = 0.4 }
"#;

const CAREFUL: &str = r#"
[experiment.careful]
kind = "rollout"
layer = "ranking"
epoch = 1
allocation_bp = 5000
rollout = { on_inconclusive = "hold", steps_bp = [5000, 10000], min_hold = "1h", look_every = "1s", max_requests = 100000, min_requests = 100 }
[[experiment.careful.arm]]
name = "control"
variant = "plain"
[[experiment.careful.arm]]
name = "treatment"
variant = "broken"
[[experiment.careful.metric]]
name = "error_rate"
role = "guardrail"
direction = "down"
margin_abs = 0.01
"#;

/// Writes a line into the journal of a file, as `refrain experiment` does.
fn act(
    world: &World,
    reason: &str,
    action: impl FnOnce(&Config) -> Action,
) -> (JournalFile, Journal) {
    let config = Config::read(&world.file()).expect("valid");
    let file = config.journal().expect("named");
    let signature = Signature {
        by: "anna",
        reason,
        config_digest: "",
    };
    let action = action(&config);
    let done = file.append(signature, |_| Ok::<_, JournalFileError>(action));
    let journal = done.expect("fits");
    (file, journal)
}

fn allocate(name: &str, bp: u32, seed: &str) -> impl FnOnce(&Config) -> Action {
    move |config| Action::Allocate {
        experiment: name.to_owned(),
        epoch: 1,
        arms_digest: arms_digest(config.experiments.experiment(name).expect("declared")),
        layer: "ranking".to_owned(),
        layer_epoch: 1,
        bp,
        seed: seed.to_owned(),
        waived: Vec::new(),
    }
}

fn ramp(name: &str, from_bp: u32, to_bp: u32) -> impl FnOnce(&Config) -> Action {
    move |_| Action::Ramp {
        experiment: name.to_owned(),
        from_bp,
        to_bp,
        seed: "more".to_owned(),
    }
}

/// Who is in which arm of what.
async fn arms(server: &Running) -> BTreeMap<String, String> {
    let mut client = ExperimentServiceClient::new(server.channel.clone());
    let mut arms = BTreeMap::new();
    for n in 0..100 {
        let request = v1::AssignRequest {
            unit_id: format!("u{n}"),
            ..v1::AssignRequest::default()
        };
        let assigned = client.assign(request).await.expect("assigns").into_inner();
        let assignment = assigned.assignment.expect("is there");
        if !assignment.experiment.is_empty() {
            arms.insert(
                format!("u{n}"),
                format!("{}/{}", assignment.arm, assignment.variant),
            );
        }
    }
    arms
}

/// Waits until the metrics say it; the test runner's own limit ends what never comes.
async fn until(server: &Running, line: &str) {
    while !metrics(server).await.lines().any(|said| said == line) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn ask(user: &str, n: u32) -> v1::RecommendRequest {
    v1::RecommendRequest {
        request_id: format!("{user} {n}"),
        subject: Some(Subject::UserId(user.to_owned())),
        page_size: Some(10),
        ..v1::RecommendRequest::default()
    }
}

/// While a server runs, its journal is deleted, cut, and replaced by another that verifies: every time
/// the policy stays what it was, and the gauge says that the files are not in force.
#[tokio::test]
async fn a_journal_that_does_not_go_on_is_refused() {
    let world = World::new();
    world.publish(1);
    let text = format!("{SETUP}{BLEND}");
    world.write_text(&text);
    act(&world, "starts", allocate("blend", 3_000, "s"));
    let (file, _) = act(&world, "more", ramp("blend", 3_000, 5_000));
    let good = fs_err::read_to_string(file.path()).expect("there");
    let server = world.serve_text(&text).await;
    let before = arms(&server).await;
    assert!((30..70).contains(&before.len()), "{}", before.len());

    let first_line = good.split_inclusive('\n').next().expect("a line");
    fs_err::remove_file(file.path()).expect("there");
    act(&world, "anew", allocate("blend", 100, "t"));
    act(&world, "anew", ramp("blend", 100, 5_000));
    let other = fs_err::read_to_string(file.path()).expect("there");
    until(&server, "refrain_policy_current 0").await;
    for damaged in [None, Some(first_line), Some(&other), Some("")] {
        fs_err::write(file.path(), &good).expect("writable");
        until(&server, "refrain_policy_current 1").await;
        match damaged {
            None => fs_err::remove_file(file.path()).expect("there"),
            Some(text) => fs_err::write(file.path(), text).expect("writable"),
        }
        until(&server, "refrain_policy_current 0").await;
        assert_eq!(arms(&server).await, before, "{damaged:?}");
    }
    // Back again, and what is added counts.
    fs_err::write(file.path(), &good).expect("writable");
    act(&world, "more", ramp("blend", 5_000, 10_000));
    let mut after = arms(&server).await;
    while after.len() < 100 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        after = arms(&server).await;
    }
    until(&server, "refrain_policy_current 1").await;
    assert!(
        before
            .iter()
            .all(|(unit, arm)| after.get(unit) == Some(arm))
    );
    server.stop().await.expect("drains");
}

/// The parameters of an arm are in the variant that answers; a value out of bounds keeps what was in force.
#[tokio::test]
async fn the_parameters_of_an_arm_are_followed_and_refused_with_the_file() {
    let world = World::new();
    world.publish(1);
    let text = format!("{SETUP}{BLEND}").replace("journal = \"experiments.jsonl\"", "");
    let server = world.serve_text(&text).await;
    let before = arms(&server).await;
    let seen: std::collections::BTreeSet<&str> = before.values().map(String::as_str).collect();
    let expected = ["little/blend|alpha=0.2", "much/blend|alpha=0.4"];
    assert!(seen.into_iter().eq(expected));
    let mut client = RecommendationServiceClient::new(server.channel.clone());
    for (user, arm) in before.iter().take(10) {
        let answer = client.recommend(ask(user, 0)).await.expect("an answer");
        let served_by = answer.into_inner().served_by.expect("told");
        assert_eq!(format!("{}/{}", served_by.arm, served_by.variant), *arm);
    }

    let wrong = text.replace("alpha = 0.4", "alpha = 1.4");
    world.write_text(&wrong);
    until(&server, "refrain_policy_current 0").await;
    assert_eq!(arms(&server).await, before);
    let error = Config::load(&world.file())
        .expect_err("out of bounds")
        .to_string();
    let line = wrong
        .lines()
        .position(|line| line.contains("1.4"))
        .expect("there")
        + 1;
    assert!(
        error.contains(&format!(
            "refrain.toml:{line}: experiment.blend.arm[1].params.alpha: 1.4 is not"
        )),
        "{error}"
    );
    world.write_text(&text.replace("alpha = 0.4", "alpha = 0.5"));
    until(&server, "refrain_policy_current 1").await;
    let after = arms(&server).await;
    assert!(after.values().any(|arm| arm == "much/blend|alpha=0.5"));
    server.stop().await.expect("drains");
}

/// Held-out listeners get the bytes that a server without any experiment sends, but for the digest of the
/// configuration.
#[tokio::test]
async fn held_listeners_get_the_bytes_of_a_server_without_experiments() {
    let quiet = SETUP.replace("journal = \"experiments.jsonl\"", "");
    let busy = format!("[holdout.q1]\nepoch = 1\nshare_bp = 3000\n{quiet}{BLEND}")
        .replace("5000", "10000");
    let mut bytes = Vec::new();
    let mut held = Vec::new();
    for text in [&busy, &quiet] {
        let world = World::new();
        world.publish(1);
        let server = world.serve_text(text).await;
        let inside = arms(&server).await;
        let mut client = RecommendationServiceClient::new(server.channel.clone());
        let mut answers = BTreeMap::new();
        for n in 0..100 {
            let user = format!("u{n}");
            if text == &busy && !inside.contains_key(&user) {
                held.push(user.clone());
            }
            let answer = client.recommend(ask(&user, 0)).await.expect("an answer");
            let mut answer = answer.into_inner();
            let served_by = answer.served_by.as_mut().expect("told");
            served_by.config_digest.clear();
            answers.insert(user, answer.encode_to_vec());
        }
        bytes.push(answers);
        server.stop().await.expect("drains");
    }
    assert!((15..45).contains(&held.len()), "{}", held.len());
    for (user, with) in &bytes[0] {
        assert_eq!(*with == bytes[1][user], held.contains(user), "{user}");
    }
}

/// A treatment that cannot answer (its version is not there) is stepped back at the first look: the
/// journal says why, its listeners are served again, and it stays so.
#[tokio::test]
async fn a_treatment_that_fails_is_stepped_back_while_the_server_runs() {
    let world = World::new();
    world.publish(1);
    let log = world.dir.path().join("log");
    let text = format!("{SETUP}{CAREFUL}[exposures]\npath = {log:?}\n");
    world.write_text(&text);
    let (file, _) = act(&world, "starts", allocate("careful", 5_000, "s"));
    let server = world.serve_text(&text).await;
    let mut client = RecommendationServiceClient::new(server.channel.clone());
    let mut failed = 0;
    for n in 0..1_200 {
        match client.recommend(ask(&format!("u{n}"), n)).await {
            Ok(_) => {}
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{status}");
                failed += 1;
            }
        }
    }
    // A quarter of the listeners, unless it was stepped back meanwhile.
    assert!(failed >= 100, "{failed}");
    until(&server, "refrain_rollout_step_backs_total 1").await;
    while !arms(&server).await.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let journal = file.read().expect("verifies");
    let last = journal.entries().last().expect("entries");
    assert!(
        matches!(&last.action, Action::StepBack { from_bp: 5_000, to_bp: 0, guardrail, .. } if guardrail == "error_rate"),
        "{last:?}"
    );
    assert_eq!(last.by, "refrain serve");
    for n in 0..200 {
        client
            .recommend(ask(&format!("u{n}"), 2_000 + n))
            .await
            .expect("served again");
    }
    server.stop().await.expect("drains");
    // What failed has no row; the files of the rows that there are tell of it, by arm.
    let told: u64 = footers(&log, "exposures", FAILED_KEY)
        .iter()
        .map(|json| {
            let counts: BTreeMap<String, BTreeMap<String, u64>> =
                serde_json::from_str(json).expect("JSON");
            counts.get("careful").map_or(0, |arms| {
                assert!(!arms.contains_key("control"), "{arms:?}");
                arms.get("treatment").copied().unwrap_or(0)
            })
        })
        .sum();
    assert_eq!(told, failed);
}

/// A treatment that answers, but worse (its score names a feature that the version does not have), is
/// stepped back too.
#[tokio::test]
async fn a_treatment_that_degrades_is_stepped_back_while_the_server_runs() {
    let world = World::new();
    world.publish(1);
    let text = format!("{SETUP}{CAREFUL}")
        .replace("variant = \"broken\"", "variant = \"poorer\"")
        .replace("error_rate", "degraded_rate")
        + "[variant.poorer]\nscore = \"similarity + 0.1 * freshness\"\n";
    world.write_text(&text);
    let (file, _) = act(&world, "starts", allocate("careful", 5_000, "s"));
    let server = world.serve_text(&text).await;
    let mut profiles = TasteProfileServiceClient::new(server.channel.clone());
    let mut client = RecommendationServiceClient::new(server.channel.clone());
    // Known listeners: an answer to others is degraded in both arms.
    for n in 0..300 {
        let request = v1::AppendEventsRequest {
            user_id: format!("u{n}"),
            events: vec![play(n % 100 + 1, 0, "")],
        };
        profiles.append_events(request).await.expect("appended");
    }
    let missing = i32::from(v1::DegradedReason::FeatureMissing);
    let mut degraded = 0;
    for n in 0..1_500 {
        let answer = client.recommend(ask(&format!("u{}", n % 300), n)).await;
        let answer = answer.expect("it answers").into_inner();
        assert!(answer.degraded.is_empty() || answer.degraded == [missing]);
        degraded += usize::from(!answer.degraded.is_empty());
    }
    assert!(degraded >= 100, "{degraded}");
    until(&server, "refrain_rollout_step_backs_total 1").await;
    let journal = file.read().expect("verifies");
    let last = journal.entries().last().expect("entries");
    assert!(
        matches!(&last.action, Action::StepBack { from_bp: 5_000, to_bp: 0, guardrail, .. } if guardrail == "degraded_rate"),
        "{last:?}"
    );
    while !arms(&server).await.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for n in 0..300 {
        let answer = client.recommend(ask(&format!("u{n}"), 2_000 + n)).await;
        assert!(answer.expect("it answers").into_inner().degraded.is_empty());
    }
    server.stop().await.expect("drains");
}

/// A file that is emptied or cut while it is rewritten is not taken for the defaults.
#[tokio::test]
async fn a_half_written_file_keeps_what_is_in_force() {
    let world = World::new();
    world.publish(1);
    let text = format!("{SETUP}{BLEND}").replace("journal = \"experiments.jsonl\"", "");
    let server = world.serve_text(&text).await;
    let before = arms(&server).await;
    let (head, _) = text.split_once("[variant.plain]").expect("there");
    let (most, _) = text.split_once("[surface.default]").expect("there");
    for half in ["", "\n", "# nothing\n", head, most, &text[..text.len() / 2]] {
        world.write_text(half);
        until(&server, "refrain_policy_current 0").await;
        assert_eq!(arms(&server).await, before, "{half}");
        world.write_text(&text);
        until(&server, "refrain_policy_current 1").await;
    }
    server.stop().await.expect("drains");
}

const SCORES: &str = r#"
[parameter.beta]
type = "number"
unit = "score"
min = 0.0
max = 1.0
default = 0.0
[layer.scores]
epoch = 1
[layer.scores.params.beta]
default = 0.0
[experiment.novel]
kind = "ab"
layer = "scores"
epoch = 1
allocation_bp = 10000
[[experiment.novel.arm]]
name = "as-it-is"
[[experiment.novel.arm]]
name = "novel"
params = { beta = 0.5 }
"#;

/// Setup with two layers on the surface.
fn two_layers() -> String {
    format!("{SETUP}{BLEND}{SCORES}")
        .replace("journal = \"experiments.jsonl\"", "")
        .replace(
            "layer = \"ranking\"\nvariant = \"plain\"",
            "layer = [\"ranking\", \"scores\"]\nvariant = \"blend\"",
        )
        .replace("alpha * popularity", "alpha * popularity + beta * novelty")
}

/// A listener is in one experiment of each layer: the answer has the parameters of both arms, and each
/// experiment an exposure.
#[tokio::test]
async fn an_answer_has_the_arms_of_all_layers_and_an_exposure_for_each() {
    let world = World::new();
    world.publish(1);
    let text = two_layers();
    world.write_text(&text);
    let log = world.dir.path().join("log");
    let mut config = world.config();
    let read_config = Config::load(&world.file()).expect("valid");
    config.server.labels = read_config.server.labels;
    config.variants = read_config.variants;
    config.experiments = read_config.experiments;
    config.exposures.path = Some(log.clone());
    let server = Running::start(config).await;
    let mut client = RecommendationServiceClient::new(server.channel.clone());
    let mut assigner = ExperimentServiceClient::new(server.channel.clone());
    let mut expected = BTreeMap::new();
    for n in 0..100 {
        let user = format!("u{n}");
        let answer = client.recommend(ask(&user, n)).await.expect("answers");
        let served_by = answer.get_ref().served_by.clone().expect("told");
        let further = &served_by.further;
        assert_eq!(
            (further.len(), further[0].experiment.as_str()),
            (1, "novel")
        );
        let mut variant = match served_by.arm.as_str() {
            "" => "blend".to_owned(),
            "little" => "blend|alpha=0.2".to_owned(),
            arm => {
                assert_eq!(arm, "much");
                "blend|alpha=0.4".to_owned()
            }
        };
        if further[0].arm == "novel" {
            variant += "|beta=0.5";
        }
        assert_eq!(served_by.variant, variant);
        assert_ne!(answer.get_ref().exposure_id, further[0].exposure_id);
        let request = v1::AssignRequest {
            unit_id: user.clone(),
            ..v1::AssignRequest::default()
        };
        let assigned = assigner
            .assign(request)
            .await
            .expect("assigns")
            .into_inner();
        let first = assigned.assignment.expect("there");
        assert_eq!(
            (first.arm, first.variant),
            (served_by.arm.clone(), variant.clone())
        );
        assert_eq!(assigned.further[0].arm, further[0].arm);
        assert_eq!(assigned.further[0].variant, variant);
        expected.insert(
            (user.clone(), served_by.experiment),
            (served_by.arm, variant.clone()),
        );
        expected.insert(
            (user, "novel".to_owned()),
            (further[0].arm.clone(), variant),
        );
    }
    server.stop().await.expect("drains");
    let rows = read(&log, "exposures");
    let column = |name: &str| texts(&rows, name);
    let keys = column("unit_id").into_iter().zip(column("experiment"));
    let arms = column("variant").into_iter().zip(column("ranking_variant"));
    let logged: BTreeMap<_, _> = keys.zip(arms).collect();
    assert_eq!(logged, expected);
    assert_eq!(column("unit_id").len(), 200);
    let layers: std::collections::BTreeSet<String> = column("layer").into_iter().collect();
    assert_eq!(layers.len(), 2);
}

/// An arm that another system gave is followed and logged as such; one that is not declared is refused.
#[tokio::test]
async fn an_arm_from_elsewhere_is_followed_checked_and_logged_as_such() {
    let world = World::new();
    world.publish(1);
    let text = format!("{SETUP}{BLEND}{SCORES}")
        .replace("journal = \"experiments.jsonl\"", "")
        .replace(
            "[experiment.blend]\n",
            "[experiment.blend]\nassigner = \"external\"\n",
        )
        .replace("allocation_bp = 5000", "allocation_bp = 10000");
    world.write_text(&text);
    let log = world.dir.path().join("log");
    let mut config = world.config();
    let read_config = Config::load(&world.file()).expect("valid");
    config.server.labels = read_config.server.labels;
    config.variants = read_config.variants;
    config.experiments = read_config.experiments;
    config.exposures.path = Some(log.clone());
    let server = Running::start(config).await;
    let mut client = RecommendationServiceClient::new(server.channel.clone());
    let with = |user: &str, experiment: &str, arm: &str| v1::RecommendRequest {
        ranking: Some(v1::Ranking {
            external_arms: [(experiment.to_owned(), arm.to_owned())].into(),
            ..v1::Ranking::default()
        }),
        ..ask(user, 0)
    };
    for (user, arm, variant) in [
        ("a", "little", "blend|alpha=0.2"),
        ("b", "much", "blend|alpha=0.4"),
    ] {
        let answer = client
            .recommend(with(user, "blend", arm))
            .await
            .expect("answers");
        let served_by = answer.into_inner().served_by.expect("told");
        assert_eq!(
            (served_by.arm.as_str(), served_by.variant.as_str()),
            (arm, variant)
        );
    }
    for (user, experiment) in [("c", "gone"), ("d", "")] {
        let answer = client
            .recommend(with(user, experiment, "much"))
            .await
            .expect("answers");
        let served_by = answer.into_inner().served_by.expect("told");
        assert_eq!(
            (served_by.arm.as_str(), served_by.variant.as_str()),
            ("", "plain")
        );
    }
    for (experiment, arm, complaint) in [
        (
            "blend",
            "most",
            "ranking.external_arms[blend]: there is no arm \"most\"; there are little, much",
        ),
        (
            "novel",
            "novel",
            "ranking.external_arms[novel]: the experiment deals its arms by itself",
        ),
    ] {
        let refused = client
            .recommend(with("a", experiment, arm))
            .await
            .expect_err("refused");
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(
            refused.message().contains(complaint),
            "{}",
            refused.message()
        );
    }
    server.stop().await.expect("drains");
    let rows = read(&log, "exposures");
    let probabilities = rows.iter().map(|batch| {
        let column = batch.column_by_name("assign_prob").expect("there");
        arrow_array::Array::null_count(column)
    });
    assert_eq!(probabilities.sum::<usize>(), 4);
    let units = texts(&rows, "unit_id");
    let (arms, given) = (texts(&rows, "variant"), texts(&rows, "experiment"));
    let of = |unit: &str| {
        units
            .iter()
            .position(|other| other == unit)
            .expect("logged")
    };
    for (unit, arm, experiment) in [
        ("a", "little", "blend"),
        ("b", "much", "blend"),
        ("c", "", ""),
        ("d", "", ""),
    ] {
        assert_eq!(
            (arms[of(unit)].as_str(), given[of(unit)].as_str()),
            (arm, experiment)
        );
    }
}

/// What traces say of an assignment has the names of OpenTelemetry's conventions.
#[tokio::test]
async fn assignments_are_traced_under_the_names_of_opentelemetry() {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("sound").write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    let world = World::new();
    world.publish(1);
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter("off,feature_flag=debug")
        .with_writer(move || writer.clone())
        .finish();
    // Where there is one subscriber alone, whichever thread comes by first decides for all whether an event is of interest;
    // the threads of other tests have none.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(subscriber);
    let server = world.serve_text(&two_layers()).await;
    let mut client = RecommendationServiceClient::new(server.channel.clone());
    let answer = client.recommend(ask("u1", 0)).await.expect("answers");
    let served_by = answer.into_inner().served_by.expect("told");
    server.stop().await.expect("drains");
    let text = String::from_utf8(lines.0.lock().expect("sound").clone()).expect("UTF-8");
    let events: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(events.len(), 2, "{text}");
    let arms = [&served_by.arm, &served_by.further[0].arm];
    let experiments = [&served_by.experiment, &served_by.further[0].experiment];
    for (at, event) in events.iter().enumerate() {
        let said = |name: &str| {
            event[format!("feature_flag.{name}")]
                .as_str()
                .unwrap_or("-")
                .to_owned()
        };
        assert_eq!(event["message"], "feature_flag.evaluation");
        assert_eq!(said("key"), ["ranking.variant", "scores.variant"][at]);
        let (variant, reason) = match arms[at].as_str() {
            "" => ("default", "static"),
            arm => (arm, "split"),
        };
        assert_eq!(
            (said("result.variant"), said("result.reason")),
            (variant.to_owned(), reason.to_owned())
        );
        assert_eq!(
            (said("context.id"), said("provider.name")),
            ("u1".to_owned(), "refrain".to_owned())
        );
        assert_eq!(said("set.id"), *experiments[at]);
        assert_eq!(said("version"), served_by.config_digest);
    }
}
