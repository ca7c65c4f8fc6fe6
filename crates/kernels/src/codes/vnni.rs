//! Rows side by side with AVX-512 VNNI: four values of sixteen rows multiplied and added at once.

use std::arch::x86_64::*;

use super::{BLOCK, NIBBLES, WIDE, panels::FOUR};

/// Values of the query that are taken apart at a time.
const PART: usize = 64;

/// Groups of rows that are summed together: enough for no sum to wait for itself.
const TOGETHER: usize = 4;

/// [`Simd::panel_sums`](super::Simd::panel_sums): a value of the query is `256 high + low`, each a byte with a sign, and a register holds four
/// values of sixteen rows. What codes are held with is taken off at the end: 128 times the sum of the query. Nothing
/// saturates on the way, and what overflows comes back, as the sum itself fits.
///
/// Not inlined: within a walk it would take the registers of others.
///
/// # Safety
/// As of [`Simd::panel_sums`](super::Simd::panel_sums); the machine has AVX-512 with VNNI.
#[inline(never)]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,bmi1,bmi2,popcnt,lzcnt"
)]
pub(super) unsafe fn panel_sums(query: &[i16], groups: *const u8, sums: &mut [[i32; WIDE]]) {
    let size = query.len() * WIDE;
    for (part, values) in query.chunks(PART).enumerate() {
        let (mut high, mut low) = ([0_i8; PART], [0_i8; PART]);
        let mut sum = 0_i32;
        for ((value, high), low) in values.iter().zip(&mut high).zip(&mut low) {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the high byte, as no value is beyond `LARGEST`, and what it leaves"
            )]
            {
                *high = (value.wrapping_add(128) >> 8) as i8;
                *low = value.wrapping_sub(i16::from(*high) << 8) as i8;
            }
            sum += i32::from(*value);
        }
        let query = Part {
            fours: values.len() / FOUR,
            high: high.as_ptr().cast(),
            low: low.as_ptr().cast(),
            taken_off: sum.wrapping_mul(128),
            is_first: part == 0,
        };
        let mut group = groups.wrapping_add(part * PART * WIDE);
        let (together, rest) = sums.as_chunks_mut::<TOGETHER>();
        for sums in together {
            // SAFETY: by the caller's contract.
            unsafe { query.add(group, size, sums) };
            group = group.wrapping_add(size * TOGETHER);
        }
        for sums in rest {
            // SAFETY: by the caller's contract.
            unsafe { query.add(group, size, std::array::from_mut(sums)) };
            group = group.wrapping_add(size);
        }
    }
}

/// Some values of a query, taken apart.
struct Part {
    fours: usize,
    high: *const i32,
    low: *const i32,
    taken_off: i32,
    is_first: bool,
}

impl Part {
    /// Adds the products with these values of `G` groups, which lie `size` bytes apart.
    ///
    /// # Safety
    /// The machine has AVX-512 with VNNI; each group has as many fours.
    #[inline]
    #[target_feature(
        enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,bmi1,bmi2,popcnt,lzcnt"
    )]
    unsafe fn add<const G: usize>(
        &self,
        group: *const u8,
        size: usize,
        sums: &mut [[i32; WIDE]; G],
    ) {
        // SAFETY: by the caller's contract; sixteen sums are a register.
        unsafe {
            let mut highs = [_mm512_setzero_si512(); G];
            let mut lows = [_mm512_set1_epi32(self.taken_off.wrapping_neg()); G];
            for four in 0..self.fours {
                let high = _mm512_set1_epi32(self.high.add(four).read_unaligned());
                let low = _mm512_set1_epi32(self.low.add(four).read_unaligned());
                for g in 0..G {
                    let codes = group.add(g * size + four * FOUR * WIDE);
                    let codes = _mm512_loadu_si512(codes.cast());
                    highs[g] = _mm512_dpbusd_epi32(highs[g], codes, high);
                    lows[g] = _mm512_dpbusd_epi32(lows[g], codes, low);
                }
            }
            for g in 0..G {
                let mut all = _mm512_add_epi32(_mm512_slli_epi32::<8>(highs[g]), lows[g]);
                let sums = sums[g].as_mut_ptr().cast();
                if !self.is_first {
                    all = _mm512_add_epi32(all, _mm512_loadu_si512(sums));
                }
                _mm512_storeu_si512(sums.cast(), all);
            }
        }
    }
}

/// [`Simd::nibble_sums`](super::Simd::nibble_sums) of four rows of two blocks, a cache line each.
///
/// # Safety
/// As of [`Simd::nibble_sums`](super::Simd::nibble_sums); the machine has AVX-512 with VNNI.
#[inline(always)]
pub(super) unsafe fn line_sums(query: *const i8, rows: [*const i8; 4]) -> [i32; 4] {
    // SAFETY: by the caller's contract.
    unsafe {
        let (low_query, high_query) = (halves(query), halves(query.add(BLOCK)));
        let low_nibbles = _mm512_set1_epi8(15);
        let mut sums = [_mm512_setzero_si512(); 4];
        for r in 0..4 {
            let codes = _mm512_loadu_si512(rows[r].cast());
            let low = _mm512_and_si512(codes, low_nibbles);
            let high = _mm512_and_si512(_mm512_srli_epi16::<4>(codes), low_nibbles);
            sums[r] = _mm512_dpbusd_epi32(sums[r], low, low_query);
            sums[r] = _mm512_dpbusd_epi32(sums[r], high, high_query);
        }
        // Two by two, half of the one beside half of the other; then quarters; then what is left of each in its quarter.
        let [a, b, c, d] = sums;
        let mut pairs = [_mm512_setzero_si512(); 2];
        for (pair, (a, b)) in pairs.iter_mut().zip([(a, b), (c, d)]) {
            let straight = _mm512_mask_blend_epi64(0b1111_0000, a, b);
            let crossed = _mm512_shuffle_i64x2::<0b01_00_11_10>(a, b);
            *pair = _mm512_add_epi32(straight, crossed);
        }
        let [ab, cd] = pairs;
        let straight = _mm512_shuffle_i64x2::<0b10_00_10_00>(ab, cd);
        let crossed = _mm512_shuffle_i64x2::<0b11_01_11_01>(ab, cd);
        let quarters = _mm512_add_epi32(straight, crossed);
        let eighths = _mm512_add_epi32(quarters, _mm512_shuffle_epi32::<0b01_00_11_10>(quarters));
        let all = _mm512_add_epi32(eighths, _mm512_shuffle_epi32::<0b10_11_00_01>(eighths));
        let firsts = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
        let all = _mm512_castsi512_si128(_mm512_permutexvar_epi32(firsts, all));
        let mut out = [0; 4];
        _mm_storeu_si128(out.as_mut_ptr().cast(), all);
        out
    }
}

/// Of two blocks of a query, half of the values of each: the first half, or from there on the second. A function and no closure: those
/// are compiled without the instruction set.
///
/// # Safety
/// As of [`line_sums`]; `first` points to the query or to its second half of a block.
#[inline(always)]
unsafe fn halves(first: *const i8) -> __m512i {
    // SAFETY: by the caller's contract.
    unsafe {
        let one = _mm512_castsi256_si512(_mm256_loadu_si256(first.cast()));
        _mm512_inserti64x4::<1>(one, _mm256_loadu_si256(first.add(NIBBLES).cast()))
    }
}
