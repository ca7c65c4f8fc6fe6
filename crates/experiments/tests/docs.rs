//! The templates of `docs/experiments.md` load, and lack nothing.

use std::collections::BTreeSet;
use std::path::PathBuf;

use refrain_experiments::{Config, Experiments, Kind, preflight_all};

const AROUND: &str =
    "[layer.ranking]\nepoch = 1\n[surface.default]\nlayer = 'ranking'\nvariant = 'plain'\n";

#[test]
fn there_is_a_template_for_every_kind_and_it_lacks_nothing() {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/experiments.md");
    let page = fs_err::read_to_string(page).expect("the page");
    let (_, templates) = page.split_once("\n## Templates\n").expect("has them");
    let (templates, _) = templates.split_once("\n## ").expect("another section");
    let mut kinds = BTreeSet::new();
    let mut all = AROUND.to_owned();
    for block in templates.split("```toml\n").skip(1) {
        let (block, _) = block.split_once("```").expect("ends");
        let config = Config::from_toml(&format!("{AROUND}{block}")).expect("well-formed");
        Experiments::new(&config, &["plain", "balanced"]).expect("valid");
        let findings = preflight_all(&config);
        assert!(findings.is_empty(), "{block}\n{findings:?}");
        kinds.extend(config.experiment.0.iter().map(|(_, e)| e.kind.as_str()));
        all += block;
    }
    let every = [Kind::Ab, Kind::Rollout, Kind::Shadow, Kind::Interleave];
    assert!(
        kinds.into_iter().collect::<BTreeSet<_>>()
            == every.iter().map(|kind| kind.as_str()).collect()
    );
    // They also fit beside each other.
    let config = Config::from_toml(&all).expect("well-formed");
    Experiments::new(&config, &["plain", "balanced"]).expect("valid");
}
