/* Records what a process does to the files below one folder, in order, or lets it fail.
 *
 * Loaded into the process under test (LD_PRELOAD). A seccomp filter hands every system call that can change a file
 * to the handler below, whoever makes it and however: libc, the C code of LMDB, or an instruction of its own. The
 * handler does the call, under one lock, and writes a record of it. Nothing can slip past, and what is not understood
 * (a shared writable mapping, a copy inside the kernel, a symbolic link ...) is recorded as ODD, on which the tests fail.
 *
 *   PINFOLD_RECORD_ROOT   the folder
 *   PINFOLD_RECORD_TRACE  the file that the records are appended to
 *   PINFOLD_RECORD_MARKS  a file; what is written to it becomes a mark among the records. A mark that begins with '!'
 *                         is an order to this recorder, whose answer is what the write returns:
 *                           !fail N E M   the N-th change from now on fails with the error number E; M: 0 this one
 *                                         only, 1 all from there on, 2 writes half of it and fails from then on
 *                           !kill N       the process ends before the N-th change
 *                           !ok-keep      no failures any more, but the counts go on
 *                           !ok           no failures any more; answers how many changes there were (plus one, and a
 *                                         million for each that was made to fail)
 *
 * lock.mdb is left out: it is memory that processes share, and means nothing to the next one.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <ucontext.h>
#include <unistd.h>

/* The one system call instruction that the filter lets through. */
long recorder_call(long number, long a, long b, long c, long d, long e, long f);
extern char recorder_called[];
#if defined(__x86_64__)
__asm__(".text\n.globl recorder_call\n.hidden recorder_call\n.hidden recorder_called\nrecorder_call:\n"
        "mov %rdi,%rax\nmov %rsi,%rdi\nmov %rdx,%rsi\nmov %rcx,%rdx\nmov %r8,%r10\nmov %r9,%r8\nmov 8(%rsp),%r9\n"
        "syscall\n.globl recorder_called\nrecorder_called:\nret\n");
#define ARGUMENTS(r) {r[REG_RDI], r[REG_RSI], r[REG_RDX], r[REG_R10], r[REG_R8], r[REG_R9]}
#define NUMBER(c) ((c)->uc_mcontext.gregs[REG_RAX])
#define RESULT(c) ((c)->uc_mcontext.gregs[REG_RAX])
#define REGISTERS(c) ((c)->uc_mcontext.gregs)
#elif defined(__aarch64__)
__asm__(".text\n.globl recorder_call\n.hidden recorder_call\n.hidden recorder_called\nrecorder_call:\n"
        "mov x8,x0\nmov x0,x1\nmov x1,x2\nmov x2,x3\nmov x3,x4\nmov x4,x5\nmov x5,x6\n"
        "svc #0\n.globl recorder_called\nrecorder_called:\nret\n");
#define ARGUMENTS(r) {(long)r[0], (long)r[1], (long)r[2], (long)r[3], (long)r[4], (long)r[5]}
#define NUMBER(c) ((long)(c)->uc_mcontext.regs[8])
#define RESULT(c) ((c)->uc_mcontext.regs[0])
#define REGISTERS(c) ((c)->uc_mcontext.regs)
#else
#error "the recorder knows x86_64 and aarch64"
#endif
#define CALL(n, a, b, c, d, e) recorder_call(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0)

enum { OPEN = 1, WRITE, SIZE, SYNC, RENAME, UNLINK, RMDIR, MKDIR, MARK, LINK, ODD };
enum { CREATED = 1, TRUNCATED = 2, DSYNC = 4, EXCHANGE = 8, FAILED = 16, STARTED = 32 };

struct record {
    uint32_t kind, flags;
    uint64_t inode, at;
    uint32_t path, other, data, zero;
};

static char root[PATH_MAX], marks[PATH_MAX];
static size_t root_length;
static int trace = -1;
static int taken;
/* What the lock protects. */
static char first[PATH_MAX * 2], second[PATH_MAX * 2];
static long changes, fail_at, fail_with, fail_mode, kill_at, failed;

static void lock(void) {
    while (__atomic_exchange_n(&taken, 1, __ATOMIC_ACQUIRE)) CALL(SYS_sched_yield, 0, 0, 0, 0, 0);
}
static void unlock(void) { __atomic_store_n(&taken, 0, __ATOMIC_RELEASE); }

static void die(const char *why) {
    CALL(SYS_write, 2, why, strlen(why), 0, 0);
    CALL(SYS_exit_group, 99, 0, 0, 0, 0);
}

static void put(const void *bytes, size_t n) {
    const char *at = bytes;
    while (n) {
        long done = CALL(SYS_write, trace, at, n, 0, 0);
        if (done <= 0) die("the recorder cannot write its trace\n");
        at += done;
        n -= done;
    }
}

/* Names are told from the folder on. */
static void note(int kind, int flags, uint64_t inode, uint64_t at, const char *path, const char *other, size_t data) {
    if (path && path[0] == '/') path += root_length;
    if (other && other[0] == '/') other += root_length;
    struct record r = {kind, flags, inode, at, path ? strlen(path) : 0, other ? strlen(other) : 0, data, 0};
    put(&r, sizeof r);
    if (path) put(path, r.path);
    if (other) put(other, r.other);
}

static int ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !memcmp(text + n - m, end, m);
}
static int ours(const char *path) {
    if (strncmp(path, root, root_length) || (path[root_length] && path[root_length] != '/')) return 0;
    return !ends_with(path, "/lock.mdb") && !ends_with(path, "/lock.mdb (deleted)");
}
static void path_of_fd(int fd, char *out) {
    char link[32] = "/proc/self/fd/", digits[12];
    int n = 0, at = 14;
    unsigned u = fd;
    do digits[n++] = '0' + u % 10; while (u /= 10);
    while (n) link[at++] = digits[--n];
    link[at] = 0;
    long got = fd < 0 ? -1 : CALL(SYS_readlinkat, AT_FDCWD, link, out, PATH_MAX - 1, 0);
    out[got < 0 ? 0 : got] = 0;
}
static int resolve(int dir, const char *path, char *out) {
    if (path[0] == '/') {
        size_t n = strnlen(path, PATH_MAX - 1);
        memcpy(out, path, n);
        out[n] = 0;
    } else if (dir == AT_FDCWD) {
        out[0] = 0; /* the tests name everything from the root on */
    } else {
        path_of_fd(dir, out);
        size_t n = strlen(out), m = strnlen(path, PATH_MAX - 2);
        out[n] = '/';
        memcpy(out + n + 1, path, m);
        out[n + 1 + m] = 0;
    }
    return ours(out);
}
static uint64_t inode_of(int fd) {
    struct stat s;
    return CALL(SYS_fstat, fd, &s, 0, 0, 0) < 0 ? 0 : s.st_ino;
}
static uint64_t size_of(int fd) {
    struct stat s;
    return CALL(SYS_fstat, fd, &s, 0, 0, 0) < 0 ? 0 : s.st_size;
}
static uint64_t inode_at(const char *path) {
    struct stat s;
    return CALL(SYS_newfstatat, AT_FDCWD, path, &s, AT_SYMLINK_NOFOLLOW, 0) < 0 ? 0 : s.st_ino;
}

/* Whether this change is to fail; counts it. 2: by half. */
static int fails(void) {
    changes++;
    if (kill_at && changes >= kill_at) CALL(SYS_exit_group, 0, 0, 0, 0, 0);
    if (!fail_at || changes < fail_at) return 0;
    if (changes > fail_at && fail_mode == 0) return 0;
    failed++;
    return changes == fail_at && fail_mode == 2 ? 2 : 1;
}

static long number(const char **at) {
    long n = 0;
    while (**at == ' ') ++*at;
    while (**at >= '0' && **at <= '9') n = 10 * n + *(*at)++ - '0';
    return n;
}
static long order(const char *bytes, size_t n) {
    char text[64];
    if (n >= sizeof text) n = sizeof text - 1;
    memcpy(text, bytes, n);
    text[n] = 0;
    const char *at = text + 5;
    long answer = changes + 1 + failed * 1000000;
    if (!strcmp(text, "!ok-keep")) {
        fail_at = 0;
        return answer;
    }
    changes = failed = fail_at = kill_at = 0;
    if (!strncmp(text, "!fail", 5)) {
        fail_at = number(&at);
        fail_with = number(&at);
        fail_mode = number(&at);
    } else if (!strncmp(text, "!kill", 5)) {
        kill_at = number(&at);
    }
    return answer;
}

/* A write of any kind; `at` < 0: where the file stands. */
static long do_write(long nr, long *a, const struct iovec *parts, int count, int64_t at) {
    int fd = a[0];
    path_of_fd(fd, first);
    if (marks[0] && !strcmp(first, marks)) {
        const char *text = parts[0].iov_base;
        if (parts[0].iov_len && text[0] == '!') return order(text, parts[0].iov_len);
        note(MARK, 0, 0, 0, 0, 0, parts[0].iov_len);
        put(text, parts[0].iov_len);
        return parts[0].iov_len;
    }
    if (!ours(first)) {
        /* It may wait (a pipe, a socket): not under the lock. */
        unlock();
        long result = recorder_call(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
        lock();
        return result;
    }
    long flags = CALL(SYS_fcntl, fd, F_GETFL, 0, 0, 0);
    if (at < 0) at = flags & O_APPEND ? (int64_t)size_of(fd) : CALL(SYS_lseek, fd, 0, SEEK_CUR, 0, 0);
    long result;
    switch (fails()) {
    case 1:
        return -fail_with;
    case 2: {
        struct iovec half = {parts[0].iov_base, (parts[0].iov_len + 1) / 2};
        result = CALL(SYS_pwritev, fd, &half, 1, at, 0);
        if (result > 0 && (nr == SYS_write || nr == SYS_writev)) CALL(SYS_lseek, fd, at + result, SEEK_SET, 0, 0);
        break;
    }
    default:
        result = recorder_call(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
    }
    if (result > 0) {
        int durable = (flags & O_DSYNC) == O_DSYNC ? DSYNC : 0;
        note(WRITE, durable, inode_of(fd), at, 0, 0, result);
        size_t left = result;
        for (int i = 0; i < count && left; i++) {
            size_t n = parts[i].iov_len < left ? parts[i].iov_len : left;
            put(parts[i].iov_base, n);
            left -= n;
        }
    }
    return result;
}

static long do_open(long nr, long *a, int dir, const char *path, long flags) {
    if (!resolve(dir, path, first) || !(flags & (O_CREAT | O_TRUNC | O_WRONLY | O_RDWR)))
        return recorder_call(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
    if ((flags & O_TMPFILE) == O_TMPFILE) note(ODD, 0, 0, 0, "a file without a name", 0, 0);
    uint64_t before = inode_at(first);
    int created = (flags & O_CREAT) && !before;
    if ((created || (flags & O_TRUNC)) && fails()) return -fail_with;
    long fd = recorder_call(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (fd < 0) return fd;
    if (created) note(OPEN, CREATED, inode_of(fd), 0, first, 0, 0);
    else if (flags & O_TRUNC) note(SIZE, TRUNCATED, inode_of(fd), 0, 0, 0, 0);
    return fd;
}

static long do_sync(long nr, long *a) {
    path_of_fd(a[0], first);
    if (!ours(first)) return recorder_call(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
    uint64_t inode = inode_of(a[0]);
    if (fails()) {
        note(SYNC, FAILED, inode, 0, 0, 0, 0);
        return -fail_with;
    }
    note(SYNC, STARTED, inode, 0, 0, 0, 0);
    long result = recorder_call(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
    note(SYNC, result ? FAILED : 0, inode, 0, 0, 0, 0);
    return result;
}

static long do_size(long nr, long *a) {
    path_of_fd(a[0], first);
    if (!ours(first)) return recorder_call(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (fails()) return -fail_with;
    long result = recorder_call(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (!result) note(SIZE, 0, inode_of(a[0]), a[1], 0, 0, 0);
    return result;
}

static long do_rename(long nr, long *a, int from_dir, const char *from, int to_dir, const char *to, long flags) {
    int here = resolve(from_dir, from, first), there = resolve(to_dir, to, second);
    if (!here && !there) return recorder_call(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (fails()) return -fail_with;
    long result = recorder_call(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (!result && (!here || !there)) note(ODD, 0, 0, 0, "a rename into or out of the folder", 0, 0);
    else if (!result) note(RENAME, flags & 2 ? EXCHANGE : 0, 0, 0, first, second, 0);
    return result;
}

static long do_name(long nr, long *a, int kind, int dir, const char *path) {
    if (!resolve(dir, path, first)) return recorder_call(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (kind == MKDIR ? inode_at(first) != 0 : inode_at(first) == 0)
        return recorder_call(nr, a[0], a[1], a[2], a[3], a[4], a[5]); /* will fail by itself */
    if (fails()) return -fail_with;
    long result = recorder_call(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (!result) note(kind, 0, kind == MKDIR ? inode_at(first) : 0, 0, first, 0, 0);
    return result;
}

static long do_link(long nr, long *a, int from_dir, const char *from, int to_dir, const char *to) {
    int here = resolve(from_dir, from, first), there = resolve(to_dir, to, second);
    if (!here && !there) return recorder_call(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (fails()) return -fail_with;
    long result = recorder_call(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (!result) note(LINK, 0, 0, 0, first, second, 0);
    return result;
}

static long odd(long nr, long *a, int fd, const char *what) {
    path_of_fd(fd, first);
    if (ours(first)) note(ODD, 0, 0, 0, what, 0, 0);
    return recorder_call(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static long dispatch(long nr, long *a) {
    const char *p0 = (const char *)a[0], *p1 = (const char *)a[1], *p3 = (const char *)a[3];
    struct iovec one = {(void *)a[1], (size_t)a[2]};
    switch (nr) {
    case SYS_write: return do_write(nr, a, &one, 1, -1);
    case SYS_pwrite64: return do_write(nr, a, &one, 1, a[3]);
    case SYS_writev: return do_write(nr, a, (const struct iovec *)p1, a[2], -1);
    case SYS_pwritev: return do_write(nr, a, (const struct iovec *)p1, a[2], a[3]);
    case SYS_openat: return do_open(nr, a, a[0], p1, a[2]);
    case SYS_ftruncate: return do_size(nr, a);
    case SYS_fsync: case SYS_fdatasync: return do_sync(nr, a);
    case SYS_renameat2: return do_rename(nr, a, a[0], p1, a[2], p3, a[4]);
    case SYS_unlinkat: return do_name(nr, a, a[2] & AT_REMOVEDIR ? RMDIR : UNLINK, a[0], p1);
    case SYS_mkdirat: return do_name(nr, a, MKDIR, a[0], p1);
    case SYS_linkat: return do_link(nr, a, a[0], p1, a[2], p3);
#ifdef SYS_renameat
    case SYS_renameat: return do_rename(nr, a, a[0], p1, a[2], p3, 0);
#endif
#ifdef SYS_open
    case SYS_open: return do_open(nr, a, AT_FDCWD, p0, a[1]);
    case SYS_creat: return do_open(nr, a, AT_FDCWD, p0, O_CREAT | O_WRONLY | O_TRUNC);
    case SYS_rename: return do_rename(nr, a, AT_FDCWD, p0, AT_FDCWD, p1, 0);
    case SYS_unlink: return do_name(nr, a, UNLINK, AT_FDCWD, p0);
    case SYS_rmdir: return do_name(nr, a, RMDIR, AT_FDCWD, p0);
    case SYS_mkdir: return do_name(nr, a, MKDIR, AT_FDCWD, p0);
    case SYS_link: return do_link(nr, a, AT_FDCWD, p0, AT_FDCWD, p1);
#endif
#ifdef SYS_symlink
    case SYS_symlink:
        if (resolve(AT_FDCWD, p1, first)) note(ODD, 0, 0, 0, "a symbolic link", 0, 0);
        return recorder_call(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
#endif
    case SYS_symlinkat:
        if (resolve(a[1], (const char *)a[2], first)) note(ODD, 0, 0, 0, "a symbolic link", 0, 0);
        return recorder_call(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
    case SYS_truncate:
        if (resolve(AT_FDCWD, p0, first)) note(ODD, 0, 0, 0, "truncate by name", 0, 0);
        return recorder_call(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
    case SYS_mmap: return odd(nr, a, a[4], "a shared writable mapping");
    case SYS_pwritev2: return odd(nr, a, a[0], "pwritev2");
    case SYS_fallocate: return odd(nr, a, a[0], "fallocate");
    case SYS_sendfile: return odd(nr, a, a[0], "sendfile");
    case SYS_sync_file_range: return odd(nr, a, a[0], "sync_file_range");
    case SYS_copy_file_range: return odd(nr, a, a[2], "copy_file_range");
    default: return recorder_call(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
    }
}

static void on_call(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info;
    ucontext_t *c = context;
    long number = NUMBER(c), a[6] = ARGUMENTS(REGISTERS(c));
    lock();
    long result = dispatch(number, a);
    unlock();
    RESULT(c) = result;
}

#define FIELD(name) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, name))
#define LOW(n) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args) + 8 * (n))
#define TRAP(nr) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP)

__attribute__((constructor)) static void start(void) {
    const char *folder = getenv("PINFOLD_RECORD_ROOT"), *file = getenv("PINFOLD_RECORD_TRACE");
    if (!folder || !file) return;
    strncpy(root, folder, sizeof root - 1);
    root_length = strlen(root);
    if (getenv("PINFOLD_RECORD_MARKS")) strncpy(marks, getenv("PINFOLD_RECORD_MARKS"), sizeof marks - 1);
    trace = open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (trace < 0) die("the recorder cannot open its trace\n");
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_call;
    action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_RESTART;
    sigaction(SIGSYS, &action, 0);
    uintptr_t here = (uintptr_t)recorder_called;
    struct sock_filter filter[] = {
        FIELD(instruction_pointer),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)here, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer) + 4),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)((uint64_t)here >> 32), 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        FIELD(nr),
        TRAP(SYS_write), TRAP(SYS_pwrite64), TRAP(SYS_writev), TRAP(SYS_pwritev), TRAP(SYS_openat),
        TRAP(SYS_ftruncate), TRAP(SYS_fsync), TRAP(SYS_fdatasync), TRAP(SYS_renameat2), TRAP(SYS_unlinkat),
        TRAP(SYS_mkdirat), TRAP(SYS_linkat), TRAP(SYS_symlinkat), TRAP(SYS_truncate), TRAP(SYS_pwritev2),
        TRAP(SYS_fallocate), TRAP(SYS_sendfile), TRAP(SYS_sync_file_range), TRAP(SYS_copy_file_range),
#ifdef SYS_renameat
        TRAP(SYS_renameat),
#endif
#ifdef SYS_open
        TRAP(SYS_open), TRAP(SYS_creat), TRAP(SYS_rename), TRAP(SYS_unlink), TRAP(SYS_rmdir), TRAP(SYS_mkdir),
        TRAP(SYS_link), TRAP(SYS_symlink),
#endif
        /* Of mappings only shared writable ones: those of files are writes that nobody sees. */
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 0, 5),
        LOW(2),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_WRITE, 0, 3),
        LOW(3),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, MAP_SHARED, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        die("the recorder may not set its filter\n");
}
