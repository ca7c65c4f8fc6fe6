use proptest::prelude::*;

use super::*;
use crate::parameter::PARAMETERS;

fn read(text: &str) -> Variants {
    Variants::from_toml(text).expect("valid")
}

fn refusal(text: &str) -> String {
    Variants::from_toml(text).expect_err(text).to_string()
}

#[test]
fn the_defaults_are_what_the_documentation_says() {
    let variants = read(DEFAULT_TOML);
    assert_eq!(variants.names(), ["balanced", "plain"]);
    let plain = variants.default_variant().expect("declared");
    assert_eq!(
        (plain.name.as_str(), plain.score.to_string().as_str()),
        ("plain", "similarity")
    );
    assert_eq!(
        (plain.caps, plain.candidates, plain.width),
        (Caps::default(), 500, None)
    );
    let balanced = variants.get("balanced").expect("declared");
    assert_eq!(
        balanced.score.to_string(),
        "similarity + 0.15 * popularity + 0.1 * freshness"
    );
    assert_eq!(balanced.caps.artist, Some(2));
}

/// A derived variant is the one that would have been declared with those values, but for its name.
#[test]
fn a_variant_is_derived_with_other_values() {
    let text = |a: f64, b: f64| {
        format!(
            "[parameter.a]\ntype = 'number'\nunit = 'score'\nmin = 0\nmax = 1\ndefault = 0.5\n\
             [parameter.b]\ntype = 'integer'\nunit = 'score'\nmin = 0\nmax = 9\ndefault = 1\n\
             [variant.v]\nscore = 'similarity + a * popularity - b'\nmax_per_artist = 2\n\
             params = {{ a = {a:?}, b = {b:?} }}\n[variant.w]\nscore = 'similarity + a'\n"
        )
    };
    let mut variants = read(&text(0.25, 2.0));
    let values = BTreeMap::from([("a", 0.75), ("b", 3.0)]);
    let name = variants.derive("v", &values).expect("allowed");
    assert_eq!(name, "v|a=0.75|b=3");
    let derived = variants.get(&name).expect("added").clone();
    let declared = read(&text(0.75, 3.0));
    let expected = Variant {
        name,
        ..declared.get("v").expect("declared").clone()
    };
    assert_eq!(derived, expected);
    // What is not set keeps the variant's own value, and the variant itself stays.
    let name = variants
        .derive("v", &BTreeMap::from([("a", 1.0)]))
        .expect("allowed");
    assert_eq!(
        variants.get(&name).expect("added").score.to_string(),
        "similarity + 1 * popularity - 2"
    );
    let v = variants.get("v").expect("declared");
    assert_eq!(v.parameters["a"].to_bits(), 0.25_f64.to_bits());
    for (base, parameter, value, complaint) in [
        ("v", "a", 1.5, "1.5 is not in 0 to 1 (score)"),
        ("v", "b", 1.5, "1.5 is no whole number"),
        ("v", "c", 0.0, "is not declared"),
        (
            "w",
            "b",
            1.0,
            "neither the score of variant `w` nor a setting names it: similarity + a",
        ),
        ("x", "a", 1.0, "variant `x` is not declared"),
    ] {
        let (_, problem) = variants
            .derive(base, &BTreeMap::from([(parameter, value)]))
            .expect_err(complaint);
        assert_eq!(problem, complaint);
    }
}

/// Wherever a setting takes a number it takes the name of a parameter, and a variant can be derived with
/// other values of it.
#[test]
fn settings_may_be_parameters() {
    let declared = |name: &str, kind: &str, default: &str| {
        format!(
            "[parameter.{name}]\ntype = '{kind}'\nunit = 'u'\nmin = 0\nmax = 20000\ndefault = {default}\n"
        )
    };
    let parameters = [
        declared("many", "integer", "700"),
        declared("spread", "number", "0.5"),
        declared("cap", "integer", "3"),
        declared("warmth", "number", "0.25"),
        declared("days", "number", "30"),
        declared("unused", "number", "1"),
    ]
    .concat();
    let by_name = "[variant.v]\nscore = 'similarity'\ncandidates = 'many'\nmmr_lambda = 'spread'\ndebias = 'spread'\n\
        mmr_pool = 'many'\nmax_per_artist = 'cap'\nmax_per_scene = 'cap'\ninterests = 'cap'\n\
        ef_search = 'many'\nfreshness_half_life_days = 'days'\nparams = { cap = 2 }\n\
        [variant.v.exploration]\ntemperature = 'warmth'\npool = 'many'\n";
    let mut variants = read(&format!("{parameters}{by_name}"));
    let written_out = by_name
        .replace("'many'", "700")
        .replace("'spread'", "0.5")
        .replace("'cap'", "2")
        .replace("'warmth'", "0.25")
        .replace("'days'", "30")
        .replace("params = { cap = 2 }\n", "");
    let plain = read(&written_out);
    let v = variants.get("v").expect("declared").clone();
    let named: Vec<&str> = v.parameters.keys().map(String::as_str).collect();
    assert_eq!(named, ["cap", "days", "many", "spread", "warmth"]);
    let expected = Variant {
        parameters: v.parameters.clone(),
        ..plain.get("v").expect("declared").clone()
    };
    assert_eq!(v, expected);
    assert_eq!(variants.canonical(), plain.canonical());

    let values = BTreeMap::from([("spread", 1.0), ("cap", 4.0)]);
    let name = variants.derive("v", &values).expect("allowed");
    assert_eq!(name, "v|cap=4|spread=1");
    let derived = variants.get(&name).expect("added");
    assert_eq!(derived.caps.artist, Some(4));
    assert_eq!(derived.caps.scene, Some(4));
    assert_eq!(
        derived.mmr.expect("set").lambda.to_bits(),
        1.0_f32.to_bits()
    );
    assert_eq!(derived.candidates, 700);
    // Once more from there.
    let again = variants
        .derive(&name, &BTreeMap::from([("many", 20.0)]))
        .expect("allowed");
    let again = variants.get(&again).expect("added");
    assert_eq!((again.candidates, again.caps.artist), (20, Some(4)));

    for (parameter, value, complaint) in [
        ("spread", 1.5, "variant.v.mmr_lambda: 1.5 is not in 0 to 1"),
        ("many", 0.0, "variant.v.ef_search: 0 is not in 1 to 10000"),
        ("cap", 0.5, "0.5 is no whole number"),
        (
            "unused",
            1.0,
            "neither the score of variant `v` nor a setting names it: similarity",
        ),
    ] {
        let values = BTreeMap::from([(parameter, value)]);
        let (_, problem) = variants.derive("v", &values).expect_err(complaint);
        assert!(problem.starts_with(complaint), "{problem}");
    }
    for (is, complaint) in [
        (
            "mmr_lambda = 'sprad'",
            "mmr_lambda: parameter `sprad` is not declared; declared: cap, days, many, spread, unused, warmth",
        ),
        ("mmr_lambda = 'many'", "mmr_lambda: 700 is not in 0 to 1"),
        ("mmr_lambda = []", "a number, or the name of a parameter"),
    ] {
        let text = format!(
            "{parameters}{}",
            by_name.replace("mmr_lambda = 'spread'", is)
        );
        let error = Variants::from_toml(&text).expect_err(is).to_string();
        assert!(error.contains(complaint), "{error}");
    }
    let fraction = by_name.replace("candidates = 'many'", "candidates = 'warmth'");
    let error = Variants::from_toml(&format!("{parameters}{fraction}")).expect_err("refused");
    assert!(
        error.to_string().contains("candidates: 0.25 is not in 1"),
        "{error}"
    );
}

#[test]
fn all_fields_are_read() {
    let text = "[parameter.weight]\ntype = 'number'\nunit = 'score'\nmin = 0\nmax = 1\ndefault = 0.5\n\
                [variant.v]\ndescription = 'all of it'\nlabels = ['canary', 'stable']\n\
                candidates = 10000\ninterests = 4\nef_search = 1\ndebias = 0.5\nscore = 'freshness + weight'\n\
                params = { weight = 0.25 }\nmax_per_artist = 1000\nmax_per_scene = 3\n\
                mmr_lambda = 0.75\nmmr_pool = 50\npinned = ['a', 'b']\n\
                freshness_half_life_days = 7\n\
                [variant.v.exploration]\ntemperature = 0.1\npool = 20\n";
    let variants = read(text);
    let expected = Variant {
        name: "v".to_owned(),
        description: "all of it".to_owned(),
        labels: vec!["canary".to_owned(), "stable".to_owned()],
        candidates: 10_000,
        interests: 4,
        debias: 0.5,
        width: Some(Width::Ef(1)),
        score: Expression::parse("freshness + 0.25").expect("valid"),
        parameters: BTreeMap::from([("weight".to_owned(), 0.25)]),
        model: None,
        caps: Caps {
            artist: Some(1_000),
            scene: Some(3),
        },
        mmr: Some(Mmr {
            lambda: 0.75,
            pool: 50,
        }),
        exploration: Some(Exploration {
            temperature: 0.1,
            pool: 20,
        }),
        pinned: vec!["a".to_owned(), "b".to_owned()],
        freshness_half_life_days: 7.0,
    };
    assert_eq!(variants.get("v"), Some(&expected));
    assert_eq!(variants.default_variant(), Some(&expected));
    let recall = read("[variant.v]\nscore = '1'\nrecall = 0.98\nlabel = 'x'\n");
    let recall = recall.get("v").expect("declared");
    assert_eq!(recall.width, Some(Width::Recall(0.98)));
    assert_eq!(recall.labels, ["x"]);
}

#[test]
fn a_model_is_declared_with_what_it_is_asked_about() {
    let text = "[variant.v]\nscore = 'model + 0.1 * freshness'\nmodel = 'm.onnx'\n\
                model_features = ['similarity', 'item.listeners']\n";
    let mut variants = read(text);
    let model = |variants: &Variants| {
        let variant = variants.get("v").expect("declared");
        assert!(variant.needs(Feature::Freshness) && variant.needs(Feature::Similarity));
        assert!(!variant.needs(Feature::Novelty));
        variant.model.clone().expect("declared")
    };
    let features = [Feature::Similarity, Feature::Item(crate::Column::Listeners)];
    assert_eq!(model(&variants).features, features);
    let without = variants.canonical();

    #[derive(Debug)]
    struct Sum;

    impl crate::Model for Sum {
        fn predict(&self, rows: &[f32], out: &mut Vec<f32>) {
            out.extend(rows.chunks(2).map(|row| row.iter().sum::<f32>()));
        }
    }

    let loaded = |digest: &str| Loaded {
        digest: digest.to_owned(),
        model: std::sync::Arc::new(Sum),
    };
    let error = variants
        .load_models(&mut |_, _| Err("is no model".to_owned()))
        .expect_err("refused");
    assert_eq!(error.to_string(), "line 3: variant.v.model: is no model");
    let load = &mut |file: &str, width: usize| {
        assert_eq!((file, width), ("m.onnx", 2));
        Ok(loaded("one"))
    };
    variants.load_models(load).expect("loads");
    // What is ranked with depends on the file, not on its name alone.
    let one = variants.clone();
    let mut other = variants.clone();
    other
        .load_models(&mut |_, _| Ok(loaded("two")))
        .expect("loads");
    assert_ne!(one, other);
    assert_ne!(one.canonical(), other.canonical());
    assert_ne!(one.canonical(), without);

    for (lines, expected) in [
        (
            "score = 'model'",
            "line 2: variant.v.score: names `model`, and the variant has none",
        ),
        (
            "score = '1'\nmodel = 'm'\nmodel_features = ['similarity']",
            "line 3: variant.v.model: the score does not name `model`",
        ),
        (
            "score = 'model'\nmodel = 'm'",
            "line 3: variant.v.model: needs model_features",
        ),
        (
            "score = '1'\nmodel_features = ['similarity']",
            "line 3: variant.v.model_features: says nothing without model",
        ),
        (
            "score = 'model'\nmodel = 'm'\nmodel_features = []",
            "line 4: variant.v.model_features: length 0 is not in 1 to 64",
        ),
        (
            "score = 'model'\nmodel = 'm'\nmodel_features = ['model']",
            "line 4: variant.v.model_features: \"model\" is none of similarity, ",
        ),
        (
            "score = 'model'\nmodel = ''\nmodel_features = ['similarity']",
            "line 3: variant.v.model: length 0 is not in 1 to 1024",
        ),
    ] {
        let message = refusal(&format!("[variant.v]\n{lines}\n"));
        assert!(message.starts_with(expected), "{message}");
    }
}

/// Every bound of the table is held: just inside loads, just outside does not, and says where.
#[test]
fn every_bound_of_the_table_is_held() {
    for setting in PARAMETERS {
        let (least, most) = setting.bounds;
        let declare = |value: &str| {
            let (table, key) = match setting.name.split_once('.') {
                Some((table, key)) => (format!("[variant.v.{table}]\n"), key),
                None => (String::new(), setting.name),
            };
            let more = match setting.name {
                "mmr_pool" => "mmr_lambda = 0.5\n",
                "exploration.pool" => "temperature = 1\n",
                _ => "",
            };
            let score = if key == "score" { "" } else { "score = '1'\n" };
            format!("[variant.v]\n{score}{table}{more}{key} = {value}\n")
        };
        let (inside, outside): (Vec<String>, Vec<String>) = match setting.kind {
            crate::Kind::Integer => (
                vec![format!("{least}"), format!("{most}")],
                vec![format!("{}", least - 1.0), format!("{}", most + 1.0)],
            ),
            crate::Kind::Number => (
                vec![format!("{least}"), format!("{most:.1}")],
                vec![
                    format!("{:e}", least - least.abs().max(1.0) * 1e-3),
                    format!("{:e}", most * 1.001),
                    "nan".to_owned(),
                ],
            ),
            crate::Kind::Text | crate::Kind::List => (Vec::new(), Vec::new()),
        };
        for value in inside {
            read(&declare(&value));
        }
        for value in outside {
            let message = refusal(&declare(&value));
            let expected = format!("variant.v.{}:", setting.name);
            assert!(
                message.starts_with("line ") && message.contains(&expected),
                "{message}"
            );
        }
    }
}

#[test]
fn refusals_name_line_variant_field_and_bounds() {
    let cases = [
        (
            "candidates = 0",
            "line 3: variant.v.candidates: 0 is not in 1 to 10000",
        ),
        (
            "candidates = -1",
            "line 3: variant.v.candidates: -1 is not in 1 to 10000",
        ),
        (
            "ef_search = 100000",
            "line 3: variant.v.ef_search: 100000 is not in 1 to 10000",
        ),
        (
            "recall = 0.2",
            "line 3: variant.v.recall: 0.2 is not in 0.5 to 1",
        ),
        (
            "ef_search = 5\nrecall = 0.9",
            "line 4: variant.v.recall: not together with ef_search",
        ),
        (
            "max_per_artist = 0",
            "line 3: variant.v.max_per_artist: 0 is not in 1 to 1000",
        ),
        (
            "mmr_lambda = 1.5",
            "line 3: variant.v.mmr_lambda: 1.5 is not in 0 to 1",
        ),
        (
            "mmr_pool = 5",
            "line 3: variant.v.mmr_pool: says nothing without mmr_lambda",
        ),
        (
            "\n[variant.v.exploration]\ntemperature = 0",
            "line 5: variant.v.exploration.temperature: 0 is not in 0.000001 to 1000000",
        ),
        (
            "[variant.v.exploration]\npool = 3",
            "missing field `temperature`",
        ),
        (
            "labels = []",
            "line 3: variant.v.labels: length 0 is not in 1 to 16",
        ),
        (
            "label = '../up'",
            "line 3: variant.v.labels: \"../up\" is not",
        ),
        (
            "label = 'a'\nlabels = ['b']",
            "line 4: variant.v.labels: not together with label",
        ),
        (
            "pinned = ['']",
            "line 3: variant.v.pinned: an id is 1 to 128 bytes",
        ),
        (
            "params = { x = 1 }",
            "line 3: variant.v.params.x: parameter `x` is not declared; declared: w",
        ),
        (
            "params = { w = 0.5 }",
            "line 3: variant.v.params.w: neither the score nor a setting names it",
        ),
        (
            "freshness_half_life_days = nan",
            "line 3: variant.v.freshness_half_life_days: NaN is not in 0.01 to 36500",
        ),
        (
            "max_per_arist = 2",
            "unknown field `max_per_arist`, expected one of `description`",
        ),
        ("label = 3", "invalid type: integer `3`"),
        ("candidates = 99999999999999999999", "line 3"),
    ];
    let parameter =
        "[parameter.w]\ntype = 'number'\nunit = 'score'\nmin = 0\nmax = 1\ndefault = 0\n";
    for (line, expected) in cases {
        let message = refusal(&format!(
            "[variant.v]\nscore = 'similarity'\n{line}\n{parameter}"
        ));
        assert!(message.contains(expected), "{message:?} lacks {expected:?}");
        assert!(message.contains("line "), "{message:?} has no line");
    }
    let score = |text: &str| refusal(&format!("\n[variant.v]\nscore = '{text}'\n"));
    assert!(score("1 +").contains("line 3: variant.v.score: column 4: the expression ends"));
    assert!(score("mood").contains("unknown name `mood`; there are the features"));
    let message = refusal("[variant]\n");
    assert!(message.contains("none is declared"), "{message}");
    let message = refusal("\n[variant.'a|b']\nscore = '1'");
    assert!(
        message.contains("line 2") && message.contains("without `|`"),
        "{message}"
    );
}

#[test]
fn parameters_are_declared_with_type_unit_and_bounds() {
    let declare = |more: &str, variant: &str| {
        format!("[parameter.{more}\n[variant.v]\nscore = 'similarity + w'\n{variant}\n")
    };
    let whole = "w]\ntype = 'integer'\nunit = 'plays'\nmin = 0\nmax = 10\ndefault = 2";
    let variants = read(&declare(whole, ""));
    let variant = variants.get("v").expect("declared");
    assert_eq!(variant.score.to_string(), "similarity + 2");
    assert_eq!(
        variants.parameters().next().map(|p| p.unit.as_str()),
        Some("plays")
    );
    for (parameter, variant, expected) in [
        (
            whole,
            "params = { w = 11 }",
            "variant.v.params.w: 11 is not in 0 to 10 (plays)",
        ),
        (
            whole,
            "params = { w = 0.5 }",
            "variant.v.params.w: 0.5 is no whole number",
        ),
        (
            "w]\ntype = 'number'\nunit = 'x'\nmin = 0\nmax = 1\ndefault = 2",
            "",
            "line 1: parameter.w: default: 2 is not in 0 to 1 (x)",
        ),
        (
            "w]\ntype = 'number'\nunit = 'x'\nmin = 2\nmax = 1\ndefault = 2",
            "",
            "parameter.w: min 2 and max 1 are no range",
        ),
        (
            "w]\ntype = 'text'\nunit = 'x'\nmin = 0\nmax = 1\ndefault = 0",
            "",
            "neither `number`",
        ),
        (
            "w]\ntype = 'number'\nmin = 0\nmax = 1\ndefault = 0",
            "",
            "missing field `unit`",
        ),
        (
            "freshness]\ntype = 'number'\nunit = 'x'\nmin = 0\nmax = 1\ndefault = 0",
            "",
            "parameter.freshness: the name belongs to a feature",
        ),
        (
            "'W-1']\ntype = 'number'\nunit = 'x'\nmin = 0\nmax = 1\ndefault = 0",
            "",
            "a name is 1 to 64 of a-z",
        ),
    ] {
        let message = refusal(&declare(parameter, variant));
        assert!(message.contains(expected), "{message:?} lacks {expected:?}");
    }
}

#[test]
fn the_canonical_text_follows_meaning_only() {
    let canonical = |text: &str| read(text).canonical();
    let a = canonical("[variant.v]\nscore = '(similarity)'\ncandidates = 500\n");
    assert_eq!(
        a,
        canonical("# the same\n[variant.v]\nscore = 'similarity'\ndescription = 'x'")
    );
    for other in [
        "candidates = 501",
        "pinned = ['x']",
        "mmr_lambda = 0.5",
        "recall = 0.9",
        "max_per_scene = 1",
        "[variant.v.exploration]\ntemperature = 1",
    ] {
        assert_ne!(
            a,
            canonical(&format!("[variant.v]\nscore = 'similarity'\n{other}"))
        );
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "[\\[\\]a-z.=\"0-9\n ]{0,200}|.{0,200}") {
        let _ = Variants::from_toml(&text);
    }
}
