//! Rows of the logs, as the server makes them; [`schema`](crate::schema) has their columns.

/// A served answer, and everything that could explain what followed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Exposure {
    /// Hash of request id, experiment and variant: a retried request has the same.
    pub exposure_id: u128,
    /// When the answer was ready, in microseconds since 1970.
    pub ts_us: i64,
    /// The randomised unit; empty when the request was for none.
    pub unit_id: String,
    /// The caller's name for the request, if it gave one.
    pub request_id: Option<String>,
    /// Where it was shown.
    pub surface: String,
    /// `user`, `profile`, `seeds` or `vector`.
    pub seed_kind: &'static str,
    /// Hash of the seeds, where there are any.
    pub seed_ids_hash: Option<String>,
    /// What was decided. Shared by all rows of one experiment.
    pub decision: Decision,
    /// Name of the arm that was served, when one was.
    pub served_variant: Option<String>,
    /// The ranking variant that ranked.
    pub ranking_variant: String,
    /// Index version.
    pub index_version: String,
    /// Delta generation on it.
    pub delta: u64,
    /// Embedding space.
    pub model_version: String,
    /// Profile revision; `None` when no profile was read.
    pub profile_rev: Option<u64>,
    /// What was shown, best first.
    pub items: ShownItems,
    /// Log probability of the whole slate, if it was sampled.
    pub slate_logprob: Option<f64>,
    /// From the head of the request until the answer was ready.
    pub latency_us: u32,
    /// Bit `n - 1` for reason `n` of `refrain.v1.DegradedReason`.
    pub degraded: u16,
    /// The caller said that no listener asked.
    pub bot: bool,
    /// Position in the writer's sequence: gaps are losses.
    pub seq: u64,
}

/// The assignment behind an exposure.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decision {
    /// Layer.
    pub layer: String,
    /// Its epoch.
    pub layer_epoch: u32,
    /// Experiment; empty for none.
    pub experiment: String,
    /// Its epoch.
    pub exp_epoch: u32,
    /// Its kind; empty for none.
    pub kind: &'static str,
    /// The assigned arm; empty for none.
    pub arm: String,
    /// Why, in capitals.
    pub reason: &'static str,
    /// `held` or `slice` of a holdout.
    pub holdout: Option<&'static str>,
    /// The same by holdout: `NAME|EPOCH|held` or `NAME|EPOCH|slice`, parted by `||`; empty for none.
    pub holdouts: String,
    /// Bucket in the layer, of a million.
    pub bucket: u32,
    /// Share of the layer that the experiment had then.
    pub alloc_bp: u32,
    /// Weights of all arms then.
    pub weights: Vec<f32>,
    /// Probability of the assigned arm then.
    pub assign_prob: Option<f64>,
    /// What was in force.
    pub config_digest: [u8; 32],
}

/// The items of a list, best first. Their ids lie in one piece of memory: a server makes thousands of rows a
/// second, and another thread gives back what each of them took.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ShownItems {
    ids: String,
    /// Each with the end of its id.
    items: Vec<(usize, ShownItem)>,
}

impl ShownItems {
    /// The items with their ids.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &ShownItem)> {
        let mut start = 0;
        self.items.iter().map(move |(end, item)| {
            let id = self.ids.get(start..*end).unwrap_or_default();
            start = *end;
            (id, item)
        })
    }

    /// Whether nothing was shown.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

impl<'a> FromIterator<(&'a str, ShownItem)> for ShownItems {
    fn from_iter<I: IntoIterator<Item = (&'a str, ShownItem)>>(items: I) -> Self {
        let items = items.into_iter();
        let (len, _) = items.size_hint();
        let mut these = Self {
            ids: String::with_capacity(len * USUAL_ID),
            items: Vec::with_capacity(len),
        };
        for (id, item) in items {
            these.ids.push_str(id);
            these.items.push((these.ids.len(), item));
        }
        these
    }
}

/// Bytes that most ids keep within; longer ones make the memory grow.
const USUAL_ID: usize = 24;

/// What is known of one shown item, beside its id.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ShownItem {
    /// Its score.
    pub score: f32,
    /// Number of `refrain.v1.ResultSource`.
    pub source: u8,
    /// Team of an interleaved list.
    pub team: Option<i8>,
    /// Probability of the item at its position under the logging policy, where it was random.
    pub propensity: Option<f64>,
    /// Whether exploration put it there.
    pub explored: bool,
}

/// Something that happened after an exposure.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// Hash of what makes it the same report.
    pub outcome_id: u128,
    /// When it happened, in microseconds since 1970.
    pub ts_us: i64,
    /// The unit.
    pub unit_id: String,
    /// The request that it follows, if known.
    pub request_id: Option<String>,
    /// The exposure that it follows, if known.
    pub exposure_id: Option<u128>,
    /// Name of the event.
    pub event: String,
    /// The item, if it concerns one.
    pub item: Option<String>,
    /// Its value.
    pub value: f64,
    /// Who reported it.
    pub source: Option<String>,
    /// Position in the writer's sequence.
    pub seq: u64,
}

/// A variant that was to be computed in the dark, beside what was served.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ShadowRecord {
    /// The exposure of the served answer.
    pub exposure_id: u128,
    /// When the comparison was ready, or there was none to come, in microseconds since 1970.
    pub ts_us: i64,
    /// The unit.
    pub unit_id: String,
    /// The caller's name for the request.
    pub request_id: Option<String>,
    /// Where the answer was shown.
    pub surface: String,
    /// The shadow experiment.
    pub experiment: String,
    /// Its epoch.
    pub exp_epoch: u32,
    /// What was in force.
    pub config_digest: [u8; 32],
    /// The arm in the dark.
    pub arm: String,
    /// Its ranking variant.
    pub ranking_variant: String,
    /// The ranking variant that was served.
    pub served_variant: String,
    /// Index version of both.
    pub index_version: String,
    /// Length of the served list.
    pub k: u32,
    /// Share of the served items that are in the dark list too, where there is one.
    pub overlap: Option<f64>,
    /// Rank-biased overlap, persistence 0.9, where there is a dark list.
    pub rbo: Option<f64>,
    /// Time that the dark answer took, also one that failed; `None`: it was not computed.
    pub latency_us: Option<u32>,
    /// Time that the served answer took.
    pub served_latency_us: u32,
    /// Hash of the dark list's ids in order.
    pub ids_hash: Option<u64>,
    /// Why there is no dark list, if there is none: `dropped: WHY` when it was not computed, `failed: WHY`.
    pub error: Option<String>,
    /// Position in the writer's sequence.
    pub seq: u64,
}
