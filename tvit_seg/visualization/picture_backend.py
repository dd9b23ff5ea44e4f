"""Pictures in a folder of the user's, and nothing else."""

from typing import Any

from mmengine.visualization import LocalVisBackend

from ..registry import register


@register("VISBACKENDS")
class PictureBackend(LocalVisBackend):
    """mmengine's ``LocalVisBackend`` that leaves no ``config.py`` among the pictures."""

    def add_config(self, config: Any, **kwargs: Any) -> None:
        """Write nothing: the work folder holds the config."""
