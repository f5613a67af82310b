/* Tells a program that memory pages have 16 KiB, as those of the Raspberry Pi 5's kernel: LMDB makes its files by that.
   Preloaded; what the program maps with it is right for pages of 4 KiB, too. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>

#define PAGE 16384

long sysconf(int name) {
    static long (*next)(int);
    if (name == _SC_PAGESIZE) return PAGE;
    if (!next) next = (long (*)(int))dlsym(RTLD_NEXT, "sysconf");
    return next(name);
}

int getpagesize(void) {
    return PAGE;
}
