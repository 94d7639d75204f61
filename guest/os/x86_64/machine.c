/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The x86_64 machine's start: what PVH hands over, then the program.
 */
#include "machine.h"

/* Xen's public/arch-x86/hvm/start_info.h; QEMU passes the same. */
struct start_info {
    uint32_t magic, version, flags, module_count;
    uint64_t modules, command_line, acpi;
};

struct module {
    uint64_t address, size, command_line, reserved;
};

enum { START_MAGIC = 0x336ec578 };
static const uint64_t mapped = 1u << 30;

void machine_main(const struct start_info *start);
void machine_main(const struct start_info *start) {
    serial_start();
    interrupts_start();
    time_start();
    power_start();
    if ((uintptr_t)start >= mapped || start->magic != START_MAGIC || start->command_line >= mapped)
        bare_fail("the boot loader's start info is not where PVH says");
    if (start->module_count && start->modules < mapped) {
        const struct module *initrd = (const struct module *)(uintptr_t)start->modules;
        if (initrd->address < mapped && initrd->size <= mapped - initrd->address)
            files_start((const void *)(uintptr_t)initrd->address, initrd->size);
    }
    bare_run((const char *)(uintptr_t)start->command_line);
}
