//! The thorough look at an index: O(n).

use std::{panic::resume_unwind, thread};

use refrain_kernels::{Lines, Metric, codes::CodeRows};

use crate::{
    index::Index,
    layout::{
        CENTRE, CODES, EMPTY, LENGTHS, LINKS, Layer, NAV_ITEMS, NAV_LINKS, ORDINALS, PROJECTION,
        REMAINDERS, RowSet, SKETCHES, SQUARES, TERMS,
    },
    scratch::Visited,
    walk::count,
};

/// What is wrong with the content of a section.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("section {section}, offset {offset}: {problem}")]
pub struct StructureError {
    /// Name of the section.
    pub section: &'static str,
    /// Where it is, in bytes from the start of the section.
    pub offset: u64,
    /// What is wrong there.
    pub problem: Problem,
}

/// Kinds of damage.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A value of a vector is NaN or infinite.
    #[error("a vector holds {value}, which is not finite")]
    NotFinite {
        /// The value.
        value: f32,
    },
    /// A vector of a cosine index is neither of unit length nor zero.
    #[error("a vector has length {length}, expected 1")]
    NotUnit {
        /// Its length.
        length: f32,
    },
    /// A code is -128, which none is, or not zero behind the last dimension.
    #[error("code {code} cannot be there")]
    BadCode {
        /// The code.
        code: i8,
    },
    /// A length is larger than the one before.
    #[error("length {length} is larger than the one before")]
    Rising {
        /// The length.
        length: f32,
    },
    /// Ordinals and places do not lead back to each other.
    #[error("ordinal {ordinal} does not lead back to its place")]
    NoPermutation {
        /// The ordinal.
        ordinal: u32,
    },
    /// A link or ordinal is past the end.
    #[error("link to {link}, of {nodes} nodes")]
    OutOfRange {
        /// Where it points.
        link: u32,
        /// How many there are.
        nodes: usize,
    },
    /// A node links to itself.
    #[error("node {node} links to itself")]
    Loop {
        /// The node.
        node: u32,
    },
    /// A node links to another twice, or an item is on a layer twice.
    #[error("{link} occurs twice")]
    Duplicate {
        /// What occurs twice.
        link: u32,
    },
    /// A link follows an unused slot.
    #[error("link to {link} after an unused slot")]
    AfterEnd {
        /// Where it points.
        link: u32,
    },
    /// No path leads to an item.
    #[error("item {item} cannot be reached")]
    Unreachable {
        /// The item.
        item: u32,
    },
}

impl Index {
    /// Looks at every value of every section: vectors finite (and of unit length for cosine),
    /// links in range, without loops or duplicates, every item reachable. O(n).
    ///
    /// # Errors
    /// The first [`StructureError`], with its place.
    pub fn check(&self) -> Result<(), StructureError> {
        thread::scope(|scope| {
            let graph = thread::Builder::new().spawn_scoped(scope, || self.check_graph());
            self.check_items()?;
            match graph {
                Ok(graph) => graph.join().unwrap_or_else(|panic| resume_unwind(panic)),
                // There is no thread to be had.
                Err(_) => self.check_graph(),
            }
        })
    }

    fn check_graph(&self) -> Result<(), StructureError> {
        let graph = self.graph();
        check_rows(LINKS, 0, &graph.base())?;
        let mut visited = Visited::default();
        visited.reset(graph.n);
        for (at, &item) in graph.nav_items.iter().enumerate() {
            let problem = match (item as usize) < graph.n {
                false => Problem::OutOfRange {
                    link: item,
                    nodes: graph.n,
                },
                true if !visited.insert(item) => Problem::Duplicate { link: item },
                true => continue,
            };
            return Err(StructureError {
                section: NAV_ITEMS,
                offset: at as u64 * 4,
                problem,
            });
        }
        let mut first = 0;
        for number in 1..=graph.layers {
            let layer = graph.above(number);
            check_rows(NAV_LINKS, first, &layer)?;
            first += layer.links.len();
        }
        self.check_reachable(&mut visited)
    }

    fn check_items(&self) -> Result<(), StructureError> {
        let (dim, space) = (self.dim(), self.space());
        let wrong = |section, offset: usize, problem| StructureError {
            section,
            offset: offset as u64,
            problem,
        };
        let finite = |section, values: &[f32]| match values.iter().position(|v| !v.is_finite()) {
            None => Ok(()),
            Some(at) => {
                let problem = Problem::NotFinite { value: values[at] };
                Err(wrong(section, at * 4, problem))
            }
        };
        finite(CENTRE, space.centre)?;
        finite(SQUARES, space.squares)?;
        finite(LENGTHS, space.lengths)?;
        if let Some(at) = space.lengths.windows(2).position(|pair| pair[0] < pair[1]) {
            let problem = Problem::Rising {
                length: space.lengths[at + 1],
            };
            return Err(wrong(LENGTHS, (at + 1) * 4, problem));
        }
        if let Some(sketch) = space.sketch {
            finite(PROJECTION, sketch.projection)?;
            let width = sketch.projection.len() / dim;
            check_codes(SKETCHES, sketch.rows, width)?;
        }
        if let Some(nibbles) = space.nibbles {
            finite(TERMS, nibbles.terms)?;
        }
        check_codes(CODES, space.rows, dim)?;
        let mut row = Lines::new();
        for place in 0..count(self.len()) {
            if self.metric() == Metric::Cosine {
                space.decode(place, &mut row);
                let length = row.iter().map(|value| value * value).sum::<f32>().sqrt();
                if length != 0.0 && (length - 1.0).abs() > 1e-3 {
                    let problem = Problem::NotUnit { length };
                    return Err(wrong(REMAINDERS, place as usize * dim, problem));
                }
            }
        }
        let places = self.places();
        for (place, ordinal) in (0..count(self.len())).zip(self.ordinals()) {
            if places.get(*ordinal as usize) != Some(&place) {
                let problem = Problem::NoPermutation { ordinal: *ordinal };
                return Err(wrong(ORDINALS, place as usize * 4, problem));
            }
        }
        Ok(())
    }

    fn check_reachable(&self, visited: &mut Visited) -> Result<(), StructureError> {
        let graph = self.graph();
        if graph.n == 0 {
            return Ok(());
        }
        let base = graph.base();
        visited.reset(graph.n);
        visited.insert(graph.entry);
        let mut queue = vec![graph.entry];
        let mut next = 0;
        while let Some(&node) = queue.get(next) {
            next += 1;
            base.ask_ahead(&queue, next);
            queue.extend(base.row(node).iter().filter(|link| visited.insert(**link)));
        }
        match (0..count(graph.n)).find(|item| visited.insert(*item)) {
            None => Ok(()),
            Some(item) => Err(StructureError {
                section: LINKS,
                offset: u64::from(item) * base.degree as u64 * 4,
                problem: Problem::Unreachable { item },
            }),
        }
    }
}

/// Looks at rows of codes of `width` values: none is -128, and zeros follow.
fn check_codes(
    section: &'static str,
    rows: CodeRows<'_>,
    width: usize,
) -> Result<(), StructureError> {
    for place in 0..count(rows.len()) {
        let codes = rows.row(place).unwrap_or_default();
        let (values, padding) = codes.split_at_checked(width).unwrap_or((codes, &[]));
        // To stop at the first would be to look at one at a time.
        let any =
            |codes: &[i8], odd: fn(i8) -> bool| codes.iter().fold(false, |any, c| any | odd(*c));
        if !any(values, |code| code == i8::MIN) && !any(padding, |code| code != 0) {
            continue;
        }
        let odd = |(at, code): (usize, &i8)| *code == i8::MIN || (at >= width && *code != 0);
        if let Some(at) = codes.iter().enumerate().position(odd) {
            return Err(StructureError {
                section,
                offset: (place as usize * rows.stride() + at) as u64,
                problem: Problem::BadCode { code: codes[at] },
            });
        }
    }
    Ok(())
}

/// Looks at the rows of one layer, which begins at word `first` of its section.
fn check_rows(
    section: &'static str,
    first: usize,
    layer: &Layer<'_>,
) -> Result<(), StructureError> {
    for (node, row) in (0..count(layer.len)).zip(layer.links.chunks_exact(layer.degree)) {
        let (mut seen, mut ended) = (RowSet::default(), false);
        for (slot, &link) in row.iter().enumerate() {
            let problem = if link == EMPTY {
                ended = true;
                continue;
            } else if ended {
                Problem::AfterEnd { link }
            } else if link as usize >= layer.len {
                Problem::OutOfRange {
                    link,
                    nodes: layer.len,
                }
            } else if link == node {
                Problem::Loop { node }
            } else if !seen.insert(link, &row[..slot]) {
                Problem::Duplicate { link }
            } else {
                continue;
            };
            let word = first + node as usize * layer.degree + slot;
            return Err(StructureError {
                section,
                offset: word as u64 * 4,
                problem,
            });
        }
    }
    Ok(())
}
