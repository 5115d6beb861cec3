"""The files that the code host reads, held against its schemas: none of them can be tried before it is pushed."""

import pytest
import yaml
from check_jsonschema import main as check_jsonschema
from click.testing import CliRunner

from tools import versions
from tools.source import REPOSITORY

FILES = {
    "vendor.github-workflows": ".github/workflows/*.yml",
    "vendor.dependabot": ".github/dependabot.yml",
    "vendor.github-issue-forms": ".github/ISSUE_TEMPLATE/*_*.yml",
    "vendor.github-issue-config": ".github/ISSUE_TEMPLATE/config.yml",
    "vendor.compose-spec": "docker-compose.yml",
}


@pytest.mark.parametrize(("schema", "pattern"), FILES.items())
def test_files_for_other_programs_match_their_schemas(schema: str, pattern: str) -> None:
    paths = sorted(map(str, REPOSITORY.glob(pattern)))
    assert paths
    checked = CliRunner().invoke(check_jsonschema, ["--builtin-schema", schema, *paths])
    assert checked.exit_code == 0, checked.output


def test_the_workflow_runs_what_ci_runs_on_each_supported_python() -> None:
    workflow = yaml.safe_load((REPOSITORY / ".github/workflows/ci.yml").read_text())
    job = workflow["jobs"]["check"]
    assert tuple(job["strategy"]["matrix"]["python"]) == versions.SUPPORTED
    assert job["steps"][-1] == {"run": ".ci/run"}
