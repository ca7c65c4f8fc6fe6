//! Items like one item, or nearest to a vector.

use refrain_index::OrdinalSet;

use crate::answer::{Answer, Degraded, Scored, Source};
use crate::filter::Allowed;
use crate::recommend::Scratch;
use crate::request::{RequestError, Similar, SimilarTo};
use crate::retrieve::Params;
use crate::version::Version;

/// The nearest allowed items, nearest first, ties by ordinal. Reads no profile and knows no variant.
///
/// # Errors
/// [`RequestError`] when the request is not valid or its item is not in the version.
pub fn similar(
    version: &Version,
    request: &Similar<'_>,
    scratch: &mut Scratch,
) -> Result<Answer, RequestError> {
    request.check(version)?;
    let mut itself = OrdinalSet::new();
    let stored;
    let query = match request.to {
        SimilarTo::Vector(values) => values,
        SimilarTo::Item(id) => {
            let ordinal = version.items().ordinal(id);
            let vector = ordinal.and_then(|ordinal| version.vector(ordinal));
            let (Some(ordinal), Some(vector)) = (ordinal, vector) else {
                let path = "item_id".to_owned();
                return Err(RequestError::UnknownItem {
                    path,
                    id: id.to_owned(),
                });
            };
            itself.insert(ordinal);
            stored = vector;
            &stored
        }
    };
    let compiled = version.compiled(request.filter);
    let exclude = [version.blocked(), &compiled.exclude, &itself];
    let allowed = Allowed::new(&exclude, compiled.allow.as_ref());

    let Scratch { search, hits, .. } = scratch;
    let params = Params {
        ef_search: match (request.ef_search, request.recall) {
            (Some(ef_search), _) => ef_search,
            (None, Some(recall)) => version.ef_search_for(recall),
            (None, None) => version.ef_search(),
        },
        exact: request.exact,
        filter: allowed.filter(),
        deadline: request.deadline,
        debias: None,
        per_artist: None,
    };
    let search = version.search(query, request.k, &params, search, hits)?;
    let mut answer = Answer {
        search,
        ..Answer::default()
    };
    let stats = answer.search;
    answer.items.extend(
        hits.iter()
            .filter(|hit| allowed.contains(hit.ordinal))
            .map(|hit| {
                let source = Source::of(version, hit.ordinal, stats);
                Scored::new(hit.ordinal, hit.score, hit.score, source)
            }),
    );
    debug_assert_eq!(
        answer.items.len(),
        hits.len(),
        "the index returned what is not allowed"
    );
    if answer.search.truncated {
        answer.degrade(Degraded::TimeBudget);
    }
    if answer.items.len() < request.k {
        answer.degrade(Degraded::FewerThanAsked);
    }
    Ok(answer)
}
