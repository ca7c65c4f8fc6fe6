//! Writes the report of a simulated experiment, to look at: `cargo run -p refrain-analysis --example
//! report -- OUT.html [WORLD]`, with WORLD one of `ship`, `running`, `harm`, `invalid`, `ramp`.

use refrain_analysis::simulate::{self, World};
use refrain_analysis::{Looks, Options, Plan};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let out = args.next().unwrap_or_else(|| "report.html".to_owned());
    let which = args.next().unwrap_or_else(|| "ship".to_owned());
    let mut world = World::new(42, 12_000);
    let mut days = vec![8, 12, 15, 18, 28];
    match which.as_str() {
        "running" => days = vec![8, 11, 14],
        "harm" => world.lift = -0.12,
        "invalid" => world.faults.lose_treatment = 0.3,
        "ramp" => world.faults.ramp = true,
        _ => {
            world.lift = 0.04;
            world.novelty = 0.15;
        }
    }
    let folder = tempfile::tempdir()?;
    world.write(folder.path())?;
    let design = r#"{ method = "gst", spending = "power(2)", alpha = 0.05, power = 0.8, max_units = 12000 }"#;
    let plan = Plan::from_toml(&simulate::plan_toml(&world, design), None)?;
    let mut looks = Looks::new(&plan);
    for day in days {
        let mut options = Options {
            looks: Some(looks.clone()),
            ..Options::default()
        };
        options.read.until_us = Some(simulate::START_US + day * 86_400_000_000);
        let (analysis, look) =
            refrain_analysis::from_log(folder.path(), &plan, &options, &|_, _| ())?;
        looks.looks.push(look);
        let command = "refrain experiment report --config refrain.toml --log log --looks blend.looks.json --out blend.html";
        fs_err::write(&out, refrain_analysis::report::html(&analysis, command))?;
        if analysis.verdict.recommendation != "KEEP_RUNNING" && which != "ship" {
            break;
        }
    }
    Ok(())
}
