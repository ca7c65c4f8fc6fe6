//! Unevaluated sums of two f64 (about 106 bits): enough to take the difference of two large, nearly
//! equal sums, which is what a variance is. Algorithms of Dekker (1971) and Knuth (TAOCP 2, §4.2.2).

/// `hi + lo`, with `|lo|` at most half a unit in the last place of `hi`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Double {
    pub(super) hi: f64,
    pub(super) lo: f64,
}

impl Double {
    pub(super) const ZERO: Self = Self { hi: 0.0, lo: 0.0 };

    pub(super) fn new(hi: f64, lo: f64) -> Self {
        let (hi, lo) = two_sum(hi, lo);
        Self { hi, lo }
    }

    pub(super) fn value(self) -> f64 {
        self.hi + self.lo
    }

    pub(super) fn plus(self, other: Self) -> Self {
        let (s, e) = two_sum(self.hi, other.hi);
        let (t, f) = two_sum(self.lo, other.lo);
        let (s, e) = two_sum(s, e + t);
        Self::new(s, e + f)
    }

    pub(super) fn minus(self, other: Self) -> Self {
        self.plus(Self {
            hi: -other.hi,
            lo: -other.lo,
        })
    }

    pub(super) fn times(self, other: Self) -> Self {
        let (p, e) = two_product(self.hi, other.hi);
        Self::new(p, e + (self.hi * other.lo + self.lo * other.hi))
    }

    /// Long division in three steps.
    pub(super) fn over(self, divisor: f64) -> Self {
        let mut rest = self;
        let mut quotient = Self::ZERO;
        for _ in 0..3 {
            let q = rest.hi / divisor;
            let (p, e) = two_product(q, divisor);
            rest = rest.minus(Self::new(p, e));
            quotient = quotient.plus(Self { hi: q, lo: 0.0 });
        }
        quotient
    }
}

impl From<f64> for Double {
    fn from(hi: f64) -> Self {
        Self { hi, lo: 0.0 }
    }
}

/// Sum and its rounding error, exactly.
pub(super) fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let s = a + b;
    let c = s - a;
    (s, (a - (s - c)) + (b - c))
}

/// Product and its rounding error, exactly unless it leaves the range of f64. Split by Veltkamp:
/// a fused multiply-add is a slow library call where the target does not promise one.
pub(super) fn two_product(a: f64, b: f64) -> (f64, f64) {
    let p = a * b;
    let (ah, al) = split(a);
    let (bh, bl) = split(b);
    (p, ((ah * bh - p) + ah * bl + al * bh) + al * bl)
}

fn split(a: f64) -> (f64, f64) {
    let c = 134_217_729.0 * a; // 2^27 + 1
    let high = c - (c - a);
    (high, a - high)
}
