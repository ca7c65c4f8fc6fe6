//! A person's client against the real server process.

use serde_json::Value;

use crate::support::{Made, Server, arg, document, fails, ok};

#[test]
fn a_listener_is_known_excludes_and_undoes() {
    let server = Server::start();
    let with = |args: &[&str]| -> Vec<String> {
        args.iter()
            .map(|&arg| arg.to_owned())
            .chain(["--addr".into(), server.addr.clone()])
            .collect()
    };
    let ask = |args: &[&str]| -> Value {
        let args = with(args);
        document(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let told = |args: &[&str]| -> String {
        let args = with(args);
        ok(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let refused = |args: &[&str], words: &[&str]| {
        let args = with(args);
        fails(
            &args.iter().map(String::as_str).collect::<Vec<_>>(),
            1,
            words,
        );
    };
    assert_eq!(ask(&["health"])["status"], "SERVING");

    // Nobody knows the listener: popularity answers, and says so.
    let cold = ask(&["recommend", "nobody", "-k", "5"]);
    assert_eq!(cold["degraded"][0], "fallback_used");
    assert!(told(&["recommend", "nobody"]).contains("popular items"));

    let listens = Made::shared().at("log/listens.csv");
    let listens = arg(&listens);
    let imported = ask(&["profile", "import", "--listens", listens]);
    let count = |document: &Value, key: &str| document[key].as_u64().expect("a count");
    assert!(count(&imported, "appended") > 100_000, "{imported}");
    let again = ask(&["profile", "import", "--listens", listens]);
    assert_eq!(count(&again, "appended"), 0, "{again}");
    assert_eq!(
        count(&again, "duplicates"),
        count(&imported, "appended") + count(&imported, "duplicates")
    );

    // Somebody of the log who hears the sleep playlist and other things.
    let log = fs_err::read_to_string(listens).expect("log");
    let sleepers = log.lines().filter(|line| line.contains("playlist:sleep"));
    let user = sleepers
        .filter_map(|line| line.split(',').next())
        .next()
        .expect("a sleeper");
    let list = |answer: &Value| -> Vec<Value> {
        let results = answer["results"].as_array().expect("results");
        results
            .iter()
            .map(|result| result["item_id"].clone())
            .collect()
    };
    let recommend = ["recommend", user, "-k", "10", "--variant", "plain"];
    let before = ask(&recommend);
    assert_eq!(list(&before).len(), 10);
    assert_eq!(before["forced"], true);
    let excluded = ask(&[
        "exclude",
        user,
        "--context",
        "playlist:sleep",
        "--rule-id",
        "r1",
    ]);
    assert_eq!(excluded["exclusion"]["effect"], "learn");
    let profile = ask(&["profile", "show", user, "--events", "1000", "--vector"]);
    assert!(count(&profile, "events_excluded") > 0, "{profile}");
    for event in profile["newest_events"].as_array().expect("events") {
        let asleep = event["context"] == "playlist:sleep";
        assert_eq!(event["rule_id"] == "r1", asleep, "{event}");
        assert_eq!(event["weight"] == 0.0, asleep, "{event}");
    }
    assert_ne!(list(&ask(&recommend)), list(&before));
    assert!(told(&["exclude", user, "--list"]).contains("context playlist:sleep"));
    ask(&["exclude", user, "--undo", "r1"]);
    assert_eq!(ask(&recommend)["results"], before["results"]);
    refused(&["exclude", user, "--undo", "r1"], &["NOT_FOUND"]);

    // A SERVE rule takes an item out of the answer; the filter does so for one request.
    let top = list(&before)[0].as_str().expect("id").to_owned();
    ask(&[
        "exclude",
        user,
        "--item",
        &top,
        "--effect",
        "serve",
        "--expires",
        "1d",
    ]);
    assert!(!list(&ask(&recommend)).contains(&Value::String(top.clone())));

    let similar = ask(&["similar", &top, "-k", "3"]);
    assert_eq!(list(&similar).len(), 3);
    refused(&["similar", "no such item"], &["NOT_FOUND", "no such item"]);
    let seeds = ask(&[
        "recommend",
        "--seed",
        &top,
        "--seed",
        "no such item",
        "-k",
        "3",
    ]);
    assert_eq!(seeds["unresolved_seeds"][0], "no such item");
    refused(
        &["recommend", "--vector", "1,2"],
        &["INVALID_ARGUMENT", "vector.values"],
    );

    let compared = ask(&["compare", user, "--variants", "plain,balanced", "-k", "5"]);
    let names: Vec<&Value> = compared["variants"]
        .as_array()
        .expect("two")
        .iter()
        .map(|v| &v["variant"])
        .collect();
    assert_eq!(names, ["plain", "balanced"]);
    assert!(told(&["compare", user]).contains("rank-biased overlap"));
    // The bucket of `u1` in `ranking` at epoch 1, as other languages compute it.
    let assigned = ask(&["experiment", "assign", "u1", "--surface", "home"]);
    assert_eq!(assigned["assignments"][0]["bucket"], 729_445);

    let appended = ask(&["profile", "append", "bob", "--item", &top, "--kind", "like"]);
    assert_eq!(count(&appended, "appended"), 1);
    assert!(told(&["profile", "show", "bob"]).contains("like"));

    let addr = server.addr.clone();
    assert_eq!(server.terminate(), Some(0));
    fails(&["health", "--addr", &addr], 1, &["no server answers"]);
}
