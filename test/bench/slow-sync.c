/* Preloaded into what is measured: each sync of a file takes SYNC_DELAY_US microseconds longer, as on a slower disk. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

static void delay(void) {
    static long delay_us = -1;
    if (delay_us < 0) {
        const char *given = getenv("SYNC_DELAY_US");
        delay_us = given == NULL ? 0 : atol(given);
    }
    struct timespec left = {delay_us / 1000000, delay_us % 1000000 * 1000};
    while (nanosleep(&left, &left) != 0) continue;
}

static int slowly(const char *name, int file) {
    int (*sync)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    delay();
    return sync(file);
}

int fsync(int file) { return slowly("fsync", file); }
int fdatasync(int file) { return slowly("fdatasync", file); }
