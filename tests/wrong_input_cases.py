"""The wrong inputs: what is typed, and what the answer has to say."""

from dataclasses import dataclass

SMOKE = ("run", "smoke", "--root", "store")
GSM8K = ("run", "gsm8k-smollm2", "--root", "store")


@dataclass(frozen=True)
class Wrong:
    """A wrong command.

    Args:
        arguments: of `advdistill`; `{url}` is a server that only fails, `{here}` the folder.
        words: what the line must hold: what it got, and what would mend it.
    """

    name: str
    arguments: tuple[str, ...]
    words: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()


def setting(name: str, override: str, *words: str) -> Wrong:
    return Wrong(name, (*SMOKE, "--set", override), words)


def settings(name: str, overrides: str, *words: str) -> Wrong:
    """Several overrides, separated by spaces."""
    chosen = (part for text in overrides.split() for part in ("--set", text))
    return Wrong(name, (*SMOKE, *chosen), words)


def recipe(name: str, *words: str) -> Wrong:
    return Wrong(f"recipe {name}", ("run", f"{name}.yaml", "--root", "store"), (name, *words))


def questions(path: str, *words: str, more: str = "") -> Wrong:
    chosen = (part for text in more.split() for part in ("--set", text))
    arguments = (*GSM8K, "--set", f"prompts.path={path}", *chosen)
    return Wrong(f"questions {path} {more}".strip(), arguments, words)


def teacher(model: str, *words: str) -> Wrong:
    return Wrong(f"model {model}", (*SMOKE, "--set", f"teacher.model={model}"), ("teacher.model", *words))


def endpoint(url: str, *words: str, more: str = "", **environment: str) -> Wrong:
    chosen = f"teacher.backend=openai teacher.model=qwen teacher.base_url={url} {more}".split()
    arguments = tuple(part for text in chosen for part in ("--set", text))
    return Wrong(f"endpoint {url} {more}", (*SMOKE, *arguments), words, tuple(environment.items()))


def command(name: str, arguments: str, *words: str, **environment: str) -> Wrong:
    return Wrong(
        f"{arguments.split()[0]}: {name}", tuple(arguments.split()), words, tuple(environment.items())
    )


CONFIGURATION = [
    setting("unknown field", "teacher.kk=3", "teacher.kk", "Did you mean k?"),
    setting("unknown field, nothing near", "storage.zzz=3", "storage.zzz", "root"),
    setting("unknown section", "teachr.k=3", "teachr", "Did you mean teacher?"),
    setting("unknown nested field", "rewards.policy.boxs=all", "rewards.policy.boxs", "Did you mean boxes?"),
    setting("below the bound", "teacher.k=-3", "teacher.k", "-3", "greater than or equal to 1"),
    setting("above the bound", "teacher.temperature=9", "teacher.temperature", "9", "5"),
    setting("open bound", "teacher.top_p=0", "teacher.top_p", "greater than 0"),
    setting("not finite", "teacher.temperature=nan", "teacher.temperature", "nan"),
    setting("a word for a number", "teacher.k=three", "teacher.k", "three", "integer"),
    setting("half a number", "teacher.k=2.5", "teacher.k", "2.5", "integer"),
    setting("a number for a list", "student.keep_layers=3", "student.keep_layers", "3", "list"),
    setting("null", "teacher.k=null", "teacher.k", "null"),
    setting("a word for yes or no", "storage.deep_verify=perhaps", "storage.deep_verify", "perhaps", "true"),
    setting("unknown choice", "teacher.backend=vlm", "teacher.backend", "vlm", "transformers"),
    setting("unknown choice, near", "weighting.scheme=softmx", "softmx", "softmax"),
    setting("no name", "name=a/b", "name", "a/b"),
    setting("no device", "teacher.device=gpu", "teacher.device", "gpu", "cuda"),
    setting("no variable", "teacher.api_key_env=sk-my-key!", "teacher.api_key_env", "nvironment variable"),
    setting("unknown task", "prompts.task=mth", "prompts.task", "mth", "Did you mean math?"),
    setting("no question in the template", "prompts.instruction=Solve", "prompts.instruction", "{question}"),
    setting("ignored with this source", "prompts.path=good.jsonl", "prompts.path", "source"),
    setting("source file with families", "prompts.source=file", "prompts.families", "source"),
    Wrong("source file without path", GSM8K, ("prompts.path", "source")),
    setting("ignored with this scheme", "weighting.beta=2", "weighting.beta", "exp_clip"),
    setting("ignored with this backend", "teacher.base_url=http://h/v1", "teacher.base_url", "openai"),
    setting("backend without address", "teacher.backend=openai", "teacher.base_url", "openai"),
    setting("negative weights", "weighting.scheme=linear", "weighting.scheme", "positive"),
    setting("LoRA alpha without LoRA", "student.lora_alpha=8", "student.lora_alpha", "lora_rank"),
    setting("FSDP of one", "student.sharding=fsdp", "student.sharding", "num_processes"),
    setting("layers out of order", "student.keep_layers=[1,0]", "student.keep_layers", "ascending"),
    settings(
        "layers that are not there",
        "student.model=./models/good student.keep_layers=[0,7]",
        *("student.keep_layers", "7", "0 to 1"),
    ),
    setting("wrong outranks right", "rewards.format=5", "rewards.correct", "outrank"),
    settings("penalty", "rewards.overlong=0.1 rewards.overlong_tokens=999", "overlong_tokens", "max_len"),
    setting("half a judge", "rewards.judge_url=http://h/v1", "rewards.judge", "judge_model"),
    setting("unknown family", "prompts.families=[{name: chain_sm}]", "chain_sm", "Did you mean chain_sum?"),
    setting("family's parameter", "prompts.families=[{params: {min_trms: 2}}]", "chain_sum", "min_trms"),
    setting("family's bound", "prompts.families=[{params: {min_terms: 9}}]", "chain_sum", "min_terms"),
    setting("tracker", "student.report_to=[neptune]", "student.report_to", "neptune", "tensorboard"),
    setting("no disk for it", "prompts.num_train=1000000000", "storage.root", "GB free", "--root"),
    settings("several wrong", "teacher.k=0 teacher.top_p=7", "teacher.k", "Wrong too: teacher.top_p."),
]

OVERRIDES = [
    Wrong("empty root", ("run", "smoke", "--set", "storage.root="), ("storage.root", "not empty")),
    setting("no equals sign", "teacher.k", "--set", "section.field=value"),
    setting("no name", "=3", "--set", "section.field=value"),
    setting("empty part", "teacher..k=3", "--set", "section.field=value"),
    setting("below a value", "teacher.k.x=3", "--set", "teacher.k"),
    setting("a section as a value", "teacher=5", "teacher", "5", "teacher.backend"),
    setting("torn list", "student.keep_layers=[1", "--set", "YAML"),
]

RECIPES = [
    Wrong("recipe misspelt", ("run", "quickstar"), ("quickstar", "Did you mean quickstart?")),
    Wrong("recipe unknown", ("run", "zzz"), ("zzz", "smoke")),
    recipe("missing", "a file that exists"),
    recipe("folder", "a file"),
    recipe("binary", "YAML"),
    recipe("utf16", "UTF-8"),
    recipe("syntax", "line 2", "YAML"),
    recipe("tabs", "line 2", "YAML"),
    recipe("list", "sections"),
    recipe("empty", "sections"),
    recipe("twice", "teacher", "once", "line 5"),
    recipe("twice_inside", "k", "once", "line 3"),
    recipe("object", "python/object"),
    Wrong("scalar section", ("run", "scalar_section.yaml"), ("teacher", "5", "settings")),
    Wrong("null section", ("run", "null_section.yaml"), ("teacher", "settings")),
    Wrong("list section", ("run", "list_section.yaml"), ("teacher", "settings")),
    Wrong("number as key", ("run", "number_key.yaml"), ("1", "a field")),
    Wrong("date as name", ("run", "date.yaml"), ("name", "2026", "quote")),
    Wrong("unknown section", ("run", "about.yaml"), ("teachr", "Did you mean teacher?")),
]

FILES = [
    questions("missing.jsonl", "missing.jsonl", "exists"),
    questions("dangling.jsonl", "dangling.jsonl", "exists"),
    questions("folder.jsonl", "folder.jsonl", "a file"),
    questions("questions.txt", "questions.txt", ".jsonl"),
    questions("empty.jsonl", "empty.jsonl", "question"),
    questions("header.csv", "header.csv", "question"),
    questions("column.jsonl", "column.jsonl row 1", "question", "prompts.question_column"),
    questions("column.parquet", "column.parquet row 1", "frage", "prompts.question_column"),
    questions("null.jsonl", "null.jsonl row 2", "reference answer"),
    questions("blank.jsonl", "blank.jsonl row 2", "question"),
    questions("list.jsonl", "list.jsonl row 2", "reference answer"),
    questions("numbers.jsonl", "numbers.jsonl row 1", "JSON object"),
    questions("array.jsonl", "array.jsonl row 1", "JSON object"),
    questions("torn.jsonl", "torn.jsonl row 3", "JSON object"),
    questions("deep.jsonl", "deep.jsonl row 1", "JSON object"),
    questions("binary.jsonl", "binary.jsonl row 1", "JSON object"),
    questions("latin.jsonl", "latin.jsonl row 1", "UTF-8"),
    questions("latin.csv", "latin.csv", "UTF-8"),
    questions("short.csv", "short.csv row 2", "answer"),
    questions("long.csv", "long.csv row 2", "3", "2"),
    questions("quote.csv", "quote.csv", "CSV"),
    questions("null.csv", "null.csv", "CSV"),
    questions("torn.parquet", "torn.parquet", "whole Parquet file"),
    questions("text.parquet", "text.parquet", "whole Parquet file"),
    questions("few.jsonl", "24 + 8", "at most 3"),
    questions("good.jsonl", "good.jsonl row 1", "column id", more="prompts.id_column=id"),
    questions("same_id.jsonl", "same_id.jsonl row 2", "once", more="prompts.id_column=id"),
    questions("choices.jsonl", "choices.jsonl row 1", "list", more="prompts.choices_column=options"),
    setting(
        "another set without questions",
        "evaluation.sets=[{source: file, path: few.jsonl, num_questions: 9}]",
        *("evaluation.sets.0.num_questions", "9", "at most 3"),
    ),
    setting(
        "another set that is missing",
        "evaluation.sets=[{source: file, path: gone.jsonl}]",
        *("evaluation.sets.0.path", "gone.jsonl", "exists"),
    ),
    setting(
        "another set without a column",
        "evaluation.sets=[{source: file, path: column.jsonl, num_questions: 1}]",
        *("column.jsonl row 1", "evaluation.sets.0.question_column"),
    ),
    Wrong(
        "dataset: no such folder",
        (*SMOKE, "--set", "prompts={source: datasets, dataset: ./nowhere}"),
        ("prompts.dataset", "./nowhere", "exists"),
    ),
    Wrong(
        "dataset: no such column",
        (*SMOKE, "--set", "prompts={source: datasets, dataset: ./dataset}"),
        ("./dataset train row 1", "question", "prompts.question_column"),
    ),
    Wrong(
        "dataset: no such split",
        (*SMOKE, "--set", "prompts={source: datasets, dataset: ./dataset, dataset_split: tset}"),
        ("prompts.dataset", "tset", "split"),
    ),
    Wrong(
        "dataset: the Hub is not reachable",
        (*SMOKE, "--set", "prompts={source: datasets, dataset: org/questions}"),
        ("prompts.dataset", "org/questions", "Hub", "network"),
    ),
]

MODELS = [
    teacher("nowhere/at/all", "nowhere/at/all", "exists"),
    teacher("./file_model", "file_model", "folder"),
    teacher("models/no_config/", "config.json"),
    teacher("./models/torn_config", "config.json", "JSON"),
    teacher("./models/no_weights", "model.safetensors"),
    teacher("./models/pickled", "safetensors", "safe_serialization"),
    teacher("./models/no_tokenizer", "tokenizer"),
    teacher("./models/torn_tokenizer", "tokenizer.json", "again"),
    teacher("./models/torn_weights", "model.safetensors", "again"),
    teacher("./models/empty_weights", "model.safetensors", "again"),
    teacher("./models/lfs_pointer", "model.safetensors", "again"),
    teacher("./models/encoder", "BertForMaskedLM", "causal language model"),
    teacher("./models/seq2seq", "T5ForConditionalGeneration", "causal language model"),
    teacher("./models/shards", "model-2.safetensors"),
    teacher("./models/torn_index", "model.safetensors.index.json"),
    teacher("smollm2-135m-instrct", "smollm2-135m-instrct", "Did you mean smollm2-135m-instruct?"),
    teacher("org/a b", "org/a b", "Hub name"),
    teacher("org/model", "org/model", "Hub", "network"),
    setting("student's model", "student.model=./models/no_weights", "student.model", "model.safetensors"),
    setting("no end", "student.model=./models/endless", "student.model", "eos_token"),
    setting("empty name", "student.model=", "student.model"),
]

ENDPOINTS = [
    endpoint("host:8000", "teacher.base_url", "http://host:8000/v1"),
    endpoint("http://", "teacher.base_url", "http://host:8000/v1"),
    endpoint("ftp://host/v1", "teacher.base_url", "http://host:8000/v1"),
    endpoint("http://h:port/v1", "teacher.base_url", "http://host:8000/v1"),
    endpoint("http://user:secret@host/v1", "teacher.base_url", "teacher.api_key_env"),
    endpoint("http://host/v1?key=secret", "teacher.base_url", "teacher.api_key_env"),
    endpoint("{url}", "teacher.api_key_env", "MY_KEY", "Set", more="teacher.api_key_env=MY_KEY"),
    endpoint("{url}", "teacher.api_key_env", "Set", more="teacher.api_key_env=MY_KEY", MY_KEY=""),
    endpoint("http://127.0.0.1:9/v1", "teacher.base_url", "127.0.0.1:9", "Start"),
    endpoint("http://no-such-host.invalid/v1", "teacher.base_url", "no-such-host.invalid"),
    endpoint("{url}/locked/v1", "401", "teacher.api_key_env"),
    endpoint("{url}/locked/v1", "401", "MY_KEY", more="teacher.api_key_env=MY_KEY", MY_KEY="sk-planted"),
    endpoint("{url}/page/v1", "teacher.base_url", "JSON"),
    endpoint("{url}/list/v1", "teacher.base_url", "JSON"),
    endpoint("{url}/moved/v1", "teacher.base_url", "301"),
    endpoint("{url}/nothing/v1", "teacher.base_url", "404"),
    endpoint("{url}/listing/v1", "teacher.model", "qwen", "Did you mean qwen2.5-7b?"),
]

COMMANDS = [
    command("unknown", "distil smoke", "distil", "run"),
    command("unknown option", "run smoke --rot store", "--rot", "--root"),
    command("no recipe", "run", "RECIPE", "advdistill run --help"),
    command("one argument too many", "run smoke quickstart", "quickstart"),
    command("option without value", "run smoke --root", "--root"),
    command("root is a file", "run smoke --root file_root", "storage.root", "file_root", "--root"),
    command("root below a file", "run smoke --root file_root/store", "storage.root", "--root"),
    command("root that cannot be made", "run smoke --root /proc/advdistill", "storage.root", "--root"),
    command("unknown file system", "run smoke --root s9://bucket/x", "storage.root", "s9"),
    command(
        "server away", "run smoke --root store", "PREFECT_API_URL", PREFECT_API_URL="http://127.0.0.1:9/api"
    ),
    command("dry run of a wrong recipe", "run smoke --dry-run --root store --set teacher.k=0", "teacher.k"),
    command(
        "unknown stage", "run smoke --from-stage tran --root store", "--from-stage", "Did you mean train?"
    ),
    command("unknown recipe", "estimate smke", "smke", "Did you mean smoke?"),
    command("too few", "estimate smoke --prompts 0", "--prompts", "0"),
    command("setting", "estimate smoke --set teacher.k=0", "teacher.k", "0"),
    command("model", "estimate smoke --set teacher.model=./models/no_weights", "teacher.model"),
    command("unknown recipe", "compare smke --root store", "smke", "Did you mean smoke?"),
    command("no recipe", "compare --root store", "recipe", "advdistill recipes"),
    command("unknown arm", "compare smoke --arms positiv --root store", "--arms", "positiv"),
    command("no seed", "compare smoke --seeds a --root store", "--seeds", "a"),
    command("root is a file", "status --root file_root", "--root", "file_root", "folder"),
    command("no such run", "report nothing --root empty_store", "nothing", "advdistill status"),
    command("no run at all", "report latest --root empty_store", "latest", "advdistill status"),
    command("root is a file", "report latest --root file_root", "--root", "folder"),
    command("bad record", "gc --root broken_store", "runs/x.json", "Remove"),
    command("no number", "gc --root empty_store --keep-days x", "--keep-days", "x", "number"),
    command("below the bound", "gc --root empty_store --keep-days -1", "--keep-days", "-1", "0"),
    command("root is missing", "gc --root nowhere", "--root", "nowhere", "folder"),
    command("root is a file", "gc --delete --root file_root", "--root", "folder"),
    command("bad pointer", "champions --root broken_store", "champion default", "default.json"),
    command("root is a file", "champions --root file_root", "--root", "folder"),
    command("no champion", "rollback --root empty_store", "champion", "default", "roll back"),
    command("no such champion", "rollback ../../x --root empty_store", "champion", "../../x"),
    command("no server", "deploy --root store", "PREFECT_API_URL", "advdistill up"),
    command("server away", "deploy --root store", "127.0.0.1:9", PREFECT_API_URL="http://127.0.0.1:9/api"),
    command("unknown choice", "deploy --overlap often", "--overlap", "often", "wait"),
    command("no GPU", "up --gpus 0", "--gpus", "0", "1"),
    command("missing", "verify nowhere.jsonl --out out.jsonl", "nowhere.jsonl"),
    command("no target", "verify answers.jsonl", "--out"),
    command("kind", "verify questions.txt --out out.jsonl", "questions.txt", ".jsonl"),
    command("kind of the target", "verify answers.jsonl --out out.txt", "out.txt", ".jsonl"),
    command("target's folder", "verify answers.jsonl --out nowhere/out.jsonl", "nowhere/out.jsonl"),
    command("task", "verify answers.jsonl --out out.jsonl --task mth", "task", "mth", "math"),
    command("column", "verify no_gold.jsonl --out out.jsonl", "no_gold.jsonl row 2", "gold"),
    command("gold", "verify gold_list.jsonl --out out.jsonl", "gold_list.jsonl row 1 gold", "number"),
    command("prediction", "verify no_text.jsonl --out out.jsonl", "row 1 prediction", "string"),
    command("choices", "verify bad_choices.jsonl --out out.jsonl", "row 1 choices", "list"),
    command("count of choices", "verify n_choices.jsonl --out out.jsonl", "row 1 n_choices", "26"),
    command("torn line", "verify torn_answers.jsonl --out out.jsonl", "torn_answers.jsonl row 2", "JSON"),
    command(
        "setting", "verify answers.jsonl --out out.jsonl --set rewards.timeout=9", "Did you mean timeout_s?"
    ),
    command("missing", "weigh nowhere.jsonl --out out.jsonl", "nowhere.jsonl"),
    command("column", "weigh no_reward.jsonl --out out.jsonl", "no_reward.jsonl row 1", "reward"),
    command("reward", "weigh text_reward.jsonl --out out.jsonl", "text_reward.jsonl row 2 reward", "number"),
    command("correct", "weigh maybe.jsonl --out out.jsonl", "maybe.jsonl row 1 correct", "true"),
    command("infinite", "weigh infinite.jsonl --out out.jsonl", "infinite.jsonl row 1 reward", "finite"),
    command("setting", "weigh rewards.jsonl --out out.jsonl --set weighting.tau=0", "weighting.tau", "0"),
]

ALL = [*CONFIGURATION, *OVERRIDES, *RECIPES, *FILES, *MODELS, *ENDPOINTS, *COMMANDS]

#: What an ordinary user without rights to it gets; run as root, so that needs another user.
FORBIDDEN = [
    questions("locked/good.jsonl", "prompts.path", "locked/good.jsonl", "Permission denied"),
    questions("sealed.jsonl", "prompts.path", "sealed.jsonl", "Permission denied"),
    Wrong("recipe", ("run", "sealed.yaml", "--root", "store"), ("sealed.yaml", "Permission denied")),
    Wrong("root", ("run", "smoke", "--root", "locked/store"), ("storage.root", "locked", "--root")),
    Wrong("root to read", ("status", "--root", "locked/store"), ("--root", "locked/store")),
    teacher("./sealed_model", "config.json", "Permission denied"),
    command("source", "verify sealed.jsonl --out out.jsonl", "sealed.jsonl", "Permission denied"),
    command("target", "verify answers.jsonl --out locked/out.jsonl", "locked/out.jsonl", "Permission denied"),
]
