"""Published vision transformers by name, as arguments of :class:`~tvit_seg.ThinkingViT`."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from ...utils.checks import check_choice
from ...weights.architecture import CLIP, DINOV3, EVA02

_TINY = dict(embed_dims=192, num_heads=3, thinking_stages=(2, 3))
_SMALL = dict(embed_dims=384, num_heads=6, thinking_stages=(3, 6))
_BASE = dict(embed_dims=768, num_heads=12, thinking_stages=(6, 12))

_DINOV2 = dict(img_size=518, patch_size=14, init_values=1e-5)
_REGISTERS = dict(reg_tokens=4, no_embed_class=True)
_DINOV3 = DINOV3 | dict(init_values=1e-5, reg_tokens=4, k_bias=False)
_CLIP = CLIP | dict(pre_norm=True, patch_bias=False)
_EVA02 = EVA02 | dict(patch_size=14, k_bias=False, mlp_ratio=4 * 2 / 3, mlp_layer="SwiGLUPacked")
_DEIT3 = dict(no_embed_class=True, init_values=1e-6)

ARCHS: dict[str, dict[str, Any]] = dict(
    clip_base=_BASE | _CLIP,
    clip_base_openai=_BASE | _CLIP | dict(act_cfg=dict(type="mmseg.QuickGELU")),
    deit3_base=_BASE | _DEIT3,
    deit3_small=_SMALL | _DEIT3,
    dinov2_base=_BASE | _DINOV2,
    dinov2_base_reg=_BASE | _DINOV2 | _REGISTERS,
    dinov2_small=_SMALL | _DINOV2,
    dinov2_small_reg=_SMALL | _DINOV2 | _REGISTERS,
    dinov3_base=_BASE | _DINOV3,
    dinov3_small=_SMALL | _DINOV3,
    dinov3_small_plus=_SMALL | _DINOV3 | dict(mlp_layer="SwiGLU"),
    eva02_base=_BASE | _EVA02 | dict(mlp_layer="SwiGLU", scale_mlp_norm=True),
    eva02_small=_SMALL | _EVA02,
    eva02_tiny=_TINY | _EVA02,
    mae_base=_BASE,
)
"""Arguments by name of the network; the first thinking stage has half of the heads, or 2 of 3."""


def with_arch(init: Callable) -> Callable:
    """Let the argument ``arch`` of a constructor set the defaults of all others."""

    @wraps(init)
    def with_defaults(self: Any, *args: Any, arch: str | None = None, **kwargs: Any) -> None:
        if arch is not None:
            kwargs = ARCHS[check_choice("arch", arch, ARCHS)] | kwargs
            # else a saved model would be built with the defaults of the signature
            self._hub_mixin_config.update(kwargs, arch=None)
        init(self, *args, **kwargs)

    return with_defaults
