"""What ``compress`` says of quantization after training, under Distiller's names.

Its annotations are no strings, as those of the other parts.
"""

from dataclasses import dataclass
from typing import Annotated

from raydistill.parts.setting import Role, Setting


def _free(help: str, option: str, *also: str, metavar: str | None = None, path: bool = False) -> Setting:
    return Setting(help, also, option, Role.FREE, metavar, path, searchable=False)


@dataclass(frozen=True, kw_only=True)
class PostTraining:
    """How a checkpoint is quantized, by the arguments of PostTrainLinearQuantizer; 0 bits leave floats."""

    quantize_eval: Annotated[bool, _free("Quantize --resume-from and test it.", "quantize-eval", "--qe")] = False
    calibration: Annotated[
        float | None,
        _free("Collect statistics on this part of the training data (0.05 unless said).", "qe-calibration"),
    ] = None
    mode: Annotated[str, _free("sym, sym_restr, asym_s or asym_u, of weights and activations.", "qe-mode", "--qem")] = (
        "sym"
    )
    mode_acts: Annotated[str | None, _free("Of activations.", "qe-mode-acts", "--qema")] = None
    mode_wts: Annotated[str | None, _free("Of weights.", "qe-mode-wts", "--qemw")] = None
    bits_acts: Annotated[int, _free("Bits of activations.", "qe-bits-acts", "--qeba", metavar="BITS")] = 8
    bits_wts: Annotated[int, _free("Bits of weights.", "qe-bits-wts", "--qebw", metavar="BITS")] = 8
    bits_accum: Annotated[int, _free("Bits of sums and of what is added.", "qe-bits-accum", metavar="BITS")] = 32
    clip_acts: Annotated[
        str, _free("none, avg, n_std, gauss, laplace, percentile or mse.", "qe-clip-acts", "--qeca")
    ] = "none"
    clip_n_stds: Annotated[float | None, _free("How many, of n_std.", "qe-clip-n-stds")] = None
    clip_percentile: Annotated[float, _free("What is inside, of percentile.", "qe-clip-percentile")] = 99.99
    no_clip_layers: Annotated[
        tuple[str, ...], _free("Layers that are not clipped, as fc,conv1.", "qe-no-clip-layers", "--qencl")
    ] = ()
    no_quant_layers: Annotated[
        tuple[str, ...], _free("Layers that stay floats, as fc,conv1.", "qe-no-quant-layers", "--qenql")
    ] = ()
    per_channel: Annotated[bool, _free("A range for each channel of a weight.", "qe-per-channel", "--qepc")] = False
    group_size: Annotated[
        int | None,
        _free("A range for so many inputs of each output, of weights alone (--qe-bits-acts 0).", "qe-group-size"),
    ] = None
    scale_approx_bits: Annotated[
        int | None, _free("Scales as a multiplier of so many bits.", "qe-scale-approx-bits", "--qesab", metavar="BITS")
    ] = None
    save_fp_weights: Annotated[bool, _free("Has no effect: float weights are always kept.", "qe-save-fp-weights")] = (
        False
    )
    stats_file: Annotated[str | None, _free("Statistics, of an earlier calibration.", "qe-stats-file", path=True)] = (
        None
    )
    dynamic: Annotated[bool, _free("Find ranges anew for each batch.", "qe-dynamic")] = False
    config_file: Annotated[
        str | None, _free("A file with a PostTrainLinearQuantizer, in place of these.", "qe-config-file", path=True)
    ] = None
    equalize: Annotated[bool, _free("Scale layers' channels against each other first.", "qe-equalize")] = False
    adaround: Annotated[
        int,
        _free("Steps in which each layer's rounding is learned; 0: to the nearest.", "qe-adaround", metavar="STEPS"),
    ] = 0
    gptq: Annotated[
        bool, _free("Let a layer's other weights make good what rounding each of them adds (GPTQ).", "qe-gptq")
    ] = False
    gptq_damping: Annotated[float, _free("Of its Hessian, a part of the mean of the diagonal.", "qe-gptq-damping")] = (
        0.01
    )
    bit_search: Annotated[
        str | None,
        _free("Search the bits of each weight among these, as 8,6,4,2.", "qe-bit-search", metavar="BITS"),
    ] = None
    bit_search_drop: Annotated[
        float, _free("How much worse than the float network it may be on validation.", "qe-bit-search-drop")
    ] = 0.01
    bias_correction: Annotated[bool, _free("Take off biases what rounding adds on average.", "qe-bias-correction")] = (
        False
    )
    lapq: Annotated[bool, _free("Search clipping values by the loss (LAPQ).", "qe-lapq", "--qe-coordinate-search")] = (
        False
    )
    lapq_maxiter: Annotated[int | None, _free("Iterations at most.", "lapq-maxiter")] = None
    lapq_maxfev: Annotated[int | None, _free("Evaluations of the loss at most.", "lapq-maxfev")] = None
    lapq_method: Annotated[str, _free("Powell, Nelder-Mead or COBYLA.", "lapq-method")] = "Powell"
    lapq_basinhopping: Annotated[
        bool, _free("Begin again somewhere near, several times.", "lapq-basinhopping", "--lapq-bh")
    ] = False
    lapq_basinhopping_niter: Annotated[int, _free("How often.", "lapq-basinhopping-niter", "--lapq-bh-niter")] = 100
    lapq_init_mode: Annotated[
        str, _free("LP, none, avg, gauss, laplace, L1, L2 or L3: where it begins.", "lapq-init-mode")
    ] = "none"
    lapq_eval_size: Annotated[
        float | None, _free("Part of the training data for the loss; left out, the calibration's.", "lapq-eval-size")
    ] = None
    lapq_search_clipping: Annotated[bool, _free("Both ends of a range by themselves.", "lapq-search-clipping")] = False
