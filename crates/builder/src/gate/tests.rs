use std::cell::RefCell;
use std::path::{Path, PathBuf};

use refrain_bundle::bundle::{Draft, INDEX_FILE};
use refrain_bundle::{Bundle, BundleWriter, Manifest, write_sections};
use refrain_engine::{OpenMode, Version};
use refrain_index::Index;
use refrain_ranking::{Variant, Variants};

use super::*;
use crate::build::{BuildOptions, Source, build};
use crate::evaluation::hash;
use crate::evaluation::offline::{Listening, OfflineOptions, evaluate_offline};
use crate::ingest::{Attributes, Exclusions, Items, Log, sorted};
use crate::model::Model;
use crate::train::{EvaluationPlan, TrainOptions, train};

const RANK: usize = 8;

/// 300 listeners of five groups, 60 items each, some far more popular than others.
fn log(later: bool) -> Log {
    let mut log = Log::default();
    for user in 0..300u32 {
        for at in 0..24u32 {
            if (at >= 18) != later {
                continue;
            }
            // The square root of a uniform draw leans to one end of the group.
            let draw = (hash(3, user, at) % 3600).isqrt();
            let within = 59 - u32::try_from(draw).unwrap();
            let item = (user % 5) * 60 + within;
            log.user
                .push(log.users.insert(&format!("u{user}")).unwrap());
            log.item
                .push(log.items.insert(&format!("i{item}")).unwrap());
            log.count.push(1.0);
        }
    }
    log
}

fn model() -> Model {
    let options = TrainOptions {
        evaluation: EvaluationPlan::Skip,
        hyper: refrain_als::Hyper {
            rank: RANK,
            ..refrain_als::Hyper::default()
        },
        ..TrainOptions::default()
    };
    train(
        sorted(&log(false)),
        &Items::default(),
        &options,
        &|_, _, _| {},
    )
    .unwrap()
    .0
}

fn built(model: &Model, dir: &Path, name: &str, m: usize) -> PathBuf {
    let out = dir.join(name);
    let options = BuildOptions {
        m,
        ..BuildOptions::new(jiff::Timestamp::from_second(1_795_376_700).unwrap())
    };
    build(Source::Model(model), &out, &options, &()).unwrap();
    out
}

/// The same bundle with the bytes of its index sections and its manifest changed, sealed anew: damage
/// that no checksum sees.
fn doctored(
    bundle: &Path,
    out: &Path,
    section: impl Fn(&str, &mut Vec<u8>),
    manifest: impl Fn(&mut Manifest),
) -> PathBuf {
    let source = Bundle::open(bundle, OpenMode::Map).unwrap();
    let file = source.index_sections();
    let names = RefCell::new(Vec::new());
    Index::open(&|name| {
        names.borrow_mut().push(name.to_owned());
        file.section(name)
    })
    .unwrap();
    let sections: Vec<(String, Vec<u8>)> = names
        .into_inner()
        .into_iter()
        .filter_map(|name| {
            let mut bytes = file.section(&name)?.to_vec();
            section(&name, &mut bytes);
            Some((name, bytes))
        })
        .collect();
    let writer = BundleWriter::create(out).unwrap();
    for name in source.manifest().files.keys() {
        if name == INDEX_FILE {
            let sections: Vec<(&str, &[u8], bool)> = sections
                .iter()
                .map(|(name, bytes)| (name.as_str(), bytes.as_slice(), false))
                .collect();
            writer
                .add(name, |path| write_sections(path, &sections))
                .unwrap();
        } else {
            let bytes = fs_err::read(bundle.join(name)).unwrap();
            writer
                .add(name, |path| {
                    fs_err::write(path, &bytes).unwrap();
                    Ok(refrain_bundle::FileDigest::of(&bytes))
                })
                .unwrap();
        }
    }
    let mut changed = source.manifest().clone();
    manifest(&mut changed);
    let draft = Draft {
        parent: changed.parent,
        create_time: changed.create_time,
        items: changed.items,
        users: changed.users,
        dim: changed.dim,
        metric: changed.metric,
        data_watermark: changed.data_watermark,
        exclusion_watermark: changed.exclusion_watermark,
        index: changed.index,
        model: changed.model,
        command: changed.command,
        seed: changed.seed,
        report: changed.report,
    };
    writer.seal(draft).unwrap();
    out.to_owned()
}

fn plain() -> Variant {
    let variants = Variants::from_toml(refrain_ranking::DEFAULT_TOML).unwrap();
    variants
        .get(refrain_ranking::DEFAULT_VARIANT)
        .unwrap()
        .clone()
}

/// The default gate on a bundle, with a champion.
fn gated(bundle: &Path, champion: &Path) -> GateReport {
    gated_by(DEFAULT_TOML, bundle, champion)
}

fn gated_by(gate: &str, bundle: &Path, champion: &Path) -> GateReport {
    let version = Version::open(bundle, OpenMode::Map).unwrap();
    let champion = Version::open(champion, OpenMode::Map).unwrap();
    let (history, later) = (sorted(&log(false)).by_user().unwrap(), sorted(&log(true)));
    let listening = Listening {
        history: &history,
        later: &later,
        exclusions: &Exclusions::default(),
    };
    let options = OfflineOptions {
        max_users: 1_000,
        seed: 1,
        resamples: 200,
        threads: 2,
        now_us: 0,
    };
    let offline = evaluate_offline(
        &version,
        Some(&champion),
        &plain(),
        listening,
        &options,
        &|_, _| {},
    );
    // A damaged bundle may refuse to be judged; the gate still says what is wrong with it.
    let offline = offline.ok();
    let gate = Gate::parse(gate, "gate.toml").unwrap();
    check(
        &gate,
        Subject {
            version: &version,
            champion: Some(&champion),
            offline: offline.as_ref(),
            golden_recall: None,
        },
    )
}

fn stopped(report: &GateReport, name: &str) {
    assert!(!report.passed);
    assert!(
        report.failed().any(|failed| failed == name),
        "{name}: {:#?}",
        report.checks
    );
}

#[test]
fn stops_the_shuffled_and_the_short_each_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let model = model();
    let champion = built(&model, dir, "champion", 16);

    let same = gated(&champion, &champion);
    assert!(same.passed, "{:#?}", same.checks);
    assert!(
        same.checks
            .iter()
            .all(|check| check.verdict == Verdict::Passed),
        "{:#?}",
        same.checks
    );

    let mut shuffled = model.clone();
    shuffled.item_factors.rotate_left(RANK * 71);
    let report = gated(&built(&shuffled, dir, "shuffled", 16), &champion);
    stopped(&report, "quality.ndcg_at_20");
    stopped(&report, "quality.recall_at_20");

    let kept = model.items.len() * 9 / 10;
    let mut short = model.clone();
    short.items = model.items.iter().take(kept).collect();
    short.item_factors.truncate(kept * RANK);
    short.item_listeners.truncate(kept);
    short.item_plays.truncate(kept);
    short.attributes.truncate(kept);
    let report = gated(&built(&short, dir, "short", 16), &champion);
    stopped(&report, "drift.missing_items");
    stopped(&report, "drift.items");
}

#[test]
fn stops_the_biased_and_the_broken_each_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let model = model();
    let champion = built(&model, dir, "champion", 16);

    // Every item points one way, the popular ones farthest: everybody gets the same. The log is too even
    // for half as much again.
    let mut biased = model.clone();
    for (row, &listeners) in biased
        .item_factors
        .chunks_exact_mut(RANK)
        .zip(&model.item_listeners)
    {
        row.fill(0.0);
        row[0] = listeners as f32 / 30.0;
    }
    let gate = "[drift]\nmax_popularity_ratio = 1.1\n";
    let report = gated_by(gate, &built(&biased, dir, "biased", 16), &champion);
    stopped(&report, "drift.popularity_bias");

    let nan = doctored(
        &champion,
        &dir.join("nan"),
        |name, bytes| {
            if name == "index.centre" {
                bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
            }
        },
        |_| {},
    );
    stopped(&gated(&nan, &champion), "structure.not_finite_vectors");
}

#[test]
fn stops_the_poor_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    // So many items that a walk is cheaper than looking at all, few links, and a pool too small for them.
    let wide = wide(&model());
    let champion = built(&wide, dir, "wide", 16);
    let sparse = built(&wide, dir, "sparse", 2);
    let poor = doctored(
        &sparse,
        &dir.join("poor"),
        |_, _| {},
        |manifest| {
            manifest.index.ef_search = 10;
        },
    );
    let report = gated(&poor, &champion);
    stopped(&report, "recall");
    let found = report.offline.as_ref().unwrap().index_recall;
    assert!(found.mean < 0.85, "{found:?}");
}

/// The model with thousands of items more that nobody has heard, in all directions.
fn wide(model: &Model) -> Model {
    let mut wide = model.clone();
    for item in 0..8_000u32 {
        wide.items.insert(&format!("new{item}")).unwrap();
        let value = |at| f32::from(u16::try_from(hash(7, item, at) % 2_001).unwrap()) / 1_000.0;
        let at = 0..u32::try_from(RANK).unwrap();
        wide.item_factors.extend(at.map(|at| value(at) - 1.0));
        wide.item_listeners.push(0);
        wide.item_plays.push(0.0);
        if !wide.attributes.is_empty() {
            wide.attributes.push(Attributes::default());
        }
    }
    wide
}

#[test]
fn without_listens_or_a_champion_checks_are_skipped_not_passed() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = built(&model(), dir.path(), "bundle", 16);
    let version = Version::open(&bundle, OpenMode::Map).unwrap();
    let gate = Gate::parse(DEFAULT_TOML, "gate.toml").unwrap();
    let subject = Subject {
        version: &version,
        champion: None,
        offline: None,
        golden_recall: Some(0.99),
    };
    let report = check(&gate, subject);
    assert!(report.passed);
    let verdict = |name: &str| {
        report
            .checks
            .iter()
            .find(|check| check.name == name)
            .unwrap()
            .verdict
    };
    assert_eq!(verdict("quality.ndcg_at_20"), Verdict::Skipped);
    assert_eq!(verdict("drift.items"), Verdict::Skipped);
    assert_eq!(verdict("recall"), Verdict::Passed);
    let strict = Gate {
        size: Some(SizeGate { max_bytes: 10 }),
        load: Some(LoadGate { max_ms: 0.0 }),
        ..Gate::default()
    };
    let report = check(&strict, subject);
    assert_eq!(report.failed().collect::<Vec<_>>(), ["size", "load"]);
}

#[test]
fn a_gate_that_cannot_be_meant_is_refused_with_its_place() {
    for (text, expected) in [
        ("[recall]\nmin = 95", "recall.min is 95"),
        ("[recall]\nmin = nan", "recall.min is NaN"),
        ("[quality]\nmax_loss = -0.1", "quality.max_loss is -0.1"),
        ("[drift]\nmax_popularity_ratio = 0.5", "at least 1"),
        ("[recall]\nminimum = 0.9", "unknown field"),
        ("[speed]\n", "unknown field"),
        ("recall", "line 1"),
    ] {
        let error = Gate::parse(text, "gate.toml").unwrap_err().to_string();
        assert!(
            error.contains(expected) && error.contains("gate.toml"),
            "{error}"
        );
    }
    assert_eq!(Gate::parse("", "gate.toml").unwrap(), Gate::default());
    assert!(
        Gate::read(Path::new("no/such/gate.toml"))
            .unwrap_err()
            .to_string()
            .contains("no/such")
    );
}

proptest::proptest! {
    #[test]
    fn any_text_is_a_gate_or_an_error(text in "(\\[(recall|quality|drift|size|load)\\]\n(min|max_loss|max_bytes|max_ms) = [-0-9.e]{1,6}\n){0,3}.{0,20}") {
        let _ = Gate::parse(&text, "gate.toml");
    }
}
