//! An allocator that counts, so that an input that makes pinfold allocate out of all proportion is a finding.
//!
//! It counts bytes that are allocated and not yet given back, in the whole process, and remembers the most there were
//! since [`start`]. It never refuses: the verdict is passed after the input, with the numbers.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator with two counters in front.
pub struct Counting;

/// Bytes in use.
static LIVE: AtomicUsize = AtomicUsize::new(0);
/// The most there were since the last [`start`].
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn more(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(live, Ordering::Relaxed);
}

fn less(bytes: usize) {
    LIVE.fetch_sub(bytes, Ordering::Relaxed);
}

// SAFETY: every call goes to the system's allocator with the caller's own arguments; the counters touch no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let memory = System.alloc(layout);
        if !memory.is_null() {
            more(layout.size());
        }
        memory
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let memory = System.alloc_zeroed(layout);
        if !memory.is_null() {
            more(layout.size());
        }
        memory
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let moved = System.realloc(memory, layout, size);
        if !moved.is_null() {
            more(size);
            less(layout.size());
        }
        moved
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        System.dealloc(memory, layout);
        less(layout.size());
    }
}

/// Begins a measurement; its result goes to [`peak_since`].
pub fn start() -> usize {
    let live = LIVE.load(Ordering::Relaxed);
    PEAK.store(live, Ordering::Relaxed);
    live
}

/// The most bytes in use beyond those of the beginning.
pub fn peak_since(start: usize) -> usize {
    PEAK.load(Ordering::Relaxed).saturating_sub(start)
}
