"""Repeated augmentation."""

from mmengine.dist import get_dist_info, sync_random_seed
from timm.data.distributed_sampler import RepeatAugSampler
from torch.utils.data import Dataset

from ..registry import register


@register("DATA_SAMPLERS")
class RepeatedAugSampler(RepeatAugSampler):
    """timm's ``RepeatAugSampler`` (as in DeiT) for mmengine's dataloaders, on one process or many.

    An epoch has a ``num_repeats``-th of the images, each ``num_repeats`` times under different
    augmentations, spread over the processes.

    Args:
        seed: Seed of the order, the same on every process; None takes a random one.
        **kwargs: Further arguments of timm's sampler.
    """

    def __init__(
        self,
        dataset: Dataset,
        shuffle: bool = True,
        seed: int | None = None,
        num_repeats: int = 3,
        **kwargs,
    ):
        rank, world_size = get_dist_info()
        if len(dataset) < kwargs.get("selected_round", 256):
            kwargs["selected_round"] = 0  # older timm rounds a small dataset down to nothing
        self.seed = sync_random_seed() if seed is None else seed
        super().__init__(dataset, world_size, rank, shuffle, num_repeats=num_repeats, **kwargs)

    @property
    def epoch(self) -> int:
        """Seed of the order, which timm's sampler reads here."""
        return self.seed + self._epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._epoch = epoch
