//! A warm search allocates nothing: counted, not assumed.
#![expect(unsafe_code, reason = "a global allocator that counts")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use refrain_index::{
    BuildParams, Cap, Debias, Filter, Groups, Index, OrdinalSet, Scratch, SearchParams, build,
};
use refrain_kernels::Metric;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: hands everything on to the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is handed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Three items to a group.
#[derive(Debug)]
struct Thirds;

impl Groups for Thirds {
    fn group(&self, ordinal: u32) -> Option<u32> {
        Some(ordinal / 3)
    }
}

#[test]
fn a_warm_search_allocates_nothing() {
    let dim = 70;
    let n = 4000_u32;
    let value =
        |i: u32| f32::from(u16::try_from(i * 7919 % 65_521).expect("small")) / 65_521.0 - 0.4;
    let vectors: Vec<f32> = (0..n * 70).map(value).collect();
    let index = |metric| {
        let params = BuildParams {
            metric,
            m: 8,
            ef_construction: Some(40),
            threads: 1,
            ..BuildParams::default()
        };
        let sections = build(&vectors, dim, &params, &())
            .expect("valid")
            .into_sections();
        let get = |name: &str| {
            sections
                .iter()
                .find(|s| s.name == name)
                .map(|s| s.bytes.clone())
        };
        Index::open(&get).expect("just built")
    };
    let indexes = Metric::ALL.map(index);
    let heard: OrdinalSet = (0..300).map(|i| i * 7).collect();
    let few: OrdinalSet = (0..50).map(|i| i * 31).collect();
    let exclude = [&heard];
    let filters = [
        Filter::default(),
        Filter {
            exclude: &exclude,
            allow: None,
        },
        Filter {
            exclude: &exclude,
            allow: Some(&few),
        },
    ];
    let debiased = indexes.each_ref().map(|index| Debias::new(index, 0.5).ok());
    let caps = [
        None,
        Some(Cap {
            most: 2,
            groups: &Thirds,
        }),
    ];
    let mut scratch = Scratch::new();
    let mut hits = Vec::new();
    let mut round = |scratch: &mut Scratch| {
        let mut walked = [0; 2];
        let searches = indexes.iter().zip(&debiased);
        for (index, debias, filter, cap) in searches.flat_map(|(index, debias)| {
            let with = move |filter| caps.map(|cap| (index, debias.as_ref(), filter, cap));
            filters.into_iter().flat_map(with)
        }) {
            for query in vectors.chunks_exact(dim).step_by(97) {
                let search = SearchParams {
                    ef_search: 32,
                    filter,
                    deadline: None,
                    debias,
                    cap,
                };
                let stats = index
                    .search(query, 10, &search, scratch, &mut hits)
                    .expect("fits");
                assert_eq!(hits.len(), 10);
                walked[usize::from(stats.exact)] += 1;
            }
        }
        walked
    };
    assert!(
        round(&mut scratch).into_iter().all(|times| times > 40),
        "both ways of answering are to be covered"
    );
    let before = ALLOCATIONS.with(Cell::get);
    round(&mut scratch);
    assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0);
}
