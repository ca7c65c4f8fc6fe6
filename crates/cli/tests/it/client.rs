//! A person's client against the real server process.

use std::collections::BTreeSet;

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

/// 300 listeners under two variants, from a version that knows scenes: the sums are those of the lists.
#[test]
fn variants_are_compared_over_a_sample_of_listeners() {
    const LISTENERS: usize = 300;
    let made = Made::shared();
    let home = tempfile::tempdir().expect("temporary folder");
    let at = |name: &str| home.path().join(name);
    let model = made.at("model");
    let scenes = at("scenes.parquet");
    ok(&["cluster", arg(&model), "--out", arg(&scenes)]);
    ok(&[
        "build",
        "--model",
        arg(&model),
        "--scenes",
        arg(&scenes),
        "--out",
        arg(&at("bundle")),
    ]);
    let server = Server::of(&at("bundle"));
    let with = |args: &[&str]| -> Vec<String> {
        let args = args.iter().map(|&arg| arg.to_owned());
        args.chain(["--addr".into(), server.addr.clone()]).collect()
    };
    let ask = |args: &[&str]| -> Value {
        let args = with(args);
        document(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };

    let log = fs_err::read_to_string(made.at("log/listens.csv")).expect("log");
    let mut lines = log.lines();
    let mut some = vec![lines.next().expect("a header")];
    let mut users: BTreeSet<&str> = BTreeSet::new();
    for line in lines {
        let user = line.split(',').next().expect("a listener");
        if users.len() < LISTENERS || users.contains(user) {
            users.insert(user);
            some.push(line);
        }
    }
    fs_err::write(at("some.csv"), some.join("\n")).expect("writable");
    let names: Vec<&str> = users.iter().copied().collect();
    fs_err::write(at("users"), names.join("\n")).expect("writable");
    ask(&["profile", "import", "--listens", arg(&at("some.csv"))]);

    let file = at("users");
    let of = |sample: &str| {
        ask(&[
            "compare",
            "--users",
            arg(&file),
            "--sample",
            sample,
            "--variants",
            "plain,balanced",
            "-k",
            "10",
        ])
    };
    let all = of("1000");
    assert_eq!(all["listeners"], LISTENERS);
    let [plain, balanced] = [0, 1].map(|at| &all["variants"][at]);
    let number = |value: &Value| value.as_f64().expect("a number");
    assert_eq!(number(&plain["overlap"]["mean"]), 1.0);
    assert_eq!(number(&plain["identical_share"]), 1.0);
    let overlap = number(&balanced["overlap"]["mean"]);
    assert!(0.0 < overlap && overlap < 1.0, "{balanced}");
    assert!(!balanced["added"].as_array().expect("items").is_empty());
    for variant in [plain, balanced] {
        assert_eq!(number(&variant["degraded_share"]), 0.0, "{variant}");
        assert!(number(&variant["distinct_scenes_mean"]) > 1.0, "{variant}");
        for mix in ["artists", "scenes"] {
            let shares = variant[mix].as_array().expect("groups");
            let shares: Vec<f64> = shares.iter().map(|group| number(&group["share"])).collect();
            assert!(shares.is_sorted_by(|a, b| a >= b), "{variant}");
            let sum: f64 = shares.iter().sum();
            assert!(0.0 < sum && sum < 1.0 + 1e-9, "{variant}");
        }
    }

    // Ten of them by hand.
    let few = of("10");
    let mut overlaps = 0.0;
    let mut asked = 0;
    let (mut scenes, mut distinct) = (BTreeSet::new(), 0);
    let sample: BTreeSet<&str> = sampled(&names, 10);
    for user in sample {
        let one = ask(&["compare", user, "--variants", "plain,balanced", "-k", "10"]);
        overlaps += number(&one["variants"][1]["overlap"]);
        let groups = one["variants"][1]["scenes"].as_array().expect("groups");
        distinct += groups.len();
        let items: u64 = groups
            .iter()
            .map(|group| group["items"].as_u64().expect("a count"))
            .sum();
        assert!((1..=10).contains(&items), "{one}");
        scenes.extend(groups.iter().map(|group| group["name"].to_string()));
        asked += 1;
    }
    assert_eq!(asked, 10);
    let balanced = &few["variants"][1];
    assert!((number(&balanced["overlap"]["mean"]) - overlaps / 10.0).abs() < 1e-9);
    let mean = number(&balanced["distinct_scenes_mean"]);
    assert!((mean - distinct as f64 / 10.0).abs() < 1e-9);
    assert!(scenes.len() > 1);

    let text = {
        let args = with(&["compare", names[0], "--variants", "plain,balanced"]);
        ok(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    assert!(text.contains("balanced by scenes: ") && text.contains("balanced by artists: "));

    let listed = ask(&["experiment", "list"]);
    let one = &listed["experiments"][0];
    assert_eq!(one["kind"], "ab");
    assert_eq!(one["arms"][1]["variant"], "balanced");
    let free = listed["layers"][0]["free_bp"].as_u64().expect("a share");
    assert_eq!(
        free + one["allocation_bp"].as_u64().expect("a share"),
        10_000
    );
}

/// The listeners with the lowest hashes, as `compare --sample` takes them.
fn sampled<'a>(names: &[&'a str], sample: usize) -> BTreeSet<&'a str> {
    let mut names = names.to_vec();
    names.sort_by_key(|name| refrain_experiments::hash64(format!("C:{name}").as_bytes()));
    names.into_iter().take(sample).collect()
}
