/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * caller: calls an HTTP service again and again, prints each answer and serves the latest one. The options are described in guest/README.md.
 *
 * A call that fails is tried again after a while that doubles each time; when its tries are used up the program ends, and its exit code
 * says what failed, so that a Deployment's restarts and its lastState tell the story.
 */
#include "../net/http.h"
#include "../os/args.h"

enum { EXIT_NAME = 4, EXIT_CONNECT = 5, EXIT_TIMEOUT = 6, EXIT_BROKEN = 7, EXIT_STATUS = 8 };
enum { URL_MOST = 512, BODY_MOST = 4096, KEPT = 1025, MILLISECOND = 1000000 };
static const uint64_t backoff_most = 60000000000u;

static struct options {
    const char *text;
    struct http_url url;
    const char *method, *type, *body;
    uint64_t period, count, tries, timeout, backoff;
    uint16_t port;
    bool port_given;
} options;

static struct {
    struct http_call call;
    char bytes[KEPT];
    uint64_t began, number, attempt, failures;
    bool over;
} now;

/* The latest answer or failure, as it is served. */
static struct {
    int status;
    const char *error; /* NULL: there is an answer */
    char bytes[KEPT];
    size_t total;
    uint64_t number;
} latest;

static int refuse(const char *what, const char *word) {
    return args_refuse("caller", what, word);
}

static int parse(int argc, char **argv, char **env, struct options *o) {
    enum { URL, METHOD, BODY, TYPE, PERIOD, COUNT, TRIES, TIMEOUT, BACKOFF, PORT, ARGS };
    struct arg args[ARGS] = {{"--url", "CALLER_URL", NULL},         {"--method", "CALLER_METHOD", NULL}, {"--body", "CALLER_BODY", NULL},
                             {"--type", "CALLER_TYPE", NULL},       {"--period", "CALLER_PERIOD", NULL}, {"--count", "CALLER_COUNT", NULL},
                             {"--tries", "CALLER_TRIES", NULL},     {"--timeout", "CALLER_TIMEOUT", NULL},
                             {"--backoff", "CALLER_BACKOFF", NULL}, {"--port", "CALLER_PORT", NULL}};
    int words;
    int code = args_parse("caller", args, ARGS, argc, argv, env, &words);
    if (code)
        return code;
    if (words > 1)
        return refuse("takes one URL", argv[2]);
    o->text = words ? argv[1] : args[URL].value;
    if (!o->text)
        return refuse("which URL? (a word, --url or CALLER_URL)", NULL);
    if (text_length(o->text) > URL_MOST || !http_url_parse(o->text, &o->url))
        return refuse("the URL must be http://HOST[:PORT][/PATH], without spaces and of at most 512 bytes", o->text);
    o->body = args[BODY].value;
    o->method = args[METHOD].value ? args[METHOD].value : o->body ? "POST" : "GET";
    if (!text_equal(o->method, "GET") && !text_equal(o->method, "POST"))
        return refuse("--method must be GET or POST", o->method);
    if (o->body && text_equal(o->method, "GET"))
        return refuse("a GET has no --body", NULL);
    if (!o->body && text_equal(o->method, "POST"))
        o->body = "";
    if (o->body && text_length(o->body) > BODY_MOST)
        return refuse("--body must have at most 4096 bytes", o->body);
    o->type = args[TYPE].value ? args[TYPE].value : "application/json";
    for (const char *c = o->type; *c; c++)
        if ((unsigned char)*c < ' ' || (unsigned char)*c > '~' || c - o->type > 128)
            return refuse("--type must be a media type", o->type);
    o->period = 10000000000u;
    if (!args_seconds(args[PERIOD].value, 10 * MILLISECOND, &o->period))
        return refuse("--period must be a number of seconds from 0.01 to 31622400", args[PERIOD].value);
    if (!args_number(args[COUNT].value, UINT64_MAX, &o->count) || (args[COUNT].value && !o->count))
        return refuse("--count must be a whole number above 0", args[COUNT].value);
    o->tries = 5;
    if (!args_number(args[TRIES].value, UINT64_MAX, &o->tries))
        return refuse("--tries must be a whole number (0: without end)", args[TRIES].value);
    o->timeout = 5000000000u;
    if (!args_seconds(args[TIMEOUT].value, MILLISECOND, &o->timeout))
        return refuse("--timeout must be a number of seconds from 0.001 to 31622400", args[TIMEOUT].value);
    o->backoff = 500000000u;
    if (!args_seconds(args[BACKOFF].value, MILLISECOND, &o->backoff))
        return refuse("--backoff must be a number of seconds from 0.001 to 31622400", args[BACKOFF].value);
    o->port = net_is_own ? HTTP_PORT : 0;
    o->port_given = args[PORT].value;
    if (!args_port(args[PORT].value, &o->port))
        return refuse("--port must be a port from 1 to 65535, or none", args[PORT].value);
    return 0;
}

static void serve(const struct http_request *request, struct http_answer *answer) {
    struct line *line = &answer->body;
    if (!text_equal(request->path, "/")) {
        answer->status = 404;
        line_text(line, "{\"error\":\"only / is served\"}\n");
        return;
    }
    line_text(line, "{\"url\":");
    line_json(line, options.text);
    line_text(line, ",\"call\":");
    line_number(line, latest.number, 1);
    line_text(line, ",\"failures\":");
    line_number(line, now.failures, 1);
    if (!latest.number) {
        answer->status = 503;
    } else if (latest.error) {
        line_text(line, ",\"error\":");
        line_json(line, latest.error);
    }
    if (latest.status) {
        line_text(line, ",\"status\":");
        line_number(line, (uint64_t)latest.status, 1);
        line_text(line, ",\"bytes\":");
        line_number(line, latest.total, 1);
        line_text(line, ",\"body\":");
        line_json(line, latest.bytes);
    }
    line_text(line, "}\n");
}

/* What was wrong with the call that is over, and the exit code for it; 0 when nothing was. */
static int judge(const struct http_call *call, const char **error) {
    *error = net_result_text(call->result);
    if (call->result == NET_ABSENT || call->result == NET_SETTINGS)
        return EXIT_NETWORK;
    if (call->result == NET_TIMEOUT && call->stage != HTTP_NAME)
        return EXIT_TIMEOUT;
    if (call->result != NET_OK)
        return call->stage == HTTP_NAME ? EXIT_NAME : call->stage == HTTP_CONNECT ? EXIT_CONNECT : EXIT_BROKEN;
    *error = "the answer is not HTTP, or not whole";
    if (call->malformed)
        return EXIT_BROKEN;
    *error = "the service says that it failed";
    return call->status / 100 == 2 ? 0 : EXIT_STATUS;
}

/* Whether another try may help: the service being there and refusing this very request for good says no. */
static bool worth_another_try(int code, int status) {
    return code != EXIT_STATUS || status / 100 == 5 || status == 408 || status == 429;
}

static bool report(const struct http_call *call, const char *error, uint64_t wait) {
    static char bytes[4 * (URL_MOST + KEPT) + 512];
    struct line line = {bytes, sizeof bytes - 1, 0};
    uint64_t took = (os_now() - now.began) / MILLISECOND;
    line_text(&line, "call=");
    line_number(&line, now.number, 1);
    line_text(&line, " url=");
    line_value(&line, options.text);
    line_text(&line, " attempt=");
    line_number(&line, now.attempt, 1);
    if (error) {
        line_text(&line, " error=");
        line_value(&line, error);
    }
    if (call->result == NET_OK && call->status) {
        line_text(&line, " status=");
        line_number(&line, (uint64_t)call->status, 1);
        line_text(&line, " bytes=");
        line_number(&line, call->total, 1);
    }
    line_text(&line, " took=");
    line_number(&line, took / 1000, 1);
    line_char(&line, '.');
    line_number(&line, took % 1000, 3);
    if (wait) {
        line_text(&line, " retry=");
        line_number(&line, wait / 1000000000u, 1);
        line_char(&line, '.');
        line_number(&line, wait / MILLISECOND % 1000, 3);
    }
    if (call->result == NET_OK && call->status) {
        line_text(&line, " body=");
        line_value(&line, now.bytes);
    }
    bytes[line.length++] = '\n';
    return os_write(bytes, line.length);
}

static void call_is_over(struct http_call *call) {
    (void)call;
    now.over = true;
    os_wake();
}

/* One try; true when the platform wants the program to end. */
static bool try_once(void) {
    now.call = (struct http_call){.url = &options.url, .method = options.method, .type = options.type, .body = options.body,
                                  .timeout = options.timeout, .bytes = now.bytes, .size = sizeof now.bytes, .done = call_is_over};
    now.over = false;
    now.began = os_now();
    http_call(&now.call);
    while (!now.over)
        if (os_sleep_until(UINT64_MAX))
            return true;
    for (size_t i = 0; i < now.call.length; i++)
        if (!now.bytes[i])
            now.bytes[i] = '?';
    return false;
}

/* The wait after the attempt-th failure: doubled each time, less up to a quarter, so that many callers do not come back at once. */
static uint64_t wait_after(uint64_t attempt) {
    uint64_t wait = options.backoff;
    while (--attempt && wait < backoff_most)
        wait *= 2;
    wait = wait < backoff_most ? wait : backoff_most;
    return wait - os_random() % (wait / 4 + 1);
}

static bool sleep_until(uint64_t deadline) {
    while (os_now() < deadline)
        if (os_sleep_until(deadline))
            return true;
    return false;
}

/* Call until it succeeds. Returns -1 then, else the exit code. */
static int make_call(void) {
    for (now.attempt = 1;; now.attempt++) {
        const char *error;
        if (try_once())
            return 0;
        int code = judge(&now.call, &error);
        bool again = code && worth_another_try(code, now.call.status) && (!options.tries || now.attempt < options.tries);
        uint64_t wait = again ? wait_after(now.attempt) : 0;
        latest.number = now.number;
        latest.status = now.call.result == NET_OK ? now.call.status : 0;
        latest.error = code ? error : NULL;
        latest.total = now.call.total;
        memcpy(latest.bytes, now.bytes, sizeof latest.bytes);
        now.failures += code != 0;
        if (!report(&now.call, latest.error, wait))
            return EXIT_OUTPUT;
        if (!code)
            return -1;
        if (!again)
            return code;
        if (sleep_until(os_now() + wait))
            return 0;
    }
}

int app_main(int argc, char **argv, char **env) {
    int code = parse(argc, argv, env, &options);
    if (code)
        return code;
    enum net_result result = net_start(env);
    if (result == NET_OK && options.port)
        result = http_serve(options.port, serve);
    if (result != NET_OK)
        return args_without_network("caller", "it cannot work", net_result_text(result));
    uint64_t due = os_now();
    for (now.number = 1;; now.number++) {
        code = make_call();
        if (code >= 0)
            return code;
        if (now.number == options.count)
            return 0;
        due += options.period;
        if (due < os_now())
            due += (os_now() - due) / options.period * options.period;
        if (sleep_until(due))
            return 0;
    }
}
