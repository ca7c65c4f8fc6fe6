//! Codes with AVX-512 BW: a block a register. With VNNI, sixteen rows side by side.

use std::arch::x86_64::*;

use super::{
    BLOCK, SLACK, SORTED, Scalar, Simd, Task, WIDE,
    avx2::{fold_all, nibble_sums},
    check_room, check_sorted,
    sealed::Sealed,
    vnni,
};

/// AVX-512 F, BW, DQ and VL; and VNNI, if so.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512<const VNNI: bool>(());

impl<const VNNI: bool> Sealed for Avx512<VNNI> {}

/// # Safety
/// The machine has AVX-512 F, BW, DQ and VL, AVX2 and FMA.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,popcnt,lzcnt")]
pub(super) unsafe fn run<T: Task>(task: T) -> T::Output {
    task.run(Avx512::<false>(()))
}

/// # Safety
/// As of [`run`], and VNNI.
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,bmi1,bmi2,popcnt,lzcnt"
)]
pub(super) unsafe fn run_vnni<T: Task>(task: T) -> T::Output {
    task.run(Avx512::<true>(()))
}

/// As [`run`], never inlined.
///
/// # Safety
/// As of [`run`].
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,popcnt,lzcnt")]
unsafe fn apart<T: Task>(task: T) -> T::Output {
    task.run(Avx512::<false>(()))
}

/// As [`run_vnni`], never inlined.
///
/// # Safety
/// As of [`run_vnni`].
#[inline(never)]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,bmi1,bmi2,popcnt,lzcnt"
)]
unsafe fn apart_vnni<T: Task>(task: T) -> T::Output {
    task.run(Avx512::<true>(()))
}

impl<const VNNI: bool> Simd for Avx512<VNNI> {
    const PANELS: bool = VNNI;

    #[inline(always)]
    fn apart<T: Task>(self, task: T) -> T::Output {
        match VNNI {
            // SAFETY: a value of `Avx512<true>` is only made where the machine has VNNI.
            true => unsafe { apart_vnni(task) },
            // SAFETY: a value of `Avx512` is only made where the machine has it.
            false => unsafe { apart(task) },
        }
    }

    #[inline(always)]
    unsafe fn panel_sums(self, query: &[i16], groups: *const u8, sums: &mut [[i32; WIDE]]) {
        match VNNI {
            // SAFETY: a value of `Avx512<true>` is only made where the machine has VNNI; the rest by the caller's contract.
            true => unsafe { vnni::panel_sums(query, groups, sums) },
            // SAFETY: the caller's contract.
            false => unsafe { Scalar.panel_sums(query, groups, sums) },
        }
    }

    #[inline(always)]
    unsafe fn sums<const R: usize>(
        self,
        blocks: usize,
        query: *const i16,
        rows: [*const i8; R],
    ) -> [i32; R] {
        // SAFETY: a value of `Avx512` is only made where the machine has it; pointers by the
        // caller's contract.
        unsafe {
            let mut sums = [_mm512_setzero_si512(); R];
            for block in 0..blocks {
                let at = block * BLOCK;
                let query = _mm512_loadu_si512(query.add(at).cast());
                for r in 0..R {
                    let codes = _mm256_loadu_si256(rows[r].add(at).cast());
                    let pairs = _mm512_madd_epi16(query, _mm512_cvtepi8_epi16(codes));
                    sums[r] = _mm512_add_epi32(sums[r], pairs);
                }
            }
            // Loops, not closures: those would be compiled without the instruction set.
            let mut halves = [_mm256_setzero_si256(); R];
            for r in 0..R {
                halves[r] = _mm256_add_epi32(
                    _mm512_castsi512_si256(sums[r]),
                    _mm512_extracti64x4_epi64::<1>(sums[r]),
                );
            }
            fold_all(halves)
        }
    }

    #[inline(always)]
    unsafe fn wide_sums(
        self,
        blocks: usize,
        query: *const i16,
        rows: [*const i8; WIDE],
    ) -> [i32; WIDE] {
        // SAFETY: a value of `Avx512` is only made where the machine has it; pointers by the caller's contract.
        unsafe { wide_sums(blocks, query, rows) }
    }

    #[inline(always)]
    fn not_below(self, scores: &[f32; WIDE], bar: f32) -> u32 {
        // SAFETY: a value of `Avx512` is only made where the machine has it; sixteen scores are a register.
        unsafe {
            let scores = _mm512_loadu_ps(scores.as_ptr());
            _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(scores, _mm512_set1_ps(bar)).into()
        }
    }

    #[inline(always)]
    fn greatest<const V: usize>(self, rows: &[[f32; WIDE]], stride: usize) -> [[f32; WIDE]; V] {
        assert!(stride > 0, "the same rows again and again");
        // SAFETY: a value of `Avx512` is only made where the machine has it; a row is a register.
        unsafe {
            let mut greatest = [_mm512_set1_ps(f32::NEG_INFINITY); V];
            for at in (0..rows.len()).step_by(stride) {
                for (v, row) in rows.get(at..at + V).unwrap_or_default().iter().enumerate() {
                    // Of what is not a number and another it takes the second.
                    greatest[v] = _mm512_max_ps(_mm512_loadu_ps(row.as_ptr()), greatest[v]);
                }
            }
            let mut out = [[0.0; WIDE]; V];
            for v in 0..V {
                _mm512_storeu_ps(out[v].as_mut_ptr(), greatest[v]);
            }
            out
        }
    }

    #[inline(always)]
    fn insert(self, sorted: &mut [u64], limit: usize, item: u64) -> usize {
        check_sorted(sorted, limit);
        // SAFETY: a value of `Avx512` is only made where the machine has it.
        unsafe { insert(sorted, limit, item) }
    }

    #[inline(always)]
    fn unseen(self, links: &[u32], stamps: &mut [u8], current: u8, new: &mut [u32]) -> usize {
        // SAFETY: a value of `Avx512` is only made where the machine has it.
        unsafe { unseen(links, stamps, current, new) }
    }

    #[inline(always)]
    unsafe fn nibble_sums<const R: usize>(
        self,
        blocks: usize,
        query: *const i8,
        rows: [*const i8; R],
    ) -> [i32; R] {
        if VNNI && blocks == 2 && R == 4 {
            let mut four = [rows[0]; 4];
            four.copy_from_slice(&rows);
            // SAFETY: a value of `Avx512<true>` is only made where the machine has VNNI; pointers by the caller's contract.
            let four = unsafe { vnni::line_sums(query, four) };
            let mut sums = [0; R];
            sums.copy_from_slice(&four);
            return sums;
        }
        // SAFETY: a machine with AVX-512 has AVX2; pointers by the caller's contract.
        unsafe { nibble_sums(blocks, query, rows) }
    }
}

/// The sums of [`WIDE`] rows, in order: a register each, which are added two by two, half of the one beside half of the
/// other, until one register holds the sum of each. Three shuffles a row of two blocks, where four rows at a time take nearly five.
///
/// # Safety
/// As of [`Simd::sums`]; the machine has AVX-512.
#[inline(always)]
unsafe fn wide_sums(blocks: usize, query: *const i16, rows: [*const i8; WIDE]) -> [i32; WIDE] {
    // SAFETY: by the caller's contract.
    unsafe {
        let mut pairs = [_mm512_setzero_si512(); 2];
        for (one, pair) in pairs.iter_mut().enumerate() {
            let mut fours = [_mm512_setzero_si512(); 2];
            for (two, four) in fours.iter_mut().enumerate() {
                let mut eights = [_mm512_setzero_si512(); 2];
                for (number, eight) in eights.iter_mut().enumerate() {
                    let row = one + 2 * two + 4 * number;
                    let a = products(blocks, query, rows[row]);
                    let b = products(blocks, query, rows[row + 8]);
                    // The halves of the one, then those of the other.
                    let straight = _mm512_mask_blend_epi64(0b1111_0000, a, b);
                    let crossed = _mm512_shuffle_i64x2::<0b01_00_11_10>(a, b);
                    *eight = _mm512_add_epi32(straight, crossed);
                }
                let [a, b] = eights;
                let straight = _mm512_mask_blend_epi64(0b1100_1100, a, b);
                let others = _mm512_setr_epi64(2, 3, 8, 9, 6, 7, 12, 13);
                let crossed = _mm512_permutex2var_epi64(a, others, b);
                *four = _mm512_add_epi32(straight, crossed);
            }
            let [a, b] = fours;
            let straight = _mm512_mask_blend_epi64(0b1010_1010, a, b);
            let (a, b) = (_mm512_castsi512_pd(a), _mm512_castsi512_pd(b));
            let crossed = _mm512_castpd_si512(_mm512_shuffle_pd::<0b0101_0101>(a, b));
            *pair = _mm512_add_epi32(straight, crossed);
        }
        let [a, b] = pairs;
        let straight = _mm512_mask_blend_epi32(0b1010_1010_1010_1010, a, b);
        let others = _mm512_setr_epi32(1, 16, 3, 18, 5, 20, 7, 22, 9, 24, 11, 26, 13, 28, 15, 30);
        let crossed = _mm512_permutex2var_epi32(a, others, b);
        let mut sums = [0; WIDE];
        let all = _mm512_add_epi32(straight, crossed);
        _mm512_storeu_si512(sums.as_mut_ptr().cast(), all);
        sums
    }
}

/// Sixteen sums of the products of a query and a row, whose sum is theirs.
///
/// # Safety
/// As of [`Simd::sums`]; the machine has AVX-512.
#[inline(always)]
unsafe fn products(blocks: usize, query: *const i16, row: *const i8) -> __m512i {
    // SAFETY: by the caller's contract.
    unsafe {
        let mut sums = _mm512_setzero_si512();
        for block in 0..blocks {
            let query = _mm512_loadu_si512(query.add(block * BLOCK).cast());
            let codes = _mm256_loadu_si256(row.add(block * BLOCK).cast());
            let pairs = _mm512_madd_epi16(query, _mm512_cvtepi8_epi16(codes));
            sums = _mm512_add_epi32(sums, pairs);
        }
        sums
    }
}

/// Registers that [`Simd::insert`] goes through whole, from the first to the last, where none waits for another. The loop from
/// the end is left after half of them, but at a place that nobody foresees: 11, 19 and 27 ns in 16, 64 and 128 places,
/// where this takes 6, 11 and 20; as long in 192.
const THROUGH: usize = 16;

/// [`Simd::insert`]: each value becomes the lesser of itself and the greater of `item` and the one before
/// it. No search, whose every step would be mispredicted half of the time, and no call to move what is after it.
///
/// Not inlined: within a walk it would take the registers of others.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,popcnt,lzcnt")]
fn insert(sorted: &mut [u64], limit: usize, item: u64) -> usize {
    let items = _mm512_set1_epi64(item.cast_signed());
    let nothing = _mm512_set1_epi64(-1);
    let (chunks, _) = sorted.as_chunks_mut::<SORTED>();
    let Some((last, others)) = chunks.split_last_mut() else {
        return 0;
    };
    // Of the last chunk, places from the limit on.
    let past = match limit - others.len() * SORTED {
        kept @ ..SORTED => u8::MAX << kept,
        _ => 0,
    };
    // SAFETY: a chunk is a register.
    let load = |chunk: &[u64; SORTED]| unsafe { _mm512_loadu_si512(chunk.as_ptr().cast()) };
    let store = |chunk: &mut [u64; SORTED], values| {
        // SAFETY: a chunk is a register.
        unsafe { _mm512_storeu_si512(chunk.as_mut_ptr().cast(), values) };
    };
    let moved = |here, earlier| {
        let before = _mm512_alignr_epi64::<7>(here, earlier);
        _mm512_min_epu64(here, _mm512_max_epu64(before, items))
    };
    let smaller = |here| _mm512_cmplt_epu64_mask(here, items);
    let none = _mm512_setzero_si512();
    let here = load(last);
    if others.len() < THROUGH {
        let (mut earlier, mut at) = (none, 0);
        for chunk in others {
            let here = load(chunk);
            store(chunk, moved(here, earlier));
            at += smaller(here).count_ones() as usize;
            earlier = here;
        }
        store(
            last,
            _mm512_mask_mov_epi64(moved(here, earlier), past, nothing),
        );
        return at + smaller(here).count_ones() as usize;
    }
    // From the end on, until nothing is moved. A register always has its own eight values: what was stored by the last
    // insertion is handed on to the next.
    let (mut chunk, mut here, mut past) = (last, here, past);
    let mut others = others;
    loop {
        let earlier = others.last().map_or(none, load);
        store(
            chunk,
            _mm512_mask_mov_epi64(moved(here, earlier), past, nothing),
        );
        let smaller = smaller(here);
        let before = others.len() * SORTED;
        // The lowest of them is less, and so are all before; or there is none.
        let Some((next, rest)) = others.split_last_mut().filter(|_| smaller & 1 == 0) else {
            return before + smaller.count_ones() as usize;
        };
        (chunk, here, past, others) = (next, earlier, 0, rest);
    }
}

/// [`Simd::unseen`]: the stamps of 32 links are read before one of them is written, and the new ones moved together.
///
/// Not inlined: within a walk it would take the registers of others.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,popcnt,lzcnt")]
fn unseen(links: &[u32], stamps: &mut [u8], current: u8, new: &mut [u32]) -> usize {
    check_room(links, new);
    // A link is below 2^31: more than that would be beyond what a register of links can tell apart.
    let len = stamps.len().saturating_sub(SLACK).min(1 << 31);
    #[expect(clippy::cast_possible_truncation, reason = "at most 2^31")]
    let lens = _mm512_set1_epi32((len as u32).cast_signed());
    let current_of_all = _mm512_set1_epi32(i32::from(current));
    let lowest_byte = _mm512_set1_epi32(0xff);
    let stamps = stamps.as_mut_ptr();
    let mut count = 0;
    for links in links.chunks(2 * WIDE) {
        let mut values = [_mm512_setzero_si512(); 2];
        let mut are_links = [0; 2];
        for half in 0..2 {
            let left = links.len().saturating_sub(half * WIDE).min(WIDE);
            let mask = u16::try_from((1_u32 << left) - 1).unwrap_or(u16::MAX);
            // SAFETY: the mask lets only what is in the chunk be read.
            values[half] = unsafe {
                _mm512_maskz_loadu_epi32(mask, links.as_ptr().wrapping_add(half * WIDE).cast())
            };
            are_links[half] = _mm512_mask_cmplt_epu32_mask(mask, values[half], lens);
        }
        let all = u32::from(are_links[1]) << WIDE | u32::from(are_links[0]);
        // Up to the first that is none.
        let before = (!all & all.wrapping_add(1)).wrapping_sub(1);
        are_links = [(before & 0xffff) as u16, (before >> WIDE) as u16];
        let mut are_new = [0; 2];
        for half in 0..2 {
            let none = _mm512_setzero_si512();
            // SAFETY: a link is below `len`, and four stamps are to be read from there on.
            let four = unsafe {
                _mm512_mask_i32gather_epi32::<1>(none, are_links[half], values[half], stamps.cast())
            };
            let stamp = _mm512_and_si512(four, lowest_byte);
            are_new[half] = _mm512_mask_cmpneq_epi32_mask(are_links[half], stamp, current_of_all);
        }
        for half in 0..links.len().div_ceil(WIDE) {
            let together = _mm512_maskz_compress_epi32(are_new[half], values[half]);
            let room = &mut new[count..][..WIDE];
            // SAFETY: there is room for a register.
            unsafe { _mm512_storeu_si512(room.as_mut_ptr().cast(), together) };
            count += are_new[half].count_ones() as usize;
        }
        let known = before.count_ones() as usize;
        for link in &links[..known.min(links.len())] {
            // SAFETY: it is below `len`.
            unsafe { *stamps.add(*link as usize) = current };
        }
        if known < links.len() {
            break;
        }
    }
    count
}
