//! `refrain recommend` and `refrain similar`: a person's questions to a running server.

use std::time::{Duration, Instant};

use refrain::v1::recommendation_service_client::RecommendationServiceClient;
use refrain::v1::{self as pb, recommend_request::Subject, similar_request::Query};

use crate::client::{Client, Connection, Selector};
use crate::failure::{Exit, Failure};
use crate::output::{self, Column, Output};
use crate::parse::{self, SeedArg, VectorArg};
use crate::wire;

/// Recommendations for a listener, for items, or for a vector
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain recommend alice
  refrain recommend alice -k 10 --variant balanced --seen allow
  refrain recommend --seed track-17=2 --seed track-4 --not track-99
  refrain recommend alice --exclude-artist 'Sigur Rós' --json | jq -r '.results[].item_id'

Environment: REFRAIN_ADDR")]
pub(crate) struct RecommendArgs {
    #[command(flatten)]
    subject: SubjectArgs,
    #[command(flatten)]
    answer: AnswerArgs,
    /// Ranking variant, instead of the one that the experiment assigns
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

/// Whom or what recommendations are for.
#[derive(Debug, Clone, clap::Args)]
#[group(id = "whom", required = true, multiple = true)]
pub(crate) struct SubjectArgs {
    /// The listener
    #[arg(value_name = "USER", conflicts_with_all = ["seed", "not", "vector"])]
    user: Option<String>,
    /// Item to be near to, with a weight after `=`; repeat
    #[arg(long, value_name = "ITEM[=W]", value_parser = parse::seed, conflicts_with = "vector")]
    seed: Vec<SeedArg>,
    /// Item to be far from; repeat
    #[arg(long, value_name = "ITEM[=W]", value_parser = parse::seed, conflicts_with = "vector")]
    not: Vec<SeedArg>,
    /// Query vector: numbers separated by commas
    #[arg(long, value_name = "X,Y,…", value_parser = parse::vector, allow_hyphen_values = true)]
    vector: Option<VectorArg>,
}

impl SubjectArgs {
    /// For people: whom or what the answer is for.
    pub(crate) fn describe(&self) -> String {
        match (&self.user, &self.vector) {
            (Some(user), _) => output::clip(user, 60),
            (None, Some(vector)) => format!("a vector of {}", vector.0.len()),
            (None, None) => format!("{} seeds", self.seed.len() + self.not.len()),
        }
    }

    fn to_wire(&self) -> Subject {
        match (&self.user, &self.vector) {
            (Some(user), _) => Subject::UserId(user.clone()),
            (None, Some(vector)) => Subject::Vector(wire_vector(vector)),
            (None, None) => Subject::Seeds(pb::Seeds {
                positive: self.seed.iter().map(wire_seed).collect(),
                negative: self.not.iter().map(wire_seed).collect(),
                ..Default::default()
            }),
        }
    }
}

/// What may come back, and how it is searched for.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct AnswerArgs {
    /// How many results
    #[arg(short = 'k', long = "count", value_name = "N", default_value_t = 20,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    k: u32,
    #[command(flatten)]
    filter: FilterArgs,
    /// What happens to items already heard [default: exclude]
    #[arg(long, value_enum)]
    seen: Option<Seen>,
    /// At most so many items of one artist; 0: no cap [default: the variant's]
    #[arg(long, value_name = "N")]
    max_per_artist: Option<u32>,
    #[command(flatten)]
    search: SearchArgs,
    /// Where the recommendations are shown; selects the experiment layer
    #[arg(long, value_name = "NAME", default_value = "")]
    surface: String,
    /// Not from an older profile than this revision
    #[arg(long, value_name = "N")]
    min_profile_revision: Option<u64>,
    /// Nothing instead of popular items where there is nothing to search with
    #[arg(long)]
    no_fallback: bool,
    #[command(flatten)]
    selector: Selector,
}

/// Which items may come back.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct FilterArgs {
    /// Not this item; repeat
    #[arg(long, value_name = "ITEM")]
    exclude_item: Vec<String>,
    /// Nothing by this artist; repeat
    #[arg(long, value_name = "ARTIST")]
    exclude_artist: Vec<String>,
    /// Only these items; repeat
    #[arg(long, value_name = "ITEM")]
    allow_item: Vec<String>,
    /// Only items with at least one of these tags; repeat
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// No item with this tag; repeat
    #[arg(long, value_name = "TAG")]
    not_tag: Vec<String>,
}

impl FilterArgs {
    fn to_wire(&self) -> Option<pb::Filter> {
        let filter = pb::Filter {
            exclude_item_ids: self.exclude_item.as_slice().into(),
            exclude_artists: self.exclude_artist.as_slice().into(),
            allow_item_ids: self.allow_item.as_slice().into(),
            any_tags: self.tag.as_slice().into(),
            not_tags: self.not_tag.as_slice().into(),
        };
        (filter != pb::Filter::default()).then_some(filter)
    }
}

/// How the index is searched.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SearchArgs {
    /// Candidate-list width [default: the variant's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    ef_search: Option<u32>,
    /// Recall@10 to aim at, 0.5 to 1, by the version's calibration
    #[arg(long, value_name = "SHARE", conflicts_with_all = ["ef_search", "exact"])]
    recall: Option<f64>,
    /// Exact search instead of the graph
    #[arg(long)]
    exact: bool,
}

impl SearchArgs {
    fn to_wire(&self) -> Option<pb::SearchParams> {
        let search = pb::SearchParams {
            ef_search: self.ef_search,
            recall: self.recall,
            exact: self.exact,
            time_budget: None,
        };
        (search != pb::SearchParams::default()).then_some(search)
    }
}

/// What happens to items already heard.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Seen {
    /// They do not come back
    Exclude,
    /// They may come back
    Allow,
}

/// The request that the flags describe.
pub(crate) fn request(
    subject: &SubjectArgs,
    answer: &AnswerArgs,
    variant: Option<&str>,
) -> pb::RecommendRequest {
    let seen = match answer.seen {
        None => pb::SeenPolicy::Unspecified,
        Some(Seen::Exclude) => pb::SeenPolicy::Exclude,
        Some(Seen::Allow) => pb::SeenPolicy::Allow,
    };
    let fallback = if answer.no_fallback {
        pb::Fallback::None
    } else {
        pb::Fallback::Unspecified
    };
    pb::RecommendRequest {
        subject: Some(subject.to_wire()),
        index: answer.selector.to_wire(),
        page_size: Some(answer.k),
        filter: answer.filter.to_wire().map(Into::into).unwrap_or_default(),
        seen_policy: seen.into(),
        diversity: answer.max_per_artist.map(|cap| pb::Diversity {
            max_per_artist: Some(cap),
        }),
        ranking: Some(pb::Ranking {
            surface: answer.surface.clone(),
            variant_override: variant.unwrap_or_default().to_owned(),
            ..pb::Ranking::default()
        }),
        search: answer.search.to_wire(),
        consistency: answer.min_profile_revision.map(|revision| pb::Consistency {
            min_profile_revision: revision,
            ..pb::Consistency::default()
        }),
        fallback: fallback.into(),
        ..Default::default()
    }
}

/// Runs `refrain recommend`.
pub(crate) fn recommend(args: &RecommendArgs, output: &Output) -> anyhow::Result<Exit> {
    let request = request(&args.subject, &args.answer, args.variant.as_deref());
    let (answer, took) = args.connection.run(async |client: Client| {
        let started = Instant::now();
        let mut service = RecommendationServiceClient::new(client.channel.clone());
        let answer = service.recommend(client.request(request)).await;
        Ok((client.answer("recommend", answer)?, started.elapsed()))
    })?;
    output.result(&wire::recommendations(&answer), |output| {
        print_results(&answer.results, output);
        print_recommended(&args.subject.describe(), &answer, took, output);
    });
    Ok(Exit::Done)
}

/// Items like an item, or nearest to a vector
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain similar track-17
  refrain similar track-17 -k 5 --exclude-artist 'Sigur Rós'
  refrain similar --vector 0.12,-0.3,0.9 --exact --json

Environment: REFRAIN_ADDR")]
pub(crate) struct SimilarArgs {
    /// The item to be near to
    #[arg(
        value_name = "ITEM",
        required_unless_present = "vector",
        conflicts_with = "vector"
    )]
    item: Option<String>,
    /// The vector to be near to: numbers separated by commas
    #[arg(long, value_name = "X,Y,…", value_parser = parse::vector, allow_hyphen_values = true)]
    vector: Option<VectorArg>,
    /// How many results
    #[arg(short = 'k', long = "count", value_name = "N", default_value_t = 20,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    k: u32,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    search: SearchArgs,
    #[command(flatten)]
    selector: Selector,
    #[command(flatten)]
    connection: Connection,
}

/// Runs `refrain similar`.
pub(crate) fn similar(args: &SimilarArgs, output: &Output) -> anyhow::Result<Exit> {
    let query = match (&args.item, &args.vector) {
        (Some(item), _) => Query::ItemId(item.clone()),
        (None, Some(vector)) => Query::Vector(wire_vector(vector)),
        (None, None) => {
            return Err(Failure::usage("similar to what?")
                .next("give an item or --vector")
                .error());
        }
    };
    let request = pb::SimilarRequest {
        query: Some(query),
        index: args.selector.to_wire(),
        page_size: Some(args.k),
        filter: args.filter.to_wire().map(Into::into).unwrap_or_default(),
        search: args.search.to_wire(),
        ..Default::default()
    };
    let (answer, took) = args.connection.run(async |client: Client| {
        let started = Instant::now();
        let mut service = RecommendationServiceClient::new(client.channel.clone());
        let answer = service.similar(client.request(request)).await;
        Ok((client.answer("similar", answer)?, started.elapsed()))
    })?;
    output.result(&wire::neighbours(&answer), |output| {
        print_results(&answer.results, output);
        let by = answer.served_by.unwrap_or_default();
        output.line(format_args!(
            "{} results from {} in {}",
            answer.results.len(),
            by.version,
            output::duration(took)
        ));
        print_degraded(&answer.degraded, output);
    });
    Ok(Exit::Done)
}

/// Prints results as a table.
pub(crate) fn print_results(results: &[pb::Result], output: &Output) {
    let named = results.iter().any(|result| !result.title.is_empty());
    let by_artist = results.iter().any(|result| !result.artist.is_empty());
    let mut columns = vec![Column::Number("#"), Column::Text("item")];
    if named {
        columns.push(Column::Text("title"));
    }
    if by_artist {
        columns.push(Column::Text("artist"));
    }
    columns.extend([
        Column::Number("score"),
        Column::Number("similarity"),
        Column::Text("source"),
    ]);
    let mut table = output::table(&columns);
    for (at, result) in results.iter().enumerate() {
        let mut row = vec![(at + 1).to_string(), output::clip(&result.item_id, 40)];
        if named {
            row.push(output::clip(&result.title, 40));
        }
        if by_artist {
            row.push(output::clip(&result.artist, 30));
        }
        row.push(format!("{:.4}", result.score));
        row.push(format!("{:.4}", result.similarity));
        row.push(wire::source(result));
        table.add_row(row);
    }
    output.table(&table);
}

fn print_recommended(whom: &str, answer: &pb::RecommendResponse, took: Duration, output: &Output) {
    let by = answer.served_by.clone().unwrap_or_default();
    let chosen = match (answer.forced, by.experiment.as_str()) {
        (true, _) => "as asked".to_owned(),
        (false, "") => "by default".to_owned(),
        (false, experiment) => format!("by experiment {experiment}, arm {}", by.arm),
    };
    output.line(format_args!(
        "{} results for {whom} from {} with variant {} ({chosen}) in {}",
        answer.results.len(),
        by.version,
        by.variant,
        output::duration(took),
    ));
    if let Some(profile) = &answer.profile {
        output.line(format_args!(
            "profile revision {} ({}): {} events used, {} excluded, {} of unknown items{}",
            profile.revision,
            wire::tier(profile.tier()),
            output::count(profile.events_used),
            output::count(profile.events_excluded),
            output::count(profile.events_unknown),
            match profile.interests {
                0 | 1 => String::new(),
                several => format!("; {several} interests"),
            },
        ));
    }
    if !answer.unresolved_seeds.is_empty() {
        let seeds: Vec<String> = answer
            .unresolved_seeds
            .iter()
            .map(|seed| output::clip(seed, 40))
            .collect();
        output.line(format_args!(
            "seeds that this version does not know: {}",
            seeds.join(", ")
        ));
    }
    print_degraded(&answer.degraded, output);
}

fn print_degraded(reasons: &[i32], output: &Output) {
    for &reason in reasons {
        let words = match pb::DegradedReason::try_from(reason) {
            Ok(pb::DegradedReason::EfReduced) => "the candidate list was shortened under load",
            Ok(pb::DegradedReason::TimeBudget) => "the time budget ended the search early",
            Ok(pb::DegradedReason::ProfileUnavailable) => "the profile store could not be read",
            Ok(pb::DegradedReason::FallbackUsed) => "nothing to search with: popular items",
            Ok(pb::DegradedReason::FewerThanAsked) => "fewer items than asked for may be shown",
            Ok(pb::DegradedReason::FeatureMissing) => {
                "a feature of the variant is missing in this version and counted as 0"
            }
            Ok(pb::DegradedReason::Unspecified) | Err(_) => "for a reason unknown to this client",
        };
        output.line(format_args!("degraded: {words}"));
    }
}

fn wire_vector(vector: &VectorArg) -> pb::Vector {
    pb::Vector {
        values: vector.0.clone(),
        model_version: String::new(),
    }
}

fn wire_seed(seed: &SeedArg) -> pb::Seed {
    pb::Seed {
        seed: Some(pb::seed::Seed::ItemId(seed.item.clone())),
        weight: seed.weight,
    }
}
