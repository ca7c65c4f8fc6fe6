//! Many queries on all cores.

use rayon::prelude::*;

use crate::{
    index::Index,
    scratch::Scratch,
    search::{Hit, SearchError, SearchParams, hit},
};

/// Queries answered by one task: enough to make the hand-over cheap.
const CHUNK: usize = 16;

/// Queries that all items are read for once.
const TOGETHER: usize = 16;

/// Why a batch was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// The values do not fill whole queries.
    #[error("{values} values do not make whole queries of {dim}")]
    Ragged {
        /// Values given.
        values: usize,
        /// Dimension of the index.
        dim: usize,
    },
    /// A query was refused.
    #[error("query {query}: {source}")]
    Query {
        /// Its row.
        query: usize,
        /// Why.
        source: SearchError,
    },
}

impl Index {
    /// Answers the rows of `queries` (`q × dim`), on the threads of the rayon pool it is called in,
    /// each as [`Index::search`] would: the answers do not depend on the number of threads.
    ///
    /// # Errors
    /// [`BatchError`], for the first query that does not fit.
    pub fn search_batch(
        &self,
        queries: &[f32],
        k: usize,
        params: &SearchParams<'_>,
    ) -> Result<Vec<Vec<Hit>>, BatchError> {
        let dim = self.dim();
        self.refuse_ragged(queries)?;
        let parts: Vec<Vec<Result<Vec<Hit>, BatchError>>> = queries
            .par_chunks(dim * CHUNK)
            .enumerate()
            .map_init(Scratch::new, |scratch, (part, rows)| {
                let answer = |(row, query): (usize, &[f32])| {
                    let mut hits = Vec::with_capacity(k.min(self.len()));
                    let query_row = part * CHUNK + row;
                    match self.search(query, k, params, scratch, &mut hits) {
                        Ok(_) => Ok(hits),
                        Err(source) => Err(BatchError::Query {
                            query: query_row,
                            source,
                        }),
                    }
                };
                rows.chunks_exact(dim).enumerate().map(answer).collect()
            })
            .collect();
        parts.into_iter().flatten().collect()
    }

    /// The `k` best of all items for each of the rows of `queries` (`q × dim`), on the threads of the rayon pool it
    /// is called in, each as [`Index::search_exact`] would find them. O(q · n · dim); the items are read once for
    /// some queries together.
    ///
    /// # Errors
    /// [`BatchError`], for the first query that does not fit.
    pub fn search_exact_batch(
        &self,
        queries: &[f32],
        k: usize,
    ) -> Result<Vec<Vec<Hit>>, BatchError> {
        let dim = self.dim();
        self.refuse_ragged(queries)?;
        for (query, row) in queries.chunks_exact(dim).enumerate() {
            self.refuse_bad(row)
                .map_err(|source| BatchError::Query { query, source })?;
        }
        let k = k.min(self.len());
        let parts: Vec<Vec<Vec<Hit>>> = queries
            .par_chunks(dim * TOGETHER)
            .map_init(Vec::new, |scratches, rows| {
                scratches.resize_with(TOGETHER, Scratch::new);
                self.exact_together(rows.chunks_exact(dim), k, scratches);
                let asked = &scratches[..rows.len() / dim];
                let hits = |scratch: &Scratch| scratch.results.items().iter().map(hit).collect();
                asked.iter().map(hits).collect()
            })
            .collect();
        Ok(parts.into_iter().flatten().collect())
    }

    fn refuse_ragged(&self, queries: &[f32]) -> Result<(), BatchError> {
        let (values, dim) = (queries.len(), self.dim());
        if values.is_multiple_of(dim) {
            return Ok(());
        }
        Err(BatchError::Ragged { values, dim })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BuildParams, Filter, made};

    #[test]
    fn a_batch_answers_as_one_by_one() {
        let dim = 8;
        let vectors: Vec<f32> = (0_u16..3_000)
            .map(|at| f32::from(at.wrapping_mul(40_503) % 1_009) / 500.0 - 1.0)
            .collect();
        let index = made::index(&vectors, dim, &BuildParams::default());
        let params = SearchParams::default();
        let queries = &vectors[..dim * 37];
        let batch = index.search_batch(queries, 5, &params).expect("fits");
        assert_eq!(batch.len(), 37);
        let (mut scratch, mut hits) = (Scratch::new(), Vec::new());
        for (query, answer) in queries.chunks_exact(dim).zip(&batch) {
            index
                .search(query, 5, &params, &mut scratch, &mut hits)
                .expect("fits");
            assert_eq!(&hits, answer);
        }
        assert_eq!(
            index.search_batch(&queries[..7], 5, &params),
            Err(BatchError::Ragged { values: 7, dim })
        );
        assert_eq!(
            index.search_exact_batch(&queries[..7], 5),
            Err(BatchError::Ragged { values: 7, dim })
        );
        let exact = index.search_exact_batch(queries, 5).expect("fits");
        assert_eq!(exact.len(), 37);
        let all = Filter::default();
        for (query, answer) in queries.chunks_exact(dim).zip(&exact) {
            index
                .search_exact(query, 5, &all, &mut scratch, &mut hits)
                .expect("fits");
            assert_eq!(&hits, answer);
        }
        let mut bad = queries.to_vec();
        bad[dim * 20 + 3] = f32::NAN;
        let source = SearchError::NotFinite { dimension: 3 };
        let expected = BatchError::Query { query: 20, source };
        assert_eq!(index.search_batch(&bad, 5, &params), Err(expected.clone()));
        assert_eq!(index.search_exact_batch(&bad, 5), Err(expected));
    }
}
