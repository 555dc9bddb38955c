"""Risk: README and docs name commands that do not work: a misspelt target, key, option or name.

Nothing is run: make is asked what it would do, Hydra composes and checks a configuration, the
parsers of the other commands read their arguments, and Python is compiled.
"""

import argparse
import importlib
import re
import shlex
import subprocess

import pytest
from harness import CONF
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from own_make import CLEAN
from typer.testing import CliRunner

from bench import ROOT
from bench.errors import UserError
from bench.inputs import config
from bench.inputs.checks import known_keys, validate
from fskernel.command import checkout, work
from fskernel.command.app import app

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# The configuration of the commands that Hydra reads.
BY_HYDRA = {"run": config.Config, "search": config.SearchConf, "train": config.TrainConf}
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`([^`]+)`")


def blocks(text):
    """Fenced blocks as pairs of language and content."""
    return FENCE.findall(text)


def commands(text):
    """Every `make ...`, `fskernel ...`, `python bench/...` of a page, in fences and ticks."""
    lines = []
    for language, content in blocks(text):
        if language in ("", "sh", "bash", "console", "shell"):
            lines += content.replace("\\\n", " ").splitlines()
    lines += [" ".join(code.split()) for code in INLINE.findall(FENCE.sub("", text))]
    found = []
    for line in lines:
        for part in re.split(r"&&|;|\|(?!\|)", line.strip().removeprefix("$ ")):
            try:
                words = shlex.split(part, comments=True)
            except ValueError:
                continue  # prose between ticks with an apostrophe
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words.pop(0)  # variables of the environment
            script = words[1] if len(words) > 1 else ""
            python = bool(words) and re.fullmatch(r"(.*/)?python3?", words[0])
            if words and words[0] == "make" and len(words) > 1:
                found.append(words)
            elif python and script.startswith("bench/") and "..." not in words:
                found.append(words)
            elif python and words[1:3] == ["-m", "fskernel"] and len(words) > 3:
                found.append(["fskernel", *words[3:]])
            elif words and words[0] == "fskernel" and len(words) > 1:
                found.append(words)
    return found


FOUND = [(tuple(c), page.name) for page in PAGES for c in commands(page.read_text())]
CASES = {words: sorted({name for w, name in FOUND if w == words}) for words, _ in sorted(FOUND)}
PYTHON = [
    pytest.param(code, id=f"{page.name}-{i}")
    for page in PAGES
    for i, (language, code) in enumerate(blocks(page.read_text()))
    if language == "python"
]


def check_make(words):
    """As `make -n` sees it."""
    words = [word for word in words[1:] if not re.fullmatch(r"\(.*\)", word)]
    words = [word.removesuffix("...") for word in words]
    done = subprocess.run(
        ["make", "-n", *words], cwd=ROOT, env=CLEAN, capture_output=True, text=True, check=False
    )
    # This one works in a copy, which it makes first.
    known = words == ["oldest"] and "build/oldest: No such file or directory" in done.stderr
    assert done.returncode == 0 or known, done.stderr


def check_hydra(name, overrides):
    """Composes and checks a configuration; a sweep by the first of its values."""
    sweep = "-m" in overrides
    typed = [o for o in overrides if o not in ("-m", "--help", "--cfg", "job")]
    if sweep:
        typed = [re.sub(r"=([^\[{'\"(]*?),.*", r"=\1", o) for o in typed]
    config.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(name, typed)
        if name != "config":
            known_keys(cfg, OmegaConf.structured(BY_HYDRA[name]))
            return
        rows = list(cfg.rows)
        for row in rows or [""]:
            job = compose("config", [*typed, *shlex.split(row)])
            job.threads = 1  # this machine may have fewer cores
            validate(job)


class Parsed(Exception):
    """The arguments were understood."""


def check_parser(name, arguments, monkeypatch, capsys):
    """Lets a command read its arguments, and stops it there."""
    read = argparse.ArgumentParser.parse_args

    def stop(parser, given=None, namespace=None):
        read(parser, given, namespace)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    module = importlib.import_module(f"bench.{name}")
    try:
        module.main(list(arguments))
    except Parsed:
        return
    except SystemExit as done:
        assert done.code in (None, 0), capsys.readouterr().err
    else:
        pytest.fail(f"bench/{name}.py did not read its arguments by argparse")


def check_command(words, monkeypatch):
    """Lets `fskernel` read its arguments, and Hydra those that it passes on."""
    if len(words) == 2 and words[1] in [*work.WORK, "bench"]:
        return  # the command's name, in prose
    passed = []
    monkeypatch.setattr(work, "of", lambda command: lambda **asked: None)
    monkeypatch.setattr(checkout, "become_the_harness", passed.append)
    done = CliRunner().invoke(app, words[1:])
    assert done.exit_code == 0, done.output
    for arguments in passed:
        check_hydra("config", arguments)


def check(words, monkeypatch, capsys):
    if words[0] == "make":
        check_make(words)
        return
    if words[0] == "fskernel":
        check_command(words, monkeypatch)
        return
    path = ROOT / words[1]
    assert path.is_file(), f"there is no {words[1]}"
    if path.stem in BY_HYDRA:
        check_hydra("config" if path.stem == "run" else path.stem, words[2:])
    else:
        check_parser(path.stem, words[2:], monkeypatch, capsys)


def test_there_are_commands_to_check():
    assert len(CASES) > 30 and len(PYTHON) > 5
    kinds = {words[1] for words in CASES}
    assert {"bench", "test", "bench/run.py", "bench/search.py", "bench/tables.py"} <= kinds
    assert {"convert", "info", "run", "search", "fidelity"} <= kinds


@pytest.mark.parametrize(
    "words", CASES, ids=[f"{' '.join(words)} in {','.join(p)}" for words, p in CASES.items()]
)
def test_a_command_in_the_docs_is_understood(words, monkeypatch, capsys):
    check(list(words), monkeypatch, capsys)


@pytest.mark.parametrize("code", PYTHON)
def test_python_in_the_docs_compiles(code):
    compile(code, "docs", "exec")


@pytest.mark.parametrize(
    "wrong",
    [
        "make bensh",
        "make bench MODLE=resnet18",
        "python bench/run.py modle=resnet18",
        "python bench/run.py model=resnet20",
        "python bench/run.py experiment=demo K=99",
        "python bench/run.py neuron.aplha=3",
        "python bench/run.py rows=['K=4','K=44']",
        "python bench/search.py buget=0.01",
        "python bench/train.py model=cifar_resnet20 data.rot=DIR",
        "python bench/figures.py --modle cifar_resnet8",
        "python bench/gpu.py --ony rows",
        "python bench/nothing.py",
        "fskernel convrt resnet18 --images DIR",
        "fskernel convert resnet18 --image DIR",
        "fskernel convert resnet18 -K 17",
        "fskernel run net.safetensors",
        "fskernel bench modle=resnet18",
        "python -m fskernel nothing",
    ],
)
def test_a_misspelt_one_is_found(wrong, monkeypatch, capsys):
    (words,) = commands(f"Type `{wrong}` now.")
    with pytest.raises((Exception, SystemExit)) as found:
        check(words, monkeypatch, capsys)
    assert not isinstance(found.value, Parsed)


def test_the_citation_is_of_this_package():
    text = (ROOT / "CITATION.cff").read_text()
    cited = OmegaConf.create(text)
    assert cited["cff-version"] == "1.2.0" and cited.license == "Apache-2.0"
    assert [author.name for author in cited.authors] == ["fskernel contributors"]
    (paper,) = cited.references
    assert paper.title == "Classifying Images with Few Spikes per Neuron"
    assert paper.identifiers[0]["value"] == "arXiv:2002.00860"
    assert [a["family-names"] for a in paper.authors] == ["Stöckl", "Maass"]


def test_the_check_refuses_what_the_harness_refuses():
    with pytest.raises(UserError, match="data.root=/x"):
        check_hydra("config", ["data=samples", "data.root=/x"])
