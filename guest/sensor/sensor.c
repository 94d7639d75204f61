/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * sensor: prints one reading of a sensor every period, and serves the latest one. The options are described in guest/README.md.
 */
#include "../net/http.h"
#include "../os/args.h"

enum { NAME_MOST = 128, TAGS_MOST = 1024, VALUE_MOST = 64, NANOSECONDS_LEAST = 10000000 };

struct options {
    const char *name, *source;
    char **tags;
    int tag_count;
    uint64_t period, count;
    int decimals;
    uint16_t port;
    bool port_given;
};

/* The latest reading, as it is printed and served. */
struct reading {
    const char *error; /* NULL: there is a value */
    struct decimal value;
    uint64_t seq, milliseconds;
};

static struct options options;
static struct reading latest;

static int refuse(const char *what, const char *word) {
    return args_refuse("sensor", what, word);
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
    if (text_equal(source, "stream"))
        return os_read_stream(NULL, 0) < 0 ? refuse("there is no stream: give the virtual machine a virtio-serial port", source) : 0;
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
    return refuse("--source must be file:/PATH, value:NUMBER, series:NUMBER,NUMBER,..., stream or simulated", source);
}

static int parse(int argc, char **argv, char **env, struct options *o) {
    enum { NAME, PERIOD, SOURCE, COUNT, DECIMALS, PORT, ARGS };
    struct arg args[ARGS] = {{"--sensor", "SENSOR_NAME", NULL},       {"--period", "SENSOR_PERIOD", NULL}, {"--source", "SENSOR_SOURCE", NULL},
                             {"--count", "SENSOR_COUNT", NULL},       {"--decimals", "SENSOR_DECIMALS", NULL},
                             {"--port", "SENSOR_PORT", NULL}};
    size_t tags = 0;
    uint64_t decimals = 0;
    int code = args_parse("sensor", args, ARGS, argc, argv, env, &o->tag_count);
    if (code)
        return code;
    o->name = args[NAME].value ? args[NAME].value : "sensor";
    o->source = args[SOURCE].value ? args[SOURCE].value : "simulated";
    o->tags = argv + 1;
    for (int i = 0; i < o->tag_count; i++)
        tags += text_length(o->tags[i]);
    if (!*o->name || text_length(o->name) > NAME_MOST)
        return refuse("--sensor must have 1 to 128 bytes", o->name);
    if (tags > TAGS_MOST || o->tag_count > TAGS_MOST)
        return refuse("the words that tag each reading are longer than 1024 bytes in all", NULL);
    o->period = 1000000000;
    if (!args_seconds(args[PERIOD].value, NANOSECONDS_LEAST, &o->period))
        return refuse("--period must be a number of seconds from 0.01 to 31622400", args[PERIOD].value);
    if (!args_number(args[COUNT].value, UINT64_MAX, &o->count) || (args[COUNT].value && !o->count))
        return refuse("--count must be a whole number above 0", args[COUNT].value);
    if (!args_number(args[DECIMALS].value, 9, &decimals))
        return refuse("--decimals must be a whole number from 0 to 9", args[DECIMALS].value);
    o->decimals = (int)decimals;
    o->port = net_is_own ? HTTP_PORT : 0;
    o->port_given = args[PORT].value;
    if (!args_port(args[PORT].value, &o->port))
        return refuse("--port must be a port from 1 to 65535, or none", args[PORT].value);
    return check_source(o->source);
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

/* What the n bytes say. They are untrusted: anything but one decimal number is an error sentence. */
static const char *read_number(const char *bytes, long n, struct decimal *out) {
    long start = 0;
    while (start < n && (bytes[start] == ' ' || bytes[start] == '\t'))
        start++;
    while (n > start && (bytes[n - 1] == '\n' || bytes[n - 1] == '\r' || bytes[n - 1] == ' ' || bytes[n - 1] == '\t'))
        n--;
    if (n == start)
        return "is empty";
    if (n >= VALUE_MOST || !decimal_parse(bytes + start, (size_t)(n - start), out))
        return "does not hold one decimal number";
    return NULL;
}

static const char *read_file(const char *path, struct decimal *out) {
    char bytes[VALUE_MOST];
    long n = os_read_file(path, bytes, sizeof bytes);
    return n < 0 ? error_text(n) : read_number(bytes, n, out);
}

/* The last whole line that the stream has brought; it holds until the next one. */
static const char *read_stream(struct decimal *out) {
    static char line[VALUE_MOST], last[VALUE_MOST];
    static long length, last_length = -1;
    char bytes[256];
    for (long n; (n = os_read_stream(bytes, sizeof bytes)) > 0;) {
        for (long i = 0; i < n; i++) {
            if (bytes[i] != '\n') {
                if (length < VALUE_MOST)
                    line[length++] = bytes[i];
                continue;
            }
            memcpy(last, line, (size_t)length);
            last_length = length;
            length = 0;
        }
    }
    return last_length < 0 ? "nothing to read" : read_number(last, last_length, out);
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

static void read_sensor(const struct options *o, uint64_t seq) {
    struct decimal d = {0};
    latest.error = NULL;
    if (text_starts(o->source, "file:"))
        latest.error = read_file(o->source + 5, &d);
    else if (text_equal(o->source, "stream"))
        latest.error = read_stream(&d);
    else if (text_starts(o->source, "value:"))
        decimal_parse(o->source + 6, text_length(o->source + 6), &d);
    else if (text_starts(o->source, "series:"))
        d = series_entry(o->source + 7, seq - 1);
    else
        d = simulate(o->name, seq);
    d.places += o->decimals;
    latest.value = d;
    latest.seq = seq;
    latest.milliseconds = os_now() / 1000000;
}

static const char *origin(const struct options *o) {
    return text_starts(o->source, "file:") ? o->source + 5 : o->source;
}

static void line_uptime(struct line *line) {
    line_number(line, latest.milliseconds / 1000, 1);
    line_char(line, '.');
    line_number(line, latest.milliseconds % 1000, 3);
}

static bool report(const struct options *o) {
    static char bytes[4 * (NAME_MOST + TAGS_MOST) + 8 * TAGS_MOST + 4 * 4096 + 1024];
    struct line line = {bytes, sizeof bytes - 1, 0};

    line_text(&line, "sensor=");
    line_value(&line, o->name);
    if (latest.error) {
        line_text(&line, " error=\"");
        line_text(&line, latest.error);
        line_text(&line, "\" file=");
        line_value(&line, origin(o));
    } else {
        line_text(&line, " value=");
        line_decimal(&line, latest.value);
    }
    line_text(&line, " seq=");
    line_number(&line, latest.seq, 1);
    line_text(&line, " uptime=");
    line_uptime(&line);
    for (int i = 0; i < o->tag_count; i++) {
        line_text(&line, " tag=");
        line_value(&line, o->tags[i]);
    }
    bytes[line.length++] = '\n';
    return os_write(bytes, line.length);
}

/* GET / answers the latest reading. What would not fit into an answer is left out whole: tags. */
static void serve(const struct http_request *request, struct http_answer *answer) {
    const struct options *o = &options;
    struct line *line = &answer->body;
    if (!text_equal(request->path, "/")) {
        answer->status = 404;
        line_text(line, "{\"error\":\"only / is served\"}\n");
        return;
    }
    line_text(line, "{\"sensor\":");
    line_json(line, o->name);
    if (latest.error) {
        line_text(line, ",\"error\":");
        line_json(line, latest.error);
    } else {
        line_text(line, ",\"value\":");
        line_decimal(line, latest.value);
    }
    line_text(line, ",\"seq\":");
    line_number(line, latest.seq, 1);
    line_text(line, ",\"uptime\":");
    line_uptime(line);
    line_text(line, ",\"tags\":[");
    for (int i = 0, first = 1; i < o->tag_count; i++) {
        if (line->length + 6 * text_length(o->tags[i]) + 16 > line->size)
            continue;
        line_text(line, first ? "" : ",");
        line_json(line, o->tags[i]);
        first = 0;
    }
    line_text(line, "]}\n");
}

/* Without --port a sensor serves where it can and says so where it ought to be able to; with it, it must. */
static int begin_serving(const struct options *o, char **env) {
    int code;
    if (!o->port)
        return 0;
    enum net_result result = net_start(env);
    if (result == NET_OK)
        result = http_serve(o->port, serve);
    const char *address = env_get(env, "UNIFLEET_ADDRESS");
    if (result == NET_OK || (result == NET_ABSENT && !o->port_given && !(address && *address)))
        return 0;
    code = args_without_network("sensor", "its readings cannot be served", net_result_text(result));
    return o->port_given ? code : 0;
}

int app_main(int argc, char **argv, char **env) {
    struct options *o = &options;
    int code = parse(argc, argv, env, o);
    if (!code)
        code = begin_serving(o, env);
    if (code)
        return code;
    uint64_t due = os_now();
    for (uint64_t seq = 1;; seq++) {
        read_sensor(o, seq);
        if (!report(o))
            return EXIT_OUTPUT;
        if (seq == o->count)
            return 0;
        due += o->period;
        if (due < os_now())
            due += (os_now() - due) / o->period * o->period;
        if (os_sleep_until(due))
            return 0;
    }
}
