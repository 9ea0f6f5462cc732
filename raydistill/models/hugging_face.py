"""A network of the transformers library from a local folder; nothing is downloaded, and no code of the folder runs."""

from __future__ import annotations

import json
from pathlib import Path

from torch import nn

from raydistill.errors import ABSENT, ConfigError, Fault, close_match


def hugging_face(
    folder: str, num_classes: int | None = None, architecture: str | None = None, weights: bool = True, **config: object
) -> nn.Module:
    """The class of transformers that the folder's ``config.json`` names, with the folder's weights; as an architecture
    it is ``raydistill.models.hugging_face:hugging_face``.

    num_classes: of a classifier, its ``num_labels``. architecture: another class of transformers, such as
    ``AutoModelForImageClassification`` with a head of its own. weights: False leaves them out. config: what is said
    otherwise than in ``config.json``.

    Raises:
        ConfigError: transformers is missing, there is no such folder or class, or it is no network.
    """
    try:
        import transformers
    except ImportError as error:
        way_out = "pip install 'raydistill[transformers]'"
        raise ConfigError(Fault("hugging_face", "needs the package transformers", ABSENT, way_out)) from error
    path = Path(folder)
    try:
        said = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ConfigError(
            Fault("folder", "has no config.json that can be read", folder, "name a model's folder")
        ) from error
    named = architecture or next(iter(said.get("architectures") or ()), None) if isinstance(said, dict) else None
    if not isinstance(named, str):
        raise ConfigError(Fault("architecture", "is not said by config.json", ABSENT, "give it"))
    kind = getattr(transformers, named, None)
    if not isinstance(kind, type) or not hasattr(kind, "from_pretrained") or "Model" not in f"{kind.__mro__} {named}":
        way_out = close_match(named, [name for name in dir(transformers) if "For" in name])
        raise ConfigError(Fault("architecture", "is no network of transformers", named, way_out))
    if num_classes is not None:
        config = {"num_labels": num_classes, **config}
    options = {"local_files_only": True, "trust_remote_code": False}
    transformers.utils.logging.disable_progress_bar()
    try:
        if weights:
            network = kind.from_pretrained(folder, **options, use_safetensors=_has_safetensors(path), **config)  # nosec B615 - local files only
        else:
            settings = transformers.AutoConfig.from_pretrained(folder, **options, **config)  # nosec B615
            network = kind.from_config(settings) if hasattr(kind, "from_config") else kind(settings)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(Fault("folder", f"cannot be loaded ({reason})", folder)) from error
    if not isinstance(network, nn.Module):
        raise ConfigError(Fault("architecture", "is no network", named))
    return network.float()


def _has_safetensors(folder: Path) -> bool | None:
    return True if any(folder.glob("*.safetensors")) else None
