# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an ordinary worker's firewall must do for the packets of pods, kept whatever other programs do to it.

Containers' pods hang on a bridge of CNI's, so their packets are forwarded by the host. Docker, ufw and others set the policy of
iptables' FORWARD to DROP; then a chain of ours at its end accepts what is a pod's, after every rule of theirs. And the nftables table that
gives the host's address to what leaves the cluster, which `nft flush ruleset` takes away, is loaded again from its file.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from ansible_collections.unifleet.hybrid.plugins.host.machines.network_tools import iptables, iptables_restore, nft, nft_file
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

_LOG = logging.getLogger(__name__)
CHAIN = "UNIFLEET-PODS"
_JUMP = f"-A FORWARD -j {CHAIN}"


def accepting(cidr: str) -> list[str]:
    """The chain's rules as `iptables -S` shows them. cidr: of all pods anywhere."""
    return [f"-A {CHAIN} -s {cidr} -j ACCEPT", f"-A {CHAIN} -d {cidr} -j ACCEPT"]


def missing(rules: Sequence[str], cidr: str) -> str:
    """What iptables-restore --noflush has to be told, "" when nothing. rules: what `iptables -S` says of the table filter."""
    if "-P FORWARD ACCEPT" in rules:
        return ""  # what else there is forbids by name, and is somebody's will
    wanted, jump = accepting(cidr), [] if _JUMP in rules else [_JUMP]
    if not jump and [rule for rule in rules if rule.startswith(f"-A {CHAIN} ")] == wanted:
        return ""
    # A chain that is named is emptied first.
    return "\n".join(["*filter", f":{CHAIN} - [0:0]", *wanted, *jump, "COMMIT", ""])


class PodForwarding:
    """The rules of this host. cidr: of all pods. table, file: the nftables table of family ip that translates, and what loads it.

    Calls block.
    """

    def __init__(self, cidr: str, table: str = "", file: Path = Path()) -> None:
        self._cidr = cidr
        self._table = table
        self._file = file

    def apply(self) -> bool:
        """Have the rules; whether anything was missing. Raises UnifleetError."""
        text = missing(iptables("-S"), self._cidr)
        if text:
            iptables_restore(text)
            _LOG.info("iptables' FORWARD drops what no rule accepts: it accepts pods' packets now (chain %s)", CHAIN)
        return self._translate() or bool(text)

    def remove(self) -> bool:
        """Take the chain away; whether there was one. The table is its file's. Raises UnifleetError."""
        rules = iptables("-S")
        if f"-N {CHAIN}" not in rules:
            return False
        for _jump in range(rules.count(_JUMP)):
            iptables("-D", "FORWARD", "-j", CHAIN)
        iptables("-F", CHAIN)
        iptables("-X", CHAIN)
        return True

    def _translate(self) -> bool:
        if not self._table or not self._file.exists():
            return False
        try:
            nft([{"list": {"table": {"family": "ip", "name": self._table}}}])
        except UnifleetError as error:
            if "No such file or directory" not in error.message:
                raise
            nft_file(self._file)
            _LOG.info("loaded nftables' table %s, which was gone, from %s", self._table, self._file)
            return True
        return False
