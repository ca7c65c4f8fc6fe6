//! `refrain compare`: one request under several ranking variants, side by side.

mod sample;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use refrain::v1 as pb;
use refrain::v1::experiment_service_client::ExperimentServiceClient;

use super::recommend::{self, AnswerArgs, SubjectArgs};
use crate::client::{Client, Connection};
use crate::failure::Exit;
use crate::output::{self, Column, Output};
use crate::wire;

/// The same request under several ranking variants, side by side
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain compare alice
  refrain compare alice --variants plain,balanced -k 10
  refrain compare --seed track-17 --json
  refrain compare --users listeners.txt --sample 1000 --variants plain,balanced

Environment: REFRAIN_ADDR")]
pub(crate) struct Args {
    #[command(flatten)]
    subject: SubjectArgs,
    /// Listeners, one a line, `-` for standard input: compares over a sample of them
    #[arg(long, value_name = "FILE", group = "whom", conflicts_with_all = ["user", "seed", "not", "vector"])]
    users: Option<PathBuf>,
    /// How many of them
    #[arg(long, value_name = "N", default_value_t = 100, requires = "users",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    sample: u32,
    /// The variants, 1 to 16, separated by commas [default: all that the server declares]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    variants: Vec<String>,
    #[command(flatten)]
    answer: AnswerArgs,
    #[command(flatten)]
    connection: Connection,
}

/// Runs `refrain compare`.
pub(crate) fn run(args: &Args, output: &Output) -> anyhow::Result<Exit> {
    let request = pb::CompareVariantsRequest {
        request: Some(recommend::request(&args.subject, &args.answer, None)),
        variants: args.variants.clone(),
    };
    if let Some(file) = &args.users {
        let users = sample::listeners(file, args.sample as usize)?;
        let of = |user: &str| {
            let mut of = request.clone();
            if let Some(request) = &mut of.request {
                let user = user.to_owned();
                request.subject = Some(pb::recommend_request::Subject::UserId(user));
            }
            of
        };
        let ask = async |client: Client| sample::ask(&client, &users, of, output).await;
        let answers = args.connection.run(ask)?;
        sample::tell(&answers, output);
        return Ok(Exit::Done);
    }
    let (answer, took) = args.connection.run(async |client: Client| {
        let started = Instant::now();
        let mut service = ExperimentServiceClient::new(client.channel.clone());
        let answer = service.compare_variants(client.request(request)).await;
        Ok((client.answer("compare", answer)?, started.elapsed()))
    })?;
    output.result(&wire::comparison(&answer), |output| {
        print(&answer, output);
        let by = answer.served_by.clone().unwrap_or_default();
        output.line(format_args!(
            "{} variants for {} from {} in {}",
            answer.variants.len(),
            args.subject.describe(),
            by.version,
            output::duration(took)
        ));
    });
    Ok(Exit::Done)
}

/// Prints the lists side by side, each item with how far it moved from the first variant's list,
/// and below how much the lists have in common.
pub(crate) fn print(answer: &pb::CompareVariantsResponse, output: &Output) {
    let Some(first) = answer.variants.first() else {
        return;
    };
    let mut lists = comfy_lists(&answer.variants);
    let longest = answer
        .variants
        .iter()
        .map(|variant| variant.results.len())
        .max()
        .unwrap_or(0);
    for at in 0..longest {
        let mut row = vec![(at + 1).to_string()];
        for variant in &answer.variants {
            row.push(variant.results.get(at).map_or_else(String::new, |result| {
                let name = output::clip(name(result), 36);
                match moved(&first.results, at, &result.item_id) {
                    Move::Same => name,
                    Move::New => format!("+ {name}"),
                    Move::Up(by) => format!("↑{by} {name}"),
                    Move::Down(by) => format!("↓{by} {name}"),
                }
            }));
        }
        lists.add_row(row);
    }
    output.table(&lists);

    let mut columns = vec![
        Column::Text("variant"),
        Column::Number("items"),
        Column::Number("shared with first"),
        Column::Number("rank-biased overlap"),
        Column::Number("time"),
        Column::Number("artists"),
    ];
    let scenes = answer.variants.iter().any(|one| !one.scenes.is_empty());
    if scenes {
        columns.push(Column::Number("scenes"));
    }
    let mut facts = output::table(&columns);
    for variant in &answer.variants {
        let mut row = vec![
            variant.variant.clone(),
            variant.results.len().to_string(),
            format!("{:.0} %", variant.overlap * 100.0),
            format!("{:.3}", variant.rank_biased_overlap),
            output::duration(Duration::from_micros(variant.elapsed_us)),
            variant.distinct_artists.to_string(),
        ];
        if scenes {
            row.push(variant.scenes.len().to_string());
        }
        facts.add_row(row);
    }
    output.table(&facts);
    for variant in &answer.variants {
        for (what, groups) in [("artists", &variant.artists), ("scenes", &variant.scenes)] {
            if !groups.is_empty() {
                let mix = mix(groups);
                output.line(format_args!("{} by {what}: {mix}", variant.variant));
            }
        }
    }
    for variant in answer.variants.iter().skip(1) {
        let why = reasons(&variant.moves);
        if !why.is_empty() {
            output.line(format_args!("{} moves items by {why}", variant.variant));
        }
    }
    for variant in &answer.variants {
        for missing in &variant.missing_features {
            output.line(format_args!("{} counts as 0: {missing}", variant.variant));
        }
    }
}

/// Groups that are named of a list.
const NAMED: usize = 5;

/// The groups with the most items: `Ada 3, Bo 2, and 4 others 5`.
fn mix(groups: &[pb::GroupCount]) -> String {
    let (named, others) = groups.split_at(groups.len().min(NAMED));
    let told = |group: &pb::GroupCount| format!("{} {}", group_name(group), group.items);
    let mut words: Vec<String> = named.iter().map(told).collect();
    if !others.is_empty() {
        let items: u32 = others.iter().map(|group| group.items).sum();
        words.push(format!("and {} others {items}", others.len()));
    }
    words.join(", ")
}

/// What people know a group by: an artist's name, or where a scene is and what it is called.
fn group_name(group: &pb::GroupCount) -> String {
    let label = match group.label.as_str() {
        "" => String::new(),
        label => format!(" ({})", output::clip(label, 24)),
    };
    format!("{}{label}", output::clip(&group.name, 24))
}

/// What moved items, the most frequent first: `score (popularity) 7, artist cap 2`.
fn reasons(moves: &[pb::Move]) -> String {
    let mut counts: std::collections::BTreeMap<String, usize> = std::collections::BTreeMap::new();
    for step in moves {
        let mut why = wire::move_reason(step).replace('_', " ");
        if !step.feature.is_empty() {
            why += &format!(" ({})", step.feature);
        }
        *counts.entry(why).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let words: Vec<String> = counts
        .into_iter()
        .map(|(why, count)| format!("{why} {count}"))
        .collect();
    words.join(", ")
}

/// A table with a column for each variant.
fn comfy_lists(variants: &[pb::VariantResult]) -> comfy_table::Table {
    let mut table = output::table(&[Column::Number("#")]);
    let names = variants
        .iter()
        .map(|variant| output::clip(&variant.variant, 36));
    table.set_header(std::iter::once("#".to_owned()).chain(names));
    table
}

/// What people know an item by.
pub(crate) fn name(result: &pb::Result) -> &str {
    if result.title.is_empty() {
        &result.item_id
    } else {
        &result.title
    }
}

/// Where an item is, compared with another list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Move {
    /// At the same place.
    Same,
    /// Not in the other list.
    New,
    /// So many places nearer to the top.
    Up(usize),
    /// So many places further down.
    Down(usize),
}

/// How far `item`, now at `at`, moved from its place in `before`.
pub(crate) fn moved(before: &[pb::Result], at: usize, item: &str) -> Move {
    match before.iter().position(|result| result.item_id == item) {
        None => Move::New,
        Some(was) if was == at => Move::Same,
        Some(was) if was > at => Move::Up(was - at),
        Some(was) => Move::Down(at - was),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_names_the_largest_groups() {
        let group = |(name, items, label): (&str, u32, &str)| pb::GroupCount {
            name: name.to_owned(),
            items,
            label: label.to_owned(),
        };
        let groups = [
            ("2.1", 4, "ambient"),
            ("b", 3, ""),
            ("c", 3, ""),
            ("d", 2, ""),
            ("e", 2, ""),
            ("f", 1, ""),
            ("g", 1, ""),
        ]
        .map(group);
        assert_eq!(mix(&groups[..2]), "2.1 (ambient) 4, b 3");
        let all = "2.1 (ambient) 4, b 3, c 3, d 2, e 2, and 2 others 2";
        assert_eq!(mix(&groups), all);
    }

    #[test]
    fn moves_are_read_from_the_place_before() {
        let before: Vec<pb::Result> = ["a", "b", "c"]
            .map(|id| pb::Result {
                item_id: id.to_owned(),
                ..Default::default()
            })
            .into();
        assert_eq!(moved(&before, 0, "a"), Move::Same);
        assert_eq!(moved(&before, 0, "c"), Move::Up(2));
        assert_eq!(moved(&before, 2, "b"), Move::Down(1));
        assert_eq!(moved(&before, 1, "x"), Move::New);
    }
}
