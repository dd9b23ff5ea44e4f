"""Packaging of tvit_seg."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "tvit_seg/__init__.py").read_text())[1]

# Where OpenMMLab's tools look for them: in a wheel, not in a checkout, which has them at its top.
EXTRAS = Path("tvit_seg/.mim")


class BuildWithExtras(build_py):
    """Build the package together with configs, tools and the index of models."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib, EXTRAS)
        shutil.rmtree(target, ignore_errors=True)
        skipped = shutil.ignore_patterns("__pycache__", "dev")
        for folder in ("configs", "tools"):
            shutil.copytree(ROOT / folder, target / folder, ignore=skipped)
        shutil.copy(ROOT / "model-index.yml", target)


setup(
    name="tvit_seg",
    version=VERSION,
    description="Segmentation backbones that think before they spend, for mmsegmentation",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["tvit_seg", "tvit_seg.*"]),
    package_data={"tvit_seg.visualization": ["report.html"]},
    py_modules=["tvit"],
    entry_points={"console_scripts": ["tvit = tvit:main"]},
    cmdclass={"build_py": BuildWithExtras},
    # Neither mm* distribution, nor opencv (mmcv brings it): both would break environments that
    # have another one of the same import name.
    install_requires=[
        "torch>=2.6",
        "timm>=1.0.23",
        "matplotlib",
        "numpy",
        "packaging",
        "pillow",
        "prettytable",
        "safetensors",
        "scipy",
        "tqdm",
    ],
    extras_require={
        "onedl": [
            "onedl-mmengine>=0.10.10",
            "onedl-mmcv>=2.3.3",
            "onedl-mmsegmentation>=1.4.0",
            "torchvision",
        ],
        "openmmlab": [
            "mmengine==0.10.7",
            "mmcv==2.1.0",
            "mmsegmentation==1.2.2",
            "ftfy",
            "regex",
            "setuptools<81",
            "torchvision",
        ],
        "report": ["plotly>=6"],
        "deploy": ["onnx", "onnxscript", "onnxruntime"],
        "test": ["hypothesis", "mypy", "pytest", "pytest-xdist", "ruff"],
    },
)
