/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Linux without a libc: the few system calls that os.h needs, for x86_64, aarch64 and ARMv7.
 *
 * SIGTERM and SIGINT are kept blocked and are taken with rt_sigtimedwait, which is also the sleep: no handler, no race, and it
 * works for process 1 of a container, to which the kernel does not deliver signals that nobody handles.
 */
#include "../os.h"

#define SIGINT 2
#define SIGTERM 15
#define CLOCK_MONOTONIC 1
#define AT_FDCWD (-100)
#define O_NONBLOCK 04000
#define O_CLOEXEC 02000000
#define EINTR 4
#define EAGAIN 11

#if defined(__x86_64__)
enum { SYS_read = 0, SYS_write = 1, SYS_close = 3, SYS_rt_sigprocmask = 14, SYS_rt_sigtimedwait = 128, SYS_clock_gettime = 228,
       SYS_exit_group = 231, SYS_openat = 257 };

static long call(long number, long a, long b, long c, long d) {
    long result;
    register long r10 __asm__("r10") = d;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
    return result;
}

__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall linux_main\n\tud2\n");
#elif defined(__aarch64__)
enum { SYS_openat = 56, SYS_close = 57, SYS_read = 63, SYS_write = 64, SYS_exit_group = 94, SYS_clock_gettime = 113,
       SYS_rt_sigprocmask = 135, SYS_rt_sigtimedwait = 137 };

static long call(long number, long a, long b, long c, long d) {
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
    return x0;
}

__asm__(".globl _start\n_start:\n\tmov x29, #0\n\tmov x30, #0\n\tmov x0, sp\n\tand sp, x0, #-16\n\tbl linux_main\n\tbrk #0\n");
#elif defined(__arm__)
/* The calls whose times have 64 bits (since Linux 5.1), so that struct timespec below is right here too. */
enum { SYS_read = 3, SYS_write = 4, SYS_close = 6, SYS_rt_sigprocmask = 175, SYS_exit_group = 248, SYS_openat = 322,
       SYS_clock_gettime = 403, SYS_rt_sigtimedwait = 421 };

static long call(long number, long a, long b, long c, long d) {
    register long r0 __asm__("r0") = a;
    register long r1 __asm__("r1") = b;
    register long r2 __asm__("r2") = c;
    register long r3 __asm__("r3") = d;
    /* r7 is the frame pointer of Thumb code, so it cannot be a register variable. */
    __asm__ volatile("push {r7}\n\tmov r7, %1\n\tsvc #0\n\tpop {r7}" : "+r"(r0) : "r"(number), "r"(r1), "r"(r2), "r"(r3) : "memory");
    return r0;
}

__asm__(".globl _start\n.type _start, %function\n_start:\n\tmov r0, sp\n\tmov r4, sp\n\tbic r4, r4, #7\n\tmov sp, r4\n\tbl linux_main\n\tudf #0\n");

/* libgcc's 64-bit division calls it after a division by zero, of which there is none here. */
void __aeabi_ldiv0(void);
__attribute__((noreturn)) void __aeabi_ldiv0(void) {
    __builtin_trap();
}
#else
#error "os/linux knows x86_64, aarch64 and ARMv7"
#endif

struct timespec {
    int64_t seconds, nanoseconds;
};

const bool os_has_files = true;
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

bool os_sleep_until(uint64_t deadline) {
    for (;;) {
        uint64_t now = os_now(), left = deadline > now ? deadline - now : 0;
        struct timespec t = {(int64_t)(left / 1000000000u), (int64_t)(left % 1000000000u)};
        long n = call(SYS_rt_sigtimedwait, (long)&stop_signals, 0, (long)&t, sizeof stop_signals);
        if (n > 0)
            return true;
        if (n == -EAGAIN && os_now() >= deadline)
            return false;
    }
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

__attribute__((used, noreturn)) void linux_main(long *stack) {
    int argc = (int)stack[0];
    char **argv = (char **)(stack + 1);
    began = monotonic();
    call(SYS_rt_sigprocmask, 0, (long)&stop_signals, 0, sizeof stop_signals);
    int code = app_main(argc, argv, argv + argc + 1);
    for (;;)
        call(SYS_exit_group, code, 0, 0, 0);
}
