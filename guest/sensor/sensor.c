/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * sensor: prints one reading of a sensor every period. The options are described in guest/README.md.
 */
#include "../os/os.h"

enum { EXIT_USAGE = 2, NAME_MOST = 128, TAGS_MOST = 1024, VALUE_MOST = 64, NANOSECONDS_LEAST = 10000000 };

struct options {
    const char *name, *source;
    char **tags;
    int tag_count;
    uint64_t period, count;
    int decimals;
};

static int refuse(const char *what, const char *word) {
    static char bytes[1024];
    struct line line = {bytes, sizeof bytes - 1, 0};
    line_text(&line, "sensor: ");
    line_text(&line, what);
    if (word) {
        char shown[64];
        size_t n = 0;
        for (; word[n] && n < sizeof shown - 1; n++)
            shown[n] = word[n];
        shown[n] = 0;
        line_text(&line, ": ");
        line_value(&line, shown);
    }
    bytes[line.length++] = '\n';
    os_write(bytes, line.length);
    return EXIT_USAGE;
}

static bool whole_number(const char *text, uint64_t most, uint64_t *out) {
    struct decimal d;
    if (!decimal_parse(text, text_length(text), &d) || d.negative || d.places || d.digits > most)
        return false;
    *out = d.digits;
    return true;
}

/* The length of the series entry at s. */
static size_t entry_length(const char *s) {
    size_t n = 0;
    while (s[n] && s[n] != ',')
        n++;
    return n;
}

static int check_source(const char *source) {
    struct decimal d;
    if (text_equal(source, "simulated"))
        return 0;
    if (text_starts(source, "file:")) {
        if (!os_has_files())
            return refuse("a virtual machine without an initrd has no files to read a sensor from; use value:, series:, stream or simulated", source);
        return source[5] == '/' ? 0 : refuse("--source file: needs an absolute path", source);
    }
    if (text_starts(source, "value:"))
        return decimal_parse(source + 6, text_length(source + 6), &d) ? 0 : refuse("--source value: needs a decimal number", source);
    if (text_starts(source, "series:")) {
        for (const char *s = source + 7;; s++) {
            size_t n = entry_length(s);
            if (!decimal_parse(s, n, &d))
                return refuse("--source series: needs decimal numbers with commas between", source);
            s += n;
            if (!*s)
                return 0;
        }
    }
    return refuse("--source must be file:/PATH, value:NUMBER, series:NUMBER,NUMBER,... or simulated", source);
}

static int parse(int argc, char **argv, char **env, struct options *o) {
    const char *period = env_get(env, "SENSOR_PERIOD"), *count = env_get(env, "SENSOR_COUNT"), *decimals = env_get(env, "SENSOR_DECIMALS");
    size_t tags = 0;
    bool only_tags = false;
    int code;

    o->name = env_get(env, "SENSOR_NAME");
    o->source = env_get(env, "SENSOR_SOURCE");
    o->tags = argv + 1;
    for (int i = 1; i < argc; i++) {
        const char **option = NULL;
        char *word = argv[i];
        if (only_tags || word[0] != '-') {
            tags += text_length(word);
            o->tags[o->tag_count++] = word;
            continue;
        }
        if (text_equal(word, "--")) {
            only_tags = true;
            continue;
        }
        if (text_equal(word, "--sensor"))
            option = &o->name;
        else if (text_equal(word, "--period"))
            option = &period;
        else if (text_equal(word, "--source"))
            option = &o->source;
        else if (text_equal(word, "--count"))
            option = &count;
        else if (text_equal(word, "--decimals"))
            option = &decimals;
        if (!option)
            return refuse("unknown option (known: --sensor --period --source --count --decimals)", word);
        if (++i == argc)
            return refuse("an option lacks its value", word);
        *option = argv[i];
    }
    if (!o->name)
        o->name = "sensor";
    if (!o->source)
        o->source = "simulated";
    if (!*o->name || text_length(o->name) > NAME_MOST)
        return refuse("--sensor must have 1 to 128 bytes", o->name);
    if (tags > TAGS_MOST)
        return refuse("the words that tag each reading are longer than 1024 bytes in all", NULL);
    o->period = 1000000000;
    if (period) {
        struct decimal d;
        if (!decimal_parse(period, text_length(period), &d) || !decimal_nanoseconds(&d, &o->period) || o->period < NANOSECONDS_LEAST)
            return refuse("--period must be a number of seconds from 0.01 to 31622400", period);
    }
    if (count && !(whole_number(count, UINT64_MAX, &o->count) && o->count))
        return refuse("--count must be a whole number above 0", count);
    if (decimals) {
        uint64_t n;
        if (!whole_number(decimals, 9, &n))
            return refuse("--decimals must be a whole number from 0 to 9", decimals);
        o->decimals = (int)n;
    }
    code = check_source(o->source);
    return code;
}

/* A walk between 20.0 and 79.9 that differs by sensor name and is the same at every start. */
static struct decimal simulate(const char *name, uint64_t seq) {
    uint64_t x = 0xcbf29ce484222325u;
    for (; *name; name++)
        x = (x ^ (unsigned char)*name) * 0x100000001b3u;
    uint64_t step = (x >> 32) % 600 + seq * (3 + x % 5);
    uint64_t at = step % 1200;
    return (struct decimal){false, 200 + (at < 600 ? at : 1199 - at), 1};
}

static const char *error_text(long code) {
    switch (-code) {
    case 2:
        return "no such file";
    case 5:
        return "input/output error";
    case 11:
        return "nothing to read";
    case 13:
        return "permission denied";
    case 21:
        return "is a directory";
    default:
        return "cannot be read";
    }
}

/* One reading of the file at path. Its content is untrusted: anything but one decimal number is an error sentence. */
static const char *read_file(const char *path, struct decimal *out) {
    char bytes[VALUE_MOST];
    long n = os_read_file(path, bytes, sizeof bytes);
    if (n < 0)
        return error_text(n);
    long start = 0;
    while (start < n && (bytes[start] == ' ' || bytes[start] == '\t'))
        start++;
    while (n > start && (bytes[n - 1] == '\n' || bytes[n - 1] == '\r' || bytes[n - 1] == ' ' || bytes[n - 1] == '\t'))
        n--;
    if (n == start)
        return "is empty";
    if (n == (long)sizeof bytes || !decimal_parse(bytes + start, (size_t)(n - start), out))
        return "does not hold one decimal number";
    return NULL;
}

static struct decimal series_entry(const char *series, uint64_t index) {
    struct decimal d = {0};
    uint64_t entries = 1;
    for (const char *s = series; *s; s++)
        entries += *s == ',';
    for (index %= entries; index; index--)
        series += entry_length(series) + 1;
    decimal_parse(series, entry_length(series), &d);
    return d;
}

static bool report(const struct options *o, uint64_t seq) {
    static char bytes[4 * (NAME_MOST + TAGS_MOST) + 4 * 4096 + 8192];
    struct line line = {bytes, sizeof bytes - 1, 0};
    struct decimal d = {0};
    const char *error = NULL;

    if (text_starts(o->source, "file:"))
        error = read_file(o->source + 5, &d);
    else if (text_starts(o->source, "value:"))
        decimal_parse(o->source + 6, text_length(o->source + 6), &d);
    else if (text_starts(o->source, "series:"))
        d = series_entry(o->source + 7, seq - 1);
    else
        d = simulate(o->name, seq);

    line_text(&line, "sensor=");
    line_value(&line, o->name);
    if (error) {
        line_text(&line, " error=\"");
        line_text(&line, error);
        line_text(&line, "\" file=");
        line_value(&line, o->source + 5);
    } else {
        d.places += o->decimals;
        line_text(&line, " value=");
        line_decimal(&line, d);
    }
    line_text(&line, " seq=");
    line_number(&line, seq, 1);
    uint64_t milliseconds = os_now() / 1000000;
    line_text(&line, " uptime=");
    line_number(&line, milliseconds / 1000, 1);
    line_char(&line, '.');
    line_number(&line, milliseconds % 1000, 3);
    for (int i = 0; i < o->tag_count; i++) {
        line_text(&line, " tag=");
        line_value(&line, o->tags[i]);
    }
    bytes[line.length++] = '\n';
    return os_write(bytes, line.length);
}

int app_main(int argc, char **argv, char **env) {
    struct options o = {0};
    int code = parse(argc, argv, env, &o);
    if (code)
        return code;
    uint64_t due = os_now();
    for (uint64_t seq = 1;; seq++) {
        if (!report(&o, seq))
            return 1;
        if (seq == o.count)
            return 0;
        due += o.period;
        if (due < os_now())
            due += (os_now() - due) / o.period * o.period;
        if (os_sleep_until(due))
            return 0;
    }
}
