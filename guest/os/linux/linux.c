/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Linux without a libc: the few system calls that os.h needs, for x86_64, aarch64 and ARMv7.
 *
 * SIGTERM and SIGINT are kept blocked and are read from a signal descriptor, which is waited on with the sockets: no handler, no race,
 * and it works for process 1 of a container, to which the kernel does not deliver signals that nobody handles.
 */
#include "linux.h"

enum { SIGINT = 2, SIGTERM = 15, CLOCK_MONOTONIC = 1, AT_FDCWD = -100, WATCHES_MOST = 128, SIGNAL_BYTES = 128 };

#if defined(__x86_64__)
enum { SYS_write = 1, SYS_rt_sigprocmask = 14, SYS_clock_gettime = 228, SYS_exit_group = 231, SYS_openat = 257, SYS_ppoll = 271,
       SYS_signalfd4 = 289, SYS_getrandom = 318 };

long linux_call(long number, long a, long b, long c, long d, long e, long f) {
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
    return result;
}

__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall linux_main\n\tud2\n");
#elif defined(__aarch64__)
enum { SYS_openat = 56, SYS_write = 64, SYS_ppoll = 73, SYS_signalfd4 = 74, SYS_exit_group = 94, SYS_clock_gettime = 113,
       SYS_rt_sigprocmask = 135, SYS_getrandom = 278 };

long linux_call(long number, long a, long b, long c, long d, long e, long f) {
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    return x0;
}

__asm__(".globl _start\n_start:\n\tmov x29, #0\n\tmov x30, #0\n\tmov x0, sp\n\tand sp, x0, #-16\n\tbl linux_main\n\tbrk #0\n");
#elif defined(__arm__)
/* The calls whose times have 64 bits (since Linux 5.1), so that struct timespec below is right here too. */
enum { SYS_write = 4, SYS_rt_sigprocmask = 175, SYS_exit_group = 248, SYS_openat = 322, SYS_signalfd4 = 355, SYS_getrandom = 384,
       SYS_clock_gettime = 403, SYS_ppoll = 414 };

long linux_call(long number, long a, long b, long c, long d, long e, long f) {
    register long r0 __asm__("r0") = a;
    register long r1 __asm__("r1") = b;
    register long r2 __asm__("r2") = c;
    register long r3 __asm__("r3") = d;
    register long r4 __asm__("r4") = e;
    register long r5 __asm__("r5") = f;
    /* r7 is the frame pointer of Thumb code, so it cannot be a register variable. */
    __asm__ volatile("push {r7}\n\tmov r7, %1\n\tsvc #0\n\tpop {r7}" : "+r"(r0) : "r"(number), "r"(r1), "r"(r2), "r"(r3), "r"(r4), "r"(r5) : "memory");
    return r0;
}

__asm__(".globl _start\n.type _start, %function\n_start:\n\tmov r0, sp\n\tmov r4, sp\n\tbic r4, r4, #7\n\tmov sp, r4\n\tbl linux_main\n\tudf #0\n");

/* libgcc's divisions call these after a division by zero, of which there is none here. */
void __aeabi_ldiv0(void);
__attribute__((noreturn)) void __aeabi_ldiv0(void) {
    __builtin_trap();
}
void __aeabi_idiv0(void);
__attribute__((noreturn)) void __aeabi_idiv0(void) {
    __builtin_trap();
}
#else
#error "os/linux knows x86_64, aarch64 and ARMv7"
#endif

struct timespec {
    int64_t seconds, nanoseconds;
};

struct pollfd {
    int descriptor;
    short events, found;
};

static struct pollfd polled[WATCHES_MOST];
static struct watch {
    void (*ready)(void *owner, short events);
    void *owner;
} watches[WATCHES_MOST];
static bool stopping;

static long call(long number, long a, long b, long c, long d) {
    return linux_call(number, a, b, c, d, 0, 0);
}

bool os_has_files(void) {
    return true;
}

uint64_t os_random(void) {
    uint64_t value = 0;
    call(SYS_getrandom, (long)&value, sizeof value, 0, 0);
    return value;
}

static uint64_t began;
static const uint64_t stop_signals = 1ull << (SIGINT - 1) | 1ull << (SIGTERM - 1);

static uint64_t monotonic(void) {
    struct timespec t = {0, 0};
    call(SYS_clock_gettime, CLOCK_MONOTONIC, (long)&t, 0, 0);
    return (uint64_t)t.seconds * 1000000000u + (uint64_t)t.nanoseconds;
}

uint64_t os_now(void) {
    return monotonic() - began;
}

bool os_write(const char *bytes, size_t length) {
    while (length) {
        long n = call(SYS_write, 1, (long)bytes, (long)length, 0);
        if (n == -EINTR || n == -EAGAIN)
            continue;
        if (n <= 0)
            return false;
        bytes += n;
        length -= (size_t)n;
    }
    return true;
}

int linux_watch(int descriptor, short events, void (*ready)(void *owner, short events), void *owner) {
    for (int place = 0; place < WATCHES_MOST; place++) {
        if (watches[place].ready)
            continue;
        watches[place] = (struct watch){ready, owner};
        polled[place] = (struct pollfd){descriptor, events, 0};
        return place;
    }
    return -1;
}

void linux_watch_for(int place, short events) {
    polled[place].events = events;
}

void linux_unwatch(int place) {
    watches[place] = (struct watch){NULL, NULL};
    polled[place] = (struct pollfd){-1, 0, 0};
}

void platform_wait(uint64_t until) {
    uint64_t now = os_now(), left = until > now ? until - now : 0;
    struct timespec t = {(int64_t)(left / 1000000000u), (int64_t)(left % 1000000000u)};
    long n = call(SYS_ppoll, (long)polled, WATCHES_MOST, until == UINT64_MAX ? 0 : (long)&t, 0);
    for (int place = 0; n > 0 && place < WATCHES_MOST; place++) {
        short found = polled[place].found;
        if (!found)
            continue;
        n--;
        polled[place].found = 0; /* who takes this place meanwhile has not been found anything of */
        if (watches[place].ready)
            watches[place].ready(watches[place].owner, found);
    }
}

bool platform_stopping(void) {
    return stopping;
}

static void take_signal(void *owner, short events) {
    char bytes[SIGNAL_BYTES];
    (void)events;
    if (call(SYS_read, *(int *)owner, (long)bytes, sizeof bytes, 0) > 0)
        stopping = true;
}

static void watch_signals(void) {
    static int descriptor;
    for (int place = 0; place < WATCHES_MOST; place++)
        linux_unwatch(place);
    call(SYS_rt_sigprocmask, 0, (long)&stop_signals, 0, sizeof stop_signals);
    descriptor = (int)call(SYS_signalfd4, -1, (long)&stop_signals, sizeof stop_signals, O_NONBLOCK | O_CLOEXEC);
    linux_watch(descriptor, POLLIN, take_signal, &descriptor);
}

long os_read_file(const char *path, char *bytes, size_t size) {
    long descriptor = call(SYS_openat, AT_FDCWD, (long)path, O_NONBLOCK | O_CLOEXEC, 0);
    if (descriptor < 0)
        return descriptor;
    long total = 0, n = 0;
    while ((size_t)total < size) {
        n = call(SYS_read, descriptor, (long)(bytes + total), (long)(size - (size_t)total), 0);
        if (n <= 0)
            break;
        total += n;
    }
    call(SYS_close, descriptor, 0, 0, 0);
    return n < 0 ? n : total;
}

/* Standard input is read only once it is ready, so that it need not be made non-blocking for others who share it. */
long os_read_stream(char *bytes, size_t size) {
    struct pollfd input = {0, POLLIN, 0};
    struct timespec now = {0, 0};
    if (!size || call(SYS_ppoll, (long)&input, 1, (long)&now, 0) <= 0 || !(input.found & (POLLIN | POLLHUP)))
        return 0;
    long n = call(SYS_read, 0, (long)bytes, (long)size, 0);
    return n > 0 ? n : 0;
}

__attribute__((used, noreturn)) void linux_main(long *stack) {
    int argc = (int)stack[0];
    char **argv = (char **)(stack + 1);
    began = monotonic();
    watch_signals();
    int code = app_main(argc, argv, argv + argc + 1);
    for (;;)
        call(SYS_exit_group, code, 0, 0, 0);
}
