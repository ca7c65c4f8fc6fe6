//! The coded items of an index being built.

use rayon::prelude::*;
use refrain_kernels::{
    Lines, Metric,
    codes::{CodeRows, Panels},
};

use super::{Pages, project};
use crate::{
    codes::{self, CodeQuery, PARTS, RUNGS},
    heads::Heads,
    nibbles,
    search::normalise,
    space::{self, Space},
    walk::count,
};

/// Rows coded by one task.
const CHUNK: usize = 1024;

/// The vectors as they will be stored, by place.
#[derive(Debug)]
pub(super) struct Coded {
    pub(super) metric: Metric,
    pub(super) dim: usize,
    pub(super) stride: usize,
    pub(super) steps: Box<[f32; RUNGS]>,
    pub(super) centre: Vec<f32>,
    pub(super) codes: Pages<i8>,
    pub(super) remainders: Pages<i8>,
    pub(super) sketch: Option<Sketch>,
    /// What a search walks of vectors of two cache lines; a build walks all high bytes.
    pub(super) nibbles: Option<Nibbles>,
    pub(super) scales: Vec<u8>,
    /// Of l2 only.
    pub(super) squares: Vec<f32>,
    /// One over the length of each vector; only for inner product.
    pub(super) inverse_norms: Vec<f32>,
    /// Of inner product only: the longest of each `RUN` items; filled once items are in order.
    pub(super) lengths: Vec<f32>,
    /// Longest error of the high bytes, in steps.
    pub(super) coarse_error: f32,
    /// Relative error of all bytes, root mean square.
    pub(super) loss: f32,
}

/// The principal components of long vectors, coded: what is walked instead of all dimensions.
#[derive(Debug)]
pub(super) struct Sketch {
    /// `width × dim`.
    pub(super) projection: Vec<f32>,
    pub(super) width: usize,
    pub(super) stride: usize,
    pub(super) codes: Pages<i8>,
    pub(super) scales: Vec<u8>,
}

/// Four bits a value, see [`crate::nibbles`].
#[derive(Debug)]
pub(super) struct Nibbles {
    pub(super) rows: Pages<i8>,
    pub(super) terms: Pages<f32>,
}

/// The largest magnitude of nothing, and the smallest.
const NOTHING: (f32, f32) = (0.0, f32::INFINITY);

/// The largest magnitude and the smallest, of a row that has one; zeros fit any step.
fn extent(magnitude: f32) -> (f32, f32) {
    if magnitude > 0.0 {
        (magnitude, magnitude)
    } else {
        NOTHING
    }
}

fn join(a: (f32, f32), b: (f32, f32)) -> (f32, f32) {
    (a.0.max(b.0), a.1.min(b.1))
}

/// What is known of a row once it is coded.
struct Row {
    rung: u8,
    square: f32,
    coarse_error: f32,
    /// Squared, relative to the length.
    loss: f64,
    inverse_norm: f32,
}

impl Coded {
    /// Codes every row, in the order given.
    ///
    /// # Errors
    /// When the system has not that much memory.
    pub(super) fn new(metric: Metric, dim: usize, vectors: &[f32]) -> std::io::Result<Self> {
        let n = vectors.len() / dim;
        let stride = codes::stride(dim);
        let centre = codes::centre(metric, vectors, dim);
        let (largest, smallest) = vectors
            .par_chunks(dim * CHUNK)
            .map_init(Vec::new, |row, rows| {
                let sizes = rows.chunks_exact(dim).map(|source| {
                    prepare(metric, source, &centre, row);
                    extent(codes::magnitude(row))
                });
                sizes.fold(NOTHING, join)
            })
            .reduce(|| NOTHING, join);
        let projection = project::principal(metric, dim, vectors, &centre);
        let (projected, width) = match &projection {
            None => (Vec::new(), 0),
            Some(rows) => {
                let width = rows.len() / dim;
                let components = |out: &mut [f32], source| {
                    let mut row = Vec::with_capacity(dim);
                    prepare(metric, source, &centre, &mut row);
                    codes::project(rows, &row, out);
                };
                let parts = vectors.par_chunks(dim * CHUNK).map(|vectors| {
                    let mut out = vec![0.0; vectors.len() / dim * width];
                    for (out, row) in out.chunks_exact_mut(width).zip(vectors.chunks_exact(dim)) {
                        components(out, row);
                    }
                    out
                });
                (parts.collect::<Vec<_>>().concat(), width)
            }
        };
        let sketches = projected.chunks_exact(width.max(1));
        let (largest, smallest) = sketches
            .map(|row| extent(codes::magnitude(row)))
            .fold((largest, smallest), join);
        let steps = Box::new(codes::ladder(largest, smallest));
        let sketch = match projection {
            None => None,
            Some(projection) => Some(Sketch::new(projection, width, &projected, &steps)?),
        };
        drop(projected);
        let mut high = Pages::filled(n * stride, 0_i8)?;
        let mut low = Pages::filled(n * dim, 0_i8)?;
        let rows: Vec<Vec<Row>> = vectors
            .par_chunks(dim * CHUNK)
            .zip(high.par_chunks_mut(stride * CHUNK))
            .zip(low.par_chunks_mut(dim * CHUNK))
            .map_init(Vec::new, |row, ((vectors, high), low)| {
                let vectors = vectors.chunks_exact(dim);
                let high = high.chunks_exact_mut(stride);
                let low = low.chunks_exact_mut(dim);
                let rows = vectors.zip(high).zip(low);
                rows.map(|((vector, high), low)| {
                    prepare(metric, vector, &centre, row);
                    code(row, &steps, &mut high[..dim], low)
                })
                .collect()
            })
            .collect();
        let rows = || rows.iter().flatten();
        let keep = |wanted: bool| if wanted { n } else { 0 };
        let l2 = keep(metric == Metric::L2);
        let ip = keep(metric == Metric::InnerProduct);
        Ok(Self {
            metric,
            dim,
            stride,
            scales: rows().map(|row| row.rung).collect(),
            squares: rows().take(l2).map(|row| row.square).collect(),
            inverse_norms: rows().take(ip).map(|row| row.inverse_norm).collect(),
            lengths: Vec::new(),
            coarse_error: rows().fold(0.0, |longest, row| longest.max(row.coarse_error)),
            loss: codes::narrow((rows().map(|row| row.loss).sum::<f64>() / n.max(1) as f64).sqrt()),
            steps,
            centre,
            codes: high,
            remainders: low,
            sketch,
            nibbles: None,
        })
    }

    /// Codes in nibbles what is walked so, once the items are in order.
    ///
    /// # Errors
    /// When the system has not that much memory.
    pub(super) fn add_nibbles(&mut self) -> std::io::Result<()> {
        if !nibbles::are_walked(self.metric, self.dim) {
            return Ok(());
        }
        let space = self.space();
        let (n, stride) = (space.len(), nibbles::stride(self.dim));
        let mut rows = Pages::filled(n * stride, 0_i8)?;
        let mut terms = Pages::filled(n * nibbles::TERMS, 0.0_f32)?;
        let chunks = rows.par_chunks_mut(stride * CHUNK);
        let chunks = chunks.zip(terms.par_chunks_mut(nibbles::TERMS * CHUNK));
        chunks
            .enumerate()
            .for_each_init(Lines::new, |vector, (chunk, (rows, terms))| {
                let rows = rows.chunks_exact_mut(stride);
                let terms = terms.chunks_exact_mut(nibbles::TERMS);
                for (place, (row, terms)) in (chunk * CHUNK..).zip(rows.zip(terms)) {
                    let place = count(place);
                    space.decode(place, vector);
                    terms.copy_from_slice(&[nibbles::encode(vector, row), space.square(place)]);
                }
            });
        self.nibbles = Some(Nibbles { rows, terms });
        Ok(())
    }

    pub(super) fn space(&self) -> Space<'_> {
        Space {
            metric: self.metric,
            dim: self.dim,
            rows: CodeRows::new(&self.codes, self.stride),
            scales: &self.scales,
            steps: &self.steps,
            squares: &self.squares,
            lengths: &self.lengths,
            heads: Heads::default(),
            weights: &[],
            // The ladder falls.
            widest: self.steps[0],
            centre: &self.centre,
            remainders: &self.remainders,
            sketch: self.sketch.as_ref().map(Sketch::view),
            nibbles: None,
            panels: Panels::EMPTY,
            coarse_error: self.coarse_error,
        }
    }

    /// All that an item is held as.
    pub(super) fn bytes(&self, place: u32) -> (&[i8], &[i8], u8) {
        let at = place as usize;
        let high = &self.codes[at * self.stride..][..self.stride];
        let low = &self.remainders[at * self.dim..][..self.dim];
        (high, low, self.scales[at])
    }

    /// Bytes of a row that is walked.
    pub(super) fn walk_stride(&self) -> usize {
        self.sketch
            .as_ref()
            .map_or(self.stride, |sketch| sketch.stride)
    }

    /// An item as a query of a walk: its high bytes.
    #[inline(always)]
    pub(super) fn query(&self, place: u32, out: &mut CodeQuery) {
        let (stride, codes, scales) = match &self.sketch {
            None => (self.stride, &self.codes, &self.scales),
            Some(sketch) => (sketch.stride, &sketch.codes, &sketch.scales),
        };
        let start = place as usize * stride;
        let high = &codes[start..start + stride];
        out.values.resize(stride);
        for (value, high) in out.values.iter_mut().zip(high) {
            *value = i16::from(*high);
        }
        out.factor = self.steps[usize::from(scales[place as usize])];
    }
}

impl Sketch {
    fn new(
        projection: Vec<f32>,
        width: usize,
        projected: &[f32],
        steps: &[f32; RUNGS],
    ) -> std::io::Result<Self> {
        let n = projected.len() / width;
        let stride = codes::stride(width);
        let mut high = Pages::filled(n * stride, 0_i8)?;
        let rows = projected
            .par_chunks_exact(width)
            .zip(high.par_chunks_exact_mut(stride));
        let scales = rows
            .map_init(
                || vec![0; width],
                |low, (row, high)| {
                    let rung = codes::rung(steps, codes::magnitude(row));
                    codes::encode(row, steps[usize::from(rung)], &mut high[..width], low);
                    rung
                },
            )
            .collect();
        Ok(Self {
            projection,
            width,
            stride,
            codes: high,
            scales,
        })
    }

    fn view(&self) -> space::Sketch<'_> {
        space::Sketch {
            projection: &self.projection,
            rows: CodeRows::new(&self.codes, self.stride),
            scales: &self.scales,
        }
    }
}

/// A vector as it is coded: of unit length for cosine, less the centre for l2.
pub(super) fn prepare(metric: Metric, vector: &[f32], centre: &[f32], out: &mut Vec<f32>) {
    out.clear();
    out.extend(
        vector
            .iter()
            .zip(centre)
            .map(|(value, centre)| (value - centre).clamp(f32::MIN, f32::MAX)),
    );
    if metric == Metric::Cosine {
        normalise(out);
    }
}

fn code(values: &[f32], steps: &[f32; RUNGS], high: &mut [i8], low: &mut [i8]) -> Row {
    let rung = codes::rung(steps, codes::magnitude(values));
    let step = steps[usize::from(rung)];
    codes::encode(values, step, high, low);
    let [square, error, lost, length, stored] = sums(values, step, high, low);
    // Rounded down: one over it is a bound of the length, given or stored.
    let longest = length.max(stored).sqrt() * (1.0 + 1e-6);
    let inverse = longest.max(f64::from(f32::MIN_POSITIVE)).recip();
    Row {
        rung,
        // Values no catalogue has may be too large to square.
        square: codes::narrow(square.min(f64::from(f32::MAX))),
        coarse_error: codes::narrow(error.sqrt()),
        loss: if length > 0.0 { lost / length } else { 0.0 },
        inverse_norm: codes::narrow(inverse),
    }
}

/// Sums of squares over a row: of the high bytes, of their errors in steps, of the errors of all
/// bytes, of the values given, of those stored. In lanes: one sum would wait for itself.
fn sums(values: &[f32], step: f32, high: &[i8], low: &[i8]) -> [f64; 5] {
    const LANES: usize = 4;
    let step = f64::from(step);
    let per_step = step.recip();
    let mut sums = [[0.0_f64; LANES]; 5];
    let rows = values.chunks(LANES).zip(high.chunks(LANES));
    for ((values, high), low) in rows.zip(low.chunks(LANES)) {
        for (lane, ((value, high), low)) in values.iter().zip(high).zip(low).enumerate() {
            let (value, high, low) = (f64::from(*value), f64::from(*high), f64::from(*low));
            let back = step * (high + low / f64::from(PARTS));
            let terms = [
                high * step,
                value * per_step - high,
                value - back,
                value,
                back,
            ];
            for (sum, term) in sums.iter_mut().zip(terms) {
                sum[lane] += term * term;
            }
        }
    }
    sums.map(|lanes| lanes.iter().sum())
}
