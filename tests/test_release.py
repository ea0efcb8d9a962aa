"""What may be released: the program .ci/release.py, asked about a tag."""

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "release.py"

pytestmark = [
    pytest.mark.skipif(not SCRIPT.exists(), reason="in a checkout only"),
    pytest.mark.thread_unsafe(reason="the modules that it imports are the process's"),
]


@pytest.fixture
def release(monkeypatch, tmp_path):
    """The program, as a module, for a repository with two distributions that may both be released."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("ci_release", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules.pop("sdist")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    for folder, name, version in ((tmp_path, "ringcast", "1.2.0"), (tmp_path / "router", "ringcast-router", "0.3.1")):
        folder.mkdir(exist_ok=True)
        (folder / "pyproject.toml").write_text(f'[project]\nname = "{name}"\nversion = "{version}"\n')
        (folder / "CHANGELOG.md").write_text(f"# Changelog\n\n## {version} (2030-01-02)\n\n- New.\n")
        (folder / "README.md").write_text("[Docs](https://example.com/docs)\n")
    (tmp_path / "CITATION.cff").write_text("version: 1.2.0\n")
    return module


@pytest.mark.parametrize(("tag", "name"), [("v1.2.0", "ringcast 1.2.0"), ("router-v0.3.1", "ringcast-router 0.3.1")])
def test_each_distribution_is_released_by_a_tag_of_its_own(release, capsys, tag, name):
    release.check_tag(tag)
    assert capsys.readouterr().out == f"{tag}: {name} may be released\n"


@pytest.mark.parametrize("tag", ["v0.3.1", "v1.2", "v1.2.0rc1", "router-v1.2.0"])
def test_a_tag_of_another_version_is_refused(release, tag):
    with pytest.raises(SystemExit, match=f"{tag}: the version of ringcast"):
        release.check_tag(tag)


@pytest.mark.parametrize("tag", ["1.2.0", "V1.2.0", "release", "router-0.3.1"])
def test_a_tag_of_another_form_is_refused(release, tag):
    with pytest.raises(SystemExit, match=r"a tag is one of vX\.Y\.Z, router-vX\.Y\.Z"):
        release.check_tag(tag)


@pytest.mark.parametrize("heading", ["## 1.2.0 (unreleased)", "## 1.2.00 (2030-01-02)", "## 1.1.0 (2030-01-02)", ""])
def test_a_changelog_without_the_date_of_the_version_is_refused(release, tmp_path, heading):
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n{heading}\n")
    with pytest.raises(SystemExit, match=r"has no line '## 1\.2\.0 "):
        release.check_tag("v1.2.0")


@pytest.mark.parametrize("name", ["README.md", "pyproject.toml", "CITATION.cff"])
def test_an_address_that_is_nobodys_is_refused(release, tmp_path, name):
    with (tmp_path / name).open("a") as file:
        file.write("# https://example.org/ringcast\n")
    with pytest.raises(SystemExit, match=rf"{name}: example\.org stands where"):
        release.check_tag("v1.2.0")


def test_a_citation_of_another_version_is_refused(release, tmp_path):
    (tmp_path / "CITATION.cff").write_text("version: 1.1.0\n")
    with pytest.raises(SystemExit, match=r"CITATION\.cff has another version"):
        release.check_tag("v1.2.0")
    release.check_tag("router-v0.3.1")
