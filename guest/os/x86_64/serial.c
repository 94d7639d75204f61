/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The console: the first serial port (16550), written by polling.
 *
 * Its 16-byte FIFO is filled at once when it is empty: a status read for every byte would be slow where port access is emulated.
 */
#include "machine.h"

enum { PORT = 0x3f8, FIFO_BYTES = 16, STATUS_EMPTY = 0x20, STATUS_IDLE = 0x40 };

void serial_start(void) {
    out8(PORT + 1, 0);    /* no interrupts */
    out8(PORT + 3, 0x80); /* divisor: 115200 baud */
    out8(PORT + 0, 1);
    out8(PORT + 1, 0);
    out8(PORT + 3, 3); /* 8 bits, no parity, one stop bit */
    out8(PORT + 2, 7); /* FIFO on and empty */
}

static void wait_for(uint8_t status) {
    while (!(in8(PORT + 5) & status))
        __asm__ volatile("pause");
}

void console_drain(void) {
    wait_for(STATUS_IDLE);
}

bool os_write(const char *bytes, size_t length) {
    while (length) {
        size_t n = length < FIFO_BYTES ? length : FIFO_BYTES;
        wait_for(STATUS_EMPTY);
        for (size_t i = 0; i < n; i++)
            out8(PORT, (uint8_t)bytes[i]);
        bytes += n;
        length -= n;
    }
    return true;
}
