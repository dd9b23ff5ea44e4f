"""Packaging of tvit_seg."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "tvit_seg/__init__.py").read_text())[1]

setup(
    name="tvit_seg",
    version=VERSION,
    description="Segmentation backbones that think before they spend, for mmsegmentation",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["tvit_seg", "tvit_seg.*"]),
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
        "deploy": ["onnx", "onnxscript", "onnxruntime"],
        "test": ["hypothesis", "mypy", "pytest", "pytest-xdist", "ruff"],
    },
)
