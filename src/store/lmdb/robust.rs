//! `pthread_mutexattr_setrobust` for static executables: musl's own refuses where the kernel has no robust futexes, and LMDB
//! then opens nothing ("function not implemented").
//!
//! Every Linux kernel of the last twenty years has them; qemu's emulation of a single program does not, and neither do some
//! sandboxes. What LMDB wants them for is this: `state check` may be killed while it enters itself into the table of
//! readers beside a running daemon, and the daemon must not wait for its mutex for ever. On kernels that is kept, by the very
//! flag that musl sets. Elsewhere the mutex is an ordinary one, which is enough for one process alone: whoever opens an
//! environment that nobody else has open makes its mutexes anew.
//!
//! (To build LMDB without robust mutexes would give that up on every board; its semaphores have names that outlive a
//! crash.) A symbol of the program comes before that of an archive, so that musl's function is left out of the executable.
//!
//! It must never say that it set the flag on a kernel that then ignores it: a mutex with this flag is kept in a list that
//! the kernel must know of.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_long, c_uint, c_void};

extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
}

/// The system call that shows whether the kernel knows such lists, by musl's own choice.
const GET_ROBUST_LIST: c_long = if cfg!(target_arch = "x86_64") {
    274
} else if cfg!(target_arch = "arm") {
    339
} else {
    // The numbers that all younger architectures share.
    100
};
/// No error of ours: `errno.h`, the same everywhere.
const EINVAL: c_int = 22;
/// The bit of musl's attribute word, its only content.
const ROBUST: c_uint = 4;

fn kernel_has_lists() -> bool {
    let this_thread: c_long = 0;
    let mut head: *mut c_void = std::ptr::null_mut();
    let mut length: usize = 0;
    // SAFETY: the call writes a pointer and a size, to the two places that are given for them; nothing is read through
    // the pointer.
    unsafe { syscall(GET_ROBUST_LIST, this_thread, &raw mut head, &raw mut length) == 0 }
}

/// As POSIX has it, but that a kernel without robust futexes is no error.
///
/// # Safety
/// `attributes` is an initialised `pthread_mutexattr_t`, as the callers (LMDB, in C) must see to.
#[no_mangle]
unsafe extern "C" fn pthread_mutexattr_setrobust(attributes: *mut c_uint, robust: c_int) -> c_int {
    // SAFETY: musl's type is a struct of one unsigned word.
    let word = unsafe { &mut *attributes };
    match robust {
        0 => *word &= !ROBUST,
        1 if kernel_has_lists() => *word |= ROBUST,
        1 => {}
        _ => return EINVAL,
    }
    0
}
