//! The owners' documentation says what is true.

use refrain_ranking::{Caps, Feature, PARAMETERS, Variants, Width};

const DOCS: &str = include_str!("../../../docs/variants.md");

fn example() -> &'static str {
    let (_, rest) = DOCS.split_once("```toml\n").expect("an example");
    rest.split_once("```").expect("its end").0
}

#[test]
fn the_example_loads_and_means_what_it_says() {
    let variants = Variants::from_toml(example()).expect("the documented example loads");
    assert_eq!(variants.names(), ["balanced", "curious", "plain", "varied"]);
    let get = |name| variants.get(name).expect("declared");
    assert_eq!(
        get("balanced").score.to_string(),
        "similarity + 0.2 * popularity + 0.1 * freshness"
    );
    let varied = get("varied");
    assert_eq!(varied.labels, ["canary", "stable"]);
    assert_eq!(varied.width, Some(Width::Recall(0.98)));
    let both = Caps {
        artist: Some(2),
        scene: Some(5),
    };
    assert_eq!(varied.caps, both);
    assert!(varied.mmr.is_some() && varied.exploration.is_none());
    let curious = get("curious");
    assert_eq!(
        curious.exploration.map(|exploration| exploration.pool),
        Some(100)
    );
    assert_eq!(curious.pinned.len(), 2);
}

#[test]
fn every_setting_and_feature_is_in_the_tables() {
    for setting in PARAMETERS {
        let (least, most) = setting.bounds;
        let row = format!(
            "| `{}` | {} | {} | {least} to {most} | {} |",
            setting.name, setting.kind, setting.unit, setting.default
        );
        assert!(DOCS.lines().any(|line| line == row), "no row {row}");
    }
    for feature in Feature::ALL {
        assert!(DOCS.contains(&format!("`{feature}`")), "no {feature}");
    }
}
