/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The files of a bare machine: what its initrd holds, a cpio archive ("newc", cpio(5)) read in place. It is checked as it is walked.
 */
#include "bare.h"

enum { HEADER = 110, MODE = 14, SIZE = 54, NAME_SIZE = 94, TYPE = 0170000, REGULAR = 0100000, DIRECTORY = 0040000, NO_ENTRY = 2, IS_DIRECTORY = 21 };

static const char *archive;
static size_t archive_length;

void files_start(const void *bytes, size_t length) {
    archive = bytes;
    archive_length = length;
}

bool os_has_files(void) {
    return archive_length;
}

static bool number(const char *digits, size_t *out) {
    *out = 0;
    for (int i = 0; i < 8; i++) {
        char c = digits[i];
        size_t digit = c >= '0' && c <= '9' ? (size_t)(c - '0') : c >= 'a' && c <= 'f' ? (size_t)(c - 'a' + 10) : c >= 'A' && c <= 'F' ? (size_t)(c - 'A' + 10) : 16;
        if (digit == 16)
            return false;
        *out = *out << 4 | digit;
    }
    return true;
}

static const char *without_lead(const char *path) {
    while (*path == '/' || (*path == '.' && path[1] == '/'))
        path++;
    return path;
}

static long copy(const char *from, size_t length, char *bytes, size_t size) {
    size_t n = length < size ? length : size;
    memcpy(bytes, from, n);
    return (long)n;
}

long os_read_file(const char *path, char *bytes, size_t size) {
    static const char magic[] = "070701";
    if (archive_length < HEADER || memcmp(archive, magic, sizeof magic - 1))
        return text_equal(path, "/initrd") ? copy(archive, archive_length, bytes, size) : -NO_ENTRY;
    path = without_lead(path);
    for (size_t at = 0; archive_length - at >= HEADER && !memcmp(archive + at, magic, sizeof magic - 1);) {
        size_t mode, length, name_length;
        const char *header = archive + at, *name = header + HEADER;
        if (!number(header + MODE, &mode) || !number(header + SIZE, &length) || !number(header + NAME_SIZE, &name_length))
            break;
        size_t left = archive_length - at, data = (HEADER + name_length + 3) & ~(size_t)3;
        if (!name_length || data > left || length > left - data || name[name_length - 1])
            break;
        if (text_equal(without_lead(name), path)) {
            if ((mode & TYPE) == REGULAR)
                return copy(header + data, length, bytes, size);
            return (mode & TYPE) == DIRECTORY ? -IS_DIRECTORY : -NO_ENTRY;
        }
        size_t whole = (data + length + 3) & ~(size_t)3;
        if (whole > left)
            break;
        at += whole;
    }
    return -NO_ENTRY;
}
