//! From a log to a published version and back, as documents.

use serde_json::Value;

use crate::support::{Made, arg, command, document, fails, ok};

#[test]
fn a_log_becomes_a_version_that_labels_move_to_and_from() {
    let made = Made::shared();
    let home = tempfile::tempdir().expect("temporary folder");
    let store = home.path().join("store");
    let store = arg(&store);
    let bundle = made.at("bundle");

    let verified = document(&["verify", arg(&bundle)]);
    assert_eq!(verified["ok"], true);
    let first = document(&["publish", arg(&bundle), "--store", store]);
    assert_eq!(first["new"], true);
    assert_eq!(first["version"], verified["version"]);
    assert_eq!(first["label"]["name"], "stable");
    let again = document(&["publish", arg(&bundle), "--store", store]);
    assert_eq!(
        (&again["new"], &again["version"]),
        (&Value::Bool(false), &first["version"])
    );
    fails(&["rollback", "--store", store], 1, &["no previous version"]);

    let other = home.path().join("other");
    let model = made.at("model");
    let built = document(&[
        "build",
        "--model",
        arg(&model),
        "--seed",
        "7",
        "--m",
        "8",
        "--out",
        arg(&other),
    ]);
    assert!(
        built["index"]["recall_at_10"].as_f64().expect("measured") > 0.9,
        "{built}"
    );
    let second = document(&["publish", arg(&other), "--store", store, "--no-label"]);
    assert_eq!(second["label"], Value::Null);
    let version = |published: &Value| published["version"].as_str().expect("id").to_owned();
    let (first, second) = (version(&first), version(&second));
    assert_ne!(first, second);

    let moved = document(&["promote", &second, "--store", store]);
    assert_eq!(moved["label"]["previous"], first.as_str());
    let etag = moved["label"]["etag"].as_str().expect("etag").to_owned();
    let back = document(&["rollback", "--store", store, "--etag", &etag]);
    assert_eq!(back["label"]["version"], first.as_str());
    // The etag of before the rollback is no longer that of the label.
    fails(
        &["promote", &second, "--store", store, "--etag", &etag],
        1,
        &["moved by someone else"],
    );
    fails(&["promote", "v-none", "--store", store], 1, &["v-none"]);
    fails(
        &["rollback", "--store", store, "--label", "canary"],
        1,
        &["canary"],
    );

    let listed = document(&["versions", "--store", store]);
    let versions = listed["versions"].as_array().expect("versions");
    assert_eq!(versions.len(), 2);
    for entry in versions {
        let labels = if entry["version"] == first.as_str() {
            1
        } else {
            0
        };
        assert_eq!(
            entry["labels"].as_array().map(Vec::len),
            Some(labels),
            "{entry}"
        );
    }
    let shown = ok(&["versions", "--store", store]);
    assert!(
        shown.contains(&first) && shown.contains("stable"),
        "{shown}"
    );
    assert_eq!(
        document(&["verify", "stable", "--store", store])["version"],
        first.as_str()
    );
}

#[test]
fn training_reports_beside_popularity() {
    let made = Made::shared();
    let home = tempfile::tempdir().expect("temporary folder");
    let out = home.path().join("model");
    let listens = made.at("log/listens.csv");
    let args = [
        "train",
        "--listens",
        arg(&listens),
        "--rank",
        "16",
        "--iterations",
        "4",
        "--out",
        arg(&out),
    ];
    let trained = document(&args);
    for who in ["model", "popularity"] {
        for figure in ["recall_at_20", "ndcg_at_20", "map_at_20", "coverage_at_20"] {
            let value = trained[who][figure].as_f64().expect("measured");
            assert!((0.0..=1.0).contains(&value), "{who}.{figure} is {value}");
        }
    }
    let recall = |who: &str| trained[who]["recall_at_20"].as_f64().expect("measured");
    assert!(recall("model") > recall("popularity"), "{trained}");
    // A second run would overwrite a model.
    fails(&args, 1, &["there already"]);
}

#[test]
fn evaluation_says_no_below_the_recall_that_is_asked() {
    let bundle = Made::shared().at("bundle");
    let evaluated = document(&["evaluate", arg(&bundle), "--ef-search", "10,400"]);
    let recall = |at: usize| evaluated["index"]["pool_sizes"][at]["recall"].as_f64();
    assert!(
        recall(0) <= recall(1) && recall(1) > Some(0.99),
        "{evaluated}"
    );
    document(&["evaluate", arg(&bundle), "--min-recall", "0.9"]);
    let refused = command()
        .args([
            "evaluate",
            arg(&bundle),
            "--ef-search",
            "10",
            "--min-recall",
            "1",
            "--json",
        ])
        .output()
        .expect("the binary starts");
    let report: Value = serde_json::from_slice(&refused.stdout).expect("one document");
    let found = report["index"]["pool_sizes"][0]["recall"]
        .as_f64()
        .expect("measured");
    assert!(
        found < 1.0,
        "a pool of 10 finds everything: the test needs a harder index"
    );
    assert_eq!(refused.status.code(), Some(3), "{report}");
    assert_eq!(report["passed"], false);
}

#[test]
fn evaluation_judges_by_what_was_heard_later() {
    let made = Made::shared();
    let home = tempfile::tempdir().expect("temporary folder");
    let log = fs_err::read_to_string(made.at("log/listens.csv")).expect("log");
    let (header, rows) = log.split_once('\n').expect("header");
    let rows: Vec<&str> = rows.lines().collect();
    let (before, after) = rows.split_at(rows.len() * 9 / 10);
    for (name, part) in [("before.csv", before), ("after.csv", after)] {
        let text = format!("{header}\n{}\n", part.join("\n"));
        fs_err::write(home.path().join(name), text).expect("written");
    }
    let bundle = made.at("bundle");
    let (before, after) = (
        home.path().join("before.csv"),
        home.path().join("after.csv"),
    );
    let evaluated = document(&[
        "evaluate",
        arg(&bundle),
        "--listens",
        arg(&before),
        "--held-out",
        arg(&after),
        "--max-users",
        "200",
    ]);
    let judged = &evaluated["held_out"];
    let recall = |who: &str| judged[who]["recall_at_20"].as_f64().expect("measured");
    assert!(recall("model") > recall("popularity"), "{judged}");
    assert!(judged["counts"]["users"].as_u64() <= Some(200), "{judged}");
}

#[test]
fn the_same_build_twice_is_the_same_version() {
    let made = Made::shared();
    let home = tempfile::tempdir().expect("temporary folder");
    let model = made.at("model");
    let versions: Vec<String> = ["1", "2"]
        .into_iter()
        .map(|threads| {
            let out = home.path().join(threads);
            let output = command()
                .args([
                    "build",
                    "--model",
                    arg(&model),
                    "--out",
                    arg(&out),
                    "--json",
                ])
                .args(["--threads", threads])
                .env("SOURCE_DATE_EPOCH", "1795376700")
                .output()
                .expect("the binary starts");
            let built: Value = serde_json::from_slice(&output.stdout).expect("one document");
            built["version"].as_str().expect("id").to_owned()
        })
        .collect();
    assert_eq!(versions[0], versions[1]);
    assert!(versions[0].starts_with("v20261122T"), "{versions:?}");
}

#[test]
fn inspection_shows_what_is_inside() {
    let bundle = Made::shared().at("bundle");
    let inspected = document(&["inspect", arg(&bundle)]);
    assert_eq!(inspected["manifest"]["dim"], 16);
    let graph = &inspected["manifest"]["report"]["index"]["graph"];
    assert!(graph["links_an_item"].as_f64() > Some(4.0), "{graph}");
    assert!(graph["links_answers_lacked"].as_u64() > Some(0), "{graph}");
    let popular = &inspected["most_popular"][0];
    let id = popular["item_id"].as_str().expect("id");
    let shown = ok(&["inspect", arg(&bundle), "--item", id]);
    assert!(
        shown.contains(popular["title"].as_str().expect("title")),
        "{shown}"
    );
    fails(
        &["inspect", arg(&bundle), "--item", "no such item"],
        1,
        &["no such item"],
    );
}
