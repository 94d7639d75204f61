/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The device tree as the machine hands it over (Devicetree Specification v0.4, chapter 5), read in place.
 */
#ifndef UNIFLEET_TREE_H
#define UNIFLEET_TREE_H

#include "../os.h"

struct tree {
    const char *structure, *structure_end, *strings, *strings_end;
};

/* A node: where its properties begin. Only what stands on its own level of the tree is a property of it. */
struct node {
    const char *at;
};

struct property {
    const char *bytes;
    uint32_t length;
};

/* False when there is no device tree of a version that is known. */
bool tree_open(const void *blob, struct tree *out);

/* The next node after `node` (from the first one when node->at is NULL) whose "compatible" list has this word; false: no more. */
bool tree_next(const struct tree *tree, const char *compatible, struct node *node);

/* The first node with this name. */
bool tree_find(const struct tree *tree, const char *name, struct node *out);

/* A property of a node; false when it has none of this name. */
bool tree_property(const struct tree *tree, const struct node *node, const char *name, struct property *out);

/* The index-th 32-bit cell of a property; 0 beyond its end. */
uint32_t property_cell(const struct property *property, uint32_t index);

/* The index-th address (or size: address, size, address, ...) of a node's "reg" in cells of two, which the root of QEMU's tree says; 0 beyond its end. */
uint64_t tree_register(const struct tree *tree, const struct node *node, uint32_t index);

#endif
