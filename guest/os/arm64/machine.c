/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The arm64 machine's start: what the device tree says, then the program.
 */
#include "machine.h"

void machine_main(const void *blob, uint64_t began);
void machine_main(const void *blob, uint64_t began) {
    static struct tree tree;
    struct node chosen;
    struct property line = {"", 1};
    if (!tree_open(blob, &tree))
        power_off(); /* without it there is no console to say so on either */
    serial_start(&tree);
    interrupts_start(&tree);
    time_start(&tree, began);
    power_start(&tree);
    devices_start(&tree);
    if (tree_find(&tree, "chosen", &chosen))
        tree_property(&tree, &chosen, "bootargs", &line);
    if (!line.length || line.bytes[line.length - 1])
        bare_fail("the device tree's bootargs have no end");
    bare_run(line.bytes);
}
