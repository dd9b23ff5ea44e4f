"""Models as folders, as on the Hugging Face hub: ``config.json``, ``model.safetensors``, a card."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelHubMixin, snapshot_download
from mmengine.registry import DefaultScope, Registry
from mmseg.registry import MODELS as MMSEG_MODELS
from mmseg.registry import TRANSFORMS
from safetensors.torch import load_file, save_file
from torch import nn

from .errors import CheckpointError, ConfigError
from .registry import GATES, MODELS, PRUNINGS
from .utils.checks import check
from .weights.architecture import read_architecture
from .weights.convert import convert_state_dict
from .weights.io import get_state_dict

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
LIBRARY = "tvit_seg"
_FILES = ("init_cfg", "pretrained", "checkpoint", "teacher")
"""Arguments that name files: a folder has all weights itself."""
_TRAINING = ("train_cfg", "pruning_loss", "distill", "init_cfg", "pretrained")
"""Arguments that are of no use once trained."""
# architecture of a folder in timm's format: our type
_TIMM = {
    "thinkingvit": "ThinkingViT",
    "swin_small_patch4_window7_224": "ThinkingSwin",
}


class HubMixin(ModelHubMixin):
    """``save_pretrained``, ``push_to_hub`` and ``from_pretrained`` of a model.

    Attributes:
        metadata: Saved along with the model, plain data: ``dataset_meta`` (classes and palette) and
            ``pipeline`` (of the test images), which :class:`~tvit_seg.inference.Predictor` needs.
    """

    metadata: dict[str, Any] = {}

    def _save_pretrained(self, save_directory: Path) -> None:
        config = dict(
            library_name=LIBRARY, model=model_config(self), metadata=_plain(self.metadata)
        )
        for wrong in _check(config):
            raise ConfigError(f"{type(self).__name__} cannot be saved: {wrong}")
        text = json.dumps(config, indent=2, sort_keys=True)
        own = self.state_dict()  # type: ignore[attr-defined]  # of the module that this is mixed in
        weights = get_state_dict(dict(state_dict=own))  # without teachers
        weights = {name: value.contiguous() for name, value in weights.items()}
        save_file(weights, save_directory / WEIGHTS, metadata=dict(format="pt"))
        (save_directory / CONFIG).write_text(text + "\n")

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs) -> nn.Module:
        """Load a model of this class, see :func:`from_pretrained`."""
        model = from_pretrained(pretrained_model_name_or_path, **kwargs)
        if not isinstance(model, cls):
            found = type(model).__name__
            raise CheckpointError(
                f"{pretrained_model_name_or_path} must hold a {cls.__name__}, got a {found}"
            )
        return model

    def generate_model_card(
        self,
        license: str = "other",
        data: str = "not stated",
        results: Sequence[Mapping[str, Any]] = (),
        costs: Sequence[float] = (),
        **kwargs,
    ) -> ModelCard:
        """Write the card: what the model is, how to load it, its costs and results.

        Args:
            license: Of the weights, as the hub spells it.
            data: That the model was trained on.
            results: Rows of a sweep, of :meth:`~tvit_seg.evaluation.sweep.Sweep.row`.
            costs: GMACs of an image that exits after each stage.
            **kwargs: Accepted for ``huggingface_hub``, unused.
        """
        name = type(self).__name__
        is_segmentor = hasattr(self, "decode_head")
        task = "image-segmentation" if is_segmentor else "image-classification"
        lines = [
            "---",
            f"library_name: {LIBRARY}",
            f"license: {license}",
            f"pipeline_tag: {task}",
            "tags: [early-exit, thinkingvit]",
            "---",
            f"# {name}",
            "",
            "A nested network that thinks before it spends: an image exits after the first stage "
            "that is certain.",
            "",
            "```python",
            "import tvit_seg",
            "",
            'model = tvit_seg.from_pretrained("this folder, or its name on the hub")',
            "```",
            "",
            f"- Training data: {data}",
            f"- Licence of the weights: {license}",
        ]
        if classes := self.metadata.get("dataset_meta", {}).get("classes"):
            lines.append(f"- Classes: {', '.join(classes)}")
        if len(costs):
            lines += ["", *_table([dict(stage=i, GMACs=gmacs) for i, gmacs in enumerate(costs)])]
        if results:
            lines += ["", "Quality and cost at gate thresholds:", "", *_table(results)]
        return ModelCard("\n".join(lines) + "\n")


def from_pretrained(
    folder_or_repo_id: str | Path,
    revision: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> nn.Module:
    """Load a backbone, classifier or segmentor, in evaluation mode.

    Args:
        folder_or_repo_id: A folder of ``save_pretrained``, or one in timm's format with the
            authors' weights; if there is no such folder, the name of a repository on the hub.
        revision: Branch, tag or commit on the hub.
        token: For private repositories.
        local_files_only: Use files downloaded earlier.

    Raises:
        CheckpointError: The folder is incomplete, of another architecture, or cannot be downloaded.
        ConfigError: Its config names something other than registered classes and plain data.
    """
    folder = Path(folder_or_repo_id)
    if not folder.is_dir():
        folder = _download(str(folder_or_repo_id), revision, token, local_files_only)
    config = read_config(folder)
    weights = load_file(_file(folder, WEIGHTS))
    if config.get("library_name") == LIBRARY:
        model = build(config["model"])
        model.metadata = config.get("metadata", {})
        try:
            # assign: values keep their precision
            model.load_state_dict(weights, assign=True)
        except RuntimeError as error:
            raise CheckpointError(f"{folder}: {WEIGHTS} is of another model: {error}") from error
    else:
        model = _build_timm(folder, config, weights)
    return model.eval()


def read_config(folder: Path) -> dict[str, Any]:
    """Read the config of a folder, plain data that names registered classes only."""
    path = _file(folder, CONFIG)
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    ours = isinstance(config, dict) and config.get("library_name") == LIBRARY
    known = ours and isinstance(config.get("model"), dict)
    if not (known or (isinstance(config, dict) and config.get("architecture") in _TIMM)):
        name = config.get("architecture") if isinstance(config, dict) else config
        raise CheckpointError(
            f"{path}: library_name must be {LIBRARY!r}, or architecture one of "
            f"{', '.join(map(repr, _TIMM))}, got {name!r}"
        )
    for wrong in _check(config):
        raise ConfigError(f"{path}: {wrong}")
    return config


def build(config: Mapping[str, Any]) -> nn.Module:
    """Build a model from a checked config."""
    with DefaultScope.overwrite_default_scope("mmseg"):
        return MODELS.build(dict(config))


def model_config(model: nn.Module) -> dict[str, Any]:
    """Config that builds a model again, as plain data, without what only training needs.

    Gate, pruning and ``test_cfg`` are the model's present ones.

    Raises:
        ConfigError: An argument is no plain data.
    """
    given: dict[str, Any] = dict(model._hub_mixin_config or {})
    backbone = getattr(model, "backbone", model)
    present: dict[str, Any] = dict(gate=describe(backbone.gate))
    if backbone.pruning is not None or "pruning" in given.get("backbone", given):
        present["pruning"] = backbone.pruning and backbone.pruning.config
    if "backbone" in given:
        given["backbone"] = {**given["backbone"], **present}
    else:
        given.update(present)
    if hasattr(model, "test_cfg"):
        given["test_cfg"] = model.test_cfg
    return _plain(dict(type=type(model).__name__, **given))


def describe(part: nn.Module) -> dict[str, Any]:
    """Config of a gate from its attributes, which have the names of its arguments."""
    values = {}
    for name in signature(type(part)).parameters:
        check(
            hasattr(part, name), f"{type(part).__name__} {name}", None, "an attribute, to be saved"
        )
        value = getattr(part, name)
        values[name] = describe(value) if isinstance(value, nn.Module) else value
    return dict(type=type(part).__name__, **values)


def _check(config: Any, path: str = "config", key: str = "") -> Iterator[str]:
    """Describe what must not be in a stranger's config."""
    if isinstance(config, Mapping):
        for name, value in config.items():
            if name == "type" and not _registered(value):
                yield f"{path}.type must be the name of a registered class, got {value!r}"
            elif name == "_scope_" or (name in _FILES and value):
                yield f"{path}.{name} must be absent, got {value!r}"
            yield from _check(value, f"{path}.{name}", name)
    elif isinstance(config, list):
        for i, value in enumerate(config):
            yield from _check(value, f"{path}[{i}]")


def _registered(name: Any) -> bool:
    registries: tuple[Registry, ...] = (MODELS, MMSEG_MODELS, GATES, PRUNINGS, TRANSFORMS)
    if not isinstance(name, str) or "." in name:
        return False
    return any(name in registry.module_dict for registry in _with_parents(registries))


def _with_parents(registries: Iterable[Registry]) -> Iterator[Registry]:
    for registry in registries:
        yield registry
        if registry.parent is not None:
            yield from _with_parents([registry.parent])


def _plain(value: Any, name: str = "config") -> Any:
    """Turn configs and tuples into JSON's own kinds."""
    if isinstance(value, Mapping):
        return {
            str(key): _plain(inner, f"{name}.{key}")
            for key, inner in value.items()
            if key not in _TRAINING
        }
    if isinstance(value, (list, tuple)):
        return [_plain(inner, f"{name}[{i}]") for i, inner in enumerate(value)]
    check(
        value is None or isinstance(value, (str, bool, int, float)),
        name,
        value,
        "plain data to be saved",
    )
    return value


def _build_timm(folder: Path, config: Mapping[str, Any], weights: Mapping) -> nn.Module:
    """Backbone with the authors' weights, from a folder in timm's format."""
    arguments = config.get("model_args") or {}
    stages = arguments.get("thinking_stages") or arguments.get("head_rounds")
    check(bool(stages), f"{folder / CONFIG}: thinking_stages or head_rounds", stages, "given")
    converted = convert_state_dict(weights)
    found = read_architecture(converted, thinking_stages=stages)
    if "slicing" in found:
        found["slicing"] = "leading"
    found.setdefault("num_classes", config.get("num_classes", 0))
    model = build(found)
    model.load_state_dict(convert_state_dict(weights, model), strict=False)
    return model


def _download(repo_id: str, revision: Any, token: Any, local_files_only: bool) -> Path:
    try:
        return Path(
            snapshot_download(
                repo_id,
                revision=revision,
                token=token,
                local_files_only=local_files_only,
                allow_patterns=[CONFIG, WEIGHTS, CARD],
            )
        )
    except (OSError, ValueError) as error:  # huggingface_hub's are of these
        raise CheckpointError(
            f"{repo_id} is no folder, and cannot be downloaded as a repository of the hub "
            f"({str(error).splitlines()[0]}). Where there is a network run: "
            f"hf download {repo_id} --local-dir FOLDER, and give the folder"
        ) from error


def _file(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise CheckpointError(f"{folder} must hold {CONFIG} and {WEIGHTS}; {name} is missing")
    return folder / name


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    names = list(rows[0])
    cells = [[f"{x:.4g}" if isinstance(x, float) else str(x) for x in r.values()] for r in rows]
    return [f"| {' | '.join(line)} |" for line in (names, ["---"] * len(names), *cells)]
