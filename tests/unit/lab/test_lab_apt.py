# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine's package sources, read in both forms and said again for another release."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.lab_apt import Source, debian_archive, parse, render, settings

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

DEB822 = f"""\
# the archive
Types: deb deb-src
URIs: http://archive.example/debian
Suites: bookworm bookworm-updates
  bookworm-backports
Components: main contrib
Signed-By: {KEYRING}

Types: deb
URIs: http://archive.example/debian-security
Suites: bookworm-security
Components: main
Signed-By: {KEYRING}
"""

CLASSIC = f"""\
# comment
deb http://archive.example/debian bookworm main contrib # trailing words
deb [arch=amd64 signed-by={KEYRING}] http://archive.example/debian-security bookworm-security main
deb-src http://archive.example/debian bookworm main
"""

THIRD_PARTY = """\
deb [signed-by=/usr/share/keyrings/hashing.gpg] https://apt.hashing.example bookworm main
deb https://download.boxes.example/linux/debian bookworm stable
"""


def suites(sources: tuple[Source, ...]) -> list[str]:
    return [suite for source in sources for suite in source.suites]


def test_both_forms_of_the_same_archive_give_the_same_suites() -> None:
    new = debian_archive(parse({"debian.sources": DEB822}), "bookworm", "trixie")
    old = debian_archive(parse({"sources.list": CLASSIC}), "bookworm", "trixie")
    assert suites(new) == ["trixie", "trixie-updates", "trixie-security"]
    assert suites(old) == ["trixie", "trixie-security"]


def test_third_party_sources_are_not_taken_for_debian() -> None:
    kept = debian_archive(parse({"sources.list": CLASSIC, "third.list": THIRD_PARTY}), "bookworm", "bookworm")
    assert all("archive.example" in uri for source in kept for uri in source.uris)


def test_a_machine_without_debians_archive_is_told_so() -> None:
    with pytest.raises(UnifleetError, match="no source of Debian's archive"):
        debian_archive(parse({"third.list": THIRD_PARTY}), "bookworm", "trixie")


def test_a_security_archive_alone_is_not_enough() -> None:
    security = CLASSIC.splitlines()[2]
    with pytest.raises(UnifleetError):
        debian_archive(parse({"sources.list": security}), "bookworm", "bookworm")


def test_a_rolling_suite_has_no_pockets() -> None:
    assert suites(debian_archive(parse({"debian.sources": DEB822}), "bookworm", "sid")) == ["sid"]


def test_a_machine_that_says_stable_is_understood() -> None:
    text = "deb http://archive.example/debian stable main\ndeb http://archive.example/debian-security stable-security main\n"
    assert suites(debian_archive(parse({"sources.list": text}), "bookworm", "trixie")) == ["trixie", "trixie-security"]


@pytest.mark.parametrize("line", ["Enabled: no", "Enabled: false"])
def test_a_disabled_stanza_is_left_out(line: str) -> None:
    assert parse({"x.sources": DEB822.replace("Types: deb deb-src", f"Types: deb\n{line}")})[0].suites == ("bookworm-security",)


def test_a_stanza_without_uris_is_left_out() -> None:
    assert parse({"x.sources": "Types: deb\nSuites: bookworm\nComponents: main\n"}) == ()


def test_a_key_inside_the_stanza_survives_reading_and_writing() -> None:
    key = "\n-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQINBGPL\n-----END PGP PUBLIC KEY BLOCK-----"
    source = Source(("http://a.example/debian",), ("bookworm",), ("main",), key)
    assert parse({"x.sources": render([source])}) == (Source(source.uris, source.suites, source.components, key.strip()),)


words = st.lists(st.from_regex(r"[a-z][a-z0-9./-]{0,12}", fullmatch=True), min_size=1, max_size=3).map(tuple)


@given(st.lists(st.builds(Source, words, words, words, st.sampled_from(["", KEYRING]), st.booleans()), max_size=4))
def test_what_is_written_is_read_again(sources: list[Source]) -> None:
    assert parse({"x.sources": render(sources)}) == tuple(sources)


@given(st.text(max_size=300))
def test_no_text_breaks_the_reader(text: str) -> None:
    parse({"x.sources": text, "x.list": text})


def test_proxies_and_clock_settings_go_to_the_hosts_and_nothing_else() -> None:
    dump = 'APT::Architecture "amd64";\n'
    dump += 'Acquire::Check-Valid-Until "false";\nAcquire::http::Proxy "http://proxy.example:3128";\nAcquire::http::Proxy "";\n'
    assert settings(dump) == ('Acquire::Check-Valid-Until "false";', 'Acquire::http::Proxy "http://proxy.example:3128";')
