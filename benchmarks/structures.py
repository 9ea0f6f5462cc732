"""What goes of a network where half of its structures are pruned (filters, neurons, heads, units), width, or blocks.

`CoupledPruner` masks half of the structures of every coupling (l1, mean over the parts), or a quarter of the channels
of its residual streams, or every fourth block is made one that does nothing; the network is then deployed as a sweep
deploys it. Weights are random (no weights can be had here), networks of transformers are small. Shown are parameters,
MACs and latency against the dense network's (medians, in turn, in one process), the largest difference of an output
from the masked network's and that of the exported ONNX file from the thinned network's, both relative to the largest
output; and what stays, with the reason.

    python benchmarks/structures.py [--only NAME ...] [--kinds cnn transformer recurrent] [--no-onnx] [--reasons]
    python benchmarks/structures.py --timm NAME[@SIZE] ... [--no-onnx] [--reasons]      # where timm is installed
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import logging
import re
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from raydistill.compression.deployment import deploy
from raydistill.compression.masks import MaskSet
from raydistill.compression.pruners import CoupledPruner, Moment
from raydistill.compression.rates import PolicyTime
from raydistill.compression.summaries import total_macs
from raydistill.compression.thinning.coupling import couplings

CNNS = (
    "resnet50", "densenet121", "mobilenet_v3_large", "efficientnet_b0", "convnext_tiny", "regnet_y_400mf",
    "shufflenet_v2_x1_0", "inception_v3", "googlenet", "vit_b_16", "swin_t", "swin_v2_t",
    "maxvit_t",
)  # fmt: skip
SIZES = {"inception_v3": 299}
IDS = torch.arange(36).view(2, 18) + 3
SMALL = {
    "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 128, "vocab_size": 99,
    "max_position_embeddings": 64,
}  # fmt: skip


class Logits(nn.Module):
    """A network of transformers that takes tensors and gives one."""

    def __init__(self, network: nn.Module, *names: str) -> None:
        super().__init__()
        self.network, self.names = network, names

    def forward(self, *inputs: Tensor) -> Tensor:
        given: dict[str, Any] = dict(zip(self.names, inputs, strict=True))
        if hasattr(self.network.config, "use_cache"):
            given["use_cache"] = False
        output = self.network(**given)
        return output.logits if hasattr(output, "logits") else output[0]


class Recurrent(nn.Module):
    """A bidirectional LSTM that classifies sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.out = nn.LSTM(32, 128, 2, batch_first=True, bidirectional=True), nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x)[0][:, -1])


class FirstOf(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.network(*inputs)[0]


Made = tuple[nn.Module, tuple[Tensor, ...]]


def networks() -> dict[str, tuple[str, Callable[[], Made]]]:
    """By name: the kind, and what makes the network and its inputs."""
    found: dict[str, tuple[str, Callable[[], Made]]] = {}
    for name in CNNS:
        found[name] = ("cnn", lambda name=name: _torchvision(name))  # type: ignore[misc]
    for name, make in _transformers().items():
        found[name] = ("transformer", make)
    found["word_lang_model"] = ("recurrent", _word_lang_model)
    found["bidirectional LSTM"] = ("recurrent", lambda: (Recurrent(), (torch.randn(4, 30, 32),)))
    return found


def _torchvision(name: str) -> Made:
    import torchvision

    options = {"aux_logits": False, "init_weights": False} if name in ("inception_v3", "googlenet") else {}
    size = SIZES.get(name, 224)
    return getattr(torchvision.models, name)(weights=None, **options), (torch.randn(1, 3, size, size),)


def _timm(named: str) -> Made:
    """NAME@SIZE; attention in patches is told the size of images, a network of convolutions takes any."""
    import timm

    name, _, size = named.partition("@")
    if not size:
        model = timm.create_model(name, pretrained=False)
        return model, (torch.randn(1, *model.pretrained_cfg["input_size"]),)
    images = (torch.randn(1, 3, int(size), int(size)),)
    try:
        return timm.create_model(name, pretrained=False, img_size=int(size)), images
    except TypeError:
        return timm.create_model(name, pretrained=False), images


def _word_lang_model() -> Made:
    from raydistill.models.word_lang_model import WordLangModel

    return WordLangModel(2000, 200, 200, 2), (torch.randint(0, 2000, (2, 35)),)


def _transformers() -> dict[str, Callable[[], Made]]:
    import transformers as t

    from raydistill.models.decoder_lm import DecoderLM

    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    image = torch.randn(1, 3, 64, 64)
    t.utils.logging.set_verbosity_error()

    def text(network: nn.Module, *more: str) -> Made:
        return Logits(network, "input_ids", *more), (IDS,) * (1 + len(more))

    def whisper() -> Made:
        config = t.WhisperConfig(
            d_model=64, encoder_layers=4, decoder_layers=4, encoder_attention_heads=4, decoder_attention_heads=4,
            encoder_ffn_dim=128, decoder_ffn_dim=128, vocab_size=99, num_mel_bins=8, max_source_positions=16,
            max_target_positions=32, decoder_start_token_id=1, **ends,
        )  # fmt: skip
        named = ("input_features", "decoder_input_ids")
        return Logits(t.WhisperForConditionalGeneration(config), *named), (torch.randn(2, 8, 32), IDS)

    def t5(config: Any, network: Any) -> Made:
        sizes = config(d_model=64, d_kv=16, d_ff=128, num_layers=4, num_heads=4, vocab_size=99)
        return text(network(sizes), "decoder_input_ids")

    def gpt2() -> Made:
        config = t.GPT2Config(n_embd=64, n_layer=4, n_head=4, vocab_size=99, n_positions=64, **ends)
        return text(t.GPT2LMHeadModel(config))

    def images(network: nn.Module) -> Made:
        return Logits(network, "pixel_values"), (image,)

    swin = {"image_size": 64, "patch_size": 4, "embed_dim": 32, "depths": [2, 2], "num_heads": [4, 4], "window_size": 4}
    convnext = {"image_size": 64, "patch_size": 4, "num_stages": 3, "hidden_sizes": [16, 32, 64], "depths": [2, 2, 2]}
    mamba2 = {
        "hidden_size": 64, "num_hidden_layers": 4, "vocab_size": 99, "state_size": 8, "num_heads": 8, "head_dim": 16,
        "n_groups": 1, "chunk_size": 16,
    }  # fmt: skip
    return {
        "decoder_lm": lambda: (DecoderLM(99, 64, 4, 4, 0.0, 64), (IDS,)),
        "BERT": lambda: text(t.BertForSequenceClassification(t.BertConfig(**SMALL))),
        "GPT-2": gpt2,
        "Llama (GQA)": lambda: text(t.LlamaForCausalLM(t.LlamaConfig(**SMALL, num_key_value_heads=2))),
        "Phi-3 (GQA)": lambda: text(t.Phi3ForCausalLM(t.Phi3Config(**SMALL, **ends, num_key_value_heads=2))),
        "ViT": lambda: images(t.ViTForImageClassification(t.ViTConfig(**{**SMALL, "image_size": 64, "patch_size": 8}))),
        "Swin": lambda: images(t.SwinForImageClassification(t.SwinConfig(**swin))),
        "ConvNeXt V2": lambda: images(t.ConvNextV2ForImageClassification(t.ConvNextV2Config(**convnext))),
        "T5": lambda: t5(t.T5Config, t.T5ForConditionalGeneration),
        "MT5": lambda: t5(t.MT5Config, t.MT5ForConditionalGeneration),
        "Whisper": whisper,
        "Mamba": lambda: text(
            t.MambaForCausalLM(t.MambaConfig(hidden_size=64, num_hidden_layers=4, vocab_size=99, state_size=8))
        ),
        "Mamba2": lambda: text(t.Mamba2ForCausalLM(t.Mamba2Config(**mamba2))),
    }


@torch.no_grad()
def unsettle(model: nn.Module) -> None:
    """Norms, biases and heads as training could have left them: an output that is zero hides every difference."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            parameter.add_(0.1 * torch.randn_like(parameter))
        elif "layer_scale" in name:
            parameter.fill_(0.5)
        elif parameter.abs().max() < 1e-3:
            parameter.normal_(0, 0.02)


def half_of_structures(model: nn.Module, inputs: Sequence[Tensor]) -> str:
    return masked(model, inputs, final_sparsity=0.5)


def a_quarter_of_width(model: nn.Module, inputs: Sequence[Tensor]) -> str:
    return masked(model, inputs, final_sparsity=0.25, structures="Embedding")


@torch.no_grad()
def masked(model: nn.Module, inputs: Sequence[Tensor], **arguments: Any) -> str:
    """Prune structures of it; what there was."""
    names = [name for name, parameter in model.named_parameters() if parameter.dim() > 1]
    pruner = CoupledPruner("masked", weights=names, **arguments)
    pruner.bind(model, inputs)
    masks = MaskSet(model)
    weights = {name: model.get_parameter(name).data for name in pruner.weights}
    for name, mask in pruner.masks(weights, Moment(PolicyTime(9, 0, 10, 1))).items():
        masks.set(name, mask)
    masks.apply()
    kinds = [each.kind for each in pruner.couplings]
    return ", ".join(f"{kinds.count(kind)} {kind.lower()}" for kind in dict.fromkeys(kinds))


_WRITES_BACK = re.compile(
    r"\b(\d+)\..*\b(out|out_proj|o_proj|o|c_proj|wo|fc2|down|down_proj|dense)\.(weight|bias)$"
)  # what a block of a transformer adds to its residual stream


@torch.no_grad()
def a_block_in_four(model: nn.Module, inputs: Sequence[Tensor]) -> str:
    """Zero what every fourth block writes back; which."""
    del inputs
    blocks = set()
    for name, parameter in model.named_parameters():
        found = _WRITES_BACK.search(name)
        if found and int(found[1]) % 4 == 2:
            parameter.zero_()
            blocks.add(found[1])
    if not blocks:
        raise ValueError("no block found")
    return f"blocks {', '.join(sorted(blocks))}"


def milliseconds(models: Sequence[nn.Module], inputs: Sequence[Tensor], seconds: float = 2.0) -> list[float]:
    """Median of each, in turn."""
    times: list[list[float]] = [[] for _ in models]
    end = time.perf_counter() + seconds
    with torch.inference_mode():
        for model in models:
            model(*inputs)
        while time.perf_counter() < end or len(times[0]) < 3:
            for model, own in zip(models, times, strict=True):
                begin = time.perf_counter()
                model(*inputs)
                own.append(time.perf_counter() - begin)
    return [statistics.median(own) * 1e3 for own in times]


def relative(expected: Tensor, found: Tensor) -> float:
    return float((expected - found).abs().max() / expected.abs().max().clamp_min(1e-12))


def through_onnx(model: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    """How far the exported and reloaded file is from the network."""
    import onnxruntime

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        program = torch.onnx.export(model, inputs, dynamo=True, verbose=False)
    assert program is not None
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    given = {each.name: tensor.numpy() for each, tensor in zip(session.get_inputs(), inputs, strict=False)}
    with torch.no_grad():
        return relative(model(*inputs), torch.from_numpy(session.run(None, given)[0]))


def measure(name: str, make: Callable[[], Made], prune: Callable[..., str], onnx: bool, reasons: bool) -> None:
    model, inputs = make()
    model.eval()
    unsettle(model)
    dense = copy.deepcopy(model)
    what = prune(model, inputs)
    first = lambda output: output[0] if isinstance(output, tuple) else output  # noqa: E731
    with torch.no_grad():
        masked = first(model(*inputs))
    begin = time.perf_counter()
    done = deploy(model, inputs)
    took = time.perf_counter() - begin
    with torch.no_grad():
        moved = relative(masked, first(model(*inputs)))
    sizes = [sum(parameter.numel() for parameter in each.parameters()) for each in (dense, model)]
    macs = [total_macs(each, inputs) for each in (dense, model)]
    speed = milliseconds((dense, model), inputs)
    exported = "-"
    if onnx:
        try:
            given = FirstOf(model) if isinstance(model(*inputs), tuple) else model
            exported = f"{through_onnx(given, inputs):.0e}"
        except Exception as error:  # the exporter's own
            exported = type(error).__name__[:9]
    shares = [100 * after / before for before, after in (sizes, macs, speed)]
    print(
        f"{name.partition('@')[0]:19} {sizes[0] / 1e6:8.2f} {shares[0]:6.1f} {shares[1]:6.1f} {shares[2]:6.1f}"
        f" {moved:8.0e} {exported:>9} {took:7.1f}",
        flush=True,
    )
    if reasons:
        print(f"    {what}")
        for reason, layers in _refused(dense, inputs).items():
            print(f"    {layers[0]}{f' and {len(layers) - 1} more' if len(layers) > 1 else ''}: {reason}")
        for line in done.notes:
            if "kept" in line:
                print(f"    {line[:150]}")


def _refused(model: nn.Module, inputs: Sequence[Tensor]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for layer, reason in couplings(model, tuple(inputs)).refused.items():
        found.setdefault(re.sub(r"\d+", "N", reason), []).append(layer)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=())
    parser.add_argument("--kinds", nargs="+", default=("cnn", "transformer", "recurrent"))
    parser.add_argument("--timm", nargs="+", default=())
    parser.add_argument("--no-onnx", action="store_true")
    parser.add_argument("--reasons", action="store_true")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    head = f"{'':19} {'millions':>8} {'par. %':>6} {'MACs %':>6} {'time %':>6} {'moved':>8} {'ONNX':>9} {'seconds':>7}"
    made: dict[str, tuple[str, Callable[[], Made]]]
    made = {name: ("timm", lambda name=name: _timm(name)) for name in arguments.timm} or networks()  # type: ignore[misc]
    arguments.kinds = ["timm"] if arguments.timm else arguments.kinds
    chosen = {n: each for n, each in made.items() if each[0] in arguments.kinds}
    if arguments.only:
        chosen = {name: each for name, each in chosen.items() if name in arguments.only}
    for title, prune, kinds in (
        ("half of all structures", half_of_structures, arguments.kinds),
        ("a quarter of the width", a_quarter_of_width, ("transformer", "timm")),
        ("one block in four", a_block_in_four, ("transformer",)),
    ):
        print(f"{title}\n{head}")
        for name, (kind, make) in chosen.items():
            if kind in kinds:
                try:
                    measure(name, make, prune, not arguments.no_onnx, arguments.reasons)
                except Exception as error:
                    print(f"{name:19} {type(error).__name__}: {str(error).splitlines()[0][:100]}", flush=True)


if __name__ == "__main__":
    main()
