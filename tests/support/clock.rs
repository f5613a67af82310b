//! The wall clock of a peer, set by the test. Monotonic time is left alone.

use std::path::{Path, PathBuf};

/// A clock that the test sets: a library that is loaded before libc, made by the C compiler that building needs
/// anyway. The offset lies in a file that both map.
pub struct Clock {
    library: PathBuf,
    offset: PathBuf,
}

const CLOCK: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static volatile long *offset;
__attribute__((constructor)) static void start(void) {
    const char *path = getenv("PINFOLD_TEST_CLOCK");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *at = fd < 0 ? MAP_FAILED : mmap(0, sizeof(long), PROT_READ, MAP_SHARED, fd, 0);
    if (at != MAP_FAILED) offset = at;
}
int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && clock == CLOCK_REALTIME && offset) now->tv_sec += *offset;
    return result;
}
time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return 0;
}
"#;

impl Clock {
    /// The real time, until it is set. `None`, having said so, without a C compiler.
    pub fn new(at: &Path) -> Option<Clock> {
        let (source, library) = (at.join("clock.c"), at.join("clock.so"));
        std::fs::write(&source, CLOCK).expect("source");
        let mut cc = std::process::Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source);
        if !cc.status().is_ok_and(|s| s.success()) {
            super::skip("there is no C compiler `cc` that makes shared libraries");
            return None;
        }
        let clock = Clock { library, offset: at.join("offset") };
        clock.set(0);
        Some(clock)
    }

    /// Seconds to add to the real time. Written in place: the process has the file mapped.
    pub fn set(&self, seconds: i64) {
        use std::os::unix::fs::FileExt;
        let file = std::fs::File::options().create(true).truncate(false).write(true).open(&self.offset);
        file.expect("offset").write_all_at(&seconds.to_ne_bytes(), 0).expect("offset");
    }

    /// Makes a command live by this clock.
    pub fn of(&self, command: &mut std::process::Command) {
        command.env("LD_PRELOAD", &self.library).env("PINFOLD_TEST_CLOCK", &self.offset);
    }

    /// Starts a peer that lives by this clock.
    pub fn start(&self, peer: &mut super::cluster::Peer) {
        peer.spawn_with(&["daemon"], |command| self.of(command));
        peer.wait_ready();
    }
}
