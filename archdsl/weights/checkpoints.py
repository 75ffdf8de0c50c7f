"""What training scripts put into a checkpoint: where the weights are in it, and what is beside them.

Known are the wrappers of timm, torchvision's references, Lightning, Hugging Face's Trainer, DeepSpeed, and the scripts
of Swin and ConvNeXt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PLAIN = ("state_dict", "model", "model_state_dict", "model_state", "module", "network", "net", "weights", "params")
"""Keys of the weights as the optimiser left them."""
AVERAGED = (
    "state_dict_ema", "model_ema", "model_ema_state_dict", "ema_state_dict", "ema_model", "ema", "params_ema",
)  # fmt: skip
"""Keys of their moving average (EMA)."""
DEEPEST = 3
"""How many wrappers may stand in one another."""

PLAIN_OBJECTS = frozenset(
    {
        "argparse.Namespace",
        "types.SimpleNamespace",
        "builtins.object",
        "copyreg._reconstructor",
        "datetime.datetime",
        "datetime.timedelta",
        "pathlib.Path",
        "pathlib.PosixPath",
        "pathlib.PurePosixPath",
        "pathlib.WindowsPath",
        "pathlib._local.PosixPath",
        "pathlib._local.WindowsPath",
        "typing.Any",
        "numpy.dtype",
        "numpy.dtypes.Float32DType",
        "numpy.dtypes.Float64DType",
        "numpy.dtypes.Int64DType",
        "numpy.ndarray",
        "numpy.core.multiarray._reconstruct",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray._reconstruct",
        "numpy._core.multiarray.scalar",
        "omegaconf.base.ContainerMetadata",
        "omegaconf.base.Metadata",
        "omegaconf.dictconfig.DictConfig",
        "omegaconf.listconfig.ListConfig",
        "omegaconf.nodes.AnyNode",
        "transformers.training_args.TrainingArguments",
        "transformers.trainer_utils.HubStrategy",
        "transformers.trainer_utils.IntervalStrategy",
        "transformers.trainer_utils.SchedulerType",
    }
)
"""Settings and counters that training scripts keep beside the weights. Their place is held by an empty object."""
MAPPINGS = frozenset(
    {
        "collections.defaultdict",
        "yacs.config.CfgNode",
        "easydict.EasyDict",
        "addict.addict.Dict",
        "mmcv.utils.config.ConfigDict",
        "mmengine.config.config.ConfigDict",
        "pytorch_lightning.utilities.parsing.AttributeDict",
        "lightning.pytorch.utilities.parsing.AttributeDict",
        "lightning.fabric.utilities.data.AttributeDict",
        "lightning_fabric.utilities.data.AttributeDict",
    }
)
"""Kinds of dict that they use for the same."""
TYPES = frozenset({f"builtins.{name}" for name in ("bool", "dict", "float", "int", "list", "str", "tuple")})
"""Types that such objects name."""


@dataclass(frozen=True)
class Chosen:
    """The state dict that was taken from a checkpoint.

    key: where it was, such as `state_dict`; "" when it was the whole content
    averaged: whether it is a moving average
    beside: the keys of the other weights, averaged if `averaged` is not, and the other way round
    """

    state: dict[str, Any]
    key: str = ""
    averaged: bool = False
    beside: tuple[str, ...] = ()

    def note(self) -> str | None:
        """What was taken, in a sentence; None when there was nothing to choose from."""
        if not self.key:
            return None
        which = "the averaged weights (EMA)" if self.averaged else "the plain weights"
        if not self.beside:
            return f"{which} were taken, from {self.key!r}"
        other = "leave out --ema to take it" if self.averaged else "--ema takes it"
        return f"{which} were taken, from {self.key!r}, and not {', '.join(map(repr, self.beside))}; {other}"


def chosen(loaded: Any, *, ema: bool = False) -> Chosen:
    """The state dict in the content of a checkpoint: all of it, or what it holds under a known key.

    Args:
        ema: take a moving average where there is one
    Raises: ValueError when there is none
    """
    import torch

    keys: list[str] = []
    averaged = False
    beside: tuple[str, ...] = ()
    while len(keys) < DEEPEST and isinstance(loaded, Mapping):
        inside = {key: value for key, value in loaded.items() if isinstance(value, Mapping) and value}
        key = next((key for key in (AVERAGED + PLAIN if ema else PLAIN + AVERAGED) if key in inside), None)
        if key is None:
            others = [key for key, value in inside.items() if _is_state_dict(value)]
            if len(others) != 1 or any(isinstance(value, torch.Tensor) for value in loaded.values()):
                break
            key = others[0]
        if not keys:
            averaged = key in AVERAGED
            beside = tuple(other for other in (PLAIN if averaged else AVERAGED) if other in inside)
        keys.append(str(key))
        loaded = inside[key]
    if not isinstance(loaded, Mapping) or not loaded:
        raise ValueError(f"it holds a {type(loaded).__name__}, not a state dict")
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise ValueError(f"its entry {str(name)[:80]!r} is a {type(value).__name__}, not a tensor by name")
    return Chosen(dict(loaded), ".".join(keys), averaged, beside)


def _is_state_dict(value: Mapping[Any, Any]) -> bool:
    import torch

    return all(isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in value.items())
