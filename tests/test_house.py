"""Keeps the house: floors, exports, messages, documents and names, each rule with a canary that must break it.

The rules read the syntax tree or the text of tracked files; what they forbid is therefore forbidden in code that no
test runs as well.
"""

from __future__ import annotations

import ast
import functools
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

FLOORS: dict[str, set[str]] = {
    "manifests": set(),
    "render": {"manifests"},
    "train": {"manifests"},
    "eval": {"manifests"},
    "animate": {"manifests", "train"},
    "pipelines": {"manifests", "render"},
    "mvv": {"manifests", "render", "train", "eval", "animate", "pipelines"},
}
"""Room -> rooms that it may import. Nothing may import tests, benchmarks or scripts."""
OUTSIDE = {"tests", "benchmarks", "scripts", "notebooks"}
NETWORKS = {"torch", "torchvision", "open_clip", "timm", "lpips", "cv2", "av"}
TRAINING = {"torch", "diffusers", "transformers", "accelerate"}
SCENES = {"gsplat", "embreex", "pxr"}
HEAVY = {"bpy", "bmesh", "mathutils", "ray"} | NETWORKS | TRAINING | SCENES
OPENED_BY = {"render/scene.py": {"bpy", "mathutils"}}
LIGHT = {
    "train.config", "train.data.order", "train.data.draws", "train.data.ranges", "train.cameras",
    "animate.config", "animate.subject.mesh", "animate.subject.surface", "animate.subject.raycast",
    "animate.export.glb", "animate.export.usd", "animate.export.frames", "animate.export.truth",
}  # fmt: skip
"""Modules of `train` and `animate` that the command line and readers without torch use."""
"""Modules that are themselves only imported in the process that needs the heavy package."""
TEXT = {".py", ".md", ".toml", ".json", ".html", ".css", ".js", ".yml", ".yaml", ".cfg", ".txt", ".sh", "", ".run"}


# -- what there is to look at ------------------------------------------------------------------------------------------


@functools.cache
def tracked() -> tuple[Path, ...]:
    """Files that belong to the project: git's list with what is new and not ignored, or without git the whole tree."""
    if (ROOT / ".git").exists() and shutil.which("git"):
        command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode == 0:
            names = [name for name in done.stdout.decode().split("\0") if name]
            return tuple(sorted(path for name in names if (path := ROOT / name).is_file()))
    skipped = {".venv", ".git", "out", "build", "dist", "__pycache__", ".pytest_cache", ".ruff_cache"}
    found = (path for path in ROOT.rglob("*") if path.is_file())
    return tuple(
        sorted(
            path
            for path in found
            if not skipped & set(path.relative_to(ROOT).parts) and ".egg-info" not in str(path.relative_to(ROOT))
        )
    )


def rooms() -> list[str]:
    return [room for room in FLOORS if (ROOT / room).is_dir()]


def modules(*names: str) -> dict[str, ast.Module]:
    """Path relative to the root -> syntax tree, of the Python files in these rooms (all rooms by default)."""
    wanted = names or tuple(rooms())
    paths = [path.relative_to(ROOT) for path in tracked() if path.suffix == ".py"]
    return {str(path): parsed(str(path)) for path in paths if path.parts[0] in wanted}


@functools.cache
def parsed(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text("utf-8"), path)


def read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


# -- floors ------------------------------------------------------------------------------------------------------------


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted module) of every import, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.lineno, node.module or ""


def upward(path: str, tree: ast.AST) -> list[str]:
    """Imports of a module that its room may not make."""
    room = path.split("/")[0]
    above = (set(FLOORS) | OUTSIDE) - FLOORS[room] - {room}
    return [f"{path}:{line}: {room} imports {name}" for line, name in imported(tree) if name.split(".")[0] in above]


def test_rooms_import_downward_only():
    """Against the floors of the design."""
    assert [found for path, tree in modules().items() for found in upward(path, tree)] == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("manifests/x.py", "from render.scene import Scene"),
        ("render/x.py", "def f():\n    import pipelines.plan"),
        ("pipelines/x.py", "from mvv.cli import main"),
        ("mvv/x.py", "from tests.broken import Case"),
    ],
)
def test_rooms_import_downward_only_canary(path, source):
    """An import upward is seen, inside a function too."""
    assert upward(path, ast.parse(source))


def test_packages_are_the_rooms():
    """The wheel holds every package of the rooms and nothing else; a forgotten one would only be missed by users."""
    listed = tomllib.loads(read("pyproject.toml"))["tool"]["setuptools"]["packages"]
    there = {".".join(Path(path).parent.parts) for path in modules() if path.endswith("__init__.py")}
    assert set(listed) == there
    assert {Path(path).parent for path in modules()} == {Path(*package.split(".")) for package in there}


def at_top(tree: ast.Module) -> Iterator[ast.stmt]:
    """Statements that run when the module is imported: not those of functions, nor those for type checkers."""
    waiting: list[ast.stmt] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
            continue
        yield node
        waiting += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
        waiting += [child for handler in getattr(node, "handlers", ()) for child in handler.body]


def heavy(path: str, tree: ast.Module) -> list[str]:
    """Heavy packages that come with importing a module."""
    tops = ast.Module([node for node in at_top(tree) if isinstance(node, ast.Import | ast.ImportFrom)], [])
    found = [(line, name.split(".")[0]) for line, name in imported(tops)]
    opened = OPENED_BY.get(path, set()) | (NETWORKS if path.startswith("eval/extractors/") else set())
    if path.startswith(("train/", "animate/")) and path.removesuffix(".py").replace("/", ".") not in LIGHT:
        opened |= TRAINING | {"torchvision"}
    return [f"{path}:{line}: {name}" for line, name in found if name in HEAVY - opened]


def test_heavy_packages_are_imported_where_they_are_needed():
    """A training node needs no Blender, a render node no torch."""
    assert [found for path, tree in modules().items() for found in heavy(path, tree)] == []


@pytest.mark.parametrize("source", ["import bpy", "try:\n    from ray.util import x\nexcept ImportError:\n    pass"])
def test_heavy_packages_are_imported_where_they_are_needed_canary(source):
    """An import at the top is seen, one in a function or for a type checker is no finding."""
    assert heavy("manifests/x.py", ast.parse(source))
    inside = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\ndef f():\n    import ray"
    assert not heavy("manifests/x.py", ast.parse(inside))


_IMPORT_ALL = """
import importlib, pkgutil, sys
for name in sys.argv[1].split(","):
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        if not module.name.startswith("eval.extractors."):  # what opens the networks
            importlib.import_module(module.name)
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def imported_with(names: str, extra: str = "") -> set[str]:
    command = [sys.executable, "-c", extra + _IMPORT_ALL, names]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_importing_every_module_loads_nothing_heavy():
    """Against sys.modules of a fresh interpreter: also what comes in through other packages."""
    assert imported_with("manifests,pipelines,eval,mvv") & HEAVY == set()


def test_light_modules_load_nothing_heavy():
    """Against sys.modules of a fresh interpreter: `mvv train --help` needs no torch."""
    source = f"import sys\n{''.join(f'import {name}' + chr(10) for name in sorted(LIGHT))}"
    source += "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, cwd=ROOT, check=True)
    assert set(done.stdout.split()) & HEAVY == set()


def test_importing_every_module_loads_nothing_heavy_canary():
    """A heavy package that is loaded shows."""
    assert imported_with("manifests", "import sys, types; sys.modules['ray'] = types.ModuleType('ray')\n") & HEAVY


# -- errors ------------------------------------------------------------------------------------------------------------

_PLACEHOLDER = re.compile(r"\{[A-Za-z_][\w.\[\]'\"()]*(?:![rsa])?(?::[^{}]*)?\}")
_PERCENT = re.compile(r"%(?:\(\w+\))?[-+ #0]*\d*(?:\.\d+)?[sdrfgxi]")
_RAISERS = re.compile(r"(Error|Exception|Warning|Rejected|Failed|Interrupt)$|^(warn|_print|_check|fail|skip)$")


def unformatted(path: str, source: str) -> list[str]:
    """Messages with a placeholder that nothing fills."""
    found = []
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call):
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        if not _RAISERS.search(name):
            continue
        for argument in [*call.args, *(keyword.value for keyword in call.keywords)]:
            if any(_PLACEHOLDER.search(text) for text in _plain(argument, source)):
                found.append(f"{path}:{call.lineno}: a placeholder stays as it is in {name}")
        first = call.args[0] if call.args else None
        text = first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""
        if len(call.args) > 1 and _PERCENT.search(text):
            found.append(f"{path}:{call.lineno}: printf arguments are not filled in by {name}")
    return found


def _plain(node: ast.AST, source: str) -> Iterator[str]:
    """Text of a message that is taken as it stands: plain strings, and plain pieces beside f-strings."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        # `{{x}}` is meant to stay; `"a {x}" f"{y}"` is not, and looks the same in the tree.
        if "{{" not in (ast.get_source_segment(source, node) or ""):
            yield from (part.value for part in node.values if isinstance(part, ast.Constant))
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("format", "sub"):
        return
    elif not isinstance(node, ast.Call):
        for child in ast.iter_child_nodes(node):
            yield from _plain(child, source)


def test_messages_are_formatted():
    """No plain string with a placeholder, and no printf arguments, go to an exception or a warning."""
    assert [found for path in modules() for found in unformatted(path, read(path))] == []


@pytest.mark.parametrize(
    "source",
    [
        'raise ValueError("found {count}, expected 1")',
        'raise InputError("found {a.shape} " f"expected {b}")',
        'raise Failed("crash", "import", "took {seconds:.1f} s")',
        'raise TypeError("found %s", kind)',
        'warnings.warn("no {name!r}")',
    ],
)
def test_messages_are_formatted_canary(source):
    """Each kind of unfilled message is seen; formatted ones are not."""
    assert unformatted("x.py", source)
    assert not unformatted("x.py", 'raise InputError(f"found {count} of {{name}}, expected {asset_id}")')
    assert not unformatted("x.py", 'raise InputError("found {count}".format(count=1))')


def silent(path: str, tree: ast.AST) -> list[str]:
    """Handlers that catch everything without naming it, and exceptions that say nothing."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            if node.type is None:
                found.append(f"{path}:{node.lineno}: bare except")
            raised = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
            if node.type is not None and ast.unparse(node.type) == "BaseException" and not raised:
                found.append(f"{path}:{node.lineno}: BaseException is swallowed")
        elif isinstance(node, ast.Raise) and node.exc is not None:
            text = ast.unparse(node.exc)
            if re.fullmatch(r"[A-Z]\w*(Error|Exception)(\(\))?", text) and "NotImplemented" not in text:
                found.append(f"{path}:{node.lineno}: {text} says nothing")
    return found


def test_errors_are_named_and_say_something():
    """No bare except, no swallowed BaseException, no exception without a message."""
    assert [found for path, tree in modules().items() for found in silent(path, tree)] == []


@pytest.mark.parametrize(
    "source",
    [
        "try:\n    f()\nexcept:\n    pass",
        "try:\n    f()\nexcept BaseException:\n    pass",
        "raise ValueError",
        "raise DatasetError()",
    ],
)
def test_errors_are_named_and_say_something_canary(source):
    """Each kind is seen."""
    assert silent("x.py", ast.parse(source))


# -- configs, exports, docstrings --------------------------------------------------------------------------------------

_CONFIG = re.compile(r"(Config|Limits|Options|Isolation|Arguments)$")


def is_dataclass(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef) and any("dataclass" in ast.unparse(d) for d in node.decorator_list)


def unexplained(path: str, tree: ast.AST) -> list[str]:
    """Fields of config dataclasses without a sentence under them; a group is explained by its own docstring."""
    found = []
    for kind in ast.walk(tree):
        if not (is_dataclass(kind) and _CONFIG.search(kind.name)):
            continue
        for node, after in zip(kind.body, [*kind.body[1:], None], strict=True):
            if not isinstance(node, ast.AnnAssign) or _CONFIG.search(re.sub(r"\W+", " ", _kinds(node)).strip()):
                continue
            sentence = getattr(after.value, "value", "") if isinstance(after, ast.Expr) else ""
            if not isinstance(sentence, str) or not sentence.endswith("."):
                found.append(f"{path}:{node.lineno}: {kind.name}.{ast.unparse(node.target)} has no sentence")
    return found


def _kinds(node: ast.AnnAssign) -> str:
    annotation = node.annotation
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Annotated":
        annotation = annotation.slice.elts[0] if isinstance(annotation.slice, ast.Tuple) else annotation.slice
    return ast.unparse(annotation)


def config_classes() -> set[str]:
    trees = modules().values()
    return {n.name for tree in trees for n in ast.walk(tree) if is_dataclass(n) and _CONFIG.search(n.name)}


def test_config_fields_have_a_sentence():
    """The help of the command line and the documents are made of them."""
    assert {"CameraConfig", "MotionConfig", "RenderConfig", "PackConfig", "Limits", "Isolation"} <= config_classes()
    assert [found for path, tree in modules().items() for found in unexplained(path, tree)] == []


@pytest.mark.parametrize("body", ["a: int = 0", 'a: int = 0\n    """No full stop"""', "a: float = 1.0\n    b = 2"])
def test_config_fields_have_a_sentence_canary(body):
    """A field without a sentence is seen, a group of fields is not one."""
    head = '@dataclass(frozen=True)\nclass XConfig:\n    """X."""\n    '
    assert unexplained("x.py", ast.parse(head + body))
    assert not unexplained("x.py", ast.parse(head + "camera: CameraConfig = field()"))


def exports(tree: ast.Module) -> list[str] | None:
    """What `__all__` says, None where there is none."""
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            return ast.literal_eval(node.value)
    return None


def bound(tree: ast.Module) -> set[str]:
    """Names that a module has after its import."""
    names = set()
    for node in at_top(tree):
        if isinstance(node, ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(name.asname or name.name).split(".")[0] for name in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.For):
            names |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return names | {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def wrong_exports(path: str, tree: ast.Module) -> list[str]:
    """What is wrong with `__all__`: absent, untrue, or a public function or class left out."""
    said = exports(tree)
    defined = [n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
    public = {name for name in defined if not name.startswith("_")}
    if said is None:
        return [f"{path}: no __all__"] if public else []
    # A package's list is its choice among its modules' names; a program's functions are there to be called by name.
    lacking = set() if path.endswith("__init__.py") or said == ["main"] else public - set(said)
    return [f"{path}: __all__ names {name}, which is not there" for name in set(said) - bound(tree)] + [
        f"{path}: {name} is public and not in __all__; add it or begin it with an underscore" for name in lacking
    ]


def borrowed(path: str, tree: ast.Module, known: dict[str, ast.Module]) -> list[str]:
    """Names that a module takes from another one of ours without that one offering them."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or node.module is None:
            continue
        base = [*Path(path).parent.parts][: -(node.level - 1) or None] if node.level else []
        stem = "/".join([*base, *node.module.split(".")])
        source = next((name for name in (f"{stem}.py", f"{stem}/__init__.py") if name in known), None)
        if source is None:
            continue
        offered = {*(exports(known[source]) or []), "*"}
        for name in (alias.name for alias in node.names):
            is_module = f"{stem}/{name}.py" in known or f"{stem}/{name}/__init__.py" in known
            if name not in offered and not is_module and not name.startswith("__"):
                found.append(f"{path}:{node.lineno}: takes {name} from {source}, whose __all__ does not offer it")
    return found


def test_exports_are_complete_and_true():
    """`__all__` against what is defined, and against what other modules take."""
    known = modules()
    assert [found for path, tree in known.items() for found in wrong_exports(path, tree)] == []
    assert [found for path, tree in known.items() for found in borrowed(path, tree, known)] == []


@pytest.mark.parametrize(
    "source", ["def f(): pass", "__all__ = []\nclass A: pass", "__all__ = ['f', 'g']\ndef f(): pass"]
)
def test_exports_are_complete_and_true_canary(source):
    """A missing list, a forgotten name, a name that is not there; and a name taken that is not offered."""
    assert wrong_exports("manifests/x.py", ast.parse(source))
    known = {"manifests/x.py": ast.parse("__all__ = ['f']\ndef f(): pass\ndef _g(): pass")}
    assert borrowed("mvv/y.py", ast.parse("from manifests.x import _g"), known)
    assert borrowed("manifests/y.py", ast.parse("from .x import _g"), known)
    assert not borrowed("mvv/y.py", ast.parse("from manifests.x import f"), known)


def undocumented(path: str, tree: ast.Module) -> list[str]:
    """The module, and its public functions and classes, without a docstring that begins as a sentence."""
    found = [] if _told(tree) or not tree.body else [f"{path}: no module docstring"]
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            # Where the body is one `return`, a docstring could only repeat it.
            body = [] if isinstance(node, ast.ClassDef) else node.body
            if not _told(node) and not (len(body) == 1 and isinstance(body[0], ast.Return)):
                found.append(f"{path}:{node.lineno}: {node.name} has no docstring")
    return found


def _told(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    first = (ast.get_docstring(node) or "").split("\n\n")[0].strip()
    return len(first) > 8 and first[-1] in ".;:)?"


def test_public_names_have_docstrings():
    """Modules, functions and classes that others may use."""
    assert [found for path, tree in modules().items() for found in undocumented(path, tree)] == []


@pytest.mark.parametrize(
    "source", ["x = 1", '"""A module."""\ndef f():\n    g()\n    return 1', '"""A module."""\nclass A:\n    x = 1']
)
def test_public_names_have_docstrings_canary(source):
    """Each kind of silence is seen."""
    assert undocumented("x.py", ast.parse(source))


# -- names and texts ---------------------------------------------------------------------------------------------------

FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}


def vague(path: Path) -> bool:
    return bool(FORBIDDEN_NAMES & {part.split(".")[0].lower() for part in path.parts})


def test_files_are_named_after_what_they_hold():
    """No utils, helpers, common or misc."""
    assert [str(path.relative_to(ROOT)) for path in tracked() if vague(path.relative_to(ROOT))] == []


def test_files_are_named_after_what_they_hold_canary():
    """A module and a folder are seen."""
    assert vague(Path("render/utils.py"))
    assert vague(Path("pipelines/common/x.py"))
    assert not vague(Path("render/scene.py"))


_TOLD = re.compile(
    r"(?<![\w.~})/$-])/(?:work|workspace|root|Users|mnt|opt|srv|tmp)/\w+"  # a path of somebody's machine
    r"|\bissues? (?:show )?#?\d+\b",  # a number in a tracker, which says nothing to a reader of the code
    re.IGNORECASE,
)


def telling(text: str) -> list[str]:
    """Paths of a machine and numbers of a workplace."""
    return [match.group() for match in _TOLD.finditer(text)]


def test_nothing_tells_where_it_was_written():
    """No path of a machine and no number of a tracker in any text of the project, but in the canary below."""
    found = []
    for path in tracked():
        if path.suffix in TEXT and path.stat().st_size < 2**22 and path != Path(__file__):
            found += [f"{path.relative_to(ROOT)}: {word}" for word in telling(path.read_text("utf-8", "replace"))]
    assert found == []


@pytest.mark.parametrize("text", ["see /mnt/team/design.md", '"/workspace/a"', "as issue 12 says", "ls /tmp/x"])
def test_nothing_tells_where_it_was_written_canary(text):
    """Each kind is seen; relative paths, addresses and placeholders are not."""
    assert telling(text)
    assert not telling("in ../shared/tmp/x, out/tmp/a, $DIR/tmp/a, https://a.org/opt/b or /usr/lib, 2 issues")


# -- documents ---------------------------------------------------------------------------------------------------------


def blocks(text: str, language: str) -> list[str]:
    """Fenced code blocks of a language; those after a line with `<!-- not run -->` are left out."""
    fences = re.finditer(r"(<!-- not run -->\s*)?^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [fence[3] for fence in fences if fence[2] == language and not fence[1]]


def commands(text: str) -> list[list[str]]:
    """Words of each `mvv ...` and `make ...` line in the shell blocks, comments and continuations resolved."""
    lines = "\n".join(blocks(text, "sh")).replace("\\\n", " ").splitlines()
    parts = [part.split("#")[0].split() for line in lines for part in re.split(r"&&|;|\|", line)]
    return [[Path(words[0]).name, *words[1:]] for words in parts if words and Path(words[0]).name in ("mvv", "make")]


def documents() -> list[Path]:
    return [path for path in tracked() if path.suffix == ".md" and path.name != "CHANGELOG.md"]


@functools.cache
def mvv_help(command: str) -> str:
    program = "import sys; from mvv.cli import main; main(sys.argv[1:])"
    words = [sys.executable, "-c", program, *command.split(), "--help"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def unknown(words: list[str]) -> list[str]:
    """What a documented command line names and `--help` or the Makefile does not."""
    if words[0] == "make":
        targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))
        return [f"make {word}" for word in words[1:] if "=" not in word and word not in targets]
    if len(words) == 1 or words[1].startswith("-"):
        return []
    known = set(re.findall(r"^  mvv ((?:[a-z]+ )*[a-z]+)  +[A-Z]", mvv_help(""), re.MULTILINE))
    name = next((name for n in (3, 2, 1) if (name := " ".join(words[1 : 1 + n])) in known), "")
    if not name:
        return [" ".join(words[:3])]
    known = set(re.findall(r"--[a-z0-9.-]+", mvv_help(name)))
    return [f"mvv {name} {word}" for word in words if word.startswith("--") and word.split("=")[0] not in known]


def test_documented_commands_exist():
    """Every command and option in the documents, against the program's own help."""
    found = {str(path): commands(path.read_text("utf-8")) for path in documents()}
    assert len(found[str(ROOT / "README.md")]) > 10
    assert [(path, word) for path, lines in found.items() for words in lines for word in unknown(words)] == []


@pytest.mark.parametrize("line", ["mvv bulid x", "mvv build x --view 3", "make demonstration", "mvv assets mak"])
def test_documented_commands_exist_canary(line):
    """A misspelt command, option or target is seen."""
    [words] = commands(f"```sh\n{line}\n```")
    assert unknown(words)


def test_help_in_the_readme_is_the_programs():
    """The list of commands is printed by `mvv --help`; the README shows it as it is."""
    shown = [line for line in read("README.md").splitlines() if line.startswith("mvv ") and "  " in line]
    told = [line.strip() for line in mvv_help("").splitlines() if re.match(r"  mvv \w.*  ?[A-Z]", line)]
    assert told
    assert [line for line in told if not any(" ".join(line.split()) == " ".join(s.split()) for s in shown)] == []


def broken_links(path: Path, text: str) -> list[str]:
    """Relative links that lead nowhere; <!-- pending: ... --> marks what is still to be made."""
    pending = set(re.findall(r"<!-- pending: (\S+) -->", text))
    targets = re.findall(r"(?<!`)\]\(([^)#\s]+)", text) + re.findall(r'(?:src|href)="([^"#]+)"', text)
    local = [target for target in targets if "://" not in target and target not in pending]
    return [target for target in local if not (path.parent / target).exists()]


def test_metric_cards_in_the_docs_are_the_programs():
    """docs/metrics.md is what `mvv eval cards --format markdown` prints."""
    program = "from mvv.cli import main; main(['eval', 'cards', '--format', 'markdown'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert read("docs/metrics.md").endswith(done.stdout)


def test_links_lead_somewhere():
    """Files that documents point to exist."""
    found = {str(path): broken_links(path, path.read_text("utf-8")) for path in documents()}
    assert {path: links for path, links in found.items() if links} == {}


def test_links_lead_somewhere_canary():
    """A link to nothing is seen."""
    assert broken_links(ROOT / "README.md", "[x](docs/nowhere.md)")


@pytest.mark.parametrize("name", ["README.md", "docs/format.md"])
def test_python_in_the_documents_runs(name, tmp_path, monkeypatch):
    """The blocks of one document in order, in a folder with a dataset where the documents say one is."""
    from tests.tiny_dataset import make_tiny_dataset

    make_tiny_dataset(tmp_path / "out/demo/dataset", depth=True)
    monkeypatch.chdir(tmp_path)
    found = blocks(read(name), "python")
    assert found
    space: dict[str, object] = {}
    for number, source in enumerate(found):
        exec(compile(source, f"{name}, Python block {number}", "exec"), space)


def test_changelog_and_package_agree():
    """The newest entry is the version that pyproject.toml gives."""
    assert newest(read("CHANGELOG.md")) == tomllib.loads(read("pyproject.toml"))["project"]["version"]


def test_changelog_and_package_agree_canary():
    """The first heading with a version counts."""
    assert newest("# Changelog\n\n## 0.2.0\n\n## 0.1.0\n") == "0.2.0"


def newest(changelog: str) -> str:
    match = re.search(r"^## (\d+\.\d+\.\d+)", changelog, re.MULTILINE)
    return match[1] if match else ""


def test_setup_reads_the_doctors_list(monkeypatch):
    """`make setup` runs before anything can be imported and takes the list from the source; both must be one list."""
    from mvv.doctor import SYSTEM_LIBRARIES

    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    sys.modules.pop("setup", None)
    import setup

    assert setup.system_libraries() == SYSTEM_LIBRARIES
    monkeypatch.setattr(setup, "_loads", lambda name: name != "libGL.so.1")
    assert setup.missing_packages(SYSTEM_LIBRARIES) == ["libgl1"]


def test_make_help_names_every_target():
    """`make help` is made from the comments; a target without one is invisible."""
    targets = re.search(r"^\.PHONY: (.*)$", read("Makefile"), re.MULTILINE)
    assert targets
    done = subprocess.run(["make", "help"], capture_output=True, text=True, cwd=ROOT, check=True)
    assert set(re.findall(r"make ([a-z-]+) +\S", done.stdout)) == set(targets[1].split())
