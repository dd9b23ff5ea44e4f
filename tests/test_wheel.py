"""A built wheel has the command, configs and tools, and works from any folder."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import tvit

ROOT = Path(__file__).parents[1]
CONFIG = "thinkingvit_scenes-96x96"


def run(*command, cwd, **environment):
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": "", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Folder with a wheel and a source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    code = (
        "from setuptools.build_meta import build_sdist, build_wheel\n"
        f"build_sdist({str(folder)!r})\nbuild_wheel({str(folder)!r})"
    )
    source = tmp_path_factory.mktemp("source") / "tvit_seg"
    listed = run("git", "ls-files", "-z", "-co", "--exclude-standard", cwd=ROOT).split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    run(sys.executable, "-c", code, cwd=source)
    return folder


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """Scripts of an environment with the wheel, on top of the packages of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    paths = sysconfig.get_paths(vars=dict(base=str(folder), platbase=str(folder)))
    scripts, site = Path(paths["scripts"]), Path(paths["purelib"])
    wheel = next(built.glob("*.whl"))
    pip = (sys.executable, "-m", "pip", "--python", scripts / "python", "install", "--quiet")
    run(*pip, "--no-deps", "--no-index", wheel, cwd=folder)
    (site / "below.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return scripts


def test_help_names_every_script():
    for name, (script, _) in tvit.COMMANDS.items():
        assert (tvit.tools() / script).is_file(), script
        assert name in tvit.usage()


def test_an_unknown_command_is_named(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tvit", "trian"])
    with pytest.raises(SystemExit, match="trian"):
        tvit.main()


def test_versions_name_the_stack():
    found = tvit.versions()
    for name in ("tvit_seg", "torch", "mmengine", "mmcv", "mmsegmentation", "timm"):
        assert name in found


@pytest.mark.integration
def test_help_imports_nothing():
    code = (
        "import sys, tvit; sys.argv = ['tvit', '--help']; tvit.main(); print(sorted(sys.modules))"
    )
    modules = run(sys.executable, "-c", code, cwd=ROOT).splitlines()[-1]
    assert "'torch'" not in modules
    assert "'tvit_seg'" not in modules


@pytest.mark.slow
def test_contents(built):
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = wheel.namelist()
    with tarfile.open(next(built.glob("*.tar.gz"))) as source:
        sources = [name.partition("/")[2] for name in source.getnames()]
    for path in (*ROOT.glob("configs/**/*.py"), *ROOT.glob("tools/**/*.py")):
        name = str(path.relative_to(ROOT))
        assert name in sources
        assert (f"tvit_seg/.mim/{name}" in names) == ("tools/dev/" not in name)
    assert "tvit_seg/.mim/model-index.yml" in names
    assert "tvit_seg/visualization/report.html" in names
    assert "tvit_seg/visualization/report.html" in sources
    assert not any("tests/" in name or "__pycache__" in name for name in names)


@pytest.mark.slow
def test_first_steps_from_an_empty_folder(installed, tmp_path):
    tvit = installed / "tvit"
    options = ("--cfg-options", "train_cfg.max_iters=2", "train_dataloader.batch_size=2")
    counts = ("--num-train", "8", "--num-val", "4")
    run(tvit, "scenes", "data/scenes", "--size", "96", *counts, cwd=tmp_path)
    run(tvit, "train", CONFIG, "--work-dir", "run", *options, cwd=tmp_path)
    checkpoint = tmp_path / "run/iter_2.pth"
    table = run(tvit, "sweep", CONFIG, checkpoint, "--csv", "sweep.csv", cwd=tmp_path)
    assert "gmacs" in table
    assert len((tmp_path / "sweep.csv").read_text().splitlines()) == 6
    details = ("--config", CONFIG, "--data", "scenes", "--results", "sweep.csv")
    run(tvit, "publish", checkpoint, "hub", *details, cwd=tmp_path)
    code = "import tvit_seg; print(type(tvit_seg.from_pretrained('hub')).__name__)"
    loaded = run(installed / "python", "-c", code, cwd=tmp_path)
    assert loaded.split()[-1] == "ThinkingEncoderDecoder"
    options = ("--out-dir", "exported", "--format", "pt2", "--images", "data/scenes/img_dir/val")
    run(tvit, "export", CONFIG, checkpoint, *options, cwd=tmp_path)
    assert any((tmp_path / "exported").iterdir())
    where = run(
        installed / "python", "-c", "import tvit_seg; print(tvit_seg.__file__)", cwd=tmp_path
    )
    assert Path(where.strip()).is_relative_to(installed.parent)
