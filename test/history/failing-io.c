/*
 * Preloaded into the daemon: lets calls that write or sync the files of its database fail, as a control file says that
 * is mapped into memory and that a test writes while the daemon runs.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

enum { ON_WRITE = 1, ON_SYNC = 2 };
/*
 * Of these calls only those of commits, or only the others: the witness is written anew after a failure, and the blocks of
 * the log that are made ahead, by another thread, are not needed.
 */
enum { OF_COMMITS = 4, OF_OTHERS = 8 };
/* Instead of a number of an error: a part is written, the rest is left to the caller. */
enum { SHORT_WRITE = -1 };

/* Integers of 32 bits: which calls of which, with which error, after how many that pass, and how many fail then. */
struct control {
    volatile int32_t calls;
    volatile int32_t error;
    volatile int32_t passing;
    volatile int32_t failing;
    /* How many have failed. */
    volatile int32_t failed;
};

static struct control *control;

__attribute__((constructor)) static void map_control(void) {
    const char *path = getenv("PAWL_FAILING_IO");
    int file = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
    if (file < 0) return;
    void *mapped = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (mapped != MAP_FAILED) control = mapped;
}

/* True for a file of the database, if it is one of those that the calls are of. */
static int is_meant(int file, int calls) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    if (strstr(path, "/pawl.db") == NULL && strstr(path, "/pawl.witness") == NULL) return 0;
    int is_commit = strstr(path, "/pawl.db-wal") != NULL && syscall(SYS_gettid) == getpid();
    if ((calls & OF_COMMITS) != 0) return is_commit;
    return (calls & OF_OTHERS) == 0 || !is_commit;
}

/* The error that this call has to fail with, SHORT_WRITE, or 0. */
static int failure(int file, int call) {
    if (control == NULL || (control->calls & call) == 0 || !is_meant(file, control->calls)) return 0;
    if (__sync_fetch_and_sub(&control->passing, 1) > 0) return 0;
    if (__sync_fetch_and_sub(&control->failing, 1) <= 0) return 0;
    __sync_fetch_and_add(&control->failed, 1);
    return control->error;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define FAILING(file, bytes, whole, part)                                                                             \
    int error = failure(file, ON_WRITE);                                                                               \
    if (error == SHORT_WRITE && (bytes) > 1) return part;                                                              \
    if (error > 0) {                                                                                                   \
        errno = error;                                                                                                 \
        return -1;                                                                                                     \
    }                                                                                                                  \
    return whole

ssize_t write(int file, const void *from, size_t bytes) {
    FAILING(file, bytes, REAL(write)(file, from, bytes), REAL(write)(file, from, bytes / 2));
}

ssize_t pwrite(int file, const void *from, size_t bytes, off_t at) {
    FAILING(file, bytes, REAL(pwrite)(file, from, bytes, at), REAL(pwrite)(file, from, bytes / 2, at));
}

ssize_t pwrite64(int file, const void *from, size_t bytes, off64_t at) {
    FAILING(file, bytes, REAL(pwrite64)(file, from, bytes, at), REAL(pwrite64)(file, from, bytes / 2, at));
}

static int fails_to_sync(int file) {
    int error = failure(file, ON_SYNC);
    if (error <= 0) return 0;
    errno = error;
    return 1;
}

int fsync(int file) { return fails_to_sync(file) ? -1 : REAL(fsync)(file); }
int fdatasync(int file) { return fails_to_sync(file) ? -1 : REAL(fdatasync)(file); }
