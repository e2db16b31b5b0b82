"""Licences of what is installed: the page says them, and none of them reaches us."""

from email.message import Message

import pytest

from tests.supply import licences
from tests.supply.project import read_lock
from tests.supply.test_lock import UNLOCKED


def about(**fields):
    message = Message()
    for name, value in fields.items():
        for each in value if isinstance(value, list) else [value]:
            message[name.replace("_", "-")] = each
    return message


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        (about(License_Expression="MIT OR GPL-3.0-only", License="x"), "MIT OR GPL-3.0-only"),
        (about(License="Apache 2.0"), "Apache-2.0"),
        (about(License="MIT License\n\nCopyright ...", Classifier=["License :: OSI Approved :: MIT License"]), "MIT"),
        (about(License="UNKNOWN", Classifier=["License :: OSI Approved :: ISC License (ISCL)"]), "ISC"),
        (
            about(
                Classifier=[
                    "License :: OSI Approved",
                    "License :: OSI Approved :: BSD License",
                    "License :: OSI Approved :: MIT License",
                ]
            ),
            "BSD AND MIT",
        ),
        (about(Classifier=["Topic :: Software Development"]), ""),
    ],
)
def test_what_metadata_say(metadata, said):
    assert licences.licence(metadata) == said


@pytest.mark.parametrize(
    "text",
    [
        "AGPL-3.0-only",
        "GPL-2.0-or-later",
        "GNU General Public License v3 (GPLv3)",
        "LGPLv2+",
        "LGPL-2.1",
        "MIT AND GPL-3.0-only",
        "GPLv3",
        "SSPL-1.0",
        "CC-BY-NC-4.0",
        "",
    ],
)
def test_a_licence_that_reaches_us_is_refused(text):
    assert licences.objection("aa", text)


@pytest.mark.parametrize(
    "text", ["MIT", "Apache-2.0", "MPL-2.0", "MIT OR GPL-3.0-only", "BSD-3-Clause AND Zlib", "NVIDIA proprietary"]
)
def test_other_licences_are_not(text):
    assert licences.objection("aa", text) is None


def test_a_reason_lets_a_package_stay(monkeypatch):
    monkeypatch.setitem(licences.PERMITTED_COPYLEFT, "aa", "a program of its own, started and not imported")
    assert licences.objection("aa", "GPL-3.0-only") is None
    assert licences.objection("bb", "GPL-3.0-only")


def test_no_pinned_package_has_a_refused_licence():
    found = licences.rows()
    assert len(found) > 100
    assert [
        said for name, text, _ in found if (said := licences.objection(licences.canonicalize_name(name), text))
    ] == []
    assert all(text for _, text, _ in found)


def test_exceptions_are_of_packages_that_are_pinned():
    assert {*licences.UNSTATED, *licences.PERMITTED_COPYLEFT} <= {pin.key for pin in read_lock()}


def test_users_come_before_extras():
    needed = licences.uses()
    assert needed["torch"] == needed["lightning"] == needed["numpy"] == "everyone"
    assert needed["pytest"] == "dev"
    assert needed["ipykernel"] == "notebooks"


@pytest.mark.skipif(UNLOCKED, reason="other versions than the lock's are installed on purpose")
def test_the_page_is_what_is_installed(monkeypatch, tmp_path):
    page, copy = licences.PAGE, tmp_path / "DEPENDENCIES.md"
    copy.write_text(page.read_text())
    monkeypatch.setattr(licences, "PAGE", copy)
    assert licences.main(["--write"]) == 0
    assert copy.read_text() == page.read_text(), "run `make licences`"
