/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The decoder of a guest's command line as a program of the host: for each line length and line on standard input, what the guest would see.
 *
 * Input: repeated "LENGTH\nBYTES". Output: for each, "error SENTENCE\0" or "ok\0" "ENV\0"... "\0" "ARG\0"... each list preceded by its count.
 */
#include <stdio.h>
#include <string.h>

#include "../os/os.h"

int main(void) {
    static char text[1 << 16];
    static struct words words;
    size_t length;

    while (scanf("%zu", &length) == 1) {
        char program[] = "unikernel";
        int count = 0;
        getchar();
        if (length >= sizeof text || fread(text, 1, length, stdin) != length)
            return 2;
        text[length] = 0;
        const char *wrong = words_parse(text, program, &words);
        if (wrong) {
            printf("error %s%c", wrong, 0);
        } else {
            while (words.env[count])
                count++;
            printf("ok%c%d%c", 0, count, 0);
            for (int i = 0; i < count; i++)
                printf("%s%c", words.env[i], 0);
            printf("%d%c", words.argc - 1, 0);
            for (int i = 1; i < words.argc; i++)
                printf("%s%c", words.argv[i], 0);
        }
        fflush(stdout);
    }
    return 0;
}
