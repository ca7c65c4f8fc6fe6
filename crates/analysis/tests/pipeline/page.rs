//! The report, rendered: no label leaves its picture, none lies on another, nothing is cut off, on a
//! screen and on paper.

use std::path::{Path, PathBuf};
use std::process::Command;

use refrain_analysis::archive::{Effect, Entry};
use refrain_analysis::simulate::World;
use refrain_analysis::sizing::{self, Baseline, Question, Traffic};
use refrain_analysis::{Looks, Options, report, simulate};

use crate::support::{Case, GST};

/// Measures the page in itself and writes what it finds where `--dump-dom` shows it.
const PROBE: &str = r#"<script>
addEventListener("load", () => {
  const wrong = [];
  const apart = (a, b) => a.right <= b.left + 0.5 || b.right <= a.left + 0.5 || a.bottom <= b.top + 2 || b.bottom <= a.top + 2;
  for (const svg of document.querySelectorAll("svg")) {
    const name = svg.getAttribute("aria-label"), frame = svg.getBoundingClientRect();
    const labels = [...svg.querySelectorAll("text")].map(t => [t.textContent, t.getBoundingClientRect()]);
    labels.forEach(([text, box], i) => {
      if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1)
        wrong.push(`${name}: "${text}" leaves the picture`);
      for (const [other, there] of labels.slice(i + 1))
        if (!apart(box, there)) wrong.push(`${name}: "${text}" lies on "${other}"`);
    });
  }
  if (document.documentElement.scrollWidth > innerWidth + 1) wrong.push(`page is ${document.documentElement.scrollWidth} wide, window ${innerWidth}`);
  for (const box of document.querySelectorAll(".scroll"))
    if (box.scrollWidth > box.clientWidth + 1) wrong.push(`a table is ${box.scrollWidth} wide, its place ${box.clientWidth}: ${box.querySelector("th").textContent}`);
  const found = document.createElement("pre");
  found.id = "probe";
  found.textContent = `pictures ${document.querySelectorAll("svg").length}\n` + (wrong.join("\n") || "sound");
  document.body.append(found);
});
</script>"#;

#[test]
fn nothing_overlaps_or_is_cut_off() {
    let Some(browser) = browser() else {
        println!("SKIPPED: no chromium here, the report was not rendered");
        return;
    };
    let mut world = World::new(42, 4_000);
    world.lift = 0.06;
    world.novelty = 0.1;
    let case = Case::new(&world, GST);
    let mut looks = Looks::new(&case.plan);
    let mut page = String::new();
    for day in [11, 14, 17, 28] {
        let mut options = Options {
            looks: Some(looks.clone()),
            ..Options::default()
        };
        options.read.until_us = Some(simulate::START_US + day * 86_400_000_000);
        let (analysis, look) = case.look(&options);
        looks.looks.push(look);
        page = report::html(
            &analysis,
            "refrain experiment report --config refrain.toml --log /var/log/refrain --out blend.html",
        );
    }
    let mut broken = World::new(43, 3_000);
    broken.faults.lose_treatment = 0.4;
    let invalid = report::html(
        &Case::new(&broken, GST).analyze(),
        "refrain experiment report",
    );
    let folder = tempfile::tempdir().expect("temporary folder");
    let (size, past) = (size(&case), past());
    for (name, page, pictures) in [
        ("ship", &page, 6),
        ("invalid", &invalid, 1),
        ("size", &size, 12),
        ("past", &past, 2),
    ] {
        assert!(
            !page.contains("http:") && !page.contains("https:"),
            "nothing comes from elsewhere"
        );
        for (size, width, paper) in [("desktop", 1280, false), ("paper", 695, true)] {
            let mut probed = page.replace("</body>", &format!("{PROBE}</body>"));
            if paper {
                probed = probed.replace("@media print", "@media all");
            }
            let file = folder.path().join(format!("{name}-{size}.html"));
            fs_err::write(&file, probed).expect("written");
            let found = render(&browser, &file, width, folder.path());
            let (count, verdict) = found.split_once('\n').unwrap_or((&found, ""));
            let count: u32 = count.trim_start_matches("pictures ").parse().unwrap_or(0);
            assert!(count >= pictures, "{name}, {size}: {count} pictures");
            assert_eq!(verdict, "sound", "{name}, {size}");
        }
    }
}

/// The page of an experiment's size, with traffic.
fn size(case: &Case) -> String {
    let baseline = |value, sd| Baseline {
        value,
        sd,
        variance_reduction: 0.3,
    };
    let question = Question {
        baselines: [
            ("minutes_week1".to_owned(), baseline(68.1, 106.0)),
            ("saved".to_owned(), Baseline::share(0.74)),
            ("latency_p95".to_owned(), baseline(4506.0, 2527.0)),
        ]
        .into(),
        traffic: Some(Traffic {
            units_per_day: 900.0,
            allocation: 0.5,
        }),
        looks: 5,
    };
    let size = sizing::size(&case.plan, &question).expect("sized");
    report::size_html(&size, "refrain experiment plan --config refrain.toml")
}

/// The page on offline metrics, over experiments with names as long as they come.
fn past() -> String {
    let entries: Vec<Entry> = (1..=12_u32)
        .map(|at| {
            let size = f64::from(at);
            let effect = |metric: &str, delta: f64| Effect {
                metric: metric.to_owned(),
                arm: "blend03".to_owned(),
                delta,
                se: 0.4,
                relative: Some(delta / 60.0),
            };
            Entry {
                experiment: format!("blend-{at}"),
                epoch: 1,
                plan: String::new(),
                cutoff: String::new(),
                recommendation: "NO_SHIP".to_owned(),
                decision: "keep".to_owned(),
                by: "maria".to_owned(),
                reason: String::new(),
                at: String::new(),
                effects: vec![
                    effect(
                        "minutes_listened_in_the_second_week",
                        size.sin() + 0.2 * size,
                    ),
                    effect("saved", size.cos()),
                ],
                offline: [("normalised_discounted_gain_at_20".to_owned(), 0.001 * size)].into(),
                offline_se: [("normalised_discounted_gain_at_20".to_owned(), 0.0004)].into(),
                previous: String::new(),
            }
        })
        .collect();
    let found = refrain_analysis::past::ask(&entries, &refrain_analysis::past::Question::default());
    report::past_html(&found, "refrain experiment offline-online archive.jsonl")
}

fn browser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .flat_map(|folder| {
            ["chromium", "chromium-browser", "google-chrome"].map(|name| folder.join(name))
        })
        .find(|file| file.is_file())
}

fn render(browser: &Path, file: &Path, width: u32, folder: &Path) -> String {
    let output = Command::new(browser)
        .args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--virtual-time-budget=2000",
            "--dump-dom",
        ])
        .arg(format!("--window-size={width},2000"))
        .arg(format!(
            "--user-data-dir={}",
            folder.join("profile").display()
        ))
        .arg(format!("file://{}", file.display()))
        .output()
        .expect("the browser runs");
    let dom = String::from_utf8_lossy(&output.stdout).into_owned();
    let found = dom
        .split_once("<pre id=\"probe\">")
        .and_then(|(_, rest)| rest.split_once("</pre>"))
        .map(|(found, _)| found.to_owned());
    found.unwrap_or_else(|| {
        panic!(
            "no measurement in the page: {}",
            String::from_utf8_lossy(&output.stderr)
        )
    })
}
