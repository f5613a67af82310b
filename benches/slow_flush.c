/* Counts what a program flushes and writes to files, and makes flushes take longer: a slow disk for measurements.
 *
 *   cc -O2 -shared -fPIC -o slow_flush.so slow_flush.c
 *   SLOW_FLUSH_US=2000 SLOW_FLUSH_COUNTS=/tmp/counts LD_PRELOAD=./slow_flush.so PROGRAM
 *
 * A flush is fsync, fdatasync, msync(MS_SYNC), and a write to a file that was opened with O_SYNC or O_DSYNC (LMDB writes
 * its meta page so). Each sleeps for SLOW_FLUSH_US microseconds after the real one. The counts file holds five numbers
 * as 64-bit words, and is mapped, so that whoever reads it sees them as they are: flushes, writes, bytes written,
 * of these the synchronous writes, and their bytes.
 * Only programs that call these functions in a shared libc are slowed down: not static ones, and not Go's, which makes
 * system calls by itself. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { FLUSHES, WRITES, BYTES, SYNC_WRITES, SYNC_BYTES, NUMBERS };
static uint64_t spare[NUMBERS], *counts = spare;
static long delay_us;

__attribute__((constructor)) static void begin(void) {
    const char *us = getenv("SLOW_FLUSH_US"), *path = getenv("SLOW_FLUSH_COUNTS");
    if (us) delay_us = atol(us);
    if (!path) return;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) return;
    if (ftruncate(fd, sizeof spare) == 0) {
        void *map = mmap(NULL, sizeof spare, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (map != MAP_FAILED) counts = map;
    }
    close(fd);
}

static void count(int what, uint64_t n) { __atomic_fetch_add(&counts[what], n, __ATOMIC_RELAXED); }

static void flushed(void) {
    count(FLUSHES, 1);
    if (delay_us <= 0) return;
    int kept = errno;
    struct timespec left = { delay_us / 1000000, delay_us % 1000000 * 1000 };
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {}
    errno = kept;
}

static void wrote(int fd, ssize_t bytes) {
    struct stat about;
    int kept = errno;
    if (bytes > 0 && fstat(fd, &about) == 0 && S_ISREG(about.st_mode)) {
        count(WRITES, 1);
        count(BYTES, (uint64_t)bytes);
        int flags = fcntl(fd, F_GETFL);
        if (flags != -1 && (flags & O_DSYNC)) { /* O_SYNC contains it */
            count(SYNC_WRITES, 1);
            count(SYNC_BYTES, (uint64_t)bytes);
            flushed();
        }
    }
    errno = kept;
}

#define REAL(result, name, ...) static result (*real)(__VA_ARGS__); if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name)

int fsync(int fd) { REAL(int, fsync, int); int r = real(fd); flushed(); return r; }
int fdatasync(int fd) { REAL(int, fdatasync, int); int r = real(fd); flushed(); return r; }
int msync(void *at, size_t len, int flags) {
    REAL(int, msync, void *, size_t, int);
    int r = real(at, len, flags);
    if (flags & MS_SYNC) flushed();
    return r;
}
ssize_t write(int fd, const void *b, size_t n) { REAL(ssize_t, write, int, const void *, size_t); ssize_t r = real(fd, b, n); wrote(fd, r); return r; }
ssize_t pwrite(int fd, const void *b, size_t n, off_t at) { REAL(ssize_t, pwrite, int, const void *, size_t, off_t); ssize_t r = real(fd, b, n, at); wrote(fd, r); return r; }
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t at) { REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t); ssize_t r = real(fd, b, n, at); wrote(fd, r); return r; }
ssize_t writev(int fd, const struct iovec *v, int n) { REAL(ssize_t, writev, int, const struct iovec *, int); ssize_t r = real(fd, v, n); wrote(fd, r); return r; }
ssize_t pwritev(int fd, const struct iovec *v, int n, off_t at) { REAL(ssize_t, pwritev, int, const struct iovec *, int, off_t); ssize_t r = real(fd, v, n, at); wrote(fd, r); return r; }
ssize_t pwritev64(int fd, const struct iovec *v, int n, off64_t at) { REAL(ssize_t, pwritev64, int, const struct iovec *, int, off64_t); ssize_t r = real(fd, v, n, at); wrote(fd, r); return r; }
