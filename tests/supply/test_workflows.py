"""Workflows do what the Makefile can, on the Pythons of pyproject.toml, with few rights and no text of strangers."""

import itertools
import re
import shlex

import pytest
import yaml

from tests.supply.project import REPOSITORY, make_targets, makefiles, python_versions

FOLDER = REPOSITORY / ".github" / "workflows"
WORKFLOWS = {path.name: path for path in sorted(FOLDER.glob("*.yml"))}
PARTS = sorted((REPOSITORY / "experiments").glob("*.mk"))
MAKE_VARIABLES = re.compile(r"[A-Z]+=")
PINNED = re.compile(r"uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")
WRITING = {("release.yml", "attest"): {"id-token", "attestations"}, ("release.yml", "publish"): {"id-token"}}
"""Jobs that may write anything at all."""
STRANGERS = re.compile(r"\$\{\{[^}]*\b(github\.(event|head_ref|ref_name|actor)|inputs|steps|needs)\b")


def read(text):
    """A workflow, whose `on` is what YAML 1.1 takes for true."""
    content = yaml.safe_load(text)
    content["on"] = content.pop(True)
    return content


def combinations(job):
    """Every entry of a job's matrix."""
    matrix = dict(job.get("strategy", {}).get("matrix", {}))
    more = matrix.pop("include", [])
    plain = [dict(zip(matrix, values, strict=True)) for values in itertools.product(*matrix.values())] if matrix else []
    return [*plain, *more] or [{}]


def scripts(content):
    """(job, script) of every step that runs something, with the matrix filled in."""
    for name, job in content["jobs"].items():
        for entry, step in itertools.product(combinations(job), job["steps"]):
            if "run" in step:
                yield name, re.sub(r"\$\{\{ *matrix\.(\w+) *\}\}", lambda m, e=entry: str(e[m[1]]), step["run"])


def faults(name, text):
    """What a workflow may not do, a line each."""
    content, found = read(text), []
    if "pull_request_target" in content["on"] or "workflow_run" in content["on"]:
        found.append("runs strangers' code with our rights")
    if content.get("permissions") != {"contents": "read"}:
        found.append("does not begin with `contents: read`")
    found += [
        f"not pinned: {line.strip()}" for line in text.splitlines() if "uses:" in line and not PINNED.search(line)
    ]
    if "secrets." in text or "secrets: inherit" in text:
        found.append("reads secrets")
    for job, body in content["jobs"].items():
        rights = {right for right, level in body.get("permissions", {}).items() if level != "read"}
        if not rights <= WRITING.get((name, job), set()):
            found.append(f"{job}: may write {sorted(rights)}")
        if "timeout-minutes" not in body:
            found.append(f"{job}: has no time limit")
        for step in body["steps"]:
            if STRANGERS.search(step.get("run", "")):
                found.append(f"{job}: puts text of others into a script: {step['run']}")
            if step.get("uses", "").startswith("actions/checkout@") and step.get("with", {}).get(
                "persist-credentials", True
            ):
                found.append(f"{job}: leaves a token in the checkout")
    return found


def test_there_are_the_three():
    assert set(WORKFLOWS) == {"ci.yml", "weekly.yml", "release.yml"}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_has_few_rights_and_a_limit(name):
    assert faults(name, WORKFLOWS[name].read_text()) == []


PIN = "actions/checkout@11bd71901bbe5b1630ceea73d27597364c9af683 # v4.2.2"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  pull_request:\n", "  pull_request_target:\n", "strangers"),
        ("contents: read", "contents: write", "does not begin"),
        (PIN, "actions/checkout@v4", "not pinned"),
        (PIN, PIN.replace("# v4.2.2", ""), "not pinned"),
        ("timeout-minutes: 30", "name: x", "no time limit"),
        ("make check", "echo ${{ github.event.pull_request.title }}", "text of others"),
        ("make check", "echo ${{ github.head_ref }}", "text of others"),
        ("make check", "echo ${{ secrets.TOKEN }}", "secrets"),
        ("persist-credentials: false", "fetch-depth: 0", "token"),
        (
            "    timeout-minutes: 30\n",
            "    timeout-minutes: 30\n    permissions:\n      packages: write\n",
            "may write",
        ),
    ],
)
def test_a_fault_is_found(old, new, said):
    text = WORKFLOWS["ci.yml"].read_text()
    assert old in text
    assert any(said in line for line in faults("ci.yml", text.replace(old, new, 1)))


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_script_is_a_target_of_make(name):
    # parts that the Makefile has still to include are a failure of their own, below
    known, run = make_targets([REPOSITORY / "Makefile", *PARTS]), list(scripts(read(WORKFLOWS[name].read_text())))
    assert run
    for job, script in run:
        words = shlex.split(script)
        assert words[0] == "make", f"{job}: `{script}`"
        goals = [word for word in words[1:] if not MAKE_VARIABLES.match(word)]
        assert goals, f"{job}: `{script}`"
        assert set(goals) <= known, f"{job}: no target {sorted(set(goals) - known)}"


def test_the_pythons_are_those_of_the_classifiers():
    versions = python_versions()
    for name, job in (("ci.yml", "test"), ("weekly.yml", "newest")):
        matrix = read(WORKFLOWS[name].read_text())["jobs"][job]["strategy"]["matrix"]
        assert matrix["python"] == versions, name
    for path in WORKFLOWS.values():
        given = [
            step["with"]["python-version"]
            for job in read(path.read_text())["jobs"].values()
            for step in job["steps"]
            if "actions/setup-python@" in step.get("uses", "")
        ]
        assert given
        assert set(given) <= {"${{ matrix.python }}", versions[0]}, path.name


def test_pull_requests_run_what_the_project_calls_its_checks():
    content = read(WORKFLOWS["ci.yml"].read_text())
    assert {"push", "pull_request"} == set(content["on"])
    goals = {script.split()[1] for _, script in scripts(content)}
    assert {"check", "test", "test-minimum", "lock-check"} <= goals
    local = (REPOSITORY / ".ci" / "run").read_text()
    assert {"check", "test"} <= set(re.findall(r"^make (\S+)", local, re.M)) & goals


def test_weekly_runs_what_changes_without_us():
    content = read(WORKFLOWS["weekly.yml"].read_text())
    assert content["on"]["schedule"]
    goals = {script.split()[1] for _, script in scripts(content)}
    assert {"test-newest", "check-addresses", "audit", "test-slow", "test-faults-nightly", "fuzz"} <= goals


def test_publishing_waits_for_a_person_and_for_the_checks():
    jobs = read(WORKFLOWS["release.yml"].read_text())["jobs"]
    assert jobs["publish"]["environment"] == "release"
    assert {"build", "attest"} <= set(jobs["publish"]["needs"])
    checked = [script for job, script in scripts({"jobs": {"build": jobs["build"]}}) if "release-check" in script]
    assert checked == ['make release-check TAG="$GITHUB_REF_NAME"']


def test_every_part_of_the_makefile_is_included():
    assert set(PARTS) <= set(makefiles())


@pytest.mark.parametrize("path", sorted((REPOSITORY / ".github").rglob("*.yml")), ids=lambda path: path.name)
def test_the_other_files_can_be_read(path):
    content = yaml.safe_load(path.read_text())
    assert isinstance(content, dict)
    if path.parent.name == "ISSUE_TEMPLATE" and path.name != "config.yml":
        assert {"name", "description", "body"} <= set(content)
        ids = [part["id"] for part in content["body"]]
        assert len(ids) == len(set(ids))
    if path.name == "dependabot.yml":
        assert content["version"] == 2
        assert {each["package-ecosystem"] for each in content["updates"]} == {"github-actions", "pip"}
        assert all({"directory", "schedule"} <= set(each) for each in content["updates"])
