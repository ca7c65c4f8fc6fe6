//! The pages, rendered: no label leaves its picture, none lies on another, nothing is cut off, on a screen and
//! on paper, and nothing is told by its colour alone.
//!
//! Needs a headless Chromium: `REFRAIN_TEST_BROWSER` or one in PATH (`tests/report/browser.sh` finds or installs
//! it). With `REFRAIN_TEST_PAGES=FOLDER` the pages and pictures of them, in grey as well, stay there to be looked at.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use refrain_analysis::archive::{Effect, Entry};
use refrain_analysis::simulate::{Show, World};
use refrain_analysis::sizing::{self, Baseline, Question, Traffic};
use refrain_analysis::{Looks, Options, Plan, report, simulate};

use crate::context;
use crate::support::{Case, FIXED, GST};

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
  const dashes = e => getComputedStyle(e).strokeDasharray;
  for (const svg of document.querySelectorAll("svg")) {
    const name = svg.getAttribute("aria-label");
    const lines = [...svg.querySelectorAll("path:not(.band)")].map(dashes);
    if (new Set(lines).size < lines.length) wrong.push(`${name}: two curves differ by colour alone (${lines})`);
    for (const [dashed, ...kinds] of [[true, ".margin", ".bound"], [false, ".zero", ".grid", ".axis", ".bar"]])
      for (const line of svg.querySelectorAll(kinds.join()))
        if ((dashes(line) !== "none") !== dashed) wrong.push(`${name}: a ${line.classList} is drawn as ${dashes(line)}`);
    const fills = kind => [...svg.querySelectorAll(kind)].map(dot => getComputedStyle(dot).fill);
    if (fills(".dot.hollow").some(fill => fills(".dot:not(.hollow)").includes(fill))) wrong.push(`${name}: hollow and filled are one`);
  }
  const signs = {pass: "✓", fail: "✕", warn: "!", good: "✓", bad: "✕"};
  for (const told of document.querySelectorAll(".status, .verdict .word")) {
    const kind = Object.keys(signs).find(kind => told.closest(".status, .verdict").classList.contains(kind));
    if (kind && !told.textContent.trim().startsWith(signs[kind])) wrong.push(`"${told.textContent}" is ${kind} by its colour alone`);
  }
  // WCAG 2.2, 1.4.3: what is light in grey, too.
  const light = colour => {
    const [r, g, b] = colour.match(/[\d.]+/g).map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  for (const e of document.querySelectorAll("main *")) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
    const style = getComputedStyle(e), contrast = 1.05 / (light(e.closest("svg") ? style.fill : style.color) + 0.05);
    if (contrast < 4.5) wrong.push(`"${e.textContent}" has a contrast of ${contrast.toFixed(1)}`);
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
        println!("SKIPPED: no chromium here, the reports were not rendered");
        return;
    };
    let folder = tempfile::tempdir().expect("temporary folder");
    let kept = std::env::var_os("REFRAIN_TEST_PAGES").map(PathBuf::from);
    let pages = kept.as_deref().unwrap_or(folder.path());
    fs_err::create_dir_all(pages).expect("made");
    let render = Render {
        browser: &browser,
        profile: folder.path().join("profile"),
    };
    let (case, ship) = ship();
    for (name, page, pictures) in [
        ("ship", ship, 6),
        ("invalid", invalid(), 1),
        ("size", size(&case), 12),
        ("past", past(), 2),
        ("did", did(), 1),
        ("interleaving", interleaving(), 1),
        ("uptake", uptake(), 5),
        ("off-policy", off_policy(), 4),
        ("lists", lists(), 4),
        ("three", three(), 4),
        ("stale", stale(), 4),
        ("holdout", holdout(), 4),
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
            let file = pages.join(format!("{name}-{size}.html"));
            fs_err::write(&file, probed).expect("written");
            if kept.is_some() {
                render.pictures(&file, width);
            }
            let found = render.measure(&file, width);
            let (count, verdict) = found.split_once('\n').unwrap_or((&found, ""));
            let count: u32 = count.trim_start_matches("pictures ").parse().unwrap_or(0);
            assert!(count >= pictures, "{name}, {size}: {count} pictures");
            assert_eq!(verdict, "sound", "{name}, {size}");
        }
    }
}

const COMMAND: &str =
    "refrain experiment report --config refrain.toml --log /var/log/refrain --out blend.html";

/// An experiment after several looks, and its page.
fn ship() -> (Case, String) {
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
        page = report::html(&analysis, COMMAND);
    }
    (case, page)
}

fn invalid() -> String {
    let mut world = World::new(43, 3_000);
    world.faults.lose_treatment = 0.4;
    report::html(&Case::new(&world, GST).analyze(), COMMAND)
}

/// Twelve markets with names as long as they come.
fn did() -> String {
    let mut panel = "unit,period,value,treated_from\n".to_owned();
    for unit in 0..12_u32 {
        for month in 1..=11_u32 {
            let start = if unit < 5 { "2026-07-01" } else { "" };
            let change = if unit < 5 && month > 6 { 9.0 } else { 0.0 };
            let value = 120.0 + f64::from((unit * 7 + month * 3) % 11) + change;
            panel.push_str(&format!(
                "a market with a long name {unit},2026-{month:02}-01,{value},{start}\n"
            ));
        }
    }
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("markets.csv");
    fs_err::write(&path, panel).expect("written");
    let found = refrain_analysis::panel::analyze(&path).expect("sound");
    let title = "Did the new catalogue of the north change how long its listeners stay?";
    report::panel_html(&found, title, "refrain experiment did markets.csv")
}

fn interleaving() -> String {
    let world = context::listed(44, 600, Show::Drafted { preference: 0.5 }, 8);
    let case = Case::new(&world, r#"{ method = "gst", max_units = 600 }"#);
    report::html(&case.analyze(), COMMAND)
}

fn uptake() -> String {
    let mut world = World::new(45, 4_000);
    world.lift = 0.3;
    world.faults.fallback = 0.4;
    report::html(&Case::new(&world, GST).analyze(), COMMAND)
}

fn off_policy() -> String {
    let case = Case::new(&context::listed(46, 800, Show::Drawn, 2), FIXED);
    let target = case.folder.path().join("target.parquet");
    context::target(&case, &target, true);
    let analysis = context::off_policy(&case, &target).expect("valued");
    assert!(analysis.off_policy.is_some());
    report::html(&analysis, COMMAND)
}

fn lists() -> String {
    let case = Case::new(&context::listed(47, 800, Show::Ranked, 10), FIXED);
    context::dark(
        &case,
        vec![Some(0.2), Some(0.4), None, Some(0.8)],
        vec![None, None, Some("dropped: busy"), None],
    );
    let analysis = case.analyze();
    assert!(
        analysis
            .lists
            .as_ref()
            .is_some_and(|lists| !lists.shadows.is_empty())
    );
    report::html(&analysis, COMMAND)
}

/// Three arms and metrics, all with names as long as they come.
fn three() -> String {
    let mut world = World::new(48, 3_000);
    world.lift = 0.3;
    world.arms = [
        "control_without_any_blending_of_content",
        "blend_of_content_at_thirty_percent_everywhere",
        "blend_of_content_at_sixty_percent_on_home_only",
    ]
    .map(|name| (name.to_owned(), 1.0 / 3.0))
    .into();
    let mut case = Case::new(&world, GST);
    let text = simulate::plan_toml(&world, GST)
        .replace(
            "\"minutes_week1\"",
            "\"minutes_listened_in_the_first_week_after_first_exposure\"",
        )
        .replace(
            "\"saved\"",
            "\"share_of_listeners_who_saved_something_in_their_first_week\"",
        );
    case.plan = Plan::from_toml(&text, None).expect("valid plan");
    let days = case.looks(&[12, 28]);
    report::html(&days[1], COMMAND)
}

/// Arms with long names, parameters and builds of their own.
fn stale() -> String {
    let mut world = World::new(37, 3_000);
    world.arms = [
        "control",
        "index_of_three_days_ago",
        "index_of_a_whole_week_ago_and_more",
    ]
    .map(|name| (name.to_owned(), 1.0 / 3.0))
    .into();
    let mut case = Case::new(&world, GST);
    for (arm, days) in case.plan.arms.iter_mut().zip([1, 4, 8]) {
        arm.built_us = Some(simulate::START_US - days * 86_400_000_000);
        arm.variant = "balanced_with_a_long_name_of_its_own".to_owned();
        arm.params = [("diversity.lambda", 0.25), ("popularity_weight", 0.1)]
            .map(|(name, value)| (name.to_owned(), value.into()))
            .into();
    }
    report::html(&case.analyze(), COMMAND)
}

fn holdout() -> String {
    let mut world = World::new(38, 3_000);
    world.holdout = Some("2026q4".to_owned());
    world.lift = 0.1;
    report::html(&Case::new(&world, GST).analyze(), COMMAND)
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

/// The browser that is asked for, or one that happens to be there.
fn browser() -> Option<PathBuf> {
    if let Some(asked) = std::env::var_os("REFRAIN_TEST_BROWSER") {
        let asked = PathBuf::from(asked);
        assert!(
            asked.is_file(),
            "REFRAIN_TEST_BROWSER: no {}",
            asked.display()
        );
        return Some(asked);
    }
    let names = [
        "chromium-headless-shell",
        "chromium",
        "chromium-browser",
        "google-chrome",
    ];
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .flat_map(|folder| names.map(|name| folder.join(name)))
        .find(|file| file.is_file())
}

struct Render<'a> {
    browser: &'a Path,
    profile: PathBuf,
}

impl Render<'_> {
    fn run(&self, file: &Path, width: u32, height: u32, what: &str) -> Output {
        Command::new(self.browser)
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                "--virtual-time-budget=2000",
                what,
            ])
            .arg(format!("--window-size={width},{height}"))
            .arg(format!("--user-data-dir={}", self.profile.display()))
            .arg(format!("file://{}", file.display()))
            .output()
            .expect("the browser runs")
    }

    /// What the page finds when it measures itself.
    fn measure(&self, file: &Path, width: u32) -> String {
        let output = self.run(file, width, 2000, "--dump-dom");
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

    /// Pictures of a page beside it, as it is and in grey.
    fn pictures(&self, file: &Path, width: u32) {
        let page = fs_err::read_to_string(file).expect("written");
        let grey = file.with_extension("grey.html");
        fs_err::write(
            &grey,
            page.replace("</style>", "html { filter: grayscale(1); }</style>"),
        )
        .expect("written");
        for file in [file, &grey] {
            let to = file.with_extension("png");
            self.run(file, width, 7000, &format!("--screenshot={}", to.display()));
            assert!(to.is_file(), "no picture of {}", file.display());
        }
    }
}
