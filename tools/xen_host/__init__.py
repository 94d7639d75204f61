# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real Xen host on a machine without any virtualisation: Debian's Xen in QEMU's emulator, which emulates AMD's SVM too."""
