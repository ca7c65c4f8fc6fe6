//! The report as one self-contained page.

use refrain_builder::build::IndexEvaluation;
use refrain_builder::evaluation::Quality;
use refrain_builder::evaluation::offline::OfflineReport;
use refrain_builder::gate::{GateReport, Verdict};
use refrain_builder::page::{Interval, Line, Page};
use refrain_engine::Version;

/// Everything that was measured.
pub(super) fn page(
    version: &Version,
    index: Option<&IndexEvaluation>,
    offline: Option<&OfflineReport>,
    gate: Option<&GateReport>,
) -> String {
    let mut page = Page::new(&format!("Refrain: evaluation of {}", version.id()));
    let manifest = version.manifest();
    page.text(&format!(
        "{} items, {} dimensions, metric {}; made by: {}",
        manifest.items, manifest.dim, manifest.metric, manifest.command
    ));
    if let Some(gate) = gate {
        gate_section(gate, &mut page);
    }
    if let Some(offline) = offline {
        offline_section(offline, &mut page);
    }
    if let Some(index) = index {
        page.heading("The index against exact search");
        let points = index.pool_sizes.iter();
        let line = Line {
            name: format!("recall@{}", index.k),
            points: points
                .map(|point| (f64::from(point.ef_search), point.recall))
                .collect(),
        };
        page.lines(
            &format!(
                "recall@{} of {} golden queries by ef_search",
                index.k, index.queries
            ),
            "ef_search",
            "recall",
            &[line],
            false,
        );
    }
    page.finish()
}

fn gate_section(gate: &GateReport, page: &mut Page) {
    page.heading("The gate");
    page.text(match (gate.passed, &gate.forced) {
        (true, _) => "Passed.",
        (false, None) => "Failed.",
        (false, Some(_)) => "Failed, and forced.",
    });
    if let Some(forced) = &gate.forced {
        page.text(&format!("Forced by {}: {}", forced.by, forced.reason));
    }
    let rows = gate.checks.iter().map(|check| {
        let verdict = match check.verdict {
            Verdict::Passed => "passed",
            Verdict::Failed => "FAILED",
            Verdict::Skipped => "skipped",
        };
        [
            check.name.clone(),
            check.threshold.clone(),
            check.value.clone(),
            verdict.to_owned(),
        ]
    });
    page.table(&["check", "threshold", "measured", "verdict"], rows);
}

fn offline_section(report: &OfflineReport, page: &mut Page) {
    page.heading("On held-out listens");
    page.text(&report.protocol);
    let mut compared: Vec<(&str, &Quality)> = vec![("bundle", &report.model)];
    compared.extend(
        report
            .champion
            .as_ref()
            .map(|champion| ("champion", champion)),
    );
    compared.push(("popularity", &report.popularity));
    compared.push(("chance", &report.chance));
    let rows = compared.iter().map(|(name, quality)| {
        let four = |value: f64| format!("{value:.4}");
        [
            (*name).to_owned(),
            four(quality.recall_at_20),
            four(quality.ndcg_at_20),
            four(quality.map_at_20),
            four(quality.mrr_at_20),
            four(quality.hit_rate_at_20),
            four(quality.coverage_at_20),
            four(quality.gini_at_20),
            four(quality.novelty_bits_at_20),
            quality
                .intra_list_distance_at_20
                .map_or_else(|| "-".to_owned(), four),
        ]
    });
    let header = [
        "at 20",
        "Recall",
        "NDCG",
        "MAP",
        "MRR",
        "hit rate",
        "coverage",
        "Gini",
        "novelty, bits",
        "distance in list",
    ];
    page.table(&header, rows);
    let bars = |of: fn(&Quality) -> f64| -> Vec<(String, f64)> {
        compared
            .iter()
            .map(|(name, quality)| ((*name).to_owned(), of(quality)))
            .collect()
    };
    page.bars("Recall@20", &bars(|quality| quality.recall_at_20));
    page.bars("NDCG@20", &bars(|quality| quality.ndcg_at_20));
    let interval = |name: &str, paired: &refrain_builder::evaluation::Paired| Interval {
        name: name.to_owned(),
        low: paired.low_95,
        value: paired.difference,
        high: paired.high_95,
    };
    if !report.against_champion.is_empty() {
        let intervals: Vec<Interval> = report
            .against_champion
            .iter()
            .map(|(name, paired)| interval(name, paired))
            .collect();
        page.intervals(
            "against the champion: mean difference and 95 % interval",
            &intervals,
        );
    }
    page.heading("By segment");
    let rows = report.segments.iter().map(|segment| {
        [
            segment.name.clone(),
            segment.users.to_string(),
            format!("{:.4}", segment.model.recall),
            format!("{:.4}", segment.model.ndcg),
            format!("{:.4}", segment.popularity.ndcg),
        ]
    });
    page.table(
        &[
            "segment",
            "listeners",
            "Recall",
            "NDCG",
            "popularity's NDCG",
        ],
        rows,
    );
    let bars: Vec<(String, f64)> = report
        .segments
        .iter()
        .map(|segment| (segment.name.clone(), segment.model.ndcg))
        .collect();
    page.bars("NDCG@20 by segment", &bars);
    let intervals: Vec<Interval> = report
        .segments
        .iter()
        .filter_map(|segment| {
            Some(interval(
                &segment.name,
                segment.against_champion.get("ndcg_at_20")?,
            ))
        })
        .collect();
    if !intervals.is_empty() {
        page.intervals("NDCG@20 against the champion, by segment", &intervals);
    }
    let recall = &report.index_recall;
    page.text(&format!(
        "Index against exact search for {} listeners, with their exclusions and heard items: recall@10 {:.4}, \
         at least {:.4} (95 %). Mean listeners of what is recommended {:.1}, of what was heard {:.1}.",
        recall.queries,
        recall.mean,
        recall.lower_95,
        report.popularity_of_recommended,
        report.popularity_of_heard
    ));
}
