/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The Xen machine's start and end, for both kinds of domains: where the shared pages are, then the program.
 *
 * PVH: guest-physical addresses, Xen's calls through a page that a model-specific register places, shared pages by parameters.
 * Paravirtual: Xen's page tables, machine addresses in the start info, which a table that Xen shows to every guest turns back.
 */
#include "../x86_64/machine.h"
#include "xen.h"

enum { HVM_GET_PARAMETER = 1, PARAMETER_STORE_PAGE = 1, PARAMETER_STORE_PORT = 2, PARAMETER_CONSOLE_PAGE = 17, PARAMETER_CONSOLE_PORT = 18 };
enum { MEMORY_ADD_TO_PHYSMAP = 7, SPACE_SHARED_INFO = 0, SCHEDULE_SHUTDOWN = 2, SHUTDOWN_POWER_OFF = 0, SHUTDOWN_CRASH = 3 };
enum { LEAF_FIRST = 0x40000000, LEAF_STEP = 0x100, LEAF_LAST = 0x40010000, EXCEPTIONS_COUNT = 22, KERNEL_CODE = 0xe033 };

enum { SPACE_GRANTS = 1, GRANT_SETUP = 2, PRESENT_WRITABLE_USER = 7, FLUSH_THIS = 2 };

static struct shared_info shared_page;
static const uint64_t *page_numbers; /* of a paravirtual domain, by its own page number; NULL: PVH */
volatile struct shared_info *shared = &shared_page;

/* public/arch-x86/hvm/start_info.h */
struct pvh_start {
    uint32_t magic, version, flags, module_count;
    uint64_t modules, command_line, acpi;
};
struct pvh_module {
    uint64_t address, size, command_line, reserved;
};
enum { PVH_MAGIC = 0x336ec578 };
static const uint64_t mapped = 1u << 30;

/* public/xen.h, start_info */
enum { COMMAND_LINE_SIZE = 1024 };
struct paravirtual_start {
    char magic[32];
    uint64_t pages, shared_info;
    uint32_t flags;
    uint64_t store_page;
    uint32_t store_port;
    uint64_t console_page;
    uint32_t console_port;
    uint64_t page_table, page_table_pages, page_list, module, module_size;
    char command_line[COMMAND_LINE_SIZE];
};

_Noreturn void power_off(void) {
    uint32_t reason = SHUTDOWN_POWER_OFF;
    hypercall(CALL_SCHEDULE, SCHEDULE_SHUTDOWN, (uintptr_t)&reason, 0);
    for (;;)
        __asm__ volatile("ud2");
}

static void start(struct channel console, struct channel store) {
    time_start();
    console_start(console);
    store_start(store);
}

static bool add_page(uint32_t space, const void *page) {
    struct {
        uint16_t domain, size;
        uint32_t space;
        uint64_t index, page;
    } add = {SELF, 0, space, 0, (uintptr_t)page / PAGE};
    return hypercall(CALL_MEMORY, MEMORY_ADD_TO_PHYSMAP, (uintptr_t)&add, 0) == 0;
}

static bool map_page(const void *page, uint64_t machine_address) {
    return hypercall(CALL_UPDATE_MAPPING, (uintptr_t)page, machine_address | PRESENT_WRITABLE_USER, FLUSH_THIS) == 0;
}

uint64_t page_number(const void *page) {
    uint64_t own = (uintptr_t)page / PAGE;
    return page_numbers ? page_numbers[own] : own;
}

bool place_grants(void *page) {
    uint64_t number = 0;
    struct {
        uint16_t domain;
        uint32_t count;
        int16_t status;
        uint64_t *numbers;
    } setup = {SELF, 1, 0, &number};
    if (!page_numbers)
        return add_page(SPACE_GRANTS, page);
    return hypercall(CALL_GRANT, GRANT_SETUP, (uintptr_t)&setup, 1) == 0 && setup.status == 0 && map_page(page, number * PAGE);
}

static uint64_t parameter(uint32_t index) {
    struct {
        uint16_t domain;
        uint32_t index;
        uint64_t value;
    } get = {SELF, index, 0};
    return hypercall(CALL_HVM, HVM_GET_PARAMETER, (uintptr_t)&get, 0) ? 0 : get.value;
}

/* Xen's processor leaf "XenVMMXenVMM" says which register places the page with its calls (public/arch-x86/cpuid.h). */
static bool place_hypercalls(void) {
    for (uint32_t leaf = LEAF_FIRST; leaf < LEAF_LAST; leaf += LEAF_STEP) {
        uint32_t a = leaf, b, c = 0, d;
        __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
        if (b != 0x566e6558 || c != 0x65584d4d || d != 0x4d4d566e)
            continue;
        a = leaf + 2;
        c = 0;
        __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
        uint64_t at = (uintptr_t)hypercall_page;
        __asm__ volatile("wrmsr" : : "c"(b), "a"((uint32_t)at), "d"((uint32_t)(at >> 32)) : "memory");
        return true;
    }
    return false;
}

static void *own_page(uint64_t number) {
    return (void *)(number * PAGE);
}

void machine_main(const struct pvh_start *info);
void machine_main(const struct pvh_start *info) {
    extern uint64_t pd_high[512];
    const uint64_t not_cached = 0x18;
    /* The shared pages lie just below 4 GiB, where a real machine has devices: they are memory here. */
    for (int i = 0; i < 512; i++)
        pd_high[i] &= ~not_cached;
    uint64_t tables;
    __asm__ volatile("mov %%cr3, %0\n\tmov %0, %%cr3" : "=r"(tables) : : "memory");
    exceptions_start();
    if (!place_hypercalls())
        for (;;)
            __asm__ volatile("ud2"); /* not under Xen: there is nobody to tell */
    if (!add_page(SPACE_SHARED_INFO, &shared_page))
        power_off();
    start((struct channel){own_page(parameter(PARAMETER_CONSOLE_PAGE)), (uint32_t)parameter(PARAMETER_CONSOLE_PORT)},
          (struct channel){own_page(parameter(PARAMETER_STORE_PAGE)), (uint32_t)parameter(PARAMETER_STORE_PORT)});
    if (info->magic != PVH_MAGIC || info->command_line >= mapped)
        bare_fail("the start info is not where PVH says");
    if (info->module_count && info->modules < mapped) {
        const struct pvh_module *initrd = (const struct pvh_module *)(uintptr_t)info->modules;
        if (initrd->address < mapped && initrd->size <= mapped - initrd->address)
            files_start((const void *)(uintptr_t)initrd->address, initrd->size);
    }
    bare_run((const char *)(uintptr_t)info->command_line);
}

static void *page_of_machine(uint64_t number) {
    const uint64_t *machine_to_physical = (const uint64_t *)0xffff800000000000;
    return own_page(machine_to_physical[number]);
}

#define EXCEPTIONS(X) \
    X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15) X(16) X(17) X(18) X(19) X(20) X(21)
#define DECLARE(n) void paravirtual_##n(void);
#define TRAP(n) {n, 0, KERNEL_CODE, (uintptr_t)paravirtual_##n},
EXCEPTIONS(DECLARE)

void paravirtual_main(const struct paravirtual_start *info);
void paravirtual_main(const struct paravirtual_start *info) {
    struct trap {
        uint8_t vector, flags;
        uint16_t code;
        uint64_t address;
    } traps[] = {EXCEPTIONS(TRAP){0, 0, 0, 0}};
    hypercall(CALL_SET_TRAP_TABLE, (uintptr_t)traps, 0, 0);
    page_numbers = (const uint64_t *)info->page_list;
    if (!map_page(&shared_page, info->shared_info))
        power_off();
    start((struct channel){page_of_machine(info->console_page), info->console_port},
          (struct channel){page_of_machine(info->store_page), info->store_port});
    if (info->module && info->module_size)
        files_start((const void *)(uintptr_t)info->module, info->module_size);
    if (text_length(info->command_line) == COMMAND_LINE_SIZE - 1)
        bare_refuse("a paravirtual domain's command line ends at 1023 bytes, and this one was cut off there; use PVH");
    bare_run(info->command_line);
}

long os_read_stream(char *bytes, size_t size) {
    (void)bytes, (void)size;
    return -19; /* Xen has no such stream; xenstore or a file serve */
}
