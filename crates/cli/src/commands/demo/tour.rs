//! Questions to the server, over gRPC: recommendations for real listeners, an exclusion that takes
//! effect and is undone, two variants side by side.

use std::time::{Duration, Instant};

use refrain::v1 as pb;
use refrain::v1::experiment_service_client::ExperimentServiceClient;
use refrain::v1::recommend_request::Subject;
use refrain::v1::recommendation_service_client::RecommendationServiceClient;
use refrain::v1::taste_profile_service_client::TasteProfileServiceClient;
use serde_json::{Value, json};
use tonic::transport::Channel;

use super::cast::{Cast, Lead};
use super::road::Road;
use super::steps::Steps;
use crate::client::Client;
use crate::commands::compare::{self, Move};
use crate::commands::profile::import::MAX_EVENTS;
use crate::output::{self, Column};

/// What was shown.
#[derive(Debug)]
pub(super) struct Tour {
    /// Answers for real listeners.
    pub(super) listeners: Vec<Value>,
    /// Of repeated requests over one connection.
    pub(super) latency: Value,
    pub(super) exclusion: Exclusion,
    /// Variants side by side.
    pub(super) variants: Vec<Value>,
}

/// Results of an answer.
const LIST: u32 = 10;
/// Requests whose latency is measured.
const REQUESTS: usize = 200;
/// The variant of all that is compared bit for bit: assignment depends on the listener's id, and a
/// twin has another.
const VARIANT: &str = "plain";
/// The listener who never heard what the lead excludes.
const TWIN: &str = "demo:twin";

/// Shows it all.
pub(super) async fn guide(
    client: &Client,
    road: &Road,
    cast: &Cast,
    steps: &mut Steps<'_>,
) -> anyhow::Result<Tour> {
    let guide = Guide::new(client);
    steps.begin(
        "recommend",
        "send the events of real listeners, then ask what they hear next",
    );
    let listeners = guide.audience(cast, steps).await?;
    let latency = guide.latency(cast, steps).await?;
    steps.end();

    steps.begin("exclude", "a context out of a taste profile, and back");
    let exclusion = guide.exclusion(&cast.lead, road, steps).await?;
    steps.end();

    steps.begin("compare", "the same request under the declared variants");
    let variants = guide.variants(&cast.lead.id, steps).await?;
    steps.end();
    Ok(Tour {
        listeners,
        latency,
        exclusion,
        variants,
    })
}

struct Guide<'a> {
    client: &'a Client,
    recommendations: RecommendationServiceClient<Channel>,
    taste: TasteProfileServiceClient<Channel>,
    experiments: ExperimentServiceClient<Channel>,
}

impl<'a> Guide<'a> {
    fn new(client: &'a Client) -> Self {
        let channel = || client.channel.clone();
        Self {
            client,
            recommendations: RecommendationServiceClient::new(channel()),
            taste: TasteProfileServiceClient::new(channel()),
            experiments: ExperimentServiceClient::new(channel()),
        }
    }

    async fn audience(&self, cast: &Cast, steps: &Steps<'_>) -> anyhow::Result<Vec<Value>> {
        let mut documents = Vec::new();
        let mut answers = Vec::new();
        for extra in &cast.audience {
            let revision = self.append(&extra.id, &extra.events).await?;
            let started = Instant::now();
            let answer = self
                .ask(&extra.id, revision, pb::SeenPolicy::Exclude, "")
                .await?;
            let took = started.elapsed();
            documents.push(json!({
                "user": extra.id,
                "events": extra.events.len(),
                "variant": answer.served_by.as_ref().map(|by| by.variant.clone()),
                "items": Listed::of(&answer).ids(),
                "seconds": took.as_secs_f64(),
            }));
            answers.push((extra, answer, took));
        }
        let mut table = output::table(&[Column::Number("#")]);
        let names = answers
            .iter()
            .map(|(extra, ..)| output::clip(&extra.id, 32));
        table.set_header(std::iter::once("#".to_owned()).chain(names));
        for at in 0..LIST as usize {
            let cell = |answer: &pb::RecommendResponse| {
                answer.results.get(at).map_or_else(String::new, |result| {
                    output::clip(compare::name(result), 32)
                })
            };
            let cells = answers.iter().map(|(_, answer, _)| cell(answer));
            table.add_row(std::iter::once((at + 1).to_string()).chain(cells));
        }
        steps.output.table(&table);
        for (extra, answer, took) in &answers {
            let by = answer.served_by.clone().unwrap_or_default();
            steps.say(format_args!(
                "{}: {} events folded in, variant {}, answered in {}",
                output::clip(&extra.id, 32),
                output::count(extra.events.len() as u64),
                by.variant,
                output::duration(*took)
            ));
        }
        Ok(documents)
    }

    /// Asks again and again, one request after another, over one connection.
    async fn latency(&self, cast: &Cast, steps: &Steps<'_>) -> anyhow::Result<Value> {
        let users: Vec<&str> = cast
            .audience
            .iter()
            .map(|extra| extra.id.as_str())
            .collect();
        let mut times: Vec<Duration> = Vec::with_capacity(REQUESTS);
        for user in users
            .iter()
            .cycle()
            .take(if users.is_empty() { 0 } else { REQUESTS })
        {
            let started = Instant::now();
            self.ask(user, 0, pb::SeenPolicy::Exclude, "").await?;
            times.push(started.elapsed());
        }
        times.sort_unstable();
        let at = |percent: usize| {
            times
                .get((times.len() * percent).div_ceil(100).saturating_sub(1))
                .copied()
        };
        let (Some(median), Some(slow)) = (at(50), at(99)) else {
            return Ok(Value::Null);
        };
        steps.say(format_args!(
            "{} more requests, one after another: median {}, p99 {}",
            times.len(),
            output::duration(median),
            output::duration(slow)
        ));
        Ok(json!({
            "requests": times.len(),
            "p50_us": median.as_secs_f64() * 1e6,
            "p99_us": slow.as_secs_f64() * 1e6,
        }))
    }

    async fn exclusion(
        &self,
        lead: &Lead,
        road: &Road,
        steps: &Steps<'_>,
    ) -> anyhow::Result<Exclusion> {
        self.introduce(lead, road, steps);
        let all: Vec<pb::Event> = lead.kept.iter().chain(&lead.excluded).cloned().collect();
        let revision = self.append(&lead.id, &all).await?;
        let before = self.listed(&lead.id, revision).await?;

        let started = Instant::now();
        let (rule, revision) = self.exclude(lead).await?;
        let after = self.listed(&lead.id, revision).await?;
        let took = started.elapsed();
        print_moves(&before, &after, steps);
        steps.say(format_args!(
            "from the rule to an answer that honours it: {}, durable",
            output::duration(took)
        ));

        let twin_revision = self.append(TWIN, &lead.kept).await?;
        let twin = self.listed(TWIN, twin_revision).await?;

        let revision = self.undo(lead, &rule).await?;
        let undone = self.listed(&lead.id, revision).await?;
        let exclusion = Exclusion {
            before,
            after,
            twin,
            undone,
        };
        let yes = |held| if held { "yes" } else { "NO" };
        steps.say(format_args!(
            "the same bits as a listener who never had these events: {} \
             ({} vector components, {} results)",
            yes(exclusion.bit_equal()),
            exclusion.after.vector.len(),
            exclusion.after.heard_too.len()
        ));
        steps.say(format_args!(
            "after undoing the rule, what it was before: {}",
            yes(exclusion.undo_identical())
        ));
        Ok(exclusion)
    }

    fn introduce(&self, lead: &Lead, road: &Road, steps: &Steps<'_>) {
        let id = output::clip(&lead.id, 60);
        match &lead.planted_from {
            Some(stranger) => steps.say(format_args!(
                "the log has no contexts, so {id}, with {} events, falls asleep to {} items that {} \
                 plays, and nobody is less like them (planted as context {})",
                output::count(lead.kept.len() as u64),
                lead.excluded.len(),
                output::clip(stranger, 60),
                lead.context,
            )),
            None => steps.say(format_args!(
                "{id} heard {} of {} events in {}, one of {} contexts of the log",
                output::count(lead.excluded.len() as u64),
                output::count((lead.kept.len() + lead.excluded.len()) as u64),
                output::clip(&lead.context, 60),
                output::count(road.log.contexts.len() as u64),
            )),
        }
    }

    async fn variants(&self, user: &str, steps: &Steps<'_>) -> anyhow::Result<Vec<Value>> {
        let request = pb::CompareVariantsRequest {
            request: Some(request(user, 0, pb::SeenPolicy::Exclude, "")),
            variants: Vec::new(),
        };
        let mut service = self.experiments.clone();
        let answer = service.compare_variants(self.client.request(request)).await;
        let answer = self.client.answer("compare", answer)?;
        compare::print(&answer, steps.output);
        let document = |variant: &pb::VariantResult| {
            let items: Vec<&str> = variant
                .results
                .iter()
                .map(|result| result.item_id.as_str())
                .collect();
            json!({
                "name": variant.variant,
                "items": items,
                "overlap": variant.overlap,
                "distinct_artists": variant.distinct_artists,
                "elapsed_us": variant.elapsed_us,
            })
        };
        Ok(answer.variants.iter().map(document).collect())
    }

    /// Appends events; the profile's revision afterwards.
    async fn append(&self, user: &str, events: &[pb::Event]) -> anyhow::Result<u64> {
        let mut service = self.taste.clone();
        let mut revision = 0;
        for events in events.chunks(MAX_EVENTS) {
            let request = pb::AppendEventsRequest {
                user_id: user.to_owned(),
                events: events.to_vec(),
            };
            let answer = service.append_events(self.client.request(request)).await;
            revision = self.client.answer("append", answer)?.profile_revision;
        }
        Ok(revision)
    }

    async fn exclude(&self, lead: &Lead) -> anyhow::Result<(String, u64)> {
        let scope = pb::exclusion_scope::Scope::Context(lead.context.clone());
        let request = pb::CreateExclusionRequest {
            user_id: lead.id.clone(),
            exclusion: Some(pb::Exclusion {
                scope: Some(pb::ExclusionScope { scope: Some(scope) }),
                effect: pb::ExclusionEffect::Learn.into(),
                note: "refrain demo".to_owned(),
                ..Default::default()
            }),
        };
        let mut service = self.taste.clone();
        let answer = service.create_exclusion(self.client.request(request)).await;
        let answer = self.client.answer("exclude", answer)?;
        let rule = answer.exclusion.unwrap_or_default().rule_id;
        Ok((rule, answer.profile_revision))
    }

    async fn undo(&self, lead: &Lead, rule: &str) -> anyhow::Result<u64> {
        let request = pb::DeleteExclusionRequest {
            user_id: lead.id.clone(),
            rule_id: rule.to_owned(),
            allow_missing: false,
        };
        let mut service = self.taste.clone();
        let answer = service.delete_exclusion(self.client.request(request)).await;
        Ok(self.client.answer("undo", answer)?.profile_revision)
    }

    /// What a listener gets and is, at a revision.
    async fn listed(&self, user: &str, revision: u64) -> anyhow::Result<Listed> {
        let answer = self
            .ask(user, revision, pb::SeenPolicy::Exclude, VARIANT)
            .await?;
        let all = self
            .ask(user, revision, pb::SeenPolicy::Allow, VARIANT)
            .await?;
        let request = pb::GetProfileRequest {
            user_id: user.to_owned(),
            include_vector: true,
            min_profile_revision: revision,
            ..Default::default()
        };
        let mut service = self.taste.clone();
        let profile = service.get_profile(self.client.request(request)).await;
        let profile = self.client.answer("show the profile", profile)?;
        Ok(Listed {
            vector: profile.vector.unwrap_or_default().values,
            heard_too: all.results,
            ..Listed::of(&answer)
        })
    }

    async fn ask(
        &self,
        user: &str,
        revision: u64,
        seen: pb::SeenPolicy,
        variant: &str,
    ) -> anyhow::Result<pb::RecommendResponse> {
        let mut service = self.recommendations.clone();
        let request = self.client.request(request(user, revision, seen, variant));
        self.client
            .answer("recommend", service.recommend(request).await)
    }
}

fn request(user: &str, revision: u64, seen: pb::SeenPolicy, variant: &str) -> pb::RecommendRequest {
    pb::RecommendRequest {
        subject: Some(Subject::UserId(user.to_owned())),
        page_size: Some(LIST),
        seen_policy: seen.into(),
        ranking: Some(pb::Ranking {
            surface: "home".to_owned(),
            variant_override: variant.to_owned(),
            ..pb::Ranking::default()
        }),
        consistency: Some(pb::Consistency {
            min_profile_revision: revision,
            ..pb::Consistency::default()
        }),
        ..Default::default()
    }
}

/// What a listener gets and is.
#[derive(Debug)]
pub(super) struct Listed {
    /// What they are recommended.
    results: Vec<pb::Result>,
    /// The same with what they have heard.
    heard_too: Vec<pb::Result>,
    /// The folded-in profile.
    vector: Vec<f32>,
}

impl Listed {
    fn of(answer: &pb::RecommendResponse) -> Self {
        Self {
            results: answer.results.clone(),
            heard_too: Vec::new(),
            vector: Vec::new(),
        }
    }

    /// Items, best first.
    pub(super) fn ids(&self) -> Vec<&str> {
        self.results
            .iter()
            .map(|result| result.item_id.as_str())
            .collect()
    }
}

/// An exclusion: the lead before, under the rule, and after its undo; and a twin who never had the
/// excluded events.
#[derive(Debug)]
pub(super) struct Exclusion {
    pub(super) before: Listed,
    pub(super) after: Listed,
    twin: Listed,
    undone: Listed,
}

impl Exclusion {
    /// The rule changed what is recommended.
    pub(super) fn list_changed(&self) -> bool {
        self.before.ids() != self.after.ids()
    }

    /// Vector and list are, bit for bit, those of the twin. Items already heard may come back in
    /// these lists: that the lead heard the excluded items stays a fact, which the twin's list would
    /// show.
    pub(super) fn bit_equal(&self) -> bool {
        !self.after.vector.is_empty()
            && same_bits(&self.after.vector, &self.twin.vector)
            && same_results(&self.after.heard_too, &self.twin.heard_too)
    }

    /// Everything is what it was before the rule.
    pub(super) fn undo_identical(&self) -> bool {
        !self.before.vector.is_empty()
            && same_bits(&self.before.vector, &self.undone.vector)
            && same_results(&self.before.results, &self.undone.results)
            && same_results(&self.before.heard_too, &self.undone.heard_too)
    }
}

fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x.to_bits() == y.to_bits())
}

fn same_results(a: &[pb::Result], b: &[pb::Result]) -> bool {
    let same = |(x, y): (&pb::Result, &pb::Result)| {
        x.item_id == y.item_id
            && x.score.to_bits() == y.score.to_bits()
            && x.similarity.to_bits() == y.similarity.to_bits()
    };
    a.len() == b.len() && a.iter().zip(b).all(same)
}

/// Prints two lists beside one another, and what moved.
fn print_moves(before: &Listed, after: &Listed, steps: &Steps<'_>) {
    let mut table = output::table(&[
        Column::Number("#"),
        Column::Text("before"),
        Column::Text("without the context"),
    ]);
    for at in 0..before.results.len().max(after.results.len()) {
        let was = before.results.get(at).map_or_else(String::new, |result| {
            let gone = !after.ids().contains(&result.item_id.as_str());
            let name = output::clip(compare::name(result), 40);
            if gone {
                format!("{name}  (goes)")
            } else {
                name
            }
        });
        let is = after.results.get(at).map_or_else(String::new, |result| {
            let name = output::clip(compare::name(result), 40);
            match compare::moved(&before.results, at, &result.item_id) {
                Move::Same => name,
                Move::New => format!("{name}  (new)"),
                Move::Up(by) => format!("{name}  (up {by})"),
                Move::Down(by) => format!("{name}  (down {by})"),
            }
        });
        table.add_row([(at + 1).to_string(), was, is]);
    }
    steps.output.table(&table);
    let ids = before.ids();
    let new = after.ids().iter().filter(|id| !ids.contains(id)).count();
    steps.say(format_args!(
        "{new} of {} recommendations are other ones",
        after.results.len()
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(ids: &[&str], vector: &[f32]) -> Listed {
        let results: Vec<pb::Result> = ids
            .iter()
            .map(|id| pb::Result {
                item_id: (*id).to_owned(),
                ..Default::default()
            })
            .collect();
        Listed {
            heard_too: results.clone(),
            results,
            vector: vector.to_vec(),
        }
    }

    #[test]
    fn the_checks_can_fail() {
        let (with, without) = (
            listed(&["a", "b"], &[1.0, 0.0]),
            listed(&["b", "c"], &[1.0, 0.5]),
        );
        let clone = |listed: &Listed| Listed {
            results: listed.results.clone(),
            heard_too: listed.heard_too.clone(),
            vector: listed.vector.clone(),
        };
        let works = Exclusion {
            before: clone(&with),
            after: clone(&without),
            twin: clone(&without),
            undone: clone(&with),
        };
        assert!(works.list_changed() && works.bit_equal() && works.undo_identical());

        // No effect at all.
        let idle = Exclusion {
            before: clone(&with),
            after: clone(&with),
            twin: clone(&without),
            undone: clone(&with),
        };
        assert!(!idle.list_changed() && !idle.bit_equal());

        // Zero and minus zero are equal numbers with other bits.
        let mut almost = clone(&without);
        almost.vector = vec![1.0, 0.5_f32.next_up()];
        let off = Exclusion {
            before: clone(&with),
            after: almost,
            twin: without,
            undone: listed(&["a", "b"], &[1.0, -0.0]),
        };
        assert!(!off.bit_equal() && !off.undo_identical());

        // No vector is no proof.
        let none = || listed(&["a"], &[]);
        let blank = Exclusion {
            before: none(),
            after: none(),
            twin: none(),
            undone: none(),
        };
        assert!(!blank.bit_equal() && !blank.undo_identical());
    }
}
