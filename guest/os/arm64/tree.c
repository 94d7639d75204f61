/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The device tree, read in place. Nothing is believed about it but its header: every step stays inside the blob.
 */
#include "tree.h"

enum { MAGIC = 0xd00dfeed, BEGIN = 1, END = 2, PROPERTY = 3, NOTHING = 4, HEADER = 40 };

static uint32_t big(const char *at) {
    const unsigned char *b = (const unsigned char *)at;
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

/* The length of the text at `at`, or `end - at` when it does not end before. */
static size_t bounded(const char *at, const char *end) {
    size_t n = 0;
    while (at + n < end && at[n])
        n++;
    return n;
}

bool tree_open(const void *blob, struct tree *out) {
    const char *header = blob;
    if (!header || big(header) != MAGIC || big(header + 20) < 16 || big(header + 24) > 17)
        return false;
    uint64_t size = big(header + 4), structure = big(header + 8), strings = big(header + 12);
    uint64_t strings_size = big(header + 32), structure_size = big(header + 36);
    if (size < HEADER || structure + structure_size > size || strings + strings_size > size)
        return false;
    *out = (struct tree){header + structure, header + structure + structure_size, header + strings, header + strings + strings_size};
    return true;
}

/* A step through the structure: its token, what follows it in `at`, a property's name and value, or a node's name. */
struct step {
    uint32_t token;
    const char *at, *name;
    struct property value;
};

static bool advance(const struct tree *tree, const char *at, struct step *out) {
    if (tree->structure_end - at < 4)
        return false;
    out->token = big(at);
    at += 4;
    size_t length = 0;
    if (out->token == BEGIN) {
        out->name = at;
        length = bounded(at, tree->structure_end) + 1;
    } else if (out->token == PROPERTY) {
        if (tree->structure_end - at < 8)
            return false;
        length = big(at);
        uint32_t name = big(at + 4);
        at += 8;
        if (name >= (size_t)(tree->strings_end - tree->strings))
            return false;
        out->name = tree->strings + name;
        out->value = (struct property){at, (uint32_t)length};
    } else if (out->token != END && out->token != NOTHING) {
        return false;
    }
    if (length > (size_t)(tree->structure_end - at))
        return false;
    at += length;
    out->at = at + (-(uintptr_t)(at - tree->structure) & 3);
    return out->at <= tree->structure_end;
}

static bool named(const struct tree *tree, const char *name, const char *wanted) {
    size_t n = text_length(wanted);
    return n < (size_t)(tree->strings_end - name) && memcmp(name, wanted, n + 1) == 0;
}

bool tree_property(const struct tree *tree, const struct node *node, const char *name, struct property *out) {
    struct step step;
    for (const char *at = node->at; advance(tree, at, &step) && (step.token == PROPERTY || step.token == NOTHING); at = step.at) {
        if (step.token == PROPERTY && named(tree, step.name, name)) {
            *out = step.value;
            return true;
        }
    }
    return false;
}

static bool is_compatible(const struct tree *tree, const struct node *node, const char *wanted) {
    struct property list;
    size_t n = text_length(wanted);
    if (!tree_property(tree, node, "compatible", &list))
        return false;
    for (const char *word = list.bytes, *end = list.bytes + list.length; word < end; word += bounded(word, end) + 1)
        if (bounded(word, end) == n && memcmp(word, wanted, n) == 0)
            return true;
    return false;
}

bool tree_next(const struct tree *tree, const char *compatible, struct node *node) {
    struct step step;
    for (const char *at = node->at ? node->at : tree->structure; advance(tree, at, &step); at = step.at) {
        node->at = step.at;
        if (step.token == BEGIN && is_compatible(tree, node, compatible))
            return true;
    }
    return false;
}

bool tree_find(const struct tree *tree, const char *name, struct node *out) {
    struct step step;
    size_t n = text_length(name);
    for (const char *at = tree->structure; advance(tree, at, &step); at = step.at) {
        if (step.token == BEGIN && bounded(step.name, step.at) == n && memcmp(step.name, name, n) == 0) {
            out->at = step.at;
            return true;
        }
    }
    return false;
}

uint32_t property_cell(const struct property *property, uint32_t index) {
    return index < property->length / 4 ? big(property->bytes + 4 * index) : 0;
}

uint64_t tree_register(const struct tree *tree, const struct node *node, uint32_t index) {
    struct property reg;
    if (!tree_property(tree, node, "reg", &reg))
        return 0;
    return (uint64_t)property_cell(&reg, 2 * index) << 32 | property_cell(&reg, 2 * index + 1);
}
