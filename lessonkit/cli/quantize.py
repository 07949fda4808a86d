"""Commands that quantise a model on a calibration text: `gptq` and `awq`."""

from __future__ import annotations

import argparse
from typing import Any

from lessonkit.cli.arguments import Commands, add_command, add_force, path_of, positive, told


def _gptq(commands: Commands) -> None:
    def run(options: argparse.Namespace) -> int:
        from lessonkit.convert.gptq import Gptq, to_gptq
        from lessonkit.quantize.gptq import Order
        from lessonkit.quantize.grids import IntGrid

        grid = IntGrid(options.bits, options.group_size, options.sym, options.mse or None)
        order: Order = "act_group_aware" if options.act_group_aware else "natural"
        method = Gptq(
            grid,
            order="desc_act" if options.desc_act else order,
            static_groups=options.static_groups,
            damping=options.damp,
            true_sequential=options.true_sequential,
        )
        calibration = calibration_of(options)
        certificate = to_gptq(
            path_of(options.source), options.out, calibration, method,
            version=options.version, **_common(options),
        )  # fmt: skip
        return told(options.out, certificate)

    command = add_command(commands, "gptq", "4-bit weights that keep the layers' outputs", run)
    _add_source(command)
    _add(command, "--bits", type=int, choices=[2, 3, 4, 8], default=4)
    _add_group_size(command)
    _add(
        command,
        "--desc-act",
        type=_yes,
        default=False,
        metavar="0|1",
        help="round columns by falling activation; readers then need g_idx (default 0)",
    )
    _add(
        command,
        "--act-group-aware",
        type=_yes,
        default=True,
        metavar="0|1",
        help="the same inside groups, at no cost to readers (default 1)",
    )
    _add(
        command,
        "--static-groups",
        type=_yes,
        default=False,
        metavar="0|1",
        help="find all scales before anything is rounded (default 0)",
    )
    _add(
        command,
        "--sym",
        type=_yes,
        default=True,
        metavar="0|1",
        help="symmetric: the zero-point stands in the middle (default 1)",
    )
    _add(
        command,
        "--true-sequential",
        type=_yes,
        default=True,
        metavar="0|1",
        help="inside a layer too, see what is quantised already (default 1)",
    )
    _add(
        command,
        "--damp",
        type=float,
        default=0.05,
        metavar="SHARE",
        help="of the Hessian's mean diagonal, added to its diagonal (default 0.05)",
    )
    _add(
        command,
        "--mse",
        type=float,
        default=0.0,
        metavar="NORM",
        help="search each scale by this norm of the error; 2.4 is usual (default: no search)",
    )
    _add(
        command,
        "--version",
        type=int,
        choices=[1, 2],
        default=1,
        help="of the file format: 1 is AutoGPTQ's, 2 GPTQModel's gptq_v2",
    )
    _add_common(command)
    _add(command, "--use-fast", action="store_true", help="for old commands: it has no effect")


def _awq(commands: Commands) -> None:
    def run(options: argparse.Namespace) -> int:
        from lessonkit.convert.awq import Awq, to_awq
        from lessonkit.quantize.grids import AwqGrid

        method = Awq(
            AwqGrid(options.group_size),
            duo_scaling=options.duo_scaling,
            clip=options.clip,
            repeated_heads=options.repeated_heads,
            inputs=options.inputs,
            score=options.score,
        )
        calibration = calibration_of(options)
        certificate = to_awq(
            path_of(options.source), options.out, calibration, method, **_common(options)
        )
        return told(options.out, certificate)

    command = add_command(commands, "awq", "4-bit weights, scaled where activations are large", run)
    _add_source(command)
    _add_group_size(command)
    _add(
        command,
        "--duo-scaling",
        type=_yes,
        default=True,
        metavar="0|1",
        help="let the weights' magnitudes count too (default 1)",
    )
    command.add_argument(
        "--clip", type=_yes, default=True, metavar="0|1", help="search the ranges too (default 1)"
    )
    _add(
        command,
        "--repeated-heads",
        choices=["average", "leave"],
        default="average",
        help="o_proj where heads share values: one scale for them, or none, as AutoAWQ",
    )
    command.add_argument(
        "--inputs",
        choices=["unquantized", "quantized"],
        default="unquantized",
        help="of which model later layers are searched on (default unquantized, as AutoAWQ)",
    )
    command.add_argument(
        "--score",
        choices=["outputs", "block"],
        default="outputs",
        help="judge scales by the linear layers' outputs, or slowly by whole blocks'",
    )
    _add_common(command)


def _add_source(command: argparse.ArgumentParser) -> None:
    command.add_argument("source", metavar="HF_DIR", help="a folder, a Hub id, or mini")
    command.add_argument("out", metavar="OUT", help="the folder to make")
    command.add_argument(
        "calibration",
        metavar="CALIBRATION",
        nargs="?",
        help="island, wikitext, wikitext:validation, a text or .jsonl file, or a data set of the "
        "Hub's, owner/name:split (default: island for mini, else wikitext)",
    )


def _add_group_size(command: argparse.ArgumentParser) -> None:
    _add(
        command,
        "--group-size",
        type=int,
        default=128,
        metavar="N",
        help="weights that share a scale: 32, 64, 128, or -1 for a row (default 128)",
    )


def add_windows(command: argparse.ArgumentParser) -> None:
    """What is cut out of the calibration text."""
    _add(
        command,
        "--num-samples",
        type=positive,
        default=128,
        metavar="N",
        help="windows of the calibration text (default 128)",
    )
    _add(
        command,
        "--seqlen",
        type=positive,
        metavar="N",
        help="tokens in a window (default 2048, or all that the model can read)",
    )
    command.add_argument("--seed", type=int, default=0, help="chooses the windows (default 0)")
    command.add_argument("--language", choices=["en", "zh"], default="en", help="of the island")


def _add_common(command: argparse.ArgumentParser) -> None:
    """What both methods need: how to calibrate, where to compute, how to write."""
    add_windows(command)
    command.add_argument(
        "--dtype", metavar="D", help="round what is not quantised to float16, ... (default: do not)"
    )
    command.add_argument("--device", metavar="D", help="cpu, cuda, ... (default: cuda if any)")
    _add(
        command,
        "--compute-dtype",
        default="float32",
        metavar="D",
        help="what the layers compute in (default float32)",
    )
    _add(
        command,
        "--activations-on-disk",
        action="store_true",
        help="keep them beside the output, not in memory",
    )
    add_force(command)


def _add(command: argparse.ArgumentParser, name: str, **options: Any) -> None:
    """Add an option under its name and, as old commands have it, with underscores."""
    old = f"--{name.removeprefix('--').replace('-', '_')}"
    command.add_argument(name, *([] if old == name else [old]), **options)


def _yes(text: str) -> bool:
    """0 or 1."""
    if text not in ("0", "1"):
        raise argparse.ArgumentTypeError(f"{text} is neither 0 nor 1")
    return text == "1"


def calibration_of(options: argparse.Namespace) -> Any:
    """The windows that the options ask for."""
    from lessonkit.convert.calibration import SEQLEN, cut_calibration
    from lessonkit.models.calibration_sources import find_calibration
    from lessonkit.models.folder import read_model_folder
    from lessonkit.models.names import MINI
    from lessonkit.models.texts import ISLAND, WIKITEXT
    from lessonkit.models.tokenizer import load_tokenizer

    folder = read_model_folder(path_of(options.source))
    name = options.calibration or (ISLAND if options.source == MINI else WIKITEXT)
    seqlen = options.seqlen or min(SEQLEN, folder.config.get("max_position_embeddings", SEQLEN))
    return cut_calibration(
        load_tokenizer(folder.path), find_calibration(name, language=options.language),
        num_samples=options.num_samples, seqlen=seqlen, seed=options.seed,
    )  # fmt: skip


def _common(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "dtype": options.dtype,
        "device": options.device,
        "compute_dtype": options.compute_dtype,
        "activations_on_disk": options.activations_on_disk,
        "force": options.force,
    }


COMMANDS = (_gptq, _awq)
